//! Access lists in words, and as system calls take them.
//!
//! Words are those of getfacl(1) in either of its forms, with what archivers add: a number behind an entry (star, libarchive), and
//! remarks on what the mask leaves of it (GNU tar).
//!
//! Source: acl(5), acl_to_text(3); star(5), `SCHILY.acl.access`; kernel `include/uapi/linux/posix_acl_xattr.h`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Whose a name in a list is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// A user's.
    User,
    /// A group's.
    Group,
}

/// Why words are no list.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AclError {
    /// An entry makes no sense.
    #[error("`{0}` is no entry of an access list")]
    Entry(String),
    /// Nobody knows the number of a user.
    #[error("nothing tells the number of user `{0}`")]
    User(String),
    /// Nobody knows the number of a group.
    #[error("nothing tells the number of group `{0}`")]
    Group(String),
}

/// An entry: tag, permissions, and whose it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// The list that a value says, numbers for names and commas between; `None` if it is none.
pub fn show(value: &[u8]) -> Option<String> {
    let words = entries(value)?.into_iter().map(|entry| entry.word(false));
    Some(words.collect::<Option<Vec<_>>>()?.join(","))
}

/// The same with the number of each name behind it too, as archivers want it.
pub fn show_with_numbers(value: &[u8]) -> Option<String> {
    let words = entries(value)?.into_iter().map(|entry| entry.word(true));
    Some(words.collect::<Option<Vec<_>>>()?.join(","))
}

/// The value of a list: entries with commas, blanks or lines between. `number` tells the number of a name, or of digits; one that
/// stands behind an entry goes before.
///
/// # Errors
/// The first entry that is none, or the first name without a number.
pub fn parse(
    text: &[u8],
    number: impl Fn(Named, &str) -> Option<u32>,
) -> Result<Vec<u8>, AclError> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split([',', ' ', '\t'])).filter(|word| !word.is_empty());
    let entries = words.map(|word| Entry::parse(word, &number));
    Ok(value_of(entries.collect::<Result<_, _>>()?))
}

/// A list in which users and groups have other numbers; `None` if the value is no list.
pub fn renumbered(
    value: &[u8],
    user: impl Fn(u32) -> u32,
    group: impl Fn(u32) -> u32,
) -> Option<Vec<u8>> {
    let renumbered = entries(value)?.into_iter().map(|entry| match entry.tag {
        USER => Entry { id: user(entry.id), ..entry },
        GROUP => Entry { id: group(entry.id), ..entry },
        _ => entry,
    });
    Some(value_of(renumbered.collect()))
}

fn entries(value: &[u8]) -> Option<Vec<Entry>> {
    let (entries, rest) = value.strip_prefix(&VERSION)?.as_chunks::<8>();
    let entry = |&[t0, t1, p0, p1, a, b, c, d]: &[u8; 8]| Entry {
        tag: u16::from_le_bytes([t0, t1]),
        id: u32::from_le_bytes([a, b, c, d]),
        permissions: u16::from_le_bytes([p0, p1]),
    };
    rest.is_empty().then(|| entries.iter().map(entry).collect())
}

fn value_of(mut entries: Vec<Entry>) -> Vec<u8> {
    // The kernel wants them so.
    entries.sort_unstable();
    let mut value = VERSION.to_vec();
    for Entry { tag, id, permissions } in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

impl Entry {
    fn word(self, with_number: bool) -> Option<String> {
        let Self { tag, id, permissions } = self;
        let (_, word, has_id) = TAGS.iter().find(|known| known.0 == tag)?;
        let letter = |bit: u16, letter: char| if permissions & bit != 0 { letter } else { '-' };
        let id = if *has_id { id.to_string() } else { String::new() };
        let behind = if *has_id && with_number { format!(":{id}") } else { String::new() };
        let (read, write, execute) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        (permissions <= 7).then(|| format!("{word}:{id}:{read}{write}{execute}{behind}"))
    }

    fn parse(word: &str, number: &impl Fn(Named, &str) -> Option<u32>) -> Result<Self, AclError> {
        let wrong = || AclError::Entry(word.to_owned());
        let marked = word.strip_prefix("default:").or_else(|| word.strip_prefix("d:"));
        let fields: Vec<&str> = marked.unwrap_or(word).split(':').collect();
        let (kind, who, permissions, behind) = match fields[..] {
            // Solaris, and so star there, says it so.
            [kind @ ("m" | "mask" | "o" | "other"), permissions] => (kind, "", permissions, None),
            [kind, who, permissions] => (kind, who, permissions, None),
            [kind, who, permissions, behind] => (kind, who, permissions, Some(behind)),
            _ => return Err(wrong()),
        };
        let numbered = |named, unknown: fn(String) -> AclError| {
            let who = plain(who);
            let behind = behind.map(|digits| digits.parse().map_err(|_| wrong())).transpose()?;
            behind.or_else(|| number(named, &who)).ok_or_else(|| unknown(who))
        };
        let (tag, id) = match (kind, who) {
            ("u" | "user", "") => (OWNER, u32::MAX),
            ("u" | "user", _) => (USER, numbered(Named::User, AclError::User)?),
            ("g" | "group", "") => (OWNING_GROUP, u32::MAX),
            ("g" | "group", _) => (GROUP, numbered(Named::Group, AclError::Group)?),
            ("m" | "mask", "") => (MASK, u32::MAX),
            ("o" | "other", "") => (OTHERS, u32::MAX),
            _ => return Err(wrong()),
        };
        Ok(Self { tag, id, permissions: permissions_of(permissions).ok_or_else(wrong)? })
    }
}

/// A name with `\` and three octal digits as the byte that they stand for.
fn plain(name: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), name.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let byte = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn permissions_of(text: &str) -> Option<u16> {
    if let Some(digit) = text.parse().ok().filter(|digit| *digit <= 7) {
        return Some(digit);
    }
    text.chars().try_fold(0, |bits, letter| {
        Some(
            bits | match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return None,
            },
        )
    })
}

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// Tag, word, and whether it is about somebody with a number.
const TAGS: [(u16, &str, bool); 6] = [
    (OWNER, "user", false),
    (USER, "user", true),
    (OWNING_GROUP, "group", false),
    (GROUP, "group", true),
    (MASK, "mask", false),
    (OTHERS, "other", false),
];
const VERSION: [u8; 4] = [2, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    fn number(named: Named, name: &str) -> Option<u32> {
        match (named, name) {
            (Named::User, "a b") => Some(7),
            (Named::Group, "staff") => Some(50),
            (_, digits) => digits.parse().ok(),
        }
    }

    #[test]
    fn lists_are_the_same_in_all_forms() {
        let text = "user::rw-,user:1000:r-x,group::r--,group:50:rwx,mask::r-x,other::---";
        let value = parse(text.as_bytes(), number).unwrap();
        assert_eq!(value.len(), 4 + 6 * 8);
        assert_eq!(show(&value).as_deref(), Some(text));
        for form in [
            "# file: f\nm::5\no::0 # nobody\nu:1000:5,g::r,g:staff:7,u::6",
            // acl_to_text(3)
            "user::rw-\nuser:1000:r-x\ngroup::r--\ngroup:staff:rwx\t\t\t#effective:r-x\nmask::r-x\nother::---\n",
            // star, libarchive
            "user::rw-,group::r--,other::---,user:joe:r-x:1000,group:none:rwx:50,mask::r-x",
            "d:u::6,default:group::4,d:o:0,default:mask:r-x,d:u:1000:5,d:g:staff:rwx",
        ] {
            assert_eq!(parse(form.as_bytes(), number).as_ref(), Ok(&value), "{form}");
        }
        let shown = show_with_numbers(&value).unwrap();
        assert!(shown.contains("user:1000:r-x:1000,group::r--,group:50:rwx:50,"), "{shown}");
        assert_eq!(parse(shown.as_bytes(), |_, _| None), Ok(value));
    }

    #[test]
    fn what_is_no_list_is_told() {
        for wrong in ["u:", "u::9", "x::r", "m:1:r", "u", "u:1:r:x", "u:1:r:1:1", "o:r:r", "user:r"]
        {
            let problem = AclError::Entry(wrong.to_owned());
            assert_eq!(parse(wrong.as_bytes(), number), Err(problem), "{wrong}");
        }
        assert_eq!(parse(b"u:joe:r", number), Err(AclError::User("joe".to_owned())));
        assert_eq!(parse(b"g:a b:r", number), Err(AclError::Entry("g:a".to_owned())));
        assert_eq!(parse(br"g:a\040b:r", number), Err(AclError::Group("a b".to_owned())));
        assert!(parse(br"u:a\040b:r", number).is_ok());
        for value in [
            &b""[..],
            b"\x01\0\0\0",
            b"\x02\0\0\0\x01\0\x07\0\0\0\0",
            b"\x02\0\0\0\x03\0\x07\0\0\0\0\0",
        ] {
            assert_eq!(show(value), None, "{value:?}");
        }
    }

    #[test]
    fn users_and_groups_are_renumbered_each_by_their_own_rule() {
        let value = parse(b"u::6,u:1:6,u:9:6,g::4,g:1:4,m::6,o::4", number).unwrap();
        let renumbered = renumbered(&value, |uid| 10 - uid, |gid| gid + 100).unwrap();
        let text = "user::rw-,user:1:rw-,user:9:rw-,group::r--,group:101:r--,mask::rw-,other::r--";
        assert_eq!(show(&renumbered).as_deref(), Some(text));
    }
}
