//! Which device blocks records gave to whom, and which they took, in whole clusters: settled once all are applied, since one record may give to
//! a file what a later one takes from another.
//!
//! Source: kernel `ext4_fc_record_regions`, `ext4_fc_set_bitmaps_and_counters`. Differs: only what the records name is looked
//! at, not every block of the files that they touch; two files to which they give the same block are found.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use extant_format::corruption::{Place, Rule};
use extant_format::{InodeNumber, PhysicalBlock, PhysicalRange};

use crate::Error;

/// Blocks by owner; runs never overlap.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, (u64, InodeNumber)>); // from start to end and owner

impl Runs {
    /// Takes everything in `range` out; what it was, with its owners.
    fn cut(&mut self, range: PhysicalRange) -> Vec<(PhysicalRange, InodeNumber)> {
        let (start, end) = (range.start().get(), range.end().get());
        let before = self.0.range(..start).next_back().map(|(&start, &run)| (start, run));
        if let Some((first, (last, owner))) = before.filter(|&(_, (last, _))| last > start) {
            self.0.insert(first, (start, owner));
            self.0.insert(start, (last, owner));
        }
        let inside: Vec<_> = self.0.range(start..end).map(|(&start, &run)| (start, run)).collect();
        let mut cut = Vec::with_capacity(inside.len());
        for (first, (last, owner)) in inside {
            self.0.remove(&first);
            if last > end {
                self.0.insert(end, (last, owner));
            }
            cut.extend(run(first, last.min(end)).map(|run| (run, owner)));
        }
        cut
    }

    /// Lets `owner` have all of `range`; what others had of it.
    fn put(
        &mut self,
        range: PhysicalRange,
        owner: InodeNumber,
    ) -> Vec<(PhysicalRange, InodeNumber)> {
        let mut others = self.cut(range);
        others.retain(|(_, other)| *other != owner);
        self.0.insert(range.start().get(), (range.end().get(), owner));
        others
    }

    fn iter(&self) -> impl Iterator<Item = (PhysicalRange, InodeNumber)> {
        self.0.iter().filter_map(|(&start, &(end, owner))| Some((run(start, end)?, owner)))
    }
}

/// What records did to device blocks.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Given by a record, and not taken since.
    got: Runs,
    /// Given to another while this one still had it.
    contested: Runs,
    /// Taken by a record, or set aside for one, and nobody's since.
    free: Runs,
}

impl Claims {
    /// These blocks were free, and are set aside for a record to come.
    pub(super) fn set_aside(&mut self, inode: InodeNumber, blocks: PhysicalRange) {
        self.free.put(blocks, inode);
    }

    /// The inode has these blocks now.
    pub(super) fn give(&mut self, inode: InodeNumber, blocks: PhysicalRange) {
        self.free.cut(blocks);
        for (contested, other) in self.got.put(blocks, inode) {
            self.contested.put(contested, other);
        }
    }

    /// The inode has these blocks no more.
    pub(super) fn take(&mut self, inode: InodeNumber, blocks: PhysicalRange) {
        for (range, other) in self.contested.cut(blocks) {
            if other != inode {
                self.contested.put(range, other);
            }
        }
        self.free.put(blocks, inode);
        for (range, other) in self.got.cut(blocks) {
            if other != inode {
                self.got.put(range, other);
                self.free.cut(range);
            }
        }
    }

    /// The blocks that are nobody's in the end.
    ///
    /// # Errors
    /// Two files have the same block.
    pub(super) fn settle(&self) -> Result<impl Iterator<Item = PhysicalRange>, Error> {
        if let Some((range, inode)) = self.contested.iter().next() {
            return Err(Place::InodeBlock(inode, range.start()).breaks(Rule::UsedTwice).into());
        }
        Ok(self.free.iter().map(|(range, _)| range))
    }
}

fn run(start: u64, end: u64) -> Option<PhysicalRange> {
    PhysicalRange::new(PhysicalBlock::new(start), end.checked_sub(start)?)
}
