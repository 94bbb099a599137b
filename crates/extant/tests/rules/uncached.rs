//! Reads of those who have a cache of their own.

use std::sync::Arc;

use extant::{DataMode, MountOptions, OpenOptions, RangeChange};
use extant_testkit::Random;

use crate::world::{World, mount, open, read, write};

/// A file whose bytes are known.
const LEN: usize = 300_000;

#[test]
fn uncached_reads_give_what_was_written_wherever_it_is() {
    let world = World::new("uncached");
    let formats: [&[&str]; 4] =
        [&["-b", "4096"], &["-b", "1024"], &["-O", "^extent,^64bit"], &["-O", "inline_data"]];
    let modes = [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Journal),
    ];
    for (format, mode) in formats.iter().flat_map(|format| modes.iter().map(move |m| (format, m))) {
        let Some(image) = world.mkfs(32, format) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, mode.clone().cache_bytes(1 << 20)).unwrap();
        let (file, mut model, mut random) = (open(&fs, "/a"), Vec::new(), Random::new(5));
        let reader = fs.open_with("/a", OpenOptions::new().read(true).uncached(true)).unwrap();
        let mut below =
            |n: usize| usize::try_from(random.below(u64::try_from(n).unwrap())).unwrap();
        for step in 0..250 {
            // Small at first: contents may lie in the inode.
            let most = if step < 40 { 40 } else { LEN };
            let (at, len) = (below(most), below(most.min(20_000)) + 1);
            match below(8) {
                0..4 => {
                    let byte = u8::try_from(step % 255).unwrap() + 1;
                    write(&file, &vec![byte; len], u64::try_from(at).unwrap());
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].fill(byte);
                }
                4 => file.sync_data().unwrap(),
                5 => {
                    file.set_len(u64::try_from(at).unwrap()).unwrap();
                    model.resize(at, 0);
                }
                6 => {
                    let (from, count) = (u64::try_from(at).unwrap(), u64::try_from(len).unwrap());
                    if file.change_range(RangeChange::PunchHole, from, count).is_ok() {
                        let end = model.len().min(at + len);
                        model[at.min(end)..end].fill(0);
                    }
                }
                _ => drop(read(&fs, "/a").unwrap()),
            }
            let (at, len) = (below(most), below(50_000));
            let mut bytes = vec![0xAA; len];
            let count = reader.read_at(&mut bytes, u64::try_from(at).unwrap()).unwrap();
            let expected = &model[at.min(model.len())..model.len().min(at + len)];
            assert!(bytes[..count] == *expected, "{format:?} {mode:?} step {step}: {at}+{len}");
        }
        drop((file, reader));
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn uncached_reads_keep_nothing() {
    let world = World::new("uncached-memory");
    let Some(image) = world.mkfs(16, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/a"), &[7; 100_000], 0);
    fs.unmount().unwrap();
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    let reader = fs.open_with("/a", OpenOptions::new().read(true).uncached(true)).unwrap();
    let mut bytes = vec![0; 200_000];
    assert_eq!(reader.read_at(&mut bytes, 10).unwrap(), 99_990);
    assert_eq!(fs.memory_counters().cached_bytes, 0, "what was not in memory does not come there");
    write(&file, &[8; 4096], 8192);
    assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 100_000);
    assert_eq!((bytes[8191], bytes[8192], bytes[12_288]), (7, 8, 7));
    assert!(fs.memory_counters().dirty_bytes == 4096, "what is dirty stays");
    file.sync_data().unwrap();
    assert_eq!(reader.read_at(&mut bytes[..12_288], 0).unwrap(), 12_288);
    assert_eq!(fs.memory_counters().cached_bytes, 0, "what is on the device goes");
}
