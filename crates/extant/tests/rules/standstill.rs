//! Volumes that stand still: frozen, shut down, or with a range written out and nothing promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use extant::{Errno, FileExtentState, MountOptions, RangeSync, Shutdown};

use crate::world::{World, mount, open, read, write};

#[test]
fn a_frozen_image_is_whole_and_clean() {
    let world = World::new("freeze");
    for format in
        [&["-b", "1024"][..], &["-b", "1024", "-O", "^has_journal"], &["-O", "orphan_file"]]
    {
        let Some(image) = world.mkfs(16, format) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        write(&open(&fs, "/a"), &[7; 5000], 0);
        fs.freeze().unwrap();
        let frozen = device.snapshot();
        world.e2fsck(&frozen).unwrap();
        assert!(!world.debugfs(&frozen, "stats").contains("needs_recovery"), "nothing to recover");
        let copy = mount(&Arc::new(frozen), MountOptions::read_only()).unwrap();
        assert_eq!(read(&copy, "/a").unwrap(), [7; 5000]);
        assert_eq!(read(&fs, "/a").unwrap(), [7; 5000], "who reads does not wait");
        assert_eq!(fs.freeze().unwrap_err().errno(), Errno::BUSY);

        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write(&open(&fs, "/b"), &[8; 3000], 0);
                written.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!written.load(Ordering::SeqCst), "a frozen volume lets nobody write");
            fs.thaw().unwrap();
        });
        assert_eq!(fs.thaw().unwrap_err().errno(), Errno::INVAL);
        // It goes on as before, and what is synced survives.
        open(&fs, "/b").sync_all().unwrap();
        world.recovers(&device, "after a thaw", |fs| {
            if format.len() < 4 {
                assert_eq!(read(fs, "/b").unwrap(), [8; 3000]);
            }
        });
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn a_file_that_loses_its_last_user_while_frozen_is_freed_by_the_thaw() {
    let world = World::new("orphan");
    let Some(image) = world.mkfs(16, &["-b", "1024"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let free = fs.statfs().free_inodes;
    let file = open(&fs, "/a");
    write(&file, &[7; 5000], 0);
    fs.remove_file("/a").unwrap();
    fs.freeze().unwrap();
    drop(file);
    assert_eq!(fs.statfs().free_inodes, free - 1);
    fs.thaw().unwrap();
    assert_eq!(fs.statfs().free_inodes, free);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn a_shutdown_saves_what_it_was_asked_to() {
    let world = World::new("shutdown");
    let Some(image) = world.mkfs(16, &["-b", "1024"]) else { return };
    for how in [Shutdown::AfterSync, Shutdown::AfterLog, Shutdown::AtOnce] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/a");
        write(&file, &[7; 5000], 0);
        fs.shut_down_after(how).unwrap();
        assert_eq!(file.write_at(b"x", 0).unwrap_err().errno(), Errno::IO);
        assert_eq!(file.sync_all().unwrap_err().errno(), Errno::IO);
        assert_eq!(fs.create_dir("/d").unwrap_err().errno(), Errno::IO);
        drop((file, fs));
        if how == Shutdown::AfterSync {
            world.e2fsck(&device).unwrap();
        }
        world.recovers(&device, "after a shutdown", |fs| {
            let found = fs.metadata("/a").map(|metadata| metadata.size);
            match how {
                Shutdown::AfterSync => assert_eq!(read(fs, "/a").unwrap(), [7; 5000]),
                Shutdown::AfterLog => assert_eq!(found.unwrap(), 0, "its name, not its data"),
                Shutdown::AtOnce => assert_eq!(found.unwrap_err().errno(), Errno::NOENT),
            }
        });
    }
}

#[test]
fn a_range_written_out_has_its_place_and_no_commit() {
    let world = World::new("range");
    let Some(image) = world.mkfs(16, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &[7; 1 << 20], 0);
    let commits = fs.counters().commits;
    let steps = RangeSync { wait_before: true, write: true, wait_after: true };
    file.sync_range(0..128 << 10, steps).unwrap();
    let states: Vec<_> = file.extents().unwrap().iter().map(|extent| extent.state).collect();
    assert_eq!(states[0], FileExtentState::Written);
    assert_eq!(fs.counters().commits, commits);
    file.sync_data().unwrap();
    assert_eq!(fs.counters().commits, commits + 1);
    // fdatasync waits for no change of times.
    fs.set_times("/a", None, Some(extant_format::Timestamp { seconds: 5, nanoseconds: 0 }))
        .unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs.counters().commits, commits + 1);
    file.sync_all().unwrap();
    assert_eq!(fs.counters().commits, commits + 2);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}
