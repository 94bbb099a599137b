//! Changing a file's attributes: chmod, chown, utimens, and what they imply.
//!
//! Source: kernel `fs/ext4/inode.c`, `ext4_setattr`; `fs/attr.c`, `setattr_prepare`, `setattr_copy`.

use alloc::sync::Arc;

use extant_format::{FileType, InodeFlags, InodeRecord, RoCompat, Timestamp};

use super::flags;
use super::volume::Volume;
use crate::Error;
use crate::caller::Caller;
use crate::inode::{Inode, drop_privilege_bits};
use crate::report::{Ineligible, Metadata, SetAttributes};
use crate::trace::HandleType;
use crate::transaction::{Change, Credits, credits};

impl Volume {
    /// Changes attributes, all in one transaction.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if the caller does not own the file or the file is immutable; [`Error::ReadOnly`];
    /// [`Error::NotSupported`] for flags and projects that the file cannot have; for a map of the other kind, after all else
    /// has changed.
    /// # Locks
    /// Takes the inode's `content` for writing.
    pub(crate) fn set_attributes(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        change: &SetAttributes,
    ) -> Result<(), Error> {
        let _gate = self.gate.read();
        let _content = inode.content.write();
        check(&inode.core.lock(), caller, change)?;
        let features = self.transactions.geometry().ro_compat;
        let has_projects = features.contains(RoCompat::PROJECT);
        flags::check(&inode.core.lock(), has_projects, caller, change)?;
        let journal_data = change.flags.map(|flags| flags.contains(InodeFlags::JOURNAL_DATA));
        let journal_data =
            journal_data.filter(|on| *on != inode.flags().contains(InodeFlags::JOURNAL_DATA));
        if journal_data.is_some() && !caller.privileged {
            return Err(Error::NotPermitted);
        }
        let converts_map =
            change.flags.is_some_and(|flags| flags::converts_map(&inode.core.lock(), flags));
        let changes_owner = change.uid.is_some() || change.gid.is_some();
        if changes_owner && inode.file_type() != FileType::Directory {
            self.xattrs.drop_capability(inode)?;
        }
        let mut transaction = self.transactions.begin(
            Credits::blocks(1 + credits::XATTR, self.transactions.geometry())
                .of(HandleType::Inode, inode.number()),
        )?;
        if let Some(mode) = change.mode
            && let Err(error) = self.xattrs.set_mode(&mut transaction, inode, mode & 0o7777)
        {
            return Err(transaction.fail(error));
        }
        self.apply(caller, inode, change);
        if inode.file_type() == FileType::Directory {
            transaction.note(Change::Unrecorded(Ineligible::Unrecordable));
        }
        self.inodes.store(&mut transaction, inode)?;
        transaction.stop()?;
        if let Some(on) = journal_data {
            self.files.set_journal_data(inode, on)?;
        }
        if converts_map {
            return Err(Error::NotSupported("converting a file's map"));
        }
        Ok(())
    }

    fn apply(&self, caller: &Caller, inode: &Inode, change: &SetAttributes) {
        let now = self.clock.wall();
        let has_extra = self.transactions.geometry().inode_size > 128;
        let stored = |time: Timestamp| time.truncated(has_extra);
        let mut core = inode.core.lock();
        if let Some(mode) = change.mode {
            let mut mode = mode & 0o7777;
            // A group that the caller is not in loses the set-group bit.
            if !caller.is_in_group(change.gid.unwrap_or(core.gid)) && !caller.may_all() {
                mode &= !0o2000;
            }
            core.mode = (core.mode & FileType::MODE_MASK) | mode;
        } else if (change.uid.is_some() || change.gid.is_some())
            && core.file_type() != Some(FileType::Directory)
        {
            drop_privilege_bits(&mut core);
        }
        core.uid = change.uid.unwrap_or(core.uid);
        core.gid = change.gid.unwrap_or(core.gid);
        core.atime = change.accessed.map_or(core.atime, stored);
        core.mtime = change.modified.map_or(core.mtime, stored);
        if let Some(flags) = change.flags {
            core.flags = (core.flags - flags::CHANGED) | (flags & flags::CHANGED);
        }
        core.projid = change.project.unwrap_or(core.projid);
        core.ctime = now;
    }

    /// What a file looks like from outside; delayed blocks count as used.
    pub(crate) fn metadata(&self, inode: &Arc<Inode>) -> Metadata {
        let promised = inode.reservations.lock().promise().clusters.get();
        let geometry = self.transactions.geometry();
        let core = inode.core.lock();
        let promised_sectors =
            (promised * u64::from(geometry.cluster_ratio())) << (geometry.block_bits - 9);
        Metadata {
            inode: inode.number(),
            mode: core.mode,
            uid: core.uid,
            gid: core.gid,
            links: core.links.into(),
            size: inode.size(),
            blocks: core.blocks + promised_sectors + inline_sectors(&core, inode.size()),
            device: matches!(
                core.file_type(),
                Some(FileType::CharacterDevice | FileType::BlockDevice)
            )
            .then(|| core.device()),
            accessed: core.atime,
            modified: core.mtime,
            changed: core.ctime,
            created: core.crtime,
            flags: core.flags,
            generation: core.generation,
            project: core.projid,
        }
    }
}

/// Who may change what.
///
/// Source: kernel `fs/attr.c`, `may_setattr`, `setattr_prepare`.
fn check(core: &InodeRecord, caller: &Caller, change: &SetAttributes) -> Result<(), Error> {
    let sets_times = change.accessed.is_some() || change.modified.is_some();
    let is_fixed = core.flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND);
    let changes = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
    let is_immutable = core.flags.contains(InodeFlags::IMMUTABLE);
    if is_fixed && (changes || sets_times && !change.now) || is_immutable && sets_times {
        return Err(Error::NotPermitted);
    }
    let changes_owner = change.uid.is_some_and(|uid| uid != core.uid);
    let changes_group = change.gid.is_some_and(|gid| gid != core.gid && !caller.is_in_group(gid));
    if caller.may_all() || (caller.owns(core.uid) && !changes_owner && !changes_group) {
        return Ok(());
    }
    Err(Error::NotPermitted)
}

/// A file's inline data counts as space, as `ext4_file_getattr` has it.
fn inline_sectors(core: &InodeRecord, size: u64) -> u64 {
    let is_file = core.file_type() == Some(FileType::Regular);
    if is_file && core.flags.contains(InodeFlags::INLINE_DATA) { size.div_ceil(512) } else { 0 }
}
