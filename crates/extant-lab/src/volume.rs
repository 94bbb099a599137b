//! A volume as the engine sees it, read as a tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use extant::{Error, Filesystem, Metadata};
use extant_format::cast::u64_from;
use extant_format::crc::crc32c;
use extant_format::{FileType, Timestamp};
use extant_testkit::tree::{Entry, Tree, join};

pub use extant_script::{Volume, read_all};

/// Everything on a volume, as `extant_testkit::tree::read` tells it of a kernel mount.
///
/// # Errors
/// The first thing that cannot be read, with its path.
pub fn tree(filesystem: &Filesystem) -> Result<Tree, String> {
    let (mut tree, mut seen) = (Tree::new(), BTreeMap::new());
    let mut open = vec![OsString::new()];
    while let Some(relative) = open.pop() {
        let path = relative.as_bytes();
        let failed = |error: Error| format!("{}: {error}", OsStr::from_bytes(path).display());
        let metadata = filesystem.symlink_metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            let entries = filesystem.read_dir(path).map_err(failed)?;
            let names = entries.map(|entry| Ok(OsString::from_vec(entry?.name().to_vec())));
            let mut names: Vec<_> = names.collect::<Result<_, Error>>().map_err(failed)?;
            names.sort_by(|a, b| b.cmp(a));
            open.extend(names.into_iter().map(|name| join(&relative, name)));
        }
        let first = seen.entry(metadata.inode).or_insert_with(|| relative.clone());
        let entry = match tree.get(first) {
            Some(known) if !metadata.is_dir() => {
                Entry { same_as: Some(first.clone()), ..Entry::clone(known) }
            }
            _ => entry(filesystem, path, &metadata).map_err(failed)?,
        };
        tree.insert(relative, entry);
    }
    Ok(tree)
}

fn entry(filesystem: &Filesystem, path: &[u8], metadata: &Metadata) -> Result<Entry, Error> {
    let (sum, data) = match metadata.file_type() {
        FileType::Regular => sum_and_data(filesystem, path)?,
        FileType::Symlink => (crc32c(0, &filesystem.read_link(path)?), Vec::new()),
        _ => (0, Vec::new()),
    };
    let mut xattrs = BTreeMap::new();
    for name in filesystem.list_xattrs(path)? {
        let value = filesystem.xattr(path, &name)?;
        xattrs.insert(name, value);
    }
    let time = |time: Timestamp| (time.seconds, i64::from(time.nanoseconds));
    let is_dir = metadata.is_dir();
    Ok(Entry {
        mode: metadata.mode.into(),
        owner: (metadata.uid, metadata.gid),
        accessed: time(metadata.accessed),
        modified: time(metadata.modified),
        changed: time(metadata.changed),
        links: if is_dir { 0 } else { metadata.links.into() },
        size: if is_dir { 0 } else { metadata.size },
        device: metadata.device.unwrap_or((0, 0)),
        sum,
        sparse: metadata.is_file() && metadata.blocks * 512 < metadata.size / 2,
        data,
        xattrs,
        same_as: None,
    })
}

fn sum_and_data(filesystem: &Filesystem, path: &[u8]) -> Result<(u32, Vec<(u64, u64)>), Error> {
    let file = filesystem.open(path)?;
    let (mut data, mut at) = (Vec::new(), 0);
    while let Some(start) = file.seek_data(at)? {
        at = file.seek_hole(start)?.expect("data ends in a hole");
        data.push((start, at));
    }
    let mut sum = 0;
    let mut buffer = vec![0; 1 << 20];
    for (start, end) in extant_testkit::tree::summed(file.metadata()?.size, &data) {
        let mut at = start;
        while at < end {
            let wanted = usize::try_from((end - at).min(1 << 20)).expect("at most the buffer");
            match file.read_at(&mut buffer[..wanted], at)? {
                0 => break,
                count => {
                    sum = crc32c(sum, &buffer[..count]);
                    at += u64_from(count);
                }
            }
        }
    }
    Ok((sum, data))
}
