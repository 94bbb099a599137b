//! Runs cases in worker processes: a panic is told by the worker, a hang by its watchdog, and what kills it by its end.

use std::io::{self, BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::watch::Watch;
use super::{Case, exercise};

/// Which cases to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The seed of all.
    pub seed: u64,
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How many processes share them.
    pub workers: u64,
}

/// A case that did not end as it should.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub case: Case,
    /// How it ended.
    pub end: String,
}

/// Runs every case in worker processes, which `worker` makes from first number, step and count.
///
/// # Errors
/// A worker cannot be started.
pub fn run(run: &Run, worker: impl Fn() -> Command + Sync) -> io::Result<Vec<Failure>> {
    let share = |share| Share::start(run, share, &worker)?.finish(&worker);
    let mut failures = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..run.workers).map(|number| scope.spawn(move || share(number))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("it only reads"));
        ended.collect::<io::Result<Vec<_>>>()
    })?
    .concat();
    failures.sort_by_key(|failure| failure.case.number);
    Ok(failures)
}

/// The cases of one worker: every n-th.
struct Share {
    child: Child,
    run: Run,
    next: u64,
}

impl Share {
    fn start(run: &Run, share: u64, worker: &impl Fn() -> Command) -> io::Result<Self> {
        let next = run.first + share;
        Ok(Self { child: spawn(run, next, worker)?, run: *run, next })
    }

    fn finish(mut self, worker: &impl Fn() -> Command) -> io::Result<Vec<Failure>> {
        let end = self.run.first + self.run.count;
        let mut failures = Vec::new();
        while self.next < end {
            let mut told = None;
            let output = self.child.stdout.take().expect("it was asked for");
            for line in BufReader::new(output).lines() {
                let line = line?;
                let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
                match word {
                    "ok" => self.next += self.run.workers,
                    "panic" => {
                        failures.push(self.failure(rest));
                        self.next += self.run.workers;
                    }
                    "hang" => told = Some(format!("hangs in {rest}")),
                    _ => {}
                }
            }
            let status = self.child.wait()?;
            if self.next < end {
                let ended = || {
                    format!(
                        "the process ended with {status}; memory or stack ran out, or it was killed"
                    )
                };
                failures.push(self.failure(&told.take().unwrap_or_else(ended)));
                self.next += self.run.workers;
                self.child = spawn(&self.run, self.next.min(end), worker)?;
            }
        }
        self.child.wait()?;
        Ok(failures)
    }

    fn failure(&self, end: &str) -> Failure {
        Failure { case: Case { seed: self.run.seed, number: self.next }, end: end.to_owned() }
    }
}

fn spawn(run: &Run, first: u64, worker: &impl Fn() -> Command) -> io::Result<Child> {
    let left = (run.first + run.count).saturating_sub(first).div_ceil(run.workers);
    let numbers = [run.seed, first, run.workers, left].map(|number| number.to_string());
    worker().args(numbers).stdout(Stdio::piped()).spawn()
}

/// The worker's side: runs `count` cases from `first` on, each `step` further, and tells how each ended. `limit` is called
/// before each, to bound the memory that it may take from then on.
pub fn work(seed: u64, first: u64, step: u64, count: u64, limit: impl Fn()) {
    let watch = Watch::new(false);
    let watched = watch.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if let Some(name) = watched.overdue() {
                println!("hang {name}");
                io::stdout().flush().expect("the parent reads");
                std::process::exit(3);
            }
        }
    });
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|panic| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
    for number in (0..count).map(|n| first + n * step) {
        match try_case(Case { seed, number }, &watch, &limit) {
            Ok(()) => println!("ok {number}"),
            Err(step) => {
                let panic = LAST.lock().unwrap_or_else(PoisonError::into_inner).replace('\n', " ");
                println!("panic in {step}: {panic}");
            }
        }
    }
}

/// Runs one case; a panic is an error: the step in which it came.
///
/// # Errors
/// That step.
pub fn try_case(case: Case, watch: &Watch, limit: impl Fn()) -> Result<(), String> {
    let Some(mut damaged) = case.build() else { return Ok(()) };
    limit();
    let run = AssertUnwindSafe(|| exercise(&damaged.image, &mut damaged.random, watch));
    catch_unwind(run).map_err(|_| watch.running().unwrap_or_default())
}
