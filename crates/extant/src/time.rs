//! Where the engine reads the time and draws random numbers: both come from outside.

use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use core::time::Duration;

use extant_format::Timestamp;

/// Where the engine reads the time; no other code may look at a clock.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Wall time, for what is stored on disk.
    fn wall(&self) -> Timestamp;
}

/// Where the engine draws generations and UUIDs.
pub trait Entropy: Send + Sync {
    /// Thirty-two bits that nobody can tell in advance.
    fn draw(&self) -> u32;
}

/// Lets time pass: the engine never sleeps by itself.
pub trait Pause: Send + Sync {
    /// Returns when `time` is over; `false` if it is not, and nobody wants to wait any more.
    fn pause(&self, time: Duration) -> bool;
}

/// Asks for a tick before its time, where there is somebody to ask: once, until that tick begins.
#[derive(Debug, Default)]
pub(crate) struct EarlyTick {
    waker: Option<Waker>,
    is_asked_for: AtomicBool,
}

impl EarlyTick {
    /// `waker` is asked, if there is one.
    pub(crate) const fn new(waker: Option<Waker>) -> Self {
        Self { waker, is_asked_for: AtomicBool::new(false) }
    }

    /// There is something that a tick would do.
    pub(crate) fn ask(&self) {
        if let Some(waker) = &self.waker
            && !self.is_asked_for.load(Ordering::Relaxed)
            && !self.is_asked_for.swap(true, Ordering::AcqRel)
        {
            waker.wake_by_ref();
        }
    }

    /// A tick begins; whether it was asked for.
    pub(crate) fn begin(&self) -> bool {
        self.is_asked_for.swap(false, Ordering::AcqRel)
    }
}

/// The operating system's clock.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

#[cfg(feature = "std")]
impl Default for SystemClock {
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

#[cfg(feature = "std")]
impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Timestamp {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }
}

/// The operating system's random numbers.
#[cfg(feature = "std")]
#[derive(Debug, Default)]
pub struct SystemEntropy;

#[cfg(feature = "std")]
impl Entropy for SystemEntropy {
    fn draw(&self) -> u32 {
        // Every `RandomState` is seeded from the system; hashing nothing gives its bits back.
        use std::hash::{BuildHasher, Hasher};
        let bits = std::hash::RandomState::new().build_hasher().finish();
        extant_format::cast::low_u32(bits ^ (bits >> 32))
    }
}
