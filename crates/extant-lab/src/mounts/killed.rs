//! Sudden death of a mount's server, at any moment and under load: the image recovers, by the next mount and by the kernel, and
//! what had been synced is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use extant_testkit::Random;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use rustix::io::Errno;

use super::loads::{Bulk, Load, Namer, Replacer, Writer};
use super::server::{Served, judge};

/// A kind of image, and how it is mounted.
struct Kind {
    mkfs: &'static [&'static str],
    options: &'static str,
}

/// Each series of kills has the next one.
const KINDS: [Kind; 12] = [
    Kind { mkfs: &["-b", "4096"], options: "" },
    Kind { mkfs: &["-b", "1024"], options: "commit=1" },
    Kind { mkfs: &["-b", "4096", "-O", "fast_commit"], options: "" },
    Kind { mkfs: &["-b", "4096"], options: "data=journal" },
    Kind { mkfs: &["-b", "4096"], options: "writeback" },
    Kind { mkfs: &["-b", "1024", "-O", "inline_data"], options: "cache=2M" },
    Kind { mkfs: &["-b", "4096"], options: "nodelalloc,noloop" },
    Kind { mkfs: &["-b", "1024", "-O", "bigalloc", "-C", "8192"], options: "" },
    Kind { mkfs: &["-b", "1024", "-O", "^extent,^64bit"], options: "noloop" },
    Kind { mkfs: &["-b", "4096", "-O", "fast_commit,inline_data"], options: "writeback,commit=1" },
    Kind {
        mkfs: &["-b", "2048", "-O", "^metadata_csum"],
        options: "dirty_expire_centisecs=10,commit=1",
    },
    Kind { mkfs: &["-b", "4096", "-O", "orphan_file,large_dir"], options: "sync" },
];
/// An image dies so often before there is a new one.
const DEATHS: u64 = 5;
const IMAGE_BYTES: u64 = 96 << 20;
/// A server lives at most so long under load.
const LONGEST_LIFE_MS: u64 = 400;

/// What came of all kills.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many servers were killed.
    pub kills: u64,
    /// How many things the loads had done by then.
    pub steps: u64,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// Kills `count` servers under load, each after a time that `seed` decides, from two threads. `None` where nobody can judge.
pub fn run(program: &Path, seed: u64, count: u64) -> Option<Report> {
    if !oracle::has("mkfs.ext4") || !oracle::has("e2fsck") {
        extant_testkit::skip("killed mounts: no e2fsprogs to judge");
        return None;
    }
    let report = Mutex::new(Report::default());
    let next = AtomicU64::new(0);
    let series = count.div_ceil(DEATHS);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= series {
                        return;
                    }
                    let deaths = DEATHS.min(count - number * DEATHS);
                    let mut series = Series::new(program, seed, number);
                    let outcome = series.run(deaths);
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.kills += series.kills;
                    report.steps += series.steps.load(Ordering::Relaxed);
                    if let Err(reason) = outcome {
                        let failure = series.describe(&reason);
                        report.failures.push(failure);
                    }
                }
            });
        }
    });
    Some(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Kills one after the other of one image, which ages.
struct Series<'a> {
    program: &'a Path,
    seed: u64,
    number: u64,
    kind: &'static Kind,
    random: Random,
    scratch: Scratch,
    loads: Vec<Box<dyn Load>>,
    kills: u64,
    steps: AtomicU64,
    /// Whether the kernel mounts such an image before anything has happened to it.
    has_kernel: bool,
}

impl<'a> Series<'a> {
    fn new(program: &'a Path, seed: u64, number: u64) -> Self {
        let mut random = Random::new(Random::new(seed).next_u64() ^ number.wrapping_mul(ODD));
        let kind = &KINDS[usize::try_from(number % 12).unwrap_or(0)];
        // Dirty pages of the kernel's are not there yet when a file is renamed.
        let is_whole = !kind.options.contains("writeback");
        let mut seed_of_load = || random.next_u64();
        let loads: Vec<Box<dyn Load>> = vec![
            Box::new(Writer::new(0, seed_of_load())),
            Box::new(Writer::new(1, seed_of_load())),
            Box::new(Replacer::new(0, seed_of_load(), is_whole)),
            Box::new(Namer::new(0, seed_of_load())),
            Box::new(Namer::new(1, seed_of_load())),
            Box::new(Bulk::new(0, seed_of_load())),
        ];
        let scratch = Scratch::new("mount-killed");
        Self {
            program,
            seed,
            number,
            kind,
            random,
            scratch,
            loads,
            kills: 0,
            steps: AtomicU64::new(0),
            has_kernel: false,
        }
    }

    fn describe(&self, reason: &str) -> String {
        let Kind { mkfs, options } = self.kind;
        let (seed, number, kills) = (self.seed, self.number, self.kills);
        format!("seed {seed}, series {number}, kill {kills}, {mkfs:?}, -o {options:?}: {reason}")
    }

    fn run(&mut self, deaths: u64) -> Result<(), String> {
        let (image, twin) = (self.scratch.path("disk.img"), self.scratch.path("twin.img"));
        if oracle::mkfs(&image, IMAGE_BYTES, self.kind.mkfs).is_none() {
            return Ok(());
        }
        if let Some(mount) = KernelMount::new(&image, &self.scratch.path("kernel"), "") {
            mount.unmount().map_err(|error| error.to_string())?;
            self.has_kernel = true;
        }
        for death in 0..deaths {
            let mut served = self.start(&image)?;
            self.live_and_die(&mut served, death == 0)?;
            drop(served);
            self.kills += 1;
            fs::copy(&image, &twin).map_err(|error| error.to_string())?;
            fs::copy(&image, self.scratch.path("killed.img")).map_err(|error| error.to_string())?;
            let told = |whose| move |reason: String| format!("recovered by {whose}: {reason}");
            let by_kernel = self.recover_by_kernel(&twin).map_err(told("the kernel"));
            let by_mount = self.recover_by_mount(&image).map_err(told("a mount"));
            if let Err(reason) = by_kernel.and(by_mount) {
                return Err(format!("{reason}; the image is {}", self.keep().display()));
            }
        }
        Ok(())
    }

    /// Keeps the image as the server has left it.
    fn keep(&self) -> PathBuf {
        let name = format!("extant-killed-{}-{}.img", self.seed, self.number);
        let kept = std::env::temp_dir().join(name);
        let _ = fs::copy(self.scratch.path("killed.img"), &kept);
        kept
    }

    fn start(&self, image: &Path) -> Result<Served, String> {
        let point = self.scratch.path("point");
        Served::start(self.program, image, &point, self.kind.options)
            .map_err(|refused| format!("it does not mount: {refused:?}"))
    }

    /// Lets the loads work, each in its thread, until the server is killed.
    fn live_and_die(&mut self, served: &mut Served, is_new: bool) -> Result<(), String> {
        let root = served.point().to_owned();
        if is_new {
            let prepare = |load: &mut Box<dyn Load>| load.prepare(&root);
            self.loads
                .iter_mut()
                .try_for_each(prepare)
                .map_err(|error| format!("before: {error}"))?;
        }
        let life = Duration::from_micros(self.random.below(LONGEST_LIFE_MS * 1000));
        let (is_killed, steps) = (AtomicBool::new(false), &self.steps);
        std::thread::scope(|scope| {
            let work = |load: &mut Box<dyn Load>| -> Result<(), String> {
                loop {
                    match load.step(&root) {
                        Ok(()) => drop(steps.fetch_add(1, Ordering::Relaxed)),
                        Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                        }
                        Err(_) if is_killed.load(Ordering::Acquire) => return Ok(()),
                        Err(error) => {
                            let load: String = format!("{load:?}").chars().take(60).collect();
                            return Err(format!("{error}, told to {load}"));
                        }
                    }
                }
            };
            let threads: Vec<_> =
                self.loads.iter_mut().map(|load| scope.spawn(move || work(load))).collect();
            std::thread::sleep(life);
            is_killed.store(true, Ordering::Release);
            served.kill();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(outcome) => outcome.map_err(|error| format!("before it was killed: {error}")),
                Err(_) => Err("a load failed".to_owned()),
            });
            ended.collect::<Result<(), String>>()
        })?;
        match served.said() {
            said if said.contains("panicked") => Err(said),
            _ => Ok(()),
        }
    }

    fn verify(&self, root: &Path) -> Result<(), String> {
        self.loads.iter().try_for_each(|load| load.verify(root))
    }

    fn recover_by_kernel(&self, twin: &Path) -> Result<(), String> {
        if !self.has_kernel {
            return Ok(());
        }
        let mounted = KernelMount::try_new(twin, &self.scratch.path("kernel"), "");
        let mount = mounted.ok_or("no mount program")??;
        self.verify(mount.root())?;
        mount.unmount().map_err(|error| error.to_string())?;
        match judge(twin) {
            Err(words) if !self.is_known(&words) => Err(words),
            _ => Ok(()),
        }
    }

    /// The kernel (6.18) does not count the blocks that a directory gets while it replays fast commits, its own neither.
    fn is_known(&self, words: &str) -> bool {
        let mut findings = words.lines().filter(|line| line.ends_with("? no"));
        let has_fast_commits = self.kind.mkfs.iter().any(|word| word.contains("fast_commit"));
        has_fast_commits && findings.all(|line| line.contains(", i_blocks is "))
    }

    fn recover_by_mount(&mut self, image: &Path) -> Result<(), String> {
        let served = self.start(image)?;
        self.verify(served.point())?;
        for load in &mut self.loads {
            load.settle(served.point()).map_err(|error| error.to_string())?;
        }
        let ended = served.unmount()?;
        if !ended.status.success() || !ended.said.is_empty() {
            return Err(format!("{}: {}", ended.status, ended.said));
        }
        judge(image)
    }
}

/// Spreads neighbouring numbers over all seeds.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
