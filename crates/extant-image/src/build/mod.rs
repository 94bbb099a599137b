//! Builds images: directories, archives and layers in, a whole file system out.
//!
//! [`Build`] gathers sources into one [`tree`] of names; a later source wins, directories join. [`Build::fill`] then goes
//! through the tree in an [`order`] that belongs to the tree alone: `readers` read ahead, one thread (`apply`) makes files in
//! the engine, which gives them places one behind the other, and `writers` bring the bytes from the source there. So no byte of
//! a file passes the engine, and the order of everything in the image is the same with any number of threads.
//!
//! # Invariants
//! What is applied, and in which order, depends on the tree and on what the sources say, and on nothing else. What is in memory
//! is bounded, but for the tree and what is known of files with several names.
//! # Locking
//! Readers share the desk, writers their queue; nobody holds both. Nothing is locked while a file is read or written, but the
//! desk while a job waits to be taken.
//! # Not here
//! Temporary names and flushes of the image file (the command); an empty file system (`mkfs`); journals: the volume is mounted
//! without.
//! # Source
//! mke2fs(8), `-d`; genext2fs(8), gen_init_cpio; OCI image specification, "Image Layer Filesystem Changeset".

mod apply;
mod archive;
mod directory;
mod entries;
mod entry;
mod error;
mod names;
mod needs;
mod oci;
mod order;
mod readers;
mod rules;
mod still;
#[cfg(test)]
mod tests;
mod tree;
mod writers;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use extant::time::{Clock, Entropy};
use extant::{MountOptions, Placement};
use extant_device::{BlockDevice, BlockDeviceExt, DeviceGeometry, Operation, Request};

use apply::Applying;
use archive::Archive;
pub use archive::Names;
use directory::Directory;
pub use error::{BuildError, Failure, Problem};
pub use needs::{Needs, Room, smallest};
pub use rules::{Owners, Rules};
pub use still::{StillClock, UuidEntropy, derived_uuid};
use tree::{NodeId, Tree};
use writers::Writers;

/// Who is told how far it is, and says whether to go on.
pub trait Observer: Sync {
    /// One file could not be had, or not as it is; the others go on.
    fn failed(&self, failure: &Failure);
    /// One more file is made.
    fn entry_done(&self) {}
    /// So many bytes more are on their way to the device.
    fn bytes_done(&self, _bytes: u64) {}
    /// Whether to stop.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// What was built.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Files that are no directories, each counted once.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// What an image is built from.
#[derive(Debug)]
pub struct Build {
    tree: Tree,
    origins: Vec<Origin>,
    rules: Rules,
    /// Attributes that entries set.
    changes: HashMap<NodeId, entries::Changes>,
    /// What the tree's own lists of users and groups say, once it was asked for.
    names: OnceLock<names::Names>,
    layers: u16,
    /// An image that exists is changed, so that what is taken away has to be remembered.
    in_place: bool,
    /// Bytes in a block of the image.
    block_bytes: usize,
}

impl Build {
    /// Nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            tree: Tree::new(),
            origins: Vec::new(),
            rules,
            changes: HashMap::new(),
            names: OnceLock::new(),
            layers: 0,
            in_place: false,
            block_bytes: 4096,
        }
    }

    /// The same for [`Self::apply`].
    pub fn in_place(rules: Rules) -> Self {
        Self { in_place: true, ..Self::new(rules) }
    }

    /// Adds a source over what is there already: everything below a directory, the members of an archive, or the layers of an
    /// OCI image layout. Archives that have to be unpacked are, into nameless files in `spool`.
    ///
    /// # Errors
    /// If it cannot be read, or makes no sense. What concerns parts of it alone is told to `observer`.
    pub fn add(
        &mut self,
        path: &Path,
        names: Names,
        spool: &Path,
        observer: &dyn Observer,
    ) -> Result<(), BuildError> {
        if oci::is_layout(path) {
            for layer in oci::layers(path)? {
                self.add(&layer, Names::Layer, spool, observer)?;
            }
            return Ok(());
        }
        if path.is_dir() {
            return self.add_directory(path, observer);
        }
        let name = path.display().to_string();
        let file = std::fs::File::open(path)
            .map_err(|error| BuildError::Source { source_name: name.clone(), error })?;
        self.add_archive(file, &name, names, spool, observer)
    }

    /// Adds everything below a directory of this machine.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_directory(
        &mut self,
        path: &Path,
        observer: &dyn Observer,
    ) -> Result<(), BuildError> {
        let (number, layer) = self.next_source()?;
        let directory = Directory::open(path, number)?;
        let mut failed = |failure| observer.failed(&failure);
        directory.index(&mut self.tree, layer, &self.rules, &mut failed)?;
        self.origins.push(Origin::Directory(directory));
        Ok(())
    }

    /// Adds the members of an archive, which may come through a pipe.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_archive(
        &mut self,
        file: std::fs::File,
        name: &str,
        names: Names,
        spool: &Path,
        observer: &dyn Observer,
    ) -> Result<(), BuildError> {
        let (number, layer) = self.next_source()?;
        let archive = Arc::new(Archive::open(file, name, number, spool)?);
        self.origins.push(Origin::Archive(Arc::clone(&archive)));
        archive.index(self, layer, names, observer)
    }

    /// The numbers of the next source and its layer.
    fn next_source(&mut self) -> Result<(u16, u16), BuildError> {
        let number = u16::try_from(self.origins.len()).ok().filter(|number| *number < u16::MAX - 1);
        let number = number.ok_or(BuildError::TooMany)?;
        self.layers = number + 1;
        Ok((number, self.layers))
    }

    /// Where a symbolic link in the tree leads.
    fn link_target(&self, node: NodeId) -> Result<Vec<u8>, Problem> {
        let place = self.tree.place(node).ok_or(Problem::Changed)?;
        match &self.origins[usize::from(place.origin)] {
            Origin::Directory(directory) => directory.link_target(&self.tree, node),
            Origin::Archive(archive) => archive.link_target(place),
        }
    }

    /// Whether a path is left out, itself or with a directory on it.
    fn is_excluded(&self, path: &[&[u8]]) -> bool {
        self.rules.excludes_any()
            && (0..path.len()).any(|at| {
                let above: Vec<u8> = path[..at]
                    .iter()
                    .flat_map(|name| [&b"/"[..], name])
                    .flatten()
                    .copied()
                    .collect();
                self.rules.excludes(&above, path[at])
            })
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.tree.len()
    }

    /// Fills the empty file system on `device`, and unmounts it; `threads` read at the same time.
    ///
    /// # Errors
    /// What keeps all further files from being made; the image is worth nothing then.
    pub fn fill(
        &mut self,
        device: Arc<dyn BlockDevice>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        threads: usize,
        observer: &dyn Observer,
    ) -> Result<Totals, BuildError> {
        let root = |error| BuildError::Engine { path: b"/".to_vec(), error };
        let quiet: Arc<dyn BlockDevice> = Arc::new(Unflushed(device.clone()));
        let options = MountOptions::new()
            .unjournaled(true)
            .placement(Placement::Sequential)
            .cache_bytes(CACHE_BYTES);
        let filesystem = options.mount_with(quiet, clock, entropy).map_err(root)?;
        if let Some(features) = filesystem.read_only_because() {
            return Err(BuildError::OnlyReadable(features.to_owned()));
        }
        let totals = self.run(&filesystem, &*device, threads, observer)?;
        filesystem.unmount().map_err(root)?;
        device.flush()?;
        Ok(totals)
    }

    /// Applies what there is to a volume that is mounted as usual, in its transactions: what is in the way goes, directories join.
    ///
    /// # Errors
    /// What keeps all further files from being made; those before are there.
    pub fn apply(
        &mut self,
        filesystem: &extant::Filesystem,
        threads: usize,
        observer: &dyn Observer,
    ) -> Result<Totals, BuildError> {
        // Nothing goes past the engine.
        self.run(filesystem, &NoDevice, threads, observer)
    }

    fn run(
        &mut self,
        filesystem: &extant::Filesystem,
        device: &dyn BlockDevice,
        threads: usize,
        observer: &dyn Observer,
    ) -> Result<Totals, BuildError> {
        self.block_bytes = usize::try_from(filesystem.statfs().block_size).unwrap_or(4096);
        let build = &*self;
        let (writers, tasks) = Writers::new(build, device, observer);
        let (desk, jobs) = readers::desk();
        let applying = Applying::new(build, filesystem.clone(), observer, &writers, tasks);
        let totals = std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| readers::read_ahead(build, &desk));
            }
            for _ in 0..WRITERS {
                scope.spawn(|| writers.work());
            }
            let totals = applying.run(&jobs);
            // Whoever reads ahead for nobody is told so.
            drop(jobs);
            totals
        })?;
        if let Some(error) = writers.failure() {
            return Err(error.into());
        }
        Ok(totals)
    }

    fn failure(&self, origin: u16, node: NodeId, problem: Problem) -> Failure {
        let source_name = self
            .origins
            .get(usize::from(origin))
            .map_or(String::new(), |origin| origin.name().to_owned());
        Failure { source_name, path: self.tree.path(node), problem }
    }

    fn failure_of(&self, node: NodeId, problem: Problem) -> Failure {
        let origin = self.tree.place(node).map_or(u16::MAX, |place| place.origin);
        self.failure(origin, node, problem)
    }
}

/// Where names came from.
#[derive(Debug)]
enum Origin {
    Directory(Directory),
    Archive(Arc<Archive>),
}

impl Origin {
    fn name(&self) -> String {
        match self {
            Self::Directory(directory) => directory.name.clone(),
            Self::Archive(archive) => format!("{}: ", archive.name),
        }
    }

    fn open(&self, tree: &Tree, node: NodeId) -> Result<Option<std::fs::File>, Problem> {
        match self {
            Self::Directory(directory) => Ok(Some(directory.open_directory(tree, node)?)),
            Self::Archive(_) => Ok(None),
        }
    }

    fn directory_attributes(
        &self,
        opened: Option<&std::fs::File>,
        place: tree::Place,
    ) -> Result<entry::Attributes, Problem> {
        match self {
            Self::Directory(directory) => directory.attributes(opened.ok_or(Problem::Changed)?),
            Self::Archive(archive) => archive.attributes(place),
        }
    }

    fn read(
        &self,
        opened: Option<&std::fs::File>,
        (node, name): (NodeId, &[u8]),
        kind: extant_format::FileType,
        place: tree::Place,
        build: &Build,
    ) -> Result<entry::Entry, Problem> {
        match self {
            Self::Directory(directory) => {
                directory.read(opened.ok_or(Problem::Changed)?, name, kind, build)
            }
            Self::Archive(archive) => {
                archive.read(place, build.tree.is_marked(node), build.block_bytes)
            }
        }
    }
}

/// A device whose flushes wait for the end: nobody needs a half of an image.
struct Unflushed(Arc<dyn BlockDevice>);

impl BlockDevice for Unflushed {
    fn geometry(&self) -> DeviceGeometry {
        self.0.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        for request in batch.iter_mut() {
            if let Operation::Write { fua, .. } = &mut request.operation {
                *fua = false;
            }
        }
        for requests in batch.split_mut(|request| matches!(request.operation, Operation::Flush)) {
            self.0.run(requests);
        }
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), extant_device::DeviceError> {
        self.0.read_into(offset, bytes)
    }
}

/// Where nothing is written.
struct NoDevice;

impl BlockDevice for NoDevice {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry {
            len_bytes: 0,
            sector_bytes: 512,
            read_only: true,
            discard: false,
            fast_zeroes: false,
        }
    }

    fn run(&self, batch: &mut [Request]) {
        let geometry = self.geometry();
        batch.iter_mut().for_each(|request| request.result = request.check(&geometry));
    }
}

/// Writes to one file wait for each other, so more would not help.
const WRITERS: usize = 2;
/// Metadata alone is cached, and each block of it is written once or twice.
const CACHE_BYTES: u64 = 16 << 20;
