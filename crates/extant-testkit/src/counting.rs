//! [`CountingDevice`]: how much was asked of a device.

use extant_device::sync::Mutex;
use extant_device::{BlockDevice, DeviceGeometry, Operation, Request};

/// Requests and bytes, by kind; failed requests count too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Calls of `run`.
    pub batches: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes that they asked for.
    pub read_bytes: u64,
    /// Writes, with and without FUA.
    pub writes: u64,
    /// Bytes that they brought.
    pub written_bytes: u64,
    /// Writes with FUA.
    pub fua_writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Bytes that they gave back.
    pub discarded_bytes: u64,
    /// Writes of zeros.
    pub zeroings: u64,
    /// Bytes that they covered.
    pub zeroed_bytes: u64,
}

impl Counts {
    /// Counts one batch.
    pub fn note(&mut self, batch: &[Request]) {
        self.batches += 1;
        for request in batch {
            let len = request.len();
            let (requests, bytes) = match &request.operation {
                Operation::Read { .. } => (&mut self.reads, &mut self.read_bytes),
                Operation::Write { fua, .. } => {
                    self.fua_writes += u64::from(*fua);
                    (&mut self.writes, &mut self.written_bytes)
                }
                Operation::Flush => {
                    self.flushes += 1;
                    continue;
                }
                Operation::Discard { .. } => (&mut self.discards, &mut self.discarded_bytes),
                Operation::WriteZeroes { .. } => (&mut self.zeroings, &mut self.zeroed_bytes),
            };
            *requests += 1;
            *bytes += len;
        }
    }
}

/// Counts what passes to the device below.
#[derive(Debug)]
pub struct CountingDevice<D> {
    inner: D,
    counts: Mutex<Counts>,
}

impl<D: BlockDevice> CountingDevice<D> {
    /// Counts from zero what passes to `inner`.
    pub fn new(inner: D) -> Self {
        Self { inner, counts: Mutex::default() }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// What has passed.
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// What has passed since the last call of this.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock())
    }
}

impl<D: BlockDevice> BlockDevice for CountingDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        self.counts.lock().note(batch);
        self.inner.run(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use extant_device::{BlockDeviceExt, Frame, MemoryDevice};

    #[test]
    fn every_kind_is_counted_by_itself() {
        let device = CountingDevice::new(MemoryDevice::new(8192));
        let mut batch = [
            Request::write_frame(0, Frame::zeroed(1024)),
            Request::write_fua(1024, vec![Frame::zeroed(512).into()]),
            Request::read(5, vec![Frame::zeroed(7)]),
            Request::discard(0, 512),
            Request::write_zeroes(0, 2048),
        ];
        device.run_all(&mut batch).unwrap();
        device.flush().unwrap();
        let expected = Counts {
            batches: 2,
            reads: 1,
            read_bytes: 7,
            writes: 2,
            written_bytes: 1536,
            fua_writes: 1,
            flushes: 1,
            discards: 1,
            discarded_bytes: 512,
            zeroings: 1,
            zeroed_bytes: 2048,
        };
        assert_eq!(device.take_counts(), expected);
        assert_eq!(device.counts(), Counts::default());
    }
}
