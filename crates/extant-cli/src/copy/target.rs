//! What takes the items of a stream, and makes files of them.

use extant::namespace::NodeKind;
use extant_format::{FileType, Timestamp};

use super::stream::{Entry, FileId};

/// A directory that is filled, and those below it as they are entered. Nothing is decided here: whoever calls has looked
/// at what is in the way.
pub trait Target {
    /// What has the name in the directory at hand, or what a symbolic link of that name leads to.
    fn find(&self, name: &[u8], follow: bool) -> anyhow::Result<Option<Found>>;
    /// Whether the directory at hand was made here, so that nothing in it is in the way.
    fn is_new(&self) -> bool;
    /// Makes a directory and enters it.
    fn make_directory(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Enters an existing directory; without a name, the one at hand once more.
    fn enter(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Leaves the directory entered last, and gives it its attributes.
    fn leave(&mut self) -> anyhow::Result<()>;
    /// Makes a regular file.
    fn make_file(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Opens an existing file, also through a symbolic link, and cuts it to nothing; what it has besides stays.
    fn overwrite(&mut self, entry: Entry) -> anyhow::Result<()>;
    /// Writes to the file opened last.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()>;
    /// Gives the file opened last its size and its attributes.
    fn close(&mut self, size: u64) -> anyhow::Result<()>;
    /// Removes the file opened last, if it was made here, for the rest of it will not come.
    fn abandon(&mut self) -> anyhow::Result<()>;
    /// Makes a symbolic link.
    fn make_symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()>;
    /// Makes a device file, a pipe or a socket.
    fn make_special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()>;
    /// Makes another name of the file with this link number.
    fn link(&mut self, name: &[u8], number: u32) -> anyhow::Result<()>;
    /// Takes what has this name for the file with this link number.
    fn keep(&mut self, name: &[u8], number: u32) -> anyhow::Result<()>;
    /// Removes what is no directory.
    fn remove(&mut self, name: &[u8]) -> anyhow::Result<()>;
}

/// A file that is in the way of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub id: FileId,
    pub kind: FileType,
    pub links: u32,
    pub modified: Timestamp,
    /// It must not be touched, for it is the image that is read.
    pub is_source: bool,
}

impl Found {
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}
