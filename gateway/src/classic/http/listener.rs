//! The listener: a task for each connection, and nothing that one client does makes another wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, CONTINUE};
use super::form::Door;
use super::places::{Bounds, Entry, Place, Places};
use super::refusal::Refusal;
use super::request::{After, Missing, Parser, Request, Step};
use super::tokens::Tokens;
use crate::classic::{ClassicEvent, Desk};
use crate::gateway::ClassicDone;

/// How often what was turned away is told to the engine.
const TELL: Duration = Duration::from_secs(1);
/// Bytes that are read at once.
const CHUNK: usize = 2048;
/// Bytes of a refused client that are read and thrown away, so that it reads our answer before its connection is reset.
const LINGER: usize = 64 << 10;

const SLOW: Rejected = Rejected::new(Code::ClassicTooMany, "a client that did not send its request in time");
const ADDRESS_FULL: Rejected = Rejected::new(Code::ClassicTooMany, "too many connections of one address");
const FULL: Rejected = Rejected::new(Code::ClassicTooMany, "too many connections");
const TOO_OFTEN: Rejected = Rejected::new(Code::ClassicTooMany, "too many requests of one address");
const NO_TOKEN: Rejected = Rejected::new(Code::ClassicToken, "no bearer token");
const WRONG_TOKEN: Rejected = Rejected::new(Code::ClassicToken, "a bearer token that is none of ours");

/// How long a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a whole request, from the connection or from the answer before.
    pub request: Duration,
    /// For another request on a connection.
    pub idle: Duration,
    /// For more of a body whose length nobody said.
    pub quiet: Duration,
    /// For the engine to have a frame durable.
    pub engine: Duration,
    /// For a client to take its answer.
    pub taking: Duration,
}

impl Default for Patience {
    /// A modem on 2G needs seconds for its 700 bytes. Between requests as long as web servers wait by default.
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            idle: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
            engine: Duration::from_secs(20),
            taking: Duration::from_secs(10),
        }
    }
}

/// Takes frames of whoever connects.
#[derive(Debug)]
pub struct Listener {
    desk: Desk,
    tokens: Tokens,
    patience: Patience,
    started: Instant,
    places: Mutex<Places>,
    turned: Mutex<HashMap<(Code, &'static str), u64>>,
}

impl Listener {
    /// One that hands frames in at `desk`.
    pub fn new(desk: Desk, tokens: Tokens, bounds: Bounds, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            desk,
            tokens,
            patience,
            started: Instant::now(),
            places: Mutex::new(Places::new(bounds)),
            turned: Mutex::default(),
        })
    }

    /// Serves, for ever.
    pub async fn serve(self: Arc<Self>, socket: TcpListener) {
        let mut cuts: HashMap<Place, oneshot::Sender<()>> = HashMap::new();
        let mut tell = tokio::time::interval(TELL);
        loop {
            let (stream, from) = tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, from)) => (stream, from.ip()),
                    // Too many open files: it passes.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                _ = tell.tick() => {
                    self.tell();
                    self.heed();
                    cuts.retain(|_, cut| !cut.is_closed());
                    continue;
                }
            };
            let entry = self.places().enter(from, self.now());
            let place = match entry {
                Entry::Taken(place) => place,
                Entry::InPlaceOf(place, loser) => {
                    self.count(SLOW);
                    drop(cuts.remove(&loser));
                    place
                }
                Entry::AddressFull => {
                    self.count(ADDRESS_FULL);
                    continue;
                }
                Entry::Full => {
                    self.count(FULL);
                    continue;
                }
            };
            let (cut, is_cut) = oneshot::channel();
            cuts.insert(place, cut);
            tokio::spawn(self.clone().attend(stream, from, place, is_cut));
        }
    }

    async fn attend(self: Arc<Self>, mut stream: TcpStream, from: IpAddr, place: Place, cut: oneshot::Receiver<()>) {
        let _ = stream.set_nodelay(true);
        tokio::select! {
            () = self.converse(&mut stream, place) => {}
            _ = cut => tracing::debug!(%from, "cut: another connection needed the place"),
        }
        self.places().leave(place);
    }

    /// Requests and answers, until one side has enough.
    async fn converse(&self, stream: &mut TcpStream, place: Place) {
        let mut parser = Parser::new();
        let mut chunk = [0; CHUNK];
        let mut deadline = Instant::now() + self.patience.request;
        let mut answered = false;
        loop {
            let (answer, after) = match parser.step() {
                Ok(Step::Continue) => {
                    if self.say(stream, CONTINUE).await.is_none() {
                        return;
                    }
                    continue;
                }
                Ok(Step::More(missing)) => {
                    let until = match missing {
                        Missing::Perhaps => deadline.min(Instant::now() + self.patience.quiet),
                        Missing::Request if answered => deadline.min(Instant::now() + self.patience.idle),
                        Missing::Request | Missing::Rest => deadline,
                    };
                    let want = chunk.len().min(parser.room());
                    let read = timeout_at(until, stream.read(chunk.get_mut(..want).unwrap_or_default())).await;
                    match (read, missing) {
                        (Ok(Ok(read)), _) if read > 0 => {
                            parser.push(chunk.get(..read).unwrap_or_default());
                            continue;
                        }
                        (Err(_), Missing::Request) if answered => return,
                        (Err(_), Missing::Request | Missing::Rest) => {
                            self.count(SLOW);
                            let _ = self.say(stream, &Answer::Slow.emit(After::Close)).await;
                            return;
                        }
                        // The client has said all it will say.
                        _ => match parser.end() {
                            Ok(Some(request)) => (self.take(place, request).await.0, After::Close),
                            Ok(None) => return,
                            Err(refusal) => (self.refuse(refusal), After::Close),
                        },
                    }
                }
                Ok(Step::Whole(request)) => self.take(place, request).await,
                Err(refusal) if refusal.severs() => (self.refuse(refusal), After::Close),
                Err(refusal) => {
                    let after = if self.places().asks(place, self.now()) { After::Keep } else { After::Close };
                    (self.refuse(refusal), after)
                }
            };
            if self.say(stream, &answer.emit(after)).await.is_none() {
                return;
            }
            if after == After::Close {
                self.part(stream).await;
                return;
            }
            self.places().answered(place);
            answered = true;
            deadline = Instant::now() + self.patience.request;
        }
    }

    /// Hands a frame in, and waits until it is durable.
    async fn take(&self, place: Place, request: Request) -> (Answer, After) {
        if !self.places().asks(place, self.now()) {
            self.count(TOO_OFTEN);
            return (Answer::Rejected(TOO_OFTEN), After::Close);
        }
        let carrier = match request.door {
            Door::Meshlium => Carrier::Http,
            Door::Bridge => {
                let refused = match &request.bearer {
                    None => Some(NO_TOKEN),
                    Some(token) if !self.tokens.knows(token) => Some(WRONG_TOKEN),
                    Some(_) => None,
                };
                if let Some(rejected) = refused {
                    self.count(rejected);
                    return (Answer::Bearer, request.after);
                }
                Carrier::Bridge
            }
        };
        let event = ClassicEvent { carrier, source: None, rssi: None, frame: request.frame, done: None };
        let answer = match timeout(self.patience.engine, self.desk.bring(event)).await {
            Ok(ClassicDone::Stored) => Answer::Stored,
            Ok(ClassicDone::Noted) => Answer::Noted,
            Ok(ClassicDone::Answer(frame)) => Answer::Answered(frame),
            Ok(ClassicDone::Refused(rejected)) => Answer::Rejected(rejected),
            Err(_) => Answer::Busy,
        };
        (answer, request.after)
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.count(Rejected::new(refusal.code(), refusal.sentence()));
        Answer::Refused(refusal)
    }

    async fn say(&self, stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
        timeout(self.patience.taking, stream.write_all(bytes)).await.ok()?.ok()
    }

    /// Ends a connection so that the answer arrives: what the client still sends is read, up to a bound.
    async fn part(&self, stream: &mut TcpStream) {
        let _ = stream.shutdown().await;
        let mut chunk = [0; CHUNK];
        let mut left = LINGER;
        let until = Instant::now() + self.patience.quiet;
        while let Ok(Ok(read)) = timeout_at(until, stream.read(&mut chunk)).await
            && read > 0
            && left >= read
        {
            left -= read;
        }
    }

    fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, rejected: Rejected) {
        *self
            .turned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((rejected.code, rejected.reason))
            .or_default() += 1;
    }

    /// Looks whether the operator entered a token, or took one back.
    fn heed(&self) {
        match self.tokens.follow() {
            Ok(true) => tracing::info!("other bearer tokens are taken from now on"),
            Ok(false) => {}
            Err(why) => tracing::error!("the bearer tokens of before stay: {why}"),
        }
    }

    /// Tells the engine what was turned away: a flood is a number, and not as many events.
    fn tell(&self) {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.retain(|(code, reason), times| !self.desk.refuse_often(Rejected::new(*code, reason), *times));
    }
}
