//! Readings for tests of sinks.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fivefold_core::e4_channel::Origin;
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use fivefold_keep::share::CloudOutbox;
use fivefold_keep::vault::Vault;
use fivefold_sinks::engine::{Engine, Next, Outcome, Place, Queue};
use fivefold_sinks::{About, Answer, Outbound, Quantity, Scalar, Sink};

/// The `number`th reading of the `device`th device.
pub fn reading(device: u8, number: u64) -> Outbound {
    let did = Did([0xac, 0xde, 0x48, 0, 0, 0, 0, device]);
    let received = Millis(1_790_000_000_000 + number * 1000);
    let value = |name: &str, unit: Option<&str>, value| Quantity {
        name: name.into(),
        unit: unit.map(str::to_owned),
        value: Some(value),
        sum: None,
        time: received.0 as f64 / 1000.0,
    };
    Outbound {
        id: format!("00000007-{did}-3-1-p-{number}-0123456789abcdef"),
        about: About::Reading,
        net: Net(7),
        network: "farm".into(),
        did,
        sid: Sid(u16::from(device)),
        proof: Origin::Node,
        e1: LinkClass::MacCcm,
        insecure: false,
        conflict: false,
        freshness: "fresh",
        gateway: GatewayId(1),
        hops: Some(3),
        rssi: Some(-71),
        lqi: None,
        epoch: Epoch(1),
        bctx: None,
        number,
        received,
        ingested: received.plus(250),
        values: vec![
            value("temperature", Some("Cel"), Scalar::Float(21.5)),
            value("door", None, Scalar::Bool(true)),
            value("count", None, Scalar::Integer(number as i64)),
            value("note", None, Scalar::Text("quiet, \"calm\" = yes".into())),
        ],
        payload: vec![0x81, 0xa0],
    }
}

/// `count` readings of each of `devices` devices, in turn.
pub fn readings(devices: u8, count: u64) -> Vec<Arc<Outbound>> {
    (1..=count).flat_map(|n| (1..=devices).map(move |d| Arc::new(reading(d, n)))).collect()
}

/// A sink as `[[outbox]]` says, its secret sealed and opened again.
pub fn sink(folder: &Path, words: &str, secret: Option<&[u8]>) -> Box<dyn Sink> {
    #[derive(serde::Deserialize)]
    struct File {
        outbox: Vec<CloudOutbox>,
    }
    let file: File = toml::from_str(&format!("[[outbox]]\n{words}")).unwrap();
    let vault = Vault::create(folder).unwrap();
    let settings = fivefold_sinks::check(&file.outbox, folder).unwrap();
    if let Some(secret) = secret {
        vault.seal_file(&CloudOutbox::secret_file(folder, &file.outbox[0].name), secret).unwrap();
    }
    settings[0].prepare(&vault).unwrap()
}

/// Sends until the sink has all, or has put it aside, as the cloud does; gives up after a minute. What was put aside comes back.
pub async fn bring(sink: &mut dyn Sink, readings: &[Arc<Outbound>]) -> Vec<(usize, String)> {
    let mut engine = Engine::new(sink.most());
    let (mut at, mut dead) = (0, Vec::new());
    let started = std::time::Instant::now();
    while at < readings.len() {
        assert!(started.elapsed() < Duration::from_secs(60), "stuck at {at}");
        match engine.next(wall()) {
            Next::Load => {
                let page = readings.iter().enumerate().skip(at).take(engine.page());
                let place = |row: usize| Place { queue: Queue::Reading, row: row as i64 };
                engine.load(page.map(|(row, reading)| (place(row), (**reading).clone())));
            }
            // Who waits is tried at once, so that nothing is behind a page.
            Next::Wait(_) | Next::More => {
                // A sink that is back is tried at once: tests have no minutes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                engine.hurry();
            }
            Next::Send(batch) => {
                let sent = tokio::time::timeout(Duration::from_secs(5), sink.send(&batch)).await;
                let answer = sent.unwrap_or_else(|_| Answer::away("no answer"));
                for (place, outcome) in engine.answered(answer, wall(), 0).places {
                    at += 1;
                    if let Outcome::Dead(said) = outcome {
                        dead.push((place.row as usize, said));
                    }
                }
            }
        }
    }
    dead
}

fn wall() -> Millis {
    Millis(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// That the first of each comes in order of its device, and all of them.
#[track_caller]
pub fn all_in_order(heard: &[(String, u64)], devices: u8, count: u64) {
    let mut last = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (device, number) in heard.iter().filter(|one| seen.insert((*one).clone())) {
        let before = last.insert(device.clone(), *number).unwrap_or(0);
        assert_eq!(*number, before + 1, "{device} is not in order");
    }
    assert_eq!(seen.len() as u64, u64::from(devices) * count);
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
