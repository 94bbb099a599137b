//! [`BlockDevice`]: the one seam between the engine and whatever stores the bytes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::cast::u64_from;
use crate::error::DeviceError;
use crate::frame::Frame;
use crate::request::{OperationKind, Request};

/// What a device is; fixed while it is in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceGeometry {
    /// How many bytes it has.
    pub len_bytes: u64,
    /// The unit that is written whole or not at all; a power of two, at least 512.
    pub sector_bytes: u32,
    /// Whether everything that would change it is refused.
    pub read_only: bool,
    /// Whether a discard gives space back; where not, it is an error.
    pub discard: bool,
    /// Whether zeros can be written without sending them; where not, the device sends them itself.
    pub fast_zeroes: bool,
}

impl DeviceGeometry {
    /// Whether `len` bytes at `offset` are all on the device.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`], which names `operation`.
    pub fn check_range(
        &self,
        operation: OperationKind,
        offset: u64,
        len: u64,
    ) -> Result<(), DeviceError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => Err(DeviceError::OutOfRange {
                operation,
                offset,
                len,
                device_bytes: self.len_bytes,
            }),
        }
    }
}

/// Stores bytes, by offset.
///
/// A device of one's own, here around another one (the crate `extant` has all of these names too):
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use extant_device::{BlockDevice, BlockDeviceExt, DeviceGeometry, MemoryDevice, Operation, Request};
///
/// struct CountsFlushes {
///     below: MemoryDevice,
///     flushes: AtomicU64,
/// }
///
/// impl BlockDevice for CountsFlushes {
///     fn geometry(&self) -> DeviceGeometry {
///         self.below.geometry()
///     }
///
///     fn run(&self, batch: &mut [Request]) {
///         for _ in batch.iter().filter(|one| matches!(one.operation, Operation::Flush)) {
///             self.flushes.fetch_add(1, Ordering::Relaxed);
///         }
///         self.below.run(batch); // sets each request's result
///     }
/// }
///
/// let device = CountsFlushes { below: MemoryDevice::new(1 << 20), flushes: AtomicU64::new(0) };
/// device.flush()?;
/// assert_eq!(device.flushes.into_inner(), 1);
/// # Ok::<(), extant_device::DeviceError>(())
/// ```
pub trait BlockDevice: Send + Sync {
    /// What the device is.
    fn geometry(&self) -> DeviceGeometry;

    /// Does every request of `batch`, in any order or all at once, and puts each one's outcome into its `result`.
    ///
    /// Returns when all are done. Several threads may call at once. A flush covers what earlier calls wrote, not the
    /// writes of its own batch; where requests of one batch overlap, either's bytes may win.
    fn run(&self, batch: &mut [Request]);

    /// Fills `bytes` from `offset` on, as a read among requests does: for those who have the memory already, if the device can
    /// spare them a copy.
    ///
    /// # Errors
    /// The device's; `bytes` may be anything then.
    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.read_exact(offset, bytes)
    }
}

/// Single requests, for whoever has no batch.
pub trait BlockDeviceExt: BlockDevice {
    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    /// The device's; [`DeviceError::OutOfRange`] before any memory is taken for the bytes.
    fn read_frame(&self, offset: u64, len: usize) -> Result<Frame, DeviceError> {
        self.geometry().check_range(OperationKind::Read, offset, u64_from(len))?;
        let mut request = [Request::read(offset, vec![Frame::zeroed(len)])];
        self.run(&mut request);
        let [request] = request;
        Ok(request.into_frames()?.remove(0))
    }

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// The device's; `bytes` is unchanged then.
    fn read_exact(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        bytes.copy_from_slice(self.read_frame(offset, bytes.len())?.as_slice());
        Ok(())
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    /// As [`Self::read_frame`].
    fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>, DeviceError> {
        Ok(self.read_frame(offset, len)?.to_vec())
    }

    /// Stores `bytes` at `offset`; durable at the next flush.
    ///
    /// # Errors
    /// The device's.
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.run_one(Request::write_frame(offset, Frame::copy_from(bytes)))
    }

    /// Makes durable what was written before.
    ///
    /// # Errors
    /// The device's.
    fn flush(&self) -> Result<(), DeviceError> {
        self.run_one(Request::flush())
    }

    /// Does one request.
    ///
    /// # Errors
    /// The request's.
    fn run_one(&self, request: Request) -> Result<(), DeviceError> {
        let mut batch = [request];
        self.run(&mut batch);
        batch[0].result
    }

    /// Does a batch and gives the first error in it, if any.
    ///
    /// # Errors
    /// The first failed request's.
    fn run_all(&self, batch: &mut [Request]) -> Result<(), DeviceError> {
        self.run(batch);
        batch.iter().try_for_each(|request| request.result)
    }
}

impl<D: BlockDevice + ?Sized> BlockDeviceExt for D {}

/// Lets a reference, a box or a shared device stand for the device.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            fn geometry(&self) -> DeviceGeometry {
                (**self).geometry()
            }

            fn run(&self, batch: &mut [Request]) {
                (**self).run(batch);
            }

            fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
                (**self).read_into(offset, bytes)
            }
        }
    )*};
}
forward!(&D, Box<D>, Arc<D>);
