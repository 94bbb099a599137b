//! Defects of quota files.

use extant_format::InodeNumber;
use extant_format::cast::u64_from;
use extant_format::quota::{BLOCK_BYTES, TREE_DEPTH, TREE_ROOT};
use extant_image::check::Rule;

use super::{Defect, Stage, defect};
use crate::damage::Kind;

pub(super) fn list() -> Vec<Defect> {
    let mut list = usage();
    list.extend(files());
    list
}

/// With quota files of users and groups.
const QUOTA: &[&str] = &["no-journal", "quota"];
/// With one of projects too.
const PROJECTS: &[&str] = &["quota"];

fn usage() -> Vec<Defect> {
    vec![
        defect("bytes of the root user", Rule::QuotaUsage, QUOTA, |stage| {
            let bytes = entry(stage, USERS)? + 48;
            stage.set32(bytes, stage.get32(bytes) + 1024);
            Some(())
        }),
        defect("inodes of the root group", Rule::QuotaUsage, QUOTA, |stage| {
            let inodes = entry(stage, GROUPS)? + 24;
            stage.set32(inodes, stage.get32(inodes) - 1);
            Some(())
        }),
        defect("bytes of a project", Rule::QuotaUsage, PROJECTS, |stage| {
            stage.set32(entry(stage, projects(stage))? + 52, 1);
            Some(())
        }),
        defect("use of a user without files", Rule::QuotaUsage, QUOTA, |stage| {
            let own = entry(stage, USERS)? + 72;
            stage.set32(own, 77);
            stage.set32(own + 24, 1);
            Some(())
        }),
        defect("file of another user", Rule::QuotaUsage, QUOTA, |stage| {
            stage.set16(stage.at(stage.inode("sizes/1"), 120), 1);
            Some(())
        }),
        defect("file of another group", Rule::QuotaUsage, QUOTA, |stage| {
            stage.set16(stage.at(stage.inode("sizes/1"), 24), 1234);
            Some(())
        }),
        defect("file of another project", Rule::QuotaUsage, PROJECTS, |stage| {
            stage.set32(stage.at(stage.inode("sizes/1"), 0x9C), 9);
            Some(())
        }),
        defect("user without an entry", Rule::QuotaMissing, QUOTA, |stage| {
            stage.edit(entry(stage, USERS)?, 72, |bytes| bytes.fill(0));
            Some(())
        }),
        defect("groups that the tree does not lead to", Rule::QuotaMissing, QUOTA, |stage| {
            let root = byte(stage, GROUPS, tree_block(TREE_ROOT))?;
            stage.edit(root, BLOCK_BYTES, |bytes| bytes.fill(0));
            Some(())
        }),
    ]
}

fn files() -> Vec<Defect> {
    vec![
        defect("version of a quota file", Rule::QuotaHeader, QUOTA, |stage| {
            stage.set32(byte(stage, USERS, 4)?, 9);
            Some(())
        }),
        defect("magic number of a quota file", Rule::QuotaHeader, QUOTA, |stage| {
            stage.set32(byte(stage, GROUPS, 0)?, 0x1234_5678);
            Some(())
        })
        .differs("e2fsck does not look at it; the kernel refuses the file"),
        defect("more blocks than the quota file has", Rule::QuotaHeader, QUOTA, |stage| {
            stage.set32(byte(stage, USERS, 20)?, 1000);
            Some(())
        }),
        defect("free block past the quota file", Rule::QuotaHeader, QUOTA, |stage| {
            stage.set32(byte(stage, USERS, 24)?, 1000);
            Some(())
        }),
        defect("block with room past the quota file", Rule::QuotaHeader, PROJECTS, |stage| {
            stage.set32(byte(stage, projects(stage), 28)?, 1000);
            Some(())
        }),
        defect("entries past the quota file", Rule::QuotaTree, QUOTA, |stage| {
            stage.set32(references(stage, GROUPS)?, 1000);
            Some(())
        }),
        defect("branch past the quota file", Rule::QuotaTree, PROJECTS, |stage| {
            stage.set32(byte(stage, projects(stage), tree_block(TREE_ROOT) + 16)?, 1000);
            Some(())
        }),
        defect("branch that is there twice", Rule::QuotaTree, QUOTA, |stage| {
            let root = byte(stage, USERS, tree_block(TREE_ROOT))?;
            stage.set32(root + 4, stage.get32(root));
            Some(())
        })
        .differs("e2fsck takes the entries once"),
    ]
}

const USERS: u32 = 3;
const GROUPS: u32 = 4;

fn projects(stage: &Stage) -> u32 {
    stage.get32(stage.superblock(0x26C))
}

/// Where a byte of a quota file is.
fn byte(stage: &Stage, inode: u32, at: u64) -> Option<u64> {
    let bits = stage.survey.geometry.block_bits;
    let blocks = stage.pieces(Kind::Quota(InodeNumber::new(inode)?));
    let block = blocks.get(usize::try_from(at >> bits).ok()?)?;
    Some(block + (at & ((1 << bits) - 1)))
}

/// Where a block of the tree is in its file.
fn tree_block(number: u32) -> u64 {
    u64::from(number) * u64_from(BLOCK_BYTES)
}

/// Where the number of the block with the entry of identifier 0 is.
fn references(stage: &Stage, inode: u32) -> Option<u64> {
    let mut block = TREE_ROOT;
    for _ in 1..TREE_DEPTH {
        block = stage.get32(byte(stage, inode, tree_block(block))?);
    }
    byte(stage, inode, tree_block(block))
}

/// Where the entry of identifier 0 is, the first of its block.
fn entry(stage: &Stage, inode: u32) -> Option<u64> {
    let block = stage.get32(references(stage, inode)?);
    byte(stage, inode, tree_block(block) + 16)
}
