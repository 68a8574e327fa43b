//! A device's side of EDHOC with a responder of somebody else, over CoAP and UDP, and two requests under what both agreed on.
//! `./ci.sh interop` runs it against aiocoap with lakers-python.
//!
//!     edhoc_initiator ADDRESS SID EPOCH own|any < KEYS
//!
//! KEYS are two lines of hex: our private key, and the responder's CCS. `own`: the responder chooses C_R as
//! docs/protocol.md 11 says, and EAD_1 says who we are, as devices with IP do it. `any`: it chooses C_R by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::Read as _;
use std::net::UdpSocket;
use std::time::Duration;

use fivefold_core::counter::Lease;
use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Agreed, Announce, Credential, Identity, Initiator, Message as Edhoc, WaitM2};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{Context, Id, OscoreOption, Params, Plaintext};
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::p256::AgreementKey;
use fivefold_core::wire::coap::{self, Message, Protected, Token, Type, number};

/// What suite 2 gives a stock implementation (RFC 9528 A.1).
const ALG: Alg = Alg::AesCcm16_64_128;

struct Wire {
    socket: UdpSocket,
    message_id: u16,
}

impl Wire {
    fn next(&mut self) -> (u16, Token) {
        self.message_id += 1;
        (self.message_id, Token::from(self.message_id as u8))
    }

    /// Sends a request, the same bytes every second, until it is answered.
    fn ask(&self, request: &[u8], token: Token) -> Vec<u8> {
        let mut buffer = [0; 2048];
        for _ in 0..30 {
            self.socket.send(request).unwrap();
            while let Ok(n) = self.socket.recv(&mut buffer) {
                let answer = Message::parse(&buffer[..n]).unwrap();
                if answer.token == token && answer.code != 0 {
                    return buffer[..n].to_vec();
                }
            }
        }
        panic!("nobody answers");
    }

    fn edhoc(&mut self, sent: &Edhoc) -> Vec<u8> {
        let mut options = [0; 64];
        let mut at = coap::emit_option(&mut options, 0, number::URI_PATH, b".well-known").unwrap();
        at += coap::emit_option(&mut options[at..], number::URI_PATH, number::URI_PATH, b"edhoc").unwrap();
        let (message_id, token) = self.next();
        let (options, payload) = (&options[..at], sent.as_bytes());
        let message = Message { kind: Type::Con, code: coap::POST, message_id, token, options, payload };
        let mut out = vec![0; message.emitted_len()];
        message.emit(&mut out).unwrap();
        let answer = self.ask(&out, token);
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.code, coap::CHANGED, "{answer:?}");
        answer.payload.to_vec()
    }

    /// POSTs to `r` under OSCORE, and returns what stands in the protected answer.
    fn post<L: OscoreLevel>(&mut self, context: &Context<L>, lease: &mut Lease, payload: &[u8]) -> Vec<u8> {
        let mut plaintext = vec![coap::POST, 0, 0];
        let path = coap::emit_option(&mut plaintext[1..], 0, number::URI_PATH, b"r").unwrap();
        plaintext.truncate(1 + path);
        plaintext.push(0xFF);
        plaintext.extend(payload);
        let mut sealed = [0; 200];
        let (request, len) = context.seal_request(lease.take().unwrap(), &plaintext, &mut sealed).unwrap();
        let (message_id, token) = self.next();
        let kid = context.sender_id();
        let option = OscoreOption { piv: Some(request.piv), kid_context: None, kid: Some(kid.as_bytes()) };
        let (code, ciphertext) = (coap::POST, &sealed[..len]);
        let message = Protected { kind: Type::Con, code, message_id, token, option, ciphertext };
        let mut out = vec![0; message.emitted_len()];
        let len = message.emit(&mut out).unwrap();
        let answer = self.ask(&out[..len], token);
        let Ok(answer) = Protected::parse_answer(&answer) else {
            panic!("not protected: {:?}", Message::parse(&answer))
        };
        let mut opened = [0; 200];
        let opened = context.open_answer(&request, answer.option.piv, answer.ciphertext, &mut opened).unwrap();
        let inner = Plaintext::parse(opened.plaintext()).unwrap();
        assert_eq!(inner.code, coap::CHANGED);
        inner.payload.to_vec()
    }
}

fn agree<L: OscoreLevel>(
    wire: &mut Wire,
    (waiting, m1): (Initiator<L, WaitM2<AgreementKey>>, Edhoc),
    own: &Identity<'_, AgreementKey>,
    peer: &Credential<'_>,
) -> Agreed<L> {
    let m2 = wire.edhoc(&m1);
    let (waiting, m3) = waiting.handle_message_2(&m2, own, peer).unwrap();
    let m4 = wire.edhoc(&m3);
    waiting.handle_message_4(&m4).unwrap()
}

fn exchange<L: OscoreLevel>(wire: &mut Wire, context: &Context<L>) {
    println!(
        "context {} {}",
        hex::encode(context.sender_id().as_bytes()),
        hex::encode(context.recipient_id().as_bytes())
    );
    let mut lease = Lease::resume(0, 1 << 20);
    lease.extend(2);
    for payload in [b"first reading".as_slice(), b"second reading"] {
        println!("answer {}", hex::encode(wire.post(context, &mut lease, payload)));
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, sid, epoch, c_r] = &words[..] else { panic!("four words: ADDRESS SID EPOCH own|any") };
    let (sid, epoch): (Sid, Epoch) = (sid.parse().unwrap(), Epoch(epoch.parse().unwrap()));
    let mut keys = String::new();
    std::io::stdin().read_to_string(&mut keys).unwrap();
    let keys: Vec<Vec<u8>> = keys.lines().map(|line| hex::decode(line).unwrap()).collect();
    let [key, ccs] = &keys[..] else { panic!("two lines: a private key, the responder's CCS") };
    let key = AgreementKey::from_random(key.as_slice().try_into().unwrap()).unwrap();
    let (own, peer) = (Credential::device(sid, key.public_x()), Credential::parse(ccs).unwrap());
    let own = Identity { key: &key, credential: &own };
    let mut ephemeral = [0; 32];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut ephemeral).unwrap();
    let ephemeral = AgreementKey::from_random(&ephemeral).unwrap();

    let socket = UdpSocket::bind(if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut wire = Wire { socket, message_id: 0 };
    match c_r.as_str() {
        "own" => {
            let offer = Initiator::<E3, _>::offer(ephemeral, sid, epoch, Announce::Sid).unwrap();
            let secrets = agree(&mut wire, offer, &own, &peer).secrets(ALG, None);
            exchange(&mut wire, &secrets.e3.context_for_device(sid, epoch, None, ALG).unwrap());
        }
        "any" => {
            let c_i = epoch.with_bytes(|bytes| Id::new(bytes).unwrap());
            let agreed = agree(&mut wire, Initiator::<E2, _>::danger_offer(ephemeral, c_i), &own, &peer);
            let (sender_id, recipient_id) = (agreed.c_r(), agreed.c_i());
            let secrets = agreed.secrets(ALG);
            let context = Context::<E2>::derive(&Params {
                alg: ALG,
                master_secret: secrets.e2.danger_master_secret(),
                master_salt: secrets.e2.master_salt(),
                id_context: None,
                sender_id,
                recipient_id,
            });
            exchange(&mut wire, &context);
        }
        other => panic!("{other} is neither own nor any"),
    }
}
