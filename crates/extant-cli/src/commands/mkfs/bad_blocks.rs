//! Blocks to keep clear of: those of a list, and those that cannot be read.

use std::path::Path;

use anyhow::Context;
use extant_device::{BlockDevice, BlockDeviceExt};

use crate::failure::{Usage, say};
use crate::interrupt;

/// The numbers in a file, a line each; those that the file system does not have are told and left out.
pub fn listed(path: &Path, blocks: u64) -> anyhow::Result<Vec<u32>> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    let mut bad = Vec::new();
    for word in text.split_whitespace() {
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

/// Reads all of the first `blocks` blocks and returns those that cannot be read.
pub fn unreadable(
    device: &dyn BlockDevice,
    blocks: u64,
    block_size: u32,
) -> anyhow::Result<Vec<u32>> {
    let block_len = usize::try_from(block_size)?;
    let at_once = (PIECE_BYTES / u64::from(block_size)).max(1);
    let mut bad = Vec::new();
    let mut start = 0;
    let is_readable = |start: u64, count: usize| {
        device.read_frame(start * u64::from(block_size), count * block_len).is_ok()
    };
    while start < blocks {
        interrupt::check()?;
        let count = at_once.min(blocks - start);
        if !is_readable(start, usize::try_from(count)?) {
            let each = (start..start + count).filter(|block| !is_readable(*block, 1));
            bad.extend(each.filter_map(|block| u32::try_from(block).ok()));
        }
        start += count;
    }
    Ok(bad)
}

const PIECE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use extant_device::{
        DeviceError, DeviceGeometry, MemoryDevice, Operation, OperationKind, Request,
    };

    use super::*;

    /// A disk with one sector that cannot be read.
    struct Scratched(MemoryDevice, u64);

    impl BlockDevice for Scratched {
        fn geometry(&self) -> DeviceGeometry {
            self.0.geometry()
        }

        fn run(&self, batch: &mut [Request]) {
            self.0.run(batch);
            for request in batch {
                let reads = matches!(request.operation, Operation::Read { .. });
                if reads && (request.offset..request.offset + request.len()).contains(&self.1) {
                    let (offset, len) = (request.offset, request.len());
                    let operation = OperationKind::Read;
                    let device_bytes = self.0.geometry().len_bytes;
                    request.result =
                        Err(DeviceError::OutOfRange { operation, offset, len, device_bytes });
                }
            }
        }
    }

    #[test]
    fn a_block_that_cannot_be_read_is_found() {
        let device = Scratched(MemoryDevice::new(4 << 20), (3 << 20) + 4096 * 7);
        assert_eq!(unreadable(&device, 1024, 4096).unwrap(), [768 + 7]);
        assert!(unreadable(&device, 512, 4096).unwrap().is_empty());
    }
}
