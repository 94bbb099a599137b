//! [`WriteErrors`]: failures of writeback, told once to each open file.

use crate::error::Error;

/// The failures of one file's writeback. Source: kernel `lib/errseq.c`.
#[derive(Debug, Default)]
pub(super) struct WriteErrors {
    count: u64,
    last: Option<Error>,
}

/// How far an open file has been told of failures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ErrorPosition(u64);

impl WriteErrors {
    pub(super) fn record(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    pub(super) fn position(&self) -> ErrorPosition {
        ErrorPosition(self.count)
    }

    pub(super) fn since(&self, position: &mut ErrorPosition) -> Option<Error> {
        let told = core::mem::replace(position, self.position());
        self.last.clone().filter(|_| told != *position)
    }
}
