//! Uplink events of LoRaWAN network servers: read or refused by name, and never more than a frame can hold. The first byte says
//! which server, the first line is the topic.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parsers alone, without the daemon that they stand in.
#[path = "../../gateway/src/lorawan/event.rs"]
mod event;
#[allow(dead_code, reason = "what a session shows of it is the session's")]
#[path = "../../gateway/src/lorawan/uplink.rs"]
mod uplink;

use fivefold_core::error::Code;
use uplink::{Application, NetworkServer, PAYLOAD};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let server = NetworkServer::ALL[usize::from(first & 1)];
    let application: Application = "a@b".parse().expect("an application");
    assert!(!event::filter(server, &application).is_empty());
    let (topic, body) = match rest.iter().position(|b| *b == b'\n') {
        Some(at) => (String::from_utf8_lossy(&rest[..at]).into_owned(), &rest[at + 1..]),
        // Without one, the topic of a device: what is inside is looked at all the same.
        None if server == NetworkServer::ChirpStack => {
            ("application/a@b/device/0101010101010101/event/up".into(), rest)
        }
        None => ("v3/a@b/devices/d/up".into(), rest),
    };
    match event::read(server, &application, &topic, body) {
        Ok(up) => {
            assert!(up.bytes.len() <= PAYLOAD && body.len() <= event::LONGEST);
            assert!(topic.split('/').any(|level| level == &*up.device));
        }
        Err(rejected) => assert_eq!(rejected.code, Code::TinyMalformed),
    }
});
