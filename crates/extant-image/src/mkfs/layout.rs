//! Where everything goes: tables, then files; and what each group then has left.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::{low_u32, u64_from};
use extant_format::descriptor::GroupFlags;
use extant_format::quota::QuotaKind;
use extant_format::{
    BlockGroup, Compat, Geometry, GroupDescriptor, Incompat, InodeNumber, RawSuperblock, RoCompat,
    bitmap, orphan,
};

use super::MkfsError;
use super::directory::Name;
use super::extended::RootOwner;
use super::files::{Attributes, Files, LOST_AND_FOUND, PlannedFile};
use super::hugefiles;
use super::options::option;
use super::resolve::Decided;
use super::sizes::JournalLen;
use super::space::Space;
use super::tables::{self, Spread};

/// Where everything goes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    /// One a group; sums of bitmaps are set.
    pub(super) groups: Vec<GroupDescriptor>,
    pub(super) files: Vec<PlannedFile>,
    /// The block of multiple mount protection.
    pub(super) mmp: Option<u64>,
    quotas: Vec<(QuotaKind, InodeNumber)>,
    orphan_file: Option<InodeNumber>,
    used_inodes: u32,
    overhead: u64,
    space: Space,
}

impl Layout {
    /// Finds places for everything.
    ///
    /// # Errors
    /// There is too little room, or something may not lie where it is wanted.
    pub(super) fn plan(decided: &Decided<'_>, geometry: &Geometry) -> Result<Self, MkfsError> {
        let journal = decided.journal_len(geometry.blocks_count)?;
        let too_small = || MkfsError::TooSmall {
            bytes: geometry.blocks_count << geometry.block_bits,
            needed_bytes: least_blocks(geometry, journal) << geometry.block_bits,
            journal_bytes: u64::from(journal.map_or(0, |len| len.all)) << geometry.block_bits,
        };
        let bad = &decided.options.bad_blocks;
        let mut space = Space::new(geometry);
        take_bad_blocks(geometry, &mut space, bad)?;
        let stride = decided.extended.stride.unwrap_or(0).into();
        let spread = Spread { packed: decided.packed, stride };
        let groups = tables::place(geometry, &mut space, spread).ok_or_else(too_small)?;
        space.round_to_clusters(geometry.cluster_ratio());
        let tables_taken = space.all_taken() - u64_from(bad.len()).min(space.all_taken());
        let all_journal = u64::from(journal.map_or(0, |len| len.all));
        let overhead = tables_taken.div_ceil(geometry.cluster_ratio().into())
            + geometry.clusters_for(all_journal)
            + u64::from(geometry.first_data_block);

        let mut planner = Planner {
            decided,
            files: Files::new(geometry, space, decided.options.time_seconds),
            groups,
            mmp: None,
            quotas: Vec::new(),
            orphan_file: None,
        };
        planner.place_files(journal, &too_small)?;
        let Planner { files, mut groups, mmp, quotas, orphan_file, .. } = planner;
        let directories = files.directories();
        let used_inodes = files.last_inode();
        let Files { space, all: files, .. } = files;
        for (group, descriptor) in geometry.groups().zip(&mut groups) {
            descriptor.used_dirs = directories.get(&group).copied().unwrap_or(0);
            count(geometry, &space, group, descriptor, used_inodes);
        }
        let geometry = *geometry;
        Ok(Self { geometry, groups, files, mmp, quotas, orphan_file, used_inodes, overhead, space })
    }

    /// Fills in what the superblock says of all groups together, and of files that it knows.
    pub(super) fn describe(&self, raw: &mut RawSuperblock) {
        let ratio = u64::from(self.geometry.cluster_ratio());
        let clusters: u64 = self.groups.iter().map(|group| u64::from(group.free_clusters)).sum();
        let free_inodes = self.groups.iter().map(|group| group.free_inodes).sum::<u32>();
        let journal = self.files.iter().find(|file| file.number == InodeNumber::JOURNAL);
        raw.set_free_blocks_count(clusters * ratio);
        raw.free_inodes_count = free_inodes.into();
        if self.files.iter().any(|file| file.record.size >= LARGE_FILE_BYTES) {
            raw.feature_ro_compat = (raw.ro_compat() | RoCompat::LARGE_FILE).bits().into();
        }
        raw.overhead_clusters = u32::try_from(self.overhead).unwrap_or(0).into();
        raw.mmp_block = self.mmp.unwrap_or(0).into();
        raw.orphan_file_inum = self.orphan_file.map_or(0, InodeNumber::get).into();
        for (kind, inode) in &self.quotas {
            let number = inode.get().into();
            match kind {
                QuotaKind::User => raw.usr_quota_inum = number,
                QuotaKind::Group => raw.grp_quota_inum = number,
                QuotaKind::Project => raw.prj_quota_inum = number,
            }
        }
        // The journal's map and size are kept here too, for a reader whose inode table is damaged.
        if let Some(PlannedFile { record, .. }) = journal {
            raw.journal_inum = InodeNumber::JOURNAL.get().into();
            raw.jnl_backup_type = 1;
            for (to, from) in raw.jnl_blocks.iter_mut().zip(record.block.as_chunks().0) {
                *to = (*from).into();
            }
            raw.jnl_blocks[15] = extant_format::cast::high_u32(record.size).into();
            raw.jnl_blocks[16] = low_u32(record.size).into();
        }
    }

    /// A group's block bitmap; bits past its last block are set.
    pub(super) fn block_bitmap(&self, group: BlockGroup) -> Vec<u8> {
        block_bitmap(&self.geometry, &self.space, group)
    }

    /// A group's inode bitmap.
    pub(super) fn inode_bitmap(&self, group: BlockGroup) -> Vec<u8> {
        inode_bitmap(&self.geometry, group, self.used_inodes)
    }

    /// The last inode that is in use.
    pub(super) fn last_inode(&self) -> u32 {
        self.used_inodes
    }
}

/// Finds places for the files, in mke2fs's order.
struct Planner<'a> {
    decided: &'a Decided<'a>,
    files: Files<'a>,
    groups: Vec<GroupDescriptor>,
    mmp: Option<u64>,
    quotas: Vec<(QuotaKind, InodeNumber)>,
    orphan_file: Option<InodeNumber>,
}

impl Planner<'_> {
    fn place_files(
        &mut self,
        journal: Option<JournalLen>,
        too_small: &dyn Fn() -> MkfsError,
    ) -> Result<(), MkfsError> {
        let geometry = self.files.geometry;
        self.place_directories().ok_or_else(too_small)?;
        if geometry.compat.contains(Compat::RESIZE_INODE) {
            self.files.add_resize().ok_or_else(too_small)?;
        }
        self.files.add_bad_blocks(&self.decided.options.bad_blocks).ok_or_else(too_small)?;
        if let Some(len) = journal {
            let goal = self.journal_goal();
            let extended = &self.decided.extended;
            let is_lazy = [extended.lazy_journal_init, extended.storage_is_zeroed];
            let is_lazy = is_lazy.contains(&Some(true));
            self.files.add_journal(len, goal, is_lazy).ok_or_else(too_small)?;
        }
        if geometry.incompat.contains(Incompat::MMP) {
            let goal = geometry.first_data_block.into();
            self.mmp = Some(self.files.space.place(goal, 1).ok_or_else(too_small)?);
        }
        self.place_quotas().ok_or_else(too_small)?;
        if geometry.compat.contains(Compat::ORPHAN_FILE) {
            let len = self.orphan_file_len()?;
            self.orphan_file = Some(self.files.add_orphan_file(len).ok_or_else(too_small)?);
        }
        if let Some(hugefiles) = &self.decided.hugefiles {
            hugefiles::place(&mut self.files, hugefiles)?;
        }
        let internal: Vec<InodeNumber> =
            self.quotas.iter().map(|(_, inode)| *inode).chain(self.orphan_file).collect();
        for (kind, inode) in &self.quotas {
            self.files.count_quota(*inode, *kind, &internal);
        }
        Ok(())
    }

    /// The root directory, and `lost+found` with blocks to spare, so that a check finds room without allocating.
    fn place_directories(&mut self) -> Option<()> {
        let (uid, gid) = match self.decided.extended.root_owner {
            Some(RootOwner::Ids(uid, gid)) => (uid, gid),
            Some(RootOwner::Caller) | None => (0, 0),
        };
        let permissions = self.decided.extended.root_permissions.unwrap_or(0o755);
        let root = Attributes { uid, gid, ..Attributes::directory(permissions, 3) };
        let lost = [Name::directory(b"lost+found", LOST_AND_FOUND)];
        self.files.add_directory(InodeNumber::ROOT, InodeNumber::ROOT, root, &lost, 1)?;
        let inode = self.files.new_inode()?;
        let geometry = self.files.geometry;
        let blocks = (LOST_AND_FOUND_BYTES >> geometry.block_bits).clamp(2, 12);
        // mke2fs's begins in its inode then, and has grown by as many blocks as others that began in one.
        let blocks = blocks - usize::from(geometry.incompat.contains(Incompat::INLINE_DATA));
        let attributes = Attributes::directory(0o700, 2);
        self.files.add_directory(inode, InodeNumber::ROOT, attributes, &[], blocks)
    }

    /// The middle, from where the way to any file is shortest, unless somebody wants another place; at the front where it is
    /// mapped by pointers, beside the block that these begin with.
    fn journal_goal(&self) -> u64 {
        let (decided, geometry) = (self.decided, self.files.geometry);
        if decided.packed || !geometry.incompat.contains(Incompat::EXTENTS) {
            return 0;
        }
        if let Some(block) = decided.journal_location {
            return block;
        }
        let last = geometry.group_count - 1;
        let middle = (geometry.blocks_count - u64::from(geometry.first_data_block)) / 2;
        let middle = middle.saturating_sub(geometry.first_data_block.into());
        let mut middle = low_u32(middle / u64::from(geometry.blocks_per_group));
        let start = if geometry.flex_bits > 0 && middle > geometry.flex_size() {
            middle -= middle % geometry.flex_size();
            let has_room = |group: &u32| self.free_clusters(BlockGroup(*group)) > 0;
            middle = (middle..=last).find(has_room).unwrap_or(0);
            middle
        } else {
            middle.saturating_sub(1)
        };
        let end = (middle + 1).min(last);
        // The first of those with the most room.
        let best = (start..=end).rev().max_by_key(|group| self.free_clusters(BlockGroup(*group)));
        geometry.first_block_of(BlockGroup(best.unwrap_or(0))).get()
    }

    fn free_clusters(&self, group: BlockGroup) -> u64 {
        let blocks = blocks_of(self.files.geometry, group);
        blocks.end - blocks.start - self.files.space.taken_in(blocks)
    }

    fn place_quotas(&mut self) -> Option<()> {
        let decided = self.decided;
        let (uid, gid) = match decided.extended.root_owner {
            Some(RootOwner::Ids(uid, gid)) => (uid, gid),
            Some(RootOwner::Caller) | None => (0, 0),
        };
        let huge = decided.hugefiles.as_ref().map(|hugefiles| (hugefiles.uid, hugefiles.gid));
        let users: Vec<u32> = [0, uid].into_iter().chain(huge.map(|huge| huge.0)).collect();
        let groups: Vec<u32> = [0, gid].into_iter().chain(huge.map(|huge| huge.1)).collect();
        if decided.quotas.users {
            self.place_quota(USER_QUOTA, QuotaKind::User, &users)?;
        }
        if decided.quotas.groups {
            self.place_quota(GROUP_QUOTA, QuotaKind::Group, &groups)?;
        }
        if decided.quotas.projects {
            let inode = self.files.new_inode()?;
            self.place_quota(inode, QuotaKind::Project, &[0])?;
        }
        Some(())
    }

    fn place_quota(&mut self, inode: InodeNumber, kind: QuotaKind, owners: &[u32]) -> Option<()> {
        self.quotas.push((kind, inode));
        self.files.add_quota(inode, kind, owners)
    }

    /// Blocks of the orphan file: a part of a large file system, but no less than a small one needs.
    fn orphan_file_len(&self) -> Result<u32, MkfsError> {
        let geometry = self.files.geometry;
        let wanted = match self.decided.extended.orphan_file_size {
            Some(size) => size.blocks(geometry.block_size),
            None => match geometry.blocks_count {
                ..0x2_0000 => 32,
                count @ 0x2_0000..0x20_0000 => count / 4096,
                _ => orphan::MAX_BLOCKS.into(),
            }
            .next_multiple_of(geometry.cluster_ratio().into()),
        };
        let fits = u32::try_from(wanted).ok().filter(|len| (1..=MOST_ORPHAN_BLOCKS).contains(len));
        fits.ok_or_else(|| {
            let problem = format!("{wanted} blocks; it has 1 to {MOST_ORPHAN_BLOCKS}");
            option("orphan file size", problem)
        })
    }
}

/// Nothing may be put into bad blocks; the superblock and the descriptors behind it have to be good.
fn take_bad_blocks(geometry: &Geometry, space: &mut Space, bad: &[u32]) -> Result<(), MkfsError> {
    let first = u64::from(geometry.first_data_block);
    let good = first..=first + 1 + u64::from(geometry.desc_blocks);
    for &block in bad {
        let block = u64::from(block);
        if good.contains(&block) {
            let problem =
                format!("block {block} is one; {} to {} have to be good", good.start(), good.end());
            return Err(option("bad blocks", problem));
        }
        if block < first || block >= geometry.blocks_count {
            return Err(option("bad blocks", format!("there is no block {block}")));
        }
        space.take(block..block + 1);
    }
    Ok(())
}

/// Fills in what a group has left, and the sums of its bitmaps.
fn count(
    geometry: &Geometry,
    space: &Space,
    group: BlockGroup,
    descriptor: &mut GroupDescriptor,
    used_inodes: u32,
) {
    let blocks = blocks_of(geometry, group);
    let ratio = u64::from(geometry.cluster_ratio());
    let used = space.taken_in(blocks.clone()).div_ceil(ratio);
    descriptor.free_clusters = geometry.clusters_in(group) - low_u32(used);
    let used_inodes = used_in_group(geometry, group, used_inodes);
    descriptor.free_inodes = geometry.inodes_per_group - used_inodes;
    if geometry.has_gdt_csum() {
        descriptor.itable_unused = descriptor.free_inodes;
        descriptor.flags.set(GroupFlags::INODE_UNINIT, used_inodes == 0);
        let computable = used == own_metadata(geometry, group, descriptor);
        let is_last = group.get() + 1 == geometry.group_count;
        descriptor.flags.set(GroupFlags::BLOCK_UNINIT, computable && !is_last && used_inodes == 0);
    }
    if !geometry.has_metadata_csum() {
        return;
    }
    if !descriptor.block_bitmap_is_uninitialized(geometry) {
        descriptor.block_bitmap_csum =
            bitmap::block_bitmap_csum(geometry, &block_bitmap(geometry, space, group));
    }
    if !descriptor.inodes_are_uninitialized(geometry) {
        let bits = inode_bitmap_of(geometry, used_inodes);
        descriptor.inode_bitmap_csum = bitmap::inode_bitmap_csum(geometry, &bits);
    }
}

/// Clusters that a reader takes for used where a block bitmap was never written: the group's head, and its own tables.
fn own_metadata(geometry: &Geometry, group: BlockGroup, descriptor: &GroupDescriptor) -> u64 {
    let blocks = blocks_of(geometry, group);
    let mut own = Space::nothing(blocks.clone(), geometry.cluster_ratio());
    own.take(blocks.start..blocks.start + u64::from(geometry.base_meta_blocks(group)));
    let tables = [
        (descriptor.block_bitmap, 1),
        (descriptor.inode_bitmap, 1),
        (descriptor.inode_table, u64::from(geometry.itable_blocks())),
    ];
    for (start, len) in tables {
        let start = start.get();
        own.take(start.max(blocks.start)..(start + len).min(blocks.end));
    }
    own.taken_in(blocks).div_ceil(geometry.cluster_ratio().into())
}

fn block_bitmap(geometry: &Geometry, space: &Space, group: BlockGroup) -> Vec<u8> {
    let blocks = blocks_of(geometry, group);
    let ratio = u64::from(geometry.cluster_ratio());
    let mut bits = vec![0; geometry.block_len()];
    let all = low_u32(u64_from(bits.len()) * 8);
    for run in space.taken(blocks.clone()) {
        let (start, end) = (run.start - blocks.start, run.end - blocks.start);
        bitmap::set(&mut bits, low_u32(start / ratio)..low_u32(end.div_ceil(ratio)));
    }
    bitmap::set(&mut bits, geometry.clusters_in(group)..all);
    bits
}

fn inode_bitmap(geometry: &Geometry, group: BlockGroup, used: u32) -> Vec<u8> {
    inode_bitmap_of(geometry, used_in_group(geometry, group, used))
}

fn inode_bitmap_of(geometry: &Geometry, used_in_group: u32) -> Vec<u8> {
    let mut bits = vec![0; geometry.block_len()];
    bitmap::init_inode_bitmap(geometry, &mut bits);
    bitmap::set(&mut bits, 0..used_in_group);
    bits
}

/// How many of the first `used` inodes are in a group.
fn used_in_group(geometry: &Geometry, group: BlockGroup, used: u32) -> u32 {
    let before = group.get().saturating_mul(geometry.inodes_per_group);
    used.saturating_sub(before).min(geometry.inodes_per_group)
}

fn blocks_of(geometry: &Geometry, group: BlockGroup) -> Range<u64> {
    let start = geometry.first_block_of(group).get();
    start..start + u64::from(geometry.blocks_in(group))
}

/// Blocks that hold everything if there is one group.
fn least_blocks(geometry: &Geometry, journal: Option<JournalLen>) -> u64 {
    let tables = geometry.base_meta_blocks(BlockGroup(0))
        + (2 + geometry.itable_blocks()) * geometry.group_count;
    let journal = journal.map_or(0, |len| len.all);
    u64::from(geometry.first_data_block + tables) + u64::from(journal) + SPARE_BLOCKS
}

const USER_QUOTA: InodeNumber = InodeNumber::new(3).expect("not zero");
const GROUP_QUOTA: InodeNumber = InodeNumber::new(4).expect("not zero");
/// A file of so many bytes needs the feature.
const LARGE_FILE_BYTES: u64 = 1 << 31;
const LOST_AND_FOUND_BYTES: usize = 16 << 10;
const MOST_ORPHAN_BLOCKS: u32 = orphan::MAX_BLOCKS;
const SPARE_BLOCKS: u64 = 50;
