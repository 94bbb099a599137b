//! One cached metadata block: its bytes, what it is, and which transaction changed it last.
//!
//! Source: kernel `struct buffer_head` with `struct journal_head`. Differs: bytes are shared by reference, and
//! copied when a transaction that commits still holds them, instead of frozen copies.

use alloc::sync::Arc;

use extant_device::Frame;
use extant_format::{BlockGroup, PhysicalBlock, TransactionId};

use crate::sync::{Condvar, Mutex, MutexGuard, Rank};

/// What a metadata block holds, which decides how its checksum is verified and set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockKind {
    /// Indirect blocks, long symbolic links, journaled data, values of attributes: no checksum.
    Plain,
    /// The block that holds the primary superblock.
    Superblock,
    /// Block number `0` of the descriptor table, counted from its start.
    Descriptors(u32),
    /// A group's block bitmap; its checksum is in the descriptor.
    BlockBitmap(BlockGroup),
    /// A group's inode bitmap; its checksum is in the descriptor.
    InodeBitmap(BlockGroup),
    /// Inodes; each carries its own checksum, set by `inode_table`.
    InodeTable,
    /// A node of the extent tree of the inode with this checksum seed.
    ExtentNode(u32),
    /// A leaf or index block of a directory with this checksum seed.
    Directory(u32),
    /// A block of extended attributes.
    Attributes,
    /// A block of the orphan file, whose inode has this checksum seed.
    OrphanFile(u32),
}

/// A cached metadata block; clones are the same block.
#[derive(Clone, Debug)]
pub(crate) struct MetadataBlock(pub(super) Arc<Cached>);

/// The block itself. The cache holds one of these for each block number.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(super) number: PhysicalBlock,
    state: Mutex<BlockState>,
    loaded: Condvar,
}

/// What changes about a block.
#[derive(Debug)]
pub(super) struct BlockState {
    pub(super) content: Content,
    pub(super) kind: BlockKind,
    /// The newest transaction that changed it and is not yet home; `None`: equal to the device.
    pub(super) newest: Option<TransactionId>,
    /// Used since the reclaimer last passed.
    pub(super) referenced: bool,
}

/// The bytes, or why there are none yet.
#[derive(Debug)]
pub(super) enum Content {
    /// Being read by the thread that put the block into the cache.
    Loading,
    /// The read failed; the entry is already out of the cache.
    Failed,
    /// Verified bytes.
    Ready(Frame),
}

impl MetadataBlock {
    /// Where it lives on the device.
    pub(crate) fn number(&self) -> PhysicalBlock {
        self.0.number
    }

    /// Its bytes as they are now; later changes do not show in this snapshot.
    pub(crate) fn frame(&self) -> Frame {
        self.0.lock().frame().clone()
    }

    /// What it holds.
    pub(crate) fn kind(&self) -> BlockKind {
        self.0.lock().kind
    }

    /// Reads it where it is, without taking a share of the frame.
    ///
    /// # Locks
    /// Holds the block's lock while `look` runs, which must take no other.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.0.lock().frame().as_slice())
    }
}

impl MetadataBlock {
    /// Sets checksums at a moment when no handle runs; the block is part of the transaction already.
    pub(super) fn change_when_sealed(&self, change: impl FnOnce(&mut [u8])) {
        change(self.0.lock().frame_mut().make_mut());
    }

    /// Takes the block for clean and shares its bytes, to be written home.
    pub(super) fn take_dirty(&self) -> Frame {
        let mut state = self.0.lock();
        state.newest = None;
        state.frame().clone()
    }

    /// Takes the block for newer than its home.
    pub(super) fn set_dirty(&self, tid: TransactionId) {
        self.0.lock().newest = Some(tid);
    }
}

impl Cached {
    /// An entry whose bytes are still to come.
    pub(super) fn loading(number: PhysicalBlock, kind: BlockKind) -> Self {
        let state = BlockState { content: Content::Loading, kind, newest: None, referenced: true };
        Self { number, state: Mutex::new(Rank::MetadataBlock, state), loaded: Condvar::new() }
    }

    /// The block's lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, BlockState> {
        self.state.lock()
    }

    /// The block's lock, if nobody holds it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, BlockState>> {
        self.state.try_lock()
    }

    /// Publishes what the read brought.
    pub(super) fn finish_loading(&self, content: Content) {
        self.lock().content = content;
        self.loaded.notify_all();
    }

    /// The block's lock once the reader has finished; `None` if it failed.
    pub(super) fn lock_loaded(&self) -> Option<MutexGuard<'_, BlockState>> {
        let mut state = self.lock();
        while matches!(state.content, Content::Loading) {
            state = self.loaded.wait(state);
        }
        matches!(state.content, Content::Ready(_)).then_some(state)
    }
}

impl BlockState {
    /// The bytes of a block that has been loaded.
    pub(super) fn frame(&self) -> &Frame {
        match &self.content {
            Content::Ready(frame) => frame,
            Content::Loading | Content::Failed => {
                unreachable!("a MetadataBlock is handed out only when loaded")
            }
        }
    }

    /// The bytes of a block that has been loaded, to change.
    pub(super) fn frame_mut(&mut self) -> &mut Frame {
        match &mut self.content {
            Content::Ready(frame) => frame,
            Content::Loading | Content::Failed => {
                unreachable!("a MetadataBlock is handed out only when loaded")
            }
        }
    }
}
