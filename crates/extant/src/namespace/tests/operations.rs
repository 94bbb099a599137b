//! Trees against a plain model, and e2fsck as the judge of what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use extant_format::FileType;
use extant_testkit::oracle;
use proptest::prelude::*;

use super::super::{NodeKind, RenameFlags};
use super::volume::Volume;
use crate::Error;
use crate::caller::Caller;
use crate::error::Errno;
use crate::inode::Inode;

const SMALL: &[&str] = &["-b", "1024", "-N", "4096"];
const INLINE: &[&str] = &["-b", "1024", "-O", "inline_data", "-N", "4096"];
const PLAIN: &[&str] =
    &["-b", "1024", "-O", "^metadata_csum,^dir_index,^extents,^64bit", "-N", "4096"];
const LARGE: &[&str] = &["-b", "1024", "-O", "large_dir,ea_inode", "-N", "20000"];

/// What a path should be.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Node {
    Dir,
    File(u32),
    Link(u32, Vec<u8>),
}

type Model = BTreeMap<Vec<&'static str>, Node>;

const NAMES: [&str; 6] =
    ["a", "b", "cc", "a-name-of-some-forty-bytes-so-that-blocks-fill", "d", "e"];

#[derive(Clone, Debug)]
enum Step {
    Create(Vec<usize>),
    MakeDir(Vec<usize>),
    Symlink(Vec<usize>, usize),
    Link(Vec<usize>, Vec<usize>),
    Unlink(Vec<usize>),
    RemoveDir(Vec<usize>),
    Rename(Vec<usize>, Vec<usize>),
    Exchange(Vec<usize>, Vec<usize>),
}

fn path() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => path().prop_map(Step::Create),
        4 => path().prop_map(Step::MakeDir),
        1 => (path(), 1..200_usize).prop_map(|(path, len)| Step::Symlink(path, len)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::RemoveDir),
        5 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Exchange(from, to)),
    ]
}

fn names_of(path: &[usize]) -> Vec<&'static str> {
    path.iter().map(|&i| NAMES[i]).collect()
}

fn walk(volume: &Volume, path: &[&str]) -> Result<Arc<Inode>, Error> {
    path.iter().try_fold(volume.root(), |dir, name| volume.look_up(&dir, name))
}

/// What the model says of the directory that a path ends in.
fn parent(model: &Model, path: &[&'static str]) -> Result<(), Errno> {
    for len in 1..path.len() {
        match model.get(&path[..len]) {
            Some(Node::Dir) => {}
            Some(_) => return Err(Errno::NOTDIR),
            None => return Err(Errno::NOENT),
        }
    }
    Ok(())
}

fn below(model: &Model, path: &[&'static str]) -> Vec<Vec<&'static str>> {
    model
        .keys()
        .filter(|other| other.len() > path.len() && other.starts_with(path))
        .cloned()
        .collect()
}

fn move_tree(
    model: &mut Model,
    from: &[&'static str],
    to: &[&'static str],
) -> Vec<(Vec<&'static str>, Node)> {
    let mut paths = below(model, from);
    paths.push(from.to_vec());
    let moved = |path: Vec<&'static str>, model: &mut Model| {
        let node = model.remove(&path).unwrap();
        ([to, &path[from.len()..]].concat(), node)
    };
    paths.into_iter().map(|path| moved(path, model)).collect()
}

/// What the kernel would do, on the model.
fn expect(model: &mut Model, step: &Step, next_file: &mut u32) -> Result<(), Errno> {
    let free = |model: &Model, path: &[&'static str]| {
        parent(model, path)?;
        if model.contains_key(path) { Err(Errno::EXIST) } else { Ok(()) }
    };
    match step {
        Step::Create(path) | Step::MakeDir(path) | Step::Symlink(path, _) => {
            let path = names_of(path);
            free(model, &path)?;
            *next_file += 1;
            let node = match step {
                Step::Create(_) => Node::File(*next_file),
                Step::MakeDir(_) => Node::Dir,
                Step::Symlink(_, len) => Node::Link(*next_file, vec![b't'; *len]),
                _ => unreachable!(),
            };
            model.insert(path, node);
        }
        Step::Link(from, to) => {
            let (from, to) = (names_of(from), names_of(to));
            parent(model, &from)?;
            let node = model.get(&from).cloned().ok_or(Errno::NOENT)?;
            if node == Node::Dir {
                return Err(Errno::PERM);
            }
            free(model, &to)?;
            model.insert(to, node);
        }
        Step::Unlink(path) => {
            let path = names_of(path);
            parent(model, &path)?;
            match model.get(&path) {
                None => return Err(Errno::NOENT),
                Some(Node::Dir) => return Err(Errno::ISDIR),
                Some(_) => model.remove(&path),
            };
        }
        Step::RemoveDir(path) => {
            let path = names_of(path);
            parent(model, &path)?;
            match model.get(&path) {
                None => return Err(Errno::NOENT),
                Some(Node::Dir) if below(model, &path).is_empty() => model.remove(&path),
                Some(Node::Dir) => return Err(Errno::NOTEMPTY),
                Some(_) => return Err(Errno::NOTDIR),
            };
        }
        Step::Rename(from, to) => expect_move(model, &names_of(from), &names_of(to), false)?,
        Step::Exchange(from, to) => expect_move(model, &names_of(from), &names_of(to), true)?,
    }
    Ok(())
}

fn expect_move(
    model: &mut Model,
    from: &[&'static str],
    to: &[&'static str],
    exchange: bool,
) -> Result<(), Errno> {
    parent(model, from)?;
    parent(model, to)?;
    let old = model.get(from).cloned().ok_or(Errno::NOENT)?;
    let new = model.get(to).cloned();
    if exchange && new.is_none() {
        return Err(Errno::NOENT);
    }
    if to.len() > from.len() && to.starts_with(from) {
        return Err(Errno::INVAL);
    }
    if from.len() > to.len() && from.starts_with(to) {
        return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
    }
    if from == to || (old != Node::Dir && Some(&old) == new.as_ref()) {
        return Ok(());
    }
    if exchange {
        let mut moved = move_tree(model, from, to);
        moved.extend(move_tree(model, to, from));
        model.extend(moved);
        return Ok(());
    }
    match (&old, &new) {
        (Node::Dir, Some(Node::Dir)) if below(model, to).is_empty() => {}
        (Node::Dir, Some(Node::Dir)) => return Err(Errno::NOTEMPTY),
        (Node::Dir, Some(_)) => return Err(Errno::NOTDIR),
        (_, Some(Node::Dir)) => return Err(Errno::ISDIR),
        _ => {}
    }
    model.remove(to);
    let moved = move_tree(model, from, to);
    model.extend(moved);
    Ok(())
}

/// The same on the volume.
fn run(volume: &Volume, step: &Step) -> Result<(), Error> {
    let names = &volume.namespace;
    let root = &Caller::ROOT;
    let split = |path: &Vec<usize>| {
        let mut path = names_of(path);
        let name = path.pop().unwrap();
        let dir = walk(volume, &path)?;
        let is_dir = dir.file_type() == FileType::Directory;
        if is_dir { Ok((dir, name.as_bytes())) } else { Err(Error::NotDirectory) }
    };
    match step {
        Step::Create(path) => {
            let (dir, name) = split(path)?;
            names.create(root, &dir, name, 0o644).map(|_| ())
        }
        Step::MakeDir(path) => {
            let (dir, name) = split(path)?;
            names.make_directory(root, &dir, name, 0o755).map(|_| ())
        }
        Step::Symlink(path, len) => {
            let (dir, name) = split(path)?;
            names.make_symlink(root, &dir, name, &vec![b't'; *len]).map(|_| ())
        }
        Step::Link(from, to) => {
            let inode = walk(volume, &names_of(from))?;
            let (dir, name) = match split(to) {
                Err(_) if inode.file_type() == FileType::Directory => {
                    return Err(Error::NotPermitted);
                }
                found => found?,
            };
            names.link(root, &inode, &dir, name)
        }
        Step::Unlink(path) => {
            let (dir, name) = split(path)?;
            volume.evict(names.unlink(root, &dir, name)?);
            Ok(())
        }
        Step::RemoveDir(path) => {
            let (dir, name) = split(path)?;
            volume.evict(names.remove_directory(root, &dir, name)?);
            Ok(())
        }
        Step::Rename(from, to) | Step::Exchange(from, to) => {
            let (old, new) = (split(from)?, split(to)?);
            let flags = match step {
                Step::Exchange(..) => RenameFlags::EXCHANGE,
                _ => RenameFlags::empty(),
            };
            let gone = names.rename(root, (&old.0, old.1), (&new.0, new.1), flags)?;
            drop((old, new));
            gone.into_iter().for_each(|gone| volume.evict(gone));
            Ok(())
        }
    }
}

fn check_tree(volume: &Volume, model: &Model) {
    let mut dirs = vec![vec![]];
    dirs.extend(model.iter().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| path.clone()));
    for path in dirs {
        let dir = walk(volume, &path).unwrap();
        let mut wanted: Vec<_> = model
            .keys()
            .filter(|other| other.len() == path.len() + 1 && other.starts_with(&path))
            .map(|other| other.last().unwrap().as_bytes().to_vec())
            .collect();
        if path.is_empty() {
            wanted.push(b"lost+found".to_vec());
        }
        wanted.sort();
        assert_eq!(volume.names(&dir), wanted);
    }
    let mut files: BTreeMap<u32, _> = BTreeMap::new();
    for (path, node) in model {
        let inode = walk(volume, path).unwrap();
        match node {
            Node::Dir => assert_eq!(inode.file_type(), FileType::Directory),
            Node::Link(_, target) => {
                assert_eq!(&volume.namespace.read_link(&inode).unwrap(), target)
            }
            Node::File(id) => {
                let number = *files.entry(*id).or_insert(inode.number());
                assert_eq!(number, inode.number());
            }
        }
    }
}

fn exercise(options: &[&str], steps: &[Step]) {
    let Some(volume) = Volume::new(8 << 20, options) else { return };
    let (mut model, mut next_file) = (Model::new(), 0);
    for step in steps {
        let expected = expect(&mut model, step, &mut next_file);
        let result = run(&volume, step).map_err(|error| error.errno());
        assert_eq!(result, expected, "{step:?}");
    }
    check_tree(&volume, &model);
    volume.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_tree_agrees_with_its_model(steps in prop::collection::vec(step(), 1..150)) {
        exercise(SMALL, &steps);
    }

    #[test]
    fn a_tree_of_inline_directories_agrees_with_its_model(steps in prop::collection::vec(step(), 1..150)) {
        exercise(INLINE, &steps);
    }

    #[test]
    fn a_tree_without_newer_features_agrees_with_its_model(steps in prop::collection::vec(step(), 1..150)) {
        exercise(PLAIN, &steps);
    }
}

#[test]
fn e2fsck_and_debugfs_read_a_large_directory() {
    for (options, long) in [(SMALL, 200), (LARGE, 200), (PLAIN, 60)] {
        let Some(volume) = Volume::new(32 << 20, options) else { return };
        let dir = volume.make_dir(&volume.root(), "dir");
        for n in 0..1500 {
            volume.make_file(&dir, &format!("{n:0long$}"));
        }
        volume.check();
        let listing = oracle::debugfs(&volume.image(), "ls -p /dir").unwrap();
        assert_eq!(listing.lines().filter(|line| line.contains("/100644/")).count(), 1500);
        if options != PLAIN {
            let tree = oracle::debugfs(&volume.image(), "htree /dir").unwrap();
            assert!(tree.contains("Indirect levels: 1"), "{tree}");
        }
        for n in (0..1500).filter(|n| n % 3 != 0) {
            let gone =
                volume.namespace.unlink(&Caller::ROOT, &dir, format!("{n:0long$}").as_bytes());
            volume.evict(gone.unwrap());
        }
        assert_eq!(volume.names(&dir).len(), 500);
        volume.check();
    }
}

#[test]
fn what_debugfs_makes_is_read() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let image = volume.image();
    let mut commands = String::from("mkdir dir\ncd dir\nsymlink fast target\n");
    commands += &format!("symlink slow {}\nmknod fifo p\nmknod device c 3 700\n", "t".repeat(100));
    oracle::debugfs_write(&image, &commands).unwrap();
    let volume = volume.reopen(&image);
    let dir = volume.look_up(&volume.root(), "dir").unwrap();
    let target = |name| volume.namespace.read_link(&volume.look_up(&dir, name).unwrap()).unwrap();
    assert_eq!(target("fast"), b"target");
    assert_eq!(target("slow"), [b't'; 100]);
    assert_eq!(volume.look_up(&dir, "fifo").unwrap().file_type(), FileType::Fifo);
    let device = volume.look_up(&dir, "device").unwrap();
    assert_eq!(device.core.lock().device(), (3, 700));
}

#[test]
fn the_kinds_of_special_files_are_as_debugfs_sees_them() {
    let Some(volume) = Volume::new(8 << 20, SMALL) else { return };
    let root = volume.root();
    let make = |name: &str, kind| {
        volume.namespace.make_node(&Caller::ROOT, &root, name.as_bytes(), 0o600, kind).unwrap();
    };
    make("fifo", NodeKind::Fifo);
    make("socket", NodeKind::Socket);
    make("old", NodeKind::CharacterDevice(5, 200));
    make("new", NodeKind::BlockDevice(300, 70_000));
    volume.check();
    let image = volume.image();
    let stat = |name: &str| oracle::debugfs(&image, &format!("stat {name}")).unwrap();
    assert!(stat("fifo").contains("Type: FIFO"));
    assert!(stat("socket").contains("Type: socket"));
    assert!(stat("old").contains("05:200 "), "{}", stat("old"));
    assert!(stat("new").contains("300:70000"), "{}", stat("new"));
}
