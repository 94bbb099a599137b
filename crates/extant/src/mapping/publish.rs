//! What a change of state means for promises of space.

use core::sync::atomic::Ordering;

use extant_format::extent::{NodeView, ROOT_CAPACITY};
use extant_format::inode::InodeFlags;
use extant_format::{ClusterCount, LogicalRange};

use super::Mapper;
use crate::delayed::{Promise, Reservation, TreeShape, metadata_bound};
use crate::extent_status::BlockState;
use crate::inode::Inode;

impl Mapper {
    /// Makes `range` known as `state`, which is no delayed one; what its delayed blocks were promised is spent or given back.
    ///
    /// Whether the promise paid or another did makes no difference to the ledger: the allocator has counted the clusters as
    /// taken, and a claim of its own has gone back.
    ///
    /// # Source
    /// Kernel `ext4_es_insert_extent`, `ext4_da_update_reserve_space` (D11.7, D10.8).
    pub(super) fn publish(&self, inode: &Inode, range: LogicalRange, state: BlockState) {
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
        let change = inode.status.lock().remove(range, self.ratio());
        let released = inode.reservations.lock().release(change.clusters, change.span);
        if let Some(reservation) = released {
            drop(reservation);
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

    /// How much metadata the inode's map could need for `clusters` delayed clusters.
    pub(super) fn metadata_for(&self, inode: &Inode, clusters: ClusterCount) -> ClusterCount {
        let core = inode.core.lock();
        let per_block = if core.flags.contains(InodeFlags::EXTENTS) {
            (self.geometry().block_size - 12) / 12
        } else {
            // A pointer for each block, and every pointer block on the way may be missing.
            self.geometry().block_size / 4
        };
        let root =
            NodeView::trusted(&core.block).filter(|_| core.flags.contains(InodeFlags::EXTENTS));
        let (depth, used) = root.map_or((0, 0), |root| (u32::from(root.depth()), root.len()));
        let root_free = u32::try_from(ROOT_CAPACITY.saturating_sub(used)).unwrap_or(0);
        metadata_bound(clusters.get(), TreeShape { depth, root_free, per_block })
    }

    /// Gives back what is promised for metadata beyond what the delayed clusters that are left could need.
    pub(super) fn lower_metadata(&self, inode: &Inode) {
        let promise = inode.reservations.lock().promise();
        if promise.metadata > ClusterCount::ZERO {
            let bound = self.metadata_for(inode, promise.clusters);
            let surplus = inode.reservations.lock().lower_metadata(bound);
            drop(surplus);
        }
    }

    /// What the promise for `clusters` more delayed clusters is.
    pub(super) fn promise_for(&self, inode: &Inode, clusters: ClusterCount) -> Promise {
        let held = inode.reservations.lock().promise();
        let all = held.clusters.checked_add(clusters).expect("clusters of one file");
        let metadata = self.metadata_for(inode, all).checked_sub(held.metadata).unwrap_or_default();
        Promise { clusters, metadata }
    }
}
