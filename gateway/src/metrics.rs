//! What a gateway shows to people and programs, on loopback: `/metrics` for Prometheus, without a word of devices;
//! `/rejections`, what was refused and from whom, as the cloud's `/v1/rejections`: at a site without a cloud nobody else knows;
//! and in a word `/livez`, whether the engine turns, and `/readyz`, whether it can take what comes, as the cloud does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
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
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
}

/// What a write to the store came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// It is durable, or nobody tried.
    #[default]
    Writes,
    /// There is no room on its disk.
    Full,
    /// It failed.
    Fails,
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
    /// What a write to the spool came to, where that is asked.
    pub store: Store,
}

const READY: &str = "ready";
/// The word for an engine that does not answer, or is gone.
const STUCK: &str = "stuck";

impl Page {
    /// Of the first line of a request.
    fn of(request: &[u8]) -> Option<Self> {
        let line = request.split(|b| *b == b'\r' || *b == b'\n').next()?;
        match line.split(|b| *b == b' ').nth(1)? {
            b"/metrics" => Some(Self::Metrics),
            b"/rejections" => Some(Self::Rejections),
            b"/livez" => Some(Self::Live),
            b"/readyz" => Some(Self::Ready),
            _ => None,
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Metrics => "text/plain; version=0.0.4",
            Self::Rejections => "application/json",
            Self::Live | Self::Ready => "text/plain",
        }
    }

    /// The page, as things are.
    pub fn write(self, gateway: &Gateway, now: Millis, beside: &Beside<'_>) -> String {
        match self {
            // A text takes whatever is written to it.
            Self::Metrics => metrics(gateway, now, beside).unwrap_or_default(),
            Self::Rejections => rejections(gateway),
            Self::Live => "live".into(),
            Self::Ready => ready(gateway, now, beside).into(),
        }
    }

    fn status(self, body: &str) -> &'static str {
        match self {
            Self::Live | Self::Ready if body == STUCK => "503 Service Unavailable",
            Self::Ready if body != READY => "503 Service Unavailable",
            _ => "200 OK",
        }
    }
}

/// What keeps it from taking what comes, in a word.
fn ready(gateway: &Gateway, now: Millis, beside: &Beside<'_>) -> &'static str {
    let (begins, ends) = beside.certificate;
    match beside.store {
        Store::Full => "full",
        Store::Fails => "store",
        Store::Writes if !gateway.has_room() => "full",
        // Where there is no cloud, nobody asks for one.
        Store::Writes if gateway.away(now).is_some() && !(begins..ends).contains(&now) => "certificate",
        Store::Writes => READY,
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

/// How long the engine may take to answer, and how often it is tried whether it takes the question.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The engine's answer; `None` when it is gone. No thread waits for it.
async fn asked(engine: &SyncSender<Event>, page: Page) -> Option<String> {
    let (asked, answer) = oneshot::channel();
    let mut event = Event::Page(page, asked);
    while let Err(refused) = engine.try_send(event) {
        let TrySendError::Full(again) = refused else { return None };
        event = again;
        tokio::time::sleep(TRY_AGAIN).await;
    }
    answer.await.ok()
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
            let body = match tokio::time::timeout(ANSWER_TIME, asked(&engine, page)).await {
                Ok(Some(body)) => body,
                Ok(None) | Err(_) if matches!(page, Page::Live | Page::Ready) => STUCK.into(),
                Ok(None) | Err(_) => return,
            };
            let head = format!(
                "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.status(&body),
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
        assert_eq!(
            [of("GET /livez HTTP/1.1\r\n\r\n"), of("GET /readyz HTTP/1.1\r\n\r\n")],
            [Some(Page::Live), Some(Page::Ready)]
        );
        for none in ["", " ", "GET", "GET /", "GET /metricsX HTTP/1.1", "\r\nGET /metrics HTTP/1.1", "\0\u{e9}"] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_told_from_one_that_takes_nothing_which_is_waited_for() {
        let (engine, queue) = std::sync::mpsc::sync_channel(1);
        engine.send(Event::Stop).unwrap();
        let late = tokio::time::timeout(TRY_AGAIN * 3, asked(&engine, Page::Live)).await;
        assert!(late.is_err(), "the queue is full");
        queue.recv().unwrap();
        let answering = std::thread::spawn(move || {
            while let Ok(event) = queue.recv() {
                if let Event::Page(Page::Live, asked) = event {
                    let _ = asked.send("live".into());
                    return;
                }
            }
        });
        assert_eq!(asked(&engine, Page::Live).await.as_deref(), Some("live"));
        answering.join().unwrap();
        assert_eq!(asked(&engine, Page::Live).await, None);
        assert_eq!([Page::Live.status("live"), Page::Ready.status(READY)], ["200 OK"; 2]);
        assert!([Page::Live.status(STUCK), Page::Ready.status("full")].iter().all(|s| s.starts_with("503")));
    }

    #[tokio::test]
    async fn who_asks_whether_it_lives_is_told_that_the_engine_is_gone() {
        let (engine, queue) = std::sync::mpsc::sync_channel(1);
        drop(queue);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, engine));
        for (path, said) in [("/livez", STUCK), ("/readyz", STUCK), ("/metrics", "")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.starts_with("HTTP/1.1 503 "), !said.is_empty(), "{answer}");
            assert!(answer.ends_with(said), "{answer}");
        }
    }
}
