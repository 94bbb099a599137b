//! `extant chmod`: permissions.

use std::io::Write;

use extant::{InodeHandle, SetAttributes};

use super::mode;
use super::walk::each;
use crate::address::{Address, ImagePath};
use crate::copy::umask;
use crate::{output, volume};

/// Change permissions
#[derive(Debug, clap::Args)]
pub struct ChmodArgs {
    /// Octal digits, or letters such as u+x,go-w; with --reference a file
    #[arg(allow_hyphen_values = true)]
    mode: String,
    /// Files, as IMAGE:/path
    #[arg(required_unless_present = "reference", value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Everything below directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The permissions of this file, in an image or on this machine
    #[arg(long, value_name = "FILE", value_parser = clap::value_parser!(Address))]
    reference: Option<Address>,
    /// Print what became of each file
    #[arg(short, long)]
    verbose: bool,
    /// Print what became of each file that changed
    #[arg(short, long)]
    changes: bool,
}

pub fn run(args: &ChmodArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut files = args.files.clone();
    let text = match &args.reference {
        Some(reference) => {
            files.insert(0, super::parse_inside(&args.mode)?);
            format!("{:o}", super::look(reference)?.mode & 0o7777)
        }
        None => args.mode.clone(),
    };
    let umask = umask();
    mode::apply(&text, 0, false, umask)?;
    volume::change_each(&files, |filesystem, at| {
        let start = filesystem.inode(&at.path)?;
        each(start, args.recursive, at, &mut |handle: &InodeHandle, at| {
            if handle.is_symlink() {
                return Ok(()); // its permissions mean nothing
            }
            let found = handle.metadata()?;
            let is_dir = found.is_dir();
            let mode = mode::apply(&text, found.mode, is_dir, umask)?;
            handle.set_attributes(&SetAttributes { mode: Some(mode), ..Default::default() })?;
            let (old, has_changed) = (found.mode & 0o7777, mode != found.mode & 0o7777);
            if args.verbose || (args.changes && has_changed) {
                let show = |mode: u16| {
                    let letters = output::mode(found.mode & !0o7777 | mode);
                    format!("{mode:04o} ({})", &letters[1..])
                };
                match has_changed {
                    true => {
                        writeln!(out, "mode of {at} changed from {} to {}", show(old), show(mode))
                    }
                    false => writeln!(out, "mode of {at} retained as {}", show(mode)),
                }?;
            }
            mode::check_as_meant(&text, mode, found.mode, is_dir)
        })
    })
}
