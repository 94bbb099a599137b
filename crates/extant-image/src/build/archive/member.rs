//! One member of a tar archive: its headers, with what pax, GNU and star have added to them.
//!
//! Everything that a header claims is doubted: what is read into memory is bounded, and places are checked against the archive.
//!
//! Source: POSIX.1-2008, pax; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"; star(5), `SCHILY.*`.

use std::fs::File;
use std::ops::Range;

use extant::namespace::NodeKind;
use extant_format::cast::{low_u16, u64_from};
use extant_format::{FileType, Timestamp};
use tar::{EntryType, Header};

use super::super::entry::Attributes;
use super::super::error::Problem;
use super::extensions::{Extensions, Sparse, decimal};

/// What a member is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum What {
    File(FileType),
    /// Another name of an earlier member.
    Link(Vec<u8>),
    /// Nothing that goes into an image.
    Other,
}

/// A member, as far as its headers tell.
#[derive(Debug)]
pub struct Member {
    pub path: Vec<u8>,
    pub what: What,
    pub symlink: Vec<u8>,
    pub attributes: Attributes,
    /// What its owner is called.
    pub user: Vec<u8>,
    /// What its group is called.
    pub group: Vec<u8>,
    pub device: (u32, u32),
    /// The size of the file.
    pub size: u64,
    /// Where its bytes are in the archive, and how many.
    pub data: Range<u64>,
    sparse: Sparse,
    /// Why it cannot be taken, if it cannot.
    pub refused: Option<&'static str>,
}

/// An archive that can be read anywhere.
#[derive(Debug)]
pub struct Window<'a> {
    file: &'a File,
    len: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub fn new(file: &'a File, len: u64) -> Self {
        Self { file, len, at: 0, bytes: Vec::new() }
    }

    /// The block at `at`; `None` at the end of the archive.
    fn block(&mut self, at: u64) -> Result<Option<[u8; 512]>, Problem> {
        let mut block = [0; 512];
        if self.len.checked_sub(at).is_none_or(|left| left == 0) {
            return Ok(None);
        }
        if at < self.at || at + 512 > self.at + u64_from(self.bytes.len()) {
            self.bytes.resize(WINDOW_BYTES, 0);
            let count = rustix::io::retry_on_intr(|| {
                rustix::io::pread(self.file, &mut self.bytes[..], at)
            })?;
            self.bytes.truncate(count);
            self.at = at;
        }
        let start = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        let found = self.bytes.get(start..start.saturating_add(512));
        block.copy_from_slice(found.ok_or(Problem::Archive("ends within a member"))?);
        Ok(Some(block))
    }

    /// Some bytes of the archive, at most [`MOST_EXTENSION_BYTES`].
    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, Problem> {
        let len = range.end - range.start;
        if len > MOST_EXTENSION_BYTES {
            return Err(Problem::Archive("has a header of more than 16 MiB"));
        }
        if range.end > self.len {
            return Err(Problem::Archive("ends within a member"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            let at = range.start + u64_from(done);
            let read = || rustix::io::pread(self.file, &mut bytes[done..], at);
            match rustix::io::retry_on_intr(read)? {
                0 => return Err(Problem::Archive("ends within a member")),
                count => done += count,
            }
        }
        Ok(bytes)
    }
}

impl Member {
    /// The member whose first header is at `start`, and where the next one begins; `None` at the end of the archive. What is
    /// in headers before it counts; `whole` asks for attributes too.
    pub fn read(
        window: &mut Window<'_>,
        start: u64,
        whole: bool,
    ) -> Result<Option<(Self, u64)>, Problem> {
        let mut at = start;
        let mut extensions = Extensions::default();
        for _ in 0..MOST_HEADERS {
            let Some(block) = window.block(at)? else {
                return match extensions.any {
                    true => Err(Problem::Archive("ends within a member")),
                    false => Ok(None),
                };
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&block);
            check_sum(&header, &block)?;
            let body = at + 512;
            let size = number(&block[124..136]).ok_or(DAMAGED)?;
            let kind = header.entry_type();
            if kind.is_pax_local_extensions()
                || kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_global_extensions()
            {
                let end = body.checked_add(size).ok_or(DAMAGED)?;
                let bytes = window.read(body..end)?;
                extensions.take(kind, &bytes, whole)?;
                at = next_block(end)?;
                continue;
            }
            let member = Self::of(window, &header, &block, body, size, extensions)?;
            let end = next_block(member.data.end)?;
            if member.data.end > window.len {
                return Err(Problem::Archive("ends within a member"));
            }
            return Ok(Some((member, end)));
        }
        Err(Problem::Archive("has too many headers before a member"))
    }

    /// The member that a header begins, with what came before it.
    fn of(
        window: &mut Window<'_>,
        header: &Header,
        block: &[u8; 512],
        mut body: u64,
        size: u64,
        extensions: Extensions,
    ) -> Result<Self, Problem> {
        let Extensions { pax, path, link, mut sparse, real_size, sparse_name, said, .. } =
            extensions;
        let user = pax.user.or_else(|| Some(header.username_bytes()?.to_vec()));
        let group = pax.group.or_else(|| Some(header.groupname_bytes()?.to_vec()));
        let mut refused = None;
        let mut owner = |pax: Option<u64>, field: &[u8]| {
            let found = pax.or_else(|| number(field)).and_then(|owner| u32::try_from(owner).ok());
            found.unwrap_or_else(|| {
                refused = Some("has an owner that no file can have");
                0
            })
        };
        let (uid, gid) = (owner(pax.uid, &block[108..116]), owner(pax.gid, &block[116..124]));
        let path = sparse_name.or(path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let kind = header.entry_type();
        let what = what(kind, &path, link.as_deref());
        // Only files have bytes, whatever a header says of others.
        let has_data = !matches!(what, What::Link(_))
            && !matches!(
                kind,
                EntryType::Symlink
                    | EntryType::Char
                    | EntryType::Block
                    | EntryType::Fifo
                    | EntryType::Directory
            );
        let size = if has_data { pax.size.unwrap_or(size) } else { 0 };
        let mut real = real_size.unwrap_or(size);
        if kind.is_gnu_sparse() {
            let (runs, end) = gnu_sparse(window, block, body)?;
            body = end;
            real = number(&block[483..495]).ok_or(DAMAGED)?;
            sparse = Sparse::Runs(runs);
        }
        let end = body.checked_add(size).ok_or(DAMAGED)?;
        let device = device(kind, block).unwrap_or_else(|| {
            refused = Some("has a device number that no device can have");
            (0, 0)
        });
        let mode = number(&block[100..108]).ok_or(DAMAGED)?;
        let (xattrs, lists) = said.finished();
        let attributes = Attributes {
            mode: low_u16(u32::try_from(mode & 0o7777).unwrap_or(0)),
            uid,
            gid,
            modified: pax.mtime.unwrap_or_else(|| seconds(&block[136..148])),
            accessed: pax.atime,
            xattrs,
            lists,
        };
        let symlink = link.unwrap_or_default();
        Ok(Self {
            path,
            what,
            symlink,
            attributes,
            user: user.unwrap_or_default(),
            group: group.unwrap_or_default(),
            device,
            size: real,
            data: body..end,
            sparse,
            refused,
        })
    }

    /// Where the file has bytes, and where each run is in the archive.
    pub fn runs(&self, window: &mut Window<'_>) -> Result<Vec<(Range<u64>, u64)>, Problem> {
        let (map, mut at) = match &self.sparse {
            Sparse::No if self.size == 0 => return Ok(Vec::new()),
            Sparse::No => return Ok(vec![(0..self.size, self.data.start)]),
            Sparse::Runs(runs) => (runs.clone(), self.data.start),
            Sparse::InData => sparse_in_data(window, &self.data)?,
        };
        let (mut runs, mut last) = (Vec::with_capacity(map.len()), 0);
        for (offset, len) in map {
            let end = offset.checked_add(len).filter(|end| offset >= last && *end <= self.size);
            let end = end.ok_or(Problem::Archive("has holes that make no sense"))?;
            if len > 0 {
                runs.push((offset..end, at));
            }
            (last, at) = (end, at + len);
            if at > self.data.end {
                return Err(Problem::Archive("has holes that make no sense"));
            }
        }
        Ok(runs)
    }

    /// What a device, a pipe or a socket is.
    pub fn node(&self) -> Option<NodeKind> {
        let (major, minor) = self.device;
        Some(match self.what {
            What::File(FileType::CharacterDevice) => NodeKind::CharacterDevice(major, minor),
            What::File(FileType::BlockDevice) => NodeKind::BlockDevice(major, minor),
            What::File(FileType::Fifo) => NodeKind::Fifo,
            _ => return None,
        })
    }
}

fn what(kind: EntryType, path: &[u8], link: Option<&[u8]>) -> What {
    match kind.as_byte() {
        b'0' | 0 if path.ends_with(b"/") => What::File(FileType::Directory),
        b'0' | 0 | b'7' | b'S' => What::File(FileType::Regular),
        b'1' => What::Link(link.unwrap_or_default().to_vec()),
        b'2' => What::File(FileType::Symlink),
        b'3' => What::File(FileType::CharacterDevice),
        b'4' => What::File(FileType::BlockDevice),
        b'5' | b'D' => What::File(FileType::Directory),
        b'6' => What::File(FileType::Fifo),
        _ => What::Other,
    }
}

/// The numbers of a device, if Linux has room for them; zeros for what is none.
fn device(kind: EntryType, block: &[u8; 512]) -> Option<(u32, u32)> {
    if !matches!(kind, EntryType::Char | EntryType::Block) {
        return Some((0, 0));
    }
    let number = |field: &[u8], most: u32| {
        let number = u32::try_from(number(field)?).ok()?;
        (number <= most).then_some(number)
    };
    number(&block[329..337], 0xFFF).zip(number(&block[337..345], 0xF_FFFF))
}

/// The runs of a GNU sparse member, whose list may go on in blocks behind the header; and where the bytes begin.
fn gnu_sparse(
    window: &mut Window<'_>,
    block: &[u8; 512],
    mut body: u64,
) -> Result<(Vec<(u64, u64)>, u64), Problem> {
    let mut runs = Vec::new();
    let mut add = |fields: &[u8]| {
        for pair in fields.chunks_exact(24).filter(|pair| pair[0] != 0 || pair[12] != 0) {
            runs.push(number(&pair[..12]).zip(number(&pair[12..])).ok_or(DAMAGED)?);
        }
        if runs.len() > MOST_RUNS { Err(Problem::Archive("has too many holes")) } else { Ok(()) }
    };
    add(&block[386..482])?;
    let mut goes_on = block[482] != 0;
    while goes_on {
        let more = window.block(body)?.ok_or(Problem::Archive("ends within a member"))?;
        add(&more[..504])?;
        goes_on = more[504] != 0;
        body += 512;
    }
    Ok((runs, body))
}

/// The runs of a pax 1.0 sparse member: decimal numbers, a line each, in whole blocks in front of the bytes.
fn sparse_in_data(
    window: &mut Window<'_>,
    data: &Range<u64>,
) -> Result<(Vec<(u64, u64)>, u64), Problem> {
    let (mut at, mut text) = (data.start, Vec::new());
    let (mut numbers, mut wanted) = (Vec::new(), 1);
    while numbers.len() < wanted {
        if at >= data.end {
            return Err(Problem::Archive("has holes that make no sense"));
        }
        let block = window.block(at)?.ok_or(Problem::Archive("ends within a member"))?;
        at += 512;
        for byte in block {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            if numbers.len() == wanted {
                break;
            }
            numbers.push(decimal(&text).ok_or(DAMAGED)?);
            text.clear();
            if numbers.len() == 1 {
                let count = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
                if count > MOST_RUNS {
                    return Err(Problem::Archive("has too many holes"));
                }
                wanted = 1 + 2 * count;
            }
        }
    }
    Ok((numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), at))
}

/// The sum of a header's bytes, with blanks where the sum itself is; some old programs took the bytes as signed.
fn check_sum(header: &Header, block: &[u8; 512]) -> Result<(), Problem> {
    let counted = block[..148].iter().chain(&block[156..]);
    let sum = 8 * 32 + counted.clone().map(|byte| u32::from(*byte)).sum::<u32>();
    let signed = 8 * 32 + counted.map(|byte| i32::from(byte.cast_signed())).sum::<i32>();
    let stated = header.cksum().map_err(|_| DAMAGED)?;
    if stated == sum || i64::from(stated) == i64::from(signed) { Ok(()) } else { Err(DAMAGED) }
}

/// A number in a header: octal, or with the first bit set binary, of which only those that 63 bits hold make sense. Nothing
/// at all is zero.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        return signed(field).and_then(|number| u64::try_from(number).ok());
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        sum.checked_mul(8)?.checked_add(digit.into())
    })
}

/// A binary number in a header.
fn signed(field: &[u8]) -> Option<i64> {
    let is_negative = field[0] & 0x40 != 0;
    let first =
        if is_negative { i64::from(field[0] | 0x80) - 256 } else { i64::from(field[0] & 0x7F) };
    field[1..].iter().try_fold(first, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))
}

/// The time in a header.
fn seconds(field: &[u8]) -> Timestamp {
    let seconds = match field[0] & 0x80 {
        0 => number(field).and_then(|number| i64::try_from(number).ok()),
        _ => signed(field),
    };
    Timestamp { seconds: seconds.unwrap_or(0), nanoseconds: 0 }
}

fn next_block(at: u64) -> Result<u64, Problem> {
    at.checked_next_multiple_of(512).ok_or(DAMAGED)
}

pub(super) const DAMAGED: Problem = Problem::Archive("has a damaged header");
/// How much of an archive is in memory: headers of small members lie close together.
const WINDOW_BYTES: usize = 8 << 10;
/// Attributes can be large, names not.
const MOST_EXTENSION_BYTES: u64 = 16 << 20;
/// Four are usual at the most.
const MOST_HEADERS: usize = 32;
pub(super) const MOST_RUNS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 755 \0\0\0"), Some(0o755));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"12x\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 24));
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None, "2^63");
        assert_eq!(number(&[0xFF; 12]), None, "a negative size");
        assert_eq!(signed(&[0xFF; 12]), Some(-1));
    }
}
