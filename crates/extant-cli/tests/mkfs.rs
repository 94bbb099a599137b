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

/// Writes an image with these bytes at a place, and asks for a file system on it.
fn refused_over(scratch: &Scratch, at: u64, bytes: &[u8], named: &str) {
    use std::os::unix::fs::FileExt;
    let image = scratch.path("held.img");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(bytes, at).unwrap();
    let text = image.to_str().unwrap();
    fails(["mkfs", text], 2, &format!("holds {named} already; -F replaces it"));
    ok(["mkfs", "-F", text]);
    check(&image);
}

#[test]
fn what_would_be_overwritten_is_named() {
    let scratch = Scratch::new("mkfs-held");
    refused_over(&scratch, 0, b"XFSB", "an XFS file system");
    refused_over(&scratch, 65600, b"_BHRfS_M", "a btrfs file system");
    refused_over(&scratch, 4086, b"SWAPSPACE2", "swap space");
    refused_over(&scratch, 0, b"LUKS\xBA\xBE", "a LUKS volume");
    refused_over(&scratch, 32769, b"CD001", "an ISO 9660 file system");
    refused_over(&scratch, 82, b"FAT32", "a FAT file system");
    refused_over(&scratch, 3, b"NTFS    ", "an NTFS file system");
    refused_over(&scratch, 510, b"\x55\xAA", "a partition table (MBR)");
    refused_over(&scratch, 512, b"EFI PART", "a partition table (GPT)");
    refused_over(&scratch, 100_000, b"x", "data");
    let image = scratch.path("ext.img");
    let image = image.to_str().unwrap();
    for (fs_type, named) in [
        ("ext2", "an ext2 file system labelled `one`"),
        ("ext3", "an ext3 file system labelled `one`"),
        ("ext4", "an ext4 file system labelled `one`"),
    ] {
        ok(["mkfs", "-q", "-F", "-t", fs_type, "-L", "one", image, "8M"]);
        fails(["mkfs", image], 2, named);
    }
}

#[test]
fn a_dry_run_tells_and_makes_nothing() {
    let scratch = Scratch::new("mkfs-dry");
    let image = scratch.path("none.img");
    let told = ok(["mkfs", "-n", "-v", image.to_str().unwrap(), "64M", "-L", "label"]);
    assert!(told.contains("64.0 MiB") && told.contains("label"), "{told}");
    assert!(!image.exists());
    assert!(ok(["mkfs", "-V"]).contains("mke2fs 1.47"));
}

#[test]
fn a_size_without_a_unit_is_blocks() {
    let scratch = Scratch::new("mkfs-blocks");
    let blocks = |arguments: &[&str]| made(&scratch, arguments)["blocks"].as_u64();
    assert_eq!(blocks(&["8192"]), Some(8192));
    assert_eq!(blocks(&["-b", "4096", "8192"]), Some(8192));
    assert_eq!(blocks(&["16384s"]), Some(8192));
    assert_eq!(blocks(&["8388608B"]), Some(8192));
}

#[test]
fn the_time_may_be_the_environments() {
    let scratch = Scratch::new("mkfs-time");
    let image = |name: &str, variable: &str, value: &str| {
        let path = scratch.path(name);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_extant"));
        let seed = "hash_seed=01234567-89ab-cdef-0123-456789abcdef";
        command.args(["mkfs", "-q", "-U", "clear", "-E", seed]).arg(&path).arg("8M");
        let done = command.env(variable, value).output().unwrap();
        (done.status.code(), std::fs::read(&path).unwrap_or_default())
    };
    let (code, one) = image("one", "SOURCE_DATE_EPOCH", "1800000000");
    let (_, other) = image("other", "E2FSPROGS_FAKE_TIME", "1800000000");
    assert!(code == Some(0) && one == other);
    assert_ne!(one, image("later", "SOURCE_DATE_EPOCH", "1800000001").1);
    assert_eq!(image("wrong", "SOURCE_DATE_EPOCH", "soon").0, Some(2));
}

#[test]
fn a_configuration_is_read_where_one_is_named() {
    let scratch = Scratch::new("mkfs-config");
    let config = scratch.path("mke2fs.conf");
    std::fs::write(&config, "[fs_types]\n mine = {\n blocksize = 2048\n features = extent\n }\n")
        .unwrap();
    let config = config.to_str().unwrap();
    let info = made(&scratch, &["8M", "--config", config, "-t", "mine"]);
    assert_eq!(info["block_size"], 2048);
    let image = scratch.path("none.img");
    let image = image.to_str().unwrap();
    fails(["mkfs", image, "8M", "-t", "mine"], 1, "the configuration has no `mine`");
    fails(["mkfs", image, "8M", "-T", "olds"], 1, "the configuration has no `olds`");
    std::fs::write(config, "[fs_types]\nnonsense\n").unwrap();
    fails(["mkfs", image, "8M", "--config", config], 1, "line 2: `=` is missing");
}

#[test]
fn words_that_mean_nothing_here_are_refused_in_one_line() {
    let scratch = Scratch::new("mkfs-refused");
    let image = scratch.path("none.img");
    let image = image.to_str().unwrap();
    let full = scratch.path("full");
    std::fs::write(&full, "mine").unwrap();
    let refused: [(&[&str], i32, &str); 9] = [
        (&["-z", full.to_str().unwrap()], 2, "has something in it already"),
        (&["-z", "/no/such/folder/undo"], 1, "/no/such/folder/undo"),
        (&["-E", "nonsense"], 2, "there is no `nonsense`"),
        (&["-E", "stride=x"], 2, "stride"),
        (&["-O", "nonsense"], 2, "there is no `nonsense`"),
        (&["-J", "depth=1"], 2, "`depth=1`"),
        (&["-O", "^extent"], 1, "64bit needs extent"),
        (&["-C", "16384"], 1, "clusters need bigalloc"),
        (&["-g", "100"], 1, "blocks per group"),
    ];
    for (words, code, part) in refused {
        fails([&["mkfs", image, "8M"], words].concat(), code, part);
        assert!(!Path::new(image).exists(), "{words:?}");
    }
}

#[test]
fn a_file_system_may_be_a_part_of_an_image_and_is_filled_there() {
    let scratch = Scratch::new("mkfs-offset");
    let (image, from) = (scratch.path("disk.img"), scratch.path("from"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("f"), "contents").unwrap();
    std::fs::write(&image, vec![0x77; 20 << 20]).unwrap();
    let text = image.to_str().unwrap();
    let words = ["-E", "offset=1048576", "-d", from.to_str().unwrap()];
    ok([&["mkfs", "-q", "-F", text, "16M"][..], &words].concat());
    let bytes = std::fs::read(&image).unwrap();
    assert_eq!(bytes.len(), 20 << 20);
    assert!(bytes[..1 << 20].iter().chain(&bytes[17 << 20..]).all(|byte| *byte == 0x77));
    assert_eq!(ok(["cat", "--offset", "1M", &at(&image, "/f")]), "contents");
    let part = scratch.path("part.img");
    std::fs::write(&part, &bytes[1 << 20..17 << 20]).unwrap();
    check(&part);
}

#[test]
fn journals_may_be_on_devices_of_their_own() {
    let scratch = Scratch::new("mkfs-journal");
    let (journal, image) = (scratch.path("journal"), scratch.path("image"));
    let (journal, image) = (journal.to_str().unwrap(), image.to_str().unwrap());
    ok(["mkfs", "-q", "-O", "journal_dev", "-b", "4096", journal, "8M"]);
    fails(["mkfs", image, "64M", "-J", "device=/nowhere"], 3, "/nowhere");
    ok(["mkfs", "-q", image, "64M", "-J", &format!("device={journal}")]);
    if let Some(output) = oracle::run("e2fsck", &["-fn", "-j", journal, image]) {
        assert!(output.status.success(), "{}", oracle::text(&output));
    }
    fails(
        ["mkfs", "-F", image, "-J", &format!("device={journal}")],
        1,
        "another file system uses it",
    );
    fails(["mkfs", journal], 2, "holds an ext3 or ext4 journal already");
}

#[test]
fn bad_blocks_come_from_a_list_or_from_reading() {
    let scratch = Scratch::new("mkfs-bad");
    let list = scratch.path("list");
    std::fs::write(&list, "5000\n5001\n5001\n7000\n").unwrap();
    made(&scratch, &["16M", "-l", list.to_str().unwrap()]);
    if let Some(listed) = oracle::debugfs(&scratch.path("made.img"), "stat <1>") {
        assert!(listed.contains("5000-5001") && listed.contains("7000"), "{listed}");
    }
    for check_how in ["-c", "-cc"] {
        ok(["mkfs", "-q", "-F", check_how, scratch.path("made.img").to_str().unwrap()]);
        check(&scratch.path("made.img"));
    }
}

/// Has e2undo bring back what was in `image`, and says whether that is `before`.
fn is_brought_back(undo: &Path, image: &Path, before: &[u8]) -> bool {
    let output = oracle::run("e2undo", &[undo.to_str().unwrap(), image.to_str().unwrap()]);
    let Some(output) = output else {
        extant_testkit::skip("e2undo");
        return true;
    };
    assert!(output.status.success(), "{}", oracle::text(&output));
    std::fs::read(image).unwrap() == before
}

#[test]
fn what_is_overwritten_is_kept_where_somebody_asks() {
    let scratch = Scratch::new("mkfs-undo");
    let (image, undo, from) =
        (scratch.path("disk.img"), scratch.path("undo"), scratch.path("from"));
    let (name, kept) = (image.to_str().unwrap(), undo.to_str().unwrap());
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("file"), vec![5; 3 << 20]).unwrap();
    let from = from.to_str().unwrap();
    let bytes: Vec<u8> =
        (0..24_u32 << 18).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    for words in [
        &["-d", from][..],
        &["-cc", "-b", "4096", "-E", "lazy_itable_init=0"],
        &["-E", "offset=1048576", "-d", from, "8M"],
        &["-O", "journal_dev"],
    ] {
        std::fs::write(&image, &bytes).unwrap();
        let told = ok([&["mkfs", "-F", "-z", kept, name], words].concat());
        assert!(told.contains(&format!("`e2undo {kept} {name}`")), "{told}");
        assert!(is_brought_back(&undo, &image, &bytes), "{words:?}");
        std::fs::remove_file(&undo).unwrap();
    }
    // A directory for undo files counts where a file system goes.
    let folder = scratch.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let mkfs = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_extant"));
        command.env("E2FSPROGS_UNDO_DIR", &folder).args(["mkfs", "-q", "-F", name]);
        assert!(command.status().unwrap().success());
    };
    let undo = folder.join("mke2fs-disk.img.e2undo");
    std::fs::write(&image, &bytes).unwrap();
    mkfs();
    assert!(!undo.exists());
    for _ in 0..2 {
        let before = std::fs::read(&image).unwrap();
        mkfs();
        assert!(is_brought_back(&undo, &image, &before));
    }
    let config = scratch.path("mke2fs.conf");
    let text = format!(
        "[defaults]\nundo_dir = {}\n[fs_types]\next4 = {{\n}}\n[devices]\n{name} = {{\nfs_type = ext2\n}}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::remove_file(&undo).unwrap();
    ok(["mkfs", "-q", "-F", "--config", config.to_str().unwrap(), name]);
    assert!(undo.exists());
    assert_eq!(
        json(["info", "--json", name])["features"].to_string().matches("has_journal").count(),
        0
    );
}

#[test]
fn what_is_mounted_stays_as_it_is() {
    let scratch = Scratch::new("mkfs-mounted");
    let image = scratch.path("image");
    ok(["mkfs", "-q", "-L", "kept", image.to_str().unwrap(), "8M"]);
    let Some(mount) = oracle::KernelMount::new(&image, &scratch.path("mount"), "") else { return };
    fails(["mkfs", "-FF", image.to_str().unwrap()], 3, "is mounted at");
    mount.unmount().unwrap();
    assert_eq!(json(["info", "--json", image.to_str().unwrap()])["label"], "kept");
}

#[test]
fn small_inodes_get_a_word_about_2038() {
    let scratch = Scratch::new("mkfs-2038");
    let image = scratch.path("image");
    let made = common::extant(["mkfs", "-I", "128", image.to_str().unwrap(), "8M"]);
    assert!(oracle::text(&made).contains("dates after 2038"), "{}", oracle::text(&made));
}
