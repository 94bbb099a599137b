//! This machine, as others see it that share a device with it (multiple mount protection), and waiting for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use extant::time::Pause;
use extant::{Filesystem, Host};

use crate::failure::say;
use crate::interrupt;

/// The host that opens `image`.
pub fn host(image: &Path) -> Host {
    let device = image.file_name().unwrap_or(image.as_os_str());
    Host {
        node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        device: device.to_string_lossy().into_owned(),
        pause: Arc::new(Patience(image.display().to_string())),
    }
}

/// Waits, says so, and ends when a signal comes.
struct Patience(String);

impl Pause for Patience {
    fn pause(&self, time: Duration) -> bool {
        let (name, seconds) = (&self.0, time.as_secs());
        say(&format!("{name}: looking for {seconds} s whether another host has it mounted (mmp)"));
        let start = Instant::now();
        while !interrupt::is_wanted() {
            let Some(left) = time.checked_sub(start.elapsed()) else { return true };
            std::thread::sleep(left.min(BETWEEN_LOOKS));
        }
        false
    }
}

/// Does `work`, and meanwhile tells other hosts that this one has the volume, if they look for that.
pub fn while_protected<T>(filesystem: &Filesystem, work: impl FnOnce() -> T) -> T {
    let Ok(Some(interval)) = filesystem.renew_protection() else { return work() };
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if filesystem.renew_protection().is_err() {
                    // Nothing can be changed any more, of which the work hears.
                    return;
                }
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
