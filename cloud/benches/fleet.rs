//! How long a cloud takes to have all of its devices renew their contexts, by a clock that does not wait.
//!
//! `cargo bench -p fivefold-cloud --bench fleet -- DEVICES GATEWAYS`. The operator orders all devices to renew at once. From
//! then on the service runs as it does live, book and store included, and its limits (docs/protocol.md 11) decide who is told
//! when. Devices send a reading every fifteen minutes, are told in the answer, and carry their run to its end; each message of
//! EDHOC takes a step of five seconds. A device is renewed when the cloud answered its first message under the new context.
//! Nothing is lost on the way. Devices compute on the main thread, the cloud on the others: their processor time is told apart.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::service::Service;
use fivefold_cloud::store::{Standing, Store};
use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, Message, PqMix, WaitM2, WaitM4};
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::oscore::{Context, Id, Plaintext, RequestId, judge_answer};
use fivefold_core::profile::{LinkClass, Overrides, Policy, Profile};
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{POST, Protected};
use fivefold_core::wire::control::Downlink as ControlMap;
use fivefold_core::wire::envelope::{DownlinkKind, Envelope, Kind, Originator, Reply, parse_downlinks};
use fivefold_core::wire::tiny::{Layers, Tiny, Wants};
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::registry::{self, DeviceKey, FirstContexts, NewDevice, Registry, Whom, Word};
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::vault::Vault;

/// The order is given at the beginning of a minute.
const START: u64 = 1_790_000_040_000;
const STEP: u64 = 5_000;
const A_MINUTE: u64 = 60_000 / STEP;
/// Steps between two readings of a device.
const PERIOD: usize = 180;
/// Steps after which a message of EDHOC without an answer is sent again.
const RESEND: u64 = 6;
/// Short ids have 16 bits.
const OF_A_NET: usize = 50_000;
/// Requests that are under way at a time.
const AT_A_TIME: usize = 64;
const NUMBERS: u32 = 4096;
const BOOT: GatewayBoot = GatewayBoot([7; 8]);
const POLICY: Policy = Policy::new(Profile::ToCloud);
/// `[{n: "temp", u: "Cel", v: 21.5}]`.
const READING: &[u8] = b"\x81\xA3\x00\x64temp\x01\x63Cel\x02\xF9\x4D\x60";

/// The number of an envelope, whose message it is, and what opens the answer.
type Asked = (u64, usize, RequestId);

enum Stage {
    Idle,
    Offered(Initiator<E3, WaitM2<AgreementKey>>),
    Proven(Initiator<E3, WaitM4>),
    /// It has the new context, and nobody has answered under it.
    Agreed,
    Renewed,
}

struct Device {
    sid: Sid,
    did: Did,
    gateway: usize,
    key: AgreementKey,
    mix: Option<PqMix>,
    context: Context<E3>,
    lease: Lease,
    stage: Stage,
    /// The message of its run that is out.
    out: Option<Message>,
}

struct Gateway {
    proven: ProvenGateway,
    key: SigningKey,
    seq: u64,
    /// In which minute, and how many of its devices were told.
    told: (u64, usize),
}

struct Fleet {
    service: Arc<Service>,
    cloud: Credential<'static>,
    gateways: Vec<Gateway>,
    devices: Vec<Device>,
    _folder: tempfile::TempDir,
}

/// What it came to.
#[derive(Default)]
struct Came {
    told: usize,
    /// Devices with a run that waits for its message_3, with a context that is not in use yet, and those that are done.
    open: usize,
    pending: usize,
    renewed: usize,
    /// By one gateway in a minute.
    most_told: usize,
    most_open: usize,
    most_pending: usize,
    last_told: u64,
    /// Devices that were done, by minute.
    by_minute: BTreeMap<u64, usize>,
    again: u64,
    readings: u64,
}

fn numbers() -> Lease {
    let mut lease = Lease::resume(0, NUMBERS);
    lease.extend(NUMBERS);
    lease
}

fn draw(what: &[u8], n: usize) -> AgreementKey {
    AgreementKey::from_random(&sha256(&[what, &n.to_be_bytes()])).unwrap()
}

impl Fleet {
    /// The folder lies in memory where that is possible: neither enrolling nor the disk is measured.
    fn new(devices: usize, gateways: usize) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let path = |name: &str| folder.path().join(name);
        let vault = Vault::create(folder.path()).unwrap();
        let mut book =
            Registry::create(&path("registry.db"), fivefold_keep::registry::By::new("test", "here", "test", 1))
                .unwrap();
        let nets: Vec<Net> = (0..devices.div_ceil(OF_A_NET))
            .map(|n| book.add_network(&vault, &format!("n{n}"), Profile::ToCloud, None).unwrap().net)
            .collect();
        let (ca, _) = Authority::create("fleet").unwrap();
        assert!(gateways >= nets.len(), "every network of {OF_A_NET} devices needs a gateway");
        let gateways = (0..gateways).map(|n| {
            let (key, _) = SigningKey::generate().unwrap();
            let (net, gateway) = (nets[n % nets.len()], GatewayId(1 + n as u32));
            let registered = registry::Gateway {
                gateway,
                net,
                name: format!("g{n}"),
                sid: Sid(1 + (n / nets.len()) as u16),
                did: Did((0xA0 << 56 | n as u64).to_be_bytes()),
                primary: n < nets.len(),
                receipt_keys: Vec::new(),
                revoked_at: None,
            };
            book.add_gateway(&registered).unwrap();
            let issued = ca.issue(&Role::Gateway(net, gateway), START / 1000, 365).unwrap();
            let word = Word { who: "operator", at: START / 1000 };
            book.enter_certificate(Some((gateway, key.spki())), &issued.certified, word).unwrap();
            Gateway { proven: ProvenGateway::assertion(GatewayName { net, gateway }), key, seq: 0, told: (0, 0) }
        });
        let gateways: Vec<Gateway> = gateways.collect();
        let mut next = vec![Sid(0x0200); nets.len()];
        let devices = (0..devices).map(|n| {
            let gateway = n % gateways.len();
            let sid = &mut next[gateway % nets.len()];
            sid.0 += 1;
            let key = draw(b"device", n);
            let new = NewDevice {
                did: Some(Did((0x11 << 56 | n as u64).to_be_bytes())),
                sid: Some(*sid),
                net: gateways[gateway].proven.net(),
                policy: POLICY,
                overrides: Overrides::NONE,
                words: None,
                key: Some(DeviceKey { x: key.public_x(), first: FirstContexts::Installed }),
            };
            let (device, secrets) = book.add_device(&vault, &new, START / 1000).unwrap();
            let e3 = E3Secret::new(&secrets.ms3, &secrets.salt3).unwrap();
            Device {
                sid: device.sid,
                did: device.did,
                gateway,
                key,
                mix: POLICY.pq_mix.then(|| PqMix::new(&secrets.root_psk, device.did)),
                context: e3.context_for_device(device.sid, device.epoch, None, POLICY.alg).unwrap(),
                lease: numbers(),
                stage: Stage::Idle,
                out: None,
            }
        });
        let devices = devices.collect();
        let identity = book.cloud_identity(&vault).unwrap();
        let cloud = Credential::peer(identity.kid, identity.key.public_x());
        let store = Store::open(&path("readings.db")).unwrap();
        let renewals = RenewalSettings::default();
        let service = Service::open(store, path("registry.db"), Arc::new(vault), renewals, Millis(START)).unwrap();
        book.order_renewal(Whom::All, START / 1000).unwrap();
        service.refresh(Millis(START)).unwrap();
        Self { service: Arc::new(service), cloud, gateways, devices, _folder: folder }
    }

    /// An envelope of this device, as its gateway writes it.
    fn envelope(&mut self, n: usize, now: Millis, kind: Kind, bytes: &[u8]) -> (u64, Vec<u8>, usize) {
        let device = &self.devices[n];
        let gateway = &mut self.gateways[device.gateway];
        gateway.seq += 1;
        let envelope = Envelope {
            seq: gateway.seq,
            received: now,
            kind,
            bytes,
            originator: Originator::Node { net: gateway.proven.net(), sid: device.sid },
            rssi: None,
            lqi: None,
            opened: None,
            link: LinkClass::MacCcm,
            hops: Some(1),
            key_index: Some(1),
        };
        let mut out = vec![0; bytes.len() + 128];
        let len = envelope.emit(&mut out).unwrap();
        out.truncate(len);
        (gateway.seq, out, device.gateway)
    }

    /// Messages of EDHOC go out, and what answers them is taken. Who goes on with its run is given back.
    async fn exchange(&mut self, now: Millis, whose: &[usize], came: &mut Came) -> (Vec<usize>, Vec<usize>) {
        let places = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
        let mut tasks = Vec::with_capacity(whose.len());
        for &n in whose {
            let message = self.devices[n].out.unwrap();
            let (_, body, gateway) = self.envelope(n, now, Kind::Edhoc, message.as_bytes());
            let (service, by, places) = (self.service.clone(), self.gateways[gateway].proven.clone(), places.clone());
            tasks.push(tokio::spawn(async move {
                let _place = places.acquire().await.unwrap();
                service.exchange(&by, &body, now).await.unwrap()
            }));
        }
        let (mut on, mut again) = (Vec::new(), Vec::new());
        for (&n, task) in whose.iter().zip(tasks) {
            let reply = task.await.unwrap();
            let downlinks = parse_downlinks(&reply).unwrap();
            let Some(answer) = downlinks.iter().find(|d| d.kind == DownlinkKind::Edhoc) else {
                came.again += 1;
                again.push(n);
                continue;
            };
            let device = &mut self.devices[n];
            device.stage = match std::mem::replace(&mut device.stage, Stage::Idle) {
                Stage::Offered(run) => {
                    let credential = Credential::device(device.sid, device.key.public_x());
                    let own = Identity { key: &device.key, credential: &credential };
                    let (run, m3) = run.handle_message_2(answer.bytes, &own, &self.cloud).unwrap();
                    device.out = Some(m3);
                    on.push(n);
                    came.open += 1;
                    Stage::Proven(run)
                }
                Stage::Proven(run) => {
                    let agreed = run.handle_message_4(answer.bytes).unwrap();
                    let epoch = agreed.epoch().unwrap();
                    let secrets = agreed.secrets(POLICY.alg, device.mix.as_ref());
                    device.context = secrets.e3.context_for_device(device.sid, epoch, None, POLICY.alg).unwrap();
                    (device.lease, device.out) = (numbers(), None);
                    came.open -= 1;
                    came.pending += 1;
                    Stage::Agreed
                }
                _ => panic!("an answer that nobody waits for"),
            };
        }
        (on, again)
    }

    /// These devices send a reading each. Who was told to renew is given back.
    async fn report(&mut self, step: u64, now: Millis, whose: &[usize], came: &mut Came) -> Vec<usize> {
        let mut batches: Vec<(Vec<u8>, Vec<Asked>)> = Vec::new();
        batches.resize_with(self.gateways.len(), Default::default);
        let mut tallies: Vec<Tally> = self.gateways.iter().map(|g| Tally::new(g.proven.gateway(), BOOT)).collect();
        for &n in whose {
            let (message, request) = self.devices[n].reading();
            let (seq, bytes, gateway) = self.envelope(n, now, Kind::CloudTiny, &message);
            tallies[gateway].add(&bytes, &Envelope::parse(&bytes).unwrap());
            batches[gateway].0.extend_from_slice(&bytes);
            batches[gateway].1.push((seq, n, request));
        }
        let mut tasks = Vec::new();
        for ((gateway, tally), (mut body, asked)) in self.gateways.iter().zip(tallies).zip(batches) {
            if asked.is_empty() {
                continue;
            }
            let mut receipt = [0; Receipt::LONGEST];
            let len = tally.receipt().seal(&gateway.key, &mut receipt).unwrap();
            body.extend_from_slice(&receipt[..len]);
            let (service, by) = (self.service.clone(), gateway.proven.clone());
            let reply = tokio::spawn(async move { service.ingest(&by, &body, now).await.unwrap() });
            tasks.push((reply, asked));
        }
        let mut told = Vec::new();
        for (reply, asked) in tasks {
            let reply = reply.await.unwrap();
            let reply = Reply::parse(&reply).unwrap();
            assert!(reply.refused.is_empty() && reply.downlinks.len() == asked.len(), "a reading without an answer");
            came.readings += asked.len() as u64;
            for downlink in reply.downlinks.iter() {
                let at = asked.binary_search_by_key(&downlink.seq.unwrap(), |(seq, ..)| *seq).unwrap();
                let (_, n, request) = &asked[at];
                let device = &mut self.devices[*n];
                let renew = device.renew(request, downlink.bytes);
                match device.stage {
                    Stage::Idle if renew.is_some() => {
                        let (run, m1) =
                            Initiator::offer(draw(b"ephemeral", *n), device.sid, Epoch(2), Announce::Nothing).unwrap();
                        (device.stage, device.out) = (Stage::Offered(run), Some(m1));
                        came.told += 1;
                        came.last_told = step;
                        let minute = step / A_MINUTE;
                        let by = &mut self.gateways[device.gateway].told;
                        *by = (minute, if by.0 == minute { by.1 + 1 } else { 1 });
                        came.most_told = came.most_told.max(by.1);
                        told.push(*n);
                    }
                    Stage::Agreed => {
                        device.stage = Stage::Renewed;
                        came.pending -= 1;
                        came.renewed += 1;
                        *came.by_minute.entry(step / A_MINUTE).or_default() += 1;
                    }
                    _ => {}
                }
            }
        }
        told
    }

    /// Whether the cloud says the same of all of them.
    fn check(&self) {
        let book = self.service.cloud.book();
        for device in &self.devices {
            let contexts = book.by_did[&device.did].contexts();
            assert!(
                contexts.iter().any(|c| c.epoch == Epoch(2) && c.standing == Standing::Active && c.agreed.is_some())
            );
        }
    }
}

impl Device {
    fn reading(&mut self) -> (Vec<u8>, RequestId) {
        let (mut plaintext, mut sealed) = ([0; 64], [0; 80]);
        let len = Plaintext { code: POST, options: &[], payload: READING }.emit(&mut plaintext).unwrap();
        let number = self.lease.take().unwrap();
        let (request, len) = self.context.seal_request(number, &plaintext[..len], &mut sealed).unwrap();
        let (layers, wants, ciphertext) = (Layers::C3, Wants::Answer, &sealed[..len]);
        let tiny = Tiny::Request { layers, wants, piv: request.piv, bctx: None, kid: None, ciphertext };
        let mut out = vec![0; 160];
        let len = tiny.expand(Id::new(&self.sid.to_bytes()), &mut out).unwrap();
        out.truncate(len);
        (out, request)
    }

    /// Whether an answer says that it should renew.
    fn renew(&self, request: &RequestId, answer: &[u8]) -> Option<u64> {
        let message = Protected::parse_answer(answer).unwrap();
        let mut out = [0; 600];
        let opened = self.context.open_answer(request, message.option.piv, message.ciphertext, &mut out).unwrap();
        let inner = judge_answer::<E3>(opened.plaintext()).unwrap();
        if inner.payload.is_empty() { None } else { ControlMap::parse(inner.payload).unwrap().renew }
    }
}

/// Processor time: of this thread, and of the whole process.
fn on_cpu() -> (Duration, Duration) {
    let thread = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let thread = Duration::from_nanos(thread.split_whitespace().next().unwrap().parse().unwrap());
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    (thread, Duration::from_millis(10 * ticks))
}

async fn run(fleet: &mut Fleet) -> (u64, Came) {
    let count = fleet.devices.len();
    let mut came = Came::default();
    // Messages of EDHOC by the step in which they go out.
    let mut out: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut slots: Vec<Vec<usize>> = vec![Vec::new(); PERIOD];
    for n in 0..count {
        let [a, b, ..] = sha256(&[b"slot", &n.to_be_bytes()]);
        slots[usize::from(u16::from_be_bytes([a, b])) % PERIOD].push(n);
    }
    let mut step = 0;
    while came.renewed < count {
        let now = Millis(START + 1000 + step * STEP);
        let due = out.remove(&step).unwrap_or_default();
        let (on, again) = fleet.exchange(now, &due, &mut came).await;
        out.entry(step + 1).or_default().extend(on);
        out.entry(step + RESEND).or_default().extend(again);
        let told = fleet.report(step, now, &slots[step as usize % PERIOD], &mut came).await;
        out.entry(step + 1).or_default().extend(told);
        came.most_open = came.most_open.max(came.open);
        came.most_pending = came.most_pending.max(came.pending);
        step += 1;
        assert!(step < 100_000, "it never ends: {} of {count} are renewed", came.renewed);
    }
    (step, came)
}

fn main() {
    let mut given = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (devices, gateways) = (given.next().unwrap_or(2000), given.next().unwrap_or(10));
    let mut fleet = Fleet::new(devices, gateways);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (start, (own, all)) = (Instant::now(), on_cpu());
    let (steps, came) = runtime.block_on(run(&mut fleet));
    let (lasted, (own_after, all_after)) = (start.elapsed(), on_cpu());
    fleet.check();
    let minutes = |steps: u64| steps as f64 / A_MINUTE as f64;
    let (own, all) = (own_after - own, all_after - all);
    let most = came.by_minute.values().max().unwrap();
    println!(
        "{devices} devices by {gateways} gateways: all renewed after {:.1} minutes; {:.0} a minute, {most} in the fullest",
        minutes(steps),
        devices as f64 / minutes(steps)
    );
    println!(
        "orders waiting: {devices} at first, {} at a gateway; at most {} told by a gateway in a minute, the last one after \
         {:.1} minutes",
        devices.div_ceil(gateways),
        came.most_told,
        minutes(came.last_told)
    );
    println!(
        "at most at a time: {} runs that wait for message_3, {} contexts that are agreed and not in use yet; {} messages of \
         EDHOC went out again",
        came.most_open, came.most_pending, came.again
    );
    println!(
        "processor: {:.1} s of the cloud for {} readings and {devices} runs, {:.1} s of the devices; {:.1} s by the clock",
        (all - own).as_secs_f64(),
        came.readings,
        own.as_secs_f64(),
        lasted.as_secs_f64()
    );
    assert_eq!(came.told, devices);
}
