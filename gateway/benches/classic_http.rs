//! Classic frames by HTTP, from the socket to durable, beside a bare handler on the same runtime that only answers.
//!
//! `cargo bench -p fivefold-gateway --bench classic_http -- SECONDS`: so long for each line. Modules are played by a process of
//! their own, so that the processor time of this one is the listener's, the engine's and the store's. "A second and core" is
//! frames for each second of that time.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use fivefold_core::e1_link::{Identity, LinkPolicy, Station};
use fivefold_core::id::{Did, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::ieee802154::Pan;
use fivefold_core::wire::state::{ClassicDevice, ClassicFlags, Part, State};
use fivefold_gateway::classic::Desk;
use fivefold_gateway::classic::http::listener::{Listener, Patience};
use fivefold_gateway::classic::http::places::Bounds;
use fivefold_gateway::classic::http::tokens::Tokens;
use fivefold_gateway::daemon::Event;
use fivefold_gateway::gateway::{Capture, Gateway, Limits, Output, Setup};
use fivefold_gateway::spool::{Spool, Wrap, WrapError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Nodes that send in turn: none is limited.
const NODES: u16 = 1_000;
/// As the daemon commits.
const GROUP: usize = 64;

struct Open;

impl Wrap for Open {
    fn wrap(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(plain.to_vec())
    }

    fn unwrap(&self, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

fn serial(node: u16) -> String {
    format!("{:016x}", 0x1111_0000_0000_0000 | u64::from(node))
}

/// A binary frame of two fields: BAT and TCA.
fn frame(node: u16, sequence: u8) -> String {
    let body = format!("{}6E6F646523{sequence:02X}345A4A0080AA42", serial(node).to_uppercase());
    format!("3C3D3E06{:02X}{body}", body.len() / 2)
}

fn engine() -> Gateway {
    let setup = Setup {
        net: Net(7),
        gateway: GatewayId(1),
        boot: GatewayBoot([1; 8]),
        identity: Identity { did: Did([2; 8]), sid: Sid(1), pan: Pan(0x4321), station: Station::Gateway },
        policy: LinkPolicy::default(),
        seed: [3; 32],
        keys: Vec::new(),
        coap_devices: HashMap::new(),
        limits: Limits { messages_a_minute: u16::MAX, spool_bytes: u64::MAX / 200, custody_after: 400 },
        capture: Capture::Off,
        local: None,
    };
    let mut gateway = Gateway::new(Millis(1_790_000_000_000), setup, Default::default());
    let serials: Vec<String> = (0..NODES).map(serial).collect();
    let classic: Vec<_> = serials
        .iter()
        .zip(1..)
        .map(|(serial, sid)| ClassicDevice {
            serial,
            sid: Sid(sid),
            flags: ClassicFlags::default(),
            dev_eui: None,
            key: None,
            hardened: List::default(),
        })
        .collect();
    let state = State {
        version: 1,
        net: Net(7),
        group: GatewayGroup(1),
        part: Part::WHOLE,
        devices: List::default(),
        contexts: List::default(),
        keys: List::default(),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::of(&classic),
    };
    let mut bytes = vec![0; 1 << 18];
    let len = state.emit(&mut bytes).unwrap();
    gateway.handle_state(Millis(1_790_000_000_000), &bytes[..len]).unwrap();
    gateway
}

/// As the daemon's thread does it.
fn run(mut gateway: Gateway, mut spool: Spool, queue: &Receiver<Event>) {
    let now = || Millis(1_790_000_000_000 + START.elapsed().as_millis() as u64);
    let mut waiting = HashMap::new();
    let (mut ticket, mut persisted) = (0, 0);
    while let Ok(first) = queue.recv() {
        for event in [first].into_iter().chain(queue.try_iter().take(GROUP - 1)) {
            match event {
                Event::Classic(mut event) => {
                    ticket += 1;
                    waiting.insert(ticket, event.done.take().unwrap());
                    gateway.handle_classic(now(), ticket, event.arrival());
                }
                Event::Stop => return,
                _ => {}
            }
        }
        loop {
            while let Some(output) = gateway.poll() {
                match output {
                    Output::Persist(record) => {
                        spool.write(&record).unwrap();
                        persisted += 1;
                    }
                    Output::Lookup(lookup) => {
                        let stored = spool.answer(lookup).unwrap();
                        gateway.handle_stored(now(), stored);
                    }
                    Output::Classic { ticket, done } => drop(waiting.remove(&ticket).unwrap().send(done)),
                    _ => {}
                }
            }
            if !spool.is_open() {
                break;
            }
            spool.commit().unwrap();
            gateway.handle_durable(now(), persisted);
        }
    }
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

/// Reads up to the end of a request, and answers.
async fn bare(socket: TcpListener) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 7\r\n\r\n200 ok\n";
    while let Ok((mut stream, _)) = socket.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let (mut chunk, mut have) = ([0; 2048], 0);
            while let Ok(read) = stream.read(&mut chunk[have..]).await
                && read > 0
            {
                have += read;
                if chunk[..have].ends_with(b"\r\n\r\n") {
                    have = 0;
                    if stream.write_all(ANSWER).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Processor time of this process.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The modules: so many connections, each with one request at a time, until the time is over. How many were answered 200.
fn load(to: SocketAddr, connections: u16, duration: Duration) -> u64 {
    let one = move |at: u16| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let (started, mut count, mut answer) = (Instant::now(), 0u64, [0; 1024]);
        while started.elapsed() < duration {
            let node = (u64::from(at) + count * u64::from(connections)) % u64::from(NODES);
            let frame = frame(node as u16, count as u8);
            let request = format!("GET /getpost_frame_parser.php?frame={frame} HTTP/1.1\r\nHost: h\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let read = stream.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
            count += 1;
        }
        count
    };
    let all: Vec<_> = (0..connections).map(|at| std::thread::spawn(move || one(at))).collect();
    all.into_iter().map(|t| t.join().unwrap()).sum()
}

/// Frames a second, and frames for each second of processor time.
fn measure(to: SocketAddr, connections: u16, seconds: f64) -> (f64, f64) {
    let (before, started) = (spent(), Instant::now());
    let load = Command::new(std::env::current_exe().unwrap())
        .args(["--load", &to.to_string(), &connections.to_string(), &seconds.to_string()])
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let count: f64 = String::from_utf8(load.stdout).unwrap().trim().parse().unwrap();
    (count / started.elapsed().as_secs_f64(), count / (spent() - before).as_secs_f64())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--load") {
        let [to, connections, seconds] = [1, 2, 3].map(|n| arguments[at + n].clone());
        let duration = Duration::from_secs_f64(seconds.parse().unwrap());
        println!("{}", load(to.parse().unwrap(), connections.parse().unwrap(), duration));
        return;
    }
    let seconds: f64 = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(5.0);
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!("connections   frames/s   a second and core   us each   bare: a second and core   us each   ratio");
    for connections in [1, 16, 64] {
        let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let socket = listen();
        let to = socket.local_addr().unwrap();
        let task = runtime.spawn(bare(socket));
        let (_, bare) = measure(to, connections, seconds);
        task.abort();

        let path = folder.path().join(format!("spool-{connections}.db"));
        let (spool, _) = Spool::open(&path, GatewayBoot([1; 8]), Box::new(Open)).unwrap();
        let (events, queue) = sync_channel(8192);
        let engine = std::thread::spawn(move || run(engine(), spool, &queue));
        let socket = listen();
        let to = socket.local_addr().unwrap();
        let bounds = Bounds { connections: 256, connections_per_address: 256, requests_a_minute: u32::MAX };
        let tokens = Tokens::of(folder.path()).unwrap();
        let (ready, started) = oneshot::channel();
        let desk = Desk::new(events.clone());
        let task = runtime.spawn(async move {
            let listener = Listener::new(desk, tokens, bounds, Patience::default());
            let _ = ready.send(());
            listener.serve(socket).await;
        });
        runtime.block_on(started).unwrap();
        let (rate, ours) = measure(to, connections, seconds);
        task.abort();
        events.send(Event::Stop).unwrap();
        engine.join().unwrap();
        println!(
            "{connections:>11}   {rate:>8.0}   {ours:>17.0}   {:>7.1}   {bare:>23.0}   {:>7.1}   {:>5.2}",
            1e6 / ours,
            1e6 / bare,
            bare / ours
        );
    }
}
