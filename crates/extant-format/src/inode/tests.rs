use super::*;
use crate::geometry::tests::{geometry, with_block_bits};
use proptest::prelude::*;

fn ino() -> InodeNumber {
    InodeNumber::new(12).unwrap()
}

fn record() -> InodeRecord {
    let time = |seconds| Timestamp { seconds, nanoseconds: 5 };
    InodeRecord {
        mode: 0o100_644,
        uid: 0x1_0002,
        gid: 0x3_0004,
        size: 1 << 33,
        links: 1,
        blocks: 8,
        flags: InodeFlags::EXTENTS,
        file_acl: Some(PhysicalBlock::new(99)),
        generation: 7,
        version: 1 << 40,
        atime: time(1),
        mtime: time(-1),
        ctime: time(1 << 32),
        crtime: Some(time(3)),
        dtime: 0,
        projid: 9,
        extra_isize: 32,
        block: [1; BLOCK_AREA_BYTES],
    }
}

#[test]
fn every_field_round_trips() {
    let mut bytes = vec![0; 256];
    record().encode(&mut bytes, &with_block_bits(12)).unwrap();
    assert_eq!(InodeRecord::decode(&bytes, &with_block_bits(12), ino()), Ok(record()));
}

#[test]
fn fields_past_extra_isize_do_not_exist() {
    let mut bytes = vec![0xFF; 256];
    let short = InodeRecord { extra_isize: 8, ..record() };
    short.encode(&mut bytes, &with_block_bits(12)).unwrap();
    assert_eq!(bytes[136..], [0xFF; 120]);
    let read = InodeRecord::decode(&bytes, &with_block_bits(12), ino()).unwrap();
    assert_eq!((read.crtime, read.projid, read.version), (None, 0, 0));
    assert_eq!(
        (read.ctime, read.mtime),
        (record().ctime, Timestamp { seconds: -1, nanoseconds: 0 })
    );
    let mut small = vec![0; 128];
    InodeRecord { extra_isize: 0, ..record() }.encode(&mut small, &with_block_bits(12)).unwrap();
    let read = InodeRecord::decode(&small, &with_block_bits(12), ino()).unwrap();
    assert_eq!(read.ctime, Timestamp { seconds: 0x7FFF_FFFF, nanoseconds: 0 });
}

#[test]
fn impossible_fields_are_refused() {
    let mut bytes = vec![0; 256];
    record().encode(&mut bytes, &with_block_bits(12)).unwrap();
    let check = |change: fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        InodeRecord::decode(&bytes, &with_block_bits(12), ino()).err().map(|broken| broken.rule)
    };
    assert_eq!(check(|_| ()), None);
    assert_eq!(check(|bytes| bytes[0x80] = 33), Some(Rule::ExtraSize));
    assert_eq!(check(|bytes| bytes[0x80] = 132), Some(Rule::ExtraSize));
    assert_eq!(check(|bytes| bytes[0x6F] = 0x80), Some(Rule::FileSize));
    assert_eq!(check(|bytes| bytes[0x6B] = 1), Some(Rule::AttributeBlock));
    let huge = |bytes: &mut [u8]| {
        bytes[0x22] |= 4;
        bytes[0x74] = 1;
    };
    assert_eq!(check(huge), None);
}

#[test]
fn large_block_counts_need_their_feature() {
    let wide = with_block_bits(12);
    let narrow = geometry(12, 100_000, |raw| raw.feature_ro_compat = 0.into());
    let counts = |blocks| {
        let mut bytes = vec![0; 256];
        InodeRecord { blocks, ..record() }.encode(&mut bytes, &wide).unwrap();
        let read = InodeRecord::decode(&bytes, &wide, ino()).unwrap();
        (read.blocks == blocks, read.flags.contains(InodeFlags::HUGE_FILE))
    };
    assert_eq!(counts(0xFFFF_FFFF), (true, false));
    assert_eq!(counts(1 << 32), (true, false));
    assert_eq!(counts(1 << 48), (true, true));
    let mut bytes = vec![0; 256];
    let result = InodeRecord { blocks: 1 << 32, ..record() }.encode(&mut bytes, &narrow);
    assert_eq!(result, Err(DoesNotFit("block count")));
    assert_eq!(bytes, [0; 256]);
}

#[test]
fn only_regular_files_have_wide_sizes() {
    let mut bytes = vec![0; 256];
    let directory = InodeRecord { mode: 0o040_755, ..record() };
    assert!(directory.encode(&mut bytes, &with_block_bits(12)).is_err());
    let largedir = geometry(12, 100_000, |raw| {
        raw.feature_incompat = (raw.incompat() | Incompat::LARGEDIR).bits().into();
    });
    assert_eq!(directory.encode(&mut bytes, &largedir), Ok(()));
    assert_eq!(InodeRecord::decode(&bytes, &largedir, ino()).unwrap().size, 1 << 33);
}

#[test]
fn checksum_has_16_bits_without_room_for_more() {
    for (len, extra, wide) in [(128, 0, false), (256, 0, false), (256, 4, true), (256, 32, true)] {
        let mut bytes = vec![0x55; len];
        if len > 128 {
            bytes[0x80..0x82].copy_from_slice(&u16::to_le_bytes(extra));
        }
        set_checksum(&mut bytes, 42);
        assert!(verify_checksum(&bytes, 42) && !verify_checksum(&bytes, 43));
        assert_eq!(len > 128 && bytes[0x82..0x84] != [0x55; 2], wide);
        bytes[len - 1] ^= 1;
        assert!(!verify_checksum(&bytes, 42));
    }
}

#[test]
fn device_numbers_are_stored_short_if_they_fit() {
    let mut record = record();
    for (major, minor, words) in
        [(8, 1, [0x801, 0]), (259, 5, [0, 0x1_0305]), (0xFFF, 0xF_FFFF, [0, u32::MAX])]
    {
        record.set_device(major, minor);
        assert_eq!([0, 4].map(|at| le32(&record.block, at).unwrap()), words);
        assert_eq!(record.device(), (major, minor));
    }
}

#[test]
fn fast_symlinks_are_known_by_their_space_or_size() {
    let plain = with_block_bits(12);
    let ea_inode = geometry(12, 100_000, |raw| {
        raw.feature_incompat = (raw.incompat() | Incompat::EA_INODE).bits().into();
    });
    let link = InodeRecord { mode: 0o120_777, size: 59, blocks: 8, ..record() };
    assert!(link.is_fast_symlink(&plain) && link.is_fast_symlink(&ea_inode));
    assert!(!InodeRecord { blocks: 16, ..link.clone() }.is_fast_symlink(&plain));
    assert!(!InodeRecord { file_acl: None, ..link.clone() }.is_fast_symlink(&plain));
    assert!(!InodeRecord { size: 60, ..link.clone() }.is_fast_symlink(&ea_inode));
    assert!(!InodeRecord { mode: 0o100_777, ..link }.is_fast_symlink(&plain));
}

proptest! {
    #[test]
    fn decode_never_panics_and_encode_restores(bytes in prop::collection::vec(any::<u8>(), 256), extra in 0..=128_u16) {
        let mut bytes = bytes;
        bytes[0x80..0x82].copy_from_slice(&extra.to_le_bytes());
        let geometry = with_block_bits(12);
        if let Ok(record) = InodeRecord::decode(&bytes, &geometry, ino()) {
            let mut again = bytes.clone();
            record.encode(&mut again, &geometry).unwrap();
            prop_assert_eq!(InodeRecord::decode(&again, &geometry, ino()), Ok(record));
        }
    }
}

#[test]
fn a_size_past_the_largest_file_of_its_map_is_refused() {
    let geometry = with_block_bits(12);
    let decode = |size, flags| {
        let mut bytes = vec![0; 256];
        InodeRecord { size, flags, ..record() }.encode(&mut bytes, &geometry).unwrap();
        InodeRecord::decode(&bytes, &geometry, ino()).map(|record| record.size)
    };
    let refused = Err(Place::Inode(ino()).breaks(Rule::FileSize));
    for (flags, most) in [
        (InodeFlags::EXTENTS, geometry.max_extent_file_bytes()),
        (InodeFlags::empty(), geometry.max_indirect_file_bytes()),
    ] {
        assert_eq!(decode(most, flags), Ok(most));
        assert_eq!(decode(most + 1, flags), refused);
    }
}
