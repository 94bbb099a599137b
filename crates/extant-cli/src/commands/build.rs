//! `extant build`: makes a whole image from directories.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use extant::time::{Clock, Entropy, SystemClock, SystemEntropy};
use extant_device::{BlockDevice, FileDevice};
use extant_image::build::{
    Build, BuildError, Failure, Observer, Rules, StillClock, Totals, UuidEntropy, derived_uuid,
};
use extant_image::mkfs::{ExtendedOptions, FeatureEdits, Percent};
use extant_image::{MkfsOptions, mkfs};

use super::mkfs::advised;
use super::mkfs::arguments::{parse_percent, parse_uuid, random_uuid, set_journal};
use crate::failure::{self, Told};
use crate::interrupt::{self, Interrupted};
use crate::output::size;
use crate::progress::{Progress, Words};
use crate::{foreign, values, volume};

/// Make a whole image from directories
///
/// Files keep owners, permissions, times, attributes, access lists, holes and hard links. Every file lies in one piece, small
/// ones side by side. The image gets its name when it is whole, so an interrupted build leaves nothing.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Image file or block device
    #[arg(value_parser = super::image())]
    image: PathBuf,
    /// What goes into it: a directory. Of several, later ones win, and directories join
    #[arg(long, value_name = "SOURCE", required = true)]
    from: Vec<PathBuf>,
    /// How large it shall be, such as 512M or 1.5G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    size: u64,
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
    let name = args.image.display();
    let options = args.options()?;
    let target = Target::open(&args.image, args.force)?;
    interrupt::watch();
    let device = Arc::new(target.device(args.size)?);
    let progress = Progress::new(None, if args.quiet { Words::Quiet } else { Words::Usual });
    let watching = Watching(&progress);
    let mut build = Build::new(Rules {
        only_modified: args.deterministic,
        avoid: [ids(&args.image), ids(target.path())].concat(),
        ..Rules::default()
    });
    for source in &args.from {
        build.add_directory(source, &watching)?;
    }
    mkfs(&device, &options).map_err(advised).with_context(|| name.to_string())?;
    let times = Times::new(args.deterministic, &options);
    let filled = fill(&mut build, device, times, args.threads, &progress);
    let totals = filled.inspect_err(|_| progress.clear()).with_context(|| name.to_string())?;
    target.keep()?;
    progress.finish();
    if !args.quiet {
        let Totals { files, directories, bytes } = totals;
        writeln!(
            out,
            "{name}: {} in {}, {} and {}",
            size(bytes),
            crate::output::count(files, "file"),
            if directories == 1 {
                "1 directory".to_owned()
            } else {
                format!("{directories} directories")
            },
            size(args.size),
        )?;
    }
    match progress.worst_code() {
        0 => Ok(()),
        code => Err(Told(code).into()),
    }
}

/// Fills the empty file system on `device`.
pub fn fill(
    build: &mut Build,
    device: Arc<dyn BlockDevice>,
    times: Times,
    threads: Option<usize>,
    progress: &Progress,
) -> anyhow::Result<Totals> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(processors);
    raise_limit_of_open_files();
    match build.fill(device, times.clock, times.entropy, threads, &Watching(progress)) {
        Err(BuildError::Interrupted) => Err(Interrupted(String::new()).into()),
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
    let mut build = Build::new(Rules { avoid: ids(image), without_xattrs, ..Rules::default() });
    build.add_directory(from, &Watching(&progress))?;
    let is_dated = source_date()?.is_some();
    fill(&mut build, device, Times::new(is_dated, options), None, &progress)
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
        let now =
            if self.deterministic { source_date()?.unwrap_or(0) } else { values::now().seconds };
        let mut options = MkfsOptions {
            size_bytes: Some(self.size),
            usage: layout.usage.clone(),
            block_size: layout.block_size,
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

/// What `SOURCE_DATE_EPOCH` says, if it is set.
fn source_date() -> anyhow::Result<Option<i64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || failure::Usage("SOURCE_DATE_EPOCH is no number of seconds".to_owned());
    Ok(Some(seconds.ok_or_else(wrong)?))
}

/// Where times and numbers come from.
pub struct Times {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Times {
    /// From the system.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::default()), entropy: Arc::new(SystemEntropy) }
    }

    /// From the system, or from the options alone.
    pub fn new(deterministic: bool, options: &MkfsOptions) -> Self {
        if !deterministic {
            return Self::system();
        }
        let now = extant_format::Timestamp { seconds: options.time_seconds.into(), nanoseconds: 0 };
        Self {
            clock: Arc::new(StillClock(now)),
            entropy: Arc::new(UuidEntropy::new(options.uuid, 0)),
        }
    }
}

/// Tells the user.
pub struct Watching<'a>(pub &'a Progress);

impl Observer for Watching<'_> {
    fn failed(&self, failure: &Failure) {
        self.0.failed(&failure.to_string(), 1);
    }

    fn entry_done(&self) {
        self.0.file_done();
    }

    fn bytes_done(&self, bytes: u64) {
        self.0.bytes_done(bytes);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_wanted()
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
            let folder = std::fs::File::open(folder.unwrap_or(Path::new(".")))?;
            folder.sync_all()?;
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
