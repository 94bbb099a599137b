//! Mount options in the kernel's words.

use std::time::Duration;

use extant::{DataMode, MountOptions};

/// A word that is no mount option of the engine's, or has a value that makes no sense; with what would.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{word}: {why}")]
pub struct WrongOption {
    /// The word.
    pub word: String,
    /// One line.
    pub why: &'static str,
}

/// The engine's options for the kernel's words, with commas between.
///
/// # Errors
/// The first word that the engine does not know.
pub fn mount_options(words: &str) -> Result<MountOptions, WrongOption> {
    let mut options = MountOptions::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        options = match word {
            "delalloc" => options.delayed_allocation(true),
            "nodelalloc" => options.delayed_allocation(false),
            "dioread_lock" => options.unwritten_until_done(false),
            "dioread_nolock" => options.unwritten_until_done(true),
            "auto_da_alloc" => options.auto_da_alloc(true),
            "noauto_da_alloc" => options.auto_da_alloc(false),
            "barrier" | "barrier=1" => options.barriers(true),
            "nobarrier" | "barrier=0" => options.barriers(false),
            "dirsync" => options.synchronous_names(true),
            "discard" => options.discard(true),
            "nodiscard" => options.discard(false),
            "data=journal" => options.data_mode(DataMode::Journal),
            "data=ordered" => options.data_mode(DataMode::Ordered),
            "data=writeback" => options.data_mode(DataMode::Writeback),
            "noatime" | "no_prefetch_block_bitmaps" | "defaults" => options,
            _ => with_number(options, word)
                .map_err(|why| WrongOption { word: word.to_owned(), why })?,
        };
    }
    Ok(options)
}

/// An option with a number behind its name; those of dirty data are the kernel's under `/proc/sys/vm`, for this mount's cache.
fn with_number(options: MountOptions, word: &str) -> Result<MountOptions, &'static str> {
    let (name, number) = word.split_once('=').unwrap_or((word, ""));
    let (range, why) = match name {
        "commit" => (0..=MOST_SECONDS, "seconds, 0 to 2147483"),
        "dirty_background_ratio" => (0..=100, "a percentage, 0 to 100"),
        // With none at all nobody could write.
        "dirty_ratio" => (1..=100, "a percentage, 1 to 100"),
        "dirty_expire_centisecs" | "dirty_writeback_centisecs" => {
            (0..=MOST_CENTISECONDS, "hundredths of a second, 0 to 2147483647")
        }
        "data" => return Err("data=journal, data=ordered or data=writeback"),
        "barrier" => return Err("barrier=0 or barrier=1"),
        _ => return Err("no such mount option"),
    };
    let number: u64 = number.parse().map_err(|_| why)?;
    if !range.contains(&number) {
        return Err(why);
    }
    let percent = u8::try_from(number).unwrap_or(100);
    let time = Duration::from_millis(number * 10);
    Ok(match name {
        // As in the kernel, zero is the default.
        "commit" if number == 0 => options,
        "commit" => options.commit_interval(Duration::from_secs(number)),
        "dirty_background_ratio" => options.dirty_background_ratio(percent),
        "dirty_ratio" => options.dirty_ratio(percent),
        "dirty_expire_centisecs" => options.dirty_expire(time),
        _ => options.dirty_writeback(time),
    })
}

/// As in the kernel, which counts them in ticks.
const MOST_SECONDS: u64 = 2_147_483;
const MOST_CENTISECONDS: u64 = 2_147_483_647;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_options_or_refused() {
        assert!(
            mount_options("").is_ok()
                && mount_options("nodelalloc,commit=60,data=writeback").is_ok()
        );
        assert!(
            mount_options("dirty_background_ratio=5,dirty_ratio=100,dirty_expire_centisecs=300")
                .is_ok()
        );
        for wrong in [
            "commit=x",
            "commit",
            "commit=2147484",
            "dirty_ratio=0",
            "dirty_ratio=101",
            "dirty_expire_centisecs=-1",
            "data=all",
            "x=1",
        ] {
            let error = mount_options(wrong).unwrap_err();
            assert_eq!(error.word, wrong);
        }
        let error = mount_options("dirty_ratio=0").unwrap_err();
        assert_eq!(error.to_string(), "dirty_ratio=0: a percentage, 1 to 100");
    }
}
