//! Defects of inodes.

use extant_image::check::Rule;

use super::{ALL, Defect, EXTENTS, INDEXED, SOME, SUMMED, Stage, defect};

pub(super) fn list() -> Vec<Defect> {
    let mut list = special();
    list.extend(special_files());
    list.extend(fields());
    list.extend(sizes());
    list.extend(flags());
    list.extend(map_flags());
    list.extend(types());
    list
}

/// Where fields of an inode are.
const MODE: u64 = 0;
const SIZE: u64 = 4;
const DTIME: u64 = 20;
const LINKS: u64 = 26;
const BLOCKS: u64 = 28;
const FLAGS: u64 = 32;
const AREA: u64 = 40;
/// The flags of the two kinds of contents.
const EXTENTS_FLAG: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;

fn special() -> Vec<Defect> {
    vec![
        defect("root that is a file", Rule::RootNotDirectory, SOME, |stage| {
            stage.set16(stage.at(2, MODE), 0o100_755);
            Some(())
        }),
        defect("root with a deletion time", Rule::RootDeleted, SOME, |stage| {
            stage.set32(stage.at(2, DTIME), 1_600_000_000);
            Some(())
        }),
        defect("root without links", Rule::RootMissing, SOME, |stage| {
            stage.set16(stage.at(2, LINKS), 0);
            Some(())
        }),
        defect("reserved inode with a mode", Rule::ReservedMode, SOME, |stage| {
            stage.set16(stage.at(6, MODE), 0o100_644);
            Some(())
        }),
        defect("boot loader that is a directory", Rule::ReservedMode, &["ext4"], |stage| {
            stage.set16(stage.at(5, MODE), 0o040_755);
            Some(())
        }),
        defect("journal that is a pipe", Rule::JournalMode, &["ext4", "bigalloc"], |stage| {
            stage.set16(stage.at(8, MODE), 0o010_600);
            Some(())
        }),
        defect(
            "journal's inode without a journal",
            Rule::JournalNotClear,
            &["ext2", "no-journal"],
            |stage| {
                stage.set16(stage.at(8, LINKS), 1);
                Some(())
            },
        ),
        defect("quota file that is a pipe", Rule::QuotaMode, &["no-journal"], |stage| {
            stage.set16(stage.at(3, MODE), 0o010_600);
            Some(())
        }),
        defect("quota inode without quota", Rule::QuotaNotClear, SOME, |stage| {
            stage.set16(stage.at(4, LINKS), 1);
            Some(())
        }),
    ]
}

fn special_files() -> Vec<Defect> {
    vec![
        defect("orphan file that is a pipe", Rule::OrphanFileMode, &["orphan-file"], |stage| {
            stage.set16(stage.at(stage.get32(stage.superblock(0x280)), MODE), 0o010_600);
            Some(())
        }),
        defect(
            "orphan file without the feature",
            Rule::OrphanFileNotClear,
            &["orphan-file"],
            |stage| {
                stage.clear32(stage.superblock(0x5C), 0x1000);
                Some(())
            },
        ),
        defect("orphan file with a hole", Rule::OrphanFileHole, &["orphan-file"], |stage| {
            let size = stage.at(stage.get32(stage.superblock(0x280)), SIZE);
            stage.set32(size, stage.get32(size) + stage.block_size());
            Some(())
        }),
        defect(
            "resize inode without its block",
            Rule::ResizeInode,
            &["ext4", "ext2", "ext3"],
            |stage| {
                stage.set32(stage.at(7, AREA), 100);
                Some(())
            },
        ),
        defect(
            "resize inode without the feature",
            Rule::ResizeNotClear,
            &["meta-bg", "mmp"],
            |stage| {
                stage.set32(stage.at(7, AREA + 4 * 13), 100);
                Some(())
            },
        ),
        defect("bad blocks with a mode", Rule::BadBlocksInode, SOME, |stage| {
            stage.set16(stage.at(1, MODE), 0o100_644);
            Some(())
        }),
    ]
}

fn fields() -> Vec<Defect> {
    vec![
        defect("deleted without a time", Rule::DeletedWithoutTime, ALL, |stage| {
            stage.set16(stage.at(stage.free_inode()?, MODE), 0o100_644);
            Some(())
        }),
        defect("in use with a deletion time", Rule::DeletionTime, ALL, |stage| {
            stage.set32(stage.at(stage.inode("sizes/1"), DTIME), 1_600_000_000);
            Some(())
        }),
        defect("orphan on no list", Rule::StrayOrphan, ALL, |stage| {
            stage.set32(stage.at(stage.inode("sizes/1"), DTIME), 12);
            Some(())
        }),
        defect("mode without a type", Rule::BadMode, ALL, |stage| {
            stage.set16(stage.at(stage.inode("sizes/0"), MODE), 0o644);
            Some(())
        }),
        defect("fragment address", Rule::FragmentAddress, SOME, |stage| {
            stage.set32(stage.at(stage.inode("sizes/1"), 112), 5);
            Some(())
        }),
        defect("high half of a directory's size", Rule::DirectorySizeHigh, SOME, |stage| {
            stage.set32(stage.at(stage.inode("names"), 108), 1);
            Some(())
        }),
        defect(
            "high half of the attribute block",
            Rule::AttributeBlockHigh,
            &["ext2", "ext3"],
            |stage| {
                stage.set16(stage.at(stage.inode("sizes/1"), 118), 1);
                Some(())
            },
        ),
        defect("high half of the blocks", Rule::BlocksHigh, &["ext2"], |stage| {
            stage.set16(stage.at(stage.inode("sizes/1"), 116), 1);
            stage.clear32(stage.superblock(0x64), 8);
            Some(())
        }),
        defect("size of extra fields", Rule::ExtraSize, &["ext4", "no-csum", "ext3"], |stage| {
            stage.set16(stage.at(stage.inode("holes/cut"), 0x80), 0x1001);
            Some(())
        }),
    ]
}

fn sizes() -> Vec<Defect> {
    vec![
        defect("size larger than a directory", Rule::InodeSize, ALL, |stage| {
            let size = stage.at(stage.inode("many"), SIZE);
            stage.set32(size, stage.get32(size) + stage.block_size());
            Some(())
        }),
        defect("directory that ends in a block", Rule::InodeSize, SOME, |stage| {
            let size = stage.at(stage.inode("many"), SIZE);
            stage.set32(size, stage.get32(size) - 4);
            Some(())
        }),
        defect("size before the last block", Rule::InodeSize, ALL, |stage| {
            stage.set32(stage.at(stage.inode("sizes/300000"), SIZE), 10);
            Some(())
        }),
        defect("count of blocks", Rule::InodeBlocks, ALL, |stage| {
            let blocks = stage.at(stage.inode("sizes/300000"), BLOCKS);
            stage.set32(blocks, stage.get32(blocks) + 2);
            Some(())
        }),
        defect("count of a directory's blocks", Rule::InodeBlocks, SOME, |stage| {
            stage.set32(stage.at(stage.inode("many"), BLOCKS), 0);
            Some(())
        }),
        defect("sum of an inode", Rule::InodeChecksum, SUMMED, |stage| {
            stage.set32(stage.at(stage.inode("sizes/1"), 12), 77);
            Some(())
        })
        .raw(),
        defect("sum of a free inode", Rule::InodeChecksum, &["ext4"], |stage| {
            let inode = stage.free_inode()?;
            stage.set32(stage.at(inode, DTIME), 1_600_000_000);
            Some(())
        })
        .raw(),
        defect(
            "time before 1970 far in the future",
            Rule::TimeRange,
            &["ext4", "no-csum"],
            |stage| {
                let inode = stage.inode("sizes/1");
                stage.set32(stage.at(inode, 8), 0xF000_0000);
                stage.set32(stage.at(inode, 0x8C), 3);
                Some(())
            },
        ),
    ]
}

fn flags() -> Vec<Defect> {
    vec![
        defect("magic inode", Rule::MagicFlag, SOME, |stage| {
            stage.or32(stage.at(stage.inode("sizes/1"), FLAGS), 0x2000);
            Some(())
        }),
        defect("file without case", Rule::CasefoldNotDirectory, &["ext4", "no-csum"], |stage| {
            stage.or32(stage.at(stage.inode("sizes/1"), FLAGS), 0x4000_0000);
            Some(())
        }),
        defect(
            "directory without case",
            Rule::CasefoldWithoutFeature,
            &["ext4", "no-csum"],
            |stage| {
                stage.or32(stage.at(stage.inode("names"), FLAGS), 0x4000_0000);
                Some(())
            },
        ),
        defect("directory that holds a value", Rule::EaInodeNotRegular, &["ea-inode"], |stage| {
            stage.or32(stage.at(stage.inode("nodes/pipe"), FLAGS), 0x20_0000);
            Some(())
        })
        .differs("1.47.0 has no such check; it finds the wrong count of references"),
    ]
}

fn map_flags() -> Vec<Defect> {
    vec![
        defect("inline data and extents", Rule::InlineWithExtents, &["inline"], |stage| {
            stage.or32(stage.at(stage.inode("sizes/1"), FLAGS), EXTENTS_FLAG);
            Some(())
        }),
        defect(
            "inline data without the feature",
            Rule::InlineWithoutFeature,
            &["ext2", "ext3"],
            |stage| {
                stage.or32(stage.at(stage.inode("sizes/0"), FLAGS), INLINE);
                Some(())
            },
        ),
        defect(
            "inline data without an attribute",
            Rule::InlineWithoutAttribute,
            &["inline"],
            |stage| {
                let inode = stage.inode("sizes/60");
                stage.set32(stage.attributes_in(inode) - 4, 0);
                Some(())
            },
        ),
        defect(
            "extents without the feature",
            Rule::ExtentsWithoutFeature,
            &["ext2", "ext3"],
            |stage| {
                stage.or32(stage.at(stage.inode("sizes/1"), FLAGS), EXTENTS_FLAG);
                Some(())
            },
        ),
        defect("extents without the flag", Rule::ExtentsFlagMissing, EXTENTS, |stage| {
            stage.clear32(stage.at(stage.inode("sizes/300000"), FLAGS), EXTENTS_FLAG);
            Some(())
        }),
        defect("index of a file", Rule::IndexNotDirectory, INDEXED, |stage| {
            stage.or32(stage.at(stage.inode("sizes/300000"), FLAGS), 0x1000);
            Some(())
        }),
        defect("index without the feature", Rule::IndexWithoutFeature, INDEXED, |stage| {
            stage.clear32(stage.superblock(0x5C), 0x20);
            Some(())
        }),
        defect(
            "encryption context of another length",
            Rule::EncryptionContext,
            &["ext4", "ext4-4k"],
            wrong_context,
        ),
        defect(
            "encrypted without a context",
            Rule::EncryptionMissing,
            &["ext4", "ext4-4k"],
            |stage| {
                stage.or32(stage.superblock(0x60), 0x1_0000);
                stage.or32(stage.at(stage.inode("sizes/1"), FLAGS), 0x800);
                Some(())
            },
        ),
    ]
}

fn types() -> Vec<Defect> {
    const IMMUTABLE: u32 = 0x10;
    vec![
        defect("device with an index", Rule::SpecialFile, SOME, |stage| {
            stage.or32(stage.at(stage.inode("nodes/null"), FLAGS), 0x1000);
            Some(())
        }),
        defect("pipe with extents", Rule::SpecialFile, EXTENTS, |stage| {
            stage.or32(stage.at(stage.inode("nodes/pipe"), FLAGS), 0x8_0000);
            Some(())
        }),
        defect("socket with inline data", Rule::SpecialMap, &["inline"], |stage| {
            stage.or32(stage.at(stage.inode("nodes/null"), FLAGS), 0x1000_0000);
            Some(())
        }),
        defect("immutable pipe", Rule::SpecialImmutable, SOME, |stage| {
            stage.or32(stage.at(stage.inode("nodes/pipe"), FLAGS), IMMUTABLE);
            Some(())
        }),
        defect("append-only link", Rule::SpecialImmutable, SOME, |stage| {
            stage.or32(stage.at(stage.inode("links/soft59"), FLAGS), 0x20);
            Some(())
        }),
        defect("device with a size", Rule::SpecialSize, ALL, |stage| {
            stage.set32(stage.at(stage.inode("nodes/disk"), SIZE), 100);
            Some(())
        }),
        defect("short link with extents", Rule::SymlinkExtents, EXTENTS, |stage| {
            stage.or32(stage.at(stage.inode("links/soft59"), FLAGS), 0x8_0000);
            Some(())
        }),
        defect("short link of another length", Rule::SymlinkTarget, ALL, |stage| {
            stage.set32(stage.at(stage.inode("links/soft59"), SIZE), 30);
            Some(())
        }),
        defect("long link of another length", Rule::SymlinkTarget, ALL, |stage| {
            stage.set32(stage.at(stage.inode("links/soft500"), SIZE), 499);
            Some(())
        }),
        defect("link without a target", Rule::SymlinkTarget, SOME, |stage| {
            stage.set32(stage.at(stage.inode("links/soft500"), SIZE), 0);
            Some(())
        }),
    ]
}

/// Gives a file an encryption context of version 2 with as many bytes as version 1 has.
fn wrong_context(stage: &Stage) -> Option<()> {
    stage.or32(stage.superblock(0x60), 0x1_0000);
    let inode = stage.inode("sizes/1");
    stage.or32(stage.at(inode, FLAGS), 0x800);
    let first = stage.attributes_in(inode);
    let end = stage.at(inode, stage.survey.geometry.inode_size.into());
    let value = usize::try_from(end - first).ok()?.checked_sub(28)?;
    stage.edit(first - 4, value + 32, |area| {
        area.fill(0);
        area[..4].copy_from_slice(&0xEA02_0000_u32.to_le_bytes());
        // The name's length, whose it is, and where its value lies.
        (area[4], area[5]) = (1, 9);
        area[6..8].copy_from_slice(&u16::try_from(value).unwrap_or(0).to_le_bytes());
        area[12] = 28;
        area[20] = b'c';
        area[4 + value] = 2;
    });
    Some(())
}
