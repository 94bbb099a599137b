//! `/dev/fuse` as the transport: threads that read requests and write answers.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::abi::MAX_BYTES;
use crate::backend::{Backend, serve_safely};
use crate::message::Answer;
use crate::rings::{self, Agreement, NoRings, Rings};
use crate::turns::{Seat, Turns};

/// Threads that serve requests at the most. A request waits for the device at times; the others are served meanwhile.
pub const THREADS: usize = 16;
/// Room for the longest request: its bytes, and a page for what comes before.
const REQUEST_BYTES: usize = 4096 + 4096;

/// Where requests come from, and how the thread is doing that has opened it, which had better be the one that serves.
#[derive(Debug)]
pub struct Channel {
    device: OwnedFd,
    /// Opened early: once in its sandbox, the server opens nothing more.
    state: Option<File>,
    /// The kernel's queues, if it is to use them.
    rings: Mutex<Option<Rings>>,
}

impl Channel {
    pub(crate) fn new(device: OwnedFd) -> Self {
        let state = File::open("/proc/thread-self/stat").ok();
        Self { device, state, rings: Mutex::default() }
    }

    /// Has requests come by the kernel's queues over io_uring, up to so many of each processor at a time; `None`: as many as do not cost
    /// too much memory. To be called before anything is served. Returns the lowest and the highest descriptor of the rings, between
    /// which there are no rings of others.
    ///
    /// # Errors
    /// [`NoRings`]; all comes through the device then.
    pub fn use_rings(&mut self, depth: Option<u16>) -> Result<RangeInclusive<RawFd>, NoRings> {
        let rings = Rings::new(self.device.as_fd(), depth)?;
        let descriptors = rings.descriptors();
        *self.rings.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(rings);
        Ok(descriptors)
    }

    /// Whether that thread is known to have or to want a processor, and so waits for nothing else.
    fn runs(&self) -> bool {
        let mut text = [0; 64];
        let Some(Ok(len)) = self.state.as_ref().map(|state| state.read_at(&mut text, 0)) else {
            return false;
        };
        // The number, the name in brackets, and a letter.
        let name_end = text[..len].iter().rposition(|byte| *byte == b')');
        name_end.is_some_and(|end| text[end..len].get(2) == Some(&b'R'))
    }
}

/// Serves requests until the mount is gone, and does meanwhile what is due by the clock: in this thread, and in up to so many
/// others as long as requests take long.
///
/// # Errors
/// Of the device; the mount is gone then, or will be when the device is closed.
pub fn serve(backend: &impl Backend, channel: &Channel, threads: usize) -> io::Result<()> {
    let device = &channel.device;
    let turns = Turns::new(threads);
    let mut rings = channel.rings.lock().unwrap_or_else(PoisonError::into_inner).take();
    let agreement = Agreement::default();
    thread::scope(|scope| {
        let by_rings = match &mut rings {
            Some(rings) => {
                let payload = rings.payload();
                let threads = rings.start(scope, backend, device, &agreement);
                let begun = begin(backend, device, agreement.is_open().then_some(payload));
                agreement.close(matches!(begun, Ok(true)));
                begun.map(|_| threads)?
            }
            None => Vec::new(),
        };
        let clock = scope.spawn(|| keep_time(backend, &turns));
        let watch = scope.spawn(|| {
            let mut others = Vec::new();
            let start = |seat| {
                others.retain(|other: &thread::ScopedJoinHandle<'_, _>| !other.is_finished());
                others.push(scope.spawn(|| work(backend, device, &turns, seat)));
            };
            turns.watch(|| channel.runs(), start);
            others.into_iter().map(joined).fold(Ok(()), io::Result::and)
        });
        let first = turns.first(watch.thread().clone());
        let outcome = work(backend, device, &turns, first);
        turns.end();
        clock.thread().unpark();
        let others = joined(watch);
        by_rings.into_iter().map(joined).fold(outcome.and(others), io::Result::and)
    })
}

fn joined(thread: thread::ScopedJoinHandle<'_, io::Result<()>>) -> io::Result<()> {
    let panicked = |_| Err(io::Error::other("a thread that served requests has panicked"));
    thread.join().unwrap_or_else(panicked)
}

/// Commits and writes back what is old, and what is asked for before its time, until it is over.
fn keep_time(backend: &impl Backend, turns: &Turns) {
    backend.ticks_in(thread::current());
    let mut pause = Duration::from_secs(1);
    while !turns.is_over() {
        thread::park_timeout(pause);
        pause = backend.tick();
    }
}

/// Serves one request after the other, as long as there is work for this thread.
fn work(backend: &impl Backend, device: &OwnedFd, turns: &Turns, seat: Seat) -> io::Result<()> {
    let mut request = vec![0; usize::try_from(MAX_BYTES).unwrap_or(0) + REQUEST_BYTES];
    let mut answer = Answer::default();
    let mut outcome = Ok(());
    while turns.may_stay(&seat) {
        let len = match rustix::io::read(device.as_fd(), &mut request) {
            Ok(len) => len,
            // A request was taken back before anybody had read it.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::NODEV) => return outcome,
            Err(error) => return Err(error.into()),
        };
        turns.begin(&seat);
        let is_answer = serve_safely(backend, &request[..len], &mut answer, &mut outcome);
        let written = if is_answer { send(device, &answer) } else { Ok(()) };
        turns.finish(&seat);
        match written {
            // Whoever had asked does not wait any more.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NODEV) => return outcome,
            Err(error) => return Err(error.into()),
        }
    }
    outcome
}

/// Serves the first request, which asks what both can do, and says whether kernel and server agree on queues, which an answer of
/// that many bytes fits into.
fn begin(backend: &impl Backend, device: &OwnedFd, payload: Option<u32>) -> io::Result<bool> {
    let (mut request, mut answer) = (vec![0; REQUEST_BYTES], Answer::default());
    let mut outcome = Ok(());
    let len = loop {
        match rustix::io::read(device.as_fd(), &mut request) {
            Ok(len) => break len,
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NODEV) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    };
    let is_answer = serve_safely(backend, &request[..len], &mut answer, &mut outcome);
    let agreed = payload.is_some_and(|payload| rings::agree(&request[..len], payload, &mut answer));
    match if is_answer { send(device, &answer) } else { Ok(()) } {
        Ok(()) => outcome.map(|()| agreed),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn send(device: &OwnedFd, answer: &Answer) -> Result<(), Errno> {
    notify(device, answer);
    rustix::io::write(device.as_fd(), answer.bytes()).map(drop)
}

/// Tells the kernel what goes before an answer.
pub(crate) fn notify(device: &OwnedFd, answer: &Answer) {
    if let Some(notice) = answer.notice() {
        // The kernel may have forgotten the inode meanwhile.
        let _ = rustix::io::write(device.as_fd(), notice);
    }
}
