//! The device engine and the gateway engine, over a real store: what one says the other takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../gateway/tests/common/mod.rs"]
mod common;

use common::{Device as Peer, PAN, World, cloud_answer};
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::error::Code;
use fivefold_core::id::Epoch;
use fivefold_core::key::Key;
use fivefold_core::profile::{Profile, Radio};
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::state::Standing;
use fivefold_device::{Entropy, Event, Node, Number, Output, Secrets, Settings};
use fivefold_gateway::gateway::Cloud;

/// Milliseconds between two looks at the clock.
const STEP: u64 = 100;
const READING: &[u8] = &[0x82, 0x01, 0x15];

/// A device engine in reach of a gateway engine, and a cloud that can be away.
struct Village {
    peer: Peer,
    node: Node<8>,
    world: Option<World>,
    uptime: Millis,
    events: Vec<Event>,
    cloud_is_away: bool,
    answered: usize,
    seen: std::collections::BTreeMap<Vec<u8>, u32>,
    numbers: u32,
    dropped: Vec<Code>,
}

impl Village {
    fn new(profile: Profile, radio: Radio) -> Self {
        let mut peer = Peer::new(1, profile);
        peer.policy.radio = radio;
        peer.overrides.danger_no_link = radio == Radio::Ip;
        let mut world = World::new();
        world.push(&common::state(1, &[&peer], Standing::Active)).unwrap();
        world.gateway.handle_cloud(world.now, Cloud::Reachable);
        let node = boot(&peer, 7);
        Self {
            peer,
            node,
            world: Some(world),
            uptime: Millis(0),
            events: Vec::new(),
            cloud_is_away: false,
            answered: 0,
            seen: std::collections::BTreeMap::new(),
            numbers: 0,
            dropped: Vec::new(),
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.uptime = self.uptime.plus(STEP);
            let heard = self.world().wait(STEP);
            self.down(heard);
            self.node.handle_timeout(self.uptime);
            self.up();
            if !self.cloud_is_away {
                self.cloud();
            }
        }
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn up(&mut self) {
        while let Some(output) = self.node.poll() {
            let heard = match output {
                Output::Transmit(frame) => self.world().frame(frame.as_bytes()),
                Output::Datagram(message) => self.world().coap("127.0.0.1:5683".parse().unwrap(), &message),
                Output::Event(event) => {
                    self.events.push(event);
                    continue;
                }
                // A repeat is answered again; the second answer has nothing new.
                Output::Dropped(rejected) => {
                    assert!(matches!(rejected.code, Code::CloudReplayed | Code::GatewayReplayed), "{rejected}");
                    continue;
                }
                _ => continue,
            };
            self.down(heard);
        }
    }

    fn down(&mut self, heard: common::Heard) {
        let air = if self.peer.policy.radio == Radio::Ip { Vec::new() } else { heard.air };
        for frame in air {
            self.node.handle_frame(self.uptime, &mut frame.clone());
        }
        for (_, message) in heard.udp {
            self.node.handle_datagram(self.uptime, &message);
        }
        self.dropped.extend(heard.dropped.iter().map(|(code, _)| code));
    }

    /// Takes what the spool holds, answers what is for the cloud: the first time without a number.
    fn cloud(&mut self) {
        let mut answers = Vec::new();
        let mut upto = 0;
        for bytes in self.world().stored() {
            let envelope = Envelope::parse(&bytes).unwrap();
            upto = upto.max(envelope.seq);
            if matches!(envelope.kind, Kind::CloudTiny | Kind::CloudCoap) {
                let times = self.seen.entry(envelope.bytes.to_vec()).or_default();
                *times += 1;
                let number = if *times == 1 { None } else { Some(self.numbers) };
                self.numbers += u32::from(number.is_some());
                answers.push((envelope.seq, self.peer.sid, cloud_answer(&self.peer, envelope.bytes, number, &[])));
                self.answered += 1;
            }
        }
        if upto > 0 {
            let heard = self.world().deliver(upto, &answers);
            self.down(heard);
            self.up();
        }
    }

    fn send(&mut self) -> Number {
        let number = self.node.send(self.uptime, READING).unwrap();
        self.up();
        number
    }

    fn delivered(&self, number: Number) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Delivered { number: n, .. } if *n == number))
    }
}

fn boot(peer: &Peer, seed: u8) -> Node<8> {
    let mut secrets = Secrets::default();
    secrets.link.push((1, Key::new(common::KEY))).unwrap();
    secrets.e3 = E3Secret::new(&peer.ms3, &[3; 8]);
    secrets.e2 = Some(peer.root.secret(common::GROUP));
    let settings = Settings::new(peer.did, peer.sid, PAN, peer.policy, Epoch(1));
    let entropy = Entropy::check(core::array::from_fn(|n| (n as u8).wrapping_mul(seed))).unwrap();
    Node::boot(Millis(0), settings, &secrets, None, &entropy).unwrap()
}

const LINKS: [(Profile, Radio); 6] = [
    (Profile::ToCloud, Radio::Ieee802154),
    (Profile::ToGateway, Radio::Ieee802154),
    (Profile::ToBoth, Radio::Ieee802154),
    (Profile::ToCloud, Radio::Ip),
    (Profile::ToGateway, Radio::Ip),
    (Profile::ToBoth, Radio::Ip),
];

#[test]
fn a_reading_is_confirmed_over_every_combination_and_link() {
    for (profile, radio) in LINKS {
        let mut village = Village::new(profile, radio);
        village.run(6_000);
        let number = village.send();
        village.run(1_000);
        assert!(village.delivered(number), "{profile} {radio}: {:?} {:?}", village.events, village.dropped);
    }
}

#[test]
fn a_reading_is_confirmed_once_the_cloud_is_back_and_custody_freed_nothing() {
    for (profile, radio) in LINKS {
        let mut village = Village::new(profile, radio);
        village.run(6_000);
        village.cloud_is_away = true;
        let number = village.send();
        village.run(30_000);
        if profile.has_e3() {
            assert!(!village.delivered(number), "{profile} {radio}");
            assert!(village.node.waiting().any(|n| n == number));
            let custody = village.events.contains(&Event::Custody(number));
            assert_eq!(
                custody,
                profile == Profile::ToBoth,
                "{profile} {radio}: {:?} {:?}",
                village.events,
                village.dropped
            );
        }
        village.cloud_is_away = false;
        village.run(200_000);
        assert!(village.delivered(number), "{profile} {radio}: {:?} {:?}", village.events, village.dropped);
    }
}

#[test]
fn a_gateway_that_was_killed_goes_on_where_it_was() {
    for (profile, radio) in LINKS {
        let mut village = Village::new(profile, radio);
        village.run(6_000);
        village.cloud_is_away = true;
        let number = village.send();
        village.run(1_000);
        let world = village.world.take().unwrap().restart();
        village.world = Some(world);
        village.cloud_is_away = false;
        village.run(300_000);
        let later = village.send();
        village.run(60_000);
        assert!(
            village.delivered(number) && village.delivered(later),
            "{profile} {radio}: {:?} {:?}",
            village.events,
            village.dropped
        );
    }
}

#[test]
fn a_device_with_the_link_alone_is_heard() {
    let mut village = Village::new(Profile::DangerLinkOnly, Radio::Ieee802154);
    village.run(6_000);
    village.cloud_is_away = true;
    village.send();
    village.run(100);
    let stored = village.world().stored();
    let kinds: Vec<_> = stored.iter().map(|b| Envelope::parse(b).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::DangerPlain], "{:?}", village.dropped);
}
