//! Values on the command line that have a form of their own: sizes and moments.

use std::time::{SystemTime, UNIX_EPOCH};

use extant_format::Timestamp;

use crate::output;

/// Bytes, with a binary unit if it has a letter at its end: `4096`, `64k`, `1.5G`, `64MB`, `1TiB`.
pub fn size(text: &str) -> Result<u64, String> {
    scaled(text, 1)
}

/// A size that is a smaller number.
///
/// # Errors
/// As [`size`], and for one that is too large.
pub fn number<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    N::try_from(size(text)?).map_err(|_| format!("`{text}` is too large"))
}

/// The same for who counts something else where there is no unit.
///
/// # Errors
/// One line that says how sizes are written.
pub fn scaled(text: &str, unit: u64) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write a number, or one such as 512M or 1.5G");
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let letters = text[number.len()..].to_ascii_lowercase();
    let scale: u64 =
        match letters.strip_suffix("ib").or(letters.strip_suffix('b')).unwrap_or(&letters) {
            "" if letters.is_empty() => unit,
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1 << 40,
            "p" => 1 << 50,
            _ => return Err(wrong()),
        };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !(whole.is_empty() && fraction.is_empty());
    if !has_digits || !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let billionths: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let part = u128::from(billionths) * u128::from(scale) / 1_000_000_000;
    let sum = u128::from(whole) * u128::from(scale) + part;
    u64::try_from(sum).map_err(|_| wrong())
}

/// A moment as `touch -d` takes it: a date, with or without a time of day and a zone, UTC without one; seconds since
/// 1970; `now`. Up to nine digits of a fraction.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "`{text}` is no time; write 2026-01-31, 2026-01-31T12:00:00+01:00, @SECONDS, or now"
        )
    };
    let text = text.trim();
    if text == "now" {
        return Ok(now());
    }
    if let Some(seconds) = seconds(text.trim_start_matches('@')) {
        return Ok(seconds);
    }
    let (local, offset) = zone(text).ok_or_else(wrong)?;
    let (whole, fraction) = local.split_once(['.', ',']).unwrap_or((local, ""));
    let nanoseconds = nanoseconds(fraction).ok_or_else(wrong)?;
    let seconds = date(whole).ok_or_else(wrong)? - offset;
    Ok(Timestamp { seconds, nanoseconds })
}

/// A moment as `touch -t` takes it: `[[CC]YY]MMDDhhmm[.ss]`, in UTC.
pub fn stamp(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time; write [[CC]YY]MMDDhhmm[.ss]");
    let (digits, second) = text.split_once('.').unwrap_or((text, "00"));
    let pairs = |digits: &str| -> Option<Vec<i64>> {
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let pairs = digits.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => Some(i64::from(high - b'0') * 10 + i64::from(low - b'0')),
            _ => None,
        });
        if is_number { pairs.collect() } else { None }
    };
    let this_year = || {
        let shown = output::short_time(now());
        shown.split('-').next().and_then(|year| year.parse().ok()).unwrap_or(1970)
    };
    let (year, [month, day, hour, minute]) = match *pairs(digits).ok_or_else(wrong)? {
        [month, day, hour, minute] => (this_year(), [month, day, hour, minute]),
        // As POSIX has it: 69 to 99 are of the last century.
        [year, month, day, hour, minute] => {
            (year + if year < 69 { 2000 } else { 1900 }, [month, day, hour, minute])
        }
        [century, year, month, day, hour, minute] => {
            (century * 100 + year, [month, day, hour, minute])
        }
        _ => return Err(wrong()),
    };
    let [second] = *pairs(second).ok_or_else(wrong)? else { return Err(wrong()) };
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let days = output::days(year, month, day).filter(|_| is_time).ok_or_else(wrong)?;
    Ok(Timestamp { seconds: ((days * 24 + hour) * 60 + minute) * 60 + second, nanoseconds: 0 })
}

/// This machine's time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

/// Seconds since 1970, with a fraction.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (seconds, nanoseconds) = (whole.parse::<i64>().ok()?, nanoseconds(fraction)?);
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => {
            Some(Timestamp { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds })
        }
        _ => Some(Timestamp { seconds, nanoseconds }),
    }
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if is_fraction { format!("{fraction:0<9}").parse().ok() } else { None }
}

/// A text without its zone, and how many seconds that is ahead of UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    for name in ["Z", "UTC", "GMT"] {
        if let Some(local) = text.strip_suffix(name) {
            return Some((local.trim_end(), 0));
        }
    }
    // Dates have dashes too, so a zone comes behind a time of day.
    let clock = text.find(':').unwrap_or(text.len());
    let Some(at) = text[clock..].rfind(['+', '-']).map(|at| clock + at) else {
        return Some((text, 0));
    };
    let digits = text[at + 1..].replace(':', "");
    let number: i64 = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (hours, minutes) = match digits.len() {
        1 | 2 => (number, 0),
        4 => (number / 100, number % 100),
        _ => return None,
    };
    let ahead = (hours < 25 && minutes < 60).then_some((hours * 60 + minutes) * 60)?;
    Some((text[..at].trim_end(), if text[at..].starts_with('-') { -ahead } else { ahead }))
}

/// Seconds since 1970 of `2026-01-31`, `2026-01-31T12:00` or `2026-01-31 12:00:59`.
fn date(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "0:0"));
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    let [year, month, day] = *date.split('-').map(number).collect::<Option<Vec<_>>>()? else {
        return None;
    };
    let (hour, minute, second) = match *clock.split(':').map(number).collect::<Option<Vec<_>>>()? {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    let days = output::days(year, month, day).filter(|_| is_time)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_unit_and_a_fraction() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64k", 64 << 10),
            ("4G", 4 << 30),
            ("1TiB", 1 << 40),
            ("64MB", 64 << 20),
            ("1.5G", 3 << 29),
            (".5k", 512),
            ("512B", 512),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "4X", "99999999999T", "1.5.5G", "-1", ".", "k", "1e3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!((scaled("4", 4096), scaled("16M", 4096)), (Ok(16384), Ok(16 << 20)));
    }

    #[test]
    fn moments_have_fractions_and_zones() {
        let at = |seconds, nanoseconds| Ok(Timestamp { seconds, nanoseconds });
        for (text, expected) in [
            ("12", at(12, 0)),
            ("12.5", at(12, 500_000_000)),
            ("-1.25", at(-2, 750_000_000)),
            ("@12", at(12, 0)),
            ("1970-01-01", at(0, 0)),
            ("2000-02-29T00:00:00Z", at(951_782_400, 0)),
            ("2026-11-24 01:19", at(1_795_483_140, 0)),
            ("2026-11-24 01:19:00.25 UTC", at(1_795_483_140, 250_000_000)),
            ("2026-11-24T02:19+01:00", at(1_795_483_140, 0)),
            ("2026-11-23T20:19:00-0500", at(1_795_483_140, 0)),
            ("2026-11-24 02:19 +1", at(1_795_483_140, 0)),
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
        assert!(moment("now").unwrap().seconds > 1_600_000_000);
        for wrong in [
            "noon",
            "1.1234567890",
            "2026-02-29",
            "2026-13-01",
            "2026-01-01T24:00",
            "2026-01-01T12:00+12345",
        ] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stamps_are_as_in_touch() {
        let at = |seconds| Ok(Timestamp { seconds, nanoseconds: 0 });
        assert_eq!(stamp("202611240119.30"), at(1_795_483_170));
        assert_eq!(stamp("7001020304"), at(97_440));
        assert_eq!(stamp("0001020304"), at(946_782_240));
        assert!(stamp("01020304").is_ok());
        for wrong in ["", "1", "202613240119", "202611240119.99", "2026112401199", "2026-1-1"] {
            assert!(stamp(wrong).is_err(), "{wrong}");
        }
    }
}
