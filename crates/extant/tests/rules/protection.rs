//! Multiple mount protection: who has the volume, who waits, and who is refused.
//!
//! Kernel `fs/ext4/mmp.c`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use extant::time::{Clock, Pause};
use extant::{Error, Filesystem, Host, MountOptions, User};
use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::corruption::{Place, Rule};
use extant_format::mmp::{MmpState, RawMmp};
use extant_format::{PhysicalBlock, Superblock};
use extant_testkit::RecordingDevice;
use extant_testkit::oracle::{KernelMount, Scratch};
use zerocopy::IntoBytes;

use crate::world::{StillClock, World, mount_at, open, write};

/// What a waiting host sees pass: it moves the clock, notes the seconds, and lets something happen.
struct Waiting<F> {
    clock: Arc<StillClock>,
    waits: Mutex<Vec<u64>>,
    then: F,
}

impl<F: Fn() -> bool + Send + Sync> Pause for Waiting<F> {
    fn pause(&self, time: Duration) -> bool {
        self.clock.advance(time.as_secs());
        self.waits.lock().unwrap().push(time.as_secs());
        (self.then)()
    }
}

fn waiting<F: Fn() -> bool + Send + Sync>(clock: &Arc<StillClock>, then: F) -> Arc<Waiting<F>> {
    Arc::new(Waiting { clock: Arc::clone(clock), waits: Mutex::default(), then })
}

/// The options of a host with this name.
fn host(node: &str, pause: Arc<dyn Pause>) -> MountOptions {
    let (node, device) = (node.to_owned(), "sdb1".to_owned());
    MountOptions::new().host(Host { node, device, pause })
}

/// One that need not wait.
fn hasty(node: &str) -> MountOptions {
    host(node, waiting(&Arc::default(), || panic!("nobody has it")))
}

fn superblock(device: &MemoryDevice) -> Superblock {
    Superblock::parse(&device.read_vec(1024, 1024).unwrap()).unwrap()
}

fn place(device: &MemoryDevice) -> u64 {
    let superblock = superblock(device);
    superblock.raw().mmp_block.get() << superblock.geometry().block_bits
}

fn block(device: &MemoryDevice) -> RawMmp {
    let bytes = device.read_vec(place(device), 1024).unwrap();
    let at = Place::Block(PhysicalBlock::new(0));
    RawMmp::parse(&bytes, at, superblock(device).geometry()).unwrap()
}

/// Makes the block say something else.
fn set(device: &MemoryDevice, state: MmpState) {
    let mut raw = block(device);
    raw.set_state(state);
    raw.set_checksum(superblock(device).geometry());
    let frame = extant_device::Frame::copy_from(raw.as_bytes());
    let request = extant_device::Request::write(place(device), vec![frame.slice(0..1024)]);
    device.run_all(&mut [request]).unwrap();
}

fn image(world: &World, options: &[&str]) -> Option<Arc<MemoryDevice>> {
    Some(Arc::new(world.mkfs(16, &[&["-O", "mmp"], options].concat())?))
}

fn user(outcome: Result<Filesystem, Error>) -> (User, String) {
    match outcome {
        Err(Error::InUse(found)) => (found.by, found.node),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_shows_that_it_has_the_volume_and_gives_it_back() {
    let world = World::new("claim");
    for options in [&[][..], &["-b", "1024"], &["-O", "^metadata_csum"], &["-O", "^has_journal"]] {
        let Some(device) = image(&world, options) else { return };
        let clock = Arc::new(StillClock::default());
        let fs = mount_at(&device, hasty("here"), &clock).unwrap();
        let at_first = block(&device);
        assert!(matches!(at_first.state(), Some(MmpState::Mounted(_))));
        assert_eq!(
            (&at_first.node_name[..5], &at_first.device_name[..5]),
            (&b"here\0"[..], &b"sdb1\0"[..])
        );
        assert_eq!(at_first.check_interval.get(), 10);
        write(&open(&fs, "/f"), &[7; 5000], 0);
        // Every five seconds, which is what mke2fs sets, and not before.
        for (seconds, steps) in [(4, 0), (1, 1), (3, 1), (3, 2)] {
            clock.advance(seconds);
            fs.tick().unwrap();
            let now = block(&device);
            assert_eq!(now.sequence.get(), at_first.sequence.get() + steps);
        }
        assert_eq!(block(&device).time.get(), u64::try_from(clock.wall().seconds).unwrap());
        // A late one tells others to be more patient.
        clock.advance(20);
        assert_eq!(fs.renew_protection().unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(block(&device).check_interval.get(), 40);
        fs.unmount().unwrap();
        assert_eq!(block(&device).state(), Some(MmpState::Clean));
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn a_second_host_is_refused_and_the_first_goes_on() {
    let world = World::new("second");
    let Some(device) = image(&world, &[]) else { return };
    let clock = Arc::new(StillClock::default());
    let first = mount_at(&device, hasty("first"), &clock).unwrap();
    let ticking = first.clone();
    let pause = waiting(&clock, move || ticking.tick().is_ok());
    let refused = mount_at(&device, host("second", pause.clone()), &clock);
    assert_eq!(user(refused), (User::Host, "first".to_owned()));
    assert_eq!(*pause.waits.lock().unwrap(), [21], "twice what the block says, and one");
    // Whoever does not want to wait any longer has changed nothing.
    let before = block(&device);
    let cut_short = mount_at(&device, host("second", waiting(&clock, || false)), &clock);
    assert!(matches!(cut_short, Err(Error::Busy(_))));
    assert_eq!(block(&device), before);
    // A reader asks nobody.
    drop(mount_at(&device, MountOptions::read_only(), &clock).unwrap());
    write(&open(&first, "/f"), &[7; 5000], 0);
    drop(pause);
    first.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn the_volume_of_a_host_that_crashed_is_taken_after_two_waits() {
    let world = World::new("crashed");
    let Some(device) = image(&world, &["-E", "mmp_update_interval=7"]) else { return };
    let clock = Arc::new(StillClock::default());
    let fs = mount_at(&device, hasty("first"), &clock).unwrap();
    let file = open(&fs, "/f");
    write(&file, &[7; 5000], 0);
    file.sync_all().unwrap();
    drop((file, fs));
    let pause = waiting(&clock, || true);
    let fs = mount_at(&device, host("second", pause.clone()), &clock).unwrap();
    assert_eq!(*pause.waits.lock().unwrap(), [29, 29]);
    assert_eq!(fs.metadata("/f").unwrap().size, 5000);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn of_two_hosts_that_come_at_once_the_last_to_write_has_it() {
    let world = World::new("race");
    let Some(device) = image(&world, &[]) else { return };
    let clock = Arc::new(StillClock::default());
    drop(mount_at(&device, hasty("crashed"), &clock).unwrap());
    let (other, turn) = (Arc::clone(&device), Mutex::new(0));
    let pause = waiting(&clock, move || {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        if *turn == 2 {
            set(&other, MmpState::Mounted(77));
        }
        true
    });
    let refused = mount_at(&device, host("late", pause), &clock);
    assert_eq!(user(refused).0, User::Host);
    assert_eq!(block(&device).state(), Some(MmpState::Mounted(77)), "it is not given back");
}

#[test]
fn a_checker_keeps_everybody_away() {
    let world = World::new("checker");
    let Some(device) = image(&world, &[]) else { return };
    set(&device, MmpState::Checking);
    let recorded = Arc::new(RecordingDevice::from_image(&device));
    let refused = mount_at(&recorded, hasty("here"), &Arc::default());
    assert_eq!(user(refused).0, User::Checker);
    assert_eq!(recorded.position(), 0, "nothing is written");
}

#[test]
fn a_host_that_finds_anothers_number_writes_nothing_any_more() {
    let world = World::new("taken");
    for by_tick in [true, false] {
        let Some(image) = image(&world, &[]) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let clock = Arc::new(StillClock::default());
        let fs = mount_at(&device, hasty("slow"), &clock).unwrap();
        write(&open(&fs, "/f"), &[7; 5000], 0);
        set(device.inner(), MmpState::Mounted(77));
        let before = device.position();
        clock.advance(30);
        let found = if by_tick { fs.tick().map(drop) } else { fs.renew_protection().map(drop) };
        assert!(matches!(found, Err(Error::InUse(_))), "{found:?}");
        assert!(matches!(fs.check_writable(), Err(Error::Aborted { .. })));
        assert!(fs.create_dir("/d").is_err() && fs.sync_all().is_err());
        assert!(fs.unmount().is_err());
        assert_eq!(device.position(), before, "it is another's volume");
    }
}

#[test]
fn without_a_host_a_protected_volume_is_read_and_a_wrong_block_refuses_writers() {
    let world = World::new("nobody");
    let Some(device) = image(&world, &[]) else { return };
    let before = device.to_vec();
    let fs = mount_at(&device, MountOptions::new(), &Arc::default()).unwrap();
    assert_eq!(fs.read_only_because(), Some("mmp"));
    fs.unmount().unwrap();
    assert!(device.to_vec() == before);
    let zeros = extant_device::Frame::zeroed(1024);
    let request = extant_device::Request::write(place(&device), vec![zeros.slice(0..1024)]);
    device.run_all(&mut [request]).unwrap();
    match mount_at(&device, hasty("here"), &Arc::default()) {
        Err(Error::Corrupt(found)) => assert_eq!(found.rule, Rule::Magic),
        other => panic!("{other:?}"),
    }
    mount_at(&device, MountOptions::read_only(), &Arc::default()).unwrap();
}

#[test]
fn a_mount_that_fails_later_gives_the_volume_back() {
    let world = World::new("failing");
    let Some(image) = image(&world, &[]) else { return };
    // The journal is too short to be one.
    let device = Arc::new(world.changed_by_debugfs(&image, "sif <8> size 4096\n"));
    mount_at(&device, hasty("here"), &Arc::default()).unwrap_err();
    assert_eq!(block(&device).state(), Some(MmpState::Clean));
}

/// While the kernel has it: what it writes meanwhile is seen.
#[test]
fn a_volume_that_the_kernel_has_mounted_is_refused() {
    let scratch = Scratch::new("kernel");
    let path = scratch.path("image");
    let Some(()) = extant_testkit::oracle::mkfs(&path, 16 << 20, &["-O", "mmp"]) else { return };
    let Some(mount) = KernelMount::new(&path, &scratch.path("mount"), "") else { return };
    let load = move || MemoryDevice::from_bytes(&std::fs::read(&path).unwrap());
    let device = Arc::new(load());
    let clock = Arc::new(StillClock::default());
    let shared = Arc::clone(&device);
    let pause = waiting(&clock, move || {
        // The kernel's clock is not ours to move.
        std::thread::sleep(Duration::from_millis(5500));
        let Some(state) = block(&load()).state() else { return false };
        set(&shared, state);
        true
    });
    let refused = mount_at(&device, host("here", pause), &clock);
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(user(refused), (User::Host, node.trim().to_owned()));
    mount.unmount().unwrap();
}
