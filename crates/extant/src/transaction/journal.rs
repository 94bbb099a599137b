//! The journal behind its lock: who joins a transaction, who waits, and how it all stops.
//!
//! Source: kernel `fs/jbd2/transaction.c` (`start_this_handle`, `jbd2_journal_stop`), `journal.c`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_device::Frame;
use extant_device::FrameSlice;
use extant_device::Request;
use extant_format::PhysicalBlock;
use extant_format::PhysicalRange;
use extant_format::TransactionId;
use extant_journal::Begin;
use extant_journal::BlockChange;
use extant_journal::Extend;
use extant_journal::HandleRequest;
use extant_journal::Journal;
use extant_journal::JournalError;
use extant_journal::LogBlock;
use extant_journal::LogData;
use extant_journal::LogWrite;
use extant_journal::Progress;
use extant_journal::Reservation;
use extant_journal::SuperblockWrite;
use extant_journal::Ticket;

use super::Transactions;
use super::credits::Credits;
use super::handle::Changes;
use super::handle::Handle;
use super::handle::HandleRank;
use super::handle::Ordered;
use super::handle::ReservedCredits;
use super::log_map::LogMap;
use super::sharing::Sharing;
use crate::Errno;
use crate::Error;
use crate::block_io::BlockIo;
use crate::block_io::Tally;
use crate::sync::Condvar;
use crate::sync::Held;
use crate::sync::Mutex;
use crate::sync::Rank;
use crate::trace::Event;
use crate::trace::HandleType;

/// The journal, its lock, and where it lies.
pub(crate) struct JournalState {
    pub(super) state: Mutex<Locked>,
    pub(super) changed: Condvar,
    /// The device that holds the log; the data device, or one of its own.
    pub(super) io: BlockIo,
    /// Whether the log has a device of its own, so that the data device needs flushes too.
    pub(super) separate: bool,
    pub(super) map: LogMap,
    pub(super) barriers: bool,
}

pub(super) struct Locked {
    pub(super) journal: Journal<FrameSlice>,
    /// Ordered data of the running transaction.
    pub(super) ordered: Vec<Ordered>,
    /// Whose syncs share a commit.
    pub(super) sharing: Sharing,
}

impl Locked {
    /// The running transaction has to wait for this data. One range a file and transaction, as
    /// `jbd2_journal_inode_ranged_write` keeps it, which takes a range of the first byte alone for none: that is never more than
    /// a zero over what the file itself held. A number that was given to another file stands for two files.
    pub(super) fn order(&mut self, more: Ordered) {
        let life = more.data.life();
        match self.ordered.iter_mut().find(|known| known.data.life() == life) {
            Some(Ordered { bytes: all, writes, .. }) => {
                let bytes = more.bytes;
                let is_none = *all == (0..1);
                *all = if is_none {
                    bytes
                } else {
                    all.start.min(bytes.start)..all.end.max(bytes.end)
                };
                *writes |= more.writes;
            }
            None => self.ordered.push(more),
        }
    }
}

impl JournalState {
    /// A journal in use whose log lies where `map` says on the device of `io`.
    pub(crate) fn new(
        journal: Journal<FrameSlice>,
        io: BlockIo,
        separate: bool,
        map: LogMap,
        barriers: bool,
    ) -> Self {
        let state = Mutex::new(
            Rank::Journal,
            Locked { journal, ordered: Vec::new(), sharing: Sharing::default() },
        );
        Self { state, changed: Condvar::new(), io, separate, map, barriers }
    }

    /// Where the log lies, so that nobody else uses those blocks.
    pub(crate) fn blocks(&self) -> Vec<PhysicalRange> {
        if self.separate { Vec::new() } else { self.map.runs().collect() }
    }

    /// Blocks set aside for fast commits, if there are to be any.
    pub(super) fn fast_commit_blocks(&self) -> Option<u32> {
        self.state.lock().journal.parameters().fast_commit_area().map(|area| area.len())
    }

    /// Gives up credits set aside.
    pub(super) fn release(&self, reservation: Reservation) {
        self.state.lock().journal.release(reservation);
        self.changed.notify_all();
    }
}

impl Transactions {
    /// Begins a handle; commits or checkpoints first if there is no room, and waits for who does so already.
    ///
    /// # Errors
    /// [`Error::Aborted`], [`Error::ReadOnly`] or [`Error::Shutdown`]; a handle that asks for more than any transaction has.
    /// # Locks
    /// None may be held of rank 50 or more.
    pub(crate) fn begin(&self, credits: Credits) -> Result<Handle<'_>, Error> {
        self.tell_start(credits);
        self.begin_again(credits)
    }

    /// As [`Self::begin`], for what the kernel does in several handles, of which `first` is the one to tell of; see
    /// [`Handle::go_on_as`].
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn begin_with(&self, first: Credits, all: Credits) -> Result<Handle<'_>, Error> {
        self.tell_start(first);
        self.begin_again(Credits { kind: first.kind, ..all })
    }

    /// As [`Self::begin`], for a handle that goes on with what another has begun.
    pub(super) fn begin_again(&self, credits: Credits) -> Result<Handle<'_>, Error> {
        Ok(self.begin_or_wait(credits, true)?.expect("it waits until there is one"))
    }

    pub(super) fn tell_start(&self, credits: Credits) {
        self.tracer().emit(|| {
            let Credits { blocks, revokes, reserved, kind, inode, .. } = credits;
            let (rsv_blocks, revoke_creds) = (reserved, revokes);
            match inode {
                None => Event::JournalStartSb { blocks, rsv_blocks, revoke_creds, kind },
                Some(ino) => {
                    Event::JournalStartInode { blocks, rsv_blocks, revoke_creds, kind, ino }
                }
            }
        });
    }

    /// As [`Self::begin`], for those who hold what others may wait for: `None` instead of waiting.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn try_begin(&self, credits: Credits) -> Result<Option<Handle<'_>>, Error> {
        self.begin_or_wait(credits, false)
    }

    fn begin_or_wait(&self, credits: Credits, waits: bool) -> Result<Option<Handle<'_>>, Error> {
        self.check_writable()?;
        let Some(state) = &self.journal else {
            Tally::add(&self.io.tally.handles, 1);
            let reserved = ReservedCredits { reservation: None, journal: None };
            let reserved = (credits.reserved > 0).then_some(reserved);
            let rank = HandleRank::Home { _guard: self.home.read() };
            if !waits {
                self.tell_start(credits);
            }
            let handle = Handle::new(self, TransactionId(0), None, reserved, rank, credits.kind);
            return Ok(Some(handle.with_privilege(credits.privileged)));
        };
        drop(Held::new(Rank::Handle)); // nothing is held that a commit may wait for
        let request = HandleRequest {
            blocks: credits.blocks,
            revokes: credits.revokes,
            reserved: credits.reserved,
        };
        let mut locked = state.state.lock();
        loop {
            match locked.journal.begin(request, self.clock.monotonic()) {
                Begin::Granted { ticket, reservation } => {
                    let fills = locked.journal.fills();
                    drop(locked);
                    if fills {
                        self.early_tick.ask();
                    }
                    let tid = ticket.tid();
                    Tally::add(&self.io.tally.handles, 1);
                    let reserved = reservation.map(|reservation| ReservedCredits {
                        reservation: Some(reservation),
                        journal: Some(Arc::clone(state)),
                    });
                    let rank = HandleRank::Journal { _held: Held::new(Rank::Handle) };
                    let ticket = Some(ticket);
                    if !waits {
                        self.tell_start(credits);
                    }
                    let handle = Handle::new(self, tid, ticket, reserved, rank, credits.kind);
                    return Ok(Some(handle.with_privilege(credits.privileged)));
                }
                Begin::Refused(error) => return Err(self.refusal(error)),
                _ if !waits => return Ok(None),
                Begin::WaitLocked(_) | Begin::WaitBarrier | Begin::WaitReserved => {
                    locked = state.changed.wait(locked)
                }
                Begin::CommitFirst(tid) => {
                    drop(locked);
                    self.commit(tid)?;
                    locked = state.state.lock();
                }
                Begin::CheckpointFirst => {
                    let wanted = locked.journal.parameters().max_transaction();
                    drop(locked);
                    self.checkpoint(wanted)?;
                    locked = state.state.lock();
                }
            }
        }
    }

    /// Begins a handle on credits that were set aside; never waits.
    ///
    /// # Errors
    /// [`Error::Aborted`].
    pub(crate) fn begin_reserved(
        &self,
        mut reserved: ReservedCredits,
    ) -> Result<Handle<'_>, Error> {
        let kind = HandleType::ExtentConversion;
        let (Some(state), Some(reservation)) = (&self.journal, reserved.reservation.take()) else {
            let rank = HandleRank::Home { _guard: self.home.read() };
            return Ok(Handle::new(self, TransactionId(0), None, None, rank, kind));
        };
        let blocks = reservation.blocks();
        self.tracer().emit(|| Event::JournalStartReserved { blocks });
        let rank = HandleRank::Journal { _held: Held::new(Rank::Handle) };
        let started =
            state.state.lock().journal.start_reserved(reservation, self.clock.monotonic());
        state.changed.notify_all();
        let ticket = started.map_err(|error| self.refusal(error))?;
        Ok(Handle::new(self, ticket.tid(), Some(ticket), None, rank, kind))
    }

    /// Lets the transaction of a handle wait for a later one.
    pub(super) fn pin(&self, ticket: &Ticket, reservation: &mut Reservation) {
        if let Some(state) = &self.journal {
            state.state.lock().journal.pin(ticket, reservation);
        }
    }

    /// Adds credits to a running handle.
    pub(super) fn extend(
        &self,
        ticket: &mut Ticket,
        blocks: u32,
        revokes: u32,
    ) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        match state
            .state
            .lock()
            .journal
            .extend(ticket, blocks, revokes)
            .map_err(|error| self.refusal(error))?
        {
            Extend::Granted => Ok(()),
            Extend::Full => Err(Error::TransactionFull),
        }
    }

    /// Ends a handle. A block that it has changed and another handle has forgotten since, as the last inode does that
    /// shares attributes, is revoked, whichever of the two stops first.
    pub(super) fn stop(&self, ticket: Ticket, mut changes: Changes) {
        let Some(state) = &self.journal else { return };
        let mut locked = state.state.lock();
        changes
            .blocks
            .retain(|(block, change)| *change != BlockChange::Dirty || self.has_newer(*block));
        changes.ordered.into_iter().for_each(|ordered| locked.order(ordered));
        let stopped = locked.journal.stop(ticket, changes.blocks);
        drop(locked);
        debug_assert_eq!(stopped.overrun, 0, "a handle changed more blocks than it had asked for");
        if stopped.is_awaited {
            state.changed.notify_all();
        }
    }

    /// Whether a block is cached here, or is data that is newer than its home.
    fn has_newer(&self, block: PhysicalBlock) -> bool {
        self.cache.contains(block) || self.data.contains(block)
    }

    /// The most that one handle can ask for; `None` without a journal.
    pub(crate) fn max_credits(&self) -> Option<u32> {
        Some(self.journal.as_ref()?.state.lock().journal.parameters().user_maximum())
    }

    /// Free blocks of the log, and committed blocks that are not home yet; `None` without a journal.
    pub(crate) fn log_fill(&self) -> Option<(u32, usize)> {
        let state = self.journal.as_ref()?.state.lock();
        Some((state.journal.free_log_blocks(), state.journal.pending_blocks()))
    }

    /// The transaction that runs, or else the one that commits.
    pub(crate) fn newest_transaction(&self) -> Option<TransactionId> {
        let locked = self.journal.as_ref()?.state.lock();
        locked.journal.running().or(locked.journal.committing())
    }

    /// Whether transaction `tid` is on the device, or gone.
    pub(crate) fn is_committed(&self, tid: TransactionId) -> bool {
        let Some(state) = &self.journal else { return true };
        state.state.lock().journal.progress(tid) == Progress::Committed
    }

    /// Empties the log and marks the journal clean: the end of an unmount.
    ///
    /// # Errors
    /// Of the device.
    pub(crate) fn close_journal(&self) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        self.commit_running()?;
        self.checkpoint(u32::MAX)?;
        let mut locked = state.state.lock();
        let superblock = locked.journal.plan_clean().map_err(|error| self.refusal(error))?;
        drop(locked);
        self.io.flush()?;
        self.write_journal_superblock(state, &superblock, true)?;
        locked = state.state.lock();
        locked.journal.cleaned();
        Ok(())
    }

    /// Does `change` at a moment when no handle runs and the log is empty.
    ///
    /// # Errors
    /// Of the device or the journal; nothing is changed then.
    /// # Locks
    /// None may be held of rank 50 or more. Who wants to begin a handle waits meanwhile.
    /// # Source
    /// Kernel `jbd2_journal_lock_updates`, `jbd2_journal_flush`.
    pub(crate) fn with_empty_log(&self, change: impl FnOnce()) -> Result<(), Error> {
        let Some(state) = &self.journal else {
            change();
            return Ok(());
        };
        let mut locked = state.state.lock();
        locked.journal.lock_updates();
        while !locked.journal.updates_drained() {
            locked = state.changed.wait(locked);
        }
        drop(locked);
        let outcome = self.close_journal().map(|()| change());
        state.state.lock().journal.unlock_updates();
        state.changed.notify_all();
        outcome
    }

    /// Takes the error of an earlier mount off the journal, which the file system has noted.
    ///
    /// # Errors
    /// Of the device.
    /// # Source
    /// Kernel `ext4_clear_journal_err`, `jbd2_journal_clear_err`.
    pub(crate) fn clear_journal_errno(&self) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        let superblock = state.state.lock().journal.clear_errno();
        superblock
            .map_or(Ok(()), |superblock| self.write_journal_superblock(state, &superblock, true))
    }

    /// Stops everything that changes the image, for good; the first reason is kept.
    pub(crate) fn abort(&self, error: &Error, reason: &'static str) {
        let device = if let Error::Device(error) = error { Some(*error) } else { None };
        self.abort_as(error.errno(), reason, device);
    }

    /// The same, of an error of which there is no more than the number.
    pub(crate) fn abort_as(&self, errno: Errno, reason: &'static str, device: Option<DeviceError>) {
        if !self.latch_abort(errno, reason, device) {
            return;
        }
        let Some(state) = &self.journal else { return };
        let superblock = state.state.lock().journal.abort(u16::try_from(errno.0).unwrap_or(5));
        if let Some(superblock) = superblock {
            // The device may be what failed; the next mount then finds an unfinished log, which says as much.
            let _ = self.write_journal_superblock(state, &superblock, true);
        }
        state.changed.notify_all();
    }

    /// The same, and nothing is written to say so: the volume is another host's.
    pub(crate) fn abort_unsaid(&self, errno: Errno, reason: &'static str) {
        if self.latch_abort(errno, reason, None) {
            self.abort_journal_silently();
        }
    }

    /// Stops the journal without telling the next mount of an error: a shutdown was asked for.
    pub(super) fn abort_journal_silently(&self) {
        if let Some(state) = &self.journal {
            state.state.lock().journal.abort(0);
            state.changed.notify_all();
        }
    }

    pub(super) fn write_journal_superblock(
        &self,
        state: &JournalState,
        superblock: &SuperblockWrite,
        durable: bool,
    ) -> Result<(), Error> {
        let write_flags = if durable && state.barriers { DURABLE_WRITE } else { PLAIN_WRITE };
        self.tracer().emit(|| Event::WriteSuperblock { write_flags });
        state.write_superblock(superblock, durable)
    }

    pub(super) fn refusal(&self, error: JournalError) -> Error {
        match error {
            JournalError::Aborted { errno } => {
                self.check_writable().err().unwrap_or(Error::Aborted {
                    errno: Errno(errno.into()),
                    reason: "journal",
                    device: None,
                })
            }
            other => Error::Journal(other),
        }
    }
}

impl JournalState {
    pub(super) fn log_request(
        &self,
        write: LogWrite<FrameSlice>,
        fua: bool,
    ) -> Result<Request, Error> {
        let block = self.map.block(write.at).ok_or(JournalError::Unreadable(write.at))?;
        let data = alloc::vec![match write.data {
            LogData::Own(bytes) => Frame::from(bytes).into(),
            LogData::Shared(share) => share,
        }];
        let offset = self.io.offset(block);
        Ok(if fua { Request::write_fua(offset, data) } else { Request::write(offset, data) })
    }

    pub(super) fn write_superblock(
        &self,
        superblock: &SuperblockWrite,
        durable: bool,
    ) -> Result<(), Error> {
        let at = LogBlock::SUPERBLOCK;
        let block = self.map.block(at).ok_or(JournalError::Unreadable(at))?;
        let frame = Frame::copy_from(superblock.bytes());
        let len = frame.len();
        let data = alloc::vec![frame.slice(0..len)];
        let (offset, fua) = (self.io.offset(block), durable && self.barriers);
        self.io.run(&mut [if fua {
            Request::write_fua(offset, data)
        } else {
            Request::write(offset, data)
        }])
    }
}

/// How the kernel's block layer writes the journal's superblock: `REQ_META | REQ_SYNC | REQ_IDLE`; with `REQ_FUA`.
const PLAIN_WRITE: u32 = 0x9800;
const DURABLE_WRITE: u32 = PLAIN_WRITE | 0x2_0000;
