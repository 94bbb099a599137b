//! Finding out what blocks are.

use extant_format::extent::{Extent, ExtentState};
use extant_format::inode::InodeFlags;
use extant_format::{LogicalBlock, LogicalRange, PhysicalRange};

use super::publish::Payment;
use super::{MapFlags, Mapped, Mapper, indirect};
use crate::Error;
use crate::extent_status::BlockState;
use crate::extent_tree::{ExtentTree, Located, Path};
use crate::inode::Inode;
use crate::sync::{Rank, assert_held_shared};

/// What is noted in memory besides the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Noting {
    /// Everything that the same leaf says.
    Leaf,
    /// Nothing.
    Nothing,
}

impl Mapper {
    /// What the first run of `range` is. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a broken map, and errors of reading it.
    /// # Locks
    /// Takes `Inode::map` for reading, unless memory knows the answer.
    /// # Source
    /// Kernel `ext4_map_blocks` without `CREATE` (D20.1).
    pub(crate) fn look_up(&self, inode: &Inode, range: LogicalRange) -> Result<Mapped, Error> {
        let range = as_one(range);
        if let Some(known) = self.known(inode, range)? {
            if self.options.check_status {
                let _map = inode.map.read();
                self.check_known(inode, range.start());
            }
            return Ok(known);
        }
        let _map = inode.map.read();
        self.query(inode, range, Noting::Leaf)
    }

    /// As [`Self::look_up`], but where the disk has to be asked it is for the first block alone, as the kernel does it for each
    /// buffer of a page. What it says of the others is noted, so that it is asked once for a leaf.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    /// # Locks
    /// As [`Self::look_up`].
    /// # Source
    /// Kernel `block_read_full_folio`.
    pub(crate) fn look_up_buffers(
        &self,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Mapped, Error> {
        let status = inode.status.lock();
        let is_known = status.around(range.start()).is_some();
        let known_from = status.next_start(range.start());
        drop(status);
        let unknown = if inode.flags().contains(InodeFlags::EXTENTS) {
            Some(LogicalRange::single(range.start()))
        } else {
            // Of holes in a block map nothing is noted, but for what memory knows already.
            known_from
                .and_then(|end| LogicalRange::between(range.start(), end.get().min(range.end())))
        };
        self.look_up(inode, unknown.filter(|_| !is_known).unwrap_or(range))
    }

    /// As [`Self::look_up`], but of what else the disk says nothing is noted: for whoever passes through.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    /// # Locks
    /// As [`Self::look_up`].
    pub(crate) fn look_up_alone(
        &self,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Mapped, Error> {
        if let Some(known) = self.known(inode, range)? {
            return Ok(known);
        }
        let _map = inode.map.read();
        self.query(inode, range, Noting::Nothing)
    }

    /// As [`Self::look_up`], for blocks in memory whose place was looked up before: the kernel keeps it in the buffer and
    /// does not ask again, so nothing is told.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(crate) fn look_up_again(
        &self,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Mapped, Error> {
        let entry = inode.status.lock().around(range.start());
        let Some(part) = entry.and_then(|entry| entry.within(range)) else {
            return self.look_up(inode, range);
        };
        if let Some(places) =
            part.state.place().and_then(|place| PhysicalRange::new(place, part.blocks.len().into()))
        {
            self.check_place(inode, places)?;
        }
        Ok(Mapped { blocks: part.blocks, state: part.state, new: false })
    }

    /// Notes that what was found for the first block of a run was used for the others: the kernel looks at each.
    pub(crate) fn note_used(&self, inode: &Inode, found: &Mapped) {
        if found.blocks.len() > 1 {
            inode.status.lock().mark_used(found.blocks);
        }
    }

    /// What memory knows of the first run of `range`.
    pub(super) fn known(
        &self,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Option<Mapped>, Error> {
        let Some(entry) = inode.status.lock().lookup(range.start()) else { return Ok(None) };
        let part = entry.within(range).expect("the entry has the range's start");
        if let Some(place) = part.state.place() {
            let places = PhysicalRange::new(place, part.blocks.len().into());
            self.check_place(inode, places.expect("it was noted from a checked place"))?;
        }
        Ok(Some(Mapped { blocks: part.blocks, state: part.state, new: false }))
    }

    /// Panics if memory says something else of `block` than the map on disk; the caller holds `Inode::map`.
    ///
    /// Source: kernel `ext4_map_blocks_es_recheck`, `ext4_es_insert_extent_check` (D11.18).
    pub(super) fn check_known(&self, inode: &Inode, block: LogicalBlock) {
        let flags = inode.flags();
        if flags.contains(InodeFlags::INLINE_DATA) {
            return;
        }
        let single = LogicalRange::single(block);
        let found = if flags.contains(InodeFlags::EXTENTS) {
            let tree = self.tree(inode);
            tree.find(block).map(|path| match tree.at(&path, block) {
                Located::Extent(extent) => mapped(extent, single).state,
                Located::Hole(_) => BlockState::Hole,
            })
        } else {
            indirect::IndirectMap::new(self, inode).look_up(single).map(|found| found.state)
        };
        // A map that cannot be read says nothing.
        let Ok(found) = found else { return };
        let entry = inode.status.lock().around(block);
        let agrees = entry.is_none_or(|entry| match entry.state_of(block) {
            BlockState::Delayed => found == BlockState::Hole,
            known => found == known,
        });
        assert!(agrees, "{} {block}: memory says {entry:?}, the disk {found}", inode.number());
    }

    /// Asks the map on disk; the caller holds `Inode::map`.
    ///
    /// Source: kernel `ext4_map_query_blocks` (D9.5).
    pub(super) fn query(
        &self,
        inode: &Inode,
        range: LogicalRange,
        noting: Noting,
    ) -> Result<Mapped, Error> {
        assert_held_shared(Rank::Map);
        let flags = inode.flags();
        if flags.contains(InodeFlags::INLINE_DATA) {
            // On its way out of the inode: nothing is mapped yet, and nothing to be noted (D9.6).
            let nothing = Mapped { blocks: range, state: BlockState::Hole, new: false };
            return Ok(before_delayed(inode, nothing));
        }
        let asked = match noting {
            Noting::Leaf => MapFlags::empty(),
            Noting::Nothing => MapFlags::NO_CACHE,
        };
        self.tell_enter(inode, range, asked);
        let found = if flags.contains(InodeFlags::EXTENTS) {
            self.query_extents(inode, range, noting)
        } else {
            indirect::IndirectMap::new(self, inode)
                .look_up(range)
                .map(|found| before_delayed(inode, found))
        };
        self.tell_exit(inode, range, asked, &found, false);
        let found = found?;
        if let Some(start) = found.state.place() {
            let places = PhysicalRange::new(start, found.blocks.len().into());
            self.check_place(inode, places.expect("checked when decoded"))?;
            self.publish(inode, found.blocks, found.state, Payment::Own);
        }
        Ok(found)
    }

    /// [`Self::query`] of an extent tree; holes are noted as large as they are.
    fn query_extents(
        &self,
        inode: &Inode,
        range: LogicalRange,
        noting: Noting,
    ) -> Result<Mapped, Error> {
        let tree = self.tree(inode);
        let path = tree.find(range.start())?;
        if noting == Noting::Leaf {
            note_leaf(inode, &tree, &path);
        }
        self.tell_shown(inode, tree.shown(&path));
        Ok(match tree.at(&path, range.start()) {
            Located::Extent(extent) => {
                let found = mapped(extent, range);
                if extent.state == ExtentState::Unwritten {
                    self.tell_unwritten(inode, extent, range, found.state, MapFlags::empty());
                }
                found
            }
            Located::Hole(gap) => note_hole(inode, gap, range),
        })
    }
}

/// No more of `range` than one question is about.
fn as_one(range: LogicalRange) -> LogicalRange {
    LogicalRange::new(range.start().get(), range.len().min(MAX_ASKED)).unwrap_or(range)
}

/// Blocks that one question is about at the most: as many as a signed number holds.
const MAX_ASKED: u32 = 0x7FFF_FFFF;

/// The part of `extent` inside `range`, whose start it has.
pub(super) fn mapped(extent: Extent, range: LogicalRange) -> Mapped {
    let blocks = extent.blocks.intersection(range).expect("the extent has the range's start");
    let start = extent.map(blocks.start()).expect("a block of the extent");
    Mapped { blocks, state: state_at(extent.state, start), new: false }
}

/// The state of a block at `start`.
pub(super) fn state_at(state: ExtentState, start: extant_format::PhysicalBlock) -> BlockState {
    match state {
        ExtentState::Written => BlockState::Written(start),
        ExtentState::Unwritten => BlockState::Unwritten(start),
    }
}

/// Notes what the disk says of the hole `gap` around the start of `range`. Delayed blocks in it stay what they are.
fn note_hole(inode: &Inode, gap: LogicalRange, range: LogicalRange) -> Mapped {
    let mut status = inode.status.lock();
    let (certain, _) = status.set_hole(gap, range.start());
    let state = if status.has_delayed(LogicalRange::single(range.start())) {
        BlockState::Delayed
    } else {
        BlockState::Hole
    };
    let blocks = certain.intersection(range).expect("both have the start");
    Mapped { blocks, state, new: false }
}

/// A hole that nobody notes, in a map of indirect blocks or where there is no map yet, up to the first delayed block in it;
/// or those delayed blocks.
fn before_delayed(inode: &Inode, found: Mapped) -> Mapped {
    if found.state != BlockState::Hole {
        return found;
    }
    let Some(delayed) = inode.status.lock().first_delayed(found.blocks) else { return found };
    let start = found.blocks.start();
    match LogicalRange::between(start, delayed.start().get()) {
        Some(blocks) => Mapped { blocks, ..found },
        None => Mapped { blocks: delayed, state: BlockState::Delayed, new: false },
    }
}

/// Notes the extents of the path's leaf and the holes between them, if the leaf is the root or was read just now (D11.12).
pub(super) fn note_leaf(inode: &Inode, tree: &ExtentTree<'_>, path: &Path) {
    if !path.is_leaf_news() {
        return;
    }
    let extents = tree.leaf_extents(path);
    let mut status = inode.status.lock();
    let mut end = None;
    for extent in extents {
        let gap = end
            .and_then(|end: LogicalBlock| LogicalRange::between(end, extent.blocks.start().get()));
        if let Some(gap) = gap {
            status.cache(gap, BlockState::Hole);
        }
        status.cache(extent.blocks, state_at(extent.state, extent.start));
        end = LogicalBlock::new(extent.blocks.end());
    }
}
