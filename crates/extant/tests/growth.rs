//! What delaying an allocation buys: files that grow in turn get few extents, by few calls of the allocator.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use extant::{File, FileExtentState, MountOptions};
use extant_device::FileDevice;
use extant_testkit::oracle;

const FILE_BYTES: u64 = 32 << 20;

fn grow(cache_bytes: u64) -> Option<(usize, u64)> {
    let scratch = oracle::Scratch::new("growth");
    let image = scratch.path("image");
    oracle::mkfs(&image, 1 << 30, &[])?;
    let fs = MountOptions::new()
        .cache_bytes(cache_bytes)
        .mount(FileDevice::open(&image).unwrap())
        .unwrap();
    let files: Vec<File> = (0..8).map(|n| fs.create(format!("/{n}")).unwrap()).collect();
    for at in (0..FILE_BYTES).step_by(4096) {
        for file in &files {
            assert_eq!(file.write_at(&[7; 4096], at).unwrap(), 4096);
        }
    }
    fs.sync_all().unwrap();
    let extents = files.iter().map(|file| file.extents().unwrap().len()).sum();
    let calls = fs.counters().allocator_calls;
    drop(files);
    fs.unmount().unwrap();
    oracle::e2fsck(&image).unwrap();
    Some((extents, calls))
}

#[test]
fn files_that_grow_in_turn_have_one_extent_each() {
    let Some((extents, calls)) = grow(512 << 20) else { return };
    assert_eq!(extents, 8);
    assert!(calls <= 32, "{calls} calls for 256 MiB");
}

#[test]
fn so_they_have_in_little_memory() {
    let Some((extents, _)) = grow(64 << 20) else { return };
    assert_eq!(extents, 8);
}

/// Two files that grow in turn by writes of `call` bytes to 1 MiB: their runs of blocks, and the allocator's calls.
fn grow_without_preallocation(delayed: bool, call: usize) -> Option<(usize, u64)> {
    let scratch = oracle::Scratch::new("growth");
    let image = scratch.path("image");
    oracle::mkfs(&image, 64 << 20, &["-b", "4096"])?;
    let options = MountOptions::new().delayed_allocation(delayed).preallocation(false);
    let fs = options.mount(FileDevice::open(&image).unwrap()).unwrap();
    let files: Vec<File> = (0..2).map(|n| fs.create(format!("/{n}")).unwrap()).collect();
    let calls = fs.counters().allocator_calls;
    for at in (0..1_u64 << 20).step_by(call) {
        files.iter().for_each(|file| assert!(file.write_at(&vec![7; call], at).unwrap() == call));
    }
    fs.sync_all().unwrap();
    let calls = fs.counters().allocator_calls - calls;
    let extents = files.iter().flat_map(|file| file.extents().unwrap());
    let extents =
        extents.inspect(|extent| assert_eq!(extent.state, FileExtentState::Written)).count();
    drop(files);
    fs.unmount().unwrap();
    oracle::e2fsck(&image).unwrap();
    Some((extents, calls))
}

#[test]
fn without_preallocation_blocks_are_taken_one_by_one() {
    let Some((extents, calls)) = grow_without_preallocation(false, 4096) else { return };
    // Each block but the first lies behind one of the other file; leaves of the extent trees are calls too.
    assert!(extents == 512 && (512..520).contains(&calls), "{extents} extents, {calls} calls");
    let (extents, calls) = grow_without_preallocation(false, 64 << 10).unwrap();
    // A leaf of a tree may lie inside a run.
    let as_written = (32..=34).contains(&extents);
    assert!(as_written && (512..520).contains(&calls), "{extents} extents, {calls} calls");
    let (extents, calls) = grow_without_preallocation(true, 4096).unwrap();
    assert!(
        extents == 2 && calls == 2,
        "{extents} extents, {calls} calls: delayed data is one run"
    );
}
