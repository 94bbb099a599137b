//! What lies where in an image: the live structures that damage aims at.
//!
//! The walk trusts nothing and stops at nothing: what cannot be read is left out.

use std::collections::BTreeMap;

use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::cast::{u64_from, usize_from};
use extant_format::extent::NodeView;
use extant_format::inode::{BLOCK_AREA_BYTES, CORE_BYTES};
use extant_format::jbd2::{BlockType, DescriptorTags, JournalHeader, JournalSuperblock};
use extant_format::{
    BlockGroup, FileType, Geometry, GroupDescriptor, InodeFlags, InodeNumber, InodeRecord,
    PhysicalBlock, Superblock, bitmap, indirect,
};

/// A structure, by what it is and whose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The primary superblock.
    Superblock,
    /// A group's descriptor.
    Descriptor(BlockGroup),
    /// A group's bitmap of clusters.
    BlockBitmap(BlockGroup),
    /// A group's bitmap of inodes.
    InodeBitmap(BlockGroup),
    /// An inode in use.
    Inode(InodeNumber),
    /// The block area of an inode: root of its map, inline data, target of a short link.
    BlockArea(InodeNumber),
    /// The attributes inside an inode.
    InodeXattrs(InodeNumber),
    /// A node of an extent tree in a block of its own.
    ExtentNode(InodeNumber),
    /// A block of block numbers.
    Indirect(InodeNumber),
    /// A block of a directory, linear or of its index.
    Directory(InodeNumber),
    /// A block with the target of a long link.
    Symlink(InodeNumber),
    /// A block of attributes.
    XattrBlock,
    /// A block of the orphan file.
    Orphans(InodeNumber),
    /// The block of multiple mount protection.
    Mmp,
    /// A block of a quota file.
    Quota(InodeNumber),
    /// The journal's superblock.
    JournalSuperblock,
    /// A descriptor in the log.
    JournalDescriptor,
    /// A block's copy in the log, and where its home is.
    JournalCopy(PhysicalBlock),
    /// A revoke block in the log.
    JournalRevoke,
    /// A commit block in the log.
    JournalCommit,
}

/// A structure and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Where it starts on the device, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub len: usize,
}

/// All live structures of an image.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The numbers that do not change.
    pub geometry: Geometry,
    /// In the order of the walk; the log's pieces in the order of the log.
    pub pieces: Vec<Piece>,
    /// Where each inode in use lies.
    pub inodes: BTreeMap<InodeNumber, u64>,
}

impl Survey {
    /// Walks `image`; `None` if it has no superblock to start from.
    pub fn of(image: &MemoryDevice) -> Option<Self> {
        let raw = image.read_vec(Superblock::OFFSET_BYTES, 1024).ok()?;
        let superblock = Superblock::parse(&raw).ok()?;
        let survey =
            Self { geometry: *superblock.geometry(), pieces: Vec::new(), inodes: BTreeMap::new() };
        let mut walk = Walk { image, superblock, survey };
        walk.push(Kind::Superblock, Superblock::OFFSET_BYTES, 1024);
        walk.mmp();
        for group in walk.survey.geometry.groups() {
            walk.group(group);
        }
        Some(walk.survey)
    }
}

struct Walk<'a> {
    image: &'a MemoryDevice,
    superblock: Superblock,
    survey: Survey,
}

impl Walk<'_> {
    fn push(&mut self, kind: Kind, offset: u64, len: usize) {
        self.survey.pieces.push(Piece { kind, offset, len });
    }

    fn push_block(&mut self, kind: Kind, block: PhysicalBlock) {
        if self.survey.geometry.has_block(block) {
            self.push(kind, self.offset_of(block), self.survey.geometry.block_len());
        }
    }

    fn offset_of(&self, block: PhysicalBlock) -> u64 {
        block.get() << self.survey.geometry.block_bits
    }

    fn block(&self, block: PhysicalBlock) -> Option<Vec<u8>> {
        let geometry = &self.survey.geometry;
        let read = || self.image.read_vec(self.offset_of(block), geometry.block_len()).ok();
        geometry.has_block(block).then(read)?
    }

    fn mmp(&mut self) {
        let block = PhysicalBlock::new(self.superblock.raw().mmp_block.get());
        if block.get() != 0 {
            self.push_block(Kind::Mmp, block);
        }
    }

    fn group(&mut self, group: BlockGroup) -> Option<()> {
        let geometry = self.survey.geometry;
        let (index, within) = geometry.descriptor_place(group);
        let block = geometry.descriptor_block(index);
        let len = usize_from(geometry.desc_size);
        let table = self.block(block)?;
        let bytes = table.get(within..within.checked_add(len)?)?;
        self.push(Kind::Descriptor(group), self.offset_of(block) + u64_from(within), len);
        let descriptor = GroupDescriptor::decode(bytes, &geometry, group).ok()?;
        if !descriptor.block_bitmap_is_uninitialized(&geometry) {
            self.push_block(Kind::BlockBitmap(group), descriptor.block_bitmap);
        }
        if descriptor.inodes_are_uninitialized(&geometry) {
            return None;
        }
        self.push_block(Kind::InodeBitmap(group), descriptor.inode_bitmap);
        let used = self.block(descriptor.inode_bitmap)?;
        for index in (0..geometry.inodes_per_group).filter(|index| bitmap::test(&used, *index)) {
            let (block, within) = geometry.inode_location(descriptor.inode_table, index);
            if let Some(number) = geometry.inode_at(group, index) {
                self.inode(number, self.offset_of(block) + u64_from(within));
            }
        }
        Some(())
    }

    fn inode(&mut self, number: InodeNumber, offset: u64) -> Option<()> {
        let geometry = self.survey.geometry;
        let len = usize_from(geometry.inode_size);
        let bytes = self.image.read_vec(offset, len).ok()?;
        let record = InodeRecord::decode(&bytes, &geometry, number).ok()?;
        let kind = record.file_type();
        let reserved = number.get() < geometry.first_inode;
        if record.links == 0 && record.size == 0 || kind.is_none() && !reserved {
            return None;
        }
        self.survey.inodes.insert(number, offset);
        self.push(Kind::Inode(number), offset, len);
        self.push(Kind::BlockArea(number), offset + 0x28, BLOCK_AREA_BYTES);
        let xattrs_at = CORE_BYTES + usize::from(record.extra_isize);
        if bytes.get(xattrs_at..).is_some_and(|area| area.starts_with(&[0, 0, 2, 0xEA])) {
            self.push(Kind::InodeXattrs(number), offset + u64_from(xattrs_at), len - xattrs_at);
        }
        if let Some(block) = record.file_acl {
            self.push_block(Kind::XattrBlock, block);
        }
        let blocks = self.map(number, &record);
        if self.superblock.journal_inode() == Some(number) {
            return self.journal(&blocks);
        }
        let quotas = [3, 4, self.superblock.raw().prj_quota_inum.get()];
        let content = match kind {
            _ if self.superblock.orphan_file() == Some(number) => Kind::Orphans(number),
            Some(FileType::Directory) => Kind::Directory(number),
            Some(FileType::Symlink) => Kind::Symlink(number),
            _ if quotas.contains(&number.get()) => Kind::Quota(number),
            _ => return Some(()),
        };
        blocks.iter().for_each(|block| self.push_block(content, *block));
        Some(())
    }

    /// The device blocks of a file, in order, and its map's own blocks among the pieces.
    fn map(&mut self, number: InodeNumber, record: &InodeRecord) -> Vec<PhysicalBlock> {
        let mut blocks = Vec::new();
        let device = matches!(
            record.file_type(),
            Some(
                FileType::CharacterDevice
                    | FileType::BlockDevice
                    | FileType::Fifo
                    | FileType::Socket
            )
        );
        let short_link = record.file_type() == Some(FileType::Symlink)
            && record.size < u64_from(BLOCK_AREA_BYTES);
        if device || short_link || record.flags.contains(InodeFlags::INLINE_DATA) {
            return blocks;
        }
        if record.flags.contains(InodeFlags::EXTENTS) {
            self.extents(number, &record.block, 5, &mut blocks);
            return blocks;
        }
        for (n, pointer) in (0..).zip(record.block.chunks_exact(4)) {
            let pointer = indirect::pointer(pointer, 0);
            let levels = u32::saturating_sub(n, indirect::DIRECT - 1);
            if let Some(block) = pointer {
                self.pointers(number, block, levels, &mut blocks);
            }
        }
        blocks
    }

    fn extents(
        &mut self,
        number: InodeNumber,
        bytes: &[u8],
        depth: u32,
        blocks: &mut Vec<PhysicalBlock>,
    ) {
        let Some(node) = NodeView::trusted(bytes) else { return };
        for run in node.extents().filter_map(|extent| extent.device_blocks()) {
            let room = u64_from(MOST_BLOCKS.saturating_sub(blocks.len()));
            let wanted = run.len().min(room);
            blocks.extend((0..wanted).filter_map(|n| run.start().checked_add(n)));
        }
        for child in node.indexes().map(|index| index.child) {
            self.push_block(Kind::ExtentNode(number), child);
            if let Some(bytes) = self.block(child).filter(|_| depth > 0) {
                self.extents(number, &bytes, depth - 1, blocks);
            }
        }
    }

    fn pointers(
        &mut self,
        number: InodeNumber,
        block: PhysicalBlock,
        levels: u32,
        blocks: &mut Vec<PhysicalBlock>,
    ) {
        if levels == 0 {
            if blocks.len() < MOST_BLOCKS {
                blocks.push(block);
            }
            return;
        }
        self.push_block(Kind::Indirect(number), block);
        let Some(bytes) = self.block(block) else { return };
        for pointer in bytes.chunks_exact(4).filter_map(|bytes| indirect::pointer(bytes, 0)) {
            self.pointers(number, pointer, levels - 1, blocks);
        }
    }

    /// The journal's superblock and, if it has to be replayed, its log.
    fn journal(&mut self, blocks: &[PhysicalBlock]) -> Option<()> {
        self.push_block(Kind::JournalSuperblock, *blocks.first()?);
        let superblock = JournalSuperblock::parse(&self.block(*blocks.first()?)?).ok()?;
        let format = *superblock.format();
        let at = |n: u32| blocks.get(usize_from(n)).copied();
        let next = |n: u32| if n + 1 >= superblock.last() { superblock.first() } else { n + 1 };
        let (mut n, mut tid) = (superblock.start()?, superblock.sequence());
        for _ in 0..superblock.max_len() {
            let block = at(n)?;
            let bytes = self.block(block)?;
            let header = JournalHeader::parse(&bytes).filter(|header| header.sequence == tid)?;
            n = next(n);
            match header.block_type? {
                BlockType::Descriptor => {
                    self.push_block(Kind::JournalDescriptor, block);
                    for tag in DescriptorTags::new(&bytes, format) {
                        self.push_block(Kind::JournalCopy(tag.block), at(n)?);
                        n = next(n);
                    }
                }
                BlockType::Revoke => self.push_block(Kind::JournalRevoke, block),
                BlockType::Commit => {
                    self.push_block(Kind::JournalCommit, block);
                    tid = tid.next();
                }
                _ => return None,
            }
        }
        Some(())
    }
}

/// A walk looks at no more blocks of one file.
const MOST_BLOCKS: usize = 1 << 16;
