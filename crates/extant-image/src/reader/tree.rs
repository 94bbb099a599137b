//! A file's block map from top to bottom: inner blocks and runs, of extent trees and of indirect blocks.

use alloc::vec::Vec;

use extant_format::cast::{low_u32, u64_from};
use extant_format::extent::{Expected, NodeView};
use extant_format::indirect::{self, DIRECT};
use extant_format::inode::InodeFlags;
use extant_format::{
    ExtentState, FileType, Geometry, InodeNumber, InodeRecord, LogicalRange, PhysicalBlock,
    PhysicalRange, Place, Rule,
};

use super::{ReadError, Reader};

/// What a walk through a map comes upon, parents first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MapStep {
    /// An inner block.
    Node(MapNode),
    /// Blocks of the file.
    Run(MapRun),
}

/// Where in a tree an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// Levels above; 0 in the inode.
    pub level: u16,
    /// Levels below the inode; 0 if all entries lie in the inode.
    pub depth: u16,
    /// Which entry of its node, from 1 on.
    pub entry: u32,
    /// Entries of the node.
    pub entries: u32,
}

/// An inner block of a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapNode {
    /// The entry that leads to it.
    pub position: Position,
    /// Where it is.
    pub block: PhysicalBlock,
    /// The first block of the file that it maps.
    pub first: u32,
    /// The number after the last block that it may map.
    pub end: u32,
}

/// Blocks of a file that lie one behind the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapRun {
    /// The entry that says so; of indirect maps, where pointers that follow each other are one run, all zeros.
    pub position: Position,
    /// Which blocks of the file.
    pub blocks: LogicalRange,
    /// Where the first is.
    pub start: PhysicalBlock,
    /// Whether they have been written.
    pub state: ExtentState,
}

impl MapRun {
    /// The blocks on the device; `None` past the end of numbers.
    pub fn device_blocks(&self) -> Option<PhysicalRange> {
        PhysicalRange::new(self.start, self.blocks.len().into())
    }
}

/// Whether an inode has a block map at all: data or names in blocks of its own.
pub(crate) fn has_map(record: &InodeRecord, geometry: &Geometry) -> bool {
    let kind = matches!(
        record.file_type(),
        Some(FileType::Regular | FileType::Directory | FileType::Symlink)
    );
    // Reserved inodes without a type have maps too.
    (kind || record.mode == 0)
        && !record.flags.contains(InodeFlags::INLINE_DATA)
        && !record.is_fast_symlink(geometry)
}

type Visit<'v> = &'v mut dyn FnMut(MapStep);

impl Reader<'_> {
    /// Calls `visit` for each inner block and each run of a file's map, in the order of the file; nothing for a file without.
    ///
    /// All walks of a reader together read at most as many inner blocks as the image has blocks.
    ///
    /// # Errors
    /// The first node that makes no sense or cannot be read; what came before it has been visited.
    pub fn map(
        &self,
        inode: InodeNumber,
        record: &InodeRecord,
        visit: Visit<'_>,
    ) -> Result<(), ReadError> {
        if !has_map(record, self.geometry()) {
            return Ok(());
        }
        if record.flags.contains(InodeFlags::EXTENTS) {
            let at = Place::Inode(inode);
            let root = NodeView::new(&record.block, at, self.geometry(), Expected::ROOT)?;
            return self.extents(inode, root, Expected::ROOT, (0, root.depth()), visit);
        }
        let mut walk = Indirect { reader: self, inode, visit, pending: None };
        let outcome = walk.inode(record);
        walk.flush();
        outcome
    }

    fn extents(
        &self,
        inode: InodeNumber,
        node: NodeView<'_>,
        expected: Expected,
        (level, depth): (u16, u16),
        visit: Visit<'_>,
    ) -> Result<(), ReadError> {
        let entries = low_u32(u64_from(node.len()));
        for i in 0..node.len() {
            let entry = low_u32(u64_from(i)).saturating_add(1);
            let position = Position { level, depth, entry, entries };
            if let Some(extent) = node.extent(i) {
                let (blocks, start, state) = (extent.blocks, extent.start, extent.state);
                visit(MapStep::Run(MapRun { position, blocks, start, state }));
            }
            let child = node.index(i).zip(node.expected_of_child(i, expected));
            let Some((index, below)) = child else { continue };
            visit(MapStep::Node(MapNode {
                position,
                block: index.child,
                first: index.first.get(),
                end: below.end,
            }));
            let block = self.node(inode, index.child)?;
            let at = Place::InodeBlock(inode, index.child);
            let child = NodeView::new(&block, at, self.geometry(), below)?;
            self.extents(inode, child, below, (level.saturating_add(1), depth), visit)?;
        }
        Ok(())
    }

    /// Reads an inner block, if no more were read than there can be.
    fn node(&self, inode: InodeNumber, block: PhysicalBlock) -> Result<Vec<u8>, ReadError> {
        let left = self.nodes_left.get().checked_sub(1);
        let left = left.ok_or(Place::InodeBlock(inode, block).breaks(Rule::CrossLinked))?;
        self.nodes_left.set(left);
        self.block(block)
    }
}

/// A walk through indirect blocks, which joins pointers that follow each other.
struct Indirect<'w, 'r, 'd> {
    reader: &'r Reader<'d>,
    inode: InodeNumber,
    visit: Visit<'w>,
    pending: Option<MapRun>,
}

impl Indirect<'_, '_, '_> {
    fn inode(&mut self, record: &InodeRecord) -> Result<(), ReadError> {
        for slot in 0..DIRECT {
            self.pointer(indirect::pointer(&record.block, slot), slot)?;
        }
        let per_block = u64::from(self.reader.geometry().block_size >> 2);
        let mut first = u64::from(DIRECT);
        for (slot, depth) in (DIRECT..).zip(1..=3_u16) {
            let reach = per_block.saturating_pow(depth.into());
            if let Some(block) = indirect::pointer(&record.block, slot) {
                let position =
                    Position { level: 0, depth, entry: slot.saturating_add(1), entries: 15 };
                self.block(block, first, reach, position)?;
            }
            first = first.saturating_add(reach);
        }
        Ok(())
    }

    /// An indirect block at `block`, which maps `reach` blocks of the file from `first` on.
    fn block(
        &mut self,
        block: PhysicalBlock,
        first: u64,
        reach: u64,
        position: Position,
    ) -> Result<(), ReadError> {
        let limit = u64::from(u32::MAX);
        if first >= limit {
            return Ok(());
        }
        let end = first.saturating_add(reach).min(limit);
        self.flush();
        (self.visit)(MapStep::Node(MapNode {
            position,
            block,
            first: low_u32(first),
            end: low_u32(end),
        }));
        let bytes = self.reader.node(self.inode, block)?;
        let entries = self.reader.geometry().block_size >> 2;
        let below = reach / u64::from(entries.max(1));
        for slot in 0..entries {
            let at = first.saturating_add(below.saturating_mul(slot.into()));
            let pointer = indirect::pointer(&bytes, slot);
            if below <= 1 {
                if at < limit {
                    self.pointer(pointer, low_u32(at))?;
                }
            } else if let Some(child) = pointer {
                let level = position.level.saturating_add(1);
                let entry = slot.saturating_add(1);
                self.block(child, at, below, Position { level, entry, entries, ..position })?;
            }
        }
        Ok(())
    }

    /// Takes one pointer to data.
    fn pointer(&mut self, block: Option<PhysicalBlock>, at: u32) -> Result<(), ReadError> {
        let Some(block) = block else { return Ok(()) };
        if !self.reader.geometry().has_block(block) {
            return Err(Place::Inode(self.inode).breaks(Rule::BlockPlace).into());
        }
        if let Some(run) = &mut self.pending {
            let follows = run.blocks.end() == at
                && run.start.get().saturating_add(run.blocks.len().into()) == block.get();
            let longer =
                LogicalRange::new(run.blocks.start().get(), run.blocks.len().saturating_add(1));
            if let (true, Some(longer)) = (follows, longer) {
                run.blocks = longer;
                return Ok(());
            }
        }
        self.flush();
        let position = Position { level: 0, depth: 0, entry: 0, entries: 0 };
        self.pending = LogicalRange::new(at, 1).map(|blocks| MapRun {
            position,
            blocks,
            start: block,
            state: ExtentState::Written,
        });
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(run) = self.pending.take() {
            (self.visit)(MapStep::Run(run));
        }
    }
}
