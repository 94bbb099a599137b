//! Permission bits as chmod(1) takes them: octal, or letters.

use crate::failure::Usage;

/// What `text` makes of `mode`'s permission bits; `X` looks at whether it is a directory or executable by anyone.
pub fn apply(text: &str, mode: u16, is_dir: bool) -> anyhow::Result<u16> {
    if let Ok(bits) = u16::from_str_radix(text, 8)
        && bits <= 0o7777
    {
        return Ok(bits);
    }
    text.split(',').try_fold(mode & 0o7777, |mode, clause| {
        apply_clause(clause, mode, is_dir).ok_or_else(|| {
            Usage(format!("`{text}` is no mode; write octal digits, or letters such as u+x,go-w"))
                .into()
        })
    })
}

/// One clause such as `go-w`.
fn apply_clause(clause: &str, mode: u16, is_dir: bool) -> Option<u16> {
    let start = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(start);
    let who = who.chars().try_fold(0, |mask, letter| Some(mask | who_mask(letter)?))?;
    let who = if who == 0 { ALL } else { who };
    let mut mode = mode;
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let bits = rest[1..end]
            .chars()
            .try_fold(0, |bits, letter| Some(bits | bits_of(letter, mode, is_dir)?))?;
        let bits = bits & who;
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !who) | bits,
        };
        rest = &rest[end..];
    }
    Some(mode)
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
        ] {
            assert_eq!(apply(text, before, false).unwrap(), after, "{text}");
        }
        assert_eq!(apply("a+X", 0o644, true).unwrap(), 0o755);
        for text in ["", "8", "u", "u+q", "z+x", "17777"] {
            assert!(apply(text, 0, false).is_err(), "{text}");
        }
    }
}
