//! What a run costs before it has said a word to a server.

use std::net::TcpListener;
use std::rc::Rc;

use crate::support::host::{App, Host};
use crate::support::lab::Lab;
use crate::support::peers::{GIT_LS_REMOTE, PROBE, git_ls_remote};
use crate::support::probe;
use crate::support::rows::{Contestant, Row};
use crate::support::server::free_port;

/// The remote is unreachable.
const UNREACHABLE: i32 = 69;

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    let version = |program: &'static str| {
        let lab = Rc::clone(lab);
        let name = if program == "git" { "`git --version`" } else { "`poller --version`" };
        Contestant::new(name, move || {
            let mut command = lab.command(program);
            command.arg("--version");
            vec![command]
        })
    };
    let nothing = Host::new(lab, "start-nothing", Vec::new());
    let nothing = Contestant::new("`poller` without an app", move || vec![nothing.command(&[])]);
    let refused = at_port(lab, "start-refused", free_port());
    let refused = Contestant::new("`poller`, and the server's port refuses", move || vec![refused.command(&[])]);
    let programs =
        vec![version(env!("CARGO_BIN_EXE_poller")), version("git"), nothing, refused.fails_with(UNREACHABLE)];
    vec![Row::new("start to end", 20, programs), Row::new("start to the server's port", 20, connecting(lab))]
}

fn connecting(lab: &Rc<Lab>) -> Vec<Contestant> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let ports = listeners.each_ref().map(|listener| listener.local_addr().expect("a port").port());
    let [first, second, third] = listeners;
    let host = at_port(lab, "start-connects", ports[0]);
    let poller = Contestant::connects("`poller` until it has connected", first, move || host.command(&[]));
    let own = Rc::clone(lab);
    let probe = Contestant::connects(&format!("{PROBE} until it has connected"), second, move || {
        let mut probe = own.command(std::env::current_exe().expect("this program"));
        probe.args([probe::WORD, &ports[1].to_string(), "nobody"]).arg(own.host_key()).arg(own.key(0)).arg("/nowhere");
        probe
    });
    let own = Rc::clone(lab);
    let url = format!("ssh://nobody@127.0.0.1:{}/nowhere", ports[2]);
    let name = format!("{GIT_LS_REMOTE} until it has connected");
    let git = Contestant::connects(&name, third, move || git_ls_remote(&own, 0, &url));
    // A panic, and git's word for an error.
    vec![poller.fails_with(UNREACHABLE), probe.fails_with(101), git.fails_with(128)]
}

/// One app, whose server is said to be there.
fn at_port(lab: &Rc<Lab>, name: &str, port: u16) -> Host {
    let url = format!("ssh://nobody@127.0.0.1:{port}/nowhere");
    Host::new(lab, name, vec![App::new("site", &url)])
}
