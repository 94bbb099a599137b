//! The blocks of a new directory.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::directory::{self, DirLayout, NewEntry};
use extant_format::{FileType, Geometry, InodeFlags, InodeNumber, Place, inode};

/// A name in a new directory.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) inode: InodeNumber,
    pub(super) file_type: FileType,
}

impl Name {
    pub(super) fn directory(name: &[u8], inode: InodeNumber) -> Self {
        Self { name: name.to_vec(), inode, file_type: FileType::Directory }
    }
}

/// The blocks of directory `number` of `parent` with these names, at least `least` blocks.
pub(super) fn blocks(
    geometry: &Geometry,
    number: InodeNumber,
    parent: InodeNumber,
    names: &[Name],
    least: usize,
) -> Vec<u8> {
    let layout = DirLayout::of(geometry, InodeFlags::empty());
    let mut blocks = vec![empty(geometry, layout, Some((number, parent)))];
    for name in names {
        let entry = NewEntry {
            name: &name.name,
            inode: name.inode,
            file_type: name.file_type,
            hash: (0, 0),
        };
        let insert = |block: &mut [u8]| {
            let added = directory::insert(block, layout, Place::Inode(number), &entry);
            matches!(added, Ok(Some(_)))
        };
        if blocks.last_mut().is_some_and(|last| insert(last)) {
            continue;
        }
        let mut block = empty(geometry, layout, None);
        assert!(insert(&mut block), "an empty block has room for any name");
        blocks.push(block);
    }
    while blocks.len() < least {
        blocks.push(empty(geometry, layout, None));
    }
    if geometry.has_metadata_csum() {
        let seed = inode::inode_seed(geometry.csum_seed, number, 0);
        blocks.iter_mut().for_each(|block| directory::set_checksum(block, seed));
    }
    blocks.concat()
}

fn empty(
    geometry: &Geometry,
    layout: DirLayout,
    first_of: Option<(InodeNumber, InodeNumber)>,
) -> Vec<u8> {
    let mut block = vec![0; geometry.block_len()];
    match first_of {
        Some((number, parent)) => directory::init_with_dots(&mut block, layout, number, parent),
        None => directory::init(&mut block, layout),
    }
    block
}
