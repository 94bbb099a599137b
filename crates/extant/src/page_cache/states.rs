//! [`BlockStates`]: what is known of each block of a folio, one bit a block and flag.

use core::ops::Range;

use smallvec::{SmallVec, smallvec};

use super::bits::{self, WORD};

bitflags::bitflags! {
    /// What is known of a block of a folio. The numbers are those that the kernel's traces show.
    ///
    /// Source: kernel `include/linux/buffer_head.h`, `enum bh_state_bits`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub(crate) struct BlockFlags: u32 {
        /// Its bytes are valid.
        const UPTODATE = 1 << 0;
        /// Its bytes are newer than the device's.
        const DIRTY = 1 << 1;
        /// It has a place, or the promise of one.
        const MAPPED = 1 << 4;
        /// It got its place or promise for a write whose data has not come yet.
        const NEW = 1 << 5;
        /// Its bytes are being written to the device.
        const WRITEBACK = 1 << 7;
        /// It has a promise only.
        const DELAY = 1 << 8;
        /// Its place is allocated, and reads as zeros.
        const UNWRITTEN = 1 << 11;
    }
}

/// The flags of every block of a folio; words of one flag lie together.
#[derive(Clone, Debug)]
pub(super) struct BlockStates {
    blocks: usize,
    words: SmallVec<[u64; FLAGS.len()]>,
}

/// In the order of their words.
const FLAGS: [BlockFlags; 7] = [
    BlockFlags::UPTODATE,
    BlockFlags::DIRTY,
    BlockFlags::MAPPED,
    BlockFlags::NEW,
    BlockFlags::WRITEBACK,
    BlockFlags::DELAY,
    BlockFlags::UNWRITTEN,
];

impl BlockStates {
    /// No flag of any of `blocks`.
    pub(super) fn new(blocks: usize) -> Self {
        Self { blocks, words: smallvec![0; blocks.div_ceil(WORD) * FLAGS.len()] }
    }

    /// Sets every flag of `flags` for `blocks`.
    pub(super) fn set(&mut self, flags: BlockFlags, blocks: Range<usize>) {
        self.each(flags, |words| bits::set(words, blocks.clone()));
    }

    /// Clears every flag of `flags` for `blocks`.
    pub(super) fn clear(&mut self, flags: BlockFlags, blocks: Range<usize>) {
        self.each(flags, |words| bits::clear(words, blocks.clone()));
    }

    /// Whether any of `blocks` has the one flag `flag`.
    pub(super) fn any(&self, flag: BlockFlags, blocks: Range<usize>) -> bool {
        bits::any(self.words(flag), blocks)
    }

    /// Whether all of `blocks` have the one flag `flag`.
    pub(super) fn all(&self, flag: BlockFlags, blocks: Range<usize>) -> bool {
        bits::all(self.words(flag), blocks)
    }

    /// How many blocks have the one flag `flag`.
    pub(super) fn count(&self, flag: BlockFlags) -> u32 {
        bits::count(self.words(flag), 0..self.blocks)
    }

    /// The flags of one block.
    pub(super) fn of(&self, block: usize) -> BlockFlags {
        FLAGS.into_iter().filter(|&flag| self.any(flag, block..block + 1)).collect()
    }

    /// The first run in `blocks` of blocks that have all of `with` and none of `without`.
    pub(super) fn first_run(
        &self,
        blocks: Range<usize>,
        with: BlockFlags,
        without: BlockFlags,
    ) -> Option<Range<usize>> {
        bits::first_run(blocks, |n| {
            let has = |flags: BlockFlags| flags.iter().map(move |flag| self.words(flag)[n]);
            has(with).fold(u64::MAX, |all, word| all & word)
                & !has(without).fold(0, |any, word| any | word)
        })
    }

    /// Every such run.
    pub(super) fn runs(
        &self,
        blocks: Range<usize>,
        with: BlockFlags,
        without: BlockFlags,
    ) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut rest = blocks;
        core::iter::from_fn(move || {
            let run = self.first_run(rest.clone(), with, without)?;
            rest.start = run.end;
            Some(run)
        })
    }

    /// The same of `blocks` alone.
    pub(super) fn part(&self, blocks: Range<usize>) -> Self {
        let mut part = Self::new(blocks.len());
        for flag in FLAGS {
            for run in self.runs(blocks.clone(), flag, BlockFlags::empty()) {
                part.set(flag, run.start - blocks.start..run.end - blocks.start);
            }
        }
        part
    }

    fn words(&self, flag: BlockFlags) -> &[u64] {
        let each = self.blocks.div_ceil(WORD);
        let place = FLAGS.iter().position(|&known| known == flag).expect("one flag is asked for");
        &self.words[place * each..(place + 1) * each]
    }

    fn each(&mut self, flags: BlockFlags, change: impl Fn(&mut [u64])) {
        let each = self.blocks.div_ceil(WORD);
        let words = self.words.chunks_exact_mut(each).zip(FLAGS);
        words.filter(|(_, flag)| flags.contains(*flag)).for_each(|(words, _)| change(words));
    }
}
