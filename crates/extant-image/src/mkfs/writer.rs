//! Writes a planned file system, in batches, the superblock last.

use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, Request};
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::inode::InodeRecord;
use extant_format::jbd2::RawJournalSuperblock;
use extant_format::{BlockGroup, Geometry, InodeNumber, Superblock};
use zerocopy::IntoBytes;

use super::MkfsError;
use super::contents::Contents;
use super::layout::{JournalPlace, Layout};

pub(super) fn write(
    device: &dyn BlockDevice,
    layout: &Layout,
    mut superblock: Superblock,
) -> Result<Superblock, MkfsError> {
    let contents = Contents::new(layout);
    let geometry = &layout.geometry;
    let mut batch =
        Batch { device, geometry, requests: Vec::new(), pending_bytes: 0, written_bytes: 0 };

    // Until the last step there is no file system here, not even the one from before.
    let head = Superblock::OFFSET_BYTES + 1024;
    batch.zero_bytes(0, head.next_multiple_of(geometry.block_size.into()))?;
    batch.flush()?;
    write_tables(&mut batch, layout)?;
    let table = layout.groups[0].inode_table.get();
    batch.write(table, &contents.inodes())?;
    batch.write(layout.root, &contents.root_directory())?;
    batch.write(layout.lost_and_found.start, &contents.lost_and_found())?;
    for (block, bytes) in contents.resize_blocks() {
        batch.write(block, &bytes)?;
    }
    if let Some((block, bytes)) = contents.journal_node() {
        batch.write(block, &bytes)?;
    }
    if let Some(journal) = &layout.journal {
        write_journal(&mut batch, journal)?;
    }
    write_descriptors(&mut batch, layout)?;

    if let Some(inode) = contents.journal_inode() {
        back_up_journal(&mut superblock, &inode);
    }
    superblock.raw_mut().kbytes_written = (batch.written_bytes / 1024).into();
    for group in geometry.groups().filter(|group| group.get() > 0 && geometry.has_super(*group)) {
        let mut copy = superblock.clone();
        copy.raw_mut().block_group_nr = u16::try_from(group.get()).unwrap_or(u16::MAX).into();
        let at = geometry.first_block_of(group).get() << geometry.block_bits;
        batch.push(Request::write_frame(
            at,
            padded(copy.to_raw().as_bytes(), geometry.block_len()),
        ))?;
    }
    batch.flush()?;
    batch.push(Request::write_frame(
        Superblock::OFFSET_BYTES,
        Frame::copy_from(superblock.to_raw().as_bytes()),
    ))?;
    batch.flush()?;
    Ok(superblock)
}

/// Bitmaps that must be there, and inode tables of zeros.
///
/// With checksums of descriptors a table that is not marked zeroed is cleaned by the kernel later, so a device that would
/// have to send the zeros is spared them.
fn write_tables(batch: &mut Batch<'_>, layout: &Layout) -> Result<(), MkfsError> {
    let geometry = &layout.geometry;
    for (group, descriptor) in geometry.groups().zip(&layout.groups) {
        if !descriptor.block_bitmap_is_uninitialized(geometry) {
            batch.write(descriptor.block_bitmap.get(), &layout.block_bitmap(group))?;
        }
        if !descriptor.inodes_are_uninitialized(geometry) {
            batch.write(descriptor.inode_bitmap.get(), &layout.inode_bitmap(group))?;
        }
        let zeroed = descriptor.flags.contains(extant_format::descriptor::GroupFlags::INODE_ZEROED);
        if zeroed || !geometry.has_gdt_csum() {
            batch.zero(descriptor.inode_table.get(), geometry.itable_blocks().into())?;
        }
    }
    batch.run()
}

/// A clean journal: its superblock, and zeros where old blocks could be mistaken for its own.
fn write_journal(batch: &mut Batch<'_>, journal: &JournalPlace) -> Result<(), MkfsError> {
    for extent in &journal.extents {
        batch.zero(extent.start.get(), extent.blocks.len().into())?;
    }
    batch.run()?;
    let raw =
        RawJournalSuperblock::blank(batch.geometry.block_size, journal.len, batch.geometry.uuid);
    batch.write(journal.extents[0].start.get(), raw.as_bytes())
}

/// The descriptors, and their copies.
fn write_descriptors(batch: &mut Batch<'_>, layout: &Layout) -> Result<(), MkfsError> {
    let geometry = &layout.geometry;
    let mut table = vec![0; usize_from(geometry.desc_blocks) * geometry.block_len()];
    for (group, descriptor) in geometry.groups().zip(&layout.groups) {
        let (block, offset) = geometry.descriptor_place(group);
        let at = usize_from(block) * geometry.block_len() + offset;
        descriptor.encode(&mut table[at..at + usize_from(geometry.desc_size)], geometry, group);
    }
    for group in geometry.groups().filter(|group| geometry.has_super(*group)) {
        let first = match group {
            BlockGroup(0) => geometry.descriptor_block(0),
            _ => geometry
                .descriptor_block_copy(0, group)
                .expect("a group with a superblock has descriptors"),
        };
        batch.write(first.get(), &table)?;
    }
    Ok(())
}

/// Copies the journal's block map and size, for a reader whose inode table is damaged.
fn back_up_journal(superblock: &mut Superblock, inode: &InodeRecord) {
    let raw = superblock.raw_mut();
    raw.journal_inum = InodeNumber::JOURNAL.get().into();
    raw.jnl_backup_type = 1;
    for (to, from) in raw.jnl_blocks.iter_mut().zip(inode.block.as_chunks().0) {
        *to = (*from).into();
    }
    raw.jnl_blocks[15] = extant_format::cast::high_u32(inode.size).into();
    raw.jnl_blocks[16] = low_u32(inode.size).into();
}

/// Requests that wait until there are enough for one call of the device.
struct Batch<'a> {
    device: &'a dyn BlockDevice,
    geometry: &'a Geometry,
    requests: Vec<Request>,
    pending_bytes: u64,
    written_bytes: u64,
}

impl Batch<'_> {
    /// Writes whole blocks from `block` on; the last is filled up with zeros.
    fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), MkfsError> {
        let len = bytes.len().next_multiple_of(self.geometry.block_len());
        self.push(Request::write_frame(block << self.geometry.block_bits, padded(bytes, len)))
    }

    /// Makes `blocks` blocks zero, together with those right before them if these wait to be zeroed too.
    fn zero(&mut self, block: u64, blocks: u64) -> Result<(), MkfsError> {
        self.zero_bytes(block << self.geometry.block_bits, blocks << self.geometry.block_bits)
    }

    fn zero_bytes(&mut self, offset: u64, len: u64) -> Result<(), MkfsError> {
        if let Some(Request {
            offset: start,
            operation: extant_device::Operation::WriteZeroes { len: before },
            ..
        }) = self.requests.last_mut()
            && *start + *before == offset
        {
            *before += len;
            return Ok(());
        }
        self.push(Request::write_zeroes(offset, len))
    }

    fn push(&mut self, request: Request) -> Result<(), MkfsError> {
        if matches!(request.operation, extant_device::Operation::Write { .. }) {
            self.pending_bytes += request.len();
            self.written_bytes += request.len();
        }
        self.requests.push(request);
        if self.pending_bytes >= BATCH_BYTES || u64_from(self.requests.len()) >= BATCH_REQUESTS {
            self.run()?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), MkfsError> {
        self.pending_bytes = 0;
        let mut requests = core::mem::take(&mut self.requests);
        Ok(self.device.run_all(&mut requests)?)
    }

    fn flush(&mut self) -> Result<(), MkfsError> {
        self.run()?;
        Ok(self.device.flush()?)
    }
}

fn padded(bytes: &[u8], len: usize) -> Frame {
    let mut frame = Frame::zeroed(len);
    frame.make_mut()[..bytes.len()].copy_from_slice(bytes);
    frame
}

const BATCH_BYTES: u64 = 4 << 20;
const BATCH_REQUESTS: u64 = 256;
