//! Journaled data: the blocks of files that are newer than their home, by where that is.
//!
//! A file keeps its bytes itself. Here is who has the newest bytes of such a block: the file, until its transaction is sealed,
//! and from then on the transaction. Whoever reads the block from the device asks here first.
//!
//! Source: kernel `struct journal_head` of a data buffer. Differs: its page need not stay in memory once the block is committed.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use extant_device::{Frame, FrameSlice};
use extant_format::{PhysicalBlock, PhysicalRange, TransactionId};

use crate::sync::{Mutex, Rank};

/// A block of a file whose data is journaled, where its newest bytes are.
pub(crate) trait JournaledData: Send + Sync {
    /// The bytes as they are now, shared; they change only under a handle.
    fn share(&self) -> FrameSlice;
}

/// A block of zeros, for blocks that are zeroed in the log.
pub(super) struct Zeros(pub(super) Frame);

impl JournaledData for Zeros {
    fn share(&self) -> FrameSlice {
        self.0.clone().into()
    }
}

/// All blocks of data that are newer than their home.
pub(super) struct DataIndex {
    blocks: Mutex<BTreeMap<PhysicalBlock, Newest>>,
    len: AtomicUsize,
}

/// The newest version of a block.
struct Newest {
    tid: TransactionId,
    bytes: Bytes,
}

/// Where the bytes are.
#[derive(Clone)]
enum Bytes {
    /// In the file: the transaction runs.
    Live(Arc<dyn JournaledData>),
    /// In the transaction.
    Sealed(FrameSlice),
}

impl DataIndex {
    pub(super) fn new() -> Self {
        let blocks = Mutex::new(Rank::MetadataIndex, BTreeMap::new());
        Self { blocks, len: AtomicUsize::new(0) }
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// How many blocks.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether the block is newer than its home.
    pub(super) fn contains(&self, block: PhysicalBlock) -> bool {
        !self.is_empty() && self.blocks.lock().contains_key(&block)
    }

    /// Whether the block is filed with transaction `tid` already.
    pub(super) fn is_filed(&self, block: PhysicalBlock, tid: TransactionId) -> bool {
        !self.is_empty() && self.blocks.lock().get(&block).is_some_and(|newest| newest.tid == tid)
    }

    /// Notes that the newest bytes of the block are `data`, which transaction `tid` changes.
    pub(super) fn file(
        &self,
        block: PhysicalBlock,
        tid: TransactionId,
        data: Arc<dyn JournaledData>,
    ) {
        let mut blocks = self.blocks.lock();
        blocks.insert(block, Newest { tid, bytes: Bytes::Live(data) });
        self.len.store(blocks.len(), Ordering::Release);
    }

    /// Who has the bytes of those of `blocks` that are data.
    pub(super) fn live(
        &self,
        blocks: impl Iterator<Item = PhysicalBlock>,
    ) -> Vec<(PhysicalBlock, Arc<dyn JournaledData>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let index = self.blocks.lock();
        let live = |block| match &index.get(&block)?.bytes {
            Bytes::Live(data) => Some((block, Arc::clone(data))),
            Bytes::Sealed(_) => None,
        };
        blocks.filter_map(live).collect()
    }

    /// Transaction `tid` is sealed with these bytes.
    pub(super) fn seal<'a>(
        &self,
        tid: TransactionId,
        shares: impl Iterator<Item = (&'a PhysicalBlock, &'a FrameSlice)>,
    ) {
        let mut blocks = self.blocks.lock();
        for (block, share) in shares {
            if let Some(newest) = blocks.get_mut(block).filter(|newest| newest.tid == tid) {
                newest.bytes = Bytes::Sealed(share.clone());
            }
        }
    }

    /// The newest bytes of the blocks of a range that are newer than their home, by rising number.
    pub(super) fn newest(&self, range: PhysicalRange) -> Vec<(PhysicalBlock, FrameSlice)> {
        if self.is_empty() {
            return Vec::new();
        }
        let found: Vec<(PhysicalBlock, Bytes)> = {
            let blocks = self.blocks.lock();
            let within = blocks.range(range.start()..range.end());
            within.map(|(block, newest)| (*block, newest.bytes.clone())).collect()
        };
        let bytes = |bytes| match bytes {
            Bytes::Live(data) => data.share(), // takes a lock that comes before this one
            Bytes::Sealed(share) => share,
        };
        found.into_iter().map(|(block, newest)| (block, bytes(newest))).collect()
    }

    /// Drops what is known of a range, which is being freed; which blocks that was.
    pub(super) fn forget(&self, range: PhysicalRange) -> Vec<PhysicalBlock> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut blocks = self.blocks.lock();
        let within = blocks.range(range.start()..range.end());
        let forgotten: Vec<PhysicalBlock> = within.map(|(block, _)| *block).collect();
        for block in &forgotten {
            blocks.remove(block);
        }
        self.len.store(blocks.len(), Ordering::Release);
        forgotten
    }

    /// Notes that version `tid` of the block has reached the device.
    pub(super) fn written_home(&self, block: PhysicalBlock, tid: TransactionId) {
        let mut blocks = self.blocks.lock();
        if blocks.get(&block).is_some_and(|newest| newest.tid == tid) {
            blocks.remove(&block);
            self.len.store(blocks.len(), Ordering::Release);
        }
    }
}
