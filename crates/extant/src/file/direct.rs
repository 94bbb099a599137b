//! Reading and writing past the cache.
//!
//! Source: kernel `ext4_dio_write_iter`, `ext4_dio_read_iter`, `ext4_iomap_begin`, `fs/iomap/direct-io.c` (D21).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use extant_device::{Frame, Request};
use extant_format::cast::{u64_from, usize_from};
use extant_format::{InodeFlags, LogicalBlock, LogicalRange};

use super::source::{Piece, Source};
use super::write::{Flags, privilege};
use super::{Files, OpenFile};
use crate::Error;
use crate::caller::Caller;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::{MapFlags, Mapped};
use crate::trace::HandleType;
use crate::transaction::{Credits, credits};
use crate::writeback::Purpose;

/// Blocks that one allocation takes at the most. Source: kernel `DIO_MAX_BLOCKS`.
const MAX_BLOCKS: u32 = 4096;

impl Files {
    /// Copies bytes from `offset` on from the device into `buffer`; what is dirty goes there first.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless offset and length are whole sectors, or the file ends before; of the device.
    /// # Locks
    /// Takes `content` for reading.
    /// # Source
    /// Kernel `ext4_dio_read_iter`, `__iomap_dio_rw`.
    pub(crate) fn read_direct(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        if self.must_buffer(inode) {
            return self.read(inode, open, offset, buffer);
        }
        let content = inode.content.read();
        if inode.is_inline() {
            drop(content);
            return self.read(inode, open, offset, buffer);
        }
        if offset >= inode.size() {
            return Ok(0); // wherever it is
        }
        let asked = self.whole_sectors(offset, buffer.len())?;
        let bytes = asked.start..asked.end.min(inode.size());
        self.writeback.write_inode(inode, asked.clone(), Purpose::Integrity)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let (block_bits, mut places, mut batch) =
            (self.geometry().block_bits, Vec::new(), Vec::new());
        let mut rest = self.blocks_touched(&asked);
        while let Some(range) = rest {
            let found = self.mapper.look_up(inode, range)?;
            rest = following(range, found.blocks);
            let part = part_of(found.blocks, block_bits, &bytes);
            if part.is_empty() {
                continue; // behind the end of file
            }
            let place = to_buffer(&part, offset);
            match found.state {
                BlockState::Written(at) => {
                    let within = part.start - (u64::from(found.blocks.start().get()) << block_bits);
                    let sector = u64::from(self.transactions.io().device().geometry().sector_bytes);
                    let frame = Frame::zeroed(
                        place.len().next_multiple_of(usize::try_from(sector).unwrap_or(512)),
                    );
                    let from = self.transactions.io().offset(at) + within;
                    batch.push(Request::read(from, vec![frame]));
                    places.push(place);
                }
                _ => buffer[place].fill(0),
            }
        }
        self.transactions.io().run(&mut batch)?;
        for (place, request) in places.into_iter().zip(batch) {
            let frames = request.into_frames()?;
            buffer[place.clone()].copy_from_slice(&frames[0].as_slice()[..place.len()]);
        }
        Ok(to_buffer(&bytes, offset).end)
    }

    /// Writes what `source` has from `offset` on to the device, past the cache, whose copy is written before and dropped. Blocks in
    /// the file stay unwritten until their data is there; those behind its end are on the orphan list for as long.
    /// Returns how many bytes went in.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless offset and length are whole sectors; as [`Self::write`], but [`Error::SourceFailed`] wherever a
    /// byte is missing: sectors before that may be on the device, but count only where the file had them already.
    /// # Locks
    /// Takes `content`: for reading, if all blocks are there and the file does not grow, so that such writes run side by
    /// side; else for writing.
    pub(crate) fn write_direct<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        source: &mut S,
    ) -> Result<usize, Error> {
        let mut all = Piece::all(source);
        if self.must_buffer(inode) {
            return self.write_piece(caller, inode, offset, all, Flags::Count);
        }
        self.transactions.check_writable()?;
        if let Some(start) =
            offset.filter(|start| start.saturating_add(u64_from(all.len())) <= inode.size())
        {
            let range = self.whole_sectors(start, all.len())?;
            let _content = inode.content.read();
            if self.is_overwrite(inode, &range)? {
                self.may_write(inode, start)?;
                self.note_written(inode, caller)?;
                return self
                    .write_past_cache(caller, inode, &range, &mut all)
                    .map(|end| to_buffer(&(start..end), start).end);
            }
        }
        let (start, written_to, end) = {
            let content = inode.content.write();
            if inode.is_inline() {
                drop(content);
                return self.write_piece(caller, inode, offset, all, Flags::Count);
            }
            inode.set_may_inline(false);
            let start = offset.unwrap_or(inode.size());
            let range = self.whole_sectors(start, all.len())?;
            self.may_write(inode, start)?;
            let room = self.max_bytes(inode).saturating_sub(start);
            if room == 0 {
                return Err(Error::TooLarge);
            }
            let range = start..range.end.min(start.saturating_add(room));
            // Whoever asked before held others off less.
            let _ = self.is_overwrite(inode, &range)?;
            self.note_written(inode, caller)?;
            (start, self.write_extending(caller, inode, &range, &mut all)?, range.end)
        };
        let mut done = to_buffer(&(start..written_to), start).end;
        if written_to < end {
            // A hole of a file of indirect blocks: through the cache, and out of it again.
            let left = all.part(done..to_buffer(&(start..end), start).end);
            let count = self.write_piece(caller, inode, Some(written_to), left, Flags::Count)?;
            let wrote = written_to..written_to + u64_from(count);
            self.writeback.write_inode(inode, wrote.clone(), Purpose::Integrity)?;
            self.forget_clean(inode, &wrote);
            done += count;
        }
        Ok(done)
    }

    /// [`Self::write_past_cache`], and what a file that grows by it needs around it.
    fn write_extending<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        range: &Range<u64>,
        all: &mut Piece<'_, S>,
    ) -> Result<u64, Error> {
        if range.is_empty() {
            return Ok(range.start);
        }
        let (old_size, grows) = (inode.size(), range.end > inode.size());
        if grows {
            let mut handle = self.begin_store(inode, 2 + credits::XATTR)?;
            self.orphans.add(&mut handle, inode)?;
            handle.stop()?;
        }
        let written = self.write_past_cache(caller, inode, range, all);
        if !grows {
            return written;
        }
        let end = *written.as_ref().unwrap_or(&old_size);
        if end > old_size {
            let mut handle = self.begin_store(inode, 2 + credits::XATTR)?;
            self.extend_to(inode, end);
            if inode.core.lock().links > 0 {
                self.orphans.remove(&mut handle, inode)?;
            }
            self.store_changed(handle, inode)?;
        }
        if end < range.end {
            self.truncate_failed_write(inode)?;
        }
        written
    }

    /// Writes a range to the device; returns up to where, which is short of its end only at a hole of indirect blocks.
    ///
    /// Source: kernel `iomap_dio_rw`, `ext4_dio_write_end_io`.
    fn write_past_cache<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        range: &Range<u64>,
        all: &mut Piece<'_, S>,
    ) -> Result<u64, Error> {
        self.writeback.write_inode(inode, range.clone(), Purpose::Integrity)?;
        self.forget_clean(inode, range);
        let block_bits = self.geometry().block_bits;
        let (mut at, mut attempt, mut batch) = (range.start, 0, Vec::new());
        let mut converts = false;
        while at < range.end {
            let Some(blocks) = self.blocks_touched(&(at..range.end)) else { break };
            let mapped = match self.place_direct(caller, inode, blocks, range.end) {
                Ok(Some(mapped)) => mapped,
                Ok(None) => break,
                Err(error) if error.is_no_space() => {
                    self.wait_for_space(privilege(caller), error, &mut attempt)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            attempt = 0;
            let part = part_of(mapped.blocks, block_bits, &(at..range.end));
            let piece = &mut all.part(to_buffer(&part, range.start));
            let (request, is_whole) = self.request(&mapped, &part, piece)?;
            batch.extend(request);
            if !is_whole {
                // What came before goes to its place, as it has in the kernel by now.
                self.transactions.io().run(&mut batch)?;
                self.forget_clean(inode, range);
                return Err(Error::SourceFailed);
            }
            converts |= matches!(mapped.state, BlockState::Unwritten(_));
            at = part.end;
        }
        self.transactions.io().run(&mut batch)?;
        let written = self.blocks_touched(&(range.start..at)).filter(|_| converts);
        let converted = written.map_or(Ok(()), |blocks| self.convert(inode, blocks));
        // Who read meanwhile may have seen what was there before: zeros until the blocks count as written.
        self.forget_clean(inode, range);
        converted.map(|()| at)
    }

    /// Has blocks, whose data is on the device, count as written.
    ///
    /// Source: kernel `ext4_convert_unwritten_extents`.
    fn convert(&self, inode: &Arc<Inode>, blocks: LogicalRange) -> Result<(), Error> {
        let mut rest = Some(blocks);
        while let Some(range) = rest {
            let mut handle = self.transactions.begin(self.map_credits(inode, range.len()))?;
            let converted = self.mapper.map(&mut handle, inode, range, MapFlags::END_OF_DIRECT)?;
            self.store_changed(handle, inode)?;
            rest = following(range, converted.blocks);
        }
        Ok(())
    }

    fn map_credits(&self, inode: &Inode, blocks: u32) -> Credits {
        let credits = Credits::blocks(self.mapper.credits(inode, blocks), self.geometry());
        credits.of(HandleType::MapBlocks, inode.number())
    }

    /// Where the first run of `blocks`, the last of which has the byte before `end`, goes; `None` for a hole that cannot be
    /// filled unwritten (D21.4).
    ///
    /// Source: kernel `ext4_iomap_begin`, `ext4_iomap_alloc`.
    fn place_direct(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        blocks: LogicalRange,
        end: u64,
    ) -> Result<Option<Mapped>, Error> {
        let size = inode.size();
        if end <= size {
            let found = self.mapper.look_up(inode, blocks)?;
            if matches!(found.state, BlockState::Written(_)) {
                return Ok(Some(found));
            }
        }
        let few = LogicalRange::new(blocks.start().get(), blocks.len().min(MAX_BLOCKS));
        let blocks = few.unwrap_or(blocks);
        let mut handle =
            self.transactions.begin(self.map_credits(inode, blocks.len()).by(caller))?;
        let start = u64::from(blocks.start().get()) << self.geometry().block_bits;
        let flags = if start >= size {
            MapFlags::CREATE
        } else if inode.flags().contains(InodeFlags::EXTENTS) {
            MapFlags::CREATE | MapFlags::UNWRITTEN | MapFlags::PRE_IO
        } else {
            let found = self.mapper.look_up(inode, blocks)?;
            handle.stop()?;
            return Ok(Some(found).filter(|found| found.state.place().is_some()));
        };
        let mapped = self.mapper.map(&mut handle, inode, blocks, flags)?;
        self.store_changed(handle, inode)?;
        Ok(Some(mapped))
    }

    /// Has the bytes of `piece`, which are `part` of the file, go to their place; what they leave of new blocks is zeroed. If a byte
    /// cannot be had, only whole sectors before it go, if any, and `false` comes with them.
    fn request<S: Source + ?Sized>(
        &self,
        mapped: &Mapped,
        part: &Range<u64>,
        piece: &mut Piece<'_, S>,
    ) -> Result<(Option<Request>, bool), Error> {
        let place = mapped.state.place().ok_or(Error::Invalid("mapping gave no place"))?;
        let block = u64::from(self.geometry().block_size);
        let start = u64::from(mapped.blocks.start().get()) << self.geometry().block_bits;
        let is_new = mapped.new || matches!(mapped.state, BlockState::Unwritten(_));
        let from = if is_new { start } else { part.start };
        let before = to_buffer(&(from..part.start), from).len();
        let mut frame = vec![0; before + to_buffer(part, part.start).len()];
        let mut came = piece.copy_waiting(&mut frame[before..]);
        let is_whole = before + came == frame.len();
        if !is_whole {
            came -= came % usize_from(self.transactions.io().device().geometry().sector_bytes);
            if came == 0 {
                return Ok((None, false));
            }
            frame.truncate(before + came);
        }
        if is_new {
            let to = (part.start + u64_from(came)).next_multiple_of(block);
            frame.resize(to_buffer(&(from..to), from).len(), 0);
        }
        let frame = Frame::from(frame);
        let len = frame.len();
        let at = self.transactions.io().offset(place) + (from - start);
        Ok((Some(Request::write(at, vec![frame.slice(0..len)])), is_whole))
    }

    /// Whether a range ends in the file and is one run of blocks that have a place (D21.2).
    ///
    /// Source: kernel `ext4_overwrite_io`.
    fn is_overwrite(&self, inode: &Inode, bytes: &Range<u64>) -> Result<bool, Error> {
        let block = u64::from(self.geometry().block_size);
        let is_aligned = bytes.start.is_multiple_of(block) && bytes.end.is_multiple_of(block);
        let Some(range) = self.blocks_touched(bytes).filter(|_| bytes.end <= inode.size()) else {
            return Ok(false);
        };
        let found = self.mapper.look_up(inode, range)?;
        let has_place = match found.state {
            BlockState::Written(_) => true,
            BlockState::Unwritten(_) => is_aligned,
            _ => false,
        };
        Ok(has_place && found.blocks == range)
    }

    /// Forgets what memory has of a range's blocks, unless it is dirty again.
    fn forget_clean(&self, inode: &Inode, bytes: &Range<u64>) {
        let block = u64::from(self.geometry().block_size);
        let whole = bytes.start - bytes.start % block..bytes.end.next_multiple_of(block);
        inode.pages.forget_clean(&whole);
    }

    /// Whether the kernel, too, goes through the cache for this file (D21.1).
    fn must_buffer(&self, inode: &Inode) -> bool {
        inode.is_inline() || self.mapper.journals_data(inode)
    }

    /// Whether the file's flags let bytes be written from `start` on.
    pub(super) fn may_write(&self, inode: &Inode, start: u64) -> Result<(), Error> {
        let flags = inode.flags();
        let cuts_in = flags.contains(InodeFlags::APPEND) && start < inode.size();
        if flags.contains(InodeFlags::IMMUTABLE) || cuts_in {
            return Err(Error::NotPermitted);
        }
        Ok(())
    }

    fn whole_sectors(&self, offset: u64, len: usize) -> Result<Range<u64>, Error> {
        let sector = u64::from(self.transactions.io().device().geometry().sector_bytes);
        let len = u64_from(len);
        if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) {
            return Err(Error::Invalid("whole sectors are wanted"));
        }
        Ok(offset..offset.checked_add(len).ok_or(Error::TooLarge)?)
    }
}

/// The bytes of `blocks` that lie in `bytes`.
fn part_of(blocks: LogicalRange, block_bits: u32, bytes: &Range<u64>) -> Range<u64> {
    let byte = |block: u32| u64::from(block) << block_bits;
    byte(blocks.start().get()).max(bytes.start)..byte(blocks.end()).min(bytes.end)
}

/// Where a part of the file lies in a buffer that begins at `start`.
fn to_buffer(part: &Range<u64>, start: u64) -> Range<usize> {
    let index = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    index(part.start)..index(part.end)
}

/// What of `range` follows `done`, which starts where `range` does.
fn following(range: LogicalRange, done: LogicalRange) -> Option<LogicalRange> {
    LogicalRange::between(LogicalBlock::new(done.end())?, range.end())
}
