//! `extant diff`: exit codes as those of diff(1), and the first structure by its name.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{at, extant, ok};
use extant_testkit::oracle::{self, Scratch};
use serde_json::Value;

/// Two images that are equal, with a few files.
fn twins(name: &str) -> (Scratch, PathBuf, PathBuf) {
    let scratch = Scratch::new(name);
    let (one, other) = (scratch.path("one.img"), scratch.path("other.img"));
    ok(["mkfs", "-L", "twin", one.to_str().unwrap(), "16M"]);
    ok(["mkdir", &at(&one, "/d")]);
    fs::write(scratch.path("file"), vec![7; 30_000]).unwrap();
    ok(["cp", scratch.path("file").to_str().unwrap(), &at(&one, "/d/file")]);
    fs::copy(&one, &other).unwrap();
    (scratch, one, other)
}

/// What `diff` prints, and its exit code.
fn diff(arguments: &[&str]) -> (String, Option<i32>) {
    let output = extant([&["diff"], arguments].concat());
    (oracle::text(&output), output.status.code())
}

#[test]
fn equal_images_say_nothing_and_different_ones_name_the_first_structure() {
    let (scratch, one, other) = twins("diff-exit");
    let (a, b) = (one.to_str().unwrap(), other.to_str().unwrap());
    assert_eq!(diff(&[a, b]), (String::new(), Some(0)));
    ok(["chmod", "600", &at(&other, "/d/file")]);
    let (words, code) = diff(&[a, b]);
    assert_eq!((words.lines().count(), code), (2, Some(1)), "{words}");
    assert!(words.starts_with("superblock: ") && words.contains("inode "), "{words}");
    assert_eq!(diff(&["-q", a, b]), (String::new(), Some(1)));
    let (all, _) = diff(&["--all", a, b]);
    assert!(all.lines().any(|line| line.contains(": mode: 33188 against 33152")), "{all}");
    let shown: Value = serde_json::from_str(&diff(&["--all", "--json", a, b]).0).unwrap();
    assert_eq!(shown["equal"], false);
    let counted: u64 =
        shown["counts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(
        Some(counted),
        shown["differences"].as_array().map(|all| all.len().try_into().unwrap())
    );
    assert_eq!(shown["first"]["kind"], "superblock");
    assert_eq!(diff(&[a, scratch.path("none").to_str().unwrap()]).1, Some(2));
    assert_eq!(diff(&[&at(&one, "/d"), b]).1, Some(2));
}

#[test]
fn trees_are_compared_wherever_they_lie() {
    let (scratch, one, _) = twins("diff-tree");
    let other = scratch.path("elsewhere.img");
    ok(["mkfs", "-b", "4096", other.to_str().unwrap(), "32M"]);
    ok(["cp", "-a", &at(&one, "/."), &at(&other, "/")]);
    let (a, b) = (one.to_str().unwrap(), other.to_str().unwrap());
    assert_eq!(diff(&["--tree", a, b]), (String::new(), Some(0)));
    assert_eq!(diff(&[a, b]).1, Some(1));
    ok(["chown", "7", &at(&other, "/d/file")]);
    let (words, code) = diff(&["--tree", a, b]);
    assert_eq!(code, Some(1));
    assert!(
        words.starts_with("/d/file: owner: 0:0 against 7:0\n1 difference: inode 1\n"),
        "{words}"
    );
    assert_eq!(diff(&["--tree", &at(&one, "/d/file"), &at(&other, "/d/file")]).1, Some(1));
}

#[test]
fn a_damaged_image_is_compared_as_far_as_it_makes_sense() {
    let (_scratch, one, other) = twins("diff-damaged");
    let mut bytes = fs::read(&other).unwrap();
    // The second group's descriptor, then a byte in free space.
    bytes[2048 + 64..2048 + 80].fill(0xFF);
    let last = bytes.len() - 1;
    bytes[last] = 1;
    fs::write(&other, bytes).unwrap();
    let (words, code) = diff(&["--all", one.to_str().unwrap(), other.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{words}");
    for part in [
        "descriptor of group 1: block_bitmap_lo",
        "descriptor of group 1: readable against",
        "unused 1",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}
