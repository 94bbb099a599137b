//! From a device to a mounted volume: what is checked first, orphans, the marks of a mount.
//!
//! Source: kernel `fs/ext4/super.c`, `__ext4_fill_super`, `ext4_setup_super`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::descriptor::GroupDescriptor;
use extant_format::superblock::SuperblockFlags;
use extant_format::{BlockGroup, Compat, Geometry, Incompat, RoCompat, Superblock};

use super::layers::Layers;
use super::open_journal::{Opened, Opening};
use super::protection::Protection;
use super::support;
use super::volume::{Outside, STATE_CLEAN, STATE_ERRORS, Volume};
use crate::Error;
use crate::block_io::BlockIo;
use crate::options::MountOptions;
use crate::time::{Clock, Entropy};

/// Mounts the volume on `device`.
pub(crate) fn mount(
    options: MountOptions,
    device: Arc<dyn BlockDevice>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<Volume>, Error> {
    let superblock = read_superblock(&*device)?;
    let mut options = options.settled(&superblock)?;
    let geometry = *superblock.geometry();
    check_device(&geometry, &*device)?;
    // What has no journal is nobody's before it is whole.
    let is_protected = options.host.is_some() || options.unjournaled;
    let reason = support::read_only_because(&geometry, is_protected);
    options.read_only |= reason.is_some() || device.geometry().read_only;
    let is_claimed = geometry.incompat.contains(Incompat::MMP) && !options.unjournaled;
    let protection = match options.host.as_ref().filter(|_| is_claimed && !options.read_only) {
        Some(host) => {
            let io = BlockIo::new(Arc::clone(&device), geometry.block_bits);
            Some(Arc::new(Protection::claim(io, &superblock, host, &*clock, &*entropy)?))
        }
        None => None,
    };
    let claimed = Claimed { superblock, reason, protection: protection.clone() };
    let mounted = mount_claimed(claimed, options, device, Arc::clone(&clock), entropy);
    if let (Err(_), Some(protection)) = (&mounted, protection) {
        protection.release(&*clock);
    }
    mounted
}

/// A volume that no other host has, and no journal is open of yet.
struct Claimed {
    superblock: Superblock,
    /// Why it is only read.
    reason: Option<String>,
    protection: Option<Arc<Protection>>,
}

fn mount_claimed(
    claimed: Claimed,
    options: MountOptions,
    device: Arc<dyn BlockDevice>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<Volume>, Error> {
    let geometry = *claimed.superblock.geometry();
    let io = BlockIo::new(Arc::clone(&device), geometry.block_bits);
    let opening = Opening { io: &io, options: &options, clock: &clock, entropy: &entropy };
    let found = opening.open_journal(&claimed.superblock)?;
    let (io, journal, journal_blocks, has_failed) = match found {
        Opened::None => (io, None, Vec::new(), false),
        Opened::Unused(blocks) => (io, None, blocks, false),
        Opened::Through(view) => (BlockIo::new(view, geometry.block_bits), None, Vec::new(), false),
        Opened::Ready { state, has_failed } => {
            let blocks = state.blocks();
            (io, Some(*state), blocks, has_failed)
        }
    };
    // Replay may have changed everything that was read so far.
    let mut superblock = read_superblock(&**io.device())?;
    superblock.raw_mut().keep_errors(claimed.superblock.raw());
    let is_sound = superblock.raw().state.get() & STATE_CLEAN != 0;
    let descriptors = read_descriptors(&superblock, &io, options.read_only)?;
    let layers =
        Layers::new(io, &superblock, descriptors, journal, journal_blocks, &options, &clock)?;
    if !options.read_only {
        let raw = superblock.raw_mut();
        raw.state = (raw.state.get() | if has_failed { STATE_ERRORS } else { 0 }).into();
        mark_mounted(&mut superblock, &*device, &*clock, layers.transactions.is_journaled())?;
        // The file system knows of the journal's failure now.
        layers.transactions.clear_journal_errno()?;
    }
    let Claimed { reason, protection, .. } = claimed;
    let outside = Outside { clock, entropy, protection };
    let volume = Volume::new(layers, superblock, options, reason, is_sound, outside);
    volume.finish_orphans()?;
    Ok(volume)
}

/// The primary superblock, checked.
pub(super) fn read_superblock(device: &dyn BlockDevice) -> Result<Superblock, Error> {
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    Ok(Superblock::parse(&bytes)?)
}

/// The file system must fit its device: a truncated image is found here, not in the middle of a write.
fn check_device(geometry: &Geometry, device: &dyn BlockDevice) -> Result<(), Error> {
    let wanted = geometry.blocks_count.checked_shl(geometry.block_bits);
    let fits = wanted.is_some_and(|bytes| bytes <= device.geometry().len_bytes);
    Ok(Place::Superblock.require(fits, Rule::BlocksPastDevice)?)
}

/// Every group's descriptor; a wrong checksum matters only to a volume that is to be written.
pub(super) fn read_descriptors(
    superblock: &Superblock,
    io: &BlockIo,
    read_only: bool,
) -> Result<Vec<GroupDescriptor>, Error> {
    let geometry = superblock.geometry();
    let mut descriptors = Vec::with_capacity(usize_from(geometry.group_count));
    let record = usize_from(geometry.desc_size);
    for index in 0..geometry.desc_blocks {
        let block = io.read_block(geometry.descriptor_block(index))?;
        for bytes in
            block.as_slice().chunks_exact(record).take(usize_from(geometry.desc_per_block()))
        {
            let number = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
            if number >= geometry.group_count {
                break;
            }
            let group = BlockGroup(number);
            let sound = read_only || GroupDescriptor::verify(bytes, geometry, group);
            Place::Group(group).require(sound, Rule::Checksum)?;
            let descriptor = GroupDescriptor::decode(bytes, geometry, group)?;
            descriptor.check_counts(geometry, group)?;
            descriptors.push(descriptor);
        }
    }
    Ok(descriptors)
}

/// Writes what a mount leaves in the superblock: the time, the count, and that the image is in use.
fn mark_mounted(
    superblock: &mut Superblock,
    device: &dyn BlockDevice,
    clock: &dyn Clock,
    journaled: bool,
) -> Result<(), Error> {
    let now = u64::try_from(clock.wall().seconds).unwrap_or(0);
    let is_sign_known = superblock.hash_sign().is_some();
    let raw = superblock.raw_mut();
    if !is_sign_known {
        raw.flags = (raw.flags.get() | SuperblockFlags::SIGNED_HASH.bits()).into();
    }
    raw.set_mount_time(now);
    raw.set_write_time(now);
    raw.mnt_count = raw.mnt_count.get().saturating_add(1).into();
    if raw.compat().contains(Compat::ORPHAN_FILE) {
        raw.feature_ro_compat = (raw.ro_compat() | RoCompat::ORPHAN_PRESENT).bits().into();
    }
    if journaled {
        raw.feature_incompat = (raw.incompat() | Incompat::RECOVER).bits().into();
    } else {
        raw.state = (raw.state.get() & !STATE_CLEAN).into();
    }
    super::volume::write_superblock(superblock, device)
}
