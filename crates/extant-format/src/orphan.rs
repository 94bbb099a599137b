//! The orphan file: blocks of inode numbers, 0 for a free slot, with a tail that depends on where the block lies.
//!
//! Source: kernel `fs/ext4/orphan.c`, `ext4_orphan_file_block_csum_verify`, `ext4_init_orphan_info`.

use crate::bytes::{le32, put};
use crate::cast::usize_from;
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::Crc32c;
use crate::geometry::Geometry;
use crate::numbers::{InodeNumber, PhysicalBlock};

/// Slots in a block.
pub const fn slots_per_block(geometry: &Geometry) -> u32 {
    (geometry.block_size >> 2).saturating_sub(2)
}

/// Makes a block of free slots; the checksum is not set.
pub fn init(block: &mut [u8]) {
    block.fill(0);
    if let Some(tail) = block.len().checked_sub(TAIL_BYTES) {
        put(block, tail, &MAGIC.to_le_bytes());
    }
}

/// Checks a block's tail; `seed` is the orphan file's own.
///
/// # Errors
/// Its magic number or checksum is wrong.
pub fn check(
    block: &[u8],
    at: Place,
    geometry: &Geometry,
    seed: u32,
    number: PhysicalBlock,
) -> Result<(), Corruption> {
    let (slots, tail) = block.split_last_chunk::<TAIL_BYTES>().ok_or(at.breaks(Rule::TooShort))?;
    at.require(le32(tail, 0) == Some(MAGIC), Rule::Magic)?;
    let sound =
        !geometry.has_metadata_csum() || le32(tail, 4) == Some(checksum(slots, seed, number));
    at.require(sound, Rule::Checksum)
}

/// Sets a block's checksum; `seed` is the orphan file's own.
pub fn set_checksum(block: &mut [u8], seed: u32, number: PhysicalBlock) {
    if let Some((slots, tail)) = block.split_last_chunk_mut::<TAIL_BYTES>() {
        put(tail, 4, &checksum(slots, seed, number).to_le_bytes());
    }
}

/// The inode in a slot; `None` if it is free.
pub fn slot(block: &[u8], slot: u32) -> Option<InodeNumber> {
    InodeNumber::new(le32(block, usize_from(slot).checked_mul(4)?)?)
}

/// Sets or frees a slot.
pub fn set_slot(block: &mut [u8], slot: u32, inode: Option<InodeNumber>) {
    put(
        block,
        usize_from(slot).saturating_mul(4),
        &inode.map_or(0, InodeNumber::get).to_le_bytes(),
    );
}

/// The slots in use, with their inodes.
pub fn used_slots<'a>(
    block: &'a [u8],
    geometry: &Geometry,
) -> impl Iterator<Item = (u32, InodeNumber)> + use<'a> {
    (0..slots_per_block(geometry)).filter_map(move |n| Some((n, slot(block, n)?)))
}

/// The first free slot.
pub fn free_slot(block: &[u8], geometry: &Geometry) -> Option<u32> {
    (0..slots_per_block(geometry)).find(|&n| slot(block, n).is_none())
}

fn checksum(slots: &[u8], seed: u32, number: PhysicalBlock) -> u32 {
    Crc32c::new(seed).update(&number.get().to_le_bytes()).update(slots).finish()
}

/// The most blocks that an orphan file has.
pub const MAX_BLOCKS: u32 = 512;
const MAGIC: u32 = 0x0B10_CA04;
const TAIL_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fill_and_the_tail_knows_its_place() {
        let geometry = crate::geometry::tests::with_block_bits(10);
        let (at, home) = (Place::Superblock, PhysicalBlock::new(99));
        let mut block = vec![1; 1024];
        init(&mut block);
        let ino = |n| InodeNumber::new(n).unwrap();
        let mut count = 0;
        while let Some(free) = free_slot(&block, &geometry) {
            set_slot(&mut block, free, Some(ino(free + 20)));
            count += 1;
        }
        assert_eq!(count, 254);
        set_slot(&mut block, 7, None);
        assert_eq!(free_slot(&block, &geometry), Some(7));
        assert_eq!(used_slots(&block, &geometry).nth(7), Some((8, ino(28))));
        set_checksum(&mut block, 5, home);
        assert_eq!(check(&block, at, &geometry, 5, home), Ok(()));
        let elsewhere = check(&block, at, &geometry, 5, PhysicalBlock::new(98));
        assert_eq!(elsewhere.unwrap_err().rule, Rule::Checksum);
        block[1016] = 0;
        assert_eq!(check(&block, at, &geometry, 5, home).unwrap_err().rule, Rule::Magic);
    }
}
