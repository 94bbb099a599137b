//! `extant check` as a command: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::{extant, fails, json, ok};
use extant_testkit::oracle::{self, Scratch};

fn image(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let image = scratch.path("disk.img");
    ok(["mkfs", "-b", "4096", image.to_str().unwrap(), "32M"]);
    (scratch, image)
}

/// An image whose bitmaps say that nothing is free: two wrong groups of bits, and more.
fn damaged(name: &str) -> (Scratch, PathBuf) {
    let (scratch, image) = image(name);
    let file = fs::File::options().write(true).read(true).open(&image).unwrap();
    let mut descriptor = [0; 64];
    file.read_exact_at(&mut descriptor, 4096).unwrap();
    let inode_bitmap = u64::from(u32::from_le_bytes(descriptor[4..8].try_into().unwrap()));
    file.write_all_at(&[0xFF, 0xAA], inode_bitmap * 4096 + 2).unwrap();
    (scratch, image)
}

#[test]
fn a_sound_image_is_clean_in_one_line() {
    let (_scratch, image) = image("check-clean");
    let name = image.to_str().unwrap();
    let said = ok(["check", name]);
    assert!(said.starts_with(&format!("{name}: clean; 11 inodes in use, 2 of them directories")));
    assert_eq!(said.lines().count(), 1);
    assert_eq!(ok(["check", "--quiet", "--threads", "2", name, name]), "");
    let value = json(["check", "--json", name]);
    assert_eq!((&value["clean"], &value["inodes"]), (&true.into(), &11.into()));
    assert_eq!(value["findings"], serde_json::json!([]));
}

#[test]
fn damage_is_told_line_by_line_and_ends_with_4() {
    let (_scratch, image) = damaged("check-damaged");
    let name = image.to_str().unwrap();
    let before = fs::read(&image).unwrap();
    let output = extant(["check", name]);
    let said = oracle::text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    let first = said.lines().next().unwrap();
    let wanted =
        format!("{name}: error: group 0: inode-marked: free inodes are marked in use: 17 to 24");
    assert!(first.starts_with(&wanted), "{first}");
    assert!(first.ends_with("[PR_5_INODE_UNUSED]"), "{first}");
    let counts = said.lines().last().unwrap();
    assert!(counts.starts_with(&format!("{name}: ")) && counts.contains(" errors"), "{counts}");
    assert_eq!(fs::read(&image).unwrap(), before);

    let said = oracle::text(&extant(["check", "--limit", "2", name]));
    assert!(said.contains(&format!("{name}: inode-marked: 3 more\n")), "{said}");
}

#[test]
fn findings_are_values_for_programs() {
    let (_scratch, image) = damaged("check-json");
    let output = extant(["check", "--json", image.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["counts"]["inode-marked"], 5);
    let first = &value["findings"][0];
    assert_eq!((&first["rule"], &first["group"]), (&"inode-marked".into(), &0.into()));
    assert_eq!(
        (&first["code"], &first["severity"]),
        (&"PR_5_INODE_UNUSED".into(), &"error".into())
    );
    assert_eq!(first["found"], serde_json::json!([17, 24]));
}

#[test]
fn what_cannot_be_checked_ends_with_8_and_nonsense_with_16() {
    let scratch = Scratch::new("check-codes");
    let path = scratch.path("zeros");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let name = path.to_str().unwrap();
    fails(["check", name], 8, "no ext2, ext3 or ext4 image");
    fails(["check", scratch.path("nothing").to_str().unwrap()], 8, "nothing");
    let output = extant(["check", "--no-such-option", name]);
    assert_eq!(output.status.code(), Some(16));
    assert_eq!(extant(["check"]).status.code(), Some(16));
    assert_eq!(extant(["ls"]).status.code(), Some(2));
}

#[test]
fn a_part_of_an_image_is_checked() {
    let (scratch, image) = image("check-part");
    let disk = scratch.path("whole.img");
    let bytes = [vec![0; 1 << 20], fs::read(&image).unwrap()].concat();
    fs::write(&disk, bytes).unwrap();
    let said = ok(["check", "--offset", "1M", disk.to_str().unwrap()]);
    assert!(said.contains(": clean; "), "{said}");
}
