//! What programs do on a mount while its server is killed, and what each of them may expect afterwards.
//!
//! | load | may expect |
//! | --- | --- |
//! | [`Writer`] | each byte as it was synced, or as it was written since |
//! | [`Replacer`] | some whole version of its file, no older than the last whose name was synced |
//! | [`Namer`] | names as they were synced, or as they were made since |
//! | [`Bulk`] | nothing; it keeps the server busy |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use extant_testkit::Random;
use rustix::fs::OFlags;

use crate::script::pattern;

/// A program that works on a mount until it is refused, and looks for its work afterwards.
pub trait Load: std::fmt::Debug + Send {
    /// Makes what it needs below `root`.
    ///
    /// # Errors
    /// Of the calls.
    fn prepare(&mut self, root: &Path) -> io::Result<()>;

    /// Does one thing.
    ///
    /// # Errors
    /// Of the calls; all it knows stays true then.
    fn step(&mut self, root: &Path) -> io::Result<()>;

    /// Whether what it was promised is there.
    ///
    /// # Errors
    /// What is not.
    fn verify(&self, root: &Path) -> Result<(), String>;

    /// Takes what is there for what is durable: it was recovered.
    ///
    /// # Errors
    /// Of reading it.
    fn settle(&mut self, root: &Path) -> io::Result<()>;
}

/// Writes anywhere in a few files, and syncs them in several ways.
#[derive(Debug)]
pub struct Writer {
    directory: String,
    random: Random,
    version: u32,
    files: Vec<Written>,
}

#[derive(Debug, Default)]
struct Written {
    synced: Vec<u8>,
    /// Since then, in order: where, how much, and the pattern's tag.
    pending: Vec<(u64, usize, u32)>,
    len: u64,
}

const FILES: usize = 4;
const MOST_BYTES: u64 = 1 << 20;
const LONGEST_WRITE: u64 = 48 << 10;

impl Writer {
    /// Works in a directory of its own.
    pub fn new(number: u64, seed: u64) -> Self {
        let files = (0..FILES).map(|_| Written::default()).collect();
        Self { directory: format!("writer-{number}"), random: Random::new(seed), version: 0, files }
    }

    fn path(&self, root: &Path, number: usize) -> PathBuf {
        root.join(&self.directory).join(format!("file-{number}"))
    }
}

impl Written {
    fn is_synced(&mut self) {
        for (offset, len, tag) in self.pending.drain(..) {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            if self.synced.len() < at + len {
                self.synced.resize(at + len, 0);
            }
            self.synced[at..at + len].copy_from_slice(&pattern(tag, offset, len));
        }
    }

    fn verify(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() < self.synced.len() {
            return Err(format!("{} bytes of {} that were synced", bytes.len(), self.synced.len()));
        }
        let most = usize::try_from(self.len).unwrap_or(usize::MAX);
        if bytes.len() > most {
            return Err(format!("{} bytes, of which {most} were written", bytes.len()));
        }
        // Zero is what is behind the synced end before anything is written there.
        let mut wrong: Vec<bool> = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| self.synced.get(at).unwrap_or(&0) != byte)
            .collect();
        for (offset, len, tag) in &self.pending {
            let at = usize::try_from(*offset).unwrap_or(usize::MAX);
            let end = bytes.len().min(at + len);
            let Some(found) = bytes.get(at..end) else { continue };
            for (n, (found, written)) in found.iter().zip(pattern(*tag, *offset, *len)).enumerate()
            {
                wrong[at + n] &= *found != written;
            }
        }
        match wrong.iter().position(|wrong| *wrong) {
            None => Ok(()),
            Some(at) => {
                let count = wrong.iter().filter(|wrong| **wrong).count();
                let synced = self.synced.get(at);
                Err(format!(
                    "{count} bytes from {at} on are neither synced nor written since: {}, synced {synced:?}, {} writes pending",
                    bytes[at],
                    self.pending.len()
                ))
            }
        }
    }
}

impl Load for Writer {
    fn prepare(&mut self, root: &Path) -> io::Result<()> {
        fs::create_dir(root.join(&self.directory))?;
        for number in 0..FILES {
            File::create(self.path(root, number))?.sync_all()?;
        }
        Ok(())
    }

    fn step(&mut self, root: &Path) -> io::Result<()> {
        let number = usize::try_from(self.random.below(4)).unwrap_or(0);
        let path = self.path(root, number);
        let synchronous = self.random.below(5) == 0;
        let flags = if synchronous { OFlags::DSYNC } else { OFlags::empty() };
        let file = File::options()
            .write(true)
            .read(self.random.coin())
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        for _ in 0..=self.random.below(4) {
            self.version += 1;
            let len = 1 + self.random.below(LONGEST_WRITE);
            let written = &mut self.files[number];
            let offset = match self.random.below(3) {
                0 if written.len + len < MOST_BYTES => written.len,
                1 => self.random.below(MOST_BYTES - len) >> 12 << 12,
                _ => self.random.below(MOST_BYTES - len),
            };
            let len = usize::try_from(len).unwrap_or(0);
            written.pending.push((offset, len, self.version));
            written.len = written.len.max(offset + u64::try_from(len).unwrap_or(0));
            file.write_all_at(&pattern(self.version, offset, len), offset)?;
        }
        match self.random.below(4) {
            _ if synchronous => file.sync_data()?, // what was written before it
            0 => file.sync_data()?,
            1 => file.sync_all()?,
            _ => return Ok(()),
        }
        self.files[number].is_synced();
        Ok(())
    }

    fn verify(&self, root: &Path) -> Result<(), String> {
        for (number, written) in self.files.iter().enumerate() {
            let path = self.path(root, number);
            let told = |reason: String| format!("{}: {reason}", path.display());
            let bytes = fs::read(&path).map_err(|error| told(error.to_string()))?;
            written.verify(&bytes).map_err(told)?;
        }
        Ok(())
    }

    fn settle(&mut self, root: &Path) -> io::Result<()> {
        for number in 0..FILES {
            let bytes = fs::read(self.path(root, number))?;
            let len = u64::try_from(bytes.len()).unwrap_or(0);
            self.files[number] = Written { synced: bytes, pending: Vec::new(), len };
        }
        Ok(())
    }
}

/// Replaces a file by a new version of it, by rename.
#[derive(Debug)]
pub struct Replacer {
    directory: String,
    random: Random,
    /// How long each version is.
    lens: Vec<usize>,
    /// The last version that has to be there.
    durable: u32,
    /// Whether a version that was renamed without being synced is whole (`auto_da_alloc`); else all are synced first.
    is_whole_unsynced: bool,
}

impl Replacer {
    /// Works in a directory of its own.
    pub fn new(number: u64, seed: u64, is_whole_unsynced: bool) -> Self {
        let directory = format!("replacer-{number}");
        Self {
            directory,
            random: Random::new(seed),
            lens: Vec::new(),
            durable: 0,
            is_whole_unsynced,
        }
    }

    fn found(&self, root: &Path) -> Result<u32, String> {
        let path = root.join(&self.directory).join("file");
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let is = |(version, len): &(u32, &usize)| {
            **len == bytes.len() && pattern(*version, 0, **len) == bytes
        };
        let found = (0..).zip(&self.lens).find(is);
        found.map(|(version, _)| version).ok_or_else(|| {
            format!("{}: {} bytes that are no version of it", path.display(), bytes.len())
        })
    }
}

impl Load for Replacer {
    fn prepare(&mut self, root: &Path) -> io::Result<()> {
        let directory = root.join(&self.directory);
        fs::create_dir(&directory)?;
        self.lens.push(0);
        File::create(directory.join("file"))?.sync_all()
    }

    fn step(&mut self, root: &Path) -> io::Result<()> {
        let directory = root.join(&self.directory);
        let version = u32::try_from(self.lens.len()).unwrap_or(u32::MAX);
        // None is empty but the first.
        let len = usize::try_from(1 + self.random.below(40_000)).unwrap_or(1);
        self.lens.push(len);
        let mut file = File::create(directory.join("new"))?;
        file.write_all(&pattern(version, 0, len))?;
        if !self.is_whole_unsynced || self.random.coin() {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(directory.join("new"), directory.join("file"))?;
        if self.random.below(3) == 0 {
            File::open(&directory)?.sync_all()?;
            self.durable = version;
        }
        Ok(())
    }

    fn verify(&self, root: &Path) -> Result<(), String> {
        let found = self.found(root)?;
        match found >= self.durable {
            true => Ok(()),
            false => Err(format!(
                "{}: version {found}, though {} was synced",
                self.directory, self.durable
            )),
        }
    }

    fn settle(&mut self, root: &Path) -> io::Result<()> {
        self.durable = self.found(root).map_err(io::Error::other)?;
        Ok(())
    }
}

/// Makes, links, moves and removes names.
#[derive(Debug)]
pub struct Namer {
    directory: String,
    random: Random,
    names: BTreeMap<String, Named>,
}

/// What a name may stand for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum What {
    #[default]
    Nothing,
    File,
    Directory,
}

#[derive(Clone, Debug, Default)]
struct Named {
    durable: What,
    /// Since then, in order; the last is what it is now.
    since: Vec<What>,
}

impl Named {
    fn now(&self) -> What {
        self.since.last().copied().unwrap_or(self.durable)
    }
}

impl Namer {
    /// Works in a directory of its own.
    pub fn new(number: u64, seed: u64) -> Self {
        let directory = format!("namer-{number}");
        Self { directory, random: Random::new(seed), names: BTreeMap::new() }
    }

    fn name(&mut self) -> String {
        // Long ones fill blocks of the directory.
        format!("{}{}", "name-".repeat(20), self.random.below(200))
    }

    fn set(&mut self, name: &str, what: What) {
        self.names.entry(name.to_owned()).or_default().since.push(what);
    }

    fn now(&self, name: &str) -> What {
        self.names.get(name).map_or(What::Nothing, Named::now)
    }
}

impl Load for Namer {
    fn prepare(&mut self, root: &Path) -> io::Result<()> {
        let directory = root.join(&self.directory);
        fs::create_dir(&directory)?;
        File::open(directory)?.sync_all()
    }

    fn step(&mut self, root: &Path) -> io::Result<()> {
        let directory = root.join(&self.directory);
        let (one, two) = (self.name(), self.name());
        let (from, to) = (directory.join(&one), directory.join(&two));
        match (self.now(&one), self.now(&two), self.random.below(5)) {
            (What::Nothing, _, 0) => {
                self.set(&one, What::Directory);
                fs::create_dir(from)
            }
            (What::Nothing, _, choice) => {
                self.set(&one, What::File);
                let mut file = File::create(from)?;
                file.write_all(one.as_bytes())?;
                if choice > 1 {
                    return Ok(());
                }
                file.sync_all()?;
                self.names.insert(one, Named { durable: What::File, since: Vec::new() });
                Ok(())
            }
            (What::File, What::Nothing, 0) => {
                self.set(&two, What::File);
                fs::hard_link(from, to)
            }
            (what, What::Nothing, 1 | 2) => {
                self.set(&one, What::Nothing);
                self.set(&two, what);
                fs::rename(from, to)
            }
            (_, _, 3) => {
                File::open(directory)?.sync_all()?;
                for named in self.names.values_mut() {
                    *named = Named { durable: named.now(), since: Vec::new() };
                }
                Ok(())
            }
            (What::File, ..) => {
                self.set(&one, What::Nothing);
                fs::remove_file(from)
            }
            (What::Directory, ..) => {
                self.set(&one, What::Nothing);
                fs::remove_dir(from)
            }
        }
    }

    fn verify(&self, root: &Path) -> Result<(), String> {
        for (name, named) in &self.names {
            let found =
                what(&root.join(&self.directory).join(name)).map_err(|error| error.to_string())?;
            if found != named.durable && !named.since.contains(&found) {
                return Err(format!("{}/{name}: {found:?}, not {named:?}", self.directory));
            }
        }
        Ok(())
    }

    fn settle(&mut self, root: &Path) -> io::Result<()> {
        for (name, named) in &mut self.names {
            let durable = what(&root.join(&self.directory).join(name))?;
            *named = Named { durable, since: Vec::new() };
        }
        Ok(())
    }
}

fn what(path: &Path) -> io::Result<What> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(What::Directory),
        Ok(_) => Ok(What::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(What::Nothing),
        Err(error) => Err(error),
    }
}

/// Writes large files and removes them, without a sync.
#[derive(Debug)]
pub struct Bulk {
    directory: String,
    random: Random,
}

impl Bulk {
    /// Works in a directory of its own.
    pub fn new(number: u64, seed: u64) -> Self {
        Self { directory: format!("bulk-{number}"), random: Random::new(seed) }
    }
}

impl Load for Bulk {
    fn prepare(&mut self, root: &Path) -> io::Result<()> {
        let directory = root.join(&self.directory);
        fs::create_dir(&directory)?;
        File::open(directory)?.sync_all() // or it may be gone in its next life
    }

    fn step(&mut self, root: &Path) -> io::Result<()> {
        let path = root.join(&self.directory).join(self.random.below(12).to_string());
        if self.random.below(3) == 0 && fs::exists(&path)? {
            return fs::remove_file(path);
        }
        let mut file = File::options().append(true).create(true).open(path)?;
        let len = self.random.below(1 << 18);
        if file.metadata()?.len() > 3 << 20 {
            file.set_len(len)?;
        }
        file.write_all(&vec![7; usize::try_from(len).unwrap_or(0)])
    }

    fn verify(&self, _root: &Path) -> Result<(), String> {
        Ok(())
    }

    fn settle(&mut self, _root: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        let mut written = Written { len: 300, pending: vec![(0, 200, 1)], ..Written::default() };
        written.is_synced();
        written.pending.push((100, 200, 2));
        written
    }

    #[test]
    fn a_byte_is_as_synced_or_as_written_since() {
        let (old, new) = (pattern(1, 0, 200), pattern(2, 100, 200));
        assert_eq!(written().verify(&old), Ok(()));
        assert_eq!(written().verify(&[&old[..100], &new].concat()), Ok(()));
        assert_eq!(written().verify(&[&old[..], &[0; 50]].concat()), Ok(()));
        assert!(written().verify(&old[..199]).is_err(), "shorter than it was synced");
        assert!(
            written().verify(&[&old[..150], &[0; 50]].concat()).is_err(),
            "zeros over what was synced"
        );
        assert!(
            written().verify(&[&old[..], &[9; 50]].concat()).is_err(),
            "bytes that nobody wrote"
        );
        assert!(
            written().verify(&[&old[..], &[0; 101]].concat()).is_err(),
            "longer than it was written"
        );
    }

    #[test]
    fn a_lost_version_and_a_torn_one_are_found() {
        let scratch = extant_testkit::oracle::Scratch::new("loads");
        let root = scratch.path("");
        let mut replacer = Replacer::new(0, 1, true);
        replacer.prepare(&root).expect("a folder takes files");
        let file = root.join("replacer-0/file");
        while replacer.durable < 2 {
            replacer.step(&root).expect("a folder takes files");
        }
        let lens = &replacer.lens;
        replacer.verify(&root).expect("nothing happened to it");
        fs::write(&file, pattern(1, 0, lens[1])).expect("a file can be written");
        assert!(replacer.verify(&root).is_err(), "an old version");
        fs::write(&file, &pattern(replacer.durable, 0, 40_000)[1..])
            .expect("a file can be written");
        assert!(replacer.verify(&root).is_err(), "no version");
        fs::remove_file(&file).expect("a file can be removed");
        assert!(replacer.verify(&root).is_err(), "no file");
    }
}
