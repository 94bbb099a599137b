//! [`ModelledDisk`]: a device that takes as long as a disk would.

use std::fmt;
use std::time::Duration;

use extant_device::sync::Mutex;
use extant_device::{BlockDevice, DeviceGeometry, OperationKind, Request};

use crate::counting::Counts;

/// What requests cost on a disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskModel {
    /// Each request.
    pub request: Duration,
    /// In addition, a read or write that does not start where the last one ended.
    pub seek: Duration,
    /// The rate of reading and writing.
    pub bytes_per_second: u64,
    /// Each flush, and each write with FUA.
    pub flush: Duration,
}

impl DiskModel {
    /// A hard disk of 7,200 turns a minute: 8 ms to move the arm and 4 ms until the sector comes by.
    pub const HARD_DISK: Self = Self {
        request: Duration::from_micros(50),
        seek: Duration::from_millis(12),
        bytes_per_second: 180_000_000,
        flush: Duration::from_millis(12),
    };
    /// A solid-state disk without a protected cache.
    pub const SOLID_STATE: Self = Self {
        request: Duration::from_micros(20),
        seek: Duration::from_micros(60),
        bytes_per_second: 500_000_000,
        flush: Duration::from_millis(5),
    };

    /// A disk whose only cost is `flush`.
    pub const fn flush_only(flush: Duration) -> Self {
        Self { request: Duration::ZERO, seek: Duration::ZERO, bytes_per_second: u64::MAX, flush }
    }

    /// What `request` costs after one that ended at byte `head`.
    pub fn cost(&self, request: &Request, head: u64) -> Duration {
        let moves = matches!(request.kind(), OperationKind::Read | OperationKind::Write);
        let seek = if moves && request.offset != head { self.seek } else { Duration::ZERO };
        let bytes = if moves { request.len() } else { 0 };
        let nanoseconds =
            u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let transfer = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let flush = if is_durable(request) { self.flush } else { Duration::ZERO };
        self.request + seek + transfer + flush
    }
}

fn is_durable(request: &Request) -> bool {
    match request.operation {
        extant_device::Operation::Write { fua, .. } => fua,
        _ => request.kind() == OperationKind::Flush,
    }
}

type Cost = Box<dyn Fn(&Request, u64) -> Duration + Send + Sync>;
type Wait = Box<dyn Fn(Duration) + Send + Sync>;

/// Passes requests to the device below, then waits as long as they cost; one batch at a time, as a disk has one arm.
pub struct ModelledDisk<D> {
    inner: D,
    cost: Cost,
    wait: Wait,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: u64,
    counts: Counts,
    busy: Duration,
}

impl<D: BlockDevice> ModelledDisk<D> {
    /// A disk that really sleeps for what `model` says.
    pub fn sleeping(inner: D, model: DiskModel) -> Self {
        Self::new(inner, move |request, head| model.cost(request, head), std::thread::sleep)
    }

    /// A disk that takes no time and only adds it up in [`Self::busy`].
    pub fn accounting(inner: D, model: DiskModel) -> Self {
        Self::new(inner, move |request, head| model.cost(request, head), |_| {})
    }

    /// A disk whose requests cost what `cost` says of them and the byte where the last one ended; `wait` is called once a
    /// batch with the sum, say to move a clock.
    pub fn new(
        inner: D,
        cost: impl Fn(&Request, u64) -> Duration + Send + Sync + 'static,
        wait: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Self {
        Self { inner, cost: Box::new(cost), wait: Box::new(wait), state: Mutex::default() }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// What has passed.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// How long all requests so far took.
    pub fn busy(&self) -> Duration {
        self.state.lock().busy
    }
}

impl<D: BlockDevice> BlockDevice for ModelledDisk<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        let mut state = self.state.lock();
        self.inner.run(batch);
        state.counts.note(batch);
        let mut sum = Duration::ZERO;
        for request in batch {
            sum += (self.cost)(request, state.head);
            if matches!(request.kind(), OperationKind::Read | OperationKind::Write) {
                state.head = request.offset.saturating_add(request.len());
            }
        }
        state.busy += sum;
        (self.wait)(sum);
    }
}

impl<D: fmt::Debug> fmt::Debug for ModelledDisk<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelledDisk")
            .field("inner", &self.inner)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use extant_device::{BlockDeviceExt, Frame, MemoryDevice};

    #[test]
    fn a_request_costs_its_seek_its_bytes_and_its_flush() {
        let second = Duration::from_secs(1);
        let model = DiskModel {
            request: second,
            seek: 10 * second,
            bytes_per_second: 512,
            flush: 100 * second,
        };
        let disk = ModelledDisk::accounting(MemoryDevice::new(8192), model);
        disk.write_bytes(0, &[1; 512]).unwrap(); // 1 + 1, the head is there
        disk.write_bytes(512, &[1; 1024]).unwrap(); // 1 + 2, in sequence
        disk.write_bytes(0, &[1; 512]).unwrap(); // 1 + 10 + 1
        disk.run_one(Request::write_fua(512, vec![Frame::zeroed(512).into()])).unwrap(); // 1 + 1 + 100
        disk.flush().unwrap(); // 1 + 100
        assert_eq!(disk.busy(), (2 + 3 + 12 + 102 + 101) * second);
        assert_eq!((disk.counts().writes, disk.counts().flushes), (4, 1));
    }

    #[test]
    fn the_caller_waits_once_a_batch() {
        let waits = std::sync::Arc::new(Mutex::new(Vec::new()));
        let seen = waits.clone();
        let cost = |_: &Request, _| Duration::from_secs(1);
        let disk =
            ModelledDisk::new(MemoryDevice::new(8192), cost, move |time| seen.lock().push(time));
        disk.run_all(&mut [Request::flush(), Request::flush(), Request::flush()]).unwrap();
        assert_eq!(*waits.lock(), [Duration::from_secs(3)]);
    }
}
