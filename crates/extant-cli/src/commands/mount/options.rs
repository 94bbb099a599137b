//! The words of `extant mount -o`.
//!
//! [`TABLE`] is the list that help and `docs/mount.md` show; a word that is not in it is refused, so the list is true.

use std::path::PathBuf;

use extant::MountOptions;
use extant_fuse::{KERNEL_WORDS, OnError, Owners, Settings, Swap};
use extant_script::mount_options;

use crate::failure::Usage;
use crate::values;

/// What the words come to.
pub struct Wishes {
    pub engine: MountOptions,
    pub settings: Settings,
    pub allow_other: bool,
    /// For the kernel's own mount.
    pub words: Vec<&'static str>,
    /// The image gets a loop device, if root mounts it.
    pub loop_device: bool,
    /// Whether requests come by the kernel's queues over io_uring: that was said, or they do where it has them switched on.
    pub rings: Option<bool>,
    /// How many entries a queue has, if that was said.
    pub depth: Option<u16>,
    /// The server gives up what it does not need.
    pub sandbox: bool,
    /// Where the journal is, if not in the image.
    pub journal: Option<PathBuf>,
}

/// An option as it is shown, an example, and what it does.
type Row = (&'static str, &'static str, &'static str);

/// Every option. What is before `=`, or the whole word, is the option's name; several words share a row.
pub const TABLE: &[Row] = &[
    (
        "ro, rw",
        "ro",
        "nothing is written, not even to recover the journal; read and write (default)",
    ),
    (
        "errors=continue, errors=remount-ro, errors=panic",
        "errors=panic",
        "when damage is found: only whoever came upon it is told; nothing is changed any more; the mount ends at once and the image is as after a power cut. A line on standard error and in the kernel's log says what is damaged. Default: what the image says (`tune2fs -e`)",
    ),
    (
        "data=ordered, data=journal, data=writeback",
        "data=journal",
        "what happens to data before the commit that makes it reachable: written first (default); part of the journal, without delayed allocation; anything",
    ),
    (
        "delalloc, nodelalloc",
        "nodelalloc",
        "blocks are chosen when data is written back (default), or by `write`",
    ),
    (
        "journal_path=FILE",
        "journal_path=/dev/sdb1",
        "where the journal is, for an image whose journal is on a device of its own (`mkfs -J device=`)",
    ),
    ("commit=SECONDS", "commit=30", "how old a transaction becomes; 5, and 0 means that"),
    (
        "barrier, nobarrier, barrier=0, barrier=1",
        "barrier=0",
        "commits flush the device (default), or not",
    ),
    (
        "discard, nodiscard",
        "discard",
        "what a commit frees is given back to the image's file system or device; default not, `fstrim` does it when asked",
    ),
    (
        "auto_da_alloc, noauto_da_alloc",
        "noauto_da_alloc",
        "a file that replaces another goes out early (default), or not",
    ),
    (
        "dioread_nolock, dioread_lock",
        "dioread_lock",
        "blocks stay unwritten until their data is there (default), or the commit waits for it",
    ),
    (
        "sync, async",
        "sync",
        "every `write` and every change of names is durable when it returns; default not",
    ),
    ("dirsync", "dirsync", "the same for names alone"),
    ("suid, nosuid", "nosuid", "set-user bits count, for root's mounts; default not"),
    ("dev, nodev", "nodev", "device files are devices, for root's mounts; default not"),
    ("exec, noexec", "noexec", "programs may be run (default), or not"),
    (
        "noatime, atime, relatime, norelatime, strictatime, nodiratime",
        "noatime",
        "passed to the kernel; reading moves no time of access here, whatever is said",
    ),
    (
        "lazytime, nolazytime",
        "lazytime",
        "passed to the kernel; times are stored with the next change or commit here",
    ),
    (
        "uid=U, uid=U:N",
        "uid=1000:0",
        "the image's user N (0 if not said) and U change places: N's files appear as U's, what U makes is stored as N's, and U's own files in the image appear as N's",
    ),
    ("gid=G, gid=G:N", "gid=1000:0", "the same for groups"),
    ("allow_other", "allow_other", "other users may look into it; for root's mounts always"),
    (
        "writeback",
        "writeback",
        "the kernel keeps dirty pages: small writes are faster, but that the image is full may be told by `fsync` or `close` only",
    ),
    (
        "noloop",
        "noloop",
        "root's mounts do without a loop device; `sync(2)` and `umount(8)` do not wait for the server then",
    ),
    (
        "io_uring, noio_uring",
        "io_uring",
        "requests come through the kernel's queues over io_uring instead of `/dev/fuse`; default where it has them switched on",
    ),
    (
        "io_uring_q_depth=N",
        "io_uring_q_depth=4",
        "with them: requests of one processor that are served at a time, 1 to 32; 16 for all processors, but 2 to 8 of each",
    ),
    (
        "nosandbox",
        "nosandbox",
        "the serving process keeps the rights that it does not need, for debuggers, profilers and places that allow no sandbox",
    ),
    ("cache=SIZE", "cache=256M", "memory for file bytes; 64M"),
    (
        "dirty_ratio=N",
        "dirty_ratio=40",
        "share of the cache, in percent, from which on writers help to write back; 20",
    ),
    (
        "dirty_background_ratio=N",
        "dirty_background_ratio=5",
        "share from which on dirty data is written back; 10",
    ),
    (
        "dirty_expire_centisecs=N",
        "dirty_expire_centisecs=100",
        "how long data may stay dirty; 3000",
    ),
    (
        "dirty_writeback_centisecs=N",
        "dirty_writeback_centisecs=50",
        "how often to look for it; 500, and 0 means never",
    ),
    (
        "defaults, auto, noauto, nofail, user, users, nouser, _netdev, default_permissions, no_prefetch_block_bitmaps, x-..., comment=...",
        "x-systemd.automount",
        "for mount(8), systemd and fstab: of no effect",
    ),
];

/// Whether a word is in the table.
fn is_known(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    let mut shown = TABLE.iter().flat_map(|(words, ..)| words.split(", "));
    shown.any(|shown| match shown.strip_suffix("...") {
        Some(front) => word.starts_with(front),
        None => shown.split('=').next() == Some(name),
    })
}

impl Wishes {
    /// What the words, with commas between, come to for a user, who is root or not.
    pub fn parse(words: &str, user: u32) -> anyhow::Result<Self> {
        let mut wishes = Self {
            engine: MountOptions::new(),
            settings: Settings {
                valid_seconds: 3600,
                writeback_cache: false,
                synchronous: false,
                read_only: false,
                master: user,
                owners: Owners::default(),
                on_error: None,
            },
            allow_other: false,
            words: vec!["nosuid", "nodev"],
            loop_device: true,
            rings: None,
            depth: None,
            sandbox: true,
            journal: None,
        };
        let (mut rest, mut cache_bytes) = (Vec::new(), 64 << 20);
        for word in words.split(',').filter(|word| !word.is_empty()) {
            if !is_known(word) {
                return Err(Usage(format!("{word}: no such mount option")).into());
            }
            if let Some(size) = word.strip_prefix("cache=") {
                cache_bytes = values::size(size).map_err(|why| wrong(word, &why))?;
            } else if !wishes.take(word, user)? {
                rest.push(word);
            }
        }
        let engine = mount_options(&rest.join(",")).map_err(|error| Usage(error.to_string()))?;
        let engine = engine.cache_bytes(cache_bytes).reading(wishes.settings.read_only);
        wishes.settings.synchronous = wishes.words.contains(&"sync");
        let is_synchronous = ["sync", "dirsync"].iter().any(|word| wishes.words.contains(word));
        Ok(Self { engine: engine.synchronous_names(is_synchronous), ..wishes })
    }

    /// Takes a word that is not the engine's; whether it is one.
    fn take(&mut self, word: &str, user: u32) -> anyhow::Result<bool> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match word {
            "ro" => self.settings.read_only = true,
            "rw" => self.settings.read_only = false,
            "writeback" => self.settings.writeback_cache = true,
            "allow_other" => self.allow_other = true,
            "noloop" => self.loop_device = false,
            "nosandbox" => self.sandbox = false,
            "io_uring" => self.rings = Some(true),
            "noio_uring" => self.rings = Some(false),
            "suid" | "dev" if user != 0 => return Err(wrong(word, "only root can mount so")),
            "suid" | "dev" | "exec" | "atime" | "norelatime" | "nolazytime" | "async" => {
                let opposite = match word {
                    "async" => "sync".to_owned(),
                    "norelatime" | "nolazytime" => word[2..].to_owned(),
                    _ => format!("no{word}"),
                };
                self.words.retain(|known| **known != opposite);
            }
            "defaults"
            | "auto"
            | "noauto"
            | "nofail"
            | "user"
            | "users"
            | "nouser"
            | "_netdev"
            | "default_permissions"
            | "no_prefetch_block_bitmaps" => {}
            _ if word.starts_with("x-") || name == "comment" => {}
            _ if name == "errors" => {
                self.settings.on_error = Some(match value {
                    "continue" => OnError::Continue,
                    "remount-ro" => OnError::ReadOnly,
                    "panic" => OnError::Panic,
                    _ => return Err(wrong(word, "continue, remount-ro or panic")),
                });
            }
            _ if name == "io_uring_q_depth" => {
                let depth = value.parse().ok().filter(|depth| (1..=32).contains(depth));
                self.depth = Some(depth.ok_or_else(|| wrong(word, "a number from 1 to 32"))?);
            }
            _ if name == "journal_path" && !value.is_empty() => self.journal = Some(value.into()),
            _ if name == "uid" => self.settings.owners.users = swap(word, value)?,
            _ if name == "gid" => self.settings.owners.groups = swap(word, value)?,
            _ => {
                let Some((known, ..)) = KERNEL_WORDS.iter().find(|(known, ..)| *known == word)
                else {
                    return Ok(false);
                };
                self.words.push(known);
            }
        }
        Ok(true)
    }
}

fn wrong(word: &str, why: &str) -> anyhow::Error {
    Usage(format!("{word}: {why}")).into()
}

/// `U` or `U:N`.
fn swap(word: &str, value: &str) -> anyhow::Result<Swap> {
    let (shown, stored) = value.split_once(':').unwrap_or((value, "0"));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number != u32::MAX);
    match (number(shown), number(stored)) {
        (Some(shown), Some(stored)) => Ok(Swap::of(shown, stored)),
        _ => Err(wrong(word, "a number, or two with a colon between")),
    }
}

/// The table for help.
pub fn help() -> String {
    let lines = TABLE.iter().map(|(words, _, what)| format!("  {words}\n      {what}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mount.md");

    #[test]
    fn each_option_of_the_table_is_taken_and_no_other() {
        for (words, example, _) in TABLE {
            assert!(Wishes::parse(example, 0).is_ok(), "{example}");
            let plain =
                words.split(", ").filter(|word| !word.contains("...") && !word.contains('='));
            for word in plain {
                assert!(Wishes::parse(word, 0).is_ok(), "{word}");
            }
        }
        for word in [
            "nonsense",
            "roo",
            "data",
            "uid",
            "x",
            "commentary",
            "sync=1",
            "ro=5",
            "suid=",
            "cache",
        ] {
            assert!(Wishes::parse(word, 0).is_err(), "{word}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_what_would_be_right() {
        let check = |word: &str, user, line: &str| {
            let error = Wishes::parse(word, user).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(line));
        };
        check("errors=halt", 0, "errors=halt: continue, remount-ro or panic");
        check("uid=me", 0, "uid=me: a number, or two with a colon between");
        check("gid=1:4294967295", 0, "gid=1:4294967295: a number, or two with a colon between");
        check("io_uring_q_depth=33", 0, "io_uring_q_depth=33: a number from 1 to 32");
        check("dirty_ratio=0", 0, "dirty_ratio=0: a percentage, 1 to 100");
        check("data=all", 0, "data=all: data=journal, data=ordered or data=writeback");
        check("dev", 5, "dev: only root can mount so");
        check("nobarriers", 0, "nobarriers: no such mount option");
    }

    #[test]
    fn the_last_of_two_opposites_counts() {
        let words = |text: &str| Wishes::parse(text, 0).unwrap().words;
        assert_eq!(words(""), ["nosuid", "nodev"]);
        assert_eq!(words("suid,dev,noexec,exec,sync,async,relatime"), ["relatime"]);
        assert!(Wishes::parse("ro,rw", 0).is_ok_and(|wishes| !wishes.settings.read_only));
    }

    #[test]
    fn the_document_has_the_table() {
        let rows = TABLE.iter().map(|(words, _, what)| {
            let words: Vec<_> = words.split(", ").map(|word| format!("`{word}`")).collect();
            format!("| {} | {what} |\n", words.join(", "))
        });
        let table =
            format!("| option | what it does |\n| --- | --- |\n{}", rows.collect::<String>());
        let text = std::fs::read_to_string(DOCUMENT).unwrap();
        let (front, rest) = text.split_once("| option |").unwrap();
        let rest = rest.split_once("\n\n").map_or("", |(_, rest)| rest);
        let wanted = format!("{front}{table}\n{rest}");
        if std::env::var_os("EXTANT_BLESS").is_some() {
            return std::fs::write(DOCUMENT, &wanted).unwrap();
        }
        let what_to_do =
            "docs/mount.md is old: EXTANT_BLESS=1 cargo test -p extant-cli the_document";
        assert!(text == wanted, "{what_to_do}");
    }
}
