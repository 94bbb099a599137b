//! Who may do what with an inode: mode bits, access control lists, and the rules of sticky and immutable.
//!
//! # Source
//! Kernel `fs/namei.c`: `inode_permission`, `generic_permission`, `__check_sticky`.

use extant_format::inode::{FileType, InodeFlags, InodeRecord};

use super::{Acl, AclKind, Xattrs};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;

bitflags::bitflags! {
    /// What somebody wants to do with a file.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Access: u16 {
        /// Read it; list a directory.
        const READ = 4;
        /// Change it; add and remove names in a directory.
        const WRITE = 2;
        /// Execute it; look up names in a directory.
        const EXECUTE = 1;
    }
}

impl Xattrs {
    /// Whether the caller may do all of `want`.
    ///
    /// # Errors
    /// [`Error::AccessDenied`] if not; [`Error::ReadOnly`] and, for what is immutable, [`Error::NotPermitted`] if nobody may
    /// write.
    pub(crate) fn check_access(
        &self,
        inode: &Inode,
        caller: &Caller,
        want: Access,
    ) -> Result<(), Error> {
        let record = inode.core.lock().clone();
        if want.contains(Access::WRITE) {
            if matches!(
                record.file_type(),
                Some(FileType::Regular | FileType::Directory | FileType::Symlink)
            ) {
                self.transactions.check_writable()?;
            }
            if record.flags.contains(InodeFlags::IMMUTABLE) {
                return Err(Error::NotPermitted);
            }
        }
        let group_counts = record.mode & 0o070 != 0;
        let acl = if caller.uid != record.uid && !caller.may_all() && group_counts {
            self.acl(inode, AclKind::Access)?
        } else {
            None
        };
        if allows(&record, acl.as_ref(), caller, want) { Ok(()) } else { Err(Error::AccessDenied) }
    }
}

/// Source: kernel `generic_permission`, `acl_permission_check`.
fn allows(record: &InodeRecord, acl: Option<&Acl>, caller: &Caller, want: Access) -> bool {
    if caller.may_all() {
        let is_dir = record.file_type() == Some(FileType::Directory);
        return is_dir || !want.contains(Access::EXECUTE) || record.mode & 0o111 != 0;
    }
    let grants = |perm: u16| perm & want.bits() == want.bits();
    if caller.uid == record.uid {
        return grants(record.mode >> 6);
    }
    if let Some(acl) = acl {
        return acl.allows(caller, record.uid, record.gid, want.bits());
    }
    if caller.is_in_group(record.gid) { grants(record.mode >> 3) } else { grants(record.mode) }
}

/// Whether the caller may remove or rename the name of `victim` in `dir`, whose sticky bit may keep others' names.
///
/// Source: kernel `fs/namei.c`, `may_delete` and `__check_sticky`.
pub(crate) fn check_removal(
    dir: &InodeRecord,
    victim: &InodeRecord,
    caller: &Caller,
) -> Result<(), Error> {
    const STICKY: u16 = 0o1000;
    let fixed = InodeFlags::APPEND | InodeFlags::IMMUTABLE;
    let sticky = dir.mode & STICKY != 0 && caller.uid != victim.uid && !caller.owns(dir.uid);
    if dir.flags.contains(InodeFlags::APPEND) || victim.flags.intersects(fixed) || sticky {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::blank_record as record;

    #[test]
    fn only_the_first_class_that_fits_counts() {
        let file = InodeRecord { uid: 1, gid: 2, ..record(0o100_047) };
        let ask = |uid, gid, want| allows(&file, None, &Caller::user(uid, gid), want);
        assert!(!ask(1, 2, Access::READ));
        assert!(ask(3, 2, Access::READ) && !ask(3, 2, Access::WRITE));
        assert!(ask(3, 3, Access::all()));
        assert!(allows(
            &file,
            None,
            &Caller { groups: [2].into(), ..Caller::user(3, 3) },
            Access::READ
        ));
    }

    #[test]
    fn privilege_executes_only_what_somebody_may() {
        let plain = record(0o100_600);
        assert!(allows(&plain, None, &Caller::ROOT, Access::READ | Access::WRITE));
        assert!(!allows(&plain, None, &Caller::ROOT, Access::EXECUTE));
        assert!(allows(&record(0o040_000), None, &Caller::ROOT, Access::all()));
    }

    #[test]
    fn sticky_directories_keep_names_for_their_owners() {
        let dir = InodeRecord { uid: 1, ..record(0o041_777) };
        let file = InodeRecord { uid: 2, ..record(0o100_666) };
        let ask = |uid| check_removal(&dir, &file, &Caller::user(uid, 9));
        assert!(ask(1).is_ok() && ask(2).is_ok());
        assert!(matches!(ask(3), Err(Error::NotPermitted)));
        assert!(check_removal(&dir, &file, &Caller::ROOT).is_ok());
    }

    #[test]
    fn names_of_immutable_files_and_in_append_only_directories_stay() {
        let dir = record(0o040_777);
        for flags in [InodeFlags::APPEND, InodeFlags::IMMUTABLE] {
            let file = InodeRecord { flags, ..record(0o100_666) };
            assert!(matches!(check_removal(&dir, &file, &Caller::ROOT), Err(Error::NotPermitted)));
        }
        let fixed = InodeRecord { flags: InodeFlags::APPEND, ..record(0o040_777) };
        assert!(matches!(
            check_removal(&fixed, &record(0o100_666), &Caller::ROOT),
            Err(Error::NotPermitted)
        ));
    }
}
