//! A tar archive as a source: its headers are indexed once, its bytes are read later, in the order of the tree.
//!
//! What is compressed, or comes through a pipe, is unpacked into a file without a name first, since its order is its own.
//!
//! # Invariants
//! A name leads to a place in the tree and never out of it: `..` is refused, a slash in front means the root, and symbolic links
//! of the tree are followed within it.
//! # Locking
//! None.
//! # Not here
//! What becomes of entries (`apply`).
//! # Source
//! POSIX.1-2008, pax; OCI image specification, "Image Layer Filesystem Changeset" for whiteouts.

mod extensions;
mod member;
mod said;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use extant_device::Frame;
use extant_format::FileType;
use extant_format::cast::u64_from;
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use ruzstd::decoding::StreamingDecoder;

use super::directory::SMALL_BYTES;
use super::entry::{Attributes, Contents, Entry, Parts};
use super::error::Problem;
use super::names::Names as KnownNames;
use super::needs::target_bytes;
use super::tree::{Kind, NodeId, Place};
use super::{Build, BuildError, Failure, Observer, Origin};
use crate::acl::Named;
use member::{Member, What, Window};

/// An archive that can be read anywhere.
#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    len: u64,
    pub(super) name: String,
    number: u16,
    /// Those of its owners, once it is indexed.
    names: OnceLock<KnownNames>,
}

/// What names in an archive mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Names {
    /// What they say.
    Plain,
    /// Those that begin with `.wh.` take away what is in layers below.
    Layer,
}

impl Archive {
    /// Opens an archive. One that is compressed, or comes through a pipe, is unpacked into a nameless file in `spool` first.
    pub(super) fn open(
        mut file: File,
        name: &str,
        number: u16,
        spool: &Path,
    ) -> Result<Self, BuildError> {
        let failed = |error: io::Error| BuildError::Source { source_name: name.to_owned(), error };
        let is_file = file.metadata().map_err(failed)?.is_file();
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(4).read_to_end(&mut magic).map_err(failed)?;
        if let Some(problem) = no_archive(&magic) {
            return Err(failed(io::Error::other(problem)));
        }
        let is_plain = !magic.starts_with(&GZIP) && !magic.starts_with(&ZSTD);
        let file = match is_plain && is_file {
            true => file,
            false => spooled(&magic, file, spool).map_err(failed)?,
        };
        let len = file.metadata().map_err(failed)?.len();
        Ok(Self {
            file: Arc::new(file),
            len,
            name: name.to_owned(),
            number,
            names: OnceLock::new(),
        })
    }

    /// What its owners are called.
    pub(super) fn names(&self) -> Option<&KnownNames> {
        self.names.get()
    }

    /// Adds all members to the tree, over those that are there. What cannot be in an image is told and left out.
    pub(super) fn index(
        &self,
        build: &mut Build,
        layer: u16,
        names: Names,
        observer: &dyn Observer,
    ) -> Result<(), BuildError> {
        let mut window = Window::new(&self.file, self.len);
        let (mut at, mut owners) = (0, KnownNames::default());
        loop {
            let read = Member::read(&mut window, at, false);
            let found = read.map_err(|problem| BuildError::Archive {
                source_name: self.name.clone(),
                at,
                problem,
            })?;
            let Some((member, next)) = found else { break };
            owners.note(Named::User, &member.user, member.attributes.uid);
            owners.note(Named::Group, &member.group, member.attributes.gid);
            let place = Place { origin: self.number, record: at };
            let added = Adding { build, layer, place }.add(&member, names);
            match added {
                Ok(()) => {}
                Err(Refused::Here(problem)) => observer.failed(&Failure {
                    source_name: format!("{}: ", self.name),
                    path: member.path,
                    problem,
                }),
                Err(Refused::All(error)) => return Err(error),
            }
            at = next;
        }
        self.names.get_or_init(|| owners);
        Ok(())
    }

    fn member(&self, place: Place) -> Result<(Member, Window<'_>), Problem> {
        let mut window = Window::new(&self.file, self.len);
        let member = Member::read(&mut window, place.record, true)?;
        member.map(|(member, _)| (member, window)).ok_or(Problem::Changed)
    }

    pub(super) fn attributes(&self, place: Place) -> Result<Attributes, Problem> {
        Ok(self.member(place)?.0.attributes)
    }

    /// The member at `place`; `is_shared` says that other names are the same file.
    pub(super) fn read(
        &self,
        place: Place,
        is_shared: bool,
        block: usize,
    ) -> Result<Entry, Problem> {
        let (member, mut window) = self.member(place)?;
        let contents = match (&member.what, member.node()) {
            (_, Some(node)) => Contents::Special(node),
            (What::File(FileType::Symlink), _) => Contents::Symlink(member.symlink.clone()),
            _ => {
                let runs = member.runs(&mut window)?;
                let small = usize::try_from(member.size).ok().filter(|size| *size <= SMALL_BYTES);
                let is_whole =
                    runs.iter().map(|(run, _)| run.end - run.start).sum::<u64>() == member.size;
                match small.filter(|_| is_whole && !is_shared && runs.len() <= 1) {
                    Some(len) => {
                        let parts = Parts { file: Arc::clone(&self.file), size: member.size, runs };
                        let mut bytes = Frame::zeroed(len.next_multiple_of(block));
                        super::writers::fill(&parts, 0, bytes.make_mut())?;
                        Contents::Bytes { bytes, len }
                    }
                    None => Contents::Parts(Parts {
                        file: Arc::clone(&self.file),
                        size: member.size,
                        runs,
                    }),
                }
            }
        };
        let link = is_shared.then_some((self.number, u64::MAX, place.record));
        Ok(Entry { attributes: member.attributes, contents, link })
    }

    pub(super) fn link_target(&self, place: Place) -> Result<Vec<u8>, Problem> {
        Ok(self.member(place)?.0.symlink)
    }

    /// The size of a file, without holes and what is in its inode.
    pub(super) fn allocated(&self, place: Place) -> u64 {
        let Ok((member, mut window)) = self.member(place) else { return 0 };
        if matches!(member.what, What::File(FileType::Symlink)) {
            return target_bytes(u64_from(member.symlink.len()));
        }
        let runs = member.runs(&mut window).unwrap_or_default();
        runs.iter().map(|(run, _)| run.end - run.start).sum()
    }
}

/// Why a member is not added.
enum Refused {
    /// For what it is.
    Here(Problem),
    /// For what would come again.
    All(BuildError),
}

impl From<BuildError> for Refused {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Name { len } => Self::Here(Problem::Name { len }),
            error => Self::All(error),
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Here(problem)
    }
}

/// A member on its way into the tree.
struct Adding<'a> {
    build: &'a mut Build,
    layer: u16,
    place: Place,
}

impl Adding<'_> {
    fn add(&mut self, member: &Member, names: Names) -> Result<(), Refused> {
        let kind = match &member.what {
            What::Other => return Err(Problem::Archive("is of a kind that no image has").into()),
            What::File(kind) => Kind::File(*kind),
            What::Link(_) => Kind::File(FileType::Regular),
        };
        if let Some(refused) = member.refused {
            return Err(Problem::Archive(refused).into());
        }
        let path = components(&member.path)?;
        let Some((name, above)) = path.split_last() else {
            if kind == Kind::File(FileType::Directory) {
                self.build.tree.replace(NodeId::ROOT, kind, self.place, self.layer);
            }
            return Ok(());
        };
        if self.build.is_excluded(&path) {
            return Ok(());
        }
        let whiteout = name.strip_prefix(b".wh.").filter(|_| names == Names::Layer);
        let parent = self.parent(above)?;
        if let Some(below) = whiteout {
            self.take_away(parent, below)?;
            return Ok(());
        }
        let (kind, place) = match &member.what {
            What::Link(target) => self.linked(target)?,
            _ => (kind, self.place),
        };
        let (tree, layer) = (&mut self.build.tree, self.layer);
        let node = match tree.child(parent, name) {
            None => tree.add(parent, name, kind, place, layer)?,
            Some(node) => {
                tree.replace(node, kind, place, layer);
                node
            }
        };
        if matches!(member.what, What::Link(_)) {
            tree.mark(node);
        }
        Ok(())
    }

    /// The directory at a path; what is missing on the way is made, and symbolic links in the tree are followed within it.
    fn parent(&mut self, above: &[&[u8]]) -> Result<NodeId, Refused> {
        let mut links = 0;
        let mut rest: Vec<Vec<u8>> = above.iter().rev().map(|name| name.to_vec()).collect();
        let mut at = NodeId::ROOT;
        while let Some(name) = rest.pop() {
            if name == b".." {
                at = self.build.tree.parent(at).unwrap_or(NodeId::ROOT);
                continue;
            }
            let tree = &mut self.build.tree;
            let Some(found) = tree.child(at, &name) else {
                let nowhere = Place { origin: u16::MAX, record: 0 };
                at = tree.add(at, &name, Kind::File(FileType::Directory), nowhere, self.layer)?;
                continue;
            };
            match tree.kind(found) {
                Kind::File(FileType::Directory) => at = found,
                Kind::Whiteout => {
                    let nowhere = Place { origin: u16::MAX, record: 0 };
                    tree.replace(found, Kind::File(FileType::Directory), nowhere, self.layer);
                    at = found;
                }
                Kind::File(FileType::Symlink) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(
                            Problem::Archive("leads through too many symbolic links").into()
                        );
                    }
                    let target = self.build.link_target(found)?;
                    if target.starts_with(b"/") {
                        at = NodeId::ROOT;
                    }
                    let names = target.split(|byte| *byte == b'/');
                    let names = names.filter(|name| !matches!(*name, b"" | b"."));
                    rest.extend(names.rev().map(<[u8]>::to_vec));
                }
                _ => return Err(Problem::Archive("lies in what is no directory").into()),
            }
        }
        Ok(at)
    }

    /// What another name of a file is, and where it can be read.
    fn linked(&mut self, target: &[u8]) -> Result<(Kind, Place), Refused> {
        let missing = || Refused::Here(Problem::Archive("is a link to what is not there"));
        let path = components(target)?;
        let (name, above) = path.split_last().ok_or_else(missing)?;
        let parent = self.find(above).ok_or_else(missing)?;
        let tree = &mut self.build.tree;
        let node = tree.child(parent, name).ok_or_else(missing)?;
        let place = tree.place(node).filter(|_| !tree.is_directory(node)).ok_or_else(missing)?;
        if !matches!(self.build.origins.get(usize::from(place.origin)), Some(Origin::Archive(_))) {
            return Err(Problem::Archive("is a link to a file that another source has").into());
        }
        let tree = &mut self.build.tree;
        tree.mark(node);
        Ok((tree.kind(node), place))
    }

    /// The directory at a path, if it is there.
    fn find(&mut self, above: &[&[u8]]) -> Option<NodeId> {
        let before = self.build.tree.len();
        let found = self.parent(above).ok()?;
        (self.build.tree.len() == before).then_some(found)
    }

    /// Does what a whiteout says.
    fn take_away(&mut self, parent: NodeId, name: &[u8]) -> Result<(), Refused> {
        let (in_place, layer) = (self.build.in_place, self.layer);
        let tree = &mut self.build.tree;
        match name {
            b".wh..opq" => {
                tree.remove_below(parent, layer);
                tree.mark(parent);
            }
            // What else begins so is for some storage drivers alone.
            name if name.starts_with(b".wh.") => {}
            name => match tree.child(parent, name) {
                Some(node) if tree.layer(node) < layer && in_place => {
                    tree.replace(node, Kind::Whiteout, self.place, layer);
                }
                Some(node) if tree.layer(node) < layer => tree.remove(node),
                Some(node) => {
                    tree.remove_below(node, layer);
                    if tree.is_directory(node) {
                        tree.mark(node);
                    }
                }
                None if in_place => {
                    tree.add(parent, name, Kind::Whiteout, self.place, layer)?;
                }
                None => {}
            },
        }
        Ok(())
    }
}

/// The names on a path; a slash in front means the image's root, as everywhere.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let names: Vec<_> = names.collect();
    if names.contains(&&b".."[..]) {
        return Err(Problem::Archive("has `..` in its path"));
    }
    Ok(names)
}

/// Unpacks an archive, of which some bytes were read already, into a file without a name.
fn spooled(begun: &[u8], file: File, folder: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let made = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).map(File::from);
    // Some file systems know of no nameless files.
    let mut into = match made {
        Ok(file) => file,
        Err(_) => tempfile::tempfile_in(folder)?,
    };
    let all =
        io::BufReader::with_capacity(SPOOL_BYTES, io::Cursor::new(begun.to_vec()).chain(file));
    if begun.starts_with(&GZIP) {
        copy(MultiGzDecoder::new(all), &mut into)?;
    } else if begun.starts_with(&ZSTD) {
        unpack_zstd(all, &mut into)?;
    } else {
        copy(all, &mut into)?;
    }
    Ok(into)
}

/// An archive may be several frames, and frames that are to be skipped may lie between them.
fn unpack_zstd(mut all: impl io::BufRead, into: &mut File) -> io::Result<()> {
    use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
    while !all.fill_buf()?.is_empty() {
        match StreamingDecoder::new(&mut all) {
            Ok(decoder) => copy(decoder, into)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                io::copy(&mut all.by_ref().take(length.into()), &mut io::sink())?;
            }
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(())
}

fn copy(mut from: impl Read, into: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; SPOOL_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => into.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What begins so and is no archive that is read here.
fn no_archive(magic: &[u8]) -> Option<&'static str> {
    Some(match magic {
        // Whoever was to write it into a pipe has failed.
        [] => "is empty, and no archive",
        [0xFD, b'7', b'z', b'X', ..] => {
            "is compressed by xz; send it through `xz -dc` to `--from -`"
        }
        [b'B', b'Z', b'h', ..] => {
            "is compressed by bzip2; send it through `bzip2 -dc` to `--from -`"
        }
        _ => return None,
    })
}

const GZIP: [u8; 2] = [0x1F, 0x8B];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const SPOOL_BYTES: usize = 256 << 10;
/// As many as Linux follows.
const MOST_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use extant_testkit::oracle::Scratch;

    #[test]
    fn what_is_no_archive_is_told_before_anything_is_made() {
        let scratch = Scratch::new("build-no-archive");
        let told = |bytes: &[u8]| {
            std::fs::write(scratch.path("a"), bytes).unwrap();
            let file = File::open(scratch.path("a")).unwrap();
            let opened = Archive::open(file, "a", 0, &scratch.path(""));
            opened.map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert_eq!(told(b""), "a: is empty, and no archive");
        assert!(told(b"\xFD7zXZ\0").contains("`xz -dc`") && told(b"BZh9").contains("`bzip2 -dc`"));
        assert_eq!(told(&[0; 1024]), "", "an archive of nothing");
    }
}
