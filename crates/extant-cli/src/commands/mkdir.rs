//! `extant mkdir`: makes directories.

use std::io::Write;

use extant::{Error, Filesystem, SetAttributes};

use super::{mode, new_mode};
use crate::address::{ImagePath, last_name, parent};
use crate::copy::umask;
use crate::volume;

/// Make directories
#[derive(Debug, clap::Args)]
pub struct MkdirArgs {
    /// Directories, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    directories: Vec<ImagePath>,
    /// Missing parents too; existing ones are no error
    #[arg(short, long)]
    parents: bool,
    /// Permissions: octal digits, or letters such as u=rwx,go=rx; all but the umask by default
    #[arg(short, long)]
    mode: Option<String>,
    /// Print the name of each directory that is made
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &MkdirArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if let Some(text) = &args.mode {
        mode::apply(text, 0, true, 0)?;
    }
    volume::change_each(&args.directories, |filesystem, at| {
        if last_name(&at.path).is_none() && at.path.iter().all(|byte| *byte == b'/') {
            return if args.parents { Ok(()) } else { Err(Error::Exists.into()) };
        }
        let mut ends: Vec<usize> = Vec::new();
        if args.parents {
            let slashes = at.path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
            ends.extend(slashes.map(|(end, _)| end));
        }
        ends.push(at.path.len());
        for end in ends {
            let path = &at.path[..end];
            let is_last = path.len() == at.path.len() || at.path[end..].iter().all(|b| *b == b'/');
            match make(filesystem, path, args.mode.as_deref().filter(|_| is_last)) {
                Ok(()) => {
                    if args.verbose {
                        let made = ImagePath { path: path.to_vec(), ..at.clone() };
                        writeln!(out, "created directory {made}")?;
                    }
                }
                Err(error) if !is_exists(&error) => return Err(error),
                Err(_) if args.parents && filesystem.metadata(path)?.is_dir() => {}
                Err(_) if args.parents && !is_last => return Err(Error::NotDirectory.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

/// Makes one directory, with the permissions that `mode` makes of the usual ones.
fn make(filesystem: &Filesystem, path: &[u8], mode: Option<&str>) -> anyhow::Result<()> {
    let usual = new_mode(filesystem, path, 0o777)?;
    let name = last_name(path).ok_or(Error::NotFound)?;
    let made = filesystem.inode(parent(path))?.create_dir(name, usual)?;
    if let Some(mode) = mode {
        let mode = mode::apply(mode, made.metadata()?.mode, true, umask())?;
        made.set_attributes(&SetAttributes { mode: Some(mode), ..SetAttributes::default() })?;
    }
    Ok(())
}

fn is_exists(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Exists))
}
