//! A tree of files as plain data, to be compared with another: what `diff -r`, `stat` and `getfattr` would see.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use extant_format::cast::u64_from;
use extant_format::crc::crc32c;
use rustix::io::Errno;

/// Everything below a root, by path; the root itself has the empty path.
pub type Tree = BTreeMap<OsString, Entry>;

/// What can be seen of one file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Time of access: seconds and nanoseconds.
    pub accessed: (i64, i64),
    /// Time of modification.
    pub modified: (i64, i64),
    /// Time of the last change of the attributes.
    pub changed: (i64, i64),
    /// Names; not counted for a directory.
    pub links: u64,
    /// Bytes of a regular file, length of a link's target; not told for a directory.
    pub size: u64,
    /// Major and minor number of a device file.
    pub device: (u32, u32),
    /// Sum of the bytes, or of the link's target.
    pub sum: u32,
    /// Whether fewer blocks are used than half the size asks for.
    pub sparse: bool,
    /// Where a regular file has data: byte ranges, holes left out.
    pub data: Vec<(u64, u64)>,
    /// Extended attributes by name, ACLs among them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, that leads to the same file.
    pub same_as: Option<OsString>,
}

/// Reads everything below `root` without leaving its file system.
///
/// # Errors
/// The first file that cannot be read.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut seen = BTreeMap::new();
    let mut open = vec![OsString::new()];
    while let Some(relative) = open.pop() {
        let path = if relative.is_empty() { root.to_owned() } else { root.join(&relative) };
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            let names = fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name()));
            let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
            // The last is looked at first, so that the walk goes by rising name.
            names.sort_by(|a, b| b.cmp(a));
            open.extend(names.into_iter().map(|name| join(&relative, name)));
        }
        let first = seen.entry(metadata.ino()).or_insert_with(|| relative.clone());
        let entry = match tree.get(first) {
            Some(known) if !metadata.is_dir() => {
                Entry { same_as: Some(first.clone()), ..Entry::clone(known) }
            }
            _ => {
                let with_path = |error| io::Error::other(format!("{}: {error}", path.display()));
                entry(&path, &metadata).map_err(with_path)?
            }
        };
        tree.insert(relative, entry);
    }
    Ok(tree)
}

/// The ways in which two trees differ, one line each; `ignore` is told path and field and may excuse it.
pub fn differences(left: &Tree, right: &Tree, ignore: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, a) in left {
        let shown = Path::new(path);
        let Some(b) = right.get(path) else {
            if !ignore(shown, "missing") {
                found.push(format!("{}: only on the left", shown.display()));
            }
            continue;
        };
        let mut compare = |field: &str, a: &dyn Debug, b: &dyn Debug| {
            let (a, b) = (format!("{a:?}"), format!("{b:?}"));
            if a != b && !ignore(shown, field) {
                found.push(format!("{}: {field} {a} against {b}", shown.display()));
            }
        };
        compare("mode", &a.mode, &b.mode);
        compare("owner", &a.owner, &b.owner);
        compare("accessed", &a.accessed, &b.accessed);
        compare("modified", &a.modified, &b.modified);
        compare("changed", &a.changed, &b.changed);
        compare("links", &a.links, &b.links);
        compare("size", &a.size, &b.size);
        compare("device", &a.device, &b.device);
        compare("sum", &a.sum, &b.sum);
        compare("sparse", &a.sparse, &b.sparse);
        compare("data", &a.data, &b.data);
        compare("xattrs", &a.xattrs, &b.xattrs);
        compare("same_as", &a.same_as, &b.same_as);
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        if !ignore(Path::new(path), "missing") {
            found.push(format!("{}: only on the right", Path::new(path).display()));
        }
    }
    found
}

/// `name` in the directory `relative`, as a key of a [`Tree`].
pub fn join(relative: &OsString, name: OsString) -> OsString {
    if relative.is_empty() { name } else { Path::new(relative).join(name).into_os_string() }
}

fn entry(path: &Path, metadata: &fs::Metadata) -> io::Result<Entry> {
    let kind = metadata.file_type();
    let (sum, data) = if kind.is_file() {
        sum_and_data(path)?
    } else if kind.is_symlink() {
        (crc32c(0, fs::read_link(path)?.as_os_str().as_bytes()), Vec::new())
    } else {
        (0, Vec::new())
    };
    let is_dir = kind.is_dir();
    let device = metadata.rdev();
    Ok(Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        accessed: (metadata.atime(), metadata.atime_nsec()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        links: if is_dir { 0 } else { metadata.nlink() },
        size: if is_dir { 0 } else { metadata.size() },
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        sum,
        sparse: kind.is_file() && metadata.blocks() * 512 < metadata.size() / 2,
        data,
        xattrs: xattrs(path)?,
        same_as: None,
    })
}

fn sum_and_data(path: &Path) -> io::Result<(u32, Vec<(u64, u64)>)> {
    let file = fs::File::open(path)?;
    let data = data_ranges(&file)?;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    for (mut at, end) in summed(file.metadata()?.len(), &data) {
        while at < end {
            let wanted = usize::try_from(end - at).map_or(buffer.len(), |n| n.min(buffer.len()));
            match file.read_at(&mut buffer[..wanted], at)? {
                0 => break,
                n => {
                    sum = crc32c(sum, &buffer[..n]);
                    at += u64_from(n);
                }
            }
        }
    }
    Ok((sum, data))
}

/// Which bytes of a file of `size` bytes go into [`Entry::sum`]: all, or of a very large file those that are data.
pub fn summed(size: u64, data: &[(u64, u64)]) -> Vec<(u64, u64)> {
    if size > 256 << 20 { data.to_vec() } else { vec![(0, size)] }
}

fn data_ranges(file: &fs::File) -> io::Result<Vec<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let (mut ranges, mut at) = (Vec::new(), 0);
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(ranges),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        ranges.push((start, at));
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0_u8; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in list[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let len = rustix::fs::lgetxattr(path, OsString::from_vec(name.to_vec()), &mut value[..])?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Scratch;

    #[test]
    fn every_difference_has_its_line() {
        let scratch = Scratch::new("tree");
        let root = scratch.path("a");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), b"text").unwrap();
        fs::hard_link(root.join("d/f"), root.join("z")).unwrap();
        std::os::unix::fs::symlink("d/f", root.join("l")).unwrap();
        let before = read(&root).unwrap();
        assert_eq!(before.len(), 5);
        assert_eq!(before[&OsString::from("z")].same_as, Some("d/f".into()));
        assert_eq!(before[&OsString::from("z")].data, [(0, 4)]);
        fs::write(root.join("z"), b"tent").unwrap();
        fs::remove_file(root.join("l")).unwrap();
        let times = ["accessed", "modified", "changed"];
        let ignore = |path: &Path, field: &str| path == Path::new("") || times.contains(&field);
        let lines = differences(&before, &read(&root).unwrap(), ignore);
        let starts = ["d/f: sum", "l: only on the left", "z: sum"];
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
        assert_eq!(lines.len(), 3);
    }
}
