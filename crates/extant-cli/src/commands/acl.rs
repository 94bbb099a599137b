//! Access lists as text, in the short form of getfacl(1), and as system calls take them.
//!
//! Source: acl(5), kernel `include/uapi/linux/posix_acl_xattr.h`.

use crate::failure::Usage;
use crate::names::Names;

/// The list that a value says; `None` if it is none.
pub fn show(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&VERSION.to_le_bytes())?;
    let words = entries.chunks(ENTRY_BYTES).map(|entry| {
        let number = |at: usize| Some(u16::from_le_bytes(*entry.get(at..at + 2)?.as_array()?));
        let id = u32::from_le_bytes(*entry.get(4..8)?.as_array()?);
        let (_, word, has_id) = TAGS.iter().find(|known| Some(known.0) == number(0))?;
        let bits = number(2).filter(|bits| *bits <= 7)?;
        let letter = |bit: u16, letter: char| if bits & bit != 0 { letter } else { '-' };
        let id = if *has_id { id.to_string() } else { String::new() };
        Some(format!("{word}:{id}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')))
    });
    Some(words.collect::<Option<Vec<_>>>()?.join(","))
}

/// The value of a list: entries with commas, blanks or lines between, names by the image's own files.
///
/// # Errors
/// The first entry that is none.
pub fn parse(text: &[u8], names: &Names) -> anyhow::Result<Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split([',', ' ', '\t'])).filter(|word| !word.is_empty());
    let mut entries = Vec::new();
    for word in words {
        let wrong = || Usage(format!("`{word}` is no entry of an access list; write u:1000:r-x"));
        let mut fields = word.split(':');
        let (kind, who, bits) = (fields.next(), fields.next(), fields.next());
        let (kind, bits) = (kind.ok_or_else(wrong)?, bits.ok_or_else(wrong)?);
        let who = who.filter(|who| !who.is_empty());
        let (tag, id) = match (kind, who) {
            ("u" | "user", None) => (0x01, u32::MAX),
            ("u" | "user", Some(name)) => (0x02, names.uid(name).ok_or_else(wrong)?),
            ("g" | "group", None) => (0x04, u32::MAX),
            ("g" | "group", Some(name)) => (0x08, names.gid(name).ok_or_else(wrong)?),
            ("m" | "mask", None) => (0x10, u32::MAX),
            ("o" | "other", None) => (0x20, u32::MAX),
            _ => return Err(wrong().into()),
        };
        entries.push((tag, id, permissions(bits).ok_or_else(wrong)?));
    }
    // The kernel wants them so.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend_from_slice(&u16::to_le_bytes(tag));
        value.extend_from_slice(&u16::to_le_bytes(bits));
        value.extend_from_slice(&u32::to_le_bytes(id));
    }
    Ok(value)
}

fn permissions(text: &str) -> Option<u16> {
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

/// Tag, word, and whether it is about somebody with a number.
const TAGS: [(u16, &str, bool); 6] = [
    (0x01, "user", false),
    (0x02, "user", true),
    (0x04, "group", false),
    (0x08, "group", true),
    (0x10, "mask", false),
    (0x20, "other", false),
];
const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_the_same_in_both_forms() {
        let text = "user::rw-,user:1000:r-x,group::r--,mask::r-x,other::---";
        let value = parse(text.as_bytes(), &Names::default()).unwrap();
        assert_eq!(value.len(), 4 + 5 * ENTRY_BYTES);
        assert_eq!(show(&value).as_deref(), Some(text));
        let short = b"# file: f\nm::5\no::0 # nobody\nu:+1000:5,g::r,u::6";
        assert_eq!(parse(short, &Names::default()).unwrap(), value);
        for wrong in ["u:", "u::9", "x::r", "m:1:r", "u:nobody:r"] {
            assert!(parse(wrong.as_bytes(), &Names::default()).is_err(), "{wrong}");
        }
        assert_eq!(show(b"\x02\0\0\0\x03\0\x07\0\0\0\0\0"), None);
        assert_eq!(show(b""), None);
    }
}
