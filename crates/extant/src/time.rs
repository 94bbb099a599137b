//! Where the engine reads the time and draws random numbers: both come from outside.

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
