//! Blocks and inodes that are named by their number, for the replay of fast commits: taken if they are free, freed if they
//! are in use.
//!
//! Source: kernel `fs/ext4/mballoc.c`, `ext4_mb_mark_bb`; `fs/ext4/ialloc.c`, `ext4_mark_inode_used`. Differs: the blocks
//! that records name are taken before anything else needs blocks, so the usual search serves where the kernel has a simple
//! one (`ext4_mb_new_blocks_simple`) that looks each block up in the list of those.

use alloc::vec::Vec;

use extant_format::corruption::{Place, Rule};
use extant_format::{ClusterCount, InodeNumber, PhysicalBlock, PhysicalRange, bitmap};

use super::Allocator;
use super::free::Freed;
use super::inode_group::{InodeKind, Parent};
use super::layout::Run;
use crate::Error;
use crate::transaction::{BlockKind, Handle};

impl Allocator {
    /// Takes those clusters that have blocks of `range` and are free; says which blocks these are.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for blocks outside the volume or of its metadata, and in a group that is set aside; of reading.
    pub(crate) fn take_free(
        &self,
        handle: &mut Handle<'_>,
        range: PhysicalRange,
    ) -> Result<Vec<PhysicalRange>, Error> {
        let mut taken = Vec::new();
        for whole in self.runs_in(range)? {
            let mut at = whole.start;
            while at < whole.end() {
                let found = self.with_buddy(whole.group, |state, buddy| {
                    let start = buddy.next_free(at);
                    let len = buddy.next_used(start).min(whole.end()).checked_sub(start)?;
                    let run = Run { start, len, ..whole };
                    (len > 0).then(|| {
                        buddy.mark_used(start, len);
                        state.pinned += len;
                        run
                    })
                })?;
                let found = found.ok_or(Place::Group(whole.group).breaks(Rule::SetAside))?;
                let Some(run) = found else { break };
                self.mark_taken(handle, run, run)?;
                self.ledger.allocated(ClusterCount(run.len.into()));
                taken.extend(self.blocks_of(run));
                at = run.end();
            }
        }
        Ok(taken)
    }

    /// Frees those clusters that have blocks of `range` and are in use.
    ///
    /// # Errors
    /// As [`Self::take_free`].
    pub(crate) fn free_used(
        &self,
        handle: &mut Handle<'_>,
        range: PhysicalRange,
    ) -> Result<(), Error> {
        for whole in self.runs_in(range)? {
            let descriptor = self.group(whole.group).descriptor;
            if descriptor.block_bitmap_is_uninitialized(&self.geometry) {
                continue;
            }
            let kind = BlockKind::BlockBitmap(whole.group);
            let block = self.transactions.read(descriptor.block_bitmap, kind)?;
            let mut at = whole.start;
            while let Some(start) = block.with(|bits| bitmap::next_one(bits, at..whole.end())) {
                let end = block.with(|bits| bitmap::next_zero(bits, start..whole.end()));
                let run = Run { start, len: end.unwrap_or(whole.end()) - start, ..whole };
                self.mark(handle, run, false)?;
                self.ledger.freed(ClusterCount(run.len.into()));
                self.give_back(&[Freed::counted(run)]);
                at = run.end();
            }
        }
        Ok(())
    }

    /// Takes this inode's number, if it is free.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no such inode, or its group is set aside; of reading.
    pub(crate) fn take_inode_number(
        &self,
        handle: &mut Handle<'_>,
        inode: InodeNumber,
        is_directory: bool,
    ) -> Result<(), Error> {
        if self.is_inode_used(inode)? {
            return Ok(());
        }
        let kind = match is_directory {
            true => InodeKind::Directory { name_hash: 0 },
            false => InodeKind::Other,
        };
        let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: false };
        let taken = self.allocate_inode(handle, parent, kind, Some(inode))?;
        Ok(Place::Inode(inode).require(taken == inode, Rule::EntryInode)?)
    }

    /// The clusters that have blocks of `range`, group by group.
    fn runs_in(&self, range: PhysicalRange) -> Result<Vec<Run>, Error> {
        let sound = self.geometry.may_hold_data(range) && !self.zones.overlaps(None, range);
        Place::Block(range.start()).require(sound, Rule::ExtentPlace)?;
        let mut runs = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let place = self.layout.place(at);
            let (group, start) = place.ok_or(Place::Block(at).breaks(Rule::BlockPlace))?;
            let group_end = PhysicalBlock::new(
                self.layout.first_block(group) + u64::from(self.layout.blocks_per_group),
            );
            let last = PhysicalBlock::new(range.end().min(group_end).get() - 1);
            let end = self.layout.place(last).map_or(start, |(_, cluster)| cluster) + 1;
            runs.push(Run { group, start, len: end - start });
            at = group_end;
        }
        Ok(runs)
    }

    fn blocks_of(&self, run: Run) -> Option<PhysicalRange> {
        let start = self.layout.block(run.group, run.start);
        PhysicalRange::new(start, u64::from(run.len) << self.layout.cluster_bits)
    }
}
