//! Headers: 512 bytes of ustar and, before them, records of pax for whatever does not fit.

use std::io::{self, Write};

use extant::{FileType, Metadata, Timestamp};
use extant_format::cast::u64_from;
use tar::{EntryType, Header};

use super::ExportOptions;

/// Records of an extended header.
#[derive(Debug, Default)]
pub struct Records(Vec<u8>);

impl Records {
    /// Adds a record, whose length counts its own digits.
    pub fn push(&mut self, keyword: &[u8], value: &[u8]) {
        let rest = keyword.len() + value.len() + 3;
        let mut len = rest + 1;
        while rest + len.to_string().len() > len {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(len.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(keyword);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// A number in decimal digits.
    pub fn number(&mut self, keyword: &str, value: u64) {
        self.push(keyword.as_bytes(), value.to_string().as_bytes());
    }

    /// A time, with as many digits after the point as it needs.
    pub fn time(&mut self, keyword: &str, time: Timestamp) {
        self.push(keyword.as_bytes(), decimal(time).as_bytes());
    }

    /// An extended attribute. A keyword ends at the first `=`, so that one of the name is written as GNU tar does.
    pub fn attribute(&mut self, name: &[u8], value: &[u8]) {
        let mut keyword = b"SCHILY.xattr.".to_vec();
        for byte in name {
            match byte {
                b'=' => keyword.extend_from_slice(b"%3D"),
                b'%' => keyword.extend_from_slice(b"%25"),
                byte => keyword.push(*byte),
            }
        }
        self.push(&keyword, value);
    }
}

/// Seconds with a fraction; before 1970 both have the sign, as POSIX takes it.
fn decimal(time: Timestamp) -> String {
    let (negative, seconds, nanoseconds) = match (time.seconds, time.nanoseconds) {
        (seconds @ 0.., nanoseconds) => (false, seconds.unsigned_abs(), nanoseconds),
        (seconds, 0) => (true, seconds.unsigned_abs(), 0),
        (seconds, nanoseconds) => (true, seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    let sign = if negative { "-" } else { "" };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An entry that is about to be written.
#[derive(Debug)]
pub struct Head<'a> {
    /// The path, as it shall be when unpacked.
    pub path: &'a [u8],
    /// What a link leads to.
    pub link: Option<&'a [u8]>,
    /// What kind of entry.
    pub kind: EntryType,
    /// Bytes that follow.
    pub size: u64,
    /// The path that goes into the header, if not the one above: of sparse files.
    pub stand_in: Option<Vec<u8>>,
}

/// The kind of entry of a file with one name.
pub fn kind_of(metadata: &Metadata) -> Option<EntryType> {
    Some(match metadata.file_type() {
        FileType::Regular => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket => return None,
    })
}

/// Writes an entry's headers; `records` are those that it has beside what its fields ask for.
pub fn write(
    out: &mut dyn Write,
    head: &Head<'_>,
    metadata: &Metadata,
    options: ExportOptions,
    mut records: Records,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    let path = head.stand_in.as_deref().unwrap_or(head.path);
    let fields = header.as_ustar_mut().ok_or_else(|| io::Error::other("no ustar header"))?;
    if !put(&mut fields.name, path) {
        text(&mut records, "path", path);
    }
    if let Some(link) = head.link
        && !put(&mut fields.linkname, link)
    {
        text(&mut records, "linkpath", link);
    }
    header.set_entry_type(head.kind);
    header.set_mode((metadata.mode & 0o7777).into());
    let mut number = |keyword: &str, value: u64, most: u64| {
        if value > most {
            records.number(keyword, value);
        }
        if value > most { 0 } else { value }
    };
    header.set_uid(number("uid", metadata.uid.into(), SEVEN_DIGITS));
    header.set_gid(number("gid", metadata.gid.into(), SEVEN_DIGITS));
    header.set_size(number("size", head.size, ELEVEN_DIGITS));
    let seconds = u64::try_from(metadata.modified.seconds).ok().filter(|s| *s <= ELEVEN_DIGITS);
    header.set_mtime(seconds.unwrap_or(0));
    if seconds.is_none() || metadata.modified.nanoseconds != 0 {
        records.time("mtime", metadata.modified);
    }
    if options.access_times {
        records.time("atime", metadata.accessed);
    }
    if let Some((major, minor)) = metadata.device {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    header.set_cksum();
    if !records.0.is_empty() {
        extended(out, &records, metadata)?;
    }
    out.write_all(header.as_bytes())
}

/// The extended header as an entry of its own.
fn extended(out: &mut dyn Write, records: &Records, metadata: &Metadata) -> io::Result<()> {
    let mut header = Header::new_ustar();
    let fields = header.as_ustar_mut().ok_or_else(|| io::Error::other("no ustar header"))?;
    // Who knows no pax unpacks it as a file of this name.
    put(&mut fields.name, format!("PaxHeaders/{}", metadata.inode.get()).as_bytes());
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_size(u64_from(records.0.len()));
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    out.write_all(&records.0)?;
    pad(out, u64_from(records.0.len()))
}

/// A path as a record; one that is no text says so.
fn text(records: &mut Records, keyword: &str, path: &[u8]) {
    if std::str::from_utf8(path).is_err() {
        records.push(b"hdrcharset", b"BINARY");
    }
    records.push(keyword.as_bytes(), path);
}

/// Puts bytes into a field, if they fit.
fn put(field: &mut [u8; 100], bytes: &[u8]) -> bool {
    match field.get_mut(..bytes.len()) {
        Some(start) => {
            start.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

/// Fills the last record of `len` bytes.
pub fn pad(out: &mut dyn Write, len: u64) -> io::Result<()> {
    let rest = usize::try_from(len.next_multiple_of(RECORD_BYTES) - len).unwrap_or(0);
    out.write_all(ZEROS.get(..rest).unwrap_or_default())
}

/// Bytes of a record of a tar.
pub const RECORD_BYTES: u64 = 512;
/// Zeros to fill with.
pub const ZEROS: [u8; 4096] = [0; 4096];
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let mut records = Records::default();
        records.push(b"path", b"x");
        records.push(b"k", &[b'v'; 93]);
        records.push(b"k", &[b'v'; 94]);
        records.attribute(b"user.a=b%", b"\0\n");
        let lines = [
            "9 path=x\n",
            &format!("99 k={}\n", "v".repeat(93)),
            &format!("101 k={}\n", "v".repeat(94)),
            "33 SCHILY.xattr.user.a%3Db%25=\0\n\n",
        ];
        assert_eq!(String::from_utf8_lossy(&records.0), lines.concat());
    }

    #[test]
    fn times_are_decimal_fractions() {
        let text = |seconds, nanoseconds| decimal(Timestamp { seconds, nanoseconds });
        assert_eq!(text(12, 0), "12");
        assert_eq!(text(12, 500_000_000), "12.5");
        assert_eq!(text(0, 1), "0.000000001");
        assert_eq!(text(-1, 0), "-1");
        assert_eq!(text(-1, 750_000_000), "-0.25");
        assert_eq!(text(-3, 123_456_789), "-2.876543211");
    }
}
