//! The reading matrix: images of every kind, filled by the kernel or by mke2fs, read through the library.

use std::fs;
use std::path::Path;

use extant::MountOptions;
use extant_device::FileDevice;
use extant_lab::recipes::{self, Filled, MANY, RECIPES, Recipe, for_each, some};
use extant_lab::script::Xattrs;
use extant_lab::volume;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::tree::{self, Tree};

#[test]
fn images_filled_by_the_kernel_are_read() {
    let recipes: Vec<_> = RECIPES.into_iter().filter(|recipe| recipe.kernel).collect();
    for_each(&recipes, |recipe, scratch| {
        let Some((image, expected)) = filled(recipe, scratch, |_, _| Ok(()))? else {
            return Ok(());
        };
        let found = read(&image)?;
        none(&tree::differences(&expected, &found, |_, _| false))
    });
}

/// A journal that has to be recovered is read through, not replayed.
#[test]
fn a_dirty_image_is_read_as_it_was_synced_and_not_written() {
    let recipes: Vec<_> = RECIPES.into_iter().filter(|recipe| recipe.kernel).collect();
    for_each(&recipes, |recipe, scratch| {
        let copy = scratch.path("copy");
        let dirty = |image: &Path, _: &Tree| {
            recipes::copy(image, &copy);
            Ok(())
        };
        let Some((_, expected)) = filled(recipe, scratch, dirty)? else { return Ok(()) };
        let before = fs::read(&copy).map_err(|error| error.to_string())?;
        let found = read(&copy)?;
        let after = fs::read(&copy).map_err(|error| error.to_string())?;
        if before != after {
            return Err("the image was written".to_owned());
        }
        none(&tree::differences(&expected, &found, |_, _| false))
    });
}

/// What mke2fs fills needs neither a mount nor root; and it makes what the kernel here cannot mount.
#[test]
fn images_filled_by_mke2fs_are_read() {
    // With inline data, mke2fs 1.47 cuts sparse files short and leaves some without their attribute.
    let recipes: Vec<_> =
        RECIPES.into_iter().filter(|recipe| !recipe.name.starts_with("inline")).collect();
    for_each(&recipes, |recipe, scratch| {
        let (source, image) = (scratch.path("source"), scratch.path("image"));
        fs::create_dir(&source).map_err(|error| error.to_string())?;
        let script = recipe.contents(300, Xattrs::User).into_iter();
        let script: Vec<_> =
            script.filter(|operation| recipes::is_root() || !operation.needs_root()).collect();
        recipes::fill(&source, recipe, &script)?;
        let expected = tree::read(&source).map_err(|error| error.to_string())?;
        if recipe.make(&image, Some(&source)).is_none() {
            return Ok(());
        }
        let found = read(&image)?;
        if recipe.kernel
            && let Some(mount) = KernelMount::new(&image, &scratch.path("mount"), "ro")
        {
            let seen = tree::read(mount.root()).map_err(|error| error.to_string())?;
            return none(&tree::differences(&seen, &found, |_, _| false));
        }
        none(&tree::differences(&expected, &found, lost_by_mke2fs))
    });
}

/// What `mke2fs -d` does not copy: the root's own attributes, times but for 32 bits of seconds, zeros as they are stored,
/// second names of links.
fn lost_by_mke2fs(path: &Path, field: &str) -> bool {
    let is_link = path.starts_with("links") && matches!(field, "links" | "same_as");
    let fields = ["changed", "accessed", "modified", "data", "sparse"];
    path == Path::new("")
        || path == Path::new("holes/huge")
        || path.starts_with("lost+found")
        || is_link
        || fields.contains(&field)
}

/// An image that the kernel has filled, and what it saw there; `also` looks at both while the image is still mounted.
fn filled(
    recipe: &Recipe,
    scratch: &Scratch,
    also: impl FnOnce(&Path, &Tree) -> Result<(), String>,
) -> Result<Option<(std::path::PathBuf, Tree)>, String> {
    let image = scratch.path("image");
    if recipe.make(&image, None).is_none() {
        return Ok(None);
    }
    let script = recipe.contents(MANY, Xattrs::All);
    let Some(filled) = Filled::new(scratch, &image, recipe, &script) else { return Ok(None) };
    let mount = filled?.mount;
    unwritten(mount.root());
    // Only what is on the device tells written from unwritten.
    rustix::fs::syncfs(fs::File::open(mount.root()).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let tree = tree::read(mount.root()).map_err(|error| error.to_string())?;
    also(&image, &tree)?;
    mount.unmount().map_err(|error| error.to_string())?;
    oracle::e2fsck(&image)?;
    Ok(Some((image, tree)))
}

/// Space that was allocated ahead, as far as the image can hold such.
fn unwritten(root: &Path) {
    use rustix::fs::{FallocateFlags, fallocate};
    let path = root.join("holes/unwritten");
    let file = fs::File::create(path).expect("the mount can be written");
    let _ = fallocate(&file, FallocateFlags::empty(), 0, 300_000);
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 9000], 100_000).expect("there is room");
    let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 300_000, 300_000);
}

fn read(image: &Path) -> Result<Tree, String> {
    let device = FileDevice::open_read_only(image).map_err(|error| error.to_string())?;
    let filesystem = MountOptions::read_only().mount(device).map_err(|error| error.to_string())?;
    let tree = volume::tree(&filesystem)?;
    filesystem.unmount().map_err(|error| error.to_string())?;
    Ok(tree)
}

fn none(differences: &[String]) -> Result<(), String> {
    if differences.is_empty() { Ok(()) } else { Err(some(differences)) }
}
