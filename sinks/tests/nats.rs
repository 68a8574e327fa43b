//! JetStream at the real nats-server, and servers that do what they like.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{all_in_order, bring, free_port, reading, readings, sink};
use fivefold_core::e4_channel::Origin;
use fivefold_sinks::{About, Answer, Outbound, Scalar, Sink, Verdict};
use serde_json::json;
use servers::{Jetstream, nats};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn jetstream(folder: &Path, port: u16) -> Box<dyn Sink> {
    sink(folder, &format!("name = \"n\"\nnats = \"nats://127.0.0.1:{port}\"\nstream = \"FARM\""), None)
}

fn big(device: u8, number: u64) -> Outbound {
    let mut reading = reading(device, number);
    reading.values[3].value = Some(Scalar::Text("x".repeat(5000)));
    reading
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_is_in_the_stream_in_its_order_also_when_the_server_was_killed_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut to = jetstream(folder.path(), port);
    let sent = tokio::spawn(async move { bring(&mut *to, &readings(3, 1500)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let running = nats(folder.path(), port, "");
    let mut client = Jetstream::connect(port);
    client.stream(&[]);
    while client.count() < 500 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(running);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _running = nats(folder.path(), port, "");
    assert!(sent.await.unwrap().is_empty());
    let messages = Jetstream::connect(port).messages(1);
    let heard: Vec<_> = messages
        .iter()
        .map(|(subject, headers, message)| {
            let device = message["device"].as_str().unwrap().to_owned();
            assert_eq!(*subject, format!("fivefold.00000007.{device}"));
            for header in [format!("Nats-Msg-Id: {}", message["id"].as_str().unwrap()), "Fivefold-Proof: node".into()] {
                assert!(headers.contains(&header), "{headers}");
            }
            assert_eq!((&message["proof"], &message["e1"]), (&json!("node"), &json!("mac-ccm")));
            (device, message["number"].as_u64().unwrap())
        })
        .collect();
    all_in_order(&heard, 3, 1500);
}

#[tokio::test]
async fn what_comes_twice_is_kept_once_and_a_new_label_is_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = nats(folder.path(), port, "");
    let mut client = Jetstream::connect(port);
    client.stream(&[]);
    let batch = readings(2, 3);
    for _ in 0..2 {
        // As after a crash: a connection of its own.
        let again = tempfile::tempdir().unwrap();
        assert!(bring(&mut *jetstream(again.path(), port), &batch).await.is_empty());
    }
    assert_eq!(client.count(), 6);
    let signed = Outbound { about: About::Label, proof: Origin::Signed, ..(*batch[0]).clone() };
    bring(&mut *jetstream(folder.path(), port), &[Arc::new(signed)]).await;
    let (_, _, last) = client.messages(1).pop().unwrap();
    assert_eq!((&last["id"], &last["proof"], &last["about"]), (&json!(batch[0].id), &json!("signed"), &json!("label")));
}

#[tokio::test]
async fn a_stream_that_is_missing_or_full_is_waited_for_and_what_is_too_large_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = nats(folder.path(), port, "max_payload: 20000\n");
    let mut to = jetstream(folder.path(), port);
    let batch = readings(2, 2);
    let said = |answer: Answer| match answer {
        Answer::Each(verdicts) => verdicts,
        other => panic!("{other:?}"),
    };
    let verdicts = said(to.send(&batch).await);
    let whys = ["no stream", "no stream", "an earlier one", "an earlier one"];
    let is_why = |(v, why): (&Verdict, &str)| matches!(v, Verdict::Retry(said) if said.contains(why));
    assert!(verdicts.len() == 4 && verdicts.iter().zip(whys).all(is_why), "in order of each device: {verdicts:?}");
    let mut client = Jetstream::connect(port);
    client.stream(&[("max_msgs", json!(3)), ("discard", json!("new")), ("max_msg_size", json!(4000))]);
    let verdicts = said(to.send(&batch).await);
    assert!(
        matches!(&verdicts[..], [Verdict::Done, Verdict::Done, Verdict::Done, Verdict::Retry(said)] if said.contains("maximum"))
    );
    let answer = client.ask(
        "STREAM.UPDATE.FARM",
        &json!({ "name": "FARM", "subjects": ["fivefold.>"], "storage": "file", "max_msg_size": 4000 }),
    );
    assert!(answer["error"].is_null(), "{answer}");
    // Too large for the stream, and for the server, which would hang up.
    let mut huge = big(2, 8);
    huge.values[3].value = Some(Scalar::Text("x".repeat(50_000)));
    let batch = [reading(1, 7), big(1, 8), huge, reading(1, 9)].map(Arc::new);
    let dead = bring(&mut *to, &batch).await;
    let places: Vec<_> = dead.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [1, 2], "{dead:?}");
    assert!(dead[0].1.contains("exceeds") && dead[1].1.contains("the server takes 20000"), "{dead:?}");
    assert_eq!(client.count(), 5);
}

#[tokio::test]
async fn who_has_no_password_or_no_tls_gets_a_sentence_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, private) = (folder.path().join("ca.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {private:?} }}\n");
    let login = "authorization { user: fivefold, password: right }\n";
    let _running = nats(folder.path(), port, &[&*tls, login].concat());
    let clear = tempfile::tempdir().unwrap();
    let answer = jetstream(clear.path(), port).send(&readings(1, 1)).await;
    assert!(matches!(&answer, Answer::Away { said, .. } if said.contains("tls://")), "{answer:?}");
    let words = format!(
        "name = \"n\"\nnats = \"tls://localhost:{port}\"\nca_file = {certificate:?}\nusername = \"fivefold\"\nstream = \"FARM\""
    );
    let wrong = tempfile::tempdir().unwrap();
    let answer = sink(wrong.path(), &words, Some(b"wrong")).send(&readings(1, 1)).await;
    assert!(matches!(&answer, Answer::Away { said, .. } if said.contains("Authorization Violation")), "{answer:?}");
    assert!(!format!("{answer:?}").contains("wrong"));
    // It is let in, and there is no stream.
    let answer = sink(folder.path(), &words, Some(b"right")).send(&readings(1, 1)).await;
    assert!(matches!(&answer, Answer::Each(v) if matches!(v[..], [Verdict::Retry(_)])), "{answer:?}");
}

/// Stands between, and says in clear text that the server takes one byte.
async fn between(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let mut hello = Vec::new();
            while hello.last() != Some(&b'\n') {
                hello.push(server.read_u8().await.unwrap());
            }
            let hello = String::from_utf8(hello).unwrap();
            let said = hello.replace("\"max_payload\":20000", "\"max_payload\":1");
            assert_ne!(hello, said);
            client.write_all(said.as_bytes()).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    between
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_the_server_says_and_nobody_who_stands_between() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, private) = (folder.path().join("ca.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
    let running = nats(folder.path(), port, "");
    Jetstream::connect(port).stream(&[]);
    drop(running);
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {private:?} }}\nmax_payload: 20000\n");
    let running = nats(folder.path(), port, &tls);
    let at = between(port).await;
    let words = format!("name = \"n\"\nnats = \"tls://localhost:{at}\"\nca_file = {certificate:?}\nstream = \"FARM\"");
    let mut huge = big(2, 8);
    huge.values[3].value = Some(Scalar::Text("x".repeat(50_000)));
    let batch = [reading(1, 7), big(1, 8), huge, reading(1, 9), reading(2, 9)].map(Arc::new);
    let dead = bring(&mut *sink(folder.path(), &words, None), &batch).await;
    assert!(matches!(&dead[..], [(2, said)] if said.contains("Maximum Payload Violation")), "{dead:?}");
    drop(running);
    let _running = nats(folder.path(), port, "");
    assert_eq!(Jetstream::connect(port).count(), 4);
}

/// A server that says this, one piece at each thing that it hears, and then nothing or goodbye.
async fn hostile(pieces: &'static [&'static str], goodbye: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 65536];
                for (n, piece) in pieces.iter().enumerate() {
                    if n > 0 && socket.read(&mut heard).await.is_err() {
                        return;
                    }
                    // Its inbox, where a piece asks for it.
                    let text = String::from_utf8_lossy(&heard).into_owned();
                    let inbox = text.split("_INBOX.").nth(1).and_then(|rest| rest.split(['.', ' ']).next());
                    let piece = piece.replace("INBOX", &format!("_INBOX.{}", inbox.unwrap_or_default()));
                    let _ = socket.write_all(piece.as_bytes()).await;
                }
                if !goodbye {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn whatever_a_server_says_nothing_counts_as_kept_that_is_not() {
    const HELLO: &str = "INFO {\"headers\":true,\"max_payload\":1048576}\r\n";
    let cases: &[(&'static [&'static str], bool, &str)] = &[
        (&[], true, ""),
        (&["HTTP/1.1 400 Bad Request\r\n\r\n"], true, "does not speak NATS"),
        (&["PING\r\n"], true, "does not begin"),
        (&["INFO {\"max_payload\":1}\r\n"], true, "no headers"),
        (&[HELLO], true, "closes"),
        (&[HELLO, "-ERR\r\n"], true, "it says"),
        (&[HELLO, "PONG\r\n", "-ERR 'Permissions Violation'\r\n"], true, "Permissions"),
        (&[HELLO, "PONG\r\n"], true, "closes"),
        (&[HELLO, "PONG\r\n", "MSG a 1 99999999999\r\n"], true, "99999999999"),
        (&[HELLO, "PONG\r\n", "MSG a 1 18446744073709551615\r\n"], true, "announces"),
        // It acknowledges what was not sent, and then never.
        (&[HELLO, "PONG\r\n", "MSG INBOX.7 1 25\r\n{\"stream\":\"FARM\",\"seq\":1}\r\nPING\r\n"], false, "no answer"),
        (&[HELLO, "PONG\r\n"], false, "no answer"),
        (&[HELLO], false, "no answer"),
        (&[], false, "no answer"),
    ];
    for (pieces, goodbye, says) in cases {
        let port = hostile(pieces, *goodbye).await;
        let folder = tempfile::tempdir().unwrap();
        let mut to = jetstream(folder.path(), port);
        let batch = readings(1, 2);
        for _ in 0..2 {
            let answer = tokio::time::timeout(Duration::from_millis(300), to.send(&batch)).await;
            let answer = answer.unwrap_or_else(|_| Answer::away("no answer"));
            assert!(matches!(&answer, Answer::Away { said, .. } if said.contains(says)), "{pieces:?}: {answer:?}");
        }
    }
    // Whoever answers without being a stream.
    let port = hostile(&[HELLO, "PONG\r\n", "MSG INBOX.0 1 3\r\n+OK\r\n"], false).await;
    let folder = tempfile::tempdir().unwrap();
    let answer = jetstream(folder.path(), port).send(&readings(1, 1)).await;
    assert_eq!(answer, Answer::Each(vec![Verdict::Retry("what answers is no JetStream".into())]));
}
