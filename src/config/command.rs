//! Commands as they are written in the configuration: a string, or an array of strings.
//!
//! A string is split as a shell would split it, and that is all of a shell that there is: no variables, pipes or patterns.

use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::problem::Fault;

/// A program and its arguments, run without a shell. Its `Display` is quoted as a shell would want it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Command(Vec<String>);

impl Command {
    fn checked(argv: Vec<String>) -> Result<Command, Fault> {
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Fault::new("a command has no NUL character"));
        }
        match argv.first() {
            Some(program) if !program.is_empty() => Ok(Command(argv)),
            _ => Err(Fault::new("the command is empty").help("name a program, or leave the key out")),
        }
    }

    pub(super) fn split(text: &str) -> Result<Command, Fault> {
        let argv = shlex::split(text)
            .ok_or_else(|| Fault::new("a quote in the command is not closed, or it ends with a backslash"))?;
        Command::checked(argv)
    }

    pub fn argv(&self) -> &[String] {
        &self.0
    }

    pub fn program(&self) -> &str {
        &self.0[0]
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(String::as_str);
        // It fails on NUL only, which `checked` refuses.
        f.write_str(&shlex::try_join(words).map_err(|_| fmt::Error)?)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Command, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Command, E> {
                Command::split(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Command, A::Error> {
                let mut argv = Vec::new();
                while let Some(argument) = seq.next_element()? {
                    argv.push(argument);
                }
                Command::checked(argv).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(CommandVisitor)
    }
}
