//! Extended attributes of one inode, wherever they lie.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use extant_format::xattr::{XattrValue, XattrView};
use extant_format::{InodeNumber, InodeRecord, Place};

use crate::reader::{ReadError, Reader};

/// Attributes by their full names.
pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// The attributes of an inode, in it and in its block. A value in an inode of its own is told by its number and length: its bytes are
/// that inode's.
///
/// # Errors
/// They make no sense, or the block cannot be read.
pub fn of(
    reader: &Reader<'_>,
    bytes: &[u8],
    record: &InodeRecord,
    inode: InodeNumber,
) -> Result<Attributes, ReadError> {
    let mut found = Attributes::new();
    let geometry = reader.geometry();
    if let Some(view) =
        XattrView::in_inode(bytes, record.extra_isize, Place::Inode(inode), geometry)?
    {
        collect(view, &mut found);
    }
    if let Some(number) = record.file_acl {
        let block = reader.block(number)?;
        collect(
            XattrView::in_block(&block, Place::InodeBlock(inode, number), geometry)?,
            &mut found,
        );
    }
    Ok(found)
}

/// Names that either has.
pub fn names(left: &Attributes, right: &Attributes) -> BTreeSet<Vec<u8>> {
    left.keys().chain(right.keys()).cloned().collect()
}

fn collect(view: XattrView<'_>, found: &mut Attributes) {
    for entry in view.entries() {
        let prefix = match entry.index.prefix() {
            Some(prefix) => prefix.as_bytes().to_vec(),
            None => format!("{}.", entry.index.0).into_bytes(),
        };
        let value = match entry.value {
            XattrValue::Here(value) => value.to_vec(),
            XattrValue::Inode { inode, size } => format!("{size} bytes in {inode}").into_bytes(),
        };
        found.insert([&prefix[..], entry.name].concat(), value);
    }
}
