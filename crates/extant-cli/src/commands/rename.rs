//! `extant mv`: renames and moves, inside one image.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use extant::{Error, Filesystem, InodeHandle};

use crate::address::{ImagePath, without_slash};
use crate::failure::{self, Usage};
use crate::{interrupt, volume};

/// Rename or move files inside one image
#[derive(Debug, clap::Args)]
pub struct MvArgs {
    /// What, and at last where to, all as IMAGE:/path of the same image
    #[arg(required = true, num_args = 1.., value_parser = super::inside())]
    paths: Vec<ImagePath>,
    /// Move into this directory
    #[arg(short, long, value_name = "DIRECTORY", conflicts_with = "no_target_directory",
          value_parser = super::inside())]
    target_directory: Option<ImagePath>,
    /// Take the target as it is named, also if it is a directory
    #[arg(short = 'T', long)]
    no_target_directory: bool,
    /// Do not ask, which is how it is anyway
    #[arg(short, long, overrides_with_all = ["interactive", "no_clobber"])]
    force: bool,
    /// Ask before a file is replaced
    #[arg(short, long, overrides_with_all = ["force", "no_clobber"])]
    interactive: bool,
    /// Leave files alone that exist
    #[arg(short, long, overrides_with_all = ["force", "interactive"])]
    no_clobber: bool,
    /// Replace only files that are older
    #[arg(short, long)]
    update: bool,
    /// Print the name of each file that is moved
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &MvArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (target, sources) = match (&args.target_directory, args.paths.split_last()) {
        (Some(target), _) => (target, &args.paths[..]),
        (None, Some((target, sources @ [_, ..]))) => (target, sources),
        (None, _) => {
            let problem = format!("{}: where to? A source needs a target", args.paths[0]);
            return Err(Usage(problem).into());
        }
    };
    if args.no_target_directory && sources.len() > 1 {
        return Err(Usage("-T takes one source and one target".to_owned()).into());
    }
    if let Some(other) = sources.iter().find(|source| source.image != target.image) {
        let problem = format!("{other} is in another image; copy it with `cp -a`, then `rm -r` it");
        return Err(Usage(problem).into());
    }
    volume::change(&target.image, |filesystem| {
        let needs_directory = args.target_directory.is_some() || sources.len() > 1;
        let into = match filesystem.metadata(&target.path) {
            _ if args.no_target_directory => false,
            Ok(found) if found.is_dir() => true,
            Ok(_) if needs_directory => {
                return Err(Error::NotDirectory).with_context(|| target.to_string());
            }
            Err(error) if needs_directory => {
                return Err(error).with_context(|| target.to_string());
            }
            _ => false,
        };
        let mut made = HashSet::new();
        failure::each(sources, |source| {
            interrupt::check()?;
            let to = match source.name().filter(|_| into) {
                Some(name) => target.join(name),
                None => target.clone(),
            };
            let moved = move_one(args, filesystem, source, &to, made.contains(&to.path));
            if moved.with_context(|| format!("{source} to {to}"))? {
                if args.verbose {
                    writeln!(out, "{source} -> {to}")?;
                }
                made.insert(to.path);
            }
            Ok(())
        })
    })
}

/// Whether it was moved, and does not stay because of what is there.
fn move_one(
    args: &MvArgs,
    filesystem: &Filesystem,
    source: &ImagePath,
    to: &ImagePath,
    was_made: bool,
) -> anyhow::Result<bool> {
    let found = filesystem.symlink_inode(without_slash(&source.path))?;
    // A slash asks for a directory, and rename(2) does not follow links to one.
    if (source.path.ends_with(b"/") || to.path.ends_with(b"/")) && !found.is_dir() {
        return Err(Error::NotDirectory.into());
    }
    let old = match filesystem.symlink_inode(without_slash(&to.path)) {
        Err(Error::NotFound) => None,
        old => Some(old?),
    };
    if let Some(old) = old {
        if is_same(filesystem, &found, source, &old, to)? {
            bail!("source and target are the same file");
        }
        let (from, at) = (found.metadata()?.modified, old.metadata()?.modified);
        let is_older = (at.seconds, at.nanoseconds) < (from.seconds, from.nanoseconds);
        if args.no_clobber || (args.update && !is_older) {
            return Ok(false);
        }
        if args.interactive && !failure::ask(&format!("overwrite {to}"))? {
            return Ok(false);
        }
        ensure!(found.is_dir() || !old.is_dir(), "cannot overwrite directory with non-directory");
        ensure!(!was_made || old.is_dir(), "will not overwrite what was just made");
        ensure!(old.is_dir() || !found.is_dir(), "cannot overwrite non-directory with directory");
    }
    filesystem.rename(&source.path, &to.path)?;
    Ok(true)
}

/// Whether moving would lose the file: both names are of it, or one is a link that leads to the other.
fn is_same(
    filesystem: &Filesystem,
    found: &InodeHandle,
    source: &ImagePath,
    old: &InodeHandle,
    to: &ImagePath,
) -> anyhow::Result<bool> {
    if found.number() == old.number() {
        return Ok(true);
    }
    if !found.is_symlink() || old.is_symlink() {
        return Ok(false);
    }
    let ends =
        filesystem.inode(&source.path).and_then(|end| Ok((end, filesystem.inode(&to.path)?)));
    Ok(ends.is_ok_and(|(one, other)| one.number() == other.number()))
}
