//! Who answers requests; the transport knows no more of it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Thread;
use std::time::Duration;

use extant::Errno;

use crate::abi::{self, InHeader, opcode};
use crate::message::{Answer, Arguments};

/// Answers requests. Called from any number of threads.
pub trait Backend: Sync {
    /// Puts the answer to one request together.
    ///
    /// # Errors
    /// What is answered instead.
    fn answer(
        &self,
        header: &InHeader,
        arguments: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno>;

    /// The kernel forgot an inode that it was told of so often.
    fn forget(&self, id: u64, times: u64);

    /// Something has gone wrong that cannot be mended: nothing is to be changed any more.
    fn stop(&self);

    /// Does what is due by the clock; how long that may wait the next time.
    fn tick(&self) -> Duration;

    /// From now on it is `clock` that calls [`Self::tick`]: it comes at once when it is unparked.
    fn ticks_in(&self, clock: Thread) {
        drop(clock);
    }
}

/// Whether the kernel waits for an answer.
pub fn has_answer(opcode: u32) -> bool {
    // No request waits for anybody but the device, so there is nothing to interrupt.
    !matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT)
}

/// Serves one request; whether there is something to send back.
fn serve_one(backend: &impl Backend, message: &[u8], answer: &mut Answer) -> bool {
    let Some((header, arguments)) = Arguments::split(message) else { return false };
    if !has_answer(header.opcode) {
        forget(backend, &header, arguments);
        return false;
    }
    answer.clear();
    let outcome = backend.answer(&header, arguments, answer);
    answer.close(header.unique, outcome);
    true
}

/// The same where a panic stops the volume, rather than have it go on with what is left then; the request failed. `outcome` says
/// so to whoever serves.
pub fn serve_safely(
    backend: &impl Backend,
    message: &[u8],
    answer: &mut Answer,
    outcome: &mut io::Result<()>,
) -> bool {
    catch_unwind(AssertUnwindSafe(|| serve_one(backend, message, answer))).unwrap_or_else(|_| {
        *outcome = Err(io::Error::other("a request has panicked"));
        let _ = catch_unwind(AssertUnwindSafe(|| backend.stop()));
        answer.clear();
        Arguments::split(message).is_some_and(|(header, _)| {
            answer.close(header.unique, Err(Errno::IO));
            has_answer(header.opcode)
        })
    })
}

fn forget(backend: &impl Backend, header: &InHeader, mut arguments: Arguments<'_>) {
    let count = match header.opcode {
        opcode::FORGET => {
            if let Ok(one) = arguments.take::<abi::ForgetIn>() {
                backend.forget(header.nodeid, one.nlookup);
            }
            return;
        }
        opcode::BATCH_FORGET => {
            arguments.take::<abi::BatchForgetIn>().map_or(0, |batch| batch.count)
        }
        _ => 0,
    };
    for _ in 0..count {
        let Ok(one) = arguments.take::<abi::ForgetOne>() else { return };
        backend.forget(one.nodeid, one.nlookup);
    }
}
