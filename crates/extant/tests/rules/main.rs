//! The rules that keep data safe, one small test each: whoever deletes the line that keeps a rule sees its test fail.

mod clockwork;
mod crash;
mod durability;
mod faults;
mod mounting;
mod space;
mod world;
