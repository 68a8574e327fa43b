//! Handshakes of EDHOC at the cloud, beside the bare cost of their elliptic-curve operations, in one run.
//!
//! `cargo bench -p fivefold-cloud --bench renewal -- ROUNDS`. Bare is what no implementation can leave out: a key pair, and
//! three agreements with x coordinates, by the same library on the same thread. The engine is measured on one thread, from
//! the bytes of a request to those of its answer, nothing written. The service is measured as it runs: many devices at a
//! time, each run noted in the operator's book and committed to the store before message_4. What devices compute happens
//! between the clocks. Bare and engine are measured by the processor time of their thread.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fivefold_cloud::cloud::{Outcome, RenewalSettings};
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, Message, WaitM2};
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::{LinkClass, Overrides, Policy, Profile};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{DownlinkKind, Envelope, Kind, Originator, parse_downlinks};
use fivefold_keep::registry::{DeviceKey, FirstContexts, Gateway, NewDevice, Registry};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::Vault;

const NOW: Millis = Millis(1_790_000_000_000);
/// Sixty runs may begin by a gateway in a minute.
const GATEWAYS: u16 = 10;
const DEVICES: u16 = 60 * GATEWAYS;
/// Requests that are under way at a time.
const AT_A_TIME: usize = 64;

type Waiting = Initiator<E3, WaitM2<AgreementKey>>;
/// By which gateway, of which device, and the envelope.
type Request = (ProvenGateway, Sid, Vec<u8>);

fn key(parts: &[&[u8]]) -> AgreementKey {
    AgreementKey::from_random(&sha256(parts)).unwrap()
}

fn scalar(sid: Sid) -> AgreementKey {
    key(&[b"device", &sid.to_bytes()])
}

struct Site {
    folder: tempfile::TempDir,
    net: Net,
    cloud: Credential<'static>,
}

impl Site {
    fn new(profile: Profile) -> Self {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = book.add_network(&vault, "n", profile, None).unwrap().net;
        for n in 1..=GATEWAYS {
            let gateway = Gateway {
                gateway: GatewayId(n.into()),
                net,
                name: format!("g{n}"),
                sid: Sid(n),
                did: Did([0xA0 + n as u8; 8]),
                primary: n == 1,
                receipt_keys: Vec::new(),
                revoked_at: None,
            };
            book.add_gateway(&gateway).unwrap();
        }
        for sid in (0..DEVICES).map(|n| Sid(0x0a00 + n)) {
            let key = Some(DeviceKey { x: scalar(sid).public_x(), first: FirstContexts::Installed });
            let (policy, overrides) = (Policy::new(profile), Overrides::NONE);
            let new = NewDevice { did: None, sid: Some(sid), net, policy, overrides, words: None, key };
            book.add_device(&vault, &new, 1).unwrap();
        }
        let identity = book.cloud_identity(&vault).unwrap();
        Self { folder, net, cloud: Credential::peer(identity.kid, identity.key.public_x()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn service(&self) -> Arc<Service> {
        let store = Store::open(&self.path("readings.db")).unwrap();
        let vault = Arc::new(Vault::open_folder(self.folder.path()).unwrap());
        Arc::new(Service::open(store, self.path("registry.db"), vault, RenewalSettings::default(), NOW).unwrap())
    }

    /// The gateway that a device is heard by.
    fn gateway(&self, sid: Sid) -> ProvenGateway {
        let gateway = GatewayId(1 + u32::from((sid.0 - 0x0a00) / 60));
        ProvenGateway::assertion(GatewayName { net: self.net, gateway })
    }

    fn request(&self, sid: Sid, payload: &Message) -> Request {
        let envelope = Envelope {
            seq: 1,
            received: NOW,
            kind: Kind::Edhoc,
            bytes: payload.as_bytes(),
            originator: Originator::Node { net: self.net, sid },
            rssi: None,
            lqi: None,
            opened: None,
            link: LinkClass::MacCcm,
            hops: None,
            key_index: Some(1),
        };
        let mut out = vec![0; 192];
        let len = envelope.emit(&mut out).unwrap();
        out.truncate(len);
        (self.gateway(sid), sid, out)
    }

    /// message_1 of all devices.
    fn offers(&self, epoch: u16) -> (Vec<Waiting>, Vec<Request>) {
        let offer = |sid: Sid| {
            let ephemeral = key(&[b"ephemeral", &sid.to_bytes(), &epoch.to_be_bytes()]);
            let (run, m1) = Initiator::offer(ephemeral, sid, Epoch(epoch), Announce::Nothing).unwrap();
            (run, self.request(sid, &m1))
        };
        (0..DEVICES).map(|n| offer(Sid(0x0a00 + n))).unzip()
    }

    /// message_3 of all devices.
    fn proofs(&self, runs: Vec<Waiting>, answers: &[(Sid, Vec<u8>)]) -> Vec<Request> {
        let prove = |(run, (sid, m2)): (Waiting, &(Sid, Vec<u8>))| {
            let key = scalar(*sid);
            let own = Identity { key: &key, credential: &Credential::device(*sid, key.public_x()) };
            let (_, m3) = run.handle_message_2(m2, &own, &self.cloud).unwrap();
            self.request(*sid, &m3)
        };
        runs.into_iter().zip(answers).map(prove).collect()
    }
}

/// Processor time of this thread so far: what else runs on the machine does not count.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// What a handshake cannot do without: one key pair, three agreements.
fn bare(handshakes: u32) -> Duration {
    let own = key(&[b"own"]);
    let peers: Vec<PublicX> = (0..64u8).map(|n| key(&[b"peer", &[n]]).public_x()).collect();
    let start = on_cpu();
    for n in 0..handshakes {
        let [a, b] = [0, 1].map(|i| &peers[(2 * n as usize + i) % peers.len()]);
        let ephemeral = key(&[&n.to_be_bytes()]);
        black_box(ephemeral.public_x());
        black_box((ephemeral.agree(a).unwrap(), own.agree(a).unwrap(), ephemeral.agree(b).unwrap()));
    }
    on_cpu() - start
}

/// One thread through the engine, nothing written.
fn engine(site: &Site, service: &Service, epoch: u16, now: Millis) -> Duration {
    let (runs, offers) = site.offers(epoch);
    let ask = |(gateway, sid, body): &Request| {
        let ephemeral = sha256(&[b"cloud", &sid.to_bytes(), &epoch.to_be_bytes()]);
        service.cloud.exchange(gateway, body, &ephemeral, now).unwrap().outcome
    };
    let start = on_cpu();
    let outcomes: Vec<Outcome> = offers.iter().map(ask).collect();
    let first = on_cpu() - start;
    let answers = offers.iter().zip(&outcomes).map(|((_, sid, _), outcome)| match outcome {
        Outcome::Answer(m2) => (*sid, m2.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    });
    let proofs = site.proofs(runs, &answers.collect::<Vec<_>>());
    let start = on_cpu();
    let outcomes: Vec<Outcome> = proofs.iter().map(ask).collect();
    let second = on_cpu() - start;
    assert!(outcomes.iter().all(|o| matches!(o, Outcome::Agree(_))));
    first + second
}

async fn all(service: &Arc<Service>, requests: Vec<Request>, now: Millis) -> Vec<(Sid, Vec<u8>)> {
    let places = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
    let mut tasks = Vec::with_capacity(requests.len());
    for (gateway, sid, body) in requests {
        let (service, places) = (service.clone(), places.clone());
        tasks.push(tokio::spawn(async move {
            let _place = places.acquire().await.unwrap();
            let reply = service.exchange(&gateway, &body, now).await.unwrap();
            let downlinks = parse_downlinks(&reply).unwrap();
            let message = downlinks.iter().find(|d| d.kind == DownlinkKind::Edhoc);
            (sid, message.map(|d| d.bytes.to_vec()).unwrap_or_else(|| panic!("no answer to {sid}")))
        }));
    }
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

/// All devices through the service: how long it took, and how much processor time.
async fn served(site: &Site, service: &Arc<Service>, epoch: u16, now: Millis) -> (Duration, Duration) {
    let (runs, offers) = site.offers(epoch);
    let (start, used) = (Instant::now(), cpu());
    let answers = all(service, offers, now).await;
    let first = (start.elapsed(), cpu() - used);
    let proofs = site.proofs(runs, &answers);
    let (start, used) = (Instant::now(), cpu());
    all(service, proofs, now).await;
    (first.0 + start.elapsed(), first.1 + (cpu() - used))
}

fn main() {
    let rounds: u16 = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5);
    let cores = std::thread::available_parallelism().unwrap().get();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let each = |d: Duration, rounds: u16| d.as_secs_f64() / f64::from(DEVICES) / f64::from(rounds) * 1e6;
    for profile in [Profile::ToCloud, Profile::ToBoth] {
        let site = Site::new(profile);
        let service = site.service();
        let (mut limit, mut alone) = (Duration::ZERO, Duration::ZERO);
        for n in 0..rounds {
            // An hour between: six runs of a device may begin in one.
            let now = NOW.plus(u64::from(n) * 3_600_000);
            limit += bare(DEVICES.into());
            alone += engine(&site, &service, 2 + n, now);
        }
        let (limit, alone) = (each(limit, rounds), each(alone, rounds));
        println!(
            "{profile}: engine {alone:.0} us a handshake, {:.0} a second and core; bare {limit:.0} us: {:.2} times",
            1e6 / alone,
            alone / limit
        );
        drop(service);
        let service = site.service();
        let (mut took, mut used) = (Duration::ZERO, Duration::ZERO);
        let mut beside = Duration::ZERO;
        for n in 0..rounds {
            let now = NOW.plus(u64::from(rounds + n) * 3_600_000);
            beside += bare(DEVICES.into());
            let (t, u) = runtime.block_on(served(&site, &service, 2 + rounds + n, now));
            (took, used) = (took + t, used + u);
        }
        let (took, used, beside) = (each(took, rounds), each(used, rounds), each(beside, rounds));
        println!(
            "{profile}: service {:.0} handshakes a second on {cores} cores, durable; {used:.0} us of processor each; \
             bare {beside:.0} us: {:.2} times",
            1e6 / took,
            used / beside
        );
    }
}
