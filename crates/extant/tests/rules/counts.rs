//! How little a delayed write costs, in counts: handles, blocks, calls of the allocator.

use std::sync::Arc;

use extant::{File, Filesystem, MountOptions};

use crate::world::{World, mount, open, write};

/// S1, D22.6: what is removed before it is written back takes no block, and none of its bytes reach the device.
#[test]
fn d22_6_a_file_that_dies_young_takes_no_block_and_is_never_written() {
    let world = World::new("young");
    let Some(image) = world.mkfs(32, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let free = fs.statfs().free_blocks;
    let calls = fs.counters().allocator_calls;
    let bytes = b"never to be seen".repeat(256 << 8);
    for _ in 0..3 {
        write(&fs.create("/young").unwrap(), &bytes, 0);
        assert_eq!(fs.statfs().free_blocks, free - 256);
        fs.remove_file("/young").unwrap();
        assert_eq!(fs.statfs().free_blocks, free);
    }
    fs.sync_all().unwrap();
    assert_eq!(fs.counters().allocator_calls, calls);
    fs.unmount().unwrap();
    let image = device.to_vec();
    assert!(!image.chunks(16).any(|piece| piece == b"never to be seen"));
    world.e2fsck(&device).unwrap();
}

/// Handles that a write of `len` bytes at `at` starts, while the clock stands still so that no timestamp changes.
fn handles(fs: &Filesystem, file: &File, at: u64, len: usize) -> u64 {
    let before = fs.counters().handles;
    write(file, &vec![7; len], at);
    fs.counters().handles - before
}

/// D13.1 to D13.3: a delayed write that starts at or before the end of file and ends in a delayed block or a hole starts no
/// handle; one that grows the file within a block that has its place, or leaves a gap behind the old end, starts one.
#[test]
fn d13_3_only_sizes_that_are_stored_cost_a_handle() {
    let world = World::new("handles");
    for block in ["1024", "4096"] {
        let Some(image) = world.mkfs(16, &["-b", block]) else { return };
        let block: u64 = block.parse().unwrap();
        let fs = mount(&Arc::new(image), MountOptions::new()).unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 10], 0); // the timestamps, and the flag that bytes are promised
        assert_eq!(handles(&fs, &file, 10, 100), 0, "behind the end, in a delayed block");
        assert_eq!(handles(&fs, &file, 110, 5000), 0, "into new blocks");
        file.sync_all().unwrap();
        assert_eq!(handles(&fs, &file, 50, 100), 0, "over what has its place");
        assert_eq!(
            handles(&fs, &file, 5110, 10),
            1,
            "the size grows within a block that has its place"
        );
        write(&file, &[7; 3072], 5120); // to the end of a block, whatever its size
        assert_eq!(handles(&fs, &file, 8192, 40_000), 0, "out of it, into new blocks");
        let end = 8192 + 40_000;
        assert_eq!(handles(&fs, &file, end + 3 * block, 10), 1, "a gap behind the old end");
        file.set_len(64 * block).unwrap();
        assert_eq!(handles(&fs, &file, 60 * block, 10), 0, "a hole within the file");
        fs.unmount().unwrap();
    }
}

/// S4: 100 MB written in pieces of 4 KiB.
#[test]
fn s4_a_hundred_megabytes_take_at_most_thirteen_calls_of_the_allocator() {
    let world = World::new("calls");
    let Some(image) = world.mkfs(160, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let calls = fs.counters().allocator_calls;
    let file = open(&fs, "/f");
    for at in (0..100_000_000).step_by(4096) {
        write(&file, &[7; 4096], at);
    }
    file.sync_all().unwrap();
    let calls = fs.counters().allocator_calls - calls;
    assert!((1..=13).contains(&calls), "{calls} calls");
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

/// D15.20: the data that a commit writes before itself goes to the device in as many requests as it lies in pieces there,
/// however small the writes were.
#[test]
fn d15_20_ordered_data_goes_out_by_the_run() {
    let world = World::new("ordered");
    let Some(image) = world.mkfs(64, &["-b", "4096"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new().delayed_allocation(false)).unwrap();
    let files = ["/a", "/b", "/c", "/d"].map(|path| open(&fs, path));
    for at in (0..4 << 20).step_by(4096) {
        files.iter().for_each(|file| write(file, &[7; 4096], at));
    }
    let before = fs.counters().device_writes;
    files[0].sync_all().unwrap();
    let (writes, metadata) = (fs.counters().device_writes - before, 16);
    let pieces: usize = files.iter().map(|file| file.extents().unwrap().len()).sum();
    assert!(pieces < 128, "{pieces}");
    assert!(usize::try_from(writes).unwrap() <= pieces + metadata, "{writes} for {pieces} pieces");
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}
