//! What a copy keeps, follows and replaces, apart from how the command line says it.

/// What the sources read and keep.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Directories too, and what is no regular file as such.
    pub recursive: bool,
    /// Which symbolic links stand for what they lead to.
    pub follow: Follow,
    pub keep: Keep,
    /// New files have the usual permissions, whatever their sources have (`--no-preserve=mode`).
    pub usual_mode: bool,
    pub sparse: Sparse,
    /// Directories of other file systems stay empty.
    pub one_file_system: bool,
}

/// Which symbolic links stand for what they lead to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Follow {
    Never,
    /// Those that are sources.
    Named,
    Always,
}

/// Which attributes are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Keep {
    /// Permissions and access lists.
    pub mode: bool,
    pub owner: bool,
    pub times: bool,
    /// That names are of one file.
    pub links: bool,
    /// Extended attributes, but for access lists.
    pub xattrs: bool,
}

impl Keep {
    /// Everything there is.
    pub const ALL: Self = Self { mode: true, owner: true, times: true, links: true, xattrs: true };
    /// What `-p` keeps.
    pub const USUAL: Self = Self { links: false, xattrs: false, ..Self::ALL };

    /// Whether an extended attribute is kept.
    pub fn wants_xattr(&self, name: &[u8]) -> bool {
        if is_access_list(name) { self.mode } else { self.xattrs }
    }

    /// The same with what `list` names too, or without it.
    ///
    /// # Errors
    /// The first word that names no attribute.
    pub fn with(mut self, list: &str, on: bool) -> Result<Self, String> {
        for word in list.split(',').filter(|word| !word.is_empty()) {
            match word {
                "mode" => self.mode = on,
                "ownership" => self.owner = on,
                "timestamps" => self.times = on,
                "links" => self.links = on,
                "xattr" => self.xattrs = on,
                "all" => self = if on { Self::ALL } else { Self::default() },
                _ => return Err(word.to_owned()),
            }
        }
        Ok(self)
    }
}

/// Whether an extended attribute is an access list, which belongs to the permissions.
pub fn is_access_list(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// What becomes of holes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Sparse {
    /// Holes stay holes
    #[default]
    Auto,
    /// Blocks of zeros become holes
    Always,
    /// Holes become zeros
    Never,
}

/// What becomes of files that are in the way.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub replace: Replace,
    /// They are removed before a copy is made, and not written over.
    pub remove_first: bool,
    /// They are removed if they cannot be written over.
    pub force: bool,
    /// Names of one file are kept so: a copy that has several is a new file.
    pub keep_links: bool,
    /// Through which symbolic links in the way, and to which devices, copies are written: to any, to one that is itself named
    /// as the target, or to none, so that what is copied cannot lead out of the target.
    pub through: Follow,
    /// Permission bits that new files do not get.
    pub umask: u16,
    /// Permission bits are kept as they are.
    pub keep_mode: bool,
    /// Times are kept.
    pub keep_times: bool,
}

/// When a file that is in the way is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replace {
    Always,
    /// If it is older than what is copied (`cp -u`).
    Older,
    /// If the user says so (`cp -i`).
    Asked,
    /// Never (`cp -n`).
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_attributes_add_up() {
        assert_eq!(Keep::default().with("mode,ownership,timestamps", true), Ok(Keep::USUAL));
        assert_eq!(Keep::ALL.with("links,xattr", false), Ok(Keep::USUAL));
        assert_eq!(Keep::default().with("all", true), Ok(Keep::ALL));
        assert_eq!(Keep::default().with("mood", true), Err("mood".to_owned()));
    }
}
