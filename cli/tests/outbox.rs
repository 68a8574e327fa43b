//! Readings out, as an operator sees it over processes: four sinks are away, the cloud is killed, and what each refuses for good
//! is seen by `fivefold outbox dead` and goes out by `fivefold outbox resend` once the sink is mended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;
#[path = "../../sinks/tests/servers/mod.rs"]
mod servers;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold, refused, says};
use serde_json::Value;
use servers::{Jetstream, Server, influxd, nats, query, start};

const READINGS: usize = 9;
/// The one that is a long text.
const LONG: usize = 6;

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let came = (0..1200).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        is()
    });
    assert!(came, "never {what}");
}

/// A receiver. Until it is mended it refuses a long reading.
trait Receiver {
    fn words(&self) -> String;
    fn start(&mut self);
    fn kill(&mut self);
    fn mend(&mut self);
    /// Ids of readings in the order in which they came, as often as they came.
    fn ids(&self) -> Vec<String>;
}

fn ids<'v>(messages: impl IntoIterator<Item = &'v Value>) -> Vec<String> {
    messages.into_iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

/// A webhook, and what it has.
struct Hook {
    port: u16,
    heard: Arc<Mutex<Vec<Value>>>,
    is_mended: Arc<AtomicBool>,
    /// Whether anybody answers: a thread that listens does not let go of its port.
    is_there: Arc<AtomicBool>,
}

fn request(socket: TcpStream) -> Option<(TcpStream, Vec<u8>)> {
    let (mut socket, mut length) = (BufReader::new(socket), 0);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).ok()? <= 2 {
            break;
        }
        if let Some(("content-length", value)) = line.to_ascii_lowercase().trim_end().split_once(": ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some((socket.into_inner(), body))
}

impl Hook {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, is_mended, is_there) = <(Arc<Mutex<Vec<Value>>>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (hears, mended, there) = (heard.clone(), is_mended.clone(), is_there.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if !there.load(Ordering::Relaxed) {
                    continue;
                }
                let Some((mut socket, body)) = request(socket.unwrap()) else { continue };
                let long = body.windows(8).any(|w| w == b"xxxxxxxx");
                let said = if long && !mended.load(Ordering::Relaxed) {
                    "422 Unprocessable Content\r\ncontent-length: 17\r\nconnection: close\r\n\r\nno text so long, "
                } else {
                    let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
                    hears.lock().unwrap().extend(events.into_iter().map(|mut e| e["data"].take()));
                    "204 No Content\r\nconnection: close\r\n\r\n"
                };
                let _ = write!(socket, "HTTP/1.1 {said}");
            }
        });
        Self { port, heard, is_mended, is_there }
    }
}

impl Receiver for Hook {
    fn words(&self) -> String {
        format!("webhook = \"http://127.0.0.1:{}/in\"\n", self.port)
    }

    fn start(&mut self) {
        self.is_there.store(true, Ordering::Relaxed);
    }

    fn kill(&mut self) {
        self.is_there.store(false, Ordering::Relaxed);
    }

    fn mend(&mut self) {
        self.is_mended.store(true, Ordering::Relaxed);
    }

    fn ids(&self) -> Vec<String> {
        ids(self.heard.lock().unwrap().iter())
    }
}

/// Mosquitto, and a subscriber of its own.
struct Broker {
    folder: PathBuf,
    port: u16,
    limit: &'static str,
    running: Option<(Server, Child)>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((_, listens)) = &mut self.running {
            let _ = listens.kill();
            let _ = listens.wait();
        }
    }
}

impl Receiver for Broker {
    fn words(&self) -> String {
        format!("mqtt = \"mqtt://127.0.0.1:{}\"\ninsecure_mqtt = true\n", self.port)
    }

    fn start(&mut self) {
        let (file, limit) = (self.folder.join("mosquitto.conf"), self.limit);
        let words = format!("listener {} 127.0.0.1\nallow_anonymous true\nuser root\n{limit}", self.port);
        fs::write(&file, words).unwrap();
        let server = start("/usr/sbin/mosquitto", &[Path::new("-c"), &file], self.port);
        let heard = fs::File::options().create(true).append(true).open(self.folder.join("heard")).unwrap();
        let port = self.port.to_string();
        let listen = ["-p", &port, "-V", "5", "-q", "2", "-t", "fivefold/#", "-d"];
        // Line by line: into a file it would come in blocks.
        let mut listens = Command::new("stdbuf");
        let listens = listens.args(["-oL", "mosquitto_sub"]).args(listen).stdout(heard).spawn().unwrap();
        self.running = Some((server, listens));
        until("a subscriber", || {
            let said = fs::read_to_string(self.folder.join("heard")).unwrap();
            said.matches("Subscribed (mid").count() > said.matches("sending DISCONNECT").count()
        });
    }

    fn kill(&mut self) {
        if let Some((server, mut listens)) = self.running.take() {
            drop(server);
            listens.kill().unwrap();
            listens.wait().unwrap();
            fs::rename(self.folder.join("heard"), self.folder.join("heard before")).unwrap();
        }
    }

    fn mend(&mut self) {
        self.limit = "";
    }

    fn ids(&self) -> Vec<String> {
        let heard =
            ["heard before", "heard"].map(|file| fs::read_to_string(self.folder.join(file)).unwrap_or_default());
        let messages: Vec<Value> = heard.concat().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        ids(&messages)
    }
}

struct Database {
    folder: PathBuf,
    port: u16,
    limit: &'static str,
    running: Option<Server>,
}

impl Receiver for Database {
    fn words(&self) -> String {
        format!("influx = \"http://127.0.0.1:{}\"\ndatabase = \"farm\"\n", self.port)
    }

    fn start(&mut self) {
        self.running = Some(influxd(&self.folder, self.port, self.limit));
        until("a database", || !query(self.port, "CREATE DATABASE farm").is_null());
    }

    fn kill(&mut self) {
        self.running = None;
    }

    fn mend(&mut self) {
        self.limit = "";
    }

    /// By their numbers: a database has points and no order in which they came.
    fn ids(&self) -> Vec<String> {
        let points = servers::column(self.port, "SELECT id FROM fivefold");
        let mut ids: Vec<_> = points.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        // NET-DEVICE-LEVEL-EPOCH-BOOT-NUMBER-HASH.
        ids.sort_by_key(|id| id.split('-').nth(5).unwrap().parse::<u64>().unwrap());
        ids
    }
}

struct Stream {
    folder: PathBuf,
    port: u16,
    limit: &'static str,
    running: Option<Server>,
}

impl Receiver for Stream {
    fn words(&self) -> String {
        format!("nats = \"nats://127.0.0.1:{}\"\nstream = \"FARM\"\n", self.port)
    }

    fn start(&mut self) {
        let is_first = !self.folder.join("jetstream").exists();
        self.running = Some(nats(&self.folder, self.port, self.limit));
        if is_first {
            Jetstream::connect(self.port).stream(&[]);
        }
    }

    fn kill(&mut self) {
        self.running = None;
    }

    fn mend(&mut self) {
        self.limit = "";
    }

    fn ids(&self) -> Vec<String> {
        let all: Vec<Value> =
            Jetstream::connect(self.port).messages(1).into_iter().map(|(.., message)| message).collect();
        ids(&all)
    }
}

/// What a command of `fivefold outbox` says, and its exit code.
fn outbox(farm: &Farm, words: &[&str]) -> (Option<i32>, Value) {
    let (dir, token) = (farm.path(""), farm.token.display().to_string());
    let done = fivefold(&[&["outbox"], words, &["--dir", &dir, "--token-file", &token]].concat()).output().unwrap();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or_default())
}

fn letters(farm: &Farm, name: &str) -> Vec<Value> {
    let (code, said) = outbox(farm, &["dead", name]);
    let letters = said["letters"].as_array().cloned().unwrap_or_default();
    assert_eq!(code, Some(i32::from(!letters.is_empty())), "{said}");
    letters
}

/// A sink's folder.
fn at(farm: &Farm, name: &str) -> PathBuf {
    let folder = farm.folder.path().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// A node that is given all readings, the long one among them; it ends when all are confirmed.
fn report(farm: &Farm) {
    let words: Vec<String> = farm.node().into_iter().chain(["--stdin", "--wait", "60"].map(str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut node = fivefold(&words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut into = node.stdin.take().unwrap();
    for n in 1..=READINGS {
        let value = if n == LONG { format!("\"vs\":\"{}\"", "x".repeat(64)) } else { format!("\"v\":{n}") };
        writeln!(into, "{{\"n\":\"level\",{value}}}").unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(into);
    assert!(node.wait().unwrap().success());
}

#[test]
fn what_sinks_refused_for_good_goes_out_by_resend_once_they_are_mended() {
    let farm = Farm::new();
    let mut sinks: [(&str, Box<dyn Receiver>); 4] = [
        ("hook", Box::new(Hook::new())),
        (
            "broker",
            Box::new(Broker {
                folder: at(&farm, "mosquitto"),
                port: farm.free().port(),
                limit: "max_packet_size 1300\n",
                running: None,
            }),
        ),
        (
            "base",
            Box::new(Database {
                folder: at(&farm, "influxdb"),
                port: farm.free().port(),
                limit: "max-body-size = 280\n",
                running: None,
            }),
        ),
        (
            "stream",
            Box::new(Stream {
                folder: at(&farm, "nats"),
                port: farm.free().port(),
                limit: "max_payload: 880\n",
                running: None,
            }),
        ),
    ];
    let settings = farm.path("cloud/cloud.toml");
    let words: String =
        sinks.iter().map(|(name, s)| format!("\n[[outbox]]\nname = \"{name}\"\n{}", s.words())).collect();
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + &words).unwrap();
    let dir = farm.path("");
    says(&refused(&farm.cloud()), &["it has no secret", "fivefold outbox add-secret hook"]);
    answer(&["outbox", "add-secret", "--dir", &dir, "hook", "--draw"]);

    // All are away; the cloud is killed in the middle.
    let cloud = Daemon::start(&farm.cloud(), 0);
    let gateway = Daemon::start(&farm.gateway(), 0);
    report(&farm);
    until("all readings", || farm.stored() == READINGS);
    let of = |all: &Value, what: &str| -> Vec<Value> {
        all["sinks"].as_array().unwrap().iter().map(|sink| sink[what].clone()).collect()
    };
    until("all are away", || of(&outbox(&farm, &["list"]).1, "state").iter().all(|state| state == "away"));
    let (code, all) = outbox(&farm, &["list"]);
    assert_eq!((code, of(&all, "waiting")), (Some(1), vec![READINGS.into(); 4]), "{all}");
    drop(cloud);
    let _cloud = Daemon::start(&farm.cloud(), 0);
    until("the cloud", || outbox(&farm, &["list"]).1["sinks"].is_array());

    // They are there, and each takes all but the long one. Nothing is sent before somebody listens at the broker.
    for (name, sink) in &mut sinks {
        assert_eq!(outbox(&farm, &["pause", name]).0, Some(0));
        sink.start();
        assert_eq!(outbox(&farm, &["resume", name]).0, Some(0));
    }
    let mut refused = Vec::new();
    for (name, sink) in &sinks {
        until(name, || outbox(&farm, &["show", name]).1["waiting"] == 0);
        let dead = letters(&farm, name);
        assert_eq!(dead.len(), 1, "{name}: {dead:?}; it has {:?}", sink.ids());
        assert!(!dead[0]["said"].as_str().unwrap().is_empty());
        until("all but one", || sink.ids().len() >= READINGS - 1);
        assert!(!sink.ids().contains(&dead[0]["id"].as_str().unwrap().to_owned()), "{name}");
        refused.push(dead[0].clone());
    }
    assert_eq!(outbox(&farm, &["list"]).0, Some(1));
    let orders: Vec<_> = sinks.iter().map(|(_, sink)| sink.ids()).collect();
    assert!(orders.iter().all(|order| *order == orders[0]), "each has them in the same order: {orders:?}");

    // Sent again too early they are refused again, and stay.
    for ((name, _), letter) in sinks.iter().zip(&refused) {
        let number = letter["letter"].to_string();
        assert_eq!(outbox(&farm, &["resend", name, &number]).0, Some(0));
        until("a refusal more", || letters(&farm, name)[0]["tries"].as_u64() > letter["tries"].as_u64());
    }

    // Each is mended, and the view is empty.
    for ((name, sink), letter) in sinks.iter_mut().zip(&refused) {
        sink.kill();
        sink.mend();
        sink.start();
        assert_eq!(outbox(&farm, &["resend", name, "--all"]).0, Some(0));
        let _ = outbox(&farm, &["resume", name]);
        until("no dead letter", || letters(&farm, name).is_empty());
        assert_eq!(outbox(&farm, &["show", name]).0, Some(0));
        until("the one that was refused", || sink.ids().iter().any(|id| letter["id"] == **id));
        let mut ids = sink.ids();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), READINGS, "{name}: {ids:?}");
    }
    let (code, all) = outbox(&farm, &["list"]);
    assert_eq!((code, of(&all, "waiting")), (Some(0), vec![0.into(); 4]), "{all}");
    drop(gateway);
}
