//! Cutting and growing files, and the end of an inode without names.
//!
//! Source: kernel `ext4_setattr`, `ext4_truncate`, `ext4_evict_inode`, `ext4_truncate_failed_write` (D5.3, D22).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use extant_format::{FileType, InodeFlags, LogicalBlock, LogicalRange};

use super::Files;
use crate::Error;
use crate::inode::Inode;
use crate::trace::{Event, HandleType};
use crate::transaction::{Credits, Handle, credits};

impl Files {
    /// Cuts or grows the file to `size` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NotPermitted`], of the device.
    /// # Locks
    /// Takes `content`, then `invalidate`, for writing.
    pub(crate) fn truncate(&self, inode: &Arc<Inode>, size: u64) -> Result<(), Error> {
        self.transactions.check_writable()?;
        let _content = inode.content.write();
        if inode.flags().intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return Err(Error::NotPermitted);
        }
        if size > self.max_bytes(inode) {
            return Err(Error::TooLarge);
        }
        let is_empty =
            inode.size() == 0 && inode.core.lock().blocks == 0 && inode.pages.dirty_blocks() == 0;
        if size == 0 && is_empty {
            return Ok(());
        }
        if inode.flags().contains(InodeFlags::INLINE_DATA) && self.truncate_inline(inode, size)? {
            return Ok(());
        }
        if size > inode.size() {
            return self.grow(inode, size);
        }
        if size == 0 && inode.size() > 0 {
            inode.allocate_on_close.store(true, Ordering::Release);
        }
        if self.ordered && size < inode.size() {
            let (ino, new_size) = (inode.number(), size);
            self.transactions.tracer().emit(|| Event::BeginOrderedTruncate { ino, new_size });
        }
        self.set_both_sizes(inode, size)?;
        let _invalidate = inode.invalidate.write();
        inode.pages.invalidate(size..u64::MAX);
        self.cut_blocks(inode)
    }

    /// Only sizes change; nothing is allocated or promised (D22.2).
    fn grow(&self, inode: &Arc<Inode>, size: u64) -> Result<(), Error> {
        let old = inode.size();
        let block = u64::from(self.geometry().block_size);
        let tail = old..old.next_multiple_of(block).min(size);
        let mut handle = self.begin_store(inode, 3)?;
        self.zero_in_block(&mut handle, inode, tail)?;
        inode.set_size(size);
        self.touch(inode, size);
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()
    }

    /// Both sizes, with the inode on the orphan list until its blocks are gone (D22.1).
    fn set_both_sizes(&self, inode: &Arc<Inode>, size: u64) -> Result<(), Error> {
        let mut handle = self.begin_store(inode, 3)?;
        self.orphans.add(&mut handle, inode)?;
        inode.set_size(size);
        self.touch(inode, size);
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()
    }

    fn touch(&self, inode: &Inode, size: u64) {
        let now = self.transactions.clock().wall();
        let mut core = inode.core.lock();
        core.size = size;
        (core.mtime, core.ctime) = (now, now);
    }

    /// Frees every block behind the end of file, and takes the inode off the orphan list if it has names (D22.4).
    pub(super) fn cut_blocks(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        if self.has_blocks(inode) {
            self.tell_truncate(inode, true);
            let size = inode.size();
            let block = u64::from(self.geometry().block_size);
            let tail = size..size.next_multiple_of(block);
            let is_file = inode.file_type() == FileType::Regular;
            let first = u32::try_from(size.div_ceil(block)).unwrap_or(u32::MAX);
            if let Some(first) = LogicalBlock::new(first) {
                let mut handle = self.begin_truncate(inode)?;
                if is_file {
                    // The zeros behind the new end come with the cut.
                    self.zero_in_block(&mut handle, inode, tail)?;
                }
                self.mapper.remove(&mut handle, inode, LogicalRange::from_block_on(first))?;
                inode.note_transaction(handle.transaction_id(), true);
                handle.stop()?;
            }
            self.tell_truncate(inode, false);
        }
        if inode.core.lock().links == 0 {
            return Ok(());
        }
        let mut handle = self.begin_store(inode, 3 + credits::XATTR)?;
        self.orphans.remove(&mut handle, inode)?;
        self.inodes.store(&mut handle, inode)?;
        handle.stop()
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
        inode.pages.invalidate(inode.size()..u64::MAX);
        let mut handle = self.begin_store(inode, 3 + credits::XATTR)?;
        self.orphans.add(&mut handle, inode)?;
        handle.stop()?;
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
        if self.ordered && inode.file_type() == FileType::Regular {
            self.transactions.tracer().emit(|| Event::BeginOrderedTruncate { ino, new_size: 0 });
        }
        {
            let _invalidate = inode.invalidate.write();
            inode.pages.invalidate(0..u64::MAX);
        }
        inode.set_size(0);
        let is_directory = inode.file_type() == FileType::Directory;
        let is_fast_link = inode.file_type() == FileType::Symlink && !self.has_blocks(inode);
        if !is_fast_link {
            if self.has_blocks(inode) {
                inode.core.lock().size = 0;
            }
            self.remove_all_blocks(inode)?;
        }
        let blocks = credits::DATA + credits::XATTR + 8;
        let wanted = Credits::blocks(blocks, self.geometry());
        let mut handle =
            self.transactions.begin(wanted.of(HandleType::Truncate, inode.number()))?;
        match self.free_inode(&mut handle, inode, is_directory) {
            Ok(()) => handle.stop()?,
            Err(error) => return Err(handle.fail(error)),
        }
        self.inodes.forget(inode);
        Ok(())
    }

    /// The last transaction of an inode without blocks.
    fn free_inode(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        is_directory: bool,
    ) -> Result<(), Error> {
        self.xattrs.release_all(handle, inode)?;
        self.orphans.remove(handle, inode)?;
        {
            let mut core = inode.core.lock();
            core.dtime =
                u32::try_from(self.transactions.clock().wall().seconds).unwrap_or(u32::MAX);
            core.size = 0;
        }
        self.inodes.store(handle, inode)?;
        self.transactions.tracer().emit(|| {
            let core = inode.core.lock();
            let (mode, uid, gid, blocks) = (core.mode, core.uid, core.gid, core.blocks);
            Event::FreeInode { ino: inode.number(), mode, uid, gid, blocks }
        });
        self.allocator.free_inode(handle, inode.number(), is_directory)
    }

    fn remove_all_blocks(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        let core_type = inode.file_type();
        let mapped = match core_type {
            FileType::Regular | FileType::Directory => {
                !inode.flags().contains(InodeFlags::INLINE_DATA)
            }
            FileType::Symlink => inode.core.lock().blocks > 0,
            _ => false,
        };
        if !mapped {
            return Ok(());
        }
        self.tell_truncate(inode, true);
        let mut handle = self.begin_truncate(inode)?;
        self.mapper.remove(&mut handle, inode, LogicalRange::ALL)?;
        handle.stop()?;
        self.tell_truncate(inode, false);
        Ok(())
    }
}
