//! Names in directories.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::directory::{DirEntries, DirEntry, DirLayout};
use extant_format::htree::{self, Shape};
use extant_format::inline::InlineData;
use extant_format::inode::InodeFlags;
use extant_format::{FileType, InodeNumber, InodeRecord, PhysicalBlock, Place, Rule};

use super::{MapStep, ReadError, Reader};

impl Reader<'_> {
    /// Calls `visit` for each name in a directory, dots among them, until it returns false.
    ///
    /// # Errors
    /// It is no directory, or a block of it makes no sense; names before that have been visited.
    pub fn names(
        &self,
        inode: InodeNumber,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<(), ReadError> {
        let bytes = self.inode(inode)?;
        let record = InodeRecord::decode(&bytes, self.geometry(), inode)?;
        let at = Place::Inode(inode);
        at.require(record.file_type() == Some(FileType::Directory), Rule::NoDots)?;
        let layout = DirLayout::of(self.geometry(), record.flags);
        if record.flags.contains(InodeFlags::INLINE_DATA) {
            let inline = InlineData::of(&bytes, record.extra_isize, at, self.geometry())?;
            let parent = inline.parent(at, self.geometry())?;
            if !dots(Some(inode), Some(parent), visit) {
                return Ok(());
            }
            for entry in inline.entries(layout, at).into_iter().flatten() {
                let entry = entry?;
                if entry.inode.is_some() && !visit(&entry) {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let blocks = record.size.div_ceil(self.geometry().block_size.into());
        let mut block = vec![0; self.geometry().block_len()];
        for (start, len) in self.runs_below(inode, &record, blocks)? {
            for number in start.get()..start.get().saturating_add(len) {
                self.read_blocks(PhysicalBlock::new(number), &mut block)?;
                let at = Place::InodeBlock(inode, PhysicalBlock::new(number));
                if !names_of_block(&block, layout, at, visit)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Where the first `blocks` blocks of a file lie.
    fn runs_below(
        &self,
        inode: InodeNumber,
        record: &InodeRecord,
        blocks: u64,
    ) -> Result<Vec<(PhysicalBlock, u64)>, ReadError> {
        let mut runs = Vec::new();
        self.map(inode, record, &mut |step| {
            if let MapStep::Run(run) = step {
                let first = u64::from(run.blocks.start().get());
                let len = blocks.saturating_sub(first).min(run.blocks.len().into());
                if len > 0 {
                    runs.push((run.start, len));
                }
            }
        })?;
        Ok(runs)
    }
}

/// Calls `visit` for the names of one block until it returns false, which is returned then.
pub(crate) fn names_of_block(
    block: &[u8],
    layout: DirLayout,
    at: Place,
    visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
) -> Result<bool, ReadError> {
    match htree::shape(block, layout) {
        Shape::Node => return Ok(true),
        Shape::Root => {
            let number = |offset| {
                let bytes = block.get(offset..).and_then(<[u8]>::first_chunk)?;
                InodeNumber::new(u32::from_le_bytes(*bytes))
            };
            return Ok(dots(number(0), number(DOT_BYTES), visit));
        }
        Shape::Leaf => {}
    }
    for entry in DirEntries::new(block, layout, at) {
        let entry = entry?;
        if entry.inode.is_some() && !visit(&entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Calls `visit` for the two names of a directory for itself and its parent, as far as it wants.
fn dots(
    own: Option<InodeNumber>,
    parent: Option<InodeNumber>,
    visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
) -> bool {
    let dots: [(&[u8], usize, _); 2] = [(b".", 0, own), (b"..", DOT_BYTES, parent)];
    dots.into_iter().all(|(name, offset, inode)| {
        let file_type = Some(FileType::Directory);
        let dot = DirEntry { offset, len: DOT_BYTES, inode, name, file_type, hash: None };
        inode.is_none() || visit(&dot)
    })
}

/// Bytes of the entry `.` at the start of a directory.
const DOT_BYTES: usize = 12;
