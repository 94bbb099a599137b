use std::io::Write;
use std::sync::Arc;

use extant::{Filesystem, MountOptions};
use extant_device::MemoryDevice;

use super::*;
use crate::{MkfsOptions, mkfs};

/// The bytes of a small image after `fill`.
fn image(fill: impl FnOnce(&Filesystem)) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(8 << 20));
    let options = MkfsOptions { block_size: Some(1024), ..MkfsOptions::default() };
    mkfs(&device, &options).unwrap();
    changed(&device.to_vec(), |filesystem| {
        filesystem.create_dir_all("/d/e").unwrap();
        filesystem.create("/d/file").unwrap().write_all(&[5; 5000]).unwrap();
        filesystem.create("/gone").unwrap().write_all(&[9; 4096]).unwrap();
        filesystem.remove_file("/gone").unwrap();
        filesystem.set_xattr("/d/file", "user.note", [7; 300]).unwrap();
        fill(filesystem);
    })
}

/// A copy of an image after a mount that changes it.
fn changed(image: &[u8], change: impl FnOnce(&Filesystem)) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::from_bytes(image));
    let filesystem = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    change(&filesystem);
    filesystem.unmount().unwrap();
    device.to_vec()
}

fn diff_of(left: &[u8], right: &[u8]) -> Vec<Difference> {
    let (a, b) = (MemoryDevice::from_bytes(left), MemoryDevice::from_bytes(right));
    let (one, other) = (Reader::new(&a).unwrap(), Reader::new(&b).unwrap());
    let mut found = Vec::new();
    let whole = 0..u64::try_from(left.len().max(right.len())).unwrap();
    let flow =
        structures(&one, &other, (&a, &b), std::slice::from_ref(&whole), &mut |difference| {
            found.push(difference);
            ControlFlow::Continue(())
        });
    assert_eq!(flow, Ok(ControlFlow::Continue(())));
    found
}

/// Whether a difference of a kind has such a place.
fn has(found: &[Difference], kind: Kind, place: &str) -> bool {
    found.iter().any(|one| one.kind == kind && one.place.contains(place))
}

/// Where a file's first block lies, in bytes.
fn place_of(image: &[u8], path: &str) -> usize {
    let device = Arc::new(MemoryDevice::from_bytes(image));
    let filesystem = MountOptions::read_only().mount(device).unwrap();
    let extents = filesystem.inode(path).unwrap().extents().unwrap();
    usize::try_from(extents[0].physical.unwrap() * 1024).unwrap()
}

#[test]
fn equal_images_have_no_difference() {
    let one = image(|_| ());
    assert_eq!(diff_of(&one, &one), []);
}

#[test]
fn a_changed_byte_is_told_by_what_it_is_part_of() {
    let one = image(|_| ());
    let data = place_of(&one, "/d/file");
    let journal = {
        let device = MemoryDevice::from_bytes(&one);
        let reader = Reader::new(&device).unwrap();
        let number = reader.superblock().journal_inode().unwrap();
        let mut first = 0;
        reader
            .map(number, &reader.record(number).unwrap(), &mut |step| {
                if let crate::reader::MapStep::Run(run) = step {
                    first = if first == 0 { run.start.get() } else { first };
                }
            })
            .unwrap();
        usize::try_from(first * 1024).unwrap()
    };
    let last = one.len() - 1;
    for (at, kind, place) in [
        (1024 + 0x78, Kind::Superblock, "superblock: volume_name"),
        (2048 + 12, Kind::Descriptor, "descriptor of group 0: free_blocks_count_lo"),
        (data + 17, Kind::Data, "contents at byte 17"),
        (data + 4999, Kind::Data, "contents at byte 4999"),
        (data + 5001, Kind::Unused, "behind the end of file, byte 5001"),
        (journal + 20, Kind::Journal, "journal superblock: first"),
        // A bitmap lies between its third block and its second.
        (journal + 5 * 1024, Kind::Journal, "block 4 of the journal"),
        (last, Kind::Unused, "free"),
        (100, Kind::Unused, "block 0"),
    ] {
        let mut other = one.clone();
        other[at] ^= 0x20;
        if kind == Kind::Superblock {
            // A reader wants the sum to be right.
            let mut raw = *crate::reader::Reader::new(&MemoryDevice::from_bytes(&one))
                .unwrap()
                .superblock()
                .raw();
            raw.volume_name[0] ^= 0x20;
            raw.set_checksum();
            other[1024..2048].copy_from_slice(zerocopy::IntoBytes::as_bytes(&raw));
        }
        let found = diff_of(&one, &other);
        assert!(has(&found, kind, place), "{at}: {found:?}");
        let expected = if kind == Kind::Superblock { 2 } else { 1 };
        assert_eq!(found.len(), expected, "{at}: {found:?}");
    }
}

#[test]
fn every_changed_byte_is_told() {
    let one = image(|filesystem| {
        let file = filesystem.create("/holes").unwrap();
        for n in 0..40 {
            file.write_at(&[3; 1024], n * 3000).unwrap();
        }
    });
    let mut random = 1_u64;
    let mut at = 0;
    for _ in 0..200 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of them where structures are.
        let range = if random & 1 == 0 { one.len() } else { 600 << 10 };
        at = (at + usize::try_from(random >> 33).unwrap()) % range;
        if (1024..2048).contains(&at) {
            continue;
        }
        let mut other = one.clone();
        other[at] ^= 1 << (random >> 5 & 7);
        assert!(!diff_of(&one, &other).is_empty(), "byte {at}");
    }
}

#[test]
fn changes_by_a_mount_are_told_by_name() {
    let one = image(|_| ());
    let renamed = changed(&one, |filesystem| filesystem.rename("/d/file", "/d/other").unwrap());
    let found = diff_of(&one, &renamed);
    assert!(
        has(&found, Kind::Name, "name file") && has(&found, Kind::Name, "name other"),
        "{found:?}"
    );
    assert!(!has(&found, Kind::Data, "") && !has(&found, Kind::BlockBitmap, ""), "{found:?}");

    let noted =
        changed(&one, |filesystem| filesystem.set_xattr("/d/file", "user.note", [8; 300]).unwrap());
    assert!(has(&diff_of(&one, &noted), Kind::Attribute, "attribute user.note"));

    let moved = changed(&one, |filesystem| {
        filesystem.create("/d/next").unwrap().write_all(&[1; 2000]).unwrap();
        let file = filesystem.open_with("/d/file", extant::OpenOptions::new().write(true)).unwrap();
        file.write_at(&[6; 3000], 9000).unwrap();
    });
    let found = diff_of(&one, &moved);
    for (kind, place) in [
        (Kind::BlockBitmap, "block bitmap of group 0: block"),
        (Kind::InodeBitmap, "inode bitmap of group"),
        (Kind::Inode, "size_lo"),
        (Kind::Map, "extent 1"),
        (Kind::Name, "name next"),
        (Kind::Data, "contents at byte 9000"),
        (Kind::Descriptor, "free_blocks_count_lo"),
    ] {
        assert!(has(&found, kind, place), "{kind:?} {place}: {found:#?}");
    }
    assert!(found.iter().is_sorted_by_key(|one| order(one.kind)), "{found:#?}");
}

/// Superblock and groups come first, what belongs to nobody last.
fn order(kind: Kind) -> u32 {
    match kind {
        Kind::Superblock => 0,
        Kind::Descriptor => 1,
        Kind::BlockBitmap | Kind::InodeBitmap => 2,
        Kind::Other => 4,
        _ => 3,
    }
}

#[test]
fn images_of_other_sizes_are_told_apart_and_not_compared() {
    let one = image(|_| ());
    let device = Arc::new(MemoryDevice::new(8 << 20));
    mkfs(&device, &MkfsOptions { block_size: Some(4096), ..MkfsOptions::default() }).unwrap();
    let found = diff_of(&one, &device.to_vec());
    assert!(
        has(&found, Kind::Superblock, "log_block_size") && has(&found, Kind::Superblock, "sizes")
    );
}

#[test]
fn trees_are_equal_wherever_they_lie() {
    let fill = |filesystem: &Filesystem| {
        filesystem.create_dir_all("/a/b").unwrap();
        filesystem.create("/a/file").unwrap().write_all(&[1; 100_000]).unwrap();
        filesystem.symlink("file", "/a/link").unwrap();
        filesystem.set_xattr("/a/file", "user.note", b"kept").unwrap();
        for path in ["/a/file", "/a/b", "/a", "/a/link", "/", "/lost+found"] {
            let time = Some(extant::Timestamp { seconds: 1000, nanoseconds: 7 });
            filesystem.set_times(path, time, time).unwrap();
        }
    };
    let mount = |block: u32| {
        let device = Arc::new(MemoryDevice::new(16 << 20));
        mkfs(&device, &MkfsOptions { block_size: Some(block), ..MkfsOptions::default() }).unwrap();
        MountOptions::new().mount(device).unwrap()
    };
    let (one, other) = (mount(1024), mount(4096));
    fill(&one);
    fill(&other);
    let compare = || {
        let mut found = Vec::new();
        let flow = trees(&one.root().unwrap(), &other.root().unwrap(), &mut |difference| {
            found.push(difference.to_string());
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        found
    };
    let time = Some(extant::Timestamp { seconds: 1000, nanoseconds: 7 });
    assert_eq!(compare(), Vec::<String>::new());
    let file = other.open_with("/a/file", extant::OpenOptions::new().write(true)).unwrap();
    file.write_at(&[2], 70_000).unwrap();
    other.set_permissions("/a/b", 0o700).unwrap();
    other.set_xattr("/a/file", "user.note", b"lost").unwrap();
    other.create("/a/b/new").unwrap();
    for path in ["/a/file", "/a/b"] {
        other.set_times(path, time, time).unwrap();
    }
    let expected = [
        "/a/b: mode: 0755 against 0700",
        "/a/b/new: name: missing against there",
        "/a/file: attribute user.note: 4 bytes, 6b657074 against 4 bytes, 6c6f7374",
        "/a/file: contents at byte 70000: 01010101010101.. against 02010101010101..",
    ];
    let found = compare();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(&start[..start.len().min(40)]), "{line} {start}");
    }
}
