//! Several at one image: who waits, who is refused, who only reads; and what a signal leaves behind.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{at, check, extant, fails, ok};
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::skip;
use rustix::process::{Pid, Signal, kill_process};

fn image(name: &str) -> (Scratch, PathBuf) {
    image_of(name, "256M")
}

fn image_of(name: &str, size: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let image = scratch.path("disk.img");
    ok(["mkfs", image.to_str().unwrap(), size]);
    (scratch, image)
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// A copy that has the image open, and waits for bytes.
fn writer(image: &Path) -> Child {
    let mut child = start(&["cp", "/dev/stdin", &at(image, "/piped")]);
    child.stdin.as_mut().unwrap().write_all(b"first").unwrap();
    until(|| locks_on(image).contains("WRITE"));
    child
}

/// Somebody who reads a large file and waits for room in a pipe.
fn reader(image: &Path) -> Child {
    let child = start(&["cat", &at(image, "/large")]);
    until(|| locks_on(image).contains("READ"));
    child
}

/// The lines of the list of locks that are about a file.
fn locks_on(path: &Path) -> String {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let all = fs::read_to_string("/proc/locks").unwrap();
    all.lines().filter(|line| line.contains(&format!(":{inode} "))).collect()
}

fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(mut child: Child) -> (std::process::ExitStatus, String) {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn readers_read_on_beside_a_writer_and_say_so() {
    let (_scratch, image) = image("beside");
    ok(["touch", &at(&image, "/a")]);
    let writer = writer(&image);
    let output = extant(["ls", &at(&image, "/")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nlost+found\n");
    assert!(words.contains("warning: ") && words.contains("is in use by extant (pid "), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    fails(["touch", &at(&image, "/b")], 3, "is in use by extant (pid ");
    let waiting = start(&["touch", "--wait", &at(&image, "/b")]);
    until(|| locks_on(&image).lines().count() >= 1);
    assert!(end(writer).0.success());
    assert!(end(waiting).0.success());
    assert_eq!(ok(["ls", &at(&image, "/")]), "a\nb\nlost+found\npiped\n");
    check(&image);
}

#[test]
fn a_writer_waits_a_moment_for_readers() {
    let (scratch, image) = image("readers");
    fs::write(scratch.path("large"), vec![1; 4 << 20]).unwrap();
    ok(["cp", scratch.path("large").to_str().unwrap(), &at(&image, "/")]);
    let mut reading = reader(&image);
    let before = Instant::now();
    fails(["touch", &at(&image, "/b")], 3, "is being read by extant (pid ");
    assert!(before.elapsed() > Duration::from_secs(1));
    assert!(extant(["ls", &at(&image, "/")]).stderr.is_empty());
    let waiting = start(&["touch", "--wait=60", &at(&image, "/b")]);
    let mut bytes = Vec::new();
    reading.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == vec![1; 4 << 20] && end(reading).0.success());
    assert!(end(waiting).0.success());
    let many: Vec<Child> =
        (0..8).map(|n| start(&["touch", "--wait=60", &at(&image, &format!("/n{n}"))])).collect();
    assert!(many.into_iter().all(|child| end(child).0.success()));
    assert_eq!(
        ok(["ls", &at(&image, "/")]).lines().filter(|name| name.starts_with('n')).count(),
        8
    );
    check(&image);
}

/// The kernel may take a mount's loop device away a moment after the mount: whoever comes next waits for that.
#[test]
fn who_comes_right_after_a_mount_waits_for_its_loop_device() {
    let (_scratch, image) = image("loop-goes");
    let losetup =
        |words: &[&str]| oracle::run("losetup", words).filter(|told| told.status.success());
    let attached = losetup(&["--find", "--show", image.to_str().unwrap()]);
    let Some(attached) = attached else { return skip("cannot attach a loop device (not root?)") };
    let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    fails(["touch", &at(&image, "/a")], 3, "is attached to ");
    let user = fs::File::open(&device).unwrap();
    losetup(&["--detach", &device]).unwrap();
    let waits = start(&["touch", &at(&image, "/a")]);
    std::thread::sleep(Duration::from_millis(300));
    drop(user);
    let (status, words) = end(waits);
    assert!(status.success(), "{words}");
    check(&image);
}

#[test]
fn a_mount_that_is_written_is_told_to_readers() {
    let (scratch, image) = image("mounted");
    let words = |options: &str| {
        let mount = KernelMount::new(&image, &scratch.path("mount"), options)?;
        let outputs = [["ls"].as_slice(), &["info"], &["map"]].map(|command| {
            let output = extant([command, &[image.to_str().unwrap()]].concat());
            assert!(output.status.success(), "{}", oracle::text(&output));
            String::from_utf8_lossy(&output.stderr).into_owned()
        });
        mount.unmount().unwrap();
        Some(outputs)
    };
    let Some(written) = words("") else { return };
    for line in written {
        assert!(line.contains("warning: ") && line.contains("is mounted at "), "{line}");
    }
    assert_eq!(words("ro").unwrap(), ["", "", ""]);
}

#[test]
fn what_changed_under_a_reader_is_no_damage() {
    // So small that directories lie behind the first tables.
    let (scratch, image) = image_of("changed", "64M");
    let tree = scratch.path("tree");
    for n in 0..400 {
        fs::create_dir_all(tree.join(format!("{n:03}"))).unwrap();
        for m in 0..20 {
            let name = format!("{n:03}/{m:02}-{}", "long".repeat(20));
            fs::write(tree.join(name), b"").unwrap();
        }
    }
    ok(["cp", "-r", tree.to_str().unwrap(), &at(&image, "/")]);
    let bytes = fs::read(&image).unwrap();
    let run = |change: &dyn Fn(&fs::File)| {
        fs::write(&image, &bytes).unwrap();
        let mut reading = start(&["tree", &at(&image, "/tree")]);
        let mut first = [0; 1 << 10];
        reading.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        // It waits for room in the pipe, and has not read all.
        change(&fs::OpenOptions::new().write(true).open(&image).unwrap());
        let output = reading.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // All but the first tables, wherever directories lie.
    let spoiled = vec![0xA5; bytes.len() - (4 << 20)];
    let spoil = |file: &fs::File| file.write_all_at(&spoiled, 4 << 20).unwrap();
    let (code, words) = run(&spoil);
    assert_eq!(code, Some(4), "{words}");
    let (code, words) = run(&|file| {
        file.write_all_at(&[0xFF; 4], 1024 + 0x2C).unwrap(); // when it was mounted last
        spoil(file);
    });
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("changed while it was read"), "{words}");
}

#[test]
fn a_signal_ends_a_copy_in_good_order() {
    let (scratch, image) = image("signal");
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    fs::write(tree.join("a"), b"whole").unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        if ignored & (1 << (signal.as_raw() - 1)) != 0 {
            skip(&format!("{signal:?}: what started this test has it ignored, and so it stays"));
            continue;
        }
        let root = at(&image, "/");
        let mut copy = start(&["cp", "-a", tree.to_str().unwrap(), "/dev/stdin", &root]);
        // With -a a pipe is copied as such, so nothing waits; without, its bytes are waited for.
        assert!(copy.wait().unwrap().success());
        ok(["rm", "-r", &at(&image, "/tree"), &at(&image, "/stdin")]);
        let a = tree.join("a");
        let mut copy = start(&["cp", a.to_str().unwrap(), "/dev/stdin", &root]);
        copy.stdin.as_mut().unwrap().write_all(b"part").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&copy), signal).unwrap();
        let input = copy.stdin.take();
        let output = copy.wait_with_output().unwrap();
        drop(input);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{words}");
        assert!(words.contains("interrupted; 1 file, 5 B are copied and kept"), "{words}");
        check(&image);
        assert_eq!(ok(["ls", &root]), "a\nlost+found\n");
        assert_eq!(ok(["cat", &at(&image, "/a")]), "whole");
        ok(["rm", &at(&image, "/a")]);
    }
}

#[test]
fn a_signal_ends_a_removal_between_two_files() {
    let (scratch, image) = image("signal-rm");
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    for n in 0..5000 {
        fs::write(tree.join(n.to_string()), b"").unwrap();
    }
    ok(["cp", "-r", tree.to_str().unwrap(), &at(&image, "/")]);
    let mut removal = start(&["rm", "-rv", &at(&image, "/tree")]);
    // It waits for room in the pipe after some thousand names.
    let mut first = [0; 100];
    removal.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&removal), Signal::TERM).unwrap();
    let output = removal.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::TERM.as_raw()), "{}", oracle::text(&output));
    check(&image);
    assert!(ok(["ls", &at(&image, "/tree")]).lines().count() > 100);
}
