//! [`WriteErrors`]: failures of writeback, told once to each open file.

use crate::error::Error;

/// The failures of one file's writeback. Source: kernel `lib/errseq.c`.
#[derive(Debug, Default)]
pub(super) struct WriteErrors {
    count: u64,
    last: Option<Error>,
    /// Somebody was told of the last; until then whoever opens the file later is told as well.
    is_told: bool,
}

/// How far an open file has been told of failures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ErrorPosition(u64);

impl WriteErrors {
    pub(super) fn record(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
        self.is_told = false;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.count > 0
    }

    /// Where a file starts that is opened now. Source: `errseq_sample`.
    pub(super) fn position(&self) -> ErrorPosition {
        ErrorPosition(self.count.saturating_sub(u64::from(!self.is_told)))
    }

    pub(super) fn since(&mut self, position: &mut ErrorPosition) -> Option<Error> {
        self.is_told = true;
        let told = core::mem::replace(position, ErrorPosition(self.count));
        self.last.clone().filter(|_| told != *position)
    }
}
