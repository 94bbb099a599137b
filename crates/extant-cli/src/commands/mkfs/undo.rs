//! What is overwritten may be kept in an undo file, from which e2undo(8) brings it back.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use extant_device::{BlockDevice, BlockDeviceExt, FileDevice, WindowDevice};
use extant_image::mkfs::Config;
use extant_image::undo::UndoDevice;

use crate::failure::Usage;

/// The undo file that somebody asks for: by name, or, where an ext2, ext3 or ext4 file system is overwritten, by the environment
/// or the configuration naming a directory for them.
///
/// # Errors
/// One that has something in it already.
pub fn wanted(
    named: Option<&Path>,
    config: &Config,
    image: &Path,
    offset: u64,
) -> anyhow::Result<Option<PathBuf>> {
    if let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) {
        if std::fs::metadata(named).is_ok_and(|found| !found.is_file() || found.len() > 0) {
            let line = format!("-z: {} has something in it already", named.display());
            return Err(Usage(line).into());
        }
        return Ok(Some(named.to_owned()));
    }
    let of_environment = std::env::var_os("E2FSPROGS_UNDO_DIR").map(PathBuf::from);
    let folder = of_environment.or_else(|| config.default_of("undo_dir").map(PathBuf::from));
    let is_none = |folder: &PathBuf| folder.as_os_str() == "none" || !folder.is_dir();
    let Some(folder) = folder.filter(|folder| !is_none(folder)) else { return Ok(None) };
    if !holds_ext(image, offset) {
        return Ok(None);
    }
    let mut name = std::ffi::OsString::from("mke2fs-");
    name.push(image.file_name().unwrap_or_default());
    name.push(".e2undo");
    let undo = folder.join(name);
    // What it would undo is overwritten now.
    match std::fs::remove_file(&undo) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| undo.display().to_string())
        }
        _ => Ok(Some(undo)),
    }
}

/// Whether there is a superblock's magic number.
fn holds_ext(image: &Path, offset: u64) -> bool {
    let device = FileDevice::open_read_only(image);
    device.is_ok_and(|device| {
        let magic = device.read_vec(offset.saturating_add(MAGIC_AT), 2);
        magic.is_ok_and(|magic| magic == MAGIC)
    })
}

/// A device that is to be written, and what keeps what was on it.
pub struct Target {
    /// It begins where the file system does.
    pub device: Arc<dyn BlockDevice>,
    recording: Option<(PathBuf, Arc<UndoDevice<WindowDevice<FileDevice>>>)>,
}

impl Target {
    /// `device`, of which what is overwritten is kept in `undo`, if that is wanted.
    pub fn new(device: WindowDevice<FileDevice>, undo: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(undo) = undo else {
            return Ok(Self { device: Arc::new(device), recording: None });
        };
        // It has what only those may read who may read the device.
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&undo);
        let file = file.with_context(|| undo.display().to_string())?;
        let offset = device.place().0;
        let recorder = Arc::new(UndoDevice::new(device, file, offset));
        Ok(Self { device: recorder.clone(), recording: Some((undo, recorder)) })
    }

    /// What came of the work, or of keeping what it overwrote.
    pub fn settle<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let Some((undo, recorder)) = &self.recording else { return outcome };
        let name = || undo.display().to_string();
        match (outcome, recorder.failure()) {
            (_, Some(failure)) => Err(failure).with_context(name),
            (Err(error), None) => Err(error),
            (Ok(made), None) => {
                recorder.finish().with_context(name)?;
                Ok(made)
            }
        }
    }

    /// The undo file.
    pub fn undo(&self) -> Option<&Path> {
        self.recording.as_ref().map(|(undo, _)| undo.as_path())
    }
}

/// Of a superblock, with its place in it.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xEF];
