//! NATS JetStream: each reading is a message in a stream, and is done when the stream says that it keeps it.
//!
//! The client is ours ([`wire`]): what a server says is bounded, and a connection is ended rather than mended behind our back. A
//! message bears the reading's id as `Nats-Msg-Id`, by which the stream drops what comes twice within its window.

mod wire;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fivefold_keep::share::CloudOutbox;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use wire::Said;
use zeroize::Zeroizing;

use crate::broker::Socket;
use crate::post::NO_CA;
use crate::settings::Files;
use crate::sink::{EARLIER, Pace, Until};
use crate::{Answer, Most, Outbound, Sending, Sink, Verdict};

/// As many messages may be under way, each of another device.
const MOST: Most = Most { readings: 4096, bytes: 8 << 20 };
/// A connection that was silent for so long is not trusted with a batch: a server ends one that does not answer its pings.
const STALE: Duration = Duration::from_secs(60);
/// A stream refuses a message as too large, in JetStream's own number.
const TOO_LARGE: u64 = 10_054;
/// The server refuses one as too large, and closes the connection.
const TOO_LARGE_FOR_ALL: &str = "Maximum Payload Violation";
/// Nobody takes the subject.
const NO_RESPONDERS: u16 = 503;

/// Checked words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    host: String,
    port: u16,
    /// None where it is in clear text, on this computer.
    name: Option<ServerName<'static>>,
    username: Option<String>,
    stream: String,
    prefix: String,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, stream, prefix, .. } = self;
        write!(f, "JetStream {stream} at {host}:{port}, subjects {prefix}.NET.DEVICE")
    }
}

impl Settings {
    pub(crate) fn check(at: &str, words: &CloudOutbox) -> Result<Self, String> {
        const FORM: &str = "nats: write tls://HOST:PORT, e.g. tls://nats.example:4222";
        let (scheme, rest) = at.split_once("://").ok_or(FORM)?;
        let (host, port) = rest.rsplit_once(':').ok_or(FORM)?;
        let (host, port) = (host.trim_matches(['[', ']']), port.parse().map_err(|_| FORM)?);
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let name = match (scheme, words.ca_file.is_some()) {
            ("tls", true) => Some(ServerName::try_from(host.to_owned()).map_err(|_| FORM)?),
            ("tls", false) => return Err(NO_CA.into()),
            ("nats", _) if !is_here => {
                return Err("nats: nats:// is clear text, for this computer alone (127.0.0.1); write tls://".into());
            }
            ("nats", true) => return Err("ca_file: there is no certificate behind nats://; leave it out".into()),
            ("nats", false) => None,
            _ => return Err(FORM.into()),
        };
        const STREAM: &str = "stream: write the name of the stream that takes the readings: letters, digits, - and _";
        let stream = words.stream.clone().filter(|stream| is_part(stream)).ok_or(STREAM)?;
        let prefix = words.subject.clone().unwrap_or_else(|| "fivefold".into());
        if prefix.len() > 100 || !prefix.split('.').all(is_part) {
            return Err("subject: expected parts of letters, digits, - and _, with dots between them".into());
        }
        if words.username.as_ref().is_some_and(String::is_empty) {
            return Err("username: it is empty".into());
        }
        Ok(Self { host: host.to_owned(), port, name, username: words.username.clone(), stream, prefix })
    }

    pub(crate) const fn secret_use(&self) -> Option<&'static str> {
        match &self.username {
            Some(_) => Some("the password at the NATS server"),
            None => None,
        }
    }

    pub(crate) fn prepare(&self, files: Files) -> Result<Nats, String> {
        let Files { secret, tls, .. } = files;
        if std::str::from_utf8(&secret).is_err() {
            return Err("its secret is no text, and NATS takes only texts".into());
        }
        let tls = self.name.is_some().then(|| TlsConnector::from(Arc::new(tls)));
        Ok(Nats { to: self.clone(), tls, secret, connection: None, pace: Pace::default() })
    }
}

/// A part of a subject, and the name of a stream: without what separates parts or stands for any.
fn is_part(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=100).contains(&text.len()) && text.bytes().all(is_char)
}

/// A stream, and the connection to its server.
pub(crate) struct Nats {
    to: Settings,
    tls: Option<TlsConnector>,
    secret: Zeroizing<Vec<u8>>,
    /// Between batches. Taken out for one: what is left in the middle of it is closed.
    connection: Option<Connection>,
    pace: Pace,
}

/// Why a batch ended in the middle.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it closes the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Nonsense(#[from] wire::Nonsense),
    #[error("it says: {0}")]
    Said(String),
    #[error("it says: {TOO_LARGE_FOR_ALL}")]
    TooLarge,
    #[error("no answer within {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("{0}")]
    Unfit(&'static str),
}

/// What JetStream says of a message.
#[derive(Deserialize)]
struct Ack {
    stream: Option<String>,
    seq: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Serialize)]
struct Connect<'c> {
    verbose: bool,
    pedantic: bool,
    lang: &'static str,
    version: &'static str,
    name: &'static str,
    protocol: u8,
    headers: bool,
    no_responders: bool,
    tls_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'c str>,
}

impl Nats {
    async fn deliver(&mut self, batch: &[Arc<Outbound>]) -> Result<Vec<Verdict>, Broken> {
        let until = self.pace.begin();
        let kept = self.connection.take().filter(|c| c.used.elapsed() < STALE);
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let (mut verdicts, mut is_cut) = (Vec::with_capacity(batch.len()), false);
        // Of one device one message is under way at a time, and none behind one that is not taken: were the second kept and the
        // first not, they would change places.
        let (mut rest, mut held) = (batch, HashSet::new());
        // However long it took to dial, the first wave begins.
        while !rest.is_empty() && !is_cut && (verdicts.is_empty() || Instant::now() < until.begins) {
            let mut devices = HashSet::new();
            let next = rest.iter().map(|r| (r.net, r.did));
            let count = next.take_while(|of| held.contains(of) || devices.insert(*of)).count();
            let (some, later) = rest.split_at(count);
            let wave: Vec<_> = some.iter().filter(|r| !held.contains(&(r.net, r.did))).cloned().collect();
            let mut answers = connection.publish(&self.to, &wave, until).await?.into_iter();
            for reading in some {
                let of = (reading.net, reading.did);
                let verdict = if held.contains(&of) { Some(Verdict::Retry(EARLIER.into())) } else { answers.next() };
                if matches!(verdict, Some(Verdict::Retry(_))) {
                    held.insert(of);
                }
                verdicts.push(verdict.unwrap_or(Verdict::Later));
            }
            is_cut = verdicts.contains(&Verdict::Later);
            rest = later;
        }
        if verdicts.iter().all(|v| *v == Verdict::Later) {
            return Err(Broken::Silent(self.pace.waits));
        }
        // What is not answered yet is nothing to the next batch. What is too large, a server says when it is dialled: it may have
        // changed its mind since.
        if !is_cut && !verdicts.iter().any(|v| matches!(v, Verdict::Dead(_))) {
            connection.used = Instant::now();
            self.connection = Some(connection);
        }
        verdicts.extend(rest.iter().map(|_| Verdict::Later));
        Ok(verdicts)
    }

    async fn dial(&self) -> Result<Connection, Broken> {
        let Settings { host, port, name, username, .. } = &self.to;
        let socket = TcpStream::connect((&**host, *port)).await?;
        socket.set_nodelay(true)?;
        let mut connection = Connection::over(Box::new(socket));
        let Said::Info(info) = connection.hear().await? else {
            return Err(Broken::Unfit("it does not begin as NATS does"));
        };
        match (&self.tls, name) {
            (Some(tls), Some(name)) if info.tls_required || info.tls_available => {
                // What came in clear text is forgotten: it may be anybody's.
                let socket = connection.read.unsplit(connection.write);
                connection = Connection::over(Box::new(tls.connect(name.clone(), socket).await?));
            }
            (Some(_), _) => return Err(Broken::Unfit("it speaks no TLS, and nothing is sent in clear text")),
            (None, _) if info.tls_required => {
                return Err(Broken::Unfit("it speaks TLS alone: write tls:// in its address"));
            }
            (None, _) => {}
        }
        if !info.headers {
            return Err(Broken::Unfit("it takes no headers: NATS 2.2 or later does, unless that is switched off"));
        }
        // What was said in clear text may be anybody's: over TLS what is too large is what the server refuses.
        connection.longest = self.tls.is_none().then_some(info.max_payload);
        let login = username.as_deref().zip(std::str::from_utf8(&self.secret).ok());
        connection.log_in(login, self.tls.is_some()).await?;
        Ok(connection)
    }
}

/// A connection to a server.
struct Connection {
    read: ReadHalf<Box<dyn Socket>>,
    write: WriteHalf<Box<dyn Socket>>,
    buffer: BytesMut,
    /// Bytes of a message, at most, as it says, if it has said it.
    longest: Option<usize>,
    /// Where answers come to.
    inbox: String,
    /// Number of the next message.
    next: u64,
    used: Instant,
}

impl Connection {
    fn over(socket: Box<dyn Socket>) -> Self {
        let (read, write) = tokio::io::split(socket);
        let (buffer, inbox, used) = (BytesMut::with_capacity(16 << 10), String::new(), Instant::now());
        Self { read, write, buffer, longest: None, inbox, next: 0, used }
    }

    /// The next thing it says.
    async fn hear(&mut self) -> Result<Said, Broken> {
        hear(&mut self.read, &mut self.buffer).await
    }

    async fn log_in(&mut self, login: Option<(&str, &str)>, tls_required: bool) -> Result<(), Broken> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        self.inbox = format!("_INBOX.{}", hex::encode(random));
        let connect = Connect {
            verbose: false,
            pedantic: false,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            name: "fivefold",
            protocol: 1,
            headers: true,
            no_responders: true,
            tls_required,
            user: login.map(|(name, _)| name),
            pass: login.map(|(_, password)| password),
        };
        let connect = Zeroizing::new(serde_json::to_string(&connect).map_err(std::io::Error::other)?);
        let lines = Zeroizing::new(format!("CONNECT {}\r\nSUB {}.* 1\r\nPING\r\n", *connect, self.inbox));
        self.write.write_all(lines.as_bytes()).await?;
        self.write.flush().await?;
        loop {
            match self.hear().await? {
                Said::Pong => return Ok(()),
                Said::Err(text) => return Err(Broken::Said(text)),
                Said::Info(info) => self.longest = Some(info.max_payload),
                Said::Ok | Said::Ping | Said::Message { .. } => {}
            }
        }
    }

    /// Publishes a wave, and waits until each was answered, or the time is over.
    async fn publish(&mut self, to: &Settings, wave: &[Arc<Outbound>], until: Until) -> Result<Vec<Verdict>, Broken> {
        let start = self.next;
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(wave.len());
        let mut out = BytesMut::new();
        for (reading, number) in wave.iter().zip(start..) {
            let id = reading.event_id();
            let headers = [
                ("Nats-Msg-Id", &*id),
                ("Nats-Expected-Stream", &*to.stream),
                ("Fivefold-Proof", reading.proof.as_str()),
                ("Fivefold-E1", reading.e1.as_str()),
            ];
            let payload = reading.json().to_string();
            let length = wire::header_length(&headers) + payload.len();
            if let Some(most) = self.longest.filter(|most| length > *most) {
                let said = format!("its message has {length} bytes, and the server takes {most}");
                verdicts.push(Some(Verdict::Dead(said)));
                continue;
            }
            verdicts.push(None);
            let subject = format!("{}.{}.{}", to.prefix, reading.net, reading.did);
            let reply = format!("{}.{number}", self.inbox);
            wire::publish(&mut out, &subject, &reply, &headers, payload.as_bytes());
        }
        self.next = start + wave.len() as u64;
        let Self { read, write, buffer, inbox, longest, .. } = self;
        // Where that fails the connection ends, and what the server said of it is heard yet.
        let speak = async {
            if write.write_all(&out).await.is_ok() {
                let _ = write.flush().await;
            }
            Ok(())
        };
        let (mut is_pinged, mut open) = (false, verdicts.iter().filter(|v| v.is_none()).count());
        // Both at once: neither side waits for a full buffer of the other.
        let listen = async {
            while open > 0 {
                match hear(read, buffer).await? {
                    Said::Err(text) if text.eq_ignore_ascii_case(TOO_LARGE_FOR_ALL) => return Err(Broken::TooLarge),
                    Said::Err(text) => return Err(Broken::Said(text)),
                    Said::Info(info) => *longest = Some(info.max_payload),
                    Said::Message { subject, status, payload } => {
                        let number = subject.strip_prefix(&**inbox).and_then(|n| n.strip_prefix('.')?.parse().ok());
                        let place = number.and_then(|n: u64| usize::try_from(n.checked_sub(start)?).ok());
                        // An answer to nothing, or a second one, changes nothing.
                        if let Some(one @ None) = place.and_then(|p| verdicts.get_mut(p)) {
                            *one = Some(verdict(&to.stream, status, &payload));
                            open -= 1;
                        }
                    }
                    Said::Ping => is_pinged = true,
                    Said::Pong | Said::Ok => {}
                }
            }
            Ok(())
        };
        let both = async { tokio::try_join!(speak, listen) };
        if let Ok(spoken) = timeout_at(until.waits, both).await {
            spoken?;
        }
        if is_pinged && open == 0 {
            write.write_all(b"PONG\r\n").await?;
            write.flush().await?;
        }
        Ok(verdicts.into_iter().map(|v| v.unwrap_or(Verdict::Later)).collect())
    }
}

async fn hear(read: &mut ReadHalf<Box<dyn Socket>>, buffer: &mut BytesMut) -> Result<Said, Broken> {
    loop {
        if let Some(said) = wire::take(buffer)? {
            return Ok(said);
        }
        if read.read_buf(buffer).await? == 0 {
            return Err(Broken::Closed);
        }
    }
}

/// Nothing but a message that is too large is dead: a stream that is full, missing or another one is mended, and takes it then.
fn verdict(stream: &str, status: Option<u16>, payload: &[u8]) -> Verdict {
    if status == Some(NO_RESPONDERS) {
        return Verdict::Retry(format!("no stream takes its subject: there is no {stream}, or it has other subjects"));
    }
    match serde_json::from_slice::<Ack>(payload) {
        Ok(Ack { error: Some(Refusal { err_code, description }), .. }) => {
            let said = format!("{} ({err_code})", wire::words(&description));
            if err_code == TOO_LARGE { Verdict::Dead(said) } else { Verdict::Retry(said) }
        }
        Ok(Ack { stream: Some(by), seq: Some(1..), error: None }) if by == stream => Verdict::Done,
        _ => Verdict::Retry("what answers is no JetStream".into()),
    }
}

impl Sink for Nats {
    fn most(&self) -> Most {
        MOST
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(async {
            match self.deliver(batch).await {
                Ok(verdicts) => Answer::Each(verdicts),
                // It does not say which.
                Err(broken @ Broken::TooLarge) => Answer::Refused(broken.to_string()),
                Err(broken) => Answer::away(broken),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use fivefold_core::id::Did;

    use super::*;
    use crate::example::readings;

    /// A server that keeps `most` messages of a connection, each after so many milliseconds, and is silent then.
    async fn slow(each: u64, most: usize) -> Nats {
        serving(each, most, None).await
    }

    /// The same, which keeps none of a device.
    async fn serving(each: u64, most: usize, full: Option<Did>) -> Nats {
        let full = full.map_or("-".into(), |did| did.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            const KEPT: &str = "{\"stream\":\"FARM\",\"seq\":1}";
            const FULL: &str = "{\"error\":{\"err_code\":10077,\"description\":\"maximum bytes exceeded\"}}";
            loop {
                let (read, mut write) = listener.accept().await.unwrap().0.into_split();
                let (mut lines, mut left) = (BufReader::new(read).lines(), most);
                let _ = write.write_all(b"INFO {\"headers\":true,\"max_payload\":1048576}\r\n").await;
                while let Ok(Some(line)) = lines.next_line().await {
                    let words: Vec<&str> = line.split(' ').collect();
                    let said = match words[..] {
                        ["PING"] => "PONG\r\n".to_owned(),
                        ["HPUB", subject, reply, ..] if left > 0 => {
                            left -= 1;
                            tokio::time::sleep(Duration::from_millis(each)).await;
                            let said = if subject.ends_with(&full) { FULL } else { KEPT };
                            format!("MSG {reply} 1 {}\r\n{said}\r\n", said.len())
                        }
                        _ => continue,
                    };
                    let _ = write.write_all(said.as_bytes()).await;
                }
            }
        });
        let to = Settings {
            host: at.ip().to_string(),
            port: at.port(),
            name: None,
            username: None,
            stream: "FARM".into(),
            prefix: "fivefold".into(),
        };
        let pace = Pace { begins: Duration::from_millis(400), waits: Duration::from_secs(1) };
        Nats { to, tls: None, secret: Zeroizing::default(), connection: None, pace }
    }

    async fn taken(sink: &mut Nats, batch: &[Arc<Outbound>]) -> usize {
        let Answer::Each(verdicts) = sink.send(batch).await else { panic!("away") };
        let taken = verdicts.iter().take_while(|v| **v == Verdict::Done).count();
        assert_eq!(verdicts.len(), batch.len());
        assert!(verdicts.iter().skip(taken).all(|v| *v == Verdict::Later), "{verdicts:?}");
        taken
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_batch_that_takes_too_long_what_the_stream_keeps_counts() {
        let mut sink = slow(20, usize::MAX).await;
        let batch = readings(1, 100);
        let first = taken(&mut sink, &batch).await;
        assert!((1..60).contains(&first) && sink.connection.is_some(), "it begins nothing more: {first}");
        assert!(taken(&mut sink, &batch[first..]).await > 0);
        // A wave on a link that is too slow for it.
        let wave = readings(50, 1);
        let mut sink = slow(0, 3).await;
        assert_eq!(taken(&mut sink, &wave).await, 3);
        assert!(sink.connection.is_none(), "the others may be answered yet");
        let Answer::Away { said, .. } = slow(0, 0).await.send(&wave).await else { panic!("it has it") };
        assert!(said.starts_with("no answer"), "{said}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn behind_a_message_that_is_not_taken_none_of_its_device_is_sent_and_all_others_are() {
        let batch = readings(3, 3);
        let mut sink = serving(0, usize::MAX, Some(batch[1].did)).await;
        let Answer::Each(verdicts) = sink.send(&batch).await else { panic!("away") };
        for (n, (reading, verdict)) in batch.iter().zip(verdicts).enumerate() {
            let expected = match n {
                _ if reading.did != batch[1].did => Verdict::Done,
                1 => Verdict::Retry("maximum bytes exceeded (10077)".into()),
                _ => Verdict::Retry(EARLIER.into()),
            };
            assert_eq!(verdict, expected, "{n}");
        }
    }

    #[test]
    fn what_jetstream_says_of_a_message_is_understood() {
        let of = |status, text: &str| verdict("FARM", status, text.as_bytes());
        let refused = |code: u32, stream: &str| {
            format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"no\n"}},"stream":"{stream}","seq":0}}"#)
        };
        assert_eq!(of(None, r#"{"stream":"FARM","seq":7}"#), Verdict::Done);
        assert_eq!(of(None, r#"{"stream":"FARM","seq":7,"duplicate":true,"domain":"x"}"#), Verdict::Done);
        assert_eq!(of(None, &refused(10_054, "FARM")), Verdict::Dead("no  (10054)".into()));
        assert_eq!(of(None, &refused(10_077, "FARM")), Verdict::Retry("no  (10077)".into()), "it is full");
        assert!(matches!(of(None, &refused(10_060, "OTHER")), Verdict::Retry(_)), "another stream");
        assert!(matches!(of(Some(503), ""), Verdict::Retry(said) if said.contains("FARM")));
        for text in ["", "+OK", r#"{"stream":"FARM","seq":0}"#, r#"{"stream":"OTHER","seq":7}"#] {
            assert!(matches!(of(None, text), Verdict::Retry(_)), "{text}");
        }
    }

    #[test]
    fn parts_of_subjects_have_no_wildcards_and_no_dots() {
        assert!(is_part("fivefold") && is_part("a-b_1"));
        for text in ["", "a.b", "*", ">", "a b", "$JS", "a\r\nPUB"] {
            assert!(!is_part(text), "{text}");
        }
    }
}
