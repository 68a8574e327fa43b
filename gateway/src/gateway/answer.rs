//! Answers to devices: the gateway's own under C2, the cloud's as they came, or wrapped in C2.

use fivefold_core::e1_link::LinkKeys;
use fivefold_core::e2_gateway::E2;
use fivefold_core::error::SealError;
use fivefold_core::id::Sid;
use fivefold_core::oscore::{AnswerNumber, OscoreOption, PartialIv, Plaintext, RequestId, UnnumberedAnswer};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{self, CHANGED, Protected, Token, Type, number};
use fivefold_core::wire::ieee802154::{Ack, MAX_FRAME};
use fivefold_core::wire::mesh::{self, MAX_HOPS};
use fivefold_core::wire::tiny::{Inner, Layers, Tiny};

use super::flight::{Via, Way};
use super::receive::LONGEST_COAP;
use super::{ContextName, Gateway, Output, Record, Then, Toward};

/// Frames that wait for a lease, at most.
const HELD: usize = 4096;

/// What an answer says.
#[derive(Debug)]
pub(super) enum Body {
    /// The cloud's answer, a CoAP message that cannot be read here.
    Cloud(Box<[u8]>),
    /// The gateway's own.
    Own {
        /// CoAP code.
        code: u8,
        /// Items of docs/protocol.md 7.
        payload: Box<[u8]>,
    },
}

/// An answer under C2 that is to be sealed now, or when a lease is durable.
pub(super) struct C2Answer {
    pub(super) sid: Sid,
    pub(super) context: ContextName,
    pub(super) request: RequestId,
    pub(super) right: Option<UnnumberedAnswer<E2>>,
    pub(super) way: Way,
    pub(super) body: Body,
}

/// A datagram for the air that waits for a lease.
pub(super) struct Held {
    to: Sid,
    via: Sid,
    payload: Box<[u8]>,
}

impl Gateway {
    /// Seals an answer under C2 and sends it. What it depends on is durable.
    pub(super) fn answer_c2(&mut self, now: Millis, mut answer: C2Answer) {
        let Some(slot) = self.devices.slot(answer.sid, answer.context).filter(|s| s.can_send()) else { return };
        let (number, piv) = match answer.right.take() {
            Some(right) => (AnswerNumber::Unnumbered(right), None),
            None => match slot.take() {
                Ok(n) => {
                    let piv = PartialIv::from_value(n.value());
                    (AnswerNumber::Own(n), Some(piv))
                }
                Err(_) => {
                    self.ask_answer_lease(answer.sid, answer.context);
                    // Nothing was asked when the context is used up: then it must be renewed, and nothing is answered.
                    if self.devices.slot(answer.sid, answer.context).is_some_and(|s| s.lease_asked) {
                        self.after_persist(Then::Answer(Box::new(answer)));
                    }
                    return;
                }
            },
        };
        let mut plaintext = [0; LONGEST_COAP];
        let mut sealed = [0; LONGEST_COAP];
        let Ok(len) = plaintext_of(&answer.body, answer.way, &mut plaintext) else { return };
        let plaintext = plaintext.get(..len).unwrap_or_default();
        let Some(slot) = self.devices.slot(answer.sid, answer.context) else { return };
        let Ok(len) = slot.seal_answer(&answer.request, number, plaintext, &mut sealed) else { return };
        let ciphertext = sealed.get(..len).unwrap_or_default();
        self.ask_answer_lease(answer.sid, answer.context);
        self.send_answer(now, answer.sid, answer.way, piv, ciphertext);
    }

    /// Asks for more answer numbers in time.
    pub(super) fn ask_answer_lease(&mut self, sid: Sid, context: ContextName) {
        let Some(bound) = self.devices.slot(sid, context).and_then(|s| s.lease_due()) else { return };
        self.persist(Record::AnswerLease { context, bound });
        self.after_persist(Then::AnswerLease { sid, context, bound });
    }

    /// Sends the cloud's answer to a message on its way back.
    pub(super) fn answer_flight(&mut self, now: Millis, id: u64) {
        let Some(flight) = self.flights.find(id) else { return };
        let (sid, way) = (flight.sid, flight.reply.way);
        let Some(message) = flight.answer.clone() else { return };
        if !flight.wants {
            return;
        }
        if let Some(c2) = &mut flight.reply.c2 {
            let (context, request, right) = (c2.context, c2.request, c2.right.take());
            return self.answer_c2(now, C2Answer { sid, context, request, right, way, body: Body::Cloud(message) });
        }
        if let Ok(answer) = Protected::parse_answer(&message) {
            self.send_answer(now, sid, way, answer.option.piv, answer.ciphertext);
        }
    }

    /// Sends a sealed answer: by the air as a tiny frame, by UDP as CoAP.
    fn send_answer(&mut self, now: Millis, sid: Sid, way: Way, piv: Option<PartialIv>, ciphertext: &[u8]) {
        match way {
            Way::Radio { to, via, token, layers } => {
                let tiny = Tiny::Answer { layers, token, piv, ciphertext };
                let mut out = [0; LONGEST_COAP];
                let Ok(len) = tiny.emit(&mut out) else { return };
                self.expand_down(sid, &tiny);
                self.send_tiny(to, via, out.get(..len).unwrap_or_default());
            }
            Way::Coap { .. } => {
                let option = OscoreOption { piv, kid_context: None, kid: None };
                self.send_coap_answer(now, way, option, ciphertext);
            }
        }
    }

    /// What a tiny frame to a device stands for, for a capture.
    pub(super) fn expand_down(&mut self, sid: Sid, tiny: &Tiny<'_>) {
        if self.capture == super::Capture::On {
            let mut out = [0; LONGEST_COAP];
            if let Ok(n) = tiny.expand(None, &mut out) {
                self.expanded(sid, Toward::Device, out.get(..n).unwrap_or_default());
            }
        }
    }

    /// Sends a tiny frame to a device, by what takes frames to it.
    pub(super) fn send_tiny(&mut self, to: Sid, via: Via, frame: &[u8]) {
        match via {
            Via::Lorawan => {
                // The RuleID is the FPort, and is not repeated (docs/protocol.md 6).
                let (Some(device), Some((&f_port, payload))) = (self.devices.find(to), frame.split_first()) else {
                    return;
                };
                let dev_eui = device.did;
                self.outputs.push_back(Output::Lorawan { dev_eui, f_port, payload: payload.into() });
            }
            Via::Neighbour(via) => self.send_radio(to, via, frame),
        }
    }

    /// Seals a tiny frame for the air, or holds it until frame counters are leased.
    fn send_radio(&mut self, to: Sid, via: Sid, payload: &[u8]) {
        let mesh = (to != via).then_some(mesh::Header {
            hops: MAX_HOPS,
            originator: self.link.identity().sid,
            destination: to,
        });
        let mut frame = [0; MAX_FRAME];
        let over = self.link.over(via);
        match self.link.seal(via, Ack::Request, mesh, payload, &mut frame) {
            Ok(len) => self.transmit(over, frame.get(..len).unwrap_or_default()),
            Err(SealError::LeaseSpent) if self.held.len() < HELD => {
                self.held.push_back(Held { to, via, payload: payload.into() });
            }
            // Longer than a frame: the device learns of it by asking again, and the cloud by its silence.
            Err(_) => {}
        }
        self.ask_link_lease();
    }

    pub(super) fn send_held(&mut self) {
        for _ in 0..self.held.len() {
            if !LinkKeys::is_ready(self.link.keys()) {
                break;
            }
            let Some(held) = self.held.pop_front() else { break };
            self.send_radio(held.to, held.via, &held.payload);
        }
    }
}

/// The C2 plaintext of an answer: docs/protocol.md 6.3 by the air, a nested CoAP message by UDP.
fn plaintext_of(body: &Body, way: Way, out: &mut [u8]) -> Result<usize, SealError> {
    let nested = match way {
        Way::Radio { layers: Layers::C2OverC3, .. } => true,
        Way::Radio { .. } | Way::Coap { .. } => false,
    };
    match body {
        Body::Own { code, payload } if nested => Inner::Own { code: *code, payload }.emit(out),
        Body::Own { code, payload } => Plaintext { code: *code, options: &[], payload }.emit(out),
        Body::Cloud(message) => {
            let answer = Protected::parse_answer(message).map_err(|_| SealError::TooLong)?;
            if nested {
                return Inner::of_answer(&answer).emit(out);
            }
            let mut value = [0; 16];
            let n = answer.option.emit(&mut value)?;
            let mut options = [0; 24];
            let n = coap::emit_option(&mut options, 0, number::OSCORE, value.get(..n).unwrap_or_default())?;
            let options = options.get(..n).unwrap_or_default();
            Plaintext { code: CHANGED, options, payload: answer.ciphertext }.emit(out)
        }
    }
}

/// A CoAP answer with nothing but an OSCORE option.
pub(super) fn coap_answer(
    kind: Type,
    message_id: u16,
    token: Token,
    option: OscoreOption<'_>,
    ciphertext: &[u8],
) -> Option<Box<[u8]>> {
    let answer = Protected { kind, code: CHANGED, message_id, token, option, ciphertext };
    let mut out = vec![0; answer.emitted_len()];
    let len = answer.emit(&mut out).ok()?;
    out.truncate(len);
    Some(out.into())
}
