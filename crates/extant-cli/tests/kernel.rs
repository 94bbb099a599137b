//! Trees that we write the kernel reads, and the other way round, on images of many kinds that mkfs.ext4 made.
//!
//! The tree is a small one with one of everything; `EXTANT_TREE` names another, as `cargo xtask oracle` does.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::tree::{compare_but, make_tree};
use common::{at, check, ok};
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::skip;

/// A kind of image.
struct Kind {
    name: &'static str,
    options: &'static [&'static str],
    /// What this kind cannot keep, or shows in another unit.
    ignored: &'static [&'static str],
    /// Whether we write it.
    written: bool,
    /// Whether this machine's kernel mounts it.
    mounted: bool,
}

const PLAIN: Kind =
    Kind { name: "plain", options: &[], ignored: &[], written: true, mounted: true };

/// The tree to copy.
fn source(scratch: &Scratch) -> PathBuf {
    if let Some(tree) = std::env::var_os("EXTANT_TREE") {
        return PathBuf::from(tree);
    }
    let tree = scratch.path("tree");
    make_tree(&tree);
    tree
}

/// An image of 4 GiB, most of it holes.
fn image(scratch: &Scratch, kind: &Kind) -> Option<PathBuf> {
    let image = scratch.path("disk.img");
    oracle::mkfs(&image, 4 << 30, kind.options).map(|()| image)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn we_write(kind: &Kind) {
    let scratch = Scratch::new(kind.name);
    let Some(image) = image(&scratch, kind).filter(|_| kind.written) else { return };
    let source = source(&scratch);
    ok(["cp", "-qa", text(&source), &at(&image, "/copy")]);
    check(&image);
    if kind.mounted {
        let Some(mount) = KernelMount::new(&image, &scratch.path("mount"), "ro") else { return };
        compare_but(&source, &mount.root().join("copy"), kind.ignored);
        return mount.unmount().unwrap();
    }
    // debugfs reads it in the kernel's place; it keeps neither times nor hard links.
    std::fs::create_dir(scratch.path("dump")).unwrap();
    if oracle::debugfs(&image, &format!("rdump /copy {}", text(&scratch.path("dump")))).is_some() {
        let kept = [
            "mode", "owner", "modified", "links", "sparse", "data", "xattrs", "same_as", "device",
            "missing",
        ];
        compare_but(&source, &scratch.path("dump/copy"), &kept);
    }
}

fn we_read(kind: &Kind) {
    let scratch = Scratch::new(kind.name);
    let Some(image) = image(&scratch, kind) else { return };
    let source = source(&scratch);
    if !kind.mounted {
        return skip("this machine's kernel cannot mount such an image");
    }
    let Some(mount) = KernelMount::new(&image, &scratch.path("mount"), "") else { return };
    let copied = Command::new("cp").arg("-a").arg(&source).arg(mount.root().join("copy")).status();
    assert!(copied.unwrap().success());
    mount.unmount().unwrap();
    let back = scratch.path("back");
    ok(["cp", "-qa", &at(&image, "/copy"), text(&back)]);
    compare_but(&source, &back, kind.ignored);
}

macro_rules! kinds {
    ($($name:ident: $kind:expr;)*) => {
        mod we_write {
            $(#[test] fn $name() { super::we_write(&super::Kind { name: stringify!($name), ..$kind }); })*
        }
        mod we_read {
            $(#[test] fn $name() { super::we_read(&super::Kind { name: stringify!($name), ..$kind }); })*
        }
    };
}

kinds! {
    defaults: super::PLAIN;
    blocks_of_1_kib: super::Kind { options: &["-b", "1024"], ignored: &["data"], ..super::PLAIN };
    blocks_of_2_kib: super::Kind { options: &["-b", "2048"], ignored: &["data"], ..super::PLAIN };
    blocks_of_64_kib:
        super::Kind { options: &["-b", "65536"], ignored: &["data"], mounted: false, ..super::PLAIN };
    without_checksums: super::Kind { options: &["-O", "^metadata_csum"], ..super::PLAIN };
    ext3: super::Kind { options: &["-O", "^64bit,^extent"], ..super::PLAIN };
    without_journal: super::Kind { options: &["-O", "^has_journal"], ..super::PLAIN };
    inline_data: super::Kind { options: &["-O", "inline_data"], ignored: &["data"], ..super::PLAIN };
    bigalloc: super::Kind { options: &["-O", "bigalloc"], ignored: &["data", "sparse"], ..super::PLAIN };
    inodes_of_128_bytes: super::Kind { options: &["-I", "128"], ignored: &["nanoseconds"], ..super::PLAIN };
}
