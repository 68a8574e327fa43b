//! Captures that other people's code made, into a gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::e1_link::Identity;
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Sid};
use fivefold_core::key::Key;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::wire::ieee802154::append_fcs;
use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};
use fivefold_gateway::gateway::Setup;

/// The packets of a classic pcap file.
fn packets(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/../vectors/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(file[..4], [0xD4, 0xC3, 0xB2, 0xA1], "little-endian pcap");
    let mut rest = &file[24..];
    let mut all = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        all.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    all
}

#[test]
fn every_frame_of_the_802_15_4_capture_gets_its_code() {
    const CAPTURE_KEY: [u8; 16] =
        [0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF];
    fn with_its_key(boot: GatewayBoot) -> Setup {
        let made = setup(boot);
        let identity = Identity { sid: Sid(0x00F0), ..made.identity };
        Setup { keys: vec![(1, Key::new(CAPTURE_KEY))], identity, ..made }
    }
    let mut w = World::with(with_its_key);
    let neighbour = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
    w.gateway.danger_assume_synced(neighbour, Sid(2), 1, 0).unwrap();
    let codes: Vec<Code> = packets("ieee802154-ccm.pcap")
        .into_iter()
        .map(|frame| {
            let len = frame.len();
            let mut frame = [&frame[..], &[0, 0]].concat();
            append_fcs(&mut frame, len).unwrap();
            // By ZEP, as a running gateway hears it.
            let mut datagram = [0; MAX_DATAGRAM];
            let zep = Zep { channel: 26, device: 1, lqi: 99, time: [0; 8], sequence: 1, frame: &frame };
            let len = zep.emit(&mut datagram).unwrap();
            let heard = w.frame(Zep::parse(&datagram[..len]).unwrap().frame);
            assert_eq!(heard.dropped.len(), 1);
            heard.dropped[0].0
        })
        .collect();
    use Code::{LinkForged, LinkLevelTooLow, LinkMalformed, TinyMalformed};
    let expected = [
        LinkLevelTooLow,
        LinkMalformed,
        LinkLevelTooLow,
        LinkMalformed,
        LinkLevelTooLow,
        TinyMalformed,
        LinkForged,
        LinkMalformed,
    ];
    assert_eq!(codes, expected);
    assert!(w.stored().is_empty());
}

#[test]
fn requests_of_the_oscore_captures_are_unknown_kids() {
    for name in ["oscore-loopback.pcap", "oscore-aes256-loopback.pcap"] {
        let mut w = World::of(&[]);
        let mut refused = 0;
        for packet in packets(name) {
            // Behind whatever link header the capture has: an IPv6 packet of UDP that ends where the frame does.
            let ip = (0..packet.len() - 48).find(|&i| {
                let len = u16::from_be_bytes([packet[i + 4], packet[i + 5]]);
                packet[i] >> 4 == 6 && packet[i + 6] == 17 && packet.len() - i == 40 + usize::from(len)
            });
            let udp = &packet[ip.expect("UDP over IPv6") + 40..];
            if u16::from_be_bytes([udp[2], udp[3]]) != 5683 {
                continue;
            }
            let heard = w.coap("[::1]:40000".parse().unwrap(), &udp[8..]);
            assert_eq!(heard.dropped.iter().map(|d| d.0).collect::<Vec<_>>(), [Code::CloudUnknownKid], "{name}");
            assert!(heard.udp.is_empty());
            refused += 1;
        }
        assert_eq!(refused, 3, "{name}");
    }
}
