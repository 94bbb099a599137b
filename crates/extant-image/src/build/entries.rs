//! A file of entries: files that no source has, and attributes of those that one has, a line each.
//!
//! ```text
//! # path mode uid gid [type ..]; `-` keeps what there is, or what is usual
//! /etc/shadow      640 0 42
//! /run             755 0 0 d
//! /dev/console     600 0 5 c 5 1
//! /dev/loop0       660 0 6 b 7 0
//! /run/initctl     600 0 0 p
//! /etc/mtab        -   0 0 l ../proc/self/mounts
//! /usr/bin/tool    755 0 0 f target/tool
//! /etc/empty       644 0 0 f
//! ```
//!
//! A byte that would divide words is written as fstab(5) has it: `\040`. What is to be made is put into an archive without a name,
//! so it means what members of archives mean.
//!
//! Source: genext2fs(8), option `-D`; gen_init_cpio of the kernel.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use extant_format::Timestamp;
use tar::{EntryType, Header};

use super::entry::Attributes;
use super::tree::NodeId;
use super::{Build, BuildError, Names, Observer};

/// A line.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Line {
    number: usize,
    path: Vec<u8>,
    changes: Changes,
    made: Option<Made>,
}

/// What a line makes.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Made {
    Directory,
    Pipe,
    Device(EntryType, u32, u32),
    Symlink(PathBuf),
    /// With the contents of a file of this machine, if there is one.
    File(Option<PathBuf>),
}

/// Attributes that a line sets, whatever a source or a rule says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    mode: Option<u16>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Changes {
    pub(super) fn apply(self, attributes: Attributes) -> Attributes {
        Attributes {
            mode: self.mode.unwrap_or(attributes.mode),
            uid: self.uid.unwrap_or(attributes.uid),
            gid: self.gid.unwrap_or(attributes.gid),
            ..attributes
        }
    }
}

impl Build {
    /// Adds the entries that the file at `path` has; what they make was made at `time`. Paths of this machine in it are as seen
    /// from its folder.
    ///
    /// # Errors
    /// A line that makes no sense, or that names what is not there.
    pub fn add_entries(
        &mut self,
        path: &Path,
        time: Timestamp,
        spool: &Path,
        observer: &dyn Observer,
    ) -> Result<(), BuildError> {
        let name = path.display().to_string();
        let failed = |error: io::Error| BuildError::Source { source_name: name.clone(), error };
        let text = std::fs::read(path).map_err(failed)?;
        let wrong =
            |line, problem: String| BuildError::Entry { source_name: name.clone(), line, problem };
        let lines = text.split(|byte| *byte == b'\n').zip(1..).filter_map(|(line, number)| {
            parse(line, number).map_err(|problem| wrong(number, problem)).transpose()
        });
        let lines: Vec<Line> = lines.collect::<Result<_, _>>()?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut archive = tar::Builder::new(tempfile::tempfile_in(spool).map_err(failed)?);
        for line in &lines {
            let put = line.put_into(&mut archive, folder, time);
            put.map_err(|error| wrong(line.number, error.to_string()))?;
        }
        let mut archive = archive.into_inner().map_err(failed)?;
        archive.rewind().map_err(failed)?;
        self.add_archive(archive, &name, Names::Plain, spool, observer)?;
        for Line { number, path, changes, made } in lines {
            match self.find(&path) {
                Some(node) => {
                    self.changes.insert(node, changes);
                }
                // It was left out, which was told.
                None if made.is_some() => {}
                None => {
                    let problem = "is not there; a type at the end makes it".to_owned();
                    return Err(wrong(number, format!("{} {problem}", super::error::Shown(&path))));
                }
            }
        }
        Ok(())
    }

    /// The attributes of `node` in the image, where a source has these.
    pub(super) fn changed(&self, node: NodeId, attributes: Attributes) -> Attributes {
        let attributes = self.rules.adjusted(attributes);
        match self.changes.get(&node) {
            Some(changes) => changes.apply(attributes),
            None => attributes,
        }
    }

    /// Those of a directory that no source has, if anything is said of it.
    pub(super) fn changed_alone(&self, node: NodeId) -> Option<Attributes> {
        let usual = Attributes { mode: 0o755, ..Attributes::default() };
        self.changes.get(&node).map(|changes| changes.apply(usual))
    }

    /// What has a path in the tree, no symbolic link followed.
    pub(super) fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut names =
            path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        names.try_fold(NodeId::ROOT, |at, name| self.tree.child(at, name))
    }
}

impl Line {
    /// Puts what the line makes into an archive.
    fn put_into(
        &self,
        archive: &mut tar::Builder<File>,
        folder: &Path,
        time: Timestamp,
    ) -> io::Result<()> {
        let Some(made) = &self.made else { return Ok(()) };
        let mut header = Header::new_gnu();
        let usual = match made {
            Made::Directory => 0o755,
            Made::Symlink(_) => 0o777,
            _ => 0o644,
        };
        header.set_mode(self.changes.mode.unwrap_or(usual).into());
        header.set_uid(self.changes.uid.unwrap_or(0).into());
        header.set_gid(self.changes.gid.unwrap_or(0).into());
        header.set_mtime(u64::try_from(time.seconds).unwrap_or(0));
        header.set_size(0);
        let path = self.path.iter().position(|byte| *byte != b'/').map(|start| &self.path[start..]);
        let Some(path) = path else { return Ok(()) };
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let nothing = io::empty();
        match made {
            Made::Directory => header.set_entry_type(EntryType::Directory),
            Made::Pipe => header.set_entry_type(EntryType::Fifo),
            Made::Device(kind, major, minor) => {
                header.set_entry_type(*kind);
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
            }
            Made::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                return archive.append_link(&mut header, path, target);
            }
            Made::File(None) => header.set_entry_type(EntryType::Regular),
            Made::File(Some(from)) => {
                let file = File::open(folder.join(from))?;
                header.set_entry_type(EntryType::Regular);
                header.set_size(file.metadata()?.len());
                return archive.append_data(&mut header, path, file);
            }
        }
        archive.append_data(&mut header, path, nothing)
    }
}

/// A line's meaning; `None` if it is empty or a remark.
fn parse(line: &[u8], number: usize) -> Result<Option<Line>, String> {
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let words = words.map(plain).collect::<Result<Vec<_>, _>>()?;
    let (path, mode, uid, gid, rest) = match &words[..] {
        [] => return Ok(None),
        [first, ..] if first.starts_with(b"#") => return Ok(None),
        [path, mode, uid, gid, rest @ ..] => (path, mode, uid, gid, rest),
        _ => return Err("a line is: path mode uid gid, and perhaps a type".to_owned()),
    };
    let changes = Changes {
        mode: given(mode, "mode", |text| {
            u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
        })?,
        uid: given(uid, "uid", |text| text.parse().ok())?,
        gid: given(gid, "gid", |text| text.parse().ok())?,
    };
    let (kind, rest) = match rest {
        [] => return Ok(Some(Line { number, path: path.clone(), changes, made: None })),
        [kind, rest @ ..] => (&kind[..], rest),
    };
    let path_of = |word: &Vec<u8>| PathBuf::from(std::ffi::OsString::from_vec(word.clone()));
    let made = match (kind, rest) {
        (b"d", []) => Made::Directory,
        (b"p", []) => Made::Pipe,
        (b"l", [target]) => Made::Symlink(path_of(target)),
        (b"f", []) => Made::File(None),
        (b"f", [from]) => Made::File(Some(path_of(from))),
        (b"c" | b"b", [major, minor]) => {
            let number = |word: &[u8]| {
                given(word, "device number", |text| text.parse().ok())?
                    .ok_or_else(|| "a device has two numbers".to_owned())
            };
            let kind = if kind == b"c" { EntryType::Char } else { EntryType::Block };
            Made::Device(kind, number(major)?, number(minor)?)
        }
        _ => {
            return Err(
                "a type is: d, p, `l TARGET`, `f [FILE]`, `c MAJOR MINOR` or `b MAJOR MINOR`"
                    .to_owned(),
            );
        }
    };
    Ok(Some(Line { number, path: path.clone(), changes, made: Some(made) }))
}

/// What a word says; `None` if it is `-`.
fn given<T>(
    word: &[u8],
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    if word == b"-" {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(word);
    read(&text).map(Some).ok_or_else(|| format!("`{}` is no {what}", super::error::Shown(word)))
}

/// A word with `\` and three octal digits as the byte that they stand for.
fn plain(word: &[u8]) -> Result<Vec<u8>, String> {
    let (mut bytes, mut rest) = (Vec::new(), word);
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.ok_or("`\\` is followed by three octal digits")?);
        rest = &rest[3..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Option<Line>, String> {
        parse(line.as_bytes(), 1)
    }

    #[test]
    fn lines_have_four_words_and_perhaps_a_type() {
        assert_eq!(one("  # a remark"), Ok(None));
        assert_eq!(one(""), Ok(None));
        let line = one(r"/a\040b 4755 - 7").unwrap().unwrap();
        assert_eq!(line.path, b"/a b");
        let changes = Changes { mode: Some(0o4755), uid: None, gid: Some(7) };
        assert_eq!((line.changes, line.made), (changes, None));
        let made = |line| one(line).unwrap().unwrap().made.unwrap();
        assert_eq!(made("/d 755 0 0 d"), Made::Directory);
        assert_eq!(made("/c 600 0 5 c 5 1"), Made::Device(EntryType::Char, 5, 1));
        assert_eq!(made("/l - 0 0 l ../x"), Made::Symlink("../x".into()));
        assert_eq!(made("/f 644 0 0 f"), Made::File(None));
        for wrong in [
            "/a",
            "/a 755 0",
            "/a 8 0 0",
            "/a 17777 0 0",
            "/a 755 x 0",
            "/a 755 0 0 z",
            r"/a\9 1 1 1",
            "/a 1 1 1 c 1",
            "/a 1 1 1 c 1 -",
            "/a 1 1 1 d d",
            "/a 755 0 4294967296",
        ] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }
}
