//! The order in which entries are applied: directory by directory, names sorted as bytes, parents first.
//!
//! It belongs to the tree and not to where that came from, so that all sources of the same tree make the same image.

use super::tree::{NodeId, Tree};

/// Some names of one directory, to be read together.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) directory: NodeId,
    pub(super) names: Vec<NodeId>,
    /// The directory begins with it.
    pub(super) begins: bool,
    /// It ends with it.
    pub(super) ends: bool,
}

/// All jobs, one after the other.
#[derive(Debug)]
pub(super) struct Order {
    /// Directories still to come, the next one last.
    ahead: Vec<NodeId>,
    /// The names of the directory at hand that are still to come.
    current: Option<(NodeId, std::vec::IntoIter<NodeId>)>,
}

impl Order {
    pub(super) fn new() -> Self {
        Self { ahead: vec![NodeId::ROOT], current: None }
    }

    pub(super) fn next(&mut self, tree: &Tree) -> Option<Job> {
        let begins = self.current.is_none();
        let (directory, names) = match &mut self.current {
            Some(current) => current,
            None => {
                let directory = self.ahead.pop()?;
                let names = tree.sorted_children(directory);
                let below = names.iter().rev().copied();
                self.ahead.extend(below.filter(|name| tree.is_directory(*name)));
                self.current.insert((directory, names.into_iter()))
            }
        };
        let (directory, some) = (*directory, names.by_ref().take(NAMES_PER_JOB).collect());
        let ends = names.as_slice().is_empty();
        if ends {
            self.current = None;
        }
        Some(Job { directory, names: some, begins, ends })
    }
}

/// Enough that handing them over does not matter, few enough that readers have something to do side by side.
const NAMES_PER_JOB: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::tree::{Kind, Place};
    use super::*;
    use extant_format::FileType;

    #[test]
    fn directories_follow_each_other_parents_first_with_their_names_sorted() {
        let mut tree = Tree::new();
        let place = Place { origin: 0, record: 0 };
        let mut add = |at, name: &str, kind| {
            tree.add(at, name.as_bytes(), Kind::File(kind), place, 0).unwrap()
        };
        let late = add(NodeId::ROOT, "z", FileType::Directory);
        let early = add(NodeId::ROOT, "a", FileType::Directory);
        add(NodeId::ROOT, "m", FileType::Regular);
        add(late, "f", FileType::Regular);
        let below = add(early, "d", FileType::Directory);
        for n in 0..NAMES_PER_JOB + 1 {
            add(below, &format!("{n:03}"), FileType::Regular);
        }
        let (mut order, mut seen) = (Order::new(), Vec::new());
        while let Some(job) = order.next(&tree) {
            let names: Vec<_> =
                job.names.iter().map(|name| String::from_utf8_lossy(tree.name(*name))).collect();
            seen.push((
                String::from_utf8(tree.path(job.directory)).unwrap(),
                names.join(" "),
                job.begins,
                job.ends,
            ));
        }
        let short: Vec<_> =
            seen.iter().map(|(path, _, begins, ends)| (&path[..], *begins, *ends)).collect();
        assert_eq!(
            short,
            [
                ("", true, true),
                ("/a", true, true),
                ("/a/d", true, false),
                ("/a/d", false, true),
                ("/z", true, true)
            ]
        );
        assert_eq!((&seen[0].1[..], &seen[3].1[..]), ("a m z", "064"));
    }
}
