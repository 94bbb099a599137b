//! `extant map`: where a file's blocks lie, or how full each part of an image is.

use std::io::Write;

use anyhow::Context;
use extant::{FileExtent, FileExtentState};
use extant_device::BlockDeviceExt;
use extant_format::bitmap;
use extant_format::cast::u64_from;
use serde_json::{Value, json};

use super::info;
use super::mounted::{self, Run};
use crate::address::ImagePath;
use crate::failure;
use crate::output::{self, json_name, print_values, size};
use crate::volume::{self, Watch};

/// Show where a file's blocks lie, or draw how full an image is
#[derive(Debug, clap::Args)]
pub struct MapArgs {
    /// Files as IMAGE:/path, files on a mount, or images
    #[arg(required = true, value_parser = super::inside_or_root())]
    paths: Vec<ImagePath>,
    /// Characters in a line of the drawing
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    width: u32,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &MapArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let several = args.paths.len() > 1;
    let mut is_first = true;
    let mut values = Vec::new();
    let outcome = failure::each(&args.paths, |at| {
        if several && !args.json {
            writeln!(out, "{}{at}:", if is_first { "" } else { "\n" })?;
        }
        is_first = false;
        let value = match at.name() {
            Some(_) => map_file(args, at, out),
            None => match mounted::map(&at.image) {
                Ok(Some(runs)) => map_mounted(args, &runs, out),
                // No mount of ours: an image, or what cannot be opened as one.
                Ok(None) | Err(_) => map_image(args, at, out),
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

/// Prints where a file lies, or returns it for a program.
fn map_file(args: &MapArgs, at: &ImagePath, out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    let extents = volume::read(&at.image, |filesystem| {
        let found = filesystem.inode(&at.path).and_then(|found| found.extents());
        found.with_context(|| at.to_string())
    })?;
    if args.json {
        let values = extents.iter().map(|extent| {
            json!({
                "logical": extent.logical, "physical": extent.physical, "len": extent.len,
                "state": state_name(extent.state),
            })
        });
        return Ok(Some(values.collect()));
    }
    writeln!(out, "{:>12} {:>12} {:>12}  state", "file block", "on device", "blocks")?;
    for FileExtent { logical, physical, len, state, .. } in &extents {
        let physical = physical.map_or("-".to_owned(), |block| block.to_string());
        writeln!(out, "{logical:>12} {physical:>12} {len:>12}  {}", state_name(*state))?;
    }
    writeln!(out, "{}", output::count(u64_from(extents.len()), "extent"))?;
    Ok(None)
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
    writeln!(out, "{}", output::count(u64_from(runs.len()), "extent"))?;
    Ok(None)
}

fn state_name(state: FileExtentState) -> &'static str {
    match state {
        FileExtentState::Written => "written",
        FileExtentState::Unwritten => "unwritten",
        FileExtentState::Delayed => "delayed",
        FileExtentState::Inline { .. } => "inline",
    }
}

/// One line a group; each character stands for an equal share of its clusters.
fn map_image(args: &MapArgs, at: &ImagePath, out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    let (device, watch) = Watch::open(&at.image)?;
    let superblock =
        info::read_superblock(&*device).map_err(|error| volume::unusable(&at.image, error))?;
    let geometry = superblock.geometry();
    let groups = info::read_groups(&*device, &superblock).map_err(|error| watch.explain(error))?;
    if args.json {
        let values = groups.iter().map(|(group, found)| {
            json!({ "group": group.get(), "clusters": geometry.clusters_in(*group), "free": found.free_clusters })
        });
        return Ok(Some(values.collect()));
    }
    let share = u64::from(geometry.clusters_per_group.div_ceil(args.width))
        << geometry.cluster_bits
        << geometry.block_bits;
    writeln!(
        out,
        "each character is {}: `.` free, `-` less than half used, `+` more, `#` all used",
        size(share)
    )?;
    for (group, found) in &groups {
        let clusters = geometry.clusters_in(*group);
        let bits = match found.block_bitmap_is_uninitialized(geometry) {
            true => vec![0; geometry.block_len()],
            false => device
                .read_vec(found.block_bitmap.get() << geometry.block_bits, geometry.block_len())?,
        };
        writeln!(
            out,
            "{:>6} {} {:>3}% free",
            group.get(),
            draw(&bits, clusters, args.width),
            percent(found.free_clusters, clusters)
        )?;
    }
    Ok(None)
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
