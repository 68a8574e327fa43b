//! Requests of every module, byte for byte over a raw socket, to a running gateway: answered, and each frame stored once, decoded
//! and labelled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;
mod fleet;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use deployment::fivefold;
use fivefold_waspmote::{Frame, Sensors};
use fleet::*;
use serde_json::{Value, json};

/// What the module writes, from what the vectors have of it.
fn request(case: &Value) -> String {
    let text = |key: &str| case[key].as_str();
    match (text("request_text"), text("body_text"), text("url")) {
        (Some(request), ..) => request.to_owned(),
        (None, Some(body), _) => format!(
            "POST {} HTTP/1.1\r\nHost: h\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
            text("path").unwrap(),
            text("content_type").unwrap(),
            body.len()
        ),
        (None, None, Some(url)) => format!("GET {url} HTTP/1.1\r\n\r\n"),
        _ => panic!("{case}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_modules_frame_is_answered_and_stored_once_decoded_and_labelled() {
    // An event frame says nothing of the hardware: of a v12 node, since the book knows its serial.
    const PLAIN: &str = "4281429497";
    const SEALED: &str = "21f5476add6138f6";
    const SEALED_KEY: &str = "4BM03Fz8FS6u1xfmxj8hvSlNZXsqGfLw";
    let fleet = Fleet::new(&[Node::plain(PLAIN), Node::keyed(SEALED, Holder::Gateway, SEALED_KEY)]).await;
    let folder = fleet.farm.at("farm/gateways/north");
    let vectors = vectors("http");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    let mut sent = std::collections::BTreeSet::new();
    for case in cases {
        let request = request(case);
        if let Some((_, token)) = request.split_once("Bearer ") {
            let token = token.split_once('\r').unwrap().0;
            let file = fleet.farm.path(token);
            fivefold_keep::files::write(&file, fivefold_keep::files::Readers::Owner, token.as_bytes()).unwrap();
            let known = file.display().to_string();
            fivefold(&["gateway", "token", "add", "--dir", &folder, token, "--known", &known]);
            fleet.wait_for("a token that counts", || !ask(&fleet, &request).starts_with("HTTP/1.1 401")).await;
        }
        let said = ask(&fleet, &request);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\nstatus: 200 ok\r\n"), "{}: {said}", case["module"]);
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        let length = head.rsplit_once("content-length: ").unwrap().1;
        assert_eq!((length.parse().ok(), body), (Some(body.len()), "200 ok\n"), "{}", case["module"]);
        sent.insert(case["frame_hex"].as_str().unwrap().to_owned());
    }
    // The same two frames by all modules: each is one reading, for a module sends again before it makes another.
    assert_eq!(sent.len(), 2);
    for (serial, label) in [(PLAIN, "plain"), (SEALED, "legacy")] {
        for _ in 0..1200 {
            if !fleet.readings(serial).await.is_empty() && fleet.gauge("spool_bytes") == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let readings = fleet.readings(serial).await;
        assert!(!readings.is_empty(), "{serial}: {:?}; {}", fleet.aside(serial).await, fleet.gateway.said());
        for reading in &readings {
            assert_eq!((reading["proven"].as_str(), reading["serial"].as_str()), (Some(label), Some(serial)));
            assert!(!reading["fields"].as_array().unwrap().is_empty(), "{reading}");
        }
        let fresh: Vec<_> = readings.iter().filter(|r| r["flags"] == json!([])).collect();
        assert_eq!(fresh.len(), 1, "one delivery is one reading: {readings:#?}");
    }
    let plain = fleet.readings(PLAIN).await.pop().unwrap();
    let frame = hex::decode(cases[0]["frame_hex"].as_str().unwrap()).unwrap();
    let Ok(Frame::Clear(clear)) = Frame::parse(&frame) else { panic!() };
    let sensors = Sensors::of(clear.table());
    let decoded = clear.decode(&sensors).unwrap();
    let tags: Vec<_> = decoded.fields.iter().map(|f| json!(f.tag.to_string())).collect();
    let shown: Vec<_> = plain["fields"].as_array().unwrap().iter().map(|f| f["tag"].clone()).collect();
    assert_eq!(shown, tags);
    assert_eq!(plain["sequence"], clear.sequence);
}

/// A request and all of its answer: the module closes its half, as a modem does that has nothing to add.
fn ask(fleet: &Fleet, request: &str) -> String {
    let mut stream = fleet.connect();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}
