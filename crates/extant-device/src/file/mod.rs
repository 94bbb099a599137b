//! [`FileDevice`]: an image file or a block device of the operating system (Linux).
//!
//! A batch is sorted; requests that touch become one vectored call; one `fdatasync` at its end serves every flush and
//! every FUA write of the batch. Zeros are punched where the system can, else zeroed in place, else written.
//!
//! # Invariants
//! A device open for writing holds an exclusive `flock` (and, on a block device, `O_EXCL`) until it is dropped, and the
//! image was neither mounted nor attached to a loop device when it was opened.
//! # Locking
//! None: positioned calls need no lock.
//! # Not here
//! Direct I/O, and overlapping the requests of a batch by a ring: both need memory that safe Rust cannot promise.
//! # Source
//! fallocate(2) on block devices: kernel `block/fops.c`, `blkdev_fallocate`.

mod in_use;
mod open_error;
mod transfer;

use std::fs::{File, Metadata};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use alloc::vec::Vec;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

pub use self::open_error::{LockHolder, OpenError};
use crate::cast::u64_from;
use crate::device::{BlockDevice, DeviceGeometry};
use crate::error::DeviceError;
use crate::request::{Operation, OperationKind, Request};

const SECTOR_BYTES: u32 = 512;

/// An open image file or block device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    geometry: DeviceGeometry,
}

/// Whom an open device keeps out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    /// Nobody; the bytes may change under the reader.
    Read,
    /// Writers.
    ReadLocked,
    /// Everybody else who locks.
    Write,
}

impl FileDevice {
    /// Opens for reading, whoever else uses the image.
    ///
    /// # Errors
    /// [`OpenError::System`], [`OpenError::WrongKind`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), Access::Read)
    }

    /// Opens for reading, whoever else uses the image: keeps out [`FileDevice`]s that write, unless there is a writer
    /// already, who is returned then; the bytes may change under the reader in that case.
    ///
    /// # Errors
    /// As [`Self::open_read_only`].
    pub fn open_beside(path: impl AsRef<Path>) -> Result<(Self, Option<OpenError>), OpenError> {
        let path = path.as_ref();
        let device = Self::open_as(path, Access::Read)?;
        let writer = device.writer()?;
        Ok((device, writer))
    }

    /// Who may write to what is open for reading: somebody with a lock, or the kernel by a mount. Takes the readers' lock if
    /// nobody holds the writers'.
    ///
    /// # Errors
    /// [`OpenError::System`].
    pub fn writer(&self) -> Result<Option<OpenError>, OpenError> {
        let metadata = self.file.metadata().map_err(OpenError::system(&self.path))?;
        Ok(in_use::writer(&self.file, &metadata, &self.path))
    }

    /// Opens for reading and keeps out [`FileDevice`]s that write.
    ///
    /// # Errors
    /// As [`Self::open_read_only`], and [`OpenError::Locked`] while somebody writes.
    pub fn open_read_locked(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), Access::ReadLocked)
    }

    /// Opens for reading and writing, as the only one.
    ///
    /// # Errors
    /// Any [`OpenError`]: the image must be neither locked, mounted nor attached to a loop device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), Access::Write)
    }

    /// Makes a file of `len_bytes` zeros, for writing; if it exists, what was in it is lost.
    ///
    /// # Errors
    /// As [`Self::open`]; the old content is intact then. [`OpenError::Length`]: it is lost, and no new file stays.
    pub fn create(path: impl AsRef<Path>, len_bytes: u64) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let found = std::fs::metadata(path);
        if found.as_ref().is_ok_and(|found| !found.is_file()) {
            return Err(OpenError::WrongKind { path: path.into(), wanted: "a regular file" });
        }
        let file = open_file(path, OFlags::RDWR | OFlags::CREATE);
        let file = file.map_err(|errno| OpenError::system(path)(errno.into()))?;
        let mut device = Self::guarded(file, path, Access::Write)?;
        if let Err(source) = device.set_len(0).and_then(|()| device.set_len(len_bytes)) {
            if found.is_err() {
                // It was made here; that it stays is no worse than what is told.
                let _ = std::fs::remove_file(path);
            }
            return Err(OpenError::Length { path: path.into(), len_bytes, source });
        }
        Ok(device)
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives an image file another length; what is added reads as zeros.
    ///
    /// # Errors
    /// The system's; a block device has a fixed length.
    pub fn set_len(&mut self, len_bytes: u64) -> std::io::Result<()> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.file, len_bytes))?;
        self.geometry.len_bytes = len_bytes;
        Ok(())
    }

    fn open_as(path: &Path, access: Access) -> Result<Self, OpenError> {
        let found = std::fs::metadata(path).map_err(OpenError::system(path))?;
        let is_device = found.file_type().is_block_device();
        if !(found.is_file() || is_device) {
            return Err(OpenError::WrongKind {
                path: path.into(),
                wanted: "a regular file or a block device",
            });
        }
        let flags = match access {
            Access::Read | Access::ReadLocked => OFlags::RDONLY,
            Access::Write if is_device => OFlags::RDWR | OFlags::EXCL, // EXCL: EBUSY if the kernel uses it
            Access::Write => OFlags::RDWR,
        };
        match open_file(path, flags) {
            Ok(file) => Self::guarded(file, path, access),
            Err(Errno::BUSY) if is_device => {
                in_use::check(&found, path)?;
                Err(OpenError::Claimed { path: path.into() })
            }
            Err(errno) => Err(OpenError::system(path)(errno.into())),
        }
    }

    fn guarded(file: File, path: &Path, access: Access) -> Result<Self, OpenError> {
        let metadata = file.metadata().map_err(OpenError::system(path))?;
        match access {
            Access::Read => {}
            Access::ReadLocked => in_use::lock_shared(&file, &metadata, path)?,
            Access::Write => {
                let locked = in_use::lock_exclusive(&file, &metadata, path);
                in_use::check(&metadata, path)?; // a mount's server holds the lock; its mount says more
                locked?;
            }
        }
        let geometry = geometry_of(&file, &metadata, access != Access::Write)
            .map_err(OpenError::system(path))?;
        Ok(Self { file, path: path.into(), geometry })
    }

    /// Makes durable what was written.
    fn sync(&self) -> Result<(), Errno> {
        if self.geometry.read_only {
            Ok(())
        } else {
            retry_on_intr(|| rustix::fs::fdatasync(&self.file))
        }
    }
}

impl Drop for FileDevice {
    /// Unlocks by name, since closing does not while a child that is about to exec still shares the descriptor.
    fn drop(&mut self) {
        in_use::unlock(&self.file);
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> DeviceGeometry {
        self.geometry
    }

    fn run(&self, batch: &mut [Request]) {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let (mut sync, mut durable) = (false, Vec::new());
        for request in batch.iter_mut() {
            request.result = request.check(&self.geometry);
            if request.result.is_err() {
                continue;
            }
            match request.operation {
                Operation::Read { .. } => reads.push(request),
                Operation::Write { fua, .. } => {
                    sync |= fua;
                    writes.push(request);
                }
                Operation::Flush => {
                    sync = true;
                    durable.push(request);
                }
                Operation::Discard { len } => {
                    request.result = transfer::discard(&self.file, request.offset, len);
                }
                Operation::WriteZeroes { len } => {
                    request.result = transfer::write_zeroes(&self.file, request.offset, len);
                }
            }
        }
        transfer::read_all(&self.file, &mut reads);
        transfer::write_all(&self.file, &mut writes);
        if !sync {
            return;
        }
        if let Err(errno) = self.sync() {
            let fua = |request: &&mut Request| {
                matches!(request.operation, Operation::Write { fua: true, .. })
            };
            for request in writes.into_iter().filter(fua).chain(durable) {
                if request.result.is_ok() {
                    request.result = Err(io_error(OperationKind::Flush, request.offset, errno));
                }
            }
        }
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.geometry.check_range(OperationKind::Read, offset, u64_from(bytes.len()))?;
        transfer::read_into(&self.file, offset, bytes)
    }
}

fn open_file(path: &Path, flags: OFlags) -> Result<File, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::from(0o666))).map(File::from)
}

fn geometry_of(
    file: &File,
    metadata: &Metadata,
    read_only: bool,
) -> std::io::Result<DeviceGeometry> {
    let (len_bytes, sector_bytes) = if metadata.file_type().is_block_device() {
        (rustix::fs::seek(file, SeekFrom::End(0))?, rustix::fs::ioctl_blksszget(file)?)
    } else {
        (metadata.len(), SECTOR_BYTES)
    };
    Ok(DeviceGeometry {
        len_bytes,
        sector_bytes,
        read_only,
        discard: !read_only,
        fast_zeroes: !read_only,
    })
}

fn io_error(operation: OperationKind, offset: u64, errno: Errno) -> DeviceError {
    DeviceError::Io { operation, offset, errno: Some(errno.raw_os_error()) }
}

#[cfg(test)]
mod tests;
