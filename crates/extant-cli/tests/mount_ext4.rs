//! `extant mount` beside a kernel mount: flags, locks, errors, and what `mount -o` asks for.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::mounted::{Mounted, NOBODY, prepared, wait_until};
use common::{check, extant, fails, ok};
use extant_testkit::oracle::{self, KernelMount};
use extant_testkit::skip;

/// What a shell prints in a directory, standard error with it, and without the program's own name for it.
fn shell(directory: &Path, user: u32, script: &str) -> String {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("exec 2>&1; {script}")]).current_dir(directory);
    if user != 0 {
        shell.uid(user).gid(user);
    }
    String::from_utf8(shell.output().unwrap().stdout).unwrap()
}

/// Runs a script on a mount of ours and on one of the kernel's, which must print the same, and returns it. `None` after a
/// skip, where one of them cannot be had.
fn as_the_kernel(name: &str, size: &str, script: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        skip("a script beside the kernel: needs root");
        return None;
    }
    let (scratch, image, point) = prepared(name, size);
    let copy = scratch.path("kernel.img");
    fs::copy(&image, &copy).unwrap();
    let kernel = KernelMount::new(&copy, &scratch.path("kernel"), "")?;
    let mounted = Mounted::new(&image, &point, "")?;
    let run = |root: &Path| shell(root, 0, script);
    let (ours, wanted) = (run(&mounted.point), run(kernel.root()));
    assert_eq!(ours, wanted, "ours, and the kernel's");
    mounted.unmount();
    kernel.unmount().unwrap();
    Some(ours)
}

/// Each letter of chattr(1), set and taken away, on a file, a directory and a fifo. Of `j` a kernel asks for a capability that
/// root need not have.
#[test]
fn chattr_and_lsattr_say_what_they_say_on_the_kernels_mount() {
    let script = "
        echo text > f; mkdir d; mkfifo p; echo > other
        for name in f d p; do
            for letter in a A c C d D i m P s S t T u x F; do
                chattr +$letter $name; echo \"+$letter $name $?\"; lsattr -d $name | cut -d' ' -f1
                chattr -$letter $name; echo \"-$letter $name $?\"; lsattr -d $name | cut -d' ' -f1
            done
        done
        chattr +i f; chattr +d f; echo $?; chattr -i f; chattr +iad f; echo $?; lsattr f; chattr -ia f; lsattr -p f
        lsattr -v f | wc -c; chattr -p 5 f; echo $?";
    let Some(said) = as_the_kernel("mount-chattr", "64M", script) else { return };
    assert!(said.contains("----i---------e-------"), "{said}");
}

/// What is immutable or append-only refuses what it refuses on a kernel mount, to root too.
/// Whoever sets no flag at all asks for another map too, which is refused; what could be taken away is, as in the kernel.
#[test]
fn flags_are_set_although_the_map_stays_as_it_is() {
    let (_scratch, image, point) = prepared("mount-map-flag", "16M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let script = "echo > f && chattr +ia f; lsattr f; chattr =d f; lsattr f; rm f";
    let told = shell(&mounted.point, 0, script);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("----ia---"), "{told}");
    assert!(lines[1].contains("Operation not supported"), "{told}");
    assert!(lines[2].starts_with("------d--") && lines[2].contains('e'), "{told}");
    assert_eq!(lines.len(), 3, "{told}");
    mounted.unmount();
}

#[test]
fn immutable_and_append_only_refuse_what_the_kernel_refuses() {
    let script = "
        say() { echo \"$* = $?\"; }
        mkdir d a; for n in i a; do echo text > $n.file; done; echo x > d/in; echo x > a/in; echo free > free
        chattr +i i.file d; chattr +a a.file a
        for f in i.file a.file; do
            echo more >> $f; say append $f
            echo other > $f; say cut $f
            dd if=/dev/zero of=$f bs=1 count=1 conv=notrunc status=none; say overwrite $f
            truncate -s 0 $f; say truncate $f; truncate -s 9000 $f; say grow $f
            fallocate -o 0 -l 9000 -n $f; say allocate $f; fallocate -p -o 0 -l 2 $f; say punch $f
            ln $f link; say link $f; mv $f moved; say rename $f; rm -f $f; say remove $f; mv free $f; say over $f
            chmod 600 $f; say chmod $f; chown 5 $f; say chown $f; touch $f; say touch $f; touch -d 2001-01-01 $f; say date $f
            cat $f; say read $f; cp free $f; say copy $f; mv --exchange free $f 2>/dev/null; cat free
        done
        for d in d a; do
            echo new > $d/new; say make $d; mkdir $d/sub; say mkdir $d; rm -f $d/in; say remove $d; ln free $d/ln; say link $d
            mv $d/in $d/out; say rename $d; mv free $d/; say into $d; mv $d/in .; say out $d; rmdir $d; say rmdir $d
            mv $d moved; say move $d; echo more >> $d/in; say write in $d; touch $d; say touch $d; ls $d
        done
        lsattr -d i.file a.file d a; chattr -i i.file d; chattr -a a.file a; rm -rf i.file a.file d a; say all gone; ls";
    let Some(said) = as_the_kernel("mount-fixed", "64M", script) else { return };
    assert!(said.contains("append i.file = 2") && said.contains("append a.file = 0"), "{said}");
}

/// Opens that were made before a file became immutable are refused at the write, and an ordinary user sets no such flag.
#[test]
fn flags_hold_for_files_that_are_open_and_are_for_root() {
    let script = "
        echo text > f; chmod 666 f; exec 3>>f; chattr +i f; echo more >&3; echo $?; chattr -i f; echo again >&3; cat f; exec 3>&-
        chmod 777 .; setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'echo his > his; chattr +i his; echo $?; chattr +d his; echo $?; chattr +j his; echo $?; chattr +d f; echo $?'
        lsattr his | cut -d' ' -f1";
    as_the_kernel("mount-flags", "64M", script);
}

/// With `-o writeback` the kernel brings whole pages later: bytes that were accepted get through whatever the flags say then.
#[test]
fn pages_that_the_kernel_kept_are_written_whatever_the_flags_are_now() {
    let (_scratch, image, point) = prepared("mount-kept", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "writeback") else { return };
    let script = "
        echo 1 > a; echo 1 > i; sync a i; exec 3>>a 4>>i; chattr +a a; echo 2 >&3; echo 2 >&4; chattr +i i
        sync a i; echo $?; cat a i; echo 3 >&4; echo 3 >&3; sync a; echo $?; chattr -i i; chattr -a a";
    let said = shell(&mounted.point, 0, script);
    assert!(said.starts_with("0\n1\n2\n1\n2\n") && said.ends_with("0\n"), "{said}");
    mounted.unmount();
    assert_eq!(ok(["cat", &format!("{}:/a", image.display())]), "1\n2\n3\n");
    assert!(ok(["cat", &format!("{}:/i", image.display())]).starts_with("1\n2\n"));
}

/// The time of a change of flags is seen at once, though the kernel may believe attributes for an hour.
#[test]
fn a_change_of_flags_moves_the_time_of_change() {
    let (_scratch, image, point) = prepared("mount-ctime", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    fs::write(mounted.path("f"), b"text").unwrap();
    let changed = || {
        let found = fs::metadata(mounted.path("f")).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let before = changed();
    std::thread::sleep(std::time::Duration::from_millis(30));
    let status = Command::new("chattr").arg("+d").arg(mounted.path("f")).status();
    assert!(status.unwrap().success());
    assert!(changed() > before);
    mounted.unmount();
}

#[test]
fn projects_are_set_inherited_and_stored() {
    let (_scratch, image, point) = prepared("mount-project", "64M");
    if oracle::mkfs(&image, 64 << 20, &["-O", "project", "-I", "256"]).is_none() {
        return;
    }
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let said = shell(
        &mounted.point,
        0,
        "mkdir d; chattr -p 7 d && chattr +P d && echo x > d/f && lsattr -p d/f | cut -c1-6; echo x > g; ln g d/g; echo $?",
    );
    assert!(said.starts_with("    7 ") && said.ends_with("1\n"), "{said}");
    mounted.unmount();
    if let Some(told) = oracle::debugfs(&image, "stat /d/f") {
        assert!(told.contains("Project:     7"), "{told}");
    }
}

#[test]
fn fstrim_gives_free_space_back() {
    let (_scratch, image, point) = prepared("mount-trim", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    fs::write(mounted.path("f"), vec![7; 20 << 20]).unwrap();
    File::open(mounted.path("f")).unwrap().sync_all().unwrap();
    fs::remove_file(mounted.path("f")).unwrap();
    let allocated = || fs::metadata(&image).unwrap().blocks() * 512;
    let before = allocated();
    if !oracle::has("fstrim") {
        return skip("no fstrim");
    }
    // The file's blocks are free once the kernel has told that it forgot the file, for which nobody waits.
    wait_until(|| {
        File::open(&mounted.point).unwrap().sync_all().unwrap();
        let output = oracle::run("fstrim", &["-v", point.to_str().unwrap()]).unwrap();
        assert!(output.status.success(), "{}", oracle::text(&output));
        allocated() + (19 << 20) < before
    });
    mounted.unmount();
}

/// An attribute of a file by its name.
fn attribute(path: &Path, name: &str) -> String {
    let mut bytes = vec![0; 64 << 10];
    let len = rustix::fs::getxattr(path, name, &mut bytes[..]).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn a_mount_tells_of_itself_by_attributes_that_no_list_has() {
    let (_scratch, image, point) = prepared("mount-private", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let file = File::create(mounted.path("f")).unwrap();
    file.write_all_at(&[7; 8192], 0).unwrap();
    file.write_all_at(&[7; 4096], 1 << 20).unwrap();
    assert!(attribute(&mounted.path("f"), "extant.map").contains(" - 8192 delayed\n"));
    file.sync_all().unwrap();
    let map = attribute(&mounted.path("f"), "extant.map");
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 2, "{map}");
    assert_eq!((lines[0][0], lines[0][2], lines[0][3]), ("0", "8192", "written"));
    assert_eq!(
        attribute(&mounted.path("f"), "extant.map.8192"),
        format!("{}\n", lines[1].join(" "))
    );
    let shown = ok(["map", mounted.path("f").to_str().unwrap()]);
    assert!(shown.contains("2 extents") && shown.contains(lines[1][1]), "{shown}");
    let told = common::json(["map", "--json", mounted.path("f").to_str().unwrap()]);
    assert_eq!((&told[0]["bytes"], &told[1]["offset"]), (&8192.into(), &(1 << 20).into()));
    let place: u64 = lines[1][1].parse().unwrap();
    let mut found = [0; 4096];
    File::open(&image).unwrap().read_exact_at(&mut found, place).unwrap();
    assert_eq!(found, [7; 4096]);
    let told = common::json(["info", "--json", image.to_str().unwrap()]).to_string();
    assert!(told.contains(&attribute(&point, "extant.uuid")), "{told}");
    assert_eq!(rustix::fs::listxattr(mounted.path("f"), &mut [0_u8; 0][..]).unwrap(), 0);
    let none = rustix::fs::getxattr(&point, "extant.nothing", &mut [0_u8; 8][..]);
    assert_eq!(none.unwrap_err(), rustix::io::Errno::NODATA);
    drop(file);
    mounted.unmount();
}

#[test]
fn the_label_is_read_and_set() {
    let (_scratch, image, point) = prepared("mount-label", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let script = "
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x41009432, b'new name'.ljust(256, b'\\0'))
print(fcntl.ioctl(fd, 0x81009431, bytes(256)).split(b'\\0')[0].decode())
try: fcntl.ioctl(fd, 0x41009432, b'much too long a name'.ljust(256, b'\\0'))
except OSError as error: print(error.errno)";
    let arguments = ["-c", script, point.to_str().unwrap()];
    let Some(output) = oracle::run("python3", &arguments) else { return skip("no python3") };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "new name\n22\n", "{output:?}");
    mounted.unmount();
    let told = ok(["info", image.to_str().unwrap()]);
    assert!(told.contains("new name"), "{told}");
}

#[test]
fn copies_within_a_mount_are_whole_sparse_and_end_with_their_source() {
    let (_scratch, image, point) = prepared("mount-copy", "256M");
    for options in ["", "writeback"] {
        let Some(mounted) = Mounted::new(&image, &point, options) else { return };
        let from = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(mounted.path("from"))
            .unwrap();
        let bytes: Vec<u8> = (0..70 << 20).map(|at: u32| (at % 251).to_le_bytes()[0]).collect();
        from.write_all_at(&bytes, 0).unwrap();
        from.write_all_at(&[9; 5000], (80 << 20) + 77).unwrap();
        from.set_len(90 << 20).unwrap();
        let to = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(mounted.path("to"))
            .unwrap();
        to.write_all_at(&[1; 4096], 75 << 20).unwrap();
        let (mut at, mut to_at) = (0, 0);
        loop {
            let wanted = 1 << 30;
            match rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), wanted)
                .unwrap()
            {
                0 => break,
                count => assert!(count <= 64 << 20),
            }
        }
        assert_eq!((at, to_at), (90 << 20, 90 << 20));
        assert!(fs::read(mounted.path("from")).unwrap() == fs::read(mounted.path("to")).unwrap());
        let used = to.metadata().unwrap().blocks() * 512;
        assert!(used < 72 << 20, "{used}");
        // In one file, and within a block.
        let (mut at, mut to_at) = (3, (85 << 20) + 5);
        let count =
            rustix::fs::copy_file_range(&to, Some(&mut at), &to, Some(&mut to_at), 1000).unwrap();
        let mut found = vec![0; 1000];
        to.read_exact_at(&mut found, (85 << 20) + 5).unwrap();
        assert!(count == 1000 && found == bytes[3..1003]);
        drop((from, to));
        mounted.unmount();
    }
}

/// One kernel keeps the locks of all processes on a mount; the server need not know of them.
#[test]
fn locks_hold_between_processes() {
    let (_scratch, image, point) = prepared("mount-locks", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let file = File::create(mounted.path("f")).unwrap();
    let path = mounted.path("f");
    let free = |command: &[&str]| {
        let output = oracle::run(command[0], &command[1..])?;
        Some(output.status.success())
    };
    let flock = ["flock", "-n", path.to_str().unwrap(), "true"];
    let script =
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let lockf = ["python3", "-c", script, path.to_str().unwrap()];
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_ne!(free(&flock), Some(true));
    assert_ne!(free(&lockf), Some(false), "they are locks of two kinds");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
    assert_ne!(free(&flock), Some(false));
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_ne!(free(&lockf), Some(true));
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
    assert_ne!(free(&lockf), Some(false));
    drop(file);
    mounted.unmount();
}

/// Whether a mount has a loop device, so that the kernel waits for its server.
fn waits(mounted: &Mounted) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .any(|line| line.contains(mounted.point.to_str().unwrap()) && line.contains("fuseblk"))
}

#[test]
fn umount_of_the_kernel_returns_when_the_image_is_whole() {
    let (_scratch, image, point) = prepared("mount-umount", "256M");
    let Some(mut mounted) = Mounted::new(&image, &point, "") else { return };
    if !waits(&mounted) {
        return skip("no loop device for a mount");
    }
    for n in 0..200 {
        fs::write(mounted.path(&format!("f{n}")), vec![7; 100_000]).unwrap();
    }
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    // At once, since a server that ends later leaves the image whole too: the superblock's `needs_recovery`.
    let mut incompat = [0; 4];
    File::open(&image).unwrap().read_exact_at(&mut incompat, 1024 + 0x60).unwrap();
    assert_eq!(u32::from_le_bytes(incompat) & 4, 0, "the journal has to be recovered");
    check(&image);
    assert!(mounted.server.wait().unwrap().success());
    let attached = oracle::run("losetup", &["-j", image.to_str().unwrap()]).unwrap();
    assert_eq!(String::from_utf8_lossy(&attached.stdout), "");
}

#[test]
fn sync_of_the_kernel_reaches_the_image() {
    let (_scratch, image, point) = prepared("mount-sync", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "commit=1000") else { return };
    if !waits(&mounted) {
        return skip("no loop device for a mount");
    }
    fs::write(mounted.path("f"), [7; 10_000]).unwrap();
    rustix::fs::syncfs(File::open(&point).unwrap()).unwrap();
    mounted.kill();
    let mounted = Mounted::new(&image, &point, "").unwrap();
    assert!(fs::read(mounted.path("f")).unwrap() == [7; 10_000]);
    mounted.unmount();
}

/// A file of more runs than an attribute has room for.
#[test]
fn a_map_of_many_runs_comes_in_parts() {
    let (_scratch, image, point) = prepared("mount-runs", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let file = File::create(mounted.path("f")).unwrap();
    for n in 0..4000 {
        file.write_all_at(&[7; 4096], n * 8192).unwrap();
    }
    file.sync_all().unwrap();
    let told = common::json(["map", "--json", mounted.path("f").to_str().unwrap()]);
    let offsets: Vec<_> =
        told.as_array().unwrap().iter().map(|run| run["offset"].as_u64().unwrap()).collect();
    assert!(offsets.into_iter().eq((0..4000).map(|n| n * 8192)));
    drop(file);
    mounted.unmount();
}

/// A block device gets a loop device of its own for the mount.
#[test]
fn a_block_device_is_mounted_like_an_image() {
    let (_scratch, image, point) = prepared("mount-device", "64M");
    let Some(output) = oracle::run("losetup", &["--find", "--show", image.to_str().unwrap()])
    else {
        return skip("no losetup");
    };
    if !output.status.success() {
        return skip("no loop device");
    }
    let device = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    if let Some(mut mounted) = Mounted::new(Path::new(&device), &point, "") {
        fs::write(mounted.path("f"), b"bytes").unwrap();
        assert!(waits(&mounted));
        common::mounted::umount(&point);
        assert!(mounted.server.wait().unwrap().success());
    }
    assert!(oracle::run("losetup", &["--detach", &device]).unwrap().status.success());
    check(&image);
    assert_eq!(ok(["cat", &format!("{}:/f", image.display())]), "bytes");
}

/// `-o sync`: what was written, and its name, is there after the server was killed.
#[test]
fn a_synchronous_mount_has_everything_on_the_image() {
    let (_scratch, image, point) = prepared("mount-synchronous", "64M");
    for options in ["sync,commit=1000", "sync,commit=1000,noloop"] {
        let Some(mounted) = Mounted::new(&image, &point, options) else { return };
        fs::write(mounted.path("f"), options).unwrap();
        fs::create_dir(mounted.path("d")).unwrap();
        mounted.kill();
        let mounted = Mounted::new(&image, &point, "dirsync,commit=1000").unwrap();
        assert_eq!(fs::read(mounted.path("f")).unwrap(), options.as_bytes());
        fs::remove_dir(mounted.path("d")).unwrap();
        mounted.kill();
        let mounted = Mounted::new(&image, &point, "").unwrap();
        assert!(!mounted.path("d").exists());
        mounted.unmount();
    }
}

/// An image whose directory `d` is damaged.
fn damaged(name: &str) -> Option<(extant_testkit::oracle::Scratch, PathBuf, PathBuf)> {
    let (scratch, image, point) = prepared(name, "64M");
    ok(["mkdir", &format!("{}:/d", image.display())]);
    ok(["mkdir", &format!("{}:/e", image.display())]);
    let blocks = oracle::debugfs(&image, "blocks /d")?;
    let block: u64 = blocks.split_whitespace().next()?.parse().ok()?;
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0xA5; 100], block * 4096 + 24).unwrap();
    Some((scratch, image, point))
}

#[test]
fn errors_does_what_it_says_when_damage_is_found() {
    let Some((_scratch, image, point)) = damaged("mount-errors") else { return skip("no debugfs") };
    for (options, code) in [("errors=continue", None), ("errors=remount-ro", Some(30))] {
        let Some(mounted) = Mounted::new(&image, &point, options) else { return };
        fs::write(mounted.path("f"), options).unwrap();
        assert!(fs::read_dir(mounted.path("d")).unwrap().next().unwrap().is_err());
        let written = fs::write(mounted.path("g"), options);
        assert_eq!(written.err().and_then(|error| error.raw_os_error()), code, "{options}");
        assert_eq!(fs::read(mounted.path("f")).unwrap(), options.as_bytes());
        mounted.kill();
    }
    // An orderly end tells e2fsck.
    let mut mounted = Mounted::new(&image, &point, "errors=continue").unwrap();
    assert!(fs::read_dir(mounted.path("d")).unwrap().next().unwrap().is_err());
    common::mounted::umount(&point);
    assert!(mounted.server.wait().unwrap().success());
    let told = oracle::debugfs(&image, "stats -h").unwrap();
    assert!(told.contains("clean with errors"), "{told}");
    let mut program = Command::new(env!("CARGO_BIN_EXE_extant"));
    program.stderr(Stdio::piped());
    let mut mounted = Mounted::by(program, &image, &point, "errors=panic").unwrap();
    let _ = fs::read_dir(mounted.path("d")).map(|mut names| names.next().map(|name| name.is_err()));
    assert_eq!(mounted.server.wait().unwrap().code(), Some(4));
    let mut words = String::new();
    mounted.server.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains("errors=panic") && words.lines().count() == 1, "{words}");
    // Which structure, and what is wrong with it.
    assert!(words.contains("damage was found: corrupt file system: P"), "{words}");
    assert!(words.contains("checksum does not match"), "{words}");
    wait_until(|| fs::read_dir(&point).is_ok_and(|mut names| names.next().is_none()));
}

/// What the superblock tells of errors, of what does not depend on who found them.
fn told(image: &Path) -> Vec<String> {
    let output = oracle::run("dumpe2fs", &["-h", image.to_str().unwrap()]).unwrap();
    let words = ["Filesystem state", "First error err", "Last error err", "Journal errno"];
    let text = oracle::text(&output);
    let wanted = text.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    wanted.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_superblock_tells_of_errors_as_after_a_mount_of_the_kernel() {
    for policy in ["errors=continue", "errors=remount-ro"] {
        let Some((scratch, image, point)) = damaged("mount-told") else {
            return skip("no debugfs");
        };
        let copy = scratch.path("kernel.img");
        fs::copy(&image, &copy).unwrap();
        let Some(kernel) = KernelMount::new(&copy, &scratch.path("kernel"), policy) else { return };
        assert!(fs::read_dir(kernel.root().join("d")).unwrap().next().unwrap().is_err());
        kernel.unmount().unwrap();
        let Some(mut mounted) = Mounted::new(&image, &point, policy) else { return };
        assert!(fs::read_dir(mounted.path("d")).unwrap().next().unwrap().is_err());
        common::mounted::umount(&point);
        mounted.server.wait().unwrap();
        assert_eq!(told(&image), told(&copy), "{policy}");
    }
}

/// A command that comes upon damage marks the image for e2fsck; where errors are to stop the machine it changes nothing after that.
#[test]
fn a_command_does_what_the_superblock_says_about_errors() {
    for policy in ["continue", "panic"] {
        let Some((_scratch, image, _)) = damaged("command-told") else { return skip("no debugfs") };
        oracle::run("tune2fs", &["-e", policy, image.to_str().unwrap()]).unwrap();
        fails(["rm", "-r", &common::at(&image, "/d")], 4, "checksum does not match");
        let told = told(&image);
        assert!(told[0].ends_with("with errors"), "{told:?}");
        assert_eq!(told.len(), 3 + usize::from(policy == "panic"), "{told:?}");
    }
}

#[test]
fn files_change_owners_with_uid_and_gid() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to become somebody else");
    }
    let (_scratch, image, point) = prepared("mount-owners", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "uid=65534,gid=65534:7") else { return };
    let script = "id -u; echo his > his; mkdir d; stat -c '%u %g' . his; chmod 600 his; cat his; chown 65534 his; echo $?";
    let said = shell(&mounted.point, NOBODY, script);
    assert_eq!(said, "65534\n65534 0\n65534 65534\nhis\n0\n");
    let said = shell(
        &mounted.point,
        0,
        "echo root > roots; stat -c '%u %g' roots; chown 65534:65534 roots; stat -c '%u %g' roots",
    );
    assert_eq!(said, "0 0\n65534 65534\n");
    mounted.unmount();
    let owners = |name: &str| ok(["stat", "-c", "%u %g", &format!("{}:/{name}", image.display())]);
    assert_eq!(owners("his"), "0 7\n");
    assert_eq!(owners("roots"), "0 7\n");
    assert_eq!(owners("d"), "0 7\n");
}

#[test]
fn words_for_the_kernel_reach_it() {
    if !rustix::process::geteuid().is_root() {
        return skip("an ordinary user's mounts are nodev and nosuid");
    }
    let (_scratch, image, point) = prepared("mount-words", "64M");
    let options = "noexec,noatime,dev,suid";
    let Some(mounted) = Mounted::new(&image, &point, options) else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(point.to_str().unwrap())).unwrap();
    let words: Vec<_> = line.split(' ').nth(5).unwrap().split(',').collect();
    assert!(words.contains(&"noexec") && words.contains(&"noatime"), "{line}");
    assert!(!words.contains(&"nodev") && !words.contains(&"nosuid"), "{line}");
    let said = shell(
        &mounted.point,
        0,
        "printf '#!/bin/sh\n' > run; chmod 755 run; ./run; echo $?; mknod null c 1 3; echo x > null; echo $?",
    );
    assert!(said.contains("126\n") && said.ends_with("0\n"), "{said}");
    mounted.unmount();
}

/// A disk with a volume in its second partition, and another one without a table.
#[test]
fn a_partition_of_a_disk_image_is_an_image() {
    let (scratch, image, point) = prepared("mount-partition", "32M");
    let (disk, start) = (scratch.path("whole.img"), 3 << 20);
    let mut bytes = vec![0xA5; start];
    bytes[..512].fill(0);
    for (index, (first, len)) in [(34_u32, 100_u32), (6144, 65536)].into_iter().enumerate() {
        let at = 446 + 16 * index;
        bytes[at + 4] = 0x83;
        bytes[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    bytes.extend(fs::read(&image).unwrap());
    bytes.extend(vec![0x5A; 1 << 20]);
    fs::write(&disk, &bytes).unwrap();
    let name = disk.to_str().unwrap();
    let text = scratch.path("text");
    fs::write(&text, "text\n").unwrap();
    ok(["cp", "--partition=2", text.to_str().unwrap(), &format!("{name}:/text")]);
    assert_eq!(ok(["cat", "--partition", "2", &format!("{name}:/text")]), "text\n");
    assert_eq!(ok(["cat", "--offset", "3M", &format!("{name}:/text")]), "text\n");
    ok(["info", "--partition", "2", name]);
    fails(["ls", name], 3, "--partition");
    fails(["ls", "--partition", "1", name], 3, "no ext2, ext3 or ext4");
    fails(["ls", "--partition", "3", name], 3, "no partition 3");
    fails(["ls", "--offset", "3", name], 2, "sector");
    fails(["ls", "--offset", "1T", name], 2, "sector");
    fails(["ls", "--partition", "1", image.to_str().unwrap()], 3, "no partition table");
    fails(["mkfs", "--partition", "2", "-F", name], 2, "whole image");
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return skip("no /dev/fuse");
    }
    fs::create_dir_all(&point).unwrap();
    ok(["mount", "--partition", "2", name, point.to_str().unwrap()]);
    fs::write(point.join("more"), vec![3; 1 << 20]).unwrap();
    common::mounted::umount(&point);
    assert_eq!(ok(["cat", "--partition", "2", &format!("{name}:/text")]), "text\n");
    let after = fs::read(&disk).unwrap();
    assert!(after[..start] == bytes[..start], "nothing before it has changed");
    assert!(
        after[start + (32 << 20)..] == bytes[start + (32 << 20)..],
        "nothing behind it has changed"
    );
    fs::write(&image, &after[start..start + (32 << 20)]).unwrap();
    check(&image);
}

#[test]
fn a_wrong_value_is_a_wrong_command_line() {
    let (_scratch, image, point) = prepared("mount-values", "64M");
    fs::create_dir(&point).unwrap();
    let (disk, dir) = (image.to_str().unwrap(), point.to_str().unwrap());
    let wrong = [
        ("data=journal,delalloc", "data=journal and delalloc"),
        ("dirty_ratio=0", "1 to 100"),
        ("errors=maybe", "remount-ro"),
        ("uid=me", "a number"),
        ("commit=-1", "seconds"),
        ("ro=1", "no such mount option"),
        ("data=everything", "data=ordered"),
    ];
    for (words, part) in wrong {
        fails(["mount", "-o", words, disk, dir], 2, part);
    }
    check(&image);
}

#[test]
fn live_counters_tell_what_a_mount_does() {
    let (_scratch, image, point) = prepared("mount-live", "64M");
    let Some(mounted) = Mounted::new(&image, &point, "") else { return };
    let dir = point.to_str().unwrap();
    let value = |name: &str| {
        let told = common::json(["stat", "--live", "--once", "--json", dir]);
        told[name].as_u64().unwrap_or_else(|| panic!("{name}: {told}"))
    };
    fs::write(mounted.path("f"), vec![7; 1 << 20]).unwrap();
    assert_eq!((value("dirty_bytes"), value("delayed_clusters")), (1 << 20, 256));
    let commits = value("commits");
    File::open(mounted.path("f")).unwrap().sync_all().unwrap();
    assert_eq!((value("dirty_bytes"), value("delayed_clusters")), (0, 0));
    assert!(value("commits") > commits && value("cached_bytes") >= 1 << 20);
    let told = ok(["stat", "--live", "--once", dir]);
    assert!(told.lines().count() == 1 && told.contains("commits="), "{told}");
    let mut running = Command::new(env!("CARGO_BIN_EXE_extant"))
        .args(["stat", "--live", "--interval", "0.05", dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.kill().unwrap();
    running.wait().unwrap();
    let mut told = String::new();
    running.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.lines().count() > 1, "{told}");
    mounted.unmount();
    fails(["stat", "--live", dir], 1, "no mount of extant");
    assert!(!extant(["stat", "--live", image.to_str().unwrap()]).status.success());
}

/// What commands change is given back at once; what a mount has, the kernel sees and leaves alone.
#[test]
fn a_volume_with_mmp_is_one_hosts_at_a_time() {
    let (_scratch, image, point) = prepared("mount-mmp", "64M");
    ok(["mkfs", "-qF", "-O", "mmp", image.to_str().unwrap(), "64M"]);
    let directory = format!("{}:/d", image.display());
    ok(["mkdir", &directory]);
    check(&image);
    let state = || oracle::debugfs(&image, "dump_mmp").unwrap_or_default();
    assert!(state().contains("sequence: ff4d4d50"), "{}", state());
    let Some(mounted) = Mounted::new(&image, &point, "noloop") else { return };
    assert!(!state().contains("sequence: ff4d4d50"), "{}", state());
    fs::write(mounted.path("f"), "ours").unwrap();
    if rustix::process::geteuid().is_root() {
        match KernelMount::try_new(&image, &point.with_extension("kernel"), "") {
            None => {}
            Some(Ok(_)) => panic!("the kernel has mounted it too"),
            Some(Err(said)) => assert!(said.contains("already mounted"), "{said}"),
        }
    }
    fs::write(mounted.path("g"), "still ours").unwrap();
    mounted.unmount();
    assert!(state().contains("sequence: ff4d4d50"), "{}", state());
}

#[test]
fn a_journal_may_be_on_a_device_of_its_own() {
    let (scratch, image, point) = prepared("mount-journal", "64M");
    let journal = scratch.path("journal");
    let names = [journal.to_str().unwrap(), image.to_str().unwrap()];
    ok(["mkfs", "-qF", "-O", "journal_dev", "-b", "4096", names[0], "8M"]);
    ok(["mkfs", "-qF", "-b", "4096", "-J", &format!("device={}", names[0]), names[1], "64M"]);
    fails(["mkdir", &common::at(&image, "/d")], 3, "a journal on a device of its own");
    let before = fs::read(&journal).unwrap();
    let options = format!("journal_path={}", names[0]);
    let Some(mounted) = Mounted::new(&image, &point, &options) else { return };
    let file = File::create(mounted.path("f")).unwrap();
    file.write_all_at(&[7; 5000], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(fs::read(&journal).unwrap() != before, "it is written");
    mounted.kill();
    let Some(mut mounted) = Mounted::new(&image, &point, &options) else { return };
    assert_eq!(fs::read(mounted.path("f")).unwrap(), [7; 5000]);
    common::mounted::umount(&point);
    assert!(mounted.server.wait().unwrap().success());
    if let Some(output) = oracle::run("e2fsck", &["-fn", "-j", names[0], names[1]]) {
        assert!(output.status.success(), "{}", oracle::text(&output));
    }
}
