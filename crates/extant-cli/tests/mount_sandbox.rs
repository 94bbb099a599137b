//! The sandbox of `extant mount`: what the serving process has given up, and that a mount does all it should without.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::mounted::{Mounted, Nobody, prepared, wait_until};
use common::{check, ok};
use extant_testkit::{FuseQueues, skip};
use rustix::fs::XattrFlags;
use rustix::process::{Pid, Signal};

/// The lines of `status` that a process in the sandbox has, in each of its threads.
const GIVEN_UP: [(&str, &str); 5] = [
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    ("CapEff", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapInh", "0000000000000000"),
];

/// A line of a `status` in `/proc`.
fn line(status: &Path, name: &str) -> Option<String> {
    let status = fs::read_to_string(status).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}

/// Whether this kernel can do it at all; else the test is skipped. What landlock does is tested where it is entered.
fn has_sandbox() -> bool {
    let has_filters = line(Path::new("/proc/self/status"), "Seccomp_filters").is_some();
    if !has_filters {
        skip("this kernel has no seccomp filters");
    }
    has_filters
}

fn expect_sandbox(server: &Child) {
    let process = Path::new("/proc").join(server.id().to_string());
    let threads: Vec<_> = fs::read_dir(process.join("task")).unwrap().flatten().collect();
    assert!(threads.len() >= 4, "those that wait for the clock, a signal and more work");
    for thread in threads {
        for (name, value) in GIVEN_UP {
            let found = line(&thread.path().join("status"), name);
            assert_eq!(found.as_deref(), Some(value), "{name} of {:?}", thread.path());
        }
    }
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_ascii_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    // Nobody but root looks into what leaves no core.
    assert_eq!(fs::metadata(process.join("fd")).unwrap().uid(), 0);
}

/// A little of everything.
fn work(mounted: &Mounted) {
    let at = |name: &str| mounted.path(name);
    fs::create_dir(at("d")).unwrap();
    let mut file = File::create(at("f")).unwrap();
    file.write_all(&[7; 3 << 20]).unwrap();
    file.sync_all().unwrap();
    fs::rename(at("f"), at("d/g")).unwrap();
    rustix::fs::setxattr(at("d/g"), "user.a", b"value", XattrFlags::CREATE).unwrap();
    let syncing = |name: String| {
        let mut file = File::create(at(&name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
    };
    std::thread::scope(|scope| {
        (0..8).for_each(|n| drop(scope.spawn(move || syncing(format!("d/{n}")))));
    });
    let told =
        common::json(["stat", "--live", "--once", "--json", mounted.point.to_str().unwrap()]);
    assert!(told.is_object(), "{told}");
}

/// Image, and what `work` has left in it.
fn expect_work(image: &Path) {
    check(image);
    let names = ok(["ls", &format!("{}:/d", image.display())]);
    assert_eq!(names.split_whitespace().count(), 9, "{names}");
}

#[test]
fn a_root_mount_works_without_what_its_server_has_given_up() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root, for its mounts");
    }
    for options in ["", "noloop", "io_uring"] {
        let (_scratch, image, point) = prepared("sandbox-root", "64M");
        if !has_sandbox() {
            return;
        }
        let queues = if options == "io_uring" { FuseQueues::switch_on() } else { None };
        if options == "io_uring" && queues.is_none() {
            continue;
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_extant"));
        program.stderr(Stdio::piped());
        let Some(mut mounted) = Mounted::by(program, &image, &point, options) else { return };
        expect_sandbox(&mounted.server);
        work(&mounted);
        expect_sandbox(&mounted.server);
        rustix::process::kill_process(Pid::from_child(&mounted.server), Signal::TERM).unwrap();
        assert!(mounted.server.wait().unwrap().success());
        let mut words = String::new();
        mounted.server.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        let is_whole =
            words.is_empty() || (words.contains("landlock") && words.lines().count() == 1);
        assert!(is_whole, "{words}");
        expect_work(&image);
        // And by umount(8), which knows nothing of it.
        let mut mounted = Mounted::new(&image, &point, options).unwrap();
        fs::remove_file(mounted.path("d/g")).unwrap();
        fs::write(mounted.path("d/h"), "more").unwrap();
        assert!(Command::new("umount").arg(&point).status().unwrap().success());
        assert!(mounted.server.wait().unwrap().success());
        expect_work(&image);
    }
}

#[test]
fn a_mount_without_the_sandbox_keeps_its_rights() {
    let (_scratch, image, point) = prepared("sandbox-none", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "nosandbox") else { return };
    let process = Path::new("/proc").join(mounted.server.id().to_string());
    for name in ["NoNewPrivs", "Seccomp", "CapEff"] {
        let own = line(Path::new("/proc/self/status"), name);
        assert_eq!(line(&process.join("status"), name), own, "{name}");
    }
    work(&mounted);
    mounted.unmount();
    expect_work(&image);
}

/// The helper that unmounts for an ordinary user runs as root, which the server, in its sandbox, could not have it do.
#[test]
fn an_ordinary_users_server_ends_by_a_signal_from_the_sandbox() {
    if !has_sandbox() || !Path::new("/dev/fuse").exists() {
        return;
    }
    let Some(nobody) = Nobody::new("sandbox-user") else { return };
    let Nobody { image, point, program, .. } = &nobody;
    let mut server = nobody.command(program);
    server.args(["mount", "--foreground"]).args([image, point]).stdin(Stdio::null());
    let server = server.spawn().unwrap();
    let mut mounted = Mounted { point: point.clone(), image: image.clone(), server };
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == point.to_str())
    };
    wait_until(|| {
        assert_eq!(mounted.server.try_wait().unwrap(), None, "it does not mount");
        is_mounted()
    });
    assert_eq!(nobody.shell("echo his > his && mv his hers && cat hers"), "his\n");
    expect_sandbox(&mounted.server);
    rustix::process::kill_process(Pid::from_child(&mounted.server), Signal::TERM).unwrap();
    assert!(mounted.server.wait().unwrap().success());
    assert!(!is_mounted());
    check(image);
}
