//! One rule of the kernel a test.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use extant_format::inode::InodeFlags;
use extant_format::{FileType, InodeNumber};

use super::super::{DirCursor, NodeKind, RenameFlags};
use super::volume::Volume;
use crate::Error;
use crate::caller::Caller;
use crate::error::Errno;
use crate::inode::Inode;

const SMALL: &[&str] = &["-b", "1024", "-N", "4096"];
const ROOT: &Caller = &Caller::ROOT;

fn volume() -> Option<Volume> {
    Volume::new(8 << 20, SMALL)
}

fn errno<T>(result: Result<T, Error>) -> Errno {
    result.err().expect("refused").errno()
}

fn mode(inode: &Inode) -> u16 {
    inode.core.lock().mode & 0o7777
}

fn links(inode: &Inode) -> u16 {
    inode.core.lock().links
}

fn rename(
    volume: &Volume,
    old: (&Arc<Inode>, &str),
    new: (&Arc<Inode>, &str),
    flags: RenameFlags,
) -> Result<Option<Arc<Inode>>, Error> {
    volume.namespace.rename(ROOT, (old.0, old.1.as_bytes()), (new.0, new.1.as_bytes()), flags)
}

#[test]
fn new_files_lose_the_umask_and_take_the_group_of_a_set_group_directory() {
    let Some(volume) = volume() else { return };
    let dir = volume.namespace.make_directory(ROOT, &volume.root(), b"dir", 0o777).unwrap();
    let user = Caller::user(1000, 1000);
    let file = volume.namespace.create(&user, &dir, b"file", 0o2676).unwrap();
    assert_eq!((mode(&file), file.core.lock().gid), (0o2654, 1000));
    dir.core.lock().mode |= 0o2000;
    dir.core.lock().gid = 7;
    let file = volume.namespace.create(&user, &dir, b"other", 0o2676).unwrap();
    // Not in the group, the caller cannot make a file that runs as the group.
    assert_eq!((mode(&file), file.core.lock().gid), (0o654, 7));
    let below = volume.namespace.make_directory(&user, &dir, b"below", 0o777).unwrap();
    assert_eq!((mode(&below), below.core.lock().gid), (0o2755, 7));
}

#[test]
fn directories_count_their_subdirectories_up_to_the_limit() {
    let Some(volume) = volume() else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    let below = volume.make_dir(&dir, "below");
    assert_eq!((links(&dir), links(&below)), (3, 2));
    dir.core.lock().links = 64_999;
    volume.make_dir(&dir, "last");
    assert_eq!(errno(volume.namespace.make_directory(ROOT, &dir, b"more", 0o755)), Errno::MLINK);
    // With an index the count may overflow, and says 1 from then on.
    dir.core.lock().flags |= InodeFlags::INDEX;
    volume.namespace.add_link(&dir);
    assert_eq!(links(&dir), 1);
    volume.namespace.add_link(&dir);
    assert_eq!(links(&dir), 1);
    volume.namespace.drop_link(&dir);
    assert_eq!(links(&dir), 1);
}

#[test]
fn a_file_has_at_most_65000_names() {
    let Some(volume) = volume() else { return };
    let (root, file) = (volume.root(), volume.make_file(&volume.root(), "file"));
    file.core.lock().links = 64_999;
    volume.namespace.link(ROOT, &file, &root, b"last").unwrap();
    assert_eq!(errno(volume.namespace.link(ROOT, &file, &root, b"more")), Errno::MLINK);
}

#[test]
fn a_file_made_without_a_name_can_get_one_and_a_removed_one_cannot() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let unnamed = volume.namespace.make_unnamed(ROOT, &root, 0o600).unwrap();
    assert_eq!(links(&unnamed), 0);
    volume.namespace.link(ROOT, &unnamed, &root, b"named").unwrap();
    assert_eq!((links(&unnamed), unnamed.linkable.load(Ordering::Relaxed)), (1, false));
    let gone = volume.namespace.unlink(ROOT, &root, b"named").unwrap();
    assert_eq!(errno(volume.namespace.link(ROOT, &gone, &root, b"again")), Errno::NOENT);
    drop(unnamed);
    volume.evict(gone);
    volume.check();
}

#[test]
fn renames_heed_their_flags() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let (a, b) = (volume.make_file(&root, "a"), volume.make_dir(&root, "b"));
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    assert_eq!(errno(rename(&volume, (&root, "a"), (&root, "b"), both)), Errno::INVAL);
    assert_eq!(
        errno(rename(&volume, (&root, "a"), (&root, "b"), RenameFlags::from_bits_retain(8))),
        Errno::INVAL
    );
    assert_eq!(
        errno(rename(&volume, (&root, "a"), (&root, "b"), RenameFlags::NOREPLACE)),
        Errno::EXIST
    );
    assert_eq!(
        errno(rename(&volume, (&root, "a"), (&root, "x"), RenameFlags::EXCHANGE)),
        Errno::NOENT
    );
    assert_eq!(
        errno(rename(&volume, (&root, "a"), (&root, ".."), RenameFlags::NOREPLACE)),
        Errno::EXIST
    );
    assert_eq!(
        errno(rename(&volume, (&root, "."), (&root, "x"), RenameFlags::empty())),
        Errno::BUSY
    );
    rename(&volume, (&root, "a"), (&root, "b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(volume.look_up(&root, "b").unwrap().number(), a.number());
    rename(&volume, (&root, "b"), (&b, "moved"), RenameFlags::WHITEOUT).unwrap();
    let whiteout = volume.look_up(&root, "b").unwrap();
    assert_eq!(whiteout.file_type(), FileType::CharacterDevice);
    assert_eq!(whiteout.core.lock().device(), (0, 0));
    assert_eq!(mode(&whiteout), 0);
    volume.check();
}

#[test]
fn sticky_append_only_and_immutable_keep_names() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dir = volume.namespace.make_directory(ROOT, &root, b"dir", 0o1777).unwrap();
    volume.make_file(&dir, "file");
    let user = Caller { umask: 0, ..Caller::user(1000, 1000) };
    volume.namespace.create(&user, &dir, b"own", 0o644).unwrap();
    assert_eq!(errno(volume.namespace.unlink(&user, &dir, b"file")), Errno::PERM);
    let moved = volume.namespace.rename(&user, (&dir, b"file"), (&dir, b"x"), RenameFlags::empty());
    assert_eq!(errno(moved), Errno::PERM);
    volume.namespace.unlink(&user, &dir, b"own").unwrap();
    dir.core.lock().flags |= InodeFlags::APPEND;
    volume.make_file(&dir, "new");
    assert_eq!(errno(volume.namespace.unlink(ROOT, &dir, b"new")), Errno::PERM);
    dir.core.lock().flags |= InodeFlags::IMMUTABLE;
    assert_eq!(errno(volume.namespace.create(ROOT, &dir, b"more", 0o644)), Errno::PERM);
    dir.core.lock().flags -= InodeFlags::IMMUTABLE | InodeFlags::APPEND;
    volume.look_up(&dir, "new").unwrap().core.lock().flags |= InodeFlags::IMMUTABLE;
    assert_eq!(errno(volume.namespace.unlink(ROOT, &dir, b"new")), Errno::PERM);
    let new = volume.look_up(&dir, "new").unwrap();
    assert_eq!(errno(volume.namespace.link(ROOT, &new, &root, b"link")), Errno::PERM);
}

#[test]
fn directories_ask_for_search_and_write_permission() {
    let Some(volume) = volume() else { return };
    let dir = volume.namespace.make_directory(ROOT, &volume.root(), b"dir", 0o755).unwrap();
    volume.make_file(&dir, "file");
    let user = Caller::user(1000, 1000);
    assert!(volume.namespace.lookup(&user, &dir, b"file").is_ok());
    assert_eq!(errno(volume.namespace.create(&user, &dir, b"file", 0o644)), Errno::EXIST);
    assert_eq!(errno(volume.namespace.create(&user, &dir, b"new", 0o644)), Errno::ACCES);
    assert_eq!(errno(volume.namespace.unlink(&user, &dir, b"file")), Errno::ACCES);
    dir.core.lock().mode = FileType::Directory.mode_bits() | 0o744;
    assert_eq!(errno(volume.namespace.lookup(&user, &dir, b"file")), Errno::ACCES);
    let device = NodeKind::CharacterDevice(1, 3);
    dir.core.lock().mode = FileType::Directory.mode_bits() | 0o777;
    assert_eq!(errno(volume.namespace.make_node(&user, &dir, b"null", 0o666, device)), Errno::PERM);
}

#[test]
fn a_directory_moved_elsewhere_has_to_be_writable_itself() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let user = Caller { umask: 0, ..Caller::user(1000, 1000) };
    let [one, two] = ["one", "two"]
        .map(|name| volume.namespace.make_directory(ROOT, &root, name.as_bytes(), 0o777).unwrap());
    volume.namespace.make_directory(ROOT, &one, b"moved", 0o755).unwrap();
    let across =
        volume.namespace.rename(&user, (&one, b"moved"), (&two, b"moved"), RenameFlags::empty());
    assert_eq!(errno(across), Errno::ACCES);
    volume
        .namespace
        .rename(&user, (&one, b"moved"), (&one, b"within"), RenameFlags::empty())
        .unwrap();
}

#[test]
fn every_operation_refuses_names_that_are_too_long() {
    let Some(volume) = volume() else { return };
    let (root, file) = (volume.root(), volume.make_file(&volume.root(), "file"));
    let (names, long) = (&volume.namespace, [b'x'; 256]);
    let too_long = Errno::NAMETOOLONG;
    assert_eq!(errno(names.lookup(ROOT, &root, &long)), too_long);
    assert_eq!(errno(names.create(ROOT, &root, &long, 0o644)), too_long);
    assert_eq!(errno(names.make_directory(ROOT, &root, &long, 0o755)), too_long);
    assert_eq!(errno(names.make_node(ROOT, &root, &long, 0o644, NodeKind::Fifo)), too_long);
    assert_eq!(errno(names.make_symlink(ROOT, &root, &long, b"target")), too_long);
    assert_eq!(errno(names.link(ROOT, &file, &root, &long)), too_long);
    assert_eq!(errno(names.unlink(ROOT, &root, &long)), too_long);
    assert_eq!(errno(names.remove_directory(ROOT, &root, &long)), too_long);
    let flags = RenameFlags::empty();
    assert_eq!(errno(names.rename(ROOT, (&root, &long), (&root, b"new"), flags)), too_long);
    assert_eq!(errno(names.rename(ROOT, (&root, b"file"), (&root, &long), flags)), too_long);
    names.create(ROOT, &root, &[b'x'; 255], 0o644).unwrap();
    volume.check();
}

#[test]
fn links_are_fast_up_to_59_bytes_and_fit_a_block() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    for len in [1, 59, 60, 1023] {
        let (name, target) = (format!("{len}"), vec![b't'; len]);
        let link = volume.namespace.make_symlink(ROOT, &root, name.as_bytes(), &target).unwrap();
        assert_eq!(link.core.lock().blocks, if len < 60 { 0 } else { 2 });
        assert_eq!(volume.namespace.read_link(&link).unwrap(), target);
        assert_eq!(mode(&link), 0o777);
    }
    assert_eq!(
        errno(volume.namespace.make_symlink(ROOT, &root, b"x", &[b't'; 1024])),
        Errno::NAMETOOLONG
    );
    assert_eq!(errno(volume.namespace.make_symlink(ROOT, &root, b"x", b"")), Errno::NOENT);
    assert_eq!(errno(volume.namespace.read_link(&root)), Errno::INVAL);
    volume.check();
}

#[test]
fn a_removed_directory_has_no_names_and_gets_none() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dir = volume.make_dir(&root, "dir");
    let gone = volume.namespace.remove_directory(ROOT, &root, b"dir").unwrap();
    assert_eq!(errno(volume.namespace.create(ROOT, &dir, b"file", 0o644)), Errno::NOENT);
    assert_eq!(errno(volume.look_up(&dir, "file")), Errno::NOENT);
    let listing = volume.namespace.read_dir(&dir, DirCursor::default(), &mut |_| unreachable!());
    assert_eq!(errno(listing), Errno::NOENT);
    volume.make_file(&root, "file");
    assert_eq!(
        errno(rename(&volume, (&root, "file"), (&dir, "file"), RenameFlags::empty())),
        Errno::NOENT
    );
    drop(dir);
    volume.evict(gone);
    volume.check();
}

#[test]
fn above_a_removed_directory_there_is_nothing() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let above = volume.make_dir(&root, "above");
    let below = volume.make_dir(&above, "below");
    let gone = volume.namespace.remove_directory(ROOT, &above, b"below").unwrap();
    drop(above);
    volume.evict(volume.namespace.remove_directory(ROOT, &root, b"above").unwrap());
    assert_eq!(errno(volume.look_up(&below, "..")), Errno::NOENT);
    volume.make_dir(&root, "dir");
    assert_eq!(
        errno(rename(&volume, (&root, "dir"), (&below, "dir"), RenameFlags::empty())),
        Errno::NOENT
    );
    drop(below);
    volume.evict(gone);
    volume.check();
}

#[test]
fn projects_are_inherited_and_not_mixed() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dir = volume.make_dir(&root, "dir");
    dir.core.lock().flags |= InodeFlags::PROJINHERIT;
    dir.core.lock().projid = 42;
    assert_eq!(volume.make_file(&dir, "in").core.lock().projid, 42);
    let file = volume.make_file(&root, "out");
    assert_eq!(errno(volume.namespace.link(ROOT, &file, &dir, b"out")), Errno::XDEV);
    assert_eq!(
        errno(rename(&volume, (&root, "out"), (&dir, "out"), RenameFlags::empty())),
        Errno::XDEV
    );
}

#[test]
fn a_full_volume_refuses_names_and_stays_sound() {
    let Some(volume) = Volume::new(1 << 20, &["-b", "1024", "-N", "2000"]) else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    let full = (0..4000).find_map(|n| {
        volume.namespace.make_directory(ROOT, &dir, format!("{n:0200}").as_bytes(), 0o755).err()
    });
    assert_eq!(full.unwrap().errno(), Errno::NOSPC);
    let names = volume.names(&dir);
    assert_eq!(usize::from(links(&dir)), names.len() + 2);
    volume.check();
}

#[test]
fn without_the_key_encrypted_names_are_shown_found_and_removed() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dir = volume.make_dir(&root, "dir");
    let stored = [vec![0x91; 16], vec![0xE7; 200]];
    for name in &stored {
        volume.namespace.create(ROOT, &dir, name, 0o644).unwrap();
    }
    dir.core.lock().flags |= InodeFlags::ENCRYPT;
    let shown = volume.names(&dir);
    assert_eq!(shown.len(), 2);
    for name in &shown {
        assert!(name.len() <= 255 && name.iter().all(u8::is_ascii_graphic));
        volume.namespace.lookup(ROOT, &dir, name).unwrap();
        let gone = volume.namespace.unlink(ROOT, &dir, name).unwrap();
        volume.evict(gone);
    }
    assert_eq!(errno(volume.namespace.lookup(ROOT, &dir, &stored[0])), Errno::NOENT);
    assert_eq!(errno(volume.namespace.create(ROOT, &dir, b"new", 0o644)), Errno::NOKEY);
    volume.make_file(&root, "file");
    assert_eq!(
        errno(rename(&volume, (&root, "file"), (&dir, "file"), RenameFlags::empty())),
        Errno::NOKEY
    );
}

#[test]
fn casefolded_directories_are_searched_by_exact_bytes() {
    let Some(volume) = volume() else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    for n in 0..100 {
        volume.make_file(&dir, &format!("Name{n:030}"));
    }
    dir.core.lock().flags |= InodeFlags::CASEFOLD;
    assert_eq!(volume.names(&dir).len(), 100);
    assert!(volume.look_up(&dir, &format!("Name{:030}", 50)).is_ok());
    assert_eq!(errno(volume.look_up(&dir, &format!("name{:030}", 50))), Errno::NOENT);
}

#[test]
fn a_damaged_directory_that_names_the_root_comes_to_no_deadlock() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dir = volume.make_dir(&root, "dir");
    let file = volume.make_file(&dir, "file");
    for number in [InodeNumber::ROOT, dir.number()] {
        let content = dir.content.write();
        let found = volume.namespace.find_entry(&dir, b"file").unwrap().unwrap();
        volume.change(|handle| {
            volume
                .namespace
                .set_entry(handle, &dir, found.at, number, FileType::Directory)
                .unwrap();
        });
        drop(content);
        assert_eq!(errno(volume.namespace.remove_directory(ROOT, &dir, b"file")), Errno::BUSY);
        assert!(rename(&volume, (&dir, "file"), (&dir, "other"), RenameFlags::empty()).is_err());
        assert!(rename(&volume, (&dir, "file"), (&root, "other"), RenameFlags::empty()).is_err());
    }
    drop(file);
}

#[test]
fn threads_that_move_and_remove_at_once_leave_a_sound_tree() {
    let Some(volume) = volume() else { return };
    let root = volume.root();
    let dirs: Vec<_> = ["a", "b", "c"].map(|name| volume.make_dir(&root, name)).into();
    let gone = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 0..4_usize {
            let (volume, dirs, gone) = (&volume, &dirs, &gone);
            scope.spawn(move || {
                for n in 0..300_usize {
                    let pick = |k: usize| (n * 7 + seed * 13 + k * 31 + n * n % 11) % 3;
                    let (from, to) = (&dirs[pick(0)], &dirs[pick(1)]);
                    let names =
                        [format!("n{}", (n + seed) % 5), format!("n{}", (n * 3 + seed) % 5)];
                    let left = match n % 5 {
                        0 => volume
                            .namespace
                            .create(ROOT, from, names[0].as_bytes(), 0o644)
                            .ok()
                            .filter(|_| false),
                        1 => volume
                            .namespace
                            .make_directory(ROOT, from, names[0].as_bytes(), 0o755)
                            .ok()
                            .filter(|_| false),
                        2 => volume.namespace.unlink(ROOT, from, names[0].as_bytes()).ok(),
                        3 => {
                            volume.namespace.remove_directory(ROOT, from, names[0].as_bytes()).ok()
                        }
                        _ => {
                            let flags = if n % 2 == 0 {
                                RenameFlags::empty()
                            } else {
                                RenameFlags::EXCHANGE
                            };
                            rename(volume, (from, &names[0]), (to, &names[1]), flags).ok().flatten()
                        }
                    };
                    gone.lock().unwrap().extend(left);
                }
            });
        }
    });
    let mut gone = gone.into_inner().unwrap();
    gone.sort_by_key(|inode| inode.number());
    gone.dedup_by_key(|inode| inode.number());
    gone.into_iter().for_each(|inode| volume.evict(inode));
    volume.check();
}
