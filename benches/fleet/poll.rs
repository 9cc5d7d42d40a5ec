//! What one poll costs the server. Measured with poller against OpenSSH 9.2 and git 2.47 on the loopback and
//! through a proxy that holds each byte back; how, is in `docs/fleet.md`.

/// Seconds between two polls of a host.
pub const INTERVAL: f64 = 300.0;

/// How long a connection is open without any distance, in seconds.
const OPEN: f64 = 0.030;
/// The part of it before the server has accepted the key.
const UNAUTHENTICATED: f64 = 0.020;
/// Round trips in each of the two. One more than the proxy showed in the first: over a distance sshd's second
/// packet after the login waits for the first one's acknowledgement.
const OPEN_TRIPS: f64 = 9.5;
const UNAUTHENTICATED_TRIPS: f64 = 4.5;

/// Both directions, headers of Ethernet, IP and TCP included.
pub const BYTES: f64 = 6_600.0;
/// What fetching adds to that, without the pack itself: a second connection.
pub const FETCH_BYTES: f64 = 9_800.0;

/// Seconds of the server's processors: sshd, its children and `git-upload-pack`.
pub const CPU: f64 = 0.020;
pub const FETCH_CPU: f64 = 0.024;

/// For a round trip in seconds.
pub fn open(round_trip: f64) -> f64 {
    OPEN + OPEN_TRIPS * round_trip
}

pub fn unauthenticated(round_trip: f64) -> f64 {
    UNAUTHENTICATED + UNAUTHENTICATED_TRIPS * round_trip
}
