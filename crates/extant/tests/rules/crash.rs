//! A crash at any moment leaves an image that recovers: consistent, and nobody sees another's bytes.

use std::sync::Arc;

use extant::{DataMode, Error, MountOptions};
use extant_testkit::{CountingDevice, RecordingDevice};

use crate::world::{STALE, World, assert_not_stale, few, mount, open, read, write};

#[test]
fn a_crash_never_shows_what_was_on_the_device_before() {
    let world = World::new("stale");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for options in [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Journal),
        MountOptions::new().discard(true),
    ] {
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, options).unwrap();
        let from = device.position();
        let file = open(&fs, "/f");
        write(&file, &[7; 20_000], 0);
        let other = open(&fs, "/g");
        write(&other, &[8; 3000], 0);
        other.sync_all().unwrap();
        write(&file, &[9; 700], 30_300);
        fs.sync_all().unwrap();
        file.set_len(500).unwrap();
        file.set_len(9000).unwrap();
        other.sync_all().unwrap();
        fs.sync_all().unwrap();
        world.every_crash(&device, few(from), |fs, _| {
            assert_not_stale(fs, "/f");
            assert_not_stale(fs, "/g");
        });
    }
}

#[test]
fn a_crash_between_unlink_and_the_freeing_of_blocks_loses_no_space() {
    let world = World::new("unlink");
    for format in [&["-b", "1024"][..], &["-b", "1024", "-O", "^orphan_file"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        for n in 0..150 {
            write(&file, &[7; 1024], n * 2048);
        }
        fs.sync_all().unwrap();
        let from = device.position();
        // The last name is gone, the last user not yet.
        fs.remove_file("/f").unwrap();
        fs.sync_all().unwrap();
        drop(file);
        fs.sync_all().unwrap();
        world.every_crash(&device, few(from), |fs, _| match read(fs, "/f") {
            Ok(bytes) => assert_eq!(bytes.len(), 149 * 2048 + 1024),
            Err(error) => assert!(matches!(error, Error::NotFound), "{error}"),
        });
    }
}

#[test]
fn a_crash_within_a_truncate_leaves_the_old_file_or_the_new() {
    let world = World::new("truncate");
    for format in [&["-b", "1024"][..], &["-b", "1024", "-O", "^extent,^64bit"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        for n in 0..400 {
            write(&file, &[7; 1024], n * 2048);
        }
        fs.sync_all().unwrap();
        let from = device.position();
        file.set_len(1500).unwrap();
        fs.sync_all().unwrap();
        world.every_crash(&device, few(from), |fs, _| {
            let bytes = read(fs, "/f").unwrap();
            assert!([1500, 399 * 2048 + 1024].contains(&bytes.len()), "{}", bytes.len());
            assert_eq!(bytes[..1024], [7; 1024]);
            assert_eq!(bytes[1024..1500], [0; 476]);
        });
    }
}

#[test]
fn a_crash_within_a_rename_over_a_file_leaves_the_old_one_or_the_new() {
    let world = World::new("rename");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for options in [MountOptions::new(), MountOptions::new().unwritten_until_done(false)] {
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, options).unwrap();
        fs.create_dir("/a").unwrap();
        let old = open(&fs, "/a/f");
        write(&old, &[1; 5000], 0);
        old.sync_all().unwrap();
        drop(old);
        let from = device.position();
        let new = open(&fs, "/g");
        write(&new, &[2; 6000], 0);
        new.sync_all().unwrap();
        drop(new);
        fs.rename("/g", "/a/f").unwrap();
        fs.sync_all().unwrap();
        world.every_crash(&device, few(from), |fs, _| {
            let bytes = read(fs, "/a/f").unwrap();
            let is_new = bytes == [2; 6000];
            assert!(is_new || bytes == [1; 5000]);
            assert!(
                is_new
                    || read(fs, "/g").is_ok_and(|bytes| !bytes.contains(&STALE))
                    || matches!(fs.metadata("/g"), Err(Error::NotFound))
            );
        });
    }
}

#[test]
fn many_small_transactions_go_round_the_log() {
    let world = World::new("wrap");
    let Some(image) = world.mkfs(16, &["-b", "1024", "-J", "size=1"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let from = device.position();
    for round in 0..60_u32 {
        fs.create_dir(format!("/d{round}")).unwrap();
        for n in 0..12 {
            write(&open(&fs, &format!("/d{round}/f{n}")), &[7; 600], 0);
        }
        if round >= 2 {
            fs.remove_dir_all(format!("/d{}", round - 2)).unwrap();
        }
        fs.sync_all().unwrap();
    }
    let events = device.position() - from;
    let options = extant_testkit::CrashOptions {
        all_subsets_up_to: 0,
        samples: 2,
        tears: 0,
        from: from + events * 9 / 10,
        seed: 3,
    };
    world.every_crash(&device, options, |fs, _| {
        for entry in fs.read_dir("/").unwrap() {
            let name = String::from_utf8(entry.unwrap().name().to_vec()).unwrap();
            if name.starts_with('d') {
                for entry in fs.read_dir(format!("/{name}")).unwrap() {
                    let file = String::from_utf8(entry.unwrap().name().to_vec()).unwrap();
                    assert_not_stale(fs, &format!("/{name}/{file}"));
                }
            }
        }
    });
}

#[test]
fn freed_metadata_is_not_replayed_over_the_data_that_took_its_place() {
    let world = World::new("revoke");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-m", "0"]) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    // Everything is full but for what a directory takes.
    fs.create_dir("/d").unwrap();
    for n in 0..40 {
        fs.create_dir(format!("/d/{n:0200}")).unwrap();
    }
    fs.sync_all().unwrap();
    let filler = open(&fs, "/filler");
    let mut size = 0;
    while let Ok(count) = filler.write_at(&[1; 1 << 16], size) {
        size += u64::try_from(count).unwrap();
        fs.sync_all().unwrap();
    }
    fs.sync_all().unwrap();
    fs.remove_dir_all("/d").unwrap();
    fs.sync_all().unwrap();
    let file = open(&fs, "/f");
    let mut len = 0;
    while let Ok(count) = file.write_at(&[7; 1024], len) {
        len += u64::try_from(count).unwrap();
    }
    file.sync_all().unwrap();
    assert!(len > 30 << 10, "the directory's blocks are used again: {len}");
    let expected = vec![7; usize::try_from(len).unwrap()];
    world.every_crash(&device, few(device.position()), |fs, _| {
        assert!(read(fs, "/f").unwrap() == expected, "the log was replayed over data");
    });
}

/// A run that finds its place in two pieces, with a transaction that is full between them: the first piece is committed
/// alone, and a file must not end before blocks that it has.
#[test]
fn d15_15_the_stored_size_follows_a_run_that_has_its_place_in_part() {
    let world = World::new("parts");
    let format = ["-b", "1024", "-I", "128", "-N", "3200", "-O", "^extent,^64bit", "-J", "size=1"];
    let Some(image) = world.mkfs(8, &format) else { return };
    let image = Arc::new(image);
    let fs = mount(&image, MountOptions::new()).unwrap();
    for n in 0..2700 {
        open(&fs, &format!("/{n}"));
    }
    fs.unmount().unwrap();
    for changed in (296..336).step_by(4) {
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        // Each in a block of the inode table of its own.
        for n in 0..changed {
            fs.set_permissions(format!("/{}", n * 8), 0o600).unwrap();
        }
        let file = open(&fs, "/0");
        write(&file, &[7; 12_691], 3664); // the last direct blocks, and the first behind an indirect one
        let from = device.position();
        file.sync_all().unwrap();
        let each_flush = extant_testkit::CrashOptions {
            from,
            all_subsets_up_to: 0,
            samples: 1,
            tears: 0,
            seed: 0,
        };
        world.every_crash(&device, each_flush, |_, _| ());
    }
}

#[test]
fn m11_1_what_a_commit_frees_is_discarded_after_it() {
    let world = World::new("discard");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    for on in [true, false] {
        let device = Arc::new(CountingDevice::new(image.snapshot()));
        let fs = mount(&device, MountOptions::new().discard(on)).unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 20_000], 0);
        fs.sync_all().unwrap();
        file.set_len(0).unwrap();
        assert_eq!(device.counts().discards, 0, "not committed yet");
        fs.sync_all().unwrap();
        let discarded = device.counts().discarded_bytes;
        assert_eq!(discarded >= 20_480, on, "{discarded}");
    }
}
