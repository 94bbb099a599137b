//! The walk through a tree: parents first, names sorted as bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use extant::{Error, FileType, InodeHandle, InodeNumber, Metadata};
use tar::EntryType;

use super::entry::Contents;
use super::header::{self, Head, Records, ZEROS};
use super::{ExportOptions, LeftOut, Observer};
use crate::acl;

/// One export on its way.
pub struct Walk<'a> {
    options: ExportOptions,
    out: &'a mut dyn Write,
    observer: &'a mut dyn Observer,
    /// The path of each file that has names still to come, and how many.
    links: HashMap<InodeNumber, (Vec<u8>, u32)>,
    buffer: Vec<u8>,
}

/// A directory that is open.
struct Level {
    handle: InodeHandle,
    /// Names that are still to be visited, the next one last.
    names: Vec<Vec<u8>>,
    /// Bytes of the path up to here.
    path_len: usize,
}

impl<'a> Walk<'a> {
    pub fn new(
        options: ExportOptions,
        out: &'a mut dyn Write,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self { options, out, observer, links: HashMap::new(), buffer: Vec::new() }
    }

    /// Writes everything from `root` on, and the end.
    pub fn run(mut self, root: &InodeHandle, name: &[u8]) -> io::Result<()> {
        let mut path = Vec::new();
        let mut levels = Vec::new();
        if root.is_dir() {
            self.directory(root, &path)?;
            levels.extend(self.enter(root.clone(), &path));
        } else {
            self.visit(root, name)?;
        }
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            if name.iter().any(|byte| matches!(byte, b'/' | 0))
                || matches!(&name[..], b"" | b"." | b"..")
            {
                path.extend_from_slice(&name);
                self.observer.left_out(&path, &LeftOut::Name);
                continue;
            }
            let child = child_of(&level.handle, &name);
            path.extend_from_slice(&name);
            match child {
                Err(error) => self.observer.left_out(&path, &error.into()),
                Ok(child) if child.is_dir() => {
                    path.push(b'/');
                    if self.directory(&child, &path)? {
                        levels.extend(self.enter(child, &path));
                    }
                }
                Ok(child) => self.visit(&child, &path)?,
            }
        }
        // Two empty records are the end.
        self.out.write_all(&ZEROS[..1024])
    }

    /// Reads the names of a directory, the first one last.
    fn enter(&mut self, handle: InodeHandle, path: &[u8]) -> Option<Level> {
        let mut names = Vec::new();
        let listed = handle.read_dir().and_then(|entries| {
            entries.into_iter().try_for_each(|entry| {
                names.push(entry?.name().to_vec());
                Ok(())
            })
        });
        if let Err(error) = listed {
            self.observer.left_out(path, &error.into());
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Some(Level { handle, names, path_len: path.len() })
    }

    /// Writes a directory's own entry; false if there is none, so that nothing in it has a place.
    fn directory(&mut self, handle: &InodeHandle, path: &[u8]) -> io::Result<bool> {
        let shown: &[u8] = if path.is_empty() { b"./" } else { path };
        self.observer.entry(shown)?;
        let found = handle.metadata().and_then(|metadata| Ok((records(handle)?, metadata)));
        match found {
            Ok((records, metadata)) => {
                let head = Head {
                    path: shown,
                    link: None,
                    kind: EntryType::Directory,
                    size: 0,
                    stand_in: None,
                };
                header::write(self.out, &head, &metadata, self.options, records)?;
                Ok(true)
            }
            Err(error) => {
                self.observer.left_out(shown, &error.into());
                Ok(false)
            }
        }
    }

    /// Writes the entry of anything but a directory.
    fn visit(&mut self, handle: &InodeHandle, path: &[u8]) -> io::Result<()> {
        self.observer.entry(path)?;
        match self.try_visit(handle, path) {
            Ok(written) => written,
            Err(why) => {
                self.observer.left_out(path, &why);
                Ok(())
            }
        }
    }

    /// The outer error is the image's, before anything was written.
    fn try_visit(&mut self, handle: &InodeHandle, path: &[u8]) -> Result<io::Result<()>, LeftOut> {
        let metadata = handle.metadata()?;
        let kind = header::kind_of(&metadata).ok_or(LeftOut::Socket)?;
        let head = Head { path, link: None, kind, size: 0, stand_in: None };
        if let Some(first) = self.first_name(&metadata) {
            let head = Head { link: Some(&first), kind: EntryType::Link, ..head };
            return Ok(header::write(self.out, &head, &metadata, self.options, Records::default()));
        }
        let mut records = records(handle)?;
        let written = match metadata.file_type() {
            FileType::Regular => {
                let contents = Contents::open(handle, &metadata)?;
                contents.records(path, metadata.size, &mut records);
                let name = || format!("GNUSparseFile.0/{}", metadata.inode.get()).into_bytes();
                let stand_in = contents.is_sparse().then(name);
                let head = Head { size: contents.stored_bytes(), stand_in, ..head };
                header::write(self.out, &head, &metadata, self.options, records)
                    .and_then(|()| self.contents(&contents, path))
            }
            FileType::Symlink => {
                let target = handle.read_link()?;
                let head = Head { link: Some(&target), ..head };
                header::write(self.out, &head, &metadata, self.options, records)
            }
            _ => header::write(self.out, &head, &metadata, self.options, records),
        };
        self.remember(&metadata, path);
        Ok(written)
    }

    fn contents(&mut self, contents: &Contents, path: &[u8]) -> io::Result<()> {
        let observer = &mut *self.observer;
        let failed = contents.write(self.out, &mut self.buffer, &mut |count| {
            observer.bytes(count);
            Ok(())
        })?;
        if let Some(error) = failed {
            self.observer.left_out(path, &error.into());
        }
        Ok(())
    }

    /// The path under which a file is in the tar already.
    fn first_name(&mut self, metadata: &Metadata) -> Option<Vec<u8>> {
        let (path, left) = self.links.get_mut(&metadata.inode)?;
        *left = left.saturating_sub(1);
        let first = path.clone();
        if *left == 0 {
            self.links.remove(&metadata.inode);
        }
        Some(first)
    }

    fn remember(&mut self, metadata: &Metadata, path: &[u8]) {
        if metadata.links > 1 {
            self.links.insert(metadata.inode, (path.to_vec(), metadata.links - 1));
        }
    }
}

/// What has the name in a directory; a directory in a circle of damaged ones is refused.
fn child_of(directory: &InodeHandle, name: &[u8]) -> Result<InodeHandle, Error> {
    let child = directory.lookup(name)?;
    child.check_parent(directory.number())?;
    Ok(child)
}

/// Extended attributes, access lists among them.
fn records(handle: &InodeHandle) -> Result<Records, Error> {
    let mut names = handle.list_xattrs()?;
    names.sort_unstable();
    let mut records = Records::default();
    for name in names {
        let value = handle.xattr(&name)?;
        let words = match &name[..] {
            b"system.posix_acl_access" => Some("SCHILY.acl.access"),
            b"system.posix_acl_default" => Some("SCHILY.acl.default"),
            _ => None,
        };
        if let Some((keyword, list)) = words.zip(acl::show_with_numbers(&value)) {
            records.push(keyword.as_bytes(), list.as_bytes());
        }
        records.attribute(&name, &value);
    }
    Ok(records)
}
