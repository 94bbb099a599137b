//! Inodes in and out of their table blocks, and the table of those in memory; `inline.rs`: contents that lie in the inode.
//!
//! # Invariants
//! At most one [`Inode`] a number is in memory. What is stored is what `Inode::core` holds, so a handle that changed
//! the core calls [`InodeTable::store`] before it stops.
//! # Locking
//! The table's shards are leaves. `store` holds the inode's `core` while it changes the table block.
//! # Not here
//! Which number a new inode gets (`allocator`); what happens to the blocks of one that goes (`file`).
//! # Source
//! Kernel `fs/ext4/inode.c`: `__ext4_iget`, `ext4_do_update_inode`, `ext4_mark_iloc_dirty`; `inline.c`.

mod inline;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::inode::{self, InodeFlags, InodeRecord};
use extant_format::{FileType, Geometry, Incompat, InodeNumber, PhysicalBlock};

use crate::Error;
use crate::extent_status::{ExtentStatusTree, StatusAccount, StatusCounts};
use crate::inode::Inode;
use crate::page_cache::{BlockSize, CacheAccount, PageCache};
use crate::report::Ineligible;
use crate::sync::{Mutex, Rank, assert_held};
use crate::trace::{Event, HandleType};
use crate::transaction::{BlockKind, Change, Credits, Handle, MetadataBlock, Transactions};

const SHARDS: u32 = 16;

/// The inodes of a volume.
pub(crate) struct InodeTable {
    transactions: Arc<Transactions>,
    account: Arc<CacheAccount>,
    status: Arc<StatusAccount>,
    /// Where each group's table starts.
    tables: Vec<PhysicalBlock>,
    shards: Vec<Mutex<Shard>>,
    /// Inodes in memory.
    count: AtomicUsize,
    /// From how many on it is worth looking for unused ones.
    shrink_at: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    inodes: BTreeMap<InodeNumber, Arc<Inode>>,
    /// Goes up with each removal: what was read before may be old.
    removals: u64,
}

impl InodeTable {
    /// The table of a volume whose groups' tables start at `tables`.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        account: Arc<CacheAccount>,
        status: Arc<StatusAccount>,
        tables: Vec<PhysicalBlock>,
    ) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Rank::Leaf, Shard::default())).collect();
        Self {
            transactions,
            account,
            status,
            tables,
            shards,
            count: AtomicUsize::new(0),
            shrink_at: AtomicUsize::new(0),
        }
    }

    fn geometry(&self) -> &Geometry {
        self.transactions.geometry()
    }

    fn shard(&self, number: InodeNumber) -> &Mutex<Shard> {
        &self.shards[usize_from(number.get() % SHARDS)]
    }

    /// The inode, from memory or from its table.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is not in use, [`Error::Corrupt`] if it breaks a rule or its checksum is wrong.
    pub(crate) fn get(&self, number: InodeNumber) -> Result<Arc<Inode>, Error> {
        loop {
            let removals = {
                let shard = self.shard(number).lock();
                if let Some(inode) = shard.inodes.get(&number) {
                    return Ok(Arc::clone(inode));
                }
                shard.removals
            };
            let fresh = self.read(number)?;
            let mut shard = self.shard(number).lock();
            if shard.removals == removals {
                let inode = shard.inodes.entry(number).or_insert_with(|| {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    fresh
                });
                return Ok(Arc::clone(inode));
            }
        }
    }

    /// What all status trees hold and were asked.
    pub(crate) fn status_counts(&self) -> StatusCounts {
        self.status.counts()
    }

    /// The inode if it is in memory.
    pub(crate) fn find(&self, number: InodeNumber) -> Option<Arc<Inode>> {
        self.shard(number).lock().inodes.get(&number).map(Arc::clone)
    }

    fn read(&self, number: InodeNumber) -> Result<Arc<Inode>, Error> {
        let (record, seed) = self.with_bytes(number, |bytes| {
            let geometry = self.geometry();
            let seed = inode::seed_of(bytes, geometry, number);
            let at = Place::Inode(number);
            let is_free = bytes.iter().all(|&byte| byte == 0);
            if geometry.has_metadata_csum() && !is_free {
                at.require(inode::verify_checksum(bytes, seed), Rule::Checksum)?;
            }
            Ok::<_, Error>((InodeRecord::decode(bytes, geometry, number)?, seed))
        })??;
        if record.file_type().is_none()
            || (record.links == 0 && record.dtime != 0 && !self.may_be_orphan(&record))
        {
            return Err(Error::Stale(number));
        }
        self.transactions.tracer().emit(|| Event::LoadInode { ino: number });
        let inode = self.new_inode(number, seed, record);
        // What a transaction still under way has changed of it is not known any more: fsync has to assume that it did.
        if let Some(tid) = self.transactions.newest_transaction() {
            inode.note_transaction(tid, true);
        }
        Ok(Arc::new(inode))
    }

    /// An inode without links is in use only while it waits for its last close, and then `dtime` is a link of the
    /// orphan list: a number of an inode, not a time.
    fn may_be_orphan(&self, record: &InodeRecord) -> bool {
        record.dtime <= self.geometry().inodes_count
    }

    fn new_inode(&self, number: InodeNumber, seed: u32, record: InodeRecord) -> Inode {
        let block_size =
            BlockSize::new(self.geometry().block_bits).expect("a checked superblock has no other");
        let pages = PageCache::new(Arc::clone(&self.account), block_size);
        let status = ExtentStatusTree::of(number, Arc::clone(&self.status));
        let is_inline = record.flags.contains(InodeFlags::INLINE_DATA);
        let inode = Inode::new(number, seed, record, pages, status);
        inode.set_may_inline(is_inline);
        inode
    }

    /// Puts a new inode into memory and into its table. If it `is_alone` in its table block, the block is not read.
    ///
    /// # Errors
    /// Of reading the table block. The number must come from the allocator in the same handle.
    /// # Source
    /// Kernel `fs/ext4/inode.c`, `__ext4_get_inode_loc`.
    pub(crate) fn create(
        &self,
        handle: &mut Handle<'_>,
        number: InodeNumber,
        record: InodeRecord,
        is_alone: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<Arc<Inode>, Error> {
        let seed = inode::inode_seed(self.geometry().csum_seed, number, record.generation);
        let may_inline = self.geometry().incompat.contains(Incompat::INLINE_DATA)
            && !record.flags.contains(InodeFlags::EA_INODE);
        let fresh = Arc::new(self.new_inode(number, seed, record));
        fresh.set_may_inline(may_inline);
        fresh.has_no_capability.store(true, Ordering::Relaxed);
        let (block, offset) = self.location(number)?;
        let block = self.transactions.read_unless(block, BlockKind::InodeTable, is_alone)?;
        let inode_size = usize_from(self.geometry().inode_size);
        handle.modify(&block, |bytes| bytes[offset..offset + inode_size].fill(0))?;
        self.store(handle, &fresh)?;
        let mut shard = self.shard(number).lock();
        shard.removals += 1;
        if shard.inodes.insert(number, Arc::clone(&fresh)).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(fresh)
    }

    /// Copies the inode's attributes into its table block: one credit.
    ///
    /// # Errors
    /// Of reading the table block, or a value that the image's features cannot hold.
    /// # Source
    /// Kernel `ext4_mark_inode_dirty`.
    pub(crate) fn store(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        self.transactions.tracer().emit(|| Event::MarkInodeDirty { ino: inode.number() });
        self.store_quietly(handle, inode)
    }

    /// As [`Self::store`], where the kernel has the table block at hand and tells nothing.
    ///
    /// # Errors
    /// As [`Self::store`].
    /// # Source
    /// Kernel `ext4_mark_iloc_dirty`.
    fn store_quietly(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        let (block, offset) = self.place(inode.number())?;
        let geometry = self.geometry();
        let inode_size = usize_from(geometry.inode_size);
        self.note(handle, inode);
        let record = inode.core.lock();
        let encoded = handle.modify(&block, |bytes| {
            let bytes = &mut bytes[offset..offset + inode_size];
            let encoded = record.encode(bytes, geometry);
            if geometry.has_metadata_csum() {
                inode::set_checksum(bytes, inode.checksum_seed());
            }
            encoded
        })?;
        encoded.map_err(|_| Error::TooLarge)
    }

    /// Stores the inode after a change that the kernel tells the VFS of, which takes a handle within the handle: of the
    /// count of blocks, or of the size of inline contents.
    ///
    /// # Errors
    /// As [`Self::store`].
    /// # Source
    /// Kernel `ext4_dirty_inode`, by way of `mark_inode_dirty`.
    pub(crate) fn store_nested(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        handle.nest(Credits::blocks(2, self.geometry()).of(HandleType::Inode, inode.number()));
        self.store(handle, inode)
    }

    /// Looks at the inode's bytes in its table, attributes inside the inode included.
    pub(crate) fn with_raw<R>(
        &self,
        inode: &Inode,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        self.with_bytes(inode.number(), look)
    }

    /// Changes what `Inode::core` does not hold: attributes and inline data inside the inode.
    pub(crate) fn modify_raw<R>(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, Error> {
        assert_held(Rank::Attributes);
        let (block, offset) = self.place(inode.number())?;
        let geometry = self.geometry();
        let inode_size = usize_from(geometry.inode_size);
        self.note(handle, inode);
        handle.modify(&block, |bytes| {
            let bytes = &mut bytes[offset..offset + inode_size];
            let result = change(bytes);
            if geometry.has_metadata_csum() {
                inode::set_checksum(bytes, inode.checksum_seed());
            }
            result
        })
    }

    /// Notes that the inode changes: of a file with extents, or inline data, a fast commit tells; a directory's names are noted by
    /// themselves.
    ///
    /// Source: kernel `ext4_fc_track_inode`, `ext4_should_journal_data`.
    pub(crate) fn note(&self, handle: &Handle<'_>, inode: &Inode) {
        let again = inode.note_transaction(handle.transaction_id(), false);
        if !handle.notes_changes() {
            return;
        }
        let (file_type, flags) = {
            let core = inode.core.lock();
            (core.file_type(), core.flags)
        };
        let number = inode.number();
        let is_journaled = flags.intersects(InodeFlags::JOURNAL_DATA | InodeFlags::EA_INODE);
        handle.note(match file_type {
            Some(FileType::Directory) => return,
            Some(FileType::Regular) if !is_journaled => {
                let is_told = flags.intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA);
                match is_told && number.get() >= self.geometry().first_inode {
                    true => Change::Inode { inode: number, again },
                    false => Change::Unrecorded(Ineligible::Unrecordable),
                }
            }
            _ => Change::Unrecorded(Ineligible::JournaledData),
        });
    }

    /// Takes the inode out of memory if nobody but the table and the caller holds it.
    pub(crate) fn drop_unused(&self, inode: &Arc<Inode>) -> bool {
        let mut shard = self.shard(inode.number()).lock();
        let unused = Arc::strong_count(inode) <= 2;
        if unused {
            shard.removals += 1;
            if shard.inodes.remove(&inode.number()).is_some() {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        unused
    }

    /// Takes a deleted inode out of memory; its number may be used again.
    pub(crate) fn forget(&self, inode: &Arc<Inode>) {
        let mut shard = self.shard(inode.number()).lock();
        if shard.inodes.get(&inode.number()).is_some_and(|known| Arc::ptr_eq(known, inode)) {
            shard.removals += 1;
            shard.inodes.remove(&inode.number());
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes inodes out of memory that nobody uses and that have nothing to be written, if there are more than `limit`.
    pub(crate) fn shrink_to(&self, limit: usize) {
        let count = self.count.load(Ordering::Relaxed);
        if count <= limit.max(self.shrink_at.load(Ordering::Relaxed)) {
            return;
        }
        self.shrink();
        // Those that stay are in use: looking at them again at once would bring nothing.
        let left = self.count.load(Ordering::Relaxed);
        self.shrink_at.store(left + left / 2, Ordering::Relaxed);
    }

    fn shrink(&self) {
        for shard in &self.shards {
            let unused: Vec<_> = {
                let shard = shard.lock();
                shard
                    .inodes
                    .values()
                    .filter(|inode| Arc::strong_count(inode) == 1)
                    .map(Arc::clone)
                    .collect()
            };
            for inode in unused.iter().filter(|inode| inode.pages.dirty_blocks() == 0) {
                // Whoever has found it meanwhile holds a share, and keeps it here.
                self.drop_unused(inode);
            }
        }
    }

    /// All inodes in memory, by rising number.
    pub(crate) fn in_memory(&self) -> Vec<Arc<Inode>> {
        let mut all: Vec<_> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().inodes.values().map(Arc::clone));
        }
        all.sort_by_key(|inode| inode.number());
        all
    }

    fn with_bytes<R>(
        &self,
        number: InodeNumber,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        let (block, offset) = self.place(number)?;
        let inode_size = usize_from(self.geometry().inode_size);
        Ok(block.with(|bytes| look(&bytes[offset..offset + inode_size])))
    }

    /// The table block that holds the inode, and where in it.
    fn place(&self, number: InodeNumber) -> Result<(MetadataBlock, usize), Error> {
        let (block, offset) = self.location(number)?;
        Ok((self.transactions.read(block, BlockKind::InodeTable)?, offset))
    }

    fn location(&self, number: InodeNumber) -> Result<(PhysicalBlock, usize), Error> {
        let geometry = self.geometry();
        let (group, index) = geometry.inode_place(number).ok_or(Error::Stale(number))?;
        let table = *self.tables.get(usize_from(group.get())).ok_or(Error::Stale(number))?;
        Ok(geometry.inode_location(table, index))
    }
}
