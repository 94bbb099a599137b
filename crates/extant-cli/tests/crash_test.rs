//! `extant crash-test`: what it says of scripts whose guarantees are known.
#![expect(clippy::unwrap_used, reason = "a test that fails may say so in few words")]

mod common;

use std::path::PathBuf;

use common::{extant, ok};
use extant_testkit::oracle::Scratch;
use serde_json::Value;

/// What is printed of a script, and the exit code.
fn tell(script: &str, more: &[&str]) -> (String, Option<i32>) {
    let (_scratch, path) = stored(script);
    let output = extant([&["crash-test", path.to_str().unwrap()], more].concat());
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn stored(script: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new("crash-test");
    let path = scratch.path("a.script");
    std::fs::write(&path, script).unwrap();
    (scratch, path)
}

const REPLACE: &str = "create config, write config 0 4K, sync\npromise config\ncreate new\nwrite new 0 4K\n\
    rename new config\npromise config\n";

#[test]
fn a_rename_without_fsync_is_whole_where_replacing_starts_writeback() {
    let (text, code) = tell(REPLACE, &[]);
    let expected = "line 2: the promise of /config holds\n\
        line 6: the promise of /config does not hold\n  \
        a crash after line 6 can leave /config as line 1 left it\n  \
        add `fsync /` after line 5: with that it holds\n";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_rename_without_fsync_can_empty_a_file_where_it_does_not() {
    let (text, code) = tell(REPLACE, &["-o", "noauto_da_alloc"]);
    let expected = "line 2: the promise of /config does not hold\n  \
        a crash some seconds after line 5 (`rename new config`) can leave /config empty\n  \
        add `fsync new` after line 4: with that it holds\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("add `fsync new` after line 4, and `fsync /` after line 5"), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_new_files_name_is_durable_with_its_bytes() {
    let script = "mkdir d\ncreate d/a\nwrite d/a 0 10000\nfsync d/a\npromise d/a\n";
    let (text, code) = tell(script, &[]);
    assert!(text.starts_with("line 5: the promise of /d/a holds\n"), "{text}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_log_that_is_not_synced_before_the_database_is_told_of() {
    let script = "create db, write db 0 8K, create log\ntrace\npromise db\nwrite log 0 8K\npromise log\n\
        write db 0 8K\nfsync db\npromise db\n";
    let (text, code) = tell(script, &[]);
    for line in [
        "line 3: the promise of /db does not hold",
        " can leave /db in part old and in part new",
        "  nothing that is added helps: write another file, fsync it, and rename it to /db",
        "line 5: the promise of /log does not hold",
        " can leave /log empty",
        "  add `fsync log` after line 4: with that it holds",
        "line 8: the promise of /db holds",
    ] {
        assert!(text.lines().any(|printed| printed.ends_with(line)), "{line}\n{text}");
    }
    assert_eq!(code, Some(1));
}

#[test]
fn without_a_promise_states_are_listed() {
    let (text, code) = tell("create a\nwrite a 0 5000\nfsync a\nunlink a\ncreate a\n", &[]);
    assert!(text.starts_with("/a\n"), "{text}");
    for state in ["missing ", "empty ", "as line 2 left it "] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(state)), "{state}\n{text}");
    }
    assert_eq!(code, Some(0));
}

#[test]
fn a_given_image_stays_and_a_script_may_ask_for_one() {
    let scratch = Scratch::new("crash-test-image");
    let image = scratch.path("disk.img");
    ok(["mkfs", image.to_str().unwrap(), "16M"]);
    let before = std::fs::read(&image).unwrap();
    let script = "create a\nfsync a\npromise a\n";
    let (text, code) = tell(script, &[image.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(std::fs::read(&image).unwrap() == before);
    let (text, code) = tell(&format!("image 8M -b 1024 -O inline_data\n{script}"), &[]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn programs_read_the_same() {
    let (text, code) = tell(REPLACE, &["--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let second = &value["promises"][1];
    assert_eq!((&second["line"], &second["holds"]), (&6.into(), &false.into()));
    assert_eq!(second["breaches"][0]["state"], "as line 1 left it");
    assert_eq!(second["remedy"][0]["operation"], "fsync /");
    assert_eq!(code, Some(1));
}

#[test]
fn a_script_that_cannot_run_is_the_users_mistake() {
    for (script, line) in [
        ("promise a\n", "line 1: there is no /a to promise"),
        ("write a 0 10\n", "line 1: write a 0 10 tag 1: "),
        ("image 8M -b 1000\ncreate a\n", "the script's image: block size: 1000"),
        ("image 8M --no-such\ncreate a\n", "the script's image: unexpected argument '--no-such'"),
    ] {
        let (_scratch, path) = stored(script);
        let output = extant(["crash-test", path.to_str().unwrap()]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(line) && told.lines().count() == 1, "{told}");
        assert_eq!(output.status.code(), Some(2), "{told}");
    }
}
