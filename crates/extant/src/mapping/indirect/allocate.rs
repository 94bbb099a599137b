//! Giving a run of holes a place, with the arrays of pointers that lead there.

use extant_format::indirect::pointer;
use extant_format::{ClusterCount, LogicalBlock, LogicalRange, PhysicalBlock};
use smallvec::SmallVec;

use super::{Array, Chain, IndirectMap};
use crate::Error;
use crate::allocator::{Allocation, AllocationFlags, AllocationRequest, FreeFlags};
use crate::extent_status::BlockState;
use crate::extent_tree::{charge, file_hints, free_blocks};
use crate::mapping::map::{Created, allocation_flags};
use crate::mapping::{MapFlags, Mapped};
use crate::sync::{Rank, assert_held};
use crate::transaction::{BlockKind, Handle};

/// Largest block number, and one more, that a pointer can hold.
const POINTER_LIMIT: u64 = 1 << 32;

impl IndirectMap<'_> {
    /// Gives the first run of `range` a place; it is written at once. Stores the inode.
    ///
    /// # Errors
    /// [`Error::TooLarge`] past what three levels reach; [`Error::NoSpace`], [`Error::TransactionFull`] with the map as it was.
    /// # Source
    /// Kernel `ext4_ind_map_blocks`, `ext4_alloc_branch`, `ext4_splice_branch`. Differs: asks for one run, not for a block
    /// at a time, as the kernel does since 2.6 as well; links last.
    pub(in crate::mapping) fn map(
        &self,
        handle: &mut Handle<'_>,
        range: LogicalRange,
        flags: MapFlags,
    ) -> Result<Created, Error> {
        assert_held(Rank::Map);
        let chain = self.chain(range.start())?.ok_or(Error::TooLarge)?;
        if chain.target.is_some() {
            let mapped = self.look_up(range)?;
            return Ok(Created { mapped, owed: ClusterCount::ZERO, undone: false });
        }
        let run = if chain.missing() == 0 {
            self.run(&chain, None, range.len())
        } else {
            chain.path.run.into()
        };
        let wanted = u32::try_from(run).unwrap_or(u32::MAX).min(range.len());
        let missing = u32::try_from(chain.missing()).expect("three at most");
        // Each new array, its bitmap and descriptor; the data's; the array above; the inode.
        handle.ensure_credits(3 * missing + 2 + 2, 0)?;

        let mut arrays: SmallVec<[Allocation; 3]> = SmallVec::new();
        let data = match self.take(handle, &chain, range.start().get(), wanted, flags, &mut arrays)
        {
            Ok(data) => data,
            Err(error) => {
                let free = |array: Allocation| {
                    let (allocator, flags) = (&self.mapper.allocator, FreeFlags::METADATA);
                    free_blocks(allocator, handle, self.inode, array.blocks, flags)
                };
                self.all_or_abort(arrays.into_iter().try_for_each(free))?;
                return Err(error);
            }
        };
        self.all_or_abort(self.link(handle, &chain, &arrays, data))?;
        let len = u32::try_from(data.blocks.len()).expect("no more than asked for");
        let blocks = LogicalRange::new(range.start().get(), len).expect("a part of the range");
        let mapped = Mapped { blocks, state: BlockState::Written(data.blocks.start()), new: true };
        let is_promised = flags.contains(MapFlags::DELALLOC_RESERVED);
        let owed = if is_promised { data.clusters } else { ClusterCount::ZERO };
        Ok(Created { mapped, owed, undone: false })
    }

    /// Takes blocks for the missing arrays, outermost first, and for up to `wanted` blocks of data.
    fn take(
        &self,
        handle: &mut Handle<'_>,
        chain: &Chain,
        logical: u32,
        wanted: u32,
        flags: MapFlags,
        arrays: &mut SmallVec<[Allocation; 3]>,
    ) -> Result<Allocation, Error> {
        let data_flags = allocation_flags(self.inode, flags);
        let array_flags = if flags.contains(MapFlags::DELALLOC_RESERVED) {
            AllocationFlags::MAP_OF_RESERVED
        } else {
            AllocationFlags::empty()
        };
        let mut request = AllocationRequest {
            inode: self.inode.number(),
            logical: LogicalBlock::ZERO, // an array is no block of the file
            len: 1,
            goal: self.goal(chain),
            left: None,
            right: None,
            file: file_hints(self.inode, self.mapper.geometry()),
            flags: array_flags,
        };
        for _ in 0..chain.missing() {
            let array = self.allocate(handle, &request)?;
            request.goal = array.blocks.start();
            arrays.push(array);
        }
        let logical = LogicalBlock::new(logical).expect("a block of the range");
        self.allocate(
            handle,
            &AllocationRequest { logical, len: wanted, flags: data_flags, ..request },
        )
    }

    fn allocate(
        &self,
        handle: &mut Handle<'_>,
        request: &AllocationRequest,
    ) -> Result<Allocation, Error> {
        let got = self.mapper.allocator.allocate(handle, request)?;
        assert!(
            got.blocks.end().get() <= POINTER_LIMIT,
            "the request said that pointers have 32 bits"
        );
        // What was promised is charged when the promise is spent (D10.11).
        if !request.flags.contains(AllocationFlags::DELALLOC_RESERVED) {
            charge(self.inode, self.mapper.geometry(), got.clusters.get());
        }
        Ok(got)
    }

    /// Where the first missing block should be: at the last one before it in the same array, else at the array.
    ///
    /// Source: kernel `ext4_find_near` (M2.8).
    fn goal(&self, chain: &Chain) -> PhysicalBlock {
        let (array, offset) = (chain.last_array(), chain.last_offset());
        let before = self.view(array, |bytes| (0..offset).rev().find_map(|i| pointer(bytes, i)));
        before.unwrap_or_else(|| match array {
            Array::Block(block) => block.number(),
            Array::Inode => {
                self.mapper.allocator.inode_goal(self.inode.number(), self.inode.file_type())
            }
        })
    }

    /// Fills the new arrays from the innermost outwards, hangs them up, and stores the inode.
    fn link(
        &self,
        handle: &mut Handle<'_>,
        chain: &Chain,
        arrays: &[Allocation],
        data: Allocation,
    ) -> Result<(), Error> {
        let offsets = &chain.path.offsets()[chain.arrays.len() - 1..];
        let mut below = data.blocks;
        for (array, &offset) in arrays.iter().zip(&offsets[1..]).rev() {
            let block = handle.fresh(array.blocks.start(), BlockKind::Plain)?;
            self.point(handle, &Array::Block(block), offset, below)?;
            below = array.blocks;
        }
        self.point(handle, chain.last_array(), offsets[0], below)?;
        self.mapper.inodes.store(handle, self.inode)
    }

    /// Points from `offset` on at `blocks`.
    fn point(
        &self,
        handle: &mut Handle<'_>,
        array: &Array,
        offset: u32,
        blocks: extant_format::PhysicalRange,
    ) -> Result<(), Error> {
        let len = u32::try_from(blocks.len()).expect("no more than an array has");
        self.set(handle, array, offset..offset + len, |i| {
            blocks.start().checked_add((i - offset).into())
        })
    }

    /// Passes on the outcome of changes that cannot be taken back: a failure stops the journal.
    pub(super) fn all_or_abort<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| {
            self.mapper.transactions.abort(error, "a block map was changed in part")
        })
    }
}
