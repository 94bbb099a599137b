//! How names, modes, times and sizes are shown.

use std::io::{IsTerminal, Write};

use extant::Metadata;
use extant_format::{FileType, Timestamp};
use serde_json::{Value, json};

/// A name for people: on a terminal, bytes that could do something to it become question marks.
pub fn name(bytes: &[u8]) -> Vec<u8> {
    match std::io::stdout().is_terminal() {
        true => {
            bytes.iter().map(|byte| if byte.is_ascii_control() { b'?' } else { *byte }).collect()
        }
        false => bytes.to_vec(),
    }
}

/// A name for programs; bytes that are no UTF-8 are told beside it.
pub fn json_name(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "lossy": String::from_utf8_lossy(bytes), "hex": hex(bytes) }),
    }
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sixteen bytes as a UUID is written.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let text = hex(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// Prints one JSON value.
pub fn print_json(out: &mut dyn Write, value: &Value) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}

/// Prints the values of what was asked for: a list of those of several things, else the one there is, if it could be had.
pub fn print_values(
    out: &mut dyn Write,
    several: bool,
    mut values: Vec<Value>,
) -> anyhow::Result<()> {
    match (several, values.pop()) {
        (false, Some(value)) => print_json(out, &value),
        (false, None) => Ok(()),
        (true, last) => {
            values.extend(last);
            print_json(out, &Value::Array(values))
        }
    }
}

/// Type and permissions as ls(1) shows them.
pub fn mode(mode: u16) -> String {
    let kind = FileType::from_mode(mode).map_or('?', type_letter);
    let bit = |mask: u16, letter: char| if mode & mask != 0 { letter } else { '-' };
    let execute = |mask: u16, special: u16, both: char, alone: char| match (
        mode & mask != 0,
        mode & special != 0,
    ) {
        (true, true) => both,
        (false, true) => alone,
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        kind,
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        execute(0o100, 0o4000, 's', 'S'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        execute(0o010, 0o2000, 's', 'S'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        execute(0o001, 0o1000, 't', 'T'),
    ]
    .iter()
    .collect()
}

/// The type in words.
pub fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "regular file",
        FileType::Directory => "directory",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Symlink => "symbolic link",
    }
}

fn type_letter(kind: FileType) -> char {
    match kind {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Symlink => 'l',
    }
}

/// A moment in UTC, to the minute.
pub fn short_time(time: Timestamp) -> String {
    let (year, month, day) = date(time.seconds.div_euclid(86400));
    let seconds = time.seconds.rem_euclid(86400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600, seconds / 60 % 60)
}

/// A moment in UTC, to the nanosecond.
pub fn time(time: Timestamp) -> String {
    format!("{}:{:02}.{:09} UTC", short_time(time), time.seconds.rem_euclid(60), time.nanoseconds)
}

/// Year, month and day of the `days`-th day since 1970, in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Eras of 400 years, each year from March on, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day since 1970 that has this date; `None` if no day has it.
pub fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let year_from_march = if month > 2 { year } else { year - 1 };
    let month_from_march = (month + 9).rem_euclid(12);
    let leap_days = year_from_march.div_euclid(4) - year_from_march.div_euclid(100)
        + year_from_march.div_euclid(400);
    let days =
        year_from_march * 365 + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468;
    (date(days) == (year, month, day)).then_some(days)
}

/// So many of something, in words.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A size with a binary unit, as `df -h` shows it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A size as `ls -h` shows it: rounded up, with one digit after the point below ten.
pub fn short_size(bytes: u64) -> String {
    let (mut unit, mut scale) = (0, 1_u128);
    while u128::from(bytes) >= scale * 1024 && unit < UNIT_LETTERS.len() {
        (unit, scale) = (unit + 1, scale * 1024);
    }
    let Some(letter) = unit.checked_sub(1).map(|place| UNIT_LETTERS[place]) else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10).div_ceil(scale);
    let whole = u128::from(bytes).div_ceil(scale);
    if tenths < 100 {
        return format!("{}.{}{letter}", tenths / 10, tenths % 10);
    }
    match UNIT_LETTERS.get(unit) {
        Some(next) if whole == 1024 => format!("1.0{next}"),
        _ => format!("{whole}{letter}"),
    }
}

const UNIT_LETTERS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// Everything that an inode tells.
pub fn json_metadata(metadata: &Metadata) -> Value {
    let moment =
        |time: Timestamp| json!({ "seconds": time.seconds, "nanoseconds": time.nanoseconds });
    json!({
        "inode": metadata.inode.get(),
        "type": type_name(metadata.file_type()),
        "mode": format!("{:04o}", metadata.permissions()),
        "uid": metadata.uid,
        "gid": metadata.gid,
        "links": metadata.links,
        "size": metadata.size,
        "sectors": metadata.blocks,
        "device": metadata.device.map(|(major, minor)| json!([major, minor])),
        "accessed": moment(metadata.accessed),
        "modified": moment(metadata.modified),
        "changed": moment(metadata.changed),
        "created": metadata.created.map(moment),
        "flags": format!("{:#x}", metadata.flags.bits()),
        "generation": metadata.generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        for (bits, text) in [
            (0o100644, "-rw-r--r--"),
            (0o040755, "drwxr-xr-x"),
            (0o104755, "-rwsr-xr-x"),
            (0o102644, "-rw-r-Sr--"),
            (0o041777, "drwxrwxrwt"),
            (0o041776, "drwxrwxrwT"),
            (0o120777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn times_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_795_483_153, "2026-11-24 01:19"),
            (-1, "1969-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(short_time(Timestamp { seconds, nanoseconds: 0 }), text);
        }
        assert_eq!(
            time(Timestamp { seconds: 61, nanoseconds: 5 }),
            "1970-01-01 00:01:01.000000005 UTC"
        );
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn short_sizes_are_as_in_ls() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10240, "10K"),
            (10241, "11K"),
            ((1 << 20) - 1, "1.0M"),
            (1536 << 20, "1.5G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(short_size(bytes), text);
        }
    }

    #[test]
    fn names_that_are_no_text_keep_their_bytes() {
        assert_eq!(json_name(b"plain"), json!("plain"));
        assert_eq!(json_name(b"\xFF")["hex"], json!("ff"));
    }
}
