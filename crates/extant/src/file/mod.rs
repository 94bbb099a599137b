//! Reading, writing, cutting and syncing one file.
//!
//! | file | what |
//! | --- | --- |
//! | `read.rs` | from the cache |
//! | `fill.rs` | into the cache, and ahead of readers |
//! | `uncached.rs` | for readers with a cache of their own |
//! | `source.rs` | where the bytes of a write come from |
//! | `write.rs` | cut into folios; delayed or at once |
//! | `journaled.rs` | the same for files whose data is journaled |
//! | `prepare.rs` | what a block needs before bytes go into it |
//! | `store.rs` | stores through a shared mapping |
//! | `direct.rs` | past the cache |
//! | `lay_out.rs` | places for bytes that somebody else brings to the device |
//! | `range.rs` | ranges allocated ahead, punched, zeroed, taken out, pushed in |
//! | `truncate.rs` | cutting, growing, and the end of an inode |
//! | `sync.rs` | fsync, and errors told once |
//! | `map.rs` | where blocks are; holes and data |
//! | `inline.rs` | files that live inside their inode |
//!
//! # Invariants
//! `size` changes under `content` held for writing; the stored size follows no earlier than the data's place (I4).
//! A delayed write opens no handle but for timestamps and calls no allocator (D5.1).
//! # Locking
//! `content` (write) for writers; `invalidate` (read) to fill folios, (write) to drop them; a handle before folios.
//! # Not here
//! Names (`namespace`); attributes (`filesystem`); when dirty data goes out (`writeback`).
//! # Source
//! Kernel `fs/ext4/inode.c`, `file.c`, `fsync.c`; `mm/filemap.c`, `generic_perform_write`.

mod direct;
mod fill;
mod inline;
mod journaled;
mod lay_out;
mod map;
mod prepare;
mod range;
mod read;
mod source;
mod store;
mod sync;
mod truncate;
mod uncached;
mod write;

use alloc::sync::Arc;

use extant_format::Geometry;

pub use self::source::Source;
pub(crate) use self::write::Flags;

use crate::allocator::Allocator;
use crate::delayed::SpaceLedger;
use crate::fast_commit::FastCommits;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::options::MountOptions;
use crate::orphans::Orphans;
use crate::page_cache::{ErrorPosition, Readahead};
use crate::sync::{Mutex, Rank};
use crate::transaction::Transactions;
use crate::writeback::Writeback;
use crate::xattr::Xattrs;

/// Everything that can be done to the bytes of files.
pub(crate) struct Files {
    transactions: Arc<Transactions>,
    ledger: Arc<SpaceLedger>,
    inodes: Arc<InodeTable>,
    pub(crate) mapper: Arc<Mapper>,
    allocator: Arc<Allocator>,
    orphans: Arc<Orphans>,
    xattrs: Arc<Xattrs>,
    writeback: Arc<Writeback>,
    fast_commits: FastCommits,
    delayed_allocation: bool,
    unwritten_until_done: bool,
    kernel_folios: bool,
}

/// The layers that [`Files`] stands on.
pub(crate) struct FileLayers {
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) ledger: Arc<SpaceLedger>,
    pub(crate) inodes: Arc<InodeTable>,
    pub(crate) mapper: Arc<Mapper>,
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) xattrs: Arc<Xattrs>,
    pub(crate) writeback: Arc<Writeback>,
}

/// What an open file remembers: how it is being read, and which failures it has been told of.
#[derive(Debug)]
pub(crate) struct OpenFile {
    readahead: Mutex<Readahead>,
    errors: Mutex<ErrorPosition>,
}

impl OpenFile {
    /// Changes what is known of how the file is read. Readers of one open file at once may miss each other's part in it.
    fn with_readahead<R>(&self, change: impl FnOnce(&mut Readahead) -> R) -> R {
        let mut readahead = *self.readahead.lock();
        let result = change(&mut readahead);
        *self.readahead.lock() = readahead;
        result
    }
}

impl Files {
    /// The files of a volume.
    pub(crate) fn new(layers: FileLayers, options: &MountOptions) -> Self {
        let FileLayers {
            transactions,
            ledger,
            inodes,
            mapper,
            allocator,
            orphans,
            xattrs,
            writeback,
        } = layers;
        let fast_commits =
            FastCommits::new(Arc::clone(&transactions), Arc::clone(&inodes), Arc::clone(&mapper));
        Self {
            fast_commits,
            transactions,
            ledger,
            inodes,
            mapper,
            allocator,
            orphans,
            xattrs,
            writeback,
            delayed_allocation: options.delayed_allocation,
            unwritten_until_done: options.delayed_allocation && options.unwritten_until_done,
            kernel_folios: options.kernel_folios,
        }
    }

    /// A file opened now.
    pub(crate) fn open(&self, inode: &Inode) -> OpenFile {
        OpenFile {
            readahead: Mutex::new(Rank::OpenFile, Readahead::default()),
            errors: Mutex::new(Rank::OpenFile, inode.pages.error_position()),
        }
    }

    fn geometry(&self) -> &Geometry {
        self.transactions.geometry()
    }

    /// The largest size that the inode's kind of block map allows, in bytes.
    ///
    /// Source: kernel `ext4_max_size`, `ext4_max_bitmap_size`.
    fn max_bytes(&self, inode: &Inode) -> u64 {
        if self.mapper.has_extents(inode) {
            self.geometry().max_extent_file_bytes()
        } else {
            self.geometry().max_indirect_file_bytes()
        }
    }
}
