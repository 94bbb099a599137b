//! `mke2fs.conf`: what each type of file system is like where the command line does not say.
//!
//! The built-in table is the stock file's, so that an image does not depend on the machine that made it; another one is
//! read only if somebody asks for it.
//!
//! Source: mke2fs.conf(5).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::numbers::integer;

/// The relations of a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    relations: Vec<Relation>,
}

/// `value` of the path `section`, `subsection`, `name`; a subsection without a value is there for its own sake.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Relation {
    path: Vec<String>,
    value: Option<String>,
}

/// A line of a configuration file that means nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ConfigError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Default for Config {
    /// The table of mke2fs 1.47 as it is installed.
    fn default() -> Self {
        Self::parse(STOCK).expect("the built-in table has no wrong line")
    }
}

impl Config {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// The first line that is no section, relation or comment.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut relations = Vec::new();
        let mut path: Vec<String> = Vec::new();
        let mut awaits_brace = false;
        let mut count = 0;
        for (line, text) in (1..).zip(text.lines()) {
            let wrong = |problem| ConfigError { line, problem };
            let text = text.trim();
            count = line;
            if core::mem::take(&mut awaits_brace) {
                if !text.starts_with('{') {
                    return Err(wrong("`{` is missing"));
                }
                continue;
            }
            match text.bytes().next() {
                None | Some(b'#' | b';') => {}
                Some(b'[') if path.len() > 1 => return Err(wrong("a section inside another")),
                Some(b'[') => {
                    let name = text[1..].split_once(']').ok_or(wrong("`]` is missing"))?.0.trim();
                    path = vec![unquoted(name)];
                }
                Some(b'}') if path.len() < 2 => return Err(wrong("a `}` too many")),
                Some(b'}') => drop(path.pop()),
                // What comes before the first section is text.
                Some(_) if path.is_empty() => {}
                Some(_) => {
                    let (name, value) = text.split_once('=').ok_or(wrong("`=` is missing"))?;
                    let name = unquoted(name.trim());
                    if name.is_empty() || name.contains(char::is_whitespace) {
                        return Err(wrong("a name is one word"));
                    }
                    let path_of = |name| path.iter().cloned().chain([name]).collect();
                    match value.trim() {
                        "" | "{" => {
                            awaits_brace = value.trim().is_empty();
                            relations.push(Relation { path: path_of(name.clone()), value: None });
                            path.push(name);
                        }
                        value => {
                            let value =
                                word(value).ok_or(wrong("a value is one word, or quoted"))?;
                            relations.push(Relation { path: path_of(name), value: Some(value) });
                        }
                    }
                }
            }
        }
        match path.len() {
            0 | 1 => Ok(Self { relations }),
            _ => Err(ConfigError { line: count, problem: "`}` is missing at the end" }),
        }
    }

    /// Whether `[fs_types]` has that type.
    pub fn has_type(&self, name: &str) -> bool {
        self.relations.iter().any(|relation| {
            relation.value.is_none() && relation.path == [TYPES.to_owned(), name.to_owned()]
        })
    }

    /// The value of a name in `[defaults]`.
    pub fn default_of(&self, name: &str) -> Option<&str> {
        self.value(&["defaults", name])
    }

    /// The value of a name that `[devices]` has for a device.
    pub fn of_device(&self, device: &str, name: &str) -> Option<&str> {
        self.value(&["devices", device, name])
    }

    fn value(&self, path: &[&str]) -> Option<&str> {
        let found = self.relations.iter().find(|relation| {
            relation.value.is_some()
                && relation.path.iter().map(String::as_str).eq(path.iter().copied())
        });
        found.and_then(|relation| relation.value.as_deref())
    }
}

/// What a configuration says for a list of types, of which later ones go before earlier ones and all before `[defaults]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'a> {
    pub(super) config: &'a Config,
    pub(super) types: &'a [String],
}

impl<'a> Lookup<'a> {
    /// The text of a name.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let of_type = |kind: &String| self.config.value(&[TYPES, kind, name]);
        self.types.iter().rev().find_map(of_type).or_else(|| self.config.default_of(name))
    }

    /// The texts that the types have for a name, first type first.
    pub(super) fn each(&self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let Self { config, types } = *self;
        types.iter().filter_map(move |kind| config.value(&[TYPES, kind, name]))
    }

    /// A whole number that may be below zero.
    pub(super) fn signed(&self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        match text.strip_prefix('-') {
            Some(digits) => i64::try_from(integer(digits)?).ok().map(|number| -number),
            None => i64::try_from(integer(text)?).ok(),
        }
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.text(name).and_then(integer).and_then(|number| u32::try_from(number).ok())
    }

    /// A yes or no.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match &*self.text(name)?.to_ascii_lowercase() {
            "1" | "y" | "yes" | "t" | "true" | "on" => Some(true),
            "0" | "n" | "no" | "nil" | "false" | "off" => Some(false),
            _ => None,
        }
    }
}

/// A name without its quotes.
fn unquoted(text: &str) -> String {
    if text.starts_with('"') { word(text).unwrap_or_default() } else { text.to_owned() }
}

/// A value: what is between quotes, with its escapes, or one word, behind which a comment may stand.
fn word(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        return (rest.is_empty() || rest.starts_with(['#', ';'])).then(|| word.to_owned());
    };
    let mut letters = quoted.chars();
    let mut word = String::new();
    loop {
        word.push(match letters.next() {
            None | Some('"') => return Some(word),
            Some('\\') => match letters.next()? {
                'n' => '\n',
                't' => '\t',
                'b' => '\u{8}',
                letter => letter,
            },
            Some(letter) => letter,
        });
    }
}

const TYPES: &str = "fs_types";

/// What distributions install.
const STOCK: &str = "
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext3 = {
    features = has_journal
}
ext4 = {
    features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
small = {
    blocksize = 1024
    inode_ratio = 4096
}
floppy = {
    blocksize = 1024
    inode_ratio = 8192
}
big = {
    inode_ratio = 32768
}
huge = {
    inode_ratio = 65536
}
news = {
    inode_ratio = 4096
}
largefile = {
    inode_ratio = 1048576
    blocksize = -1
}
largefile4 = {
    inode_ratio = 4194304
    blocksize = -1
}
hurd = {
    blocksize = 4096
    inode_size = 128
    warn_y2038_dates = 0
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_types_go_before_earlier_ones_and_all_before_the_defaults() {
        let config = Config::default();
        let types = ["ext4".to_owned(), "small".to_owned(), "largefile".to_owned()];
        let lookup = Lookup { config: &config, types: &types };
        assert_eq!(lookup.number("inode_ratio"), Some(1_048_576));
        assert_eq!(lookup.signed("blocksize"), Some(-1));
        assert_eq!(lookup.number("inode_size"), Some(256));
        assert_eq!(lookup.flag("enable_periodic_fsck"), Some(false));
        assert_eq!(lookup.text("hash_alg"), None);
        assert!(lookup.each("features").eq(config.value(&[TYPES, "ext4", "features"])));
        assert!(
            config.has_type("hurd") && !config.has_type("ext2") && !config.has_type("features")
        );
    }

    #[test]
    fn files_have_comments_quotes_and_braces() {
        let text = "text\n# comment\n[defaults] # more\n a = \"b c\\t\" \n[fs_types]\n new =\n {\n empty = {\n }\n x = 1 ; comment\n }\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.default_of("a"), Some("b c\t"));
        assert!(config.has_type("new"));
        assert_eq!(config.value(&[TYPES, "new", "x"]), Some("1"));
    }

    #[test]
    fn wrong_lines_are_told() {
        for (text, line) in [
            ("[defaults\n", 1),
            ("[defaults]\nword\n", 2),
            ("[defaults]\n\nx = two words\n", 3),
            ("[defaults]\n}\n", 2),
            ("[fs_types]\nx = {\n[y]\n", 3),
            ("[fs_types]\nx = {\n", 2),
            ("[fs_types]\nx =\ny = 1\n", 3),
            ("[d]\ntwo words = 1\n", 2),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
