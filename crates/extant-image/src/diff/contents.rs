//! What is in the blocks of two files: bytes, names, or the journal.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use extant_format::jbd2::MAGIC;
use extant_format::{ExtentState, FileType, InodeNumber, InodeRecord, PhysicalBlock};

use super::groups::{around, first_difference, runs};
use super::inodes::Side;
use super::{Diff, Kind, fields};
use crate::reader::{MapRun, Reader};

/// Compares what two files hold, and takes their blocks.
pub(super) fn compare(
    diff: &mut Diff<'_, '_, '_>,
    number: InodeNumber,
    (a, left): (&Side, &InodeRecord),
    (b, right): (&Side, &InodeRecord),
) -> ControlFlow<()> {
    let is_journal = diff.left.superblock().journal_inode() == Some(number);
    if left.file_type() == Some(FileType::Directory) && right.file_type() == left.file_type() {
        names(diff, number, a, b)?;
        return claim_all(diff, number, a, b);
    }
    match is_journal {
        true => journal(diff, number, a, b)?,
        false => data(diff, number, (a, left), (b, right))?,
    }
    claim_all(diff, number, a, b)
}

/// Takes all blocks of both; what is in unwritten ones nobody sees.
fn claim_all(
    diff: &mut Diff<'_, '_, '_>,
    number: InodeNumber,
    a: &Side,
    b: &Side,
) -> ControlFlow<()> {
    for run in a.runs.iter().chain(&b.runs) {
        let taken = diff.claim(run.start.get(), run.blocks.len().into());
        if run.state == ExtentState::Written {
            continue;
        }
        for range in taken {
            let (x, y) = diff.blocks(range.start);
            let at = first_difference(&x, &y).unwrap_or(0);
            let what = format!("unwritten {}, byte {at} of the first", runs("block", range));
            diff.of(Kind::Unused, number, &what, (around(&x, at), around(&y, at)))?;
        }
    }
    ControlFlow::Continue(())
}

/// Blocks of both files at the same place in the file, as far as they can differ: where each lies, if it holds data.
fn pairs(
    diff: &Diff<'_, '_, '_>,
    a: &[MapRun],
    b: &[MapRun],
    visit: &mut dyn FnMut(u32, u32, Option<u64>, Option<u64>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut edges = BTreeSet::new();
    for run in a.iter().chain(b) {
        edges.extend([run.blocks.start().get(), run.blocks.end()]);
    }
    let edges: Vec<u32> = edges.into_iter().collect();
    for pair in edges.windows(2) {
        let [start, end] = *pair else { continue };
        let place = |runs: &[MapRun]| {
            let at = runs.partition_point(|run| run.blocks.end() <= start);
            let run = runs.get(at).filter(|run| run.blocks.start().get() <= start)?;
            let within = start.saturating_sub(run.blocks.start().get());
            (run.state == ExtentState::Written)
                .then(|| run.start.get().saturating_add(within.into()))
        };
        let (x, y) = (place(a), place(b));
        let len = end.saturating_sub(start);
        // The same place has the same bytes unless the devices differ there.
        if x.is_none() && y.is_none() || x == y && x.is_some_and(|at| !diff.differs(at, len.into()))
        {
            continue;
        }
        visit(start, len, x, y)?;
    }
    ControlFlow::Continue(())
}

/// Compares bytes of a regular file or a link; tells the first of each run that differ, and what is behind the end apart.
fn data(
    diff: &mut Diff<'_, '_, '_>,
    number: InodeNumber,
    (a, left): (&Side, &InodeRecord),
    (b, right): (&Side, &InodeRecord),
) -> ControlFlow<()> {
    let block = u64::from(diff.left.geometry().block_size);
    let end = left.size.max(right.size);
    let mut found: Vec<(Kind, u64, String, String)> = Vec::new();
    let _ = pairs(diff, &a.runs, &b.runs, &mut |start, len, x, y| {
        let mut in_run = false;
        for n in 0..u64::from(len) {
            let bytes = |reader: &Reader<'_>, at: Option<u64>| match at {
                Some(at) => {
                    reader.block(PhysicalBlock::new(at.saturating_add(n))).unwrap_or_default()
                }
                None => alloc::vec![0; reader.geometry().block_len()],
            };
            let (x, y) = (bytes(diff.left, x), bytes(diff.right, y));
            let Some(at) = first_difference(&x, &y) else {
                in_run = false;
                continue;
            };
            let offset = u64::from(start).saturating_add(n).saturating_mul(block);
            let at_byte = offset.saturating_add(extant_format::cast::u64_from(at));
            let kind = if at_byte < end { Kind::Data } else { Kind::Unused };
            if !in_run && found.len() < MOST_RUNS {
                found.push((kind, at_byte, around(&x, at), around(&y, at)));
            }
            in_run = true;
        }
        ControlFlow::Continue(())
    });
    for (kind, at, x, y) in found {
        let what = match kind {
            Kind::Data => format!("contents at byte {at}"),
            _ => format!("behind the end of file, byte {at}"),
        };
        diff.of(kind, number, &what, (x, y))?;
    }
    ControlFlow::Continue(())
}

/// Compares the journal: its superblock by fields, its log by blocks.
fn journal(
    diff: &mut Diff<'_, '_, '_>,
    number: InodeNumber,
    a: &Side,
    b: &Side,
) -> ControlFlow<()> {
    let mut places = Vec::new();
    let _ = pairs(diff, &a.runs, &b.runs, &mut |start, len, x, y| {
        places.push((start, len, x, y));
        ControlFlow::Continue(())
    });
    for (start, len, x, y) in places {
        for n in 0..u64::from(len) {
            let read = |reader: &Reader<'_>, at: Option<u64>| {
                let at = at.map(|at| PhysicalBlock::new(at.saturating_add(n)));
                at.and_then(|at| reader.block(at).ok()).unwrap_or_default()
            };
            let (one, other) = (read(diff.left, x), read(diff.right, y));
            let Some(at) = first_difference(&one, &other) else { continue };
            let log_block = u64::from(start).saturating_add(n);
            let is_superblock = log_block == 0 && one.starts_with(&MAGIC.to_be_bytes());
            let found = if is_superblock { fields::journals(&one, &other) } else { Vec::new() };
            for (name, x, y) in &found {
                diff.of(Kind::Journal, number, &format!("journal superblock: {name}"), (x, y))?;
            }
            if found.is_empty() {
                let what = format!("block {log_block} of the journal, byte {at}");
                diff.of(Kind::Journal, number, &what, (around(&one, at), around(&other, at)))?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Compares the names of two directories; if they are the same, how they are laid out.
fn names(diff: &mut Diff<'_, '_, '_>, number: InodeNumber, a: &Side, b: &Side) -> ControlFlow<()> {
    let (left, right) = (listed(diff.left, number), listed(diff.right, number));
    let all: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let mut told = false;
    for name in all {
        let (one, other) = (left.get(name), right.get(name));
        if one == other {
            continue;
        }
        told = true;
        let shown = |entry: Option<&(InodeNumber, Option<FileType>)>| match entry {
            None => "no such name".to_string(),
            Some((inode, kind)) => match kind {
                Some(kind) => format!("{inode}, {kind:?}").to_lowercase(),
                None => format!("{inode}"),
            },
        };
        let what = format!("name {}", String::from_utf8_lossy(name).escape_debug());
        diff.of(Kind::Name, number, &what, (shown(one), shown(other)))?;
    }
    if told {
        return ControlFlow::Continue(());
    }
    let mut blocks = Vec::new();
    let _ = pairs(diff, &a.runs, &b.runs, &mut |start, len, x, y| {
        blocks.extend((0..u64::from(len)).map(|n| {
            let at = |place: Option<u64>| place.map(|place| place.saturating_add(n));
            (u64::from(start).saturating_add(n), at(x), at(y))
        }));
        ControlFlow::Continue(())
    });
    for (logical, x, y) in blocks {
        let read = |reader: &Reader<'_>, at: Option<u64>| {
            at.and_then(|at| reader.block(PhysicalBlock::new(at)).ok()).unwrap_or_default()
        };
        let (one, other) = (read(diff.left, x), read(diff.right, y));
        if let Some(at) = first_difference(&one, &other) {
            let what = format!("layout of block {logical} of the directory, byte {at}");
            diff.of(Kind::Name, number, &what, (around(&one, at), around(&other, at)))?;
        }
    }
    ControlFlow::Continue(())
}

/// Names, and what they lead to, as far as they can be read.
fn listed(
    reader: &Reader<'_>,
    number: InodeNumber,
) -> BTreeMap<Vec<u8>, (InodeNumber, Option<FileType>)> {
    let mut found = BTreeMap::new();
    // What makes no sense is found by its bytes.
    let _ = reader.names(number, &mut |entry| {
        if let Some(inode) = entry.inode {
            found.insert(entry.name.to_vec(), (inode, entry.file_type));
        }
        true
    });
    found
}

/// The most runs of one file that are told one by one.
const MOST_RUNS: usize = 1000;
