//! Files whose bytes live inside their inode: read there; moved into blocks before they change.
//!
//! Source: kernel `fs/ext4/inline.c`: `ext4_readpage_inline`, `ext4_convert_inline_data`, `ext4_inline_data_truncate` (D6).
//! Differs: every change but a cut moves the bytes out first, in one transaction that orders them.

use alloc::sync::Arc;

use extant_format::cast::u64_from;
use extant_format::{InodeFlags, LogicalRange};

use super::Files;
use crate::Error;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::page_cache::PageIndex;
use crate::trace::HandleType;
use crate::transaction::{Credits, Handle, credits};
use crate::writeback::OrderedFile;

impl Files {
    /// Copies bytes from `offset` on, which lies before the end of file.
    pub(super) fn read_inline(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let data = self.xattrs.read_inline(inode)?;
        let size = usize::try_from(inode.size()).unwrap_or(usize::MAX).min(data.len());
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(size);
        let count = (size - start).min(buffer.len());
        buffer[..count].copy_from_slice(&data[start..start + count]);
        Ok(count)
    }

    /// Moves the bytes of an inline file into its first block, which the commit waits for, so that they are in one
    /// place or the other after a crash.
    pub(super) fn leave_inode(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        if !inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        let room = self.xattrs.read_inline(inode)?;
        let data = &room[..room.len().min(usize::try_from(inode.size()).unwrap_or(usize::MAX))];
        let blocks = self.mapper.credits(inode, 1) + credits::XATTR + 2;
        let mut handle = {
            let credits = Credits::blocks(blocks, self.geometry());
            self.transactions.begin(credits.of(HandleType::WritePage, inode.number()))?
        };
        self.xattrs.drop_inline(&mut handle, inode)?;
        if !data.is_empty() {
            let folio = inode.pages.find_or_create(PageIndex::ZERO, data.len(), 0);
            let bytes = 0..data.len();
            let map =
                |range: LogicalRange| self.mapper.map(&mut handle, inode, range, MapFlags::CREATE);
            if let Err(error) = self.prepare(inode, &folio, &bytes, map) {
                drop(folio);
                self.return_to_inode(handle, inode, &room)?;
                return Err(error);
            }
            folio.write_bytes(0, data);
            folio.commit_write(&bytes);
            drop(folio);
            handle.order(OrderedFile::new(self.writeback.own(), inode), 0..u64_from(data.len()));
        }
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        self.writeback.note_dirty(inode);
        Ok(())
    }

    /// No block was to be had: the bytes go back to where they were.
    ///
    /// Source: kernel `ext4_restore_inline_data`.
    fn return_to_inode(
        &self,
        mut handle: Handle<'_>,
        inode: &Inode,
        room: &[u8],
    ) -> Result<(), Error> {
        let returned = self.xattrs.make_inline(&mut handle, inode, room.len()).and_then(|fits| {
            if fits { self.xattrs.write_inline(&mut handle, inode, 0, room) } else { Ok(()) }
        });
        returned.inspect_err(|error| {
            self.transactions.abort(error, "inline data could not be put back");
        })?;
        handle.stop()
    }

    /// Cuts an inline file, or moves it into blocks if it is to grow. `true`: it is done.
    pub(super) fn truncate_inline(&self, inode: &Arc<Inode>, size: u64) -> Result<bool, Error> {
        if size > inode.size() {
            self.leave_inode(inode)?;
            return Ok(false);
        }
        let data = self.xattrs.read_inline(inode)?;
        let kept = usize::try_from(size).unwrap_or(usize::MAX).min(data.len());
        let mut handle = self.transactions.begin(
            Credits::blocks(2 + credits::XATTR, self.geometry())
                .of(HandleType::Inode, inode.number()),
        )?;
        // What is cut off must read as zeros if the file grows again.
        let cut = data.len() - kept;
        self.xattrs.write_inline(&mut handle, inode, kept, &alloc::vec![0; cut])?;
        inode.set_size(size);
        let now = self.transactions.clock().wall();
        {
            let mut core = inode.core.lock();
            core.size = size;
            (core.mtime, core.ctime) = (now, now);
        }
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        Ok(true)
    }
}
