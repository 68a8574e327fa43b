//! `fivefold why`, as it is typed, at a running cloud and gateway that refused something.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod farm;

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold, refused, says};
use fivefold_core::error::Code;
use fivefold_core::why::FrameId;
use fivefold_core::wire::ieee802154::append_fcs;
use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};
use serde_json::Value;

/// What the command answers, once it knows something.
fn why(what: &str, more: &[&str]) -> Value {
    for _ in 0..100 {
        let done = fivefold(&[&["why", what][..], more].concat()).output().unwrap();
        if done.status.success() {
            return serde_json::from_slice(&done.stdout).unwrap();
        }
        assert!(matches!(done.status.code(), Some(1 | 2)), "{}", String::from_utf8_lossy(&done.stderr));
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} is not explained");
}

fn only(answer: &Value) -> &Value {
    let refusals = answer["refusals"].as_array().unwrap();
    assert_eq!(refusals.len(), 1, "{answer}");
    &refusals[0]
}

/// A frame of this network from a short id, under a key index and a level.
fn frame(pan: u16, from: u16, index: u8, control: u8) -> Vec<u8> {
    let [pan_low, pan_high] = pan.to_le_bytes();
    let [from_low, from_high] = from.to_le_bytes();
    let header = [0x49, 0x98, 7, pan_low, pan_high, 1, 0, from_low, from_high, control, 5, 0, 0, 0, index];
    let mut frame = [&header[..], &[0x5A; 20], &[0; 2]].concat();
    let len = frame.len() - 2;
    append_fcs(&mut frame, len).unwrap();
    frame
}

#[test]
fn refused_frames_are_explained_by_their_bytes_by_a_capture_and_by_their_id() {
    let farm = Farm::new();
    let gateway = farm.path("gateways/north");
    let capture = farm.folder.path().join("heard.pcapng").display().to_string();
    let words = ["why", "--dir", &gateway].map(str::to_owned);
    let never_ran = Command::new(env!("CARGO_BIN_EXE_fivefold")).args(&words).output().unwrap();
    assert_eq!(never_ran.status.code(), Some(1), "{never_ran:?}");
    let cloud = Daemon::start(&farm.cloud(), 0);
    let run = [&farm.gateway()[..], &["--pcap".to_owned(), capture.clone()]].concat();
    let north = Daemon::start(&run, 0);
    let nets = answer(&["network", "list", "--dir", &farm.path("")]);
    let one = nets.as_array().unwrap().iter().find(|n| n["name"] == "one").unwrap();
    let pan = u16::from_str_radix(one["pan"].as_str().unwrap(), 16).unwrap();
    let good = frame(pan, 0x0fff, 1, 0x0E);
    let unsecured = [&[0x41][..], &good[1..good.len() - 2]].concat();
    let cases = [
        (frame(pan ^ 1, 0x0fff, 1, 0x0E), "E1-02", "PAN"),
        (frame(pan, 0x0fff, 1, 0x0D), "E1-03", "level 5"),
        (frame(pan, 0x0fff, 99, 0x0E), "E1-04", "index 99"),
        (good, "E1-08", "short id 0fff"),
        (b"no frame at all".to_vec(), "E1-11", "15 bytes"),
    ];
    let air = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |frame: &[u8]| {
        let mut out = [0; MAX_DATAGRAM];
        let len = Zep { channel: 26, device: 9, lqi: 200, time: [0; 8], sequence: 1, frame }.emit(&mut out).unwrap();
        air.send_to(&out[..len], farm.radio).unwrap();
    };
    // Until the gateway listens.
    let first = hex::encode(&cases[0].0);
    for _ in 0..100 {
        send(&cases[0].0);
        std::thread::sleep(Duration::from_millis(100));
        if fivefold(&["why", &first, "--dir", &gateway]).output().unwrap().status.success() {
            break;
        }
    }
    let mut whole = [&unsecured[..], &[0; 2]].concat();
    append_fcs(&mut whole, unsecured.len()).unwrap();
    send(&whole);
    cases.iter().skip(1).for_each(|(frame, ..)| send(frame));
    for (frame, code, came) in cases.iter().skip(1) {
        let said = why(&hex::encode(frame), &["--dir", &gateway]);
        let refusal = only(&said);
        assert_eq!(refusal["code"], *code, "{refusal}");
        assert_eq!(refusal["id"], FrameId::of(frame).to_string());
        says(refusal["came"].as_str().unwrap(), &[came]);
        let about = code.parse::<Code>().unwrap().about();
        assert_eq!((&refusal["check"], &refusal["advice"]), (&about.check.into(), &about.advice.into()));
        // By its id it is the same.
        assert_eq!(why(refusal["id"].as_str().unwrap(), &["--dir", &gateway]), said);
    }
    // As a sniffer writes it that leaves out the check sequence.
    assert_eq!(only(&why(&hex::encode(&unsecured), &["--dir", &gateway]))["code"], "E1-01");
    // By the capture: all of them.
    let all = why(&capture, &["--dir", &gateway]);
    for (_, code, _) in &cases {
        assert!(all["refusals"].as_array().unwrap().iter().any(|r| r["code"] == *code), "{code}: {all}");
    }
    drop(north);
    assert_eq!(why(&first, &["--dir", &gateway])["refusals"][0]["code"], "E1-02", "with the gateway stopped too");

    // The cloud: somebody at its door without a certificate.
    let (dir, token) = (farm.path(""), farm.token.display().to_string());
    let ask = ["--dir", &dir, "--token-file", &token];
    let knock = ["s_client", "-brief", "-connect", &farm.ingest.to_string()].map(str::to_owned);
    let knocked = std::time::Instant::now();
    let _ = Command::new("openssl").args(knock).stdin(std::process::Stdio::null()).output().unwrap();
    // Which of both it is, its openssl decides: no hybrid group, or no certificate.
    let mut codes = ["E4-01", "E4-07"].into_iter().cycle();
    let refusal = loop {
        let code = codes.next().unwrap();
        let said = why(code, &ask);
        assert_eq!(said["code"]["advice"], code.parse::<Code>().unwrap().about().advice);
        if let Some(refusal) = said["refusals"].get(0) {
            break refusal.clone();
        }
        assert!(knocked.elapsed() < Duration::from_secs(20), "the cloud explains nothing");
    };
    assert_eq!(only(&why(refusal["id"].as_str().unwrap(), &ask)), &refusal);
    drop(cloud);
}

#[test]
fn a_code_is_explained_without_anybody_and_a_mistake_in_one_sentence() {
    let nowhere = tempfile::tempdir().unwrap();
    let dir = nowhere.path().display().to_string();
    for code in Code::ALL {
        let mut command = fivefold(&["why", code.as_str(), "--dir", &dir]);
        let done = command.env_remove("FIVEFOLD_TOKEN").output().unwrap();
        assert!(done.status.success(), "{code}");
        let said: Value = serde_json::from_slice(&done.stdout).unwrap();
        for word in ["check", "expected", "came", "advice", "condition", "severity"] {
            assert!(!said["code"][word].as_str().unwrap().is_empty(), "{code}: {word}");
        }
    }
    let words = |what: &str| ["why", what, "--dir", &dir].map(str::to_owned);
    says(&refused(&words("E9-99")), &["E9-99", "no frame in hex", "no code"]);
    says(&refused(&words("00112233445566ff")), &["token"]);
}
