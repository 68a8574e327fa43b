//! Cloud ingest on two cores: E3 messages from the TLS socket to durable in the embedded store, beside the bare limit of
//! the same store for the same rows, in one run.
//!
//! `cargo bench -p fivefold-sim --bench ingest -- SECONDS`. The cloud is the real one, in a process of its own; gateways
//! are one other process that posts batches of 1,000 envelopes over mTLS as the gateway's uplink does, each gateway one
//! batch at a time. All messages are sealed before the clock starts. After each case the cloud is killed, and the rows that
//! are in the file are counted: they must be those that were acknowledged.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Process, Yard, now_s, say, seconds};
use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::oscore::{Context, Id, Plaintext};
use fivefold_core::profile::{LinkClass, Profile};
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::POST;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator, Reply};
use fivefold_core::wire::tiny::{Layers, Tiny, Wants};
use fivefold_gateway::config::{Config, Destination};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::tls::{LiveIdentity, LiveRevoked, client_config_e4};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// Two networks: short ids have 16 bits, and 100,000 devices do not fit into one.
const NETS: usize = 2;
/// Gateways in each.
const GATEWAYS: usize = 4;
/// Envelopes in a batch, and rows in a transaction of the bare limit.
const BATCH: usize = 1000;
/// Rows that the cloud's writer puts into one transaction when more waits: a second bare limit, beside the one above.
const GROUP: usize = 4096;
/// Messages in a pass.
const MESSAGES: usize = 100_000;
/// 40 bytes: two SenML records.
const READING: &[u8; 40] =
    b"\x82\xA3\x00\x68temp-air\x01\x63Cel\x02\xF9\x4D\x60\xA3\x00\x67humid-1\x01\x63%RH\x02\xF9\x52\x60";

/// A device's end of C3.
struct Talker {
    net: usize,
    sid: Sid,
    context: Context<E3>,
    lease: Lease,
}

/// A gateway's end of E4, as far as it is not the network.
struct Poster {
    net: Net,
    id: GatewayId,
    key: SigningKey,
    seq: u64,
}

impl Poster {
    /// The next batch, with its receipt.
    fn batch(&mut self, messages: &[(Sid, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::with_capacity(200 * messages.len());
        let mut tally = Tally::new(self.id, GatewayBoot([7; 8]));
        let mut out = [0; 512];
        for (sid, bytes) in messages {
            self.seq += 1;
            let envelope = Envelope {
                seq: self.seq,
                received: Millis(now_s() * 1000),
                kind: Kind::CloudTiny,
                bytes,
                originator: Originator::Node { net: self.net, sid: *sid },
                rssi: None,
                lqi: Some(200),
                opened: None,
                link: LinkClass::MacCcm,
                hops: Some(3),
                key_index: Some(1),
            };
            let len = envelope.emit(&mut out).unwrap();
            tally.add(&out[..len], &envelope);
            body.extend_from_slice(&out[..len]);
        }
        let mut receipt = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(&self.key, &mut receipt).unwrap();
        body.extend_from_slice(&receipt[..len]);
        body
    }
}

impl Talker {
    /// What a gateway passes on of a tiny C3 request.
    fn message(&mut self) -> Vec<u8> {
        let mut plaintext = [0; 64];
        let len = Plaintext { code: POST, options: &[], payload: READING }.emit(&mut plaintext).unwrap();
        let mut sealed = [0; 80];
        let number = self.lease.take().unwrap();
        let (request, len) = self.context.seal_request(number, &plaintext[..len], &mut sealed).unwrap();
        let (layers, wants, ciphertext) = (Layers::C3, Wants::Answer, &sealed[..len]);
        let tiny = Tiny::Request { layers, wants, piv: request.piv, bctx: None, kid: None, ciphertext };
        let mut out = vec![0; 160];
        let len = tiny.expand(Id::new(&self.sid.to_bytes()), &mut out).unwrap();
        out.truncate(len);
        out
    }
}

/// Batches of a pass, for each gateway, in files that the client reads.
fn seal(folder: &Path, talkers: &mut [Talker], posters: &mut [Poster], random: &mut ChaCha8Rng) {
    // Every device as often as every other, each round in another order.
    let mut order = Vec::with_capacity(MESSAGES + talkers.len());
    while order.len() < MESSAGES {
        let mut round: Vec<usize> = (0..talkers.len()).collect();
        for i in (1..round.len()).rev() {
            round.swap(i, random.next_u32() as usize % (i + 1));
        }
        order.extend(round);
    }
    let mut waiting: Vec<Vec<(Sid, Vec<u8>)>> = vec![Vec::new(); NETS];
    let mut files: Vec<Vec<u8>> = vec![Vec::new(); posters.len()];
    let mut turn = [0; NETS];
    let mut left = MESSAGES;
    for n in order {
        let talker = &mut talkers[n];
        let (net, message) = (talker.net, talker.message());
        waiting[net].push((talker.sid, message));
        if waiting[net].len() == BATCH && left > 0 {
            let at = net * GATEWAYS + turn[net] % GATEWAYS;
            turn[net] += 1;
            let body = posters[at].batch(&std::mem::take(&mut waiting[net]));
            files[at].extend_from_slice(&(body.len() as u32).to_be_bytes());
            files[at].extend_from_slice(&body);
            left -= BATCH;
        }
    }
    for (n, bytes) in files.into_iter().enumerate() {
        std::fs::write(folder.join(format!("{n}.batches")), bytes).unwrap();
    }
}

/// The gateways: reads batches, says so, and posts them when told.
#[tokio::main(flavor = "current_thread")]
async fn client(folders: Vec<PathBuf>) {
    let mut gateways = Vec::new();
    for folder in folders {
        let config = Config::read(&folder, Millis(now_s() * 1000)).unwrap();
        let secrets = config.secrets(config.open_vault().unwrap()).unwrap();
        let Destination::Cloud { cloud, groups } = config.uplink else { panic!("a gateway without a cloud") };
        let live = LiveIdentity::new(secrets.identity);
        let revoked = std::sync::Arc::new(LiveRevoked::default());
        let tls = client_config_e4(&live, &secrets.anchor, revoked, groups).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .unwrap();
        // An empty batch: the handshake is done.
        let mut receipt = [0; Receipt::LONGEST];
        let tally = Tally::new(config.identity.gateway, GatewayBoot([7; 8]));
        let len = tally.receipt().seal(&secrets.signing, &mut receipt).unwrap();
        let url = format!("{cloud}/v1/ingest");
        post(&client, &url, receipt[..len].to_vec()).await;
        gateways.push((client, url));
    }
    say("ready");
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let folder = PathBuf::from(line.trim());
        let files: Vec<Vec<Vec<u8>>> = (0..gateways.len())
            .map(|n| {
                let bytes = std::fs::read(folder.join(format!("{n}.batches"))).unwrap();
                let mut rest = &bytes[..];
                let mut bodies = Vec::new();
                while let Some((len, after)) = rest.split_first_chunk::<4>() {
                    let (body, after) = after.split_at(u32::from_be_bytes(*len) as usize);
                    bodies.push(body.to_vec());
                    rest = after;
                }
                bodies
            })
            .collect();
        say("loaded");
        line.clear();
        std::io::stdin().read_line(&mut line).unwrap();
        line.clear();
        let started = Instant::now();
        let posting: Vec<_> = gateways
            .iter()
            .zip(files)
            .map(|((client, url), bodies)| {
                let (client, url) = (client.clone(), url.clone());
                tokio::spawn(async move {
                    let mut replies = Vec::new();
                    for body in bodies {
                        replies.push(post(&client, &url, body).await);
                    }
                    replies
                })
            })
            .collect();
        let mut replies = Vec::new();
        for one in posting {
            replies.extend(one.await.unwrap());
        }
        let took = started.elapsed();
        let mut answers = 0;
        for reply in &replies {
            let reply = Reply::parse(reply).unwrap();
            assert_eq!(reply.refused.iter().count(), 0, "messages were refused");
            answers += reply.downlinks.iter().count();
        }
        say(&format!("{} {answers}", took.as_secs_f64()));
    }
}

async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>) -> Vec<u8> {
    let request = client.post(url).header("Content-Type", "application/cbor-seq").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    response.bytes().await.unwrap().to_vec()
}

/// Rows of the store in the order in which they were written.
fn rows(store: &Path) -> Vec<Vec<Value>> {
    let db = Connection::open(store).unwrap();
    let mut query = db.prepare(&format!("SELECT {COLUMNS} FROM reading ORDER BY id")).unwrap();
    let width = query.column_count();
    let rows = query.query_map([], |r| (0..width).map(|i| r.get(i)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

const COLUMNS: &str = "ctx, piv, variant, hash, sid, origin, gateway, seq, received, ingested, link, hops, key_index, \
                       rssi, lqi, fresh, flags, payload";
const SCHEMA: &str = include_str!("../../cloud/src/store/migrations/0001_ledger.sql");

/// A bare store with the settings of the cloud's own.
struct Bare {
    db: Connection,
}

impl Bare {
    fn new(path: &Path) -> Self {
        let db = Connection::open(path).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "synchronous", "FULL").unwrap();
        db.pragma_update(None, "cache_size", -65_536).unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 8192).unwrap();
        db.execute_batch(SCHEMA).unwrap();
        Self { db }
    }

    /// The limit: insert these rows, so many in a transaction, and do nothing else.
    fn insert(&mut self, rows: &[Vec<Value>], group: usize) -> Duration {
        let started = Instant::now();
        for batch in rows.chunks(group) {
            let tx = self.db.transaction().unwrap();
            let mut insert = tx
                .prepare_cached(&format!(
                    "INSERT INTO reading ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                     ?15, ?16, ?17, ?18) ON CONFLICT (ctx, piv, variant) DO NOTHING"
                ))
                .unwrap();
            for row in batch {
                assert_eq!(insert.execute(params_from_iter(row)).unwrap(), 1);
            }
            drop(insert);
            tx.commit().unwrap();
        }
        started.elapsed()
    }
}

fn case(title: &str, devices: u32, seconds: f64) {
    println!("{title}");
    let mut yard = Yard::new();
    let (mut talkers, mut posters, mut folders) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..NETS {
        let name = format!("net{n}");
        let net = yard.network(&name, Profile::ToCloud);
        for g in 0..GATEWAYS {
            let role: &[&str] = if g == 0 { &[] } else { &["--secondary"] };
            let folder = yard.gateway(&name, &format!("gateway{n}-{g}"), role);
            let config = Config::read(&folder, Millis(now_s() * 1000)).unwrap();
            let key = config.secrets(config.open_vault().unwrap()).unwrap().signing;
            posters.push(Poster { net, id: config.identity.gateway, key, seq: 0 });
            folders.push(folder);
        }
        for d in 0..devices / NETS as u32 {
            let (device, secrets) = yard.device(net, Profile::ToCloud, d);
            let secret = E3Secret::new(&secrets.ms3, &secrets.salt3).unwrap();
            let context = secret.context_for_device(device.sid, device.epoch, None, device.policy.alg).unwrap();
            let mut lease = Lease::resume(0, 1 << 20);
            lease.extend(1 << 20);
            talkers.push(Talker { net: n, sid: device.sid, context, lease });
        }
    }
    let cloud = Process::start_ready(&["as-cloud", yard.cloud().to_str().unwrap()]);
    println!("  the cloud holds {} bytes a device in memory", cloud.resident() / u64::from(devices));
    let names: Vec<&str> = ["as-client"].into_iter().chain(folders.iter().map(|f| f.to_str().unwrap())).collect();
    let mut client = Process::start_ready(&names);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let batches = yard.operator.dir.join("batches");
    std::fs::create_dir(&batches).unwrap();
    let mut passes = Vec::new();
    let mut spent = 0.0;
    while passes.len() < 3 || spent < seconds {
        seal(&batches, &mut talkers, &mut posters, &mut random);
        client.tell(batches.to_str().unwrap());
        client.hear();
        let before = (cloud.cpu(), client.cpu());
        client.tell("go");
        let said = client.hear();
        let used = (cloud.cpu() - before.0, client.cpu() - before.1);
        let (took, answers) = said.split_once(' ').unwrap();
        let took: f64 = took.parse().unwrap();
        assert_eq!(answers.parse::<usize>().unwrap(), MESSAGES);
        spent += took;
        passes.push((took, used));
    }
    drop(client);
    drop(cloud);
    let store = yard.disk.path().join("readings.db");
    let rows = rows(&store);
    assert_eq!(rows.len(), passes.len() * MESSAGES, "what was acknowledged is in the store after a kill");
    let mut bare = Bare::new(&yard.disk.path().join("bare.db"));
    let mut grouped = Bare::new(&yard.disk.path().join("grouped.db"));
    let (mut best, mut best_bare) = (f64::INFINITY, f64::INFINITY);
    println!("  pass   messages/s   bare rows/s   ratio   bare, by {GROUP}   share of two cores: cloud  client");
    for (n, ((took, used), rows)) in passes.iter().zip(rows.chunks(MESSAGES)).enumerate() {
        let limit = bare.insert(rows, BATCH).as_secs_f64();
        let by_group = grouped.insert(rows, GROUP).as_secs_f64();
        let rate = |s: f64| MESSAGES as f64 / s;
        let share = |s: f64| 100.0 * s / (2.0 * took);
        println!(
            "  {:>4}   {:>10.0}   {:>11.0}   {:>5.2}   {:>13.0}   {:>24.0} % {:>5.0} %",
            n + 1,
            rate(*took),
            rate(limit),
            limit / took,
            rate(by_group),
            share(used.0),
            share(used.1)
        );
        (best, best_bare) = (best.min(*took), best_bare.min(limit));
    }
    println!(
        "  best   {:>10.0}   {:>11.0}   {:>5.2}\n",
        MESSAGES as f64 / best,
        MESSAGES as f64 / best_bare,
        best_bare / best
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("as-cloud") => {
            let folder = PathBuf::from(args.next().unwrap());
            fivefold_cloud::daemon::run(&folder, |_| say("ready"), || ()).unwrap();
        }
        Some("as-client") => client(args.map(PathBuf::from).collect()),
        _ => {
            let seconds = seconds(6.0);
            case("1,000 devices, keys hot", 1_000, seconds);
            case("100,000 devices in random order, keys cold", 100_000, seconds);
        }
    }
}
