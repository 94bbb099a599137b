//! Writing: into the cache with promised space, or with space allocated at once.
//!
//! Source: kernel `ext4_buffered_write_iter`, `ext4_da_write_begin`, `ext4_da_write_end`, `ext4_write_begin`,
//! `ext4_write_end` (D3, D5, D13, D14).

use alloc::sync::Arc;
use core::ops::Range;

use extant_format::LogicalRange;
use extant_format::cast::u64_from;

use super::Files;
use super::source::{Got, Piece, Source, Wrote};
use crate::Error;
use crate::caller::Caller;
use crate::delayed::{AfterNoSpace, Privilege, WriteMode};
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::{MapFlags, Mapped};
use crate::page_cache::{BlockFlags, Folio, LockedFolio, MAX_ORDER, PAGE_BYTES, PageIndex};
use crate::trace::{Event, HandleType};
use crate::transaction::{Credits, Handle};
use crate::writeback::{Ending, OrderedFile};

/// How coarse the kernel's clock for timestamps is; finer changes are not worth a transaction.
const TIME_GRANULARITY_NANOS: u32 = 4_000_000;

/// Whether data waits for its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Delays {
    Yes,
    No,
}

/// Whether the flags of a file have a say in a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flags {
    /// What is immutable is not written, what is append-only at its end.
    Count,
    /// They did when the bytes were accepted, by a cache of the caller's own, which brings them now.
    Passed,
}

impl Files {
    /// Writes what `source` has from `offset` on, or at the end of the file. Returns how many bytes went in.
    ///
    /// # Errors
    /// Only if nothing went in: [`Error::NoSpace`], [`Error::TooLarge`], [`Error::NotPermitted`], [`Error::SourceFailed`], of the
    /// device.
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn write<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        source: &mut S,
        flags: Flags,
    ) -> Result<usize, Error> {
        self.write_piece(caller, inode, offset, Piece::all(source), flags)
    }

    /// The same for a part of them.
    pub(super) fn write_piece<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        mut piece: Piece<'_, S>,
        flags: Flags,
    ) -> Result<usize, Error> {
        self.transactions.check_writable()?;
        let _content = inode.content.write();
        let start = offset.unwrap_or(inode.size());
        if flags == Flags::Count {
            self.may_write(inode, start)?;
        }
        if piece.len() == 0 {
            return Ok(0);
        }
        let room = self.max_bytes(inode).saturating_sub(start);
        if room == 0 {
            return Err(Error::TooLarge);
        }
        let piece = piece.part(0..usize::try_from(room).unwrap_or(usize::MAX));
        self.note_written(inode, caller)?;
        self.write_chunks(caller, inode, start, piece)
    }

    /// Writes folio by folio. Where the source has too few bytes for a folio, exactly these are tried next, and then it is asked
    /// to make more present, while no folio is locked (D3.4 to D3.6).
    ///
    /// Source: kernel `generic_perform_write`.
    fn write_chunks<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        start: u64,
        mut all: Piece<'_, S>,
    ) -> Result<usize, Error> {
        let mut done = 0;
        // After a chunk of which nothing counted: how few bytes are tried next, within pieces of what size.
        let (mut few, mut chunk) = (usize::MAX, None);
        let mut any_promises = false;
        let outcome = loop {
            if done == all.len() {
                return Ok(done);
            }
            self.writeback.balance();
            let at = start + u64_from(done);
            let len = chunk.map_or(few, |chunk| few.min(room_in(chunk, at)));
            let piece = &mut all.part(done..done.saturating_add(len));
            few = usize::MAX;
            match self.write_chunk(caller, inode, at, piece) {
                Ok(Wrote::All(count)) => done += count,
                Ok(Wrote::Short { asked, copied, counted, leaves_promises }) => {
                    any_promises |= leaves_promises;
                    done += counted;
                    if counted > 0 {
                        continue;
                    }
                    let halved = chunk.unwrap_or_else(|| self.max_folio_bytes(inode)) / 2;
                    chunk = Some(halved.max(u64_from(PAGE_BYTES)));
                    if copied > 0 {
                        few = copied;
                    } else if !piece.part(0..asked).fault_in() {
                        break Err(Error::SourceFailed);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        if any_promises {
            // The kernel leaves them to whoever cuts the file next. The write's own failure is the one to tell.
            let _ = self.truncate_failed_write(inode);
        }
        if done > 0 { Ok(done) } else { outcome }
    }

    /// As much of `piece` as one folio takes.
    fn write_chunk<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
    ) -> Result<Wrote, Error> {
        let delays = self.delays(inode);
        self.tell_write(inode, at, piece.len(), delays == Delays::Yes);
        let (mut attempt, mut last) = (0, None);
        loop {
            match self.try_write_chunk(caller, inode, at, piece, delays, &mut last) {
                Err(error) if error.is_no_space() => {
                    self.wait_for_space(privilege(caller), error, &mut attempt)?
                }
                other => return other,
            }
        }
    }

    fn try_write_chunk<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
        delays: Delays,
        last: &mut Option<Arc<Folio>>,
    ) -> Result<Wrote, Error> {
        if inode.may_inline()
            && let Some(wrote) = self.write_in_inode(caller, inode, at, piece, delays)?
        {
            return Ok(wrote);
        }
        match delays {
            Delays::Yes => self.write_delayed(caller, inode, at, piece),
            Delays::No => {
                drop(self.leave_inode(caller, inode)?);
                match self.mapper.journals_data(inode) {
                    true => self.write_journaled(caller, inode, at, piece),
                    false => self.write_placed(caller, inode, at, piece, last),
                }
            }
        }
    }

    /// Whether data of this file waits for its place now; starts writeback if space runs short (D4).
    pub(super) fn delays(&self, inode: &Inode) -> Delays {
        if !self.delayed_allocation || self.mapper.journals_data(inode) {
            return Delays::No;
        }
        match self.ledger.write_mode() {
            WriteMode::StayDelayed => Delays::Yes,
            WriteMode::SwitchToImmediate => Delays::No,
            mode @ (WriteMode::KickWriteback | WriteMode::KickAndSwitch) => {
                self.writeback.kick();
                if mode == WriteMode::KickWriteback { Delays::Yes } else { Delays::No }
            }
        }
    }

    /// Whether another attempt may find space that `error` missed, once what was freed is usable (D5.4).
    ///
    /// # Errors
    /// `error`, if not.
    pub(super) fn wait_for_space(
        &self,
        privilege: Privilege,
        error: Error,
        attempt: &mut u32,
    ) -> Result<(), Error> {
        *attempt += 1;
        let is_journaled = self.transactions.is_journaled();
        match self.ledger.after_no_space(*attempt, is_journaled, privilege) {
            AfterNoSpace::GiveUp => Err(error),
            AfterNoSpace::Retry => Ok(()),
            AfterNoSpace::CommitAndRetry => self.transactions.commit_running(),
        }
    }

    /// A write of `len` more bytes enters a folio; as much is asked for as the largest takes (D3.4).
    fn tell_write(&self, inode: &Inode, pos: u64, len: usize, delays: bool) {
        self.transactions.tracer().emit(|| {
            let room = self.max_folio_bytes(inode);
            let room = room - pos % room;
            let len = u32::try_from(u64_from(len).min(room)).unwrap_or(u32::MAX);
            let ino = inode.number();
            if delays {
                Event::DaWriteBegin { ino, pos, len }
            } else {
                Event::WriteBegin { ino, pos, len }
            }
        });
    }

    /// It leaves the folio, which had room for `len` bytes, with the `copied` bytes that came.
    pub(super) fn tell_written(
        &self,
        inode: &Inode,
        pos: u64,
        len: usize,
        copied: usize,
        delays: bool,
    ) {
        self.transactions.tracer().emit(|| {
            let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            let (ino, len, copied) = (inode.number(), count(len), count(copied));
            if delays {
                Event::DaWriteEnd { ino, pos, len, copied }
            } else if self.mapper.journals_data(inode) {
                Event::JournalledWriteEnd { ino, pos, len, copied }
            } else {
                Event::WriteEnd { ino, pos, len, copied }
            }
        });
    }

    /// Delayed: promises space for what has none, and starts no handle (D5).
    fn write_delayed<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
    ) -> Result<Wrote, Error> {
        let wanted = self.wanted_bytes(inode, at, piece.len());
        let folio = inode.pages.find_or_create(PageIndex::holding(at), wanted, MAX_ORDER);
        let part = folio.shape().part_of(&(at..at + u64_from(piece.len())));
        let prepared = self.prepare(inode, &folio, &part, |range| {
            self.mapper.delay(inode, range, privilege(caller))
        });
        if let Err(error) = prepared {
            return Err(self.undo_failed(inode, folio, &(at..at + u64_from(piece.len())), error));
        }
        let mut wrote = piece.write(&folio, &part);
        self.tell_written(inode, at, part.len(), wrote.copied(), true);
        let filled = part.start..part.start + wrote.counted();
        let (old_size, end) = (inode.size(), folio.shape().start() + u64_from(filled.end));
        let mut store = at > old_size;
        if end > old_size {
            inode.set_size(end);
            store |= self.raise_disk_size(inode, &folio, &filled, end);
        }
        if let Wrote::Short { leaves_promises, .. } = &mut wrote {
            *leaves_promises = at + u64_from(part.len()) > inode.size();
        }
        drop(folio);
        self.writeback.note_dirty(inode);
        if store {
            let mut handle = self.begin_store(inode, 2)?;
            self.zero_gap(&mut handle, inode, old_size..at)?;
            self.inodes.store(&mut handle, inode)?;
            inode.note_transaction(handle.transaction_id(), true);
            handle.stop()?;
        }
        Ok(wrote)
    }

    /// The stored size follows at once only where the last block has its data's place already (D13.2), or where nothing came for
    /// a `part` that begins behind the end of file: the file is longer then by what no data will follow for.
    ///
    /// Source: kernel `ext4_da_should_update_i_disksize`. Differs: where nothing came, the kernel stores the longer size with the
    /// next change, or never.
    fn raise_disk_size(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        part: &Range<usize>,
        end: u64,
    ) -> bool {
        let waits = BlockFlags::DELAY | BlockFlags::UNWRITTEN;
        let last = || folio.shape().touched(part).end - 1;
        if !part.is_empty() && folio.flags(last()).intersects(waits) {
            return false;
        }
        let mut core = inode.core.lock();
        let grows = end > core.size;
        if grows {
            core.size = end;
        }
        grows
    }

    /// At once: allocates under a handle (D14). `last` is the folio of the attempt before.
    fn write_placed<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        at: u64,
        piece: &mut Piece<'_, S>,
        last: &mut Option<Arc<Folio>>,
    ) -> Result<Wrote, Error> {
        let (mut handle, folio) =
            self.begin_with_folio(caller, inode, at, piece.len(), last.take())?;
        let bytes_wanted = at..at + u64_from(piece.len());
        let part = match self.prepare_placed(&mut handle, inode, &folio, &bytes_wanted) {
            Ok(part) => part,
            Err(error) => {
                handle.stop()?;
                *last = Some(Arc::clone(folio.folio()));
                return Err(self.undo_failed(inode, folio, &bytes_wanted, error));
            }
        };
        let got = piece.get(&folio, &part);
        self.end_placed(handle, inode, folio, &part, got)
    }

    /// Puts the bytes of a write into `part` of a folio that was prepared, and stores the inode if the file has grown: what
    /// allocates has stored it. What got a place behind the end of file and no bytes is cut off again.
    ///
    /// # Locks
    /// The caller holds `content` for writing.
    /// # Source
    /// Kernel `ext4_write_end`, `ext4_journalled_write_end` (D14.5, D14.6).
    pub(super) fn end_placed(
        &self,
        mut handle: Handle<'_>,
        inode: &Arc<Inode>,
        folio: LockedFolio,
        part: &Range<usize>,
        got: Got<'_>,
    ) -> Result<Wrote, Error> {
        let old_size = inode.size();
        let at = folio.shape().start() + u64_from(part.start);
        let wrote = got.wrote(part);
        self.tell_written(inode, at, part.len(), wrote.copied(), false);
        got.put(&folio, part);
        let end = at + u64_from(wrote.counted());
        if end > old_size {
            inode.set_size(end);
            inode.core.lock().size = end;
        }
        drop(folio);
        self.writeback.note_dirty(inode);
        let zeroed = self.zero_gap(&mut handle, inode, old_size..at);
        if end > old_size {
            self.inodes.store(&mut handle, inode)?;
        }
        let leaves_blocks = at + u64_from(part.len()) > inode.size();
        if leaves_blocks {
            self.note_failed_end(&mut handle, inode)?;
        }
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        if leaves_blocks {
            // As in the kernel: what fails here is left to the orphan list.
            let _ = self.truncate_failed_write(inode);
        }
        zeroed.map(|()| wrote)
    }

    /// Blocks lie behind the end of file, until they are cut off again: a crash before that finds the inode on the orphan list,
    /// unless the transaction has no room for that; then it is about to commit, and the next one cuts them.
    fn note_failed_end(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        match handle.ensure_credits(ORPHAN_CREDITS, 0) {
            Ok(()) => self.orphans.add(handle, inode),
            Err(Error::TransactionFull) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A handle with credits for all of a folio that holds the byte at `at`, and that folio: `last`, as long as the cache has
    /// it. A handle comes before folios, so the folio may be dropped meanwhile; then it begins again.
    fn begin_with_folio(
        &self,
        caller: &Caller,
        inode: &Inode,
        at: u64,
        len: usize,
        mut last: Option<Arc<Folio>>,
    ) -> Result<(Handle<'_>, LockedFolio), Error> {
        loop {
            let folio = last.take().unwrap_or_else(|| {
                let new = inode.pages.find_or_create(PageIndex::holding(at), len, MAX_ORDER);
                Arc::clone(new.folio())
            });
            let blocks = u32::try_from(folio.shape().blocks()).unwrap_or(u32::MAX);
            let handle = self.transactions.begin(self.write_credits(inode, blocks).by(caller))?;
            match inode.pages.lock(folio) {
                Some(folio) => return Ok((handle, folio)),
                None => handle.stop()?,
            }
        }
    }

    /// Makes as much of `bytes` as lies in the folio ready for a write, with places, under the handle. It is less if the
    /// transaction has room for a part only: the caller comes back for the rest.
    ///
    /// # Errors
    /// As [`Self::place`] and [`Self::prepare`]; see `undo_failed`.
    pub(super) fn prepare_placed(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        folio: &LockedFolio,
        bytes: &Range<u64>,
    ) -> Result<Range<usize>, Error> {
        let part = folio.shape().part_of(bytes);
        let mut placed_to = bytes.start;
        let prepared = self.prepare(inode, folio, &part, |range| {
            let mapped = self.place(handle, inode, range)?;
            placed_to = u64::from(mapped.blocks.end()) << self.geometry().block_bits;
            Ok(mapped)
        });
        match prepared {
            Err(Error::TransactionFull) if placed_to > bytes.start => {
                let part = folio.shape().part_of(&(bytes.start..placed_to));
                // Not `prepare` once more: it would forget that these blocks are new, and read what was there before.
                self.prepare_edges(inode, folio, &part)?;
                Ok(part)
            }
            prepared => prepared.map(|()| part),
        }
    }

    /// Credits for a write that gives up to `blocks` blocks their place at once (D14.1).
    pub(super) fn write_credits(&self, inode: &Inode, blocks: u32) -> Credits {
        let credits = self.mapper.credits(inode, blocks) + self.journaled_blocks(inode) + 1;
        Credits::blocks(credits, self.geometry()).of(HandleType::WritePage, inode.number())
    }

    /// Gives the first block of `range` its place, ordered before the handle's transaction if it is written at once. One block
    /// and no more: where a file's blocks go follows from how many are asked for at a time, and the kernel's writers ask so.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; [`Error::TransactionFull`] if the transaction has room for no more.
    /// # Source
    /// Kernel `ext4_block_write_begin`, `_ext4_get_block`.
    pub(super) fn place(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        range: LogicalRange,
    ) -> Result<Mapped, Error> {
        let range = LogicalRange::single(range.start());
        let mut flags = MapFlags::CREATE;
        flags.set(MapFlags::UNWRITTEN, self.unwritten_until_done);
        let credits = self.mapper.credits(inode, range.len()) + self.journaled_blocks(inode);
        handle.ensure_credits(credits, 0)?;
        let mapped = self.mapper.map(handle, inode, range, flags)?;
        if self.mapper.orders_data(inode) && mapped.exposes_data() {
            let bits = self.geometry().block_bits;
            let range = u64::from(mapped.blocks.start().get()) << bits
                ..u64::from(mapped.blocks.end()) << bits;
            handle.order(OrderedFile::new(self.writeback.own(), inode), range);
        }
        Ok(mapped)
    }

    /// What a failed chunk has touched becomes zeros, and what it was promised behind the end of file is given back
    /// (D5.3, D8.8).
    pub(super) fn undo_failed(
        &self,
        inode: &Arc<Inode>,
        folio: LockedFolio,
        bytes: &Range<u64>,
        error: Error,
    ) -> Error {
        folio.zero_new(&folio.shape().part_of(bytes));
        let end = bytes.end.min(folio.shape().end());
        drop(folio);
        self.writeback.note_dirty(inode);
        if end > inode.size() {
            // The write's own failure is the one to tell.
            let _ = self.truncate_failed_write(inode);
        }
        error
    }

    /// Zeroes what of `gap` lies in partly covered blocks that have bytes (D13.3, D22.7); an empty or inverted one is none.
    ///
    /// Source: kernel `ext4_zero_partial_blocks`.
    pub(super) fn zero_gap(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        gap: Range<u64>,
    ) -> Result<(), Error> {
        let block = u64::from(self.geometry().block_size);
        let first_end = gap.start.next_multiple_of(block).min(gap.end);
        self.zero_in_block(handle, inode, gap.start..first_end)?;
        let last_start = gap.end - gap.end % block;
        if last_start >= first_end {
            self.zero_in_block(handle, inode, last_start..gap.end)?;
        }
        Ok(())
    }

    /// Zeroes bytes within one block, if the block has bytes, in memory or on the device; a hole stays a hole. The zeros go
    /// to the device before the handle's transaction, which shows them, commits (D17.2).
    ///
    /// Source: kernel `__ext4_block_zero_page_range` (D22.9).
    pub(super) fn zero_in_block(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        bytes: Range<u64>,
    ) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let folio = inode.pages.find_or_create(PageIndex::holding(bytes.start), 1, 0);
        let part = folio.shape().part_of(&bytes);
        let block = folio.shape().touched(&part).start;
        let was_looked_up = folio.knows_blocks();
        folio.note_blocks();
        let flags = folio.flags(block);
        if !flags.contains(BlockFlags::MAPPED) || !was_looked_up {
            let range = folio.shape().file_blocks(&(block..block + 1));
            let is_written = |state| matches!(state, BlockState::Written(_));
            let has_block =
                !inode.is_inline() && is_written(self.mapper.look_up(inode, range)?.state);
            if !has_block {
                if flags.contains(BlockFlags::UPTODATE) {
                    folio.zero(part);
                }
                return Ok(());
            }
            folio.place(block..block + 1, crate::page_cache::Placement::Written);
        }
        if !flags.contains(BlockFlags::UPTODATE) {
            self.read_blocks(inode, &folio, block..block + 1)?;
        }
        if self.mapper.journals_data(inode) {
            self.journal_blocks(handle, inode, &folio, &part)?;
        }
        folio.zero(part);
        folio.set_dirty(block..block + 1);
        drop(folio);
        self.writeback.note_dirty(inode);
        if self.mapper.orders_data(inode) {
            handle.order(OrderedFile::new(self.writeback.own(), inode), bytes);
        }
        Ok(())
    }

    /// What a write by a system call does to the inode: the file loses its capability too.
    ///
    /// Source: kernel `fs/inode.c`, `file_modified`.
    pub(super) fn note_written(&self, inode: &Arc<Inode>, caller: &Caller) -> Result<(), Error> {
        self.xattrs.drop_capability(inode)?;
        self.note_modified(inode, caller)
    }

    /// Times of a change of bytes, and the loss of set-user and set-group (D3.3).
    pub(super) fn note_modified(&self, inode: &Arc<Inode>, caller: &Caller) -> Result<(), Error> {
        self.note_modified_beside(inode, caller, &mut None)
    }

    /// [`Self::note_modified`] for one who has something under way.
    pub(super) fn note_modified_beside(
        &self,
        inode: &Arc<Inode>,
        caller: &Caller,
        ending: &mut Option<Ending<'_>>,
    ) -> Result<(), Error> {
        let now = self.transactions.clock().wall();
        let changed = {
            let mut core = inode.core.lock();
            let tick = |nanoseconds: u32| nanoseconds / TIME_GRANULARITY_NANOS;
            let same = (core.mtime.seconds, tick(core.mtime.nanoseconds))
                == (now.seconds, tick(now.nanoseconds));
            let drops = !caller.privileged && core.mode & 0o6000 != 0;
            if drops {
                crate::inode::drop_privilege_bits(&mut core);
            }
            if !same {
                (core.mtime, core.ctime) = (now, now);
            }
            drops || !same
        };
        if changed {
            let credits = Credits::blocks(2, self.geometry());
            let credits = credits.of(HandleType::Inode, inode.number());
            let mut handle = self.begin_beside(credits, ending)?;
            self.inodes.store(&mut handle, inode)?;
            handle.stop()?;
            // The flusher comes by, though it may find no data.
            self.writeback.note_dirty(inode);
        }
        Ok(())
    }

    /// How much a folio for a write should hold: a file that grows in small pieces gets folios as large as what it has
    /// already, up to a frame, so that its pieces do not cost a folio each.
    ///
    /// Source: kernel `fgf_set_order`. Differs: the kernel looks at the write's length alone.
    fn wanted_bytes(&self, inode: &Inode, at: u64, len: usize) -> usize {
        let size = inode.size();
        let grows = at == size && !self.kernel_folios;
        let grown = if grows { size.min(MAX_GROWN_BYTES) } else { 0 };
        len.max(usize::try_from(grown).unwrap_or(0))
    }

    /// A handle that may free blocks of the file: asks for what a first step needs, and is restarted on the way.
    pub(super) fn begin_truncate(&self, inode: &Inode) -> Result<Handle<'_>, Error> {
        self.transactions.begin(self.mapper.removal_credits(inode))
    }

    /// A handle that changes attributes of the inode.
    pub(super) fn begin_store(&self, inode: &Inode, blocks: u32) -> Result<Handle<'_>, Error> {
        let credits = Credits::blocks(blocks, self.geometry());
        self.transactions.begin(credits.of(HandleType::Inode, inode.number()))
    }

    /// A handle for one who has something under way, which ends first if there is anything to wait for.
    pub(super) fn begin_beside(
        &self,
        credits: Credits,
        ending: &mut Option<Ending<'_>>,
    ) -> Result<Handle<'_>, Error> {
        if ending.is_some() {
            if let Some(handle) = self.transactions.try_begin(credits)? {
                return Ok(handle);
            }
            *ending = None;
        }
        self.transactions.begin(credits)
    }
}

/// Blocks that change when an inode becomes an orphan.
const ORPHAN_CREDITS: u32 = 3;

/// The largest folio that is made for less than its size: 64 KiB, a frame.
const MAX_GROWN_BYTES: u64 = 64 << 10;

/// How many bytes from `at` on lie in the same chunk.
fn room_in(chunk: u64, at: u64) -> usize {
    usize::try_from(chunk - at % chunk).unwrap_or(usize::MAX)
}

/// Who may use the last blocks of the volume.
pub(super) fn privilege(caller: &Caller) -> Privilege {
    if caller.privileged { Privilege::Root } else { Privilege::Ordinary }
}
