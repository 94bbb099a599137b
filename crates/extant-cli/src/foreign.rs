//! What lies in a file that is no ext4 image, as far as its first bytes tell: the mistakes that are made most.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What `image` is instead, and what to do about it; empty if its bytes tell nothing.
pub fn advice(image: &Path) -> &'static str {
    let mut bytes = [0; 1024];
    match File::open(image).and_then(|file| file.read_at(&mut bytes, 0)) {
        Ok(0) => return "; it is empty",
        Ok(_) => {}
        Err(_) => return "",
    }
    let known = KNOWN.iter().find(|(at, magic, _)| bytes[*at..].starts_with(magic));
    known.map_or("", |(.., advice)| advice)
}

const COMPRESSED: &str = "; it is compressed: unpack it first";
const CONVERT: &str = "; it is no raw image: `qemu-img convert -O raw` makes one of it";
const PARTITIONS: &str = "; it has a partition table, and what is meant is one of its partitions: say which by --partition";

/// Where, which bytes, and what to say.
const KNOWN: [(usize, &[u8], &str); 11] = [
    (0, b"\x1F\x8B", COMPRESSED),
    (0, b"\xFD7zXZ\0", COMPRESSED),
    (0, b"\x28\xB5\x2F\xFD", COMPRESSED),
    (0, b"BZh", COMPRESSED),
    (0, b"PK\x03\x04", COMPRESSED),
    (0, b"QFI\xFB", CONVERT),
    (0, b"KDMV", CONVERT),
    (0, b"\x3A\xFF\x26\xED", "; it is an Android sparse image: `simg2img` unpacks it"),
    (0, b"XFSB", "; it is an XFS"),
    (0, b"hsqs", "; it is a squashfs"),
    (510, b"\x55\xAA", PARTITIONS),
];
