//! `extant mkfs` beside mke2fs: the same words to both, and every field of superblock and descriptors compared.
//!
//! Each image is also checked by e2fsck, changed by the engine and by the kernel, and checked again.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod rows;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::skip;

use rows::{Kernel, NOT_ASKED, ROWS, Row};

const FIXED: [&str; 4] = ["-U", "00112233-4455-6677-8899-aabbccddeeff", "-q", "-F"];
const HASH_SEED: &str = "hash_seed=01234567-89ab-cdef-0123-456789abcdef";

/// Runs a program with the row's words and a time that stands still.
fn run(program: &Path, first: &[&str], row: &Row, image: &Path, config: &Path) -> Output {
    let extended = match row.extended {
        "" => HASH_SEED.to_owned(),
        more => format!("{HASH_SEED},{more}"),
    };
    let mut command = Command::new(program);
    command.env("E2FSPROGS_FAKE_TIME", "1800000000").env_remove("MKE2FS_CONFIG");
    if !row.config.is_empty() {
        std::fs::write(config, row.config).unwrap();
        command.env("MKE2FS_CONFIG", config);
    }
    command.args(first).args(FIXED).args(["-E", &extended]).args(row.words);
    command.arg(image).arg(row.size).output().unwrap()
}

/// One row: both programs, the comparison, and everybody who has to be content with ours.
fn check(row: &Row, mke2fs: Option<&PathBuf>) {
    let scratch = Scratch::new("mke2fs");
    let (ours, theirs) = (scratch.path("ours.img"), scratch.path("theirs.img"));
    let at = format!("{:?} -E {:?} {}", row.words, row.extended, row.size);
    let extant = PathBuf::from(env!("CARGO_BIN_EXE_extant"));
    let config = scratch.path("mke2fs.conf");
    let made = run(&extant, &["mkfs", "-t", row.fs_type], row, &ours, &config);
    assert!(made.status.success(), "{at}: {}", oracle::text(&made));
    clean(&ours, &at);
    if let Some(mke2fs) = mke2fs {
        // A file that is there is discarded, so that it knows of zeros.
        let len = std::fs::metadata(&ours).unwrap().len();
        std::fs::File::create(&theirs).unwrap().set_len(len).unwrap();
        let made = run(mke2fs, &["-t", row.fs_type], row, &theirs, &config);
        assert!(made.status.success(), "{at}: mke2fs: {}", oracle::text(&made));
        let differences = compare::differences(&ours, &theirs, row.differs);
        assert!(differences.is_empty(), "{at}\n{}", differences.join("\n"));
    }
    engine(row, &ours, &at);
    kernel(row, &ours, &scratch.path("mount"), &at);
}

fn clean(image: &Path, at: &str) {
    oracle::e2fsck(image).unwrap_or_else(|words| panic!("{at}: {words}"));
}

/// The engine mounts it, writes what it says it can write, and leaves it clean.
fn engine(row: &Row, image: &Path, at: &str) {
    let root = common::at(image, "/");
    let listed = common::extant(["ls", &root]);
    assert!(listed.status.success(), "{at}: {}", oracle::text(&listed));
    if row.read_only == NOT_ASKED {
        return;
    }
    let made = common::extant(["mkdir", &common::at(image, "/by-extant")]);
    let words = oracle::text(&made);
    match row.read_only {
        "" => assert!(made.status.success(), "{at}: {words}"),
        feature => assert!(words.contains(feature), "{at}: {words}"),
    }
    clean(image, at);
}

/// So does the kernel, unless it lacks something.
fn kernel(row: &Row, image: &Path, point: &Path, at: &str) {
    if row.read_only == NOT_ASKED {
        return;
    }
    match (KernelMount::try_new(image, point, ""), row.kernel) {
        (None, _) => {}
        (Some(Ok(mount)), Kernel::Mounts) => {
            std::fs::create_dir(mount.root().join("by-kernel")).unwrap();
            std::fs::write(mount.root().join("by-kernel/file"), vec![7; 100_000]).unwrap();
            mount.unmount().unwrap();
            clean(image, at);
        }
        (Some(Err(why)), Kernel::Mounts) => panic!("{at}: {why}"),
        (Some(Ok(_)), Kernel::Refuses(_)) => {}
        (Some(Err(_)), Kernel::Refuses(why)) => println!("not mounted: {why}: {at}"),
    }
}

/// Whether the kernel may be asked: root, and a loop device.
fn has_mounts() -> bool {
    let scratch = Scratch::new("mke2fs-mounts");
    let image = scratch.path("image");
    let made = common::extant(["mkfs", "-q", image.to_str().unwrap(), "2M"]);
    assert!(made.status.success());
    KernelMount::new(&image, &scratch.path("mount"), "").is_some()
}

/// Every `step`-th row, so that several tests share the work of two processors.
fn check_rows(first: usize, step: usize) {
    let mke2fs = oracle::tool("mke2fs");
    if mke2fs.is_none() {
        skip("mke2fs is not installed");
    }
    let has_mounts = has_mounts();
    let mut failed = 0;
    for row in ROWS.iter().skip(first).step_by(step) {
        let row = Row { kernel: if has_mounts { row.kernel } else { Kernel::Refuses("") }, ..*row };
        // Every row is looked at, so that one failure does not hide the next.
        let checked = std::panic::catch_unwind(|| check(&row, mke2fs.as_ref()));
        failed += usize::from(checked.is_err());
    }
    assert_eq!(failed, 0, "rows that failed");
}

#[test]
fn the_first_half_of_the_matrix_agrees_with_mke2fs() {
    if let Some(output) = oracle::run("mke2fs", &["-V"]) {
        println!("{}", oracle::text(&output).lines().next().unwrap_or_default());
    }
    check_rows(0, 2);
}

#[test]
fn the_second_half_of_the_matrix_agrees_with_mke2fs() {
    check_rows(1, 2);
}

#[test]
fn the_matrix_is_large_enough() {
    assert!(ROWS.len() >= 60, "{}", ROWS.len());
}
