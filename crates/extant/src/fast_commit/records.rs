//! Records into blocks, as many as there may be.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::TransactionId;
use extant_format::cast::usize_from;
use extant_format::fast_commit::{Record, Writer};

use crate::transaction::FastCommitSpace;

/// The blocks of one fast commit.
#[derive(Debug)]
pub(super) struct Blocks {
    writer: Writer,
    tid: TransactionId,
    block_len: usize,
    most: usize,
    blocks: Vec<Vec<u8>>,
    /// There is more than a head.
    tells: bool,
}

impl Blocks {
    /// Of a fast commit that has this `space`; the first of a transaction begins with a head.
    pub(super) fn new(block_len: usize, space: FastCommitSpace) -> Self {
        let mut blocks = Self {
            writer: Writer::new(),
            tid: space.tid,
            block_len,
            most: usize_from(space.blocks),
            blocks: Vec::new(),
            tells: false,
        };
        if space.is_first {
            // Whether there is room is asked again by each that follows, the seal at the latest.
            let _ = blocks.push(&Record::Head(0, space.tid));
            blocks.tells = false;
        }
        blocks
    }

    /// Adds a record; `false` if there is no room for it.
    #[must_use]
    pub(super) fn push(&mut self, record: &Record<'_>) -> bool {
        if self.blocks.is_empty() && !self.grow() {
            return false;
        }
        self.tells = true;
        loop {
            let Some(block) = self.blocks.last_mut() else { return false };
            if self.writer.push(block, record) {
                return true;
            }
            if !self.grow() {
                return false;
            }
        }
    }

    /// Ends the commit: its blocks, none if it tells of nothing; `None` if there is no room for the end.
    pub(super) fn seal(mut self) -> Option<Vec<Vec<u8>>> {
        if !self.tells {
            return Some(Vec::new());
        }
        loop {
            let block = self.blocks.last_mut()?;
            if self.writer.seal(block, self.tid) {
                return Some(self.blocks);
            }
            if !self.grow() {
                return None;
            }
        }
    }

    /// One more block, if there may be one.
    fn grow(&mut self) -> bool {
        let may = self.blocks.len() < self.most;
        if may {
            self.blocks.push(vec![0; self.block_len]);
        }
        may
    }
}
