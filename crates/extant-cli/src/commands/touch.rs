//! `extant touch`: times, and empty files.

use extant::{Error, Filesystem, InodeHandle, OpenOptions, SetAttributes};
use extant_format::Timestamp;

use crate::address::{Address, ImagePath};
use crate::{values, volume};

/// Make empty files, or set times
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct TouchArgs {
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Make no file
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Instead of now: 2026-01-31, 2026-01-31T12:00:00, with a zone such as +01:00 or in UTC, @SECONDS since 1970, now
    #[arg(short, long, value_parser = values::moment, allow_hyphen_values = true)]
    date: Option<Timestamp>,
    /// Instead of now: [[CC]YY]MMDDhhmm[.ss], in UTC
    #[arg(short = 't', value_name = "STAMP", value_parser = values::stamp, conflicts_with = "date")]
    stamp: Option<Timestamp>,
    /// Instead of now: the times of this file, in an image or on this machine
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["date", "stamp"],
          value_parser = clap::value_parser!(Address))]
    reference: Option<Address>,
    /// The time of access only
    #[arg(short = 'a')]
    access: bool,
    /// The time of modification only
    #[arg(short = 'm')]
    modification: bool,
    /// Change symbolic links themselves
    #[arg(short = 'h', long)]
    no_dereference: bool,
    /// Without effect: as touch(1) has it
    #[arg(short, hide = true)]
    force: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub fn run(args: &TouchArgs) -> anyhow::Result<()> {
    let (accessed, modified) = match &args.reference {
        Some(reference) => {
            let found = super::look(reference)?;
            (found.accessed, found.modified)
        }
        None => {
            let time = args.date.or(args.stamp).unwrap_or_else(values::now);
            (time, time)
        }
    };
    let both = args.access == args.modification;
    let change = SetAttributes {
        accessed: (both || args.access).then_some(accessed),
        modified: (both || args.modification).then_some(modified),
        ..SetAttributes::default()
    };
    volume::change_each(&args.files, |filesystem, at| {
        match find_or_make(filesystem, &at.path, args)? {
            Some(handle) => Ok(handle.set_attributes(&change)?),
            None => Ok(()),
        }
    })
}

/// The file to touch; `None` if there is none and none shall be made.
fn find_or_make(
    filesystem: &Filesystem,
    path: &[u8],
    args: &TouchArgs,
) -> Result<Option<InodeHandle>, Error> {
    let found = match args.no_dereference {
        true => filesystem.symlink_inode(path),
        false => filesystem.inode(path),
    };
    let is_missing = matches!(found, Err(Error::NotFound));
    if is_missing && args.no_create {
        return Ok(None);
    }
    // A slash asks for a directory, which is nothing that touch makes.
    if !is_missing || path.ends_with(b"/") || args.no_dereference {
        return found.map(Some);
    }
    let mode = super::new_mode(filesystem, path, 0o666)?;
    let options = OpenOptions::new().write(true).create(true).mode(mode);
    Ok(Some(filesystem.open_with(path, options)?.inode().clone()))
}
