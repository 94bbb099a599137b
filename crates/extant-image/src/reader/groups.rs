//! Descriptors of groups, and their block bitmaps.

use alloc::vec::Vec;

use extant_format::cast::usize_from;
use extant_format::{BlockGroup, GroupDescriptor, PhysicalBlock, Place, Rule, bitmap};

use super::{ReadError, Reader};

/// All descriptors in order; what a group says that makes no sense is an error in its place.
pub struct Descriptors<'r, 'a> {
    reader: &'r Reader<'a>,
    next: u32,
    block: Result<Vec<u8>, ReadError>,
}

impl Iterator for Descriptors<'_, '_> {
    type Item = (BlockGroup, Result<GroupDescriptor, ReadError>);

    fn next(&mut self) -> Option<Self::Item> {
        let geometry = self.reader.geometry();
        let group = BlockGroup(self.next);
        if self.next >= geometry.group_count {
            return None;
        }
        self.next = self.next.saturating_add(1);
        let (index, within) = geometry.descriptor_place(group);
        if within == 0 {
            self.block = self.reader.block(geometry.descriptor_block(index));
        }
        let decoded = match &self.block {
            Ok(block) => self.reader.decode_descriptor(group, block, within),
            Err(error) => Err(*error),
        };
        Some((group, decoded))
    }
}

impl<'a> Reader<'a> {
    /// All descriptors in order.
    pub const fn descriptors(&self) -> Descriptors<'_, 'a> {
        Descriptors { reader: self, next: 0, block: Ok(Vec::new()) }
    }

    /// One group's descriptor.
    ///
    /// # Errors
    /// It cannot be read, or points where it may not.
    pub fn descriptor(&self, group: BlockGroup) -> Result<GroupDescriptor, ReadError> {
        let (index, within) = self.geometry().descriptor_place(group);
        let block = self.block(self.geometry().descriptor_block(index))?;
        self.decode_descriptor(group, &block, within)
    }

    fn decode_descriptor(
        &self,
        group: BlockGroup,
        block: &[u8],
        within: usize,
    ) -> Result<GroupDescriptor, ReadError> {
        let geometry = self.geometry();
        let end = within.saturating_add(usize_from(geometry.desc_size));
        let record = block.get(within..end).ok_or(Place::Group(group).breaks(Rule::TooShort))?;
        Ok(GroupDescriptor::decode(record, geometry, group)?)
    }

    /// A group's block bitmap, a bit a cluster: read, or computed where nobody has written it yet.
    ///
    /// # Errors
    /// The device's.
    pub fn block_bitmap(
        &self,
        group: BlockGroup,
        descriptor: &GroupDescriptor,
        bits: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        bits.clear();
        bits.resize(self.geometry().block_len(), 0);
        if descriptor.block_bitmap_is_uninitialized(self.geometry()) {
            self.own_metadata(group, descriptor, |at, blocks| self.mark(group, bits, at, blocks));
            return Ok(());
        }
        self.read_blocks(descriptor.block_bitmap, bits)
    }

    /// What a group has for itself: its copy of superblock and descriptors, bitmaps and inode table; also where these lie in
    /// other groups.
    pub(crate) fn own_metadata(
        &self,
        group: BlockGroup,
        descriptor: &GroupDescriptor,
        mut visit: impl FnMut(PhysicalBlock, u64),
    ) {
        let geometry = self.geometry();
        visit(geometry.first_block_of(group), geometry.base_meta_blocks(group).into());
        visit(descriptor.block_bitmap, 1);
        visit(descriptor.inode_bitmap, 1);
        visit(descriptor.inode_table, geometry.itable_blocks().into());
    }

    /// Sets the bits of blocks that lie in the group.
    fn mark(&self, group: BlockGroup, bits: &mut [u8], start: PhysicalBlock, blocks: u64) {
        let geometry = self.geometry();
        let (first, len) =
            (geometry.first_block_of(group).get(), u64::from(geometry.blocks_in(group)));
        let (from, to) = (start.get().max(first), start.get().saturating_add(blocks));
        let to = to.min(first.saturating_add(len));
        if from < to {
            let bit =
                |block: u64| u32::try_from(block >> geometry.cluster_bits).unwrap_or(u32::MAX);
            let last = to.saturating_sub(first).saturating_sub(1);
            bitmap::set(bits, bit(from - first)..bit(last).saturating_add(1));
        }
    }
}
