//! Which dirty data goes to the device next, and how: gather a run, give it a place, write it, see it through.
//!
//! | file | what |
//! | --- | --- |
//! | `queue.rs` | inodes with dirty data, oldest first |
//! | `pass.rs` | one pass over a file: rounds, each with a handle |
//! | `round.rs` | what a round gathers, places and submits |
//! | `submit.rs` | the I/O of a pass and what follows it |
//! | `journaled.rs` | files whose data is journaled |
//! | `moving.rs` | contents that leave their inode |
//! | `ordered.rs` | data that a commit waits for |
//! | `events.rs` | what tracepoints are told |
//!
//! # Invariants
//! A block allocated for delayed data is unwritten until its data is on the device, or its data is ordered before the
//! commit (I7). The stored size grows in the handle that gives the data its place. No handle, folio or map is held
//! while a device works.
//! # Locking
//! A pass takes a handle (50), then folios (60) by rising index, then the mapper's locks; lets go of all of them; then
//! does its I/O. The queue is a leaf.
//! # Not here
//! Who makes data dirty (`file`); where it goes (`mapping`, `allocator`).
//! # Source
//! Kernel `fs/ext4/inode.c`: `ext4_writepages` and what it calls; `fs/ext4/page-io.c`; `fs/fs-writeback.c`;
//! `mm/page-writeback.c`. Differs: writers help with writeback instead of sleeping (no thread of our own).

mod events;
mod journaled;
mod moving;
mod ordered;
mod pass;
mod queue;
mod round;
mod submit;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use crate::Error;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::options::MountOptions;
use crate::page_cache::CacheAccount;
use crate::sync::{Mutex, Rank};
use crate::trace::{Event, Task};
use crate::transaction::Transactions;

pub(crate) use ordered::OrderedFile;
use queue::Queue;
use submit::Batch;
pub(crate) use submit::Ending;

/// What one mapping takes at the most: files that go on growing are written in whole pieces of this.
const WINDOW: u64 = 8 << 20;
/// The least room in the cache that is made at a time, unless that is a large part of it.
const SPARE: u64 = 1 << 20;

/// Whether somebody has the file open for writing, so that it may go on growing.
fn is_open(inode: &Inode) -> bool {
    inode.writers.load(Ordering::Acquire) > 0
}

/// Why data is written back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Memory is short, and files go on growing: more is set aside for them than they need now.
    Pressure,
    /// It is old.
    Age,
    /// Space is short, and what is promised has to get its place.
    Space,
    /// Somebody wants it under way, and does not wait.
    Start,
    /// Somebody waits for it to be on the device (`WB_SYNC_ALL`).
    Integrity,
    /// Somebody waits for all that is dirty. The kernel's flusher first writes everything without waiting, and then waits.
    Everything,
}

impl Purpose {
    /// Whether only what is dirty now is written, however fast more becomes so.
    const fn is_tagged(self) -> bool {
        matches!(self, Self::Space | Self::Integrity | Self::Everything)
    }

    /// Whether what is being written already is waited for, as it may be older than what is dirty.
    const fn waits(self) -> bool {
        matches!(self, Self::Integrity | Self::Everything)
    }

    /// Whether the flusher does it, which looks at inodes that have become clean since they were queued.
    const fn visits_clean(self) -> bool {
        matches!(self, Self::Pressure | Self::Age | Self::Space | Self::Everything)
    }

    /// Whether journaled data has to be in the log afterwards; under pressure, or it could not leave memory.
    const fn commits(self) -> bool {
        !matches!(self, Self::Age | Self::Space)
    }

    /// Whether more is set aside for the file than it needs now.
    fn grows(self, inode: &Inode) -> bool {
        self == Self::Pressure && is_open(inode)
    }
}

/// Writes dirty data back.
pub(crate) struct Writeback {
    /// Itself, for commits that have to wait for data.
    own: Weak<Self>,
    transactions: Arc<Transactions>,
    inodes: Arc<InodeTable>,
    mapper: Arc<Mapper>,
    account: Arc<CacheAccount>,
    queue: Mutex<Queue>,
    /// Fresh blocks stay unwritten until their data is there (`dioread_nolock`).
    unwritten_until_done: bool,
    /// Room for what comes next: more than is needed, so that not every write has to look for clean folios.
    spare: u64,
    background_bytes: u64,
    /// From here on another thread is asked to help, if there is one.
    early_bytes: u64,
    limit_bytes: u64,
    expire: Duration,
    interval: Duration,
}

impl Writeback {
    /// Writeback of a volume, with the knobs of `options`.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        mapper: Arc<Mapper>,
        account: Arc<CacheAccount>,
        options: &MountOptions,
    ) -> Arc<Self> {
        let share = |percent: u64| options.cache_bytes / 100 * percent;
        // As the kernel's `domain_dirty_limits`: the flusher has to begin before writers must.
        let (background, limit) = (options.dirty_background_percent, options.dirty_percent);
        let background = if background < limit { share(background) } else { share(limit) / 2 };
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            transactions,
            inodes,
            mapper,
            account,
            queue: Mutex::new(Rank::Leaf, Queue::default()),
            unwritten_until_done: options.delayed_allocation && options.unwritten_until_done,
            spare: (options.cache_bytes / 64).max(SPARE).min(options.cache_bytes / 8),
            background_bytes: background,
            // Where the kernel's writers stop running free (`dirty_freerun_ceiling`), and late enough that files that grow side
            // by side have whole windows by then.
            early_bytes: background.midpoint(share(limit)),
            limit_bytes: share(limit),
            expire: options.dirty_expire,
            interval: options.dirty_interval,
        })
    }

    /// Itself, for ordered data that names it.
    pub(crate) fn own(&self) -> &Weak<Self> {
        &self.own
    }

    /// Notes that the inode has dirty data.
    pub(crate) fn note_dirty(&self, inode: &Arc<Inode>) {
        // Most writes find it there: a look leaves its cache line shared.
        if !inode.queued.load(Ordering::Acquire) && !inode.queued.swap(true, Ordering::AcqRel) {
            let now = self.transactions.clock().monotonic();
            let kept = inode.kept_place.lock().take();
            match kept.filter(|place| place.since.saturating_add(self.expire) > now) {
                Some(place) => self.queue.lock().push_at(place, Arc::clone(inode)),
                None => self.queue.lock().push(now, Arc::clone(inode)),
            }
        }
    }

    /// Has the inode keep its place in the queue, if a visit has left pages tagged that are clean: the kernel goes on visiting it, and
    /// comes to what is dirtied next in that order.
    ///
    /// Source: kernel `fs/fs-writeback.c`, `requeue_inode`. Differs: nobody comes by while nothing is dirty.
    fn keep_place(&self, inode: &Inode) {
        let now = self.transactions.clock().monotonic();
        let keeps = inode.pages.is_tagged() && inode.pages.dirty_blocks() == 0;
        let place = keeps.then(|| self.queue.lock().place(now));
        *inode.kept_place.lock() = place;
    }

    /// Writes a file that replaces another, so that after a crash there is the old data or the new. Waits for the device to
    /// take it, and for no flush.
    ///
    /// # Source
    /// Kernel `ext4_alloc_da_blocks` (D24.1).
    pub(crate) fn write_replacement(&self, inode: &Arc<Inode>) {
        let promised = inode.reservations.lock().promise().clusters.get();
        self.transactions.tracer().emit(|| {
            let reserved_data_blocks = u32::try_from(promised).unwrap_or(u32::MAX);
            Event::AllocDaBlocks { ino: inode.number(), reserved_data_blocks }
        });
        if promised > 0 {
            // A failure is kept with the file, whose owner hears of it at the next fsync.
            let _ = self.write_inode(inode, 0..u64::MAX, Purpose::Start);
        }
    }

    /// Before a writer makes more data dirty: keeps dirty data and the cache within their limits, in the writer's own
    /// time. Does no I/O below the limits.
    ///
    /// Failures of other files' data are kept for their own `fsync`.
    ///
    /// # Source
    /// Kernel `balance_dirty_pages` (D18.2, D18.3).
    pub(crate) fn balance(&self) {
        let dirty = self.account.dirty_bytes();
        if dirty > self.limit_bytes {
            self.write_oldest_until(self.background_bytes);
        } else if dirty > self.early_bytes {
            self.transactions.early_tick().ask();
        }
        let lacking = self.make_room();
        if lacking > self.spare && self.account.dirty_bytes() > 0 {
            self.write_oldest_until(self.account.dirty_bytes().saturating_sub(lacking));
            self.make_room();
        }
    }

    /// Before more is brought into memory: keeps the cache within its limit as far as clean data goes. Does no I/O. Returns by
    /// how many bytes there is too little room.
    ///
    /// # Locks
    /// The caller holds nothing above a folio's rank.
    pub(crate) fn make_room(&self) -> u64 {
        self.account.make_room(self.spare)
    }

    /// What is due by the clock: data older than its time, for which it looks once an interval (D18.4), or more than the
    /// background limit. Memory that nobody needed since the last tick goes back, unless this one `is_early`.
    pub(crate) fn tick(&self, is_early: bool) {
        let now = self.transactions.clock().monotonic();
        if self.queue.lock().is_time_to_look(now, self.interval) {
            let old =
                core::iter::from_fn(|| self.pop(|since| since.saturating_add(self.expire) <= now));
            self.write_in_background(old, Purpose::Age);
        }
        if self.account.dirty_bytes() > self.background_bytes {
            self.write_oldest_until(self.background_bytes);
        }
        if !is_early {
            self.account.release_unneeded();
        }
    }

    /// Starts writing everything that is dirty; for a volume that is short of space (D4.1).
    pub(crate) fn kick(&self) {
        let dirty = self.queue.lock().len();
        let all = core::iter::from_fn(|| self.pop(|_| true)).take(dirty);
        self.write_in_background(all, Purpose::Space);
    }

    /// Writes everything that is dirty and waits for it.
    ///
    /// # Errors
    /// The first; each file's own `fsync` tells it as well.
    pub(crate) fn write_everything(&self) -> Result<(), Error> {
        let _task = self.transactions.tracer().task(Task::Flusher);
        let mut outcome = Ok(());
        let mut batch = Batch::default();
        let write = |inode: &Arc<Inode>, batch: &mut Batch| {
            self.run_passes(inode, &(0..u64::MAX), Purpose::Everything, true, batch)
        };
        // What becomes dirty from now on is not waited for.
        let start = self.transactions.clock().monotonic();
        while let Some(inode) = self.pop(|since| since <= start) {
            outcome = outcome.and(write(&inode, &mut batch));
            self.keep_place(&inode);
        }
        outcome = outcome.and(self.submit(&mut batch));
        // Passes of other threads may still be under way.
        for inode in self.inodes.in_memory() {
            inode.pages.wait_writeback(&(0..u64::MAX));
        }
        outcome
    }

    /// Writes the oldest data first, but leaves the last window of files that go on growing as long as it can: a
    /// whole window takes one allocation.
    fn write_oldest_until(&self, dirty_bytes: u64) {
        self.mapper.set_growing(self.queue.lock().len());
        let _task = self.transactions.tracer().task(Task::Flusher);
        for whole_windows in [true, false] {
            let (mut seen, mut batch) = (Vec::new(), Batch::default());
            while self.account.dirty_bytes() > dirty_bytes {
                let Some((since, inode)) = self.pop_with_age(|_| true) else { break };
                let holds_back = whole_windows && is_open(&inode);
                let end = if holds_back { inode.size() / WINDOW * WINDOW } else { u64::MAX };
                if end > 0 {
                    // A failure is kept with the file, whose owner hears of it at the next fsync.
                    let bytes = 0..end;
                    let _ = self.run_passes(&inode, &bytes, Purpose::Pressure, true, &mut batch);
                }
                seen.push((since, inode));
            }
            let _ = self.submit(&mut batch);
            seen.iter().for_each(|(since, inode)| self.requeue(*since, inode));
        }
    }

    fn write_in_background(&self, inodes: impl Iterator<Item = Arc<Inode>>, purpose: Purpose) {
        let _task = self.transactions.tracer().task(Task::Flusher);
        let mut batch = Batch::default();
        let all = 0..u64::MAX;
        for inode in inodes {
            // A failure is kept with the file, whose owner hears of it at the next fsync.
            let _ = self.run_passes(&inode, &all, purpose, true, &mut batch);
            self.requeue(self.transactions.clock().monotonic(), &inode);
        }
        let _ = self.submit(&mut batch);
    }

    /// Puts an inode back that is still dirty, as long as it was.
    fn requeue(&self, since: Duration, inode: &Arc<Inode>) {
        self.keep_place(inode);
        if inode.pages.dirty_blocks() > 0 && !inode.queued.swap(true, Ordering::AcqRel) {
            self.queue.lock().push(since, Arc::clone(inode));
        }
    }

    fn pop(&self, due: impl FnOnce(Duration) -> bool) -> Option<Arc<Inode>> {
        self.pop_with_age(due).map(|(_, inode)| inode)
    }

    /// The inode that has been dirty longest and since when, if `due` says so of that time.
    fn pop_with_age(&self, due: impl FnOnce(Duration) -> bool) -> Option<(Duration, Arc<Inode>)> {
        let (since, inode) = self.queue.lock().pop(due)?;
        inode.queued.store(false, Ordering::Release);
        Some((since, inode))
    }
}
