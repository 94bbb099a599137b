//! e2fsck, debugfs and the kernel as judges: they replay what we write, and we replay what debugfs writes.

#[cfg(test)]
mod judged {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use extant_format::cast::usize_from;
    use extant_format::fast_commit::{Record, Records};
    use extant_format::features::Incompat;
    use extant_format::jbd2::{JournalCompat, JournalIncompat, JournalSuperblock, MAGIC};
    use extant_format::{PhysicalBlock, Superblock};
    use extant_journal::*;
    use extant_testkit::oracle::{self, KernelMount, Scratch};
    use zerocopy::IntoBytes;

    /// Blocks of the file whose contents the tests change.
    const FILE_BLOCKS: usize = 12;

    /// An image with a journal and a file, whose blocks are known.
    struct Image {
        path: PathBuf,
        bytes: Vec<u8>,
        block_size: usize,
        journal: Vec<u64>,
        file: Vec<u64>,
    }

    impl Image {
        /// `None`, after a skip, where the tools are missing.
        fn new(scratch: &Scratch, block_size: usize, features: &str) -> Option<Self> {
            let path = scratch.path("image");
            let size = block_size.to_string();
            let journal = (block_size >> 10).max(4);
            let megabytes = u64::try_from(journal).unwrap() * 8;
            let journal = format!("size={journal}");
            oracle::mkfs(&path, megabytes << 20, &["-b", &size, "-J", &journal, "-O", features])?;
            let contents = scratch.path("contents");
            std::fs::write(&contents, vec![b'.'; FILE_BLOCKS * block_size]).unwrap();
            oracle::debugfs_write(&path, &format!("write {} file\n", contents.display()))?;
            let mut image =
                Self { path, bytes: Vec::new(), block_size, journal: Vec::new(), file: Vec::new() };
            image.journal = image.blocks_of("<8>")?;
            image.file = image.blocks_of("file")?;
            image.load();
            assert_eq!(image.file.len(), FILE_BLOCKS);
            assert_eq!(image.journal.len(), usize_from(image.superblock().max_len()));
            Some(image)
        }

        fn blocks_of(&self, file: &str) -> Option<Vec<u64>> {
            let listed = oracle::debugfs(&self.path, &format!("blocks {file}"))?;
            Some(listed.split_whitespace().map(|number| number.parse().unwrap()).collect())
        }

        fn load(&mut self) {
            self.bytes = std::fs::read(&self.path).unwrap();
        }

        fn store(&self, path: &Path) {
            std::fs::write(path, &self.bytes).unwrap();
        }

        fn block(&mut self, number: u64) -> &mut [u8] {
            let at = usize::try_from(number).unwrap() * self.block_size;
            &mut self.bytes[at..at + self.block_size]
        }

        fn log_block(&mut self, at: LogBlock) -> &mut [u8] {
            self.block(self.journal[usize_from(at.get())])
        }

        fn superblock(&self) -> JournalSuperblock {
            let at = usize::try_from(self.journal[0]).unwrap() * self.block_size;
            JournalSuperblock::parse(&self.bytes[at..]).unwrap()
        }

        /// The first and the last byte of each block of the file.
        fn file(&mut self) -> Vec<(u8, u8)> {
            let ends = |block: &[u8]| (block[0], *block.last().unwrap());
            self.file.clone().into_iter().map(|block| ends(self.block(block))).collect()
        }

        fn set_needs_recovery(&mut self) {
            let at = usize::try_from(Superblock::OFFSET_BYTES).unwrap();
            let mut superblock = Superblock::parse(&self.bytes[at..]).unwrap();
            let incompat = superblock.raw().incompat() | Incompat::RECOVER;
            superblock.raw_mut().feature_incompat = incompat.bits().into();
            self.bytes[at..at + 1024].copy_from_slice(superblock.to_raw().as_bytes());
        }

        /// Commits one transaction that fills blocks of the file, or revokes them (`None`).
        fn commit(&mut self, journal: &mut Journal<Arc<[u8]>>, changes: &[(usize, Option<u8>)]) {
            let request = HandleRequest { blocks: 20, revokes: 20, reserved: 0 };
            let Begin::Granted { ticket, .. } = journal.begin(request, Duration::ZERO) else {
                panic!()
            };
            let tid = ticket.tid();
            let mut contents = BTreeMap::new();
            let mut filed = Vec::new();
            for &(index, fill) in changes {
                let block = PhysicalBlock::new(self.file[index]);
                filed.push((block, fill.map_or(BlockChange::Revoke, |_| BlockChange::Dirty)));
                let mut bytes = vec![fill.unwrap_or_default(); self.block_size];
                if fill == Some(MAGIC.to_be_bytes()[0]) {
                    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                }
                contents.insert(block, Arc::from(bytes));
            }
            let _ = journal.stop(ticket, filed);
            assert_eq!(journal.lock(tid), Ok(Lock::Locked));
            let mut plan =
                journal.switch(Duration::ZERO, |block| contents.get(&block).cloned()).unwrap();
            if let Some(superblock) = plan.superblock() {
                self.log_block(LogBlock::SUPERBLOCK).copy_from_slice(superblock.bytes());
            }
            let mut writes = plan.log_writes();
            writes.push(plan.commit_block(CommitTime { seconds: 1_700_000_000, nanoseconds: 7 }));
            for write in writes {
                self.log_block(write.at).copy_from_slice(write.data.as_ref());
            }
            let _ = journal.committed(plan, Duration::ZERO).unwrap();
        }

        /// Replays the journal in memory, ours.
        fn recover(&mut self) -> Recovered {
            let parameters = JournalParameters::new(self.superblock()).unwrap();
            let blocks = u64::try_from(self.bytes.len() / self.block_size).unwrap();
            let mut recovery = Recovery::new(parameters, RecoveryMode::Replay, blocks).unwrap();
            loop {
                match recovery.step().unwrap() {
                    RecoveryStep::Read(range) => {
                        let numbers = range.start.get()..range.start.get() + range.len;
                        let read: Vec<_> =
                            numbers.map(|at| self.log_block(LogBlock(at)).to_vec()).collect();
                        recovery.supply(&read.concat());
                    }
                    RecoveryStep::Write(writes) => {
                        for (block, bytes) in writes {
                            self.block(block.get()).copy_from_slice(&bytes);
                        }
                    }
                    RecoveryStep::Done(recovered) => return recovered,
                }
            }
        }
    }

    /// Lets e2fsck replay the image, which must be clean then.
    fn replay_by_e2fsck(image: &Path) {
        let output = oracle::run("e2fsck", &["-fy", image.to_str().unwrap()]).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", oracle::text(&output));
        oracle::e2fsck(image).unwrap();
    }

    /// A journal with three transactions of ours, which starts near its end; and what the file holds after them.
    fn written(image: &mut Image, old_checksum: bool, features: JournalIncompat) -> Vec<(u8, u8)> {
        let mut superblock = image.superblock();
        superblock.change(|raw| {
            raw.set_incompat(features);
            raw.head = (raw.max_len.get() - 7).into();
            if old_checksum {
                raw.feature_compat = JournalCompat::CHECKSUM.bits().into();
            }
        });
        let parameters = JournalParameters::new(superblock).unwrap();
        let state = parameters.clean_state();
        let mut journal = Journal::new(parameters, state);
        let magic = MAGIC.to_be_bytes()[0];
        let all: Vec<_> = (0..6).map(|index| (index, Some(b'a'))).collect();
        image.commit(&mut journal, &all);
        image.commit(&mut journal, &[(1, None), (2, Some(b'b')), (3, Some(magic)), (4, None)]);
        image.commit(&mut journal, &[(4, Some(b'c'))]);
        image.set_needs_recovery();
        let mut expected = vec![(b'.', b'.'); FILE_BLOCKS];
        expected[0] = (b'a', b'a');
        expected[2] = (b'b', b'b');
        expected[3] = (magic, magic);
        expected[4] = (b'c', b'c');
        expected[5] = (b'a', b'a');
        expected
    }

    #[test]
    fn e2fsck_replays_what_we_write() {
        use JournalIncompat as F;
        let narrow = "^64bit,^metadata_csum";
        let cases = [
            (1024, narrow, false, F::empty()),
            (1024, narrow, true, F::empty()),
            (4096, narrow, false, F::CSUM_V2),
            (4096, narrow, false, F::CSUM_V3),
            (1024, "64bit,metadata_csum", false, F::BIT64 | F::CSUM_V3),
            (4096, "64bit,metadata_csum", false, F::BIT64 | F::CSUM_V2),
            (16384, "64bit,^metadata_csum", false, F::BIT64),
        ];
        for (block_size, options, old_checksum, features) in cases {
            let scratch = Scratch::new("journal-written");
            let Some(mut image) = Image::new(&scratch, block_size, options) else { return };
            let expected = written(&mut image, old_checksum, features);
            image.store(&image.path);
            // Ours and theirs agree.
            assert_eq!(image.recover().transactions, 3);
            assert_eq!(image.file(), expected, "{features} {block_size}");
            replay_by_e2fsck(&image.path);
            image.load();
            assert_eq!(image.file(), expected, "{features} {block_size}, e2fsck");
        }
    }

    #[test]
    fn the_kernel_replays_what_we_write() {
        let scratch = Scratch::new("journal-mounted");
        let Some(mut image) = Image::new(&scratch, 4096, "64bit,metadata_csum") else { return };
        let expected =
            written(&mut image, false, JournalIncompat::BIT64 | JournalIncompat::CSUM_V3);
        image.store(&image.path);
        let Some(mount) = KernelMount::new(&image.path, &scratch.path("mount"), "") else { return };
        mount.unmount().unwrap();
        image.load();
        assert_eq!(image.file(), expected);
        oracle::e2fsck(&image.path).unwrap();
        // And the journal that the kernel leaves, we can go on with.
        let clean = JournalParameters::new(image.superblock()).unwrap();
        assert_eq!(clean.start(), None);
        assert!(clean.area().contains(clean.clean_state().head));
    }

    #[test]
    fn we_replay_what_debugfs_writes() {
        let cases = [
            (1024, "^64bit,^metadata_csum", "jo"),
            (4096, "64bit,^metadata_csum", "jo"),
            (4096, "^64bit,metadata_csum", "jo -c -v 2"),
            (1024, "64bit,metadata_csum", "jo -c -v 2"),
            (1024, "^64bit,metadata_csum", "jo -c -v 3"),
            (4096, "64bit,metadata_csum", "jo -c -v 3"),
        ];
        for (block_size, options, open) in cases {
            let scratch = Scratch::new("journal-read");
            let Some(mut image) = Image::new(&scratch, block_size, options) else { return };
            let filled = |name: &str, fill: u8, blocks: usize| {
                let path = scratch.path(name);
                let mut bytes = vec![fill; blocks * block_size];
                if fill == b'm' {
                    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                }
                std::fs::write(&path, bytes).unwrap();
                path.display().to_string()
            };
            let (a, m, c, u) = (
                filled("a", b'a', 6),
                filled("m", b'm', 1),
                filled("c", b'c', 1),
                filled("u", b'u', 1),
            );
            let f: Vec<_> = image.file.iter().map(u64::to_string).collect();
            // Blocks and revokes apart: debugfs forgets the commit block of a transaction with both.
            let script = format!(
                "{open}\njw -b {} {a}\njw -r {},{}\njw -b {} {m}\njw -b {} {c}\njw -b {} -c {u}\njc\n",
                f[..6].join(","),
                f[1],
                f[4],
                f[3],
                f[4],
                f[5],
            );
            let Some(said) = oracle::debugfs_write(&image.path, &script) else { return };
            image.load();
            assert!(image.superblock().start().is_some(), "{said}");
            let theirs = scratch.path("theirs");
            image.store(&theirs);
            let recovered = image.recover();
            assert_eq!((recovered.transactions, recovered.revoked), (4, 2), "{open}: {said}");
            let mut expected = vec![(b'.', b'.'); FILE_BLOCKS];
            for index in [0, 2, 5] {
                expected[index] = (b'a', b'a');
            }
            expected[3] = (MAGIC.to_be_bytes()[0], b'm');
            expected[4] = (b'c', b'c');
            assert_eq!(image.file(), expected, "{open} {block_size}");
            replay_by_e2fsck(&theirs);
            image.path = theirs;
            image.load();
            assert_eq!(image.file(), expected, "{open} {block_size}, e2fsck");
        }
    }

    /// An image that is copied while the kernel has it mounted, after a sync, is like one after a crash.
    #[test]
    fn we_replay_what_the_kernel_writes() {
        let scratch = Scratch::new("journal-kernel");
        let Some(mut image) = Image::new(&scratch, 4096, "64bit,metadata_csum") else { return };
        let Some(mount) = KernelMount::new(&image.path, &scratch.path("mount"), "") else { return };
        for index in 0..200 {
            let dir = mount.root().join(format!("d{}", index % 7));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("f{index}")), vec![b'k'; 5000]).unwrap();
            if index % 3 == 0 {
                std::fs::remove_file(dir.join(format!("f{index}"))).unwrap();
            }
        }
        std::fs::remove_dir_all(mount.root().join("d3")).unwrap();
        std::fs::File::open(mount.root()).unwrap().sync_all().unwrap();
        image.load();
        mount.unmount().unwrap();
        let theirs = scratch.path("theirs");
        image.store(&theirs);
        assert!(image.superblock().start().is_some());
        let recovered = image.recover();
        assert!(recovered.transactions > 0);
        oracle::debugfs_write(&theirs, "jr\n").unwrap();
        let theirs = std::fs::read(&theirs).unwrap();
        let journal = usize::try_from(image.journal[0]).unwrap();
        let blocks = image.bytes.chunks(4096).zip(theirs.chunks(4096)).enumerate();
        // But for the two superblocks, which debugfs marks as replayed, nothing differs.
        let differ: Vec<_> =
            blocks.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at).collect();
        assert!(differ.iter().all(|&at| at == 0 || at == journal), "{differ:?}");
    }
    #[test]
    fn we_find_the_fast_commits_of_the_kernel() {
        let scratch = Scratch::new("journal-fast");
        let Some(mut image) = Image::new(&scratch, 4096, "64bit,metadata_csum,fast_commit") else {
            return;
        };
        let Some(mount) = KernelMount::new(&image.path, &scratch.path("mount"), "") else { return };
        let sync = |name: &str| {
            std::fs::write(mount.root().join(name), name).unwrap();
            std::fs::File::open(mount.root().join(name)).unwrap().sync_all().unwrap();
        };
        // The first fsync after the mount commits in full.
        sync("full");
        sync("fast");
        image.load();
        mount.unmount().unwrap();
        let found = image.recover().fast_commits.expect("the second file came by a fast commit");
        let blocks = (0..found.blocks.len).map(|n| found.blocks.start.get() + n);
        let blocks: Vec<_> =
            blocks.map(|at| (at, image.log_block(LogBlock(at)).to_vec())).collect();
        let records = blocks.iter().flat_map(|(at, bytes)| Records::new(bytes, *at));
        let records: Vec<_> = records.map(Result::unwrap).collect();
        assert_eq!(records.len(), usize_from(found.records));
        let created =
            |record: &Record<'_>| matches!(record, Record::Create(entry) if entry.name == b"fast");
        assert!(records.iter().any(created), "{records:?}");
        assert!(records.iter().any(|record| matches!(record, Record::AddRange(..))));
        assert!(records.iter().any(|record| matches!(record, Record::Inode(..))));
    }
}
