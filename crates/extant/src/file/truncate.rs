//! Cutting and growing files, and the end of an inode without names.
//!
//! Source: kernel `ext4_setattr`, `ext4_truncate`, `ext4_evict_inode`, `ext4_truncate_failed_write` (D5.3, D22).

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use extant_format::cast::u64_from;
use extant_format::{FileType, InodeFlags, LogicalBlock, LogicalRange};

use super::Files;
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::trace::Event;
use crate::transaction::{Change, Handle, credits};
use crate::writeback::Ending;

impl Files {
    /// Cuts or grows the file to `size` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NotPermitted`], of the device.
    /// # Locks
    /// Takes `content`, then `invalidate`, for writing.
    pub(crate) fn truncate(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        size: u64,
    ) -> Result<(), Error> {
        self.transactions.check_writable()?;
        let _content = inode.content.write();
        if inode.flags().intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return Err(Error::NotPermitted);
        }
        if size > self.max_bytes(inode) {
            return Err(Error::TooLarge);
        }
        self.xattrs.drop_capability(inode)?;
        let room = self.inodes.find_inline(inode)?.map(|bytes| u64_from(bytes.len()));
        if room.is_some_and(|room| size > room) {
            drop(self.leave_inode(caller, inode)?);
        }
        let old = inode.size();
        if size < old {
            self.begin_ordered_truncate(inode, size);
        }
        let _invalidate = inode.invalidate.write();
        if size != old {
            self.set_both_sizes(inode, size)?;
        }
        self.drop_bytes(inode, size..u64::MAX);
        // Also if the size stays: blocks allocated ahead go.
        if size <= old {
            self.cut_blocks(inode)?;
        }
        let mut handle = self.begin_store(inode, 2)?;
        inode.set_changed(self.transactions.clock().wall());
        self.inodes.store(&mut handle, inode)?;
        // As after every change of attributes, the flusher comes by, if only to find nothing.
        self.writeback.note_dirty(inode);
        handle.stop()
    }

    /// What the committing transaction waits for would have to be written first; here a commit waits in the caller's time.
    fn begin_ordered_truncate(&self, inode: &Inode, new_size: u64) {
        if self.mapper.orders_data(inode) {
            let ino = inode.number();
            self.transactions.tracer().emit(|| Event::BeginOrderedTruncate { ino, new_size });
        }
    }

    /// Drops what memory has of `bytes`; the caller holds `invalidate` for writing.
    pub(super) fn drop_bytes(&self, inode: &Inode, bytes: Range<u64>) {
        self.drop_bytes_beside(inode, bytes, &mut None);
    }

    /// The same for one who has something under way, which ends if there is anything to wait for.
    pub(super) fn drop_bytes_beside(
        &self,
        inode: &Inode,
        bytes: Range<u64>,
        ending: &mut Option<Ending<'_>>,
    ) {
        let journals = self.mapper.journals_data(inode);
        let ends = || *ending = None;
        inode.pages.invalidate_beside(bytes, inode.size(), ends, |folio, part| {
            self.transactions.tracer().emit(|| {
                let (ino, index) = (inode.number(), folio.index().get());
                let (offset, length) = (u64_from(part.start), u64_from(part.len()));
                if journals {
                    Event::JournalledInvalidateFolio { ino, index, offset, length }
                } else {
                    Event::InvalidateFolio { ino, index, offset, length }
                }
            });
        });
    }

    /// Both sizes. With the inode on the orphan list until its blocks are gone, if it shrinks (D22.1); else nothing is
    /// allocated or promised, and what follows the old end in its block becomes zeros (D22.2).
    fn set_both_sizes(&self, inode: &Arc<Inode>, size: u64) -> Result<(), Error> {
        let old = inode.size();
        let mut handle = self.begin_store(inode, 3)?;
        if size < old {
            self.orphans.add(&mut handle, inode)?;
        } else {
            let block = u64::from(self.geometry().block_size);
            let tail = old..old.next_multiple_of(block);
            self.zero_in_block(&mut handle, inode, tail)?;
        }
        inode.set_size(size);
        self.note_resize(&handle, inode, old, size);
        let now = self.transactions.clock().wall();
        {
            let mut core = inode.core.lock();
            core.size = size;
            (core.mtime, core.ctime) = (now, now);
        }
        self.store_changed(handle, inode)
    }

    /// Notes the blocks from the shorter end on, up to the other end or to that of all blocks.
    ///
    /// Source: kernel `ext4_setattr`.
    fn note_resize(&self, handle: &Handle<'_>, inode: &Inode, old: u64, new: u64) {
        let last = |size: u64| {
            let block = size.saturating_sub(1) >> self.geometry().block_bits;
            u32::try_from(block).unwrap_or(u32::MAX - 1)
        };
        let end = if new < old { u32::MAX } else { last(new) + 1 };
        let start = LogicalBlock::new(last(old.min(new)));
        if let Some(blocks) = start.and_then(|start| LogicalRange::between(start, end)) {
            handle.note(Change::Blocks(inode.number(), blocks));
        }
    }

    /// Frees every block behind the end of file, and takes the inode off the orphan list if it has names (D22.4).
    pub(super) fn cut_blocks(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        self.tell_truncate(inode, true);
        let was_inside = inode.is_inline() && self.cut_in_inode(inode)?;
        if !was_inside && self.has_blocks(inode) {
            let mut handle = self.begin_truncate(inode)?;
            self.cut_blocks_under(&mut handle, inode)?;
            handle.stop()?;
        }
        self.tell_truncate(inode, false);
        Ok(())
    }

    /// The same under a handle, which may be restarted. Whatever was cut, that was a change of the file now.
    ///
    /// Source: kernel `ext4_truncate`, which sets the times also when recovery has it finish a cut (`ext4_orphan_cleanup`).
    fn cut_blocks_under(&self, handle: &mut Handle<'_>, inode: &Arc<Inode>) -> Result<(), Error> {
        let size = inode.size();
        if size == 0 {
            inode.allocate_on_close.store(true, Ordering::Release);
        }
        let block = u64::from(self.geometry().block_size);
        let tail = size..size.next_multiple_of(block);
        if inode.file_type() == FileType::Regular {
            // The zeros behind the new end come with the cut.
            self.zero_in_block(handle, inode, tail)?;
        }
        let first = u32::try_from(size.div_ceil(block)).unwrap_or(u32::MAX);
        self.orphans.add(handle, inode)?;
        if let Some(first) = LogicalBlock::new(first) {
            self.mapper.remove(handle, inode, LogicalRange::from_block_on(first))?;
        }
        inode.note_transaction(handle.transaction_id(), true);
        if inode.core.lock().links > 0 {
            self.make_room(handle, inode, 3)?;
            self.orphans.remove(handle, inode)?;
        }
        inode.set_changed(self.transactions.clock().wall());
        self.inodes.store(handle, inode)
    }

    /// Lets the handle change so many blocks more, in another transaction if need be.
    fn make_room(&self, handle: &mut Handle<'_>, inode: &Inode, blocks: u32) -> Result<(), Error> {
        match handle.ensure_credits(blocks, 0) {
            Err(Error::TransactionFull) => handle.restart(self.mapper.removal_credits(inode)),
            other => other,
        }
    }

    fn tell_truncate(&self, inode: &Inode, enters: bool) {
        self.transactions.tracer().emit(|| {
            let (ino, blocks) = (inode.number(), inode.core.lock().blocks);
            if enters {
                Event::TruncateEnter { ino, blocks }
            } else {
                Event::TruncateExit { ino, blocks }
            }
        });
    }

    /// Whether the inode has a block map: not for short links, devices, and inline data.
    fn has_blocks(&self, inode: &Inode) -> bool {
        let core = inode.core.lock();
        if core.flags.contains(InodeFlags::INLINE_DATA) {
            return false;
        }
        match core.file_type() {
            Some(FileType::Regular | FileType::Directory) => true,
            Some(FileType::Symlink) => core.size >= 60,
            _ => false,
        }
    }

    /// After a write that failed behind the end of file: gives back what it was promised there (D5.3).
    pub(crate) fn truncate_failed_write(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        let _invalidate = inode.invalidate.write();
        self.drop_bytes(inode, inode.size()..u64::MAX);
        self.cut_blocks(inode)
    }

    /// Completes what a crash has interrupted for an inode found on the orphan list (J9.4).
    ///
    /// # Errors
    /// Of the device or the block map.
    pub(crate) fn finish_orphan(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        if inode.core.lock().links == 0 {
            return self.evict(inode);
        }
        let _content = inode.content.write();
        self.cut_blocks(inode)
    }

    /// The end of an inode whose last name and last user are gone: frees its blocks, its attributes and its number.
    ///
    /// # Errors
    /// Of the device or the block map; the inode stays on the orphan list then, and the next mount finishes it.
    /// # Locks
    /// Takes `content`, then `invalidate`, for writing.
    pub(crate) fn evict(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        let _content = inode.content.write();
        let (ino, nlink) = (inode.number(), inode.core.lock().links.into());
        self.transactions.tracer().emit(|| Event::EvictInode { ino, nlink });
        if inode.file_type() == FileType::Regular {
            self.begin_ordered_truncate(inode, 0);
        }
        {
            let _invalidate = inode.invalidate.write();
            self.drop_bytes(inode, 0..u64::MAX);
        }
        let mut handle = self.begin_truncate(inode)?;
        inode.set_size(0);
        if inode.core.lock().blocks > 0 {
            self.tell_truncate(inode, true);
            if self.has_blocks(inode) {
                inode.core.lock().size = 0;
                self.cut_blocks_under(&mut handle, inode)?;
            }
            self.tell_truncate(inode, false);
        }
        self.make_room(&mut handle, inode, credits::DATA + credits::XATTR + 8)?;
        match self.free_inode(&mut handle, inode) {
            Ok(()) => handle.stop()?,
            Err(error) => return Err(handle.fail(error)),
        }
        self.inodes.forget(inode);
        Ok(())
    }

    /// The last steps of an inode without blocks.
    fn free_inode(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        let leaves_attributes = handle.notes_changes() && self.xattrs.are_in_inode(inode)?;
        self.xattrs.release_all(handle, inode)?;
        self.orphans.remove(handle, inode)?;
        {
            let mut core = inode.core.lock();
            core.dtime =
                u32::try_from(self.transactions.clock().wall().seconds).unwrap_or(u32::MAX);
            core.size = 0;
        }
        self.inodes.store(handle, inode)?;
        // Behind the last change of it, which notes it as any change does.
        handle.note(Change::Freed { inode: inode.number(), leaves_attributes });
        self.transactions.tracer().emit(|| {
            let core = inode.core.lock();
            let (mode, uid, gid, blocks) = (core.mode, core.uid, core.gid, core.blocks);
            Event::FreeInode { ino: inode.number(), mode, uid, gid, blocks }
        });
        let is_directory = inode.file_type() == FileType::Directory;
        if inode.file_type() == FileType::Regular {
            self.allocator.discard_preallocations(inode.number());
        }
        self.mapper.forget_delayed(inode, LogicalRange::ALL);
        self.allocator.free_inode(handle, inode.number(), is_directory)
    }
}
