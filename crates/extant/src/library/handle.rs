//! One inode in use, by those who look from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{ControlFlow, Range};

use extant_format::corruption::{Place, Rule};
use extant_format::{FileType, InodeNumber};

use super::{File, Filesystem, OpenOptions, ReadDir};
use crate::Error;
use crate::caller::Caller;
use crate::filesystem::Volume;
use crate::inode::Inode;
use crate::namespace::{DirCursor, Listed, NodeKind, RenameFlags};
use crate::report::SetAttributes;
use crate::report::{FileExtent, Metadata};
use crate::xattr::SetHow;

/// One inode in use: it stays usable while a handle exists, also after its last name is gone.
pub struct InodeHandle {
    volume: Arc<Volume>,
    pub(crate) inode: Arc<Inode>,
    /// In whose name it is used.
    caller: Caller,
}

impl InodeHandle {
    /// A handle on an inode just found; `NotFound` if it was deleted meanwhile.
    pub(crate) fn new(volume: &Arc<Volume>, inode: Arc<Inode>) -> Result<Self, Error> {
        if inode.acquire() {
            Ok(Self { volume: Arc::clone(volume), inode, caller: Caller::ROOT })
        } else {
            Err(Error::NotFound)
        }
    }

    /// A handle on an inode just found through this one, in the same hands.
    fn found(&self, inode: Arc<Inode>) -> Result<Self, Error> {
        Ok(Self::new(&self.volume, inode)?.for_caller(&self.caller))
    }

    /// The same inode in the hands of `caller`, and so are those that are found through it: what is made is his, his groups
    /// and umask count, and where the kernel's own file system would ask whether he may (names in a directory, attributes,
    /// space that is kept for root) so does this. Until this is called that is root.
    #[must_use]
    pub fn for_caller(mut self, caller: &Caller) -> Self {
        self.hand_to(caller);
        self
    }

    pub(super) fn hand_to(&mut self, caller: &Caller) {
        self.caller.clone_from(caller);
    }

    /// In whose name it is used.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
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
        self.volume.set_attributes(&self.caller, &self.inode, change)
    }

    /// The names in this directory, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    pub fn read_dir(&self) -> Result<ReadDir, Error> {
        ReadDir::new(self.clone())
    }

    /// Hands the names in this directory from `cursor` on to `sink`, the dots among them, until it has enough; each comes with
    /// where to go on after it.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; of reading the directory.
    /// # Locks
    /// The directory's `content` is held for reading while `sink` runs, which must not come back to the volume.
    pub fn list(
        &self,
        cursor: DirCursor,
        sink: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.volume.list(&self.inode, cursor, sink)
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
        let found = self.volume.lookup(&self.caller, &self.inode, name.as_ref())?;
        self.found(found)
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
        let made = self.volume.create_file(&self.caller, &self.inode, name.as_ref(), mode)?;
        self.found(made)
    }

    /// Makes a directory in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn create_dir(&self, name: impl AsRef<[u8]>, mode: u16) -> Result<Self, Error> {
        let made = self.volume.make_directory(&self.caller, &self.inode, name.as_ref(), mode)?;
        self.found(made)
    }

    /// Makes a symbolic link to `target` in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn symlink(&self, target: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let (name, target) = (name.as_ref(), target.as_ref());
        let made = self.volume.make_symlink(&self.caller, &self.inode, name, target)?;
        self.found(made)
    }

    /// Makes a device file, a pipe or a socket in this directory.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn mknod(&self, name: impl AsRef<[u8]>, kind: NodeKind, mode: u16) -> Result<Self, Error> {
        let made = self.volume.make_node(&self.caller, &self.inode, name.as_ref(), kind, mode)?;
        self.found(made)
    }

    /// Gives `original` a name in this directory.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotPermitted`] for a directory, [`Error::TooManyLinks`].
    pub fn hard_link(&self, original: &Self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.link(&self.caller, &original.inode, &self.inode, name.as_ref())
    }

    /// Removes a name of anything but a directory from this directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`].
    pub fn remove_file(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.unlink(&self.caller, &self.inode, name.as_ref())
    }

    /// Removes an empty directory from this directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NotEmpty`].
    pub fn remove_dir(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.remove_directory(&self.caller, &self.inode, name.as_ref())
    }

    /// Gives what has a name in this directory a name in `target`, or in this directory.
    ///
    /// # Errors
    /// Those of `renameat2`.
    pub fn rename(
        &self,
        name: impl AsRef<[u8]>,
        target: &Self,
        new_name: impl AsRef<[u8]>,
        flags: RenameFlags,
    ) -> Result<(), Error> {
        let (from, to) = ((&self.inode, name.as_ref()), (&target.inode, new_name.as_ref()));
        self.volume.rename(&self.caller, from, to, flags)
    }

    /// Makes a regular file that no directory names: a crash or its last user takes it away, unless [`Self::hard_link`] has
    /// given it a name (`O_TMPFILE`). This directory decides where it lies and whose group it gets.
    ///
    /// # Errors
    /// As [`Self::create_file`].
    pub fn create_unnamed(&self, mode: u16) -> Result<Self, Error> {
        self.found(self.volume.make_unnamed(&self.caller, &self.inode, mode)?)
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
        self.volume.list_xattrs(&self.caller, &self.inode)
    }

    /// The value of one extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn xattr(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.volume.xattr(&self.caller, &self.inode, name.as_ref())
    }

    /// Sets an extended attribute, new or not.
    ///
    /// # Errors
    /// [`Error::NoAttributeSpace`], [`Error::NotSupported`] for a prefix that ext4 does not know.
    pub fn set_xattr(&self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.set_xattr_if(SetHow::Any, name, value)
    }

    /// Sets an extended attribute, if what `how` asks for is so.
    ///
    /// # Errors
    /// As [`Self::set_xattr`]; [`Error::Exists`], [`Error::NoAttribute`].
    pub fn set_xattr_if(
        &self,
        how: SetHow,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.volume.set_xattr(&self.caller, &self.inode, name.as_ref(), Some(value.as_ref()), how)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn remove_xattr(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.volume.set_xattr(&self.caller, &self.inode, name.as_ref(), None, SetHow::Any)
    }

    /// Gives this empty regular file its size, and places for `parts` of its bytes: rising, and none touches a block of another.
    /// They count as written, and whoever calls brings the bytes there, on the device itself, whole blocks with zeros around
    /// what is not in the file, before anybody reads them. Outside of the parts the file has holes.
    ///
    /// For images that nobody needs before they are whole: on a volume mounted
    /// [`unjournaled`](crate::MountOptions::unjournaled) and no other.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a file that is not empty, or parts that do not rise; [`Error::NotSupported`] with a journal,
    /// or for a file without extents; [`Error::NoSpace`], [`Error::TooLarge`]: what was placed by then stays.
    pub fn lay_out(&self, parts: &[Range<u64>], size: u64) -> Result<Vec<FileExtent>, Error> {
        self.volume.lay_out(&self.caller, &self.inode, parts, size)
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
        self.first_extents_in(bytes, usize::MAX)
    }

    /// The first of them, at most so many: for who asks for more once these are used up. None is marked as the last if there are
    /// more.
    ///
    /// # Errors
    /// Of reading the block map.
    pub fn first_extents_in(
        &self,
        bytes: Range<u64>,
        most: usize,
    ) -> Result<Vec<FileExtent>, Error> {
        self.volume.extents(&self.inode, &bytes, most)
    }
}

impl Clone for InodeHandle {
    fn clone(&self) -> Self {
        assert!(self.inode.acquire(), "an inode with a handle is not deleted");
        Self {
            volume: Arc::clone(&self.volume),
            inode: Arc::clone(&self.inode),
            caller: self.caller.clone(),
        }
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
