//! From an error to one line and an exit code.

use std::error::Error as StdError;
use std::process::ExitCode;

use extant_device::OpenError;
use extant_format::{Corruption, FormatError, Place, Rule};

/// What the exit codes mean; part of `extant --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something could not be done; the line on standard error says what
  2  the command line makes no sense
  3  the image cannot be used: in use by somebody else, no ext4, or a feature is missing here
  4  the image is damaged";

/// Some files of many could not be handled; each had its line already.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of the files could not be copied")]
pub struct Incomplete {
    /// How many.
    pub failed: u64,
}

/// The command line makes no sense, for a reason that the grammar cannot know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The image can be read but not changed: these features, as mke2fs names them, would not be kept right.
#[derive(Debug, thiserror::Error)]
#[error("can only be read: it uses {0}, which this version does not write")]
pub struct OnlyReadable(pub String);

/// The exit code that `error` stands for.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let code = error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            return Some(2);
        }
        if cause.is::<OpenError>() || cause.is::<OnlyReadable>() {
            return Some(3);
        }
        if is_unsupported(cause) {
            return Some(3);
        }
        corruption(cause).map(|corruption| if is_no_ext4(corruption) { 3 } else { 4 })
    });
    ExitCode::from(code.unwrap_or(1))
}

/// What is wrong, where, and what to do: one line.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let next = without_number(&cause.to_string().replace('\n', " "));
        // Some errors show their cause themselves.
        if !text.ends_with(&next) {
            text = if text.is_empty() { next } else { format!("{text}: {next}") };
        }
    }
    match advice(error) {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    }
}

/// The text of a system's error without the number that the standard library adds.
fn without_number(text: &str) -> String {
    text.split(" (os error ").next().unwrap_or(text).to_owned()
}

fn is_unsupported(cause: &(dyn StdError + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(extant::Error::Unsupported(_)))
        || matches!(cause.downcast_ref(), Some(FormatError::Unsupported(_)))
}

fn corruption<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Corruption> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(extant::Error::Corrupt(corruption)), _)
        | (_, Some(FormatError::Corrupt(corruption))) => Some(corruption),
        _ => cause.downcast_ref(),
    }
}

fn is_no_ext4(corruption: &Corruption) -> bool {
    matches!((corruption.place, corruption.rule), (Place::Superblock, Rule::Magic))
}

fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(corruption) = corruption(cause) {
            return Some(match is_no_ext4(corruption) {
                true => "this is no ext2, ext3 or ext4 image",
                false => "let `e2fsck -f` repair it before it is changed",
            });
        }
        match cause.downcast_ref::<extant::Error>()? {
            extant::Error::NoSpace { .. } => Some("remove something, or use a larger image"),
            extant::Error::NoInodes => {
                Some("remove some files, or use an image with more inodes (`mkfs -i`)")
            }
            extant::Error::Aborted { .. } => {
                Some("nothing was changed after that; run the command again")
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

    use super::*;

    fn check(error: impl Into<anyhow::Error>, code: u8, text: &str) {
        let error = Err::<(), _>(error.into()).context("disk.img:/file").unwrap_err();
        assert_eq!(exit_code(&error), ExitCode::from(code));
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
        let magic = Place::Superblock.breaks(Rule::Magic);
        check(
            extant::Error::Corrupt(magic),
            3,
            "disk.img:/file: corrupt file system: superblock: wrong magic number; this is no ext2, ext3 or ext4 image",
        );
        let checksum = Place::Superblock.breaks(Rule::Checksum);
        check(
            FormatError::Corrupt(checksum),
            4,
            "disk.img:/file: superblock: checksum does not match; let `e2fsck -f` repair it before it is changed",
        );
        let missing = std::io::Error::from_raw_os_error(2);
        check(missing, 1, "disk.img:/file: No such file or directory");
    }
}
