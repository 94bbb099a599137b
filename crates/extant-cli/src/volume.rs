//! Images, opened for a command: the one place that mounts.

use std::path::Path;

use anyhow::Context;
use extant::{Filesystem, MountOptions};
use extant_device::FileDevice;
use extant_format::Superblock;

use crate::failure::{self, NoExt4, OnlyReadable};
use crate::foreign;

/// Opens an image to read; it is never written, not even to recover its journal.
pub fn open(image: &Path) -> anyhow::Result<Filesystem> {
    let device = FileDevice::open_read_only(image)?;
    MountOptions::read_only().mount(device).map_err(|error| unusable(image, error.into()))
}

/// Why an image cannot be used: it is damaged, or none at all.
pub fn unusable(image: &Path, error: anyhow::Error) -> anyhow::Error {
    let is_short = std::fs::metadata(image)
        .is_ok_and(|found| found.is_file() && found.len() < Superblock::OFFSET_BYTES + 1024);
    let error = match is_short || failure::is_no_ext4(&error) {
        true => NoExt4(foreign::advice(image)).into(),
        false => error,
    };
    error.context(image.display().to_string())
}

/// Does `work` on an image that is open for writing, and leaves it unmounted, durable and clean, whether it succeeds or
/// not.
pub fn change<T>(
    image: &Path,
    work: impl FnOnce(&Filesystem) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let device = FileDevice::open(image)?;
    let name = || image.display().to_string();
    let mounted = MountOptions::new().cache_bytes(CACHE_BYTES).mount(device);
    let filesystem = mounted.map_err(|error| unusable(image, error.into()))?;
    let outcome = match filesystem.read_only_because() {
        Some(features) => Err(OnlyReadable(features.to_owned())).with_context(name),
        None => work(&filesystem),
    };
    let unmounted = filesystem.unmount().with_context(name);
    let value = outcome?;
    unmounted.map(|()| value)
}

/// Does `work` on each image once, with all of its paths; what fails is told, and the others go on.
pub fn change_each(
    paths: &[crate::address::ImagePath],
    mut work: impl FnMut(&Filesystem, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    failure::each(paths.chunk_by(|one, next| one.image == next.image), |run| {
        change(&run[0].image, |filesystem| {
            failure::each(run, |at| work(filesystem, &at.path).with_context(|| at.to_string()))
        })
    })
}

/// A command writes each file once and looks back at nothing, so more would only take memory from others.
const CACHE_BYTES: u64 = 128 << 20;
