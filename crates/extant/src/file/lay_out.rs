//! Places for bytes that never come into memory: whoever fills an image brings them to the device by himself.
//!
//! Source: none in the kernel, where only `fallocate` gives places ahead, which read as zeros.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::extent::ExtentState;
use extant_format::{FileType, InodeFlags, LogicalBlock, LogicalRange};

use super::Files;
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::mapping::{MapFlags, Mapped};
use crate::report::{FileExtent, FileExtentState};
use crate::trace::HandleType;
use crate::transaction::Credits;

impl Files {
    /// Gives an empty file its size, and places for `parts` of its bytes, in one handle.
    ///
    /// # Errors
    /// [`Error::NotSupported`] on a journaled volume, where a crash could show what lay there before; [`Error::Invalid`],
    /// [`Error::TooLarge`], [`Error::NoSpace`].
    /// # Locks
    /// Takes `content` for writing.
    pub(crate) fn lay_out(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        parts: &[Range<u64>],
        size: u64,
    ) -> Result<Vec<FileExtent>, Error> {
        self.transactions.check_writable()?;
        if self.transactions.is_journaled() {
            return Err(Error::NotSupported("laying out files beside a journal"));
        }
        let _content = inode.content.write();
        let is_empty = inode.size() == 0 && inode.core.lock().blocks == 0;
        if inode.file_type() != FileType::Regular || !is_empty {
            return Err(Error::Invalid("only an empty file can be laid out"));
        }
        if !inode.flags().contains(InodeFlags::EXTENTS) || inode.is_inline() {
            return Err(Error::NotSupported("laying out a file without extents"));
        }
        if size > self.max_bytes(inode) {
            return Err(Error::TooLarge);
        }
        let blocks = self.blocks_of(parts, size)?;
        let most = blocks.iter().map(|range| range.len()).max().unwrap_or(1);
        let credits = Credits::blocks(self.mapper.credits(inode, most), self.geometry());
        let mut handle = self
            .transactions
            .begin(credits.of(HandleType::MapBlocks, inode.number()).by(caller))?;
        let mut places: Vec<FileExtent> = Vec::with_capacity(blocks.len());
        for range in blocks {
            let mut rest = Some(range);
            while let Some(range) = rest {
                let len = range.len().min(ExtentState::Written.max_len());
                let piece = LogicalRange::new(range.start().get(), len).unwrap_or(range);
                let flags = MapFlags::CREATE | MapFlags::NO_NORMALIZE;
                let mapped = self.mapper.map(&mut handle, inode, piece, flags)?;
                rest = LogicalBlock::new(mapped.blocks.end())
                    .and_then(|next| LogicalRange::between(next, range.end()));
                add(&mut places, &mapped)?;
            }
        }
        self.extend_to(inode, size);
        self.store_changed(handle, inode)?;
        Ok(places)
    }

    /// The blocks of each part; they have to rise, and to lie in the file.
    fn blocks_of(&self, parts: &[Range<u64>], size: u64) -> Result<Vec<LogicalRange>, Error> {
        let disorder = Error::Invalid("parts of a file that do not rise");
        let bits = self.geometry().block_bits;
        let mut end = 0;
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            let start = part.start >> bits;
            if part.is_empty() || start < end || part.end > size {
                return Err(disorder);
            }
            end = part.end.div_ceil(1 << bits);
            let number = |n: u64| u32::try_from(n).map_err(|_| Error::TooLarge);
            let first = LogicalBlock::new(number(start)?).ok_or(Error::TooLarge)?;
            blocks.push(LogicalRange::between(first, number(end)?).ok_or(Error::TooLarge)?);
        }
        Ok(blocks)
    }
}

/// Adds a run to those before, as a part of the last if it goes on from that.
fn add(places: &mut Vec<FileExtent>, mapped: &Mapped) -> Result<(), Error> {
    let place = mapped.state.place().ok_or(Error::Invalid("mapping gave no place"))?.get();
    let (logical, len) = (mapped.blocks.start().get(), mapped.blocks.len());
    if let Some(last) = places.last_mut()
        && last.logical.checked_add(last.len) == Some(logical)
        && last.physical.and_then(|start| start.checked_add(last.len.into())) == Some(place)
        && let Some(sum) = last.len.checked_add(len)
    {
        last.len = sum;
        return Ok(());
    }
    let (physical, state) = (Some(place), FileExtentState::Written);
    places.push(FileExtent { logical, physical, len, state, last: false });
    Ok(())
}
