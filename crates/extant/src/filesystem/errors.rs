//! What an error does to the volume, and what it leaves in the superblock for e2fsck and the next mount.
//!
//! Source: kernel `fs/ext4/super.c`: `ext4_handle_error`, `save_error_info`, `ext4_update_super`, `flush_stashed_error_work`.

use alloc::format;
use alloc::vec;

use extant_device::Request;
use extant_format::corruption::Place;
use extant_format::superblock::{ErrorRecord, error_code};
use extant_format::{Geometry, InodeNumber, PhysicalBlock, RawSuperblock};
use zerocopy::FromBytes;

use super::volume::Volume;
use crate::error::{Errno, Error};
use crate::report::{Ineligible, OnError};
use crate::trace::HandleType;
use crate::transaction::{BlockKind, Change, Credits};

/// Errors that the superblock does not tell of yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    first: ErrorRecord,
    last: ErrorRecord,
    count: u32,
}

impl Volume {
    /// What the superblock says that errors do.
    pub(crate) fn on_error(&self) -> OnError {
        match self.superblock().raw().errors.get() {
            2 => OnError::ReadOnly,
            3 => OnError::Panic,
            _ => OnError::Continue,
        }
    }

    /// Does what `policy` says about an error that was found. If the volume goes on, the next tick, freeze or unmount tells the
    /// superblock; else that is done now, past the journal, which is stopped first.
    ///
    /// # Locks
    /// Waits for the device: none may be held of rank 72 or more.
    /// # Source
    /// Kernel `ext4_handle_error`, which stops the journal with `EIO` whatever the error was.
    pub(crate) fn handle_error(&self, error: &Error, policy: OnError) {
        if matches!(error, Error::InUse(_)) || self.transactions.check_writable().is_err() {
            // It is not this host's to write any more, or told already.
            return;
        }
        self.note_found(error);
        if policy == OnError::Continue {
            return;
        }
        let reason = match policy {
            OnError::Panic => "an error was found (errors=panic)",
            OnError::ReadOnly | OnError::Continue => "an error was found (errors=remount-ro)",
        };
        self.transactions.abort_as(Errno::IO, reason, None);
        // A device that fails here, too, has the journal say that much.
        let _ = self.tell_found_at_once();
    }

    pub(super) fn note_found(&self, error: &Error) {
        let record = record_of(error, self.clock.wall().seconds);
        let mut found = self.found.lock();
        *found = Some(match *found {
            None => Found { first: record, last: record, count: 1 },
            Some(found) => Found { last: record, count: found.count.saturating_add(1), ..found },
        });
    }

    /// Tells the superblock of what was found, in a transaction.
    ///
    /// # Errors
    /// Of the journal.
    pub(super) fn tell_found(&self) -> Result<(), Error> {
        let Some(found) = self.found.lock().take() else { return Ok(()) };
        let geometry = self.transactions.geometry();
        let block = self.transactions.read(geometry.superblock_block(), BlockKind::Superblock)?;
        let credits = Credits::blocks(1, geometry).of_volume(HandleType::Misc);
        let mut handle = self.transactions.begin(credits)?;
        handle.note(Change::Unrecorded(Ineligible::Unrecordable));
        handle.modify(&block, |bytes| found.tell(bytes, geometry))?;
        handle.stop()
    }

    /// The same past the journal, of which the next mount replays no more than what had been committed.
    fn tell_found_at_once(&self) -> Result<(), Error> {
        let Some(found) = self.found.lock().take() else { return Ok(()) };
        let (io, geometry) = (self.transactions.io(), self.transactions.geometry());
        let number = geometry.superblock_block();
        let mut frame = io.read_block(number)?;
        found.tell(frame.make_mut(), geometry);
        if let Some(raw) = superblock_in(frame.make_mut(), geometry)
            && geometry.has_metadata_csum()
        {
            raw.set_checksum();
        }
        let len = frame.len();
        io.run(&mut [Request::write_fua(io.offset(number), vec![frame.slice(0..len)])])
    }
}

impl Found {
    /// Puts them into the superblock's block.
    fn tell(&self, block: &mut [u8], geometry: &Geometry) {
        if let Some(raw) = superblock_in(block, geometry) {
            self.put(raw);
        }
    }

    /// Puts them into the superblock.
    pub(super) fn put(&self, raw: &mut RawSuperblock) {
        raw.record_error(&self.first);
        if let Some(others) = self.count.checked_sub(2) {
            raw.record_error(&self.last);
            raw.error_count = raw.error_count.get().saturating_add(others).into();
        }
    }
}

fn superblock_in<'b>(block: &'b mut [u8], geometry: &Geometry) -> Option<&'b mut RawSuperblock> {
    Some(RawSuperblock::mut_from_prefix(&mut block[geometry.superblock_offset()..]).ok()?.0)
}

/// The error as the superblock has it. Where the kernel names a function of its own, this says which rule is broken, or that it
/// was seen here.
fn record_of(error: &Error, seconds: i64) -> ErrorRecord {
    let (place, what) = match error {
        Error::Corrupt(corruption) => (Some(corruption.place), format!("{}", corruption.rule)),
        _ => (None, "extant".into()),
    };
    let (inode, block) = match place {
        Some(Place::Inode(inode)) => (Some(inode), None),
        Some(Place::InodeBlock(inode, block)) => (Some(inode), Some(block)),
        Some(Place::Block(block)) => (None, Some(block)),
        Some(Place::Journal(_)) => (Some(InodeNumber::JOURNAL), None),
        Some(Place::Superblock | Place::Group(_)) | None => (None, None),
    };
    let mut function = [0; 32];
    let len = what.len().min(function.len() - 1);
    function[..len].copy_from_slice(&what.as_bytes()[..len]);
    let Errno(errno) = match error {
        Error::Aborted { errno, .. } => *errno,
        error => error.errno(),
    };
    ErrorRecord {
        seconds: u64::try_from(seconds).unwrap_or(0),
        inode,
        block: block.unwrap_or(PhysicalBlock::new(0)),
        function,
        line: 0,
        code: error_code(errno),
    }
}
