//! Where an image's times and numbers come from: the system, or what makes the same input give the same bytes.

use std::sync::Arc;

use extant::time::{Clock, Entropy, SystemClock, SystemEntropy};
use extant_format::Timestamp;
use extant_image::build::{StillClock, UuidEntropy};

use crate::failure::Usage;

/// A clock, and somebody who draws numbers.
pub struct Times {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl Times {
    /// From the system.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::default()), entropy: Arc::new(SystemEntropy) }
    }

    /// It is always this moment, and numbers follow from the image's UUID and from how often it was mounted.
    pub fn still(seconds: i64, uuid: [u8; 16], mounts: u16) -> Self {
        let now = Timestamp { seconds, nanoseconds: 0 };
        let entropy = UuidEntropy::new(uuid, mounts);
        Self { clock: Arc::new(StillClock(now)), entropy: Arc::new(entropy) }
    }
}

/// What `SOURCE_DATE_EPOCH` says, if it is set.
pub fn source_date() -> anyhow::Result<Option<i64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.trim().parse().ok());
    let wrong = || Usage("SOURCE_DATE_EPOCH is no number of seconds".to_owned());
    Ok(Some(seconds.ok_or_else(wrong)?))
}
