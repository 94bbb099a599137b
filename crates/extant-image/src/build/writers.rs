//! Threads that bring bytes to their places: small files, gathered to large writes, and large ones piece by piece.

use std::fs::File;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use extant_device::{BlockDevice, BlockDeviceExt, DeviceError, Frame, Request};
use extant_format::cast::u64_from;
use rustix::io::retry_on_intr;

use super::entry::Parts;
use super::error::Problem;
use super::tree::NodeId;
use super::{Build, Observer};

/// Something to be written.
#[derive(Debug)]
pub(super) enum Task {
    /// What is in memory.
    Write(Vec<Request>),
    /// Bytes of another file.
    Copy(Copy),
}

/// Bytes of another file, and their places.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) node: NodeId,
    pub(super) parts: Parts,
    /// Whole blocks of the file that is made, and where on the device the first of each lies.
    pub(super) places: Vec<(Range<u64>, u64)>,
}

/// What the threads share.
pub(super) struct Writers<'a> {
    build: &'a Build,
    device: &'a dyn BlockDevice,
    observer: &'a dyn Observer,
    tasks: Mutex<Receiver<Task>>,
    failed: Mutex<Option<DeviceError>>,
}

impl<'a> Writers<'a> {
    /// Threads for `device`, and where their tasks go.
    pub(super) fn new(
        build: &'a Build,
        device: &'a dyn BlockDevice,
        observer: &'a dyn Observer,
    ) -> (Self, SyncSender<Task>) {
        let (tasks, taken) = sync_channel(TASKS_AHEAD);
        let writers =
            Self { build, device, observer, tasks: Mutex::new(taken), failed: Mutex::new(None) };
        (writers, tasks)
    }

    /// What one thread does. After a failure tasks are only taken, so that nobody waits.
    pub(super) fn work(&self) {
        let mut buffer = Frame::zeroed(0);
        loop {
            let task = match self.tasks.lock() {
                Ok(tasks) => tasks.recv(),
                Err(_) => return,
            };
            let Ok(task) = task else { return };
            if self.failure().is_some() {
                continue;
            }
            let done = match task {
                Task::Write(mut requests) => self.device.run_all(&mut requests),
                Task::Copy(copy) => self.copy(&copy, &mut buffer),
            };
            if let Err(error) = done
                && let Ok(mut failed) = self.failed.lock()
            {
                failed.get_or_insert(error);
            }
        }
    }

    /// Why the device takes nothing any more, if it does not.
    pub(super) fn failure(&self) -> Option<DeviceError> {
        self.failed.lock().ok().and_then(|failed| *failed)
    }

    fn copy(&self, copy: &Copy, buffer: &mut Frame) -> Result<(), DeviceError> {
        let mut problem = None;
        for (range, device) in &copy.places {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + COPY_BYTES);
                let len = usize::try_from(end - at).unwrap_or(0);
                if buffer.len() < len {
                    *buffer = Frame::zeroed(len.next_power_of_two());
                }
                if let Err(found) = fill(&copy.parts, at, &mut buffer.make_mut()[..len]) {
                    problem.get_or_insert(found);
                }
                let place = device + (at - range.start);
                self.device.run_all(&mut [Request::write(place, vec![buffer.slice(0..len)])])?;
                self.observer.bytes_done(end - at);
                at = end;
            }
        }
        if let Some(problem) = problem {
            self.observer.failed(&self.build.failure_of(copy.node, problem));
        }
        Ok(())
    }
}

/// Fills `bytes` with what the file that is made has from `start` on; zeros where that is nothing.
pub(super) fn fill(parts: &Parts, start: u64, bytes: &mut [u8]) -> Result<(), Problem> {
    let end = start + u64_from(bytes.len());
    let index = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
    let first = parts.runs.partition_point(|(run, _)| run.end <= start);
    let (mut filled, mut outcome) = (0, Ok(()));
    for (run, source) in parts.runs[first..].iter().take_while(|(run, _)| run.start < end) {
        let (from, to) = (run.start.max(start), run.end.min(end));
        bytes[filled..index(from)].fill(0);
        filled = index(to);
        let read =
            read_exactly(&parts.file, source + (from - run.start), &mut bytes[index(from)..filled]);
        outcome = outcome.and(read);
    }
    bytes[filled..].fill(0);
    outcome
}

/// Reads all of `bytes`; those that cannot be read are zeros.
fn read_exactly(file: &File, mut offset: u64, mut bytes: &mut [u8]) -> Result<(), Problem> {
    while !bytes.is_empty() {
        let problem = match retry_on_intr(|| rustix::io::pread(file, &mut *bytes, offset)) {
            Ok(0) => Problem::Shorter,
            Ok(count) => {
                bytes = &mut bytes[count..];
                offset += u64_from(count);
                continue;
            }
            Err(errno) => errno.into(),
        };
        bytes.fill(0);
        return Err(problem);
    }
    Ok(())
}

/// How many tasks may wait.
const TASKS_AHEAD: usize = 8;
/// How much of a large file is in memory at a time.
const COPY_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    #[test]
    fn what_lies_around_the_bytes_of_a_block_is_zeros() {
        let path = std::env::temp_dir().join(format!("extant-fill-{}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(b"abcdef").unwrap();
        let file = Arc::new(std::fs::File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let parts = Parts { file, size: 12, runs: vec![(2..5, 1), (6..8, 0), (10..12, 4)] };
        let mut bytes = [7; 14];
        fill(&parts, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0bcd\0ab\0\0ef\0\0");
        let mut part = [7; 4];
        fill(&parts, 4, &mut part).unwrap();
        assert_eq!(&part, b"d\0ab");
        fill(&parts, 12, &mut part).unwrap();
        assert_eq!(&part, b"\0\0\0\0");
        let longer = Parts { runs: vec![(0..4, 4)], ..parts };
        assert!(matches!(fill(&longer, 0, &mut part), Err(Problem::Shorter)));
        assert_eq!(&part, b"ef\0\0");
    }
}
