//! Which host key a server shows: asked before it is pinned, for somebody to compare. The connection
//! ends there; nothing is sent that only the right server may see.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client;
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use super::session::{SessionError, Stage, connect, preferred, timed_out};
use crate::outcome::{Class, Failure};

/// One line in OpenSSH's format, of the best type that both sides have.
pub async fn ask(host: &str, port: u16, timeout: Duration) -> Result<String, Failure> {
    let stage = Stage::default();
    let at = format!("{host} port {port}");
    let asked = tokio::time::timeout(timeout, shown(host, port, timeout, &stage)).await;
    let key = asked.unwrap_or_else(|_| Err(timed_out(&at, &stage, timeout)))?;
    key.to_openssh().map_err(|e| Failure::new(Class::Protocol, format!("{at}: its host key cannot be written: {e}")))
}

async fn shown(host: &str, port: u16, timeout: Duration, stage: &Stage) -> Result<PublicKey, Failure> {
    let stream = connect(host, port, timeout, stage).await?;
    stage.enter("exchanging keys");
    let config = client::Config { preferred: preferred(Vec::new()), ..client::Config::default() };
    let seen = Arc::new(Mutex::new(None));
    let ended = client::connect_stream(Arc::new(config), stream, Onlooker(Arc::clone(&seen))).await;
    let seen = seen.lock().unwrap_or_else(|e| e.into_inner()).take();
    match (seen, ended) {
        (Some(key), _) => Ok(key),
        (None, Err(e)) => Err(e.into_failure(host, port)),
        (None, Ok(_)) => Err(Failure::new(Class::Bug, format!("{host} port {port} showed no host key"))),
    }
}

/// Looks at the key and goes.
struct Onlooker(Arc<Mutex<Option<PublicKey>>>);

impl client::Handler for Onlooker {
    type Error = SessionError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SessionError> {
        let key = PublicKey::from(shown.public_key().key_data().clone());
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(key);
        Ok(false)
    }
}
