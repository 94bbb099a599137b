//! What one file is: its number, its attributes, and the trees that hang on it. Passive: no I/O here.
//!
//! # Invariants
//! `core.size` (the size to store, `i_disksize`) is at most [`Inode::size`] while `content` is held. `core.block` (the
//! 60 bytes of `i_block`) changes only with `map` held for writing. The copy in the inode table follows by `inode_table::store` in the handle that made the change.
//!
//! Contents in the inode ([`Inode::is_inline`]): while they may stay there ([`Inode::may_inline`]), no block is dirty, and
//! what memory has of the first folio is the same. When they may not, they are moving out: either they are in dirty,
//! delayed blocks from the first on, and the copy in the inode is what a crash leaves, or that copy is of no byte.
//! # Locking
//! `content` (30) > `invalidate` (40) > folio (60) > `attributes_lock` (65) > `map` (70) > leaves: `core`, `status`.
//! # Not here
//! Reading and storing inodes (`inode_table`), block maps (`extent_tree`, `mapping`), names (`namespace`).
//! # Source
//! Kernel `fs/ext4/ext4.h`, `struct ext4_inode_info`.

mod new_record;

pub(crate) use new_record::*;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use extant_format::inode::{FileType, InodeFlags, InodeRecord};
use extant_format::{InodeNumber, Timestamp, TransactionId};

use crate::delayed::InodeReservations;
use crate::extent_status::ExtentStatusTree;
use crate::page_cache::PageCache;
use crate::sync::{Mutex, Rank, RwLock, assert_held};

/// One file in memory.
#[derive(Debug)]
pub(crate) struct Inode {
    number: InodeNumber,
    checksum_seed: u32,
    generation: u32,
    /// Size, bytes and entries against each other (`i_rwsem`).
    pub(crate) content: RwLock<()>,
    /// Truncate and punch (write) against filling folios (read) (`invalidate_lock`).
    pub(crate) invalidate: RwLock<()>,
    /// Extended attributes and inline data (`xattr_sem`).
    pub(crate) attributes_lock: RwLock<()>,
    /// The block map, and every decision on what a block is (`i_data_sem`).
    pub(crate) map: RwLock<()>,
    /// Attributes as they are to be stored: `size` is `i_disksize`, `blocks` counts 512-byte units; a leaf.
    pub(crate) core: Mutex<InodeRecord>,
    /// What is known of each block; a leaf (`i_es_lock`).
    pub(crate) status: Mutex<ExtentStatusTree>,
    /// Promised space and shared clusters; a leaf (`i_block_reservation_lock`).
    pub(crate) reservations: Mutex<InodeReservations>,
    /// The file's bytes.
    pub(crate) pages: Arc<PageCache>,
    size: AtomicU64,
    sync_tid: AtomicU32,
    datasync_tid: AtomicU32,
    /// Truncated to nothing since it was opened: its last close starts writeback (`EXT4_STATE_DA_ALLOC_CLOSE`).
    pub(crate) allocate_on_close: AtomicBool,
    /// Opened this many times for writing.
    pub(crate) writers: AtomicU32,
    /// On the orphan list.
    pub(crate) orphan: AtomicBool,
    /// Made without a name, and may still get one (`I_LINKABLE`).
    pub(crate) linkable: AtomicBool,
    /// Known to have no capability that a change would take away (`S_NOSEC`).
    pub(crate) has_no_capability: AtomicBool,
    /// Of a directory: the group that its last new inode went to, or `u32::MAX` (`i_last_alloc_group`).
    pub(crate) last_group: AtomicU32,
    /// Contents that fit are kept in the inode (`EXT4_STATE_MAY_INLINE_DATA`).
    may_inline: AtomicBool,
    /// The page at which the last writeback of the whole file ended.
    pub(crate) writeback_index: AtomicU64,
    /// Commits that wait for its data write it, as one has had to.
    pub(crate) written_out: AtomicBool,
    /// Its contents were moved out while it was empty: the first block has its place, behind the end of file.
    pub(crate) is_bare: AtomicBool,
    /// In the queue of those that the flusher visits.
    pub(crate) queued: AtomicBool,
    /// The place in that queue which it gets next time, if the last visit left pages tagged; a leaf.
    pub(crate) kept_place: Mutex<Option<QueuePlace>>,
    /// Who uses it from outside; a leaf.
    life: Mutex<Life>,
}

/// A place in the queue of inodes that the flusher visits: since when dirty, and the how many-th to come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct QueuePlace {
    pub(crate) since: Duration,
    pub(crate) turn: u64,
}

/// Who uses an inode from outside, and whether it is gone.
#[derive(Debug, Default)]
struct Life {
    references: u32,
    dead: bool,
}

impl Inode {
    /// An inode in memory with the attributes `core`, whose bytes go into `pages` and block states into `status`.
    pub(crate) fn new(
        number: InodeNumber,
        checksum_seed: u32,
        core: InodeRecord,
        pages: Arc<PageCache>,
        status: ExtentStatusTree,
    ) -> Self {
        Self {
            number,
            checksum_seed,
            generation: core.generation,
            content: RwLock::new(Rank::Content, ()),
            invalidate: RwLock::new(Rank::Invalidate, ()),
            attributes_lock: RwLock::new(Rank::Attributes, ()),
            map: RwLock::new(Rank::Map, ()),
            size: AtomicU64::new(core.size),
            core: Mutex::new(Rank::Leaf, core),
            status: Mutex::new(Rank::Status, status),
            reservations: Mutex::new(Rank::Leaf, InodeReservations::default()),
            pages,
            sync_tid: AtomicU32::new(0),
            datasync_tid: AtomicU32::new(0),
            allocate_on_close: AtomicBool::new(false),
            writers: AtomicU32::new(0),
            orphan: AtomicBool::new(false),
            linkable: AtomicBool::new(false),
            has_no_capability: AtomicBool::new(false),
            last_group: AtomicU32::new(u32::MAX),
            may_inline: AtomicBool::new(false),
            writeback_index: AtomicU64::new(0),
            written_out: AtomicBool::new(false),
            is_bare: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            kept_place: Mutex::new(Rank::Leaf, None),
            life: Mutex::new(Rank::Leaf, Life::default()),
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> InodeNumber {
        self.number
    }

    /// What all checksums of its structures start from.
    pub(crate) fn checksum_seed(&self) -> u32 {
        self.checksum_seed
    }

    /// Tells this use of the number from earlier ones.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Regular file, directory, ...
    pub(crate) fn file_type(&self) -> FileType {
        self.flags_and_type().1
    }

    /// The flags and the type, by one look.
    pub(crate) fn flags_and_type(&self) -> (InodeFlags, FileType) {
        let core = self.core.lock();
        (core.flags, core.file_type().expect("an inode without a type is not handed out"))
    }

    /// The inode's flags.
    pub(crate) fn flags(&self) -> InodeFlags {
        self.core.lock().flags
    }

    /// Whether the inode holds its contents, or did, and a crash now would find them there (D6.3).
    pub(crate) fn is_inline(&self) -> bool {
        self.flags().contains(InodeFlags::INLINE_DATA)
    }

    /// Whether the inode may hold its contents: if it [does](Self::is_inline), there is no newer copy of them.
    pub(crate) fn may_inline(&self) -> bool {
        self.may_inline.load(Ordering::Acquire)
    }

    /// Whether the inode holds its contents, and memory has nothing newer.
    pub(crate) fn keeps_contents(&self) -> bool {
        self.may_inline() && self.is_inline()
    }

    /// Decides whether the inode may hold its contents; the caller has the first folio locked, or is alone.
    pub(crate) fn set_may_inline(&self, may: bool) {
        self.may_inline.store(may, Ordering::Release);
    }

    /// The end of what writeback writes: the end of file, or of a first block that shows what was on the device before unless
    /// it is written too.
    pub(crate) fn end_to_write(&self) -> u64 {
        self.size().max(self.is_bare.load(Ordering::Acquire).into())
    }

    /// The size that users see, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Sets the size that users see; the caller holds `content` for writing.
    pub(crate) fn set_size(&self, size: u64) {
        assert_held(Rank::Content);
        self.size.store(size, Ordering::Release);
    }

    /// Sets the times of the last change of bytes and attributes; whoever calls stores the inode.
    pub(crate) fn set_changed(&self, now: Timestamp) {
        let mut core = self.core.lock();
        (core.mtime, core.ctime) = (now, now);
    }

    /// Counts one more user from outside; `false` if the inode is being deleted.
    pub(crate) fn acquire(&self) -> bool {
        let mut life = self.life.lock();
        life.references += u32::from(!life.dead);
        !life.dead
    }

    /// Counts one user less; `true` if that was the last.
    pub(crate) fn release(&self) -> bool {
        let mut life = self.life.lock();
        life.references -= 1;
        life.references == 0
    }

    /// Ends the life of an inode without names and users; `true` if it was this call that did.
    pub(crate) fn retire(&self) -> bool {
        if self.core.lock().links > 0 {
            return false;
        }
        let mut life = self.life.lock();
        let ends = life.references == 0 && !life.dead;
        life.dead |= ends;
        ends
    }

    /// Ends the life of an inode without names, whoever uses it; `true` if it was this call that did.
    pub(crate) fn end(&self) -> bool {
        !core::mem::replace(&mut self.life.lock().dead, true)
    }

    /// Notes that transaction `tid` changed the inode, and whether `fdatasync` has to wait for it; returns whether `tid` has
    /// changed it before.
    ///
    /// Source: kernel `ext4_update_inode_fsync_trans`.
    pub(crate) fn note_transaction(&self, tid: TransactionId, data: bool) -> bool {
        let before = self.sync_tid.swap(tid.get(), Ordering::AcqRel);
        if data {
            self.datasync_tid.store(tid.get(), Ordering::Release);
        }
        before == tid.get()
    }

    /// The transaction that `fsync` (or, if `data_only`, `fdatasync`) has to see committed.
    pub(crate) fn last_transaction(&self, data_only: bool) -> TransactionId {
        let tid = if data_only { &self.datasync_tid } else { &self.sync_tid };
        TransactionId(tid.load(Ordering::Acquire))
    }
}

/// A change of owner or bytes takes set-user, and set-group where the group may execute.
///
/// Source: kernel `setattr_should_drop_suidgid`.
pub(crate) fn drop_privilege_bits(core: &mut InodeRecord) {
    core.mode &= !0o4000;
    if core.mode & 0o0010 != 0 {
        core.mode &= !0o2000;
    }
}
