//! [`Survey`]: the runs on the modelled disk that make up the comparison.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::crash;
use super::modelled::{Company, Outcome, Setup};
use super::workload::{Mode, Workload};
use crate::disk::{DiskModel, Elevator};
use crate::{Failure, Stopped, float};

/// What is compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The disk on which everything runs that says nothing else.
    pub disk: DiskModel,
    /// How many writers, in the rows that say nothing else.
    pub writers: u32,
    /// Which numbers of writers are compared.
    pub writer_counts: Vec<u32>,
    /// Bytes that all writers of a run write together.
    pub total_bytes: u64,
    /// Bytes of each write.
    pub call_bytes: u32,
    /// Decides what is left to chance.
    pub seed: u64,
    /// Power cuts of each kind.
    pub cuts: u32,
    /// Threads that do the runs; no figure depends on it.
    pub threads: usize,
}

impl Default for Plan {
    /// Eight writers, 256 MiB, and from one to sixty-four writers.
    fn default() -> Self {
        Self {
            disk: DiskModel::DESKTOP,
            writers: 8,
            writer_counts: vec![1, 2, 4, 8, 16, 32, 64],
            total_bytes: 256 << 20,
            call_bytes: 4096,
            seed: 1,
            cuts: 16,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What a row changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// The number of writers, each of which syncs and is read by itself.
    Writers,
    /// The same, all at the same time.
    WritersTogether,
    /// How the writers go about it.
    Habit,
    /// The disk.
    Disk,
}

/// One setup with each mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it changes.
    pub question: Question,
    /// And how.
    pub label: String,
    /// The setup; its mode is none in particular.
    pub setup: Setup,
    /// In the order of [`Mode::ALL`].
    pub outcomes: Vec<Outcome>,
}

impl Row {
    /// The outcome of a mode.
    pub fn outcome(&self, mode: Mode) -> &Outcome {
        let at = Mode::ALL.iter().position(|one| *one == mode).unwrap_or_default();
        &self.outcomes[at]
    }

    /// How many times as long writing takes without delay, by another mode.
    pub fn write_factor(&self, mode: Mode) -> f64 {
        ratio(self.outcome(mode).write, self.outcome(Mode::Delayed).write)
    }

    /// The same of reading; `None` if nothing was read.
    pub fn read_factor(&self, mode: Mode) -> Option<f64> {
        let (other, delayed) = (self.outcome(mode).read, self.outcome(Mode::Delayed).read);
        (delayed > Duration::ZERO).then(|| ratio(other, delayed))
    }

    /// Millions of bytes a second, written until they are durable.
    pub fn write_rate(&self, mode: Mode) -> f64 {
        rate(self.setup.workload.bytes(), self.outcome(mode).write)
    }

    /// Millions of bytes a second, read back; `None` if nothing was read.
    pub fn read_rate(&self, mode: Mode) -> Option<f64> {
        let read = self.outcome(mode).read;
        (read > Duration::ZERO).then(|| rate(self.setup.workload.bytes(), read))
    }
}

fn ratio(other: Duration, base: Duration) -> f64 {
    other.as_secs_f64() / base.as_secs_f64().max(1e-9)
}

/// Millions of bytes a second.
pub fn rate(bytes: u64, time: Duration) -> f64 {
    float(bytes) / 1e6 / time.as_secs_f64().max(1e-9)
}

/// Power cuts of one mode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cuts {
    /// How it was done.
    pub setup: crash::Setup,
    /// What each took.
    pub losses: Vec<crash::Loss>,
}

/// Everything that was measured on the modelled disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// What was compared.
    pub plan: Plan,
    /// Runs.
    pub rows: Vec<Row>,
    /// Power cuts, each mode without `fsync` and then each mode with it.
    pub cuts: Vec<Cuts>,
}

impl Survey {
    /// The row that everything else is compared with.
    pub fn base(&self) -> Option<&Row> {
        let mut rows = self.of(Question::Writers);
        rows.find(|row| row.setup.workload.writers == self.plan.writers)
    }

    /// The rows that answer a question.
    pub fn of(&self, question: Question) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.question == question)
    }
}

impl Plan {
    /// Does it all; `done` is told of each run that is over, and says whether to go on.
    ///
    /// # Errors
    /// The first failure of a run, or [`Failure::Stopped`].
    pub fn run(&self, done: &Told<'_>) -> Result<Survey, Failure> {
        let plans = self.rows();
        let jobs: Vec<Setup> = plans
            .iter()
            .flat_map(|(_, _, setup)| Mode::ALL.map(|mode| Setup { mode, ..*setup }))
            .collect();
        let outcomes = side_by_side(&jobs, self.threads, done, Setup::run)?;
        let mut rows: Vec<Row> = plans
            .into_iter()
            .zip(outcomes.chunks(Mode::ALL.len()))
            .map(|((question, label, setup), outcomes)| Row {
                question,
                label,
                setup,
                outcomes: outcomes.to_vec(),
            })
            .collect();
        share_reads(&mut rows, self.disk.write_cache_bytes);
        let setups = self.cut_setups();
        let losses = side_by_side(&setups, self.threads, done, crash::Setup::run)?;
        let cuts = setups.into_iter().zip(losses);
        let cuts = cuts.map(|(setup, losses)| Cuts { setup, losses }).collect();
        Ok(Survey { plan: self.clone(), rows, cuts })
    }

    /// How many runs [`Self::run`] makes.
    pub fn runs(&self) -> usize {
        self.rows().len() * Mode::ALL.len() + self.cut_setups().len()
    }

    fn setup(&self, writers: u32) -> Setup {
        Setup {
            disk: self.disk,
            mode: Mode::Delayed,
            workload: Workload {
                writers,
                total_bytes: self.total_bytes,
                call_bytes: self.call_bytes,
                seed: self.seed,
            },
            company: Company::InTurn,
            sync_every: None,
            cache_bytes: AMPLE_CACHE.max(self.total_bytes * 8),
            reads: true,
        }
    }

    fn rows(&self) -> Vec<(Question, String, Setup)> {
        let mut rows = Vec::new();
        for writers in self.counts() {
            rows.push((Question::Writers, writers.to_string(), self.setup(writers)));
        }
        let most = self.counts().last().copied();
        for writers in
            [Some(self.writers), most.filter(|most| *most > self.writers)].into_iter().flatten()
        {
            let setup = Setup { company: Company::Together, ..self.setup(writers) };
            rows.push((Question::WritersTogether, writers.to_string(), setup));
        }
        let base = self.setup(self.writers);
        let large = Workload { call_bytes: 1 << 20, ..base.workload };
        for (label, setup) in [
            ("fsync after every MiB", Setup { sync_every: Some(1 << 20), ..base }),
            (
                "memory for a quarter of the data",
                Setup { cache_bytes: self.total_bytes / 4, ..base },
            ),
            ("writes of 1 MiB", Setup { workload: large, ..base }),
        ] {
            rows.push((Question::Habit, label.to_owned(), setup));
        }
        rows.extend(self.disks().into_iter().map(|(label, disk)| {
            let reads = disk.write_cache_bytes == self.disk.write_cache_bytes;
            (Question::Disk, label, Setup { disk, reads, ..base })
        }));
        rows
    }

    /// The numbers of writers, the usual one among them.
    fn counts(&self) -> Vec<u32> {
        let mut counts = self.writer_counts.clone();
        counts.push(self.writers);
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// Disks that differ in queue depth and elevator, with and without a write cache, and in the cache's size.
    fn disks(&self) -> Vec<(String, DiskModel)> {
        let (usual, depth) = match self.disk.write_cache_bytes {
            0 => (DiskModel::DESKTOP.write_cache_bytes, self.disk.queue_depth),
            bytes => (bytes, self.disk.queue_depth),
        };
        let orders = [(1, Elevator::None), (1, Elevator::Deadline), (depth, Elevator::None)];
        let mut kinds: Vec<(u32, Elevator, u64)> = Vec::new();
        for cache in [0, usual] {
            kinds.extend(orders.map(|(depth, elevator)| (depth, elevator, cache)));
        }
        let caches = [0, usual * 4, usual * 16];
        kinds.extend(caches.map(|cache| (depth, Elevator::Deadline, cache)));
        let disk = |(queue_depth, elevator, write_cache_bytes): (u32, Elevator, u64)| {
            let cache = match write_cache_bytes {
                0 => "write cache off".to_owned(),
                bytes => format!("write cache {} MiB", bytes >> 20),
            };
            let label = format!("{cache}, depth {queue_depth}, {}", elevator.name());
            (label, DiskModel { queue_depth, elevator, write_cache_bytes, ..self.disk })
        };
        kinds.into_iter().map(disk).collect()
    }

    fn cut_setups(&self) -> Vec<crash::Setup> {
        let with = |sync_every| {
            Mode::ALL.map(|mode| crash::Setup {
                disk: self.disk,
                mode,
                writers: self.writers,
                bytes_per_second: SLOW_BYTES_PER_SECOND,
                from: Duration::from_secs(40),
                to: Duration::from_secs(100),
                cuts: self.cuts,
                sync_every,
                seed: self.seed,
            })
        };
        [with(None), with(Some(Duration::from_secs(5)))].concat()
    }
}

/// The write cache is empty when files are read, so setups that differ in nothing else read alike.
fn share_reads(rows: &mut [Row], usual_cache: u64) {
    let read: Vec<Row> = rows.iter().filter(|row| row.setup.reads).cloned().collect();
    for row in rows.iter_mut().filter(|row| !row.setup.reads) {
        let disk = DiskModel { write_cache_bytes: usual_cache, ..row.setup.disk };
        let alike = Setup { disk, reads: true, ..row.setup };
        let Some(same) = read.iter().find(|other| other.setup == alike) else { continue };
        for (outcome, same) in row.outcomes.iter_mut().zip(&same.outcomes) {
            (outcome.read, outcome.read_disk) = (same.read, same.read_disk);
        }
    }
}

/// Does all jobs in some threads; results are in the jobs' order.
fn side_by_side<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    done: &Told<'_>,
    run: impl Fn(&J) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R, Failure>>>> =
        jobs.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let Some((job, result)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).zip(results.get(at))
        } {
            let outcome = run(job).and_then(|outcome| done().map(|()| outcome).map_err(Into::into));
            if outcome.is_err() {
                next.store(jobs.len(), Ordering::Relaxed);
            }
            *result.lock().expect("nobody else has it") = Some(outcome);
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    let results = results.into_iter().map(|slot| slot.into_inner().expect("its thread has ended"));
    // After a failure the jobs that nobody had begun are left; the failure itself says more than they do.
    let (done, left): (Vec<_>, Vec<_>) = results.partition(Option::is_some);
    let done = done.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    if left.is_empty() { Ok(done) } else { Err(Stopped.into()) }
}

/// Who is told of each run.
type Told<'a> = dyn Fn() -> Result<(), Stopped> + Sync + 'a;

/// Memory in which everything that is written has room until it is synced.
const AMPLE_CACHE: u64 = 1 << 30;
/// What each writer writes a second when the power fails: a recording, a download, a log.
const SLOW_BYTES_PER_SECOND: u64 = 64 << 10;
