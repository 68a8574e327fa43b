//! POST requests to somebody else's server: no redirect, no proxy, an answer of which little is read.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use rustls::ClientConfig;

use crate::Answer;

/// Bytes of an answer that are read, for what it says of an error.
const WORDS: usize = 400;
/// What is missing where TLS has nobody to trust.
pub const NO_CA: &str =
    "ca_file is missing: name the CA of its certificate; for one of the public CAs /etc/ssl/certs/ca-certificates.crt";

/// Checks an address as the operator wrote it under `key`: TLS, or this computer.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_url(key: &str, url: &str, has_ca: bool) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = url.parse().map_err(|_| format!("{key}: expected https://HOST/PATH"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{key}: a name or password does not belong into the address"));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" if has_ca => {}
        "https" => return Err(NO_CA.into()),
        "http" if !is_here => {
            return Err(format!("{key}: http:// is clear text, for this computer alone (127.0.0.1); write https://"));
        }
        "http" if has_ca => return Err("ca_file: there is no certificate behind http://; leave it out".into()),
        "http" => {}
        _ => return Err(format!("{key}: expected https://HOST/PATH")),
    }
    Ok(url)
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of its body, where it is no yes: on one line, without control characters.
    pub words: String,
}

impl Reply {
    /// In one line.
    pub fn said(&self) -> String {
        match &*self.words {
            "" => format!("it answered {}", self.status),
            words => format!("it answered {}: {words}", self.status),
        }
    }

    /// What this says of a batch. That one of it is wrong say a few statuses alone; whatever else it is may be over later.
    pub fn answer(&self) -> Answer {
        match self.status {
            200..=299 => Answer::Taken,
            400 | 409 | 413 | 415 | 422 => Answer::Refused(self.said()),
            _ => Answer::Away { said: self.said(), after: self.retry_after },
        }
    }
}

/// A server, at one address.
pub struct Post {
    url: reqwest::Url,
    client: reqwest::Client,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its path may be a secret of the receiver's.
        write!(f, "Post({})", self.url.origin().ascii_serialization())
    }
}

impl Post {
    /// At `url`, by `tls`.
    ///
    /// # Errors
    /// There is no client.
    pub fn new(url: reqwest::Url, tls: ClientConfig) -> reqwest::Result<Self> {
        // A redirect would carry readings and alarms to where nobody said that they go.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .tls_backend_preconfigured(tls)
            .https_only(url.scheme() == "https")
            .build()?;
        Ok(Self { url, client })
    }

    /// Sends `body` with these headers.
    ///
    /// # Errors
    /// It was not reached, in words without its address.
    pub async fn send(&self, headers: &[(&str, String)], body: impl Into<reqwest::Body>) -> Result<Reply, String> {
        let request = self.client.post(self.url.clone());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let mut response = request.body(body).send().await.map_err(|e| cause(&e.without_url()))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut words = Vec::new();
        while !(200..300).contains(&status) && words.len() < WORDS {
            match response.chunk().await {
                Ok(Some(bytes)) => words.extend(bytes.iter().take(WORDS - words.len())),
                Ok(None) | Err(_) => break,
            }
        }
        let words = String::from_utf8_lossy(&words);
        let words = words.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty());
        let words = words.collect::<Vec<_>>().join(" ");
        Ok(Reply { status, retry_after: retry_after.map(Duration::from_secs), words })
    }
}

/// An error with its causes.
fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_the_batch_is_wrong_or_the_server_has_no_time() {
        let of = |status| Reply { status, retry_after: None, words: String::new() }.answer();
        assert_eq!((of(200), of(204)), (Answer::Taken, Answer::Taken));
        for status in [400, 409, 413, 415, 422] {
            assert!(matches!(of(status), Answer::Refused(_)), "{status}");
        }
        for status in [100, 301, 302, 401, 403, 404, 405, 408, 410, 429, 500, 502, 503, 999] {
            assert!(matches!(of(status), Answer::Away { .. }), "{status}");
        }
    }

    #[test]
    fn an_address_is_tls_or_this_computer() {
        for (url, has_ca) in [
            ("https://plant.example/x", true),
            ("http://127.0.0.1:9000/", false),
            ("http://[::1]:9000/", false),
            ("http://localhost/", false),
        ] {
            check_url("webhook", url, has_ca).unwrap();
        }
        for (url, has_ca, says) in [
            ("plant.example", true, "expected https://"),
            ("ftp://plant.example/", true, "expected https://"),
            ("https://plant.example/", false, "ca_file is missing"),
            ("https://u:p@plant.example/", true, "name or password"),
            ("http://plant.example/", false, "clear text"),
            ("http://127.0.0.1.example/", false, "clear text"),
            ("http://127.0.0.1/", true, "leave it out"),
        ] {
            let said = check_url("webhook", url, has_ca).unwrap_err();
            assert!(said.contains(says), "{url}: {said}");
        }
    }
}
