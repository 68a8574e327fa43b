//! A device with IP of its own agrees on its first contexts by CoAP, on the curve that devices have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e5_renewal::{Credential, Identity, PeerKid, PqMix, Responder, ToServer};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::oscore::{AnswerNumber, judge_request};
use fivefold_core::profile::{Policy, Profile, Radio};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::p256::AgreementKey;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{self, Message, Outer, Protected, Token, Type, number};
use fivefold_device::renewal::{Failed, Keys, Peer, Stage};
use fivefold_device::{Entropy, Event, Node, Output, Secrets};
use world::{Flash, GROUP, PSK, did};

const SID: Sid = Sid(0x0a17);

struct Rim {
    node: Node<8, AgreementKey>,
    slots: fivefold_device::Slots<Flash>,
    now: Millis,
    events: Vec<Event>,
    dropped: Vec<Code>,
}

impl Rim {
    fn boot(device: AgreementKey, cloud: &Credential<'static>) -> Self {
        let mut settings = world::settings(SID, Profile::ToCloud);
        settings.policy.radio = Radio::Ip;
        let (slots, record) = fivefold_device::Slots::open(Flash::default()).unwrap();
        let keys = Keys {
            credential: Credential::device(SID, device.public_x()),
            own: device,
            peer: Peer::Cloud(cloud.clone()),
            mix: Some(PqMix::new(&PSK, did(SID))),
            group: GROUP,
        };
        let entropy = Entropy::check(core::array::from_fn(|n| (n * 5) as u8)).unwrap();
        let secrets = Secrets::default();
        let node = Node::boot_renewing(Millis(0), settings, &secrets, Some(keys), record, &entropy).unwrap();
        Self { node, slots, now: Millis(0), events: Vec::new(), dropped: Vec::new() }
    }

    /// Carries the script out; returns the datagrams.
    fn run(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(output) = self.node.poll() {
            match output {
                Output::Persist(record) => self.slots.write(&record).unwrap(),
                Output::Datagram(datagram) => sent.push(datagram.to_vec()),
                Output::Event(event) => self.events.push(event),
                Output::Dropped(rejected) => self.dropped.push(rejected.code),
                other => panic!("{other:?}"),
            }
        }
        sent
    }

    fn pass(&mut self, ms: u64) -> Vec<Vec<u8>> {
        self.now = self.now.plus(ms);
        self.node.handle_timeout(self.now);
        self.run()
    }

    fn hears(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.node.handle_datagram(self.now, datagram);
        self.run()
    }
}

fn emit(message: &Message<'_>) -> Vec<u8> {
    let mut out = [0; 160];
    let len = message.emit(&mut out).unwrap();
    out[..len].to_vec()
}

/// A request of RFC 9528 A.2: its payload and its token.
fn posted(datagram: &[u8]) -> (Vec<u8>, Token) {
    let message = Message::parse(datagram).unwrap();
    assert_eq!((message.kind, message.code), (Type::Con, coap::POST));
    let options: Vec<(u16, &[u8])> = message.options().collect();
    let expected: [(u16, &[u8]); 3] = [
        (number::URI_PATH, b".well-known"),
        (number::URI_PATH, b"edhoc"),
        // application/cid-edhoc+cbor-seq
        (number::CONTENT_FORMAT, &[65]),
    ];
    assert_eq!(options, expected);
    (message.payload.to_vec(), message.token)
}

fn answer(code: u8, token: Token, payload: &[u8]) -> Vec<u8> {
    emit(&Message { kind: Type::Non, code, message_id: 9, token, options: &[], payload })
}

#[test]
fn a_device_on_ip_posts_edhoc_says_its_short_id_and_sends_readings_under_what_was_agreed() {
    let [device, cloud_key, ephemeral] = [7, 8, 9].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
    let (device_x, cloud) = (device.public_x(), Credential::peer(PeerKid::new(0).unwrap(), cloud_key.public_x()));
    let mut rim = Rim::boot(device, &cloud);
    let mut sent = rim.run();
    while sent.is_empty() {
        sent = rim.pass(100);
    }
    let [message_1] = &sent[..] else { panic!("{sent:?}") };
    let (payload, token) = posted(message_1);
    let ToServer::Offer(offer) = ToServer::parse(&payload).unwrap() else { panic!() };
    assert_eq!((offer.announced(), offer.epoch()), (Some(SID), Some(Epoch(1))));
    let again = rim.pass(30_000);
    assert_eq!(&again[0], message_1, "the same again, Message ID and token included");

    let own = Identity { key: &cloud_key, credential: &cloud };
    let (session, message_2) = Responder::<E3, _>::answer(&offer, ephemeral, SID, &own).unwrap();
    let ack = emit(&Message::empty(Type::Ack, 9));
    let stranger = answer(coap::CHANGED, Token::new(&[1, 2, 3, 0]).unwrap(), message_2.as_bytes());
    let error = answer(coap::BAD_REQUEST, token, &[0x01, 0x60]);
    for other in [&ack, &stranger, &error] {
        assert_eq!(rim.hears(other), Vec::<Vec<u8>>::new());
        assert_eq!(rim.node.stage(), Stage::WaitMessage2(Epoch(1)));
    }
    assert_eq!(rim.dropped, [Code::TinyMalformed, Code::RenewalForged]);
    let sent = rim.hears(&answer(coap::CHANGED, token, message_2.as_bytes()));
    let [message_3] = &sent[..] else { panic!("{sent:?}") };
    let (payload, token_3) = posted(message_3);
    assert_ne!(token_3, token);
    assert_ne!(Message::parse(message_3).unwrap().message_id, Message::parse(message_1).unwrap().message_id);
    let ToServer::Proof { message_3, .. } = ToServer::parse(&payload).unwrap() else { panic!() };
    let read = session.handle_message_3(message_3).unwrap();
    let (agreed, message_4) = read.verify(&Credential::device(SID, device_x)).unwrap();
    assert!(rim.node.send(rim.now, &[0x81, 0x01]).is_err());
    rim.hears(&answer(coap::CHANGED, token_3, message_4.as_bytes()));
    assert!(rim.events.contains(&Event::RenewalAgreed(Epoch(1))));

    let number = rim.node.send(rim.now, &[0x82, 0x01, 0x05]).unwrap();
    let sent = rim.run();
    let request = Protected::parse_request(&sent[0], Outer::Strict).unwrap();
    let alg = Policy::new(Profile::ToCloud).alg;
    let e3: E3Secret = agreed.secrets(alg, Some(&PqMix::new(&PSK, did(SID)))).e3;
    let context = e3.context_for_peer(SID, Epoch(1), None, alg).unwrap();
    let mut plain = [0; 160];
    let opened = context.open_request(request.option.piv.unwrap(), request.ciphertext, &mut plain).unwrap();
    judge_request::<E3>(opened.plaintext()).unwrap();
    let mut sealed = [0; 64];
    let len = context
        .seal_answer(&opened.request(), AnswerNumber::Unnumbered(opened.unnumbered()), &[coap::CHANGED], &mut sealed)
        .unwrap();
    // An empty OSCORE option, number 9.
    let options = &[0x90];
    let (kind, code, token) = (Type::Non, coap::CHANGED, request.token);
    rim.hears(&emit(&Message { kind, code, message_id: 3, token, options, payload: &sealed[..len] }));
    assert!(rim.events.contains(&Event::RenewalConfirmed(Epoch(1))), "{:?}", rim.events);
    assert!(matches!(rim.events.last(), Some(Event::Delivered { number: n, .. }) if *n == number));
}

#[test]
fn a_responder_without_the_clouds_key_is_no_cloud() {
    let [device, cloud_key, other_key, ephemeral] = [7, 8, 10, 9].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
    let cloud = Credential::peer(PeerKid::new(0).unwrap(), cloud_key.public_x());
    let mut rim = Rim::boot(device, &cloud);
    let mut sent = rim.run();
    while sent.is_empty() {
        sent = rim.pass(100);
    }
    let (payload, token) = posted(&sent[0]);
    let ToServer::Offer(offer) = ToServer::parse(&payload).unwrap() else { panic!() };
    // It knows the credential, not the key.
    let own = Identity { key: &other_key, credential: &cloud };
    let (_, message_2) = Responder::<E3, _>::answer(&offer, ephemeral, SID, &own).unwrap();
    rim.hears(&answer(coap::CHANGED, token, message_2.as_bytes()));
    assert_eq!(rim.dropped, [Code::RenewalForged]);
    assert_eq!(rim.node.stage(), Stage::WaitMessage2(Epoch(1)));
    (0..100).for_each(|_| drop(rim.pass(1_000)));
    assert!(matches!(rim.events.last(), Some(Event::RenewalFailed { failed: Failed::Unanswered, .. })));
}
