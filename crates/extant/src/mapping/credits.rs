//! How many metadata blocks mapping can change.

use super::Mapper;
use crate::inode::Inode;
use crate::transaction::credits;

impl Mapper {
    /// Credits for mapping one run of up to `blocks` blocks of `inode`, its data's bitmaps and the inode included.
    ///
    /// # Source
    /// Kernel `ext4_chunk_trans_blocks`, `ext4_index_trans_blocks`, `ext4_ind_trans_blocks` (D15.1).
    pub(crate) fn credits(&self, inode: &Inode, blocks: u32) -> u32 {
        let geometry = self.geometry();
        if self.has_extents(inode) {
            return credits::one_extent(geometry);
        }
        // The pointer blocks of a contiguous range, one more at its end, and the chain above them.
        let pointers = blocks.div_ceil(geometry.block_size / 4) + 4;
        let groups = (pointers + 1).min(geometry.group_count);
        let descriptors = (pointers + 1).min(geometry.desc_blocks.max(1));
        pointers + groups + descriptors + credits::XATTR
    }
}
