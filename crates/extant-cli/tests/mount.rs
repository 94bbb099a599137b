//! `extant mount`: what programs do on it, and what is left when it ends, in good order or not.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::mounted::{Mounted, NOBODY, Nobody, prepared, umount};
use common::tree::{compare, make_tree};
use common::{check, extant, fails, ok};
use extant_testkit::oracle::KernelMount;
use extant_testkit::skip;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, XattrFlags};

#[test]
fn a_tree_of_everything_is_the_same_through_the_mount_and_through_the_kernel() {
    for options in ["", "nodelalloc", "data=journal", "writeback", "cache=1M"] {
        let (scratch, image, point) = prepared("mount-tree", "256M");
        let Some(mounted) = Mounted::new(&image, &point, options) else { return };
        let plain = scratch.path("plain");
        make_tree(&plain);
        let copied = Command::new("cp").arg("-a").args([&plain, &mounted.path("tree")]).status();
        assert!(copied.unwrap().success());
        compare(&plain, &mounted.path("tree"));
        mounted.unmount();
        if let Some(kernel) = KernelMount::new(&image, &scratch.path("kernel"), "ro") {
            compare(&plain, &kernel.root().join("tree"));
            kernel.unmount().unwrap();
        }
        // What the caches of a mount do not know yet.
        let mounted = Mounted::new(&image, &point, "ro").unwrap();
        compare(&plain, &mounted.path("tree"));
        let refused = File::create(mounted.path("new")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(30)); // EROFS
        mounted.unmount();
    }
}

#[test]
fn calls_that_few_file_systems_have_do_what_ext4_does() {
    let (_scratch, image, point) = prepared("mount-calls", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let at = |name: &str| mounted.path(name);
    // A file without a name, until it has one.
    let unnamed =
        rustix::fs::open(&mounted.point, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).unwrap();
    rustix::io::write(&unnamed, b"hello").unwrap();
    let own = format!("/proc/self/fd/{}", unnamed.as_raw_fd());
    rustix::fs::linkat(CWD, &own, CWD, at("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(fs::read(at("named")).unwrap(), b"hello");
    // Holes and ranges.
    let sparse =
        File::options().read(true).write(true).create_new(true).open(at("sparse")).unwrap();
    sparse.write_all_at(&[7; 5000], 1 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&sparse, SeekFrom::Data(0)).unwrap(), 1 << 20);
    assert_eq!(rustix::fs::seek(&sparse, SeekFrom::Hole(0)).unwrap(), 0);
    let keep = FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&sparse, keep, 0, 2 << 20).unwrap();
    assert_eq!(sparse.metadata().unwrap().blocks(), (2 << 20) / 512);
    rustix::fs::fallocate(&sparse, keep | FallocateFlags::PUNCH_HOLE, 0, 1 << 20).unwrap();
    rustix::fs::fallocate(&sparse, FallocateFlags::ZERO_RANGE, (1 << 20) + 100, 900).unwrap();
    let mut bytes = [1; 5000];
    sparse.read_exact_at(&mut bytes, 1 << 20).unwrap();
    assert!(bytes[..100] == [7; 100] && bytes[100..1000] == [0; 900] && bytes[1000] == 7);
    // Names.
    fs::write(at("other"), b"other").unwrap();
    rustix::fs::renameat_with(CWD, at("named"), CWD, at("other"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(at("named")).unwrap(), b"other");
    let taken =
        rustix::fs::renameat_with(CWD, at("named"), CWD, at("other"), RenameFlags::NOREPLACE);
    assert_eq!(taken.unwrap_err(), rustix::io::Errno::EXIST);
    if rustix::process::geteuid().is_root() {
        // A whiteout is a device.
        fs::write(at("hidden"), b"x").unwrap();
        rustix::fs::renameat_with(CWD, at("hidden"), CWD, at("seen"), RenameFlags::WHITEOUT)
            .unwrap();
        let left = fs::metadata(at("hidden")).unwrap();
        assert_eq!((left.mode() & 0o170_000, left.rdev()), (0o020_000, 0));
    }
    assert_eq!(fs::create_dir(at(&"n".repeat(256))).unwrap_err().raw_os_error(), Some(36));
    // Attributes.
    let create = XattrFlags::CREATE;
    rustix::fs::setxattr(at("named"), "user.a", b"1", create).unwrap();
    let again = rustix::fs::setxattr(at("named"), "user.a", b"1", create);
    assert_eq!(again.unwrap_err(), rustix::io::Errno::EXIST);
    assert!(fs::metadata(at("named")).unwrap().created().is_ok(), "it has a time of birth");
    let copied = File::create(at("copy")).unwrap();
    let from = File::open(at("other")).unwrap();
    assert_eq!(rustix::fs::copy_file_range(&from, None, &copied, None, 100).unwrap(), 5);
    drop((unnamed, sparse, copied, from));
    mounted.unmount();
}

/// Who writes without the right to set them takes set-user and set-group bits away, whoever opened the file; root does not.
#[test]
fn set_user_bits_go_with_who_writes() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to become somebody else");
    }
    let (_scratch, image, point) = prepared("mount-bits", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let write_as = |user: u32, file: File| {
        let mut echo = Command::new("/bin/echo");
        assert!(echo.arg("x").uid(user).gid(user).stdout(file).status().unwrap().success());
    };
    let path = mounted.path("f");
    let set = || fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    fs::write(&path, b"program").unwrap();
    set();
    write_as(0, File::options().append(true).open(&path).unwrap());
    assert_eq!(mode(), 0o6777, "root writes");
    write_as(NOBODY, File::options().append(true).open(&path).unwrap());
    assert_eq!(mode(), 0o777, "another writes what root has opened");
    set();
    // Cut when it is opened, which is a request of its own.
    let mut shell = Command::new("/bin/sh");
    let cut = shell.args(["-c", ": > f"]).current_dir(&mounted.point).uid(NOBODY).gid(NOBODY);
    assert!(cut.status().unwrap().success());
    assert_eq!(mode(), 0o777, "another cuts it");
    mounted.unmount();
}

#[test]
fn every_name_of_a_large_directory_is_listed_once() {
    let (_scratch, image, point) = prepared("mount-many", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let names: BTreeSet<String> = (0..5000).map(|n| format!("name-{n}")).collect();
    fs::create_dir(mounted.path("d")).unwrap();
    for name in &names {
        File::create(mounted.path("d").join(name)).unwrap();
    }
    let listed: Vec<String> = fs::read_dir(mounted.path("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed.len(), names.len());
    assert!(listed.into_iter().collect::<BTreeSet<_>>() == names);
    // Removing what was listed leaves nothing.
    fs::remove_dir_all(mounted.path("d")).unwrap();
    mounted.unmount();
}

/// What was synced is there when the server has died; the second mount recovers the journal.
#[test]
fn a_server_that_is_killed_loses_nothing_that_was_synced() {
    let (_scratch, image, point) = prepared("mount-kill", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    for n in 0..50 {
        let mut file = File::create(mounted.path(&format!("f{n}"))).unwrap();
        file.write_all(&[n; 10_000]).unwrap();
        if n % 5 == 0 {
            file.sync_all().unwrap();
        }
    }
    mounted.kill();
    let mounted = Mounted::new(&image, &point, "").unwrap();
    for n in (0..50).step_by(5) {
        assert!(fs::read(mounted.path(&format!("f{n}"))).unwrap() == [n; 10_000], "f{n}");
    }
    mounted.unmount();
}

/// `O_DSYNC` and `O_SYNC`, through the kernel's cache and past it.
#[test]
fn a_write_that_syncs_is_there_after_the_server_was_killed() {
    let (_scratch, image, point) = prepared("mount-dsync", "64M");
    let flags = [OFlags::DSYNC, OFlags::SYNC, OFlags::DSYNC | OFlags::DIRECT];
    let Some(mounted) = Mounted::new(&image, &point, "commit=1000") else { return };
    for (n, flags) in flags.into_iter().enumerate() {
        let flags = flags | OFlags::WRONLY | OFlags::CREATE;
        let path = mounted.path(&format!("f{n}"));
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR).unwrap());
        file.write_all_at(&[5; 8192], 0).unwrap();
    }
    mounted.kill();
    let mounted = Mounted::new(&image, &point, "").unwrap();
    for n in 0..flags.len() {
        assert!(fs::read(mounted.path(&format!("f{n}"))).unwrap() == [5; 8192], "f{n}");
    }
    mounted.unmount();
}

/// The commit timer is the server's own, since `sync(2)` does not reach it.
#[test]
fn what_was_written_back_is_committed_without_being_asked() {
    let (_scratch, image, point) = prepared("mount-timer", "64M");
    let options = "commit=1,dirty_expire_centisecs=0,dirty_writeback_centisecs=50";
    let Some(mounted) = Mounted::new(&image, &point, options) else { return };
    fs::write(mounted.path("f"), [7; 10_000]).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    mounted.kill();
    let mounted = Mounted::new(&image, &point, "").unwrap();
    assert!(fs::read(mounted.path("f")).unwrap() == [7; 10_000]);
    mounted.unmount();
}

#[test]
fn a_full_image_is_told_by_write_and_what_was_written_stays() {
    let (_scratch, image, point) = prepared("mount-full", "16M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let file = File::create(mounted.path("f")).unwrap();
    let mut end = 0;
    let error = loop {
        match file.write_at(&[9; 4096], end) {
            Ok(count) => end += u64::try_from(count).unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(28)); // ENOSPC
    file.sync_all().unwrap();
    drop(file);
    assert!(end > 8 << 20);
    assert!(fs::read(mounted.path("f")).unwrap().iter().all(|byte| *byte == 9));
    mounted.unmount();
}

#[test]
fn it_goes_into_the_background_once_it_is_mounted_and_a_signal_ends_it() {
    let (_scratch, image, point) = prepared("mount-back", "64M");
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return skip("no /dev/fuse");
    }
    fs::create_dir(&point).unwrap();
    ok([Path::new("mount"), &image, &point]);
    fs::write(point.join("f"), b"bytes").unwrap();
    fails([Path::new("mount"), &image, &point], 3, "disk.img");
    umount(&point);
    check(&image);
    let mut mounted = Mounted::new(&image, &point, "").unwrap();
    assert_eq!(fs::read(mounted.path("f")).unwrap(), b"bytes");
    let server = rustix::process::Pid::from_child(&mounted.server);
    rustix::process::kill_process(server, rustix::process::Signal::TERM).unwrap();
    assert!(mounted.server.wait().unwrap().success());
    check(&image);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_mounted() {
    let (scratch, image, point) = prepared("mount-wrong", "64M");
    fs::create_dir(&point).unwrap();
    let words = |arguments: &[&str], code, part| fails(arguments, code, part);
    let (disk, dir) = (image.to_str().unwrap(), point.to_str().unwrap());
    words(&["mount", "-o", "nonsense", disk, dir], 2, "nonsense");
    words(&["mount", "-o", "cache=many", disk, dir], 2, "many");
    words(&["mount", "none.img", dir], 3, "none.img");
    words(&["mount", disk, &format!("{dir}/none")], 1, "none");
    words(&["mount", disk, disk], 2, "not a directory");
    fs::write(scratch.path("text"), "no image").unwrap();
    words(&["mount", scratch.path("text").to_str().unwrap(), dir], 3, "text");
    assert!(!extant(["umount", dir]).status.success());
    check(&image);
}

/// An ordinary user mounts with the help of fusermount3, and owns what he makes.
#[test]
fn an_ordinary_user_mounts_too() {
    let Some(nobody) = Nobody::new("mount-user") else { return };
    let Nobody { image, point, program, .. } = &nobody;
    let status = nobody.command(program).arg("mount").args([image, point]).status().unwrap();
    assert!(status.success());
    let script = "echo his > his && ln his also && mkdir d && mv also d/ && cat d/also";
    assert_eq!(nobody.shell(script), "his\n");
    let status = nobody.command(program).arg("umount").arg(point).status().unwrap();
    assert!(status.success());
    check(image);
    let told = ok(["stat", "-c", "%u %h", &format!("{}:/his", image.display())]);
    assert_eq!(told.trim(), format!("{NOBODY} 2"));
}

/// The kernel believes for an hour what it was told: what changes by another name, descriptor or process is not told anew.
#[test]
fn what_the_kernel_may_believe_is_never_stale() {
    for options in ["", "writeback"] {
        let (_scratch, image, point) = prepared("mount-fresh", "64M");
        let Some(mounted) = Mounted::new(&image, &point, options) else { return };
        let at = |name: &str| mounted.path(name);
        let shell = |script: &str| {
            let mut shell = Command::new("/bin/sh");
            assert!(shell.args(["-c", script]).current_dir(&point).status().unwrap().success());
        };
        let metadata = |name: &str| fs::metadata(at(name)).unwrap();
        // Bytes that were read through one descriptor and changed through another, which only writes, within pages and across.
        fs::write(at("f"), vec![1; 300_000]).unwrap();
        let reader = File::open(at("f")).unwrap();
        let mut bytes = vec![0; 300_000];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        let writer = File::options().write(true).open(at("f")).unwrap();
        for (start, len) in [(0, 1), (4000, 200), (70_000, 4096), (100_001, 131_072)] {
            writer.write_all_at(&vec![2; len], start).unwrap();
            let from = usize::try_from(start).unwrap();
            bytes[from..from + len].fill(2);
            let mut now = vec![0; 300_000];
            reader.read_exact_at(&mut now, 0).unwrap();
            assert!(now == bytes, "{start} {len}");
        }
        // Times after a write through another descriptor, and the size after another process has appended or cut.
        let before = metadata("f").modified().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all_at(b"x", 5).unwrap();
        assert!(metadata("f").modified().unwrap() > before);
        shell("printf appended >> f; printf more >> f");
        assert_eq!(metadata("f").len(), 300_012);
        let mut end = [0; 12];
        reader.read_exact_at(&mut end, 300_000).unwrap();
        assert_eq!(&end, b"appendedmore");
        shell(": > f");
        assert_eq!((metadata("f").len(), reader.read_at(&mut end, 0).unwrap()), (0, 0));
        // Links that another name took away, and a name that was not there.
        fs::hard_link(at("f"), at("g")).unwrap();
        assert_eq!(metadata("f").nlink(), 2);
        shell("rm g");
        assert_eq!(metadata("f").nlink(), 1);
        assert!(fs::metadata(at("g")).is_err());
        shell("echo new > g");
        assert_eq!(fs::read(at("g")).unwrap(), b"new\n");
        // A file that was renamed over: its descriptor keeps it.
        let old = File::open(at("g")).unwrap();
        shell("echo newer > h; mv h g");
        assert_eq!(fs::read(at("g")).unwrap(), b"newer\n");
        assert_eq!(old.metadata().unwrap().nlink(), 0);
        let mut kept = [0; 4];
        old.read_exact_at(&mut kept, 0).unwrap();
        assert_eq!(&kept, b"new\n");
        // Mode and owner, and a directory's links and times.
        shell("mkdir d; chmod 600 g");
        assert_eq!(metadata("g").mode() & 0o777, 0o600);
        let links = metadata("d").nlink();
        shell("mkdir d/e");
        assert_eq!(metadata("d").nlink(), links + 1);
        drop((reader, writer, old));
        mounted.unmount();
    }
}

/// Clean data that the kernel has read is not kept twice: not beyond the cache's limit, nor up to it.
#[test]
fn a_mount_takes_bounded_memory() {
    let (_scratch, image, point) = prepared("mount-memory", "320M");
    let Some(mounted) = Mounted::new(&image, &point, "cache=8M") else { return };
    let most = |mounted: &Mounted| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", mounted.server.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        most.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let piece = vec![3; 1 << 20];
    let mut file = File::create(mounted.path("f")).unwrap();
    (0..256).for_each(|_| file.write_all(&piece).unwrap());
    drop(file);
    assert!(most(&mounted) < (8 + 64) << 10, "{} KiB", most(&mounted));
    mounted.unmount();
    let mounted = Mounted::new(&image, &point, "cache=256M").unwrap();
    assert_eq!(fs::read(mounted.path("f")).unwrap().len(), 256 << 20);
    assert!(most(&mounted) < 64 << 10, "{} KiB", most(&mounted));
    mounted.unmount();
}

#[cfg(target_env = "gnu")]
#[test]
fn a_server_is_told_how_to_keep_its_memory_unless_somebody_has_said_so() {
    const NAME: &str = "GLIBC_TUNABLES";
    for (chosen, expected) in [(None, "glibc.malloc.arena_max=2"), (Some(""), "")] {
        let (_scratch, image, point) = prepared("mount-memory", "16M");
        let mut program = Command::new(env!("CARGO_BIN_EXE_extant"));
        program.env_remove(NAME).envs(chosen.map(|chosen| (NAME, chosen)));
        let Some(mounted) = Mounted::by(program, &image, &point, "nosandbox") else { return };
        let told = fs::read(format!("/proc/{}/environ", mounted.server.id())).unwrap();
        let told = String::from_utf8_lossy(&told);
        let value = told.split('\0').find_map(|line| line.strip_prefix(NAME)?.strip_prefix('='));
        assert!(
            value.unwrap().starts_with(expected)
                && value.unwrap().is_empty() == expected.is_empty()
        );
        mounted.unmount();
    }
}
