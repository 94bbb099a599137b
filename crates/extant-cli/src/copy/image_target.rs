//! Makes files inside an image.

use std::collections::HashMap;

use extant::namespace::NodeKind;
use extant::{Error, File, InodeHandle, OpenOptions, SetAttributes};
use extant_format::Timestamp;
use extant_format::cast::u64_from;

use super::stream::{Attributes, Entry};
use super::target::Target;

/// A directory inside an image, and what was made in it so far.
#[derive(Debug)]
pub struct ImageTarget {
    stack: Vec<Directory>,
    file: Option<OpenedFile>,
    links: HashMap<u64, InodeHandle>,
}

/// A directory that was entered.
#[derive(Debug)]
struct Directory {
    handle: InodeHandle,
    attributes: Attributes,
    /// Made by us, so nothing in it has to be looked for.
    is_new: bool,
}

/// The file that is being written.
#[derive(Debug)]
struct OpenedFile {
    file: File,
    attributes: Attributes,
    end: u64,
}

impl ImageTarget {
    /// Files will be made in `directory`.
    pub fn new(directory: InodeHandle) -> Self {
        let top = Directory { handle: directory, attributes: Attributes::default(), is_new: false };
        Self { stack: vec![top], file: None, links: HashMap::new() }
    }

    fn top(&self) -> &Directory {
        self.stack.last().expect("the first directory is never left")
    }

    /// Removes a file that stands in the way.
    fn make_room(&self, name: &[u8]) -> Result<(), Error> {
        if self.top().is_new {
            return Ok(());
        }
        match self.top().handle.lookup(name) {
            Err(Error::NotFound) => Ok(()),
            Ok(found) if found.is_dir() => Err(Error::IsDirectory),
            Ok(_) => self.top().handle.remove_file(name),
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, link: Option<u64>, handle: &InodeHandle) {
        if let Some(link) = link {
            self.links.insert(link, handle.clone());
        }
    }
}

/// Sets what creating the file did not.
fn finish(handle: &InodeHandle, attributes: &Attributes, with_mode: bool) -> Result<(), Error> {
    for (name, value) in &attributes.xattrs {
        handle.set_xattr(name, value)?;
    }
    if attributes.owner.is_none() && attributes.times.is_none() {
        return Ok(());
    }
    handle.set_attributes(&SetAttributes {
        mode: with_mode.then_some(attributes.mode),
        uid: attributes.owner.map(|(uid, _)| uid),
        gid: attributes.owner.map(|(_, gid)| gid),
        accessed: attributes.times.map(|(accessed, _)| accessed),
        modified: attributes.times.map(|(_, modified)| modified),
        flags: None,
    })
}

impl Target for ImageTarget {
    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        let top = self.top();
        let found = match (entry.name.is_empty(), top.is_new) {
            (true, _) => Some(top.handle.clone()),
            (false, true) => None,
            (false, false) => match top.handle.lookup(&entry.name) {
                Err(Error::NotFound) => None,
                found => Some(found?),
            },
        };
        let is_new = found.is_none();
        let handle = match found {
            Some(found) if !found.is_dir() => return Err(Error::NotDirectory.into()),
            Some(found) => found,
            None => top.handle.create_dir(&entry.name, entry.attributes.mode)?,
        };
        self.stack.push(Directory { handle, attributes: entry.attributes, is_new });
        Ok(())
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let left = self.stack.pop().expect("it was entered");
        Ok(finish(&left.handle, &left.attributes, true)?)
    }

    fn file(&mut self, entry: Entry) -> anyhow::Result<()> {
        self.make_room(&entry.name)?;
        let handle = self.top().handle.create_file(&entry.name, entry.attributes.mode)?;
        self.remember(entry.link, &handle);
        let file = handle.open(OpenOptions::new().write(true))?;
        self.file = Some(OpenedFile { file, attributes: entry.attributes, end: 0 });
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
        Ok(finish(opened.file.inode(), &opened.attributes, true)?)
    }

    fn symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()> {
        self.make_room(&entry.name)?;
        let handle = self.top().handle.symlink(target, &entry.name)?;
        self.remember(entry.link, &handle);
        Ok(finish(&handle, &entry.attributes, false)?)
    }

    fn special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()> {
        self.make_room(&entry.name)?;
        let directory = &self.top().handle;
        let handle = directory.mknod(&entry.name, kind, entry.attributes.mode)?;
        self.remember(entry.link, &handle);
        Ok(finish(&handle, &entry.attributes, true)?)
    }

    fn again(&mut self, name: &[u8], link: u64) -> anyhow::Result<()> {
        // The first name may have failed; its line was printed then.
        let first = self.links.get(&link).ok_or(Error::NotFound)?;
        self.make_room(name)?;
        Ok(self.top().handle.hard_link(first, name)?)
    }

    fn modified(&self, name: &[u8]) -> anyhow::Result<Option<Timestamp>> {
        match self.top().handle.lookup(name) {
            Err(Error::NotFound) => Ok(None),
            found => Ok(Some(found?.metadata()?.modified)),
        }
    }

    fn keep(&mut self, name: &[u8], link: u64) -> anyhow::Result<()> {
        let handle = self.top().handle.lookup(name)?;
        self.links.insert(link, handle);
        Ok(())
    }
}
