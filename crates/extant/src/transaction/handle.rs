//! The right to change metadata within one transaction.
//!
//! Source: kernel `fs/jbd2/transaction.c` (`jbd2_journal_get_write_access`, `_dirty_metadata`, `_forget`, `_stop`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use extant_device::Frame;
use extant_format::corruption::{Place, Rule};
use extant_format::{InodeNumber, PhysicalBlock, PhysicalRange, TransactionId};
use extant_journal::{BlockChange, Reservation, Ticket};

use super::Transactions;
use super::block::{BlockKind, MetadataBlock};
use super::cache::Claim;
use super::changes::Change;
use super::credits::Credits;
use super::data::{JournaledData, Zeros};
use super::journal::JournalState;
use crate::Error;
use crate::delayed::Privilege;
use crate::report::Ineligible;
use crate::sync::{Held, ReadGuard};
use crate::trace::{Event, HandleType};

/// Data that must be on the device before the transaction that makes it reachable commits.
///
/// Source: kernel `struct jbd2_inode`.
pub(crate) trait OrderedData: Send + Sync {
    /// Whose data it is.
    fn inode(&self) -> InodeNumber;

    /// What tells one life of an inode's number from the next: where the inode lies in memory, as long as it does.
    fn life(&self) -> usize;

    /// Writes the dirty bytes of the range that have a place on the device, and waits for them. Starts no handle.
    fn write_out(&self, bytes: Range<u64>) -> Result<(), Error>;

    /// Waits for those that are being written.
    fn wait(&self, bytes: Range<u64>);

    /// Whether a commit writes the file's data out: once one has had to (`now`), all do that wait for it.
    ///
    /// Source: kernel `jbd2_journal_file_inode`, which only ever adds to a file's flags.
    fn is_written_out(&self, now: bool) -> bool;
}

/// What a transaction waits for.
#[derive(Clone)]
pub(super) struct Ordered {
    pub(super) data: Arc<dyn OrderedData>,
    pub(super) bytes: Range<u64>,
    /// The commit writes it itself; else somebody else does so already.
    pub(super) writes: bool,
}

/// Who has to be told of commits.
pub(crate) trait CommitListener: Send + Sync {
    /// Transaction `tid` is on the device; called with no lock held.
    fn committed(&self, tid: TransactionId);

    /// The same for what nobody waits for any more; it may wait for the device.
    fn after_commit(&self) {}
}

/// Blocks set aside for a handle that starts at the end of I/O; given back when dropped unused.
#[must_use]
pub(crate) struct ReservedCredits {
    /// `None` where there is no journal, or once it is used.
    pub(super) reservation: Option<Reservation>,
    pub(super) journal: Option<Arc<JournalState>>,
}

impl Drop for ReservedCredits {
    fn drop(&mut self) {
        if let (Some(reservation), Some(journal)) = (self.reservation.take(), &self.journal) {
            journal.release(reservation);
        }
    }
}

/// The right to change blocks within one transaction; stops when dropped.
#[must_use]
pub(crate) struct Handle<'t> {
    transactions: &'t Transactions,
    tid: TransactionId,
    /// The journal's side of the handle; `None` without a journal, or once stopped.
    ticket: Option<Ticket>,
    credits: u32,
    revokes: u32,
    kind: HandleType,
    privileged: bool,
    /// Blocks asked for at first, and when, for events.
    asked: (u32, Duration),
    changes: Changes,
    reserved: Option<ReservedCredits>,
    sync: bool,
    has_changed: bool,
    /// `None` once stopped.
    rank: Option<HandleRank<'t>>,
}

/// A handle's place in the order of locks: whoever begins one may have to wait for a commit.
pub(super) enum HandleRank<'t> {
    /// Commits wait until the handle has stopped.
    Journal { _held: Held },
    /// Without a journal: metadata is not written home while it changes.
    Home { _guard: ReadGuard<'t, ()> },
}

/// What a handle has done; filed with the journal in one lock hold when it stops.
#[derive(Default)]
pub(super) struct Changes {
    /// Blocks changed for the first time in this transaction, or freed, in order.
    pub(super) blocks: Vec<(PhysicalBlock, BlockChange)>,
    /// Ordered data.
    pub(super) ordered: Vec<Ordered>,
}

impl<'t> Handle<'t> {
    /// A handle in transaction `tid` with the journal's `ticket`, or without a journal.
    pub(super) fn new(
        transactions: &'t Transactions,
        tid: TransactionId,
        ticket: Option<Ticket>,
        reserved: Option<ReservedCredits>,
        rank: HandleRank<'t>,
        kind: HandleType,
    ) -> Self {
        let (credits, revokes) =
            ticket.as_ref().map_or((0, 0), |ticket| (ticket.blocks(), ticket.revokes()));
        let tracer = transactions.tracer();
        let start = if tracer.is_on() { transactions.clock().monotonic() } else { Duration::ZERO };
        if ticket.is_some() {
            let (tid, requested_blocks) = (tid.get(), credits);
            tracer.emit(|| Event::HandleStart { tid, kind, requested_blocks });
        }
        Self {
            transactions,
            tid,
            ticket,
            credits,
            revokes,
            kind,
            privileged: false,
            asked: (credits, start),
            changes: Changes::default(),
            reserved,
            sync: false,
            has_changed: false,
            rank: Some(rank),
        }
    }

    pub(super) fn with_privilege(mut self, privileged: bool) -> Self {
        self.privileged = privileged;
        self
    }

    /// As if another thread had it: a thread has one handle at most, as a second might have to wait for the first.
    #[cfg(test)]
    pub(crate) fn of_another_thread(mut self) -> Self {
        self.rank = None;
        self
    }

    /// The transaction that this belongs to.
    pub(crate) fn transaction_id(&self) -> TransactionId {
        self.tid
    }

    /// Whether there is a journal; without one every change goes home by itself.
    pub(crate) fn is_journaled(&self) -> bool {
        self.transactions.is_journaled()
    }

    /// In whose name it allocates: a caller with privilege may have root's reserve for whatever the work needs, be it data,
    /// tree nodes, directory blocks or attributes.
    ///
    /// Source: kernel `ext4_has_free_clusters`, which asks the task.
    pub(crate) fn privilege(&self) -> Privilege {
        if self.privileged { Privilege::Root } else { Privilege::Ordinary }
    }

    /// How many more blocks it may change.
    pub(crate) fn credits(&self) -> u32 {
        self.credits
    }

    /// Whether anybody wants to know of changes by their meaning.
    pub(crate) fn notes_changes(&self) -> bool {
        self.transactions.fast_commits.is_some()
    }

    /// Tells the next fast commit of a change; costs a branch where there are none.
    ///
    /// # Locks
    /// Takes that of what was noted (85).
    pub(crate) fn note(&self, change: Change<'_>) {
        if let Some(fast) = &self.transactions.fast_commits {
            fast.changes.note(self.tid, change, self.transactions.tracer());
        }
    }

    /// The kernel begins a handle here inside this one, which takes no credits of its own.
    pub(crate) fn nest(&self, credits: Credits) {
        self.transactions.tell_start(credits);
    }

    /// Makes the caller of [`Self::stop`] wait until the transaction is durable.
    pub(crate) fn set_sync(&mut self) {
        self.sync = true;
    }

    /// The kernel stops its handle here and begins another; this one goes on, so that both are in one transaction.
    pub(crate) fn go_on_as(&mut self, credits: Credits) {
        self.tell_stats();
        self.kind = credits.kind;
        let tracer = self.transactions.tracer();
        self.transactions.tell_start(credits);
        if self.ticket.is_some() {
            let (tid, kind, requested_blocks) = (self.tid.get(), self.kind, credits.blocks);
            tracer.emit(|| Event::HandleStart { tid, kind, requested_blocks });
        }
        if tracer.is_on() {
            self.asked = (credits.blocks, self.transactions.clock().monotonic());
        }
    }

    /// This transaction does not commit before the handle for which credits are set aside has stopped, or those were given
    /// up. Whoever has them waits for nothing but the device until then.
    pub(crate) fn pin_reserved(&mut self) {
        let reserved = self.reserved.as_mut().and_then(|reserved| reserved.reservation.as_mut());
        if let (Some(ticket), Some(reservation)) = (&self.ticket, reserved) {
            self.transactions.pin(ticket, reservation);
        }
    }

    /// The credits set aside for the end of I/O, to be used by a later handle.
    pub(crate) fn take_reserved(&mut self) -> Option<ReservedCredits> {
        self.reserved.take()
    }

    /// Changes a block's bytes; the first time in this transaction costs one credit.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if no credit is left: the operation had asked for too few. [`Error::Journal`] on a volume
    /// whose changes are only collected, once they are too many.
    /// # Locks
    /// Takes the block's lock (95) around `change`; does no I/O.
    pub(crate) fn modify<R>(
        &mut self,
        block: &MetadataBlock,
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, Error> {
        let mut state = block.0.lock();
        if state.newest != Some(self.tid) {
            if self.credits == 0 && self.is_journaled() {
                drop(state); // more credits take the journal's lock, which comes before the block's
                self.ensure_credits(1, 0)?;
                state = block.0.lock();
            }
            if !self.is_journaled() {
                self.transactions.take_room()?;
            }
            self.credits = self.credits.saturating_sub(1);
            state.newest = Some(self.tid);
            self.changes.blocks.push((block.number(), BlockChange::Dirty));
        }
        state.referenced = true;
        self.has_changed = true;
        Ok(change(state.frame_mut().make_mut()))
    }

    /// A block that was just allocated: all zeroes, whatever the device holds, and part of this transaction.
    pub(crate) fn fresh(
        &mut self,
        block: PhysicalBlock,
        kind: BlockKind,
    ) -> Result<MetadataBlock, Error> {
        // What an earlier owner left in the cache is of no use: it was forgotten when the block was freed.
        self.transactions.cache().remove_if_clean(block);
        let zeroes = Frame::zeroed(self.transactions.geometry().block_len());
        let fresh = match self.transactions.cache().claim(block, kind)? {
            Claim::Hit(block) => block,
            Claim::Load(entry) => self.transactions.cache().loaded(entry, Ok(zeroes.clone()))?,
        };
        self.modify(&fresh, |bytes| bytes.fill(0))?;
        Ok(fresh)
    }

    /// Makes a block of a file whose data is journaled part of this transaction: before its bytes change, which `data` has.
    /// The first time in this transaction costs one credit. The block does not go home before the transaction has committed.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if no credit is left; [`Error::Corrupt`] if the block is metadata as well.
    /// # Source
    /// Kernel `do_journal_get_write_access`, `ext4_dirty_journalled_data`.
    pub(crate) fn journal(
        &mut self,
        block: PhysicalBlock,
        data: Arc<dyn JournaledData>,
    ) -> Result<(), Error> {
        let transactions = self.transactions;
        if !transactions.data.is_filed(block, self.tid) {
            // What an earlier owner left in the cache is of no use; what waits to be written has another owner now.
            transactions.cache().remove_if_clean(block);
            let alone = !transactions.cache().contains(block);
            Place::Block(block).require(alone, Rule::CrossLinked)?;
            if self.credits == 0 {
                self.ensure_credits(1, 0)?;
            }
            self.credits -= 1;
            self.changes.blocks.push((block, BlockChange::Dirty));
        }
        transactions.data.file(block, self.tid, data);
        self.note(Change::Unrecorded(Ineligible::JournaledData));
        self.has_changed = true;
        Ok(())
    }

    /// Makes a range of a file whose data is journaled read as zeros, in the log; costs a credit a block.
    ///
    /// # Errors
    /// As [`Self::journal`]; nothing has changed if the transaction has no room.
    pub(crate) fn journal_zeros(&mut self, range: PhysicalRange) -> Result<(), Error> {
        self.ensure_credits(u32::try_from(range.len()).unwrap_or(u32::MAX), 0)?;
        let zeros = Arc::new(Zeros(Frame::zeroed(self.transactions.geometry().block_len())));
        let mut blocks = range.start().get()..range.end().get();
        blocks.try_for_each(|block| self.journal(PhysicalBlock::new(block), zeros.clone()))
    }

    /// Tells the journal that a range, which holds metadata or journaled data, is being freed: nobody writes its bytes home or
    /// replays them any more.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if too few revokes are left; nothing has changed then.
    /// # Source
    /// Kernel `ext4_forget`: where all data is journaled nothing is revoked, as a block is written again through the log only.
    pub(crate) fn forget(&mut self, range: PhysicalRange) -> Result<(), Error> {
        let revokes = self.transactions.revokes();
        if self.is_journaled() && revokes {
            let wanted = u32::try_from(range.len()).unwrap_or(u32::MAX);
            self.ensure_credits(0, wanted)?;
            self.revokes = self.revokes.saturating_sub(wanted);
        }
        let data = self.transactions.data.forget(range);
        for block in (range.start().get()..range.end().get()).map(PhysicalBlock::new) {
            let is_newer = self.transactions.cache().forget(block);
            if revokes {
                self.changes.blocks.push((block, BlockChange::Revoke));
            } else if is_newer || data.binary_search(&block).is_ok() {
                self.changes.blocks.push((block, BlockChange::Forget));
            }
        }
        self.has_changed = true;
        Ok(())
    }

    /// Makes sure that this many more blocks can be changed and revoked.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the transaction has no room: restart the handle, or give up.
    pub(crate) fn ensure_credits(&mut self, blocks: u32, revokes: u32) -> Result<(), Error> {
        let (more, more_revokes) =
            (blocks.saturating_sub(self.credits), revokes.saturating_sub(self.revokes));
        let Some(ticket) = self.ticket.as_mut().filter(|_| (more, more_revokes) != (0, 0)) else {
            return Ok(());
        };
        self.transactions.extend(ticket, more, more_revokes)?;
        self.transactions.tracer().emit(|| Event::HandleExtend {
            tid: self.tid.get(),
            kind: self.kind,
            buffer_credits: self.credits,
            requested_blocks: more,
        });
        self.credits += more;
        self.revokes += more_revokes;
        Ok(())
    }

    /// Leaves this transaction and joins a later one: what was done so far may commit without the rest.
    ///
    /// # Errors
    /// As [`Transactions::begin`]; the handle is stopped then, and may only be dropped.
    pub(crate) fn restart(&mut self, credits: Credits) -> Result<(), Error> {
        self.restart_after(credits, || {})
    }

    /// The same, and between the two transactions, when no handle is held, `between` is done.
    ///
    /// # Errors
    /// As [`Self::restart`].
    pub(crate) fn restart_after(
        &mut self,
        credits: Credits,
        between: impl FnOnce(),
    ) -> Result<(), Error> {
        self.finish();
        between();
        let (kind, requested_blocks) = (self.kind, credits.blocks);
        let mut fresh = self.transactions.begin_again(Credits { kind, ..credits })?;
        let tid = fresh.tid.get();
        let tracer = self.transactions.tracer();
        tracer.emit(|| Event::HandleRestart { tid, kind, requested_blocks });
        self.tid = fresh.tid;
        self.ticket = fresh.ticket.take();
        self.rank = fresh.rank.take();
        self.asked = fresh.asked;
        (self.credits, self.revokes) = (fresh.credits, fresh.revokes);
        if let Some(reserved) = fresh.reserved.take() {
            self.reserved = Some(reserved);
        }
        Ok(())
    }

    /// The data's bytes have to be on the device before this transaction commits, which writes them.
    ///
    /// Source: kernel `jbd2_journal_inode_ranged_write`.
    pub(crate) fn order(&mut self, data: Arc<dyn OrderedData>, bytes: Range<u64>) {
        if self.is_journaled() {
            let writes = data.is_written_out(true);
            self.changes.ordered.push(Ordered { data, bytes, writes });
        }
    }

    /// The data's bytes, which the caller is about to write, have to be on the device before this transaction commits.
    ///
    /// Source: kernel `jbd2_journal_inode_ranged_wait`.
    pub(crate) fn order_submitted(&mut self, data: Arc<dyn OrderedData>, bytes: Range<u64>) {
        if self.is_journaled() {
            let writes = data.is_written_out(false);
            self.changes.ordered.push(Ordered { data, bytes, writes });
        }
    }

    /// Ends the handle; waits for the commit if [`Self::set_sync`] was called.
    ///
    /// # Errors
    /// Of the commit, if it had to wait for it.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        let (transactions, tid, sync) = (self.transactions, self.tid, self.sync);
        self.finish();
        if sync { transactions.commit_together(tid) } else { Ok(()) }
    }

    /// Ends the handle of an operation that failed with `error`. Nothing is undone: if it broke off in the middle of its
    /// changes, the journal is aborted, so that they never commit by halves.
    pub(crate) fn fail(self, error: Error) -> Error {
        if self.has_changed && !error.leaves_order() {
            self.transactions.abort(&error, "an operation was cut off");
        }
        error
    }

    fn finish(&mut self) {
        self.tell_stats();
        let changes = core::mem::take(&mut self.changes);
        if let Some(ticket) = self.ticket.take() {
            self.transactions.stop(ticket, changes);
        }
        self.rank = None;
    }

    fn tell_stats(&self) {
        if self.ticket.is_none() {
            return;
        }
        self.transactions.tracer().emit(|| {
            let (requested_blocks, start) = self.asked;
            let time = self.transactions.clock().monotonic().saturating_sub(start);
            let dirtied_blocks = u32::try_from(self.changes.blocks.len()).unwrap_or(u32::MAX);
            let (tid, kind, sync) = (self.tid.get(), self.kind, self.sync);
            let interval = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            Event::HandleStats { tid, kind, interval, sync, requested_blocks, dirtied_blocks }
        });
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}
