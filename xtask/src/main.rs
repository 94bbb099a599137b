//! Automation of the workspace: `cargo xtask ci`, `cargo xtask tidy`, `cargo xtask oracle`.

mod ci;
mod oracle;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  ci      every check, as CI runs it; ends with `N passed, N failed, N skipped`
  tidy    the rules of layout alone: arrows between layers, lengths, headers
  oracle [TREE]
          long comparisons with the kernel, on /usr/share or another tree; needs root";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["ci"] => ci::run(&root()),
        ["tidy"] => tidy::run(&root()),
        ["oracle"] => oracle::run(&root(), "/usr/share"),
        ["oracle", tree] => oracle::run(&root(), tree),
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

/// The workspace's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
