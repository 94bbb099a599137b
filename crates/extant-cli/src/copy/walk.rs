//! Goes through trees and sends what is in them, the same for trees of this machine and of images.

use std::collections::HashSet;
use std::rc::Rc;

use extant::namespace::NodeKind;
use extant_format::{FileType, Timestamp};

use super::links::{Links, Meeting};
use super::settings::{Follow, Settings};
use super::stream::{Attributes, Entry, FileId, Item, Role, Sink, Stopped};
use crate::failure;
use crate::volume::{self, Watch};

/// A file that is to be copied.
pub trait Node: Sized {
    /// Names in a directory, in no more than a window at a time.
    type Names: Iterator<Item = anyhow::Result<Vec<u8>>>;

    /// What it looks like.
    fn look(&self) -> &Look;
    /// The names in it, if it is a directory.
    fn names(&self) -> anyhow::Result<Self::Names>;
    /// What has the name in this directory, or what a symbolic link leads to.
    fn child(&self, name: &[u8], follow: bool) -> anyhow::Result<Self>;
    /// Where a symbolic link leads.
    fn read_link(&self) -> anyhow::Result<Vec<u8>>;
    /// Which file that is, if it may be one that is written.
    fn leads_to(&self) -> Option<FileId>;
    /// Extended attributes that `wanted` takes.
    fn xattrs(&self, wanted: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Opens it for [`Self::send_bytes`]; what has no bytes of its own cannot be opened.
    fn open(&mut self) -> anyhow::Result<()>;
    /// Sends its bytes.
    fn send_bytes(&mut self, settings: &Settings, sink: &mut Sink) -> Result<(), Trouble>;
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub id: FileId,
    pub kind: FileType,
    pub mode: u16,
    pub links: u32,
    pub owner: (u32, u32),
    pub size: u64,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub device: (u32, u32),
}

/// Why a file was not sent to its end.
#[derive(Debug)]
pub enum Trouble {
    Stopped,
    Failed(anyhow::Error),
}

impl From<Stopped> for Trouble {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Directories that are not gone into, since the copies go there.
#[derive(Clone, Debug, Default)]
pub struct Avoid {
    /// By themselves.
    pub files: Vec<FileId>,
    /// A name in a directory, which may not be there yet.
    pub name: Option<(FileId, Vec<u8>)>,
}

/// A source and what its copy is called.
#[derive(Debug)]
pub struct Source<N> {
    pub node: N,
    /// As the user named it, for messages.
    pub label: String,
    /// Empty for the target directory itself.
    pub name: Vec<u8>,
    /// Directories to be made above it, from the outside in.
    pub parents: Vec<(Vec<u8>, N)>,
    pub avoid: Avoid,
    /// Over an image that somebody else may write.
    pub watch: Option<Rc<Watch>>,
}

/// One call of `cp` on its way through its sources.
#[derive(Debug)]
pub struct Walker<'a> {
    settings: &'a Settings,
    sink: &'a mut Sink,
    links: Links,
    /// Sources and what their copies are called; kept only if there are several.
    seen: HashSet<(FileId, Vec<u8>)>,
    several: bool,
    watch: Option<Rc<Watch>>,
}

/// A directory that is open, and what is left of it.
struct Level<N: Node> {
    node: N,
    names: N::Names,
    name: Vec<u8>,
    /// The copy is made in it, and was not met yet.
    has_copy: bool,
}

/// Why a directory is left out that is the copy itself.
const INTO_ITSELF: &str = "a directory cannot be copied into itself";

impl<'a> Walker<'a> {
    pub fn new(settings: &'a Settings, sink: &'a mut Sink, several: bool) -> Self {
        let (links, seen) = (Links::default(), HashSet::new());
        Self { settings, sink, links, seen, several, watch: None }
    }

    /// Tells of something that is not copied.
    pub fn fail(&mut self, error: anyhow::Error) -> Result<(), Stopped> {
        let error = &match &self.watch {
            Some(watch) => watch.explain(error),
            None => error,
        };
        let (line, code) = (failure::line(error), failure::exit_code(error));
        self.sink.send(Item::Failed { line, code })?;
        if volume::has_changed(error) {
            // Nothing that follows would be worth more.
            self.sink.flush()?;
            return Err(Stopped);
        }
        Ok(())
    }

    /// Sends what is waiting.
    pub fn finish(self) -> Result<(), Stopped> {
        self.sink.flush()
    }

    /// Sends a whole tree.
    pub fn walk<N: Node>(&mut self, source: Source<N>) -> Result<(), Stopped> {
        let Source { node, label, name, parents, avoid, watch } = source;
        self.watch = watch;
        let is_dir = node.look().kind == FileType::Directory;
        if is_dir && !self.settings.recursive {
            let problem = "is a directory; `cp -r` copies it, `cp -a` with all attributes";
            return self.fail(anyhow::anyhow!("{label} {problem}"));
        }
        if self.several && !self.seen.insert((node.look().id, name.clone())) {
            let kind = if is_dir { "directory" } else { "file" };
            return self.sink.send(Item::Warned(format!("{label}: {kind} named more than once")));
        }
        let depth = parents.len();
        for (name, parent) in parents {
            let entry = self.entry(&parent, name, Role::Parent, None);
            match entry {
                Ok(entry) => self.sink.send(Item::Enter(entry))?,
                Err(error) => self.fail(error.context(label.clone()))?,
            }
        }
        self.tree(node, &label, name, &avoid)?;
        (0..depth).try_for_each(|_| self.sink.send(Item::Leave))
    }

    fn tree<N: Node>(
        &mut self,
        node: N,
        label: &str,
        name: Vec<u8>,
        avoid: &Avoid,
    ) -> Result<(), Stopped> {
        let mut levels = Vec::new();
        self.visit(node, name, label, &mut levels, avoid)?;
        while let Some(level) = levels.last_mut() {
            match level.names.next() {
                None => {
                    if level.has_copy {
                        let at =
                            address(label, &levels, avoid.name.as_ref().map(|(_, name)| &name[..]));
                        self.fail(anyhow::anyhow!(INTO_ITSELF).context(at))?;
                    }
                    levels.pop();
                    self.sink.send(Item::Leave)?;
                }
                Some(Err(error)) => {
                    let error = error.context(address(label, &levels, None));
                    self.fail(error)?;
                }
                Some(Ok(name)) => {
                    let is_copy = avoid.name.as_ref().is_some_and(|(_, copy)| *copy == name);
                    level.has_copy &= !is_copy;
                    let follow = self.settings.follow == Follow::Always;
                    match level.node.child(&name, follow) {
                        Ok(child) => self.visit(child, name, label, &mut levels, avoid)?,
                        Err(error) => {
                            let error = error.context(address(label, &levels, Some(&name)));
                            self.fail(error)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one file, or enters a directory.
    fn visit<N: Node>(
        &mut self,
        node: N,
        name: Vec<u8>,
        label: &str,
        levels: &mut Vec<Level<N>>,
        avoid: &Avoid,
    ) -> Result<(), Stopped> {
        let role = if levels.is_empty() { Role::Named } else { Role::Below };
        let sent = match check(&node, &name, levels, avoid) {
            Err(error) => Err(error.into()),
            Ok(()) if node.look().kind == FileType::Directory => {
                let first = levels.first().map(|level| level.node.look().id.place);
                let elsewhere = first.is_some_and(|first| first != node.look().id.place);
                match self.enter(&node, name.clone(), role) {
                    Ok(_) if elsewhere && self.settings.one_file_system => {
                        Ok(self.sink.send(Item::Leave)?)
                    }
                    Ok(names) => {
                        let id = node.look().id;
                        let has_copy = avoid.name.as_ref().is_some_and(|(to, _)| *to == id);
                        levels.push(Level { node, names, name, has_copy });
                        return Ok(());
                    }
                    Err(trouble) => Err(trouble),
                }
            }
            Ok(()) => self.send(node, name.clone(), role),
        };
        match sent {
            Err(Trouble::Stopped) => Err(Stopped),
            Err(Trouble::Failed(error)) => {
                let name = (role == Role::Below).then_some(&name[..]);
                self.fail(error.context(address(label, levels, name)))
            }
            Ok(()) => Ok(()),
        }
    }

    fn enter<N: Node>(&mut self, node: &N, name: Vec<u8>, role: Role) -> Result<N::Names, Trouble> {
        let entry = self.entry(node, name, role, None)?;
        let names = node.names();
        // A directory that cannot be listed is made all the same, as by cp(1).
        self.sink.send(Item::Enter(entry))?;
        match names {
            Ok(names) => Ok(names),
            Err(error) => {
                self.sink.send(Item::Leave)?;
                Err(error.into())
            }
        }
    }

    /// Sends anything but a directory.
    fn send<N: Node>(&mut self, mut node: N, name: Vec<u8>, role: Role) -> Result<(), Trouble> {
        let look = *node.look();
        let follows = self.settings.follow == Follow::Always
            || (self.settings.follow == Follow::Named && role == Role::Named);
        let mut link = None;
        if self.settings.keep.links && (look.links > 1 || follows) {
            match self.links.meet(look.id, (!follows).then_some(look.links)) {
                Meeting::First(number) => link = Some(number),
                Meeting::Again(number) => {
                    let entry = self.bare_entry(&look, name, role, Some(number));
                    return Ok(self.sink.send(Item::Again(entry))?);
                }
            }
        }
        let sent = self.send_new(&mut node, &look, name, role, link);
        if matches!(sent, Err(Trouble::Failed(_))) && link.is_some() {
            self.links.forget(look.id);
        }
        sent
    }

    fn send_new<N: Node>(
        &mut self,
        node: &mut N,
        look: &Look,
        name: Vec<u8>,
        role: Role,
        link: Option<u32>,
    ) -> Result<(), Trouble> {
        // As with cp(1), what is not copied as such is read: a pipe, `/dev/stdin`, a disk.
        let is_read = look.kind == FileType::Regular
            || (look.kind != FileType::Symlink && !self.settings.recursive);
        if is_read {
            node.open()?;
            let entry = self.entry(node, name, role, link)?;
            self.sink.send(Item::File(entry))?;
            // A file that fails half-way is closed with the bytes that came, and reported.
            let sent = node.send_bytes(self.settings, self.sink);
            if matches!(sent, Err(Trouble::Stopped)) {
                return sent;
            }
            self.sink.send(Item::Close { size: look.size })?;
            return sent;
        }
        let entry = self.entry(node, name, role, link)?;
        if look.kind == FileType::Symlink {
            let target = node.read_link()?;
            let leads_to = if role == Role::Named { node.leads_to() } else { None };
            let entry = Entry { leads_to, ..entry };
            return Ok(self.sink.send(Item::Symlink { entry, target })?);
        }
        let (major, minor) = look.device;
        let kind = match look.kind {
            FileType::BlockDevice => NodeKind::BlockDevice(major, minor),
            FileType::CharacterDevice => NodeKind::CharacterDevice(major, minor),
            FileType::Socket => NodeKind::Socket,
            _ => NodeKind::Fifo,
        };
        Ok(self.sink.send(Item::Special { entry, kind })?)
    }

    fn bare_entry(&self, look: &Look, name: Vec<u8>, role: Role, link: Option<u32>) -> Entry {
        let keep = &self.settings.keep;
        // A pipe's permissions are about the pipe, not about what comes out of it.
        let is_pipe = look.kind == FileType::Fifo && !self.settings.recursive;
        let mode = match (is_pipe && !keep.mode, self.settings.usual_mode, look.kind) {
            (_, true, FileType::Directory | FileType::Socket) => 0o777,
            (true, ..) | (_, true, _) => 0o666,
            _ => look.mode & 0o7777,
        };
        let attributes = Attributes {
            mode,
            owner: keep.owner.then_some(look.owner),
            times: keep.times.then_some((look.accessed, look.modified)),
            xattrs: Vec::new(),
        };
        let (modified, id) = (look.modified, look.id);
        Entry { name, role, attributes, modified, id, leads_to: None, link }
    }

    fn entry<N: Node>(
        &self,
        node: &N,
        name: Vec<u8>,
        role: Role,
        link: Option<u32>,
    ) -> anyhow::Result<Entry> {
        let keep = &self.settings.keep;
        let mut entry = self.bare_entry(node.look(), name, role, link);
        if keep.xattrs || keep.mode {
            entry.attributes.xattrs = node.xattrs(|name| keep.wants_xattr(name))?;
        }
        Ok(entry)
    }
}

/// Why a file is not copied, if it is not.
fn check<N: Node>(node: &N, name: &[u8], levels: &[Level<N>], avoid: &Avoid) -> anyhow::Result<()> {
    let look = node.look();
    let is_avoided = avoid.files.contains(&look.id);
    if look.kind != FileType::Directory {
        anyhow::ensure!(!is_avoided, "is the image itself; left out");
        return Ok(());
    }
    let inside = levels.last().map(|level| level.node.look().id);
    let is_target =
        |(directory, target): &(FileId, Vec<u8>)| Some(*directory) == inside && target == name;
    if is_avoided || avoid.name.as_ref().is_some_and(is_target) {
        anyhow::bail!(INTO_ITSELF);
    }
    if levels.iter().any(|level| level.node.look().id == look.id) {
        anyhow::bail!("leads in a circle: it is a directory that it lies in itself");
    }
    Ok(())
}

/// How a file is called in messages: below the source as the user named it.
fn address<N: Node>(label: &str, levels: &[Level<N>], name: Option<&[u8]>) -> String {
    let below = levels.iter().skip(1).map(|level| &level.name[..]).chain(name);
    let below: String = below.map(|name| format!("/{}", String::from_utf8_lossy(name))).collect();
    match below.is_empty() {
        true => label.to_owned(),
        false => format!("{}{below}", label.strip_suffix('/').unwrap_or(label)),
    }
}
