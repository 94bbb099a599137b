//! What is due by the clock is done by a tick, and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use extant::{Error, Filesystem, MountOptions};
use extant_device::MemoryDevice;

use crate::world::{StillClock, World, mount, mount_at, open, read, write};

#[test]
fn a_tick_commits_what_is_older_than_the_interval_and_writes_back_what_is_older_still() {
    let world = World::new("tick");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let (device, clock) = (Arc::new(image), Arc::<StillClock>::default());
    let fs = mount_at(&device, MountOptions::new(), &clock).unwrap();
    write(&open(&fs, "/f"), &[7; 5000], 0);
    let now = |device: &MemoryDevice| {
        let fs = mount(&Arc::new(device.snapshot()), MountOptions::read_only()).unwrap();
        read(&fs, "/f")
    };
    clock.advance(4);
    fs.tick().unwrap();
    assert!(matches!(now(&device), Err(Error::NotFound)));
    clock.advance(1);
    fs.tick().unwrap();
    assert_eq!(now(&device).unwrap(), []);
    clock.advance(25);
    fs.tick().unwrap();
    clock.advance(5);
    fs.tick().unwrap();
    assert_eq!(now(&device).unwrap(), [7; 5000]);
}

/// Blocks that wait for their place.
fn dirty_blocks(fs: &Filesystem) -> u64 {
    fs.kernel_counters().delayed_allocation_blocks
}

#[test]
fn d18_4_old_data_is_looked_for_once_an_interval() {
    let world = World::new("age");
    let Some(image) = world.mkfs(8, &["-b", "1024"]) else { return };
    let knobs = |expire, interval| {
        MountOptions::new()
            .dirty_expire(Duration::from_secs(expire))
            .dirty_writeback(Duration::from_secs(interval))
    };
    // (knobs, the second at which data that was written at second 1 goes out)
    for (options, expected) in [
        (MountOptions::new(), Some(35)),
        (knobs(30, 1), Some(31)),
        (knobs(3, 2), Some(4)),
        (knobs(0, 7), Some(7)),
        (knobs(3, 0), None),
    ] {
        let (device, clock) = (Arc::new(image.snapshot()), Arc::<StillClock>::default());
        let fs = mount_at(&device, options, &clock).unwrap();
        fs.tick().unwrap(); // looks first
        clock.advance(1);
        write(&open(&fs, "/f"), &[7; 5000], 0);
        let written = (2..60).find(|_| {
            clock.advance(1);
            fs.tick().unwrap();
            dirty_blocks(&fs) == 0
        });
        assert_eq!(written, expected);
    }
}

/// D18.1: shares of the cache. Below the background share nothing is written before its time; above it a tick writes; above
/// the limit no writer goes on before it has written down to the background share.
#[test]
fn d18_1_ticks_keep_to_the_background_share_and_writers_to_the_limit() {
    let world = World::new("shares");
    let Some(image) = world.mkfs(32, &["-b", "4096"]) else { return };
    let (device, clock) = (Arc::new(image), Arc::<StillClock>::default());
    let options =
        MountOptions::new().cache_bytes(16 << 20).dirty_background_ratio(25).dirty_ratio(50);
    let fs = mount_at(&device, options, &clock).unwrap();
    let file = open(&fs, "/f");
    let blocks = |percent: u64| (16 << 20) / 4096 * percent / 100;
    let piece = [7; 64 << 10];
    let write_to = |percent: u64, from: u64| {
        let mut at = from;
        while dirty_blocks(&fs) + 16 <= blocks(percent) {
            write(&file, &piece, at);
            at += 64 << 10;
        }
        at
    };
    let end = write_to(24, 0);
    fs.tick().unwrap();
    assert_eq!(dirty_blocks(&fs) * 4096, end);
    let end = write_to(48, end);
    assert_eq!(dirty_blocks(&fs) * 4096, end, "no writer had to help");
    fs.tick().unwrap();
    assert!(dirty_blocks(&fs) <= blocks(25), "a tick wrote down to the background share");
    let (mut at, mut most) = (end, 0);
    while at < 24 << 20 {
        write(&file, &piece, at);
        at += 64 << 10;
        most = most.max(dirty_blocks(&fs));
    }
    assert!((blocks(45)..=blocks(50) + 16).contains(&most), "{most} of {}", blocks(100));
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn no_interval_is_too_long() {
    let world = World::new("for-ever");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let (device, clock) = (Arc::new(image), Arc::<StillClock>::default());
    let options = MountOptions::new()
        .dirty_expire(Duration::MAX)
        .dirty_writeback(Duration::MAX)
        .commit_interval(Duration::MAX);
    let fs = mount_at(&device, options, &clock).unwrap();
    write(&open(&fs, "/f"), &[7; 5000], 0);
    for _ in 0..3 {
        clock.advance(1000);
        fs.tick().unwrap();
    }
    assert!(dirty_blocks(&fs) > 0, "nothing is ever old");
    fs.unmount().unwrap();
}

/// Counts how often it is rung.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_tick_is_asked_for_once_between_the_background_share_and_the_limit() {
    let world = World::new("bell");
    let Some(image) = world.mkfs(32, &["-b", "4096"]) else { return };
    let (device, clock, bell) =
        (Arc::new(image), Arc::<StillClock>::default(), Arc::<Bell>::default());
    let options = MountOptions::new()
        .cache_bytes(16 << 20)
        .dirty_background_ratio(25)
        .dirty_ratio(50)
        .waker(Waker::from(Arc::clone(&bell)));
    let fs = mount_at(&device, options, &clock).unwrap();
    let file = open(&fs, "/f");
    let blocks = |percent: u64| (16 << 20) / 4096 * percent / 100;
    let piece = [7; 64 << 10];
    let mut at = 0;
    for round in 0..2 {
        while dirty_blocks(&fs) < blocks(37) {
            assert_eq!(bell.rung(), round, "{} dirty", dirty_blocks(&fs));
            write(&file, &piece, at);
            at += 64 << 10;
        }
        while dirty_blocks(&fs) < blocks(45) {
            write(&file, &piece, at);
            at += 64 << 10;
        }
        assert_eq!(bell.rung(), round + 1);
        assert!(dirty_blocks(&fs) >= blocks(45), "no writer had to help");
        fs.tick().unwrap();
        assert!(dirty_blocks(&fs) <= blocks(25));
    }
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn a_tick_that_was_asked_for_commits_a_transaction_that_fills() {
    let world = World::new("fills");
    let Some(image) = world.mkfs(64, &["-b", "4096"]) else { return };
    let (device, clock, bell) =
        (Arc::new(image), Arc::<StillClock>::default(), Arc::<Bell>::default());
    let options = MountOptions::new().waker(Waker::from(Arc::clone(&bell)));
    let fs = mount_at(&device, options, &clock).unwrap();
    let is_durable = |n: usize| {
        let image = Arc::new(device.snapshot());
        let fs = mount(&image, MountOptions::read_only()).unwrap();
        fs.open(format!("/d{n}")).is_ok()
    };
    fs.create_dir("/d0").unwrap();
    fs.tick().unwrap();
    assert!(!is_durable(0), "its time had not come");
    let made = (1..2000).find(|n| {
        fs.create_dir(format!("/d{n}")).unwrap();
        bell.rung() > 0
    });
    let made = made.unwrap();
    assert!(!is_durable(made), "nobody had to wait for a commit");
    fs.tick().unwrap();
    assert!(is_durable(made));
    assert_eq!(bell.rung(), 1);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}
