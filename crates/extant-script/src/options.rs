//! Mount options in the kernel's words.

use std::time::Duration;

use extant::{DataMode, MountOptions};

/// A word that is no mount option of the engine's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the engine has no mount option {0}")]
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
            _ => match word.strip_prefix("commit=").and_then(|seconds| seconds.parse().ok()) {
                Some(seconds) => options.commit_interval(Duration::from_secs(seconds)),
                None => return Err(UnknownOption(word.to_owned())),
            },
        };
    }
    Ok(options)
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
        assert_eq!(mount_options("commit=x").unwrap_err(), UnknownOption("commit=x".to_owned()));
    }
}
