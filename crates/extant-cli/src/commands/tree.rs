//! `extant tree`: a directory and what is below, as a drawing.

use std::io::Write;

use anyhow::Context;
use extant::InodeHandle;
use extant_format::cast::usize_from;
use serde_json::{Value, json};

use crate::address::ImagePath;
use crate::failure::{self, Told};
use crate::output::{self, json_metadata, json_name, print_json};
use crate::volume::Reading;

/// Draw a directory and everything below it
#[derive(Debug, clap::Args)]
pub struct TreeArgs {
    /// Directories, as IMAGE:/path; an image alone means its root
    #[arg(required = true, value_parser = super::inside_or_root())]
    paths: Vec<ImagePath>,
    /// No deeper than this, from 1 on
    #[arg(short = 'L', long, value_parser = clap::value_parser!(u32).range(1..))]
    level: Option<u32>,
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
    let mut values = Vec::new();
    let outcome = failure::each(&args.paths, |path| {
        let reading = Reading::open(&path.image)?;
        draw(args, path, &reading, &mut values, out)
    });
    if args.json {
        print_json(out, &json!(values))?;
    }
    outcome
}

/// Draws one tree; what cannot be read in it is told, and the rest goes on.
fn draw(
    args: &TreeArgs,
    root: &ImagePath,
    reading: &Reading,
    values: &mut Vec<Value>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let address = |path: &[u8]| ImagePath { path: path.to_vec(), ..root.clone() }.to_string();
    let deepest = args.level.map_or(usize::MAX, usize_from);
    let top = reading.filesystem().inode(&root.path).map_err(anyhow::Error::from);
    let top = top.and_then(|top| open(args, top, root.path.clone(), String::new()));
    let mut stack = vec![top.with_context(|| root.to_string())?];
    if !args.json {
        writeln!(out, "{root}")?;
    }
    let mut worst = 0;
    let mut fail = |error: anyhow::Error, path: &[u8]| {
        worst = reading.tell(error.context(address(path)))?.max(worst);
        anyhow::Ok(())
    };
    while let Some(top) = stack.last_mut() {
        let Some(name) = top.left.next() else {
            stack.pop();
            continue;
        };
        let is_last = top.left.len() == 0;
        let mut path = top.path.clone();
        path.extend_from_slice(if path.ends_with(b"/") { b"" } else { b"/" });
        path.extend_from_slice(&name);
        let found = match top.handle.lookup(&name) {
            Ok(found) => found,
            Err(error) => {
                fail(error.into(), &path)?;
                continue;
            }
        };
        match args.json {
            true => values.push(json_line(&path, &found)?),
            false => print_line(&top.margin, is_last, &name, &found, out)?,
        }
        if found.is_dir() && stack.len() < deepest {
            let here = stack.last().map_or(found.number(), |top| top.handle.number());
            if let Err(error) = found.check_parent(here) {
                fail(error.into(), &path)?;
                continue;
            }
            let margin = stack.last().map_or("", |top| &top.margin).to_owned();
            let margin = margin + if is_last { "    " } else { "|   " };
            match open(args, found, path.clone(), margin) {
                Ok(below) => stack.push(below),
                Err(error) => fail(error, &path)?,
            }
        }
    }
    if worst == 0 { Ok(()) } else { Err(Told(worst).into()) }
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
    let mut names = names?;
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
