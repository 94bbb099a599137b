//! Directories inside their inode: what fits, what moves out, and what a listing sees of it (section 10 of the format).

use std::ops::ControlFlow;
use std::sync::Arc;

use extant_format::inode::InodeFlags;

use super::super::{DirCursor, RenameFlags};
use super::volume::Volume;
use crate::caller::Caller;
use crate::inode::Inode;

const ROOT: &Caller = &Caller::ROOT;

fn volume(more: &str) -> Option<Volume> {
    let features = format!("inline_data{more}");
    Volume::new(1 << 20, &["-b", "1024", "-N", "1024", "-I", "256", "-O", &features])
}

fn is_inline(inode: &Inode) -> bool {
    inode.flags().contains(InodeFlags::INLINE_DATA)
}

#[test]
fn a_directory_takes_the_attributes_room_once_and_a_block_then() {
    let Some(volume) = volume("") else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    let mut sizes = vec![dir.size()];
    for n in 0..10 {
        volume.make_file(&dir, &format!("name{n:02}"));
        sizes.push(dir.size());
    }
    // 16 bytes a name: three in 56 bytes, four in 68.
    assert_eq!(sizes, [60, 60, 60, 60, 128, 128, 128, 128, 1024, 1024, 1024]);
    assert!(!is_inline(&dir));
    assert_eq!(dir.core.lock().blocks, 2);
    assert_eq!(volume.names(&dir).len(), 10);
    volume.check();
}

#[test]
fn room_beside_attributes_counts_if_it_is_more_than_an_entry() {
    let Some(volume) = volume("") else { return };
    for (value, size) in [(28, 80), (32, 76), (36, 1024), (48, 1024)] {
        let dir = volume.make_dir(&volume.root(), &format!("dir{value}"));
        volume
            .xattrs
            .set(&dir, b"user.a", Some(&vec![7; value]), crate::xattr::SetHow::Any, ROOT)
            .unwrap();
        for n in 0..5 {
            volume.make_file(&dir, &format!("n{n}"));
        }
        assert_eq!(dir.size(), size, "beside a value of {value} bytes");
        assert_eq!(volume.names(&dir).len(), 5);
    }
    volume.check();
}

#[test]
fn a_directory_beside_full_attributes_begins_with_a_block() {
    let Some(volume) = volume("") else { return };
    let root = volume.root();
    let default = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255,
        255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
    ];
    volume
        .xattrs
        .set(&root, b"system.posix_acl_default", Some(&default), crate::xattr::SetHow::Any, ROOT)
        .unwrap();
    let dir = volume.make_dir(&root, "dir");
    assert!(!is_inline(&dir), "two lists leave no room for an attribute with a value");
    volume.make_file(&dir, "name");
    volume.check();
}

/// Every name of a listing that stops after each one, and after the second goes on only when `meanwhile` is done.
fn listed_in_steps(volume: &Volume, dir: &Arc<Inode>, meanwhile: impl FnOnce()) -> Vec<Vec<u8>> {
    let (mut names, mut cursor, mut meanwhile) =
        (Vec::new(), DirCursor::default(), Some(meanwhile));
    loop {
        let before = names.len();
        volume
            .namespace
            .read_dir(dir, cursor, &mut |listed| {
                names.push(listed.name.to_vec());
                cursor = listed.next;
                ControlFlow::Break(())
            })
            .unwrap();
        if names.len() == before {
            return names;
        }
        if names.len() == 4 {
            meanwhile.take().into_iter().for_each(|work| work());
        }
    }
}

#[test]
fn a_listing_goes_on_where_it_was_when_the_names_move_out() {
    for more in ["", ",^dir_index"] {
        let Some(volume) = volume(more) else { return };
        let dir = volume.make_dir(&volume.root(), "dir");
        for n in 0..6 {
            volume.make_file(&dir, &format!("name{n:02}"));
        }
        assert!(is_inline(&dir));
        let mut listed = listed_in_steps(&volume, &dir, || {
            for n in 0..8 {
                volume.make_file(&dir, &format!("later{n:02}"));
            }
            assert!(!is_inline(&dir));
        });
        listed.retain(|name| !name.starts_with(b"later"));
        listed.sort();
        let mut wanted: Vec<Vec<u8>> = vec![b".".to_vec(), b"..".to_vec()];
        wanted.extend((0..6).map(|n| format!("name{n:02}").into_bytes()));
        assert_eq!(listed, wanted, "with dir_index{more}");
        volume.check();
    }
}

#[test]
fn names_keep_their_places_when_they_move_out() {
    let Some(volume) = volume(",^dir_index") else { return };
    let dir = volume.make_dir(&volume.root(), "dir");
    let places = |dir: &Inode| {
        let mut places = Vec::new();
        let mut sink = |listed: super::super::Listed<'_>| {
            places.push((listed.name.to_vec(), listed.next.position));
            ControlFlow::Continue(())
        };
        volume.namespace.read_dir(dir, DirCursor::default(), &mut sink).unwrap();
        places
    };
    for name in ["first", "second", "third", "fourth"] {
        volume.make_file(&dir, name);
    }
    volume.namespace.unlink(ROOT, &dir, b"second").map(|gone| volume.evict(gone)).unwrap();
    let before = places(&dir);
    assert!(is_inline(&dir));
    volume.make_file(&dir, &"a name that is too long for what is left".repeat(2));
    assert!(!is_inline(&dir));
    let after = places(&dir);
    assert_eq!(after[..before.len() - 1], before[..before.len() - 1]);
    assert_eq!(after.len(), before.len() + 1);
    volume.check();
}

#[test]
fn an_inline_directory_moves_empties_and_goes() {
    let Some(volume) = volume("") else { return };
    let root = volume.root();
    let (a, b) = (volume.make_dir(&root, "a"), volume.make_dir(&root, "b"));
    let below = volume.make_dir(&a, "below");
    let rename = |old: (&Arc<Inode>, &str), new: (&Arc<Inode>, &str)| {
        let (old, new) = ((old.0, old.1.as_bytes()), (new.0, new.1.as_bytes()));
        volume.namespace.rename(ROOT, old, new, RenameFlags::empty())
    };
    rename((&a, "below"), (&b, "moved")).unwrap();
    assert_eq!(volume.namespace.parent(&below).unwrap().number(), b.number());
    assert!(is_inline(&below));
    let links = |dir: &Inode| dir.core.lock().links;
    assert_eq!([links(&a), links(&b)], [2, 3]);
    let file = volume.make_file(&below, "file");
    assert!(volume.namespace.remove_directory(ROOT, &b, b"moved").is_err());
    volume.namespace.unlink(ROOT, &below, b"file").unwrap();
    volume.evict(file);
    let gone = volume.namespace.remove_directory(ROOT, &b, b"moved").unwrap();
    drop(below);
    volume.evict(gone);
    volume.check();
}

#[test]
fn names_stay_in_the_inode_if_there_is_no_block_for_them() {
    let Some(volume) = volume("") else { return };
    let root = volume.root();
    let dir = volume.make_dir(&root, "dir");
    for n in 0..7 {
        volume.make_file(&dir, &format!("name{n:02}"));
    }
    // Links take a block each.
    let mut links = 0;
    while volume
        .namespace
        .make_symlink(ROOT, &root, format!("link{links}").as_bytes(), &[b't'; 900])
        .is_ok()
    {
        links += 1;
    }
    let full = volume.namespace.create(ROOT, &dir, b"one too many", 0o644);
    assert!(full.is_err_and(|error| error.is_no_space()));
    assert!(is_inline(&dir));
    assert_eq!((dir.size(), volume.names(&dir).len()), (128, 7));
    let gone = volume.namespace.unlink(ROOT, &root, b"link0").unwrap();
    volume.evict(gone);
    volume.make_file(&dir, "one more");
    assert_eq!((dir.size(), volume.names(&dir).len()), (1024, 8));
    volume.check();
}

#[test]
fn a_link_of_60_bytes_has_a_block_like_the_kernels() {
    let Some(volume) = volume("") else { return };
    for (len, blocks) in [(1, 0), (59, 0), (60, 2), (100, 2)] {
        let name = format!("link{len}");
        let link = volume
            .namespace
            .make_symlink(ROOT, &volume.root(), name.as_bytes(), &vec![b't'; len])
            .unwrap();
        assert_eq!(link.core.lock().blocks, blocks, "{len} bytes");
        assert!(!is_inline(&link));
        assert_eq!(volume.namespace.read_link(&link).unwrap(), vec![b't'; len]);
    }
    volume.check();
}
