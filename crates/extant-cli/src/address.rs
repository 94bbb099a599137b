//! How the command line names files: `IMAGE:/path` inside an image, anything else in the machine's own tree.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// How to write them; part of `extant --help`.
pub const HELP: &str = "\
Addresses:
  IMAGE:/path   a file inside an image, which is a file or a block device; the first `:/` divides
  path          a file of this machine; `file:PATH` is one too, whatever its name
  A colon before a slash that is part of a name is written twice: `a::/disk.img:/etc` is /etc in the image `a:/disk.img`.";

/// A file, in an image or on this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// In an image.
    Image(ImagePath),
    /// On this machine.
    Local(PathBuf),
}

/// A file in an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImagePath {
    /// The image file or block device.
    pub image: PathBuf,
    /// The absolute path inside.
    pub path: Vec<u8>,
}

impl Address {
    /// What `text` names.
    pub fn parse(text: OsString) -> Self {
        if let Some(local) = text.as_bytes().strip_prefix(b"file:") {
            return Self::Local(PathBuf::from(OsStr::from_bytes(local)));
        }
        match divide(&text) {
            Divided::Inside(inside) => Self::Image(inside),
            Divided::Whole(path) => Self::Local(path),
        }
    }
}

impl From<OsString> for Address {
    fn from(text: OsString) -> Self {
        Self::parse(text)
    }
}

impl ImagePath {
    /// A file in an image, by its full address.
    ///
    /// # Errors
    /// One line that says how addresses are written.
    pub fn parse(text: OsString) -> Result<Self, String> {
        match divide(&text) {
            Divided::Inside(inside) => Ok(inside),
            Divided::Whole(_) => Err(format!(
                "`{}` names no file inside an image; write IMAGE:/path",
                text.to_string_lossy()
            )),
        }
    }

    /// The same, but an image alone means its root directory.
    pub fn parse_or_root(text: OsString) -> Self {
        let root = |image| Self { image, path: b"/".to_vec() };
        match divide(&text) {
            Divided::Inside(inside) => inside,
            Divided::Whole(image) if text.as_bytes().ends_with(b":") => {
                // A colon at the end divides too, with nothing behind it.
                let mut whole = text;
                whole.push("/");
                match divide(&whole) {
                    Divided::Inside(inside) => inside,
                    Divided::Whole(_) => root(image),
                }
            }
            Divided::Whole(image) => root(image),
        }
    }

    /// An image, also when written as the address of its root.
    ///
    /// # Errors
    /// If a file inside is named.
    pub fn parse_image(text: OsString) -> Result<PathBuf, String> {
        let found = Self::parse_or_root(text);
        match found.name() {
            None => Ok(found.image),
            Some(_) => Err(format!("`{found}` is a file inside an image; name the image alone")),
        }
    }

    /// The address of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = self.path.clone();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self { image: self.image.clone(), path }
    }

    /// The last name in the path; `None` for the root directory and for paths that end in a dot.
    pub fn name(&self) -> Option<&[u8]> {
        last_name(&self.path)
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = doubled(self.image.as_os_str().as_bytes());
        write!(f, "{}:{}", String::from_utf8_lossy(&image), String::from_utf8_lossy(&self.path))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(inside) => inside.fmt(f),
            Self::Local(path) => path.display().fmt(f),
        }
    }
}

/// The last name in a path, unless it only says "here" or "above".
pub fn last_name(path: &[u8]) -> Option<&[u8]> {
    let name = path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty())?;
    (!matches!(name, b"." | b"..")).then_some(name)
}

/// The path of a name itself, where a slash behind it would follow a link.
pub fn without_slash(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    if end == 0 { path } else { &path[..end] }
}

/// The path of the directory that a path's last name is in, with a slash at its end.
pub fn parent(path: &[u8]) -> &[u8] {
    let path = without_slash(path);
    match path.iter().rposition(|byte| *byte == b'/') {
        None => b"",
        Some(slash) => &path[..=slash],
    }
}

/// What a text names.
enum Divided {
    Inside(ImagePath),
    /// Nothing inside an image: the text itself, with doubled colons made single.
    Whole(PathBuf),
}

/// Divides at the first `:/` that something stands before. Of the colons that stand right before a slash each pair is one
/// of the name's own.
fn divide(text: &OsStr) -> Divided {
    let bytes = text.as_bytes();
    let mut name = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let colons = bytes[at..].iter().take_while(|byte| **byte == b':').count();
        let next = at + colons;
        if colons == 0 || bytes.get(next) != Some(&b'/') {
            name.extend_from_slice(&bytes[at..next.max(at + 1)]);
            at = next.max(at + 1);
            continue;
        }
        name.extend(std::iter::repeat_n(b':', colons / 2));
        if colons % 2 == 1 && !name.is_empty() {
            let image = PathBuf::from(OsString::from_vec(name));
            return Divided::Inside(ImagePath { image, path: bytes[next..].to_vec() });
        }
        name.extend(std::iter::repeat_n(b':', colons % 2));
        at = next;
    }
    Divided::Whole(PathBuf::from(OsString::from_vec(name)))
}

/// An image's name as it stands in an address: colons before a slash, or at the end, twice.
fn doubled(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    let mut colons = 0;
    for byte in name.iter().chain([&b'/']) {
        match byte {
            b':' => colons += 1,
            _ => {
                let written = if *byte == b'/' { 2 * colons } else { colons };
                text.extend(std::iter::repeat_n(b':', written));
                text.push(*byte);
                colons = 0;
            }
        }
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, image: Option<&str>, path: &str) {
        let expected = match image {
            Some(image) => Address::Image(ImagePath { image: image.into(), path: path.into() }),
            None => Address::Local(path.into()),
        };
        assert_eq!(Address::parse(text.into()), expected, "{text}");
    }

    #[test]
    fn the_first_colon_before_a_slash_divides() {
        check("disk.img:/etc/passwd", Some("disk.img"), "/etc/passwd");
        check("../a/disk.img:/", Some("../a/disk.img"), "/");
        check("disk.img:/a:/b", Some("disk.img"), "/a:/b");
        check("/dev/vdb:/x", Some("/dev/vdb"), "/x");
        check("plain/path", None, "plain/path");
        check("with:colon", None, "with:colon");
        check(":/x", None, ":/x");
    }

    #[test]
    fn colons_of_a_name_are_written_twice() {
        check("a::/disk.img:/etc", Some("a:/disk.img"), "/etc");
        check("a::/disk.img", None, "a:/disk.img");
        check("a:::/x", Some("a:"), "/x");
        check("a:b::/c:/x", Some("a:b:/c"), "/x");
        check("::/x", None, ":/x");
        for text in ["a::/disk.img:/etc", "a:::/x", "a:b::/c:/x", "a:b:/x:/y"] {
            let Address::Image(inside) = Address::parse(text.into()) else { panic!("{text}") };
            assert_eq!(inside.to_string(), text);
        }
        assert_eq!(ImagePath::parse_image("a::/b".into()), Ok("a:/b".into()));
        assert_eq!(ImagePath::parse_image("a:::".into()), Ok("a:".into()));
    }

    #[test]
    fn the_prefix_file_means_this_machine() {
        check("file:a:/b", None, "a:/b");
        check("file:/x", None, "/x");
        check("./file:/x", Some("./file"), "/x");
    }

    #[test]
    fn an_image_alone_may_mean_its_root() {
        let root = ImagePath { image: "disk.img".into(), path: b"/".to_vec() };
        assert_eq!(ImagePath::parse_or_root("disk.img".into()), root);
        assert_eq!(ImagePath::parse_or_root("disk.img:".into()), root);
        assert!(ImagePath::parse("disk.img".into()).is_err());
        assert_eq!(ImagePath::parse_image("disk.img:/".into()), Ok("disk.img".into()));
        assert_eq!(ImagePath::parse_image("disk.img".into()), Ok("disk.img".into()));
        assert!(ImagePath::parse_image("disk.img:/file".into()).is_err());
    }

    #[test]
    fn names_are_joined_and_found() {
        let root = ImagePath::parse_or_root("disk.img".into());
        assert_eq!(root.join(b"a").join(b"b").to_string(), "disk.img:/a/b");
        assert_eq!(root.name(), None);
        assert_eq!(root.join(b"a").name(), Some(&b"a"[..]));
        assert_eq!(last_name(b"a/b/."), None);
        assert_eq!(last_name(b"a/b/"), Some(&b"b"[..]));
        for (path, expected) in [
            ("/a", "/"),
            ("/a/b", "/a/"),
            ("/a/b/", "/a/"),
            ("/a//b", "/a//"),
            ("a/b", "a/"),
            ("a", ""),
        ] {
            assert_eq!(parent(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
