//! What a crash can leave: [`RecordingDevice`] keeps a log of all that changes a device, [`CrashImages`] builds every image
//! that the log allows.
//!
//! Knows sectors and flushes, and no file system: whoever writes to a device can be crashed with it. `extant-script` does so
//! with a script's operations.
//!
//! # Invariants
//! The same calls and seeds give the same log and the same images. What a flush covered, or FUA, is in every image behind it.
//! # Locking
//! A recording holds its one lock while the device below works, since a log has one order.
//! # Not here
//! Devices that fail or lie (`extant-testkit`); what an image should hold (`extant-script`, `extant-lab`).
//! # Source
//! What a flush and FUA promise: kernel `Documentation/block/writeback_cache_control.rst`.

mod images;
mod random;
mod recording;
mod slices;

pub use images::{CrashImage, CrashImages, CrashOptions};
pub use random::Random;
pub use recording::{Change, Event, Kept, Log, RecordingDevice};
pub use slices::part_of;
