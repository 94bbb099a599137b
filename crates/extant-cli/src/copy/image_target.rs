//! Makes files inside an image.

use extant::namespace::NodeKind;
use extant::{Error, File, Filesystem, InodeHandle, OpenOptions, SetAttributes};
use extant_format::InodeNumber;
use extant_format::cast::u64_from;

use super::image_node::id;
use super::links::Kept;
use super::settings::{Policy, is_access_list};
use super::stream::{Attributes, Entry, Place};
use super::target::{Found, Target};
use crate::times::source_date;

/// A directory inside an image, and what was made in it so far.
#[derive(Debug)]
pub struct ImageTarget {
    filesystem: Filesystem,
    policy: Policy,
    stack: Vec<Directory>,
    file: Option<OpenedFile>,
    /// Files with several names: number and generation, since to keep them in memory would take too much.
    links: Kept<(InodeNumber, u32)>,
    /// `SOURCE_DATE_EPOCH` is set.
    is_dated: bool,
}

/// A directory that was entered.
#[derive(Debug)]
struct Directory {
    handle: InodeHandle,
    path: Vec<u8>,
    attributes: Attributes,
    /// Made by us, so nothing in it has to be looked for.
    is_new: bool,
    /// What is made in it gets its permissions from the directory's access list instead of the umask.
    has_default_list: bool,
}

/// The file that is being written.
#[derive(Debug)]
struct OpenedFile {
    file: File,
    name: Vec<u8>,
    attributes: Attributes,
    end: u64,
    is_new: bool,
}

impl ImageTarget {
    /// Files will be made in the directory at `path`.
    pub fn new(filesystem: &Filesystem, path: &[u8], policy: Policy) -> anyhow::Result<Self> {
        let handle = filesystem.inode(path)?;
        if !handle.is_dir() {
            return Err(Error::NotDirectory.into());
        }
        let (filesystem, links) = (filesystem.clone(), Kept::default());
        let is_dated = source_date()?.is_some();
        let mut target =
            Self { filesystem, policy, stack: Vec::new(), file: None, links, is_dated };
        target.push(handle, path.to_vec(), Attributes::default(), false)?;
        Ok(target)
    }

    fn top(&self) -> &Directory {
        self.stack.last().expect("the first directory is never left")
    }

    fn push(
        &mut self,
        handle: InodeHandle,
        path: Vec<u8>,
        attributes: Attributes,
        is_new: bool,
    ) -> anyhow::Result<()> {
        // A directory of our own has the list of the one that it is in.
        let has_default_list = match (self.policy.keep_mode, is_new) {
            (true, _) => false,
            (false, true) => self.top().has_default_list,
            (false, false) => match handle.xattr(b"system.posix_acl_default") {
                Ok(_) => true,
                Err(Error::NoAttribute | Error::NotSupported(_)) => false,
                Err(error) => return Err(error.into()),
            },
        };
        self.stack.push(Directory { handle, path, attributes, is_new, has_default_list });
        Ok(())
    }

    /// Permissions of a new file: what is not kept is only as far as `allowed` and the umask let it.
    fn mode(&self, attributes: &Attributes, allowed: u16) -> u16 {
        match (self.policy.keep_mode, self.top().has_default_list) {
            (true, _) => attributes.mode,
            (false, true) => attributes.mode & allowed,
            (false, false) => attributes.mode & allowed & !self.policy.umask,
        }
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let path = &self.top().path;
        let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
        [path, slash, name].concat()
    }

    fn remember(&mut self, link: Option<u32>, handle: &InodeHandle) -> Result<(), Error> {
        if let Some(link) = link {
            self.links.keep(link, (handle.number(), handle.metadata()?.generation));
        }
        Ok(())
    }

    /// Sets what creating the file did not.
    fn finish(
        &self,
        handle: &InodeHandle,
        attributes: &Attributes,
        is_new: bool,
    ) -> Result<(), Error> {
        let with_mode = self.policy.keep_mode && !handle.is_symlink();
        if attributes.owner.is_some() || attributes.times.is_some() || (with_mode && !is_new) {
            handle.set_attributes(&SetAttributes {
                mode: with_mode.then_some(attributes.mode),
                uid: attributes.owner.map(|(uid, _)| uid),
                gid: attributes.owner.map(|(_, gid)| gid),
                // When a source was read last changes by reading it, and the same input shall make the same bytes.
                accessed: attributes.times.map(
                    |(accessed, modified)| {
                        if self.is_dated { modified } else { accessed }
                    },
                ),
                modified: attributes.times.map(|(_, modified)| modified),
                ..SetAttributes::default()
            })?;
        }
        // After the owner, since another owner takes capabilities away.
        for (name, value) in &attributes.xattrs {
            handle.set_xattr(name, value)?;
        }
        if self.policy.keep_mode && !is_new {
            for name in handle.list_xattrs()?.iter().filter(|name| is_access_list(name)) {
                if !attributes.xattrs.iter().any(|(kept, _)| kept == name) {
                    handle.remove_xattr(name)?;
                }
            }
        }
        Ok(())
    }
}

impl Target for ImageTarget {
    fn find(&self, name: &[u8], follow: bool) -> anyhow::Result<Option<Found>> {
        let found = match self.top().handle.lookup(name) {
            Ok(found) if follow && found.is_symlink() => self.filesystem.inode(self.path_of(name)),
            found => found,
        };
        let handle = match found {
            Err(Error::NotFound) => return Ok(None),
            found => found?,
        };
        let metadata = handle.metadata()?;
        Ok(Some(Found {
            id: id(&handle, Place::Target),
            kind: metadata.file_type(),
            links: metadata.links,
            modified: metadata.modified,
            is_source: false,
        }))
    }

    fn is_new(&self) -> bool {
        self.top().is_new
    }

    fn make_directory(&mut self, entry: Entry) -> anyhow::Result<()> {
        let mode = self.mode(&entry.attributes, 0o1777);
        let handle = self.top().handle.create_dir(&entry.name, mode)?;
        let path = self.path_of(&entry.name);
        self.push(handle, path, entry.attributes, true)
    }

    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        let path = self.path_of(&entry.name);
        let handle = match entry.name.is_empty() {
            true => self.top().handle.clone(),
            false => self.filesystem.inode(&path)?,
        };
        self.push(handle, path, entry.attributes, false)
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let left = self.stack.pop().expect("it was entered");
        Ok(self.finish(&left.handle, &left.attributes, left.is_new)?)
    }

    fn make_file(&mut self, entry: Entry) -> anyhow::Result<()> {
        let mode = self.mode(&entry.attributes, 0o777);
        let handle = self.top().handle.create_file(&entry.name, mode)?;
        self.remember(entry.link, &handle)?;
        let file = handle.open(OpenOptions::new().write(true))?;
        let Entry { name, attributes, .. } = entry;
        self.file = Some(OpenedFile { file, name, attributes, end: 0, is_new: true });
        Ok(())
    }

    fn overwrite(&mut self, entry: Entry) -> anyhow::Result<()> {
        let handle = self.filesystem.inode(self.path_of(&entry.name))?;
        self.remember(entry.link, &handle)?;
        let file = handle.open(OpenOptions::new().write(true).truncate(true))?;
        let Entry { name, attributes, .. } = entry;
        self.file = Some(OpenedFile { file, name, attributes, end: 0, is_new: false });
        Ok(())
    }

    fn data(&mut self, mut offset: u64, mut bytes: &[u8]) -> anyhow::Result<()> {
        let opened = self.file.as_mut().expect("data follows a file");
        while !bytes.is_empty() {
            let count = opened.file.write_at(bytes, offset)?;
            bytes = &bytes[count..];
            offset += u64_from(count);
        }
        opened.end = offset;
        Ok(())
    }

    fn close(&mut self, size: u64) -> anyhow::Result<()> {
        let opened = self.file.take().expect("a close follows a file");
        if opened.end < size {
            opened.file.set_len(size)?;
        }
        Ok(self.finish(opened.file.inode(), &opened.attributes, opened.is_new)?)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        let opened = self.file.take().expect("a file is open");
        if opened.is_new {
            self.top().handle.remove_file(&opened.name)?;
        }
        Ok(())
    }

    fn make_symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()> {
        let handle = self.top().handle.symlink(target, &entry.name)?;
        self.remember(entry.link, &handle)?;
        Ok(self.finish(&handle, &entry.attributes, true)?)
    }

    fn make_special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()> {
        let mode = self.mode(&entry.attributes, 0o7777);
        let handle = self.top().handle.mknod(&entry.name, kind, mode)?;
        self.remember(entry.link, &handle)?;
        Ok(self.finish(&handle, &entry.attributes, true)?)
    }

    fn link(&mut self, name: &[u8], number: u32) -> anyhow::Result<()> {
        // The first name may have failed; its line was printed then.
        let (inode, generation) = *self.links.get(number).ok_or(Error::NotFound)?;
        let first = self.filesystem.inode_numbered(inode, generation)?;
        Ok(self.top().handle.hard_link(&first, name)?)
    }

    fn keep(&mut self, name: &[u8], number: u32) -> anyhow::Result<()> {
        let handle = self.top().handle.lookup(name)?;
        Ok(self.remember(Some(number), &handle)?)
    }

    fn remove(&mut self, name: &[u8]) -> anyhow::Result<()> {
        Ok(self.top().handle.remove_file(name)?)
    }
}
