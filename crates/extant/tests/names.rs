//! Names on a journaled volume: what a power cut leaves, orphans in the list and in the file.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::sync::Arc;

use extant::MountOptions;
use extant_device::MemoryDevice;
use extant_testkit::{CrashImages, CrashOptions, RecordingDevice, oracle};

/// A volume in memory, and a folder to put images of it into.
fn volume(options: &[&str]) -> Option<(Arc<MemoryDevice>, oracle::Scratch)> {
    let scratch = oracle::Scratch::new("names");
    let image = scratch.path("image");
    oracle::mkfs(&image, 16 << 20, options)?;
    Some((
        Arc::new(MemoryDevice::from_bytes(&std::fs::read(&image).expect("mkfs made it"))),
        scratch,
    ))
}

fn check_image(device: &MemoryDevice, scratch: &oracle::Scratch) {
    let image = scratch.path("now");
    std::fs::write(&image, device.to_vec()).expect("the folder is there");
    if let Err(findings) = oracle::e2fsck(&image) {
        panic!("{findings}");
    }
}

#[test]
fn a_slash_at_the_end_of_a_name_asks_for_a_directory() {
    use extant::{Errno, Error, OpenOptions};
    let Some((device, scratch)) = volume(&[]) else { return };
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create_dir("/d").unwrap();
    fs.create("/f").unwrap();
    fs.symlink("d", "/l").unwrap();
    let create =
        |path: &str| fs.open_with(path, OpenOptions::new().write(true).create(true)).map(drop);
    // Each errno is the one that the system call gives.
    let check = |done: Result<(), Error>, errno: Errno, what: &str| {
        assert_eq!(done.map_err(|error| error.errno()), Err(errno), "{what}");
    };
    check(create("/new/"), Errno::ISDIR, "open new/");
    check(create("/f/"), Errno::ISDIR, "open f/");
    check(fs.symlink("x", "/new/"), Errno::NOENT, "symlink new/");
    check(fs.symlink("x", "/d/"), Errno::EXIST, "symlink d/");
    check(fs.hard_link("/f", "/new/"), Errno::NOENT, "link new/");
    check(fs.mknod("/new/", extant::namespace::NodeKind::Fifo, 0o600), Errno::NOENT, "mknod new/");
    check(fs.remove_file("/f/"), Errno::NOTDIR, "unlink f/");
    check(fs.remove_file("/l/"), Errno::NOTDIR, "unlink l/");
    check(fs.remove_file("/d/"), Errno::ISDIR, "unlink d/");
    check(fs.remove_dir("/l/"), Errno::NOTDIR, "rmdir l/");
    check(fs.rename("/l/", "/x"), Errno::NOTDIR, "rename l/");
    check(fs.rename("/f", "/new/"), Errno::NOTDIR, "rename f new/");
    check(fs.rename("/f/", "/new"), Errno::NOTDIR, "rename f/ new");
    check(fs.rename("/d", "/l/"), Errno::NOTDIR, "rename d l/");
    check(fs.create_dir("/f/"), Errno::EXIST, "mkdir f/");
    check(fs.create_dir("/"), Errno::EXIST, "mkdir /");
    fs.rename("/d/", "/e/").unwrap();
    fs.create_dir("/d/").unwrap();
    fs.remove_dir("/e/").unwrap();
    fs.unmount().unwrap();
    check_image(&device, &scratch);
}

#[test]
fn a_file_is_made_where_a_link_leads() {
    let Some((device, scratch)) = volume(&[]) else { return };
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fs.create_dir("/d").unwrap();
    fs.symlink("../d/two", "/d/one").unwrap();
    fs.symlink("/d/three", "/d/two").unwrap();
    fs.symlink("self", "/self").unwrap();
    fs.symlink("/no/where", "/lost").unwrap();
    drop(fs.create("/d/one").unwrap());
    assert!(fs.symlink_metadata("/d/three").unwrap().is_file());
    assert!(matches!(fs.create("/self"), Err(extant::Error::LinkLoop)));
    assert!(matches!(fs.create("/lost"), Err(extant::Error::NotFound)));
    fs.unmount().unwrap();
    check_image(&device, &scratch);
}

#[test]
fn an_inode_is_found_by_its_number_while_it_is_the_same() {
    use extant::Error;
    let Some((device, _scratch)) = volume(&[]) else { return };
    let fs = MountOptions::new().mount(device).unwrap();
    drop(fs.create("/f").unwrap());
    let found = fs.metadata("/f").unwrap();
    let again = fs.inode_numbered(found.inode, found.generation).unwrap();
    assert_eq!(again.number(), found.inode);
    drop(again);
    let other = found.generation.wrapping_add(1);
    assert!(matches!(fs.inode_numbered(found.inode, other), Err(Error::Stale(_))));
    fs.remove_file("/f").unwrap();
    assert!(matches!(fs.inode_numbered(found.inode, found.generation), Err(Error::Stale(_))));
    let journal = extant::InodeNumber::new(8).unwrap();
    assert!(matches!(fs.inode_numbered(journal, 0), Err(Error::Stale(_))));
    fs.unmount().unwrap();
}

#[test]
fn a_removed_file_that_was_open_at_a_power_cut_is_freed_by_the_next_mount() {
    for options in [&["-O", "^orphan_file"][..], &["-O", "orphan_file"]] {
        let Some((device, scratch)) = volume(options) else { return };
        let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
        let before = fs.statfs();
        let mut open = Vec::new();
        for n in 0..40 {
            let file = fs.create(format!("/{n}")).unwrap();
            file.write_at(&[7; 100_000], 0).unwrap();
            open.push(file);
        }
        fs.sync_all().unwrap();
        for n in 0..40 {
            fs.remove_file(format!("/{n}")).unwrap();
        }
        // Some are closed again, out of order: the list has to close its gaps.
        for at in [20, 5, 0, 30] {
            drop(open.remove(at));
        }
        fs.sync_all().unwrap();
        let cut = Arc::new(device.snapshot());
        drop((open, fs));
        let fs = MountOptions::new().mount(Arc::clone(&cut)).unwrap();
        assert_eq!(fs.statfs().free_inodes, before.free_inodes);
        assert_eq!(fs.statfs().free_blocks, before.free_blocks);
        fs.unmount().unwrap();
        check_image(&cut, &scratch);
    }
}

#[test]
fn a_list_of_orphans_that_leads_nowhere_ends_there() {
    // One that is not in use, the root, the journal, and none at all.
    for head in [13, 2, 8, 4_000_000] {
        let Some((device, scratch)) = volume(&[]) else { return };
        let image = scratch.path("image");
        std::fs::write(&image, device.to_vec()).unwrap();
        oracle::debugfs_write(&image, &format!("ssv last_orphan {head}\n")).unwrap();
        let device = Arc::new(MemoryDevice::from_bytes(&std::fs::read(&image).unwrap()));
        let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
        fs.create_dir("/dir").unwrap();
        fs.unmount().unwrap();
        check_image(&device, &scratch);
    }
}

/// Every path below a directory, with its type, its links and its attributes.
fn tree(fs: &extant::Filesystem, dir: &str, all: &mut Vec<String>) {
    for entry in fs.read_dir(dir).unwrap() {
        let name = String::from_utf8(entry.unwrap().name().to_vec()).unwrap();
        if matches!(name.as_str(), "." | "..") {
            continue;
        }
        let path = format!("{dir}/{name}");
        let metadata = fs.symlink_metadata(&path).unwrap();
        let mut value = Vec::new();
        if !metadata.is_symlink() {
            value = fs.xattr(&path, "user.a").unwrap_or_default();
        }
        all.push(format!("{path} {:o} {} {value:?}", metadata.mode, metadata.links));
        if metadata.is_dir() {
            tree(fs, &path, all);
        }
    }
}

fn sorted_tree(fs: &extant::Filesystem) -> Vec<String> {
    let mut all = Vec::new();
    tree(fs, "", &mut all);
    all.sort();
    all
}

/// One operation a transaction: after a power cut each has happened, or it has not.
#[test]
fn every_operation_on_names_is_whole_or_not_there_after_a_power_cut() {
    for options in [&["-b", "1024"][..], &["-b", "1024", "-O", "inline_data,orphan_file,ea_inode"]]
    {
        let Some((device, scratch)) = volume(options) else { return };
        let recording = Arc::new(RecordingDevice::from_image(&device));
        let fs = MountOptions::new().mount(Arc::clone(&recording)).unwrap();
        fs.sync_all().unwrap();
        let from = recording.position();
        let mut states = vec![(from, sorted_tree(&fs))];
        for step in 0..STEPS {
            operate(&fs, step);
            fs.sync_all().unwrap();
            states.push((recording.position(), sorted_tree(&fs)));
        }
        drop(fs);
        let log = recording.log();
        let crashes = CrashOptions { from, all_subsets_up_to: 3, samples: 6, tears: 2, seed: 1 };
        for crash in CrashImages::new(&log, crashes) {
            let image = Arc::new(crash.image.snapshot());
            let fs = MountOptions::new()
                .mount(Arc::clone(&image))
                .unwrap_or_else(|error| panic!("{crash}: {error}"));
            let found = sorted_tree(&fs);
            let acknowledged = states.iter().rposition(|(at, _)| *at <= crash.completed).unwrap();
            let possible = &states[acknowledged..states.len().min(acknowledged + 2)];
            assert!(
                possible.iter().any(|(_, state)| *state == found),
                "{crash}: {found:#?} of {possible:#?}"
            );
            fs.unmount().unwrap();
            if crash.number % 5 == 0 {
                check_image(&image, &scratch);
            }
        }
    }
}

const STEPS: u32 = 18;

fn operate(fs: &extant::Filesystem, step: u32) {
    let long = "a-long-name-that-fills-a-block-with-few-others-of-its-kind-".repeat(3);
    match step {
        0 => fs.create_dir("/a").unwrap(),
        1 => fs.create_dir("/b").unwrap(),
        2 => drop(fs.create("/a/file").unwrap()),
        3 => fs.hard_link("/a/file", "/b/link").unwrap(),
        4 => fs.rename("/a/file", "/b/moved").unwrap(),
        5 => fs.set_xattr("/b/moved", "user.a", [7; 400]).unwrap(),
        6 => fs.create_dir("/a/dir").unwrap(),
        7 => fs.rename("/a/dir", "/b/dir").unwrap(),
        8 => fs.symlink("t".repeat(100), "/a/symlink").unwrap(),
        9..=12 => drop(fs.create(format!("/a/{long}{step}")).unwrap()),
        13 => fs.rename("/b/moved", format!("/a/{long}10")).unwrap(),
        14 => fs.remove_dir("/b/dir").unwrap(),
        15 => fs.remove_file("/a/symlink").unwrap(),
        16 => fs.set_xattr("/b/link", "user.a", [8; 900]).unwrap(),
        _ => fs.remove_file(format!("/a/{long}10")).unwrap(),
    }
}

/// What is found through a handle is in the hands of the same caller: what he makes is his, and what he may not do he cannot.
#[test]
fn a_handle_acts_for_its_caller_and_so_does_what_is_found_through_it() {
    use extant::{Caller, Errno, SetAttributes};
    let Some((device, scratch)) = volume(&[]) else { return };
    let fs = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    let user = Caller { umask: 0o027, groups: vec![50], ..Caller::user(1000, 100) };
    let root = fs.root().unwrap();
    let theirs = root.create_dir("theirs", 0o755).unwrap();
    let his = root.create_dir("his", 0o755).unwrap();
    his.set_attributes(&SetAttributes { uid: Some(1000), ..SetAttributes::default() }).unwrap();
    let root = root.for_caller(&user);
    theirs.create_file("f", 0o666).unwrap();
    let refused = root.lookup("theirs").unwrap().create_file("g", 0o666).unwrap_err();
    assert_eq!(refused.errno(), Errno::ACCES);
    let dir = root.lookup("his").unwrap();
    let file = dir.create_file("f", 0o666).unwrap().metadata().unwrap();
    assert_eq!((file.uid, file.gid, file.mode & 0o7777), (1000, 100, 0o640));
    assert_eq!(dir.remove_dir("f").unwrap_err().errno(), Errno::NOTDIR);
    let inner = dir.create_dir("d", 0o777).unwrap();
    assert_eq!(inner.metadata().unwrap().uid, 1000);
    // A file without a name, until it gets one.
    let unnamed = inner.create_unnamed(0o600).unwrap();
    assert_eq!(unnamed.metadata().unwrap().links, 0);
    dir.hard_link(&unnamed, "named").unwrap();
    dir.rename("named", &inner, "moved", extant::namespace::RenameFlags::NOREPLACE).unwrap();
    assert_eq!(dir.remove_dir("d").unwrap_err().errno(), Errno::NOTEMPTY);
    let chown = SetAttributes { uid: Some(0), ..SetAttributes::default() };
    assert_eq!(unnamed.set_attributes(&chown).unwrap_err().errno(), Errno::PERM);
    assert_eq!(theirs.for_caller(&user).remove_file("f").unwrap_err().errno(), Errno::ACCES);
    inner.remove_file("moved").unwrap();
    dir.remove_dir("d").unwrap();
    drop((root, dir, inner, unnamed, his));
    fs.unmount().unwrap();
    check_image(&device, &scratch);
}
