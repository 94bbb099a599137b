//! What errors leave behind: in the superblock, in the journal, and at the next mount.
//!
//! Kernel `fs/ext4/super.c`: `ext4_handle_error`, `ext4_update_super`, `ext4_clear_journal_err`, `ext4_orphan_cleanup`.

use std::path::Path;
use std::sync::Arc;

use extant::{Error, InodeNumber, MountOptions, OnError};
use extant_device::MemoryDevice;
use extant_format::PhysicalBlock;
use extant_format::corruption::{Place, Rule};
use extant_testkit::RecordingDevice;
use extant_testkit::oracle::{self, Scratch};

use crate::world::{StillClock, World, mount, mount_at, open, write};

/// The lines of `dumpe2fs -h` whose name contains one of these words, without the blanks between.
fn told(image: &MemoryDevice) -> Vec<String> {
    let scratch = Scratch::new("told");
    let path = scratch.path("image");
    std::fs::write(&path, image.to_vec()).unwrap();
    lines(&path)
}

fn lines(image: &Path) -> Vec<String> {
    let output = oracle::run("dumpe2fs", &["-h", image.to_str().unwrap()]).unwrap();
    let words = [
        "Filesystem state",
        "FS Error",
        "error err",
        "error inode",
        "error block",
        "error function",
        "Journal errno",
    ];
    let text = oracle::text(&output);
    let wanted = text.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    wanted.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn errors() -> [Error; 2] {
    let inode = Place::Inode(InodeNumber::new(12).unwrap()).breaks(Rule::Checksum);
    let block = Place::Block(PhysicalBlock::new(99)).breaks(Rule::Magic);
    [inode.into(), block.into()]
}

const BOTH: [&str; 7] = [
    "FS Error count: 2",
    "First error function: checksum does not match",
    "First error inode #: 12",
    "First error err: EFSBADCRC",
    "Last error function: wrong magic number",
    "Last error block #: 99",
    "Last error err: EFSCORRUPTED",
];

#[test]
fn a_volume_that_goes_on_tells_of_its_errors_at_the_next_tick_and_at_the_unmount() {
    let world = World::new("continue");
    for format in [&[][..], &["-b", "1024"], &["-O", "^has_journal"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        for ticks in [true, false] {
            let device = Arc::new(image.snapshot());
            let fs = mount(&device, MountOptions::new()).unwrap();
            for error in &errors() {
                fs.handle_error(error, fs.on_error());
            }
            write(&open(&fs, "/f"), &[7; 5000], 0);
            if ticks {
                fs.tick().unwrap();
                fs.sync_all().unwrap();
                let crashed = Arc::new(device.snapshot());
                let found = mount(&crashed, MountOptions::read_only()).unwrap().superblock();
                assert_eq!(found.raw().error_count.get(), 2, "{format:?}");
            }
            fs.unmount().unwrap();
            let told = told(&device);
            assert_eq!(told[0], "Filesystem state: clean with errors");
            assert_eq!(told[1..], BOTH, "{format:?}");
            world.e2fsck(&device).unwrap();
        }
    }
}

#[test]
fn a_volume_that_is_stopped_tells_at_once_and_writes_nothing_more() {
    let world = World::new("stopped");
    for (policy, format) in [
        (OnError::ReadOnly, &[][..]),
        (OnError::Panic, &["-b", "1024"]),
        (OnError::ReadOnly, &["-O", "^has_journal"]),
    ] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(RecordingDevice::from_image(&image));
        let fs = mount(&device, MountOptions::new()).unwrap();
        // In the journal there is a superblock that knows of no error.
        fs.set_label(b"label").unwrap();
        let file = open(&fs, "/f");
        write(&file, &[7; 5000], 0);
        fs.handle_error(&errors()[0], policy);
        let stopped = device.position();
        fs.handle_error(&errors()[1], policy);
        assert!(matches!(file.write_at(b"x", 0), Err(Error::Aborted { .. })));
        assert!(matches!(fs.create_dir("/d"), Err(Error::Aborted { .. })));
        let _ = fs.tick();
        assert!(fs.sync_all().is_err() && fs.unmount().is_err());
        assert_eq!(device.position(), stopped, "{policy:?}");

        let after = device.inner().snapshot();
        let left = told(&after);
        assert!(left[0].ends_with("with errors"), "{left:?}");
        assert_eq!(left[1], "FS Error count: 1", "{left:?}");
        let journaled = !format.contains(&"^has_journal");
        assert_eq!(left.contains(&"Journal errno: -5".to_owned()), journaled, "{left:?}");
        if journaled {
            // The next mount takes it over from the journal, and keeps what the superblock knew.
            let device = Arc::new(after);
            let fs = mount(&device, MountOptions::new()).unwrap();
            assert_eq!(fs.label().unwrap(), b"label");
            fs.unmount().unwrap();
            let left = told(&device);
            assert_eq!(left[..2], ["Filesystem state: clean with errors", "FS Error count: 1"]);
            assert!(!left.iter().any(|line| line.contains("errno")), "{left:?}");
            world.e2fsck(&device).unwrap();
        }
    }
}

#[test]
fn the_superblock_says_what_errors_do() {
    let world = World::new("policy");
    for (name, policy) in [
        ("continue", OnError::Continue),
        ("remount-ro", OnError::ReadOnly),
        ("panic", OnError::Panic),
    ] {
        let Some(image) = world.mkfs(8, &["-e", name]) else { return };
        let fs = mount(&Arc::new(image), MountOptions::new()).unwrap();
        assert_eq!(fs.on_error(), policy);
    }
}

#[test]
fn j9_4_orphans_of_a_volume_with_errors_are_left_to_e2fsck() {
    let world = World::new("orphans");
    let Some(image) = world.mkfs(8, &["-O", "^orphan_file"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    write(&open(&fs, "/f"), &[7; 50_000], 0);
    let number = fs.metadata("/f").unwrap().inode.get();
    fs.unmount().unwrap();
    let cut = format!("sif /f size 5000\nssv last_orphan {number}\nssv state 3\n");
    let device = Arc::new(world.changed_by_debugfs(&device, &cut));
    let clock = Arc::new(StillClock::default());
    clock.advance(1000);
    let fs = mount_at(&device, MountOptions::new(), &clock).unwrap();
    let found = fs.metadata("/f").unwrap();
    assert_eq!(found.modified.seconds, 1_700_000_000, "nobody has cut it");
    fs.unmount().unwrap();
    let stats = world.debugfs(&device, "stats -h");
    assert!(!stats.contains("First orphan inode"), "{stats}");
    let said = world.e2fsck(&device).unwrap_err();
    assert!(said.contains("Inode 12"), "blocks behind the end stay: {said}");
}
