//! What the lab's scripts are made of: `extant-script` has the operations and who runs them; here is who writes them, and
//! what they mean.

mod contents;
mod generate;
pub mod model;

pub use contents::{Scale, Xattrs, contents};
pub use extant_script::{
    Allocation, Answer, DirectoryTarget, Errno, Node, OpenFlag, Operation, Target, parse, pattern,
    run,
};
pub(crate) use generate::{index, pick};
pub use generate::{known_scripts, random_script};
