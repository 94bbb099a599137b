//! `extant mount -o io_uring`: what programs do on it, when requests come through the kernel's queues.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::check;
use common::mounted::{Mounted, prepared};
use common::tree::{compare, make_tree};
use extant_testkit::oracle::KernelMount;
use extant_testkit::{FuseQueues, skip};
use rustix::process::{Pid, Signal};

/// Switches queues on; `None`, after a skip, where there are none.
fn switched_on() -> Option<FuseQueues> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root, to switch queues on");
        return None;
    }
    FuseQueues::switch_on()
}

/// Mounts, and expects that the server has rings.
fn mounted(image: &Path, point: &Path, options: &str) -> Option<Mounted> {
    let mounted = Mounted::new(image, point, options)?;
    assert!(rings(&mounted) > 0, "{options}: it has no rings");
    Some(mounted)
}

fn rings(mounted: &Mounted) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", mounted.server.id())).unwrap().flatten();
    let names = open.filter_map(|open| fs::read_link(open.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("io_uring")).count()
}

#[test]
fn a_tree_of_everything_is_the_same_through_queues() {
    let Some(_queues) = switched_on() else { return };
    let all = ["", ",writeback", ",io_uring_q_depth=1,nosandbox", ",data=journal,noloop"];
    for options in all.map(|more| format!("io_uring{more}")) {
        let (scratch, image, point) = prepared("queues-tree", "256M");
        let Some(first) = mounted(&image, &point, &options) else { return };
        let plain = scratch.path("plain");
        make_tree(&plain);
        let copied = Command::new("cp").arg("-a").args([&plain, &first.path("tree")]).status();
        assert!(copied.unwrap().success());
        compare(&plain, &first.path("tree"));
        first.unmount();
        if let Some(kernel) = KernelMount::new(&image, &scratch.path("kernel"), "ro") {
            compare(&plain, &kernel.root().join("tree"));
            kernel.unmount().unwrap();
        }
        // What no cache knows, by requests of all lengths.
        let again = mounted(&image, &point, "ro,io_uring").unwrap();
        compare(&plain, &again.path("tree"));
        // By umount(8), which knows nothing of it.
        let mut again = again;
        assert!(Command::new("umount").arg(&point).status().unwrap().success());
        assert!(again.server.wait().unwrap().success());
        check(&image);
    }
}

/// Bytes that tell of whom and where they are.
fn bytes(client: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| client.wrapping_mul(31) ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect()
}

/// Creates, writes, reads, renames, syncs, removes.
fn work(mounted: &Mounted, client: u8) {
    let at = |name: &str| mounted.path(&format!("c{client}/{name}"));
    fs::create_dir(at("")).unwrap();
    for round in 0..6 {
        let (name, kept) = (at(&format!("new-{round}")), at(&format!("kept-{round}")));
        // Of one request, of several, and of odd lengths.
        let bytes = bytes(client, [1, 4096, 70_000, 1 << 20, (1 << 20) + 1, 5_000_003][round]);
        let file = File::options().read(true).write(true).create_new(true).open(&name).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.write_all_at(&bytes, 1 << 24).unwrap();
        file.sync_all().unwrap();
        fs::rename(&name, &kept).unwrap();
        drop(file);
        // The kernel's cache drops it, so that the server is asked.
        let file = File::open(&kept).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 1 << 24).unwrap();
        assert!(read == bytes, "{client} {round}");
        for n in 0..50 {
            fs::write(at(&format!("small-{n}")), format!("{client} {n}")).unwrap();
        }
        assert_eq!(fs::read_dir(at("")).unwrap().count(), 51 + round);
        for n in 0..50 {
            let name = at(&format!("small-{n}"));
            assert_eq!(fs::read_to_string(&name).unwrap(), format!("{client} {n}"));
            fs::remove_file(name).unwrap();
        }
    }
    File::open(at("")).unwrap().sync_all().unwrap();
}

fn expect_work(mounted: &Mounted, clients: u8) {
    for client in 0..clients {
        for (round, len) in [1, 4096, 70_000, 1 << 20, (1 << 20) + 1, 5_000_003].iter().enumerate()
        {
            let found = fs::read(mounted.path(&format!("c{client}/kept-{round}"))).unwrap();
            let bytes = bytes(client, *len);
            assert!(found[..*len] == bytes && found[1 << 24..] == bytes, "{client} {round}");
        }
    }
}

#[test]
fn several_clients_at_once_find_what_they_have_written_also_after_the_server_was_killed() {
    let Some(_queues) = switched_on() else { return };
    let (_scratch, image, point) = prepared("queues-clients", "1G");
    let Some(first) = mounted(&image, &point, "io_uring,cache=8M") else { return };
    std::thread::scope(|scope| {
        (0..8).for_each(|client| {
            drop(scope.spawn({
                let first = &first;
                move || work(first, client)
            }))
        });
    });
    expect_work(&first, 8);
    // In the midst of requests.
    std::thread::scope(|scope| {
        let point = &first.point;
        let busy = |n: u32| {
            let dir = point.join(format!("busy-{n}"));
            while fs::create_dir(&dir).and_then(|()| fs::remove_dir(&dir)).is_ok() {}
        };
        (0..4).for_each(|n| drop(scope.spawn(move || busy(n))));
        std::thread::sleep(std::time::Duration::from_millis(200));
        rustix::process::kill_process(Pid::from_child(&first.server), Signal::KILL).unwrap();
    });
    first.kill();
    let again = mounted(&image, &point, "io_uring").unwrap();
    expect_work(&again, 8);
    again.unmount();
}

#[test]
fn a_signal_ends_a_mount_with_queues() {
    let Some(_queues) = switched_on() else { return };
    let (_scratch, image, point) = prepared("queues-signal", "64M");
    let Some(mut first) = mounted(&image, &point, "io_uring") else { return };
    fs::write(first.path("f"), [7; 100_000]).unwrap();
    rustix::process::kill_process(Pid::from_child(&first.server), Signal::TERM).unwrap();
    assert!(first.server.wait().unwrap().success());
    check(&image);
    let again = mounted(&image, &point, "io_uring").unwrap();
    assert!(fs::read(again.path("f")).unwrap() == [7; 100_000]);
    again.unmount();
}

#[test]
fn where_the_kernel_has_no_queues_a_line_says_so_and_the_device_serves() {
    let Some(queues) = switched_on() else { return };
    queues.pause(true);
    let (_scratch, image, point) = prepared("queues-none", "64M");
    let mut program = Command::new(env!("CARGO_BIN_EXE_extant"));
    program.stderr(Stdio::piped());
    let Some(mut mounted) = Mounted::by(program, &image, &point, "io_uring") else { return };
    assert_eq!(rings(&mounted), 0);
    fs::write(mounted.path("f"), "text").unwrap();
    let mut words = mounted.server.stderr.take().unwrap();
    mounted.unmount();
    let mut said = String::new();
    words.read_to_string(&mut said).unwrap();
    assert!(said.contains("enable_uring"), "{said}");
}
