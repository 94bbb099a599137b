//! `extant ln`: hard and symbolic links.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, bail, ensure};
use extant::{Error, Filesystem, InodeHandle};

use crate::address::{Address, ImagePath, last_name, parent, without_slash};
use crate::failure::{self, Usage};
use crate::{interrupt, volume};

/// Make links
#[derive(Debug, clap::Args)]
pub struct LnArgs {
    /// What to link to, and at last the new name or the directory of the links, as IMAGE:/path; with -s what to link to is
    /// any text
    #[arg(required = true, num_args = 1.., value_name = "TARGET")]
    paths: Vec<OsString>,
    /// Make the links in this directory
    #[arg(short, long, value_name = "DIRECTORY", conflicts_with = "no_target_directory",
          value_parser = super::inside())]
    target_directory: Option<ImagePath>,
    /// Take the last name as it is, also if it is a directory
    #[arg(short = 'T', long)]
    no_target_directory: bool,
    /// Take the last name as it is if it is a symbolic link to a directory
    #[arg(short, long)]
    no_dereference: bool,
    /// Symbolic links
    #[arg(short, long)]
    symbolic: bool,
    /// With -s, as seen from where the link is; the target is a path in the image
    #[arg(short, long, requires = "symbolic")]
    relative: bool,
    /// Replace what has that name
    #[arg(short, long, overrides_with = "interactive")]
    force: bool,
    /// Ask before something is replaced
    #[arg(short, long, overrides_with = "force")]
    interactive: bool,
    /// Hard links to what symbolic links lead to
    #[arg(short = 'L', long)]
    logical: bool,
    /// Print the name of each link
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &LnArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (link, targets) = match (&args.target_directory, args.paths.split_last()) {
        (Some(directory), _) => (directory.clone(), &args.paths[..]),
        (None, Some((last, targets @ [_, ..]))) => {
            (ImagePath::parse(last.clone()).map_err(Usage)?, targets)
        }
        (None, _) => return Err(Usage("what to link to, and the new name".to_owned()).into()),
    };
    let targets = targets.iter().map(|text| target_of(args, &link, text));
    let targets = targets.collect::<anyhow::Result<Vec<_>>>()?;
    volume::change(&link.image, |filesystem| {
        let into = is_directory(args, filesystem, &link, targets.len())?;
        let mut made = HashSet::new();
        failure::each(&targets, |target| {
            interrupt::check()?;
            let link = match last_name(target).filter(|_| into) {
                Some(name) => link.join(name),
                None => link.clone(),
            };
            let was_made = made.contains(&link.path);
            let shown = make(args, filesystem, target, &link, was_made);
            if let Some(shown) = shown.with_context(|| link.to_string())? {
                if args.verbose {
                    let arrow = if args.symbolic { "->" } else { "=>" };
                    writeln!(out, "{link} {arrow} {}", String::from_utf8_lossy(&shown))?;
                }
                made.insert(link.path);
            }
            Ok(())
        })
    })
}

/// What a link leads to: a path in the image, or with -s a text.
fn target_of(args: &LnArgs, link: &ImagePath, text: &OsStr) -> anyhow::Result<Vec<u8>> {
    if args.symbolic && !args.relative {
        return Ok(text.as_bytes().to_vec());
    }
    match Address::parse(text.to_owned()) {
        Address::Image(target) if target.image == link.image => Ok(target.path),
        Address::Image(target) => {
            Err(Usage(format!("{target} is in another image; links stay inside one")).into())
        }
        Address::Local(path) if args.relative && path.is_absolute() => {
            Ok(path.as_os_str().as_bytes().to_vec())
        }
        Address::Local(path) => Err(Usage(format!(
            "`{}` names no file inside an image; write IMAGE:/path",
            path.display()
        ))
        .into()),
    }
}

/// Whether links are made in the directory that was named last.
fn is_directory(
    args: &LnArgs,
    filesystem: &Filesystem,
    link: &ImagePath,
    targets: usize,
) -> anyhow::Result<bool> {
    let needed = args.target_directory.is_some() || targets > 1;
    if args.no_target_directory {
        ensure!(targets == 1, Usage("-T takes one target and one name".to_owned()));
        return Ok(false);
    }
    let found = match args.no_dereference && !needed {
        true => filesystem.symlink_metadata(without_slash(&link.path)),
        false => filesystem.metadata(&link.path),
    };
    match found {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) if needed => Err(Error::NotDirectory).with_context(|| link.to_string()),
        Err(error) if needed => Err(error).with_context(|| link.to_string()),
        _ => Ok(false),
    }
}

/// Makes one link; what it leads to, unless what is there stays.
fn make(
    args: &LnArgs,
    filesystem: &Filesystem,
    target: &[u8],
    link: &ImagePath,
    was_made: bool,
) -> anyhow::Result<Option<Vec<u8>>> {
    let original = match (args.symbolic, args.logical) {
        (true, _) => None,
        (false, true) => Some(filesystem.inode(target).with_context(|| address(link, target))?),
        (false, false) => {
            Some(filesystem.symlink_inode(target).with_context(|| address(link, target))?)
        }
    };
    if original.as_ref().is_some_and(InodeHandle::is_dir) {
        bail!("only `ln -s` links directories");
    }
    let shown = match args.relative {
        true => relative(filesystem, target, &link.path)?,
        false => target.to_vec(),
    };
    if (args.force || args.interactive)
        && let Ok(old) = filesystem.symlink_inode(without_slash(&link.path))
    {
        if old.is_dir() {
            bail!("cannot overwrite directory");
        }
        let seen_from_link = parent(&link.path);
        let led_to = match (&original, target.first()) {
            (Some(_), _) | (None, Some(b'/')) => target.to_vec(),
            (None, _) => [seen_from_link, target].concat(),
        };
        let at_target = filesystem.symlink_inode(&led_to).ok();
        let same = at_target.is_some_and(|found| found.number() == old.number());
        let metadata = old.metadata()?;
        if same && (metadata.links == 1 || is_same_name(filesystem, &led_to, &link.path)) {
            bail!("source and target are the same file");
        }
        ensure!(!was_made, "will not overwrite what was just made");
        if args.interactive && !failure::ask(&format!("replace {link}"))? {
            return Ok(None);
        }
        filesystem.remove_file(without_slash(&link.path))?;
    }
    match &original {
        None => filesystem.symlink(&shown, &link.path)?,
        Some(_) if args.logical => {
            let end = canonical(filesystem, target)?;
            filesystem.hard_link(end, &link.path)?;
        }
        Some(_) => filesystem.hard_link(target, &link.path)?,
    }
    Ok(Some(shown))
}

/// Whether two paths end in the same name of the same directory.
fn is_same_name(filesystem: &Filesystem, one: &[u8], other: &[u8]) -> bool {
    let directory = |path| filesystem.inode(parent(path)).map(|found| found.number());
    last_name(one) == last_name(other)
        && matches!((directory(one), directory(other)), (Ok(one), Ok(other)) if one == other)
}

/// The way from a link's directory to a path, both without symbolic links on the way.
fn relative(filesystem: &Filesystem, target: &[u8], link: &[u8]) -> anyhow::Result<Vec<u8>> {
    let target = canonical(filesystem, target)?;
    let from = canonical(filesystem, parent(link))?;
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (to, from) = (names(&target), names(&from));
    let common = to.iter().zip(&from).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n(b"..".to_vec(), from.len() - common);
    let way: Vec<_> = up.chain(to[common..].iter().cloned()).collect();
    Ok(if way.is_empty() { b".".to_vec() } else { way.join(&b'/') })
}

/// A path without symbolic links, dots and double slashes; its end need not exist.
fn canonical(filesystem: &Filesystem, path: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut left: Vec<Vec<u8>> =
        path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = left.pop() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(name),
        }
        let so_far = [&b"/"[..], &done.join(&b'/')].concat();
        if let Ok(found) = filesystem.symlink_inode(&so_far)
            && found.is_symlink()
        {
            links += 1;
            ensure!(links <= 40, Error::LinkLoop);
            let target = found.read_link()?;
            done.pop();
            if target.starts_with(b"/") {
                done.clear();
            }
            left.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
        }
    }
    Ok([&b"/"[..], &done.join(&b'/')].concat())
}

fn address(link: &ImagePath, path: &[u8]) -> String {
    ImagePath { image: link.image.clone(), path: path.to_vec() }.to_string()
}
