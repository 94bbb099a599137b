//! Ranges of a file: allocated ahead, punched, zeroed, taken out, pushed in, also over delayed blocks (D22).

use std::sync::Arc;

use extant::FileExtentState::{Delayed, Unwritten, Written};
use extant::RangeChange::{Allocate, Collapse, Insert, PunchHole, Zero};
use extant::{DataMode, Errno, File, FileExtentState, Filesystem, MountOptions, RangeChange};
use extant_device::MemoryDevice;
use extant_testkit::{Random, RecordingDevice};

use crate::world::{STALE, World, assert_not_stale, few, mount, open, read, write};

const ALLOCATE: RangeChange = Allocate { keep_size: false };
const ALLOCATE_KEEP: RangeChange = Allocate { keep_size: true };
const ZERO: RangeChange = Zero { keep_size: false };

/// First block, blocks and state of each run.
fn runs(file: &File) -> Vec<(u32, u32, FileExtentState)> {
    file.extents().unwrap().iter().map(|run| (run.logical, run.len, run.state)).collect()
}

fn with_file(format: &[&str], test: impl Fn(&World, &Filesystem, &File)) {
    let world = World::new("ranges");
    let Some(image) = world.mkfs(16, format) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    test(&world, &fs, &file);
    drop(file);
    let before = read(&fs, "/a").unwrap();
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    assert!(read(&fs, "/a").unwrap() == before, "the device has other bytes than memory had");
}

#[test]
fn as_many_runs_are_told_as_are_asked_for() {
    with_file(&["-b", "4096"], |_, fs, file| {
        for block in [0, 2, 3, 5] {
            write(file, &[1; 4096], block * 4096);
        }
        let handle = fs.inode("/a").unwrap();
        let first = |from, most| -> Vec<(u32, u32, bool)> {
            let found = handle.first_extents_in(from..u64::MAX, most).unwrap();
            found.iter().map(|run| (run.logical, run.len, run.last)).collect()
        };
        assert_eq!(first(0, 2), [(0, 1, false), (2, 2, false)]);
        assert_eq!(first(4 * 4096, 2), [(5, 1, true)]);
        assert_eq!(first(0, 3).last(), Some(&(5, 1, true)));
        assert_eq!(first(0, 0), []);
    });
}

#[test]
fn d22_10_an_allocation_over_delayed_blocks_spends_their_promise() {
    with_file(&["-b", "4096"], |_, fs, file| {
        write(file, &[7; 16384], 8192);
        let (free, sectors) = (fs.statfs().free_blocks, file.metadata().unwrap().blocks);
        assert_eq!(sectors, 32);
        file.change_range(ALLOCATE, 0, 65536).unwrap();
        assert_eq!(runs(file), [(0, 16, Unwritten)]);
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.size, metadata.blocks), (65536, 128));
        assert_eq!(fs.statfs().free_blocks, free - 12);
        // Dirty bytes go to the place that was found for them.
        file.sync_all().unwrap();
        assert_eq!(runs(file), [(0, 2, Unwritten), (2, 4, Written), (6, 10, Unwritten)]);
        assert_eq!(fs.statfs().free_blocks, free - 12);
    });
}

#[test]
fn d22_10_blocks_behind_the_end_stay_until_it_is_cut() {
    with_file(&["-b", "4096"], |_, _, file| {
        file.change_range(ALLOCATE, 0, 65536).unwrap();
        write(file, &[1; 4096], 16384);
        write(file, &[2; 10], 100);
        assert_eq!(runs(file), [(0, 16, Unwritten)]);
        file.sync_all().unwrap();
        let synced = [(0, 1, Written), (1, 3, Unwritten), (4, 1, Written), (5, 11, Unwritten)];
        assert_eq!(runs(file), synced);
        file.change_range(ALLOCATE_KEEP, 65536, 65536).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.size, metadata.blocks), (65536, 256));
        write(file, &[3; 4096], 65536);
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().size, 69632);
        file.set_len(69632).unwrap();
        assert_eq!(file.metadata().unwrap().blocks, (17 + 1) * 8, "and a leaf for five extents");
    });
}

#[test]
fn d22_7_a_punch_gives_back_promises_and_zeroes_edges() {
    with_file(&["-b", "4096"], |_, fs, file| {
        let free = fs.statfs().free_blocks;
        write(file, &[7; 65536], 0);
        file.change_range(PunchHole, 16384, 16384).unwrap();
        assert_eq!(fs.statfs().free_blocks, free - 12);
        write(file, &[8; 100], 20480);
        file.change_range(PunchHole, 1000, 200).unwrap();
        assert_eq!(runs(file), [(0, 4, Delayed), (5, 1, Delayed), (8, 8, Delayed)]);
        let last: Vec<_> = file.extents().unwrap().iter().map(|run| run.last).collect();
        assert_eq!(last, [false, false, true]);
        file.sync_all().unwrap();
        assert_eq!(runs(file), [(0, 4, Written), (5, 1, Written), (8, 8, Written)]);
        let mut bytes = [0; 2000];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(n, &byte)| byte == if (1000..1200).contains(&n) { 0 } else { 7 })
        );
        // Nothing is punched behind the end of file.
        file.change_range(ALLOCATE_KEEP, 65536, 8192).unwrap();
        file.change_range(PunchHole, 65536, 8192).unwrap();
        assert_eq!(file.metadata().unwrap().blocks, 15 * 8);
        file.change_range(PunchHole, 61440, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().blocks, 14 * 8);
    });
}

#[test]
fn d22_11_a_zeroed_range_has_blocks_and_reads_as_zeros() {
    with_file(&["-b", "1024"], |_, _, file| {
        write(file, &[7; 10240], 0);
        file.sync_all().unwrap();
        write(file, &[8; 2048], 4096); // dirty over written
        write(file, &[8; 2048], 10240); // delayed
        file.change_range(ZERO, 1500, 13000).unwrap();
        assert_eq!(file.metadata().unwrap().size, 14500);
        assert_eq!(runs(file), [(0, 2, Written), (2, 13, Unwritten)]);
        file.change_range(Zero { keep_size: true }, 14336, 2048).unwrap();
        assert_eq!(file.metadata().unwrap().size, 14500);
        let mut bytes = vec![1; 14500];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == if n < 1500 { 7 } else { 0 }));
    });
}

#[test]
fn d22_12_what_lies_behind_moves_with_its_bytes() {
    for format in [&["-b", "1024"][..], &["-b", "1024", "-O", "bigalloc", "-C", "4096"]] {
        with_file(format, |_, _, file| {
            for n in 0..16 {
                write(file, &[n + 1; 4096], u64::from(n) * 4096);
            }
            file.change_range(Collapse, 8192, 12288).unwrap();
            file.change_range(Insert, 4096, 8192).unwrap();
            assert_eq!(file.metadata().unwrap().size, 15 * 4096);
            let mut bytes = vec![0; 15 * 4096];
            file.read_at(&mut bytes, 0).unwrap();
            let pieces: Vec<u8> = bytes.chunks(4096).map(|piece| piece[0]).collect();
            assert_eq!(pieces, [1, 0, 0, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
            assert!(bytes.chunks(4096).all(|piece| piece.iter().all(|&byte| byte == piece[0])));
        });
    }
}

/// A file of some hundred leaves: one transaction cannot move them all.
#[test]
fn a_long_shift_restarts_its_handle() {
    let world = World::new("shift");
    let Some(image) = world.mkfs(48, &["-b", "1024", "-J", "size=1"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let file = open(&fs, "/a");
    for n in 0..15_000 {
        write(&file, &[u8::try_from(n % 251 + 1).unwrap(); 1024], n * 2048);
    }
    file.sync_all().unwrap();
    let before = runs(&file).len();
    file.change_range(Insert, 3072, 1024).unwrap();
    file.change_range(Collapse, 0, 2048).unwrap();
    assert_eq!(runs(&file).len(), before - 1);
    drop(file);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    let bytes = read(&fs, "/a").unwrap();
    assert_eq!(bytes[0], 2);
    for n in 2_usize..15_000 {
        assert_eq!(usize::from(bytes[n * 2048 - 1024]), n % 251 + 1, "block {n}");
    }
}

#[test]
fn d22_13_indirect_blocks_can_only_be_punched() {
    with_file(&["-b", "1024", "-O", "^extent,^64bit"], |_, _, file| {
        write(file, &[7; 300 << 10], 0);
        for change in [ALLOCATE, ZERO, Collapse, Insert] {
            let error = file.change_range(change, 1024, 1024).unwrap_err();
            assert_eq!(error.errno(), Errno::OPNOTSUPP, "{change:?}");
        }
        file.change_range(PunchHole, 5000, 280_000).unwrap();
        file.sync_all().unwrap();
        file.change_range(PunchHole, 0, 2000).unwrap();
        let mut bytes = vec![1; 300 << 10];
        file.read_at(&mut bytes, 0).unwrap();
        let hole = |n| n < 2000 || (5000..285_000).contains(&n);
        assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == if hole(n) { 0 } else { 7 }));
    });
}

#[test]
fn a_range_that_a_change_cannot_have_is_refused() {
    with_file(&["-b", "1024", "-O", "bigalloc", "-C", "4096"], |_, fs, file| {
        write(file, &[7; 16384], 0);
        let errno =
            |change, offset, len| file.change_range(change, offset, len).unwrap_err().errno();
        assert_eq!(errno(ALLOCATE, 0, 0), Errno::INVAL);
        assert_eq!(errno(Collapse, 1024, 4096), Errno::INVAL);
        assert_eq!(errno(Insert, 4096, 1024), Errno::INVAL);
        assert_eq!(errno(Collapse, 8192, 8192), Errno::INVAL);
        assert_eq!(errno(Insert, 16384, 4096), Errno::INVAL);
        assert_eq!(errno(Insert, 4096, 1 << 42), Errno::FBIG);
        assert_eq!(errno(ALLOCATE, 1 << 43, 4096), Errno::FBIG);
        let reader = fs.open("/a").unwrap();
        assert!(reader.change_range(PunchHole, 0, 1024).is_err());
    });
}

#[test]
fn no_space_half_way_leaves_what_was_allocated() {
    for format in [&["-b", "1024", "-m", "0"][..], &["-b", "1024", "-m", "0", "-O", "^has_journal"]]
    {
        with_file(format, |_, fs, file| {
            write(file, &[7; 100], 0);
            let error = file.change_range(ALLOCATE, 0, 64 << 20).unwrap_err();
            assert_eq!(error.errno(), Errno::NOSPC);
            let metadata = file.metadata().unwrap();
            assert!(metadata.size > 8 << 20 && metadata.size % 1024 == 0, "{}", metadata.size);
            assert!(metadata.blocks * 512 >= metadata.size);
            file.change_range(PunchHole, 4096, 64 << 20).unwrap();
            file.sync_all().unwrap();
            assert!(fs.statfs().free_blocks > 8 << 10);
        });
    }
}

/// Every step of every change leaves an image that recovers, and shows nobody else's bytes.
#[test]
fn a_crash_within_a_change_recovers() {
    let world = World::new("crash");
    for options in [
        MountOptions::new(),
        MountOptions::new().unwritten_until_done(false),
        MountOptions::new().data_mode(DataMode::Journal),
    ] {
        let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
        let device = Arc::new(RecordingDevice::new(image.snapshot(), image.snapshot()));
        let fs = mount(&device, options).unwrap();
        let file = open(&fs, "/a");
        let from = device.log().events().len();
        for (change, offset, len) in [
            (ALLOCATE, 0, 40_000),
            (PunchHole, 3000, 9000),
            (ZERO, 20_000, 30_000),
            (Insert, 4096, 2048),
            (Collapse, 1024, 5120),
        ] {
            write(&file, &[7; 3000], offset + 500);
            file.change_range(change, offset, len).unwrap();
            write(&file, &[8; 1000], offset);
            fs.sync_all().unwrap();
        }
        world.every_crash(&device, few(from), |fs, _| assert_not_stale(fs, "/a"));
    }
}

/// One file's bytes as they should be.
#[derive(Default)]
struct Model(Vec<u8>);

impl Model {
    fn write(&mut self, byte: u8, offset: usize, len: usize) {
        self.0.resize(self.0.len().max(offset + len), 0);
        self.0[offset..offset + len].fill(byte);
    }

    fn change(&mut self, change: RangeChange, offset: usize, len: usize) {
        let (size, end) = (self.0.len(), offset + len);
        match change {
            Allocate { keep_size } | Zero { keep_size } if !keep_size => {
                self.0.resize(size.max(end), 0);
            }
            _ => {}
        }
        let within = offset.min(self.0.len())..end.min(self.0.len());
        match change {
            Allocate { .. } => {}
            Zero { .. } | PunchHole => self.0[within].fill(0),
            Collapse => drop(self.0.drain(within)),
            Insert => drop(self.0.splice(offset..offset, vec![0; len])),
        }
    }
}

fn random_changes(
    image: &MemoryDevice,
    world: &World,
    options: MountOptions,
    seed: u64,
    unit: u64,
) {
    let device = Arc::new(image.snapshot());
    let fs = mount(&device, options).unwrap();
    let (mut random, mut model, file) = (Random::new(seed), Model::default(), open(&fs, "/a"));
    for step in 0..60 {
        let at = |random: &mut Random| {
            let limit = if random.coin() { 300_000 } else { 20_000 };
            random.below(limit)
        };
        let (offset, len) = (at(&mut random), 1 + at(&mut random) / 4);
        let aligned = (offset / unit * unit, len.next_multiple_of(unit));
        let (index, length) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
        let change = match random.below(10) {
            0..4 => {
                let byte = u8::try_from(random.below(200) + 1).unwrap();
                write(&file, &vec![byte; length], offset);
                model.write(byte, index, length);
                continue;
            }
            4 => Allocate { keep_size: random.coin() },
            5 => PunchHole,
            6 => Zero { keep_size: random.coin() },
            7 => Collapse,
            8 => Insert,
            _ if random.coin() => {
                file.set_len(offset).unwrap();
                model.0.resize(index, 0);
                continue;
            }
            _ => {
                file.sync_all().unwrap();
                continue;
            }
        };
        let (offset, len) = match change {
            Collapse | Insert => aligned,
            _ => (offset, len),
        };
        let size = u64::try_from(model.0.len()).unwrap();
        let fits = match change {
            Collapse => offset + len < size,
            Insert => offset < size,
            _ => true,
        };
        let done = file.change_range(change, offset, len);
        assert_eq!(
            done.is_ok(),
            fits,
            "seed {seed} step {step}: {change:?} {offset} {len}: {done:?}"
        );
        if fits {
            model.change(change, usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
        }
        assert!(
            read(&fs, "/a").unwrap() == model.0,
            "seed {seed} step {step}: {change:?} {offset} {len}"
        );
    }
    drop(file);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap_or_else(|said| panic!("seed {seed}: {said}"));
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    let bytes = read(&fs, "/a").unwrap();
    assert!(bytes == model.0 && !bytes.contains(&STALE), "seed {seed}: on the device");
}

#[test]
fn random_changes_keep_the_bytes() {
    let world = World::new("random");
    for (format, unit) in [
        (&["-b", "1024"][..], 1024),
        (&["-b", "4096"], 4096),
        (&["-b", "1024", "-O", "bigalloc", "-C", "8192"], 8192),
        (&["-b", "2048", "-O", "^has_journal"], 2048),
    ] {
        let Some(image) = world.mkfs(16, format) else { return };
        for seed in 0..15 {
            let options = match seed % 5 {
                4 if !format.contains(&"^has_journal") => {
                    MountOptions::new().data_mode(DataMode::Journal)
                }
                1 => MountOptions::new().unwritten_until_done(false),
                2 => MountOptions::new().delayed_allocation(false),
                3 => MountOptions::new().cache_bytes(1 << 20),
                _ => MountOptions::new(),
            };
            random_changes(&image, &world, options, seed, unit);
        }
    }
}

/// D23.4: who asks where a delayed block is makes it have a place; set-aside blocks, holes and contents of inodes have none.
#[test]
fn d23_4_a_block_that_is_asked_for_gets_its_place_first() {
    let world = World::new("fibmap");
    let Some(image) = world.mkfs(16, &["-b", "1024", "-O", "inline_data"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let (file, small) = (open(&fs, "/f"), open(&fs, "/small"));
    write(&small, b"in the inode", 0);
    write(&file, &[7; 3000], 2048);
    file.change_range(ALLOCATE, 8192, 4096).unwrap();
    assert_eq!(fs.kernel_counters().delayed_allocation_blocks, 3);
    let places: Vec<_> = (0..9).map(|block| file.block_at(block).unwrap()).collect();
    assert_eq!(fs.kernel_counters().delayed_allocation_blocks, 0);
    assert_eq!(small.block_at(0).unwrap(), None);
    assert_eq!(file.block_at(u32::MAX).unwrap(), None);
    drop((file, small));
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
    for (block, place) in places.iter().enumerate() {
        // debugfs shows the place of an unwritten block too.
        let told = world.debugfs(&device, &format!("bmap /f {block}"));
        let expected = if block == 8 { None } else { Some(place.unwrap_or(0).to_string()) };
        assert!(expected.is_none_or(|place| told.trim() == place), "{block}: {told}");
        assert_eq!(place.is_some(), (2..5).contains(&block));
    }
}
