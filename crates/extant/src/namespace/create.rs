//! Making names: files, directories, special files, symbolic links, files without a name yet, further names.
//!
//! Source: kernel `fs/ext4/namei.c`: `ext4_create`, `ext4_mkdir`, `ext4_mknod`, `ext4_symlink`, `ext4_tmpfile`,
//! `__ext4_link`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use extant_format::corruption::{Place, Rule};
use extant_format::inode::{BLOCK_AREA_BYTES, InodeFlags};
use extant_format::{FileType, LogicalBlock, LogicalRange};

use super::Deed;
use super::spawn::Plan;
use super::{MAX_LINKS, Name, Namespace, is_sync, record_of, require_directory};
use crate::Error;
use crate::caller::Caller;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::report::Ineligible;
use crate::transaction::{BlockKind, Change, Handle, Naming, credits};
use crate::xattr::Access;

/// What `mknod` makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeKind {
    /// A regular file.
    Regular,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with major and minor number.
    CharacterDevice(u32, u32),
    /// A block device with major and minor number.
    BlockDevice(u32, u32),
}

impl NodeKind {
    const fn file_type(self) -> FileType {
        match self {
            Self::Regular => FileType::Regular,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::CharacterDevice(..) => FileType::CharacterDevice,
            Self::BlockDevice(..) => FileType::BlockDevice,
        }
    }
}

impl Namespace {
    /// Makes a regular file.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotDirectory`], [`Error::NotFound`] if `dir` is none, or none any more;
    /// [`Error::AccessDenied`], [`Error::ReadOnly`], [`Error::NameTooLong`]; no space, no inodes, a full index.
    /// # Locks
    /// Takes `content` of the directory for writing.
    pub(crate) fn create(
        &self,
        caller: &Caller,
        dir: &Inode,
        name: &[u8],
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        self.make_node(caller, dir, name, mode, NodeKind::Regular)
    }

    /// Makes a regular or special file.
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::NotPermitted`] for a device without privilege.
    /// # Locks
    /// As [`Self::create`].
    pub(crate) fn make_node(
        &self,
        caller: &Caller,
        dir: &Inode,
        name: &[u8],
        mode: u16,
        kind: NodeKind,
    ) -> Result<Arc<Inode>, Error> {
        let _content = dir.content.write();
        let name = self.new_name(caller, dir, name)?;
        let mut plan =
            self.plan(caller, dir, name, mode & 0o7777 | kind.file_type().mode_bits())?;
        if let NodeKind::CharacterDevice(major, minor) | NodeKind::BlockDevice(major, minor) = kind
        {
            let is_whiteout = kind == NodeKind::CharacterDevice(0, 0);
            if !caller.may_all() && !is_whiteout {
                return Err(Error::NotPermitted);
            }
            plan.record.set_device(major, minor);
        }
        self.transact(caller, Deed::Make(&plan), is_sync(dir), |handle| {
            let inode = self.spawn(handle, &plan, 1)?;
            self.give_name(handle, &plan, dir, name, &inode)?;
            Ok(inode)
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::TooManyLinks`].
    /// # Locks
    /// As [`Self::create`].
    pub(crate) fn make_directory(
        &self,
        caller: &Caller,
        dir: &Inode,
        name: &[u8],
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        let _content = dir.content.write();
        let name = self.new_name(caller, dir, name)?;
        self.check_subdirectories(dir)?;
        let plan = self.plan(caller, dir, name, mode & 0o1777 | FileType::Directory.mode_bits())?;
        self.transact(caller, Deed::Make(&plan), is_sync(dir), |handle| {
            let inode = self.spawn(handle, &plan, 2)?;
            if let Err(error) = self.init_directory(handle, &inode, dir.number()) {
                self.give_up(handle, &inode)?;
                return Err(error);
            }
            self.inodes.store(handle, &inode)?;
            self.give_name(handle, &plan, dir, name, &inode)?;
            Ok(inode)
        })
    }

    /// Makes a symbolic link to `target`, which nobody looks at.
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::NotFound`] for an empty target, [`Error::NameTooLong`] for one that fits no block.
    /// # Locks
    /// As [`Self::create`].
    pub(crate) fn make_symlink(
        &self,
        caller: &Caller,
        dir: &Inode,
        name: &[u8],
        target: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        // The format keeps a zero behind the target.
        if target.len() >= self.geometry().block_len().min(MAX_PATH_BYTES) {
            return Err(Error::NameTooLong);
        }
        if target.contains(&0) {
            return Err(Error::Invalid("a link's target has no zero"));
        }
        let _content = dir.content.write();
        let name = self.new_name(caller, dir, name)?;
        let mut plan = self.plan(caller, dir, name, 0o777 | FileType::Symlink.mode_bits())?;
        let is_fast = target.len() < BLOCK_AREA_BYTES;
        if is_fast {
            plan.record.flags -= InodeFlags::EXTENTS;
            plan.record.block = [0; BLOCK_AREA_BYTES];
            plan.record.block[..target.len()].copy_from_slice(target);
            plan.record.size = u64::try_from(target.len()).unwrap_or(0);
        }
        self.transact(caller, Deed::Make(&plan), is_sync(dir), |handle| {
            let inode = self.spawn(handle, &plan, 1)?;
            if !is_fast && let Err(error) = self.write_link(handle, &inode, target) {
                self.give_up(handle, &inode)?;
                return Err(error);
            }
            self.give_name(handle, &plan, dir, name, &inode)?;
            Ok(inode)
        })
    }

    /// Makes a regular file without a name, which [`Self::link`] can give one.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn make_unnamed(
        &self,
        caller: &Caller,
        dir: &Inode,
        mode: u16,
    ) -> Result<Arc<Inode>, Error> {
        require_directory(dir)?;
        let _content = dir.content.read();
        self.check_addition(dir, caller)?;
        let plan = self.plan(caller, dir, b"", mode & 0o7777 | FileType::Regular.mode_bits())?;
        self.transact(caller, Deed::Make(&plan), is_sync(dir), |handle| {
            let inode = self.spawn(handle, &plan, 0)?;
            inode.linkable.store(true, Ordering::Release);
            self.orphans.add(handle, &inode)?;
            Ok(inode)
        })
    }

    /// Gives the inode one more name.
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::NotPermitted`] for directories and what is immutable or append-only;
    /// [`Error::NotFound`] for a file whose last name was removed; [`Error::TooManyLinks`]; [`Error::CrossDevice`] between
    /// projects.
    /// # Locks
    /// Takes `content` of the directory, then of the inode, for writing.
    pub(crate) fn link(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        dir: &Inode,
        name: &[u8],
    ) -> Result<(), Error> {
        if inode.file_type() == FileType::Directory {
            return Err(Error::NotPermitted);
        }
        let _dir = dir.content.write();
        let name = self.new_name(caller, dir, name)?;
        let _content = inode.content.write();
        let record = record_of(inode);
        if record.flags.intersects(InodeFlags::APPEND | InodeFlags::IMMUTABLE) {
            return Err(Error::NotPermitted);
        }
        if record.links == 0 && !inode.linkable.load(Ordering::Acquire) {
            return Err(Error::NotFound);
        }
        if record.links >= MAX_LINKS {
            return Err(Error::TooManyLinks);
        }
        check_project(dir, inode)?;
        self.transact(
            caller,
            Deed::Change(dir, credits::DATA + credits::INDEX_EXTRA + 1),
            is_sync(dir),
            |handle| {
                self.add_entry(handle, dir, name, inode.number(), inode.file_type())?;
                {
                    let mut core = inode.core.lock();
                    core.links = record.links + 1;
                    core.ctime = self.clock.wall();
                }
                if record.links == 0 {
                    inode.linkable.store(false, Ordering::Release);
                    self.orphans.remove(handle, inode)?;
                    handle.note(Change::Unrecorded(Ineligible::Unrecordable));
                }
                self.inodes.store(handle, inode)?;
                self.touch(handle, dir)?;
                self.note_name(handle, Naming::Linked, (dir, name), inode);
                Ok(())
            },
        )
    }

    /// The name of something to be made, which the directory must not have.
    pub(super) fn new_name<'a>(
        &self,
        caller: &Caller,
        dir: &Inode,
        name: &'a [u8],
    ) -> Result<&'a [u8], Error> {
        let name = Name::to_create(name)?;
        require_directory(dir)?;
        self.xattrs.check_access(dir, caller, Access::EXECUTE)?;
        if self.find_name(dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        self.check_addition(dir, caller)?;
        Ok(name)
    }

    fn give_name(
        &self,
        handle: &mut Handle<'_>,
        plan: &Plan<'_>,
        dir: &Inode,
        name: &[u8],
        inode: &Inode,
    ) -> Result<(), Error> {
        if let Err(error) = self.add_entry(handle, dir, name, inode.number(), plan.file_type()) {
            self.give_up(handle, inode)?;
            return Err(error);
        }
        if plan.file_type() == FileType::Directory {
            self.add_link(dir);
            handle.note(Change::Unrecorded(Ineligible::Unrecordable));
        }
        self.touch(handle, dir)?;
        self.note_name(handle, Naming::Created, (dir, name), inode);
        Ok(())
    }

    /// Puts a target that does not fit the inode into a block.
    ///
    /// Source: kernel `ext4_init_symlink_block`.
    fn write_link(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        target: &[u8],
    ) -> Result<(), Error> {
        let first = LogicalRange::single(LogicalBlock::ZERO);
        let mapped = self.mapper.map(handle, inode, first, MapFlags::CREATE)?;
        let place = mapped
            .state
            .place()
            .ok_or_else(|| Place::Inode(inode.number()).breaks(Rule::FileSize))?;
        let block = handle.fresh(place, BlockKind::Plain)?;
        handle.modify(&block, |bytes| bytes[..target.len()].copy_from_slice(target))?;
        self.set_size(inode, u64::try_from(target.len()).unwrap_or(0));
        self.inodes.store(handle, inode)
    }

    /// The block that holds a target.
    pub(super) fn link_block(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let found = self.mapper.look_up(inode, LogicalRange::single(LogicalBlock::ZERO))?;
        let BlockState::Written(place) = found.state else {
            return Err(Place::Inode(inode.number()).breaks(Rule::FileSize).into());
        };
        let block = self.transactions.read(place, BlockKind::Plain)?;
        Ok(block.with(<[u8]>::to_vec))
    }
}

/// A directory that hands its project on takes only files of the same.
pub(super) fn check_project(dir: &Inode, inode: &Inode) -> Result<(), Error> {
    let dir = record_of(dir);
    let other =
        dir.flags.contains(InodeFlags::PROJINHERIT) && dir.projid != inode.core.lock().projid;
    if other { Err(Error::CrossDevice) } else { Ok(()) }
}

/// The longest path, its final zero included.
const MAX_PATH_BYTES: usize = 4096;
