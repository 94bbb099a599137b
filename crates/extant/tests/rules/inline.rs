//! Small files lie in their inode: what fits there, how it moves out, and what a crash finds (D6, D15.5).

use std::sync::Arc;
use std::time::Duration;

use extant::{
    DataMode, Errno, Error, File, FileExtentState, Filesystem, MountOptions, OpenOptions,
    RangeChange,
};
use extant_device::{MemoryDevice, OperationKind};
use extant_format::InodeFlags;
use extant_testkit::{Fault, FaultDevice, GateDevice, RecordingDevice};

use crate::world::{World, few, mount, open, read, write};

const FORMAT: &[&str] = &["-b", "4096", "-O", "inline_data"];
/// What an inode of 256 bytes holds without other attributes.
const ROOM: usize = 128;

fn is_inline(fs: &Filesystem, path: &str) -> bool {
    fs.metadata(path).unwrap().flags.contains(InodeFlags::INLINE_DATA)
}

fn sectors(fs: &Filesystem, path: &str) -> u64 {
    fs.metadata(path).unwrap().blocks
}

/// Each kind of mount that places data in another way.
fn every_mount() -> [MountOptions; 5] {
    [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Writeback),
        MountOptions::new().data_mode(DataMode::Writeback).unwritten_until_done(false),
    ]
}

fn bytes(len: usize, from: u8) -> Vec<u8> {
    (0..len).map(|n| from.wrapping_add(u8::try_from(n % 200).unwrap())).collect()
}

#[test]
fn d6_1_a_new_file_lies_in_its_inode_as_long_as_it_fits() {
    let world = World::new("inline-sizes");
    for (inode, room) in [("256", ROOM), ("512", 384), ("1024", 896)] {
        let Some(image) = world.mkfs(8, &["-b", "1024", "-I", inode, "-O", "inline_data"]) else {
            return;
        };
        for options in every_mount() {
            let device = Arc::new(image.snapshot());
            let fs = mount(&device, options).unwrap();
            let sizes = [0, 1, 59, 60, 61, room - 1, room, room + 1, 3000];
            for size in sizes {
                write(&open(&fs, &format!("/{size}")), &bytes(size, 1), 0);
            }
            fs.sync_all().unwrap();
            for size in sizes {
                let path = format!("/{size}");
                let fits = (1..=room).contains(&size);
                assert_eq!(is_inline(&fs, &path), fits, "{size} bytes, inodes of {inode}");
                let wanted = if fits { size.div_ceil(512) } else { size.div_ceil(1024) * 2 };
                assert_eq!(sectors(&fs, &path), u64::try_from(wanted).unwrap());
                assert_eq!(read(&fs, &path).unwrap(), bytes(size, 1));
            }
            fs.check_invariants(true).unwrap();
            fs.unmount().unwrap();
            world.e2fsck(&device).unwrap();
            let fs = mount(&device, MountOptions::read_only()).unwrap();
            for size in sizes {
                assert_eq!(read(&fs, &format!("/{size}")).unwrap(), bytes(size, 1));
            }
        }
    }
}

/// Of every size of blocks, those too that the kernel does not mount; the largest without a journal, to be small enough.
#[test]
fn d6_1_contents_move_in_and_out_with_blocks_of_every_size() {
    let world = World::new("inline-blocks");
    for (block, inode, room, features) in [
        ("1024", "1024", 896, "inline_data"),
        ("2048", "256", ROOM, "inline_data,^metadata_csum"),
        ("4096", "4096", 3968, "inline_data"),
        ("8192", "256", ROOM, "inline_data,^has_journal"),
        ("16384", "8192", 8064, "inline_data,^has_journal"),
        ("32768", "512", 384, "inline_data,^has_journal,^metadata_csum"),
        ("65536", "2048", 1920, "inline_data,^has_journal"),
    ] {
        let format = ["-b", block, "-I", inode, "-N", "64", "-O", features];
        let Some(image) = world.mkfs(if room > 4000 || block.len() > 4 { 40 } else { 16 }, &format)
        else {
            return;
        };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        let kept = open(&fs, "/kept");
        write(&kept, &bytes(room - 10, 1), 0);
        kept.sync_all().unwrap();
        write(&kept, &bytes(10, 5), u64::try_from(room - 10).unwrap());
        let grown = open(&fs, "/grown");
        write(&grown, &bytes(room, 1), 0);
        grown.sync_all().unwrap();
        write(&grown, &bytes(100_000, 3), 40);
        fs.create_dir("/d").unwrap();
        for n in 0..room / 8 {
            fs.hard_link("/kept", format!("/d/{n:04}")).unwrap();
        }
        fs.sync_all().unwrap();
        assert!(is_inline(&fs, "/kept") && !is_inline(&fs, "/grown") && !is_inline(&fs, "/d"));
        assert_eq!(fs.read_dir("/d").unwrap().count(), room / 8);
        fs.check_invariants(true).unwrap();
        drop((kept, grown));
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        let wanted = [bytes(room - 10, 1), bytes(10, 5)].concat();
        assert_eq!(read(&fs, "/kept").unwrap(), wanted, "blocks of {block}");
        let path = world.other_file("out", b"");
        world.debugfs(&device, &format!("dump /kept {path}"));
        assert_eq!(std::fs::read(path).unwrap(), wanted, "as debugfs reads it");
        let wanted = [bytes(40, 1), bytes(100_000, 3)].concat();
        assert_eq!(read(&fs, "/grown").unwrap(), wanted);
    }
}

#[test]
fn d6_1_small_inodes_hold_nothing() {
    let world = World::new("inline-128");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-I", "128"]) else { return };
    let image = world.changed_by_debugfs(&image, "feature inline_data\n");
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/f"), &[1; 10], 0);
    fs.create_dir("/d").unwrap();
    write(&open(&fs, "/d/f"), &[1; 10], 0);
    fs.sync_all().unwrap();
    assert!(!is_inline(&fs, "/f") && !is_inline(&fs, "/d"));
    assert_eq!((sectors(&fs, "/f"), sectors(&fs, "/d")), (2, 2));
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn d6_4_bytes_change_in_place_and_between_them_are_zeros() {
    let world = World::new("inline-place");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    let before = fs.counters().allocator_searches;
    write(&file, &[1; 10], 0);
    write(&file, &[2; 20], 50); // over the border between block area and attribute
    write(&file, &[3; 5], 120);
    write(&file, &[4; 4], 58);
    let mut wanted = vec![0; 125];
    wanted[..10].fill(1);
    wanted[50..70].fill(2);
    wanted[120..].fill(3);
    wanted[58..62].fill(4);
    assert_eq!(read(&fs, "/f").unwrap(), wanted);
    file.set_len(55).unwrap();
    file.set_len(60).unwrap();
    write(&file, &[5; 1], 100);
    wanted.truncate(55);
    wanted.resize(101, 0);
    wanted[100] = 5;
    assert_eq!(read(&fs, "/f").unwrap(), wanted);
    assert_eq!(file.seek_data(3).unwrap(), Some(3));
    assert_eq!(file.seek_hole(3).unwrap(), Some(101));
    assert_eq!(fs.counters().allocator_searches, before);
    assert!(is_inline(&fs, "/f"));
    drop(file);
    fs.unmount().unwrap();
    let said = world.debugfs(&device, "cat /f");
    assert_eq!(said.as_bytes(), wanted, "as debugfs reads it");
    world.e2fsck(&device).unwrap();
}

#[test]
fn d6_3_on_the_way_out_both_copies_count_and_the_new_one_is_seen() {
    let world = World::new("inline-way");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    write(&file, &bytes(110, 1), 0);
    file.sync_all().unwrap();
    let free = fs.statfs().free_blocks;
    write(&file, &bytes(4000, 7), 110);
    assert_eq!((sectors(&fs, "/f"), fs.statfs().free_blocks), (25, free - 2));
    write(&file, &[9; 3], 2);
    write(&file, &[8; 1], 30_000);
    let mut wanted = bytes(110, 1);
    wanted.extend(bytes(4000, 7));
    wanted[2..5].fill(9);
    wanted.resize(30_001, 0);
    wanted[30_000] = 8;
    assert_eq!(read(&fs, "/f").unwrap(), wanted);
    let states: Vec<_> =
        file.extents().unwrap().iter().map(|run| (run.logical, run.len, run.state)).collect();
    let delayed = FileExtentState::Delayed;
    assert_eq!(states, [(0, 2, delayed), (7, 1, delayed)]);
    assert_eq!(file.seek_hole(0).unwrap(), Some(8192));
    assert_eq!(file.seek_data(8192).unwrap(), Some(28_672));
    fs.check_invariants(true).unwrap();
    // A part that does not begin with the first block takes that along.
    let steps = extant::RangeSync { wait_before: false, write: true, wait_after: true };
    file.sync_range(28_672..32_768, steps).unwrap();
    assert!(!is_inline(&fs, "/f"));
    assert_eq!(sectors(&fs, "/f"), 24);
    assert_eq!(read(&fs, "/f").unwrap(), wanted);
    drop(file);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

type Move = fn(&File) -> Result<(), Error>;

/// What moves contents out at once.
const MOVES: [Move; 6] = [
    |file| file.change_range(RangeChange::Allocate { keep_size: true }, 0, 10),
    |file| file.change_range(RangeChange::PunchHole, 200, 10),
    |file| file.change_range(RangeChange::Zero { keep_size: false }, 4096, 10),
    |file| file.store_at(b"", 5).map(drop),
    |file| file.set_len(101),
    |file| file.set_len(50_000),
];

#[test]
fn d6_5_whoever_needs_blocks_moves_the_contents_out_at_once() {
    let world = World::new("inline-eager");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    for (n, moves) in MOVES.iter().enumerate() {
        for delayed in [false, true] {
            let device = Arc::new(image.snapshot());
            let fs = mount(&device, MountOptions::new()).unwrap();
            let file = open(&fs, "/f");
            let mut wanted = bytes(100, 1);
            write(&file, &wanted, 0);
            if delayed {
                write(&file, &[7; 60], 90); // the contents are on their way already
                wanted.truncate(90);
                wanted.extend([7; 60]);
                file.set_len(100).unwrap();
                wanted.truncate(100);
            }
            moves(&file).unwrap();
            assert!(!is_inline(&fs, "/f"), "{n} {delayed}");
            assert!(sectors(&fs, "/f") >= 8, "{n} {delayed}");
            let size = usize::try_from(file.metadata().unwrap().size).unwrap();
            wanted.resize(size, 0);
            assert_eq!(read(&fs, "/f").unwrap(), wanted, "{n} {delayed}");
            // It never goes back.
            file.set_len(0).unwrap();
            write(&file, &[1; 10], 0);
            file.sync_all().unwrap();
            assert!(!is_inline(&fs, "/f"));
            fs.check_invariants(true).unwrap();
            drop(file);
            fs.unmount().unwrap();
            world.e2fsck(&device).unwrap();
        }
    }
}

#[test]
fn d6_5_past_the_cache_goes_through_it_while_the_contents_are_inside() {
    let world = World::new("inline-direct");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/f"), &[1; 100], 0);
    let direct = || OpenOptions::new().read(true).write(true).direct(true);
    let file = fs.open_with("/f", direct()).unwrap();
    let mut found = [0; 512];
    assert_eq!(file.read_at(&mut found, 0).unwrap(), 100);
    assert_eq!(found[..100], [1; 100]);
    assert_eq!(file.write_at(&[2; 512], 0).unwrap(), 512);
    file.sync_all().unwrap();
    assert_eq!(read(&fs, "/f").unwrap(), [2; 512]);
    // And a file that was written past it gets no contents inside.
    let file = fs.open_with("/g", direct().create(true)).unwrap();
    assert_eq!(file.write_at(&[3; 4096], 0).unwrap(), 4096);
    file.set_len(0).unwrap();
    write(&open(&fs, "/g"), &[4; 10], 0);
    fs.sync_all().unwrap();
    assert!(!is_inline(&fs, "/g"));
    drop(file);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn d6_6_a_cut_on_the_way_out_gives_promises_back_and_keeps_the_bytes() {
    let world = World::new("inline-cut");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    for size in [0, 1, 40, 60, 99, 100] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, MountOptions::new()).unwrap();
        let free = fs.statfs().free_blocks;
        let file = open(&fs, "/f");
        write(&file, &bytes(100, 1), 0);
        file.sync_all().unwrap();
        write(&file, &bytes(20_000, 3), 50);
        file.set_len(size).unwrap();
        let mut wanted = bytes(100, 1);
        wanted.truncate(50);
        wanted.extend(bytes(50, 3));
        wanted.truncate(usize::try_from(size).unwrap());
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
        // Contents that are not cut go on their way: their block stays promised.
        let promised = u64::from(size == 100);
        assert_eq!(fs.statfs().free_blocks, free - promised, "{size}");
        fs.check_invariants(true).unwrap();
        file.sync_all().unwrap();
        assert_eq!(sectors(&fs, "/f"), if size == 0 { 0 } else { 8 });
        write(&file, &[5; 20], size);
        wanted.extend([5; 20]);
        file.sync_all().unwrap();
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn d6_6_a_file_that_goes_on_its_way_out_leaves_no_promise() {
    let world = World::new("inline-gone");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let free = fs.statfs().free_blocks;
    for n in 0..3 {
        let file = open(&fs, &format!("/{n}"));
        write(&file, &[1; 100], 0);
        if n > 0 {
            write(&file, &[2; 9000], 100);
        }
        if n == 2 {
            file.inode().set_xattr("user.large", [7; 900]).unwrap();
        }
        fs.remove_file(format!("/{n}")).unwrap();
        drop(file);
    }
    fs.sync_all().unwrap();
    assert_eq!(fs.statfs().free_blocks, free);
    fs.check_invariants(true).unwrap();
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn attributes_and_contents_share_the_inode_and_neither_takes_from_the_other() {
    let world = World::new("inline-xattr");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    // With an entry of 20 bytes and its value, 68 - 20 - 40 bytes are left for ours.
    let beside = open(&fs, "/beside");
    beside.inode().set_xattr("user.a", [1; 40]).unwrap();
    write(&beside, &bytes(68, 1), 0);
    assert!(is_inline(&fs, "/beside"));
    write(&beside, &[2; 1], 68);
    beside.sync_all().unwrap();
    assert!(!is_inline(&fs, "/beside"));
    // Contents that fill it send an attribute to a block, and an attribute that fills it keeps contents out.
    let full = open(&fs, "/full");
    write(&full, &bytes(ROOM, 3), 0);
    full.inode().set_xattr("user.a", [1; 4]).unwrap();
    write(&full, &[9; 20], 0);
    full.sync_all().unwrap();
    assert!(is_inline(&fs, "/full"));
    assert_eq!(sectors(&fs, "/full"), 1 + 8);
    for (value, fits) in [(44, true), (48, false), (52, false)] {
        let path = format!("/{value}");
        let file = open(&fs, &path);
        file.inode().set_xattr("user.a", vec![1; value]).unwrap();
        write(&file, &[1; 10], 0);
        file.sync_all().unwrap();
        assert_eq!(is_inline(&fs, &path), fits, "beside a value of {value} bytes");
    }
    // What an attribute leaves can be used again.
    let freed = open(&fs, "/freed");
    freed.inode().set_xattr("user.a", [1; 40]).unwrap();
    write(&freed, &bytes(60, 5), 0);
    freed.inode().remove_xattr("user.a").unwrap();
    write(&freed, &bytes(ROOM, 6), 0);
    freed.sync_all().unwrap();
    assert!(is_inline(&fs, "/freed"));
    // Without room for any value not even what is there already may be changed in place.
    let squeezed = open(&fs, "/squeezed");
    write(&squeezed, &[1; 30], 0);
    squeezed.inode().set_xattr("user.a", [1; 48]).unwrap();
    assert_eq!(sectors(&fs, "/squeezed"), 1);
    write(&squeezed, &[2; 5], 0);
    squeezed.sync_all().unwrap();
    assert!(!is_inline(&fs, "/squeezed"));
    assert_eq!(read(&fs, "/squeezed").unwrap(), [[2; 5].as_slice(), &[1; 25]].concat());
    assert_eq!(fs.xattr("/squeezed", "user.a").unwrap(), [1; 48]);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

/// Fills the volume to the last block.
fn fill(fs: &Filesystem) {
    let file = open(fs, "/filler");
    let mut at = 0;
    for piece in [1 << 16, 1024] {
        while let Ok(count) = file.write_at(&vec![7; piece], at) {
            at += u64::try_from(count).unwrap();
        }
    }
    file.sync_all().unwrap();
}

#[test]
fn no_space_leaves_the_contents_where_they_are() {
    let world = World::new("inline-full");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-m", "0", "-O", "inline_data"]) else {
        return;
    };
    for options in every_mount() {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/f");
        write(&file, &bytes(100, 1), 0);
        fill(&fs);
        let refused = |outcome: Result<(), Error>| {
            assert_eq!(outcome.expect_err("there is no block").errno(), Errno::NOSPC);
            assert!(is_inline(&fs, "/f"));
            assert_eq!(read(&fs, "/f").unwrap(), bytes(100, 1));
            fs.check_invariants(true).unwrap();
        };
        refused(file.write_at(&[2; 5000], 0).map(drop));
        refused(file.set_len(101));
        refused(file.change_range(RangeChange::Allocate { keep_size: true }, 0, 10));
        refused(file.store_at(b"x", 0).map(drop));
        write(&file, &[3; 28], 100);
        fs.remove_file("/filler").unwrap();
        fs.sync_all().unwrap();
        write(&file, &[4; 1], 128);
        file.sync_all().unwrap();
        assert!(!is_inline(&fs, "/f"));
        let wanted = [bytes(100, 1), vec![3; 28], vec![4; 1]].concat();
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn a_map_shows_where_contents_lie_in_the_inode() {
    let world = World::new("inline-map");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/f");
    assert_eq!(file.extents().unwrap(), []);
    write(&file, b"found where the map says", 0);
    fs.sync_all().unwrap();
    let extents = file.extents().unwrap();
    let FileExtentState::Inline { at, bytes: 24 } = extents[0].state else {
        panic!("{extents:?}");
    };
    assert!(extents[0].last && extents.len() == 1);
    assert_eq!(file.extents_in(24..100).unwrap(), []);
    drop(file);
    fs.unmount().unwrap();
    let at = usize::try_from(at).unwrap();
    assert_eq!(&device.to_vec()[at..at + 24], b"found where the map says");
}

/// Runs `change` on a file that was synced with `before` in its inode, and looks at every crash from then on: the first
/// bytes are the old or the new ones, all of them.
fn every_crash_of(name: &str, format: &[&str], change: impl Fn(&Filesystem, &File)) {
    let world = World::new(name);
    let Some(image) = world.mkfs(8, format) else { return };
    for options in every_mount() {
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/f");
        write(&file, &bytes(100, 1), 0);
        file.sync_all().unwrap();
        let from = device.position();
        change(&fs, &file);
        file.sync_all().unwrap();
        let (synced, wanted) = (device.position(), read(&fs, "/f").unwrap());
        fs.sync_all().unwrap();
        world.every_crash(&device, few(from), |fs, completed| {
            let found = read(fs, "/f").unwrap();
            assert!(found.len() >= 50, "{} bytes", found.len());
            assert_eq!(found[..50], bytes(50, 1), "what was synced first");
            if completed >= synced {
                assert_eq!(found, wanted);
            }
        });
    }
}

#[test]
fn d15_5_a_crash_finds_contents_that_grow_out_in_one_place_or_the_other() {
    for format in [FORMAT, &["-b", "1024", "-O", "inline_data,^extent,^64bit"]] {
        every_crash_of("inline-grow", format, |fs, file| {
            write(file, &[7; 9000], 100);
            write(&open(fs, "/other"), &[1; 50], 0);
            open(fs, "/other").sync_all().unwrap();
        });
    }
}

#[test]
fn d6_5_a_crash_finds_contents_that_are_moved_out_in_one_place_or_the_other() {
    for moves in [MOVES[0], MOVES[3], MOVES[5]] {
        every_crash_of("inline-move", FORMAT, |_, file| moves(file).unwrap());
    }
}

#[test]
fn d6_6_a_crash_finds_contents_that_are_cut_as_they_were_or_cut() {
    every_crash_of("inline-cut-crash", FORMAT, |_, file| {
        write(file, &[7; 5000], 100);
        file.set_len(70).unwrap();
    });
    every_crash_of("inline-cut-inside", FORMAT, |fs, file| {
        file.set_len(70).unwrap();
        file.sync_all().unwrap();
        write(file, &[7; 10], 70);
        fs.sync_all().unwrap();
    });
}

/// Where no block can be found for a reason that is not "no space", other data would be given up.
#[test]
fn contents_stay_on_their_way_while_no_bitmap_can_be_read() {
    let world = World::new("inline-fault");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    for options in [MountOptions::new(), MountOptions::new().unwritten_until_done(false)] {
        let device = Arc::new(FaultDevice::new(image.snapshot()));
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/f");
        write(&file, &bytes(100, 1), 0);
        file.sync_all().unwrap();
        write(&file, &bytes(9000, 3), 50);
        write(&file, &[9; 10], 30_000);
        let mut wanted = [bytes(50, 1), bytes(9000, 3)].concat();
        wanted.resize(30_000, 0);
        wanted.extend([9; 10]);
        device.add(Fault { onwards: true, ..Fault::fail(OperationKind::Read, 1) });
        assert!(file.sync_all().is_err());
        assert!(device.struck() > 0);
        assert!(is_inline(&fs, "/f"));
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
        device.heal();
        fs.check_invariants(false).unwrap();
        file.sync_all().unwrap();
        assert!(!is_inline(&fs, "/f"));
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(device.inner()).unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        assert_eq!(read(&fs, "/f").unwrap(), wanted);
    }
}

/// While the block that contents move to is on its way to the device, no commit may drop the copy in the inode.
#[test]
fn d15_5_a_commit_waits_for_the_block_that_contents_move_to() {
    let world = World::new("inline-commit");
    let Some(image) = world.mkfs(8, FORMAT) else { return };
    let device = Arc::new(GateDevice::new(image));
    let fs = mount(&device, MountOptions::new()).unwrap();
    let (file, other) = (open(&fs, "/f"), open(&fs, "/other"));
    write(&file, &bytes(100, 1), 0);
    file.sync_all().unwrap();
    write(&file, &[7; 5000], 100);
    write(&other, &[2; 10], 0);
    device.hold_next(OperationKind::Write);
    let crash = std::thread::scope(|scope| {
        let writing = scope.spawn(|| file.sync_all().unwrap());
        device.wait_held();
        let committing = scope.spawn(|| other.sync_all().unwrap());
        // Long enough for a commit that does not wait.
        std::thread::sleep(Duration::from_millis(300));
        let crash = device.inner().snapshot();
        device.open();
        writing.join().unwrap();
        committing.join().unwrap();
        crash
    });
    let sees = |image: &MemoryDevice, len: usize| {
        world.recovers(image, "while the block was written", |fs| {
            let found = read(fs, "/f").unwrap();
            assert_eq!((found.len(), &found[..100]), (len, bytes(100, 1).as_slice()));
        });
    };
    sees(&crash, 100);
    sees(device.inner(), 5100);
}

/// An empty file whose inode has room for contents gets a block before it grows: what was there before is not shown (D8.4).
#[test]
fn d8_4_contents_that_move_out_empty_leave_zeros() {
    let world = World::new("inline-empty");
    for options in [MountOptions::new(), MountOptions::new().delayed_allocation(false)] {
        let Some(image) = world.mkfs(8, FORMAT) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, options).unwrap();
        for (name, was_written) in [("/cut", true), ("/fresh", false)] {
            for (way, grows) in [("size", true), ("range", false), ("kept", false)] {
                let file = open(&fs, &format!("{name}-{way}"));
                if was_written {
                    write(&file, &[7; 100], 0);
                    file.set_len(0).unwrap();
                }
                if !grows {
                    let change = extant::RangeChange::Allocate { keep_size: way == "kept" };
                    file.change_range(change, 0, 50_000).unwrap();
                }
                file.set_len(50_000).unwrap();
            }
        }
        fs.sync_all().unwrap();
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        for name in ["/cut-size", "/cut-range", "/cut-kept", "/fresh-size", "/fresh-range"] {
            assert!(read(&fs, name).unwrap() == [0; 50_000], "{name}");
        }
    }
}

/// D6: while the contents are in the inode, a page behind the first has no blocks to look up, and keeps what was written to it in
/// part when all of it is read. Kernel `ext4_readpage_inline` zeroes the page.
#[test]
fn d6_a_later_page_of_a_file_in_its_inode_keeps_newer_bytes() {
    let world = World::new("inline-page");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-I", "512", "-O", "inline_data"]) else {
        return;
    };
    let fs = mount(&Arc::new(image), MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    write(&file, &bytes(100, 1), 0);
    write(&file, &bytes(1024, 50), 5120);
    write(&file, &bytes(10, 9), 20_000);
    assert!(is_inline(&fs, "/a"), "nothing has been written back");
    let mut expected = vec![0; 20_010];
    expected[..100].copy_from_slice(&bytes(100, 1));
    expected[5120..6144].copy_from_slice(&bytes(1024, 50));
    expected[20_000..].copy_from_slice(&bytes(10, 9));
    let mut page = vec![7; 4096];
    assert_eq!(file.read_at(&mut page, 4096).unwrap(), 4096);
    assert!(page == expected[4096..8192]);
    assert!(read(&fs, "/a").unwrap() == expected);
    fs.sync_all().unwrap();
    assert!(!is_inline(&fs, "/a") && read(&fs, "/a").unwrap() == expected);
}
