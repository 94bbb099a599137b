//! Taking inodes and giving them back.
//!
//! Source: kernel `fs/ext4/ialloc.c`: `__ext4_new_inode`, `ext4_free_inode`, `ext4_read_inode_bitmap`. Differs: without a
//! journal, inodes that were deleted a moment ago are not avoided.

use super::Allocator;
use super::group::Group;
use super::inode_group::{Counts, InodeGroups, InodeKind, Parent, choose};
use crate::Error;
use crate::sync::MutexGuard;
use crate::trace::Event;
use crate::transaction::{BlockKind, Handle, MetadataBlock};
use core::ops::Range;
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::descriptor::GroupFlags;
use extant_format::{BlockGroup, InodeNumber, bitmap};

impl Allocator {
    /// Takes an inode's number: `goal` if it is free, else the next after it, else one in a group chosen by `parent` and `kind`.
    ///
    /// Dirties an inode bitmap and a descriptor block, and the group's block bitmap if it had none. The caller remembers the
    /// group of the result as the parent's last.
    ///
    /// # Errors
    /// [`Error::NoInodes`], [`Error::TransactionFull`], or of reading; nothing is taken then.
    pub(crate) fn allocate_inode(
        &self,
        handle: &mut Handle<'_>,
        parent: Parent,
        kind: InodeKind,
        goal: Option<InodeNumber>,
    ) -> Result<InodeNumber, Error> {
        let is_directory = matches!(kind, InodeKind::Directory { .. });
        let goal = goal.and_then(|goal| self.geometry.inode_place(goal));
        let chosen = || match &self.line {
            Some(line) => Some((line.lock().inode_group, 0)),
            None => choose(self, &self.layout, parent, kind).map(|group| (group, 0)),
        };
        let (first, mut from) = goal.or_else(chosen).ok_or(Error::NoInodes)?;
        for group in (first.0..self.layout.groups).chain(0..first.0).map(BlockGroup) {
            if let Some(index) = self.take_inode(handle, group, from, is_directory)? {
                self.line.iter().for_each(|line| line.lock().inode_group = group);
                return self.geometry.inode_at(group, index).ok_or(Error::NoInodes);
            }
            from = 0;
        }
        Err(Error::NoInodes)
    }

    /// Gives an inode's number back. Dirties an inode bitmap and a descriptor block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is reserved or free already, [`Error::TransactionFull`], or of reading.
    pub(crate) fn free_inode(
        &self,
        handle: &mut Handle<'_>,
        inode: InodeNumber,
        was_directory: bool,
    ) -> Result<(), Error> {
        let at = Place::Inode(inode);
        let (group, index) = self.geometry.inode_place(inode).ok_or(at.breaks(Rule::EntryInode))?;
        at.require(inode.get() >= self.geometry.first_inode, Rule::EntryInode)?;
        let descriptors = self.descriptors(handle, group)?;
        let bitmap = self.inode_bitmap(group)?;
        let bitmap = bitmap.ok_or(at.breaks(Rule::FreedTwice))?;
        handle.modify(&bitmap, |_| ())?;
        let mut state = self.group(group);
        Place::Group(group).require(!state.inodes_corrupt, Rule::SetAside)?;
        if !bitmap.with(|bits| bitmap::test(bits, index)) {
            let broken = Place::Group(group).breaks(Rule::FreedTwice);
            self.set_inodes_aside(state, broken);
            return Err(broken.into());
        }
        handle.modify(&bitmap, |bits| bitmap::clear(bits, index..index + 1))?;
        self.change_descriptor(handle, &descriptors, group, &mut state, |descriptor| {
            descriptor.free_inodes = descriptor.free_inodes.saturating_add(1);
            descriptor.used_dirs = descriptor.used_dirs.saturating_sub(was_directory.into());
        })?;
        drop(state);
        self.counts.lock().add_inode(self.layout.flex_of(group), 1, was_directory);
        Ok(())
    }

    /// Whether no other inode of its table block is in use, so that the block need not be read to write this one.
    ///
    /// # Errors
    /// Of reading the bitmap.
    pub(crate) fn is_alone_in_table_block(&self, inode: InodeNumber) -> Result<bool, Error> {
        let Some((group, index)) = self.geometry.inode_place(inode) else { return Ok(false) };
        let Some(bitmap) = self.inode_bitmap(group)? else { return Ok(true) };
        let each = self.geometry.inodes_per_block();
        let first = index - index % each;
        let used = |range: Range<u32>| bitmap.with(|bits| bitmap::next_one(bits, range)).is_some();
        Ok(!used(first..index)
            && !used(index + 1..(first + each).min(self.layout.inodes_per_group)))
    }

    /// Whether the inode's bit is set in its bitmap.
    ///
    /// # Errors
    /// Of reading the bitmap.
    pub(crate) fn is_inode_used(&self, inode: InodeNumber) -> Result<bool, Error> {
        let Some((group, index)) = self.geometry.inode_place(inode) else { return Ok(false) };
        let bitmap = self.inode_bitmap(group)?;
        Ok(bitmap.is_some_and(|bitmap| bitmap.with(|bits| bitmap::test(bits, index))))
    }

    /// The group's inode bitmap; `None` if it has none yet and all its inodes are free.
    fn inode_bitmap(&self, group: BlockGroup) -> Result<Option<MetadataBlock>, Error> {
        let (descriptor, verified) = {
            let state = self.group(group);
            (state.descriptor, state.inodes_verified)
        };
        if descriptor.inodes_are_uninitialized(&self.geometry) {
            return Ok(None);
        }
        if !self.transactions.is_cached(descriptor.inode_bitmap) {
            let group = group.get();
            self.transactions.tracer().emit(|| Event::LoadInodeBitmap { group });
        }
        let block =
            self.transactions.read(descriptor.inode_bitmap, BlockKind::InodeBitmap(group))?;
        if !verified {
            let sum = block.with(|bits| bitmap::inode_bitmap_csum(&self.geometry, bits));
            let mut state = self.group(group);
            // If somebody verified it meanwhile, it may have changed since.
            if !state.inodes_verified && !descriptor.inode_bitmap_matches(&self.geometry, sum) {
                let broken = Place::Group(group).breaks(Rule::Checksum);
                self.set_inodes_aside(state, broken);
                return Err(broken.into());
            }
            state.inodes_verified = true;
        }
        Ok(Some(block))
    }

    /// Takes the first free inode of `group` from index `from` on.
    fn take_inode(
        &self,
        handle: &mut Handle<'_>,
        group: BlockGroup,
        from: u32,
        is_directory: bool,
    ) -> Result<Option<u32>, Error> {
        loop {
            let has_any = {
                let state = self.group(group);
                !state.inodes_corrupt && state.descriptor.free_inodes > 0
            };
            if !has_any {
                return Ok(None);
            }
            let bitmap = match self.inode_bitmap(group) {
                Ok(bitmap) => bitmap,
                Err(Error::Corrupt(_)) => return Ok(None), // the group is set aside; another may do
                Err(error) => return Err(error),
            };
            let per_group = self.layout.inodes_per_group;
            let free =
                |block: &MetadataBlock| block.with(|bits| bitmap::next_zero(bits, from..per_group));
            if bitmap.as_ref().is_some_and(|bitmap| free(bitmap).is_none()) {
                return Ok(None);
            }
            let descriptors = self.descriptors(handle, group)?;
            if let Some(bitmap) = &bitmap {
                handle.modify(bitmap, |_| ())?;
            }
            let mut state = self.group(group);
            if bitmap.is_none() && !state.descriptor.inodes_are_uninitialized(&self.geometry) {
                continue; // the bitmap came to be meanwhile
            }
            let mut clusters = None;
            if state.descriptor.block_bitmap_is_uninitialized(&self.geometry) {
                self.create_bitmap(handle, group, &mut state)?;
                clusters = Some(self.zones.free_clusters(&self.layout, group));
            }
            let bitmap = match bitmap {
                Some(bitmap) => bitmap,
                None => self.create_inode_bitmap(handle, group, &mut state)?,
            };
            let Some(index) = free(&bitmap) else { continue };
            if self
                .geometry
                .inode_at(group, index)
                .is_none_or(|inode| inode.get() < self.geometry.first_inode)
            {
                self.set_inodes_aside(state, Place::Group(group).breaks(Rule::ReservedInodeFree));
                return Ok(None);
            }
            handle.modify(&bitmap, |bits| bitmap::set(bits, index..index + 1))?;
            self.change_descriptor(handle, &descriptors, group, &mut state, |descriptor| {
                if let Some(clusters) = clusters {
                    self.note_bitmap(descriptor, clusters);
                }
                descriptor.flags.remove(GroupFlags::INODE_UNINIT);
                descriptor.itable_unused = descriptor.itable_unused.min(per_group - index - 1);
                descriptor.free_inodes = descriptor.free_inodes.saturating_sub(1);
                descriptor.used_dirs = descriptor.used_dirs.saturating_add(is_directory.into());
            })?;
            drop(state);
            self.counts.lock().add_inode(self.layout.flex_of(group), -1, is_directory);
            return Ok(Some(index));
        }
    }

    /// The inode bitmap of a group that had none yet; the descriptor has to follow at once.
    fn create_inode_bitmap(
        &self,
        handle: &mut Handle<'_>,
        group: BlockGroup,
        state: &mut Group,
    ) -> Result<MetadataBlock, Error> {
        let block = handle.fresh(state.descriptor.inode_bitmap, BlockKind::InodeBitmap(group))?;
        handle.modify(&block, |bits| bitmap::init_inode_bitmap(&self.geometry, bits))?;
        state.inodes_verified = true;
        Ok(block)
    }

    fn set_inodes_aside(
        &self,
        mut state: MutexGuard<'_, Group>,
        broken: extant_format::Corruption,
    ) {
        if !state.inodes_corrupt {
            state.inodes_corrupt = true;
            drop(state);
            self.findings.lock().push(broken);
        }
    }
}

impl InodeGroups for Allocator {
    fn group(&self, group: BlockGroup) -> Counts {
        let state = Allocator::group(self, group);
        Counts {
            free_inodes: if state.inodes_corrupt { 0 } else { state.descriptor.free_inodes.into() },
            free_clusters: state.descriptor.free_clusters.into(),
            used_directories: state.descriptor.used_dirs.into(),
        }
    }

    fn flex_group(&self, flex: u32) -> Counts {
        self.counts.lock().flex.get(usize_from(flex)).copied().unwrap_or_default()
    }

    fn total(&self) -> Counts {
        self.counts.lock().total
    }
}
