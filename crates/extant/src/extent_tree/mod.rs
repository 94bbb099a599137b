//! The on-disk extent tree of one file: find, insert, split, merge, convert, remove, shift.
//!
//! Every change is one *splice*: some entries of one leaf are replaced by others. A splice first makes sure of its
//! credits and takes the blocks that new nodes need, and only then touches the tree; so running out of either leaves
//! the tree as it was, and an extent that is split in three is split in one step.
//!
//! | file | what |
//! | --- | --- |
//! | `path.rs` | the way from the root to a leaf, each node checked against its parent |
//! | `search.rs` | what is at a block, and what lies beside it |
//! | `window.rs` | pieces and joins of extents, without any tree |
//! | `splice.rs` | replacing entries of a leaf; splits and keys |
//! | `nodes.rs` | blocks for nodes; growth and collapse of the root |
//! | `insert.rs`, `convert.rs`, `remove.rs`, `shift.rs` | the operations |
//! | `account.rs` | the inode's count of blocks |
//!
//! # Invariants
//! Entries ascend without overlap; a node starts at its parent's key and ends before its parent's next key; only an
//! empty root has no entries; depth is at most 5. [`ExtentTree::check_invariants`] walks them all.
//! After an error the tree is as before, or the journal is aborted.
//! # Locking
//! Callers hold `Inode::map`: for reading to search, for writing to change. `Inode::core` is taken for a few lines.
//! # Not here
//! Where data goes, what is known in memory, and freeing data (`mapping`).
//! # Source
//! Kernel `fs/ext4/extents.c`. Differs: a node that is full is halved unless it is appended to; splits are planned whole instead of one cut at a time, so there is nothing to
//! undo; removal looks for its leaf anew after each leaf, instead of keeping a path.

mod account;
mod convert;
mod insert;
mod nodes;
mod path;
mod remove;
mod search;
mod shift;
mod splice;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use account::{TouchedGroups, charge, file_hints, free_blocks, refund};
pub(crate) use convert::{Conversion, ZeroOut};
pub(crate) use insert::Joining;
pub(crate) use nodes::NodeSpace;
pub(crate) use path::Path;
pub(crate) use remove::{Cut, Walk};
pub(crate) use search::Located;
pub(crate) use shift::Shift;

use extant_format::Geometry;
use extant_format::inode::BLOCK_AREA_BYTES;

use crate::Error;
use crate::allocator::Allocator;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::transaction::{Handle, Transactions};

/// The extent tree of one inode; made for each operation.
#[derive(Clone, Copy)]
pub(crate) struct ExtentTree<'a> {
    transactions: &'a Transactions,
    allocator: &'a Allocator,
    inodes: &'a InodeTable,
    inode: &'a Inode,
}

impl<'a> ExtentTree<'a> {
    /// The tree of `inode`, which has the flag for extents.
    pub(crate) fn new(
        transactions: &'a Transactions,
        allocator: &'a Allocator,
        inodes: &'a InodeTable,
        inode: &'a Inode,
    ) -> Self {
        Self { transactions, allocator, inodes, inode }
    }

    fn geometry(&self) -> &'a Geometry {
        self.transactions.geometry()
    }

    /// What of the inode changes with the tree: the root, and the count of blocks.
    fn in_inode(&self) -> ([u8; BLOCK_AREA_BYTES], u64) {
        let core = self.inode.core.lock();
        (core.block, core.blocks)
    }

    /// Stores the inode, whose root or count of blocks has changed.
    fn store(&self, handle: &mut Handle<'_>) -> Result<(), Error> {
        self.inodes.store(handle, self.inode)
    }

    /// Passes on the outcome of changes that cannot be taken back: a failure stops the journal.
    fn all_or_abort<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| {
            self.transactions.abort(error, "an extent tree was changed in part")
        })
    }
}
