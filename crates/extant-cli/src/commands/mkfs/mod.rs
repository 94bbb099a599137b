//! `extant mkfs`: makes an image with an empty file system, or a journal device.

pub mod arguments;
mod bad_blocks;
mod block_device;
mod summary;
mod undo;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use extant_device::{BlockDevice, FileDevice, WindowDevice};
use extant_format::Superblock;
use extant_format::cast::u64_from;
use extant_image::mkfs::{
    ExternalJournal, journal_device_block_size, make_journal_device, use_journal_device,
    wants_journal_device,
};
use extant_image::{MkfsError, MkfsOptions, Plan};

pub use self::arguments::MkfsArgs;
use super::build;
use crate::failure::{Usage, say};
use crate::{foreign, interrupt, volume};

pub fn run(args: &MkfsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(image) = args.image.as_deref().filter(|_| !args.version) else {
        let version = env!("CARGO_PKG_VERSION");
        return Ok(writeln!(out, "extant mkfs {version}, with the options of mke2fs 1.47")?);
    };
    if let Some(from) = args.from.as_ref().filter(|from| !from.is_dir()) {
        return Err(Usage(format!("{}: not a directory", from.display())).into());
    }
    let mut options = args.options()?;
    let is_new = !image.exists();
    let mut kept = None;
    let made = make(args, image, &mut options, &mut kept).inspect_err(|_| {
        if is_new {
            // Nothing was there before, and an image without a file system is of no use.
            let _ = std::fs::remove_file(image);
        }
    })?;
    tell(args, out, image, &made)?;
    match kept.filter(|_| !args.quiet) {
        Some(undo) => {
            let (undo, image) = (undo.display(), image.display());
            Ok(writeln!(out, "`e2undo {undo} {image}` brings back what was there")?)
        }
        None => Ok(()),
    }
}

/// What came of it.
enum Made {
    FileSystem { superblock: Box<Superblock>, lost_journal: bool },
    Journal { bytes: u64 },
}

fn tell(args: &MkfsArgs, out: &mut dyn Write, image: &Path, made: &Made) -> anyhow::Result<()> {
    if args.quiet && !args.dry_run {
        return Ok(());
    }
    match made {
        Made::Journal { bytes } => {
            let bytes = crate::output::size(*bytes);
            Ok(writeln!(out, "{}: a journal of {bytes} for other devices", image.display())?)
        }
        Made::FileSystem { superblock, lost_journal } => {
            summary::short(out, image, superblock, *lost_journal)?;
            if superblock.geometry().inode_size == 128 {
                say("warning: inodes of 128 bytes have no room for dates after 2038");
            }
            if args.verbose { summary::long(out, superblock) } else { Ok(()) }
        }
    }
}

/// Makes the file system, and fills it if asked; `kept` becomes the undo file, if there is one.
fn make(
    args: &MkfsArgs,
    image: &Path,
    options: &mut MkfsOptions,
    kept: &mut Option<PathBuf>,
) -> anyhow::Result<Made> {
    let name = || image.display().to_string();
    let offset = options.extended.offset_bytes.unwrap_or(0);
    let target = Target::look(args, image, options)?;
    let after = target.bytes.saturating_sub(offset);
    let undo = match args.dry_run {
        true => None,
        false => undo::wanted(args.undo.as_deref(), &options.config, image, offset)?,
    };
    if undo.is_some() {
        // What is given back cannot be kept.
        options.extended.discard = Some(false);
    }
    let open = || -> anyhow::Result<undo::Target> {
        let device = WindowDevice::new(target.open(args, image)?, offset, None);
        undo::Target::new(device.with_context(name)?, undo.clone())
    };
    if wants_journal_device(options, after).map_err(advised).with_context(name)? {
        if args.dry_run {
            return Ok(Made::Journal { bytes: options.size_bytes.unwrap_or(after) });
        }
        let device = open()?;
        *kept = device.undo().map(Path::to_owned);
        let made = make_journal_device(&*device.device, options).map_err(advised);
        let made = device.settle(made.with_context(name))?;
        let block_size = 1024_u64 << made.log_block_size.get();
        return Ok(Made::Journal { bytes: made.blocks_count() * block_size });
    }
    let plan = prepare(args, image, options, &target)?;
    let lost_journal = plan.lost_journal();
    let made = |superblock| Made::FileSystem { superblock: Box::new(superblock), lost_journal };
    if args.dry_run {
        return Ok(made(plan.superblock().clone()));
    }
    let device = open()?;
    *kept = device.undo().map(Path::to_owned);
    let written = write(args, image, options, (plan, &target, &device.device));
    Ok(made(device.settle(written)?))
}

/// Looks for bad blocks if asked, writes what is planned, and fills it if asked.
fn write(
    args: &MkfsArgs,
    image: &Path,
    options: &mut MkfsOptions,
    (mut plan, target, device): (Plan, &Target, &Arc<dyn BlockDevice>),
) -> anyhow::Result<Superblock> {
    let name = || image.display().to_string();
    let (geometry, before) = (*plan.superblock().geometry(), options.clone());
    if args.check > 0 && target.exists {
        interrupt::watch();
        let found = bad_blocks::found(image, &**device, &geometry, args.check > 1)?;
        if !found.is_empty() {
            let (count, bad) =
                (found.len(), if args.check > 1 { "are bad" } else { "cannot be read" });
            say(&format!("{}: {} {bad}", name(), crate::output::count(u64_from(count), "block")));
        }
        options.bad_blocks.extend(found);
        options.bad_blocks.sort_unstable();
        options.bad_blocks.dedup();
    }
    if let Some(journal) = args.journal_device() {
        options.external_journal = Some(join(&journal, geometry.block_size, options.uuid)?);
    }
    if options.bad_blocks != before.bad_blocks
        || options.external_journal != before.external_journal
    {
        plan = Plan::new(target.bytes, options).map_err(advised).with_context(name)?;
    }
    let superblock = plan.write(&**device).map_err(advised).with_context(name)?;
    if let Some(from) = &args.from {
        let without_xattrs = options.extended.no_copy_xattrs == Some(true);
        build::fill_from(from, Arc::clone(device), image, without_xattrs, options)?;
    }
    Ok(superblock)
}

/// Fills in what is to be learned from devices, and decides.
fn prepare(
    args: &MkfsArgs,
    image: &Path,
    options: &mut MkfsOptions,
    target: &Target,
) -> anyhow::Result<Plan> {
    let name = || image.display().to_string();
    if let Some(journal) = args.journal_device() {
        let device = FileDevice::open_read_only(&journal)?;
        let size = journal_device_block_size(&device)?;
        let none = || Usage(format!("{}: this is no journal device", journal.display()));
        options.block_size = options.block_size.or(Some(size.ok_or_else(none)?));
        // The right one is filled in when all else is known to fit.
        options.external_journal = Some(ExternalJournal { uuid: [0; 16], device: 0 });
    }
    if target.sector_bytes > options.block_size.unwrap_or(u32::MAX) {
        let sector = target.sector_bytes;
        return Err(Usage(format!("-b: {} has sectors of {sector} bytes", name())).into());
    }
    let least = options.least_block_size.unwrap_or(0).max(target.sector_bytes);
    options.least_block_size = Some(least);
    let plan = Plan::new(target.bytes, options).map_err(advised).with_context(name)?;
    let knows_all = image.is_file() || !image.exists();
    if knows_all && args.bad_blocks.is_none() {
        return Ok(plan);
    }
    let geometry = plan.superblock().geometry();
    block_device::fill_in(image, options, geometry.block_size);
    if let Some(list) = &args.bad_blocks {
        options.bad_blocks = bad_blocks::listed(list, geometry.blocks_count)?;
    }
    Plan::new(target.bytes, options).map_err(advised).with_context(name)
}

/// Notes the new file system in its journal's device.
fn join(journal: &Path, block_size: u32, uuid: [u8; 16]) -> anyhow::Result<ExternalJournal> {
    let device = volume::open_whole(journal)?;
    let joined = use_journal_device(&device, block_size, uuid);
    let joined = joined.with_context(|| journal.display().to_string())?;
    Ok(ExternalJournal { device: block_device::number_of(journal), ..joined })
}

/// An error in the words of this command's options, and mistakes of the command line as such.
pub fn advised(error: MkfsError) -> anyhow::Error {
    match error {
        MkfsError::TooSmall { bytes, needed_bytes, journal_bytes } => {
            let journal = match journal_bytes {
                0 => String::new(),
                bytes => {
                    format!(", {bytes} of them for the journal, which `-O ^has_journal` leaves out")
                }
            };
            anyhow::anyhow!(
                "too small: {bytes} bytes, and {needed_bytes} are needed with these options{journal}"
            )
        }
        error => error.into(),
    }
}

/// What the file system goes onto.
struct Target {
    exists: bool,
    bytes: u64,
    sector_bytes: u32,
}

impl Target {
    /// Looks at it, and refuses one that holds something, unless that is wanted.
    fn look(args: &MkfsArgs, image: &Path, options: &MkfsOptions) -> anyhow::Result<Self> {
        let name = || image.display().to_string();
        let offset = options.extended.offset_bytes.unwrap_or(0);
        let wanted = options.size_bytes.map(|bytes| bytes.saturating_add(offset));
        if !image.exists() {
            let missing =
                || Usage(format!("{} does not exist yet; say how large it shall be", name()));
            return Ok(Self { exists: false, bytes: wanted.ok_or_else(missing)?, sector_bytes: 0 });
        }
        let device = if args.dry_run {
            FileDevice::open_read_only(image)?
        } else {
            volume::open_whole(image)?
        };
        let geometry = device.geometry();
        if args.force == 0 && !args.dry_run {
            let device = WindowDevice::new(&device, offset.min(geometry.len_bytes), None);
            let found = foreign::contents(&device.with_context(name)?).with_context(name)?;
            if let Some(found) = found {
                let held = format!("{}: holds {found} already; -F replaces it", name());
                return Err(Usage(held).into());
            }
        }
        let is_file = image.is_file();
        let bytes = match wanted {
            // A file can grow.
            Some(wanted) if is_file => geometry.len_bytes.max(wanted),
            _ => geometry.len_bytes,
        };
        let sector_bytes = if is_file { 0 } else { geometry.sector_bytes };
        Ok(Self { exists: true, bytes, sector_bytes })
    }

    /// Opens it, and gives a file the length that it needs.
    fn open(&self, args: &MkfsArgs, image: &Path) -> anyhow::Result<FileDevice> {
        let name = || image.display().to_string();
        if !self.exists {
            return volume::create_whole(image, self.bytes);
        }
        let mut device = volume::open_whole(image)?;
        if self.bytes > device.geometry().len_bytes && args.size.is_some() {
            device.set_len(self.bytes).with_context(name)?;
        }
        Ok(device)
    }
}
