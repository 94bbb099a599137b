//! [`Ranges`]: a set of numbers, in runs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Runs that neither touch nor overlap.
#[derive(Clone, Debug, Default)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a run behind all others, or right at the end of the last.
    pub fn add(&mut self, range: Range<u64>) {
        if let Some(mut last) = self.0.last_entry()
            && *last.get() == range.start
        {
            *last.get_mut() = range.end;
            return;
        }
        self.0.insert(range.start, range.end);
    }

    /// Whether any number of a run is in the set.
    pub fn touches(&self, range: Range<u64>) -> bool {
        let before = self.0.range(..range.end).next_back();
        before.is_some_and(|(_, end)| *end > range.start) && range.start < range.end
    }

    /// Takes out what lies in a run, and returns it.
    pub fn take(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut taken = Vec::new();
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start || range.start >= range.end {
                break;
            }
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
            taken.push(start.max(range.start)..end.min(range.end));
        }
        taken.reverse();
        taken
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<Range<u64>> {
        core::mem::take(&mut self.0).into_iter().map(|(start, end)| start..end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_and_the_rest_stays() {
        let mut set = Ranges::default();
        [1..2, 2..5, 8..10].into_iter().for_each(|range| set.add(range));
        assert!(set.touches(4..8) && !set.touches(5..8) && !set.touches(9..9));
        assert_eq!(set.take(3..9), [3..5, 8..9]);
        assert_eq!(set.take(3..9), []);
        assert_eq!(set.take_all(), [1..3, 9..10]);
    }
}
