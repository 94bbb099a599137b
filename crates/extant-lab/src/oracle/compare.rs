//! Two runs side by side: what each has that the other lacks, and how a person reads it.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use extant_script::Script;
use similar::{Algorithm, DiffOp, capture_diff_slices, capture_diff_slices_deadline};

use super::event::{Event, Stream};
use super::exceptions::{Exceptions, Side};
use super::normal::normal;
use super::{Run, Seen};

/// A line of the comparison: what the kernel has, and what we have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The kernel's event.
    pub kernel: Option<Seen>,
    /// The engine's.
    pub ours: Option<Seen>,
    /// The entry that accepts the difference.
    pub excused: Option<usize>,
}

impl Row {
    fn is_equal(&self) -> bool {
        self.kernel.is_some() && self.ours.is_some()
    }

    fn differs(&self) -> bool {
        !self.is_equal() && self.excused.is_none()
    }

    fn name(&self) -> Option<&'static str> {
        self.kernel.as_ref().or(self.ours.as_ref()).map(|seen| seen.event.name)
    }

    fn text(&self) -> String {
        let event = self.kernel.as_ref().or(self.ours.as_ref()).map(|seen| seen.event.to_string());
        format!(
            "{}{}",
            event.unwrap_or_default(),
            if self.excused.is_some() { " (excused)" } else { "" }
        )
    }

    fn step(&self) -> usize {
        self.kernel.as_ref().or(self.ours.as_ref()).map_or(0, |seen| seen.step)
    }
}

/// What came of comparing two runs.
#[derive(Clone, Debug)]
pub struct Comparison {
    script: Vec<String>,
    streams: Vec<(Stream, Vec<Row>)>,
    answers: Vec<(usize, String, String)>,
    /// The operation from which on nothing is compared, and how many events of the kernel that leaves out; see [`parting`].
    parted: Option<(usize, usize)>,
    /// How many events each accepted difference excused.
    pub excused: Vec<usize>,
}

impl Comparison {
    /// Compares what the kernel and the engine told of the same script.
    pub fn new(script: &Script, kernel: Run, ours: Run, exceptions: &Exceptions) -> Self {
        let steps =
            script.operations().skip(script.settings.setup).map(ToString::to_string).collect();
        let answer = |answer: &Result<_, extant_script::Errno>| match answer {
            Ok(answer) => format!("{answer}"),
            Err(errno) => errno.to_string(),
        };
        let answers = kernel.answers.iter().zip(&ours.answers).enumerate();
        let parting = parting(&kernel.events);
        let answers = answers.filter(|(step, (kernel, ours))| {
            kernel != ours && parting.is_none_or(|parting| *step < parting)
        });
        let answers =
            answers.map(|(step, (kernel, ours))| (step, answer(kernel), answer(ours))).collect();
        let mut this = Self {
            script: steps,
            streams: Vec::new(),
            answers,
            parted: None,
            excused: vec![0; exceptions.list.len()],
        };
        let is_sync = |step| this.script.get(step).is_some_and(|operation| operation == "sync");
        let (mut kernel, mut ours) = (normal(kernel.events, is_sync), normal(ours.events, is_sync));
        if let Some(parting) = parting {
            let whole = kernel.len();
            for events in [&mut kernel, &mut ours] {
                events.retain(|seen| seen.step < parting);
            }
            this.parted = Some((parting, whole - kernel.len()));
        }
        for stream in Stream::ALL {
            let of = |all: &[Seen]| {
                all.iter().filter(|seen| seen.stream == stream).cloned().collect::<Vec<_>>()
            };
            let mut rows = rows(&of(&kernel), &of(&ours), stream == Stream::Caller);
            prefer_visits_that_write(&mut rows);
            for row in &mut rows {
                let (side, seen) = match (&row.kernel, &row.ours) {
                    (Some(seen), None) => (Side::Kernel, seen),
                    (None, Some(seen)) => (Side::Ours, seen),
                    _ => continue,
                };
                let operation = this.script.get(seen.step).map_or("", String::as_str);
                row.excused = exceptions.find(side, seen, operation);
                row.excused.into_iter().for_each(|entry| this.excused[entry] += 1);
            }
            this.streams.push((stream, rows));
        }
        this
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.streams.iter().flat_map(|(_, rows)| rows)
    }

    /// Events of the kernel, after what was folded.
    pub fn events(&self) -> usize {
        self.rows().filter(|row| row.kernel.is_some()).count()
    }

    /// Events that one side has alone, accepted ones not counted.
    pub fn differences(&self) -> usize {
        self.rows().filter(|row| row.differs()).count()
    }

    /// How many of the kernel's events were not compared, if the two sides part.
    pub fn left_out(&self) -> Option<usize> {
        self.parted.map(|(_, events)| events)
    }

    /// Answers that differ.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// Whether nothing differs but what is accepted.
    pub fn passes(&self) -> bool {
        self.differences() == 0 && self.answers.is_empty()
    }

    /// Names of events that differ, with how often the kernel and we have each alone.
    pub fn summary(&self) -> Vec<(&'static str, usize, usize)> {
        let mut counts = std::collections::BTreeMap::<_, (usize, usize)>::new();
        for row in self.rows().filter(|row| row.differs()) {
            if let Some(seen) = &row.kernel {
                counts.entry(seen.event.name).or_default().0 += 1;
            }
            if let Some(seen) = &row.ours {
                counts.entry(seen.event.name).or_default().1 += 1;
            }
        }
        counts.into_iter().map(|(name, (kernel, ours))| (name, kernel, ours)).collect()
    }
}

/// The operation in which the kernel's commit takes the contents out of an inode, while their block has no place. What had been
/// synced is lost if the next commit is the last before a crash, so here they stay until the block has its place, and from that
/// operation on the file is another one on each side.
///
/// Source: kernel `ext4_do_writepages`, which the commit calls for ordered data, and `ext4_destroy_inline_data`.
fn parting(kernel: &[Seen]) -> Option<usize> {
    let starts = |seen: &&Seen| {
        seen.stream == Stream::Journal && seen.event.name == "ext4_journal_start_inode"
    };
    kernel.iter().find(starts).map(|seen| seen.step)
}

/// Pairs equal events. What the caller does is compared operation by operation; the other streams run beside it, so an
/// event may come during another operation.
fn rows(kernel: &[Seen], ours: &[Seen], by_step: bool) -> Vec<Row> {
    let deadline = Some(Instant::now() + LONGEST);
    let key = |seen: &Seen| (if by_step { seen.step } else { 0 }, seen.event.clone());
    let (left, right): (Vec<_>, Vec<_>) =
        (kernel.iter().map(key).collect(), ours.iter().map(key).collect());
    let alone = |side, seen: &Seen| match side {
        Side::Kernel => Row { kernel: Some(seen.clone()), ours: None, excused: None },
        Side::Ours => Row { kernel: None, ours: Some(seen.clone()), excused: None },
    };
    let mut rows = Vec::with_capacity(left.len().max(right.len()));
    for change in capture_diff_slices_deadline(Algorithm::Myers, &left, &right, deadline) {
        let (from, to) = (change.old_range(), change.new_range());
        if let DiffOp::Equal { .. } = change {
            let pairs = kernel[from].iter().zip(&ours[to]);
            rows.extend(pairs.map(|(kernel, ours)| Row {
                kernel: Some(kernel.clone()),
                ours: Some(ours.clone()),
                excused: None,
            }));
        } else {
            rows.extend(kernel[from].iter().map(|seen| alone(Side::Kernel, seen)));
            rows.extend(ours[to].iter().map(|seen| alone(Side::Ours, seen)));
        }
    }
    rows
}

/// Pairs what we have with the kernel's event that is not of an idle visit, where one of each says the same and nothing of ours lies
/// between them. A visit is of several events: what stands in from before is taken from its end on, from behind from its start.
fn prefer_visits_that_write(rows: &mut [Row]) {
    for at in (0..rows.len()).chain((0..rows.len()).rev()) {
        let (before, [row, behind @ ..]) = rows.split_at_mut(at) else { return };
        if row.ours.is_some() || row.kernel.as_ref().is_none_or(|seen| seen.is_idle) {
            continue;
        }
        let stands_in = |other: &Row| {
            let same = |(idle, seen): (&Seen, &Seen)| idle.is_idle && idle.event == seen.event;
            other.kernel.as_ref().zip(row.kernel.as_ref()).is_some_and(same)
        };
        let nearest = [
            before.iter_mut().rev().find(|other| other.ours.is_some()),
            behind.iter_mut().find(|other| other.ours.is_some()),
        ];
        if let Some(other) = nearest.into_iter().flatten().find(|other| stands_in(other)) {
            row.ours = other.ours.take();
        }
    }
}

/// How long pairing may search for the best one.
const LONGEST: Duration = Duration::from_secs(5);
/// Events shown before the first difference, and from it on.
const BEFORE: usize = 6;
const BEHIND: usize = 14;
/// Characters of each side.
const WIDTH: usize = 76;

impl fmt::Display for Comparison {
    /// The first difference of each stream, with what came before it: the kernel left, the engine right. With `{:#}` all
    /// of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, kernel, ours) in self.answers.iter().take(3) {
            writeln!(f, "`{}` answered {kernel} in the kernel, {ours} here", self.script[*step])?;
        }
        for (stream, rows) in &self.streams {
            let Some(first) = rows.iter().position(Row::differs) else { continue };
            writeln!(f, "-- {stream}: first difference in `{}`", self.script[rows[first].step()])?;
            writeln!(f, "   {:WIDTH$} | here", "kernel")?;
            let all = f.alternate();
            let near = |at: usize| match all {
                true => {
                    let around = at.saturating_sub(BEFORE)..rows.len().min(at + BEFORE);
                    rows[around].iter().any(Row::differs)
                }
                false => (first.saturating_sub(BEFORE)..first + BEHIND).contains(&at),
            };
            let mut shown = (0..rows.len()).filter(|&at| near(at)).peekable();
            while let Some(from) = shown.next() {
                let mut to = from + 1;
                while shown
                    .next_if(|&at| at == to && rows[at].step() == rows[from].step())
                    .is_some()
                {
                    to += 1;
                }
                writeln!(f, "   `{}`", self.script[rows[from].step()])?;
                for row in paired(&rows[from..to]) {
                    writeln!(f, "{row}")?;
                }
            }
        }
        let counts = self.summary().into_iter().map(|(name, kernel, ours)| {
            format!("{} {kernel}/{ours}", name.strip_prefix("ext4_").unwrap_or(name))
        });
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            writeln!(f, "   alone, kernel/here: {}", counts.join(", "))?;
        }
        if let Some((step, events)) = self.parted {
            let operation = &self.script[step];
            writeln!(
                f,
                "   not compared: {events} events from `{operation}` on, in which the kernel's commit empties an inode"
            )?;
        }
        let (events, differences) = (self.events(), self.differences());
        let excused: usize = self.excused.iter().sum();
        write!(
            f,
            "{events} events, {differences} differ, {excused} excused, {} answers differ",
            self.answers.len()
        )
    }
}

/// The lines of some rows: an event that either side has otherwise than the other is one line, with the fields that
/// differ.
fn paired(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for chunk in rows.chunk_by(|one, next| !one.is_equal() && !next.is_equal()) {
        if let [Row { kernel: Some(same), ours: Some(_), .. }] = chunk {
            let text = same.event.to_string();
            lines.push(line(' ', &text, &text));
            continue;
        }
        let left: Vec<&Row> = chunk.iter().filter(|row| row.kernel.is_some()).collect();
        let right: Vec<&Row> = chunk.iter().filter(|row| row.ours.is_some()).collect();
        let names =
            |rows: &[&Row]| -> Vec<&str> { rows.iter().filter_map(|row| row.name()).collect() };
        for change in capture_diff_slices(Algorithm::Myers, &names(&left), &names(&right)) {
            let (from, to) = (change.old_range(), change.new_range());
            if let DiffOp::Equal { .. } = change {
                let pairs = left[from].iter().zip(&right[to]);
                lines.extend(pairs.filter_map(|(kernel, ours)| both(kernel, ours)));
            } else {
                lines.extend(left[from].iter().map(|row| line('<', &row.text(), "")));
                lines.extend(right[to].iter().map(|row| line('>', "", &row.text())));
            }
        }
    }
    lines
}

/// One event that both have, with different fields.
fn both(kernel: &Row, ours: &Row) -> Option<String> {
    let (kernel, ours) = (&kernel.kernel.as_ref()?.event, &ours.ours.as_ref()?.event);
    let only = |event: &Event, other: &Event| {
        let mut event = event.clone();
        event.fields.retain(|(name, value)| other.get(name) != Some(value) || *name == "ino");
        event.to_string()
    };
    Some(line('!', &only(kernel, ours), &only(ours, kernel)))
}

fn line(mark: char, kernel: &str, ours: &str) -> String {
    let cut = |text: &str| -> String { text.chars().take(WIDTH).collect() };
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(line, " {mark} {:WIDTH$} | {}", cut(kernel), cut(ours));
    line
}

#[cfg(test)]
mod tests;
