//! A modelled hard disk: platters, an arm, a cache, and the queue in front of it, in virtual time.
//!
//! | file | what |
//! | --- | --- |
//! | `model.rs` | the figures, and where they come from |
//! | `platters.rs` | tracks, zones, rotation, seeks |
//! | `cache.rs` | writes that are acknowledged and not written yet |
//! | `drive.rs` | commands, reordering (NCQ), reading ahead, destaging, flushes |
//! | `queue.rs` | the kernel's part: cutting, merging, ordering |
//!
//! # Invariants
//! Time is a count of nanoseconds, and all arithmetic is of integers: the same requests give the same times everywhere.
//! A read or a write without cache is done when its last byte has passed below the head; a cached write when the link has
//! carried it; a flush when all that the cache held at its arrival is on the platters.
//! # Locking
//! None: [`Simulation`] is a value that [`World`](crate::World) owns.
//! # Not here
//! Who waits for the disk (`world.rs`); bad sectors, the heads' own recalibration, shingled tracks, more than one lookahead
//! segment.
//! # Source
//! C. Ruemmler, J. Wilkes, "An introduction to disk drive modeling" (IEEE Computer 27, 1994).

mod cache;
mod drive;
mod model;
mod platters;
mod queue;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use drive::{Drive, DriveEvent};
pub use model::{DiskModel, Elevator, Mechanics};
use platters::Nanos;
use queue::Queue;
pub(crate) use queue::{Part, Ticket};

/// What the disk was asked for and did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskCounts {
    /// Reads and writes that it was given, after merging.
    pub requests: u64,
    /// Times that the arm moved to another track.
    pub seeks: u64,
}

impl DiskCounts {
    /// What was added after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { requests: self.requests - earlier.requests, seeks: self.seeks - earlier.seeks }
    }
}

/// A disk with its queue, at a moment.
#[derive(Debug)]
pub(crate) struct Simulation {
    now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, DriveEvent)>>,
    /// Events of the same moment happen in the order in which they were asked for.
    next_event: u64,
    queue: Queue,
    drive: Drive,
}

impl Simulation {
    pub(crate) fn new(model: &DiskModel) -> Self {
        Self {
            now: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            queue: Queue::new(model),
            drive: Drive::new(model),
        }
    }

    /// Time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        DiskCounts { requests: self.queue.dispatched, seeks: self.drive.seeks }
    }

    /// Hands a batch over.
    pub(crate) fn submit(&mut self, parts: impl IntoIterator<Item = Part>) -> Ticket {
        let ticket = self.queue.submit(parts);
        self.settle();
        ticket
    }

    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.queue.is_done(ticket)
    }

    /// Goes on to the next thing that happens; `false` if nothing will.
    pub(crate) fn step(&mut self) -> bool {
        let Some(Reverse((at, _, event))) = self.events.pop() else { return false };
        self.now = at;
        self.drive.happen(at, event);
        self.settle();
        true
    }

    /// Lets time pass until `then`, with all that happens by then.
    pub(crate) fn pass_until(&mut self, then: Duration) {
        let then = platters::nanos(then);
        while self.events.peek().is_some_and(|Reverse((at, _, _))| *at <= then) {
            self.step();
        }
        self.now = self.now.max(then);
    }

    /// What has reached the platters since the last call.
    pub(crate) fn take_persisted(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.drive.persisted)
    }

    /// Passes on what was done, and asks for what comes next.
    fn settle(&mut self) {
        loop {
            for id in std::mem::take(&mut self.drive.done) {
                self.queue.done(self.now, id, &mut self.drive);
            }
            self.queue.push(self.now, &mut self.drive);
            if self.drive.done.is_empty() {
                break;
            }
        }
        for (at, event) in self.drive.events.drain(..) {
            self.events.push(Reverse((at, self.next_event, event)));
            self.next_event += 1;
        }
    }
}
