//! What mke2fs takes behind `-E`, and a configuration file as `options`.
//!
//! Source: mke2fs(8), option `-E`.

use alloc::borrow::ToOwned;
use alloc::format;

use super::MkfsError;
use super::numbers::{Amount, integer};
use super::options::option;

/// The extended options; what is `None` is as the type has it, or as it says there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExtendedOptions {
    /// Blocks that lie on one disk of a RAID before the next; 0 if it is none.
    pub stride: Option<u16>,
    /// Blocks of one row over all disks of a RAID.
    pub stripe_width: Option<u32>,
    /// Where on the device the file system begins, in bytes.
    pub offset_bytes: Option<u64>,
    /// How far it may grow while mounted: descriptors get room for so many blocks.
    pub resize_limit: Option<Amount>,
    /// Leave inode tables for the kernel to clean; yes, unless zeros cost nothing.
    pub lazy_itable_init: Option<bool>,
    /// Leave in the journal what was there; no.
    pub lazy_journal_init: Option<bool>,
    /// Take for granted that the device is all zeros; no.
    pub storage_is_zeroed: Option<bool>,
    /// Leave attributes out when files are copied in; for whoever copies them.
    pub no_copy_xattrs: Option<bool>,
    /// With `sparse_super2`: how many copies of the superblock, at most 2, which is the default.
    pub backup_superblocks: Option<u8>,
    /// All tables and the journal at the front; needs `flex_bg`.
    pub packed_meta_blocks: Option<bool>,
    /// Who owns the root directory; user and group 0.
    pub root_owner: Option<RootOwner>,
    /// The root directory's permissions; 0755.
    pub root_permissions: Option<u16>,
    /// Marks it as a place for kernels under development.
    pub test_filesystem: Option<bool>,
    /// Give all blocks back to the device first; yes.
    pub discard: Option<bool>,
    /// With `quota`: whose use is counted; users and groups, and projects with `project`.
    pub quota_types: Option<QuotaTypes>,
    /// With `casefold`: how names are encoded. Set, it switches the feature on.
    pub encoding: Option<Encoding>,
    /// With `casefold`: whether names that the encoding does not know are refused; no.
    pub strict_encoding: Option<bool>,
    /// The seed of the hashes of names.
    pub hash_seed: Option<[u8; 16]>,
    /// With `mmp`: seconds between two looks at its block, at most 300; 5.
    pub mmp_update_interval: Option<u16>,
    /// With `64bit`: bytes in a group descriptor; 64.
    pub desc_size: Option<u16>,
    /// With `orphan_file`: its size.
    pub orphan_file_size: Option<Amount>,
    /// The format's revision, 0 or 1; 1.
    pub revision: Option<u32>,
}

/// Who owns the root directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootOwner {
    /// Whoever runs the program, which is for the program to find out.
    Caller,
    /// This user and group.
    Ids(u32, u32),
}

/// Whose use of the file system is counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuotaTypes {
    /// Each user's.
    pub users: bool,
    /// Each group's.
    pub groups: bool,
    /// Each project's.
    pub projects: bool,
}

/// How names are encoded where case does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// UTF-8 with the tables of Unicode 12.1.
    Utf8,
}

impl Encoding {
    /// By the name that mke2fs has for it.
    pub fn by_name(name: &str) -> Option<Self> {
        matches!(name, "utf8" | "utf8-12.1").then_some(Self::Utf8)
    }

    /// As the superblock has it.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Utf8 => 1,
        }
    }
}

impl ExtendedOptions {
    /// Sets what a list says, as `stride=16,lazy_itable_init=0,test_fs`.
    ///
    /// # Errors
    /// An option that is unknown, or has a value that it cannot have.
    pub fn apply(&mut self, list: &str) -> Result<(), MkfsError> {
        list.split(',').filter(|word| !word.is_empty()).try_for_each(|word| {
            let (name, value) = word.split_once('=').map_or((word, None), |(a, b)| (a, Some(b)));
            match self.set(name, value) {
                Some(true) => Ok(()),
                Some(false) => {
                    let value =
                        value.map_or("it takes one".to_owned(), |value| format!("`{value}`"));
                    Err(option(
                        "extended option",
                        format!("{name} cannot have that value: {value}"),
                    ))
                }
                None => Err(option("extended option", format!("there is no `{name}`"))),
            }
        })
    }

    /// Sets one; `None` if there is no such option, `Some(false)` if its value is wrong.
    fn set(&mut self, name: &str, value: Option<&str>) -> Option<bool> {
        fn put<T>(to: &mut Option<T>, value: Option<T>) -> bool {
            let is_right = value.is_some();
            *to = value.or(to.take());
            is_right
        }
        let number = || value.and_then(integer);
        // Without a value it is a yes.
        let flag = || value.map_or(Some(true), |value| Some(integer(value)? != 0));
        Some(match name {
            "stride" => put(&mut self.stride, number().and_then(|n| n.try_into().ok())),
            "stripe_width" | "stripe-width" => {
                put(&mut self.stripe_width, number().and_then(|n| n.try_into().ok()))
            }
            "offset" => {
                put(&mut self.offset_bytes, value.and_then(Amount::parse).map(|n| n.bytes(1)))
            }
            "resize" => put(&mut self.resize_limit, value.and_then(Amount::parse)),
            "lazy_itable_init" => put(&mut self.lazy_itable_init, flag()),
            "lazy_journal_init" => put(&mut self.lazy_journal_init, flag()),
            "assume_storage_prezeroed" => put(&mut self.storage_is_zeroed, flag()),
            "no_copy_xattrs" => put(&mut self.no_copy_xattrs, flag()),
            "num_backup_sb" => {
                let number = number().and_then(|n| n.try_into().ok());
                put(&mut self.backup_superblocks, number.filter(|n| *n <= 2))
            }
            "packed_meta_blocks" => put(&mut self.packed_meta_blocks, flag()),
            "root_owner" => put(&mut self.root_owner, owner(value)),
            "root_perms" => put(&mut self.root_permissions, value.and_then(permissions)),
            "test_fs" => put(&mut self.test_filesystem, flag()),
            "discard" => put(&mut self.discard, Some(true)),
            "nodiscard" => put(&mut self.discard, Some(false)),
            "quotatype" => put(&mut self.quota_types, value.and_then(quota_types)),
            "encoding" => put(&mut self.encoding, value.and_then(Encoding::by_name)),
            "encoding_flags" => put(
                &mut self.strict_encoding,
                match value {
                    Some("strict") => Some(true),
                    Some("nostrict") => Some(false),
                    _ => None,
                },
            ),
            "hash_seed" => put(&mut self.hash_seed, value.and_then(uuid)),
            "mmp_update_interval" => {
                let number = number().and_then(|n| n.try_into().ok());
                put(&mut self.mmp_update_interval, number.filter(|n| *n <= MOST_MMP_SECONDS))
            }
            "desc_size" | "desc-size" => {
                let number = number().and_then(|n| n.try_into().ok());
                let is_size = |n: &u16| n.is_power_of_two() && (64..=1024).contains(n);
                put(&mut self.desc_size, number.filter(is_size))
            }
            "orphan_file_size" => put(&mut self.orphan_file_size, value.and_then(Amount::parse)),
            "revision" => put(
                &mut self.revision,
                number().and_then(|n| n.try_into().ok()).filter(|n| *n <= 1),
            ),
            _ => return None,
        })
    }

    /// These, and where they say nothing, `others`.
    #[must_use]
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            stride: self.stride.or(others.stride),
            stripe_width: self.stripe_width.or(others.stripe_width),
            offset_bytes: self.offset_bytes.or(others.offset_bytes),
            resize_limit: self.resize_limit.or(others.resize_limit),
            lazy_itable_init: self.lazy_itable_init.or(others.lazy_itable_init),
            lazy_journal_init: self.lazy_journal_init.or(others.lazy_journal_init),
            storage_is_zeroed: self.storage_is_zeroed.or(others.storage_is_zeroed),
            no_copy_xattrs: self.no_copy_xattrs.or(others.no_copy_xattrs),
            backup_superblocks: self.backup_superblocks.or(others.backup_superblocks),
            packed_meta_blocks: self.packed_meta_blocks.or(others.packed_meta_blocks),
            root_owner: self.root_owner.or(others.root_owner),
            root_permissions: self.root_permissions.or(others.root_permissions),
            test_filesystem: self.test_filesystem.or(others.test_filesystem),
            discard: self.discard.or(others.discard),
            quota_types: self.quota_types.or(others.quota_types),
            encoding: self.encoding.or(others.encoding),
            strict_encoding: self.strict_encoding.or(others.strict_encoding),
            hash_seed: self.hash_seed.or(others.hash_seed),
            mmp_update_interval: self.mmp_update_interval.or(others.mmp_update_interval),
            desc_size: self.desc_size.or(others.desc_size),
            orphan_file_size: self.orphan_file_size.or(others.orphan_file_size),
            revision: self.revision.or(others.revision),
        }
    }
}

/// `user:group`, or nothing for the caller.
fn owner(value: Option<&str>) -> Option<RootOwner> {
    let Some(value) = value else { return Some(RootOwner::Caller) };
    let (user, group) = value.split_once(':')?;
    let number = |text| integer(text).and_then(|number| u32::try_from(number).ok());
    Some(RootOwner::Ids(number(user)?, number(group)?))
}

/// Octal permissions.
fn permissions(value: &str) -> Option<u16> {
    u16::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// `usrquota:grpquota:prjquota`, or short.
fn quota_types(value: &str) -> Option<QuotaTypes> {
    let mut types = QuotaTypes::default();
    for word in value.split([':', ' ', '\t']) {
        let (name, on) = word.strip_prefix('^').map_or((word, true), |name| (name, false));
        match name {
            "usr" | "usrquota" => types.users = on,
            "grp" | "grpquota" => types.groups = on,
            "prj" | "prjquota" => types.projects = on,
            _ => return None,
        }
    }
    Some(types)
}

/// Thirty-two hexadecimal digits, with dashes anywhere.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let is_part = |letter: char| letter.is_ascii_hexdigit() || letter == '-';
    if !text.chars().all(is_part) {
        return None;
    }
    let digits: alloc::string::String = text.chars().filter(|letter| *letter != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

const MOST_MMP_SECONDS: u16 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(list: &str) -> ExtendedOptions {
        let mut options = ExtendedOptions::default();
        options.apply(list).unwrap();
        options
    }

    #[test]
    fn lists_set_options_and_later_ones_win() {
        let options = applied("stride=16,stripe-width=0x20,lazy_itable_init,lazy_itable_init=0");
        assert_eq!((options.stride, options.stripe_width), (Some(16), Some(32)));
        assert_eq!(options.lazy_itable_init, Some(false));
        assert_eq!(applied("root_owner").root_owner, Some(RootOwner::Caller));
        assert_eq!(applied("root_owner=1:2").root_owner, Some(RootOwner::Ids(1, 2)));
        let types = applied("quotatype=usr:prjquota").quota_types.unwrap();
        assert!(types.users && !types.groups && types.projects);
        assert_eq!(applied("nodiscard,discard").discard, Some(true));
        let both = applied("stride=1").or(applied("stride=2,test_fs"));
        assert_eq!((both.stride, both.test_filesystem), (Some(1), Some(true)));
    }

    #[test]
    fn wrong_values_are_refused() {
        for list in [
            "stride",
            "stride=70000",
            "num_backup_sb=3",
            "root_owner=1",
            "root_perms=9",
            "quotatype=all",
            "encoding=ascii",
            "encoding_flags=loose",
            "hash_seed=12",
            "mmp_update_interval=301",
            "desc_size=100",
            "revision=2",
            "nonsense=1",
        ] {
            assert!(ExtendedOptions::default().apply(list).is_err(), "{list}");
        }
    }
}
