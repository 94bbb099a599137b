//! Mount options in the kernel's words.

use std::time::Duration;

use extant::{DataMode, MountOptions};

/// A word that is no mount option of the engine's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is no mount option of the engine's, or has a value that makes no sense")]
pub struct UnknownOption(pub String);

/// The engine's options for the kernel's words, with commas between.
///
/// # Errors
/// The first word that the engine does not know.
pub fn mount_options(words: &str) -> Result<MountOptions, UnknownOption> {
    let mut options = MountOptions::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        options = match word {
            "delalloc" => options.delayed_allocation(true),
            "nodelalloc" => options.delayed_allocation(false),
            "dioread_lock" => options.unwritten_until_done(false),
            "dioread_nolock" => options.unwritten_until_done(true),
            "auto_da_alloc" => options.auto_da_alloc(true),
            "noauto_da_alloc" => options.auto_da_alloc(false),
            "barrier" => options.barriers(true),
            "nobarrier" => options.barriers(false),
            "discard" => options.discard(true),
            "nodiscard" => options.discard(false),
            "data=journal" => options.data_mode(DataMode::Journal),
            "data=ordered" => options.data_mode(DataMode::Ordered),
            "data=writeback" => options.data_mode(DataMode::Writeback),
            "noatime" | "no_prefetch_block_bitmaps" | "defaults" => options,
            _ => with_number(options, word).ok_or_else(|| UnknownOption(word.to_owned()))?,
        };
    }
    Ok(options)
}

/// An option with a number behind its name; those of dirty data are the kernel's under `/proc/sys/vm`, for this mount's cache.
fn with_number(options: MountOptions, word: &str) -> Option<MountOptions> {
    let (name, number) = word.split_once('=')?;
    let number: u64 = number.parse().ok()?;
    let time = || Some(Duration::from_millis(number.checked_mul(10)?));
    Some(match name {
        // As in the kernel, zero is the default.
        "commit" if number == 0 => options,
        "commit" => options.commit_interval(Duration::from_secs(number)),
        "dirty_background_ratio" => options.dirty_background_ratio(percent(number)?),
        "dirty_ratio" => options.dirty_ratio(percent(number)?),
        "dirty_expire_centisecs" => options.dirty_expire(time()?),
        "dirty_writeback_centisecs" => options.dirty_writeback(time()?),
        _ => return None,
    })
}

fn percent(number: u64) -> Option<u8> {
    u8::try_from(number).ok().filter(|percent| *percent <= 100)
}

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
        for wrong in ["commit=x", "commit", "dirty_ratio=101", "dirty_expire_centisecs=-1", "x=1"] {
            assert_eq!(mount_options(wrong).unwrap_err(), UnknownOption(wrong.to_owned()));
        }
    }
}
