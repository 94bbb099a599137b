//! Where blocks and inodes go: groups, buddies, goals, preallocation.
//!
//! `mapping` and `extent_tree` ask for blocks, `namespace` for inodes. A request is clamped, joined to a preallocation or
//! normalised, then searched for: at its goal, then criterion by criterion; what was found is marked in the bitmap under the
//! caller's handle. See `docs/design.md`, "The road of one `write`".
//!
//! | file | what |
//! | --- | --- |
//! | `request.rs` | requests, answers, flags, knobs |
//! | `layout.rs`, `bits.rs` | block numbers and places in groups; runs of bits |
//! | `buddy.rs` | one group's free clusters as aligned chunks |
//! | `goal.rs`, `normalize.rs` | where and how much to look for |
//! | `criteria.rs` | the search |
//! | `preallocation.rs` | space set aside for one file, or for small files together |
//! | `inode_group.rs` | the group of a new inode |
//!
//! # Invariants
//! Inside the allocator all lengths are clusters. A buddy's used clusters are those of the bitmap, of the preallocations and
//! of frees that are not committed yet; a buddy is dropped from memory only while the group has neither of the last two.
//! # Locking
//! Each group has a leaf lock; the ordered sets, the inode preallocations and the flex counts have one each; never two of
//! them together. A locality group's lock is held across its search, reading of bitmaps included: two small files that both
//! missed would else set space aside twice. Bitmaps are read before the group's lock is taken.
//! # Not here
//! Who pays (`delayed`); what a file's blocks are (`mapping`); when frees become durable (`transaction`).
//! # Source
//! Kernel `fs/ext4/mballoc.c`, `balloc.c`, `ialloc.c`, `block_validity.c`.

mod bits;
mod buddy;
mod criteria;
mod goal;
mod inode_group;
mod layout;
mod normalize;
mod preallocation;
mod request;

pub use inode_group::{InodeKind, Parent};
pub use request::{
    Allocation, AllocationFlags, AllocationRequest, FileHints, FreeFlags, Neighbour, Tunables,
};
