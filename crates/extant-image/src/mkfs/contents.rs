//! The first inodes and directories, and the blocks that the resize inode points to.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::directory::{self, DirLayout, NewEntry};
use extant_format::extent::NodeMut;
use extant_format::inode::{self, BLOCK_AREA_BYTES, InodeRecord, KNOWN_EXTRA_BYTES};
use extant_format::{
    BlockGroup, Extent, ExtentState, FileType, Geometry, InodeFlags, InodeNumber, LogicalRange,
    PhysicalBlock, Timestamp,
};

use super::layout::Layout;

/// Builds the bytes of what a new file system holds.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    layout: &'a Layout,
    geometry: &'a Geometry,
}

impl<'a> Contents<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, geometry: &layout.geometry }
    }

    /// The blocks of the first inode table that hold the reserved inodes and `lost+found`.
    pub(super) fn inodes(&self) -> Vec<u8> {
        let inode_len = usize_from(self.geometry.inode_size);
        let used = usize_from(self.geometry.first_inode) * inode_len;
        let mut table = vec![0; used.next_multiple_of(self.geometry.block_len())];
        let mut put = |number: InodeNumber, record: &InodeRecord| {
            let at = usize_from(number.get() - 1) * inode_len;
            let bytes = &mut table[at..at + inode_len];
            record.encode(bytes, self.geometry).expect("the sizes of these files fit any inode");
            if self.geometry.has_metadata_csum() {
                inode::set_checksum(bytes, inode::inode_seed(self.geometry.csum_seed, number, 0));
            }
        };
        put(
            InodeNumber::BAD_BLOCKS,
            &InodeRecord { extra_isize: 0, crtime: None, ..self.record(0, 0, 0) },
        );
        put(InodeNumber::ROOT, &self.root_inode());
        put(LOST_AND_FOUND, &self.lost_and_found_inode());
        if let Some(block) = self.layout.resize {
            put(InodeNumber::RESIZE, &self.resize_inode(block));
        }
        if let Some(record) = self.journal_inode() {
            put(InodeNumber::JOURNAL, &record);
        }
        table
    }

    /// The journal's inode, if it has one; its block area goes into the superblock too.
    pub(super) fn journal_inode(&self) -> Option<InodeRecord> {
        let journal = self.layout.journal.as_ref()?;
        let bytes = u64::from(journal.len) << self.geometry.block_bits;
        let mut record = self.record(FileType::Regular.mode_bits() | 0o600, 1, bytes);
        record.flags = InodeFlags::EXTENTS;
        record.blocks += u64::from(journal.node.is_some()) * self.sectors_in_block();
        match journal.node {
            None => fill_node(&mut record.block, &journal.extents),
            Some(node) => {
                let mut root = NodeMut::init(&mut record.block, 1);
                let first = journal.extents[0].blocks.start();
                let index = extant_format::extent::Index { first, child: PhysicalBlock::new(node) };
                assert!(root.insert(0, index), "an empty root has room");
            }
        }
        Some(record)
    }

    /// The journal's extent block, if it has one.
    pub(super) fn journal_node(&self) -> Option<(u64, Vec<u8>)> {
        let journal = self.layout.journal.as_ref()?;
        let mut bytes = vec![0; self.geometry.block_len()];
        fill_node(&mut bytes, &journal.extents);
        if self.geometry.has_metadata_csum() {
            let seed = inode::inode_seed(self.geometry.csum_seed, InodeNumber::JOURNAL, 0);
            extant_format::extent::set_block_checksum(&mut bytes, seed);
        }
        Some((journal.node?, bytes))
    }

    /// The root directory's block.
    pub(super) fn root_directory(&self) -> Vec<u8> {
        let mut block = self.directory(InodeNumber::ROOT, true);
        let entry = NewEntry {
            name: b"lost+found",
            inode: LOST_AND_FOUND,
            file_type: FileType::Directory,
            hash: (0, 0),
        };
        let place = extant_format::Place::Inode(InodeNumber::ROOT);
        let added = directory::insert(&mut block, self.directory_layout(), place, &entry);
        assert!(matches!(added, Ok(Some(_))), "an empty block has room for one more entry");
        self.seal_directory(InodeNumber::ROOT, &mut block);
        block
    }

    /// The blocks of `lost+found`: all but the first are empty, so that a check finds room without allocating.
    pub(super) fn lost_and_found(&self) -> Vec<u8> {
        let len = self.layout.lost_and_found.end - self.layout.lost_and_found.start;
        (0..len)
            .flat_map(|n| {
                let mut block = self.directory(LOST_AND_FOUND, n == 0);
                self.seal_directory(LOST_AND_FOUND, &mut block);
                block
            })
            .collect()
    }

    /// What the resize inode's double indirect block and the reserved descriptor blocks hold: each of the latter points to
    /// its own copies in the groups with a backup.
    pub(super) fn resize_blocks(&self) -> Vec<(u64, Vec<u8>)> {
        let Some(double_indirect) = self.layout.resize else { return Vec::new() };
        let backups: Vec<u64> = self.backups().collect();
        let first = u64::from(self.first_reserved());
        let mut blocks = Vec::new();
        let mut pointers = vec![0; self.geometry.block_len()];
        for n in 0..self.geometry.reserved_gdt_blocks {
            let block = first + u64::from(n);
            let slot = usize_from((self.geometry.desc_blocks + n) % (self.geometry.block_size / 4));
            put_pointer(&mut pointers, slot, block);
            let mut copies = vec![0; self.geometry.block_len()];
            for (slot, start) in backups.iter().enumerate() {
                put_pointer(&mut copies, slot, block + start);
            }
            blocks.push((block, copies));
        }
        blocks.push((double_indirect, pointers));
        blocks
    }

    fn root_inode(&self) -> InodeRecord {
        let bytes = u64::from(self.geometry.block_size);
        self.with_extent(
            self.record(FileType::Directory.mode_bits() | 0o755, 3, bytes),
            self.layout.root,
        )
    }

    fn lost_and_found_inode(&self) -> InodeRecord {
        let blocks = self.layout.lost_and_found.clone();
        let bytes = (blocks.end - blocks.start) << self.geometry.block_bits;
        self.with_extent(
            self.record(FileType::Directory.mode_bits() | 0o700, 2, bytes),
            blocks.start,
        )
    }

    fn resize_inode(&self, double_indirect: u64) -> InodeRecord {
        let per_block = u64::from(self.geometry.block_size / 4);
        let bytes = (12 + per_block + per_block * per_block) << self.geometry.block_bits;
        let mut record = self.record(FileType::Regular.mode_bits() | 0o600, 1, bytes);
        let copies = u64_from(self.backups().count()) + 1;
        record.blocks =
            (1 + u64::from(self.geometry.reserved_gdt_blocks) * copies) * self.sectors_in_block();
        put_pointer(&mut record.block, DOUBLE_INDIRECT_SLOT, double_indirect);
        record
    }

    fn record(&self, mode: u16, links: u16, size: u64) -> InodeRecord {
        let time = Timestamp { seconds: self.layout.time_seconds.into(), nanoseconds: 0 };
        let extra = if self.geometry.inode_size > 128 { KNOWN_EXTRA_BYTES } else { 0 };
        InodeRecord {
            mode,
            uid: 0,
            gid: 0,
            size,
            links,
            blocks: size / 512,
            flags: InodeFlags::empty(),
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

    fn with_extent(&self, mut record: InodeRecord, start: u64) -> InodeRecord {
        record.flags = InodeFlags::EXTENTS;
        let len = low_u32(record.size >> self.geometry.block_bits);
        let blocks = LogicalRange::new(0, len).expect("a directory has at least one block");
        let extent =
            Extent { blocks, start: PhysicalBlock::new(start), state: ExtentState::Written };
        fill_node(&mut record.block, &[extent]);
        record
    }

    fn directory(&self, inode: InodeNumber, is_first: bool) -> Vec<u8> {
        let mut block = vec![0; self.geometry.block_len()];
        match is_first {
            true => directory::init_with_dots(
                &mut block,
                self.directory_layout(),
                inode,
                InodeNumber::ROOT,
            ),
            false => directory::init(&mut block, self.directory_layout()),
        }
        block
    }

    fn seal_directory(&self, inode: InodeNumber, block: &mut [u8]) {
        if self.geometry.has_metadata_csum() {
            directory::set_checksum(block, inode::inode_seed(self.geometry.csum_seed, inode, 0));
        }
    }

    fn directory_layout(&self) -> DirLayout {
        DirLayout::of(self.geometry, InodeFlags::EXTENTS)
    }

    /// How far each group with a copy of the descriptors is from the first.
    fn backups(&self) -> impl Iterator<Item = u64> + '_ {
        let groups = self
            .geometry
            .groups()
            .filter(|group| group.get() > 0 && self.geometry.has_super(*group));
        groups.map(|group| {
            self.geometry.first_block_of(group).get() - u64::from(self.geometry.first_data_block)
        })
    }

    fn first_reserved(&self) -> u32 {
        self.geometry.base_meta_blocks(BlockGroup(0)) - self.geometry.reserved_gdt_blocks
            + self.geometry.first_data_block
    }

    fn sectors_in_block(&self) -> u64 {
        u64::from(self.geometry.block_size) / 512
    }
}

fn fill_node(bytes: &mut [u8], extents: &[Extent]) {
    let mut node = NodeMut::init(bytes, 0);
    for (i, extent) in extents.iter().enumerate() {
        assert!(node.insert(i, *extent), "the layout left room for every extent");
    }
}

/// Stores a 32-bit block number; whoever stores one here has kept to the first 2^32 blocks.
fn put_pointer(bytes: &mut [u8], slot: usize, block: u64) {
    bytes[slot * 4..slot * 4 + 4].copy_from_slice(&low_u32(block).to_le_bytes());
}

const LOST_AND_FOUND: InodeNumber = InodeNumber::new(11).expect("not zero");
const DOUBLE_INDIRECT_SLOT: usize = 13;
