//! Whether what is seen after recovery is what the model allows.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use extant::Filesystem;
use extant_format::cast::u64_from;
use extant_format::crc::crc32c;
use extant_testkit::tree::{Entry, Tree};

use crate::script::model::{Model, Node, NodeKind, Promise, State, Version};
use crate::volume;

/// All that is seen of a recovered volume.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By path, without the root and `lost+found`.
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// The bytes of regular files, by path.
    pub bytes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// All of it, with the root and `lost+found`.
    pub tree: Tree,
}

/// Looks at everything.
///
/// # Errors
/// What cannot be read.
pub fn see(filesystem: &Filesystem) -> Result<Seen, String> {
    let tree = volume::tree(filesystem)?;
    let mut seen = Seen { tree: tree.clone(), ..Seen::default() };
    for (path, entry) in tree {
        let path = path.as_bytes().to_vec();
        if path.is_empty() || path == b"lost+found" {
            continue;
        }
        if entry.mode & 0xF000 == 0x8000 {
            let bytes = volume::read_all(filesystem, &path)
                .map_err(|error| format!("{}: {error}", show(&path)))?;
            seen.bytes.insert(path.clone(), bytes);
        }
        seen.entries.insert(path, entry);
    }
    Ok(seen)
}

/// Which bytes a file may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    /// Each byte may be of another version since the last that was synced.
    EachByte,
    /// All are of the moment that the tree is of, or as far as the next operation had come.
    OneMoment,
    /// Any: names and attributes alone are looked at.
    Any,
}

/// Checks that the tree is that of some moment from the promised one to the last begun operation, with the bytes that
/// belong there.
pub(super) fn check(
    model: &Model,
    promise: &Promise,
    begun: usize,
    seen: &Seen,
    rule: Rule,
) -> Result<(), String> {
    let mut reasons = Vec::new();
    // Later moments first: mostly it is the last.
    for moment in (promise.operations..=begun).rev() {
        let fits = check_names(&model.states[moment], seen).and_then(|()| match rule {
            Rule::EachByte => check_bytes(model, moment, promise, seen),
            Rule::Any => Ok(()),
            Rule::OneMoment => check_bytes(model, moment, promise, seen)
                .and_then(|()| check_moment(model, moment, begun, seen)),
        });
        match fits {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(format!("after operation {moment}: {reason}")),
        }
    }
    let looks_like = (0..model.states.len())
        .rev()
        .find(|moment| check_names(&model.states[*moment], seen).is_ok());
    let looks_like = looks_like
        .map_or("no moment at all".to_owned(), |moment| format!("after operation {moment}"));
    reasons.truncate(5);
    Err(format!(
        "after operation {} at least was promised, the tree is that of {looks_like}:\n  {}",
        promise.operations,
        reasons.join("\n  ")
    ))
}

/// Names, kinds, links, permissions and attributes.
fn check_names(state: &State, seen: &Seen) -> Result<(), String> {
    if let Some(extra) = seen.entries.keys().find(|path| !state.names.contains_key(*path)) {
        return Err(format!("{} is there", show(extra)));
    }
    for (path, id) in &state.names {
        let Some(entry) = seen.entries.get(path) else {
            return Err(format!("{} is missing", show(path)));
        };
        let wrong = |what: String| Err(format!("{}: {what}", show(path)));
        let node = &state.nodes[id];
        if entry.mode != mode_of(node) {
            return wrong(format!("mode {:o} instead of {:o}", entry.mode, mode_of(node)));
        }
        if entry.xattrs != node.xattrs {
            return wrong(format!(
                "attributes {:?} instead of {:?}",
                entry.xattrs.keys(),
                node.xattrs.keys()
            ));
        }
        if node.kind != NodeKind::Directory && entry.links != state.links(*id) {
            return wrong(format!("{} links instead of {}", entry.links, state.links(*id)));
        }
        if let NodeKind::Symlink(target) = &node.kind
            && (entry.size, entry.sum) != (u64_from(target.len()), crc32c(0, target))
        {
            return wrong("another target".to_owned());
        }
    }
    Ok(())
}

fn mode_of(node: &Node) -> u32 {
    let kind = match node.kind {
        NodeKind::File => 0x8000,
        NodeKind::Directory => 0x4000,
        NodeKind::Symlink(_) => 0xA000,
    };
    kind | u32::from(node.mode)
}

/// Every byte of every file is that of some version since the last that was synced, and nothing that was cut off by then
/// has come back.
fn check_bytes(model: &Model, moment: usize, promise: &Promise, seen: &Seen) -> Result<(), String> {
    for (path, id) in &model.states[moment].names {
        if let Some(bytes) = seen.bytes.get(path) {
            let synced = promise.versions.get(id).copied().unwrap_or(0);
            check_file(&model.versions[id][synced..], moment, bytes)
                .map_err(|reason| format!("{}: {reason}", show(path)))?;
        }
    }
    Ok(())
}

/// Every file has the bytes that it had at that moment; one that the next operation changes may have them in part.
fn check_moment(model: &Model, moment: usize, begun: usize, seen: &Seen) -> Result<(), String> {
    for (path, id) in &model.states[moment].names {
        let Some(bytes) = seen.bytes.get(path) else { continue };
        let versions = &model.versions[id];
        let now = versions.partition_point(|version| version.since <= moment);
        let old = &versions[now.saturating_sub(1)].bytes;
        let next = versions.get(now).filter(|next| next.since == moment + 1 && next.since <= begun);
        if bytes != old && !next.is_some_and(|next| is_partly(old, &next.bytes, bytes)) {
            return Err(format!("{}: {} bytes of another moment", show(path), bytes.len()));
        }
    }
    Ok(())
}

/// Whether `bytes` are what comes of changing `old` into `new` from front to back, as far as some block.
fn is_partly(old: &[u8], new: &[u8], bytes: &[u8]) -> bool {
    let same = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    // A cut, or growth without bytes, is one step.
    if bytes == new {
        return true;
    }
    let from = same(bytes, new);
    let blocks = (from / PIECE..=from / PIECE + 1).map(|block| block * PIECE);
    let mut ends = blocks.filter(|end| *end <= from);
    ends.any(|end| {
        let len = old.len().max(end);
        bytes.len() == len && bytes[end..] == old[end.min(old.len())..]
    })
}

/// The smallest block.
const PIECE: usize = 1024;

fn check_file(versions: &[Version], moment: usize, bytes: &[u8]) -> Result<(), String> {
    let lens = versions.iter().map(|version| version.bytes.len());
    let range = lens.clone().min().unwrap_or(0)..=lens.max().unwrap_or(0);
    if !range.contains(&bytes.len()) {
        return Err(format!("{} bytes instead of {range:?}", bytes.len()));
    }
    // A cut is metadata: where the tree is from after it, only what was written since may lie behind it.
    let cuts = versions.windows(2).enumerate().filter_map(|(older, pair)| {
        let cut = pair[1].bytes.len() < pair[0].bytes.len() && pair[1].since <= moment;
        cut.then_some((older + 1, pair[1].bytes.len()))
    });
    let cuts: Vec<(usize, usize)> = cuts.collect();
    let oldest = |at: usize| {
        cuts.iter().rev().find(|(_, end)| at >= *end).map_or(0, |(version, _)| *version)
    };
    let byte = |version: &Version, at: usize| version.bytes.get(at).copied().unwrap_or(0);
    let fits =
        |at: usize| versions[oldest(at)..].iter().any(|version| byte(version, at) == bytes[at]);
    match (0..bytes.len()).find(|at| !fits(*at)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} of {} is {:#x}; the {} versions since the last sync have {:?}, of which number {} is the oldest allowed",
            bytes.len(),
            bytes[at],
            versions.len(),
            versions.iter().map(|version| version.bytes.get(at)).collect::<Vec<_>>(),
            oldest(at)
        )),
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(bytes: &[&[u8]]) -> Vec<Version> {
        let version = |(since, bytes): (usize, &&[u8])| Version { since, bytes: bytes.to_vec() };
        (0..).zip(bytes).map(version).collect()
    }

    #[test]
    fn unsynced_bytes_are_new_old_or_zero() {
        let versions = versions(&[&[1, 1], &[2, 2, 2]]);
        for bytes in [&[1, 1][..], &[2, 1], &[1, 2, 2], &[1, 1, 0]] {
            assert_eq!(check_file(&versions, 1, bytes), Ok(()), "{bytes:?}");
        }
        for bytes in [&[1][..], &[0, 1], &[1, 1, 3], &[2, 2, 2, 2]] {
            assert!(check_file(&versions, 1, bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_write_that_was_cut_off_has_come_to_some_block() {
        let (old, new) = (vec![1; 3000], vec![2; 4000]);
        let partly = |blocks: usize| [&new[..blocks * 1024], &old[blocks * 1024..]].concat();
        assert!(is_partly(&old, &new, &new) && (0..3).all(|n| is_partly(&old, &new, &partly(n))));
        assert!(is_partly(&old, &new, &new[..3072]), "grown as far as it came");
        assert!(!is_partly(&old, &new, &[&new[..1000], &old[1000..]].concat()), "within a block");
        assert!(!is_partly(&old, &new, &[&old[..1024], &new[1024..3000]].concat()), "from behind");
        assert!(!is_partly(&old, &new, &new[..3500]), "a size in between");
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let versions = versions(&[&[1, 1, 1], &[1], &[1, 0, 0]]);
        assert_eq!(check_file(&versions, 0, &[1, 1, 1]), Ok(()));
        assert_eq!(check_file(&versions, 2, &[1, 0, 0]), Ok(()));
        assert!(check_file(&versions, 2, &[1, 1, 0]).is_err());
    }
}
