//! What takes the items of a stream, and what becomes of those that fail.

use std::io::ErrorKind;

use extant::namespace::NodeKind;
use extant_format::Timestamp;
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
    /// When what has this name was modified, if there is such a file.
    fn modified(&self, name: &[u8]) -> anyhow::Result<Option<Timestamp>>;
    /// Takes what has this name for the file that is not copied; further names of that one go to it.
    fn keep(&mut self, name: &[u8], link: u64) -> anyhow::Result<()>;
}

/// When a file that is in the way is replaced.
#[derive(Clone, Copy, Debug)]
pub enum Replace {
    /// Always.
    Always,
    /// If it is older than what is copied (`cp -u`).
    Older,
    /// Never (`cp -n`).
    Never,
}

/// Gives every item to `target`, which is called `to`. What concerns one file alone is reported and left out.
///
/// # Errors
/// What would fail for every further file too: no space, a device that fails, a tree that cannot be written.
pub fn take_all(
    stream: &mut Stream,
    target: &mut dyn Target,
    to: &str,
    replace: Replace,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut taking = Taking {
        target,
        to,
        replace,
        progress,
        path: Vec::new(),
        at: Vec::new(),
        skipped: 0,
        skips_file: false,
    };
    while let Some(item) = stream.next() {
        let Err(error) = taking.take(item, stream) else { continue };
        let error = error.context(taking.address());
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
    to: &'a str,
    replace: Replace,
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
                self.progress.made(|| self.address());
                self.path.push(std::mem::take(&mut self.at));
            }
            Item::Leave => {
                self.at = self.path.pop().unwrap_or_default();
                self.target.leave()?;
            }
            Item::File(entry) => {
                self.at.clone_from(&entry.name);
                self.skips_file = true;
                if !self.stays(entry.modified, entry.link)? {
                    self.target.file(entry)?;
                    self.skips_file = false;
                }
            }
            Item::Data { offset, bytes } => {
                self.target.data(offset, &bytes).inspect_err(|_| self.skips_file = true)?;
                self.progress.bytes_done(u64_from(bytes.len()));
                stream.recycle(bytes);
            }
            Item::Close { size } => {
                self.target.close(size)?;
                self.done();
            }
            Item::Symlink { entry, target } => {
                self.at.clone_from(&entry.name);
                if !self.stays(entry.modified, entry.link)? {
                    self.target.symlink(entry, &target)?;
                    self.done();
                }
            }
            Item::Special { entry, kind } => {
                self.at.clone_from(&entry.name);
                if !self.stays(entry.modified, entry.link)? {
                    self.target.special(entry, kind)?;
                    self.done();
                }
            }
            Item::Again { name, modified, link } => {
                self.at.clone_from(&name);
                if !self.stays(modified, None)? {
                    self.target.again(&name, link)?;
                    self.done();
                }
            }
        }
        Ok(())
    }

    fn done(&self) {
        self.progress.file_done();
        self.progress.made(|| self.address());
    }

    /// Whether what has the name of the file at hand stays as it is.
    fn stays(&mut self, modified: Timestamp, link: Option<u64>) -> anyhow::Result<bool> {
        if matches!(self.replace, Replace::Always) {
            return Ok(false);
        }
        let Some(found) = self.target.modified(&self.at)? else { return Ok(false) };
        let order = |time: Timestamp| (time.seconds, time.nanoseconds);
        if matches!(self.replace, Replace::Older) && order(found) < order(modified) {
            return Ok(false);
        }
        link.map_or(Ok(()), |link| self.target.keep(&self.at, link))?;
        Ok(true)
    }

    /// How the file at hand is called.
    fn address(&self) -> String {
        let names = self.path.iter().chain([&self.at]).filter(|name| !name.is_empty());
        let below = names.map(|name| format!("/{}", String::from_utf8_lossy(name)));
        format!("{}{}", self.to.strip_suffix('/').unwrap_or(self.to), below.collect::<String>())
    }
}

/// Whether an error would come again with every further file.
pub fn concerns_all(error: &anyhow::Error) -> bool {
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
