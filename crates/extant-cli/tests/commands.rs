//! The commands one by one, on images of our own making; e2fsck finds each image clean that they leave behind.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::path::PathBuf;

use common::{at, check, extant, fails, json, ok};
use extant_testkit::oracle::{self, Scratch};

/// A folder with an empty image.
fn image(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let image = scratch.path("disk.img");
    ok(["mkfs", "-L", name, image.to_str().unwrap(), "64M"]);
    (scratch, image)
}

#[test]
fn mkfs_makes_what_info_and_df_show() {
    let (_scratch, image) = image("label");
    check(&image);
    let shown = ok(["info", image.to_str().unwrap()]);
    assert!(
        shown.contains("label       label\n") && shown.contains("state       clean\n"),
        "{shown}"
    );
    let info = json(["info", "--json", "--groups", image.to_str().unwrap()]);
    assert_eq!(
        (info["blocks"].as_u64(), info["groups"].as_array().map(Vec::len)),
        (Some(65536), Some(8))
    );
    let df = json(["df", "--json", image.to_str().unwrap()]);
    assert_eq!(df[0]["free_blocks"], info["free_blocks"]);
    assert!(ok(["map", image.to_str().unwrap()]).contains("% free"));
}

#[test]
fn names_are_made_moved_and_removed() {
    let (_scratch, image) = image("names");
    let at = |path| at(&image, path);
    ok(["mkdir", "-p", &at("/a/b/c"), &at("/d")]);
    ok(["touch", "-d", "1000000000.123456789", &at("/a/file"), &at("/a/other")]);
    ok(["ln", &at("/a/file"), &at("/a/hard")]);
    ok(["ln", "-s", "file", &at("/a/soft")]);
    assert_eq!(ok(["ls", &at("/a")]), "b\nfile\nhard\nother\nsoft\n");
    ok(["mv", &at("/a/file"), &at("/a/other"), &at("/d")]);
    ok(["mv", &at("/d/other"), &at("/d/renamed")]);
    assert_eq!(ok(["tree", &at("/d")]), format!("{}\n|-- file\n`-- renamed\n", at("/d")));
    fails(["mv", &at("/a"), &at("/a/b/c")], 1, "/a");
    fails(["rm", &at("/a")], 1, "is a directory");
    fails(["rm", "-d", &at("/a")], 1, "not empty");
    fails(["rm", &at("/a/missing")], 1, "no such file");
    ok(["rm", "-f", &at("/a/missing")]);
    ok(["rm", "-r", &at("/a")]);
    fails(["rm", "-r", &at("/")], 2, "root");
    assert_eq!(ok(["ls", &at("/")]), "d\nlost+found\n");
    check(&image);
    let stat = json(["stat", "--json", &at("/d/file")]);
    assert_eq!(stat[0]["links"], 1);
    assert_eq!(stat[0]["modified"]["nanoseconds"], 123_456_789);
}

#[test]
fn attributes_change() {
    let (_scratch, image) = image("attributes");
    let at = |path| at(&image, path);
    ok(["mkdir", &at("/d")]);
    ok(["touch", &at("/d/f")]);
    ok(["ln", "-s", "f", &at("/d/s")]);
    ok(["chmod", "u=rw,go=r,u+s", &at("/d/f")]);
    ok(["chown", "-R", "1000:70000", &at("/d")]);
    let stat = json(["stat", "--json", &at("/d/f")]);
    assert_eq!((&stat[0]["uid"], &stat[0]["gid"]), (&1000.into(), &70000.into()));
    ok(["chmod", "-R", "go-rwx", &at("/d")]);
    assert_eq!(json(["stat", "--json", &at("/d")])[0]["mode"], "0700");
    assert_eq!(json(["stat", "--json", &at("/d/s")])[0]["target"], "f");
    ok(["xattr", "set", &at("/d/f"), "user.text", "words"]);
    ok(["xattr", "set", &at("/d/f"), "user.bytes", "0x00ff"]);
    assert_eq!(ok(["xattr", "get", &at("/d/f"), "user.text"]), "words");
    let all = json(["xattr", "list", "--json", &at("/d/f")]);
    assert_eq!(all["user.bytes"], "00ff");
    ok(["xattr", "rm", &at("/d/f"), "user.text"]);
    fails(["xattr", "get", &at("/d/f"), "user.text"], 1, "no such attribute");
    check(&image);
    if let Some(seen) = oracle::debugfs(&image, "stat /d/f") {
        assert!(seen.contains("User:  1000   Group: 70000"), "{seen}");
        assert!(seen.contains("user.bytes"), "{seen}");
    }
}

#[test]
fn bytes_go_in_and_come_out() {
    let (scratch, image) = image("bytes");
    let at = |path| at(&image, path);
    let local = scratch.path("local");
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&local, &bytes).unwrap();
    ok(["cp", local.to_str().unwrap(), &at("/file")]);
    check(&image);
    assert_eq!(extant(["cat", &at("/file")]).stdout, bytes);
    let extents = json(["map", "--json", &at("/file")]);
    assert_eq!(extents.as_array().map(Vec::len), Some(1), "{extents}");
    if let Some(seen) =
        oracle::debugfs(&image, &format!("dump /file {}", scratch.path("dumped").display()))
    {
        assert_eq!(std::fs::read(scratch.path("dumped")).unwrap(), bytes, "{seen}");
    }
}

#[test]
fn each_mistake_has_its_line_and_exit_code() {
    let (scratch, image) = image("mistakes");
    let at = |path| at(&image, path);
    let text = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    fails(["ls", &at("/missing")], 1, "/missing: no such file or directory");
    fails(["cat", &at("/")], 1, "is a directory");
    fails(["ls", &text("missing.img")], 3, "missing.img");
    fails(["cp", &text("a"), &text("b")], 2, "neither");
    fails(["cp", &at("/lost+found"), &text("b")], 1, "cp -r");
    fails(["mkfs", image.to_str().unwrap()], 2, "-F");
    std::fs::write(scratch.path("zeros"), vec![0; 1 << 20]).unwrap();
    fails(["ls", &text("zeros")], 3, "no ext2, ext3 or ext4");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[1024 + 0x78] ^= 1;
    std::fs::write(scratch.path("damaged"), bytes).unwrap();
    fails(["ls", &text("damaged")], 4, "e2fsck");
}

#[test]
fn what_is_no_image_is_told_by_what_it_is() {
    let (scratch, image) = image("foreign");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(scratch.path(name), bytes).unwrap();
        scratch.path(name).to_str().unwrap().to_owned()
    };
    let (gzip, text, empty) = (
        write("gz", &[&[0x1F, 0x8B][..], &[0; 4096]].concat()),
        write("text", b"x"),
        write("e", b""),
    );
    let mut disk = vec![0; 4096];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let disk = write("disk", &disk);
    let cut = write("cut", &std::fs::read(&image).unwrap()[..20 << 20]);
    for command in ["ls", "info", "map"] {
        fails([command, &gzip], 3, "compressed");
        fails([command, &disk], 3, "partition table");
        fails([command, &text], 3, "text: this is no ext2, ext3 or ext4 image");
        fails([command, &empty], 3, "it is empty");
    }
    fails(["ls", &cut], 4, "cut off");
    assert!(ok(["info", &cut]).contains("of which only 20.0 MiB are there"));
}

#[test]
fn mkfs_leaves_alone_what_is_there() {
    let (scratch, image) = image("careful");
    let len = std::fs::metadata(&image).unwrap().len();
    fails(["mkfs", image.to_str().unwrap(), "16M"], 2, "file system labelled `careful` already");
    assert_eq!(std::fs::metadata(&image).unwrap().len(), len);
    check(&image);
    let photo = scratch.path("photo");
    std::fs::write(&photo, vec![7; 16 << 20]).unwrap();
    fails(["mkfs", photo.to_str().unwrap()], 2, "data already");
    assert_eq!(std::fs::read(&photo).unwrap(), vec![7; 16 << 20]);
    ok(["mkfs", "-F", photo.to_str().unwrap()]);
    check(&photo);
}

#[test]
fn one_failure_does_not_stop_the_others() {
    let (scratch, image) = image("several");
    let at = |path| at(&image, path);
    ok(["touch", &at("/a"), &at("/b"), &at("/c")]);
    fails(["rm", &at("/a"), &at("/missing"), &at("/c")], 1, "/missing: no such file");
    assert_eq!(ok(["ls", &at("/")]), "b\nlost+found\n");
    fails(["mkdir", &at("/b"), &at("/d")], 1, "/b: file exists");
    let output = extant(["ls", &at("/missing"), &at("/b"), &at("/d")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("/b\n\n{}:\n", at("/d")));
    let missing = scratch.path("no.img");
    fails(["df", missing.to_str().unwrap(), image.to_str().unwrap()], 3, "cannot open");
    assert!(ok(["df", &at("/")]).contains("disk.img\n"));
    check(&image);
}

#[test]
fn links_replace_only_once_they_can_be_made() {
    let (_scratch, image) = image("links");
    let at = |path| at(&image, path);
    ok(["mkdir", &at("/d")]);
    ok(["touch", &at("/a"), &at("/b")]);
    fails(["ln", "-f", &at("/missing"), &at("/a")], 1, "/missing: no such file");
    fails(["ln", "-f", &at("/d"), &at("/a")], 1, "only `ln -s` links directories");
    fails(["ln", "-f", &at("/a"), &at("/a")], 1, "are the same file");
    assert_eq!(ok(["ls", &at("/")]), "a\nb\nd\nlost+found\n");
    ok(["ln", "-f", &at("/a"), &at("/b")]);
    assert_eq!(json(["stat", "--json", &at("/b")])[0]["links"], 2);
    ok(["ln", "-s", "d", &at("/to")]);
    ok(["touch", "-d", "2026-01-31T12:00:01.5", &at("/d/x")]);
    assert_eq!(ok(["ls", &at("/to")]), "x\n");
    assert_eq!(json(["stat", "--json", &at("/d/x")])[0]["modified"]["seconds"], 1_769_860_801);
    check(&image);
}

#[test]
fn demo_shows_what_delaying_buys() {
    let scratch = Scratch::new("demo");
    let output = extant(["demo", "--json", "--folder", scratch.path("").to_str().unwrap()]);
    assert!(output.status.success(), "{}", oracle::text(&output));
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |run: usize, name: &str| runs[run][name].as_u64().unwrap();
    for (delayed, immediate) in [(0, 2), (1, 3)] {
        assert_eq!(runs[delayed]["cache_bytes"], runs[immediate]["cache_bytes"]);
        assert!(number(delayed, "extents") < number(immediate, "extents"), "{runs}");
        assert!(
            number(delayed, "allocator_calls") * 100 < number(immediate, "allocator_calls"),
            "{runs}"
        );
    }
    assert!(!runs.to_string().contains("not clean"), "{runs}");
    let files = number(0, "files");
    assert_eq!((number(0, "extents"), number(1, "extents")), (files, files), "{runs}");
    let mebibytes = (files * number(0, "file_bytes")) >> 20;
    assert!(number(0, "allocator_calls") <= mebibytes / 8, "{runs}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let scratch = Scratch::new("manual");
    for shell in ["bash", "zsh", "fish"] {
        let text = ok(["completions", shell]);
        assert!(["export", "diff", "map"].iter().all(|command| text.contains(command)), "{shell}");
    }
    if let Some(checked) = {
        let file = scratch.path("extant.bash");
        std::fs::write(&file, ok(["completions", "bash"])).unwrap();
        oracle::run("bash", &["-n", file.to_str().unwrap()])
    } {
        assert!(checked.status.success(), "{}", oracle::text(&checked));
    }
    let pages = scratch.path("man/man1");
    ok(["man", pages.to_str().unwrap()]);
    let page = std::fs::read_to_string(pages.join("extant-export.1")).unwrap();
    assert!(page.contains("\\-\\-compress") && pages.join("extant.1").exists());
}
