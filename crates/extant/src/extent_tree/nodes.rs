//! Blocks for nodes; growth and collapse of the root.

use extant_format::corruption::{Place, Rule};
use extant_format::extent::{Expected, Extent, Index, MAX_DEPTH, NodeMut};
use extant_format::{LogicalBlock, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::account::{charge, file_hints, free_blocks};
use super::path::{Level, Node};
use super::{ExtentTree, Path};
use crate::Error;
use crate::allocator::{AllocationFlags, AllocationRequest, FreeFlags};
use crate::transaction::{BlockKind, Handle, MetadataBlock};

/// What pays for the blocks of new nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NodeSpace {
    /// Free space.
    Free,
    /// The reserved pool too (`METADATA_NOFAIL`).
    Reserved,
    /// The same, and the data was promised already.
    Promised,
    /// The same for data that gets its place ahead of its writeback.
    Delayed,
}

/// Bitmap and descriptor that one allocation of a block changes.
const PER_BLOCK_CREDITS: u32 = 2;
/// The inode.
const INODE_CREDITS: u32 = 1;

impl ExtentTree<'_> {
    /// Makes sure that the handle can change `nodes` nodes and the inode, and take or free `blocks` blocks of nodes.
    pub(super) fn ensure(
        &self,
        handle: &mut Handle<'_>,
        nodes: usize,
        blocks: usize,
        revokes: u32,
    ) -> Result<(), Error> {
        let small = |n: usize| u32::try_from(n).expect("a path has six levels at most");
        handle.ensure_credits(
            small(nodes) + PER_BLOCK_CREDITS * small(blocks) + INODE_CREDITS,
            revokes,
        )
    }

    /// Takes `count` blocks for new nodes near `block`; all, or none.
    ///
    /// The first is wanted before the first child of the root if `grows`, as the root's contents will move there.
    ///
    /// # Source
    /// Kernel `ext4_ext_new_meta_block` (M2.7), `ext4_ext_grow_indepth`.
    pub(super) fn take_nodes(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        block: LogicalBlock,
        count: usize,
        space: NodeSpace,
    ) -> Result<SmallVec<[PhysicalBlock; 6]>, Error> {
        let grows = count > path.depth();
        let mut taken = SmallVec::new();
        for nth in 0..count {
            let (goal, hint) = if grows && nth == 0 {
                self.growth_goal(path)
            } else {
                (self.goal(path, block), AllocationFlags::empty())
            };
            match self.take_node(handle, goal, hint, space) {
                Ok(node) => taken.push(node),
                Err(error) => {
                    let undone = taken
                        .iter()
                        .try_for_each(|&node| self.give_back(handle, node, FreeFlags::METADATA));
                    self.all_or_abort(undone)?;
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    fn take_node(
        &self,
        handle: &mut Handle<'_>,
        goal: PhysicalBlock,
        hint: AllocationFlags,
        space: NodeSpace,
    ) -> Result<PhysicalBlock, Error> {
        let pays = match space {
            NodeSpace::Free => AllocationFlags::empty(),
            NodeSpace::Reserved => AllocationFlags::USE_RESERVED,
            NodeSpace::Promised => AllocationFlags::USE_RESERVED | AllocationFlags::MAP_OF_RESERVED,
            NodeSpace::Delayed => AllocationFlags::MAP_OF_RESERVED,
        };
        let request = AllocationRequest {
            inode: self.inode.number(),
            logical: LogicalBlock::ZERO, // it is no block of the file
            len: 1,
            goal,
            left: None,
            right: None,
            file: file_hints(self.inode, self.geometry()),
            flags: hint | pays,
        };
        let allocation = self.allocator.allocate(handle, &request)?;
        charge(self.inode, self.geometry(), allocation.clusters.get());
        Ok(allocation.blocks.start())
    }

    /// Frees the block of a node.
    pub(super) fn give_back(
        &self,
        handle: &mut Handle<'_>,
        node: PhysicalBlock,
        flags: FreeFlags,
    ) -> Result<(), Error> {
        free_blocks(self.allocator, handle, self.inode, PhysicalRange::single(node), flags)
    }

    /// Where a block for file block `block` should be: where it would be if everything since its neighbour were filled.
    ///
    /// Source: kernel `ext4_ext_find_goal` (M2.3).
    pub(crate) fn goal(&self, path: &Path, block: LogicalBlock) -> PhysicalBlock {
        let leaf = path.leaf();
        let near = self.view(&leaf.node, |view| view.extent(leaf.position.unwrap_or(0)));
        let filled = near.and_then(|Extent { blocks, start, .. }| {
            match block.distance_from(blocks.start()) {
                Some(further) => start.checked_add(further.into()),
                None => start.checked_sub(blocks.start().distance_from(block)?.into()),
            }
        });
        filled.unwrap_or_else(|| match &leaf.node {
            Node::Block(node) => node.number(),
            Node::Root => self.allocator.inode_goal(self.inode.number(), self.inode.file_type()),
        })
    }

    fn growth_goal(&self, path: &Path) -> (PhysicalBlock, AllocationFlags) {
        let first_child = self.view(&path.levels[0].node, |view| view.index(0));
        match first_child.and_then(|index| index.child.checked_sub(1)) {
            Some(before) => (before, AllocationFlags::HINT_TRY_GOAL),
            None => (
                self.allocator.inode_goal(self.inode.number(), self.inode.file_type()),
                AllocationFlags::empty(),
            ),
        }
    }

    /// A new node in `block`.
    pub(super) fn fresh(
        &self,
        handle: &mut Handle<'_>,
        block: PhysicalBlock,
        depth: u16,
        fill: impl FnOnce(&mut NodeMut<'_>),
    ) -> Result<MetadataBlock, Error> {
        let node = handle.fresh(block, BlockKind::ExtentNode(self.inode.checksum_seed()))?;
        handle.modify(&node, |bytes| fill(&mut NodeMut::init(bytes, depth)))?;
        Ok(node)
    }

    /// Whether the tree may become one level deeper.
    pub(super) fn may_grow(&self, path: &Path) -> Result<(), Error> {
        let fits = path.depth() < usize::from(MAX_DEPTH);
        Ok(Place::Inode(self.inode.number()).require(fits, Rule::ExtentDepth)?)
    }

    /// Moves what is in the root to `block` and makes it the root's only child; returns the path as it is then.
    ///
    /// Source: kernel `ext4_ext_grow_indepth`.
    pub(super) fn grow(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        block: PhysicalBlock,
    ) -> Result<Path, Error> {
        let root = &path.levels[0];
        let depth = u16::try_from(path.depth()).expect("five at most");
        let (first, extents, indexes): (_, SmallVec<[Extent; 4]>, SmallVec<[Index; 4]>) = self
            .view(&root.node, |view| {
                (view.first_block(0), view.extents().collect(), view.indexes().collect())
            });
        let first = first.expect("a root without entries has room");
        let mut capacity = 0;
        let node = self.fresh(handle, block, depth, |node| {
            capacity = node.view().capacity();
            extents.iter().for_each(|&extent| push(node, extent));
            indexes.iter().for_each(|&index| push(node, index));
        })?;
        self.change(handle, &root.node, |mut root| {
            root.remove(0..root.len());
            root.set_depth(depth + 1);
            push(&mut root, Index { first, child: block });
        })?;
        let expected = Expected { depth: Some(depth), first: Some(first), end: u32::MAX };
        let moved = Level { node: Node::Block(node), expected, capacity, ..root.clone() };
        let mut levels = path.levels.clone();
        levels[0] = Level { position: Some(0), len: 1, ..levels[0].clone() };
        levels.insert(1, moved);
        Ok(Path { levels })
    }

    /// Moves the only leaf of the tree into the root, if it fits and the handle has room for that. `path` leads to a leaf
    /// that may have changed since, but only in place.
    ///
    /// Source: kernel `ext4_ext_try_to_merge_up`.
    pub(super) fn collapse(&self, handle: &mut Handle<'_>, path: &Path) -> Result<(), Error> {
        let (root, leaf) = (&path.levels[0], path.leaf());
        let Node::Block(block) = &leaf.node else { return Ok(()) };
        if path.depth() != 1 || root.len != 1 || self.ensure(handle, 0, 1, 1).is_err() {
            return Ok(());
        }
        let extents: SmallVec<[Extent; 4]> =
            self.view(&leaf.node, |view| view.extents().take(root.capacity + 1).collect());
        if extents.len() > root.capacity {
            return Ok(());
        }
        self.change(handle, &root.node, |mut root| {
            root.remove(0..root.len());
            root.set_depth(0);
            extents.iter().for_each(|&extent| push(&mut root, extent));
        })?;
        self.all_or_abort(self.give_back(
            handle,
            block.number(),
            FreeFlags::METADATA | FreeFlags::FORGET,
        ))
    }
}

/// Adds an entry behind the others of a node that has room.
pub(super) fn push(node: &mut NodeMut<'_>, entry: impl Into<extant_format::extent::RawEntry>) {
    let fits = node.insert(node.len(), entry);
    assert!(fits, "the caller has counted the entries");
}
