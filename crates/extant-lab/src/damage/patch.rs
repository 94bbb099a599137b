//! Reading and changing bytes of an image at any offset.

use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_format::cast::u64_from;

/// Lets `change` work on `len` bytes at `offset`; nothing happens where the image does not have them all.
pub fn patch(image: &MemoryDevice, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) {
    let sector = u64::from(image.geometry().sector_bytes);
    let start = offset / sector * sector;
    let end = offset.saturating_add(u64_from(len)).next_multiple_of(sector);
    let index = |n: u64| usize::try_from(n).expect("lies within a structure");
    let (span, skip) = (index(end - start), index(offset - start));
    let Ok(before) = image.read_vec(start, span) else { return };
    let mut after = before.clone();
    change(&mut after[skip..skip + len]);
    if after != before {
        image.write_bytes(start, &after).expect("it was just read");
    }
}

/// Overwrites the bytes at `at`, if there are so many.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}
