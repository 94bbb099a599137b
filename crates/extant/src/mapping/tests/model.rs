//! Random sequences against a map of blocks.

use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

use extant_format::extent::ExtentState;
use extant_format::inode::InodeFlags;
use extant_format::{ClusterCount, LogicalBlock};

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
        Self { volume, file, model: vec![Kind::Hole; BLOCKS as usize] }
    }

    fn apply(&mut self, operation: Operation, start: u32, len: u32) {
        use Operation::*;
        let len = len.min(BLOCKS - start);
        let extents = self.file.flags().contains(InodeFlags::EXTENTS);
        let whole = range(start, len);
        let slots = start as usize..(start + len) as usize;
        match operation {
            Delay => {
                let mut rest = Some(whole);
                while let Some(range) = rest {
                    let done = self
                        .volume
                        .mapper
                        .delay(&self.file, range, Privilege::Ordinary)
                        .unwrap()
                        .blocks;
                    rest = behind(range, done);
                }
                self.model[slots]
                    .iter_mut()
                    .filter(|kind| **kind == Kind::Hole)
                    .for_each(|kind| *kind = Kind::Delayed);
            }
            Write => {
                self.volume.map(&self.file, whole, MapFlags::CREATE).unwrap();
                self.model[slots].fill(Kind::Written);
                self.absorb_zeroed();
            }
            Preallocate if extents => {
                self.volume.map(&self.file, whole, MapFlags::CREATE | MapFlags::UNWRITTEN).unwrap();
                for kind in &mut self.model[slots] {
                    if *kind != Kind::Written {
                        *kind = Kind::Unwritten;
                    }
                }
            }
            Writeback if extents => {
                self.volume.map(&self.file, whole, MapFlags::WRITEBACK).unwrap();
                for kind in &mut self.model[slots] {
                    if *kind != Kind::Written {
                        *kind = Kind::Unwritten;
                    }
                }
            }
            Convert
                if extents
                    && self.model[slots.clone()]
                        .iter()
                        .all(|kind| matches!(kind, Kind::Unwritten | Kind::Written)) =>
            {
                self.volume.mapper.convert(&mut self.volume.begin(), &self.file, whole).unwrap();
                self.model[slots].fill(Kind::Written);
            }
            Unwrite
                if extents
                    && self.model[slots.clone()].iter().all(|kind| *kind == Kind::Written) =>
            {
                self.volume
                    .map(&self.file, whole, MapFlags::CREATE | MapFlags::CONVERT_UNWRITTEN)
                    .unwrap();
                self.model[slots].fill(Kind::Unwritten);
            }
            Remove => {
                self.volume.mapper.remove(&mut self.volume.begin(), &self.file, whole).unwrap();
                self.model[slots].fill(Kind::Hole);
            }
            Truncate => {
                let all =
                    extant_format::LogicalRange::from_block_on(LogicalBlock::new(start).unwrap());
                self.volume.mapper.remove(&mut self.volume.begin(), &self.file, all).unwrap();
                self.model[start as usize..].fill(Kind::Hole);
            }
            Forget => Volume::forget_cached(&self.file),
            Refuse => {
                // Whatever is asked for, a refusal changes nothing but states that zeros can stand for.
                let claim = self.volume.refuse();
                let _ = self.volume.map(&self.file, whole, MapFlags::WRITEBACK);
                drop(claim);
                let states = self.volume.states(&self.file, range(0, BLOCKS));
                let shares_clusters = self.volume.transactions.geometry().cluster_bits > 0;
                for (known, state) in self.model.iter_mut().zip(states) {
                    use Kind::*;
                    let now = kind(state);
                    let allowed = match (*known, now) {
                        // Zeros stand in for a split; the promise pays; a cluster is there already.
                        (Unwritten, Written) | (Delayed, Unwritten | Written) => true,
                        (Hole, Unwritten) => shares_clusters,
                        (known, now) => known == now,
                    };
                    assert!(allowed, "{known:?} became {now:?}");
                    *known = now;
                }
            }
            _ => {}
        }
    }

    /// Conversion may zero what is unwritten beside it and make it written.
    fn absorb_zeroed(&mut self) {
        let states = self.volume.states(&self.file, range(0, BLOCKS));
        for (known, state) in self.model.iter_mut().zip(states) {
            if *known == Kind::Unwritten && kind(state) == Kind::Written {
                *known = Kind::Written;
            }
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
            let mut on_disk = vec![None; BLOCKS as usize];
            for extent in volume.extents(file) {
                for i in 0..extent.blocks.len() {
                    let block = extent.blocks.start().checked_add(i).unwrap();
                    let place = extent.map(block).unwrap();
                    assert_eq!(u64::from(block.get()) % ratio, place.get() % ratio);
                    on_disk[block.get() as usize] = Some(match extent.state {
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
        let used = volume.allocator.used.lock().len() as u64 - 64;
        assert_eq!(
            file.core.lock().blocks,
            used << (volume.transactions.geometry().block_bits - 9)
        );
        // Promises.
        let pending = file.reservations.lock().pending.iter().count() as u64;
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
