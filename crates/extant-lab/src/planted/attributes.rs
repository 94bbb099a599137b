//! Defects of extended attributes.

use extant_image::check::Rule;

use super::{ALL, Defect, SOME, Stage, defect};

pub(super) fn list() -> Vec<Defect> {
    let mut list = blocks();
    list.extend(block_entries());
    list.extend(in_inodes());
    list.extend(elsewhere());
    list
}

/// A file with an attribute block of its own.
const OWN: &str = "sizes/300000";
/// A file with attributes in its inode.
const INSIDE: &str = "sizes/1";
/// Those whose attributes are in blocks if they are large.
const BLOCKS: &[&str] = &["ext4", "ext4-4k", "no-csum", "ext2", "bigalloc"];
/// Those whose inodes have room for attributes.
const ROOMY: &[&str] = &["ext4", "no-csum", "inline", "bigalloc"];
/// Where the first entry of an attribute block is.
const FIRST: u64 = 32;

fn blocks() -> Vec<Defect> {
    vec![
        defect("attribute block outside", Rule::AttributeBlockPlace, ALL, |stage| {
            stage.set32(stage.at(stage.inode(OWN), 104), stage.blocks_count() + 1);
            Some(())
        }),
        defect(
            "attribute block without the feature",
            Rule::AttributesWithoutFeature,
            SOME,
            |stage| {
                stage.clear32(stage.superblock(0x5C), 8);
                Some(())
            },
        ),
        defect("magic number of an attribute block", Rule::AttributeMagic, BLOCKS, |stage| {
            stage.set32(stage.attribute_block(stage.inode(OWN))?, 0);
            Some(())
        }),
        defect("attribute block that is two", Rule::AttributeBlockCount, BLOCKS, |stage| {
            stage.set32(stage.attribute_block(stage.inode(OWN))? + 8, 2);
            Some(())
        }),
        defect(
            "sum of an attribute block",
            Rule::AttributeChecksum,
            &["ext4", "ext4-4k", "bigalloc"],
            |stage| {
                stage.set32(stage.attribute_block(stage.inode(OWN))? + 16, 1);
                Some(())
            },
        )
        .raw(),
        defect("references to an attribute block", Rule::AttributeReferences, BLOCKS, |stage| {
            let count = stage.attribute_block(stage.inode(OWN))? + 4;
            stage.set32(count, stage.get32(count) + 1);
            Some(())
        }),
    ]
}

fn block_entries() -> Vec<Defect> {
    vec![
        defect("entry that fills its block", Rule::AttributeEntry, BLOCKS, |stage| {
            let block = stage.attribute_block(stage.inode(OWN))?;
            let len = usize::try_from(stage.block_size() - 32).ok()?;
            // Entries without end: each names a value of no bytes.
            stage.edit(block + FIRST, len, |bytes| {
                for entry in bytes.chunks_exact_mut(16) {
                    entry.copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
            });
            Some(())
        }),
        defect("value past its block", Rule::AttributeValue, BLOCKS, |stage| {
            let size = u16::try_from(stage.block_size()).ok()?;
            stage.set16(stage.attribute_block(stage.inode(OWN))? + FIRST + 2, size - 4);
            Some(())
        }),
        defect("value among the entries", Rule::AttributeOverlap, BLOCKS, |stage| {
            stage.set16(stage.attribute_block(stage.inode(OWN))? + FIRST + 2, 40);
            Some(())
        }),
        defect("hash of an attribute", Rule::AttributeHash, BLOCKS, |stage| {
            stage.set32(stage.attribute_block(stage.inode(OWN))? + FIRST + 12, 7);
            Some(())
        }),
        defect("attributes out of order", Rule::AttributeOrder, BLOCKS, |stage| {
            let block = stage.attribute_block(stage.inode(OWN))?;
            if entries(stage, block + FIRST).len() < 2 {
                // One alone has an order: a second one follows, of a lower namespace.
                let entry = block + FIRST;
                let len = (16 + u64::from(stage.get16(entry) & 0xFF)).next_multiple_of(4);
                stage.edit(entry + len, 20, |bytes| {
                    bytes.fill(0);
                    bytes[..2].copy_from_slice(&[1, 1]);
                    bytes[12..17].copy_from_slice(&[97, 0, 0, 0, 97]);
                });
            }
            stage.set8(block + FIRST + 1, 6);
            Some(())
        }),
        defect("attribute of no namespace", Rule::AttributeName, BLOCKS, |stage| {
            stage.set8(stage.attribute_block(stage.inode(OWN))? + FIRST + 1, 0);
            Some(())
        }),
    ]
}

fn in_inodes() -> Vec<Defect> {
    vec![
        defect("value past its inode", Rule::AttributeValue, ROOMY, |stage| {
            let entry = stage.attributes_in(stage.inode(INSIDE));
            stage.set16(with_value(stage, entry)? + 2, 2000);
            Some(())
        }),
        defect("value as large as a disk", Rule::AttributeValue, ROOMY, |stage| {
            let entry = stage.attributes_in(stage.inode(INSIDE));
            stage.set32(with_value(stage, entry)? + 8, 0x7FFF_FFFF);
            Some(())
        }),
        defect("value among an inode's entries", Rule::AttributeOverlap, ROOMY, |stage| {
            let entry = stage.attributes_in(stage.inode(INSIDE));
            stage.set16(with_value(stage, entry)? + 2, 4);
            Some(())
        }),
        defect("name past its inode", Rule::AttributeEntry, ROOMY, |stage| {
            stage.set8(stage.attributes_in(stage.inode(INSIDE)), 255);
            Some(())
        }),
        defect("hash of an inode's attribute", Rule::AttributeHash, ROOMY, |stage| {
            stage.set32(stage.attributes_in(stage.inode(INSIDE)) + 12, 77);
            Some(())
        }),
    ]
}

fn elsewhere() -> Vec<Defect> {
    const ONLY: &[&str] = &["ea-inode"];
    vec![
        defect("value in a reserved inode", Rule::EaInodeNumber, ONLY, |stage| {
            stage.set32(reference(stage)? + 4, 5);
            Some(())
        }),
        defect("value of another size", Rule::EaInodeSize, ONLY, |stage| {
            let size = reference(stage)? + 8;
            stage.set32(size, stage.get32(size) - 1);
            Some(())
        })
        .differs("1.47.0 compares sizes for attribute blocks alone"),
        defect("value elsewhere without the feature", Rule::EaInodeFeature, ONLY, |stage| {
            stage.clear32(stage.superblock(0x60), 0x400);
            Some(())
        })
        .differs("1.47.0 looks for the feature in attribute blocks alone"),
        defect("hash of a value elsewhere", Rule::AttributeHash, ONLY, |stage| {
            stage.set32(reference(stage)? + 12, 9);
            Some(())
        }),
        defect("value in an inode without the flag", Rule::EaInodeFlag, ONLY, |stage| {
            let inode = stage.get32(reference(stage)? + 4);
            stage.clear32(stage.at(inode, 32), 0x20_0000);
            Some(())
        }),
        defect("references to a value", Rule::EaInodeReferences, ONLY, |stage| {
            let inode = stage.get32(reference(stage)? + 4);
            stage.set32(stage.at(inode, 36), 5);
            Some(())
        }),
    ]
}

/// The entry that names a value in an inode of its own: in the file's inode or its attribute block.
fn reference(stage: &Stage) -> Option<u64> {
    let inode = stage.inode(OWN);
    let block = stage.attribute_block(inode).map(|block| block + FIRST);
    let starts = [Some(stage.attributes_in(inode)), block];
    starts.into_iter().flatten().find_map(|start| {
        entries(stage, start).into_iter().find(|entry| stage.get32(entry + 4) != 0)
    })
}

/// The first entry from `start` on that has a value in the same area.
fn with_value(stage: &Stage, start: u64) -> Option<u64> {
    entries(stage, start).into_iter().find(|entry| stage.get32(entry + 8) != 0)
}

fn entries(stage: &Stage, start: u64) -> Vec<u64> {
    let (mut all, mut at) = (Vec::new(), start);
    while stage.get32(at) != 0 && all.len() < 20 {
        all.push(at);
        let name = u64::from(stage.get16(at) & 0xFF);
        at += (16 + name).next_multiple_of(4);
    }
    all
}
