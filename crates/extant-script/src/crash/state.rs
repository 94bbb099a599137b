//! What is seen of a path, and how that compares with what the script's lines left there.

use std::collections::BTreeMap;
use std::fmt;

use extant::{Error, Filesystem, Metadata};
use extant_format::FileType;
use extant_format::cast::u64_from;

use crate::volume::read_all;

/// All that is seen at a path and below it, by the path's rest; nothing where nothing is.
pub type State = BTreeMap<Vec<u8>, Node>;

/// A file, directory or link, but for its times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    mode: u16,
    owner: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: Vec<u8>, // a file's, or a link's target
}

/// Files of more bytes are not kept in all their versions.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// What is at `path` and below it.
pub(super) fn look(filesystem: &Filesystem, path: &[u8]) -> Result<State, LookError> {
    let mut state = State::new();
    let mut open = vec![path.to_vec()];
    while let Some(at) = open.pop() {
        let metadata = match filesystem.symlink_metadata(&at) {
            Err(Error::NotFound | Error::NotDirectory) if at == path => return Ok(state),
            metadata => metadata?,
        };
        if metadata.is_dir() {
            for entry in filesystem.read_dir(&at)? {
                let entry = entry?;
                if at.is_empty() && entry.name() == b"lost+found" {
                    continue;
                }
                open.push(join(&at, entry.name()));
            }
        }
        let node = node(filesystem, &at, &metadata)?;
        state.insert(at[path.len()..].to_vec(), node);
    }
    Ok(state)
}

/// A path that cannot be looked at.
#[derive(Debug)]
pub(super) enum LookError {
    Engine(Error),
    TooLong(Vec<u8>, u64),
}

impl From<Error> for LookError {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

fn node(filesystem: &Filesystem, path: &[u8], metadata: &Metadata) -> Result<Node, LookError> {
    let bytes = match metadata.file_type() {
        FileType::Regular if metadata.size > MOST_BYTES => {
            return Err(LookError::TooLong(path.to_vec(), metadata.size));
        }
        FileType::Regular => read_all(filesystem, path)?,
        FileType::Symlink => filesystem.read_link(path)?,
        _ => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in filesystem.list_xattrs(path)? {
        let value = filesystem.xattr(path, &name)?;
        xattrs.insert(name, value);
    }
    Ok(Node { mode: metadata.mode, owner: (metadata.uid, metadata.gid), xattrs, bytes })
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.is_empty() {
        true => name.to_vec(),
        false => [directory, b"/", name].concat(),
    }
}

/// What a crash left at a path, in comparison with what the script's lines did.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Found {
    /// How it looks.
    pub looks: Looks,
    /// The line that left it so, or `Some(0)` if it was so before all of them; `None` if it never was.
    pub line: Option<usize>,
    /// The path below the promised one that this is about; mostly empty.
    pub below: Vec<u8>,
}

/// How something looks that a crash left; states that no line left come first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Looks {
    /// A file without bytes.
    Empty,
    /// The first bytes of what should be there.
    Short {
        /// How many.
        bytes: u64,
        /// Of how many.
        of: u64,
    },
    /// Bytes of several lines.
    Mixed,
    /// Zeros where no line wrote any.
    Zeros,
    /// Bytes that no line left there.
    Foreign,
    /// Other attributes, or another kind of file.
    Unlike,
    /// As some line left it.
    Whole,
    /// Nothing is there.
    Missing,
    /// Something is there where nothing should be.
    There,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.looks, self.line) {
            (Looks::Empty, _) => f.write_str("empty"),
            (Looks::Short { bytes, of }, _) => write!(f, "cut short, {bytes} of {of} bytes"),
            (Looks::Mixed, _) => f.write_str("in part old and in part new"),
            (Looks::Zeros, _) => f.write_str("with zeros that no line wrote"),
            (Looks::Foreign, _) => f.write_str("with bytes that no line wrote"),
            (Looks::Unlike, _) => f.write_str("with other attributes"),
            (Looks::Missing, _) => f.write_str("missing"),
            (Looks::There, _) => f.write_str("still there"),
            (Looks::Whole, Some(0) | None) => f.write_str("as it was before"),
            (Looks::Whole, Some(line)) => write!(f, "as line {line} left it"),
        }
    }
}

/// Names what was `found` where `wanted` should be; `known` has the states that lines left, the oldest first, each with its
/// line.
pub(super) fn name(found: &State, wanted: &State, known: &[(usize, &State)]) -> Found {
    // The line that made it so, and not the last that found it so.
    let last = known.iter().rposition(|(_, state)| *state == found);
    let made = last.and_then(|last| known[..=last].iter().rposition(|(_, state)| *state != found));
    let line = last.map(|_| known[made.map_or(0, |before| before + 1)].0);
    let below = first_difference(found, wanted);
    let is_known = line.is_some() && below.is_empty();
    let looks = match (found.get(&below), wanted.get(&below)) {
        (None, _) => Looks::Missing,
        (Some(_), None) => Looks::There,
        (Some(a), Some(b)) if kind(a) != kind(b) => Looks::Unlike,
        (Some(a), Some(b)) if a.bytes == b.bytes => {
            if is_known {
                Looks::Whole
            } else {
                Looks::Unlike
            }
        }
        (Some(node), Some(_)) if node.bytes.is_empty() => Looks::Empty,
        (Some(_), Some(_)) if is_known => Looks::Whole,
        (Some(a), Some(b)) => {
            let lines = known.iter().filter_map(|(_, state)| state.get(&below));
            let lines: Vec<&[u8]> = lines.map(|node| node.bytes.as_slice()).collect();
            compare(&a.bytes, &b.bytes, &lines)
        }
    };
    Found { looks, line, below }
}

/// Whether this is a file without bytes.
pub(super) fn is_empty_file(state: &State) -> bool {
    state.get([].as_slice()).is_some_and(|node| kind(node) == 0x8000 && node.bytes.is_empty())
}

fn kind(node: &Node) -> u16 {
    node.mode & 0xF000
}

/// The first path at which two states differ.
fn first_difference(a: &State, b: &State) -> Vec<u8> {
    let differs = |path: &&Vec<u8>| a.get(*path) != b.get(*path);
    a.keys().chain(b.keys()).filter(differs).min().cloned().unwrap_or_default()
}

/// How bytes look that are not what they should be, and have been left so by none of the lines.
fn compare(found: &[u8], wanted: &[u8], lines: &[&[u8]]) -> Looks {
    if wanted.starts_with(found) {
        return Looks::Short { bytes: u64_from(found.len()), of: u64_from(wanted.len()) };
    }
    let is_written = |at: usize| {
        let same = |line: &&[u8]| line.get(at) == found.get(at);
        same(&wanted) || lines.iter().any(same)
    };
    let unwritten = || (0..found.len()).filter(|at| !is_written(*at));
    match (unwritten().next(), unwritten().all(|at| found[at] == 0)) {
        (None, _) => Looks::Mixed,
        (Some(_), true) => Looks::Zeros,
        (Some(_), false) => Looks::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> State {
        let node =
            Node { mode: 0o100_644, owner: (0, 0), xattrs: BTreeMap::new(), bytes: bytes.to_vec() };
        [(Vec::new(), node)].into()
    }

    #[test]
    fn a_state_is_named_after_the_line_that_made_it() {
        let (none, old, new) = (State::new(), file(b"old"), file(b"fresh"));
        let known = [(0, &none), (1, &old), (2, &old), (3, &new)];
        let text = |found: &State| name(found, &new, &known).to_string();
        assert_eq!(text(&old), "as line 1 left it");
        assert_eq!(text(&none), "missing");
        assert_eq!(text(&file(b"")), "empty");
        assert_eq!(text(&file(b"fre")), "cut short, 3 of 5 bytes");
        assert_eq!(text(&file(b"fldsh")), "in part old and in part new");
        assert_eq!(text(&file(b"fr\0\0h")), "with zeros that no line wrote");
        assert_eq!(text(&file(b"frXsh")), "with bytes that no line wrote");
        assert_eq!(name(&new, &none, &known).to_string(), "still there");
    }
}
