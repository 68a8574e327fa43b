//! What the cloud sends down: replies to batches, answers, requests to listening devices, gateway state.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Sid;
use fivefold_core::profile::Profile;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{CHANGED, Protected, Token, Type};
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Kind, Originator, Reply};
use fivefold_core::wire::tiny::{Inner, Layers, Tiny};

use super::receive::{LONGEST_COAP, Source};
use super::{Gateway, Record};

/// Milliseconds for which a device may answer a downlink request.
const ANSWER_LIFE: u64 = 60_000;

/// A downlink request that a device may answer.
pub(super) struct Asked {
    token: Token,
    at: Millis,
}

impl Asked {
    pub(super) fn is_young(&self, now: Millis) -> bool {
        now.since(self.at) < ANSWER_LIFE
    }
}

impl Gateway {
    /// The cloud's reply to a batch of one run of this gateway: what is durable there is deleted here (W8), answers go
    /// down. What was refused is deleted too: sending it again changes nothing.
    pub fn handle_uplink_reply(&mut self, now: Millis, boot: GatewayBoot, reply: &Reply<'_>) {
        if boot == self.boot {
            self.flights.delivered(reply.durable_upto);
        }
        for refusal in reply.refused.iter() {
            if refusal.code != Code::CloudDuplicate
                && let Some(flight) = self.flights.with_seq(refusal.seq).and_then(|id| self.flights.find(id))
            {
                flight.refused = true;
                if let (sid, Some(names)) = (flight.sid, flight.names) {
                    self.explain_for_cloud(now, refusal.code, sid, names);
                }
            }
        }
        self.persist(Record::Delivered { boot, upto: reply.durable_upto });
        for downlink in reply.downlinks.iter() {
            self.handle_downlink(now, &downlink);
        }
    }

    /// Something from the cloud for a device, or for this gateway.
    pub fn handle_downlink(&mut self, now: Millis, downlink: &Downlink<'_>) {
        if downlink.expires.is_some_and(|at| at <= now) {
            return;
        }
        let sid = match downlink.originator {
            Some(Originator::Node { net, sid }) if net == self.net => Some(sid),
            Some(Originator::Classic(serial)) if downlink.kind == DownlinkKind::KeyMessage => {
                return self.take_key_answer(serial, downlink).unwrap_or_else(|rejected| self.count(rejected, None));
            }
            None => None,
            Some(_) => return self.count(Rejected::new(Code::ChannelWrongNet, "downlink: another network's"), None),
        };
        let done = match (downlink.kind, sid) {
            (DownlinkKind::State, _) => {
                // Counted there.
                let _ = self.handle_state(now, downlink.bytes);
                return;
            }
            (DownlinkKind::Answer, Some(sid)) => self.take_answer(now, sid, downlink),
            (DownlinkKind::Request, Some(sid)) => self.send_request(now, sid, downlink.bytes),
            // What belongs to a run of EDHOC comes as the reply to it, and in no other way.
            (DownlinkKind::Edhoc | DownlinkKind::Context, _) | (DownlinkKind::Answer | DownlinkKind::Request, None) => {
                Ok(())
            }
            // A classic device has a serial.
            (DownlinkKind::KeyMessage, _) => {
                Err(Rejected::new(Code::KeyMessageRefused, "downlink: a key message for no classic device"))
            }
        };
        if let Err(rejected) = done {
            self.count(rejected, sid);
        }
    }

    fn take_answer(&mut self, now: Millis, sid: Sid, downlink: &Downlink<'_>) -> Result<(), Rejected> {
        Protected::parse_answer(downlink.bytes)?;
        // Without a number, or after a restart: whose answer it is cannot be told any more, and the device asks again.
        let Some(id) = downlink.seq.and_then(|seq| self.flights.with_seq(seq)) else { return Ok(()) };
        let Some(flight) = self.flights.find(id).filter(|f| f.sid == sid) else { return Ok(()) };
        flight.answer = Some(downlink.bytes.into());
        flight.delivered = true;
        self.answer_flight(now, id);
        Ok(())
    }

    /// A request for a device that listens, under C3; under C2 as well where its record says so.
    fn send_request(&mut self, now: Millis, sid: Sid, bytes: &[u8]) -> Result<(), Rejected> {
        let request = Protected::parse_request(bytes, fivefold_core::wire::coap::Outer::Strict)?;
        let Some(device) = self.devices.find(sid) else { return Ok(()) };
        let profile = device.policy.profile;
        let (Some(via), Some(piv3)) = (device.route(now), request.option.piv) else { return Ok(()) };
        self.downlink_token = self.downlink_token.wrapping_add(1);
        let token = self.downlink_token;
        let mut out = [0; LONGEST_COAP];
        let len = match profile {
            Profile::ToCloud => {
                let tiny = Tiny::Downlink { layers: Layers::C3, token, piv: piv3, ciphertext: request.ciphertext };
                tiny.emit(&mut out)
            }
            Profile::ToBoth => {
                let mut inner = [0; LONGEST_COAP];
                let Ok(n) = (Inner::Explicit { piv: piv3, bctx: None, ct3: request.ciphertext }).emit(&mut inner)
                else {
                    return Ok(());
                };
                let Some(device) = self.devices.find_mut(sid) else { return Ok(()) };
                let Some(slot) = device.slots.iter_mut().find(|s| s.can_send() && s.ready) else { return Ok(()) };
                let name = slot.name;
                let Ok(number) = slot.take() else { return Ok(()) };
                let mut sealed = [0; LONGEST_COAP];
                let sealed_to = slot.seal_request(number, inner.get(..n).unwrap_or_default(), &mut sealed);
                let Ok((to, n)) = sealed_to else { return Ok(()) };
                self.ask_answer_lease(sid, name);
                let ciphertext = sealed.get(..n).unwrap_or_default();
                Tiny::Downlink { layers: Layers::C2OverC3, token, piv: to.piv, ciphertext }.emit(&mut out)
            }
            Profile::ToGateway | Profile::DangerLinkOnly => return Ok(()),
        };
        if let Ok(len) = len {
            self.asked.insert((sid, token), Asked { token: request.token, at: now });
            self.send_tiny(sid, via, out.get(..len).unwrap_or_default());
        }
        Ok(())
    }

    /// A device's answer to a downlink request. Only where C3 alone protects it: it goes on as it is.
    pub(super) fn device_answer(
        &mut self,
        now: Millis,
        source: Source,
        layers: Layers,
        token: u8,
        ciphertext: &[u8],
    ) -> Result<(), Rejected> {
        let profile = self.devices.find(source.sid).map(|d| d.policy.profile);
        if (profile, layers) != (Some(Profile::ToCloud), Layers::C3) {
            return Err(Rejected::new(Code::GatewayLevelMissing, "an answer that this device's record has not"));
        }
        let unasked = Rejected::new(Code::CloudUnknownKid, "an answer that nobody waits for");
        let asked = self.asked.remove(&(source.sid, token)).filter(|a| a.is_young(now)).ok_or(unasked)?;
        let option = fivefold_core::oscore::OscoreOption { piv: None, kid_context: None, kid: None };
        let message =
            Protected { kind: Type::Non, code: CHANGED, message_id: 0, token: asked.token, option, ciphertext };
        let mut out = [0; LONGEST_COAP];
        let len = message.emit(&mut out).map_err(|_| unasked)?;
        let envelope = source.envelope(self, now, Kind::CloudTiny, out.get(..len).unwrap_or_default(), None);
        self.store(&envelope).map(drop)
    }
}
