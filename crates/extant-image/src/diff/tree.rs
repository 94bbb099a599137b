//! Two trees as users see them: names, types, permissions, owners, times, attributes, contents; not where anything lies.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use extant::{Error, File, FileType, InodeHandle, Metadata, OpenOptions};

use super::groups::{around, first_difference};
use super::{Difference, Kind, Visit};

/// Compares the trees at two roots, parents first and names sorted as bytes. Times of access and of change are left out: reading and
/// copying change them.
pub fn trees(left: &InodeHandle, right: &InodeHandle, visit: Visit<'_>) -> ControlFlow<()> {
    let mut trees = Trees { visit };
    // The last is looked at next.
    let mut open = vec![(Vec::new(), left.clone(), right.clone())];
    while let Some((path, left, right)) = open.pop() {
        let compared = trees.pair(&path, &left, &right);
        let is_directory = match compared {
            ControlFlow::Break(()) => return ControlFlow::Break(()),
            ControlFlow::Continue(is_directory) => is_directory,
        };
        if is_directory {
            let mut below = trees.names(&path, &left, &right)?;
            below.reverse();
            open.extend(below);
        }
    }
    ControlFlow::Continue(())
}

type Pair = (Vec<u8>, InodeHandle, InodeHandle);

struct Trees<'v> {
    visit: Visit<'v>,
}

impl Trees<'_> {
    fn tell(
        &mut self,
        kind: Kind,
        path: &[u8],
        what: &str,
        (left, right): (impl Into<String>, impl Into<String>),
    ) -> ControlFlow<()> {
        let path = if path.is_empty() { b"/" } else { path };
        let place = format!("{}: {what}", String::from_utf8_lossy(path).escape_debug());
        (self.visit)(Difference {
            kind,
            place,
            inode: None,
            group: None,
            left: left.into(),
            right: right.into(),
        })
    }

    /// Compares one file with another; true if both are directories.
    fn pair(
        &mut self,
        path: &[u8],
        left: &InodeHandle,
        right: &InodeHandle,
    ) -> ControlFlow<(), bool> {
        let (a, b) = match (left.metadata(), right.metadata()) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => return map(self.failed(path, a.err(), b.err()), false),
        };
        if a.file_type() != b.file_type() {
            let shown = |metadata: &Metadata| format!("{:?}", metadata.file_type()).to_lowercase();
            return map(self.tell(Kind::Inode, path, "type", (shown(&a), shown(&b))), false);
        }
        let compared = self
            .fields(path, &a, &b)
            .is_continue()
            .then(|| self.attributes(path, left, right))
            .filter(ControlFlow::is_continue)
            .map(|_| match a.file_type() {
                FileType::Regular => self.contents(path, (left, &a), (right, &b)),
                FileType::Symlink => self.targets(path, left, right),
                _ => ControlFlow::Continue(()),
            });
        let is_directory = a.file_type() == FileType::Directory;
        map(compared.unwrap_or(ControlFlow::Break(())), is_directory)
    }

    fn fields(&mut self, path: &[u8], a: &Metadata, b: &Metadata) -> ControlFlow<()> {
        let time = |metadata: &Metadata| {
            format!("{}.{:09}", metadata.modified.seconds, metadata.modified.nanoseconds)
        };
        let links = |metadata: &Metadata| match metadata.file_type() {
            // A directory's are its subdirectories, which are compared themselves.
            FileType::Directory => String::new(),
            _ => metadata.links.to_string(),
        };
        let fields = [
            ("mode", format!("{:04o}", a.permissions()), format!("{:04o}", b.permissions())),
            ("owner", format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid)),
            ("modified", time(a), time(b)),
            ("links", links(a), links(b)),
            ("device", format!("{:?}", a.device), format!("{:?}", b.device)),
            ("flags", visible(a), visible(b)),
        ];
        for (name, one, other) in fields {
            if one != other {
                self.tell(Kind::Inode, path, name, (one, other))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn attributes(
        &mut self,
        path: &[u8],
        left: &InodeHandle,
        right: &InodeHandle,
    ) -> ControlFlow<()> {
        let (a, b) = match (attributes_of(left), attributes_of(right)) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => return self.failed(path, a.err(), b.err()),
        };
        let mut names: Vec<&Vec<u8>> = a.keys().chain(b.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (one, other) = (a.get(name), b.get(name));
            if one != other {
                let what = format!("attribute {}", String::from_utf8_lossy(name));
                let shown = |value: Option<&Vec<u8>>| {
                    value.map_or("none".to_owned(), |value| {
                        format!("{} bytes, {}", value.len(), around(value, 0))
                    })
                };
                self.tell(Kind::Attribute, path, &what, (shown(one), shown(other)))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn targets(&mut self, path: &[u8], left: &InodeHandle, right: &InodeHandle) -> ControlFlow<()> {
        match (left.read_link(), right.read_link()) {
            (Ok(a), Ok(b)) if a == b => ControlFlow::Continue(()),
            (Ok(a), Ok(b)) => {
                let shown = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
                self.tell(Kind::Data, path, "target", (shown(&a), shown(&b)))
            }
            (a, b) => self.failed(path, a.err(), b.err()),
        }
    }

    /// Tells the first byte that differs. What is a hole in both is not read.
    fn contents(
        &mut self,
        path: &[u8],
        (left, a): (&InodeHandle, &Metadata),
        (right, b): (&InodeHandle, &Metadata),
    ) -> ControlFlow<()> {
        if a.size != b.size {
            self.tell(Kind::Data, path, "size", (a.size.to_string(), b.size.to_string()))?;
        }
        let open = |handle: &InodeHandle| handle.open(OpenOptions::new().read(true));
        let (one, other) = match (open(left), open(right)) {
            (Ok(one), Ok(other)) => (one, other),
            (a, b) => return self.failed(path, a.err(), b.err()),
        };
        match first_byte(&one, &other, a.size.min(b.size)) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some((at, x, y))) => {
                self.tell(Kind::Data, path, &format!("contents at byte {at}"), (x, y))
            }
            Err((a, b)) => self.failed(path, a, b),
        }
    }

    /// Compares the names of two directories, and returns what has the same name in both.
    fn names(
        &mut self,
        path: &[u8],
        left: &InodeHandle,
        right: &InodeHandle,
    ) -> ControlFlow<(), Vec<Pair>> {
        let (a, b) = match (names_of(left), names_of(right)) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => return map(self.failed(path, a.err(), b.err()), Vec::new()),
        };
        let mut all: Vec<&Vec<u8>> = a.iter().chain(&b).collect();
        all.sort_unstable();
        all.dedup();
        let mut both = Vec::new();
        for name in all {
            let below = [path, b"/", name].concat();
            match (a.binary_search(name).is_ok(), b.binary_search(name).is_ok()) {
                (true, true) => match (child(left, name), child(right, name)) {
                    (Ok(one), Ok(other)) => both.push((below, one, other)),
                    (a, b) => self.failed(&below, a.err(), b.err())?,
                },
                (true, false) => self.tell(Kind::Name, &below, "name", ("there", "missing"))?,
                (false, _) => self.tell(Kind::Name, &below, "name", ("missing", "there"))?,
            }
        }
        ControlFlow::Continue(both)
    }

    fn failed(
        &mut self,
        path: &[u8],
        left: Option<Error>,
        right: Option<Error>,
    ) -> ControlFlow<()> {
        let words =
            |error: Option<Error>| error.map_or("readable".to_owned(), |error| error.to_string());
        self.tell(Kind::Unreadable, path, "cannot be read", (words(left), words(right)))
    }
}

fn map<T>(flow: ControlFlow<()>, value: T) -> ControlFlow<(), T> {
    match flow {
        ControlFlow::Continue(()) => ControlFlow::Continue(value),
        ControlFlow::Break(()) => ControlFlow::Break(()),
    }
}

/// Flags that a user sets, not those that say how a file is stored.
fn visible(metadata: &Metadata) -> String {
    use extant::InodeFlags as Flags;
    let stored = Flags::EXTENTS
        .union(Flags::INDEX)
        .union(Flags::INLINE_DATA)
        .union(Flags::HUGE_FILE)
        .union(Flags::EA_INODE)
        .union(Flags::EOFBLOCKS);
    format!("{:#x}", metadata.flags.difference(stored).bits())
}

fn attributes_of(handle: &InodeHandle) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let names = handle.list_xattrs()?.into_iter();
    names.map(|name| Ok((name.clone(), handle.xattr(&name)?))).collect()
}

/// Sorted.
fn names_of(handle: &InodeHandle) -> Result<Vec<Vec<u8>>, Error> {
    let names = handle.read_dir()?.map(|entry| Ok(entry?.name().to_vec()));
    let mut names = names.collect::<Result<Vec<_>, Error>>()?;
    names.sort_unstable();
    Ok(names)
}

/// A directory in a circle of damaged ones is refused.
fn child(directory: &InodeHandle, name: &[u8]) -> Result<InodeHandle, Error> {
    let child = directory.lookup(name)?;
    child.check_parent(directory.number())?;
    Ok(child)
}

type Failures = (Option<Error>, Option<Error>);

/// Where two files begin to differ before `end`, and what each has there.
fn first_byte(
    left: &File,
    right: &File,
    end: u64,
) -> Result<Option<(u64, String, String)>, Failures> {
    let (mut a, mut b) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    while at < end {
        let data = |file: &File| Ok::<_, Error>(file.seek_data(at)?.unwrap_or(end).min(end));
        let start = match (data(left), data(right)) {
            (Ok(one), Ok(other)) => one.min(other),
            (one, other) => return Err((one.err(), other.err())),
        };
        at = start.max(at);
        let len = usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let (one, other) = (left.read_at(&mut a[..len], at), right.read_at(&mut b[..len], at));
        let (one, other) = match (one, other) {
            (Ok(one), Ok(other)) => (one, other),
            (one, other) => return Err((one.err(), other.err())),
        };
        let (x, y) = (&a[..one], &b[..other]);
        if let Some(within) = first_difference(x, y) {
            let byte = at.saturating_add(extant_format::cast::u64_from(within));
            return Ok(Some((byte, around(x, within), around(y, within))));
        }
        if one == 0 {
            break;
        }
        at = at.saturating_add(extant_format::cast::u64_from(one));
    }
    Ok(None)
}

/// Bytes that are compared at once.
const CHUNK_BYTES: usize = 1 << 18;
