//! Rules of mapping by name, then against a model with one state for each block.

mod failures;
mod model;
mod oracle;
mod rules;
pub(crate) mod volume;
