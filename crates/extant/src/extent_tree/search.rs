//! What is at a block of a file, and what lies beside it.

use alloc::vec::Vec;

use extant_format::extent::{Extent, NodeView};
use extant_format::{LogicalBlock, LogicalRange};

use super::{ExtentTree, Path};
use crate::Error;

/// What the tree says about a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Located {
    /// It belongs to this extent.
    Extent(Extent),
    /// It has no place, and neither have the others of this range around it.
    Hole(LogicalRange),
}

impl ExtentTree<'_> {
    /// What is at `block`, to which `path` leads.
    ///
    /// A hole reaches from the end of the extent before (or, if there is none, from `block`; in an empty tree from 0) to
    /// the next extent.
    ///
    /// # Source
    /// Kernel `ext4_ext_determine_insert_hole` (D11.13).
    pub(crate) fn at(&self, path: &Path, block: LogicalBlock) -> Located {
        let before = self.nearest(path);
        if let Some(extent) = before.filter(|extent| extent.blocks.contains(block)) {
            return Located::Extent(extent);
        }
        let is_empty = path.depth() == 0 && path.leaf().len == 0;
        let start = match before {
            Some(extent) => {
                LogicalBlock::new(extent.blocks.end()).expect("the block lies behind the extent")
            }
            None if is_empty => LogicalBlock::ZERO,
            None => block,
        };
        Located::Hole(
            LogicalRange::between(start, self.next_start(path))
                .expect("the block lies in the hole"),
        )
    }

    /// Where the search for the path's block ended: the extent at or before it, or else the leaf's first.
    ///
    /// Source: kernel `ext4_ext_binsearch`.
    pub(crate) fn shown(&self, path: &Path) -> Option<Extent> {
        let leaf = path.leaf();
        self.view(&leaf.node, |view| view.extent(leaf.position.unwrap_or(0)))
    }

    /// The last extent of the path's leaf.
    pub(crate) fn last_of_leaf(&self, path: &Path) -> Option<Extent> {
        let leaf = path.leaf();
        self.view(&leaf.node, |view| view.extent(leaf.len.checked_sub(1)?))
    }

    /// How deep the tree is, and how many entries its root has; a root that is none has neither.
    pub(crate) fn root_shape(&self) -> (u16, u16) {
        let root = self.inode.core.lock().block;
        NodeView::trusted(&root)
            .map_or((0, 0), |root| (root.depth(), u16::try_from(root.len()).unwrap_or(u16::MAX)))
    }

    /// The last extent that starts at or before the path's block.
    pub(crate) fn nearest(&self, path: &Path) -> Option<Extent> {
        let leaf = path.leaf();
        leaf.position.and_then(|i| self.view(&leaf.node, |view| view.extent(i)))
    }

    /// Where the first extent behind the path's block starts; `u32::MAX` if there is none.
    ///
    /// Source: kernel `ext4_ext_next_allocated_block`.
    pub(crate) fn next_start(&self, path: &Path) -> u32 {
        let leaf = path.leaf();
        // A leaf starts at its key, so the end of this leaf's share is where the next leaf's first extent starts.
        let here = self.view(&leaf.node, |view| view.first_block(path.insertion_point()));
        here.map_or(leaf.expected.end, LogicalBlock::get)
    }

    /// The first extent behind the path's block.
    ///
    /// Source: kernel `ext4_ext_search_right`.
    pub(crate) fn following(&self, path: &Path) -> Result<Option<Extent>, Error> {
        let leaf = path.leaf();
        let here = self.view(&leaf.node, |view| view.extent(path.insertion_point()));
        match (here, LogicalBlock::new(leaf.expected.end)) {
            (Some(extent), _) => Ok(Some(extent)),
            (None, None) => Ok(None),
            (None, Some(next)) => Ok(self.nearest(&self.find(next)?)),
        }
    }

    /// All extents of the path's leaf, in order.
    pub(crate) fn leaf_extents(&self, path: &Path) -> Vec<Extent> {
        self.view(&path.leaf().node, |view| view.extents().collect())
    }

    /// Whether any block of `range` has a place.
    ///
    /// Source: kernel `ext4_clu_mapped`.
    pub(crate) fn has_any(&self, range: LogicalRange) -> Result<bool, Error> {
        let path = self.find(range.last())?;
        Ok(self.nearest(&path).is_some_and(|extent| extent.blocks.intersection(range).is_some()))
    }

    /// Walks the whole tree and panics if an invariant of the header is broken; returns its extents.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut next = Some(LogicalBlock::ZERO);
        while let Some(block) = next {
            let path = self.find(block).expect("the tree is sound");
            let leaf = self.leaf_extents(&path);
            assert!(
                path.depth() == 0 || leaf.len() == path.leaf().len && !leaf.is_empty(),
                "a leaf without extents"
            );
            extents.extend(leaf);
            next = LogicalBlock::new(path.leaf().expected.end);
        }
        assert!(
            extents.windows(2).all(|two| two[0].blocks.end() <= two[1].blocks.start().get()),
            "{extents:?}"
        );
        extents
    }
}
