//! The deploy user's hands: this test program, started once more as him, which swaps as fast as it can.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::support::{World, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// This path of the target becomes a link and itself again.
    Path(&'static str),
    /// Each release, whole or partial, does.
    Releases,
    /// A folder inside each release does.
    Inside,
    /// Folders are closed to their owner and opened again.
    Modes,
    /// Files, pipes, folders and hard links appear under poller's own names.
    Clutter,
}

impl Trick {
    pub fn needs_no_aim(self) -> bool {
        matches!(self, Trick::Modes | Trick::Clutter)
    }

    fn word(self) -> String {
        match self {
            Trick::Path(path) => format!("path {path}"),
            other => format!("{other:?}"),
        }
    }
}

pub struct Hands {
    child: Child,
    folder: PathBuf,
}

impl Hands {
    pub fn start(world: &World, target: &Path, trick: Trick, aim: &Path) -> Hands {
        let folder = world.notes("hands");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        world.deployer.own(&folder);
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "--ignored", "swap::hands::hands_of_the_deploy_user"]);
        command.env_clear().env("TARGET", target).env("TRICK", trick.word()).env("AIM", aim).env("FOLDER", &folder);
        command.uid(world.deployer.uid).gid(world.deployer.gid).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let hands = Hands { child, folder };
        wait_until("the first swap", crate::support::seconds(20), || hands.folder.join("began").exists());
        hands
    }

    /// Lets them put everything back; how often they swapped.
    pub fn stop(mut self) -> u64 {
        fs::write(self.folder.join("stop"), "").unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the hands ended with {status}");
        fs::read_to_string(self.folder.join("count")).unwrap().parse().unwrap()
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "not a test: the others here start it as the deploy user"]
fn hands_of_the_deploy_user() {
    let Some(folder) = std::env::var_os("FOLDER").map(PathBuf::from) else { return };
    let var = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let (target, aim, trick) = (var("TARGET"), var("AIM"), std::env::var("TRICK").unwrap());
    let mut count = 0u64;
    // It ends by itself should nobody stop it.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(900);
    while !folder.join("stop").exists() && std::time::Instant::now() < end {
        for _ in 0..20 {
            count += play(&target, &aim, &trick);
        }
        let _ = fs::write(folder.join("began"), "");
    }
    fs::write(folder.join("count"), count.to_string()).unwrap();
}

fn play(target: &Path, aim: &Path, trick: &str) -> u64 {
    let releases = || names(&target.join("releases"));
    match trick {
        "Releases" => releases().iter().map(|path| swap(target, path, aim)).sum(),
        "Inside" => releases().iter().map(|path| swap(target, &path.join("folder"), aim)).sum(),
        "Modes" => {
            let mut all = releases();
            all.extend([target.join("releases"), target.join("shared"), target.to_owned()]);
            let closed = all.iter().filter(|path| chmod(path, 0o000)).count();
            all.reverse();
            let opened = all.iter().filter(|path| chmod(path, 0o755)).count();
            closed.min(opened) as u64
        }
        "Clutter" => clutter(target),
        path => swap(target, &target.join(path.strip_prefix("path ").unwrap()), aim),
    }
}

/// There and back. What cannot go back, because poller removed the link, is thrown away.
fn swap(target: &Path, path: &Path, aim: &Path) -> u64 {
    let hand = target.join(".hand");
    if fs::read_link(&hand).ok().as_deref() != Some(aim) {
        let _ = fs::remove_dir_all(&hand).or_else(|_| fs::remove_file(&hand));
        let _ = symlink(aim, &hand);
    }
    let exchange = || renameat2(AT_FDCWD, &hand, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE).is_ok();
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) && !path.ends_with("current") {
        return 0;
    }
    if !exchange() {
        return 0;
    }
    if !exchange() {
        let _ = fs::remove_dir_all(&hand).or_else(|_| fs::remove_file(&hand));
    }
    2
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn chmod(path: &Path, mode: u32) -> bool {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    is_folder && fs::set_permissions(path, fs::Permissions::from_mode(mode)).is_ok()
}

fn clutter(target: &Path) -> u64 {
    let releases = target.join("releases");
    let pipe = nix::sys::stat::Mode::from_bits_truncate(0o600);
    let mut made = 0;
    for folder in names(&releases).into_iter().chain([target.join("current")]) {
        made += u64::from(fs::write(folder.join("index.html"), "planted").is_ok());
        made += u64::from(nix::unistd::mkfifo(&folder.join("pipe"), pipe).is_ok());
    }
    made += u64::from(nix::unistd::mkfifo(&releases.join("pipe.partial"), pipe).is_ok());
    made += u64::from(fs::create_dir_all(target.join("current.partial/full/of")).is_ok());
    made += u64::from(fs::write(target.join("current.partial/full/file"), "").is_ok());
    made += u64::from(fs::hard_link(target.join("current/deploy.sh"), releases.join("hard.partial")).is_ok());
    let _ = fs::remove_file(releases.join("hard.partial"));
    for path in names(&releases) {
        let _ = fs::remove_file(path.join("pipe"));
    }
    made
}
