//! Every crash of a script: one run as fast as it can, and runs with pauses in which the volume does what time asks for.

use std::ops::ControlFlow;
use std::sync::Arc;

use extant::MountOptions;
use extant_crash::{CrashImage, CrashOptions};
use extant_device::MemoryDevice;

use super::recorded::{End, Failed, Recorded};
use super::state::{LookError, State, look};
use super::test::CrashError;
use crate::{Operation, Step, Volume};

/// When a crash came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// How many steps were done.
    pub done: usize,
    /// Whether the next one was under way.
    pub during: bool,
    /// What had passed meanwhile.
    pub pause: Pause,
}

/// Time that passes in a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pause {
    /// None: the steps follow each other at once.
    None,
    /// Behind so many steps.
    After(usize, Wait),
    /// Behind each step.
    Each(Wait),
}

/// How long a pause is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Until the journal commits by itself; data stays delayed.
    Commit,
    /// Until dirty data is written back, too.
    Writeback,
}

impl Wait {
    /// Longer than `commit=` or `dirty_expire_centisecs` by default.
    const fn seconds(self) -> u64 {
        match self {
            Self::Commit => 6,
            Self::Writeback => 36,
        }
    }
}

/// What is explored.
pub(super) struct Explorer<'a> {
    pub(super) base: &'a MemoryDevice,
    pub(super) mount: &'a MountOptions,
    pub(super) paths: &'a [Vec<u8>],
    /// Steps before this one are made durable first.
    pub(super) setup: usize,
    /// At most so many images of each run.
    pub(super) most_images: usize,
}

impl Explorer<'_> {
    /// Shows `visit` what each crash image holds at the paths; how many images there were. It may end that early.
    pub(super) fn explore(
        &self,
        steps: &[Step],
        mut visit: impl FnMut(Moment, &[State]) -> ControlFlow<()>,
    ) -> Result<usize, CrashError> {
        let mut images = 0;
        for pause in pauses(self.setup, steps.len()) {
            let run = Run::of(self, steps, pause)?;
            for crash in run.images(self.most_images) {
                images += 1;
                let states = self.recover(&crash)?;
                if visit(run.moment(&crash), &states).is_break() {
                    return Ok(images);
                }
            }
        }
        Ok(images)
    }

    /// What an image holds once it was recovered.
    fn recover(&self, crash: &CrashImage) -> Result<Vec<State>, CrashError> {
        let unreadable = |error| CrashError::Unreadable { crash: crash.to_string(), error };
        let volume = Volume::mount(Arc::new(crash.image.snapshot()), MountOptions::new());
        let volume = volume.map_err(unreadable)?;
        let states = self.paths.iter().map(|path| look(&volume.filesystem, path));
        let states: Result<Vec<State>, LookError> = states.collect();
        states.map_err(|error| match error {
            LookError::Engine(error) => unreadable(error),
            LookError::TooLong(path, bytes) => CrashError::TooLong { path, bytes },
        })
    }
}

/// No pause, and each pause behind each step or behind all.
fn pauses(setup: usize, steps: usize) -> impl Iterator<Item = Pause> {
    let waits = [Wait::Commit, Wait::Writeback];
    let single = (setup..=steps).flat_map(move |after| waits.map(|wait| Pause::After(after, wait)));
    [Pause::None].into_iter().chain(single).chain(waits.map(Pause::Each))
}

/// One run of the steps, with a pause.
struct Run {
    recorded: Recorded,
    pause: Pause,
    ends: Vec<(usize, usize)>, // how many steps were done, and from which position on
    begins: Vec<usize>,        // where each step begins
    from: usize,
}

impl Run {
    fn of(explorer: &Explorer<'_>, steps: &[Step], pause: Pause) -> Result<Self, CrashError> {
        let mut operations = Vec::new();
        let mut numbers = Vec::new(); // of the steps that are done with each operation
        let mut push = |operation, number| {
            operations.push(operation);
            numbers.push(number);
        };
        for place in 0..=steps.len() {
            if place == explorer.setup && place > 0 {
                push(Operation::Sync, place);
            }
            let wait = match pause {
                Pause::After(after, wait) if after == place => Some(wait),
                Pause::Each(wait) if place > explorer.setup => Some(wait),
                _ => None,
            };
            let tick = wait.map(|wait| Operation::Tick { seconds: wait.seconds() });
            tick.into_iter().for_each(|tick| push(tick, place));
            steps.get(place).into_iter().for_each(|step| push(step.operation.clone(), place + 1));
        }
        let recorded =
            Recorded::of(explorer.base, explorer.mount, &operations, End::Left, |device| device);
        let recorded = recorded.map_err(|Failed { place, error }| match place {
            Some(place) => CrashError::step(steps, numbers[place].saturating_sub(1), error),
            None => CrashError::Mount(error),
        })?;
        // A pause matters from its beginning on: before it this run is as the one without.
        let is_before = |number: &usize| match pause {
            Pause::After(after, _) => *number <= after.max(explorer.setup),
            Pause::None | Pause::Each(_) => *number <= explorer.setup,
        };
        let spans = || recorded.spans.iter().zip(&numbers);
        let first = spans().zip(&operations).find(|((_, number), operation)| {
            let is_pause = matches!(operation, Operation::Tick { .. });
            !is_before(number) || (is_pause && matches!(pause, Pause::After(..)))
        });
        let from = first.map_or_else(|| recorded.log.events().len(), |((span, _), _)| span.start);
        let mut begins = vec![usize::MAX; steps.len() + 1];
        for (span, number) in spans().filter(|(_, number)| **number > 0) {
            let begin = &mut begins[number - 1];
            *begin = (*begin).min(span.start);
        }
        let ends = spans().map(|(span, number)| (*number, span.end)).collect();
        Ok(Self { from: from.max(recorded.mounted), recorded, pause, ends, begins })
    }

    fn images(&self, most: usize) -> impl Iterator<Item = CrashImage> {
        let options =
            CrashOptions { seed: 1, from: self.from, all_subsets_up_to: 5, samples: 16, tears: 4 };
        self.recorded.images(options, most, |_| false)
    }

    fn moment(&self, crash: &CrashImage) -> Moment {
        let begun = crash.kept.iter().map(|(event, _)| event + 1).max().unwrap_or(0);
        let reached = begun.max(crash.completed);
        let done = self.ends.iter().filter(|(_, end)| *end <= crash.completed);
        let done = done.map(|(number, _)| *number).max().unwrap_or(0);
        let during = self.begins.get(done).is_some_and(|begin| *begin < reached);
        Moment { done, during, pause: self.pause }
    }
}
