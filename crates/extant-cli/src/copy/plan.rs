//! What goes where: from the paths of a command line to a directory, and a name in it for each source.

use std::os::unix::ffi::OsStrExt;

use extant::{Error, Filesystem};

use super::arguments::CpArgs;
use crate::address::{Address, ImagePath, last_name, parent};
use crate::failure::Usage;

/// Where all copies of one call go.
#[derive(Debug)]
pub struct Plan {
    pub sources: Vec<Address>,
    /// The directory that is there already.
    pub directory: Address,
    pub naming: Naming,
}

/// What the copies are called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Naming {
    /// As their sources.
    AsSources,
    /// As their sources, with the directories above them.
    WithParents,
    /// This is the one copy's name; with a slash at its end only a directory can have it.
    Exactly { name: Vec<u8>, only_directory: bool },
}

/// What lies at the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtTarget {
    Nothing,
    Directory,
    Other,
}

impl Plan {
    /// The plan for these paths; `look` tells what lies at an address, or at that of a symbolic link's end.
    ///
    /// # Errors
    /// A command line that makes no sense, or a target that is no directory where one is needed.
    pub fn new(
        args: &CpArgs,
        look: impl FnOnce(&Address) -> anyhow::Result<AtTarget>,
    ) -> anyhow::Result<Self> {
        let (target, sources) = match (&args.target_directory, args.paths.split_last()) {
            (Some(target), _) => (target, &args.paths[..]),
            (None, Some((target, sources @ [_, ..]))) => (target, sources),
            (None, last) => {
                let last = last.map_or(String::new(), |(last, _)| last.to_string());
                return Err(Usage(format!("{last}: where to? A source needs a target")).into());
            }
        };
        let sources = sources.to_vec();
        if args.no_target_directory {
            if sources.len() > 1 {
                return Err(Usage("-T takes one source and one target".to_owned()).into());
            }
            return Ok(Self::exactly(sources, target));
        }
        let needs_directory = args.target_directory.is_some() || sources.len() > 1 || args.parents;
        match look(target)? {
            AtTarget::Directory => {
                let naming = if args.parents { Naming::WithParents } else { Naming::AsSources };
                Ok(Self { sources, directory: target.clone(), naming })
            }
            AtTarget::Nothing if needs_directory => Err(Error::NotFound).context_of(target),
            AtTarget::Other if needs_directory => Err(Error::NotDirectory).context_of(target),
            AtTarget::Nothing | AtTarget::Other => Ok(Self::exactly(sources, target)),
        }
    }

    /// One source goes to this very name.
    fn exactly(sources: Vec<Address>, target: &Address) -> Self {
        let path = path_of(target);
        let only_directory = path.ends_with(b"/");
        // What has no name of its own is a directory that is there.
        let name = last_name(path).unwrap_or_default().to_vec();
        let directory = match (target, name.is_empty()) {
            (_, true) => target.clone(),
            (Address::Image(inside), false) => {
                Address::Image(ImagePath { path: parent(path).to_vec(), ..inside.clone() })
            }
            (Address::Local(path), false) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                Address::Local(parent.map_or_else(|| ".".into(), Into::into))
            }
        };
        Self { sources, directory, naming: Naming::Exactly { name, only_directory } }
    }

    /// What the copy of `source` is called; empty for the directory itself.
    pub fn name_of(&self, source: &Address) -> Vec<u8> {
        match &self.naming {
            Naming::Exactly { name, .. } => name.clone(),
            _ => last_name(path_of(source)).unwrap_or_default().to_vec(),
        }
    }

    /// The directories that are made above the copy of `source`, each with its own path.
    pub fn parents_of(&self, source: &Address) -> anyhow::Result<Vec<(Vec<u8>, Address)>> {
        let mut parents = Vec::new();
        if self.naming != Naming::WithParents {
            return Ok(parents);
        }
        let path = path_of(source);
        let above = parent(path);
        let mut end = 0;
        for name in above.split(|byte| *byte == b'/') {
            end += name.len() + 1;
            match name {
                b"" | b"." => continue,
                b".." => anyhow::bail!("{source}: with --parents a source's path has no `..`"),
                _ => {}
            }
            let path = &path[..(end - 1).min(path.len())];
            let address = match source {
                Address::Image(inside) => {
                    Address::Image(ImagePath { path: path.to_vec(), ..inside.clone() })
                }
                Address::Local(_) => Address::Local(std::ffi::OsStr::from_bytes(path).into()),
            };
            parents.push((name.to_vec(), address));
        }
        Ok(parents)
    }
}

/// What lies at a path in an image.
pub fn look_in_image(filesystem: &Filesystem, at: &ImagePath) -> anyhow::Result<AtTarget> {
    match filesystem.inode(&at.path) {
        Ok(found) if found.is_dir() => Ok(AtTarget::Directory),
        Ok(_) => Ok(AtTarget::Other),
        Err(Error::NotFound) => Ok(AtTarget::Nothing),
        Err(error) => Err(error).context_of(&Address::Image(at.clone())),
    }
}

/// What lies at a path of this machine.
pub fn look_locally(path: &std::path::Path) -> anyhow::Result<AtTarget> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(AtTarget::Directory),
        Ok(_) => Ok(AtTarget::Other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(AtTarget::Nothing),
        Err(error) => Err(error).context_of(&Address::Local(path.to_owned())),
    }
}

/// Puts an address before an error.
trait ContextOf<T> {
    fn context_of(self, address: &Address) -> anyhow::Result<T>;
}

impl<T, E> ContextOf<T> for Result<T, E>
where
    Self: anyhow::Context<T, E>,
{
    fn context_of(self, address: &Address) -> anyhow::Result<T> {
        anyhow::Context::with_context(self, || address.to_string())
    }
}

fn path_of(address: &Address) -> &[u8] {
    match address {
        Address::Image(inside) => &inside.path,
        Address::Local(path) => path.as_os_str().as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_parents_each_directory_above_is_made() {
        let plan = Plan {
            sources: Vec::new(),
            directory: Address::Local("t".into()),
            naming: Naming::WithParents,
        };
        let parents = |text: &str| {
            let found = plan.parents_of(&Address::parse(text.into())).unwrap();
            let shown = found
                .into_iter()
                .map(|(name, at)| format!("{}={at}", String::from_utf8_lossy(&name)));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(parents("a/./b/c"), "a=a b=a/./b");
        assert_eq!(parents("/a/c/"), "a=/a");
        assert_eq!(parents("i:/a/b//c"), "a=i:/a b=i:/a/b");
        assert_eq!(parents("c"), "");
        assert!(plan.parents_of(&Address::parse("a/../c".into())).is_err());
    }
}
