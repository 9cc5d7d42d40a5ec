//! Where a repository's deploy keys are added: the page of each forge, as far as the URL tells.

use crate::config::Remote;

/// Where to add a key, and how to keep it read-only there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desk {
    pub page: Option<String>,
    /// What to do there.
    pub advice: &'static str,
}

const GITHUB: &str = "leave \"Allow write access\" unticked";
const GITLAB: &str = "leave \"Grant write permissions to this key\" unticked";
const BITBUCKET: &str = "access keys can only read";
const GITEA: &str = "leave \"Enable write access\" unticked";
const SOURCEHUT: &str = "keys belong to accounts there: best to one of its own, which may only read the repository";
const OTHER: &str = "your server's deploy keys";

/// The page for a repository's keys. Other than for the public forges, only a host's name can hint at what runs there.
pub fn desk(remote: &Remote) -> Desk {
    let other = Desk { page: None, advice: OTHER };
    let Remote::Ssh { host, path, .. } = remote else { return other };
    let host = host.to_ascii_lowercase();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let depth = path.split('/').count();
    if path.starts_with('~') && host != "git.sr.ht" || depth < 2 {
        return other;
    }
    let path = encoded(path);
    let of = |page: String, advice| Desk { page: Some(page), advice };
    match host.as_str() {
        "github.com" | "ssh.github.com" if depth == 2 => {
            of(format!("https://github.com/{path}/settings/keys/new"), GITHUB)
        }
        "gitlab.com" | "altssh.gitlab.com" => of(gitlab("gitlab.com", &path), GITLAB),
        "bitbucket.org" | "altssh.bitbucket.org" if depth == 2 => {
            of(format!("https://bitbucket.org/{path}/admin/access-keys/"), BITBUCKET)
        }
        "codeberg.org" if depth == 2 => of(gitea(&host, &path), GITEA),
        "git.sr.ht" => of("https://meta.sr.ht/keys".to_owned(), SOURCEHUT),
        _ if host.starts_with("gitlab.") => of(gitlab(&host, &path), GITLAB),
        _ if (host.starts_with("gitea.") || host.starts_with("forgejo.")) && depth == 2 => {
            of(gitea(&host, &path), GITEA)
        }
        _ => other,
    }
}

fn gitlab(host: &str, path: &str) -> String {
    format!("https://{host}/{path}/-/settings/repository#js-deploy-keys-settings")
}

fn gitea(host: &str, path: &str) -> String {
    format!("https://{host}/{path}/settings/keys")
}

/// As a browser wants it, whatever the path holds.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::given;

    #[test]
    fn each_forge_has_its_page() {
        for (url, page, advice) in [
            ("git@github.com:me/todo.git", "https://github.com/me/todo/settings/keys/new", GITHUB),
            ("ssh://git@ssh.github.com:443/me/todo.git", "https://github.com/me/todo/settings/keys/new", GITHUB),
            (
                "git@gitlab.com:group/sub/todo.git",
                "https://gitlab.com/group/sub/todo/-/settings/repository#js-deploy-keys-settings",
                GITLAB,
            ),
            (
                "ssh://git@gitlab.example.org:2222/a/b",
                "https://gitlab.example.org/a/b/-/settings/repository#js-deploy-keys-settings",
                GITLAB,
            ),
            ("git@bitbucket.org:team/todo.git", "https://bitbucket.org/team/todo/admin/access-keys/", BITBUCKET),
            ("git@Codeberg.org:me/todo.git", "https://codeberg.org/me/todo/settings/keys", GITEA),
            ("git@gitea.example.org:me/todo", "https://gitea.example.org/me/todo/settings/keys", GITEA),
            ("git@forgejo.example.org:me/a b", "https://forgejo.example.org/me/a%20b/settings/keys", GITEA),
            ("git@git.sr.ht:~me/todo", "https://meta.sr.ht/keys", SOURCEHUT),
        ] {
            let desk = desk(&given::remote(url).unwrap());
            assert_eq!((desk.page.as_deref(), desk.advice), (Some(page), advice), "{url}");
        }
    }

    #[test]
    fn of_other_servers_nothing_is_guessed() {
        for url in ["git@git.example.org:me/todo.git", "git@github.com:todo.git", "root@10.0.0.1:/srv/git/todo.git"] {
            assert_eq!(desk(&given::remote(url).unwrap()), Desk { page: None, advice: OTHER }, "{url}");
        }
    }
}
