//! Writes a planned file system, in batches, the superblock last.

use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, Operation, Request};
use extant_format::cast::{u64_from, usize_from};
use extant_format::descriptor::GroupFlags;
use extant_format::mmp::RawMmp;
use extant_format::superblock::State;
use extant_format::{BlockGroup, Geometry, InodeNumber, Superblock, inode};
use zerocopy::IntoBytes;

use super::layout::Layout;
use super::{MkfsError, Plan};

/// What is done to a device beside what has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Give all blocks back first.
    pub(super) discard: bool,
    /// Zero inode tables even where that takes time, or never.
    pub(super) zero_tables: Option<bool>,
    /// Nothing has to be zeroed.
    pub(super) is_zeroed: bool,
    /// Superblocks and descriptors alone.
    pub(super) superblocks_only: bool,
}

pub(super) fn write(device: &dyn BlockDevice, plan: &Plan) -> Result<Superblock, MkfsError> {
    let mut layout = plan.layout.clone();
    let mut superblock = plan.superblock.clone();
    let geometry = layout.geometry;
    let mut batch = Batch {
        device,
        geometry: &geometry,
        requests: Vec::new(),
        pending_bytes: 0,
        written_bytes: 0,
    };
    if plan.manner.superblocks_only {
        forget_unused(&mut layout);
        superblock.raw_mut().state = (State::VALID | State::ERRORS).bits().into();
        write_descriptors(&mut batch, &layout)?;
        return write_superblocks(batch, superblock);
    }
    // Until the last step there is no file system here, not even the one from before.
    let head = Superblock::OFFSET_BYTES + 1024;
    batch.zero_bytes(0, head.next_multiple_of(geometry.block_size.into()))?;
    batch.flush()?;
    if plan.manner.discard && device.geometry().discard {
        // A device that does not do it after all is no worse a place.
        let _ = device.run_one(Request::discard(0, geometry.blocks_count << geometry.block_bits));
    }
    batch.zero_end()?;
    mark_tables(&mut layout, plan.manner, device.geometry().fast_zeroes);
    write_tables(&mut batch, &layout, plan.manner)?;
    write_inodes(&mut batch, &layout)?;
    write_files(&mut batch, &layout, plan.manner)?;
    if let Some(block) = layout.mmp {
        let seconds = superblock.raw().mmp_interval.get().max(LEAST_MMP_SECONDS);
        let mut raw = RawMmp::clean(seconds);
        raw.time = u64::from(superblock.raw().mkfs_time.get()).into();
        raw.set_checksum(&geometry);
        batch.write(block, raw.as_bytes())?;
    }
    write_descriptors(&mut batch, &layout)?;
    superblock.raw_mut().kbytes_written = (batch.written_bytes / 1024).into();
    write_superblocks(batch, superblock)
}

/// All inodes may hold something that a check has to look at.
fn forget_unused(layout: &mut Layout) {
    for descriptor in &mut layout.groups {
        descriptor.itable_unused = 0;
        descriptor.flags = GroupFlags::empty();
    }
}

/// Notes which inode tables are zeroed.
///
/// With checksums of descriptors a table that is not marked zeroed is cleaned by the kernel later, so a device that would
/// have to send the zeros is spared them.
fn mark_tables(layout: &mut Layout, manner: Manner, zeroes_are_fast: bool) {
    let zeroed = manner.is_zeroed || manner.zero_tables.unwrap_or(zeroes_are_fast);
    for descriptor in &mut layout.groups {
        descriptor.flags.set(GroupFlags::INODE_ZEROED, zeroed);
    }
}

/// Bitmaps that must be there, and inode tables of zeros.
fn write_tables(batch: &mut Batch<'_>, layout: &Layout, manner: Manner) -> Result<(), MkfsError> {
    let geometry = &layout.geometry;
    for (group, descriptor) in geometry.groups().zip(&layout.groups) {
        if !descriptor.block_bitmap_is_uninitialized(geometry) {
            batch.write(descriptor.block_bitmap.get(), &layout.block_bitmap(group))?;
        }
        if !descriptor.inodes_are_uninitialized(geometry) {
            batch.write(descriptor.inode_bitmap.get(), &layout.inode_bitmap(group))?;
        }
        let is_marked = descriptor.flags.contains(GroupFlags::INODE_ZEROED);
        if !manner.is_zeroed && (is_marked || !geometry.has_gdt_csum()) {
            batch.zero(descriptor.inode_table.get(), geometry.itable_blocks().into())?;
        }
    }
    batch.run()
}

/// The blocks of inode tables that hold inodes in use.
fn write_inodes(batch: &mut Batch<'_>, layout: &Layout) -> Result<(), MkfsError> {
    let geometry = &layout.geometry;
    let inode_len = usize_from(geometry.inode_size);
    let per_group = geometry.inodes_per_group;
    for (group, descriptor) in geometry.groups().zip(&layout.groups) {
        let before = group.get() * per_group;
        let used = layout.last_inode().saturating_sub(before).min(per_group);
        if used == 0 {
            return Ok(());
        }
        let mut table = vec![0; usize_from(used) * inode_len];
        for (number, bytes) in (before + 1..).zip(table.chunks_mut(inode_len)) {
            let Some(number) = InodeNumber::new(number) else { continue };
            let file = layout.files.iter().find(|file| file.number == number);
            if let Some(file) = file {
                file.record.encode(bytes, geometry).map_err(|_| MkfsError::FileTooLarge(number))?;
            }
            if geometry.has_metadata_csum() {
                let seed = inode::inode_seed(geometry.csum_seed, number, 0);
                inode::set_checksum(bytes, seed);
            }
        }
        batch.write(descriptor.inode_table.get(), &table)?;
    }
    Ok(())
}

/// Maps and contents of files.
fn write_files(batch: &mut Batch<'_>, layout: &Layout, manner: Manner) -> Result<(), MkfsError> {
    let has_zeros = |file: &&super::files::PlannedFile| file.zero && !manner.is_zeroed;
    for file in layout.files.iter().filter(has_zeros) {
        for run in &file.map.runs {
            batch.zero(run.start.get(), run.blocks.len().into())?;
        }
    }
    batch.run()?;
    let block_len = layout.geometry.block_len();
    for file in &layout.files {
        for (block, bytes) in &file.map.nodes {
            batch.write(*block, bytes)?;
        }
        let mut rest = &*file.bytes;
        for run in &file.map.runs {
            let len = usize_from(run.blocks.len()).saturating_mul(block_len).min(rest.len());
            let (bytes, after) = rest.split_at(len);
            if !bytes.is_empty() {
                batch.write(run.start.get(), bytes)?;
            }
            rest = after;
        }
    }
    Ok(())
}

/// The descriptors, and their copies.
fn write_descriptors(batch: &mut Batch<'_>, layout: &Layout) -> Result<(), MkfsError> {
    let geometry = &layout.geometry;
    let block_len = geometry.block_len();
    let mut table = vec![0; usize_from(geometry.desc_blocks) * block_len];
    for (group, descriptor) in geometry.groups().zip(&layout.groups) {
        let (block, offset) = geometry.descriptor_place(group);
        let at = usize_from(block) * block_len + offset;
        descriptor.encode(&mut table[at..at + usize_from(geometry.desc_size)], geometry, group);
    }
    let (full, scattered) = table.split_at(usize_from(geometry.full_table_blocks()) * block_len);
    for group in geometry.groups().filter(|group| geometry.has_super(*group)) {
        if !full.is_empty()
            && let Some(first) = geometry.descriptor_block_copy(0, group)
        {
            batch.write(first.get(), full)?;
        }
    }
    let first = geometry.full_table_blocks();
    for (index, block) in (first..).zip(scattered.chunks(block_len)) {
        let start = index * geometry.desc_per_block();
        let meta_group = start..(start + geometry.desc_per_block()).min(geometry.group_count);
        for group in meta_group.map(BlockGroup) {
            if let Some(place) = geometry.descriptor_block_copy(index, group) {
                batch.write(place.get(), block)?;
            }
        }
    }
    Ok(())
}

/// The copies of the superblock, and when all else is there, itself.
fn write_superblocks(
    mut batch: Batch<'_>,
    superblock: Superblock,
) -> Result<Superblock, MkfsError> {
    let geometry = *batch.geometry;
    for group in geometry.groups().filter(|group| group.get() > 0 && geometry.has_super(*group)) {
        let mut copy = superblock.clone();
        copy.raw_mut().block_group_nr = u16::try_from(group.get()).unwrap_or(u16::MAX).into();
        let at = geometry.first_block_of(group).get() << geometry.block_bits;
        let frame = padded(copy.to_raw().as_bytes(), geometry.block_len());
        batch.push(Request::write_frame(at, frame))?;
    }
    batch.flush()?;
    let raw = Frame::copy_from(superblock.to_raw().as_bytes());
    batch.push(Request::write_frame(Superblock::OFFSET_BYTES, raw))?;
    batch.flush()?;
    Ok(superblock)
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

    /// Zeroes the last part of the file system, where a RAID may have left what it is known by.
    fn zero_end(&mut self) -> Result<(), MkfsError> {
        let end = self.geometry.blocks_count << self.geometry.block_bits;
        let start = (end - end % LAST_BYTES).saturating_sub(LAST_BYTES);
        // A small one has its tables there, which are written later anyway.
        if start > LAST_BYTES {
            self.zero_bytes(start, end - start)?;
        }
        self.run()
    }

    fn zero_bytes(&mut self, offset: u64, len: u64) -> Result<(), MkfsError> {
        if let Some(Request {
            offset: start,
            operation: Operation::WriteZeroes { len: before },
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
        if matches!(request.operation, Operation::Write { .. }) {
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
const LAST_BYTES: u64 = 64 << 10;
const LEAST_MMP_SECONDS: u16 = 5;
