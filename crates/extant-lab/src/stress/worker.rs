//! One thread: calls at random, each noted in the file's history, and what is read checked against it.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use extant::{Error, File, RangeChange};
use extant_format::cast::u64_from;
use extant_script::Operation;
use extant_testkit::Random;

use super::history::{MOST_WORDS, Rule, WORD, bytes, read_words};
use super::{RULES, Scene, opening};

/// The longest write or read, in words.
const MOST_AT_ONCE: u64 = 8192;
/// What goes past the cache is whole of so many words: a sector.
const SECTOR_WORDS: u64 = 512 / WORD;

/// The name of a shared file.
pub(super) fn name(number: usize) -> Vec<u8> {
    format!("shared-{number}").into_bytes()
}

/// What words of a shared file carry.
pub(super) fn mark(number: usize) -> u8 {
    u8::try_from(number).expect("few files") + 1
}

/// One of the threads.
pub(super) struct Worker<'a> {
    scene: &'a Scene,
    number: usize,
    random: Random,
}

/// A shared file, open in each way.
struct Open {
    number: usize,
    cached: File,
    uncached: File,
    direct: File,
}

/// How a file is read.
#[derive(Clone, Copy, Debug)]
enum Way {
    Cached,
    Uncached,
    Direct,
}

impl<'a> Worker<'a> {
    pub(super) fn new(scene: &'a Scene, number: usize, seed: u64) -> Self {
        Self { scene, number, random: Random::new(seed) }
    }

    /// Calls until it is told to stop.
    ///
    /// # Errors
    /// What is not as it has to be.
    pub(super) fn run(mut self) -> Result<(), String> {
        let filesystem = &self.scene.volume.0.filesystem;
        let mut files = Vec::new();
        for number in 0..RULES.len() {
            let open = |options| {
                filesystem
                    .open_with(name(number), options)
                    .map_err(|error| format!("open: {error}"))
            };
            files.push(Open {
                number,
                cached: open(opening())?,
                uncached: open(opening().uncached(true))?,
                direct: open(opening().direct(true))?,
            });
        }
        while !self.scene.stop.load(Ordering::Acquire) {
            if self.random.below(8) == 0 {
                self.around()?;
            } else {
                let number = self.index(files.len());
                let file = &files[number];
                match RULES[number] {
                    Rule::Moving => self.move_ranges(file)?,
                    _ => self.change(file)?,
                }
            }
            self.scene.operations.fetch_add(1, Ordering::Relaxed);
        }
        self.note("ended".into());
        Ok(())
    }

    fn note(&self, what: String) {
        let mut slot = self.scene.doing[self.number].lock().unwrap_or_else(PoisonError::into_inner);
        *slot = (Instant::now(), what);
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.random.below(u64_from(len))).expect("below a length")
    }

    /// Words near an edge that matters, more often than not.
    fn words(&mut self, unit: u64) -> Range<u64> {
        let pages = MOST_WORDS / 512;
        let start = match self.random.below(3) {
            0 => self.random.below(pages) * 512,
            1 => self.random.below(16) * 512 + self.random.below(512),
            _ => self.random.below(MOST_WORDS),
        } / unit
            * unit;
        let len = match self.random.below(4) {
            0 => 1 + self.random.below(64),
            1 => 512 * (1 + self.random.below(4)),
            2 => 1 + self.random.below(1024),
            _ => 1 + self.random.below(MOST_AT_ONCE),
        };
        let end = (start + len).next_multiple_of(unit).min(MOST_WORDS);
        start..end
    }

    fn change(&mut self, file: &Open) -> Result<(), String> {
        // Which of the ways meet in the files with exact rules.
        let (stores, direct) = (file.number != 1, file.number != 0);
        match self.random.below(24) {
            0..5 => self.write(file, false),
            5..8 if direct => self.write(file, true),
            8..11 if stores => self.store(file),
            5..11 => self.write(file, false),
            11..14 => self.read_by_memory(file),
            14 if direct => self.read(file, Way::Direct),
            15 => self.truncate(file),
            16 => self.zero(file, RangeChange::PunchHole),
            17 => {
                let keep_size = self.random.coin();
                self.zero(file, RangeChange::Zero { keep_size })
            }
            18 | 19 => {
                let keep_size = self.random.coin();
                self.allocate(file, keep_size)
            }
            20 => self.sync(file),
            21 => self.look(file),
            _ => self.read_by_memory(file),
        }
    }

    fn write(&mut self, file: &Open, direct: bool) -> Result<(), String> {
        let words = self.words(if direct { SECTOR_WORDS } else { 1 });
        let scene = self.scene;
        let (history, tag) = (&scene.histories[file.number], scene.moments.tag());
        self.note(format!("write {tag} of file {}, words {words:?}, direct {direct}", file.number));
        let data = bytes(mark(file.number), tag, words.clone());
        let how = if direct { "direct write" } else { "write" };
        let begun = history.begin(&scene.moments, how, Some(tag), words.clone());
        let through = if direct { &file.direct } else { &file.cached };
        let done = through.write_at(&data, words.start * WORD);
        let count = done.as_ref().map_or(0, |count| u64_from(*count) / WORD);
        let sure = words.start..words.start + count;
        // Past the cache a part may have got there that was not counted.
        let may = if direct { words } else { sure.clone() };
        history.end(&scene.moments, begun, sure, may);
        allow_no_space(done.map(drop), "write")
    }

    fn store(&mut self, file: &Open) -> Result<(), String> {
        let words = self.words(1);
        let words = words.start..words.end.min(words.start + 100);
        let scene = self.scene;
        let (history, tag) = (&scene.histories[file.number], scene.moments.tag());
        self.note(format!("store {tag} in file {}, words {words:?}", file.number));
        let data = bytes(mark(file.number), tag, words.clone());
        let begun = history.begin(&scene.moments, "store", Some(tag), words.clone());
        let done = file.cached.store_at(&data, words.start * WORD);
        let count = done.as_ref().map_or(0, |count| u64_from(*count) / WORD);
        let stored = words.start..words.start + count;
        history.end(&scene.moments, begun, stored.clone(), stored);
        match done {
            Err(Error::Invalid(_)) => Ok(()), // behind the end of file
            done => allow_no_space(done.map(drop), "store"),
        }
    }

    fn read_by_memory(&mut self, file: &Open) -> Result<(), String> {
        let way = if self.random.coin() { Way::Cached } else { Way::Uncached };
        self.read(file, way)
    }

    fn read(&mut self, file: &Open, way: Way) -> Result<(), String> {
        let words = self.words(if matches!(way, Way::Direct) { SECTOR_WORDS } else { 1 });
        self.note(format!("read file {}, words {words:?}, {way:?}", file.number));
        let len = usize::try_from((words.end - words.start) * WORD).expect("it is short");
        let (mut buffer, begin) = (vec![0xEE; len], self.scene.moments.now());
        let through = match way {
            Way::Cached => &file.cached,
            Way::Uncached => &file.uncached,
            Way::Direct => &file.direct,
        };
        let done = through.read_at(&mut buffer, words.start * WORD);
        let count = done.map_err(|error| format!("read: {error}"))?;
        let found = read_words(&buffer[..count]);
        let history = &self.scene.histories[file.number];
        history
            .check(&self.scene.moments, begin, words.start, &found)
            .map_err(|reason| format!("read ({way:?}) begun at {begin}: {reason}"))
    }

    fn truncate(&mut self, file: &Open) -> Result<(), String> {
        let at = if self.random.below(4) == 0 { 0 } else { self.words(1).start };
        let scene = self.scene;
        self.note(format!("truncate file {} to {at} words", file.number));
        let history = &scene.histories[file.number];
        let begun = history.begin(&scene.moments, "truncate", None, at..MOST_WORDS);
        let done = file.cached.set_len(at * WORD);
        let sure = if done.is_ok() { at..MOST_WORDS } else { at..at };
        history.end(&scene.moments, begun, sure, at..MOST_WORDS);
        allow_no_space(done, "truncate") // contents that leave an inode
    }

    fn zero(&mut self, file: &Open, change: RangeChange) -> Result<(), String> {
        let words = self.words(1);
        let scene = self.scene;
        self.note(format!("{change:?} in file {}, words {words:?}", file.number));
        let history = &scene.histories[file.number];
        let how = if change == RangeChange::PunchHole { "punch" } else { "zero" };
        let begun = history.begin(&scene.moments, how, None, words.clone());
        let len = (words.end - words.start) * WORD;
        let done = file.cached.change_range(change, words.start * WORD, len);
        let sure = if done.is_ok() { words.clone() } else { words.start..words.start };
        let is_refused = matches!(done, Err(Error::NotSupported(_)));
        history.end(&scene.moments, begun, sure.clone(), if is_refused { sure } else { words });
        if is_refused { Ok(()) } else { allow_no_space(done, "zero") }
    }

    fn allocate(&mut self, file: &Open, keep_size: bool) -> Result<(), String> {
        let words = self.words(1);
        self.note(format!("allocate in file {}, words {words:?}, keep {keep_size}", file.number));
        let change = RangeChange::Allocate { keep_size };
        let len = (words.end - words.start) * WORD;
        match file.cached.change_range(change, words.start * WORD, len) {
            Err(Error::NotSupported(_)) => Ok(()),
            done => allow_no_space(done, "allocate"),
        }
    }

    /// Takes ranges out of a file and pushes some in; and the rest.
    fn move_ranges(&mut self, file: &Open) -> Result<(), String> {
        let unit = self.scene.cluster / WORD;
        let words = self.words(unit);
        let (at, len) = (words.start * WORD, (words.end - words.start) * WORD);
        let change = match self.random.below(16) {
            0 => RangeChange::Collapse,
            1 => {
                let size = file.cached.metadata().map_err(|error| error.to_string())?.size;
                if size + len > MOST_WORDS * WORD {
                    return self.truncate(file);
                }
                RangeChange::Insert
            }
            2 => RangeChange::PunchHole,
            3 => return self.truncate(file),
            4..9 => return self.write(file, false),
            9 | 10 => return self.write(file, true),
            11 => return self.store(file),
            12 => return self.sync(file),
            _ => return self.read_by_memory(file),
        };
        self.note(format!("{change:?} in file {}, words {words:?}", file.number));
        match file.cached.change_range(change, at, len) {
            Err(Error::Invalid(_) | Error::NotSupported(_)) => Ok(()),
            done => allow_no_space(done, "shift"),
        }
    }

    fn sync(&mut self, file: &Open) -> Result<(), String> {
        self.note(format!("fsync file {}", file.number));
        let done =
            if self.random.coin() { file.cached.sync_all() } else { file.cached.sync_data() };
        done.map_err(|error| format!("fsync: {error}"))
    }

    fn look(&mut self, file: &Open) -> Result<(), String> {
        self.note(format!("look at file {}", file.number));
        let seen = match self.random.below(4) {
            0 => file.cached.extents().map(drop),
            1 => file.cached.seek_data(0).map(drop),
            2 => file.cached.metadata().map(drop),
            _ => {
                file.cached.inode().forget_status();
                Ok(())
            }
        };
        seen.map_err(|error| format!("look: {error}"))
    }

    /// What is about the whole volume, and a file of one's own, whose blocks others get later.
    fn around(&mut self) -> Result<(), String> {
        let volume = &self.scene.volume.0;
        match self.random.below(8) {
            0 => {
                self.note("tick".into());
                let seconds = [1, 6, 40][self.index(3)];
                let ticked = volume.try_apply(&Operation::Tick { seconds });
                ticked.map(drop).map_err(|error| format!("tick: {error}"))
            }
            1 if self.random.below(4) == 0 => {
                self.note("sync".into());
                volume.filesystem.sync_all().map_err(|error| format!("sync: {error}"))
            }
            2 | 3 => {
                self.note("drop caches".into());
                volume.filesystem.drop_caches();
                Ok(())
            }
            _ => self.use_own_file(),
        }
    }

    fn use_own_file(&mut self) -> Result<(), String> {
        let filesystem = &self.scene.volume.0.filesystem;
        let name = format!("own-{}", self.number);
        let (mark, tag) =
            (u8::try_from(100 + self.number % 100).expect("a byte"), self.scene.moments.tag());
        let words = 0..1 + self.random.below(MOST_AT_ONCE);
        self.note(format!("own file, {words:?} words"));
        let data = bytes(mark, tag, words);
        let file = match filesystem.open_with(&name, opening().create(true).truncate(true)) {
            Err(Error::NoSpace { .. } | Error::NoInodes) => return Ok(()),
            file => file.map_err(|error| format!("create: {error}"))?,
        };
        let written = match file.write_at(&data, 0) {
            Err(Error::NoSpace { .. }) => 0,
            written => written.map_err(|error| format!("write: {error}"))?,
        };
        match self.random.below(3) {
            0 => file.sync_all().map_err(|error| format!("fsync: {error}"))?,
            1 => filesystem.drop_caches(),
            _ => {}
        }
        let mut found = vec![0xEE; data.len()];
        let count = file.read_at(&mut found, 0).map_err(|error| format!("read: {error}"))?;
        if count != written || found[..count] != data[..count] {
            return Err(format!("{name}: {written} bytes written, {count} read, not all the same"));
        }
        if self.random.coin() {
            filesystem.remove_file(&name).map_err(|error| format!("unlink: {error}"))?;
        }
        Ok(())
    }
}

fn allow_no_space(done: Result<(), Error>, what: &str) -> Result<(), String> {
    match done {
        Ok(()) | Err(Error::NoSpace { .. }) => Ok(()),
        Err(error) => Err(format!("{what}: {error}")),
    }
}
