//! `extant chown`: owners.

use std::io::Write;

use extant::{InodeHandle, SetAttributes};

use super::walk::each;
use crate::address::{Address, ImagePath};
use crate::names::{Names, Owner, OwnerText};
use crate::{failure, interrupt, volume};

/// Change owners
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct ChownArgs {
    /// USER, USER:GROUP, USER: or :GROUP, by number or as the image's own /etc/passwd and /etc/group have them
    owner: String,
    /// Files, as IMAGE:/path
    #[arg(required_unless_present = "reference", value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Everything below directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Change symbolic links themselves
    #[arg(short = 'h', long)]
    no_dereference: bool,
    /// With -R, follow symbolic links that are named
    #[arg(short = 'H')]
    follow_named: bool,
    /// The owner of this file, in an image or on this machine
    #[arg(long, value_name = "FILE", value_parser = clap::value_parser!(Address))]
    reference: Option<Address>,
    /// Print what became of each file
    #[arg(short, long)]
    verbose: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub fn run(args: &ChownArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut files = args.files.clone();
    let mut fixed = None;
    if let Some(reference) = &args.reference {
        files.insert(0, super::parse_inside(&args.owner)?);
        let found = super::look(reference)?;
        fixed = Some(Owner { uid: Some(found.uid), gid: Some(found.gid) });
    }
    let text = OwnerText::parse(&args.owner);
    failure::each(files.chunk_by(|one, next| one.image == next.image), |run| {
        volume::change(&run[0].image, |filesystem| {
            let names = Names::of(filesystem);
            let owner = fixed.map_or_else(|| names.owner(&text), Ok)?;
            failure::each(run, |at| {
                interrupt::check()?;
                // Whoever goes through trees changes links, and follows none.
                let keeps_link = args.no_dereference || (args.recursive && !args.follow_named);
                let start = match keeps_link {
                    true => filesystem.symlink_inode(&at.path),
                    false => filesystem.inode(&at.path),
                };
                let start =
                    start.map_err(|error| anyhow::Error::from(error).context(at.to_string()))?;
                each(start, args.recursive, at, &mut |handle: &InodeHandle, at| {
                    // With -H they are followed below as well, as by chown(1).
                    let leads = handle.is_symlink() && args.follow_named && !args.no_dereference;
                    let end = leads.then(|| filesystem.inode(&at.path)).transpose()?;
                    change(args, owner, &names, end.as_ref().unwrap_or(handle), at, out)
                })
            })
        })
    })
}

fn change(
    args: &ChownArgs,
    Owner { uid, gid }: Owner,
    names: &Names,
    handle: &InodeHandle,
    at: &ImagePath,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let found = handle.metadata()?;
    handle.set_attributes(&SetAttributes { uid, gid, ..SetAttributes::default() })?;
    if !args.verbose {
        return Ok(());
    }
    let show = |uid, gid| {
        let (user, group) = (names.user(uid), names.group(gid));
        format!("{}:{}", String::from_utf8_lossy(&user), String::from_utf8_lossy(&group))
    };
    let old = show(found.uid, found.gid);
    let new = show(uid.unwrap_or(found.uid), gid.unwrap_or(found.gid));
    match old == new {
        true => writeln!(out, "ownership of {at} retained as {new}")?,
        false => writeln!(out, "changed ownership of {at} from {old} to {new}")?,
    }
    Ok(())
}
