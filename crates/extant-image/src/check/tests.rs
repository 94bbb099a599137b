//! What holds of the rules as a whole, and what no planted defect can try.

use std::collections::BTreeSet;
use std::sync::Arc;

use extant::{MemoryDevice, MountOptions};
use extant_device::{BlockDevice, BlockDeviceExt};
use extant_testkit::CountingDevice;
use extant_testkit::oracle::{self, Scratch};

use super::*;
use crate::MkfsOptions;

fn made() -> Arc<MemoryDevice> {
    let device = Arc::new(MemoryDevice::new(32 << 20));
    let options = MkfsOptions { uuid: *b"sixteen bytes...", ..MkfsOptions::default() };
    crate::mkfs(&device, &options).unwrap();
    device
}

fn checked(device: &dyn BlockDevice) -> Report {
    check(device, &CheckOptions::default()).unwrap()
}

#[test]
fn a_new_image_is_clean_and_is_not_written() {
    let device = CountingDevice::new(made());
    let report = checked(&device);
    assert_eq!(report.findings, []);
    assert!(report.is_clean() && report.notes.is_empty());
    assert_eq!((report.totals.inodes, report.totals.directories), (11, 2));
    assert_eq!(device.counts().writes, 0);
}

#[test]
fn names_of_rules_are_words_and_differ() {
    let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    let is_word = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(names.iter().all(is_word));
    assert!(Rule::ALL.is_sorted_by_key(|rule| rule.pass()));
}

#[test]
fn the_table_in_the_documentation_has_every_rule() {
    let text = include_str!("../../../../docs/check.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = Rule::ALL
        .iter()
        .map(|rule| {
            let severity = match rule.severity() {
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            let code = rule.code().unwrap_or_default();
            let (name, pass, text) = (rule.name(), rule.pass().name(), rule.text());
            format!("| `{name}` | {pass} | {severity} | {text} | {code} |")
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn times_in_the_future_are_warnings_for_who_has_a_clock() {
    let device = made();
    let mut raw: RawSuperblock =
        zerocopy::FromBytes::read_from_bytes(&device.read_vec(1024, 1024).unwrap()).unwrap();
    raw.set_write_time(2_000_000);
    raw.set_mount_time(2_000_000);
    raw.set_checksum();
    device.write_bytes(1024, zerocopy::IntoBytes::as_bytes(&raw)).unwrap();
    assert_eq!(checked(&device).findings, []);
    let at = |now| {
        let options = CheckOptions { now: Some(now), ..CheckOptions::default() };
        let report = check(&device, &options).unwrap();
        assert!(report.is_clean());
        report.findings.iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert_eq!(at(1_000_000), [Rule::MountTime, Rule::WriteTime]);
    assert_eq!(at(1_950_000), []);
}

/// An image as a crash leaves it, with the journal in use.
fn crashed() -> MemoryDevice {
    let device = made();
    let volume = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    for n in 0..40 {
        std::io::Write::write_all(&mut volume.create(format!("/file {n}")).unwrap(), b"text")
            .unwrap();
    }
    volume.sync_all().unwrap();
    let image = device.snapshot();
    volume.unmount().unwrap();
    image
}

#[test]
fn a_journal_in_use_is_replayed_in_memory() {
    let device = crashed();
    let before = device.to_vec();
    let report = checked(&device);
    assert_eq!(report.findings, []);
    assert!(report.notes.iter().any(|note| note.contains("replayed in memory")));
    assert_eq!(report.totals.inodes, 51);
    assert_eq!(device.to_vec(), before);
}

#[test]
fn a_journal_that_cannot_be_replayed_is_told() {
    let device = crashed();
    let (_, geometry) = superblock::find(&device, &mut Findings::new(0)).unwrap();
    let (block, bytes) = (geometry.block_len(), device.to_vec());
    // The commit block of the only transaction: its checksum is wrong, and another commit follows it.
    let commits: Vec<usize> = (0..bytes.len())
        .step_by(block)
        .filter(|at| bytes[*at..].starts_with(&[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 2]))
        .collect();
    assert!(!commits.is_empty());
    let mut damaged = bytes.clone();
    damaged[commits[0] + 100] ^= 1;
    let next = commits[0] + block;
    let sequence = u32::from_be_bytes(bytes[commits[0] + 8..commits[0] + 12].try_into().unwrap());
    // A later transaction says that the damaged one was written whole.
    damaged.copy_within(commits[0]..next, next);
    damaged[next + 8..next + 12].copy_from_slice(&(sequence + 1).to_be_bytes());
    let report = checked(&MemoryDevice::from_bytes(&damaged));
    let told = report.findings.iter().any(|finding| finding.rule == Rule::JournalDamaged);
    let ended = report.notes.iter().any(|note| note.contains("0 transactions"));
    assert!(told || ended, "{:?} {:?}", report.findings, report.notes);
}

/// The kernel counts a link whose target is inline data, e2fsck does not; either is right.
#[test]
fn links_in_inodes_may_be_missing_from_quota_files() {
    let scratch = Scratch::new("links");
    let (source, path) = (scratch.path("source"), scratch.path("image"));
    std::fs::create_dir(&source).unwrap();
    std::os::unix::fs::symlink("x".repeat(80), source.join("link")).unwrap();
    let options = ["-O", "quota,inline_data", "-d", source.to_str().unwrap()];
    if oracle::mkfs(&path, 4 << 20, &options).is_none() {
        return;
    }
    let rules = || {
        let device = extant_device::FileDevice::open_read_only(&path).unwrap();
        checked(&device).findings.iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    // mke2fs counted before it copied the link.
    assert_eq!(rules(), []);
    assert_eq!(oracle::e2fsck(&path), Ok(()));
    std::fs::write(source.join("file"), "text").unwrap();
    oracle::mkfs(&path, 4 << 20, &options).unwrap();
    assert_eq!(rules(), [Rule::QuotaUsage; 2]);
    assert!(oracle::e2fsck(&path).is_err());
}

#[test]
fn no_file_system_is_no_finding() {
    let empty = MemoryDevice::new(1 << 20);
    let result = check(&empty, &CheckOptions::default());
    assert!(matches!(result, Err(CheckError::NoFileSystem)));
}

#[test]
fn findings_of_one_rule_are_counted_beyond_the_limit() {
    let device = made();
    let (_, geometry) = superblock::find(&device, &mut Findings::new(0)).unwrap();
    let own = geometry.descriptor_block(0).get() << geometry.block_bits;
    let mut descriptors = device.read_vec(own, 4096).unwrap();
    let table = u32::from_le_bytes(descriptors[8..12].try_into().unwrap());
    let table = u64::from(table) << geometry.block_bits;
    // Ten inodes that were never used get a mode.
    let mut block = device.read_vec(table + 4096, 4096).unwrap();
    block.chunks_exact_mut(256).take(10).for_each(|inode| inode[1] = 0x81);
    device.write_bytes(table + 4096, &block).unwrap();
    descriptors[0x1C..0x1E].copy_from_slice(&0_u16.to_le_bytes());
    device.write_bytes(own, &descriptors).unwrap();
    let options = CheckOptions { limit: 3, ..CheckOptions::default() };
    let report = check(&device, &options).unwrap();
    let rule = Rule::DeletedWithoutTime;
    let kept: Vec<_> = report.findings.iter().filter(|one| one.rule == rule).collect();
    let inodes: Vec<_> = kept.iter().filter_map(|one| Some(one.place.inode?.get())).collect();
    assert_eq!((inodes, report.left_out(rule)), (vec![17, 18, 19], 7));
}

/// Few files in sixteen tebibytes: what no group uses costs next to nothing.
#[test]
fn a_large_sparse_image_is_soon_checked() {
    let scratch = Scratch::new("large");
    let path = scratch.path("image");
    if oracle::mkfs(&path, 1 << 40, &[]).is_none() {
        return;
    }
    let device = extant_device::FileDevice::open_read_only(&path).unwrap();
    let start = std::time::Instant::now();
    let report = checked(&device);
    assert_eq!(report.findings, []);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
