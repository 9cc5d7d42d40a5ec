//! What the deploy user leaves lying in his tree: the next poll mends it, or says what to mend.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Canary, expect_published, make, push, put_back, replace};
use crate::repository::sample;
use crate::support::{World, set_mode, sh};
use crate::tally::{Group, Tally};

/// What he does, whether the next poll succeeds or says this, and how it is undone.
struct Left {
    what: &'static str,
    act: fn(&World, &Path, &Canary),
    says: Option<&'static str>,
    undo: fn(&Path),
}

fn nothing(_: &Path) {}

fn as_him(world: &World, script: &str) {
    let target = world.target("site");
    sh("runuser", &["-u", &world.deployer.name, "--", "sh", "-ec", script, "sh", target.to_str().unwrap()]);
}

fn leftovers() -> Vec<Left> {
    vec![
        Left {
            what: "`releases` is a link to a folder of his",
            act: |world, target, canary| replace(world, &target.join("releases"), &canary.folder.join("his")),
            says: Some("/releases is not a folder"),
            undo: |target| put_back(&target.join("releases")),
        },
        Left {
            what: "`releases` is a link to root's",
            act: |world, target, canary| replace(world, &target.join("releases"), &canary.folder.join("roots")),
            says: Some("/releases is not a folder"),
            undo: |target| put_back(&target.join("releases")),
        },
        Left {
            what: "`shared` is a link",
            act: |world, target, canary| replace(world, &target.join("shared"), &canary.folder.join("his")),
            says: Some("/shared is not a folder"),
            undo: |target| put_back(&target.join("shared")),
        },
        Left {
            what: "`current` is a folder",
            act: |world, _, _| as_him(world, "rm \"$1/current\"; mkdir \"$1/current\"; echo > \"$1/current/mine\""),
            says: Some("current is not a link, so poller did not make it"),
            undo: |target| fs::remove_dir_all(target.join("current")).unwrap(),
        },
        Left {
            what: "`current` leads outside",
            act: |_, target, canary| {
                fs::remove_file(target.join("current")).unwrap();
                symlink(canary.folder.join("his"), target.join("current")).unwrap();
            },
            says: None,
            undo: nothing,
        },
        Left {
            what: "`current` is gone",
            act: |world, _, _| as_him(world, "rm \"$1/current\""),
            says: None,
            undo: nothing,
        },
        Left {
            what: "`current.partial` is a full folder",
            act: |world, _, _| as_him(world, "mkdir -p \"$1/current.partial/a/b\"; echo > \"$1/current.partial/a/c\""),
            says: None,
            undo: nothing,
        },
        Left {
            what: "pipes, files and links named .partial",
            act: |world, _, _| {
                as_him(
                    world,
                    "cd \"$1/releases\"; mkfifo a.partial; echo > b.partial; ln -s / c.partial; mkdir d.partial",
                );
            },
            says: None,
            undo: nothing,
        },
        Left {
            what: "closed folders in old releases",
            act: |world, _, _| {
                as_him(world, "cd \"$1/releases\"; for r in *; do chmod 0 \"$r/folder/inner\" \"$r/folder\"; done")
            },
            says: None,
            undo: nothing,
        },
        Left {
            what: "an old release of 5,000 levels",
            act: |world, _, _| {
                let deep = "cd \"$1/releases\"; for r in *; do cd \"$1/releases/$r\"; break; done; \
                     i=0; while [ $i -lt 50 ]; do d=d; j=0; while [ $j -lt 99 ]; do d=$d/d; j=$((j+1)); done; \
                     mkdir -p $d; cd -P $d; i=$((i+1)); done; [ $i = 50 ]";
                as_him(world, deep);
            },
            says: None,
            undo: nothing,
        },
        Left {
            what: "`releases` is closed to him",
            act: |_, target, _| set_mode(&target.join("releases"), 0),
            says: Some("/releases: Permission denied"),
            undo: |target| set_mode(&target.join("releases"), 0o755),
        },
        Left {
            what: "the target is closed to him",
            act: |_, target, _| set_mode(target, 0),
            says: Some("cannot be opened: Permission denied"),
            undo: |target| set_mode(target, 0o755),
        },
        Left {
            what: "the target is root's",
            act: |_, target, _| sh_chown("root", target),
            says: Some("Permission denied"),
            undo: |target| {
                let uid = fs::metadata(target.join("releases")).unwrap();
                use std::os::unix::fs::MetadataExt;
                sh_chown(&uid.uid().to_string(), target);
            },
        },
    ]
}

fn sh_chown(owner: &str, path: &Path) {
    sh("chown", &[owner, path.to_str().unwrap()]);
}

#[test]
fn what_is_left_lying_is_mended_or_named() {
    needs_root!();
    let mut tally = Tally::new(Group::Repository);
    let (world, canary) = make("left", "releases");
    let target = world.target("site");
    for round in 0..3 {
        push(&world, round);
        world.poll(&[]).expect(0);
    }
    for (number, left) in sample(leftovers(), 2).into_iter().enumerate() {
        tally.case(left.what);
        (left.act)(&world, &target, &canary);
        let tip = push(&world, number + 10);
        match left.says {
            None => drop(world.poll(&[]).expect(0)),
            Some(words) => {
                let outcome = world.poll(&[]).expect_one_of(&[74, 77, 78]);
                assert!(outcome.stderr.contains(words), "{}: {words:?}\n{}", left.what, outcome.story());
                tally.note(format!("{}: exit {}", left.what, outcome.code));
                (left.undo)(&target);
                world.poll(&[]).expect(0);
            }
        }
        expect_published(&world, &tip);
        world.expect_no_leftovers("site");
        assert!(world.releases("site").len() <= 4, "{:?}", world.releases("site"));
        canary.expect_untouched();
    }
}
