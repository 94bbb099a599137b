//! What an error that is found does to the mount: `errors=` of ext4.
//!
//! Source: kernel `fs/ext4/super.c`, `ext4_handle_error`.

use std::time::Duration;

use extant::{Error, OnError};

use super::Server;

impl Server {
    /// Does what is due by the clock; when to call again. A failure is told to whoever syncs.
    pub fn tick(&self) -> Duration {
        let pause = self.filesystem.tick();
        if let Err(error @ (Error::Corrupt(_) | Error::InUse(_))) = &pause {
            self.found_damage(error);
        }
        if self.on_error == OnError::Panic
            && let Err(error @ Error::Aborted { .. }) = self.filesystem.check_writable()
        {
            self.found_damage(&error);
        }
        pause.unwrap_or(Duration::from_secs(1))
    }

    /// An operation came upon damage.
    pub(super) fn found_damage(&self, error: &Error) {
        self.found.get_or_init(|| error.to_string());
        self.filesystem.handle_error(error, self.on_error);
    }

    /// The first error that was found, in words, and what errors do to the mount; `None` if there was none.
    pub fn damage(&self) -> Option<(&str, OnError)> {
        Some((self.found.get()?, self.on_error))
    }
}
