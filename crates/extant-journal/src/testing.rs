//! What this crate's tests share.

use extant_format::jbd2::{JournalIncompat, JournalSuperblock, RawJournalSuperblock};

use crate::JournalParameters;

/// A clean journal with 64-bit numbers and checksums of version 3.
pub(crate) fn parameters(block_size: u32, blocks: u32) -> JournalParameters {
    with_features(block_size, blocks, JournalIncompat::BIT64 | JournalIncompat::CSUM_V3)
}

/// A clean journal with these features.
pub(crate) fn with_features(
    block_size: u32,
    blocks: u32,
    features: JournalIncompat,
) -> JournalParameters {
    let mut raw = RawJournalSuperblock::blank(block_size, blocks, [7; 16]);
    raw.set_incompat(features);
    raw.set_checksum();
    JournalParameters::new(JournalSuperblock::try_from(&raw).unwrap()).unwrap()
}
