//! Images and sources that mean harm, or were harmed: each command ends, says what is wrong, and makes nothing worse.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{at, check, extant, fails, ok};
use extant_testkit::oracle::{self, Scratch};
use extant_testkit::skip;

/// An image with `/a/b/c` and `/data`, and then what debugfs makes of it.
fn image(scratch: &Scratch, name: &str, requests: &[&str]) -> Option<PathBuf> {
    let image = scratch.path(name);
    ok(["mkfs", image.to_str().unwrap(), "16M"]);
    ok(["mkdir", "-p", &at(&image, "/a/b/c")]);
    let data = scratch.path("data");
    fs::write(&data, vec![7; 30_000]).unwrap();
    ok(["cp", data.to_str().unwrap(), &at(&image, "/data")]);
    for request in requests {
        let mut debugfs = Command::new("debugfs");
        let done = debugfs.args(["-w", "-R", request]).arg(&image).output();
        if done.is_err() {
            skip("debugfs is not installed");
            return None;
        }
    }
    Some(image)
}

/// What debugfs says of an inode.
fn stat(image: &Path, inode: &str) -> String {
    oracle::debugfs(image, &format!("stat {inode}")).unwrap_or_default()
}

#[test]
fn names_lead_to_ordinary_inodes_alone() {
    let scratch = Scratch::new("hostile-reserved");
    for number in [7, 8] {
        let link = format!("link <{number}> /j");
        let Some(image) = image(&scratch, &format!("{number}.img"), &[&link]) else { return };
        let (before, j) = (stat(&image, &format!("<{number}>")), at(&image, "/j"));
        let data = scratch.path("data");
        for command in [
            vec!["cat", &j],
            vec!["touch", &j],
            vec!["chmod", "600", &j],
            vec!["rm", &j],
            vec!["cp", data.to_str().unwrap(), &j],
        ] {
            fails(&command, 4, "impossible inode number");
        }
        assert_eq!(stat(&image, &format!("<{number}>")), before);
        // The journal above all is as it was.
        ok(["touch", &at(&image, "/more")]);
    }
}

#[test]
fn a_name_of_what_has_no_names_is_not_used() {
    let scratch = Scratch::new("hostile-nameless");
    let request = "set_inode_field /data links_count 0";
    let Some(image) = image(&scratch, "nameless.img", &[request]) else { return };
    let before = stat(&image, "/data");
    fails(["cat", &at(&image, "/data")], 4, "impossible inode number");
    fails(["chmod", "600", &at(&image, "/data")], 4, "impossible inode number");
    assert_eq!(stat(&image, "/data"), before);
}

#[test]
fn directories_that_lead_in_a_circle_end_every_walk() {
    let scratch = Scratch::new("hostile-circle");
    let Some(image) = image(&scratch, "circle.img", &["link /a /a/b/c/up"]) else { return };
    let (all, out) = (at(&image, "/"), scratch.path("out"));
    let part = "`..`";
    fails(["tree", &all], 4, part);
    fails(["ls", "-R", &all], 4, part);
    fails(["chmod", "-R", "755", &at(&image, "/a")], 4, part);
    fails(["cp", "-qr", &all, out.to_str().unwrap()], 4, part);
    let output = extant(["rm", "-r", &at(&image, "/a")]);
    assert_eq!(output.status.code(), Some(4), "{}", oracle::text(&output));
}

#[test]
fn a_source_that_is_gone_is_told_once() {
    let scratch = Scratch::new("hostile-gone");
    let Some(image) = image(&scratch, "gone.img", &[]) else { return };
    let gone = scratch.path("gone");
    fs::create_dir(&gone).unwrap();
    let mut shell = Command::new("sh");
    let script = "cd \"$1\" && rmdir \"$1\" && exec \"$2\" cp -qa . \"$3\"";
    shell.args(["-c", script, "sh"]).arg(&gone).arg(env!("CARGO_BIN_EXE_extant"));
    let output = shell.arg(at(&image, "/x")).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), words.lines().count()), (Some(1), 1), "{words}");
    check(&image);
}

#[test]
fn a_full_file_system_below_the_image_is_named() {
    let scratch = Scratch::new("hostile-full");
    let small = scratch.path("small");
    fs::create_dir(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=3M", "none"]).arg(&small);
    if !mount.output().is_ok_and(|output| output.status.success()) {
        skip("a full tmpfs: mounting needs root");
        return;
    }
    let image = small.join("disk.img");
    ok(["mkfs", image.to_str().unwrap(), "64M"]);
    let source = scratch.path("random");
    let word = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    fs::write(&source, (1..1_250_000).flat_map(word).collect::<Vec<u8>>()).unwrap();
    let output = extant(["cp", source.to_str().unwrap(), &at(&image, "/r")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = oracle::e2fsck(&image);
    Command::new("umount").arg(&small).status().unwrap();
    assert_eq!((output.status.code(), words.lines().count()), (Some(1), 1), "{words}");
    assert!(words.contains("make room in the file system that holds the image"), "{words}");
    found.unwrap_or_else(|words| panic!("{words}"));
}
