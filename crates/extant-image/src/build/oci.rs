//! An OCI image layout as a source: from its index to the layers of one image.
//!
//! Source: OCI image specification, "OCI Image Layout", "Image Index", "Image Manifest".

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::BuildError;

/// Whether a directory is a layout.
pub(super) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// The layers of the image in a layout, the lowest first. Of several images it is the one for this machine.
pub(super) fn layers(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let wrong = |problem: &str| BuildError::Layout {
        source_name: path.display().to_string(),
        problem: problem.to_owned(),
    };
    let mut document = json(path, &path.join("index.json"))?;
    for _ in 0..MOST_STEPS {
        if let Some(layers) = document["layers"].as_array() {
            let blobs = layers.iter().map(|layer| blob(path, layer));
            return blobs.collect::<Option<_>>().ok_or_else(|| wrong("a layer has no digest"));
        }
        let manifests = document["manifests"].as_array().ok_or_else(|| wrong("has no manifest"))?;
        let chosen = match &manifests[..] {
            [only] => Some(only),
            several => several.iter().find(|manifest| is_for_this_machine(manifest)),
        };
        let chosen = chosen.ok_or_else(|| wrong("has no image for this machine"))?;
        let next = blob(path, chosen).ok_or_else(|| wrong("a manifest has no digest"))?;
        document = json(path, &next)?;
    }
    Err(wrong("has indexes that lead in a circle"))
}

fn is_for_this_machine(manifest: &Value) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = &manifest["platform"];
    platform["os"] == "linux" && platform["architecture"] == architecture
}

/// The file of what a descriptor describes.
fn blob(layout: &Path, descriptor: &Value) -> Option<PathBuf> {
    let (algorithm, digest) = descriptor["digest"].as_str()?.split_once(':')?;
    // It becomes a path, and must not lead anywhere else.
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_sound = is_word(algorithm) && is_word(digest);
    is_sound.then(|| layout.join("blobs").join(algorithm).join(digest))
}

fn json(layout: &Path, path: &Path) -> Result<Value, BuildError> {
    let failed = |problem: String| BuildError::Layout {
        source_name: layout.display().to_string(),
        problem: format!("{}: {problem}", path.display()),
    };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let document = serde_json::from_reader(std::io::BufReader::new(file.take(MOST_JSON_BYTES)));
    document.map_err(|error| failed(error.to_string()))
}

/// An index may lead to an index.
const MOST_STEPS: u32 = 8;
const MOST_JSON_BYTES: u64 = 4 << 20;
