//! Removing names.
//!
//! Source: kernel `fs/ext4/namei.c`: `ext4_unlink`, `ext4_rmdir`, `ext4_empty_dir`; `fs/namei.c`, `may_delete`.

use alloc::sync::Arc;

use extant_format::{FileType, InodeNumber};

use super::directory::Found;
use super::{Deed, Name, Namespace, is_sync, require_alive, require_directory};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::report::Ineligible;
use crate::trace::Event;
use crate::transaction::{Change, Handle, Naming, credits};
use crate::xattr::Access;

impl Namespace {
    /// Removes the name of a file, and returns the file: without further names it is an orphan, to be freed when nobody
    /// uses it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::AccessDenied`], [`Error::NotPermitted`], [`Error::ReadOnly`].
    /// # Locks
    /// Takes `content` of the directory, then of the file, for writing.
    pub(crate) fn unlink(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        let name = Name::to_unlink(name)?;
        let _dir = dir.content.write();
        let (found, victim) = self.old_name(caller, dir, name)?;
        self.check_removal(dir, &victim, caller)?;
        if victim.file_type() == FileType::Directory {
            return Err(Error::IsDirectory);
        }
        let content = victim.content.write();
        let (tracer, ino) = (self.transactions.tracer(), victim.number());
        let (size, parent) = (victim.size(), dir.number());
        tracer.emit(|| Event::UnlinkEnter { ino, size, parent });
        let outcome =
            self.transact(caller, Deed::Change(dir, credits::DATA), is_sync(dir), |handle| {
                self.remove_entry(handle, dir, found.at)?;
                self.touch(handle, dir)?;
                self.lose_name(handle, &victim)?;
                self.note_name(handle, Naming::Unlinked, (dir, name), &victim);
                Ok(())
            });
        let ret = outcome.as_ref().err().map_or(0, |error| -error.errno().0);
        tracer.emit(|| Event::UnlinkExit { ino, ret });
        outcome?;
        drop(content);
        Ok(victim)
    }

    /// Removes an empty directory, and returns it: an orphan, to be freed when nobody uses it.
    ///
    /// # Errors
    /// As [`Self::unlink`], with [`Error::NotDirectory`]; [`Error::NotEmpty`]; [`Error::Busy`] for the root.
    /// # Locks
    /// Takes `content` of both directories for writing.
    pub(crate) fn remove_directory(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        let name = Name::to_rmdir(name)?;
        let _dir = dir.content.write();
        let (found, victim) = self.old_name(caller, dir, name)?;
        self.check_removal(dir, &victim, caller)?;
        require_directory(&victim)?;
        self.check_inside(dir, &victim)?;
        let content = victim.content.write();
        if !self.has_no_names(&victim)? {
            return Err(Error::NotEmpty);
        }
        self.transact(caller, Deed::Change(dir, credits::DATA), is_sync(dir), |handle| {
            handle.note(Change::Unrecorded(Ineligible::Unrecordable));
            self.remove_entry(handle, dir, found.at)?;
            self.drop_link(dir);
            self.touch(handle, dir)?;
            self.lose_all_names(handle, &victim)
        })?;
        drop(content);
        Ok(victim)
    }

    /// The entry and the inode of a name that has to be there.
    pub(super) fn old_name(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<(Found, Arc<Inode>), Error> {
        require_directory(dir)?;
        self.xattrs.check_access(dir, caller, Access::EXECUTE)?;
        require_alive(dir)?;
        let found = self.find_name(dir, name)?.ok_or(Error::NotFound)?;
        Ok((found, self.target(dir, found)?))
    }

    /// A damaged directory may name the root, or itself; whoever took their locks again would wait for ever.
    pub(super) fn check_inside(&self, dir: &Inode, inode: &Inode) -> Result<(), Error> {
        if inode.number() == InodeNumber::ROOT || inode.number() == dir.number() {
            return Err(Error::Busy("the root, or the directory itself"));
        }
        Ok(())
    }

    /// Takes one name from a file; after its last it is an orphan.
    pub(super) fn lose_name(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        self.drop_link(inode);
        inode.core.lock().ctime = self.clock.wall();
        if inode.core.lock().links == 0 {
            self.orphans.add(handle, inode)?;
        }
        self.inodes.store(handle, inode)
    }

    /// Makes a directory without names an orphan.
    pub(super) fn lose_all_names(&self, handle: &mut Handle<'_>, dir: &Inode) -> Result<(), Error> {
        {
            let mut core = dir.core.lock();
            (core.links, core.ctime) = (0, self.clock.wall());
        }
        self.orphans.add(handle, dir)?;
        self.inodes.store(handle, dir)
    }
}
