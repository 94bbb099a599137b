//! [`PendingClusters`]: under `bigalloc`, clusters that have a place and delayed blocks at once.

use alloc::collections::BTreeSet;
use core::ops::RangeInclusive;

use extant_format::{ClusterCount, ClusterRatio, LogicalBlock, LogicalCluster, LogicalRange};

/// Clusters of one file that are allocated and still contain delayed blocks (D12.3).
///
/// They cost no promise. If their allocated blocks are freed first, the space has to become a promise instead of free space.
///
/// Source: kernel `fs/ext4/extents_status.h`, `struct ext4_pending_tree`.
#[derive(Debug, Default)]
pub(crate) struct PendingClusters(BTreeSet<LogicalCluster>);

/// What a cluster holds, before a delayed block comes into it. A delayed block counts before an allocated one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClusterContent {
    /// Neither.
    Empty,
    /// A delayed block, so its space is promised or pending already.
    Delayed,
    /// An allocated block and no delayed one.
    Allocated,
}

/// What it takes to delay a range.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct DelayedInsert {
    /// Clusters to reserve.
    pub(crate) clusters: ClusterCount,
    /// The range's first cluster is allocated: it becomes pending.
    pub(crate) first_allocated: bool,
    /// So is its last, which is another.
    pub(crate) last_allocated: bool,
}

impl DelayedInsert {
    /// Plans the delaying of `blocks`, none of which is delayed or allocated; asks for the content of the clusters that `blocks`
    /// may share with others (D12.1).
    ///
    /// # Errors
    /// Those of `content`.
    /// # Source
    /// Kernel `ext4_insert_delayed_blocks`, `ext4_clu_alloc_state`.
    pub(crate) fn plan<E>(
        blocks: LogicalRange,
        ratio: ClusterRatio,
        mut content: impl FnMut(LogicalBlock) -> Result<ClusterContent, E>,
    ) -> Result<Self, E> {
        let (first, last) = (ratio.cluster_of(blocks.start()), ratio.cluster_of(blocks.last()));
        let mut needed = u64::from(last.0 - first.0) + 1;
        let mut plan = Self::default();
        if ratio.blocks() > 1 {
            let mut edge = |block| {
                let content = content(block)?;
                needed -= u64::from(content != ClusterContent::Empty);
                Ok(content == ClusterContent::Allocated)
            };
            plan.first_allocated = edge(blocks.start())?;
            plan.last_allocated = first != last && edge(blocks.last())?;
        }
        plan.clusters = ClusterCount(needed);
        Ok(plan)
    }
}

impl PendingClusters {
    /// Notes what [`DelayedInsert::plan`] found, once `blocks` are delayed (D12.2).
    pub(crate) fn note(&mut self, blocks: LogicalRange, plan: DelayedInsert, ratio: ClusterRatio) {
        if plan.first_allocated {
            self.0.insert(ratio.cluster_of(blocks.start()));
        }
        if plan.last_allocated {
            self.0.insert(ratio.cluster_of(blocks.last()));
        }
    }

    /// Whether `cluster` has a place and delayed blocks: freeing it turns into a promise (D12.7).
    pub(crate) fn contains(&self, cluster: LogicalCluster) -> bool {
        self.0.contains(&cluster)
    }

    /// Removes `cluster`, whose place is being freed.
    pub(crate) fn remove(&mut self, cluster: LogicalCluster) -> bool {
        self.0.remove(&cluster)
    }

    /// Removes every entry in `span`, where no cluster has delayed blocks any more, and counts them (D12.4).
    pub(crate) fn forget(&mut self, span: RangeInclusive<LogicalCluster>) -> ClusterCount {
        let before = self.0.len();
        self.0.extract_if(span, |_| true).for_each(drop);
        ClusterCount(extant_format::cast::u64_from(before - self.0.len()))
    }

    /// After blocks got their place: each edge cluster of the range is pending exactly if it still has delayed blocks, as
    /// `edges` says. Counts those that were not before; a promise of theirs is covered by the place now (D12.6).
    ///
    /// Source: kernel `__revise_pending`.
    pub(crate) fn revise(&mut self, edges: &[Option<(LogicalCluster, bool)>]) -> ClusterCount {
        let mut fresh = 0;
        for &(cluster, has_delayed) in edges.iter().flatten() {
            if has_delayed {
                fresh += u64::from(self.0.insert(cluster));
            } else {
                self.0.remove(&cluster);
            }
        }
        ClusterCount(fresh)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = LogicalCluster> + '_ {
        self.0.iter().copied()
    }
}
