//! Inodes that come, change and go.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::extent::NodeMut;
use extant_format::inode::{BLOCK_AREA_BYTES, CORE_BYTES, InodeFlags, InodeRecord};
use extant_format::{FileType, InodeNumber, LogicalRange};

use super::Replay;
use super::records::InodeRecords;
use crate::Error;
use crate::inode::Inode;

/// What replay has to know of an inode in the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    /// It came with the records.
    came: bool,
    /// Names that it got from them, less those that it lost again.
    pub(super) names: u32,
}

impl Replay<'_> {
    /// The inode, if it is in use.
    ///
    /// # Errors
    /// Of reading it, or what is broken.
    pub(super) fn inode(&self, number: InodeNumber) -> Result<Option<Arc<Inode>>, Error> {
        let known = number.get() <= self.volume.transactions.geometry().inodes_count;
        Place::Inode(number).require(known, Rule::EntryInode)?;
        if !self.volume.allocator.is_inode_used(number)? {
            return Ok(None);
        }
        match self.volume.inodes.get(number) {
            Err(Error::Stale(_)) => Ok(None),
            inode => inode.map(Some),
        }
    }

    /// The inode that the record at `at` is about. One that came with this commit may have its own record behind those of its
    /// blocks, and one that left its inode for blocks too.
    pub(super) fn inode_or_later(
        &mut self,
        number: InodeNumber,
        records: &InodeRecords<'_>,
        at: usize,
    ) -> Result<Option<Arc<Inode>>, Error> {
        let inode = self.inode(number)?;
        let is_mapped = |inode: &Inode| !inode.flags().contains(InodeFlags::INLINE_DATA);
        if inode.as_deref().is_some_and(is_mapped) {
            return Ok(inode);
        }
        let Some(raw) = records.next(number, at) else { return Ok(inode) };
        self.restore(number, raw)?;
        self.inode(number)
    }

    /// Notes that records are about the inode.
    pub(super) fn touch(&mut self, number: InodeNumber) -> &mut Touched {
        self.touched.entry(number).or_default()
    }

    /// The inode is as `raw` says, but for what other records say of it: its blocks, and a directory's links and size.
    ///
    /// Source: kernel `ext4_fc_replay_inode`. Differs: a new life of a number is told from the old one by its generation, and
    /// begins without attributes and blocks.
    pub(super) fn restore(&mut self, number: InodeNumber, raw: &[u8]) -> Result<(), Error> {
        let geometry = self.volume.transactions.geometry();
        let at = Place::Inode(number);
        let is_special = number.get() < geometry.first_inode || self.special.contains(&number);
        at.require(!is_special && number.get() <= geometry.inodes_count, Rule::EntryInode)?;
        at.require(raw.len() <= usize_from(geometry.inode_size), Rule::FastCommitTag)?;
        let record = InodeRecord::decode(raw, geometry, number)?;
        at.require(record.file_type().is_some(), Rule::FastCommitTag)?;
        match self.inode(number)? {
            Some(inode) if self.is_same_life(&inode, &record) => {
                self.update(&inode, record, raw)?
            }
            old => {
                old.map_or(Ok(()), |old| self.end(&old))?;
                self.begin(number, record, raw)?;
            }
        }
        self.touch(number);
        Ok(())
    }

    fn is_same_life(&self, inode: &Inode, record: &InodeRecord) -> bool {
        inode.generation() == record.generation && Some(inode.file_type()) == record.file_type()
    }

    /// An inode that was there changes.
    fn update(&mut self, inode: &Arc<Inode>, new: InodeRecord, raw: &[u8]) -> Result<(), Error> {
        let old = inode.core.lock().clone();
        let at = Place::Inode(inode.number());
        // Attributes change by full commits alone.
        at.require(new.file_acl == old.file_acl, Rule::AttributeBlock)?;
        let storage = InodeFlags::INLINE_DATA | InodeFlags::EXTENTS;
        let of_directory = InodeFlags::INDEX | storage;
        let is_directory = old.file_type() == Some(FileType::Directory);
        let is_file = old.file_type() == Some(FileType::Regular);
        let kept = InodeRecord {
            blocks: old.blocks,
            extra_isize: old.extra_isize,
            // The next of the orphan list, which is that of the last full commit.
            dtime: if self.volume.orphans.is_listed(inode.number()) { old.dtime } else { 0 },
            ..new.clone()
        };
        let merged = if is_directory {
            let flags = (new.flags - of_directory) | (old.flags & of_directory);
            let (links, size, block, dtime) = (old.links, old.size, old.block, old.dtime);
            InodeRecord { flags, links, size, block, dtime, ..kept }
        } else {
            self.change_storage(inode, new.flags)?;
            let now = inode.core.lock();
            let block = if new.flags.contains(InodeFlags::EXTENTS) { now.block } else { new.block };
            let is_indirect = is_file && !new.flags.intersects(storage);
            if is_indirect && block != now.block {
                return Err(INDIRECT);
            }
            InodeRecord { block, blocks: now.blocks, ..kept }
        };
        self.set(inode, merged)?;
        self.set_tail(inode, raw)
    }

    /// What the file's bytes are in is what the record says: blocks, or the inode.
    fn change_storage(&mut self, inode: &Arc<Inode>, new: InodeFlags) -> Result<(), Error> {
        let storage = InodeFlags::INLINE_DATA | InodeFlags::EXTENTS;
        let (old, new) = (inode.flags() & storage, new & storage);
        if old == new {
            return Ok(());
        }
        let at = Place::Inode(inode.number());
        if old == InodeFlags::INLINE_DATA && new == InodeFlags::EXTENTS {
            return self.volume.inodes.drop_inline(&mut self.handle()?, inode).map(drop);
        }
        if old == InodeFlags::EXTENTS && new == InodeFlags::INLINE_DATA {
            // It was empty, and got its first bytes.
            return self.delete_range(inode, LogicalRange::ALL);
        }
        // Of indirect blocks no fast commit tells.
        Ok(at.require(false, Rule::FastCommitTag)?)
    }

    /// An inode comes.
    fn begin(
        &mut self,
        number: InodeNumber,
        mut record: InodeRecord,
        raw: &[u8],
    ) -> Result<(), Error> {
        let at = Place::Inode(number);
        at.require(record.file_acl.is_none(), Rule::AttributeBlock)?;
        let is_directory = record.file_type() == Some(FileType::Directory);
        if is_directory {
            // Its contents come with its name.
            (record.size, record.links) = (0, 0);
            record.flags -= InodeFlags::INDEX;
            if record.flags.contains(InodeFlags::INLINE_DATA) {
                record.flags -= InodeFlags::INLINE_DATA;
                record.flags |= InodeFlags::EXTENTS;
            }
        }
        (record.blocks, record.dtime) = (0, 0);
        let in_inode = record.flags.contains(InodeFlags::INLINE_DATA)
            || record.is_fast_symlink(self.volume.transactions.geometry())
            || !matches!(
                record.file_type(),
                Some(FileType::Regular | FileType::Directory | FileType::Symlink)
            );
        if record.flags.contains(InodeFlags::EXTENTS) {
            record.block = [0; BLOCK_AREA_BYTES];
            NodeMut::init(&mut record.block, 0);
        } else if !in_inode {
            return Err(INDIRECT);
        }
        let allocator = &self.volume.allocator;
        let mut handle = self.handle()?;
        allocator.take_inode_number(&mut handle, number, is_directory)?;
        let is_alone = || allocator.is_alone_in_table_block(number);
        let inode = self.volume.inodes.create(&mut handle, number, record, is_alone)?;
        drop(handle);
        self.set_tail(&inode, raw)?;
        *self.touch(number) = Touched { came: true, names: 0 };
        Ok(())
    }

    /// Both sizes and everything else.
    fn set(&self, inode: &Arc<Inode>, record: InodeRecord) -> Result<(), Error> {
        let _content = inode.content.write();
        inode.set_size(record.size);
        *inode.core.lock() = record;
        self.volume.inodes.store(&mut self.handle()?, inode)
    }

    /// The part of inline data that lies behind the fields, with the attributes there.
    fn set_tail(&self, inode: &Arc<Inode>, raw: &[u8]) -> Result<(), Error> {
        let start = CORE_BYTES + usize::from(inode.core.lock().extra_isize);
        let Some(tail) = raw.get(start..).filter(|tail| !tail.is_empty()) else { return Ok(()) };
        if !inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        let mut handle = self.handle()?;
        let _attributes = inode.attributes_lock.write();
        self.volume.inodes.modify_raw(&mut handle, inode, |bytes| {
            let room = bytes.get_mut(start..).unwrap_or_default();
            let len = room.len().min(tail.len());
            room[..len].copy_from_slice(&tail[..len]);
        })
    }

    /// An inode goes, with all that it has.
    fn end(&mut self, inode: &Arc<Inode>) -> Result<(), Error> {
        let number = inode.number();
        if inode.file_type() == FileType::Directory && inode.size() > 0 {
            let is_empty = self.volume.namespace.replay_is_empty(inode)?;
            Place::Inode(number).require(is_empty, Rule::FastCommitTag)?;
        }
        if inode.flags().contains(InodeFlags::EXTENTS) {
            let mut handle = self.handle()?;
            let lost = self.volume.files.mapper.take_out(&mut handle, inode, LogicalRange::ALL)?;
            drop(handle);
            lost.into_iter().for_each(|lost| self.claims.take(number, lost));
        }
        inode.core.lock().links = 0;
        self.volume.files.evict(inode)?;
        self.touched.remove(&number);
        Ok(())
    }

    /// Ends the inodes that have lost their last name, and those that came and got none: nobody has them open any more.
    pub(super) fn end_nameless(&mut self) -> Result<(), Error> {
        let touched: Vec<_> =
            self.touched.iter().map(|(&number, &touched)| (number, touched)).collect();
        for (number, Touched { came, names }) in touched {
            let Some(inode) = self.inode(number)? else { continue };
            if inode.core.lock().links == 0 || (came && names == 0) {
                self.end(&inode)?;
            }
        }
        Ok(())
    }
}

/// The records tell nothing of blocks that hold pointers.
const INDIRECT: Error = Error::NotSupported("fast commits of a file of indirect blocks");
