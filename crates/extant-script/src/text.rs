//! Scripts as text, both ways. `docs/scripts.md` is the reference.

use std::fmt;

use crate::{Allocation, Node, OpenFlag, Operation, SyncStep};

/// A script with the image that it wants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Script {
    /// What has to be there before it starts.
    pub settings: Settings,
    /// The operations, in order.
    pub steps: Vec<Step>,
}

/// What a script wants to run on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Bytes of the image.
    pub image_bytes: Option<u64>,
    /// Options for mke2fs.
    pub mkfs: Vec<String>,
    /// Mount options, with commas between.
    pub mount: String,
    /// Whether every block bitmap is read before the first operation.
    pub warm: bool,
    /// How many of the steps only prepare for the others.
    pub setup: usize,
}

/// One operation, and the line that it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Counted from 1.
    pub line: usize,
    /// What to do.
    pub operation: Operation,
}

/// A line that says nothing known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}: {text}")]
pub struct ScriptError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
    /// What it says.
    pub text: String,
}

impl Script {
    /// The script that `text` says. A write without a tag gets its place among the operations, from 1.
    ///
    /// # Errors
    /// The first line that is no operation, setting or comment.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let code = text.split('#').next().unwrap_or_default();
            for part in code.split(',').take(if is_setting(code) { 0 } else { usize::MAX }) {
                let words: Vec<&str> = part.split_whitespace().collect();
                if words.is_empty() {
                    continue;
                }
                let tag = u32::try_from(script.steps.len() + 1).unwrap_or(u32::MAX);
                let Some(operation) = operation(&words, tag) else {
                    let text = part.trim().to_owned();
                    return Err(ScriptError { line, reason: "no operation", text });
                };
                script.steps.push(Step { line, operation });
            }
            if is_setting(code) && script.set(code).is_none() {
                let text = code.trim().to_owned();
                return Err(ScriptError { line, reason: "no setting, or not here", text });
            }
        }
        Ok(script)
    }

    /// Takes a setting; all but `trace` come before the operations.
    fn set(&mut self, code: &str) -> Option<()> {
        let mut words = code.split_whitespace();
        let name = words.next()?;
        let settings = &mut self.settings;
        match name {
            "trace" if settings.setup == 0 => settings.setup = self.steps.len(),
            _ if !self.steps.is_empty() => return None,
            "image" => {
                settings.image_bytes = Some(number(words.next()?)?);
                settings.mkfs = words.by_ref().map(str::to_owned).collect();
            }
            "mount" => words.next()?.clone_into(&mut settings.mount),
            "warm" => settings.warm = true,
            _ => return None,
        }
        words.next().is_none().then_some(())
    }

    /// The operations alone.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.steps.iter().map(|step| &step.operation)
    }
}

fn is_setting(code: &str) -> bool {
    matches!(code.split_whitespace().next(), Some("image" | "mount" | "warm" | "trace"))
}

/// The operations that `text` says, for scripts that are part of the code.
///
/// # Panics
/// If the text is no script.
pub fn parse(text: &str) -> Vec<Operation> {
    let script = Script::parse(text).unwrap_or_else(|error| panic!("{error}"));
    script.steps.into_iter().map(|step| step.operation).collect()
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { image_bytes, mkfs, mount, warm, setup } = &self.settings;
        if let Some(bytes) = image_bytes {
            writeln!(f, "image {}", [&[bytes.to_string()], &mkfs[..]].concat().join(" "))?;
        }
        if !mount.is_empty() {
            writeln!(f, "mount {mount}")?;
        }
        if *warm {
            writeln!(f, "warm")?;
        }
        for (place, operation) in self.operations().enumerate() {
            if *setup > 0 && place == *setup {
                writeln!(f, "trace")?;
            }
            writeln!(f, "{operation}")?;
        }
        Ok(())
    }
}

fn operation(words: &[&str], tag: u32) -> Option<Operation> {
    let (words, tag) = match words {
        [words @ .., "tag", tag] => (words, tag.parse().ok()?),
        words => (words, tag),
    };
    let path = path(words.get(1).unwrap_or(&"/"))?;
    let other = || self::path(words.get(2)?);
    let number = |at: usize| self::number(words.get(at)?);
    let len = |at: usize| usize::try_from(number(at)?).ok();
    let octal = |word: &str| u16::from_str_radix(word, 8).ok();
    let mode = |default| words.get(2).map_or(Some(default), |word| octal(word));
    let name = || words.get(2).map(|name| (*name).to_owned());
    Some(match *words.first()? {
        "create" => Operation::Create { path, mode: mode(0o644)? },
        "open" => Operation::Open { path, flags: flags(&words[2..])? },
        "close" => Operation::Close { path },
        "write" => Operation::Write { path, offset: number(2)?, len: len(3)?, tag },
        "append" => Operation::Append { path, len: len(2)?, tag },
        "fill" => Operation::Fill { path, len: len(2)?, count: number(3)?, tag },
        "store" => Operation::Store { path, offset: number(2)? },
        "read" => Operation::Read { path, offset: number(2)?, len: len(3)? },
        "truncate" => Operation::Truncate { path, size: number(2)? },
        "fallocate" => {
            let word = words.get(4).unwrap_or(&"extend");
            let (mode, ..) = *Allocation::WORDS.iter().find(|known| known.1 == *word)?;
            Operation::Allocate { path, offset: number(2)?, len: number(3)?, mode }
        }
        "mkdir" => Operation::Mkdir { path, mode: mode(0o755)? },
        "symlink" => Operation::Symlink { target: path, path: other()? },
        "link" => Operation::Link { original: path, path: other()? },
        "mknod" => Operation::Mknod { path, node: node(&words[2..])?, mode: octal(words.last()?)? },
        "rename" => Operation::Rename { from: path, to: other()? },
        "unlink" => Operation::Unlink { path },
        "rmdir" => Operation::Rmdir { path },
        "xattr" => Operation::SetXattr { path, name: name()?, value: value(words.get(3)?)? },
        "unxattr" => Operation::RemoveXattr { path, name: name()? },
        "chmod" => Operation::Chmod { path, mode: octal(words.get(2)?)? },
        "chown" => {
            let id = |at: usize| u32::try_from(number(at)?).ok();
            Operation::Chown { path, uid: id(2)?, gid: id(3)? }
        }
        "times" => {
            let time = |at: usize| time(words.get(at)?);
            Operation::SetTimes { path, accessed: time(2)?, modified: time(3)? }
        }
        "journal-data" => Operation::JournalData { path, on: *words.get(2)? == "on" },
        "hold" => Operation::Hold { path },
        "release" => Operation::Release,
        "fsync" => Operation::Fsync { path },
        "fdatasync" => Operation::Fdatasync { path },
        "sync-range" => Operation::SyncRange {
            path,
            offset: number(2)?,
            len: number(3)?,
            steps: words[4..].iter().map(|word| sync_step(word)).collect::<Option<_>>()?,
        },
        "sync" => Operation::Sync,
        "seek-data" => Operation::SeekData { path, offset: number(2)? },
        "seek-hole" => Operation::SeekHole { path, offset: number(2)? },
        "fiemap" => Operation::Fiemap { path },
        "stat" => Operation::Stat { path },
        "statfs" => Operation::Statfs,
        "forget-status" => Operation::ForgetStatus { path },
        "drop-caches" => Operation::DropCaches { inodes: words.get(1) == Some(&"inodes") },
        "shutdown" => Operation::Shutdown { how: how(words.get(1))? },
        "tick" => Operation::Tick { seconds: number(1).filter(|by| *by <= LONGEST_TICK)? },
        "promise" => Operation::Promise { path },
        "remount" => Operation::Remount,
        _ => return None,
    })
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, mode } => write!(f, "create {} {mode:o}", Path(path)),
            Self::Open { path, flags } => {
                write!(f, "open {}", Path(path))?;
                let word = |flag: &OpenFlag| OpenFlag::WORDS.iter().find(|known| known.0 == *flag);
                flags.iter().filter_map(word).try_for_each(|known| write!(f, " {}", known.1))
            }
            Self::Close { path } => write!(f, "close {}", Path(path)),
            Self::Write { path, offset, len, tag } => {
                write!(f, "write {} {offset} {len} tag {tag}", Path(path))
            }
            Self::Append { path, len, tag } => write!(f, "append {} {len} tag {tag}", Path(path)),
            Self::Fill { path, len, count, tag } => {
                write!(f, "fill {} {len} {count} tag {tag}", Path(path))
            }
            Self::Store { path, offset } => write!(f, "store {} {offset}", Path(path)),
            Self::Read { path, offset, len } => write!(f, "read {} {offset} {len}", Path(path)),
            Self::Truncate { path, size } => write!(f, "truncate {} {size}", Path(path)),
            Self::Allocate { path, offset, len, mode } => {
                let known = Allocation::WORDS.iter().find(|known| known.0 == *mode);
                let word = known.map_or("extend", |known| known.1);
                write!(f, "fallocate {} {offset} {len} {word}", Path(path))
            }
            Self::SyncRange { path, offset, len, steps } => {
                write!(f, "sync-range {} {offset} {len}", Path(path))?;
                let word = |step: &SyncStep| SyncStep::WORDS.iter().find(|known| known.0 == *step);
                steps.iter().filter_map(word).try_for_each(|known| write!(f, " {}", known.1))
            }
            Self::SeekData { path, offset } => write!(f, "seek-data {} {offset}", Path(path)),
            Self::SeekHole { path, offset } => write!(f, "seek-hole {} {offset}", Path(path)),
            Self::DropCaches { inodes: true } => f.write_str("drop-caches inodes"),
            Self::Shutdown { how } => write!(f, "shutdown {how}"),
            Self::Tick { seconds } => write!(f, "tick {seconds}"),
            other => other.fmt_names(f),
        }
    }
}

impl Operation {
    /// The text of what is about names and attributes, or has a path alone.
    fn fmt_names(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, path) = match self {
            Self::Mkdir { path, mode } => return write!(f, "mkdir {} {mode:o}", Path(path)),
            Self::Symlink { target, path } => {
                return write!(f, "symlink {} {}", Path(target), Path(path));
            }
            Self::Link { original, path } => {
                return write!(f, "link {} {}", Path(original), Path(path));
            }
            Self::Mknod { path, node, mode } => {
                return match node {
                    Node::Character(a, b) => write!(f, "mknod {} c {a} {b} {mode:o}", Path(path)),
                    Node::Block(a, b) => write!(f, "mknod {} b {a} {b} {mode:o}", Path(path)),
                    Node::Fifo => write!(f, "mknod {} pipe {mode:o}", Path(path)),
                    Node::Socket => write!(f, "mknod {} socket {mode:o}", Path(path)),
                };
            }
            Self::Rename { from, to } => return write!(f, "rename {} {}", Path(from), Path(to)),
            Self::SetXattr { path, name, value } => {
                return write!(f, "xattr {} {name} ={}", Path(path), Escaped(value));
            }
            Self::RemoveXattr { path, name } => return write!(f, "unxattr {} {name}", Path(path)),
            Self::Chmod { path, mode } => return write!(f, "chmod {} {mode:o}", Path(path)),
            Self::Chown { path, uid, gid } => return write!(f, "chown {} {uid} {gid}", Path(path)),
            Self::SetTimes { path, accessed: (a, b), modified: (c, d) } => {
                return write!(f, "times {} {a}.{b:09} {c}.{d:09}", Path(path));
            }
            Self::JournalData { path, on } => {
                return write!(f, "journal-data {} {}", Path(path), if *on { "on" } else { "off" });
            }
            Self::Release => return f.write_str("release"),
            Self::Sync => return f.write_str("sync"),
            Self::Statfs => return f.write_str("statfs"),
            Self::DropCaches { .. } => return f.write_str("drop-caches"),
            Self::Remount => return f.write_str("remount"),
            Self::Unlink { path } => ("unlink", path),
            Self::Rmdir { path } => ("rmdir", path),
            Self::Hold { path } => ("hold", path),
            Self::Fsync { path } => ("fsync", path),
            Self::Fdatasync { path } => ("fdatasync", path),
            Self::Fiemap { path } => ("fiemap", path),
            Self::Stat { path } => ("stat", path),
            Self::Promise { path } => ("promise", path),
            Self::ForgetStatus { path } => ("forget-status", path),
            _ => unreachable!("Display has the others"),
        };
        write!(f, "{word} {}", Path(path))
    }
}

/// A path as one word; the root is `/`.
struct Path<'a>(&'a [u8]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("/") } else { Escaped(self.0).fmt(f) }
    }
}

/// Bytes as part of a word: what would end it, or does not print, as `\xNN`.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b',' | b'#' | b'\\' => write!(f, "\\x{byte:02x}"),
            _ if byte.is_ascii_graphic() => write!(f, "{}", char::from(byte)),
            _ => write!(f, "\\x{byte:02x}"),
        })
    }
}

fn path(word: &str) -> Option<Vec<u8>> {
    unescape(word.trim_start_matches('/'))
}

fn unescape(word: &str) -> Option<Vec<u8>> {
    let mut parts = word.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part[2..].bytes());
    }
    Some(bytes)
}

/// A number, also in units of 1024: `64K`, `10M`, `1G`.
fn number(word: &str) -> Option<u64> {
    let shift = match word.as_bytes().last()? {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => return word.parse().ok(),
    };
    word[..word.len() - 1].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A value of an attribute: `=TEXT`, or how many bytes `v`.
fn value(word: &str) -> Option<Vec<u8>> {
    match word.strip_prefix('=') {
        Some(text) => unescape(text),
        // One byte more than a value can have is too long as well.
        None => Some(vec![b'v'; usize::try_from(number(word)?.min(MOST_VALUE_BYTES + 1)).ok()?]),
    }
}

fn flags(words: &[&str]) -> Option<Vec<OpenFlag>> {
    let flag =
        |word: &&str| OpenFlag::WORDS.iter().find(|known| known.1 == *word).map(|known| known.0);
    words.iter().map(flag).collect()
}

fn sync_step(word: &str) -> Option<SyncStep> {
    SyncStep::WORDS.iter().find(|known| known.1 == word).map(|known| known.0)
}

fn node(words: &[&str]) -> Option<Node> {
    let number = |word: &str| word.parse().ok();
    Some(match *words {
        ["c", major, minor, _] => Node::Character(number(major)?, number(minor)?),
        ["b", major, minor, _] => Node::Block(number(major)?, number(minor)?),
        ["pipe", _] => Node::Fifo,
        ["socket", _] => Node::Socket,
        _ => return None,
    })
}

/// How a volume is shut down: at once, unless it is said.
fn how(word: Option<&&str>) -> Option<u32> {
    word.map_or(Some(2), |how| how.parse().ok())
}

fn time(word: &str) -> Option<(i64, u32)> {
    let (seconds, nanoseconds) = word.split_once('.')?;
    Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
}

/// Linux has no longer values of attributes.
const MOST_VALUE_BYTES: u64 = 64 << 10;
/// A year or so, in seconds; a clock that counts nanoseconds has room for some hundred of them.
const LONGEST_TICK: u64 = 1 << 25;

#[cfg(test)]
mod tests;
