//! Random sequences against a map of blocks.

use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;

use extant_format::cast::{u64_from, usize_from};
use extant_format::extent::ExtentState;
use extant_format::inode::InodeFlags;
use extant_format::{ClusterCount, LogicalRange};

use super::volume::{Shape, Volume, behind, range};
use crate::delayed::Privilege;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;

/// What the model keeps of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Hole,
    Delayed,
    Unwritten,
    Written,
}

fn kind(state: BlockState) -> Kind {
    match state {
        BlockState::Hole => Kind::Hole,
        BlockState::Delayed => Kind::Delayed,
        BlockState::Unwritten(_) => Kind::Unwritten,
        BlockState::Written(_) => Kind::Written,
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Delay,
    Write,
    Preallocate,
    Writeback,
    Convert,
    Unwrite,
    Remove,
    Truncate,
    Forget,
    Refuse,
}

struct Checked {
    volume: Volume,
    file: Arc<Inode>,
    model: Vec<Kind>,
}

const BLOCKS: u32 = 400;

impl Checked {
    fn new(shape: Shape, flags: InodeFlags) -> Self {
        let volume = Volume::new(shape);
        let file = volume.file(flags);
        // Zeros may save splits only inside the file.
        file.core.lock().size = u64::from(BLOCKS / 2) << shape.block_bits;
        Self { volume, file, model: vec![Kind::Hole; usize_from(BLOCKS)] }
    }

    fn apply(&mut self, operation: Operation, start: u32, len: u32) {
        use Operation::*;
        let (volume, file) = (&self.volume, Arc::clone(&self.file));
        let whole = range(start, len.min(BLOCKS - start));
        let slots = usize_from(start)..usize_from(whole.end());
        let before = &self.model[slots.clone()];
        let has_unwritten = file.flags().contains(InodeFlags::EXTENTS);
        match operation {
            Delay => {
                let mut rest = Some(whole);
                while let Some(range) = rest {
                    let done = volume.mapper.delay(&file, range, Privilege::Ordinary).unwrap();
                    rest = behind(range, done.blocks);
                }
                self.change(slots, |kind| if kind == Kind::Hole { Kind::Delayed } else { kind });
            }
            Write => {
                volume.map(&file, whole, MapFlags::CREATE).unwrap();
                self.change(slots, |_| Kind::Written);
                self.allow(|before, now| (before, now) == (Kind::Unwritten, Kind::Written));
            }
            Preallocate | Writeback if has_unwritten => {
                let flags = MapFlags::CREATE | MapFlags::UNWRITTEN;
                let flags =
                    if matches!(operation, Writeback) { MapFlags::WRITEBACK } else { flags };
                volume.map(&file, whole, flags).unwrap();
                self.change(
                    slots,
                    |kind| if kind == Kind::Written { kind } else { Kind::Unwritten },
                );
            }
            Convert
                if before.iter().all(|kind| matches!(kind, Kind::Unwritten | Kind::Written)) =>
            {
                volume.mapper.convert(&mut volume.begin(), &file, whole).unwrap();
                self.change(slots, |_| Kind::Written);
            }
            Unwrite if has_unwritten && before.iter().all(|kind| *kind == Kind::Written) => {
                volume.map(&file, whole, MapFlags::CREATE | MapFlags::CONVERT_UNWRITTEN).unwrap();
                self.change(slots, |_| Kind::Unwritten);
            }
            Remove => {
                volume.mapper.remove(&mut volume.begin(), &file, whole).unwrap();
                self.change(slots, |_| Kind::Hole);
            }
            Truncate => {
                let rest = LogicalRange::from_block_on(whole.start());
                volume.mapper.remove(&mut volume.begin(), &file, rest).unwrap();
                self.change(slots.start..usize_from(BLOCKS), |_| Kind::Hole);
            }
            Forget => Volume::forget_cached(&file),
            Refuse => {
                let claim = volume.refuse();
                let _ = volume.map(&file, whole, MapFlags::WRITEBACK);
                drop(claim);
                let shares_clusters = volume.transactions.geometry().cluster_bits > 0;
                self.allow(|before, now| match (before, now) {
                    // Zeros stand in for a split; the promise pays; a cluster is there already.
                    (Kind::Unwritten, Kind::Written)
                    | (Kind::Delayed, Kind::Unwritten | Kind::Written) => true,
                    (Kind::Hole, Kind::Unwritten) => shares_clusters,
                    _ => false,
                });
            }
            Preallocate | Writeback | Convert | Unwrite => {}
        }
    }

    fn change(&mut self, slots: Range<usize>, change: impl Fn(Kind) -> Kind) {
        self.model[slots].iter_mut().for_each(|kind| *kind = change(*kind));
    }

    /// Takes over what the volume says, where it is as before or changed as `allows` says.
    fn allow(&mut self, allows: impl Fn(Kind, Kind) -> bool) {
        let states = self.volume.states(&self.file, range(0, BLOCKS));
        for (known, now) in self.model.iter_mut().zip(states.into_iter().map(kind)) {
            assert!(*known == now || allows(*known, now), "{known:?} became {now:?}");
            *known = now;
        }
    }

    fn check(&self) {
        let (volume, file) = (&self.volume, &self.file);
        let states = volume.states(file, range(0, BLOCKS));
        let kinds: Vec<_> = states.iter().copied().map(kind).collect();
        assert_eq!(kinds, self.model);
        file.status.lock().check_invariants();
        let ratio = u64::from(volume.transactions.geometry().cluster_ratio());
        // Disk and memory agree.
        if file.flags().contains(InodeFlags::EXTENTS) {
            let mut on_disk = vec![None; usize_from(BLOCKS)];
            for extent in volume.extents(file) {
                for block in
                    (0..extent.blocks.len()).filter_map(|i| extent.blocks.start().checked_add(i))
                {
                    let place = extent.map(block).unwrap();
                    assert_eq!(u64::from(block.get()) % ratio, place.get() % ratio);
                    on_disk[usize_from(block.get())] = Some(match extent.state {
                        ExtentState::Written => BlockState::Written(place),
                        ExtentState::Unwritten => BlockState::Unwritten(place),
                    });
                }
            }
            for (state, disk) in states.iter().zip(on_disk) {
                assert_eq!(Some(*state).filter(|state| state.is_mapped()), disk);
            }
        }
        // Every cluster in use is counted once, and no place is given twice.
        let mut places: Vec<u64> =
            states.iter().filter_map(|state| Some(state.place()?.get())).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0] < two[1]), "one place, two blocks");
        let sectors = volume.used_blocks() << (volume.transactions.geometry().block_bits - 9);
        assert_eq!(file.core.lock().blocks, sectors);
        // Promises.
        let pending = u64_from(file.reservations.lock().pending.iter().count());
        let delayed = file.status.lock().recount_delayed(volume.mapper.ratio()).1;
        let promise = file.reservations.lock().promise();
        assert_eq!(promise.clusters, delayed.checked_sub(ClusterCount(pending)).unwrap());
        assert_eq!(volume.ledger.counts().promised, promise.clusters.get());
        assert_eq!(volume.ledger.counts().metadata, promise.metadata.get());
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        3 => Just(Delay),
        3 => Just(Write),
        2 => Just(Preallocate),
        3 => Just(Writeback),
        2 => Just(Convert),
        1 => Just(Unwrite),
        3 => Just(Remove),
        1 => Just(Truncate),
        1 => Just(Forget),
        1 => Just(Refuse),
    ]
}

fn check(shape: Shape, flags: InodeFlags, steps: &[(Operation, u32, u32)]) {
    let mut checked = Checked::new(shape, flags);
    for &(operation, start, len) in steps {
        checked.apply(operation, start, len);
        checked.check();
    }
    checked.apply(Operation::Truncate, 0, 1);
    checked.check();
    assert_eq!(checked.volume.used_blocks(), 0, "everything was freed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn extents_agree_with_a_map_of_blocks(steps in vec((operation(), 0..BLOCKS, 1..24_u32), 1..80)) {
        check(Shape::SMALL, InodeFlags::EXTENTS, &steps);
    }

    #[test]
    fn clusters_agree_with_a_map_of_blocks(steps in vec((operation(), 0..BLOCKS, 1..24_u32), 1..80)) {
        check(Shape::BIGALLOC, InodeFlags::EXTENTS, &steps);
    }

    #[test]
    fn indirect_blocks_agree_with_a_map_of_blocks(steps in vec((operation(), 0..BLOCKS, 1..24_u32), 1..80)) {
        check(Shape::SMALL, InodeFlags::empty(), &steps);
    }
}
