//! What the benchmark needs: the server and its clients, the stopwatch, and the floor to compare with.

pub mod host;
pub mod lab;
pub mod measure;
pub mod peers;
pub mod probe;
pub mod record;
pub mod report;
pub mod repository;
pub mod rows;
pub mod server;
pub mod table;
pub mod trace;
pub mod wire;
