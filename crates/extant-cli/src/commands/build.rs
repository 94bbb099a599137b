//! `extant build`: makes a whole image from directories, archives and layers.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use extant_device::{BlockDevice, FileDevice};
use extant_format::Timestamp;
use extant_image::build::{
    Build, BuildError, Failure, Names, Observer, Owners, Room, Rules, Totals, derived_uuid,
    smallest,
};
use extant_image::mkfs::{ExtendedOptions, FeatureEdits, Percent};
use extant_image::{MkfsError, MkfsOptions, Plan, mkfs};

use super::mkfs::advised;
use super::mkfs::arguments::{parse_percent, parse_uuid, random_uuid, set_journal};
use crate::failure::{self, Told};
use crate::interrupt::{self, Interrupted};
use crate::output::size;
use crate::progress::{Progress, Words};
use crate::times::{Times, source_date};
use crate::{foreign, values, volume};

/// Make a whole image from directories, archives and the layers of container images
///
/// Files keep owners, permissions, times, attributes, access lists, holes and hard links. Every file lies in one piece, small
/// ones side by side. The image gets its name when it is whole, so an interrupted build leaves nothing.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Image file or block device
    #[arg(value_parser = super::image())]
    image: PathBuf,
    /// What goes into it: a directory, a tar archive (also compressed by gzip or zstd, or `-` for standard input), or an OCI
    /// image layout. Of several, later ones win, and directories join
    #[arg(long, value_name = "SOURCE", required_unless_present_any = ["layer", "entries"])]
    from: Vec<PathBuf>,
    /// An archive on top of these that is a layer: `.wh.NAME` takes away NAME, `.wh..wh..opq` all that is below
    #[arg(long, value_name = "ARCHIVE")]
    layer: Vec<PathBuf>,
    /// A file of entries on top of all: `path mode uid gid` a line, `-` for what there is, and to make something a type: `d`,
    /// `p`, `l TARGET`, `f [FILE]`, `c MAJOR MINOR` or `b MAJOR MINOR`
    #[arg(long, value_name = "FILE")]
    entries: Vec<PathBuf>,
    /// Apply it to an image that exists, in its journal's transactions: what is in the way goes, directories join
    #[arg(long, conflicts_with_all = ["size", "free", "force", "deterministic"])]
    update: bool,
    /// How large it shall be, such as 512M or 1.5G; `auto` for the smallest that has room, in blocks of 4 KiB unless -b says
    /// otherwise
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_size)]
    size: Size,
    /// With `--size auto`: room for so much more, in bytes, or in percent of the files
    #[arg(long, value_name = "SIZE|PERCENT%", value_parser = parse_free)]
    free: Option<Room>,
    /// Leave files out: by name, or by path if there is a slash; `*` and `?` are anything but a slash, `**` anything
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Users from FROM on become users from TO on, COUNT of them (1)
    #[arg(long, value_name = "FROM:TO[:COUNT]", value_parser = parse_range)]
    uid_map: Vec<(u32, u32, u32)>,
    /// The same for groups
    #[arg(long, value_name = "FROM:TO[:COUNT]", value_parser = parse_range)]
    gid_map: Vec<(u32, u32, u32)>,
    /// All files belong to this user and group, such as 0:0
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner, conflicts_with_all = ["uid_map", "gid_map"])]
    owner: Option<(u32, u32)>,
    /// The same input makes the same bytes: times of making are SOURCE_DATE_EPOCH or zero, times of access those of the last
    /// change, UUID and hashes follow from the label
    #[arg(long)]
    deterministic: bool,
    /// How many files are read at the same time; as many as there are processors by default
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    #[command(flatten)]
    layout: LayoutArgs,
    /// Replace an image that exists
    #[arg(short = 'F', long)]
    force: bool,
    /// Only speak of what went wrong
    #[arg(short, long)]
    quiet: bool,
}

/// What the file system is like; the letters are mke2fs's.
#[derive(Debug, clap::Args)]
struct LayoutArgs {
    /// Bytes in a block
    #[arg(short = 'b', value_name = "BYTES", value_parser = values::number::<u32>)]
    block_size: Option<u32>,
    /// Bytes in an inode; 256 by default
    #[arg(short = 'I', value_name = "BYTES", value_parser = values::number::<u16>)]
    inode_size: Option<u16>,
    /// One inode for so many bytes
    #[arg(short = 'i', value_name = "BYTES", value_parser = values::number::<u32>)]
    bytes_per_inode: Option<u32>,
    /// How many inodes
    #[arg(short = 'N', value_name = "NUMBER", conflicts_with = "bytes_per_inode")]
    inodes: Option<u32>,
    /// What it is for, as with `extant mkfs`
    #[arg(short = 'T', value_name = "USAGE")]
    usage: Option<String>,
    /// Label, up to 16 bytes
    #[arg(short = 'L', value_name = "LABEL", default_value = "")]
    label: String,
    /// UUID, or `random` as by default, or `clear`
    #[arg(short = 'U', value_name = "UUID", value_parser = parse_uuid)]
    uuid: Option<[u8; 16]>,
    /// Features to switch, such as ^has_journal,^64bit
    #[arg(short = 'O', value_name = "FEATURES")]
    features: Vec<String>,
    /// Percent that only root may use; 5 by default
    #[arg(short = 'm', value_name = "PERCENT", value_parser = parse_percent)]
    reserved: Option<Percent>,
    /// The journal, as with `extant mkfs`, such as 16M
    #[arg(short = 'J', value_name = "OPTION=VALUE,..")]
    journal: Vec<String>,
    /// Extended options, as with `extant mkfs`
    #[arg(short = 'E', value_name = "OPTION=VALUE,..")]
    extended: Vec<String>,
}

pub fn run(args: &BuildArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.update {
        return update(args, out);
    }
    let name = || args.image.display().to_string();
    let mut options = args.options()?;
    let target = Target::open(&args.image, args.force)?;
    interrupt::watch();
    let progress = Progress::new(None, if args.quiet { Words::Quiet } else { Words::Usual });
    let watching = Watching::new(&progress);
    let mut build = Build::new(args.rules(&target));
    args.sources(&mut build, &target, &watching)?;
    widen(&build, &mut options, args.size).map_err(advised).with_context(name)?;
    // What is to come is counted where somebody needs to know.
    let needs = (args.size == Size::Auto || progress.is_shown())
        .then(|| build.needs(options.block_size.unwrap_or(4096)));
    needs.iter().for_each(|needs| progress.expect(needs.bytes));
    let mut bytes = match (args.size, needs) {
        (Size::Bytes(bytes), _) => bytes,
        (Size::Auto, needs) => {
            let block_size = options.block_size.unwrap_or(4096);
            let needs = needs.unwrap_or_default().with(args.free.unwrap_or_default(), block_size);
            options = smallest(needs, &options).with_context(name)?;
            options.size_bytes.unwrap_or_default()
        }
    };
    let mut attempt = 0;
    let totals = loop {
        let sized = MkfsOptions { size_bytes: Some(bytes), ..options.clone() };
        let device = Arc::new(target.device(bytes)?);
        mkfs(&device, &sized).map_err(advised).with_context(name)?;
        let times = times_of(args.deterministic, &sized);
        match fill(&mut build, device, times, args.threads, &watching) {
            Err(error) if args.size == Size::Auto && attempt < 8 && is_no_space(&error) => {
                // Counting ahead knows neither attributes nor how full directories will be.
                let more = (bytes / 64).max(64 << 10) << attempt;
                bytes = (bytes + more).next_multiple_of(64 << 10);
                attempt += 1;
            }
            filled => break filled.inspect_err(|_| progress.clear()).with_context(name)?,
        }
    };
    target.keep()?;
    progress.finish();
    if !args.quiet {
        let files = crate::output::count(totals.files, "file");
        let directories = match totals.directories {
            1 => "1 directory".to_owned(),
            directories => format!("{directories} directories"),
        };
        let (image, data) = (size(bytes), size(totals.bytes));
        writeln!(out, "{}: {image} with {files}, {directories} and {data} in them", name())?;
    }
    match progress.worst_code() {
        0 => Ok(()),
        code => Err(Told(code).into()),
    }
}

/// Switches on what the largest directory needs, unless somebody says otherwise.
fn widen(build: &Build, options: &mut MkfsOptions, size: Size) -> Result<(), MkfsError> {
    let block_size = match (options.block_size, size) {
        (Some(block_size), _) => block_size,
        (None, Size::Auto) => 4096,
        (None, Size::Bytes(bytes)) => {
            let sized = MkfsOptions { size_bytes: Some(bytes), ..options.clone() };
            Plan::new(bytes, &sized)?.superblock().geometry().block_size
        }
    };
    match build.has_large_directory(block_size) {
        true => options.features.prefer("large_dir"),
        false => Ok(()),
    }
}

/// Applies the sources to an image that exists.
fn update(args: &BuildArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = || args.image.display().to_string();
    let target = Target { image: args.image.clone(), making: None };
    interrupt::watch();
    let progress = Progress::new(None, if args.quiet { Words::Quiet } else { Words::Usual });
    let watching = Watching::new(&progress);
    let mut build = Build::in_place(args.rules(&target));
    args.sources(&mut build, &target, &watching)?;
    raise_limit_of_open_files();
    let threads = args.threads.unwrap_or_else(processors);
    let totals = volume::change(&args.image, |filesystem| {
        match build.apply(filesystem, threads, &watching) {
            Err(BuildError::Interrupted) => {
                Err(Interrupted("; what was applied by then is kept".to_owned()).into())
            }
            applied => applied.with_context(name),
        }
    });
    let totals = totals.inspect_err(|_| progress.clear())?;
    progress.finish();
    if !args.quiet {
        let (files, data) = (crate::output::count(totals.files, "file"), size(totals.bytes));
        writeln!(out, "{}: {files} and {data} applied", name())?;
    }
    match progress.worst_code() {
        0 => Ok(()),
        code => Err(Told(code).into()),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether a larger image could have room.
fn is_no_space(error: &anyhow::Error) -> bool {
    use extant::Error;
    let Some(BuildError::Engine { error, .. }) = error.downcast_ref() else { return false };
    matches!(error, Error::NoSpace { .. } | Error::NoInodes)
}

/// Fills the empty file system on `device`.
pub fn fill(
    build: &mut Build,
    device: Arc<dyn BlockDevice>,
    times: Times,
    threads: Option<usize>,
    watching: &Watching<'_>,
) -> anyhow::Result<Totals> {
    let threads = threads.unwrap_or_else(processors);
    raise_limit_of_open_files();
    match build.fill(device, times.clock, times.entropy, threads, watching) {
        Err(BuildError::Interrupted) => Err(Interrupted(String::new()).into()),
        Err(BuildError::OnlyReadable(features)) => Err(failure::OnlyReadable(features).into()),
        filled => Ok(filled?),
    }
}

/// Fills the empty file system on `device`, which is `image`, with everything below a directory.
pub fn fill_from(
    from: &Path,
    device: Arc<dyn BlockDevice>,
    image: &Path,
    without_xattrs: bool,
    options: &MkfsOptions,
) -> anyhow::Result<()> {
    interrupt::watch();
    let progress = Progress::new(None, Words::Quiet);
    let watching = Watching::new(&progress);
    let is_dated = source_date()?.is_some();
    let rules =
        Rules { avoid: ids(image), without_xattrs, only_modified: is_dated, ..Rules::default() };
    let mut build = Build::new(rules);
    build.add_directory(from, &watching)?;
    fill(&mut build, device, times_of(is_dated, options), None, &watching)
        .with_context(|| image.display().to_string())?;
    match progress.worst_code() {
        0 => Ok(()),
        code => Err(Told(code).into()),
    }
}

/// The files that must not be read as sources: the image itself.
fn ids(image: &Path) -> Vec<(u64, u64)> {
    std::fs::metadata(image).map(|found| (found.dev(), found.ino())).into_iter().collect()
}

/// Files that wait to be copied are open.
fn raise_limit_of_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is open is bounded, and mostly far below the limit.
    let _ = setrlimit(Resource::Nofile, limit);
}

impl BuildArgs {
    fn rules(&self, target: &Target) -> Rules {
        let mapped = |ranges: &[(u32, u32, u32)]| match ranges {
            [] => Owners::Kept,
            ranges => Owners::Mapped(ranges.to_vec()),
        };
        let (users, groups) = match self.owner {
            Some((uid, gid)) => (Owners::All(uid), Owners::All(gid)),
            None => (mapped(&self.uid_map), mapped(&self.gid_map)),
        };
        Rules {
            users,
            groups,
            only_modified: self.deterministic,
            exclude: self.exclude.clone(),
            avoid: [ids(&self.image), ids(target.path())].concat(),
            ..Rules::default()
        }
    }

    /// Adds all sources in their order, layers on top.
    fn sources(
        &self,
        build: &mut Build,
        target: &Target,
        watching: &Watching<'_>,
    ) -> anyhow::Result<()> {
        let spool = target.folder();
        let from = self.from.iter().map(|path| (path, Names::Plain));
        for (path, names) in from.chain(self.layer.iter().map(|path| (path, Names::Layer))) {
            if path.as_os_str() == "-" {
                let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
                build.add_archive(input, "standard input", names, spool, watching)?;
            } else {
                build.add(path, names, spool, watching)?;
            }
        }
        let time = Timestamp { seconds: self.time()?, nanoseconds: 0 };
        for path in &self.entries {
            build.add_entries(path, time, spool, watching).map_err(|error| match error {
                BuildError::Entry { .. } => failure::Usage(error.to_string()).into(),
                error => anyhow::Error::from(error),
            })?;
        }
        Ok(())
    }

    /// When it is made.
    fn time(&self) -> anyhow::Result<i64> {
        Ok(if self.deterministic { source_date()?.unwrap_or(0) } else { values::now().seconds })
    }

    fn options(&self) -> anyhow::Result<MkfsOptions> {
        let layout = &self.layout;
        let label = layout.label.clone().into_bytes();
        let wrong = |error: extant_image::MkfsError| failure::Usage(error.to_string());
        let (mut features, mut extended) = (FeatureEdits::default(), ExtendedOptions::default());
        layout.features.iter().try_for_each(|list| features.apply(list)).map_err(wrong)?;
        layout.extended.iter().try_for_each(|list| extended.apply(list)).map_err(wrong)?;
        let random = |purpose| match self.deterministic {
            true => derived_uuid(&label, purpose),
            false => random_uuid(),
        };
        let now = self.time()?;
        let mut options = MkfsOptions {
            usage: layout.usage.clone(),
            block_size: layout.block_size.or((self.size == Size::Auto).then_some(4096)),
            inode_size: layout.inode_size,
            bytes_per_inode: layout.bytes_per_inode,
            inodes: layout.inodes,
            reserved: layout.reserved,
            uuid: layout.uuid.unwrap_or_else(|| random(1)),
            hash_seed: random(2),
            time_seconds: u32::try_from(now).unwrap_or(u32::MAX),
            features,
            extended,
            label,
            ..MkfsOptions::default()
        };
        for word in layout.journal.iter().flat_map(|list| list.split(',')) {
            set_journal(&mut options, word).map_err(failure::Usage)?;
        }
        Ok(options)
    }
}

/// From the system, or from the options alone.
fn times_of(deterministic: bool, options: &MkfsOptions) -> Times {
    match deterministic {
        true => Times::still(options.time_seconds.into(), options.uuid, 0),
        false => Times::system(),
    }
}

/// Tells the user; each line once, though an image may be built again because it was too small.
pub struct Watching<'a> {
    progress: &'a Progress,
    told: Mutex<HashSet<String>>,
}

impl<'a> Watching<'a> {
    pub fn new(progress: &'a Progress) -> Self {
        Self { progress, told: Mutex::default() }
    }
}

impl Observer for Watching<'_> {
    fn failed(&self, failure: &Failure) {
        let line = failure.to_string();
        let is_new = self.told.lock().is_ok_and(|mut told| told.insert(line.clone()));
        if is_new {
            self.progress.failed(&line, 1);
        }
    }

    fn entry_done(&self) {
        self.progress.file_done();
    }

    fn bytes_done(&self, bytes: u64) {
        self.progress.bytes_done(bytes);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_wanted()
    }
}

/// How large an image shall be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Size {
    Auto,
    Bytes(u64),
}

fn parse_size(text: &str) -> Result<Size, String> {
    if text == "auto" { Ok(Size::Auto) } else { values::size(text).map(Size::Bytes) }
}

fn parse_free(text: &str) -> Result<Room, String> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent =
                percent.parse::<u16>().map_err(|_| format!("`{text}` is no percentage"))?;
            Ok(Room::Percent(percent.into()))
        }
        None => values::size(text).map(Room::Bytes),
    }
}

fn parse_range(text: &str) -> Result<(u32, u32, u32), String> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([from, to]) => Ok((*from, *to, 1)),
        Some([from, to, count]) => Ok((*from, *to, *count)),
        _ => Err(format!("`{text}` is not FROM:TO or FROM:TO:COUNT")),
    }
}

fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    match parse_range(text) {
        Ok((uid, gid, 1)) => Ok((uid, gid)),
        _ => Err(format!("`{text}` is not UID:GID")),
    }
}

/// Where the image is made: under a name of its own beside the final one, or in a device, which has but one.
struct Target {
    image: PathBuf,
    making: Option<PathBuf>,
}

impl Target {
    fn open(image: &Path, force: bool) -> anyhow::Result<Self> {
        let found = std::fs::metadata(image);
        let is_file = found.as_ref().map_or(true, std::fs::Metadata::is_file);
        if found.is_ok() && is_file && !force {
            let line = format!("{} exists already; -F replaces it", image.display());
            return Err(failure::Usage(line).into());
        }
        if !is_file {
            let device = volume::open_whole(image)?;
            let held = foreign::contents(&device).with_context(|| image.display().to_string())?;
            if let Some(found) = held.filter(|_| !force) {
                let line = format!("{}: holds {found} already; -F replaces it", image.display());
                return Err(failure::Usage(line).into());
            }
            return Ok(Self { image: image.to_owned(), making: None });
        }
        // A link keeps leading to it.
        let image = std::fs::canonicalize(image).unwrap_or_else(|_| image.to_owned());
        let mut name = std::ffi::OsString::from(".");
        name.push(image.file_name().context("the image has no name")?);
        name.push(format!(".{}", std::process::id()));
        let making = Some(image.with_file_name(name));
        Ok(Self { image, making })
    }

    /// The device, made anew if it is a file.
    fn device(&self, bytes: u64) -> anyhow::Result<FileDevice> {
        match &self.making {
            None => volume::open_whole(&self.image),
            Some(making) => {
                // It can only be of a process of the same number that was killed.
                let _ = std::fs::remove_file(making);
                volume::create_whole(making, bytes)
            }
        }
    }

    /// The folder that it is in.
    fn folder(&self) -> &Path {
        let folder = self.image.parent().filter(|folder| !folder.as_os_str().is_empty());
        match self.making {
            Some(_) => folder.unwrap_or(Path::new(".")),
            None => folder.filter(|_| self.image.is_file()).unwrap_or(Path::new("/tmp")),
        }
    }

    /// Where it is made.
    fn path(&self) -> &Path {
        self.making.as_ref().unwrap_or(&self.image)
    }

    /// Gives the image its name.
    fn keep(mut self) -> anyhow::Result<()> {
        if let Some(making) = self.making.take() {
            let renamed = std::fs::rename(&making, &self.image);
            renamed.inspect_err(|_| drop(std::fs::remove_file(&making)))?;
            let folder = self.image.parent().filter(|folder| !folder.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(making) = &self.making {
            let _ = std::fs::remove_file(making);
        }
    }
}
