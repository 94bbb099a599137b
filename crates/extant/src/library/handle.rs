//! One inode in use, by those who look from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use extant_format::corruption::{Place, Rule};
use extant_format::{FileType, InodeNumber};

use super::{File, Filesystem, OpenOptions, ReadDir};
use crate::Error;
use crate::caller::Caller;
use crate::filesystem::Volume;
use crate::inode::Inode;
use crate::namespace::NodeKind;
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

    /// Opens it, whatever its names are now; of `options`, those that are about names are ignored.
    ///
    /// # Errors
    /// [`Error::IsDirectory`] to write a directory, [`Error::ReadOnly`].
    pub fn open(&self, options: OpenOptions) -> Result<File, Error> {
        File::of(Filesystem::new(Arc::clone(&self.volume)), self.clone(), options)
    }

    /// What has the name in this directory; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`].
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let found = self.volume.lookup(&Caller::ROOT, &self.inode, name.as_ref())?;
        Self::new(&self.volume, found)
    }

    /// Makes sure that this, if it is a directory, is in `parent` alone: what its `..` leads to. Whoever walks down a tree
    /// would else not come to an end in a damaged image whose directories lead in a circle.
    ///
    /// # Errors
    /// The rule that it breaks; of reading the directory.
    pub fn check_parent(&self, parent: InodeNumber) -> Result<(), Error> {
        if self.is_dir() && self.lookup("..")?.number() != parent {
            return Err(Place::Inode(self.number()).breaks(Rule::DirectoryCircle).into());
        }
        Ok(())
    }

    /// Makes a regular file in this directory.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NameTooLong`], [`Error::NoSpace`], ...
    pub fn create_file(&self, name: impl AsRef<[u8]>, mode: u16) -> Result<Self, Error> {
        let made = self.volume.create_file(&Caller::ROOT, &self.inode, name.as_ref(), mode)?;
        Self::new(&self.volume, made)
    }

    /// Makes a directory in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn create_dir(&self, name: impl AsRef<[u8]>, mode: u16) -> Result<Self, Error> {
        let made = self.volume.make_directory(&Caller::ROOT, &self.inode, name.as_ref(), mode)?;
        Self::new(&self.volume, made)
    }

    /// Makes a symbolic link to `target` in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn symlink(&self, target: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let (name, target) = (name.as_ref(), target.as_ref());
        let made = self.volume.make_symlink(&Caller::ROOT, &self.inode, name, target)?;
        Self::new(&self.volume, made)
    }

    /// Makes a device file, a pipe or a socket in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn mknod(&self, name: impl AsRef<[u8]>, kind: NodeKind, mode: u16) -> Result<Self, Error> {
        let made = self.volume.make_node(&Caller::ROOT, &self.inode, name.as_ref(), kind, mode)?;
        Self::new(&self.volume, made)
    }

    /// Gives `original` a name in this directory.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotPermitted`] for a directory, [`Error::TooManyLinks`].
    pub fn hard_link(&self, original: &Self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.link(&Caller::ROOT, &original.inode, &self.inode, name.as_ref())
    }

    /// Removes a name of anything but a directory from this directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`].
    pub fn remove_file(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.unlink(&Caller::ROOT, &self.inode, name.as_ref())
    }

    /// Where this symbolic link leads.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none.
    pub fn read_link(&self) -> Result<Vec<u8>, Error> {
        self.volume.read_link(&self.inode)
    }

    /// The names of its extended attributes, with their prefixes.
    ///
    /// # Errors
    /// Of reading them.
    pub fn list_xattrs(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.volume.list_xattrs(&Caller::ROOT, &self.inode)
    }

    /// The value of one extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn xattr(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.volume.xattr(&Caller::ROOT, &self.inode, name.as_ref())
    }

    /// Sets an extended attribute, new or not.
    ///
    /// # Errors
    /// [`Error::NoAttributeSpace`], [`Error::NotSupported`] for a prefix that ext4 does not know.
    pub fn set_xattr(&self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.set_xattr(&Caller::ROOT, &self.inode, name.as_ref(), Some(value.as_ref()))
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn remove_xattr(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.set_xattr(&Caller::ROOT, &self.inode, name.as_ref(), None)
    }

    /// Forgets what memory knows of where its blocks lie, but for delayed ones, of which the disk knows nothing: the next
    /// look reads the map again.
    ///
    /// Source: kernel `fs/ext4/ioctl.c`, `EXT4_IOC_CLEAR_ES_CACHE`.
    pub fn forget_status(&self) {
        self.inode.status.lock().clear_cached();
    }

    /// Where its blocks lie, also those behind the end of file.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn extents(&self) -> Result<Vec<FileExtent>, Error> {
        self.extents_in(0..u64::MAX)
    }

    /// Where the blocks that a range of bytes touches lie.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn extents_in(&self, bytes: Range<u64>) -> Result<Vec<FileExtent>, Error> {
        self.volume.extents(&self.inode, &bytes)
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
            self.volume.release(&self.inode);
        }
    }
}
