//! Files whose data is journaled: a write is part of the transaction that its blocks' places are.
//!
//! Their folios have a page, or a block if that is larger, so that a handle needs few credits and little is copied when a
//! block changes that a commit holds. Dirty means: the transaction that has the bytes may not have committed. Writeback
//! commits it; going home is the journal's affair.
//!
//! Source: kernel `ext4_write_begin`, `ext4_journalled_write_end`, `ext4_change_inode_journal_flag` (D2.1 to D2.5, D14).

use alloc::sync::Arc;
use core::ops::Range;

use extant_device::FrameSlice;
use extant_format::cast::{u64_from, usize_from};
use extant_format::corruption::{Place, Rule};
use extant_format::{InodeFlags, PhysicalBlock};

use super::Files;
use super::source::{Got, Piece, Source, Wrote};
use super::store::put_stored;
use crate::Error;
use crate::caller::Caller;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::page_cache::{Folio, LockedFolio, MAX_ORDER, PageIndex};
use crate::report::Ineligible;
use crate::transaction::{Change, Handle, JournaledData};
use crate::writeback::{OrderedFile, Purpose};

/// A block of a folio that a transaction waits to log.
struct FolioBlock {
    folio: Arc<Folio>,
    block: usize,
}

impl JournaledData for FolioBlock {
    fn share(&self) -> FrameSlice {
        self.folio.share(self.block)
    }
}

impl Files {
    /// How large a file's folios may be, as log2 of pages; one that holds a block may be larger (D2.5).
    pub(super) fn max_order(&self, inode: &Inode) -> u32 {
        if self.mapper.journals_data(inode) { 0 } else { MAX_ORDER }
    }

    /// Bytes of the largest folio that a file has.
    pub(super) fn max_folio_bytes(&self, inode: &Inode) -> u64 {
        (4096 << self.max_order(inode)).max(u64::from(self.geometry().block_size))
    }

    /// Blocks of data that a write into one folio makes part of its transaction: those of the folio, and the two at the edges
    /// of a gap before it; none where data is not journaled.
    pub(super) fn journaled_blocks(&self, inode: &Inode) -> u32 {
        if !self.mapper.journals_data(inode) {
            return 0;
        }
        let blocks = self.max_folio_bytes(inode) >> self.geometry().block_bits;
        u32::try_from(blocks).expect("a page has at most four blocks") + 2
    }

    /// Writes as much of `piece` as one folio takes, all in one handle.
    pub(super) fn write_journaled<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
    ) -> Result<Wrote, Error> {
        let mut handle = self.transactions.begin(self.write_credits(inode, 1).by(caller))?;
        let folio = inode.pages.find_or_create(PageIndex::holding(at), 1, 0);
        let wanted = at..at + u64_from(piece.len());
        let prepared = self.prepare_placed(&mut handle, inode, &folio, &wanted);
        let prepared = prepared.and_then(|part| {
            let got = piece.get(&folio, &part);
            self.journal_got(&mut handle, inode, &folio, &part, &got)?;
            Ok((part, got))
        });
        match prepared {
            Ok((part, got)) => self.end_placed(handle, inode, folio, &part, got),
            Err(error) => {
                self.journal_new(handle, inode, &folio, &wanted)?;
                Err(self.undo_failed(inode, folio, &wanted, error))
            }
        }
    }

    /// Makes the blocks that a write of `part` changes part of the handle's transaction: those that get bytes, and of the rest
    /// the new ones, which become zeros. Others may not be valid, and the journal would bring home whatever their frames hold.
    ///
    /// # Errors
    /// As [`Self::journal_blocks`].
    fn journal_got(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        folio: &LockedFolio,
        part: &Range<usize>,
        got: &Got<'_>,
    ) -> Result<(), Error> {
        let (filled, rest) = (got.filled(part), got.rest(part));
        if !filled.is_empty() {
            self.journal_blocks(handle, inode, folio, &filled)?;
        }
        if !rest.is_empty() {
            for run in folio.new_runs(&rest) {
                self.journal_blocks(handle, inode, folio, &folio.shape().bytes_of(&run))?;
            }
        }
        Ok(())
    }

    /// A store through a mapping: all blocks of the folio up to the end of file become part of the transaction (D19.2).
    /// `None`: the folio was dropped, and has to be read again, or not all of it has got its place yet.
    ///
    /// Source: kernel `ext4_page_mkwrite`, `ext4_journal_folio_buffers`.
    pub(super) fn store_journaled(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Option<usize>, Error> {
        let _invalidate = inode.invalidate.read();
        let mut handle = self.transactions.begin(self.write_credits(inode, 1).by(caller))?;
        let Some((folio, part)) = self.folio_to_store(inode, offset)? else { return Ok(None) };
        let all = folio.shape().start()..folio.shape().start() + u64_from(part.end);
        let prepared = self.prepare_placed(&mut handle, inode, &folio, &all);
        let prepared = prepared.and_then(|placed| {
            self.journal_blocks(&mut handle, inode, &folio, &placed)?;
            Ok(placed)
        });
        let placed = match prepared {
            Ok(placed) => placed,
            Err(error) => {
                self.journal_new(handle, inode, &folio, &all)?;
                drop(folio);
                self.writeback.note_dirty(inode);
                return Err(error);
            }
        };
        if placed.end < part.end {
            // As in `store_placed`: what has its place keeps it.
            folio.commit_write(&placed);
            drop(folio);
            self.writeback.note_dirty(inode);
            inode.note_transaction(handle.transaction_id(), true);
            handle.stop()?;
            return Ok(None);
        }
        let count = put_stored(&folio, &part, offset, bytes);
        drop(folio);
        self.writeback.note_dirty(inode);
        handle.order(OrderedFile::new(self.writeback.own(), inode), all);
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        Ok(Some(count))
    }

    /// What a write that failed has given a place becomes zeros, in the transaction that has the places (D8.8).
    ///
    /// Source: kernel `ext4_journalled_zero_new_buffers`.
    pub(super) fn journal_new(
        &self,
        mut handle: Handle<'_>,
        inode: &Inode,
        folio: &LockedFolio,
        bytes: &Range<u64>,
    ) -> Result<(), Error> {
        let part = folio.shape().part_of(bytes);
        for run in folio.new_runs(&part) {
            let run = folio.shape().bytes_of(&run);
            if let Err(error) = self.journal_blocks(&mut handle, inode, folio, &run) {
                return Err(handle.fail(error));
            }
        }
        folio.zero_new(&part);
        handle.stop()
    }

    /// Turns the journaling of a file's data on or off: all of its data goes home first, and out of memory, and after it is
    /// turned off nothing of it may be left in the log, which a recovery would write over what comes then.
    ///
    /// # Errors
    /// Of the device or the journal; nothing has changed then.
    /// # Locks
    /// The caller holds `content` for writing; takes `invalidate`.
    /// # Source
    /// Kernel `ext4_change_inode_journal_flag`.
    pub(crate) fn set_journal_data(&self, inode: &Arc<Inode>, on: bool) -> Result<(), Error> {
        if !self.transactions.is_journaled() {
            return Ok(());
        }
        self.transactions.check_writable()?;
        let set = || inode.core.lock().flags.set(InodeFlags::JOURNAL_DATA, on);
        {
            let _invalidate = inode.invalidate.write();
            self.writeback.write_inode(inode, 0..u64::MAX, Purpose::Integrity)?;
            self.drop_bytes(inode, 0..u64::MAX);
            if on { set() } else { self.transactions.with_empty_log(set)? }
        }
        let mut handle = self.begin_store(inode, 1)?;
        handle.note(Change::Unrecorded(Ineligible::JournalFlag));
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.set_sync();
        handle.stop()
    }

    /// Makes the blocks that `bytes` touch, which have a place, part of the handle's transaction: before they change.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the handle has too few credits.
    /// # Source
    /// Kernel `do_journal_get_write_access`, `ext4_journal_folio_buffers`.
    pub(super) fn journal_blocks(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        folio: &LockedFolio,
        bytes: &Range<usize>,
    ) -> Result<(), Error> {
        let mut blocks = folio.shape().touched(bytes);
        // Before the first is filed: whoever cleans the folio must know that it is newer than that.
        folio.note_journaled(handle.transaction_id());
        while !blocks.is_empty() {
            let range = folio.shape().file_blocks(&blocks);
            let mapped = self.mapper.look_up_again(inode, range)?;
            let BlockState::Written(start) = mapped.state else {
                let at = Place::InodeBlock(
                    inode.number(),
                    mapped.state.place().unwrap_or(PhysicalBlock::new(0)),
                );
                return Err(at.breaks(Rule::ExtentPlace).into());
            };
            let len = usize_from(mapped.blocks.len()).min(blocks.len());
            for (nth, block) in (0..).zip(blocks.start..blocks.start + len) {
                let place = start.checked_add(nth).expect("the mapper checks places");
                let data = FolioBlock { folio: Arc::clone(folio.folio()), block };
                handle.journal(place, Arc::new(data))?;
            }
            blocks.start += len;
        }
        Ok(())
    }
}
