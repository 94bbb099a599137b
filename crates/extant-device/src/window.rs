//! [`WindowDevice`]: a part of a device as a device of its own, such as a partition of a disk image.

use core::slice;

use crate::cast::u64_from;
use crate::device::{BlockDevice, DeviceGeometry};
use crate::error::DeviceError;
use crate::request::{OperationKind, Request};

/// `len` bytes of another device from `start` on; nothing outside them is ever read or changed.
#[derive(Debug)]
pub struct WindowDevice<D> {
    below: D,
    start: u64,
    len_bytes: u64,
}

impl<D: BlockDevice> WindowDevice<D> {
    /// The `len_bytes` bytes of `below` from `start` on, or all from there to its end.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if they are not all there; [`DeviceError::Misaligned`] if they do not begin with a sector.
    pub fn new(below: D, start: u64, len_bytes: Option<u64>) -> Result<Self, DeviceError> {
        let (geometry, operation) = (below.geometry(), OperationKind::Read);
        let rest = geometry.len_bytes.saturating_sub(start);
        let len = len_bytes.unwrap_or(rest);
        geometry.check_range(operation, start, len)?;
        let sector_bytes = geometry.sector_bytes;
        if !start.is_multiple_of(sector_bytes.into()) {
            return Err(DeviceError::Misaligned { operation, offset: start, len, sector_bytes });
        }
        // What is written is made of whole sectors, and a window may end within one.
        Ok(Self { below, start, len_bytes: len })
    }

    /// The device that this is a part of.
    pub fn below(&self) -> &D {
        &self.below
    }

    /// Where this begins in the device below, and how many bytes it has.
    pub fn place(&self) -> (u64, u64) {
        (self.start, self.len_bytes)
    }

    /// Runs requests that lie within, at their places below.
    fn run_moved(&self, batch: &mut [Request]) {
        for request in &mut *batch {
            request.offset += self.start;
        }
        self.below.run(batch);
        for request in batch {
            request.offset -= self.start;
        }
    }
}

impl<D: BlockDevice> BlockDevice for WindowDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { len_bytes: self.len_bytes, ..self.below.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        let geometry = self.geometry();
        if batch.iter().all(|request| request.check(&geometry).is_ok()) {
            return self.run_moved(batch);
        }
        for request in batch {
            match request.check(&geometry) {
                Ok(()) => self.run_moved(slice::from_mut(request)),
                refused => request.result = refused,
            }
        }
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.geometry().check_range(OperationKind::Read, offset, u64_from(bytes.len()))?;
        self.below.read_into(self.start + offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockDeviceExt, MemoryDevice, Request};

    fn window(start: u64, len: Option<u64>) -> Result<WindowDevice<MemoryDevice>, DeviceError> {
        let whole = MemoryDevice::new(16 << 10);
        whole.write_bytes(0, &[9; 16 << 10]).unwrap();
        WindowDevice::new(whole, start, len)
    }

    #[test]
    fn offsets_are_those_of_the_window() {
        let device = window(4096, Some(8192)).unwrap();
        device.write_bytes(512, &[1; 512]).unwrap();
        assert_eq!(device.below().read_vec(4096 + 512, 512).unwrap(), [1; 512]);
        assert_eq!(device.read_vec(512, 512).unwrap(), [1; 512]);
        assert_eq!(device.geometry().len_bytes, 8192);
        assert_eq!(window(4096, None).unwrap().geometry().len_bytes, 12 << 10);
    }

    #[test]
    fn nothing_reaches_beyond_its_ends() {
        let device = window(4096, Some(8192)).unwrap();
        let mut batch = [
            Request::write_zeroes(8192, 512),
            Request::write_zeroes(7680, 1024),
            Request::discard(0, 12 << 10),
            Request::write_zeroes(u64::MAX - 511, 512),
            Request::write_zeroes(7680, 512),
            Request::flush(),
        ];
        device.run(&mut batch);
        let refused = batch.iter().map(|request| request.result.is_err());
        assert!(refused.eq([true, true, true, true, false, false]));
        let bytes = device.below().read_vec(0, 16 << 10).unwrap();
        let zeros = 4096 + 7680..4096 + 8192;
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == if zeros.contains(&at) { 0 } else { 9 })
        );
        assert!(device.read_vec(8191, 2).is_err());
        let mut two = [0; 2];
        assert!(device.read_into(8191, &mut two).is_err());
        assert!(device.read_into(u64::MAX, &mut two).is_err());
        assert_eq!((device.read_into(7679, &mut two), two), (Ok(()), [9, 0]));
        assert_eq!(batch[4].offset, 7680);
    }

    #[test]
    fn a_window_lies_within_its_device_and_begins_with_a_sector() {
        for (start, len) in
            [(16 << 10, Some(1)), (4096, Some(16 << 10)), (1, None), (u64::MAX, Some(u64::MAX))]
        {
            assert!(window(start, len).is_err(), "{start} {len:?}");
        }
        assert!(window(0, None).is_ok() && window(16 << 10, None).is_ok());
    }
}
