//! What headers before a member say of it: long names of GNU tar, and the records of pax with what GNU tar and star have added.
//!
//! Source: POSIX.1-2008, pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files".

use extant_format::Timestamp;
use tar::EntryType;

use super::super::error::Problem;
use super::member::DAMAGED;
use super::said::Said;

/// How a member's holes are written down.
#[derive(Debug, Default)]
pub enum Sparse {
    #[default]
    No,
    /// As runs of offset and length.
    Runs(Vec<(u64, u64)>),
    /// In front of the bytes (pax 1.0).
    InData,
}

/// What headers before a member say of it.
#[derive(Debug, Default)]
pub struct Extensions {
    pub any: bool,
    pub pax: Pax,
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub sparse: Sparse,
    pub real_size: Option<u64>,
    pub sparse_name: Option<Vec<u8>>,
    pub said: Said,
}

#[derive(Clone, Debug, Default)]
pub struct Pax {
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Timestamp>,
    pub atime: Option<Timestamp>,
    /// What the owner is called.
    pub user: Option<Vec<u8>>,
    /// What the group is called.
    pub group: Option<Vec<u8>>,
}

impl Extensions {
    pub fn take(&mut self, kind: EntryType, bytes: &[u8], whole: bool) -> Result<(), Problem> {
        let text = || bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        self.any = true;
        match kind {
            EntryType::GNULongName => self.path = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => self.take_pax(bytes, whole)?,
            // What holds for all members is no attribute of one in any archive that is made.
            _ => {}
        }
        Ok(())
    }

    fn take_pax(&mut self, bytes: &[u8], whole: bool) -> Result<(), Problem> {
        let mut offset = None;
        let mut runs = Vec::new();
        let mut rest = bytes;
        while let Some((key, value)) = record(&mut rest)? {
            let number = || decimal(value).ok_or(DAMAGED);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.pax.size = Some(number()?),
                b"uid" => self.pax.uid = Some(number()?),
                b"gid" => self.pax.gid = Some(number()?),
                b"mtime" => self.pax.mtime = Some(moment(value).ok_or(DAMAGED)?),
                b"uname" => self.pax.user = Some(value.to_vec()),
                b"gname" => self.pax.group = Some(value.to_vec()),
                b"atime" => self.pax.atime = Some(moment(value).ok_or(DAMAGED)?),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(number()?),
                b"GNU.sparse.major" if value == b"1" => self.sparse = Sparse::InData,
                b"GNU.sparse.offset" => offset = Some(number()?),
                b"GNU.sparse.numbytes" => {
                    runs.push((offset.take().ok_or(DAMAGED)?, number()?));
                }
                b"GNU.sparse.map" => {
                    let numbers = value.split(|byte| *byte == b',').map(decimal);
                    let numbers: Vec<u64> = numbers.collect::<Option<_>>().ok_or(DAMAGED)?;
                    runs = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                }
                _ if whole => self.said.take(key, value)?,
                _ => {}
            }
        }
        if !runs.is_empty() {
            self.sparse = Sparse::Runs(runs);
        }
        Ok(())
    }
}

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The next record: length in decimal digits, a blank, key, `=`, value and the end of a line. Values may have such ends in them.
fn record<'a>(rest: &mut &'a [u8]) -> Result<Option<Record<'a>>, Problem> {
    // Some pad with zeros.
    if rest.first().is_none_or(|first| *first == 0) {
        return Ok(None);
    }
    let blank = rest.iter().position(|byte| *byte == b' ').ok_or(DAMAGED)?;
    let len = decimal(&rest[..blank]).and_then(|len| usize::try_from(len).ok());
    let (line, after) = len.and_then(|len| rest.split_at_checked(len)).ok_or(DAMAGED)?;
    let text = line.get(blank + 1..).and_then(|text| text.strip_suffix(b"\n")).ok_or(DAMAGED)?;
    let equals = text.iter().position(|byte| *byte == b'=').ok_or(DAMAGED)?;
    *rest = after;
    Ok(Some((&text[..equals], &text[equals + 1..])))
}

/// A number in decimal digits.
pub fn decimal(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction; before 1970 both count backwards.
fn moment(text: &[u8]) -> Option<Timestamp> {
    let text = core::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.into_iter().try_fold(0_u32, |sum, digit| {
        Some(sum * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?))
    })?;
    match whole.starts_with('-') && nanoseconds > 0 {
        true => Some(Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        }),
        false => Some(Timestamp { seconds, nanoseconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_records_may_be_of_several_lines() {
        let bytes = b"8 a=b=c\n10 d=\n\n\n\n\n";
        let mut rest = &bytes[..];
        assert_eq!(record(&mut rest).unwrap(), Some((&b"a"[..], &b"b=c"[..])));
        assert_eq!(record(&mut rest).unwrap(), Some((&b"d"[..], &b"\n\n\n\n"[..])));
        assert_eq!(record(&mut rest).unwrap(), None);
        for wrong in [
            &b"9 a=b=c\n"[..],
            b"7 a=b=c\n",
            b"x a=b\n",
            b"6 ab\n",
            b"2 \n",
            b"99 a=b\n",
            b"-1 a=b\n",
            b"6",
        ] {
            assert!(record(&mut &wrong[..]).is_err(), "{wrong:?}");
        }
        assert_eq!(record(&mut &b"\0\0"[..]).unwrap(), None);
    }

    #[test]
    fn times_before_1970_count_backwards() {
        let time = |text: &[u8]| moment(text).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.000000001"), Some((-1, 999_999_999)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"1.x"), None);
    }
}
