//! What a power cut takes: files that grow slowly, cut off at random moments, on the modelled disk.

use std::sync::Arc;
use std::time::Duration;

use extant::{Error, File, Filesystem};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;

use super::modelled::{formatted, mount};
use super::workload::{Mode, Random, Workload, Writer, missing, name};
use crate::Failure;
use crate::disk::DiskModel;
use crate::world::{HardDisk, World, WorldClock, WorldEntropy};

/// Who writes, and when the power fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setup {
    /// The disk.
    pub disk: DiskModel,
    /// When blocks get their place.
    pub mode: Mode,
    /// Files, each with a writer of its own, who writes 4 KiB at a time.
    pub writers: u32,
    /// How much each writes a second.
    pub bytes_per_second: u64,
    /// The power does not fail before.
    pub from: Duration,
    /// Or after.
    pub to: Duration,
    /// How often it fails; each time is a world of its own.
    pub cuts: u32,
    /// How often each writer calls `fsync`; never, if `None`.
    pub sync_every: Option<Duration>,
    /// Decides who writes when, and when the power fails.
    pub seed: u64,
}

/// What one power cut took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Loss {
    /// When it was, counted from the first write.
    pub at: Duration,
    /// Bytes for which `write()` had returned.
    pub written: u64,
    /// Of these, bytes that are not there after recovery.
    pub written_missing: u64,
    /// Bytes for which `fsync()` had returned.
    pub synced: u64,
    /// Of these, bytes that are not there after recovery.
    pub synced_missing: u64,
}

/// A writer, its file, and how far that is synced.
struct Hand {
    writer: Writer,
    file: File,
    synced: u64,
    next_sync: Duration,
}

impl Setup {
    /// Writes, cuts the power, recovers, and counts.
    ///
    /// # Errors
    /// Of the volume, before or after the cut.
    pub fn run(&self) -> Result<Vec<Loss>, Failure> {
        let world = World::new(&self.disk);
        let disk = Arc::new(HardDisk::with_platters(&world, formatted(&self.disk)?));
        let filesystem = mount(self.mode.options(), &world, &disk)?;
        let mut random = Random::new(self.seed);
        let mut hands = self.hands(&filesystem, &mut random)?;
        filesystem.sync_all()?;
        let start = world.now();
        let mut next_tick = start;
        let step = Duration::from_nanos(4096 * 1_000_000_000 / self.rate().max(1));
        let mut at = Duration::ZERO;
        let mut losses = Vec::new();
        for cut in self.moments(&mut random) {
            while at < cut {
                while next_tick <= start + at {
                    world.pass_until(next_tick);
                    next_tick += filesystem.tick()?.max(Duration::from_millis(1));
                }
                world.pass_until(start + at);
                let turn = random.below(u64_from(hands.len()));
                let hand = &mut hands[usize::try_from(turn).expect("below a count in memory")];
                hand.writer.write(&hand.file)?;
                if at >= hand.next_sync
                    && let Some(every) = self.sync_every
                {
                    hand.file.sync_all()?;
                    (hand.synced, hand.next_sync) = (hand.writer.written(), at + every);
                }
                at += step;
            }
            world.pass_until(start + cut);
            losses.push(self.recover(cut, disk.after_power_cut()?, &hands)?);
        }
        Ok(losses)
    }

    /// Bytes a second of all writers together.
    fn rate(&self) -> u64 {
        self.bytes_per_second * u64::from(self.writers)
    }

    fn hands(&self, filesystem: &Filesystem, random: &mut Random) -> Result<Vec<Hand>, Error> {
        let workload = Workload {
            writers: self.writers.max(1),
            total_bytes: 0,
            call_bytes: 4096,
            seed: self.seed,
        };
        let files = workload.create(filesystem)?;
        let hand = |(number, file)| {
            // Not all at the same time.
            let millis = self.sync_every.map_or(1, |every| every.as_millis().max(1));
            let first = random.below(u64::try_from(millis).unwrap_or(u64::MAX));
            let next_sync = Duration::from_millis(first);
            Hand { writer: workload.writer(number), file, synced: 0, next_sync }
        };
        Ok((0..).zip(files).map(hand).collect())
    }

    /// When the power fails, in order.
    fn moments(&self, random: &mut Random) -> Vec<Duration> {
        let window = self.to.saturating_sub(self.from).as_micros().max(1);
        let window = u64::try_from(window).unwrap_or(u64::MAX);
        let moment = |_| self.from + Duration::from_micros(random.below(window));
        let mut moments: Vec<Duration> = (0..self.cuts).map(moment).collect();
        moments.sort_unstable();
        moments
    }

    /// Mounts what is left, and compares it with what was acknowledged.
    fn recover(&self, at: Duration, left: MemoryDevice, hands: &[Hand]) -> Result<Loss, Failure> {
        let clock = Arc::new(WorldClock(World::new(&self.disk)));
        let entropy = Arc::new(WorldEntropy::default());
        let filesystem = self.mode.options().mount_with(Arc::new(left), clock, entropy)?;
        let mut loss = Loss { at, ..Loss::default() };
        for (number, hand) in (0..).zip(hands) {
            let (written, synced) = (hand.writer.written(), hand.synced);
            let file = filesystem.open(name(number))?;
            loss.written += written;
            loss.synced += synced;
            let (of_synced, of_rest) = (0..synced, synced..written);
            let synced_missing = missing_in(&file, number, of_synced)?;
            loss.synced_missing += synced_missing;
            loss.written_missing += synced_missing + missing_in(&file, number, of_rest)?;
        }
        Ok(loss)
    }
}

/// How many bytes of a part of a file are not what was written.
fn missing_in(file: &File, number: u32, part: std::ops::Range<u64>) -> Result<u64, Error> {
    let mut buffer = vec![0; 128 << 10];
    let mut gone = 0;
    let mut at = part.start;
    while at < part.end {
        let wanted = usize::try_from(part.end - at).map_or(buffer.len(), |n| n.min(buffer.len()));
        let len = file.read_at(&mut buffer[..wanted], at)?;
        if len == 0 {
            return Ok(gone + (part.end - at));
        }
        // A file that ends inside a block has lost the rest of it.
        let whole = len - len % 4096;
        gone += missing(number, at, &buffer[..whole]);
        if whole < len {
            return Ok(gone + (part.end - at - u64_from(whole)));
        }
        at += u64_from(len);
    }
    Ok(gone)
}
