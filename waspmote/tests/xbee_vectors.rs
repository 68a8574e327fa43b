//! vectors/waspmote/xbee-api.json: what vendor code wrote to the serial port of a node, and what it accepted from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::xbee::{
    Address16, Address64, Decoder, LinkKey, Mode, Packet, Refused, frame, link_key_commands,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/waspmote/xbee-api.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn decode(line: &[u8]) -> Vec<Result<Vec<u8>, Refused>> {
    let mut decoder = Decoder::new(Mode::Escaped);
    let mut said = Vec::new();
    for &byte in line {
        if let Some(result) = decoder.push(byte) {
            said.push(result.map(|()| decoder.packet().to_vec()));
        }
    }
    said.extend(decoder.idle().err().map(Err));
    said
}

fn payload<'b>(packet: &Packet<'b>) -> &'b [u8] {
    match *packet {
        Packet::Receive { payload, .. }
        | Packet::Receive16 { payload, .. }
        | Packet::Receive64 { payload, .. }
        | Packet::ExplicitReceive { payload, .. } => payload,
        _ => panic!("{packet:?} was not received"),
    }
}

#[test]
fn what_a_node_sends_is_written_and_read_as_its_own_code_writes_it() {
    for case in vectors()["tx"].as_array().unwrap() {
        let content = bytes(&case["payload_hex"]);
        let address = case["destination"].as_str().unwrap();
        let packet = match case["radio"].as_str().unwrap() {
            "900HP/868LP (frame type 0x10)" => Packet::Transmit {
                id: 1,
                destination: address.parse().unwrap(),
                network: Address16::UNKNOWN,
                radius: 0,
                options: 0,
                payload: &content,
            },
            "802.15.4 16-bit (frame type 0x01)" => Packet::Transmit16 {
                id: 1,
                destination: Address16(hex::decode(address).unwrap().try_into().unwrap()),
                options: 0,
                payload: &content,
            },
            other => panic!("no such radio: {other}"),
        };
        let line = bytes(&case["uart_bytes_hex"]);
        assert_eq!(*packet.emit(Mode::Escaped).unwrap(), line);
        let heard = decode(&line);
        assert_eq!(Packet::parse(heard[0].as_ref().unwrap()), Ok(packet));
        assert_eq!(heard.len(), 1);
    }
}

#[test]
fn what_a_node_accepts_is_read_and_written_and_what_it_refuses_is_refused() {
    for case in vectors()["rx"].as_array().unwrap() {
        let name = case["case"].as_str().or(case["frame_type"].as_str()).unwrap();
        let heard = decode(&bytes(&case["uart_bytes_hex"]));
        match case["vendor_result"].as_u64().unwrap() {
            0 => {
                let packet = heard.last().unwrap().as_ref().unwrap_or_else(|why| panic!("{name}: {why}"));
                let parsed = Packet::parse(packet).unwrap();
                assert_eq!(payload(&parsed), bytes(&case["payload_hex"]), "{name}");
                assert_eq!(*parsed.to_bytes(), *packet, "{name}");
                if let Some(unescaped) = case.get("unescaped_frame_data_hex") {
                    assert_eq!(*packet, bytes(unescaped), "{name}");
                    assert_eq!(format!("0x{:02x}", packet[0]), case["frame_type"].as_str().unwrap());
                    assert_eq!(*parsed.emit(Mode::Escaped).unwrap(), bytes(&case["uart_bytes_hex"]), "{name}");
                }
                let (mac, short, dbm) = match parsed {
                    Packet::Receive { source, .. } | Packet::ExplicitReceive { source, .. } => {
                        (Some(source), None, None)
                    }
                    Packet::Receive64 { source, rssi, .. } => (Some(source), None, Some(rssi)),
                    Packet::Receive16 { source, rssi, .. } => (None, Some(source), Some(rssi)),
                    _ => unreachable!(),
                };
                if let Some(expected) = case.get("source_mac_hex") {
                    assert_eq!(mac.unwrap().to_string(), expected.as_str().unwrap(), "{name}");
                }
                if let Some(expected) = case.get("source_na_hex") {
                    assert_eq!(short.unwrap().0.to_vec(), bytes(expected), "{name}");
                }
                if let Some(expected) = case.get("rssi_dbm") {
                    assert_eq!(i64::from(dbm.unwrap()), expected.as_i64().unwrap(), "{name}");
                }
                // Noise is silent; a frame that another one cut short is told.
                let before: Vec<_> = heard.iter().rev().skip(1).collect();
                match name {
                    "an unfinished frame followed by a whole one: 0x7E restarts reception" => {
                        assert_eq!(before, [&Err(Refused::Short { wanted: 63, found: 8 })]);
                    }
                    _ => assert!(before.is_empty(), "{name}: {before:?}"),
                }
            }
            1 => assert_eq!(heard, [Err(Refused::Short { wanted: 63, found: 57 })], "{name}"),
            4 => assert_eq!(heard, [Err(Refused::Checksum { expected: 0xE5, found: 0xE4 })], "{name}"),
            other => panic!("{name}: no such result: {other}"),
        }
    }
}

#[test]
fn a_link_key_is_set_as_a_sketch_sets_it() {
    let case = &vectors()["link_key_at_frames"];
    let key = LinkKey::from_text(case["key_ascii"].as_str().unwrap()).unwrap();
    let mut line = Vec::new();
    for command in link_key_commands(0x52, &key) {
        line.extend_from_slice(&command.emit(Mode::Escaped).unwrap());
    }
    assert_eq!(line, bytes(&case["uart_bytes_hex"]));
    let printed = format!("{key:?} {:?}", link_key_commands(0x52, &key));
    assert!(!printed.contains("122"), "{printed}");
    assert_eq!(LinkKey::from_text("fifteen letters").unwrap_err(), Refused::Short { wanted: 16, found: 15 });
    assert_eq!(LinkKey::from_text("seventeen letters").unwrap_err(), Refused::Long { length: 17 });
}

#[test]
fn a_time_request_and_its_answer_fit_the_line() {
    let case = &vectors()["time_sync_request"];
    let content = bytes(&case["payload_hex"]);
    let request = Packet::Transmit {
        id: 1,
        destination: case["destination"].as_str().unwrap().parse().unwrap(),
        network: Address16::UNKNOWN,
        radius: 0,
        options: 0,
        payload: &content,
    };
    assert_eq!(*request.emit(Mode::Escaped).unwrap(), bytes(&case["uart_bytes_hex"]));
    let answer = Packet::Receive {
        source: Address64([0, 0x13, 0xA2, 0, 0x4F, 0x8E, 0xC5, 0x19]),
        network: Address16::UNKNOWN,
        options: 1,
        payload: case["expected_reply_payload_text"].as_str().unwrap().as_bytes(),
    };
    let line = answer.emit(Mode::Escaped).unwrap();
    assert_eq!(Packet::parse(decode(&line)[0].as_ref().unwrap()), Ok(answer));
}

#[test]
fn every_type_of_packet_survives_both_ways_and_says_where_it_was_cut() {
    let (mac, short) = (Address64([1, 2, 3, 4, 5, 6, 7, 0x7E]), Address16([0x7D, 0x11]));
    let (endpoints, cluster, profile, payload) = ([0xE8, 0xE8], 0x0011, 0xC105, &b"~}\x11\x13"[..]);
    let (id, options, radius) = (9, 1, 2);
    let all = [
        Packet::AtCommand { id, at: fivefold_waspmote::xbee::At::API_MODE, value: &[2] },
        Packet::AtQueued { id, at: fivefold_waspmote::xbee::At::ADDRESS_16, value: &[0xFF, 0xFF] },
        Packet::AtResponse { id, at: fivefold_waspmote::xbee::At::SERIAL_LOW, status: 0, value: &[1, 2, 3, 4] },
        Packet::Explicit {
            id,
            destination: mac,
            network: short,
            endpoints,
            cluster,
            profile,
            radius,
            options,
            payload,
        },
        Packet::ExplicitReceive { source: mac, network: short, endpoints, cluster, profile, options, payload },
        Packet::ModemStatus { status: 6 },
        Packet::Receive { source: mac, network: short, options, payload },
        Packet::Receive16 { source: short, rssi: -40, options, payload },
        Packet::Receive64 { source: mac, rssi: -255, options, payload },
        Packet::Transmit { id, destination: mac, network: short, radius, options, payload },
        Packet::Transmit16 { id, destination: short, options, payload },
        Packet::Transmit64 { id, destination: mac, options, payload },
        Packet::TransmitStatus { id, network: short, retries: 1, delivery: 0x24, discovery: 3 },
        Packet::TransmitStatusLegacy { id, status: 1 },
    ];
    let heads = [4, 4, 5, 20, 18, 2, 12, 5, 11, 14, 5, 11, 7, 3];
    for (packet, head) in all.iter().zip(heads) {
        let whole = packet.to_bytes();
        assert_eq!(Packet::parse(&whole), Ok(*packet));
        for cut in 1..head {
            match Packet::parse(&whole[..cut]) {
                Err(Refused::Short { wanted, found }) => assert!(found == cut && wanted > cut && wanted <= head),
                other => panic!("{packet:?} cut at {cut}: {other:?}"),
            }
        }
        assert!(head == whole.len() || Packet::parse(&whole[..head]).is_ok(), "{packet:?}");
        for mode in [Mode::Plain, Mode::Escaped] {
            let mut decoder = Decoder::new(mode);
            let line = packet.emit(mode).unwrap();
            let said: Vec<_> = line.iter().filter_map(|&byte| decoder.push(byte)).collect();
            assert_eq!((said, decoder.packet()), (vec![Ok(())], &whole[..]));
        }
    }
    for status in [5, 12, 13] {
        let longer = [&all[status].to_bytes()[..], &[0]].concat();
        assert_eq!(Packet::parse(&longer), Err(Refused::Long { length: longer.len() }));
    }
    for kind in (0..=255).filter(|kind| ![0, 1, 8, 9, 0x10, 0x11].contains(kind) && !(0x80..=0x91).contains(kind)) {
        assert_eq!(Packet::parse(&[kind, 0, 0, 0]), Err(Refused::Type(kind)));
    }
    assert_eq!(Packet::parse(&[]), Err(Refused::Short { wanted: 1, found: 0 }));
    assert!(frame(&[0x8A, 6], Mode::Plain).is_ok());
}
