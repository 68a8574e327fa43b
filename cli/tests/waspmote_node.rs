//! `fivefold node waspmote` sends what the vendor's library would, over HTTP as a 4G module does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fivefold_waspmote::hardened::{Key, Sealed};
use fivefold_waspmote::{ClassicKey, Frame, KeyBits, Sensors, Table};
use serde_json::Value;

const SERIAL: &str = "111ffd1b3e500f56";

/// Takes so many frames, and answers each with this status.
fn take(listener: &TcpListener, frames: usize, status: &str) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    while taken.len() < frames {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let body = loop {
            let mut some = [0; 512];
            let n = stream.read(&mut some).unwrap();
            assert!(n > 0, "the request ends early");
            request.extend_from_slice(&some[..n]);
            let text = String::from_utf8(request.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("POST /getpost_frame_parser.php HTTP/1.1\r\n"), "{head}");
            let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                break body.to_owned();
            }
        };
        taken.push(hex::decode(body.strip_prefix("frame=").unwrap()).unwrap());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).unwrap();
    }
    taken
}

fn node(to: SocketAddr, count: usize, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json", "node", "waspmote", "--http", &to.to_string(), "--every", "0.01"]);
    command.args(["--count", &count.to_string()]).args(more);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Its exit code, and what it said.
fn end(child: Child) -> (Option<i32>, Vec<Value>) {
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    (done.status.code(), said.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn its_frames_are_those_of_a_waspmote_and_its_counter_starts_at_zero_each_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for encoding in [&[][..], &["--ascii"]] {
        let child =
            node(listener.local_addr().unwrap(), 3, &[&["--serial", SERIAL, "--node-id", "dam 7"], encoding].concat());
        let frames = take(&listener, 3, "200 OK");
        let (code, said) = end(child);
        assert_eq!(code, Some(0));
        for (at, frame) in frames.iter().enumerate() {
            let Frame::Clear(clear) = Frame::parse(frame).unwrap() else { panic!() };
            assert_eq!((clear.serial.to_string(), usize::from(clear.sequence)), (SERIAL.into(), at));
            let sensors = Sensors::of(Table::Default);
            let tags: Vec<String> = clear.decode(&sensors).unwrap().fields.iter().map(|f| f.tag.to_string()).collect();
            assert_eq!(tags, ["TC", "BAT", "PRES"]);
        }
        let events: Vec<_> = said.iter().map(|line| line["event"].as_str().unwrap()).collect();
        let each = ["reading", "delivered"];
        assert_eq!(events, [&["started"][..], &each, &each, &each].concat());
        assert_eq!(said[1]["payload"], hex::encode(&frames[0]));
    }
}

#[test]
fn encrypted_frames_open_under_the_key_of_the_sketch_and_numbers_of_hardened_ones_never_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let key = file(folder.path(), "key", "FQPiKck8QtMYffXGftVZHZfZnnLPiWZp\n");
    let child = node(to, 1, &["--serial", SERIAL, "--seal", "cloud", "--key-file", &key]);
    let frame = take(&listener, 1, "200 OK").remove(0);
    assert_eq!(end(child).0, Some(0));
    let Frame::Encrypted(encrypted) = Frame::parse(&frame).unwrap() else { panic!() };
    let key = ClassicKey::from_text(b"FQPiKck8QtMYffXGftVZHZfZnnLPiWZp", KeyBits::Aes256).unwrap();
    assert_eq!(encrypted.open(&key).unwrap().clear().sequence, 0);

    let key = file(folder.path(), "hardened", &"a7".repeat(32));
    let state = folder.path().join("eeprom").display().to_string();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let hardened = ["--serial", SERIAL, "--seal", "hardened-gateway", "--key-file", &key, "--state", &state];
        let child = node(to, 2, &hardened);
        let frames = take(&listener, 2, "200 OK");
        assert_eq!(end(child).0, Some(0));
        numbers.extend(frames.iter().map(|frame| {
            let opened = Sealed::parse(frame).unwrap().open(&Key::from_bytes([0xA7; 32])).unwrap();
            opened.number().sequence
        }));
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn what_was_not_taken_is_lost_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let recorded = file(folder.path(), "frames", "3c3d3e0213ff316df95343503123d71fd9012e0125ff2001\n");
    let child = node(listener.local_addr().unwrap(), 1, &["--serial", SERIAL, "--recorded", &recorded]);
    let frames = take(&listener, 1, "503 Service Unavailable");
    let (code, said) = end(child);
    assert_eq!((code, said.last().unwrap()["event"].as_str()), (Some(1), Some("lost")));
    assert_eq!(hex::encode(&frames[0]), "3c3d3e0213ff316df95343503123d71fd9012e0125ff2001");
}
