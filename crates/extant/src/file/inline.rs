//! Files whose bytes live inside their inode: written there as long as they fit, then moved out into blocks.
//!
//! A delayed write moves them out of memory's way only: the first block becomes delayed while the copy in the inode stays,
//! and writeback drops that copy in the transaction that gives the block its place (`writeback`). Whoever needs blocks at
//! once has the bytes moved at once.
//!
//! Source: kernel `fs/ext4/inline.c`: `ext4_generic_write_inline_data`, `ext4_write_inline_data_end`,
//! `ext4_da_convert_inline_data_to_extent`, `ext4_convert_inline_data`, `ext4_inline_data_truncate` (D6).
//! Differs: a block that the bytes are moved to at once is written from the start and ordered before the commit; the
//! kernel puts it into the journal, or, for want of space, leaves it unwritten, and then a crash loses bytes that were
//! synced. If no block is to be had, the bytes stay where they are; the kernel drops them.

use alloc::sync::Arc;
use alloc::vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use extant_format::cast::u64_from;
use extant_format::{LogicalBlock, LogicalRange};

use super::Files;
use super::source::{Piece, Source, Wrote};
use super::write::{Delays, privilege};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::page_cache::{BlockFlags, LockedFolio, PageIndex};
use crate::trace::HandleType;
use crate::transaction::Credits;
use crate::writeback::{Ending, OrderedFile};

impl Files {
    /// Writes `piece` into the inode, if all of it fits. `None`: it belongs into blocks, and what is in the inode does
    /// not stand in the way any more (D6.1, D6.4).
    ///
    /// # Errors
    /// [`Error::NoSpace`] if what has to make room finds none; nothing has changed then.
    /// # Locks
    /// The caller holds `content` for writing.
    pub(super) fn write_in_inode<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
        delays: Delays,
    ) -> Result<Option<Wrote>, Error> {
        let index = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
        let end = index(at.saturating_add(u64_from(piece.len())));
        if delays == Delays::No && end > self.inodes.inline_capacity(inode)? {
            return self.try_move_out(caller, inode).map(|()| None);
        }
        let mut handle = self.begin_store(inode, 1)?;
        if !self.inodes.make_inline(&mut handle, inode, end)? {
            handle.stop()?;
            match delays {
                Delays::Yes => self.delay_contents(caller, inode)?,
                Delays::No => self.try_move_out(caller, inode)?,
            }
            return Ok(None);
        }
        let folio = first_folio(inode);
        if !inode.keeps_contents() {
            // A store through a mapping came in between.
            drop(folio);
            return handle.stop().map(|()| None);
        }
        self.fill_first_folio(inode, &folio)?;
        let (size, part) = (inode.size(), index(at)..end);
        let got = piece.get(&folio, &part);
        let (filled, wrote) = (got.filled(&part), got.wrote(&part));
        got.put_bytes(&folio, &part);
        if !filled.is_empty() {
            // What lies between is zeros in memory, whatever the inode holds behind the end of file.
            let from = index(at.min(size));
            let mut changed = vec![0; filled.end - from];
            folio.copy_to(from, &mut changed);
            self.inodes.write_inline(&mut handle, inode, from, &changed)?;
            if u64_from(filled.end) > size {
                inode.set_size(u64_from(filled.end));
                inode.core.lock().size = u64_from(filled.end);
            }
        }
        self.tell_written(inode, at, part.len(), wrote.copied(), delays == Delays::Yes);
        drop(folio);
        self.inodes.store_nested(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        if filled.len() < part.len() && u64_from(end) > inode.size() {
            // Room in the inode behind the end of file does no harm until it is cut, so the kernel's orphan is left out.
            let _ = self.truncate_failed_write(inode);
        }
        Ok(Some(wrote))
    }

    /// Makes the contents delayed in the first block. Until that is written, the copy in the inode is what a crash leaves
    /// (D6.2).
    fn delay_contents(&self, caller: &Caller, inode: &Arc<Inode>) -> Result<(), Error> {
        let folio = first_folio(inode);
        let Some(room) = self.fill_first_folio(inode, &folio)? else {
            inode.set_may_inline(false);
            return Ok(());
        };
        let part = 0..room;
        self.prepare(inode, &folio, &part, |range| {
            self.mapper.delay(inode, range, privilege(caller))
        })?;
        folio.commit_write(&part);
        inode.set_may_inline(false);
        drop(folio);
        self.writeback.note_dirty(inode);
        Ok(())
    }

    /// Sees to it that the bytes are in blocks, and stay there: for whoever changes blocks (D6.5). If they were on their way
    /// there already, nobody waits for the end of that, which is returned.
    ///
    /// # Errors
    /// [`Error::NoSpace`], of the device; the bytes are where they were then.
    /// # Locks
    /// None may be held of rank 45 or more.
    pub(super) fn leave_inode(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
    ) -> Result<Option<Ending<'_>>, Error> {
        let mut ending = None;
        if !inode.may_inline() && !inode.is_inline() {
            return Ok(ending);
        }
        while !self.inodes.forbid_inline(inode) {
            if inode.may_inline() || inode.pages.dirty_blocks() == 0 {
                let knew_blocks = first_folio(inode).knows_blocks();
                self.move_out(caller, inode)?;
                if !self.mapper.journals_data(inode) {
                    self.writeback.write_moved(inode)?;
                }
                first_folio(inode).forget_first(knew_blocks);
            } else {
                // They are on their way.
                ending = Some(self.writeback.start_inode(inode)?);
            }
        }
        Ok(ending)
    }

    /// Moves the bytes into the first block at once, unless somebody has begun to. The commit waits for the block, so that
    /// they are in one place or the other after a crash.
    fn move_out(&self, caller: &Caller, inode: &Arc<Inode>) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            match self.try_move_out(caller, inode) {
                Err(error) if error.is_no_space() => {
                    self.wait_for_space(privilege(caller), error, &mut attempt)?
                }
                outcome => return outcome,
            }
        }
    }

    fn try_move_out(&self, caller: &Caller, inode: &Arc<Inode>) -> Result<(), Error> {
        let blocks = self.mapper.credits(inode, 1) + self.journaled_blocks(inode) + 1;
        let credits = Credits::blocks(blocks, self.geometry());
        let credits = credits.of(HandleType::WritePage, inode.number()).by(caller);
        let mut handle = self.transactions.begin(credits)?;
        let folio = first_folio(inode);
        let may_stay = inode.may_inline();
        let is_delayed = folio.flags(0).contains(BlockFlags::DELAY);
        if is_delayed || self.fill_first_folio(inode, &folio)?.is_none() {
            inode.set_may_inline(false);
            drop(folio);
            return handle.stop();
        }
        let Some(copy) = self.inodes.drop_inline(&mut handle, inode)? else {
            drop(folio);
            return handle.stop();
        };
        // As the kernel, a whole block of the transaction's data.
        let block = u64::from(self.geometry().block_size);
        let part = 0..copy.len();
        let map = |range| self.mapper.map(&mut handle, inode, range, MapFlags::CREATE);
        if let Err(error) = self.prepare(inode, &folio, &part, map) {
            let restored = self.inodes.restore_inline(&mut handle, inode, &copy);
            inode.set_may_inline(may_stay);
            return Err(match restored {
                Ok(()) => handle.stop().err().unwrap_or(error),
                Err(lost) => {
                    self.transactions.abort(&lost, "inline data could not be put back");
                    lost
                }
            });
        }
        if inode.size() == 0 {
            inode.is_bare.store(true, Ordering::Release);
        }
        let journals = self.mapper.journals_data(inode);
        if journals && let Err(error) = self.journal_blocks(&mut handle, inode, &folio, &part) {
            return Err(handle.fail(error));
        }
        folio.commit_write(&part);
        drop(folio);
        if !journals {
            handle.order(OrderedFile::new(self.writeback.own(), inode), 0..block);
        }
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        self.writeback.note_dirty(inode);
        Ok(())
    }

    /// Makes the first folio valid with the contents of the inode, and says how many bytes these have room for; `None` if
    /// the inode does not hold them.
    fn fill_first_folio(&self, inode: &Inode, folio: &LockedFolio) -> Result<Option<usize>, Error> {
        let Some(bytes) = self.inodes.find_inline(inode)? else { return Ok(None) };
        let size = usize::try_from(inode.size()).unwrap_or(usize::MAX).min(bytes.len());
        for run in folio.missing(&(0..folio.shape().bytes())) {
            put(folio, run, &bytes[..size]);
        }
        Ok(Some(bytes.len()))
    }

    /// Makes a folio valid if the file's bytes are in the inode, and says whether they are: the first has them, the others are holes
    /// but for what was written to them since.
    ///
    /// # Errors
    /// Of reading the inode.
    /// # Source
    /// Kernel `ext4_readpage_inline`. Differs: there a page that has newer bytes in part loses them.
    pub(super) fn fill_from_inode(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
    ) -> Result<bool, Error> {
        if !inode.is_inline() {
            return Ok(false);
        }
        if folio.shape().index() != PageIndex::ZERO {
            for run in folio.missing(&(0..folio.shape().bytes())) {
                folio.fill_hole(run);
            }
            return Ok(true);
        }
        self.fill_first_folio(inode, folio).map(|room| room.is_some())
    }

    /// Cuts what lies in the inode, and what memory has of its newer form, to the file's size (D6.6); `false` if it does not
    /// lie there any more, and the blocks are to be cut.
    ///
    /// # Errors
    /// Of reading the inode; [`Error::Corrupt`].
    /// # Locks
    /// The caller holds `content` and `invalidate` for writing, and has cut the folios.
    /// # Source
    /// Kernel `ext4_inline_data_truncate`, which gives back the promise for the first block too, if the contents are moving
    /// out and some of the old are cut; should there be no space for that block then, the inode keeps them. Differs: if none are cut,
    /// the kernel leaves blocks behind the new end promised, too.
    pub(super) fn cut_in_inode(&self, inode: &Arc<Inode>) -> Result<bool, Error> {
        let credits = Credits::blocks(self.mapper.credits(inode, 1), self.geometry());
        let mut handle = self.transactions.begin(credits.of(HandleType::Inode, inode.number()))?;
        let size = inode.size();
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        let room = self.inodes.find_inline(inode)?.map_or(0, |bytes| bytes.len());
        if !self.inodes.cut_inline(&mut handle, inode, len)? {
            return handle.stop().map(|()| false);
        }
        if size == 0 {
            inode.allocate_on_close.store(true, Ordering::Release);
        }
        if !inode.may_inline() {
            // What is cut of the copy in the inode must not come back from blocks that are newer.
            let cuts = len < room;
            let kept = if cuts { 0 } else { size.div_ceil(self.geometry().block_size.into()) };
            let first = u32::try_from(kept).ok().and_then(LogicalBlock::new);
            let gone = first.map(LogicalRange::from_block_on);
            let is_promised = |gone: &LogicalRange| inode.status.lock().has_delayed(*gone);
            if let Some(gone) = gone.filter(|gone| cuts || is_promised(gone)) {
                self.mapper.forget_delayed(inode, gone);
            }
        }
        if inode.core.lock().links > 0 {
            self.orphans.remove(&mut handle, inode)?;
        }
        inode.set_changed(self.transactions.clock().wall());
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop().map(|()| true)
    }
}

/// The folio that contents of an inode are seen through.
fn first_folio(inode: &Inode) -> LockedFolio {
    inode.pages.find_or_create(PageIndex::ZERO, 1, 0)
}

/// Puts the part of `contents` that belongs there into blocks of the first folio, none of which was valid; zeros follow.
fn put(folio: &LockedFolio, blocks: Range<usize>, contents: &[u8]) {
    let mut rest = contents.get(folio.shape().bytes_of(&blocks).start..).unwrap_or_default();
    let mut frames = folio.read_frames(&blocks);
    for frame in &mut frames {
        let room = frame.make_mut();
        let (part, behind) = rest.split_at(rest.len().min(room.len()));
        room[..part.len()].copy_from_slice(part);
        room[part.len()..].fill(0);
        rest = behind;
    }
    folio.read_done(blocks, frames);
}
