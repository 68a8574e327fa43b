//! Stations that talk to each other: HELLO, relaying, rotation of the network key, and bytes that mean nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e1_link::{
    Air, FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Neighbour, Neighbours, Over, Reach, Received,
    Registration, Station, TableFull,
};
use fivefold_core::error::{Code, Rejected, SealError};
use fivefold_core::id::{Did, Sid};
use fivefold_core::key::Key;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, Pan, SecurityLevel, append_fcs};
use fivefold_core::wire::mesh;
use proptest::prelude::*;

type Node = Link<FixedNeighbours<4>>;

const GATEWAY: Sid = Sid(1);
const READING: &[u8] = &[0x22, 1, 2, 3, 4, 5, 6, 7, 8, 9];

fn identity(sid: Sid) -> Identity {
    let [a, b] = sid.to_bytes();
    let station = if sid == GATEWAY { Station::Gateway } else { Station::Node };
    Identity { did: Did([0xac, 0, 0, 0, 0, 0, a, b]), sid, pan: Pan(7), station }
}

fn keys(indexes: &[u8]) -> LinkKeys {
    let mut keys = LinkKeys::new();
    for &i in indexes {
        keys.install(i, &Key::new([i; 16]), 0).unwrap();
    }
    keys
}

fn leased<T: Neighbours>(link: &mut Link<T>) {
    if let Some(write) = link.keys().lease_due() {
        link.keys_mut().extend_lease(write);
    }
}

fn station(sid: Sid, indexes: &[u8]) -> Node {
    let seed = [sid.0 as u8; 32];
    let mut link = Node::new(identity(sid), LinkPolicy::default(), keys(indexes), FixedNeighbours::new(), seed);
    leased(&mut link);
    link
}

/// Lets stations exchange control frames from `from` for `ms` milliseconds; returns how many were sent.
fn run(stations: &mut [&mut Node], from: u64, ms: u64) -> usize {
    let mut sent = 0;
    for now in (from..from + ms).map(Millis) {
        for at in 0..stations.len() {
            let mut out = [0; 127];
            while let Some(frame) = stations[at].poll_control(now, &mut out) {
                sent += 1;
                for (other, link) in stations.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                    let mut copy = out;
                    let _ = (other, link.receive(now, &mut copy[..frame.len]).map(|_| ()));
                }
            }
        }
    }
    sent
}

fn synced(link: &Node, other: Sid) -> bool {
    link.neighbours().iter().any(|n| n.sid() == other && n.is_synced())
}

fn sealed(link: &mut Node, to: Sid, mesh: Option<mesh::Header>, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; 127];
    leased(link);
    let n = link.seal(to, Ack::Request, mesh, payload, &mut out).unwrap();
    out[..n].to_vec()
}

fn code<T>(result: Result<T, Rejected>) -> Code {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(refused) => refused.code,
    }
}

/// A, B and the gateway after their HELLOs.
fn village() -> (Node, Node, Node) {
    let (mut a, mut b, mut g) = (station(Sid(0x0a), &[1]), station(Sid(0x0b), &[1]), station(GATEWAY, &[1]));
    run(&mut [&mut a, &mut b, &mut g], 0, 4_000);
    (a, b, g)
}

#[test]
fn stations_that_boot_together_sync_all_their_pairs() {
    let (a, b, g) = village();
    for (link, other) in
        [(&a, Sid(0x0b)), (&a, GATEWAY), (&b, Sid(0x0a)), (&b, GATEWAY), (&g, Sid(0x0a)), (&g, Sid(0x0b))]
    {
        assert!(synced(link, other), "{:?} does not know {other}", link.identity().sid);
    }
}

#[test]
fn nothing_but_a_hello_is_accepted_from_a_stranger() {
    let (mut a, mut g) = (station(Sid(0x0a), &[1]), station(GATEWAY, &[1]));
    let mut frame = sealed(&mut a, GATEWAY, None, READING);
    assert_eq!(code(g.receive(Millis(0), &mut frame)), Code::LinkNeighbourUnknown);
    run(&mut [&mut a, &mut g], 0, 4_000);
    let mut frame = sealed(&mut a, GATEWAY, None, READING);
    assert!(matches!(g.receive(Millis(0), &mut frame), Ok(Received::Deliver(d)) if d.payload == READING));
}

/// The next control frame that a station sends after `from`, and when.
fn control(link: &mut Node, from: u64) -> (Millis, Vec<u8>) {
    let mut out = [0; 127];
    let due = (from..from + 3_000).map(Millis).find_map(|now| link.poll_control(now, &mut out).map(|c| (now, c.len)));
    let (now, len) = due.expect("it says something");
    (now, out[..len].to_vec())
}

#[test]
fn a_control_frame_that_was_overtaken_opens_no_door_to_a_replay() {
    let (mut a, mut b, _) = village();
    b.want_hello(Millis(100_000));
    let (now, mut hello) = control(&mut b, 100_000);
    a.receive(now, &mut hello).unwrap();
    let (now, mut ack) = control(&mut a, now.0);
    b.receive(now, &mut ack).unwrap();
    let (now, mut fin) = control(&mut b, now.0);
    // The reading that left after it is there first.
    let reading = sealed(&mut b, Sid(0x0a), None, READING);
    assert!(matches!(a.receive(now, &mut reading.clone()), Ok(Received::Deliver(_))));
    assert!(matches!(a.receive(now, &mut fin), Ok(Received::Synced { .. })));
    assert_eq!(code(a.receive(now, &mut reading.clone())), Code::LinkReplayed);
    let mut next = sealed(&mut b, Sid(0x0a), None, READING);
    assert!(matches!(a.receive(now, &mut next), Ok(Received::Deliver(_))));
}

#[test]
fn a_reading_travels_over_a_relay_and_not_twice() {
    let (mut a, mut b, mut g) = village();
    let now = Millis(10_000);
    let header = mesh::Header { hops: 5, originator: Sid(0x0a), destination: Sid::ANY_GATEWAY };
    let mut frame = sealed(&mut a, Sid(0x0b), Some(header), READING);
    let (mesh, payload) = match b.receive(now, &mut frame) {
        Ok(Received::Forward(f)) => (f.mesh, f.payload.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(mesh.hops, 4);
    let mut onward = sealed(&mut b, Sid::ANY_GATEWAY, Some(mesh), &payload);
    assert_eq!(onward[..2], [0x49, 0x98], "no acknowledgement is asked of any gateway");
    match g.receive(now, &mut onward) {
        Ok(Received::Deliver(d)) => assert_eq!((d.originator, d.from, d.payload), (Sid(0x0a), Sid(0x0b), READING)),
        other => panic!("{other:?}"),
    }
    // The originator tries again, the same way: that passes. The same datagram with another hop count came round a loop.
    let mut again = sealed(&mut a, Sid(0x0b), Some(header), READING);
    assert!(matches!(b.receive(Millis(12_000), &mut again), Ok(Received::Forward(_))));
    let looped = mesh::Header { hops: 3, ..header };
    let mut again = sealed(&mut a, Sid(0x0b), Some(looped), READING);
    assert_eq!(code(b.receive(Millis(21_999), &mut again)), Code::LinkHopLimit);
    let mut again = sealed(&mut a, Sid(0x0b), Some(looped), READING);
    assert!(matches!(b.receive(Millis(22_000), &mut again), Ok(Received::Forward(_))));
}

#[test]
fn the_last_hop_and_a_loop_end_at_the_relay() {
    let (mut a, mut b, _) = village();
    let header = mesh::Header { hops: 1, originator: Sid(0x0a), destination: GATEWAY };
    let mut frame = sealed(&mut a, Sid(0x0b), Some(header), READING);
    assert_eq!(code(b.receive(Millis(0), &mut frame)), Code::LinkHopLimit);
    let header = mesh::Header { hops: 3, originator: Sid(0x0b), destination: GATEWAY };
    let mut frame = sealed(&mut a, Sid(0x0b), Some(header), READING);
    assert_eq!(code(b.receive(Millis(0), &mut frame)), Code::LinkHopLimit);
}

#[test]
fn only_a_gateway_is_any_gateway() {
    let (mut a, mut b, mut g) = village();
    let mut frame = sealed(&mut a, Sid::ANY_GATEWAY, None, READING);
    assert_eq!(code(b.receive(Millis(0), &mut frame.clone())), Code::LinkNotOurs);
    assert!(g.receive(Millis(0), &mut frame).is_ok());
}

#[test]
fn a_rebooted_neighbour_is_believed_again_only_after_its_hello() {
    let (mut a, _, mut g) = village();
    let recorded = sealed(&mut a, GATEWAY, None, READING);
    assert!(g.receive(Millis(5_000), &mut recorded.clone()).is_ok());
    let mut g = station(GATEWAY, &[1]);
    assert_eq!(code(g.receive(Millis(0), &mut recorded.clone())), Code::LinkNeighbourUnknown);
    run(&mut [&mut a, &mut g], 10_000, 4_000);
    assert!(synced(&g, Sid(0x0a)));
    assert_eq!(code(g.receive(Millis(20_000), &mut recorded.clone())), Code::LinkReplayed);
    let mut frame = sealed(&mut a, GATEWAY, None, READING);
    assert!(g.receive(Millis(20_000), &mut frame).is_ok());
}

#[test]
fn a_stranger_makes_a_station_ask_once_a_minute_and_no_more() {
    let (mut a, _, mut g) = village();
    let (mut stranger, mut asked) = (station(Sid(0x33), &[1]), 0);
    for now in (100_000..340_000).step_by(50).map(Millis) {
        let mut frame = sealed(&mut stranger, GATEWAY, None, READING);
        let _ = g.receive(now, &mut frame).map(|_| ());
        let mut out = [0; 127];
        while let Some(frame) = g.poll_control(now, &mut out) {
            asked += usize::from(frame.to.is_none());
            leased(&mut g);
            let _ = a.receive(now, &mut out[..frame.len]).map(|_| ());
        }
        while let Some(frame) = a.poll_control(now, &mut out) {
            leased(&mut a);
            let _ = g.receive(now, &mut out[..frame.len]).map(|_| ());
        }
    }
    assert!((3..=5).contains(&asked), "{asked}");
}

#[test]
fn a_recorded_exchange_syncs_nobody_later() {
    let (mut a, mut g) = (station(Sid(0x0a), &[1]), station(GATEWAY, &[1]));
    let mut recorded = Vec::new();
    for now in (0..4_000).map(Millis) {
        for (from, to) in [(0, 1), (1, 0)] {
            let pair = [&mut a, &mut g];
            let mut out = [0; 127];
            while let Some(frame) = pair[from].poll_control(now, &mut out) {
                recorded.push(out[..frame.len].to_vec());
                let _ = pair[to].receive(now, &mut out[..frame.len]).map(|_| ());
            }
        }
    }
    assert!(synced(&g, Sid(0x0a)) && recorded.len() >= 6);
    // A boot draws a new seed.
    let mut g = Node::new(identity(GATEWAY), LinkPolicy::default(), keys(&[1]), FixedNeighbours::new(), [0x5e; 32]);
    leased(&mut g);
    for now in (0..6_000).step_by(100).map(Millis) {
        for frame in &recorded {
            let _ = g.receive(now, &mut frame.clone()).map(|_| ());
        }
        while g.poll_control(now, &mut [0; 127]).is_some() {}
    }
    assert!(!synced(&g, Sid(0x0a)));
}

#[test]
fn a_short_address_that_is_bound_stays_with_its_owner() {
    let (mut a, _, mut g) = village();
    let mut thief = station(Sid(0x0c), &[1]);
    // The thief holds the network key, and claims the short address of A under its own EUI-64.
    let stolen = Identity { sid: Sid(0x0a), ..*thief.identity() };
    thief = Node::new(stolen, LinkPolicy::default(), keys(&[1]), FixedNeighbours::new(), [3; 32]);
    leased(&mut thief);
    let mut out = [0; 127];
    let hello = thief.poll_control(Millis(5_000), &mut out).unwrap();
    assert_eq!(code(g.receive(Millis(5_000), &mut out[..hello.len])), Code::LinkNeighbourUnknown);
    let before = g.neighbours().clone();
    run(&mut [&mut thief, &mut g], 6_000, 4_000);
    assert_eq!(before.iter().collect::<Vec<_>>(), g.neighbours().iter().collect::<Vec<_>>());
    let mut frame = sealed(&mut a, GATEWAY, None, READING);
    assert!(g.receive(Millis(20_000), &mut frame).is_ok());
}

/// A gateway's table with a registry that knows one device.
#[derive(Default)]
struct Registered(FixedNeighbours<4>);

impl Neighbours for Registered {
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour> {
        self.0.by_sid(sid)
    }
    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour> {
        self.0.by_did(did)
    }
    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull> {
        self.0.put(neighbour)
    }
    fn registration(&self, did: Did, sid: Sid) -> Registration {
        if (did, sid) == (identity(Sid(0x0a)).did, Sid(0x0a)) {
            Registration::Registered
        } else {
            Registration::Refused
        }
    }
}

#[test]
fn a_gateway_asks_its_registry_before_it_answers() {
    let mut g: Link<Registered> =
        Link::new(identity(GATEWAY), LinkPolicy::default(), keys(&[1]), Registered::default(), [5; 32]);
    let mut out = [0; 127];
    let hello = station(Sid(0x0b), &[1]).poll_control(Millis(0), &mut out).unwrap();
    assert_eq!(code(g.receive(Millis(0), &mut out[..hello.len])), Code::LinkNeighbourUnknown);
    let hello = station(Sid(0x0a), &[1]).poll_control(Millis(0), &mut out).unwrap();
    assert!(matches!(g.receive(Millis(0), &mut out[..hello.len]), Ok(Received::Hello { .. })));
}

#[test]
fn a_network_key_is_rotated_without_a_lost_frame() {
    let (mut a, mut b, mut g) = village();
    let now = Millis(10_000);
    for link in [&mut a, &mut b, &mut g] {
        link.keys_mut().install(2, &Key::new([2; 16]), 0).unwrap();
        assert_eq!(link.keys().sending(), Some(1));
    }
    // Distributed: frames under 1 go on. Then the gateway switches, and says so.
    let mut frame = sealed(&mut a, GATEWAY, None, READING);
    assert!(g.receive(now, &mut frame).is_ok());
    g.keys_mut().send_under(2).unwrap();
    leased(&mut g);
    let mut out = [0; 127];
    let n = g.announce_key(&mut out).unwrap();
    assert!(matches!(a.receive(now, &mut { out }[..n]), Ok(Received::KeySwitch { key_index: 2, .. })));
    assert_eq!(code(a.receive(now, &mut out[..n])), Code::LinkReplayed);
    assert_eq!(a.keys().sending(), Some(2));
    // B has not heard it: it follows A. The new counter needs a lease of its own first.
    assert_eq!(a.seal(Sid(0x0b), Ack::None, None, READING, &mut out), Err(SealError::LeaseSpent));
    let mut frame = sealed(&mut a, Sid(0x0b), None, READING);
    assert_eq!(frame[14], 2);
    assert!(b.receive(now, &mut frame).is_ok());
    assert_eq!(b.keys().sending(), Some(2));
    // Retired: a straggler's readings are refused, its EDHOC message is taken.
    let mut straggler = station(Sid(0x0a), &[1]);
    straggler.keys_mut().forget(1);
    straggler.keys_mut().install(1, &Key::new([1; 16]), 20_000).unwrap();
    g.keys_mut().retire(1, Millis(50_000)).unwrap();
    let mut frame = sealed(&mut straggler, GATEWAY, None, READING);
    assert_eq!(code(g.receive(now, &mut frame)), Code::LinkKeyUnknown);
    let mut frame = sealed(&mut straggler, GATEWAY, None, &[0x10, 1, 2, 3]);
    assert!(matches!(g.receive(now, &mut frame), Ok(Received::Deliver(d)) if d.payload[0] == 0x10));
    let mut out = [0; 127];
    let hello = straggler.poll_control(Millis(0), &mut out).unwrap();
    assert_eq!(code(g.receive(now, &mut out[..hello.len])), Code::LinkKeyUnknown);
    let mut frame = sealed(&mut straggler, GATEWAY, None, &[0x10, 1, 2, 3]);
    assert_eq!(code(g.receive(Millis(50_000), &mut frame)), Code::LinkKeyUnknown);
}

#[test]
fn frames_recorded_under_the_old_key_die_with_a_sync_under_the_new_one() {
    let (mut a, _, mut g) = village();
    let recorded = sealed(&mut a, GATEWAY, None, READING);
    for link in [&mut a, &mut g] {
        link.keys_mut().install(2, &Key::new([2; 16]), 0).unwrap();
        link.keys_mut().send_under(2).unwrap();
        leased(link);
    }
    let mut g = station(GATEWAY, &[1, 2]);
    g.keys_mut().send_under(2).unwrap();
    leased(&mut g);
    run(&mut [&mut a, &mut g], 100_000, 4_000);
    assert!(synced(&g, Sid(0x0a)));
    assert_eq!(code(g.receive(Millis(200_000), &mut recorded.clone())), Code::LinkReplayed);
}

#[test]
fn e1s_and_802_15_4_share_one_counter() {
    let (mut a, _, mut g) = village();
    let mut out = [0; 127];
    let n = a.e1s_seal(None, READING, &mut out).unwrap();
    let frame = sealed(&mut a, GATEWAY, None, READING);
    assert_eq!(frame[10..14][0], out[2] + 1);
    assert!(g.e1s_open(Millis(0), (identity(Sid(0x0a)).did, Reach::Us), &mut { out }[..n]).is_ok());
    assert!(g.receive(Millis(0), &mut frame.clone()).is_ok());
    assert_eq!(code(g.e1s_open(Millis(0), (identity(Sid(0x0a)).did, Reach::Us), &mut out[..n])), Code::LinkReplayed);
}

#[test]
fn e1s_neighbours_sync_by_hello_too() {
    let (mut a, mut g) = (station(Sid(0x0a), &[1]), station(GATEWAY, &[1]));
    let dids = [a.identity().did, g.identity().did];
    for now in (0..4_000).map(Millis) {
        for (from, to) in [(0, 1), (1, 0)] {
            let pair = [&mut a, &mut g];
            let mut out = [0; 127];
            while let Some(frame) = pair[from].poll_e1s_control(now, &mut out) {
                let _ = pair[to].e1s_open(now, (dids[from], Reach::Us), &mut out[..frame.len]).map(|_| ());
            }
        }
    }
    assert!(synced(&a, GATEWAY) && synced(&g, Sid(0x0a)));
}

#[test]
fn a_message_to_everybody_is_for_gateways_and_for_whom_its_header_names() {
    let (mut a, mut b, mut g) = village();
    let from = a.identity().did;
    let header = |destination| Some(mesh::Header { hops: 3, originator: Sid(0x0a), destination });
    let cases = [
        (None, false, true),
        (header(Sid::ANY_GATEWAY), false, true),
        (header(Sid(0x0b)), true, false),
        (header(Sid(0x0c)), false, false),
        (header(Sid::BROADCAST), true, true),
    ];
    for (mesh, node, gateway) in cases {
        let mut out = [0; 127];
        let n = a.e1s_seal(mesh, READING, &mut out).unwrap();
        for (link, taken) in [(&mut b, node), (&mut g, gateway)] {
            let mut copy = out;
            match link.e1s_open(Millis(0), (from, Reach::Everybody), &mut copy[..n]) {
                Ok(Received::Deliver(_)) => assert!(taken, "{mesh:?}"),
                Err(refused) => assert_eq!((taken, refused.code), (false, Code::LinkNotOurs), "{mesh:?}"),
                other => panic!("{mesh:?}: {other:?}"),
            }
        }
        // The same to one alone goes on from there.
        let n = a.e1s_seal(header(Sid::ANY_GATEWAY), READING, &mut out).unwrap();
        let judged = b.e1s_open(Millis(0), (from, Reach::Us), &mut out[..n]).unwrap();
        assert!(matches!(judged, Received::Forward(f) if f.mesh.hops == 2));
    }
}

#[test]
fn a_message_is_never_longer_than_its_radio_carries_and_uses_no_number_then() {
    let policy = LinkPolicy { air: Air::E1s { longest: 40 }, ..LinkPolicy::default() };
    let mut a = Node::new(identity(Sid(0x0a)), policy, keys(&[1]), FixedNeighbours::new(), [1; 32]);
    leased(&mut a);
    let mut out = [0; 127];
    assert_eq!(a.seal(GATEWAY, Ack::Request, None, &[0x22; 26], &mut out), Err(SealError::TooLong));
    assert_eq!(a.seal(GATEWAY, Ack::Request, None, &[0x22; 25], &mut out), Ok(40));
    assert_eq!(out[2..6], [0; 4], "the first number");
    assert_eq!(a.over(GATEWAY), Over::E1s { to: None }, "nobody was heard yet");
}

#[test]
fn no_control_frame_is_lost_to_a_spent_lease() {
    let mut a = Node::new(identity(Sid(0x0a)), LinkPolicy::default(), keys(&[1]), FixedNeighbours::new(), [1; 32]);
    assert_eq!(a.poll_control(Millis(0), &mut [0; 127]), None);
    assert_eq!(a.keys().lease_due().unwrap().bound, 1024);
    leased(&mut a);
    assert!(a.poll_control(Millis(0), &mut [0; 127]).is_some());
}

#[test]
fn a_node_that_allows_mic_32_takes_both_and_sends_what_it_is_told() {
    let policy =
        LinkPolicy { minimum: SecurityLevel::EncMic32, sending: SecurityLevel::EncMic32, ..LinkPolicy::default() };
    let make = |sid| {
        let mut l = Node::new(identity(sid), policy, keys(&[1]), FixedNeighbours::new(), [sid.0 as u8; 32]);
        leased(&mut l);
        l
    };
    let (mut a, mut g) = (make(Sid(0x0a)), make(GATEWAY));
    run(&mut [&mut a, &mut g], 0, 4_000);
    let frame = sealed(&mut a, GATEWAY, None, READING);
    assert_eq!((frame[9], frame.len()), (0x0D, 15 + READING.len() + 4 + 2));
    assert!(g.receive(Millis(0), &mut frame.clone()).is_ok());
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_never_pass(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..140),
        fcf in prop_oneof![Just([0x69u8, 0x98]), Just([0x49, 0xD8]), Just([0x49, 0x98])],
    ) {
        let (_, _, mut g) = village();
        prop_assert!(g.receive(Millis(1), &mut bytes.clone()).is_err());
        prop_assert!(g.e1s_open(Millis(1), (identity(Sid(0x0a)).did, Reach::Us), &mut bytes.clone()).is_err());
        if bytes.len() > 11 {
            bytes[..2].copy_from_slice(&fcf);
            bytes[3..9].copy_from_slice(&[7, 0, 1, 0, 0x0a, 0]);
            bytes[9] = 0x0E;
            let at = if fcf[1] == 0xD8 { 20 } else { 14 };
            if let Some(index) = bytes.get_mut(at) { *index = 1; }
            let n = bytes.len();
            bytes.resize(n + 2, 0);
            append_fcs(&mut bytes, n).unwrap();
            prop_assert!(g.receive(Millis(1), &mut bytes).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_refused(bit in 0usize..1000) {
        let (mut a, _, mut g) = village();
        let mut frame = sealed(&mut a, GATEWAY, None, READING);
        let n = frame.len() - 2;
        let bit = bit % (n * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        append_fcs(&mut frame, n).unwrap();
        prop_assert!(g.receive(Millis(1), &mut frame).is_err());
    }
}
