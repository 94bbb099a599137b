//! `extant mkfs`: what is not said comes from the size, what is said is taken as mke2fs takes it.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::path::Path;

use common::{at, check, fails, json, ok};
use extant_testkit::oracle::{self, Scratch};
use serde_json::Value;

/// Makes an image with these arguments behind its name, checks it, and returns what `info` says.
fn made(scratch: &Scratch, arguments: &[&str]) -> Value {
    let image = scratch.path("made.img");
    let image = image.to_str().unwrap();
    let _ = std::fs::remove_file(image);
    ok([&["mkfs", image], arguments].concat());
    check(Path::new(image));
    json(["info", "--json", image])
}

#[test]
fn what_is_not_said_comes_from_the_size() {
    let scratch = Scratch::new("mkfs-sizes");
    for (size, block_size, blocks, inodes, has_journal) in [
        ("100K", 1024, 100, 16, false),
        ("1.5M", 1024, 1536, 192, false),
        ("8M", 1024, 8192, 2048, true),
        ("64MB", 1024, 65536, 16384, true),
        ("1.5G", 4096, 393_216, 98304, true),
    ] {
        let info = made(&scratch, &[size]);
        let number = |name: &str| info[name].as_u64();
        assert_eq!(number("block_size"), Some(block_size), "{size}");
        assert_eq!(number("blocks"), Some(blocks), "{size}");
        assert_eq!(number("inodes"), Some(inodes), "{size}");
        let has = info["features"].to_string().contains("has_journal");
        assert_eq!(has, has_journal, "{size}");
    }
    let image = scratch.path("made.img");
    ok(["mkfs", "-F", image.to_str().unwrap(), "-T", "largefile"]);
    assert_eq!(json(["info", "--json", image.to_str().unwrap()])["inodes"], 1536);
}

#[test]
fn numbers_may_have_units_and_words() {
    let scratch = Scratch::new("mkfs-words");
    let info = made(&scratch, &["64M", "-b", "4k", "-J", "8M", "-N", "1000", "-U", "clear"]);
    assert_eq!((&info["block_size"], &info["inodes"]), (&4096.into(), &1008.into()));
    assert_eq!(info["uuid"], "00000000-0000-0000-0000-000000000000");
    if let Some(listed) = oracle::debugfs(&scratch.path("made.img"), "stat <8>") {
        assert!(listed.contains("Size: 8388608"), "{listed}");
    }
    let one = made(&scratch, &["-U", "random", "2M", "-O", "^resize_inode", "-O", "^dir_index"]);
    let features = one["features"].to_string();
    assert!(!features.contains("resize_inode") && !features.contains("dir_index"), "{features}");
    assert_ne!(one["uuid"], made(&scratch, &["-U", "random", "2M"])["uuid"]);
    let quiet = scratch.path("quiet.img");
    assert_eq!(ok(["mkfs", "-q", quiet.to_str().unwrap(), "2M"]), "");
}

#[test]
fn an_image_is_filled_from_a_directory() {
    let scratch = Scratch::new("mkfs-from");
    let from = scratch.path("from");
    std::fs::create_dir_all(from.join("d/e")).unwrap();
    std::fs::write(from.join("d/f"), "contents").unwrap();
    std::fs::hard_link(from.join("d/f"), from.join("d/e/g")).unwrap();
    std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
    made(&scratch, &["8M", "-d", from.to_str().unwrap()]);
    let image = scratch.path("made.img");
    assert_eq!(ok(["ls", &at(&image, "/")]), "d\nlink\nlost+found\n");
    assert_eq!(ok(["cat", &at(&image, "/d/e/g")]), "contents");
    assert_eq!(json(["stat", "--json", &at(&image, "/d/f")])[0]["links"], 2);
}

#[test]
fn what_fails_leaves_things_as_they_were() {
    let scratch = Scratch::new("mkfs-fails");
    let text = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    let tiny = text("tiny.img");
    fails(["mkfs", &tiny, "16K"], 1, "too small");
    fails(
        ["mkfs", &tiny, "1M", "-J", "1024"],
        1,
        "of them for the journal, which `-O ^has_journal`",
    );
    // More than a file here can have, or more than a file system can.
    fails(["mkfs", &tiny, "8191P"], 1, "tiny.img");
    fails(["mkfs", &tiny, "8M", "-d", &text("nowhere")], 2, "nowhere: not a directory");
    assert!(!scratch.path("tiny.img").exists());
    ok(["mkfs", &tiny, "8M", "-L", "kept"]);
    fails(["mkfs", "-F", &tiny, "-d", &text("nowhere")], 2, "nowhere: not a directory");
    assert_eq!(json(["info", "--json", &tiny])["label"], "kept");
    check(&scratch.path("tiny.img"));
}
