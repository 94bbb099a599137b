use super::*;
use crate::corruption::{FormatError, Place, Rule, Unsupported};
use crate::numbers::PhysicalBlock;

const AT: Place = Place::Journal(0);

fn formats() -> impl Iterator<Item = LogFormat> {
    let sums = [LogChecksum::None, LogChecksum::V1, LogChecksum::V2, LogChecksum::V3];
    sums.into_iter().flat_map(|checksum| {
        [false, true].map(|wide| LogFormat {
            block_size: 1024,
            wide,
            checksum,
            seed: 77,
            uuid: [9; 16],
        })
    })
}

const TID: TransactionId = TransactionId(5);

#[test]
fn strides_of_tags() {
    let strides: Vec<_> = formats().map(|format| format.tag_bytes()).collect();
    assert_eq!(strides, [8, 12, 8, 12, 10, 14, 16, 16]);
}

#[test]
fn tags_round_trip_in_every_format() {
    for format in formats() {
        let mut block = vec![1; 1024];
        let mut writer = DescriptorWriter::new(&mut block, format, TID);
        let mut count = 0_u32;
        while writer.has_room() {
            let home = u64::from(count) + if format.wide { 1 << 33 } else { 0 };
            writer.push(PhysicalBlock::new(home), count == 2, 0x1234_5678);
            count += 1;
        }
        writer.finish();
        assert!(count >= format.tags_per_block());
        assert_eq!(JournalHeader::parse(&block).unwrap().block_type, Some(BlockType::Descriptor));
        assert!(format.verify_tail(&block));
        let tags: Vec<_> = DescriptorTags::new(&block, format).collect();
        assert_eq!(tags.len(), usize_from(count));
        assert_eq!(tags[0].flags, TagFlags::empty());
        assert_eq!(tags[2].flags, TagFlags::ESCAPE | TagFlags::SAME_UUID);
        assert!(tags.last().unwrap().flags.contains(TagFlags::LAST_TAG));
        for (n, tag) in (0..).zip(&tags) {
            assert_eq!(tag.block.get() & 0xFFFF_FFFF, n);
            assert_eq!(tag.block.get() >> 33, u64::from(format.wide));
        }
        let stored = match format.checksum {
            LogChecksum::V3 => 0x1234_5678,
            LogChecksum::V2 => 0x5678,
            _ => 0,
        };
        assert_eq!(tags[1].checksum, stored);
        block[40] ^= 1;
        assert_eq!(format.verify_tail(&block), !format.is_summed());
    }
}

#[test]
fn tag_checksums_cover_transaction_and_block() {
    for format in formats() {
        let data = [3; 1024];
        let mut block = vec![0; 1024];
        let mut writer = DescriptorWriter::new(&mut block, format, TID);
        writer.push(PhysicalBlock::new(9), false, format.tag_checksum(TID, &data));
        writer.finish();
        let tag = DescriptorTags::new(&block, format).next().unwrap();
        assert!(format.tag_matches(&tag, TID, &data));
        assert_eq!(format.tag_matches(&tag, TID.next(), &data), !format.is_summed());
        assert_eq!(format.tag_matches(&tag, TID, &[4; 1024]), !format.is_summed());
    }
}

#[test]
fn revokes_round_trip_in_every_format() {
    for format in formats() {
        let mut block = vec![1; 1024];
        let mut writer = RevokeWriter::new(&mut block, format, TID);
        let mut blocks = Vec::new();
        for n in 0.. {
            let home = PhysicalBlock::new(n + if format.wide { 1 << 40 } else { 0 });
            if !writer.push(home) {
                break;
            }
            blocks.push(home);
        }
        writer.finish();
        assert_eq!(blocks.len(), usize_from(format.revokes_per_block()));
        assert!(format.verify_tail(&block));
        assert_eq!(revoked_blocks(&block, format, 7).unwrap().collect::<Vec<_>>(), blocks);
        block[12..16].copy_from_slice(&1025_u32.to_be_bytes());
        assert_eq!(
            revoked_blocks(&block, format, 7).err(),
            Some(Place::Journal(7).breaks(Rule::RevokeCount))
        );
        block[12..16].copy_from_slice(&15_u32.to_be_bytes());
        assert!(revoked_blocks(&block, format, 7).is_err());
    }
}

#[test]
fn commits_round_trip_and_may_be_partial() {
    for format in formats() {
        let mut block = vec![1; 1024];
        let commit = CommitBlock { seconds: 1 << 33, nanoseconds: 999 };
        commit.write(&mut block, &format, TID);
        assert_eq!(CommitBlock::parse(&block), Some(commit));
        assert_eq!(CommitBlock::verify(&block, &format), CommitChecksum::Right);
        block[700] = 1;
        let partial =
            if format.is_summed() { CommitChecksum::Partial } else { CommitChecksum::Right };
        assert_eq!(CommitBlock::verify(&block, &format), partial);
        block[50] ^= 1;
        assert_eq!(
            CommitBlock::verify(&block, &format) == CommitChecksum::Wrong,
            format.is_summed()
        );
    }
}

#[test]
fn data_that_looks_like_a_header_is_escaped() {
    let mut block = MAGIC.to_be_bytes().to_vec();
    assert!(needs_escape(&block));
    escape(&mut block);
    assert_eq!(block, [0; 4]);
    assert!(!needs_escape(&block));
    unescape(&mut block);
    assert!(needs_escape(&block));
}

#[test]
fn each_superblock_check_refuses() {
    let check = |change: fn(&mut RawJournalSuperblock)| {
        let mut raw = RawJournalSuperblock::blank(4096, 8192, [1; 16]);
        raw.set_incompat(JournalIncompat::CSUM_V3 | JournalIncompat::BIT64);
        change(&mut raw);
        raw.set_checksum();
        JournalSuperblock::parse(raw.as_bytes()).err()
    };
    let broken = |rule| Some(FormatError::from(AT.breaks(rule)));
    assert_eq!(check(|_| ()), None);
    assert_eq!(check(|raw| raw.magic = 0.into()), broken(Rule::Magic));
    assert_eq!(check(|raw| raw.block_type = 1.into()), broken(Rule::JournalType));
    assert_eq!(check(|raw| raw.block_size = 512.into()), broken(Rule::BlockSize));
    assert_eq!(check(|raw| raw.max_len = 1000.into()), broken(Rule::JournalSize));
    assert_eq!(check(|raw| raw.first = 0.into()), broken(Rule::JournalStart));
    assert_eq!(check(|raw| raw.start = 8192.into()), broken(Rule::JournalStart));
    assert_eq!(check(|raw| raw.feature_incompat = 0x18.into()), broken(Rule::JournalFeatures));
    assert_eq!(check(|raw| raw.feature_compat = 1.into()), broken(Rule::JournalFeatures));
    assert_eq!(check(|raw| raw.checksum_type = 1), Some(Unsupported::ChecksumType(1).into()));
    let unknown = Unsupported::JournalIncompat(JournalIncompat::from_bits_retain(0x40));
    assert_eq!(check(|raw| raw.feature_incompat = 0x50.into()), Some(unknown.into()));
}

#[test]
fn a_wrong_superblock_checksum_is_refused() {
    let mut raw = RawJournalSuperblock::blank(4096, 8192, [1; 16]);
    raw.set_incompat(JournalIncompat::CSUM_V2);
    assert_eq!(
        JournalSuperblock::parse(raw.as_bytes()).err(),
        Some(AT.breaks(Rule::Checksum).into())
    );
}

#[test]
fn fast_commits_take_the_end_of_the_log() {
    let mut raw = RawJournalSuperblock::blank(4096, 8192, [1; 16]);
    raw.set_incompat(JournalIncompat::FAST_COMMIT);
    let mut superblock = JournalSuperblock::try_from(&raw).unwrap();
    assert_eq!(superblock.last(), 8192 - 256);
    superblock.change(|raw| raw.num_fc_blocks = 100.into());
    assert_eq!((superblock.last(), superblock.fast_commit_blocks()), (8092, 100));
    superblock.change(|raw| raw.num_fc_blocks = 8000.into());
    assert_eq!((superblock.last(), superblock.fast_commit_blocks()), (8192, 0));
}
