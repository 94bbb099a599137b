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
mod host;
mod interrupt;
mod judge;
mod names;
mod output;
mod partitions;
mod progress;
mod times;
mod values;
mod volume;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return arguments::tell(&error),
    };
    if let Some(patience) = cli.patience() {
        volume::wait_for_others(patience);
    }
    if let Some(part) = cli.part() {
        volume::use_part(part);
    }
    let mut out = StandardOutput(BufWriter::with_capacity(1 << 16, io::stdout().lock()));
    let outcome = commands::run(&cli.command, &mut out).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Lines that were printed before belong before the reason why no more came.
            let _ = out.flush();
            let code = failure::tell(&error);
            interrupt::die();
            ExitCode::from(code)
        }
    }
}

/// Names itself when it fails.
struct StandardOutput<W>(W);

impl<W: Write> Write for StandardOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), OutputFailed(error))
}

#[derive(Debug, thiserror::Error)]
#[error("standard output")]
struct OutputFailed(#[source] io::Error);
