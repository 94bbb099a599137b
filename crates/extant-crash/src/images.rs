//! [`CrashImages`]: the images that a crash could have left, from a recorded log.
//!
//! The log is cut into windows, each from one flush to the next. A crash in a window keeps all that the flush covered and
//! any part of what came after: all subsets while few writes are loose, else seeded samples; then every loose write once
//! torn between sectors. A write with FUA splits its window: before it is done it is as loose as the others, and once it
//! is done it is in every image.

use std::fmt;

use extant_device::{BlockDevice, MemoryDevice};

use crate::random::Random;
use crate::recording::{Event, Kept, Log};

/// Which crash images to build.
#[derive(Clone, Copy, Debug)]
pub struct CrashOptions {
    /// Decides samples and tears.
    pub seed: u64,
    /// The first position at which a crash is tried, say that after the mount.
    pub from: usize,
    /// Up to how many loose writes all subsets are tried; at most 16.
    pub all_subsets_up_to: usize,
    /// How many subsets are tried where more are loose.
    pub samples: usize,
    /// How many images with a torn write are tried at each point.
    pub tears: usize,
}

impl Default for CrashOptions {
    fn default() -> Self {
        Self { seed: 0, from: 0, all_subsets_up_to: 8, samples: 64, tears: 16 }
    }
}

/// An image that a crash could have left.
#[derive(Debug)]
pub struct CrashImage {
    /// The device after the power came back.
    pub image: MemoryDevice,
    /// Its place in the iteration, by which it can be built again.
    pub number: usize,
    /// How many events of the log were done: what was acknowledged at this [position](crate::RecordingDevice::position)
    /// or earlier must be in the image.
    pub completed: usize,
    /// What was kept of each loose event, by its place in the log.
    pub kept: Vec<(usize, Kept)>,
}

impl fmt::Display for CrashImage {
    /// One line that tells the images of a log apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crash image {} after {} events, of the loose ones",
            self.number, self.completed
        )?;
        for (event, kept) in &self.kept {
            match kept {
                Kept::Nothing => write!(f, " -{event}")?,
                Kept::Whole => write!(f, " +{event}")?,
                Kept::Prefix { sectors } => write!(f, " {event}[..{sectors}]")?,
                Kept::Scattered { seed } => write!(f, " {event}[seed {seed}]")?,
            }
        }
        Ok(())
    }
}

/// Iterates over crash images, in the order of the log.
#[derive(Debug)]
pub struct CrashImages<'a> {
    log: &'a Log,
    options: CrashOptions,
    random: Random,
    points: std::vec::IntoIter<Point>,
    applied: usize,        // so many events are in `durable`
    durable: MemoryDevice, // what the current point's flush covered
    current: Option<Point>,
    choices: std::vec::IntoIter<Vec<Kept>>,
    number: usize,
}

/// A moment of a crash.
#[derive(Clone, Debug)]
struct Point {
    start: usize,     // the events before this are durable
    completed: usize, // the events before this were done
    end: usize,       // the events before this were at least begun
    loose: Vec<usize>,
}

impl<'a> CrashImages<'a> {
    /// The crash images of `log`.
    pub fn new(log: &'a Log, options: CrashOptions) -> Self {
        let points: Vec<_> = points(log.events())
            .into_iter()
            .filter(|point| point.completed >= options.from)
            .collect();
        Self {
            log,
            options,
            random: Random::new(options.seed),
            points: points.into_iter(),
            applied: 0,
            durable: log.base().snapshot(),
            current: None,
            choices: Vec::new().into_iter(),
            number: 0,
        }
    }

    fn enter(&mut self, point: Point) {
        for event in &self.log.events()[self.applied..point.start] {
            self.log.apply(&self.durable, event, Kept::Whole);
        }
        self.applied = point.start;
        self.choices = self.choices_at(&point).into_iter();
        self.current = Some(point);
    }

    /// What is kept of the loose events, one entry for each image of this point.
    fn choices_at(&mut self, point: &Point) -> Vec<Vec<Kept>> {
        let loose = point.loose.len();
        let whole = |kept: bool| if kept { Kept::Whole } else { Kept::Nothing };
        let mut choices: Vec<Vec<Kept>> = if loose <= self.options.all_subsets_up_to.min(16) {
            (0..1_u32 << loose)
                .map(|subset| (0..loose).map(|n| whole(subset >> n & 1 == 1)).collect())
                .collect()
        } else {
            let ends = [vec![Kept::Nothing; loose], vec![Kept::Whole; loose]];
            let sampled = self.options.samples.saturating_sub(ends.len());
            let samples =
                (0..sampled).map(|n| self.sample(n, loose).into_iter().map(whole).collect());
            ends.into_iter().chain(samples).collect()
        };
        let sector: u64 = self.durable.geometry().sector_bytes.into();
        let sectors_of = |event: usize| self.log.events()[event].len() / sector;
        let mut tearable: Vec<usize> =
            (0..loose).filter(|n| sectors_of(point.loose[*n]) > 1).collect();
        for round in 0..self.options.tears.min(2 * tearable.len()) {
            // Each is torn once before any is torn twice; which come first is left to the seed.
            let first = round % tearable.len();
            let pick = first + usize_below(&mut self.random, tearable.len() - first);
            tearable.swap(first, pick);
            let torn = tearable[first];
            let mut choice: Vec<Kept> = (0..loose).map(|_| whole(self.random.coin())).collect();
            choice[torn] = match self.random.coin() {
                true => Kept::Prefix {
                    sectors: 1 + self.random.below(sectors_of(point.loose[torn]) - 1),
                },
                false => Kept::Scattered { seed: self.random.next_u64() },
            };
            choices.push(choice);
        }
        choices
    }

    /// A subset of `loose` events: in turn a random one, a prefix, all but one, and one alone.
    fn sample(&mut self, turn: usize, loose: usize) -> Vec<bool> {
        let pick = usize_below(&mut self.random, loose);
        match turn % 4 {
            0 => (0..loose).map(|_| self.random.coin()).collect(),
            1 => (0..loose).map(|n| n < pick).collect(),
            2 => (0..loose).map(|n| n != pick).collect(),
            _ => (0..loose).map(|n| n == pick).collect(),
        }
    }

    fn build(&mut self, point: &Point, choice: Vec<Kept>) -> CrashImage {
        let image = self.durable.snapshot();
        let mut kept = point.loose.iter().copied().zip(choice).peekable();
        let mut kept_list = Vec::new();
        for (number, event) in (point.start..).zip(&self.log.events()[point.start..point.end]) {
            let decided = kept.next_if(|(loose, _)| *loose == number);
            kept_list.extend(decided);
            self.log.apply(&image, event, decided.map_or(Kept::Whole, |(_, kept)| kept));
        }
        let number = self.number;
        self.number += 1;
        CrashImage { image, number, completed: point.completed, kept: kept_list }
    }
}

impl Iterator for CrashImages<'_> {
    type Item = CrashImage;

    fn next(&mut self) -> Option<CrashImage> {
        loop {
            match (self.choices.next(), self.current.clone()) {
                (Some(choice), Some(point)) => return Some(self.build(&point, choice)),
                _ => {
                    let point = self.points.next()?;
                    self.enter(point);
                }
            }
        }
    }
}

/// Every moment at which a crash leaves images that no other moment covers.
fn points(events: &[Event]) -> Vec<Point> {
    let flushes =
        events.iter().enumerate().filter(|(_, event)| event.is_flush()).map(|(number, _)| number);
    let starts = std::iter::once(0).chain(flushes.clone().map(|flush| flush + 1));
    let ends = flushes.chain([events.len()]);
    let mut points = Vec::new();
    for (start, end) in starts.zip(ends) {
        // While a batch with FUA runs, its writes are loose too.
        let mut at = start;
        for batch in events[start..end].chunk_by(|a, b| a.batch == b.batch) {
            if batch.iter().any(Event::is_fua) {
                points.push(point(events, start, at, at + batch.len()));
            }
            at += batch.len();
        }
        points.push(point(events, start, end, end));
        // While a flush runs, what shares its batch may land before what it covers.
        let beside_flush =
            events[end..].chunk_by(|a, b| a.batch == b.batch).next().map_or(0, <[Event]>::len);
        if beside_flush > 1 {
            points.push(point(events, start, end, end + beside_flush));
        }
    }
    points
}

fn point(events: &[Event], start: usize, completed: usize, end: usize) -> Point {
    let is_loose = |number: &usize| match &events[*number] {
        event if event.is_flush() => false,
        event => *number >= completed || !event.is_fua(),
    };
    Point { start, completed, end, loose: (start..end).filter(is_loose).collect() }
}

fn usize_below(random: &mut Random, limit: usize) -> usize {
    let limit = u64::try_from(limit).expect("a count of things in memory");
    crate::slices::index(random.below(limit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use extant_device::{BlockDeviceExt, Frame, Request};

    use super::*;
    use crate::recording::RecordingDevice;

    fn write(sector: u64, byte: u8) -> Request {
        Request::write_frame(sector * 512, Frame::copy_from(&[byte; 512]))
    }

    fn write_fua(sector: u64, byte: u8) -> Request {
        Request::write_fua(sector * 512, vec![Frame::copy_from(&[byte; 512]).into()])
    }

    fn record(batches: Vec<Vec<Request>>) -> Log {
        let device = RecordingDevice::from_image(&MemoryDevice::new(64 << 10));
        batches.into_iter().for_each(|mut batch| device.run_all(&mut batch).unwrap());
        device.log()
    }

    /// The first bytes of the first three sectors in each image, with what was completed.
    fn outcomes(log: &Log) -> BTreeSet<(usize, [u8; 3])> {
        let first_bytes = |image: &MemoryDevice| [0, 512, 1024].map(|at| image.to_vec()[at]);
        CrashImages::new(log, CrashOptions::default())
            .map(|crash| (crash.completed, first_bytes(&crash.image)))
            .collect()
    }

    #[test]
    fn few_loose_writes_give_all_subsets_and_a_flush_ends_them() {
        let log =
            record(vec![vec![write(0, 1), write(1, 2)], vec![Request::flush()], vec![write(2, 3)]]);
        let expected = [
            (2, [0, 0, 0]),
            (2, [1, 0, 0]),
            (2, [0, 2, 0]),
            (2, [1, 2, 0]),
            (4, [1, 2, 0]),
            (4, [1, 2, 3]),
        ];
        assert_eq!(outcomes(&log), expected.into());
    }

    #[test]
    fn a_later_write_wins_where_both_are_kept() {
        let log = record(vec![vec![write(0, 1)], vec![write(0, 2)]]);
        assert_eq!(outcomes(&log), [(2, [0, 0, 0]), (2, [1, 0, 0]), (2, [2, 0, 0])].into());
    }

    #[test]
    fn a_fua_write_is_loose_until_it_is_done_and_then_in_every_image() {
        let log = record(vec![vec![write(0, 1)], vec![write_fua(1, 2)], vec![write(2, 3)]]);
        let expected = [
            (1, [0, 0, 0]),
            (1, [1, 0, 0]),
            (1, [0, 2, 0]),
            (1, [1, 2, 0]),
            (3, [0, 2, 0]),
            (3, [1, 2, 0]),
            (3, [0, 2, 3]),
            (3, [1, 2, 3]),
        ];
        assert_eq!(outcomes(&log), expected.into());
    }

    #[test]
    fn what_shares_a_batch_with_a_flush_may_land_before_what_it_covers() {
        let log = record(vec![vec![write(0, 1)], vec![Request::flush(), write_fua(1, 2)]]);
        assert!(outcomes(&log).contains(&(1, [0, 2, 0])));
        assert!(
            outcomes(&log).iter().all(|(completed, bytes)| *completed < 3 || *bytes == [1, 2, 0])
        );
    }

    #[test]
    fn many_loose_writes_give_samples_that_the_seed_repeats() {
        let log = record(vec![(0..100).map(|n| write(n, 1)).collect()]);
        let build = |seed| {
            let options = CrashOptions { seed, ..CrashOptions::default() };
            CrashImages::new(&log, options).map(|crash| crash.to_string()).collect::<Vec<_>>()
        };
        let lines = build(1);
        assert_eq!((lines.len(), &lines), (64, &build(1)));
        assert_ne!(lines, build(2));
        let distinct: BTreeSet<_> =
            lines.iter().map(|line| line.split_once("loose").unwrap().1).collect();
        assert!(distinct.len() > 48, "{}", distinct.len());
    }

    #[test]
    fn every_loose_write_of_several_sectors_is_torn() {
        let wide = |at: u64, byte| Request::write_frame(at, Frame::copy_from(&[byte; 2048]));
        let log = record(vec![(0..8).map(|n| wide(n * 2048, 1)).collect()]);
        let mut torn = BTreeSet::new();
        for crash in CrashImages::new(&log, CrashOptions::default()) {
            let bytes = crash.image.to_vec();
            for (number, write) in bytes.chunks(2048).enumerate().take(8) {
                let sectors: BTreeSet<_> = write.chunks(512).map(<[u8]>::to_vec).collect();
                assert!(
                    sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])),
                    "inside a sector"
                );
                if sectors.len() > 1 {
                    torn.insert(number);
                }
            }
        }
        assert_eq!(torn, (0..8).collect());
    }

    #[test]
    fn crashes_before_the_start_are_left_out() {
        let log = record(vec![vec![write(0, 1)], vec![Request::flush()], vec![write(1, 2)]]);
        let options = CrashOptions { from: 2, ..CrashOptions::default() };
        assert!(
            CrashImages::new(&log, options)
                .all(|crash| crash.completed >= 2 && crash.image.to_vec()[0] == 1)
        );
    }
}
