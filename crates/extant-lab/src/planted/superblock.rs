//! Defects of the superblock, and of what it points at: journal, orphans, multiple mount protection, quota.

use extant_image::check::Rule;

use super::{ALL, Defect, SOME, SUMMED, Stage, defect};
use crate::damage::Kind;

pub(super) fn list() -> Vec<Defect> {
    let mut list = fields();
    list.extend(features());
    list.extend(beyond());
    list.extend(lists());
    list
}

fn fields() -> Vec<Defect> {
    vec![
        defect("superblock with a wrong sum", Rule::SuperblockChecksum, SUMMED, |stage| {
            stage.set8(stage.superblock(0x78), b'x');
            Some(())
        })
        .raw(),
        defect("mounted in the future", Rule::MountTime, &["ext4", "ext2"], |stage| {
            stage.set32(stage.superblock(0x2C), FUTURE);
            Some(())
        }),
        defect("written in the future", Rule::WriteTime, &["ext4", "ext3"], |stage| {
            stage.set32(stage.superblock(0x30), FUTURE);
            Some(())
        }),
        defect("magic number of the superblock", Rule::Magic, &["ext4", "ext2"], |stage| {
            stage.set16(stage.superblock(0x38), 0);
            Some(())
        }),
        defect("impossible block size", Rule::SuperblockField, &["ext4", "ext2"], |stage| {
            stage.set32(stage.superblock(0x18), 30);
            Some(())
        }),
        defect("no inodes in a group", Rule::SuperblockField, &["ext4", "ext3"], |stage| {
            stage.set32(stage.superblock(0x28), 0);
            Some(())
        }),
        defect("more blocks than the device", Rule::SizePastDevice, SIZED, |stage| {
            // Within the last group, so that the number of groups stays.
            stage.set32(stage.superblock(4), stage.blocks_count() + 8);
            Some(())
        }),
        defect("too many reserved blocks", Rule::ReservedBlocks, ALL, |stage| {
            stage.set32(stage.superblock(8), stage.blocks_count() - 10);
            Some(())
        }),
        defect("least size of extra fields", Rule::MinExtraSize, &["ext4", "no-csum"], |stage| {
            stage.set16(stage.superblock(0x15C), 3);
            Some(())
        }),
        defect("wanted size of extra fields", Rule::WantExtraSize, &["ext4", "no-csum"], |stage| {
            stage.set16(stage.superblock(0x15E), 1000);
            Some(())
        }),
        defect("copy of the superblock", Rule::BackupSuperblock, &["ext4", "ext2"], |stage| {
            let copy = stage.offset(stage.survey.geometry.blocks_per_group + 1);
            stage.set32(copy + 0x28, 8);
            Some(())
        })
        .raw(),
        defect("copy of the descriptors", Rule::BackupDescriptors, &["ext4", "ext2"], |stage| {
            let copy = stage.offset(stage.survey.geometry.blocks_per_group + 2);
            stage.set32(copy, 7);
            Some(())
        })
        .raw(),
    ]
}

fn features() -> Vec<Defect> {
    vec![
        defect("both kinds of checksums", Rule::TwoChecksumKinds, &["ext4", "ext4-4k"], |stage| {
            stage.or32(stage.superblock(0x64), 0x10);
            Some(())
        }),
        defect("seed without checksums", Rule::SeedWithoutChecksums, &["no-csum"], |stage| {
            stage.or32(stage.superblock(0x60), 0x2000);
            Some(())
        }),
        defect("meta_bg and resize_inode", Rule::MetaGroupsWithResize, &["ext4-4k"], |stage| {
            stage.or32(stage.superblock(0x60), 0x10);
            // All descriptors lie where they did.
            stage.set32(stage.superblock(0x104), 1);
            Some(())
        }),
        defect(
            "reserved descriptors alone",
            Rule::ReservedDescriptors,
            &["ext4", "ext2"],
            |stage| {
                stage.clear32(stage.superblock(0x5C), 0x10);
                Some(())
            },
        ),
        defect("large file without the feature", Rule::LargeFile, &["ext2"], |stage| {
            stage.clear32(stage.superblock(0x64), 2);
            stage.set32(stage.at(stage.inode("holes/all"), 108), 1);
            Some(())
        }),
        defect("orphans without a file for them", Rule::OrphanPresent, &["ext4"], |stage| {
            stage.or32(stage.superblock(0x64), 0x1_0000);
            Some(())
        }),
        defect(
            "journal without the feature",
            Rule::JournalWithoutFeature,
            &["ext4", "ext3"],
            |stage| {
                stage.clear32(stage.superblock(0x5C), 4);
                Some(())
            },
        ),
        defect(
            "recovery without a journal",
            Rule::RecoveryWithoutJournal,
            INDIRECT_ALONE,
            |stage| {
                stage.or32(stage.superblock(0x60), 4);
                Some(())
            },
        ),
    ]
}

/// The last second that fits 32 bits.
const FUTURE: u32 = u32::MAX;
/// Whose last group is not full.
const SIZED: &[&str] = &["ext4", "ext4-4k", "no-csum", "ext3", "ext2"];
/// Without a journal.
const INDIRECT_ALONE: &[&str] = &["ext2", "no-journal"];

fn beyond() -> Vec<Defect> {
    vec![
        defect("journal in a file that is none", Rule::JournalInode, &["ext4"], |stage| {
            stage.set16(stage.at(8, 26), 0);
            Some(())
        }),
        defect(
            "magic number of the journal",
            Rule::JournalSuperblock,
            &["ext4", "ext3"],
            |stage| {
                stage.set32(journal(stage)?, 0);
                Some(())
            },
        ),
        defect(
            "transactions without recovery",
            Rule::JournalRecoveryClear,
            &["ext4", "ext3"],
            |stage| {
                stage.set32(journal(stage)? + 0x1C, 1_u32.to_be());
                Some(())
            },
        )
        .differs("e2fsck tells it, and ends with 0"),
        defect(
            "log of a block past the image",
            Rule::JournalDamaged,
            &["ext4", "ext3"],
            log_past_the_image,
        )
        .differs("e2fsck -n leaves the journal out"),
        defect("sequence of multiple mount protection", Rule::MmpSequence, &["mmp"], |stage| {
            stage.set32(*stage.pieces(Kind::Mmp).first()? + 4, 0xFFFF_FFFF);
            Some(())
        }),
        defect("64bit without extents", Rule::WideWithoutExtents, &["ext4", "ext4-4k"], |stage| {
            stage.clear32(stage.superblock(0x60), 0x40);
            Some(())
        }),
    ]
}

/// Puts a transaction into the log whose one block has its home past the image.
fn log_past_the_image(stage: &Stage) -> Option<()> {
    stage.or32(stage.superblock(0x60), 4);
    let (own, block) = (journal(stage)?, u64::from(stage.block_size()));
    let put = |at: u64, value: u32| stage.set32(at, value.to_be());
    let sequence = stage.get32(own + 0x18).swap_bytes();
    put(own + 0x1C, 1);
    for (n, kind) in [(1, DESCRIPTOR), (3, COMMIT)] {
        let words = [JOURNAL_MAGIC, kind, sequence];
        (0..).step_by(4).zip(words).for_each(|(at, word)| put(own + n * block + at, word));
    }
    put(own + block + 12, stage.blocks_count() + 100);
    // The last block, and no UUID after its tag.
    put(own + block + 16, 8 | 2);
    Some(())
}

const JOURNAL_MAGIC: u32 = 0xC03B_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;

fn lists() -> Vec<Defect> {
    vec![
        defect("first orphan", Rule::OrphanHead, SOME, |stage| {
            stage.set32(stage.superblock(0xE8), 3);
            Some(())
        })
        .differs("e2fsck looks at the list only when it may repair it"),
        defect("orphan list in a circle", Rule::OrphanList, SOME, |stage| {
            let inode = stage.free_inode()?;
            stage.set32(stage.superblock(0xE8), inode);
            stage.set32(stage.at(inode, 20), inode);
            Some(())
        }),
        defect("orphan file's magic number", Rule::OrphanFileMagic, &["orphan-file"], |stage| {
            let block = orphans(stage)?;
            stage.set32(block + u64::from(stage.block_size()) - 8, 0);
            Some(())
        }),
        defect("orphan file's sum", Rule::OrphanFileChecksum, &["orphan-file"], |stage| {
            let block = orphans(stage)?;
            stage.set32(block + u64::from(stage.block_size()) - 4, 0);
            Some(())
        })
        .raw(),
        defect(
            "orphan file names a reserved inode",
            Rule::OrphanFileEntry,
            &["orphan-file"],
            |stage| {
                stage.set32(orphans(stage)?, 5);
                Some(())
            },
        ),
        defect("orphan file cut within a block", Rule::OrphanFileSize, &["orphan-file"], |stage| {
            let inode = stage.get32(stage.superblock(0x280));
            let size = stage.at(inode, 4);
            stage.set32(size, stage.get32(size) - 100);
            Some(())
        }),
        defect("multiple mount protection's place", Rule::MmpPlace, &["mmp"], |stage| {
            stage.set32(stage.superblock(0x168), stage.blocks_count() + 1);
            Some(())
        }),
        defect("multiple mount protection's magic", Rule::MmpMagic, &["mmp"], |stage| {
            stage.set32(*stage.pieces(Kind::Mmp).first()?, 0);
            Some(())
        }),
        defect("multiple mount protection's sum", Rule::MmpChecksum, &["mmp"], |stage| {
            stage.set8(*stage.pieces(Kind::Mmp).first()? + 20, b'x');
            Some(())
        })
        .raw(),
        defect("quota in an ordinary inode", Rule::QuotaNumber, &["no-journal"], |stage| {
            stage.set32(stage.superblock(0x240), 5);
            Some(())
        }),
    ]
}

fn journal(stage: &Stage) -> Option<u64> {
    stage.pieces(Kind::JournalSuperblock).first().copied()
}

fn orphans(stage: &Stage) -> Option<u64> {
    let inode = stage.get32(stage.superblock(0x280));
    stage.pieces(Kind::Orphans(extant_format::InodeNumber::new(inode)?)).first().copied()
}
