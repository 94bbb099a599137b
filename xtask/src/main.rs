//! Automation of the workspace: `cargo xtask ci` and its parts.

mod ci;
mod oracle;
mod sabotage;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;

const USAGE: &str = "usage: cargo xtask <command>

  ci      every check, as CI runs it; ends with `N passed, N failed, N skipped`
  tidy    the rules of layout alone: arrows between layers, lengths, headers
  oracle [speed | kills | contents] [TREE]
          long comparisons with the kernel, all or one, on /usr/share or another tree; needs root
  damage  damaged images, more than CI has time for: --count N --seed S, or --only NUMBER to replay one
  crash   crash images, more than CI has time for: --seeds N --first SEED, --sabotage to see it fail
  kill    copies of a tree killed at any moment: --count N [TREE]; needs root
  sabotage [FILTER]
          takes each line of sabotage.list out of a copy of the code and expects a test to fail; takes hours
  bench NAME [ARGUMENT..]
          one of the engine's benchmarks: latency, paths";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["ci"] => ci::run(&root()),
        ["tidy"] => tidy::run(&root()),
        ["oracle", ref rest @ ..] => oracle::run(&root(), rest),
        ["sabotage"] => sabotage::run(&root(), ""),
        ["sabotage", filter] => sabotage::run(&root(), filter),
        ["damage" | "crash" | "kill", ..] => {
            cargo(&["run", "--quiet", "--release", "-p", "extant-lab", "--"], &arguments)
        }
        ["bench", name, ref rest @ ..] => {
            cargo(&["bench", "--quiet", "-p", "extant", "--bench", name, "--"], rest)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
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

/// Runs `cargo`; whether it succeeded.
fn cargo(command: &[&str], arguments: &[&str]) -> anyhow::Result<bool> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(command).args(arguments).current_dir(root()).status();
    Ok(status.context("cargo does not run")?.success())
}

/// The workspace's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
