//! Reading through the journal: where the log has a newer version of a block than its home.

use alloc::collections::BTreeMap;

use extant_format::{PhysicalBlock, jbd2};

use crate::LogBlock;

/// For each block with a valid version in the log, where the newest is; at most as many as the log has blocks.
#[derive(Clone, Debug, Default)]
pub struct RecoveryMap(pub(super) BTreeMap<PhysicalBlock, Replacement>);

impl RecoveryMap {
    /// Where to read `block` instead of at its home.
    pub fn get(&self, block: PhysicalBlock) -> Option<Replacement> {
        self.0.get(&block).copied()
    }

    /// How many blocks are replaced.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the device may be read as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All replaced blocks, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (PhysicalBlock, Replacement)> {
        self.0.iter().map(|(block, replacement)| (*block, *replacement))
    }
}

/// A newer version of a block, in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replacement {
    /// The log block to read.
    pub at: LogBlock,
    pub(super) escaped: bool,
}

impl Replacement {
    /// Turns the bytes of the log block into those of the block.
    pub fn decode(self, bytes: &mut [u8]) {
        if self.escaped {
            jbd2::unescape(bytes);
        }
    }
}
