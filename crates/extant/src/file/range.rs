//! Ranges of a file: allocated ahead, punched out, zeroed, taken out and pushed in.
//!
//! Each step leaves a file that is whole: a long range is many transactions, and what was done before a failure stays.
//!
//! Source: kernel `ext4_fallocate`, `ext4_alloc_file_blocks`, `ext4_zero_range`, `ext4_punch_hole`, `ext4_collapse_range`,
//! `ext4_insert_range` (D22.7 to D22.13).

use alloc::sync::Arc;
use core::ops::Range;

use extant_format::cast::u64_from;
use extant_format::extent::ExtentState;
use extant_format::{FileType, InodeFlags, LogicalBlock, LogicalRange};

use super::Files;
use super::write::privilege;
use crate::Error;
use crate::caller::Caller;
use crate::extent_tree::Shift;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::page_cache::PAGE_BYTES;
use crate::report::{Ineligible, RangeChange};
use crate::trace::{Event, FallocateMode, HandleType};
use crate::transaction::{Change, Credits, Handle};
use crate::writeback::{Ending, Purpose};

impl Files {
    /// Changes what a range of bytes is.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for a file of indirect blocks, which can only be punched; [`Error::Invalid`],
    /// [`Error::TooLarge`], [`Error::NotPermitted`], of the device. [`Error::NoSpace`] half way: what was allocated stays.
    /// # Locks
    /// Takes `content`, and for all but plain allocation `invalidate`, for writing.
    pub(crate) fn change_range(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        change: RangeChange,
        bytes: Range<u64>,
    ) -> Result<(), Error> {
        self.transactions.check_writable()?;
        let _content = inode.content.write();
        let flags = inode.flags();
        let only_adds = matches!(change, RangeChange::Allocate { .. });
        if flags.contains(InodeFlags::IMMUTABLE)
            || (flags.contains(InodeFlags::APPEND) && !only_adds)
        {
            return Err(Error::NotPermitted);
        }
        match inode.file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::NotSupported("only regular files have ranges")),
        }
        if bytes.is_empty() {
            return Err(Error::Invalid("an empty range"));
        }
        if bytes.end > self.geometry().max_extent_file_bytes() {
            return Err(Error::TooLarge);
        }
        self.xattrs.drop_capability(inode)?;
        let mut ending = self.leave_inode(caller, inode)?;
        self.note_modified_beside(inode, caller, &mut ending)?;
        if let RangeChange::Allocate { keep_size } = change {
            return self.allocate_range(caller, inode, &bytes, keep_size, ending);
        }
        self.tell_range(inode, change, &bytes);
        let _invalidate = inode.invalidate.write();
        if let RangeChange::Zero { keep_size } = change {
            return self.zero_range(caller, inode, bytes, keep_size, ending);
        }
        if change == RangeChange::PunchHole {
            return self.punch(inode, bytes, ending);
        }
        drop(ending);
        match change {
            RangeChange::Collapse => self.collapse(inode, &bytes),
            RangeChange::Insert => self.insert(inode, &bytes),
            // Done above.
            RangeChange::Allocate { .. } | RangeChange::Zero { .. } | RangeChange::PunchHole => {
                Ok(())
            }
        }
    }

    /// Allocates ahead, up to a new size unless it is to `keep_size`.
    fn allocate_range(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        bytes: &Range<u64>,
        keep_size: bool,
        mut ending: Option<Ending<'_>>,
    ) -> Result<(), Error> {
        let (tracer, ino) = (self.transactions.tracer(), inode.number());
        let (offset, len) = (bytes.start, bytes.end - bytes.start);
        let mode = FallocateMode::default().with_if(FallocateMode::KEEP_SIZE, keep_size);
        tracer.emit(|| Event::FallocateEnter { ino, offset, len, mode });
        let new_size = self.size_after(inode, bytes, keep_size);
        let place = |blocks| {
            self.require_extents(inode)?;
            self.place_range(caller, inode, blocks, new_size, MapFlags::empty(), &mut ending)
        };
        let outcome = self.touching(bytes).and_then(place);
        tracer.emit(|| Event::FallocateExit {
            ino,
            pos: offset,
            blocks: self.touching(bytes).map_or(0, |blocks| blocks.len()),
            ret: outcome.as_ref().err().map_or(0, |error| -error.errno().0),
        });
        outcome
    }

    fn tell_range(&self, inode: &Inode, change: RangeChange, bytes: &Range<u64>) {
        self.transactions.tracer().emit(|| {
            let (ino, offset, len) = (inode.number(), bytes.start, bytes.end - bytes.start);
            match change {
                RangeChange::Zero { keep_size } => {
                    let mode =
                        FallocateMode::ZERO_RANGE.with_if(FallocateMode::KEEP_SIZE, keep_size);
                    Event::ZeroRange { ino, offset, len, mode }
                }
                RangeChange::Collapse => Event::CollapseRange { ino, offset, len },
                RangeChange::Insert => Event::InsertRange { ino, offset, len },
                RangeChange::Allocate { .. } | RangeChange::PunchHole => {
                    Event::PunchHole { ino, offset, len, mode: FallocateMode::default() }
                }
            }
        });
    }

    /// Gives every block of a range that has no place one that reads as zeros; with [`MapFlags::CONVERT_UNWRITTEN`], written
    /// blocks read as zeros too. Delayed blocks get their place here: the promise is spent, their bytes stay dirty. Sizes
    /// follow step by step up to `new_size`.
    fn place_range(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        blocks: LogicalRange,
        new_size: Option<u64>,
        more: MapFlags,
        ending: &mut Option<Ending<'_>>,
    ) -> Result<(), Error> {
        let mut flags = MapFlags::CREATE | MapFlags::UNWRITTEN | more;
        flags.set(MapFlags::NO_NORMALIZE, blocks.len() <= ExtentState::Unwritten.max_len());
        let old_size = inode.size();
        let (mut rest, mut attempt) = (Some(blocks), 0);
        while let Some(range) = rest {
            let credits = Credits::blocks(self.mapper.credits(inode, range.len()), self.geometry());
            let credits = credits.of(HandleType::MapBlocks, inode.number()).by(caller);
            let mut handle = self.begin_beside(credits, ending)?;
            let mapped = match self.mapper.map(&mut handle, inode, range, flags) {
                Err(error) if error.is_no_space() => {
                    handle.stop()?;
                    *ending = None;
                    self.wait_for_space(privilege(caller), error, &mut attempt)?;
                    continue;
                }
                mapped => mapped?,
            };
            attempt = 0;
            let end = u64::from(mapped.blocks.end()) << self.geometry().block_bits;
            if let Some(end) = new_size.map(|size| size.min(end)) {
                self.extend_to(inode, end);
                if end > old_size {
                    self.zero_gap(&mut handle, inode, old_size..end)?;
                }
            }
            self.store_changed(handle, inode)?;
            rest = LogicalBlock::new(mapped.blocks.end())
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok(())
    }

    /// Makes a range a hole, which ends with the file's last page at the latest (D22.7).
    fn punch(
        &self,
        inode: &Arc<Inode>,
        mut bytes: Range<u64>,
        mut ending: Option<Ending<'_>>,
    ) -> Result<(), Error> {
        let size = inode.size();
        if bytes.start >= size {
            return Ok(());
        }
        let block = u64::from(self.geometry().block_size);
        if bytes.end > size {
            bytes.end = size.next_multiple_of(block.max(u64_from(PAGE_BYTES)));
        }
        bytes.end = bytes.end.min(self.max_bytes(inode) - block);
        if bytes.is_empty() {
            return Ok(());
        }
        self.drop_pages(inode, &bytes, &mut ending)?;
        let credits = self.mapper.removal_credits(inode);
        let mut handle = self.begin_beside(credits, &mut ending)?;
        self.zero_gap(&mut handle, inode, bytes.clone())?;
        if let Some(blocks) = self.within(&bytes)? {
            if ending.is_some() {
                // A removal may have to wait for a commit.
                handle.restart_after(credits, || ending = None)?;
            }
            self.mapper.remove(&mut handle, inode, blocks)?;
        }
        self.store_changed(handle, inode)
    }

    /// Makes a range read as zeros, with blocks allocated for all of it (D22.11).
    fn zero_range(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        bytes: Range<u64>,
        keep_size: bool,
        mut ending: Option<Ending<'_>>,
    ) -> Result<(), Error> {
        self.require_extents(inode)?;
        let new_size = self.size_after(inode, &bytes, keep_size);
        let block = u64::from(self.geometry().block_size);
        let is_aligned = bytes.start.is_multiple_of(block) && bytes.end.is_multiple_of(block);
        if !is_aligned {
            let outer = self.touching(&bytes)?;
            self.place_range(caller, inode, outer, new_size, MapFlags::empty(), &mut ending)?;
        }
        self.drop_pages(inode, &bytes, &mut ending)?;
        if let Some(blocks) = self.within(&bytes)? {
            let more = MapFlags::CONVERT_UNWRITTEN | MapFlags::NO_CACHE;
            self.place_range(caller, inode, blocks, new_size, more, &mut ending)?;
        }
        if is_aligned {
            return Ok(());
        }
        let credits = Credits::blocks(3, self.geometry()).of(HandleType::Misc, inode.number());
        let mut handle = self.begin_beside(credits, &mut ending)?;
        self.zero_gap(&mut handle, inode, bytes)?;
        if let Some(size) = new_size {
            self.extend_to(inode, size);
        }
        self.store_changed(handle, inode)
    }

    /// Takes a range out of the file: what lies behind moves down to its start (D22.12).
    fn collapse(&self, inode: &Arc<Inode>, bytes: &Range<u64>) -> Result<(), Error> {
        self.require_extents(inode)?;
        let taken = self.clusters(bytes)?;
        if bytes.end >= inode.size() {
            return Err(Error::Invalid("a range up to the end of file is cut, not collapsed"));
        }
        self.write_and_drop(inode, bytes.start, bytes.end)?;
        let from = LogicalBlock::new(taken.end()).ok_or(Error::TooLarge)?;
        let credits = self.mapper.shift_credits(inode, taken.start())?;
        let mut handle = self.transactions.begin(credits)?;
        handle.note(Change::Unrecorded(Ineligible::ShiftRange));
        self.mapper.remove(&mut handle, inode, taken)?;
        self.mapper.shift(&mut handle, inode, from, Shift::Down(taken.len()))?;
        let size = inode.size() - (bytes.end - bytes.start);
        inode.set_size(size);
        inode.core.lock().size = size;
        self.store_changed(handle, inode)
    }

    /// Pushes a hole into the file: what lies behind its start moves up (D22.12).
    fn insert(&self, inode: &Arc<Inode>, bytes: &Range<u64>) -> Result<(), Error> {
        self.require_extents(inode)?;
        let (new, size) = (self.clusters(bytes)?, inode.size());
        if bytes.start >= size {
            return Err(Error::Invalid("a hole at the end of file is no insertion"));
        }
        let len = bytes.end - bytes.start;
        let size = size.checked_add(len).filter(|&size| size <= self.max_bytes(inode));
        let size = size.ok_or(Error::TooLarge)?;
        self.write_and_drop(inode, bytes.start, bytes.start)?;
        let credits = self.mapper.shift_credits(inode, new.start())?;
        let mut handle = self.transactions.begin(credits)?;
        handle.note(Change::Unrecorded(Ineligible::ShiftRange));
        self.mapper.split_at(&mut handle, inode, new.start(), new.len())?;
        // First, so that no extent is behind the end of file when a crash finds some moved and others not.
        inode.set_size(size);
        inode.core.lock().size = size;
        self.inodes.store(&mut handle, inode)?;
        self.mapper.shift(&mut handle, inode, new.start(), Shift::Up(new.len()))?;
        self.store_changed(handle, inode)
    }

    /// Writes the page that has the byte at `start`, and what lies from `moves` on, and drops all pages from there.
    fn write_and_drop(&self, inode: &Arc<Inode>, start: u64, moves: u64) -> Result<(), Error> {
        let page = start - start % u64_from(PAGE_BYTES);
        if moves > start {
            self.writeback.write_inode(inode, page..start + 1, Purpose::Integrity)?;
            self.writeback.write_inode(inode, moves..u64::MAX, Purpose::Integrity)?;
        } else {
            self.writeback.write_inode(inode, page..u64::MAX, Purpose::Integrity)?;
        }
        self.drop_bytes(inode, page..u64::MAX);
        Ok(())
    }

    /// Drops what memory has of a range; what blocks at its edges have of it on the device has to be zeroed next.
    ///
    /// The stored size catches up first as far as the range reaches: the page that was to bring it may be dropped.
    ///
    /// Source: kernel `ext4_update_disksize_before_punch`, `ext4_truncate_page_cache_block_range`.
    fn drop_pages(
        &self,
        inode: &Arc<Inode>,
        bytes: &Range<u64>,
        ending: &mut Option<Ending<'_>>,
    ) -> Result<(), Error> {
        let reached = inode.size().min(bytes.end);
        if bytes.start <= inode.size() && inode.core.lock().size < reached {
            let credits = Credits::blocks(1, self.geometry());
            let handle = self.begin_beside(credits.of(HandleType::Misc, inode.number()), ending)?;
            {
                // Data that was under way may have brought it further while this waited for the handle.
                let mut core = inode.core.lock();
                core.size = core.size.max(reached);
            }
            self.store_changed(handle, inode)?;
        }
        if self.mapper.journals_data(inode) {
            *ending = None;
            // What is dropped here must not be missing from a transaction that commits before the blocks are gone.
            self.writeback.write_inode(inode, bytes.clone(), Purpose::Integrity)?;
        }
        self.drop_bytes_beside(inode, bytes.clone(), ending);
        Ok(())
    }

    /// Both sizes, if they are smaller.
    pub(super) fn extend_to(&self, inode: &Inode, size: u64) {
        if size > inode.size() {
            inode.set_size(size);
        }
        let mut core = inode.core.lock();
        core.size = core.size.max(size);
    }

    pub(super) fn store_changed(&self, mut handle: Handle<'_>, inode: &Inode) -> Result<(), Error> {
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()
    }

    fn require_extents(&self, inode: &Inode) -> Result<(), Error> {
        if inode.flags().contains(InodeFlags::EXTENTS) {
            return Ok(());
        }
        Err(Error::NotSupported("a file of indirect blocks can only be punched"))
    }

    /// The size that a range asks for, if it is more than there is.
    fn size_after(&self, inode: &Inode, bytes: &Range<u64>, keep_size: bool) -> Option<u64> {
        let size = inode.size().min(inode.core.lock().size);
        Some(bytes.end).filter(|&end| !keep_size && end > size)
    }

    /// The blocks that a range touches.
    fn touching(&self, bytes: &Range<u64>) -> Result<LogicalRange, Error> {
        let block = u64::from(self.geometry().block_size);
        let blocks = self.blocks(bytes.start / block, bytes.end.div_ceil(block))?;
        blocks.ok_or(Error::Invalid("an empty range"))
    }

    /// The blocks that lie in a range as a whole.
    fn within(&self, bytes: &Range<u64>) -> Result<Option<LogicalRange>, Error> {
        let block = u64::from(self.geometry().block_size);
        self.blocks(bytes.start.div_ceil(block), bytes.end / block)
    }

    /// The blocks of a range that has to be made of whole clusters.
    fn clusters(&self, bytes: &Range<u64>) -> Result<LogicalRange, Error> {
        let cluster = u64::from(self.geometry().block_size) << self.geometry().cluster_bits;
        if !bytes.start.is_multiple_of(cluster) || !bytes.end.is_multiple_of(cluster) {
            return Err(Error::Invalid("a range of whole clusters is wanted"));
        }
        self.touching(bytes)
    }

    fn blocks(&self, start: u64, end: u64) -> Result<Option<LogicalRange>, Error> {
        let number = |n: u64| u32::try_from(n).map_err(|_| Error::TooLarge);
        let (start, end) = (number(start)?, number(end)?);
        Ok(LogicalBlock::new(start).and_then(|start| LogicalRange::between(start, end)))
    }
}
