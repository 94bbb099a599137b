//! What an allocation is asked for with, what it answers, and the knobs.

use super::layout::Layout;
use bitflags::bitflags;
use extant_format::{
    ClusterCount, InodeNumber, LogicalBlock, PhysicalBlock, PhysicalRange, RawSuperblock,
};

bitflags! {
    /// How to place an allocation; the values are those that the kernel's events print.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `EXT4_MB_*`.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct AllocationFlags: u32 {
        /// Prefer to join an existing extent; nobody sets it.
        const HINT_MERGE = 0x1;
        /// Take the first thing found; the allocator's own.
        const HINT_FIRST = 0x8;
        /// A regular file's data: normalised and preallocated.
        const HINT_DATA = 0x20;
        /// Exactly this much, nothing set aside.
        const HINT_NOPREALLOC = 0x40;
        /// A small file, served from a group preallocation; the allocator's own.
        const HINT_GROUP_ALLOC = 0x80;
        /// At the goal or not at all; nobody sets it.
        const HINT_GOAL_ONLY = 0x100;
        /// Try the goal before any search.
        const HINT_TRY_GOAL = 0x200;
        /// A reservation pays for it: counters are not asked.
        const DELALLOC_RESERVED = 0x400;
        /// A large file; the allocator's own.
        const STREAM_ALLOC = 0x800;
        /// May use the reserved pool.
        const USE_RESERVED = 0x2000;
        /// Look at counts under their lock; always the case here.
        const STRICT_CHECK = 0x4000;
        /// Part of a map for data that a reservation pays for. The ledger is asked all the same, as for the reserved pool, and
        /// nothing is spent. Not one of the kernel's bits, which sets `DELALLOC_RESERVED` and asks nobody.
        const MAP_OF_RESERVED = 0x1_0000;
    }

    /// How to free blocks; the values are those that the kernel's events print.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `EXT4_FREE_BLOCKS_*`.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct FreeFlags: u32 {
        /// The blocks hold metadata: they become free with the commit in every mode.
        const METADATA = 0x1;
        /// Drop cached copies of the blocks, and revoke those in the log: for metadata and journaled data.
        const FORGET = 0x2;
        /// The caller has checked that no metadata of the file system is hit.
        const VALIDATED = 0x4;
        /// Leave quota alone.
        const NO_QUOTA_UPDATE = 0x8;
        /// The cluster of an unaligned first block stays.
        const NOFREE_FIRST_CLUSTER = 0x10;
        /// The cluster of an unaligned last block stays.
        const NOFREE_LAST_CLUSTER = 0x20;
        /// The cluster turns back into a reservation: counters stay.
        const RERESERVE_CLUSTER = 0x40;
        /// Data of a file in `data=writeback` mode: free at once. Not one of the kernel's bits.
        const UNORDERED = 0x100;
    }
}

/// Whose blocks are freed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The inode.
    pub inode: InodeNumber,
    /// Its type and permissions, for events.
    pub mode: u16,
}

impl From<InodeNumber> for Owner {
    fn from(inode: InodeNumber) -> Self {
        Self { inode, mode: 0 }
    }
}

/// A mapped block beside the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// Its place in the file.
    pub logical: LogicalBlock,
    /// Its place on the device.
    pub physical: PhysicalBlock,
}

/// What placement wants to know of the file beyond its number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileHints {
    /// Blocks up to the end of file, rounded up.
    pub size_blocks: u64,
    /// Somebody has the file open for writing.
    pub open_for_write: bool,
    /// Mapped by indirect blocks: block numbers have 32 bits.
    pub block_mapped: bool,
    /// Blocks to set aside for a file that goes on growing while others do too; 0 for what the kernel would.
    pub growth: u64,
}

/// A wish for blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AllocationRequest {
    /// Whose.
    pub inode: InodeNumber,
    /// The first file block to map; under `bigalloc` it may lie inside a cluster.
    pub logical: LogicalBlock,
    /// Blocks wanted, at least one; the answer may have fewer.
    pub len: u32,
    /// Where the first of them should go.
    pub goal: PhysicalBlock,
    /// The last mapped block before.
    pub left: Option<Neighbour>,
    /// The first mapped block after.
    pub right: Option<Neighbour>,
    /// The file as a whole.
    pub file: FileHints,
    /// How.
    pub flags: AllocationFlags,
}

/// What an allocation got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allocation {
    /// Device blocks for the request's first file block and those after; never more than were asked for.
    pub blocks: PhysicalRange,
    /// Clusters newly taken, to be charged to the file.
    pub clusters: ClusterCount,
}

/// Knobs of the allocator, by the kernel's names in `/sys/fs/ext4/*/mb_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tunables {
    /// Files of up to so many blocks share group preallocations.
    pub stream_req: u32,
    /// Clusters of a group preallocation; 0 for none.
    pub group_prealloc: u32,
    /// Enough chunks to have seen before a good one is taken.
    pub min_to_scan: u32,
    /// Chunks after which the search stops.
    pub max_to_scan: u32,
    /// Orders (plus one) from which powers of two are looked for by order.
    pub order2_req: u32,
    /// How many orders a request may shrink before the slow search.
    pub best_avail_max_trim_order: u32,
    /// Groups looked at in turn before the ordered sets: 4 for disks that seek.
    pub max_linear_groups: u32,
    /// Keep groups in sets by largest chunk and average run.
    pub optimize_scan: bool,
    /// RAID stripe in blocks, 0 for none.
    pub stripe: u32,
    /// Locality groups; the kernel has one for each processor.
    pub localities: u32,
    /// The most stream goals that are remembered: the kernel's number of processors.
    pub processors: u32,
}

impl Tunables {
    /// The kernel's defaults for this volume on so many processors, with one locality group.
    pub(super) fn new(layout: &Layout, stripe: u32, processors: u32) -> Self {
        let group_prealloc = (512_u32 >> layout.cluster_bits).max(32);
        let stripe_clusters = layout.clusters(stripe);
        let rounded = if stripe > 1 {
            group_prealloc.next_multiple_of(stripe_clusters)
        } else {
            group_prealloc
        };
        Self {
            stream_req: 16,
            group_prealloc: rounded,
            min_to_scan: 10,
            max_to_scan: 200,
            order2_req: 2,
            best_avail_max_trim_order: 3,
            max_linear_groups: 0,
            optimize_scan: layout.groups >= 16,
            stripe,
            localities: 1,
            processors,
        }
    }

    /// How many stream goals are remembered.
    pub(super) fn stream_goals(&self, layout: &Layout) -> u32 {
        self.processors.min(layout.groups.div_ceil(4)).max(1)
    }
}

/// The RAID stripe that a mount uses, in blocks: what was asked for, else what the superblock says; 0 for none.
///
/// Source: kernel `fs/ext4/super.c`, `ext4_get_stripe_size`.
pub(super) fn stripe(layout: &Layout, raw: &RawSuperblock, wanted: u32) -> u32 {
    let candidates = [wanted, raw.raid_stripe_width.get(), raw.raid_stride.get().into()];
    let stripe =
        candidates.into_iter().find(|&stripe| stripe > 0 && stripe <= layout.blocks_per_group);
    stripe
        .filter(|&stripe| stripe > 1 && stripe.is_multiple_of(layout.cluster_ratio()))
        .unwrap_or(0)
}
