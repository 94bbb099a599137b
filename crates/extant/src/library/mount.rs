//! Mounting, by way of the options.

use alloc::sync::Arc;

use extant_device::BlockDevice;

use super::Filesystem;
use crate::Error;
use crate::filesystem;
use crate::options::MountOptions;
use crate::time::{Clock, Entropy};

impl MountOptions {
    /// Mounts the volume on `device` with the system's clock and random numbers.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`] or [`Error::Device`].
    #[cfg(feature = "std")]
    pub fn mount(self, device: impl BlockDevice + 'static) -> Result<Filesystem, Error> {
        let clock = Arc::new(crate::time::SystemClock::default());
        self.mount_with(Arc::new(device), clock, Arc::new(crate::time::SystemEntropy))
    }

    /// Mounts the volume on `device`, with time and random numbers from outside.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn mount_with(
        self,
        device: Arc<dyn BlockDevice>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Filesystem, Error> {
        filesystem::mount(self, device, clock, entropy).map(Filesystem::new)
    }
}
