//! From an error to one line and an exit code.

use std::error::Error as StdError;
use std::io::Write;

use extant_device::{DeviceError, OpenError};
use extant_format::{Corruption, FormatError, Place, Rule};

use crate::interrupt::Interrupted;
use crate::output::count;
use crate::partitions::PartitionError;
use crate::volume::Changed;

/// What the exit codes mean; part of `extant --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something could not be done; the line on standard error says what
  2  the command line makes no sense
  3  the image cannot be used: not there, in use by somebody else, no ext4, or a feature is missing here
  4  the image is damaged";

/// What failed was told already, a line each; the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub struct Told(pub u8);

/// The image holds something else; with what is known of it.
#[derive(Debug, thiserror::Error)]
#[error("this is no ext2, ext3 or ext4 image{0}")]
pub struct NoExt4(pub &'static str);

/// The command line makes no sense, for a reason that the grammar cannot know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The image can be read but not changed: these features, as mke2fs names them, would not be kept right.
#[derive(Debug, thiserror::Error)]
#[error("can only be read: it uses {0}, which this version does not write")]
pub struct OnlyReadable(pub String);

/// Does `work` for each item; what fails is told, and the others go on.
pub fn each<T>(
    items: impl IntoIterator<Item = T>,
    mut work: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut worst = 0;
    for item in items {
        match work(item) {
            Err(error) if is_broken_pipe(&error) || error.is::<Interrupted>() => return Err(error),
            Err(error) => worst = tell(&error).max(worst),
            Ok(()) => {}
        }
    }
    if worst == 0 { Ok(()) } else { Err(Told(worst).into()) }
}

/// Prints the line of `error`, unless it was told before, and returns its exit code.
pub fn tell(error: &anyhow::Error) -> u8 {
    if let Some(Told(code)) = error.downcast_ref() {
        return *code;
    }
    say(&line(error));
    exit_code(error)
}

/// Prints a line on standard error; that nobody listens is no failure.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "extant: {line}");
}

/// Asks on standard error; only an answer on standard input that begins with `y` means yes.
pub fn ask(question: &str) -> std::io::Result<bool> {
    write!(std::io::stderr(), "extant: {}? ", question.replace(char::is_control, "?"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}

/// The exit code that `error` stands for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let code = error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            return Some(2);
        }
        if cause.is::<Interrupted>() {
            return Some(130);
        }
        if cause.is::<OpenError>() || cause.is::<OnlyReadable>() || cause.is::<NoExt4>() {
            return Some(3);
        }
        if cause.is::<Changed>() || cause.is::<PartitionError>() {
            return Some(3);
        }
        if is_unsupported(cause) || matches!(cause.downcast_ref(), Some(extant::Error::InUse(_))) {
            return Some(3);
        }
        corruption(cause).map(|_| 4)
    });
    code.unwrap_or(1)
}

/// What is wrong, where, and what to do: one line.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let next = words(cause);
        // Some errors show their cause themselves.
        if !text.ends_with(&next) {
            text = if text.is_empty() { next } else { format!("{text}: {next}") };
        }
    }
    if let Some(advice) = advice(error) {
        text = format!("{text}; {advice}");
    }
    // A name must neither begin a new line nor tell the terminal what to do.
    text.replace(char::is_control, "?")
}

/// What one error says, in the way of all others.
fn words(cause: &(dyn StdError + 'static)) -> String {
    if let Some(extant::Error::NoSpace { wanted, free }) = cause.downcast_ref() {
        let wanted = count(wanted.get(), "more block");
        return match free.get() {
            0 => format!(
                "no space: none is free but what the file system keeps for itself, and {wanted} would be needed"
            ),
            free => format!(
                "no space: {free} free beside what the file system keeps for itself, and {wanted} would be needed"
            ),
        };
    }
    let text = cause.to_string();
    let system = cause.is::<std::io::Error>() || cause.is::<rustix::io::Errno>();
    let of_source = cause.source().filter(|source| source.is::<std::io::Error>());
    let own = match (system, of_source) {
        (true, _) => 0,
        (false, Some(source)) => text.len().saturating_sub(source.to_string().len()),
        (false, None) => text.len(),
    };
    let (own, reason) = text.split_at_checked(own).unwrap_or((&text, ""));
    format!("{own}{}", in_our_way(reason))
}

/// A system's text begins with a small letter, and without the number that the standard library adds.
fn in_our_way(text: &str) -> String {
    let text = text.split(" (os error ").next().unwrap_or(text);
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // A word that is all capitals is a name.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

fn is_unsupported(cause: &(dyn StdError + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(extant::Error::Unsupported(_)))
        || matches!(cause.downcast_ref(), Some(FormatError::Unsupported(_)))
}

/// What `cause` says is damaged.
pub fn corruption<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Corruption> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(extant::Error::Corrupt(corruption)), _)
        | (_, Some(FormatError::Corrupt(corruption))) => Some(corruption),
        _ => cause.downcast_ref(),
    }
}

/// Whether there is no ext4 file system at all, rather than a damaged one.
pub fn is_no_ext4(error: &anyhow::Error) -> bool {
    error.chain().filter_map(corruption).any(|corruption| {
        matches!((corruption.place, corruption.rule), (Place::Superblock, Rule::Magic))
    })
}

fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(corruption) = corruption(cause) {
            return Some(match corruption.rule {
                Rule::BlocksPastDevice => "the image is cut off: copy or unpack it again",
                _ => "let `e2fsck -f` repair it before it is changed",
            });
        }
        match cause.downcast_ref::<extant::Error>()? {
            extant::Error::NoSpace { .. } => Some("remove something, or use a larger image"),
            extant::Error::NoInodes => {
                Some("remove some files, or use an image with more inodes (`mkfs -i`)")
            }
            extant::Error::Range => Some("the name of an attribute has up to 255 bytes"),
            extant::Error::Aborted { device: Some(DeviceError::Io { errno, .. }), .. }
                if *errno == Some(rustix::io::Errno::NOSPC.raw_os_error()) =>
            {
                Some("make room in the file system that holds the image, and run the command again")
            }
            extant::Error::Aborted { .. } => {
                Some("nothing was changed after that; run the command again")
            }
            extant::Error::NotSupported("prefix of the attribute's name") => {
                Some("names begin with `user.`, `trusted.` or `security.`")
            }
            extant::Error::NotEmpty => Some("`rm -r` removes what is in it too"),
            _ => None,
        }
    })
}

/// Whether the reader of standard output went away, which is its good right.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use extant_format::ClusterCount;

    use super::*;

    fn check(error: impl Into<anyhow::Error>, code: u8, text: &str) {
        let error = Err::<(), _>(error.into()).context("disk.img:/file").unwrap_err();
        assert_eq!(exit_code(&error), code);
        assert_eq!(line(&error), text);
    }

    #[test]
    fn each_kind_of_error_has_its_exit_code_and_one_line() {
        check(extant::Error::NotFound, 1, "disk.img:/file: no such file or directory");
        check(Usage("what?".to_owned()), 2, "disk.img:/file: what?");
        check(
            OnlyReadable("quota".to_owned()),
            3,
            "disk.img:/file: can only be read: it uses quota, which this version does not write",
        );
        check(
            extant::Error::NoInodes,
            1,
            "disk.img:/file: no space: every inode is in use; remove some files, or use an image with more inodes (`mkfs -i`)",
        );
        let user = extant::InUse {
            by: extant::User::Host,
            node: "other".to_owned(),
            device: "sdb".to_owned(),
            seconds: 0,
        };
        check(
            extant::Error::InUse(user.into()),
            3,
            "disk.img:/file: in use: another host has it mounted (other, as sdb)",
        );
        check(NoExt4(""), 3, "disk.img:/file: this is no ext2, ext3 or ext4 image");
        let past = Place::Superblock.breaks(Rule::BlocksPastDevice);
        check(
            extant::Error::Corrupt(past),
            4,
            "disk.img:/file: corrupt file system: superblock: more blocks than the device has; the image is cut off: copy or unpack it again",
        );
        check(Usage("a\nb\x1B[1m".to_owned()), 2, "disk.img:/file: a?b?[1m");
        let checksum = Place::Superblock.breaks(Rule::Checksum);
        check(
            FormatError::Corrupt(checksum),
            4,
            "disk.img:/file: superblock: checksum does not match; let `e2fsck -f` repair it before it is changed",
        );
        let missing = std::io::Error::from_raw_os_error(2);
        check(missing, 1, "disk.img:/file: no such file or directory");
        let no_space = extant::Error::NoSpace { wanted: ClusterCount(1), free: ClusterCount::ZERO };
        check(
            no_space,
            1,
            "disk.img:/file: no space: none is free but what the file system keeps for itself, and 1 more block would be needed; remove something, or use a larger image",
        );
        let missing = std::io::Error::from_raw_os_error(2);
        let open = OpenError::System { path: "disk.img".into(), source: missing };
        check(open, 3, "disk.img:/file: cannot open disk.img: no such file or directory");
    }

    #[test]
    fn what_fails_is_told_and_the_worst_code_is_left() {
        let outcome = each([0, 3, 1], |code| match code {
            0 => Ok(()),
            3 => Err(OnlyReadable("quota".to_owned()).into()),
            _ => Err(extant::Error::NotFound.into()),
        });
        assert_eq!(outcome.map_err(|error| tell(&error)), Err(3));
        assert!(each([1, 2], |_| Ok(())).is_ok());
    }
}
