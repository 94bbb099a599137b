//! Runs the program as a user would.
#![allow(dead_code, reason = "each suite uses a part")]

pub mod mounted;
pub mod side;
pub mod tree;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use extant_testkit::oracle;

/// Runs `extant` to its end.
pub fn extant<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
    command.args(arguments).output().expect("the program was built")
}

/// Runs `extant`, which must succeed without a word on standard error, and returns what it prints.
pub fn ok<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let output = extant(arguments);
    let words = oracle::text(&output);
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout).expect("what it prints here is text")
}

/// Runs `extant`, which must fail with `code` and one line that contains `part`.
pub fn fails<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, code: i32, part: &str) {
    let output = extant(arguments);
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(part), "{line}");
}

/// What `extant --json` says.
pub fn json<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> serde_json::Value {
    serde_json::from_str(&ok(arguments)).expect("what it prints is JSON")
}

/// The address of `path` in `image`.
pub fn at(image: &Path, path: &str) -> String {
    format!("{}:{path}", image.display())
}

/// Checks that e2fsck finds nothing.
pub fn check(image: &Path) {
    oracle::e2fsck(image).unwrap_or_else(|words| panic!("{words}"));
}
