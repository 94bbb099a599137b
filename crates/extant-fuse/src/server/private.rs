//! Attributes by which a mount tells of itself, `extant.*`: for those who ask for them by name, and in no list, so that nobody
//! copies them.
//!
//! | name | value |
//! | --- | --- |
//! | `extant.uuid` | the volume's UUID |
//! | `extant.counters` | lines of a name and a number |
//! | `extant.map`, `extant.map.BYTE` | where the file's bytes lie, from `BYTE` on: lines of offset, place on the device, length, all in bytes, and state; place `-` if there is none yet |
//!
//! They stand in for calls that the kernel keeps from servers (`FS_IOC_FIEMAP`, `FS_IOC_GETFSUUID`), and need no socket.

use std::fmt::Write;

use extant::{Errno, FileExtentState, InodeHandle};

use super::Server;
use super::failure::Failure;

/// The longest value of an attribute.
const MAX_VALUE: usize = 64 << 10;
/// More lines than that do not fit, however short they are.
const MAX_LINES: usize = MAX_VALUE >> 4;

impl Server {
    /// The value of an attribute of this kind; `None` for the volume's own.
    pub(super) fn private_attribute(
        &self,
        handle: &InodeHandle,
        name: &[u8],
    ) -> Result<Option<String>, Failure> {
        let Some(name) = name.strip_prefix(b"extant.") else { return Ok(None) };
        Ok(Some(match name {
            b"uuid" => self.uuid(),
            b"counters" => self.counters(),
            b"map" => self.map(handle, 0)?,
            _ => {
                let start = name.strip_prefix(b"map.").and_then(|word| str::from_utf8(word).ok());
                let start = start.and_then(|word| word.parse().ok()).ok_or(Errno::NODATA)?;
                self.map(handle, start)?
            }
        }))
    }

    fn uuid(&self) -> String {
        let mut text = String::new();
        for (index, byte) in self.filesystem.superblock().raw().uuid.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            let _ = write!(text, "{dash}{byte:02x}");
        }
        text
    }

    /// What `extant stat --live` shows.
    fn counters(&self) -> String {
        let (done, memory) = (self.filesystem.counters(), self.filesystem.memory_counters());
        let (kernel, space) = (self.filesystem.kernel_counters(), self.filesystem.statfs());
        let (nodes, files) = (self.nodes.count(), self.files.count());
        let mut lines = vec![
            ("dirty_bytes", memory.dirty_bytes),
            ("writeback_bytes", memory.writeback_bytes),
            ("cached_bytes", memory.cached_bytes),
            ("delayed_clusters", kernel.delayed_allocation_blocks),
            ("reserved_clusters", kernel.reserved_clusters),
            ("free_blocks", space.free_blocks),
            ("free_inodes", space.free_inodes),
            ("journal_pending_blocks", memory.pending_blocks),
            ("journal_written_blocks", done.journal_blocks),
            ("commits", done.commits),
            ("handles", done.handles),
            ("flushes", done.flushes),
            ("device_reads", done.device_reads),
            ("device_read_bytes", done.device_read_bytes),
            ("device_writes", done.device_writes),
            ("device_write_bytes", done.device_write_bytes),
            ("allocator_calls", done.allocator_calls),
            ("known_inodes", nodes),
            ("open_files", files),
        ];
        if let Some(free) = memory.free_log_blocks {
            lines.push(("journal_free_blocks", free.into()));
        }
        lines.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} {value}");
            text
        })
    }

    /// As many lines as an attribute holds; who wants more asks again from the end of the last one on.
    fn map(&self, handle: &InodeHandle, start: u64) -> Result<String, Failure> {
        let block = u64::from(self.block_size);
        let mut text = String::new();
        for extent in handle.first_extents_in(start..u64::MAX, MAX_LINES)? {
            let (mut len, mut place) =
                (u64::from(extent.len) * block, extent.physical.map(|at| at * block));
            let state = match extent.state {
                FileExtentState::Written => "written",
                FileExtentState::Unwritten => "unwritten",
                FileExtentState::Delayed => "delayed",
                FileExtentState::Inline { at, bytes } => {
                    (len, place) = (bytes.into(), Some(at));
                    "inline"
                }
            };
            let offset = u64::from(extent.logical) * block;
            let place = place.map_or("-".to_owned(), |place| place.to_string());
            let line = format!("{offset} {place} {len} {state}\n");
            if text.len() + line.len() > MAX_VALUE {
                break;
            }
            text.push_str(&line);
        }
        Ok(text)
    }
}
