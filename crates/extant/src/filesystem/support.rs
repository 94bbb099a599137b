//! What each feature of an image means for a mount: written, only read, or refused.

use alloc::string::String;
use alloc::vec::Vec;

use extant_format::{Compat, Geometry, Incompat, RoCompat};

/// Features that only readers are safe from: what a writer owes them is not built yet.
const READ_ONLY_RO_COMPAT: RoCompat = RoCompat::QUOTA
    .union(RoCompat::VERITY)
    .union(RoCompat::READONLY)
    .union(RoCompat::all().difference(RoCompat::SUPPORTED));
const READ_ONLY_INCOMPAT: Incompat = Incompat::ENCRYPT.union(Incompat::CASEFOLD);

/// What the engine does with an image that has a feature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Support {
    /// Reads and writes it.
    Write,
    /// Reads it, and opens it for nothing else.
    Read,
    /// Refuses the image.
    Refuse,
}

/// Every feature that has a name: its word of the superblock, the name as mke2fs has it, and what the engine does.
pub fn feature_support() -> Vec<(&'static str, &'static str, Support)> {
    let mut table = Vec::new();
    for (name, _) in Compat::all().iter().filter_map(|bit| Some((bit.name()?, bit))) {
        table.push(("compat", name, Support::Write));
    }
    for (name, bit) in Incompat::all().iter().filter_map(|bit| Some((bit.name()?, bit))) {
        let support = match () {
            () if !Incompat::SUPPORTED.contains(bit) => Support::Refuse,
            () if READ_ONLY_INCOMPAT.contains(bit) => Support::Read,
            () => Support::Write,
        };
        table.push(("incompat", name, support));
    }
    for (name, bit) in RoCompat::all().iter().filter_map(|bit| Some((bit.name()?, bit))) {
        let support =
            if READ_ONLY_RO_COMPAT.contains(bit) { Support::Read } else { Support::Write };
        table.push(("ro_compat", name, support));
    }
    table
}

/// The features because of which an image is only read, as mke2fs names them. Without protection other hosts would not see that
/// this one has the volume.
pub(super) fn read_only_because(geometry: &Geometry, is_protected: bool) -> Option<String> {
    let unknown = geometry.ro_compat.difference(RoCompat::all());
    let ro_compat = geometry.ro_compat.intersection(READ_ONLY_RO_COMPAT) | unknown;
    let unprotected = if is_protected { Incompat::empty() } else { Incompat::MMP };
    let incompat = geometry.incompat.intersection(READ_ONLY_INCOMPAT | unprotected);
    let names = [alloc::format!("{ro_compat}"), alloc::format!("{incompat}")];
    let shown = [!ro_compat.is_empty(), !incompat.is_empty()];
    let names: Vec<_> =
        names.into_iter().zip(shown).filter_map(|(names, shown)| shown.then_some(names)).collect();
    (!names.is_empty()).then(|| names.join(" "))
}
