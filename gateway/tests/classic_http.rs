//! The HTTP listener over raw sockets: every module's request, and what strangers do to it, before an engine that is played here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::wire::classic::Carrier;
use fivefold_gateway::classic::Desk;
use fivefold_gateway::classic::http::listener::{Listener, Patience};
use fivefold_gateway::classic::http::places::Bounds;
use fivefold_gateway::classic::http::refusal::Refusal;
use fivefold_gateway::classic::http::tokens::{self, Tokens};
use fivefold_gateway::daemon::Event;
use fivefold_gateway::gateway::ClassicDone;
use tempfile::TempDir;

#[path = "common/requests.rs"]
mod requests;

const FRAME: &str = "3C3D3E0213FF316DF95343503123D71FD9012E0125FF2001";
const BOUNDS: Bounds = Bounds { connections: 64, connections_per_address: 64, requests_a_minute: 100_000 };
/// Long enough for a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(60);
const PATIENT: Patience = Patience { request: LONG, idle: LONG, quiet: LONG, engine: LONG, taking: LONG };

type Heard = Vec<(Carrier, Vec<u8>)>;
type Decide = dyn Fn(&[u8]) -> Option<ClassicDone> + Send;

/// A listener, and what its engine heard.
struct World {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    refused: Arc<Mutex<HashMap<Code, u64>>>,
    folder: TempDir,
}

impl World {
    async fn new(bounds: Bounds, patience: Patience) -> Self {
        Self::with(bounds, patience, Box::new(|_| Some(ClassicDone::Stored))).await
    }

    /// Its engine decides so; `None`: it never says.
    async fn with(bounds: Bounds, patience: Patience, decide: Box<Decide>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (engine, queue) = sync_channel(64);
        let (heard, refused): (Arc<Mutex<Heard>>, Arc<Mutex<HashMap<_, _>>>) = Default::default();
        let (hears, counts) = (heard.clone(), refused.clone());
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            for event in queue {
                match event {
                    Event::Classic(event) => {
                        hears.lock().unwrap().push((event.carrier, event.frame.to_vec()));
                        match decide(&event.frame) {
                            Some(done) => drop(event.done.unwrap().send(done)),
                            None => waiting.push(event.done),
                        }
                    }
                    Event::RefusedOften(rejected, times) => {
                        *counts.lock().unwrap().entry(rejected.code).or_default() += times;
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let tokens = Tokens::of(folder.path()).unwrap();
        tokio::spawn(Listener::new(Desk::new(engine), tokens, bounds, patience).serve(socket));
        Self { address, heard, refused, folder }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream
    }

    /// What is answered until the listener closes.
    fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        rest(&mut stream)
    }

    fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    async fn refused(&self, code: Code, at_least: u64) {
        self.wait_for(&format!("{at_least} of {code}"), || {
            self.refused.lock().unwrap().get(&code).copied().unwrap_or_default() >= at_least
        })
        .await;
    }

    async fn wait_for(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..1200 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}; refused: {:?}", self.refused.lock().unwrap());
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// One answer, by its length.
fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    let length = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.split_once("content-length: ").map_or(0, |(_, l)| l.parse().unwrap());
        Some((body.len(), length))
    };
    while length(&text).is_none_or(|(have, want)| have < want) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn get(frame: &str, connection: &str) -> String {
    format!("GET /getpost_frame_parser.php?frame={frame} HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n")
}

fn frame() -> Vec<u8> {
    hex::decode(FRAME).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_modules_request_is_handed_in_once_and_answered_as_its_client_needs() {
    let w = World::new(BOUNDS, PATIENT).await;
    let mut frames = Vec::new();
    for (case, request) in requests::of_every_module() {
        let text = |key: &str| case[key].as_str();
        if let Some((_, token)) = request.split_once("Bearer ") {
            let token = token.split_once('\r').unwrap().0;
            tokens::add(w.folder.path(), token, Some(token), 1).unwrap();
        }
        let send = || {
            let mut stream = w.connect();
            stream.write_all(request.as_bytes()).unwrap();
            answer(&mut stream)
        };
        // The listener looks once a second whose tokens it takes.
        let said = Mutex::new(String::new());
        w.wait_for(&request, || {
            *said.lock().unwrap() = send();
            !said.lock().unwrap().starts_with("HTTP/1.1 401")
        })
        .await;
        let said = said.into_inner().unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\nstatus: 200 ok\r\n"), "{said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("\r\ncontent-length: 7") && body == "200 ok\n", "{said}");
        frames.push(hex::decode(text("frame_hex").unwrap()).unwrap());
    }
    let heard = w.heard();
    assert_eq!(heard.iter().map(|(_, f)| f.clone()).collect::<Vec<_>>(), frames);
    assert_eq!(heard.iter().filter(|(c, _)| *c == Carrier::Bridge).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_that_a_frame_is_stored_before_it_is() {
    let w = World::with(BOUNDS, Patience { engine: Duration::from_millis(300), ..PATIENT }, Box::new(|_| None)).await;
    let said = w.ask(get(FRAME, "close"));
    assert!(said.starts_with("HTTP/1.1 503") && said.ends_with("not stored: send it again\n"), "{said}");
    assert_eq!(w.heard().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_says_is_what_the_module_hears() {
    let decide = |frame: &[u8]| {
        Some(match frame.last() {
            Some(1) => ClassicDone::Refused(Rejected::new(Code::StoreFull, "the spool is full")),
            Some(2) => ClassicDone::Refused(Rejected::new(Code::ClassicUnknown, "who")),
            Some(3) => ClassicDone::Refused(Rejected::new(Code::ClassicMalformed, "what")),
            _ => ClassicDone::Answer([0x3C, 0x3D, 0x3E, 0x6A, 0xAB].into()),
        })
    };
    let w = World::with(BOUNDS, PATIENT, Box::new(decide)).await;
    for (frame, status, body) in [
        ("3C01", "503 Service Unavailable", "refused: E4-04 the spool is full\n"),
        ("3C02", "403 Forbidden", "refused: CL-07 who\n"),
        ("3C03", "400 Bad Request", "refused: CL-01 what\n"),
        ("3C04", "200 OK", "200 ok\n3C3D3E6AAB\n"),
    ] {
        let said = w.ask(get(frame, "close"));
        assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}");
        assert!(said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_takes_frames_with_a_token_of_the_operators_alone() {
    let w = World::new(BOUNDS, PATIENT).await;
    let ask = |header: &str| w.ask(format!("GET /hw/ps?frame={FRAME} HTTP/1.0\r\n{header}\r\n"));
    assert!(ask("").starts_with("HTTP/1.1 401 Unauthorized\r\nstatus: 401 unauthorized\r\n"));
    assert!(ask("Authorization: Bearer a-token-of-somebody-else\r\n").starts_with("HTTP/1.1 401"));
    w.refused(Code::ClassicToken, 2).await;
    assert!(w.heard().is_empty());
    let token = tokens::add(w.folder.path(), "bridge", None, 1).unwrap();
    let header = format!("Authorization: Bearer {}\r\n", token.as_str());
    w.wait_for("a token that counts", || ask(&header).starts_with("HTTP/1.1 200")).await;
    assert_eq!(w.heard(), [(Carrier::Bridge, frame())]);
    tokens::revoke(w.folder.path(), "bridge").unwrap();
    w.wait_for("a token that was taken back", || ask(&header).starts_with("HTTP/1.1 401")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let w = World::new(BOUNDS, PATIENT).await;
    let mut stream = w.connect();
    stream.write_all([get("3C01", "keep-alive"), get("zz", "x"), get("3C02", "x")].concat().as_bytes()).unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    assert!(answer(&mut stream).starts_with("HTTP/1.1 400"));
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    stream.write_all(get("3C03", "close").as_bytes()).unwrap();
    assert!(rest(&mut stream).contains("connection: close\r\n"));
    assert_eq!(w.heard().into_iter().map(|(_, f)| f).collect::<Vec<_>>(), [[0x3C, 1], [0x3C, 2], [0x3C, 3]]);
    w.refused(Code::ClassicMalformed, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_length_nobody_says_and_one_that_waits_for_a_word_are_taken() {
    let w = World::new(BOUNDS, Patience { quiet: Duration::from_millis(200), ..PATIENT }).await;
    let said = w.ask(format!("POST /getpost_frame_parser.php HTTP/1.1\r\n\r\nframe={FRAME}"));
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let mut stream = w.connect();
    let head = "POST /getpost_frame_parser.php HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 54\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(format!("frame={FRAME}").as_bytes()).unwrap();
    assert!(rest(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(w.heard().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_his_half_is_answered_all_the_same() {
    let w = World::new(BOUNDS, PATIENT).await;
    for request in [get(FRAME, "keep-alive"), format!("GET /getpost_frame_parser.php?frame={FRAME}\n")] {
        let mut stream = w.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(rest(&mut stream).starts_with("HTTP/1.1 200"));
    }
    assert_eq!(w.heard().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_what_is_too_long_is_refused_and_counted_while_others_are_served() {
    let w = World::new(BOUNDS, Patience { quiet: Duration::from_secs(1), ..PATIENT }).await;
    let long = "A".repeat(1 << 20);
    for (request, refusal) in [
        ("\u{16}\u{3}\u{1}\u{2}\n".to_owned(), Refusal::RequestLine),
        (long.clone(), Refusal::LineTooLong),
        (
            format!("POST /getpost_frame_parser.php HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n{long}"),
            Refusal::BodyTooLong,
        ),
        (format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(10_000)), Refusal::TooManyHeaders),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Refusal::Version),
    ] {
        let mut stream = w.connect();
        // The listener may have had enough before all of it is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.ends_with(&format!("refused: {}\n", refusal.sentence())), "{said}");
        assert!(w.ask(get(FRAME, "close")).starts_with("HTTP/1.1 200"));
    }
    w.refused(Code::ClassicTooMany, 3).await;
    w.refused(Code::ClassicMalformed, 2).await;
    assert_eq!(w.heard().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_or_drip_are_cut_and_nobody_waits_for_them() {
    let w = World::new(BOUNDS, Patience { request: Duration::from_secs(2), ..PATIENT }).await;
    let silent = w.connect();
    let mut dripping = w.connect();
    let drips = std::thread::spawn(move || {
        for byte in get(FRAME, "close").bytes().cycle() {
            if dripping.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(w.ask(get(FRAME, "close")).starts_with("HTTP/1.1 200"));
    w.refused(Code::ClassicTooMany, 2).await;
    let mut silent = silent;
    assert!(rest(&mut silent).starts_with("HTTP/1.1 408 Request Timeout"));
    drips.join().unwrap();
    assert_eq!(w.heard().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_places_and_what_it_tries_is_counted() {
    let w = World::new(Bounds { connections: 8, connections_per_address: 4, ..BOUNDS }, PATIENT).await;
    let mut flood: Vec<TcpStream> = (0..100).map(|_| w.connect()).collect();
    w.refused(Code::ClassicTooMany, 96).await;
    let open = flood.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.read(&mut [0]).err().filter(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert_eq!(open.count(), 4);
    // Another address is served.
    let other = socket_of("127.0.0.2", w.address);
    assert!(served(other).starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_places_are_held_open_a_new_client_gets_the_oldest_one() {
    let w = World::new(Bounds { connections: 4, connections_per_address: 2, ..BOUNDS }, PATIENT).await;
    let mut held: Vec<TcpStream> =
        ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"].map(|from| socket_of(from, w.address)).into();
    assert!(served(socket_of("127.0.0.4", w.address)).starts_with("HTTP/1.1 200"));
    assert_eq!(rest(&mut held[0]), "", "the one that waited longest is cut");
    w.refused(Code::ClassicTooMany, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_may_ask_so_often_a_minute() {
    let w = World::new(Bounds { requests_a_minute: 3, ..BOUNDS }, PATIENT).await;
    let answers: Vec<String> = (0..6).map(|_| w.ask(get(FRAME, "close"))).collect();
    let said = |status: &str| answers.iter().filter(|a| a.starts_with(&format!("HTTP/1.1 {status}"))).count();
    assert!(said("200") >= 3 && said("429") >= 1 && said("200") + said("429") == 6, "{answers:?}");
    w.refused(Code::ClassicTooMany, said("429") as u64).await;
    assert!(served(socket_of("127.0.0.2", w.address)).starts_with("HTTP/1.1 200"));
}

fn socket_of(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.into()
}

fn served(mut stream: TcpStream) -> String {
    stream.write_all(get(FRAME, "close").as_bytes()).unwrap();
    rest(&mut stream)
}
