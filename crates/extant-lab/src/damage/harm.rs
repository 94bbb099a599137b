//! What is done to an image: fields that lie, structures that are not what they were, blocks in the wrong place.

use std::fmt::Write;

use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_format::cast::{low_u32, u64_from};
use extant_testkit::Random;

use super::patch::{patch, put};
use super::survey::{Kind, Piece, Survey};

/// Harms `image` as `random` says, and tells what it did.
pub fn harm(image: &mut MemoryDevice, survey: &Survey, random: &mut Random) -> String {
    let mut told = String::new();
    // Mostly one or two lies: many at once hide each other.
    let times = 1 + random.below(2) * random.below(6);
    for _ in 0..times {
        let piece = pick(survey, random);
        let what = match random.below(64) {
            0 => cut(image, survey, random),
            1..4 => swap(image, &piece, &pick(survey, random)),
            4..7 => copy(image, &pick(survey, random), &piece),
            7..10 => fill(image, &piece, random),
            10..16 => flip(image, &piece, random),
            _ => lie(image, survey, &piece, random),
        };
        write!(told, "{}{what}", if told.is_empty() { "" } else { "; " })
            .expect("a string takes all");
    }
    told
}

/// A piece: each kind as likely as the others, however many pieces it has.
fn pick(survey: &Survey, random: &mut Random) -> Piece {
    let pieces = &survey.pieces;
    let kind = |piece: &Piece| std::mem::discriminant(&piece.kind);
    let mut kinds = Vec::new();
    for piece in pieces {
        if !kinds.contains(&kind(piece)) {
            kinds.push(kind(piece));
        }
    }
    let chosen = kinds[below(random, kinds.len())];
    let of_kind: Vec<&Piece> = pieces.iter().filter(|piece| kind(piece) == chosen).collect();
    *of_kind[below(random, of_kind.len())]
}

/// Cuts the image's end off, anywhere or in the middle of something.
fn cut(image: &mut MemoryDevice, survey: &Survey, random: &mut Random) -> String {
    let len = image.geometry().len_bytes;
    let at = if random.coin() { random.below(len) } else { pick(survey, random).offset };
    image.set_len(at / 512 * 512);
    format!("cut to {} bytes", at / 512 * 512)
}

/// Exchanges two pieces, as far as the shorter goes.
fn swap(image: &MemoryDevice, a: &Piece, b: &Piece) -> String {
    let len = a.len.min(b.len);
    if let (Ok(left), Ok(right)) = (image.read_vec(a.offset, len), image.read_vec(b.offset, len)) {
        patch(image, a.offset, len, |bytes| bytes.copy_from_slice(&right));
        patch(image, b.offset, len, |bytes| bytes.copy_from_slice(&left));
    }
    format!("{:?} swapped with {:?}", a.kind, b.kind)
}

/// Makes a piece a copy of another.
fn copy(image: &MemoryDevice, from: &Piece, to: &Piece) -> String {
    let len = from.len.min(to.len);
    if let Ok(bytes) = image.read_vec(from.offset, len) {
        patch(image, to.offset, len, |place| place.copy_from_slice(&bytes));
    }
    format!("{:?} is a copy of {:?}", to.kind, from.kind)
}

/// Overwrites a part of a piece, or all of it, with one byte or with noise.
fn fill(image: &MemoryDevice, piece: &Piece, random: &mut Random) -> String {
    let (start, end) = match random.coin() {
        true => (0, piece.len),
        false => {
            let start = below(random, piece.len);
            (start, start + 1 + below(random, piece.len - start))
        }
    };
    let (with, mut noise) = (random.below(3), random.clone());
    patch(image, piece.offset, piece.len, |bytes| {
        for byte in &mut bytes[start..end] {
            *byte = match with {
                0 => 0,
                1 => 0xFF,
                _ => noise.next_u64().to_le_bytes()[0],
            };
        }
    });
    format!(
        "{:?} {start}..{end} filled with {}",
        piece.kind,
        ["zeros", "ones", "noise"][usize::from(with == 1) + 2 * usize::from(with == 2)]
    )
}

/// Flips a few bits.
fn flip(image: &MemoryDevice, piece: &Piece, random: &mut Random) -> String {
    let bits: Vec<(usize, u64)> =
        (0..=random.below(3)).map(|_| (below(random, piece.len), random.below(8))).collect();
    patch(image, piece.offset, piece.len, |bytes| {
        bits.iter().for_each(|(byte, bit)| bytes[*byte] ^= 1 << bit);
    });
    format!("{:?} bits {bits:?} flipped", piece.kind)
}

/// Gives a field a value that is near a limit, near the truth, or true elsewhere.
fn lie(image: &MemoryDevice, survey: &Survey, piece: &Piece, random: &mut Random) -> String {
    let Ok(bytes) = image.read_vec(piece.offset, piece.len) else { return "nothing".to_owned() };
    let fields = fields(piece.kind, &bytes);
    let (at, width) = fields[below(random, fields.len())];
    let big_endian = matches!(
        piece.kind,
        Kind::JournalSuperblock
            | Kind::JournalDescriptor
            | Kind::JournalRevoke
            | Kind::JournalCommit
    );
    let mut stored = [0; 8];
    stored[..width].copy_from_slice(&bytes[at..at + width]);
    if big_endian {
        stored[..width].reverse();
    }
    let value = value(u64::from_le_bytes(stored), width, survey, random);
    let mut new = value.to_le_bytes();
    if big_endian {
        new[..width].reverse();
    }
    patch(image, piece.offset, piece.len, |bytes| put(bytes, at, &new[..width]));
    format!("{:?} +{at:#x} of {width} bytes set to {value:#x}", piece.kind)
}

/// A value for a field that holds `old`.
fn value(old: u64, width: usize, survey: &Survey, random: &mut Random) -> u64 {
    let most = u64::MAX >> (64 - 8 * width);
    let geometry = &survey.geometry;
    let blocks = geometry.blocks_count;
    let piece = pick(survey, random);
    let value = match random.below(16) {
        0 => 0,
        1 => 1,
        2 => most,
        3 => most - 1,
        4 => most / 2,
        5 => most / 2 + 1,
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        8 => old.wrapping_mul(2),
        9 => old ^ 1 << random.below(8 * u64_from(width)),
        10 => random.next_u64(),
        11 => random.below(64),
        12 => piece.offset >> geometry.block_bits, // a block that is something else
        13 => [blocks - 1, blocks, blocks + 1, geometry.inodes_count.into()][below(random, 4)],
        14 => random.below(u64::from(geometry.inodes_count) + 2), // an inode
        _ => old.wrapping_add(u64::from(geometry.block_size)),
    };
    value & most
}

/// The fields of a structure: where they start and how many bytes they have. Never none.
fn fields(kind: Kind, bytes: &[u8]) -> Vec<(usize, usize)> {
    let le16 = |at: usize| usize::from(bytes[at]) | usize::from(bytes[at + 1]) << 8;
    let mut fields = match kind {
        Kind::Superblock => SUPERBLOCK_FIELDS.to_vec(),
        Kind::Directory(_) => directory_fields(bytes),
        Kind::ExtentNode(_) => node_fields(12 + 12 * le16(2)),
        Kind::BlockArea(_) if bytes.starts_with(&[0x0A, 0xF3]) => node_fields(60),
        Kind::XattrBlock => [plain(32), xattr_fields(bytes, 32)].concat(),
        Kind::InodeXattrs(_) => [plain(4), xattr_fields(bytes, 4)].concat(),
        Kind::JournalSuperblock => plain(0x60),
        Kind::JournalDescriptor | Kind::JournalRevoke => plain(160),
        Kind::JournalCommit => plain(64),
        Kind::Mmp => [plain(16), vec![(0x70, 2)]].concat(),
        _ => plain(bytes.len()),
    };
    fields.retain(|(at, width)| at + width <= bytes.len());
    fields
}

/// Words and half words.
fn plain(len: usize) -> Vec<(usize, usize)> {
    (0..len).step_by(4).flat_map(|at| [(at, 4), (at, 2), (at + 2, 2)]).collect()
}

fn node_fields(len: usize) -> Vec<(usize, usize)> {
    let entries = (12..len).step_by(12);
    let header = [(0, 2), (2, 2), (4, 2), (6, 2)];
    header
        .into_iter()
        .chain(entries.flat_map(|at| [(at, 4), (at + 4, 2), (at + 6, 2), (at + 8, 4)]))
        .collect()
}

/// The headers of entries, as far as their lengths lead; and the first entries of an index.
fn directory_fields(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut fields, mut at) = (Vec::new(), 0);
    while at + 8 <= bytes.len() {
        fields.extend([(at, 4), (at + 4, 2), (at + 6, 1), (at + 7, 1), (at + 8, 1)]);
        let len = usize::from(bytes[at + 4]) | usize::from(bytes[at + 5]) << 8;
        at += if len < 8 { bytes.len() } else { len };
    }
    // A root's dots cover all of it, a node's one empty entry too.
    if fields.len() <= 10 {
        let start = if fields.len() == 10 { 24 } else { 8 };
        fields.extend(
            (start..start + 64).step_by(4).flat_map(|at| [(at, 4), (at, 2), (at + 2, 2), (at, 1)]),
        );
        fields.extend([(28, 1), (29, 1), (30, 1), (31, 1)]);
    }
    fields
}

/// The fields of attribute entries from `start` on.
fn xattr_fields(bytes: &[u8], start: usize) -> Vec<(usize, usize)> {
    let (mut fields, mut at) = (Vec::new(), start);
    while at + 16 <= bytes.len() && bytes[at..at + 4] != [0; 4] {
        let widths = [(0, 1), (1, 1), (2, 2), (4, 4), (8, 4), (12, 4), (16, 1)];
        fields.extend(widths.map(|(offset, width)| (at + offset, width)));
        at += (16 + usize::from(bytes[at]) + 3) & !3;
    }
    fields
}

fn below(random: &mut Random, limit: usize) -> usize {
    let limit = u64_from(limit);
    usize::try_from(low_u32(random.below(limit))).expect("an index")
}

/// The superblock's fields that decide something.
const SUPERBLOCK_FIELDS: [(usize, usize); 66] = [
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0C, 4),
    (0x10, 4),
    (0x14, 4),
    (0x18, 4),
    (0x1C, 4),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x34, 2),
    (0x38, 2),
    (0x3A, 2),
    (0x3C, 2),
    (0x3E, 2),
    (0x48, 4),
    (0x4C, 4),
    (0x54, 4),
    (0x58, 2),
    (0x5A, 2),
    (0x5C, 4),
    (0x5C, 2),
    (0x60, 4),
    (0x60, 2),
    (0x62, 2),
    (0x64, 4),
    (0x64, 2),
    (0x66, 2),
    (0x68, 4),
    (0xCC, 1),
    (0xCE, 2),
    (0xD0, 4),
    (0xE0, 4),
    (0xE4, 4),
    (0xE8, 4),
    (0xEC, 4),
    (0xFC, 1),
    (0xFD, 1),
    (0xFE, 2),
    (0x100, 4),
    (0x104, 4),
    (0x10C, 4),
    (0x150, 4),
    (0x154, 4),
    (0x158, 4),
    (0x15C, 2),
    (0x15E, 2),
    (0x160, 4),
    (0x164, 2),
    (0x166, 2),
    (0x168, 8),
    (0x170, 4),
    (0x174, 1),
    (0x175, 1),
    (0x176, 1),
    (0x194, 4),
    (0x240, 4),
    (0x244, 4),
    (0x248, 4),
    (0x24C, 4),
    (0x250, 4),
    (0x26C, 4),
    (0x270, 4),
    (0x27C, 2),
    (0x280, 4),
];
