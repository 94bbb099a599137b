//! Values in inodes of their own (the feature `ea_inode`): written through the journal, shared by hash, counted.
//!
//! The count of references lies in `i_ctime` and `i_version`, the hash of the value in `i_atime`.
//!
//! # Source
//! Kernel `ext4_xattr_inode_get`, `ext4_xattr_inode_lookup_create`, `ext4_xattr_inode_update_ref`.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::cast::{high_u32, low_u32, u64_from, usize_from};
use extant_format::corruption::{Place, Rule};
use extant_format::inode::InodeFlags;
use extant_format::xattr::{self, NewValue};
use extant_format::{BlockGroup, FileType, InodeNumber, LogicalRange, Timestamp};

use super::Xattrs;
use super::store::Key;
use crate::Error;
use crate::allocator::{InodeKind, Parent};
use crate::inode::{self, Inode};
use crate::mapping::MapFlags;
use crate::orphans::Orphans;
use crate::transaction::{BlockKind, Handle};

/// Values that others may join, by hash.
pub(super) type Known = BTreeMap<u32, InodeNumber>;

/// An inode that holds a value, kept from being freed until an entry names it; if none does by then, it is left to be
/// freed.
#[must_use]
pub(super) struct ValueInode<'a> {
    orphans: &'a Orphans,
    inode: Arc<Inode>,
    hash: u32,
}

impl<'a> ValueInode<'a> {
    /// `None` if the inode is being freed.
    fn new(orphans: &'a Orphans, inode: Arc<Inode>, hash: u32) -> Option<Self> {
        inode.acquire().then(|| Self { orphans, inode, hash })
    }

    /// What an entry says of it.
    pub(super) fn new_value<'v>(&self) -> NewValue<'v> {
        let size = low_u32(self.inode.size());
        NewValue::Inode { inode: self.inode.number(), size, hash: self.hash }
    }
}

impl Drop for ValueInode<'_> {
    fn drop(&mut self) {
        let is_named = self.inode.core.lock().links > 0;
        if self.inode.release() && !is_named {
            self.orphans.note_unused(self.inode.number());
        }
    }
}

impl Xattrs {
    /// The value that lies in an inode of its own.
    ///
    /// # Errors
    /// The rule that the inode breaks: it holds no value, another size, or another hash.
    pub(super) fn read_value(
        &self,
        owner: &Inode,
        key: Key<'_>,
        number: InodeNumber,
        size: u32,
        entry_hash: u32,
    ) -> Result<Vec<u8>, Error> {
        let at = Place::Inode(number);
        let inode = self.inodes.get(number)?;
        let core = inode.core.lock().clone();
        let sound = core.flags.contains(InodeFlags::EA_INODE) && core.size == u64::from(size);
        at.require(sound, Rule::AttributeValue)?;
        let value = self.value_of(&inode)?;
        let hash = xattr::value_hash(self.geometry(), &value);
        let entry = xattr::XattrEntry {
            index: key.index,
            name: key.name,
            value: xattr::XattrValue::Inode { inode: number, size },
            hash: entry_hash,
        };
        let holds = stored_hash(core.atime) == hash && entry.hash_matches(hash);
        // Lustre's inodes point back to their owner instead.
        let points_back = low_u32(core.mtime.seconds.cast_unsigned()) == owner.number().get()
            && core.generation == owner.generation();
        at.require(holds || points_back, Rule::AttributeHash)?;
        Ok(value)
    }

    fn value_of(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let len = usize::try_from(inode.size()).map_err(|_| Error::TooLarge)?;
        let limit = usize_from(xattr::MAX_VALUE_BYTES);
        Place::Inode(inode.number()).require(len <= limit, Rule::AttributeValue)?;
        let mut value = Vec::with_capacity(len);
        let blocks = len.div_ceil(self.geometry().block_len());
        let mut rest = LogicalRange::new(0, low_u32(u64_from(blocks)));
        while let Some(range) = rest {
            let run = self.mapper.look_up(inode, range)?;
            let hole = || Place::Inode(inode.number()).breaks(Rule::AttributeValue);
            let start = run.state.place().ok_or_else(hole)?;
            for i in 0..u64::from(run.blocks.len()) {
                let number = start.checked_add(i).ok_or_else(hole)?;
                let block = self.transactions.read(number, BlockKind::Plain)?;
                block.with(|bytes| value.extend(bytes.iter().take(len - value.len())));
            }
            rest = run
                .blocks
                .last()
                .checked_add(1)
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok(value)
    }

    /// An inode that holds `value`: one that is there already, or a new one, without a reference for this use.
    pub(super) fn value_inode_for(
        &self,
        handle: &mut Handle<'_>,
        owner: &Inode,
        value: &[u8],
    ) -> Result<ValueInode<'_>, Error> {
        let hash = xattr::value_hash(self.geometry(), value);
        if let Some(known) = self.known_value(hash, value)? {
            return Ok(known);
        }
        let size = low_u32(u64_from(value.len()));
        let (uid, gid) = {
            let core = owner.core.lock();
            (core.uid, core.gid)
        };
        let parent =
            Parent { inode: InodeNumber::ROOT, last_group: None::<BlockGroup>, is_top: true };
        let goal = owner.number().get().checked_add(1).and_then(InodeNumber::new);
        let number = self.allocator.allocate_inode(handle, parent, InodeKind::Other, goal)?;
        let now = self.clock.wall();
        let mut record = inode::new_record(self.geometry(), FileType::Regular, now);
        record.mode |= 0o600;
        (record.uid, record.gid, record.size) = (uid, gid, size.into());
        record.flags |= InodeFlags::EA_INODE;
        record.atime = Timestamp { seconds: hash.into(), nanoseconds: 0 };
        set_count(&mut record, 0);
        let inode = self
            .inodes
            .create(handle, number, record, || self.allocator.is_alone_in_table_block(number))?;
        // Until something names it, it is an orphan, in case nothing ever does.
        self.orphans.add(handle, &inode)?;
        let new = ValueInode::new(&self.orphans, inode, hash).ok_or(Error::Stale(number))?;
        self.write_value(handle, &new.inode, value)?;
        self.inodes.store(handle, &new.inode)?;
        let mut known = self.values.lock();
        known.insert(hash, number);
        if known.len() > MAX_KNOWN {
            known.pop_first();
        }
        Ok(new)
    }

    fn known_value(&self, hash: u32, value: &[u8]) -> Result<Option<ValueInode<'_>>, Error> {
        let Some(number) = self.values.lock().get(&hash).copied() else { return Ok(None) };
        let Some(inode) = self.inodes.find(number) else { return Ok(None) };
        let Some(known) = ValueInode::new(&self.orphans, inode, hash) else { return Ok(None) };
        let is_value = {
            let core = known.inode.core.lock();
            core.flags.contains(InodeFlags::EA_INODE)
                && core.links == 1
                && stored_hash(core.atime) == hash
        };
        Ok((is_value && self.value_of(&known.inode)? == value).then_some(known))
    }

    fn write_value(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        value: &[u8],
    ) -> Result<(), Error> {
        let mut chunks = value.chunks(self.geometry().block_len());
        let mut rest = LogicalRange::new(0, low_u32(u64_from(chunks.len())));
        while let Some(range) = rest {
            let run = self.mapper.map(handle, inode, range, MapFlags::CREATE)?;
            let start = run.state.place().ok_or(Error::NoAttributeSpace)?;
            for (i, chunk) in (0..u64::from(run.blocks.len())).zip(&mut chunks) {
                let number = start.checked_add(i).ok_or(Error::NoAttributeSpace)?;
                let block = handle.fresh(number, BlockKind::Plain)?;
                handle.modify(&block, |bytes| bytes[..chunk.len()].copy_from_slice(chunk))?;
            }
            rest = run
                .blocks
                .last()
                .checked_add(1)
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok(())
    }

    /// An area that named `old` names `new` now: counts go up and down.
    pub(super) fn shift_references(
        &self,
        handle: &mut Handle<'_>,
        old: &[InodeNumber],
        new: &[InodeNumber],
    ) -> Result<(), Error> {
        let mut gone = old.to_vec();
        for &number in new {
            match gone.iter().position(|&old| old == number) {
                Some(at) => _ = gone.swap_remove(at),
                None => self.count_reference(handle, number, true)?,
            }
        }
        gone.into_iter().try_for_each(|number| self.count_reference(handle, number, false))
    }

    fn count_reference(
        &self,
        handle: &mut Handle<'_>,
        number: InodeNumber,
        up: bool,
    ) -> Result<(), Error> {
        let inode = self.inodes.get(number)?;
        let place = Place::Inode(number);
        place.require(inode.flags().contains(InodeFlags::EA_INODE), Rule::AttributeValue)?;
        let (before, after) = {
            let mut core = inode.core.lock();
            let before = count(&core);
            let after = if up { before.checked_add(1) } else { before.checked_sub(1) };
            let after = after.ok_or_else(|| place.breaks(Rule::AttributeValue))?;
            set_count(&mut core, after);
            core.links = u16::from(after > 0);
            (before, after)
        };
        if after == 0 {
            self.orphans.add(handle, &inode)?;
            self.orphans.note_unused(number);
        } else if before == 0 {
            self.orphans.remove(handle, &inode)?;
        }
        self.inodes.store(handle, &inode)
    }
}

/// Source: kernel `ext4_xattr_inode_get_ref`.
fn count(core: &extant_format::InodeRecord) -> u64 {
    u64::from(low_u32(core.ctime.seconds.cast_unsigned())) << 32 | u64::from(low_u32(core.version))
}

fn set_count(core: &mut extant_format::InodeRecord, count: u64) {
    core.ctime = Timestamp { seconds: high_u32(count).into(), nanoseconds: 0 };
    core.version = low_u32(count).into();
}

/// Source: kernel `ext4_xattr_inode_get_hash`.
fn stored_hash(atime: Timestamp) -> u32 {
    low_u32(atime.seconds.cast_unsigned())
}

/// How many values are remembered for sharing.
const MAX_KNOWN: usize = 1024;
