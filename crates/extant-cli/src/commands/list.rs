//! `extant ls`: the names in directories.

use std::cmp::Reverse;
use std::io::Write;

use anyhow::Context;
use extant::{Filesystem, InodeHandle, Metadata};
use extant_format::InodeNumber;
use serde_json::{Value, json};

use crate::address::{ImagePath, last_name, parent, without_slash};
use crate::copy::is_access_list;
use crate::failure::{self, Told};
use crate::names::Names;
use crate::output::{self, json_metadata, json_name, print_json};
use crate::volume::Reading;

/// List directories
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of ls(1)")]
pub struct LsArgs {
    /// Directories or files, as IMAGE:/path; an image alone means its root
    #[arg(required = true, value_parser = super::inside_or_root())]
    paths: Vec<ImagePath>,
    /// Type, permissions, links, owner, size and time (UTC) too; `+` where there is an access list
    #[arg(short)]
    long: bool,
    /// As -l, with numbers of owners
    #[arg(short)]
    numeric: bool,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// The same, but neither `.` nor `..`
    #[arg(short = 'A', long)]
    almost_all: bool,
    /// Directories themselves, not what is in them
    #[arg(short, long)]
    directory: bool,
    /// Inode numbers too
    #[arg(short, long)]
    inode: bool,
    /// Sizes with a unit
    #[arg(short, long)]
    human_readable: bool,
    /// The newest first
    #[arg(short = 't', overrides_with = "by_size")]
    by_time: bool,
    /// The largest first
    #[arg(short = 'S', overrides_with = "by_time")]
    by_size: bool,
    /// The other way round
    #[arg(short, long)]
    reverse: bool,
    /// One name a line, which is how it is anyway
    #[arg(short = '1')]
    one: bool,
    /// Directories below too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// One line.
struct Row {
    name: Vec<u8>,
    metadata: Metadata,
    target: Option<Vec<u8>>,
    has_list: bool,
}

/// What is shown under one title.
struct Listing {
    inode: InodeNumber,
    /// The directory that all of it is in.
    directory: ImagePath,
    /// Not if a file or directory is shown by the path that was given for it.
    is_inside: bool,
    rows: Vec<Row>,
}

pub fn run(args: &LsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let with_titles = args.recursive || args.paths.len() > 1;
    let mut is_first = true;
    let outcome = failure::each(&args.paths, |path| {
        let reading = Reading::open(&path.image)?;
        let filesystem = reading.filesystem();
        let names = if args.numeric { Names::default() } else { Names::of(filesystem) };
        let (mut todo, mut worst) = (vec![(path.clone(), None)], 0);
        while let Some((directory, above)) = todo.pop() {
            let listing = list(args, filesystem, &directory, above);
            let listing = match listing.with_context(|| directory.to_string()) {
                Ok(listing) => listing,
                // One of many that cannot be read does not hide the others.
                Err(error) => {
                    worst = reading.tell(error)?.max(worst);
                    continue;
                }
            };
            if args.recursive && listing.is_inside {
                let below = listing.rows.iter().rev().filter(|row| row.metadata.is_dir());
                let below = below.filter(|row| !matches!(&row.name[..], b"." | b".."));
                todo.extend(below.map(|row| (directory.join(&row.name), Some(listing.inode))));
            }
            if args.json {
                values.extend(listing.rows.iter().map(|row| json_row(&listing, row)));
                continue;
            }
            if with_titles && listing.is_inside {
                writeln!(out, "{}{directory}:", if is_first { "" } else { "\n" })?;
            }
            is_first = false;
            print_rows(args, &names, &listing.rows, out)?;
        }
        if worst == 0 { Ok(()) } else { Err(Told(worst).into()) }
    });
    if args.json {
        print_json(out, &json!(values))?;
    }
    outcome
}

/// What is in a directory, or a file alone; a link to a directory means the directory, except where links are shown.
///
/// A directory below another has to be in that alone.
fn list(
    args: &LsArgs,
    filesystem: &Filesystem,
    path: &ImagePath,
    above: Option<InodeNumber>,
) -> anyhow::Result<Listing> {
    let is_long = args.long || args.numeric;
    let mut handle = filesystem.symlink_inode(&path.path)?;
    above.map_or(Ok(()), |above| handle.check_parent(above))?;
    if handle.is_symlink() && !is_long && !args.directory {
        handle = filesystem.inode(&path.path).ok().filter(InodeHandle::is_dir).unwrap_or(handle);
    }
    if args.directory || !handle.is_dir() {
        let above = without_slash(parent(&path.path)).to_vec();
        let directory = ImagePath { path: above, ..path.clone() };
        let rows = vec![row(path.path.clone(), &handle, is_long)?];
        return Ok(Listing { inode: handle.number(), directory, is_inside: false, rows });
    }
    let mut rows = Vec::new();
    if args.all {
        for name in [&b"."[..], b".."] {
            rows.push(row(name.to_vec(), &handle.lookup(name)?, is_long)?);
        }
    }
    let shows_hidden = args.all || args.almost_all;
    for entry in handle.read_dir()? {
        let entry = entry?;
        if shows_hidden || !entry.name().starts_with(b".") {
            rows.push(row(entry.name().to_vec(), &handle.lookup(entry.name())?, is_long)?);
        }
    }
    sort(args, &mut rows);
    Ok(Listing { inode: handle.number(), directory: path.clone(), is_inside: true, rows })
}

fn sort(args: &LsArgs, rows: &mut [Row]) {
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    if args.by_time {
        let time = |row: &Row| (row.metadata.modified.seconds, row.metadata.modified.nanoseconds);
        rows.sort_by_key(|row| Reverse(time(row)));
    } else if args.by_size {
        rows.sort_by_key(|row| Reverse(row.metadata.size));
    }
    if args.reverse {
        rows.reverse();
    }
}

fn row(name: Vec<u8>, handle: &InodeHandle, is_long: bool) -> anyhow::Result<Row> {
    let target = handle.is_symlink().then(|| handle.read_link()).transpose()?;
    let has_list = is_long && handle.list_xattrs()?.iter().any(|name| is_access_list(name));
    Ok(Row { name, metadata: handle.metadata()?, target, has_list })
}

fn print_rows(
    args: &LsArgs,
    names: &Names,
    rows: &[Row],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let is_long = args.long || args.numeric;
    let owners: Vec<_> = match is_long {
        true => rows.iter().map(|row| owner(names, row)).collect(),
        false => Vec::new(),
    };
    let width = |of: fn(&(String, String)) -> &String| {
        owners.iter().map(|owner| of(owner).chars().count()).max().unwrap_or(0)
    };
    let (user_width, group_width) = (width(|owner| &owner.0), width(|owner| &owner.1));
    for (place, row) in rows.iter().enumerate() {
        if args.inode {
            write!(out, "{:>8} ", row.metadata.inode.get())?;
        }
        if let Some((user, group)) = owners.get(place) {
            let size = match row.metadata.device {
                Some((major, minor)) => format!("{major}, {minor}"),
                None if args.human_readable => output::short_size(row.metadata.size),
                None => row.metadata.size.to_string(),
            };
            let mode = output::mode(row.metadata.mode);
            let list = if row.has_list { '+' } else { ' ' };
            let time = output::short_time(row.metadata.modified);
            let links = row.metadata.links;
            write!(
                out,
                "{mode}{list} {links:>3} {user:<user_width$} {group:<group_width$} {size:>11} {time} "
            )?;
        }
        out.write_all(&output::name(&row.name))?;
        if let (true, Some(target)) = (is_long, &row.target) {
            out.write_all(b" -> ")?;
            out.write_all(&output::name(target))?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Who owns it, by the image's own names, with nothing in them that a terminal would act on.
fn owner(names: &Names, row: &Row) -> (String, String) {
    let shown = |name: Vec<u8>| {
        String::from_utf8_lossy(&name).replace(|letter: char| letter.is_control(), "?")
    };
    (shown(names.user(row.metadata.uid)), shown(names.group(row.metadata.gid)))
}

fn json_row(listing: &Listing, row: &Row) -> Value {
    let mut value = json_metadata(&row.metadata);
    let name = if listing.is_inside { Some(&row.name[..]) } else { last_name(&row.name) };
    value["directory"] = json_name(&listing.directory.path);
    value["name"] = json_name(name.unwrap_or(b"/"));
    if let Some(target) = &row.target {
        value["target"] = json_name(target);
    }
    value
}
