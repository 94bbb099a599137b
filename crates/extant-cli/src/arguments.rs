//! The command line's grammar.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

use crate::commands::{
    cat, check, chmod, chown, df, diff, export, info, link, list, manual, map, mkdir, mkfs, mount,
    remove, rename, stat, touch, trace, tree, xattr,
};
use crate::volume::Part;
use crate::{address, copy, failure, values};

/// Look into, fill, edit and explain ext4 images, without root and without the kernel's driver
#[derive(Debug, Parser)]
#[command(name = "extant", bin_name = "extant", version, after_help = AFTER_HELP.as_str())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Wait for an image that somebody else has open, at most so many seconds if a number is given
    #[arg(
        long, global = true, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
        default_missing_value = "4294967295"
    )]
    wait: Option<u32>,
    /// The file system begins at this byte of the image
    #[arg(long, global = true, value_name = "BYTES", value_parser = values::size)]
    offset: Option<u64>,
    /// The file system is in this partition of the image, which is a disk's (GPT or MBR)
    #[arg(long, global = true, value_name = "N", conflicts_with = "offset")]
    partition: Option<u32>,
}

impl Cli {
    /// How long to wait for an image that somebody else has open.
    pub fn patience(&self) -> Option<Duration> {
        self.wait.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Which part of each image is meant, if not all.
    pub fn part(&self) -> Option<Part> {
        self.offset.map(Part::From).or(self.partition.map(Part::Partition))
    }
}

/// Prints what `error` says: help where that was asked for, else what is wrong with the command line.
pub fn tell(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Whoever asked for it may have gone away.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // That a word could be meant for a file is seldom what went wrong.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("tip: to pass '"));
    let mut shown = String::new();
    for line in lines {
        if !(line.is_empty() && shown.ends_with("\n\n")) {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    let _ = write!(std::io::stderr(), "extant: {shown}");
    // One command has the codes of the program that it stands for.
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let is_check = usage.is_some_and(|usage| usage.contains("extant check "));
    ExitCode::from(if is_check { check::USAGE_CODE } else { 2 })
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Info(info::InfoArgs),
    Check(check::CheckArgs),
    Ls(list::LsArgs),
    Cat(cat::CatArgs),
    Stat(stat::StatArgs),
    Tree(tree::TreeArgs),
    Cp(copy::CpArgs),
    Mv(rename::MvArgs),
    Rm(remove::RmArgs),
    Mkdir(mkdir::MkdirArgs),
    Ln(link::LnArgs),
    Chmod(chmod::ChmodArgs),
    Chown(chown::ChownArgs),
    Touch(touch::TouchArgs),
    Xattr(xattr::XattrArgs),
    Df(df::DfArgs),
    Diff(diff::DiffArgs),
    Export(export::ExportArgs),
    Map(map::MapArgs),
    Mkfs(Box<mkfs::MkfsArgs>),
    Build(Box<crate::commands::build::BuildArgs>),
    Bench(crate::commands::bench::BenchArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
    Demo(crate::commands::demo::DemoArgs),
    Trace(trace::TraceArgs),
    CrashTest(crate::commands::crash_test::CrashTestArgs),
    Mount(mount::MountArgs),
    Umount(mount::UmountArgs),
}

static AFTER_HELP: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{}\n\n{}", address::HELP, failure::EXIT_CODES));

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_are_checked_by_the_grammar() {
        assert!(Cli::try_parse_from(["extant", "rm", "disk.img"]).is_err());
        assert!(Cli::try_parse_from(["extant", "rm", "disk.img:/file"]).is_ok());
        assert!(Cli::try_parse_from(["extant", "ls", "disk.img"]).is_ok());
        assert!(Cli::try_parse_from(["extant", "cp"]).is_err());
        assert!(Cli::try_parse_from(["extant", "cp", "-a", "folder", "disk.img:/"]).is_ok());
    }
}
