//! Neighbours while the network key is rotated: those who are late, those who come back after it, and those shut out by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashSet;

use fivefold_core::e1_link::{
    FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Neighbour, Neighbours, PROBE_EVERY, Received, Registration,
    Station, TableFull,
};
use fivefold_core::error::{Code, Rejected, SealError};
use fivefold_core::id::{Did, Sid};
use fivefold_core::key::Key;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, Pan};
use fivefold_core::wire::tiny::EdhocRule;

const GATEWAY: Sid = Sid(1);
const NODE: Sid = Sid(0x0a);
const READING: &[u8] = &[0x22, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const MESSAGE_1: &[u8] = &[0x10, 1, 2, 3];

/// A table with a registry: everybody whose EUI-64 and short address belong together, but those who are revoked.
#[derive(Default)]
struct Table {
    entries: FixedNeighbours<4>,
    revoked: HashSet<Sid>,
}

impl Neighbours for Table {
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour> {
        self.entries.by_sid(sid)
    }
    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour> {
        self.entries.by_did(did)
    }
    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull> {
        self.entries.put(neighbour)
    }
    fn registration(&self, did: Did, sid: Sid) -> Registration {
        let known = did == identity(sid).did && !self.revoked.contains(&sid);
        if known { Registration::Registered } else { Registration::Refused }
    }
}

type Radio = Link<Table>;

fn identity(sid: Sid) -> Identity {
    let [a, b] = sid.to_bytes();
    let station = if sid == GATEWAY { Station::Gateway } else { Station::Node };
    Identity { did: Did([0xac, 0, 0, 0, 0, 0, a, b]), sid, pan: Pan(7), station }
}

fn station(sid: Sid, indexes: &[u8], seed: u8) -> Radio {
    let mut keys = LinkKeys::new();
    for &i in indexes {
        keys.install(i, &Key::new([i; 16]), u32::from(seed) * 2_000).unwrap();
    }
    let mut link = Radio::new(identity(sid), LinkPolicy::default(), keys, Table::default(), [seed; 32]);
    leased(&mut link);
    link
}

fn leased(link: &mut Radio) {
    while let Some(write) = link.keys().lease_due() {
        link.keys_mut().extend_lease(write);
    }
}

fn greet(stations: &mut [&mut Radio], from: u64, ms: u64) {
    for now in (from..from + ms).map(Millis) {
        for at in 0..stations.len() {
            let mut out = [0; 127];
            leased(stations[at]);
            while let Some(frame) = stations[at].poll_control(now, &mut out) {
                for (_, link) in stations.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                    let _ = link.receive(now, &mut { out }[..frame.len]).map(|_| ());
                }
                leased(stations[at]);
            }
        }
    }
}

fn sealed(link: &mut Radio, to: Sid, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; 127];
    leased(link);
    let n = link.seal(to, Ack::Request, None, payload, &mut out).unwrap();
    leased(link);
    out[..n].to_vec()
}

/// Whether a reading of `from` is taken by `to`.
fn hears(to: &mut Radio, from: &mut Radio) -> bool {
    let mut frame = sealed(from, to.identity().sid, READING);
    to.receive(Millis(10_000), &mut frame).is_ok()
}

fn code<T>(result: Result<T, Rejected>) -> Code {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(refused) => refused.code,
    }
}

fn install(link: &mut Radio, index: u8) {
    link.keys_mut().install(index, &Key::new([index; 16]), 0).unwrap();
}

/// A node and a gateway that know each other, both under key 1.
fn pair() -> (Radio, Radio) {
    let (mut n, mut g) = (station(NODE, &[1], 1), station(GATEWAY, &[1], 2));
    greet(&mut [&mut n, &mut g], 0, 4_000);
    assert!(hears(&mut g, &mut n) && hears(&mut n, &mut g));
    (n, g)
}

#[test]
fn one_that_has_the_new_key_follows_the_first_frame_after_the_switch() {
    let (mut n, mut g) = pair();
    install(&mut n, 2);
    install(&mut g, 2);
    g.keys_mut().send_under(2).unwrap();
    assert!(hears(&mut n, &mut g));
    assert_eq!(n.keys().sending(), Some(2));
    for _ in 0..20 {
        let mut frame = sealed(&mut n, GATEWAY, READING);
        assert_eq!(frame[14], 2);
        assert!(g.receive(Millis(10_000), &mut frame).is_ok());
        assert_eq!(sealed(&mut g, NODE, READING)[14], 2);
    }
}

#[test]
fn one_that_is_late_still_hears_what_it_needs_to_catch_up() {
    let (mut n, mut g) = pair();
    install(&mut g, 2);
    g.keys_mut().send_under(2).unwrap();
    let heard = (0..8 * PROBE_EVERY).filter(|_| hears(&mut g, &mut n) && hears(&mut n, &mut g)).count();
    assert_eq!(heard, usize::from(8 * (PROBE_EVERY - 1)), "all but the probes");
    // It got the key in one of those.
    install(&mut n, 2);
    let turns = (1..=PROBE_EVERY).find(|_| hears(&mut n, &mut g) && n.keys().sending() == Some(2)).unwrap();
    assert!(turns <= PROBE_EVERY);
    assert!(hears(&mut g, &mut n));
    assert_eq!(sealed(&mut g, NODE, READING)[14], 2);
}

#[test]
fn one_that_switched_still_reaches_a_parent_that_did_not() {
    let (mut parent, mut child) = (station(Sid(0x0b), &[1], 3), station(NODE, &[1], 1));
    greet(&mut [&mut parent, &mut child], 0, 4_000);
    install(&mut child, 2);
    child.keys_mut().send_under(2).unwrap();
    let reached = (0..4 * PROBE_EVERY).filter(|_| hears(&mut parent, &mut child)).count();
    assert_eq!(reached, usize::from(4 * (PROBE_EVERY - 1)));
}

#[test]
fn one_that_reboots_while_it_is_late_is_greeted_under_its_own_key() {
    let (_, mut g) = pair();
    install(&mut g, 2);
    g.keys_mut().send_under(2).unwrap();
    let mut n = station(NODE, &[1], 4);
    greet(&mut [&mut n, &mut g], 100_000, 4_000);
    let both = (0..PROBE_EVERY).filter(|_| hears(&mut g, &mut n) && hears(&mut n, &mut g)).count();
    assert_eq!(both, usize::from(PROBE_EVERY - 1));
}

#[test]
fn under_a_retired_key_stragglers_are_taken_edhoc_and_nothing_else() {
    let (mut n, mut g) = pair();
    install(&mut g, 2);
    g.keys_mut().send_under(2).unwrap();
    g.keys_mut().retire(1, Millis(50_000)).unwrap();
    let now = Millis(10_000);
    for rule in (0..=0x3F).filter(|rule| *rule != 0x10) {
        let mut frame = sealed(&mut n, GATEWAY, &[rule, 1, 2, 3]);
        let refused = code(g.receive(now, &mut frame));
        // 00, 13 and 1F are no datagram of anybody.
        let none = [0, 0x1F].contains(&rule);
        assert_eq!(refused, if none { Code::TinyMalformed } else { Code::LinkKeyUnknown }, "{rule:02x}");
    }
    let mut frame = sealed(&mut n, GATEWAY, MESSAGE_1);
    assert!(matches!(g.receive(now, &mut frame.clone()), Ok(Received::Deliver(d)) if d.payload == MESSAGE_1));
    assert_eq!(code(g.receive(now, &mut frame)), Code::LinkReplayed);
    // Its answer goes under the same key, counted and leased.
    let mut out = [0; 127];
    let len = g.seal_in_recovery(1, (NODE, Ack::None), None, (EdhocRule::ToClient, &[7; 47]), &mut out).unwrap();
    assert_eq!(out[14], 1);
    assert!(matches!(n.receive(now, &mut out[..len]), Ok(Received::Deliver(d)) if d.payload[0] == 0x11));
    // And all of it ends.
    let mut frame = sealed(&mut n, GATEWAY, MESSAGE_1);
    assert_eq!(code(g.receive(Millis(50_000), &mut frame)), Code::LinkKeyUnknown);
    for index in [2, 3] {
        let other = g.seal_in_recovery(index, (NODE, Ack::None), None, (EdhocRule::ToClient, &[7]), &mut out);
        assert_eq!(other, Err(SealError::LeaseSpent), "{index} is not retired");
    }
}

#[test]
fn one_that_was_away_for_the_whole_rotation_syncs_for_edhoc_even_after_a_restart_of_both() {
    let mut g = station(GATEWAY, &[], 5);
    g.keys_mut().install_retired(1, &Key::new([1; 16]), 9_000, Millis(500_000)).unwrap();
    install(&mut g, 2);
    leased(&mut g);
    let mut n = station(NODE, &[1], 6);
    // The first answer needs a lease under the retired key: the second HELLO gets it.
    greet(&mut [&mut n, &mut g], 100_000, 12_000);
    let now = Millis(120_000);
    let mut frame = sealed(&mut n, GATEWAY, MESSAGE_1);
    assert!(g.receive(now, &mut frame).is_ok());
    let mut frame = sealed(&mut n, GATEWAY, READING);
    assert_eq!(code(g.receive(now, &mut frame)), Code::LinkKeyUnknown);
    let mut out = [0; 127];
    let len = g.seal_in_recovery(1, (NODE, Ack::None), None, (EdhocRule::ToClient, &[7; 9]), &mut out).unwrap();
    assert!(n.receive(now, &mut out[..len]).is_ok());
}

#[test]
fn whoever_was_shut_out_changes_nothing_with_the_key_that_was_retired() {
    let (mut n, mut g) = pair();
    for link in [&mut n, &mut g] {
        install(link, 2);
        link.keys_mut().send_under(2).unwrap();
    }
    assert!(hears(&mut g, &mut n) && hears(&mut n, &mut g));
    n.keys_mut().forget(1);
    g.keys_mut().retire(1, Millis(500_000)).unwrap();
    let before: Vec<Neighbour> = g.neighbours().entries.iter().copied().collect();
    // The thief is revoked, and speaks in his own name and in that of another. Far ahead: a jump would unsync.
    g.neighbours_mut().revoked.insert(Sid(0x0b));
    for sid in [Sid(0x0b), NODE] {
        let mut thief = station(sid, &[1], 200);
        greet(&mut [&mut thief, &mut g], 100_000, 8_000);
        for payload in [READING, MESSAGE_1] {
            let mut frame = sealed(&mut thief, GATEWAY, payload);
            assert_eq!(code(g.receive(Millis(110_000), &mut frame)), Code::LinkKeyUnknown, "{sid} {payload:?}");
        }
    }
    assert_eq!(g.neighbours().entries.iter().copied().collect::<Vec<_>>(), before);
    assert_eq!(g.poll_timeout(), None, "and we ask for nothing");
    assert!(hears(&mut g, &mut n) && hears(&mut n, &mut g));
}

#[test]
fn nodes_take_nothing_under_a_key_that_they_gave_up() {
    let (mut n, mut g) = pair();
    install(&mut n, 2);
    n.keys_mut().send_under(2).unwrap();
    n.keys_mut().forget(1);
    for payload in [READING, MESSAGE_1] {
        let mut frame = sealed(&mut g, NODE, payload);
        assert_eq!(code(n.receive(Millis(10_000), &mut frame)), Code::LinkKeyUnknown);
    }
}

#[test]
fn a_new_key_under_a_used_index_starts_with_empty_counters() {
    let (mut n, mut g) = pair();
    for link in [&mut n, &mut g] {
        install(link, 2);
        link.keys_mut().send_under(2).unwrap();
    }
    let under_1 = sealed(&mut n, GATEWAY, READING);
    for link in [&mut n, &mut g] {
        link.keys_mut().forget(1);
        // Far below what was counted under the old one.
        link.keys_mut().install(1, &Key::new([9; 16]), 0).unwrap();
        link.keys_mut().send_under(1).unwrap();
    }
    assert!(hears(&mut g, &mut n) && hears(&mut n, &mut g));
    assert!(g.receive(Millis(10_000), &mut under_1.clone()).is_ok(), "key 2 is in use still");
}

#[test]
fn one_that_did_not_hear_the_end_of_a_hello_under_the_new_key_is_asked_again() {
    let (mut n, mut g) = pair();
    install(&mut n, 2);
    install(&mut g, 2);
    g.keys_mut().send_under(2).unwrap();
    // Somebody whom it does not know makes the gateway say HELLO, which stands under the new key. So does the second answer
    // of the node: for the first one it has no numbers yet. No HELLO-FIN arrives.
    let mut stranger = station(Sid(0x0b), &[1], 5);
    let mut out = [0; 127];
    for start in [100_000, 200_000] {
        let mut frame = sealed(&mut stranger, GATEWAY, READING);
        assert_eq!(code(g.receive(Millis(start), &mut frame)), Code::LinkNeighbourUnknown);
        let mut ends = 0;
        for now in (start..start + 4_000).map(Millis) {
            leased(&mut n);
            leased(&mut g);
            while let Some(frame) = g.poll_control(now, &mut out) {
                ends += usize::from(frame.to.is_some());
                if frame.to.is_none() {
                    n.receive(now, &mut { out }[..frame.len]).unwrap();
                }
            }
            while let Some(frame) = n.poll_control(now, &mut out) {
                g.receive(now, &mut { out }[..frame.len]).unwrap();
            }
        }
        assert_eq!((ends, n.keys().sending()), (1, Some(1)));
    }
    // It sends under the old one, which the gateway takes nothing of any more. So the gateway asks, but rarely.
    for _ in 0..10 {
        let mut frame = sealed(&mut n, GATEWAY, READING);
        assert_eq!(code(g.receive(Millis(210_000), &mut frame)), Code::LinkReplayed);
    }
    greet(&mut [&mut n, &mut g], 260_000, 8_000);
    assert_eq!(n.keys().sending(), Some(2));
    assert!(hears(&mut g, &mut n) && hears(&mut n, &mut g));
}
