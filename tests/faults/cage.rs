//! The cage of the helpers, on processes that run: what each has given up, what it does with a repository that
//! leads elsewhere, packs and files that are more than a helper may use, and kernels that offer less.
//!
//! Single files and system calls are tried from inside by the unit tests of `src/sys/cage.rs`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::support::mischief::{Mood, Proxy};
use crate::support::processes::{command_line, helpers_of};
use crate::support::run::Running;
use crate::support::{World, file, put_exec, seconds, sh, wait_until};
use crate::tally::{Group, Tally};

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    let mut source = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut noise).unwrap();
    noise
}

/// A line of a file of /proc; nothing when the process is gone.
fn proc_line(pid: i32, name: &str, begins: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(begins)).unwrap_or_default().trim().to_owned()
}

fn helper(running: &Running, word: &str) -> Option<i32> {
    helpers_of(running.pid()).into_iter().find(|pid| command_line(*pid).contains(word))
}

#[track_caller]
fn wait_for_filters(running: &Running, word: &str, filters: &str) -> i32 {
    let mut found = 0;
    wait_until(&format!("{word} with {filters} filters"), seconds(30), || {
        found = helper(running, word).unwrap_or(0);
        proc_line(found, "status", "Seccomp_filters:") == filters
    });
    found
}

#[track_caller]
fn expect_limits(tally: &mut Tally, word: &str, pid: i32, limits: &[(&str, u64)]) {
    tally.case(format!("{word} has no new privileges, and a filter for all its threads"));
    assert_eq!(proc_line(pid, "status", "NoNewPrivs:"), "1");
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert_eq!(threads.len(), 1, "the cage is closed when the threads that look up names are gone");
    assert_eq!(proc_line(pid, "status", "Seccomp:"), "2");
    for (limit, most) in limits {
        tally.case(format!("{word}: {limit} at most {most}"));
        let line = proc_line(pid, "limits", limit);
        let numbers: Vec<u64> = line.split_whitespace().take(2).map(|n| n.parse().expect("a limit")).collect();
        assert!(numbers.len() == 2 && numbers.iter().all(|n| n <= most), "{limit}: {line}");
    }
}

const FETCHER: [(&str, u64); 4] =
    [("Max data size", 2 << 30), ("Max file size", 16 << 30), ("Max open files", 4096), ("Max core file size", 0)];
const PROBER: [(&str, u64); 3] = [("Max data size", 512 << 20), ("Max open files", 4096), ("Max core file size", 0)];

#[test]
fn prober_and_fetcher_are_in_the_cage_while_a_server_keeps_them_waiting() {
    let world = World::new("caged");
    let proxy = Proxy::before(world.sshd.port);
    let url = world.sshd.url_by_port(proxy.port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"30s\"")).write();
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
    world.deployed_as_configured();
    let second = world.push(&[("noise", file(noise(4_000_000)))], "second");
    let mut tally = Tally::new(Group::Cage);
    proxy.set(Mood::Stalls, 1_000_000);
    let running = world.spawn_poll(&[]);
    let fetcher = wait_for_filters(&running, "_fetcher", "2");
    expect_limits(&mut tally, "fetcher", fetcher, &FETCHER);
    running.kill_all();
    // The prober's connection stands, and its server has not said a word.
    proxy.set(Mood::Stalls, 0);
    let running = world.spawn_poll(&[]);
    let prober = wait_for_filters(&running, "_prober", "2");
    expect_limits(&mut tally, "prober", prober, &PROBER);
    running.kill_all();
    proxy.set(Mood::Well, u64::MAX);
    tally.case("and the next poll deploys");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn a_script_gets_no_limits_of_pollers_but_leaves_no_core() {
    let world = World::new("script limits");
    world.app("site").write();
    let say = |what: &str| format!("ulimit {what} > {}/limit{what}", world.notes("x").parent().unwrap().display());
    let script = ["-d", "-f", "-n", "-Hc", "-Sc"].map(say).join("; ");
    world.push(&[("deploy.sh", world.script(&script))], "first");
    let mut tally = Tally::new(Group::Cage);
    world.poll(&[]).expect(0);
    for what in ["-d", "-f", "-n", "-Hc"] {
        tally.case(format!("ulimit {what} is what the caller's is"));
        assert_eq!(world.note(&format!("limit{what}")).trim(), sh("sh", &["-c", &format!("ulimit {what}")]).trim());
    }
    tally.case("no core, unless it asks for one");
    assert_eq!(world.note("limit-Sc").trim(), "0");
}

/// Whether this kernel has what the fetcher needs of Landlock; without it there is nothing to see.
fn has_landlock(world: &World) -> bool {
    let shown = world.poll(&["check", "--json"]).stdout;
    let check: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let cage = check["host"].as_array().unwrap().iter().find(|one| one["check"] == "cage").expect("the cage");
    cage["result"] == "ok"
}

#[test]
fn a_repository_that_leads_elsewhere_leads_nowhere() {
    let world = World::new("elsewhere");
    let first = world.deployed();
    let mut tally = Tally::new(Group::Cage);
    if !has_landlock(&world) {
        return;
    }
    let repository = world.repositories().remove(0);
    // All of it readable and writable for the fetch user, and not the app's.
    let foreign = world.path("foreign");
    fs::create_dir(&foreign).unwrap();
    let put = |inside: &str| {
        let (own, other) = (repository.join(inside), foreign.join(inside.replace('/', "-")));
        sh("mv", &[own.to_str().unwrap(), other.to_str().unwrap()]);
        std::os::unix::fs::symlink(&other, &own).unwrap();
        sh("chown", &["-R", &world.fetcher.name, foreign.to_str().unwrap()]);
        (own, other)
    };
    let back = |(own, other): (PathBuf, PathBuf)| {
        fs::remove_file(&own).unwrap();
        fs::rename(other, own).unwrap();
    };
    tally.case("the reader, by its configuration");
    let moved = put("config");
    world.poll(&["history", "site"]).expect(74);
    // The prober reads it too, before it has connected, and finds nothing there that it could not read.
    back(moved);
    world.poll(&["history", "site"]).expect(0);
    world.poll(&[]).expect(0);
    tally.case("the fetcher, by its folder of packs");
    let moved = put("objects/pack");
    let before = list(&moved.1);
    let second = world.push(&[("index.html", file(noise(100_000)))], "second");
    world.poll(&[]).expect(74);
    assert_eq!(list(&moved.1), before, "nothing was written there");
    world.expect_live("site", &first);
    back(moved);
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    world.expect_no_leftovers("site");
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_kernel_without_the_cage_runs_polls_all_the_same_and_check_says_so() {
    needs_program!("strace");
    let world = World::new("old kernel");
    world.deployed();
    let mut tally = Tally::new(Group::Cage);
    for (call, error, says) in [
        ("landlock_create_ruleset", "ENOSYS", "no landlock, seccomp"),
        ("landlock_create_ruleset", "EOPNOTSUPP", "no landlock, seccomp"),
        ("seccomp", "EINVAL", "no seccomp"),
    ] {
        tally.case(format!("{call} gives {error}"));
        let on_old_kernel = |args: &[&str]| {
            let plain = world.command(args);
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
            command.arg("-e").arg(format!("inject={call}:error={error}")).arg(plain.get_program());
            command.args(plain.get_args()).env_clear().envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
            world.spawn(command).wait()
        };
        on_old_kernel(&["check"]).expect(0).prints(says);
        let tip = world.push(&[("index.html", file(format!("{call} {error}\n")))], "change");
        on_old_kernel(&[]).expect(0).silent();
        world.expect_live("site", &tip);
        on_old_kernel(&[]).expect(0).silent();
        on_old_kernel(&["--dry-run"]).expect(0);
        on_old_kernel(&["rollback", "site"]).expect(0);
        world.poll(&["unfreeze", "site"]).expect(0);
    }
}

#[test]
fn a_fetch_of_more_than_a_file_may_have_ends_in_a_sentence() {
    let world = World::new("large pack");
    let first = world.deployed();
    let mut tally = Tally::new(Group::Cage);
    tally.case("a stricter limit of the caller's, met by the pack");
    let second = world.push(&[("noise", file(noise(4_000_000)))], "second");
    let plain = world.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 4096; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
    world.spawn(command).wait().expect(74).says("File too large").says("ulimit -f");
    world.expect_live("site", &first);
    world.expect_no_leftovers("site");
    tally.case("and without it");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

/// A pack of one object of zeros, and of differences to it that say they make `results` bytes each of it.
fn bomb(results: &[u64]) -> Vec<u8> {
    const BASE: u64 = 16 << 20;
    let deflated = |bytes: &[u8]| {
        let mut to = ZlibEncoder::new(Vec::new(), Compression::best());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    };
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend((1 + results.len() as u32).to_be_bytes());
    pack.extend(header(3, BASE));
    pack.extend(deflated(&vec![0; BASE as usize]));
    for &result in results {
        let mut delta = [size(BASE), size(result)].concat();
        // Copy from the beginning, as much as one step can, again and again.
        for _ in 0..result / 0xff_ffff {
            delta.extend([0b1111_0000, 0xff, 0xff, 0xff]);
        }
        let rest = (result % 0xff_ffff).to_le_bytes();
        delta.extend([0b1111_0000, rest[0], rest[1], rest[2]]);
        let distance = pack.len() as u64 - 12;
        pack.extend(header(6, delta.len() as u64));
        pack.extend(offset(distance));
        pack.extend(deflated(&delta));
    }
    pack
}

/// The head of an object in a pack: its kind, and its size in parts of 4, 7, 7, … bits.
fn header(kind: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | (length & 15) as u8];
    let rest = size(length >> 4);
    if length >> 4 > 0 {
        bytes[0] |= 0x80;
        bytes.extend(rest);
    }
    bytes
}

fn size(mut length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

/// How far back the base begins, as git writes it.
fn offset(mut distance: u64) -> Vec<u8> {
    let mut bytes = vec![(distance & 0x7f) as u8];
    while distance >= 0x80 {
        distance = (distance >> 7) - 1;
        bytes.insert(0, (distance & 0x7f) as u8 | 0x80);
    }
    bytes
}

#[test]
fn a_pack_that_grows_beyond_all_memory_ends_its_fetch_in_a_sentence() {
    let world = World::new("pack bomb");
    let folder = world.path("etc/server");
    fs::create_dir(&folder).unwrap();
    let tip = "1234567890123456789012345678901234567890";
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let advertisement = line(&format!("{tip} refs/heads/main\0ofs-delta agent=hostile\n")) + "0000";
    fs::write(folder.join("advertisement"), advertisement).unwrap();
    let server = folder.join("server");
    let shown = folder.display();
    let nak = line("NAK\n");
    put_exec(
        &server,
        &format!(
            // A pack that comes before it is asked for is another error.
            "#!/bin/sh\ncat {shown}/advertisement\ngrep -qam1 done || exit 0\n\
             {{ printf '{nak}'; cat {shown}/pack; }} &\nexec cat >/dev/null\n"
        ),
    );
    let app = world.app("site").without("source.identity");
    app.source(&format!("ssh_command = \"{}\"", server.display())).write();
    let mut tally = Tally::new(Group::Cage);
    let bombs = [
        ("one object of 8 GiB", &[8 << 30][..]),
        ("one of all that may be had", &[(2 << 30) - (1 << 20)]),
        ("many of 512 MiB", &[512 << 20; 4]),
    ];
    // The last one is worked through to its end, which takes a minute.
    for (what, results) in bombs.into_iter().take(if crate::all() { 3 } else { 2 }) {
        tally.case(what);
        let pack = folder.join("pack");
        fs::write(&pack, bomb(results)).unwrap();
        let sum = sh("sha1sum", &[pack.to_str().unwrap()]);
        let sum: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&sum[2 * i..2 * i + 2], 16).unwrap()).collect();
        fs::OpenOptions::new().append(true).open(&pack).unwrap().write_all(&sum).unwrap();
        let (most, outcome) = watched(world.spawn_poll(&["--force", "site"]));
        let outcome = outcome.expect_one_of(&[74, 76, 77]);
        assert!(!outcome.stderr.contains("crashed"), "{}", outcome.story());
        assert!(most <= 2 << 20, "{most} KiB");
        tally.note(format!("{what}: fetcher at most {} MiB", most >> 10));
        assert!(world.releases("site").is_empty());
        world.expect_no_leftovers("site");
        world.expect_no_processes();
    }
}

/// The most memory of its own that a fetcher was seen with, in KiB.
fn watched(mut running: Running) -> (u64, crate::support::run::Outcome) {
    let mut most = 0;
    while !running.is_over() {
        if let Some(fetcher) = helper(&running, "_fetcher") {
            let line = proc_line(fetcher, "status", "RssAnon:");
            most = most.max(line.trim_end_matches(" kB").parse().unwrap_or(0));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    (most, running.wait())
}
