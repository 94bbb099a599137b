//! `extant build`: what is in an image is what was in the sources, by the kernel's reading too, and it lies there in order.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::tree::{compare, compare_but, make_tree};
use common::{at, check, fails, json, ok};
use extant_testkit::oracle::{self, KernelMount, Scratch};

/// Builds from arguments, and checks the image.
fn build(image: &Path, arguments: &[&str]) {
    ok([&["build", "-qF", image.to_str().unwrap()], arguments].concat());
    check(image);
}

/// That the image has what is below `source`, by the kernel's reading if this machine lets us mount, else by ours.
fn compare_image(scratch: &Scratch, image: &Path, source: &Path) {
    let back = scratch.path("back");
    let _ = fs::remove_dir_all(&back);
    ok(["cp", "-qaT", &at(image, "/"), back.to_str().unwrap()]);
    fs::remove_dir(back.join("lost+found")).unwrap();
    // Taking it away has changed the time.
    let time = fs::metadata(source).unwrap().modified().unwrap();
    fs::File::open(&back).unwrap().set_modified(time).unwrap();
    compare(source, &back);
    if let Some(mount) = KernelMount::new(image, &scratch.path("mount"), "ro,noload") {
        let listed = oracle::run(
            "diff",
            &[
                "-r",
                "--no-dereference",
                "-x",
                "lost+found",
                "-x",
                "pipe",
                "-x",
                "device",
                source.to_str().unwrap(),
                mount.root().to_str().unwrap(),
            ],
        );
        assert!(
            listed.as_ref().is_none_or(|listed| listed.status.success()),
            "{}",
            oracle::text(&listed.unwrap())
        );
        mount.unmount().unwrap();
    }
}

#[test]
fn a_directory_comes_in_as_it_is() {
    let scratch = Scratch::new("build-directory");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    make_tree(&source);
    build(&image, &["--from", source.to_str().unwrap(), "--size", "64M"]);
    compare_image(&scratch, &image, &source);
    for block in ["1024", "16384", "65536"] {
        build(&image, &["--from", source.to_str().unwrap(), "--size", "64M", "-b", block]);
        let back = scratch.path(block);
        ok(["cp", "-qaT", &at(&image, "/deep"), back.to_str().unwrap()]);
        compare_but(&source.join("deep"), &back, &["links"]);
    }
}

#[test]
fn the_same_input_makes_the_same_bytes_with_any_number_of_threads() {
    let scratch = Scratch::new("build-same");
    let source = scratch.path("tree");
    make_tree(&source);
    let built = |threads: &str| {
        let image = scratch.path("same.img");
        build(
            &image,
            &[
                "--from",
                source.to_str().unwrap(),
                "--size",
                "32M",
                "--deterministic",
                "--threads",
                threads,
            ],
        );
        fs::read(&image).unwrap()
    };
    let one = built("1");
    assert!(one == built("8"), "8 threads made other bytes than 1");
    assert!(one == built("2"), "2 threads made other bytes than 1");
}

#[test]
fn files_lie_in_one_piece_and_large_directories_are_indexed() {
    let scratch = Scratch::new("build-layout");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    fs::create_dir_all(source.join("many")).unwrap();
    for n in 0..2000_usize {
        fs::write(source.join(format!("many/file-{n:04}")), vec![1; n * 37 % 20_000]).unwrap();
    }
    fs::write(source.join("large"), vec![2; 20 << 20]).unwrap();
    build(&image, &["--from", source.to_str().unwrap(), "--size", "128M", "-b", "4096"]);
    let many = json(["stat", "--json", &at(&image, "/many")]);
    assert_eq!(many[0]["flags"], "0x81000", "extents and an index");
    let (mut next, mut jumps) = (None, 0);
    for n in 0..200 {
        let map = json(["map", "--json", &at(&image, &format!("/many/file-{n:04}"))]);
        let extents = map.as_array().unwrap();
        assert!(extents.len() <= 1, "file-{n}: {map}");
        let Some(extent) = extents.first() else { continue };
        let (start, len) = (extent["physical"].as_u64().unwrap(), extent["len"].as_u64().unwrap());
        jumps += u32::from(next.is_some_and(|next| next != start));
        next = Some(start + len);
    }
    // Pieces for metadata lie between.
    assert!(jumps < 10, "{jumps} of 200 small files do not lie behind the one before");
    assert_eq!(
        json(["map", "--json", &at(&image, "/large")]).to_string().matches("physical").count(),
        1
    );
}

#[test]
fn an_image_that_exists_is_only_replaced_if_asked_and_a_failure_leaves_nothing() {
    let scratch = Scratch::new("build-name");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    let (image_name, source_name) = (image.to_str().unwrap(), source.to_str().unwrap());
    fs::create_dir(&source).unwrap();
    fs::write(&image, b"mine").unwrap();
    fails(
        ["build", image_name, "--from", source_name, "--size", "4M"],
        2,
        "exists already; -F replaces it",
    );
    assert_eq!(fs::read(&image).unwrap(), b"mine");
    fs::write(source.join("large"), vec![1; 5 << 20]).unwrap();
    fails(["build", "-F", image_name, "--from", source_name, "--size", "4M"], 1, "no space");
    assert_eq!(fs::read(&image).unwrap(), b"mine");
    fails(["build", "-F", image_name, "--from", "/no/such", "--size", "4M"], 1, "/no/such");
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_goes_on() {
    if !rustix::process::geteuid().is_root() {
        extant_testkit::skip("root, who can become somebody else");
        return;
    }
    let scratch = Scratch::new("build-unreadable");
    let source = scratch.path("tree");
    fs::create_dir_all(source.join("closed")).unwrap();
    fs::write(source.join("a"), b"readable").unwrap();
    fs::write(source.join("secret"), b"not for you").unwrap();
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(scratch.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let image = scratch.path("disk.img");
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
    command.uid(65534).gid(65534).arg("build").arg(&image).arg("--from").arg(&source);
    let Ok(output) = command.args(["--size", "4M"]).output() else {
        extant_testkit::skip("a program that others may run");
        return;
    };
    let lines = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("/secret: Permission denied") && lines.contains("/closed: "), "{lines}");
    check(&image);
    assert_eq!(ok(["cat", &at(&image, "/a")]), "readable");
    assert_eq!(ok(["ls", &at(&image, "/")]), "a\nclosed\nlost+found\n");
}
