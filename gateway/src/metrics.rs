//! What a gateway shows to people and programs, on loopback: `/metrics` for Prometheus, without a word of devices, and
//! `/rejections`, what was refused and from whom, as the cloud's `/v1/rejections`: at a site without a cloud nobody else knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use fivefold_audit::selfcheck::Standing;
use fivefold_core::error::Code;
use fivefold_core::metric::{self, gateway as shown};
use fivefold_core::time::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::daemon::Event;
use crate::gateway::Gateway;

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`.
    Metrics,
    /// `/rejections`.
    Rejections,
}

/// What the rim knows and the engine does not.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// What its audit of itself found.
    pub audit: &'a Standing,
    /// When the certificate in use begins and ends to be valid.
    pub certificate: (Millis, Millis),
    /// When the oldest envelope in the spool was received.
    pub oldest: Option<Millis>,
}

impl Page {
    /// Of the first line of a request.
    fn of(request: &[u8]) -> Option<Self> {
        let line = request.split(|b| *b == b'\r' || *b == b'\n').next()?;
        match line.split(|b| *b == b' ').nth(1)? {
            b"/metrics" => Some(Self::Metrics),
            b"/rejections" => Some(Self::Rejections),
            _ => None,
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Metrics => "text/plain; version=0.0.4",
            Self::Rejections => "application/json",
        }
    }

    /// The page, as things are.
    pub fn write(self, gateway: &Gateway, now: Millis, beside: &Beside<'_>) -> String {
        match self {
            // A text takes whatever is written to it.
            Self::Metrics => metrics(gateway, now, beside).unwrap_or_default(),
            Self::Rejections => rejections(gateway),
        }
    }
}

fn metrics(gateway: &Gateway, now: Millis, beside: &Beside<'_>) -> Result<String, fmt::Error> {
    let mut page = metric::Page::new(String::new());
    // All of them from the start: what was never 0 cannot be seen to rise.
    let mut refused: BTreeMap<Code, u64> = Code::ALL.iter().map(|code| (*code, 0)).collect();
    for c in gateway.tally().totals() {
        *refused.entry(c.code).or_default() += c.count;
    }
    page.put(&shown::REJECTED, refused.into_iter().map(|(code, count)| ([code.as_str()], count)))?;
    page.one(&shown::SPOOL, gateway.spool_used())?;
    page.one(&shown::SPOOL_LIMIT, gateway.limits().spool_bytes)?;
    let seconds = |since: Millis| now.since(since) / 1000;
    page.one(&shown::SPOOL_AGE, beside.oldest.map_or(0, seconds))?;
    page.one(&shown::CLOUD_AWAY, gateway.away(now).map(|ms| ms / 1000))?;
    page.one(&shown::DEVICES, gateway.devices() as u64)?;
    page.one(&shown::CLASSIC_DEVICES, gateway.classic_devices() as u64)?;
    page.one(&shown::NEIGHBOURS, gateway.link().neighbours().synced() as u64)?;
    page.one(&shown::STATE_VERSION, gateway.state_version())?;
    let (begins, ends) = beside.certificate;
    let certificate = gateway.away(now).map(|_| ("e4", begins));
    let ages = certificate.into_iter().chain(gateway.oldest_agreed().map(|at| ("e2", at)));
    page.put(&shown::KEY_AGE, ages.map(|(level, since)| ([level], seconds(since))))?;
    let left = gateway.link().keys().left();
    page.put(&shown::FRAME_NUMBERS_LEFT, left.map(|(index, left)| ([index.to_string()], left.into())))?;
    page.put(&shown::NUMBERS_LEFT, gateway.numbers_left().map(|left| (["e2"], left.into())))?;
    page.one(&shown::CERTIFICATE, certificate.map(|_| ends.0 / 1000))?;
    page.one(&shown::AUDIT_GRADE, beside.audit.grade())?;
    let open = beside.audit.open().into_iter();
    page.put(&shown::AUDIT_FINDINGS, open.map(|((rule, severity), n)| ([rule.to_owned(), severity.to_string()], n)))?;
    Ok(page.end())
}

/// As the cloud's API has them: an array, by code and device.
fn rejections(gateway: &Gateway) -> String {
    let mut counts: Vec<_> = gateway.tally().totals().collect();
    counts.sort_by_key(|c| (c.code, c.sid));
    let shown = counts.iter().map(|c| {
        serde_json::json!({
            "code": c.code.as_str(),
            "condition": c.code.condition(),
            "severity": c.code.severity().as_str(),
            "sid": c.sid.map(|sid| sid.to_string()),
            "count": c.count,
        })
    });
    serde_json::Value::Array(shown.collect()).to_string()
}

/// Requests that are answered at once.
const REQUESTS: usize = 16;
/// Bytes of a request that are looked at, and how long it may take to come.
const REQUEST: usize = 1024;
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Reads a request up to the line that ends it.
async fn read(stream: &mut TcpStream, request: &mut Vec<u8>) {
    let mut some = [0; REQUEST];
    while request.len() < REQUEST && !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(len) => request.extend_from_slice(some.get(..len).unwrap_or_default()),
        }
    }
}

/// Answers every request. The engine writes the page in its turn: what was received before is counted in it.
pub(crate) async fn serve(listener: TcpListener, engine: SyncSender<Event>) {
    let places = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let engine = engine.clone();
        tokio::spawn(async move {
            let _place = place;
            let mut request = Vec::with_capacity(REQUEST);
            // What does not end in time, or is longer, is answered by what came.
            let _ = tokio::time::timeout(REQUEST_TIME, read(&mut stream, &mut request)).await;
            let Some(page) = Page::of(&request) else {
                let none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(none).await;
                return;
            };
            let (asked, answer) = oneshot::channel();
            let _ = tokio::task::spawn_blocking(move || engine.send(Event::Page(page, asked))).await;
            let Ok(body) = answer.await else { return };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.media_type(),
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_page_or_none() {
        let of = |request: &str| Page::of(request.as_bytes());
        assert_eq!(of("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Page::Metrics));
        assert_eq!(of("GET /rejections HTTP/1.0\n\n"), Some(Page::Rejections));
        for none in ["", " ", "GET", "GET /", "GET /metricsX HTTP/1.1", "\r\nGET /metrics HTTP/1.1", "\0\u{e9}"] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
