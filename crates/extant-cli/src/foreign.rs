//! What lies in a file that is no ext4 image, as far as its first bytes tell: the mistakes that are made most.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use extant_device::{BlockDevice, BlockDeviceExt, DeviceError};
use extant_format::superblock::{MAGIC, RawSuperblock};
use extant_format::{Compat, Incompat};
use zerocopy::FromBytes;

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

/// What a device holds, for whoever would overwrite it; `None` if its first part is all zeros.
pub fn contents(device: &dyn BlockDevice) -> Result<Option<String>, DeviceError> {
    let len = usize::try_from(device.geometry().len_bytes).unwrap_or(usize::MAX).min(FIRST_BYTES);
    let bytes = device.read_vec(0, len)?;
    if let Some(name) = ext_name(&bytes) {
        return Ok(Some(name));
    }
    let has =
        |(at, magic): &(usize, &[u8])| bytes.get(*at..).is_some_and(|at| at.starts_with(magic));
    if let Some((name, _)) = NAMED.iter().find(|(_, magics)| magics.iter().any(has)) {
        return Ok(Some((*name).to_owned()));
    }
    Ok(bytes.iter().any(|byte| *byte != 0).then(|| "data".to_owned()))
}

/// The kind of ext file system that lies there, by its features.
fn ext_name(bytes: &[u8]) -> Option<String> {
    let (raw, _) = RawSuperblock::ref_from_prefix(bytes.get(1024..)?).ok()?;
    if raw.magic.get() != MAGIC {
        return None;
    }
    let newer = Incompat::EXTENTS | Incompat::BIT64 | Incompat::FLEX_BG | Incompat::META_BG;
    let kind = match () {
        () if raw.incompat().contains(Incompat::JOURNAL_DEV) => "an ext3 or ext4 journal",
        () if raw.incompat().intersects(newer) => "an ext4 file system",
        () if raw.compat().contains(Compat::HAS_JOURNAL) => "an ext3 file system",
        () => "an ext2 file system",
    };
    let label = raw.volume_name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(match std::str::from_utf8(label) {
        Ok(label) if !label.is_empty() && !label.contains(char::is_control) => {
            format!("{kind} labelled `{label}`")
        }
        _ => kind.to_owned(),
    })
}

/// Nearly everything that is stored has its magic number in here.
const FIRST_BYTES: usize = 128 << 10;

/// A thing's name, and bytes at places by any of which it is known.
type Named = (&'static str, &'static [(usize, &'static [u8])]);

/// What is known by its bytes, the surest first.
const NAMED: [Named; 18] = [
    ("an XFS file system", &[(0, b"XFSB")]),
    ("a btrfs file system", &[(65536 + 64, b"_BHRfS_M")]),
    ("a LUKS volume", &[(0, b"LUKS\xBA\xBE")]),
    ("an LVM volume", &[(512, b"LABELONE"), (0, b"LABELONE")]),
    ("a RAID member", &[(0, b"\xFC\x4E\x2B\xA9"), (4096, b"\xFC\x4E\x2B\xA9")]),
    (
        "swap space",
        &[
            (4096 - 10, b"SWAPSPACE2"),
            (4096 - 10, b"SWAP-SPACE"),
            (8192 - 10, b"SWAPSPACE2"),
            (16384 - 10, b"SWAPSPACE2"),
            (65536 - 10, b"SWAPSPACE2"),
        ],
    ),
    ("an ISO 9660 file system", &[(32769, b"CD001")]),
    ("an NTFS file system", &[(3, b"NTFS    ")]),
    ("an exFAT file system", &[(3, b"EXFAT   ")]),
    ("a FAT file system", &[(54, b"FAT1"), (82, b"FAT32")]),
    ("a squashfs file system", &[(0, b"hsqs")]),
    ("an EROFS file system", &[(1024, b"\xE2\xE1\xF5\xE0")]),
    ("an F2FS file system", &[(1024, b"\x10\x20\xF5\xF2")]),
    ("a ReiserFS file system", &[(65536 + 52, b"ReIsEr"), (8192 + 52, b"ReIsEr")]),
    ("a JFS file system", &[(32768, b"JFS1")]),
    ("a qcow2 image", &[(0, b"QFI\xFB")]),
    ("a partition table (GPT)", &[(512, b"EFI PART"), (4096, b"EFI PART")]),
    ("a partition table (MBR)", &[(510, b"\x55\xAA")]),
];
