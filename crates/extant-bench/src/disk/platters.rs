//! [`Platters`]: where bytes lie on the tracks, and how long it takes until they pass below a head.

use super::model::Mechanics;

/// Nanoseconds since the disk began to turn; the platters are at their zero then.
pub(super) type Nanos = u64;

/// The tracks, zone by zone.
#[derive(Debug)]
pub(super) struct Platters {
    turn: Nanos,
    /// The angle, as time, by which each track starts later than the one before: what going there takes.
    skew: Nanos,
    surfaces: u64,
    cylinders: u64,
    zones: Vec<Zone>,
    knee: Nanos,
    full_stroke: Nanos,
}

/// Neighbouring tracks with the same number of bytes.
#[derive(Debug)]
struct Zone {
    first_byte: u64,
    first_track: u64,
    track_bytes: u64,
}

/// A place on a track.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    track: u64,
    within: u64,
    track_bytes: u64,
}

/// How a transfer goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Access {
    /// When the first byte passes below the head.
    pub(super) start: Nanos,
    /// When the last one has.
    pub(super) end: Nanos,
    /// Where the arm is then.
    pub(super) track: u64,
}

impl Platters {
    pub(super) fn new(mechanics: &Mechanics) -> Self {
        let turn = 60_000_000_000 / u64::from(mechanics.turns_per_minute.max(1));
        let skew = nanos(mechanics.single_track);
        let zones = u64::from(mechanics.zones.max(2));
        let fall =
            mechanics.outer_bytes_per_second.saturating_sub(mechanics.inner_bytes_per_second);
        let track_bytes = |zone: u64| {
            let rate = mechanics.outer_bytes_per_second - fall * zone / (zones - 1);
            let bytes = u128::from(rate) * u128::from(turn + skew) / 1_000_000_000;
            u64::try_from(bytes).unwrap_or(u64::MAX) / SECTOR * SECTOR
        };
        let per_zone = mechanics.bytes / (0..zones).map(track_bytes).sum::<u64>().max(1) + 1;
        let mut first_byte = 0;
        let zone = |number| {
            let zone = Zone {
                first_byte,
                first_track: number * per_zone,
                track_bytes: track_bytes(number),
            };
            first_byte += per_zone * zone.track_bytes;
            zone
        };
        let zone_list = (0..zones).map(zone).collect();
        let (single, full, average) =
            (skew, nanos(mechanics.full_stroke), nanos(mechanics.average_seek));
        // The time at a third of the stroke for which the average over all pairs of tracks is the published one.
        let knee = average.saturating_sub(single / 5 + 4 * full / 27) * 135 / 88;
        let surfaces = u64::from(mechanics.surfaces.max(1));
        Self {
            turn,
            skew,
            surfaces,
            cylinders: (zones * per_zone).div_ceil(surfaces),
            zones: zone_list,
            knee,
            full_stroke: full,
        }
    }

    /// The track that a byte lies on.
    pub(super) fn track(&self, byte: u64) -> u64 {
        self.place(byte).track
    }

    /// A transfer of `len` bytes at `offset` by an arm that is free at `now` and stands at `track`.
    pub(super) fn access(&self, now: Nanos, track: u64, offset: u64, len: u64) -> Access {
        let (mut at, mut arm, mut offset, mut rest) = (now, track, offset, len);
        let mut start = None;
        loop {
            let place = self.place(offset);
            at += self.seek(arm, place.track);
            arm = place.track;
            let angle = (place.track * self.skew + self.passed(place, place.within)) % self.turn;
            at += (angle + self.turn - at % self.turn) % self.turn;
            start = start.or(Some(at));
            let piece = rest.min(place.track_bytes - place.within);
            at += self.passed(place, place.within + piece) - self.passed(place, place.within);
            offset += piece;
            rest -= piece;
            if rest == 0 {
                return Access { start: start.unwrap_or(at), end: at, track: arm };
            }
        }
    }

    /// How long the arm takes from one track to another: the square root of the distance up to a third of the stroke, then
    /// in proportion to it.
    ///
    /// Source: C. Ruemmler, J. Wilkes, "An introduction to disk drive modeling" (IEEE Computer 27, 1994), figure 3.
    pub(super) fn seek(&self, from: u64, to: u64) -> Nanos {
        let distance = (from / self.surfaces).abs_diff(to / self.surfaces);
        let third = (self.cylinders / 3).max(2);
        match distance {
            0 | 1 => {
                if from == to {
                    0
                } else {
                    self.skew
                }
            }
            near if near <= third => {
                let root = ((near - 1) * UNIT * UNIT / (third - 1)).isqrt();
                self.skew + (self.knee - self.skew) * root / UNIT
            }
            far => {
                let beyond = (far - third).min(self.cylinders - third);
                self.knee + (self.full_stroke - self.knee) * beyond / (self.cylinders - third)
            }
        }
    }

    /// Time between the passing of a track's start and that of its byte `within`.
    fn passed(&self, place: Place, within: u64) -> Nanos {
        within * self.turn / place.track_bytes
    }

    fn place(&self, byte: u64) -> Place {
        let after = self.zones.partition_point(|zone| zone.first_byte <= byte);
        let zone = &self.zones[after.saturating_sub(1)];
        let inside = byte - zone.first_byte;
        Place {
            track: zone.first_track + inside / zone.track_bytes,
            within: inside % zone.track_bytes,
            track_bytes: zone.track_bytes,
        }
    }
}

/// A duration in nanoseconds.
pub(super) fn nanos(duration: std::time::Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sectors of such disks have this many bytes.
const SECTOR: u64 = 4096;
/// One, in the fixed-point numbers of the seek curve.
const UNIT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskModel;

    fn platters() -> Platters {
        Platters::new(&DiskModel::DESKTOP.mechanics)
    }

    #[test]
    fn seeks_take_what_is_published() {
        let platters = platters();
        let tracks = platters.cylinders * platters.surfaces;
        assert_eq!(
            (platters.seek(5, 5), platters.seek(4, 5), platters.seek(5, 6)),
            (0, 800_000, 800_000)
        );
        assert_eq!(platters.seek(0, tracks - 1) / 100_000, 159);
        // All pairs of a thousand tracks.
        let step = tracks / 1000;
        let all = (0..1000).flat_map(|a| (0..1000).map(move |b| (a * step, b * step)));
        let average = all.map(|(a, b)| platters.seek(a, b)).sum::<u64>() / 1_000_000;
        assert!(average.abs_diff(8_500_000) < 50_000, "{average} ns");
        let further = (0..tracks).step_by(1000).map(|to| platters.seek(0, to));
        assert!(further.is_sorted(), "never faster by going further");
    }

    #[test]
    fn a_long_transfer_has_the_zones_rate() {
        let platters = platters();
        for (offset, rate) in [(0, 200), (999_000_000_000, 100)] {
            let len = 512_000_000;
            let first = platters.access(0, platters.track(offset), offset, 4096);
            let access = platters.access(first.end, first.track, offset + 4096, len);
            let megabytes_per_second = len * 1000 / (access.end - access.start);
            assert!(megabytes_per_second.abs_diff(rate) <= 1, "{megabytes_per_second} MB/s");
        }
    }

    #[test]
    fn what_follows_at_once_waits_for_no_turn() {
        let platters = platters();
        let mut last = platters.access(0, 0, 0, 4096);
        for block in 1..5000 {
            let next = platters.access(last.end, last.track, block * 4096, 4096);
            assert!(next.start - last.end <= 800_000, "block {block}");
            last = next;
        }
        // But 50 us later the place has passed.
        let late = platters.access(last.end + 50_000, last.track, 5000 * 4096, 4096);
        assert!(late.start - last.end > 8_000_000);
    }

    #[test]
    fn the_platters_hold_what_the_disk_holds() {
        let platters = platters();
        let end = platters.access(0, 0, DiskModel::DESKTOP.mechanics.bytes - 4096, 4096);
        assert!(end.track < platters.cylinders * platters.surfaces);
        assert!(platters.zones.is_sorted_by(|a, b| a.track_bytes > b.track_bytes));
    }
}
