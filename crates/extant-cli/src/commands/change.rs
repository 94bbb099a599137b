//! The commands that are a few calls of the engine each: `mv`, `rm`, `mkdir`, `ln`, `chmod`, `chown`, `touch`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use extant::{Error, Filesystem, InodeHandle, OpenOptions, SetAttributes};
use extant_format::Timestamp;

use super::mode;
use crate::address::{ImagePath, last_name};
use crate::failure::{self, Usage};
use crate::{output, volume};

/// Rename or move files inside one image
#[derive(Debug, clap::Args)]
pub struct MvArgs {
    /// What, and at last where to, all as IMAGE:/path of the same image
    #[arg(required = true, num_args = 2.., value_parser = super::inside())]
    paths: Vec<ImagePath>,
}

pub fn mv(args: &MvArgs) -> anyhow::Result<()> {
    let (target, sources) = args.paths.split_last().context("nothing to move")?;
    if let Some(other) = sources.iter().find(|source| source.image != target.image) {
        let problem = format!("{other} is in another image; copy it with `cp -a`, then `rm -r` it");
        return Err(Usage(problem).into());
    }
    volume::change(&target.image, |filesystem| {
        let into = filesystem.metadata(&target.path).is_ok_and(|found| found.is_dir());
        if sources.len() > 1 && !into {
            return Err(Error::NotDirectory).with_context(|| target.to_string());
        }
        failure::each(sources, |source| {
            let to = match source.name().filter(|_| into) {
                Some(name) => target.join(name),
                None => target.clone(),
            };
            filesystem.rename(&source.path, &to.path).with_context(|| format!("{source} to {to}"))
        })
    })
}

/// Remove files
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Directories with everything below them too
    #[arg(short, long)]
    recursive: bool,
    /// Empty directories too
    #[arg(short = 'd', long)]
    dir: bool,
    /// What does not exist is no error
    #[arg(short, long)]
    force: bool,
}

pub fn rm(args: &RmArgs) -> anyhow::Result<()> {
    volume::change_each(&args.files, |filesystem, path| {
        if last_name(path).is_none() {
            return Err(Usage("a root directory cannot be removed".to_owned()).into());
        }
        let found = match filesystem.symlink_metadata(path) {
            Err(Error::NotFound) if args.force => return Ok(()),
            found => found?,
        };
        match (found.is_dir(), args.recursive, args.dir) {
            (true, true, _) => filesystem.remove_dir_all(path)?,
            (true, false, true) => filesystem.remove_dir(path)?,
            (true, false, false) => bail!("is a directory; `rm -r` removes it"),
            (false, ..) => filesystem.remove_file(path)?,
        }
        Ok(())
    })
}

/// Make directories
#[derive(Debug, clap::Args)]
pub struct MkdirArgs {
    /// Directories, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    directories: Vec<ImagePath>,
    /// Missing parents too; existing ones are no error
    #[arg(short, long)]
    parents: bool,
    /// Permissions, in octal
    #[arg(short, long, default_value = "755")]
    mode: String,
}

pub fn mkdir(args: &MkdirArgs) -> anyhow::Result<()> {
    let mode = mode::apply(&args.mode, 0, true)?;
    volume::change_each(&args.directories, |filesystem, path| {
        let existed = args.parents && filesystem.metadata(path).is_ok();
        match args.parents {
            true => filesystem.create_dir_all(path)?,
            false => filesystem.create_dir(path)?,
        }
        if !existed && mode != 0o755 {
            filesystem.set_permissions(path, mode)?;
        }
        Ok(())
    })
}

/// Make links
#[derive(Debug, clap::Args)]
pub struct LnArgs {
    /// What to link to: an existing file as IMAGE:/path, or with -s any text
    target: OsString,
    /// The new name, as IMAGE:/path
    #[arg(value_parser = super::inside())]
    link: ImagePath,
    /// A symbolic link
    #[arg(short, long)]
    symbolic: bool,
    /// Replace what has that name
    #[arg(short, long)]
    force: bool,
}

pub fn ln(args: &LnArgs) -> anyhow::Result<()> {
    let target = match args.symbolic {
        true => args.target.as_bytes().to_vec(),
        false => {
            let target = ImagePath::parse(args.target.clone()).map_err(Usage)?;
            if target.image != args.link.image {
                return Err(Usage(format!(
                    "{target} is in another image; hard links stay inside one"
                ))
                .into());
            }
            target.path
        }
    };
    volume::change(&args.link.image, |filesystem| {
        let into = filesystem.metadata(&args.link.path).is_ok_and(|found| found.is_dir());
        let link = match last_name(&target).filter(|_| into) {
            Some(name) => args.link.join(name),
            None => args.link.clone(),
        };
        let path = &link.path;
        let original = ImagePath { image: link.image.clone(), path: target.clone() };
        let original = match args.symbolic {
            true => None,
            false => Some(filesystem.symlink_inode(&target).with_context(|| original.to_string())?),
        };
        if original.as_ref().is_some_and(InodeHandle::is_dir) {
            bail!("{link}: only `ln -s` links directories");
        }
        if args.force
            && let Ok(old) = filesystem.symlink_inode(path)
        {
            if original.is_some_and(|original| original.number() == old.number()) {
                return Ok(()); // it has that name already
            }
            filesystem.remove_file(path).with_context(|| link.to_string())?;
        }
        let made = if args.symbolic {
            filesystem.symlink(&target, path)
        } else {
            filesystem.hard_link(&target, path)
        };
        made.with_context(|| link.to_string())
    })
}

/// Change permissions
#[derive(Debug, clap::Args)]
pub struct ChmodArgs {
    /// Octal digits, or letters such as u+x,go-w
    #[arg(allow_hyphen_values = true)]
    mode: String,
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Everything below directories too
    #[arg(short = 'R', long)]
    recursive: bool,
}

pub fn chmod(args: &ChmodArgs) -> anyhow::Result<()> {
    mode::apply(&args.mode, 0, false)?;
    volume::change_each(&args.files, |filesystem, path| {
        let start = filesystem.inode(path)?;
        each(start, args.recursive, &mut |handle| {
            if handle.is_symlink() {
                return Ok(()); // its permissions mean nothing
            }
            let found = handle.metadata()?;
            let mode = mode::apply(&args.mode, found.mode, found.is_dir())?;
            Ok(handle
                .set_attributes(&SetAttributes { mode: Some(mode), ..SetAttributes::default() })?)
        })
    })
}

/// Change owners
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct ChownArgs {
    /// UID, UID:GID or :GID, as numbers
    #[arg(value_parser = parse_owner)]
    owner: Owner,
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Everything below directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Change a symbolic link itself
    #[arg(short = 'h', long)]
    no_dereference: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Who owns a file from now on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Numbers only: an image has its own names, and this machine's may mean somebody else.
fn parse_owner(text: &str) -> Result<Owner, String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let number = |text: &str| match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("`{text}` is no number; write UID:GID")),
    };
    Ok(Owner { uid: number(uid)?, gid: number(gid)? })
}

pub fn chown(args: &ChownArgs) -> anyhow::Result<()> {
    let Owner { uid, gid } = args.owner;
    volume::change_each(&args.files, |filesystem, path| {
        let start = match args.no_dereference {
            true => filesystem.symlink_inode(path)?,
            false => filesystem.inode(path)?,
        };
        each(start, args.recursive, &mut |handle| {
            Ok(handle.set_attributes(&SetAttributes { uid, gid, ..SetAttributes::default() })?)
        })
    })
}

/// Does something to a file, and to everything below it if asked; what is below comes first.
fn each(
    start: InodeHandle,
    recursive: bool,
    change: &mut dyn FnMut(&InodeHandle) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut stack = vec![(start, false)];
    while let Some((handle, listed)) = stack.pop() {
        if listed || !recursive || !handle.is_dir() {
            change(&handle)?;
            continue;
        }
        let entries = handle.read_dir()?;
        stack.push((handle.clone(), true));
        for entry in entries {
            let entry = entry?;
            let name = || String::from_utf8_lossy(entry.name()).into_owned();
            stack.push((handle.lookup(entry.name()).with_context(name)?, false));
        }
    }
    Ok(())
}

/// Make empty files, or set times
#[derive(Debug, clap::Args)]
pub struct TouchArgs {
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Make no file
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Instead of now: 2026-01-31, 2026-01-31T12:00:00 (UTC), or seconds since 1970; each with an optional fraction
    #[arg(short, long, value_parser = parse_time, allow_hyphen_values = true)]
    date: Option<Timestamp>,
    /// The time of access only
    #[arg(short = 'a')]
    access: bool,
    /// The time of modification only
    #[arg(short = 'm')]
    modification: bool,
}

/// A date with or without a time of day, in UTC, or seconds since 1970; with up to nine digits of a fraction.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!("`{text}` is no time; write 2026-01-31, 2026-01-31T12:00:00 or seconds since 1970")
    };
    let bare = text.trim_start_matches('@').trim_end_matches('Z');
    let (whole, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    let seconds = whole.parse().ok().or_else(|| parse_date(whole)).ok_or_else(wrong)?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => {
            Ok(Timestamp { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds })
        }
        _ => Ok(Timestamp { seconds, nanoseconds }),
    }
}

/// Seconds since 1970 of `2026-01-31`, `2026-01-31T12:00` or `2026-01-31 12:00:59`.
fn parse_date(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "0:0"));
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    let [year, month, day] = *date.split('-').map(number).collect::<Option<Vec<_>>>()? else {
        return None;
    };
    let (hour, minute, second) = match *clock.split(':').map(number).collect::<Option<Vec<_>>>()? {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    let days = output::days(year, month, day).filter(|_| is_time)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

pub fn touch(args: &TouchArgs) -> anyhow::Result<()> {
    let time = args.date.unwrap_or_else(now);
    let both = args.access == args.modification;
    let accessed = (both || args.access).then_some(time);
    let modified = (both || args.modification).then_some(time);
    volume::change_each(&args.files, |filesystem, path| {
        match touch_target(filesystem, path, args.no_create)? {
            Some(handle) => Ok(handle.set_attributes(&SetAttributes {
                accessed,
                modified,
                ..SetAttributes::default()
            })?),
            None => Ok(()),
        }
    })
}

fn touch_target(
    filesystem: &Filesystem,
    path: &[u8],
    no_create: bool,
) -> Result<Option<InodeHandle>, Error> {
    match filesystem.inode(path) {
        Err(Error::NotFound) if no_create => Ok(None),
        Err(Error::NotFound) => {
            let made = filesystem.open_with(path, OpenOptions::new().write(true).create(true))?;
            Ok(Some(made.inode().clone()))
        }
        found => found.map(Some),
    }
}

/// This machine's time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers() {
        assert_eq!(parse_owner("1:2"), Ok(Owner { uid: Some(1), gid: Some(2) }));
        assert_eq!(parse_owner("1"), Ok(Owner { uid: Some(1), gid: None }));
        assert_eq!(parse_owner(":2"), Ok(Owner { uid: None, gid: Some(2) }));
        assert!(parse_owner("root").is_err());
    }

    #[test]
    fn times_have_a_fraction() {
        assert_eq!(parse_time("12"), Ok(Timestamp { seconds: 12, nanoseconds: 0 }));
        assert_eq!(parse_time("12.5"), Ok(Timestamp { seconds: 12, nanoseconds: 500_000_000 }));
        assert_eq!(parse_time("-1.25"), Ok(Timestamp { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(parse_time("@12"), parse_time("12"));
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2026-11-24 01:19", 1_795_483_140),
        ] {
            assert_eq!(parse_time(text), Ok(Timestamp { seconds, nanoseconds: 0 }), "{text}");
        }
        for wrong in ["noon", "1.1234567890", "2026-02-29", "2026-13-01", "2026-01-01T24:00"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
