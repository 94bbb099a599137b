//! A script that makes one of everything that a reader has to know: sizes at every edge, holes, links, nodes, attributes.

use super::{Node, Operation};

/// What the file system can hold, and how much of it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Bytes in a block; sizes cluster at its edges.
    pub block: usize,
    /// Names in the large directory.
    pub names: u32,
    /// Pieces of the file that is all holes in between.
    pub pieces: u32,
    /// Bytes of the largest attribute.
    pub xattr_bytes: usize,
    /// The attributes' names.
    pub xattrs: Xattrs,
    /// Whether a file has more than four gibibytes, nearly all of it a hole.
    pub huge: bool,
}

/// Which attributes can be set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Xattrs {
    /// Those of users alone.
    User,
    /// Trusted and security ones and ACLs too, which takes root.
    All,
}

/// The script.
pub fn contents(scale: &Scale) -> Vec<Operation> {
    let mut made = Maker { script: Vec::new(), tag: 1 };
    made.sizes(scale);
    made.holes(scale);
    made.links(scale);
    made.nodes();
    made.attributes(scale);
    made.names(scale);
    made.directories(scale);
    made.owners_and_times();
    made.script
}

struct Maker {
    script: Vec<Operation>,
    tag: u32,
}

impl Maker {
    fn push(&mut self, operation: Operation) {
        self.script.push(operation);
    }

    fn dir(&mut self, path: &str, mode: u16) {
        self.push(Operation::Mkdir { path: path.into(), mode });
    }

    fn create(&mut self, path: impl Into<Vec<u8>>) -> Vec<u8> {
        let path = path.into();
        self.push(Operation::Create { path: path.clone(), mode: 0o644 });
        path
    }

    fn write(&mut self, path: &[u8], offset: u64, len: usize) {
        self.tag += 1;
        self.push(Operation::Write { path: path.to_vec(), offset, len, tag: self.tag });
    }

    fn file(&mut self, path: impl Into<Vec<u8>>, len: usize) {
        let path = self.create(path);
        if len > 0 {
            self.write(&path, 0, len);
        }
    }

    /// Sizes around what fits an inode, a block, the direct pointers and the first indirect block.
    fn sizes(&mut self, scale: &Scale) {
        self.dir("sizes", 0o755);
        let block = scale.block;
        let edges = [60, 100, 156, block, 12 * block, (12 + block / 4) * block];
        let small = edges.iter().filter(|edge| **edge <= 2 << 20);
        let around = small.flat_map(|edge| [edge - 1, *edge, edge + 1]);
        for len in [0, 1, 300_000].into_iter().chain(around) {
            self.file(format!("sizes/{len}"), len);
        }
    }

    fn holes(&mut self, scale: &Scale) {
        let block = u64::try_from(scale.block).expect("a block is small");
        self.dir("holes", 0o755);
        let path = self.create("holes/end");
        self.write(&path, 0, 1000);
        self.push(Operation::Truncate { path, size: 3 << 20 });
        let path = self.create("holes/start");
        self.write(&path, (1 << 20) + 100, 5000);
        let path = self.create("holes/all");
        self.push(Operation::Truncate { path, size: 100_000 });
        let path = self.create("holes/pieces");
        for n in 0..u64::from(scale.pieces) {
            self.write(&path, n * 2 * block.max(4096), scale.block);
        }
        if scale.huge {
            let path = self.create("holes/huge");
            self.write(&path, 0, 100);
            self.write(&path, (4 << 30) + 12345, 100);
        }
        let path = self.create("holes/cut");
        self.write(&path, 0, 50_000);
        self.push(Operation::Truncate { path: path.clone(), size: 20_001 });
        self.push(Operation::Truncate { path, size: 40_000 });
    }

    fn links(&mut self, scale: &Scale) {
        self.dir("links", 0o755);
        for len in [1, 59, 60, 61, 500, (scale.block - 1).min(4095)] {
            let path = format!("links/soft{len}").into();
            self.push(Operation::Symlink { target: vec![b't'; len], path });
        }
        self.file("links/one", 1234);
        for name in ["links/two", "sizes/three"] {
            self.push(Operation::Link { original: b"links/one".to_vec(), path: name.into() });
        }
        self.push(Operation::Link {
            original: b"links/soft61".to_vec(),
            path: b"links/soft".to_vec(),
        });
    }

    fn nodes(&mut self) {
        self.dir("nodes", 0o755);
        let nodes = [
            ("nodes/null", Node::Character(1, 3)),
            ("nodes/wide", Node::Character(259, 300_000)),
            ("nodes/disk", Node::Block(8, 17)),
            ("nodes/pipe", Node::Fifo),
            ("nodes/socket", Node::Socket),
        ];
        for (path, node) in nodes {
            self.push(Operation::Mknod { path: path.into(), node, mode: 0o640 });
        }
    }

    fn attributes(&mut self, scale: &Scale) {
        self.dir("attributes", 0o755);
        let mut set = |path: &str, name: &str, value: Vec<u8>| {
            let (path, name) = (path.into(), name.to_owned());
            self.script.push(Operation::SetXattr { path, name, value });
        };
        set("attributes", "user.directory", b"of a directory".to_vec());
        set("sizes/1", "user.small", b"value".to_vec());
        set("sizes/1", "user.empty", Vec::new());
        set("sizes/300000", "user.large", vec![b'v'; scale.xattr_bytes]);
        set("sizes/300000", "user.a_rather_long_name_of_an_attribute", b"x".to_vec());
        set("sizes/59", "user.beside_inline_data", vec![b'i'; 40]);
        // Two files with the same block of attributes share it.
        for path in ["holes/all", "holes/end", "holes/start"] {
            set(path, "user.shared", vec![b's'; 300]);
        }
        if scale.xattrs == Xattrs::User {
            return;
        }
        set("sizes/1", "trusted.small", b"trusted".to_vec());
        set("sizes/0", "security.other", b"security".to_vec());
        set("links/soft59", "trusted.of_a_link", b"link".to_vec());
        set("attributes", "system.posix_acl_access", acl());
        set("attributes", "system.posix_acl_default", acl());
        set("sizes/60", "system.posix_acl_access", acl());
        // Made below a directory with a default ACL.
        self.file("attributes/inherits", 10);
        self.dir("attributes/inherits_too", 0o750);
    }

    fn names(&mut self, scale: &Scale) {
        self.dir("names", 0o755);
        self.file("names/a", 1);
        self.file([b"names/".as_slice(), &[b'n'; 255]].concat(), 2);
        self.file([b"names/".as_slice(), &[0xFF; 200]].concat(), 3);
        self.file(b"names/\xC3\xA4 \n\t\\*?".to_vec(), 4);
        self.dir("many", 0o755);
        for n in 0..scale.names {
            let path =
                format!("many/{n:0width$}", width = 8 + usize::try_from(n % 150).expect("small"))
                    .into();
            match n % 50 {
                0 => self.push(Operation::Create { path, mode: 0o600 }),
                _ => self.push(Operation::Link { original: b"links/one".to_vec(), path }),
            }
        }
    }

    fn directories(&mut self, scale: &Scale) {
        self.dir("deep", 0o755);
        let mut path = String::from("deep");
        for level in 0..20 {
            path += &format!("/level{level}");
            self.dir(&path, 0o755);
        }
        self.file(format!("{path}/bottom"), 10);
        self.dir("emptied", 0o755);
        let gone = |n| format!("emptied/{n:060}").into_bytes();
        for n in 0..scale.names / 10 {
            self.create(gone(n));
        }
        for n in 0..scale.names / 10 {
            self.push(Operation::Unlink { path: gone(n) });
        }
        self.dir("sticky", 0o1777);
        self.dir("setgid", 0o2775);
        self.file("setuid", 1);
        self.push(Operation::Chmod { path: b"setuid".to_vec(), mode: 0o4755 });
        self.file("moved", 700);
        self.push(Operation::Rename { from: b"moved".to_vec(), to: b"sticky/moved".to_vec() });
        self.dir("branch", 0o755);
        self.file("branch/leaf", 5000);
        self.push(Operation::Rename { from: b"branch".to_vec(), to: b"sticky/branch".to_vec() });
    }

    fn owners_and_times(&mut self) {
        let path = b"sizes/1".to_vec();
        self.push(Operation::Chown { path, uid: 1000, gid: 100 });
        let path = b"sizes/0".to_vec();
        self.push(Operation::Chown { path, uid: 70_000, gid: 4_000_000_000 });
        let path = b"links/soft1".to_vec();
        self.push(Operation::Chown { path, uid: 12, gid: 34 });
        let times = [
            ("sizes/0", (0, 0)),
            ("sizes/1", (-1, 999_999_999)),
            ("sizes/59", (0x7FFF_FFFF, 1)),
            ("sizes/60", (0x8000_0000, 123_456_789)),
            ("sizes/61", (0x1_8000_0000, 2)),
            ("sizes/300000", (-0x8000_0000, 5)),
            ("links/soft60", (1_700_000_000, 42)),
            ("names", (1_600_000_000, 43)),
        ];
        for (path, time) in times {
            let path = path.into();
            self.push(Operation::SetTimes { path, accessed: (1_650_000_000, 7), modified: time });
        }
    }
}

/// An ACL as `setxattr` takes it: owner, user 1000, group, group 5, mask, others.
///
/// Source: kernel `include/uapi/linux/posix_acl_xattr.h`.
fn acl() -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 6] =
        [(1, 7, NONE), (2, 5, 1000), (4, 5, NONE), (8, 4, 5), (0x10, 5, NONE), (0x20, 4, NONE)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
