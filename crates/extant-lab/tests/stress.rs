//! The bounded part of `cargo xtask stress`.

use std::time::Duration;

use extant_lab::stress::Run;

/// Threads at once on the same files read what one of them wrote there, and leave a clean image.
#[test]
fn threads_read_what_one_of_them_wrote_there() {
    for first in [0, 4, 11] {
        let run = Run { seed: 1, threads: 8, time: Duration::from_secs(2), first };
        if let Err(failure) = run.run() {
            panic!("{failure}");
        }
    }
}
