//! `cargo xtask ci`: every check, each even if one before it failed, and one closing line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;

use crate::tidy;

/// The crates that have to build without `std`, lowest first.
const WITHOUT_STD: [&str; 5] =
    ["extant-format", "extant-device", "extant-journal", "extant", "extant-image"];
/// A target that has no `std` at all; used where the toolchain has it.
const BARE_TARGET: &str = "x86_64-unknown-none";
/// Tests append a line `oracle: test` to the file that this variable names when they cannot compare.
const SKIPS_VARIABLE: &str = "EXTANT_SKIPS";

/// Schedules of each scenario of threads.
const SCHEDULES: u32 = 200;

/// What became of the checks so far.
#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// Runs every check; whether none failed.
pub fn run(root: &Path) -> anyhow::Result<bool> {
    let start = Instant::now();
    let mut tally = Tally::default();
    tally.step("tidy", || tidy::run(root))?;
    tally.cargo(root, "rustfmt", &["fmt", "--all", "--check"], &["fmt", "--version"])?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.cargo(root, "clippy", &clippy, &["clippy", "--version"])?;
    without_std(root, &mut tally)?;
    tests(root, &mut tally)?;
    tally.step("schedules", || crate::schedules(SCHEDULES))?;

    for name in &tally.skipped {
        println!("skipped  {name}");
    }
    for name in &tally.failed {
        println!("FAILED   {name}");
    }
    let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
    println!(
        "{passed} passed, {failed} failed, {skipped} skipped ({} s)",
        start.elapsed().as_secs()
    );
    Ok(tally.failed.is_empty())
}

impl Tally {
    fn step(
        &mut self,
        name: &str,
        check: impl FnOnce() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        println!("== {name}");
        match check()? {
            true => self.passed += 1,
            false => self.failed.push(name.to_owned()),
        }
        Ok(())
    }

    /// Runs `cargo` with `arguments`, or skips the step by name if `probe` says that the toolchain lacks it.
    fn cargo(
        &mut self,
        root: &Path,
        name: &str,
        arguments: &[&str],
        probe: &[&str],
    ) -> anyhow::Result<()> {
        let silent = cargo(root, probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !silent.is_ok_and(|status| status.success()) {
            self.skipped.push(format!("{name}: the toolchain has no such component"));
            return Ok(());
        }
        self.step(name, || succeeds(cargo(root, arguments)))
    }
}

/// Builds the lower crates for a target without `std`, or at least without their `std` feature.
fn without_std(root: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    let mut libraries = Command::new("rustc");
    libraries.args(["--print", "target-libdir", "--target", BARE_TARGET]).current_dir(root);
    let directory = String::from_utf8(libraries.output().context("rustc does not run")?.stdout)?;
    let bare = Path::new(directory.trim()).is_dir();
    if !bare {
        tally.skipped.push(format!(
            "{BARE_TARGET}: the toolchain lacks it; built without `std` for this machine"
        ));
    }
    for name in WITHOUT_STD {
        let mut check =
            cargo(root, &["check", "--quiet", "--no-default-features", "--package", name]);
        if bare {
            check.args(["--target", BARE_TARGET]);
        }
        tally.step(&format!("{name} without std"), || succeeds(check))?;
    }
    Ok(())
}

/// Runs every test of the workspace and counts them, with what they had to skip.
fn tests(root: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    println!("== tests");
    let skips = std::env::temp_dir().join(format!("extant-skips-{}", std::process::id()));
    let mut command = cargo(root, &["test", "--workspace", "--no-fail-fast"]);
    command.env(SKIPS_VARIABLE, &skips).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo does not run")?;
    let (mut failures, output) = (0, child.stdout.take().context("no output of cargo")?);
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some((passed, failed)) = parse_result(&line) {
            tally.passed += passed;
            failures += failed;
        }
        if let Some(name) = line.strip_suffix(" ... FAILED") {
            tally.failed.push(name.to_owned());
        }
        if !line.ends_with(" ... ok") && !line.is_empty() {
            println!("{line}");
        }
    }
    if !child.wait()?.success() && failures == 0 {
        tally.failed.push("tests: not all of them could be built or run".to_owned());
    }
    if let Ok(names) = std::fs::read_to_string(&skips) {
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        names.dedup();
        tally.skipped.extend(names.into_iter().map(str::to_owned));
        std::fs::remove_file(&skips)?;
    }
    Ok(())
}

/// Passed and failed tests in a line like `test result: ok. 3 passed; 0 failed; ..`.
fn parse_result(line: &str) -> Option<(u32, usize)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut counts =
        counts.split("; ").map(|count| count.split_once(' ').map_or("", |(number, _)| number));
    Some((counts.next()?.parse().ok()?, counts.next()?.parse().ok()?))
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root).env("PATH", path_with_sbin());
    command
}

/// The search path with the folders where `e2fsck` lives, which users often lack.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn succeeds(mut command: Command) -> anyhow::Result<bool> {
    Ok(command.status().with_context(|| format!("{command:?} does not run"))?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_summary_of_a_test_run() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(parse_result(line), Some((3, 2)));
        assert_eq!(parse_result("test a::b ... ok"), None);
    }
}
