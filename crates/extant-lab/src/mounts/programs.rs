//! Programs that people use, on a mount: each does its work, and is content with it after the next mount too.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::suites::{Ground, Outcome, Wishes, lacking, succeed};

const LIMIT: Duration = Duration::from_secs(1200);
/// Where the project's own sources are.
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A program's work.
struct Work {
    name: &'static str,
    needs: &'static [&'static str],
    /// A script of the shell in an empty directory of the mount; `$1` is the project, `$2` a tree, `$3` how much.
    script: &'static str,
    /// What is asked after another mount.
    afterwards: &'static str,
    /// It takes seconds.
    is_short: bool,
}

const ALL: [Work; 6] = [
    Work {
        name: "git",
        needs: &["git"],
        script: "git clone -q --no-hardlinks \"$1\" clone && cd clone && git fsck --no-dangling && \
                 test -z \"$(git status --porcelain)\" && git gc -q && git fsck --no-dangling",
        afterwards: "cd clone && git fsck --no-dangling && test -z \"$(git status --porcelain)\"",
        is_short: true,
    },
    Work {
        name: "sqlite",
        needs: &["sqlite3"],
        script: "for mode in delete truncate persist wal; do sqlite3 $mode.db \"pragma journal_mode=$mode; \
                 create table t(a integer primary key, b text, c real); create index i on t(b); \
                 with recursive n(x) as (select 1 union all select x+1 from n where x < 1000 * $3) \
                 insert into t select x, hex(randomblob(20)), x/3.0 from n; \
                 update t set b=hex(randomblob(8)) where a%7=0; delete from t where a%5=0; vacuum;\" >/dev/null && \
                 for n in $(seq $3); do sqlite3 $mode.db 'insert into t(b) values(hex(randomblob(500)))'; done; \
                 test \"$(sqlite3 $mode.db 'pragma integrity_check')\" = ok || exit 1; done",
        afterwards: "for mode in delete truncate persist wal; do \
                     test \"$(sqlite3 $mode.db 'pragma integrity_check')\" = ok || exit 1; done",
        is_short: true,
    },
    Work {
        name: "rsync",
        needs: &["rsync"],
        script: "rsync -aHAX \"$2/\" tree && rsync -aHAXi \"$2/\" tree > moved && cat moved && test ! -s moved",
        afterwards: "rsync -aHAXic \"$2/\" tree > moved && cat moved && test ! -s moved",
        is_short: true,
    },
    Work {
        name: "tar",
        needs: &["tar"],
        script: "tar -C \"$2\" -cf one.tar . && mkdir tree && tar -C tree -xpf one.tar && tar -C tree -df one.tar && \
                 tar -C tree --sort=name -cf two.tar . && tar -C \"$2\" -df two.tar",
        afterwards: "tar -C tree -df one.tar && tar -C tree -df two.tar",
        is_short: true,
    },
    Work {
        name: "cargo",
        needs: &["cargo"],
        script: "cp -r \"$1/crates\" \"$1/Cargo.toml\" \"$1/Cargo.lock\" \"$1/xtask\" . && \
                 CARGO_TARGET_DIR=$PWD/target cargo build --offline -q -p extant-format && \
                 CARGO_TARGET_DIR=$PWD/target cargo build --offline -p extant-format 2>&1 | grep -q Finished",
        afterwards: "CARGO_TARGET_DIR=$PWD/target cargo build --offline -v -p extant-format 2>&1 | grep -q Fresh",
        is_short: false,
    },
    Work {
        name: "postgres",
        needs: &["pgbench", "runuser"],
        script: "P=$(ls -d /usr/lib/postgresql/*/bin | tail -1); mkdir data; chown postgres data; S=\"-h $PWD -p 54329\"; \
                 chown postgres . && runuser -u postgres -- sh -ec \"$P/initdb -D data --data-checksums; \
                 $P/pg_ctl -D data -o '-k $PWD -p 54329 -c listen_addresses=' -w start; \
                 pgbench $S -i -s 2 -q postgres; pgbench $S -c 8 -j 2 -T $3 postgres; \
                 $P/pg_ctl -D data -m fast -w stop; $P/pg_checksums -D data\"",
        afterwards: "P=$(ls -d /usr/lib/postgresql/*/bin | tail -1); runuser -u postgres -- $P/pg_checksums -D data",
        is_short: false,
    },
];

/// Every program's work, and so much of it as `seconds` says; what is short, if there is but one.
pub fn run(wishes: &Wishes) -> Outcome {
    let amount = wishes.seconds.unwrap_or(20);
    let (mut failures, mut done, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for work in ALL.iter().filter(|work| work.is_short || amount > 1) {
        match lacking(work.needs) {
            Some(lacking) => skipped.push(format!("{} {lacking}", work.name)),
            None => match try_work(wishes, work, amount) {
                Ok(()) => done.push(work.name),
                Err(reason) => failures.push(format!("{}: {reason}", work.name)),
            },
        }
    }
    let mut what = done.join(", ");
    if !skipped.is_empty() {
        what = format!("{what}; skipped: {}", skipped.join("; "));
    }
    Outcome::of(failures, what)
}

fn try_work(wishes: &Wishes, work: &Work, amount: u64) -> Result<(), String> {
    let ground = Ground::new(&wishes.program, "mount-program", "2G", "cache=64M")?;
    let place = ground.root().join("work");
    std::fs::create_dir(&place).map_err(|error| error.to_string())?;
    script(&place, work.script, amount)?;
    let ground = ground.again()?;
    script(&ground.root().join("work"), work.afterwards, amount)?;
    ground.end()
}

fn script(place: &Path, text: &str, amount: u64) -> Result<(), String> {
    // A tree with links, sparse files, modes: what a machine has below its share of every machine.
    let tree = ["/usr/share/perl", "/usr/share/zoneinfo", "/usr/share", "/etc"];
    let tree = tree.into_iter().find(|tree| Path::new(tree).is_dir()).unwrap_or("/etc");
    let project = std::fs::canonicalize(PROJECT).map_err(|error| error.to_string())?;
    let amount = amount.to_string();
    let words: [&OsStr; 4] = ["work".as_ref(), project.as_ref(), tree.as_ref(), amount.as_ref()];
    let mut shell = Command::new("/bin/sh");
    succeed(shell.args(["-c", text]).args(words).current_dir(place), LIMIT).map(drop)
}
