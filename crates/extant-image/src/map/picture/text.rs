//! Numbers and names as words of a picture.

use alloc::format;
use alloc::string::{String, ToString};

/// Words inside a page or a drawing; what could tell a reader to do something is replaced.
pub fn escape(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            control if control.is_control() => escaped.push('\u{FFFD}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A size with a binary unit and one digit after the point.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit = units.next();
    }
    let whole = if tenths.is_multiple_of(10) {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    format!("{whole} {}", unit.unwrap_or(&"EiB"))
}

/// A part of a whole in hundredths, with a digit after the point where that says more.
pub fn percent(part: u64, whole: u64) -> String {
    match share(part, whole, 1000) {
        0 if part > 0 => "under 0.1%".to_string(),
        // Nearly all is not all.
        tenths @ 995..1000 => format!("{}.{}%", tenths / 10, tenths % 10),
        tenths @ 100.. => format!("{}%", (tenths + 5) / 10),
        tenths if tenths.is_multiple_of(10) => format!("{}%", tenths / 10),
        tenths => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

/// A part of a whole as a part of `scale`.
pub fn share(part: u64, whole: u64, scale: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(scale) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX).min(scale)
}

/// A number with blanks between its thousands.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("<a href='x'>&\"\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{FFFD}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 16 << 40].map(size),
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "16 TiB"]
        );
        assert_eq!(size(u64::MAX), "15.9 EiB");
        let shares = [(0, 9), (1, 100_000), (1, 40), (1, 3), (1999, 2000), (9, 9)];
        let texts = shares.map(|(part, whole)| percent(part, whole));
        assert_eq!(texts, ["0%", "under 0.1%", "2.5%", "33%", "99.9%", "100%"]);
        assert_eq!(number(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(share(u64::MAX, u64::MAX, 1000), 1000);
    }
}
