//! What a file system is for, which decides how large its blocks are and how many inodes it has.

/// A usage type of mke2fs, with what `mke2fs.conf` has for it where nothing else is installed.
///
/// Source: mke2fs(8), option `-T`; mke2fs.conf(5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// Up to 3 MiB.
    Floppy,
    /// Up to 512 MiB.
    Small,
    /// Up to 4 TiB.
    Default,
    /// Up to 16 TiB.
    Big,
    /// From 16 TiB on.
    Huge,
    /// Many small files.
    News,
    /// Few large files.
    LargeFile,
    /// Very few large files.
    LargeFile4,
}

impl Usage {
    /// Every type, by the name that mke2fs has for it.
    pub const NAMES: [(&str, Self); 8] = [
        ("floppy", Self::Floppy),
        ("small", Self::Small),
        ("default", Self::Default),
        ("big", Self::Big),
        ("huge", Self::Huge),
        ("news", Self::News),
        ("largefile", Self::LargeFile),
        ("largefile4", Self::LargeFile4),
    ];

    /// The type that a file system of so many bytes has if nobody says.
    pub fn of_size(bytes: u64) -> Self {
        const TIB: u64 = 1 << 40;
        match bytes >> 20 {
            0..3 => Self::Floppy,
            3..512 => Self::Small,
            _ if bytes < 4 * TIB => Self::Default,
            _ if bytes < 16 * TIB => Self::Big,
            _ => Self::Huge,
        }
    }

    /// Bytes in a block.
    pub fn block_size(self) -> u32 {
        match self {
            Self::Floppy | Self::Small => 1024,
            Self::Default
            | Self::Big
            | Self::Huge
            | Self::News
            | Self::LargeFile
            | Self::LargeFile4 => 4096,
        }
    }

    /// One inode for so many bytes.
    pub fn bytes_per_inode(self) -> u32 {
        match self {
            Self::Floppy => 8192,
            Self::Small | Self::News => 4096,
            Self::Default => 16384,
            Self::Big => 32768,
            Self::Huge => 65536,
            Self::LargeFile => 1 << 20,
            Self::LargeFile4 => 4 << 20,
        }
    }
}
