//! Who asks for an operation: an argument of every call that the kernel would check against credentials.

use alloc::vec::Vec;

/// The credentials of whoever asks.
///
/// Source: kernel `struct cred`, of which the file system looks at these parts only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group that new files get.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Permission bits that new files do not get.
    pub umask: u16,
    /// Holds every capability, as root does.
    pub privileged: bool,
    /// Somebody else has asked already whether he may, as the kernel does for a mount: nothing is refused for want of
    /// permission. What a file system decides by itself (who owns what is made, who may have root's reserve, which bits a
    /// write takes away) follows from the rest.
    pub checked: bool,
}

impl Caller {
    /// The superuser, who may do everything and masks nothing.
    pub const ROOT: Self =
        Self { uid: 0, gid: 0, groups: Vec::new(), umask: 0, privileged: true, checked: false };

    /// An ordinary user with one group and the usual mask.
    pub const fn user(uid: u32, gid: u32) -> Self {
        Self { uid, gid, groups: Vec::new(), umask: 0o022, privileged: false, checked: false }
    }

    /// Whether the caller belongs to the group.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Whether the caller owns files of `uid`, or may act as if.
    ///
    /// Source: kernel `inode_owner_or_capable`.
    pub const fn owns(&self, uid: u32) -> bool {
        self.uid == uid || self.may_all()
    }

    /// Whether no permission bits and no owner stand in his way.
    pub const fn may_all(&self) -> bool {
        self.privileged || self.checked
    }
}
