//! Sixteen that work at once, for long, with little memory: the server keeps to its limit, and nobody waits for long.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::loads::{Bulk, Load, Namer, Replacer, Writer};
use super::suites::{Ground, Outcome, Wishes};

/// The cache's limit.
const CACHE_KIB: u64 = 64 << 10;
/// What a server may take beyond it.
const BEYOND_KIB: u64 = 64 << 10;
/// Longer than any call may take.
const LONGEST_STALL: Duration = Duration::from_secs(10);
const CLIENTS: u64 = 16;

/// Runs all loads for half an hour, or as long as is wished.
pub fn run(wishes: &Wishes) -> Outcome {
    let seconds = wishes.seconds.unwrap_or(1800);
    Outcome::from(work(wishes, Duration::from_secs(seconds)))
}

fn clients(seed: u64) -> Vec<Box<dyn Load>> {
    let client = |number: u64| -> Box<dyn Load> {
        let seed = seed.wrapping_mul(1000) + number;
        match number % 4 {
            0 => Box::new(Writer::new(number, seed)),
            1 => Box::new(Replacer::new(number, seed, true)),
            2 => Box::new(Namer::new(number, seed)),
            _ => Box::new(Bulk::new(number, seed)),
        }
    };
    (0..CLIENTS).map(client).collect()
}

fn work(wishes: &Wishes, duration: Duration) -> Result<String, String> {
    let mut ground = Ground::new(&wishes.program, "mount-load", "512M", "cache=64M,commit=1")?;
    let root = ground.root().to_owned();
    let mut clients = clients(wishes.seed);
    let prepared = clients.iter_mut().try_for_each(|client| client.prepare(&root));
    prepared.map_err(|error| error.to_string())?;
    let (is_over, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = Mutex::new(Duration::ZERO);
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        let work = |client: &mut Box<dyn Load>| -> Result<(), String> {
            let mut own = Duration::ZERO;
            while !is_over.load(Ordering::Acquire) {
                let start = Instant::now();
                match client.step(&root) {
                    Err(error) if error.raw_os_error() != Some(Errno::NOSPC.raw_os_error()) => {
                        return Err(error.to_string());
                    }
                    _ => {}
                }
                own = own.max(start.elapsed());
                steps.fetch_add(1, Ordering::Relaxed);
            }
            let mut longest = longest.lock().map_err(|_| "a client failed".to_owned())?;
            *longest = longest.max(own);
            Ok(())
        };
        let threads: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || work(client))).collect();
        let start = Instant::now();
        while start.elapsed() < duration && !threads.iter().any(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(500).min(duration));
            sizes.push(ground.served().status_kib("VmRSS"));
        }
        is_over.store(true, Ordering::Release);
        let ends =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a client failed")?);
        ends.collect::<Result<(), String>>()
    })?;
    let verify = |root: &Path| clients.iter().try_for_each(|client| client.verify(root));
    verify(&root)?;
    let most = ground.served().status_kib("VmHWM");
    let blocks = std::fs::metadata(ground.beside("disk.img")).map_or(0, |image| image.blocks());
    let ground = ground.again()?;
    verify(ground.root())?;
    ground.end()?;
    let longest = longest.into_inner().unwrap_or_default();
    // The middle of the run, and its end: what grows from one to the other goes on to grow.
    let quarter = sizes.len() / 4;
    let mean =
        |part: &[u64]| part.iter().sum::<u64>() / u64::try_from(part.len()).unwrap_or(1).max(1);
    let (middle, end) = (mean(&sizes[quarter..2 * quarter]), mean(&sizes[3 * quarter..]));
    let told = format!(
        "{} steps of {CLIENTS} clients; at most {} KiB beyond the cache's {CACHE_KIB}; on average {middle} KiB in the second quarter, {end} in the last; longest step {} ms; {} MiB of image",
        steps.into_inner(),
        most.saturating_sub(CACHE_KIB),
        longest.as_millis(),
        blocks >> 11,
    );
    match most > CACHE_KIB + BEYOND_KIB || longest > LONGEST_STALL {
        true => Err(told),
        false => Ok(told),
    }
}
