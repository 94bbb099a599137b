//! Extended attributes on whole volumes, with e2fsck and debugfs as judges.

use std::collections::BTreeMap;
use std::sync::Arc;

use extant_format::InodeNumber;
use extant_format::inode::InodeFlags;
use extant_testkit::oracle;
use proptest::prelude::*;

use super::volume::Volume;
use crate::Error;
use crate::caller::Caller;
use crate::error::Errno;
use crate::inode::Inode;
use crate::xattr::{Access, SetHow};

const SMALL: &[&str] = &["-b", "1024"];
const LARGE: &[&str] = &["-b", "1024", "-O", "ea_inode"];
const OLD: &[&str] = &["-b", "1024", "-I", "128"];
const ROOT: &Caller = &Caller::ROOT;

fn set(volume: &Volume, inode: &Inode, name: &str, value: &[u8]) -> Result<(), Error> {
    volume.xattrs.set(inode, name.as_bytes(), Some(value), SetHow::Any, ROOT)
}

fn remove(volume: &Volume, inode: &Inode, name: &str) -> Result<(), Error> {
    volume.xattrs.set(inode, name.as_bytes(), None, SetHow::Any, ROOT)
}

fn get(volume: &Volume, inode: &Inode, name: &str) -> Result<Vec<u8>, Error> {
    volume.xattrs.get(inode, name.as_bytes(), ROOT)
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    result.expect_err("refused").errno()
}

fn block(inode: &Inode) -> Option<u64> {
    inode.core.lock().file_acl.map(extant_format::PhysicalBlock::get)
}

#[test]
fn a_value_that_is_being_freed_is_not_shared() {
    let Some(volume) = Volume::new(8 << 20, LARGE) else { return };
    let root = volume.root();
    let (a, b) = (volume.make_file(&root, "a"), volume.make_file(&root, "b"));
    let values = || {
        let mut all = volume.inodes.in_memory();
        all.retain(|inode| inode.flags().contains(InodeFlags::EA_INODE));
        all
    };
    set(&volume, &a, "user.value", &[7; 5000]).unwrap();
    assert!(values()[0].end());
    set(&volume, &b, "user.value", &[7; 5000]).unwrap();
    assert_eq!(values().len(), 2);
    assert_eq!(get(&volume, &b, "user.value").unwrap(), [7; 5000]);
    volume.check();
}

#[test]
fn small_values_stay_in_the_inode_and_larger_ones_go_to_a_block() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let file = volume.make_file(&volume.root(), "file");
    set(&volume, &file, "user.small", b"value").unwrap();
    assert_eq!(block(&file), None);
    set(&volume, &file, "user.large", &[7; 300]).unwrap();
    assert!(block(&file).is_some());
    volume.check();
    let image = volume.image();
    assert!(oracle::debugfs(&image, "ea_get file user.small").unwrap().contains("value"));
    let listing = oracle::debugfs(&image, "ea_list file").unwrap();
    assert!(listing.contains("user.large (300)"), "{listing}");
    // A value that shrinks goes back, and the empty block is freed.
    set(&volume, &file, "user.large", &[7; 20]).unwrap();
    assert_eq!(block(&file), None);
    assert_eq!(get(&volume, &file, "user.large").unwrap(), [7; 20]);
    assert_eq!(file.core.lock().blocks, 0);
    volume.check();
}

#[test]
fn equal_blocks_are_shared_and_copied_on_write() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let root = volume.root();
    let files: Vec<_> = (0..5).map(|n| volume.make_file(&root, &format!("{n}"))).collect();
    for file in &files {
        set(&volume, file, "user.shared", &[7; 300]).unwrap();
    }
    let shared = block(&files[0]);
    assert!(files.iter().all(|file| block(file) == shared));
    volume.check();
    set(&volume, &files[1], "user.shared", &[8; 300]).unwrap();
    assert_ne!(block(&files[1]), shared);
    assert_eq!(get(&volume, &files[0], "user.shared").unwrap(), [7; 300]);
    remove(&volume, &files[2], "user.shared").unwrap();
    assert_eq!(block(&files[2]), None);
    for n in [3, 4] {
        let gone = volume.namespace.unlink(ROOT, &root, format!("{n}").as_bytes());
        let gone = gone.unwrap();
        assert_eq!(gone.core.lock().links, 0);
    }
    drop(files);
    for n in [0, 1, 2] {
        drop(volume.look_up(&root, &format!("{n}")).unwrap());
    }
    for number in 12..20 {
        if let Some(inode) = volume.inodes.find(InodeNumber::new(number).unwrap()) {
            volume.evict(inode);
        }
    }
    volume.check();
}

#[test]
fn values_too_large_for_a_block_get_inodes_of_their_own() {
    let Some(volume) = Volume::new(8 << 20, LARGE) else { return };
    let root = volume.root();
    let (one, two) = (volume.make_file(&root, "one"), volume.make_file(&root, "two"));
    let value: Vec<u8> = (0..60_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    set(&volume, &one, "user.large", &value).unwrap();
    set(&volume, &two, "user.large", &value).unwrap();
    assert!(get(&volume, &two, "user.large").unwrap() == value);
    volume.check();
    let path = volume.image().with_file_name("value");
    let command = format!("ea_get -f {} one user.large", path.display());
    oracle::debugfs(&volume.image(), &command).unwrap();
    assert!(std::fs::read(&path).unwrap() == value);
    // One inode holds the value for both; it goes with the second name.
    let apart = |volume: &Volume| {
        let held = |inode: &Arc<Inode>| inode.flags().contains(InodeFlags::EA_INODE);
        volume.inodes.in_memory().into_iter().filter(held).count()
    };
    assert_eq!(apart(&volume), 1);
    set(&volume, &one, "user.large", b"small").unwrap();
    volume.check();
    remove(&volume, &two, "user.large").unwrap();
    volume.check();
    assert_eq!(apart(&volume), 0);
}

#[test]
fn without_room_in_the_inode_all_goes_to_the_block() {
    let Some(volume) = Volume::new(8 << 20, OLD) else { return };
    let file = volume.make_file(&volume.root(), "file");
    set(&volume, &file, "user.a", b"value").unwrap();
    assert!(block(&file).is_some());
    assert_eq!(errno(set(&volume, &file, "user.b", &[1; 2000])), Errno::NOSPC);
    assert_eq!(get(&volume, &file, "user.a").unwrap(), b"value");
    volume.check();
}

#[test]
fn names_and_sizes_have_their_errno() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let file = volume.make_file(&volume.root(), "file");
    assert_eq!(errno(set(&volume, &file, "user.", b"")), Errno::INVAL);
    assert_eq!(errno(set(&volume, &file, "other.a", b"")), Errno::OPNOTSUPP);
    assert_eq!(errno(set(&volume, &file, "system.data", b"")), Errno::OPNOTSUPP);
    assert_eq!(errno(set(&volume, &file, "user.a", &[0; 65_537])), Errno::TOOBIG);
    assert_eq!(errno(set(&volume, &file, &format!("user.{}", "a".repeat(251)), b"")), Errno::RANGE);
    assert_eq!(errno(get(&volume, &file, "user.a")), Errno::NODATA);
    assert_eq!(errno(remove(&volume, &file, "user.a")), Errno::NODATA);
    set(&volume, &file, "user.a", b"").unwrap();
    let again = volume.xattrs.set(&file, b"user.a", Some(b"x"), SetHow::Create, ROOT);
    assert_eq!(errno(again), Errno::EXIST);
    let replace = volume.xattrs.set(&file, b"user.b", Some(b"x"), SetHow::Replace, ROOT);
    assert_eq!(errno(replace), Errno::NODATA);
    assert_eq!(get(&volume, &file, "user.a").unwrap(), b"");
}

#[test]
fn namespaces_have_their_permissions() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let root = volume.root();
    let file = volume.make_file(&root, "file");
    let user = Caller::user(1000, 1000);
    let by = |caller: &Caller, name: &str| {
        volume.xattrs.set(&file, name.as_bytes(), Some(b"v"), SetHow::Any, caller)
    };
    assert_eq!(errno(by(&user, "user.a")), Errno::ACCES);
    assert_eq!(errno(by(&user, "trusted.a")), Errno::PERM);
    assert_eq!(errno(by(&user, "security.a")), Errno::PERM);
    by(ROOT, "trusted.a").unwrap();
    by(ROOT, "security.a").unwrap();
    by(ROOT, "user.a").unwrap();
    assert_eq!(errno(volume.xattrs.get(&file, b"trusted.a", &user)), Errno::NODATA);
    assert_eq!(volume.xattrs.get(&file, b"user.a", &user).unwrap(), b"v");
    let shown = volume.xattrs.list(&file, &user).unwrap();
    assert_eq!(shown, [b"security.a".to_vec(), b"user.a".to_vec()]);
    assert_eq!(volume.xattrs.list(&file, ROOT).unwrap().len(), 3);
    let link = volume.namespace.make_symlink(ROOT, &root, b"link", b"target").unwrap();
    assert_eq!(errno(set(&volume, &link, "user.a", b"v")), Errno::PERM);
    file.core.lock().flags |= InodeFlags::IMMUTABLE;
    assert_eq!(errno(by(ROOT, "user.b")), Errno::PERM);
}

/// u::rw-, u:1000:rwx, g::r--, mask:rw-, o::---
const LIST: [(u16, u16, u32); 5] =
    [(1, 6, u32::MAX), (2, 7, 1000), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];

fn wire(list: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in list {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn access_lists_decide_and_show_in_the_mode() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let file = volume.make_file(&volume.root(), "file");
    let name = "system.posix_acl_access";
    set(&volume, &file, name, &wire(&LIST)).unwrap();
    assert_eq!(file.core.lock().mode & 0o777, 0o660);
    assert_eq!(get(&volume, &file, name).unwrap(), wire(&LIST));
    let ask = |uid, want| volume.xattrs.check_access(&file, &Caller::user(uid, uid), want).is_ok();
    assert!(ask(1000, Access::READ | Access::WRITE) && !ask(1000, Access::EXECUTE));
    assert!(!ask(1001, Access::READ));
    volume.check();
    // One that says no more than the mode is not kept.
    let minimal = [(1, 7, u32::MAX), (4, 5, u32::MAX), (0x20, 5, u32::MAX)];
    set(&volume, &file, name, &wire(&minimal)).unwrap();
    assert_eq!(file.core.lock().mode & 0o777, 0o755);
    assert_eq!(errno(get(&volume, &file, name)), Errno::NODATA);
    assert_eq!(errno(set(&volume, &file, "system.posix_acl_default", &wire(&LIST))), Errno::ACCES);
    assert_eq!(
        errno(volume.xattrs.set(
            &file,
            name.as_bytes(),
            Some(&wire(&LIST)),
            SetHow::Any,
            &Caller::user(9, 9)
        )),
        Errno::PERM
    );
}

#[test]
fn default_lists_are_inherited_in_place_of_the_umask() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    let name = "system.posix_acl_default";
    set(&volume, &dir, name, &wire(&LIST)).unwrap();
    let caller = Caller { umask: 0o077, ..Caller::ROOT };
    let file = volume.namespace.create(&caller, &dir, b"file", 0o666).unwrap();
    assert_eq!(file.core.lock().mode & 0o777, 0o660);
    assert_eq!(get(&volume, &file, "system.posix_acl_access").unwrap(), wire(&LIST));
    let below = volume.namespace.make_directory(&caller, &dir, b"below", 0o777).unwrap();
    assert_eq!(get(&volume, &below, name).unwrap(), wire(&LIST));
    let plain = volume.namespace.create(&caller, &volume.root(), b"plain", 0o666).unwrap();
    assert_eq!(plain.core.lock().mode & 0o777, 0o600);
    volume.check();
}

#[test]
fn what_debugfs_sets_is_read() {
    let Some(volume) = Volume::new(8 << 20, LARGE) else { return };
    volume.make_file(&volume.root(), "file");
    let image = volume.image();
    let value = image.with_file_name("value");
    std::fs::write(&value, vec![9; 1024]).unwrap();
    let commands =
        format!("ea_set file user.small abc\nea_set -f {} file user.large\n", value.display());
    oracle::debugfs_write(&image, &commands).unwrap();
    let volume = volume.reopen(&image);
    let file = volume.look_up(&volume.root(), "file").unwrap();
    assert_eq!(get(&volume, &file, "user.small").unwrap(), b"abc");
    let large = get(&volume, &file, "user.large").unwrap();
    assert!(large == vec![9; 1024], "{} bytes", large.len());
    remove(&volume, &file, "user.large").unwrap();
    volume.check();
}

#[test]
fn a_value_that_is_looked_at_while_it_waits_to_be_freed_is_freed_once() {
    let Some(volume) = Volume::new(8 << 20, LARGE) else { return };
    let file = volume.make_file(&volume.root(), "a");
    set(&volume, &file, "user.first", &[7; 5000]).unwrap();
    remove(&volume, &file, "user.first").unwrap();
    set(&volume, &file, "user.second", &[7; 5000]).unwrap();
    let is_value = |inode: &Inode| inode.flags().contains(InodeFlags::EA_INODE);
    assert_eq!(volume.inodes.in_memory().iter().filter(|inode| is_value(inode)).count(), 2);
    volume.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn attributes_agree_with_a_map(
        kind in 0..3_usize,
        steps in prop::collection::vec((0..3_usize, 0..7_usize, 0..900_usize, any::<bool>()), 1..80),
    ) {
        let Some(volume) = Volume::new(8 << 20, [SMALL, LARGE, OLD][kind]) else { return Ok(()) };
        let root = volume.root();
        let files: Vec<_> = (0..3).map(|n| volume.make_file(&root, &format!("{n}"))).collect();
        let mut models = vec![BTreeMap::new(); 3];
        for (n, name, len, add) in steps {
            let (file, model) = (&files[n], &mut models[n]);
            let name = format!("user.{}", "n".repeat(name + 1));
            if add {
                let value = vec![u8::try_from(len % 5).unwrap(); len];
                match set(&volume, file, &name, &value) {
                    Ok(()) => _ = model.insert(name, value),
                    Err(error) => prop_assert_eq!(error.errno(), Errno::NOSPC),
                }
            } else {
                prop_assert_eq!(remove(&volume, file, &name).is_ok(), model.remove(&name).is_some());
            }
        }
        for (file, model) in files.iter().zip(&models) {
            let mut names = volume.xattrs.list(file, ROOT).unwrap();
            names.sort();
            prop_assert_eq!(names, model.keys().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>());
            for (name, value) in model {
                prop_assert_eq!(&get(&volume, file, name).unwrap(), value);
            }
        }
        volume.check();
    }
}
