//! The n-th request fails, n = 1, 2, ..: an errno and never a panic; what is left recovers.

use std::sync::Arc;

use extant::{DataMode, Errno, Error, Filesystem, MountOptions};
use extant_device::{MemoryDevice, OperationKind};
use extant_testkit::{Effect, Fault, FaultDevice};

use crate::world::{World, mount, open, read, write};

/// A bit of everything; stops at the first failure, as a program would.
fn script(fs: &Filesystem) -> Result<(), Error> {
    fs.create_dir("/d")?;
    for n in 0..10 {
        let file = fs.create(format!("/d/{n}"))?;
        file.write_at(&[7; 3000], 0)?;
    }
    let file = open_rw(fs, "/d/big")?;
    for n in 0..40 {
        file.write_at(&[8; 1024], n * 2048)?;
    }
    file.sync_all()?;
    fs.rename("/d/1", "/d/2")?;
    fs.remove_file("/d/3")?;
    file.set_len(5000)?;
    fs.set_xattr("/d/4", "user.a", vec![b'x'; 600])?;
    fs.symlink(vec![b'l'; 200], "/d/link")?;
    fs.sync_all()?;
    let mut bytes = [0; 5000];
    file.read_at(&mut bytes, 0)?;
    fs.read_link("/d/link")?;
    fs.xattr("/d/4", "user.a")?;
    fs.remove_dir_all("/d")?;
    fs.sync_all()
}

fn open_rw(fs: &Filesystem, path: &str) -> Result<extant::File, Error> {
    fs.open_with(path, extant::OpenOptions::new().read(true).write(true).create(true))
}

/// Mount, script, unmount with one fault; `false` once the fault was never reached.
fn run_with(world: &World, image: &MemoryDevice, fault: Fault, options: MountOptions) -> bool {
    let device = Arc::new(FaultDevice::new(image.snapshot()));
    device.add(fault);
    let outcome = mount(&device, options).and_then(|fs| {
        let done = script(&fs);
        let left = fs.unmount();
        done.and(left)
    });
    if let Err(error) = &outcome {
        let errno = error.errno();
        assert!([Errno::IO, Errno::ROFS].contains(&errno), "{fault:?}: {error} is {errno:?}");
    }
    let reached = device.struck() > 0;
    device.heal();
    world.recovers(device.inner(), &format!("{fault:?}, which gave {outcome:?}"), |_| ());
    reached
}

#[test]
fn each_write_may_fail() {
    each(OperationKind::Write);
}

#[test]
fn each_read_may_fail() {
    each(OperationKind::Read);
}

#[test]
fn each_flush_may_fail() {
    each(OperationKind::Flush);
}

fn each(kind: OperationKind) {
    let world = World::new("each");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for options in [
        MountOptions::new(),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Journal),
    ] {
        let reached = (1..)
            .take_while(|&nth| run_with(&world, &image, Fault::fail(kind, nth), options.clone()));
        assert!(reached.count() > 5);
    }
}

#[test]
fn a_device_may_go_away_at_any_moment() {
    let world = World::new("gone");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for options in [MountOptions::new(), MountOptions::new().data_mode(DataMode::Journal)] {
        let reached = (1..)
            .step_by(3)
            .take_while(|&nth| run_with(&world, &image, Fault::gone_from(nth), options.clone()));
        assert!(reached.count() > 10);
    }
}

#[test]
fn fsync_tells_of_a_failed_write_once_and_each_open_file_by_itself() {
    let world = World::new("told");
    let Some(image) = world.mkfs(8, &[]) else { return };
    for options in [MountOptions::new(), MountOptions::new().unwritten_until_done(false)] {
        let device = Arc::new(FaultDevice::new(image.snapshot()));
        let fs = mount(&device, options).unwrap();
        let (a, b) = (open(&fs, "/f"), open(&fs, "/f"));
        fs.sync_all().unwrap();
        write(&a, &[7; 4096], 0);
        device.add(Fault {
            nth: device.seen(Some(OperationKind::Write)) + 1,
            ..Fault::fail(OperationKind::Write, 0)
        });
        assert_eq!(a.sync_all().unwrap_err().errno(), Errno::IO);
        device.heal();
        a.sync_all().unwrap();
        assert_eq!(b.sync_data().unwrap_err().errno(), Errno::IO);
        b.sync_data().unwrap();
        // Nobody sees bytes that were there before.
        assert!(read(&fs, "/f").unwrap().iter().all(|byte| [0, 7].contains(byte)));
        drop((a, b));
        fs.unmount().unwrap();
        world.e2fsck(device.inner()).unwrap();
    }
}

/// What is lost in the background is missing when everything is made durable; as syncfs(2), that call tells of it, once.
#[test]
fn sync_tells_of_a_failed_write_that_nobody_was_told_of() {
    let world = World::new("untold");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(FaultDevice::new(image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/old"), &[7; 4096], 0);
    fs.sync_all().unwrap();
    write(&open(&fs, "/new"), &[8; 4096], 0);
    device.add(Fault::fail(OperationKind::Write, device.seen(Some(OperationKind::Write)) + 1));
    fs.rename("/new", "/old").unwrap(); // which starts the writeback that fails
    assert_eq!(device.struck(), 1);
    assert_eq!(fs.sync_all().unwrap_err().errno(), Errno::IO);
    fs.sync_all().unwrap();
    fs.unmount().unwrap();
}

#[test]
fn a_superblock_that_is_misread_once_does_not_go_back_to_the_device() {
    let world = World::new("misread");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for nth in 1.. {
        let device = Arc::new(FaultDevice::new(image.snapshot()));
        // The second byte of the revision, where the block is the superblock's.
        let effect = Effect::Corrupt { byte: 77, flip: 16 };
        device.add(Fault { effect, ..Fault::fail(OperationKind::Read, nth) });
        // It may fail, and who asked is told then.
        let _ = mount(&device, MountOptions::new()).and_then(|fs| {
            let _ = script(&fs);
            fs.unmount()
        });
        if device.struck() == 0 {
            assert!(nth > 5);
            return;
        }
        device.heal();
        if let Err(error) = mount(&device, MountOptions::new()) {
            panic!("read {nth} was wrong, and then: {error}");
        }
    }
}

#[test]
fn a_failed_commit_stops_all_changes_and_the_next_mount_knows() {
    let world = World::new("stopped");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(FaultDevice::new(image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    fs.create_dir("/before").unwrap();
    fs.sync_all().unwrap();
    fs.create_dir("/after").unwrap();
    device.add(Fault::fail(OperationKind::Write, device.seen(Some(OperationKind::Write)) + 1));
    assert_eq!(fs.sync_all().unwrap_err().errno(), Errno::IO);
    device.heal();
    for outcome in [fs.create_dir("/x"), fs.remove_dir("/before"), fs.sync_all()] {
        assert_eq!(outcome.unwrap_err().errno(), Errno::ROFS);
    }
    assert_eq!(fs.create("/f").unwrap_err().errno(), Errno::ROFS);
    fs.metadata("/before").unwrap();
    assert!(fs.unmount().is_err());
    let image = device.inner().snapshot();
    let next = Arc::new(image.snapshot());
    let fs = mount(&next, MountOptions::new()).unwrap();
    fs.metadata("/before").unwrap();
    assert!(matches!(fs.metadata("/after"), Err(Error::NotFound)));
    fs.unmount().unwrap();
    assert!(world.debugfs(&next, "stats").contains("clean with errors"));
    assert!(
        world.debugfs(&next, "logdump -S").contains("Journal errno:            0")
            || !world.debugfs(&next, "logdump -S").contains("Journal errno")
    );
}

#[test]
fn a_failure_that_nobody_was_told_of_is_told_to_the_next_who_opens_the_file() {
    let world = World::new("untold");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(FaultDevice::new(image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let keeps_it_in_memory = open(&fs, "/f");
    fs.sync_all().unwrap();
    let file = open(&fs, "/f");
    write(&file, &[7; 4096], 0);
    device.add(Fault::fail(OperationKind::Write, device.seen(Some(OperationKind::Write)) + 1));
    assert!(fs.sync_all().is_err());
    device.heal();
    drop(file);
    let later = open(&fs, "/f");
    assert_eq!(later.sync_all().unwrap_err().errno(), Errno::IO);
    later.sync_all().unwrap();
    open(&fs, "/f").sync_all().unwrap();
    drop(keeps_it_in_memory);
}

#[test]
fn one_failed_write_does_not_keep_the_rest_from_being_made_durable() {
    let world = World::new("rest");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let device = Arc::new(FaultDevice::new(image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/bad"), &[7; 4096], 0);
    write(&open(&fs, "/good"), &[8; 4096], 0);
    device.add(Fault::fail(OperationKind::Write, device.seen(Some(OperationKind::Write)) + 1));
    assert_eq!(fs.sync_all().unwrap_err().errno(), Errno::IO);
    device.heal();
    world.recovers(device.inner(), "after a failed sync", |fs| {
        assert!(read(fs, "/good").unwrap() == [8; 4096]);
    });
}

#[test]
fn damage_is_refused_not_believed() {
    let world = World::new("damage");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for nth in 1.. {
        let device = Arc::new(FaultDevice::new(image.snapshot()));
        let effect = Effect::Corrupt { byte: nth * 37, flip: 0x10 };
        device.add(Fault { effect, ..Fault::fail(OperationKind::Read, nth) });
        let outcome = mount(&device, MountOptions::new()).and_then(|fs| {
            let done = script(&fs);
            let left = fs.unmount();
            done.and(left)
        });
        if device.struck() == 0 {
            break;
        }
        if let Err(error) = outcome {
            let errno = error.errno();
            // A group whose bitmap is damaged is set aside, and with it its space.
            let known = [
                Errno::IO,
                Errno::ROFS,
                Errno::BADMSG,
                Errno::UCLEAN,
                Errno::OPNOTSUPP,
                Errno::NOSPC,
            ];
            assert!(known.contains(&errno), "{nth}: {error} is {errno:?}");
        }
    }
}
