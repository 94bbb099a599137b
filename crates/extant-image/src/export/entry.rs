//! Contents of regular files: whole, or the parts that are no holes, after a map of them.

use std::io::{self, Write};

use extant::{Error, File, InodeHandle, Metadata, OpenOptions};
use extant_format::cast::u64_from;

use super::header::{RECORD_BYTES, Records, ZEROS, pad};

/// A regular file that is open, and which parts of it are written.
#[derive(Debug)]
pub struct Contents {
    file: File,
    /// Parts with data: where and how many bytes, rising. One that has all, if there is no hole.
    parts: Vec<(u64, u64)>,
    /// The map in front of them, if there are holes.
    map: Option<Vec<u8>>,
}

impl Contents {
    /// Opens a file and looks for its holes, where it must have some.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(handle: &InodeHandle, metadata: &Metadata) -> Result<Self, Error> {
        let file = handle.open(OpenOptions::new().read(true))?;
        let size = metadata.size;
        let whole = metadata.blocks.saturating_mul(512) >= size;
        let parts = if whole { vec![(0, size)] } else { parts(&file, size)? };
        let all: u64 = parts.iter().map(|part| part.1).sum();
        let map = (all < size).then(|| map(&parts, size));
        Ok(Self { file, parts, map })
    }

    /// Bytes that follow the header.
    pub fn stored_bytes(&self) -> u64 {
        let data: u64 = self.parts.iter().map(|part| part.1).sum();
        data.saturating_add(self.map.as_ref().map_or(0, |map| u64_from(map.len())))
    }

    /// Records that say that a map comes first.
    pub fn records(&self, path: &[u8], size: u64, records: &mut Records) {
        if self.is_sparse() {
            records.number("GNU.sparse.major", 1);
            records.number("GNU.sparse.minor", 0);
            records.push(b"GNU.sparse.name", path);
            records.number("GNU.sparse.realsize", size);
        }
    }

    /// Whether there are holes.
    pub const fn is_sparse(&self) -> bool {
        self.map.is_some()
    }

    /// Writes map and data, and fills the last record. What cannot be read is zeros; the first reason is returned then.
    ///
    /// # Errors
    /// Those of `out` alone.
    pub fn write(
        &self,
        out: &mut dyn Write,
        buffer: &mut Vec<u8>,
        done: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<Option<Error>> {
        let mut failed = None;
        out.write_all(self.map.as_deref().unwrap_or_default())?;
        for (start, len) in &self.parts {
            let (mut at, end) = (*start, start.saturating_add(*len));
            while at < end {
                let wanted =
                    usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
                buffer.resize(wanted, 0);
                let read = match &failed {
                    Some(_) => 0,
                    None => self.file.read_at(buffer, at).unwrap_or_else(|error| {
                        failed = Some(error);
                        0
                    }),
                };
                let bytes = match buffer.get(..read) {
                    // What cannot be read, or is not there any more.
                    None | Some([]) => &ZEROS[..wanted.min(ZEROS.len())],
                    Some(bytes) => bytes,
                };
                out.write_all(bytes)?;
                at = at.saturating_add(u64_from(bytes.len()));
                done(u64_from(bytes.len()))?;
            }
        }
        pad(out, self.stored_bytes())?;
        Ok(failed)
    }
}

/// Where a file has data.
fn parts(file: &File, size: u64) -> Result<Vec<(u64, u64)>, Error> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(start) = file.seek_data(at)?.filter(|start| *start < size) {
        let end = file.seek_hole(start)?.unwrap_or(size).min(size).max(start.saturating_add(1));
        parts.push((start, end - start));
        at = end;
    }
    Ok(parts)
}

/// The map of version 1.0: how many parts, and each one's place and length, a line each; whole records. A file that ends in a
/// hole has an empty part at its end.
fn map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends_with_data =
        parts.last().is_some_and(|(start, len)| start.saturating_add(*len) == size);
    let last = (!ends_with_data).then_some((size, 0));
    let mut text = format!("{}\n", parts.len() + usize::from(last.is_some()));
    for (start, len) in parts.iter().copied().chain(last) {
        text.push_str(&format!("{start}\n{len}\n"));
    }
    let mut bytes = text.into_bytes();
    let record = usize::try_from(RECORD_BYTES).unwrap_or(usize::MAX);
    bytes.resize(bytes.len().next_multiple_of(record), 0);
    bytes
}

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_whole_records_and_knows_the_end() {
        let text = |parts: &[_], size| String::from_utf8(map(parts, size)).unwrap();
        assert_eq!(text(&[(0, 5), (10, 2)], 12).trim_end_matches('\0'), "2\n0\n5\n10\n2\n");
        assert_eq!(text(&[(4096, 10)], 9000).trim_end_matches('\0'), "2\n4096\n10\n9000\n0\n");
        assert_eq!(text(&[], 77).trim_end_matches('\0'), "1\n77\n0\n");
        assert_eq!(text(&vec![(1, 1); 200], 2).len() % 512, 0);
    }
}
