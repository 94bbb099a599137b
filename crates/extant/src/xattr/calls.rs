//! `listxattr`, `getxattr`, `setxattr`, `removexattr`: names with prefixes, and who may.
//!
//! Source: kernel `fs/xattr.c`, `xattr_permission`, `do_setxattr`; `fs/posix_acl.c`, `vfs_set_acl`; `fs/ext4/acl.c`,
//! `ext4_set_acl`; `fs/ext4/xattr.c`, `ext4_xattr_set`.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use extant_format::FileType;
use extant_format::cast::usize_from;
use extant_format::inode::InodeFlags;
use extant_format::xattr::NameIndex;

use super::store::MAX_VALUE_BYTES;
use super::{Access, Acl, AclKind, Key, SetHow, Xattrs};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::transaction::Handle;

impl Xattrs {
    /// The names that the caller may see, prefixes included.
    pub(crate) fn list(&self, inode: &Inode, caller: &Caller) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Vec::new();
        self.for_each(inode, |key| {
            let shown = match key.index {
                NameIndex::USER
                | NameIndex::SECURITY
                | NameIndex::ACL_ACCESS
                | NameIndex::ACL_DEFAULT => true,
                NameIndex::TRUSTED => caller.privileged,
                _ => false,
            };
            if let Some(prefix) = key.index.prefix().filter(|_| shown) {
                names.push([prefix.as_bytes(), key.name].concat());
            }
        })?;
        Ok(names)
    }

    /// The value of the attribute with that whole name.
    ///
    /// # Errors
    /// [`Error::NoAttribute`]; [`Error::NotSupported`] for an unknown prefix; [`Error::AccessDenied`].
    pub(crate) fn get(
        &self,
        inode: &Inode,
        name: &[u8],
        caller: &Caller,
    ) -> Result<Vec<u8>, Error> {
        let key = Key::parse(name)?;
        match key.index {
            NameIndex::USER if !has_user_attributes(inode) => return Err(Error::NoAttribute),
            NameIndex::USER => self.check_access(inode, caller, Access::READ)?,
            NameIndex::TRUSTED if !caller.may_all() => return Err(Error::NoAttribute),
            _ => {}
        }
        let value = self.read(inode, key)?.ok_or(Error::NoAttribute)?;
        match AclKind::of(key.index) {
            None => Ok(value),
            Some(_) => Ok(Acl::from_disk(&value)
                .ok_or(Error::Invalid("malformed access control list"))?
                .to_wire()),
        }
    }

    /// Sets or, without a value, removes the attribute with that whole name, in a transaction of its own.
    ///
    /// # Errors
    /// As [`Self::write`]; [`Error::NotPermitted`], [`Error::AccessDenied`]; [`Error::NotSupported`] for an unknown prefix;
    /// [`Error::ValueTooLong`] for a value of more than 64 KiB.
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn set(
        &self,
        inode: &Inode,
        name: &[u8],
        value: Option<&[u8]>,
        how: SetHow,
        caller: &Caller,
    ) -> Result<(), Error> {
        let key = Key::parse(name)?;
        if value.is_some_and(|value| value.len() > usize_from(MAX_VALUE_BYTES)) {
            return Err(Error::ValueTooLong);
        }
        let _content = inode.content.write();
        self.check_change(inode, key, caller)?;
        let how = if value.is_none() { SetHow::Replace } else { how };
        let begin = || {
            let len = value.map_or(0, <[u8]>::len);
            self.transactions.begin(self.credits(inode, len, how == SetHow::Create).by(caller))
        };
        if let Some(kind) = AclKind::of(key.index) {
            let acl = value.map(Acl::from_wire).transpose()?.flatten();
            let mut handle = begin()?;
            return match self.set_acl(&mut handle, inode, kind, acl, caller) {
                Ok(()) => handle.stop(),
                Err(error) => Err(handle.fail(error)),
            };
        }
        let mut attempt = 0;
        loop {
            let mut handle = begin()?;
            if inode.flags().contains(InodeFlags::SYNC) {
                handle.set_sync();
            }
            match self.write(&mut handle, inode, key, value, how) {
                Ok(()) => return handle.stop(),
                // What was freed becomes usable with the commit.
                Err(error) if error.is_no_space() && attempt == 0 => {
                    handle.stop()?;
                    self.transactions.sync()?;
                }
                Err(error) => return Err(handle.fail(error)),
            }
            attempt += 1;
        }
    }

    /// Takes a file's capability away, in a transaction of its own, if it has one: before its owner or its bytes change. The
    /// caller holds `content`.
    ///
    /// # Errors
    /// As [`Self::write`].
    /// # Source
    /// Kernel `security/commoncap.c`, `cap_inode_need_killpriv`, `cap_inode_killpriv`, by way of `file_remove_privs`.
    pub(crate) fn drop_capability(&self, inode: &Inode) -> Result<(), Error> {
        if inode.has_no_capability.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = Key { index: NameIndex::SECURITY, name: b"capability" };
        if self.read(inode, key)?.is_some() {
            let mut handle = self.transactions.begin(self.credits(inode, 0, false))?;
            match self.write(&mut handle, inode, key, None, SetHow::Any) {
                Ok(()) => handle.stop()?,
                Err(error) => return Err(handle.fail(error)),
            }
        }
        inode.has_no_capability.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn check_change(&self, inode: &Inode, key: Key<'_>, caller: &Caller) -> Result<(), Error> {
        self.transactions.check_writable()?;
        let record = inode.core.lock().clone();
        if record.flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return Err(Error::NotPermitted);
        }
        let permitted = match key.index {
            NameIndex::TRUSTED | NameIndex::SECURITY => caller.may_all(),
            NameIndex::USER => {
                let sticky =
                    record.file_type() == Some(FileType::Directory) && record.mode & 0o1000 != 0;
                has_user_attributes(inode) && (!sticky || caller.owns(record.uid))
            }
            _ => caller.owns(record.uid),
        };
        if !permitted {
            return Err(Error::NotPermitted);
        }
        match key.index {
            NameIndex::USER => self.check_access(inode, caller, Access::WRITE),
            _ => Ok(()),
        }
    }

    /// The access control list of an inode, if it has one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if what is stored is malformed.
    pub(crate) fn acl(&self, inode: &Inode, kind: AclKind) -> Result<Option<Acl>, Error> {
        let value = self.read(inode, kind.key())?;
        let parse = |value: Vec<u8>| {
            Acl::from_disk(&value).ok_or(Error::Invalid("malformed access control list"))
        };
        value.map(parse).transpose()
    }

    /// Sets or removes an access control list; one that says no more than the mode becomes the mode.
    ///
    /// Source: kernel `ext4_set_acl`, `posix_acl_update_mode`.
    fn set_acl(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        kind: AclKind,
        acl: Option<Acl>,
        caller: &Caller,
    ) -> Result<(), Error> {
        let stored = match (kind, acl) {
            (_, _) if inode.file_type() == FileType::Symlink => {
                return Err(Error::NotSupported("access control list of a link"));
            }
            (AclKind::Default, Some(_)) if inode.file_type() != FileType::Directory => {
                return Err(Error::AccessDenied);
            }
            (AclKind::Access, Some(acl)) => {
                let (bits, whole) = acl.mode_bits();
                let mut core = inode.core.lock();
                let keeps_group = caller.may_all() || caller.is_in_group(core.gid);
                core.mode = core.mode & !0o777 | bits;
                if !keeps_group {
                    core.mode &= !0o2000;
                }
                core.ctime = self.clock.wall();
                (!whole).then_some(acl)
            }
            (_, acl) => acl,
        };
        let value = stored.as_ref().map(Acl::to_disk);
        self.write(handle, inode, kind.key(), value.as_deref(), SetHow::Any)?;
        self.inodes.store(handle, inode)
    }

    /// Makes the access control list, if there is one, say what a new mode says; the caller changes the mode.
    ///
    /// Source: kernel `posix_acl_chmod`.
    pub(crate) fn set_mode(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        mode: u16,
    ) -> Result<(), Error> {
        let Some(mut acl) = self.acl(inode, AclKind::Access)? else { return Ok(()) };
        acl.chmod(mode);
        self.write(handle, inode, AclKind::Access.key(), Some(&acl.to_disk()), SetHow::Any)
    }
}

impl<'a> Key<'a> {
    /// From a whole name.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an unknown prefix, [`Error::Invalid`] for a prefix alone, [`Error::Range`] beyond 255
    /// bytes or for no name at all.
    fn parse(name: &'a [u8]) -> Result<Self, Error> {
        if name.is_empty() || name.len() > 255 {
            return Err(Error::Range);
        }
        if [b"user.".as_slice(), b"trusted.", b"security."].contains(&name) {
            return Err(Error::Invalid("an attribute's name has more than a prefix"));
        }
        match NameIndex::split(name) {
            None | Some((NameIndex::SYSTEM | NameIndex::HURD, _)) => {
                Err(Error::NotSupported("prefix of the attribute's name"))
            }
            Some((index, name)) => Ok(Self { index, name }),
        }
    }
}

impl AclKind {
    fn of(index: NameIndex) -> Option<Self> {
        match index {
            NameIndex::ACL_ACCESS => Some(Self::Access),
            NameIndex::ACL_DEFAULT => Some(Self::Default),
            _ => None,
        }
    }
}

/// Only files and directories have `user.` attributes.
fn has_user_attributes(inode: &Inode) -> bool {
    matches!(inode.file_type(), FileType::Regular | FileType::Directory)
}
