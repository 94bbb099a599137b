//! The library: a mounted volume by paths, much as `std::fs`, and by inode handles, as a mount needs it.
//!
//! Paths are bytes; a relative one starts at the root. Everything here is a thin layer: it resolves names, and calls
//! the engine by inode.
//!
//! # Invariants
//! An [`InodeHandle`] keeps its inode usable, also after its last name is gone; the last handle of such an inode frees it.
//! # Locking
//! None of its own.
//! # Not here
//! What a name or a byte means (`namespace`, `file`).
//! # Source
//! `std::fs`; POSIX path resolution, `path_resolution(7)`.

mod file;
mod handle;
mod mount;
mod path;
mod read_dir;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::Timestamp;

pub use file::{File, OpenOptions};
pub use handle::InodeHandle;
pub use read_dir::ReadDir;

use crate::caller::Caller;
use crate::error::Error;
use crate::filesystem::Volume;
use crate::namespace::{NodeKind, RenameFlags};
use crate::report::{
    Counters, GroupSpace, KernelCounters, MemoryCounters, Metadata, OnError, SetAttributes,
    Shutdown, Statfs,
};

/// A mounted volume; clones are the same volume. Call [`Self::unmount`] at the end. Dropping the last clone writes nothing:
/// it is as if the power had failed. The next mount recovers what was synced or committed, and everything since is lost.
#[derive(Clone)]
pub struct Filesystem {
    pub(crate) volume: Arc<Volume>,
}

impl core::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Filesystem").finish_non_exhaustive()
    }
}

impl Filesystem {
    pub(crate) fn new(volume: Arc<Volume>) -> Self {
        Self { volume }
    }

    /// Opens a file for reading. A directory opens too, but [`Self::read_dir`] reads it.
    ///
    /// # Errors
    /// [`Error::NotFound`], or of reading the image.
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<File, Error> {
        self.open_with(path, OpenOptions::new().read(true))
    }

    /// Creates a file, or cuts an existing one to nothing, and opens it for writing.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn create(&self, path: impl AsRef<[u8]>) -> Result<File, Error> {
        self.open_with(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Opens a file in a way of one's own.
    ///
    /// # Errors
    /// [`Error::Exists`] with `create_new`, [`Error::NotFound`] without `create`, [`Error::ReadOnly`], ...
    pub fn open_with(&self, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File, Error> {
        File::open(self, path.as_ref(), options)
    }

    /// Creates a directory with mode 0755.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] for the parent, ...
    pub fn create_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        self.make(path.as_ref(), |parent, name| {
            self.volume.make_directory(&Caller::ROOT, parent, name, 0o755)
        })
        .map(drop)
    }

    /// Creates a directory and all its missing parents.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] if something else is in the way.
    pub fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let mut so_far = Vec::new();
        for name in path::components(path.as_ref()) {
            so_far.push(b'/');
            so_far.extend_from_slice(name);
            match self.create_dir(&so_far) {
                Ok(()) => {}
                Err(Error::Exists) if self.metadata(&so_far)?.is_dir() => {}
                Err(Error::Exists) => return Err(Error::NotDirectory),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`].
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        let (parent, name) = self.parent_of(path)?;
        if path.ends_with(b"/") && !parent.lookup(name)?.is_dir() {
            return Err(Error::NotDirectory);
        }
        self.volume.unlink(&Caller::ROOT, &parent.inode, name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NotEmpty`].
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (parent, name) = self.parent_of(path.as_ref())?;
        self.volume.remove_directory(&Caller::ROOT, &parent.inode, name)
    }

    /// Removes a directory and everything below it.
    ///
    /// # Errors
    /// The first that comes up; what was removed by then stays removed.
    pub fn remove_dir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        // Depth first, without recursion: a stack of directories to leave empty.
        let mut open = alloc::vec![path.as_ref().to_vec()];
        while let Some(directory) = open.last().cloned() {
            let before = open.len();
            let here = self.symlink_inode(&directory)?.number();
            for entry in self.read_dir(&directory)? {
                let entry = entry?;
                let mut below = directory.clone();
                below.push(b'/');
                below.extend_from_slice(entry.name());
                match self.remove_file(&below) {
                    Ok(()) => {}
                    Err(Error::IsDirectory) => {
                        self.symlink_inode(&below)?.check_parent(here)?;
                        open.push(below);
                    }
                    Err(error) => return Err(error),
                }
            }
            if open.len() == before {
                self.remove_dir(&directory)?;
                open.pop();
            }
        }
        Ok(())
    }

    /// Moves a file or directory; replaces the target, as rename(2) does.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<(), Error> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from_parent, from_name) = self.parent_of(from)?;
        let (to_parent, to_name) = self.parent_of(to)?;
        // A slash asks for a directory, and no link is followed to one.
        if (from.ends_with(b"/") || to.ends_with(b"/")) && !from_parent.lookup(from_name)?.is_dir()
        {
            return Err(Error::NotDirectory);
        }
        let flags = RenameFlags::default();
        self.volume.rename(
            &Caller::ROOT,
            (&from_parent.inode, from_name),
            (&to_parent.inode, to_name),
            flags,
        )
    }

    /// Gives the file at `original` another name.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotPermitted`] for a directory, [`Error::TooManyLinks`].
    pub fn hard_link(
        &self,
        original: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let target = self.symlink_inode(original)?;
        let (parent, name) = self.place_of(link.as_ref())?;
        self.volume.link(&Caller::ROOT, &target.inode, &parent.inode, name)
    }

    /// Makes a symbolic link at `link` that leads to `target`.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NameTooLong`].
    pub fn symlink(&self, target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<(), Error> {
        let (parent, name) = self.place_of(link.as_ref())?;
        parent.symlink(target, name).map(drop)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.symlink_inode(path)?.read_link()
    }

    /// Makes a device file, a pipe or a socket.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] for the parent, ...
    pub fn mknod(&self, path: impl AsRef<[u8]>, kind: NodeKind, mode: u16) -> Result<(), Error> {
        let (parent, name) = self.place_of(path.as_ref())?;
        parent.mknod(name, kind, mode).map(drop)
    }

    /// Attributes of the file at `path`; a symbolic link is followed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata, Error> {
        self.inode(path)?.metadata()
    }

    /// Attributes of the file at `path`, itself a symbolic link or not.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata, Error> {
        self.symlink_inode(path)?.metadata()
    }

    /// The names in a directory, without `.` and `..`, in the directory's own order.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; while going through it, what is broken in the directory.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        self.inode(path)?.read_dir()
    }

    /// Sets the permission bits of the file at `path`, set-user, set-group and sticky included.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotPermitted`].
    pub fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u16) -> Result<(), Error> {
        let change = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
        self.inode(path)?.set_attributes(&change)
    }

    /// Sets owner and group of the file at `path`, itself a symbolic link or not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotPermitted`].
    pub fn set_owner(
        &self,
        path: impl AsRef<[u8]>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Error> {
        let change = SetAttributes { uid, gid, ..SetAttributes::default() };
        self.symlink_inode(path)?.set_attributes(&change)
    }

    /// Sets times of access and modification of the file at `path`, itself a symbolic link or not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotPermitted`].
    pub fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        accessed: Option<Timestamp>,
        modified: Option<Timestamp>,
    ) -> Result<(), Error> {
        let change = SetAttributes { accessed, modified, ..SetAttributes::default() };
        self.symlink_inode(path)?.set_attributes(&change)
    }

    /// The names of a file's extended attributes, with their prefixes.
    ///
    /// # Errors
    /// [`Error::NotFound`], or of reading them.
    pub fn list_xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Error> {
        self.symlink_inode(path)?.list_xattrs()
    }

    /// The value of one extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.symlink_inode(path)?.xattr(name)
    }

    /// Sets an extended attribute, new or not.
    ///
    /// # Errors
    /// [`Error::NoAttributeSpace`], [`Error::NotSupported`] for a prefix that ext4 does not know.
    pub fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.symlink_inode(path)?.set_xattr(name, value)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`].
    pub fn remove_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.symlink_inode(path)?.remove_xattr(name)
    }

    /// Sizes and counts.
    pub fn statfs(&self) -> Statfs {
        self.volume.statfs()
    }

    /// What has been asked of device, journal and allocator since the mount.
    pub fn counters(&self) -> Counters {
        self.volume.counters()
    }

    /// The counters that the kernel shows under `/sys/fs/ext4` and `/proc/fs/ext4`.
    pub fn kernel_counters(&self) -> KernelCounters {
        self.volume.kernel_counters()
    }

    /// What the mount has in memory, and how full its log is.
    pub fn memory_counters(&self) -> MemoryCounters {
        self.volume.memory_counters()
    }

    /// The free space of every block group; all of them are in memory then.
    ///
    /// # Errors
    /// Of reading bitmaps.
    pub fn block_groups(&self) -> Result<Vec<GroupSpace>, Error> {
        self.volume.block_groups()
    }

    /// Why the volume was opened read-only although it was to be written: the features, as mke2fs names them.
    pub fn read_only_because(&self) -> Option<&str> {
        self.volume.read_only_because()
    }

    /// The superblock as it was at the mount.
    pub fn superblock(&self) -> extant_format::Superblock {
        self.volume.superblock()
    }

    /// Recounts what the engine counts: promises against delayed blocks, status trees, folios, free space; with `bitmaps`
    /// all of them are read too. For tests and simulators; nothing else may use the volume meanwhile.
    ///
    /// # Panics
    /// At the first counter that is wrong, with both numbers.
    /// # Errors
    /// Of reading bitmaps.
    pub fn check_invariants(&self, bitmaps: bool) -> Result<(), Error> {
        self.volume.check_invariants(bitmaps)
    }

    /// Does what is due by the clock: commits old transactions, writes back old data. Returns when to call again.
    ///
    /// # Errors
    /// Of the device.
    pub fn tick(&self) -> Result<core::time::Duration, Error> {
        self.volume.tick()
    }

    /// Says to other hosts now that this one has the volume, if it is protected against being mounted twice; returns when to call
    /// again. [`Self::tick`] does so by the clock; this is for whoever does not tick.
    ///
    /// # Errors
    /// [`Error::InUse`] if another host has it by now; nothing can be changed any more then.
    pub fn renew_protection(&self) -> Result<Option<core::time::Duration>, Error> {
        self.volume.renew_protection(true)
    }

    /// Forgets what memory holds of the volume, but for what is in use or still to be written; what comes next reads the
    /// device again. Like `/proc/sys/vm/drop_caches`, it does not write first.
    pub fn drop_caches(&self) {
        self.volume.drop_caches();
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// Of the device, or [`Error::Aborted`].
    pub fn sync_all(&self) -> Result<(), Error> {
        self.volume.sync_all()
    }

    /// Stops everything that changes the volume, at once and for good: what was not synced is lost, as if the power had
    /// failed. Later changes get an I/O error.
    ///
    /// Source: kernel `fs/ext4/ioctl.c`, `ext4_force_shutdown` without log flush.
    pub fn shut_down(&self) {
        // Nothing is written, so nothing can fail.
        let _ = self.volume.shut_down(Shutdown::AtOnce);
    }

    /// The same, with something made durable before.
    ///
    /// # Errors
    /// Of the device; the volume is shut down all the same.
    pub fn shut_down_after(&self, how: Shutdown) -> Result<(), Error> {
        self.volume.shut_down(how)
    }

    /// Gives free space back to the device: runs of at least `minimum` bytes that start in a range of its bytes. Returns how
    /// many bytes that were; groups that were trimmed as thoroughly before, and in which nothing was freed since, are none.
    ///
    /// # Errors
    /// [`Error::NotSupported`] if the device discards nothing; [`Error::Invalid`] for a range of less than a block or behind
    /// the end, or a minimum that no group has room for; of the device.
    pub fn trim(&self, bytes: Range<u64>, minimum: u64) -> Result<u64, Error> {
        self.volume.trim(bytes, minimum)
    }

    /// The label as it is now.
    ///
    /// # Errors
    /// Of reading the superblock.
    pub fn label(&self) -> Result<Vec<u8>, Error> {
        self.volume.label()
    }

    /// Gives the volume another label, durably; as after tune2fs, copies of the superblock keep the old one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than 16 bytes or a zero among them; [`Error::ReadOnly`].
    pub fn set_label(&self, label: &[u8]) -> Result<(), Error> {
        self.volume.set_label(label)
    }

    /// Whether something can still be changed.
    ///
    /// # Errors
    /// Why not: [`Error::ReadOnly`], [`Error::Aborted`], [`Error::Shutdown`].
    pub fn check_writable(&self) -> Result<(), Error> {
        self.volume.check_writable()
    }

    /// What the superblock says that errors do to the volume (`tune2fs -e`).
    pub fn on_error(&self) -> OnError {
        self.volume.on_error()
    }

    /// Does what `policy` says about an error that was found: the superblock tells e2fsck and the next mount of it, and unless the
    /// volume goes on nothing is changed any more. Whose policy it is to stop the machine ends what he does himself.
    pub fn handle_error(&self, error: &Error, policy: OnError) {
        self.volume.handle_error(error, policy);
    }

    /// Stands still until [`Self::thaw`]: what runs is finished, everything is made durable, and the image is marked clean,
    /// so that a copy of the device is a whole volume. Whoever wants to change something waits in its call, also this
    /// thread: who has only one must not.
    ///
    /// # Errors
    /// [`Error::Busy`] if it is frozen; of the device, and then it is not frozen.
    pub fn freeze(&self) -> Result<(), Error> {
        self.volume.freeze()
    }

    /// Ends [`Self::freeze`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not frozen; of the device, and then it stays so.
    pub fn thaw(&self) -> Result<(), Error> {
        self.volume.thaw()
    }

    /// Writes everything, leaves the journal empty and the volume marked clean. Other clones can only read afterwards.
    ///
    /// # Errors
    /// Of the device; the image then has to be recovered, and nothing that was synced is lost.
    pub fn unmount(self) -> Result<(), Error> {
        self.volume.unmount()
    }
}
