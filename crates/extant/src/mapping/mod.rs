//! The one door from file blocks to device blocks.
//!
//! `look_up` answers from the status tree or, on a miss, from the map on disk; `delay` makes holes delayed; `map` gives
//! blocks a place or changes their state; `remove` takes places away. All of them answer for the first run of blocks in one
//! state; the caller comes back for the rest. The map on disk is an extent tree, or the older tree of indirect blocks.
//!
//! | file | what |
//! | --- | --- |
//! | `flags.rs` | questions and answers |
//! | `look_up.rs`, `delay.rs`, `map.rs`, `remove.rs`, `cut.rs`, `shift.rs` | the operations |
//! | `replay.rs` | runs with a known place, for fast commits |
//! | `promise.rs`, `publish.rs` | what delayed data is promised, and what becomes of promises |
//! | `credits.rs` | how much a handle has to ask for |
//! | `events.rs` | what tracepoints are told |
//! | `indirect/` | maps of indirect blocks |
//!
//! # Invariants
//! Status tree and map on disk change together under `Inode::map` held for writing (I8). No place is handed out that lies
//! outside the file system or in its metadata. What delayed blocks were promised is spent or given back when they are no
//! more delayed.
//! # Locking
//! Takes `Inode::map` itself; `status`, `reservations`, `core` and the ledger are leaves. Metadata is read, and blocks are
//! zeroed instead of splitting an extent, under `map`. `remove` lets go of `map` before it restarts its handle.
//! # Not here
//! Which blocks to write (`writeback`), bytes (`page_cache`), where blocks go (`allocator`), filing ordered data (the caller,
//! see [`Mapped::exposes_data`]).
//! # Source
//! Kernel `fs/ext4/inode.c`: `ext4_map_blocks`, `ext4_da_map_blocks`; `extents.c`: `ext4_ext_map_blocks`, `ext4_ext_truncate`.

mod credits;
mod cut;
mod delay;
mod events;
mod flags;
mod indirect;
mod look_up;
mod map;
mod promise;
mod publish;
mod remove;
mod replay;
mod shift;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use flags::{DELAY_BIT, MapFlags, Mapped};

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use extant_format::cast::u64_from;
use extant_format::corruption::{Place, Rule};
use extant_format::inode::{FileType, InodeFlags};
use extant_format::{ClusterRatio, Geometry, Incompat, PhysicalRange};

use crate::Error;
use crate::allocator::Allocator;
use crate::delayed::SpaceLedger;
use crate::extent_tree::ExtentTree;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::transaction::Transactions;

/// Maps the blocks of all files of a volume.
pub(crate) struct Mapper {
    transactions: Arc<Transactions>,
    allocator: Arc<Allocator>,
    inodes: Arc<InodeTable>,
    ledger: Arc<SpaceLedger>,
    options: MapOptions,
    /// Files that grow side by side.
    growing: AtomicUsize,
}

/// What a mount decides about mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapOptions {
    /// All data goes through the journal (`data=journal`).
    pub(crate) journal_data: bool,
    /// So does that of files whose own flag says so: not where allocation is delayed (D2.2).
    pub(crate) journal_flagged: bool,
    /// Data may reach its place after the commit that makes it reachable (`data=writeback`).
    pub(crate) unordered_data: bool,
    /// Every answer from memory is compared with the map on disk (`ES_AGGRESSIVE_TEST`, D11.18); on in the crate's own tests.
    pub(crate) check_status: bool,
    /// Pieces of unwritten extents up to this size are zeroed rather than split off (`extent_max_zeroout_kb`).
    pub(crate) max_zero_out_kib: u32,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self {
            journal_data: false,
            journal_flagged: false,
            unordered_data: false,
            check_status: cfg!(test),
            max_zero_out_kib: 32,
        }
    }
}

impl Mapper {
    /// The mapper of the volume that the others belong to, with the kernel's defaults.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        allocator: Arc<Allocator>,
        ledger: Arc<SpaceLedger>,
    ) -> Self {
        Self {
            transactions,
            allocator,
            inodes,
            ledger,
            options: MapOptions::default(),
            growing: AtomicUsize::new(1),
        }
    }

    /// The same with other options.
    pub(crate) fn with_options(self, options: MapOptions) -> Self {
        Self { options, ..self }
    }

    /// Notes how many files grow side by side, which share the space set aside for growth.
    pub(crate) fn set_growing(&self, files: usize) {
        self.growing.store(files, Ordering::Relaxed);
    }

    /// Blocks to set aside for one of the files that grow: all of them together get half of what is free.
    fn room_to_grow(&self) -> u64 {
        let free = self.ledger.free_space().free.get() << self.geometry().cluster_bits;
        free / u64_from(self.growing.load(Ordering::Relaxed).max(1)) / 2
    }

    fn geometry(&self) -> &Geometry {
        self.transactions.geometry()
    }

    fn ratio(&self) -> ClusterRatio {
        ClusterRatio::new(self.geometry().cluster_bits)
            .expect("a cluster has less than 2^32 blocks")
    }

    fn tree<'a>(&'a self, inode: &'a Inode) -> ExtentTree<'a> {
        ExtentTree::new(&self.transactions, &self.allocator, &self.inodes, inode)
    }

    /// Whether the inode's blocks are found by extents, or will be once its contents have moved out of it.
    pub(crate) fn has_extents(&self, inode: &Inode) -> bool {
        let flags = inode.flags();
        flags.contains(InodeFlags::EXTENTS)
            || flags.contains(InodeFlags::INLINE_DATA)
                && self.geometry().incompat.contains(Incompat::EXTENTS)
    }

    /// Whether the inode may own these device blocks: they are blocks of the file system, and not its metadata.
    fn check_place(&self, inode: &Inode, blocks: PhysicalRange) -> Result<(), Error> {
        let may = self.allocator.may_own(inode.number(), blocks);
        Ok(Place::Inode(inode.number()).require(may, Rule::ExtentPlace)?)
    }

    /// Whether a file's data goes through the journal.
    pub(crate) fn journals_data(&self, inode: &Inode) -> bool {
        self.data_kind(inode) == DataKind::Journaled
    }

    /// Whether a commit waits for data of this file that it makes reachable (`data=ordered`).
    pub(crate) fn orders_data(&self, inode: &Inode) -> bool {
        !self.options.unordered_data && self.data_kind(inode) == DataKind::Plain
    }

    /// What a file's data is to the journal.
    ///
    /// Source: kernel `get_default_free_blocks_flags`, `ext4_inode_journal_mode`.
    fn data_kind(&self, inode: &Inode) -> DataKind {
        let (flags, file_type) = inode.flags_and_type();
        let wants = self.options.journal_data
            || self.options.journal_flagged && flags.contains(InodeFlags::JOURNAL_DATA);
        match file_type {
            FileType::Directory | FileType::Symlink => DataKind::Metadata,
            _ if flags.contains(InodeFlags::EA_INODE) => DataKind::Metadata,
            // The log would hold what the codec of the file hides: such data is ordered.
            _ if flags.contains(InodeFlags::ENCRYPT) => DataKind::Plain,
            FileType::Regular if wants && self.transactions.is_journaled() => DataKind::Journaled,
            _ => DataKind::Plain,
        }
    }
}

/// What a file's data is to the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DataKind {
    /// Names, a link's target, the value of an attribute: always journaled.
    Metadata,
    /// Data of a file whose data is journaled.
    Journaled,
    /// Data that goes to its place only.
    Plain,
}
