//! `cp` in all directions: what comes back is what went in, by our own reading and by the kernel's.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use common::tree::{compare, make_tree};
use common::{at, check, extant, fails, json, ok};
use extant_testkit::oracle::{self, Scratch};

fn image(scratch: &Scratch) -> PathBuf {
    let image = scratch.path("disk.img");
    ok(["mkfs", image.to_str().unwrap(), "256M"]);
    image
}

#[test]
fn a_tree_comes_back_as_it_went() {
    let scratch = Scratch::new("copy-tree");
    let (image, source, back) = (image(&scratch), scratch.path("tree"), scratch.path("back"));
    make_tree(&source);
    ok(["cp", "-qa", source.to_str().unwrap(), &at(&image, "/")]);
    check(&image);
    ok(["cp", "-qa", &at(&image, "/tree"), back.to_str().unwrap()]);
    compare(&source, &back);
}

#[test]
fn a_tree_goes_from_image_to_image_and_within_one() {
    let scratch = Scratch::new("copy-image");
    let (image, source) = (image(&scratch), scratch.path("tree"));
    let other = scratch.path("other.img");
    ok(["mkfs", "-b", "1024", "-I", "512", other.to_str().unwrap(), "128M"]);
    make_tree(&source);
    ok(["cp", "-qa", source.to_str().unwrap(), &at(&image, "/")]);
    ok(["cp", "-qa", &at(&image, "/tree"), &at(&other, "/moved")]);
    ok(["cp", "-qa", &at(&other, "/moved"), &at(&other, "/again")]);
    check(&other);
    for name in ["moved", "again"] {
        ok(["cp", "-qa", &at(&other, &format!("/{name}")), scratch.path(name).to_str().unwrap()]);
        compare(&source, &scratch.path(name));
    }
    fails(["cp", "-r", &at(&other, "/moved"), &at(&other, "/")], 2, "would be copied to");
    let output = extant(["cp", "-qr", &at(&other, "/again"), &at(&other, "/again/deep")]);
    assert_eq!(output.status.code(), Some(1), "{}", oracle::text(&output));
    check(&other);
}

#[test]
fn directories_are_filled_and_files_replaced() {
    let scratch = Scratch::new("copy-merge");
    let (image, source) = (image(&scratch), scratch.path("tree"));
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/a"), b"old and long").unwrap();
    let tree = source.to_str().unwrap();
    ok(["cp", "-qr", tree, &at(&image, "/")]);
    fs::write(source.join("sub/a"), b"new").unwrap();
    fs::write(source.join("sub/b"), b"more").unwrap();
    ok(["cp", "-qr", tree, &at(&image, "/")]);
    assert_eq!(ok(["cat", &at(&image, "/tree/sub/a"), &at(&image, "/tree/sub/b")]), "newmore");
    ok(["cp", "-qr", &format!("{tree}/."), &at(&image, "/tree/sub")]);
    assert_eq!(ok(["ls", &at(&image, "/tree/sub/sub")]), "a\nb\n");
    ok(["cp", &at(&image, "/tree/sub/a"), scratch.path("plain").to_str().unwrap()]);
    assert_eq!(fs::read(scratch.path("plain")).unwrap(), b"new");
    ok(["cp", &at(&image, "/tree/sub/b"), scratch.path("plain").to_str().unwrap()]);
    assert_eq!(fs::read(scratch.path("plain")).unwrap(), b"more");
    check(&image);
}

#[test]
fn what_cannot_be_copied_is_named_and_the_rest_goes_on() {
    let scratch = Scratch::new("copy-partly");
    let (image, source) = (image(&scratch), scratch.path("tree"));
    fs::create_dir_all(source.join("x/y")).unwrap();
    fs::write(source.join("x/y/z"), b"z").unwrap();
    fs::write(source.join("file"), b"f").unwrap();
    ok(["mkdir", &at(&image, "/tree"), &at(&image, "/tree/file")]);
    ok(["touch", &at(&image, "/tree/x")]);
    let output = extant(["cp", "-qr", source.to_str().unwrap(), &at(&image, "/")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains(":/tree/file: is a directory")
            && words.contains(":/tree/x: not a directory"),
        "{words}"
    );
    assert_eq!(words.lines().count(), 3, "{words}");
    check(&image);
}

#[test]
fn a_full_image_stops_the_copy_and_stays_whole() {
    let scratch = Scratch::new("copy-full");
    let image = scratch.path("small.img");
    ok(["mkfs", image.to_str().unwrap(), "16M"]);
    let source = scratch.path("tree");
    fs::create_dir_all(&source).unwrap();
    for n in 0..20 {
        fs::write(source.join(format!("{n:02}")), vec![3; 1 << 20]).unwrap();
    }
    fails(["cp", "-qr", source.to_str().unwrap(), &at(&image, "/")], 1, "no space");
    check(&image);
    let all = json(["ls", "--json", &at(&image, "/tree")]);
    assert!(all.as_array().unwrap().len() > 5, "{all}");
}

#[test]
fn nothing_leaves_the_target_directory() {
    let scratch = Scratch::new("copy-escape");
    let image = image(&scratch);
    ok(["mkdir", &at(&image, "/d")]);
    ok(["touch", &at(&image, "/d/file")]);
    let (outside, target) = (scratch.path("outside"), scratch.path("target"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&target).unwrap();
    symlink(&outside, target.join("d")).unwrap();
    let output = extant(["cp", "-qa", &at(&image, "/d"), target.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", oracle::text(&output));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
