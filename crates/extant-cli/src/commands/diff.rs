//! `extant diff`: in which structure two images differ first, and in how many of each kind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use anyhow::Context;
use extant_device::BlockDevice;
use extant_image::diff::{self, Difference, Kind};
use extant_image::reader::Reader;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::info::{self, unwrapped};
use crate::address::ImagePath;
use crate::failure::{self, Told, Usage};
use crate::interrupt::{self, Interrupted};
use crate::output::{count, print_json};
use crate::volume::{self, ImageDevice, Reading, Watch};

/// Compare two images, and name the first structure in which they differ
///
/// Exit codes are those of diff(1): 0 if the images are equal, 1 if they differ, 2 if they could not be compared.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// An image; with --tree also a directory or file in it, as IMAGE:/path
    #[arg(value_name = "A", value_parser = super::inside_or_root())]
    left: ImagePath,
    /// The other
    #[arg(value_name = "B", value_parser = super::inside_or_root())]
    right: ImagePath,
    /// Every difference, not only the first
    #[arg(short, long)]
    all: bool,
    /// Compare what users see: names, types, owners, times, attributes, contents, wherever they lie
    #[arg(short, long)]
    tree: bool,
    /// Say nothing: the exit code tells
    #[arg(short, long, conflicts_with_all = ["all", "json"])]
    quiet: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DiffArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match compare(args, out) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Told(1).into()),
        Err(error) if failure::is_broken_pipe(&error) || error.is::<Interrupted>() => Err(error),
        Err(error) => {
            failure::tell(&error);
            Err(Told(2).into())
        }
    }
}

/// What was found so far.
struct Found<'a> {
    args: &'a DiffArgs,
    out: &'a mut dyn Write,
    first: Option<Difference>,
    counts: BTreeMap<Kind, u64>,
    values: Vec<Value>,
    failed: Option<anyhow::Error>,
}

impl Found<'_> {
    fn take(&mut self, difference: Difference) -> ControlFlow<()> {
        *self.counts.entry(difference.kind).or_insert(0) += 1;
        if self.args.all && self.args.json {
            self.values.push(json_of(&difference));
        } else if self.args.all {
            let line = difference.to_string().replace(char::is_control, "?");
            if let Err(error) = writeln!(self.out, "{line}") {
                self.failed = Some(error.into());
                return ControlFlow::Break(());
            }
        }
        self.first.get_or_insert(difference);
        if let Err(interrupted) = interrupt::check() {
            self.failed = Some(interrupted.into());
        }
        match self.args.quiet || self.failed.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Whether the two differ.
fn compare(args: &DiffArgs, out: &mut dyn Write) -> anyhow::Result<bool> {
    let (counts, values, failed) = (BTreeMap::new(), Vec::new(), None);
    let mut found = Found { args, out, first: None, counts, values, failed };
    interrupt::watch();
    match args.tree {
        true => trees(args, &mut found)?,
        false => structures(args, &mut found)?,
    }
    if let Some(error) = found.failed {
        return Err(error);
    }
    let differ = found.first.is_some();
    if args.json {
        print_json(
            found.out,
            &json!({
                "equal": !differ,
                "first": found.first.as_ref().map(json_of),
                "counts": found.counts.iter().map(|(kind, n)| (kind.word().to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
                "differences": args.all.then_some(&found.values),
            }),
        )?;
        return Ok(differ);
    }
    if let Some(first) = found.first.filter(|_| !args.quiet) {
        if !args.all {
            writeln!(found.out, "{}", first.to_string().replace(char::is_control, "?"))?;
        }
        let total: u64 = found.counts.values().sum();
        let kinds = found.counts.iter().map(|(kind, n)| format!("{} {n}", kind.word()));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        writeln!(found.out, "{}: {kinds}", count(total, "difference"))?;
    }
    Ok(differ)
}

fn json_of(difference: &Difference) -> Value {
    json!({
        "kind": difference.kind.word(),
        "place": difference.place,
        "inode": difference.inode.map(|inode| inode.get()),
        "group": difference.group.map(|group| group.get()),
        "left": difference.left,
        "right": difference.right,
    })
}

fn trees(args: &DiffArgs, found: &mut Found<'_>) -> anyhow::Result<()> {
    let (left, right) = (Reading::open(&args.left.image)?, Reading::open(&args.right.image)?);
    let root = |reading: &Reading, at: &ImagePath| {
        reading.filesystem().inode(&at.path).with_context(|| at.to_string())
    };
    let (one, other) = (root(&left, &args.left)?, root(&right, &args.right)?);
    // Who breaks has told why.
    let _ = diff::trees(&one, &other, &mut |difference| found.take(difference));
    Ok(())
}

fn structures(args: &DiffArgs, found: &mut Found<'_>) -> anyhow::Result<()> {
    for at in [&args.left, &args.right] {
        if at.name().is_some() {
            return Err(Usage(format!("{at}: files in images are compared with --tree")).into());
        }
    }
    let (left, _watch_left) = Watch::open(&args.left.image)?;
    let (right, _watch_right) = Watch::open(&args.right.image)?;
    let superblock = |device: &ImageDevice, at: &ImagePath| {
        info::read_superblock(device).map_err(|error| volume::unusable(&at.image, error))
    };
    let one = Reader::with(&*left, superblock(&left, &args.left)?);
    let other = Reader::with(&*right, superblock(&right, &args.right)?);
    let regions = regions((&args.left.image, &left), (&args.right.image, &right));
    // Who breaks has told why.
    let _ = diff::structures(&one, &other, (&*left, &*right), &regions, &mut |difference| {
        found.take(difference)
    })
    .map_err(unwrapped)?;
    Ok(())
}

/// Where either image has data: holes of both are equal, however large.
fn regions(left: (&Path, &ImageDevice), right: (&Path, &ImageDevice)) -> Vec<Range<u64>> {
    let mut all = Vec::new();
    for (path, device) in [left, right] {
        let whole = 0..device.geometry().len_bytes;
        all.extend(data(path, device).unwrap_or_else(|| Vec::from([whole])));
    }
    all.sort_by_key(|range: &Range<u64>| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in all {
        // A block that begins before a region is compared with it, so regions keep apart.
        let range =
            range.start - range.start % LARGEST_BLOCK..range.end.next_multiple_of(LARGEST_BLOCK);
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Where an image has data, in bytes of the part of it that is meant; `None` if the system does not say.
fn data(path: &Path, device: &ImageDevice) -> Option<Vec<Range<u64>>> {
    let file = File::open(path).ok()?;
    let (start, len) = device.place();
    let end = start.saturating_add(len);
    let (mut found, mut at) = (Vec::new(), start);
    loop {
        let first = match seek(&file, SeekFrom::Data(at)) {
            Ok(first) if first < end => first,
            Ok(_) | Err(Errno::NXIO) => return Some(found),
            Err(_) => return None,
        };
        at = seek(&file, SeekFrom::Hole(first)).ok()?.max(first.saturating_add(1));
        found.push(first - start..at.min(end) - start);
    }
}

const LARGEST_BLOCK: u64 = 64 << 10;
