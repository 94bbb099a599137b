//! An image as a whole: how full each group is, and who uses which runs.

use std::io::Write;

use anyhow::Context;
use extant_format::{BlockGroup, Geometry, bitmap};
use extant_image::map::{Kind, Owner, Run, Runs, Several, Visitor, survey};
use extant_image::reader::{ReadError, Reader};
use serde_json::{Value, json};

use super::MapArgs;
use crate::address::ImagePath;
use crate::commands::info::{self, unwrapped};
use crate::failure;
use crate::output::size;
use crate::volume::{self, Watch};

/// Prints an image's map, or returns it for a program.
pub fn map(args: &MapArgs, at: &ImagePath, out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    let (device, watch) = Watch::open(&at.image)?;
    let superblock =
        info::read_superblock(&*device).map_err(|error| volume::unusable(&at.image, error))?;
    let reader = Reader::with(&*device, superblock);
    let name = || at.image.display().to_string();
    if args.runs {
        return runs(args, &reader, out);
    }
    if args.json {
        let groups: Result<Vec<_>, _> = reader
            .descriptors()
            .map(|(group, descriptor)| {
                let free = descriptor?.free_clusters;
                Ok(json!({ "group": group.get(), "clusters": reader.geometry().clusters_in(group), "free": free }))
            })
            .collect();
        let groups = groups.map_err(|error| watch.explain(unwrapped(error))).with_context(name)?;
        return Ok(Some(Value::Array(groups)));
    }
    lines(args, &reader, out).map_err(|error| watch.explain(error)).with_context(name)?;
    Ok(None)
}

/// One line a group; each character stands for an equal share of its clusters.
fn lines(args: &MapArgs, reader: &Reader<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let geometry = reader.geometry();
    let share = u64::from(geometry.clusters_per_group.div_ceil(args.width))
        << geometry.cluster_bits
        << geometry.block_bits;
    writeln!(
        out,
        "each character is {}: `.` free, `-` less than half used, `+` more, `#` all used",
        size(share)
    )?;
    let mut bits = Vec::new();
    for (group, descriptor) in reader.descriptors() {
        let descriptor = descriptor.map_err(unwrapped)?;
        reader.block_bitmap(group, &descriptor, &mut bits).map_err(unwrapped)?;
        let clusters = geometry.clusters_in(group);
        writeln!(
            out,
            "{:>6} {} {:>3}% free",
            group.get(),
            draw(&bits, clusters, args.width),
            percent(descriptor.free_clusters, clusters)
        )?;
    }
    Ok(())
}

/// Counts what could not be read, and tells of the first few.
#[derive(Debug, Default)]
pub struct Troubles {
    pub count: u64,
    pub worst: u8,
}

impl Visitor for Troubles {
    fn trouble(&mut self, error: ReadError) {
        self.count += 1;
        let error = unwrapped(error);
        self.worst = match self.count {
            ..=MOST_TOLD => failure::tell(&error).max(self.worst),
            _ => failure::exit_code(&error).max(self.worst),
        };
    }
}

impl Troubles {
    /// An error if anything could not be read; that was told already, but for how much more there is.
    pub fn outcome(&self) -> anyhow::Result<()> {
        if let Some(more) = self.count.checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            failure::say(&format!("and {more} more"));
        }
        if self.worst == 0 { Ok(()) } else { Err(failure::Told(self.worst).into()) }
    }
}

const MOST_TOLD: u64 = 5;

/// Who uses which blocks, by place; what is free is told too.
fn runs(args: &MapArgs, reader: &Reader<'_>, out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    let window = args.blocks.clone().unwrap_or(0..reader.geometry().blocks_count);
    let (mut runs, mut used) = (Runs::new(window.clone()), Used::new(reader.geometry(), window));
    let mut troubles = Troubles::default();
    survey(reader, &mut Several(vec![&mut runs, &mut used, &mut troubles]));
    let all = join(runs.finish(), &used.free());
    if args.json {
        troubles.outcome()?;
        return Ok(Some(all.iter().map(json_run).collect()));
    }
    writeln!(out, "{:>14} {:>14} {:>12}  used for", "first", "last", "blocks")?;
    for Shown { start, len, what } in &all {
        let last = start.saturating_add(*len).saturating_sub(1);
        writeln!(out, "{start:>14} {last:>14} {len:>12}  {}", words(*what))?;
    }
    troubles.outcome()?;
    Ok(None)
}

/// A run of blocks, used or free.
struct Shown {
    start: u64,
    len: u64,
    what: Option<(Kind, Owner)>,
}

fn words(what: Option<(Kind, Owner)>) -> String {
    match what {
        None => "free".to_owned(),
        Some((kind, Owner::Group(group))) => format!("{} of group {}", kind.name(), group.get()),
        Some((kind, Owner::Inode(inode))) => format!("{} of {inode}", kind.name()),
    }
}

fn json_run(run: &Shown) -> Value {
    let mut value = json!({ "start": run.start, "len": run.len });
    match run.what {
        None => value["kind"] = json!("free"),
        Some((kind, owner)) => {
            value["kind"] = json!(kind.word());
            match owner {
                Owner::Group(group) => value["group"] = json!(group.get()),
                Owner::Inode(inode) => value["inode"] = json!(inode.get()),
            }
        }
    }
    value
}

/// Both lists in one, by place.
fn join(used: Vec<Run>, free: &[(u64, u64)]) -> Vec<Shown> {
    let used = used.into_iter().map(|run| {
        let Run { start, len, kind, owner } = run;
        Shown { start, len, what: Some((kind, owner)) }
    });
    let free = free.iter().map(|(start, len)| Shown { start: *start, len: *len, what: None });
    let mut all: Vec<Shown> = used.chain(free).collect();
    all.sort_by_key(|run| run.start);
    all
}

/// Runs of free blocks in a window.
struct Used {
    geometry: Geometry,
    window: std::ops::Range<u64>,
    free: Vec<(u64, u64)>,
}

impl Used {
    fn new(geometry: &Geometry, window: std::ops::Range<u64>) -> Self {
        Self { geometry: *geometry, window, free: Vec::new() }
    }

    fn free(self) -> Vec<(u64, u64)> {
        self.free
    }

    fn push(&mut self, start: u64, end: u64) {
        let (start, end) = (start.max(self.window.start), end.min(self.window.end));
        if start >= end {
            return;
        }
        match self.free.last_mut() {
            Some((first, len)) if first.saturating_add(*len) == start => *len += end - start,
            _ => self.free.push((start, end - start)),
        }
    }
}

impl Visitor for Used {
    fn group(&mut self, group: BlockGroup, bits: Option<&[u8]>) {
        let Some(bits) = bits else { return };
        let clusters = self.geometry.clusters_in(group);
        let first = self.geometry.first_block_of(group).get();
        let end = first.saturating_add(self.geometry.blocks_in(group).into());
        let block = |cluster: u32| {
            first.saturating_add(u64::from(cluster) << self.geometry.cluster_bits).min(end)
        };
        let mut at = 0;
        let mut found = Vec::new();
        while let Some(start) = bitmap::next_zero(bits, at..clusters) {
            at = bitmap::next_one(bits, start..clusters).unwrap_or(clusters);
            found.push((block(start), block(at)));
        }
        found.into_iter().for_each(|(start, end)| self.push(start, end));
    }
}

fn percent(part: u32, all: u32) -> u64 {
    u64::from(part) * 100 / u64::from(all.max(1))
}

/// How full each share of a bitmap is.
fn draw(bits: &[u8], clusters: u32, width: u32) -> String {
    let share = clusters.div_ceil(width).max(1);
    let starts = (0..width).map(|n| n * share).take_while(|start| *start < clusters);
    starts
        .map(|start| {
            let range = start..(start + share).min(clusters);
            let (len, free) = (range.end - range.start, bitmap::count_zeros(bits, range));
            match free {
                0 => '#',
                free if free == len => '.',
                free if free > len / 2 => '-',
                _ => '+',
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_shows_how_full_it_is() {
        let mut bits = [0; 8];
        bitmap::set(&mut bits, 0..17);
        bitmap::set(&mut bits, 32..46);
        assert_eq!(draw(&bits, 64, 4), "#-+.");
        assert_eq!(draw(&bits, 40, 4), "#+.+");
        assert_eq!(draw(&bits, 3, 8), "###");
    }
}
