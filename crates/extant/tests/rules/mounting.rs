//! What a mount checks, marks and refuses; what an unmount leaves.

use std::sync::Arc;

use extant::time::Clock;
use extant::{Errno, Error, MountOptions};
use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_testkit::{CountingDevice, RecordingDevice};

use crate::world::{StillClock, World, mount, mount_at, open, read, write};

#[test]
fn a_read_only_mount_changes_nothing_and_reads_through_the_log() {
    let world = World::new("through");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    write(&file, &[7; 5000], 0);
    file.sync_all().unwrap();
    drop((file, fs));
    let recorded = Arc::new(RecordingDevice::from_image(&device));
    let fs = mount(&recorded, MountOptions::read_only()).unwrap();
    assert!(read(&fs, "/f").unwrap() == [7; 5000]);
    assert_eq!(fs.create("/g").unwrap_err().errno(), Errno::ROFS);
    assert_eq!(fs.remove_file("/f").unwrap_err().errno(), Errno::ROFS);
    assert_eq!(fs.set_permissions("/f", 0o600).unwrap_err().errno(), Errno::ROFS);
    assert_eq!(fs.set_xattr("/f", "user.a", "b").unwrap_err().errno(), Errno::ROFS);
    assert_eq!(fs.rename("/f", "/g").unwrap_err().errno(), Errno::ROFS);
    fs.open("/f").unwrap().sync_all().unwrap();
    fs.tick().unwrap();
    fs.sync_all().unwrap();
    fs.unmount().unwrap();
    assert_eq!(recorded.position(), 0, "a read-only mount wrote");
}

#[test]
fn a_device_that_may_not_be_written_is_mounted_read_only() {
    let world = World::new("protected");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(image.with_read_only(true));
    let fs = mount(&device, MountOptions::new()).unwrap();
    assert_eq!(fs.create("/g").unwrap_err().errno(), Errno::ROFS);
    fs.unmount().unwrap();
}

#[test]
fn j9_4_a_cut_that_a_mount_finishes_changes_the_file_then() {
    let world = World::new("cut");
    for format in [&["-O", "^orphan_file"][..], &["-O", "^extent,^64bit,^orphan_file"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 50_000], 0);
        let number = file.metadata().unwrap().inode.get();
        drop(file);
        fs.unmount().unwrap();
        let cut = format!("sif /f size 5000\nssv last_orphan {number}\n");
        let device = Arc::new(world.changed_by_debugfs(&device, &cut));
        let clock = Arc::new(StillClock::default());
        clock.advance(1000);
        let fs = mount_at(&device, MountOptions::new(), &clock).unwrap();
        let found = fs.metadata("/f").unwrap();
        let now = clock.wall();
        assert_eq!((found.modified, found.changed, found.size), (now, now, 5000), "{format:?}");
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn an_unmounted_volume_refuses_changes_and_a_second_unmount_does_nothing() {
    let world = World::new("twice");
    for format in [&[][..], &["-O", "^has_journal"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 5000], 0);
        fs.clone().unmount().unwrap();
        let after = device.position();
        assert_eq!(file.write_at(b"x", 0).unwrap_err().errno(), Errno::ROFS);
        assert_eq!(file.set_len(1).unwrap_err().errno(), Errno::ROFS);
        assert_eq!(fs.create_dir("/d").unwrap_err().errno(), Errno::ROFS);
        let mut bytes = [0; 5000];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 5000);
        assert!(bytes == [7; 5000]);
        drop(file);
        fs.sync_all().unwrap();
        fs.tick().unwrap();
        fs.clone().unmount().unwrap();
        drop(fs);
        assert_eq!(device.position(), after, "something was written after the unmount");
        world.e2fsck(device.inner()).unwrap();
    }
}

#[test]
fn an_unmount_frees_files_without_names_that_are_still_open() {
    let world = World::new("nameless");
    for format in [&[][..], &["-O", "^orphan_file"], &["-O", "^has_journal"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 5000], 0);
        fs.remove_file("/f").unwrap();
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap_or_else(|said| panic!("{format:?}: {said}"));
        drop(file);
        world.e2fsck(&device).unwrap_or_else(|said| panic!("{format:?}: {said}"));
    }
}

#[test]
fn a_truncated_image_is_refused() {
    let world = World::new("short");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let mut image = image;
    image.set_len(7 << 20);
    let error = mount(&Arc::new(image), MountOptions::new()).unwrap_err();
    assert_eq!(error.errno(), Errno::UCLEAN);
}

/// One flipped bit, and what a mount says to it.
fn mount_flipped(image: &MemoryDevice, at: u64, options: MountOptions) -> Result<(), Error> {
    let image = image.snapshot();
    let start = at / 512 * 512;
    let mut sector = image.read_vec(start, 512).unwrap();
    sector[usize::try_from(at - start).unwrap()] ^= 1;
    image.write_bytes(start, &sector).unwrap();
    mount(&Arc::new(image), options).map(drop)
}

#[test]
fn a_mount_checks_the_sums_of_superblock_descriptors_and_journal() {
    let world = World::new("sums");
    let Some(image) = world.mkfs(8, &["-b", "4096"]) else { return };
    // The journal has sums once it was written.
    let image = Arc::new(image);
    let fs = mount(&image, MountOptions::new()).unwrap();
    fs.create_dir("/d").unwrap();
    fs.unmount().unwrap();
    let errno = |at, options| mount_flipped(&image, at, options).map_err(|error| error.errno());
    // The label.
    assert_eq!(errno(1024 + 0x78, MountOptions::new()), Err(Errno::BADMSG));
    // The first group's count of free blocks; readers need not care.
    assert_eq!(errno(4096 + 0x0C, MountOptions::new()), Err(Errno::BADMSG));
    assert_eq!(errno(4096 + 0x0C, MountOptions::read_only()), Ok(()));
    // The journal's superblock.
    let journal = world.debugfs(&image, "blocks <8>");
    let first: u64 = journal.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(errno(first * 4096 + 0x90, MountOptions::new()).unwrap_err(), Errno::BADMSG);
}

#[test]
fn an_unclean_volume_without_a_journal_is_not_marked_clean_by_an_unmount() {
    let world = World::new("unclean");
    let Some(image) = world.mkfs(8, &["-O", "^has_journal"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    fs.create_dir("/d").unwrap();
    fs.sync_all().unwrap();
    drop(fs);
    assert!(!world.debugfs(&device, "stats").contains("state:         clean"));
    mount(&device, MountOptions::new()).unwrap().unmount().unwrap();
    assert!(!world.debugfs(&device, "stats").contains("state:         clean"));
}

#[test]
fn errors_that_were_noted_stay_noted() {
    let world = World::new("noted");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let image = world.changed_by_debugfs(&image, "ssv state 3\n");
    let device = Arc::new(image);
    mount(&device, MountOptions::new()).unwrap().unmount().unwrap();
    let info = world.debugfs(&device, "stats");
    assert!(info.contains("clean with errors"), "{info}");
}

#[test]
fn a_mount_marks_the_image_as_in_use_before_anything_else() {
    let world = World::new("marked");
    for (format, mark) in [(&[][..], "needs_recovery"), (&["-O", "^has_journal"], "not clean")] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        drop(mount(&device, MountOptions::new()).unwrap());
        let log = device.log();
        let lost = log.crash_at(log.events().len(), |_| extant_testkit::Kept::Nothing);
        let info = world.debugfs(&lost, "stats");
        assert!(info.contains(mark), "{format:?}: {info}");
    }
}

#[test]
fn a_clean_mount_and_unmount_costs_few_writes() {
    let world = World::new("cheap");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(CountingDevice::new(image));
    mount(&device, MountOptions::new()).unwrap().unmount().unwrap();
    let counts = device.counts();
    assert!(counts.writes <= 4, "{counts:?}");
}
