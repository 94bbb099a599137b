//! Directories as they lie on disk: their blocks through the block map, or their entries inside the inode.
//!
//! Source: kernel `fs/ext4/namei.c`, `ext4_append`, `__ext4_read_dirblock`.

use alloc::vec;
use core::cell::Cell;

use extant_device::Frame;
use extant_format::cast::u64_from;
use extant_format::corruption::{Corruption, Place, Rule};
use extant_format::directory::{DirLayout, NewEntry};
use extant_format::inode::InodeFlags;
use extant_format::{
    Compat, FileType, Incompat, InodeNumber, LogicalBlock, LogicalRange, PhysicalBlock,
};

use super::Namespace;
use super::directory::{Blocks, BlocksMut, Directory, EntryPlace, Found, Shape};
use super::inline::InlineDirectory;
use super::read_dir::{DirCursor, Sink};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::sync::{Rank, assert_held, assert_held_shared};
use crate::transaction::{BlockKind, Handle, MetadataBlock};

/// A directory's blocks, to be read.
pub(super) struct DiskBlocks<'a> {
    namespace: &'a Namespace,
    inode: &'a Inode,
    /// The block that was asked for last, and its place: who changes a block has looked at it.
    last: Cell<Option<(u32, PhysicalBlock)>>,
}

/// The same, to be changed under a handle.
pub(super) struct DiskBlocksMut<'a, 't> {
    read: DiskBlocks<'a>,
    handle: &'a mut Handle<'t>,
}

impl<'a> DiskBlocks<'a> {
    fn of(namespace: &'a Namespace, inode: &'a Inode) -> Self {
        Self { namespace, inode, last: Cell::new(None) }
    }

    fn kind(&self) -> BlockKind {
        BlockKind::Directory(self.inode.checksum_seed())
    }

    fn breaks(&self, rule: Rule) -> Corruption {
        Place::Inode(self.inode.number()).breaks(rule)
    }

    fn block(&self, n: u32) -> Result<MetadataBlock, Error> {
        let place = match self.last.get() {
            Some((last, place)) if last == n => place,
            _ => self.place(n)?,
        };
        self.last.set(Some((n, place)));
        self.namespace.transactions.read(place, self.kind())
    }

    fn place(&self, n: u32) -> Result<PhysicalBlock, Error> {
        let logical = LogicalBlock::new(n).ok_or_else(|| self.breaks(Rule::IndexBlock))?;
        let found = self.namespace.mapper.look_up(self.inode, LogicalRange::single(logical))?;
        match found.state {
            BlockState::Written(place) => Ok(place),
            _ => Err(self.breaks(Rule::IndexBlock).into()),
        }
    }
}

impl Blocks for DiskBlocks<'_> {
    fn count(&self) -> u32 {
        let blocks = self.inode.size() / u64_from(self.namespace.geometry().block_len());
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    fn frame(&self, n: u32) -> Result<Frame, Error> {
        Ok(self.block(n)?.frame())
    }
}

impl Blocks for DiskBlocksMut<'_, '_> {
    fn count(&self) -> u32 {
        self.read.count()
    }

    fn frame(&self, n: u32) -> Result<Frame, Error> {
        self.read.frame(n)
    }
}

impl BlocksMut for DiskBlocksMut<'_, '_> {
    fn modify<R>(&mut self, n: u32, change: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let block = self.read.block(n)?;
        self.handle.modify(&block, change)
    }

    fn append<R>(&mut self, fill: impl FnOnce(&mut [u8]) -> R) -> Result<(R, u32), Error> {
        let DiskBlocks { namespace, inode, .. } = self.read;
        let geometry = namespace.geometry();
        let n = self.read.count();
        let size = inode.size() + u64_from(geometry.block_len());
        if size > MAX_SMALL_BYTES && !geometry.incompat.contains(Incompat::LARGEDIR) {
            return Err(Error::DirectoryFull);
        }
        let logical = LogicalBlock::new(n).ok_or(Error::DirectoryFull)?;
        let mapped = namespace.mapper.map(
            self.handle,
            inode,
            LogicalRange::single(logical),
            MapFlags::CREATE,
        )?;
        // A block past the end belongs to nobody, or to two.
        let place = mapped
            .state
            .place()
            .filter(|_| mapped.new)
            .ok_or_else(|| self.read.breaks(Rule::FileSize))?;
        let block = self.handle.fresh(place, self.read.kind())?;
        let result = self.handle.modify(&block, fill)?;
        namespace.set_size(inode, size);
        namespace.inodes.store(self.handle, inode)?;
        Ok((result, n))
    }

    fn set_indexed(&mut self, indexed: bool) -> Result<(), Error> {
        let DiskBlocks { namespace, inode, .. } = self.read;
        inode.core.lock().flags.set(InodeFlags::INDEX, indexed);
        namespace.inodes.store(self.handle, inode)
    }
}

impl Namespace {
    /// What is known of a directory apart from its entries.
    pub(super) fn shape(&self, inode: &Inode) -> Shape {
        let (geometry, flags) = (self.geometry(), inode.flags());
        // Folded names have other hashes, which are not known here.
        let hashes =
            geometry.compat.contains(Compat::DIR_INDEX) && !flags.contains(InodeFlags::CASEFOLD);
        Shape {
            layout: DirLayout::of(geometry, flags),
            hashing: self.hashing,
            indexed: hashes && flags.contains(InodeFlags::INDEX),
            may_index: hashes,
            place: Place::Inode(inode.number()),
        }
    }

    fn on_disk<'a>(&'a self, inode: &'a Inode) -> Directory<DiskBlocks<'a>> {
        Directory { shape: self.shape(inode), blocks: DiskBlocks::of(self, inode) }
    }

    fn on_disk_mut<'a, 't>(
        &'a self,
        handle: &'a mut Handle<'t>,
        inode: &'a Inode,
    ) -> Directory<DiskBlocksMut<'a, 't>> {
        let read = DiskBlocks::of(self, inode);
        Directory { shape: self.shape(inode), blocks: DiskBlocksMut { read, handle } }
    }

    fn inline(&self, inode: &Inode) -> Result<Option<InlineDirectory>, Error> {
        if !inode.is_inline() {
            return Ok(None);
        }
        let bytes = self.inodes.read_inline(inode)?;
        InlineDirectory::new(bytes, inode.number(), self.shape(inode)).map(Some)
    }

    /// The entry called `name` in the directory, dots included.
    pub(super) fn find_entry(&self, dir: &Inode, name: &[u8]) -> Result<Option<Found>, Error> {
        assert_held_shared(Rank::Content);
        match self.inline(dir)? {
            Some(inline) => inline.find(name),
            None => self.on_disk(dir).find(name),
        }
    }

    /// Hands the directory's names from `cursor` on to `sink`.
    pub(super) fn list_entries(
        &self,
        dir: &Inode,
        cursor: DirCursor,
        sink: Sink<'_>,
    ) -> Result<(), Error> {
        assert_held_shared(Rank::Content);
        match self.inline(dir)? {
            Some(inline) => inline.list(cursor, sink),
            None => self.on_disk(dir).list(cursor, sink),
        }
    }

    /// Whether the directory has no names but its dots.
    pub(super) fn has_no_names(&self, dir: &Inode) -> Result<bool, Error> {
        assert_held_shared(Rank::Content);
        match self.inline(dir)? {
            Some(inline) => inline.is_empty(),
            None => self.on_disk(dir).is_empty(),
        }
    }

    /// Makes the contents of a new directory in `parent`: inside the inode if it may, else in a block.
    ///
    /// Source: kernel `ext4_init_new_dir`.
    pub(super) fn init_directory(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        parent: InodeNumber,
    ) -> Result<(), Error> {
        let shape = self.shape(dir);
        let len = InlineDirectory::EMPTY_BYTES;
        if dir.may_inline() && self.inodes.make_inline(handle, dir, len)? {
            self.set_size(dir, u64_from(len));
            let empty = InlineDirectory::empty(parent, shape);
            return self.inodes.write_inline(handle, dir, 0, &empty);
        }
        let layout = shape.layout;
        let number = dir.number();
        let mut blocks = self.on_disk_mut(handle, dir).blocks;
        blocks.append(|bytes| {
            extant_format::directory::init_with_dots(bytes, layout, number, parent)
        })?;
        Ok(())
    }

    /// Adds a name that the directory does not have.
    pub(super) fn add_entry(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        name: &[u8],
        inode: InodeNumber,
        file_type: FileType,
    ) -> Result<(), Error> {
        assert_held(Rank::Content);
        let new = NewEntry { name, inode, file_type, hash: (0, 0) };
        if let Some(mut inline) = self.inline(dir)? {
            if inline.insert(&new)? {
                return self.inodes.write_inline(handle, dir, 0, inline.bytes());
            }
            let capacity = self.inodes.inline_capacity(dir)?;
            if inline.grow(capacity)
                && inline.insert(&new)?
                && self.inodes.make_inline(handle, dir, capacity)?
            {
                self.set_size(dir, u64_from(capacity));
                return self.inodes.write_inline(handle, dir, 0, inline.bytes());
            }
            self.move_out(handle, dir, &inline)?;
        }
        self.on_disk_mut(handle, dir).insert(&new)
    }

    /// Moves the entries of a directory inside its inode to a block.
    ///
    /// Source: kernel `ext4_convert_inline_data_nolock`.
    fn move_out(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        entries: &InlineDirectory,
    ) -> Result<(), Error> {
        let size = dir.size();
        let mut block = vec![0; self.geometry().block_len()];
        entries.write_block(&mut block, self.shape(dir).layout)?;
        let Some(copy) = self.inodes.drop_inline(handle, dir)? else { return Ok(()) };
        self.set_size(dir, 0);
        let mut blocks = self.on_disk_mut(handle, dir).blocks;
        if let Err(error) = blocks.append(|bytes| bytes.copy_from_slice(&block)) {
            // No block to be had: the entries go back to where they were.
            self.set_size(dir, size);
            self.inodes.restore_inline(handle, dir, &copy)?;
            dir.set_may_inline(true);
            return Err(error);
        }
        Ok(())
    }

    /// Removes the entry that [`Self::find_entry`] has found; nothing was changed since.
    pub(super) fn remove_entry(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        at: EntryPlace,
    ) -> Result<(), Error> {
        assert_held(Rank::Content);
        match self.inline(dir)? {
            Some(mut inline) => {
                inline.remove(at)?;
                self.inodes.write_inline(handle, dir, 0, inline.bytes())
            }
            None => self.on_disk_mut(handle, dir).remove(at),
        }
    }

    /// Makes the entry that [`Self::find_entry`] has found lead to another inode; nothing was changed since.
    pub(super) fn set_entry(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        at: EntryPlace,
        inode: InodeNumber,
        file_type: FileType,
    ) -> Result<(), Error> {
        assert_held(Rank::Content);
        match self.inline(dir)? {
            Some(mut inline) => {
                inline.set_inode(at, inode, file_type);
                self.inodes.write_inline(handle, dir, 0, inline.bytes())
            }
            None => self.on_disk_mut(handle, dir).set_inode(at, inode, file_type),
        }
    }

    /// Makes `..` of the directory lead to `parent`.
    pub(super) fn set_parent(
        &self,
        handle: &mut Handle<'_>,
        dir: &Inode,
        parent: InodeNumber,
    ) -> Result<(), Error> {
        assert_held(Rank::Content);
        match self.inline(dir)? {
            Some(mut inline) => {
                inline.set_parent(parent);
                self.inodes.write_inline(handle, dir, 0, inline.bytes())
            }
            None => {
                let mut disk = self.on_disk_mut(handle, dir);
                let at = disk.parent()?.at;
                disk.set_inode(at, parent, FileType::Directory)
            }
        }
    }

    /// Sets both sizes of a directory or link, which are never apart.
    pub(super) fn set_size(&self, inode: &Inode, size: u64) {
        inode.set_size(size);
        inode.core.lock().size = size;
    }
}

/// The largest directory without the feature for larger ones.
const MAX_SMALL_BYTES: u64 = (1 << 31) - 1;
