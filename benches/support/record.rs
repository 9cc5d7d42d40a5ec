//! Where the last run is written down, and on what machine it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lab::who;

const BEGIN: &str = "<!-- bench -->\n";
const END: &str = "<!-- end -->\n";

/// What the machine is, before anything is measured.
pub struct Machine {
    text: String,
}

impl Machine {
    pub fn now() -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches(['\t', ' ', ':']);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let mut at = Command::new("stat");
        at.args(["-f", "-c", "%T"]).arg(std::env::temp_dir());
        let text = format!(
            "{} with {cores} cores ({model}), Linux {}, {}; {}, {}; the temporary folder on {}. Load before: {load}. \
             poller ran {}.",
            said(Command::new("date").args(["-u", "+%-d %B %Y,"])).trim().to_owned() + " a machine",
            said(Command::new("uname").arg("-r")),
            system.unwrap_or("an unknown system").trim_matches('"'),
            said(Command::new("ssh").arg("-V")).split(',').next().unwrap_or_default(),
            said(Command::new("git").arg("--version")),
            said(&mut at),
            who(),
        );
        Machine { text }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// ssh tells its version on standard error.
fn said(command: &mut Command) -> String {
    let said = command.output().map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// In cargo's target folder, for everybody who wants to look again.
pub fn keep(text: &str) -> PathBuf {
    let program = std::env::current_exe().expect("this program's path");
    let built = program.ancestors().find(|folder| folder.ends_with("release")).and_then(Path::parent);
    let path = built.map_or_else(std::env::temp_dir, Path::to_owned).join("bench.md");
    fs::write(&path, text).expect("bench.md");
    path
}

/// In the documentation, between its two marks.
pub fn record(text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = fs::read_to_string(&path).expect("docs/performance.md");
    let (before, rest) = page.split_once(BEGIN).expect("the mark at the beginning");
    let (_, after) = rest.split_once(END).expect("the mark at the end");
    fs::write(&path, format!("{before}{BEGIN}\n{text}\n{END}{after}")).expect("docs/performance.md");
    path
}
