//! Past the write path: direct I/O (D21), and stores through a shared mapping (D19).

use std::sync::Arc;

use extant::FileExtentState::{Delayed, Unwritten, Written};
use extant::{
    DataMode, Errno, File, FileExtentState, Filesystem, MountOptions, OpenOptions, RangeChange,
};
use extant_testkit::{Random, RecordingDevice};

use crate::world::{STALE, World, assert_not_stale, few, mount, open, read, write};

fn direct(fs: &Filesystem, path: &str) -> File {
    fs.open_with(path, OpenOptions::new().read(true).write(true).create(true).direct(true)).unwrap()
}

fn runs(file: &File) -> Vec<(u32, u32, FileExtentState)> {
    file.extents().unwrap().iter().map(|run| (run.logical, run.len, run.state)).collect()
}

#[test]
fn d21_a_direct_write_writes_delayed_data_first() {
    let world = World::new("direct");
    let Some(image) = world.mkfs(16, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let (cached, file) = (open(&fs, "/a"), direct(&fs, "/a"));
    write(&cached, &[1; 8192], 0);
    write(&file, &[2; 8192], 8192); // grows
    assert_eq!(runs(&file), [(0, 2, Delayed), (2, 2, Written)]);
    write(&file, &[3; 4096], 4096); // over a delayed block
    assert_eq!(runs(&file), [(0, 2, Written), (2, 2, Written)]);
    write(&file, &[4; 512], 512); // one sector
    let mut bytes = vec![0; 16384];
    assert_eq!(cached.read_at(&mut bytes, 0).unwrap(), 16384);
    let expected = |n| match n {
        512..1024 => 4,
        0..4096 => 1,
        4096..8192 => 3,
        _ => 2,
    };
    assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == expected(n)));
    let mut past = vec![0; 16384];
    assert_eq!(file.read_at(&mut past, 0).unwrap(), 16384);
    assert!(past == bytes);
    assert_eq!(file.write_at(&[1; 100], 0).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(file.read_at(&mut [0; 512], 100).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(file.read_at(&mut [0; 512], 16_385).unwrap(), 0, "behind the end nothing is asked");
    drop((cached, file));
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn d21_4_blocks_are_unwritten_until_their_data_is_there() {
    let world = World::new("crash");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(RecordingDevice::new(image.snapshot(), image.snapshot()));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = direct(&fs, "/a");
    let from = device.log().events().len();
    file.set_len(40_960).unwrap();
    write(&file, &[7; 4096], 8192); // fills a hole
    fs.sync_all().unwrap();
    write(&file, &[7; 1024], 512); // a part of two blocks
    write(&file, &[7; 8192], 36_864); // half in, half out
    fs.sync_all().unwrap();
    write(&file, &[7; 4096], 65_536); // behind the end
    file.sync_data().unwrap();
    assert_eq!(file.metadata().unwrap().size, 69_632);
    world.every_crash(&device, few(from), |fs, _| assert_not_stale(fs, "/a"));
    drop(file);
    fs.unmount().unwrap();
}

#[test]
fn d21_4_a_hole_of_indirect_blocks_is_filled_through_the_cache() {
    let world = World::new("indirect");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-O", "^extent,^64bit"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = direct(&fs, "/a");
    file.set_len(20_480).unwrap();
    write(&file, &[7; 40_960], 10_240);
    assert_eq!(file.metadata().unwrap().size, 51_200);
    assert!(runs(&file).iter().all(|run| run.2 == Written));
    drop(file);
    let bytes = read(&fs, "/a").unwrap();
    assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == if n < 10_240 { 0 } else { 7 }));
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn d19_3_a_store_reserves_the_folio_up_to_the_end_of_file() {
    let world = World::new("store");
    let Some(image) = world.mkfs(16, &["-b", "1024"]) else { return };
    for options in [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Journal),
    ] {
        let shown = format!("{options:?}");
        let delays = shown.contains("delayed_allocation: true") && !shown.contains("Some(Journal)");
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/a");
        file.set_len(6500).unwrap();
        let free = fs.statfs().free_blocks;
        assert_eq!(file.store_at(b"", 10).unwrap(), 0);
        assert_eq!(fs.statfs().free_blocks, free - 4);
        assert_eq!(file.store_at(&[7; 3000], 4000).unwrap(), 96, "up to the folio's end");
        assert_eq!(file.store_at(&[7; 3000], 4096).unwrap(), 2404, "up to the file's end");
        assert_eq!(fs.statfs().free_blocks, free - 7);
        assert_eq!(runs(&file)[0].2, if delays { Delayed } else { Written });
        assert_eq!(file.metadata().unwrap().size, 6500);
        assert_eq!(file.store_at(b"x", 6500).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(file.store_at(b"x", 1 << 30).unwrap_err().errno(), Errno::INVAL);
        drop(file);
        let mut expected = vec![0; 4000];
        expected.extend([7; 2500]);
        assert!(read(&fs, "/a").unwrap() == expected);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        assert!(read(&fs, "/a").unwrap() == expected);
    }
}

#[test]
fn d19_a_store_into_unwritten_blocks_makes_them_dirty() {
    let world = World::new("unwritten");
    let Some(image) = world.mkfs(16, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    file.change_range(RangeChange::Allocate { keep_size: false }, 0, 16384).unwrap();
    assert_eq!(file.store_at(&[7; 10], 5000).unwrap(), 10);
    file.sync_all().unwrap();
    assert_eq!(runs(&file), [(0, 1, Unwritten), (1, 1, Written), (2, 2, Unwritten)]);
    drop(file);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

/// Cached and direct writes and stores, one file, one thread: all see each other's bytes.
#[test]
fn bytes_are_the_same_by_every_way() {
    let world = World::new("ways");
    for format in [&["-b", "1024"][..], &["-b", "4096"], &["-b", "1024", "-O", "^extent,^64bit"]] {
        let Some(image) = world.mkfs(16, format) else { return };
        for seed in 0..8 {
            let device = Arc::new(image.snapshot());
            let fs = mount(&device, MountOptions::new()).unwrap();
            let (cached, past) = (open(&fs, "/a"), direct(&fs, "/a"));
            let (mut random, mut model) = (Random::new(seed), Vec::<u8>::new());
            for step in 0..80 {
                let (offset, len) = (random.below(200) * 512, (1 + random.below(40)) * 512);
                let byte = u8::try_from(random.below(200) + 1).unwrap();
                let (at, count) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
                match random.below(6) {
                    0 | 1 => {
                        write(&cached, &vec![byte; count - 7], offset + 3);
                        model.resize(model.len().max(at + count - 4), 0);
                        model[at + 3..at + count - 4].fill(byte);
                    }
                    2 | 3 => {
                        write(&past, &vec![byte; count], offset);
                        model.resize(model.len().max(at + count), 0);
                        model[at..at + count].fill(byte);
                    }
                    4 if at < model.len() => {
                        let stored = cached.store_at(&vec![byte; count], offset).unwrap();
                        model[at..at + stored].fill(byte);
                    }
                    _ => {
                        cached.set_len(offset).unwrap();
                        model.resize(at, 0);
                    }
                }
                let by = if step % 2 == 0 { &cached } else { &past };
                let mut bytes = vec![1; model.len().next_multiple_of(512)];
                let got = by.read_at(&mut bytes, 0).unwrap();
                assert!(got == model.len() && bytes[..got] == model, "seed {seed} step {step}");
            }
            drop((cached, past));
            fs.unmount().unwrap();
            world.e2fsck(&device).unwrap_or_else(|said| panic!("seed {seed}: {said}"));
            let fs = mount(&device, MountOptions::read_only()).unwrap();
            let bytes = read(&fs, "/a").unwrap();
            assert!(bytes == model && !bytes.contains(&STALE), "seed {seed}: on the device");
        }
    }
}

#[test]
fn caches_are_dropped_but_for_what_is_still_to_be_written() {
    let world = World::new("drop");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/file");
    write(&file, &[7; 5000], 0);
    fs.sync_all().unwrap();
    write(&file, &[8; 1024], 1024);
    write(&open(&fs, "/other"), &[9; 3000], 0);
    // Twice: what was just used is spared once.
    fs.drop_caches();
    fs.drop_caches();
    let reads = fs.counters().device_reads;
    let wanted = [vec![7; 1024], vec![8; 1024], vec![7; 2952]].concat();
    assert!(read(&fs, "/file").unwrap() == wanted && read(&fs, "/other").unwrap() == [9; 3000]);
    assert!(fs.counters().device_reads > reads, "nothing was read again");
    fs.check_invariants(true).unwrap();
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}
