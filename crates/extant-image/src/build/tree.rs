//! All sources as one tree: names, what they are, and where the rest of each can be read.
//!
//! It is the only thing that grows with the number of files, so an entry takes 32 bytes, its name, and a place in a hash
//! table.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use extant_format::FileType;
use extant_format::cast::usize_from;
use hashbrown::HashTable;

use super::BuildError;

/// A name in the tree.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(u32);

impl NodeId {
    /// The directory that everything lies in.
    pub const ROOT: Self = Self(0);
    const NONE: Self = Self(u32::MAX);
}

/// What a name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A file of this type.
    File(FileType),
}

/// Where the rest of an entry can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Which source.
    pub origin: u16,
    /// Where in it, by its own count.
    pub record: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    record: u64,
    name_at: u32,
    parent: NodeId,
    first_child: NodeId,
    next: NodeId,
    origin: u16,
    name_len: u8,
    kind: Kind,
}

/// Every name of all sources.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    names: Vec<u8>,
    table: HashTable<u32>,
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Tree {
    /// A tree of the root alone.
    pub fn new() -> Self {
        let root = Node {
            record: 0,
            name_at: 0,
            parent: NodeId::NONE,
            first_child: NodeId::NONE,
            next: NodeId::NONE,
            origin: u16::MAX,
            name_len: 0,
            kind: Kind::File(FileType::Directory),
        };
        Self {
            nodes: vec![root],
            names: Vec::new(),
            table: HashTable::new(),
            hasher: BuildHasherDefault::default(),
        }
    }

    /// How many names there are, those that are gone included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize_from(id.0)]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize_from(id.0)]
    }

    /// Its last name; empty for the root.
    pub fn name(&self, id: NodeId) -> &[u8] {
        let node = self.node(id);
        let start = usize_from(node.name_at);
        &self.names[start..start + usize::from(node.name_len)]
    }

    /// What it is.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.node(id).kind
    }

    /// Whether it is a directory.
    pub fn is_directory(&self, id: NodeId) -> bool {
        self.kind(id) == Kind::File(FileType::Directory)
    }

    /// Where the rest of it can be read; `None` if no source has it.
    pub fn place(&self, id: NodeId) -> Option<Place> {
        let node = self.node(id);
        let place = Place { origin: node.origin, record: node.record };
        (node.origin != u16::MAX).then_some(place)
    }

    /// The directory that it is in.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        Some(self.node(id).parent).filter(|parent| *parent != NodeId::NONE)
    }

    /// From the root down, with a slash before each name; empty for the root.
    pub fn path(&self, id: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(parent) = self.parent(at) {
            names.push(self.name(at));
            at = parent;
        }
        names.iter().rev().flat_map(|name| [&b"/"[..], name]).flatten().copied().collect()
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    /// What has the name in a directory.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let is_it = |id: &u32| {
            let id = NodeId(*id);
            self.node(id).parent == parent && self.name(id) == name
        };
        self.table.find(self.hash(parent, name), is_it).map(|id| NodeId(*id))
    }

    /// Adds a name that the directory does not have yet.
    ///
    /// # Errors
    /// A name that no directory can have, or more of them than are possible.
    pub fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        kind: Kind,
        place: Place,
    ) -> Result<NodeId, BuildError> {
        let too_long = || BuildError::Name { len: name.len() };
        let name_len = u8::try_from(name.len()).ok().filter(|len| *len > 0).ok_or_else(too_long)?;
        let id = u32::try_from(self.nodes.len()).ok().filter(|id| *id < u32::MAX);
        let name_at = u32::try_from(self.names.len()).ok();
        let (id, name_at) = id.zip(name_at).ok_or(BuildError::TooMany)?;
        self.names.extend_from_slice(name);
        let next = self.node(parent).first_child;
        self.nodes.push(Node {
            record: place.record,
            name_at,
            parent,
            first_child: NodeId::NONE,
            next,
            origin: place.origin,
            name_len,
            kind,
        });
        self.node_mut(parent).first_child = NodeId(id);
        let hash = self.hash(parent, name);
        let Self { nodes, names, table, hasher } = self;
        table.insert_unique(hash, id, |id| {
            let node = &nodes[usize_from(*id)];
            let start = usize_from(node.name_at);
            hasher.hash_one((node.parent, &names[start..start + usize::from(node.name_len)]))
        });
        Ok(NodeId(id))
    }

    /// Says anew what a name is. A directory that becomes anything else loses what is in it.
    pub fn replace(&mut self, id: NodeId, kind: Kind, place: Place) {
        if kind != Kind::File(FileType::Directory) {
            self.node_mut(id).first_child = NodeId::NONE;
        }
        let node = self.node_mut(id);
        (node.kind, node.origin, node.record) = (kind, place.origin, place.record);
    }

    /// The names in a directory, in no order.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut at = self.node(id).first_child;
        std::iter::from_fn(move || {
            let id = Some(at).filter(|id| *id != NodeId::NONE)?;
            at = self.node(id).next;
            Some(id)
        })
    }

    /// The names in a directory, in the order of their bytes.
    pub fn sorted_children(&self, id: NodeId) -> Vec<NodeId> {
        let mut children: Vec<_> = self.children(id).collect();
        children.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        children
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { origin: 0, record: 0 };
    const FILE: Kind = Kind::File(FileType::Regular);
    const DIRECTORY: Kind = Kind::File(FileType::Directory);

    #[test]
    fn names_are_found_and_come_in_the_order_of_their_bytes() {
        let mut tree = Tree::new();
        for name in [&b"b"[..], b"a", b"\xff", b"B", b"a b"] {
            tree.add(NodeId::ROOT, name, FILE, PLACE).unwrap();
        }
        let names: Vec<_> =
            tree.sorted_children(NodeId::ROOT).into_iter().map(|id| tree.name(id)).collect();
        assert_eq!(names, [&b"B"[..], b"a", b"a b", b"b", b"\xff"]);
        let found = tree.child(NodeId::ROOT, b"a b").unwrap();
        assert_eq!(tree.path(found), b"/a b");
    }

    #[test]
    fn names_have_1_to_255_bytes() {
        let mut tree = Tree::new();
        let mut add = |len: usize| tree.add(NodeId::ROOT, &vec![b'x'; len], FILE, PLACE).is_ok();
        assert_eq!([0, 1, 255, 256].map(&mut add), [false, true, true, false]);
    }

    #[test]
    fn what_is_no_directory_any_more_has_nothing_in_it() {
        let mut tree = Tree::new();
        let directory = tree.add(NodeId::ROOT, b"d", DIRECTORY, PLACE).unwrap();
        tree.add(directory, b"f", FILE, PLACE).unwrap();
        assert_eq!(tree.children(directory).count(), 1);
        tree.replace(directory, FILE, PLACE);
        assert_eq!(tree.children(directory).count(), 0);
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
    }
}
