//! What has been promised to be on the device is there after a crash.

use std::sync::Arc;

use extant::{DataMode, Filesystem, MountOptions};
use extant_device::MemoryDevice;
use extant_testkit::{CrashOptions, RecordingDevice};

use crate::world::{World, mount, open, read, write};

/// The ways in which data gets its place.
fn modes() -> [MountOptions; 5] {
    [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().unwritten_until_done(false).data_mode(DataMode::Writeback),
        MountOptions::new().data_mode(DataMode::Journal),
    ]
}

/// Runs `script` on a fresh image in each mode; after it, every crash image has to satisfy `look`.
fn durable_after(name: &str, script: impl Fn(&Filesystem), look: impl Fn(&Filesystem)) {
    let world = World::new(name);
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let fast = ["-b", "1024", "-O", "fast_commit", "-J", "fast_commit_size=32"];
    let Some(fast) = world.mkfs(8, &fast) else { return };
    let everywhere = [&image, &fast].map(|image| modes().map(|options| (image, options)));
    for (image, options) in everywhere.into_iter().flatten() {
        let device = Arc::new(RecordingDevice::from_image(image));
        let fs = mount(&device, options).unwrap();
        // The first of a mount commits in full.
        open(&fs, "/first").sync_all().unwrap();
        script(&fs);
        drop(fs);
        let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
        world.every_crash(&device, options, |fs, _| look(fs));
    }
}

#[test]
fn fsync_makes_bytes_and_name_durable() {
    durable_after(
        "fsync",
        |fs| {
            fs.create_dir("/d").unwrap();
            let file = open(fs, "/d/f");
            write(&file, &[7; 5000], 0);
            file.sync_all().unwrap();
        },
        |fs| assert!(read(fs, "/d/f").unwrap() == [7; 5000]),
    );
}

#[test]
fn fdatasync_makes_a_longer_size_durable() {
    durable_after(
        "fdatasync",
        |fs| {
            let file = open(fs, "/f");
            write(&file, &[7; 3000], 0);
            file.sync_all().unwrap();
            write(&file, &[8; 2000], 3000);
            file.sync_data().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [[7; 3000].as_slice(), &[8; 2000]].concat()),
    );
}

#[test]
fn fdatasync_makes_a_longer_size_within_a_block_durable() {
    durable_after(
        "within",
        |fs| {
            let file = open(fs, "/f");
            write(&file, &[7; 100], 0);
            file.sync_all().unwrap();
            write(&file, &[8; 100], 100);
            file.sync_data().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [[7; 100], [8; 100]].concat()),
    );
}

#[test]
fn fsync_flushes_overwritten_blocks_though_there_is_nothing_to_commit() {
    durable_after(
        "overwrite",
        |fs| {
            let file = open(fs, "/f");
            write(&file, &[7; 5000], 0);
            file.sync_all().unwrap();
            fs.sync_all().unwrap();
            write(&file, &[8; 5000], 0);
            file.sync_all().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [8; 5000]),
    );
}

#[test]
fn sync_flushes_overwritten_blocks_though_there_is_nothing_to_commit() {
    durable_after(
        "syncfs",
        |fs| {
            let file = open(fs, "/f");
            write(&file, &[7; 5000], 0);
            fs.sync_all().unwrap();
            write(&file, &[8; 5000], 0);
            fs.sync_all().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [8; 5000]),
    );
}

#[test]
fn fsync_of_a_file_that_only_grew_makes_its_size_durable() {
    durable_after(
        "grown",
        |fs| {
            let file = open(fs, "/f");
            file.sync_all().unwrap();
            file.set_len(5000).unwrap();
            file.sync_data().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [0; 5000]),
    );
}

#[test]
fn fsync_of_a_cut_file_makes_the_cut_durable() {
    durable_after(
        "cut",
        |fs| {
            let file = open(fs, "/f");
            write(&file, &[7; 5000], 0);
            file.sync_all().unwrap();
            file.set_len(1500).unwrap();
            file.sync_all().unwrap();
            file.set_len(3000).unwrap();
            file.sync_all().unwrap();
        },
        |fs| assert!(read(fs, "/f").unwrap() == [[7; 1500], [0; 1500]].concat()),
    );
}

#[test]
fn fsync_waits_for_attributes_and_fdatasync_does_not() {
    durable_after(
        "mode",
        |fs| {
            let file = open(fs, "/f");
            file.sync_all().unwrap();
            fs.set_permissions("/f", 0o600).unwrap();
            file.sync_all().unwrap();
        },
        |fs| assert_eq!(fs.metadata("/f").unwrap().mode & 0o7777, 0o600),
    );
    let world = World::new("datasync");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    file.sync_all().unwrap();
    let commits = fs.counters().commits;
    fs.set_permissions("/f", 0o600).unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs.counters().commits, commits);
}

#[test]
fn an_unmounted_image_is_durable_and_clean() {
    let world = World::new("unmount");
    for format in [&["-b", "1024"][..], &["-b", "4096"], &["-O", "^has_journal"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        write(&open(&fs, "/f"), &[7; 5000], 0);
        fs.remove_dir("/lost+found").unwrap();
        fs.unmount().unwrap();
        let log = device.log();
        let lost = log.crash_at(log.events().len(), |_| extant_testkit::Kept::Nothing);
        assert!(lost.to_vec() == device.inner().to_vec(), "{format:?}: not all was flushed");
        world.e2fsck(&lost).unwrap();
        let info = world.debugfs(&lost, "stats");
        assert!(info.contains("Filesystem state:         clean"), "{info}");
        assert!(!info.contains("needs_recovery") && !info.contains("orphan_present"), "{info}");
    }
}

#[test]
fn each_step_of_an_unmount_may_be_the_last() {
    let world = World::new("steps");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    write(&file, &[7; 5000], 0);
    file.sync_all().unwrap();
    drop(file);
    let synced = device.position();
    fs.create_dir("/d").unwrap();
    fs.unmount().unwrap();
    // The superblock's sum covers two sectors: its write must not be torn, here as in the kernel.
    let options = CrashOptions { from: synced, samples: 24, tears: 0, ..Default::default() };
    world.every_crash(&device, options, |fs, _| {
        assert!(read(fs, "/f").unwrap() == [7; 5000]);
    });
}

#[test]
fn a_volume_that_was_dropped_recovers_what_was_synced() {
    let world = World::new("dropped");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device: Arc<MemoryDevice> = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    write(&file, &[7; 5000], 0);
    file.sync_all().unwrap();
    drop((file, fs));
    world.recovers(&device, "dropped", |fs| assert!(read(fs, "/f").unwrap() == [7; 5000]));
}

/// D17.1: a commit waits for the data of a file whose number another file had within the same transaction.
#[test]
fn d17_1_a_number_that_is_given_again_stands_for_two_files() {
    let world = World::new("ordered-again");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    for options in [
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().delayed_allocation(false).unwritten_until_done(false),
    ] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let number = {
            let first = open(&fs, "/first");
            write(&first, &[7; 100_000], 0);
            first.inode().number()
        };
        fs.remove_file("/first").unwrap();
        let second = open(&fs, "/second");
        assert_eq!(second.inode().number(), number, "the number is free again");
        write(&second, &[8; 40_960], 0);
        fs.shut_down_after(extant::Shutdown::AfterLog).unwrap();
        drop(second);
        drop(fs);
        world.recovers(&device, "after the commit", |fs| {
            assert!(read(fs, "/second").unwrap().iter().all(|byte| [0, 8].contains(byte)));
        });
    }
}
