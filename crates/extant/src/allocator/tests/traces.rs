//! The kernel's traces, replayed through the whole allocator.

use super::*;

#[test]
fn trace_01_ten_mebibytes_in_two_pieces() {
    let Some(volume) = traced(AllocatorOptions::default()) else { return };
    let volume = volume.warm();
    assert_eq!(volume.allocator.inode_goal(FILE, FileType::Regular).get(), 32768);
    assert_eq!(volume.get(data(FILE, 0, 2048, 32768, 2560)), (38912, 2048));
    assert_eq!(volume.get(after(data(FILE, 2048, 512, 0, 2560), 2047, 40959)), (40960, 512));
    volume.check();
    let pinned = volume.allocator.free_clusters().get() - volume.free_in_buddies();
    assert_eq!(pinned, 1536, "set aside behind the file");
    assert_eq!(volume.allocator.discard_preallocations(FILE), 1);
    assert_eq!(volume.allocator.free_clusters().get(), volume.free_in_buddies());
    volume.check();
}

#[test]
fn traces_02_20_and_28_small_files_follow_each_other() {
    let Some(volume) = traced(AllocatorOptions::default()) else { return };
    let volume = volume.warm();
    assert_eq!(volume.get(data(FILE, 0, 1, 32768, 1)), (37376, 1));
    assert_eq!(volume.get(after(data(FILE, 1, 1, 0, 2), 0, 37376)), (37377, 1));
    assert_eq!(
        volume.get(data(OTHER, 0, 4, 32768, 4)),
        (37378, 4),
        "another file, same locality group"
    );
    assert_eq!(volume.get(after(data(FILE, 2, 1, 0, 3), 1, 37377)), (37382, 1));
    assert_eq!(
        volume.get(after(data(FILE, 3, 15, 0, 18), 2, 37382)),
        (4139, 15),
        "grown out of it"
    );
    assert_eq!(volume.get(after(data(FILE, 18, 1, 0, 19), 17, 4153)), (4154, 1));
    assert_eq!(volume.get(after(data(FILE, 19, 1, 0, 20), 18, 4154)), (4155, 1));
    assert_eq!(volume.get(tree_block(32768)), (36897, 1));
    assert_eq!(volume.allocator.discard_preallocations(FILE), 1);
    volume.check();
}

#[test]
fn trace_06_exact_requests() {
    let Some(volume) = traced(AllocatorOptions::default()) else { return };
    let volume = volume.warm();
    let exact = |request: AllocationRequest| AllocationRequest {
        flags: AllocationFlags::HINT_DATA | AllocationFlags::HINT_NOPREALLOC,
        ..request
    };
    assert_eq!(volume.get(exact(data(FILE, 0, 16, 32768, 0))), (36912, 16));
    assert_eq!(volume.get(exact(after(data(FILE, 16, 16, 0, 16), 15, 36927))), (36928, 16));
    assert_eq!(volume.allocator.discard_preallocations(FILE), 0);
}

#[test]
fn trace_36_a_cold_mount() {
    let Some(volume) = traced(AllocatorOptions::default()) else { return };
    // The first file's search passes group 1 by: nobody has built its buddy.
    let (small, _) = volume.get(data(FILE, 0, 4, 32768, 4));
    assert!(small < 32768);
    volume.allocator.with_buddy(BlockGroup(1), |_, _| ()).unwrap();
    assert_eq!(volume.get(data(OTHER, 0, 768, 32768, 768)), (37376, 512), "less than asked for");
}

#[test]
fn trace_16_clusters() {
    let Some(image) = image(64 * MIB, &["-b", "4096", "-O", "bigalloc", "-C", "65536"]) else {
        return;
    };
    let volume = Volume::open(&image, true).warm();
    let (start, len) = volume.get(data(FILE, 0, 2, u64::from(u32::MAX), 33));
    assert_eq!((start % 16, len), (0, 2));
    assert_eq!(
        volume.get(after(data(FILE, 33, 1, 0, 34), 1, start + 1)),
        (start + 33, 1),
        "third cluster, second block"
    );
    assert_eq!(
        volume.get(data(FILE, 16, 100, 0, 34)),
        (start + 16, 16),
        "up to what was served before"
    );
    volume.check();
    volume.allocator.discard_preallocations(FILE);
    volume.free(start, 20, FreeFlags::NOFREE_LAST_CLUSTER).unwrap();
    volume.check();
    assert!(
        volume.free(start, 1, FreeFlags::empty()).is_err(),
        "the first cluster went as a whole"
    );
}

#[test]
fn trace_25_thirty_two_groups() {
    let Some(image) = image(256 * MIB, &["-b", "1024"]) else { return };
    let tunables =
        |layout: &Layout| Tunables { max_linear_groups: 4, ..Tunables::new(layout, 0, 1) };
    let volume = Volume::open_with(&image, true, AllocatorOptions::default(), tunables).warm();
    assert!(volume.allocator.tunables().optimize_scan);
    let third = InodeNumber::new(14).unwrap();
    assert_eq!(volume.get(data(FILE, 0, 16, 8193, 16)), (9217, 16));
    assert_eq!(volume.get(data(OTHER, 0, 1024, 8193, 1024)), (10241, 1024));
    assert_eq!(volume.get(data(third, 0, 2048, 8193, 3072)), (12289, 2048));
    assert_eq!(volume.get(after(data(third, 2048, 1024, 0, 3072), 2047, 14336)), (14337, 1024));
    assert_eq!(volume.allocator.discard_preallocations(third), 1);
    volume.check();
}
