//! Where everything lies: who uses which blocks of an image, told in runs and drawn in some thousand rectangles.
//!
//! [`survey`] passes once over descriptors, bitmaps and inode tables and tells a [`Visitor`] what it comes upon: [`Grid`] joins it
//! into cells with a share of each [`Kind`], [`FreeSpace`] measures what is free, [`Files`] keeps the files worth a look, [`Runs`]
//! lists who uses which run. [`picture`] draws the outcome as SVG or as a page that needs nothing else.
//!
//! # Invariants
//! Memory does not grow with the image but for [`Runs`], which its window bounds, and four bytes a directory for names. No work is done for
//! single blocks where there is a run. A picture has at most [`grid::MOST_CELLS`] cells of a few rectangles.
//! # Locking
//! None.
//! # Not here
//! Whether what is found fits together (`check`): a block with two owners is counted for both.
//! # Source
//! e2freefrag(8) for the measure of free space, filefrag(8) for what a fragment is; kernel `Documentation/filesystems/ext4/`
//! for which structures there are.

pub mod files;
pub mod free;
pub mod grid;
pub mod picture;
mod runs;
mod survey;
#[cfg(test)]
mod tests;

pub use files::{FileFound, Files};
pub use free::FreeSpace;
pub use grid::Grid;
pub use runs::{Run, Runs};
pub use survey::{Owner, Several, Visitor, survey};

/// What blocks are used for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Superblocks, descriptors and room for more of them.
    Descriptors,
    /// Block and inode bitmaps.
    Bitmaps,
    /// Inode tables.
    InodeTables,
    /// The journal.
    Journal,
    /// Names.
    Directories,
    /// Inner blocks of maps, and attributes.
    Maps,
    /// Bytes of files.
    Files,
    /// In use, by nobody that the survey knows.
    Other,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Descriptors,
        Self::Bitmaps,
        Self::InodeTables,
        Self::Journal,
        Self::Directories,
        Self::Maps,
        Self::Files,
        Self::Other,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "superblocks and descriptors",
            Self::Bitmaps => "bitmaps",
            Self::InodeTables => "inode tables",
            Self::Journal => "journal",
            Self::Directories => "directories",
            Self::Maps => "extent trees and attributes",
            Self::Files => "file contents",
            Self::Other => "other blocks in use",
        }
    }

    /// In one word, for styles and programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Bitmaps => "bitmaps",
            Self::InodeTables => "tables",
            Self::Journal => "journal",
            Self::Directories => "directories",
            Self::Maps => "maps",
            Self::Files => "files",
            Self::Other => "other",
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Descriptors => 0,
            Self::Bitmaps => 1,
            Self::InodeTables => 2,
            Self::Journal => 3,
            Self::Directories => 4,
            Self::Maps => 5,
            Self::Files => 6,
            Self::Other => 7,
        }
    }
}
