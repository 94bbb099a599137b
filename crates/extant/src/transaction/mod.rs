//! Handles, credits, the metadata cache, commit and checkpoint: the only user of `extant-journal`.
//!
//! # Invariants
//! A metadata block has one cached entry at most, and is not dropped while it is newer than its home.
//! What a handle changed is filed with its transaction before the handle is gone; nothing is undone.
//! The checksum of a block is right whenever its bytes leave for the log or for home.
//! # Locking
//! What fast commits will tell (85), then the journal (90), then the index of cached blocks (92), then one block (95). No I/O and no waiting for the device
//! under any of them. A handle (50) is no lock, but whoever begins one may have to wait for a commit.
//! # Not here
//! What the blocks mean (`extent_tree`, `allocator`, `inode_table`, `namespace`); when to commit by the clock
//! (`filesystem`); ordered data itself (`writeback`).
//! # Source
//! Kernel `fs/jbd2/`, `fs/ext4/ext4_jbd2.c`. Differs: see `docs/design.md`, "Metadata and transactions".

mod alone;
mod block;
mod cache;
mod changes;
mod checkpoint;
mod commit;
pub(crate) mod credits;
mod data;
mod fast_commit;
mod handle;
mod journal;
mod log_map;
mod seal;
mod sharing;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Waker;

use extant_device::{DeviceError, Frame, FrameSlice, Request};
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::{Geometry, PhysicalBlock, PhysicalRange, TransactionId};
use extant_journal::JournalError;

pub(crate) use block::{BlockKind, MetadataBlock};
use cache::{Claim, MetadataCache};
pub(crate) use changes::{Change, Naming, Noted};
pub(crate) use credits::Credits;
use data::DataIndex;
pub(crate) use data::JournaledData;
pub(crate) use fast_commit::FastCommitSpace;
use fast_commit::FastCommits;
pub(crate) use handle::{CommitListener, Handle, OrderedData, ReservedCredits};
pub(crate) use journal::JournalState;
pub(crate) use log_map::LogMap;

use crate::block_io::BlockIo;
use crate::sync::{Mutex, Rank, RwLock};
use crate::time::{Clock, EarlyTick};
use crate::trace::Tracer;
use crate::{Errno, Error};

/// The device, the metadata cache and the journal of one volume.
pub(crate) struct Transactions {
    io: BlockIo,
    geometry: Geometry,
    cache: MetadataCache,
    data: DataIndex,
    /// Freed blocks are revoked in the log; not where all data is journaled, as then whatever uses them next is in it too.
    revokes: bool,
    journal: Option<Arc<JournalState>>,
    /// What they will tell, and have; `None` costs one branch a change.
    fast_commits: Option<FastCommits>,
    clock: Arc<dyn Clock>,
    early_tick: EarlyTick,
    tracer: Tracer,
    /// From how many cached blocks on it is worth looking for unused ones.
    shrink_at: AtomicU64,
    /// They hold this as well, so it holds them weakly.
    listeners: Mutex<Vec<Weak<dyn CommitListener>>>,
    state: Mutex<State>,
    /// Whether the state is [`State::Writable`]: what every write asks.
    writable: AtomicBool,
    /// Without a journal: held by handles against the writing home of what they change.
    home: RwLock<()>,
    /// Without a journal: how many more blocks may become newer than their home.
    room: AtomicU64,
}

/// Whether anything may be changed.
#[derive(Clone, Copy, Debug)]
enum State {
    Writable,
    ReadOnly,
    Shutdown,
    Aborted { errno: Errno, reason: &'static str, device: Option<DeviceError> },
}

impl Transactions {
    /// A volume of shape `geometry` on the device of `io`; without `journal` every change goes home by itself.
    pub(crate) fn new(
        io: BlockIo,
        geometry: Geometry,
        clock: Arc<dyn Clock>,
        journal: Option<JournalState>,
        read_only: bool,
    ) -> Self {
        let state = if read_only { State::ReadOnly } else { State::Writable };
        let area = journal.as_ref().and_then(JournalState::fast_commit_blocks);
        let bytes = area.map(|blocks| usize_from(blocks).saturating_mul(geometry.block_len()));
        Self {
            fast_commits: bytes.map(FastCommits::new),
            io,
            geometry,
            cache: MetadataCache::new(),
            data: DataIndex::new(),
            revokes: true,
            journal: journal.map(Arc::new),
            clock,
            early_tick: EarlyTick::default(),
            tracer: Tracer::default(),
            shrink_at: AtomicU64::new(0),
            listeners: Mutex::new(Rank::Leaf, Vec::new()),
            state: Mutex::new(Rank::MetadataBlock, state),
            writable: AtomicBool::new(!read_only),
            home: RwLock::new(Rank::Handle, ()),
            room: AtomicU64::new(u64::MAX),
        }
    }

    /// The same, waking `waker` when a tick would have something to do before its time.
    pub(crate) fn with_waker(self, waker: Option<Waker>) -> Self {
        Self { early_tick: EarlyTick::new(waker), ..self }
    }

    /// Whom to ask for a tick.
    pub(crate) fn early_tick(&self) -> &EarlyTick {
        &self.early_tick
    }

    /// The same, telling what happens.
    pub(crate) fn with_tracer(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// The same for a mount that journals all data.
    ///
    /// Source: kernel `ext4_forget`.
    pub(crate) fn without_revokes(self, without: bool) -> Self {
        Self { revokes: !without, ..self }
    }

    /// Whether freed blocks are revoked, each at the price of a revoke credit.
    pub(crate) fn revokes(&self) -> bool {
        self.revokes
    }

    /// The newest bytes of those blocks of data in a range that the device has older ones of.
    ///
    /// # Locks
    /// Takes leaves. Whoever reads the range has the folio that the bytes go to, so that nobody changes them meanwhile.
    pub(crate) fn newest_data(&self, range: PhysicalRange) -> Vec<(PhysicalBlock, FrameSlice)> {
        self.data.newest(range)
    }

    /// How many blocks of data are newer than their home.
    #[cfg(test)]
    pub(crate) fn journaled_blocks(&self) -> usize {
        self.data.len()
    }

    /// Lets at most so many blocks become newer than their home; for a volume without a journal whose changes are never
    /// written home but asked for by [`Self::take_changes`].
    pub(crate) fn limit_changes(&self, blocks: u32) {
        self.room.store(blocks.into(), Ordering::Relaxed);
    }

    /// Counts one more block that is newer than its home.
    fn take_room(&self) -> Result<(), Error> {
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
        let full = JournalError::LogFull { needed: 1, free: 0 };
        taken.map(drop).map_err(|_| Error::Journal(full))
    }

    /// The way to whoever listens to events; here, since all active layers know the transactions.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Sizes and counts that never change while mounted.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The device in blocks, for data.
    pub(crate) fn io(&self) -> &BlockIo {
        &self.io
    }

    /// Where time comes from.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Whether there is a journal.
    pub(crate) fn is_journaled(&self) -> bool {
        self.journal.is_some()
    }

    /// Drops cached metadata blocks that are clean and unused, if there are more than `limit`.
    pub(crate) fn shrink_to(&self, limit: u64) {
        let cached = self.cache.len();
        if cached <= limit.max(self.shrink_at.load(Ordering::Relaxed)) {
            return;
        }
        // A quarter more than needed, so that the next look is far off.
        self.cache.shrink(cached - limit + limit / 4);
        // Those that stay are newer than the device, or in use: looking at them again at once would bring nothing.
        let left = self.cache.len();
        self.shrink_at.store(left + left / 4, Ordering::Relaxed);
    }

    fn cache(&self) -> &MetadataCache {
        &self.cache
    }

    /// Whether the block is in memory, so that reading it asks no device.
    pub(crate) fn is_cached(&self, block: PhysicalBlock) -> bool {
        self.cache.find(block).is_some()
    }

    /// Tells `listener` of every commit from now on.
    pub(crate) fn add_listener(&self, listener: Arc<dyn CommitListener>) {
        self.listeners.lock().push(Arc::downgrade(&listener));
    }

    fn listeners(&self) -> Vec<Arc<dyn CommitListener>> {
        self.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// A metadata block, from the cache or from the device; its checksum was verified when it was read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a place outside the file system, a wrong checksum, or a block in use as something else.
    /// # Locks
    /// May read the device: none may be held of rank 72 or more.
    pub(crate) fn read(
        &self,
        block: PhysicalBlock,
        kind: BlockKind,
    ) -> Result<MetadataBlock, Error> {
        self.read_unless(block, kind, || Ok(false))
    }

    /// As [`Self::read`]; but if the block is not in memory and `is_unused`, nothing on the device is asked: it is zeros.
    ///
    /// # Errors
    /// As [`Self::read`], and those of `is_unused`.
    /// # Locks
    /// Nobody else can have the block while `is_unused` runs, which may read other blocks.
    pub(crate) fn read_unless(
        &self,
        block: PhysicalBlock,
        kind: BlockKind,
        is_unused: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<MetadataBlock, Error> {
        Place::Block(block).require(self.geometry.has_block(block), Rule::BlockPlace)?;
        Place::Block(block).require(!self.data.contains(block), Rule::CrossLinked)?;
        match self.cache.claim(block, kind)? {
            Claim::Hit(block) => Ok(block),
            Claim::Load(entry) => {
                let content = is_unused().and_then(|unused| {
                    if unused {
                        return Ok(Frame::zeroed(self.geometry.block_len()));
                    }
                    let frame = self.io.read_block(block)?;
                    seal::verify(frame.as_slice(), block, kind, &self.geometry)?;
                    Ok(frame)
                });
                self.cache.loaded(entry, content)
            }
        }
    }

    /// Whether changes are possible at all.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Shutdown`], or [`Error::Aborted`] with the first reason.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.writable.load(Ordering::Acquire) {
            return Ok(());
        }
        match *self.state.lock() {
            State::Writable => Ok(()),
            State::ReadOnly => Err(Error::ReadOnly),
            State::Shutdown => Err(Error::Shutdown),
            State::Aborted { errno, reason, device } => {
                Err(Error::Aborted { errno, reason, device })
            }
        }
    }

    /// Nothing is changed any more: the volume was unmounted.
    pub(crate) fn set_read_only(&self) {
        self.enter(State::ReadOnly);
    }

    /// Forced shutdown: every later change is refused with an I/O error. With `commits`, what has been changed so far is
    /// made durable, but for data that has no place yet.
    ///
    /// # Errors
    /// Of the commit.
    pub(crate) fn shut_down(&self, commits: bool) -> Result<(), Error> {
        self.enter(State::Shutdown);
        let committed = if commits { self.commit_running() } else { Ok(()) };
        self.abort_journal_silently();
        committed
    }

    /// Lets nobody write any more.
    fn enter(&self, state: State) {
        *self.state.lock() = state;
        self.writable.store(false, Ordering::Release);
    }

    /// Keeps the first reason; `false` if there was one already.
    fn latch_abort(&self, errno: Errno, reason: &'static str, device: Option<DeviceError>) -> bool {
        let mut state = self.state.lock();
        let first = matches!(*state, State::Writable | State::ReadOnly);
        if first {
            *state = State::Aborted { errno, reason, device };
            self.writable.store(false, Ordering::Release);
        }
        first
    }

    /// Makes all metadata durable: by a commit, or, without a journal, by writing every changed block home.
    ///
    /// # Errors
    /// Of the device or the journal.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if self.is_journaled() {
            return self.commit_running();
        }
        self.write_dirty_home()?;
        self.io.flush()?;
        self.listeners().iter().for_each(|listener| listener.after_commit());
        Ok(())
    }

    /// Without a journal: every changed block as it would be written home; it stays where it is.
    ///
    /// # Locks
    /// Takes what handles hold (50) for writing.
    pub(crate) fn take_changes(&self) -> Vec<(PhysicalBlock, Frame)> {
        let _home = self.home.write();
        let dirty = self.cache.dirty();
        seal::seal(&dirty, &self.cache, &self.geometry);
        dirty.iter().map(|block| (block.number(), block.frame())).collect()
    }

    /// Without a journal: writes every changed block home.
    ///
    /// No handle runs meanwhile, or sums would not fit their blocks, and a block that is freed and used for data while it
    /// is on its way would overwrite that.
    fn write_dirty_home(&self) -> Result<(), Error> {
        let _home = self.home.write();
        let dirty = self.cache.dirty();
        seal::seal(&dirty, &self.cache, &self.geometry);
        let mut batch = Vec::with_capacity(dirty.len());
        for block in &dirty {
            // Clean before the write, so that a change during it makes the block dirty again.
            batch.push(Request::write_frame(self.io.offset(block.number()), block.take_dirty()));
        }
        let outcome = self.io.run(&mut batch);
        for (block, request) in dirty.iter().zip(&batch) {
            if request.result.is_err() {
                block.set_dirty(TransactionId(0));
            }
        }
        outcome
    }
}
