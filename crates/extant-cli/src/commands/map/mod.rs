//! `extant map`: where a file's blocks lie, what an image's blocks are used for, and pictures of both.

mod file;
mod image;
mod picture;

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::mounted::{self, Run};
use crate::address::ImagePath;
use crate::failure::{self, Usage};
use crate::output::{self, json_name, print_values};

/// Show where a file's blocks lie, or what an image's blocks are used for, as text or as a picture
#[derive(Debug, clap::Args)]
pub struct MapArgs {
    /// Files as IMAGE:/path, files on a mount, or images
    #[arg(required = true, value_parser = super::inside_or_root())]
    paths: Vec<ImagePath>,
    /// Characters in a line of the drawing
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    width: u32,
    /// Of a file: its tree too, inner nodes and all
    #[arg(long, conflicts_with = "runs")]
    tree: bool,
    /// Of an image: who uses which blocks, a line a run
    #[arg(long)]
    runs: bool,
    /// With --runs: only these blocks
    #[arg(long, value_name = "FIRST-LAST", requires = "runs", value_parser = blocks)]
    blocks: Option<Range<u64>>,
    /// Draw it into this file, as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "tree", "runs"])]
    svg: Option<PathBuf>,
    /// Draw it into this file, as a page that shows where single files lie too
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "tree", "runs"])]
    html: Option<PathBuf>,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

/// Blocks from the first to the last, or one.
fn blocks(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no block"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err("the first block is behind the last".to_owned());
    }
    Ok(first..last.saturating_add(1))
}

pub fn run(args: &MapArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let several = args.paths.len() > 1;
    if args.svg.is_some() || args.html.is_some() {
        let [at] = &args.paths[..] else {
            return Err(Usage("a picture is of one image or file".to_owned()).into());
        };
        return picture::draw(at, args.svg.as_deref(), args.html.as_deref());
    }
    let mut is_first = true;
    let mut values = Vec::new();
    let outcome = failure::each(&args.paths, |at| {
        if several && !args.json {
            writeln!(out, "{}{at}:", if is_first { "" } else { "\n" })?;
        }
        is_first = false;
        let value = match at.name() {
            Some(_) if args.runs => {
                Err(Usage(format!("{at}: --runs is for an image as a whole")).into())
            }
            Some(_) if args.tree => file::tree(args.json, at, out),
            Some(_) => file::extents(args.json, at, out),
            None if args.tree => file::tree(args.json, at, out),
            None => match mounted::map(&at.image) {
                Ok(Some(runs)) => map_mounted(args, &runs, out),
                // No mount of ours: an image, or what cannot be opened as one.
                Ok(None) | Err(_) => image::map(args, at, out),
            },
        }?;
        values.extend(value.map(|value| match several {
            true => json!({ "image": at.image.display().to_string(), "path": json_name(&at.path), "map": value }),
            false => value,
        }));
        Ok(())
    });
    if args.json {
        print_values(out, several, values)?;
    }
    outcome
}

/// Prints where a file on a mount lies, in bytes, or returns it for a program.
fn map_mounted(args: &MapArgs, runs: &[Run], out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    if args.json {
        let values = runs.iter().map(|run| {
            json!({ "offset": run.offset, "place": run.place, "bytes": run.len, "state": run.state })
        });
        return Ok(Some(values.collect()));
    }
    writeln!(out, "{:>14} {:>14} {:>14}  state", "file byte", "on device", "bytes")?;
    for Run { offset, place, len, state } in runs {
        let place = place.map_or("-".to_owned(), |place| place.to_string());
        writeln!(out, "{offset:>14} {place:>14} {len:>14}  {state}")?;
    }
    writeln!(out, "{}", output::count(extant_format::cast::u64_from(runs.len()), "extent"))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_first_and_a_last() {
        assert_eq!(blocks("7"), Ok(7..8));
        assert_eq!(blocks("7-9"), Ok(7..10));
        assert!(blocks("9-7").is_err() && blocks("x").is_err() && blocks("").is_err());
    }
}
