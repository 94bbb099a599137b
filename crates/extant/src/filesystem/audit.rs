//! Counters are caches: everything that is counted, recounted from what it counts.

use extant_format::cast::u64_from;
use extant_format::{ClusterRatio, FileType, InodeFlags};

use super::Volume;
use crate::Error;
use crate::delayed::Promise;
use crate::inode::Inode;

impl Volume {
    /// Recounts reservations, status trees, folios and free space; the first that disagrees panics with both numbers.
    ///
    /// Nothing else may be under way on the volume. With `bitmaps` every group's bitmap is read and compared as well.
    ///
    /// # Errors
    /// Of reading bitmaps.
    pub(crate) fn check_invariants(&self, bitmaps: bool) -> Result<(), Error> {
        let (mut promised, mut metadata) = (0, 0);
        for inode in self.inodes.in_memory() {
            let promise = self.recount(&inode);
            promised += promise.clusters.get();
            metadata += promise.metadata.get();
        }
        let counts = self.ledger.counts();
        assert_eq!(counts.promised, promised, "promised clusters, counted against present (I2)");
        assert_eq!(counts.metadata, metadata, "promised metadata, counted against present");
        if bitmaps {
            self.allocator.check_invariants()?;
            let free = self.allocator.free_clusters().get();
            assert_eq!(u64::try_from(counts.free), Ok(free), "free clusters of ledger and groups");
        }
        Ok(())
    }

    /// One file's promise, held against its status tree and its folios.
    fn recount(&self, inode: &Inode) -> Promise {
        let bits = self.transactions.geometry().cluster_bits;
        let ratio = ClusterRatio::new(bits).expect("checked at mount");
        let (blocks, clusters) = {
            let status = inode.status.lock();
            status.check_invariants();
            status.recount_delayed(ratio)
        };
        let (promise, pending) = {
            let reservations = inode.reservations.lock();
            (reservations.promise(), u64_from(reservations.pending.iter().count()))
        };
        let number = inode.number();
        let held = promise.clusters.get() + pending;
        assert_eq!(held, clusters.get(), "{number}: promised against delayed clusters (I3)");
        inode.pages.check_invariants();
        let dirty = inode.pages.dirty_blocks();
        assert!(dirty >= blocks, "{number}: {blocks} delayed blocks, {dirty} dirty ones (I1)");
        Self::recount_size(inode, dirty == 0 && !inode.pages.has_failed());
        promise
    }

    /// The size on disk, held against the one in memory, which it has reached if everything was written.
    fn recount_size(inode: &Inode, is_written: bool) {
        let core = inode.core.lock();
        let (number, size, stored) = (inode.number(), inode.size(), core.size);
        if core.file_type() != Some(FileType::Regular) || core.flags.contains(InodeFlags::EA_INODE)
        {
            return;
        }
        assert!(stored <= size, "{number}: size {stored} on disk, {size} in memory (I4)");
        let is_right = stored == size || !is_written;
        assert!(
            is_right,
            "{number}: size {stored} on disk, {size} in memory, nothing to write (I4)"
        );
    }
}
