//! What an error that is found does to the mount: `errors=` of ext4.
//!
//! Source: kernel `fs/ext4/super.c`, `ext4_handle_error`.

use std::time::Duration;

use extant::{Error, Filesystem};

use super::Server;

/// What to do when the volume turns out to be damaged, or its journal had to be given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnError {
    /// Whoever asked is told; all else goes on (`errors=continue`). Without its journal a volume can only be read, as in the
    /// kernel.
    Continue,
    /// Nothing is changed any more (`errors=remount-ro`).
    ReadOnly,
    /// Nothing is written any more, and the mount ends at once: the image is as after a power cut (`errors=panic`).
    Panic,
}

impl OnError {
    /// What the superblock says.
    pub(super) fn stored(filesystem: &Filesystem) -> Self {
        match filesystem.superblock().raw().errors.get() {
            2 => Self::ReadOnly,
            3 => Self::Panic,
            _ => Self::Continue,
        }
    }
}

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
        self.filesystem.note_error();
        self.found.get_or_init(|| error.to_string());
        match self.on_error {
            OnError::Continue => {}
            OnError::ReadOnly => self.filesystem.stop(error.errno()),
            OnError::Panic => self.filesystem.shut_down(),
        }
    }

    /// The first error that was found, in words, and what errors do to the mount; `None` if there was none.
    pub fn damage(&self) -> Option<(&str, OnError)> {
        Some((self.found.get()?, self.on_error))
    }
}
