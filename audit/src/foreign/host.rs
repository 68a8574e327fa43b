//! Where an address reaches to.

use std::net::IpAddr;

/// Whether a host name or address stays on the machine it is on.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
        })
}

/// The host of `host:port`, `[v6]:port` or a host alone.
pub(super) fn without_port(text: &str) -> &str {
    // The colons of an IPv6 address without brackets are its own.
    if text.parse::<IpAddr>().is_ok() {
        return text;
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    }
}

/// What stands behind the login of `login@host`.
pub(super) fn without_login(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

/// A URL, as far as it says who is asked how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url<'t> {
    /// In lower case.
    pub(super) scheme: String,
    /// The login before `@`.
    pub(super) user: &'t str,
    /// The password; `None` where there is none.
    pub(super) password: Option<&'t str>,
    /// The host, without the port.
    pub(super) host: &'t str,
    /// What stands behind `?`.
    pub(super) query: &'t str,
}

/// Where the host, or what stands in its place, ends.
fn host_end(text: &str) -> usize {
    text.find(['/', '?', '#']).unwrap_or(text.len())
}

/// What stands before `@`, and the rest. A password with a `/` in it that should have been written `%2F` is still no host.
fn login(rest: &str) -> (&str, &str) {
    let authority = rest.get(..host_end(rest)).unwrap_or(rest);
    let is_host = authority.starts_with('[') || !without_port(authority).contains(':');
    let before_query = rest.split('?').next().filter(|text| text.contains('@')).unwrap_or(rest);
    match before_query.rfind('@').filter(|_| authority.contains('@') || !is_host) {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default()),
        None => ("", rest),
    }
}

/// Reads a URL with an authority; `None` for what is none.
pub(super) fn url(text: &str) -> Option<Url<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme {
        return None;
    }
    let (login, rest) = login(rest);
    let (host, behind) = rest.split_at_checked(host_end(rest))?;
    let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
    let query = behind.split_once('?').map_or("", |(_, query)| query);
    Some(Url { scheme: scheme.to_ascii_lowercase(), user, password, host: without_port(host), query })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names_and_a_prefix_is_none_of_them() {
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_url_is_read_as_far_as_it_says_who_is_asked() {
        let found = url("Postgres://ann:s:e@c@db.example:5432/x?sslmode=disable").unwrap();
        assert_eq!((found.scheme.as_str(), found.user, found.password), ("postgres", "ann", Some("s:e@c")));
        assert_eq!((found.host, found.query), ("db.example", "sslmode=disable"));
        assert_eq!(url("tcp://[::1]:1883").unwrap().host, "[::1]");
        assert_eq!(url("redis://127.0.0.1/").unwrap().host, "127.0.0.1");
        assert_eq!(url("http://a/b?mail=c@d").unwrap().host, "a");
        for (text, password) in [
            ("redis://ann:se/cr:et@db.example/x?y=z", "se/cr:et"),
            ("redis://ann:s@e/cret@db.example/x?y=z", "s@e/cret"),
            ("redis://ann:se#cret@db.example:6379?y=z", "se#cret"),
            ("redis://ann:se?cret@db.example?y=z", "se?cret"),
            ("redis://ann:secret@db.example/x?y=z", "secret"),
        ] {
            let found = url(text).unwrap();
            assert_eq!((found.user, found.password, found.host), ("ann", Some(password), "db.example"), "{text}");
            assert_eq!(found.query, "y=z", "{text}");
        }
        assert_eq!(url("postgres://a:b@c/d?name=e@f&sslmode=require").unwrap().query, "name=e@f&sslmode=require");
        for none in ["", "://", "a b://c", "host:80"] {
            assert_eq!(url(none), None, "{none}");
        }
    }
}
