//! The superblock's fields, in words and for programs.

use std::io::Write;

use extant_format::superblock::{DefaultMountOptions, State, SuperblockFlags};
use extant_format::{Compat, Incompat, Superblock, Timestamp};
use extant_image::reader::Reader;
use serde_json::{Value, json};

use super::journal;
use crate::output::{json_name, size, time, uuid};

/// Prints what everybody wants to know or, with `all`, every field.
pub fn print(reader: &Reader<'_>, all: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let more = if all { rare(reader.superblock()) } else { Vec::new() };
    for (name, value) in usual(reader).into_iter().chain(more) {
        writeln!(out, "{name:<11} {value}")?;
    }
    Ok(())
}

fn usual(reader: &Reader<'_>) -> Vec<(&'static str, String)> {
    let superblock = reader.superblock();
    let (raw, geometry) = (superblock.raw(), superblock.geometry());
    let block = u64::from(geometry.block_size);
    let device_bytes = reader.device_bytes();
    let cut_off = match geometry.blocks_count.saturating_mul(block) > device_bytes {
        true => format!(", of which only {} are there", size(device_bytes)),
        false => String::new(),
    };
    let of_blocks = |count: u64| format!("{count} blocks, {}", size(count.saturating_mul(block)));
    let journal = match superblock.journal_inode() {
        Some(inode) => format!("{inode}"),
        None if raw.journal_dev.get() != 0 => "on a device of its own".to_owned(),
        None => "none".to_owned(),
    };
    vec![
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
        ("made", moment(wide(raw.mkfs_time.get(), raw.mkfs_time_hi))),
        ("mounted", moment(wide(raw.mtime.get(), raw.mtime_hi))),
        ("written", moment(raw.write_time())),
        ("errors", raw.error_count.to_string()),
    ]
}

/// What is seldom asked for, in the order of dumpe2fs(8).
fn rare(superblock: &Superblock) -> Vec<(&'static str, String)> {
    let (raw, geometry) = (superblock.raw(), superblock.geometry());
    let mut lines = vec![
        ("last on", text_of(&raw.last_mounted)),
        ("revision", format!("{}.{}", raw.rev_level, raw.minor_rev_level)),
        ("flags", flags(raw.flags.get())),
        ("options", options(superblock.default_mount_options(), &raw.mount_opts)),
        ("on errors", on_errors(raw.errors.get()).to_owned()),
        ("creator", creator(raw.creator_os.get())),
        ("overhead", format!("{} clusters", raw.overhead_clusters)),
        ("first block", geometry.first_data_block.to_string()),
        ("cluster", format!("{} bytes", u64::from(geometry.block_size) << geometry.cluster_bits)),
        (
            "descriptors",
            format!(
                "{} bytes each, {} blocks, {} more reserved",
                geometry.desc_size, geometry.desc_blocks, geometry.reserved_gdt_blocks
            ),
        ),
        ("flex groups", format!("of {}", geometry.flex_size())),
        ("raid", format!("stride {}, stripe width {}", raw.raid_stride, raw.raid_stripe_width)),
        ("mounts", mounts(raw.mnt_count.get(), raw.max_mnt_count.get().cast_signed())),
        ("checked", moment(wide(raw.lastcheck.get(), raw.lastcheck_hi))),
        ("interval", format!("{} seconds", raw.checkinterval)),
        ("lifetime", format!("{} written", size(raw.kbytes_written.get().saturating_mul(1024)))),
        (
            "reserve of",
            format!(
                "uid {}, gid {}",
                reserve(raw.def_resuid.get(), raw.def_resuid_hi.get()),
                reserve(raw.def_resgid.get(), raw.def_resgid_hi.get())
            ),
        ),
        ("first inode", geometry.first_inode.to_string()),
        (
            "extra size",
            format!("{} required, {} desired", raw.min_extra_isize, raw.want_extra_isize),
        ),
        (
            "orphans",
            superblock.last_orphan().map_or("none".to_owned(), |inode| format!("from {inode} on")),
        ),
        ("hash", format!("{}, seed {}", hash(raw.def_hash_version), uuid(&seed(superblock)))),
        ("checksum", format!("{:#010x}, seed {:#010x}", raw.checksum.get(), geometry.csum_seed)),
    ];
    if geometry.incompat.contains(Incompat::MMP) {
        lines.push(("mmp", format!("block {}, every {} seconds", raw.mmp_block, raw.mmp_interval)));
    }
    if geometry.compat.contains(Compat::ORPHAN_FILE) {
        lines.push(("orphan file", raw.orphan_file_inum.to_string()));
    }
    let errors =
        [("first error", superblock.first_error()), ("last error", superblock.last_error())];
    for (name, error) in errors {
        let Some(error) = error else { continue };
        let inode = error.inode.map_or(String::new(), |inode| format!(", inode {inode}"));
        let (function, line) = (text_of(&error.function), error.line);
        let told = format!(
            "{} in {function}:{line}{inode}, block {}",
            moment(error.seconds),
            error.block.get()
        );
        lines.push((name, told));
    }
    lines
}

/// What the superblock and the journal say, for a program.
pub fn json_of(reader: &Reader<'_>) -> Value {
    let superblock = reader.superblock();
    let (raw, geometry) = (superblock.raw(), superblock.geometry());
    json!({
        "label": json_name(superblock.label()),
        "uuid": uuid(&raw.uuid),
        "clean": superblock.state().contains(State::VALID),
        "needs_recovery": geometry.incompat.contains(Incompat::RECOVER),
        "features": features(superblock).split(' ').collect::<Vec<_>>(),
        "block_size": geometry.block_size,
        "cluster_size": u64::from(geometry.block_size) << geometry.cluster_bits,
        "blocks": geometry.blocks_count,
        "free_blocks": raw.free_blocks_count(),
        "reserved_blocks": raw.reserved_blocks_count(),
        "overhead_clusters": raw.overhead_clusters.get(),
        "inode_size": geometry.inode_size,
        "inodes": geometry.inodes_count,
        "free_inodes": raw.free_inodes_count.get(),
        "first_inode": geometry.first_inode,
        "group_count": geometry.group_count,
        "blocks_per_group": geometry.blocks_per_group,
        "inodes_per_group": geometry.inodes_per_group,
        "descriptor_size": geometry.desc_size,
        "reserved_gdt_blocks": geometry.reserved_gdt_blocks,
        "flex_group_size": geometry.flex_size(),
        "journal_inode": superblock.journal_inode().map(|inode| inode.get()),
        "journal": journal::json_of(reader),
        "made": wide(raw.mkfs_time.get(), raw.mkfs_time_hi),
        "mounted": wide(raw.mtime.get(), raw.mtime_hi),
        "written": raw.write_time(),
        "checked": wide(raw.lastcheck.get(), raw.lastcheck_hi),
        "mounts": raw.mnt_count.get(),
        "lifetime_kbytes": raw.kbytes_written.get(),
        "hash": hash(raw.def_hash_version),
        "hash_seed": uuid(&seed(superblock)),
        "checksum": raw.checksum.get(),
        "checksum_seed": geometry.csum_seed,
        "errors": raw.error_count.get(),
    })
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
    let needs_recovery = superblock.geometry().incompat.contains(Incompat::RECOVER);
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

/// Forty bits of seconds.
fn wide(low: u32, high: u8) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn reserve(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// Bytes up to the first zero; for people, so what is no text is replaced.
fn text_of(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(bytes);
    match text {
        [] => "<none>".to_owned(),
        text => String::from_utf8_lossy(text).replace(char::is_control, "?"),
    }
}

fn flags(bits: u32) -> String {
    let all = [
        (SuperblockFlags::SIGNED_HASH, "signed_directory_hash"),
        (SuperblockFlags::UNSIGNED_HASH, "unsigned_directory_hash"),
        (SuperblockFlags::TEST_FILESYSTEM, "test_filesystem"),
    ];
    let set = SuperblockFlags::from_bits_retain(bits);
    words(all.into_iter().filter(|(flag, _)| set.contains(*flag)).map(|(_, word)| word.to_owned()))
}

fn options(set: DefaultMountOptions, extra: &[u8]) -> String {
    let single = [
        (DefaultMountOptions::DEBUG, "debug"),
        (DefaultMountOptions::BSD_GROUPS, "bsdgroups"),
        (DefaultMountOptions::USER_XATTR, "user_xattr"),
        (DefaultMountOptions::ACL, "acl"),
        (DefaultMountOptions::UID16, "uid16"),
        (DefaultMountOptions::NO_BARRIER, "nobarrier"),
        (DefaultMountOptions::BLOCK_VALIDITY, "block_validity"),
        (DefaultMountOptions::DISCARD, "discard"),
        (DefaultMountOptions::NO_DELALLOC, "nodelalloc"),
    ];
    let mode = match set.intersection(DefaultMountOptions::DATA_WRITEBACK) {
        mode if mode == DefaultMountOptions::DATA_WRITEBACK => Some("journal_data_writeback"),
        mode if mode == DefaultMountOptions::DATA_ORDERED => Some("journal_data_ordered"),
        mode if mode == DefaultMountOptions::DATA_JOURNAL => Some("journal_data"),
        _ => None,
    };
    let single = single.into_iter().filter(|(flag, _)| set.contains(*flag)).map(|(_, word)| word);
    let extra = Some(text_of(extra)).filter(|extra| extra != "<none>");
    words(single.chain(mode).map(str::to_owned).chain(extra))
}

fn words(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "<none>".to_owned() } else { words.join(" ") }
}

/// How often it was mounted since the last check, and how often it may be.
fn mounts(count: u16, most: i16) -> String {
    if most > 0 { format!("{count}, checked after {most}") } else { count.to_string() }
}

fn on_errors(policy: u16) -> &'static str {
    match policy {
        1 => "continue",
        2 => "remount read-only",
        3 => "panic",
        _ => "as the kernel does by default",
    }
}

fn creator(system: u32) -> String {
    let names = ["Linux", "Hurd", "Masix", "FreeBSD", "Lites"];
    let name = usize::try_from(system).ok().and_then(|n| names.get(n));
    name.map_or(format!("number {system}"), |name| (*name).to_owned())
}

fn hash(version: u8) -> String {
    let names = [
        "legacy",
        "half_md4",
        "tea",
        "legacy unsigned",
        "half_md4 unsigned",
        "tea unsigned",
        "siphash",
    ];
    names.get(usize::from(version)).map_or(format!("number {version}"), |name| (*name).to_owned())
}

/// The hash seed as the bytes that are stored.
fn seed(superblock: &Superblock) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(superblock.hash_seed()) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
