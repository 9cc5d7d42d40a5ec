//! What `poller init` says in the end: each step, the key and where to add it, and what comes next.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Parts;
use super::forge::{self, Desk};
use crate::report::printable;

pub struct Told {
    app: String,
    steps: Vec<Step>,
    /// The public half, and whether the key was made just now.
    key: Option<(String, Age)>,
    desk: Desk,
    next: [String; 2],
}

struct Step {
    name: &'static str,
    what: String,
    age: Age,
    json: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Kept,
}

impl Age {
    fn of(is_there: bool) -> Age {
        if is_there { Age::Kept } else { Age::New }
    }

    fn word(self) -> &'static str {
        match self {
            Age::New => "new",
            Age::Kept => "kept",
        }
    }
}

impl Told {
    /// `named`: the poller.toml that the command line named.
    pub fn of(parts: &Parts, named: Option<&Path>) -> Result<Told> {
        let app = parts.app;
        let mut steps = Vec::new();
        let mut key = None;
        if let Some(own) = &parts.key {
            let age = Age::of(own.is_there());
            let path = own.path.display().to_string();
            steps.push(Step {
                name: "key",
                what: format!("{path}, {}", age.word()),
                age,
                json: json!({ "path": path }),
            });
            key = Some((own.public_line()?, age));
        }
        if let Some(host_key) = &parts.host_key {
            let age = Age::of(host_key.is_there());
            let (name, path) = (host_key.name(), host_key.path.display().to_string());
            let (kind, print) = host_key.pins.first().cloned().unwrap_or_default();
            let pinned = if age == Age::New { "pinned in" } else { "kept in" };
            let keys: Vec<_> =
                host_key.pins.iter().map(|(kind, print)| json!({ "type": kind, "fingerprint": print })).collect();
            steps.push(Step {
                name: "host key",
                what: format!("{name} {kind} {print}, {pinned} {path}"),
                age,
                json: json!({ "host": name, "path": path, "keys": keys }),
            });
        }
        let age = Age::of(parts.place.is_there());
        let (path, user) = (app.target.directory.display().to_string(), &parts.account.name);
        let kept = if age == Age::Kept { ", kept" } else { "" };
        steps.push(Step {
            name: "directory",
            what: format!("{path}, for {user}{kept}"),
            age,
            json: json!({ "path": path, "user": user }),
        });
        let age = Age::of(parts.text.is_none());
        let path = app.file.display().to_string();
        let kept = if age == Age::Kept { ", kept as it is" } else { "" };
        steps.push(Step { name: "app", what: format!("{path}{kept}"), age, json: json!({ "path": path }) });
        let config = match named {
            Some(file) => format!("--config {} ", shlex::try_quote(&file.display().to_string())?),
            None => String::new(),
        };
        let next = [format!("poller {config}check {}", app.name), format!("poller {config}{}", app.name)];
        Ok(Told { app: app.name.to_string(), steps, key, desk: forge::desk(&app.source.remote), next })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            text += &format!("✓ {:<10}  {}\n", step.name, printable(&step.what));
        }
        if let Some((line, age)) = &self.key {
            let add = match age {
                Age::New => "Now add this key to the repository, read-only",
                Age::Kept => "Unless that is done, add this key to the repository, read-only",
            };
            text += &match &self.desk.page {
                Some(page) => format!("\n{add}, at\n  {page}\n  ({})\n", self.desk.advice),
                None => format!("\n{add}, in {}:\n", self.desk.advice),
            };
            text += &format!("\n  {}\n", printable(line));
        }
        let [check, poll] = &self.next;
        text + &format!("\nThen:\n  {check}\n  {poll}\n")
    }

    pub fn json(&self) -> Value {
        let step = |step: &Step| {
            let mut json = json!({ "step": step.name, "done": step.age.word() });
            if let (Some(json), Some(more)) = (json.as_object_mut(), step.json.as_object()) {
                json.extend(more.clone());
            }
            json
        };
        let steps: Vec<_> = self.steps.iter().map(step).collect();
        let key = self.key.as_ref().map(|(line, _)| line);
        let page = self.key.as_ref().and(self.desk.page.as_ref());
        json!({
            "schema": 1,
            "app": self.app,
            "steps": steps,
            "public_key": key,
            "page": page,
            "advice": key.map(|_| self.desk.advice),
            "next": self.next,
        })
    }
}
