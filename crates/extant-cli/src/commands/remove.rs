//! `extant rm`: removes files, and trees if asked.

use std::io::Write;

use anyhow::bail;
use extant::library::ReadDir;
use extant::{Error, Filesystem, InodeHandle};
use extant_format::InodeNumber;

use crate::address::{ImagePath, last_name, without_slash};
use crate::copy::concerns_all;
use crate::failure::{self, Told, Usage};
use crate::{interrupt, volume};

/// Remove files
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// Files, as IMAGE:/path
    #[arg(required_unless_present = "force", value_parser = super::inside())]
    files: Vec<ImagePath>,
    /// Directories with everything below them too
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Empty directories too
    #[arg(short = 'd', long)]
    dir: bool,
    /// What does not exist is no error, and nothing is asked
    #[arg(short, long, overrides_with = "interactive")]
    force: bool,
    /// Ask before each file
    #[arg(short, long, overrides_with = "force")]
    interactive: bool,
    /// Print the name of each file that is removed
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &RmArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    volume::change_each(&args.files, |filesystem, at| {
        match last_name(&at.path) {
            Some(_) => {}
            None if at.path.iter().all(|byte| *byte == b'/') => {
                return Err(Usage("the root directory cannot be removed".to_owned()).into());
            }
            None => bail!("refusing to remove `.` or `..`"),
        }
        let found = match filesystem.symlink_inode(&at.path) {
            Err(Error::NotFound | Error::NotDirectory) if args.force => return Ok(()),
            found => found?,
        };
        let is_link =
            found.is_dir() && filesystem.symlink_inode(without_slash(&at.path))?.is_symlink();
        let mut removal = Removal { args, filesystem, at, out, failed: 0 };
        match (found.is_dir(), args.recursive) {
            (true, true) if is_link => return Err(Error::NotDirectory.into()),
            (true, true) => removal.tree()?,
            (true, false) if args.dir && !is_link => {
                removal.empty_directory(&at.path)?;
            }
            (true, false) => bail!("is a directory; `rm -r` removes it"),
            (false, _) => {
                removal.file(&at.path)?;
            }
        }
        if removal.failed > 0 { Err(Told(removal.failed).into()) } else { Ok(()) }
    })
}

/// One argument, on its way out.
struct Removal<'a> {
    args: &'a RmArgs,
    filesystem: &'a Filesystem,
    at: &'a ImagePath,
    out: &'a mut dyn Write,
    /// The worst exit code of what could not be removed.
    failed: u8,
}

/// A directory that is being emptied.
struct Open {
    number: InodeNumber,
    path: Vec<u8>,
    entries: ReadDir,
    /// Something in it stays.
    stays: bool,
}

impl Removal<'_> {
    /// Whether the file is gone.
    fn file(&mut self, path: &[u8]) -> anyhow::Result<bool> {
        if !self.is_wanted("remove", path)? {
            return Ok(false);
        }
        self.filesystem.remove_file(path)?;
        self.tell("removed", path)
    }

    /// Whether the directory is gone.
    fn empty_directory(&mut self, path: &[u8]) -> anyhow::Result<bool> {
        if !self.is_wanted("remove directory", path)? {
            return Ok(false);
        }
        self.filesystem.remove_dir(path)?;
        self.tell("removed directory", path)
    }

    /// Depth first, without recursion. What cannot be removed is told, and the others go on.
    fn tree(&mut self) -> anyhow::Result<()> {
        let top = self.at.path.clone();
        let mut stack = match self.open(top.clone(), false) {
            Ok(directory) => Vec::from_iter(directory),
            Err(error) => return self.fail(error, &top),
        };
        while let Some(directory) = stack.last_mut() {
            interrupt::check()?;
            let (path, gone) = match directory.entries.next() {
                Some(Ok(entry)) => {
                    let path = [&directory.path[..], b"/", entry.name()].concat();
                    let gone = match self.filesystem.symlink_inode(&path) {
                        Ok(found) if found.is_dir() => match self.below(directory, &found, &path) {
                            Ok(Some(below)) => {
                                stack.push(below);
                                continue;
                            }
                            opened => opened.map(|_| false),
                        },
                        Ok(_) => self.file(&path),
                        Err(error) => Err(error.into()),
                    };
                    (path, gone)
                }
                Some(Err(error)) => (directory.path.clone(), Err(error.into())),
                None => {
                    let Some(Open { path, stays, .. }) = stack.pop() else { break };
                    let gone = if stays { Ok(false) } else { self.empty_directory(&path) };
                    (path, gone)
                }
            };
            let gone = match gone {
                Ok(gone) => gone,
                Err(error) => {
                    self.fail(error, &path)?;
                    false
                }
            };
            if let Some(directory) = stack.last_mut() {
                directory.stays |= !gone;
            }
        }
        Ok(())
    }

    fn below(
        &self,
        directory: &Open,
        found: &InodeHandle,
        path: &[u8],
    ) -> anyhow::Result<Option<Open>> {
        found.check_parent(directory.number)?;
        self.open(path.to_vec(), true)
    }

    /// Begins to empty a directory, if that is wanted.
    fn open(&self, path: Vec<u8>, ask: bool) -> anyhow::Result<Option<Open>> {
        if ask && !self.is_wanted("descend into directory", &path)? {
            return Ok(None);
        }
        let directory = self.filesystem.inode(&path)?;
        let (number, entries) = (directory.number(), directory.read_dir()?);
        Ok(Some(Open { number, path, entries, stays: false }))
    }

    fn is_wanted(&self, what: &str, path: &[u8]) -> anyhow::Result<bool> {
        match self.args.interactive {
            true => Ok(failure::ask(&format!("{what} {}", self.address(path)))?),
            false => Ok(true),
        }
    }

    fn tell(&mut self, what: &str, path: &[u8]) -> anyhow::Result<bool> {
        if self.args.verbose {
            let address = self.address(path);
            writeln!(self.out, "{what} {address}")?;
        }
        Ok(true)
    }

    fn address(&self, path: &[u8]) -> ImagePath {
        ImagePath { image: self.at.image.clone(), path: path.to_vec() }
    }

    /// Tells why something stays; an error that ends the command is passed on.
    fn fail(&mut self, error: anyhow::Error, path: &[u8]) -> anyhow::Result<()> {
        if failure::is_broken_pipe(&error) || concerns_all(&error) {
            return Err(error);
        }
        self.failed =
            failure::tell(&error.context(self.address(path).to_string())).max(self.failed);
        Ok(())
    }
}
