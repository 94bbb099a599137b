//! One inode in use, by those who look from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use extant_format::{FileType, InodeNumber};

use super::ReadDir;
use crate::Error;
use crate::caller::Caller;
use crate::filesystem::Volume;
use crate::inode::Inode;
use crate::report::SetAttributes;
use crate::report::{FileExtent, Metadata};

/// One inode in use: it stays usable while a handle exists, also after its last name is gone.
pub struct InodeHandle {
    volume: Arc<Volume>,
    pub(crate) inode: Arc<Inode>,
}

impl InodeHandle {
    /// A handle on an inode just found; `NotFound` if it was deleted meanwhile.
    pub(crate) fn new(volume: &Arc<Volume>, inode: Arc<Inode>) -> Result<Self, Error> {
        if inode.acquire() {
            Ok(Self { volume: Arc::clone(volume), inode })
        } else {
            Err(Error::NotFound)
        }
    }

    pub(super) fn volume(&self) -> &Arc<Volume> {
        &self.volume
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
        self.volume.set_attributes(&Caller::ROOT, &self.inode, change)
    }

    /// The names in this directory, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    pub fn read_dir(&self) -> Result<ReadDir, Error> {
        ReadDir::new(self.clone())
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
        assert!(self.inode.acquire(), "an inode with a handle is not deleted");
        Self { volume: Arc::clone(&self.volume), inode: Arc::clone(&self.inode) }
    }
}

impl fmt::Debug for InodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InodeHandle({})", self.number())
    }
}

impl Drop for InodeHandle {
    fn drop(&mut self) {
        if self.inode.release() {
            self.volume.dispose(&self.inode);
        }
    }
}
