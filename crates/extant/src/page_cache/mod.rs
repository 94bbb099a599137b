//! The page cache: files' bytes in memory, in folios, with the state of each block.
//!
//! A [`PageCache`] has one file's [`Folio`]s by page; a [`LockedFolio`] is the right to change one; a [`WritebackGuard`] stands
//! for blocks whose bytes are on their way to the device; the [`CacheAccount`] counts and reclaims over the whole volume.
//!
//! # Responsibility boundary
//! The cache owns bytes and their state: valid, dirty, being written, with a place or a promise. It knows no size, no disk and no
//! place: `file` knows where a file ends and zeroes behind it, `mapping` knows where blocks are, `writeback` decides what goes
//! out. It reports no promised space: what is dropped here is released from the status tree.
//!
//! # Invariants
//! Folios are aligned, do not overlap, and have at least one block and at most 2,048. A dirty block is up to date. A block under
//! writeback stays in its file, and has one guard; if it is dirty as well, it changed since. While a folio is unlocked, it is
//! in the dirty index exactly if it has dirty blocks. Bytes of blocks that are not up to date mean nothing: frames come from a pool
//! with what an earlier file left there. Bytes are counted while their folio lives, dirty ones while they are dirty.
//! # Locking
//! The folio's lock (rank 60) is a flag, so that its guard borrows nothing; several only by rising index. Leaves, never two at
//! once: a folio's bytes and bits, a cache's index, its errors, the account's clock. Under a folio's leaf bytes are copied, at
//! most a frame at a time. Who keeps whom out:
//!
//! |            | read                  | write        | fill         | writeback    | completion  | truncate     | reclaim |
//! |------------|-----------------------|--------------|--------------|--------------|-------------|--------------|---------|
//! | read       | shares frames         |              |              |              |             |              |         |
//! | write      | leaf, shared frames   | folio lock   |              |              |             |              |         |
//! | fill       | up to date comes last | folio lock   | folio lock   |              |             |              |         |
//! | writeback  | shares frames         | folio lock   | folio lock   | folio lock   |             |              |         |
//! | completion | touch other bits      | leaf         | leaf         | leaf; waits  | own blocks  |              |         |
//! | truncate   | leaf; sees either     | folio lock   | `invalidate` | lock, waits  | waits       | `invalidate` |         |
//! | reclaim    | shared frames live on | tries lock   | tries lock   | spares dirty | spares them | tries lock   | tries   |
//!
//! "Waits": unlocks, waits for the writeback, locks and looks again. A writer never waits for writeback: it changes a copy.
//! # Not here
//! Device requests and what they fill (`file`, `writeback`); how much may be dirty (`filesystem`).
//! # Source
//! Kernel `mm/filemap.c`, `mm/truncate.c`, `fs/buffer.c`; states as `enum bh_state_bits` and the folio flags. Differs: frames are
//! shared and copied on change, so no device needs stable pages; readers copy without the folio's lock.

mod account;
mod bits;
mod cache;
mod errors;
mod folio;
mod folios;
mod history;
mod locked;
#[cfg(test)]
mod model_tests;
mod prepare;
mod readahead;
mod shape;
mod states;
#[cfg(test)]
mod tests;
mod truncate;
mod writeback;

pub(crate) use account::CacheAccount;
pub(crate) use cache::{FolioSizes, PageCache, Tag};
pub(crate) use errors::ErrorPosition;
pub(crate) use folio::Folio;
pub(crate) use locked::{Fetched, LockedFolio, Placement};
pub(crate) use prepare::PrepareStep;
pub(crate) use readahead::{READ_AHEAD_BYTES, Readahead, Window};
pub(crate) use shape::{BlockSize, MAX_ORDER, PAGE_BYTES, PageIndex};
pub(crate) use states::BlockFlags;
pub(crate) use writeback::{DirtyKind, WritebackGuard};
