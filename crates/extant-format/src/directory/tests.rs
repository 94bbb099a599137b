use super::*;
use proptest::prelude::*;

const PLACE: Place = Place::Superblock;

fn layout(block_size: u32) -> DirLayout {
    DirLayout {
        block_size,
        has_tail: true,
        has_hashes: false,
        has_types: true,
        inodes_count: 1000,
        max_levels: 1,
    }
}

fn ino(n: u32) -> InodeNumber {
    InodeNumber::new(n).unwrap()
}

fn names(block: &[u8], layout: DirLayout) -> Vec<Vec<u8>> {
    let entries = DirEntries::new(block, layout, PLACE).map(Result::unwrap);
    entries.filter(|entry| entry.inode.is_some()).map(|entry| entry.name.to_vec()).collect()
}

fn new(name: &[u8]) -> NewEntry<'_> {
    NewEntry { name, inode: ino(12), file_type: FileType::Regular, hash: (7, 8) }
}

#[test]
fn a_new_directory_has_dots_and_a_tail() {
    for size in [1024, 4096, 65536] {
        let mut block = vec![0xAA; usize_from(size)];
        init_with_dots(&mut block, layout(size), ino(11), ino(2));
        assert_eq!(names(&block, layout(size)), [b".".to_vec(), b"..".to_vec()]);
        assert!(has_tail(&block) && !verify_checksum(&block, 5));
        set_checksum(&mut block, 5);
        assert!(verify_checksum(&block, 5));
    }
}

#[test]
fn a_whole_block_of_64_kib_is_one_entry() {
    let plain = DirLayout { has_tail: false, ..layout(65536) };
    let mut block = vec![0; 65536];
    init(&mut block, plain);
    assert_eq!(block[4..6], [0xFF, 0xFF]);
    assert_eq!(DirEntries::new(&block, plain, PLACE).next().unwrap().unwrap().len, 65536);
    block[4..6].fill(0);
    assert_eq!(DirEntries::new(&block, plain, PLACE).next().unwrap().unwrap().len, 65536);
}

#[test]
fn each_entry_check_refuses() {
    let check = |change: fn(&mut [u8])| {
        let mut block = vec![0; 1024];
        init_with_dots(&mut block, layout(1024), ino(11), ino(2));
        change(&mut block);
        DirEntries::new(&block, layout(1024), PLACE)
            .find_map(Result::err)
            .map(|corruption| corruption.rule)
    };
    assert_eq!(check(|_| ()), None);
    assert_eq!(check(|block| block[4] = 8), Some(Rule::EntryLength));
    assert_eq!(check(|block| block[4] = 14), Some(Rule::EntryLength));
    assert_eq!(check(|block| block[16..18].copy_from_slice(&[0xFC, 3])), Some(Rule::EntryLength));
    assert_eq!(check(|block| block[16..18].copy_from_slice(&[0xE0, 3])), Some(Rule::EntryLength));
    assert_eq!(check(|block| block[6] = 5), Some(Rule::EntryName));
    assert_eq!(check(|block| block[6] = 0), Some(Rule::EntryName));
    assert_eq!(check(|block| block[2] = 1), Some(Rule::EntryInode));
}

#[test]
fn hashes_follow_the_name() {
    let hashed = DirLayout { has_hashes: true, ..layout(1024) };
    let mut block = vec![0; 1024];
    init_with_dots(&mut block, hashed, ino(11), ino(2));
    insert(&mut block, hashed, PLACE, &new(b"abcde")).unwrap().unwrap();
    insert(&mut block, hashed, PLACE, &new(b"x")).unwrap().unwrap();
    let found = find(&block, hashed, PLACE, b"abcde").unwrap().unwrap();
    assert_eq!((found.hash, found.len), (Some((7, 8)), 24));
    assert_eq!(find(&block, hashed, PLACE, b"..").unwrap().unwrap().hash, None);
}

proptest! {
    #[test]
    fn a_block_agrees_with_a_set_of_names(
        steps in prop::collection::vec((any::<bool>(), 0..40_usize, 1..60_usize), 1..80),
    ) {
        let layout = layout(1024);
        let mut block = vec![0; 1024];
        init(&mut block, layout);
        let mut model = std::collections::BTreeSet::new();
        for (add, which, len) in steps {
            if add {
                let name: Vec<u8> = format!("{which:0len$}").into_bytes();
                if !model.contains(&name) && insert(&mut block, layout, PLACE, &new(&name)).unwrap().is_some() {
                    model.insert(name);
                }
            } else if let Some(name) = model.iter().nth(which).cloned() {
                let offset = find(&block, layout, PLACE, &name).unwrap().unwrap().offset;
                remove(&mut block, layout, PLACE, offset).unwrap();
                model.remove(&name);
            }
            let mut found = names(&block, layout);
            found.sort();
            prop_assert_eq!(found, model.iter().cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_bytes_make_a_walk_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..200), hashed: bool) {
        let layout = DirLayout { has_hashes: hashed, ..layout(65536) };
        prop_assert!(DirEntries::new(&bytes, layout, PLACE).count() <= bytes.len() / 12 + 1);
    }
}
