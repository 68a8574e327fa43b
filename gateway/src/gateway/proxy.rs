//! CoAP over UDP: devices with IP of their own, whose messages are proxied (docs/protocol.md 5).
//!
//! The gateway answers nothing in the cloud's place. An empty acknowledgement is no answer; with the cloud away not even
//! that is sent, and the client's own retransmissions keep its request alive.

use std::net::SocketAddr;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Sid};
use fivefold_core::oscore::OscoreOption;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Message, Outer, Protected, Type};
use fivefold_core::wire::envelope::Kind;

use super::answer::coap_answer;
use super::flight::{Reply, Timer, Way};
use super::receive::{LEVEL_MISSING, Source};
use super::{Gateway, Output};

/// Milliseconds for which an entry of the proxy lives (RFC 7252 4.8.2, EXCHANGE_LIFETIME).
const LIFETIME: u64 = 247_000;
/// Milliseconds before a confirmable answer is sent again the first time; then twice as long, four times in all.
const RESEND_AFTER: u64 = 2_500;
const RESENDS: u8 = 4;
/// Confirmable answers that wait for an acknowledgement.
const OUTGOING: usize = 4096;

/// A confirmable answer that was not acknowledged yet.
pub(super) struct Outgoing {
    to: SocketAddr,
    message: Box<[u8]>,
    sent: u8,
}

impl Gateway {
    /// A datagram of an IP device.
    pub fn handle_coap(&mut self, now: Millis, from: SocketAddr, datagram: &[u8]) {
        let mut sid = None;
        self.scribe.hear(now, None, datagram);
        if let Err(rejected) = self.coap(now, from, datagram, &mut sid) {
            self.count(rejected, sid);
        }
        self.scribe.over(now);
    }

    fn coap(
        &mut self,
        now: Millis,
        from: SocketAddr,
        datagram: &[u8],
        named: &mut Option<Sid>,
    ) -> Result<(), Rejected> {
        let message = Message::parse(datagram)?;
        if matches!(message.kind, Type::Ack | Type::Rst) {
            if self.confirmed.get(&message.message_id).is_some_and(|o| o.to == from) {
                self.confirmed.remove(&message.message_id);
            }
            return Ok(());
        }
        if super::renewal::is_run(&message)? {
            return self.coap_run(now, from, &message, named);
        }
        let request = Protected::parse_request(datagram, Outer::StockClient)?;
        if let Some(piv) = request.option.piv {
            self.scribe.read_number(piv, None);
        }
        let unknown = Rejected::new(Code::CloudUnknownKid, "kid is no short id of the allow-list");
        let kid: [u8; 2] = request.option.kid.and_then(|k| k.try_into().ok()).ok_or(unknown)?;
        let sid = Sid::from_bytes(kid);
        *named = Some(sid);
        // What comes over IP has no E1 of ours: only a device whose record says so, by the operator's override.
        let link = self.link_over_ip(sid, unknown)?;
        let profile = self.devices.find(sid).ok_or(unknown)?.policy.profile;
        if profile == Profile::DangerLinkOnly {
            return Err(Rejected::new(Code::CloudLevelMissing, "E1 is missing, and the device has nothing else"));
        }
        let Protected { kind, message_id, token, .. } = request;
        let source = Source::over_ip(sid, from, link, (token, message_id, kind), now);
        let way = source.way;
        if profile == Profile::ToCloud {
            return self.offer(now, source, &request, Kind::CloudCoap, None, Reply { way, c2: None });
        }
        let boot = match request.option.kid_context {
            None => None,
            Some(context) => Some(BootContext(context.try_into().map_err(|_| LEVEL_MISSING_BOOT)?)),
        };
        let piv = request.option.piv.ok_or(LEVEL_MISSING)?;
        self.sealed(now, source, piv, boot, request.ciphertext)
    }

    /// Sends the empty acknowledgement of a CON.
    pub(super) fn acknowledge(&mut self, id: u64) {
        let Some(flight) = self.flights.find(id).filter(|f| f.answer.is_none()) else { return };
        let Way::Coap { peer, message_id, kind: Type::Con, acknowledged, .. } = &mut flight.reply.way else { return };
        *acknowledged = true;
        let (peer, message_id) = (*peer, *message_id);
        let mut out = [0; 4];
        if Message::empty(Type::Ack, message_id).emit(&mut out).is_ok() {
            self.outputs.push_back(Output::Send { to: peer, message: out[..].into() });
        }
    }

    /// Sends an answer with the client's token: in the acknowledgement if that is still owed, else as CON, or NON for NON.
    pub(super) fn send_coap_answer(&mut self, now: Millis, way: Way, option: OscoreOption<'_>, ciphertext: &[u8]) {
        let Way::Coap { peer, token, message_id, kind, at, acknowledged } = way else { return };
        if now.since(at) > LIFETIME {
            return;
        }
        let (kind, number) = match kind {
            Type::Con if !acknowledged => (Type::Ack, message_id),
            Type::Con => (Type::Con, self.next_message_id()),
            _ => (Type::Non, self.next_message_id()),
        };
        let Some(message) = coap_answer(kind, number, token, option, ciphertext) else { return };
        self.outputs.push_back(Output::Send { to: peer, message: message.clone() });
        if kind == Type::Con && self.confirmed.len() < OUTGOING {
            self.confirmed.insert(number, Outgoing { to: peer, message, sent: 0 });
            self.timers.insert((now.plus(RESEND_AFTER), Timer::Resend(number)));
        }
    }

    pub(super) fn resend(&mut self, now: Millis, message_id: u16) {
        let Some(outgoing) = self.confirmed.get_mut(&message_id) else { return };
        outgoing.sent += 1;
        if outgoing.sent > RESENDS {
            self.confirmed.remove(&message_id);
            return;
        }
        let again = RESEND_AFTER << outgoing.sent;
        self.outputs.push_back(Output::Send { to: outgoing.to, message: outgoing.message.clone() });
        self.timers.insert((now.plus(again), Timer::Resend(message_id)));
    }

    pub(super) fn next_message_id(&mut self) -> u16 {
        self.message_id = self.message_id.wrapping_add(1);
        self.message_id
    }
}

const LEVEL_MISSING_BOOT: Rejected = Rejected::new(Code::GatewayNoContext, "a boot id has 8 bytes");
