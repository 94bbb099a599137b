//! `extant info`: what the superblock, the groups and the journal say; works on images that cannot be mounted.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::cast::usize_from;
use extant_format::descriptor::{GroupDescriptor, GroupFlags};
use extant_format::superblock::State;
use extant_format::{BlockGroup, Superblock, Timestamp};
use serde_json::{Value, json};

use crate::failure;
use crate::output::{json_name, print_values, size, time, uuid};
use crate::volume::{self, Watch};

/// Show what an image says of itself: sizes, features, groups
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// Image files or block devices
    #[arg(required = true, value_parser = super::image())]
    images: Vec<PathBuf>,
    /// Every group too
    #[arg(short, long)]
    groups: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InfoArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let several = args.images.len() > 1;
    let mut is_first = true;
    let outcome = failure::each(&args.images, |image| {
        let (device, watch) = Watch::open(image)?;
        let name = || image.display().to_string();
        let superblock =
            read_superblock(&*device).map_err(|error| volume::unusable(image, error))?;
        let groups = match args.groups {
            true => read_groups(&*device, &superblock)
                .map_err(|error| watch.explain(error))
                .with_context(name)?,
            false => Vec::new(),
        };
        if args.json {
            let mut value = json_superblock(&superblock);
            if several {
                value["image"] = json!(name());
            }
            if args.groups {
                value["groups"] =
                    groups.iter().map(|(group, found)| json_group(*group, found)).collect();
            }
            values.push(value);
            return Ok(());
        }
        if several {
            writeln!(out, "{}{}:", if is_first { "" } else { "\n" }, name())?;
        }
        is_first = false;
        print_superblock(&superblock, device.geometry().len_bytes, out)?;
        groups.iter().try_for_each(|(group, found)| print_group(*group, found, out))
    });
    if args.json {
        print_values(out, several, values)?;
    }
    outcome
}

/// The superblock of whatever lies on `device`.
pub fn read_superblock(device: &dyn BlockDevice) -> anyhow::Result<Superblock> {
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    Ok(Superblock::parse(&bytes)?)
}

/// Every group's descriptor, as far as it makes sense.
pub fn read_groups(
    device: &dyn BlockDevice,
    superblock: &Superblock,
) -> anyhow::Result<Vec<(BlockGroup, GroupDescriptor)>> {
    let geometry = superblock.geometry();
    let mut groups = Vec::with_capacity(usize_from(geometry.group_count.min(1 << 16)));
    let mut block = Vec::new();
    for group in geometry.groups() {
        let (index, offset) = geometry.descriptor_place(group);
        if offset == 0 {
            let at = geometry.descriptor_block(index).get() << geometry.block_bits;
            block = device.read_vec(at, geometry.block_len())?;
        }
        let record = &block[offset..offset + usize_from(geometry.desc_size)];
        groups.push((
            group,
            GroupDescriptor::decode(record, geometry, group).map_err(extant::Error::from)?,
        ));
    }
    Ok(groups)
}

fn features(superblock: &Superblock) -> String {
    let geometry = superblock.geometry();
    let words = [
        geometry.compat.to_string(),
        geometry.incompat.to_string(),
        geometry.ro_compat.to_string(),
    ];
    words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

fn state(superblock: &Superblock) -> String {
    let state = superblock.state();
    // Whoever mounts with a journal leaves the mark of a clean one, and relies on recovery.
    let needs_recovery = superblock.geometry().incompat.contains(extant_format::Incompat::RECOVER);
    let mut words = vec![match (needs_recovery, state.contains(State::VALID)) {
        (true, _) => "in use, or not unmounted: the journal needs recovery",
        (false, true) => "clean",
        (false, false) => "not clean",
    }];
    if state.contains(State::ERRORS) {
        words.push("with errors");
    }
    words.join(", ")
}

fn label(superblock: &Superblock) -> String {
    match superblock.label() {
        [] => "<none>".to_owned(),
        label => String::from_utf8_lossy(label).into_owned(),
    }
}

fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    if seconds == 0 { "never".to_owned() } else { time(Timestamp { seconds, nanoseconds: 0 }) }
}

fn print_superblock(
    superblock: &Superblock,
    device_bytes: u64,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (raw, geometry) = (superblock.raw(), superblock.geometry());
    let block = u64::from(geometry.block_size);
    let is_cut_off = geometry.blocks_count.saturating_mul(block) > device_bytes;
    let cut_off = if is_cut_off {
        format!(", of which only {} are there", size(device_bytes))
    } else {
        String::new()
    };
    let of_blocks = |count: u64| format!("{count} blocks, {}", size(count.saturating_mul(block)));
    let journal = match superblock.journal_inode() {
        Some(inode) => format!("{inode}"),
        None if raw.journal_dev.get() != 0 => "on a device of its own".to_owned(),
        None => "none".to_owned(),
    };
    let lines = [
        ("label", label(superblock)),
        ("uuid", uuid(&raw.uuid)),
        ("state", state(superblock)),
        ("features", features(superblock)),
        ("size", of_blocks(geometry.blocks_count) + &cut_off),
        ("free", of_blocks(raw.free_blocks_count())),
        ("reserved", of_blocks(raw.reserved_blocks_count())),
        ("block size", block.to_string()),
        (
            "inodes",
            format!(
                "{}, {} free, {} bytes each",
                geometry.inodes_count, raw.free_inodes_count, geometry.inode_size
            ),
        ),
        (
            "groups",
            format!(
                "{} of {} blocks, {} inodes",
                geometry.group_count, geometry.blocks_per_group, geometry.inodes_per_group
            ),
        ),
        ("journal", journal),
        ("made", moment(raw.mkfs_time.get().into())),
        ("mounted", moment(u64::from(raw.mtime_hi) << 32 | u64::from(raw.mtime.get()))),
        ("written", moment(superblock.raw().write_time())),
        ("errors", raw.error_count.to_string()),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<11} {value}")?;
    }
    Ok(())
}

fn print_group(
    group: BlockGroup,
    found: &GroupDescriptor,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let words = flags(found).join(" ");
    writeln!(
        out,
        "{group}: bitmaps {} {}, inodes from {}, free {} clusters {} inodes, {} directories {words}",
        found.block_bitmap,
        found.inode_bitmap,
        found.inode_table,
        found.free_clusters,
        found.free_inodes,
        found.used_dirs,
    )?;
    Ok(())
}

fn flags(found: &GroupDescriptor) -> Vec<&'static str> {
    let all = [
        (GroupFlags::INODE_UNINIT, "inode_uninit"),
        (GroupFlags::BLOCK_UNINIT, "block_uninit"),
        (GroupFlags::INODE_ZEROED, "itable_zeroed"),
    ];
    all.into_iter().filter(|(flag, _)| found.flags.contains(*flag)).map(|(_, word)| word).collect()
}

fn json_superblock(superblock: &Superblock) -> Value {
    let (raw, geometry) = (superblock.raw(), superblock.geometry());
    json!({
        "label": json_name(superblock.label()),
        "uuid": uuid(&raw.uuid),
        "clean": superblock.state().contains(State::VALID),
        "needs_recovery": geometry.incompat.contains(extant_format::Incompat::RECOVER),
        "features": features(superblock).split(' ').collect::<Vec<_>>(),
        "block_size": geometry.block_size,
        "blocks": geometry.blocks_count,
        "free_blocks": raw.free_blocks_count(),
        "reserved_blocks": raw.reserved_blocks_count(),
        "inode_size": geometry.inode_size,
        "inodes": geometry.inodes_count,
        "free_inodes": raw.free_inodes_count.get(),
        "group_count": geometry.group_count,
        "blocks_per_group": geometry.blocks_per_group,
        "inodes_per_group": geometry.inodes_per_group,
        "journal_inode": superblock.journal_inode().map(|inode| inode.get()),
        "errors": raw.error_count.get(),
    })
}

fn json_group(group: BlockGroup, found: &GroupDescriptor) -> Value {
    json!({
        "group": group.get(),
        "block_bitmap": found.block_bitmap.get(),
        "inode_bitmap": found.inode_bitmap.get(),
        "inode_table": found.inode_table.get(),
        "free_clusters": found.free_clusters,
        "free_inodes": found.free_inodes,
        "directories": found.used_dirs,
        "flags": flags(found),
    })
}
