//! Alarms: raised when docs/protocol.md 14 says so, and brought to every sink, once, whatever was away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;
mod mosquitto;
mod sinks;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use common::{NET, NOW, World, device};
use fivefold_alarm::{Alarm, Cause, Subject};
use fivefold_cloud::alarm::{NotTaken, Sink, check, run};
use fivefold_cloud::embedded::Embedded;
use fivefold_cloud::store::{AlarmRow, AlarmWrite, CountKey, Place, Store, Write};
use fivefold_core::error::{At, Code, Severity};
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::event::{self, Count, Event};
use fivefold_keep::share::{CloudAlarm, CloudAlarmSink};
use fivefold_keep::vault::Vault;
use mosquitto::{Mosquitto, subscribe};
use sinks::{Ids, Manner, PASSWORD, SECRET, Virtual, free_port, mail_server, mail_tls, webhook};
use tokio::task::JoinHandle;

fn open(folder: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::new(Store::open(&folder.join("readings.db")).unwrap()))
}

fn key(code: Code, net: u32) -> CountKey {
    CountKey { code, net: Some(Net(net)), gateway: Some(GatewayId(1)), sid: Some(Sid(0x0a17)), place: Place::Cloud }
}

fn alarms(at: &Embedded) -> Vec<AlarmRow> {
    at.read(|r| r.alarms(Severity::Info, Millis(0), None, 10_000)).unwrap()
}

fn raised(at: &Embedded) -> Vec<(Code, Severity)> {
    let code = |row: &AlarmRow| if let Cause::Code(code) = row.alarm.cause { code } else { panic!("{row:?}") };
    alarms(at).iter().rev().map(|row| (code(row), row.alarm.severity)).collect()
}

#[test]
fn each_code_with_a_threshold_raises_exactly_at_n_and_not_at_one_less() {
    let folder = tempfile::tempdir().unwrap();
    let at = open(folder.path());
    let count = |key: CountKey, n: u64, ms: u64| {
        at.store().commit_now(Write { now: NOW.plus(ms), counts: vec![(key, n)], ..Write::default() }).unwrap();
        raised(&at)
    };
    let (mut net, mut expected, mut silent) = (0, Vec::new(), 0);
    for code in Code::ALL {
        let steps: Vec<(u64, Severity)> = code
            .steps()
            .iter()
            .filter_map(|step| if let At::Times(n) = step.at { Some((n.into(), step.severity)) } else { None })
            .collect();
        net += 1;
        let mut so_far = 0;
        for (n, severity) in steps {
            if n - 1 > so_far {
                assert_eq!(count(key(*code, net), n - 1 - so_far, 0), expected, "{code}: at {} of {n}", n - 1);
            }
            expected.push((*code, severity));
            assert_eq!(count(key(*code, net), 1, 599_000), expected, "{code}: at {n}");
            so_far = n;
        }
        if so_far == 0 {
            silent += 1;
            assert_eq!(count(key(*code, net), 1_000_000, 0), expected, "{code} is normal in operation");
        }
        // What is said is as severe as it is said.
        for step in code.steps().iter().filter(|step| step.at == At::Said) {
            net += 1;
            let said = vec![(key(*code, net), 1, step.severity)];
            at.store().commit_now(Write { now: NOW, said, ..Write::default() }).unwrap();
            expected.push((*code, step.severity));
            assert_eq!(raised(&at), expected, "{code}, said");
        }
    }
    assert!(expected.len() > 70 && silent < 15, "{} and {silent}", expected.len());
    let ids: BTreeSet<_> = alarms(&at).iter().map(AlarmRow::id).collect();
    assert_eq!(ids.len(), expected.len(), "every alarm has its id");
}

#[test]
fn what_raises_an_alarm_survives_a_restart_and_so_does_that_it_was_raised() {
    let folder = tempfile::tempdir().unwrap();
    let count = |ms: u64, n: u64| {
        let at = open(folder.path());
        let counts = vec![(key(Code::CloudForged, 1), n)];
        at.store().commit_now(Write { now: NOW.plus(ms), counts, ..Write::default() }).unwrap();
        alarms(&at).len()
    };
    assert_eq!((count(0, 4), count(1000, 1), count(2000, 5)), (0, 1, 1), "each time the cloud starts again");
}

#[test]
fn an_alarm_is_over_when_its_cause_is_and_is_raised_anew_after_that() {
    let folder = tempfile::tempdir().unwrap();
    let at = open(folder.path());
    let write = |ms: u64, counts: Vec<(CountKey, u64)>| {
        let alarms = AlarmWrite { sweep: true, ..AlarmWrite::default() };
        at.store().commit_now(Write { now: NOW.plus(ms), counts, alarms, ..Write::default() }).unwrap();
    };
    write(0, vec![(key(Code::CloudForged, 1), 5)]);
    write(60_000, Vec::new());
    assert_eq!(alarms(&at)[0].over, None);
    write(700_000, Vec::new());
    assert_eq!(alarms(&at)[0].over, Some(NOW.plus(700_000)));
    write(701_000, vec![(key(Code::CloudForged, 1), 5)]);
    let all = alarms(&at);
    assert_eq!((all.len(), all[0].over), (2, None));
    assert_ne!(all[0].id(), all[1].id());
}

#[test]
fn what_gateways_count_is_an_alarm_here_with_what_their_event_says_of_it() {
    let mut world = World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Persistent)]);
    let tell = |world: &mut World, counts: &[Count], spool_used| {
        let said = Event { uptime: 1, spool_used, spool_max: 1000, counts: List::of(counts) };
        let mut bytes = [0; event::BYTES];
        let len = said.emit(&mut bytes).unwrap();
        let envelope = Envelope {
            kind: Kind::Event,
            bytes: &bytes[..len],
            opened: None,
            ..common::word(Kind::Event, Sid(0), 0, &[])
        };
        world.post(&[envelope]);
        raised(world.cloud.memory())
    };
    let of = |code, count| Count { code, sid: Some(Sid(0x0a17)), count };
    assert_eq!(tell(&mut world, &[of(Code::LinkForged, 19)], 0), []);
    assert_eq!(tell(&mut world, &[of(Code::LinkForged, 1)], 0), [(Code::LinkForged, Severity::Warning)]);
    let mut expected = vec![(Code::LinkForged, Severity::Warning)];
    for (code, count, used, severity) in [
        (Code::StoreFull, 1, 800, Severity::Warning),
        (Code::StoreFull, 3, 995, Severity::Critical),
        (Code::CloudUnreachable, 1, 0, Severity::Warning),
        (Code::CloudUnreachable, 2, 0, Severity::High),
    ] {
        expected.push((code, severity));
        assert_eq!(tell(&mut world, &[of(code, count)], used), expected);
    }
    let first = alarms(world.cloud.memory()).pop().unwrap().alarm;
    assert_eq!(first.of, Subject { net: Some(NET), gateway: Some(world.gateway.proven.gateway()), sid: None });
}

/// Sinks of a folder, with their secrets in its vault.
struct Site {
    folder: tempfile::TempDir,
    vault: Vault,
    sinks: Vec<Sink>,
}

impl Site {
    fn new(words: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let words: CloudAlarm = toml::from_str(words).unwrap();
        let sinks = check(&words.sink, folder.path()).unwrap();
        for sink in words.sink.iter().filter(|s| s.webhook.is_some() || s.username.is_some()) {
            let secret = if sink.webhook.is_some() { SECRET } else { PASSWORD };
            vault.seal_file(&CloudAlarmSink::secret_file(folder.path(), &sink.name), secret).unwrap();
        }
        Self { folder, vault, sinks }
    }

    async fn deliver(&self) -> Result<(), NotTaken> {
        self.sinks[0].prepare(&self.vault).unwrap().deliver(&alarm(), NOW).await
    }

    /// Starts the queues of all sinks over a store.
    fn start(&self, at: &Arc<Embedded>, time: &Virtual) -> Vec<JoinHandle<()>> {
        let names = self.sinks.iter().map(|s| s.name.clone()).collect();
        let alarms = AlarmWrite { sinks: Some(names), ..AlarmWrite::default() };
        tokio::task::block_in_place(|| at.store().commit_now(Write { now: NOW, alarms, ..Write::default() }).unwrap());
        let prepared = self.sinks.iter().map(|sink| sink.prepare(&self.vault).unwrap());
        prepared.map(|sink| tokio::spawn(run(at.clone(), sink, time.clone()))).collect()
    }
}

fn alarm() -> Alarm {
    let of = Subject { net: Some(NET), gateway: None, sid: Some(Sid(0x0a17)) };
    Alarm { cause: Cause::Code(Code::CloudNonceReuse), severity: Severity::Critical, of, times: 1, at: NOW }
}

/// The process is gone, whatever it was doing.
async fn kill(queues: Vec<JoinHandle<()>>, at: Arc<Embedded>) {
    queues.iter().for_each(JoinHandle::abort);
    for queue in queues {
        let _ = queue.await;
    }
    while Arc::strong_count(&at) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::task::block_in_place(|| drop(at));
}

/// Raises one alarm.
fn raise(at: &Embedded, n: u32, now: Millis) {
    let counts = vec![(key(Code::CloudNonceReuse, n), 1)];
    tokio::task::block_in_place(|| at.store().commit_now(Write { now, counts, ..Write::default() }).unwrap());
}

fn distinct(ids: &Ids) -> BTreeSet<String> {
    ids.lock().unwrap().iter().cloned().collect()
}

fn mail_words(name: &str, scheme: &str, port: u16, more: &str) -> String {
    format!(
        "[[sink]]\nname = \"{name}\"\nmail = \"{scheme}://localhost:{port}\"\nca_file = \"ca.pem\"\nusername = \"cloud\"\n\
         from = \"cloud@farm.example\"\nto = [\"ops@farm.example\"{more}]\n"
    )
}

fn hook_words(name: &str, port: u16) -> String {
    format!("[[sink]]\nname = \"{name}\"\nwebhook = \"http://127.0.0.1:{port}/alarms\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_hour_without_sinks_under_load_and_a_restart_every_alarm_arrives_at_each_once() {
    const ALARMS: u32 = 120;
    const PACE: u64 = 30_000;
    let [hook, mail, mqtt] = [free_port(), free_port(), free_port()];
    let broker = format!("[[sink]]\nname = \"mqtt\"\nmqtt = \"mqtt://127.0.0.1:{mqtt}\"\ninsecure_mqtt = true\n");
    let site = Site::new(&[hook_words("hook", hook), mail_words("mail", "smtps", mail, ""), broker].concat());
    let tls = mail_tls(site.folder.path());
    // The broker knows its subscriber from before.
    let broker = Mosquitto::start(site.folder.path(), mqtt);
    let (by_mqtt, _subscriber) = subscribe(mqtt, "fivefold/alarms").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.end();

    let time = Virtual::at(NOW);
    let mut at = tokio::task::block_in_place(|| open(site.folder.path()));
    let mut queues = site.start(&at, &time);
    for n in 0..ALARMS {
        raise(&at, n, NOW.plus(u64::from(n) * PACE));
        time.pass(PACE).await;
        if n == ALARMS / 2 {
            kill(queues, at).await;
            at = tokio::task::block_in_place(|| open(site.folder.path()));
            queues = site.start(&at, &time);
        }
    }
    let waiting = at.read(|r| r.alarm_sinks()).unwrap();
    assert_eq!(waiting.iter().map(|s| s.waiting).collect::<Vec<_>>(), [u64::from(ALARMS); 3], "{waiting:?}");
    assert!(waiting.iter().all(|s| s.failed.is_some() && s.oldest == Some(NOW)), "{waiting:?}");

    let _broker = Mosquitto::start(site.folder.path(), mqtt);
    let (by_hook, _hook) = webhook(hook, StatusCode::NO_CONTENT).await;
    let (by_mail, _mail) = mail_server(mail, tls, Manner::Smtps).await;
    let expected: BTreeSet<String> = alarms(&at).iter().map(|row| row.id().to_string()).collect();
    assert_eq!(expected.len(), ALARMS as usize);
    let mqtt_ids = || {
        let heard = by_mqtt.lock().unwrap();
        heard.iter().map(|(_, message)| message["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all_came = || {
        let mqtt: BTreeSet<String> = mqtt_ids().into_iter().collect();
        [distinct(&by_hook), distinct(&by_mail.ids), mqtt].iter().all(|ids| *ids == expected)
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    while !all_came() {
        assert!(
            tokio::time::Instant::now() < until,
            "{} {} {} of {ALARMS}; {:?}",
            distinct(&by_hook).len(),
            distinct(&by_mail.ids).len(),
            mqtt_ids().len(),
            at.read(|r| r.alarm_sinks()).unwrap()
        );
        time.pass(1_000).await;
    }
    // Ten minutes later nothing came again.
    for _ in 0..20 {
        time.pass(PACE).await;
    }
    let counts = [by_hook.lock().unwrap().len(), by_mail.ids.lock().unwrap().len(), mqtt_ids().len()];
    assert_eq!(counts, [ALARMS as usize; 3], "each once");
    let after = at.read(|r| r.alarm_sinks()).unwrap();
    assert!(after.iter().all(|s| s.waiting == 0 && s.failed.is_none()), "{after:?}");
    kill(queues, at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_alarms_go_out_repeats_at_most_the_one_that_was_under_way_and_under_its_id() {
    const CRASHES: u32 = 10;
    const ALARMS: u32 = 10 * CRASHES;
    let port = free_port();
    let site = Site::new(&hook_words("hook", port));
    let (heard, _hook) = webhook(port, StatusCode::OK).await;
    let time = Virtual::at(NOW);
    let mut at = tokio::task::block_in_place(|| open(site.folder.path()));
    let mut queues = site.start(&at, &time);
    // It ends in the middle of each ten of them.
    for ten in 0..CRASHES {
        let before = heard.lock().unwrap().len();
        (ten * 10..(ten + 1) * 10).for_each(|n| raise(&at, n, NOW));
        while heard.lock().unwrap().len() == before {
            time.pass(1_000).await;
        }
        kill(queues, at).await;
        at = tokio::task::block_in_place(|| open(site.folder.path()));
        queues = site.start(&at, &time);
    }
    while distinct(&heard).len() < ALARMS as usize {
        time.pass(1_000).await;
    }
    let repeats = heard.lock().unwrap().len() - ALARMS as usize;
    assert!(repeats <= CRASHES as usize, "{repeats} repeats in {CRASHES} crashes");
    kill(queues, at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_500_for_ever_holds_up_no_other() {
    const ALARMS: u32 = 40;
    let [bad, good, mail] = [free_port(), free_port(), free_port()];
    let site =
        Site::new(&[hook_words("bad", bad), hook_words("good", good), mail_words("mail", "smtps", mail, "")].concat());
    let tls = mail_tls(site.folder.path());
    let (refused, _bad) = webhook(bad, StatusCode::INTERNAL_SERVER_ERROR).await;
    let (by_hook, _good) = webhook(good, StatusCode::OK).await;
    let (by_mail, _mail) = mail_server(mail, tls, Manner::Smtps).await;
    let time = Virtual::at(NOW);
    let at = tokio::task::block_in_place(|| open(site.folder.path()));
    let queues = site.start(&at, &time);
    (0..ALARMS).for_each(|n| raise(&at, n, NOW));
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while [&by_hook, &by_mail.ids].iter().any(|ids| ids.lock().unwrap().len() < ALARMS as usize) {
        assert!(tokio::time::Instant::now() < until);
        time.pass(1_000).await;
    }
    // For another hour.
    for _ in 0..60 {
        time.pass(60_000).await;
    }
    assert_eq!([&by_hook, &by_mail.ids].map(|ids| ids.lock().unwrap().len()), [ALARMS as usize; 2]);
    let sinks = at.read(|r| r.alarm_sinks()).unwrap();
    let bad = sinks.iter().find(|s| s.name == "bad").unwrap();
    assert_eq!((bad.waiting, bad.failed.as_deref()), (ALARMS.into(), Some("it answered 500")));
    let tried = refused.lock().unwrap().len();
    assert!(tried < 600, "{tried} tries in an hour");
    assert_eq!(distinct(&refused).len(), ALARMS as usize, "each gets its turn");
    kill(queues, at).await;
}

#[tokio::test]
async fn a_webhook_is_not_led_elsewhere_and_what_is_less_severe_than_wanted_is_not_sent() {
    let port = free_port();
    let site = Site::new(&hook_words("hook", port));
    let (heard, _hook) = webhook(port, StatusCode::TEMPORARY_REDIRECT).await;
    assert_eq!(site.deliver().await, Err(NotTaken::Refused("it answered 307".into())));
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_for_what_is_critical_gets_that_alone_and_waits_for_nothing() {
    let port = free_port();
    let site = Site::new(&(hook_words("hook", port) + "least = \"critical\"\n"));
    let (heard, _hook) = webhook(port, StatusCode::OK).await;
    let time = Virtual::at(NOW);
    let at = tokio::task::block_in_place(|| open(site.folder.path()));
    let queues = site.start(&at, &time);
    let counts =
        vec![(key(Code::CloudForged, 1), 5), (key(Code::CloudNonceReuse, 2), 1), (key(Code::PivNotMinimal, 3), 1)];
    tokio::task::block_in_place(|| at.store().commit_now(Write { now: NOW, counts, ..Write::default() }).unwrap());
    for _ in 0..500 {
        time.pass(1_000).await;
        if at.read(|r| r.alarm_sinks()).unwrap()[0].waiting == 0 {
            break;
        }
    }
    let critical = alarms(&at).into_iter().find(|row| row.alarm.severity == Severity::Critical).unwrap();
    assert_eq!((*heard.lock().unwrap()).clone(), [critical.id().to_string()]);
    assert_eq!(at.read(|r| r.alarm_sinks()).unwrap()[0].waiting, 0);
    kill(queues, at).await;
}

#[tokio::test]
async fn a_mail_goes_by_tls_or_not_at_all() {
    for (manner, says) in [
        (Manner::StartTls, None),
        (Manner::NoTls, Some("offers no STARTTLS")),
        (Manner::GoesOn, Some("went on in clear text")),
    ] {
        let port = free_port();
        let site = Site::new(&mail_words("mail", "smtp", port, ""));
        let (mails, _server) = mail_server(port, mail_tls(site.folder.path()), manner).await;
        match (site.deliver().await, says) {
            (Ok(()), None) => assert_eq!(*mails.ids.lock().unwrap(), [alarm().id().to_string()]),
            (Err(NotTaken::Away(said)), Some(says)) => assert!(said.contains(says), "{said}"),
            (other, _) => panic!("{other:?}"),
        }
        let clear = mails.clear.lock().unwrap().clone();
        assert!(clear.iter().all(|l| l == "STARTTLS" || l == "EHLO farm.example"), "{clear:?}");
    }
    // The certificate of another CA.
    let port = free_port();
    let site = Site::new(&mail_words("mail", "smtps", port, ""));
    let elsewhere = tempfile::tempdir().unwrap();
    let (mails, _server) = mail_server(port, mail_tls(elsewhere.path()), Manner::Smtps).await;
    mail_tls(site.folder.path());
    assert!(matches!(site.deliver().await, Err(NotTaken::Away(_))));
    assert!(mails.ids.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_refused_for_good_keeps_the_alarm_from_no_other_and_one_for_now_is_told_later() {
    let port = free_port();
    let site = Site::new(&mail_words("mail", "smtps", port, ", \"gone@farm.example\""));
    let tls = mail_tls(site.folder.path());
    let (mails, server) = mail_server(port, tls.clone(), Manner::OneReceiver).await;
    assert_eq!(site.deliver().await, Ok(()));
    let text = mails.texts.lock().unwrap()[0].clone();
    assert!(text.contains("E3-06 (critical): NONCE-REUSE") && text.contains("\r\ndevice 0a17\r\n"), "{text}");
    server.abort();
    let _ = server.await;
    let (mails, _server) = mail_server(port, tls, Manner::Greylists).await;
    assert_eq!(site.deliver().await, Err(NotTaken::Refused("the mail server answered 450 later".into())));
    assert!(mails.ids.lock().unwrap().is_empty());
}
