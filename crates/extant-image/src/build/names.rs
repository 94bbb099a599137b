//! Numbers of users and groups whom the access lists of archives call by name.
//!
//! Whoever wrote an archive tells best, since its members have their owners by name and by number. Then the tree's own `/etc/passwd`
//! and `/etc/group` count. This machine's are not asked: they may mean somebody else, and an image would depend on them.

use std::collections::HashMap;

use extant_format::FileType;

use super::entry::{Attributes, Contents};
use super::error::{Failure, Problem};
use super::tree::{Kind, NodeId};
use super::{Build, Origin, writers};
use crate::acl::{self, Named};

/// Numbers by name; the first number of a name counts.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

impl Names {
    /// Learns a name, if there are not too many already.
    pub(super) fn note(&mut self, named: Named, name: &[u8], number: u32) {
        let known = match named {
            Named::User => &mut self.users,
            Named::Group => &mut self.groups,
        };
        if !name.is_empty() && known.len() < MOST_NAMES && !known.contains_key(name) {
            known.insert(name.to_vec(), number);
        }
    }

    /// Learns the lines of passwd(5) or group(5).
    fn note_lines(&mut self, named: Named, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().unwrap_or_default();
            let number = fields.nth(1).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
            if let Some(number) = number {
                self.note(named, name, number);
            }
        }
    }

    fn number(&self, named: Named, name: &str) -> Option<u32> {
        let known = match named {
            Named::User => &self.users,
            Named::Group => &self.groups,
        };
        known.get(name.as_bytes()).copied()
    }
}

impl Build {
    /// The attributes with the values of access lists that are given in words; those that have none are told to `failed`.
    pub(super) fn numbered(
        &self,
        node: NodeId,
        mut attributes: Attributes,
        mut failed: impl FnMut(Failure),
    ) -> Attributes {
        for (name, words) in std::mem::take(&mut attributes.lists) {
            match acl::parse(&words, |named, name| self.number(node, named, name)) {
                Ok(value) => attributes.xattrs.push((name.to_vec(), value)),
                Err(error) => failed(self.failure_of(node, Problem::AccessList(error))),
            }
        }
        attributes
    }

    fn number(&self, node: NodeId, named: Named, name: &str) -> Option<u32> {
        let origin =
            self.tree.place(node).and_then(|place| self.origins.get(usize::from(place.origin)));
        let told = match origin {
            Some(Origin::Archive(archive)) => {
                archive.names().and_then(|names| names.number(named, name))
            }
            _ => None,
        };
        told.or_else(|| self.names.get_or_init(|| self.names_of_tree()).number(named, name))
            .or_else(|| name.parse().ok())
            .or_else(|| (name == "root").then_some(0))
    }

    fn names_of_tree(&self) -> Names {
        let mut names = Names::default();
        for (named, path) in [(Named::User, &b"/etc/passwd"[..]), (Named::Group, b"/etc/group")] {
            // Without the file, numbers are known from elsewhere or not at all.
            names.note_lines(named, &self.small_file(path).unwrap_or_default());
        }
        names
    }

    /// The bytes of a file of the tree.
    fn small_file(&self, path: &[u8]) -> Option<Vec<u8>> {
        let node = self
            .find(path)
            .filter(|node| self.tree.kind(*node) == Kind::File(FileType::Regular))?;
        let (parent, place) = self.tree.parent(node).zip(self.tree.place(node))?;
        let origin = self.origins.get(usize::from(place.origin))?;
        let opened = origin.open(&self.tree, parent).ok()?;
        let name = self.tree.name(node);
        let entry =
            origin.read(opened.as_ref(), (node, name), FileType::Regular, place, self).ok()?;
        match entry.contents {
            Contents::Bytes { bytes, len } => Some(bytes.as_slice()[..len].to_vec()),
            Contents::Parts(parts) => {
                let mut bytes =
                    vec![0; usize::try_from(parts.size).ok().filter(|size| *size <= MOST_BYTES)?];
                writers::fill(&parts, 0, &mut bytes).ok()?;
                Some(bytes)
            }
            _ => None,
        }
    }
}

/// More are no list of people.
const MOST_NAMES: usize = 1 << 16;
const MOST_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_a_name_counts_and_lines_that_make_no_sense_do_not() {
        let mut names = Names::default();
        names.note_lines(Named::User, b"root:x:0:0::/:\n\nbad\nbad:x\na:x:-1\nb:x:5:5\nb:x:6:6");
        names.note(Named::User, b"b", 7);
        names.note(Named::User, b"", 7);
        let number = |name| names.number(Named::User, name);
        assert_eq!(["root", "bad", "a", "b", ""].map(number), [Some(0), None, None, Some(5), None]);
        assert_eq!(names.number(Named::Group, "root"), None);
    }
}
