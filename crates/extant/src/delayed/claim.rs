//! [`Claim`]: space held by an allocation in progress.

use alloc::sync::Arc;

use extant_format::ClusterCount;

use super::ledger::SpaceLedger;
use super::reservation::Promise;

/// Clusters held for an allocation that was not promised before; what is not allocated goes back on drop.
///
/// Source: kernel `ext4_mb_new_blocks`, its use of `ext4_claim_free_clusters`.
#[derive(Debug)]
#[must_use = "a claim that is dropped holds nothing"]
pub(crate) struct Claim {
    ledger: Arc<SpaceLedger>,
    clusters: ClusterCount,
}

impl Claim {
    pub(super) fn new(ledger: Arc<SpaceLedger>, clusters: ClusterCount) -> Self {
        Self { ledger, clusters }
    }

    /// How many clusters it holds.
    pub(crate) fn clusters(&self) -> ClusterCount {
        self.clusters
    }

    /// Notes that `clusters`, at most those held, were taken in the bitmaps. The rest goes back.
    pub(crate) fn allocated(mut self, clusters: ClusterCount) {
        assert!(clusters <= self.clusters, "{clusters} allocated, {} claimed", self.clusters);
        let all = core::mem::take(&mut self.clusters);
        self.ledger.settle(Promise { clusters: all, ..Promise::default() }, clusters);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.clusters > ClusterCount::ZERO {
            self.ledger.settle(
                Promise { clusters: self.clusters, ..Promise::default() },
                ClusterCount::ZERO,
            );
        }
    }
}
