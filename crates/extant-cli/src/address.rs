//! How the command line names files: `IMAGE:/path` inside an image, anything else in the machine's own tree.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// How to write them; part of `extant --help`.
pub const HELP: &str = "\
Addresses:
  IMAGE:/path   a file inside an image, which is a file or a block device; the first `:/` divides
  path          a file of this machine; one with `:/` in its name is written `file:PATH`";

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
            Some(inside) => Self::Image(inside),
            None => Self::Local(PathBuf::from(text)),
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
        divide(&text).ok_or_else(|| {
            format!("`{}` names no file inside an image; write IMAGE:/path", text.to_string_lossy())
        })
    }

    /// The same, but an image alone means its root directory.
    pub fn parse_or_root(text: OsString) -> Self {
        divide(&text).unwrap_or_else(|| {
            let image = text.as_bytes().strip_suffix(b":").unwrap_or(text.as_bytes()).to_vec();
            Self { image: PathBuf::from(OsString::from_vec(image)), path: b"/".to_vec() }
        })
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
        write!(f, "{}:{}", self.image.display(), String::from_utf8_lossy(&self.path))
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

/// Divides at the first `:/`, if something stands before it.
fn divide(text: &OsStr) -> Option<ImagePath> {
    let bytes = text.as_bytes();
    let at = bytes.windows(2).position(|pair| pair == b":/").filter(|at| *at > 0)?;
    let (image, path) = (bytes[..at].to_vec(), bytes[at + 1..].to_vec());
    Some(ImagePath { image: PathBuf::from(OsString::from_vec(image)), path })
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
    }
}
