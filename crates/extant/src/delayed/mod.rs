//! Delayed allocation: promises of space for data that has no place on disk yet.
//!
//! `file` reserves, `mapping` spends, truncate and punch give back. `write()` is refused when the [`SpaceLedger`] refuses; after
//! that nothing may fail for lack of space. See `docs/design.md`, "Why delay".
//!
//! # Invariants
//! I2: the ledger's promised clusters are the sum over all [`Reservation`]s and [`Claim`]s alive. I3: an inode's reservation has
//! one cluster for each cluster with a delayed block and no entry in [`PendingClusters`].
//! I5: `free >= promised + max(pool, metadata)` when a promise is made, where `metadata` bounds what delayed extents could need
//! in tree blocks. While that is at most the pool, every answer is the kernel's; beyond, the excess counts as promised too.
//! # Locking
//! The ledger holds its own leaf lock for a few lines, in [`Reservation`]'s and [`Claim`]'s drop as well: never drop one under
//! another leaf. Hence [`InodeReservations`], which lives under a leaf, hands out what is to be spent or given back; splitting
//! and merging take no lock. Callers hold `Inode::map` for writing from the change of the status tree to that of the promise.
//! # Not here
//! Where blocks go (`allocator`); which data goes first (`writeback`); which blocks are delayed (`extent_status`).
//! # Source
//! Kernel `fs/ext4/balloc.c`: `ext4_has_free_clusters`, `ext4_claim_free_clusters`; `inode.c`: `ext4_da_reserve_space`,
//! `ext4_da_release_space`, `ext4_da_update_reserve_space`, `ext4_nonda_switch`; `extents_status.c`: pending reservations.
//! Differs: counters are exact, and their slop is a parameter ([`LedgerParameters`]). Data that is in the bitmaps while its
//! promise still stands counts twice (D10.9) against all but metadata: else a long run could keep its own tree blocks from the
//! space that was promised to them.

mod claim;
mod inode;
#[cfg(test)]
mod joint_tests;
mod ledger;
mod metadata;
mod pending;
mod reservation;
#[cfg(test)]
mod tests;

pub(crate) use claim::Claim;
pub(crate) use inode::InodeReservations;
pub(crate) use ledger::{AfterNoSpace, LedgerParameters, Privilege, SpaceLedger, WriteMode};
pub(crate) use metadata::{TreeShape, metadata_bound};
pub(crate) use pending::{ClusterContent, DelayedInsert};
pub(crate) use reservation::{Promise, Reservation};
