//! `extant completions` and `extant man`: what the grammar knows, for shells and for man(1).

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use crate::arguments::Cli;

/// Print what a shell needs to complete command lines
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Which shell; its manual says where it looks for them
    shell: clap_complete::Shell,
}

/// Write manual pages, one a command
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The directory that gets them, as a rule .../man/man1
    directory: PathBuf,
}

pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    // The generator takes no error of where it writes to.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "extant", &mut text);
    Ok(out.write_all(&text)?)
}

pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let name = || args.directory.display().to_string();
    std::fs::create_dir_all(&args.directory).with_context(name)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).with_context(name)
}
