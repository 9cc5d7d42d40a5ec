//! Networks that stall, drip, reset, cut, lose and lie, and name servers that never answer: every run ends
//! within its deadline, deploys nothing that did not arrive whole, and the next one gets over it.
//!
//! [`cuts`] strikes at chosen bytes of a connection, through a proxy of the tests' own; [`lines`] makes real
//! lines narrow, lossy and dead, in namespaces; [`names`] has name servers that do not help; [`deadlines`] is
//! about the limit of a run, signals, and every command that asks a server; [`clock`] sets the clock back.

mod clock;
mod cuts;
mod deadlines;
mod fleet;
mod lines;
mod names;
mod net;

/// What no compression makes shorter.
fn noise(bytes: usize) -> Vec<u8> {
    use std::io::Read;
    let mut noise = vec![0; bytes];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}
