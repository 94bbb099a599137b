//! Block maps without extents: through which pointers a file's block is found.
//!
//! Pointers are 32-bit block numbers, 0 for a hole; the blocks that hold them have no checksum.
//!
//! Source: kernel `fs/ext4/indirect.c`, `ext4_block_to_path`.

use crate::bytes::{le32, put};
use crate::cast::{self, usize_from};
use crate::geometry::Geometry;
use crate::numbers::{LogicalBlock, PhysicalBlock};

/// The pointers from an inode to one block of its file, outermost first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndirectPath {
    offsets: [u32; 4],
    len: usize,
    /// Blocks from this one to the last of the same innermost array of pointers, both counted.
    pub run: u32,
}

impl IndirectPath {
    /// The path to `block`, or `None` past what three levels reach.
    pub fn to(block: LogicalBlock, geometry: &Geometry) -> Option<Self> {
        let per_block = geometry.block_size >> 2;
        let bits = geometry.block_bits.saturating_sub(2);
        let Some(mut rest) = block.get().checked_sub(DIRECT) else {
            let offsets = [block.get(), 0, 0, 0];
            return Some(Self { offsets, len: 1, run: DIRECT.checked_sub(block.get())? });
        };
        let within = |n: u32, level: u32| {
            (n >> bits.saturating_mul(level).min(31)) & per_block.saturating_sub(1)
        };
        for (slot, level) in (DIRECT..).zip(1..=3_u32) {
            let reach = 1_u64.checked_shl(bits.saturating_mul(level))?;
            if u64::from(rest) < reach {
                let mut offsets = [slot, 0, 0, 0];
                for (offset, below) in offsets.iter_mut().skip(1).zip((0..level).rev()) {
                    *offset = within(rest, below);
                }
                let run = per_block.checked_sub(within(rest, 0))?;
                return Some(Self { offsets, len: usize_from(level).saturating_add(1), run });
            }
            rest = rest.checked_sub(u32::try_from(reach).ok()?)?;
        }
        None
    }

    /// Places in the arrays of pointers: first in the inode's, then in one block after another; one to four.
    pub fn offsets(&self) -> &[u32] {
        self.offsets.get(..self.len).unwrap_or(&self.offsets)
    }
}

/// The pointer at `offset` of an inode's block area or of an indirect block; `None` if it is a hole or not there.
pub fn pointer(bytes: &[u8], offset: u32) -> Option<PhysicalBlock> {
    let block = le32(bytes, usize_from(offset).checked_mul(4)?)?;
    (block != 0).then(|| PhysicalBlock::new(block.into()))
}

/// Sets the pointer at `offset`; `false`, and nothing changed, if the block needs more than 32 bits.
#[must_use]
pub fn set_pointer(bytes: &mut [u8], offset: u32, block: Option<PhysicalBlock>) -> bool {
    let number = block.map_or(0, PhysicalBlock::get);
    cast::high_u32(number) == 0
        && put(bytes, usize_from(offset).saturating_mul(4), &cast::low_u32(number).to_le_bytes())
            .is_some()
}

/// Pointers to blocks of data in the inode itself; three to indirect blocks follow.
pub const DIRECT: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(block_bits: u32, block: u32) -> Option<(Vec<u32>, u32)> {
        let geometry = crate::geometry::tests::with_block_bits(block_bits);
        let path = IndirectPath::to(LogicalBlock::new(block).unwrap(), &geometry)?;
        Some((path.offsets().to_vec(), path.run))
    }

    #[test]
    fn paths_at_the_edges_of_levels() {
        assert_eq!(path(10, 0), Some((vec![0], 12)));
        assert_eq!(path(10, 11), Some((vec![11], 1)));
        assert_eq!(path(10, 12), Some((vec![12, 0], 256)));
        assert_eq!(path(10, 267), Some((vec![12, 255], 1)));
        assert_eq!(path(10, 268), Some((vec![13, 0, 0], 256)));
        assert_eq!(path(10, 268 + 65535), Some((vec![13, 255, 255], 1)));
        assert_eq!(path(10, 268 + 65536 + 257), Some((vec![14, 0, 1, 1], 255)));
        assert_eq!(path(10, 268 + 65536 + 256 * 256 * 256 - 1), Some((vec![14, 255, 255, 255], 1)));
        assert_eq!(path(10, 268 + 65536 + 256 * 256 * 256), None);
        assert_eq!(path(12, 12 + 1024 + 1024 * 1024), Some((vec![14, 0, 0, 0], 1024)));
        assert_eq!(path(16, LogicalBlock::LAST.get()).map(|(offsets, _)| offsets.len()), Some(4));
    }

    #[test]
    fn every_block_has_its_own_path() {
        let mut paths: Vec<_> = (0..70_000).map(|block| path(10, block).unwrap().0).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 70_000);
    }

    #[test]
    fn a_hole_is_a_zero_pointer() {
        let mut area = [0; 60];
        assert_eq!(pointer(&area, 14), None);
        assert!(set_pointer(&mut area, 14, Some(PhysicalBlock::new(77))));
        assert_eq!(pointer(&area, 14), Some(PhysicalBlock::new(77)));
        assert!(!set_pointer(&mut area, 14, Some(PhysicalBlock::new(1 << 32))));
        assert!(!set_pointer(&mut area, 15, None));
        assert_eq!(pointer(&area, 15), None);
    }
}
