//! Replacing entries of a leaf: the one way in which extents change.

use alloc::vec::Vec;
use core::ops::Range;

use extant_format::extent::{Extent, Index};
use extant_format::{LogicalBlock, PhysicalBlock};

use super::nodes::{NodeSpace, push};
use super::path::Level;
use super::window::Window;
use super::{ExtentTree, Path};
use crate::Error;
use crate::transaction::Handle;

impl ExtentTree<'_> {
    /// Replaces the entries at `old` in the path's leaf by `new`, of which there is at least one, and corrects the keys
    /// above. The path is true afterwards only if the number of entries did not grow beyond the leaf.
    ///
    /// What does not fit goes to the next leaf, if it is behind all others here and the next leaf has room; else the leaf is
    /// split. If no inner node on the path has room for one more, the root moves down first.
    ///
    /// # Errors
    /// [`Error::NoSpace`] for new nodes, [`Error::TransactionFull`]; nothing has changed then.
    /// # Source
    /// Kernel `ext4_ext_insert_extent`, `ext4_ext_create_new_leaf`, `ext4_ext_split` (D20.11). Differs: the kernel cuts a full
    /// node behind the new entry, wherever that is, and may leave one full and one nearly empty node.
    pub(super) fn splice(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        old: Range<usize>,
        new: &[Extent],
        space: NodeSpace,
    ) -> Result<(), Error> {
        let leaf = path.leaf();
        let len = leaf.len - old.len() + new.len();
        let Some(excess) = len.checked_sub(leaf.capacity).filter(|&excess| excess > 0) else {
            self.ensure(handle, path.levels.len(), 0, 0)?;
            return self.all_or_abort(self.replace(handle, path, old, new));
        };
        if old.end == leaf.len
            && let Some(next) = self.next_leaf_with_room(path, excess)?
        {
            self.ensure(handle, path.levels.len() + next.levels.len(), 0, 0)?;
            let (here, there) = new.split_at(new.len() - excess);
            let both = self
                .replace(handle, path, old, here)
                .and_then(|()| self.replace(handle, &next, 0..0, there));
            return self.all_or_abort(both);
        }
        let room = (0..path.depth()).rev().find(|&i| !path.levels[i].is_full());
        if room.is_none() {
            self.may_grow(path)?;
        }
        let count = room.map_or(path.depth() + 1, |level| path.depth() - level);
        self.ensure(handle, path.levels.len() + count, count, 0)?;
        let nodes = self.take_nodes(handle, path, new[0].blocks.start(), count, space)?;
        let done = if room.is_some() {
            self.split(handle, path, &nodes, old, new)
        } else {
            self.grow(handle, path, nodes[0])
                .and_then(|path| self.split(handle, &path, &nodes[1..], old, new))
        };
        self.all_or_abort(done)
    }

    /// The next leaf, if there is one and it has room for `excess` entries.
    fn next_leaf_with_room(&self, path: &Path, excess: usize) -> Result<Option<Path>, Error> {
        let Some(next) = LogicalBlock::new(path.leaf().expected.end) else { return Ok(None) };
        let next = self.find(next)?;
        let leaf = next.leaf();
        Ok((leaf.len + excess <= leaf.capacity).then_some(next))
    }

    /// Replaces entries of a leaf that has room, and corrects the keys above.
    pub(super) fn replace(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        old: Range<usize>,
        new: &[Extent],
    ) -> Result<(), Error> {
        let first = old.start == 0;
        let key = self.change(handle, &path.leaf().node, |mut leaf| {
            let common = old.len().min(new.len());
            for (i, &extent) in (old.start..).zip(&new[..common]) {
                leaf.set(i, extent);
            }
            leaf.remove(old.start + common..old.end);
            for (i, &extent) in (old.start + common..).zip(&new[common..]) {
                let fits = leaf.insert(i, extent);
                assert!(fits, "the caller has counted the entries");
            }
            leaf.view().first_block(0)
        })?;
        match key {
            Some(key) if first && path.leaf().expected.first != Some(key) => {
                self.correct_keys(handle, &path.levels, key)
            }
            _ => Ok(()),
        }
    }

    /// Makes `key` the key of the last of `levels`, and of the nodes above of which it is the first child.
    ///
    /// Source: kernel `ext4_ext_correct_indexes`.
    pub(super) fn correct_keys(
        &self,
        handle: &mut Handle<'_>,
        levels: &[Level],
        key: LogicalBlock,
    ) -> Result<(), Error> {
        for level in levels[..levels.len() - 1].iter().rev() {
            let at = level.child();
            self.change(handle, &level.node, |mut node| {
                let index = node.view().index(at).expect("the path leads through it");
                node.set(at, Index { first: key, ..index });
            })?;
            if at > 0 {
                break;
            }
        }
        Ok(())
    }

    /// [`Self::splice`] into a leaf that may have no room, when `nodes` has a block for each node on the path that is full
    /// below the first one (from the leaf) that is not.
    ///
    /// What is put behind everything else in a node gets a new node of its own, so that files that grow fill their nodes; so
    /// do the first two of a file that grows towards its start. Else a full node is halved, which is what the promise for delayed data counts on.
    fn split(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        nodes: &[PhysicalBlock],
        old: Range<usize>,
        new: &[Extent],
    ) -> Result<(), Error> {
        // The leaf's is the block taken last, as in the kernel.
        let Some((&leaf_block, inner_blocks)) = nodes.split_last() else {
            return self.replace(handle, path, old, new);
        };
        let leaf = path.leaf();
        let mut all = self.leaf_extents(path);
        all.splice(old.clone(), new.iter().copied());
        let stay = if old.end == leaf.len {
            old.start + new.len()
        } else if leaf.position.is_none() {
            2 // before everything: what comes still earlier finds room
        } else {
            all.len().div_ceil(2)
        };
        let stay = stay.min(leaf.capacity);
        let (left, right) = all.split_at(stay);
        self.fresh(handle, leaf_block, 0, |node| {
            right.iter().for_each(|&extent| push(node, extent))
        })?;
        let kept = old.start.min(stay);
        self.replace(handle, path, kept..leaf.len, &left[kept..])?;

        let mut index = Index { first: right[0].blocks.start(), child: leaf_block };
        let mut levels = path.levels[..path.depth()].iter().rev();
        for (&block, level) in inner_blocks.iter().rev().zip(levels.by_ref()) {
            let at = level.child() + 1;
            let (depth, mut all): (u16, Vec<Index>) =
                self.view(&level.node, |view| (view.depth(), view.indexes().collect()));
            all.insert(at, index);
            let stay = if at == level.len { at } else { all.len() / 2 };
            let right = &all[stay..];
            self.fresh(handle, block, depth, |node| {
                right.iter().for_each(|&index| push(node, index))
            })?;
            self.change(handle, &level.node, |mut node| {
                node.remove(stay.min(at)..level.len);
                all[stay.min(at)..stay].iter().for_each(|&index| push(&mut node, index));
            })?;
            index = Index { first: right[0].first, child: block };
        }
        let level = levels.next().expect("one inner node has room");
        let fits =
            self.change(handle, &level.node, |mut node| node.insert(level.child() + 1, index))?;
        assert!(fits, "this node has room");
        Ok(())
    }

    /// The entries beside the one or none at `at`, and where in the leaf they are, with `middle` between them.
    pub(super) fn with_neighbours(
        &self,
        path: &Path,
        at: Range<usize>,
        middle: &[Extent],
    ) -> (Range<usize>, Window) {
        self.view(&path.leaf().node, |view| {
            let left = at.start.checked_sub(1);
            let right = (at.end < view.len()).then_some(at.end);
            let mut window = Window::from_iter(left.and_then(|i| view.extent(i)));
            window.extend_from_slice(middle);
            window.extend(right.and_then(|i| view.extent(i)));
            (left.unwrap_or(at.start)..right.map_or(at.end, |i| i + 1), window)
        })
    }
}
