//! Reads a whole image and tells what is wrong with it; never writes.
//!
//! The engine is not used, since it refuses what is damaged: bytes become checked types by `extant-format`, one pass over
//! all inode tables gathers facts, one over all directories follows, then connectivity, links and sums, as e2fsck's passes
//! 1 to 5 do. What is wrong is a [`Finding`]: a [`Rule`] with a name for ever, a place, what is there and what should be.
//!
//! # Invariants
//! The device is never written. The same image gives the same report, whatever the number of threads. Memory is bounded by
//! what is in use: 8 bytes an inode (up to the last one in use of each group), 40 a directory, 16 a run of a directory's
//! blocks, for clusters 8 bytes a run or one bit a cluster, whichever is less, and with quota some 40 bytes an owner. A
//! node of a map is walked once.
//! # Locking
//! Workers share what earlier passes found and change nothing of it but counts of names (atomics) and clusters in use (a
//! lock a group). No lock is held while the device works, nor two at once but the one of clusters claimed twice.
//! # Not here
//! Repairs; contents of files.
//! # Source
//! e2fsprogs `e2fsck`: what it looks for, and its codes. Differs: names are compared over a whole directory, copies of the
//! superblock are compared too, and a journal is replayed in memory where `e2fsck -n` leaves it out.

mod attributes;
#[cfg(feature = "std")]
mod casefold;
mod claims;
mod directories;
mod finding;
mod groups;
mod image;
mod index;
mod inodes;
mod journal;
mod map;
mod quota;
mod report;
mod rule;
mod special;
mod sums;
mod superblock;
#[cfg(test)]
mod tests;
mod threads;
mod tree;
mod usage;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use extant_device::{BlockDevice, DeviceError};
use extant_format::cast::{u64_from, usize_from};
use extant_format::superblock::State;
use extant_format::{
    Corruption, Geometry, InodeNumber, PhysicalBlock, RawSuperblock, RoCompat, Unsupported,
};

use self::attributes::Attributes;
use self::image::{Image, Io};
use self::inodes::{DirRun, Directory, Nodes};
use self::quota::Owners;
use self::report::Findings;
use self::threads::spread;
use self::tree::Family;

pub use self::finding::{Finding, Place, Value};
pub use self::report::{Report, Totals};
pub use self::rule::{Pass, Rule, Severity};

/// How to check.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// Threads that read and judge; without `std` there is one.
    pub threads: usize,
    /// Findings of each rule that are kept; all are counted.
    pub limit: usize,
    /// Seconds since 1970, for those who have a clock.
    pub now: Option<u64>,
    /// Hears which pass begins.
    pub progress: Option<&'a (dyn Fn(Pass) + Sync)>,
}

impl Default for CheckOptions<'_> {
    fn default() -> Self {
        Self { threads: 1, limit: 100, now: None, progress: None }
    }
}

/// Why an image could not be checked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// The device failed.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    /// Something is used that this crate does not know.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// There is no superblock, nor a copy of one.
    #[error("no ext2, ext3 or ext4 file system")]
    NoFileSystem,
    /// The superblock makes no sense, and no copy of it does.
    #[error("no usable superblock: {0}")]
    Superblock(Corruption),
}

/// Checks the file system on `device`.
///
/// # Errors
/// There is no file system that could be checked, or the device fails.
pub fn check(device: &dyn BlockDevice, options: &CheckOptions<'_>) -> Result<Report, CheckError> {
    let mut findings = Findings::new(options.limit);
    let mut notes = Vec::new();
    begin(options, Pass::Superblock);
    let (raw, geometry) = superblock::find(device, &mut findings)?;
    note_state(&raw, &mut notes);
    let there = device.geometry().len_bytes >> geometry.block_bits;
    if geometry.blocks_count > there {
        let (found, expected) = (geometry.blocks_count, there);
        findings.add(Rule::SizePastDevice, Place::superblock(), found, expected);
        notes.push(String::from(
            "nothing else was looked at, since the end of the image is missing",
        ));
        return Ok(findings.into_report(notes, Totals::default()));
    }
    let (image, descriptors) = open(device, raw, geometry, options)?;
    superblock::judge(&image, &mut findings)?;
    let Some(copies) = journal::recover(&image, &mut findings, &mut notes)? else {
        return Checker { image, options, findings, notes }.run(&descriptors);
    };
    let over = journal::Replayed { below: device, block_bits: geometry.block_bits, copies };
    let (raw, geometry) = superblock::find(&over, &mut Findings::new(0))?;
    let (image, descriptors) = open(&over, raw, geometry, options)?;
    Checker { image, options, findings, notes }.run(&descriptors)
}

fn begin(options: &CheckOptions<'_>, pass: Pass) {
    if let Some(progress) = options.progress {
        progress(pass);
    }
}

fn note_state(raw: &RawSuperblock, notes: &mut Vec<String>) {
    if raw.state.get() & State::ERRORS.bits() != 0 {
        notes.push(String::from("an earlier use of the file system has met errors"));
    }
}

fn open<'a>(
    device: &'a dyn BlockDevice,
    raw: RawSuperblock,
    geometry: Geometry,
    options: &CheckOptions<'_>,
) -> Result<(Image<'a>, Vec<u8>), CheckError> {
    let descriptors = superblock::read_descriptors(device, &geometry)?;
    let image = Image {
        io: Io { device, block_bits: geometry.block_bits },
        raw,
        geometry,
        groups: groups::read(&geometry, &descriptors),
        metadata: Vec::new(),
        usage: usage::Usage::new(&geometry),
        facts: Vec::new(),
        orphans: Vec::new(),
        now: options.now,
    };
    Ok((image, descriptors))
}

/// A check under way.
struct Checker<'a, 'b> {
    image: Image<'a>,
    options: &'b CheckOptions<'b>,
    findings: Findings,
    notes: Vec<String>,
}

/// What the pass over all inodes leaves for those that follow.
struct Gathered {
    attributes: Attributes,
    owners: Owners,
    nodes: Nodes,
    /// In the order of their first blocks, each with the list that has its runs.
    directories: Vec<(Directory, usize)>,
    runs: Vec<Vec<DirRun>>,
}

impl Gathered {
    /// Directory `n`, and where it lies.
    fn directory(&self, n: usize) -> Option<(&Directory, &[DirRun])> {
        let (directory, list) = self.directories.get(n)?;
        let (first, len) = (usize_from(directory.first_run), usize_from(directory.runs));
        let runs = self.runs.get(*list)?.get(first..)?.get(..len)?;
        Some((directory, runs))
    }
}

impl Checker<'_, '_> {
    fn run(mut self, descriptors: &[u8]) -> Result<Report, CheckError> {
        superblock::judge_copies(&self.image, descriptors, &mut self.findings)?;
        begin(self.options, Pass::Groups);
        groups::judge(&self.image, descriptors, &mut self.findings);
        groups::claim(&mut self.image, &mut self.findings);
        special::judge_resize(&self.image, &mut self.findings)?;
        self.image.orphans = special::orphans(&self.image, &mut self.findings)?;
        let orphans = self.image.orphans.len();
        if orphans > 0 {
            self.notes.push(alloc::format!("{orphans} orphans, which the next mount takes away"));
        }
        begin(self.options, Pass::Inodes);
        let gathered = self.inodes()?;
        let references = self.attributes(&gathered)?;
        begin(self.options, Pass::Claims);
        self.claims(&gathered)?;
        begin(self.options, Pass::Directories);
        self.directories(&gathered)?;
        begin(self.options, Pass::Links);
        tree::judge_links(&self.image, &references, &mut self.findings);
        begin(self.options, Pass::Sums);
        let totals = self.sums()?;
        begin(self.options, Pass::Quota);
        quota::judge(&self.image, &gathered.owners, &mut self.findings)?;
        Ok(self.findings.into_report(self.notes, totals))
    }

    /// All inodes and their maps. Where maps meet, which of them a node belongs to must not be a matter of chance, so then
    /// one worker does it again.
    fn inodes(&mut self) -> Result<Gathered, CheckError> {
        let mut threads = self.options.threads;
        loop {
            let (image, limit) = (&self.image, self.options.limit);
            let nodes = Nodes::default();
            let new = || inodes::Worker::new(image, &nodes, limit);
            let workers = spread(threads, image.groups.len(), new, |worker, n| worker.group(n))?;
            if threads > 1 && workers.iter().any(|worker| worker.clashed) {
                threads = 1;
                drop(workers);
                self.image.usage = usage::Usage::new(&self.image.geometry);
                for (start, end) in &self.image.metadata {
                    self.image.usage.claim_again(PhysicalBlock::new(*start), end - start);
                }
                continue;
            }
            let (mut facts, mut attributes) = (Vec::new(), Attributes::default());
            let mut owners = Owners::default();
            let (mut directories, mut runs) = (Vec::new(), Vec::new());
            let mut has_large_file = false;
            for (list, worker) in workers.into_iter().enumerate() {
                self.findings.merge(worker.findings);
                facts.push(worker.facts);
                attributes.merge(worker.attributes);
                owners.merge(worker.owners);
                directories.extend(worker.directories.into_iter().map(|own| (own, list)));
                runs.push(worker.runs);
                has_large_file |= worker.has_large_file;
            }
            let first_block = |(own, list): &(Directory, usize)| {
                let run = runs.get(*list).and_then(|runs| runs.get(usize_from(own.first_run)));
                (run.filter(|_| own.runs > 0).map_or(0, |(_, start, _)| start.get()), own.inode)
            };
            directories.sort_by_cached_key(first_block);
            self.image.facts = inodes::join_facts(self.image.groups.len(), facts);
            if has_large_file && !self.image.ro_compat(RoCompat::LARGE_FILE) {
                self.findings.add(Rule::LargeFile, Place::superblock(), (), ());
            }
            return Ok(Gathered { attributes, owners, nodes, directories, runs });
        }
    }

    /// Attribute blocks, each once; and what inodes that hold values count: the references to each.
    fn attributes(&mut self, gathered: &Gathered) -> Result<BTreeMap<u32, u64>, CheckError> {
        let blocks: Vec<_> = gathered.attributes.blocks.iter().collect();
        for (block, _) in &blocks {
            self.image.usage.claim(PhysicalBlock::new(**block), 1);
        }
        let (image, limit) = (&self.image, self.options.limit);
        let new = || (Attributes::default(), Findings::new(limit));
        let judge = |(own, findings): &mut (Attributes, Findings), n: usize| {
            let Some((block, (inode, count))) = blocks.get(n) else { return Ok(()) };
            own.judge_block(image, (**block, *inode, *count), findings)
        };
        let mut references = gathered.attributes.references.clone();
        for (own, findings) in spread(self.options.threads, blocks.len(), new, judge)? {
            self.findings.merge(findings);
            for (inode, count) in own.references {
                let all = references.entry(inode).or_default();
                *all = all.saturating_add(count);
            }
        }
        let values = gathered.attributes.values.clone();
        let all = Attributes { references, values, ..Attributes::default() };
        attributes::judge_references(&all, &mut self.findings);
        Ok(all.references)
    }

    fn claims(&mut self, gathered: &Gathered) -> Result<(), CheckError> {
        if !self.image.usage.is_any_twice() || self.image.ro_compat(RoCompat::SHARED_BLOCKS) {
            return Ok(());
        }
        let (image, limit) = (&self.image, self.options.limit);
        let new = || claims::Worker::new(image, &gathered.nodes, limit);
        let workers =
            spread(self.options.threads, image.groups.len(), new, |worker, n| worker.group(n))?;
        for worker in workers {
            self.findings.merge(worker.findings);
        }
        for (&block, &(inode, _)) in &gathered.attributes.blocks {
            let start = PhysicalBlock::new(block);
            let Some(inode) = InodeNumber::new(inode) else { continue };
            if image.usage.is_twice(start, 1) {
                claims::tell(image, inode, start, 1, &mut self.findings);
            }
        }
        Ok(())
    }

    /// Contents of all directories, then how they hang together.
    fn directories(&mut self, gathered: &Gathered) -> Result<(), CheckError> {
        let (image, limit) = (&self.image, self.options.limit);
        let new = || directories::Worker::new(image, limit);
        let count = gathered.directories.len();
        let workers = spread(self.options.threads, count, new, |worker, n| {
            let Some((directory, runs)) = gathered.directory(n) else { return Ok(()) };
            worker.directory(directory, runs)
        })?;
        let mut family = Family::default();
        for worker in workers {
            self.findings.merge(worker.findings);
            family.children.extend(worker.children);
            family.parents.extend(worker.parents);
            family.lost_found = family.lost_found.or(worker.lost_found);
        }
        begin(self.options, Pass::Tree);
        let mut directories: Vec<_> = gathered.directories.iter().map(|(own, _)| *own).collect();
        directories.sort_unstable_by_key(|own| own.inode);
        tree::judge(image, family, &directories, &mut self.findings);
        Ok(())
    }

    fn sums(&mut self) -> Result<Totals, CheckError> {
        let (image, limit) = (&self.image, self.options.limit);
        let new = || sums::Worker::new(image, limit);
        let workers =
            spread(self.options.threads, image.groups.len(), new, |worker, n| worker.group(n))?;
        let mut totals = self.count();
        let (mut free_clusters, mut free_inodes) = (0_u64, 0_u64);
        for worker in workers {
            self.findings.merge(worker.findings);
            free_clusters = free_clusters.saturating_add(worker.free_clusters);
            free_inodes = free_inodes.saturating_add(worker.free_inodes);
            totals.clusters = totals.clusters.saturating_add(worker.used_clusters);
        }
        sums::judge_totals(&self.image, free_clusters, free_inodes, &mut self.findings);
        Ok(totals)
    }

    fn count(&self) -> Totals {
        let all = || self.image.facts.iter().flat_map(|facts| facts.iter());
        let count = |n: usize| u64_from(n);
        Totals {
            inodes: count(all().filter(|fact| fact.is_used()).count()),
            directories: count(all().filter(|fact| fact.is_directory()).count()),
            clusters: 0,
        }
    }
}

const _: () = assert!(size_of::<image::Fact>() == 8);
