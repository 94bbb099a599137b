//! `extant cp`: trees into images, out of images, and between them.
//!
//! A [`plan`] says what goes where. The sources ([`walk`]: `local_node`, `image_node`) run in a thread of their own and send a
//! [`stream`] of items, a bounded distance ahead of the target, so that one processor reads while the other writes. [`take`]
//! decides for each item what becomes of it, by the rules of cp(1), and a [`target`] (`local_target`, `image_target`) does it.
//!
//! All sources of one call are one stream: names of one file stay so across them, and copies of two sources that meet are
//! found. What is remembered for that is bounded by the files that have names outside of what is copied ([`links`]).
//! Nothing is made durable file by file: an image is, at its unmount.

mod arguments;
mod image_node;
mod image_target;
mod links;
mod local_node;
mod local_target;
mod plan;
mod settings;
mod sparse;
mod stream;
mod take;
mod target;
mod walk;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use extant::Filesystem;
use serde_json::json;

use crate::address::{Address, ImagePath};
use crate::failure::{Told, Usage};
use crate::interrupt::Interrupted;
use crate::output::print_json;
use crate::progress::{Progress, Words};
use crate::volume::{self, Readings};
pub use arguments::{CpArgs, umask};
use image_node::ImageNode;
use image_target::ImageTarget;
use local_node::LocalNode;
use local_target::LocalTarget;
use plan::{Naming, Plan};
pub use settings::is_access_list;
use settings::{Follow, Keep, Policy, Replace, Settings, Sparse};
use stream::{FileId, Place, Sink, Stopped, stream};
pub use take::concerns_all;
use take::{Outcome, Taking, take_all};
use target::Target;
use walk::{Avoid, Source, Walker};

pub fn run(args: &CpArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let progress = Progress::new(None, args.words());
    let target = args.target_directory.as_ref().or(args.paths.last());
    let target = target.context("nothing to copy")?;
    let copied = match target {
        Address::Image(inside) => volume::change(&inside.image, |filesystem| {
            let plan = Plan::new(args, |_| plan::look_in_image(filesystem, inside))?;
            let policy = args.policy(settings.keep, Follow::Always);
            fill_image(plan, &settings, policy, filesystem, &progress)
        }),
        Address::Local(path) => fill_directory(args, path, &settings, &progress),
    };
    let outcome = copied.inspect_err(|_| progress.clear())?;
    progress.finish();
    if args.json {
        let (files, directories) = (progress.files(), progress.directories());
        let (bytes, failed) = (progress.bytes(), progress.failures());
        let done =
            json!({ "files": files, "directories": directories, "bytes": bytes, "failed": failed });
        print_json(out, &done)?;
    }
    match (outcome, progress.worst_code()) {
        (Outcome::Interrupted, _) => {
            let done = progress.summary();
            Err(Interrupted(format!("; {done} are copied and kept, `cp -u` goes on")).into())
        }
        (Outcome::Done, 0) => Ok(()),
        (Outcome::Done, code) => Err(Told(code).into()),
    }
}

/// Copies a file of an image, or everything below a directory of it, into a directory of this machine that is there, with all
/// attributes: what `cp -a` does.
pub fn fill_directory_from(from: &ImagePath, directory: &Path) -> anyhow::Result<()> {
    let mut below = from.clone();
    below.path.extend_from_slice(b"/.");
    let is_dir = volume::read(&from.image, |filesystem| {
        Ok(filesystem.inode(&from.path).with_context(|| from.to_string())?.is_dir())
    })?;
    let source = Address::Image(if is_dir { below } else { from.clone() });
    let plan = Plan {
        sources: vec![source],
        directory: Address::Local(directory.to_owned()),
        naming: Naming::AsSources,
    };
    let avoid = local_id(&from.image).into_iter().collect();
    let target = LocalTarget::new(directory, whole_policy(), avoid);
    let mut target = target.with_context(|| directory.display().to_string())?;
    let progress = Progress::new(None, Words::Usual);
    let outcome = pump(plan, &WHOLE, whole_policy(), None, &mut target, &progress);
    let outcome = outcome.inspect_err(|_| progress.clear())?;
    progress.finish();
    match outcome {
        Outcome::Interrupted => Err(Interrupted(String::new()).into()),
        Outcome::Done if progress.failures() > 0 => Err(Told(progress.worst_code()).into()),
        Outcome::Done => Ok(()),
    }
}

/// Everything below a directory, with all attributes.
const WHOLE: Settings = Settings {
    recursive: true,
    follow: Follow::Never,
    keep: Keep::ALL,
    usual_mode: false,
    sparse: Sparse::Auto,
    one_file_system: false,
};

fn whole_policy() -> Policy {
    Policy {
        replace: Replace::Always,
        remove_first: false,
        force: false,
        keep_links: true,
        through: Follow::Never,
        umask: umask(),
        keep_mode: true,
        keep_times: true,
    }
}

fn fill_image(
    plan: Plan,
    settings: &Settings,
    policy: Policy,
    filesystem: &Filesystem,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let Address::Image(directory) = &plan.directory else {
        anyhow::bail!("{} is in no image", plan.directory);
    };
    let target = ImageTarget::new(filesystem, &directory.path, policy);
    let mut target = target.with_context(|| directory.to_string())?;
    let to = Written { image: directory.image.clone(), filesystem: filesystem.clone() };
    pump(plan, settings, policy, Some(to), &mut target, progress)
}

fn fill_directory(
    args: &CpArgs,
    path: &Path,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let plan = Plan::new(args, |_| plan::look_locally(path))?;
    let mut avoid = Vec::new();
    for source in &plan.sources {
        let Address::Image(from) = source else {
            let problem =
                format!("neither {source} nor {} is inside an image; use cp(1)", path.display());
            return Err(Usage(problem).into());
        };
        if let Some(id) = local_id(&from.image) {
            if local_id(path) == Some(id) {
                let problem =
                    format!("{} is the image itself; write {0}:/ for its root", path.display());
                return Err(Usage(problem).into());
            }
            avoid.push(id);
        }
    }
    let through = match plan.naming {
        Naming::Exactly { .. } => Follow::Named,
        _ => Follow::Never,
    };
    let policy = args.policy(settings.keep, through);
    let Address::Local(directory) = &plan.directory else {
        anyhow::bail!("{} is not on this machine", plan.directory);
    };
    let target = LocalTarget::new(directory, policy, avoid);
    let mut target = target.with_context(|| directory.display().to_string())?;
    raise_limit_of_open_files();
    pump(plan, settings, policy, None, &mut target, progress)
}

/// The image that is written, where sources may be too.
struct Written {
    image: PathBuf,
    filesystem: Filesystem,
}

/// Walks all sources in a thread of their own, and gives what comes to the target.
fn pump(
    plan: Plan,
    settings: &Settings,
    policy: Policy,
    written: Option<Written>,
    target: &mut dyn Target,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    raise_limit_of_open_files();
    let several = plan.sources.len() > 1;
    let only_directory =
        matches!(plan.naming, Naming::Exactly { only_directory, .. } if only_directory);
    let to = plan.directory.to_string();
    let mut taking = Taking::new(target, to, policy, progress)
        .of_several(several)
        .only_directory(only_directory);
    let (mut sink, mut items) = stream();
    let settings = *settings;
    let walk = std::thread::spawn(move || {
        // A walk that was stopped has nothing to say: the target stopped it and tells why.
        let _ = walk_all(&plan, &settings, written.as_ref(), &mut sink);
    });
    let taken = take_all(&mut items, &mut taking);
    drop(items);
    // A source that waits for somebody would not end; the process does.
    if !matches!(taken, Ok(Outcome::Interrupted)) {
        walk.join().map_err(|_| anyhow::anyhow!("the thread that reads has failed"))?;
    }
    taken
}

fn walk_all(
    plan: &Plan,
    settings: &Settings,
    written: Option<&Written>,
    sink: &mut Sink,
) -> Result<(), Stopped> {
    let mut walker = Walker::new(settings, sink, plan.sources.len() > 1);
    let mut readings = Readings::default();
    for source in &plan.sources {
        match source {
            Address::Local(path) => match local_source(plan, source, path, settings, written) {
                Ok(source) => walker.walk(source)?,
                Err(error) => walker.fail(error)?,
            },
            Address::Image(from) => {
                match image_source(plan, source, from, settings, written, &mut readings) {
                    Ok(source) => walker.walk(source)?,
                    Err(error) => walker.fail(error)?,
                }
            }
        }
    }
    walker.finish()
}

fn local_source(
    plan: &Plan,
    source: &Address,
    path: &Path,
    settings: &Settings,
    written: Option<&Written>,
) -> anyhow::Result<Source<LocalNode>> {
    let label = source.to_string();
    let node = LocalNode::named(path, settings.follow != Follow::Never).context(label.clone())?;
    let mut parents = Vec::new();
    for (name, at) in plan.parents_of(source)? {
        if let Address::Local(path) = &at {
            parents.push((name, LocalNode::named(path, true).with_context(|| at.to_string())?));
        }
    }
    let image = written.and_then(|written| local_id(&written.image));
    let avoid = Avoid { files: image.into_iter().collect(), name: None };
    Ok(Source { node, label, name: plan.name_of(source), parents, avoid, watch: None })
}

fn image_source(
    plan: &Plan,
    source: &Address,
    from: &ImagePath,
    settings: &Settings,
    written: Option<&Written>,
    readings: &mut Readings,
) -> anyhow::Result<Source<ImageNode>> {
    let label = source.to_string();
    let written = written.filter(|written| {
        local_id(&from.image).is_some() && local_id(&from.image) == local_id(&written.image)
    });
    let (filesystem, place, watch) = match written {
        Some(written) => (written.filesystem.clone(), Place::Target, None),
        None => {
            let (place, reading) = readings.open(&from.image)?;
            (reading.filesystem().clone(), Place::Image(place), Some(reading.watch()))
        }
    };
    let node = |path: &[u8], follow| ImageNode::named(&filesystem, path, place, follow);
    let follow = settings.follow != Follow::Never;
    let mut parents = Vec::new();
    for (name, at) in plan.parents_of(source)? {
        if let Address::Image(inside) = &at {
            parents.push((name, node(&inside.path, true).with_context(|| at.to_string())?));
        }
    }
    let name = plan.name_of(source);
    let mut avoid = Avoid::default();
    if let (Some(written), Address::Image(directory)) = (written, &plan.directory) {
        let mut directory = directory.path.clone();
        for (name, _) in &parents {
            directory.push(b'/');
            directory.extend_from_slice(name);
        }
        // With --parents it may not be there yet, and then nothing that is read is in it.
        if let Ok(handle) = written.filesystem.inode(&directory) {
            let id = image_node::id(&handle, place);
            match name.is_empty() {
                true => avoid.files.push(id),
                false => avoid.name = Some((id, name.clone())),
            }
        }
    }
    let node = node(&from.path, follow).context(label.clone())?;
    Ok(Source { node, label, name, parents, avoid, watch })
}

/// Which file of this machine a path leads to.
fn local_id(path: &Path) -> Option<FileId> {
    let found = std::fs::metadata(path).ok()?;
    // A device is itself, whatever node leads to it; it has no inode that a source could have.
    Some(FileId { place: Place::Device(found.dev()), inode: found.ino() })
}

/// Each directory on the way down is open.
fn raise_limit_of_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Trees as deep as that are rare.
    let _ = setrlimit(Resource::Nofile, limit);
}
