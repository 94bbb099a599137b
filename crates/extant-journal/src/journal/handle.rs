//! Handles and their credits: J3.1 to J3.7 and J3.11.

use core::time::Duration;

use extant_format::{PhysicalBlock, TransactionId};

use super::{Journal, LOG_SLACK, Running};
use crate::{JournalError, JournalParameters};

/// What a handle asks for when it begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HandleRequest {
    /// Blocks that it may dirty.
    pub blocks: u32,
    /// Blocks that it may revoke.
    pub revokes: u32,
    /// Blocks to set aside for a handle that starts later and must not wait.
    pub reserved: u32,
}

/// The answer to a request to begin; all but the first and last mean: do or await something, then ask again.
#[derive(Debug)]
#[must_use]
pub enum Begin {
    /// The handle belongs to the running transaction now.
    Granted {
        /// The handle's rights, to be given back to [`Journal::stop`].
        ticket: Ticket,
        /// The reservation, if one was asked for.
        reservation: Option<Reservation>,
    },
    /// This transaction is locked; wait until it has switched.
    WaitLocked(TransactionId),
    /// Updates are locked out for a freeze; wait until it ends.
    WaitBarrier,
    /// Too much is reserved; wait until some reservation is used or released, or a transaction has committed.
    WaitReserved,
    /// This transaction is full; see that it commits.
    CommitFirst(TransactionId),
    /// The log is nearly full; do what [`Journal::plan_checkpoint`] says.
    CheckpointFirst,
    /// Never.
    Refused(JournalError),
}

/// The rights of one handle in one transaction. Spent by [`Journal::stop`]; to lose it is to block every commit.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    tid: TransactionId,
    blocks: u32,
    revokes: u32,
}

impl Ticket {
    /// The transaction that the handle belongs to.
    pub fn tid(&self) -> TransactionId {
        self.tid
    }

    /// How many blocks the handle may dirty.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// How many blocks the handle may revoke.
    pub fn revokes(&self) -> u32 {
        self.revokes
    }

    fn cost(&self, parameters: &JournalParameters) -> u32 {
        parameters.handle_cost(self.blocks, self.revokes)
    }
}

/// Credits set aside for a later handle; spent by [`Journal::start_reserved`] or [`Journal::release`].
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    blocks: u32,
    /// The transaction that waits for it.
    pins: Option<TransactionId>,
}

impl Reservation {
    /// How many blocks the later handle may dirty.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }
}

/// Whether a handle got more credits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Extend {
    /// The ticket holds them.
    Granted,
    /// Restart the handle, or give up (J3.6).
    Full,
}

/// What a handle did to a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockChange {
    /// Changed it: it is logged, and a revoke by this transaction is cancelled.
    Dirty,
    /// Freed it: it is not logged, and no older version goes home after this transaction's commit.
    Forget,
    /// Freed it, and no older version may be replayed either.
    Revoke,
}

/// What the end of a handle means for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Stopped {
    /// Blocks filed beyond the credits: a bug of the caller. They are filed nonetheless, to keep the operation whole.
    pub overrun: u32,
    /// Whether somebody waits for this: a locked transaction has lost its last handle, or updates are locked out and none
    /// runs any more.
    pub is_awaited: bool,
}

impl<B: Clone + AsRef<[u8]>> Journal<B> {
    /// Begins a handle: joins the running transaction, or starts one at time `now`.
    ///
    /// # Source
    /// Kernel `fs/jbd2/transaction.c`, `start_this_handle`, `add_transaction_credits`.
    pub fn begin(&mut self, request: HandleRequest, now: Duration) -> Begin {
        if let Err(error) = self.check().and_then(|()| self.check_size(request)) {
            return Begin::Refused(error);
        }
        if self.barrier > 0 {
            return Begin::WaitBarrier;
        }
        if let Some(running) = self.running.as_ref().filter(|running| running.locked) {
            return Begin::WaitLocked(running.tid);
        }
        let cost = self
            .parameters
            .handle_cost(request.blocks, request.revokes)
            .saturating_add(request.reserved);
        if self.outstanding().saturating_add(cost) > self.parameters.max_transaction() {
            let user_maximum = self.parameters.user_maximum();
            match &mut self.running {
                Some(running) if self.reserved.saturating_add(cost) <= user_maximum => {
                    running.commit_wanted = true;
                    return Begin::CommitFirst(running.tid);
                }
                _ => return Begin::WaitReserved,
            }
        }
        if self.log.free.saturating_sub(LOG_SLACK) < self.parameters.max_transaction() {
            return Begin::CheckpointFirst;
        }
        let reserved = self.reserved.saturating_add(request.reserved);
        if request.reserved > 0 && reserved > self.parameters.reserved_maximum() {
            return Begin::WaitReserved;
        }
        self.reserved = reserved;
        let reservation =
            (request.reserved > 0).then_some(Reservation { blocks: request.reserved, pins: None });
        Begin::Granted { ticket: self.join(request.blocks, request.revokes, now), reservation }
    }

    /// Keeps the transaction of `ticket` from committing until `reservation` is used or released: what the later handle
    /// does belongs to it.
    ///
    /// # Source
    /// None: jbd2 lets a transaction commit while handles that were reserved in it have not started.
    pub fn pin(&mut self, ticket: &Ticket, reservation: &mut Reservation) {
        let running = self.running.as_mut().filter(|running| running.tid == ticket.tid);
        if let Some(running) = running.filter(|_| reservation.pins.is_none()) {
            running.pins = running.pins.saturating_add(1);
            reservation.pins = Some(running.tid);
        }
    }

    /// Begins a handle on credits set aside earlier; joins even a locked transaction, and never waits.
    ///
    /// # Errors
    /// [`JournalError::Aborted`]; the reservation is gone then too.
    pub fn start_reserved(
        &mut self,
        reservation: Reservation,
        now: Duration,
    ) -> Result<Ticket, JournalError> {
        let blocks = reservation.blocks;
        self.release(reservation);
        self.check()?;
        Ok(self.join(blocks, 0, now))
    }

    /// Gives up credits set aside.
    pub fn release(&mut self, reservation: Reservation) {
        self.reserved = self.reserved.saturating_sub(reservation.blocks);
        if let Some(running) = &mut self.running
            && reservation.pins == Some(running.tid)
        {
            running.pins = running.pins.saturating_sub(1);
        }
    }

    /// Adds credits to a handle, if its transaction still runs and has room.
    ///
    /// # Errors
    /// [`JournalError::Aborted`].
    /// # Source
    /// Kernel `jbd2_journal_extend`.
    pub fn extend(
        &mut self,
        ticket: &mut Ticket,
        blocks: u32,
        revokes: u32,
    ) -> Result<Extend, JournalError> {
        self.check()?;
        let larger = Ticket {
            tid: ticket.tid,
            blocks: ticket.blocks.saturating_add(blocks),
            revokes: ticket.revokes.saturating_add(revokes),
        };
        let extra = larger.cost(&self.parameters).saturating_sub(ticket.cost(&self.parameters));
        let fits = self.outstanding().saturating_add(extra) <= self.parameters.max_transaction();
        match &mut self.running {
            Some(running) if running.tid == ticket.tid && !running.locked && fits => {
                running.open = running.open.saturating_add(extra);
                *ticket = larger;
                Ok(Extend::Granted)
            }
            _ => Ok(Extend::Full),
        }
    }

    /// Ends a handle and files what it did, in this order; what it did not use goes back.
    ///
    /// # Source
    /// Kernel `jbd2_journal_stop`.
    pub fn stop(
        &mut self,
        ticket: Ticket,
        changes: impl IntoIterator<Item = (PhysicalBlock, BlockChange)>,
    ) -> Stopped {
        let running = self.running.as_mut().filter(|running| running.tid == ticket.tid);
        let running = running.expect("a transaction outlives its handles");
        let before = running.filed(&self.parameters);
        for (block, change) in changes {
            let was_logged = self.checkpoint.contains(block)
                || self
                    .committing
                    .as_ref()
                    .is_some_and(|committing| committing.dirty.contains(&block));
            running.file(block, change, was_logged);
        }
        let cost = ticket.cost(&self.parameters);
        running.open = running.open.saturating_sub(cost);
        running.updates = running.updates.saturating_sub(1);
        let used = running.filed(&self.parameters).saturating_sub(before);
        let is_awaited = running.updates == 0 && (running.locked || self.barrier > 0);
        Stopped { overrun: used.saturating_sub(cost), is_awaited }
    }

    /// J3.2.
    fn check_size(&self, request: HandleRequest) -> Result<(), JournalError> {
        let cost = self.parameters.handle_cost(request.blocks, request.revokes);
        let (wanted, limit) =
            (cost.saturating_add(request.reserved), self.parameters.user_maximum());
        if wanted > limit || request.reserved > self.parameters.reserved_maximum() {
            return Err(JournalError::TooManyCredits { wanted, limit });
        }
        Ok(())
    }

    /// Blocks that the running transaction may write in the worst case, reservations included.
    fn outstanding(&self) -> u32 {
        let filed = self
            .running
            .as_ref()
            .map_or(0, |running| running.filed(&self.parameters).saturating_add(running.open));
        self.parameters.max_overhead().saturating_add(self.reserved).saturating_add(filed)
    }

    fn join(&mut self, blocks: u32, revokes: u32, now: Duration) -> Ticket {
        let running = self.running.get_or_insert_with(|| {
            let tid = self.next_tid;
            self.next_tid = tid.next();
            Running::new(tid, now)
        });
        let ticket = Ticket { tid: running.tid, blocks, revokes };
        running.updates = running.updates.saturating_add(1);
        running.open = running.open.saturating_add(ticket.cost(&self.parameters));
        ticket
    }
}
