use std::sync::Arc;

use extant_device::FileDevice;
use extant_format::InodeNumber;
use extant_format::cast::u64_from;
use extant_testkit::oracle;

use super::mount;
use crate::caller::Caller;
use crate::options::{DataMode, MountOptions};
use crate::time::{SystemClock, SystemEntropy};

fn mounted(path: &std::path::Path, options: MountOptions) -> Arc<super::Volume> {
    let device = Arc::new(FileDevice::open(path).unwrap());
    mount(options, device, Arc::new(SystemClock::default()), Arc::new(SystemEntropy)).unwrap()
}

#[test]
fn a_file_grows_and_is_read_back() {
    let scratch = oracle::Scratch::new("grow");
    let image = scratch.path("image");
    if oracle::mkfs(&image, 256 << 20, &[]).is_none() {
        return;
    }
    let small = scratch.path("small");
    std::fs::write(&small, b"hello").unwrap();
    oracle::run(
        "debugfs",
        &["-w", "-R", &format!("write {} a", small.display()), image.to_str().unwrap()],
    )
    .unwrap();
    oracle::e2fsck(&image).unwrap();
    for options in [
        MountOptions::new(),
        MountOptions::new().delayed_allocation(false),
        MountOptions::new().unwritten_until_done(false),
    ] {
        let volume = mounted(&image, options);
        let inode = volume.inode(InodeNumber::new(12).unwrap()).unwrap();
        let open = volume.open_file(&inode, true).unwrap();
        let mut buffer = [0; 5];
        volume.read_file(&inode, &open, 0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        let chunk: Vec<u8> = (0..4096_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for n in 1..4096_u64 {
            assert_eq!(
                volume.write_file(&Caller::ROOT, &inode, Some(n * 4096), &chunk).unwrap(),
                4096
            );
        }
        volume.sync_file(&inode, &open, false).unwrap();
        println!("{:?}", volume.extents(&inode, &(0..u64::MAX), usize::MAX).unwrap());
        println!("{:?}", volume.counters());
        let mut back = vec![0; 4096];
        volume.read_file(&inode, &open, 4096 * 100, &mut back).unwrap();
        assert_eq!(back, chunk);
        volume.truncate(&Caller::ROOT, &inode, 5).unwrap();
        volume.write_file(&Caller::ROOT, &inode, Some(1 << 20), &chunk).unwrap();
        volume.close_file(&inode, true);
        volume.unmount().unwrap();
        drop((inode, volume));
        oracle::e2fsck(&image).unwrap();
    }
}

/// Numbers that look random and are the same each time.
struct Steps(u64);

impl Steps {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Writes, cuts, reads and syncs one file and a plain copy of it, which have to agree.
fn exercise(volume: &super::Volume, number: u32, seed: u64, steps: u32) {
    let inode = volume.inode(InodeNumber::new(number).unwrap()).unwrap();
    let open = volume.open_file(&inode, true).unwrap();
    volume.truncate(&Caller::ROOT, &inode, 0).unwrap();
    let (mut model, mut random) = (Vec::<u8>::new(), Steps(seed));
    for step in 0..steps {
        match random.next(10) {
            0..=5 => {
                let at = usize::try_from(random.next(3 << 20)).unwrap();
                let len = usize::try_from(1 + random.next(64 << 10)).unwrap();
                let bytes: Vec<u8> = (0..len)
                    .map(|n| {
                        u8::try_from((n + at + usize::try_from(step).unwrap()) % 255 + 1).unwrap()
                    })
                    .collect();
                let written =
                    volume.write_file(&Caller::ROOT, &inode, Some(u64_from(at)), &bytes).unwrap();
                assert_eq!(written, len);
                if model.len() < at + len {
                    model.resize(at + len, 0);
                }
                model[at..at + len].copy_from_slice(&bytes);
            }
            6 => {
                let size = usize::try_from(random.next(3 << 20)).unwrap();
                volume.truncate(&Caller::ROOT, &inode, u64_from(size)).unwrap();
                model.resize(size, 0);
            }
            7 => volume.sync_file(&inode, &open, random.next(2) == 0).unwrap(),
            _ => {
                let mut back = vec![0; model.len() + 10];
                let count = volume.read_file(&inode, &open, 0, &mut back).unwrap();
                assert_eq!(count, model.len(), "step {step}");
                let differs = back[..count].iter().zip(&model).position(|(a, b)| a != b);
                assert_eq!(
                    differs,
                    None,
                    "step {step}: {} against {}",
                    back[differs.unwrap_or(0)],
                    model[differs.unwrap_or(0)]
                );
            }
        }
    }
    volume.close_file(&inode, true);
}

#[test]
fn threads_write_side_by_side_in_little_memory() {
    let scratch = oracle::Scratch::new("side");
    let image = scratch.path("image");
    for block_size in ["1024", "4096", "65536"] {
        if oracle::mkfs(&image, 128 << 20, &["-b", block_size]).is_none() {
            return;
        }
        let small = scratch.path("small");
        std::fs::write(&small, b"hello").unwrap();
        for name in ["a", "b", "c", "d"] {
            oracle::run(
                "debugfs",
                &[
                    "-w",
                    "-R",
                    &format!("write {} {name}", small.display()),
                    image.to_str().unwrap(),
                ],
            )
            .unwrap();
        }
        for options in [
            MountOptions::new(),
            MountOptions::new().delayed_allocation(false),
            MountOptions::new().unwritten_until_done(false),
            MountOptions::new().data_mode(DataMode::Journal),
        ] {
            let volume = mounted(&image, options.cache_bytes(4 << 20));
            std::thread::scope(|scope| {
                for n in 0..4 {
                    let volume = &volume;
                    scope.spawn(move || exercise(volume, 12 + n, u64::from(n) + 1, 150));
                }
            });
            println!("{:?} {:?}", volume.counters(), volume.account.cached_bytes());
            volume.unmount().unwrap();
            drop(volume);
            oracle::e2fsck(&image).unwrap();
        }
    }
}

#[test]
fn reading_takes_bounded_memory() {
    let scratch = oracle::Scratch::new("bounded-read");
    let image = scratch.path("image");
    if oracle::mkfs(&image, 64 << 20, &["-b", "4096"]).is_none() {
        return;
    }
    let volume = mounted(&image, MountOptions::new().cache_bytes(4 << 20));
    let root = volume.root().unwrap();
    let file = volume.create_file(&Caller::ROOT, &root, b"a", 0o644).unwrap();
    for n in 0..32 {
        volume.write_file(&Caller::ROOT, &file, Some(n << 20), &[7; 1 << 20]).unwrap();
    }
    volume.sync_all().unwrap();
    let open = volume.open_file(&file, false).unwrap();
    let mut most_cached = 0;
    for piece in [1 << 20, 4096] {
        let mut buffer = vec![0; piece];
        for at in (0..32 << 20).step_by(piece) {
            let count = volume.read_file(&file, &open, at, &mut buffer).unwrap();
            assert!(count == piece && buffer.iter().all(|byte| *byte == 7));
            most_cached = most_cached.max(volume.account.cached_bytes());
        }
    }
    // The limit, and two windows of what is read ahead.
    assert!(most_cached <= 6 << 20, "{most_cached} bytes in the cache");
    volume.unmount().unwrap();
}

#[test]
fn journaled_data_takes_bounded_memory() {
    let scratch = oracle::Scratch::new("bounded");
    let image = scratch.path("image");
    for (block_size, journal) in [("1024", "16"), ("4096", "64")] {
        if oracle::mkfs(&image, 256 << 20, &["-b", block_size, "-J", &format!("size={journal}")])
            .is_none()
        {
            return;
        }
        let options = MountOptions::new().data_mode(DataMode::Journal).cache_bytes(8 << 20);
        let volume = mounted(&image, options);
        let root = volume.root().unwrap();
        let file = volume.create_file(&Caller::ROOT, &root, b"a", 0o644).unwrap();
        let (mut most_cached, mut most_pending) = (0, 0);
        for n in 0..96 {
            let at = (n * 37 % 96) << 20;
            volume.write_file(&Caller::ROOT, &file, Some(at), &[7; 1 << 20]).unwrap();
            // A fifth of the cache may wait for its commit.
            assert!(volume.account.dirty_bytes() <= (8 << 20) / 5 + 8192);
            most_cached = most_cached.max(volume.account.cached_bytes());
            let bytes: usize = block_size.parse().unwrap();
            most_pending = most_pending.max(volume.transactions.journaled_blocks() * bytes);
        }
        assert!(most_cached <= 9 << 20, "{most_cached} bytes in the cache");
        assert!(most_pending <= 36 << 20, "{most_pending} bytes between commit and home");
        volume.unmount().unwrap();
        assert_eq!(volume.transactions.journaled_blocks(), 0);
        oracle::e2fsck(&image).unwrap();
    }
}
