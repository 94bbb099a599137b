//! Each image is checked by `e2fsck` and compared with what mke2fs makes of the same options.

mod external;
mod special;

use std::collections::BTreeMap;
use std::path::Path;

use extant_device::{BlockDeviceExt, DeviceGeometry, FileDevice, MemoryDevice, Request};
use extant_testkit::RecordingDevice;
use extant_testkit::oracle::{self, Scratch};

use super::*;

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
const HASH_SEED: &str = "01234567-89ab-cdef-0123-456789abcdef";
/// Lines of `dumpe2fs` that may differ: when and how much was written, and what follows from that.
const MAY_DIFFER: [&str; 6] = [
    "Filesystem created",
    "Last write time",
    "Last checked",
    "Lifetime writes",
    "Checksum",
    "Directories",
];

fn options() -> MkfsOptions {
    MkfsOptions {
        uuid: 0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF_u128.to_be_bytes(),
        hash_seed: 0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF_u128.to_be_bytes(),
        time_seconds: 1_800_000_000,
        ..MkfsOptions::default()
    }
}

fn make(path: &Path, bytes: u64, options: &MkfsOptions) -> Result<(), MkfsError> {
    mkfs(&FileDevice::create(path, bytes).unwrap(), options).map(drop)
}

/// The header's lines as `dumpe2fs -h` prints them, by name.
fn header(image: &Path) -> Option<BTreeMap<String, String>> {
    let output = oracle::run("dumpe2fs", &["-h", image.to_str().unwrap()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.filter(|(name, _)| !MAY_DIFFER.contains(name));
    Some(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// What mke2fs makes of a file of so many bytes; `None` where there is no mke2fs, `Err` with its words if it refuses.
fn make_theirs(path: &Path, bytes: u64, arguments: &[&str]) -> Option<Result<(), String>> {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
    let seed = format!("hash_seed={HASH_SEED}");
    let fixed = ["-q", "-F", "-t", "ext4", "-U", UUID, "-E", &seed];
    let output = oracle::run("mke2fs", &[&fixed, arguments, &[path.to_str().unwrap()]].concat())?;
    Some(if output.status.success() { Ok(()) } else { Err(oracle::text(&output)) })
}

/// Makes an image of these options and checks it; compares it with one by mke2fs with `arguments`.
fn check_bytes_with(bytes: u64, options: &MkfsOptions, arguments: &[&str]) {
    let scratch = Scratch::new("mkfs");
    let (ours, theirs) = (scratch.path("ours.img"), scratch.path("theirs.img"));
    let made = make(&ours, bytes, options);
    let at = format!("{bytes} bytes {arguments:?}");
    match make_theirs(&theirs, bytes, arguments) {
        None => return made.unwrap(),
        Some(Ok(())) => {}
        // It has less room for inodes than it puts there.
        Some(Err(words)) if words.contains("Illegal inode number") => return made.unwrap(),
        Some(Err(words)) => {
            assert!(made.is_err(), "{at}: mke2fs says {words}");
            return;
        }
    }
    made.unwrap_or_else(|error| panic!("{at}: {error}"));
    // A check of a very large one takes longer than all others together.
    if bytes <= 1 << 40 {
        oracle::e2fsck(&ours).unwrap();
    }
    let (Some(ours), Some(theirs)) = (header(&ours), header(&theirs)) else { return };
    for (name, value) in &theirs {
        assert_eq!(ours.get(name), Some(value), "{name}, {at}");
    }
    assert!(theirs.is_empty() || ours.len() == theirs.len(), "{at}");
}

/// The same for mebibytes, and by the usage type that is the default for those from 512 MiB on.
fn check(mebibytes: u64, options: &MkfsOptions, arguments: &[&str]) {
    let options = MkfsOptions { usage: Some("default".to_owned()), ..options.clone() };
    check_bytes_with(mebibytes << 20, &options, &[&["-T", "default"], arguments].concat());
}

#[test]
fn default_images_agree_with_mke2fs() {
    for mebibytes in [8, 16, 64, 128, 129, 256, 512, 1000, 2048, 4096] {
        check(mebibytes, &options(), &[]);
    }
}

#[test]
fn every_size_agrees_with_mke2fs() {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;
    // Small ones, each step of the journal, each type's edge, last groups with and without room for their tables.
    let sizes = [
        64 * KIB,
        100 * KIB,
        104 * KIB,
        360 * KIB,
        1440 * KIB,
        2 * MIB - 4 * KIB,
        2 * MIB,
        3 * MIB - KIB,
        3 * MIB,
        7 * MIB,
        8 * MIB,
        8 * MIB + 300 * KIB,
        16 * MIB + 600 * KIB,
        32 * MIB,
        100 * MIB,
        255 * MIB,
        256 * MIB,
        512 * MIB - 4 * KIB,
        512 * MIB,
        513 * MIB,
        GIB,
        2 * GIB + MIB,
        16 * GIB,
        32 * GIB,
        64 * GIB,
        128 * GIB,
        TIB,
        4 * TIB - 4 * KIB,
        4 * TIB,
        16 * TIB - 4 * KIB,
        16 * TIB,
    ];
    for bytes in sizes {
        check_bytes_with(bytes, &options(), &[]);
    }
}

#[test]
fn every_usage_type_agrees_with_mke2fs() {
    let names = ["floppy", "small", "default", "big", "huge", "news", "largefile", "largefile4"];
    for name in names {
        let options = MkfsOptions { usage: Some(name.to_owned()), ..options() };
        check_bytes_with(600 << 20, &options, &["-T", name]);
    }
}

#[test]
fn numbers_of_inodes_agree_with_mke2fs() {
    for (inodes, bytes) in [(12, 8 << 20), (100_000, 600 << 20), (1_000_000, 600 << 20)] {
        let options = MkfsOptions { inodes: Some(inodes), ..options() };
        check_bytes_with(bytes, &options, &["-N", &inodes.to_string()]);
    }
    for ratio in [1024, 2048, 8192, 67_108_864] {
        let options = MkfsOptions { bytes_per_inode: Some(ratio), ..options() };
        check_bytes_with(600 << 20, &options, &["-i", &ratio.to_string()]);
        check_bytes_with(20 << 20, &options, &["-i", &ratio.to_string()]);
    }
}

#[test]
fn every_block_size_agrees_with_mke2fs() {
    for block_size in [1024, 2048, 8192, 16384, 32768, 65536] {
        let options = MkfsOptions { block_size: Some(block_size), ..options() };
        check(600, &options, &["-b", &block_size.to_string()]);
    }
}

#[test]
fn every_switch_agrees_with_mke2fs() {
    let switches = [
        "^has_journal",
        "^resize_inode",
        "^64bit",
        "^metadata_csum",
        "^metadata_csum,uninit_bg",
        "^flex_bg",
        "^sparse_super,^resize_inode",
        "^dir_index,^huge_file",
        "^64bit,^metadata_csum,^flex_bg",
        "metadata_csum_seed",
    ];
    for switch in switches {
        let mut options = options();
        options.features.apply(switch).unwrap();
        check(600, &options, &["-O", switch]);
    }
}

#[test]
fn sizes_and_label_agree_with_mke2fs() {
    let all = MkfsOptions {
        inode_size: Some(512),
        bytes_per_inode: Some(65536),
        reserved: Percent::new(1),
        label: b"sixteen bytes ok".to_vec(),
        journal: JournalSize::Bytes(8 << 20),
        ..options()
    };
    let arguments =
        ["-I", "512", "-i", "65536", "-m", "1", "-L", "sixteen bytes ok", "-J", "size=8"];
    check(300, &all, &arguments);
    let many = MkfsOptions { inode_size: Some(128), bytes_per_inode: Some(4096), ..options() };
    check(300, &many, &["-I", "128", "-i", "4096"]);
}

#[test]
fn the_same_options_give_the_same_bytes() {
    let (one, other) = (MemoryDevice::new(64 << 20), MemoryDevice::new(64 << 20));
    mkfs(&one, &options()).unwrap();
    mkfs(&other, &options()).unwrap();
    assert!(one.to_vec() == other.to_vec());
}

/// A device that has to send zeros, full of what somebody left there.
struct SlowAndDirty(MemoryDevice);

impl SlowAndDirty {
    fn new(len: usize) -> Self {
        Self(MemoryDevice::from_bytes(&vec![0xA5; len]))
    }
}

impl BlockDevice for SlowAndDirty {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { fast_zeroes: false, discard: false, ..self.0.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        self.0.run(batch);
    }
}

#[test]
fn tables_are_left_for_later_where_zeroing_is_slow() {
    let device = SlowAndDirty::new(64 << 20);
    mkfs(&device, &options()).unwrap();
    let bytes = device.0.to_vec();
    assert!(
        bytes.chunks(4096).filter(|block| block.iter().all(|byte| *byte == 0xA5)).count() > 100
    );
    check_bytes(&bytes);
}

#[test]
fn without_checksums_of_descriptors_every_table_is_zeroed() {
    let device = SlowAndDirty::new(64 << 20);
    let mut options = options();
    options.features.apply("^metadata_csum").unwrap();
    mkfs(&device, &options).unwrap();
    check_bytes(&device.0.to_vec());
}

fn check_bytes(bytes: &[u8]) {
    let scratch = Scratch::new("mkfs-bytes");
    std::fs::write(scratch.path("image"), bytes).unwrap();
    oracle::e2fsck(&scratch.path("image")).unwrap();
}

#[test]
fn every_length_has_a_superblock_or_is_refused() {
    for shift in 0..64 {
        for block_size in [None, Some(1024), Some(4096), Some(65536)] {
            let options = MkfsOptions { block_size, ..options() };
            let decided = resolve::Decided::new(&options, 1 << shift);
            let made = decided.and_then(|decided| decided.superblock());
            assert!(made.is_err() || (16..=60).contains(&shift), "{shift} {block_size:?}");
        }
    }
    let options = options();
    let decided = resolve::Decided::new(&options, u64::MAX);
    assert!(decided.and_then(|decided| decided.superblock()).is_err());
}

#[test]
fn until_the_last_write_there_is_no_file_system() {
    let old = MemoryDevice::new(64 << 20);
    mkfs(&old, &MkfsOptions { label: b"old".to_vec(), ..options() }).unwrap();
    let device = RecordingDevice::from_image(&old);
    mkfs(&device, &options()).unwrap();
    let log = device.log();
    let label = |position| {
        let bytes = log.image_at(position).read_vec(Superblock::OFFSET_BYTES, 1024).unwrap();
        Superblock::parse(&bytes).ok().map(|superblock| superblock.label().to_vec())
    };
    let labels: Vec<_> = (0..=log.events().len()).map(label).collect();
    assert_eq!(labels.first(), Some(&Some(b"old".to_vec())));
    assert_eq!(labels.last(), Some(&Some(Vec::new())));
    let (empty, whole) = (labels.iter().filter(|label| label.is_none()).count(), labels.len() - 1);
    assert!(empty >= whole - 2, "{labels:?}");
}

#[test]
fn what_is_too_small_is_refused_before_anything_is_written() {
    let with_journal = MkfsOptions { journal: JournalSize::Blocks(1024), ..options() };
    for (bytes, options) in
        [(0, options()), (4096, options()), (16 << 10, options()), (1 << 20, with_journal.clone())]
    {
        let device = MemoryDevice::new(bytes);
        let error = mkfs(&device, &options).unwrap_err();
        assert!(
            matches!(
                error,
                MkfsError::TooSmall { .. } | MkfsError::Option { option: "inodes", .. }
            ),
            "{bytes}: {error}"
        );
        assert_eq!(error.to_string().lines().count(), 1);
        assert_eq!(device.allocated_bytes(), 0);
    }
    let error = mkfs(&MemoryDevice::new(1 << 20), &with_journal).unwrap_err().to_string();
    assert!(error.contains("1048576 of them for the journal"), "{error}");
}

#[test]
fn without_a_journal_a_mebibyte_is_enough() {
    let mut options = options();
    options.features.apply("^has_journal").unwrap();
    check(1, &options, &["-O", "^has_journal"]);
}

#[test]
fn impossible_options_are_refused() {
    let refuse = |change: &dyn Fn(&mut MkfsOptions)| {
        let mut options = options();
        change(&mut options);
        let error = mkfs(&MemoryDevice::new(64 << 20), &options).unwrap_err();
        assert!(matches!(error, MkfsError::Option { .. }), "{error}");
    };
    refuse(&|options| options.block_size = Some(3000));
    refuse(&|options| options.inode_size = Some(64));
    refuse(&|options| options.bytes_per_inode = Some(0));
    refuse(&|options| options.bytes_per_inode = Some(1 << 30));
    refuse(&|options| options.inodes = Some(0));
    refuse(&|options| options.inodes = Some(1 << 20));
    refuse(&|options| options.reserved = Percent::new(51));
    refuse(&|options| options.label = vec![b'a'; 17]);
    refuse(&|options| options.journal = JournalSize::Blocks(1));
    refuse(&|options| options.journal = JournalSize::Bytes(1 << 50));
    refuse(&|options| options.features.apply("^sparse_super").unwrap());
    refuse(&|options| options.features.apply("^extent").unwrap());
    refuse(&|options| options.features.apply("meta_bg").unwrap());
    refuse(&|options| options.features.apply("orphan_file,^has_journal").unwrap());
    refuse(&|options| options.features.apply("metadata_csum_seed,^metadata_csum").unwrap());
    refuse(&|options| options.features.apply("journal_dev").unwrap());
}

#[test]
fn random_sizes_and_options_agree_with_mke2fs() {
    let mut random = extant_testkit::Random::new(20);
    for _ in 0..40 {
        let shift = 10 + random.below(24);
        let bytes = ((64 << 10) + random.below(1 << shift) * (1 << random.below(10))) & !1023;
        let (mut options, mut arguments) = (options(), Vec::new());
        if random.below(3) == 0 {
            let block_size = 1024 << random.below(4);
            options.block_size = Some(block_size);
            arguments.extend(["-b".to_owned(), block_size.to_string()]);
        }
        if random.below(3) == 0 {
            let ratio = u32::try_from(1024 + random.below(70_000)).unwrap();
            options.bytes_per_inode = Some(ratio);
            arguments.extend(["-i".to_owned(), ratio.to_string()]);
        }
        if random.below(4) == 0 {
            let inode_size = 128 << random.below(3);
            options.inode_size = Some(inode_size);
            arguments.extend(["-I".to_owned(), inode_size.to_string()]);
        }
        if random.below(3) == 0 {
            let percent = u8::try_from(random.below(51)).unwrap();
            options.reserved = Percent::new(percent);
            arguments.extend(["-m".to_owned(), percent.to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        check_bytes_with(bytes, &options, &arguments);
    }
}
