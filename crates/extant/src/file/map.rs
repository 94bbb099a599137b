//! Where a file's blocks are: for people who look, and for readers who skip holes.
//!
//! Source: kernel `ext4_iomap_begin_report` (D23.3).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock};

use super::Files;
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::report::{FileExtent, FileExtentState};
use crate::writeback::Purpose;

impl Files {
    /// The first runs of blocks in a range of bytes that are no holes, at most so many, cut at its ends, neighbours joined.
    ///
    /// # Errors
    /// Of reading the block map.
    /// # Locks
    /// Takes `content` for reading: a file whose blocks move shows them before or after.
    /// # Source
    /// Kernel `ext4_iomap_begin_report`, `ext4_inline_data_iomap`. Differs: a file whose contents are moving out of the inode
    /// shows its delayed blocks; the kernel shows the old contents alone, and has no answer for what lies behind them.
    pub(crate) fn extents(
        &self,
        inode: &Arc<Inode>,
        bytes: &Range<u64>,
        most: usize,
    ) -> Result<Vec<FileExtent>, Error> {
        let _content = inode.content.read();
        let mut extents: Vec<FileExtent> = Vec::new();
        let mut rest = self.blocks_touched(bytes);
        if inode.keeps_contents()
            && let Some((at, room)) = self.inodes.place_of_contents(inode)?
        {
            let len = inode.size().min(room);
            let state = FileExtentState::Inline { at, bytes: u32::try_from(len).unwrap_or(0) };
            let extent = FileExtent { logical: 0, physical: None, len: 1, state, last: true };
            extents
                .extend(Some(extent).filter(|_| bytes.start < len && rest.is_some() && most > 0));
            return Ok(extents);
        }
        while let Some(range) = rest {
            let mapped = self.mapper.look_up(inode, range)?;
            rest = LogicalBlock::new(mapped.blocks.end())
                .and_then(|next| LogicalRange::between(next, range.end()));
            let (state, physical) = match mapped.state {
                BlockState::Hole => continue,
                BlockState::Delayed => (FileExtentState::Delayed, None),
                BlockState::Unwritten(at) => (FileExtentState::Unwritten, Some(at.get())),
                BlockState::Written(at) => (FileExtentState::Written, Some(at.get())),
            };
            let (logical, len) = (mapped.blocks.start().get(), mapped.blocks.len());
            let extent = FileExtent { logical, physical, len, state, last: false };
            let is_full = extents.len() >= most;
            match extents.last_mut() {
                Some(last) if joins(last, &extent) => last.len += extent.len,
                _ if is_full => return Ok(extents),
                _ => extents.push(extent),
            }
        }
        if let Some(last) = extents.last_mut() {
            last.last = true;
        }
        Ok(extents)
    }

    /// Where one block of the file is, after all that waits for its place got it (D23.4); `None` for a hole, for what reads
    /// as zeros, and for contents in the inode.
    ///
    /// # Errors
    /// Of writing the file back, which its owner hears of too; of reading the block map.
    /// # Locks
    /// Takes `content` for reading; none may be held of rank 45 or more.
    /// # Source
    /// Kernel `ext4_bmap`.
    pub(crate) fn place_of(
        &self,
        inode: &Arc<Inode>,
        block: LogicalBlock,
    ) -> Result<Option<PhysicalBlock>, Error> {
        let _content = inode.content.read();
        if inode.keeps_contents() {
            return Ok(None);
        }
        if inode.pages.dirty_blocks() > 0 {
            self.writeback.write_inode(inode, 0..u64::MAX, Purpose::Everything)?;
        }
        let mapped = self.mapper.look_up(inode, LogicalRange::single(block))?;
        Ok(match mapped.state {
            BlockState::Written(at) => Some(at),
            BlockState::Unwritten(_) | BlockState::Delayed | BlockState::Hole => None,
        })
    }

    /// The first byte at or after `offset` in data, or else in a hole; the end of file counts as a hole.
    ///
    /// Blocks allocated ahead are data where memory has bytes for them, were they only read.
    ///
    /// # Errors
    /// Of reading the block map.
    /// # Locks
    /// Takes `content` for reading.
    /// # Source
    /// Kernel `iomap_seek_data`, `iomap_seek_hole`.
    pub(crate) fn seek(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: bool,
    ) -> Result<Option<u64>, Error> {
        let _content = inode.content.read();
        let size = inode.size();
        if offset >= size {
            return Ok(None);
        }
        if inode.keeps_contents() {
            return Ok(Some(if data { offset } else { size }));
        }
        let bits = self.geometry().block_bits;
        let mut rest = self.blocks_touched(&(offset..size));
        while let Some(range) = rest {
            let mapped = self.mapper.look_up(inode, range)?;
            let start = offset.max(u64::from(mapped.blocks.start().get()) << bits);
            let end = size.min(u64::from(mapped.blocks.end()) << bits);
            let found = match mapped.state {
                BlockState::Hole => (!data).then_some(start),
                BlockState::Delayed | BlockState::Written(_) => data.then_some(start),
                BlockState::Unwritten(_) => inode.pages.next_valid(start..end, data),
            };
            if found.is_some() {
                return Ok(found);
            }
            rest = LogicalBlock::new(mapped.blocks.end())
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok((!data).then_some(size))
    }

    /// The blocks that a range of bytes touches, as far as a file can have them.
    pub(super) fn blocks_touched(&self, bytes: &Range<u64>) -> Option<LogicalRange> {
        let bits = self.geometry().block_bits;
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let end = bytes.end.div_ceil(u64::from(self.geometry().block_size));
        LogicalRange::between(LogicalBlock::new(number(bytes.start >> bits))?, number(end))
    }
}

fn joins(last: &FileExtent, next: &FileExtent) -> bool {
    let follows = last.physical.map(|at| at + u64::from(last.len)) == next.physical;
    last.state == next.state && last.logical + last.len == next.logical && follows
}
