//! Giving memory back: a clock with a second chance over the runs of one tree.

use extant_format::LogicalBlock;

use super::tree::ExtentStatusTree;

/// What [`ExtentStatusTree::shrink`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Shrunk {
    /// Runs that were looked at.
    pub(crate) scanned: usize,
    /// Runs that were forgotten.
    pub(crate) forgotten: usize,
}

impl ExtentStatusTree {
    /// Looks at up to `scan` runs from where the last call stopped, once around at most, and forgets those that were not
    /// looked up since; never a delayed one (D11.16).
    ///
    /// Source: kernel `es_reclaim_extents`, `es_do_reclaim_extents`.
    pub(crate) fn shrink(&mut self, scan: usize) -> Shrunk {
        let mut done = Shrunk::default();
        self.recent = None;
        let begin = self.shrink_from;
        self.shrink_between(begin, None, scan, &mut done);
        if done.scanned < scan && begin > LogicalBlock::ZERO {
            self.shrink_between(LogicalBlock::ZERO, Some(begin), scan, &mut done);
        }
        done
    }

    /// Goes over the runs that begin in `from..to`.
    fn shrink_between(
        &mut self,
        from: LogicalBlock,
        to: Option<LogicalBlock>,
        scan: usize,
        done: &mut Shrunk,
    ) {
        let mut at = Some(from);
        while let Some((&start, run)) = at.and_then(|at| self.runs.range_mut(at..).next()) {
            if to.is_some_and(|to| start >= to) {
                break;
            }
            if done.scanned == scan {
                self.shrink_from = start;
                return;
            }
            done.scanned += 1;
            let spared = run.state.is_delayed() || core::mem::take(&mut run.referenced);
            if !spared {
                done.forgotten += 1;
                self.forget(start);
            }
            at = start.checked_add(1);
        }
        self.shrink_from = to.unwrap_or(LogicalBlock::ZERO);
    }
}
