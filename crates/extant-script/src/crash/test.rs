//! [`CrashTest`]: rehearsal, exploration, and what is to be said of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use extant::{Error, MountOptions};
use extant_device::MemoryDevice;

use super::explore::{Explorer, Moment};
use super::recorded::Runner;
use super::remedy::{self, Remedy};
use super::state::{Found, LookError, Looks, State, is_empty_file, look, name};
use crate::{Operation, Script, Step};

/// A script, and what it is tested on.
#[derive(Clone, Debug)]
pub struct CrashTest {
    /// The image before the script; it is not changed.
    pub base: MemoryDevice,
    /// How it is mounted.
    pub mount: MountOptions,
    /// At most so many images of each run.
    pub most_images: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    /// The image cannot be mounted.
    #[error("mounting")]
    Mount(#[source] Error),
    /// An operation of the script fails.
    #[error("line {line}: {operation}")]
    Operation {
        /// Counted from 1.
        line: usize,
        /// Which one.
        operation: Box<Operation>,
        /// Why.
        #[source]
        error: Error,
    },
    /// A promise of a file that never was there.
    #[error("line {line}: there is no /{} to promise", String::from_utf8_lossy(path))]
    NoFile {
        /// Counted from 1.
        line: usize,
        /// The path.
        path: Vec<u8>,
    },
    /// All versions of a file are kept in memory.
    #[error(
        "{}: {bytes} bytes are too many to keep all versions of",
        String::from_utf8_lossy(path)
    )]
    TooLong {
        /// The path.
        path: Vec<u8>,
        /// How long it is.
        bytes: u64,
    },
    /// An image that a crash left cannot be read: a defect of the engine.
    #[error("what a crash left cannot be read ({crash})")]
    Unreadable {
        /// Which one.
        crash: String,
        /// Why.
        #[source]
        error: Error,
    },
}

impl CrashError {
    pub(super) fn step(steps: &[Step], place: usize, error: Error) -> Self {
        let (line, operation) = match steps.get(place) {
            Some(step) => (step.line, step.operation.clone()),
            None => (0, Operation::Sync),
        };
        Self::Operation { line, operation: Box::new(operation), error }
    }
}

/// What a crash test has found.
#[derive(Clone, Debug, Default)]
pub struct CrashReport {
    /// The script's promises, in its order.
    pub promises: Vec<Promise>,
    /// Where nothing is promised: every file that the script changes, and what a crash can leave of it.
    pub files: Vec<FileReport>,
    /// How many images of crashes were recovered, those of remedies apart.
    pub images: usize,
}

/// A promise, and whether it is kept.
#[derive(Clone, Debug)]
pub struct Promise {
    /// The line that makes it; none for what every file should be like behind the last line.
    pub line: Option<usize>,
    /// What is promised.
    pub path: Vec<u8>,
    /// What breaks it: states that no line left first.
    pub breaches: Vec<Breach>,
    /// What was tried and helps; `None` if nothing is broken, or nothing helps.
    pub remedy: Option<Remedy>,
}

/// A state that breaks a promise, and when a crash can leave it.
#[derive(Clone, Debug)]
pub struct Breach {
    /// The state.
    pub found: Found,
    /// The first such crash.
    pub moment: Moment,
}

/// What a crash can leave of a file.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// What is reached, in the order of the first crash that does so.
    pub reached: Vec<Reached>,
    /// What it would take to have the file whole and as the last line leaves it.
    pub promise: Promise,
}

/// A state and the crashes that leave it.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The state.
    pub found: Found,
    /// How many steps were done at the earliest and at the latest such crash.
    pub steps: (usize, usize),
    /// The first such crash.
    pub moment: Moment,
}

/// A promise of the script: what must be at a path behind a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pledge {
    pub(super) path: usize,
    pub(super) step: usize, // so many steps were done
    line: Option<usize>,
    from: usize, // a crash counts once so many steps were done
}

impl Pledge {
    /// Whether both stand on the same line.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.line == other.line
    }
}

/// The states that the script means: after 0, 1, 2, .. steps, by path.
pub(super) struct Rehearsal {
    pub(super) states: Vec<Vec<State>>,
    pub(super) lines: Vec<usize>, // after so many steps this line was the last
    pub(super) inodes: Vec<Vec<Option<u64>>>,
}

impl CrashTest {
    /// Tests a script.
    ///
    /// # Errors
    /// Of the script, or of what it is run on.
    pub fn run(&self, script: &Script) -> Result<CrashReport, CrashError> {
        let paths = paths(script);
        let setup = script.settings.setup;
        let explorer = Explorer {
            base: &self.base,
            mount: &self.mount,
            paths: &paths,
            setup,
            most_images: self.most_images,
        };
        let rehearsal = Rehearsal::of(&explorer, &script.steps)?;
        let pledges = pledges(script, &paths, &rehearsal)?;
        let mut reached: Vec<BTreeMap<Found, Reached>> = vec![BTreeMap::new(); paths.len()];
        let mut breaches: Vec<BTreeMap<Found, Breach>> = vec![BTreeMap::new(); pledges.len()];
        let images = explorer.explore(&script.steps, |moment, states| {
            for (path, (state, reached)) in states.iter().zip(&mut reached).enumerate() {
                let found = rehearsal.tell(path, state);
                let known = reached.entry(found.clone());
                let first = || Reached { found, steps: (moment.done, moment.done), moment };
                let known = known.or_insert_with(first);
                known.steps.0 = known.steps.0.min(moment.done);
                known.steps.1 = known.steps.1.max(moment.done);
            }
            for (number, breaches) in breaches.iter_mut().enumerate() {
                let pledge = pledges[number];
                let state = &states[pledge.path];
                if rehearsal.is_broken(&pledges, number, moment, state) {
                    let found = rehearsal.name(pledge.path, state, pledge.step);
                    breaches.entry(found.clone()).or_insert(Breach { found, moment });
                }
            }
            ControlFlow::Continue(())
        })?;
        let mut promises = Vec::new();
        for (number, breaches) in breaches.into_iter().enumerate() {
            let pledge = pledges[number];
            let remedy = match breaches.is_empty() {
                true => None,
                false => {
                    let until = pledges
                        .iter()
                        .filter(|other| other.path == pledge.path && other.step > pledge.step);
                    let until = until.map(|next| next.step).min().unwrap_or(script.steps.len());
                    remedy::find(&explorer, &rehearsal, script, (pledge, until))?
                }
            };
            let path = paths[pledge.path].clone();
            let breaches = breaches.into_values().collect();
            promises.push(Promise { line: pledge.line, path, breaches, remedy });
        }
        let mut report = CrashReport { images, ..CrashReport::default() };
        if pledges.iter().any(|pledge| pledge.line.is_some()) {
            report.promises = promises;
            return Ok(report);
        }
        report.files = promises
            .into_iter()
            .zip(&pledges)
            .map(|(promise, pledge)| {
                let mut all: Vec<Reached> =
                    std::mem::take(&mut reached[pledge.path]).into_values().collect();
                all.sort_by_key(|reached| (reached.steps, reached.found.clone()));
                FileReport { reached: all, promise }
            })
            .collect();
        Ok(report)
    }
}

impl Rehearsal {
    pub(super) fn of(explorer: &Explorer<'_>, steps: &[Step]) -> Result<Self, CrashError> {
        let device = Arc::new(explorer.base.snapshot());
        let mut runner = Runner::new(device, explorer.mount).map_err(CrashError::Mount)?;
        let mut rehearsal = Self { states: Vec::new(), lines: vec![0], inodes: Vec::new() };
        rehearsal.look(&runner, explorer.paths)?;
        for (place, step) in steps.iter().enumerate() {
            let done = runner.apply(&step.operation);
            done.map_err(|error| CrashError::step(steps, place, error))?;
            rehearsal.lines.push(step.line);
            rehearsal.look(&runner, explorer.paths)?;
        }
        Ok(rehearsal)
    }

    fn look(&mut self, runner: &Runner, paths: &[Vec<u8>]) -> Result<(), CrashError> {
        let filesystem = &runner.volume.filesystem;
        let states = paths.iter().map(|path| look(filesystem, path));
        let states: Result<Vec<State>, LookError> = states.collect();
        self.states.push(states.map_err(|error| match error {
            LookError::Engine(error) => CrashError::Mount(error),
            LookError::TooLong(path, bytes) => CrashError::TooLong { path, bytes },
        })?);
        let inode = |path: &Vec<u8>| {
            filesystem.symlink_metadata(path).ok().map(|found| u64::from(found.inode.get()))
        };
        self.inodes.push(paths.iter().map(inode).collect());
        Ok(())
    }

    /// Names a state of a path, whatever it should be.
    fn tell(&self, path: usize, state: &State) -> Found {
        let found = self.name(path, state, self.states.len() - 1);
        match is_empty_file(state) {
            true => Found { looks: Looks::Empty, ..found },
            false => found,
        }
    }

    /// Names a state of a path, beside what it is after so many steps.
    fn name(&self, path: usize, state: &State, wanted: usize) -> Found {
        let states = self.states.iter().map(|all| &all[path]);
        let known: Vec<(usize, &State)> = self.lines.iter().copied().zip(states).collect();
        name(state, &self.states[wanted][path], &known)
    }

    /// Whether a crash at `moment` that leaves `state` breaks a promise: one is kept by what it promises, by what the next
    /// promise of the path promises or, behind the last one, by what any later line leaves.
    pub(super) fn is_broken(
        &self,
        pledges: &[Pledge],
        number: usize,
        moment: Moment,
        state: &State,
    ) -> bool {
        let pledge = pledges[number];
        let of_path = |other: &&Pledge| other.path == pledge.path && other.step > pledge.step;
        let later: Vec<&Pledge> = pledges.iter().filter(of_path).collect();
        // The next promise takes over once it is made.
        let is_active =
            moment.done >= pledge.from && later.first().is_none_or(|next| moment.done < next.from);
        let is_kept = |step: usize| self.states[step][pledge.path] == *state;
        let kept_later = match later.is_empty() {
            true => (pledge.step..self.states.len()).any(is_kept),
            false => later.iter().any(|next| is_kept(next.step)),
        };
        is_active && !is_kept(pledge.step) && !kept_later
    }
}

/// The script's promises or, if it makes none, one of each changed path: that it is as the last line leaves it, once that is
/// done, and before that as some line does.
pub(super) fn pledges(
    script: &Script,
    paths: &[Vec<u8>],
    rehearsal: &Rehearsal,
) -> Result<Vec<Pledge>, CrashError> {
    let mut pledges = Vec::new();
    for (place, step) in script.steps.iter().enumerate() {
        let Operation::Promise { path } = &step.operation else { continue };
        let known = paths.iter().position(|known| known == path).unwrap_or(0);
        if rehearsal.states[..=place + 1].iter().all(|states| states[known].is_empty()) {
            return Err(CrashError::NoFile { line: step.line, path: path.clone() });
        }
        let step_done = place + 1;
        pledges.push(Pledge {
            path: known,
            step: step_done,
            line: Some(step.line),
            from: step_done,
        });
    }
    if !pledges.is_empty() {
        return Ok(pledges);
    }
    let last = script.steps.len();
    // What came and went was never meant to stay.
    let stays = |path: &usize| {
        let state = |step: usize| &rehearsal.states[step][*path];
        !(state(script.settings.setup).is_empty() && state(last).is_empty())
            && (script.settings.setup..last).any(|step| state(step) != state(last))
    };
    let pledge = |path| Pledge { path, step: last, line: None, from: last };
    Ok((0..paths.len()).filter(stays).map(pledge).collect())
}

/// The paths that the script's steps change behind its preparation, or promise; those below others apart.
fn paths(script: &Script) -> Vec<Vec<u8>> {
    let has_promises = script.operations().any(|step| matches!(step, Operation::Promise { .. }));
    let mut paths = Vec::new();
    let changing = script.steps.iter().skip(if has_promises { 0 } else { script.settings.setup });
    for step in changing {
        paths.extend(step.operation.changed_paths().into_iter().map(<[u8]>::to_vec));
    }
    paths.retain(|path| !path.is_empty() || has_promises);
    paths.sort_unstable();
    paths.dedup();
    paths
}
