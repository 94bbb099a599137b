//! A tree of real files as plain data, to be compared with another: what `diff -r` and `stat` would see.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use extant_format::crc::crc32c;

/// What can be seen of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Names.
    pub links: u64,
    /// Bytes of a regular file, length of a link's target.
    pub size: u64,
    /// Device number of a device file.
    pub device: u64,
    /// Sum of the bytes, or of the link's target.
    pub sum: u32,
    /// Whether fewer blocks are used than the size asks for.
    pub sparse: bool,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, that leads to the same file.
    pub same_as: Option<OsString>,
}

/// Reads everything below `root`, which itself is the entry of the empty path.
///
/// # Errors
/// The first file that cannot be read.
pub fn read(root: &Path) -> io::Result<BTreeMap<OsString, Entry>> {
    let mut tree = BTreeMap::new();
    let mut seen = BTreeMap::new();
    let mut open = vec![OsString::new()];
    while let Some(relative) = open.pop() {
        let path = if relative.is_empty() { root.to_owned() } else { root.join(&relative) };
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
            // The last is looked at first, so that the walk goes by rising name.
            names.sort_by(|a, b| b.cmp(a));
            open.extend(names.into_iter().map(|name| join(&relative, name)));
        }
        let same_as = seen.get(&metadata.ino()).cloned();
        seen.entry(metadata.ino()).or_insert_with(|| relative.clone());
        tree.insert(relative, entry(&path, &metadata, same_as)?);
    }
    Ok(tree)
}

/// The ways in which two trees differ, one line each; `ignore` is told path and field and may excuse it.
pub fn differences(
    left: &BTreeMap<OsString, Entry>,
    right: &BTreeMap<OsString, Entry>,
    ignore: impl Fn(&Path, &str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, a) in left {
        let shown = Path::new(path);
        let Some(b) = right.get(path) else {
            if !ignore(shown, "missing") {
                found.push(format!("{}: only on the left", shown.display()));
            }
            continue;
        };
        let mut compare = |field: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            let (a, b) = (format!("{a:?}"), format!("{b:?}"));
            if a != b && !ignore(shown, field) {
                found.push(format!("{}: {field} {a} against {b}", shown.display()));
            }
        };
        compare("mode", &a.mode, &b.mode);
        compare("owner", &a.owner, &b.owner);
        compare("modified", &a.modified, &b.modified);
        compare("links", &a.links, &b.links);
        compare("size", &a.size, &b.size);
        compare("device", &a.device, &b.device);
        compare("sum", &a.sum, &b.sum);
        compare("sparse", &a.sparse, &b.sparse);
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

fn join(relative: &OsString, name: OsString) -> OsString {
    if relative.is_empty() { name } else { Path::new(relative).join(name).into_os_string() }
}

fn entry(path: &Path, metadata: &fs::Metadata, same_as: Option<OsString>) -> io::Result<Entry> {
    let kind = metadata.file_type();
    let sum = if kind.is_file() {
        sum_of(path)?
    } else if kind.is_symlink() {
        crc32c(0, fs::read_link(path)?.as_os_str().as_bytes())
    } else {
        0
    };
    let is_dir = kind.is_dir();
    Ok(Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        links: if is_dir { 0 } else { metadata.nlink() },
        size: if is_dir { 0 } else { metadata.size() },
        device: metadata.rdev(),
        sum,
        sparse: kind.is_file() && metadata.blocks() * 512 < metadata.size() / 2,
        xattrs: xattrs(path)?,
        same_as: same_as.filter(|_| !is_dir),
    })
}

fn sum_of(path: &Path) -> io::Result<u32> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            n => sum = crc32c(sum, &buffer[..n]),
        }
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0_u8; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
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
