//! Compares superblocks and group descriptors of two images, field by field and by name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use extant_format::superblock::RawSuperblock;
use extant_format::{BlockGroup, Geometry, GroupDescriptor};
use zerocopy::FromBytes;

/// Fields that may differ in any image.
///
/// - `kbytes_written`: mke2fs says 1 whatever it wrote; this says how much it was.
/// - `checksum`: of all the others; e2fsck checks it.
const ALWAYS: [&str; 2] = ["kbytes_written", "checksum"];

/// What differs, a line each; `allowed` are names of fields that may, a trailing `*` of all whose name begins so.
pub fn differences(ours: &Path, theirs: &Path, allowed: &[&str]) -> Vec<String> {
    let may = |name: &str| {
        ALWAYS.contains(&name)
            || allowed.iter().any(|one| match one.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *one,
            })
    };
    let (ours, theirs) = (Image::open(ours), Image::open(theirs));
    let mut found = Vec::new();
    let mut note = |place: &str, ours: &Fields, theirs: &Fields| {
        for (name, value) in theirs {
            if ours.get(name) != Some(value) && !may(name) {
                let ours = ours.get(name).map_or("-", String::as_str);
                found.push(format!("{place}{name}: ours {ours}, theirs {value}"));
            }
        }
    };
    note("", &fields(&ours.raw), &fields(&theirs.raw));
    if ours.geometry.group_count == theirs.geometry.group_count {
        for group in ours.geometry.groups() {
            let place = format!("group {}: ", group.get());
            note(&place, &fields(&ours.descriptor(group)), &fields(&theirs.descriptor(group)));
        }
    }
    found
}

type Fields = BTreeMap<String, String>;

/// The fields of a structure, as its own pretty form has them.
fn fields(structure: &impl Debug) -> Fields {
    let text = format!("{structure:#?}");
    let mut fields = Fields::new();
    let mut last = String::new();
    for line in text.lines() {
        match line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', ']', ')', '}'])) {
            Some(rest) => {
                let (name, value) = rest.split_once(": ").unwrap_or((rest, ""));
                last = name.to_owned();
                fields.insert(last.clone(), value.to_owned());
            }
            None => {
                if let Some(value) = fields.get_mut(&last) {
                    value.push_str(line.trim());
                }
            }
        }
    }
    fields
}

struct Image {
    file: File,
    raw: RawSuperblock,
    geometry: Geometry,
}

impl Image {
    fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, 1024).unwrap();
        let raw = RawSuperblock::read_from_bytes(&bytes).unwrap();
        let geometry = Geometry::try_from(&raw).unwrap();
        Self { file, raw, geometry }
    }

    fn descriptor(&self, group: BlockGroup) -> GroupDescriptor {
        let (block, at) = self.geometry.descriptor_place(group);
        let start = self.geometry.descriptor_block(block).get() << self.geometry.block_bits;
        let mut bytes = vec![0; usize::try_from(self.geometry.desc_size).unwrap()];
        let offset = start + u64::try_from(at).unwrap();
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        assert!(GroupDescriptor::verify(&bytes, &self.geometry, group));
        GroupDescriptor::decode(&bytes, &self.geometry, group).unwrap()
    }
}
