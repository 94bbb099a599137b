//! One group: its descriptor, its buddy when somebody needed it, and the road of both to disk.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_mb_init_group`, `ext4_mb_load_buddy`, `ext4_mb_generate_buddy`,
//! `ext4_mb_mark_context`; `balloc.c`: `ext4_read_block_bitmap`. Differs: what is used in the buddy but free in the bitmap is
//! counted (`pinned`), so that a buddy without any can be dropped and built again.

use super::Allocator;
use super::buddy::Buddy;
use super::criteria::{Groups, Orders, Set, Summary};
use super::layout::Run;
use crate::Error;
use crate::sync::MutexGuard;
use crate::trace::Event;
use crate::transaction::{BlockKind, Handle, MetadataBlock};
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::Ordering;
use extant_format::cast::usize_from;
use extant_format::corruption::{Corruption, Place, Rule};
use extant_format::descriptor::GroupFlags;
use extant_format::{BlockGroup, ClusterCount, GroupDescriptor, bitmap};

/// What is known of one group.
///
/// # Invariants
/// `descriptor` says what the descriptor's bytes say, checksums of bitmaps apart. While the buddy is here and the group is
/// sound, the descriptor's free clusters are the buddy's and those pinned.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) descriptor: GroupDescriptor,
    pub(super) summary: Summary,
    buddy: Option<Box<Buddy>>,
    /// Clusters used in the buddy but free in the bitmap: preallocated, freed but not committed, or being trimmed.
    pub(super) pinned: u32,
    /// Changes of the buddy, so that the ordered sets can tell old news.
    version: u64,
    /// How often the buddy was dropped.
    drops: u32,
    /// A search has looked ahead at the group.
    read_ahead: bool,
    /// The bitmap was compared with its checksum, and may have changed since.
    verified: bool,
    /// The same for the inode bitmap.
    pub(super) inodes_verified: bool,
    /// Nothing may be allocated or freed in the inode bitmap.
    pub(super) inodes_corrupt: bool,
    /// Free runs of at least so many clusters were discarded since the last commit that freed any.
    pub(super) trimmed: Option<u32>,
}

impl Group {
    /// A group that nobody has looked at.
    pub(super) fn new(descriptor: GroupDescriptor, computable: bool, corrupt: bool) -> Self {
        let free = if corrupt { 0 } else { descriptor.free_clusters };
        Self {
            descriptor,
            summary: Summary { free, computable, corrupt, ..Summary::default() },
            buddy: None,
            pinned: 0,
            version: 0,
            drops: 0,
            read_ahead: false,
            verified: false,
            inodes_verified: false,
            inodes_corrupt: corrupt,
            trimmed: None,
        }
    }
}

impl Allocator {
    /// The group's lock; `group` is one that the volume has.
    pub(super) fn group(&self, group: BlockGroup) -> MutexGuard<'_, Group> {
        self.groups[usize_from(group.0)].lock()
    }

    /// Calls `change` with the group and its buddy under the group's lock; `None` if the group is set aside.
    ///
    /// # Errors
    /// Of reading the bitmap.
    pub(super) fn with_buddy<R>(
        &self,
        group: BlockGroup,
        change: impl FnOnce(&mut Group, &mut Buddy) -> R,
    ) -> Result<Option<R>, Error> {
        loop {
            let state = self.group(group);
            if state.summary.corrupt {
                return Ok(None);
            }
            if state.buddy.is_some() {
                return Ok(self.change_buddy(group, state, change));
            }
            drop(state);
            self.load_buddy(group)?;
        }
    }

    /// Calls `change` with the group and its buddy, if that is in memory, and files the group anew.
    fn change_buddy<R>(
        &self,
        group: BlockGroup,
        mut state: MutexGuard<'_, Group>,
        change: impl FnOnce(&mut Group, &mut Buddy) -> R,
    ) -> Option<R> {
        let mut buddy = state.buddy.take()?;
        let before = Orders::of(&buddy);
        let result = change(&mut state, &mut buddy);
        state.summary.refresh(&buddy);
        let after = Orders::of(&buddy);
        state.buddy = Some(buddy);
        state.version += 1;
        let version = state.version;
        drop(state);
        if before != after {
            self.reorder(group, version, after);
        }
        Some(result)
    }

    /// Gives clusters that were pinned back to the buddy.
    pub(super) fn release(&self, run: Run) {
        let mut state = self.group(run.group);
        state.pinned -= run.len;
        if state.summary.corrupt {
            return;
        }
        let released =
            self.change_buddy(run.group, state, |_, buddy| buddy.release(run.start, run.len));
        self.changes.fetch_add(1, Ordering::Relaxed);
        if released != Some(Ok(())) {
            self.set_aside(self.group(run.group), Place::Group(run.group).breaks(Rule::FreedTwice));
        }
    }

    /// Builds the group's buddy, from its bitmap or, if it has none yet, from what must be in it.
    fn load_buddy(&self, group: BlockGroup) -> Result<(), Error> {
        let (descriptor, verified, drops) = {
            let state = self.group(group);
            (state.descriptor, state.verified, state.drops)
        };
        let (layout, clusters) = (&self.layout, self.layout.clusters_in(group));
        let build = |bits: &[u8]| Box::new(Buddy::new(bits, layout.block_bits, clusters));
        let computed = descriptor.block_bitmap_is_uninitialized(&self.geometry);
        self.tell_load(group, computed || !self.transactions.is_cached(descriptor.block_bitmap));
        let (buddy, broken) = if computed {
            (build(&self.zones.bitmap(layout, group)), None)
        } else {
            let block =
                self.transactions.read(descriptor.block_bitmap, BlockKind::BlockBitmap(group))?;
            let frame = block.frame();
            let bits = frame.as_slice();
            let broken = if verified { None } else { self.check_bitmap(&descriptor, group, bits) };
            (build(bits), broken)
        };
        let mut state = self.group(group);
        if state.buddy.is_some() || state.summary.corrupt || state.drops != drops {
            return Ok(()); // somebody else was faster, and may have changed the bitmap since
        }
        if let Some(broken) = broken {
            self.set_aside(state, Place::Group(group).breaks(broken));
            return Ok(());
        }
        let (counted, stated) = (buddy.free(), state.descriptor.free_clusters);
        if computed {
            // The count of a bitmap that is computed is computed too.
            state.descriptor.free_clusters = counted;
        } else if counted != stated {
            self.set_aside(state, Place::Group(group).breaks(Rule::FreeClustersCount));
            return Ok(());
        }
        state.verified |= !computed;
        state.summary.refresh(&buddy);
        state.version += 1;
        let (version, orders) = (state.version, Orders::of(&buddy));
        state.buddy = Some(buddy);
        drop(state);
        self.reorder(group, version, orders);
        self.correct_count(group, stated, counted);
        Ok(())
    }

    fn tell_load(&self, group: BlockGroup, is_read: bool) {
        let (tracer, group) = (self.transactions.tracer(), group.get());
        if is_read {
            tracer.emit(|| Event::ReadBlockBitmapLoad { group, prefetch: false });
        }
        tracer.emit(|| Event::MbBitmapLoad { group });
        tracer.emit(|| Event::MbBuddyBitmapLoad { group });
    }

    /// What is wrong with a bitmap that was just read.
    fn check_bitmap(
        &self,
        descriptor: &GroupDescriptor,
        group: BlockGroup,
        bits: &[u8],
    ) -> Option<Rule> {
        let sum = bitmap::block_bitmap_csum(&self.geometry, bits);
        if !descriptor.block_bitmap_matches(&self.geometry, sum) {
            Some(Rule::Checksum)
        } else if !self.zones.are_set_in(&self.layout, group, bits) {
            Some(Rule::MetadataFree)
        } else {
            None
        }
    }

    /// Takes a group whose structures contradict each other out of use.
    pub(super) fn set_aside(&self, mut state: MutexGuard<'_, Group>, broken: Corruption) {
        if state.summary.corrupt {
            return;
        }
        state.summary.corrupt = true;
        state.version += 1;
        let (free, version) = (state.descriptor.free_clusters, state.version);
        drop(state);
        if let Place::Group(group) = broken.place {
            self.reorder(group, version, Orders::default());
        }
        self.ledger.set_aside(ClusterCount(free.into()));
        self.findings.lock().push(broken);
    }

    /// Tells the ledger and the flex counts that a group has another number of free clusters than its descriptor said.
    fn correct_count(&self, group: BlockGroup, stated: u32, counted: u32) {
        if stated == counted {
            return;
        }
        let difference = i64::from(counted) - i64::from(stated);
        self.counts.lock().add_clusters(self.layout.flex_of(group), difference);
        let size = ClusterCount(difference.unsigned_abs());
        if difference < 0 {
            self.ledger.set_aside(size);
        } else {
            self.ledger.freed(size);
            self.ledger.committed(size);
        }
    }

    fn reorder(&self, group: BlockGroup, version: u64, orders: Orders) {
        if self.tunables.optimize_scan {
            self.sets.lock().update(group, version, orders);
        }
    }

    /// The descriptor block of `group`, with the right to change it.
    pub(super) fn descriptors(
        &self,
        handle: &mut Handle<'_>,
        group: BlockGroup,
    ) -> Result<MetadataBlock, Error> {
        let (index, _) = self.geometry.descriptor_place(group);
        let place = self.geometry.descriptor_block(index);
        let block = self.transactions.read(place, BlockKind::Descriptors(index))?;
        handle.modify(&block, |_| ())?;
        Ok(block)
    }

    /// Changes the group's descriptor, in memory and in its block, which [`Self::descriptors`] gave.
    pub(super) fn change_descriptor(
        &self,
        handle: &mut Handle<'_>,
        block: &MetadataBlock,
        group: BlockGroup,
        state: &mut Group,
        change: impl FnOnce(&mut GroupDescriptor),
    ) -> Result<(), Error> {
        let (_, offset) = self.geometry.descriptor_place(group);
        state.descriptor = handle.modify(block, |bytes| {
            let too_short = Place::Group(group).breaks(Rule::TooShort);
            let bytes = bytes.get_mut(offset..).ok_or(too_short)?;
            // The sums of bitmaps are newer in the bytes than in memory.
            let mut descriptor = GroupDescriptor::decode(bytes, &self.geometry, group)?;
            change(&mut descriptor);
            descriptor.encode(bytes, &self.geometry, group);
            Ok::<_, Corruption>(descriptor)
        })??;
        Ok(())
    }

    /// The bitmap of a group that had none yet, filled with what must be in it; the descriptor has to follow at once.
    pub(super) fn create_bitmap(
        &self,
        handle: &mut Handle<'_>,
        group: BlockGroup,
        state: &mut Group,
    ) -> Result<MetadataBlock, Error> {
        let block = handle.fresh(state.descriptor.block_bitmap, BlockKind::BlockBitmap(group))?;
        handle.modify(&block, |bits| self.zones.fill_bitmap(&self.layout, group, bits))?;
        state.verified = true;
        Ok(block)
    }

    /// What [`Self::create_bitmap`] means for the descriptor.
    pub(super) fn note_bitmap(&self, descriptor: &mut GroupDescriptor, free: u32) {
        if descriptor.block_bitmap_is_uninitialized(&self.geometry) {
            descriptor.flags.remove(GroupFlags::BLOCK_UNINIT);
            descriptor.free_clusters = free;
        }
    }

    /// Sets (`used`) or clears the run in the group's bitmap and counts it in the descriptor; the buddy stays as it is.
    ///
    /// Dirties two blocks. Whatever fails, either both change or none.
    ///
    /// # Errors
    /// Of reading the blocks, [`Error::TransactionFull`], or [`Error::Corrupt`] if the bitmap said so already; the group is
    /// set aside then.
    /// # Source
    /// Kernel `fs/ext4/mballoc.c`, `ext4_mb_mark_context`.
    pub(super) fn mark(&self, handle: &mut Handle<'_>, run: Run, used: bool) -> Result<(), Error> {
        let group = run.group;
        let descriptors = self.descriptors(handle, group)?;
        loop {
            let descriptor = self.group(group).descriptor;
            let mut block = None;
            if !descriptor.block_bitmap_is_uninitialized(&self.geometry) {
                let read = self
                    .transactions
                    .read(descriptor.block_bitmap, BlockKind::BlockBitmap(group))?;
                handle.modify(&read, |_| ())?;
                block = Some(read);
            }
            let mut state = self.group(group);
            Place::Group(group).require(!state.summary.corrupt, Rule::SetAside)?;
            let Some(buddy) = state.buddy.as_deref() else {
                drop(state);
                self.load_buddy(group)?;
                continue;
            };
            if block.is_none() && !state.descriptor.block_bitmap_is_uninitialized(&self.geometry) {
                continue; // the bitmap came to be meanwhile
            }
            let free = buddy.free() + state.pinned;
            let block = match block {
                Some(block) => block,
                None => self.create_bitmap(handle, group, &mut state)?,
            };
            let (start, end) = (run.start, run.end());
            let zeros = block.with(|bits| bitmap::count_zeros(bits, start..end));
            if zeros != if used { run.len } else { 0 } {
                let broken = Place::Group(group).breaks(if used {
                    Rule::UsedTwice
                } else {
                    Rule::FreedTwice
                });
                self.set_aside(state, broken);
                return Err(broken.into());
            }
            handle.modify(&block, |bits| {
                if used { bitmap::set(bits, start..end) } else { bitmap::clear(bits, start..end) }
            })?;
            self.change_descriptor(handle, &descriptors, group, &mut state, |descriptor| {
                self.note_bitmap(descriptor, free);
                let count = &mut descriptor.free_clusters;
                *count = if used {
                    count.saturating_sub(run.len)
                } else {
                    count.saturating_add(run.len)
                };
            })?;
            state.pinned = if used { state.pinned - run.len } else { state.pinned + run.len };
            drop(state);
            let delta = if used { -i64::from(run.len) } else { i64::from(run.len) };
            self.counts.lock().add_clusters(self.layout.flex_of(group), delta);
            return Ok(());
        }
    }

    /// Drops buddies that can be built again at any time, until `wanted` bytes are free; how many that are.
    pub(crate) fn shrink(&self, wanted: u64) -> u64 {
        let each = 2_u64 << self.layout.block_bits;
        let mut freed = 0;
        for group in &self.groups {
            if freed >= wanted {
                break;
            }
            if let Some(mut state) = group.try_lock().filter(|state| state.pinned == 0)
                && state.buddy.take().is_some()
            {
                state.drops += 1;
                freed += each;
            }
        }
        freed
    }

    /// Bytes of buddies in memory.
    pub(crate) fn buddy_bytes(&self) -> u64 {
        let each = 2_u64 << self.layout.block_bits;
        self.groups.iter().map(|group| if group.lock().buddy.is_some() { each } else { 0 }).sum()
    }

    /// Compares what is known of each group with what its bitmaps say; for tests and the simulator.
    pub(crate) fn check_invariants(&self) -> Result<(), Error> {
        for group in self.geometry.groups() {
            let Some((pinned, buddy, descriptor)) = self.with_buddy(group, |state, buddy| {
                (state.pinned, buddy.clone(), state.descriptor)
            })?
            else {
                continue;
            };
            assert_eq!(descriptor.free_clusters, buddy.free() + pinned, "free clusters of {group}");
            if !descriptor.block_bitmap_is_uninitialized(&self.geometry) {
                let block = self
                    .transactions
                    .read(descriptor.block_bitmap, BlockKind::BlockBitmap(group))?;
                let free = block.with(|bits| bitmap::count_zeros(bits, 0..buddy.clusters()));
                assert_eq!(descriptor.free_clusters, free, "bitmap of {group}");
            }
        }
        Ok(())
    }
}

/// The groups as the search sees them: what it takes is pinned until it is marked in the bitmap.
pub(super) struct Searched<'a> {
    pub(super) allocator: &'a Allocator,
}

impl Groups for Searched<'_> {
    type Error = Error;

    fn summary(&self, group: BlockGroup) -> Summary {
        self.allocator.group(group).summary
    }

    fn with_buddy<R>(
        &self,
        group: BlockGroup,
        look: impl FnOnce(&mut Buddy) -> R,
    ) -> Result<Option<R>, Error> {
        self.allocator.with_buddy(group, |state, buddy| {
            let before = buddy.free();
            let result = look(buddy);
            state.pinned += before - buddy.free();
            result
        })
    }

    fn next_in(&self, set: Set, range: Range<u32>) -> Option<BlockGroup> {
        self.allocator.sets.lock().next_in(set, range)
    }

    fn is_first_read(&self, group: BlockGroup) -> bool {
        let mut state = self.allocator.group(group);
        let is_first = !core::mem::replace(&mut state.read_ahead, true);
        let (summary, bitmap) = (state.summary, state.descriptor.block_bitmap);
        drop(state);
        let needs = is_first && !summary.initialised && summary.free > 0 && !summary.computable;
        needs && !self.allocator.transactions.is_cached(bitmap)
    }
}
