//! [`Reservation`]: a promise of space that delayed data holds.

use alloc::sync::Arc;

use extant_format::ClusterCount;

use super::ledger::{Privilege, SpaceLedger, signed};
use crate::Error;

/// How much space is promised.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Promise {
    /// Clusters of data.
    pub(crate) clusters: ClusterCount,
    /// At most this much metadata to find them again.
    pub(crate) metadata: ClusterCount,
}

impl Promise {
    /// Clusters of data that need no new metadata, whatever happens.
    pub(crate) const fn data(clusters: ClusterCount) -> Self {
        Self { clusters, metadata: ClusterCount::ZERO }
    }
}

/// A promise of space: spent when the data gets its place, given back on drop.
///
/// # Locks
/// Spending and dropping take the ledger's leaf lock; splitting and merging take none.
#[derive(Debug)]
#[must_use = "a reservation that is dropped promises nothing"]
pub(crate) struct Reservation {
    ledger: Arc<SpaceLedger>,
    promise: Promise,
}

impl SpaceLedger {
    /// Promises space to delayed data, for as long as the [`Reservation`] lives.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; nothing is promised then.
    /// # Source
    /// Kernel `ext4_da_reserve_space`, `ext4_claim_free_clusters`.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        wanted: Promise,
        privilege: Privilege,
    ) -> Result<Reservation, Error> {
        let mut accounts = self.change();
        accounts.admit(signed(wanted.clusters), signed(wanted.metadata), privilege)?;
        accounts.promise(signed(wanted.clusters), signed(wanted.metadata));
        drop(accounts);
        Ok(Reservation::new(Arc::clone(self), wanted))
    }
}

impl Reservation {
    pub(super) fn new(ledger: Arc<SpaceLedger>, promise: Promise) -> Self {
        Self { ledger, promise }
    }

    /// How much it promises.
    pub(crate) fn promise(&self) -> Promise {
        self.promise
    }

    /// Takes `part` out, at most what is there (the kernel warns of more, and clamps).
    pub(crate) fn split(&mut self, part: Promise) -> Self {
        let taken = Promise {
            clusters: part.clusters.min(self.promise.clusters),
            metadata: part.metadata.min(self.promise.metadata),
        };
        self.promise = minus(self.promise, taken);
        Self { ledger: Arc::clone(&self.ledger), promise: taken }
    }

    /// Takes in `other`, which comes from the same ledger.
    pub(crate) fn merge(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.ledger, &other.ledger), "reservations of two volumes");
        let taken = core::mem::take(&mut other.promise);
        let sum = |a: ClusterCount, b| a.checked_add(b).expect("promises fit the device");
        self.promise.clusters = sum(self.promise.clusters, taken.clusters);
        self.promise.metadata = sum(self.promise.metadata, taken.metadata);
    }

    /// Notes that `clusters` of the data have their place, which [`SpaceLedger::allocated`] counted already.
    ///
    /// Source: kernel `ext4_da_update_reserve_space`.
    pub(crate) fn spend(&mut self, clusters: ClusterCount) {
        self.lower(clusters);
        self.ledger.spend(clusters);
    }

    /// Notes that `clusters` of the data were taken in the bitmaps and have their place: free and promised fall together.
    pub(crate) fn allocated(&mut self, clusters: ClusterCount) {
        self.lower(clusters);
        self.ledger.settle(Promise::data(clusters), clusters);
    }

    fn lower(&mut self, clusters: ClusterCount) {
        assert!(
            clusters <= self.promise.clusters,
            "{clusters} spent, {} promised",
            self.promise.clusters
        );
        self.promise = minus(self.promise, Promise::data(clusters));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.promise != Promise::default() {
            self.ledger.settle(self.promise, ClusterCount::ZERO);
        }
    }
}

fn minus(from: Promise, part: Promise) -> Promise {
    let less = |a: ClusterCount, b| a.checked_sub(b).expect("a part is no more than the whole");
    Promise {
        clusters: less(from.clusters, part.clusters),
        metadata: less(from.metadata, part.metadata),
    }
}
