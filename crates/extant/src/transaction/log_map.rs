//! Where the blocks of the log lie on the device that holds it.

use alloc::vec::Vec;

use extant_format::{PhysicalBlock, PhysicalRange};
use extant_journal::LogBlock;

/// The journal inode's block map, or a whole device: a few long runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogMap {
    /// First log block of a run, where it lies, and how many blocks; by rising log block.
    runs: Vec<(u32, PhysicalBlock, u32)>,
}

impl LogMap {
    /// Adds a run behind the last; `false` if it does not follow it.
    pub(crate) fn push(&mut self, at: PhysicalBlock, len: u32) -> bool {
        let start = self.len();
        let fits = start.checked_add(len).is_some();
        if fits {
            self.runs.push((start, at, len));
        }
        fits
    }

    /// How many blocks.
    pub(crate) fn len(&self) -> u32 {
        self.runs.last().map_or(0, |&(start, _, len)| start + len)
    }

    /// The runs of blocks that hold it.
    pub(crate) fn runs(&self) -> impl Iterator<Item = PhysicalRange> {
        self.runs.iter().filter_map(|&(_, at, len)| PhysicalRange::new(at, len.into()))
    }

    /// Where log block `at` lies.
    pub(crate) fn block(&self, at: LogBlock) -> Option<PhysicalBlock> {
        let run = self.runs.partition_point(|&(start, _, _)| start <= at.get()).checked_sub(1)?;
        let (start, block, len) = self.runs[run];
        let offset = at.get() - start;
        (offset < len).then(|| block.checked_add(offset.into())).flatten()
    }
}
