//! Rules of the tree by name.
