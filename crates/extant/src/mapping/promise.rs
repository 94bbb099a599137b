//! How much space delayed data is promised: its own, and what its map could need.

use extant_format::cast::u64_from;
use extant_format::extent::{NodeView, ROOT_CAPACITY};
use extant_format::indirect::{DIRECT, IndirectPath};
use extant_format::inode::InodeFlags;
use extant_format::{ClusterCount, LogicalBlock, LogicalRange};

use super::Mapper;
use crate::delayed::{Promise, TreeShape, metadata_bound};
use crate::extent_status::BlockState;
use crate::inode::Inode;

impl Mapper {
    /// What has to be promised so that `blocks`, in `clusters` more clusters, may become delayed.
    pub(super) fn promise_for(
        &self,
        inode: &Inode,
        blocks: LogicalRange,
        clusters: ClusterCount,
    ) -> Promise {
        if !self.has_extents(inode) {
            return Promise { clusters, metadata: self.new_arrays(inode, blocks) };
        }
        let held = inode.reservations.lock().promise();
        let all = held.clusters.checked_add(clusters).expect("clusters of one file");
        let metadata = self.tree_nodes(inode, all).checked_sub(held.metadata).unwrap_or_default();
        Promise { clusters, metadata }
    }

    /// Gives back what is promised for metadata beyond what the delayed clusters that are left could need.
    pub(super) fn lower_metadata(&self, inode: &Inode) {
        let promise = inode.reservations.lock().promise();
        if promise.metadata == ClusterCount::ZERO {
            return;
        }
        let bound = if promise.clusters == ClusterCount::ZERO && self.delayed_runs(inode) == 0 {
            ClusterCount::ZERO
        } else if self.has_extents(inode) {
            self.tree_nodes(inode, promise.clusters)
        } else {
            return; // which arrays the rest shares with what has gone, nobody knows
        };
        let surplus = inode.reservations.lock().lower_metadata(bound);
        drop(surplus);
    }

    fn delayed_runs(&self, inode: &Inode) -> u64 {
        let status = inode.status.lock();
        u64_from(status.len() - status.reclaimable())
    }

    /// How many nodes the inode's tree could need for `clusters` delayed clusters.
    fn tree_nodes(&self, inode: &Inode, clusters: ClusterCount) -> ClusterCount {
        // In a cluster of many blocks there may be many runs of delayed blocks, and each may become an extent.
        let runs = if self.ratio().blocks() == 1 { 0 } else { self.delayed_runs(inode) + 1 };
        let core = inode.core.lock();
        // Contents that move out of the inode leave an empty root.
        let has_root = core.flags.contains(InodeFlags::EXTENTS);
        let root = NodeView::trusted(&core.block).filter(|_| has_root);
        let (depth, used) = root.map_or((0, 0), |root| (u32::from(root.depth()), root.len()));
        let root_free = u32::try_from(ROOT_CAPACITY.saturating_sub(used)).unwrap_or(0);
        let per_block = (self.geometry().block_size - 12) / 12;
        metadata_bound(clusters.get() + runs, TreeShape { depth, root_free, per_block })
    }

    /// How many arrays of pointers `blocks` could need that neither exist nor are promised to other delayed blocks.
    fn new_arrays(&self, inode: &Inode, blocks: LogicalRange) -> ClusterCount {
        let per_block = self.geometry().block_size / 4;
        let status = inode.status.lock();
        let mut arrays = 0;
        let mut next = LogicalBlock::new(blocks.start().get().max(DIRECT))
            .filter(|&block| blocks.contains(block));
        while let Some(block) = next {
            let Some(path) = IndirectPath::to(block, self.geometry()) else { break };
            let end = block.get().saturating_add(path.run);
            let array = LogicalRange::new(end.saturating_sub(per_block), per_block);
            let is_there =
                array.is_some_and(|array| status.any(array, |state| state != BlockState::Hole));
            arrays += u64::from(!is_there);
            next = LogicalBlock::new(end).filter(|&block| blocks.contains(block));
        }
        // Those above: each has room for as many, and a range may begin in one and end in another.
        let above = |n: u64| if n == 0 { 0 } else { n.div_ceil(per_block.into()) + 1 };
        let (second, third) = (above(arrays), above(above(arrays)).min(1));
        ClusterCount(arrays + second + third)
    }
}
