//! Line protocol at the real InfluxDB.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
mod servers;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{bring, free_port, reading, readings, sink};
use fivefold_core::e4_channel::Origin;
use fivefold_sinks::{About, Answer, Outbound, Scalar, Sink};
use serde_json::{Value, json};
use servers::{column, influxd, query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn plain() -> reqwest::Client {
    let tls = fivefold_keep::tls::client_config_web(&fivefold_keep::tls::Anchor::none()).unwrap();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

fn database(folder: &Path, port: u16) -> Box<dyn Sink> {
    sink(folder, &format!("name = \"i\"\ninflux = \"http://127.0.0.1:{port}\"\ndatabase = \"farm\""), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_is_there_also_when_the_server_was_killed_in_the_middle() {
    const COUNT: &str = "SELECT count(\"value\") FROM fivefold WHERE \"name\" = 'count'";
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut to = database(folder.path(), port);
    let batch = readings(3, 1000);
    let ids: BTreeSet<String> = batch.iter().map(|r| r.id.clone()).collect();
    let sent = tokio::spawn(async move { bring(&mut *to, &batch).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let running = influxd(folder.path(), port, "");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sent.is_finished(), "there is no database yet, and that is not the readings' fault");
    query(port, "CREATE DATABASE farm");
    while column(port, COUNT).first().and_then(Value::as_u64).unwrap_or(0) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(running);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _running = influxd(folder.path(), port, "");
    assert!(sent.await.unwrap().is_empty());
    let found = column(port, "SELECT \"id\" FROM fivefold WHERE \"name\" = 'count'");
    assert_eq!(found.len(), 3000, "none is there twice");
    assert_eq!(found.iter().map(|id| id.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), ids);
    // The values of one device are in their order.
    let values =
        column(port, "SELECT \"value\" FROM fivefold WHERE \"name\" = 'count' AND device = 'acde480000000002'");
    assert!(values.iter().map(|v| v.as_f64().unwrap()).eq((1..=1000).map(f64::from)));
}

#[tokio::test]
async fn names_and_texts_come_back_as_a_device_wrote_them_with_label_and_class() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = influxd(folder.path(), port, "");
    query(port, "CREATE DATABASE farm");
    let odd = [
        "plain",
        "a b",
        "a,b",
        "a=b",
        "a\\b",
        "a\\,b",
        "a\\ b",
        "\\",
        "\"quoted\"",
        "'",
        "grün €",
        "#",
        "a,name=b x=1 7",
        "time",
        "%2C",
        "\\\\\\",
        "$",
    ];
    let batch: Vec<_> = (1..)
        .zip(odd)
        .map(|(number, name)| {
            let mut reading = reading(1, number);
            reading.values.truncate(1);
            reading.values[0].name = name.into();
            reading.values[0].value = Some(Scalar::Text(format!("{name}\n{name}")));
            Arc::new(reading)
        })
        .collect();
    assert!(bring(&mut *database(folder.path(), port), &batch).await.is_empty());
    let answer = query(port, "SELECT \"text\", proof, e1, insecure FROM fivefold GROUP BY \"name\"");
    let series = answer["results"][0]["series"].as_array().unwrap().clone();
    assert_eq!(series.len(), odd.len(), "{answer}");
    for name in odd {
        let tag = match name.strip_suffix('\\') {
            Some(start) => format!("{start}%5C"),
            None => name.to_owned(),
        };
        let of = series.iter().find(|s| s["tags"]["name"] == json!(tag)).unwrap_or_else(|| panic!("{name}: {answer}"));
        let row = &of["values"][0];
        assert_eq!(row[1], json!(format!("{name}\n{name}")));
        assert_eq!((&row[2], &row[3], &row[4]), (&json!("node"), &json!("mac-ccm"), &json!(false)));
    }
}

#[tokio::test]
async fn a_raised_label_writes_over_and_what_the_database_cannot_take_is_put_aside_alone() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = influxd(folder.path(), port, "");
    let mut to = database(folder.path(), port);
    let away = to.send(&readings(1, 1)).await;
    assert!(matches!(&away, Answer::Away { said, .. } if said.contains("database not found")), "{away:?}");
    query(port, "CREATE DATABASE farm");
    let first = readings(1, 2);
    bring(&mut *to, &first).await;
    let signed = Outbound { about: About::Label, proof: Origin::Signed, ..(*first[0]).clone() };
    bring(&mut *to, &[Arc::new(signed)]).await;
    let labels = column(port, "SELECT proof FROM fivefold WHERE \"name\" = 'temperature'");
    assert_eq!(labels, [json!("signed"), json!("node")]);
    // Somebody has put texts where our truths belong.
    let conflict = format!("http://127.0.0.1:{port}/write?db=farm");
    query(port, "DROP MEASUREMENT fivefold");
    let client = plain();
    assert_eq!(
        client.post(conflict).body("fivefold bool=\"text\" 1790000000000000000").send().await.unwrap().status(),
        204
    );
    let mut batch: Vec<_> = (1..=20).map(|n| reading(1, n)).collect();
    for reading in &mut batch {
        reading.values.remove(1);
    }
    batch[13] = reading(1, 14);
    let batch: Vec<_> = batch.into_iter().map(Arc::new).collect();
    let dead = bring(&mut *to, &batch).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].0 == 13 && dead[0].1.contains("field type conflict"), "{dead:?}");
    let found = column(port, "SELECT \"value\" FROM fivefold WHERE \"name\" = 'count'");
    assert!(found.len() >= 19, "{found:?}");
}

#[tokio::test]
async fn passwords_and_tokens_are_sent_as_each_version_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = influxd(folder.path(), port, "auth-enabled = true\n");
    query(port, "CREATE USER fivefold WITH PASSWORD 'right' WITH ALL PRIVILEGES");
    let create = format!("http://127.0.0.1:{port}/query?u=fivefold&p=right&q=CREATE%20DATABASE%20farm");
    assert_eq!(plain().post(create).send().await.unwrap().status(), 200);
    let words =
        format!("name = \"i\"\ninflux = \"http://127.0.0.1:{port}\"\ndatabase = \"farm\"\nusername = \"fivefold\"");
    let wrong = sink(tempfile::tempdir().unwrap().path(), &words, Some(b"wrong")).send(&readings(1, 1)).await;
    assert!(matches!(&wrong, Answer::Away { said, .. } if said.contains("401")), "{wrong:?}");
    let right = sink(folder.path(), &words, Some(b"right")).send(&readings(1, 1)).await;
    assert_eq!(right, Answer::Taken);

    // Debian has no version 2: what one would hear.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        let length = socket.read(&mut bytes).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    });
    let words =
        format!("name = \"i\"\ninflux = \"http://127.0.0.1:{port}/behind\"\norganisation = \"a b\"\nbucket = \"r&s\"");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(sink(folder.path(), &words, Some(b"t0ken")).send(&readings(1, 1)).await, Answer::Taken);
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("POST /behind/api/v2/write?org=a+b&bucket=r%26s&precision=ns HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("authorization: Token t0ken\r\n"), "{heard}");
}
