//! What is changed on the way from the sources into the image: owners, and what is left out.

use super::entry::Attributes;
use crate::acl;

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
    /// What is left out: names, or paths if there is a slash; `*` and `?` stand for what has no slash, `**` for anything.
    pub exclude: Vec<String>,
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
    /// What the number of somebody becomes whom an access list names: owning all files is not being all of them.
    fn named(&self, number: u32) -> u32 {
        if let Self::All(_) = self { number } else { self.of(number) }
    }

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
    /// Whether a name in the directory at `path`, which begins with a slash unless it is the root, is left out.
    pub(super) fn excludes(&self, path: &[u8], name: &[u8]) -> bool {
        let whole = || [path, b"/", name].concat();
        self.exclude.iter().any(|glob| match glob.contains('/') {
            false => matches(glob.as_bytes(), name),
            true => matches(glob.trim_start_matches('/').as_bytes(), &whole()[1..]),
        })
    }

    /// Whether anything is left out at all.
    pub(super) fn excludes_any(&self) -> bool {
        !self.exclude.is_empty()
    }

    /// Whether a file of this machine must not be read.
    pub(super) fn avoids(&self, device: u64, number: u64) -> bool {
        self.avoid.contains(&(device, number))
    }

    /// The attributes as they are in the image.
    pub(super) fn adjusted(&self, mut attributes: Attributes) -> Attributes {
        if self.without_xattrs {
            attributes.xattrs.retain(|(name, _)| is_access_list(name));
        }
        for (_, value) in attributes.xattrs.iter_mut().filter(|(name, _)| is_access_list(name)) {
            let renumbered =
                acl::renumbered(value, |uid| self.users.named(uid), |gid| self.groups.named(gid));
            // What is no list is told when it is refused.
            *value = renumbered.unwrap_or_else(|| std::mem::take(value));
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

fn is_access_list(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// Whether all of `text` is as `glob` has it.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star was, and what it has taken so far.
    let mut star: Option<(usize, usize, bool)> = None;
    loop {
        if glob[at..].starts_with(b"*") {
            let crosses = glob[at..].starts_with(b"**");
            at += if crosses { 2 } else { 1 };
            star = Some((at, from, crosses));
        } else if from < text.len()
            && (glob.get(at) == Some(&text[from])
                || glob.get(at) == Some(&b'?') && text[from] != b'/')
        {
            (at, from) = (at + 1, from + 1);
        } else if at == glob.len() && from == text.len() {
            return true;
        } else {
            match &mut star {
                Some((after, taken, crosses))
                    if *taken < text.len() && (*crosses || text[*taken] != b'/') =>
                {
                    *taken += 1;
                    (at, from) = (*after, *taken);
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_names_or_with_a_slash_paths() {
        let leaves_out = |glob: &str, path: &str, name: &str| {
            let rules = Rules { exclude: vec![glob.to_owned()], ..Rules::default() };
            rules.excludes(path.as_bytes(), name.as_bytes())
        };
        assert!(leaves_out("*.pyc", "/usr/lib", "a.pyc") && !leaves_out("*.pyc", "", "a.pyc.txt"));
        assert!(leaves_out("/tmp", "", "tmp") && !leaves_out("/tmp", "/var", "tmp"));
        assert!(
            leaves_out("var/cache/*", "/var/cache", "apt")
                && !leaves_out("var/*", "/var/cache", "apt")
        );
        assert!(leaves_out("var/**", "/var/cache", "apt") && leaves_out("a?c", "", "abc"));
        assert!(leaves_out("*a*b", "", "xaxxab") && !leaves_out("*a*b", "", "xaxxa"));
    }

    #[test]
    fn access_lists_name_those_that_users_and_groups_become() {
        let value =
            |text: &str| acl::parse(text.as_bytes(), |_, digits| digits.parse().ok()).unwrap();
        let attributes = || Attributes {
            xattrs: vec![(
                b"system.posix_acl_access".to_vec(),
                value("u::6,u:5:6,g::4,g:5:4,m::6,o::4"),
            )],
            ..Attributes::default()
        };
        let rules = Rules { users: Owners::Mapped(vec![(5, 1005, 1)]), ..Rules::default() };
        assert_eq!(
            rules.adjusted(attributes()).xattrs[0].1,
            value("u::6,u:1005:6,g::4,g:5:4,m::6,o::4")
        );
        let all = Rules { users: Owners::All(0), groups: Owners::All(0), ..Rules::default() };
        assert_eq!(all.adjusted(attributes()).xattrs, attributes().xattrs);
    }

    #[test]
    fn the_first_range_that_has_a_number_counts_and_others_are_kept() {
        let owners = Owners::Mapped(vec![(0, 100_000, 1000), (500, 7, 1), (u32::MAX, 5, 1)]);
        let mapped = [0, 500, 999, 1000, u32::MAX].map(|number| owners.of(number));
        assert_eq!(mapped, [100_000, 100_500, 100_999, 1000, 5]);
        assert_eq!(Owners::All(3).of(9), 3);
    }
}
