//! Defects of directories and of their indexes.

use extant_format::cast::u64_from;
use extant_image::check::Rule;

use super::{ALL, Defect, INDEXED, INDIRECT, SOME, Stage, defect};

pub(super) fn list() -> Vec<Defect> {
    let mut list = dots();
    list.extend(entries());
    list.extend(targets());
    list.extend(blocks());
    list.extend(indexes());
    list.extend(index_nodes());
    list
}

/// A directory of one block.
const SMALL: &str = "sizes";
/// A directory with an index.
const LARGE: &str = "many";

fn dots() -> Vec<Defect> {
    vec![
        defect("directory without a dot", Rule::DotMissing, ALL, |stage| {
            stage.set32(first_block(stage, SMALL)?, 0);
            Some(())
        }),
        defect("dot with another name", Rule::DotFirst, ALL, |stage| {
            stage.set8(first_block(stage, SMALL)? + 8, b'x');
            Some(())
        }),
        defect("dot that leads elsewhere", Rule::DotInode, ALL, |stage| {
            stage.set32(first_block(stage, SMALL)?, stage.inode("names"));
            Some(())
        }),
        defect("directory without two dots", Rule::DotDotMissing, SOME, |stage| {
            stage.set32(first_block(stage, SMALL)? + 12, 0);
            Some(())
        }),
        defect("two dots with another name", Rule::DotDotSecond, SOME, |stage| {
            stage.set8(first_block(stage, SMALL)? + 12 + 8, b'x');
            Some(())
        }),
        defect("a dot with room", Rule::DotLength, SOME, |stage| {
            let dot = first_block(stage, SMALL)?;
            stage.set16(dot + 4, 40);
            // What follows is `..` again, and the block's last entry.
            let len = u16::try_from(stage.block_size() - 40 - stage.tail_len()).ok()?;
            stage.set32(dot + 40, 2);
            stage.set16(dot + 44, len);
            stage.edit(dot + 46, 6, |bytes| bytes.copy_from_slice(&[2, 2, b'.', b'.', 0, 0]));
            Some(())
        }),
        defect("a dot again", Rule::DotAgain, SOME, |stage| rename(stage, SMALL, b"0", b".")),
        defect("two dots again", Rule::DotDotAgain, SOME, |stage| {
            rename(stage, SMALL, b"60", b"..")
        }),
    ]
}

fn entries() -> Vec<Defect> {
    vec![
        defect("entry longer than its block", Rule::EntryLength, ALL, |stage| {
            let (entry, _) = stage.first_entry(first_block(stage, SMALL)?)?;
            stage.set16(entry + 4, 0x7FFC);
            Some(())
        }),
        defect("entry of an odd length", Rule::EntryLength, SOME, |stage| {
            let (entry, len) = stage.first_entry(first_block(stage, SMALL)?)?;
            stage.set16(entry + 4, u16::try_from(len).ok()? + 1);
            Some(())
        }),
        defect("entry shorter than its name", Rule::EntryLength, SOME, |stage| {
            let (entry, _) = stage.first_entry(first_block(stage, SMALL)?)?;
            stage.set8(entry + 6, 250);
            Some(())
        }),
        defect("entry without a name", Rule::EntryEmpty, SOME, |stage| {
            let (entry, _) = stage.first_entry(first_block(stage, SMALL)?)?;
            stage.set8(entry + 6, 0);
            Some(())
        }),
        defect("name with a slash", Rule::EntryName, ALL, |stage| {
            stage.set8(stage.entry(stage.inode(SMALL), b"60")? + 8, b'/');
            Some(())
        }),
        defect("name with a zero byte", Rule::EntryName, SOME, |stage| {
            stage.set8(stage.entry(stage.inode(SMALL), b"60")? + 9, 0);
            Some(())
        }),
        defect("name twice", Rule::NameTwice, ALL, |stage| rename(stage, SMALL, b"60", b"61")),
        defect("short encrypted name", Rule::EncryptedName, &["ext4", "ext4-4k"], |stage| {
            stage.or32(stage.superblock(0x60), 0x1_0000);
            stage.or32(stage.at(stage.inode(SMALL), 32), 0x800);
            Some(())
        }),
        defect("wrong type", Rule::EntryType, ALL, |stage| {
            stage.set8(stage.entry(stage.inode(SMALL), b"60")? + 7, 2);
            Some(())
        }),
        defect("no type", Rule::EntryTypeUnset, ALL, |stage| {
            stage.set8(stage.entry(stage.inode(SMALL), b"60")? + 7, 0);
            Some(())
        }),
        defect("type without the feature", Rule::EntryTypeUnknown, SOME, |stage| {
            stage.clear32(stage.superblock(0x60), 2);
            Some(())
        }),
    ]
}

fn targets() -> Vec<Defect> {
    vec![
        defect("entry that leads past all inodes", Rule::EntryInode, ALL, |stage| {
            lead(stage, stage.survey.geometry.inodes_count + 1)
        }),
        defect("entry that leads to the journal", Rule::EntryInode, SOME, |stage| lead(stage, 8)),
        defect("entry that leads to its directory", Rule::EntrySelf, SOME, |stage| {
            lead(stage, stage.inode(SMALL))
        }),
        defect("entry that leads to the root", Rule::EntryRoot, SOME, |stage| lead(stage, 2)),
        defect("entry of a deleted file", Rule::EntryDeleted, ALL, |stage| {
            lead(stage, stage.free_inode()?)
        }),
        defect(
            "entry in the part never used",
            Rule::EntryUnusedPart,
            &["ext4", "uninit"],
            |stage| {
                let unused = stage.get16(stage.descriptor(0) + 0x1C);
                if unused == 0 {
                    return None;
                }
                lead(stage, stage.inodes())
            },
        ),
        defect(
            "entry in a group without inodes",
            Rule::EntryUninit,
            &["meta-bg", "uninit"],
            |stage| {
                let is_uninit = |group: &u32| stage.get16(stage.descriptor(*group) + 0x12) & 1 != 0;
                let group = (0..stage.survey.geometry.group_count).find(is_uninit)?;
                lead(stage, group * stage.inodes() + 5)
            },
        ),
        defect("entry of an attribute's value", Rule::EntryEaInode, &["ea-inode"], |stage| {
            let flagged = |inode: &&extant_format::InodeNumber| {
                stage.get32(stage.at(inode.get(), 32)) & 0x20_0000 != 0
            };
            let value = stage.survey.inodes.keys().find(flagged)?.get();
            lead(stage, value)
        }),
    ]
}

fn blocks() -> Vec<Defect> {
    vec![
        defect("sum of a directory block", Rule::DirectoryChecksum, SUMMED_BLOCKS, |stage| {
            let end = first_block(stage, SMALL)? + u64::from(stage.block_size());
            stage.set32(end - 4, 1);
            Some(())
        })
        .raw(),
        defect("directory block without a sum", Rule::DirectoryTail, SUMMED_BLOCKS, |stage| {
            let end = first_block(stage, SMALL)? + u64::from(stage.block_size());
            stage.set8(end - 5, 0);
            Some(())
        })
        .raw(),
        defect("directory with a missing block", Rule::DirectoryHole, INDIRECT, |stage| {
            stage.set32(stage.at(stage.inode(LARGE), 40 + 8), 0);
            Some(())
        }),
        defect(
            "inline directory of an odd size",
            Rule::InlineDirectorySize,
            &["inline"],
            |stage| {
                let is_inline = |inode: &u32| {
                    let is_directory = stage.get16(stage.at(*inode, 0)) & 0xF000 == 0x4000;
                    is_directory && stage.get32(stage.at(*inode, 32)) & 0x1000_0000 != 0
                };
                let mut all = stage.survey.inodes.keys().map(|inode| inode.get());
                let inode = all.find(is_inline)?;
                // Room for two bytes more, which are no entry.
                let entry = stage.attributes_in(inode);
                stage.set16(entry + 2, 60);
                stage.set32(entry + 8, 2);
                stage.set32(stage.at(inode, 4), 62);
                Some(())
            },
        ),
    ]
}

/// Those whose directories outside inodes have sums.
const SUMMED_BLOCKS: &[&str] = &["ext4", "ext4-4k", "bigalloc", "meta-bg"];

fn indexes() -> Vec<Defect> {
    vec![
        defect("root of an index", Rule::IndexRoot, INDEXED, |stage| {
            stage.set8(first_block(stage, LARGE)? + 24, 1);
            Some(())
        }),
        defect("unknown hash", Rule::IndexHash, INDEXED, |stage| {
            stage.set8(first_block(stage, LARGE)? + 28, 9);
            Some(())
        }),
        defect("hash of other directories", Rule::IndexSipHash, INDEXED, |stage| {
            stage.set8(first_block(stage, LARGE)? + 28, 6);
            Some(())
        }),
        defect("flags of an index", Rule::IndexFlags, INDEXED, |stage| {
            stage.set8(first_block(stage, LARGE)? + 31, 1);
            Some(())
        }),
        defect("depth of an index", Rule::IndexDepth, INDEXED, |stage| {
            stage.set8(first_block(stage, LARGE)? + 30, 5);
            Some(())
        }),
        defect("sum of an index's root", Rule::IndexRootChecksum, &["ext4", "ext4-4k"], |stage| {
            let end = first_block(stage, LARGE)? + u64::from(stage.block_size());
            stage.set32(end - 4, 1);
            Some(())
        })
        .raw(),
        defect("sum of an index's node", Rule::IndexNodeChecksum, &["ext4"], |stage| {
            let end = node(stage)? + u64::from(stage.block_size());
            stage.set32(end - 4, 1);
            Some(())
        })
        .raw(),
    ]
}

fn index_nodes() -> Vec<Defect> {
    vec![
        defect("capacity of an index's root", Rule::IndexLimit, INDEXED, |stage| {
            let at = first_block(stage, LARGE)? + 32;
            stage.set16(at, stage.get16(at) - 1);
            Some(())
        }),
        defect("count of an index's root", Rule::IndexCount, INDEXED, |stage| {
            let at = first_block(stage, LARGE)? + 32;
            stage.set16(at + 2, stage.get16(at) + 1);
            Some(())
        }),
        defect("hashes out of order", Rule::IndexOrder, INDEXED, |stage| {
            let node = node(stage)?;
            stage.set32(node + 8 + 8, 0xFFFF_0000);
            Some(())
        }),
        defect("index past the directory", Rule::IndexBlock, INDEXED, |stage| {
            stage.set32(node(stage)? + 8 + 8 + 4, 9999);
            Some(())
        }),
        defect("block that no index names", Rule::IndexUnreferenced, INDEXED, |stage| {
            let entry = node(stage)? + 8 + 8 + 4;
            stage.set32(entry, stage.get32(entry + 8));
            Some(())
        }),
        defect("block that the index names twice", Rule::IndexTwice, INDEXED, |stage| {
            let entry = node(stage)? + 8 + 8 + 4;
            stage.set32(entry + 8, stage.get32(entry));
            Some(())
        }),
        defect("leaf too high", Rule::IndexLeafDepth, INDEXED, |stage| {
            let levels = first_block(stage, LARGE)? + 30;
            stage.set8(levels, 0);
            Some(())
        }),
        defect("name before its block's hashes", Rule::IndexLow, INDEXED, |stage| {
            let second = node(stage)? + 8 + 8;
            stage.set32(second, stage.get32(second + 8) - 2);
            Some(())
        }),
        defect("name after its block's hashes", Rule::IndexHigh, INDEXED, |stage| {
            let second = node(stage)? + 8 + 8;
            stage.set32(second, 2);
            Some(())
        }),
        defect("other letter in a casefolded name", Rule::IndexLow, FOLDED, |stage| {
            rename(stage, CASED, FOLDED_NAME, b"NaMe-\xC3\xA8-007")
        }),
        defect("casefolded name that is no text", Rule::EncodedName, FOLDED, |stage| {
            rename(stage, CASED, FOLDED_NAME, b"NaMe-\xFF\xA9-007")
        }),
        defect("name twice but for its case", Rule::NameTwice, FOLDED, |stage| {
            let leaf = stage.blocks(stage.inode(CASED)).get(1).copied()?;
            let (first, len) = stage.first_entry(leaf)?;
            let name =
                stage.block_at(leaf)[8 + usize::try_from(first - leaf).ok()?..][..12].to_vec();
            stage.edit(first + u64_from(len) + 8, 12, |second| {
                second.copy_from_slice(&name);
                second[0] ^= 0x20;
            });
            Some(())
        }),
    ]
}

/// With casefolded directories, in which names have to be text.
const FOLDED: &[&str] = &["casefold"];
/// A directory of names with capital letters.
const CASED: &str = "cased";
const FOLDED_NAME: &[u8] = b"NaMe-\xC3\xA9-007";

/// A name in other letters, which its directory takes for the same.
pub const OTHER_CASE: Defect = defect("name in another case", Rule::IndexHigh, FOLDED, |stage| {
    rename(stage, CASED, FOLDED_NAME, b"nAmE-\xC3\x89-007")
});

/// Where the first block of a directory is.
fn first_block(stage: &Stage, path: &str) -> Option<u64> {
    stage.blocks(stage.inode(path)).first().copied()
}

/// The first inner node of the large directory's index, or its root less what is before its entries.
fn node(stage: &Stage) -> Option<u64> {
    let blocks = stage.blocks(stage.inode(LARGE));
    let size = u16::try_from(stage.block_size()).ok()?;
    let is_node = |at: &u64| stage.get32(*at) == 0 && stage.get16(*at + 4) == size;
    let inner = blocks.iter().copied().find(is_node);
    inner.or(blocks.first().map(|root| root + 24))
}

/// Gives an entry another name of the same length, or a shorter one.
fn rename(stage: &Stage, directory: &str, from: &[u8], to: &[u8]) -> Option<()> {
    let entry = stage.entry(stage.inode(directory), from)?;
    stage.set8(entry + 6, u8::try_from(to.len()).ok()?);
    stage.edit(entry + 8, to.len(), |name| name.copy_from_slice(to));
    Some(())
}

/// Lets an entry lead to another inode.
fn lead(stage: &Stage, inode: u32) -> Option<()> {
    stage.set32(stage.entry(stage.inode(SMALL), b"60")?, inode);
    Some(())
}
