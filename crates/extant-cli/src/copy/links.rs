//! Memory of files with several names.

use std::collections::HashMap;

use extant_format::cast::usize_from;

use super::stream::{FileId, Place};

/// Which files were met, by the source: each has a number, which the target knows it by. A file all of whose names were met
/// is forgotten, so that memory goes with those that have names elsewhere: some twenty bytes each.
#[derive(Debug, Default)]
pub struct Links {
    places: HashMap<Place, HashMap<u64, Met>>,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    number: u32,
    /// Names that may still come.
    left: u32,
}

/// What a file is to those that were met before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meeting {
    First(u32),
    Again(u32),
}

impl Links {
    /// Meets a file under one of its `names`; how many it has is not known where links to it are followed.
    pub fn meet(&mut self, id: FileId, names: Option<u32>) -> Meeting {
        let files = self.places.entry(id.place).or_default();
        let left = names.unwrap_or(u32::MAX).saturating_sub(1);
        let Some(met) = files.get_mut(&id.inode) else {
            let number = self.count;
            self.count += 1;
            files.insert(id.inode, Met { number, left });
            return Meeting::First(number);
        };
        let number = met.number;
        met.left -= 1;
        if met.left == 0 {
            files.remove(&id.inode);
        }
        Meeting::Again(number)
    }

    /// The file could not be read: its next name is met as the first.
    pub fn forget(&mut self, id: FileId) {
        if let Some(files) = self.places.get_mut(&id.place) {
            files.remove(&id.inode);
        }
    }
}

/// What a target keeps of each of these files, by number.
#[derive(Debug)]
pub struct Kept<T>(Vec<Option<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Kept<T> {
    /// Keeps `value` for the file of this number.
    pub fn keep(&mut self, number: u32, value: T) {
        let at = usize_from(number);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(value);
    }

    /// What was kept.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.0.get(usize_from(number))?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_remembered_until_all_its_names_were_met() {
        let id = |inode| FileId { place: Place::Target, inode };
        let mut links = Links::default();
        assert_eq!(links.meet(id(7), Some(2)), Meeting::First(0));
        assert_eq!(links.meet(id(8), Some(3)), Meeting::First(1));
        assert_eq!(links.meet(id(7), Some(2)), Meeting::Again(0));
        assert_eq!(links.meet(id(7), Some(2)), Meeting::First(2));
        links.forget(id(8));
        assert_eq!(links.meet(id(8), None), Meeting::First(3));
        assert_eq!(links.meet(id(8), None), Meeting::Again(3));
        let elsewhere = FileId { place: Place::Device(1), inode: 8 };
        assert_eq!(links.meet(elsewhere, Some(2)), Meeting::First(4));
    }

    #[test]
    fn what_is_kept_is_found_by_number() {
        let mut kept = Kept::default();
        kept.keep(2, 'c');
        assert_eq!((kept.get(2), kept.get(1), kept.get(3)), (Some(&'c'), None, None));
    }
}
