//! A mail for each alarm, by submission to a mail server (RFC 5321, RFC 6409): by TLS from the first byte, or by STARTTLS, and
//! never without.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_alarm::{Alarm, mail};
use fivefold_core::time::Millis;
use fivefold_keep::broker::Login;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{NotTaken, away};

/// Bytes of a line of the server's, and lines of an answer, at most.
const LONGEST_LINE: u64 = 1000;
const MOST_LINES: usize = 64;

/// A mail server, and whose mails it takes for whom.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) starttls: bool,
    pub(super) login: Option<Login>,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) tls: ClientConfig,
}

impl Mail {
    /// Taken is what the server says it has.
    pub(super) async fn deliver(&self, alarm: &Alarm, now: Millis) -> Result<(), NotTaken> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(away)?;
        let mut tls = self.tls.clone();
        // It is no web server.
        tls.alpn_protocols.clear();
        let name = ServerName::try_from(self.host.clone()).map_err(away)?;
        let connector = TlsConnector::from(Arc::new(tls));
        let socket = if self.starttls { self.ask_for_tls(socket).await? } else { socket };
        let mut session = Session(BufReader::new(connector.connect(name, socket).await.map_err(away)?));
        if !self.starttls {
            session.answer().await?.expect(220)?;
        }
        let can = session.hello(self.domain()).await?;
        if let Some(login) = &self.login {
            if !can.iter().any(|line| line.split_whitespace().next() == Some("AUTH") && line.contains("PLAIN")) {
                return Err(NotTaken::Away("the mail server offers no AUTH PLAIN; leave out username".into()));
            }
            let mut words = Zeroizing::new(Vec::with_capacity(login.username.len() + login.password.len() + 2));
            words.push(0);
            words.extend_from_slice(login.username.as_bytes());
            words.push(0);
            words.extend_from_slice(&login.password);
            let words = Zeroizing::new(STANDARD.encode(&words));
            session.say(&["AUTH PLAIN ", &words]).await?.expect(235)?;
        }
        self.submit(&mut session, alarm, now).await
    }

    fn domain(&self) -> &str {
        self.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
    }

    /// STARTTLS (RFC 3207). What comes behind the server's yes in clear text is nobody's: it ends the session.
    async fn ask_for_tls(&self, socket: TcpStream) -> Result<TcpStream, NotTaken> {
        let mut session = Session(BufReader::new(socket));
        session.answer().await?.expect(220)?;
        let can = session.hello(self.domain()).await?;
        if !can.iter().any(|line| line == "STARTTLS") {
            return Err(NotTaken::Away("the mail server offers no STARTTLS, and nothing is sent without TLS".into()));
        }
        session.say(&["STARTTLS"]).await?.expect(220)?;
        if !session.0.buffer().is_empty() {
            return Err(NotTaken::Away("the mail server went on in clear text behind STARTTLS".into()));
        }
        Ok(session.0.into_inner())
    }

    async fn submit<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &mut Session<S>,
        alarm: &Alarm,
        now: Millis,
    ) -> Result<(), NotTaken> {
        session.say(&["MAIL FROM:<", &self.from, ">"]).await?.expect(250)?;
        let mut refused = Vec::new();
        for to in &self.to {
            let answer = session.say(&["RCPT TO:<", to, ">"]).await?;
            match answer.code {
                250 | 251 => {}
                // For good: the others are told all the same.
                500..=599 => refused.push(format!("{to}: {}", answer.text())),
                _ => return Err(answer.refusal()),
            }
        }
        if refused.len() == self.to.len() {
            return Err(NotTaken::Refused(refused.join("; ")));
        }
        for to in &refused {
            tracing::warn!(receiver = to, "the mail server refuses a receiver of alarms; the others are told");
        }
        session.say(&["DATA"]).await?.expect(354)?;
        let message = mail::message(alarm, &self.from, &self.to, now);
        // A line with nothing but a full stop would end it (RFC 5321 4.5.2).
        let stuffed = message.replace("\r\n.", "\r\n..");
        session.say(&[&stuffed, "\r\n."]).await?.expect(250)?;
        // It has it; whether it hears the goodbye does not matter.
        let _ = session.say(&["QUIT"]).await;
        Ok(())
    }
}

/// An answer of the server's.
struct Answer {
    code: u16,
    lines: Vec<String>,
}

impl Answer {
    fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" "))
    }

    fn refusal(&self) -> NotTaken {
        NotTaken::Refused(format!("the mail server answered {}", self.text()))
    }

    fn expect(self, code: u16) -> Result<Self, NotTaken> {
        if self.code == code { Ok(self) } else { Err(self.refusal()) }
    }
}

struct Session<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Says a line, and hears the answer.
    async fn say(&mut self, words: &[&str]) -> Result<Answer, NotTaken> {
        let mut line = Zeroizing::new(Vec::with_capacity(words.iter().map(|w| w.len()).sum::<usize>() + 2));
        words.iter().for_each(|word| line.extend_from_slice(word.as_bytes()));
        line.extend_from_slice(b"\r\n");
        self.0.get_mut().write_all(&line).await.map_err(away)?;
        self.0.get_mut().flush().await.map_err(away)?;
        self.answer().await
    }

    /// Says who we are. What the server can, one a line, in capitals.
    async fn hello(&mut self, domain: &str) -> Result<Vec<String>, NotTaken> {
        let answer = self.say(&["EHLO ", domain]).await?.expect(250)?;
        Ok(answer.lines.into_iter().map(|line| line.to_ascii_uppercase()).collect())
    }

    async fn answer(&mut self) -> Result<Answer, NotTaken> {
        let odd = || NotTaken::Away("it does not answer as a mail server does".into());
        let mut lines = Vec::new();
        loop {
            let mut bytes = Vec::new();
            (&mut self.0).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await.map_err(away)?;
            if bytes.is_empty() {
                return Err(NotTaken::Away("the mail server ended the connection".into()));
            }
            let line = std::str::from_utf8(&bytes).map_err(|_| odd())?;
            let line = line.strip_suffix("\r\n").ok_or_else(odd)?;
            let (code, rest) = line.split_at_checked(3).ok_or_else(odd)?;
            let code = code.parse().ok().filter(|code| (200..600).contains(code)).ok_or_else(odd)?;
            let text = rest.get(1..).unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
            lines.push(text);
            match rest.bytes().next() {
                None | Some(b' ') => return Ok(Answer { code, lines }),
                Some(b'-') if lines.len() < MOST_LINES => {}
                _ => return Err(odd()),
            }
        }
    }
}
