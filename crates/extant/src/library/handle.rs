//! One inode in use, by those who look from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use extant_format::{FileType, InodeNumber};

use super::metadata::{DirEntry, FileExtent, Metadata};
use crate::caller::Caller;
use crate::filesystem::{SetAttributes, Volume};
use crate::inode::Inode;
use crate::Error;

/// One inode in use: it stays usable while a handle exists, also after its last name is gone.
pub struct InodeHandle {
    volume: Arc<Volume>,
    pub(crate) inode: Arc<Inode>,
}

impl InodeHandle {
    pub(crate) fn new(volume: &Arc<Volume>, inode: Arc<Inode>) -> Self {
        inode.references.fetch_add(1, Ordering::AcqRel);
        Self { volume: Arc::clone(volume), inode }
    }

    /// The inode's number.
    pub fn number(&self) -> InodeNumber {
        self.inode.number()
    }

    /// Regular file, directory, ...
    pub fn file_type(&self) -> FileType {
        self.inode.file_type()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// Its attributes.
    ///
    /// # Errors
    /// None today; a mount over a network would have some.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        Ok(self.volume.metadata(&self.inode))
    }

    /// Changes attributes, all in one transaction.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::ReadOnly`].
    pub fn set_attributes(&self, change: &SetAttributes) -> Result<(), Error> {
        self.volume.set_attributes(&Caller::ROOT, self, change)
    }

    /// The names in this directory, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    pub fn read_dir(&self) -> Result<Vec<DirEntry>, Error> {
        self.volume.read_directory(self)
    }

    /// Where its blocks lie.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn extents(&self) -> Result<Vec<FileExtent>, Error> {
        self.volume.extents(&self.inode)
    }
}

impl Clone for InodeHandle {
    fn clone(&self) -> Self {
        Self::new(&self.volume, Arc::clone(&self.inode))
    }
}

impl fmt::Debug for InodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InodeHandle({})", self.number())
    }
}

impl Drop for InodeHandle {
    fn drop(&mut self) {
        if self.inode.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.volume.release(&self.inode);
        }
    }
}
