//! Ctrl-C and `kill`: the first ends a command between two files, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Once};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The command was asked to end, and has ended in good order.
#[derive(Debug, thiserror::Error)]
#[error("interrupted{0}")]
pub struct Interrupted(pub String);

/// From now on a signal to end is a wish that [`check`] tells of. Signals that are ignored stay so.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM] {
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            // Where no handler can be set the signal does what it always does.
            let _ = flag::register_conditional_default(signal, Arc::clone(&AGAIN));
            let _ = flag::register(signal, Arc::clone(&AGAIN));
            let number = usize::try_from(signal).unwrap_or(0);
            let _ = flag::register_usize(signal, Arc::clone(&SIGNAL), number);
        }
    });
}

/// Whether a signal to end came.
pub fn is_wanted() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// Fails once a signal to end came.
pub fn check() -> Result<(), Interrupted> {
    if is_wanted() { Err(Interrupted(String::new())) } else { Ok(()) }
}

/// Ends the process by the signal that came, if one did, as whoever waits for it expects.
pub fn die() {
    let signal = i32::try_from(SIGNAL.load(Ordering::Relaxed)).unwrap_or(0);
    if signal != 0 {
        // If that cannot be done the exit code tells.
        let _ = low_level::emulate_default_handler(signal);
    }
}

/// The signals that this process was started to ignore, a bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// The signal that came; none is zero.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
/// A further signal does what it does without a handler.
static AGAIN: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
