//! Kinds of files, in a mode and in a directory entry.

/// What kind of file it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A symbolic link.
    Symlink,
}

impl FileType {
    /// The bits of a mode that hold the type.
    pub const MODE_MASK: u16 = 0xF000;

    /// The type in a mode.
    pub const fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & Self::MODE_MASK {
            0x8000 => Self::Regular,
            0x4000 => Self::Directory,
            0x2000 => Self::CharacterDevice,
            0x6000 => Self::BlockDevice,
            0x1000 => Self::Fifo,
            0xC000 => Self::Socket,
            0xA000 => Self::Symlink,
            _ => return None,
        })
    }

    /// The bits of a mode that say so.
    pub const fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0x8000,
            Self::Directory => 0x4000,
            Self::CharacterDevice => 0x2000,
            Self::BlockDevice => 0x6000,
            Self::Fifo => 0x1000,
            Self::Socket => 0xC000,
            Self::Symlink => 0xA000,
        }
    }

    /// The type in a directory entry's byte; 0 says nothing.
    pub const fn from_entry(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::CharacterDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }

    /// The byte of a directory entry that says so.
    pub const fn entry_byte(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharacterDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}
