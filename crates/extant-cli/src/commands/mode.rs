//! Permission bits as chmod(1) takes them: octal, or letters.

use crate::failure::Usage;
use crate::output;

/// What `text` makes of `mode`'s permission bits. `X` looks at whether it is a directory or executable by anyone; without a
/// letter for whom, bits of the umask stay as they are; a directory's set-user and set-group bits stay unless they are named.
pub fn apply(text: &str, mode: u16, is_dir: bool, umask: u16) -> anyhow::Result<u16> {
    let wrong =
        || Usage(format!("`{text}` is no mode; write octal digits, or letters such as u+x,go-w"));
    if text.starts_with(|first: char| first.is_digit(8)) {
        let bits = octal(text).ok_or_else(wrong)?;
        let named = if text.len() < 5 { bits & 0o7000 | 0o777 } else { ALL };
        return Ok(change(mode & ALL, is_dir, '=', ALL, bits, named));
    }
    let mut mode = mode & ALL;
    for clause in text.split(',') {
        mode = apply_clause(clause, mode, is_dir, umask).ok_or_else(wrong)?;
    }
    Ok(mode)
}

/// Fails if `mode`, which `text` made of `old`, lets more be done than the text seems to say: `-w` under a umask.
pub fn check_as_meant(text: &str, mode: u16, old: u16, is_dir: bool) -> anyhow::Result<()> {
    if !text.starts_with('-') {
        return Ok(());
    }
    let meant = apply(text, old, is_dir, 0)?;
    let show = |mode: u16| output::mode(old & !ALL | mode)[1..].to_owned();
    anyhow::ensure!(
        mode & !meant == 0,
        "new permissions are {}, not {}: bits of the umask stay",
        show(mode),
        show(meant)
    );
    Ok(())
}

/// One clause such as `go-w`.
fn apply_clause(clause: &str, mode: u16, is_dir: bool, umask: u16) -> Option<u16> {
    let start = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(start);
    let who = who.chars().try_fold(0, |mask, letter| Some(mask | who_mask(letter)?))?;
    let mut mode = mode;
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let what = &rest[1..end];
        mode = match octal(what) {
            Some(_) if who != 0 => return None,
            Some(bits) => change(mode, is_dir, operator, ALL, bits, ALL),
            None => {
                let bits = what
                    .chars()
                    .try_fold(0, |bits, letter| Some(bits | bits_of(letter, mode, is_dir)?))?;
                let named = if who == 0 { bits } else { who & bits };
                let (affected, bits) = if who == 0 { (ALL, bits & !umask) } else { (who, bits) };
                change(mode, is_dir, operator, affected, bits, named)
            }
        };
        rest = &rest[end..];
    }
    Some(mode)
}

/// The effect of one operator on the bits that it affects.
fn change(mode: u16, is_dir: bool, operator: char, affected: u16, bits: u16, named: u16) -> u16 {
    let stays = if is_dir { 0o6000 & !named } else { 0 };
    let affected = affected & !stays;
    let bits = bits & affected;
    match operator {
        '+' => mode | bits,
        '-' => mode & !bits,
        _ => (mode & !affected) | bits,
    }
}

fn octal(text: &str) -> Option<u16> {
    let is_octal = !text.is_empty() && text.chars().all(|digit| digit.is_digit(8));
    u16::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= ALL)
}

/// The bits that belong to a letter before the operator.
fn who_mask(letter: char) -> Option<u16> {
    Some(match letter {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o1007,
        'a' => ALL,
        _ => return None,
    })
}

/// The bits that a letter after the operator names, for everybody.
fn bits_of(letter: char, mode: u16, is_dir: bool) -> Option<u16> {
    Some(match letter {
        'r' => 0o444,
        'w' => 0o222,
        'x' => 0o111,
        'X' if is_dir || mode & 0o111 != 0 => 0o111,
        'X' => 0,
        's' => 0o6000,
        't' => 0o1000,
        'u' => ((mode >> 6) & 7) * 0o111,
        'g' => ((mode >> 3) & 7) * 0o111,
        'o' => (mode & 7) * 0o111,
        _ => return None,
    })
}

const ALL: u16 = 0o7777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_letters() {
        for (text, before, after) in [
            ("644", 0o777, 0o644),
            ("4755", 0, 0o4755),
            ("u+x", 0o644, 0o744),
            ("go-w", 0o666, 0o644),
            ("a=r", 0o4777, 0o444),
            ("+x", 0o644, 0o755),
            ("u=rw,g=u,o=", 0o777, 0o660),
            ("u+s,+t", 0o755, 0o5755),
            ("g+s", 0o755, 0o2755),
            ("a+X", 0o644, 0o644),
            ("a+X", 0o744, 0o755),
            ("u=rwx-w", 0, 0o500),
            ("+644", 0o111, 0o755),
            ("=755", 0o4000, 0o755),
        ] {
            assert_eq!(apply(text, before, false, 0).unwrap(), after, "{text}");
        }
        assert_eq!(apply("a+X", 0o644, true, 0).unwrap(), 0o755);
        for text in ["", "8", "u", "u+q", "z+x", "17777", "u+7"] {
            assert!(apply(text, 0, false, 0).is_err(), "{text}");
        }
    }

    #[test]
    fn the_umask_counts_where_nobody_is_named() {
        assert_eq!(apply("+w", 0o444, false, 0o022).unwrap(), 0o644);
        assert_eq!(apply("a+w", 0o444, false, 0o022).unwrap(), 0o666);
        assert_eq!(apply("-w", 0o666, false, 0o022).unwrap(), 0o466);
        assert!(check_as_meant("-w", 0o466, 0o666, false).is_err());
        assert!(check_as_meant("-x", 0o644, 0o755, false).is_ok());
        assert!(check_as_meant("+w", 0o644, 0o444, false).is_ok());
    }

    #[test]
    fn directories_keep_bits_that_are_not_named() {
        for (text, before, after) in [
            ("755", 0o2700, 0o2755),
            ("00755", 0o2700, 0o755),
            ("0755", 0o2700, 0o2755),
            ("4755", 0o2700, 0o6755),
            ("u=rwx", 0o6700, 0o6700),
            ("g-s", 0o2755, 0o755),
            ("a=rx", 0o3777, 0o2555),
        ] {
            assert_eq!(apply(text, before, true, 0).unwrap(), after, "{text}");
        }
    }
}
