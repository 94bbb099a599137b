//! `/dev/fuse` as the transport: threads that read requests and write answers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::message::Answer;
use crate::server::{MAX_BYTES, Server};

/// Room for the longest request: its bytes, and a page for what comes before.
const REQUEST_BYTES: usize = 4096 + 4096;

/// Serves requests with so many threads until the mount is gone, and does meanwhile what is due by the clock.
///
/// # Errors
/// Of the device; the mount is gone then, or will be when the device is closed.
pub fn serve(server: &Server, device: &OwnedFd, threads: usize) -> io::Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clock = scope.spawn(|| keep_time(server, &is_over));
        let workers: Vec<_> =
            (0..threads.max(1)).map(|_| scope.spawn(|| work(server, device))).collect();
        let mut outcome = Ok(());
        for worker in workers {
            outcome = outcome.and(worker.join().unwrap_or_else(|_| {
                Err(io::Error::other("a thread that served requests has panicked"))
            }));
        }
        is_over.store(true, Ordering::Release);
        clock.thread().unpark();
        outcome
    })
}

/// Commits and writes back what is old, until it is over. A failure is told to whoever syncs.
fn keep_time(server: &Server, is_over: &AtomicBool) {
    let mut pause = Duration::from_secs(1);
    while !is_over.load(Ordering::Acquire) {
        thread::park_timeout(pause);
        pause = server.tick();
    }
}

/// Serves one request after the other.
fn work(server: &Server, device: &OwnedFd) -> io::Result<()> {
    let mut request = vec![0; usize::try_from(MAX_BYTES).unwrap_or(0) + REQUEST_BYTES];
    let mut answer = Answer::default();
    loop {
        let len = match rustix::io::read(device.as_fd(), &mut request) {
            Ok(len) => len,
            // A request was taken back before anybody had read it.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !server.serve(&request[..len], &mut answer) {
            continue;
        }
        if let Some(notice) = answer.notice() {
            // The kernel may have forgotten the inode meanwhile.
            let _ = rustix::io::write(device.as_fd(), notice);
        }
        match rustix::io::write(device.as_fd(), answer.bytes()) {
            // Whoever had asked does not wait any more.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
