//! Files whose data is journaled: by the mount (`data=journal`), or by their own flag (D2.1 to D2.5, D14, J5.4, J7).

use std::cell::Cell;
use std::sync::Arc;

use extant::{
    DataMode, Errno, File, FileExtentState, Filesystem, MountOptions, OpenOptions, RangeChange,
    SetAttributes,
};
use extant_device::{BlockDeviceExt, MemoryDevice, OperationKind};
use extant_format::InodeFlags;
use extant_testkit::{Change, CrashOptions, GateDevice, RecordingDevice};

use crate::world::{STALE, World, assert_not_stale, few, mount, open, read, write};

/// What every block of the journal starts with.
const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];

fn journal() -> MountOptions {
    MountOptions::new().data_mode(DataMode::Journal)
}

/// A mount on which a file's own flag means something; all files are spread by the same number.
fn placed() -> MountOptions {
    MountOptions::new().delayed_allocation(false).process(3)
}

fn set_flag(file: &File, on: bool) {
    let mut flags = file.metadata().unwrap().flags;
    flags.set(InodeFlags::JOURNAL_DATA, on);
    let change = SetAttributes { flags: Some(flags), ..SetAttributes::default() };
    file.inode().set_attributes(&change).unwrap();
}

/// Where the file's only run of blocks lies, in bytes.
fn home(fs: &Filesystem, file: &File) -> u64 {
    let extents = file.extents().unwrap();
    assert_eq!(extents.len(), 1, "{extents:?}");
    extents[0].physical.unwrap() * u64::from(fs.statfs().block_size)
}

/// How many writes reached the byte at `at`.
fn writes_to(device: &RecordingDevice<MemoryDevice>, from: usize, at: u64) -> usize {
    let log = device.log();
    let touches = |event: &&extant_testkit::Event| match &event.change {
        Change::Write { data, .. } => {
            let len: usize = data.iter().map(|slice| slice.len()).sum();
            (event.offset..event.offset + u64::try_from(len).unwrap()).contains(&at)
        }
        _ => false,
    };
    log.events()[from..].iter().filter(touches).count()
}

#[test]
fn d2_3_journaled_data_is_never_delayed_and_asking_for_both_is_refused() {
    let world = World::new("options");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let both = mount(&Arc::new(image.snapshot()), journal().delayed_allocation(true));
    assert_eq!(both.unwrap_err().errno(), Errno::INVAL);
    mount(&Arc::new(image.snapshot()), journal().delayed_allocation(false)).unwrap();
    let fs = mount(&Arc::new(image), journal()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[7; 5000], 0);
    assert!(file.extents().unwrap().iter().all(|run| run.state == FileExtentState::Written));
    assert_eq!(fs.kernel_counters().delayed_allocation_blocks, 0);

    let Some(image) = world.mkfs(8, &["-b", "1024", "-O", "^has_journal"]) else { return };
    let error = mount(&Arc::new(image), journal()).unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL, "there is no journal");
}

#[test]
fn d2_3_the_superblock_says_what_nobody_asks_for() {
    let world = World::new("defaults");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for (stored, journals) in [("0x2c", true), ("0x4c", false), ("0x6c", false), ("0x80c", false)] {
        let commands = format!("ssv default_mount_opts {stored}");
        let image = Arc::new(world.changed_by_debugfs(&image, &commands));
        let fs = mount(&image, MountOptions::new()).unwrap();
        let file = open(&fs, "/a");
        write(&file, &[7; 1024], 0);
        let delayed = file.extents().unwrap()[0].state == FileExtentState::Delayed;
        assert_eq!(delayed, !["0x2c", "0x80c"].contains(&stored), "{stored}");
        file.sync_all().unwrap();
        let at = home(&fs, &file);
        let is_home = image.read_vec(at, 1024).unwrap() == [7; 1024];
        assert_eq!(is_home, !journals, "{stored}");
    }
}

#[test]
fn d2_2_the_flag_counts_only_where_nothing_is_delayed() {
    let world = World::new("flag");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for (options, journals) in [(MountOptions::new(), false), (placed(), true)] {
        let image = Arc::new(image.snapshot());
        let fs = mount(&image, options).unwrap();
        let file = open(&fs, "/a");
        set_flag(&file, true);
        write(&file, &[7; 1024], 0);
        file.sync_all().unwrap();
        let is_home = image.read_vec(home(&fs, &file), 1024).unwrap() == [7; 1024];
        assert_eq!(is_home, !journals);
        // A file made in a directory with the flag has it too.
        fs.create_dir("/d").unwrap();
        set_flag(&fs.open("/d").unwrap(), true);
        let inherited = open(&fs, "/d/a").metadata().unwrap().flags;
        assert!(inherited.contains(InodeFlags::JOURNAL_DATA));
        fs.unmount().unwrap();
        world.e2fsck(&image).unwrap();
    }
}

#[test]
fn j5_4_data_goes_home_after_its_commit_and_not_with_fsync() {
    let world = World::new("home");
    for block in ["1024", "4096"] {
        let Some(image) = world.mkfs(8, &["-b", block]) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, journal()).unwrap();
        let file = open(&fs, "/a");
        let from = device.position();
        write(&file, &[7; 4096], 0);
        let at = home(&fs, &file);
        fs.tick().unwrap();
        assert_eq!(writes_to(&device, from, at), 0);
        file.sync_all().unwrap();
        assert_eq!(writes_to(&device, from, at), 0, "the log has it");
        let all = CrashOptions { from: device.position(), ..CrashOptions::default() };
        world.every_crash(&device, all, |fs, _| assert!(read(fs, "/a").unwrap() == [7; 4096]));
        drop(file);
        fs.unmount().unwrap();
        assert_eq!(writes_to(&device, from, at), 1);
    }
}

#[test]
fn a_version_that_a_later_commit_replaces_is_never_written_home() {
    let world = World::new("superseded");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let file = open(&fs, "/a");
    let from = device.position();
    for round in 1..20 {
        write(&file, &[round; 4096], 0);
        file.sync_all().unwrap();
    }
    let at = home(&fs, &file);
    drop(file);
    fs.unmount().unwrap();
    assert_eq!(writes_to(&device, from, at), 1);
    assert_eq!(device.inner().read_vec(at, 4096).unwrap(), [19; 4096]);
}

#[test]
fn one_flush_and_one_durable_write_make_journaled_data_durable() {
    let world = World::new("flushes");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    let fs = mount(&Arc::new(image), journal()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[1; 4096], 0);
    file.sync_all().unwrap();
    let before = fs.counters();
    write(&file, &[2; 4096], 0);
    file.sync_data().unwrap();
    let after = fs.counters();
    assert_eq!((after.commits - before.commits, after.flushes - before.flushes), (1, 2));
}

#[test]
fn j6_data_that_looks_like_the_journal_is_escaped() {
    let world = World::new("escape");
    for format in [&["-b", "1024"][..], &["-b", "4096", "-O", "^metadata_csum"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, journal()).unwrap();
        let mut bytes = vec![7; 20_000];
        bytes.chunks_mut(1024).for_each(|block| block[..4].copy_from_slice(&MAGIC));
        let file = open(&fs, "/a");
        write(&file, &bytes, 0);
        file.sync_all().unwrap();
        let all = CrashOptions { from: device.position(), ..CrashOptions::default() };
        world.every_crash(&device, all, |fs, _| assert!(read(fs, "/a").unwrap() == bytes));
        drop(file);
        fs.unmount().unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        assert!(read(&fs, "/a").unwrap() == bytes);
    }
}

#[test]
fn an_overwrite_of_a_block_that_is_committing_is_of_the_next_transaction() {
    let world = World::new("committing");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    let device = Arc::new(GateDevice::new(RecordingDevice::from_image(&image)));
    let fs = mount(&device, journal()).unwrap();
    let file = open(&fs, "/a");
    file.sync_all().unwrap();
    let from = device.inner().position();
    write(&file, &[1; 8192], 0);
    device.hold_next(OperationKind::Write);
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| file.sync_all().unwrap());
        device.wait_held();
        // Neither waits for the device: the commit has its own share of the bytes.
        write(&file, &[2; 100], 50);
        write(&file, &[2; 4096], 4096);
        device.open();
        synced.join().unwrap();
    });
    file.sync_all().unwrap();
    let old = vec![1; 8192];
    let new = [vec![1; 50], vec![2; 100], vec![1; 3946], vec![2; 4096]].concat();
    assert!(read(&fs, "/a").unwrap() == new);
    let seen = Cell::new((0, 0));
    world.every_crash(device.inner(), few(from), |fs, _| {
        let (olds, news) = seen.get();
        match read(fs, "/a").unwrap() {
            bytes if bytes == old => seen.set((olds + 1, news)),
            bytes if bytes == new => seen.set((olds, news + 1)),
            bytes => assert!(bytes.is_empty(), "a mixture"),
        }
    });
    assert!(seen.get().0 > 0 && seen.get().1 > 0, "{seen:?}");
}

#[test]
fn a_file_larger_than_the_journal_goes_round_it() {
    let world = World::new("wrap");
    for format in [&["-b", "1024", "-J", "size=1"][..], &["-b", "4096", "-J", "size=4"]] {
        let Some(image) = world.mkfs(32, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, journal().cache_bytes(1 << 20)).unwrap();
        let file = open(&fs, "/a");
        let piece = |n: u8| vec![n + 1; 1 << 20];
        for n in 0..12 {
            write(&file, &piece(n), u64::from(n) << 20);
        }
        write(&file, &[0xAA; 100], 5 << 20);
        file.sync_all().unwrap();
        let crashed = device.inner().snapshot();
        world.recovers(&crashed, "wrapped", |fs| {
            let bytes = read(fs, "/a").unwrap();
            for n in 0..12 {
                let at = usize::from(n) << 20;
                let from = at + if n == 5 { 100 } else { 0 };
                assert!(bytes[from..at + (1 << 20)].iter().all(|byte| *byte == n + 1), "{n}");
            }
            assert!(bytes[5 << 20..][..100] == [0xAA; 100]);
        });
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(device.inner()).unwrap();
    }
}

/// Uses the blocks of a journaled file again, for plain data: a replay must not write over that.
fn reuse(free: impl Fn(&Filesystem)) {
    let world = World::new("revoke");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, placed()).unwrap();
    let (file, other) = (open(&fs, "/a"), open(&fs, "/b"));
    set_flag(&file, true);
    write(&file, &[1; 100_000], 0);
    file.sync_all().unwrap();
    let places = file.extents().unwrap();
    drop(file);
    free(&fs);
    fs.sync_all().unwrap();
    // All there is, so that the freed blocks are part of it.
    let mut size = 0;
    while let Ok(count) = other.write_at(&[2; 65_536], size) {
        size += u64::try_from(count).unwrap();
    }
    other.sync_all().unwrap();
    let was = places[0].physical.unwrap();
    let has = |run: &extant::FileExtent| {
        run.physical.is_some_and(|at| (at..at + u64::from(run.len)).contains(&was))
    };
    assert!(other.extents().unwrap().iter().any(has), "it has to get the same blocks");
    let look = |fs: &Filesystem| {
        let bytes = read(fs, "/b").unwrap();
        assert!(u64::try_from(bytes.len()) == Ok(size) && bytes.iter().all(|byte| *byte == 2));
    };
    let options = CrashOptions { from: device.position(), ..few(0) };
    world.every_crash(&device, options, |fs, _| look(fs));
    drop(other);
    fs.unmount().unwrap();
    world.recovers(device.inner(), "unmounted", look);
}

#[test]
fn j7_freed_blocks_of_journaled_data_are_not_replayed_over_plain_data() {
    reuse(|fs| fs.remove_file("/a").unwrap());
    reuse(|fs| open(fs, "/a").set_len(0).unwrap());
    reuse(|fs| open(fs, "/a").change_range(RangeChange::PunchHole, 0, 100_000).unwrap());
}

#[test]
fn j7_a_mount_that_journals_all_data_revokes_nothing() {
    let world = World::new("revokes");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for (options, revokes) in [(journal(), false), (placed(), true)] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/a");
        set_flag(&file, true);
        write(&file, &[1; 20_000], 0);
        fs.create_dir("/d").unwrap();
        fs.sync_all().unwrap();
        file.set_len(0).unwrap();
        fs.remove_dir("/d").unwrap();
        fs.sync_all().unwrap();
        let log = world.debugfs(&device, "logdump -a");
        assert_eq!(log.contains("revoke block"), revokes, "{log}");
    }
}

#[test]
fn freed_blocks_are_used_again_where_nothing_is_revoked() {
    let world = World::new("reused");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal().process(3)).unwrap();
    let from = device.position();
    for round in 1..8 {
        let path = format!("/{round}");
        let file = open(&fs, &path);
        write(&file, &[round; 60_000], 0);
        file.sync_all().unwrap();
        // Zeros that save a split of what was set aside over blocks that the log has older versions of.
        file.change_range(RangeChange::Allocate { keep_size: false }, 60_000, 30_000).unwrap();
        write(&file, &[round; 1024], 70_656);
        fs.sync_all().unwrap();
        drop(file);
        if round % 3 > 0 {
            fs.remove_file(&path).unwrap();
        }
    }
    world.every_crash(&device, few(from), |fs, _| {
        for round in 1..8 {
            let Ok(bytes) = read(fs, &format!("/{round}")) else { continue };
            assert!(bytes.iter().all(|byte| [0, round].contains(byte)), "{round}");
        }
    });
}

#[test]
fn what_is_zeroed_to_save_a_split_is_zeroed_in_the_log() {
    let world = World::new("zeros");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[1; 16_384], 0);
    file.sync_all().unwrap();
    // The log has the blocks as they were; they read as zeros, and then one of them is written.
    file.change_range(RangeChange::Zero { keep_size: false }, 0, 16_384).unwrap();
    write(&file, &[2; 1024], 3072);
    assert!(file.extents().unwrap().iter().all(|run| run.state == FileExtentState::Written));
    let expected = [vec![0; 3072], vec![2; 1024], vec![0; 12_288]].concat();
    file.sync_all().unwrap();
    assert!(read(&fs, "/a").unwrap() == expected);
    let all = CrashOptions { from: device.position(), ..CrashOptions::default() };
    world.every_crash(&device, all, |fs, _| assert!(read(fs, "/a").unwrap() == expected));
    drop(file);
    fs.unmount().unwrap();
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    assert!(read(&fs, "/a").unwrap() == expected);
}

#[test]
fn turning_the_flag_off_leaves_nothing_in_the_log() {
    let world = World::new("off");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, placed()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[1; 10_000], 0);
    set_flag(&file, true);
    write(&file, &[2; 10_000], 0);
    file.sync_all().unwrap();
    write(&file, &[3; 10_000], 0);
    set_flag(&file, false);
    let from = device.position();
    write(&file, &[4; 10_000], 0);
    file.sync_all().unwrap();
    let synced = device.position();
    let options = CrashOptions { from, all_subsets_up_to: 3, samples: 16, tears: 2, seed: 1 };
    world.every_crash(&device, options, |fs, completed| {
        let bytes = read(fs, "/a").unwrap();
        let may = if completed >= synced { &[4][..] } else { &[3, 4] };
        assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| may.contains(byte)));
        let flags = fs.open("/a").unwrap().metadata().unwrap().flags;
        assert!(!flags.contains(InodeFlags::JOURNAL_DATA), "it is durable when the call returns");
    });
    assert_eq!(device.inner().read_vec(home(&fs, &file), 10_000).unwrap(), [4; 10_000]);
}

#[test]
fn turning_the_flag_on_writes_what_was_delayed_or_unwritten_first() {
    let world = World::new("on");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for options in [MountOptions::new(), placed()] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/a");
        file.change_range(RangeChange::Allocate { keep_size: false }, 0, 8192).unwrap();
        write(&file, &[1; 3000], 1000);
        write(&file, &[1; 3000], 9000);
        set_flag(&file, true);
        assert!(file.extents().unwrap().iter().all(|run| run.state != FileExtentState::Delayed));
        write(&file, &[2; 3000], 2000);
        file.sync_all().unwrap();
        let expected: Vec<u8> = (0..12_000)
            .map(|n| match n {
                2000..5000 => 2,
                1000..4000 | 9000..12_000 => 1,
                _ => 0,
            })
            .collect();
        assert!(read(&fs, "/a").unwrap() == expected);
        world.recovers(&device.snapshot(), "crashed", |fs| {
            assert!(read(fs, "/a").unwrap() == expected);
        });
    }
}

#[test]
fn d8_8_a_write_that_finds_no_space_half_way_leaves_zeros() {
    let world = World::new("half");
    let Some(image) = world.mkfs(4, &["-b", "1024", "-m", "0"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let from = device.position();
    for n in 0..2 {
        let file = open(&fs, &format!("/{n}"));
        // Each page in the middle of a hole, and one that has no room for all of its blocks.
        let mut at = 300;
        while file.write_at(&[7; 3500], at).is_ok() {
            at += 8192;
        }
        file.sync_all().unwrap();
        file.set_len(at + 40_000).unwrap();
        file.sync_all().unwrap();
    }
    world.every_crash(&device, few(from), |fs, _| {
        assert_not_stale(fs, "/0");
        assert_not_stale(fs, "/1");
    });
}

#[test]
fn zeroed_edges_are_part_of_the_transaction_that_shows_them() {
    let world = World::new("edges");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[1; 20_000], 0);
    file.sync_all().unwrap();
    file.set_len(5000).unwrap();
    file.set_len(20_000).unwrap();
    file.change_range(RangeChange::PunchHole, 1000, 2000).unwrap();
    write(&file, &[2; 100], 21_000);
    file.sync_all().unwrap();
    let expected: Vec<u8> = (0..21_100)
        .map(|n| match n {
            0..1000 | 3000..5000 => 1,
            21_000.. => 2,
            _ => 0,
        })
        .collect();
    let all = CrashOptions { from: device.position(), ..CrashOptions::default() };
    world.every_crash(&device, all, |fs, _| assert!(read(fs, "/a").unwrap() == expected));
}

#[test]
fn d21_1_direct_io_goes_through_the_cache() {
    let world = World::new("direct");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let options = OpenOptions::new().read(true).write(true).create(true).direct(true);
    let file = fs.open_with("/a", options).unwrap();
    let from = device.position();
    write(&file, &[1; 8192], 0);
    write(&file, &[2; 5], 100); // which past the cache would be no whole sector
    assert_eq!(writes_to(&device, from, home(&fs, &file)), 0);
    let mut bytes = [0; 10];
    assert_eq!(file.read_at(&mut bytes, 97).unwrap(), 10);
    assert_eq!(bytes, [1, 1, 1, 2, 2, 2, 2, 2, 1, 1]);
}

#[test]
fn d19_2_a_store_is_part_of_a_transaction() {
    let world = World::new("store");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal()).unwrap();
    let file = open(&fs, "/a");
    file.set_len(10_000).unwrap();
    let from = device.position();
    assert_eq!(file.store_at(&[7; 200], 5000).unwrap(), 200);
    file.store_at(&[8; 100], 5100).unwrap();
    let at = file.extents().unwrap()[0].physical.unwrap() * 1024;
    file.sync_data().unwrap();
    assert_eq!(writes_to(&device, from, at), 0);
    let expected = [vec![0; 5000], vec![7; 100], vec![8; 100], vec![0; 4800]].concat();
    let all = CrashOptions { from: device.position(), ..CrashOptions::default() };
    world.every_crash(&device, all, |fs, _| assert!(read(fs, "/a").unwrap() == expected));
}

#[test]
fn what_left_the_cache_before_it_was_home_is_read_from_the_journal() {
    let world = World::new("reads");
    let Some(image) = world.mkfs(48, &["-b", "1024", "-J", "size=16"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, journal().cache_bytes(1 << 20)).unwrap();
    let file = open(&fs, "/a");
    let from = device.position();
    write(&file, &[1; 1 << 20], 0);
    file.sync_all().unwrap();
    // Moved, so that memory forgets it, and pushed out by others.
    file.change_range(RangeChange::Collapse, 0, 4096).unwrap();
    let other = open(&fs, "/b");
    write(&other, &[2; 3 << 20], 0);
    let at = file.extents().unwrap()[0].physical.unwrap() * 1024;
    assert!(read(&fs, "/a").unwrap() == vec![1; (1 << 20) - 4096]);
    assert_eq!(writes_to(&device, from, at), 0, "so it is not there");
    assert_eq!(device.inner().read_vec(at, 1024).unwrap(), [STALE; 1024]);
}
