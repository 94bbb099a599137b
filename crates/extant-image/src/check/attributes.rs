//! Extended attributes: in inodes, in blocks that inodes share, and in inodes of their own.
//!
//! Source: e2fsprogs `e2fsck/pass1.c`, `check_ea_in_inode`, `check_ext_attr`, `check_large_ea_inode`, `add_encrypted_file`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::xattr::{self, NameIndex, XattrEntry, XattrValue, XattrView};
use extant_format::{Compat, Geometry, Incompat, InodeFlags, InodeNumber, PhysicalBlock};

use super::finding::{Place, Value};
use super::image::{Image, Inode};
use super::report::Findings;
use super::rule::Rule;

/// What an inode is charged for attributes that lie outside it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charge {
    /// Clusters of its attribute block, and of values in inodes of their own.
    pub(super) clusters: u64,
    /// Values in inodes of their own, each of which counts as a file of the owner's.
    pub(super) values: u64,
}

impl Charge {
    fn add(&mut self, other: Self) {
        self.clusters = self.clusters.saturating_add(other.clusters);
        self.values = self.values.saturating_add(other.values);
    }
}

/// What inodes say of attributes beside their own bytes.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Attribute blocks, each with its first inode and how many name it.
    pub(super) blocks: BTreeMap<u64, (u32, u32)>,
    /// Inodes that hold values, by how many attributes name them.
    pub(super) references: BTreeMap<u32, u64>,
    /// Inodes that are flagged to hold a value, by the references that they have counted.
    pub(super) values: BTreeMap<u32, u64>,
}

impl Attributes {
    /// Joins what another worker gathered.
    pub(super) fn merge(&mut self, other: Self) {
        for (block, (inode, count)) in other.blocks {
            let own = self.blocks.entry(block).or_insert((inode, 0));
            *own = (own.0.min(inode), own.1.saturating_add(count));
        }
        for (inode, count) in other.references {
            let own = self.references.entry(inode).or_default();
            *own = own.saturating_add(count);
        }
        self.values.extend(other.values);
    }

    /// Remembers an inode that holds a value; its count of references takes the place of a time and of the version.
    pub(super) fn ea_inode(&mut self, inode: &Inode<'_>) {
        let count = u64::from(inode.core.ctime.get()) << 32 | u64::from(inode.core.version.get());
        self.values.insert(inode.number.get(), count);
    }

    /// Judges the attributes inside an inode.
    pub(super) fn in_inode(
        &mut self,
        image: &Image<'_>,
        inode: &Inode<'_>,
        findings: &mut Findings,
    ) {
        let (at, size) = (extant_format::Place::Inode(inode.number), inode.extra_size());
        if size == 0 {
            return;
        }
        let place = || Place::inode(inode.number);
        match XattrView::in_inode(inode.bytes, size, at, &with_values(image)) {
            Ok(None) => {}
            Ok(Some(view)) => {
                judge_feature(image, view, &place(), findings);
                judge_view(view, false, &place(), findings);
            }
            Err(broken) => findings.add(rule_of(broken.rule), place(), (), ()),
        }
    }

    /// What an inode is charged for its attributes; its attribute block is noted.
    pub(super) fn of_inode(
        &mut self,
        image: &Image<'_>,
        inode: &Inode<'_>,
        findings: &mut Findings,
    ) -> Result<Charge, DeviceError> {
        let mut charge = Charge::default();
        let elsewhere = image.incompat(Incompat::EA_INODE);
        let at = extant_format::Place::Inode(inode.number);
        let place = || Place::inode(inode.number);
        if elsewhere {
            let view = XattrView::in_inode(inode.bytes, inode.extra_size(), at, &image.geometry);
            if let Ok(Some(view)) = view {
                charge.add(self.values_of(image, view, Some(inode), &place(), findings)?);
            }
        }
        let block = inode.attribute_block(&image.geometry);
        if block.get() == 0 {
            return Ok(charge);
        }
        if !image.compat(Compat::EXT_ATTR) {
            findings.add(Rule::AttributesWithoutFeature, place(), block, 0_u32);
            return Ok(charge);
        }
        if !image.has_blocks(block, 1) {
            findings.add(Rule::AttributeBlockPlace, place(), block, ());
            return Ok(charge);
        }
        let own = self.blocks.entry(block.get()).or_insert((inode.number.get(), 0));
        own.1 = own.1.saturating_add(1);
        charge.add(Charge { clusters: 1, values: 0 });
        if elsewhere {
            let bytes = image.io.block(block)?;
            if let Ok(view) = XattrView::in_block(&bytes, at, &image.geometry) {
                view.entries().for_each(|entry| charge.add(charge_of(image, &entry)));
            }
        }
        Ok(charge)
    }

    /// Judges the values of `view` that lie in inodes of their own, counts the references, and returns what they cost.
    fn values_of(
        &mut self,
        image: &Image<'_>,
        view: XattrView<'_>,
        owner: Option<&Inode<'_>>,
        place: &Place,
        findings: &mut Findings,
    ) -> Result<Charge, DeviceError> {
        let mut charge = Charge::default();
        for entry in view.entries() {
            let XattrValue::Inode { inode, size } = entry.value else { continue };
            let own = self.references.entry(inode.get()).or_default();
            *own = own.saturating_add(1);
            let at = place.clone().name(entry.name);
            if inode.get() < image.geometry.first_inode {
                findings.add(Rule::EaInodeNumber, at, inode, ());
                continue;
            }
            charge.add(charge_of(image, &entry));
            let Some(bytes) = image.read_inode(inode)? else { continue };
            let Some(target) = Inode::new(inode, &bytes) else { continue };
            if size == 0 || u64::from(size) != target.size() {
                findings.add(Rule::EaInodeSize, at, size, target.size());
                continue;
            }
            // Values of an older kind name the inode that they belong to instead of having a hash.
            let is_older = owner.is_some_and(|owner| {
                target.core.mtime.get() == owner.number.get()
                    && target.core.generation == owner.core.generation
            });
            let is_flagged = target.has(InodeFlags::EA_INODE);
            let matches = entry.hash_matches(target.core.atime.get());
            if !matches && !is_older && is_flagged {
                findings.add(Rule::AttributeHash, at, Value::Bits(entry.hash.into()), ());
            } else if !is_flagged {
                findings.add(Rule::EaInodeFlag, at, inode, ());
            }
        }
        Ok(charge)
    }

    /// Judges an attribute block that some inodes share.
    pub(super) fn judge_block(
        &mut self,
        image: &Image<'_>,
        (block, owner, count): (u64, u32, u32),
        findings: &mut Findings,
    ) -> Result<(), DeviceError> {
        let block = PhysicalBlock::new(block);
        let Some(inode) = InodeNumber::new(owner) else { return Ok(()) };
        let place = || Place::inode(inode).block(block);
        let bytes = image.io.block(block)?;
        let found = findings.count();
        let at = extant_format::Place::Block(block);
        let view = match XattrView::in_block(&bytes, at, &with_values(image)) {
            Ok(view) => view,
            Err(broken) => {
                let rule = match broken.rule {
                    extant_format::Rule::Magic => Rule::AttributeMagic,
                    extant_format::Rule::AttributeHeader => Rule::AttributeBlockCount,
                    rule => rule_of(rule),
                };
                findings.add(rule, place(), (), ());
                return Ok(());
            }
        };
        judge_feature(image, view, &place(), findings);
        judge_view(view, true, &place(), findings);
        self.values_of(image, view, None, &place(), findings)?;
        let stored = xattr::references(&bytes).unwrap_or(0);
        if stored != count {
            findings.add(Rule::AttributeReferences, place(), stored, count);
        }
        let summed = image.geometry.has_metadata_csum();
        if summed
            && findings.count() == found
            && !xattr::verify_checksum(&bytes, &image.geometry, block)
        {
            findings.add(Rule::AttributeChecksum, place(), (), ());
        }
        Ok(())
    }
}

/// The file system's numbers as if values might lie in inodes of their own, which is a question of its own.
fn with_values(image: &Image<'_>) -> Geometry {
    let mut geometry = image.geometry;
    geometry.incompat |= Incompat::EA_INODE;
    geometry
}

/// Whether values may lie in inodes of their own.
fn judge_feature(image: &Image<'_>, view: XattrView<'_>, place: &Place, findings: &mut Findings) {
    let mut values = view.entries().map(|entry| entry.value);
    let elsewhere = values.any(|value| matches!(value, XattrValue::Inode { .. }));
    if elsewhere && !image.incompat(Incompat::EA_INODE) {
        findings.add(Rule::EaInodeFeature, place.clone(), (), ());
    }
}

/// What holds of the entries of any area.
fn judge_view(view: XattrView<'_>, is_block: bool, place: &Place, findings: &mut Findings) {
    let mut ranges: Vec<_> = view.value_ranges().map(|range| (range.start, range.end)).collect();
    ranges.sort_unstable();
    if !ranges.is_sorted_by(|(_, end), (start, _)| end <= start) {
        findings.add(Rule::AttributeOverlap, place.clone(), (), ());
    }
    let mut before: Option<(u8, usize, &[u8])> = None;
    let mut is_sorted = true;
    for entry in view.entries() {
        let at = || place.clone().name(entry.name);
        if entry.index.0 == 0 {
            findings.add(Rule::AttributeName, at(), (), ());
        }
        let is_here = matches!(entry.value, XattrValue::Here(_));
        let hashed = is_block || entry.hash != 0;
        if is_here && hashed && !entry.hash_matches(0) {
            findings.add(Rule::AttributeHash, at(), Value::Bits(entry.hash.into()), ());
        }
        let key = (entry.index.0, entry.name.len(), entry.name);
        is_sorted &= before.is_none_or(|before| before < key);
        before = Some(key);
    }
    if is_block && !is_sorted {
        findings.add(Rule::AttributeOrder, place.clone(), (), ());
    }
}

/// What a value costs that lies in an inode of its own; nothing if it lies in its area.
fn charge_of(image: &Image<'_>, entry: &XattrEntry<'_>) -> Charge {
    let geometry = &image.geometry;
    match entry.value {
        XattrValue::Here(_) => Charge::default(),
        XattrValue::Inode { size, .. } => {
            let cluster = u64::from(geometry.block_size) << geometry.cluster_bits;
            Charge { clusters: u64::from(size).div_ceil(cluster), values: 1 }
        }
    }
}

/// The rule here for one of the format's decoder.
fn rule_of(rule: extant_format::Rule) -> Rule {
    match rule {
        extant_format::Rule::AttributeName => Rule::AttributeName,
        extant_format::Rule::AttributeValue => Rule::AttributeValue,
        extant_format::Rule::AttributeOverlap => Rule::AttributeOverlap,
        _ => Rule::AttributeEntry,
    }
}

/// Judges the context that every encrypted inode has.
pub(super) fn check_context(
    image: &Image<'_>,
    inode: &Inode<'_>,
    findings: &mut Findings,
) -> Result<(), DeviceError> {
    let at = extant_format::Place::Inode(inode.number);
    let place = || Place::inode(inode.number);
    let is_sound = |view: XattrView<'_>| {
        let entry = view.find(NameIndex::ENCRYPTION, b"c")?;
        let XattrValue::Here(value) = entry.value else { return Some(false) };
        // What a later version needs is not known.
        Some(match value.first() {
            None | Some(0) => false,
            Some(1) => value.len() == 28,
            Some(2) => value.len() == 40,
            Some(_) => true,
        })
    };
    let inside = XattrView::in_inode(inode.bytes, inode.extra_size(), at, &image.geometry);
    let mut sound = inside.ok().flatten().and_then(is_sound);
    let block = inode.attribute_block(&image.geometry);
    if sound.is_none() && image.has_blocks(block, 1) {
        let bytes = image.io.block(block)?;
        let view = XattrView::in_block(&bytes, at, &image.geometry);
        sound = view.ok().and_then(is_sound);
    }
    match sound {
        None => findings.add(Rule::EncryptionMissing, place(), (), ()),
        Some(false) => findings.add(Rule::EncryptionContext, place(), (), ()),
        Some(true) => {}
    }
    Ok(())
}

/// Compares references to inodes that hold values with the counts that these have.
pub(super) fn judge_references(all: &Attributes, findings: &mut Findings) {
    for (&inode, &stored) in &all.values {
        let counted = all.references.get(&inode).copied().unwrap_or(0);
        let Some(number) = InodeNumber::new(inode) else { continue };
        // Values of an older kind have no count.
        if counted != stored && !(stored == 0 && counted == 1) {
            findings.add(Rule::EaInodeReferences, Place::inode(number), stored, counted);
        }
    }
}
