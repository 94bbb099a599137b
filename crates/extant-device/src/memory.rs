//! [`MemoryDevice`]: a sparse device in memory, with snapshots that share.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use crate::cast::{index, u64_from};
use crate::device::{BlockDevice, BlockDeviceExt, DeviceGeometry};
use crate::frame::Frame;
use crate::request::{Operation, Request};
use crate::sync::RwLock;

/// Bytes of a chunk: what is allocated, shared and copied at once.
const CHUNK_BYTES: usize = 64 << 10;
const SHARDS: usize = 16;
const SECTOR_BYTES: u32 = 512;

/// Chunks by number; one that is absent reads as zeros.
type Chunks = BTreeMap<u64, Frame>;

/// A device in memory that takes space only for what was written.
///
/// A [`snapshot`](Self::snapshot) shares every chunk; the first change on either side copies that chunk.
#[derive(Debug)]
pub struct MemoryDevice {
    geometry: DeviceGeometry,
    shards: [RwLock<Chunks>; SHARDS], // chunk n is in shard n % SHARDS
}

impl MemoryDevice {
    /// A device of `len_bytes` zeros, with sectors of 512 bytes.
    pub fn new(len_bytes: u64) -> Self {
        let geometry = DeviceGeometry {
            len_bytes,
            sector_bytes: SECTOR_BYTES,
            read_only: false,
            discard: true,
            fast_zeroes: true,
        };
        Self { geometry, shards: Default::default() }
    }

    /// A device that holds a copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let device = Self::new(u64_from(bytes.len()));
        for (number, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            if chunk.iter().any(|byte| *byte != 0) {
                device.store(number, 0..chunk.len(), chunk);
            }
        }
        device
    }

    /// The same device with sectors of `sector_bytes`, a power of two from 512 to 64 KiB.
    #[must_use]
    pub fn with_sector_bytes(mut self, sector_bytes: u32) -> Self {
        assert!(sector_bytes.is_power_of_two() && (512..=65536).contains(&sector_bytes));
        self.geometry.sector_bytes = sector_bytes;
        self
    }

    /// The same device, refusing whatever would change it if `read_only`.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.geometry.read_only = read_only;
        self
    }

    /// Gives the device another length; what is added reads as zeros.
    pub fn set_len(&mut self, len_bytes: u64) {
        if len_bytes < self.geometry.len_bytes {
            self.clear(len_bytes, self.geometry.len_bytes - len_bytes);
        }
        self.geometry.len_bytes = len_bytes;
    }

    /// The device as it is now, as one of its own: cheap, since the bytes are shared until changed.
    pub fn snapshot(&self) -> Self {
        let guards: Vec<_> = self.shards.iter().map(RwLock::read).collect();
        let copy = Self { geometry: self.geometry, shards: Default::default() };
        for (guard, shard) in guards.iter().zip(&copy.shards) {
            shard.write().clone_from(guard);
        }
        copy
    }

    /// All bytes.
    ///
    /// # Panics
    /// If memory has no room for them.
    pub fn to_vec(&self) -> Vec<u8> {
        let all = self.read_vec(0, index(self.geometry.len_bytes));
        all.expect("the device's own length is in range")
    }

    /// How many bytes of memory the chunks take; shared ones count in full.
    pub fn allocated_bytes(&self) -> u64 {
        let chunks: usize = self.shards.iter().map(|shard| shard.read().len()).sum();
        u64_from(chunks) * u64_from(CHUNK_BYTES)
    }

    fn shard(&self, number: u64) -> &RwLock<Chunks> {
        &self.shards[index(number % u64_from(SHARDS))]
    }

    fn load(&self, mut offset: u64, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (number, range) = next_piece(offset, u64_from(bytes.len()));
            let (piece, rest) = bytes.split_at_mut(range.len());
            offset += u64_from(piece.len());
            bytes = rest;
            match self.shard(number).read().get(&number) {
                Some(chunk) => piece.copy_from_slice(&chunk.as_slice()[range]),
                None => piece.fill(0),
            }
        }
    }

    fn save(&self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, range) = next_piece(offset, u64_from(bytes.len()));
            let (piece, rest) = bytes.split_at(range.len());
            offset += u64_from(piece.len());
            bytes = rest;
            self.store(number, range, piece);
        }
    }

    fn store(&self, number: u64, range: Range<usize>, bytes: &[u8]) {
        let mut chunks = self.shard(number).write();
        match chunks.get_mut(&number) {
            // A shared chunk that is overwritten whole need not be copied first.
            Some(chunk) if !(chunk.is_shared() && bytes.len() == CHUNK_BYTES) => {
                chunk.make_mut()[range].copy_from_slice(bytes);
            }
            _ if bytes.len() == CHUNK_BYTES => {
                chunks.insert(number, Frame::copy_from(bytes));
            }
            _ => {
                let mut chunk = Frame::zeroed(CHUNK_BYTES);
                chunk.make_mut()[range].copy_from_slice(bytes);
                chunks.insert(number, chunk);
            }
        }
    }

    /// Makes `len` bytes at `offset` read as zeros; visits chunks that exist, however long the range.
    fn clear(&self, offset: u64, len: u64) {
        let (Some(last), chunk_bytes) = ((offset + len).checked_sub(1), u64_from(CHUNK_BYTES))
        else {
            return;
        };
        for shard in &self.shards {
            let mut chunks = shard.write();
            let numbers = offset / chunk_bytes..=last / chunk_bytes;
            let touched: Vec<u64> = chunks.range(numbers).map(|(number, _)| *number).collect();
            for number in touched {
                let start = number * chunk_bytes;
                let from = index(offset.saturating_sub(start));
                let to = index((last - start).min(chunk_bytes - 1)) + 1;
                if (from, to) == (0, CHUNK_BYTES) {
                    chunks.remove(&number);
                } else if let Some(chunk) = chunks.get_mut(&number) {
                    chunk.make_mut()[from..to].fill(0);
                }
            }
        }
    }
}

impl Clone for MemoryDevice {
    fn clone(&self) -> Self {
        self.snapshot()
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> DeviceGeometry {
        self.geometry
    }

    fn run(&self, batch: &mut [Request]) {
        for request in batch {
            request.result = request.check(&self.geometry);
            if request.result.is_err() {
                continue;
            }
            let mut offset = request.offset;
            match &mut request.operation {
                Operation::Read { into } => {
                    for frame in into {
                        self.load(offset, frame.make_mut());
                        offset += u64_from(frame.len());
                    }
                }
                Operation::Write { data, .. } => {
                    for slice in data {
                        self.save(offset, slice.as_slice());
                        offset += u64_from(slice.len());
                    }
                }
                Operation::Flush => {}
                Operation::Discard { len } | Operation::WriteZeroes { len } => {
                    self.clear(offset, *len)
                }
            }
        }
    }
}

/// The chunk that `offset` is in, and the part of it that `len` bytes from there take.
fn next_piece(offset: u64, len: u64) -> (u64, Range<usize>) {
    let chunk_bytes = u64_from(CHUNK_BYTES);
    let start = offset % chunk_bytes;
    let end = start.saturating_add(len).min(chunk_bytes);
    (offset / chunk_bytes, index(start)..index(end))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::error::DeviceError;
    use crate::request::OperationKind;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_written_is_read_across_chunks() {
        let device = MemoryDevice::new(MIB);
        let bytes: Vec<u8> =
            (0..200_704_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let frame = Frame::copy_from(&bytes);
        let parts =
            vec![frame.slice(0..1000), frame.slice(1000..70_000), frame.slice(70_000..200_704)];
        device.run_one(Request::write(60 << 10, parts)).unwrap();
        let frames = vec![Frame::zeroed(4096), Frame::zeroed(200_704)];
        let mut read = [Request::read((60 << 10) - 4096, frames)];
        device.run_all(&mut read).unwrap();
        let [read] = read;
        let frames = read.into_frames().unwrap();
        assert_eq!((frames[0].as_slice(), frames[1].as_slice()), (&[0; 4096][..], &bytes[..]));
    }

    #[test]
    fn memory_is_taken_only_for_what_was_written() {
        let device = MemoryDevice::new(16 << 40);
        device.write_bytes(8 << 40, &[1; 512]).unwrap();
        assert_eq!(device.allocated_bytes(), 64 << 10);
        device.run_one(Request::write_zeroes(0, 16 << 40)).unwrap();
        assert_eq!(device.allocated_bytes(), 0);
    }

    #[test]
    fn zeroes_and_discard_touch_exactly_their_range() {
        for request in [Request::discard(512, 131_072), Request::write_zeroes(512, 131_072)] {
            let device = MemoryDevice::from_bytes(&vec![9; 256 << 10]);
            device.run_one(request).unwrap();
            let bytes = device.to_vec();
            assert!(bytes[..512].iter().chain(&bytes[512 + 131_072..]).all(|byte| *byte == 9));
            assert!(bytes[512..512 + 131_072].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_snapshot_shares_until_either_side_changes() {
        let device = MemoryDevice::from_bytes(&[1; 1024]);
        let snapshot = device.snapshot();
        device.write_bytes(0, &[2; 512]).unwrap();
        snapshot.write_bytes(512, &[3; 512]).unwrap();
        assert_eq!(device.to_vec(), [[2; 512], [1; 512]].concat());
        assert_eq!(snapshot.to_vec(), [[1; 512], [3; 512]].concat());
    }

    #[test]
    fn a_shrunk_and_regrown_device_reads_zeros() {
        let mut device = MemoryDevice::from_bytes(&[1; 1024]);
        device.set_len(512);
        device.set_len(1024);
        assert_eq!(device.to_vec(), [[1; 512], [0; 512]].concat());
    }

    #[test]
    fn each_request_of_a_batch_gets_its_own_result() {
        let device = MemoryDevice::new(1024);
        let write = |offset, len| Request::write_frame(offset, Frame::zeroed(len));
        let mut batch = [
            write(512, 512),
            write(1024, 512),
            write(1, 512),
            Request::flush(),
            Request::discard(u64::MAX, 2),
        ];
        device.run(&mut batch);
        let operation = OperationKind::Write;
        let results = batch.map(|request| request.result);
        assert_eq!(
            results,
            [
                Ok(()),
                Err(DeviceError::OutOfRange {
                    operation,
                    offset: 1024,
                    len: 512,
                    device_bytes: 1024
                }),
                Err(DeviceError::Misaligned { operation, offset: 1, len: 512, sector_bytes: 512 }),
                Ok(()),
                Err(DeviceError::OutOfRange {
                    operation: OperationKind::Discard,
                    offset: u64::MAX,
                    len: 2,
                    device_bytes: 1024
                }),
            ]
        );
        let read_only = device.with_read_only(true);
        assert!(matches!(read_only.write_bytes(0, &[1; 512]), Err(DeviceError::ReadOnly { .. })));
        assert_eq!(read_only.read_vec(3, 5).unwrap(), [0; 5]);
    }
}
