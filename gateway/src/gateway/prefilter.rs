//! C3 messages, which this gateway cannot read: passed on unread, at a bounded rate, and each once.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::suite::CiphertextHash;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{self, Protected};
use fivefold_core::wire::control::STORED;
use fivefold_core::wire::envelope::{Kind, Opened};
use fivefold_core::wire::tiny::Wants;

use super::answer::{Body, C2Answer};
use super::flight::{Reply, Sameness, Timer, Way};
use super::receive::{LONGEST_COAP, Source};
use super::{Cloud, Gateway, Then};

/// Milliseconds to wait for the cloud's answer before a CON is acknowledged without it.
const ACKNOWLEDGE_AFTER: u64 = 300;

impl Gateway {
    /// Passes a C3 message on, unless it was passed on before.
    ///
    /// # Errors
    /// `E3-05` for a repeat (which is answered all the same, if an answer is there), `E3-09`, `E4-04`.
    pub(super) fn offer(
        &mut self,
        now: Millis,
        source: Source,
        message: &Protected<'_>,
        kind: Kind,
        opened: Option<Opened>,
        reply: Reply,
    ) -> Result<(), Rejected> {
        let same = Sameness::of(message.code, &message.option, message.ciphertext);
        // Over CoAP every request has an answer; a tiny one says whether it waits.
        let wants = source.wants == Wants::Answer || matches!(source.way, Way::Coap { .. });
        let mut reply = Some(reply);
        let again = self.flights.same(same);
        if let Some(id) = again
            && !self.repeated(now, id, wants, &mut reply)
        {
            return Err(Rejected::new(Code::CloudDuplicate, "passed on less than ten minutes ago"));
        }
        // What C2 has proven cannot be a stranger's flood; what only the link has proven can.
        if let Some(device) = self.devices.find_mut(source.sid)
            && (opened.is_none() || again.is_some())
            && !device.admits(now, self.limits.messages_a_minute)
        {
            return Err(Rejected::new(Code::CloudLimitReached, "more messages a minute than are passed on"));
        }
        let mut bytes = [0; LONGEST_COAP];
        let len = message
            .emit(&mut bytes)
            .map_err(|_| Rejected::new(Code::TinyMalformed, "longer than this receiver takes"))?;
        let seq = self.store(&source.envelope(self, now, kind, bytes.get(..len).unwrap_or_default(), opened))?;
        let id = match again {
            Some(id) => {
                self.flights.renumber(id, seq);
                id
            }
            None => match reply {
                Some(reply) => {
                    let names = self.scribe.id().map(|id| (id, CiphertextHash::of(message.ciphertext).into()));
                    self.flights.add(now, source.sid, seq, same, wants, reply, names)
                }
                None => return Ok(()),
            },
        };
        self.after_persist(Then::Flight(id));
        if again.is_some() {
            return Err(Rejected::new(
                Code::CloudDuplicate,
                "passed on once more: the first was delivered and not answered",
            ));
        }
        Ok(())
    }

    /// A message came once more: `true` when it is to be passed on once more. Its answer goes the way that the last one
    /// came.
    fn repeated(&mut self, now: Millis, id: u64, wants: bool, reply: &mut Option<Reply>) -> bool {
        let limit = self.limits.messages_a_minute;
        let Some(flight) = self.flights.find(id) else { return false };
        flight.wants |= wants;
        let Some(reply) = reply.take().filter(|_| wants) else { return false };
        // The same datagram once more: that its first copy was acknowledged stays true.
        let mut acknowledged = false;
        flight.reply.way = match (flight.reply.way, reply.way) {
            (
                old @ Way::Coap { message_id: a, peer: p, acknowledged: was, .. },
                Way::Coap { message_id: b, peer: q, .. },
            ) if (a, p) == (b, q) => {
                acknowledged = was;
                old
            }
            (_, new) => new,
        };
        // Under a new C2 number it has a right of its own, to be used once that number is durable.
        let fresh = reply.c2.as_ref().is_some_and(|c| c.right.is_some());
        match (&flight.reply.c2, reply.c2) {
            (Some(old), Some(new)) if old.request == new.request && old.context == new.context && !fresh => {}
            (_, c2) => flight.reply.c2 = c2,
        }
        let (sid, answered) = (flight.sid, flight.answer.is_some());
        let again = flight.delivered && !flight.refused && !answered;
        if self.devices.find_mut(sid).is_none_or(|d| !d.may_answer_again(now, limit)) {
            return false;
        }
        if again {
            return true;
        }
        if fresh {
            self.after_persist(Then::Flight(id));
        } else if answered {
            self.answer_flight(now, id);
        } else if acknowledged {
            self.acknowledge(id);
        } else {
            self.schedule(now, id);
        }
        false
    }

    /// The envelope is durable: what may happen without the cloud's answer happens from now.
    pub(super) fn flight_is_durable(&mut self, now: Millis, id: u64) {
        if let Some(flight) = self.flights.find(id) {
            flight.durable = true;
            if flight.answer.is_some() {
                self.answer_flight(now, id);
            } else {
                self.schedule(now, id);
            }
        }
    }

    fn schedule(&mut self, now: Millis, id: u64) {
        let Some(flight) = self.flights.find(id) else { return };
        if !flight.wants || !flight.durable || flight.answer.is_some() {
            return;
        }
        if flight.reply.c2.is_some() {
            if self.cloud == Cloud::Away {
                return self.confirm_custody(now, id);
            }
            self.timers.insert((now.plus(self.limits.custody_after), Timer::Custody(id)));
        } else if let Way::Coap { .. } = flight.reply.way {
            self.timers.insert((now.plus(ACKNOWLEDGE_AFTER), Timer::Acknowledge(id)));
        }
    }

    pub(super) fn ring(&mut self, now: Millis, timer: Timer) {
        match timer {
            Timer::Acknowledge(id) => {
                // With the cloud away the client's own retransmissions keep its request alive.
                if self.cloud == Cloud::Reachable {
                    self.acknowledge(id);
                }
            }
            Timer::Custody(id) => self.confirm_custody(now, id),
            Timer::Resend(message_id) => self.resend(now, message_id),
        }
    }

    /// 5.04 "stored": the gateway has it, the cloud has not answered yet (docs/protocol.md 9.4).
    fn confirm_custody(&mut self, now: Millis, id: u64) {
        let Some(flight) = self.flights.find(id).filter(|f| f.answer.is_none() && f.durable && f.wants) else { return };
        let (sid, way) = (flight.sid, flight.reply.way);
        let Some(c2) = &mut flight.reply.c2 else { return };
        let answer = C2Answer {
            sid,
            context: c2.context,
            request: c2.request,
            right: c2.right.take(),
            way,
            body: Body::Own { code: coap::GATEWAY_TIMEOUT, payload: STORED.into() },
        };
        self.answer_c2(now, answer);
    }
}
