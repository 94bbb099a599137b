//! Quota files: what each identifier uses of a new file system.
//!
//! Source: kernel `fs/quota/quota_tree.c`, `do_insert_tree`, for the order of the blocks.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use extant_format::InodeRecord;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::quota::{
    BLOCK_BYTES, ENTRIES_PER_BLOCK, QuotaKind, RawEntriesHeader, RawQuotaEntry, RawQuotaHeader,
    TREE_DEPTH, TREE_ROOT,
};
use zerocopy::IntoBytes;

/// Inodes and bytes by identifier.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage(BTreeMap<u32, (u64, u64)>);

impl Usage {
    /// Nothing yet, for each of these.
    pub(super) fn of(owners: &[u32]) -> Self {
        Self(owners.iter().map(|owner| (*owner, (0, 0))).collect())
    }

    /// Counts a file.
    pub(super) fn add(&mut self, kind: QuotaKind, record: &InodeRecord) {
        let id = match kind {
            QuotaKind::User => record.uid,
            QuotaKind::Group => record.gid,
            QuotaKind::Project => record.projid,
        };
        let (inodes, bytes) = self.0.entry(id).or_default();
        *inodes += 1;
        *bytes += record.blocks * 512;
    }

    /// The file that says so.
    pub(super) fn file(&self, kind: QuotaKind) -> Vec<u8> {
        let mut header = RawQuotaHeader::empty(kind);
        let mut bytes = vec![0; BLOCK_BYTES * usize_from(header.blocks.get())];
        let mut entries_block = None;
        for (count, (&id, &(inodes, used))) in self.0.iter().enumerate() {
            let mut block = TREE_ROOT;
            for depth in 1..TREE_DEPTH {
                block = child(&mut bytes, block, index(id, depth - 1));
            }
            let within = count % ENTRIES_PER_BLOCK;
            let leaf = match entries_block.filter(|_| within > 0) {
                Some(leaf) => leaf,
                None => new_block(&mut bytes),
            };
            entries_block = Some(leaf);
            put_number(&mut bytes, block, index(id, TREE_DEPTH - 1), leaf);
            let entry = RawQuotaEntry {
                id: id.into(),
                inodes: inodes.into(),
                bytes: used.into(),
                ..RawQuotaEntry::default()
            };
            let entries = RawEntriesHeader {
                next_free: 0.into(),
                previous_free: 0.into(),
                entries: extant_format::cast::low_u16(low_u32(u64_from(within + 1))).into(),
                padding1: 0.into(),
                padding2: 0.into(),
            };
            let start = usize_from(leaf) * BLOCK_BYTES;
            put(&mut bytes, start, entries.as_bytes());
            let at = start + size_of::<RawEntriesHeader>() + within * size_of::<RawQuotaEntry>();
            put(&mut bytes, at, entry.as_bytes());
            let is_full = within + 1 == ENTRIES_PER_BLOCK;
            header.free_entry = if is_full { 0 } else { leaf }.into();
        }
        header.blocks = low_u32(u64_from(bytes.len() / BLOCK_BYTES)).into();
        put(&mut bytes, 0, header.as_bytes());
        bytes
    }
}

/// Which of its block's numbers an identifier follows.
fn index(id: u32, depth: u32) -> usize {
    usize_from(id >> (8 * (TREE_DEPTH - 1 - depth)) & 0xFF)
}

/// The block below a number, which is made if there is none.
fn child(bytes: &mut Vec<u8>, block: u32, slot: usize) -> u32 {
    let at = usize_from(block) * BLOCK_BYTES + slot * 4;
    let found = bytes[at..].first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
    if found != 0 {
        return found;
    }
    let new = new_block(bytes);
    put_number(bytes, block, slot, new);
    new
}

fn new_block(bytes: &mut Vec<u8>) -> u32 {
    let number = low_u32(u64_from(bytes.len() / BLOCK_BYTES));
    bytes.resize(bytes.len() + BLOCK_BYTES, 0);
    number
}

fn put_number(bytes: &mut [u8], block: u32, slot: usize, number: u32) {
    put(bytes, usize_from(block) * BLOCK_BYTES + slot * 4, &number.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, from: &[u8]) {
    bytes[at..at + from.len()].copy_from_slice(from);
}
