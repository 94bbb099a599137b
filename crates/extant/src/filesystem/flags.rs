//! Which of a file's flags may change, and who may change them: what `chattr` asks for.
//!
//! Source: kernel `fs/ext4/ioctl.c`: `ext4_fileattr_set`, `ext4_ioctl_check_immutable`, `ext4_ioctl_setflags`,
//! `ext4_ioctl_setproject`; `fs/file_attr.c`, `fileattr_set_prepare`.

use extant_format::{FileType, InodeFlags, InodeRecord};

use crate::Error;
use crate::caller::Caller;
use crate::report::SetAttributes;

/// The flags that change as they are asked for. Of those that users may change, `JOURNAL_DATA` has a way of its own, and
/// whoever asks for another `CASEFOLD` is refused: names get no other hashes. [`converts_map`] is about `EXTENTS`.
///
/// Source: kernel `EXT4_FL_USER_MODIFIABLE`.
pub(super) const CHANGED: InodeFlags = InodeFlags::SECRM
    .union(InodeFlags::UNRM)
    .union(InodeFlags::COMPR)
    .union(InodeFlags::SYNC)
    .union(InodeFlags::IMMUTABLE)
    .union(InodeFlags::APPEND)
    .union(InodeFlags::NODUMP)
    .union(InodeFlags::NOATIME)
    .union(InodeFlags::NOTAIL)
    .union(InodeFlags::DIRSYNC)
    .union(InodeFlags::TOPDIR)
    .union(InodeFlags::DAX)
    .union(InodeFlags::PROJINHERIT);
const CONVERTED: InodeFlags = InodeFlags::EXTENTS.union(InodeFlags::CASEFOLD);
const MODIFIABLE: InodeFlags = CHANGED.union(CONVERTED).union(InodeFlags::JOURNAL_DATA);

/// What only directories can have; what also neither files nor directories can have.
///
/// Source: kernel `EXT4_REG_FLMASK`, `EXT4_OTHER_FLMASK`.
const OF_DIRECTORIES: InodeFlags = InodeFlags::DIRSYNC
    .union(InodeFlags::TOPDIR)
    .union(InodeFlags::CASEFOLD)
    .union(InodeFlags::PROJINHERIT);
const OF_ALL: InodeFlags = InodeFlags::NODUMP.union(InodeFlags::NOATIME);

/// How far the extra fields reach if the project is among them.
const PROJECT_END: u16 = 32;

/// Whether the file can have the flags and, where the volume `has_projects`, the project that `change` asks for, from this
/// caller.
///
/// # Errors
/// [`Error::NotSupported`], [`Error::NotPermitted`].
pub(super) fn check(
    record: &InodeRecord,
    has_projects: bool,
    caller: &Caller,
    change: &SetAttributes,
) -> Result<(), Error> {
    if let Some(flags) = change.flags {
        check_flags(record, caller, flags & MODIFIABLE)?;
    }
    let project = change.project.unwrap_or(record.projid);
    let flags = change.flags.unwrap_or(record.flags) & MODIFIABLE;
    let old = record.flags & MODIFIABLE;
    let stays_fixed = old.contains(InodeFlags::IMMUTABLE) && flags.contains(InodeFlags::IMMUTABLE);
    let is_asked = change.flags.is_some() || change.project.is_some();
    if is_asked && stays_fixed && (flags != old || project != record.projid) {
        return Err(Error::NotPermitted);
    }
    match change.project {
        Some(0) | None if !has_projects => Ok(()),
        Some(_) if !has_projects => Err(Error::NotSupported("projects on this volume")),
        Some(new) if new != record.projid && record.extra_isize < PROJECT_END => {
            Err(Error::NotSupported("a project in an inode this small"))
        }
        _ => Ok(()),
    }
}

fn check_flags(record: &InodeRecord, caller: &Caller, flags: InodeFlags) -> Result<(), Error> {
    let possible = match record.file_type() {
        Some(FileType::Directory) => MODIFIABLE,
        Some(FileType::Regular) => MODIFIABLE - OF_DIRECTORIES,
        _ => OF_ALL | CONVERTED,
    };
    if !possible.contains(flags) {
        return Err(Error::NotSupported("a flag for this kind of file"));
    }
    let changes = flags ^ (record.flags & MODIFIABLE);
    if changes.intersects(InodeFlags::CASEFOLD) {
        return Err(Error::NotSupported("converting a directory's names"));
    }
    let for_the_privileged = InodeFlags::IMMUTABLE | InodeFlags::APPEND | InodeFlags::JOURNAL_DATA;
    if changes.intersects(for_the_privileged) && !caller.privileged {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// Whether `flags` ask for a map of the other kind. The kernel converts it once all other flags have changed, and so they have
/// if it cannot.
///
/// Source: kernel `fs/ext4/ioctl.c`, `ext4_ioctl_setflags` (`migrate`).
pub(super) fn converts_map(record: &InodeRecord, flags: InodeFlags) -> bool {
    (record.flags ^ flags).contains(InodeFlags::EXTENTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::blank_record;

    const FILE: u16 = 0o100_644;
    const DIRECTORY: u16 = 0o040_755;

    fn ask(mode: u16, old: InodeFlags, new: InodeFlags, caller: &Caller) -> Result<(), i32> {
        let record = InodeRecord { flags: old, ..blank_record(mode) };
        let change = SetAttributes { flags: Some(new), ..SetAttributes::default() };
        check(&record, true, caller, &change).map_err(|error| error.errno().0)
    }

    #[test]
    fn flags_of_directories_are_for_directories() {
        for flag in OF_DIRECTORIES - InodeFlags::CASEFOLD {
            let none = InodeFlags::empty();
            assert_eq!(ask(FILE, none, flag, &Caller::ROOT), Err(95));
            assert_eq!(ask(DIRECTORY, none, flag, &Caller::ROOT), Ok(()));
        }
    }

    #[test]
    fn immutable_append_and_journaled_are_for_the_privileged() {
        let user = Caller { checked: true, ..Caller::user(1, 1) };
        for flag in [InodeFlags::IMMUTABLE, InodeFlags::APPEND, InodeFlags::JOURNAL_DATA] {
            assert_eq!(ask(FILE, InodeFlags::empty(), flag, &user), Err(1));
            assert_eq!(ask(FILE, flag, InodeFlags::empty(), &user), Err(1));
            assert_eq!(ask(FILE, InodeFlags::empty(), flag, &Caller::ROOT), Ok(()));
        }
        assert_eq!(ask(FILE, InodeFlags::empty(), InodeFlags::NODUMP, &user), Ok(()));
    }

    #[test]
    fn nothing_else_changes_while_a_file_stays_immutable() {
        let (fixed, other) = (InodeFlags::IMMUTABLE, InodeFlags::NODUMP);
        assert_eq!(ask(FILE, fixed, fixed | other, &Caller::ROOT), Err(1));
        assert_eq!(ask(FILE, fixed, other, &Caller::ROOT), Ok(()));
        assert_eq!(ask(FILE, fixed, fixed, &Caller::ROOT), Ok(()));
    }

    #[test]
    fn names_are_not_converted() {
        let none = InodeFlags::empty();
        assert_eq!(ask(DIRECTORY, none, InodeFlags::CASEFOLD, &Caller::ROOT), Err(95));
        assert_eq!(ask(DIRECTORY, InodeFlags::CASEFOLD, none, &Caller::ROOT), Err(95));
    }

    #[test]
    fn a_project_needs_the_feature_and_room_in_the_inode() {
        let change = SetAttributes { project: Some(7), ..SetAttributes::default() };
        let ask = |record: &InodeRecord, feature| {
            check(record, feature, &Caller::ROOT, &change).map_err(|error| error.errno().0)
        };
        let roomy = blank_record(FILE);
        assert_eq!(ask(&roomy, true), Ok(()));
        assert_eq!(ask(&roomy, false), Err(95));
        assert_eq!(ask(&InodeRecord { extra_isize: 28, ..roomy.clone() }, true), Err(95));
        let fixed = InodeRecord { flags: InodeFlags::IMMUTABLE, ..roomy };
        assert_eq!(ask(&fixed, true), Err(1));
    }
}
