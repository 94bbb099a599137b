//! Fast commits as they are written: when, of what, and that what they promise is there after a crash.

use std::sync::Arc;

use extant::{
    FastCommitStats, File, Filesystem, Ineligible, MountOptions, OpenOptions, RangeChange,
    SetAttributes,
};
use extant_device::MemoryDevice;
use extant_format::InodeFlags;
use extant_testkit::{CrashOptions, RecordingDevice};

use crate::world::{StillClock, World, few, mount, mount_at, open, read, write};

/// A volume with fast commits, of which the first full commit is over: `/f` with `bytes` bytes, synced.
fn prepared<D: extant_device::BlockDevice + 'static>(
    device: &Arc<D>,
    bytes: usize,
) -> (Filesystem, File) {
    let fs = mount(device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    write(&file, &vec![1; bytes], 0);
    file.sync_all().unwrap();
    (fs, file)
}

fn stats(fs: &Filesystem) -> FastCommitStats {
    fs.kernel_counters().fc_info.expect("the volume has them")
}

/// What `change` adds to the statistics.
fn added(fs: &Filesystem, change: impl FnOnce()) -> FastCommitStats {
    let before = stats(fs);
    change();
    let after = stats(fs);
    let mut reasons = after.reasons;
    reasons.iter_mut().zip(before.reasons).for_each(|(after, before)| *after -= before);
    FastCommitStats {
        commits: after.commits - before.commits,
        ineligible: after.ineligible - before.ineligible,
        blocks: after.blocks - before.blocks,
        reasons,
        ..after
    }
}

const FAST: [&str; 4] = ["-b", "1024", "-O", "fast_commit"];

#[test]
fn j10_1_the_first_fsync_of_a_mount_commits_in_full_and_the_next_does_not() {
    let world = World::new("fc-first");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(image);
    let (fs, file) = prepared(&device, 100);
    let first = stats(&fs);
    assert_eq!((first.commits, first.ineligible, fs.counters().commits), (0, 1, 1));
    let next = added(&fs, || {
        write(&file, &[2; 100], 100);
        file.sync_all().unwrap();
    });
    assert_eq!((next.commits, next.blocks, next.ineligible), (1, 1, 0));
    assert_eq!(fs.counters().commits, 1);
    // Nothing was done since.
    assert_eq!(added(&fs, || file.sync_all().unwrap()).commits, 0);
}

#[test]
fn volumes_without_the_feature_and_mounts_that_do_not_want_them_have_none() {
    let world = World::new("fc-none");
    let Some(plain) = world.mkfs(8, &["-b", "1024"]) else { return };
    let Some(fast) = world.mkfs(8, &FAST) else { return };
    let Some(clusters) = world.mkfs(8, &["-b", "1024", "-O", "fast_commit,bigalloc", "-C", "4096"])
    else {
        return;
    };
    let journaled = MountOptions::new().data_mode(extant::DataMode::Journal);
    for (image, options) in [
        (&plain, MountOptions::new()),
        (&fast, MountOptions::new().fast_commits(false)),
        (&fast, journaled),
        (&clusters, MountOptions::new()),
    ] {
        let fs = mount(&Arc::new(image.snapshot()), options).unwrap();
        assert_eq!(fs.kernel_counters().fc_info, None);
    }
}

#[test]
fn appends_with_fsync_take_a_block_of_the_journal_each() {
    let world = World::new("fc-append");
    let Some(fast) =
        world.mkfs(32, &["-b", "4096", "-O", "fast_commit", "-J", "fast_commit_size=1024"])
    else {
        return;
    };
    let per_append = |options: MountOptions| {
        let fs = mount(&Arc::new(fast.snapshot()), options).unwrap();
        let file = open(&fs, "/f");
        file.sync_all().unwrap();
        let before = fs.counters();
        for nth in 0..1000 {
            write(&file, &[7; 512], nth * 512);
            file.sync_all().unwrap();
        }
        let after = fs.counters();
        (
            after.journal_blocks - before.journal_blocks,
            after.flushes - before.flushes,
            after.device_write_bytes - before.device_write_bytes,
            after.commits - before.commits,
            fs.kernel_counters().fc_info,
        )
    };
    let with = per_append(MountOptions::new());
    let without = per_append(MountOptions::new().fast_commits(false));
    println!("journal blocks, flushes, bytes written: {with:?} with, {without:?} without");
    assert!(with.0 < 1_050, "{with:?}");
    assert!(without.0 >= 3_000, "{without:?}");
}

#[test]
fn j10_5_each_reason_makes_a_full_commit_and_is_counted() {
    let world = World::new("fc-reasons");
    let Some(image) = world.mkfs(16, &["-b", "1024", "-O", "fast_commit,inline_data", "-I", "256"])
    else {
        return;
    };
    let (fs, file) = prepared(&Arc::new(image), 8192);
    fs.create_dir("/d").unwrap();
    fs.create_dir("/e").unwrap();
    let small = open(&fs, "/small");
    write(&small, &[3; 20], 0);
    fs.sync_all().unwrap();
    let handle = fs.inode("/f").unwrap();
    let d = fs.inode("/d").unwrap();
    let with_flags = |flags| SetAttributes { flags: Some(flags), ..SetAttributes::default() };
    let plain = handle.metadata().unwrap().flags;
    let cases: [(Ineligible, &dyn Fn()); 10] = [
        (Ineligible::Attributes, &|| fs.set_xattr("/f", "user.a", "b").unwrap()),
        (Ineligible::Attributes, &|| fs.remove_xattr("/f", "user.a").unwrap()),
        (Ineligible::Attributes, &|| {
            write(&small, &[4; 4000], 20);
            small.sync_all().unwrap();
        }),
        (Ineligible::RenameDirectory, &|| fs.rename("/d", "/e/d").unwrap()),
        (Ineligible::ShiftRange, &|| file.change_range(RangeChange::Insert, 1024, 1024).unwrap()),
        (Ineligible::ShiftRange, &|| file.change_range(RangeChange::Collapse, 0, 1024).unwrap()),
        (Ineligible::JournalFlag, &|| {
            handle.set_attributes(&with_flags(plain | InodeFlags::JOURNAL_DATA)).unwrap();
        }),
        (Ineligible::JournaledData, &|| fs.symlink("target", "/link").unwrap()),
        (Ineligible::Unrecordable, &|| fs.create_dir("/new").unwrap()),
        (Ineligible::Unrecordable, &|| {
            d.set_attributes(&SetAttributes { mode: Some(0o700), ..Default::default() }).unwrap();
        }),
    ];
    for (number, (reason, change)) in (0..).zip(&cases) {
        let commits = fs.counters().commits;
        let seen = added(&fs, || {
            change();
            // Of any file: it may take what others did with it.
            let one = open(&fs, "/one");
            write(&one, &[6; 10], number * 5000);
            one.sync_all().unwrap();
        });
        assert!(seen.reasons[reason.index()] > 0, "{number}: {reason:?}: {seen:?}");
        // The flag is stored by a commit of its own.
        let is_asked = *reason != Ineligible::JournalFlag;
        assert!(seen.ineligible > 0 || !is_asked, "{number}: {seen:?}");
        assert!(fs.counters().commits > commits, "{number}");
        // And then again fast.
        let seen = added(&fs, || {
            let one = open(&fs, "/one");
            write(&one, &[7; 2000], number * 5000);
            one.sync_all().unwrap();
            write(&one, &[8; 100], number * 5000 + 2000);
            one.sync_all().unwrap();
        });
        assert!(seen.commits > 0, "{number}: {seen:?}");
    }
}

#[test]
fn j10_5_journaled_data_makes_a_full_commit() {
    let world = World::new("fc-journaled");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    // Where data is delayed, the flag of a file says nothing.
    let fs = mount(&device, MountOptions::new().delayed_allocation(false)).unwrap();
    let (file, other) = (open(&fs, "/f"), open(&fs, "/other"));
    write(&file, &[1; 5000], 0);
    let flags = Some(fs.metadata("/f").unwrap().flags | InodeFlags::JOURNAL_DATA);
    let set = SetAttributes { flags, ..SetAttributes::default() };
    fs.inode("/f").unwrap().set_attributes(&set).unwrap();
    fs.sync_all().unwrap();
    let seen = added(&fs, || {
        write(&file, &[2; 3000], 0);
        write(&other, &[3; 10], 0);
        other.sync_all().unwrap();
    });
    assert!(seen.reasons[Ineligible::JournaledData.index()] > 0, "{seen:?}");
    assert_eq!((seen.commits, seen.ineligible), (0, 1));
    drop((file, other, fs));
    let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
    world.every_crash(&device, options, |fs, _| {
        assert_eq!(read(fs, "/f").unwrap(), [[2; 3000].as_slice(), &[1; 2000]].concat());
    });
}

#[test]
fn j10_7_a_full_area_makes_a_full_commit_after_which_it_is_empty() {
    let world = World::new("fc-full");
    let Some(image) = world.mkfs(8, &[&FAST[..], &["-J", "fast_commit_size=4"]].concat()) else {
        return;
    };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let (fs, file) = prepared(&device, 100);
    let full = fs.counters().commits;
    let from = device.position();
    for nth in 1..=12_u8 {
        write(&file, &[nth; 100], u64::from(nth) * 100);
        file.sync_all().unwrap();
    }
    let (fast, full) = (stats(&fs).commits, fs.counters().commits - full);
    assert_eq!(fast + full, 12);
    assert!(full >= 2 && fast >= 8, "{fast} fast, {full} full");
    drop((file, fs));
    world.every_crash(&device, few(from), |fs, _| {
        let bytes = read(fs, "/f").unwrap();
        let whole = bytes
            .chunks(100)
            .zip(1..)
            .all(|(part, nth)| part.iter().all(|byte| *byte == if nth == 1 { 1 } else { nth - 1 }));
        assert!(whole || bytes.len().is_multiple_of(100), "{} bytes", bytes.len());
    });
    let crashed = device.inner().snapshot();
    world.recovers(&crashed, "at the end", |fs| assert_eq!(read(fs, "/f").unwrap().len(), 1300));
}

#[test]
fn a_fast_commit_of_one_file_has_what_was_done_to_all_others() {
    let world = World::new("fc-all");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let (fs, file) = prepared(&device, 3000);
    fs.create_dir("/d").unwrap();
    drop((open(&fs, "/gone"), open(&fs, "/gone too")));
    drop(open(&fs, "/old"));
    fs.sync_all().unwrap();
    let seen = added(&fs, || {
        drop(open(&fs, "/d/new"));
        fs.rename("/old", "/d/moved").unwrap();
        fs.hard_link("/f", "/d/more").unwrap();
        fs.remove_file("/gone").unwrap();
        fs.remove_file("/gone too").unwrap();
        fs.set_permissions("/f", 0o600).unwrap();
        file.set_len(1500).unwrap();
        let last = open(&fs, "/last");
        write(&last, &[9; 5000], 0);
        last.sync_all().unwrap();
    });
    assert_eq!((seen.commits, seen.ineligible), (1, 0));
    drop((file, fs));
    let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
    world.every_crash(&device, options, |fs, _| {
        assert_eq!(read(fs, "/last").unwrap(), [9; 5000]);
        assert_eq!(read(fs, "/f").unwrap(), [1; 1500]);
        let metadata = fs.metadata("/d/more").unwrap();
        assert_eq!((metadata.links, metadata.mode & 0o777), (2, 0o600));
        assert!(fs.metadata("/d/new").is_ok() && fs.metadata("/d/moved").is_ok());
        assert!(fs.metadata("/old").is_err() && fs.metadata("/gone").is_err());
        assert!(fs.metadata("/gone too").is_err());
    });
}

#[test]
fn bytes_in_blocks_that_were_zeroed_beside_a_write_are_durable() {
    let world = World::new("fc-zeroed");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    // Where blocks are made readable before their data is written, those around a write are zeroed with it.
    let fs = mount(&device, MountOptions::new().unwritten_until_done(false)).unwrap();
    let file = open(&fs, "/big");
    file.change_range(RangeChange::Allocate { keep_size: false }, 0, 16 << 10).unwrap();
    fs.sync_all().unwrap();
    for block in [0, 5, 9, 2] {
        write(&file, &[block + 1; 1024], u64::from(block) * 1024);
        file.sync_all().unwrap();
    }
    assert_eq!(stats(&fs).commits, 1, "what is overwritten in place has no record");
    drop((file, fs));
    let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
    world.every_crash(&device, options, |fs, _| {
        let bytes = read(fs, "/big").unwrap();
        for (block, bytes) in (0..).zip(bytes.chunks(1024)) {
            let expected = if [0, 5, 9, 2].contains(&block) { block + 1 } else { 0 };
            assert!(bytes.iter().all(|byte| *byte == expected), "block {block}");
        }
    });
}

#[test]
fn a_number_that_is_used_again_is_another_file() {
    let world = World::new("fc-again");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let (fs, file) = prepared(&device, 100);
    let one = open(&fs, "/one");
    write(&one, &[2; 9000], 0);
    one.sync_all().unwrap();
    let number = one.metadata().unwrap().inode;
    drop(one);
    let seen = added(&fs, || {
        fs.remove_file("/one").unwrap();
        write(&file, &[4; 100], 100);
        file.sync_all().unwrap();
        let two = open(&fs, "/two");
        assert_eq!(two.metadata().unwrap().inode, number);
        write(&two, &[3; 700], 0);
        two.sync_all().unwrap();
    });
    assert_eq!((seen.commits, seen.ineligible), (2, 0), "{seen:?}");
    drop((file, fs));
    let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
    world.every_crash(&device, options, |fs, _| {
        assert_eq!(read(fs, "/two").unwrap(), [3; 700]);
        assert!(fs.metadata("/one").is_err());
    });
}

#[test]
fn a_commit_that_a_timer_wants_is_a_full_one() {
    let world = World::new("fc-timer");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let (device, clock) = (Arc::new(image), Arc::new(StillClock::default()));
    let fs = mount_at(&device, MountOptions::new(), &clock).unwrap();
    let file = open(&fs, "/f");
    file.sync_all().unwrap();
    let full = fs.counters().commits;
    write(&file, &[1; 10], 0);
    file.sync_all().unwrap();
    assert_eq!((stats(&fs).commits, fs.counters().commits - full), (1, 0));
    clock.advance(6);
    fs.tick().unwrap();
    assert_eq!(fs.counters().commits - full, 1);
}

#[test]
fn fast_commits_behind_a_freeze_are_looked_for() {
    let world = World::new("fc-freeze");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    let device = Arc::new(RecordingDevice::from_image(&image));
    let (fs, file) = prepared(&device, 100);
    fs.freeze().unwrap();
    fs.thaw().unwrap();
    for nth in 1..4 {
        write(&file, &[1; 100], nth * 100);
        file.sync_all().unwrap();
    }
    // The log was empty, so the first was a full one.
    assert_eq!((stats(&fs).commits, stats(&fs).ineligible), (2, 2));
    drop((file, fs));
    let options = CrashOptions { from: device.position(), samples: 16, ..Default::default() };
    world.every_crash(&device, options, |fs, _| assert_eq!(read(fs, "/f").unwrap(), [1; 400]));
}

#[test]
fn fsync_from_many_threads_loses_nothing() {
    let world = World::new("fc-threads");
    let Some(image) = world.mkfs(32, &[&FAST[..], &["-J", "fast_commit_size=16"]].concat()) else {
        return;
    };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let rounds = 40_u8;
    std::thread::scope(|scope| {
        for name in ["/a", "/b", "/c"] {
            let fs = &fs;
            scope.spawn(move || {
                let file = open(fs, name);
                for round in 0..rounds {
                    write(&file, &[round; 300], u64::from(round) * 300);
                    file.sync_all().unwrap();
                }
            });
        }
        scope.spawn(|| {
            for round in 0..rounds {
                let name = format!("/d{round}");
                match round % 4 {
                    0 => fs.create_dir(&name).unwrap(),
                    1 => drop(fs.open_with(&name, OpenOptions::new().write(true).create(true))),
                    2 => fs.rename(format!("/d{}", round - 1), &name).unwrap(),
                    _ => fs.tick().map(drop).unwrap(),
                }
            }
        });
    });
    let crashed = device.snapshot();
    drop(fs);
    world.recovers(&crashed, "threads", |fs| {
        for name in ["/a", "/b", "/c"] {
            let bytes = read(fs, name).unwrap();
            let expected: Vec<u8> =
                (0..rounds).flat_map(|round| std::iter::repeat_n(round, 300)).collect();
            assert!(bytes == expected, "{name}: {} bytes", bytes.len());
        }
    });
}

#[test]
fn a_device_that_fails_a_fast_commit_still_has_what_was_promised() {
    let world = World::new("fc-fault");
    let Some(image) = world.mkfs(8, &FAST) else { return };
    for nth in 1..12 {
        let inner = Arc::new(MemoryDevice::from_bytes(&image.to_vec()));
        let faulty = Arc::new(extant_testkit::FaultDevice::new(Arc::clone(&inner)));
        let (fs, file) = prepared(&faulty, 100);
        faulty.add(extant_testkit::Fault {
            kind: Some(extant_device::OperationKind::Write),
            nth,
            onwards: false,
            effect: extant_testkit::Effect::Fail,
        });
        let mut synced = 100;
        for round in 1..5_u64 {
            let written = file.write_at(&[1; 100], round * 100);
            if written.and_then(|_| file.sync_all()).is_err() {
                break;
            }
            synced = round * 100 + 100;
        }
        let crashed = inner.snapshot();
        drop((file, fs));
        world.recovers(&crashed, &format!("fault {nth}"), |fs| {
            assert!(read(fs, "/f").unwrap().len() >= usize::try_from(synced).unwrap());
        });
    }
}
