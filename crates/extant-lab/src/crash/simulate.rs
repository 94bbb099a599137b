//! The simulator: a seed decides several clients on one volume, the time that passes, a fault and a crash; it runs twice, and
//! both runs must be equal to the last event.
//!
//! Source: the idea is that of TigerBeetle's simulator, and of `--doublecheck` of turso's.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use extant::trace::{Event, Task, TraceSink};
use extant_device::{BlockDevice, MemoryDevice, OperationKind};
use extant_testkit::{
    CrashImages, CrashOptions, Effect, Fault, FaultDevice, Kept, Log, Random, RecordingDevice,
};

use super::attempt::{Attempt, recover};
use super::explore::{Scenario, Set};
use super::verdict::Rule;
use super::{pairs, programs};
use crate::script::model::Model;
use crate::script::{Operation, Target, index, random_script};

/// What a seed came to, both times.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Simulated {
    /// Operations that were done.
    pub operations: usize,
    /// Events of the engine.
    pub events: usize,
    /// Whether a fault was met.
    pub faulty: bool,
}

/// Runs a seed twice.
///
/// # Errors
/// The promise that is broken, or where the two runs differ.
pub fn simulate(seed: u64) -> Result<Simulated, String> {
    let plan = Plan::of(seed);
    let Some(volume) = plan.scenario.volume() else { return Ok(Simulated::default()) };
    let first = plan.run(&volume)?;
    let second = plan.run(&volume)?;
    if let Some(place) = first.0.first_difference(&second.0) {
        return Err(format!("two runs differ from event {place} on"));
    }
    match first.1 == second.1 {
        true => Ok(first.1),
        false => Err(format!("two runs differ: {:?}, {:?}", first.1, second.1)),
    }
}

/// All that a seed decides.
struct Plan {
    scenario: Scenario,
    script: Vec<Operation>,
    model: Model,
    fault: Option<Fault>,
    random: Random, // for what comes after the run
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5EED_0000_0000);
        let set = if random.below(3) == 0 { Set::FastCommits } else { Set::Usual };
        let mut scenario = Scenario::of(set, random.next_u64() >> 16);
        let (script, model) = clients(&mut random);
        scenario.script.clone_from(&script);
        let fault = random.coin().then(|| fault(&mut random));
        Self { scenario, script, model, fault, random }
    }

    fn run(&self, volume: &MemoryDevice) -> Result<(Trace, Simulated), String> {
        let mut random = self.random.clone();
        let trace = Arc::new(Trace::default());
        let device = Arc::new(RecordingDevice::from_image(volume));
        let faulty = Arc::new(FaultDevice::new(Arc::clone(&device)));
        self.fault.into_iter().for_each(|fault| faulty.add(fault));
        let mount = self.scenario.mount.clone().trace(Arc::<Trace>::clone(&trace));
        let position = || device.position();
        let unmounts = random.below(4) == 0;
        let above: Arc<dyn BlockDevice> = Arc::<FaultDevice<_>>::clone(&faulty);
        let attempt = Attempt::run(above, mount, &self.script, self.fault, unmounts, &position)?;
        let log = device.log();
        let (position, image) = crash(&log, &mut random);
        let told = |reason: String| match &attempt.failed {
            Some(failed) => format!("{failed}; then {reason}"),
            None => reason,
        };
        let rule = match (self.fault, self.scenario.journaled) {
            (Some(_), _) => self.scenario.rule_of_failure(),
            (None, true) => Rule::OneMoment,
            (None, false) => Rule::EachByte,
        };
        attempt.judge(&self.model, position, &image, rule).map_err(told)?;
        let recovered = recover(&image).map_err(told)?;
        trace.note(&recovered.to_vec());
        for event in log.events() {
            trace.note(&(event.offset, event.len(), event.is_fua()));
        }
        let simulated = Simulated {
            operations: attempt.spans.len(),
            events: trace.events(),
            faulty: faulty.struck() > 0,
        };
        Ok((trace.take(), simulated))
    }
}

/// What several clients do, in turns, and what it means.
fn clients(random: &mut Random) -> (Vec<Operation>, Model) {
    let mut clients: Vec<std::vec::IntoIter<Operation>> = Vec::new();
    for turn in 0..3 {
        if random.below(3) > 0 {
            // Each kind of program once, since they have their own names.
            clients.push(programs::script(random.below(1 << 32) * 3 + turn).1.into_iter());
        }
    }
    for _ in 0..1 + random.below(2) {
        let (seed, len) = (random.next_u64(), 10 + index(random, 40));
        clients.push(random_script(seed, len).into_iter());
    }
    let (mut model, mut script) = (Model::default(), Vec::new());
    let most = 10 + index(random, 100);
    while script.len() < most && !clients.is_empty() {
        let chosen = index(random, clients.len());
        let Some(operation) = clients[chosen].next() else {
            clients.swap_remove(chosen);
            continue;
        };
        // One client may have taken from another what it needs.
        if is_possible(&model, &operation) && model.apply(&operation).is_ok() {
            script.push(operation);
        }
    }
    (script, model)
}

/// Whether an operation finds what it needs, of the right kind.
fn is_possible(model: &Model, operation: &Operation) -> bool {
    use crate::script::model::NodeKind;
    let state = model.now();
    let kind = |path: &[u8]| {
        state.names.get(path).and_then(|id| state.nodes.get(id)).map(|node| &node.kind)
    };
    let is_directory = |path: &[u8]| path.is_empty() || kind(path) == Some(&NodeKind::Directory);
    let has_directory = |path: &[u8]| {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        is_directory(&path[..slash])
    };
    let fits = match operation {
        Operation::Create { path, .. }
        | Operation::Mkdir { path, .. }
        | Operation::Symlink { path, .. } => has_directory(path),
        Operation::Write { path, .. }
        | Operation::Truncate { path, .. }
        | Operation::Allocate { path, .. }
        | Operation::JournalData { path, .. }
        | Operation::SetXattr { path, .. }
        | Operation::RemoveXattr { path, .. }
        | Operation::Chmod { path, .. }
        | Operation::Hold { path } => kind(path) == Some(&NodeKind::File),
        Operation::Fsync { path } => is_directory(path) || kind(path) == Some(&NodeKind::File),
        Operation::Rename { from, to } => {
            let below = [from.as_slice(), b"/"].concat();
            let over =
                kind(to).is_none_or(|there| !is_directory(from) && *there != NodeKind::Directory);
            let moves = kind(from).is_some() && !to.starts_with(&below) && from != to;
            moves && over && has_directory(to)
        }
        Operation::Unlink { path } => kind(path).is_some() && !is_directory(path),
        Operation::Link { original, path } => {
            kind(original).is_some() && !is_directory(original) && has_directory(path)
        }
        Operation::Rmdir { path } => is_directory(path) && !path.is_empty(),
        _ => true,
    };
    fits && pairs::is_possible(model, operation)
}

fn fault(random: &mut Random) -> Fault {
    let kinds =
        [Some(OperationKind::Read), Some(OperationKind::Write), Some(OperationKind::Flush), None];
    let kind = kinds[index(random, kinds.len())];
    let is_torn = kind == Some(OperationKind::Write) && random.coin();
    let effect = if is_torn { Effect::Tear { sectors: 1 } } else { Effect::Fail };
    // A device that is gone stays gone.
    let onwards = kind.is_none() || random.below(4) == 0;
    Fault { kind, nth: 1 + random.below(60), onwards, effect }
}

/// A crash somewhere in the log, and maybe another one while the first is recovered.
fn crash(log: &Log, random: &mut Random) -> (usize, MemoryDevice) {
    let position = match random.below(3) {
        0 => log.events().len(),
        _ => index(random, log.events().len() + 1),
    };
    let image = log.crash_at(position, |_| match random.below(8) {
        0..4 => Kept::Whole,
        4..7 => Kept::Nothing,
        _ => Kept::Scattered { seed: random.next_u64() },
    });
    if random.below(3) > 0 {
        return (position, image);
    }
    let device = Arc::new(RecordingDevice::from_image(&image));
    let above: Arc<dyn BlockDevice> = Arc::<RecordingDevice<_>>::clone(&device);
    // What fails here fails again when the image is judged.
    if let Ok(volume) = crate::volume::Volume::mount(above, extant::MountOptions::new()) {
        let _ = volume.unmount();
    }
    let recovery = device.log();
    let options = CrashOptions {
        seed: random.next_u64(),
        all_subsets_up_to: 2,
        samples: 3,
        tears: 1,
        from: 0,
    };
    let all = CrashImages::new(&recovery, options).count();
    let second = CrashImages::new(&recovery, options).nth(index(random, all.max(1)));
    (position, second.map_or(image, |second| second.image))
}

/// The engine's events of a run, each as a number.
#[derive(Debug, Default)]
struct Trace(Mutex<Vec<u64>>);

impl Trace {
    fn note(&self, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(hasher.finish());
    }

    fn events(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Self {
        let events = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Self(Mutex::new(events))
    }

    fn first_difference(&self, other: &Self) -> Option<usize> {
        let (one, two) = (self.0.lock(), other.0.lock());
        let (one, two) = (
            one.unwrap_or_else(PoisonError::into_inner),
            two.unwrap_or_else(PoisonError::into_inner),
        );
        let same = one.iter().zip(two.iter()).take_while(|(a, b)| a == b).count();
        (same < one.len().max(two.len())).then_some(same)
    }
}

impl TraceSink for Trace {
    fn event(&self, event: &Event) {
        self.note(&format!("{}: {event}", event.name()));
    }

    fn begin(&self, task: Task) {
        self.note(&format!("begin {task:?}"));
    }

    fn end(&self, task: Task) {
        self.note(&format!("end {task:?}"));
    }
}
