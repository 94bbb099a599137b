//! [`DiskModel`]: the figures of a hard disk and of the queue in front of it.

use std::time::Duration;

/// Where the heads are and how fast the platters pass below them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mechanics {
    /// What the disk holds; its first byte is on the outermost track.
    pub bytes: u64,
    /// Turns a minute.
    pub turns_per_minute: u32,
    /// Surfaces, each with a head; consecutive tracks are on one after the other.
    pub surfaces: u32,
    /// Bands of tracks that hold the same number of bytes each.
    pub zones: u32,
    /// Bytes a second of a long transfer in the outermost zone, changes of track included.
    pub outer_bytes_per_second: u64,
    /// The same in the innermost.
    pub inner_bytes_per_second: u64,
    /// To the next track, or to another head.
    pub single_track: Duration,
    /// The average over all pairs of tracks.
    pub average_seek: Duration,
    /// From the outermost track to the innermost.
    pub full_stroke: Duration,
}

/// Who orders what waits for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Elevator {
    /// Nobody: first come, first served (the kernel's `none`).
    None,
    /// The kernel's `mq-deadline`: neighbours become one request, and requests go in the order of their places.
    Deadline,
}

impl Elevator {
    /// As the kernel calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Deadline => "mq-deadline",
        }
    }
}

/// A hard disk, and the queue in front of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskModel {
    /// Platters and arm.
    pub mechanics: Mechanics,
    /// Memory for writes that count as done before they are; 0 if the write cache is off.
    pub write_cache_bytes: u64,
    /// How far the disk goes on reading while nobody asks for anything else.
    pub lookahead_bytes: u64,
    /// What a command costs the link and the electronics, whatever its length.
    pub command: Duration,
    /// The link's rate.
    pub link_bytes_per_second: u64,
    /// Commands that the disk takes at once (NCQ), and may reorder.
    pub queue_depth: u32,
    /// Who orders what waits.
    pub elevator: Elevator,
    /// Requests that are known to elevator and disk at most; who has more waits (`nr_requests`).
    pub requests: u32,
    /// The longest request (`max_sectors_kb`).
    pub request_bytes: u64,
}

impl DiskModel {
    /// A desktop disk of 7,200 turns a minute and 1 TB with one platter, as Linux drives it.
    ///
    /// # Source
    /// Seagate BarraCuda ST1000DM003 and ST1000DM010 (data sheets): 1 TB on one platter, 7,200 turns a minute, 64 MB of cache,
    /// 210 MB/s at the outer edge, 156 MB/s on average, average seek 8.5 ms for reading. Hitachi Deskstar 7K1000.C
    /// (specification, 4.5.2): average seek 8.5 ms for reading, "the weighted average of all possible seeks"; 0.8 ms to
    /// the next track in that class. Half of the outer rate at the inner edge is what drives of this size measure; the full
    /// stroke is seldom published, 16 ms is usual. A turn takes 8.33 ms, so half a turn, the average wait, 4.17 ms.
    /// A command's 40 us: such disks read 4 KiB pieces in sequence at about 100 MB/s. SATA at 6 Gbit/s carries 550 MB/s.
    /// Of the cache, a quarter is taken to be for writes, since firmware keeps the rest for reading: nobody publishes that.
    /// Linux: NCQ depth 32, `nr_requests` 64 with it (`blk_mq_init_sched`), `max_sectors_kb` 1,280, `mq-deadline` for disks
    /// with one queue, FUA not used on SATA (`libata.fua=0`).
    pub const DESKTOP: Self = Self {
        mechanics: Mechanics {
            bytes: 1_000_204_886_016,
            turns_per_minute: 7200,
            surfaces: 2,
            zones: 16,
            outer_bytes_per_second: 200_000_000,
            inner_bytes_per_second: 100_000_000,
            single_track: Duration::from_micros(800),
            average_seek: Duration::from_micros(8500),
            full_stroke: Duration::from_millis(16),
        },
        write_cache_bytes: 16 << 20,
        lookahead_bytes: 2 << 20,
        command: Duration::from_micros(40),
        link_bytes_per_second: 550_000_000,
        queue_depth: 32,
        elevator: Elevator::Deadline,
        requests: 64,
        request_bytes: 1280 << 10,
    };
}
