//! `null`: the transport of `extant mount` with nothing behind it. Names and sizes are kept in memory, bytes are thrown away, and
//! what is read is zeros: as fast as any file system on this transport can be.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use extant::Errno;
use extant_fuse::abi::{self, InHeader, opcode};
use extant_fuse::{Answer, Arguments, Backend, Mount};

/// The word that makes this program the server.
pub const CHILD: &str = "--null";

/// Serves `point` each time that a line comes in, and says when it is mounted and when it is not any more.
pub fn child(point: &Path) {
    let null = Null::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let mount = Mount {
            source: "null".into(),
            point: point.to_owned(),
            read_only: false,
            allow_other: false,
            words: Vec::new(),
            backing: None,
        };
        let mut device = mount.attach().expect("null is mounted");
        if line == "io_uring" {
            device.use_rings(None).expect("the kernel has queues");
        }
        tell("mounted");
        extant_fuse::serve(&null, &device, extant_fuse::THREADS).expect("null serves");
        tell("done");
    }
}

/// Says a word to whoever has started this process.
pub fn tell(word: &str) {
    println!("{word}");
    std::io::stdout().flush().expect("somebody listens");
}

#[derive(Default)]
struct Null {
    tree: Mutex<Tree>,
}

struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

#[derive(Clone, Default)]
struct Node {
    mode: u32,
    size: u64,
    names: HashMap<Vec<u8>, u64>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { mode: DIRECTORY | 0o755, ..Node::default() };
        Self { nodes: HashMap::from([(abi::ROOT_ID, root)]), next: abi::ROOT_ID }
    }
}

type Outcome = Result<(), Errno>;

impl Backend for Null {
    fn answer(&self, header: &InHeader, mut args: Arguments<'_>, answer: &mut Answer) -> Outcome {
        let (id, args) = (header.nodeid, &mut args);
        match header.opcode {
            opcode::READ => {
                let asked: abi::ReadIn = args.take()?;
                let size = self.with(id, |node| node.size)?;
                let len = u64::from(asked.size).min(size.saturating_sub(asked.offset));
                answer.put_bytes(&ZEROS[..usize::try_from(len).unwrap_or(0)]);
            }
            opcode::WRITE => {
                let asked: abi::WriteIn = args.take()?;
                let end = asked.offset + u64::from(asked.size);
                self.with(id, |node| node.size = node.size.max(end))?;
                answer.put(&abi::WriteOut { size: asked.size, padding: 0 });
            }
            opcode::OPEN => {
                let asked: abi::OpenIn = args.take()?;
                let open_flags = abi::open_flags(asked.flags, true);
                answer.put(&abi::OpenOut { open_flags, ..Default::default() });
            }
            opcode::GETATTR => answer.put(&self.with(id, |node| node.attributes(id))?),
            opcode::SETATTR => {
                let asked: abi::SetattrIn = args.take()?;
                let valid = abi::Set::from_bits_retain(asked.valid);
                answer.put(&self.with(id, |node| {
                    if valid.contains(abi::Set::SIZE) {
                        node.size = asked.size;
                    }
                    if valid.contains(abi::Set::MODE) {
                        node.mode = node.mode & !0o7777 | asked.mode & 0o7777;
                    }
                    node.attributes(id)
                })?);
            }
            opcode::RELEASE | opcode::FSYNC | opcode::FSYNCDIR | opcode::DESTROY => {}
            opcode::STATFS => {
                let blocks = 1 << 20;
                let (bfree, bavail, files, ffree) = (blocks, blocks, blocks, blocks);
                let (bsize, frsize, namelen) = (4096, 4096, 255);
                let rest = abi::StatfsOut::default();
                answer.put(&abi::StatfsOut {
                    blocks,
                    bfree,
                    bavail,
                    files,
                    ffree,
                    bsize,
                    frsize,
                    namelen,
                    ..rest
                });
            }
            opcode::INIT => answer.put(&abi::agree(&args.take()?, false)),
            _ => return self.names(header, args, answer),
        }
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {}

    fn stop(&self) {}

    fn tick(&self) -> Duration {
        Duration::from_secs(3600)
    }
}

impl Null {
    fn with<R>(&self, id: u64, look: impl FnOnce(&mut Node) -> R) -> Result<R, Errno> {
        let mut tree = self.tree.lock().expect("nobody panics");
        tree.nodes.get_mut(&id).map(look).ok_or(Errno::STALE)
    }

    /// What has to do with names.
    fn names(&self, header: &InHeader, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        let mut tree = self.tree.lock().expect("nobody panics");
        match header.opcode {
            opcode::LOOKUP => {
                let found = tree.look_up(header.nodeid, args.name()?);
                answer.put(&found.map_or(NOTHING, |(id, node)| node.entry(id)));
            }
            opcode::CREATE => {
                let asked: abi::CreateIn = args.take()?;
                answer.put(&tree.add(header.nodeid, args.name()?, asked.mode)?);
                let open_flags = abi::open_flags(asked.flags, true);
                answer.put(&abi::OpenOut { open_flags, ..Default::default() });
            }
            opcode::MKDIR => {
                let asked: abi::MkdirIn = args.take()?;
                answer.put(&tree.add(header.nodeid, args.name()?, DIRECTORY | asked.mode)?);
            }
            opcode::UNLINK | opcode::RMDIR => {
                let gone = tree.take(header.nodeid, args.name()?)?;
                tree.nodes.remove(&gone);
            }
            opcode::RENAME | opcode::RENAME2 => {
                let target = match header.opcode {
                    opcode::RENAME => args.take::<abi::RenameIn>()?.newdir,
                    _ => args.take::<abi::Rename2In>()?.newdir,
                };
                let moved = tree.take(header.nodeid, args.name()?)?;
                let target = tree.nodes.get_mut(&target).ok_or(Errno::STALE)?;
                if let Some(gone) = target.names.insert(args.name()?.to_vec(), moved) {
                    tree.nodes.remove(&gone);
                }
            }
            // Among them attributes: once refused, the kernel does not ask again.
            _ => return Err(NOT_IMPLEMENTED),
        }
        Ok(())
    }
}

impl Tree {
    fn look_up(&self, dir: u64, name: &[u8]) -> Option<(u64, &Node)> {
        let id = *self.nodes.get(&dir)?.names.get(name)?;
        Some((id, self.nodes.get(&id)?))
    }

    fn add(&mut self, dir: u64, name: &[u8], mode: u32) -> Result<abi::EntryOut, Errno> {
        self.next += 1;
        let id = self.next;
        self.nodes.get_mut(&dir).ok_or(Errno::STALE)?.names.insert(name.to_vec(), id);
        let node = Node { mode, ..Node::default() };
        let entry = node.entry(id);
        self.nodes.insert(id, node);
        Ok(entry)
    }

    fn take(&mut self, dir: u64, name: &[u8]) -> Result<u64, Errno> {
        let dir = self.nodes.get_mut(&dir).ok_or(Errno::STALE)?;
        dir.names.remove(name).ok_or(Errno::NOENT)
    }
}

impl Node {
    fn attr(&self, ino: u64) -> abi::Attr {
        abi::Attr {
            ino,
            size: self.size,
            blocks: self.size.div_ceil(512),
            mode: self.mode,
            nlink: 1,
            blksize: 4096,
            ..Default::default()
        }
    }

    fn attributes(&self, id: u64) -> abi::AttrOut {
        abi::AttrOut { attr_valid: VALID, attr_valid_nsec: 0, dummy: 0, attr: self.attr(id) }
    }

    fn entry(&self, id: u64) -> abi::EntryOut {
        let attr = self.attr(id);
        abi::EntryOut { nodeid: id, entry_valid: VALID, attr_valid: VALID, attr, ..NOTHING }
    }
}

/// Seconds for which the kernel may believe it.
const VALID: u64 = 3600;
/// There is no such name, and that may be remembered.
const NOTHING: abi::EntryOut = abi::EntryOut {
    nodeid: 0,
    generation: 0,
    entry_valid: VALID,
    attr_valid: 0,
    entry_valid_nsec: 0,
    attr_valid_nsec: 0,
    attr: NO_ATTRIBUTES,
};
const NO_ATTRIBUTES: abi::Attr = abi::Attr {
    ino: 0,
    size: 0,
    blocks: 0,
    atime: 0,
    mtime: 0,
    ctime: 0,
    atimensec: 0,
    mtimensec: 0,
    ctimensec: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
const DIRECTORY: u32 = 0o040_000;
const NOT_IMPLEMENTED: Errno = Errno(38);
