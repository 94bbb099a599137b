//! Where a file's blocks are: for people who look, and for readers who skip holes.
//!
//! Source: kernel `ext4_iomap_begin_report` (D23.3).

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::{InodeFlags, LogicalBlock, LogicalRange};

use super::Files;
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::report::{FileExtent, FileExtentState};

impl Files {
    /// The runs of blocks that are no holes, neighbours joined.
    ///
    /// # Errors
    /// Of reading the block map.
    pub(crate) fn extents(&self, inode: &Arc<Inode>) -> Result<Vec<FileExtent>, Error> {
        let mut extents: Vec<FileExtent> = Vec::new();
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(extents);
        }
        let mut rest = Some(LogicalRange::ALL);
        while let Some(range) = rest {
            let mapped = self.mapper.look_up(inode, range)?;
            rest = LogicalBlock::new(mapped.blocks.end()).map(LogicalRange::from_block_on);
            let (state, physical) = match mapped.state {
                BlockState::Hole => continue,
                BlockState::Delayed => (FileExtentState::Delayed, None),
                BlockState::Unwritten(at) => (FileExtentState::Unwritten, Some(at.get())),
                BlockState::Written(at) => (FileExtentState::Written, Some(at.get())),
            };
            let extent = FileExtent {
                logical: mapped.blocks.start().get(),
                physical,
                len: mapped.blocks.len(),
                state,
            };
            match extents.last_mut() {
                Some(last) if joins(last, &extent) => last.len += extent.len,
                _ => extents.push(extent),
            }
        }
        Ok(extents)
    }

    /// The first byte at or after `offset` in data, or else in a hole; the end of file counts as a hole.
    ///
    /// # Errors
    /// Of reading the block map.
    pub(crate) fn seek(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: bool,
    ) -> Result<Option<u64>, Error> {
        let size = inode.size();
        if offset >= size {
            return Ok(None);
        }
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(Some(if data { offset } else { size }));
        }
        let bits = self.geometry().block_bits;
        let mut at = offset;
        while at < size {
            let start = u32::try_from(at >> bits)
                .ok()
                .and_then(LogicalBlock::new)
                .ok_or(Error::TooLarge)?;
            let mapped = self.mapper.look_up(inode, LogicalRange::from_block_on(start))?;
            let end = u64::from(mapped.blocks.end()) << bits;
            let is_data = match mapped.state {
                BlockState::Hole => false,
                BlockState::Delayed | BlockState::Written(_) => true,
                // Preallocated blocks hold data only as far as memory has some for them.
                BlockState::Unwritten(_) => inode.pages.needs_writeback(&(at..end.min(size))),
            };
            if is_data == data {
                return Ok(Some(at));
            }
            at = end;
        }
        Ok((!data).then_some(size))
    }
}

fn joins(last: &FileExtent, next: &FileExtent) -> bool {
    let follows = last.physical.map(|at| at + u64::from(last.len)) == next.physical;
    last.state == next.state && last.logical + last.len == next.logical && follows
}
