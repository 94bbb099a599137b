use std::io::{Read, Write};
use std::sync::Arc;

use extant::namespace::NodeKind;
use extant::{Filesystem, MemoryDevice, MountOptions};

use super::*;
use crate::{MkfsOptions, mkfs};

fn filesystem() -> Filesystem {
    let device = Arc::new(MemoryDevice::new(64 << 20));
    mkfs(&device, &MkfsOptions::default()).unwrap();
    MountOptions::new().mount(device).unwrap()
}

/// Remembers what it is told.
#[derive(Default)]
struct Told {
    entries: Vec<String>,
    left_out: Vec<String>,
}

impl Observer for Told {
    fn entry(&mut self, path: &[u8]) -> io::Result<()> {
        self.entries.push(String::from_utf8_lossy(path).into_owned());
        Ok(())
    }

    fn left_out(&mut self, path: &[u8], why: &LeftOut) {
        self.left_out.push(format!("{}: {why}", String::from_utf8_lossy(path)));
    }
}

fn exported(filesystem: &Filesystem, path: &str) -> (Vec<u8>, Told) {
    let (mut out, mut told) = (Vec::new(), Told::default());
    let root = filesystem.symlink_inode(path).unwrap();
    export(&root, b"one", ExportOptions::default(), &mut out, &mut told).unwrap();
    (out, told)
}

#[test]
fn parents_come_first_and_names_are_sorted_as_bytes() {
    let filesystem = filesystem();
    for path in ["/b/z", "/b/a", "/a/\u{e4}", "/a/Z"] {
        filesystem.create_dir_all(path).unwrap();
    }
    filesystem.create("/b-file").unwrap();
    let (_, told) = exported(&filesystem, "/");
    let order = ["./", "a/", "a/Z/", "a/\u{e4}/", "b/", "b/a/", "b/z/", "b-file", "lost+found/"];
    assert_eq!(told.entries, order);
    assert_eq!(exported(&filesystem, "/b").1.entries, ["./", "a/", "z/"]);
    assert_eq!(exported(&filesystem, "/b-file").1.entries, ["one"]);
}

#[test]
fn contents_links_and_devices_are_read_back_by_another_reader() {
    let filesystem = filesystem();
    let long = "n".repeat(200);
    filesystem.create(format!("/{long}")).unwrap().write_all(b"long name").unwrap();
    filesystem.create("/f").unwrap().write_all(&[5; 3000]).unwrap();
    filesystem.set_owner("/f", Some(3_000_000), Some(7)).unwrap();
    filesystem.hard_link("/f", "/g").unwrap();
    filesystem.symlink(&long, "/h").unwrap();
    filesystem.mknod("/i", NodeKind::CharacterDevice(5, 300), 0o600).unwrap();
    filesystem.mknod("/s", NodeKind::Socket, 0o600).unwrap();
    let (bytes, told) = exported(&filesystem, "/");
    assert_eq!(told.left_out, ["s: a socket cannot be in a tar, and is left out"]);
    assert_eq!(bytes.len() % 512, 0);
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let link = entry.link_name_bytes().map(|link| link.len());
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        seen.push((
            path,
            entry.header().entry_type(),
            link,
            contents.len(),
            entry.header().uid().unwrap(),
        ));
    }
    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};
    let expected = [
        ("./".to_owned(), Directory, None, 0, 0),
        ("f".to_owned(), Regular, None, 3000, 3_000_000),
        ("g".to_owned(), Link, Some(1), 0, 3_000_000),
        ("h".to_owned(), Symlink, Some(200), 0, 0),
        ("i".to_owned(), Char, None, 0, 0),
        ("lost+found/".to_owned(), Directory, None, 0, 0),
        (long, Regular, None, 9, 0),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn holes_are_not_written() {
    let filesystem = filesystem();
    let file = filesystem.create("/sparse").unwrap();
    file.write_at(&[1; 4096], 1 << 30).unwrap();
    file.set_len(2 << 30).unwrap();
    let (bytes, told) = exported(&filesystem, "/sparse");
    assert!(bytes.len() < 16 << 10 && told.left_out.is_empty());
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("GNU.sparse.realsize=2147483648\n")
            && text.contains("2\n1073741824\n4096\n2147483648\n0\n")
    );
}

#[test]
fn an_export_ends_when_nobody_wants_it() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let filesystem = filesystem();
    let root = filesystem.root().unwrap();
    let ended = export(&root, b"", ExportOptions::default(), &mut Full, &mut Told::default());
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
