//! The grammar of `extant cp`: cp(1)'s words, and what they mean together.

use clap::ArgAction;

use super::settings::{Follow, Keep, Policy, Replace, Settings, Sparse};
use crate::address::Address;
use crate::failure::Usage;
use crate::progress::Words;

/// Copy files into an image, out of one, or from image to image
///
/// New files inside an image belong to root unless their owners are kept. A file in the way is written over and keeps its
/// permissions, owner and names; a directory in the way is filled. Holes stay holes. `/dev/stdin` and other pipes are read to
/// their end. On this machine symbolic links inside the target are replaced, never followed.
#[derive(Debug, clap::Args)]
pub struct CpArgs {
    /// What, and at last where to: IMAGE:/path, or a path of this machine
    #[arg(required = true, num_args = 1.., value_parser = clap::value_parser!(Address))]
    pub paths: Vec<Address>,
    /// Copy into this directory
    #[arg(short, long, value_name = "DIRECTORY", conflicts_with = "no_target_directory",
          value_parser = clap::value_parser!(Address))]
    pub target_directory: Option<Address>,
    /// Take the target as it is named, also if it is a directory
    #[arg(short = 'T', long)]
    pub no_target_directory: bool,
    /// Make the directories above each source too
    #[arg(long, conflicts_with = "no_target_directory")]
    pub parents: bool,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    in_the_way: InTheWay,
    /// Print the name of each copy
    #[arg(short, long, conflicts_with_all = ["quiet", "json"])]
    pub verbose: bool,
    /// Only speak of what went wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// Print what was done for a program to read
    #[arg(long)]
    pub json: bool,
}

/// What is read.
#[derive(Debug, clap::Args)]
struct What {
    /// Directories with everything below them too
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// As -dr --preserve=all
    #[arg(short, long)]
    archive: bool,
    /// Copy what symbolic links lead to
    #[arg(short = 'L', long, overrides_with_all = ["no_dereference", "dereference_named"])]
    dereference: bool,
    /// Copy symbolic links as such
    #[arg(short = 'P', long, overrides_with_all = ["dereference", "dereference_named"])]
    no_dereference: bool,
    /// Copy what symbolic links lead to that are named as sources
    #[arg(short = 'H', overrides_with_all = ["dereference", "no_dereference"])]
    dereference_named: bool,
    /// As --no-dereference --preserve=links
    #[arg(short = 'd')]
    links_as_such: bool,
    /// Stay in the file system of each source
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// What becomes of holes
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    sparse: Sparse,
}

/// What is kept of it.
#[derive(Debug, clap::Args)]
struct KeepArgs {
    /// Keep permissions, owners and times, or what is listed: mode, ownership, timestamps, links, xattr, all
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, action = ArgAction::Append,
          default_missing_value = "mode,ownership,timestamps")]
    preserve: Vec<String>,
    /// As --preserve=mode,ownership,timestamps
    #[arg(short = 'p')]
    preserve_usual: bool,
    /// Keep all but what is listed
    #[arg(long, value_name = "LIST")]
    no_preserve: Vec<String>,
}

/// What becomes of files in the way.
#[derive(Debug, clap::Args)]
struct InTheWay {
    /// Leave files alone that exist
    #[arg(short, long, overrides_with = "interactive")]
    no_clobber: bool,
    /// Ask before a file is written over
    #[arg(short, long, overrides_with = "no_clobber")]
    interactive: bool,
    /// Replace only files that are older
    #[arg(short, long)]
    update: bool,
    /// Remove files in the way that cannot be written over
    #[arg(short, long)]
    force: bool,
    /// Remove each file in the way first
    #[arg(long)]
    remove_destination: bool,
}

impl CpArgs {
    /// What the sources read and keep.
    ///
    /// # Errors
    /// A word that names no attribute.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let (what, keep) = (&self.what, &self.keep);
        let recursive = what.recursive || what.archive;
        let as_such = what.no_dereference || what.links_as_such || what.archive;
        let follow = match (what.dereference, what.dereference_named, as_such) {
            (true, ..) => Follow::Always,
            (_, true, _) => Follow::Named,
            (.., true) => Follow::Never,
            // Without -r only what is named is copied, and that is followed.
            (.., false) => {
                if recursive {
                    Follow::Never
                } else {
                    Follow::Always
                }
            }
        };
        let mut kept = if what.archive { Keep::ALL } else { Keep::default() };
        kept.links |= what.links_as_such;
        if keep.preserve_usual {
            kept = Keep { links: kept.links, xattrs: kept.xattrs, ..Keep::USUAL };
        }
        let lists = keep.preserve.iter().map(|list| (list, true));
        for (list, on) in lists.chain(keep.no_preserve.iter().map(|list| (list, false))) {
            kept = kept.with(list, on).map_err(|word| {
                Usage(format!(
                    "`{word}` is no attribute; there are mode, ownership, timestamps, links, xattr, all"
                ))
            })?;
        }
        let one_file_system = what.one_file_system;
        let usual_mode = !kept.mode
            && keep.no_preserve.iter().any(|list| list.split(',').any(|word| word == "mode"));
        let sparse = what.sparse;
        Ok(Settings { recursive, follow, keep: kept, usual_mode, sparse, one_file_system })
    }

    /// What becomes of files in the way.
    pub fn policy(&self, keep: Keep, through: Follow) -> Policy {
        let InTheWay { no_clobber, interactive, update, force, remove_destination } =
            self.in_the_way;
        Policy {
            replace: match (no_clobber, interactive, update) {
                (true, ..) => Replace::Never,
                (_, _, true) => Replace::Older,
                (_, true, _) => Replace::Asked,
                _ => Replace::Always,
            },
            remove_first: remove_destination,
            force,
            keep_links: keep.links,
            through,
            umask: umask(),
            keep_mode: keep.mode,
            keep_times: keep.times,
        }
    }

    /// How much is said.
    pub fn words(&self) -> Words {
        match (self.quiet, self.verbose) {
            (true, _) => Words::Quiet,
            (false, true) => Words::EachFile,
            (false, false) => Words::Usual,
        }
    }
}

/// Permission bits that this process does not give to new files.
pub fn umask() -> u16 {
    let old = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(old);
    u16::try_from(old.as_raw_mode()).unwrap_or(0o022)
}
