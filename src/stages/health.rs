//! Health: whether what was deployed works, asked a few times.

use std::time::Duration;

use crate::config::notify::without_query;
use crate::outcome::Failure;
use crate::processes::messages::{Answer, Call, Method, Secret};
use crate::report::{plural, printable};
use crate::sys::signals::Stop;

/// An answer that is not yes.
#[derive(Debug)]
pub enum No {
    /// The next one may be.
    NotYet(String),
    /// Nothing more can be asked on this machine.
    Broken(Failure),
}

/// Asks until the answer is yes or the attempts are used up; the last complaint otherwise.
pub fn ask(
    attempts: u32,
    interval: Duration,
    stop: &Stop,
    mut check: impl FnMut() -> Result<(), No>,
) -> Result<(), No> {
    let mut last = String::new();
    for attempt in 1..=attempts {
        match check() {
            Ok(()) => return Ok(()),
            Err(No::NotYet(why)) => last = why,
            Err(broken) => return Err(broken),
        }
        if attempt < attempts && !stop.pause(interval) {
            break;
        }
    }
    Err(No::NotYet(format!("{last} ({})", plural(attempts as usize, "attempt"))))
}

/// Asks a URL once, through `ask`: a status of 200 to 299 is well. What came back, in words.
pub fn get(url: &str, timeout: Duration, ask: impl FnOnce(&Call) -> Result<Answer, String>) -> Result<String, String> {
    let call = Call {
        method: Method::Get,
        url: Secret(url.to_owned()),
        content_type: String::new(),
        body: String::new(),
        timeout,
    };
    let what = format!("the health check GET {}", printable(&without_query(url)));
    match ask(&call) {
        Ok(Answer { status: status @ 200..=299, .. }) => Ok(format!("{what} answered {status}")),
        Ok(Answer { status: status @ 300..=399, location: Some(to) }) => {
            Err(format!("{what} answered {status}, a redirect to {}", printable(&without_query(&to))))
        }
        Ok(Answer { status, .. }) => Err(format!("{what} answered {status}")),
        Err(why) => Err(format!("{what} failed: {}", printable(&why))),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::SigSet;

    use super::*;
    use crate::outcome::Class;
    use crate::sys::signals;

    fn said(answer: Result<Answer, String>) -> Result<String, String> {
        get("http://127.0.0.1:8000/up?key=secret", Duration::from_secs(1), |_| answer)
    }

    #[test]
    fn where_nothing_more_can_be_asked_nothing_is() {
        let stop = signals::watch(SigSet::empty(), Duration::from_secs(600)).unwrap();
        let mut asked = 0;
        let answer = ask(5, Duration::ZERO, &stop, || {
            asked += 1;
            Err(match asked {
                1 => No::NotYet("not yet".to_owned()),
                _ => No::Broken(Failure::new(Class::Io, "it cannot be ended")),
            })
        });
        assert!(matches!(answer, Err(No::Broken(_))) && asked == 2, "{answer:?}, {asked}");
    }

    #[test]
    fn only_a_status_from_200_to_299_is_well() {
        let answer = |status, location: Option<&str>| Ok(Answer { status, location: location.map(str::to_owned) });
        let what = "the health check GET http://127.0.0.1:8000/up?…";
        for status in [200, 204, 299] {
            assert!(said(answer(status, None)).is_ok());
        }
        assert_eq!(said(answer(503, None)).unwrap_err(), format!("{what} answered 503"));
        assert_eq!(
            said(answer(302, Some("/login?next=x"))).unwrap_err(),
            format!("{what} answered 302, a redirect to /login?…")
        );
        assert_eq!(said(Err("nobody\x1b[2J".into())).unwrap_err(), format!("{what} failed: nobody\\u{{1b}}[2J"));
    }
}
