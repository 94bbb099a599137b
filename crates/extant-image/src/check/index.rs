//! The index of one directory, against the blocks and names that it orders.
//!
//! What each block says is gathered while the blocks are read; what they say of each other is judged at the end.
//!
//! Source: e2fsprogs `e2fsck/pass1.c`, `handle_htree`; `e2fsck/pass2.c`, `parse_int_node`, `e2fsck_pass2`, `htree_depth`.

use alloc::collections::BTreeMap;

use extant_format::cast::u64_from;
use extant_format::directory::{DirEntry, DirLayout};
use extant_format::hash::{CharSign, DirHasher, HashVersion};
use extant_format::htree::{self, Shape};
use extant_format::superblock::SuperblockFlags;
use extant_format::{InodeFlags, InodeNumber};

use super::directories::key_of;
use super::finding::{Place, Value};
use super::image::{Image, le16, le32};
use super::inodes::DirRun;
use super::report::Findings;
use super::rule::Rule;

/// An index under way.
pub(super) struct IndexCheck {
    inode: InodeNumber,
    layout: DirLayout,
    sign: CharSign,
    seed: [u32; 4],
    is_keyed: bool,
    is_folded: bool,
    /// `None` where hashes cannot be computed, since the root is unusable.
    hasher: Option<DirHasher>,
    /// Levels of inner nodes, the root counted; `None` once the index is not worth going on with.
    depth: Option<u32>,
    blocks: BTreeMap<u32, Seen>,
}

/// What is known of one block of the directory.
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_inner: bool,
    /// The least and the largest hash in it.
    low: u32,
    high: u32,
    /// The same as its parent says.
    least: u32,
    most: u32,
    parent: Option<u32>,
    is_first: bool,
    is_twice: bool,
}

impl IndexCheck {
    pub(super) fn new(
        image: &Image<'_>,
        flags: InodeFlags,
        layout: DirLayout,
        inode: InodeNumber,
        runs: &[DirRun],
    ) -> Self {
        let unseen = Seen {
            is_inner: false,
            low: u32::MAX,
            high: 0,
            least: 0,
            most: u32::MAX,
            parent: None,
            is_first: false,
            is_twice: false,
        };
        let all = runs
            .iter()
            .flat_map(|&(logical, _, len)| (0..len).map(move |n| logical.saturating_add(n)));
        let unsigned = image.raw.flags.get() & SuperblockFlags::UNSIGNED_HASH.bits() != 0;
        let folded = flags.contains(InodeFlags::CASEFOLD);
        Self {
            inode,
            layout,
            sign: if unsigned { CharSign::Unsigned } else { CharSign::Signed },
            seed: image.raw.hash_seed.map(|word| word.get()),
            is_keyed: folded && flags.contains(InodeFlags::ENCRYPT),
            is_folded: folded,
            hasher: None,
            depth: Some(0),
            blocks: all.map(|logical| (logical, unseen)).collect(),
        }
    }

    /// Looks at a block that may be a root or a node; whether it is.
    pub(super) fn inner(
        &mut self,
        logical: u32,
        bytes: &[u8],
        place: &Place,
        findings: &mut Findings,
    ) -> bool {
        if self.depth.is_none() {
            return logical == 0;
        }
        let csum = if self.layout.has_tail { 8 } else { 0 };
        let header = if logical == 0 { ROOT_ENTRIES_AT } else { NODE_ENTRIES_AT };
        let fits = (bytes.len() - header - csum) / ENTRY_BYTES;
        if logical == 0 {
            if !self.root(bytes, place, findings) {
                self.depth = None;
                return true;
            }
        } else {
            let limit = le16(bytes, header).map(usize::from);
            if htree::shape(bytes, self.layout) != Shape::Node || limit != Some(fits) {
                return false;
            }
        }
        self.node(logical, bytes.get(header..).unwrap_or_default(), fits, place, findings);
        true
    }

    /// What the root says of the whole index; whether that can be used.
    fn root(&mut self, bytes: &[u8], place: &Place, findings: &mut Findings) -> bool {
        let info = bytes.get(INFO_AT..).and_then(<[u8]>::first_chunk::<8>);
        let Some(&[a, b, c, d, version, len, levels, flags]) = info else { return false };
        let mut wrong = |rule: Rule, byte: u8| {
            findings.add(rule, place.clone(), Value::Number(byte.into()), ());
            false
        };
        if [a, b, c, d] != [0; 4] || len != INFO_BYTES {
            return wrong(Rule::IndexRoot, len);
        }
        let Some(known) = HashVersion::from_byte(version) else {
            return wrong(Rule::IndexHash, version);
        };
        if (known == HashVersion::SipHash) != self.is_keyed {
            return wrong(Rule::IndexSipHash, version);
        }
        if flags & 1 != 0 {
            return wrong(Rule::IndexFlags, flags);
        }
        if levels > self.layout.max_levels {
            return wrong(Rule::IndexDepth, levels);
        }
        self.depth = Some(u32::from(levels) + 1);
        let hasher = DirHasher::Seeded { version: known, sign: self.sign, seed: self.seed };
        // Without `std` there are no tables of characters.
        self.hasher = (cfg!(feature = "std") || !self.is_folded).then_some(hasher);
        true
    }

    /// The entries of a root or node.
    fn node(
        &mut self,
        logical: u32,
        entries: &[u8],
        fits: usize,
        place: &Place,
        findings: &mut Findings,
    ) {
        let (limit, count) = (le16(entries, 0).unwrap_or(0), le16(entries, 2).unwrap_or(0));
        if usize::from(limit) != fits {
            findings.add(Rule::IndexLimit, place.clone(), limit, u64_from(fits));
        }
        if usize::from(count) > fits || count == 0 {
            findings.add(Rule::IndexCount, place.clone(), count, u64_from(fits));
        }
        let count = usize::from(count).min(fits);
        let hash_at = |i: usize| {
            let hash = le32(entries, i * ENTRY_BYTES).unwrap_or(0) & !1;
            if i == 0 { 0 } else { hash }
        };
        let (mut low, mut high) = (u32::MAX, 0);
        for i in 0..count {
            let block = le32(entries, i * ENTRY_BYTES + 4).unwrap_or(0) & BLOCK_MASK;
            let hash = hash_at(i);
            let at = || place.clone().offset(i * ENTRY_BYTES);
            if i > 0 && hash < hash_at(i - 1) {
                findings.add(Rule::IndexOrder, at(), Value::Bits(hash.into()), ());
            }
            (low, high) = (low.min(hash), high.max(hash));
            let Some(child) = self.blocks.get_mut(&block).filter(|_| block != logical) else {
                findings.add(Rule::IndexBlock, at(), block, ());
                continue;
            };
            child.is_twice |= child.parent.is_some() || block == 0;
            child.parent = Some(logical);
            child.is_first = i == 0;
            child.least = hash;
            child.most = if i + 1 < count { hash_at(i + 1) } else { LAST_HASH };
        }
        if let Some(own) = self.blocks.get_mut(&logical) {
            (own.is_inner, own.low, own.high) = (true, low, high);
        }
    }

    /// A name in a leaf.
    pub(super) fn name(&mut self, logical: u32, entry: &DirEntry<'_>) {
        let hash = match (&self.hasher, entry.hash) {
            _ if self.depth.is_none() => None,
            (_, Some((major, _))) => Some(major),
            (Some(hasher), None) => Some(hasher.hash(&key_of(entry.name, self.is_folded)).major),
            (None, None) => None,
        };
        if let (Some(hash), Some(own)) = (hash, self.blocks.get_mut(&logical)) {
            (own.low, own.high) = (own.low.min(hash), own.high.max(hash));
        }
    }

    /// What the blocks say of each other.
    pub(super) fn judge(mut self, findings: &mut Findings) {
        let Some(depth) = self.depth.filter(|depth| *depth > 0) else { return };
        self.widen();
        for (&logical, own) in self.blocks.iter().filter(|(logical, _)| **logical > 0) {
            let place = || Place::inode(self.inode).logical(logical);
            let bits = |hash: u32| Value::Bits(hash.into());
            if own.parent.is_none() {
                findings.add(Rule::IndexUnreferenced, place(), (), ());
                continue;
            }
            if own.is_twice {
                findings.add(Rule::IndexTwice, place(), (), ());
            }
            if !own.is_inner && self.depth_of(own) != Some(depth) {
                findings.add(Rule::IndexLeafDepth, place(), (), depth);
            }
            // A node's own first entry has no hash, so what lies lowest in it is not known.
            if !own.is_inner && own.low < own.least && own.low <= own.high {
                findings.add(Rule::IndexLow, place(), bits(own.low), bits(own.least));
            }
            if own.high > own.most {
                findings.add(Rule::IndexHigh, place(), bits(own.high), bits(own.most));
            }
        }
    }

    /// The range of the last block of a node ends where that of the node does.
    fn widen(&mut self) {
        for _ in 0..=usize::from(self.layout.max_levels) {
            let inner: BTreeMap<u32, u32> = self
                .blocks
                .iter()
                .filter(|(_, own)| own.is_inner && own.parent.is_some())
                .map(|(logical, own)| (*logical, own.most))
                .collect();
            for own in self.blocks.values_mut().filter(|own| own.most == LAST_HASH) {
                let bound = own.parent.and_then(|parent| inner.get(&parent));
                // The next node may begin with the hash that this one ends with.
                own.most = bound.map_or(own.most, |bound| own.most.min(*bound));
            }
        }
    }

    /// How many nodes lie above a block; `None` if they do not lead to the root.
    fn depth_of(&self, own: &Seen) -> Option<u32> {
        let (mut depth, mut next) = (1, own.parent?);
        while next != 0 {
            depth += 1;
            if depth > MOST_DEPTH {
                return None;
            }
            next = self.blocks.get(&next)?.parent?;
        }
        Some(depth)
    }
}

const INFO_AT: usize = 24;
const INFO_BYTES: u8 = 8;
const ROOT_ENTRIES_AT: usize = 32;
const NODE_ENTRIES_AT: usize = 8;
const ENTRY_BYTES: usize = 8;
const BLOCK_MASK: u32 = 0x0FFF_FFFF;
/// The bound of the last block.
const LAST_HASH: u32 = 0xFFFF_FFFE;
const MOST_DEPTH: u32 = 8;
