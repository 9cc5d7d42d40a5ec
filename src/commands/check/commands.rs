//! Build, script and health command: whether each is there and could be run.

use super::app::WOULD_FAIL;
use super::finding::Finding;
use super::host;
use crate::config::{App, Command};
use crate::processes::helper::PATH;
use crate::processes::messages::{First, InTree, Mode};
use std::path::Path;

/// The commands of an app, with the words for them.
pub struct Needs<'a> {
    commands: Vec<(&'static str, &'a Command)>,
    pub path: &'a str,
    /// The folder of the repository that is published.
    subdir: Option<&'a str>,
}

/// Where a command's program is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `./deploy.sh`
    Release,
    /// `/usr/bin/rsync`
    Host,
    /// `make`
    Path,
}

fn place(command: &Command) -> Place {
    match command.program() {
        program if program.starts_with('/') => Place::Host,
        program if program.contains('/') => Place::Release,
        _ => Place::Path,
    }
}

impl<'a> Needs<'a> {
    pub fn of(app: &'a App) -> Needs<'a> {
        let health = app.health.as_ref().and_then(|health| health.command.as_ref());
        let all = [("build", app.deploy.build.as_ref()), ("script", app.deploy.script.as_ref()), ("health", health)];
        let commands = all.into_iter().filter_map(|(what, command)| Some((what, command?))).collect();
        let path = app.deploy.env.get("PATH").map_or(PATH, String::as_str);
        Needs { commands, path, subdir: app.source.subdir.as_deref() }
    }

    /// The paths to look for in the commit. A name alone is looked for too, for it is a common slip.
    pub fn in_tree(&self) -> Vec<String> {
        let asked = self.commands.iter().filter(|(_, command)| place(command) != Place::Host);
        asked.map(|(_, command)| command.program().to_owned()).collect()
    }

    /// The programs of the host that must be there: commands, and what runs scripts.
    pub fn on_host(&self, in_tree: Option<&[InTree]>) -> Vec<String> {
        let mut programs: Vec<String> = Vec::new();
        for (command, found) in self.with_finds(in_tree) {
            match (place(command.1), found) {
                (Place::Host | Place::Path, _) => programs.push(command.1.program().to_owned()),
                (Place::Release, Some(InTree::File { first: First::Interpreter(line), .. })) => {
                    programs.extend(interpreters(line));
                }
                (Place::Release, _) => {}
            }
        }
        programs
    }

    fn with_finds<'f>(&self, in_tree: Option<&'f [InTree]>) -> Vec<((&'static str, &'a Command), Option<&'f InTree>)> {
        let mut found = in_tree.into_iter().flatten();
        let find = |(what, command): &(&'static str, &'a Command)| {
            let find = if place(command) == Place::Host { None } else { found.next() };
            ((*what, *command), find)
        };
        self.commands.iter().map(find).collect()
    }
}

/// What a first line needs: its program, and what `env` would start.
fn interpreters(line: &str) -> Vec<String> {
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let Some(program) = words.next() else { return Vec::new() };
    let mut needed = vec![program.to_owned()];
    if program.ends_with("/env") {
        // env's own options and assignments are not its program.
        needed.extend(words.find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_owned));
    }
    needed
}

/// One finding a command. `unusable`: programs of the host that the deploy user cannot run; None when
/// nobody could be asked.
pub fn judge(needs: &Needs, in_tree: Option<&[InTree]>, unusable: Option<&[String]>) -> Vec<Finding> {
    let mut found = Vec::new();
    let builds = needs.commands.iter().any(|(what, _)| *what == "build");
    for ((what, command), find) in needs.with_finds(in_tree) {
        let lacks = |program: &str| unusable.is_some_and(|all| all.iter().any(|one| one == program));
        let program = command.program();
        let finding = match (place(command), find) {
            (Place::Host, _) => match host::program(what, Path::new(program)) {
                Some(finding) => finding,
                None if lacks(program) => {
                    Finding::failed(what, WOULD_FAIL, format!("{program} cannot be run by the app's user"))
                        .fix(format!("look at: namei -l {program}"))
                }
                None => Finding::ok(what, command.to_string()),
            },
            (Place::Path, Some(InTree::File { .. })) if lacks(program) => Finding::failed(
                what,
                WOULD_FAIL,
                format!("`{program}` is no program of this host, but a file of the commit"),
            )
            .fix(format!("write ./{program}")),
            (Place::Path, _) if lacks(program) => {
                Finding::failed(what, WOULD_FAIL, format!("there is no program `{program}` in {}", needs.path))
                    .fix("install it, write its whole path, or set PATH in `[deploy] env`")
            }
            (Place::Path, _) => Finding::ok(what, command.to_string()),
            (Place::Release, Some(find)) => in_release(what, command, needs.subdir, find, &lacks),
            // The commit could not be looked at, which is told where it happened.
            (Place::Release, None) => continue,
        };
        // What a build makes is not in the commit.
        found.push(if builds && what != "build" && finding.is_failed() && place(command) == Place::Release {
            Finding {
                fix: finding.fix.clone(),
                ..Finding::warning(what, finding.text.clone() + ", unless the build sees to it")
            }
        } else {
            finding
        });
    }
    found
}

fn in_release(
    what: &'static str,
    command: &Command,
    subdir: Option<&str>,
    find: &InTree,
    lacks: &dyn Fn(&str) -> bool,
) -> Finding {
    let program = command.program();
    let file = program.trim_start_matches("./");
    // As git names it, from the top of the repository.
    let file = &subdir.map_or_else(|| file.to_owned(), |subdir| format!("{subdir}/{file}"));
    let failed = |text: String| Finding::failed(what, WOULD_FAIL, text);
    match find {
        InTree::Missing => {
            failed(format!("{program} is not in the commit")).fix("commit it, or correct the name in the app's file")
        }
        InTree::Folder => failed(format!("{program} is a folder in the commit")).fix("name a file in it"),
        InTree::Elsewhere => {
            Finding::ok(what, format!("{command}, which lies outside of the commit and was not looked at"))
        }
        InTree::File { mode: Mode::Plain, .. } => failed(format!("{program} is not executable in the commit"))
            .fix(format!("git update-index --chmod=+x {file} && git commit -m \"Make {file} executable\" && git push")),
        InTree::File { first: First::Other, .. } => failed(format!("{program} does not say what runs it"))
            .fix("begin its first line with #!, such as #!/bin/sh"),
        InTree::File { first: First::Interpreter(line), .. } => {
            let needed = interpreters(line);
            match needed.iter().find(|program| lacks(program)) {
                _ if needed.is_empty() => {
                    failed(format!("{program} begins with #! and nothing")).fix("name a program: #!/bin/sh")
                }
                Some(_) if line.ends_with("\\r") => failed(format!("{program} has the line ends of Windows: #!{line}"))
                    .fix(format!("git add --renormalize {file}, with `{file} text eol=lf` in .gitattributes")),
                Some(missing) => failed(format!("{program} is run by {missing}, which the app's user cannot run here"))
                    .fix(format!("install it, or correct the first line of {file}: #!{line}")),
                None => Finding::ok(what, command.to_string()),
            }
        }
        InTree::File { first: First::Elf, .. } => Finding::ok(what, command.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn command(text: &str) -> Command {
        #[derive(serde::Deserialize)]
        struct One {
            c: Command,
        }
        toml::from_str::<One>(&format!("c = {text:?}")).unwrap().c
    }

    fn file(mode: Mode, first: First) -> InTree {
        InTree::File { mode, first }
    }

    #[test]
    fn each_reason_why_a_script_would_not_run_has_its_remedy() {
        let shell = || First::Interpreter("/bin/sh".to_owned());
        let env = First::Interpreter("/usr/bin/env -S LC_ALL=C python9 -u".to_owned());
        let windows = First::Interpreter("/bin/sh\\r".to_owned());
        for (script, find, unusable, text, fix) in [
            ("./d.sh", file(Mode::Executable, shell()), vec![], "./d.sh", ""),
            ("./d.sh a", file(Mode::Executable, First::Elf), vec![], "./d.sh a", ""),
            ("./d.sh", InTree::Missing, vec![], "not in the commit", "commit it"),
            ("bin/d.sh", file(Mode::Plain, shell()), vec![], "not executable", "--chmod=+x site/bin/d.sh"),
            ("./d.sh", file(Mode::Executable, First::Other), vec![], "what runs it", "#!/bin/sh"),
            ("./d.sh", file(Mode::Executable, env), vec!["python9"], "run by python9", "install it"),
            ("./d.sh", file(Mode::Executable, windows), vec!["/bin/sh\\r"], "Windows", "eol=lf"),
            ("d.sh", file(Mode::Executable, shell()), vec!["d.sh"], "a file of the commit", "./d.sh"),
            ("make", InTree::Missing, vec!["make"], "no program `make`", "install it"),
            ("make", InTree::Missing, vec![], "make", ""),
            ("./d", InTree::Folder, vec![], "a folder", "name a file"),
        ] {
            let script = command(script);
            let needs = Needs { commands: vec![("script", &script)], path: "/bin", subdir: Some("site") };
            let unusable: Vec<String> = unusable.into_iter().map(str::to_owned).collect();
            let found = judge(&needs, Some(&[find]), Some(&unusable));
            assert_eq!(found.len(), 1);
            assert!(found[0].text.contains(text) && found[0].fix.join(" ").contains(fix), "{:?}", found[0]);
            assert_eq!(found[0].is_failed(), !fix.is_empty(), "{:?}", found[0]);
        }
    }

    #[test]
    fn what_a_build_may_make_is_a_warning_and_the_finds_stay_with_their_commands() {
        let (build, script, health) = (command("/bin/true"), command("./out/d"), command("./h"));
        let commands = vec![("build", &build), ("script", &script), ("health", &health)];
        let needs = Needs { commands, path: "/bin", subdir: None };
        assert_eq!(needs.in_tree(), ["./out/d", "./h"]);
        let in_tree = [InTree::Missing, file(Mode::Executable, First::Interpreter("/bin/sh".to_owned()))];
        assert_eq!(needs.on_host(Some(&in_tree)), ["/bin/true", "/bin/sh"]);
        let found = judge(&needs, Some(&in_tree), Some(&[]));
        let verdicts: Vec<Verdict> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warning, Verdict::Ok]);
        assert_eq!(judge(&needs, None, None).len(), 1);
    }
}
