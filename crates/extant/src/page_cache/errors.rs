//! [`WriteErrors`]: failures of writeback, told once to each open file; [`Untold`]: those of which nobody was told yet.

use crate::error::Error;

/// The failures of one file's writeback. Source: kernel `lib/errseq.c`.
#[derive(Debug, Default)]
pub(super) struct WriteErrors {
    count: u64,
    last: Option<Error>,
    /// So many were told to somebody; until the last was, whoever opens the file later is told as well.
    told: u64,
}

/// The failures of a volume of which no open file was told: the next sync of everything tells them, once.
#[derive(Debug, Default)]
pub(super) struct Untold {
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

    pub(super) fn has_failed(&self) -> bool {
        self.count > 0
    }

    /// Where a file starts that is opened now. Source: `errseq_sample`.
    pub(super) fn position(&self) -> ErrorPosition {
        ErrorPosition(self.count.saturating_sub(u64::from(self.told < self.count)))
    }

    /// The last failure since `position`, which moves on; and how many nobody had been told of before.
    pub(super) fn since(&mut self, position: &mut ErrorPosition) -> (Option<Error>, u64) {
        let news = self.count - core::mem::replace(&mut self.told, self.count);
        let told = core::mem::replace(position, ErrorPosition(self.count));
        (self.last.clone().filter(|_| told != *position), news)
    }
}

impl Untold {
    pub(super) fn record(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    /// So many were told to an open file.
    pub(super) fn told(&mut self, count: u64) {
        self.count = self.count.saturating_sub(count);
    }

    pub(super) fn take(&mut self) -> Option<Error> {
        let last = self.last.take();
        last.filter(|_| core::mem::take(&mut self.count) > 0)
    }
}
