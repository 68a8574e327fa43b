//! Messages that other people's code put on a wire: vectors/captures/ (README there). OSCORE is opened as a plain endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod runs;

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Initiator, Responder, ToServer};
use fivefold_core::oscore::{Context, Id, OscoreOption, Params, Plaintext, RequestId};
use fivefold_core::suite::Alg;
use fivefold_core::wire::coap::{Message, Options, Outer, Protected, number};
use runs::{Parties, SID, key};

/// UDP payloads of a little-endian pcap of Ethernet frames with IPv6, with source and destination port.
fn datagrams(file: &str) -> Vec<(u16, u16, Vec<u8>)> {
    let path = format!("{}/../vectors/captures/{file}", env!("CARGO_MANIFEST_DIR"));
    let pcap = std::fs::read(path).unwrap();
    assert_eq!(pcap[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    assert_eq!(pcap[20..24], [1, 0, 0, 0], "link type Ethernet");
    let mut rest = &pcap[24..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (frame, after) = rest[16..].split_at(len);
        rest = after;
        assert_eq!((&frame[12..14], frame[20]), (&[0x86, 0xdd][..], 17), "UDP over IPv6");
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        found.push((port(54), port(56), frame[62..].to_vec()));
    }
    found
}

fn opens_all(file: &str, alg: Alg, secret: &[u8]) {
    let salt = [0x9e, 0x7c, 0xa9, 0x22, 0x23, 0x78, 0x63, 0x40];
    let (client_id, server_id) = (Id::default(), Id::new(&[1]).unwrap());
    let end = |sender_id, recipient_id| {
        Context::<E3>::derive(&Params {
            alg,
            master_secret: secret,
            master_salt: &salt,
            id_context: None,
            sender_id,
            recipient_id,
        })
    };
    let (client, server) = (end(client_id, server_id), end(server_id, client_id));
    let messages = datagrams(file);
    assert_eq!(messages.len(), 6);
    let mut asked = None;
    let mut seen = Vec::new();
    for (source, destination, datagram) in messages {
        let message = Message::parse(&datagram).unwrap();
        let option = message.options().find(|(n, _)| *n == number::OSCORE).unwrap().1;
        let option = OscoreOption::parse(option).unwrap();
        let mut out = [0; 256];
        let plaintext = if destination == 5683 {
            assert_eq!(option.kid, Some(&[][..]));
            let piv = option.piv.unwrap();
            asked = Some(RequestId { kid: client_id, piv });
            server.open_request(piv, message.payload, &mut out).unwrap().plaintext()
        } else {
            assert_eq!(source, 5683);
            client.open_answer(&asked.unwrap(), option.piv, message.payload, &mut out).unwrap().plaintext()
        };
        let inner = Plaintext::parse(plaintext).unwrap();
        let path: Vec<_> =
            Options::new(inner.options).filter(|(n, _)| *n == number::URI_PATH).map(|(_, v)| v).collect();
        seen.push((inner.code, path.concat(), inner.payload.to_vec()));
    }
    let request = |code: u8, payload: &[u8]| (code, b"tv1".to_vec(), payload.to_vec());
    assert_eq!(seen[0], request(1, b""));
    assert_eq!(seen[2], request(2, &[0x42; 40]));
    assert_eq!(seen[4], request(1, b""));
    for answer in [&seen[1], &seen[3], &seen[5]] {
        assert_eq!(answer.0 >> 5, 2, "a 2.xx code");
    }
}

#[test]
fn all_messages_of_an_aiocoap_capture_open_with_algorithm_10() {
    let secret: Vec<u8> = (1..=16).collect();
    opens_all("oscore-loopback.pcap", Alg::AesCcm16_64_128, &secret);
}

#[test]
fn all_messages_of_an_aiocoap_capture_open_with_algorithm_11() {
    let secret: Vec<u8> = (1..=32).collect();
    opens_all("oscore-aes256-loopback.pcap", Alg::AesCcm16_64_256, &secret);
}

#[test]
fn their_requests_have_an_empty_kid_and_pass_the_outer_profile_or_are_malformed() {
    for (_, destination, datagram) in datagrams("oscore-loopback.pcap") {
        if destination == 5683 {
            let request = Protected::parse_request(&datagram, Outer::StockClient).unwrap();
            assert_eq!(request.option.kid, Some(&[][..]));
        }
    }
}

#[test]
fn edhoc_of_aiocoap_with_lakers_has_the_shapes_that_we_read() {
    let messages = datagrams("edhoc-loopback.pcap");
    let payloads: Vec<(u8, Vec<u8>)> = messages
        .iter()
        .map(|(_, _, datagram)| Message::parse(datagram).map(|m| (m.code, m.payload.to_vec())).unwrap())
        .collect();
    assert_eq!(payloads.len(), 10);
    let id = |byte: u8| Id::new(&[byte]).unwrap();
    let parties = Parties::default();
    for (at, c_i, c_r) in [(0, 0x0C, Some(0x37)), (6, 0x11, None)] {
        let (code, message_1) = &payloads[at];
        let Ok(ToServer::Offer(offer)) = ToServer::parse(message_1) else { panic!("no offer") };
        // aiocoap adds item 15 to EAD_1, not critical: passed over.
        assert_eq!(message_1.last(), Some(&15));
        assert_eq!((*code, offer.c_i(), offer.announced()), (2, id(c_i), None));
        // The private ephemeral keys were not kept: message_2 is one by its shape, and not for us.
        let (device, _) = Initiator::<E2, _>::danger_offer(key(0xC0), id(c_i));
        let refused = device.handle_message_2(&payloads[at + 1].1, &parties.on_device(), &parties.cloud).unwrap_err();
        assert!(refused.session.is_some());
        // The second run has message_3 and the first OSCORE request in one (RFC 9668), which is not of our profile.
        let Some(c_r) = c_r else { continue };
        let Ok(ToServer::Proof { c_r: read, message_3 }) = ToServer::parse(&payloads[2].1) else { panic!("no proof") };
        assert_eq!((read, message_3.len()), (id(c_r), 1 + 1 + 9 + 8));
        let (server, _) = Responder::<E2, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap();
        assert!(server.handle_message_3(message_3).unwrap_err().session.is_some());
        assert_eq!((payloads[3].0, payloads[3].1.len(), payloads[3].1[0]), (0x44, 9, 0x48));
    }
}
