//! Attribute blocks: inodes with the same attributes share one, and whoever changes a shared one gets a copy.
//!
//! # Invariants
//! A reference count changes only under the table's lock, so that nobody joins a block that is being changed or freed: a
//! block whose last reference goes has the count 0, which nobody joins.
//! # Source
//! Kernel `ext4_xattr_block_set`, `ext4_xattr_release_block`, `ext4_xattr_block_cache_find`. Differs: equal blocks are
//! equal byte by byte; the table is small and forgets its oldest.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use extant_format::xattr;
use extant_format::{LogicalBlock, PhysicalBlock, PhysicalRange};

use super::Xattrs;
use super::store::value_inodes;
use crate::Error;
use crate::allocator::{AllocationFlags, AllocationRequest, FileHints, FreeFlags};
use crate::inode::Inode;
use crate::sync::{Mutex, Rank, assert_held};
use crate::transaction::{BlockKind, Handle, MetadataBlock};

/// Attribute blocks by their hash, those that others may join.
pub(super) struct SharedBlocks(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_hash: BTreeMap<u32, MetadataBlock>,
    /// Oldest first.
    order: VecDeque<u32>,
}

impl Default for SharedBlocks {
    fn default() -> Self {
        Self(Mutex::new(Rank::Leaf, Table::default()))
    }
}

impl SharedBlocks {
    /// Offers a block to those who come to have the same attributes.
    fn offer(&self, block: &MetadataBlock) {
        let Some(hash) = block.with(xattr::stored_block_hash).filter(|&hash| hash != 0) else {
            return;
        };
        let mut table = self.0.lock();
        if table.by_hash.insert(hash, block.clone()).is_none() {
            table.order.push_back(hash);
        }
        if table.order.len() > MAX_KNOWN
            && let Some(oldest) = table.order.pop_front()
        {
            table.by_hash.remove(&oldest);
        }
    }

    /// Adds a reference to a block with the same attributes as `bytes`, if one is known.
    fn join(&self, handle: &mut Handle<'_>, bytes: &[u8]) -> Result<Option<PhysicalBlock>, Error> {
        let Some(hash) = xattr::stored_block_hash(bytes).filter(|&hash| hash != 0) else {
            return Ok(None);
        };
        let table = self.0.lock();
        let Some(block) = table.by_hash.get(&hash) else { return Ok(None) };
        let joinable = |own: &[u8]| {
            let count = xattr::references(own)
                .filter(|count| (1..xattr::MAX_REFERENCES).contains(count))?;
            (own.get(HEADER_BYTES..) == bytes.get(HEADER_BYTES..)).then_some(count)
        };
        let Some(count) = block.with(joinable) else { return Ok(None) };
        handle.modify(block, |own| xattr::set_references(own, count + 1))?;
        Ok(Some(block.number()))
    }

    /// Replaces the attributes of a block that nobody shares; `false`, and nothing changed, if somebody does.
    fn replace(
        &self,
        handle: &mut Handle<'_>,
        block: &MetadataBlock,
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let _table = self.0.lock();
        let alone = block.with(xattr::references) == Some(1);
        if alone {
            handle.modify(block, |own| own.copy_from_slice(bytes))?;
        }
        Ok(alone)
    }

    /// Takes a reference away; `true` if it was the last, and the block has to be freed.
    fn leave(&self, handle: &mut Handle<'_>, block: &MetadataBlock) -> Result<bool, Error> {
        let _table = self.0.lock();
        let left = block.with(xattr::references).unwrap_or(0).saturating_sub(1);
        handle.modify(block, |own| xattr::set_references(own, left))?;
        Ok(left == 0)
    }
}

impl Xattrs {
    /// Gives the inode the attribute block `bytes`, or none: in place, shared, or new. The caller stores the inode.
    pub(super) fn put_block(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        bytes: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        assert_held(Rank::Attributes);
        let old = self.block_of(inode)?;
        let old_values = match &old {
            Some(block) => self.with_block(inode, block, value_inodes)?,
            None => Vec::new(),
        };
        if let (Some(block), Some(bytes)) = (&old, &bytes)
            && self.shared.replace(handle, block, bytes)?
        {
            let new_values = self.with_block(inode, block, value_inodes)?;
            self.shared.offer(block);
            return self.shift_references(handle, &old_values, &new_values);
        }
        let new = bytes.map(|bytes| self.join_or_make(handle, inode, bytes)).transpose()?;
        let sectors = u64::from(self.geometry().cluster_ratio())
            * u64::from(self.geometry().block_size / 512);
        {
            let mut core = inode.core.lock();
            core.file_acl = new;
            // Each inode pays for a shared block.
            core.blocks = match (&old, new) {
                (None, Some(_)) => core.blocks.saturating_add(sectors),
                (Some(_), None) => core.blocks.saturating_sub(sectors),
                _ => core.blocks,
            };
        }
        let Some(block) = old else { return Ok(()) };
        if self.shared.leave(handle, &block)? {
            self.shift_references(handle, &old_values, &[])?;
            let range = PhysicalRange::single(block.number());
            let flags = FreeFlags::METADATA | FreeFlags::FORGET;
            self.allocator.free(handle, inode.number(), range, flags)?;
        }
        Ok(())
    }

    fn join_or_make(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        mut bytes: Vec<u8>,
    ) -> Result<PhysicalBlock, Error> {
        xattr::set_references(&mut bytes, 1);
        if let Some(known) = self.shared.join(handle, &bytes)? {
            return Ok(known);
        }
        let number = self.allocate_block(handle, inode)?;
        let block = handle.fresh(number, BlockKind::Attributes)?;
        handle.modify(&block, |own| own.copy_from_slice(&bytes))?;
        let values = self.with_block(inode, &block, value_inodes)?;
        self.shift_references(handle, &[], &values)?;
        self.shared.offer(&block);
        Ok(number)
    }

    /// A block near the inode.
    fn allocate_block(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
    ) -> Result<PhysicalBlock, Error> {
        let geometry = self.geometry();
        let (group, _) =
            geometry.inode_place(inode.number()).ok_or(Error::Stale(inode.number()))?;
        let request = AllocationRequest {
            inode: inode.number(),
            logical: LogicalBlock::ZERO,
            len: 1,
            goal: geometry.first_block_of(group),
            left: None,
            right: None,
            file: FileHints::default(),
            flags: AllocationFlags::empty(),
        };
        let _map = inode.map.write();
        Ok(self.allocator.allocate(handle, &request)?.blocks.start())
    }
}

/// How many blocks are remembered for sharing.
const MAX_KNOWN: usize = 1024;
/// The header, in which the count and the checksum differ.
const HEADER_BYTES: usize = 32;
