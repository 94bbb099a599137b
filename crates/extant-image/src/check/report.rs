//! Findings as they are gathered, bounded by rule, and the report that they make.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::finding::{Finding, Place, Value};
use super::rule::{Rule, Severity};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the passes; at most so many of each rule as was asked for.
    pub findings: Vec<Finding>,
    /// How many there are of each rule that is broken, kept or not.
    pub counts: BTreeMap<Rule, u64>,
    /// What is worth a line and no fault of the image.
    pub notes: Vec<String>,
    /// What was seen.
    pub totals: Totals,
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Inodes in use.
    pub inodes: u64,
    /// Of them directories.
    pub directories: u64,
    /// Clusters in use.
    pub clusters: u64,
}

impl Report {
    /// Whether no rule is broken that matters.
    pub fn is_clean(&self) -> bool {
        self.counts.keys().all(|rule| rule.severity() < Severity::Error)
    }

    /// How many findings of a rule are not among [`Self::findings`].
    pub fn left_out(&self, rule: Rule) -> u64 {
        let kept = self.findings.iter().filter(|finding| finding.rule == rule).count();
        let all = self.counts.get(&rule).copied().unwrap_or(0);
        all.saturating_sub(extant_format::cast::u64_from(kept))
    }
}

/// Findings of one worker: all are counted, and of each rule the first in order are kept.
#[derive(Debug)]
pub(super) struct Findings {
    limit: usize,
    rules: BTreeMap<Rule, Kept>,
    sequence: u32,
}

/// Findings of one rule, with what they are ordered by.
#[derive(Debug, Default)]
struct Kept {
    count: u64,
    list: Vec<(Key, Finding)>,
}

/// Inode or group, block of the file, and the order in which they were found.
type Key = ((u32, u32), u32);

impl Findings {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, rules: BTreeMap::new(), sequence: 0 }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.rules.values().fold(0, |sum, kept| sum.saturating_add(kept.count))
    }

    pub(super) fn add(
        &mut self,
        rule: Rule,
        place: Place,
        found: impl Into<Value>,
        expected: impl Into<Value>,
    ) {
        self.sequence = self.sequence.saturating_add(1);
        let key = (place.order(rule.pass()), self.sequence);
        let finding = Finding { rule, place, found: found.into(), expected: expected.into() };
        let kept = self.rules.entry(rule).or_default();
        kept.count = kept.count.saturating_add(1);
        kept.list.push((key, finding));
        kept.shrink(self.limit, self.limit.saturating_mul(2).max(64));
    }

    /// Joins what another worker found.
    pub(super) fn merge(&mut self, other: Self) {
        for (rule, theirs) in other.rules {
            let kept = self.rules.entry(rule).or_default();
            kept.count = kept.count.saturating_add(theirs.count);
            kept.list.extend(theirs.list);
            kept.shrink(self.limit, self.limit);
        }
    }

    /// All of them, in order.
    pub(super) fn into_report(self, notes: Vec<String>, totals: Totals) -> Report {
        let mut counts = BTreeMap::new();
        let mut list = Vec::new();
        for (rule, mut kept) in self.rules {
            kept.shrink(self.limit, self.limit);
            counts.insert(rule, kept.count);
            list.extend(kept.list);
        }
        list.sort_by_key(|(key, finding)| (finding.rule.pass(), *key));
        let findings = list.into_iter().map(|(_, finding)| finding).collect();
        Report { findings, counts, notes, totals }
    }
}

impl Kept {
    /// Keeps the first `limit` once there are more than `bound`.
    fn shrink(&mut self, limit: usize, bound: usize) {
        if self.list.len() > bound {
            self.list.sort_by_key(|(key, _)| *key);
            self.list.truncate(limit);
        }
    }
}
