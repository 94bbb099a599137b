//! Blocks to keep clear of: those of a list, and those that cannot be read.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use extant_device::{BlockDevice, BlockDeviceExt, Frame, Request};
use extant_format::Geometry;

use crate::failure::{Usage, say};
use crate::interrupt;

/// The numbers in a file, a line each; those that the file system does not have are told and left out.
pub fn listed(path: &Path, blocks: u64) -> anyhow::Result<Vec<u32>> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    let mut bad = Vec::new();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    for word in lines.flat_map(str::split_whitespace) {
        let number: u64 =
            word.parse().map_err(|_| Usage(format!("{}: `{word}` is no block", name())))?;
        match u32::try_from(number) {
            Ok(block) if number < blocks => bad.push(block),
            _ => say(&format!("warning: {}: there is no block {number}", name())),
        }
    }
    bad.sort_unstable();
    bad.dedup();
    Ok(bad)
}

/// The bad blocks among those that the file system would have: all are read, or patterns written to all and read back.
pub fn found(
    image: &Path,
    device: &dyn BlockDevice,
    geometry: &Geometry,
    writes: bool,
) -> anyhow::Result<Vec<u32>> {
    let there = device.geometry().len_bytes >> geometry.block_bits;
    let blocks = geometry.blocks_count.min(there);
    // The device itself shall answer, and not what the system remembers of it.
    let forget = || {
        device.flush()?;
        let file = File::open(image)?;
        Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
    };
    let search = Search { device, blocks, block_size: geometry.block_size };
    match writes {
        true => search.overwritten(forget),
        false => {
            forget()?;
            search.unreadable()
        }
    }
}

/// A search for bad blocks among the first `blocks`.
struct Search<'a> {
    device: &'a dyn BlockDevice,
    blocks: u64,
    block_size: u32,
}

impl Search<'_> {
    /// Those that cannot be read.
    fn unreadable(&self) -> anyhow::Result<Vec<u32>> {
        self.failing(|start, len| self.device.read_frame(start, len).is_ok())
    }

    /// Those that do not keep what is written to them: four patterns, one after the other. `forget` has the device asked again.
    fn overwritten(&self, forget: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Vec<u32>> {
        let mut bad = Vec::new();
        for pattern in PATTERNS {
            let full = Frame::copy_from(&vec![pattern; usize::try_from(PIECE_BYTES)?]);
            bad.extend(self.failing(|start, len| {
                let request = Request::write(start, vec![full.slice(0..len)]);
                self.device.run_one(request).is_ok()
            })?);
            forget()?;
            bad.extend(self.failing(|start, len| {
                let read = self.device.read_frame(start, len);
                read.is_ok_and(|read| read.as_slice().iter().all(|byte| *byte == pattern))
            })?);
        }
        bad.sort_unstable();
        bad.dedup();
        Ok(bad)
    }

    /// The blocks for which `is_good` is not true; it is asked of many at a time first.
    fn failing(&self, is_good: impl Fn(u64, usize) -> bool) -> anyhow::Result<Vec<u32>> {
        let block_size = u64::from(self.block_size);
        let at_once = PIECE_BYTES / block_size;
        let (mut bad, mut start) = (Vec::new(), 0);
        let are_good = |start: u64, count: u64| {
            is_good(start * block_size, usize::try_from(count * block_size).unwrap_or(0))
        };
        while start < self.blocks {
            interrupt::check()?;
            let count = at_once.min(self.blocks - start);
            if !are_good(start, count) {
                let each = (start..start + count).filter(|block| !are_good(*block, 1));
                bad.extend(each.filter_map(|block| u32::try_from(block).ok()));
            }
            start += count;
        }
        Ok(bad)
    }
}

/// Those of badblocks(8).
const PATTERNS: [u8; 4] = [0xAA, 0x55, 0xFF, 0];
const PIECE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use extant_device::{DeviceError, DeviceGeometry, MemoryDevice, Operation, OperationKind};

    use super::*;

    /// A disk with a sector that cannot be read, and one that forgets what is written to it.
    struct Scratched {
        below: MemoryDevice,
        unreadable: u64,
        forgetful: u64,
    }

    impl BlockDevice for Scratched {
        fn geometry(&self) -> DeviceGeometry {
            self.below.geometry()
        }

        fn run(&self, batch: &mut [Request]) {
            self.below.run(batch);
            for request in batch {
                let (offset, len) = (request.offset, request.len());
                let has = |place: u64| (offset..offset + len).contains(&place);
                let reads = matches!(request.operation, Operation::Read { .. });
                if reads && has(self.unreadable) {
                    let operation = OperationKind::Read;
                    request.result = Err(DeviceError::Io { operation, offset, errno: None });
                }
                if !reads && has(self.forgetful) {
                    self.below.write_bytes(self.forgetful, &[0xAA; 512]).unwrap();
                }
            }
        }
    }

    #[test]
    fn blocks_that_cannot_be_read_or_do_not_keep_what_is_written_are_found() {
        let device = Scratched {
            below: MemoryDevice::new(4 << 20),
            unreadable: (3 << 20) + 4096 * 7,
            forgetful: 4096 * 5 + 512,
        };
        let search = |blocks| Search { device: &device, blocks, block_size: 4096 };
        assert_eq!(search(1024).unreadable().unwrap(), [768 + 7]);
        assert!(search(512).unreadable().unwrap().is_empty());
        assert_eq!(search(1024).overwritten(|| Ok(())).unwrap(), [5, 768 + 7]);
        assert_eq!(search(512).overwritten(|| Ok(())).unwrap(), [5]);
    }
}
