//! New inodes: who owns them, what they may, where they go.
//!
//! Source: kernel `fs/ext4/ialloc.c`, `__ext4_new_inode`; `fs/inode.c`, `inode_init_owner`, `mode_strip_sgid`;
//! `fs/posix_acl.c`, `posix_acl_create`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use extant_format::hash::{CharSign, HashVersion};
use extant_format::inode::{InodeFlags, InodeRecord};
use extant_format::{BlockGroup, FileType, InodeNumber};

use super::{Hashing, Namespace};
use crate::Error;
use crate::allocator::{InodeKind, Parent};
use crate::caller::Caller;
use crate::inode::{self, Inode};
use crate::trace::Event;
use crate::transaction::{Handle, credits};
use crate::xattr::{AclKind, SetHow};

/// What a new inode starts with, found out before its transaction begins.
pub(super) struct Plan<'a> {
    dir: &'a Inode,
    name: &'a [u8],
    pub(super) record: InodeRecord,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Plan<'_> {
    /// Where the inode is to have its name.
    pub(super) fn dir(&self) -> InodeNumber {
        self.dir.number()
    }

    /// Blocks that the inode and its name can change.
    pub(super) fn credits(&self) -> u32 {
        let lists = u32::from(self.access.is_some()) + u32::from(self.default.is_some());
        credits::DATA + credits::INDEX_EXTRA + 3 + lists * credits::XATTR
    }

    pub(super) fn file_type(&self) -> FileType {
        self.record.file_type().expect("planned with a type")
    }
}

impl Namespace {
    /// What an inode of this mode (type and permissions) called `name` in `dir` starts with.
    pub(super) fn plan<'a>(
        &self,
        caller: &Caller,
        dir: &'a Inode,
        name: &'a [u8],
        mode: u16,
    ) -> Result<Plan<'a>, Error> {
        let file_type = FileType::from_mode(mode).ok_or(Error::Invalid("type of file"))?;
        let mut record = inode::new_record(self.geometry(), file_type, self.clock.wall());
        let parent = dir.core.lock().clone();
        record.mode = mode;
        (record.uid, record.gid) = (caller.uid, caller.gid);
        if parent.mode & SET_GROUP != 0 {
            record.gid = parent.gid;
            let is_dir = file_type == FileType::Directory;
            let runs_as_group = mode & (SET_GROUP | 0o010) == SET_GROUP | 0o010;
            if is_dir {
                record.mode |= SET_GROUP;
            } else if runs_as_group && !caller.may_all() && !caller.is_in_group(parent.gid) {
                record.mode &= !SET_GROUP;
            }
        }
        record.flags |= inherited(parent.flags, file_type);
        if parent.flags.contains(InodeFlags::PROJINHERIT) {
            record.projid = parent.projid;
        }
        record.generation = self.entropy.draw();
        let mut plan = Plan { dir, name, record, access: None, default: None };
        if file_type == FileType::Symlink {
            return Ok(plan);
        }
        match self.xattrs.acl(dir, AclKind::Default)? {
            None => plan.record.mode &= !(caller.umask & 0o777),
            Some(acl) => {
                let (access, mode) = acl.inherited(plan.record.mode);
                plan.record.mode = mode;
                plan.access = access.map(|acl| acl.to_disk());
                plan.default = (file_type == FileType::Directory).then(|| acl.to_disk());
            }
        }
        Ok(plan)
    }

    /// Makes the planned inode, without a name.
    ///
    /// # Errors
    /// [`Error::NoInodes`], [`Error::NoSpace`] for its access control list; nothing is left behind but an orphan.
    pub(super) fn spawn(
        &self,
        handle: &mut Handle<'_>,
        plan: &Plan<'_>,
        links: u16,
    ) -> Result<Arc<Inode>, Error> {
        let number = self.allocator.allocate_inode(
            handle,
            self.parent_of(plan),
            self.kind_of(plan),
            None,
        )?;
        if let Some((group, _)) = self.geometry().inode_place(number) {
            plan.dir.last_group.store(group.get(), Ordering::Relaxed);
        }
        let record = InodeRecord { links, ..plan.record.clone() };
        let inode = self
            .inodes
            .create(handle, number, record, || self.allocator.is_alone_in_table_block(number))?;
        let (ino, dir, mode) = (number, plan.dir(), plan.record.mode);
        self.transactions.tracer().emit(|| Event::AllocateInode { ino, dir, mode });
        for (kind, value) in [(AclKind::Default, &plan.default), (AclKind::Access, &plan.access)] {
            if let Some(value) = value
                && let Err(error) =
                    self.xattrs.write(handle, &inode, kind.key(), Some(value), SetHow::Create)
            {
                self.give_up(handle, &inode)?;
                return Err(error);
            }
        }
        Ok(inode)
    }

    /// Leaves an inode that could not get its name to be freed.
    pub(super) fn give_up(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        inode.core.lock().links = 0;
        self.orphans.add(handle, inode)?;
        self.orphans.note_unused(inode.number());
        self.inodes.store(handle, inode)
    }

    fn parent_of(&self, plan: &Plan<'_>) -> Parent {
        let last = plan.dir.last_group.load(Ordering::Relaxed);
        let inode = plan.dir.number();
        Parent {
            inode,
            last_group: (last < self.geometry().group_count).then_some(BlockGroup(last)),
            is_top: inode == InodeNumber::ROOT || plan.dir.flags().contains(InodeFlags::TOPDIR),
        }
    }

    fn kind_of(&self, plan: &Plan<'_>) -> InodeKind {
        if plan.file_type() != FileType::Directory {
            return InodeKind::Other;
        }
        let spread =
            Hashing { sign: CharSign::Signed, ..self.hashing }.hasher(HashVersion::HalfMd4);
        InodeKind::Directory { name_hash: spread.map_or(0, |hasher| hasher.hash(plan.name).major) }
    }
}

/// The flags that a new inode takes over from its directory.
///
/// Source: kernel `fs/ext4/ext4.h`, `EXT4_FL_INHERITED`, `ext4_mask_flags`.
fn inherited(parent: InodeFlags, file_type: FileType) -> InodeFlags {
    let other = InodeFlags::NODUMP | InodeFlags::NOATIME;
    let file = other | InodeFlags::SECRM | InodeFlags::UNRM | InodeFlags::COMPR | InodeFlags::SYNC;
    let file = file | InodeFlags::JOURNAL_DATA | InodeFlags::NOTAIL | InodeFlags::DAX;
    let dir = file | InodeFlags::DIRSYNC | InodeFlags::PROJINHERIT | InodeFlags::CASEFOLD;
    parent
        & match file_type {
            FileType::Directory => dir,
            FileType::Regular => file,
            _ => other,
        }
}

const SET_GROUP: u16 = 0o2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_inherited_as_far_as_the_type_has_them() {
        let all = InodeFlags::all();
        assert!(
            inherited(all, FileType::Directory)
                .contains(InodeFlags::DIRSYNC | InodeFlags::PROJINHERIT)
        );
        assert!(
            !inherited(all, FileType::Directory).intersects(InodeFlags::TOPDIR | InodeFlags::INDEX)
        );
        assert!(!inherited(all, FileType::Regular).contains(InodeFlags::DIRSYNC));
        assert_eq!(inherited(all, FileType::Fifo), InodeFlags::NODUMP | InodeFlags::NOATIME);
    }
}
