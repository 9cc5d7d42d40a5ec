//! An SSH server of the tests' own that means harm: in the key exchange, at the login, in its list of
//! refs, in its pack. Whatever it says, the outcome is an exit code of the contract, in time; what is
//! live stays as it is, no escape code gets through, and memory has a bound. Asked again when it is
//! honest, it is deployed from as if nothing had been.
//!
//! `POLLER_FAULTS_CASE=words` meets the cases with these words in their name alone.

mod arena;
mod channel;
mod git;
mod host;
mod on_packs;
mod on_refs;
mod on_ssh;
mod pack;
mod ssh;

#[test]
fn an_ssh_server_that_means_harm_gets_an_exit_code_and_nothing_else() {
    arena::run(on_ssh::cases());
}

#[test]
fn a_list_of_refs_that_means_harm_gets_an_exit_code_and_nothing_else() {
    arena::run(on_refs::cases());
}

#[test]
fn a_pack_that_means_harm_gets_an_exit_code_and_nothing_else() {
    arena::run(on_packs::cases());
}
