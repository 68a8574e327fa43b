//! The webhook, to a server that checks every signature as Standard Webhooks says, and to servers that do what they like.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{all_in_order, bring, free_port, reading, readings, sink};
use fivefold_core::e4_channel::Origin;
use fivefold_core::suite::hmac_sha256;
use fivefold_sinks::{About, Answer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECRET: &[u8] = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Clone, Default)]
struct Receiver {
    events: Arc<Mutex<Vec<Value>>>,
    ids: Arc<Mutex<Vec<String>>>,
    // Answers that it gives before it says yes.
    answers: Arc<Mutex<VecDeque<Response>>>,
    // What it refuses for good, by a part of the event.
    wrong: Option<&'static str>,
}

async fn take(State(at): State<Receiver>, headers: HeaderMap, body: String) -> Response {
    let word = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, time) = (word("webhook-id"), word("webhook-timestamp"));
    let key = STANDARD.decode(&SECRET[6..]).unwrap();
    let mac = hmac_sha256(&key, &[format!("{id}.{time}.{body}").as_bytes()]);
    assert_eq!(word("webhook-signature"), format!("v1,{}", STANDARD.encode(mac)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(now - time.parse::<u64>().unwrap() < 300);
    assert_eq!(word("content-type"), "application/cloudevents-batch+json; charset=utf-8");
    at.ids.lock().unwrap().push(id);
    if let Some(answer) = at.answers.lock().unwrap().pop_front() {
        return answer;
    }
    if at.wrong.is_some_and(|wrong| body.contains(wrong)) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "number\n 7 is\u{7} cursed").into_response();
    }
    let events: Vec<Value> = serde_json::from_str(&body).unwrap();
    at.events.lock().unwrap().extend(events);
    StatusCode::NO_CONTENT.into_response()
}

async fn serve(port: u16, receiver: Receiver) -> JoinHandle<()> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    let listener = socket.listen(64).unwrap();
    let app = axum::Router::new().route("/in", axum::routing::post(take)).with_state(receiver);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

fn words(port: u16) -> String {
    format!("name = \"plant\"\nwebhook = \"http://127.0.0.1:{port}/in\"\n")
}

fn heard(receiver: &Receiver) -> Vec<(String, u64)> {
    let one = |e: &Value| (e["data"]["device"].as_str().unwrap().to_owned(), e["data"]["number"].as_u64().unwrap());
    receiver.events.lock().unwrap().iter().map(one).collect()
}

#[tokio::test]
async fn every_reading_comes_as_an_event_with_its_proof_and_its_class_of_e1() {
    let (folder, port, receiver) = (tempfile::tempdir().unwrap(), free_port(), Receiver::default());
    let _server = serve(port, receiver.clone()).await;
    let mut sink = sink(folder.path(), &words(port), Some(SECRET));
    assert_eq!(bring(&mut *sink, &readings(3, 50)).await, []);
    all_in_order(&heard(&receiver), 3, 50);
    let event = receiver.events.lock().unwrap()[0].clone();
    for (key, value) in [
        ("specversion", "1.0"),
        ("type", "fivefold.reading"),
        ("source", "urn:dev:mac:acde480000000001"),
        ("time", "2026-09-21T14:13:21.25Z"),
        ("proof", "node"),
        ("e1class", "mac-ccm"),
    ] {
        assert_eq!(event[key], value, "{key}");
    }
    assert_eq!((&event["insecure"], &event["data"]["id"]), (&Value::Bool(false), &event["id"]));
    assert_eq!(event["data"]["senml"][0]["u"], "Cel");
    // A label: an event of its own, about the same reading.
    let mut raised = reading(1, 1);
    (raised.about, raised.proof) = (About::Label, Origin::Signed);
    assert_eq!(sink.send(&[Arc::new(raised)]).await, Answer::Taken);
    let label = receiver.events.lock().unwrap().last().unwrap().clone();
    assert_eq!((&label["type"], &label["proof"]), (&"fivefold.label".into(), &"signed".into()));
    assert_ne!(label["id"], event["id"]);
    assert_eq!(label["data"]["id"], event["data"]["id"]);
}

#[tokio::test]
async fn one_that_the_receiver_refuses_is_put_aside_with_its_words_and_the_rest_arrives() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let receiver = Receiver { wrong: Some("-p-7-"), ..Receiver::default() };
    let _server = serve(port, receiver.clone()).await;
    let mut sink = sink(folder.path(), &words(port), Some(SECRET));
    let dead = bring(&mut *sink, &readings(1, 40)).await;
    assert_eq!(dead, [(6, "it answered 422: number 7 is cursed".into())]);
    assert_eq!(receiver.events.lock().unwrap().len(), 39);
}

#[tokio::test]
async fn a_receiver_without_time_gets_the_same_message_again() {
    let (folder, port, receiver) = (tempfile::tempdir().unwrap(), free_port(), Receiver::default());
    let _server = serve(port, receiver.clone()).await;
    let mut sink = sink(folder.path(), &words(port), Some(SECRET));
    let batch = [Arc::new(reading(1, 1))];
    let elsewhere = format!("http://127.0.0.1:{port}/elsewhere");
    let answers = [
        (StatusCode::SERVICE_UNAVAILABLE, "retry-after", "7".to_owned(), Some(Duration::from_secs(7))),
        (StatusCode::UNAUTHORIZED, "retry-after", "soon".into(), None),
        (StatusCode::TEMPORARY_REDIRECT, "location", elsewhere, None),
    ];
    for (status, header, value, after) in answers {
        receiver.answers.lock().unwrap().push_back((status, [(header, value)]).into_response());
        let said = format!("it answered {}", status.as_u16());
        assert_eq!(sink.send(&batch).await, Answer::Away { said, after });
    }
    assert_eq!(sink.send(&batch).await, Answer::Taken);
    let ids = receiver.ids.lock().unwrap().clone();
    assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn what_is_stopped_in_the_middle_gets_all_of_it_when_it_is_back() {
    let (folder, port, receiver) = (tempfile::tempdir().unwrap(), free_port(), Receiver::default());
    let mut sink = sink(folder.path(), &words(port), Some(SECRET));
    let all = readings(3, 100);
    let going = tokio::spawn(async move { bring(&mut *sink, &all).await });
    for _ in 0..3 {
        let server = serve(port, receiver.clone()).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        server.abort();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _server = serve(port, receiver.clone()).await;
    assert_eq!(going.await.unwrap(), []);
    all_in_order(&heard(&receiver), 3, 100);
}

#[tokio::test]
async fn a_server_that_speaks_no_http_or_ends_in_the_middle_is_away_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = sink(folder.path(), &words(listener.local_addr().unwrap().port()), Some(SECRET));
    let answers: [&[u8]; 4] =
        [b"", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200", b"HTTP/1.1 99999 no\r\ncontent-length: 0\r\n\r\n"];
    tokio::spawn(async move {
        for answer in answers.iter().cycle() {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 65536]).await;
            let _ = socket.write_all(answer).await;
        }
    });
    for _ in answers {
        let Answer::Away { said, after: None } = sink.send(&[Arc::new(reading(1, 1))]).await else { panic!("taken") };
        assert!(!said.is_empty() && !said.contains("/in"), "{said}");
    }
    // An answer without an end is not read to its end.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = common::sink(folder.path(), &words(listener.local_addr().unwrap().port()), Some(SECRET));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 65536]).await;
        let _ = socket.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 99999999999\r\n\r\n").await;
        while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let Answer::Away { said, .. } = sink.send(&[Arc::new(reading(1, 1))]).await else { panic!("taken") };
    assert!(said.starts_with("it answered 500: xxx") && said.len() < 500, "{said}");
}
