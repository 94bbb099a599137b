//! What is more than an empty file system: journals elsewhere, bad blocks, huge files, plans, parts.

use std::os::unix::fs::MetadataExt;

use super::*;

fn device(bytes: u64) -> MemoryDevice {
    MemoryDevice::new(bytes)
}

fn with(list: &str) -> MkfsOptions {
    let mut options = options();
    options.features.apply(list).unwrap();
    options
}

#[test]
fn a_plan_needs_no_device_and_writes_what_mkfs_does() {
    let plan = Plan::new(64 << 20, &options()).unwrap();
    let (one, other) = (device(64 << 20), device(64 << 20));
    let made = plan.write(&one).unwrap();
    mkfs(&other, &options()).unwrap();
    assert!(one.to_vec() == other.to_vec());
    assert_eq!(made.raw().free_blocks_count(), plan.superblock().raw().free_blocks_count());
    assert_eq!(plan.free_bytes(), made.raw().free_blocks_count() * 1024);
    assert!(!plan.lost_journal() && Plan::new(1 << 20, &options()).unwrap().lost_journal());
}

#[test]
fn a_file_system_may_begin_anywhere_on_its_device() {
    let mut options = options();
    options.extended.apply("offset=1048576").unwrap();
    options.size_bytes = Some(16 << 20);
    let device = SlowAndDirty::new(20 << 20);
    mkfs(&device, &options).unwrap();
    let bytes = device.0.to_vec();
    check_bytes(&bytes[1 << 20..]);
    let outside = bytes[..1 << 20].iter().chain(&bytes[17 << 20..]);
    assert!(outside.into_iter().all(|byte| *byte == 0xA5));
    options.size_bytes = Some(20 << 20);
    assert!(matches!(mkfs(&device, &options), Err(MkfsError::TooSmall { .. })));
}

#[test]
fn sixteen_tebibytes_take_the_descriptors_and_little_else() {
    let options =
        MkfsOptions { journal: JournalSize::BySize, ..with("sparse_super2,^resize_inode") };
    let scratch = Scratch::new("mkfs-large");
    let device = FileDevice::create(scratch.path("image"), 16 << 40).unwrap();
    let made = mkfs(&device, &options).unwrap();
    // Three copies of 131,072 descriptors of 64 bytes, and a bitmap of blocks in each of 8192 groups that have tables.
    assert_eq!(made.geometry().group_count, 131_072);
    let needed = 3 * 131_072 * 64 + 8192 * 4096;
    let written = made.raw().kbytes_written.get() << 10;
    assert!(written < needed + (1 << 20), "{written}");
    let allocated = std::fs::metadata(scratch.path("image")).unwrap().blocks() * 512;
    assert!(allocated < needed + (2 << 20), "{allocated}");
}

#[test]
fn bad_blocks_belong_to_their_inode() {
    for (list, blocks) in [("", 300), ("^extent,^64bit", 20), ("^flex_bg", 2000)] {
        let bad_blocks = (20_000..20_000 + blocks).collect();
        let options = MkfsOptions { bad_blocks, ..with(list) };
        let device = device(64 << 20);
        mkfs(&device, &options).unwrap();
        check_bytes(&device.to_vec());
    }
    let refuse = |bad_blocks, list: &str| {
        let error = mkfs(&device(64 << 20), &MkfsOptions { bad_blocks, ..with(list) }).unwrap_err();
        assert!(matches!(error, MkfsError::Option { option: "bad blocks", .. }), "{error}");
    };
    refuse(vec![1], "");
    refuse(vec![1 << 20], "");
    refuse(vec![20_000], "bigalloc");
}

#[test]
fn superblocks_alone_leave_the_rest_as_it_was() {
    let device = device(64 << 20);
    mkfs(&device, &options()).unwrap();
    let before = device.to_vec();
    let wiped = device.read_vec(0, 4096).unwrap();
    device.write_bytes(0, &[0; 4096]).unwrap();
    mkfs(&device, &MkfsOptions { superblocks_only: true, ..options() }).unwrap();
    let after = device.to_vec();
    let superblock = Superblock::parse(&after[1024..2048]).unwrap();
    assert!(superblock.state().contains(extant_format::superblock::State::ERRORS));
    assert_eq!(superblock.geometry(), Superblock::parse(&wiped[1024..2048]).unwrap().geometry());
    // The root directory is where it was, and what it says too.
    let table = 400 << 10..8 << 20;
    assert!(before[table.clone()] == after[table]);
}

#[test]
fn journal_devices_have_one_user() {
    let mut journal_options = MkfsOptions { block_size: Some(4096), ..options() };
    journal_options.features.apply("journal_dev").unwrap();
    assert!(wants_journal_device(&journal_options, 8 << 20).unwrap());
    assert!(!wants_journal_device(&options(), 8 << 20).unwrap());
    let journal = device(8 << 20);
    make_journal_device(&journal, &journal_options).unwrap();
    assert_eq!(journal_device_block_size(&journal).unwrap(), Some(4096));
    let uuid = [7; 16];
    assert!(use_journal_device(&journal, 1024, uuid).is_err());
    let external = use_journal_device(&journal, 4096, uuid).unwrap();
    assert_eq!(external.uuid, journal_options.uuid);
    assert_eq!(use_journal_device(&journal, 4096, uuid).unwrap(), external);
    assert!(use_journal_device(&journal, 4096, [8; 16]).is_err());
    assert!(use_journal_device(&device(8 << 20), 4096, uuid).is_err());
    assert_eq!(journal_device_block_size(&device(512)).unwrap(), None);
    let tiny = MemoryDevice::new(1 << 20);
    assert!(matches!(
        make_journal_device(&tiny, &journal_options),
        Err(MkfsError::TooSmall { .. })
    ));

    let options =
        MkfsOptions { uuid, block_size: Some(4096), external_journal: Some(external), ..options() };
    let made = device(64 << 20);
    let superblock = mkfs(&made, &options).unwrap();
    assert_eq!(superblock.raw().journal_uuid, external.uuid);
    assert_eq!(superblock.journal_inode(), None);
    let scratch = Scratch::new("mkfs-journal");
    std::fs::write(scratch.path("image"), made.to_vec()).unwrap();
    std::fs::write(scratch.path("journal"), journal.to_vec()).unwrap();
    let (image, journal) = (scratch.path("image"), scratch.path("journal"));
    let arguments = ["-fn", "-j", journal.to_str().unwrap(), image.to_str().unwrap()];
    if let Some(output) = oracle::run("e2fsck", &arguments) {
        assert!(output.status.success(), "{}", oracle::text(&output));
    }
}

#[test]
fn huge_files_lie_one_behind_the_other() {
    let hugefiles = Hugefiles {
        directory: "/a/b".to_owned(),
        count: 3,
        size: Amount::Bytes(8 << 20),
        align: Amount::Bytes(1 << 20),
        ..Hugefiles::default()
    };
    let features = "quota,^has_journal,sparse_super2,^resize_inode";
    let mut options = MkfsOptions { hugefiles: Some(hugefiles), ..with(features) };
    options.extended.apply("num_backup_sb=0,packed_meta_blocks").unwrap();
    let made = device(64 << 20);
    mkfs(&made, &options).unwrap();
    check_bytes(&made.to_vec());
    let filesystem = extant::MountOptions::read_only().mount(made).unwrap();
    let first = |name: &str| {
        let file = filesystem.open(name).unwrap();
        file.extents().unwrap().iter().map(|extent| extent.physical.unwrap()).min().unwrap()
    };
    let starts = ["/a/b/hugefile00000", "/a/b/hugefile00001", "/a/b/hugefile00002"].map(first);
    assert!(starts.iter().all(|start| start % 1024 == 0), "{starts:?}");
    assert!(starts.is_sorted());
    let wide = Hugefiles { size: Amount::Bytes(1 << 30), ..Hugefiles::default() };
    let options = MkfsOptions { hugefiles: Some(wide), ..self::options() };
    assert!(mkfs(&device(64 << 20), &options).is_err());
}

#[test]
fn the_built_in_configuration_is_the_stock_one() {
    let Some(version) = oracle::run("mke2fs", &["-V"]) else { return };
    let Ok(text) = std::fs::read_to_string("/etc/mke2fs.conf") else {
        return extant_testkit::skip("there is no /etc/mke2fs.conf");
    };
    // Later versions have other features by default.
    if oracle::text(&version).contains("1.47.0 ") {
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }
}

#[test]
fn a_power_cut_leaves_no_file_system_or_a_whole_one() {
    let old = MemoryDevice::new(8 << 20);
    mkfs(&old, &options()).unwrap();
    let device = RecordingDevice::from_image(&old);
    mkfs(&device, &with("orphan_file,bigalloc")).unwrap();
    let log = device.log();
    let state = |position| {
        let bytes = log.image_at(position).read_vec(Superblock::OFFSET_BYTES, 1024).unwrap();
        Superblock::parse(&bytes).ok().map(|superblock| superblock.orphan_file().is_some())
    };
    let mut states: Vec<_> = (0..=log.events().len()).map(state).collect();
    // The old one, then for most of the time none, and the new one when all of it is there.
    assert!(states.iter().filter(|state| state.is_none()).count() > states.len() / 2);
    states.dedup();
    assert_eq!(states, [Some(false), None, Some(true)]);
}

#[test]
fn a_configuration_may_switch_64bit_on_where_it_is_needed() {
    let text = "[defaults]\nauto_64-bit_support = 1\nfs_type = mine\n[fs_types]\nmine = {\nfeatures = extent\nblocksize = 4096\ninode_ratio = 65536\n}\n";
    let options = MkfsOptions { config: Config::parse(text).unwrap(), ..options() };
    let wide = |bytes| {
        let plan = Plan::new(bytes, &options).unwrap();
        let geometry = plan.superblock().geometry();
        let resize = extant_format::Compat::RESIZE_INODE;
        (geometry.incompat.contains(Incompat::BIT64), geometry.compat.contains(resize))
    };
    assert_eq!(wide(1 << 30), (false, true));
    assert_eq!(wide(17 << 40), (true, false));
    let stock = MkfsOptions { fs_type: Some("ext2".to_owned()), ..self::options() };
    assert!(Plan::new(17 << 40, &stock).is_err());
}
