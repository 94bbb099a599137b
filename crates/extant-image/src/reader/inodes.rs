//! Inodes in use, group by group, in pieces of their tables.

use alloc::vec;

use extant_format::cast::usize_from;
use extant_format::{BlockGroup, GroupDescriptor, InodeNumber, PhysicalBlock, bitmap};

use super::{ReadError, Reader};

impl Reader<'_> {
    /// Calls `visit` with the bytes of each inode of a group that is in use; parts of the table with none are not read.
    ///
    /// # Errors
    /// The first piece that cannot be read.
    pub fn inodes_in(
        &self,
        group: BlockGroup,
        descriptor: &GroupDescriptor,
        visit: &mut dyn FnMut(InodeNumber, &[u8]),
    ) -> Result<(), ReadError> {
        let geometry = *self.geometry();
        if descriptor.inodes_are_uninitialized(&geometry) {
            return Ok(());
        }
        let unused = if geometry.has_gdt_csum() { descriptor.itable_unused } else { 0 };
        let count = geometry.inodes_per_group.saturating_sub(unused);
        let bits = self.block(descriptor.inode_bitmap)?;
        let in_piece =
            geometry.inodes_per_block().saturating_mul(PIECE_BYTES >> geometry.block_bits);
        let inode_len = usize_from(geometry.inode_size);
        let mut bytes = vec![];
        let mut first = 0;
        while let Some(used) = bitmap::next_one(&bits, first..count) {
            // From the block that has the next inode in use on.
            first = used - used % geometry.inodes_per_block();
            let end = first.saturating_add(in_piece).min(count);
            let blocks = (end - first).div_ceil(geometry.inodes_per_block());
            bytes.resize(usize_from(blocks).saturating_mul(geometry.block_len()), 0);
            let (at, _) = geometry.inode_location(descriptor.inode_table, first);
            self.read_blocks(PhysicalBlock::new(at.get()), &mut bytes)?;
            for (index, record) in (first..end).zip(bytes.chunks_exact(inode_len)) {
                if let (true, Some(inode)) =
                    (bitmap::test(&bits, index), geometry.inode_at(group, index))
                {
                    visit(inode, record);
                }
            }
            first = end;
        }
        Ok(())
    }
}

/// Bytes of an inode table that are read at once.
const PIECE_BYTES: u32 = 128 << 10;
