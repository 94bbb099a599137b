//! [`InodeReservations`]: one file's promise and its pending clusters.

use core::ops::RangeInclusive;

use extant_format::{ClusterCount, LogicalCluster};

use super::pending::PendingClusters;
use super::reservation::{Promise, Reservation};

/// What one file was promised, and which of its clusters need no promise.
///
/// Lives under a leaf lock. What its methods return is spent or dropped after that lock was let go.
///
/// Source: kernel `struct ext4_inode_info`: `i_reserved_data_blocks`, `i_pending_tree`.
#[derive(Debug, Default)]
pub(crate) struct InodeReservations {
    held: Option<Reservation>,
    /// Allocated clusters with delayed blocks.
    pub(crate) pending: PendingClusters,
}

impl InodeReservations {
    /// How much the file is promised (`i_reserved_data_blocks`).
    pub(crate) fn promise(&self) -> Promise {
        self.held.as_ref().map_or(Promise::default(), Reservation::promise)
    }

    /// Adds a promise.
    pub(crate) fn add(&mut self, reservation: Reservation) {
        match &mut self.held {
            Some(held) => held.merge(reservation),
            None => self.held = Some(reservation),
        }
    }

    /// Takes out the promise for delayed blocks that went away without a place; drop it to give it back.
    /// `clusters` and `span` come from the status tree's change.
    ///
    /// Source: kernel `ext4_da_release_space`.
    pub(crate) fn release(
        &mut self,
        clusters: ClusterCount,
        span: Option<RangeInclusive<LogicalCluster>>,
    ) -> Option<Reservation> {
        let covered = span.map_or(ClusterCount::ZERO, |span| self.pending.forget(span));
        let promised = clusters.checked_sub(covered).unwrap_or_default();
        self.take(Promise::data(promised))
    }

    /// Takes out the promise for delayed blocks that got a place; spend it, or drop it if the space came from elsewhere.
    /// `clusters`, `span` and `edges` come from the status tree's change.
    ///
    /// Source: kernel `ext4_es_insert_extent`, `ext4_da_update_reserve_space`.
    pub(crate) fn placed(
        &mut self,
        clusters: ClusterCount,
        span: Option<RangeInclusive<LogicalCluster>>,
        edges: &[Option<(LogicalCluster, bool)>],
    ) -> Option<Reservation> {
        let covered = span.map_or(ClusterCount::ZERO, |span| self.pending.forget(span));
        let promised = clusters.checked_sub(covered).unwrap_or_default();
        let fresh = self.pending.revise(edges);
        self.take(Promise::data(promised.checked_add(fresh).expect("clusters of one file")))
    }

    /// Takes out up to `part`, or nothing if there is none of it.
    pub(crate) fn take(&mut self, part: Promise) -> Option<Reservation> {
        let taken = self.held.as_mut()?.split(part);
        (taken.promise() != Promise::default()).then_some(taken)
    }

    /// Takes out what metadata is promised beyond `bound`; drop it to give it back.
    pub(crate) fn lower_metadata(&mut self, bound: ClusterCount) -> Option<Reservation> {
        let metadata = self.promise().metadata.checked_sub(bound)?;
        self.take(Promise { clusters: ClusterCount::ZERO, metadata })
    }
}
