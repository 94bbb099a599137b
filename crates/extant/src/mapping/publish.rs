//! What a change of state means for promises of space.

use core::sync::atomic::Ordering;

use extant_format::{ClusterCount, LogicalRange};

use super::Mapper;
use crate::delayed::Reservation;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::sync::{Rank, assert_held, assert_held_shared};

impl Mapper {
    /// Makes `range` known as `state`, which is no delayed one; what its delayed blocks were promised is spent or given back.
    ///
    /// Whether the promise paid or another did makes no difference to the ledger: the allocator has counted the clusters as
    /// taken, and a claim of its own has gone back.
    ///
    /// # Source
    /// Kernel `ext4_es_insert_extent`, `ext4_da_update_reserve_space` (D11.7, D10.8).
    pub(super) fn publish(&self, inode: &Inode, range: LogicalRange, state: BlockState) {
        assert_held_shared(Rank::Map);
        let change = inode.status.lock().set(range, state, self.ratio());
        let spent = inode.reservations.lock().placed(change.clusters, change.span, &change.edges);
        if let Some(reservation) = spent {
            self.settle(inode, reservation);
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
        let released = inode.reservations.lock().release(change.clusters, change.span);
        drop(released);
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
