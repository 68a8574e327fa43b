//! A device on LoRaWAN: bare tiny frames up and down, its first byte the FPort; the radio's own keys are E1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::e5_renewal::{Credential, PeerKid, ToServer};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{AnswerNumber, Context, PartialIv};
use fivefold_core::profile::{Profile, Radio};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::p256::AgreementKey;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap;
use fivefold_core::wire::tiny::{EdhocRule, Inner, KidLength, LORAWAN_DR0, Layers, Tiny, Within};
use fivefold_device::renewal::{Keys, NoCurve, Peer};
use fivefold_device::{Entropy, Event, Node, Output, Secrets, Settings};
use world::{ALG, did, e2, e3};

const SID: Sid = Sid(0x0a17);
const EPOCH: Epoch = Epoch(1);

struct Rim<A> {
    node: Node<8, A>,
    slots: fivefold_device::Slots<world::Flash>,
    events: Vec<Event>,
    dropped: Vec<Code>,
}

fn settings(profile: Profile) -> Settings {
    let mut settings = world::settings(SID, profile);
    settings.policy.radio = Radio::Lorawan;
    settings
}

fn entropy() -> Entropy {
    Entropy::check(core::array::from_fn(|n| (n * 5) as u8)).unwrap()
}

impl Rim<NoCurve> {
    fn boot(profile: Profile) -> Self {
        let (slots, record) = fivefold_device::Slots::open(world::Flash::default()).unwrap();
        let secrets = Secrets {
            e2: profile.has_e2().then(|| e2(SID, EPOCH)),
            e3: profile.has_e3().then(|| e3(SID, EPOCH)),
            // None of the network: a device on LoRaWAN has none.
            ..Secrets::default()
        };
        let node = Node::boot(Millis(0), settings(profile), &secrets, record, &entropy()).unwrap();
        Self { node, slots, events: Vec::new(), dropped: Vec::new() }
    }
}

impl<A: fivefold_core::suite::agreement::Agree> Rim<A> {
    /// Carries the script out; returns what goes to the radio.
    fn run(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(output) = self.node.poll() {
            match output {
                Output::Persist(record) => self.slots.write(&record).unwrap(),
                Output::Tiny(frame) => sent.push(frame.to_vec()),
                Output::Event(event) => self.events.push(event),
                Output::Dropped(rejected) => self.dropped.push(rejected.code),
                other => panic!("{other:?}"),
            }
        }
        sent
    }
}

/// The answer to a request, without a number.
fn answered<L: OscoreLevel>(
    context: &Context<L>,
    piv: PartialIv,
    ciphertext: &[u8],
    says: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let (mut plain, mut sealed) = ([0; 128], [0; 128]);
    let opened = context.open_request(piv, ciphertext, &mut plain).unwrap();
    let (request, said) = (opened.request(), says(opened.plaintext()));
    let right = AnswerNumber::Unnumbered(opened.unnumbered());
    let len = context.seal_answer(&request, right, &said, &mut sealed).unwrap();
    sealed[..len].to_vec()
}

#[test]
fn a_reading_goes_up_as_one_bare_tiny_frame_and_the_answer_confirms_it() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let mut rim = Rim::boot(profile);
        rim.run();
        let number = rim.node.send(Millis(0), &[0x82, 0x01, 0x05]).unwrap();
        let sent = rim.run();
        let [frame] = &sent[..] else { panic!("{sent:?}") };
        let request = Tiny::parse(frame, KidLength::None).unwrap();
        let Tiny::Request { layers, piv, ciphertext, .. } = request else { panic!("{request:?}") };
        let (c2, c3) = (e2(SID, EPOCH), e3(SID, EPOCH));
        let c2 = c2.context_for_peer(SID, EPOCH, None, ALG).unwrap();
        let c3 = c3.context_for_peer(SID, EPOCH, None, ALG).unwrap();
        let accepted = |_: &[u8]| vec![coap::CHANGED];
        let ciphertext = match layers {
            Layers::C3 => answered(&c3, piv, ciphertext, accepted),
            Layers::C2 => answered(&c2, piv, ciphertext, accepted),
            Layers::C2OverC3 => answered(&c2, piv, ciphertext, |plaintext| {
                let Inner::Same { ct3 } = Inner::parse(plaintext, Within::Request).unwrap() else { panic!() };
                let ct3 = answered(&c3, piv, ct3, accepted);
                let mut nested = [0; 64];
                let n = Inner::Same { ct3: &ct3 }.emit(&mut nested).unwrap();
                nested[..n].to_vec()
            }),
        };
        let answer = Tiny::Answer { layers, token: piv.value() as u8, piv: None, ciphertext: &ciphertext };
        let mut frame = [0; 64];
        let len = answer.emit(&mut frame).unwrap();
        rim.node.handle_tiny(Millis(4_000), &frame[..len]);
        rim.run();
        let delivered = |e: &Event| matches!(e, Event::Delivered { number: n, .. } if *n == number);
        assert!(rim.events.iter().any(delivered), "{profile:?}: {:?} {:?}", rim.events, rim.dropped);
    }
}

#[test]
fn the_longest_reading_fills_the_slowest_data_rate() {
    for (profile, room) in [(Profile::ToCloud, 40), (Profile::ToGateway, 40), (Profile::ToBoth, 31)] {
        let mut rim = Rim::boot(profile);
        rim.run();
        // One byte more than docs/protocol.md 6.4 says, as the number has one byte less yet.
        assert_eq!(rim.node.room(), room);
        assert!(rim.node.send(Millis(0), &vec![0x01; room + 1]).is_err());
        rim.node.send(Millis(0), &vec![0x01; room]).unwrap();
        // The RuleID is the FPort.
        assert_eq!(rim.run()[0].len(), 1 + LORAWAN_DR0);
    }
}

#[test]
fn what_no_network_server_brings_is_refused() {
    let mut rim = Rim::boot(Profile::ToCloud);
    rim.run();
    for frame in [&[][..], &[0x00, 1], &[0x09, 1, 1, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], &[0x22, 0, 0]] {
        rim.node.handle_tiny(Millis(0), frame);
    }
    rim.node.handle_datagram(Millis(0), &[0x60, 0x44, 0, 0]);
    rim.node.handle_frame(Millis(0), &mut [0; 30]);
    rim.run();
    let malformed = Code::TinyMalformed;
    let expected = [malformed, malformed, Code::CloudReplayed, Code::PivNotMinimal, malformed, Code::LinkNotOurs];
    assert_eq!(rim.dropped, expected);
    // And what a network server would bring, where there is none.
    let mut ip = settings(Profile::ToCloud);
    ip.policy.radio = Radio::Ip;
    let secrets = Secrets { e3: Some(e3(SID, EPOCH)), ..Secrets::default() };
    let mut node = Node::<8>::boot(Millis(0), ip, &secrets, None, &entropy()).unwrap();
    node.handle_tiny(Millis(0), &[0x01, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(node.tally().of(Code::LinkNotOurs), 1);
}

#[test]
fn keys_are_agreed_under_rule_10() {
    let [own, cloud] = [7, 8].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
    let keys = Keys {
        credential: Credential::device(SID, own.public_x()),
        own,
        peer: Peer::Cloud(Credential::peer(PeerKid::new(0).unwrap(), cloud.public_x())),
        mix: Some(fivefold_core::e5_renewal::PqMix::new(&world::PSK, did(SID))),
        group: world::GROUP,
    };
    let (slots, record) = fivefold_device::Slots::open(world::Flash::default()).unwrap();
    let settings = settings(Profile::ToCloud);
    let node = Node::boot_renewing(Millis(0), settings, &Secrets::default(), Some(keys), record, &entropy()).unwrap();
    let mut rim = Rim { node, slots, events: Vec::new(), dropped: Vec::new() };
    let mut sent = rim.run();
    for now in 1..100 {
        if sent.is_empty() {
            rim.node.handle_timeout(Millis(now * 100));
            sent = rim.run();
        }
    }
    let Tiny::Edhoc { rule: EdhocRule::ToServer, payload } = Tiny::parse(&sent[0], KidLength::None).unwrap() else {
        panic!("{sent:?}")
    };
    let ToServer::Offer(offer) = ToServer::parse(payload).unwrap() else { panic!() };
    assert_eq!((offer.announced(), offer.epoch()), (None, Some(EPOCH)), "the DevEUI says whose it is");
    assert!(sent[0].len() <= 1 + LORAWAN_DR0);
}
