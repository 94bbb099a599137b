//! `extant build`: what is in an image is what was in the sources, by the kernel's reading too, and it lies there in order.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

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
fn what_cannot_be_laid_out_is_written_and_what_cannot_be_written_is_refused() {
    let scratch = Scratch::new("build-kinds");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    let (name, from) = (image.to_str().unwrap(), source.to_str().unwrap());
    make_tree(&source);
    for options in
        [&["-t", "ext2"][..], &["-O", "inline_data"], &["-O", "bigalloc"], &["-O", "mmp"]]
    {
        ok([&["mkfs", "-qF", "-d", from, name, "64M"], options].concat());
        check(&image);
        let back = scratch.path(options[1]);
        ok(["cp", "-qaT", &at(&image, "/deep"), back.to_str().unwrap()]);
        compare_but(&source.join("deep"), &back, &["links"]);
    }
    fails(["mkfs", "-qF", "-d", from, name, "64M", "-O", "quota"], 3, "it uses quota");
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

/// Has tar(1) pack a folder, or skips.
fn packed(scratch: &Scratch, folder: &Path, name: &str, options: &[&str]) -> Option<String> {
    let archive = scratch.path(name).to_str().unwrap().to_owned();
    let folder = folder.to_str().unwrap();
    let arguments = [options, &["-C", folder, "-cf", &archive, "."]].concat();
    let output = oracle::run("tar", &arguments)?;
    assert!(output.status.success(), "{}", oracle::text(&output));
    Some(archive)
}

#[test]
fn an_archive_makes_the_same_bytes_as_the_directory_that_it_is_of() {
    let scratch = Scratch::new("build-archive");
    let source = scratch.path("tree");
    make_tree(&source);
    let built = |from: &str| {
        let image = scratch.path("archive.img");
        build(&image, &["--from", from, "--deterministic"]);
        fs::read(&image).unwrap()
    };
    let directory = built(source.to_str().unwrap());
    let pax = ["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"];
    let Some(plain) = packed(&scratch, &source, "plain.tar", &pax) else { return };
    // Access lists are attributes to us, and text to tar(1).
    let _ = rustix::fs::lremovexattr(source.join("deep/er/block"), "system.posix_acl_access");
    let _ = rustix::fs::lremovexattr(source.join("deep/er/and"), "system.posix_acl_default");
    let bare = built(source.to_str().unwrap());
    let from_plain = built(&plain);
    assert!(from_plain == directory || from_plain == bare, "other bytes from a tar");
    for (name, compress) in [("z.tar.gz", "--gzip"), ("z.tar.zst", "--zstd")] {
        let options = [&pax[..], &[compress]].concat();
        if !oracle::has(&compress[2..]) {
            extant_testkit::skip(compress);
            continue;
        }
        let archive = packed(&scratch, &source, name, &options).unwrap();
        assert!(built(&archive) == bare, "other bytes from {name}");
    }
    let piped = scratch.path("piped.img");
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
    command.args(["build", "-q", "--deterministic", "--from", "-"]).arg(&piped);
    let mut cat = Command::new("cat").arg(&plain).stdout(Stdio::piped()).spawn().unwrap();
    assert!(command.stdin(cat.stdout.take().unwrap()).status().unwrap().success());
    cat.wait().unwrap();
    assert!(fs::read(&piped).unwrap() == from_plain, "other bytes through a pipe");
}

/// Runs a program to its success; `None`, by name, where it is missing.
fn run(program: &str, arguments: &[&str]) -> Option<()> {
    let Some(output) = oracle::run(program, arguments) else {
        extant_testkit::skip(program);
        return None;
    };
    assert!(output.status.success(), "{}", oracle::text(&output));
    Some(())
}

#[test]
fn access_lists_and_attributes_are_taken_as_each_archiver_writes_them() {
    let scratch = Scratch::new("build-lists");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    let (folder, archive) = (source.to_str().unwrap(), scratch.path("lists.tar"));
    let archive = archive.to_str().unwrap();
    let inside = |name: &str| source.join(name).to_str().unwrap().to_owned();
    // Not all names have files here, so that the tree has to tell their numbers.
    fs::create_dir_all(source.join("etc/new")).unwrap();
    for list in ["passwd", "group"] {
        fs::copy(format!("/etc/{list}"), source.join("etc").join(list)).unwrap();
    }
    fs::write(source.join("file"), "of several").unwrap();
    let list = "u:daemon:rwx,u:4711:rw,g:adm:r-x,m::r-x";
    for arguments in [&["-m", list, &inside("file")][..], &["-d", "-m", list, &inside("etc/new")]] {
        if run("setfacl", arguments).is_none() {
            return;
        }
    }
    for (name, value) in
        [("user.lines", &b"\n1\n\n"[..]), ("user.a%b=\u{e9}", b"\0\xff"), ("user.empty", b"")]
    {
        rustix::fs::setxattr(source.join("file"), name, value, rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    let tar = ["tar", "--format=pax", "--acls", "--xattrs"];
    let words = ["tar", "--format=pax", "--acls", "--xattrs", "--xattrs-exclude=system.*"];
    let both = ["bsdtar", "--format=pax", "--acls", "--xattrs"];
    let own = [&both[..], &["--options=pax:xattrheader=LIBARCHIVE"]].concat();
    for command in [&tar[..], &words, &both, &own] {
        let arguments = [&command[1..], &["-C", folder, "-cf", archive, "."]].concat();
        if run(command[0], &arguments).is_some() {
            build(&image, &["--from", archive]);
            compare_image(&scratch, &image, &source);
            if let Some(mount) = KernelMount::new(&image, &scratch.path("mount"), "ro,noload") {
                for name in ["file", "etc/new"] {
                    let listed = |root: &Path| {
                        oracle::run(
                            "getfacl",
                            &["-n", "-p", "--omit-header", root.join(name).to_str().unwrap()],
                        )
                    };
                    assert_eq!(
                        listed(mount.root()).unwrap().stdout,
                        listed(&source).unwrap().stdout,
                        "{command:?}"
                    );
                }
                mount.unmount().unwrap();
            }
        }
    }
    // Where nobody tells the number of a name, the list alone is left out.
    let arguments = [&words[1..], &["-C", folder, "-cf", archive, "file"]].concat();
    if run("tar", &arguments).is_some() {
        let image_name = image.to_str().unwrap();
        fails(
            ["build", "-qF", image_name, "--from", archive],
            1,
            "/file: access list: nothing tells the number of user `daemon`",
        );
        assert_eq!(ok(["cat", &at(&image, "/file")]), "of several");
        // An owner by name and by number tells it.
        let owned = [&arguments[..], &["--owner=daemon:1", "--group=adm:4"]].concat();
        run("tar", &owned);
        build(&image, &["--from", archive, "--uid-map", "4711:1234"]);
        let text = ok(["xattr", "get", &at(&image, "/file"), "system.posix_acl_access"]);
        assert_eq!(
            text,
            "user::rw-,user:1:rwx,user:1234:rw-,group::r--,group:4:r-x,mask::r-x,other::r--\n"
        );
    }
}

#[test]
fn holes_are_holes_in_each_form_that_tar_has_for_them() {
    let scratch = Scratch::new("build-sparse");
    let source = scratch.path("tree");
    fs::create_dir(&source).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    for n in 0..30 {
        sparse.write_all_at(&[n; 4096], u64::from(n) << 20).unwrap();
    }
    sparse.set_len(40 << 20).unwrap();
    // Not every form knows of more than seconds.
    for file in [sparse, fs::File::open(&source).unwrap()] {
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30)).unwrap();
    }
    let image = scratch.path("disk.img");
    for options in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let options = [options, &["--sparse"]].concat();
        let Some(archive) = packed(&scratch, &source, "sparse.tar", &options) else { return };
        build(&image, &["--from", &archive]);
        compare_image(&scratch, &image, &source);
        assert!(fs::metadata(&image).unwrap().len() < 2 << 20, "{options:?}");
    }
}

#[test]
fn layers_take_away_what_is_below_them() {
    let scratch = Scratch::new("build-layers");
    let (low, high) = (scratch.path("low"), scratch.path("high"));
    for (folder, names) in [
        (&low, &["d/one", "d/two", "gone/deep/file", "o/old", "was-file"][..]),
        (&high, &["d/.wh.one", ".wh.gone", "o/.wh..wh..opq", "o/new", "was-file/now"]),
    ] {
        for name in names {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), name).unwrap();
        }
    }
    let Some(low) = packed(&scratch, &low, "low.tar", &[]) else { return };
    let high = packed(&scratch, &high, "high.tar", &[]).unwrap();
    let image = scratch.path("disk.img");
    let tree = || {
        let lines = ok(["tree", &at(&image, "/")]);
        lines
            .lines()
            .skip(1)
            .map(|line| line.trim_start_matches(['|', '`', '-', ' ']).to_owned())
            .collect::<Vec<_>>()
    };
    build(&image, &["--layer", &low, "--layer", &high]);
    assert_eq!(tree(), ["d", "two", "lost+found", "o", "new", "was-file", "now"]);
    // The same as an OCI image layout.
    let layout = scratch.path("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::copy(&low, blobs.join("aa")).unwrap();
    fs::copy(&high, blobs.join("bb")).unwrap();
    let manifest = r#"{"layers": [{"digest": "sha256:aa"}, {"digest": "sha256:bb"}]}"#;
    fs::write(blobs.join("cc"), manifest).unwrap();
    fs::write(layout.join("index.json"), r#"{"manifests": [{"digest": "sha256:cc"}]}"#).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    build(&image, &["--from", layout.to_str().unwrap()]);
    assert_eq!(tree(), ["d", "two", "lost+found", "o", "new", "was-file", "now"]);
    let index = r#"{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}"#;
    fs::write(layout.join("index.json"), index).unwrap();
    let arguments = ["build", "-F", image.to_str().unwrap(), "--from", layout.to_str().unwrap()];
    fails(arguments, 1, "a manifest has no digest");
}

#[test]
fn a_layer_applied_in_place_makes_the_tree_that_building_with_it_makes() {
    let scratch = Scratch::new("build-update");
    let (low, high) = (scratch.path("low"), scratch.path("high"));
    let below = ["d/one", "d/two", "gone/deep/file", "o/old/x", "usr/bin/a", "again/x", "file"];
    let above = [
        "d/.wh.one",
        "d/two",
        ".wh.gone",
        "o/.wh..wh..opq",
        "o/new",
        "bin/b",
        ".wh.again",
        "again/y",
        ".wh.file",
    ];
    for (folder, names) in [(&low, &below[..]), (&high, &above)] {
        for name in names {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), format!("{folder:?} {name}")).unwrap();
        }
    }
    std::os::unix::fs::symlink("usr/bin", low.join("bin")).unwrap();
    let Some(low) = packed(&scratch, &low, "low.tar", &[]) else { return };
    // Without the directories: a path alone does not say that `bin` is no link any more.
    let archive = scratch.path("high.tar").to_str().unwrap().to_owned();
    let fixed = ["-C", high.to_str().unwrap(), "-cf", &archive];
    let output = oracle::run("tar", &[&fixed[..], &above].concat()).unwrap();
    assert!(output.status.success(), "{}", oracle::text(&output));
    let (at_once, in_place) = (scratch.path("at-once.img"), scratch.path("in-place.img"));
    build(&at_once, &["--layer", &low, "--layer", &archive, "--free", "4M"]);
    build(&in_place, &["--layer", &low, "--free", "4M"]);
    ok(["build", "-q", "--update", in_place.to_str().unwrap(), "--layer", &archive]);
    check(&in_place);
    let trees = [&at_once, &in_place].map(|image| {
        let out = image.with_extension("out");
        ok(["cp", "-qaT", &at(image, "/"), out.to_str().unwrap()]);
        out
    });
    // When a directory was changed last depends on what was in it.
    compare_but(&trees[0], &trees[1], &["modified"]);
    assert_eq!(fs::read_dir(trees[1].join("usr/bin")).unwrap().count(), 2);
    fails(["build", "--update", "/no/such.img", "--layer", &archive], 3, "/no/such.img");
}

#[test]
fn several_sources_join_and_the_last_one_wins() {
    let scratch = Scratch::new("build-several");
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    for (folder, name, text) in [
        (&one, "d/a", "1"),
        (&one, "d/b", "1"),
        (&one, "x", "1"),
        (&two, "d/b", "2"),
        (&two, "skip.o", "2"),
    ] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    let image = scratch.path("disk.img");
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    build(&image, &["--from", one, "--from", two, "--exclude", "*.o", "--owner", "7:8"]);
    assert_eq!(ok(["cat", &at(&image, "/d/a"), &at(&image, "/d/b"), &at(&image, "/x")]), "121");
    assert_eq!(ok(["ls", &at(&image, "/")]), "d\nlost+found\nx\n");
    let stat = json(["stat", "--json", &at(&image, "/d/b")]);
    assert_eq!((&stat[0]["uid"], &stat[0]["gid"]), (&7.into(), &8.into()));
    let uid = fs::metadata(one).unwrap().uid();
    build(&image, &["--from", one, "--uid-map", &format!("{uid}:1000"), "--free", "1M"]);
    assert_eq!(json(["stat", "--json", &at(&image, "/x")])[0]["uid"], 1000);
    assert!(
        json(["df", "--json", image.to_str().unwrap()])[0]["free_blocks"].as_u64() >= Some(256)
    );
}

#[test]
fn a_directory_of_very_many_names_gets_an_index_of_three_levels() {
    let scratch = Scratch::new("build-large-directory");
    let (image, entries) = (scratch.path("disk.img"), scratch.path("entries"));
    // Three of these names fill a block.
    let lines = (0..40_000).map(|n| format!("/d/{n:0>250} 644 0 0 f\n"));
    fs::write(&entries, lines.collect::<String>()).unwrap();
    build(&image, &["--entries", entries.to_str().unwrap(), "-b", "1024"]);
    let info = json(["info", "--json", image.to_str().unwrap()]);
    assert!(info["features"].to_string().contains("large_dir"), "{info}");
    assert_eq!(ok(["ls", &at(&image, "/d")]).lines().count(), 40_000);
    if let Some(dumped) = oracle::debugfs(&image, "htree_dump /d") {
        assert!(dumped.contains("Indirect levels: 2"), "{}", &dumped[..300]);
    }
}

#[test]
fn the_smallest_image_is_made_at_once_and_has_inodes_for_a_few_files_more() {
    let scratch = Scratch::new("build-smallest");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    fs::create_dir(&source).unwrap();
    for n in 0..200_usize {
        fs::write(source.join(n.to_string()), vec![1; 20_000 + n]).unwrap();
    }
    fs::write(source.join("large"), vec![2; 60 << 20]).unwrap();
    let from = source.to_str().unwrap();
    let info = |arguments: &[&str]| {
        build(&image, &[&["--from", from], arguments].concat());
        json(["info", "--json", image.to_str().unwrap()])
    };
    let number = |info: &serde_json::Value, name: &str| info[name].as_u64().unwrap();
    let least = info(&[]);
    // What is counted more than is sure is less than a hundredth.
    let (blocks, free) = (number(&least, "blocks"), number(&least, "free_blocks"));
    assert!(free * 100 < blocks, "{free} of {blocks}");
    assert!((16..200).contains(&number(&least, "free_inodes")), "{least}");
    let more = info(&["--free", "50%"]);
    assert!(
        number(&more, "free_inodes") >= 100 && number(&more, "free_blocks") * 3 > blocks,
        "{more}"
    );
}

#[test]
fn entries_make_what_no_source_has_and_set_what_one_has() {
    let scratch = Scratch::new("build-entries");
    let (image, source) = (scratch.path("disk.img"), scratch.path("tree"));
    fs::create_dir_all(source.join("etc")).unwrap();
    fs::write(source.join("etc/shadow"), "secret").unwrap();
    fs::write(scratch.path("tool"), "a program").unwrap();
    let entries = scratch.path("entries");
    let lines = [
        "# path mode uid gid type",
        "/etc/shadow 640 0 42",
        "etc - 7 -",
        "/dev/console 600 0 5 c 5 1",
        "/dev 711 0 3",
        "/run\\040time 1777 100000 0 d",
        "/pipe 600 - - p",
        "/etc/mtab - 0 0 l ../proc/self/mounts",
        "/usr/bin/tool 4755 0 0 f tool",
        "/empty 644 1 2 f",
    ];
    fs::write(&entries, lines.join("\n")).unwrap();
    let (from, entries) = (source.to_str().unwrap(), entries.to_str().unwrap());
    // Owners of lines are said, not mapped.
    build(&image, &["--from", from, "--entries", entries, "--owner", "9:9", "--deterministic"]);
    let told = |path: &str| ok(["stat", "-c", "%A %u %g", &at(&image, path)]).trim().to_owned();
    for (path, expected) in [
        ("/etc/shadow", "-rw-r----- 0 42"),
        ("/etc", "drwxr-xr-x 7 9"),
        ("/dev/console", "crw------- 0 5"),
        ("/dev", "drwx--x--x 0 3"),
        ("/run time", "drwxrwxrwt 100000 0"),
        ("/pipe", "prw------- 9 9"),
        ("/usr/bin/tool", "-rwsr-xr-x 0 0"),
        ("/empty", "-rw-r--r-- 1 2"),
    ] {
        assert_eq!(told(path), expected, "{path}");
    }
    assert_eq!(ok(["cat", &at(&image, "/etc/shadow")]), "secret");
    assert_eq!(ok(["cat", &at(&image, "/usr/bin/tool")]), "a program");
    for (line, word) in
        [("/none 644 0 0", "line 1"), ("/x 9 0 0 d", "mode"), ("/f 1 1 1 f no", "line 1")]
    {
        fs::write(entries, line).unwrap();
        fails(["build", "-F", image.to_str().unwrap(), "--entries", entries], 2, word);
    }
}

#[test]
fn changes_at_a_standing_clock_make_the_same_bytes() {
    let scratch = Scratch::new("build-edit");
    let source = scratch.path("tree");
    make_tree(&source);
    let made = || {
        let image = scratch.path("edited.img");
        build(&image, &["--from", source.to_str().unwrap(), "--deterministic", "--free", "8M"]);
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
            command.env("SOURCE_DATE_EPOCH", "1000000000").args(arguments);
            assert!(command.status().unwrap().success(), "{arguments:?}");
        };
        run(&["rm", "-r", &at(&image, "/deep/er")]);
        run(&["cp", "-qa", source.join("deep").to_str().unwrap(), &at(&image, "/again")]);
        run(&["mkdir", &at(&image, "/new")]);
        check(&image);
        fs::read(&image).unwrap()
    };
    assert!(made() == made(), "the same changes made other bytes");
}

/// A header of a tar archive, with its sum made right.
fn header(name: &str, kind: u8, size: &[u8; 12], link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..136].copy_from_slice(size);
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    block
}

#[test]
fn hostile_archives_get_one_line_or_the_right_result() {
    let scratch = Scratch::new("build-hostile");
    let (image, archive) = (scratch.path("disk.img"), scratch.path("hostile.tar"));
    let (image_name, archive_name) = (image.to_str().unwrap(), archive.to_str().unwrap());
    let none = b"00000000000\0";
    let two_to_63 = b"\x80\0\0\0\x80\0\0\0\0\0\0\0";
    let pax = |record: &str| {
        let mut bytes = header("x", b'x', none, "");
        let len = record.len() + 3;
        bytes[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
        let mut header = header("x", b'x', bytes[124..136].try_into().unwrap(), "");
        header.extend_from_slice(format!("{len} {record}").as_bytes());
        header.resize(1024, 0);
        header
    };
    // All that follows is worth nothing then.
    for (bytes, line) in [
        (header("huge", b'0', two_to_63, ""), "damaged header"),
        (header("larger", b'0', b"00000100000\0", ""), "ends within a member"),
        (header("name", b'L', b"77777777777\0", ""), "more than 16 MiB"),
        (header("x", b'x', none, "").repeat(1000), "too many headers"),
        (b"no archive at all".repeat(100), "damaged header"),
        ([pax("size=xyz\n"), header("f", b'0', none, "")].concat(), "damaged header"),
    ] {
        fs::write(&archive, bytes).unwrap();
        fails(["build", image_name, "--from", archive_name], 1, line);
        assert!(!image.exists());
    }
    // What concerns one member alone leaves that out.
    for (bytes, line) in [
        (header("a/../../out", b'0', none, ""), "`..` in its path"),
        (header("hard", b'1', none, "missing"), "not there"),
        ([header("f", b'0', none, ""), header("f/below", b'0', none, "")].concat(), "no directory"),
        (
            [header("l", b'2', none, "l"), header("l/x", b'0', none, "")].concat(),
            "too many symbolic links",
        ),
        ([pax("comment=x\n"), header("empty", b'9', none, "")].concat(), "of a kind"),
    ] {
        fs::write(&archive, bytes).unwrap();
        fails(["build", "-qF", image_name, "--from", archive_name], 1, line);
        check(&image);
    }
    // Links of the archive are followed inside the image alone.
    let through = [
        header("/absolute", b'0', none, ""),
        header("l", b'2', none, "/../../tmp/inside"),
        header("l/file", b'0', none, ""),
    ];
    fs::write(&archive, through.concat()).unwrap();
    build(&image, &["--from", archive_name]);
    assert_eq!(ok(["ls", &at(&image, "/"), &at(&image, "/tmp/inside")]).matches("file").count(), 1);
}
