//! The one crate with unsafe code: an entry of one of the kernel's FUSE queues, over io_uring.
//!
//! The kernel has a queue for each processor that it is configured for, and puts a request into the queue of the processor that the
//! client runs on. An [`Entry`] has room for one request of one queue. It has a ring of its own, so the thread that serves it
//! answers and waits for the next request in one call, and depends on no other.
//!
//! # Invariants
//! - What the kernel may write to is one allocation that the entry owns and that never moves. While the kernel has it
//!   (`Holder::Kernel`) there is no reference to it; if the entry is dropped then, it is leaked.
//! - A ring takes no command but those to the one device, whoever has its descriptor.
//! # Source
//! Kernel `Documentation/filesystems/fuse/fuse-io-uring.rst`, `include/uapi/linux/fuse.h` (`fuse_uring_req_header`,
//! `fuse_uring_cmd_req`), `fs/fuse/dev_uring.c`; io_uring_register(2) for restrictions.

#![cfg(target_os = "linux")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::slice;

use io_uring::opcode::UringCmd80;
use io_uring::register::Restriction;
use io_uring::squeue::{Entry128, Flags};
use io_uring::{IoUring, cqueue, types};

/// Bytes in front of the payload that are the server's own, so that it can have a message in one piece.
pub const HEADROOM: usize = 256;

/// What one entry exchanges with the kernel; its layout is the protocol's.
#[derive(Debug)]
#[repr(C)]
struct Headers {
    in_out: [u8; 128],
    op: [u8; 128],
    flags: u64,
    commit_id: u64,
    payload_len: u32,
    padding: u32,
    reserved: u64,
}
const _: () = assert!(size_of::<Headers>() == 288);

/// `struct iovec`.
#[repr(C)]
struct Piece {
    start: *mut u8,
    len: usize,
}

/// What lies in front of the payload, which begins a page: the headroom is its end.
#[repr(C)]
struct Front {
    headers: Headers,
    pieces: [Piece; 2],
}
const PAGE: usize = 4096;
const _: () = assert!(size_of::<Front>() + HEADROOM <= PAGE);

/// A request, or the answer to it: who has it has the memory that the kernel has given back.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request's header, in the place of which the answer's comes.
    pub in_out: &'a mut [u8; 128],
    /// The request's first argument.
    pub op: &'a [u8; 128],
    /// Bytes of payload: the request's, in the place of which the answer's comes.
    pub payload_len: &'a mut u32,
    /// [`HEADROOM`] bytes, then the payload.
    pub room: &'a mut [u8],
}

/// Who may touch the memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holder {
    /// The kernel has not heard of the entry.
    New,
    /// The kernel, until it completes what it was told.
    Kernel,
    /// Whoever serves the request with this number.
    Server(u64),
    /// Nobody any more: the kernel has refused it.
    Nobody,
}

/// Room for one request of one queue. Not for two threads at once, since all that it does takes `&mut self`.
pub struct Entry {
    ring: IoUring<Entry128, cqueue::Entry>,
    memory: NonNull<u8>,
    layout: Layout,
    queue: u16,
    holder: Holder,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("queue", &self.queue)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

// SAFETY: `memory` is owned by the entry alone and tied to no thread, and so is the ring.
unsafe impl Send for Entry {}

impl Entry {
    /// An entry for this queue, with so many bytes of payload. The kernel hears of it at the first [`Self::exchange`]; its ring can be
    /// told nothing from now on but commands to `device`.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS`: no rings here, or not for this process; `EINVAL`: a kernel before 5.19; of memory.
    pub fn new(device: BorrowedFd<'_>, queue: u16, payload: usize) -> io::Result<Self> {
        // Its one thread runs the kernel's part when it waits, and is not interrupted for it.
        let ring = IoUring::builder().setup_r_disabled().setup_coop_taskrun().build(1)?;
        ring.submitter().register_files(&[device.as_raw_fd()])?;
        let fixed = Flags::FIXED_FILE.bits();
        ring.submitter().register_restrictions(&mut [
            Restriction::sqe_op(UringCmd80::CODE),
            Restriction::sqe_flags_allowed(fixed),
            Restriction::sqe_flags_required(fixed),
        ])?;
        ring.submitter().register_enable_rings()?;
        let bytes = payload.checked_add(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout has a page at least.
        let memory =
            NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ring, memory, layout, queue, holder: Holder::New })
    }

    /// The descriptor of its ring, for filters of system calls.
    pub fn ring(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Enters the ring without a command, for whoever has to know before the kernel relies on it whether that is allowed.
    ///
    /// # Errors
    /// `EPERM` and whatever else a filter of system calls says.
    pub fn check(&self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// Hands the entry to the kernel, with the answer to the request that it has brought if it has brought one, and waits until it
    /// comes back with another. It belongs to the thread that does this: when that ends, the kernel takes no request for it.
    ///
    /// # Errors
    /// `ENOTCONN`, `ECONNABORTED`: the connection is at its end. Others: the kernel has refused the entry, and will again.
    pub fn exchange(&mut self) -> io::Result<Exchange<'_>> {
        match self.holder {
            Holder::New => self.submit(REGISTER, 0)?,
            Holder::Server(request) => self.submit(COMMIT_AND_FETCH, request)?,
            Holder::Kernel => {}
            Holder::Nobody => return Err(io::ErrorKind::NotConnected.into()),
        }
        let code = self.wait()?;
        // The kernel has completed the command, and there is no other: the memory is ours.
        self.holder = Holder::Nobody;
        if code < 0 {
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        let room = self.layout.size() - PAGE + HEADROOM;
        let start = self.memory.as_ptr().wrapping_add(PAGE - HEADROOM);
        // SAFETY: up to the end of the allocation, of which the front is no part; initialised, and nobody else's by what is above.
        let room = unsafe { slice::from_raw_parts_mut(start, room) };
        // SAFETY: aligned to a page, initialised (zeros are good values of all of it), and nobody else's.
        let front = unsafe { self.memory.cast::<Front>().as_mut() };
        let Headers { in_out, op, commit_id, payload_len, .. } = &mut front.headers;
        self.holder = Holder::Server(*commit_id);
        Ok(Exchange { in_out, op, payload_len, room })
    }

    /// Gives the memory to the kernel.
    fn submit(&mut self, command: u32, commit_id: u64) -> io::Result<()> {
        let start = self.memory.as_ptr();
        let headers = Piece { start, len: size_of::<Headers>() };
        let payload = Piece { start: start.wrapping_add(PAGE), len: self.layout.size() - PAGE };
        // SAFETY: no address behind an aligned and valid one is touched.
        let pieces = unsafe { &raw mut (*self.memory.cast::<Front>().as_ptr()).pieces };
        // SAFETY: aligned, within the allocation, and nobody else's: the kernel does not have it.
        unsafe { pieces.write([headers, payload]) };
        // `struct fuse_uring_cmd_req`: flags, the request, the queue.
        let mut words = [0; 80];
        words[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        words[16..18].copy_from_slice(&self.queue.to_ne_bytes());
        let pieces = u64::try_from(pieces.expose_provenance()).map_err(io::Error::other)?;
        let addr = Some(pieces);
        let mut command = UringCmd80::new(types::Fixed(0), command).cmd(words).addr(addr).build();
        // The crate has no word for `len`, which says how many pieces there are.
        let len = (&raw mut command).cast::<u32>().wrapping_add(SQE_LEN / 4);
        // SAFETY: aligned as the command is, which has 128 bytes in C's layout; any number is a good one.
        unsafe { len.write(2) };
        self.holder = Holder::Kernel;
        // SAFETY: all that it points to is in the allocation, which stays where it is, and which nobody touches, until it is completed.
        unsafe { self.ring.submission().push(&command) }.map_err(io::Error::other)
    }

    /// What comes of the command that the kernel has.
    fn wait(&mut self) -> io::Result<i32> {
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It has no memory for the moment.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            if let Some(done) = self.ring.completion().next() {
                return Ok(done.result());
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.holder != Holder::Kernel {
            // SAFETY: it was allocated so, and neither the kernel nor an `Exchange`, which borrows the entry, has it.
            unsafe { dealloc(self.memory.as_ptr(), self.layout) };
        }
    }
}

/// `FUSE_IO_URING_CMD_REGISTER`.
const REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`.
const COMMIT_AND_FETCH: u32 = 2;
/// Where `len` is in `struct io_uring_sqe`.
const SQE_LEN: usize = 24;
const _: () = assert!(size_of::<Entry128>() == 128 && align_of::<Entry128>() >= 4);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use extant_testkit::skip;
    use io_uring::opcode;

    use super::*;

    const PAYLOAD: usize = 1 << 20;

    /// An entry for a device; `None`, after a skip, where there are no rings or no such device.
    fn entry(device: &str) -> Option<Entry> {
        let made = File::options().read(true).write(true).open(device);
        let made = made.and_then(|file| Entry::new(file.as_fd(), 3, PAYLOAD));
        made.inspect_err(|why| skip(&format!("io_uring commands to {device}: {why}"))).ok()
    }

    /// The null device takes any command and completes it at once.
    #[test]
    fn what_comes_back_is_what_was_handed_over() {
        let Some(mut entry) = entry("/dev/null") else { return };
        assert!(entry.check().is_ok());
        for round in 0..3 {
            let exchange = entry.exchange().unwrap();
            assert_eq!(exchange.room.len(), HEADROOM + PAYLOAD);
            assert_eq!(exchange.room.as_ptr().addr() % PAGE, PAGE - HEADROOM);
            for part in [&mut exchange.in_out[..], exchange.room] {
                assert!(part.iter().all(|byte| *byte == round), "{round}");
                part.fill(round + 1);
            }
            assert_eq!(*exchange.payload_len, u32::from(round));
            *exchange.payload_len += 1;
        }
        assert_eq!((entry.queue(), entry.holder), (3, Holder::Server(0)));
    }

    #[test]
    fn an_entry_that_was_refused_is_not_handed_over_again() {
        let Some(mut entry) = entry("/dev/fuse") else { return };
        // Nothing is mounted by it, which the kernel of the day has its own numbers for.
        assert!(entry.exchange().unwrap_err().raw_os_error().is_some());
        assert_eq!(entry.holder, Holder::Nobody);
        let again = entry.exchange().unwrap_err();
        assert_eq!((again.kind(), again.raw_os_error()), (io::ErrorKind::NotConnected, None));
    }

    /// Whoever got hold of the ring of a server could not call the kernel by it, past the filter of a sandbox.
    #[test]
    fn a_ring_takes_commands_to_its_device_alone() {
        let Some(mut entry) = entry("/dev/null") else { return };
        let file = File::open("/dev/null").unwrap();
        let to_another = UringCmd80::new(types::Fd(file.as_raw_fd()), REGISTER).build();
        let closing = opcode::Close::new(types::Fd(file.as_raw_fd())).build();
        let nothing = opcode::Nop::new().build().flags(Flags::FIXED_FILE);
        for command in [to_another, closing.into(), nothing.into()] {
            // SAFETY: none of them points to memory.
            unsafe { entry.ring.submission().push(&command) }.unwrap();
            assert_eq!(entry.wait().unwrap(), -13); // EACCES
        }
        let refused = entry.ring.submitter().register_files(&[0]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(13));
        assert!(entry.exchange().is_ok());
    }

    #[test]
    fn memory_that_the_kernel_has_is_not_given_back() {
        let Some(mut entry) = entry("/dev/null") else { return };
        let memory = entry.memory;
        // As if a command were on its way.
        entry.holder = Holder::Kernel;
        let layout = entry.layout;
        drop(entry);
        // SAFETY: the entry has leaked it, so it is still there; nobody else has it.
        let bytes = unsafe { slice::from_raw_parts_mut(memory.as_ptr(), layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        // SAFETY: it was allocated so.
        unsafe { dealloc(memory.as_ptr(), layout) };
    }
}
