//! Threads on one volume under a scheduler that decides at every lock who goes on: shuttle, by `cargo xtask schedules`.
//!
//! After each schedule all bytes are some that were written, the free counts fit the bitmaps, and a sample is clean under
//! `e2fsck`. A schedule that fails prints itself; `SHUTTLE_REPLAY` holds it for a second run.
#![cfg(extant_shuttle)]

mod depth_first;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use extant::{DataMode, Error, File, Filesystem, MountOptions, RangeChange, SetAttributes};
use extant_device::MemoryDevice;
use extant_format::InodeFlags;
use extant_format::cast::u64_from;
use extant_image::{MkfsOptions, mkfs};
use extant_lab::counts;
use extant_script::Volume;
use extant_testkit::oracle::{self, Scratch};
use shuttle::thread;

/// Bytes that a thread writes at a time: more than a block, and not on its edges.
const PIECE: usize = 5000;
/// One image in so many is shown to e2fsck.
const SAMPLE: usize = 500;

type Work = Box<dyn FnOnce(&Filesystem) -> Result<(), Error> + Send>;

/// How often each scenario runs with each scheduler.
fn rounds() -> usize {
    std::env::var("EXTANT_SCHEDULES").map_or(20, |count| count.parse().expect("a number"))
}

/// An empty volume; made once.
fn base() -> &'static MemoryDevice {
    static BASE: OnceLock<MemoryDevice> = OnceLock::new();
    BASE.get_or_init(|| {
        let device = MemoryDevice::new(8 << 20);
        let options = MkfsOptions {
            usage: Some("default".to_owned()),
            uuid: [7; 16],
            hash_seed: [9; 16],
            ..MkfsOptions::default()
        };
        mkfs(&device, &options).expect("an image can be made");
        device
    })
}

/// One whose inodes hold small files; `None`, after a skip, without mke2fs.
fn inline_base() -> Option<&'static MemoryDevice> {
    static BASE: OnceLock<Option<MemoryDevice>> = OnceLock::new();
    let make = || {
        let scratch = Scratch::new("schedule");
        let path = scratch.path("disk.img");
        oracle::mkfs(&path, 8 << 20, &["-b", "1024", "-O", "inline_data"])?;
        Some(extant_lab::bases::load(&path))
    };
    BASE.get_or_init(make).as_ref()
}

/// Runs `threads` side by side in many schedules, after `before` and followed by `after`, and judges what they left.
fn check(
    options: fn() -> MountOptions,
    before: fn(&Filesystem) -> Result<(), Error>,
    threads: fn() -> Vec<Work>,
    after: fn(&Filesystem) -> Result<(), Error>,
) {
    check_on(base(), options, before, threads, after);
}

fn check_on(
    device: &'static MemoryDevice,
    options: fn() -> MountOptions,
    before: fn(&Filesystem) -> Result<(), Error>,
    threads: fn() -> Vec<Work>,
    after: fn(&Filesystem) -> Result<(), Error>,
) {
    let run = move || {
        let device = Arc::new(device.snapshot());
        let volume =
            Volume::mount(Arc::<MemoryDevice>::clone(&device), options()).expect("it mounts");
        before(&volume.filesystem).expect("the scene can be set");
        let running: Vec<_> = threads()
            .into_iter()
            .map(|work| {
                let filesystem = volume.filesystem.clone();
                thread::spawn(move || work(&filesystem).expect("an operation that fits"))
            })
            .collect();
        running.into_iter().for_each(|thread| thread.join().expect("a thread ends"));
        after(&volume.filesystem).expect("what is left can be read");
        volume.unmount().expect("it unmounts");
        judge(&device);
    };
    shuttle::check_random(run, rounds());
    shuttle::check_pct(run, rounds(), 3);
}

fn judge(image: &MemoryDevice) {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    counts::check(image).expect("free counts fit the bitmaps");
    if SEEN.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
        let scratch = Scratch::new("schedule");
        let path = scratch.path("disk.img");
        std::fs::write(&path, image.to_vec()).expect("the image can be written");
        oracle::e2fsck(&path).expect("a clean image");
    }
}

fn nothing(_: &Filesystem) -> Result<(), Error> {
    Ok(())
}

fn with_file(filesystem: &Filesystem) -> Result<(), Error> {
    let file = filesystem.create("/file")?;
    write(&file, b'0', 0, 4)?;
    file.sync_all()
}

/// Writes `pieces` pieces of one letter from `offset` on.
fn write(file: &File, letter: u8, offset: u64, pieces: u64) -> Result<(), Error> {
    for piece in 0..pieces {
        let bytes = [letter; PIECE];
        let mut done = 0;
        while done < PIECE {
            let at = offset + piece * u64_from(PIECE) + u64_from(done);
            done += file.write_at(&bytes[done..], at)?;
        }
    }
    Ok(())
}

/// Every byte of a file that only grows is zero or one of `letters`, and it ends where its size says.
fn has_only(filesystem: &Filesystem, path: &str, letters: &[u8]) -> Result<(), Error> {
    let file = filesystem.open(path)?;
    let before = file.metadata()?.size;
    let len = read_only(&file, letters)?;
    assert!((before..=file.metadata()?.size).contains(&len));
    Ok(())
}

/// Every byte of a file is zero or one of `letters`: how many there are.
fn read_only(file: &File, letters: &[u8]) -> Result<u64, Error> {
    let mut bytes = vec![0xFF; 64 * PIECE];
    let len = file.read_at(&mut bytes, 0)?;
    let strange = bytes[..len].iter().position(|byte| *byte != 0 && !letters.contains(byte));
    assert_eq!(strange, None, "a byte that nobody wrote");
    Ok(u64_from(len))
}

fn small_cache() -> MountOptions {
    MountOptions::new().cache_bytes(1 << 20).dirty_background_ratio(1).dirty_ratio(2)
}

fn immediate() -> MountOptions {
    MountOptions::new().delayed_allocation(false)
}

fn written_at_once() -> MountOptions {
    MountOptions::new().unwritten_until_done(false)
}

fn journaled() -> MountOptions {
    MountOptions::new().data_mode(DataMode::Journal)
}

fn open(filesystem: &Filesystem) -> Result<File, Error> {
    filesystem.open_with("/file", extant::OpenOptions::new().read(true).write(true))
}

fn writer_truncate_and_writeback() -> Vec<Work> {
    vec![
        Box::new(|fs| write(&open(fs)?, b'a', 1000, 3)),
        Box::new(|fs| {
            let file = open(fs)?;
            file.set_len(3000)?;
            file.set_len(30_000)
        }),
        Box::new(|fs| {
            open(fs)?.sync_data()?;
            fs.tick().map(|_| ())
        }),
    ]
}

fn zero_a_or_0(fs: &Filesystem) -> Result<(), Error> {
    has_only(fs, "/file", b"0a")
}

/// S16: a writer against truncation and writeback of the same blocks, in each way to allocate.
#[test]
fn s16_a_writer_against_truncate_and_writeback() {
    for options in [MountOptions::new, immediate, written_at_once, small_cache, journaled] {
        check(options, with_file, writer_truncate_and_writeback, zero_a_or_0);
    }
}

/// A hole is punched while later data reaches its place: the size that is stored may be further by then, and stays so (I4).
#[test]
fn i4_a_punch_never_takes_the_stored_size_back() {
    check(
        MountOptions::new,
        |fs| write(&fs.create("/file")?, b'a', 0, 4),
        || {
            vec![
                Box::new(|fs| open(fs)?.change_range(RangeChange::PunchHole, 0, 8192)),
                Box::new(|fs| open(fs)?.sync_data()),
            ]
        },
        |fs| {
            fs.sync_all()?;
            fs.check_invariants(false)
        },
    );
}

/// Two writers of overlapping ranges and a reader, who sees only whole states of each block.
#[test]
fn two_writers_and_a_reader_of_one_file() {
    check(
        MountOptions::new,
        with_file,
        || {
            vec![
                Box::new(|fs| write(&open(fs)?, b'a', 0, 3)),
                Box::new(|fs| write(&open(fs)?, b'b', 7000, 3)),
                Box::new(|fs| has_only(fs, "/file", b"0ab")),
            ]
        },
        |fs| {
            has_only(fs, "/file", b"ab0")?;
            assert_eq!(fs.metadata("/file")?.size, 22_000);
            Ok(())
        },
    );
}

/// Names come, go and move while everything is synced.
#[test]
fn names_against_sync() {
    check(
        MountOptions::new,
        with_file,
        || {
            vec![
                Box::new(|fs| {
                    write(&fs.create("/a")?, b'a', 0, 1)?;
                    fs.rename("/a", "/b")
                }),
                Box::new(|fs| {
                    fs.create_dir("/folder")?;
                    fs.rename("/file", "/folder/file")?;
                    fs.remove_file("/folder/file")
                }),
                Box::new(|fs| fs.sync_all()),
            ]
        },
        |fs| {
            has_only(fs, "/b", b"a")?;
            assert!(fs.metadata("/file").is_err() && fs.metadata("/a").is_err());
            Ok(())
        },
    );
}

/// A file that is removed while it is written and synced gives everything back with its last user.
#[test]
fn a_file_removed_in_use_goes_with_its_last_user() {
    check(
        small_cache,
        with_file,
        || {
            vec![
                Box::new(|fs| match open(fs) {
                    Ok(file) => {
                        write(&file, b'a', 20_000, 8)?;
                        file.sync_all()
                    }
                    Err(Error::NotFound) => Ok(()),
                    Err(error) => Err(error),
                }),
                Box::new(|fs| fs.remove_file("/file")),
                Box::new(|fs| fs.tick().map(|_| ())),
            ]
        },
        |fs| {
            assert!(fs.metadata("/file").is_err());
            Ok(())
        },
    );
}

/// Appends that are each followed by `fsync`, from two threads, while a third one syncs the volume.
#[test]
fn commits_beside_each_other() {
    check(
        MountOptions::new,
        nothing,
        || {
            let append = |name: &'static str| -> Work {
                Box::new(move |fs| {
                    let file = fs.create(name)?;
                    for piece in 0..3 {
                        write(&file, b'a', piece * 5000, 1)?;
                        file.sync_all()?;
                    }
                    Ok(())
                })
            };
            vec![append("/one"), append("/two"), Box::new(|fs| fs.sync_all())]
        },
        |fs| {
            has_only(fs, "/one", b"a")?;
            has_only(fs, "/two", b"a")
        },
    );
}

/// Old data goes by the clock while a writer overwrites it and a cut takes it away.
#[test]
fn expired_data_against_a_writer_and_unlink() {
    check(
        || MountOptions::new().commit_interval(Duration::ZERO),
        with_file,
        || {
            vec![
                Box::new(|fs| write(&open(fs)?, b'a', 0, 4)),
                Box::new(|fs| {
                    for _ in 0..3 {
                        fs.tick()?;
                    }
                    Ok(())
                }),
                Box::new(|fs| {
                    fs.create("/other")?;
                    fs.rename("/other", "/third")?;
                    fs.remove_file("/third")
                }),
            ]
        },
        zero_a_or_0,
    );
}

/// Journaled data changes while a commit seals it, is read while it is on its way home, and is cut off.
#[test]
fn journaled_data_against_commits_and_readers() {
    check(
        || journaled().cache_bytes(1 << 20),
        with_file,
        || {
            vec![
                Box::new(|fs| {
                    let file = open(fs)?;
                    write(&file, b'a', 3000, 2)?;
                    file.sync_data()?;
                    write(&file, b'b', 0, 2)
                }),
                Box::new(|fs| {
                    fs.sync_all()?;
                    open(fs)?.set_len(9000)?;
                    fs.sync_all()
                }),
                Box::new(|fs| read_only(&fs.open("/file")?, b"0ab").map(drop)),
            ]
        },
        |fs| has_only(fs, "/file", b"0ab"),
    );
}

/// Whether a file's data is journaled changes beside those who write and sync it and others.
#[test]
fn the_flag_of_journaled_data_changes_in_use() {
    fn set_flag(file: &File, on: bool) -> Result<(), Error> {
        let mut flags = file.metadata()?.flags;
        flags.set(InodeFlags::JOURNAL_DATA, on);
        file.inode().set_attributes(&SetAttributes { flags: Some(flags), ..Default::default() })
    }
    check(
        immediate,
        with_file,
        || {
            vec![
                Box::new(|fs| {
                    let file = open(fs)?;
                    write(&file, b'a', 0, 2)?;
                    file.sync_data()?;
                    write(&file, b'a', 7000, 1)
                }),
                Box::new(|fs| {
                    set_flag(&open(fs)?, true)?;
                    set_flag(&open(fs)?, false)?;
                    set_flag(&open(fs)?, true)
                }),
                Box::new(|fs| {
                    write(&fs.create("/other")?, b'c', 0, 2)?;
                    fs.sync_all()
                }),
            ]
        },
        |fs| {
            has_only(fs, "/file", b"0a")?;
            has_only(fs, "/other", b"c")
        },
    );
}

/// Whoever reads while a direct write fills what was set aside must not leave zeros in memory for those who come later.
#[test]
fn d21_a_direct_write_into_unwritten_blocks_against_readers() {
    fn past(fs: &Filesystem) -> Result<File, Error> {
        let how = extant::OpenOptions::new().read(true).write(true).direct(true);
        fs.open_with("/file", how)
    }
    check(
        MountOptions::new,
        |fs| {
            let file = fs.create("/file")?;
            file.change_range(RangeChange::Allocate { keep_size: false }, 0, 8192)?;
            file.sync_all()
        },
        || {
            vec![
                Box::new(|fs| past(fs)?.write_at(&[b'a'; 8192], 0).map(drop)),
                Box::new(|fs| {
                    has_only(fs, "/file", b"0a").and_then(|()| has_only(fs, "/file", b"0a"))
                }),
            ]
        },
        |fs| {
            let mut bytes = vec![0; 8192];
            open(fs)?.read_at(&mut bytes, 0)?;
            assert!(bytes.iter().all(|byte| *byte == b'a'), "memory has what was there before");
            Ok(())
        },
    );
}

fn with_small_file(filesystem: &Filesystem) -> Result<(), Error> {
    let file = filesystem.create("/file")?;
    file.write_at(&[b'0'; 100], 0)?;
    file.sync_all()
}

/// Contents that move out of their inode by a write and writeback, by a store, and by a size, while they change there.
#[test]
fn d6_contents_move_out_of_their_inode_from_several_sides() {
    let Some(device) = inline_base() else { return };
    for options in [MountOptions::new, immediate, written_at_once] {
        check_on(
            device,
            options,
            with_small_file,
            || {
                vec![
                    Box::new(|fs| {
                        let file = open(fs)?;
                        file.write_at(b"aaaa", 50)?;
                        file.write_at(b"aaaa", 98)?;
                        write(&file, b'a', 90, 1)
                    }),
                    Box::new(|fs| {
                        let file = open(fs)?;
                        file.store_at(b"b", 5)?;
                        file.sync_all()
                    }),
                    Box::new(|fs| has_only(fs, "/file", b"0ab").and_then(|()| fs.sync_all())),
                ]
            },
            |fs| {
                fs.check_invariants(false)?;
                has_only(fs, "/file", b"0ab")?;
                assert_eq!(fs.metadata("/file")?.size, 5090);
                Ok(())
            },
        );
    }
}

/// Contents that are cut, extended and removed while they are on their way out of the inode.
#[test]
fn d6_6_contents_are_cut_on_their_way_out_of_the_inode() {
    let Some(device) = inline_base() else { return };
    check_on(
        device,
        MountOptions::new,
        with_small_file,
        || {
            vec![
                Box::new(|fs| {
                    let file = open(fs)?;
                    file.set_len(40)?;
                    file.set_len(300)
                }),
                Box::new(|fs| write(&open(fs)?, b'a', 90, 1)),
                Box::new(|fs| {
                    open(fs)?.sync_all()?;
                    fs.tick().map(|_| ())
                }),
            ]
        },
        |fs| {
            fs.check_invariants(false)?;
            has_only(fs, "/file", b"0a")
        },
    );
}
