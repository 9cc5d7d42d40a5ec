//! The stages of the road, a file each, in the order of `pipeline.rs`.

pub mod activate;
pub mod clone;
pub mod decide;
pub mod deploy;
pub mod fetch;
pub mod health;
pub mod links;
pub mod lock;
pub mod look;
pub mod probe;
pub mod programs;
pub mod record;
pub mod room;
pub mod signature;
pub mod splay;
pub mod stage;
pub mod stream;
pub mod tend;
pub mod tree;
pub mod verify;
