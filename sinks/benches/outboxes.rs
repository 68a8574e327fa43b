//! Each sink in readings a second, beside the bare client that publishes the same bytes to the same server in the same run.
//!
//! `cargo bench -p fivefold-sinks --bench outboxes -- [READINGS] [SINK...]`; needs mosquitto, nats-server and influxdb of Debian.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/servers/mod.rs"]
mod servers;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use common::{free_port, reading, sink};
use fivefold_core::id::{Did, Sid};
use fivefold_sinks::{Answer, Outbound, Sink, Verdict};
use rumqttc::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions, QoS};
use servers::{Jetstream, influxd, query, start};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const DEVICES: u64 = 1000;

/// The `round`th set: a server that drops what it knows already must not know it.
fn readings(count: u64, round: u64) -> Vec<Arc<Outbound>> {
    let one = |n: u64| {
        let (device, number) = (n % DEVICES, round * count + n / DEVICES + 1);
        let mut one = reading(1, number);
        one.did = Did((0xacde_4800_0000_0000 + device).to_be_bytes());
        one.sid = Sid(device as u16 + 1);
        one.id = format!("00000007-{}-3-1-p-{number}-0123456789abcdef", one.did);
        Arc::new(one)
    };
    (0..count).map(one).collect()
}

/// Sends all of it in batches as the engine makes them, and says how long that took.
async fn ours(to: &mut dyn Sink, readings: &[Arc<Outbound>]) -> Duration {
    let (started, most, mut rest) = (Instant::now(), to.most(), readings);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |reading: &&Arc<Outbound>| {
            bytes += reading.weight();
            bytes <= most.bytes
        };
        let (batch, later) = rest.split_at(rest.iter().take(most.readings).take_while(fits).count().max(1));
        match to.send(batch).await {
            Answer::Taken => {}
            Answer::Each(verdicts) if verdicts.len() == batch.len() && verdicts.iter().all(|v| *v == Verdict::Done) => {
            }
            other => panic!("{other:?}"),
        }
        rest = later;
    }
    started.elapsed()
}

fn print(out: &mut String, sink: &str, bare: &str, count: u64, ours: Duration, theirs: Duration, bytes: usize) {
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    let _ = writeln!(
        out,
        "{sink:8} {:9.0} readings/s   {bare}: {:9.0}   ratio {:.2}   {} bytes a reading",
        rate(ours),
        rate(theirs),
        theirs.as_secs_f64() / ours.as_secs_f64(),
        bytes as u64 / count
    );
}

/// Who takes every POST, and keeps the bodies.
async fn recorder() -> (u16, Arc<Mutex<Vec<Bytes>>>) {
    let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
    let kept = bodies.clone();
    let take = move |body: Bytes| {
        kept.lock().unwrap().push(body);
        async { StatusCode::NO_CONTENT }
    };
    let app = Router::new().fallback(take).layer(axum::extract::DefaultBodyLimit::max(16 << 20));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (port, bodies)
}

async fn post_all(url: &str, bodies: &[Bytes]) -> Duration {
    let tls = fivefold_keep::tls::client_config_web(&fivefold_keep::tls::Anchor::none()).unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
    let started = Instant::now();
    for body in bodies {
        let answer = client.post(url).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }
    started.elapsed()
}

fn size(bodies: &[Bytes]) -> usize {
    bodies.iter().map(Bytes::len).sum()
}

async fn webhook(out: &mut String, folder: &Path, count: u64) {
    let (port, bodies) = recorder().await;
    let words = format!("name = \"w\"\nwebhook = \"http://127.0.0.1:{port}/\"");
    let ours = ours(&mut *sink(folder, &words, Some(b"a secret of benchmarks")), &readings(count, 0)).await;
    let bodies = std::mem::take(&mut *bodies.lock().unwrap());
    let theirs = post_all(&format!("http://127.0.0.1:{port}/"), &bodies).await;
    print(out, "webhook", "reqwest", count, ours, theirs, size(&bodies));
}

async fn influx(out: &mut String, folder: &Path, count: u64) {
    let port = free_port();
    let _running = influxd(folder, port, "");
    for database in ["farm", "bare"] {
        query(port, &format!("CREATE DATABASE {database}"));
    }
    let all = readings(count, 0);
    let (recording, bodies) = recorder().await;
    let words = |port| format!("name = \"i\"\ninflux = \"http://127.0.0.1:{port}\"\ndatabase = \"farm\"");
    ours(&mut *sink(&made(folder, "r"), &words(recording), None), &all).await;
    let ours = ours(&mut *sink(&made(folder, "i"), &words(port), None), &all).await;
    let bodies = std::mem::take(&mut *bodies.lock().unwrap());
    let theirs = post_all(&format!("http://127.0.0.1:{port}/write?db=bare&precision=ns"), &bodies).await;
    print(out, "influx", "reqwest", count, ours, theirs, size(&bodies));
}

fn made(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

async fn parquet(out: &mut String, folder: &Path, count: u64) {
    let (_, lake, bare) = (made(folder, "p"), made(&folder.join("p"), "lake"), made(folder, "bare"));
    let words = "name = \"p\"\nparquet = \"lake\"";
    let ours = ours(&mut *sink(&folder.join("p"), words, None), &readings(count, 0)).await;
    let mut files = Vec::new();
    for day in std::fs::read_dir(lake).unwrap() {
        for file in std::fs::read_dir(day.unwrap().path()).unwrap() {
            files.push(std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    let started = Instant::now();
    for (n, bytes) in files.iter().enumerate() {
        let mut file = std::fs::File::create(bare.join(".new")).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
        std::fs::rename(bare.join(".new"), bare.join(n.to_string())).unwrap();
        std::fs::File::open(&bare).unwrap().sync_all().unwrap();
    }
    print(out, "parquet", "the files' bytes, synced", count, ours, started.elapsed(), files.iter().map(Vec::len).sum());
}

async fn mqtt(out: &mut String, folder: &Path, count: u64) {
    let port = free_port();
    let file = folder.join("mosquitto.conf");
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")).unwrap();
    let _running = start("/usr/sbin/mosquitto", &[Path::new("-c"), &file], port);
    let all = readings(count, 0);
    let words = format!("name = \"m\"\nmqtt = \"mqtt://127.0.0.1:{port}\"\ninsecure_mqtt = true");
    let ours = ours(&mut *sink(folder, &words, None), &all).await;
    let word = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let properties = |r: &Outbound| PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("application/json".into()),
        user_properties: vec![
            word("id", &r.id),
            word("proof", r.proof.as_str()),
            word("e1", r.e1.as_str()),
            word("insecure", "false"),
        ],
        ..PublishProperties::default()
    };
    let message = |r: &Arc<Outbound>| {
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties(r));
        (format!("fivefold/{}/{}/reading", r.net, r.did), r.json().to_string(), options)
    };
    let messages: Vec<_> = all.iter().map(message).collect();
    let bytes = messages.iter().map(|(topic, text, _)| topic.len() + text.len()).sum();
    let mut options = MqttOptions::new("bare", ("127.0.0.1", port));
    options.set_clean_start(true);
    options.set_outgoing_inflight_upper_limit(64);
    options.set_max_request_batch(64);
    let (client, mut events) = AsyncClient::builder(options).capacity(128).build();
    let started = Instant::now();
    let publishing = tokio::spawn(async move {
        for (topic, text, options) in messages {
            client.publish(topic, text, options).await.unwrap();
        }
        client
    });
    let mut acknowledged = 0;
    while acknowledged < count {
        acknowledged += u64::from(matches!(events.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))));
    }
    let theirs = started.elapsed();
    drop(publishing.await.unwrap());
    print(out, "mqtt", "rumqttc", count, ours, theirs, bytes);
}

async fn nats(out: &mut String, folder: &Path, count: u64) {
    let port = free_port();
    let _running = servers::nats(folder, port, "");
    Jetstream::connect(port).stream(&[]);
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _INBOX.bare.* 1\r\n").await.unwrap();
    let words = format!("name = \"n\"\nnats = \"nats://127.0.0.1:{port}\"\nstream = \"FARM\"");
    let ours = ours(&mut *sink(folder, &words, None), &readings(count, 0)).await;
    // The same, under other ids: 4,096 under way, and no more is known of a device than of another.
    let messages: Vec<Vec<u8>> = readings(count, 1)
        .iter()
        .map(|r| {
            let text = r.json().to_string();
            let headers = format!(
                "NATS/1.0\r\nNats-Msg-Id: {}\r\nNats-Expected-Stream: FARM\r\nFivefold-Proof: node\r\nFivefold-E1: mac-ccm\r\n\r\n",
                r.id
            );
            let (of, all) = (headers.len(), headers.len() + text.len());
            format!("HPUB fivefold.{}.{} _INBOX.bare.1 {of} {all}\r\n{headers}{text}\r\n", r.net, r.did).into_bytes()
        })
        .collect();
    let bytes = messages.iter().map(Vec::len).sum();
    let started = Instant::now();
    for batch in messages.chunks(4096) {
        socket.write_all(&batch.concat()).await.unwrap();
        answers(&mut socket, batch.len()).await;
    }
    print(out, "nats", "a socket", count, ours, started.elapsed(), bytes);
}

/// Waits for so many messages, each a yes.
async fn answers(socket: &mut BufReader<TcpStream>, count: usize) {
    let (mut heard, mut line) = (0, String::new());
    while heard < count {
        line.clear();
        assert!(socket.read_line(&mut line).await.unwrap() > 0);
        if line.starts_with("MSG ") {
            let length: usize = line.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
            let mut message = vec![0; length + 2];
            socket.read_exact(&mut message).await.unwrap();
            let message = String::from_utf8_lossy(&message);
            assert!(!message.contains("\"error\""), "{message}");
            heard += 1;
        } else if line.starts_with("PING") {
            socket.write_all(b"PONG\r\n").await.unwrap();
        }
    }
}

fn main() {
    const SINKS: [&str; 5] = ["mqtt", "webhook", "influx", "parquet", "nats"];
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.iter().find_map(|a| a.parse().ok()).unwrap_or(20_000);
    let is_asked = |name: &str| words.iter().any(|a| a == name);
    let all = !SINKS.into_iter().any(is_asked);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut out = String::new();
        for name in SINKS.into_iter().filter(|name| all || is_asked(name)) {
            let folder = tempfile::tempdir().unwrap();
            match name {
                "mqtt" => mqtt(&mut out, folder.path(), count).await,
                "webhook" => webhook(&mut out, folder.path(), count).await,
                "influx" => influx(&mut out, folder.path(), count).await,
                "parquet" => parquet(&mut out, folder.path(), count).await,
                _ => nats(&mut out, folder.path(), count).await,
            }
            print!("{out}");
            out.clear();
        }
    });
}
