//! [`OverlayDevice`]: a device that is not changed, and what would have been, in memory.

use alloc::collections::BTreeMap;
use core::ops::Range;

use crate::cast::{index, u64_from};
use crate::device::{BlockDevice, BlockDeviceExt, DeviceGeometry};
use crate::error::DeviceError;
use crate::frame::Frame;
use crate::request::{Operation, Request};
use crate::sync::RwLock;

/// Bytes that are copied into memory when one of them changes.
const CHUNK_BYTES: usize = 64 << 10;

/// A device that reads as another one until it is written; that one is never changed.
#[derive(Debug)]
pub struct OverlayDevice<D> {
    base: D,
    changed: RwLock<BTreeMap<u64, Frame>>, // by number of the chunk
}

impl<D: BlockDevice> OverlayDevice<D> {
    /// A view of `base`, which may be read-only.
    pub fn new(base: D) -> Self {
        Self { base, changed: RwLock::new(BTreeMap::new()) }
    }

    /// How many bytes of memory the changes take.
    pub fn changed_bytes(&self) -> u64 {
        u64_from(self.changed.read().len()) * u64_from(CHUNK_BYTES)
    }

    /// What a chunk holds before anything in it changes; the device's last one may be short.
    fn original(&self, number: u64) -> Result<Frame, DeviceError> {
        let start = number * u64_from(CHUNK_BYTES);
        let len = (self.geometry().len_bytes - start).min(u64_from(CHUNK_BYTES));
        self.base.read_frame(start, index(len))
    }

    fn load(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.base.read_exact(offset, bytes)?;
        let changed = self.changed.read();
        each_piece(offset, bytes.len(), |number, inside, at| {
            if let Some(chunk) = changed.get(&number) {
                bytes[at].copy_from_slice(&chunk.as_slice()[inside]);
            }
            Ok(())
        })
    }

    fn save(
        &self,
        offset: u64,
        len: usize,
        mut fill: impl FnMut(&mut [u8], Range<usize>),
    ) -> Result<(), DeviceError> {
        each_piece(offset, len, |number, inside, at| {
            let known = self.changed.read().contains_key(&number);
            let original = if known { None } else { Some(self.original(number)?) };
            let mut changed = self.changed.write();
            // Who came first meanwhile has put in the same original.
            let chunk = changed
                .entry(number)
                .or_insert_with(|| original.unwrap_or_else(|| Frame::zeroed(0)));
            fill(&mut chunk.make_mut()[inside], at);
            Ok(())
        })
    }

    fn run_one_of(&self, request: &mut Request) -> Result<(), DeviceError> {
        request.check(&self.geometry())?;
        let mut offset = request.offset;
        match &mut request.operation {
            Operation::Read { into } => {
                for frame in into {
                    self.load(offset, frame.make_mut())?;
                    offset += u64_from(frame.len());
                }
            }
            Operation::Write { data, .. } => {
                for slice in data {
                    let bytes = slice.as_slice();
                    self.save(offset, bytes.len(), |piece, at| piece.copy_from_slice(&bytes[at]))?;
                    offset += u64_from(bytes.len());
                }
            }
            Operation::Flush => {}
            Operation::Discard { len } | Operation::WriteZeroes { len } => {
                self.save(offset, index(*len), |piece, _| piece.fill(0))?;
            }
        }
        Ok(())
    }
}

impl<D: BlockDevice> BlockDevice for OverlayDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { read_only: false, discard: true, ..self.base.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        for request in batch {
            request.result = self.run_one_of(request);
        }
    }
}

/// Every chunk that `len` bytes from `offset` on touch: its number, the part of it, and where that is in the bytes.
fn each_piece(
    offset: u64,
    len: usize,
    mut visit: impl FnMut(u64, Range<usize>, Range<usize>) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let mut done = 0;
    while done < len {
        let from = offset + u64_from(done);
        let start = index(from % u64_from(CHUNK_BYTES));
        let count = (CHUNK_BYTES - start).min(len - done);
        visit(from / u64_from(CHUNK_BYTES), start..start + count, done..done + count)?;
        done += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::memory::MemoryDevice;

    fn overlay(len: usize) -> OverlayDevice<MemoryDevice> {
        let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        OverlayDevice::new(MemoryDevice::from_bytes(&bytes).with_read_only(true))
    }

    #[test]
    fn writes_are_read_back_and_the_base_stays() {
        let device = overlay(300_032);
        let before = device.base.to_vec();
        let mut expected = before.clone();
        for (offset, len, byte) in
            [(512, 512, 1), (65_024, 1024, 2), (131_072, 131_072, 3), (299_520, 512, 4)]
        {
            device.write_bytes(u64_from(offset), &vec![byte; len]).unwrap();
            expected[offset..offset + len].fill(byte);
        }
        assert_eq!(device.read_vec(0, 300_032).unwrap(), expected);
        assert_eq!(device.read_vec(65_000, 3000).unwrap(), expected[65_000..68_000]);
        assert_eq!(device.base.to_vec(), before);
        assert_eq!(device.changed_bytes(), 5 * 65_536);
    }

    #[test]
    fn zeroes_cover_exactly_their_range() {
        let device = overlay(200_704);
        let mut expected = device.base.to_vec();
        expected[1024..100_864].fill(0);
        device.run_one(Request::write_zeroes(1024, 50_176)).unwrap();
        device.run_one(Request::discard(51_200, 49_664)).unwrap();
        assert_eq!(device.read_vec(0, 200_704).unwrap(), expected);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let device = overlay(1024);
        assert!(matches!(device.write_bytes(512, &[0; 1024]), Err(DeviceError::OutOfRange { .. })));
        assert!(matches!(device.write_bytes(1, &[0; 512]), Err(DeviceError::Misaligned { .. })));
    }
}
