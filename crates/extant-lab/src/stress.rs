//! Many threads at once on the same few files, with every check of a debug build on.
//!
//! Threads write, store as through mappings, write past the cache, cut, punch, zero, allocate, shift, read, sync, tick and drop
//! caches. Each word that is read must come from a write that can have put it there ([`history`]). When all stand still
//! the engine recounts itself; at the end of a turn the image is unmounted, recounted from its bitmaps, shown to `e2fsck
//! -fn`, mounted again and compared. A thread that gets nowhere for long is a failure, told with what each one does.

mod history;
mod worker;

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use extant::OpenOptions;
use extant_device::MemoryDevice;
use extant_script::{Volume, mount_options};
use extant_testkit::oracle::{self, Scratch};

use crate::bases::load;
use crate::{counts, volume};
use history::{History, Moments, Rule, read_words};
use worker::Worker;

/// An image and a way to mount it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    mebibytes: u64,
    /// What ranges that move have to be whole of.
    cluster: u64,
    mkfs: &'static [&'static str],
    mount: &'static str,
    cache: u64,
}

/// Every kind, in an order that never changes; new ones come last.
const KINDS: [Kind; 12] = [
    kind("4k", 24, 4096, &["-b", "4096"], "", 8),
    kind("1k", 8, 1024, &["-b", "1024"], "dioread_lock", 1),
    kind("1k-inline", 8, 1024, &["-b", "1024", "-O", "inline_data"], "", 4),
    kind("4k-bigalloc", 32, 16384, &["-b", "4096", "-O", "bigalloc", "-C", "16384"], "", 2),
    kind("1k-indirect", 8, 1024, &["-b", "1024", "-O", "^extent,^64bit"], "", 2),
    kind("4k-nodelalloc", 24, 4096, &["-b", "4096"], "nodelalloc", 4),
    kind("4k-journal", 24, 4096, &["-b", "4096"], "data=journal", 4),
    kind(
        "1k-bigalloc",
        16,
        8192,
        &["-b", "1024", "-O", "bigalloc", "-C", "8192"],
        "data=writeback",
        4,
    ),
    kind("1k-no-journal", 8, 1024, &["-b", "1024", "-O", "^has_journal"], "", 2),
    kind("1k-full", 4, 1024, &["-b", "1024"], "", 4),
    kind("4k-indirect", 24, 4096, &["-b", "4096", "-O", "^extent,^64bit"], "nodelalloc", 4),
    kind("1k-lock-nodelalloc", 8, 1024, &["-b", "1024"], "nodelalloc,dioread_lock", 1),
];

const fn kind(
    name: &'static str,
    mebibytes: u64,
    cluster: u64,
    mkfs: &'static [&'static str],
    mount: &'static str,
    cache: u64,
) -> Kind {
    Kind { name, mebibytes, cluster, mkfs, mount, cache: cache << 20 }
}

/// How long threads run before all stand still and everything is counted and compared.
const ROUND: Duration = Duration::from_millis(1000);
const ROUNDS: u64 = 5;
/// A thread that has ended no call for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// The files, and what can be said of each.
const RULES: [Rule; 4] = [Rule::Exact, Rule::Exact, Rule::Origin, Rule::Moving];

/// What all threads share in a turn.
#[derive(Debug)]
struct Scene {
    volume: Shown,
    cluster: u64,
    moments: Moments,
    histories: Vec<History>,
    stop: AtomicBool,
    operations: AtomicU64,
    doing: Vec<Mutex<(Instant, String)>>,
}

/// A volume, which has nothing to print.
struct Shown(Volume);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Volume")
    }
}

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Decides what each thread does; not who goes first.
    pub seed: u64,
    /// Threads.
    pub threads: u64,
    /// For how long; a turn that has begun ends.
    pub time: Duration,
    /// The first turn.
    pub first: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Images, each mounted in a way of its own.
    pub turns: u64,
    /// Times that all stood still.
    pub rounds: u64,
    /// Calls of all threads.
    pub operations: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, rounds, operations } = self;
        write!(f, "{operations} calls in {rounds} rounds on {turns} images")
    }
}

impl Run {
    /// Turns until the time is over; nothing is done where mke2fs is missing.
    ///
    /// # Errors
    /// The first failure, with the line that repeats the turn. What a thread that hangs holds stays held: the process is
    /// to end.
    pub fn run(&self) -> Result<Report, String> {
        let (start, mut report) = (Instant::now(), Report::default());
        for turn in self.first.. {
            let left = self.time.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            let place = usize::try_from(turn % 12).expect("below the number of kinds");
            let kind = &KINDS[place];
            let told = |reason| {
                let Self { seed, threads, .. } = self;
                format!(
                    "seed {seed}, turn {turn} ({}); repeat: cargo xtask stress --seed {seed} --turn {turn} --threads {threads}\n  {reason}",
                    kind.name
                )
            };
            match self.turn(turn, kind, left, &mut report).map_err(told)? {
                true => report.turns += 1,
                false => break,
            }
        }
        Ok(report)
    }

    fn turn(
        &self,
        turn: u64,
        kind: &Kind,
        left: Duration,
        report: &mut Report,
    ) -> Result<bool, String> {
        let scratch = Scratch::new("stress");
        let path = scratch.path("disk.img");
        let Some(()) = oracle::mkfs_stale(&path, kind.mebibytes << 20, kind.mkfs) else {
            return Ok(false);
        };
        let device = Arc::new(load(&path));
        let mut scene = Arc::new(self.scene(kind, &device)?);
        let start = Instant::now();
        for round in 0..ROUNDS {
            let left = left.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            self.round(&mut scene, turn << 16 | round, left.min(ROUND))
                .map_err(|reason| format!("round {round}: {reason}"))?;
            report.rounds += 1;
        }
        report.operations += scene.operations.load(Ordering::Relaxed);
        let scene = Arc::try_unwrap(scene).expect("all threads have ended");
        scene.volume.0.unmount().map_err(|error| format!("unmount: {error}"))?;
        counts::check(&device)?;
        fs::write(&path, device.to_vec()).map_err(|error| error.to_string())?;
        oracle::e2fsck(&path)?;
        let again = mount(kind, &device)?;
        for (number, history) in scene.histories.iter().enumerate() {
            let found = contents(&again, number)?;
            if found != history.base() {
                return Err(format!("file {number} holds something else after a remount"));
            }
        }
        again.filesystem.check_invariants(true).map_err(|error| error.to_string())?;
        Ok(true)
    }

    fn scene(&self, kind: &Kind, device: &Arc<MemoryDevice>) -> Result<Scene, String> {
        let volume = mount(kind, device)?;
        for number in 0..RULES.len() {
            let made = volume.filesystem.create(worker::name(number));
            made.map(drop).map_err(|error| error.to_string())?;
        }
        let history = |(number, rule): (usize, &Rule)| History::new(worker::mark(number), *rule);
        let idle = |_| Mutex::new((Instant::now(), "nothing yet".to_owned()));
        Ok(Scene {
            volume: Shown(volume),
            cluster: kind.cluster,
            moments: Moments::default(),
            histories: RULES.iter().enumerate().map(history).collect(),
            stop: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            doing: (0..self.threads).map(idle).collect(),
        })
    }

    /// All threads run for `time`, end, and everything is counted and compared.
    fn round(&self, scene: &mut Arc<Scene>, number: u64, time: Duration) -> Result<(), String> {
        scene.stop.store(false, Ordering::Release);
        let threads: Vec<_> = (0..self.threads)
            .map(|thread| {
                let seed = self.seed << 40 ^ number << 8 ^ thread;
                let scene = Arc::clone(scene);
                thread::spawn(move || {
                    let thread = usize::try_from(thread).expect("not so many threads");
                    Worker::new(&scene, thread, seed).run()
                })
            })
            .collect();
        watch(scene, threads, time)?;
        let filesystem = &scene.volume.0.filesystem;
        filesystem.check_invariants(true).map_err(|error| error.to_string())?;
        for (number, history) in scene.histories.iter().enumerate() {
            history.settle(&scene.moments, contents(&scene.volume.0, number)?)?;
        }
        Ok(())
    }
}

/// Waits for all threads, and tells them to stop after `time`, or when one has failed.
fn watch(
    scene: &Scene,
    mut threads: Vec<JoinHandle<Result<(), String>>>,
    time: Duration,
) -> Result<(), String> {
    let (start, mut outcome) = (Instant::now(), Ok(()));
    for slot in &scene.doing {
        slot.lock().unwrap_or_else(PoisonError::into_inner).0 = start;
    }
    while !threads.is_empty() {
        if outcome.is_err() || start.elapsed() >= time {
            scene.stop.store(true, Ordering::Release);
        }
        let (ended, running): (Vec<_>, Vec<_>) =
            threads.into_iter().partition(JoinHandle::is_finished);
        threads = running;
        for thread in ended {
            let ended = thread.join().unwrap_or_else(|panic| {
                let words = panic.downcast_ref::<String>().cloned();
                let fixed = || panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
                Err(format!("panicked: {}", words.or_else(fixed).unwrap_or_default()))
            });
            outcome = outcome.and(ended);
        }
        if let Some(told) = hanging(scene, threads.len()) {
            scene.stop.store(true, Ordering::Release);
            return Err(outcome
                .err()
                .map_or(told.clone(), |first| format!("{first}\n  then {told}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    outcome
}

/// What each thread does, if `running` run and none has ended a call for long.
fn hanging(scene: &Scene, running: usize) -> Option<String> {
    let doing: Vec<_> = scene
        .doing
        .iter()
        .map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone())
        .collect();
    let latest = doing.iter().map(|(since, _)| since.elapsed()).max()?;
    let stuck = running > 0 && latest > HANGS_AFTER;
    let line = |(number, (since, what)): (usize, &(Instant, String))| {
        format!("\n    thread {number}, for {} s: {what}", since.elapsed().as_secs())
    };
    let lines = || doing.iter().enumerate().map(line).collect::<String>();
    stuck.then(|| format!("a thread gets nowhere:{}", lines()))
}

fn mount(kind: &Kind, device: &Arc<MemoryDevice>) -> Result<Volume, String> {
    let options = mount_options(kind.mount).map_err(|error| error.to_string())?;
    let options = options.cache_bytes(kind.cache).check_status(true);
    Volume::mount(Arc::<MemoryDevice>::clone(device), options)
        .map_err(|error| format!("mount: {error}"))
}

/// The words of a file, when all stand still.
fn contents(volume: &Volume, number: usize) -> Result<Vec<u64>, String> {
    let read = volume::read_all(&volume.filesystem, &worker::name(number));
    read.map(|bytes| read_words(&bytes)).map_err(|error| format!("read: {error}"))
}

/// How files that are there are opened.
fn opening() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}
