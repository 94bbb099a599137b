//! The runs on an image file, in real time.

use std::path::{Path, PathBuf};

use extant_bench::delalloc::image::{Hands, Outcome, Setup};
use extant_bench::delalloc::workload::{Mode, Workload};

use super::{go_on, stoppable};
use crate::judge::{Verdict, judge};
use crate::progress::Progress;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct RealPlan {
    total_bytes: u64,
    rounds: u32,
}

/// What came out.
pub struct Real {
    /// Where the image was.
    pub folder: PathBuf,
    pub rounds: u32,
    pub rows: Vec<RealRow>,
    /// What e2fsck says of the images of the last round.
    pub verdicts: Vec<Verdict>,
}

/// One number of writers.
pub struct RealRow {
    pub workload: Workload,
    /// The best of all rounds, in the order of [`Mode::ALL`].
    pub outcomes: Vec<Outcome>,
}

impl RealRow {
    pub fn outcome(&self, mode: Mode) -> &Outcome {
        let at = Mode::ALL.iter().position(|one| *one == mode).unwrap_or_default();
        &self.outcomes[at]
    }
}

/// An image that is removed when it is no longer needed.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A path in `folder` that no other process uses.
    pub fn new(folder: &Path) -> Self {
        Self(folder.join(format!("extant-bench-{}.img", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover file is no reason to fail.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl RealPlan {
    pub fn new(total_bytes: u64, rounds: u32) -> Self {
        Self { total_bytes, rounds }
    }

    /// Bytes that all runs write.
    pub fn bytes(&self) -> u64 {
        let runs = u64::from(self.rounds) * RUNS_A_ROUND + 1;
        runs.saturating_mul(self.total_bytes)
    }

    pub fn run(&self, folder: &Path, progress: &Progress) -> anyhow::Result<Real> {
        let image = Scratch::new(folder);
        let run =
            |setup: &Setup| stoppable(setup.run(image.path(), &|bytes| go_on(progress, bytes)));
        // The first run pays for memory that the process has never had; it does not count.
        run(&self.setup(8, Mode::Delayed))?;
        let mut best: Vec<Option<Outcome>> =
            WRITERS.iter().flat_map(|_| [None, None, None]).collect();
        let mut verdicts = Vec::new();
        for round in 0..self.rounds {
            verdicts.clear();
            for (row, writers) in WRITERS.into_iter().enumerate() {
                for turn in 0..Mode::ALL.len() {
                    // Everyone goes first once.
                    let number = (turn + usize::try_from(round)?) % Mode::ALL.len();
                    let outcome = run(&self.setup(writers, Mode::ALL[number]))?;
                    verdicts.push(judge(image.path()));
                    let slot = &mut best[row * Mode::ALL.len() + number];
                    *slot = Some(better(slot.take(), outcome));
                }
            }
        }
        let outcomes: Vec<Outcome> = best.into_iter().flatten().collect();
        let rows =
            WRITERS.iter().zip(outcomes.chunks(Mode::ALL.len())).map(|(writers, outcomes)| {
                let workload = self.setup(*writers, Mode::Delayed).workload;
                RealRow { workload, outcomes: outcomes.to_vec() }
            });
        Ok(Real { folder: folder.to_owned(), rounds: self.rounds, rows: rows.collect(), verdicts })
    }

    fn setup(&self, writers: u32, mode: Mode) -> Setup {
        Setup {
            mode,
            workload: Workload {
                writers,
                total_bytes: self.total_bytes,
                call_bytes: 4096,
                seed: 0,
            },
            hands: Hands::Each,
            cache_bytes: self.total_bytes.saturating_mul(8).max(1 << 30),
            image_bytes: self.total_bytes.saturating_mul(4).max(64 << 20),
            reads: true,
        }
    }
}

/// Each figure by itself: whatever disturbs a run makes it slower.
fn better(old: Option<Outcome>, new: Outcome) -> Outcome {
    let Some(old) = old else { return new };
    let less = |a: extant_bench::Cpu, b: extant_bench::Cpu| if a.time < b.time { a } else { b };
    Outcome {
        write: old.write.min(new.write),
        write_cpu: less(old.write_cpu, new.write_cpu),
        read: old.read.min(new.read),
        read_cpu: less(old.read_cpu, new.read_cpu),
        ..new
    }
}

const WRITERS: [u32; 3] = [1, 8, 64];
const RUNS_A_ROUND: u64 = 9;
