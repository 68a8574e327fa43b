//! Values of classic frames at a real broker (Debian's mosquitto): in order, at least once, and nothing lost while it is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;
mod mosquitto;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use common::classic::{SERIAL, binary, envelope, report};
use common::{Gateway, NOW};
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::meshlium::{self, MeshliumMqtt};
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_keep::registry::{NewClassic, Registry};
use fivefold_keep::share::CloudMeshliumMqtt;
use fivefold_keep::vault::Vault;
use mosquitto::{Heard, Mosquitto, subscribe};

/// Ids of rows in the order in which they were first heard, once there are so many.
async fn ids(heard: &Heard, count: usize) -> Vec<i64> {
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let mut ids: Vec<i64> = Vec::new();
        for (_, message) in heard.lock().unwrap().iter() {
            let id = message["id"].as_str().unwrap().parse().unwrap();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if ids.len() >= count {
            return ids;
        }
        assert!(tokio::time::Instant::now() < until, "{ids:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bring(service: &Arc<Service>, gateway: &mut Gateway, sequence: u8) {
    let at = Millis(NOW.0 + u64::from(sequence) * 60_000);
    let said = report(&binary(SERIAL, "node_01", sequence, &[52, sequence]), None);
    let body = gateway.batch(&[envelope(SERIAL, &said, at)]);
    service.ingest(&gateway.proven, &body, at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_reaches_the_broker_in_its_order_also_when_it_was_away() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vault = Vault::create(folder.path()).unwrap();
    let mut book = Registry::create(
        &folder.path().join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let net = book.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
    book.allow_classic("n").unwrap();
    book.add_classic(&vault, &NewClassic::plain(SERIAL.parse().unwrap(), net), 1).unwrap();
    let mut gateway = Gateway::new(net, 1);
    book.add_gateway(&gateway.registered()).unwrap();
    drop(book);
    let registered = gateway.registered();
    let vault = Arc::new(vault);
    let open_now = || {
        let store = Store::open(&folder.path().join("readings.db")).unwrap();
        let registry = folder.path().join("registry.db");
        let service = Service::open(store, registry, vault.clone(), RenewalSettings::default(), NOW).unwrap();
        // Of certificates the registry knows nothing here.
        service.cloud.replace_book(service.cloud.book().with_gateways(vec![registered.clone()], Vec::new()));
        Arc::new(service)
    };
    let open = || tokio::task::block_in_place(open_now);
    let words = CloudMeshliumMqtt {
        insecure_mqtt: true,
        name: "farm".into(),
        ..CloudMeshliumMqtt::at(&format!("mqtt://127.0.0.1:{port}"))
    };
    let config = MeshliumMqtt::check(&words, folder.path()).unwrap();
    let publish = |service: &Arc<Service>| {
        tokio::spawn(meshlium::run(service.clone(), config.clone(), config.prepare().unwrap()))
    };

    // Stored before there is a broker.
    let service = open();
    bring(&service, &mut gateway, 0).await;
    let publisher = publish(&service);
    bring(&service, &mut gateway, 1).await;
    publisher.abort();
    let broker = Mosquitto::start(folder.path(), port);
    let (heard, subscriber) = subscribe(port, "farm/#").await;
    let publisher = publish(&service);
    bring(&service, &mut gateway, 2).await;
    assert_eq!(ids(&heard, 3).await, [1, 2, 3]);
    let (topic, message) = heard.lock().unwrap()[2].clone();
    assert_eq!(topic, "farm/BAT");
    assert_eq!(
        message,
        serde_json::json!({ "id": "3", "id_wasp": "node_01", "id_secret": "111FFD1B3E500F56", "sensor": "BAT", "value": "2",
            "datetime": "2026-09-21T14:15:20+00:00", "proven": "plain" })
    );

    // While it is away.
    broker.end();
    for n in 3..6 {
        bring(&service, &mut gateway, n).await;
    }
    let broker = Mosquitto::start(folder.path(), port);
    assert_eq!(ids(&heard, 6).await, [1, 2, 3, 4, 5, 6]);

    // After a restart of the cloud it goes on where it was.
    let cursor = |service: &Arc<Service>| service.cloud.memory().read(|r| r.to_be_published(10)).unwrap().len();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while cursor(&service) > 0 {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publisher.abort();
    let _ = publisher.await;
    let before = heard.lock().unwrap().len();
    drop(service);
    let service = open();
    let publisher = publish(&service);
    bring(&service, &mut gateway, 6).await;
    assert_eq!(ids(&heard, 7).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(heard.lock().unwrap().len(), before + 1, "nothing twice that was acknowledged");
    publisher.abort();
    subscriber.abort();
    broker.end();
}
