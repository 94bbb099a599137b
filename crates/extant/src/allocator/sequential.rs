//! Space one after the other, for images that are filled once: every request gets the next free run that holds all of it.
//!
//! A run may go on in the next group, where that begins free: the next request for the same file asks for the blocks behind
//! its last one, and the two pieces are one extent. What was passed by because it was too short is a *gap*, which shorter
//! requests fill. Directories, attributes and nodes of trees take their blocks from a piece of the line that is theirs, so that
//! they keep no files apart.
//!
//! Source: none; the kernel has no such mode.

use super::Allocator;
use super::layout::Run;
use super::request::{AllocationFlags, AllocationRequest};
use crate::Error;
use crate::sync::Mutex;
use crate::transaction::Handle;
use alloc::vec::Vec;
use extant_format::{BlockGroup, ClusterCount};

/// Where the line has come to.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// From here on nothing was looked at yet.
    next: (BlockGroup, u32),
    /// Free runs before that, in their order.
    gaps: Vec<Run>,
    /// What is left of the piece for metadata.
    metadata: Run,
    /// The group that the last inode came from.
    pub(super) inode_group: BlockGroup,
}

/// Clusters of a piece for metadata.
const METADATA_PIECE: u32 = 64;
/// More gaps than these are not remembered, and the shortest is forgotten first.
const MOST_GAPS: usize = 64;

impl Line {
    /// Takes `wanted` clusters off the first gap that has them.
    fn off_gap(&mut self, wanted: u32) -> Option<Run> {
        let at = self.gaps.iter().position(|gap| gap.len >= wanted)?;
        let gap = &mut self.gaps[at];
        let run = Run { len: wanted, ..*gap };
        *gap = Run { start: run.end(), len: gap.len - wanted, ..*gap };
        if gap.len == 0 {
            self.gaps.remove(at);
        }
        Some(run)
    }

    fn leave(&mut self, gap: Run) {
        if gap.len == 0 {
            return;
        }
        self.gaps.push(gap);
        if self.gaps.len() > MOST_GAPS {
            let shortest = (0..self.gaps.len()).min_by_key(|at| self.gaps[*at].len);
            shortest.map(|at| self.gaps.remove(at));
        }
    }
}

impl Allocator {
    /// One run for the request, marked in its bitmap: all of it if that can be had in one piece, or in two that touch.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if nothing is free; of reading bitmaps.
    pub(super) fn find_next(
        &self,
        handle: &mut Handle<'_>,
        line: &Mutex<Line>,
        request: &AllocationRequest,
    ) -> Result<Run, Error> {
        let wanted = self.layout.clusters(request.len);
        let mut line = line.lock();
        let taken = match self.behind_last(request, wanted)? {
            Some(run) => Some(run),
            None if request.flags.contains(AllocationFlags::HINT_DATA) => {
                self.next_for_data(&mut line, wanted)?
            }
            None => self.next_for_metadata(&mut line, wanted)?,
        };
        drop(line);
        let run = taken.ok_or_else(|| Error::NoSpace {
            wanted: ClusterCount(wanted.into()),
            free: self.ledger.free_space().free,
        })?;
        self.mark_taken(handle, run, run)
    }

    /// What is free of the clusters behind the file's last ones, which the request goes on from.
    fn behind_last(&self, request: &AllocationRequest, wanted: u32) -> Result<Option<Run>, Error> {
        let follows = request.left.is_some_and(|left| {
            let touches = left.logical.get().checked_add(1) == Some(request.logical.get());
            touches && left.physical.checked_add(1) == Some(request.goal)
        });
        match self.layout.place(request.goal).filter(|_| follows) {
            Some((group, start)) => self.take(Run { group, start, len: wanted }),
            None => Ok(None),
        }
    }

    fn next_for_data(&self, line: &mut Line, wanted: u32) -> Result<Option<Run>, Error> {
        // Others may have taken what is remembered: what was freed, or a place that a file asked for.
        while let Some(gap) = line.off_gap(wanted) {
            match self.take(gap)? {
                Some(run) if run.len == wanted => return Ok(Some(run)),
                Some(part) => self.release(part),
                None => {}
            }
        }
        if let Some(run) = self.walk(line, wanted)? {
            return Ok(Some(run));
        }
        self.longest(wanted)
    }

    fn next_for_metadata(&self, line: &mut Line, wanted: u32) -> Result<Option<Run>, Error> {
        if line.metadata.len < wanted {
            let len = METADATA_PIECE.max(wanted);
            if let Some(piece) = self.walk(line, len)? {
                // It only marks a place: whoever needs it more may have it.
                self.release(piece);
                line.metadata = piece;
            }
        }
        while line.metadata.len >= wanted {
            let run = Run { len: wanted, ..line.metadata };
            line.metadata.start += wanted;
            line.metadata.len -= wanted;
            if let Some(run) = self.take(run)? {
                return Ok(Some(run));
            }
        }
        self.next_for_data(line, wanted)
    }

    /// Takes the first run from the end of the line on that has `wanted` clusters, or whose group's end it reaches and that
    /// goes on in the next group. What is passed by becomes gaps.
    fn walk(&self, line: &mut Line, wanted: u32) -> Result<Option<Run>, Error> {
        let (mut group, mut from) = line.next;
        while group.0 < self.layout.groups {
            let clusters = self.layout.clusters_in(group);
            let free = self.with_buddy(group, |_, buddy| {
                let start = buddy.next_free(from);
                Run { group, start, len: buddy.next_used(start) - start }
            })?;
            let free = free.unwrap_or(Run { group, start: clusters, len: 0 });
            if free.len == 0 {
                (group, from) = (BlockGroup(group.0 + 1), 0);
                line.next = (group, from);
                continue;
            }
            let fits = free.len >= wanted
                || free.end() == clusters && self.starts_free(group, wanted - free.len)?;
            if fits {
                let run = Run { len: free.len.min(wanted), ..free };
                line.next = (group, run.end());
                return self.take(run);
            }
            line.leave(free);
            from = free.end();
            line.next = (group, from);
        }
        Ok(None)
    }

    /// Whether the group behind `group` begins with so many free clusters.
    fn starts_free(&self, group: BlockGroup, wanted: u32) -> Result<bool, Error> {
        let next = BlockGroup(group.0 + 1);
        if next.0 >= self.layout.groups {
            return Ok(false);
        }
        let starts = self.with_buddy(next, |_, buddy| buddy.next_used(0) >= wanted)?;
        Ok(starts.unwrap_or(false))
    }

    /// Takes the first run anywhere that has `wanted` clusters, else the longest.
    fn longest(&self, wanted: u32) -> Result<Option<Run>, Error> {
        let mut best = Run::default();
        for group in (0..self.layout.groups).map(BlockGroup) {
            let found = self.with_buddy(group, |_, buddy| {
                let (mut from, mut best) = (0, Run::default());
                while best.len < wanted && from < buddy.clusters() {
                    let start = buddy.next_free(from);
                    from = buddy.next_used(start);
                    if from - start > best.len {
                        best = Run { group, start, len: from - start };
                    }
                }
                best
            })?;
            best = found.filter(|found| found.len > best.len).unwrap_or(best);
            if best.len >= wanted {
                break;
            }
        }
        match best.len {
            0 => Ok(None),
            len => self.take(Run { len: len.min(wanted), ..best }),
        }
    }

    /// Takes what is free at the start of `run` out of the buddy; `None` if nothing is.
    fn take(&self, run: Run) -> Result<Option<Run>, Error> {
        let taken = self.with_buddy(run.group, |state, buddy| {
            let len = buddy.next_used(run.start).saturating_sub(run.start).min(run.len);
            (len > 0 && buddy.is_free(run.start)).then(|| {
                buddy.mark_used(run.start, len);
                state.pinned += len;
                Run { len, ..run }
            })
        })?;
        Ok(taken.flatten())
    }
}
