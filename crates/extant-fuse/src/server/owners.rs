//! Users and groups that change places between the image and the mount.
//!
//! With `uid=U:N` what the image has as user N's appears as U's, and the other way round: each number stands for one user
//! on either side, so nothing is lost on the way, and what U makes is stored as N's. Groups alike; access lists follow.

/// Two numbers that change places, or none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swap(Option<(u32, u32)>);

impl Swap {
    /// `one` and `other` change places.
    pub const fn of(one: u32, other: u32) -> Self {
        Self(Some((one, other)))
    }

    /// What a number is on the other side.
    pub fn apply(self, number: u32) -> u32 {
        match self.0 {
            Some((one, other)) if number == one => other,
            Some((one, other)) if number == other => one,
            _ => number,
        }
    }
}

/// Who changes places with whom.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owners {
    /// Users.
    pub users: Swap,
    /// Groups.
    pub groups: Swap,
}

/// What an access list's entries begin with, and how long one is: tag, permissions, number.
const LIST_HEAD: usize = 4;
const ENTRY: usize = 8;
const USER: u16 = 2;
const GROUP: u16 = 8;

impl Owners {
    /// Lets the entries of an access list change places, if `name` is one's.
    ///
    /// Source: kernel `include/uapi/linux/posix_acl_xattr.h`.
    pub(super) fn apply_to_list(&self, name: &[u8], value: &mut [u8]) {
        if *self == Self::default() || !name.starts_with(b"system.posix_acl_") {
            return;
        }
        for entry in value.get_mut(LIST_HEAD..).unwrap_or_default().chunks_exact_mut(ENTRY) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let number = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let number = match tag {
                USER => self.users.apply(number),
                GROUP => self.groups.apply(number),
                _ => number,
            };
            entry[4..].copy_from_slice(&number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_stands_for_one_user_on_either_side() {
        let swap = Swap::of(1000, 0);
        assert_eq!([0, 1000, 5].map(|number| swap.apply(number)), [1000, 0, 5]);
        assert!((0..2000).all(|number| swap.apply(swap.apply(number)) == number));
    }

    #[test]
    fn entries_of_access_lists_follow() {
        let owners = Owners { users: Swap::of(7, 0), groups: Swap::default() };
        let mut list = vec![2, 0, 0, 0];
        for (tag, number) in [(USER, 0_u32), (GROUP, 0), (1, u32::MAX)] {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&[7, 0]);
            list.extend_from_slice(&number.to_le_bytes());
        }
        owners.apply_to_list(b"system.posix_acl_access", &mut list);
        assert_eq!((list[8], list[16]), (7, 0));
        let before = list.clone();
        owners.apply_to_list(b"user.x", &mut list);
        owners.apply_to_list(b"system.posix_acl_default", &mut [0; 3]);
        assert_eq!(list, before);
    }
}
