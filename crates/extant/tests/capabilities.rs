//! A file's capability goes when its owner or its bytes change, as the kernel's `file_remove_privs` has it.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::sync::Arc;

use extant::{Filesystem, MountOptions, OpenOptions, RangeChange, SetAttributes};
use extant_device::MemoryDevice;
use extant_testkit::oracle::{self, Scratch};

const NAME: &str = "security.capability";

fn volume(options: &[&str]) -> Option<(Arc<MemoryDevice>, Scratch)> {
    let scratch = Scratch::new("capabilities");
    oracle::mkfs(&scratch.path("image"), 16 << 20, options)?;
    let bytes = std::fs::read(scratch.path("image")).unwrap();
    Some((Arc::new(MemoryDevice::from_bytes(&bytes)), scratch))
}

/// Whether the capability of a file that has one is still there after a change, now and after a mount.
fn survives(device: &Arc<MemoryDevice>, change: impl FnOnce(&Filesystem)) -> bool {
    let fs = MountOptions::new().mount(Arc::clone(device)).unwrap();
    fs.create("/f").unwrap().write_at(&[1; 9000], 0).unwrap();
    fs.set_xattr("/f", NAME, [7; 20]).unwrap();
    fs.set_xattr("/f", "user.kept", b"kept").unwrap();
    fs.unmount().unwrap();
    let fs = MountOptions::new().mount(Arc::clone(device)).unwrap();
    change(&fs);
    let has = |fs: &Filesystem| fs.xattr("/f", NAME).is_ok();
    let found = has(&fs);
    assert_eq!(fs.xattr("/f", "user.kept").unwrap(), b"kept");
    fs.unmount().unwrap();
    let fs = MountOptions::new().mount(Arc::clone(device)).unwrap();
    assert_eq!(has(&fs), found);
    fs.remove_file("/f").unwrap();
    fs.unmount().unwrap();
    found
}

#[test]
fn a_change_of_owner_or_bytes_takes_the_capability() {
    for options in [&["-I", "256"][..], &["-I", "128"]] {
        let Some((device, scratch)) = volume(options) else { return };
        let open = |fs: &Filesystem| fs.open_with("/f", OpenOptions::new().write(true)).unwrap();
        let set =
            |fs: &Filesystem, change| fs.inode("/f").unwrap().set_attributes(&change).unwrap();
        let none = SetAttributes::default();
        assert!(!survives(&device, |fs| set(fs, SetAttributes { uid: Some(1), ..none })));
        assert!(!survives(&device, |fs| set(fs, SetAttributes { gid: Some(0), ..none })));
        assert!(!survives(&device, |fs| assert_eq!(open(fs).write_at(b"x", 0).unwrap(), 1)));
        assert!(!survives(&device, |fs| open(fs).set_len(5).unwrap()));
        assert!(!survives(&device, |fs| drop(fs.create("/f").unwrap())));
        let punch = |fs: &Filesystem| open(fs).change_range(RangeChange::PunchHole, 0, 4096);
        assert!(!survives(&device, |fs| punch(fs).unwrap()));
        // One that is set again stays until the next change.
        assert!(survives(&device, |fs| {
            open(fs).write_at(b"x", 0).unwrap();
            fs.set_xattr("/f", NAME, [8; 20]).unwrap();
        }));
        assert!(survives(&device, |fs| set(fs, SetAttributes { mode: Some(0o700), ..none })));
        assert!(survives(&device, |fs| fs.rename("/f", "/g").and(fs.rename("/g", "/f")).unwrap()));
        assert!(survives(&device, |fs| drop(open(fs))));
        std::fs::write(scratch.path("now"), device.to_vec()).unwrap();
        oracle::e2fsck(&scratch.path("now")).unwrap();
    }
}
