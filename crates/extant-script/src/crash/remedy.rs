//! What would keep a promise: steps that make something durable, tried from the cheapest on.

use std::fmt;
use std::ops::ControlFlow;

use super::explore::Explorer;
use super::test::{CrashError, Pledge, Rehearsal};
use crate::{Operation, Script, Step};

/// Steps to add; with them the promise was kept in every crash that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remedy {
    /// What to add behind which line.
    pub add: Vec<(usize, Operation)>,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (line, operation)) in self.add.iter().enumerate() {
            let and = if number == 0 { "" } else { ", and " };
            write!(f, "{and}`{operation}` after line {line}")?;
        }
        Ok(())
    }
}

/// The first remedy that keeps the promise, which counts until so many steps are done.
pub(super) fn find(
    explorer: &Explorer<'_>,
    rehearsal: &Rehearsal,
    script: &Script,
    (pledge, until): (Pledge, usize),
) -> Result<Option<Remedy>, CrashError> {
    // What breaks it was done before it was made, or is done after.
    let ends = [pledge.step].into_iter().chain((until != pledge.step).then_some(until));
    let path = pledge.path;
    let all = ends.flat_map(|end| candidates(explorer, rehearsal, script, (path, end)));
    for added in all {
        if helps(explorer, script, pledge, &added)? {
            let line = |place: usize| rehearsal.lines[place];
            let add = added.into_iter().map(|(place, operation)| (line(place), operation));
            return Ok(Some(Remedy { add: add.collect() }));
        }
    }
    Ok(None)
}

/// What to add before so many steps are done, and where; each way from the cheapest on.
fn candidates(
    explorer: &Explorer<'_>,
    rehearsal: &Rehearsal,
    script: &Script,
    (number, end): (usize, usize),
) -> Vec<Vec<(usize, Operation)>> {
    let path = &explorer.paths[number];
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let steps = &script.steps[..end];
    let places = |wanted: &dyn Fn(usize, &Operation) -> bool| {
        let mut all = steps.iter().enumerate().skip(explorer.setup);
        all.rfind(|(place, step)| wanted(*place, &step.operation)).map(|(place, _)| place)
    };
    // The file may have had another name when its bytes were written.
    let inode = rehearsal.inodes[end][number];
    let is_it = |place: usize, name: &[u8]| {
        let known = explorer.paths.iter().position(|known| known == name);
        inode.is_some() && known.is_some_and(|known| rehearsal.inodes[place + 1][known] == inode)
    };
    let written =
        places(&|place, operation| operation.written_path().is_some_and(|name| is_it(place, name)));
    let name = written.and_then(|place| steps[place].operation.written_path());
    let data = written.zip(name).map(|(place, name)| (place + 1, fsync(name)));
    let named = places(&|_, operation| {
        operation.written_path().is_none()
            && operation.changed_paths().contains(&path.as_slice())
            && !matches!(operation, Operation::Promise { .. })
    });
    let directory = named.map(|place| (place + 1, fsync(&path[..slash])));
    // Behind the last step that changes something, before the promise itself.
    let end = match steps.last().map(|step| &step.operation) {
        Some(Operation::Promise { .. }) => end - 1,
        _ => end,
    };
    let both = data.clone().zip(directory.clone()).map(|(data, directory)| vec![data, directory]);
    [data.map(|one| vec![one]), directory.map(|one| vec![one]), both]
        .into_iter()
        .flatten()
        .chain([vec![(end, Operation::Sync)]])
        .collect()
}

fn fsync(path: &[u8]) -> Operation {
    Operation::Fsync { path: path.to_vec() }
}

/// Whether no crash breaks the promise once these steps are added.
fn helps(
    explorer: &Explorer<'_>,
    script: &Script,
    pledge: Pledge,
    added: &[(usize, Operation)],
) -> Result<bool, CrashError> {
    let mut steps = script.steps.clone();
    for (place, operation) in added.iter().rev() {
        let line = place.checked_sub(1).map_or(0, |before| script.steps[before].line);
        steps.insert(*place, Step { line, operation: operation.clone() });
    }
    let spoilt = Script { settings: script.settings.clone(), steps };
    let Ok(rehearsal) = Rehearsal::of(explorer, &spoilt.steps) else { return Ok(false) };
    let pledges = super::test::pledges(&spoilt, explorer.paths, &rehearsal)?;
    // The same promise, counted among those of the script.
    let same = |other: &super::test::Pledge| other.path == pledge.path && other.is_of(&pledge);
    let Some(number) = pledges.iter().position(same) else { return Ok(false) };
    let mut is_kept = true;
    explorer.explore(&spoilt.steps, |moment, states| {
        if rehearsal.is_broken(&pledges, number, moment, &states[pledge.path]) {
            is_kept = false;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(is_kept)
}
