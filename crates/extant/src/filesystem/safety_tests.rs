//! Who waits for whom, and what is stored when: rules that only the layers themselves can be asked about.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use extant_device::{BlockDevice, MemoryDevice, OperationKind};
use extant_format::{LogicalRange, PhysicalBlock, PhysicalRange};
use extant_testkit::{GateDevice, Kept, RecordingDevice, oracle};

use super::{Volume, mount};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::namespace::{NodeKind, RenameFlags};
use crate::options::MountOptions;
use crate::report::SetAttributes;
use crate::time::{SystemClock, SystemEntropy};
use crate::transaction::{BlockKind, Credits};
use crate::writeback::Purpose;
use crate::xattr::SetHow;

const ROOT: &Caller = &Caller::ROOT;

fn image(options: &[&str]) -> Option<MemoryDevice> {
    let scratch = oracle::Scratch::new("safety");
    let path = scratch.path("image");
    oracle::mkfs(&path, 8 << 20, options)?;
    Some(MemoryDevice::from_bytes(&std::fs::read(path).unwrap()))
}

fn mounted<D: BlockDevice + 'static>(device: &Arc<D>, options: MountOptions) -> Arc<Volume> {
    let (clock, entropy) = (Arc::new(SystemClock::default()), Arc::new(SystemEntropy));
    let device: Arc<dyn BlockDevice> = device.clone();
    mount(options, device, clock, entropy).unwrap()
}

/// Waits long enough for a thread that is not held up to come to its end.
const A_WHILE: Duration = Duration::from_millis(150);

/// Whether `operation` comes to no end before `release` is called; after that it has to.
fn waits(operation: impl FnOnce() + Send, release: impl FnOnce()) -> bool {
    std::thread::scope(|scope| {
        let (started, start) = mpsc::channel();
        let (done, end) = mpsc::channel();
        scope.spawn(move || {
            started.send(()).unwrap();
            operation();
            // Whoever asked may have gone on.
            let _ = done.send(());
        });
        start.recv().unwrap();
        let waits = end.recv_timeout(A_WHILE).is_err();
        release();
        waits
    })
}

/// A volume with a file `f` of 40,000 bytes in the directory `d`, nothing of it in memory but what the mount needs.
struct Stage {
    volume: Arc<Volume>,
    dir: Arc<Inode>,
    other: Arc<Inode>,
    file: Arc<Inode>,
}

impl Stage {
    fn new(image: &MemoryDevice) -> Self {
        let device = Arc::new(image.snapshot());
        let volume = mounted(&device, MountOptions::new());
        let dir = volume.make_directory(ROOT, &volume.root().unwrap(), b"d", 0o755).unwrap();
        volume.make_directory(ROOT, &volume.root().unwrap(), b"other", 0o755).unwrap();
        volume.make_directory(ROOT, &dir, b"empty", 0o755).unwrap();
        volume.create_file(ROOT, &dir, b"g", 0o644).unwrap();
        let file = volume.create_file(ROOT, &dir, b"f", 0o644).unwrap();
        volume.write_file(ROOT, &file, Some(0), &[7; 40_000]).unwrap();
        volume.unmount().unwrap();
        drop((dir, file, volume));
        let volume = mounted(&device, MountOptions::new());
        let root = volume.root().unwrap();
        let dir = volume.lookup(ROOT, &root, b"d").unwrap();
        let other = volume.lookup(ROOT, &root, b"other").unwrap();
        let file = volume.lookup(ROOT, &dir, b"f").unwrap();
        Self { volume, dir, other, file }
    }
}

type Operation = fn(&Stage);

#[test]
fn who_changes_a_file_waits_for_those_who_look_at_it() {
    let Some(image) = image(&[]) else { return };
    let operations: &[(&str, Operation)] = &[
        ("write", |s| drop(s.volume.write_file(ROOT, &s.file, Some(0), b"x"))),
        ("truncate", |s| drop(s.volume.truncate(&Caller::ROOT, &s.file, 5))),
        ("chmod", |s| {
            let change = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
            drop(s.volume.set_attributes(ROOT, &s.file, &change));
        }),
        ("setxattr", |s| {
            drop(s.volume.set_xattr(ROOT, &s.file, b"user.a", Some(b"b"), SetHow::Any))
        }),
        ("link", |s| drop(s.volume.link(ROOT, &s.file, &s.other, b"l"))),
        ("unlink", |s| drop(s.volume.unlink(ROOT, &s.dir, b"f"))),
        ("rename", |s| {
            let to = (&s.dir, b"h".as_slice());
            drop(s.volume.rename(ROOT, (&s.dir, b"f"), to, RenameFlags::empty()));
        }),
        ("replace", |s| {
            let to = (&s.dir, b"f".as_slice());
            drop(s.volume.rename(ROOT, (&s.dir, b"g"), to, RenameFlags::empty()));
        }),
        ("evict", |s| drop(s.volume.files.evict(&s.file))),
        ("finish an orphan", |s| drop(s.volume.files.finish_orphan(&s.file))),
    ];
    for (name, operation) in operations {
        let stage = Stage::new(&image);
        let guard = stage.file.content.read();
        assert!(waits(|| operation(&stage), || drop(guard)), "{name} does not wait");
    }
}

#[test]
fn who_changes_a_directory_waits_for_those_who_look_at_it() {
    let Some(image) = image(&[]) else { return };
    let operations: &[(&str, Operation)] = &[
        ("create", |s| drop(s.volume.create_file(ROOT, &s.dir, b"x", 0o644))),
        ("mkdir", |s| drop(s.volume.make_directory(ROOT, &s.dir, b"x", 0o755))),
        ("symlink", |s| drop(s.volume.make_symlink(ROOT, &s.dir, b"x", b"y"))),
        ("unlink", |s| drop(s.volume.unlink(ROOT, &s.dir, b"f"))),
        ("rmdir", |s| drop(s.volume.remove_directory(ROOT, &s.dir, b"empty"))),
        ("link", |s| drop(s.volume.link(ROOT, &s.file, &s.dir, b"l"))),
        ("rename", |s| {
            let to = (&s.dir, b"h".as_slice());
            drop(s.volume.rename(ROOT, (&s.dir, b"f"), to, RenameFlags::empty()));
        }),
        ("rename out", |s| {
            let to = (&s.other, b"h".as_slice());
            drop(s.volume.rename(ROOT, (&s.dir, b"f"), to, RenameFlags::empty()));
        }),
    ];
    for (name, operation) in operations {
        let stage = Stage::new(&image);
        let guard = stage.dir.content.read();
        assert!(waits(|| operation(&stage), || drop(guard)), "{name} does not wait");
    }
    let stage = Stage::new(&image);
    let guard = stage.other.content.read();
    let rename_in = || {
        let to = (&stage.other, b"h".as_slice());
        drop(stage.volume.rename(ROOT, (&stage.dir, b"f"), to, RenameFlags::empty()));
    };
    assert!(waits(rename_in, || drop(guard)), "rename into a directory does not wait");
    let stage = Stage::new(&image);
    let empty = stage.volume.lookup(ROOT, &stage.dir, b"empty").unwrap();
    let guard = empty.content.read();
    let rmdir = || drop(stage.volume.remove_directory(ROOT, &stage.dir, b"empty"));
    assert!(waits(rmdir, || drop(guard)), "rmdir does not wait for its victim");
}

#[test]
fn who_looks_at_a_directory_waits_for_those_who_change_it() {
    let Some(image) = image(&[]) else { return };
    let operations: &[(&str, Operation)] = &[
        ("lookup", |s| drop(s.volume.lookup(ROOT, &s.dir, b"f"))),
        ("list", |s| {
            let mut stop = |_: crate::namespace::Listed<'_>| core::ops::ControlFlow::Break(());
            drop(s.volume.list(&s.dir, Default::default(), &mut stop));
        }),
    ];
    for (name, operation) in operations {
        let stage = Stage::new(&image);
        let guard = stage.dir.content.write();
        assert!(waits(|| operation(&stage), || drop(guard)), "{name} does not wait");
    }
}

#[test]
fn folios_are_filled_and_dropped_one_after_the_other() {
    let Some(image) = image(&[]) else { return };
    let stage = Stage::new(&image);
    let open = stage.volume.open_file(&stage.file, false).unwrap();
    let guard = stage.file.invalidate.write();
    let read = || drop(stage.volume.read_file(&stage.file, &open, 0, &mut [0; 100]));
    assert!(waits(read, || drop(guard)), "a read does not wait for a cut");
    let operations: &[(&str, Operation)] = &[
        ("truncate", |s| drop(s.volume.truncate(&Caller::ROOT, &s.file, 5))),
        ("evict", |s| drop(s.volume.files.evict(&s.file))),
        ("give up", |s| {
            let _content = s.file.content.write();
            drop(s.volume.files.truncate_failed_write(&s.file));
        }),
    ];
    for (name, operation) in operations {
        let stage = Stage::new(&image);
        let guard = stage.file.invalidate.read();
        assert!(waits(|| operation(&stage), || drop(guard)), "{name} does not wait for readers");
    }
}

#[test]
fn the_map_is_read_by_many_and_changed_by_one() {
    let Some(image) = image(&[]) else { return };
    let blocks = |s: &Stage| Credits::blocks(40, s.volume.transactions.geometry());
    let far = LogicalRange::new(100, 2).unwrap();
    let near = LogicalRange::new(0, 2).unwrap();
    let stage = Stage::new(&image);
    let guard = stage.file.map.write();
    let look_up = || drop(stage.volume.files.mapper.look_up(&stage.file, near));
    assert!(waits(look_up, || drop(guard)));
    let stage = Stage::new(&image);
    let guard = stage.file.map.read();
    let delay =
        || drop(stage.volume.files.mapper.delay(&stage.file, far, crate::delayed::Privilege::Root));
    assert!(waits(delay, || drop(guard)));
    let stage = Stage::new(&image);
    let guard = stage.file.map.read();
    let map = || {
        let mut handle = stage.volume.transactions.begin(blocks(&stage)).unwrap();
        let mapper = &stage.volume.files.mapper;
        assert!(mapper.map(&mut handle, &stage.file, far, MapFlags::CREATE).unwrap().new);
    };
    assert!(waits(map, || drop(guard)));
    let stage = Stage::new(&image);
    let guard = stage.file.map.read();
    let remove = || {
        let mut handle = stage.volume.transactions.begin(blocks(&stage)).unwrap();
        stage.volume.files.mapper.remove(&mut handle, &stage.file, near).unwrap();
    };
    assert!(waits(remove, || drop(guard)));
    let stage = Stage::new(&image);
    let guard = stage.file.map.read();
    let forget = || stage.volume.files.mapper.forget_delayed(&stage.file, far);
    assert!(waits(forget, || drop(guard)));
}

/// A volume on a gate, with a new file whose 9,000 bytes are dirty, and the file open.
fn dirty_behind_a_gate(
    image: &MemoryDevice,
    options: MountOptions,
) -> (Arc<GateDevice<MemoryDevice>>, Arc<Volume>, Arc<Inode>) {
    let device = Arc::new(GateDevice::new(image.snapshot()));
    let volume = mounted(&device, options);
    let file = volume.create_file(ROOT, &volume.root().unwrap(), b"f", 0o644).unwrap();
    volume.write_file(ROOT, &file, Some(0), &[7; 9000]).unwrap();
    (device, volume, file)
}

#[test]
fn whoever_needs_data_on_the_device_waits_for_the_writeback_that_is_under_way() {
    let Some(image) = image(&[]) else { return };
    type Needs = fn(&Volume, &Arc<Inode>);
    let needs: &[(&str, bool, Needs)] = &[
        ("fsync", true, |volume, file| {
            let open = volume.open_file(file, false).unwrap();
            volume.sync_file(file, &open, false).unwrap();
        }),
        ("sync", true, |volume, _| volume.sync_all().unwrap()),
        ("commit of ordered data", false, |volume, _| {
            volume.transactions.commit_running().unwrap();
        }),
    ];
    for &(name, unwritten, operation) in needs {
        let options = MountOptions::new().unwritten_until_done(unwritten);
        let (device, volume, file) = dirty_behind_a_gate(&image, options);
        device.hold_next(OperationKind::Write);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // As the flusher does it: taken off the queue, and nobody waits.
                volume.writeback.kick();
            });
            device.wait_held();
            let (volume, file) = (&*volume, &file);
            assert!(waits(|| operation(volume, file), || device.open()), "{name} does not wait");
        });
    }
}

#[test]
fn unmount_waits_for_changes_and_changes_for_unmount() {
    let Some(image) = image(&[]) else { return };
    let volume = mounted(&Arc::new(image.snapshot()), MountOptions::new());
    let root = volume.root().unwrap();
    let file = volume.create_file(ROOT, &root, b"f", 0o644).unwrap();
    let changes: [&(dyn Fn() + Sync); 18] = [
        &|| volume.close_file(&file, false),
        &|| volume.release(&file),
        &|| drop(volume.write_file(ROOT, &file, None, b"bytes")),
        &|| drop(volume.truncate(&Caller::ROOT, &file, 2)),
        &|| drop(volume.sync_file(&file, &volume.open_file(&file, false).unwrap(), false)),
        &|| drop(volume.sync_all()),
        &|| drop(volume.tick()),
        &|| drop(volume.create_file(ROOT, &root, b"a", 0o644)),
        &|| drop(volume.make_directory(ROOT, &root, b"b", 0o755)),
        &|| drop(volume.make_node(ROOT, &root, b"c", NodeKind::Fifo, 0o644)),
        &|| drop(volume.make_symlink(ROOT, &root, b"d", b"a")),
        &|| drop(volume.link(ROOT, &file, &root, b"e")),
        &|| drop(volume.set_xattr(ROOT, &file, b"user.a", Some(b"value"), SetHow::Any)),
        &|| drop(volume.set_attributes(ROOT, &file, &SetAttributes::default())),
        &|| drop(volume.rename(ROOT, (&root, b"a"), (&root, b"g"), RenameFlags::empty())),
        &|| drop(volume.unlink(ROOT, &root, b"g")),
        &|| drop(volume.remove_directory(ROOT, &root, b"b")),
        &|| drop(volume.unmount()),
    ];
    for change in changes {
        let gate = volume.gate.write();
        assert!(waits(change, || drop(gate)));
    }
    let volume = mounted(&Arc::new(image), MountOptions::new());
    let gate = volume.gate.read();
    assert!(waits(|| volume.unmount().unwrap(), || drop(gate)));
    let late = volume.create_file(ROOT, &volume.root().unwrap(), b"late", 0o644);
    assert!(matches!(late, Err(Error::ReadOnly)));
}

#[test]
fn a_block_that_another_handle_has_forgotten_is_not_logged() {
    let Some(image) = image(&[]) else { return };
    let volume = mounted(&Arc::new(image), MountOptions::new());
    let transactions = &volume.transactions;
    let begin = || transactions.begin(Credits::blocks(2, transactions.geometry())).unwrap();
    let unused = PhysicalBlock::new(transactions.geometry().blocks_count - 1);
    let mut slow = begin().of_another_thread();
    let block = transactions.read(unused, BlockKind::Plain).unwrap();
    slow.modify(&block, |bytes| bytes[0] = 7).unwrap();
    let mut quick = begin();
    quick.forget(PhysicalRange::single(unused)).unwrap();
    quick.stop().unwrap();
    slow.stop().unwrap();
    transactions.commit_running().unwrap();
    volume.unmount().unwrap();
}

#[test]
fn fsync_commits_the_conversion_though_the_placing_was_committed_meanwhile() {
    let Some(image) = image(&[]) else { return };
    let (device, volume, file) = dirty_behind_a_gate(&image, MountOptions::new());
    let open = volume.open_file(&file, false).unwrap();
    device.hold_next(OperationKind::Write);
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| volume.sync_file(&file, &open, true));
        device.wait_held();
        volume.transactions.commit_running().unwrap();
        device.open();
        synced.join().unwrap().unwrap();
    });
    let crashed = Arc::new(device.inner().snapshot());
    let volume = mounted(&crashed, MountOptions::new());
    let file = volume.lookup(ROOT, &volume.root().unwrap(), b"f").unwrap();
    let open = volume.open_file(&file, false).unwrap();
    let mut bytes = [0; 9000];
    assert_eq!(volume.read_file(&file, &open, 0, &mut bytes).unwrap(), 9000);
    assert!(bytes == [7; 9000]);
}

#[test]
fn fsync_flushes_what_it_wrote_after_the_flush_of_the_commit_that_it_waits_for() {
    let Some(image) = image(&[]) else { return };
    let device = Arc::new(GateDevice::new(RecordingDevice::from_image(&image)));
    let volume = mounted(&device, MountOptions::new());
    let file = volume.create_file(ROOT, &volume.root().unwrap(), b"f", 0o644).unwrap();
    volume.write_file(ROOT, &file, Some(0), &[7; 9000]).unwrap();
    volume.sync_all().unwrap();
    let open = volume.open_file(&file, false).unwrap();
    volume.write_file(ROOT, &file, Some(0), &[8; 9000]).unwrap();
    volume.set_attributes(ROOT, &file, &SetAttributes::default()).unwrap();
    device.hold_after_next(OperationKind::Flush);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| volume.transactions.commit_running());
        device.wait_held();
        let sync = || volume.sync_file(&file, &open, false).unwrap();
        assert!(waits(sync, || device.open()), "the inode is in the transaction that commits");
        other.join().unwrap().unwrap();
    });
    let log = device.inner().log();
    let crashed = Arc::new(log.crash_at(log.events().len(), |_| Kept::Nothing));
    let volume = mounted(&crashed, MountOptions::new());
    let file = volume.lookup(ROOT, &volume.root().unwrap(), b"f").unwrap();
    let mut bytes = [0; 9000];
    assert_eq!(volume.read_file(&file, &open, 0, &mut bytes).unwrap(), 9000);
    assert!(bytes == [8; 9000]);
}

#[test]
fn freed_metadata_is_not_given_away_while_a_checkpoint_writes_it() {
    let Some(image) = image(&["-b", "1024"]) else { return };
    let device = Arc::new(GateDevice::new(image.snapshot()));
    let volume = mounted(&device, MountOptions::new());
    let root = volume.root().unwrap();
    volume.make_directory(ROOT, &root, b"d", 0o755).unwrap();
    volume.transactions.commit_running().unwrap();
    device.hold_next(OperationKind::Write);
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| volume.transactions.checkpoint(u32::MAX));
        device.wait_held();
        volume.remove_directory(ROOT, &root, b"d").unwrap();
        let commit = || volume.transactions.commit_running().unwrap();
        assert!(waits(commit, || device.open()), "the block may be used while it is written");
        checkpoint.join().unwrap().unwrap();
    });
}

#[test]
fn without_a_journal_metadata_goes_home_while_no_handle_runs() {
    let Some(image) = image(&["-O", "^has_journal"]) else { return };
    let device = Arc::new(GateDevice::new(image));
    let volume = mounted(&device, MountOptions::new());
    let root = volume.root().unwrap();
    let create = |name: &[u8]| drop(volume.create_file(ROOT, &root, name, 0o644).unwrap());
    create(b"f");
    device.hold_next(OperationKind::Write);
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| volume.transactions.sync());
        device.wait_held();
        assert!(waits(|| create(b"g"), || device.open()), "a handle runs while blocks go home");
        sync.join().unwrap().unwrap();
    });
    create(b"h");
    let blocks = Credits::blocks(1, volume.transactions.geometry());
    let handle = volume.transactions.begin(blocks).unwrap();
    let sync = || volume.transactions.sync().unwrap();
    assert!(waits(sync, || drop(handle)), "blocks go home while a handle runs");
}

#[test]
fn the_stored_size_never_passes_what_has_a_place() {
    let Some(image) = image(&["-b", "1024"]) else { return };
    for unwritten in [true, false] {
        let options = MountOptions::new().unwritten_until_done(unwritten);
        let volume = mounted(&Arc::new(image.snapshot()), options);
        let file = volume.create_file(ROOT, &volume.root().unwrap(), b"f", 0o644).unwrap();
        let stored = || file.core.lock().size;
        volume.write_file(ROOT, &file, Some(0), &[7; 4096]).unwrap();
        volume.write_file(ROOT, &file, Some(1 << 20), &[7; 5000]).unwrap();
        assert_eq!((stored(), file.size()), (0, (1 << 20) + 5000));
        volume.writeback.write_inode(&file, 0..4096, Purpose::Integrity).unwrap();
        assert_eq!(stored(), 4096);
        volume.writeback.write_inode(&file, 0..u64::MAX, Purpose::Integrity).unwrap();
        assert_eq!(stored(), file.size());
        // A block that is there already takes the size along at once.
        volume.write_file(ROOT, &file, Some((1 << 20) + 5000), b"x").unwrap();
        assert_eq!(stored(), file.size());
    }
}

#[test]
fn an_inode_that_left_memory_still_knows_that_it_has_to_be_committed() {
    let Some(image) = image(&[]) else { return };
    let device = Arc::new(image);
    let volume = mounted(&device, MountOptions::new());
    let root = volume.root().unwrap();
    let file = volume.create_file(ROOT, &root, b"f", 0o644).unwrap();
    volume.write_file(ROOT, &file, Some(0), &[7; 9000]).unwrap();
    volume.writeback.write_inode(&file, 0..u64::MAX, Purpose::Integrity).unwrap();
    volume.writeback.kick();
    let address = Arc::as_ptr(&file).addr();
    drop(file);
    // Takes the address, so that what is read anew cannot come to lie there.
    let mut held = Vec::new();
    volume.inodes.shrink_to(0);
    assert!(volume.inodes.in_memory().iter().all(|inode| Arc::as_ptr(inode).addr() != address));
    held.push(volume.lookup(ROOT, &root, b"f").unwrap());
    let file = held.pop().unwrap();
    let open = volume.open_file(&file, false).unwrap();
    volume.sync_file(&file, &open, true).unwrap();
    let volume = mounted(&Arc::new(device.snapshot()), MountOptions::read_only());
    let found = volume.lookup(ROOT, &volume.root().unwrap(), b"f").unwrap();
    assert_eq!(found.size(), 9000);
}

#[test]
fn an_inode_with_dirty_bytes_or_users_stays_in_memory() {
    let Some(image) = image(&[]) else { return };
    let volume = mounted(&Arc::new(image), MountOptions::new());
    let root = volume.root().unwrap();
    let dirty = volume.create_file(ROOT, &root, b"dirty", 0o644).unwrap();
    let used = volume.create_file(ROOT, &root, b"used", 0o644).unwrap();
    volume.write_file(ROOT, &dirty, Some(0), &[7; 9000]).unwrap();
    let number = dirty.number();
    drop(dirty);
    volume.inodes.shrink_to(0);
    assert!(volume.inodes.find(number).is_some_and(|inode| inode.pages.dirty_blocks() > 0));
    assert!(volume.inodes.find(used.number()).is_some_and(|inode| Arc::ptr_eq(&inode, &used)));
}

#[test]
fn a_deleted_inode_is_nobodys_any_more_and_one_in_use_is_not_deleted() {
    let Some(image) = image(&[]) else { return };
    let volume = mounted(&Arc::new(image), MountOptions::new());
    let root = volume.root().unwrap();
    let file = volume.create_file(ROOT, &root, b"f", 0o644).unwrap();
    assert!(!file.retire(), "it has a name");
    assert!(file.acquire());
    volume.unlink(ROOT, &root, b"f").unwrap();
    assert!(!file.retire(), "it is in use");
    assert!(volume.allocator.is_inode_used(file.number()).unwrap());
    assert!(file.release());
    volume.release(&file);
    assert!(!volume.allocator.is_inode_used(file.number()).unwrap());
    assert!(!file.acquire(), "it is gone");
    assert!(!file.retire(), "it has gone already");
}

#[test]
fn nothing_but_zeros_reaches_the_device_behind_the_end_of_a_file() {
    let Some(image) = image(&[]) else { return };
    let device = Arc::new(image);
    let volume = mounted(&device, MountOptions::new());
    let file = volume.create_file(ROOT, &volume.root().unwrap(), b"f", 0o644).unwrap();
    volume.write_file(ROOT, &file, Some(0), &[7; 100]).unwrap();
    // As a store through a mapping would.
    let folio = file.pages.find_or_create(crate::page_cache::PageIndex::ZERO, 1, 0);
    folio.write_bytes(100, &[9; 500]);
    drop(folio);
    volume.sync_all().unwrap();
    let place = volume.extents(&file, &(0..u64::MAX), usize::MAX).unwrap()[0].physical.unwrap();
    let block = volume.transactions.geometry().block_len();
    let start = usize::try_from(place).unwrap() * block;
    let bytes = &device.to_vec()[start..start + block];
    assert_eq!(bytes[..100], [7; 100]);
    assert!(bytes[100..].iter().all(|&byte| byte == 0));
}
