//! Makes every checksum of a damaged image right again, so that damage gets past them.

use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::bitmap::{block_bitmap_csum, inode_bitmap_csum};
use extant_format::cast::{high_u16, low_u16, usize_from};
use extant_format::crc::{Crc32c, crc16};
use extant_format::directory::DirLayout;
use extant_format::inode::seed_of;
use extant_format::jbd2::{JournalSuperblock, LogChecksum, LogFormat, RawJournalSuperblock};
use extant_format::mmp::RawMmp;
use extant_format::{
    BlockGroup, Geometry, InodeFlags, InodeNumber, PhysicalBlock, RawSuperblock, Superblock,
    TransactionId, extent, htree, inode, orphan,
};

use super::patch::{patch, put};
use super::survey::{Kind, Piece, Survey};

/// Sets all checksums of the pieces that `survey` found, as the image's own superblock and inodes now seed them.
pub fn seal(image: &MemoryDevice, survey: &Survey) {
    let Some(sealer) = Sealer::new(image, survey) else { return };
    // Bitmaps come before the descriptors that hold their sums, copies in the log before the tags.
    let late = |kind: Kind| matches!(kind, Kind::Descriptor(_)) || is_log(kind);
    survey.pieces.iter().filter(|piece| !late(piece.kind)).for_each(|piece| sealer.seal(piece));
    survey.pieces.iter().filter(|piece| late(piece.kind)).for_each(|piece| sealer.seal(piece));
    sealer.log();
}

const fn is_log(kind: Kind) -> bool {
    use Kind::{JournalCommit, JournalCopy, JournalDescriptor, JournalRevoke};
    matches!(kind, JournalDescriptor | JournalCopy(_) | JournalRevoke | JournalCommit)
}

struct Sealer<'a> {
    image: &'a MemoryDevice,
    survey: &'a Survey,
    geometry: Geometry,
}

impl<'a> Sealer<'a> {
    fn new(image: &'a MemoryDevice, survey: &'a Survey) -> Option<Self> {
        let raw = image.read_vec(Superblock::OFFSET_BYTES, 1024).ok()?;
        let raw: RawSuperblock = zerocopy::FromBytes::read_from_bytes(&raw).ok()?;
        let mut geometry = survey.geometry;
        (geometry.csum_seed, geometry.uuid) = (raw.computed_seed(), raw.uuid);
        Some(Self { image, survey, geometry })
    }

    fn seal(&self, piece: &Piece) {
        patch(self.image, piece.offset, piece.len, |bytes| {
            self.seal_bytes(piece.kind, piece.offset, bytes);
        });
    }

    fn seal_bytes(&self, kind: Kind, offset: u64, bytes: &mut [u8]) {
        let (geometry, summed) = (&self.geometry, self.geometry.has_metadata_csum());
        let block = PhysicalBlock::new(offset >> geometry.block_bits);
        match kind {
            Kind::Superblock if summed => {
                let sum = Crc32c::new(u32::MAX).update(&bytes[..0x3FC]).finish();
                put(bytes, 0x3FC, &sum.to_le_bytes());
            }
            Kind::Descriptor(group) => seal_descriptor(bytes, geometry, group),
            Kind::BlockBitmap(group) if summed => {
                self.store_sum(group, [0x18, 0x38], block_bitmap_csum(geometry, bytes));
            }
            Kind::InodeBitmap(group) if summed => {
                self.store_sum(group, [0x1A, 0x3A], inode_bitmap_csum(geometry, bytes));
            }
            Kind::Inode(number) if summed => {
                inode::set_checksum(bytes, seed_of(bytes, geometry, number));
            }
            Kind::ExtentNode(owner) if summed => {
                extent::set_block_checksum(bytes, self.seed(owner));
            }
            Kind::Directory(owner) if summed => {
                let layout = DirLayout::of(geometry, InodeFlags::empty());
                htree::set_checksum(bytes, layout, self.seed(owner));
            }
            Kind::Orphans(owner) if summed => {
                orphan::set_checksum(bytes, self.seed(owner), block);
            }
            Kind::XattrBlock if summed => {
                put(bytes, 0x10, &[0; 4]);
                let sum = Crc32c::new(geometry.csum_seed);
                let sum = sum.update(&block.get().to_le_bytes()).update(bytes);
                put(bytes, 0x10, &sum.finish().to_le_bytes());
            }
            Kind::Mmp if summed => {
                if let Ok((mmp, _)) = <RawMmp as zerocopy::FromBytes>::mut_from_prefix(bytes) {
                    mmp.set_checksum(geometry);
                }
            }
            Kind::JournalSuperblock => {
                let journal = <RawJournalSuperblock as zerocopy::FromBytes>::mut_from_prefix(bytes);
                if let Ok((journal, _)) = journal {
                    journal.set_checksum();
                }
            }
            Kind::JournalCopy(home) => self.seal_copy(home, bytes),
            _ => {}
        }
    }

    /// Seals what a block of the log will be once it is at home.
    fn seal_copy(&self, home: PhysicalBlock, bytes: &mut [u8]) {
        let Some(start) = home.get().checked_shl(self.geometry.block_bits) else { return };
        let end = start.saturating_add(self.geometry.block_size.into());
        let inside = |piece: &&Piece| (start..end).contains(&piece.offset) && !is_log(piece.kind);
        for piece in self.survey.pieces.iter().filter(inside) {
            let at = usize::try_from(piece.offset - start).expect("less than a block");
            let bitmap = matches!(piece.kind, Kind::BlockBitmap(_) | Kind::InodeBitmap(_));
            if let Some(part) = bytes.get_mut(at..at + piece.len).filter(|_| !bitmap) {
                self.seal_bytes(piece.kind, piece.offset, part);
            }
        }
    }

    /// The seed of what belongs to an inode.
    fn seed(&self, owner: InodeNumber) -> u32 {
        let len = usize_from(self.geometry.inode_size);
        let at = self.survey.inodes.get(&owner);
        let bytes = at.and_then(|at| self.image.read_vec(*at, len).ok()).unwrap_or_default();
        seed_of(&bytes, &self.geometry, owner)
    }

    /// Puts a bitmap's sum into its group's descriptor, whose own sum comes later.
    fn store_sum(&self, group: BlockGroup, [low, high]: [usize; 2], sum: u32) {
        let is_descriptor = |piece: &&Piece| piece.kind == Kind::Descriptor(group);
        let Some(piece) = self.survey.pieces.iter().find(is_descriptor) else { return };
        patch(self.image, piece.offset, piece.len, |bytes| {
            put(bytes, low, &low_u16(sum).to_le_bytes());
            put(bytes, high, &high_u16(sum).to_le_bytes());
        });
    }

    /// The sums of the log: of tags, descriptors, revoke and commit blocks.
    fn log(&self) -> Option<()> {
        let pieces = &self.survey.pieces;
        let superblock = pieces.iter().find(|piece| piece.kind == Kind::JournalSuperblock)?;
        let bytes = self.image.read_vec(superblock.offset, superblock.len).ok()?;
        let format = *JournalSuperblock::parse(&bytes).ok()?.format();
        let mut log = pieces.iter().filter(|piece| is_log(piece.kind)).peekable();
        while let Some(piece) = log.next() {
            let mut copies = Vec::new();
            while let Some(copy) = log.next_if(|next| matches!(next.kind, Kind::JournalCopy(_))) {
                copies.push(self.image.read_vec(copy.offset, copy.len).ok()?);
            }
            patch(self.image, piece.offset, piece.len, |bytes| {
                seal_log_block(piece.kind, bytes, &format, &copies);
            });
        }
        Some(())
    }
}

fn seal_log_block(kind: Kind, bytes: &mut [u8], format: &LogFormat, copies: &[Vec<u8>]) {
    if !format.is_summed() {
        return;
    }
    let tid = TransactionId(u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]));
    let tail = bytes.len() - 4;
    match kind {
        Kind::JournalDescriptor => {
            let mut at = 12;
            for copy in copies {
                let Some(flags) = bytes.get(at + 6..at + 8).map(|flags| flags[1]) else { break };
                let sum = format.tag_checksum(tid, copy);
                match format.checksum {
                    LogChecksum::V3 => put(bytes, at + 12, &sum.to_be_bytes()),
                    _ => put(bytes, at + 4, &low_u16(sum).to_be_bytes()),
                }
                at += format.tag_bytes() + if flags & 2 == 0 { 16 } else { 0 };
            }
            seal_at(bytes, tail, format.seed);
        }
        Kind::JournalRevoke => seal_at(bytes, tail, format.seed),
        Kind::JournalCommit => seal_at(bytes, 16, format.seed),
        _ => {}
    }
}

/// Sets the big-endian sum at `at` of all bytes, itself taken as zero.
fn seal_at(bytes: &mut [u8], at: usize, seed: u32) {
    put(bytes, at, &[0; 4]);
    let sum = Crc32c::new(seed).update(bytes).finish();
    put(bytes, at, &sum.to_be_bytes());
}

/// Source: kernel `fs/ext4/super.c`, `ext4_group_desc_csum`.
fn seal_descriptor(bytes: &mut [u8], geometry: &Geometry, group: BlockGroup) {
    if !geometry.has_gdt_csum() {
        return;
    }
    put(bytes, 0x1E, &[0; 2]);
    let number = group.get().to_le_bytes();
    let sum = if geometry.has_metadata_csum() {
        low_u16(Crc32c::new(geometry.csum_seed).update(&number).update(bytes).finish())
    } else {
        let sum = crc16(crc16(u16::MAX, &geometry.uuid), &number);
        let sum = crc16(sum, &bytes[..0x1E]);
        if geometry.desc_size > 32 { crc16(sum, &bytes[0x20..]) } else { sum }
    };
    put(bytes, 0x1E, &sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases;

    /// Everything that seals is the same as what mke2fs and the engine wrote.
    #[test]
    fn sealing_a_sound_image_changes_nothing() {
        for base in bases::BASES {
            let Some(image) = base.build() else { continue };
            let survey = Survey::of(&image).expect("a sound image");
            let sealed = image.snapshot();
            seal(&sealed, &survey);
            for piece in &survey.pieces {
                let read = |image: &MemoryDevice| image.read_vec(piece.offset, piece.len).unwrap();
                assert_eq!(read(&image), read(&sealed), "{}: {piece:?}", base.name);
            }
            assert_eq!(image.to_vec(), sealed.to_vec(), "{}", base.name);
        }
    }
}
