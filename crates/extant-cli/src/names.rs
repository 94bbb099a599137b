//! Names of users and groups, as an image's own `/etc/passwd` and `/etc/group` have them: this machine's may mean somebody
//! else.

use std::collections::HashMap;

use extant::Filesystem;
use extant_format::cast::u64_from;

/// The users and groups of an image.
#[derive(Debug, Default)]
pub struct Names {
    users: Vec<Named>,
    groups: Vec<Named>,
    user_of: HashMap<u32, usize>,
    group_of: HashMap<u32, usize>,
}

/// A line of one of the two files.
#[derive(Debug)]
struct Named {
    name: Vec<u8>,
    id: u32,
    /// A user's own group.
    group: Option<u32>,
}

/// An owner as chown(1) takes it: numbers, or names of the image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnerText {
    user: Option<String>,
    group: Group,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Group {
    Unchanged,
    /// The user's own: a colon with nothing behind it.
    OfUser,
    Named(String),
}

/// Who owns a file from now on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Names {
    /// Those of an image; what is not there, or no such file, has no names.
    pub fn of(filesystem: &Filesystem) -> Self {
        let read = |path: &str| parse(&read(filesystem, path).unwrap_or_default());
        let (users, groups) = (read("/etc/passwd"), read("/etc/group"));
        let by_id = |list: &[Named]| {
            // The first line of a number counts.
            list.iter().enumerate().rev().map(|(place, named)| (named.id, place)).collect()
        };
        Self { user_of: by_id(&users), group_of: by_id(&groups), users, groups }
    }

    /// What a user is called, or the number.
    pub fn user(&self, uid: u32) -> Vec<u8> {
        let known = self.user_of.get(&uid).and_then(|place| self.users.get(*place));
        known.map_or_else(|| uid.to_string().into_bytes(), |named| named.name.clone())
    }

    /// What a group is called, or the number.
    pub fn group(&self, gid: u32) -> Vec<u8> {
        let known = self.group_of.get(&gid).and_then(|place| self.groups.get(*place));
        known.map_or_else(|| gid.to_string().into_bytes(), |named| named.name.clone())
    }

    /// The number of a user, who may be given by number.
    pub fn uid(&self, text: &str) -> Option<u32> {
        find(&self.users, text).map_or_else(|| root_or_number(text), |named| Some(named.id))
    }

    /// The number of a group, which may be given by number.
    pub fn gid(&self, text: &str) -> Option<u32> {
        find(&self.groups, text).map_or_else(|| root_or_number(text), |named| Some(named.id))
    }

    /// The owner that a text means in this image.
    ///
    /// # Errors
    /// A name that the image does not have, or a number that nobody can have.
    pub fn owner(&self, text: &OwnerText) -> anyhow::Result<Owner> {
        let unknown = |kind: &str, name: &str| {
            anyhow::anyhow!(
                "invalid {kind}: `{name}` is neither a number nor in the image's own /etc/{}",
                if kind == "user" { "passwd" } else { "group" }
            )
        };
        let uid = match &text.user {
            Some(name) => Some(self.uid(name).ok_or_else(|| unknown("user", name))?),
            None => None,
        };
        let gid = match (&text.group, &text.user) {
            (Group::Unchanged, _) | (Group::OfUser, None) => None,
            (Group::Named(name), _) => Some(self.gid(name).ok_or_else(|| unknown("group", name))?),
            (Group::OfUser, Some(name)) => {
                let group = find(&self.users, name).and_then(|named| named.group);
                let why = || {
                    anyhow::anyhow!(
                        "`{name}:` means a user's own group, and the image's /etc/passwd does not tell it"
                    )
                };
                Some(group.ok_or_else(why)?)
            }
        };
        Ok(Owner { uid, gid })
    }
}

impl OwnerText {
    /// `USER`, `USER:GROUP`, `USER:` or `:GROUP`.
    pub fn parse(text: &str) -> Self {
        let (user, group) = match text.split_once(':') {
            None => (text, Group::Unchanged),
            Some((_, "")) => (text.trim_end_matches(':'), Group::OfUser),
            Some((user, group)) => (user, Group::Named(group.to_owned())),
        };
        let user = (!user.is_empty()).then(|| user.to_owned());
        Self { user, group }
    }
}

fn find<'a>(list: &'a [Named], text: &str) -> Option<&'a Named> {
    list.iter().find(|named| named.name == text.as_bytes())
}

/// Everywhere root is number zero, also where no file says so.
fn root_or_number(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { number(text) }
}

/// A number of a user or group, with or without a plus; the largest means nobody.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number != u32::MAX)
}

fn parse(text: &[u8]) -> Vec<Named> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().filter(|name| !name.is_empty())?.to_vec();
            let mut number = |at| number(str::from_utf8(fields.nth(at)?).ok()?);
            Some(Named { name, id: number(1)?, group: number(0) })
        })
        .collect()
}

/// A small file's bytes.
fn read(filesystem: &Filesystem, path: &str) -> Option<Vec<u8>> {
    let file = filesystem.open(path).ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.size > MOST_BYTES {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(found.size).ok()?];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], u64_from(done)).ok()? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Some(bytes)
}

/// Longer lists of names are nothing that was written by hand.
const MOST_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let users =
            parse(b"root:x:0:0:root:/root:/bin/sh\nmail:x:8:12:::\n# no line\nagain:x:8:9:::\n");
        let groups = parse(b"root:x:0:\nstaff:x:50:a,b\n");
        Names { user_of: [(0, 0), (8, 1)].into(), group_of: [(50, 1)].into(), users, groups }
    }

    #[test]
    fn owners_are_names_of_the_image_or_numbers() {
        let owner =
            |text: &str| names().owner(&OwnerText::parse(text)).map(|owner| (owner.uid, owner.gid));
        for (text, expected) in [
            ("1:2", (Some(1), Some(2))),
            ("1", (Some(1), None)),
            (":2", (None, Some(2))),
            ("root", (Some(0), None)),
            ("mail:staff", (Some(8), Some(50))),
            ("mail:", (Some(8), Some(12))),
            ("+7:staff", (Some(7), Some(50))),
            (":", (None, None)),
        ] {
            assert_eq!(owner(text).unwrap(), expected, "{text}");
        }
        for wrong in ["nobody", "4294967295", ":4294967295", "1:nogroup", "5:", "-1", "1x"] {
            assert!(owner(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_the_first_name_that_the_image_gives_them() {
        assert_eq!((names().user(8), names().user(7)), (b"mail".to_vec(), b"7".to_vec()));
        assert_eq!((names().group(50), names().group(0)), (b"staff".to_vec(), b"0".to_vec()));
    }
}
