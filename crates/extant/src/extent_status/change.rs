//! [`Change`]: what a change of the tree means for promised space.

use core::ops::RangeInclusive;

use extant_format::{ClusterCount, ClusterRatio, LogicalBlock, LogicalCluster, LogicalRange};

use super::tree::ExtentStatusTree;

/// What [`ExtentStatusTree::set`] or [`ExtentStatusTree::remove`] did to delayed blocks.
///
/// The caller takes from `clusters` those between `span` that hold a pending entry, which go away (D12.4), and after a `set`
/// revises the pending entries of `edges` (D12.6): both are `PendingClusters`' business.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "delayed blocks hold promised space that has to be spent or given back"]
pub(crate) struct Change {
    /// Delayed blocks that were in the range.
    pub(crate) blocks: u32,
    /// Clusters that had delayed blocks in the range and have none left.
    pub(crate) clusters: ClusterCount,
    /// They all lie in here, and no cluster in here has delayed blocks any more.
    pub(crate) span: Option<RangeInclusive<LogicalCluster>>,
    /// The range's first and, if it is another, its last cluster, each with whether it has delayed blocks outside the range.
    /// Empty unless clusters are larger than blocks.
    pub(crate) edges: [Option<(LogicalCluster, bool)>; 2],
}

/// Counts delayed blocks and their clusters while they are taken out, in rising order.
#[derive(Debug, Default)]
pub(super) struct Tally {
    blocks: u32,
    clusters: u64,
    /// The first delayed block and the last.
    ends: Option<(LogicalBlock, LogicalBlock)>,
}

impl Tally {
    /// Counts a run of delayed blocks; a cluster that spans two runs counts once.
    pub(super) fn add(&mut self, run: LogicalRange, ratio: ClusterRatio) {
        let (first, last) = (ratio.cluster_of(run.start()), ratio.cluster_of(run.last()));
        let counted = self.ends.is_some_and(|(_, end)| ratio.cluster_of(end) == first);
        self.blocks += run.len();
        self.clusters += u64::from(last.0 - first.0) + u64::from(!counted);
        self.ends = Some((self.ends.map_or(run.start(), |(start, _)| start), run.last()));
    }

    /// What the change means, now that `range` has no delayed blocks any more (or holds other states).
    ///
    /// Source: kernel `fs/ext4/extents_status.c`, `get_rsvd`.
    pub(super) fn finish(
        self,
        tree: &ExtentStatusTree,
        range: LogicalRange,
        ratio: ClusterRatio,
    ) -> Change {
        let mut change = Change {
            blocks: self.blocks,
            clusters: ClusterCount(self.clusters),
            ..Change::default()
        };
        if ratio.blocks() > 1 {
            let (first, last) = (ratio.cluster_of(range.start()), ratio.cluster_of(range.last()));
            let first_has = delayed_beside(tree, range, range.start(), ratio);
            let last_has = delayed_beside(tree, range, range.last(), ratio);
            change.edges = [Some((first, first_has)), (last != first).then_some((last, last_has))];
        }
        let Some((start, end)) = self.ends else { return change };
        let (mut first, mut last) = (ratio.cluster_of(start).0, ratio.cluster_of(end).0);
        let still_delayed = |cluster| change.edges.contains(&Some((LogicalCluster(cluster), true)));
        if still_delayed(first) {
            self.discount(&mut change.clusters);
            first += 1;
        }
        if last >= first && still_delayed(last) {
            self.discount(&mut change.clusters);
            last -= 1; // the first cluster would have been moved past it, so it is not cluster 0
        }
        change.span = (first <= last).then_some(LogicalCluster(first)..=LogicalCluster(last));
        change
    }

    fn discount(&self, clusters: &mut ClusterCount) {
        *clusters = clusters.checked_sub(ClusterCount(1)).expect("each end was counted");
    }
}

/// Whether the cluster of `block`, one of the ends of `range`, has delayed blocks outside `range`.
fn delayed_beside(
    tree: &ExtentStatusTree,
    range: LogicalRange,
    block: LogicalBlock,
    ratio: ClusterRatio,
) -> bool {
    let cluster = ratio.around(block);
    let before = LogicalRange::between(cluster.start(), range.start().get());
    let after = LogicalBlock::new(range.end())
        .and_then(|start| LogicalRange::between(start, cluster.end()));
    [before, after].into_iter().flatten().any(|part| tree.has_delayed(part))
}
