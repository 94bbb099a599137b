//! What takes the items of a stream, and what becomes of those that fail.

use std::io::ErrorKind;

use extant::namespace::NodeKind;
use extant_format::cast::u64_from;

use super::stream::{Entry, Item, Stream};
use crate::progress::Progress;

/// Makes the files of a stream. After an error the item counts as not made, with everything in it.
pub trait Target {
    /// Makes a directory, or goes on in an existing one.
    fn enter(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Leaves the directory entered last, and gives it its attributes.
    fn leave(&mut self) -> anyhow::Result<()>;
    /// Makes a file; one of that name is replaced.
    fn file(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Writes to the file made last.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()>;
    /// Gives the file made last its size and its attributes.
    fn close(&mut self, size: u64) -> anyhow::Result<()>;
    /// Makes a symbolic link; a file of that name is replaced.
    fn symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()>;
    /// Makes a device file, a pipe or a socket; a file of that name is replaced.
    fn special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()>;
    /// Makes another name of a file made before; a file of that name is replaced.
    fn again(&mut self, name: &[u8], link: u64) -> anyhow::Result<()>;
}

/// Gives every item to `target`, which is called `to`. What concerns one file alone is reported and left out.
///
/// # Errors
/// What would fail for every further file too: no space, a device that fails, a tree that cannot be written.
pub fn take_all(
    stream: &mut Stream,
    target: &mut dyn Target,
    to: &str,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut taking = Taking {
        target,
        progress,
        path: Vec::new(),
        at: Vec::new(),
        skipped: 0,
        skips_file: false,
    };
    while let Some(item) = stream.next() {
        let Err(error) = taking.take(item, stream) else { continue };
        let error = error.context(taking.address(to));
        if concerns_all(&error) {
            return Err(error);
        }
        progress.failed(&crate::failure::line(&error));
    }
    Ok(())
}

/// Where in the stream we are.
struct Taking<'a> {
    target: &'a mut dyn Target,
    progress: &'a Progress,
    /// The directories that were entered.
    path: Vec<Vec<u8>>,
    /// The file at hand.
    at: Vec<u8>,
    /// So many directories deep in one that could not be made.
    skipped: u32,
    /// The file at hand could not be made.
    skips_file: bool,
}

impl Taking<'_> {
    fn take(&mut self, item: Item, stream: &Stream) -> anyhow::Result<()> {
        match item {
            Item::Failed(line) => self.progress.failed(&line),
            Item::Enter(_) if self.skipped > 0 => self.skipped += 1,
            Item::Leave if self.skipped > 0 => self.skipped -= 1,
            _ if self.skipped > 0 => {}
            Item::Data { .. } | Item::Close { .. } if self.skips_file => {}
            Item::Enter(entry) => {
                self.at.clone_from(&entry.name);
                self.target.enter(entry).inspect_err(|_| self.skipped = 1)?;
                self.path.push(std::mem::take(&mut self.at));
            }
            Item::Leave => {
                self.at = self.path.pop().unwrap_or_default();
                self.target.leave()?;
            }
            Item::File(entry) => {
                self.at.clone_from(&entry.name);
                self.skips_file = true;
                self.target.file(entry)?;
                self.skips_file = false;
            }
            Item::Data { offset, bytes } => {
                self.target.data(offset, &bytes).inspect_err(|_| self.skips_file = true)?;
                self.progress.bytes_done(u64_from(bytes.len()));
                stream.recycle(bytes);
            }
            Item::Close { size } => {
                self.target.close(size)?;
                self.progress.file_done();
            }
            Item::Symlink { entry, target } => {
                self.at.clone_from(&entry.name);
                self.target.symlink(entry, &target)?;
                self.progress.file_done();
            }
            Item::Special { entry, kind } => {
                self.at.clone_from(&entry.name);
                self.target.special(entry, kind)?;
                self.progress.file_done();
            }
            Item::Again { name, link } => {
                self.at.clone_from(&name);
                self.target.again(&name, link)?;
                self.progress.file_done();
            }
        }
        Ok(())
    }

    /// How the file at hand is called.
    fn address(&self, to: &str) -> String {
        let names = self.path.iter().chain([&self.at]).filter(|name| !name.is_empty());
        let below = names.map(|name| format!("/{}", String::from_utf8_lossy(name)));
        format!("{}{}", to.strip_suffix('/').unwrap_or(to), below.collect::<String>())
    }
}

/// Whether an error would come again with every further file.
fn concerns_all(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
            );
        }
        use extant::Error;
        matches!(
            cause.downcast_ref::<Error>(),
            Some(
                Error::NoSpace { .. }
                    | Error::NoInodes
                    | Error::Corrupt(_)
                    | Error::Device(_)
                    | Error::Journal(_)
                    | Error::Aborted { .. }
                    | Error::Shutdown
                    | Error::ReadOnly
            )
        )
    })
}
