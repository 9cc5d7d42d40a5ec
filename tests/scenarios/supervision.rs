//! Runs that meet each other, and runs that are told to stop.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{World, file, processes, seconds, wait_until};

const SLOW: &str = "sleep 300";

/// A run in the middle of a deploy whose script sleeps; the process of the sleep.
fn in_deploy(world: &World, script: &str) -> (crate::support::run::Running, i32) {
    world.push(&[("deploy.sh", world.script(script)), ("index.html", file("slow\n"))], "slow");
    let running = world.spawn_poll(&[]);
    let pid = world.wait_for_script("sleep 300");
    (running, pid)
}

#[test]
fn a_second_run_while_the_first_deploys_is_quiet_and_exits_75() {
    let world = World::new("two runs");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let (running, _) = in_deploy(&world, SLOW);
    world.poll(&[]).expect(75).silent().within(seconds(5));
    assert_eq!(world.ran().len(), 2, "one script at a time");
    running.signal(Signal::SIGTERM);
    running.wait();
}

#[test]
fn on_a_terminal_the_second_run_says_who_holds_the_lock() {
    let world = World::new("who holds");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let (running, _) = in_deploy(&world, SLOW);
    let pid = running.pid().to_string();
    world.poll_on_terminal(&[]).expect(75).says(&pid).says("site").says("deploy");
    running.signal(Signal::SIGTERM);
    running.wait();
}

#[test]
fn a_busy_app_does_not_hold_up_the_others() {
    let world = World::new("busy others");
    world.app("slow").deploy("timeout = \"60s\"").write();
    world.push(&[("deploy.sh", world.script(SLOW))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("sleep 300");
    world.app("quick").deploy("script = \"/bin/true\"").write();
    world.poll(&[]).expect(75);
    assert!(world.revision("quick").is_some());
    running.signal(Signal::SIGTERM);
    running.wait();
}

#[test]
fn many_runs_at_once_deploy_once() {
    let world = World::new("many");
    world.app("site").write();
    let first = world.push(&[("deploy.sh", world.script("sleep 1"))], "first");
    let runs: Vec<_> = (0..6).map(|_| world.spawn_poll(&[])).collect();
    let codes: Vec<_> = runs.into_iter().map(|run| run.wait().silent().code).collect();
    assert!(codes.iter().all(|code| [0, 75].contains(code)), "{codes:?}");
    assert_eq!(world.ran(), [("deploy".to_owned(), first)]);
}

#[test]
fn term_and_int_end_the_script_and_are_recorded_as_interrupted() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new("term");
        world.app("site").deploy("timeout = \"60s\"").write();
        let first = world.deployed_as_configured();
        let (running, script) = in_deploy(&world, SLOW);
        running.signal(signal);
        let outcome = running.wait().within(seconds(20));
        assert_ne!(outcome.code, 0, "{}", outcome.story());
        assert!(!processes::is_alive(script));
        world.expect_no_processes();
        let entries = world.journal("site");
        assert!(entries.iter().any(|e| e.outcome() == "interrupted"), "{:?}", world.history("site"));
        assert_eq!(world.recorded("site"), Some(first.clone()));
        assert_eq!(world.log().last().unwrap()["event"], "run.finished");
        world.push(&[("deploy.sh", world.script(""))], "good");
        world.poll(&[]).expect(0);
    }
}

#[test]
fn the_interrupted_commit_is_tried_again() {
    let world = World::new("again");
    world.app("site").deploy("timeout = \"60s\"\nretries = 1").write();
    world.deployed_as_configured();
    let flag = world.notes("ready");
    let script = format!("test -e '{}' || sleep 300", flag.display());
    let (running, _) = in_deploy(&world, &script);
    let second = world.repo.head();
    running.signal(Signal::SIGTERM);
    running.wait();
    fs::write(&flag, "").unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn the_deadline_of_the_run_ends_the_script() {
    let world = World::new("deadline");
    world.write_host_config("deadline = \"3s\"");
    world.app("site").deploy("timeout = \"10m\"").write();
    world.push(&[("deploy.sh", world.script(SLOW))], "slow");
    world.poll(&[]).expect_one_of(&[1, 69]).within(seconds(20));
    world.expect_no_processes();
}

#[test]
fn a_splay_and_a_wait_end_at_term_at_once() {
    let world = World::new("term early");
    let port = crate::support::mischief::silent_server();
    let url = world.sshd.url_by_port(port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"60s\"")).write();
    let running = world.spawn_poll(&[]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    running.signal(Signal::SIGTERM);
    let outcome = running.wait().within(seconds(10));
    assert!(outcome.code < 128, "it ended by itself\n{}", outcome.story());
    world.expect_no_processes();
}

/// Kills poller while its script sleeps, then polls until there is a good end; no two scripts ever.
fn killed(name: &str, kill: impl Fn(crate::support::run::Running)) {
    let world = World::new(name);
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let flag = world.notes("killed");
    let beside = format!(
        "cd '{0}'\ncase \"$(test -e alone && cut -d' ' -f3 /proc/$(cat alone)/stat 2>/dev/null)\" in ''|Z) ;; *) echo twice >> beside;; esac\n\
         echo $$ > alone\ntest -e '{1}' || sleep 300",
        world.path("notes").display(),
        flag.display()
    );
    let (running, script) = in_deploy(&world, &beside);
    let second = world.repo.head();
    kill(running);
    fs::write(&flag, "").unwrap();
    wait_until("the next run takes over", seconds(60), || world.poll(&[]).expect_one_of(&[0, 75]).code == 0);
    assert!(!processes::is_alive(script), "what the killed run left is gone");
    assert_eq!(world.note("beside"), "", "a second script ran beside the first");
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second));
    let history = world.history("site");
    assert!(history.iter().any(|entry| entry.ends_with("interrupted")), "{history:?}");
    world.expect_no_leftovers("site");
    world.expect_no_processes();
}

#[test]
fn after_a_kill_of_poller_alone_no_second_script_runs_beside_the_first() {
    killed("kill one", |running| running.kill_supervisor());
}

#[test]
fn after_a_kill_of_poller_and_its_helpers_no_second_script_runs_beside_the_first() {
    killed("kill all", |running| running.kill_all());
}

#[test]
fn a_lock_file_left_by_a_dead_run_stops_nobody() {
    let world = World::new("stale");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let (running, _) = in_deploy(&world, SLOW);
    running.kill_all();
    processes::kill_all_of(&world);
    let left = fs::read_dir(world.run_dir()).unwrap().count();
    assert!(left > 0, "the lock's file stays");
    let good = world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(0);
    world.expect_live("site", &good);
}

#[test]
fn a_process_that_got_the_dead_scripts_number_is_not_harmed() {
    let world = World::new("reused");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let (running, sleeping) = in_deploy(&world, SLOW);
    let helpers = processes::helpers_of(running.pid());
    let dead = [vec![running.pid(), processes::session_of(sleeping)], helpers].concat();
    running.kill_all();
    processes::kill_all_of(&world);
    // A bystander gets the numbers that the lock file has.
    let mut bystander = std::process::Command::new("/bin/sleep").arg("120").spawn().unwrap();
    let now = bystander.id().to_string();
    for entry in fs::read_dir(world.run_dir()).unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let changed = words.map(|word| {
            let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
            let is_dead = dead.iter().any(|pid| pid.to_string() == number);
            if is_dead { word.replace(number, &now) } else { word.to_owned() }
        });
        fs::write(entry.path(), changed.collect::<String>()).unwrap();
    }
    world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect_one_of(&[0, 75]);
    let alive = processes::is_alive(bystander.id() as i32);
    let _ = bystander.kill();
    let _ = bystander.wait();
    assert!(alive, "its start time is not the one in the lock file");
}

#[test]
fn a_keeper_that_is_killed_leaves_nothing_running() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let world = World::new("keeper");
        world.app("site").deploy("timeout = \"20s\"\nretries = 9").write();
        let first = world.deployed_as_configured();
        let (running, script) = in_deploy(&world, "setsid sleep 301 &\nsleep 300; true");
        let keeper = wait_for_keeper(&world, "site");
        processes::signal(keeper, signal);
        if signal == Signal::SIGTERM {
            // It is deaf to that one: only its poller tells it to stop.
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert!(processes::is_alive(keeper) && processes::is_alive(script));
            running.signal(Signal::SIGTERM);
        }
        running.wait().expect(1).within(seconds(40));
        world.expect_no_processes();
        world.expect_live("site", &first);
    }
}

fn keeper_of(world: &World, app: &str) -> Option<i32> {
    let lock: toml::Table = fs::read_to_string(world.run_dir().join(format!("{app}.lock"))).ok()?.parse().ok()?;
    lock.get("script")?;
    Some(lock.get("keeper")?["pid"].as_integer()? as i32)
}

/// The keeper of a script that is noted in the lock file, which may be a moment after its start.
fn wait_for_keeper(world: &World, app: &str) -> i32 {
    wait_until("the script to be noted", seconds(30), || keeper_of(world, app).is_some());
    keeper_of(world, app).unwrap()
}

#[test]
fn a_keeper_that_is_killed_takes_no_other_apps_script_with_it() {
    let world = World::new("two keepers");
    for app in ["one", "two"] {
        world.app(app).deploy("timeout = \"60s\"").write();
    }
    let go = world.notes("go");
    let script =
        format!("[ $POLLER_APP = two ] || exec sleep 300\nuntil [ -e '{}' ]; do sleep 0.1; done", go.display());
    let commit = world.push(&[("deploy.sh", world.script(&script))], "both");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("sleep 300");
    wait_for_keeper(&world, "two");
    processes::signal(wait_for_keeper(&world, "one"), Signal::SIGKILL);
    let is_over = || world.history("one").last().is_some_and(|last| last == "deploy failed");
    wait_until("the one without its keeper to fail", seconds(40), is_over);
    fs::write(go, "").unwrap();
    running.wait().expect(1);
    assert_eq!(world.history("two").last().map(String::as_str), Some("deploy deployed"));
    assert_eq!(world.recorded("two"), Some(commit));
    world.expect_no_processes();
}

/// As the unit has it: without one of them, no other user's process can be asked which run it is of.
#[test]
fn with_the_units_capabilities_a_stray_of_a_killed_run_is_found() {
    needs_root!();
    needs_program!("setpriv");
    let world = World::new("capabilities");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    let go = world.notes("go");
    let script = format!("[ ! -e '{}' ] || exit 0\nsetsid sleep 301 &\nsleep 300; true", go.display());
    let (running, _) = in_deploy(&world, &script);
    let second = world.repo.head();
    let stray = world.wait_for_script("sleep 301");
    let keeper = wait_for_keeper(&world, "site");
    // It would end the script's tree when its poller goes.
    processes::signal(keeper, Signal::SIGSTOP);
    running.kill_supervisor();
    processes::signal(keeper, Signal::SIGKILL);
    fs::write(go, "").unwrap();
    assert!(processes::is_alive(stray));
    let unit = include_str!("../../packaging/systemd/poller.service");
    let listed = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_"));
    let names = listed.flat_map(|names| names.split(" CAP_")).map(|name| format!(",+{}", name.to_lowercase()));
    let poll = world.command(&[]);
    let mut confined = Command::new("setpriv");
    confined.args(["--bounding-set", &format!("-all{}", names.collect::<String>()), "--inh-caps=-all"]);
    confined.arg(poll.get_program()).args(poll.get_args()).current_dir("/").env_clear();
    confined.envs(poll.get_envs().filter_map(|(name, value)| Some((name, value?))));
    world.spawn(confined).wait().expect(0);
    assert!(!processes::is_alive(stray));
    world.expect_live("site", &second);
    world.expect_no_processes();
}

#[test]
fn helpers_that_are_killed_while_a_script_runs_are_replaced() {
    for (word, layout) in
        [("_fetcher", "in-place"), ("_stager", "in-place"), ("_fetcher", "releases"), ("_stager", "releases")]
    {
        for status in [0, 1] {
            let world = World::new(&format!("{word} {layout} {status}"));
            world.app("site").target(&format!("layout = \"{layout}\"")).write();
            let first = world.deployed_as_configured();
            // Once only: a rollback runs its release's own script.
            let (running, script) = in_deploy(&world, &format!("sleep 300 || true\nexit {status}"));
            let second = world.repo.head();
            let is_it = |pid: &i32| processes::command_line(*pid).contains(word);
            let helper = processes::helpers_of(running.pid()).into_iter().find(is_it).expect(word);
            processes::signal(helper, Signal::SIGKILL);
            processes::signal(script, Signal::SIGKILL);
            running.wait().expect(status);
            world.expect_live("site", if status == 0 { &second } else { &first });
            let ending = if status == 0 { "deploy deployed" } else { "deploy failed" };
            assert_eq!(world.history("site").last().map(String::as_str), Some(ending));
            world.expect_no_leftovers("site");
            world.expect_no_processes();
        }
    }
}

#[test]
fn an_app_that_has_ended_is_free_while_another_one_takes_long() {
    let world = World::new("free early");
    world.app("quick").deploy("script = \"/bin/true\"").write();
    world.app("slow").deploy("timeout = \"60s\"").write();
    world.push(&[("deploy.sh", world.script(SLOW))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("sleep 300");
    wait_until("the quick one to be deployed", seconds(30), || world.recorded("quick").is_some());
    wait_until("its lock", seconds(10), || world.poll(&["freeze", "quick", "--reason", "x"]).code == 0);
    running.signal(Signal::SIGTERM);
    running.wait();
    world.poll(&["status"]).expect(0).prints("frozen");
}

/// Its first thread ends, another goes on: to whoever looks at its state alone it is dead.
const HEADLESS: &str = "import ctypes, threading, time\n\
     threading.Thread(target=time.sleep, args=(1000,)).start()\n\
     ctypes.CDLL(None).syscall(60, 0)\n";

#[test]
fn a_child_whose_first_thread_has_ended_is_found_all_the_same() {
    needs_program!("python3");
    if cfg!(not(target_arch = "x86_64")) {
        skip!("knows the number of exit on x86_64 alone")
    }
    let world = World::new("headless");
    world.app("site").write();
    let program = world.write_etc("headless.py", HEADLESS);
    let script = format!("setsid python3 '{}' > /dev/null 2>&1 &\nsleep 1\nexit 0", program.display());
    world.push(&[("deploy.sh", world.script(&script))], "first");
    world.poll(&[]).expect(1).says("left running was ended").says("python3");
    world.expect_no_processes();
}
