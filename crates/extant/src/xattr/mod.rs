//! Extended attributes: in the inode's tail, in a block that inodes with the same attributes share, or, for large values,
//! in inodes of their own; and what is built on them: access control lists.
//!
//! | file | what |
//! | --- | --- |
//! | `calls.rs` | the four system calls, with their checks |
//! | `store.rs` | reading and writing one attribute under a handle: which home it gets |
//! | `shared.rs` | attribute blocks: copy on write, reference counts, sharing by hash |
//! | `value_inode.rs` | values in inodes of their own, with reference counts |
//! | `acl.rs`, `access.rs` | access control lists; who may do what |
//!
//! # Invariants
//! A name is in one home at most. The reference count of a value's inode is the number of areas that name it: inodes'
//! tails, and blocks (a shared block counts once).
//! # Locking
//! `Inode::attributes_lock` (65) around every look and change; then `map` of the same inode for a new block, or of a
//! value's inode; `Orphans` (72); the table of shared blocks is a leaf.
//! # Not here
//! Bytes of entries (`extant_format::xattr`); contents in `system.data` (`inode_table`). Freeing inodes whose last
//! reference is gone (`file`): they are on the orphan list, and [`Orphans::take_unused`] names them.
//! # Source
//! Kernel `fs/ext4/xattr.c`, `acl.c`.

mod access;
mod acl;
mod calls;
mod shared;
mod store;
mod value_inode;

use alloc::sync::Arc;

use extant_format::xattr::NameIndex;
use extant_format::{Geometry, Incompat};

pub use access::Access;
pub(crate) use access::check_removal;
pub(crate) use acl::{Acl, AclKind};
use shared::SharedBlocks;
pub(crate) use store::Key;
pub use store::SetHow;

use crate::allocator::Allocator;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::orphans::Orphans;
use crate::sync::{Mutex, Rank};
use crate::time::Clock;
use crate::transaction::Transactions;

/// The extended attributes of a volume's inodes.
pub(crate) struct Xattrs {
    transactions: Arc<Transactions>,
    inodes: Arc<InodeTable>,
    mapper: Arc<Mapper>,
    allocator: Arc<Allocator>,
    orphans: Arc<Orphans>,
    clock: Arc<dyn Clock>,
    shared: SharedBlocks,
    values: Mutex<value_inode::Known>,
}

impl Xattrs {
    /// The attributes of the volume that the others belong to.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        mapper: Arc<Mapper>,
        allocator: Arc<Allocator>,
        orphans: Arc<Orphans>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            transactions,
            inodes,
            mapper,
            allocator,
            orphans,
            clock,
            shared: SharedBlocks::default(),
            values: Mutex::new(Rank::Leaf, value_inode::Known::default()),
        }
    }

    fn geometry(&self) -> &Geometry {
        self.transactions.geometry()
    }

    /// Whether large values may have inodes of their own.
    fn has_value_inodes(&self) -> bool {
        self.geometry().incompat.contains(Incompat::EA_INODE)
    }
}

impl AclKind {
    /// Where lists of this kind are stored.
    pub(crate) const fn key(self) -> Key<'static> {
        let index = match self {
            Self::Access => NameIndex::ACL_ACCESS,
            Self::Default => NameIndex::ACL_DEFAULT,
        };
        Key { index, name: &[] }
    }
}
