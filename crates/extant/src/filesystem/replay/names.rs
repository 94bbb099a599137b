//! Names that come and go.
//!
//! No record tells of a directory's own times; they become those of what got or lost a name there. So every replay of the same
//! records ends the same.

use alloc::sync::Arc;

use extant_format::corruption::{Place, Rule};
use extant_format::fast_commit::Link;
use extant_format::inode::InodeFlags;
use extant_format::{FileType, Timestamp};

use super::Replay;
use crate::Error;
use crate::inode::Inode;

impl Replay<'_> {
    /// An inode that came with a record of its own got its first name.
    ///
    /// Source: kernel `ext4_fc_replay_create`.
    pub(super) fn create(&mut self, link: Link<'_>) -> Result<(), Error> {
        let inode = self.inode(link.inode)?;
        let inode = inode.ok_or(Place::Inode(link.inode).breaks(Rule::FastCommitTag))?;
        let Some(dir) = self.directory(link)? else { return Ok(()) };
        let is_directory = inode.file_type() == FileType::Directory;
        if is_directory && inode.core.lock().links == 0 {
            self.volume.namespace.replay_directory(&inode, dir.number())?;
        }
        if self.enter(&dir, link.name, &inode)? && !is_directory {
            self.set_links(&inode, |_| 1)?;
        }
        Ok(())
    }

    /// An inode got one more name.
    ///
    /// Source: kernel `ext4_fc_replay_link`.
    pub(super) fn link(&mut self, link: Link<'_>, inode: &Arc<Inode>) -> Result<(), Error> {
        let is_directory = inode.file_type() == FileType::Directory;
        Place::Inode(inode.number()).require(!is_directory, Rule::FastCommitTag)?;
        let Some(dir) = self.directory(link)? else { return Ok(()) };
        if self.enter(&dir, link.name, inode)? {
            self.set_links(inode, |links| links.saturating_add(1))?;
        }
        Ok(())
    }

    /// An inode lost a name, if it has that.
    ///
    /// Source: kernel `ext4_fc_replay_unlink`.
    pub(super) fn unlink(&mut self, link: Link<'_>) -> Result<(), Error> {
        let Some(dir) = self.directory(link)? else { return Ok(()) };
        let Some(inode) = self.inode(link.inode)? else { return Ok(()) };
        if self.volume.namespace.replay_find(&dir, link.name)? == Some(link.inode) {
            self.leave(&dir, link.name, &inode)?;
        }
        Ok(())
    }

    /// Where a record's name is. A directory that came and went between two records is in none of them.
    fn directory(&mut self, link: Link<'_>) -> Result<Option<Arc<Inode>>, Error> {
        let dir = self.inode(link.parent)?;
        let dir =
            dir.filter(|dir| dir.file_type() == FileType::Directory && dir.core.lock().links > 0);
        if let Some(dir) = dir.as_deref().filter(|dir| !dir.flags().contains(InodeFlags::INDEX)) {
            let blocks = dir.size() >> self.volume.transactions.geometry().block_bits;
            let left = self.searches.checked_sub(blocks);
            self.searches = left.ok_or(Error::NotSupported(
                "fast commits of this many names in directories without an index",
            ))?;
        }
        Ok(dir)
    }

    /// Lets the name lead to the inode; `false` if it does so already. What it led to loses it.
    fn enter(&mut self, dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<bool, Error> {
        match self.volume.namespace.replay_find(dir, name)? {
            Some(number) if number == inode.number() => return Ok(false),
            Some(number) => {
                let other = self.volume.inodes.get(number)?;
                self.leave(dir, name, &other)?;
            }
            None => {}
        }
        let when = self.changed(inode);
        self.volume.namespace.replay_enter(dir, name, inode, when)?;
        self.touch(inode.number()).names += 1;
        Ok(true)
    }

    fn leave(&mut self, dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<(), Error> {
        let is_directory = inode.file_type() == FileType::Directory;
        let when = self.changed(inode);
        self.volume.namespace.replay_leave(dir, name, is_directory, when)?;
        let touched = self.touch(inode.number());
        touched.names = touched.names.saturating_sub(1);
        self.set_links(inode, |links| if is_directory { 0 } else { links.saturating_sub(1) })
    }

    /// When the inode changed last, as far as the commit tells: what its directory cannot tell of itself.
    fn changed(&self, inode: &Inode) -> Timestamp {
        let told = self.changed.get(&inode.number()).copied();
        told.unwrap_or_else(|| inode.core.lock().ctime)
    }

    /// Counts the inode's names anew, and stores it.
    fn set_links(&self, inode: &Arc<Inode>, change: impl FnOnce(u16) -> u16) -> Result<(), Error> {
        {
            let mut core = inode.core.lock();
            core.links = change(core.links);
        }
        self.volume.inodes.store(&mut self.handle()?, inode)
    }
}
