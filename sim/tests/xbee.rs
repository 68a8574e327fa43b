//! Node, relay and gateway engines over XBee modules that are no more than a way for messages: E1S both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../gateway/tests/common/mod.rs"]
mod common;

use common::{Device as Peer, Heard, PAN, World, cloud_answer};
use fivefold_core::e1_link::{Air, LinkPolicy, Over, Reach};
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{KidLength, LinkClass, Policy, Profile, Radio};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::ieee802154::SecurityLevel;
use fivefold_core::wire::state::Standing;
use fivefold_device::{Entropy, Event, Frame, Node, Number, Output, Relay, RelayOutput, Secrets, Settings};
use fivefold_gateway::gateway::{Cloud, Setup};

const STEP: u64 = 20;
const RELAY: u8 = 9;
const GATEWAY: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 200]);
/// As long as a message of the payload may be: three values of a SenML pack.
const READING: &[u8] = &[0x82, 0x01, 0x15];

/// A message in the air: from, to, bytes.
type Sent = (Did, Option<Did>, Vec<u8>);

/// What a message was, for looking at afterwards.
struct Village {
    world: World,
    nodes: Vec<(Peer, Node<8>, Vec<Event>)>,
    relay: Relay,
    relay_did: Did,
    uptime: Millis,
    /// Who hears whom.
    reach: Vec<(Did, Did)>,
    air: Vec<Sent>,
    log: Vec<Sent>,
    gateway_dropped: Vec<Code>,
    relay_dropped: Vec<Code>,
    envelopes: Vec<(Kind, LinkClass, Option<i16>, Option<u8>)>,
    numbers: u32,
}

fn both(boot: GatewayBoot) -> Setup {
    let policy = LinkPolicy {
        minimum: SecurityLevel::EncMic32,
        sending: SecurityLevel::EncMic64,
        air: Air::Both { longest: 100 },
    };
    Setup { policy, ..common::setup(boot) }
}

impl Village {
    /// The first node hears the gateway, the second one the relay alone.
    fn new(profile: Profile, radio: Radio) -> Self {
        let peers: Vec<Peer> = [1, 2, RELAY]
            .into_iter()
            .map(|n| {
                let mut peer = Peer::new(n, profile);
                (peer.policy.radio, peer.policy.kid_length) = (radio, KidLength::Two);
                peer
            })
            .collect();
        let mut world = World::with(both);
        world.push(&common::state(1, &peers.iter().collect::<Vec<_>>(), Standing::Active)).unwrap();
        world.gateway.handle_cloud(world.now, Cloud::Reachable);
        let [near, far, relay] = <[Peer; 3]>::try_from(peers).ok().unwrap();
        let reach = vec![(near.did, GATEWAY), (relay.did, GATEWAY), (far.did, relay.did), (near.did, relay.did)];
        let engine = Relay::boot(Millis(0), &settings(&relay, &[]), &secrets(&relay), None, &entropy(5)).unwrap();
        let node = |peer: Peer, parents: &[Sid], seed: u8| {
            let settings = settings(&peer, parents);
            let node = Node::boot(Millis(0), settings, &secrets(&peer), None, &entropy(seed)).unwrap();
            (peer, node, Vec::new())
        };
        Self {
            world,
            nodes: vec![node(near, &[], 7), node(far, &[relay.sid], 11)],
            relay: engine,
            relay_did: relay.did,
            uptime: Millis(0),
            reach,
            air: Vec::new(),
            log: Vec::new(),
            gateway_dropped: Vec::new(),
            relay_dropped: Vec::new(),
            envelopes: Vec::new(),
            numbers: 0,
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.uptime = self.uptime.plus(STEP);
            let heard = self.world.wait(STEP);
            self.hear_gateway(heard);
            self.relay.handle_timeout(self.uptime);
            for n in 0..self.nodes.len() {
                self.nodes[n].1.handle_timeout(self.uptime);
            }
            self.poll();
            for message in std::mem::take(&mut self.air) {
                self.carry(&message);
            }
            self.cloud();
        }
    }

    fn poll(&mut self) {
        while let Some(output) = self.relay.poll() {
            match output {
                RelayOutput::Transmit(frame) => self.air.push(sent(self.relay_did, &frame)),
                RelayOutput::Dropped(rejected) => self.relay_dropped.push(rejected.code),
                _ => {}
            }
        }
        for (peer, node, events) in &mut self.nodes {
            while let Some(output) = node.poll() {
                match output {
                    Output::Transmit(frame) => self.air.push(sent(peer.did, &frame)),
                    Output::Event(event) => events.push(event),
                    Output::Dropped(rejected) => assert_eq!(rejected.code, Code::LinkNotOurs, "{rejected}"),
                    _ => {}
                }
            }
        }
    }

    /// The modules: a message reaches whom it is for, or everybody, as far as the air goes.
    fn carry(&mut self, message: &Sent) {
        self.log.push(message.clone());
        let (from, to, bytes) = message;
        let hears = |who: Did| {
            let near = self.reach.iter().any(|&(a, b)| (a, b) == (*from, who) || (a, b) == (who, *from));
            (near && to.is_none_or(|to| to == who)).then_some(if to.is_some() { Reach::Us } else { Reach::Everybody })
        };
        let (gateway, relay) = (hears(GATEWAY), hears(self.relay_did));
        let nodes: Vec<_> = self.nodes.iter().map(|(peer, ..)| hears(peer.did)).collect();
        if let Some(reach) = gateway {
            let heard = self.world.message((*from, reach), bytes);
            self.hear_gateway(heard);
        }
        if let Some(reach) = relay {
            self.relay.handle_message(self.uptime, (*from, reach), &mut bytes.clone());
        }
        for ((_, node, _), reach) in self.nodes.iter_mut().zip(nodes) {
            if let Some(reach) = reach {
                node.handle_message(self.uptime, (*from, reach), &mut bytes.clone());
            }
        }
    }

    fn hear_gateway(&mut self, heard: Heard) {
        self.air.extend(heard.messages.into_iter().map(|(to, bytes)| (GATEWAY, to, bytes)));
        self.gateway_dropped.extend(heard.dropped.iter().map(|(code, _)| *code));
    }

    fn cloud(&mut self) {
        let (mut answers, mut upto) = (Vec::new(), 0);
        for bytes in self.world.stored() {
            let envelope = Envelope::parse(&bytes).unwrap();
            upto = upto.max(envelope.seq);
            if envelope.kind == Kind::Event {
                continue;
            }
            self.envelopes.push((envelope.kind, envelope.link, envelope.rssi, envelope.hops));
            if envelope.kind == Kind::CloudTiny {
                let fivefold_core::wire::envelope::Originator::Node { sid, .. } = envelope.originator else { continue };
                let (peer, ..) = self.nodes.iter().find(|(p, ..)| p.sid == sid).unwrap();
                self.numbers += 1;
                answers.push((envelope.seq, sid, cloud_answer(peer, envelope.bytes, Some(self.numbers), &[])));
            }
        }
        if upto > 0 {
            let heard = self.world.deliver(upto, &answers);
            self.hear_gateway(heard);
        }
    }

    fn send(&mut self, n: usize, reading: &[u8]) -> Number {
        self.nodes[n].1.send(self.uptime, reading).unwrap()
    }

    fn delivered(&self, n: usize, number: Number) -> bool {
        self.nodes[n].2.iter().any(|e| matches!(e, Event::Delivered { number: n, .. } if *n == number))
    }
}

fn sent(from: Did, frame: &Frame) -> Sent {
    let Over::E1s { to } = frame.over() else { panic!("an 802.15.4 frame on an XBee") };
    (from, to, frame.as_bytes().to_vec())
}

fn settings(peer: &Peer, parents: &[Sid]) -> Settings {
    let mut settings = Settings::new(peer.did, peer.sid, PAN, peer.policy, Epoch(1));
    if !parents.is_empty() {
        settings.ways.parents = parents.iter().copied().collect();
    }
    settings
}

fn secrets(peer: &Peer) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.link.push((1, Key::new(common::KEY))).unwrap();
    secrets.e3 = E3Secret::new(&peer.ms3, &[3; 8]);
    secrets.e2 = Some(peer.root.secret(common::GROUP));
    secrets
}

fn entropy(seed: u8) -> Entropy {
    Entropy::check(core::array::from_fn(|n| (n as u8).wrapping_mul(seed))).unwrap()
}

#[test]
fn readings_are_confirmed_over_both_kinds_of_module_directly_and_by_a_relay() {
    for radio in [Radio::Xbee, Radio::Digimesh] {
        for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
            let mut village = Village::new(profile, radio);
            village.run(9_000);
            let numbers = [village.send(0, READING), village.send(1, READING)];
            village.run(3_000);
            for (n, number) in numbers.into_iter().enumerate() {
                assert!(
                    village.delivered(n, number),
                    "{profile} {radio}, node {n}: {:?} {:?} {:?}",
                    village.nodes[n].2,
                    village.gateway_dropped,
                    village.relay_dropped
                );
            }
            let direct = village.envelopes.iter().filter(|(_, _, _, hops)| hops.is_none()).count();
            assert!(direct > 0 && direct < village.envelopes.len(), "one way has a mesh header and the other has none");
            let marked = |(_, link, rssi, _): &(Kind, LinkClass, Option<i16>, Option<u8>)| {
                *link == LinkClass::E1s && *rssi == Some(-60)
            };
            assert!(village.envelopes.iter().all(marked), "{:?}", village.envelopes);
        }
    }
}

#[test]
fn a_gateway_that_answered_is_spoken_to_alone_until_it_is_silent() {
    let mut village = Village::new(Profile::ToCloud, Radio::Xbee);
    village.run(9_000);
    let near = village.nodes[0].0.did;
    let first = village.send(0, READING);
    village.run(2_000);
    assert!(village.delivered(0, first));
    village.log.clear();
    let second = village.send(0, READING);
    village.run(2_000);
    assert!(village.delivered(0, second));
    let readings = |village: &Village| -> Vec<Option<Did>> {
        village.log.iter().filter(|(from, ..)| *from == near).map(|(_, to, _)| *to).collect()
    };
    assert_eq!(readings(&village), [Some(GATEWAY)]);
    village.reach.retain(|(a, _)| *a != near);
    let third = village.send(0, READING);
    village.run(30_000);
    assert!(!village.delivered(0, third));
    village.log.clear();
    village.run(90_000);
    assert!(readings(&village).contains(&None), "to everybody, after nobody answered");
    village.reach.push((near, GATEWAY));
    village.run(400_000);
    assert!(village.delivered(0, third), "{:?}", village.gateway_dropped);
}

#[test]
fn a_full_reading_fits_the_module_with_every_combination() {
    for (radio, longest) in [(Radio::Xbee, 100), (Radio::Digimesh, 73)] {
        for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
            let mut village = Village::new(profile, radio);
            village.run(9_000);
            let mut full = [0; 2];
            for (n, full) in full.iter_mut().enumerate() {
                *full = village.nodes[n].1.room();
                // A definite byte string in an array with a template id: all of the room.
                let mut reading = vec![0x82, 0x01, 0x58, (*full - 4) as u8];
                reading.resize(*full, 0x55);
                village.log.clear();
                let number = village.send(n, &reading);
                village.run(2_000);
                assert!(village.delivered(n, number), "{profile} {radio} {n}");
                let most = village.log.iter().map(|(.., bytes)| bytes.len()).max().unwrap();
                assert_eq!(most, longest, "{profile} {radio} {n}");
            }
            assert_eq!(full[0] - full[1], 5, "the mesh header");
        }
    }
}

#[test]
fn what_was_said_to_everybody_is_forwarded_by_no_relay() {
    let mut village = Village::new(Profile::ToCloud, Radio::Xbee);
    village.run(9_000);
    village.log.clear();
    let number = village.send(0, READING);
    village.run(2_000);
    assert!(village.delivered(0, number));
    let relay = village.relay_did;
    assert!(village.relay_dropped.contains(&Code::LinkNotOurs), "the relay heard it");
    assert!(village.log.iter().all(|(from, ..)| *from != relay), "and was silent");
}

#[test]
fn the_policy_of_a_module_has_the_sizes_of_the_protocol() {
    // docs/protocol.md 6.4, with numbers of one byte.
    for (radio, single, nested) in [(Radio::Xbee, 71, 62), (Radio::Digimesh, 48, 39)] {
        for (profile, room) in [(Profile::ToCloud, single), (Profile::ToGateway, single), (Profile::ToBoth, nested)] {
            let peer = Peer::new(1, profile);
            let policy = Policy { radio, kid_length: KidLength::Two, ..peer.policy };
            let settings = Settings::new(peer.did, peer.sid, PAN, policy, Epoch(1));
            let node: Node<8> = Node::boot(Millis(0), settings, &secrets(&peer), None, &entropy(3)).unwrap();
            assert_eq!(node.room(), room, "{radio} {profile}");
        }
    }
}
