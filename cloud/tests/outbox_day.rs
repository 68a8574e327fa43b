//! Readings out: a sink is away for a simulated day, is killed in the middle and comes back, and so does the cloud. Every reading
//! arrives, in order of each device, and what comes twice has the same id. Each kind of sink is a [`Receiver`] here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;
mod mosquitto;
mod receivers;
#[path = "../../sinks/tests/servers/mod.rs"]
mod servers;
mod sinks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use common::signer::{Signer, signature_item};
use common::{Gateway, NOW, Node, Sent, SourceParts, World, device};
use fivefold_cloud::cloud::Cloud;
use fivefold_cloud::embedded::Embedded;
use fivefold_cloud::limits::{Part, Step};
use fivefold_cloud::outbox::{Unprepared, enter, run};
use fivefold_cloud::store::{Asked, Dead, OutboxMove, OutboxRow, OutboxSink, OutboxWrite, Query, Store, Write};
use fivefold_core::profile::{Mode, Profile, Sign};
use fivefold_core::time::Millis;
use fivefold_keep::share::CloudOutbox;
use fivefold_keep::vault::Vault;
use fivefold_sinks::{Answer, Most, Outbound, Sending, Settings, Sink};
use mosquitto::Mosquitto;
use serde_json::Value;
use sinks::{Virtual, free_port};
use tokio::task::JoinHandle;

const SIDS: [u16; 3] = [0x0a17, 0x0a18, 0x0a19];
/// Minutes between two readings of a device.
const EVERY: u64 = 10;
const A_DAY: u64 = 24 * 60 / EVERY;
/// Readings of a batch that is signed.
const BATCH: u64 = 50;

/// SenML with a number, or with a long text.
fn payload(n: u64, long: bool) -> Vec<u8> {
    let mut bytes = vec![0x81, 0xa2, 0x00, 0x61, b't'];
    if long {
        bytes.extend([0x03, 0x78, 200]);
        bytes.extend([b'x'; 200]);
    } else {
        // In two bytes whatever it is, for a number has one form.
        let [high, low] = (n as u16 + 1000).to_be_bytes();
        bytes.extend([0x02, 0x19, high, low]);
    }
    bytes
}

/// Does what blocks: where a test is a task, the other tasks go on.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(work),
        Err(_) => work(),
    }
}

fn commit(cloud: &Cloud<Embedded>, outbox: OutboxWrite) {
    blocking(|| cloud.memory().store().commit_now(Write { now: NOW, outbox, ..Write::default() })).unwrap();
}

/// A cloud with devices, and what stays of it when it is killed.
struct Farm {
    cloud: Option<Arc<Cloud<Embedded>>>,
    gateway: Gateway,
    nodes: Vec<Node>,
    /// Of the first device, with signatures that it has not said yet.
    signer: Signer,
    items: Vec<Vec<u8>>,
    path: PathBuf,
    source: SourceParts,
    _folder: tempfile::TempDir,
}

impl Farm {
    fn new() -> Self {
        let mut devices: Vec<_> = SIDS.map(|sid| device(sid, Profile::ToCloud, Mode::Persistent)).into();
        devices[0].policy.sign = Sign::Batch;
        let (nodes, signer) = (devices.iter().map(Node::of).collect(), Signer::new(&devices[0]));
        let World { cloud, gateway, path, source, folder, .. } = blocking(|| {
            let mut world = World::new(devices);
            signer.enter(&mut world);
            world
        });
        let cloud = Some(Arc::new(cloud));
        Self { cloud, gateway, nodes, signer, items: Vec::new(), path, source, _folder: folder }
    }

    fn cloud(&self) -> &Arc<Cloud<Embedded>> {
        self.cloud.as_ref().unwrap()
    }

    /// All devices report once.
    fn report(&mut self, n: u64, long: bool, now: Millis) {
        let payload = payload(n, long);
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let sent = if at == 0 { self.signer.reading(node, &payload) } else { node.send(&payload) };
            self.post(&sent, now);
        }
        if n % BATCH == BATCH - 1 {
            self.items.push(signature_item(&self.signer.close()));
        }
    }

    fn post(&mut self, sent: &Sent, now: Millis) {
        let body = self.gateway.batch(&[sent.envelope()]);
        blocking(|| common::post(self.cloud.as_ref().unwrap(), &self.gateway.proven, &body, now)).unwrap();
    }

    /// The cloud ends where it stands, with all that it has in memory, and starts again.
    async fn restart(&mut self, task: JoinHandle<()>, now: Millis) {
        task.abort();
        let _ = task.await;
        let cloud = self.cloud.take().unwrap();
        assert_eq!(Arc::strong_count(&cloud), 1);
        self.cloud = Some(Arc::new(blocking(|| {
            drop(cloud);
            common::start(&self.path, &self.source, None, now)
        })));
    }

    fn row(&self) -> OutboxRow {
        self.cloud().memory().read(|r| r.outbox()).unwrap().remove(0)
    }

    fn ask(&self, asked: Asked) {
        let outbox = OutboxWrite { asked: vec![("plant".into(), asked)], ..OutboxWrite::default() };
        commit(self.cloud(), outbox);
    }

    /// The first device says its signatures, each with one reading more: the labels of all others are raised. Returns how many
    /// readings came.
    fn raise(&mut self, now: Millis) -> usize {
        self.items.push(signature_item(&self.signer.close()));
        let items = std::mem::take(&mut self.items);
        for item in &items {
            let sent = self.nodes[0].send(&[&payload(0, false)[..], item].concat());
            self.post(&sent, now);
        }
        items.len()
    }

    /// All goes that is needed by nobody.
    fn prune(&self, now: Millis) {
        blocking(|| {
            let memory = self.cloud().memory();
            memory.store().measured(memory.read(|r| r.measure(10_000)).unwrap()).unwrap();
            let floor = memory.read(|r| r.floor()).unwrap().unwrap_or(i64::MAX);
            let step = Step { part: Part::Readings, before: Millis(now.0 + 1), excess: 0, floor, now, rows: 200 };
            while !memory.store().prune(step).unwrap().is_done {}
        });
    }
}

/// Something that came: our own form of a reading.
fn came(all: &[Value], about: &str) -> Vec<(String, u64, String, String)> {
    let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    let of = all.iter().filter(|v| v["about"] == about);
    of.map(|v| (text(v, "device"), v["number"].as_u64().unwrap(), text(v, "id"), text(v, "proof"))).collect()
}

/// A sink of some kind. What it refuses for good is the long reading, until it is mended.
trait Receiver {
    /// Whether there is anything that it refuses.
    const REFUSES: bool = true;
    /// Its words in `[[outbox]]`, and its secret.
    fn words(&self) -> (String, Option<&'static [u8]>);
    /// It is there.
    async fn start(&mut self);
    /// It ends in the middle of whatever it does.
    async fn kill(&mut self);
    /// From the next start on it takes long readings too.
    fn mend(&mut self);
    /// What it has, in the order in which it came.
    fn has(&self) -> Vec<Value>;
}

#[derive(Clone, Default)]
struct Hook {
    heard: Arc<Mutex<Vec<Value>>>,
    mended: Arc<AtomicBool>,
}

async fn hooked(State(hook): State<Hook>, body: String) -> (StatusCode, &'static str) {
    if body.contains("xxxxxxxx") && !hook.mended.load(Ordering::Relaxed) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "no text so long");
    }
    let events: Vec<Value> = serde_json::from_str(&body).unwrap();
    hook.heard.lock().unwrap().extend(events.into_iter().map(|mut e| e["data"].take()));
    (StatusCode::OK, "")
}

struct Webhook {
    port: u16,
    hook: Hook,
    server: Option<JoinHandle<()>>,
}

impl Receiver for Webhook {
    fn words(&self) -> (String, Option<&'static [u8]>) {
        (format!("webhook = \"http://127.0.0.1:{}/in\"\n", self.port), Some(b"sixteen bytes or more"))
    }

    async fn start(&mut self) {
        let listener = sinks::listen(self.port).await;
        let app = axum::Router::new().route("/in", axum::routing::post(hooked)).with_state(self.hook.clone());
        self.server = Some(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    }

    async fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    fn mend(&mut self) {
        self.hook.mended.store(true, Ordering::Relaxed);
    }

    fn has(&self) -> Vec<Value> {
        self.hook.heard.lock().unwrap().clone()
    }
}

struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    broker: Option<Mosquitto>,
    most: &'static str,
    heard: Option<(mosquitto::Heard, JoinHandle<()>)>,
}

impl Receiver for Broker {
    fn words(&self) -> (String, Option<&'static [u8]>) {
        (format!("mqtt = \"mqtt://127.0.0.1:{}\"\ninsecure_mqtt = true\n", self.port), None)
    }

    async fn start(&mut self) {
        self.broker = Some(Mosquitto::with(self.folder.path(), self.port, self.most));
        if self.heard.is_none() {
            self.heard = Some(mosquitto::subscribe(self.port, "fivefold/#").await);
        }
    }

    async fn kill(&mut self) {
        // It keeps what it acknowledged, as one in the field does; the connection breaks all the same.
        self.broker.take().unwrap().end();
    }

    fn mend(&mut self) {
        self.most = "";
    }

    fn has(&self) -> Vec<Value> {
        let Some((heard, _)) = &self.heard else { return Vec::new() };
        heard.lock().unwrap().iter().map(|(_, message)| message.clone()).collect()
    }
}

/// One sink as `[[outbox]]` says, entered into the store.
fn prepared(farm: &Farm, receiver: &impl Receiver, folder: &Path, vault: &Vault) -> Box<dyn Sink> {
    let (words, secret) = receiver.words();
    let words: CloudOutbox = toml::from_str(&format!("name = \"plant\"\n{words}")).unwrap();
    let settings: Settings = fivefold_sinks::check(&[words], folder).unwrap().remove(0);
    if let Some(secret) = secret {
        vault.seal_file(&CloudOutbox::secret_file(folder, "plant"), secret).unwrap();
    }
    let memory = farm.cloud().memory();
    commit(farm.cloud(), enter(memory, std::slice::from_ref(&settings), NOW).unwrap().outbox);
    settings.prepare(vault).unwrap()
}

/// Time passes until it is so.
async fn until(what: &str, clock: &Virtual, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(60), "never {what}");
        clock.pass(1000).await;
    }
}

fn ids(all: &[(String, u64, String, String)]) -> BTreeSet<String> {
    all.iter().map(|one| one.2.clone()).collect()
}

/// That the first of each comes in order of its device, without those that came by another way.
#[track_caller]
fn in_order(all: &[(String, u64, String, String)], but: &BTreeSet<String>) -> BTreeSet<String> {
    let (mut last, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (device, number, id, _) in all {
        if seen.insert(id.clone()) && !but.contains(id) {
            let before = last.insert(device.clone(), *number);
            assert!(before.is_none_or(|before| before < *number), "{device}: {before:?} before {number}");
        }
    }
    seen
}

async fn a_day<R: Receiver>(mut receiver: R) {
    let refused = if R::REFUSES { 3 } else { 0 };
    let (folder, mut farm, clock) = (tempfile::tempdir().unwrap(), Farm::new(), Virtual::at(NOW));
    let vault = Vault::create(folder.path()).unwrap();
    let start = |farm: &Farm, receiver: &_| {
        let sink = prepared(farm, receiver, folder.path(), &vault);
        tokio::spawn(run(farm.cloud().clone(), "plant".into(), sink, clock.clone()))
    };
    // What came before the sink is not its: it begins now.
    farm.report(0, false, NOW);
    let mut task = start(&farm, &receiver);
    receiver.start().await;
    farm.report(1, false, NOW);
    until("the first readings", &clock, || receiver.has().len() == 3).await;
    receiver.kill().await;
    let mut now = NOW;
    for n in 2..A_DAY {
        now = now.plus(EVERY * 60_000);
        farm.report(n, n == 40, now);
        clock.pass(EVERY * 60_000).await;
        if n == A_DAY / 2 {
            // Both are killed in the middle: the sink was back for a moment.
            receiver.start().await;
            until("some of it", &clock, || receiver.has().len() > 10).await;
            receiver.kill().await;
            farm.restart(task, now).await;
            task = start(&farm, &receiver);
        }
    }
    assert!(farm.row().waiting > 100 && farm.row().failed.is_some(), "{:?}", farm.row());
    receiver.start().await;
    until("all of the day", &clock, || farm.row().waiting == 0).await;
    let expected = 3 * (A_DAY as usize - 1);
    until("all of it", &clock, || {
        in_order(&came(&receiver.has(), "reading"), &BTreeSet::new()).len() == expected - refused
    })
    .await;
    if R::REFUSES {
        mended(&farm, &mut receiver, &clock).await;
    }

    // A label that was raised comes under the id of its reading, though readings are pruned at once that the sink has.
    let expected = expected + farm.raise(now);
    farm.prune(now);
    until("all labels", &clock, || ids(&came(&receiver.has(), "label")).len() >= A_DAY as usize - 1).await;
    until("everything", &clock, || ids(&came(&receiver.has(), "reading")).len() == expected).await;
    until("nothing waits", &clock, || farm.row().waiting == 0).await;
    farm.prune(now);
    let left = blocking(|| farm.cloud().memory().read(|r| r.readings(&Query { limit: 10_000, ..Query::default() })));
    assert!(left.unwrap().len() < 10, "the sink has all: nothing is kept for it");
    let all = receiver.has();
    let (readings, labels) = (came(&all, "reading"), came(&all, "label"));
    // The first two readings of each device came as they came; the long ones came last.
    let late: BTreeSet<String> = readings.iter().filter(|(_, n, ..)| *n == 40).map(|r| r.2.clone()).collect();
    let seen = in_order(&readings, &late);
    assert_eq!((seen.len(), late.len()), (expected, 3), "every reading of the day, once by its id");
    assert!(labels.iter().all(|(_, n, id, proof)| (seen.contains(id) || *n == 0) && proof == "signed"));
    assert!(readings.iter().all(|r| r.3 == "node"));
    task.abort();
}

/// What was refused for good is there to be seen; once the sink is mended it is sent again, and the view is empty.
async fn mended(farm: &Farm, receiver: &mut impl Receiver, clock: &Virtual) {
    let letters = farm.cloud().memory().read(|r| r.dead_letters("plant", 0, 100)).unwrap();
    assert_eq!((letters.len(), farm.row().dead), (3, 3), "one of each device");
    assert!(letters.iter().all(|l| !l.said.is_empty() && l.tries >= 1));
    farm.ask(Asked::Resend(Some(vec![letters[0].id])));
    until("it is refused again", clock, || {
        let now = farm.cloud().memory().read(|r| r.dead_letters("plant", 0, 100)).unwrap();
        now[0].tries > letters[0].tries && now[0].again.is_none()
    })
    .await;
    receiver.kill().await;
    receiver.mend();
    receiver.start().await;
    farm.ask(Asked::Resend(None));
    until("no dead letter", clock, || farm.row().dead == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_away_for_a_day_misses_nothing() {
    a_day(Webhook { port: free_port(), hook: Hook::default(), server: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_day_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    a_day(Broker { folder, port: free_port(), broker: None, most: "max_packet_size 1900\n", heard: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_a_day_misses_nothing() {
    a_day(receivers::Database::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_away_for_a_day_misses_nothing() {
    a_day(receivers::Stream::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_away_for_a_day_misses_nothing() {
    a_day(receivers::Lake::new()).await;
}

/// Takes everything, or never answers.
struct Own {
    taken: Arc<Mutex<Vec<String>>>,
    answers: bool,
}

impl Sink for Own {
    fn most(&self) -> Most {
        Most { readings: 10, bytes: 1 << 20 }
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(async move {
            self.taken.lock().unwrap().extend(batch.iter().map(|r| r.id.clone()));
            if self.answers { Answer::Taken } else { std::future::pending().await }
        })
    }
}

fn entered(farm: &Farm, names: &[&str], from_start: bool) {
    let of = |name: &&str| OutboxSink { name: (*name).to_owned(), kind: "webhook", from_start };
    let outbox = OutboxWrite { sinks: Some(names.iter().map(of).collect()), ..OutboxWrite::default() };
    commit(farm.cloud(), outbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_never_answers_slows_nothing_that_comes_in() {
    let mut farm = Farm::new();
    let measure = |farm: &mut Farm, from: u64| {
        let started = Instant::now();
        (from..from + 60).for_each(|n| farm.report(n, false, NOW.plus(n * 1000)));
        started.elapsed()
    };
    let alone = measure(&mut farm, 0);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    entered(&farm, &names, true);
    let clock = Virtual::at(NOW);
    let taken = Arc::<Mutex<Vec<String>>>::default();
    let tasks = names.map(|name| {
        let sink = Box::new(Own { taken: taken.clone(), answers: false });
        tokio::spawn(run(farm.cloud().clone(), name.into(), sink, clock.clone()))
    });
    until("all hang", &clock, || taken.lock().unwrap().len() == 80).await;
    let beside = measure(&mut farm, 100);
    assert!(beside < alone * 4 + Duration::from_secs(2), "{beside:?} beside eight that hang, {alone:?} alone");
    assert_eq!(taken.lock().unwrap().len(), 80, "one batch of each is in memory, and no more");
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_when_the_place_of_a_sink_is_noted_loses_nothing_and_all_is_sent_again() {
    let mut farm = Farm::new();
    (0..5).for_each(|n| farm.report(n, false, NOW));
    entered(&farm, &["plant"], true);
    let db = rusqlite::Connection::open(&farm.path).unwrap();
    db.execute_batch("CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    let (taken, clock) = (Arc::<Mutex<Vec<String>>>::default(), Virtual::at(NOW));
    let own = || Box::new(Own { taken: taken.clone(), answers: true });
    let task = tokio::spawn(run(farm.cloud().clone(), "plant".into(), own(), clock.clone()));
    until("the first batch", &clock, || !taken.lock().unwrap().is_empty()).await;
    for _ in 0..50 {
        clock.pass(1000).await;
    }
    assert_eq!(taken.lock().unwrap().len(), 10, "nothing more is sent before that is noted");
    farm.restart(task, NOW).await;
    db.execute_batch("DROP TRIGGER full").unwrap();
    let task = tokio::spawn(run(farm.cloud().clone(), "plant".into(), own(), clock.clone()));
    until("all of it", &clock, || farm.row().waiting == 0).await;
    let taken = taken.lock().unwrap().clone();
    assert_eq!((&taken[..10], taken.len()), (&taken[10..20], 25), "the same again, under the same ids");
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 15);
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_stops_a_sink_and_lets_it_go_on() {
    let mut farm = Farm::new();
    entered(&farm, &["plant"], true);
    farm.ask(Asked::Pause);
    farm.report(0, false, NOW);
    let (taken, clock) = (Arc::<Mutex<Vec<String>>>::default(), Virtual::at(NOW));
    let own = Box::new(Own { taken: taken.clone(), answers: true });
    let task = tokio::spawn(run(farm.cloud().clone(), "plant".into(), own, clock.clone()));
    for _ in 0..20 {
        clock.pass(60_000).await;
    }
    assert_eq!((taken.lock().unwrap().len(), farm.row().waiting), (0, 3));
    farm.ask(Asked::Resume);
    until("all of it", &clock, || farm.row().waiting == 0 && taken.lock().unwrap().len() == 3).await;
    task.abort();
}

#[test]
fn a_name_stays_with_its_kind_and_its_place_and_who_prunes_is_told_what_is_needed() {
    let mut farm = Farm::new();
    let floor = |farm: &Farm| farm.cloud().memory().read(|r| r.floor()).unwrap();
    (0..3).for_each(|n| farm.report(n, false, NOW));
    assert_eq!(floor(&farm), None, "nobody needs anything");
    entered(&farm, &["now"], false);
    assert_eq!((farm.row().waiting, floor(&farm)), (0, Some(9)));
    entered(&farm, &["now", "plant"], true);
    assert_eq!(floor(&farm), Some(0));
    let page = farm.cloud().memory().read(|r| r.outbox_page("plant", 4)).unwrap();
    assert_eq!((page.readings.len(), page.reading, page.is_ahead), (4, 4, true));
    assert_eq!(farm.cloud().memory().read(|r| r.outbox_state("plant")).unwrap(), (false, 0, 0));
    let commit = |moved: OutboxMove| {
        commit(farm.cloud(), OutboxWrite { moves: vec![moved], ..OutboxWrite::default() });
    };
    let to = |n| OutboxMove { name: "plant".into(), reading: Some(n), sent: 4, ..OutboxMove::default() };
    let dead = vec![Dead { reading: 5, label: false, said: "ä".repeat(1000) }];
    commit(OutboxMove { dead, ..to(7) });
    commit(to(6));
    assert_eq!(floor(&farm), Some(5), "what was refused for good can be sent again");
    let letter = farm.cloud().memory().read(|r| r.dead_letters("plant", 0, 10)).unwrap().remove(0);
    assert_eq!((letter.said.len(), letter.reading.row.id), (300, 5));
    commit(OutboxMove { name: "plant".into(), again: vec![(letter.id, None)], ..OutboxMove::default() });
    assert_eq!(floor(&farm), Some(7));
    // Left out of cloud.toml it holds nothing back; when it is there again it goes on where it was.
    entered(&farm, &["now"], false);
    assert_eq!(floor(&farm), Some(9));
    entered(&farm, &["now", "plant"], false);
    assert_eq!(floor(&farm), Some(7));
    let words = CloudOutbox {
        name: "plant".into(),
        mqtt: Some("mqtt://127.0.0.1:1".into()),
        insecure_mqtt: true,
        ..CloudOutbox::default()
    };
    let other = fivefold_sinks::check(&[words], Path::new("farm")).unwrap();
    let error = enter(farm.cloud().memory(), &other, NOW).unwrap_err();
    assert!(matches!(&error, Unprepared::Renamed { was, .. } if was == "webhook"), "{error}");
    assert!(error.to_string().contains("give the new sink another name"));
}

#[test]
fn a_store_of_before_gets_its_outbox_and_its_readings_stay() {
    let mut farm = Farm::new();
    farm.report(0, false, NOW);
    let path = farm.path.clone();
    farm.cloud = None;
    common::older::take_back(&path, 19);
    let memory = Embedded::new(Store::open(&path).unwrap());
    assert_eq!(memory.read(|r| Ok((r.outbox()?.len(), r.last_id()?))).unwrap(), (0, 3));
}
