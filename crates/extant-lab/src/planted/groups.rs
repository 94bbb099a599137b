//! Defects of descriptors, bitmaps and counts.

use extant_image::check::Rule;

use super::{ALL, Defect, GDT_SUMMED, SOME, SUMMED, Stage, defect};

pub(super) fn list() -> Vec<Defect> {
    let mut list = descriptors();
    list.extend(bitmaps());
    list.extend(counts());
    list
}

fn descriptors() -> Vec<Defect> {
    vec![
        defect("block bitmap outside", Rule::BlockBitmapPlace, ALL, |stage| {
            stage.set32(stage.descriptor(0), stage.blocks_count() + 5);
            Some(())
        }),
        defect("inode bitmap outside", Rule::InodeBitmapPlace, ALL, |stage| {
            stage.set32(stage.descriptor(0) + 4, stage.blocks_count() + 5);
            Some(())
        }),
        defect("inode table outside", Rule::InodeTablePlace, SOME, |stage| {
            let last = stage.survey.geometry.group_count - 1;
            stage.set32(stage.descriptor(last) + 8, stage.blocks_count() - 1);
            Some(())
        }),
        defect("sum of a descriptor", Rule::DescriptorChecksum, GDT_SUMMED, |stage| {
            stage.set16(stage.descriptor(0) + 0x1E, 1);
            Some(())
        })
        .raw()
        .differs("e2fsck tells it, and ends with 0"),
        defect(
            "unused part without checksums",
            Rule::UninitWithoutFeature,
            &["ext2", "no-csum"],
            |stage| {
                stage.set16(stage.descriptor(0) + 0x12, 2);
                Some(())
            },
        ),
        defect("last group without a bitmap", Rule::LastGroupUninit, GDT_SUMMED, |stage| {
            let last = stage.descriptor(stage.survey.geometry.group_count - 1);
            stage.set16(last + 0x12, stage.get16(last + 0x12) | 2);
            Some(())
        }),
        defect("more unused than free inodes", Rule::UnusedInodes, GDT_SUMMED, |stage| {
            let count = u16::try_from(stage.inodes()).ok()?;
            stage.set16(stage.descriptor(0) + 0x1C, count);
            Some(())
        }),
        defect("block bitmap on a table", Rule::BlockBitmapConflict, SOME, |stage| {
            let table = stage.get32(stage.descriptor(0) + 8);
            stage.set32(stage.descriptor(0), table + 3);
            Some(())
        }),
        defect("inode bitmap on the superblock", Rule::InodeBitmapConflict, SOME, |stage| {
            let first = stage.survey.geometry.first_data_block;
            stage.set32(stage.descriptor(0) + 4, first + 1);
            Some(())
        }),
        defect(
            "inode table on a superblock",
            Rule::InodeTableConflict,
            &["ext4", "ext2"],
            |stage| {
                let last = stage.survey.geometry.group_count - 1;
                let first = stage.survey.geometry.first_block_of(extant_format::BlockGroup(last));
                stage.set32(stage.descriptor(last) + 8, u32::try_from(first.get()).ok()?);
                Some(())
            },
        ),
        defect("inode bitmap on a table", Rule::InodeBitmapConflict, &["ext4", "ext2"], |stage| {
            let last = stage.descriptor(stage.survey.geometry.group_count - 1);
            stage.set32(last + 4, stage.get32(last + 8) + 1);
            Some(())
        }),
    ]
}

fn bitmaps() -> Vec<Defect> {
    vec![
        defect("block in use marked free", Rule::BlockUnmarked, ALL, |stage| {
            flip(stage, stage.data_of(stage.inode("sizes/300000")));
            Some(())
        }),
        defect("free block marked in use", Rule::BlockMarked, ALL, |stage| {
            let last = stage.blocks_count();
            let free = (1..last).rev().find(|block| !stage.is_marked(*block))?;
            flip(stage, free);
            Some(())
        }),
        defect("metadata marked free", Rule::BlockUnmarked, SOME, |stage| {
            flip(stage, stage.get32(stage.descriptor(0) + 8) + 1);
            Some(())
        }),
        defect("end of a block bitmap", Rule::BlockPadding, SOME, |stage| {
            let last = stage.survey.geometry.group_count - 1;
            let bitmap = stage.offset(stage.get32(stage.descriptor(last)));
            stage.set8(bitmap + u64::from(stage.block_size()) - 1, 0);
            Some(())
        }),
        defect("sum of a block bitmap", Rule::BlockBitmapChecksum, SUMMED, |stage| {
            stage.set16(stage.descriptor(0) + 0x18, 1);
            seal_descriptor(stage);
            Some(())
        })
        .raw(),
        defect(
            "blocks in a group without any",
            Rule::BlockUninit,
            &["uninit", "meta-bg"],
            |stage| {
                let block = stage.data_of(stage.inode("sizes/300000"));
                let geometry = &stage.survey.geometry;
                let group = geometry.group_of(extant_format::PhysicalBlock::new(block.into()))?;
                let at = stage.descriptor(group.get()) + 0x12;
                stage.set16(at, stage.get16(at) | 2);
                Some(())
            },
        ),
        defect("inode in use marked free", Rule::InodeUnmarked, ALL, |stage| {
            flip_inode(stage, stage.inode("sizes/1"));
            Some(())
        }),
        defect("free inode marked in use", Rule::InodeMarked, ALL, |stage| {
            flip_inode(stage, stage.free_inode()?);
            Some(())
        }),
        defect("end of an inode bitmap", Rule::InodePadding, SOME, |stage| {
            let bitmap = stage.offset(stage.get32(stage.descriptor(0) + 4));
            stage.set8(bitmap + u64::from(stage.block_size()) - 1, 0);
            Some(())
        }),
        defect("sum of an inode bitmap", Rule::InodeBitmapChecksum, SUMMED, |stage| {
            stage.set16(stage.descriptor(0) + 0x1A, 1);
            seal_descriptor(stage);
            Some(())
        })
        .raw(),
    ]
}

fn counts() -> Vec<Defect> {
    vec![
        defect("free blocks of a group", Rule::GroupFreeBlocks, ALL, |stage| {
            add16(stage, stage.descriptor(0) + 0xC, 1);
            Some(())
        }),
        defect("free inodes of a group", Rule::GroupFreeInodes, ALL, |stage| {
            add16(stage, stage.descriptor(0) + 0xE, 1);
            Some(())
        }),
        defect("directories of a group", Rule::GroupDirectories, ALL, |stage| {
            add16(stage, stage.descriptor(0) + 0x10, 1);
            Some(())
        }),
        defect("free blocks in all", Rule::FreeBlocks, ALL, |stage| {
            let at = stage.superblock(0xC);
            stage.set32(at, stage.get32(at) + 16);
            Some(())
        }),
        defect("free inodes in all", Rule::FreeInodes, ALL, |stage| {
            let at = stage.superblock(0x10);
            stage.set32(at, stage.get32(at) - 1);
            Some(())
        }),
    ]
}

fn flip(stage: &Stage, block: u32) {
    let (at, mask) = stage.bit(block);
    stage.edit(at, 1, |bytes| bytes[0] ^= mask);
}

fn flip_inode(stage: &Stage, inode: u32) {
    let (group, index) = ((inode - 1) / stage.inodes(), (inode - 1) % stage.inodes());
    let bitmap = stage.offset(stage.get32(stage.descriptor(group) + 4));
    stage.edit(bitmap + u64::from(index / 8), 1, |bytes| bytes[0] ^= 1 << (index % 8));
}

fn add16(stage: &Stage, at: u64, more: u16) {
    stage.set16(at, stage.get16(at) + more);
}

/// Makes the sum of group 0's descriptor right, and nothing else.
fn seal_descriptor(stage: &Stage) {
    let mut alone = stage.survey.clone();
    let own = crate::damage::Kind::Descriptor(extant_format::BlockGroup(0));
    alone.pieces.retain(|piece| piece.kind == own);
    crate::damage::seal(&stage.image, &alone);
}
