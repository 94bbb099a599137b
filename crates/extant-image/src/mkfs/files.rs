//! The files of a new file system: directories, journal, and those that belong to features.
//!
//! Each one takes its inode and its blocks, and says what is to be written into them; the order is that of mke2fs, so
//! that blocks come out at the same places.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use extant_format::cast::{u64_from, usize_from};
use extant_format::inode::{self, BLOCK_AREA_BYTES, InodeRecord, KNOWN_EXTRA_BYTES};
use extant_format::jbd2::RawJournalSuperblock;
use extant_format::quota::QuotaKind;
use extant_format::{
    BlockGroup, FileType, Geometry, Incompat, InodeFlags, InodeNumber, PhysicalBlock, Timestamp,
    orphan,
};
use zerocopy::IntoBytes;

use super::directory::{self, Name};
use super::map::{FileMap, push_run, put_pointer};
use super::quota::Usage;
use super::sizes::{FIRST_INODE, JournalLen};
use super::space::Space;

/// A file with everything that is written for it.
#[derive(Clone, Debug)]
pub(super) struct PlannedFile {
    pub(super) number: InodeNumber,
    pub(super) record: InodeRecord,
    pub(super) map: FileMap,
    /// Whether its blocks are zeroed before its bytes are written.
    pub(super) zero: bool,
    /// What it begins with: whole blocks.
    pub(super) bytes: Vec<u8>,
}

/// What a file is, apart from its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) links: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) flags: InodeFlags,
}

impl Attributes {
    /// A file of root's, with one name or none, which nobody else may look at.
    pub(super) fn internal() -> Self {
        let mode = FileType::Regular.mode_bits() | 0o600;
        Self { mode, links: 1, uid: 0, gid: 0, flags: InodeFlags::empty() }
    }

    pub(super) fn directory(permissions: u16, links: u16) -> Self {
        let mode = FileType::Directory.mode_bits() | permissions;
        Self { mode, links, ..Self::internal() }
    }
}

/// Makes files, one after the other.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) space: Space,
    pub(super) all: Vec<PlannedFile>,
    time_seconds: u32,
    next_inode: u32,
}

impl<'a> Files<'a> {
    /// None yet; all inodes up to `lost+found`'s are in use.
    pub(super) fn new(geometry: &'a Geometry, space: Space, time_seconds: u32) -> Self {
        Self { geometry, space, all: Vec::new(), time_seconds, next_inode: FIRST_INODE }
    }

    /// The next inode that is free; `None` if there is none.
    pub(super) fn new_inode(&mut self) -> Option<InodeNumber> {
        let number = InodeNumber::new(self.next_inode)?;
        self.next_inode += 1;
        (number.get() <= self.geometry.inodes_count).then_some(number)
    }

    /// The last inode that is in use.
    pub(super) fn last_inode(&self) -> u32 {
        (self.next_inode - 1).max(FIRST_INODE)
    }

    /// Where a file's blocks should be: in the group of its inode, or at the front of that one's flex group.
    fn goal_of(&self, number: InodeNumber) -> u64 {
        let group = self.geometry.inode_place(number).map_or(0, |(group, _)| group.get());
        let flex = self.geometry.flex_size();
        self.geometry.first_block_of(BlockGroup(group / flex * flex)).get()
    }

    /// Adds a file of `size` bytes with these blocks.
    pub(super) fn add(
        &mut self,
        number: InodeNumber,
        attributes: Attributes,
        size: u64,
        map: FileMap,
    ) -> &mut PlannedFile {
        let has_extents = self.geometry.incompat.contains(Incompat::EXTENTS);
        let mut record = self.record(attributes);
        record.size = size;
        record.block = map.area;
        record.blocks = map.taken << (self.geometry.block_bits - 9);
        if has_extents && ![InodeNumber::BAD_BLOCKS, InodeNumber::RESIZE].contains(&number) {
            record.flags |= InodeFlags::EXTENTS;
        }
        self.all.push(PlannedFile { number, record, map, zero: false, bytes: Vec::new() });
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// Adds a file that begins with `bytes` and is so long; `None` if there is no room.
    pub(super) fn add_bytes(
        &mut self,
        number: InodeNumber,
        attributes: Attributes,
        mut bytes: Vec<u8>,
    ) -> Option<&mut PlannedFile> {
        let size = u64_from(bytes.len());
        bytes.resize(bytes.len().next_multiple_of(self.geometry.block_len()), 0);
        let blocks = u64_from(bytes.len()) >> self.geometry.block_bits;
        let goal = self.goal_of(number);
        let map = FileMap::place(self.geometry, &mut self.space, number, goal, blocks)?;
        let file = self.add(number, attributes, size, map);
        file.bytes = bytes;
        Some(file)
    }

    /// Adds a directory.
    pub(super) fn add_directory(
        &mut self,
        number: InodeNumber,
        parent: InodeNumber,
        attributes: Attributes,
        names: &[Name],
        least_blocks: usize,
    ) -> Option<()> {
        let bytes = directory::blocks(self.geometry, number, parent, names, least_blocks);
        self.add_bytes(number, attributes, bytes).map(drop)
    }

    /// Gives a directory that is there other names, and more blocks if it needs them.
    pub(super) fn rename(
        &mut self,
        number: InodeNumber,
        parent: InodeNumber,
        names: &[Name],
        links: u16,
    ) -> Option<()> {
        let geometry = self.geometry;
        let bytes = directory::blocks(geometry, number, parent, names, 1);
        let blocks = u64_from(bytes.len()) >> geometry.block_bits;
        let goal = self.goal_of(number);
        let file = self.all.iter_mut().find(|file| file.number == number)?;
        let mut runs = core::mem::take(&mut file.map.runs);
        let mut done = runs.iter().map(|run| u64::from(run.blocks.len())).sum();
        while done < blocks {
            let run = self.space.take_some(goal, blocks - done)?;
            done = push_run(&mut runs, done, run)?;
        }
        file.map = FileMap::of_runs(geometry, &mut self.space, number, runs, goal)?;
        file.record.size = u64_from(bytes.len());
        file.record.links = links;
        file.record.block = file.map.area;
        file.record.blocks = file.map.taken << (geometry.block_bits - 9);
        file.bytes = bytes;
        Some(())
    }

    /// Adds the inode of the bad blocks.
    pub(super) fn add_bad_blocks(&mut self, bad: &[u32]) -> Option<()> {
        let map = match bad {
            [] => FileMap::empty(self.geometry, InodeNumber::BAD_BLOCKS),
            _ => FileMap::of_blocks(self.geometry, &mut self.space, bad)?,
        };
        let size = u64_from(bad.len()) << self.geometry.block_bits;
        let nothing = Attributes { mode: 0, links: 0, ..Attributes::internal() };
        let record = &mut self.add(InodeNumber::BAD_BLOCKS, nothing, size, map).record;
        (record.extra_isize, record.crtime) = (0, None);
        Some(())
    }

    /// Adds the inode that owns the reserved descriptor blocks: its double indirect block points to each of them in the
    /// first group, and that one to its own copies in the groups with a backup.
    pub(super) fn add_resize(&mut self) -> Option<()> {
        let geometry = self.geometry;
        let first = geometry.descriptor_block(0).get() + u64::from(geometry.desc_blocks);
        let room = u64::from(geometry.reserved_gdt_blocks);
        let goal = first + room + 1 + u64::from(geometry.itable_blocks());
        let double_indirect = self.space.place(goal, 1)?;
        let with_copy = |group: &BlockGroup| group.get() > 0 && geometry.has_super(*group);
        let zero = geometry.first_block_of(BlockGroup(0)).get();
        let away: Vec<u64> = geometry
            .groups()
            .filter(with_copy)
            .map(|group| geometry.first_block_of(group).get() - zero)
            .collect();
        let mut map =
            FileMap { area: [0; BLOCK_AREA_BYTES], nodes: Vec::new(), runs: Vec::new(), taken: 0 };
        put_pointer(&mut map.area, DOUBLE_INDIRECT_SLOT, double_indirect);
        let mut pointers = vec![0; geometry.block_len()];
        for n in 0..geometry.reserved_gdt_blocks {
            let block = first + u64::from(n);
            let slot = usize_from((geometry.desc_blocks + n) % (geometry.block_size / 4));
            put_pointer(&mut pointers, slot, block);
            let mut copies = vec![0; geometry.block_len()];
            for (slot, away) in away.iter().enumerate() {
                put_pointer(&mut copies, slot, block + away);
            }
            map.nodes.push((block, copies));
        }
        map.nodes.push((double_indirect, pointers));
        let copies = u64_from(away.len()) + 1;
        map.taken = (1 + room * copies) << geometry.cluster_bits;
        let per_block = u64::from(geometry.block_size / 4);
        let size = (12 + per_block + per_block * per_block) << geometry.block_bits;
        self.add(InodeNumber::RESIZE, Attributes::internal(), size, map);
        Some(())
    }

    /// Adds the journal: clean, and zeros where old blocks could be mistaken for its own.
    pub(super) fn add_journal(&mut self, len: JournalLen, goal: u64, is_lazy: bool) -> Option<()> {
        let (number, blocks) = (InodeNumber::JOURNAL, u64::from(len.all));
        let map = FileMap::place(self.geometry, &mut self.space, number, goal, blocks)?;
        let size = blocks << self.geometry.block_bits;
        let mut raw =
            RawJournalSuperblock::blank(self.geometry.block_size, len.all, self.geometry.uuid);
        raw.num_fc_blocks = len.fast_commit.into();
        let mut bytes = raw.as_bytes().to_vec();
        bytes.resize(self.geometry.block_len(), 0);
        let file = self.add(number, Attributes::internal(), size, map);
        (file.zero, file.bytes) = (!is_lazy, bytes);
        Some(())
    }

    /// Adds the orphan file, and returns its inode.
    pub(super) fn add_orphan_file(&mut self, len: u32) -> Option<InodeNumber> {
        let number = self.new_inode()?;
        let geometry = self.geometry;
        let map = FileMap::place(geometry, &mut self.space, number, 0, len.into())?;
        let seed = inode::inode_seed(geometry.csum_seed, number, 0);
        let mut bytes = vec![0; usize_from(len) * geometry.block_len()];
        for (index, block) in (0..len).zip(bytes.chunks_mut(geometry.block_len())) {
            orphan::init(block);
            if geometry.has_metadata_csum() {
                orphan::set_checksum(block, seed, PhysicalBlock::new(map.block(index)?));
            }
        }
        let size = u64::from(len) << geometry.block_bits;
        let file = self.add(number, Attributes::internal(), size, map);
        file.bytes = bytes;
        Some(number)
    }

    /// Adds a quota file for these owners; what they use comes when all files are there.
    pub(super) fn add_quota(
        &mut self,
        number: InodeNumber,
        kind: QuotaKind,
        owners: &[u32],
    ) -> Option<()> {
        let immutable = Attributes { flags: InodeFlags::IMMUTABLE, ..Attributes::internal() };
        self.add_bytes(number, immutable, Usage::of(owners).file(kind)).map(drop)
    }

    /// Puts into a quota file what the files use; it has as many blocks as before.
    pub(super) fn count_quota(
        &mut self,
        number: InodeNumber,
        kind: QuotaKind,
        internal: &[InodeNumber],
    ) {
        let usage = self.usage(kind, internal);
        let block_len = self.geometry.block_len();
        if let Some(file) = self.all.iter_mut().find(|file| file.number == number) {
            let mut bytes = usage.file(kind);
            bytes.resize(bytes.len().next_multiple_of(block_len), 0);
            file.bytes = bytes;
        }
    }

    /// What users' files use: the root directory, and whatever is no file of the file system's own.
    fn usage(&self, kind: QuotaKind, internal: &[InodeNumber]) -> Usage {
        let mut usage = Usage::default();
        let is_counted = |file: &&PlannedFile| {
            let number = file.number;
            let is_users = number == InodeNumber::ROOT || number.get() >= FIRST_INODE;
            is_users && !internal.contains(&number)
        };
        self.all.iter().filter(is_counted).for_each(|file| usage.add(kind, &file.record));
        usage
    }

    /// How many directories each group has.
    pub(super) fn directories(&self) -> BTreeMap<BlockGroup, u32> {
        let mut counts = BTreeMap::new();
        for file in &self.all {
            if file.record.file_type() == Some(FileType::Directory)
                && let Some((group, _)) = self.geometry.inode_place(file.number)
            {
                *counts.entry(group).or_default() += 1;
            }
        }
        counts
    }

    fn record(&self, attributes: Attributes) -> InodeRecord {
        let time = Timestamp { seconds: self.time_seconds.into(), nanoseconds: 0 };
        let extra = if self.geometry.inode_size > 128 { KNOWN_EXTRA_BYTES } else { 0 };
        InodeRecord {
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            size: 0,
            links: attributes.links,
            blocks: 0,
            flags: attributes.flags,
            file_acl: None,
            generation: 0,
            version: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: (extra > 0).then_some(time),
            dtime: 0,
            projid: 0,
            extra_isize: extra,
            block: [0; BLOCK_AREA_BYTES],
        }
    }
}

pub(super) const LOST_AND_FOUND: InodeNumber = InodeNumber::new(FIRST_INODE).expect("not zero");
const DOUBLE_INDIRECT_SLOT: usize = 13;
