//! Images, opened for a command: the one place that mounts.

use std::path::Path;

use anyhow::Context;
use extant::{Filesystem, MountOptions};
use extant_device::FileDevice;

use crate::failure::OnlyReadable;

/// Opens an image to read; it is never written, not even to recover its journal.
pub fn open(image: &Path) -> anyhow::Result<Filesystem> {
    let device = FileDevice::open_read_only(image)?;
    MountOptions::read_only().mount(device).with_context(|| image.display().to_string())
}

/// Does `work` on an image that is open for writing, and leaves it unmounted, durable and clean, whether it succeeds or
/// not.
pub fn change<T>(
    image: &Path,
    work: impl FnOnce(&Filesystem) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let device = FileDevice::open(image)?;
    let name = || image.display().to_string();
    let filesystem =
        MountOptions::new().cache_bytes(CACHE_BYTES).mount(device).with_context(name)?;
    let outcome = match filesystem.read_only_because() {
        Some(features) => Err(OnlyReadable(features.to_owned()).into()),
        None => work(&filesystem),
    };
    let unmounted = filesystem.unmount().with_context(name);
    let value = outcome?;
    unmounted.map(|()| value)
}

/// Does `work` on each image once, with all of its paths.
pub fn change_each(
    paths: &[crate::address::ImagePath],
    mut work: impl FnMut(&Filesystem, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for run in paths.chunk_by(|one, next| one.image == next.image) {
        change(&run[0].image, |filesystem| {
            run.iter().try_for_each(|at| work(filesystem, &at.path).with_context(|| at.to_string()))
        })?;
    }
    Ok(())
}

/// A command writes each file once and looks back at nothing, so more would only take memory from others.
const CACHE_BYTES: u64 = 128 << 20;
