//! What a script can do, one step at a time.

/// One step of a script. Paths are bytes, relative to the root, which is the empty path.
///
/// An operation on a file that [`Operation::Open`] opened by the same path goes through that descriptor, whatever became
/// of the name since; on any other the file is opened for this operation alone.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Operation {
    /// Makes an empty file.
    Create { path: Vec<u8>, mode: u16 },
    /// Opens a file and keeps it open under this path.
    Open { path: Vec<u8>, flags: Vec<OpenFlag> },
    /// Closes what [`Self::Open`] opened.
    Close { path: Vec<u8> },
    /// Writes the pattern of `tag` to an existing file.
    Write { path: Vec<u8>, offset: u64, len: usize, tag: u32 },
    /// Writes the pattern of `tag` at the end of a file.
    Append { path: Vec<u8>, len: usize, tag: u32 },
    /// Writes `count` pieces of `len` bytes one after the other from the start, until one fails.
    Fill { path: Vec<u8>, len: usize, count: u64, tag: u32 },
    /// Stores one byte through a shared mapping.
    Store { path: Vec<u8>, offset: u64 },
    /// Reads.
    Read { path: Vec<u8>, offset: u64, len: usize },
    /// Cuts or extends a file.
    Truncate { path: Vec<u8>, size: u64 },
    /// Changes what blocks a file has.
    Allocate { path: Vec<u8>, offset: u64, len: u64, mode: Allocation },
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
    /// Sets or clears the flag by which a file's data goes through the journal.
    JournalData { path: Vec<u8>, on: bool },
    /// Opens a file and keeps it open, whatever becomes of its names.
    Hold { path: Vec<u8> },
    /// Closes all files that are held.
    Release,
    /// Makes a file or directory durable.
    Fsync { path: Vec<u8> },
    /// Makes a file's bytes durable.
    Fdatasync { path: Vec<u8> },
    /// Writes a range of a file's dirty pages, without metadata.
    SyncRange { path: Vec<u8>, offset: u64, len: u64, steps: Vec<SyncStep> },
    /// Makes everything durable.
    Sync,
    /// The next data at or after an offset.
    SeekData { path: Vec<u8>, offset: u64 },
    /// The next hole at or after an offset.
    SeekHole { path: Vec<u8>, offset: u64 },
    /// Where a file's blocks are.
    Fiemap { path: Vec<u8> },
    /// A file's size and blocks.
    Stat { path: Vec<u8> },
    /// Free blocks.
    Statfs,
    /// Forgets what is known of where a file's blocks are, but for delayed ones.
    ForgetStatus { path: Vec<u8> },
    /// Drops clean pages, and with `inodes` unused inodes.
    DropCaches { inodes: bool },
    /// Stops everything that changes the volume: 0 after a flush of all, 1 of the log, 2 at once.
    Shutdown { how: u32 },
    /// Lets so many seconds pass.
    Tick { seconds: u64 },
    /// Says that a crash from here on finds the file as it is now, or as it is at its next promise or, behind the last one,
    /// after any later step; does nothing.
    Promise { path: Vec<u8> },
    /// Unmounts and mounts again. Who runs the script does it, since the target is another one afterwards.
    Remount,
}

impl Operation {
    /// The file whose bytes or size it changes.
    pub(crate) fn written_path(&self) -> Option<&[u8]> {
        match self {
            Self::Write { path, .. }
            | Self::Append { path, .. }
            | Self::Fill { path, .. }
            | Self::Store { path, .. }
            | Self::Truncate { path, .. }
            | Self::Allocate { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The paths at which it changes something, or promises something.
    pub(crate) fn changed_paths(&self) -> Vec<&[u8]> {
        match self {
            Self::Create { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Symlink { path, .. }
            | Self::Link { path, .. }
            | Self::Mknod { path, .. }
            | Self::Unlink { path }
            | Self::Rmdir { path }
            | Self::SetXattr { path, .. }
            | Self::RemoveXattr { path, .. }
            | Self::Chmod { path, .. }
            | Self::Chown { path, .. }
            | Self::Promise { path } => vec![path],
            Self::Rename { from, to } => vec![from, to],
            Self::Open { path, flags }
                if flags.contains(&OpenFlag::Create) || flags.contains(&OpenFlag::Truncate) =>
            {
                vec![path]
            }
            _ => self.written_path().into_iter().collect(),
        }
    }

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

/// How [`Operation::Open`] opens, beside for reading and writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpenFlag {
    /// The file is made, and must not exist.
    Create,
    /// For reading only.
    Read,
    /// What is in it is dropped.
    Truncate,
    /// Every write goes to the end.
    Append,
    /// Past the page cache.
    Direct,
    /// Every write is durable when it returns.
    Sync,
}

impl OpenFlag {
    /// Every flag and its word.
    pub(crate) const WORDS: [(Self, &'static str); 6] = [
        (Self::Create, "create"),
        (Self::Read, "read"),
        (Self::Truncate, "truncate"),
        (Self::Append, "append"),
        (Self::Direct, "direct"),
        (Self::Sync, "sync"),
    ];
}

/// What [`Operation::Allocate`] does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocation {
    /// Blocks for holes; the file may grow.
    Extend,
    /// Blocks for holes; the size stays.
    KeepSize,
    /// A hole.
    Punch,
    /// Blocks that read as zeros; the file may grow.
    Zero,
    /// Blocks that read as zeros; the size stays.
    ZeroKeepSize,
    /// Takes the range out; what follows moves up.
    Collapse,
    /// A hole; what follows moves down.
    Insert,
}

impl Allocation {
    /// Every kind, its word, and its bits as fallocate(2) has them.
    pub(crate) const WORDS: [(Self, &'static str, u32); 7] = [
        (Self::Extend, "extend", 0),
        (Self::KeepSize, "keep-size", 1),
        (Self::Punch, "punch", 3),
        (Self::Zero, "zero", 0x10),
        (Self::ZeroKeepSize, "zero-keep-size", 0x11),
        (Self::Collapse, "collapse", 8),
        (Self::Insert, "insert", 0x20),
    ];
}

/// A step of [`Operation::SyncRange`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SyncStep {
    /// Waits for what is being written.
    Before,
    /// Starts writing.
    Write,
    /// Waits for it.
    After,
}

impl SyncStep {
    /// Every step, its word, and its bit as sync_file_range(2) has it.
    pub(crate) const WORDS: [(Self, &'static str, u32); 3] =
        [(Self::Before, "before", 1), (Self::Write, "write", 2), (Self::After, "after", 4)];
}
