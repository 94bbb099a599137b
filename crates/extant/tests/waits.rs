//! What waits for the device and what does not: counted on a device, and tried on one whose flush ends when the test says so.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use extant::{Filesystem, MountOptions, OpenOptions};
use extant_device::{BlockDevice, DeviceGeometry, MemoryDevice, Operation, Request};
use extant_testkit::{CountingDevice, oracle};

/// Far more than any operation takes that does not wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device whose flushes wait while it is shut, and nothing else.
struct Gated {
    inner: MemoryDevice,
    state: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: usize,
}

impl Gated {
    fn set_shut(&self, shut: bool) {
        self.state.lock().unwrap().shut = shut;
        self.changed.notify_all();
    }

    /// Returns once a flush waits.
    fn wait_for_flush(&self) {
        let state = self.state.lock().unwrap();
        let done = self.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting == 0);
        assert!(!done.unwrap().1.timed_out(), "nobody flushes");
    }
}

impl BlockDevice for Gated {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        let durable = |request: &Request| {
            matches!(request.operation, Operation::Flush | Operation::Write { fua: true, .. })
        };
        if batch.iter().any(durable) {
            let mut state = self.state.lock().unwrap();
            state.waiting += 1;
            self.changed.notify_all();
            state = self.changed.wait_while(state, |state| state.shut).unwrap();
            state.waiting -= 1;
        }
        self.inner.run(batch);
    }
}

fn image() -> Option<MemoryDevice> {
    let scratch = oracle::Scratch::new("waits");
    let image = scratch.path("image");
    oracle::mkfs(&image, 128 << 20, &[])?;
    Some(MemoryDevice::from_bytes(&std::fs::read(&image).unwrap()))
}

/// Opens the gate also when an assertion has failed, so that the test ends.
struct OpenAtEnd<'a>(&'a Gated);

impl Drop for OpenAtEnd<'_> {
    fn drop(&mut self) {
        self.0.set_shut(false);
    }
}

/// Runs `work` in a thread of its own while a commit of another file's data waits for its flush.
fn during_a_flush(work: impl FnOnce(&Filesystem) + Send) {
    let Some(inner) = image() else { return };
    let device = Arc::new(Gated { inner, state: Mutex::default(), changed: Condvar::new() });
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create_dir("/d").unwrap();
    fs.create("/d/old").unwrap().write_at(&[1; 10_000], 0).unwrap();
    fs.create("/d/cut").unwrap().write_at(&[2; 10_000], 0).unwrap();
    fs.sync_all().unwrap();
    let synced = fs.create("/synced").unwrap();
    synced.write_at(&[3; 4096], 0).unwrap();
    device.set_shut(true);
    std::thread::scope(|scope| {
        let _open = OpenAtEnd(&device);
        let committer = scope.spawn(|| synced.sync_all().unwrap());
        device.wait_for_flush();
        let (done, ended) = mpsc::channel();
        let fs = &fs;
        scope.spawn(move || {
            work(fs);
            done.send(()).unwrap();
        });
        ended.recv_timeout(PATIENCE).expect("an operation waits for the flush");
        assert!(!committer.is_finished(), "the commit had ended before");
        device.set_shut(false);
    });
    fs.unmount().unwrap();
}

#[test]
fn creates_writes_and_reads_do_not_wait_for_a_commit() {
    during_a_flush(|fs| {
        for n in 0..300 {
            let name = format!("/d/{n}");
            fs.create(&name).unwrap().write_at(&vec![7; 100 * n], 0).unwrap();
            let file = fs.open_with(&name, OpenOptions::new().read(true).write(true)).unwrap();
            file.write_at(&[8; 50], 9_000).unwrap();
            assert_eq!(file.read_at(&mut [0; 50], 9_000).unwrap(), 50);
        }
        assert_eq!(fs.open("/d/old").unwrap().read_at(&mut [0; 20_000], 0).unwrap(), 10_000);
        assert_eq!(fs.read_dir("/d").unwrap().count(), 302);
    });
}

#[test]
fn changes_of_names_and_attributes_do_not_wait_for_a_commit() {
    during_a_flush(|fs| {
        fs.create_dir("/e").unwrap();
        fs.rename("/d/old", "/e/new").unwrap();
        fs.create("/e/other").unwrap().write_at(&[9; 100_000], 0).unwrap();
        fs.rename("/e/other", "/e/new").unwrap();
        fs.hard_link("/e/new", "/d/link").unwrap();
        fs.symlink("new", "/e/short").unwrap();
        fs.set_permissions("/e/new", 0o600).unwrap();
        fs.set_xattr("/e/new", "user.name", "value").unwrap();
        fs.create("/d/cut").unwrap().write_at(&[9; 100], 0).unwrap();
        fs.remove_file("/d/cut").unwrap();
        fs.remove_dir_all("/e").unwrap();
        assert_eq!(fs.metadata("/d/link").unwrap().size, 100_000);
    });
}

#[test]
fn write_and_close_ask_nothing_of_the_device_below_the_dirty_limits() {
    let Some(inner) = image() else { return };
    let device = Arc::new(CountingDevice::new(inner));
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create("/cut").unwrap().write_at(&[1; 100_000], 0).unwrap();
    fs.create("/replaced").unwrap();
    fs.sync_all().unwrap();
    device.take_counts();
    for n in 0..200 {
        fs.create(format!("/{n}")).unwrap().write_at(&vec![7; 1000 * n], 0).unwrap();
    }
    let counts = device.take_counts();
    assert_eq!((counts.writes, counts.flushes), (0, 0), "{counts:?}");
    fs.unmount().unwrap();
}

#[test]
fn d24_a_file_that_replaces_another_is_written_at_its_close_or_rename_without_a_flush() {
    let Some(inner) = image() else { return };
    let device = Arc::new(CountingDevice::new(inner));
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create("/cut").unwrap().write_at(&[1; 100_000], 0).unwrap();
    fs.create("/replaced").unwrap();
    fs.create("/new").unwrap().write_at(&[2; 9000], 0).unwrap();
    fs.sync_all().unwrap();
    fs.create("/late").unwrap().write_at(&[2; 9000], 0).unwrap();
    device.take_counts();
    fs.create("/cut").unwrap().write_at(&[2; 100_000], 0).unwrap();
    let counts = device.take_counts();
    assert_eq!((counts.written_bytes, counts.flushes), (100_000_u64.next_multiple_of(1024), 0));
    // What is on the device already is not written again, and a new name replaces nothing.
    fs.rename("/new", "/replaced").unwrap();
    fs.rename("/late", "/later").unwrap();
    assert_eq!(device.take_counts().writes, 0);
    fs.rename("/later", "/replaced").unwrap();
    let counts = device.take_counts();
    assert_eq!((counts.writes, counts.flushes), (1, 0), "{counts:?}");
    fs.unmount().unwrap();
}

#[test]
fn a_file_that_replaces_another_is_written_before_the_commit() {
    let Some(inner) = image() else { return };
    let device = Arc::new(inner);
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    for name in ["/cut", "/replaced"] {
        fs.create(name).unwrap().write_at(&[1; 50_000], 0).unwrap();
    }
    fs.sync_all().unwrap();
    fs.create("/cut").unwrap().write_at(&[2; 60_000], 0).unwrap();
    fs.create("/new").unwrap().write_at(&[2; 60_000], 0).unwrap();
    fs.rename("/new", "/replaced").unwrap();
    // A commit that has nothing to do with them.
    fs.create("/other").unwrap().sync_all().unwrap();
    let crashed = MountOptions::new().mount(device.snapshot()).unwrap();
    for name in ["/cut", "/replaced"] {
        let mut bytes = vec![0; 70_000];
        let len = crashed.open(name).unwrap().read_at(&mut bytes, 0).unwrap();
        assert!(bytes[..len] == [2; 60_000], "{name} has {len} bytes");
    }
}

#[test]
fn a_table_block_is_not_read_to_make_the_first_of_its_inodes() {
    let Some(inner) = image() else { return };
    let device = Arc::new(CountingDevice::new(inner));
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create("/first").unwrap();
    device.take_counts();
    for n in 0..500 {
        fs.create(format!("/{n}")).unwrap();
    }
    // The block bitmaps of the flex group, for the directory.
    assert!(device.take_counts().reads <= 16);
    fs.unmount().unwrap();
}

#[test]
fn the_log_is_emptied_by_those_who_commit() {
    let Some(inner) = image() else { return };
    let device = Arc::new(CountingDevice::new(inner));
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    let synced = fs.create("/synced").unwrap();
    // Several times what the log of such an image holds, 4,096 blocks.
    for n in 0..3000_u64 {
        fs.create(format!("/{n}")).unwrap();
        synced.write_at(&[1; 100], n * 100).unwrap();
        synced.sync_all().unwrap();
        // Two for the commit; none of those that only have to empty a full log.
        let flushes = device.take_counts();
        assert!(flushes.flushes + flushes.fua_writes <= 3, "{flushes:?}");
    }
    assert!(fs.counters().journal_blocks > 8192);
    fs.unmount().unwrap();
}

#[test]
fn small_files_go_to_the_device_together() {
    let Some(inner) = image() else { return };
    let device = Arc::new(CountingDevice::new(inner));
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    for n in 0..500 {
        fs.create(format!("/{n}")).unwrap().write_at(&[7; 4096], 0).unwrap();
    }
    device.take_counts();
    fs.sync_all().unwrap();
    let counts = device.take_counts();
    assert!(counts.batches < 50, "{counts:?}");
    fs.unmount().unwrap();
}
