//! Taking blocks out of an extent tree, and freeing them cluster by cluster.
//!
//! Source: kernel `fs/ext4/extents.c`: `ext4_ext_remove_space`, `ext4_ext_rm_leaf`, `ext4_remove_blocks` (D12.7, D12.8, D22.4).

use extant_format::extent::Extent;
use extant_format::inode::FileType;
use extant_format::{
    ClusterCount, ClusterRatio, LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange,
};

use super::{DataKind, Mapper};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::extent_tree::{Cut, ExtentTree, Path, Walk, free_blocks};
use crate::inode::Inode;
use crate::transaction::{Change, Handle};

/// Under `bigalloc`: what is known of the cluster at the left end of what was removed so far, which blocks further left may
/// share.
///
/// Source: kernel `struct partial_cluster`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edge {
    pub(super) state: EdgeState,
    /// The cluster, as a number on the device; what it was last, if nothing is known of one.
    pub(super) cluster: u64,
    /// A block of the file in it.
    pub(super) block: u32,
}

/// What becomes of the cluster of an [`Edge`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum EdgeState {
    /// There is none.
    #[default]
    Unknown,
    /// It goes, unless a block further left lies in it.
    ToFree,
    /// A block that stays lies in it.
    Kept,
}

impl EdgeState {
    /// As events print it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::ToFree => 1,
            Self::Kept => 2,
        }
    }
}

impl Edge {
    /// The cluster of `block` on the device has blocks that stay.
    fn keep(&mut self, ratio: ClusterRatio, block: Option<PhysicalBlock>) {
        if let Some(block) = block.filter(|_| ratio.blocks() > 1) {
            (self.state, self.cluster) = (EdgeState::Kept, cluster_at(ratio, block));
        }
    }
}

/// The number on the device of the cluster that has `block`.
fn cluster_at(ratio: ClusterRatio, block: PhysicalBlock) -> u64 {
    block.get() / u64::from(ratio.blocks())
}

impl Mapper {
    /// Removes what an extent tree has of `range`, from its end to its start. Whoever calls it again after
    /// [`Error::TransactionFull`], with another handle, finds what is left.
    pub(super) fn remove_extents(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
        edge: &mut Edge,
    ) -> Result<(), Error> {
        let tree = self.tree(inode);
        self.tell_removal(inode, range, tree.root_shape().0);
        let in_the_middle = range.end() < u32::MAX;
        let mut path = tree.find(range.last())?;
        if in_the_middle {
            let Some(last) = tree.shown(&path) else { return Ok(()) };
            path = self.begin_in_the_middle(handle, (&tree, path), last, range, edge)?;
        }
        let mut walk = Walk::at(&path, in_the_middle);
        let mut last = tree.shown(&path);
        let depth = tree.root_shape().0;
        loop {
            self.tell_leaf(inode, range, last, edge);
            let cut = self.cut_leaf(handle, inode, (&tree, &path), range, edge)?;
            let next = walk.next(&tree, &path, cut.empties);
            let done = tree.apply_cut(handle, &path, &cut).and_then(|()| {
                if cut.removed.is_empty() { Ok(()) } else { self.inodes.store(handle, inode) }
            });
            self.all_or_abort(done)?;
            if !cut.removed.is_empty() {
                inode.note_transaction(handle.transaction_id(), true);
                self.note_hole(handle, inode, range);
            }
            if cut.is_short {
                return Err(Error::TransactionFull);
            }
            let Some(next) = next else { break };
            path = tree.find(next)?;
            last = tree.last_of_leaf(&path);
        }
        self.tell_removed(inode, range, depth, edge, tree.root_shape().1);
        if edge.state == EdgeState::ToFree {
            let freed = self.free_edge(handle, inode, edge);
            self.all_or_abort(freed.and_then(|()| self.inodes.store(handle, inode)))?;
        }
        Ok(())
    }

    /// Tells the next fast commit, at each step, since the transaction may be another by then.
    ///
    /// Source: kernel `ext4_punch_hole`, and `ext4_setattr`, which notes a truncation before the first step alone.
    fn note_hole(&self, handle: &Handle<'_>, inode: &Inode, range: LogicalRange) {
        if inode.file_type() == FileType::Regular {
            handle.note(Change::Blocks(inode.number(), range));
        }
    }

    /// Lets an extent end where `range` does, `last` being the one at its end or before; returns the way to where the
    /// removal begins.
    fn begin_in_the_middle(
        &self,
        handle: &mut Handle<'_>,
        (tree, path): (&ExtentTree<'_>, Path),
        last: Extent,
        range: LogicalRange,
        edge: &mut Edge,
    ) -> Result<Path, Error> {
        let behind = LogicalBlock::new(range.end()).expect("the range ends in the file");
        if last.blocks.contains(range.last()) && last.blocks.contains(behind) {
            edge.keep(self.ratio(), last.map(behind));
            tree.split_at(handle, behind)?;
            return tree.find(behind);
        }
        if edge.state == EdgeState::Unknown && last.blocks.end() <= range.end() {
            let next = tree.following(&path)?;
            edge.keep(self.ratio(), next.map(|next| next.start));
        }
        Ok(path)
    }

    /// Frees what the path's leaf has of `range`, as far as the handle's credits allow; the leaf itself is still as it was.
    fn cut_leaf(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        (tree, path): (&ExtentTree<'_>, &Path),
        range: LogicalRange,
        edge: &mut Edge,
    ) -> Result<Cut, Error> {
        let cut = tree.plan_cut(handle, path, range, self.data_kind(inode) != DataKind::Plain)?;
        let shown = tree.shown(path);
        if let Some(behind) = shown.filter(|shown| shown.blocks.start() > range.last()) {
            edge.keep(self.ratio(), Some(behind.start));
        }
        let freed = cut
            .removed
            .iter()
            .try_for_each(|&(extent, from)| self.free_extent(handle, inode, extent, from, edge));
        self.all_or_abort(freed)?;
        if let Some(left) = cut.left.filter(|_| edge.state == EdgeState::ToFree) {
            let shares = left
                .map(left.blocks.last())
                .is_some_and(|last| cluster_at(self.ratio(), last) == edge.cluster);
            let freed = if shares { Ok(()) } else { self.free_edge(handle, inode, edge) };
            self.all_or_abort(freed)?;
            edge.state = EdgeState::Unknown;
        }
        Ok(cut)
    }

    /// Frees the blocks of `extent` from block `from` on. Clusters that the extent has whole go at once, one at its end too if
    /// nobody keeps it; one at its start is `edge` from then on.
    fn free_extent(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        extent: Extent,
        from: LogicalBlock,
        edge: &mut Edge,
    ) -> Result<(), Error> {
        self.tell_extent(inode, extent, from, edge);
        let ratio = self.ratio();
        let (to, sound) = (extent.blocks.last(), "a block of the extent");
        let (first_place, last_place) =
            (extent.map(from).expect(sound), extent.map(to).expect(sound));
        let last_cluster = cluster_at(ratio, last_place);
        if edge.state != EdgeState::Unknown && edge.cluster != last_cluster {
            if edge.state == EdgeState::ToFree {
                self.free_edge(handle, inode, edge)?;
            }
            edge.state = EdgeState::Unknown;
        }
        let last = ratio.around(to);
        if last.last() != to && last.start() >= from && edge.state != EdgeState::Kept {
            self.free_cluster(handle, inode, last_cluster, to)?;
            edge.state = EdgeState::Unknown;
        }
        let len = u64::from(extent.blocks.end() - from.get());
        let blocks = PhysicalRange::new(first_place, len).expect(sound);
        let ends = FreeFlags::NOFREE_FIRST_CLUSTER | FreeFlags::NOFREE_LAST_CLUSTER;
        free_blocks(&self.allocator, handle, inode, blocks, self.free_flags(inode) | ends)?;
        let first_cluster = cluster_at(ratio, first_place);
        if edge.state != EdgeState::Unknown && edge.cluster != first_cluster {
            edge.state = EdgeState::Unknown;
        }
        let begins_inside = ratio.around(from).start() != from;
        if !begins_inside || from != extent.blocks.start() {
            edge.state = EdgeState::Unknown;
        } else if edge.state == EdgeState::Unknown {
            *edge = Edge { state: EdgeState::ToFree, cluster: first_cluster, block: from.get() };
        }
        Ok(())
    }

    /// Frees the cluster of which `edge` says that nobody has it any more.
    fn free_edge(&self, handle: &mut Handle<'_>, inode: &Inode, edge: &Edge) -> Result<(), Error> {
        let block = LogicalBlock::new(edge.block).expect("a block of the file");
        self.free_cluster(handle, inode, edge.cluster, block)
    }

    /// Frees a cluster of the device in which `block` of the file lay. If delayed blocks still lie in it, it becomes their
    /// promise (D12.7).
    fn free_cluster(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        cluster: u64,
        block: LogicalBlock,
    ) -> Result<(), Error> {
        let (ratio, mut flags) = (self.ratio(), self.free_flags(inode));
        let number = ratio.cluster_of(block);
        let is_pending = inode.reservations.lock().pending.contains(number);
        flags.set(FreeFlags::RERESERVE_CLUSTER, is_pending);
        let len = u64::from(ratio.blocks());
        let blocks = PhysicalRange::new(PhysicalBlock::new(cluster * len), len)
            .expect("a cluster of the device");
        free_blocks(&self.allocator, handle, inode, blocks, flags)?;
        if is_pending {
            let reservation = self.ledger.rereserve(ClusterCount(1));
            let mut reservations = inode.reservations.lock();
            reservations.add(reservation);
            reservations.pending.remove(number);
        }
        Ok(())
    }

    /// Passes on the outcome of frees that cannot be taken back: a failure stops the journal.
    fn all_or_abort(&self, outcome: Result<(), Error>) -> Result<(), Error> {
        outcome.inspect_err(|error| {
            self.transactions.abort(error, "blocks taken out of a file could not be freed");
        })
    }
}
