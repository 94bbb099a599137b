//! Inodes that a crash must not leave as they are: without a name but still in use, or being cut.
//!
//! # Invariants
//! An orphan is in one place: a slot of the orphan file if the volume has one with a free slot, else the list that starts
//! in the superblock and goes on through `i_dtime`. Without a journal there are none: nothing would find them in order.
//! # Locking
//! `Orphans` (72) around each change. Under it only metadata is read, and that is in memory: the superblock, the orphan
//! file, the inodes of the list.
//! # Not here
//! What is done to an orphan (`file`).
//! # Source
//! Kernel `fs/ext4/orphan.c` (J9). Differs: with one CPU, the search for a free slot starts where the last one ended.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use extant_format::cast::{low_u32, u64_from};
use extant_format::corruption::{Place, Rule};
use extant_format::{
    FileType, InodeNumber, LogicalRange, PhysicalBlock, Superblock, TransactionId, orphan,
};

use crate::Error;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::report::Ineligible;
use crate::sync::{Mutex, Rank};
use crate::transaction::{BlockKind, Change, Credits, Handle, Transactions};

/// The orphans of a volume.
pub(crate) struct Orphans {
    transactions: Arc<Transactions>,
    inodes: Arc<InodeTable>,
    mapper: Arc<Mapper>,
    /// The orphan file's inode, if there is one.
    file: Option<InodeNumber>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The list, its head last.
    list: Vec<InodeNumber>,
    /// Those of the list that are there since this transaction.
    fresh: (TransactionId, BTreeSet<InodeNumber>),
    slots: BTreeMap<InodeNumber, Slot>,
    file: Option<OrphanFile>,
    unused: BTreeSet<InodeNumber>,
}

#[derive(Clone, Copy)]
struct Slot {
    block: usize,
    index: u32,
}

struct OrphanFile {
    seed: u32,
    blocks: Vec<PhysicalBlock>,
    /// Where the next search starts.
    next: usize,
}

impl Orphans {
    /// The orphans of the volume that the others belong to; [`Self::at_mount`] reads them.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        mapper: Arc<Mapper>,
        superblock: &Superblock,
    ) -> Self {
        let state = Mutex::new(Rank::Orphans, State::default());
        Self { transactions, inodes, mapper, file: superblock.orphan_file(), state }
    }

    /// Reads all orphans that an earlier mount has left, newest first; each has to be finished and removed. A list that
    /// goes on with what can be no orphan ends there, and such a slot of the file is passed over.
    ///
    /// # Errors
    /// The rule that the file breaks, or of reading.
    pub(crate) fn at_mount(&self) -> Result<Vec<InodeNumber>, Error> {
        let list = self.read_list()?;
        let (file, slots) = match self.file {
            Some(number) => self.read_file(number)?,
            None => (None, BTreeMap::new()),
        };
        let mut all: Vec<_> = list.iter().rev().copied().collect();
        all.extend(slots.keys().filter(|&&number| !list.contains(&number) && self.may_be(number)));
        *self.state.lock() = State { list, slots, file, ..State::default() };
        Ok(all)
    }

    /// Leaves the orphans of an earlier mount as they are, since the volume has errors: e2fsck knows better. The list begins
    /// anew; slots of the file stay taken.
    ///
    /// # Errors
    /// As [`Self::at_mount`], and of the journal.
    /// # Source
    /// Kernel `ext4_orphan_cleanup`.
    pub(crate) fn abandon(&self) -> Result<(), Error> {
        self.at_mount()?;
        let list = core::mem::take(&mut self.state.lock().list);
        if list.is_empty() {
            return Ok(());
        }
        let mut handle =
            self.transactions.begin(Credits::blocks(1, self.transactions.geometry()))?;
        self.set_head(&mut handle, None)?;
        handle.stop()
    }

    /// Whether there is no orphan: a clean unmount says so in the superblock.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.list.is_empty() && state.slots.is_empty()
    }

    /// Whether the inode is on the list, so that its time of deletion is no time but the next inode's number.
    pub(crate) fn is_listed(&self, inode: InodeNumber) -> bool {
        self.state.lock().list.contains(&inode)
    }

    /// Notes that nobody uses an inode that has lost its last link otherwise than by a name: somebody has to free it.
    pub(crate) fn note_unused(&self, inode: InodeNumber) {
        self.state.lock().unused.insert(inode);
    }

    /// Those that [`Self::note_unused`] has named since the last call, each once however often it was named.
    pub(crate) fn take_unused(&self) -> BTreeSet<InodeNumber> {
        core::mem::take(&mut self.state.lock().unused)
    }

    /// Makes the inode an orphan, and stores it, unless it is one. Up to three blocks change.
    ///
    /// # Errors
    /// Of the handle, or of storing the inode.
    pub(crate) fn add(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        if !handle.is_journaled() {
            return Ok(());
        }
        let number = inode.number();
        let mut state = self.state.lock();
        if state.slots.contains_key(&number) || state.list.contains(&number) {
            return Ok(());
        }
        inode.orphan.store(true, Ordering::Release);
        if let Some(slot) = self.take_slot(handle, &mut state, number)? {
            state.slots.insert(number, slot);
            return Ok(());
        }
        inode.core.lock().dtime = state.list.last().map_or(0, |head| head.get());
        self.set_head(handle, Some(number))?;
        state.list.push(number);
        if state.fresh.0 != handle.transaction_id() {
            state.fresh = (handle.transaction_id(), BTreeSet::new());
        }
        state.fresh.1.insert(number);
        self.inodes.store(handle, inode)
    }

    /// Makes the inode no orphan, and stores it, if it is one. Up to three blocks change.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(crate) fn remove(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        let number = inode.number();
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.remove(&number)
            && let Some(file) = &state.file
        {
            let block = self
                .transactions
                .read(file.blocks[slot.block], BlockKind::OrphanFile(file.seed))?;
            handle.modify(&block, |bytes| orphan::set_slot(bytes, slot.index, None))?;
        } else if let Some(at) = state.list.iter().position(|&listed| listed == number) {
            let next = at.checked_sub(1).map(|next| state.list[next]);
            match state.list.get(at + 1) {
                None => self.set_head(handle, next)?,
                Some(&before) => {
                    let before = self.inodes.get(before)?;
                    before.core.lock().dtime = next.map_or(0, InodeNumber::get);
                    self.inodes.store(handle, &before)?;
                }
            }
            inode.core.lock().dtime = 0;
            self.inodes.store(handle, inode)?;
            state.list.remove(at);
            let is_fresh = state.fresh.1.remove(&number);
            if !is_fresh || state.fresh.0 != handle.transaction_id() {
                // A record of this inode would cut the list that is on disk.
                handle.note(Change::Unrecorded(Ineligible::Unrecordable));
            }
        }
        inode.orphan.store(false, Ordering::Release);
        Ok(())
    }

    /// A slot of the orphan file, taken; `None` if there is none.
    fn take_slot(
        &self,
        handle: &mut Handle<'_>,
        state: &mut State,
        number: InodeNumber,
    ) -> Result<Option<Slot>, Error> {
        let Some(file) = &mut state.file else { return Ok(None) };
        let count = file.blocks.len();
        for at in (file.next..count).chain(0..file.next) {
            let block =
                self.transactions.read(file.blocks[at], BlockKind::OrphanFile(file.seed))?;
            let free = block.with(|bytes| orphan::free_slot(bytes, self.transactions.geometry()));
            if let Some(index) = free {
                handle.modify(&block, |bytes| orphan::set_slot(bytes, index, Some(number)))?;
                file.next = at;
                return Ok(Some(Slot { block: at, index }));
            }
        }
        Ok(None)
    }

    fn set_head(&self, handle: &mut Handle<'_>, head: Option<InodeNumber>) -> Result<(), Error> {
        let geometry = self.transactions.geometry();
        let block = self.transactions.read(geometry.superblock_block(), BlockKind::Superblock)?;
        let at = geometry.superblock_offset() + HEAD_AT;
        let head = head.map_or(0, InodeNumber::get).to_le_bytes();
        handle.modify(&block, |bytes| bytes[at..at + 4].copy_from_slice(&head))
    }

    /// The list on disk, its head last.
    fn read_list(&self) -> Result<Vec<InodeNumber>, Error> {
        let geometry = self.transactions.geometry();
        let block = self.transactions.read(geometry.superblock_block(), BlockKind::Superblock)?;
        let at = geometry.superblock_offset() + HEAD_AT;
        let head = block.with(|bytes| {
            bytes[at..at + 4].first_chunk().map_or(0, |head| u32::from_le_bytes(*head))
        });
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = InodeNumber::new(head);
        while let Some(number) = next.filter(|&number| self.may_be(number) && seen.insert(number)) {
            list.push(number);
            next = InodeNumber::new(self.inodes.get(number)?.core.lock().dtime);
        }
        if list.is_empty() && head != 0 {
            let credits = Credits::blocks(1, geometry);
            self.set_head(&mut self.transactions.begin(credits)?, None)?;
        }
        list.reverse();
        Ok(list)
    }

    /// Whether this can be an orphan: an ordinary inode, in use, and without names unless it can be cut.
    ///
    /// Source: kernel `ext4_orphan_get`.
    fn may_be(&self, number: InodeNumber) -> bool {
        number.get() >= self.transactions.geometry().first_inode
            && self.inodes.get(number).is_ok_and(|inode| {
                let core = inode.core.lock();
                let is_cut =
                    matches!(core.file_type(), Some(FileType::Regular | FileType::Directory));
                core.links == 0 || is_cut
            })
    }

    fn read_file(
        &self,
        number: InodeNumber,
    ) -> Result<(Option<OrphanFile>, BTreeMap<InodeNumber, Slot>), Error> {
        let geometry = self.transactions.geometry();
        let place = Place::Inode(number);
        let inode = self.inodes.get(number)?;
        let count = low_u32(inode.size() / u64_from(geometry.block_len()));
        place.require((1..=orphan::MAX_BLOCKS).contains(&count), Rule::FileSize)?;
        let mut file = OrphanFile { seed: inode.checksum_seed(), blocks: Vec::new(), next: 0 };
        let mut rest = LogicalRange::new(0, count);
        while let Some(range) = rest {
            let run = self.mapper.look_up(&inode, range)?;
            let start = run.state.place().ok_or_else(|| place.breaks(Rule::OrphanList))?;
            file.blocks
                .extend((0..u64::from(run.blocks.len())).filter_map(|i| start.checked_add(i)));
            rest = run
                .blocks
                .last()
                .checked_add(1)
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        let mut slots = BTreeMap::new();
        for (at, &number) in file.blocks.iter().enumerate() {
            let block = self.transactions.read(number, BlockKind::OrphanFile(file.seed))?;
            block.with(|bytes| {
                let used = orphan::used_slots(bytes, geometry);
                slots.extend(used.map(|(index, inode)| (inode, Slot { block: at, index })));
            });
        }
        Ok((Some(file), slots))
    }
}

/// Where the superblock has the head of the list.
const HEAD_AT: usize = 0xE8;
