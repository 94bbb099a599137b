//! An open file.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::{LogicalBlock, PhysicalBlock};

use super::handle::InodeHandle;
use super::{Filesystem, path};
use crate::Error;
use crate::caller::Caller;
use crate::file::{Flags, OpenFile, Source};
use crate::report::{FileExtent, Metadata, RangeChange, RangeSync};

/// How a file is opened; as `std::fs::OpenOptions`.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    direct: bool,
    uncached: bool,
    tells_the_end: bool,
    mode: u16,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            direct: false,
            uncached: false,
            tells_the_end: false,
            mode: 0o644,
        }
    }
}

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(self, on: bool) -> Self {
            Self { $name: on, ..self }
        })*
    };
}

impl OpenOptions {
    /// Nothing at all is allowed yet.
    pub fn new() -> Self {
        Self::default()
    }

    switches! {
        /// The file may be read.
        read
        /// The file may be written.
        write
        /// Every write goes to the end.
        append
        /// What is in the file is dropped first.
        truncate
        /// A missing file is made.
        create
        /// The file is made, and must not exist.
        create_new
        /// Past the cache, in whole sectors (`O_DIRECT`).
        direct
        /// What is read is not kept, nor is anything read ahead: for front-ends that have a cache of their own.
        uncached
        /// Every write is meant to go to the end, and whoever writes says where that is: an append-only file may be opened as
        /// with `append`.
        tells_the_end
    }

    /// Permission bits of a file that is made.
    #[must_use]
    pub fn mode(self, mode: u16) -> Self {
        Self { mode, ..self }
    }
}

/// An open file. With the feature `std` it is `Read`, `Write` and `Seek`.
#[derive(Debug)]
pub struct File {
    filesystem: Filesystem,
    handle: InodeHandle,
    open: OpenFile,
    options: OpenOptions,
    #[cfg_attr(
        not(feature = "std"),
        expect(dead_code, reason = "only Read, Write and Seek move it")
    )]
    position: u64,
}

impl File {
    pub(super) fn open(
        filesystem: &Filesystem,
        path: &[u8],
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let (handle, is_new) = Self::find_or_create(filesystem, path, options)?;
        // There is nothing to be cut off a new file.
        let options = OpenOptions { truncate: options.truncate && !is_new, ..options };
        Self::of(filesystem.clone(), handle, options)
    }

    pub(super) fn of(
        filesystem: Filesystem,
        handle: InodeHandle,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let writes = options.write || options.append;
        if handle.is_dir() && writes {
            return Err(Error::IsDirectory);
        }
        if writes {
            let appends = options.append || options.tells_the_end;
            filesystem.volume.check_open(&handle.inode, appends, options.truncate)?;
        }
        let open = filesystem.volume.open_file(&handle.inode, writes)?;
        let file = Self { filesystem, handle, open, options, position: 0 };
        if options.truncate && writes {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn find_or_create(
        filesystem: &Filesystem,
        path: &[u8],
        options: OpenOptions,
    ) -> Result<(InodeHandle, bool), Error> {
        if !options.create && !options.create_new {
            return Ok((filesystem.resolve(path, path::Last::Follow)?, false));
        }
        if path.ends_with(b"/") {
            return Err(Error::IsDirectory);
        }
        let mut path = Cow::Borrowed(path);
        for _ in 0..path::MAX_LINKS {
            let made = filesystem.make(&path, |parent, name| {
                filesystem.volume.create_file(&Caller::ROOT, parent, name, options.mode)
            });
            match made {
                Err(Error::Exists) if !options.create_new => {}
                made => return Ok((made?, true)),
            }
            // A link that leads nowhere says where the file is made.
            match filesystem.resolve(&path, path::Last::Follow) {
                Err(Error::NotFound) => {}
                found => return Ok((found?, false)),
            }
            path = Cow::Owned(filesystem.behind_link(&path)?);
        }
        Err(Error::LinkLoop)
    }

    /// The same open file in the hands of `caller`, for whom it writes and allocates from now on: an ordinary one cannot have
    /// the space that is kept for root, and the set-user bit goes where he writes. Whether he may have the file at all is not
    /// asked again. Until this is called that is root.
    #[must_use]
    pub fn for_caller(mut self, caller: &Caller) -> Self {
        self.handle.hand_to(caller);
        self
    }

    /// The inode behind it.
    pub fn inode(&self) -> &InodeHandle {
        &self.handle
    }

    /// Reads up to `buffer.len()` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Error::IsDirectory`], of the device, or of the block map.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        if self.handle.is_dir() {
            return Err(Error::IsDirectory);
        }
        if !self.options.read {
            return Err(Error::Invalid("the file is not open for reading"));
        }
        let (volume, inode) = (&self.filesystem.volume, &self.handle.inode);
        match self.options.direct {
            true => volume.read_direct(inode, &self.open, offset, buffer),
            false if self.options.uncached => {
                volume.read_uncached(inode, &self.open, offset, buffer)
            }
            false => volume.read_file(inode, &self.open, offset, buffer),
        }
    }

    /// Writes all of `bytes` from `offset` on, or says how many it could.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooLarge`], of the device; only if nothing was written.
    pub fn write_at(&self, mut bytes: &[u8], offset: u64) -> Result<usize, Error> {
        self.write_source(&mut bytes, offset)
    }

    /// Writes from memory that may be missing in part, as a process's: `source` is asked for bytes while a folio is locked, and
    /// for those that were missing then while it is not. Returns how many bytes went in, which ends before the first that cannot
    /// be had. Past the cache, such a byte fails the whole write, whatever of it the device has got by then.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); [`Error::SourceFailed`]. As in the kernel, the file may have grown up to `offset`.
    /// # Source
    /// Kernel `generic_perform_write`, `iomap_dio_bio_iter`.
    pub fn write_from(&self, source: &mut dyn Source, offset: u64) -> Result<usize, Error> {
        self.write_source(source, offset)
    }

    /// Writes bytes that a cache of the caller's own accepted before, when the file could be written: it need not be so any more,
    /// as an append-only file of which a page comes that was there in part, or one that is immutable now.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_back_at(&self, mut bytes: &[u8], offset: u64) -> Result<usize, Error> {
        let (volume, inode) = (&self.filesystem.volume, &self.handle.inode);
        self.require_write()?;
        volume.write_file_from(self.handle.caller(), inode, Some(offset), &mut bytes, Flags::Passed)
    }

    fn write_source<S: Source + ?Sized>(
        &self,
        source: &mut S,
        offset: u64,
    ) -> Result<usize, Error> {
        self.require_write()?;
        let offset = if self.options.append { None } else { Some(offset) };
        let (volume, inode) = (&self.filesystem.volume, &self.handle.inode);
        match self.options.direct {
            true => volume.write_direct(self.handle.caller(), inode, offset, source),
            false => {
                let caller = self.handle.caller();
                volume.write_file_from(caller, inode, offset, source, Flags::Count)
            }
        }
    }

    /// Stores bytes as a program does through a shared mapping: within the file's size. The whole folio gets a place or a
    /// promise first, up to the end of file; without bytes that is all that is done. Returns how many bytes went in.
    ///
    /// # Errors
    /// [`Error::NoSpace`], of the device; [`Error::Invalid`] behind the end of file. A program would get `SIGBUS`.
    pub fn store_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Error> {
        self.require_write()?;
        self.filesystem.volume.store(
            self.handle.caller(),
            &self.handle.inode,
            &self.open,
            offset,
            bytes,
        )
    }

    /// Cuts or extends the file to `size` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], of the device.
    pub fn set_len(&self, size: u64) -> Result<(), Error> {
        self.filesystem.volume.truncate(self.handle.caller(), &self.handle.inode, size)
    }

    /// Changes what the `len` bytes from `offset` on are: allocates, punches, zeroes, takes out or pushes in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that the change cannot have, [`Error::NotSupported`] for a file without extents,
    /// [`Error::TooLarge`]. [`Error::NoSpace`]: a part of the range may have been allocated.
    pub fn change_range(&self, change: RangeChange, offset: u64, len: u64) -> Result<(), Error> {
        self.require_write()?;
        let end = offset.checked_add(len).ok_or(Error::TooLarge)?;
        self.filesystem.volume.change_range(
            self.handle.caller(),
            &self.handle.inode,
            change,
            offset..end,
        )
    }

    fn require_write(&self) -> Result<(), Error> {
        if self.options.write || self.options.append {
            return Ok(());
        }
        Err(Error::Invalid("the file is not open for writing"))
    }

    /// Makes bytes and attributes durable.
    ///
    /// # Errors
    /// Of the device, also one that happened while earlier writes went out; such an error is told once.
    pub fn sync_all(&self) -> Result<(), Error> {
        self.filesystem.volume.sync_file(&self.handle.inode, &self.open, false)
    }

    /// Makes bytes durable, and what is needed to find them.
    ///
    /// # Errors
    /// As [`Self::sync_all`].
    pub fn sync_data(&self) -> Result<(), Error> {
        self.filesystem.volume.sync_file(&self.handle.inode, &self.open, true)
    }

    /// Writes a range of bytes out, without metadata: no promise that it is found after a crash.
    ///
    /// # Errors
    /// As [`Self::sync_all`], if a step waits.
    pub fn sync_range(&self, bytes: Range<u64>, steps: RangeSync) -> Result<(), Error> {
        self.filesystem.volume.sync_range(&self.handle.inode, &self.open, bytes, steps)
    }

    /// The file's attributes.
    ///
    /// # Errors
    /// As [`InodeHandle::metadata`].
    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.handle.metadata()
    }

    /// Where its blocks lie, also those behind the end of file.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn extents(&self) -> Result<Vec<FileExtent>, Error> {
        self.handle.extents()
    }

    /// Where the blocks that a range of bytes touches lie.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn extents_in(&self, bytes: Range<u64>) -> Result<Vec<FileExtent>, Error> {
        self.handle.extents_in(bytes)
    }

    /// The device block of one block of the file, as FIBMAP tells it: what waits for its place is written back first. `None`
    /// for a hole, for a block that is set aside and reads as zeros, and for contents in the inode.
    ///
    /// # Errors
    /// Of writing the file back, or of reading the block map.
    pub fn block_at(&self, block: u32) -> Result<Option<u64>, Error> {
        let Some(block) = LogicalBlock::new(block) else { return Ok(None) };
        let place = self.filesystem.volume.place_of(&self.handle.inode, block)?;
        Ok(place.map(PhysicalBlock::get))
    }

    /// The first byte at or after `offset` that lies in data; `None` if only a hole follows.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>, Error> {
        self.filesystem.volume.seek(&self.handle.inode, offset, true)
    }

    /// The first byte at or after `offset` that lies in a hole; the end of the file is one. `None` past the end.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn seek_hole(&self, offset: u64) -> Result<Option<u64>, Error> {
        self.filesystem.volume.seek(&self.handle.inode, offset, false)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.filesystem
            .volume
            .close_file(&self.handle.inode, self.options.write || self.options.append);
    }
}

#[cfg(feature = "std")]
mod std_io {
    use std::io;

    use super::{Error, File};
    use extant_format::cast::u64_from;

    impl From<Error> for io::Error {
        fn from(error: Error) -> Self {
            let kind = Self::from_raw_os_error(error.errno().0).kind();
            Self::new(kind, error)
        }
    }

    impl io::Read for File {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.read_at(buffer, self.position)?;
            self.position += u64_from(count);
            Ok(count)
        }
    }

    impl io::Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.write_at(bytes, self.position)?;
            self.position = if self.options.append {
                self.handle.inode.size()
            } else {
                self.position + u64_from(count)
            };
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl io::Seek for File {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            let (base, offset) = match to {
                io::SeekFrom::Start(at) => (at, 0),
                io::SeekFrom::Current(offset) => (self.position, offset),
                io::SeekFrom::End(offset) => (self.handle.inode.size(), offset),
            };
            let at =
                base.checked_add_signed(offset).ok_or(Error::Invalid("seek before the start"))?;
            self.position = at;
            Ok(at)
        }
    }
}
