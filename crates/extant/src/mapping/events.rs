//! What the kernel's tracepoints around block maps are told.

use extant_format::extent::Extent;
use extant_format::inode::InodeFlags;
use extant_format::{LogicalRange, PhysicalRange};

use super::publish::mode_and_blocks;
use super::{MapFlags, Mapped, Mapper};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::trace::{self, Event, MappedFlags};

impl From<MapFlags> for trace::MapFlags {
    fn from(flags: MapFlags) -> Self {
        Self((flags - (MapFlags::ROOT_BLOCKS | MapFlags::GROWING)).bits())
    }
}

impl Mapper {
    /// The map on disk is asked for `range`.
    pub(super) fn tell_enter(&self, inode: &Inode, range: LogicalRange, flags: MapFlags) {
        self.transactions.tracer().emit(|| {
            let (ino, lblk, len) = (inode.number(), range.start().get(), range.len());
            let flags = flags.into();
            if inode.flags().contains(InodeFlags::EXTENTS) {
                Event::ExtMapBlocksEnter { ino, lblk, len, flags }
            } else {
                Event::IndMapBlocksEnter { ino, lblk, len, flags }
            }
        });
    }

    /// What it answered.
    pub(super) fn tell_exit(
        &self,
        inode: &Inode,
        range: LogicalRange,
        flags: MapFlags,
        answer: &Result<Mapped, Error>,
    ) {
        self.transactions.tracer().emit(|| {
            let (ino, lblk) = (inode.number(), range.start().get());
            let is_create = flags.contains(MapFlags::CREATE);
            let (len, ret, pblk, mflags) = match answer {
                Err(error) => (range.len(), -error.errno().0, 0, MappedFlags::default()),
                Ok(mapped) => {
                    let len = mapped.blocks.len();
                    let pblk = mapped.state.traced_place();
                    let ret =
                        mapped.state.place().map_or(0, |_| i32::try_from(len).unwrap_or(i32::MAX));
                    (len, ret, pblk, mapped_flags(mapped, is_create))
                }
            };
            let flags = flags.into();
            if inode.flags().contains(InodeFlags::EXTENTS) {
                Event::ExtMapBlocksExit { ino, flags, lblk, pblk, len, mflags, ret }
            } else {
                Event::IndMapBlocksExit { ino, flags, lblk, pblk, len, mflags, ret }
            }
        });
    }

    /// The tree was searched, and ended at `extent`.
    pub(super) fn tell_shown(&self, inode: &Inode, extent: Option<Extent>) {
        let Some(extent) = extent else { return };
        self.transactions.tracer().emit(|| {
            let len = u16::try_from(extent.blocks.len()).unwrap_or(u16::MAX);
            let (lblk, pblk) = (extent.blocks.start().get(), extent.start.get());
            Event::ExtShowExtent { ino: inode.number(), lblk, pblk, len }
        });
    }

    /// Blocks of the file are given back.
    pub(super) fn tell_freed(&self, inode: &Inode, blocks: PhysicalRange, flags: trace::FreeFlags) {
        self.transactions.tracer().emit(|| {
            let (mode, _) = mode_and_blocks(inode);
            let (block, count) = (blocks.start().get(), blocks.len());
            Event::FreeBlocks { ino: inode.number(), mode, block, count, flags }
        });
    }

    /// The part `found` of the unwritten `extent` is about to change.
    pub(super) fn tell_unwritten(
        &self,
        inode: &Inode,
        extent: Extent,
        found: &Mapped,
        flags: MapFlags,
    ) {
        self.transactions.tracer().emit(|| {
            let (lblk, len) = (found.blocks.start().get(), found.blocks.len());
            let newblk = found.state.traced_place();
            let flags = (flags | MapFlags::METADATA_NOFAIL).into();
            let (ino, allocated) = (inode.number(), extent.blocks.end() - lblk);
            Event::ExtHandleUnwrittenExtents {
                ino,
                lblk,
                pblk: newblk,
                len,
                flags,
                allocated,
                newblk,
            }
        });
    }
}

/// What a mapping is in the words of `EXT4_MAP_*`: without `CREATE`, unwritten blocks do not count as mapped.
fn mapped_flags(mapped: &Mapped, is_create: bool) -> MappedFlags {
    let is_unwritten = matches!(mapped.state, BlockState::Unwritten(_));
    MappedFlags::default()
        .with_if(MappedFlags::NEW, mapped.new)
        .with_if(
            MappedFlags::MAPPED,
            mapped.state.place().is_some() && (is_create || !is_unwritten),
        )
        .with_if(MappedFlags::UNWRITTEN, is_unwritten)
}
