//! A device with IP that hears arbitrary datagrams, and arbitrary plaintexts that the holder of its key answers with.
#![no_main]

use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::oscore::{AnswerNumber, OscoreOption};
use fivefold_core::profile::{Policy, Profile, Radio};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{CHANGED, Outer, Protected, Type};
use fivefold_core::wire::ieee802154::Pan;
use fivefold_device::{Entropy, Event, Node, Output, Secrets, Settings};
use libfuzzer_sys::fuzz_target;

const SID: Sid = Sid(0x0A17);
const EPOCH: Epoch = Epoch(1);

fn secret() -> E3Secret {
    E3Secret::new(&[3; 32], &[4; 8]).expect("lengths are right")
}

/// What the node says until it has nothing more to say.
fn drain(node: &mut Node) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some(output) = node.poll() {
        match output {
            Output::Datagram(datagram) => sent.push(datagram.to_vec()),
            Output::Event(event) => assert!(!matches!(event, Event::GivenUp(_)), "under C3 nothing is given up"),
            _ => {}
        }
    }
    sent
}

fuzz_target!(|bytes: &[u8]| {
    let policy = Policy { radio: Radio::Ip, ..Policy::new(Profile::ToCloud) };
    let settings = Settings::new(Did([1; 8]), SID, Pan(7), policy, EPOCH);
    let secrets = Secrets { e3: Some(secret()), ..Secrets::default() };
    let mut seed = [0; 64];
    seed.iter_mut().zip(0u8..).for_each(|(s, n)| *s = n.wrapping_mul(37));
    let entropy = Entropy::check(seed).expect("all bytes differ");
    let mut node = Node::<8>::boot(Millis(0), settings, &secrets, None, &entropy).expect("all it needs is there");
    drain(&mut node);
    node.handle_datagram(Millis(1), bytes);
    drain(&mut node);

    node.send(Millis(2), &[0x84, 0x01, 0x18, 0xD7, 0x18, 0x2D, 0x18, 0x25]).expect("there is room");
    let sent = drain(&mut node);
    let Some(request) = sent.first() else { panic!("nothing was sent") };
    node.handle_datagram(Millis(3), bytes);
    assert!(node.waiting().count() == 1, "nobody confirmed it");

    // The cloud's own answer, with any plaintext.
    let request = Protected::parse_request(request, Outer::Strict).expect("our own message");
    let (Some(piv), true) = (request.option.piv, bytes.len() < 900) else { return };
    let cloud = secret().context_for_peer(SID, EPOCH, None, Alg::AesCcm16_64_256).expect("ids differ");
    let mut plain = [0; 1024];
    let opened = cloud.open_request(piv, request.ciphertext, &mut plain).expect("our own key");
    let (to, mut ciphertext, mut out) = (opened.request(), [0; 1024], [0; 1200]);
    let number = AnswerNumber::Unnumbered(opened.unnumbered());
    let len = cloud.seal_answer(&to, number, bytes, &mut ciphertext).expect("it fits");
    let answer = Protected {
        kind: Type::Non,
        code: CHANGED,
        message_id: 9,
        token: request.token,
        option: OscoreOption { piv: None, kid_context: None, kid: None },
        ciphertext: &ciphertext[..len],
    };
    let len = answer.emit(&mut out).expect("it fits");
    node.handle_datagram(Millis(4), &out[..len]);
    drain(&mut node);
    node.handle_timeout(Millis(100_000));
    drain(&mut node);
});
