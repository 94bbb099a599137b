//! Device requests in units of blocks, counted.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use extant_device::{BlockDevice, Frame, FrameSlice, Operation, Request};
use extant_format::cast::{u64_from, usize_from};
use extant_format::{PhysicalBlock, PhysicalRange};

use crate::Error;

/// What has been asked of the device, the journal and the allocator since the mount.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) device_reads: AtomicU64,
    pub(crate) device_read_bytes: AtomicU64,
    pub(crate) device_writes: AtomicU64,
    pub(crate) device_write_bytes: AtomicU64,
    /// Flushes, and writes that had to be durable at once.
    pub(crate) flushes: AtomicU64,
    /// Flushes alone: each covers what was written before it was counted.
    pub(crate) cache_flushes: AtomicU64,
    pub(crate) journal_blocks: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) handles: AtomicU64,
    pub(crate) allocator_calls: AtomicU64,
    pub(crate) allocator_searches: AtomicU64,
}

impl Tally {
    /// Adds `n` to one of the counts.
    pub(crate) fn add(count: &AtomicU64, n: u64) {
        count.fetch_add(n, Ordering::Relaxed);
    }
}

/// A device seen in blocks of the file system.
#[derive(Clone)]
pub(crate) struct BlockIo {
    device: Arc<dyn BlockDevice>,
    block_bits: u32,
    pub(crate) tally: Arc<Tally>,
}

impl BlockIo {
    /// `device` in blocks of `1 << block_bits` bytes.
    pub(crate) fn new(device: Arc<dyn BlockDevice>, block_bits: u32) -> Self {
        Self { device, block_bits, tally: Arc::default() }
    }

    /// The device itself.
    pub(crate) fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Where `block` starts, in bytes. Blocks beyond 2^64 bytes end up where the device refuses them.
    pub(crate) fn offset(&self, block: PhysicalBlock) -> u64 {
        block
            .get()
            .checked_shl(self.block_bits)
            .filter(|at| at >> self.block_bits == block.get())
            .unwrap_or(u64::MAX >> 1)
    }

    /// A request that writes `data` from `block` on.
    pub(crate) fn write_request(&self, block: PhysicalBlock, data: Vec<FrameSlice>) -> Request {
        Request::write(self.offset(block), data)
    }

    /// Runs the batch; every request is tried.
    ///
    /// # Errors
    /// Of the first request that failed; each request has its own result as well.
    pub(crate) fn run(&self, batch: &mut [Request]) -> Result<(), Error> {
        for request in batch.iter() {
            match &request.operation {
                Operation::Read { .. } => {
                    Tally::add(&self.tally.device_reads, 1);
                    Tally::add(&self.tally.device_read_bytes, request.len());
                }
                Operation::Write { fua, .. } => {
                    Tally::add(&self.tally.flushes, u64::from(*fua));
                    Tally::add(&self.tally.device_writes, 1);
                    Tally::add(&self.tally.device_write_bytes, request.len());
                }
                Operation::Flush => {
                    Tally::add(&self.tally.flushes, 1);
                    Tally::add(&self.tally.cache_flushes, 1);
                }
                Operation::Discard { .. } | Operation::WriteZeroes { .. } => {}
            }
        }
        self.device.run(batch);
        batch.iter().try_for_each(|request| request.result).map_err(Error::Device)
    }

    /// Fills `bytes` from byte `skip` of `block` on.
    pub(crate) fn read_into(
        &self,
        block: PhysicalBlock,
        skip: u64,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        Tally::add(&self.tally.device_reads, 1);
        Tally::add(&self.tally.device_read_bytes, u64_from(bytes.len()));
        self.device.read_into(self.offset(block) + skip, bytes).map_err(Error::Device)
    }

    /// One block's bytes.
    pub(crate) fn read_block(&self, block: PhysicalBlock) -> Result<Frame, Error> {
        let mut batch = [Request::read(
            self.offset(block),
            vec![Frame::zeroed(usize_from(1 << self.block_bits))],
        )];
        self.run(&mut batch)?;
        let [request] = batch;
        let mut frames = request.into_frames().map_err(Error::Device)?;
        Ok(frames.remove(0))
    }

    /// Makes data blocks read as zeros, as durable as a write.
    pub(crate) fn zero(&self, blocks: &[PhysicalRange]) -> Result<(), Error> {
        let zeroes = |range: &PhysicalRange| {
            // `offset` refuses what is too far; then so does the length.
            let len = range.len().checked_shl(self.block_bits).unwrap_or(u64::MAX);
            Request::write_zeroes(self.offset(range.start()), len)
        };
        self.run(&mut blocks.iter().map(zeroes).collect::<Vec<_>>())
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.run(&mut [Request::flush()])
    }
}
