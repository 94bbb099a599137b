//! What can go wrong with a journal.

use extant_format::corruption::Unsupported;
use extant_format::{PhysicalBlock, TransactionId};

use crate::LogBlock;

/// Why the journal cannot do what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JournalError {
    /// The journal was aborted; nothing may be changed any more.
    #[error("journal aborted (error {errno})")]
    Aborted {
        /// The Linux error number of the first abort.
        errno: u16,
    },
    /// A handle asks for more than any transaction can give (J3.2).
    #[error("handle wants {wanted} credits, transactions have at most {limit}")]
    TooManyCredits {
        /// Blocks wanted, revoke blocks and reservation included.
        wanted: u32,
        /// What a handle may ask for.
        limit: u32,
    },
    /// The transaction needs more log than is free: checkpoint, then switch again.
    #[error("transaction needs {needed} log blocks, {free} are free")]
    LogFull {
        /// Blocks that the commit writes.
        needed: u32,
        /// Blocks that are free.
        free: u32,
    },
    /// A block filed in the transaction could not be sealed.
    #[error("block {0} of the transaction has no contents")]
    MissingBlock(PhysicalBlock),
    /// A step was asked for that the state does not allow: a bug of the caller.
    #[error("journal step out of order: {0}")]
    OutOfOrder(&'static str),
    /// The journal is smaller than jbd2 allows, or its parts do not fit.
    #[error("journal of {maxlen} blocks has no room for a log")]
    TooSmall {
        /// Its length in blocks.
        maxlen: u32,
    },
    /// The superblock's start is outside the log.
    #[error("journal starts at {0}, outside its log")]
    BadStart(LogBlock),
    /// A part of a transaction that is surely of this journal's life has a wrong checksum (J7.2).
    #[error("journal transaction {0} has a wrong checksum")]
    BadChecksum(TransactionId),
    /// A commit block is damaged and the journal was not written with async_commit (J7.3).
    #[error("journal transaction {0} has a damaged commit block")]
    FailedCommit(TransactionId),
    /// A later pass read other log contents than the first (J7.5).
    #[error("journal changed while it was recovered: ended at {found}, expected {expected}")]
    Unstable {
        /// Where the scan ended.
        expected: TransactionId,
        /// Where the later pass ended.
        found: TransactionId,
    },
    /// A block to replay lies outside the file system, or a revoke record is cut off.
    #[error("journal transaction {tid} is corrupt at {at}")]
    Corrupt {
        /// The transaction.
        tid: TransactionId,
        /// The log block that says so.
        at: LogBlock,
    },
    /// What is in the journal uses features that are not known here.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// A log block cannot be read.
    #[error("journal block {0} cannot be read")]
    Unreadable(LogBlock),
}
