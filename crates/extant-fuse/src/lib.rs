//! An ext4 volume as a FUSE server.
//!
//! | file | what it does |
//! | --- | --- |
//! | `abi` | layouts and numbers of the protocol |
//! | `message` | requests taken apart, answers put together |
//! | `nodes` | inodes that the kernel knows, and files that it has open |
//! | `alarm` | wakes who does what is due by the clock |
//! | `backend` | who answers requests, as the transport sees it |
//! | `server` | what each request does to the volume; knows of no device |
//! | `device` | `/dev/fuse` as the transport: threads that read requests and write answers |
//! | `rings` | the kernel's queues over io_uring as the transport, beside the device |
//! | `turns` | which thread reads the next request |
//! | `mount` | attaching: as root by mount(2), else by `fusermount3` |
//! | `loop_device` | a loop device for root's mounts, so that the kernel waits for the server |
//!
//! # Invariants
//! Whoever asks has been checked by the kernel (`default_permissions`): the server refuses nobody. What the kernel may cache
//! is right until the server says otherwise, because nobody else changes the volume.
//! # Locking
//! A request is served by one thread from end to end, and holds no lock of this crate while the engine works.

pub mod abi;
mod alarm;
mod backend;
mod device;
mod loop_device;
mod message;
mod mount;
mod nodes;
mod rings;
mod server;
mod turns;

pub use alarm::Alarm;
pub use backend::Backend;
pub use device::{Channel, THREADS, serve};
pub use loop_device::Backing;
pub use message::{Answer, Arguments};
pub use mount::{KERNEL_WORDS, Mount, MountError, detach, unmount};
pub use rings::NoRings;
pub use server::{OnError, Owners, Server, Settings, Swap};
