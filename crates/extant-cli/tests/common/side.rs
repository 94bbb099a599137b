//! The same command twice: coreutils on a kernel mount, and `extant` on the image; then the trees are compared.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::tree::{self, Tree};

/// Runs each command on both sides and panics with all that differ.
///
/// `before` are lines for a shell, in the folder that the commands run in; `I` is the image's root there, seen as a
/// directory. Words of a command that begin with `I:/` are in the image.
pub fn compare(name: &str, before: &str, commands: &[&str]) {
    let scratch = Scratch::new(name);
    let Some(prepared) = prepare(&scratch, before) else { return };
    let mut wrong = Vec::new();
    for command in commands {
        let Some(found) = run(&scratch, &prepared, command) else { return };
        if !found.is_empty() {
            wrong.push(format!("  {command}: {}", found.join("\n    ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        commands.len(),
        wrong.join("\n")
    );
}

/// A folder with an image, and what else the lines make.
fn prepare(scratch: &Scratch, before: &str) -> Option<PathBuf> {
    let folder = scratch.path("prepared");
    std::fs::create_dir_all(folder.join("I")).unwrap();
    oracle::mkfs(&folder.join("disk.img"), 8 << 20, &["-b", "1024"])?;
    let mount = KernelMount::new(&folder.join("disk.img"), &folder.join("I"), "")?;
    let made = shell(&folder, before);
    assert!(made.status.success(), "{before}: {}", oracle::text(&made));
    mount.unmount().unwrap();
    Some(folder)
}

/// How the two sides differ; `None` where there is no kernel mount.
fn run(scratch: &Scratch, prepared: &Path, command: &str) -> Option<Vec<String>> {
    let sides = ["theirs", "ours"].map(|name| scratch.path(name));
    for side in &sides {
        let copied = Command::new("cp").arg("-a").arg(prepared).arg(side).status().unwrap();
        assert!(copied.success());
    }
    let [theirs, ours] = &sides;
    let mount = KernelMount::new(&theirs.join("disk.img"), &theirs.join("I"), "")?;
    let their_output = shell(theirs, &command.replace("I:/", "I/"));
    let their_trees = trees(theirs);
    mount.unmount().unwrap();

    let program = env!("CARGO_BIN_EXE_extant");
    let our_output = shell(ours, &format!("{program} {}", command.replace("I:/", "disk.img:/")));
    let verdict = oracle::e2fsck(&ours.join("disk.img"));
    let mount = KernelMount::new(&ours.join("disk.img"), &ours.join("I"), "ro")?;
    let our_trees = trees(ours);
    mount.unmount().unwrap();

    let ignore = |_: &Path, field: &str| matches!(field, "accessed" | "changed" | "modified");
    let pairs = their_trees.iter().zip(&our_trees);
    let mut found: Vec<String> =
        pairs.flat_map(|(one, other)| tree::differences(one, other, ignore)).collect();
    let codes = [&their_output, &our_output].map(|output| output.status.code());
    // Where coreutils have one number for everything, ours tells a wrong command line apart.
    if codes[0] != codes[1] && codes != [Some(1), Some(2)] {
        found.push(format!("exit codes {codes:?}"));
    }
    found.extend(verdict.err());
    if !found.is_empty() {
        found.push(format!("theirs: {}", oracle::text(&their_output).trim()));
        found.push(format!("ours:   {}", oracle::text(&our_output).trim()));
    }
    for side in &sides {
        std::fs::remove_dir_all(side).unwrap();
    }
    Some(found)
}

/// What is in the image, and what is beside it.
fn trees(side: &Path) -> [Tree; 2] {
    let inside = tree::read(&side.join("I")).unwrap();
    let mut outside = tree::read(side).unwrap();
    outside.retain(|path, _| {
        !path.is_empty() && path != "disk.img" && !Path::new(path).starts_with("I")
    });
    [inside, outside]
}

fn shell(folder: &Path, lines: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-euc", &format!("umask 022; {lines}")]).current_dir(folder);
    command.stdin(Stdio::null()).output().unwrap()
}
