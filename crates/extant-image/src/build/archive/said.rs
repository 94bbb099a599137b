//! Extended attributes as archivers write them into records of pax.
//!
//! Source: star(5), `SCHILY.xattr` and `SCHILY.acl`; GNU tar manual, "Extended File Attributes", for `RHT.security.selinux`;
//! tar(5) of libarchive for `LIBARCHIVE.xattr`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::entry::{AccessList, Xattr};
use super::super::error::Problem;

/// Attributes, some of which may be told several times in several ways.
#[derive(Debug, Default)]
pub struct Said {
    xattrs: Vec<Xattr>,
    lists: Vec<AccessList>,
    label: Option<Vec<u8>>,
}

impl Said {
    /// Takes what a record says, if it is about attributes.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"SCHILY.acl.access" => self.lists.push((ACCESS, value.to_vec())),
            b"SCHILY.acl.default" => self.lists.push((DEFAULT, value.to_vec())),
            // As it is kept, it has a zero at its end.
            b"RHT.security.selinux" => self.label = Some([value, b"\0"].concat()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set(plain(name), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = BASE64.decode(value);
                    self.set(
                        plain(name),
                        value
                            .map_err(|_| Problem::Archive("has an attribute that is no base64"))?,
                    );
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.xattrs.retain(|(known, _)| *known != name);
        self.xattrs.push((name, value));
    }

    /// Each attribute once: bytes go before words, which may need names that nobody knows here.
    pub fn finished(self) -> (Vec<Xattr>, Vec<AccessList>) {
        let Self { mut xattrs, lists, label } = self;
        let has = |xattrs: &[Xattr], name: &[u8]| xattrs.iter().any(|(known, _)| known == name);
        if let Some(label) = label.filter(|_| !has(&xattrs, LABEL)) {
            xattrs.push((LABEL.to_vec(), label));
        }
        let last = |name| lists.iter().rfind(|(known, _)| *known == name);
        let words = [ACCESS, DEFAULT].into_iter().filter(|name| !has(&xattrs, name));
        let lists = words.filter_map(last).cloned().collect();
        (xattrs, lists)
    }
}

/// A name in which `%` and two hexadecimal digits are a byte: `=` would end a key.
fn plain(name: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name);
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..2)
            .filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const LABEL: &[u8] = b"security.selinux";
/// Libarchive writes no `=` at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_archiver_is_understood_and_each_attribute_told_once() {
        let mut said = Said::default();
        for (key, value) in [
            ("LIBARCHIVE.xattr.user.%c3%A9%25", "eA"),
            ("SCHILY.xattr.user.\u{e9}%25", "x"),
            ("LIBARCHIVE.xattr.user.padded", "AAE="),
            ("SCHILY.xattr.user.100%", "all"),
            ("RHT.security.selinux", "label"),
            ("SCHILY.acl.default", "u::6"),
            ("SCHILY.acl.access", "in words"),
            ("SCHILY.xattr.system.posix_acl_access", "as bytes"),
            ("other", "value"),
        ] {
            said.take(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let (xattrs, lists) = said.finished();
        let xattr = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let expected = [
            xattr("user.\u{e9}%", b"x"),
            xattr("user.padded", b"\0\x01"),
            xattr("user.100%", b"all"),
            xattr("system.posix_acl_access", b"as bytes"),
            xattr("security.selinux", b"label\0"),
        ];
        assert_eq!(xattrs, expected);
        assert_eq!(lists, [(DEFAULT, b"u::6".to_vec())]);
        assert!(Said::default().take(b"LIBARCHIVE.xattr.user.x", b"\xff").is_err());
    }
}
