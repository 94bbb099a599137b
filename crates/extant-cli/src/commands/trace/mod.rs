//! `extant trace`: replays a script of file operations and prints what the engine did, event by event.
//!
//! The image is not changed unless `--write` says so: the script runs on a view whose changes stay in memory.

mod counters;
mod explain;
mod print;
mod record;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use extant_device::{BlockDevice, OverlayDevice};
use extant_script::{Operation, Script, Target, Volume, mount_options};

use crate::failure::{self, OnlyReadable, Usage};
use crate::{host, values, volume};
use print::Trace;
use record::Recorder;

/// Replay a script of file operations on an image, and print what the engine does, as the kernel's tracepoints would
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct TraceArgs {
    /// File with one operation a line, or - for standard input
    script: PathBuf,
    /// The image; it stays as it is unless --write is given
    image: PathBuf,
    /// Change the image itself
    #[arg(long)]
    write: bool,
    /// How events are printed
    #[arg(long, value_enum, default_value = "ftrace")]
    format: Format,
    /// Say for each event why it happened, and which function of the kernel decides it
    #[arg(long)]
    explain: bool,
    /// At the end, print the counters that the kernel has in /sys/fs/ext4 and /proc/fs/ext4
    #[arg(long)]
    counters: bool,
    /// Mount options, as nodelalloc,data=writeback; they come after the script's own
    #[arg(short, long, default_value = "")]
    options: String,
}

/// The forms that a trace can be printed in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// Lines as in /sys/kernel/tracing/trace
    Ftrace,
    /// A JSON object a line
    Json,
    /// For ui.perfetto.dev and chrome://tracing
    Chrome,
}

const HELP: &str = "\
A script has one operation a line, for example:
  open a create
  write a 0 10M
  fsync a
  close a
docs/scripts.md lists all operations. Those before a line `trace` only prepare.
The clock stands still but for `tick`; it starts on 2023-11-14, or with --write now.
Operations that fail are part of the trace; the script goes on.";

pub fn run(args: &TraceArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = args.script.display().to_string();
    let script =
        Script::parse(&read_script(args)?).map_err(|error| Usage(format!("{name}, {error}")))?;
    let words = format!("{},{}", script.settings.mount, args.options);
    let options = mount_options(&words).map_err(|error| Usage(error.to_string()))?;
    let device: Arc<dyn BlockDevice> = match args.write {
        true => Arc::new(volume::open_device(&args.image)?),
        false => Arc::new(OverlayDevice::new(volume::open_to_read(&args.image)?)),
    };
    let recorder = Arc::new(Recorder::default());
    let mount = || {
        let options = options.clone().trace(Arc::<Recorder>::clone(&recorder));
        let options = options.host(host::host(&args.image));
        let mounted = match args.write {
            true => Volume::mount_at(Arc::clone(&device), options, values::now()),
            false => Volume::mount(Arc::clone(&device), options),
        };
        let volume = mounted.map_err(|error| volume::unusable(&args.image, error.into()))?;
        match volume.filesystem.read_only_because() {
            Some(features) => {
                Err(OnlyReadable(features.to_owned())).context(args.image.display().to_string())
            }
            None => Ok(volume),
        }
    };
    let mut volume = mount()?;
    for (place, step) in script.steps.iter().enumerate() {
        let traced = place >= script.settings.setup;
        if traced {
            recorder.begin_operation(&step.operation);
        }
        let done = if step.operation == Operation::Remount {
            volume.unmount().context("unmounting")?;
            volume = mount()?;
            Ok(extant_script::Answer::Done)
        } else {
            volume.apply(&step.operation)
        };
        match done {
            done if traced => recorder.end_operation(&done),
            Err(errno) => anyhow::bail!(
                "{name}, line {}: {}: {}",
                step.line,
                step.operation,
                record::error_text(errno)
            ),
            Ok(_) => {}
        }
    }
    let counters = args.counters.then(|| counters::named(&volume.filesystem.kernel_counters()));
    volume.unmount().context("unmounting")?;
    let trace = Trace {
        records: recorder.take(),
        explained: args.explain,
        counters: counters.unwrap_or_default(),
    };
    match args.format {
        Format::Ftrace => print::ftrace(&trace, out),
        Format::Json => print::json(&trace, out),
        Format::Chrome => print::chrome(&trace, out),
    }
}

fn read_script(args: &TraceArgs) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match args.script.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(&args.script).map(|read| text = read),
    };
    let read = read.with_context(|| args.script.display().to_string());
    // Without a script the command line makes no more sense than with a wrong one.
    read.map_err(|error| Usage(failure::line(&error)))?;
    Ok(text)
}
