#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poller_fuzz::entries::run("pgp_keys", data));
