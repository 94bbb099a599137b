//! The kernel's queues over io_uring as the transport: an answer and the next request in one call, on the client's own processor.
//!
//! The kernel has a queue for each processor. Each has as many entries, and each entry has a thread, which serves one request after the
//! other from end to end; the kernel takes the entry that was free last. So one client is served by one thread, which is warm, and a
//! slow request keeps nobody waiting until all entries of a processor have one. What a client has taken back, what the kernel
//! forgets, and what the server says by itself still go through the device.
//!
//! # Invariants
//! The kernel is told that entries are to be used once all exist and have threads and rings that can be entered: it lets requests wait
//! from then on until each queue has one, for ever if need be.
//! # Source
//! Kernel `Documentation/filesystems/fuse/fuse-io-uring.rst`; `fs/fuse/dev_uring.c`: `fuse_uring_create_ring_ent` (how long a payload has to
//! be), `fuse_uring_args_to_ring` (what goes where), `is_ring_ready`, `fuse_uring_cmd` (a refused entry ends it for good).

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use extant_sys::{Entry, Exchange, HEADROOM};
use rustix::thread::CpuSet;
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{self, InHeader, InitIn, InitOut, MAX_BYTES, OVER_IO_URING, OutHeader, opcode};
use crate::backend::{Backend, serve_safely};
use crate::device::notify;
use crate::message::{Answer, Arguments, HEADER};

/// So many entries do for all processors, unless that is less than [`LEAST_DEPTH`] for each.
const ENTRIES: u16 = 16;
/// Entries of a processor: one slow request is to keep nobody waiting.
const LEAST_DEPTH: u16 = 2;
/// More on one processor have no use.
const MOST_DEPTH: u16 = 8;
/// More processors than that need more memory than a mount should take.
const MOST_PROCESSORS: u16 = 128;
/// Bytes of all entries' payloads: with more entries requests are shorter.
const MEMORY: u32 = 32 << 20;
/// The shortest that a payload becomes for that.
const LEAST_PAYLOAD: u32 = 128 << 10;

/// Why the kernel's queues are not used.
#[derive(Debug, thiserror::Error)]
pub enum NoRings {
    /// The kernel does not offer them.
    #[error("the kernel has them switched off (/sys/module/fuse/parameters/enable_uring)")]
    Off,
    /// There are too many of them, or they have unusual numbers.
    #[error("the machine may have more than {MOST_PROCESSORS} processors")]
    Processors,
    /// No rings here, or not for this process.
    #[error("io_uring: {0}")]
    Refused(#[from] io::Error),
}

/// The entries of all queues.
#[derive(Debug)]
pub struct Rings {
    entries: Vec<Entry>,
    payload: u32,
}

/// Whether kernel and server have agreed on queues, for threads that wait for that.
#[derive(Debug, Default)]
pub struct Agreement(OnceLock<bool>);

impl Agreement {
    /// Says it; the first word counts.
    pub fn close(&self, agreed: bool) {
        let _ = self.0.set(agreed);
    }

    /// Whether nobody has said it yet.
    pub fn is_open(&self) -> bool {
        self.0.get().is_none()
    }
}

impl Rings {
    /// Entries, so many for each processor.
    pub fn new(device: BorrowedFd<'_>, depth: Option<u16>) -> Result<Self, NoRings> {
        let parameter = fs::read("/sys/module/fuse/parameters/enable_uring").unwrap_or_default();
        if !parameter.starts_with(b"Y") {
            return Err(NoRings::Off);
        }
        let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        let processors = processors(&possible).ok_or(NoRings::Processors)?;
        let (depth, payload) = sizes(processors, depth);
        let room = usize::try_from(payload).unwrap_or(usize::MAX);
        let queues = (0..processors).flat_map(|queue| (0..depth).map(move |_| queue));
        let entries =
            queues.map(|queue| Entry::new(device, queue, room)).collect::<Result<_, _>>()?;
        Ok(Self { entries, payload })
    }

    /// The lowest and the highest descriptor of the rings.
    pub fn descriptors(&self) -> RangeInclusive<RawFd> {
        let all = || self.entries.iter().map(Entry::ring);
        all().min().unwrap_or(0)..=all().max().unwrap_or(0)
    }

    /// Bytes of an entry's payload.
    pub fn payload(&self) -> u32 {
        self.payload
    }

    /// Starts a thread for each entry, which serves it once there is an agreement. There is none if not all can be started, or rings not
    /// be entered.
    pub fn start<'scope, 'env>(
        &'env mut self,
        scope: &'scope Scope<'scope, 'env>,
        backend: &'env impl Backend,
        device: &'env OwnedFd,
        agreement: &'env Agreement,
    ) -> Vec<ScopedJoinHandle<'scope, io::Result<()>>> {
        let mut threads = Vec::new();
        if self.entries.iter().any(|entry| entry.check().is_err()) {
            agreement.close(false);
            return threads;
        }
        for entry in &mut self.entries {
            let name = format!("queue {}", entry.queue());
            let serve = || match agreement.0.wait() {
                true => serve(backend, device, entry),
                false => Ok(()),
            };
            match Builder::new().name(name).spawn_scoped(scope, serve) {
                Ok(thread) => threads.push(thread),
                Err(_) => agreement.close(false),
            }
        }
        threads
    }
}

/// How many processors the kernel is configured for, from its list of them.
fn processors(possible: &str) -> Option<u16> {
    // It is one range on all machines but odd ones.
    let last = possible.trim().strip_prefix('0')?;
    let last = if last.is_empty() { 0 } else { last.strip_prefix('-')?.parse::<u16>().ok()? };
    (last < MOST_PROCESSORS).then_some(last + 1)
}

/// Entries of a processor, and bytes of a payload.
fn sizes(processors: u16, depth: Option<u16>) -> (u16, u32) {
    let depth = depth.unwrap_or((ENTRIES / processors).clamp(LEAST_DEPTH, MOST_DEPTH)).max(1);
    let entries = u32::from(processors) * u32::from(depth);
    let fits = |payload: &u32| u64::from(*payload) * u64::from(entries) <= u64::from(MEMORY);
    let halves = std::iter::successors(Some(MAX_BYTES), |bytes| Some(bytes / 2));
    let payload = halves.take_while(|bytes| *bytes >= LEAST_PAYLOAD).find(fits);
    (depth, payload.unwrap_or(LEAST_PAYLOAD))
}

/// Adds to the answer to the first request that queues are used, with requests of up to `payload` bytes, if the kernel has offered it.
pub fn agree(request: &[u8], payload: u32, answer: &mut Answer) -> bool {
    let Some((header, mut arguments)) = Arguments::split(request) else { return false };
    let offered = header.opcode == opcode::INIT
        && arguments.take::<InitIn>().is_ok_and(|asked| asked.flags2 & OVER_IO_URING != 0);
    let agreed = answer.bytes().get(HEADER..).and_then(|rest| InitOut::read_from_bytes(rest).ok());
    let Some(mut agreed) = agreed.filter(|agreed| offered && agreed.major == abi::MAJOR) else {
        return false;
    };
    agreed.flags2 |= OVER_IO_URING;
    agreed.max_write = agreed.max_write.min(payload);
    agreed.max_pages = agreed.max_pages.min(u16::try_from(payload / 4096).unwrap_or(u16::MAX));
    answer.clear();
    answer.put(&agreed);
    answer.close(header.unique, Ok(()));
    true
}

/// Serves the requests that come to an entry, as long as any come.
fn serve(backend: &impl Backend, device: &OwnedFd, entry: &mut Entry) -> io::Result<()> {
    stay_on(entry.queue());
    let (mut small, mut beside) = (Vec::new(), Answer::default());
    let (mut outcome, mut is_known) = (Ok(()), false);
    loop {
        match entry.exchange() {
            Ok(exchange) => {
                answer(backend, device, exchange, (&mut small, &mut beside), &mut outcome);
            }
            Err(error) if is_known && !is_the_end(&error) => {
                // Clients of this processor wait for ever now; they had better not do it with a volume that goes on.
                backend.stop();
                return Err(error);
            }
            // The connection has ended, or the kernel does without queues and asks by the device.
            Err(_) => return outcome,
        }
        is_known = true;
    }
}

fn is_the_end(error: &io::Error) -> bool {
    const ABORTED: i32 = 103;
    const NOT_CONNECTED: i32 = 107;
    matches!(error.raw_os_error(), Some(ABORTED | NOT_CONNECTED))
}

/// Has the thread run where the clients of its queue do: they sleep meanwhile, and their data is warm there.
fn stay_on(queue: u16) {
    let queue = usize::from(queue);
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    // Whoever has chosen processors for the server has the last word.
    if queue < CpuSet::MAX_CPU && allowed.is_set(queue) {
        let mut only = CpuSet::new();
        only.set(queue);
        let _ = rustix::thread::sched_setaffinity(None, &only);
    }
}

/// Serves one request, and leaves the answer where the request was.
fn answer(
    backend: &impl Backend,
    device: &OwnedFd,
    exchange: Exchange<'_>,
    (small, beside): (&mut Vec<u8>, &mut Answer<'static>),
    outcome: &mut io::Result<()>,
) {
    let Exchange { in_out, op, payload_len, room } = exchange;
    let Ok((header, _)) = InHeader::read_from_prefix(&in_out[..]) else { return };
    let end = usize::try_from(*payload_len).map_or(usize::MAX, |len| HEADROOM.saturating_add(len));
    let first = first_argument(&header, op, *payload_len).filter(|_| end <= room.len());
    let Some(first) = first else {
        // No kernel sends that.
        let (len, error) = (u32::try_from(HEADER).unwrap_or(0), -extant::Errno::IO.0);
        put_header(in_out, OutHeader { len, error, unique: header.unique }.as_bytes());
        *payload_len = 0;
        return;
    };
    let head = &in_out[..size_of::<InHeader>()];
    let bytes = if header.opcode == opcode::WRITE {
        // The bytes stay where they are, behind what goes before them. The answer is small.
        let start = HEADROOM - first.len() - head.len();
        room[start..][..head.len()].copy_from_slice(head);
        room[start + head.len()..HEADROOM].copy_from_slice(first);
        serve_waiting(backend, device, &room[start..end], beside, outcome);
        let bytes = beside.bytes();
        room[HEADROOM..][..bytes.len() - HEADER].copy_from_slice(&bytes[HEADER..]);
        bytes
    } else {
        // The request is small. The answer is put together where the kernel looks for it.
        small.clear();
        for part in [head, first, &room[HEADROOM..end]] {
            small.extend_from_slice(part);
        }
        let mut answer = Answer::within(&mut room[HEADROOM - HEADER..]);
        serve_waiting(backend, device, small, &mut answer, outcome);
        let len = answer.bytes().len();
        &room[HEADROOM - HEADER..][..len]
    };
    put_header(in_out, &bytes[..HEADER]);
    *payload_len = u32::try_from(bytes.len() - HEADER).unwrap_or(0);
}

/// Serves one message, for the answer to which the kernel waits: by a queue it sends no others.
fn serve_waiting(
    backend: &impl Backend,
    device: &OwnedFd,
    message: &[u8],
    answer: &mut Answer<'_>,
    outcome: &mut io::Result<()>,
) {
    if !serve_safely(backend, message, answer, outcome) {
        let unique = Arguments::split(message).map_or(0, |(header, _)| header.unique);
        answer.clear();
        answer.close(unique, Err(extant::Errno::IO));
    }
    notify(device, answer);
}

/// The first argument, which has a place of its own: what the payload leaves of the request.
fn first_argument<'a>(header: &InHeader, op: &'a [u8; 128], payload_len: u32) -> Option<&'a [u8]> {
    let head = u32::try_from(size_of::<InHeader>()).ok()?;
    let len = header.len.checked_sub(head)?.checked_sub(payload_len)?;
    op.get(..usize::try_from(len).ok()?)
}

fn put_header(in_out: &mut [u8; 128], header: &[u8]) {
    in_out[..HEADER].copy_from_slice(header);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_where_they_are_one_range() {
        assert_eq!(processors("0\n"), Some(1));
        assert_eq!(processors("0-1\n"), Some(2));
        assert_eq!(processors("0-127"), Some(128));
        for odd in ["", "0-128", "1-2", "0-1,4-5", "0,2", "0-", "0-99999"] {
            assert_eq!(processors(odd), None, "{odd}");
        }
    }

    #[test]
    fn memory_is_bounded_whatever_the_machine_has() {
        assert_eq!(sizes(1, None), (8, 1 << 20));
        assert_eq!(sizes(2, None), (8, 1 << 20));
        assert_eq!(sizes(8, None), (2, 1 << 20));
        assert_eq!(sizes(64, None), (2, 256 << 10));
        assert_eq!(sizes(2, Some(0)), (1, 1 << 20));
        for processors in 1..=MOST_PROCESSORS {
            let (depth, payload) = sizes(processors, None);
            assert!(depth >= LEAST_DEPTH && payload >= LEAST_PAYLOAD);
            assert!(u32::from(processors) * u32::from(depth) * payload <= MEMORY);
        }
    }

    fn header(len: u32) -> InHeader {
        InHeader { len, ..Default::default() }
    }

    #[test]
    fn the_first_argument_is_what_the_payload_leaves() {
        let op = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let first = |len, payload| first_argument(&header(len), &op, payload).map(<[u8]>::to_vec);
        assert_eq!(first(40, 0), Some(Vec::new()));
        assert_eq!(first(48, 5), Some(vec![0, 1, 2]));
        assert_eq!(first(168, 0), Some(op.to_vec()));
        for (len, payload) in [(39, 0), (0, 0), (48, 9), (169, 0), (u32::MAX, 0)] {
            assert_eq!(first(len, payload), None, "{len} {payload}");
        }
    }
}
