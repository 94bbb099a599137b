//! What a script has made: the tree after each operation, every version of each file, and what must survive a crash.
//!
//! The model knows paths and bytes and nothing of blocks.

use std::collections::BTreeMap;

use super::{Allocation, Answer, Errno, Operation, Target, pattern};

/// A file, directory or link, whatever its names.
pub type Id = usize;

/// What is seen of one, but for a file's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u16,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeKind {
    /// A regular file; its bytes are in the model.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
}

/// The tree at one moment, without the root.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Which node each path leads to.
    pub names: BTreeMap<Vec<u8>, Id>,
    /// All nodes that have a name.
    pub nodes: BTreeMap<Id, Node>,
}

impl State {
    /// How many names lead to `id`.
    pub fn links(&self, id: Id) -> u64 {
        u64::try_from(self.names.values().filter(|other| **other == id).count()).expect("few names")
    }

    /// Paths of nodes of a kind, in order.
    pub fn paths(&self, wanted: impl Fn(&NodeKind) -> bool) -> Vec<Vec<u8>> {
        let is_wanted = |id: &Id| wanted(&self.nodes[id].kind);
        self.names.iter().filter(|(_, id)| is_wanted(id)).map(|(path, _)| path.clone()).collect()
    }

    fn is_empty_directory(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        !self.names.keys().any(|name| name.starts_with(&below))
    }

    fn node(&mut self, path: &[u8]) -> Option<(Id, &mut Node)> {
        let id = *self.names.get(path)?;
        Some((id, self.nodes.get_mut(&id)?))
    }
}

/// What a file held from some operation on.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// After how many operations.
    pub since: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What an acknowledged operation promises.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// The tree is at least as new as after this many operations.
    pub operations: usize,
    /// Files have at least this version.
    pub versions: BTreeMap<Id, usize>,
}

/// Everything that a script did, so far.
#[derive(Clone, Debug)]
pub struct Model {
    /// The tree after 0, 1, 2, .. operations.
    pub states: Vec<State>,
    /// The contents that each file had, from its first on, which is empty.
    pub versions: BTreeMap<Id, Vec<Version>>,
    /// What each operation promised.
    pub promises: Vec<Promise>,
    touched: BTreeMap<Id, usize>, // after how many operations the node was as it is now
    next: Id,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            states: vec![State::default()],
            versions: BTreeMap::new(),
            promises: Vec::new(),
            touched: BTreeMap::new(),
            next: ROOT + 1,
        }
    }
}

/// The root directory has no name but can be touched.
const ROOT: Id = 0;

impl Model {
    /// The tree as it is now.
    pub fn now(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// What must have survived once the operations with these numbers were acknowledged.
    pub fn promised(&self, acknowledged: impl Iterator<Item = usize>) -> Promise {
        let mut all = Promise::default();
        for promise in acknowledged.map(|number| &self.promises[number]) {
            all.operations = all.operations.max(promise.operations);
            for (id, version) in &promise.versions {
                let known = all.versions.entry(*id).or_default();
                *known = (*known).max(*version);
            }
        }
        all
    }

    fn add(&mut self, state: &mut State, path: &[u8], kind: NodeKind, mode: u16) -> Id {
        let id = self.next;
        self.next += 1;
        if kind == NodeKind::File {
            self.versions.insert(id, vec![Version::default()]);
        }
        state.nodes.insert(id, Node { kind, mode, xattrs: BTreeMap::new() });
        state.names.insert(path.to_vec(), id);
        id
    }

    /// Does `operation`; `None` if it is not possible, or not known here.
    fn step(&mut self, operation: &Operation) -> Option<Promise> {
        let mut state = self.now().clone();
        let done = self.states.len();
        let (mut promise, mut touched) = (Promise::default(), Vec::new());
        match operation {
            Operation::Fsync { path } => {
                let id = if path.is_empty() { ROOT } else { state.node(path)?.0 };
                promise.operations = self.touched.get(&id).copied().unwrap_or(0);
                let versions = self.versions.get(&id).map(|versions| (id, versions.len() - 1));
                promise.versions.extend(versions);
            }
            Operation::Sync => {
                promise.operations = done;
                let last = |(id, versions): (&Id, &Vec<_>)| (*id, versions.len() - 1);
                promise.versions = self.versions.iter().map(last).collect();
            }
            Operation::Tick { .. }
            | Operation::Hold { .. }
            | Operation::Release
            | Operation::JournalData { .. } => {}
            Operation::Write { .. } | Operation::Truncate { .. } | Operation::Allocate { .. } => {
                touched = self.change_bytes(&mut state, operation)?;
            }
            Operation::SetXattr { path, name, value } => {
                let (id, node) = state.node(path)?;
                let old = node.xattrs.insert(name.as_bytes().to_vec(), value.clone());
                touched.extend((old.as_ref() != Some(value)).then_some(id));
            }
            Operation::RemoveXattr { path, name } => {
                let (id, node) = state.node(path)?;
                node.xattrs.remove(name.as_bytes())?;
                touched.push(id);
            }
            Operation::Chmod { path, mode } => {
                let (id, node) = state.node(path)?;
                node.mode = *mode;
                touched.push(id);
            }
            _ => touched = self.change_names(&mut state, operation)?,
        }
        self.touched.extend(touched.into_iter().map(|id| (id, done)));
        self.states.push(state);
        Some(promise)
    }

    /// Gives a file its next version.
    fn change_bytes(&mut self, state: &mut State, operation: &Operation) -> Option<Vec<Id>> {
        let (Operation::Write { path, .. }
        | Operation::Truncate { path, .. }
        | Operation::Allocate { path, .. }) = operation
        else {
            return None;
        };
        let id = state.node(path)?.0;
        let versions = self.versions.get_mut(&id)?;
        let mut bytes = versions.last()?.bytes.clone();
        match operation {
            Operation::Write { offset, len, tag, .. } => {
                let start = usize::try_from(*offset).ok()?;
                bytes.resize(bytes.len().max(start + len), 0);
                bytes[start..start + len].copy_from_slice(&pattern(*tag, *offset, *len));
            }
            Operation::Truncate { size, .. } => bytes.resize(usize::try_from(*size).ok()?, 0),
            Operation::Allocate { offset, len, mode, .. } => {
                let start = usize::try_from(*offset).ok()?;
                let end = start + usize::try_from(*len).ok()?;
                let (grows, zeroes) = match mode {
                    Allocation::Extend => (true, false),
                    Allocation::KeepSize => (false, false),
                    Allocation::Punch | Allocation::ZeroKeepSize => (false, true),
                    Allocation::Zero => (true, true),
                    Allocation::Collapse | Allocation::Insert => return None,
                };
                if grows {
                    bytes.resize(bytes.len().max(end), 0);
                }
                let end = end.min(bytes.len());
                if zeroes && start < end {
                    bytes[start..end].fill(0);
                }
            }
            _ => return None,
        }
        // Bytes that only replace others change nothing that a commit holds but a time, which may be the same second.
        let resized = versions.last()?.bytes.len() != bytes.len();
        versions.push(Version { since: self.states.len(), bytes });
        Some(if resized { vec![id] } else { Vec::new() })
    }

    /// Makes, moves or removes a name; which nodes that touches.
    fn change_names(&mut self, state: &mut State, operation: &Operation) -> Option<Vec<Id>> {
        let (id, path) = match operation {
            Operation::Create { path, mode } => {
                (self.add(state, path, NodeKind::File, *mode), path)
            }
            Operation::Mkdir { path, mode } => {
                (self.add(state, path, NodeKind::Directory, *mode), path)
            }
            Operation::Symlink { target, path } => {
                (self.add(state, path, NodeKind::Symlink(target.clone()), 0o777), path)
            }
            Operation::Link { original, path } => {
                let id = state.node(original)?.0;
                state.names.insert(path.clone(), id);
                (id, path)
            }
            Operation::Unlink { path } | Operation::Rmdir { path } => (remove(state, path)?, path),
            Operation::Rename { from, to } => return rename(state, from, to),
            _ => return None,
        };
        Some(vec![id, parent(state, path)])
    }
}

impl Target for Model {
    /// # Errors
    /// Only `ENOTSUP`, for what the model does not know; whoever writes the script checks that it can be run.
    fn apply(&mut self, operation: &Operation) -> Result<Answer, Errno> {
        let promise = self.step(operation).ok_or(Errno::NOT_SUPPORTED)?;
        self.promises.push(promise);
        Ok(Answer::Done)
    }
}

/// The directory that a path's last name is in.
fn parent(state: &State, path: &[u8]) -> Id {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|slash| state.names.get(&path[..slash])).copied().unwrap_or(ROOT)
}

fn remove(state: &mut State, path: &[u8]) -> Option<Id> {
    let id = state.names.remove(path)?;
    if state.links(id) == 0 {
        state.nodes.remove(&id);
    }
    Some(id)
}

/// Moves a name and all below it, over what is there; which nodes that touches.
fn rename(state: &mut State, from: &[u8], to: &[u8]) -> Option<Vec<Id>> {
    let id = *state.names.get(from)?;
    let mut touched = vec![id, parent(state, from), parent(state, to)];
    if state.names.get(to) == Some(&id) {
        return Some(Vec::new()); // two names of one file: nothing happens
    }
    touched.extend(remove(state, to));
    let below = [from, b"/"].concat();
    let moved: Vec<Vec<u8>> = state
        .names
        .keys()
        .filter(|path| *path == from || path.starts_with(&below))
        .cloned()
        .collect();
    for path in moved {
        let id = state.names.remove(&path)?;
        state.names.insert([to, &path[from.len()..]].concat(), id);
    }
    Some(touched)
}

/// Whether `path` can be removed as a directory.
pub fn is_removable(state: &State, path: &[u8]) -> bool {
    state.is_empty_directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(script: &[Operation]) -> Model {
        let mut model = Model::default();
        super::super::run(&mut model, script).unwrap();
        model
    }

    fn create(path: &str) -> Operation {
        Operation::Create { path: path.into(), mode: 0o644 }
    }

    #[test]
    fn fsync_promises_the_file_and_all_before_its_last_change() {
        let path = b"a".to_vec();
        let write = Operation::Write { path: path.clone(), offset: 2, len: 3, tag: 1 };
        let script = [create("a"), write, create("b"), Operation::Fsync { path }];
        let promise = model(&script).promised(0..4);
        assert_eq!(promise.operations, 2);
        assert_eq!(promise.versions, [(1, 1)].into());
    }

    #[test]
    fn a_directory_moves_with_what_is_in_it() {
        let dir = |path: &str| Operation::Mkdir { path: path.into(), mode: 0o755 };
        let rename = Operation::Rename { from: b"d".to_vec(), to: b"e/f".to_vec() };
        let model = model(&[dir("d"), create("d/x"), create("dx"), dir("e"), rename]);
        let names: Vec<_> =
            model.now().names.keys().map(|name| String::from_utf8_lossy(name)).collect();
        assert_eq!(names, ["dx", "e", "e/f", "e/f/x"]);
    }

    #[test]
    fn a_replaced_file_is_gone_unless_it_has_another_name() {
        let link = Operation::Link { original: b"b".to_vec(), path: b"c".to_vec() };
        let rename = Operation::Rename { from: b"a".to_vec(), to: b"b".to_vec() };
        let with = model(&[create("a"), create("b"), link, rename.clone()]);
        assert_eq!((with.now().names.len(), with.now().nodes.len()), (2, 2));
        let without = model(&[create("a"), create("b"), rename]);
        assert_eq!((without.now().names.len(), without.now().nodes.len()), (1, 1));
    }
}
