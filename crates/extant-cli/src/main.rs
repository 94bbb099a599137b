//! The `extant` command: look into, fill, edit and explain ext4 images without root.
//!
//! `arguments` is the grammar; each command is a file in `commands`; `copy` is the one that is more than a few calls of the
//! engine. Exit codes are in `failure`.

mod address;
mod arguments;
mod commands;
mod copy;
mod failure;
mod foreign;
mod output;
mod progress;
mod volume;

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let outcome = commands::run(&cli.command, &mut out).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Lines that were printed before belong before the reason why no more came.
            let _ = out.flush();
            ExitCode::from(failure::tell(&error))
        }
    }
}
