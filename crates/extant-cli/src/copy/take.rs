//! Decides for each item of a stream what becomes of it: made, written over what is there, left out; and what of those
//! that fail.

use std::collections::HashSet;
use std::io::ErrorKind;

use extant_format::cast::u64_from;
use extant_format::{FileType, Timestamp};

use super::settings::{Follow, Policy, Replace};
use super::stream::{Entry, Item, NothingYet, Role, Stream};
use super::target::{Found, Target};
use crate::interrupt;
use crate::output::type_name;
use crate::progress::Progress;

/// Gives every item to a target. What concerns one file alone is reported and left out.
///
/// # Errors
/// What would fail for every further file too: no space, a device that fails, a tree that cannot be written.
pub fn take_all(stream: &mut Stream, taking: &mut Taking<'_>) -> anyhow::Result<Outcome> {
    loop {
        if interrupt::is_wanted() && !taking.in_file {
            return taking.stop();
        }
        let item = match stream.next() {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(Outcome::Done),
            Err(NothingYet) if interrupt::is_wanted() => return taking.stop(),
            Err(NothingYet) => continue,
        };
        let Err(error) = taking.take(item, stream) else { continue };
        let error = error.context(taking.address());
        if concerns_all(&error) {
            return Err(error);
        }
        taking.progress.failed(&crate::failure::line(&error), crate::failure::exit_code(&error));
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Done,
    /// The user had enough of it; every directory was left in order.
    Interrupted,
}

/// Where in the stream we are.
pub struct Taking<'a> {
    target: &'a mut dyn Target,
    policy: Policy,
    progress: &'a Progress,
    /// How the target is called.
    to: String,
    /// The directories that were entered.
    path: Vec<Vec<u8>>,
    /// The file at hand.
    at: Vec<u8>,
    /// So many directories deep in one that could not be made.
    skipped: u32,
    /// The file at hand is not taken.
    skips_file: bool,
    /// A file is open.
    in_file: bool,
    /// What the copies of sources are called that were made; kept if there are several sources.
    made: Option<HashSet<String>>,
    /// The target ends in a slash, so that only a directory can be made there.
    only_directory: bool,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// Nothing is in the way.
    Make,
    /// The bytes of what is in the way are replaced.
    Overwrite,
    /// What is in the way is removed first.
    Replace,
    /// What is in the way stays.
    Leave,
}

/// What a file is to what is in its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Bytes that can go into a file that exists.
    Regular,
    /// Another name of a file that was copied.
    Again,
    /// Anything else that is no directory.
    Other,
}

impl<'a> Taking<'a> {
    /// Copies go to `target`, which is called `to`.
    pub fn new(
        target: &'a mut dyn Target,
        to: String,
        policy: Policy,
        progress: &'a Progress,
    ) -> Self {
        Self {
            target,
            policy,
            progress,
            to,
            path: Vec::new(),
            at: Vec::new(),
            skipped: 0,
            skips_file: false,
            in_file: false,
            made: None,
            only_directory: false,
        }
    }

    /// There are several sources, whose copies must not meet.
    pub fn of_several(mut self, several: bool) -> Self {
        self.made = several.then(HashSet::new);
        self
    }

    /// Only a directory can be made.
    pub fn only_directory(mut self, only: bool) -> Self {
        self.only_directory = only;
        self
    }

    fn take(&mut self, item: Item, stream: &Stream) -> anyhow::Result<()> {
        match item {
            Item::Failed { line, code } => self.progress.failed(&line, code),
            Item::Warned(line) => self.progress.warn(&line),
            Item::Leave if self.skipped > 0 => self.skipped -= 1,
            Item::Leave => {
                self.at = self.path.pop().unwrap_or_default();
                self.target.leave()?;
            }
            Item::Data { offset, bytes } => {
                let len = u64_from(bytes.len());
                if !self.skips_file {
                    self.target.data(offset, &bytes).inspect_err(|_| self.skip_file(stream))?;
                    self.progress.bytes_done(len);
                }
                stream.recycle(bytes);
            }
            Item::Close { size } => {
                self.in_file = false;
                if !self.skips_file {
                    self.target.close(size)?;
                    self.done();
                }
            }
            Item::Enter(_) if self.skipped > 0 => {
                self.skipped += 1;
                self.progress.left_out();
            }
            Item::File(_) | Item::Symlink { .. } | Item::Special { .. } | Item::Again(_)
                if self.skipped > 0 =>
            {
                if matches!(item, Item::File(_)) {
                    self.skip_file(stream);
                }
                self.progress.left_out();
            }
            Item::Enter(entry) => self.enter(entry)?,
            Item::File(entry) => {
                self.skips_file = true;
                match self.file(entry) {
                    Ok(true) => (self.skips_file, self.in_file) = (false, true),
                    left => {
                        stream.refuse();
                        left?;
                    }
                }
            }
            Item::Symlink { entry, target } => {
                if self.make_room(&entry, false)? {
                    self.target.make_symlink(entry, &target)?;
                    self.done();
                }
            }
            Item::Special { entry, kind } => {
                if self.make_room(&entry, false)? {
                    self.target.make_special(entry, kind)?;
                    self.done();
                }
            }
            Item::Again(entry) => self.again(entry)?,
        }
        Ok(())
    }

    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        self.at.clone_from(&entry.name);
        let entered = self.enter_or_make(entry).inspect_err(|_| self.skipped = 1);
        let role = entered?;
        if role != Role::Parent {
            self.progress.directory_done();
            self.note_made(role);
            self.progress.made(|| self.address());
        }
        self.path.push(std::mem::take(&mut self.at));
        Ok(())
    }

    fn enter_or_make(&mut self, entry: Entry) -> anyhow::Result<Role> {
        let role = entry.role;
        if entry.name.is_empty() {
            self.target.enter(entry)?;
            return Ok(role);
        }
        let found = match self.target.is_new() && role != Role::Named {
            true => None,
            false => self.target.find(&entry.name, role == Role::Parent)?,
        };
        match found {
            Some(found) if found.id == entry.id && role == Role::Named => {
                anyhow::bail!("source and target are the same file");
            }
            Some(found) if found.is_dir() => self.target.enter(entry)?,
            Some(_) if role == Role::Parent => anyhow::bail!("exists, but is no directory"),
            Some(_) => anyhow::bail!("cannot overwrite non-directory with directory"),
            None => self.target.make_directory(entry)?,
        }
        Ok(role)
    }

    /// Opens the copy of a regular file; false if what is there stays.
    fn file(&mut self, entry: Entry) -> anyhow::Result<bool> {
        self.at.clone_from(&entry.name);
        let role = entry.role;
        match self.fate(&entry, Kind::Regular)? {
            Fate::Leave => return Ok(false),
            Fate::Make => self.target.make_file(entry)?,
            Fate::Replace => {
                self.target.remove(&entry.name)?;
                self.target.make_file(entry)?;
            }
            Fate::Overwrite => self.target.overwrite(entry)?,
        }
        self.note_made(role);
        Ok(true)
    }

    /// Makes sure that nothing has the name of what is no regular file; false if what is there stays.
    fn make_room(&mut self, entry: &Entry, is_again: bool) -> anyhow::Result<bool> {
        self.at.clone_from(&entry.name);
        let kind = if is_again { Kind::Again } else { Kind::Other };
        match self.fate(entry, kind)? {
            Fate::Leave => return Ok(false),
            Fate::Make => {}
            Fate::Replace | Fate::Overwrite => self.target.remove(&entry.name)?,
        }
        self.note_made(entry.role);
        Ok(true)
    }

    fn again(&mut self, entry: Entry) -> anyhow::Result<()> {
        let number = entry.link.ok_or_else(|| anyhow::anyhow!("has no first name"))?;
        if self.make_room(&entry, true)? {
            self.target.link(&entry.name, number)?;
            self.done();
        }
        Ok(())
    }

    /// What becomes of a file of this kind. The order of the questions is cp(1)'s.
    fn fate(&mut self, entry: &Entry, kind: Kind) -> anyhow::Result<Fate> {
        let named = entry.role == Role::Named;
        if self.only_directory && named {
            return Err(extant::Error::NotDirectory.into());
        }
        if self.target.is_new() && !named {
            return Ok(Fate::Make);
        }
        let through = match self.policy.through {
            Follow::Always => true,
            Follow::Named => named,
            Follow::Never => false,
        };
        let follow = kind == Kind::Regular && !self.policy.remove_first && through;
        let Some(found) = self.target.find(&entry.name, follow)? else {
            if follow && self.target.find(&entry.name, false)?.is_some() {
                anyhow::bail!("not writing through dangling symlink");
            }
            return Ok(Fate::Make);
        };
        anyhow::ensure!(!found.is_source, "is the image itself; left as it is");
        let is_same = found.id == entry.id || Some(found.id) == entry.leads_to;
        if is_same && kind != Kind::Again {
            anyhow::bail!("source and target are the same file");
        }
        if self.stays(&found, entry.modified)? {
            entry.link.map_or(Ok(()), |link| self.target.keep(&entry.name, link))?;
            return Ok(Fate::Leave);
        }
        anyhow::ensure!(!found.is_dir(), "cannot overwrite directory with non-directory");
        if named && self.made.as_ref().is_some_and(|made| made.contains(&self.address())) {
            anyhow::bail!("will not overwrite what was just made");
        }
        let has_names = self.policy.keep_links && found.links > 1;
        if kind != Kind::Regular || self.policy.remove_first || has_names {
            return Ok(Fate::Replace);
        }
        match found.kind {
            FileType::Regular => Ok(Fate::Overwrite),
            _ if through && self.policy.through == Follow::Named => Ok(Fate::Overwrite),
            _ if !through || self.policy.force => Ok(Fate::Replace),
            kind => anyhow::bail!(
                "is a {}, which only a running system can write to; `cp -f` replaces it",
                type_name(kind)
            ),
        }
    }

    /// Whether what is in the way stays as it is.
    fn stays(&self, found: &Found, modified: Timestamp) -> anyhow::Result<bool> {
        // Where a copy cannot have the nanoseconds, its source has none either.
        let is_coarse = self.policy.keep_times && found.modified.nanoseconds == 0;
        let order = |time: Timestamp| (time.seconds, if is_coarse { 0 } else { time.nanoseconds });
        Ok(match self.policy.replace {
            Replace::Always => false,
            Replace::Never => true,
            Replace::Older => order(found.modified) >= order(modified),
            Replace::Asked => !self.progress.ask(&format!("overwrite {}", self.address()))?,
        })
    }

    /// Nothing more of the file at hand is needed.
    fn skip_file(&mut self, stream: &Stream) {
        self.skips_file = true;
        stream.refuse();
    }

    fn note_made(&mut self, role: Role) {
        if role == Role::Named && self.made.is_some() {
            let address = self.address();
            self.made.get_or_insert_default().insert(address);
        }
    }

    fn done(&self) {
        self.progress.file_done();
        self.progress.made(|| self.address());
    }

    /// Leaves everything in order before the end.
    fn stop(&mut self) -> anyhow::Result<Outcome> {
        if self.in_file && !self.skips_file {
            self.target.abandon()?;
        }
        while self.path.pop().is_some() {
            self.target.leave()?;
        }
        Ok(Outcome::Interrupted)
    }

    /// How the file at hand is called.
    fn address(&self) -> String {
        let names = self.path.iter().chain([&self.at]).filter(|name| !name.is_empty());
        let below = names.map(|name| format!("/{}", String::from_utf8_lossy(name)));
        let below: String = below.collect();
        match below.is_empty() {
            true => self.to.clone(),
            false => format!("{}{below}", self.to.strip_suffix('/').unwrap_or(&self.to)),
        }
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
        if let Some(errno) = cause.downcast_ref::<rustix::io::Errno>() {
            use rustix::io::Errno;
            return matches!(*errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS);
        }
        cause.downcast_ref::<extant::Error>().is_some_and(extant::Error::concerns_all)
    })
}
