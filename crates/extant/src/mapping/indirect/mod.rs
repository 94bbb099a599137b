//! Maps of indirect blocks, as ext2 and ext3 have them: twelve pointers in the inode, then trees of pointers one, two and
//! three levels deep. A pointer of zero is a hole; there is no unwritten state.
//!
//! # Invariants
//! A path has at most four pointers, however broken the map is. Every pointer that is followed or handed out lies inside the
//! file system and not in its metadata. Blocks are taken before the map is touched: an error leaves it as it was.
//! # Locking
//! Callers hold `Inode::map`: for reading to look up, for writing to change.
//! # Not here
//! What is known in memory, and promises (`mapping`).
//! # Source
//! Kernel `fs/ext4/indirect.c`.

mod allocate;
mod remove;

use extant_format::corruption::{Place, Rule};
use extant_format::indirect::{IndirectPath, pointer, set_pointer};
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::{Mapped, Mapper};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::transaction::{BlockKind, Handle, MetadataBlock};

/// The block map of one inode without extents; made for each operation.
#[derive(Clone, Copy)]
pub(super) struct IndirectMap<'a> {
    mapper: &'a Mapper,
    inode: &'a Inode,
}

/// An array of pointers.
#[derive(Clone, Debug)]
enum Array {
    /// The fifteen in the inode.
    Inode,
    /// A block full of them.
    Block(MetadataBlock),
}

impl Array {
    /// Whether both are one.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inode, Self::Inode) => true,
            (Self::Block(block), Self::Block(other)) => block.number() == other.number(),
            _ => false,
        }
    }
}

/// The arrays on the way to a block, as far as they exist.
#[derive(Clone, Debug)]
struct Chain {
    path: IndirectPath,
    /// The inode's first; one for each pointer that was followed.
    arrays: SmallVec<[Array; 4]>,
    /// Where the block is, if no pointer on the way is zero.
    target: Option<PhysicalBlock>,
}

impl Chain {
    /// The pointer at which the way ends: the block's own, or the first that is zero.
    fn last_offset(&self) -> u32 {
        self.path.offsets()[self.arrays.len() - 1]
    }

    /// The array that has it.
    fn last_array(&self) -> &Array {
        self.arrays.last().expect("the inode's is always there")
    }

    /// Arrays that are missing between that one and the block.
    fn missing(&self) -> usize {
        self.path.offsets().len() - self.arrays.len()
    }
}

impl<'a> IndirectMap<'a> {
    /// The map of `inode`, which has no flag for extents.
    pub(super) fn new(mapper: &'a Mapper, inode: &'a Inode) -> Self {
        Self { mapper, inode }
    }

    /// What the first run of `range` is.
    ///
    /// Source: kernel `ext4_ind_map_blocks` without `CREATE`.
    pub(super) fn look_up(&self, range: LogicalRange) -> Result<Mapped, Error> {
        let Some(chain) = self.chain(range.start())? else {
            return Ok(Mapped { blocks: range, state: BlockState::Hole, new: false });
        };
        let (state, run) = match chain.target {
            Some(target) => {
                (BlockState::Written(target), self.run(&chain, Some(target), range.len()))
            }
            // As the kernel: of a hole among pointers to data, one block.
            None => (BlockState::Hole, self.gap(&chain)),
        };
        let len = u32::try_from(run).unwrap_or(u32::MAX).min(range.len());
        let blocks = LogicalRange::new(range.start().get(), len)
            .expect("at least one block, within the range");
        Ok(Mapped { blocks, state, new: false })
    }

    /// The way to `block`; `None` if a map cannot reach it.
    fn chain(&self, block: LogicalBlock) -> Result<Option<Chain>, Error> {
        let Some(path) = IndirectPath::to(block, self.mapper.geometry()) else { return Ok(None) };
        let mut chain = Chain { path, arrays: SmallVec::from_iter([Array::Inode]), target: None };
        let levels = path.offsets().len();
        loop {
            let (array, offset) = (chain.last_array(), chain.last_offset());
            let Some(next) = self.view(array, |bytes| pointer(bytes, offset)) else {
                return Ok(Some(chain));
            };
            self.check(next)?;
            if chain.arrays.len() == levels {
                chain.target = Some(next);
                return Ok(Some(chain));
            }
            let block = self.mapper.transactions.read(next, BlockKind::Plain)?;
            chain.arrays.push(Array::Block(block));
        }
    }

    /// Checks a pointer.
    fn check(&self, block: PhysicalBlock) -> Result<(), Error> {
        let place = Place::Inode(self.inode.number());
        place.require(
            self.mapper.geometry().may_hold_data(PhysicalRange::single(block)),
            Rule::BlockPlace,
        )?;
        self.mapper.check_place(self.inode, PhysicalRange::single(block))
    }

    /// How many pointers from the chain's last on go on as it begins: with blocks that follow `target`, or with zeros.
    fn run(&self, chain: &Chain, target: Option<PhysicalBlock>, limit: u32) -> u64 {
        let first = chain.last_offset();
        let most = chain.path.run.min(limit);
        self.view(chain.last_array(), |bytes| {
            let goes_on = |&i: &u32| {
                pointer(bytes, first + i) == target.and_then(|block| block.checked_add(i.into()))
            };
            u64::try_from((1..most).take_while(goes_on).count()).unwrap_or(0) + 1
        })
    }

    /// How many blocks from the chain's on a zero pointer at its end leaves without place.
    fn gap(&self, chain: &Chain) -> u64 {
        let per_block = u64::from(self.mapper.geometry().block_size / 4);
        let below = &chain.path.offsets()[chain.arrays.len()..];
        let (span, before) = below.iter().fold((1_u64, 0_u64), |(span, before), &offset| {
            (
                span.saturating_mul(per_block),
                before.saturating_mul(per_block).saturating_add(offset.into()),
            )
        });
        span.saturating_sub(before)
    }

    /// Looks at an array.
    fn view<R>(&self, array: &Array, look: impl FnOnce(&[u8]) -> R) -> R {
        match array {
            Array::Inode => {
                let area = self.inode.core.lock().block;
                look(&area)
            }
            Array::Block(block) => block.with(look),
        }
    }

    /// Sets the pointers of an array from `first` on; `set` says what each becomes.
    fn set(
        &self,
        handle: &mut Handle<'_>,
        array: &Array,
        offsets: core::ops::Range<u32>,
        value: impl Fn(u32) -> Option<PhysicalBlock>,
    ) -> Result<(), Error> {
        let mut fits = true;
        let change = |bytes: &mut [u8]| {
            for offset in offsets {
                fits &= set_pointer(bytes, offset, value(offset));
            }
        };
        match array {
            Array::Inode => change(&mut self.inode.core.lock().block),
            Array::Block(block) => handle.modify(block, change)?,
        }
        assert!(fits, "places were checked, and offsets lie in their arrays");
        Ok(())
    }
}
