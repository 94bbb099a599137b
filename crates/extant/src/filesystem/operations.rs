//! The engine by inode handle: bytes and names, with the caller's identity.
//!
//! Source: kernel `fs/ext4/file.c`, `namei.c`, as the VFS calls them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};
use core::sync::atomic::Ordering;

use extant_format::{InodeFlags, InodeNumber, LogicalBlock, PhysicalBlock};

use super::volume::Volume;
use crate::Error;
use crate::caller::Caller;
use crate::file::{Flags, OpenFile, Source};
use crate::inode::Inode;
use crate::namespace::{DirCursor, Listed, NodeKind, RenameFlags};
use crate::report::{FileExtent, RangeChange, RangeSync};
use crate::xattr::SetHow;

impl Volume {
    /// The root directory.
    pub(crate) fn root(&self) -> Result<Arc<Inode>, Error> {
        self.inodes.get(InodeNumber::ROOT)
    }

    /// An inode by its number, which a user can have been given.
    ///
    /// # Errors
    /// [`Error::Stale`] if no file has this number.
    /// # Source
    /// Kernel `fs/ext4/inode.c`, `__ext4_iget` with `EXT4_IGET_HANDLE`.
    pub(crate) fn inode_numbered(&self, number: InodeNumber) -> Result<Arc<Inode>, Error> {
        let geometry = self.transactions.geometry();
        let is_reserved = number.get() < geometry.first_inode && number != InodeNumber::ROOT;
        if is_reserved || number.get() > geometry.inodes_count {
            return Err(Error::Stale(number));
        }
        self.inodes.get(number)
    }

    /// Whether a file may be opened to be written: what is immutable is not, what is append-only at its end alone.
    ///
    /// # Errors
    /// [`Error::NotPermitted`].
    /// # Source
    /// Kernel `fs/namei.c`, `may_open`, `inode_permission`.
    pub(crate) fn check_open(
        &self,
        inode: &Inode,
        appends: bool,
        truncates: bool,
    ) -> Result<(), Error> {
        let flags = inode.flags();
        let only_grows = flags.contains(InodeFlags::APPEND);
        if flags.contains(InodeFlags::IMMUTABLE) || only_grows && (!appends || truncates) {
            return Err(Error::NotPermitted);
        }
        Ok(())
    }

    /// Opens a file; `writes` counts it among its writers.
    pub(crate) fn open_file(&self, inode: &Arc<Inode>, writes: bool) -> Result<OpenFile, Error> {
        if writes {
            self.transactions.check_writable()?;
            inode.writers.fetch_add(1, Ordering::AcqRel);
        }
        Ok(self.files.open(inode))
    }

    /// Closes a file: what was truncated and written anew goes out (D24.2), and the last writer gives back what was set
    /// aside for it (D24.5).
    pub(crate) fn close_file(&self, inode: &Arc<Inode>, writes: bool) {
        // Where a volume is frozen, only memory changes.
        let gate = self.gate.try_read();
        if gate.is_some()
            && inode.allocate_on_close.swap(false, Ordering::AcqRel)
            && self.auto_da_alloc()
        {
            self.writeback.write_replacement(inode);
        }
        if writes && inode.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let promised = inode.reservations.lock().promise().clusters.get();
            if promised == 0 {
                self.allocator.discard_preallocations(inode.number());
            }
        }
    }

    /// Copies bytes from `offset` on into `buffer`.
    pub(crate) fn read_file(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        self.files.read(inode, open, offset, buffer)
    }

    /// The same for those who have a cache of their own.
    pub(crate) fn read_uncached(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        self.files.read_uncached(inode, open, offset, buffer)
    }

    /// Writes `bytes` from `offset` on, or at the end.
    pub(crate) fn write_file(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        mut bytes: &[u8],
    ) -> Result<usize, Error> {
        self.write_file_from(caller, inode, offset, &mut bytes, Flags::Count)
    }

    /// Writes what `source` has from `offset` on, or at the end.
    pub(crate) fn write_file_from<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        source: &mut S,
        flags: Flags,
    ) -> Result<usize, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.files.write(caller, inode, offset, source, flags)
    }

    /// The same, past the cache.
    pub(crate) fn read_direct(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        self.files.read_direct(inode, open, offset, buffer)
    }

    /// Writes what `source` has past the cache.
    pub(crate) fn write_direct<S: Source + ?Sized>(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        source: &mut S,
    ) -> Result<usize, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.files.write_direct(caller, inode, offset, source)
    }

    /// Stores `bytes` as through a shared mapping.
    pub(crate) fn store(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.files.store(caller, inode, open, offset, bytes)
    }

    /// Cuts or grows a file.
    pub(crate) fn truncate(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        size: u64,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        self.files.truncate(caller, inode, size)
    }

    /// Changes what a range of a file is.
    pub(crate) fn change_range(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        change: RangeChange,
        bytes: Range<u64>,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.files.change_range(caller, inode, change, bytes)
    }

    /// fsync, or fdatasync.
    pub(crate) fn sync_file(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        data_only: bool,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        self.files.sync(inode, open, data_only)
    }

    /// Writes a range of a file out, without its metadata.
    pub(crate) fn sync_range(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        bytes: Range<u64>,
        steps: RangeSync,
    ) -> Result<(), Error> {
        self.files.sync_range(inode, open, bytes, steps)
    }

    /// The next data or hole.
    pub(crate) fn seek(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: bool,
    ) -> Result<Option<u64>, Error> {
        self.files.seek(inode, offset, data)
    }

    /// Where a file's blocks lie: the first runs, at most so many.
    pub(crate) fn extents(
        &self,
        inode: &Arc<Inode>,
        bytes: &Range<u64>,
        most: usize,
    ) -> Result<Vec<FileExtent>, Error> {
        self.files.extents(inode, bytes, most)
    }

    /// Gives an empty file its size and places for its bytes, which somebody else brings there.
    pub(crate) fn lay_out(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        parts: &[Range<u64>],
        size: u64,
    ) -> Result<Vec<FileExtent>, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.files.lay_out(caller, inode, parts, size)
    }

    /// Where one block of a file is, once it has a place.
    pub(crate) fn place_of(
        &self,
        inode: &Arc<Inode>,
        block: LogicalBlock,
    ) -> Result<Option<PhysicalBlock>, Error> {
        let _gate = self.gate.read();
        self.files.place_of(inode, block)
    }

    /// Frees an inode whose last user is gone, if it has no names; while the volume is frozen, that is left to the thaw.
    pub(crate) fn release(&self, inode: &Arc<Inode>) {
        match self.gate.try_read() {
            Some(_gate) => self.dispose(inode),
            None if inode.core.lock().links == 0 => self.orphans.note_unused(inode.number()),
            None => {}
        }
    }

    /// Frees an inode if neither names nor users of it are left.
    fn dispose(&self, inode: &Arc<Inode>) {
        let has_names = inode.core.lock().links > 0;
        if !has_names && self.transactions.check_writable().is_ok() && inode.retire() {
            // What fails here stays on the orphan list, and the next mount finishes it.
            let _ = self.files.evict(inode);
        }
    }

    /// Frees the inodes that nothing names any more: values of attributes, and what an operation could not give a name.
    pub(super) fn dispose_values(&self) {
        for number in self.orphans.take_unused() {
            if let Ok(inode) = self.inodes.get(number) {
                self.dispose(&inode);
            }
        }
    }

    /// The inode that `name` leads to.
    pub(crate) fn lookup(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        self.namespace.lookup(caller, dir, name)
    }

    /// Hands names from `cursor` on to `sink`.
    pub(crate) fn list(
        &self,
        dir: &Arc<Inode>,
        cursor: DirCursor,
        sink: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.namespace.read_dir(dir, cursor, sink)
    }

    /// Where a symbolic link leads.
    pub(crate) fn read_link(&self, inode: &Arc<Inode>) -> Result<Vec<u8>, Error> {
        self.namespace.read_link(inode)
    }

    /// Makes a regular file.
    pub(crate) fn create_file(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.namespace.create(caller, dir, name, mode).inspect_err(|_| self.dispose_values())
    }

    /// Makes a regular file without a name.
    pub(crate) fn make_unnamed(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        let _gate = self.gate.read();
        self.reclaim();
        self.namespace.make_unnamed(caller, dir, mode).inspect_err(|_| self.dispose_values())
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        let _gate = self.gate.read();
        self.namespace
            .make_directory(caller, dir, name, mode)
            .inspect_err(|_| self.dispose_values())
    }

    /// Makes a device file, a pipe or a socket.
    pub(crate) fn make_node(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
        kind: NodeKind,
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        let _gate = self.gate.read();
        self.namespace
            .make_node(caller, dir, name, mode, kind)
            .inspect_err(|_| self.dispose_values())
    }

    /// Makes a symbolic link.
    pub(crate) fn make_symlink(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
        target: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        let _gate = self.gate.read();
        self.namespace
            .make_symlink(caller, dir, name, target)
            .inspect_err(|_| self.dispose_values())
    }

    /// Gives an inode another name.
    pub(crate) fn link(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        self.namespace.link(caller, inode, dir, name)
    }

    /// Removes a name of anything but a directory.
    pub(crate) fn unlink(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        let inode = self.namespace.unlink(caller, dir, name)?;
        self.dispose(&inode);
        self.dispose_values();
        Ok(())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        let inode = self.namespace.remove_directory(caller, dir, name)?;
        self.dispose(&inode);
        self.dispose_values();
        Ok(())
    }

    /// Gives what one name leads to another name; what had that name before may be freed. A file that replaces another
    /// goes out first (D24.3).
    pub(crate) fn rename(
        &self,
        caller: &Caller,
        (old_dir, old_name): (&Arc<Inode>, &[u8]),
        (new_dir, new_name): (&Arc<Inode>, &[u8]),
        flags: RenameFlags,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        if self.auto_da_alloc() && self.namespace.lookup(caller, new_dir, new_name).is_ok() {
            let moved = self.namespace.lookup(caller, old_dir, old_name)?;
            self.writeback.write_replacement(&moved);
        }
        let replaced = self
            .namespace
            .rename(caller, (old_dir, old_name), (new_dir, new_name), flags)
            .inspect_err(|_| self.dispose_values())?;
        if let Some(inode) = replaced {
            self.dispose(&inode);
            self.dispose_values();
        }
        Ok(())
    }

    /// The names of an inode's extended attributes.
    pub(crate) fn list_xattrs(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        self.xattrs.list(inode, caller)
    }

    /// The value of an extended attribute.
    pub(crate) fn xattr(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.xattrs.get(inode, name, caller)
    }

    /// Sets an extended attribute, or removes it.
    pub(crate) fn set_xattr(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        name: &[u8],
        value: Option<&[u8]>,
        how: SetHow,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        let set = self.xattrs.set(inode, name, value, how, caller);
        self.dispose_values();
        set
    }
}
