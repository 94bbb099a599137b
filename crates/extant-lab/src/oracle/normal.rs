//! What two runs of the same thing may differ in, taken out of the events of both.
//!
//! - Noise: what other tasks, memory pressure, or caches of the kernel's outer layers decide.
//! - Numbers that are only names: inodes and transactions are numbered by first appearance.
//! - Folios: how large they are is up to the page cache; the pieces of a write are joined, and how many pages went is
//!   dropped.
//! - How many commits one `sync` takes, and which of two files' I/O ends first.
//! - Journal credits, and handles inside handles; the handle for a write's time, which depends on the clock's tick; how
//!   often an inode is stored within one operation.
//! - Runs: where the kernel walks block by block and the engine's events carry a run, the kernel's are folded. Only groups
//!   that say the same of each next block are; anything else stays, and is a difference.

use std::collections::HashMap;

use super::Seen;
use super::event::{Event, Stream};

/// The events as they are compared; `is_sync` tells whether a step is one.
pub fn normal(mut events: Vec<Seen>, is_sync: impl Fn(usize) -> bool) -> Vec<Seen> {
    join_commits(&mut events, is_sync);
    let mut inodes = Numbering::default();
    let mut transactions = Numbering::default();
    let mut kept: Vec<Seen> = events
        .into_iter()
        .filter(|seen| !is_noise(&seen.event))
        .map(|mut seen| {
            drop_fields(&mut seen.event);
            inodes.rename(&mut seen.event, &["ino", "dir", "orig_ino", "i_ino"], &["2"]);
            transactions.rename(&mut seen.event, &TRANSACTION_FIELDS, &["0"]);
            seen
        })
        .collect();
    drop_aborted_commits(&mut kept);
    // Each stream has an order of its own.
    kept.sort_by_key(|seen| seen.stream);
    sort_ends_of_io(&mut kept);
    drop_nested_handles(&mut kept);
    drop_timestamps(&mut kept);
    fold_runs(fold_gaps(fold_looks(join_folios(join_dropped(gather_stores(kept))))))
}

/// What is dropped of folios one after the other, as the ranges of the file that this comes to: the kernel drops whole
/// folios first, and then the parts of others.
fn join_dropped(events: Vec<Seen>) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::with_capacity(events.len());
    let is_drop = |seen: &Seen| seen.event.name.ends_with("invalidate_folio");
    let place = |seen: &Seen| {
        (seen.stream, seen.step, seen.event.name, seen.event.get("ino").map(str::to_owned))
    };
    for dropped in
        events.chunk_by(|one, next| is_drop(one) && is_drop(next) && place(one) == place(next))
    {
        if !is_drop(&dropped[0]) {
            joined.extend_from_slice(dropped);
            continue;
        }
        let mut ranges: Vec<_> = dropped
            .iter()
            .filter_map(|seen| {
                let number = |field| seen.event.number(field);
                let start = number("index")? * PAGE_BYTES + number("offset")?;
                Some(start..start + number("length")?)
            })
            .collect();
        ranges.sort_by_key(|range| range.start);
        for ranges in ranges.chunk_by(|one, next| one.end == next.start) {
            let mut seen = dropped[0].clone();
            let (start, end) = (ranges[0].start, ranges[ranges.len() - 1].end);
            seen.event.set("index", start / PAGE_BYTES);
            seen.event.set("offset", start % PAGE_BYTES);
            seen.event.set("length", end - start);
            joined.push(seen);
        }
    }
    joined
}

/// Fields that name a transaction.
const TRANSACTION_FIELDS: [&str; 4] = ["transaction", "tid", "t_tid", "i_sync_tid"];

/// What tells of a commit before the data that it waits for, and after.
const COMMIT_BEGINS: [&str; 3] =
    ["jbd2_start_commit", "jbd2_commit_locking", "jbd2_commit_flushing"];
const COMMIT_ENDS: [&str; 2] = ["jbd2_commit_logging", "jbd2_end_commit"];

/// Makes one commit of those that begin in one `sync`: which of the kernel's flusher, its workers and its commit thread is
/// first there is chance, so that what was written is one transaction or two.
fn join_commits(events: &mut Vec<Seen>, is_sync: impl Fn(usize) -> bool) {
    let of_journal = |seen: &Seen| seen.stream == Stream::Journal && is_sync(seen.step);
    let transaction = |seen: &Seen| seen.event.get("transaction").map(str::to_owned);
    let mut first: HashMap<usize, String> = HashMap::new(); // of each step
    let mut joined: HashMap<String, String> = HashMap::new();
    let starts = |seen: &&Seen| of_journal(seen) && seen.event.name == COMMIT_BEGINS[0];
    for seen in events.iter().filter(starts) {
        let Some(number) = transaction(seen) else { continue };
        let first = first.entry(seen.step).or_insert_with(|| number.clone());
        if *first != number {
            joined.insert(number, first.clone());
        }
    }
    if joined.is_empty() {
        return;
    }
    // Of each kind the first beginning and the last end stay.
    let mut last: HashMap<(usize, &str), usize> = HashMap::new();
    for (at, seen) in events.iter().enumerate().filter(|(_, seen)| of_journal(seen)) {
        last.insert((seen.step, seen.event.name), at);
    }
    let mut place = 0..;
    events.retain_mut(|seen| {
        let at = place.next();
        let is_later = transaction(seen).is_some_and(|number| joined.contains_key(&number));
        let number = &mut seen.event.fields;
        for (_, value) in number.iter_mut().filter(|(name, _)| TRANSACTION_FIELDS.contains(name)) {
            joined.get(value).into_iter().for_each(|first| value.clone_from(first));
        }
        if !of_journal(seen) {
            return true;
        }
        let name = seen.event.name;
        let is_last = || last.get(&(seen.step, name)).copied() == at;
        !(COMMIT_BEGINS.contains(&name) && is_later || COMMIT_ENDS.contains(&name) && !is_last())
    });
}

/// Folios are counted in these.
const PAGE_BYTES: i64 = 4096;

/// After a forced shutdown the kernel's thread goes through the motions of a commit that is aborted already.
fn drop_aborted_commits(events: &mut Vec<Seen>) {
    if let Some(at) = events.iter().position(|seen| seen.event.name == "ext4_shutdown") {
        let mut place = 0..;
        events.retain(|seen| place.next() < Some(at) || seen.stream != Stream::Journal);
    }
}

/// Puts the ends of I/O in the order of their files: each file has its own queue of them, and which is worked on first is chance.
///
/// Source: kernel `ext4_add_complete_io`, `ext4_do_flush_completed_IO`.
fn sort_ends_of_io(events: &mut [Seen]) {
    let Some(ends) = events
        .chunk_by_mut(|one, next| one.stream == next.stream)
        .find(|events| events[0].stream == Stream::EndOfIo)
    else {
        return;
    };
    let starts = |seen: &Seen| seen.event.name == "ext4_journal_start_reserved";
    let inode = |end: &[Seen]| end.iter().find_map(|seen| seen.event.get("ino").map(str::to_owned));
    let mut of_files: Vec<&[Seen]> = ends.chunk_by(|_, next| !starts(next)).collect();
    of_files.sort_by_cached_key(|end| inode(end));
    let sorted = of_files.concat();
    ends.clone_from_slice(&sorted);
}

/// Folds looks at blocks of which memory said already what they are, with nothing changed since: the kernel looks at each
/// block that a read or a write touches, and at all of a folio again if its blocks lie in pieces; the engine looks once at
/// each run. A second look at the same block of a hole stays: before a promise there are two.
fn fold_looks(events: Vec<Seen>) -> Vec<Seen> {
    let mut folded: Vec<Seen> = Vec::with_capacity(events.len());
    let mut known = Known::default();
    let mut events = events.into_iter().peekable();
    while let Some(seen) = events.next() {
        let is_look = seen.event.name == "ext4_es_lookup_extent_enter";
        let Some(exit) =
            events.next_if(|exit| is_look && exit.event.name == "ext4_es_lookup_extent_exit")
        else {
            known.take_in(&seen);
            folded.push(seen);
            continue;
        };
        let in_a_hole = exit.event.get("status").is_some_and(|status| status.starts_with('H'));
        let block = seen.event.number("lblk");
        if !known.covers(&seen, &exit) || in_a_hole && known.last == block {
            folded.push(seen);
            folded.push(exit.clone());
        }
        known.take_in(&exit);
        known.last = block;
    }
    folded
}

/// What looks and questions have told of one file's blocks, one after the other.
#[derive(Default)]
struct Known {
    place: Option<(Stream, usize, String)>,
    /// The block that was looked at last.
    last: Option<i64>,
    runs: Vec<(std::ops::Range<i64>, String, i64)>,
}

impl Known {
    /// Learns what an event says, or that what was known may have changed.
    fn take_in(&mut self, seen: &Seen) {
        let Seen { stream, step, event, .. } = seen;
        let place = event.get("ino").map(|ino| (*stream, *step, ino.to_owned()));
        let asks = match event.name {
            name if name.contains("_map_blocks_") => event.get("flags") == Some(""),
            name => ASKS.contains(&name),
        };
        if !asks || self.place != place {
            *self = Self { place, last: None, runs: Vec::new() };
        }
        self.runs.extend(run(event));
    }

    /// Whether a look tells nothing new.
    fn covers(&self, enter: &Seen, exit: &Seen) -> bool {
        let place = enter.event.get("ino").map(|ino| (enter.stream, enter.step, ino.to_owned()));
        let (Some(block), Some((told, state, place_of_0))) =
            (enter.event.number("lblk"), run(&exit.event))
        else {
            return false;
        };
        self.place == place
            && self.runs.iter().any(|(blocks, known, at)| {
                blocks.contains(&block)
                    && told.start <= blocks.start
                    && blocks.end <= told.end
                    && *known == state
                    && *at == place_of_0
            })
    }
}

/// Events of a question, which changes nothing.
const ASKS: [&str; 8] = [
    "ext4_es_lookup_extent_enter",
    "ext4_es_lookup_extent_exit",
    "ext4_es_cache_extent",
    "ext4_es_insert_extent",
    "ext4_es_find_extent_range_enter",
    "ext4_es_find_extent_range_exit",
    "ext4_ext_show_extent",
    "ext4_ext_handle_unwritten_extents",
];

/// The run of blocks that an event tells of: which, in what state, and where block 0 would be.
fn run(event: &Event) -> Option<(std::ops::Range<i64>, String, i64)> {
    let state = event.get("status")?.get(..1)?.to_owned();
    let (start, len) = (event.number("lblk")?, event.number("len")?);
    Some((start..start + len, state, event.number("pblk").map_or(0, |at| at - start)))
}

fn is_noise(event: &Event) -> bool {
    // The journal looks up its own blocks; the engine does so once, at the mount. How often a directory's blocks are
    // looked up depends on the cache of names, which the engine leaves to whoever mounts it.
    if event.get("ino") == Some("8")
        || event.get("ino") == Some("2") && event.name.starts_with("ext4_es_lookup_extent_")
    {
        return true;
    }
    match event.name {
        // The kernel's threads after a mount, its cache of inodes, its memory.
        "ext4_prefetch_bitmaps"
        | "ext4_lazy_itable_init"
        | "ext4_load_inode"
        | "ext4_drop_inode"
        | "ext4_release_folio" => true,
        "ext4_evict_inode" => event.get("nlink") != Some("0"),
        // When bitmaps come into memory is up to the cache.
        "ext4_read_block_bitmap_load"
        | "ext4_mb_bitmap_load"
        | "ext4_mb_buddy_bitmap_load"
        | "ext4_load_inode_bitmap" => true,
        // The first file that is opened after a mount leaves the mount point's path in the superblock.
        "ext4_journal_start_sb" => event.get("type") == Some("0"),
        // When metadata has gone home, and the log's tail can move, is up to the kernel's other threads.
        "jbd2_drop_transaction"
        | "jbd2_checkpoint"
        | "jbd2_update_log_tail"
        | "jbd2_write_superblock" => true,
        name => name.starts_with("ext4_es_shrink"),
    }
}

fn drop_fields(event: &mut Event) {
    let dropped: &[&str] = match event.name {
        "ext4_journal_start_sb" | "ext4_journal_start_inode" | "ext4_journal_start_reserved" => {
            &["blocks", "rsv_blocks", "revoke_creds"]
        }
        "ext4_writepages" => &["nr_to_write", "pages_skipped", "writeback_index"],
        "ext4_writepages_result" => &["pages_written", "pages_skipped", "writeback_index"],
        "ext4_da_write_folios_start" => &["start_pos", "next_pos", "nr_to_write"],
        "ext4_da_write_folios_end" => &["start_pos", "next_pos", "nr_to_write"],
        "ext4_sync_file_enter" => &["parent"],
        // What the caller's variable happened to hold.
        "ext4_ext_handle_unwritten_extents" => &["pblk"],
        "ext4_get_implied_cluster_alloc_exit" if event.get("ret") == Some("0") => &["pblk"],
        "jbd2_end_commit" => &["head"],
        _ => &[],
    };
    dropped.iter().for_each(|field| event.remove(field));
    // A hole and a delayed run have no place; after a split in three the kernel shows a filler.
    if event.get("status").is_some_and(|status| status.starts_with(['H', 'D'])) {
        event.remove("pblk");
    }
}

/// Numbers by first appearance.
#[derive(Default)]
struct Numbering(HashMap<String, usize>);

impl Numbering {
    fn rename(&mut self, event: &mut Event, fields: &[&str], fixed: &[&str]) {
        for (name, value) in &mut event.fields {
            if fields.contains(name) && !fixed.contains(&value.as_str()) {
                let next = self.0.len() + 1;
                *value = format!("#{}", self.0.entry(std::mem::take(value)).or_insert(next));
            }
        }
    }
}

/// Drops handles within handles, which are asked for and then join no transaction of their own; and what tells only of
/// handles.
fn drop_nested_handles(events: &mut Vec<Seen>) {
    let mut joins: HashMap<Stream, bool> = HashMap::new(); // whether the stream's next event but these is a joining
    let mut keep: Vec<bool> = Vec::with_capacity(events.len());
    for seen in events.iter().rev() {
        let joined = joins.insert(seen.stream, seen.event.name == "jbd2_handle_start");
        let is_start =
            matches!(seen.event.name, "ext4_journal_start_sb" | "ext4_journal_start_inode");
        keep.push(
            !seen.event.name.starts_with("jbd2_handle_") && (!is_start || joined == Some(true)),
        );
    }
    let mut keep = keep.into_iter().rev();
    events.retain(|_| keep.next() == Some(true));
}

/// Drops the handle that stores a write's time: there is none if the clock has not ticked since the last one.
fn drop_timestamps(events: &mut Vec<Seen>) {
    let mut keep = vec![true; events.len()];
    for (at, seen) in events.iter().enumerate() {
        let is_write = seen.event.name.ends_with("write_begin");
        let starts = events[..at]
            .iter()
            .rposition(|other| (other.stream, other.step) == (seen.stream, seen.step));
        if let Some(before) = starts.filter(|_| is_write)
            && events[before].event.name == "ext4_mark_inode_dirty"
            && let Some(start) = before.checked_sub(1)
            && events[start].event.name == "ext4_journal_start_inode"
            && events[start].event.get("type") == Some("1")
        {
            keep[start] = false;
            keep[before] = false;
        }
    }
    let mut keep = keep.into_iter();
    events.retain(|_| keep.next() == Some(true));
}

/// How often an inode is stored on the way is up to the engine, as only the last time counts: once for each operation, or end
/// of I/O, at its end.
fn gather_stores(events: Vec<Seen>) -> Vec<Seen> {
    let mut gathered: Vec<Seen> = Vec::with_capacity(events.len());
    let goes_on = |one: &Seen, next: &Seen| {
        one.stream == next.stream
            && match one.stream {
                Stream::EndOfIo => next.event.name != "ext4_journal_start_reserved",
                _ => one.step == next.step,
            }
    };
    for operation in events.chunk_by(goes_on) {
        let is_store = |seen: &&Seen| seen.event.name == "ext4_mark_inode_dirty";
        gathered.extend(operation.iter().filter(|seen| !is_store(seen)).cloned());
        let mut stores: Vec<Seen> = operation.iter().filter(is_store).cloned().collect();
        stores.sort_by_cached_key(|seen| seen.event.get("ino").map(str::to_owned));
        stores.dedup_by(|one, next| one.event == next.event);
        gathered.append(&mut stores);
    }
    gathered
}

/// Joins the pieces of one write: where one folio ends and the next one begins behind it.
fn join_folios(events: Vec<Seen>) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::with_capacity(events.len());
    let mut begun: Option<Event> = None; // how the pieces before this one ended
    for mut seen in events {
        if seen.event.name.ends_with("write_begin") && continues(joined.last(), &seen) {
            begun = joined.pop().map(|end| end.event);
            continue;
        }
        if seen.event.name.ends_with("write_end")
            && let Some(before) = begun.take_if(|before| before.name == seen.event.name)
        {
            for field in ["len", "copied"] {
                let sum = before.number(field).zip(seen.event.number(field)).map(|(a, b)| a + b);
                seen.event.set(field, sum.unwrap_or_default());
            }
            seen.event.set("pos", before.get("pos").unwrap_or_default());
        }
        joined.push(seen);
    }
    joined
}

/// Whether `begin` goes on with the write whose piece just ended.
fn continues(end: Option<&Seen>, begin: &Seen) -> bool {
    let Some(end) = end else { return false };
    let (of_end, of_begin) = (&end.event, &begin.event);
    let behind = of_end.number("pos").zip(of_end.number("copied")).map(|(pos, len)| pos + len);
    (end.stream, end.step) == (begin.stream, begin.step)
        && of_end
            .name
            .strip_suffix("_end")
            .is_some_and(|kind| of_begin.name == format!("{kind}_begin"))
        && of_end.get("ino") == of_begin.get("ino")
        && behind == of_begin.number("pos")
}

/// Folds questions about the later blocks of a gap in a block map, of which memory keeps nothing: the kernel asks again for
/// each block that a read touches, either up to the end of the read, which the answer for the first block told already, or
/// for one block at a time; and again for all of a folio whose blocks lie in pieces.
fn fold_gaps(events: Vec<Seen>) -> Vec<Seen> {
    let mut folded: Vec<Seen> = Vec::with_capacity(events.len());
    let mut before: Option<Gap> = None; // what the question before this one told
    let mut answered = Answered::default();
    let mut events = events.as_slice();
    while let Some((question, rest)) = events.split_first_chunk::<4>() {
        let found = Gap::of(question);
        if answered.again(&question[0], found.as_ref()) {
            events = rest;
            continue;
        }
        if let Some(told) = &mut before
            && found.is_none()
            && told.takes_in_known(question)
        {
            events = &events[2..];
            continue;
        }
        let (Some(told), Some(asked)) = (&mut before, &found) else {
            let len = if found.is_some() { question.len() } else { 1 };
            folded.extend_from_slice(&events[..len]);
            events = &events[len..];
            before = found;
            continue;
        };
        events = rest;
        if told.place != asked.place || !told.takes_in(asked) {
            folded.extend_from_slice(question);
            before = found;
            continue;
        }
        let [.., ask, answer] = folded.as_mut_slice() else { continue };
        answer.event.set("len", told.blocks.end - told.first);
        ask.event.set("len", told.asked - told.first);
    }
    folded.extend_from_slice(events);
    folded
}

/// The gaps that were told of one after the other, with nothing changed since.
#[derive(Default)]
struct Answered {
    gaps: Vec<Gap>,
    /// The block that was looked at last.
    last: Option<i64>,
}

impl Answered {
    /// Learns what the events from `first` on are, a question about a gap or not; whether it is one that was answered before,
    /// with a look at another block since: a second question about a block follows the first one before a promise.
    fn again(&mut self, first: &Seen, question: Option<&Gap>) -> bool {
        let Some(gap) = question else {
            let keeps = ASKS.contains(&first.event.name)
                || first.event.name.starts_with("ext4_ind_map_blocks_")
                    && first.event.get("flags") == Some("");
            if !keeps {
                *self = Self::default();
            } else if first.event.name == "ext4_es_lookup_extent_enter" {
                self.last = first.event.number("lblk");
            }
            return false;
        };
        let before = self.last.replace(gap.first);
        let is_told = self.gaps.iter().any(|told| {
            told.place == gap.place
                && told.first <= gap.blocks.start
                && gap.blocks.end <= told.blocks.end
        });
        let is_single = gap.asked == gap.first + 1;
        let again = is_told && is_single && before != Some(gap.first);
        if !again {
            self.gaps.push(gap.clone());
        }
        again
    }
}

/// Blocks of a block map that have no place, as one question was answered.
#[derive(Clone)]
struct Gap {
    place: (Stream, usize, Option<String>),
    /// The first block that was asked about.
    first: i64,
    /// The block that was asked about last, and the end of what is known.
    blocks: std::ops::Range<i64>,
    /// The end of what was asked about.
    asked: i64,
}

impl Gap {
    /// The gap that four events are a question about.
    fn of(question: &[Seen; 4]) -> Option<Self> {
        let place =
            |seen: &Seen| (seen.stream, seen.step, seen.event.get("ino").map(str::to_owned));
        let [look, unknown, ask, answer] = question.each_ref().map(|seen| &seen.event);
        let (block, len) = (answer.number("lblk")?, answer.number("len")?);
        let is_gap = look.name == "ext4_es_lookup_extent_enter"
            && unknown.name == "ext4_es_lookup_extent_exit"
            && unknown.number("found") == Some(0)
            && ask.name == "ext4_ind_map_blocks_enter"
            && ask.get("flags") == Some("")
            && answer.name == "ext4_ind_map_blocks_exit"
            && answer.number("ret") == Some(0)
            && [look, ask].iter().all(|event| event.number("lblk") == Some(block))
            && question.iter().all(|seen| place(seen) == place(&question[0]));
        let asked = block + ask.number("len")?;
        let blocks = block..block + len;
        is_gap.then(|| Self { place: place(&question[0]), first: block, blocks, asked })
    }

    /// Goes on with blocks that memory knows to be of the gap, if that is what the next two events tell.
    fn takes_in_known(&mut self, next: &[Seen]) -> bool {
        let [look, known, ..] = next else { return false };
        let place =
            |seen: &Seen| (seen.stream, seen.step, seen.event.get("ino").map(str::to_owned));
        let is_hole = known.event.name == "ext4_es_lookup_extent_exit"
            && known.event.get("status").is_some_and(|status| status.starts_with('H'));
        let Some((blocks, ..)) = run(&known.event) else { return false };
        let goes_on = is_hole
            && [look, known].iter().all(|seen| place(seen) == self.place)
            && look.event.number("lblk") == Some(self.blocks.start + 1)
            && blocks.start == self.blocks.start + 1
            && blocks.end <= self.blocks.end;
        if goes_on {
            self.blocks.start = blocks.end - 1;
        }
        goes_on
    }

    /// Goes on with the next block, if that is what the `next` question is about.
    fn takes_in(&mut self, next: &Self) -> bool {
        let is_known = self.blocks.end == next.blocks.end;
        let is_behind = self.blocks.end == next.blocks.start;
        let is_rest = self.asked == next.asked || next.blocks.start + 1 == next.asked;
        let goes_on =
            self.blocks.start + 1 == next.blocks.start && (is_known || is_behind) && is_rest;
        if goes_on {
            (self.blocks, self.asked) = (next.blocks.clone(), self.asked.max(next.asked));
        }
        goes_on
    }
}

/// Folds what the kernel says of adjacent blocks that become delayed into what the engine says of the run: both looks
/// at each, the promise, and the insertion.
fn fold_runs(events: Vec<Seen>) -> Vec<Seen> {
    let mut folded: Vec<Seen> = Vec::with_capacity(events.len());
    let mut events = events.as_slice();
    while let Some((seen, rest)) = events.split_first() {
        if let Some(len) = fold(&mut folded, events) {
            events = &events[len..];
        } else {
            folded.push(seen.clone());
            events = rest;
        }
    }
    folded
}

/// Takes the events of one more block into the run that `folded` ends with; how many they were.
fn fold(folded: &mut [Seen], next: &[Seen]) -> Option<usize> {
    // Blocks of a cluster that has its place or promise are promised nothing.
    let promises = matches!(folded, [.., promise, _] if promise.event.name == RESERVE);
    let (before, promise, run) = match folded {
        [before @ .., promise, run] if promises => (before, Some(promise), run),
        [before @ .., run] => (before, None, run),
        [] => return None,
    };
    // Between a look and the promise the map on disk may be asked about the cluster.
    let hole = before.iter().rfind(|seen| seen.event.name != "ext4_es_cache_extent")?;
    let (looks, rest) = next.split_first_chunk::<4>()?;
    let (promised, inserted, len) = match rest {
        [promised, inserted, ..] if promised.event.name == RESERVE => (Some(promised), inserted, 6),
        [inserted, ..] => (None, inserted, 5),
        [] => return None,
    };
    let names = looks.iter().map(|look| look.event.name.strip_prefix("ext4_es_lookup_extent_"));
    let same_place = |seen: &Seen| {
        (seen.stream, seen.step, seen.event.get("ino"))
            == (run.stream, run.step, run.event.get("ino"))
    };
    let is_run =
        run.event.name == "ext4_es_insert_delayed_extent" && inserted.event.name == run.event.name;
    let plain = |seen: &Seen| {
        seen.event.get("lclu_allocated") == Some("0")
            && seen.event.get("end_allocated") == Some("0")
    };
    if !names.eq(["enter", "exit", "enter", "exit"].map(Some))
        || !is_run
        || promise.is_none() && promised.is_some()
        || !next[..len].iter().all(same_place)
        || !plain(run)
        || !plain(inserted)
        || looks[0].event != looks[2].event
        || looks[1].event != looks[3].event
    {
        return None;
    }
    let number = |seen: &Seen, field| seen.event.number(field);
    let (start, count) = (number(run, "lblk")?, number(run, "len")?);
    let (block, end) = (start + count, number(hole, "lblk")? + number(hole, "len")?);
    let look = &looks[1].event;
    let is_next = looks[0].event.number("lblk") == Some(block)
        && look.get("status").is_some_and(|status| status.starts_with('H'))
        && look.number("lblk") == Some(block)
        && look.number("len").map(|len| len + block) == Some(end)
        && number(inserted, "lblk") == Some(block);
    if !is_next {
        return None;
    }
    if let (Some(promise), Some(promised)) = (promise, promised) {
        let sum = number(promise, "reserve_blocks")? + number(promised, "reserve_blocks")?;
        promise.event.set("reserve_blocks", sum);
        promise.event.set("reserved_data_blocks", number(promised, "reserved_data_blocks")?);
    }
    run.event.set("len", count + number(inserted, "len")?);
    Some(len)
}

/// A promise of room.
const RESERVE: &str = "ext4_da_reserve_space";

#[cfg(test)]
mod tests;
