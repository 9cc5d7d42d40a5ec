//! logrotate, forced in the middle of a long deploy: no line is lost, none is torn.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::readers::read_log;
use crate::support::{World, seconds, wait_until};

/// The shipped drop-in for this world's log and users.
fn drop_in(world: &World) -> std::path::PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("logrotate/poller");
    let text = fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    assert!(!text.lines().any(|line| line.trim() == "copytruncate"), "it loses lines");
    let folder = world.log_file().parent().unwrap().to_owned();
    let own = |line: &str| -> String {
        let first = line.split_whitespace().next().unwrap_or("");
        if !["su", "create"].contains(&first) {
            return line.replace("/var/log/poller", folder.to_str().unwrap());
        }
        let words = line.split_whitespace();
        let words = words.map(|word| if word == "poller" { world.fetcher.name.as_str() } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    let text = text.lines().map(own).collect::<Vec<_>>().join("\n") + "\n";
    let path = world.write_etc("logrotate", &text);
    assert!(text.contains(folder.to_str().unwrap()), "{text}");
    path
}

fn rotate(world: &World, conf: &Path) {
    let status = Command::new("/usr/sbin/logrotate")
        .arg("-f")
        .arg("-s")
        .arg(world.path("logrotate.state"))
        .arg(conf)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && !said.contains("error"), "{said}");
}

#[test]
fn rotation_in_the_middle_of_a_deploy_loses_no_line() {
    needs_root!();
    needs_program!("logrotate");
    let world = World::new("rotate");
    world.app("site").write();
    let script = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo line number $n; sleep 0.01; done";
    world.deployed_as_configured();
    world.push(&[("deploy.sh", world.script(script))], "slow");
    let conf = drop_in(&world);
    let running = world.spawn_poll(&[]);
    // Not by the strict reader: it may meet a line that is just being written.
    let begun = || fs::read_to_string(world.log_file()).is_ok_and(|text| text.contains("line number 20\""));
    wait_until("the script speaks", seconds(20), begun);
    rotate(&world, &conf);
    running.wait().expect(0);
    world.poll(&[]).expect(0).silent();
    let mut lines = Vec::new();
    let mut parts: Vec<_> = fs::read_dir(world.log_file().parent().unwrap()).unwrap().flatten().collect();
    parts.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
    assert!(parts.len() >= 2, "it was rotated");
    for part in parts {
        assert!(!part.file_name().to_str().unwrap().ends_with(".gz"), "delaycompress spares the last");
        lines.extend(read_log(&part.path()));
    }
    let said: Vec<_> = lines.iter().filter(|line| line["event"] == "deploy.output").collect();
    let text = said.iter().map(|line| line.to_string()).collect::<String>();
    for n in 1..=400 {
        assert!(text.contains(&format!("line number {n}\"")), "line {n} is lost");
    }
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(count("run.started"), count("run.finished"));
    assert!(world.events("poll.unchanged").len() == 1, "the next run writes to the new file");
}

#[test]
fn logrotate_finds_no_mistake_in_the_drop_in() {
    needs_root!();
    needs_program!("logrotate");
    let world = World::new("rotate check");
    world.deployed();
    let conf = drop_in(&world);
    let out = Command::new("/usr/sbin/logrotate").arg("-d").arg(&conf).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && !said.contains("error:"), "{said}");
}
