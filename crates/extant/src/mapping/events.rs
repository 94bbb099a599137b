//! What the kernel's tracepoints around block maps are told.

use extant_format::extent::Extent;
use extant_format::indirect::IndirectPath;
use extant_format::inode::InodeFlags;
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock};

use super::cut::Edge;
use super::{MapFlags, Mapped, Mapper};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::trace::{self, Event, MappedFlags};

impl From<MapFlags> for trace::MapFlags {
    fn from(flags: MapFlags) -> Self {
        Self((flags - MapFlags::GROWING).bits())
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

    /// What it answered; `undone`: what was written is unwritten now.
    pub(super) fn tell_exit(
        &self,
        inode: &Inode,
        range: LogicalRange,
        flags: MapFlags,
        answer: &Result<Mapped, Error>,
        undone: bool,
    ) {
        self.transactions.tracer().emit(|| {
            let (ino, lblk) = (inode.number(), range.start().get());
            let is_create = flags.contains(MapFlags::CREATE) && !undone;
            let (len, ret, pblk, mflags) = match answer {
                Err(error) => (range.len(), -error.errno().0, 0, MappedFlags::default()),
                Ok(mapped) => {
                    let len = mapped.blocks.len();
                    let pblk = mapped.state.traced_place();
                    let ret =
                        mapped.state.place().map_or(0, |_| i32::try_from(len).unwrap_or(i32::MAX));
                    let ends_array = ret > 0 && self.ends_array(inode, range.start(), len);
                    let mflags = mapped_flags(mapped, is_create);
                    (len, ret, pblk, mflags.with_if(MappedFlags::BOUNDARY, ends_array))
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

    /// Whether `len` blocks from `start` on go to the end of an array of block pointers, behind which the next one may have to
    /// be read.
    fn ends_array(&self, inode: &Inode, start: LogicalBlock, len: u32) -> bool {
        !inode.flags().contains(InodeFlags::EXTENTS)
            && IndirectPath::to(start, self.geometry()).is_some_and(|path| len >= path.run)
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

    /// Blocks are about to leave a tree of this depth.
    pub(super) fn tell_removal(&self, inode: &Inode, range: LogicalRange, depth: u16) {
        self.transactions.tracer().emit(|| {
            let (start, end) = (range.start().get(), range.last().get());
            Event::ExtRemoveSpace { ino: inode.number(), start, end, depth }
        });
    }

    /// A leaf is about to be cut, from `last` on to the left; an empty root shows its header.
    pub(super) fn tell_leaf(
        &self,
        inode: &Inode,
        range: LogicalRange,
        last: Option<Extent>,
        edge: &Edge,
    ) {
        self.transactions.tracer().emit(|| {
            let (ee_lblk, ee_pblk, ee_len) = last.map_or_else(
                || header_as_extent(&inode.core.lock().block),
                |last| (last.blocks.start().get(), last.start.get(), last.blocks.len()),
            );
            Event::ExtRmLeaf {
                ino: inode.number(),
                start: range.start().get(),
                ee_lblk,
                ee_pblk,
                ee_len: u16::try_from(ee_len).unwrap_or(u16::MAX),
                pc_pclu: edge.cluster,
                pc_lblk: edge.block,
                pc_state: edge.state.number(),
            }
        });
    }

    /// The blocks of `extent` from `from` on are about to go.
    pub(super) fn tell_extent(
        &self,
        inode: &Inode,
        extent: Extent,
        from: LogicalBlock,
        edge: &Edge,
    ) {
        self.transactions.tracer().emit(|| Event::RemoveBlocks {
            ino: inode.number(),
            ee_lblk: extent.blocks.start().get(),
            ee_pblk: extent.start.get(),
            ee_len: u16::try_from(extent.blocks.len()).unwrap_or(u16::MAX),
            from: from.get(),
            to: extent.blocks.last().get(),
            pc_pclu: edge.cluster,
            pc_lblk: edge.block,
            pc_state: edge.state.number(),
        });
    }

    /// They are gone; the root has so many entries left.
    pub(super) fn tell_removed(
        &self,
        inode: &Inode,
        range: LogicalRange,
        depth: u16,
        edge: &Edge,
        entries: u16,
    ) {
        self.transactions.tracer().emit(|| Event::ExtRemoveSpaceDone {
            ino: inode.number(),
            start: range.start().get(),
            end: range.last().get(),
            depth,
            pc_pclu: edge.cluster,
            pc_lblk: edge.block,
            pc_state: edge.state.number(),
            eh_entries: entries,
        });
    }

    /// Whether `blocks` lie in a cluster that an extent beside has: their place there.
    pub(super) fn tell_implied(&self, blocks: LogicalRange, place: Option<PhysicalBlock>) {
        self.transactions.tracer().emit(|| Event::GetImpliedClusterAllocExit {
            lblk: blocks.start().get(),
            pblk: place.map_or(0, PhysicalBlock::get),
            len: blocks.len(),
            flags: MappedFlags::default(),
            ret: i32::from(place.is_some()),
        });
    }

    /// `wanted`, of the unwritten `extent`, is about to count as written; it goes to the one beside, if there is.
    pub(super) fn tell_initialized(
        &self,
        inode: &Inode,
        extent: Extent,
        wanted: LogicalRange,
        beside: Option<Extent>,
    ) {
        let tracer = self.transactions.tracer();
        let (ino, m_lblk, m_len) = (inode.number(), wanted.start().get(), wanted.len());
        let place = |extent: &Extent| {
            (extent.blocks.start().get(), extent.blocks.len(), extent.start.get())
        };
        let (u_lblk, u_len, u_pblk) = place(&extent);
        tracer.emit(|| Event::ExtConvertToInitializedEnter {
            ino,
            m_lblk,
            m_len,
            u_lblk,
            u_len,
            u_pblk,
        });
        let Some((i_lblk, i_len, i_pblk)) = beside.as_ref().map(place) else { return };
        tracer.emit(|| Event::ExtConvertToInitializedFastpath {
            ino,
            m_lblk,
            m_len,
            u_lblk,
            u_len,
            u_pblk,
            i_lblk,
            i_len,
            i_pblk,
        });
    }

    /// `wanted`, which begins in the unwritten `extent` with a block in `state`, was asked for.
    pub(super) fn tell_unwritten(
        &self,
        inode: &Inode,
        extent: Extent,
        wanted: LogicalRange,
        state: BlockState,
        flags: MapFlags,
    ) {
        self.transactions.tracer().emit(|| {
            let (lblk, len) = (wanted.start().get(), wanted.len());
            let newblk = state.traced_place();
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

/// The header of a root without extents, read as an extent, as the kernel does: block, place, length.
fn header_as_extent(root: &[u8; 60]) -> (u32, u64, u32) {
    let number = |at: usize| u32::from(u16::from_le_bytes([root[at], root[at + 1]]));
    let generation = u64::from(number(8) | number(10) << 16);
    (number(0) | number(2) << 16, u64::from(number(6)) << 32 | generation, number(4))
}
