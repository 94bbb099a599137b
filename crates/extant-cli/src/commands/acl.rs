//! Access lists in words, with the names of an image.

use extant_image::acl::{self, AclError, Named};

pub use extant_image::acl::show;

use crate::failure::Usage;
use crate::names::Names;

/// The value of a list: entries with commas, blanks or lines between, names by the image's own files.
///
/// # Errors
/// The first entry that is none.
pub fn parse(text: &[u8], names: &Names) -> anyhow::Result<Vec<u8>> {
    let value = acl::parse(text, |named, name| match named {
        Named::User => names.uid(name),
        Named::Group => names.gid(name),
    });
    value.map_err(|error| match error {
        AclError::Entry(_) => Usage(format!("{error}; write u:1000:r-x")).into(),
        AclError::User(name) => unknown("user", &name, "passwd"),
        AclError::Group(name) => unknown("group", &name, "group"),
    })
}

fn unknown(kind: &str, name: &str, file: &str) -> anyhow::Error {
    anyhow::anyhow!("{kind} `{name}` is neither a number nor in the image's own /etc/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_number_are_told_apart_from_nonsense() {
        let told = |text: &str| parse(text.as_bytes(), &Names::default()).unwrap_err().to_string();
        assert!(told("u:nobody:r").contains("/etc/passwd"));
        assert!(told("g:nobody:r").contains("/etc/group"));
        assert!(told("nonsense").contains("u:1000:r-x"));
        assert!(parse(b"u:+1000:5,g:root:r,u::6,g::r,m::5,o::0", &Names::default()).is_ok());
    }
}
