//! Every group, as a table.

use std::io::Write;

use extant_format::descriptor::{GroupDescriptor, GroupFlags};
use extant_format::{BlockGroup, Geometry};
use extant_image::reader::Reader;
use serde_json::{Value, json};

use super::unwrapped;
use crate::failure;

/// Prints a line for each group; one that makes no sense gets a line on standard error.
pub fn print(reader: &Reader<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let geometry = reader.geometry();
    writeln!(
        out,
        "\n{:>6} {:>12} {:>12} {:>12} {:>12} {:>12} {:>9} {:>9} {:>6} {:>9}  holds",
        "group",
        "first",
        "last",
        "block map",
        "inode map",
        "inodes at",
        "free",
        "free ino",
        "dirs",
        "unused"
    )?;
    let mut worst = 0;
    for (group, descriptor) in reader.descriptors() {
        let found = match descriptor {
            Ok(found) => found,
            Err(error) => {
                worst = failure::tell(&unwrapped(error)).max(worst);
                continue;
            }
        };
        let (first, last) = bounds(geometry, group);
        let words = [backup(geometry, group), flags(&found)].concat().join(" ");
        let line = format!(
            "{:>6} {first:>12} {last:>12} {:>12} {:>12} {:>12} {:>9} {:>9} {:>6} {:>9}  {words}",
            group.get(),
            found.block_bitmap.get(),
            found.inode_bitmap.get(),
            found.inode_table.get(),
            found.free_clusters,
            found.free_inodes,
            found.used_dirs,
            found.itable_unused,
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if worst == 0 { Ok(()) } else { Err(failure::Told(worst).into()) }
}

/// All groups; what makes no sense is told in its place.
pub fn json_of(reader: &Reader<'_>) -> Value {
    let geometry = reader.geometry();
    let of = |(group, descriptor): (BlockGroup, Result<GroupDescriptor, _>)| {
        let found = match descriptor {
            Ok(found) => found,
            Err(error) => return json!({ "group": group.get(), "error": format!("{error}") }),
        };
        let (first, last) = bounds(geometry, group);
        json!({
            "group": group.get(),
            "first_block": first,
            "last_block": last,
            "has_superblock": geometry.has_super(group),
            "block_bitmap": found.block_bitmap.get(),
            "inode_bitmap": found.inode_bitmap.get(),
            "inode_table": found.inode_table.get(),
            "free_clusters": found.free_clusters,
            "free_inodes": found.free_inodes,
            "directories": found.used_dirs,
            "unused_inodes": found.itable_unused,
            "block_bitmap_checksum": found.block_bitmap_csum,
            "inode_bitmap_checksum": found.inode_bitmap_csum,
            "flags": flags(&found),
        })
    };
    reader.descriptors().map(of).collect()
}

fn bounds(geometry: &Geometry, group: BlockGroup) -> (u64, u64) {
    let first = geometry.first_block_of(group).get();
    (first, first.saturating_add(geometry.blocks_in(group).into()).saturating_sub(1))
}

fn backup(geometry: &Geometry, group: BlockGroup) -> Vec<&'static str> {
    match (group.get(), geometry.has_super(group)) {
        (0, _) => vec!["superblock"],
        (_, true) => vec!["backup"],
        (_, false) => Vec::new(),
    }
}

fn flags(found: &GroupDescriptor) -> Vec<&'static str> {
    let all = [
        (GroupFlags::INODE_UNINIT, "inode_uninit"),
        (GroupFlags::BLOCK_UNINIT, "block_uninit"),
        (GroupFlags::INODE_ZEROED, "itable_zeroed"),
    ];
    all.into_iter().filter(|(flag, _)| found.flags.contains(*flag)).map(|(_, word)| word).collect()
}
