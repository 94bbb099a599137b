//! Which features a new file system has: sets of them, and lists of changes as `mke2fs -O` takes them.
//!
//! Source: mke2fs(8), option `-O`; ext4(5) for the features and what each needs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;

use extant_format::{Compat, Incompat, RoCompat};

use super::MkfsError;
use super::options::option;

/// The three feature words.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// Those that may be ignored.
    pub compat: Compat,
    /// Those that a reader must know.
    pub incompat: Incompat,
    /// Those that a writer must know.
    pub ro_compat: RoCompat,
}

/// Changes to the features that the type gives, in order: `^has_journal,quota` takes one away and adds one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FeatureEdits(Vec<Edit>);

/// One change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Edit {
    Clear,
    Set(Features, bool),
}

impl FeatureEdits {
    /// Adds the changes of a list: names to switch on, off with a `^` before them, and `none` for all off. Names are
    /// those of mke2fs.
    ///
    /// # Errors
    /// A name that is unknown, or of a feature that no new file system can have.
    pub fn apply(&mut self, list: &str) -> Result<(), MkfsError> {
        let words = list.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        for word in words {
            self.0.push(edit(word)?);
        }
        Ok(())
    }

    /// Switches a feature on before all other changes, which may switch it off again.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn prefer(&mut self, name: &str) -> Result<(), MkfsError> {
        self.0.insert(0, edit(name)?);
        Ok(())
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `features` with the changes made.
    #[must_use]
    pub fn edit(&self, mut features: Features) -> Features {
        for edit in &self.0 {
            match edit {
                Edit::Clear => features = Features::default(),
                Edit::Set(one, on) => {
                    features.compat.set(one.compat, *on);
                    features.incompat.set(one.incompat, *on);
                    features.ro_compat.set(one.ro_compat, *on);
                }
            }
        }
        features
    }
}

fn edit(word: &str) -> Result<Edit, MkfsError> {
    let (name, on) = match word.strip_prefix(['^', '-']) {
        Some(name) => (name, false),
        None => (word.strip_prefix('+').unwrap_or(word), true),
    };
    let name = name.to_ascii_lowercase();
    let name = match &*name {
        "none" | "clear" => return Ok(Edit::Clear),
        "extents" => "extent",
        "uninit_groups" => "uninit_bg",
        "fname_encoding" => "casefold",
        name => name,
    };
    let one = Features {
        compat: Compat::by_name(name).unwrap_or_default(),
        incompat: Incompat::by_name(name).unwrap_or_default(),
        ro_compat: RoCompat::by_name(name).unwrap_or_default(),
    };
    if one == Features::default() {
        return Err(option("features", format!("there is no `{name}`")));
    }
    if !KNOWN.contains(&one) {
        return Err(option("features", format!("no new file system can have `{name}`")));
    }
    Ok(Edit::Set(one, on))
}

impl Features {
    fn contains(&self, other: &Self) -> bool {
        self.compat.contains(other.compat)
            && self.incompat.contains(other.incompat)
            && self.ro_compat.contains(other.ro_compat)
    }

    /// Checks that each has what it needs.
    ///
    /// # Errors
    /// The first that lacks something.
    pub(super) fn check(&self) -> Result<(), MkfsError> {
        let Self { compat, incompat, ro_compat } = *self;
        let needs = [
            (
                compat.contains(Compat::RESIZE_INODE)
                    && !ro_compat.contains(RoCompat::SPARSE_SUPER),
                "resize_inode needs sparse_super",
            ),
            (
                compat.contains(Compat::RESIZE_INODE) && incompat.contains(Incompat::META_BG),
                "resize_inode and meta_bg exclude each other",
            ),
            (
                incompat.contains(Incompat::BIT64) && !incompat.contains(Incompat::EXTENTS),
                "64bit needs extent",
            ),
            (
                ro_compat.contains(RoCompat::BIGALLOC) && !incompat.contains(Incompat::EXTENTS),
                "bigalloc needs extent",
            ),
            (
                incompat.contains(Incompat::CSUM_SEED)
                    && !ro_compat.contains(RoCompat::METADATA_CSUM),
                "metadata_csum_seed needs metadata_csum",
            ),
            (
                compat.contains(Compat::ORPHAN_FILE) && !compat.contains(Compat::HAS_JOURNAL),
                "orphan_file needs a journal",
            ),
        ];
        match needs.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, problem)) => Err(option("features", (*problem).to_owned())),
            None => Ok(()),
        }
    }

    /// Takes away what the Hurd does not know.
    pub(super) fn remove_for_hurd(&mut self) {
        self.incompat.remove(Incompat::FILETYPE | Incompat::EA_INODE | Incompat::CASEFOLD);
        self.ro_compat.remove(RoCompat::HUGE_FILE | RoCompat::METADATA_CSUM);
    }
}

/// What a new file system may have.
const KNOWN: Features = Features {
    compat: Compat::HAS_JOURNAL
        .union(Compat::RESIZE_INODE)
        .union(Compat::DIR_INDEX)
        .union(Compat::EXT_ATTR)
        .union(Compat::SPARSE_SUPER2)
        .union(Compat::FAST_COMMIT)
        .union(Compat::STABLE_INODES)
        .union(Compat::ORPHAN_FILE),
    incompat: Incompat::FILETYPE
        .union(Incompat::EXTENTS)
        .union(Incompat::JOURNAL_DEV)
        .union(Incompat::META_BG)
        .union(Incompat::FLEX_BG)
        .union(Incompat::EA_INODE)
        .union(Incompat::MMP)
        .union(Incompat::BIT64)
        .union(Incompat::INLINE_DATA)
        .union(Incompat::ENCRYPT)
        .union(Incompat::CASEFOLD)
        .union(Incompat::CSUM_SEED)
        .union(Incompat::LARGEDIR),
    ro_compat: RoCompat::LARGE_FILE
        .union(RoCompat::HUGE_FILE)
        .union(RoCompat::DIR_NLINK)
        .union(RoCompat::EXTRA_ISIZE)
        .union(RoCompat::SPARSE_SUPER)
        .union(RoCompat::GDT_CSUM)
        .union(RoCompat::BIGALLOC)
        .union(RoCompat::QUOTA)
        .union(RoCompat::METADATA_CSUM)
        .union(RoCompat::PROJECT)
        .union(RoCompat::VERITY),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(list: &str) -> Features {
        let mut edits = FeatureEdits::default();
        edits.apply(list).unwrap();
        edits.edit(Features { compat: Compat::HAS_JOURNAL, ..Features::default() })
    }

    #[test]
    fn lists_switch_on_and_off_in_order() {
        assert_eq!(edited("extents,^extent,quota").ro_compat, RoCompat::QUOTA);
        assert_eq!(edited("none,filetype").compat, Compat::empty());
        assert_eq!(edited("-has_journal +ext_attr").compat, Compat::EXT_ATTR);
        assert_eq!(edited("UNINIT_BG").ro_compat, RoCompat::GDT_CSUM);
    }

    #[test]
    fn what_no_new_file_system_can_have_is_refused() {
        for name in ["nonsense", "compression", "needs_recovery", "FEATURE_C30"] {
            assert!(FeatureEdits::default().apply(name).is_err(), "{name}");
        }
    }
}
