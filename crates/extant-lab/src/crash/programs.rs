//! What programs do that must not lose data: a database with a log, a mail store, a package manager; in turns of a seed's.

use extant_testkit::Random;

use crate::script::{Operation, index};

/// The name and the operations of the program that `seed` stands for.
pub fn script(seed: u64) -> (&'static str, Vec<Operation>) {
    let mut program = Program { random: Random::new(seed), script: Vec::new() };
    let name = match seed % 3 {
        0 => {
            program.database();
            "a database"
        }
        1 => {
            program.mail();
            "a mail store"
        }
        _ => {
            program.packages();
            "a package manager"
        }
    };
    (name, program.script)
}

struct Program {
    random: Random,
    script: Vec<Operation>,
}

impl Program {
    fn push(&mut self, operation: Operation) {
        self.script.push(operation);
    }

    fn create(&mut self, path: &str) {
        self.push(Operation::Create { path: path.into(), mode: 0o644 });
    }

    fn mkdir(&mut self, path: &str) {
        self.push(Operation::Mkdir { path: path.into(), mode: 0o755 });
    }

    fn write(&mut self, path: &str, offset: u64, len: usize) {
        let tag = u32::try_from(self.script.len()).expect("a short script");
        self.push(Operation::Write { path: path.into(), offset, len, tag });
    }

    fn fsync(&mut self, path: &str) {
        self.push(Operation::Fsync { path: path.into() });
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.push(Operation::Rename { from: from.into(), to: to.into() });
    }

    fn unlink(&mut self, path: &str) {
        self.push(Operation::Unlink { path: path.into() });
    }

    /// Careful programs sync where it is needed; careless ones often do not.
    fn is_careful(&mut self) -> bool {
        self.random.below(4) > 0
    }

    fn pass_time(&mut self) {
        if self.random.below(4) == 0 {
            let seconds = [1, 6, 36][index(&mut self.random, 3)];
            self.push(Operation::Tick { seconds });
        }
    }

    /// Pages go to the log, which is synced, and then in place; a checkpoint syncs the pages and empties the log.
    fn database(&mut self) {
        const PAGE: usize = 4096;
        let pages = 4 + self.random.below(12);
        for path in ["db", "log"] {
            self.create(path);
        }
        self.write("db", 0, PAGE * index(&mut Random::new(pages), 9).max(1));
        self.push(Operation::Sync);
        let mut log = 0;
        for _ in 0..3 + self.random.below(5) {
            let changed: Vec<u64> =
                (0..1 + self.random.below(3)).map(|_| self.random.below(pages)).collect();
            for _ in &changed {
                self.write("log", log, PAGE + 24);
                log += 4096 + 24;
            }
            if self.is_careful() {
                self.fsync("log");
            }
            for page in changed {
                self.write("db", page * 4096, PAGE);
            }
            self.pass_time();
            if self.random.below(3) == 0 {
                if self.is_careful() {
                    self.fsync("db");
                }
                self.push(Operation::Truncate { path: b"log".to_vec(), size: 0 });
                log = 0;
            }
        }
        self.fsync("db");
    }

    /// Messages are written to `tmp`, synced, and get their name in `new` by a link or a rename; they are read, which moves
    /// them to `cur`, and deleted.
    fn mail(&mut self) {
        ["tmp", "new", "cur"].iter().for_each(|path| self.mkdir(path));
        self.push(Operation::Sync);
        let mut unread = Vec::new();
        for number in 0..4 + self.random.below(6) {
            let (draft, message) = (format!("tmp/{number}"), format!("new/{number}"));
            self.create(&draft);
            let len = 1 + index(&mut self.random, 20_000);
            self.write(&draft, 0, len);
            if self.is_careful() {
                self.fsync(&draft);
            }
            if self.random.coin() {
                self.rename(&draft, &message);
            } else {
                self.push(Operation::Link { original: draft.clone().into(), path: message.into() });
                self.unlink(&draft);
            }
            if self.is_careful() {
                self.fsync("new");
            }
            unread.push(number);
            self.pass_time();
            if self.random.coin() {
                let read = unread.swap_remove(index(&mut self.random, unread.len()));
                self.rename(&format!("new/{read}"), &format!("cur/{read}:2,S"));
                if self.random.coin() {
                    self.unlink(&format!("cur/{read}:2,S"));
                }
            }
        }
    }

    /// All files of the new version are unpacked beside the old ones, synced, and renamed over them.
    fn packages(&mut self) {
        self.mkdir("bin");
        let files: Vec<String> =
            (0..3 + self.random.below(6)).map(|number| format!("bin/{number}")).collect();
        for file in &files {
            self.create(file);
            let len = 1 + index(&mut self.random, 30_000);
            self.write(file, 0, len);
        }
        self.push(Operation::Sync);
        for _ in 0..1 + self.random.below(2) {
            for file in &files {
                let new = format!("{file}.new");
                self.create(&new);
                let len = 1 + index(&mut self.random, 30_000);
                self.write(&new, 0, len);
                self.push(Operation::Chmod { path: new.clone().into(), mode: 0o755 });
                if self.is_careful() {
                    self.fsync(&new);
                }
            }
            self.pass_time();
            for file in &files {
                self.rename(&format!("{file}.new"), file);
            }
            if self.is_careful() {
                self.fsync("bin");
            }
            self.pass_time();
        }
        self.push(Operation::Sync);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::model::Model;
    use crate::script::run;

    #[test]
    fn each_program_runs_and_a_seed_repeats_it() {
        for seed in 0..60 {
            let (name, script) = super::script(seed);
            run(&mut Model::default(), &script).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(script, super::script(seed).1);
            let syncs = script.iter().filter(|step| matches!(step, Operation::Fsync { .. }));
            assert!(script.len() > 10 && syncs.count() > 0, "{name}, seed {seed}: {script:?}");
        }
    }
}
