//! Standing still: frozen for as long as somebody copies the device, or shut down for good.
//!
//! Source: kernel `ext4_freeze`, `ext4_unfreeze`, `ext4_force_shutdown`.

use alloc::vec;
use core::sync::atomic::Ordering;

use extant_device::Request;

use super::volume::Volume;
use crate::Error;
use crate::report::Shutdown;
use crate::transaction::BlockKind;

impl Volume {
    /// Lets running operations finish and no others begin, makes everything durable, empties the journal and marks the
    /// image as clean: a copy of the device is a whole volume.
    ///
    /// # Errors
    /// [`Error::Busy`] if it is frozen; of the device, and then nothing is frozen.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        self.transactions.check_writable()?;
        if !self.gate.freeze() {
            return Err(Error::Busy("the volume is frozen"));
        }
        let written = self.sync_everything();
        let still = written
            .and_then(|()| self.transactions.sync())
            .and_then(|()| self.transactions.close_journal())
            .and_then(|()| self.mark_clean());
        still.inspect_err(|_| {
            self.gate.thaw();
        })
    }

    /// Ends a freeze.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the volume is not frozen; of the device, and then it stays so.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        if !self.gate.is_frozen() {
            return Err(Error::Invalid("the volume is not frozen"));
        }
        if self.transactions.check_writable().is_ok() {
            self.mark_in_use()?;
        }
        self.gate.thaw();
        // What lost its last user meanwhile.
        let _gate = self.gate.read();
        self.dispose_values();
        Ok(())
    }

    /// The superblock says again what it said before the freeze: the journal may have to be recovered.
    fn mark_in_use(&self) -> Result<(), Error> {
        let io = self.transactions.io();
        let number = self.transactions.geometry().superblock_block();
        let frame = self.transactions.read(number, BlockKind::Superblock)?.frame();
        let len = frame.len();
        io.run(&mut [Request::write_fua(io.offset(number), vec![frame.slice(0..len)])])
    }

    /// Forced shutdown: nothing is changed any more.
    ///
    /// # Errors
    /// Of what is made durable before; it is shut down all the same.
    pub(crate) fn shut_down(&self, how: Shutdown) -> Result<(), Error> {
        let flags = match how {
            Shutdown::AfterSync => 0,
            Shutdown::AfterLog => 1,
            Shutdown::AtOnce => 2,
        };
        self.transactions.tracer().emit(|| crate::trace::Event::Shutdown { flags });
        let done = match how {
            Shutdown::AfterSync => self.freeze(),
            Shutdown::AfterLog | Shutdown::AtOnce => Ok(()),
        };
        self.unmounted.store(true, Ordering::Release);
        let done = done.and(self.transactions.shut_down(how == Shutdown::AfterLog));
        self.gate.thaw();
        done
    }
}
