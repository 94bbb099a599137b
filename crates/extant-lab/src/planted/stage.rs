//! A sound image, and what a defect needs to find its way in it.

use extant::{Filesystem, MountOptions};
use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::cast::u64_from;
use extant_format::directory::{DirEntries, DirLayout};
use extant_format::{BlockGroup, InodeFlags, InodeNumber, PhysicalBlock, Place};

use crate::damage::{Kind, Piece, Survey, patch};

/// An image that gets a defect.
#[derive(Debug)]
pub struct Stage {
    /// The image.
    pub image: MemoryDevice,
    /// What lies where, as long as the image is sound.
    pub survey: Survey,
    files: Filesystem,
}

impl Stage {
    pub(super) fn new(image: MemoryDevice, survey: Survey) -> Self {
        let device = std::sync::Arc::new(image.snapshot());
        let files = MountOptions::read_only().mount(device).expect("bases can be read");
        Self { image, survey, files }
    }

    /// The inode that a path leads to; a link itself.
    pub(super) fn inode(&self, path: &str) -> u32 {
        self.files.symlink_metadata(path).expect("bases have this file").inode.get()
    }

    /// Changes `len` bytes at `offset`.
    pub(super) fn edit(&self, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) {
        patch(&self.image, offset, len, change);
    }

    /// The number of `N` bytes at `offset`.
    fn bytes<const N: usize>(&self, offset: u64) -> [u8; N] {
        let bytes = self.image.read_vec(offset, N).expect("inside the image");
        bytes.try_into().expect("as many as asked for")
    }

    pub(super) fn get16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    pub(super) fn get32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    pub(super) fn set8(&self, offset: u64, value: u8) {
        self.edit(offset, 1, |bytes| bytes[0] = value);
    }

    pub(super) fn set16(&self, offset: u64, value: u16) {
        self.edit(offset, 2, |bytes| bytes.copy_from_slice(&value.to_le_bytes()));
    }

    pub(super) fn set32(&self, offset: u64, value: u32) {
        self.edit(offset, 4, |bytes| bytes.copy_from_slice(&value.to_le_bytes()));
    }

    /// Where a field of an inode is.
    pub(super) fn at(&self, inode: u32, field: u64) -> u64 {
        let geometry = &self.survey.geometry;
        let number = InodeNumber::new(inode).expect("inodes have numbers");
        let (group, index) = geometry.inode_place(number).expect("inside the image");
        let table = self.get32(self.descriptor(group.get()) + 8);
        let (block, within) = geometry.inode_location(PhysicalBlock::new(table.into()), index);
        (block.get() << geometry.block_bits) + u64_from(within) + field
    }

    /// Where a group's descriptor is.
    pub(super) fn descriptor(&self, group: u32) -> u64 {
        let is_it = |piece: &&Piece| piece.kind == Kind::Descriptor(BlockGroup(group));
        self.survey.pieces.iter().find(is_it).expect("a group that exists").offset
    }

    /// Where the pieces of a kind are.
    pub(super) fn pieces(&self, kind: Kind) -> Vec<u64> {
        let of_kind = self.survey.pieces.iter().filter(|piece| piece.kind == kind);
        of_kind.map(|piece| piece.offset).collect()
    }

    /// Where the blocks of a directory are.
    pub(super) fn blocks(&self, inode: u32) -> Vec<u64> {
        self.pieces(Kind::Directory(InodeNumber::new(inode).expect("a number")))
    }

    /// Where the nodes of a file's map are that lie in blocks of their own.
    pub(super) fn nodes(&self, inode: u32) -> Vec<u64> {
        let number = InodeNumber::new(inode).expect("a number");
        let extents = self.pieces(Kind::ExtentNode(number));
        if extents.is_empty() { self.pieces(Kind::Indirect(number)) } else { extents }
    }

    /// Where the entry of a directory is that has this name; not for directories in their inodes.
    pub(super) fn entry(&self, directory: u32, name: &[u8]) -> Option<u64> {
        let layout = self.layout();
        self.blocks(directory).into_iter().find_map(|block| {
            let bytes = self.block_at(block);
            let at = Place::Superblock;
            let mut all = DirEntries::new(&bytes, layout, at).filter_map(Result::ok);
            let found = all.find(|entry| entry.name == name && entry.inode.is_some())?;
            Some(block + u64_from(found.offset))
        })
    }

    /// Where the first plain name of a directory's block is, and how long it reaches.
    pub(super) fn first_entry(&self, block: u64) -> Option<(u64, usize)> {
        let bytes = self.block_at(block);
        let mut all =
            DirEntries::new(&bytes, self.layout(), Place::Superblock).filter_map(Result::ok);
        let found = all.find(|entry| entry.inode.is_some() && !entry.is_dots())?;
        Some((block + u64_from(found.offset), found.len))
    }

    /// The layout of plain directories.
    pub(super) fn layout(&self) -> DirLayout {
        DirLayout::of(&self.survey.geometry, InodeFlags::empty())
    }

    /// The bytes of the block at `offset`.
    pub(super) fn block_at(&self, offset: u64) -> Vec<u8> {
        let len = self.survey.geometry.block_len();
        self.image.read_vec(offset, len).expect("inside the image")
    }

    /// Bytes of the sum at the end of a directory block.
    pub(super) fn tail_len(&self) -> u32 {
        if self.survey.geometry.has_metadata_csum() { 12 } else { 0 }
    }

    /// Bytes in a block.
    pub(super) fn block_size(&self) -> u32 {
        self.survey.geometry.block_size
    }

    /// The number of the block at an offset.
    pub(super) fn block_number(&self, offset: u64) -> u32 {
        u32::try_from(offset >> self.survey.geometry.block_bits).expect("small images")
    }

    /// Where a block is.
    pub(super) fn offset(&self, block: u32) -> u64 {
        u64::from(block) << self.survey.geometry.block_bits
    }

    /// The number after the last block.
    pub(super) fn blocks_count(&self) -> u32 {
        u32::try_from(self.survey.geometry.blocks_count).expect("small images")
    }

    /// An inode that is not in use, before the part of its table that never was; that part is made smaller if it has to be.
    pub(super) fn free_inode(&self) -> Option<u32> {
        (0..self.survey.geometry.group_count).find_map(|group| {
            let own = self.descriptor(group);
            let is_uninit = self.get16(own + 0x12) & 1 != 0;
            let unused = u32::from(self.get16(own + 0x1C));
            if !is_uninit && unused >= 8 {
                self.set16(own + 0x1C, u16::try_from(unused - 8).ok()?);
            }
            let unused = if is_uninit { u32::MAX } else { unused - unused.min(8) };
            let last = self.inodes().saturating_sub(unused);
            let bits = self.block_at(self.offset(self.get32(own + 4)));
            let free = (0..last).find(|n| !extant_format::bitmap::test(&bits, *n))?;
            Some(group * self.inodes() + free + 1)
        })
    }

    /// Inodes in a group.
    pub(super) fn inodes(&self) -> u32 {
        self.survey.geometry.inodes_per_group
    }

    /// Where the bit of a block is: of its group's bitmap, the byte and the mask.
    pub(super) fn bit(&self, block: u32) -> (u64, u8) {
        let geometry = &self.survey.geometry;
        let (group, within) =
            geometry.place_of(PhysicalBlock::new(block.into())).expect("inside the image");
        let cluster = within >> geometry.cluster_bits;
        let bitmap = self.offset(self.get32(self.descriptor(group.get())));
        (bitmap + u64::from(cluster / 8), 1 << (cluster % 8))
    }

    /// Whether a block is marked in use.
    pub(super) fn is_marked(&self, block: u32) -> bool {
        let (at, mask) = self.bit(block);
        let [byte] = self.bytes(at);
        byte & mask != 0
    }

    /// Where the attributes in an inode begin, at their first entry.
    pub(super) fn attributes_in(&self, inode: u32) -> u64 {
        let extra = self.get16(self.at(inode, 0x80));
        self.at(inode, 128 + u64::from(extra) + 4)
    }

    /// Where a file's attribute block is.
    pub(super) fn attribute_block(&self, inode: u32) -> Option<u64> {
        let block = self.get32(self.at(inode, 104));
        (block != 0).then(|| self.offset(block))
    }

    /// The first data block of a file without a deep map.
    pub(super) fn data_of(&self, inode: u32) -> u32 {
        let has_extents = self.get32(self.at(inode, 32)) & 0x8_0000 != 0;
        self.get32(self.at(inode, if has_extents { 40 + 20 } else { 40 }))
    }

    /// Where something in the primary superblock is.
    pub(super) fn superblock(&self, field: u64) -> u64 {
        1024 + field
    }

    /// Sets bits of a number of 32 bits.
    pub(super) fn or32(&self, offset: u64, bits: u32) {
        self.set32(offset, self.get32(offset) | bits);
    }

    /// Clears bits of a number of 32 bits.
    pub(super) fn clear32(&self, offset: u64, bits: u32) {
        self.set32(offset, self.get32(offset) & !bits);
    }
}
