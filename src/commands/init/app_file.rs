//! The app's file: short, for whoever reads it next. What is not in it is at its default.

use toml::Value;

use super::answers::Answers;
use crate::config::{AppName, Follow, Remote};

/// The text of apps.d/NAME.toml.
pub fn text(name: &AppName, url: &str, remote: &Remote, answers: &Answers) -> String {
    let (kind, reference) = match &answers.follow {
        Follow::Branch(branch) => ("branch", branch),
        Follow::Tag(pattern) => ("tag", pattern),
        Follow::Ref(reference) => ("ref", reference),
    };
    let mut text =
        String::from("# Every key there is, and what holds where one is left out: man poller.toml\n\n[source]\n");
    text += &line("url", url.into());
    text += &line(kind, reference.as_str().into());
    if let Remote::Ssh { .. } = remote {
        text += &line("identity", identity(name).into());
    }
    text += "\n[target]\n";
    text += &line("directory", answers.directory.to_string_lossy().into_owned().into());
    text += "\n[deploy]\n";
    if let Some(user) = &answers.user {
        text += &line("user", user.as_str().into());
    }
    text += &line("script", answers.script.as_str().into());
    if !answers.restart.is_empty() {
        text += &line("restart", answers.restart.clone().into());
    }
    text
}

fn line(key: &str, value: Value) -> String {
    format!("{key} = {value}\n")
}

/// Where the key of an app lies, from the folder of poller.toml.
fn identity(name: &AppName) -> String {
    format!("keys/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::given;

    #[test]
    fn what_was_answered_is_written_and_nothing_else_and_whatever_it_holds_it_is_one_value() {
        let url = "git@git.example.org:a\"b\\c.git";
        let answers = Answers {
            follow: Follow::Tag("v*".to_owned()),
            directory: "/srv/it's \"here\"".into(),
            user: None,
            script: "sh -c 'echo \"$HOME\"\t\\'".to_owned(),
            restart: vec!["a.service".to_owned(), "b@1.timer".to_owned()],
        };
        let name = AppName::parse("site").unwrap();
        let text = text(&name, url, &given::remote(url).unwrap(), &answers);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["source"]["url"].as_str(), Some(url));
        assert_eq!(table["source"]["tag"].as_str(), Some("v*"));
        assert_eq!(table["source"]["identity"].as_str(), Some("keys/site"));
        assert_eq!(table["target"]["directory"].as_str(), answers.directory.to_str());
        assert_eq!(table["deploy"]["script"].as_str(), Some(answers.script.as_str()));
        assert_eq!(table["deploy"]["restart"].as_array().unwrap().len(), 2);
        let keys: usize = table.values().map(|t| t.as_table().unwrap().len()).sum();
        assert_eq!((table.len(), keys), (3, 6));
    }
}
