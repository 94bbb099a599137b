//! [`Runs`]: who uses which blocks, in the order of the image.

use alloc::vec::Vec;
use core::ops::Range;

use extant_format::PhysicalRange;

use super::{Kind, Owner, Visitor};

/// Blocks of one owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The first block.
    pub start: u64,
    /// Blocks.
    pub len: u64,
    /// What for.
    pub kind: Kind,
    /// Whose.
    pub owner: Owner,
}

/// Runs of blocks in a window of an image.
#[derive(Clone, Debug)]
pub struct Runs {
    window: Range<u64>,
    runs: Vec<Run>,
}

impl Runs {
    /// Of the blocks in `window` alone.
    pub const fn new(window: Range<u64>) -> Self {
        Self { window, runs: Vec::new() }
    }

    /// All of them by place; those of one owner that follow each other are one.
    pub fn finish(mut self) -> Vec<Run> {
        self.runs.sort_unstable_by_key(|run| (run.start, run.len, run.kind, run.owner));
        self.runs.dedup_by(|next, run| {
            let follows = run.start.saturating_add(run.len) == next.start;
            let same = follows && run.kind == next.kind && run.owner == next.owner;
            if same {
                run.len = run.len.saturating_add(next.len);
            }
            same
        });
        self.runs
    }
}

impl Visitor for Runs {
    fn used(&mut self, owner: Owner, kind: Kind, blocks: PhysicalRange) {
        let start = blocks.start().get().max(self.window.start);
        let end = blocks.end().get().min(self.window.end);
        if start < end {
            self.runs.push(Run { start, len: end - start, kind, owner });
        }
    }
}
