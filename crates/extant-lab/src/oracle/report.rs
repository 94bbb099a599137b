//! Many scripts, and what came of all of them.

use std::fmt;
use std::path::Path;

use extant_script::Script;

use super::exceptions::Exceptions;
use super::random;
use super::{Other, compare};

/// Operations of a random script.
const RANDOM_LEN: usize = 30;

/// How much is told of a script that differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// A line.
    Line,
    /// The first difference of each stream.
    First,
    /// All of them.
    All,
}

/// What came of the scripts so far.
#[derive(Debug)]
pub struct Report {
    detail: Detail,
    other: Other,
    exceptions: Exceptions,
    excused: Vec<usize>,
    scripts: usize,
    events: usize,
    differ: Vec<String>,
    /// Scripts whose end was not compared, and how many events that left out.
    parted: (usize, usize),
    skipped: usize,
}

impl Report {
    /// Nothing yet; tells of scripts that differ in this `detail`.
    pub fn new(other: Other, detail: Detail) -> Self {
        let exceptions = Exceptions::ours();
        let excused = vec![0; exceptions.list.len()];
        Self {
            detail,
            other,
            exceptions,
            excused,
            scripts: 0,
            events: 0,
            differ: Vec::new(),
            parted: (0, 0),
            skipped: 0,
        }
    }

    /// Runs the script in a file.
    pub fn file(&mut self, path: &Path) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let script = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match script.and_then(|text| Script::parse(&text).map_err(|error| error.to_string())) {
            Ok(script) => drop(self.script(&name, &script)),
            Err(reason) => self.fail(&name, &reason),
        }
    }

    /// Runs the script of a seed, and, unless a line is enough, tries to make it smaller if it differs.
    pub fn random(&mut self, seed: u64) {
        let script = random::script(seed, RANDOM_LEN);
        let name = format!("seed {seed}");
        if self.skipped > 0 || self.script(&name, &script) || self.detail == Detail::Line {
            return;
        }
        // As many tries each as the whole has: else what is chance takes the place of what is not.
        let differs = |script: &Script| match compare(script, self.other, &self.exceptions, 0) {
            Some(Ok(comparison)) => !comparison.passes(),
            Some(Err(_)) => true,
            None => false,
        };
        let small = random::shrink(&script, differs);
        println!("-- seed {seed} needs no more than this to differ:\n{small}");
        match compare(&small, self.other, &self.exceptions, 0) {
            Some(Ok(comparison)) if self.detail == Detail::All => println!("{comparison:#}"),
            Some(Ok(comparison)) if self.detail == Detail::First => println!("{comparison}"),
            Some(Err(reason)) => println!("{reason}"),
            _ => {}
        }
    }

    /// Runs a script; whether nothing differs.
    fn script(&mut self, name: &str, script: &Script) -> bool {
        match compare(script, self.other, &self.exceptions, 0) {
            None => self.skipped += 1,
            Some(Err(reason)) => self.fail(name, &reason),
            Some(Ok(comparison)) => {
                self.scripts += 1;
                self.events += comparison.events();
                if let Some(events) = comparison.left_out() {
                    self.parted = (self.parted.0 + 1, self.parted.1 + events);
                }
                let all = self.excused.iter_mut().zip(&comparison.excused);
                all.for_each(|(all, more)| *all += more);
                if comparison.passes() {
                    println!("same     {name}: {} events", comparison.events());
                    return true;
                }
                self.differ.push(name.to_owned());
                match self.detail {
                    Detail::Line => println!(
                        "differs  {name}: {} of {} events, {} answers",
                        comparison.differences(),
                        comparison.events(),
                        comparison.answers()
                    ),
                    Detail::First => println!("differs  {name}\n{comparison}"),
                    Detail::All => println!("differs  {name}\n{comparison:#}"),
                }
                return false;
            }
        }
        false
    }

    fn fail(&mut self, name: &str, reason: &str) {
        println!("FAILED   {name}: {reason}");
        self.scripts += 1;
        self.differ.push(name.to_owned());
    }

    /// Whether nothing differed, and little was excused or left out.
    pub fn passes(&self) -> bool {
        let excused = self.excused.iter().sum::<usize>() + self.parted.1;
        self.differ.is_empty() && excused * 100 <= self.events
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (entry, count) in self.exceptions.list.iter().zip(&self.excused) {
            writeln!(f, "excused  {count} of {} ({})", entry.event, entry.reason)?;
        }
        if let (scripts @ 1.., events) = self.parted {
            writeln!(
                f,
                "parted   {scripts} scripts, {events} events not compared: the kernel's commit took contents out of an inode before \
                 they had a block"
            )?;
        }
        let (scripts, differ) = (self.scripts, self.differ.len());
        write!(
            f,
            "{scripts} scripts, {} events, {differ} scripts differ, {} skipped",
            self.events, self.skipped
        )
    }
}
