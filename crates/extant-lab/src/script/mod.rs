//! Scripts: sequences of operations that the engine and the kernel both can run.
//!
//! What a write stores is decided by a tag and the place in the file, so that each byte on a device can be traced to the
//! write that it came from; no such byte is zero.

mod contents;
mod directory;
mod generate;
pub mod model;
mod text;

use std::fmt;

pub use contents::{Scale, Xattrs, contents};
pub use directory::DirectoryTarget;
pub use generate::{known_scripts, random_script};
pub use text::parse;

/// One step of a script. Paths are bytes, relative to the root, which is the empty path.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Operation {
    /// Makes an empty file.
    Create { path: Vec<u8>, mode: u16 },
    /// Writes the pattern of `tag` to an existing file.
    Write { path: Vec<u8>, offset: u64, len: usize, tag: u32 },
    /// Cuts or extends a file.
    Truncate { path: Vec<u8>, size: u64 },
    /// Makes a directory.
    Mkdir { path: Vec<u8>, mode: u16 },
    /// Makes a symbolic link.
    Symlink { target: Vec<u8>, path: Vec<u8> },
    /// Gives a file another name.
    Link { original: Vec<u8>, path: Vec<u8> },
    /// Makes a device file, a pipe or a socket.
    Mknod { path: Vec<u8>, node: Node, mode: u16 },
    /// Moves a name, over another if there is one.
    Rename { from: Vec<u8>, to: Vec<u8> },
    /// Removes a name of a file.
    Unlink { path: Vec<u8> },
    /// Removes an empty directory.
    Rmdir { path: Vec<u8> },
    /// Sets an extended attribute.
    SetXattr { path: Vec<u8>, name: String, value: Vec<u8> },
    /// Removes an extended attribute.
    RemoveXattr { path: Vec<u8>, name: String },
    /// Sets permissions.
    Chmod { path: Vec<u8>, mode: u16 },
    /// Sets owner and group.
    Chown { path: Vec<u8>, uid: u32, gid: u32 },
    /// Sets times of access and modification: seconds and nanoseconds.
    SetTimes { path: Vec<u8>, accessed: (i64, u32), modified: (i64, u32) },
    /// Opens a file and keeps it open, whatever becomes of its names.
    Hold { path: Vec<u8> },
    /// Closes all files that are kept open.
    Release,
    /// Makes a file or directory durable.
    Fsync { path: Vec<u8> },
    /// Makes everything durable.
    Sync,
    /// Lets so many seconds pass.
    Tick { seconds: u64 },
}

impl Operation {
    /// Whether only root may do it on a real directory.
    pub const fn needs_root(&self) -> bool {
        match self {
            Self::Mknod { node, .. } => matches!(node, Node::Character(..) | Node::Block(..)),
            Self::Chown { .. } => true,
            _ => false,
        }
    }
}

/// What [`Operation::Mknod`] makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// A character device of these numbers.
    Character(u32, u32),
    /// A block device of these numbers.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An errno, as the system numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// What a script can be run on.
pub trait Target {
    /// Does one operation.
    ///
    /// # Errors
    /// What the system call reports, or would.
    fn apply(&mut self, operation: &Operation) -> Result<(), Errno>;
}

/// Runs a whole script.
///
/// # Errors
/// The first operation that fails, and how.
pub fn run(target: &mut dyn Target, script: &[Operation]) -> Result<(), String> {
    script.iter().try_for_each(|operation| {
        target.apply(operation).map_err(|errno| format!("{operation:?}: {errno}"))
    })
}

/// The `len` bytes from `offset` on that `tag` writes.
pub fn pattern(tag: u32, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    let start = offset & !7;
    let mut word = start;
    while bytes.len() < len + 8 {
        bytes.extend(pattern_word(tag, word).to_le_bytes());
        word += 8;
    }
    let skip = usize::try_from(offset - start).expect("at most 7");
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

fn pattern_word(tag: u32, offset: u64) -> u64 {
    let mut mixed = (u64::from(tag) << 40) ^ offset;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) | 0x0101_0101_0101_0101
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let whole = pattern(7, 3, 100);
        assert_eq!(whole[40..60], pattern(7, 43, 20));
        assert_ne!(whole, pattern(8, 3, 100));
        assert!(whole.iter().all(|byte| *byte != 0));
    }
}
