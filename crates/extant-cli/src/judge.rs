//! What `e2fsck -fn` says of an image, where it is installed.

use std::path::Path;
use std::process::{Command, Stdio};

/// A judgement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Clean,
    NotClean(String),
    NotAsked,
}

impl Verdict {
    /// In a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::NotClean(_) => "NOT CLEAN",
            Self::NotAsked => "not installed",
        }
    }

    /// An error if the image is not clean.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Clean | Self::NotAsked => Ok(()),
            Self::NotClean(words) => {
                Err(anyhow::anyhow!("e2fsck found the image not clean: {words}"))
            }
        }
    }
}

/// Asks.
pub fn judge(image: &Path) -> Verdict {
    let found = ["e2fsck", "/usr/sbin/e2fsck", "/sbin/e2fsck"].into_iter().find_map(|program| {
        Command::new(program).arg("-fn").arg(image).stdin(Stdio::null()).output().ok()
    });
    match found {
        None => Verdict::NotAsked,
        Some(output) if output.status.success() => Verdict::Clean,
        Some(output) => {
            let words = String::from_utf8_lossy(&output.stdout);
            Verdict::NotClean(words.trim().replace('\n', " | "))
        }
    }
}
