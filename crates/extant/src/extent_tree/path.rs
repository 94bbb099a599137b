//! [`Path`]: the way from the root to a leaf.

use extant_format::corruption::{Corruption, Place, Rule};
use extant_format::extent::{Expected, NodeMut, NodeView};
use extant_format::{LogicalBlock, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::ExtentTree;
use crate::Error;
use crate::trace::Event;
use crate::transaction::{BlockKind, Handle, MetadataBlock};

/// The nodes from the root to the leaf that has a block, or would have it.
///
/// It stays true until the tree changes.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// The root first; never empty.
    pub(super) levels: SmallVec<[Level; 3]>,
}

/// One node of a path.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) node: Node,
    /// What the parent says about it.
    pub(super) expected: Expected,
    /// Entries in use.
    pub(super) len: usize,
    /// Entries that fit.
    pub(super) capacity: usize,
    /// Inner node: the entry of the next level. Leaf: the last extent that starts at or before the block, if any.
    pub(super) position: Option<usize>,
    /// Its block was read from the device on the way.
    pub(super) is_news: bool,
}

/// Where a node is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// In the inode.
    Root,
    /// In a block of its own.
    Block(MetadataBlock),
}

impl Path {
    /// Levels below the root.
    pub(super) fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// Whether what the leaf says may be news: it is the root, or was read from the device on the way.
    pub(crate) fn is_leaf_news(&self) -> bool {
        self.depth() == 0 || self.leaf().is_news
    }

    /// The leaf.
    pub(super) fn leaf(&self) -> &Level {
        self.levels.last().expect("a path has at least the root")
    }

    /// The position before which an extent would be inserted.
    pub(super) fn insertion_point(&self) -> usize {
        self.leaf().position.map_or(0, |position| position + 1)
    }
}

impl Level {
    /// The entry that leads to the next level.
    pub(super) fn child(&self) -> usize {
        self.position.expect("every inner node of a path leads on")
    }

    /// Whether no entry more fits.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }
}

impl ExtentTree<'_> {
    /// The way to the leaf of `block`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a node that breaks a rule or does not fit its parent, and errors of reading.
    /// # Source
    /// Kernel `ext4_find_extent`, `__ext4_ext_check`.
    pub(crate) fn find(&self, block: LogicalBlock) -> Result<Path, Error> {
        let root = self.inode.core.lock().block;
        let (level, mut below) = self.level(
            &root,
            Place::Inode(self.inode.number()),
            Node::Root,
            Expected::ROOT,
            block,
        )?;
        let mut levels = SmallVec::from_iter([level]);
        // Each level's depth is one less than its parent's, so this ends.
        while let Some((child, expected)) = below {
            let place = Place::InodeBlock(self.inode.number(), child);
            let is_news = !self.transactions.is_cached(child);
            if is_news {
                let (ino, lblk) =
                    (self.inode.number(), expected.first.map_or(0, LogicalBlock::get));
                let pblk = child.get();
                self.transactions.tracer().emit(|| Event::ExtLoadExtent { ino, lblk, pblk });
            }
            let node = self.read(child, place)?;
            let found = node.with(|bytes| {
                self.level(bytes, place, Node::Block(node.clone()), expected, block)
            })?;
            levels.push(Level { is_news, ..found.0 });
            below = found.1;
        }
        Ok(Path { levels })
    }

    /// Reads the node at `child`, which `place` names in errors.
    fn read(&self, child: PhysicalBlock, place: Place) -> Result<MetadataBlock, Error> {
        let own = self.allocator.may_own(self.inode.number(), PhysicalRange::single(child));
        place.require(own, Rule::IndexPlace)?;
        self.transactions.read(child, BlockKind::ExtentNode(self.inode.checksum_seed()))
    }

    /// Checks a node and finds the way on: the child and what it must agree with.
    fn level(
        &self,
        bytes: &[u8],
        place: Place,
        node: Node,
        expected: Expected,
        block: LogicalBlock,
    ) -> Result<(Level, Option<(PhysicalBlock, Expected)>), Corruption> {
        let view = NodeView::new(bytes, place, self.geometry(), expected)?;
        let found = view.search(block);
        let position = if view.is_leaf() { found } else { found.or(Some(0)) };
        let level = Level {
            node,
            expected,
            len: view.len(),
            capacity: view.capacity(),
            position,
            is_news: false,
        };
        let child = position
            .and_then(|i| Some((view.index(i)?.child, view.expected_of_child(i, expected)?)));
        Ok((level, child))
    }

    /// Looks at a node of a path once more.
    pub(super) fn view<R>(&self, node: &Node, look: impl FnOnce(NodeView<'_>) -> R) -> R {
        let trusted = "it was checked on the way down, and the map is held";
        match node {
            Node::Root => {
                let root = self.inode.core.lock().block;
                look(NodeView::trusted(&root).expect(trusted))
            }
            Node::Block(block) => {
                block.with(|bytes| look(NodeView::trusted(bytes).expect(trusted)))
            }
        }
    }

    /// Changes a node of a path.
    pub(super) fn change<R>(
        &self,
        handle: &mut Handle<'_>,
        node: &Node,
        change: impl FnOnce(NodeMut<'_>) -> R,
    ) -> Result<R, Error> {
        let trusted = "it was checked on the way down, and the map is held";
        match node {
            Node::Root => {
                Ok(change(NodeMut::trusted(&mut self.inode.core.lock().block).expect(trusted)))
            }
            Node::Block(block) => {
                handle.modify(block, |bytes| change(NodeMut::trusted(bytes).expect(trusted)))
            }
        }
    }
}
