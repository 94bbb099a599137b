//! `extant export`: what other programs unpack is what was in the image.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::tree::{compare, compare_but, make_tree};
use common::{at, extant, fails, ok};
use extant_testkit::oracle::{self, Scratch};
use extant_testkit::skip;

/// A tree with one of everything, and an image that holds it.
fn filled(name: &str) -> (Scratch, PathBuf, PathBuf) {
    let scratch = Scratch::new(name);
    let (image, tree) = (scratch.path("disk.img"), scratch.path("tree"));
    make_tree(&tree);
    ok(["mkfs", image.to_str().unwrap(), "64M"]);
    ok(["rm", "-r", &at(&image, "/lost+found")]);
    ok(["cp", "-a", &format!("{}/.", tree.display()), &at(&image, "/")]);
    (scratch, image, tree)
}

/// Unpacks a tar with another program into a fresh directory.
fn unpack(scratch: &Scratch, program: &str, options: &[&str], tar: &Path) -> Option<PathBuf> {
    let to = scratch.path(&format!("by-{program}"));
    fs::create_dir(&to).unwrap();
    let place = ["-C", to.to_str().unwrap(), "-f", tar.to_str().unwrap()];
    let output = oracle::run(program, &[options, &place].concat())?;
    assert!(output.status.success(), "{}", oracle::text(&output));
    Some(to)
}

#[test]
fn gnu_tar_unpacks_the_tree_that_was_in_the_image() {
    let (scratch, image, tree) = filled("export-gnu");
    let tar = scratch.path("out.tar");
    ok(["export", image.to_str().unwrap(), tar.to_str().unwrap()]);
    let options = ["-x", "-p", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
    if let Some(unpacked) = unpack(&scratch, "tar", &options, &tar) {
        compare(&tree, &unpacked);
    }
}

#[test]
fn bsdtar_unpacks_the_same() {
    let (scratch, image, tree) = filled("export-bsd");
    let tar = scratch.path("out.tar");
    ok(["export", image.to_str().unwrap(), tar.to_str().unwrap()]);
    let options = ["-x", "-p", "--xattrs", "--acls", "--numeric-owner"];
    if let Some(unpacked) = unpack(&scratch, "bsdtar", &options, &tar) {
        // It takes the fraction of a time before 1970 for one after it.
        compare_but(&tree, &unpacked, &["modified"]);
    }
}

#[test]
fn a_directory_gets_the_same_tree() {
    let (scratch, image, tree) = filled("export-directory");
    let to = scratch.path("out");
    ok(["export", image.to_str().unwrap(), to.to_str().unwrap()]);
    compare(&tree, &to);
    let part = scratch.path("part");
    ok(["export", &at(&image, "/deep"), part.to_str().unwrap()]);
    compare(&tree.join("deep/er"), &part.join("er"));
    let one = scratch.path("single");
    fs::create_dir(&one).unwrap();
    ok(["export", &at(&image, "/one"), one.to_str().unwrap()]);
    assert_eq!(fs::read(one.join("one")).unwrap(), b"1");
}

#[test]
fn compression_goes_by_the_name_or_by_what_is_said() {
    let (scratch, image, _tree) = filled("export-compress");
    let name = image.to_str().unwrap();
    let plain = extant(["export", name, "-"]);
    assert!(plain.status.success() && plain.stderr.is_empty());
    for (program, file, how) in [("gzip", "a.tgz", "gzip"), ("zstd", "a.tar.zst", "zstd")] {
        let file = scratch.path(file);
        ok(["export", name, file.to_str().unwrap()]);
        let piped = extant(["export", "--compress", how, name, "-"]);
        assert_eq!(piped.stdout, fs::read(&file).unwrap(), "{how}");
        if let Some(unpacked) = oracle::run(program, &["-dc", file.to_str().unwrap()]) {
            assert!(unpacked.stdout == plain.stdout, "{how}");
        }
    }
    // No folder is left with anything but what was asked for.
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 4);
}

#[test]
fn a_part_is_named_from_its_own_root() {
    let (scratch, image, _tree) = filled("export-part");
    let tar = scratch.path("part.tar");
    ok(["export", "--atime", &at(&image, "/deep/er"), tar.to_str().unwrap()]);
    let Some(listed) = oracle::run("tar", &["-tf", tar.to_str().unwrap()]) else { return };
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed, "./\nand/\nand/deeper/\nand/odd\nblock\n");
    let bytes = fs::read(&tar).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains(" atime=15000000"));
    ok(["export", &at(&image, "/one"), tar.to_str().unwrap()]);
    let listed = oracle::run("tar", &["-tf", tar.to_str().unwrap()]).unwrap();
    assert_eq!(listed.stdout, b"one\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_scratch, image, _tree) = filled("export-pipe");
    for how in ["none", "gzip", "zstd"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_extant"))
            .args(["export", "--compress", how, image.to_str().unwrap(), "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut some = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{how}: {}",
            oracle::text(&output)
        );
    }
}

#[test]
fn no_name_leads_out_of_the_target() {
    let scratch = Scratch::new("export-hostile");
    let image = scratch.path("disk.img");
    let name = image.to_str().unwrap();
    ok(["mkfs", "-O", "^metadata_csum", name, "4M"]);
    for file in ["/AAAAAA", "/BBBBBB", "/kept"] {
        ok(["touch", &at(&image, file)]);
    }
    let mut bytes = fs::read(&image).unwrap();
    for (old, new) in [(b"AAAAAA", b"../out"), (b"BBBBBB", b"a\0bbbb")] {
        let places: Vec<_> =
            (0..bytes.len() - 6).filter(|at| bytes[*at..].starts_with(old)).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at..at + 6].copy_from_slice(new));
    }
    fs::write(&image, bytes).unwrap();
    let to = scratch.path("target");
    let tar = scratch.path("target.tar");
    for target in [&to, &tar] {
        let output = extant(["export", name, target.to_str().unwrap()]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.lines().count() == 2, "{words}");
        assert!(!scratch.path("out").exists());
    }
    assert!(to.join("kept").exists());
    if let Some(listed) = oracle::run("tar", &["-tf", tar.to_str().unwrap()]) {
        assert_eq!(listed.stdout, b"./\nkept\nlost+found/\n");
    }
}

#[test]
fn what_makes_no_sense_has_one_line_and_leaves_nothing() {
    let (scratch, image, _tree) = filled("export-mistakes");
    let text = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    fails(["export", &at(&image, "/missing"), &text("a.tar")], 1, "no such file");
    fails(["export", &text("missing.img"), &text("a.tar")], 3, "missing.img");
    fails(["export", &text("missing.img"), &text("a")], 3, "missing.img");
    fails(["export", image.to_str().unwrap(), &text("no/a.tar")], 1, "a.tar: no such file");
    fails(["export", image.to_str().unwrap(), image.to_str().unwrap()], 2, "a tar's name ends in");
    fails(["export", "--atime", image.to_str().unwrap(), &text("a")], 2, "is for a tar");
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 2);
}

#[test]
fn sockets_are_told_and_left_out() {
    let scratch = Scratch::new("export-socket");
    let image = scratch.path("disk.img");
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    let Ok(_socket) = std::os::unix::net::UnixListener::bind(tree.join("socket")) else {
        return skip("a socket's path is too long here");
    };
    ok(["mkfs", image.to_str().unwrap(), "4M"]);
    ok(["cp", "-a", &format!("{}/.", tree.display()), &at(&image, "/")]);
    let output = extant(["export", image.to_str().unwrap(), "-"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && words.lines().count() == 1, "{words}");
    assert!(words.contains("/socket: a socket cannot be in a tar"), "{words}");
}

#[test]
fn an_image_that_is_built_again_from_its_export_is_the_same() {
    let scratch = Scratch::new("export-build");
    let tree = scratch.path("tree");
    make_tree(&tree);
    let build = |name: &str, from: &Path| {
        let image = scratch.path(name);
        let arguments =
            ["--deterministic", "--size", "64M", "-q", "--from", from.to_str().unwrap()];
        ok([&["build", image.to_str().unwrap()], &arguments[..]].concat());
        image
    };
    let image = build("first.img", &tree);
    let name = image.to_str().unwrap();
    let directory = scratch.path("directory");
    ok(["export", name, directory.to_str().unwrap()]);
    let mut again = vec![build("by-directory.img", &directory)];
    let tar = scratch.path("out.tar");
    ok(["export", name, tar.to_str().unwrap()]);
    again.push(build("of-tar.img", &tar));
    let packed = scratch.path("out.tar.zst");
    ok(["export", name, packed.to_str().unwrap()]);
    again.push(build("of-zst.img", &packed));
    let options = ["-x", "-p", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
    if let Some(unpacked) = unpack(&scratch, "tar", &options, &tar) {
        again.push(build("by-tar.img", &unpacked));
    }
    for other in again {
        let output = extant(["diff", name, other.to_str().unwrap()]);
        assert!(output.status.success(), "{}", oracle::text(&output));
        assert!(fs::read(&image).unwrap() == fs::read(&other).unwrap());
    }
}
