//! The caller: speaks HTTP for the supervisor, as the fetch user.
//!
//! One request after another, in the order in which they come over its pipe, none longer than its
//! time. Redirects are not followed, and nothing that a server says is kept but the status and where
//! a redirect leads.

mod proxy;

use std::io::Read;
use std::time::Duration;

use anyhow::Result;
use rustls::{CertificateError, Error as TlsError};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error, Timeout};

use super::messages::{Answer, Call, Method};
use super::wire;
use crate::report::duration;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::limits::Limits;

/// What is handed down to this process, and to no other helper: the way out, and whom to trust.
pub const ENVIRONMENT: [&str; 10] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// How much of an answer's body is read, and for how long: so that the server can say what it has to
/// say, not because anybody listens.
const BODY: u64 = 4 << 10;
const BODY_TIME: Duration = Duration::from_secs(1);
const LONGEST_HEAD: usize = 32 << 10;
const LONGEST_LOCATION: usize = 2 << 10;

pub fn run() -> Result<()> {
    // Names and authorities are read again and again, and each call is a connection of its own.
    Limits::SMALL.impose()?;
    Cage { read: Reading::Anywhere, write: &[], remove: None, outside: Outside::Open }.enter()?;
    let mut input = std::io::stdin().lock();
    let mut trusted = None;
    while let Some(call) = wire::receive::<Call>(&mut input)? {
        let answer = make(&call, &mut trusted);
        wire::send(&mut std::io::stdout().lock(), &answer)?;
    }
    Ok(())
}

/// Makes one request. `trusted` keeps the authorities from one to the next.
fn make(call: &Call, trusted: &mut Option<RootCerts>) -> Result<Answer, String> {
    let url = call.url.0.as_str();
    let proxy = proxy::of(url, &|name| std::env::var(name).ok())?;
    let mut config = Agent::config_builder()
        .timeout_global(Some(call.timeout))
        .timeout_recv_body(Some(BODY_TIME))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(LONGEST_HEAD)
        // Each request has its own connection: one that was idle meanwhile may be closed already.
        .max_idle_connections(0)
        .user_agent(concat!("poller/", env!("CARGO_PKG_VERSION")));
    let tls_proxy = proxy.as_ref().is_some_and(|p| p.uri().scheme_str() == Some("https"));
    if url.starts_with("https:") || tls_proxy {
        let roots = match trusted {
            Some(roots) => roots.clone(),
            None => trusted.insert(authorities()?).clone(),
        };
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider);
        config = config.tls_config(tls.build());
    }
    let agent = config.proxy(proxy).build().new_agent();
    let sent = match call.method {
        Method::Get => agent.get(url).call(),
        Method::Post => {
            let request = agent.post(url);
            let typed = if call.body.is_empty() { request } else { request.content_type(&call.content_type) };
            typed.send(call.body.as_str())
        }
    };
    let mut response = sent.map_err(|e| why(&e, call.timeout))?;
    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
    let answer = Answer {
        status: response.status().as_u16(),
        location: location.map(|text| text.chars().take(LONGEST_LOCATION).collect()),
    };
    // The status is the answer, whatever becomes of the rest.
    let _ = std::io::copy(&mut response.body_mut().as_reader().take(BODY), &mut std::io::sink());
    Ok(answer)
}

/// Whom this machine trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
fn authorities() -> Result<RootCerts, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let error = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(format!(
            "there are no certificates of authorities here{error} (install ca-certificates, or set SSL_CERT_FILE)"
        ));
    }
    let certificates: Vec<_> = found.certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
    Ok(RootCerts::new_with_certs(&certificates))
}

/// Why there was no answer. Never with the URL in it.
fn why(error: &Error, limit: Duration) -> String {
    let limit = duration(limit);
    match error {
        Error::Timeout(Timeout::Resolve) => format!("its name could not be looked up within {limit}"),
        Error::Timeout(Timeout::Connect) => format!("there was no connection within {limit}"),
        Error::Timeout(_) => format!("it did not answer within {limit}"),
        Error::HostNotFound => "there is no host of that name".to_owned(),
        Error::BadUri(_) | Error::Http(_) => {
            "its URL cannot be asked: is there something in it that must be written with %?".to_owned()
        }
        Error::Rustls(e) => tls(e),
        Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(e) => tls(e),
            None => io(e),
        },
        Error::Protocol(e) => format!("what answers there does not speak HTTP as it should ({e})"),
        Error::LargeResponseHeader(..) => "its answer begins with too much".to_owned(),
        Error::ConnectProxyFailed(e) => format!("the proxy did not let it through ({e})"),
        other => other.to_string(),
    }
}

fn io(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
            "the connection was closed without an answer".to_owned()
        }
        _ => error.to_string(),
    }
}

fn tls(error: &TlsError) -> String {
    let TlsError::InvalidCertificate(fault) = error else {
        return format!("TLS failed: {error}");
    };
    match fault {
        CertificateError::UnknownIssuer => "its certificate is of an authority that this machine does not trust \
             (a company's own is added with update-ca-certificates, or named by SSL_CERT_FILE)"
            .to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name: {fault}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired: {fault}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate is not valid yet; is this machine's clock right? {fault}")
        }
        other => format!("its certificate is not trusted: {other}"),
    }
}
