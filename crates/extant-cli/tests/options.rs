//! Options and messages of the commands one by one, beyond what their namesakes of coreutils decide.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{at, check, extant, fails, json, ok};
use extant_testkit::oracle::{self, Scratch};

fn image(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let image = scratch.path("disk.img");
    ok(["mkfs", image.to_str().unwrap(), "16M"]);
    (scratch, image)
}

fn put(image: &std::path::Path, path: &str, bytes: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_extant"))
        .args(["cp", "/dev/stdin", &at(image, path)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn names_of_owners_are_the_images_own() {
    let (_scratch, image) = image("names");
    let at = |path| at(&image, path);
    ok(["mkdir", &at("/etc")]);
    put(&image, "/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1234:77::/:/bin/sh\n");
    put(&image, "/etc/group", "staff:x:77:\nops:x:78:alice\n");
    ok(["touch", &at("/f")]);
    let owner = || ok(["stat", "-c", "%u:%g %U:%G", &at("/f")]);
    for (text, expected) in [
        ("alice", "1234:0 alice:0\n"),
        ("alice:", "1234:77 alice:staff\n"),
        (":ops", "1234:78 alice:ops\n"),
        ("root:5", "0:5 root:5\n"),
        ("+9:staff", "9:77 9:staff\n"),
    ] {
        ok(["chown", text, &at("/f")]);
        assert_eq!(owner(), expected, "{text}");
    }
    fails(["chown", "bob", &at("/f")], 1, "invalid user: `bob`");
    fails(["chown", "4294967295", &at("/f")], 1, "invalid user");
    ok(["chown", "alice:staff", &at("/f")]);
    assert!(
        ok(["ls", "-l", &at("/f")]).contains(" alice staff "),
        "{}",
        ok(["ls", "-l", &at("/f")])
    );
    assert!(ok(["ls", "-n", &at("/f")]).contains(" 1234 77 "));
    let said = ok(["chown", "-v", "root:root", &at("/f")]);
    assert_eq!(said, format!("changed ownership of {} from alice:staff to root:0\n", at("/f")));
    check(&image);
}

#[test]
fn ls_has_the_options_that_are_used_most() {
    let (_scratch, image) = image("ls");
    let at = |path| at(&image, path);
    ok(["mkdir", &at("/d"), &at("/d/sub")]);
    ok(["touch", "-d", "@100", &at("/d/old"), &at("/d/.hidden")]);
    put(&image, "/d/big", &"x".repeat(1500));
    ok(["touch", "-d", "@300", &at("/d/big")]);
    ok(["touch", "-d", "@200", &at("/d/sub")]);
    let ls = |options: &[&str]| ok([&["ls"], options, &[&at("/d")]].concat());
    assert_eq!(ls(&["-1"]), "big\nold\nsub\n");
    assert_eq!(ls(&["-a"]), ".\n..\n.hidden\nbig\nold\nsub\n");
    assert_eq!(ls(&["-A"]), ".hidden\nbig\nold\nsub\n");
    assert_eq!(ls(&["-t"]), "big\nsub\nold\n");
    assert_eq!(ls(&["-tr"]), "old\nsub\nbig\n");
    assert_eq!(ls(&["-d"]), "/d\n");
    assert!(ls(&["-lh"]).contains(" 1.5K "), "{}", ls(&["-lh"]));
    ok(["xattr", "set", &at("/d/old"), "system.posix_acl_access", "u::6,u:1000:4,g::4,m::4,o::4"]);
    let long = ls(&["-l"]);
    assert!(
        long.lines().any(|line| line.starts_with("-rw-r--r--+ ") && line.ends_with(" old")),
        "{long}"
    );
    assert!(ok(["ls", "--help"]).contains("Usage: extant ls"));
    assert!(ok(["df", "-h", image.to_str().unwrap()]).contains("disk.img\n"));
}

#[test]
fn json_of_what_can_be_shown_comes_beside_the_error() {
    let (scratch, image) = image("json");
    let at = |path| at(&image, path);
    ok(["mkdir", &at("/dir")]);
    put(&image, "/file", "x");
    oracle::debugfs_write(&image, "cd /dir\nmknod fifo p\n");
    let shown = |arguments: &[&str]| {
        let output = extant(arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(shown(&["stat", "--json", &at("/file"), &at("/no")])[0]["size"], 1);
    assert_eq!(shown(&["ls", "--json", &at("/no"), &at("/file")])[0]["name"], "file");
    let missing = scratch.path("no.img");
    let df = shown(&["df", "--json", image.to_str().unwrap(), missing.to_str().unwrap()]);
    assert_eq!(df.as_array().map(Vec::len), Some(1));
    fs::write(scratch.path("f"), b"f").unwrap();
    let copied = shown(&[
        "cp",
        "--json",
        scratch.path("f").to_str().unwrap(),
        scratch.path("no").to_str().unwrap(),
        &at("/"),
    ]);
    assert_eq!((&copied["files"], &copied["failed"]), (&1.into(), &1.into()));
    let fifo = json(["ls", "--json", &at("/dir/fifo")]);
    assert_eq!((&fifo[0]["directory"], &fifo[0]["name"]), (&"/dir".into(), &"fifo".into()));
    let file = json(["ls", "--json", &at("/file")]);
    assert_eq!((&file[0]["directory"], &file[0]["name"]), (&"/".into(), &"file".into()));
    fails(["cat", &at("/dir/fifo")], 1, "is a fifo");
    fails(["cp", &at("/dir/fifo"), scratch.path("out").to_str().unwrap()], 1, "is a fifo");
}

#[test]
fn several_files_and_images_are_shown_one_after_the_other() {
    let (scratch, image) = image("several");
    let at = |path| at(&image, path);
    let name = image.to_str().unwrap();
    ok(["mkdir", "-p", &at("/a/b"), &at("/c")]);
    ok(["touch", &at("/f"), &at("/g")]);
    ok(["xattr", "set", &at("/f"), "user.one", "1"]);
    ok(["xattr", "set", &at("/g"), "user.two", "2"]);
    assert_eq!(
        ok(["xattr", "list", &at("/f"), &at("/g")]),
        format!("{}:\nuser.one=1\n{}:\nuser.two=2\n", at("/f"), at("/g"))
    );
    assert_eq!(json(["info", "--json", name, name]).as_array().map(Vec::len), Some(2));
    assert!(ok(["info", name, name]).matches("label").count() == 2);
    assert!(ok(["map", &at("/a"), &at("/f")]).contains(&format!("\n{}:\n", at("/f"))));
    assert_eq!(ok(["tree", &at("/a"), &at("/c")]), format!("{}\n`-- b\n{}\n", at("/a"), at("/c")));
    fails(["tree", &at("/f")], 1, &format!("{}: not a directory", at("/f")));
    assert_eq!(extant(["tree", "-L", "0", name]).status.code(), Some(2));
    assert_eq!(ok(["tree", "-L", "1", &at("/a")]), format!("{}\n`-- b\n", at("/a")));
    assert!(ok(["info", name]).contains("label       <none>\n"));
    drop(scratch);
}

#[test]
fn attributes_are_set_from_files_and_followed_through_links() {
    let (scratch, image) = image("xattr");
    let at = |path| at(&image, path);
    ok(["touch", &at("/f")]);
    ok(["ln", "-s", "f", &at("/l")]);
    ok(["xattr", "set", &at("/l"), "user.a", "text"]);
    assert_eq!(ok(["xattr", "get", &at("/f"), "user.a"]), "text");
    fails(["xattr", "set", "-h", &at("/l"), "user.a", "x"], 1, "only files and directories");
    let bytes = scratch.path("bytes");
    fs::write(&bytes, b"0x not hexadecimal\0").unwrap();
    ok(["xattr", "set", &at("/f"), "user.b", "--from", bytes.to_str().unwrap()]);
    assert_eq!(ok(["xattr", "get", &at("/f"), "user.b"]), "0x not hexadecimal\0");
    fails(["xattr", "get", &at("/f"), "user.nope"], 1, "user.nope: no such attribute");
    fails(
        ["xattr", "set", &at("/f"), &format!("user.{}", "x".repeat(251)), "x"],
        1,
        "name of an attribute has up to 255 bytes",
    );
    let list = "user::rw-,user:1000:r-x,group::r--,mask::r-x,other::---";
    ok(["xattr", "set", &at("/f"), "system.posix_acl_access", list]);
    assert_eq!(ok(["xattr", "get", &at("/f"), "system.posix_acl_access"]), format!("{list}\n"));
    assert!(
        ok(["xattr", "list", &at("/f")]).contains(&format!("system.posix_acl_access={list}\n"))
    );
    assert_eq!(ok(["stat", "-c", "%a", &at("/f")]), "650\n");
    check(&image);
}

#[test]
fn what_is_said_is_said_where_it_is_of_use() {
    let (scratch, image) = image("words");
    let at = |path| at(&image, path);
    fs::create_dir_all(scratch.path("tree/sub")).unwrap();
    let tree = scratch.path("tree");
    // `ok` wants silence on standard error.
    ok(["cp", "-r", tree.to_str().unwrap(), &at("/")]);
    ok(["cp", "-a", tree.to_str().unwrap(), &at("/two")]);
    let output = extant(["cp", "-rv", tree.to_str().unwrap(), &at("/three")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.starts_with("0 files, 2 directories, 0 B in "), "{words}");
    let output = extant(["ls", "-x", &at("/")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(words.starts_with("extant: unexpected argument '-x' found\n"), "{words}");
    assert!(!words.contains("tip:") && words.contains("Usage: extant ls"), "{words}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
    put(&image, "/f", &"x".repeat(100_000));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.args(["cat", &at("/f")]).stdout(full).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(words, "extant: standard output: no space left on device\n");
    fails(
        ["cp", "-r", &at("/"), &at("/self")],
        1,
        &format!("{}self: a directory cannot be copied into itself", at("/")),
    );
    fails(["rm", "-r", &at("/tree/.")], 1, "refusing to remove `.` or `..`");
    assert_eq!(
        ok(["chmod", "-v", "600", &at("/f")]),
        format!("mode of {} changed from 0644 (rw-r--r--) to 0600 (rw-------)\n", at("/f"))
    );
    assert_eq!(ok(["rm", "-v", &at("/f")]), format!("removed {}\n", at("/f")));
    assert_eq!(
        ok(["mv", "-v", &at("/two"), &at("/four")]),
        format!("{} -> {}\n", at("/two"), at("/four"))
    );
    check(&image);
}

#[test]
fn bytes_from_a_pipe_are_a_file_as_any_other() {
    let (_scratch, image) = image("pipe-mode");
    put(&image, "/motd", "hello");
    assert_eq!(ok(["stat", "-c", "%a", &at(&image, "/motd")]), "644\n");
    put(&image, "/motd", "bye");
    assert_eq!(ok(["cat", &at(&image, "/motd")]), "bye");
}

#[test]
fn an_image_may_have_colons_in_its_path() {
    let (scratch, image) = image("colons");
    let folder = scratch.path("a:");
    fs::create_dir(&folder).unwrap();
    fs::rename(&image, folder.join("disk.img")).unwrap();
    let name = format!("{}:/disk.img", folder.display());
    put(std::path::Path::new(&name), "/f", "text");
    assert_eq!(ok(["cat", &format!("{name}:/f")]), "text");
    assert!(ok(["info", &name]).contains("label"));
    fails(["cat", &format!("{name}:/no")], 1, &format!("{name}:/no: no such file"));
}

#[test]
fn holes_are_kept_filled_or_made() {
    let (scratch, image) = image("sparse");
    let source = scratch.path("source");
    let file = fs::File::create(&source).unwrap();
    file.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 65536], 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", (1 << 20) - 1).unwrap();
    let sectors = |when: &str| -> u64 {
        let to = at(&image, "/f");
        ok(["cp", "--sparse", when, source.to_str().unwrap(), &to]);
        assert!(extant(["cat", &to]).stdout == fs::read(&source).unwrap());
        ok(["stat", "-c", "%b", &to]).trim().parse().unwrap()
    };
    assert_eq!((sectors("never"), sectors("always")), (2048, 8));
    assert_eq!(sectors("auto"), 128 + 8);
    check(&image);
}

#[test]
fn questions_are_answered_on_standard_input() {
    let (_scratch, image) = image("ask");
    let at = |path| at(&image, path);
    put(&image, "/a", "a");
    put(&image, "/b", "b");
    let run = |answers: &str, arguments: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_extant"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", oracle::text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(
        run("n\n", &["cp", "-i", &at("/a"), &at("/b")]),
        format!("extant: overwrite {}? ", at("/b"))
    );
    assert_eq!(ok(["cat", &at("/b")]), "b");
    run("y\n", &["cp", "-i", &at("/a"), &at("/b")]);
    assert_eq!(ok(["cat", &at("/b")]), "a");
    run("n\n", &["mv", "-i", &at("/a"), &at("/b")]);
    run("n\ny\n", &["rm", "-i", &at("/a"), &at("/b")]);
    assert_eq!(ok(["ls", &at("/")]), "a\nlost+found\n");
}
