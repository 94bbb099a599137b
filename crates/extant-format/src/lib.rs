//! ext4 and jbd2 on disk: bytes to checked types and back, checksums, hashes, block numbers.
//!
//! Everything is a view over byte slices: no I/O, no allocation, no copies but of single entries. What a decoder lets
//! through was checked; what it refuses is a [`Corruption`] (a broken rule, and where) or an [`Unsupported`] (a feature
//! that this crate lacks). Sums on numbers from disk are checked; those on numbers that a [`Geometry`] has bounded
//! saturate, which then never happens.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

pub mod bitmap;
mod bytes;
pub mod cast;
pub mod corruption;
pub mod crc;
pub mod descriptor;
pub mod directory;
pub mod extent;
pub mod fast_commit;
pub mod features;
pub mod file_type;
pub mod geometry;
pub mod hash;
pub mod htree;
pub mod indirect;
pub mod inline;
pub mod inode;
pub mod jbd2;
pub mod mmp;
pub mod numbers;
pub mod orphan;
pub mod quota;
pub mod superblock;
pub mod timestamp;
pub mod xattr;

pub use corruption::{Corruption, DoesNotFit, FormatError, Place, Rule, Unsupported};
pub use descriptor::GroupDescriptor;
pub use extent::{Extent, ExtentState};
pub use features::{Compat, Incompat, RoCompat};
pub use file_type::FileType;
pub use geometry::Geometry;
pub use inode::{InodeFlags, InodeRecord};
pub use numbers::*;
pub use superblock::{RawSuperblock, Superblock};
pub use timestamp::Timestamp;
