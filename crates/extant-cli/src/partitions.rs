//! Partitions of a disk image: where one lies, by the table at its front (GPT or MBR).
//!
//! A table is read with suspicion: sums are checked, chains end, and a partition lies on its disk. Nothing is read beyond the
//! table itself, and no more than a megabyte of it.
//!
//! # Source
//! UEFI specification, part 5 (GPT); the layout of MBR and of extended partitions as Linux reads them
//! (`block/partitions/msdos.c`).

use std::ops::Range;

use crc::{CRC_32_ISO_HDLC, Crc};
use extant_device::{BlockDevice, BlockDeviceExt, DeviceError};

/// Why a partition is not found.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// There is no table.
    #[error("there is no partition table")]
    NoTable,
    /// There is none with this number.
    #[error("there is no partition {0}")]
    NoPartition(u32),
    /// The table breaks a rule of its format.
    #[error("the partition table is damaged: {0}")]
    Damaged(&'static str),
    /// The table cannot be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The bytes of partition `number`, counted from 1 as Linux does.
///
/// # Errors
/// [`PartitionError`].
pub fn find(device: &dyn BlockDevice, number: u32) -> Result<Range<u64>, PartitionError> {
    let len = device.geometry().len_bytes;
    if len < SECTOR {
        return Err(PartitionError::NoTable);
    }
    let first = device.read_vec(0, SECTOR_LEN)?;
    if first[SIGNATURE_AT..] != SIGNATURE {
        return Err(PartitionError::NoTable);
    }
    let is_protective = (0..4).any(|index| entry_of(&first, index).kind == PROTECTIVE);
    let found = match is_protective {
        true => find_in_gpt(device, number)?,
        false => find_in_mbr(device, &first, number)?,
    };
    if found.is_empty() || found.end > len {
        return Err(PartitionError::Damaged("the partition does not lie on its disk"));
    }
    Ok(found)
}

/// An entry of an MBR, in sectors of 512 bytes.
struct Entry {
    kind: u8,
    start: u64,
    len: u64,
}

fn entry_of(sector: &[u8], index: usize) -> Entry {
    let at = ENTRIES_AT + 16 * index;
    Entry {
        kind: sector[at + 4],
        start: le32(sector, at + 8).into(),
        len: le32(sector, at + 12).into(),
    }
}

/// The first four are in the table; those behind form a chain in the extended one.
fn find_in_mbr(
    device: &dyn BlockDevice,
    first: &[u8],
    number: u32,
) -> Result<Range<u64>, PartitionError> {
    let none = PartitionError::NoPartition(number);
    let bytes = |start: u64, len: u64| start * SECTOR..(start + len) * SECTOR;
    if let Some(index @ 0..4) = number.checked_sub(1) {
        let entry = entry_of(first, usize::try_from(index).unwrap_or(0));
        let is_there = entry.kind != 0 && !EXTENDED.contains(&entry.kind);
        return if is_there { Ok(bytes(entry.start, entry.len)) } else { Err(none) };
    }
    let extended = (0..4).map(|index| entry_of(first, index));
    let extended = extended.into_iter().find(|entry| EXTENDED.contains(&entry.kind));
    let base = extended.ok_or(PartitionError::NoPartition(number))?.start;
    let mut at = base;
    for logical in FIRST_LOGICAL..MOST_LOGICAL {
        let sector = device.read_vec(at * SECTOR, SECTOR_LEN)?;
        if sector[SIGNATURE_AT..] != SIGNATURE {
            return Err(PartitionError::Damaged("a link of its chain is none"));
        }
        let (entry, next) = (entry_of(&sector, 0), entry_of(&sector, 1));
        if logical == number {
            let is_there = entry.kind != 0 && number != 0;
            return if is_there { Ok(bytes(at + entry.start, entry.len)) } else { Err(none) };
        }
        if next.kind == 0 || next.len == 0 {
            return Err(none);
        }
        at = base + next.start;
    }
    Err(none)
}

/// By the table at the front, or the copy at the end if that is damaged; for both sizes that sectors have.
fn find_in_gpt(device: &dyn BlockDevice, number: u32) -> Result<Range<u64>, PartitionError> {
    let len = device.geometry().len_bytes;
    let mut error = PartitionError::Damaged("neither the table nor its copy is there");
    for sector in [512, 4096] {
        let last = (len / sector).saturating_sub(1) * sector;
        for header in [sector, last] {
            match read_gpt(device, sector, header, number) {
                Ok(found) => return Ok(found),
                Err(PartitionError::NoTable) => {}
                Err(found @ PartitionError::NoPartition(_)) => return Err(found),
                Err(worse) => error = worse,
            }
        }
    }
    Err(error)
}

fn read_gpt(
    device: &dyn BlockDevice,
    sector: u64,
    header_at: u64,
    number: u32,
) -> Result<Range<u64>, PartitionError> {
    if header_at.checked_add(sector).is_none_or(|end| end > device.geometry().len_bytes) {
        return Err(PartitionError::NoTable);
    }
    let mut header = device.read_vec(header_at, SECTOR_LEN)?;
    if !header.starts_with(b"EFI PART") {
        return Err(PartitionError::NoTable);
    }
    let header_len = usize::try_from(le32(&header, 12)).unwrap_or(usize::MAX);
    if !(GPT_HEADER_LEN..=SECTOR_LEN).contains(&header_len) {
        return Err(PartitionError::Damaged("the length of its header"));
    }
    let sum = le32(&header, 16);
    header[16..20].fill(0);
    if CRC.checksum(&header[..header_len]) != sum {
        return Err(PartitionError::Damaged("the checksum of its header"));
    }
    let (entries, count, size) =
        (le64(&header, 72), le32(&header, 80), usize::try_from(le32(&header, 84)));
    let size = size.ok().filter(|size| (GPT_ENTRY_LEN..=SECTOR_LEN).contains(size));
    let size = size.ok_or(PartitionError::Damaged("the size of its entries"))?;
    let table_len = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
    let table_len = table_len.filter(|len| *len <= MOST_TABLE_LEN);
    let table_len = table_len.ok_or(PartitionError::Damaged("the number of its entries"))?;
    let table_at = entries.checked_mul(sector);
    let table_at = table_at.ok_or(PartitionError::Damaged("the place of its entries"))?;
    let table = device.read_vec(table_at, table_len)?;
    if CRC.checksum(&table) != le32(&header, 88) {
        return Err(PartitionError::Damaged("the checksum of its entries"));
    }
    let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
    let entry = index.and_then(|index| table.chunks_exact(size).nth(index));
    let entry = entry.filter(|entry| entry[..16] != [0; 16]);
    let entry = entry.ok_or(PartitionError::NoPartition(number))?;
    let start = le64(entry, 32).checked_mul(sector);
    let end = le64(entry, 40).checked_add(1).and_then(|end| end.checked_mul(sector));
    match (start, end) {
        (Some(start), Some(end)) => Ok(start..end),
        _ => Err(PartitionError::Damaged("the place of the partition")),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
const SIGNATURE_AT: usize = 510;
const SIGNATURE: [u8; 2] = [0x55, 0xAA];
const ENTRIES_AT: usize = 446;
const PROTECTIVE: u8 = 0xEE;
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
const FIRST_LOGICAL: u32 = 5;
const MOST_LOGICAL: u32 = 256;
const GPT_HEADER_LEN: usize = 92;
const GPT_ENTRY_LEN: usize = 128;
const MOST_TABLE_LEN: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use extant_device::MemoryDevice;

    use super::*;

    const DISK: u64 = 1 << 20;
    type Entries<'a> = &'a [(u8, u32, u32)];
    type Spoil<'a> = &'a dyn Fn(&mut [u8]);

    fn disk() -> MemoryDevice {
        MemoryDevice::new(DISK)
    }

    /// A sector with a table of these entries.
    fn table(entries: Entries<'_>) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_LEN];
        for (index, (kind, start, len)) in entries.iter().enumerate() {
            let at = ENTRIES_AT + 16 * index;
            bytes[at + 4] = *kind;
            bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
        }
        bytes[SIGNATURE_AT..].copy_from_slice(&SIGNATURE);
        bytes
    }

    fn mbr(sectors: &[(u64, Entries<'_>)]) -> MemoryDevice {
        let device = disk();
        for (at, entries) in sectors {
            device.write_bytes(at * SECTOR, &table(entries)).unwrap();
        }
        device
    }

    /// A disk with one partition in its second entry, and a header changed by `spoil` before it is summed.
    fn gpt(sector: u64, spoil: impl Fn(&mut [u8], &mut [u8])) -> MemoryDevice {
        let device = mbr(&[(0, &[(PROTECTIVE, 1, u32::MAX)])]);
        let mut entries = vec![0; 128 * 128];
        entries[128..144].fill(7);
        entries[160..168].copy_from_slice(&40_u64.to_le_bytes());
        entries[168..176].copy_from_slice(&49_u64.to_le_bytes());
        let mut header = vec![0; SECTOR_LEN];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        spoil(&mut header, &mut entries);
        header[88..92].copy_from_slice(&CRC.checksum(&entries).to_le_bytes());
        let sum = CRC.checksum(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        device.write_bytes(sector, &header).unwrap();
        device.write_bytes(2 * sector, &entries).unwrap();
        device.write_bytes(DISK - sector, &header).unwrap();
        device
    }

    fn found(device: &MemoryDevice, number: u32) -> Result<Range<u64>, String> {
        find(device, number).map_err(|error| error.to_string())
    }

    #[test]
    fn partitions_of_an_mbr_are_found_by_number() {
        let device = mbr(&[
            (0, &[(0x83, 1, 2), (0, 3, 4), (0x05, 100, 500)]),
            (100, &[(0x83, 1, 9), (0x05, 50, 60)]),
            (150, &[(0x83, 2, 8)]),
        ]);
        assert_eq!(found(&device, 1), Ok(512..1536));
        assert_eq!(found(&device, 5), Ok(101 * 512..110 * 512));
        assert_eq!(found(&device, 6), Ok(152 * 512..160 * 512));
        for none in [0, 2, 3, 4, 7, u32::MAX] {
            assert_eq!(found(&device, none), Err(format!("there is no partition {none}")));
        }
    }

    #[test]
    fn partitions_of_a_gpt_are_found_for_both_sizes_of_sectors() {
        for sector in [512, 4096] {
            let device = gpt(sector, |_, _| {});
            assert_eq!(found(&device, 2), Ok(40 * sector..50 * sector));
            assert!(found(&device, 1).is_err() && found(&device, 129).is_err());
            // The copy at the end stands in for a header that was overwritten.
            device.write_bytes(sector, &[0; 512]).unwrap();
            assert_eq!(found(&device, 2), Ok(40 * sector..50 * sector));
        }
    }

    #[test]
    fn a_partition_beyond_its_disk_is_refused() {
        let past = mbr(&[(0, &[(0x83, 2000, 100), (0x83, u32::MAX, u32::MAX), (0x83, 5, 0)])]);
        for number in 1..=3 {
            assert!(found(&past, number).unwrap_err().contains("does not lie on its disk"));
        }
        let gpts: [Spoil<'_>; 3] = [
            &|entry| entry[40..48].copy_from_slice(&u64::MAX.to_le_bytes()),
            &|entry| entry[40..48].copy_from_slice(&5000_u64.to_le_bytes()),
            &|entry| entry[40..48].copy_from_slice(&39_u64.to_le_bytes()),
        ];
        for spoil in gpts {
            let device = gpt(512, |_, entries| spoil(&mut entries[128..256]));
            assert!(found(&device, 2).unwrap_err().contains("damaged"));
        }
    }

    #[test]
    fn a_chain_that_leads_in_a_circle_or_nowhere_ends() {
        let circle = mbr(&[(0, &[(0x05, 100, 500)]), (100, &[(0x83, 1, 9), (0x05, 0, 60)])]);
        assert!(found(&circle, 300).unwrap_err().contains("no partition"));
        let nowhere = mbr(&[(0, &[(0x05, 100, 500)])]);
        assert!(found(&nowhere, 5).unwrap_err().contains("damaged"));
        let far = mbr(&[(0, &[(0x05, u32::MAX, 500)])]);
        assert!(found(&far, 5).is_err());
    }

    #[test]
    fn lies_in_a_header_are_found_before_they_are_believed() {
        let lies: [Spoil<'_>; 6] = [
            &|header| header[12..16].copy_from_slice(&u32::MAX.to_le_bytes()),
            &|header| header[80..84].copy_from_slice(&u32::MAX.to_le_bytes()),
            &|header| header[84..88].copy_from_slice(&0_u32.to_le_bytes()),
            &|header| header[84..88].copy_from_slice(&u32::MAX.to_le_bytes()),
            &|header| header[72..80].copy_from_slice(&u64::MAX.to_le_bytes()),
            &|header| header[72..80].copy_from_slice(&4000_u64.to_le_bytes()),
        ];
        for lie in lies {
            assert!(found(&gpt(512, |header, _| lie(header)), 2).is_err());
        }
        let device = gpt(512, |_, _| {});
        for at in [512 + 20, 512 + 90, 1024 + 5, DISK - 512 + 20] {
            let byte = device.read_vec(at, 1).unwrap()[0];
            let sector = at / 512 * 512;
            let mut bytes = device.read_vec(sector, 512).unwrap();
            bytes[usize::try_from(at - sector).unwrap()] = !byte;
            device.write_bytes(sector, &bytes).unwrap();
        }
        assert!(found(&device, 2).unwrap_err().contains("damaged"));
    }

    #[test]
    fn what_is_no_disk_has_no_partitions() {
        assert!(found(&disk(), 1).unwrap_err().contains("no partition table"));
        assert!(found(&MemoryDevice::new(100), 1).is_err());
        // Random bytes behind a signature: any answer but a panic or a wait.
        let mut seed = 1_u64;
        for _ in 0..200 {
            let device = disk();
            let mut bytes = vec![0; 8192];
            for byte in &mut bytes {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = seed.to_le_bytes()[7];
            }
            bytes[SIGNATURE_AT..SIGNATURE_AT + 2].copy_from_slice(&SIGNATURE);
            bytes[512..520].copy_from_slice(b"EFI PART");
            device.write_bytes(0, &bytes).unwrap();
            for number in [1, 2, 5, 9] {
                if let Ok(range) = find(&device, number) {
                    assert!(range.end <= DISK && range.start < range.end);
                }
            }
        }
    }
}
