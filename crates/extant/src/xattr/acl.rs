//! POSIX access control lists: the form on disk, the form of the extended attribute, and what they allow.
//!
//! # Invariants
//! An [`Acl`] is valid: owner, named users, owning group, named groups, mask if anybody is named, others; in this order.
//! # Not here
//! Where lists are stored (`Xattrs`); the mode bits of those who have none (`permission`).
//! # Source
//! Kernel `fs/ext4/acl.c` (`ext4_acl_from_disk`, `ext4_acl_to_disk`) and `fs/posix_acl.c`.

use alloc::vec::Vec;

use crate::Error;
use crate::caller::Caller;

/// Which list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AclKind {
    /// Decides who may do what with the file.
    Access,
    /// What new files in a directory begin with.
    Default,
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

/// One entry: who, and what they may do (read 4, write 2, execute 1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    who: Who,
    perm: u16,
}

/// A valid access control list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Acl(Vec<Entry>);

const DISK_VERSION: [u8; 4] = [1, 0, 0, 0];
const WIRE_VERSION: [u8; 4] = [2, 0, 0, 0];
const NO_ID: u32 = u32::MAX;

impl Who {
    const fn tag(self) -> u16 {
        match self {
            Self::Owner => 0x01,
            Self::User(_) => 0x02,
            Self::OwningGroup => 0x04,
            Self::Group(_) => 0x08,
            Self::Mask => 0x10,
            Self::Others => 0x20,
        }
    }

    const fn id(self) -> Option<u32> {
        match self {
            Self::User(id) | Self::Group(id) => Some(id),
            Self::Owner | Self::OwningGroup | Self::Mask | Self::Others => None,
        }
    }

    /// `None` for an unknown tag, or a named entry without a name.
    const fn from_parts(tag: u16, id: u32) -> Option<Self> {
        Some(match tag {
            0x01 => Self::Owner,
            0x02 if id != NO_ID => Self::User(id),
            0x04 => Self::OwningGroup,
            0x08 if id != NO_ID => Self::Group(id),
            0x10 => Self::Mask,
            0x20 => Self::Others,
            _ => return None,
        })
    }
}

impl Acl {
    /// From the bytes of the attribute's value on disk (version 1); `None` if they are malformed.
    pub(crate) fn from_disk(value: &[u8]) -> Option<Self> {
        let mut rest = value.strip_prefix(&DISK_VERSION)?;
        let mut entries = Vec::new();
        while let Some((&[tag_lo, tag_hi, perm_lo, perm_hi], after)) = rest.split_first_chunk() {
            let tag = u16::from_le_bytes([tag_lo, tag_hi]);
            let (id, after) = match tag {
                0x02 | 0x08 => {
                    after.split_first_chunk().map(|(id, after)| (u32::from_le_bytes(*id), after))?
                }
                _ => (NO_ID, after),
            };
            entries.push(Entry {
                who: Who::from_parts(tag, id)?,
                perm: u16::from_le_bytes([perm_lo, perm_hi]),
            });
            rest = after;
        }
        Self::checked(entries).filter(|_| rest.is_empty())
    }

    /// The value on disk.
    pub(crate) fn to_disk(&self) -> Vec<u8> {
        let mut value = DISK_VERSION.to_vec();
        for entry in &self.0 {
            value.extend(entry.who.tag().to_le_bytes());
            value.extend(entry.perm.to_le_bytes());
            value.extend(entry.who.id().into_iter().flat_map(u32::to_le_bytes));
        }
        value
    }

    /// From what `setxattr` brings (version 2); `None` inside if the list is empty, which means "remove".
    ///
    /// # Errors
    /// [`Error::NotSupported`] for another version, [`Error::Invalid`] for a list that breaks a rule.
    pub(crate) fn from_wire(value: &[u8]) -> Result<Option<Self>, Error> {
        const MALFORMED: Error = Error::Invalid("malformed access control list");
        let (version, rest) = value.split_first_chunk().ok_or(MALFORMED)?;
        if *version != WIRE_VERSION {
            return Err(Error::NotSupported("version of the access control list"));
        }
        let (entries, odd) = rest.as_chunks::<8>();
        if !odd.is_empty() {
            return Err(MALFORMED);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entry = |&[t0, t1, p0, p1, a, b, c, d]: &[u8; 8]| {
            let who =
                Who::from_parts(u16::from_le_bytes([t0, t1]), u32::from_le_bytes([a, b, c, d]))?;
            Some(Entry { who, perm: u16::from_le_bytes([p0, p1]) })
        };
        let entries: Option<Vec<_>> = entries.iter().map(entry).collect();
        entries.and_then(Self::checked).ok_or(MALFORMED).map(Some)
    }

    /// What `getxattr` answers.
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut value = WIRE_VERSION.to_vec();
        for entry in &self.0 {
            value.extend(entry.who.tag().to_le_bytes());
            value.extend(entry.perm.to_le_bytes());
            value.extend(entry.who.id().unwrap_or(NO_ID).to_le_bytes());
        }
        value
    }

    /// Source: `posix_acl_valid`.
    fn checked(entries: Vec<Entry>) -> Option<Self> {
        let rank = |entry: &Entry| entry.who.tag();
        let once = |who| entries.iter().filter(|entry| entry.who.tag() == who).count();
        let named = once(0x02) + once(0x08) > 0;
        let sorted = entries.is_sorted_by_key(rank) && entries.iter().all(|entry| entry.perm <= 7);
        let complete = [0x01, 0x04, 0x20].iter().all(|&who| once(who) == 1);
        let masked = once(0x10) == 1 || (!named && once(0x10) == 0);
        (sorted && complete && masked).then_some(Self(entries))
    }

    fn perm_mut(&mut self, who: Who) -> Option<&mut u16> {
        self.0.iter_mut().find(|entry| entry.who == who).map(|entry| &mut entry.perm)
    }

    /// The mode bits that say the same, and whether they say all of it.
    ///
    /// Source: `posix_acl_equiv_mode`.
    pub(crate) fn mode_bits(&self) -> (u16, bool) {
        let (mut mode, mut whole) = (0, true);
        for entry in &self.0 {
            match entry.who {
                Who::Owner => mode |= entry.perm << 6,
                Who::OwningGroup => mode |= entry.perm << 3,
                Who::Others => mode |= entry.perm,
                Who::Mask => {
                    mode = mode & !0o070 | entry.perm << 3;
                    whole = false;
                }
                Who::User(_) | Who::Group(_) => whole = false,
            }
        }
        (mode, whole)
    }

    /// Makes the list say what `mode` says of owner, mask (or group) and others.
    ///
    /// Source: `__posix_acl_chmod_masq`.
    pub(crate) fn chmod(&mut self, mode: u16) {
        let group = if self.perm_mut(Who::Mask).is_some() { Who::Mask } else { Who::OwningGroup };
        for (who, perm) in [(Who::Owner, mode >> 6), (group, mode >> 3), (Who::Others, mode)] {
            if let Some(entry) = self.perm_mut(who) {
                *entry = perm & 7;
            }
        }
    }

    /// The list and mode of a new file that starts with this default list and asks for `mode`; no list if the mode says
    /// it all.
    ///
    /// Source: `posix_acl_create_masq`.
    pub(crate) fn inherited(&self, mode: u16) -> (Option<Self>, u16) {
        let mut list = self.clone();
        let group = if list.perm_mut(Who::Mask).is_some() { Who::Mask } else { Who::OwningGroup };
        let mut granted = mode & !0o777;
        for (who, shift) in [(Who::Owner, 6), (group, 3), (Who::Others, 0)] {
            if let Some(perm) = list.perm_mut(who) {
                *perm &= mode >> shift & 7;
                granted |= *perm << shift;
            }
        }
        let whole = list.mode_bits().1;
        ((!whole).then_some(list), granted)
    }

    /// Whether the caller may do all of `want` with a file of this owner and group.
    ///
    /// Source: `posix_acl_permission`.
    pub(crate) fn allows(&self, caller: &Caller, uid: u32, gid: u32, want: u16) -> bool {
        let grants = |perm: u16| perm & want == want;
        let mask = self.0.iter().find(|entry| entry.who == Who::Mask).map_or(7, |entry| entry.perm);
        let mut in_some_group = false;
        for entry in &self.0 {
            let is_group = match entry.who {
                Who::Owner if caller.uid == uid => return grants(entry.perm),
                Who::User(id) if caller.uid == id => return grants(entry.perm & mask),
                Who::OwningGroup => caller.is_in_group(gid),
                Who::Group(id) => caller.is_in_group(id),
                Who::Others => return !in_some_group && grants(entry.perm),
                Who::Owner | Who::User(_) | Who::Mask => false,
            };
            if is_group && grants(entry.perm) {
                return grants(entry.perm & mask);
            }
            in_some_group |= is_group;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// u::rw-, u:7:rwx, g::r--, g:9:rw-, mask:rw-, o::---
    fn list() -> Acl {
        let entries = [
            (Who::Owner, 6),
            (Who::User(7), 7),
            (Who::OwningGroup, 4),
            (Who::Group(9), 6),
            (Who::Mask, 6),
            (Who::Others, 0),
        ];
        Acl::checked(entries.map(|(who, perm)| Entry { who, perm }).to_vec()).unwrap()
    }

    #[test]
    fn both_forms_keep_the_list() {
        assert_eq!(Acl::from_disk(&list().to_disk()), Some(list()));
        assert_eq!(Acl::from_wire(&list().to_wire()).unwrap(), Some(list()));
        assert_eq!(list().to_disk().len(), 4 + 4 * 4 + 2 * 8);
        assert_eq!(list().to_wire().len(), 4 + 6 * 8);
    }

    #[test]
    fn malformed_lists_are_refused() {
        assert!(matches!(Acl::from_wire(&[2, 0, 0]), Err(Error::Invalid(_))));
        assert!(matches!(Acl::from_wire(&[1, 0, 0, 0]), Err(Error::NotSupported(_))));
        assert_eq!(Acl::from_wire(&WIRE_VERSION).unwrap(), None);
        let wire = list().to_wire();
        assert!(Acl::from_wire(&wire[..wire.len() - 8]).is_err());
        assert!(Acl::from_wire(&wire[..wire.len() - 1]).is_err());
        let mut unmasked = wire.clone();
        unmasked.drain(4 + 4 * 8..4 + 5 * 8);
        assert!(Acl::from_wire(&unmasked).is_err());
        assert_eq!(Acl::from_disk(&[1, 0, 0, 0, 1, 0, 7, 0, 2]), None);
    }

    #[test]
    fn mode_shows_the_mask_as_group() {
        assert_eq!(list().mode_bits(), (0o660, false));
        let mut changed = list();
        changed.chmod(0o751);
        assert_eq!(changed.mode_bits(), (0o751, false));
        assert_eq!(changed.0[2].perm, 4);
    }

    #[test]
    fn new_files_get_what_both_list_and_mode_allow() {
        let (kept, mode) = list().inherited(0o100_644);
        assert_eq!(mode, 0o100_640);
        assert_eq!(kept.unwrap().mode_bits().0, 0o640);
        let minimal = [(Who::Owner, 7), (Who::OwningGroup, 5), (Who::Others, 5)];
        let minimal =
            Acl::checked(minimal.map(|(who, perm)| Entry { who, perm }).to_vec()).unwrap();
        assert_eq!(minimal.inherited(0o666), (None, 0o644));
    }

    #[test]
    fn named_entries_are_masked_and_groups_add_up() {
        let ask = |uid, gid, want| list().allows(&Caller::user(uid, gid), 1, 2, want);
        assert!(ask(1, 5, 6) && !ask(1, 5, 1));
        assert!(ask(7, 5, 6) && !ask(7, 5, 1));
        assert!(ask(3, 2, 4) && !ask(3, 2, 2));
        assert!(ask(3, 9, 2));
        assert!(!ask(3, 3, 4));
    }
}
