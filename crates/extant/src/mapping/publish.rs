//! What a change of state means for promises of space.

use core::sync::atomic::Ordering;

use extant_format::{ClusterCount, LogicalRange};

use super::Mapper;
use crate::delayed::Reservation;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::sync::{Rank, assert_held, assert_held_shared};
use crate::trace::Event;

/// What pays for the place of blocks that were delayed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Payment {
    /// Their promise; the place is charged to the inode only now.
    Promise,
    /// A claim of its own, charged already; the promise goes back.
    Own,
}

impl Mapper {
    /// Makes `range` known as `state`, which is no delayed one; what its delayed blocks were promised is spent or given back.
    ///
    /// Whether the promise paid or another did makes no difference to the ledger: the allocator has counted the clusters as
    /// taken, and a claim of its own has gone back.
    ///
    /// # Source
    /// Kernel `ext4_es_insert_extent`, `ext4_da_update_reserve_space` (D11.7, D10.8).
    pub(super) fn publish(
        &self,
        inode: &Inode,
        range: LogicalRange,
        state: BlockState,
        payment: Payment,
    ) {
        assert_held_shared(Rank::Map);
        let change = inode.status.lock().set(range, state, self.ratio());
        let (spent, held) = {
            let mut reservations = inode.reservations.lock();
            let held = reservations.promise().clusters;
            // What a hole leaves of a cluster beside it is as pending as it was.
            let edges = if state == BlockState::Hole { &[] } else { &change.edges[..] };
            (reservations.placed(change.clusters, change.span, edges), held)
        };
        if let Some(reservation) = spent {
            let used = reservation.promise().clusters;
            self.transactions.tracer().emit(|| {
                let (mode, i_blocks) = mode_and_blocks(inode);
                Event::DaUpdateReserveSpace {
                    ino: inode.number(),
                    mode,
                    i_blocks,
                    used_blocks: counted(used),
                    reserved_data_blocks: counted(held),
                    quota_claim: payment == Payment::Promise,
                }
            });
            self.settle(inode, reservation);
        } else if change.clusters > ClusterCount::ZERO {
            self.lower_metadata(inode);
        }
    }

    /// Forgets `range`, since delayed data in it is given up; its promise is given back (D15.13).
    ///
    /// # Locks
    /// Takes `Inode::map` for writing.
    pub(crate) fn forget_delayed(&self, inode: &Inode, range: LogicalRange) {
        let _map = inode.map.write();
        self.forget(inode, range);
    }

    /// Forgets `range`; delayed blocks in it are gone, and their promise is given back.
    ///
    /// # Source
    /// Kernel `ext4_es_remove_extent`, `ext4_da_release_space` (D10.7, D11.9).
    pub(super) fn forget(&self, inode: &Inode, range: LogicalRange) {
        assert_held(Rank::Map);
        let change = inode.status.lock().remove(range, self.ratio());
        let (released, held) = {
            let mut reservations = inode.reservations.lock();
            let held = reservations.promise().clusters;
            (reservations.release(change.clusters, change.span), held)
        };
        if let Some(reservation) = released {
            let freed = reservation.promise().clusters;
            self.transactions.tracer().emit(|| {
                let (mode, i_blocks) = mode_and_blocks(inode);
                let (freed_blocks, reserved_data_blocks) = (counted(freed), counted(held));
                let ino = inode.number();
                Event::DaReleaseSpace { ino, mode, i_blocks, freed_blocks, reserved_data_blocks }
            });
            drop(reservation);
        }
        // In a cluster that has its place nothing was promised for the data, but something for the map.
        if change.clusters > ClusterCount::ZERO {
            self.lower_metadata(inode);
        }
    }

    /// Takes back what a promise held for data that has its place now.
    fn settle(&self, inode: &Inode, mut reservation: Reservation) {
        reservation.spend(reservation.promise().clusters);
        drop(reservation);
        self.lower_metadata(inode);
        let promised = inode.reservations.lock().promise().clusters;
        if promised == ClusterCount::ZERO && inode.writers.load(Ordering::Acquire) == 0 {
            self.allocator.discard_preallocations(inode.number());
        }
    }
}

/// For events: the inode's mode and its blocks in units of 512 bytes.
pub(super) fn mode_and_blocks(inode: &Inode) -> (u16, u64) {
    let core = inode.core.lock();
    (core.mode, core.blocks)
}

/// For events: a number of clusters.
pub(super) fn counted(clusters: ClusterCount) -> u32 {
    u32::try_from(clusters.get()).unwrap_or(u32::MAX)
}
