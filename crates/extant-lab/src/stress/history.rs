//! What was done to a file by many threads, and whether what is read can have come of it.
//!
//! Each word of eight bytes that is written names its file, its place and the write it comes from. A write or a change to
//! zeros lies between two moments. What is read of a word must come from one after which, as far as the moments tell, no
//! other was both begun and ended before the read.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use extant_format::cast::u64_from;

/// Bytes of a word, the unit of everything here.
pub(super) const WORD: u64 = 8;

/// How much can be said of what is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    /// All that moments tell.
    Exact,
    /// Only that a write put it there: what goes past the cache and what is stored through a mapping meet in no order.
    Origin,
    /// Only that a write to this file put it somewhere: ranges are taken out and pushed in.
    Moving,
}

/// The moments of a whole turn, and the writes' numbers.
#[derive(Debug)]
pub(super) struct Moments {
    now: AtomicU64,
    tags: AtomicU32,
}

impl Default for Moments {
    fn default() -> Self {
        Self { now: AtomicU64::new(1), tags: AtomicU32::new(1) }
    }
}

impl Moments {
    /// This moment, later than all before.
    pub(super) fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// A number for a write.
    pub(super) fn tag(&self) -> u32 {
        self.tags.fetch_add(1, Ordering::SeqCst)
    }
}

/// The word that `tag` writes at word `at` of `file`.
pub(super) fn word(file: u8, tag: u32, at: u64) -> u64 {
    (u64::from(tag) << 32) | (u64::from(file) << 24) | (at & 0xFF_FFFF)
}

/// The bytes that `tag` writes to these words.
pub(super) fn bytes(file: u8, tag: u32, words: Range<u64>) -> Vec<u8> {
    words.flat_map(|at| word(file, tag, at).to_le_bytes()).collect()
}

/// Whole words of what was read; what is missing at the end is zeros.
pub(super) fn read_words(bytes: &[u8]) -> Vec<u64> {
    let whole = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(whole).collect()
}

#[derive(Clone, Debug)]
struct Change {
    /// What was called.
    how: &'static str,
    /// `None`: zeros.
    tag: Option<u32>,
    /// Words that it may have changed.
    may: Range<u64>,
    /// Words that it has changed.
    sure: Range<u64>,
    begin: u64,
    /// `u64::MAX` while it goes on.
    end: u64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { how, tag, may, sure, begin, end } = self;
        write!(f, "{begin}..{end}: {how} {} of {sure:?}", tag.unwrap_or(0))?;
        if may == sure { Ok(()) } else { write!(f, ", perhaps {may:?}") }
    }
}

/// A change that goes on.
#[must_use]
#[derive(Debug)]
pub(super) struct Begun(usize);

/// One file's changes since all threads last stood still.
#[derive(Debug)]
pub(super) struct History {
    file: u8,
    rule: Rule,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The words when all stood still.
    base: Vec<u64>,
    changes: Vec<Change>,
    by_tag: HashMap<u32, usize>,
}

impl History {
    pub(super) fn new(file: u8, rule: Rule) -> Self {
        Self { file, rule, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a write of `words`, or that they become zeros, before it is asked for.
    pub(super) fn begin(
        &self,
        moments: &Moments,
        how: &'static str,
        tag: Option<u32>,
        words: Range<u64>,
    ) -> Begun {
        let mut inner = self.lock();
        let number = inner.changes.len();
        let (begin, sure) = (moments.now(), words.clone());
        inner.changes.push(Change { how, tag, may: words, sure, begin, end: u64::MAX });
        if let Some(tag) = tag {
            inner.by_tag.insert(tag, number);
        }
        Begun(number)
    }

    /// Notes that it is over: `sure` was changed, and nothing but `may`.
    pub(super) fn end(&self, moments: &Moments, begun: Begun, sure: Range<u64>, may: Range<u64>) {
        let mut inner = self.lock();
        let change = &mut inner.changes[begun.0];
        (change.sure, change.may, change.end) = (sure, may, moments.now());
    }

    /// All stand still, and the file holds `words`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn settle(&self, moments: &Moments, words: Vec<u64>) -> Result<(), String> {
        let reached = {
            let inner = self.lock();
            let changed = inner.changes.iter().map(|change| change.sure.end).max().unwrap_or(0);
            changed.max(u64_from(inner.base.len()))
        };
        let mut whole = words.clone();
        // Behind the end of file there are zeros, too.
        whole.resize(words.len().max(index(reached.min(MOST_WORDS))), 0);
        self.check(moments, moments.now(), 0, &whole)?;
        *self.lock() = Inner { base: words, ..Inner::default() };
        Ok(())
    }

    /// The words when all stood still.
    pub(super) fn base(&self) -> Vec<u64> {
        self.lock().base.clone()
    }

    /// Whether `words`, read from word `first` on by a call that began at `begin`, can have been there.
    ///
    /// # Errors
    /// Which word cannot, and why.
    pub(super) fn check(
        &self,
        moments: &Moments,
        begin: u64,
        first: u64,
        words: &[u64],
    ) -> Result<(), String> {
        let inner = self.lock();
        let mut at = 0;
        while at < words.len() {
            let tag = words[at] >> 32;
            let len = words[at..].iter().take_while(|word| **word >> 32 == tag).count();
            let run = first + u64_from(at)..first + u64_from(at + len);
            let told = |reason| {
                let near = inner.near(&run);
                format!("file {}: words {run:?} of write {tag}: {reason}{near}", self.file)
            };
            self.check_run(&inner, moments, begin, &run, &words[at..at + len]).map_err(told)?;
            at += len;
        }
        Ok(())
    }

    /// The same of words that all come from one write, or are zeros.
    fn check_run(
        &self,
        inner: &Inner,
        moments: &Moments,
        begin: u64,
        run: &Range<u64>,
        words: &[u64],
    ) -> Result<(), String> {
        let tag = u32::try_from(words[0] >> 32).expect("half a word");
        if tag == 0 {
            if let Some(word) = words.iter().find(|word| **word != 0) {
                return Err(format!("{word:#x} is no word of any write"));
            }
            return match self.rule {
                Rule::Exact => inner.check_zeros(begin, run),
                _ => Ok(()),
            };
        }
        if tag >= moments.tags.load(Ordering::SeqCst) {
            return Err("no such write".into());
        }
        for (at, found) in run.clone().zip(words) {
            let known = word(self.file, tag, if self.rule == Rule::Moving { *found } else { at });
            if *found != known {
                return Err(format!("word {at} is {found:#x}, of another file or place"));
            }
        }
        if self.rule == Rule::Moving {
            return Ok(());
        }
        let written = inner.by_tag.get(&tag).map(|number| &inner.changes[*number]);
        if let Some(written) = written
            && (run.start < written.may.start || run.end > written.may.end)
        {
            return Err(format!("it wrote {:?} alone", written.may));
        }
        if self.rule == Rule::Origin {
            return Ok(());
        }
        if written.is_none() {
            let base = inner.base.get(index(run.start)..index(run.end));
            if base != Some(words) {
                return Err("it had been overwritten long before".into());
            }
        }
        let end = written.map_or(0, |written| written.end);
        let newer = |change: &&Change| {
            change.begin > end && change.end < begin && !part(&change.sure, run).is_empty()
        };
        match inner.changes.iter().find(newer) {
            Some(newer) => Err(format!("{newer} came after its end at {end}, before {begin}")),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// The last changes to these words, a line each.
    fn near(&self, run: &Range<u64>) -> String {
        let touches =
            |change: &&Change| !part(&change.may, run).is_empty() || change.may.is_empty();
        let last: Vec<_> = self.changes.iter().rev().filter(touches).take(NEAR).collect();
        last.into_iter().rev().map(|change| format!("\n    {change}")).collect()
    }

    /// Whether zeros can be there.
    fn check_zeros(&self, begin: u64, run: &Range<u64>) -> Result<(), String> {
        let zeros_after = |moment: u64| {
            let zeros = self.changes.iter().filter(move |change| change.tag.is_none());
            zeros.filter(move |change| change.end > moment).map(|change| change.may.clone())
        };
        for written in self.changes.iter().filter(|change| change.tag.is_some()) {
            let lost = part(&written.sure, run);
            if written.end < begin
                && let Some(lost) = without(lost, zeros_after(written.begin)).first()
            {
                return Err(format!("{lost:?} of {written} are lost"));
            }
        }
        for left in without(run.clone(), zeros_after(0)) {
            if let Some(at) =
                left.clone().find(|at| self.base.get(index(*at)).is_some_and(|w| *w != 0))
            {
                return Err(format!("word {at} of before is lost, and nobody touched {left:?}"));
            }
        }
        Ok(())
    }
}

/// So many changes are told beside a failure.
const NEAR: usize = 16;

/// Words that a file of this suite has at most.
pub(super) const MOST_WORDS: u64 = (512 << 10) / WORD;

fn part(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// What is left of `range` without the others.
fn without(range: Range<u64>, others: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut left = vec![range];
    for other in others {
        let cut = |piece: Range<u64>| {
            [piece.start..piece.end.min(other.start), piece.start.max(other.end)..piece.end]
        };
        left = left.into_iter().flat_map(cut).filter(|piece| !piece.is_empty()).collect();
    }
    left.retain(|piece| !piece.is_empty());
    left
}

fn index(word: u64) -> usize {
    usize::try_from(word).expect("files of this suite are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(history: &History, moments: &Moments, words: Range<u64>) -> u32 {
        let tag = moments.tag();
        let begun = history.begin(moments, "write", Some(tag), words.clone());
        history.end(moments, begun, words.clone(), words);
        tag
    }

    fn zero(history: &History, moments: &Moments, words: Range<u64>) {
        let begun = history.begin(moments, "zero", None, words.clone());
        history.end(moments, begun, words.clone(), words);
    }

    fn read(history: &History, moments: &Moments, words: &[u64]) -> Result<(), String> {
        history.check(moments, moments.now(), 0, words)
    }

    #[test]
    fn the_last_of_several_writes_is_read() {
        let (history, moments) = (History::new(1, Rule::Exact), Moments::default());
        let old = write(&history, &moments, 0..4);
        let new = write(&history, &moments, 1..2);
        let word = |tag, at| word(1, tag, at);
        assert_eq!(read(&history, &moments, &[word(old, 0), word(new, 1)]), Ok(()));
        assert!(read(&history, &moments, &[word(old, 0), word(old, 1)]).is_err());
        assert!(read(&history, &moments, &[word(old, 1)]).is_err(), "another place");
        assert!(read(&history, &moments, &[super::word(2, old, 0)]).is_err(), "another file");
        assert!(read(&history, &moments, &[word(99, 0)]).is_err(), "no such write");
        assert!(read(&history, &moments, &[0]).is_err(), "lost");
    }

    #[test]
    fn what_overlaps_comes_in_any_order() {
        let (history, moments) = (History::new(1, Rule::Exact), Moments::default());
        let old = moments.tag();
        let begun = history.begin(&moments, "write", Some(old), 0..2);
        let new = write(&history, &moments, 0..2);
        history.end(&moments, begun, 0..2, 0..2);
        assert_eq!(read(&history, &moments, &[word(1, old, 0), word(1, new, 1)]), Ok(()));
        zero(&history, &moments, 1..2);
        assert_eq!(read(&history, &moments, &[word(1, old, 0), 0]), Ok(()));
        assert!(read(&history, &moments, &[word(1, old, 0), word(1, new, 1)]).is_err(), "zeroed");
        assert!(read(&history, &moments, &[0, 0]).is_err(), "word 0 was not");
    }

    #[test]
    fn what_was_there_before_stays_until_it_is_touched() {
        let (history, moments) = (History::new(1, Rule::Exact), Moments::default());
        let tag = write(&history, &moments, 0..3);
        let words: Vec<u64> = (0..3).map(|at| word(1, tag, at)).collect();
        history.settle(&moments, words.clone()).expect("they were written");
        assert_eq!(read(&history, &moments, &words), Ok(()));
        assert!(read(&history, &moments, &[0]).is_err());
        zero(&history, &moments, 0..1);
        assert_eq!(read(&history, &moments, &[0, words[1]]), Ok(()));
        assert!(history.settle(&moments, vec![0, words[1]]).is_err(), "word 2 was cut off");
        assert_eq!(history.settle(&moments, vec![0, words[1], words[2]]), Ok(()));
    }
}
