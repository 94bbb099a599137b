//! The writing matrix: images of every kind, written through the library, checked by e2fsck and read by the kernel.

use std::fs;
use std::path::Path;

use extant::MountOptions;
use extant_device::FileDevice;
use extant_lab::recipes::{Filled, MANY, RECIPES, Recipe, for_each, some};
use extant_lab::script::{Operation, Target, Xattrs};
use extant_lab::volume::{self, Volume};
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::tree::{self, Tree};

#[test]
fn what_the_library_writes_is_clean_and_the_kernel_reads_it() {
    let recipes: Vec<_> =
        RECIPES.into_iter().filter(|recipe| recipe.kernel && recipe.read_only.is_none()).collect();
    for_each(&recipes, |recipe, scratch| written(recipe, scratch, MountOptions::new()));
}

#[test]
fn other_ways_to_allocate_write_the_same() {
    let few: Vec<_> = RECIPES
        .into_iter()
        .filter(|recipe| ["ext4-1k", "ext3-1k"].contains(&recipe.name))
        .collect();
    for_each(&few, |recipe, scratch| {
        written(recipe, scratch, MountOptions::new().delayed_allocation(false))
    });
    for_each(&few, |recipe, scratch| {
        written(recipe, scratch, MountOptions::new().unwritten_until_done(false))
    });
    for_each(&few, |recipe, scratch| {
        written(recipe, scratch, MountOptions::new().cache_bytes(1 << 20))
    });
}

/// The kernel here cannot mount these: e2fsck and debugfs judge alone.
#[test]
fn what_the_library_writes_to_large_blocks_is_read_by_debugfs() {
    let recipes: Vec<_> =
        RECIPES.into_iter().filter(|recipe| !recipe.kernel && recipe.read_only.is_none()).collect();
    for_each(&recipes, |recipe, scratch| {
        let image = scratch.path("image");
        if recipe.make(&image, None).is_none() {
            return Ok(());
        }
        let found = write(recipe, &image, MountOptions::new())?;
        oracle::e2fsck(&image)?;
        let dump = scratch.path("dump");
        fs::create_dir(&dump).map_err(|error| error.to_string())?;
        let command = format!("rdump / {}", dump.to_str().expect("a scratch path is text"));
        if oracle::debugfs(&image, &command).is_none() {
            return Ok(());
        }
        // debugfs sets no more than permissions, and leaves out what is no file, directory or link.
        let dumped = tree::read(&dump).map_err(|error| error.to_string())?;
        let plain = |mode: u32| matches!(mode & 0xF000, 0x8000 | 0x4000 | 0xA000);
        let mut found: Tree = found.into_iter().filter(|(_, entry)| plain(entry.mode)).collect();
        found.values_mut().for_each(|entry| entry.mode &= !0o7000);
        let compared = ["mode", "size", "sum", "missing"];
        let differences = tree::differences(&found, &dumped, |path, field| {
            path == Path::new("") || path == Path::new("holes/huge") || !compared.contains(&field)
        });
        none(&differences)
    });
}

/// While a feature cannot be kept right, the image opens read-only and says which.
#[test]
fn an_image_with_a_feature_that_cannot_be_kept_right_opens_read_only() {
    for recipe in RECIPES {
        let Some(feature) = recipe.read_only else { continue };
        let scratch = Scratch::new(recipe.name);
        let image = scratch.path("image");
        let Some(()) = recipe.make(&image, None) else { return };
        let device = FileDevice::open(&image).unwrap();
        let filesystem = MountOptions::new().mount(device).unwrap();
        let reason = filesystem.read_only_because().unwrap_or_default();
        assert!(reason.contains(feature), "{}: {reason}", recipe.name);
        assert_eq!(filesystem.create("a").unwrap_err().errno(), extant::Errno::ROFS);
        filesystem.unmount().unwrap();
        oracle::e2fsck(&image).unwrap();
    }
}

/// Writes by the library and compares with the kernel's view of it, and with what the kernel itself makes of the script.
fn written(recipe: &Recipe, scratch: &Scratch, options: MountOptions) -> Result<(), String> {
    let (image, twin) = (scratch.path("image"), scratch.path("twin"));
    if recipe.make(&image, None).is_none() || recipe.make(&twin, None).is_none() {
        return Ok(());
    }
    let found = write(recipe, &image, options)?;
    oracle::e2fsck(&image)?;
    let Some(mount) = KernelMount::new(&image, &scratch.path("mount"), "ro,noatime") else {
        return Ok(());
    };
    let seen = tree::read(mount.root()).map_err(|error| error.to_string())?;
    mount.unmount().map_err(|error| error.to_string())?;
    none(&tree::differences(&found, &seen, |_, _| false))
        .map_err(|reason| format!("the kernel sees {reason}"))?;

    let script = recipe.contents(MANY, Xattrs::All);
    let Some(filled) = Filled::new(scratch, &twin, recipe, &script) else { return Ok(()) };
    let expected = tree::read(filled?.mount.root()).map_err(|error| error.to_string())?;
    // Times are compared where the script sets them.
    let ignore = |path: &Path, field: &str| {
        let set =
            expected.get(path.as_os_str()).is_some_and(|entry| entry.accessed.0 == 1_650_000_000);
        field == "changed" || matches!(field, "accessed" | "modified") && !set
    };
    none(&tree::differences(&expected, &seen, ignore))
        .map_err(|reason| format!("the kernel would have written {reason}"))
}

/// Runs the recipe's script through the library; what it then sees, after another mount.
fn write(recipe: &Recipe, image: &Path, options: MountOptions) -> Result<Tree, String> {
    let open = || FileDevice::open(image).map_err(|error| error.to_string());
    let mut volume = Volume::mount(std::sync::Arc::new(open()?), options)
        .map_err(|error| format!("mount: {error}"))?;
    for operation in recipe.contents(MANY, Xattrs::All) {
        match volume.try_apply(&operation) {
            Err(error) if !recipe.may_refuse(&operation) => {
                return Err(format!("{operation:?}: {error}"));
            }
            _ => {}
        }
    }
    volume.apply(&Operation::Sync).map_err(|errno| format!("sync: {errno}"))?;
    volume.unmount().map_err(|error| format!("unmount: {error}"))?;
    let device = FileDevice::open_read_only(image).map_err(|error| error.to_string())?;
    let filesystem = MountOptions::read_only().mount(device).map_err(|error| error.to_string())?;
    let tree = volume::tree(&filesystem)?;
    filesystem.unmount().map_err(|error| error.to_string())?;
    Ok(tree)
}

fn none(differences: &[String]) -> Result<(), String> {
    if differences.is_empty() { Ok(()) } else { Err(some(differences)) }
}
