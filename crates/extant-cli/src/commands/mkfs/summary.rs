//! What was made, or would be, in words.

use std::io::Write;
use std::path::Path;

use extant_format::{Compat, Superblock};

use crate::output::{self, size};

/// One line.
pub fn short(
    out: &mut dyn Write,
    image: &Path,
    made: &Superblock,
    lost: bool,
) -> anyhow::Result<()> {
    let geometry = made.geometry();
    writeln!(
        out,
        "{}: {} in {} blocks of {} bytes, {} inodes, UUID {}{}",
        image.display(),
        size(geometry.blocks_count << geometry.block_bits),
        geometry.blocks_count,
        geometry.block_size,
        geometry.inodes_count,
        output::uuid(&geometry.uuid),
        if lost { "; too small for a journal" } else { "" }
    )?;
    Ok(())
}

/// Everything that was decided.
pub fn long(out: &mut dyn Write, made: &Superblock) -> anyhow::Result<()> {
    let (raw, geometry) = (made.raw(), made.geometry());
    let mut line = |name: &str, value: String| writeln!(out, "  {name:<19} {value}");
    line("label", String::from_utf8_lossy(made.label()).into_owned())?;
    let (compat, incompat, ro_compat) = (geometry.compat, geometry.incompat, geometry.ro_compat);
    line("features", format!("{compat} {incompat} {ro_compat}").trim().to_owned())?;
    line("block size", geometry.block_size.to_string())?;
    if geometry.cluster_bits > 0 {
        line("cluster size", (geometry.block_size << geometry.cluster_bits).to_string())?;
    }
    line("first block", geometry.first_data_block.to_string())?;
    line("reserved for root", format!("{} blocks", raw.reserved_blocks_count()))?;
    line("free", format!("{} blocks, {} inodes", raw.free_blocks_count(), raw.free_inodes_count))?;
    line("inode size", geometry.inode_size.to_string())?;
    let (blocks, inodes) = (geometry.blocks_per_group, geometry.inodes_per_group);
    line("groups", format!("{}, of {blocks} blocks and {inodes} inodes", geometry.group_count))?;
    line("groups per flex", geometry.flex_size().to_string())?;
    let (stride, width) = (raw.raid_stride.get(), raw.raid_stripe_width.get());
    line("RAID", format!("stride {stride}, stripe width {width} blocks"))?;
    if geometry.compat.contains(Compat::HAS_JOURNAL) {
        let bytes = u64::from(raw.jnl_blocks[15].get()) << 32 | u64::from(raw.jnl_blocks[16].get());
        line("journal", if bytes > 0 { size(bytes) } else { "on a device of its own".to_owned() })?;
    }
    let copies = geometry.groups().filter(|group| group.get() > 0 && geometry.has_super(*group));
    let copies = copies.map(|group| geometry.first_block_of(group).get().to_string());
    line("superblock copies", copies.collect::<Vec<_>>().join(" "))?;
    Ok(())
}
