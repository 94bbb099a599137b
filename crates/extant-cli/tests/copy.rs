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
    fails(["cp", "-r", &at(&other, "/moved"), &at(&other, "/")], 1, "are the same file");
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
        words.contains(":/tree/file: cannot overwrite directory with non-directory")
            && words.contains(":/tree/x: cannot overwrite non-directory with directory"),
        "{words}"
    );
    assert_eq!(words.lines().count(), 2, "{words}");
    // Everything below what could not be made counts.
    let output = extant(["cp", "-r", "--json", source.to_str().unwrap(), &at(&image, "/")]);
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["failed"], &done["directories"]), (&4.into(), &1.into()), "{done}");
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
    // Nor do files go through links and into pipes that an image may have put there.
    fs::remove_file(target.join("d")).unwrap();
    fs::write(outside.join("mine"), b"mine").unwrap();
    ok(["touch", &at(&image, "/d/link"), &at(&image, "/d/pipe")]);
    fs::create_dir(target.join("d")).unwrap();
    symlink(outside.join("mine"), target.join("d/link")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, target.join("d/pipe"), mode).unwrap();
    ok(["cp", "-r", &at(&image, "/d"), target.to_str().unwrap()]);
    assert_eq!(fs::read(outside.join("mine")).unwrap(), b"mine");
    for name in ["link", "pipe"] {
        assert!(fs::symlink_metadata(target.join("d").join(name)).unwrap().is_file(), "{name}");
    }
}

#[test]
fn a_file_that_is_named_is_written_in_place() {
    let scratch = Scratch::new("copy-in-place");
    let image = image(&scratch);
    let source = scratch.path("source");
    fs::write(&source, b"new").unwrap();
    ok(["cp", source.to_str().unwrap(), &at(&image, "/file")]);
    let (file, link) = (scratch.path("file"), scratch.path("link"));
    fs::write(&file, b"old and long").unwrap();
    symlink("file", &link).unwrap();
    ok(["cp", &at(&image, "/file"), link.to_str().unwrap()]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&file).unwrap(), b"new");
    assert_eq!(ok(["cp", &at(&image, "/file"), "/dev/stdout"]), "new");
    let before = fs::read(&image).unwrap();
    fails(["cp", &at(&image, "/file"), image.to_str().unwrap()], 2, "is the image itself");
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree/disk.img"), b"not an image").unwrap();
    ok(["cp", "-r", scratch.path("tree/.").to_str().unwrap(), &at(&image, "/d")]);
    let folder = scratch.path("").to_str().unwrap().to_owned();
    let output = extant(["cp", "-qr", &at(&image, "/d/."), &folder]);
    assert_eq!(output.status.code(), Some(1));
    assert!(oracle::text(&output).contains("is the image itself"), "{}", oracle::text(&output));
    assert_eq!(fs::read(&image).unwrap().len(), before.len());
    check(&image);
}

#[test]
fn pipes_and_files_without_a_size_are_read_to_their_end() {
    let scratch = Scratch::new("copy-pipe");
    let image = image(&scratch);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_extant"))
        .args(["cp", "/dev/stdin", &at(&image, "/piped")])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(extant(["cat", &at(&image, "/piped")]).stdout, bytes);
    let link = scratch.path("link");
    symlink("/proc/self/status", &link).unwrap();
    ok(["cp", link.to_str().unwrap(), &at(&image, "/status")]);
    assert!(ok(["cat", &at(&image, "/status")]).starts_with("Name:"));
    check(&image);
}

#[test]
fn options_mean_what_they_mean_to_cp() {
    let scratch = Scratch::new("copy-options");
    let (image, tree) = (image(&scratch), scratch.path("tree"));
    fs::create_dir(&tree).unwrap();
    for name in ["old", "same"] {
        fs::write(tree.join(name), b"one").unwrap();
    }
    fs::hard_link(tree.join("old"), tree.join("other")).unwrap();
    let root = at(&image, "/");
    let tree_text = tree.to_str().unwrap();
    assert_eq!(
        ok(["cp", "-av", tree_text, &root]),
        ["tree", "tree/old", "tree/other", "tree/same"]
            .map(|name| format!("{root}{name}\n"))
            .concat()
    );
    ok(["touch", "-d", "4000000000", &at(&image, "/tree/same")]);
    for name in ["old", "same"] {
        fs::write(tree.join(name), b"two").unwrap();
    }
    let bytes = |name: &str| ok(["cat", &at(&image, &format!("/tree/{name}"))]);
    fs::write(tree.join("new"), b"").unwrap();
    ok(["cp", "-qan", tree_text, &root]);
    assert_eq!([bytes("old"), bytes("same"), bytes("new")], ["one", "one", ""]);
    ok(["cp", "-qRpu", tree_text, &root]);
    assert_eq!([bytes("old"), bytes("other"), bytes("same")], ["two", "two", "one"]);
    let links = |name: &str| json(["stat", "--json", &at(&image, name)])[0]["links"].clone();
    assert_eq!((links("/tree/old"), links("/tree/other")), (2.into(), 2.into()));
    let out = scratch.path("out");
    fs::create_dir_all(out.join("tree")).unwrap();
    fs::write(out.join("tree/old"), b"mine").unwrap();
    ok(["cp", "-qan", &at(&image, "/tree"), out.to_str().unwrap()]);
    assert_eq!(fs::read(out.join("tree/old")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("tree/same")).unwrap(), b"one");
    let old = tree.join("old");
    fails(["cp", old.to_str().unwrap(), &at(&image, "/nowhere/")], 1, "not a directory");
    ok(["cp", "-qr", tree_text, &at(&image, "/somewhere/")]);
    let missing = scratch.path("missing");
    let sources = [missing.to_str().unwrap(), old.to_str().unwrap()];
    fails(["cp", sources[0], sources[1], &at(&image, "/")], 1, "missing: no such file");
    assert_eq!(ok(["cat", &at(&image, "/old")]), "two");
    check(&image);
}
