//! Giving blocks a place, and changing what they are.

use extant_format::extent::{Extent, ExtentState};
use extant_format::inode::{FileType, InodeFlags};
use extant_format::{
    ClusterCount, ClusterRatio, LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange,
};

use super::look_up::{Noting, mapped, note_leaf, state_at};
use super::publish::Payment;
use super::{DataKind, MapFlags, Mapped, Mapper, indirect};
use crate::Error;
use crate::allocator::{
    Allocation, AllocationFlags, AllocationRequest, FileHints, FreeFlags, Neighbour, Owner,
};
use crate::extent_status::BlockState;
use crate::extent_tree::{
    Conversion, ExtentTree, Joining, Located, NodeSpace, Path, ZeroOut, charge, file_hints, refund,
};
use crate::inode::Inode;
use crate::sync::{Rank, assert_held};
use crate::transaction::{Change, Credits, Handle};

/// What was created on disk.
pub(super) struct Created {
    pub(super) mapped: Mapped,
    /// Clusters that a promise pays for, not yet charged to the inode.
    pub(super) owed: ClusterCount,
    /// Written blocks became unwritten.
    pub(super) undone: bool,
}

impl Mapper {
    /// Makes the first run of `range` what `flags` ask for, and says what it is.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TransactionFull`]: nothing has changed. [`Error::Corrupt`] for a broken map.
    /// # Locks
    /// Takes `Inode::map` for writing if there is anything to do.
    /// # Source
    /// Kernel `ext4_map_blocks`, `ext4_map_create_blocks` (D20.1 to D20.8).
    pub(crate) fn map(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
        flags: MapFlags,
    ) -> Result<Mapped, Error> {
        let is_done = |state| match state {
            BlockState::Written(_) => !flags.contains(MapFlags::CONVERT_UNWRITTEN),
            _ => !flags.contains(MapFlags::CREATE),
        };
        let known = match self.known(inode, range)? {
            Some(known) => known,
            None => {
                let noting = match flags.contains(MapFlags::NO_CACHE) {
                    true => Noting::Nothing,
                    false => Noting::Leaf,
                };
                let _map = inode.map.read();
                self.query(inode, range, noting)?
            }
        };
        if is_done(known.state) {
            return Ok(known);
        }
        self.inodes.note(handle, inode);
        let _map = inode.map.write();
        // Again, since others may have had the map. A delayed run is mapped with its promise, so it ends the request.
        let known = self.known_still(inode, range).unwrap_or(match known.state {
            // Memory never loses a delayed block, so this one is none any more.
            BlockState::Delayed => Mapped { state: BlockState::Hole, ..known },
            _ => known,
        });
        if self.options.check_status {
            self.check_known(inode, range.start());
        }
        if is_done(known.state) {
            return Ok(known);
        }
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Err(Error::Invalid("blocks for data that is in the inode"));
        }
        let range = known.blocks;
        let mut flags = flags;
        flags.set(MapFlags::DELALLOC_RESERVED, known.state.is_delayed());
        self.tell_enter(inode, range, flags);
        let created = if inode.flags().contains(InodeFlags::EXTENTS) {
            self.map_extent(handle, inode, range, flags)
        } else {
            indirect::IndirectMap::new(self, inode).map(handle, range, flags)
        };
        let created = created.and_then(|created| {
            self.zero_new(&created.mapped, flags)?;
            Ok(created)
        });
        let undone = created.as_ref().is_ok_and(|created| created.undone);
        let answer = created.as_ref().map(|created| created.mapped).map_err(Clone::clone);
        self.tell_exit(inode, range, flags, &answer, undone);
        let Created { mapped: result, owed, .. } = created?;
        self.make_known(handle, inode, &result, owed, flags)?;
        let place = result.state.place().expect("every run that is created has a place");
        let places =
            PhysicalRange::new(place, result.blocks.len().into()).expect("checked when decoded");
        self.check_place(inode, places)?;
        if inode.file_type() == FileType::Regular {
            handle.note(Change::Blocks(inode.number(), result.blocks));
        }
        inode.note_transaction(
            handle.transaction_id(),
            !matches!(result.state, BlockState::Unwritten(_)),
        );
        Ok(result)
    }

    /// What memory knows of the first run of `range` now, without counting as a lookup.
    pub(super) fn known_still(&self, inode: &Inode, range: LogicalRange) -> Option<Mapped> {
        let part = inode.status.lock().around(range.start())?.within(range)?;
        Some(Mapped { blocks: part.blocks, state: part.state, new: false })
    }

    /// Notes in memory what was created, which pays for it by its promise if it was delayed.
    fn make_known(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        result: &Mapped,
        owed: ClusterCount,
        flags: MapFlags,
    ) -> Result<(), Error> {
        // Zeros instead of a split made it written already.
        let is_written = flags.contains(MapFlags::PRE_IO)
            && self
                .known(inode, result.blocks)?
                .is_some_and(|known| matches!(known.state, BlockState::Written(_)));
        if !is_written {
            let pays = flags.contains(MapFlags::DELALLOC_RESERVED);
            let payment = if pays { Payment::Promise } else { Payment::Own };
            self.publish(inode, result.blocks, result.state, payment);
        }
        if owed > ClusterCount::ZERO {
            charge(inode, self.geometry(), owed.get());
            self.inodes.store_nested(handle, inode)?;
        }
        Ok(())
    }

    /// Makes all of `range`, whose I/O is done, written. May restart the handle between extents.
    ///
    /// # Errors
    /// As [`Self::map`], but for a full transaction; a part may be converted then.
    /// # Source
    /// Kernel `ext4_convert_unwritten_extents` (D16.3, D20.15).
    pub(crate) fn convert(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<(), Error> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            match self.map(handle, inode, range, MapFlags::END_OF_IO) {
                Ok(done) => {
                    let next = LogicalBlock::new(done.blocks.end());
                    rest = next.and_then(|next| LogicalRange::between(next, range.end()));
                }
                Err(Error::TransactionFull) => {
                    handle.restart(Credits::blocks(self.credits(inode, 1), self.geometry()))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// [`Self::map`] in an extent tree.
    ///
    /// Source: kernel `ext4_ext_map_blocks`, `ext4_ext_handle_unwritten_extents`.
    fn map_extent(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
        flags: MapFlags,
    ) -> Result<Created, Error> {
        assert_held(Rank::Map);
        let tree = self.tree(inode);
        let path = tree.find(range.start())?;
        if !flags.contains(MapFlags::NO_CACHE) {
            note_leaf(inode, &tree, &path);
        }
        self.tell_shown(inode, tree.shown(&path));
        let extent = match tree.at(&path, range.start()) {
            Located::Extent(extent) => extent,
            Located::Hole(_) if flags.contains(MapFlags::CONVERT) => {
                return Err(Error::Invalid("the end of I/O to a hole"));
            }
            Located::Hole(_) => return self.allocate(handle, inode, &tree, &path, range, flags),
        };
        let found = mapped(extent, range);
        if extent.state == ExtentState::Unwritten {
            self.tell_unwritten(inode, extent, range, found.state, flags);
        }
        let conversion = Conversion {
            blocks: found.blocks,
            state: ExtentState::Written,
            joining: Joining::AfterSplit,
            zero_out: self.zero_out(inode, extent, found.blocks, ZeroOut::InNeed),
            space: NodeSpace::Reserved,
        };
        let (conversion, is_new) = match extent.state {
            ExtentState::Written if flags.contains(MapFlags::CONVERT_UNWRITTEN) => {
                let space = node_space(flags);
                (Conversion { state: ExtentState::Unwritten, space, ..conversion }, false)
            }
            ExtentState::Unwritten if flags.contains(MapFlags::PRE_IO) => (
                Conversion { state: ExtentState::Unwritten, joining: Joining::Later, ..conversion },
                true,
            ),
            ExtentState::Unwritten if flags.contains(MapFlags::CONVERT) => (conversion, false),
            ExtentState::Unwritten if !flags.contains(MapFlags::UNWRITTEN) => {
                let beside = tree.joins_beside(&path, extent, found.blocks);
                self.tell_initialized(inode, extent, range, beside);
                let limit = match beside {
                    Some(_) => 0,
                    None => (self.options.max_zero_out_kib << 10) >> self.geometry().block_bits,
                };
                let zero_out = self.zero_out(inode, extent, found.blocks, ZeroOut::UpTo(limit));
                (Conversion { joining: Joining::Now, zero_out, ..conversion }, true)
            }
            _ => return Ok(Created { mapped: found, owed: ClusterCount::ZERO, undone: false }),
        };
        // At the end of I/O the kernel looks at all of the leaf again, whatever it was asked to keep to itself.
        let split = |path: &Path| {
            if flags.contains(MapFlags::CONVERT) {
                note_leaf(inode, &tree, path);
            }
        };
        let converted = tree.convert(handle, &path, conversion, split)?;
        // As the kernel, what lies behind first.
        for zeroed in converted.zeroed.iter().rev() {
            // What is written there next changes no place, so no other fast commit will tell that it is written.
            handle.note(Change::Blocks(inode.number(), zeroed.blocks));
            self.publish(inode, zeroed.blocks, BlockState::Written(zeroed.start), Payment::Own);
        }
        let state = state_at(converted.state, converted.start);
        let mapped = Mapped { blocks: found.blocks, state, new: is_new };
        let undone = extent.state == ExtentState::Written;
        Ok(Created { mapped, owed: ClusterCount::ZERO, undone })
    }

    /// `wish`, unless zeros would show up behind the end of the file: the extent has to lie before it, or before the end of
    /// what is being mapped (D20.9). Journaled data is zeroed in the log, which has room for little.
    fn zero_out(
        &self,
        inode: &Inode,
        extent: Extent,
        blocks: LogicalRange,
        wish: ZeroOut,
    ) -> ZeroOut {
        let size = inode.core.lock().size;
        let end = size.div_ceil(self.geometry().block_size.into()).max(blocks.end().into());
        if u64::from(extent.blocks.end()) > end {
            return ZeroOut::Never;
        }
        match wish {
            ZeroOut::UpTo(limit) if self.journals_data(inode) => ZeroOut::InLog(limit),
            _ if self.journals_data(inode) => ZeroOut::Never,
            wish => wish,
        }
    }

    /// Gives the hole at the start of `range`, to which `path` leads, a place.
    fn allocate(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        tree: &ExtentTree<'_>,
        path: &Path,
        range: LogicalRange,
        flags: MapFlags,
    ) -> Result<Created, Error> {
        let is_unwritten = flags.contains(MapFlags::UNWRITTEN);
        let state = if is_unwritten { ExtentState::Unwritten } else { ExtentState::Written };
        let (left, right) = (tree.nearest(path), tree.following(path)?);
        let (wanted, place) = match self.shared_cluster(tree.shown(path), right, range) {
            Some((blocks, start)) => (blocks, Some(start)),
            None => (self.up_to_cluster_of(right, range), None),
        };
        let len = wanted.len().min(state.max_len());
        let wanted = LogicalRange::new(wanted.start().get(), len).expect("a part of the range");
        let extent_at = |start: PhysicalBlock, len: u32| Extent {
            blocks: LogicalRange::new(wanted.start().get(), len).expect("a part of the range"),
            start,
            state,
        };
        let (extent, taken) = match place {
            Some(start) => (extent_at(start, len), None),
            None => {
                let request = self.request(inode, tree, path, wanted, (left, right), flags);
                let got = self.allocator.allocate(handle, &request)?;
                let len = u32::try_from(got.blocks.len()).expect("no more than asked for");
                (extent_at(got.blocks.start(), len), Some(got))
            }
        };
        // What was promised is charged when the promise is spent (D10.11).
        let clusters = taken.map_or(ClusterCount::ZERO, |got: Allocation| got.clusters);
        let owed = match flags.contains(MapFlags::DELALLOC_RESERVED) {
            true => clusters,
            false => {
                charge(inode, self.geometry(), clusters.get());
                ClusterCount::ZERO
            }
        };
        let joining = if flags.contains(MapFlags::PRE_IO) { Joining::Later } else { Joining::Now };
        if let Err(error) = tree.insert(handle, path, extent, joining, node_space(flags)) {
            if let Some(got) = taken {
                self.give_up(handle, inode, got, flags)?;
            }
            return Err(error);
        }
        if owed == ClusterCount::ZERO && clusters > ClusterCount::ZERO {
            self.inodes.store_nested(handle, inode)?;
        }
        let mapped =
            Mapped { blocks: extent.blocks, state: state_at(state, extent.start), new: true };
        Ok(Created { mapped, owed, undone: false })
    }

    /// The request for `wanted`, a hole between `left` and `right`.
    ///
    /// Source: kernel `ext4_ext_map_blocks` (M2).
    fn request(
        &self,
        inode: &Inode,
        tree: &ExtentTree<'_>,
        path: &Path,
        wanted: LogicalRange,
        (left, right): (Option<Extent>, Option<Extent>),
        flags: MapFlags,
    ) -> AllocationRequest {
        let last = |extent: Extent| {
            let logical = extent.blocks.last();
            Some(Neighbour { logical, physical: extent.map(logical)? })
        };
        let growth = if flags.contains(MapFlags::GROWING) { self.room_to_grow() } else { 0 };
        AllocationRequest {
            inode: inode.number(),
            logical: wanted.start(),
            len: wanted.len(),
            goal: tree.goal(path, wanted.start()),
            left: left.and_then(last),
            right: right
                .map(|extent| Neighbour { logical: extent.blocks.start(), physical: extent.start }),
            file: FileHints { growth, ..file_hints(inode, self.geometry()) },
            flags: allocation_flags(inode, flags),
        }
    }

    /// Under `bigalloc`, the place of the blocks at the start of `range` in a cluster that the extent at the path or the one
    /// behind it has already (D12.9).
    ///
    /// Source: kernel `ext4_ext_map_blocks`, `get_implied_cluster_alloc`.
    fn shared_cluster(
        &self,
        at_path: Option<Extent>,
        right: Option<Extent>,
        range: LogicalRange,
    ) -> Option<(LogicalRange, PhysicalBlock)> {
        let ratio = self.ratio();
        let cluster = ratio.around(range.start());
        let hole = LogicalRange::between(
            range.start(),
            right.map_or(u32::MAX, |extent| extent.blocks.start().get()),
        )?;
        let blocks = cluster.intersection(range)?.intersection(hole)?;
        let start = range.start();
        let place_of = |extent: Extent| {
            let (first, last) = (extent.blocks.start(), extent.blocks.last());
            let shares = cluster.contains(last) || cluster.contains(first);
            let place = if first < start {
                extent.start.checked_add(start.distance_from(first)?.into())
            } else {
                extent.start.checked_sub(first.distance_from(start)?.into())
            };
            let place = place.filter(|_| shares);
            self.tell_implied(if shares { blocks } else { range }, place);
            place
        };
        let is_inside = start != cluster.start();
        let place = at_path.filter(|_| is_inside).and_then(place_of);
        let place =
            place.or_else(|| right.filter(|_| ratio != ClusterRatio::ONE).and_then(place_of));
        Some((blocks, place?))
    }

    /// `range` up to the cluster in which `right` starts.
    ///
    /// Source: kernel `ext4_ext_check_overlap`.
    fn up_to_cluster_of(&self, right: Option<Extent>, range: LogicalRange) -> LogicalRange {
        let end = right
            .map_or(u32::MAX, |extent| self.ratio().around(extent.blocks.start()).start().get());
        LogicalRange::between(range.start(), range.end().min(end))
            .expect("the range starts in a cluster before")
    }

    /// Frees what was allocated for an extent that could not be inserted (D20.7).
    pub(super) fn give_up(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        got: Allocation,
        flags: MapFlags,
    ) -> Result<(), Error> {
        if flags.contains(MapFlags::DELALLOC_RESERVED) {
            self.ledger.unplaced(got.clusters);
        } else {
            refund(inode, self.geometry(), got.clusters.get());
        }
        self.allocator.discard_preallocations(inode.number());
        let mut free = if self.data_kind(inode) == DataKind::Metadata {
            FreeFlags::METADATA
        } else {
            FreeFlags::empty()
        };
        free.set(FreeFlags::NO_QUOTA_UPDATE, flags.contains(MapFlags::DELALLOC_RESERVED));
        let owner = Owner { inode: inode.number(), mode: inode.core.lock().mode };
        let freed = self.allocator.free(handle, owner, got.blocks, free);
        freed.map(drop).inspect_err(|error| {
            self.transactions.abort(error, "blocks of a failed allocation could not be freed")
        })
    }

    /// Zeroes new blocks on the device, if that was asked for.
    fn zero_new(&self, result: &Mapped, flags: MapFlags) -> Result<(), Error> {
        let place = result.state.place().filter(|_| flags.contains(MapFlags::ZERO) && result.new);
        match place.and_then(|start| PhysicalRange::new(start, result.blocks.len().into())) {
            Some(blocks) => self.transactions.io().zero(&[blocks]),
            None => Ok(()),
        }
    }
}

/// What pays for nodes of the map.
fn node_space(flags: MapFlags) -> NodeSpace {
    let nofail = flags.contains(MapFlags::METADATA_NOFAIL);
    match flags.contains(MapFlags::DELALLOC_RESERVED) {
        true if nofail => NodeSpace::Promised,
        true => NodeSpace::Delayed,
        false if nofail => NodeSpace::Reserved,
        false => NodeSpace::Free,
    }
}

/// How the allocator is asked for a file's data (M2.6).
pub(super) fn allocation_flags(inode: &Inode, flags: MapFlags) -> AllocationFlags {
    let mut wanted = AllocationFlags::empty();
    let is_data =
        inode.file_type() == FileType::Regular && !inode.flags().contains(InodeFlags::EA_INODE);
    wanted.set(AllocationFlags::HINT_DATA, is_data);
    wanted.set(AllocationFlags::HINT_NOPREALLOC, flags.contains(MapFlags::NO_NORMALIZE));
    wanted.set(AllocationFlags::DELALLOC_RESERVED, flags.contains(MapFlags::DELALLOC_RESERVED));
    wanted.set(AllocationFlags::USE_RESERVED, flags.contains(MapFlags::METADATA_NOFAIL));
    wanted
}
