//! What is due by the clock is done by a tick, and not before.

use std::sync::Arc;

use extant::{Error, MountOptions};
use extant_device::MemoryDevice;

use crate::world::{StillClock, World, mount, mount_at, open, read, write};

#[test]
fn a_tick_commits_what_is_older_than_the_interval_and_writes_back_what_is_older_still() {
    let world = World::new("tick");
    let Some(image) = world.mkfs(8, &[]) else { return };
    let (device, clock) = (Arc::new(image), Arc::<StillClock>::default());
    let fs = mount_at(&device, MountOptions::new(), &clock).unwrap();
    write(&open(&fs, "/f"), &[7; 5000], 0);
    let now = |device: &MemoryDevice| {
        let fs = mount(&Arc::new(device.snapshot()), MountOptions::read_only()).unwrap();
        read(&fs, "/f")
    };
    clock.advance(4);
    fs.tick().unwrap();
    assert!(matches!(now(&device), Err(Error::NotFound)));
    clock.advance(1);
    fs.tick().unwrap();
    assert_eq!(now(&device).unwrap(), []);
    clock.advance(25);
    fs.tick().unwrap();
    clock.advance(5);
    fs.tick().unwrap();
    assert_eq!(now(&device).unwrap(), [7; 5000]);
}
