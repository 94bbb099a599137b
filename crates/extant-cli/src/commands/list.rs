//! `extant ls`: the names in directories.

use std::io::Write;

use anyhow::Context;
use extant::{Filesystem, InodeHandle, Metadata};
use serde_json::{Value, json};

use crate::address::ImagePath;
use crate::output::{self, json_metadata, json_name, print_json};
use crate::{failure, volume};

/// List directories
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Directories or files, as IMAGE:/path; an image alone means its root
    #[arg(required = true, value_parser = super::inside_or_root())]
    paths: Vec<ImagePath>,
    /// Type, permissions, links, owner, size and time (UTC) too
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// Inode numbers too
    #[arg(short, long)]
    inode: bool,
    /// Directories below too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

/// One line.
struct Row {
    name: Vec<u8>,
    metadata: Metadata,
    target: Option<Vec<u8>>,
}

pub fn run(args: &LsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let with_titles = args.recursive || args.paths.len() > 1;
    let mut is_first = true;
    failure::each(&args.paths, |path| {
        let filesystem = volume::open(&path.image)?;
        let mut todo = vec![path.clone()];
        while let Some(directory) = todo.pop() {
            let (is_dir, rows) =
                rows(args, &filesystem, &directory).with_context(|| directory.to_string())?;
            if args.recursive {
                let below = rows.iter().rev().filter(|row| row.metadata.is_dir());
                todo.extend(below.map(|row| directory.join(&row.name)));
            }
            if args.json {
                values.extend(rows.iter().map(|row| json_row(&directory, row)));
                continue;
            }
            if with_titles && is_dir {
                writeln!(out, "{}{directory}:", if is_first { "" } else { "\n" })?;
            }
            is_first = false;
            print_rows(args, &rows, out)?;
        }
        Ok(())
    })?;
    if args.json { print_json(out, &json!(values)) } else { Ok(()) }
}

/// The lines of a directory, or that of a file; a link to a directory means the directory, except where links are shown.
fn rows(
    args: &LsArgs,
    filesystem: &Filesystem,
    path: &ImagePath,
) -> anyhow::Result<(bool, Vec<Row>)> {
    let mut handle = filesystem.symlink_inode(&path.path)?;
    if handle.is_symlink() && !args.long {
        handle = filesystem.inode(&path.path).ok().filter(InodeHandle::is_dir).unwrap_or(handle);
    }
    if !handle.is_dir() {
        return Ok((false, vec![row(path.path.clone(), &handle)?]));
    }
    let mut entries = handle.read_dir()?.collect::<Result<Vec<_>, _>>()?;
    entries.retain(|entry| args.all || !entry.name().starts_with(b"."));
    entries.sort_by(|one, other| one.name().cmp(other.name()));
    let rows =
        entries.iter().map(|entry| row(entry.name().to_vec(), &handle.lookup(entry.name())?));
    Ok((true, rows.collect::<anyhow::Result<_>>()?))
}

fn row(name: Vec<u8>, handle: &InodeHandle) -> anyhow::Result<Row> {
    let target = handle.is_symlink().then(|| handle.read_link()).transpose()?;
    Ok(Row { name, metadata: handle.metadata()?, target })
}

fn print_rows(args: &LsArgs, rows: &[Row], out: &mut dyn Write) -> anyhow::Result<()> {
    for row in rows {
        if args.inode {
            write!(out, "{:>8} ", row.metadata.inode.get())?;
        }
        if args.long {
            let size = match row.metadata.device {
                Some((major, minor)) => format!("{major}, {minor}"),
                None => row.metadata.size.to_string(),
            };
            let mode = output::mode(row.metadata.mode);
            let time = output::short_time(row.metadata.modified);
            let Metadata { links, uid, gid, .. } = row.metadata;
            write!(out, "{mode} {links:>4} {uid:>6} {gid:>6} {size:>12} {time} ")?;
        }
        out.write_all(&output::name(&row.name))?;
        if let (true, Some(target)) = (args.long, &row.target) {
            out.write_all(b" -> ")?;
            out.write_all(&output::name(target))?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn json_row(directory: &ImagePath, row: &Row) -> Value {
    let mut value = json_metadata(&row.metadata);
    value["directory"] = json_name(&directory.path);
    value["name"] = json_name(&row.name);
    if let Some(target) = &row.target {
        value["target"] = json_name(target);
    }
    value
}
