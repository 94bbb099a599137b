//! `extant tree`: a directory and what is below, as a drawing.

use std::io::Write;

use anyhow::Context;
use extant::InodeHandle;
use serde_json::{Value, json};

use crate::address::ImagePath;
use crate::output::{self, json_metadata, json_name, print_json};
use crate::volume;

/// Draw a directory and everything below it
#[derive(Debug, clap::Args)]
pub struct TreeArgs {
    /// A directory, as IMAGE:/path; an image alone means its root
    #[arg(value_parser = super::inside_or_root())]
    path: ImagePath,
    /// No deeper than this
    #[arg(short = 'L', long)]
    level: Option<usize>,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// For a program to read: one flat list
    #[arg(long)]
    json: bool,
}

/// A directory being drawn: what is left of it, and what stands before its lines.
struct Open {
    handle: InodeHandle,
    path: Vec<u8>,
    left: std::vec::IntoIter<Vec<u8>>,
    margin: String,
}

pub fn run(args: &TreeArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let filesystem = volume::open(&args.path.image)?;
    let mut values = Vec::new();
    let root = filesystem.inode(&args.path.path).with_context(|| args.path.to_string())?;
    if !args.json {
        writeln!(out, "{}", args.path)?;
    }
    let mut stack = vec![open(args, root, args.path.path.clone(), String::new())?];
    while let Some(top) = stack.last_mut() {
        let Some(name) = top.left.next() else {
            stack.pop();
            continue;
        };
        let is_last = top.left.len() == 0;
        let mut path = top.path.clone();
        path.extend_from_slice(if path.ends_with(b"/") { b"" } else { b"/" });
        path.extend_from_slice(&name);
        let found = top
            .handle
            .lookup(&name)
            .with_context(|| String::from_utf8_lossy(&path).into_owned())?;
        match args.json {
            true => values.push(json_line(&path, &found)?),
            false => print_line(&top.margin, is_last, &name, &found, out)?,
        }
        if found.is_dir() && args.level.is_none_or(|level| stack.len() < level) {
            let margin = stack.last().map_or("", |top| &top.margin).to_owned();
            stack.push(open(args, found, path, margin + if is_last { "    " } else { "|   " })?);
        }
    }
    if args.json { print_json(out, &json!(values)) } else { Ok(()) }
}

fn open(
    args: &TreeArgs,
    handle: InodeHandle,
    path: Vec<u8>,
    margin: String,
) -> anyhow::Result<Open> {
    let names = handle.read_dir().and_then(|entries| {
        entries.map(|entry| Ok(entry?.name().to_vec())).collect::<Result<Vec<_>, _>>()
    });
    let mut names = names.with_context(|| String::from_utf8_lossy(&path).into_owned())?;
    names.retain(|name| args.all || !name.starts_with(b"."));
    names.sort_unstable();
    Ok(Open { handle, path, left: names.into_iter(), margin })
}

fn print_line(
    margin: &str,
    is_last: bool,
    name: &[u8],
    found: &InodeHandle,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    write!(out, "{margin}{}", if is_last { "`-- " } else { "|-- " })?;
    out.write_all(&output::name(name))?;
    if found.is_symlink() {
        out.write_all(b" -> ")?;
        out.write_all(&output::name(&found.read_link()?))?;
    }
    Ok(out.write_all(b"\n")?)
}

fn json_line(path: &[u8], found: &InodeHandle) -> anyhow::Result<Value> {
    let mut value = json_metadata(&found.metadata()?);
    value["path"] = json_name(path);
    if found.is_symlink() {
        value["target"] = json_name(&found.read_link()?);
    }
    Ok(value)
}
