//! What `build` asks of the engine, by itself.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::sync::Arc;

use extant::{Error, Filesystem, MemoryDevice, MountOptions, Placement};

use crate::{MkfsOptions, mkfs};

fn device(bytes: u64) -> Arc<MemoryDevice> {
    let device = Arc::new(MemoryDevice::new(bytes));
    mkfs(&device, &MkfsOptions { block_size: Some(4096), ..MkfsOptions::default() }).unwrap();
    device
}

fn mounted(device: &Arc<MemoryDevice>) -> Filesystem {
    let options = MountOptions::new().unjournaled(true).placement(Placement::Sequential);
    options.mount(Arc::clone(device)).unwrap()
}

#[test]
fn files_follow_each_other_and_what_was_passed_by_is_filled_by_shorter_ones() {
    let device = device(600 << 20);
    let filesystem = mounted(&device);
    let root = filesystem.inode("/").unwrap();
    let lay_out = |name: &str, blocks: u64| {
        let made = root.create_file(name, 0o644).unwrap();
        let size = blocks * 4096;
        let extents = made.lay_out(std::slice::from_ref(&(0..size)), size).unwrap();
        assert_eq!(extents.len(), 1, "{name}: {extents:?}");
        (extents[0].physical.unwrap(), u64::from(extents[0].len))
    };
    let small: Vec<_> = (0..50).map(|n| lay_out(&format!("small-{n}"), 1 + n % 3)).collect();
    let jumps = small.windows(2).filter(|pair| pair[0].0 + pair[0].1 != pair[1].0).count();
    assert!(jumps <= 1, "{jumps} jumps in {small:?}");
    // The second does not fit behind the first in its group, and the next group begins with a copy of the superblock.
    let (first, _) = lay_out("first", 20_000);
    let (large, _) = lay_out("large", 20_000);
    let (after, _) = lay_out("after", 2);
    assert!(first < after && after < large, "a short file fills what the large one has left free");
    filesystem.unmount().unwrap();
    let filesystem = MountOptions::new().mount(device).unwrap();
    filesystem.check_invariants(true).unwrap();
    assert_eq!(filesystem.metadata("/large").unwrap().size, 20_000 * 4096);
    filesystem.unmount().unwrap();
}

#[test]
fn a_run_goes_on_in_the_next_group_as_one_extent() {
    let filesystem = mounted(&device(1 << 30));
    let root = filesystem.inode("/").unwrap();
    let mut crossed = false;
    for n in 0..20 {
        let made = root.create_file(format!("f{n}"), 0o644).unwrap();
        let size = 9000 * 4096;
        let extents = made.lay_out(std::slice::from_ref(&(0..size)), size).unwrap();
        assert_eq!(extents.len(), 1, "{extents:?}");
        let start = extents[0].physical.unwrap();
        crossed |= start / 32768 != (start + 8999) / 32768;
    }
    assert!(crossed, "none of 20 files lies across the border of two groups");
}

#[test]
fn a_volume_with_a_journal_in_use_cannot_be_laid_out() {
    let device = device(64 << 20);
    let filesystem = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    let made = filesystem.inode("/").unwrap().create_file("f", 0o644).unwrap();
    let refused = made.lay_out(std::slice::from_ref(&(0..1)), 1);
    assert!(matches!(refused, Err(Error::NotSupported(_))), "{refused:?}");
    filesystem.sync_all().unwrap();
    // Nobody has unmounted: the journal has to be recovered first.
    drop((made, filesystem));
    let refused = MountOptions::new().unjournaled(true).mount(Arc::clone(&device)).map(drop);
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    MountOptions::new().mount(Arc::clone(&device)).unwrap().unmount().unwrap();
    mounted(&device).unmount().unwrap();
}

#[test]
fn parts_of_a_laid_out_file_rise_and_the_rest_is_holes() {
    let filesystem = mounted(&device(64 << 20));
    let root = filesystem.inode("/").unwrap();
    let made = root.create_file("f", 0o644).unwrap();
    let falling = made.lay_out(&[8192..12288, 0..4096], 1 << 20);
    assert!(matches!(falling, Err(Error::Invalid(_))), "{falling:?}");
    let behind = made.lay_out(&[0..8192, 16384..16385], 16384);
    assert!(matches!(behind, Err(Error::Invalid(_))), "{behind:?}");
    let extents = made.lay_out(&[4096..8192, 65536..65546], 1 << 20).unwrap();
    let logical: Vec<_> = extents.iter().map(|extent| (extent.logical, extent.len)).collect();
    assert_eq!(logical, [(1, 1), (16, 1)]);
    assert_eq!(made.metadata().unwrap().size, 1 << 20);
    let again = made.lay_out(&[], 0);
    assert!(matches!(again, Err(Error::Invalid(_))), "{again:?}");
}
