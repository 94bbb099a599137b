//! jbd2, the journal of ext4, as a state machine: transactions, commit, checkpoint, recovery.
//!
//! Nothing here locks, waits, reads a clock or does I/O. `&mut self` methods decide and hand out plans; whoever
//! calls (the engine's `transaction` layer, a test) does what a plan says and reports back:
//!
//! ```text
//! Recovery: step -> Read | Write | Done                       at mount; RecoveryMap if nothing may be written
//! Journal:  begin -> Ticket -> stop                           one handle
//!           lock -> ready_to_switch -> switch -> CommitPlan   seals and shares the payloads; the next transaction may run
//!           CommitPlan: superblock?, log writes, [flush] commit block [FUA], tail update? -> committed
//!           plan_checkpoint -> CheckpointPlan -> checkpointed -> plan_tail_update -> [flush] [FUA] -> tail_updated
//!           begin_fast_commit -> end_fast_commit              records of the running transaction, in an area of their own
//!           plan_clean -> cleaned                             unmount, freeze
//! ```
//!
//! The payload `B` is the caller's shared handle of a block's bytes; clones are the same bytes and never change.
//!
//! | module | what |
//! | --- | --- |
//! | `log` | block numbers in the log, the ring and its free space |
//! | `parameters` | what a checked journal superblock says, and the limits that follow |
//! | `superblock` | images of the superblock to write |
//! | `journal` | handles and credits, and the states of the running transaction |
//! | `commit` | the blocks of one transaction, encoded |
//! | `checkpoint` | committed blocks that are not home yet, and the tail |
//! | `recovery` | scan, revoke, replay or map; where fast commits count |
//!
//! # Invariants
//! At most one transaction runs and one commits. A handle is granted only if its transaction fits into the log.
//! Log blocks are reused only after `tail_updated`. A block has one pending home write: its newest committed version.
//! # Locking
//! None. The engine keeps a [`Journal`] under the lock of rank 90 and does I/O without it.
//! # Not here
//! Ordered data, waiting, timers, the device; what a metadata block contains.
//! # Source
//! Kernel `fs/jbd2`. Differs: no frozen copies (payloads are shared by reference), and checkpoint writes the newest
//! committed version of a block instead of waiting until no transaction holds it.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

extern crate alloc;

mod checkpoint;
mod commit;
mod error;
mod journal;
mod log;
mod parameters;
mod recovery;
mod superblock;
#[cfg(test)]
mod testing;

pub use checkpoint::{CheckpointPlan, CheckpointStep, TailUpdate};
pub use commit::{CommitPlan, CommitTime, LogData, LogWrite};
pub use error::JournalError;
pub use journal::{
    Begin, BlockChange, Committed, Extend, FastCommitBegin, FastCommitTicket, HandleRequest,
    Journal, Lock, Progress, Reservation, Stopped, Ticket,
};
pub use log::{LogArea, LogBlock, LogRange};
pub use parameters::{JournalParameters, LogState};
pub use recovery::{
    FastCommits, Recovered, Recovery, RecoveryMap, RecoveryMode, RecoveryStep, Replacement,
};
pub use superblock::SuperblockWrite;
