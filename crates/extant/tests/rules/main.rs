//! The rules that keep data safe, one small test each: whoever deletes the line that keeps a rule sees its test fail.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod bypass;
mod clockwork;
mod counts;
mod crash;
mod durability;
mod events;
mod fast_commits;
mod faults;
mod findings;
mod inline;
mod journaled;
mod logs;
mod mounting;
mod protection;
mod ranges;
mod short_copies;
mod space;
mod standstill;
mod uncached;
mod world;
