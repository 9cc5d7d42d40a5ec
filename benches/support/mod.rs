//! What the benchmark needs: the server and its clients, the stopwatch, and the floor to compare with.

pub mod measure;
pub mod probe;
pub mod world;
