//! [`RecordingDevice`]: a log of everything that changed a device, and [`Log`], which rebuilds images from it.

use extant_device::sync::Mutex;
use extant_device::{
    BlockDevice, BlockDeviceExt, DeviceGeometry, FrameSlice, MemoryDevice, Operation,
    OperationKind, Request,
};

use crate::random::Random;
use crate::slices::part_of;

/// Something that happened to a device, and succeeded.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which call of `run` it was part of, from 0; events of one batch have no order.
    pub batch: u64,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// What happened.
    pub change: Change,
}

/// What happened to a device.
#[derive(Clone, Debug)]
pub enum Change {
    /// A write.
    Write {
        /// Its bytes, in the frames that the writer shares.
        data: Vec<FrameSlice>,
        /// Whether it was durable at once.
        fua: bool,
    },
    /// A discard; it reads as zeros here.
    Discard {
        /// How many bytes.
        len: u64,
    },
    /// A write of zeros.
    WriteZeroes {
        /// How many bytes.
        len: u64,
    },
    /// A flush: all earlier batches are durable.
    Flush,
}

impl Event {
    /// Whether it was durable as soon as its batch was done.
    pub fn is_fua(&self) -> bool {
        matches!(self.change, Change::Write { fua: true, .. })
    }

    /// Whether it makes earlier ones durable.
    pub fn is_flush(&self) -> bool {
        matches!(self.change, Change::Flush)
    }

    /// How many bytes it changes.
    pub fn len(&self) -> u64 {
        self.request().len()
    }

    /// Whether it changes no bytes, as a flush.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn request(&self) -> Request {
        let operation = match &self.change {
            Change::Write { data, fua } => Operation::Write { data: data.clone(), fua: *fua },
            Change::Discard { len } => Operation::Discard { len: *len },
            Change::WriteZeroes { len } => Operation::WriteZeroes { len: *len },
            Change::Flush => Operation::Flush,
        };
        Request::new(self.offset, operation)
    }

    /// `len` bytes of it, from its byte `from` on.
    fn part(&self, from: u64, len: u64) -> Request {
        let operation = match &self.change {
            Change::Write { data, fua } => {
                Operation::Write { data: part_of(data, from, len), fua: *fua }
            }
            Change::Discard { .. } => Operation::Discard { len },
            Change::WriteZeroes { .. } => Operation::WriteZeroes { len },
            Change::Flush => Operation::Flush,
        };
        Request::new(self.offset + from, operation)
    }
}

/// How much of an event reached the medium before a crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// All of it.
    Whole,
    /// Its first sectors.
    Prefix {
        /// How many.
        sectors: u64,
    },
    /// Some of its sectors.
    Scattered {
        /// Chooses which.
        seed: u64,
    },
}

/// The events of a device since it held the base image.
#[derive(Clone, Debug)]
pub struct Log {
    base: MemoryDevice,
    events: Vec<Event>,
}

impl Log {
    /// The image before the first event.
    pub fn base(&self) -> &MemoryDevice {
        &self.base
    }

    /// The events, in the order in which their batches ran.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The image after the first `position` events, without a crash.
    pub fn image_at(&self, position: usize) -> MemoryDevice {
        let image = self.base.snapshot();
        self.events[..position].iter().for_each(|event| self.apply(&image, event, Kept::Whole));
        image
    }

    /// Which of the first `position` events a crash right after them can lose: not those that a flush covered, nor FUA.
    pub fn loose_at(&self, position: usize) -> Vec<usize> {
        let events = &self.events[..position];
        let flush = events.iter().rev().find(|event| event.is_flush());
        let is_loose = |event: &Event| {
            let flushed = flush.is_some_and(|flush| event.batch < flush.batch);
            !(flushed || event.is_fua() || event.is_flush())
        };
        (0..position).filter(|number| is_loose(&events[*number])).collect()
    }

    /// The image that a crash right after the first `position` events leaves, where `choose` says what was kept of each
    /// of [`Self::loose_at`].
    pub fn crash_at(&self, position: usize, mut choose: impl FnMut(usize) -> Kept) -> MemoryDevice {
        let (image, loose) = (self.base.snapshot(), self.loose_at(position));
        for (number, event) in self.events[..position].iter().enumerate() {
            let is_loose = loose.binary_search(&number).is_ok();
            self.apply(&image, event, if is_loose { choose(number) } else { Kept::Whole });
        }
        image
    }

    /// Does to `image` what was kept of `event`.
    pub(crate) fn apply(&self, image: &MemoryDevice, event: &Event, kept: Kept) {
        let sector: u64 = self.base.geometry().sector_bytes.into();
        let parts = match kept {
            Kept::Nothing => vec![],
            Kept::Whole => vec![event.request()],
            Kept::Prefix { sectors } => {
                vec![event.part(0, event.len().min(sectors.saturating_mul(sector)))]
            }
            Kept::Scattered { seed } => {
                let mut random = Random::new(seed);
                // A long range of zeros is torn into few pieces, not into all its sectors.
                let piece = sector * (event.len() / sector).div_ceil(1024).max(1);
                let starts =
                    (0..event.len().div_ceil(piece)).map(|n| n * piece).filter(|_| random.coin());
                starts.map(|from| event.part(from, piece.min(event.len() - from))).collect()
            }
        };
        for part in parts {
            image.run_one(part).expect("it succeeded when it was recorded");
        }
    }
}

/// Passes requests to the device below and logs those that change it, one batch at a time.
///
/// Requests that fail are not logged, though they may have changed something: put faults above a recording, not below.
/// The log shares the writer's frames, so a writer that changes one later copies it.
#[derive(Debug)]
pub struct RecordingDevice<D> {
    inner: D,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    batches: u64,
}

impl RecordingDevice<MemoryDevice> {
    /// Records what happens to a copy of `image`.
    pub fn from_image(image: &MemoryDevice) -> Self {
        Self::new(image.snapshot(), image.snapshot())
    }
}

impl<D: BlockDevice> RecordingDevice<D> {
    /// Records what happens to `inner`, which holds the same bytes as `base`.
    pub fn new(inner: D, base: MemoryDevice) -> Self {
        let base = base.with_sector_bytes(inner.geometry().sector_bytes);
        Self {
            inner,
            state: Mutex::new(State { log: Log { base, events: Vec::new() }, batches: 0 }),
        }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// How many events were logged: whatever was acknowledged by now must survive a crash after this many.
    pub fn position(&self) -> usize {
        self.state.lock().log.events.len()
    }

    /// The log so far; cheap, as it shares all bytes.
    pub fn log(&self) -> Log {
        self.state.lock().log.clone()
    }
}

impl<D: BlockDevice> BlockDevice for RecordingDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        let mut state = self.state.lock();
        self.inner.run(batch);
        let number = state.batches;
        state.batches += 1;
        // A flush covers earlier batches only, so it comes first.
        let (flushes, others): (Vec<&Request>, _) = batch
            .iter()
            .filter(|request| request.result.is_ok())
            .partition(|request| request.kind() == OperationKind::Flush);
        for request in flushes.into_iter().take(1).chain(others) {
            let change = match &request.operation {
                Operation::Write { data, fua } if !request.is_empty() => {
                    Change::Write { data: data.clone(), fua: *fua }
                }
                Operation::Discard { len: len @ 1.. } => Change::Discard { len: *len },
                Operation::WriteZeroes { len: len @ 1.. } => Change::WriteZeroes { len: *len },
                Operation::Flush => Change::Flush,
                _ => continue,
            };
            state.log.events.push(Event { batch: number, offset: request.offset, change });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use extant_device::Frame;

    fn write(offset: u64, byte: u8) -> Request {
        Request::write_frame(offset, Frame::copy_from(&[byte; 1024]))
    }

    fn recorded() -> Log {
        let device = RecordingDevice::from_image(&MemoryDevice::new(4096));
        device
            .run_all(&mut [write(0, 1), write(1024, 2), Request::read(0, vec![Frame::zeroed(1)])])
            .unwrap();
        device.flush().unwrap();
        assert_eq!(device.position(), 3);
        device
            .run_all(&mut [
                write(0, 3),
                Request::write_fua(2048, vec![Frame::copy_from(&[4; 512]).into()]),
            ])
            .unwrap();
        assert!(device.run_one(write(4096, 5)).is_err());
        device.run_one(Request::write_zeroes(1024, 1024)).unwrap();
        assert_eq!(device.inner().to_vec(), device.log().image_at(6).to_vec());
        device.log()
    }

    #[test]
    fn the_image_of_any_position_can_be_rebuilt() {
        let log = recorded();
        let starts = |position| [0, 1024, 2048].map(|at| log.image_at(position).to_vec()[at]);
        assert_eq!(starts(0), [0, 0, 0]);
        assert_eq!(starts(1), [1, 0, 0]);
        assert_eq!(starts(3), [1, 2, 0]);
        assert_eq!(starts(6), [3, 0, 4]);
    }

    #[test]
    fn what_was_flushed_or_written_with_fua_is_not_loose() {
        let log = recorded();
        assert_eq!(log.loose_at(2), [0, 1]);
        assert_eq!(log.loose_at(3), []);
        assert_eq!(log.loose_at(6), [3, 5]);
        let image = log.crash_at(6, |_| Kept::Nothing).to_vec();
        assert_eq!((image[0], image[1024], image[2048]), (1, 2, 4));
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        let log = recorded();
        let torn = |kept| {
            log.crash_at(6, |number| if number == 3 { kept } else { Kept::Nothing }).to_vec()
        };
        assert_eq!(torn(Kept::Prefix { sectors: 1 })[..1024], [[3; 512], [1; 512]].concat());
        let outcomes: std::collections::BTreeSet<_> = (0..64)
            .map(|seed| torn(Kept::Scattered { seed }))
            .map(|image| (image[0], image[511], image[512], image[1023]))
            .collect();
        assert_eq!(outcomes, [(1, 1, 1, 1), (1, 1, 3, 3), (3, 3, 1, 1), (3, 3, 3, 3)].into());
    }

    #[test]
    fn a_flush_does_not_cover_its_own_batch() {
        let device = RecordingDevice::from_image(&MemoryDevice::new(4096));
        device.run_all(&mut [write(0, 1), Request::flush()]).unwrap();
        assert_eq!(device.log().loose_at(2), [1]);
    }
}
