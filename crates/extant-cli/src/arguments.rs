//! The command line's grammar.

use clap::Parser;

use crate::commands::{cat, change, df, info, list, map, mkfs, stat, trace, tree, xattr};
use crate::{address, copy, failure};

/// Look into, fill, edit and explain ext4 images, without root and without the kernel's driver
#[derive(Debug, Parser)]
#[command(name = "extant", version, after_help = AFTER_HELP.as_str())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Info(info::InfoArgs),
    Ls(list::LsArgs),
    Cat(cat::CatArgs),
    Stat(stat::StatArgs),
    Tree(tree::TreeArgs),
    Cp(copy::CpArgs),
    Mv(change::MvArgs),
    Rm(change::RmArgs),
    Mkdir(change::MkdirArgs),
    Ln(change::LnArgs),
    Chmod(change::ChmodArgs),
    Chown(change::ChownArgs),
    Touch(change::TouchArgs),
    Xattr(xattr::XattrArgs),
    Df(df::DfArgs),
    Map(map::MapArgs),
    Mkfs(mkfs::MkfsArgs),
    Demo(crate::commands::demo::DemoArgs),
    Trace(trace::TraceArgs),
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
        assert!(Cli::try_parse_from(["extant", "cp", "file"]).is_err());
        assert!(Cli::try_parse_from(["extant", "cp", "-a", "folder", "disk.img:/"]).is_ok());
    }
}
