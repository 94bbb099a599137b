//! Fast commits, applied to a volume in memory: what they leave is a list of changed blocks.
//!
//! The volume is that of the last full commit, read through layers without a journal whose changes nobody writes. So nothing
//! is half done when replay breaks off: a read-only mount lays the list over the device, another puts it into the log as the
//! transaction that the fast commits were a part of, and replays that.
//!
//! | file | what |
//! | --- | --- |
//! | `records.rs` | the records, commit by commit |
//! | `inodes.rs` | inodes that come, change and go |
//! | `names.rs` | names |
//! | `claims.rs` | whose blocks are whose in the end |
//!
//! # Invariants
//! Records say outcomes, so each is true of the volume once it is applied, whatever was there before.
//! # Locking
//! Those of the layers; nobody else has the volume.
//! # Not here
//! Which records count (`extant-journal`); what becomes of the changes (`open_journal`, `recovered_view`).
//! # Source
//! Kernel `fs/ext4/fast_commit.c`, `ext4_fc_replay` (J10.6). Differs: applied all or not at all, where the kernel writes as it
//! goes and trusts that doing it again ends the same; links of directories, and inodes without names, are seen to.

mod claims;
mod inodes;
mod names;
mod records;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::Frame;
use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;
use extant_format::fast_commit::Record;
use extant_format::inode::{InodeFlags, InodeRecord};
use extant_format::{FileType, InodeNumber, LogicalRange, PhysicalBlock, Timestamp};

use super::volume::Volume;
use crate::Error;
use crate::inode::Inode;
use crate::trace::Event;
use crate::transaction::{Credits, Handle};
use claims::Claims;
use inodes::Touched;
use records::Commit;
pub(super) use records::Records;

/// How many blocks of directories are searched one by one for the sake of fast commits, about a minute's work.
const MOST_SEARCHES: u64 = 1 << 26;

/// The blocks that fast commits change, and how they are then.
pub(super) type Changes = Vec<(PhysicalBlock, Frame)>;

/// Applies `records` to `volume`, which has no journal and is nobody else's.
///
/// # Errors
/// [`Error::Corrupt`] for a record that cannot be true; [`Error::NotSupported`] for what is not replayed here;
/// [`Error::Journal`] if more blocks change than the log has room for; of the device. The volume is of no use then.
pub(super) fn replay(volume: &Volume, records: &Records) -> Result<Changes, Error> {
    // Those that were orphans before are so still, unless records end them.
    volume.orphans.at_mount()?;
    let mut replay = Replay {
        volume,
        claims: Claims::default(),
        touched: BTreeMap::new(),
        changed: BTreeMap::new(),
        special: volume.superblock().special_inodes().collect(),
        searches: MOST_SEARCHES,
    };
    replay.set_aside(records)?;
    for commit in records.commits() {
        replay.apply(commit?)?;
    }
    replay.finish()?;
    Ok(volume.transactions.take_changes())
}

struct Replay<'v> {
    volume: &'v Volume,
    claims: Claims,
    touched: BTreeMap<InodeNumber, Touched>,
    /// When inodes changed, by the last record of the commit that is being applied.
    changed: BTreeMap<InodeNumber, Timestamp>,
    /// Inodes of the file system itself that have a number like others.
    special: Vec<InodeNumber>,
    /// How many more blocks of directories may be searched one by one.
    searches: u64,
}

impl Replay<'_> {
    fn handle(&self) -> Result<Handle<'_>, Error> {
        self.volume.transactions.begin(Credits::default())
    }

    /// Takes the blocks that records will give to files, so that nothing else gets them meanwhile.
    fn set_aside(&mut self, records: &Records) -> Result<(), Error> {
        for commit in records.commits() {
            for record in commit?.records {
                let Record::AddRange(inode, extent) = record else { continue };
                let Some(blocks) = extent.device_blocks() else { continue };
                let may = self.volume.allocator.may_own(inode, blocks);
                Place::Inode(inode).require(may, Rule::ExtentPlace)?;
                let taken = self.volume.allocator.take_free(&mut self.handle()?, blocks)?;
                taken.into_iter().for_each(|free| self.claims.set_aside(inode, free));
            }
        }
        Ok(())
    }

    /// Applies one fast commit.
    fn apply<'r>(
        &mut self,
        commit: Commit<'r, impl Iterator<Item = Record<'r>>>,
    ) -> Result<(), Error> {
        let geometry = self.volume.transactions.geometry();
        let Commit { records, inodes } = commit;
        let changed = inodes.iter().filter_map(|(number, raw)| {
            Some((number, InodeRecord::decode(raw, geometry, number).ok()?.ctime))
        });
        self.changed = changed.collect();
        for (at, record) in records.enumerate() {
            // Neither inodes nor blocks pile up that are no newer than on the device.
            self.volume.reclaim();
            self.tell(&record);
            match record {
                Record::AddRange(number, extent) => {
                    if let Some(inode) = self.inode_or_later(number, &inodes, at)? {
                        self.add_range(&inode, extent)?;
                    }
                }
                Record::DeleteRange(number, blocks) => {
                    if let Some(inode) = self.inode_or_later(number, &inodes, at)? {
                        self.delete_range(&inode, blocks)?;
                    }
                }
                Record::Create(link) => self.create(link)?,
                Record::Link(link) => {
                    if let Some(inode) = self.inode_or_later(link.inode, &inodes, at)? {
                        self.link(link, &inode)?;
                    }
                }
                Record::Unlink(link) => self.unlink(link)?,
                Record::Inode(number, raw) => self.restore(number, raw)?,
                Record::Padding | Record::Tail(..) | Record::Head(..) => {}
            }
        }
        Ok(())
    }

    /// The blocks of the file are so; where it had others, those are not its any more.
    fn add_range(&mut self, inode: &Arc<Inode>, extent: Extent) -> Result<(), Error> {
        self.delete_range(inode, extent.blocks)?;
        let got = self.volume.files.mapper.put_in(&mut self.handle()?, inode, extent)?;
        got.into_iter().for_each(|got| self.claims.give(inode.number(), got));
        Ok(())
    }

    fn delete_range(&mut self, inode: &Arc<Inode>, blocks: LogicalRange) -> Result<(), Error> {
        let is_file = inode.file_type() == FileType::Regular;
        Place::Inode(inode.number()).require(is_file, Rule::FastCommitTag)?;
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(()); // there are none, nor can there be
        }
        let lost = self.volume.files.mapper.take_out(&mut self.handle()?, inode, blocks)?;
        lost.into_iter().for_each(|lost| self.claims.take(inode.number(), lost));
        Ok(())
    }

    /// Ends what has no name in the end, and frees what is nobody's.
    fn finish(&mut self) -> Result<(), Error> {
        self.end_nameless()?;
        for blocks in self.claims.settle()? {
            self.volume.allocator.free_used(&mut self.handle()?, blocks)?;
        }
        self.volume.dispose_values();
        self.volume.transactions.check_writable()
    }

    fn tell(&self, record: &Record<'_>) {
        let len = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let word = |number: u32| i32::try_from(number).unwrap_or(-1);
        let (ino, priv1, priv2) = match *record {
            Record::AddRange(inode, extent) => {
                (inode.get(), word(extent.blocks.start().get()), word(extent.blocks.len()))
            }
            Record::DeleteRange(inode, blocks) => {
                (inode.get(), word(blocks.start().get()), word(blocks.len()))
            }
            Record::Create(link) | Record::Link(link) | Record::Unlink(link) => {
                (link.inode.get(), word(link.parent.get()), len(link.name.len()))
            }
            Record::Inode(inode, _) => (inode.get(), 0, 0),
            Record::Padding | Record::Tail(..) | Record::Head(..) => return,
        };
        let tag = record.tag();
        self.volume.transactions.tracer().emit(|| Event::FcReplay {
            tag: tag.into(),
            ino: word(ino),
            priv1,
            priv2,
        });
    }
}
