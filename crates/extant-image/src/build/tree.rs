//! All sources as one tree: names, what they are, and where the rest of each can be read.
//!
//! It is the only thing that grows with the number of files, so an entry takes 32 bytes, its name, and a place in a hash
//! table.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use extant_format::FileType;
use extant_format::cast::{u64_from, usize_from};
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
    /// Nothing: it takes away what an image has there that is changed in place.
    Whiteout,
    /// It was taken out of the tree.
    Gone,
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
    layer: u16,
    name_len: u8,
    kind: Kind,
    /// Its contents belong to other names too; or, of a directory, what an image has below it that is changed in place goes.
    is_marked: bool,
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
            layer: 0,
            name_len: 0,
            kind: Kind::File(FileType::Directory),
            is_marked: false,
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

    /// See [`Self::mark`].
    pub fn is_marked(&self, id: NodeId) -> bool {
        self.node(id).is_marked
    }

    /// Notes that the contents of a file belong to other names too, or that what an image has below a directory goes.
    pub fn mark(&mut self, id: NodeId) {
        self.node_mut(id).is_marked = true;
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

    /// What has the name in a directory; what is gone has none.
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
        layer: u16,
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
            layer,
            name_len,
            kind,
            is_marked: false,
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
    pub fn replace(&mut self, id: NodeId, kind: Kind, place: Place, layer: u16) {
        let (was, is_directory) = (self.node(id), kind == Kind::File(FileType::Directory));
        let is_marked = is_directory
            && match was.kind {
                Kind::Whiteout => true,
                kind => kind == Kind::File(FileType::Directory) && was.is_marked,
            };
        let node = self.node_mut(id);
        if !is_directory {
            node.first_child = NodeId::NONE;
        }
        (node.kind, node.origin, node.record, node.layer) =
            (kind, place.origin, place.record, layer);
        node.is_marked = is_marked;
    }

    /// Takes a name, and what is below it, out of the tree.
    pub fn remove(&mut self, id: NodeId) {
        let Some(parent) = self.parent(id) else { return };
        let hash = self.hash(parent, self.name(id));
        if let Ok(entry) = self.table.find_entry(hash, |known| *known == id.0) {
            entry.remove();
        }
        let node = self.node_mut(id);
        (node.kind, node.first_child) = (Kind::Gone, NodeId::NONE);
    }

    /// Takes what came with layers before `layer` out of a directory and of those below it.
    pub fn remove_below(&mut self, id: NodeId, layer: u16) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for child in self.children(id).collect::<Vec<_>>() {
                match self.layer(child) < layer {
                    true => self.remove(child),
                    false => open.push(child),
                }
            }
        }
    }

    /// The number of the layer that said last what it is.
    pub fn layer(&self, id: NodeId) -> u16 {
        self.node(id).layer
    }

    /// The names in a directory, in no order.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut at = self.node(id).first_child;
        std::iter::from_fn(move || {
            while at != NodeId::NONE {
                let (id, node) = (at, self.node(at));
                at = node.next;
                if node.kind != Kind::Gone {
                    return Some(id);
                }
            }
            None
        })
    }

    /// The names in a directory, in the order of their bytes.
    pub fn sorted_children(&self, id: NodeId) -> Vec<NodeId> {
        let mut children: Vec<_> = self.children(id).collect();
        children.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        children
    }

    /// Bytes that all names of a directory take in it: eight a name, and the name in whole words.
    pub fn entry_bytes(&self, id: NodeId) -> u64 {
        self.children(id)
            .map(|child| u64_from(8 + self.name(child).len().next_multiple_of(4)))
            .sum()
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
            tree.add(NodeId::ROOT, name, FILE, PLACE, 0).unwrap();
        }
        let names: Vec<_> =
            tree.sorted_children(NodeId::ROOT).into_iter().map(|id| tree.name(id)).collect();
        assert_eq!(names, [&b"B"[..], b"a", b"a b", b"b", b"\xff"]);
        let found = tree.child(NodeId::ROOT, b"a b").unwrap();
        assert_eq!(tree.path(found), b"/a b");
        tree.remove(found);
        assert_eq!(tree.child(NodeId::ROOT, b"a b"), None);
        assert_eq!(tree.children(NodeId::ROOT).count(), 4);
    }

    #[test]
    fn names_have_1_to_255_bytes() {
        let mut tree = Tree::new();
        let mut add = |len: usize| tree.add(NodeId::ROOT, &vec![b'x'; len], FILE, PLACE, 0).is_ok();
        assert_eq!([0, 1, 255, 256].map(&mut add), [false, true, true, false]);
    }

    #[test]
    fn what_is_no_directory_any_more_has_nothing_in_it() {
        let mut tree = Tree::new();
        let directory = tree.add(NodeId::ROOT, b"d", DIRECTORY, PLACE, 0).unwrap();
        tree.add(directory, b"f", FILE, PLACE, 0).unwrap();
        assert_eq!(tree.children(directory).count(), 1);
        tree.replace(directory, FILE, PLACE, 1);
        assert_eq!(tree.children(directory).count(), 0);
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
    }
}
