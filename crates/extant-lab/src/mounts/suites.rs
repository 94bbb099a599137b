//! The suites by name, and what they share: the wishes of who runs them, how they end, a mount for programs, programs with a
//! time limit.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use extant_testkit::oracle::{self, Scratch};

use super::server::{Served, judge};
use super::{damaged, killed, load, programs, tools};
use crate::damage::Case;

/// What is to be run, and how much of it.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// `extant`.
    pub program: PathBuf,
    /// Decides what each suite does.
    pub seed: u64,
    /// How many images, kills, or operations of each seed; the suite's own number if not said.
    pub count: Option<u64>,
    /// For how long the suites by the clock run.
    pub seconds: Option<u64>,
    /// The first damaged image.
    pub first: u64,
    /// This damaged image alone, step by step.
    pub only: Option<u64>,
}

/// How a suite ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// In a line, what was done.
    Passed(String),
    /// What went wrong, one after the other.
    Failed(Vec<String>),
    /// What this machine lacks.
    Skipped(String),
}

/// A suite.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&Wishes) -> Outcome,
}

/// All suites, in the order in which they run.
pub const SUITES: [Suite; 7] = [
    Suite { name: "damage", run: damage },
    Suite { name: "kill", run: kill },
    Suite { name: "fsx", run: tools::fsx },
    Suite { name: "programs", run: programs::run },
    Suite { name: "stress-ng", run: tools::stress_ng },
    Suite { name: "fio", run: tools::fio },
    Suite { name: "load", run: load::run },
];

impl Suite {
    /// Runs it, and tells how it ended; whether that was well.
    pub fn tell(&self, wishes: &Wishes) -> bool {
        let start = Instant::now();
        let outcome = (self.run)(wishes);
        let seconds = start.elapsed().as_secs();
        match &outcome {
            Outcome::Passed(what) => println!("{}: {what}, {seconds} s", self.name),
            Outcome::Skipped(why) => println!("{}: skipped, {why}", self.name),
            Outcome::Failed(failures) => {
                failures.iter().for_each(|failure| println!("FAILED {}: {failure}", self.name));
                println!("{}: {} failed, {seconds} s", self.name, failures.len());
            }
        }
        !matches!(outcome, Outcome::Failed(_))
    }
}

impl Outcome {
    /// Passed with `what`, unless something failed.
    pub fn of(failures: Vec<String>, what: String) -> Self {
        if failures.is_empty() { Self::Passed(what) } else { Self::Failed(failures) }
    }
}

impl From<Result<String, String>> for Outcome {
    fn from(result: Result<String, String>) -> Self {
        result.map_or_else(|failure| Self::Failed(vec![failure]), Self::Passed)
    }
}

fn damage(wishes: &Wishes) -> Outcome {
    if let Some(number) = wishes.only {
        let case = Case { seed: wishes.seed, number };
        let outcome = damaged::try_case(&wishes.program, case, true, &Mutex::default());
        return Outcome::from(outcome.map(|()| format!("image {number}")));
    }
    let count = wishes.count.unwrap_or(1000);
    let report = damaged::run(&wishes.program, wishes.seed, wishes.first, count);
    let what = format!(
        "{count} damaged images: {:?}; {} servers told of damage; at most {} MiB, {} ms to mount; errors by number {:?}",
        report.ends,
        report.told,
        report.most_kib >> 10,
        report.longest_start.as_millis(),
        report.errors
    );
    Outcome::of(report.failures, what)
}

fn kill(wishes: &Wishes) -> Outcome {
    match killed::run(&wishes.program, wishes.seed, wishes.count.unwrap_or(500)) {
        None => Outcome::Skipped("no e2fsprogs to judge".to_owned()),
        Some(report) => {
            let what = format!("{} servers killed after {} steps", report.kills, report.steps);
            Outcome::of(report.failures, what)
        }
    }
}

/// A fresh image that is served, for programs; judged when it is over.
#[derive(Debug)]
pub struct Ground {
    scratch: Scratch,
    served: Served,
    program: PathBuf,
    options: String,
}

impl Ground {
    /// Makes an image of `size` (as `extant mkfs` takes it), and serves it with `options`. Everybody may write to its root.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub fn new(program: &Path, name: &str, size: &str, options: &str) -> Result<Self, String> {
        let scratch = Scratch::new(name);
        let mut mkfs = Command::new(program);
        mkfs.args(["mkfs", "-q", "-b", "4096"]).arg(scratch.path("disk.img")).arg(size);
        succeed(&mut mkfs, Duration::from_secs(60))?;
        let served = serve(program, &scratch, options)?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(served.point(), everybody).map_err(|error| error.to_string())?;
        // Other users than root come in.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scratch.path(""), all).map_err(|error| error.to_string())?;
        Ok(Self { scratch, served, program: program.to_owned(), options: options.to_owned() })
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        self.served.point()
    }

    /// The server.
    pub fn served(&mut self) -> &mut Served {
        &mut self.served
    }

    /// A path beside the mount.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Unmounts and mounts again.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub fn again(self) -> Result<Self, String> {
        let Self { scratch, served, program, options } = self;
        finish(served, &scratch)?;
        let served = serve(&program, &scratch, &options)?;
        Ok(Self { scratch, served, program, options })
    }

    /// Unmounts. The server ends in good order and without a word, and e2fsck finds nothing.
    ///
    /// # Errors
    /// What else.
    pub fn end(self) -> Result<(), String> {
        finish(self.served, &self.scratch)
    }
}

fn serve(program: &Path, scratch: &Scratch, options: &str) -> Result<Served, String> {
    Served::start(program, &scratch.path("disk.img"), &scratch.path("point"), options)
        .map_err(|refused| format!("it does not mount: {}", refused.said))
}

fn finish(served: Served, scratch: &Scratch) -> Result<(), String> {
    let ended = served.unmount()?;
    if !ended.status.success() || !ended.said.is_empty() {
        return Err(format!("the server ended with {}: {}", ended.status, ended.said));
    }
    judge(&scratch.path("disk.img"))
}

/// Whether the machine has all of these programs; else those that it lacks.
pub fn lacking(programs: &[&str]) -> Option<String> {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| find(program).is_none()).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

/// Where a program is: on the search path, where root's programs are, or where `cargo install` puts them.
pub fn find(program: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    oracle::tool(program).or_else(|| Some(home?.join(program)).filter(|path| path.is_file()))
}

/// Runs a program to its end, and returns what it printed.
///
/// # Errors
/// It fails, or takes longer than `limit`, and is killed then; with what it printed.
pub fn succeed(command: &mut Command, limit: Duration) -> Result<String, String> {
    let (status, said) = run(command, limit)?;
    let end: String = said.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
    match status {
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(format!("{}: {status}: {end}", name_of(command))),
        None => Err(format!("{} takes longer than {limit:?}: {end}", name_of(command))),
    }
}

/// Runs a program to its end: how it ended, or `None` if it had to be killed, and what it printed.
///
/// # Errors
/// It cannot be started.
pub fn run(
    command: &mut Command,
    limit: Duration,
) -> Result<(Option<std::process::ExitStatus>, String), String> {
    let told = |error: io::Error| format!("{}: {error}", name_of(command));
    let scratch = Scratch::new("output");
    let path = scratch.path("output");
    let output = File::create(&path).map_err(told)?;
    let error = output.try_clone().map_err(told)?;
    let started = command.stdin(Stdio::null()).stdout(output).stderr(error).spawn();
    let mut child = started.map_err(|error| format!("{}: {error}", name_of(command)))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let said = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    Ok((status, said))
}

fn name_of(command: &Command) -> String {
    let words = command.get_args().take(4).map(|word| word.to_string_lossy().into_owned());
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<String> = words.collect();
    format!("{} {}", program.to_string_lossy(), words.join(" "))
}
