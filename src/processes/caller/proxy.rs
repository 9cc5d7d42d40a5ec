//! The proxy that a URL is reached through, from the environment as curl reads it.

use ureq::Proxy;

/// The proxy for `url`. None: it is asked directly, as this machine itself always is.
pub fn of(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>, String> {
    let Some((name, address)) = address(url, variable) else {
        return Ok(None);
    };
    // The address may have a password in it.
    Proxy::new(&address).map(Some).map_err(|_| format!("the proxy in the variable `{name}` is not one to understand"))
}

/// The variable that names a proxy for `url`, and what it says.
fn address(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let (host, port) = host_and_port(url)?;
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let except = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
    if is_this_machine(&host) || is_excepted(&host, port, &except) {
        return None;
    }
    let names = if url.starts_with("https:") {
        ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    names.into_iter().find_map(|name| Some((name, set(name)?.trim().to_owned())))
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    Some((host.to_ascii_lowercase(), port.unwrap_or(if scheme == "https" { 443 } else { 80 })))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|a| a.is_loopback())
}

/// `no_proxy`: names that stand for what is below them too, addresses, `*`; each perhaps with a port.
fn is_excepted(host: &str, port: u16, except: &str) -> bool {
    except.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches("*.").trim_start_matches('.');
        let below = || host.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        (name == "*" || host == name || below()) && only.is_none_or(|only: u16| only == port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        address(url, &value).map(|(_, address)| address)
    }

    #[test]
    fn the_scheme_of_the_url_chooses_the_variable() {
        let all = [("http_proxy", "p:1"), ("HTTPS_PROXY", "p:2"), ("ALL_PROXY", "p:3")];
        assert_eq!(chosen("http://example.org/", &all).as_deref(), Some("p:1"));
        assert_eq!(chosen("https://example.org/", &all).as_deref(), Some("p:2"));
        assert_eq!(chosen("https://example.org/", &all[2..]).as_deref(), Some("p:3"));
        assert_eq!(chosen("https://example.org/", &[("https_proxy", " ")]), None);
        assert_eq!(chosen("https://example.org/", &[("http_proxy", "p:1")]), None);
    }

    #[test]
    fn this_machine_is_asked_directly() {
        let all = [("all_proxy", "p:3")];
        for url in ["http://127.0.0.1:8000/", "http://localhost/x", "http://[::1]:8080", "https://127.9.9.9"] {
            assert_eq!(chosen(url, &all), None, "{url}");
        }
        assert!(chosen("http://localhost.example.org/", &all).is_some());
    }

    #[test]
    fn no_proxy_names_hosts_and_what_is_below_them() {
        let excepted = |url: &str, list: &str| chosen(url, &[("all_proxy", "p:3"), ("NO_PROXY", list)]).is_none();
        assert!(excepted("http://a.example.org/", "x, example.org"));
        assert!(excepted("http://a.example.org/", ".example.org"));
        assert!(excepted("http://A.Example.org./", "*.example.org"));
        assert!(excepted("https://example.org/", "example.org:443"));
        assert!(!excepted("https://example.org:8443/", "example.org:443"));
        assert!(!excepted("http://notexample.org/", "example.org"));
        assert!(excepted("http://10.1.2.3/", "10.1.2.3") && excepted("http://[fe80::1]/", "fe80::1"));
        assert!(excepted("http://h/", "*") && !excepted("http://h/", ""));
    }

    #[test]
    fn a_proxy_that_is_none_is_said_without_its_password() {
        let said = of("http://h/", &|_| Some("nonsense://u:secret@p".to_owned())).unwrap_err();
        assert!(said.contains("`http_proxy`") || said.contains("`no_proxy`"), "{said}");
        assert!(!said.contains("secret"));
    }
}
