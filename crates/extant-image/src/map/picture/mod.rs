//! A [`Grid`] as something to look at: an SVG ([`svg`]) or a page ([`page`]) that needs nothing but itself.
//!
//! # Invariants
//! Nothing in a picture comes from outside of it, and its names and numbers are escaped. All coordinates are whole numbers.
//! # Locking
//! None.
//! # Not here
//! What is drawn (`grid`, `files`, `free`).
//! # Source
//! The looks are our own.

mod draw;
mod page;
mod text;

use alloc::string::String;

use super::{FileFound, Files, FreeSpace, Grid};

pub use page::page;

/// What a picture shows.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The image's name.
    pub name: &'a str,
    /// The file system's label, if it has one.
    pub label: &'a str,
    /// What the blocks are used for.
    pub grid: &'a Grid,
    /// How free space is divided.
    pub free: &'a FreeSpace,
    /// Files to be looked at; those of a page.
    pub files: Option<&'a Files>,
    /// The one file whose place is shown, with its name.
    pub highlight: Option<(&'a str, &'a FileFound)>,
    /// Structures that could not be read.
    pub unreadable: u64,
}

/// A drawing of its own.
pub fn svg(picture: &Picture<'_>) -> String {
    draw::whole(picture)
}
