//! Moving names: within a directory and across, over other names, in exchange for them.
//!
//! Source: kernel `fs/ext4/namei.c`: `ext4_rename`, `ext4_cross_rename`, `ext4_whiteout_for_rename`; `fs/namei.c`:
//! `do_renameat2`, `vfs_rename`, `lock_rename`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::corruption::{Place, Rule};
use extant_format::inode::InodeFlags;
use extant_format::{FileType, InodeNumber};
use smallvec::SmallVec;

use super::Deed;
use super::create::check_project;
use super::directory::Found;
use super::spawn::Plan;
use super::{Name, Namespace, is_sync, require_directory};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::report::Ineligible;
use crate::sync::{Rank, WriteGuard, assert_held};
use crate::transaction::{Change, Handle, Naming, credits};
use crate::xattr::Access;

bitflags::bitflags! {
    /// How to rename, as `renameat2` has it.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct RenameFlags: u32 {
        /// Not over another name.
        const NOREPLACE = 1;
        /// Each name gets the other's inode.
        const EXCHANGE = 2;
        /// Leave a device 0, 0 behind, which hides the name in an overlay.
        const WHITEOUT = 4;
    }
}

/// A name in its directory.
struct Side<'a> {
    dir: &'a Arc<Inode>,
    name: &'a [u8],
    found: Found,
    inode: Arc<Inode>,
}

impl Side<'_> {
    fn is_dir(&self) -> bool {
        self.inode.file_type() == FileType::Directory
    }
}

impl Namespace {
    /// Gives what `old_name` leads to the name `new_name`, and returns what had that name before, if anything: without
    /// further names it is an orphan, to be freed when nobody uses it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::NotEmpty`], [`Error::IsDirectory`], [`Error::NotDirectory`];
    /// [`Error::Invalid`] for flags that exclude each other and for a directory that would lie in itself;
    /// [`Error::Busy`] for the dots; [`Error::AccessDenied`], [`Error::NotPermitted`]; [`Error::TooManyLinks`];
    /// [`Error::CrossDevice`] between projects; [`Error::NoKey`]; [`Error::ReadOnly`]; no space, a full index.
    /// # Locks
    /// Takes `Namespace::rename` if the directories differ; then `content` of both, then of what is moved and replaced.
    pub(crate) fn rename(
        &self,
        caller: &Caller,
        (old_dir, old_name): (&Arc<Inode>, &[u8]),
        (new_dir, new_name): (&Arc<Inode>, &[u8]),
        flags: RenameFlags,
    ) -> Result<Option<Arc<Inode>>, Error> {
        let exclusive = flags.contains(RenameFlags::EXCHANGE) && flags != RenameFlags::EXCHANGE;
        if exclusive || !RenameFlags::all().contains(flags) {
            return Err(Error::Invalid("flags of a rename"));
        }
        let old_name = Name::to_rename(old_name)?;
        let new_name = match Name::to_rename(new_name) {
            Err(Error::Busy(_)) if flags.contains(RenameFlags::NOREPLACE) => {
                return Err(Error::Exists);
            }
            name => name?,
        };
        require_directory(old_dir)?;
        require_directory(new_dir)?;
        if (old_dir.flags() | new_dir.flags()).contains(InodeFlags::ENCRYPT) {
            return Err(Error::NoKey);
        }
        let across = old_dir.number() != new_dir.number();
        let _rename = across.then(|| self.rename.lock());
        let chains = if across {
            [self.ancestors(old_dir)?, self.ancestors(new_dir)?]
        } else {
            Default::default()
        };
        let _dirs = lock_directories(old_dir, new_dir, &chains);
        let (found, inode) = self.old_name(caller, old_dir, old_name)?;
        let old = Side { dir: old_dir, name: old_name, found, inode };
        let new = match self.old_name(caller, new_dir, new_name) {
            Ok((found, inode)) => Some(Side { dir: new_dir, name: new_name, found, inode }),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        match &new {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Error::Exists),
            None if flags.contains(RenameFlags::EXCHANGE) => return Err(Error::NotFound),
            _ => {}
        }
        if chains[1].contains(&old.inode.number()) {
            return Err(Error::Invalid("a directory cannot move into itself"));
        }
        if let Some(new) = &new
            && chains[0].contains(&new.inode.number())
        {
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            return Err(if exchange {
                Error::Invalid("a directory cannot move into itself")
            } else {
                Error::NotEmpty
            });
        }
        match new {
            Some(new) if new.inode.number() == old.inode.number() => Ok(None),
            Some(new) if flags.contains(RenameFlags::EXCHANGE) => {
                self.exchange(caller, &old, &new).map(|()| None)
            }
            new => self.move_name(
                caller,
                &old,
                new,
                (new_dir, new_name),
                flags.contains(RenameFlags::WHITEOUT),
            ),
        }
    }

    fn move_name(
        &self,
        caller: &Caller,
        old: &Side<'_>,
        new: Option<Side<'_>>,
        (new_dir, new_name): (&Arc<Inode>, &[u8]),
        whiteout: bool,
    ) -> Result<Option<Arc<Inode>>, Error> {
        let across = old.dir.number() != new_dir.number();
        self.check_removal(old.dir, &old.inode, caller)?;
        match &new {
            None => self.check_addition(new_dir, caller)?,
            Some(new) => {
                self.check_removal(new_dir, &new.inode, caller)?;
                match (old.is_dir(), new.is_dir()) {
                    (true, false) => return Err(Error::NotDirectory),
                    (false, true) => return Err(Error::IsDirectory),
                    _ => {}
                }
            }
        }
        self.check_move(caller, old, new_dir)?;
        let _inodes = self.lock_inodes([Some(old), new.as_ref()])?;
        if let Some(new) = new.as_ref().filter(|new| new.is_dir()) {
            if !self.has_no_names(&new.inode)? {
                return Err(Error::NotEmpty);
            }
        } else if old.is_dir() && across {
            self.check_subdirectories(new_dir)?;
        }
        let plan = match whiteout {
            true => {
                Some(self.plan(caller, old.dir, old.name, FileType::CharacterDevice.mode_bits())?)
            }
            false => None,
        };
        let blocks =
            2 * credits::DATA + credits::INDEX_EXTRA + 2 + plan.as_ref().map_or(0, Plan::credits);
        self.transact(
            caller,
            Deed::Change(old.dir, blocks),
            is_sync(old.dir) || is_sync(new_dir),
            |handle| {
                let left = plan.as_ref().map(|plan| self.spawn(handle, plan, 1)).transpose()?;
                let moved = self.enter(handle, old, new.as_ref(), (new_dir, new_name));
                if let (Err(_), Some(left)) = (&moved, &left) {
                    self.give_up(handle, left)?;
                }
                moved?;
                self.leave(handle, old, left.as_deref())?;
                if let Some(new) = &new {
                    if new.is_dir() {
                        self.lose_all_names(handle, &new.inode)?;
                    } else {
                        self.lose_name(handle, &new.inode)?;
                    }
                }
                if old.is_dir() {
                    self.drop_link(old.dir);
                    if across {
                        self.set_parent(handle, &old.inode, new_dir.number())?;
                    }
                    if new.is_none() {
                        self.add_link(new_dir);
                    }
                }
                self.touch(handle, new_dir)?;
                self.touch(handle, old.dir)?;
                self.note_move(handle, old, new.as_ref(), (new_dir, new_name));
                Ok(())
            },
        )?;
        Ok(new.as_ref().map(|new| Arc::clone(&new.inode)))
    }

    /// Tells the next fast commit that a name has moved.
    fn note_move(
        &self,
        handle: &Handle<'_>,
        old: &Side<'_>,
        new: Option<&Side<'_>>,
        to: (&Inode, &[u8]),
    ) {
        if old.is_dir() {
            handle.note(Change::Unrecorded(Ineligible::RenameDirectory));
            return;
        }
        if let Some(new) = new {
            self.note_name(handle, Naming::Unlinked, to, &new.inode);
        }
        self.note_name(handle, Naming::Linked, to, &old.inode);
        self.note_name(handle, Naming::Unlinked, (old.dir, old.name), &old.inode);
    }

    /// Lets the new name lead to the inode.
    fn enter(
        &self,
        handle: &mut Handle<'_>,
        old: &Side<'_>,
        new: Option<&Side<'_>>,
        (new_dir, new_name): (&Arc<Inode>, &[u8]),
    ) -> Result<(), Error> {
        let (number, file_type) = (old.inode.number(), old.inode.file_type());
        match new {
            Some(new) => self.set_entry(handle, new_dir, new.found.at, number, file_type)?,
            None => self.add_entry(handle, new_dir, new_name, number, file_type)?,
        }
        old.inode.core.lock().ctime = self.clock.wall();
        self.inodes.store(handle, &old.inode)
    }

    /// Takes the old name away, or lets it lead to what is left behind. Adding the new one may have moved it.
    fn leave(
        &self,
        handle: &mut Handle<'_>,
        old: &Side<'_>,
        left: Option<&Inode>,
    ) -> Result<(), Error> {
        let found =
            self.find_name(old.dir, old.name)?.filter(|found| found.inode == old.inode.number());
        let found = found.ok_or_else(|| Place::Inode(old.dir.number()).breaks(Rule::EntryName))?;
        match left {
            Some(left) => {
                self.set_entry(handle, old.dir, found.at, left.number(), left.file_type())
            }
            None => self.remove_entry(handle, old.dir, found.at),
        }
    }

    fn exchange(&self, caller: &Caller, old: &Side<'_>, new: &Side<'_>) -> Result<(), Error> {
        let across = old.dir.number() != new.dir.number();
        for (side, other) in [(old, new), (new, old)] {
            self.check_removal(side.dir, &side.inode, caller)?;
            self.check_move(caller, side, other.dir)?;
        }
        if across && old.is_dir() != new.is_dir() {
            let gains = if old.is_dir() { new.dir } else { old.dir };
            self.check_subdirectories(gains)?;
        }
        let _inodes = self.lock_inodes([Some(old), Some(new)])?;
        let blocks = 2 * credits::DATA + 2 * credits::INDEX_EXTRA + 2;
        self.transact(
            caller,
            Deed::Change(old.dir, blocks),
            is_sync(old.dir) || is_sync(new.dir),
            |handle| {
                handle.note(Change::Unrecorded(Ineligible::Exchange));
                for (side, other) in [(old, new), (new, old)] {
                    self.set_entry(
                        handle,
                        side.dir,
                        side.found.at,
                        other.inode.number(),
                        other.inode.file_type(),
                    )?;
                    if across && side.is_dir() {
                        self.set_parent(handle, &side.inode, other.dir.number())?;
                    }
                    side.inode.core.lock().ctime = self.clock.wall();
                    self.inodes.store(handle, &side.inode)?;
                }
                if across && old.is_dir() != new.is_dir() {
                    let (loses, gains) =
                        if old.is_dir() { (old.dir, new.dir) } else { (new.dir, old.dir) };
                    self.drop_link(loses);
                    self.add_link(gains);
                }
                self.touch(handle, old.dir)?;
                self.touch(handle, new.dir)
            },
        )
    }

    /// Whether the inode may go to another directory: one that is a directory itself is changed by that.
    fn check_move(&self, caller: &Caller, side: &Side<'_>, to: &Inode) -> Result<(), Error> {
        check_project(to, &side.inode)?;
        if side.is_dir() && side.dir.number() != to.number() {
            self.xattrs.check_access(&side.inode, caller, Access::WRITE)?;
        }
        Ok(())
    }

    /// Locks what is moved and what is replaced, by number.
    fn lock_inodes<'a>(
        &self,
        sides: [Option<&'a Side<'a>>; 2],
    ) -> Result<SmallVec<[WriteGuard<'a, ()>; 2]>, Error> {
        let mut inodes: SmallVec<[&Arc<Inode>; 2]> = SmallVec::new();
        for side in sides.into_iter().flatten() {
            self.check_inside(side.dir, &side.inode)?;
            inodes.push(&side.inode);
        }
        inodes.sort_by_key(|inode| inode.number());
        Ok(inodes.into_iter().map(|inode| inode.content.write()).collect())
    }

    /// The directory and all above it; does not change while the rename lock is held.
    fn ancestors(&self, dir: &Arc<Inode>) -> Result<Vec<InodeNumber>, Error> {
        assert_held(Rank::Rename);
        let mut chain = Vec::from([dir.number()]);
        let mut at = Arc::clone(dir);
        while at.number() != InodeNumber::ROOT {
            at = self.parent(&at)?;
            let circle = chain.contains(&at.number());
            Place::Inode(dir.number()).require(!circle, Rule::EntryInode)?;
            chain.push(at.number());
        }
        Ok(chain)
    }
}

/// Locks two directories, or one if they are the same: an ancestor first, else by number.
fn lock_directories<'a>(
    old: &'a Arc<Inode>,
    new: &'a Arc<Inode>,
    chains: &[Vec<InodeNumber>; 2],
) -> SmallVec<[WriteGuard<'a, ()>; 2]> {
    let mut guards = SmallVec::new();
    if old.number() == new.number() {
        guards.push(old.content.write());
        return guards;
    }
    let old_first = if chains[1].contains(&old.number()) {
        true
    } else {
        !chains[0].contains(&new.number()) && old.number() < new.number()
    };
    let (first, second) = if old_first { (old, new) } else { (new, old) };
    guards.push(first.content.write());
    guards.push(second.content.write());
    guards
}
