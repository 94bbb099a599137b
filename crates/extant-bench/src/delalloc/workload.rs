//! The workload: files that grow side by side by small writes, each made durable by `fsync`, then read back.

use extant::{Error, File, FileExtentState, Filesystem, MountOptions};
use extant_format::cast::{low_u32, u64_from};
use extant_image::MkfsOptions;

/// When a block gets its place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Mode {
    /// At writeback (`delalloc`).
    Delayed,
    /// At each write, by the kernel's allocator, which sets room aside for files that grow (`nodelalloc`).
    Immediate,
    /// At each write, one block at a time, nothing set aside: as allocators did before, and `fuse2fs` does.
    BlockByBlock,
}

impl Mode {
    /// All of them, the one that is compared with the others first.
    pub const ALL: [Self; 3] = [Self::Delayed, Self::Immediate, Self::BlockByBlock];

    /// In a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Immediate => "immediate",
            Self::BlockByBlock => "block by block",
        }
    }

    /// How such a volume is mounted.
    pub fn options(self) -> MountOptions {
        MountOptions::new()
            .delayed_allocation(self == Self::Delayed)
            .preallocation(self != Self::BlockByBlock)
    }
}

/// Who writes what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Files, each with a writer of its own.
    pub writers: u32,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Bytes of each write.
    pub call_bytes: u32,
    /// Decides which writer goes next.
    pub seed: u64,
}

impl Workload {
    /// Whole writes that each file gets, and no less than one.
    pub fn calls(&self) -> u64 {
        let call = u64::from(self.call_bytes.max(1));
        (self.total_bytes / u64::from(self.writers.max(1)) / call).max(1)
    }

    /// Bytes of each file.
    pub fn file_bytes(&self) -> u64 {
        self.calls() * u64::from(self.call_bytes.max(1))
    }

    /// Bytes of all files as they come out.
    pub fn bytes(&self) -> u64 {
        self.file_bytes() * u64::from(self.writers.max(1))
    }

    /// Makes the files, empty.
    ///
    /// # Errors
    /// Of the volume.
    pub fn create(&self, filesystem: &Filesystem) -> Result<Vec<File>, Error> {
        (0..self.writers.max(1)).map(|n| filesystem.create(name(n))).collect()
    }

    /// What the file of a writer holds, write by write.
    pub fn writer(&self, number: u32) -> Writer {
        Writer { number, call: 0, bytes: vec![0; usize_from(self.call_bytes.max(1))] }
    }

    /// Reads a whole file and compares it with what was written.
    ///
    /// # Errors
    /// Of reading; [`Error::Invalid`] for other bytes.
    pub fn read(&self, filesystem: &Filesystem, number: u32) -> Result<(), Error> {
        let file = filesystem.open(name(number))?;
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while at < self.file_bytes() {
            let len = file.read_at(&mut buffer, at)?;
            let missing = missing(number, at, &buffer[..len]);
            if len == 0 || missing > 0 {
                return Err(Error::Invalid("a file does not read as it was written"));
            }
            at += u64_from(len);
        }
        Ok(())
    }
}

/// The volume that files are written to: the same for every size, and with the blocks of most volumes.
pub(super) fn empty_volume() -> MkfsOptions {
    MkfsOptions {
        usage: Some("default".to_owned()),
        uuid: [7; 16],
        hash_seed: [9; 16],
        ..MkfsOptions::default()
    }
}

/// One writer, and how far it is.
#[derive(Debug)]
pub struct Writer {
    number: u32,
    call: u64,
    bytes: Vec<u8>,
}

impl Writer {
    /// Bytes that it has written.
    pub fn written(&self) -> u64 {
        self.call * u64_from(self.bytes.len())
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// Of the volume.
    pub fn write(&mut self, file: &File) -> Result<(), Error> {
        let at = self.written();
        let len = self.bytes.len();
        fill(self.number, at, &mut self.bytes);
        let mut done = 0;
        while done < len {
            done += file.write_at(&self.bytes[done..], at + u64_from(done))?;
        }
        self.call += 1;
        Ok(())
    }
}

/// Each block says whose it is and which.
fn stamp(number: u32, block: u64) -> [u8; 8] {
    let mark = u64::from(number + 1) << 40 | block;
    mark.to_le_bytes()
}

fn fill(number: u32, at: u64, bytes: &mut [u8]) {
    let first = at / BLOCK_BYTES;
    for (block, bytes) in (first..).zip(bytes.chunks_mut(usize_from(low_u32(BLOCK_BYTES)))) {
        bytes.fill(0x5A);
        let len = bytes.len().min(8);
        bytes[..len].copy_from_slice(&stamp(number, block)[..len]);
    }
}

/// How many of these bytes, read from `at` on, are not what the writer wrote; counted in whole blocks.
pub(super) fn missing(number: u32, at: u64, bytes: &[u8]) -> u64 {
    let blocks = (at / BLOCK_BYTES..).zip(bytes.chunks(usize_from(low_u32(BLOCK_BYTES))));
    let wrong = blocks.filter(|(block, bytes)| {
        let len = bytes.len().min(8);
        bytes[..len] != stamp(number, *block)[..len] || bytes.last() != Some(&0x5A)
    });
    wrong.map(|(_, bytes)| u64_from(bytes.len())).sum()
}

/// The file's path.
pub(super) fn name(number: u32) -> String {
    format!("/file-{number}")
}

/// Where the blocks of a file lie.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    /// Runs of blocks: the first block, and how many.
    pub runs: Vec<(u64, u32)>,
}

impl Layout {
    /// The layout of `file`, in whose extents neighbours count as one.
    ///
    /// # Errors
    /// Of reading the map.
    pub fn of(file: &File) -> Result<Self, Error> {
        let mut runs: Vec<(u64, u32)> = Vec::new();
        for extent in file.extents()? {
            let Some(start) = extent.physical.filter(|_| extent.state == FileExtentState::Written)
            else {
                continue;
            };
            match runs.last_mut() {
                Some((first, len)) if *first + u64::from(*len) == start => *len += extent.len,
                _ => runs.push((start, extent.len)),
            }
        }
        Ok(Self { runs })
    }

    /// How many runs.
    pub fn extents(&self) -> u64 {
        u64_from(self.runs.len())
    }
}

pub(super) fn usize_from(n: u32) -> usize {
    extant_format::cast::usize_from(n)
}

/// Numbers that look random, all from one seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is not 0.
    ///
    /// Source: S. Vigna's SplitMix64.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % limit
    }
}

/// Bytes of each read.
const READ_BYTES: usize = 128 << 10;
const BLOCK_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_the_writers_are_counted() {
        let mut bytes = vec![0; 3 * 4096];
        fill(3, 8192, &mut bytes);
        assert_eq!(missing(3, 8192, &bytes), 0);
        assert_eq!(missing(4, 8192, &bytes), 3 * 4096);
        assert_eq!(missing(3, 4096, &bytes), 3 * 4096);
        bytes[5000..].fill(0);
        assert_eq!(missing(3, 8192, &bytes), 2 * 4096);
    }
}
