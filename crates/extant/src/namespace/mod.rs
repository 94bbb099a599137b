//! Names: directories on disk and in inodes, and the operations that change them.
mod directory;
mod name;
mod read_dir;
mod tree;

pub(crate) use directory::Hashing;
pub use read_dir::{DirCursor, Listed};

#[cfg(test)]
mod directory_tests;
