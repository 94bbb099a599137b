//! The cache of metadata blocks: at most one entry a block number, read once, never dropped while newer than its home.
//!
//! Source: kernel buffer cache (`fs/buffer.c`) as ext4 uses it for metadata.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use extant_device::Frame;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::corruption::{Place, Rule};
use extant_format::{PhysicalBlock, TransactionId};

use super::block::{BlockKind, Cached, Content, MetadataBlock};
use crate::Error;
use crate::sync::{Mutex, Rank};

const SHARDS: usize = 16;

/// All cached metadata blocks of a volume.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    shards: Vec<Mutex<BTreeMap<PhysicalBlock, Arc<Cached>>>>,
    cached_blocks: AtomicU64,
}

/// What [`MetadataCache::claim`] found.
pub(super) enum Claim {
    /// The block is here.
    Hit(MetadataBlock),
    /// It was not; the caller now has to load this entry and to call [`MetadataCache::loaded`].
    Load(Arc<Cached>),
}

impl MetadataCache {
    /// An empty cache.
    pub(super) fn new() -> Self {
        let shards =
            (0..SHARDS).map(|_| Mutex::new(Rank::MetadataIndex, BTreeMap::new())).collect();
        Self { shards, cached_blocks: AtomicU64::new(0) }
    }

    fn shard(&self, block: PhysicalBlock) -> &Mutex<BTreeMap<PhysicalBlock, Arc<Cached>>> {
        // Neighbouring blocks go to different shards, which is what threads in one directory want.
        &self.shards[usize_from(low_u32(block.get())) % SHARDS]
    }

    /// The block if it is cached, else an entry that the caller must load.
    ///
    /// # Errors
    /// [`Corruption`](extant_format::Corruption) if the block is cached as something else, which two structures
    /// that share a block would bring about.
    pub(super) fn claim(&self, block: PhysicalBlock, kind: BlockKind) -> Result<Claim, Error> {
        loop {
            let entry = {
                let mut shard = self.shard(block).lock();
                match shard.get(&block) {
                    Some(entry) => Arc::clone(entry),
                    None => {
                        let entry = Arc::new(Cached::loading(block, kind));
                        shard.insert(block, Arc::clone(&entry));
                        self.cached_blocks.fetch_add(1, Ordering::Relaxed);
                        return Ok(Claim::Load(entry));
                    }
                }
            };
            let known = entry.lock_loaded().map(|mut state| {
                state.referenced = true;
                state.kind
            });
            match known {
                Some(known) if known == kind => return Ok(Claim::Hit(MetadataBlock(entry))),
                Some(_) => return Err(Place::Block(block).breaks(Rule::CrossLinked).into()),
                None => {}
            }
        }
    }

    /// Ends a load that [`Self::claim`] began.
    pub(super) fn loaded(
        &self,
        entry: Arc<Cached>,
        content: Result<Frame, Error>,
    ) -> Result<MetadataBlock, Error> {
        match content {
            Ok(frame) => {
                entry.finish_loading(Content::Ready(frame));
                Ok(MetadataBlock(entry))
            }
            Err(error) => {
                self.remove(entry.number);
                entry.finish_loading(Content::Failed);
                Err(error)
            }
        }
    }

    /// The block if it is cached, whatever it holds.
    pub(super) fn find(&self, block: PhysicalBlock) -> Option<MetadataBlock> {
        let entry = Arc::clone(self.shard(block).lock().get(&block)?);
        let is_loaded = entry.lock_loaded().is_some();
        is_loaded.then_some(MetadataBlock(entry))
    }

    /// Whether there is an entry for the block.
    pub(super) fn contains(&self, block: PhysicalBlock) -> bool {
        self.shard(block).lock().contains_key(&block)
    }

    /// Takes the block out; whoever still holds it holds a block that nobody else can find.
    pub(super) fn remove(&self, block: PhysicalBlock) {
        if self.shard(block).lock().remove(&block).is_some() {
            self.cached_blocks.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes the block out, which is being freed; whether a transaction waited to write it.
    pub(super) fn forget(&self, block: PhysicalBlock) -> bool {
        let Some(cached) = self.find(block) else { return false };
        let was_newer = cached.0.lock().newest.take().is_some();
        self.remove(block);
        was_newer
    }

    /// Takes the block out if no transaction waits to write it: what it holds is of no use to its next owner.
    pub(super) fn remove_if_clean(&self, block: PhysicalBlock) {
        let stale = self.find(block).is_some_and(|block| block.0.lock().newest.is_none());
        if stale {
            self.remove(block);
        }
    }

    /// How many blocks are cached.
    pub(crate) fn len(&self) -> u64 {
        self.cached_blocks.load(Ordering::Relaxed)
    }

    /// All blocks that are newer than the device, by rising number: what a volume without a journal writes home.
    pub(super) fn dirty(&self) -> Vec<MetadataBlock> {
        let mut dirty = Vec::new();
        for shard in &self.shards {
            let entries: Vec<_> = shard.lock().values().map(Arc::clone).collect();
            dirty.extend(
                entries
                    .into_iter()
                    .filter(|entry| entry.lock().newest.is_some())
                    .map(MetadataBlock),
            );
        }
        dirty.sort_by_key(MetadataBlock::number);
        dirty
    }

    /// Notes that version `tid` of the block has reached the device.
    pub(super) fn written_home(&self, block: PhysicalBlock, tid: TransactionId) {
        if let Some(block) = self.find(block) {
            let mut state = block.0.lock();
            if state.newest == Some(tid) {
                state.newest = None;
            }
        }
    }

    /// Drops up to `wanted` clean blocks that nobody holds and nobody has used since the last pass.
    pub(super) fn shrink(&self, wanted: u64) -> u64 {
        let mut dropped = 0;
        for shard in &self.shards {
            if dropped >= wanted {
                break;
            }
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, entry| {
                if dropped >= wanted || Arc::strong_count(entry) > 1 {
                    return true;
                }
                let Some(mut state) = entry.try_lock() else { return true };
                let keep = state.newest.is_some()
                    || !matches!(state.content, Content::Ready(_))
                    || state.referenced;
                state.referenced = false;
                dropped += u64::from(!keep);
                keep
            });
            self.cached_blocks.fetch_sub(u64_from(before - shard.len()), Ordering::Relaxed);
        }
        dropped
    }
}
