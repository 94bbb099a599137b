//! What is known of each block of a file, in memory: runs of [`BlockState`] by file block.
//!
//! For blocks on disk and for holes the tree is a cache: they may be forgotten and asked for again. For delayed blocks it is
//! the only record: they are never forgotten. "Not known" is an answer of its own, a miss.
//!
//! # Invariants
//! Runs do not overlap. Neighbours that could be one run are one: same kind, and places that follow each other (D11.3).
//! A block with a place is never `Delayed`. The counters of [`StatusAccount`] equal what its trees hold.
//! # Locking
//! A tree is plain data inside `Inode::status`, a leaf. It changes together with the map on disk, under `Inode::map` held for
//! writing; a lookup needs only the leaf. Hence nothing can change between [`ExtentStatusTree::set`] and what its caller then
//! does to the reservations under their own leaf. [`StatusAccount`] is a few independent atomics.
//! # Not here
//! Promises of space and shared clusters (`delayed`; a [`Change`] says what it has to count); asking the disk (`mapping`);
//! which inodes to shrink (their table).
//! # Source
//! Kernel `fs/ext4/extents_status.c`. Differs: a full tree cannot fail, so the retries with guaranteed memory are gone; the
//! filler that a three-way split leaves as place of a delayed run (D11.2) is not reproduced.

mod account;
mod change;
mod shrink;
mod state;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use account::{StatusAccount, StatusCounts};
pub(crate) use state::BlockState;
pub(crate) use tree::ExtentStatusTree;
