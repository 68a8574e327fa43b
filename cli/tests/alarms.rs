//! Alarms of a running cloud: a kill while the sink is away loses none, and the operator sees what waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use farm::{Daemon, Farm, fivefold, refused, says};
use serde_json::Value;

/// Looks until there is something.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never {what}");
}

/// A webhook: says the id of each alarm that it takes, with its code and whether it is signed.
fn webhook(listener: TcpListener) -> Receiver<(String, String, bool)> {
    let (say, heard) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.unwrap());
            let (mut length, mut signed) = (0, false);
            loop {
                let mut line = String::new();
                if socket.read_line(&mut line).unwrap() <= 2 {
                    break;
                }
                let (name, value) = line.trim_end().split_once(": ").unwrap_or((line.trim_end(), ""));
                match &*name.to_ascii_lowercase() {
                    "content-length" => length = value.parse().unwrap(),
                    "fivefold-signature" => signed = value.starts_with("t=") && value.contains(",v1="),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            socket.read_exact(&mut body).unwrap();
            let alarm: Value = serde_json::from_slice(&body).unwrap();
            let word = |key: &str| alarm[key].as_str().unwrap().to_owned();
            say.send((word("id"), word("code"), signed)).unwrap();
            socket.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    heard
}

/// A stranger at the door of gateways, so often.
fn knock(farm: &Farm, times: u32) {
    for _ in 0..times {
        let mut socket = until("a cloud that listens", || TcpStream::connect(farm.ingest).ok());
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_cloud_that_is_killed_while_its_sink_is_away_brings_the_alarm_when_both_are_back() {
    let farm = Farm::new();
    let (dir, token) = (farm.path(""), farm.token.display().to_string());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = farm.path("cloud/cloud.toml");
    let sink = format!("\n[[alarm.sink]]\nname = \"ops\"\nwebhook = \"http://127.0.0.1:{port}/\"\n");
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + &sink).unwrap();

    // Without its secret the cloud does not start, and says what to type.
    says(&refused(&farm.cloud()), &["alarm sink ops has no secret", "fivefold alarm add-secret ops"]);
    let add = |name: &str, more: &[&str]| {
        [&["alarm", "add-secret", "--dir", &dir, name], more]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    says(&refused(&add("opps", &["--draw"])), &["no sink \"opps\"", "ops"]);
    let mut short = fivefold(&["alarm", "add-secret", "--dir", &dir, "ops"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    short.stdin.take().unwrap().write_all(b"hush\n").unwrap();
    assert_eq!(short.wait().unwrap().code(), Some(2));
    let drawn = farm::answer(&["alarm", "add-secret", "--dir", &dir, "ops", "--draw"]);
    let secret = drawn["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 64);
    let log = farm::answer(&["operator", "log", "--dir", &dir]).to_string();
    assert!(log.contains("alarm secret sealed") && log.contains("sink ops"), "{log}");
    assert!(!log.contains(secret), "a secret in the operator's log");
    let sealed = fs::read(farm.path("cloud/alarm-ops.sealed")).unwrap();
    assert!(!sealed.windows(secret.len()).any(|w| w == secret.as_bytes()));

    let list = || {
        let done = fivefold(&["alarm", "list", "--dir", &dir, "--token-file", &token]).output().unwrap();
        (done.status.code(), serde_json::from_slice::<Value>(&done.stdout).unwrap_or_default())
    };
    let mut cloud = Daemon::start(&farm.cloud(), 0);
    knock(&farm, 2);
    assert_eq!(
        until("an answer", || Some(list().1).filter(Value::is_object))["alarms"],
        serde_json::json!([]),
        "two of three"
    );
    knock(&farm, 1);
    let (code, answer) = until("an alarm that waits", || Some(list()).filter(|(code, _)| *code == Some(1)));
    assert_eq!((code, answer["alarms"].as_array().unwrap().len()), (Some(1), 1), "{answer}");
    let alarm = &answer["alarms"][0];
    assert_eq!((alarm["code"].as_str(), alarm["severity"].as_str()), (Some("E4-01"), Some("high")));
    assert_eq!(answer["sinks"][0]["waiting"], 1);
    cloud.0.kill().unwrap();
    cloud.0.wait().unwrap();

    let heard = webhook(TcpListener::bind(("127.0.0.1", port)).unwrap());
    let _cloud = Daemon::start(&farm.cloud(), 0);
    let came = heard.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(came, (alarm["id"].as_str().unwrap().to_owned(), "E4-01".to_owned(), true));
    until("nothing that waits", || Some(list()).filter(|(code, l)| *code == Some(0) && l["sinks"][0]["waiting"] == 0));
    assert!(heard.try_recv().is_err(), "once");

    // A test goes past the queue.
    let tried = farm::answer(&["alarm", "test", "--dir", &dir]);
    assert_eq!(tried["sinks"][0]["taken"], true);
    let test = heard.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!((test.0.as_str(), &*test.1), (tried["id"].as_str().unwrap(), "test"));
    says(&refused(&["alarm", "test", "--dir", &dir, "nobody"].map(str::to_owned)), &["no sink \"nobody\""]);
}
