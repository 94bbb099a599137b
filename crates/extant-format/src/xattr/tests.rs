use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const AT: Place = Place::Superblock;

fn geometry() -> Geometry {
    crate::geometry::tests::geometry(12, 100_000, |raw| {
        raw.feature_incompat = (raw.incompat() | Incompat::EA_INODE).bits().into();
    })
}

fn here(value: XattrValue<'_>) -> Vec<u8> {
    match value {
        XattrValue::Here(value) => value.to_vec(),
        XattrValue::Inode { .. } => panic!("value is elsewhere"),
    }
}

fn contents(view: XattrView<'_>) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    view.entries().map(|entry| ((entry.index.0, entry.name.to_vec()), here(entry.value))).collect()
}

#[test]
fn names_split_at_their_prefix() {
    assert_eq!(NameIndex::split(b"user.a"), Some((NameIndex::USER, b"a".as_slice())));
    assert_eq!(
        NameIndex::split(b"system.posix_acl_access"),
        Some((NameIndex::ACL_ACCESS, b"".as_slice()))
    );
    assert_eq!(
        NameIndex::split(b"security.selinux"),
        Some((NameIndex::SECURITY, b"selinux".as_slice()))
    );
    assert_eq!(NameIndex::split(b"user."), None);
    assert_eq!(NameIndex::split(b"other.a"), None);
    assert_eq!(NameIndex::ENCRYPTION.prefix(), None);
}

#[test]
fn an_empty_inode_has_88_bytes_for_attributes() {
    let mut inode = vec![0; 256];
    assert!(XattrView::in_inode(&inode, 32, AT, &geometry()).unwrap().is_none());
    let area = XattrMut::in_inode(&mut inode, 32, AT, &geometry()).unwrap().unwrap();
    assert_eq!(area.view().free_bytes(), 88);
    assert!(XattrView::in_inode(&inode, 32, AT, &geometry()).unwrap().unwrap().is_empty());
}

#[test]
fn an_inode_without_extra_fields_has_no_room_for_attributes() {
    for (len, extra) in [(128, 0), (256, 0), (256, 124), (256, 128)] {
        let mut inode = vec![7; len];
        assert!(XattrMut::in_inode(&mut inode, extra, AT, &geometry()).unwrap().is_none());
        assert!(XattrView::in_inode(&inode, extra, AT, &geometry()).unwrap().is_none());
        assert_eq!(inode, vec![7; len]);
    }
}

#[test]
fn inode_entries_have_no_hash_and_block_entries_have() {
    let mut inode = vec![0; 256];
    let mut area = XattrMut::in_inode(&mut inode, 32, AT, &geometry()).unwrap().unwrap();
    assert!(area.set(NameIndex::USER, b"a", NewValue::Here(b"one")));
    assert_eq!(area.view().find(NameIndex::USER, b"a").unwrap().hash, 0);
    let elsewhere = NewValue::Inode { inode: InodeNumber::new(50).unwrap(), size: 9000, hash: 77 };
    assert!(area.set(NameIndex::USER, b"b", elsewhere));
    let entry = area.view().find(NameIndex::USER, b"b").unwrap();
    assert_eq!(entry.value.size(), 9000);
    assert!(entry.hash_matches(77) && !entry.hash_matches(78));
    let mut block = vec![0; 1024];
    let mut area = XattrMut::init_block(&mut block);
    assert!(area.set(NameIndex::USER, b"a", NewValue::Here(b"one")));
    let entry = area.view().find(NameIndex::USER, b"a").unwrap();
    let hash = entry.hash;
    assert!(hash != 0 && entry.hash_matches(0));
    assert_eq!(stored_block_hash(&block), Some(hash));
    assert_eq!(references(&block), Some(1));
}

#[test]
fn signed_hashes_are_accepted() {
    let name = [0xC3, 0xA9, b'x'];
    let hash = signed_entry_hash(&name, b"v");
    assert_ne!(hash, entry_hash(&name, b"v"));
    let entry =
        XattrEntry { index: NameIndex::USER, name: &name, value: XattrValue::Here(b"v"), hash };
    assert!(entry.hash_matches(0));
}

#[test]
fn block_entries_are_sorted_by_index_length_and_name() {
    let mut block = vec![0; 1024];
    let mut area = XattrMut::init_block(&mut block);
    for (index, name) in [(6, "z"), (1, "bb"), (1, "c"), (1, "aa"), (2, "")] {
        assert!(area.set(NameIndex(index), name.as_bytes(), NewValue::Here(b"")));
    }
    let order: Vec<_> =
        area.view().entries().map(|entry| (entry.index.0, entry.name.to_vec())).collect();
    let expected = [(1, "c"), (1, "aa"), (1, "bb"), (2, ""), (6, "z")];
    assert_eq!(order, expected.map(|(index, name)| (index, name.as_bytes().to_vec())));
}

#[test]
fn block_checksum_knows_its_place() {
    let mut block = vec![0; 4096];
    XattrMut::init_block(&mut block);
    set_checksum(&mut block, &geometry(), PhysicalBlock::new(9));
    assert!(verify_checksum(&block, &geometry(), PhysicalBlock::new(9)));
    assert!(!verify_checksum(&block, &geometry(), PhysicalBlock::new(8)));
}

#[test]
fn each_check_refuses() {
    let check = |change: fn(&mut [u8])| {
        let mut block = vec![0; 1024];
        let mut area = XattrMut::init_block(&mut block);
        assert!(area.set(NameIndex::USER, b"abcd", NewValue::Here(b"value")));
        assert!(area.set(NameIndex::USER, b"bcde", NewValue::Here(b"other")));
        change(&mut block);
        XattrMut::in_block(&mut block, AT, &geometry()).err().map(|broken| broken.rule)
    };
    assert_eq!(check(|_| ()), None);
    assert_eq!(check(|block| block[0] = 1), Some(Rule::Magic));
    assert_eq!(check(|block| block[8] = 2), Some(Rule::AttributeHeader));
    assert_eq!(check(|block| block[50] = 0), Some(Rule::AttributeName));
    assert_eq!(check(|block| block[32..].fill(1)), Some(Rule::AttributeEntry));
    assert_eq!(check(|block| block[41] = 4), Some(Rule::AttributeValue));
    assert_eq!(check(|block| block[43] = 2), Some(Rule::AttributeValue));
    assert_eq!(check(|block| block[38] = 0x10), Some(Rule::AttributeValue));
    assert_eq!(check(|block| block[34..36].fill(0)), Some(Rule::AttributeOverlap));
    assert_eq!(check(|block| block.copy_within(34..36, 54)), Some(Rule::AttributeOverlap));
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, String, Vec<u8>),
    Remove(usize),
    Resize(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prop::sample::select(vec![1_u8, 4, 6]), "[ab]{1,5}", prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(index, name, value)| Step::Set(index, name, value)),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 0..40_usize).prop_map(|(which, len)| Step::Resize(which, len)),
    ]
}

/// Applies steps to an area and to a map, and compares.
fn agree(mut area: XattrMut<'_>, room: usize, steps: Vec<Step>) {
    let mut model = BTreeMap::new();
    for step in steps {
        match step {
            Step::Set(index, name, value) => {
                let fits = {
                    let mut next = model.clone();
                    next.insert((index, name.clone().into_bytes()), value.clone());
                    let size = |((_, name), value): (&(u8, Vec<u8>), &Vec<u8>)| {
                        entry_bytes(name.len()) + padded(value.len())
                    };
                    next.iter().map(size).sum::<usize>() <= room
                };
                assert_eq!(
                    area.set(NameIndex(index), name.as_bytes(), NewValue::Here(&value)),
                    fits
                );
                if fits {
                    model.insert((index, name.into_bytes()), value);
                }
            }
            Step::Remove(which) => {
                let found = model.keys().nth(which % (model.len() + 1)).cloned();
                if let Some((index, name)) = found {
                    assert!(area.remove(NameIndex(index), &name));
                    model.remove(&(index, name));
                }
            }
            Step::Resize(which, len) if area.start == 0 => {
                let found = model.keys().nth(which % (model.len() + 1)).cloned();
                if let Some(key) = found {
                    let fits = padded(len) <= area.view().free_bytes() + padded(model[&key].len());
                    assert_eq!(area.resize_value(NameIndex(key.0), &key.1, len), fits);
                    if fits {
                        model.get_mut(&key).unwrap().resize(len, 0);
                    }
                }
            }
            Step::Resize(..) => {}
        }
        area.view().check(AT, &geometry()).unwrap();
        assert_eq!(contents(area.view()), model);
    }
}

proptest! {
    #[test]
    fn an_inode_area_agrees_with_a_map(steps in prop::collection::vec(step(), 1..30)) {
        let mut inode = vec![0; 256];
        agree(XattrMut::in_inode(&mut inode, 32, AT, &geometry()).unwrap().unwrap(), 88, steps);
    }

    #[test]
    fn a_block_agrees_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut block = vec![0; 1024];
        agree(XattrMut::init_block(&mut block), 1024 - BLOCK_OVERHEAD_BYTES, steps);
        let view = XattrView::in_block(&block, AT, &geometry()).unwrap();
        prop_assert!(view.entries().all(|entry| entry.hash_matches(0)));
        prop_assert_eq!(stored_block_hash(&block), Some(block_hash(view)));
    }

    #[test]
    fn no_bytes_make_a_view_or_a_change_panic(
        damage in prop::collection::vec((0..1024_usize, any::<u8>()), 0..12), steps in prop::collection::vec(step(), 1..6),
    ) {
        let mut block = vec![0; 1024];
        let mut area = XattrMut::init_block(&mut block);
        for (index, name) in [(1, "a"), (1, "b"), (6, "c")] {
            prop_assert!(area.set(NameIndex(index), name.as_bytes(), NewValue::Here(&[7; 30])));
        }
        for (at, byte) in damage {
            let at = if at % 2 == 0 { 32 + at % 72 } else { at };
            block[at] = byte;
        }
        if let Ok(mut area) = XattrMut::in_block(&mut block, AT, &geometry()) {
            for step in steps {
                if let Step::Set(index, name, value) = step {
                    let _ = area.set(NameIndex(index), name.as_bytes(), NewValue::Here(&value));
                    let _ = area.remove(NameIndex::USER, b"a");
                }
            }
        }
    }
}
