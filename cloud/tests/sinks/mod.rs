//! Receivers of alarms on loopback: a webhook, a mail server, and time as a test wants it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use fivefold_cloud::alarm::Clock;
use fivefold_core::suite::hmac_sha256;
use fivefold_core::time::Millis;
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::tls::{Identity, LiveIdentity, server_config_api};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub const SECRET: &[u8] = b"what both sides know of the webhook";
pub const PASSWORD: &[u8] = b"what the mail server knows";

/// Ids as they came, repeats too.
pub type Ids = Arc<Mutex<Vec<String>>>;

/// Time that goes on when the test says so.
#[derive(Clone)]
pub struct Virtual(Arc<watch::Sender<u64>>);

impl Virtual {
    pub fn at(now: Millis) -> Self {
        Self(Arc::new(watch::Sender::new(now.0)))
    }

    /// Time passes, and who waited for it gets a moment to do what it waited for.
    pub async fn pass(&self, ms: u64) {
        self.0.send_modify(|now| *now += ms);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

impl Clock for Virtual {
    fn now(&self) -> Millis {
        Millis(*self.0.borrow())
    }

    async fn sleep(&self, ms: u64) {
        let mut time = self.0.subscribe();
        let until = *time.borrow() + ms;
        let _ = time.wait_for(|now| *now >= until).await.map(|now| *now);
    }
}

pub async fn listen(port: u16) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    socket.listen(64).unwrap()
}

/// A port where nothing listens.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[derive(Clone)]
struct Hook {
    heard: Ids,
    answer: StatusCode,
}

/// A webhook that checks every signature, and answers this.
pub async fn webhook(port: u16, answer: StatusCode) -> (Ids, JoinHandle<()>) {
    let (hook, listener) = (Hook { heard: Ids::default(), answer }, listen(port).await);
    let heard = hook.heard.clone();
    let app = axum::Router::new().route("/alarms", axum::routing::post(take)).with_state(hook);
    (heard, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

async fn take(
    State(hook): State<Hook>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, [(&'static str, &'static str); 1]) {
    let signed = headers["fivefold-signature"].to_str().unwrap();
    let (time, mac) = signed.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(mac, hex::encode(hmac_sha256(SECRET, &[time.as_bytes(), b".", body.as_bytes()])));
    let alarm: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(alarm["id"].as_str(), headers["fivefold-alarm-id"].to_str().ok());
    hook.heard.lock().unwrap().push(alarm["id"].as_str().unwrap().to_owned());
    (hook.answer, [("location", "http://127.0.0.1:1/elsewhere")])
}

/// How a mail server behaves.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// TLS from the first byte.
    #[default]
    Smtps,
    /// STARTTLS.
    StartTls,
    /// It offers no STARTTLS.
    NoTls,
    /// It says more behind its yes to STARTTLS, in clear text.
    GoesOn,
    /// It takes mails for nobody but `ops@farm.example`.
    OneReceiver,
    /// It takes nothing now.
    Greylists,
}

/// The CA of mail servers in `folder`, as a file that clients can name, and what servers show.
pub fn mail_tls(folder: &Path) -> TlsAcceptor {
    let now = fivefold_cloud::clock::now().0 / 1000;
    let (authority, _) = Authority::create("mail").unwrap();
    std::fs::write(folder.join("ca.pem"), authority.certificate()).unwrap();
    let issued = authority.issue(&Role::Cloud(vec!["localhost".into()]), now, 30).unwrap();
    let identity = Identity::from_pkcs8(issued.certified.chain.as_bytes(), &issued.key).unwrap();
    TlsAcceptor::from(Arc::new(server_config_api(&LiveIdentity::new(identity)).unwrap()))
}

/// What a mail server saw.
#[derive(Clone, Default)]
pub struct Mails {
    pub ids: Ids,
    /// Whole messages.
    pub texts: Arc<Mutex<Vec<String>>>,
    /// Lines that came without TLS.
    pub clear: Arc<Mutex<Vec<String>>>,
}

pub async fn mail_server(port: u16, tls: TlsAcceptor, manner: Manner) -> (Mails, JoinHandle<()>) {
    let (mails, listener) = (Mails::default(), listen(port).await);
    let seen = mails.clone();
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (tls, mails) = (tls.clone(), mails.clone());
            // Who goes in the middle is none of the server's problems.
            tokio::spawn(async move { serve(socket, tls, mails, manner).await });
        }
    });
    (seen, task)
}

async fn serve(mut socket: TcpStream, tls: TlsAcceptor, mails: Mails, manner: Manner) -> Option<()> {
    if matches!(manner, Manner::StartTls | Manner::NoTls | Manner::GoesOn) {
        let mut session = BufReader::new(&mut socket);
        session.get_mut().write_all(b"220 mail.example ESMTP\r\n").await.ok()?;
        loop {
            let mut line = String::new();
            if session.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            mails.clear.lock().unwrap().push(line.trim_end().to_owned());
            let says: &[u8] = match line.trim_end() {
                "STARTTLS" if manner == Manner::GoesOn => b"220 go on\r\n250 and take this\r\n",
                "STARTTLS" => b"220 go on\r\n",
                l if l.starts_with("EHLO ") && manner == Manner::NoTls => b"250-mail.example\r\n250 SIZE 1000\r\n",
                l if l.starts_with("EHLO ") => b"250-mail.example\r\n250 STARTTLS\r\n",
                _ => b"502 what?\r\n",
            };
            session.get_mut().write_all(says).await.ok()?;
            if line.trim_end() == "STARTTLS" {
                break;
            }
        }
    }
    let mut session = BufReader::new(tls.accept(socket).await.ok()?);
    if !matches!(manner, Manner::StartTls | Manner::NoTls | Manner::GoesOn) {
        say(&mut session, "220 mail.example ESMTP").await?;
    }
    talk(&mut session, &mails, manner).await
}

async fn say<S: AsyncWrite + AsyncRead + Unpin>(session: &mut BufReader<S>, line: &str) -> Option<()> {
    session.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    session.get_mut().flush().await.ok()
}

async fn talk<S: AsyncWrite + AsyncRead + Unpin>(
    session: &mut BufReader<S>,
    mails: &Mails,
    manner: Manner,
) -> Option<()> {
    let mut is_known = false;
    loop {
        let mut line = String::new();
        if session.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        let answer = if line.starts_with("EHLO ") {
            "250-mail.example\r\n250-8BITMIME\r\n250 AUTH LOGIN PLAIN".to_owned()
        } else if let Some(words) = line.strip_prefix("AUTH PLAIN ") {
            let words = base64::engine::general_purpose::STANDARD.decode(words).unwrap();
            is_known = words == [b"\0cloud\0", PASSWORD].concat();
            if is_known { "235 welcome" } else { "535 no" }.to_owned()
        } else if line == "DATA" {
            say(session, "354 go").await?;
            let mut text = String::new();
            while !text.ends_with("\r\n.\r\n") {
                if session.read_line(&mut text).await.ok()? == 0 {
                    return None;
                }
            }
            let id = text.lines().find_map(|l| l.strip_prefix("Fivefold-Alarm-Id: ")).unwrap().to_owned();
            assert!(text.contains(&format!("Message-ID: <{id}@farm.example>")));
            mails.ids.lock().unwrap().push(id);
            mails.texts.lock().unwrap().push(text);
            "250 kept".to_owned()
        } else if line == "QUIT" {
            say(session, "221 bye").await?;
            return Some(());
        } else if !is_known {
            "530 who are you?".to_owned()
        } else if line.starts_with("RCPT TO:") && manner == Manner::OneReceiver && line != "RCPT TO:<ops@farm.example>"
        {
            "550 nobody here".to_owned()
        } else if line.starts_with("RCPT TO:") && manner == Manner::Greylists {
            "450 later".to_owned()
        } else {
            "250 yes".to_owned()
        };
        say(session, &answer).await?;
    }
}
