//! What delaying an allocation buys: files that grow in turn get few extents, by few calls of the allocator.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use extant::{File, MountOptions};
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
