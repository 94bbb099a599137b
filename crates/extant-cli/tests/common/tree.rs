//! Trees of files to copy, and their comparison.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use extant_testkit::tree;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

/// A tree with one of everything that this user may make.
pub fn make_tree(root: &Path) {
    let file = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).unwrap();
    fs::create_dir_all(root.join("deep/er/and/deeper")).unwrap();
    file("empty", b"");
    file("one", b"1");
    file("deep/er/block", &[7; 4096]);
    file("deep/er/and/odd", &[8; (1 << 20) + 3]);
    file("\u{e4} name with blanks", b"text");
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"no\xFFtext")), b"bytes").unwrap();
    for n in 0..300 {
        file(&format!("deep/many-{n}"), n.to_string().as_bytes());
    }
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o1700)).unwrap();
    fs::hard_link(root.join("one"), root.join("deep/one-too")).unwrap();
    symlink("one", root.join("short")).unwrap();
    symlink("x/".repeat(150), root.join("long")).unwrap();
    fs::hard_link(root.join("short"), root.join("deep/short-too")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&[9; 5000], 1 << 20).unwrap();
    sparse.set_len(5 << 20).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    // Not every file system has attributes; where it has none, nothing is compared.
    let _ = rustix::fs::lsetxattr(root.join("one"), "user.note", b"kept", XattrFlags::empty());
    let _ = rustix::fs::lsetxattr(root.join("deep"), "user.large", &[5; 900], XattrFlags::empty());
    let list = access_list();
    let _ = rustix::fs::lsetxattr(
        root.join("deep/er/block"),
        "system.posix_acl_access",
        &list,
        XattrFlags::empty(),
    );
    let _ = rustix::fs::lsetxattr(
        root.join("deep/er/and"),
        "system.posix_acl_default",
        &list,
        XattrFlags::empty(),
    );
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(300, 70_000);
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(
            CWD,
            root.join("device"),
            rustix::fs::FileType::BlockDevice,
            mode,
            device,
        )
        .unwrap();
        std::os::unix::fs::lchown(root.join("short"), Some(12), Some(70_000)).unwrap();
        std::os::unix::fs::chown(root.join("empty"), Some(1000), Some(100_000)).unwrap();
    }
    for (n, name) in (0..).zip(["empty", "short", "sparse", "deep/er", "deep", ""]) {
        let time = |seconds| Timespec { tv_sec: seconds, tv_nsec: 123_456_789 + n };
        let times =
            Timestamps { last_access: time(1_500_000_000 + n), last_modification: time(n - 3) };
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// An access list as system calls take it: owner, user 1000, group, mask, others.
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (1, 6, u32::MAX),
        (2, 5, 1000),
        (4, 4, u32::MAX),
        (0x10, 5, u32::MAX),
        (0x20, 4, u32::MAX),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Times of access change by looking, times of change by copying.
pub fn compare(left: &Path, right: &Path) {
    compare_but(left, right, &[]);
}

/// The same, without some fields; `nanoseconds` may be ignored alone.
pub fn compare_but(left: &Path, right: &Path, ignored: &[&str]) {
    let read = |root: &Path| {
        let mut tree = tree::read(root).unwrap();
        let cut = ignored.contains(&"nanoseconds");
        tree.values_mut().filter(|_| cut).for_each(|entry| entry.modified.1 = 0);
        tree
    };
    let (left, right) = (read(left), read(right));
    let found = tree::differences(&left, &right, |_, field| {
        matches!(field, "accessed" | "changed") || ignored.contains(&field)
    });
    assert!(
        found.is_empty(),
        "{} differences, first {:#?}",
        found.len(),
        &found[..found.len().min(20)]
    );
}
