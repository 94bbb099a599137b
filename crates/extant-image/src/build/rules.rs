//! What is changed on the way from the sources into the image: owners, and what is left out.

use super::entry::Attributes;

/// What is changed on the way into the image.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Who owns the files.
    pub users: Owners,
    /// Which groups they belong to.
    pub groups: Owners,
    /// Extended attributes are left out, but for access lists.
    pub without_xattrs: bool,
    /// Times of access are those of modification.
    pub only_modified: bool,
    /// Files that are not read, by device and number: the image itself.
    pub avoid: Vec<(u64, u64)>,
}

/// How numbers of users, or of groups, change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Owners {
    /// They do not.
    #[default]
    Kept,
    /// All become this one.
    All(u32),
    /// Those of a range become those of another: from, to, how many. The first that has a number counts; others are kept.
    Mapped(Vec<(u32, u32, u32)>),
}

impl Owners {
    /// What a number becomes.
    pub fn of(&self, number: u32) -> u32 {
        match self {
            Self::Kept => number,
            Self::All(all) => *all,
            Self::Mapped(ranges) => {
                let mapped = ranges.iter().find_map(|(from, to, count)| {
                    let offset = number.checked_sub(*from).filter(|offset| offset < count)?;
                    to.checked_add(offset)
                });
                mapped.unwrap_or(number)
            }
        }
    }
}

impl Rules {
    /// Whether a name in the directory at `path` is left out.
    pub(super) fn excludes(&self, _path: &[u8], _name: &[u8]) -> bool {
        false
    }

    /// Whether anything is left out at all.
    pub(super) fn excludes_any(&self) -> bool {
        false
    }

    /// Whether a file of this machine must not be read.
    pub(super) fn avoids(&self, device: u64, number: u64) -> bool {
        self.avoid.contains(&(device, number))
    }

    /// The attributes as they are in the image.
    pub(super) fn adjusted(&self, mut attributes: Attributes) -> Attributes {
        if self.without_xattrs {
            attributes.xattrs.retain(|(name, _)| name.starts_with(b"system.posix_acl_"));
        }
        // Sources have orders of their own.
        attributes.xattrs.sort();
        Attributes {
            uid: self.users.of(attributes.uid),
            gid: self.groups.of(attributes.gid),
            accessed: attributes.accessed.filter(|_| !self.only_modified),
            ..attributes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_that_has_a_number_counts_and_others_are_kept() {
        let owners = Owners::Mapped(vec![(0, 100_000, 1000), (500, 7, 1), (u32::MAX, 5, 1)]);
        let mapped = [0, 500, 999, 1000, u32::MAX].map(|number| owners.of(number));
        assert_eq!(mapped, [100_000, 100_500, 100_999, 1000, 5]);
        assert_eq!(Owners::All(3).of(9), 3);
    }
}
