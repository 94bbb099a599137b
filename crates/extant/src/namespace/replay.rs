//! Names that fast commits brought and took: single steps, without permissions, on a volume without a journal.
//!
//! Source: kernel `fs/ext4/fast_commit.c`, `ext4_fc_replay_link_internal`, `ext4_fc_replay_unlink`, `ext4_fc_replay_create`.
//! Differs: a directory that comes or goes counts in its parent's links, which the kernel forgets.

use extant_format::corruption::{Place, Rule};
use extant_format::inode::InodeFlags;
use extant_format::{FileType, InodeNumber, Timestamp};

use super::{Name, Namespace, require_directory};
use crate::Error;
use crate::inode::Inode;
use crate::transaction::Credits;

impl Namespace {
    /// Where `name` in the directory leads.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; [`Error::NotSupported`] for a directory whose names are hashed as nobody here can; what is
    /// broken, a name that no record can have among it.
    /// # Locks
    /// Takes `content` for reading.
    pub(crate) fn replay_find(
        &self,
        dir: &Inode,
        name: &[u8],
    ) -> Result<Option<InodeNumber>, Error> {
        require_directory(dir)?;
        if dir.flags().intersects(InodeFlags::CASEFOLD | InodeFlags::ENCRYPT) {
            return Err(Error::NotSupported("fast commits of folded or encrypted names"));
        }
        let no_name = Place::Inode(dir.number()).breaks(Rule::EntryName);
        let name = Name::to_create(name).map_err(|_| no_name)?;
        let _content = dir.content.read();
        Ok(self.find_entry(dir, name)?.map(|found| found.inode))
    }

    /// Lets `name`, which [`Self::replay_find`] has not found, lead to the inode since `when`.
    ///
    /// # Errors
    /// Of the directory; no space for it.
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn replay_enter(
        &self,
        dir: &Inode,
        name: &[u8],
        inode: &Inode,
        when: Timestamp,
    ) -> Result<(), Error> {
        let _content = dir.content.write();
        let handle = &mut self.transactions.begin(Credits::default())?;
        let file_type = inode.file_type();
        self.add_entry(handle, dir, name, inode.number(), file_type)?;
        if file_type == FileType::Directory {
            self.add_link(dir);
        }
        let when = when.max(mtime_of(dir));
        self.touch_at(handle, dir, when)
    }

    /// Takes `name` out of the directory, which has it, as of `when`; `is_directory` is what it leads to.
    ///
    /// # Errors
    /// Of the directory.
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn replay_leave(
        &self,
        dir: &Inode,
        name: &[u8],
        is_directory: bool,
        when: Timestamp,
    ) -> Result<(), Error> {
        let _content = dir.content.write();
        let handle = &mut self.transactions.begin(Credits::default())?;
        let Some(found) = self.find_entry(dir, name)? else { return Ok(()) };
        self.remove_entry(handle, dir, found.at)?;
        if is_directory {
            self.drop_link(dir);
        }
        let when = when.max(mtime_of(dir));
        self.touch_at(handle, dir, when)
    }

    /// Makes the contents of a new directory in `parent`.
    ///
    /// # Errors
    /// No space for it.
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn replay_directory(&self, dir: &Inode, parent: InodeNumber) -> Result<(), Error> {
        let _content = dir.content.write();
        let handle = &mut self.transactions.begin(Credits::default())?;
        self.init_directory(handle, dir, parent)?;
        dir.core.lock().links = 2;
        self.inodes.store(handle, dir)
    }

    /// Whether the directory has no names but its dots.
    ///
    /// # Errors
    /// Of reading it.
    /// # Locks
    /// Takes `content` for reading.
    pub(crate) fn replay_is_empty(&self, dir: &Inode) -> Result<bool, Error> {
        let _content = dir.content.read();
        self.has_no_names(dir)
    }
}

fn mtime_of(inode: &Inode) -> Timestamp {
    inode.core.lock().mtime
}
