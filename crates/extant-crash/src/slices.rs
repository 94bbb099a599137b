//! Parts of a write's data.

use extant_device::FrameSlice;

/// `len` bytes from byte `from` on of all `data`, sharing its frames; less where it ends.
///
/// # Panics
/// If `from` or `len` lies past what memory can hold.
pub fn part_of(data: &[FrameSlice], from: u64, len: u64) -> Vec<FrameSlice> {
    let (mut skip, mut want) = (index(from), index(len));
    let mut part = Vec::new();
    for slice in data {
        let skipped = skip.min(slice.len());
        let taken = want.min(slice.len() - skipped);
        if taken > 0 {
            part.push(FrameSlice::new(slice.frame().clone(), slice.start() + skipped, taken));
        }
        (skip, want) = (skip - skipped, want - taken);
    }
    part
}

/// `n` as an index into data in memory.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("lies within data in memory")
}
