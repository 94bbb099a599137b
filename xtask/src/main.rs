//! Automation of the workspace: `cargo xtask ci` and its parts.

mod boot;
mod ci;
mod oracle;
mod sabotage;
mod tidy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

const USAGE: &str = "usage: cargo xtask <command>

  ci      every check, as CI runs it; ends with `N passed, N failed, N skipped`
  tidy    the rules of layout alone: arrows between layers, lengths, headers
  oracle [speed | kills | contents] [TREE]
          long comparisons with the kernel, all or one, on /usr/share or another tree; needs root
  oracle trace [--all | --random N --seed S | SCRIPT..] [--quiet]
          events of scripts compared with those of the kernel's tracefs; needs root
  check-oracle
          `extant check` on images with one planted defect each, beside e2fsck, on sound ones and on damaged ones:
          --images N --damaged N --first N
  boot    a Debian root file system built, exported and built again, and booted under qemu; needs root and what it names
  damage  damaged images, more than CI has time for: --count N --seed S, or --only NUMBER to replay one
  crash   crash images, more than CI has time for: --seeds N --first SEED --images N; --fast-commits, --pairs for all sequences of
          two changes, --triples for some of three, --programs for databases, mail stores and package managers; --failures
          lets each request go wrong instead, --sabotage drops every flush to see it fail
  simulate
          several clients, time that passes, faults and a crash, all by a seed, which runs twice: --seeds N --first SEED
  kill    copies of a tree killed at any moment: --count N [TREE]; needs root
  fast-commit
          fast commits of the kernel recovered, and ours by it: --seeds N --first SEED; needs root
  dirty   images that the kernel left when it was shut down under load, recovered by both: --seeds N --first SEED --step N --alone --image FILE; needs root
  contents
          random operations against a plain model of files: --seeds N --first SEED --operations N each
  fill    small images filled to the last block, by every way of writing: --seeds N --first SEED, --tell to print one
  stress  threads at once on the same few files, every check on: --seconds S --threads 16 --seed N --turn K
  mounts [NAME]..
          what must not hurt `extant mount`: damage, kill, fsx, programs, stress-ng, fio, load; --count N, --seconds S for less
          than hours, --seed N, --first N, --only N for one damaged image; needs root
  schedules [COUNT]
          threads under a scheduler that decides at every lock who goes on; so many schedules a scenario (2000), and short
          ones in every order
  sabotage [FILTER]
          takes each line of sabotage.list out of a copy of the code and expects a test to fail; takes hours
  bench NAME [ARGUMENT..]
          a benchmark. Of the engine: kernel, fsync, latency, paths. Of `extant mount`, beside the kernel, fuse2fs and a server that does
          nothing: mount [--quick] [--row NAME]..; a whole run writes docs/performance.md. Of `extant build`, beside mke2fs -d and the
          kernel: build [--passes N] [--write]";

/// The benchmarks, each with its crate.
const BENCHMARKS: [(&str, &str); 6] = [
    ("build", "extant-cli"),
    ("kernel", "extant"),
    ("fsync", "extant"),
    ("latency", "extant"),
    ("paths", "extant"),
    ("mount", "extant-cli"),
];

/// The lab as it is while one works on it: with the checks of debug builds.
const CHECKED_LAB: [&str; 5] = ["run", "--quiet", "-p", "extant-lab", "--"];
/// Its comparison of events.
const TRACE: [&str; 6] = ["run", "--quiet", "-p", "extant-lab", "--", "trace"];

/// The suites of the mount.
const MOUNTS: [&str; 7] = ["damage", "kill", "fsx", "programs", "stress-ng", "fio", "load"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if arguments.iter().any(|word| matches!(*word, "--help" | "-h" | "help")) {
        let _ = writeln!(std::io::stdout(), "{USAGE}"); // nobody has to read it
        return ExitCode::SUCCESS;
    }
    if let Err(problem) = check(&arguments) {
        eprintln!("xtask: {problem}\n{USAGE}");
        return ExitCode::from(2);
    }
    let outcome = match arguments[..] {
        ["ci", ..] => ci::run(&root()),
        ["tidy", ..] => tidy::run(&root()),
        ["oracle", "trace"] => cargo(&TRACE, &["--all"]),
        ["oracle", "trace", ref rest @ ..] => cargo(&TRACE, rest),
        ["oracle", ref rest @ ..] => oracle::run(&root(), rest),
        ["sabotage", ref rest @ ..] => sabotage::run(&root(), rest.first().unwrap_or(&"")),
        ["schedules", ref rest @ ..] => {
            schedules(rest.first().and_then(|count| count.parse().ok()).unwrap_or(2000))
        }
        ["mounts", ref rest @ ..] => mounts(rest),
        ["boot"] => boot(),
        // Asserts, ranks of locks and the status tree are watched in debug builds alone.
        ["fill" | "stress", ..] => cargo(&CHECKED_LAB, &arguments),
        ["bench", name, ref rest @ ..] => {
            let crate_of = benchmark(name).unwrap_or("extant");
            cargo(&["bench", "--quiet", "-p", crate_of, "--bench", name, "--"], rest)
        }
        _ => cargo(&["run", "--quiet", "--release", "-p", "extant-lab", "--"], &arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The crate of a benchmark.
fn benchmark(name: &str) -> Option<&'static str> {
    BENCHMARKS.iter().find(|(known, _)| *known == name).map(|(_, crate_of)| *crate_of)
}

/// Refuses words that no command knows, before anything is built or run.
fn check(arguments: &[&str]) -> Result<(), String> {
    match *arguments {
        ["ci" | "tidy" | "sabotage" | "boot"] => Ok(()),
        ["sabotage", filter] if !filter.starts_with('-') => Ok(()),
        ["oracle", "trace", ..] => Ok(()), // the lab knows its own words
        ["oracle", ref rest @ ..] => oracle::parse(rest).map(drop),
        ["check-oracle", ref rest @ ..] => {
            check_options(rest, &["--images", "--damaged", "--first"], &[])
        }
        ["damage", ref rest @ ..] => {
            check_options(rest, &["--count", "--seed", "--first", "--only", "--workers"], &[])
        }
        ["contents", ref rest @ ..] => {
            check_options(rest, &["--seeds", "--first", "--operations"], &["--tell"])
        }
        ["crash", ref rest @ ..] => {
            let flags = [
                "--fast-commits",
                "--pairs",
                "--triples",
                "--programs",
                "--failures",
                "--sabotage",
            ];
            check_options(rest, &["--seeds", "--first", "--images"], &flags)
        }
        ["fast-commit" | "simulate", ref rest @ ..] => {
            check_options(rest, &["--seeds", "--first"], &[])
        }
        ["dirty", ref rest @ ..] => {
            check_options(rest, &["--seeds", "--first", "--step", "--image"], &["--alone"])
        }
        ["fill", ref rest @ ..] => check_options(rest, &["--seeds", "--first"], &["--tell"]),
        ["stress", ref rest @ ..] => {
            check_options(rest, &["--seconds", "--threads", "--seed", "--turn"], &[])
        }
        // A tree comes last if one is named.
        ["kill", ref options @ .., tree] if Path::new(tree).is_dir() => {
            check_options(options, &["--count", "--size"], &[])
        }
        ["kill", ref options @ ..] => check_options(options, &["--count", "--size"], &[]),
        ["mounts", ref rest @ ..] => {
            let is_name = |word: &&str| MOUNTS.contains(word);
            let options: Vec<&str> = rest.iter().copied().skip_while(is_name).collect();
            check_options(&options, &["--count", "--seconds", "--seed", "--first", "--only"], &[])
        }
        ["schedules"] => Ok(()),
        ["schedules", count] if count.parse::<u32>().is_ok() => Ok(()),
        ["bench", name, ..] if benchmark(name).is_some() => Ok(()),
        ["bench", ref rest @ ..] => Err(format!("no benchmark is called `{}`", rest.join(" "))),
        [command @ ("ci" | "tidy" | "sabotage" | "boot" | "schedules"), ref rest @ ..] => {
            Err(format!("`{command}` does not know `{}`", rest.join(" ")))
        }
        [command, ..] => Err(format!("no command is called `{command}`")),
        [] => Err("no command is named".to_owned()),
    }
}

/// Options with a number each, and options that stand alone.
fn check_options(words: &[&str], numbers: &[&str], alone: &[&str]) -> Result<(), String> {
    match *words {
        [] => Ok(()),
        [word, ref rest @ ..] if alone.contains(&word) => check_options(rest, numbers, alone),
        [word, number, ref rest @ ..]
            if numbers.contains(&word) && number.parse::<u64>().is_ok() =>
        {
            check_options(rest, numbers, alone)
        }
        [word, ..] if numbers.contains(&word) => Err(format!("{word} takes a number")),
        [word, ..] => Err(format!("`{word}` means nothing here")),
    }
}

/// Runs `cargo`; whether it succeeded.
fn cargo(command: &[&str], arguments: &[&str]) -> anyhow::Result<bool> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(command).args(arguments).current_dir(root()).status();
    Ok(status.context("cargo does not run")?.success())
}

/// Boots what a program as it is released builds.
fn boot() -> anyhow::Result<bool> {
    Ok(cargo(&["build", "--quiet", "--release", "-p", "extant-cli"], &[])?
        && boot::run(&target().join("release/extant"))?)
}

/// Runs suites of the lab on the mount of a program as it is released.
fn mounts(arguments: &[&str]) -> anyhow::Result<bool> {
    if !cargo(&["build", "--quiet", "--release", "-p", "extant-cli"], &[])? {
        return Ok(false);
    }
    let program = target().join("release/extant");
    let program = program.to_str().context("the target folder's path is no text")?;
    let lab =
        ["run", "--quiet", "--release", "-p", "extant-lab", "--", "mounts", "--program", program];
    cargo(&lab, arguments)
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs the threads of the lab in `count` schedules a scenario and scheduler; in a target folder of its own, since all is
/// built with other locks.
fn schedules(count: u32) -> anyhow::Result<bool> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(["test", "--quiet", "--package", "extant-lab", "--test", "schedules"])
        .env("RUSTFLAGS", "--cfg extant_shuttle")
        .env("CARGO_TARGET_DIR", target().join("shuttle"))
        .env("EXTANT_SCHEDULES", count.to_string())
        .current_dir(root())
        .status();
    Ok(status.context("cargo does not run")?.success())
}

/// The workspace's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_no_command_knows_are_refused() {
        for right in [
            "ci",
            "oracle",
            "oracle speed",
            "oracle kills /",
            "oracle /",
            "sabotage journal",
            "damage --count 5 --seed 1",
            "crash --sabotage --seeds 3",
            "crash --programs --failures",
            "simulate --seeds 20000",
            "fill --first 7 --seeds 1 --tell",
            "stress --seconds 5 --threads 4",
            "kill",
            "kill --count 3 /",
            "mounts",
            "mounts kill fsx --count 3 --seed 7",
            "bench latency --quick",
            "bench mount --row stat",
        ] {
            assert_eq!(check(&right.split(' ').collect::<Vec<_>>()), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "everything",
            "ci --fast",
            "tidy tidy",
            "oracle --fast",
            "oracle speed kills",
            "oracle /nowhere",
            "oracle / /",
            "sabotage --fast",
            "damage 5",
            "damage --count",
            "damage --count five",
            "crash --seed 1",
            "fill 3",
            "stress --tell",
            "kill /nowhere",
            "kill --count /",
            "mounts speed",
            "mounts --only",
            "bench",
            "bench speed",
        ] {
            assert!(check(&wrong.split(' ').collect::<Vec<_>>()).is_err(), "{wrong}");
        }
        assert!(check(&[]).is_err());
    }
}
