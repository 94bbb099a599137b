//! Where blocks and inodes go: groups, buddies, goals, preallocation.
//!
//! `mapping` and `extent_tree` ask for blocks, `namespace` for inodes. A request is clamped, joined to a preallocation or
//! normalised, then searched for: at its goal, then criterion by criterion; what was found is marked in the bitmap under the
//! caller's handle. See `docs/design.md`, "The road of one `write`".
//!
//! | file | what |
//! | --- | --- |
//! | `request.rs` | requests, answers, flags, knobs |
//! | `layout.rs`, `bits.rs` | block numbers and places in groups; runs of bits |
//! | `buddy.rs` | one group's free clusters as aligned chunks |
//! | `goal.rs`, `normalize.rs` | where and how much to look for |
//! | `criteria.rs` | the search |
//! | `preallocation.rs` | space set aside for one file, or for small files together |
//! | `inode_group.rs` | the group of a new inode |
//! | `validity.rs` | blocks of the file system itself |
//! | `group.rs` | a group in memory; its bitmap and descriptor under a handle |
//! | `allocate.rs`, `free.rs`, `inodes.rs` | the three doors |
//! | `sequential.rs` | all of it for images that are filled once |
//! | `replay.rs` | blocks and inodes by number, for fast commits |
//! | `events.rs` | what tracepoints are told |
//!
//! # Invariants
//! Inside the allocator all lengths are clusters. A buddy's used clusters are those of the bitmap and those *pinned*: set
//! aside, found but not marked yet, freed but not committed, or being discarded. A buddy is dropped from memory only while
//! nothing is pinned in it. A bitmap changes only while its group's buddy is in memory.
//! Bitmap, descriptor and what is known of them in memory change under one hold of the group's lock, after the right to change
//! both blocks was had; so a refusal leaves all as it was. A group whose structures contradict each other is *set aside*:
//! nothing is allocated or freed in it, and [`Allocator::take_findings`] tells of it.
//! # Locking
//! Each group has a leaf lock; the ordered sets, the inode preallocations, the counts, the lists of frees have one each; never
//! two of them together. Under a group's lock only metadata blocks are changed. A locality group's lock is held across
//! its search, reading of bitmaps included: two small files that both missed would else set space aside twice. Bitmaps are
//! read before the group's lock is taken.
//! # Not here
//! Who pays (`delayed`); what a file's blocks are (`mapping`); when frees become durable (`transaction`); quota.
//! # Source
//! Kernel `fs/ext4/mballoc.c`, `balloc.c`, `ialloc.c`, `block_validity.c`.

mod allocate;
mod bits;
mod buddy;
mod criteria;
mod events;
mod free;
mod goal;
mod group;
mod inode_group;
mod inodes;
mod layout;
mod normalize;
mod preallocation;
mod replay;
mod request;
mod sequential;
#[cfg(test)]
mod tests;
mod validity;

use crate::Error;
use crate::delayed::SpaceLedger;
use crate::report::GroupSpace;
use crate::sync::{Mutex, Rank};
use crate::transaction::Transactions;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64};
use criteria::OrderedSets;
use extant_format::cast::usize_from;
use extant_format::{
    BlockGroup, ClusterCount, Corruption, FileType, Geometry, GroupDescriptor, InodeNumber,
    PhysicalBlock, PhysicalRange, Superblock, TransactionId,
};
use free::Freed;
use group::Group;
use inode_group::Counts;
pub use inode_group::{InodeKind, Parent};
use layout::{Layout, Run};
use preallocation::{InodePreallocations, LocalityGroup};
pub use request::{
    Allocation, AllocationFlags, AllocationRequest, FileHints, FreeFlags, Neighbour, Owner,
    Tunables,
};
use sequential::Line;
use validity::SystemZones;

/// All groups of a volume, and what is remembered between allocations.
pub(crate) struct Allocator {
    transactions: Arc<Transactions>,
    geometry: Geometry,
    layout: Layout,
    tunables: Tunables,
    discard: bool,
    spread: Option<Spread>,
    exact: bool,
    /// Where space is taken from one after the other, if it is.
    line: Option<Mutex<Line>>,
    ledger: Arc<SpaceLedger>,
    zones: SystemZones,
    groups: Box<[Mutex<Group>]>,
    sets: Mutex<OrderedSets>,
    counts: Mutex<VolumeCounts>,
    inode_preallocations: Mutex<InodePreallocations>,
    localities: Box<[Mutex<LocalityGroup>]>,
    /// The groups that streams went to last.
    stream_goals: Box<[AtomicU32]>,
    /// Grows with every change that may have made room.
    changes: AtomicU64,
    uncommitted: Mutex<Vec<(TransactionId, Vec<Freed>)>>,
    to_discard: Mutex<Vec<Run>>,
    findings: Mutex<Vec<Corruption>>,
}

/// How a volume's allocator works.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AllocatorOptions {
    /// Knobs; the kernel's defaults for the volume if `None`.
    pub(crate) tunables: Option<Tunables>,
    /// RAID stripe in blocks (`-o stripe`); 0 for what the superblock says.
    pub(crate) stripe: u32,
    /// Discard what commits free (`-o discard`).
    pub(crate) discard: bool,
    /// The most stream goals that are remembered; 0 is 1.
    pub(crate) processors: u32,
    /// Spread goals of new files over a group (`-o nodelalloc`).
    pub(crate) spread: Option<Spread>,
    /// Nothing is set aside; data that is not delayed gets one cluster a request, the next free one from its goal on.
    pub(crate) exact: bool,
    /// Space is taken one after the other.
    pub(crate) sequential: bool,
}

/// By which number the goals of new files are spread over a group; the kernel takes that of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spread {
    /// The file's own, since nobody says who writes.
    ByInode,
    /// This one.
    By(u32),
}

/// What a descriptor says of its group, and what was found wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupSnapshot {
    /// The descriptor.
    pub(crate) descriptor: GroupDescriptor,
    /// No blocks are allocated or freed here.
    pub(crate) blocks_set_aside: bool,
    /// No inodes are allocated or freed here.
    pub(crate) inodes_set_aside: bool,
}

impl Allocator {
    /// The groups that `descriptors` describe, in order; bitmaps are read when they are first needed.
    ///
    /// The ledger's free clusters are the sum over the descriptors; those of impossible counts are taken off it here.
    ///
    /// # Errors
    /// Structures of the file system that overlap.
    pub(crate) fn load(
        transactions: Arc<Transactions>,
        ledger: Arc<SpaceLedger>,
        superblock: &Superblock,
        descriptors: Vec<GroupDescriptor>,
        options: &AllocatorOptions,
    ) -> Result<Self, Error> {
        let geometry = *superblock.geometry();
        let layout = Layout::from(&geometry);
        let stripe = request::stripe(&layout, superblock.raw(), options.stripe);
        let mut tunables = options
            .tunables
            .unwrap_or_else(|| Tunables::new(&layout, stripe, options.processors.max(1)));
        if options.exact {
            tunables.group_prealloc = 0;
        }
        let zones =
            SystemZones::new(&geometry, geometry.groups().zip(descriptors.iter().copied()))?;
        let mut counts = VolumeCounts::new(&layout);
        let mut findings = Vec::new();
        let mut groups = Vec::with_capacity(descriptors.len());
        for (group, descriptor) in geometry.groups().zip(descriptors) {
            let finding = descriptor.check_counts(&geometry, group).err();
            if finding.is_some() {
                ledger.set_aside(ClusterCount(descriptor.free_clusters.into()));
            }
            findings.extend(finding);
            counts.add(layout.flex_of(group), &descriptor);
            let computable = descriptor.block_bitmap_is_uninitialized(&geometry);
            groups.push(Mutex::new(
                Rank::Group,
                Group::new(descriptor, computable, finding.is_some()),
            ));
        }
        let localities = (0..tunables.localities.max(1))
            .map(|_| Mutex::new(Rank::LocalityGroup, LocalityGroup::default()));
        Ok(Self {
            transactions,
            discard: options.discard,
            spread: options.spread,
            exact: options.exact,
            line: options.sequential.then(|| Mutex::new(Rank::LocalityGroup, Line::default())),
            ledger,
            zones,
            groups: groups.into(),
            sets: Mutex::new(Rank::Leaf, OrderedSets::default()),
            counts: Mutex::new(Rank::Leaf, counts),
            inode_preallocations: Mutex::new(Rank::Leaf, InodePreallocations::default()),
            localities: localities.collect(),
            stream_goals: (0..tunables.stream_goals(&layout)).map(|_| AtomicU32::new(0)).collect(),
            changes: AtomicU64::new(0),
            uncommitted: Mutex::new(Rank::Leaf, Vec::new()),
            to_discard: Mutex::new(Rank::Leaf, Vec::new()),
            findings: Mutex::new(Rank::Leaf, findings),
            geometry,
            layout,
            tunables,
        })
    }

    /// Sizes and counts of the volume.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Keeps `range` for `inode`: the journal's blocks, before anybody allocates.
    pub(crate) fn protect(&mut self, inode: InodeNumber, range: PhysicalRange) {
        self.zones.protect(inode, range);
    }

    /// Whether `inode` may own all blocks of `range`: they lie in the volume, outside its metadata and what others protect.
    ///
    /// Source: kernel `fs/ext4/block_validity.c`, `ext4_inode_block_valid`.
    pub(crate) fn may_own(&self, inode: InodeNumber, range: PhysicalRange) -> bool {
        self.geometry.may_hold_data(range) && !self.zones.overlaps(Some(inode), range)
    }

    /// Where a file without any blocks would like its first.
    pub(crate) fn inode_goal(&self, inode: InodeNumber, file_type: FileType) -> PhysicalBlock {
        let colour = self.spread.map(|spread| match spread {
            Spread::ByInode => inode.get(),
            Spread::By(number) => number,
        });
        let group = inode_group::group_of(&self.layout, inode);
        goal::inode_goal(&self.layout, group, file_type == FileType::Regular, colour)
    }

    /// The knobs in use.
    pub(crate) fn tunables(&self) -> &Tunables {
        &self.tunables
    }

    /// Free inodes of the volume.
    pub(crate) fn free_inodes(&self) -> u64 {
        self.counts.lock().total.free_inodes
    }

    /// Directories of the volume.
    pub(crate) fn used_directories(&self) -> u64 {
        self.counts.lock().total.used_directories
    }

    /// Free clusters by the descriptors; the ledger's count leaves out what was set aside.
    pub(crate) fn free_clusters(&self) -> ClusterCount {
        ClusterCount(self.counts.lock().total.free_clusters)
    }

    /// What is known of a group; `None` if there is no such group.
    pub(crate) fn snapshot(&self, group: BlockGroup) -> Option<GroupSnapshot> {
        let state = self.groups.get(usize_from(group.0))?.lock();
        Some(GroupSnapshot {
            descriptor: state.descriptor,
            blocks_set_aside: state.summary.corrupt,
            inodes_set_aside: state.inodes_corrupt,
        })
    }

    /// The free space of every group, for which all buddies are built.
    ///
    /// # Errors
    /// Of reading bitmaps.
    /// # Source
    /// Kernel `ext4_mb_seq_groups_show`.
    pub(crate) fn group_space(&self) -> Result<Vec<GroupSpace>, Error> {
        let mut groups = Vec::new();
        for group in self.geometry.groups() {
            let space = self.with_buddy(group, |_, buddy| GroupSpace {
                group: group.get(),
                free: buddy.free(),
                fragments: buddy.fragments(),
                first_free: buddy.first_free(),
                chunks: (0..buddy.orders()).map(|order| buddy.counter(order)).collect(),
            })?;
            groups.extend(space); // what is set aside has none
        }
        Ok(groups)
    }

    /// What was found wrong since the last call.
    pub(crate) fn take_findings(&self) -> Vec<Corruption> {
        core::mem::take(&mut *self.findings.lock())
    }
}

/// Free clusters, free inodes and directories, of each flex group and of all.
#[derive(Debug)]
struct VolumeCounts {
    flex: Vec<Counts>,
    total: Counts,
}

impl VolumeCounts {
    fn new(layout: &Layout) -> Self {
        Self {
            flex: vec![Counts::default(); usize_from(layout.flex_groups())],
            total: Counts::default(),
        }
    }

    fn change(&mut self, flex: u32, change: impl Fn(&mut Counts)) {
        change(&mut self.total);
        if let Some(counts) = self.flex.get_mut(usize_from(flex)) {
            change(counts);
        }
    }

    fn add(&mut self, flex: u32, descriptor: &GroupDescriptor) {
        self.change(flex, |counts| {
            counts.free_clusters += u64::from(descriptor.free_clusters);
            counts.free_inodes += u64::from(descriptor.free_inodes);
            counts.used_directories += u64::from(descriptor.used_dirs);
        });
    }

    fn add_clusters(&mut self, flex: u32, difference: i64) {
        self.change(flex, |counts| {
            counts.free_clusters = counts.free_clusters.saturating_add_signed(difference)
        });
    }

    /// Counts an inode as free (1) or used (-1).
    fn add_inode(&mut self, flex: u32, free: i64, is_directory: bool) {
        self.change(flex, |counts| {
            counts.free_inodes = counts.free_inodes.saturating_add_signed(free);
            if is_directory {
                counts.used_directories = counts.used_directories.saturating_add_signed(-free);
            }
        });
    }
}
