//! Scripts as text: operations with commas between, as `create a, write a 0 4096, fsync a, rename a d/b`.

use super::Operation;

/// The script that `text` says. Writes are tagged by their place in it, from 1; `/` is the root.
///
/// # Panics
/// If the text is no script: texts are part of the code.
pub fn parse(text: &str) -> Vec<Operation> {
    let operation = |(tag, words): (u32, &str)| {
        let words: Vec<&str> = words.split_whitespace().collect();
        operation(&words, tag).unwrap_or_else(|| panic!("no operation: {}", words.join(" ")))
    };
    (1..).zip(text.split(',')).map(operation).collect()
}

fn operation(words: &[&str], tag: u32) -> Option<Operation> {
    let path = words.get(1).unwrap_or(&"").trim_start_matches('/').as_bytes().to_vec();
    let other = || words.get(2).map(|word| word.as_bytes().to_vec());
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    let len = |at: usize| words.get(at)?.parse::<usize>().ok();
    let mode = || u16::from_str_radix(words.get(2)?, 8).ok();
    let name = || words.get(2).map(|name| (*name).to_owned());
    Some(match *words.first()? {
        "create" => Operation::Create { path, mode: mode().unwrap_or(0o644) },
        "write" => Operation::Write { path, offset: number(2)?, len: len(3)?, tag },
        "truncate" => Operation::Truncate { path, size: number(2)? },
        "mkdir" => Operation::Mkdir { path, mode: mode().unwrap_or(0o755) },
        "symlink" => Operation::Symlink { target: path, path: other()? },
        "link" => Operation::Link { original: path, path: other()? },
        "rename" => Operation::Rename { from: path, to: other()? },
        "unlink" => Operation::Unlink { path },
        "rmdir" => Operation::Rmdir { path },
        "xattr" => Operation::SetXattr { path, name: name()?, value: vec![b'v'; len(3)?] },
        "unxattr" => Operation::RemoveXattr { path, name: name()? },
        "chmod" => Operation::Chmod { path, mode: mode()? },
        "hold" => Operation::Hold { path },
        "release" => Operation::Release,
        "fsync" => Operation::Fsync { path },
        "sync" => Operation::Sync,
        "tick" => Operation::Tick { seconds: number(1)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_operations() {
        let script = parse("create a 600, write a 5 10, fsync /");
        assert_eq!(script[0], Operation::Create { path: b"a".to_vec(), mode: 0o600 });
        assert_eq!(script[1], Operation::Write { path: b"a".to_vec(), offset: 5, len: 10, tag: 2 });
        assert_eq!(script[2], Operation::Fsync { path: Vec::new() });
    }
}
