//! From a reading to a sealed message in the outbox, and from there to the radio.

use fivefold_core::e1_link::E1S_HEADER;
use fivefold_core::e2_gateway::{Nesting, seal_both};
use fivefold_core::error::SealError;
use fivefold_core::id::Sid;
use fivefold_core::oscore::{Id, PartialIv, RENEW_AT};
use fivefold_core::profile::{KidLength, Mode, Profile, Radio};
use fivefold_core::suite::TAG;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{PAYLOAD_MARKER, POST};
use fivefold_core::wire::ieee802154::{FCS, MAX_FRAME, SHORT_HEADER};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{Inner, LORAWAN_DR0, Layers, Tiny, Wants};
use heapless::Vec;

use super::{Datagram, Event, Node, Output, SendRefused, wanted};
use crate::boot::{DIGIMESH, XBEE, is_bare};
use crate::evidence::{Close, Evidence};
use crate::outbox::{Asked, Carried, Message, Number, Sealed, State, Taken};
use crate::relay::{Mesh, PAYLOAD};
use crate::renewal::Why;

/// The gateway's window may be as short as 32 numbers (docs/protocol.md 17): an older message is wrapped again.
const WINDOW: u32 = 32;
/// Where E2 is the innermost level, a message this much older than the newest cannot be sent any more.
const LOST: u32 = 48;
/// A message waits so long for the lease of the link, in milliseconds.
pub(super) const LEASE_WAIT: u64 = 100;
/// With the boot id again, in mode R, every so many messages (docs/protocol.md 8.3).
const EXPLICIT_EVERY: u32 = 16;

/// What is inside one message.
pub(super) struct Body {
    pub(super) payload: Vec<u8, PAYLOAD>,
    pub(super) carried: Carried,
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    /// Takes a reading: CBOR items of docs/protocol.md 7, at most [`Self::room`] bytes. Returns the number that events
    /// name it by.
    ///
    /// # Errors
    /// [`SendRefused`]. Nothing is cut to fit.
    pub fn send(&mut self, now: Millis, reading: &[u8]) -> Result<Number, SendRefused> {
        self.now = now;
        let payload = Vec::from_slice(reading).map_err(|_| SendRefused::Seal(SealError::TooLong))?;
        let mut body = Body { payload, carried: Carried::default() };
        if reading.is_empty() || reading.len() > self.room() {
            return Err(SendRefused::Seal(SealError::TooLong));
        }
        self.may_take()?;
        if self.evidence.is_full() {
            return Err(SendRefused::Full);
        }
        let (control, carried) = self.due_control();
        // What is due goes along if there is room for it, else on its own (see `report`).
        if !control.is_empty()
            && reading.len() + control.len() <= self.room()
            && body.payload.extend_from_slice(&control).is_ok()
        {
            body.carried = carried;
            self.control_sealed(now);
        }
        self.tend_evidence(now, Close::Before(self.piv.next()));
        let number = self.seal(now, &body)?;
        self.reading_sealed(now, number, &body.payload);
        Ok(number)
    }

    /// A message of control items alone, when one is due and no reading took them along.
    pub(super) fn report(&mut self, now: Millis) {
        if !self.reports.is_due(now) {
            return;
        }
        let (payload, carried) = self.due_control();
        let fits = payload.len() <= self.room() && self.may_take().is_ok();
        if payload.is_empty() || (fits && self.seal(now, &Body { payload, carried }).is_ok()) {
            self.control_sealed(now);
        } else {
            self.reports.postpone(now);
        }
    }

    /// Bytes that the next reading may have (docs/protocol.md 6.4).
    pub fn room(&self) -> usize {
        let policy = &self.settings.policy;
        let bctx = if self.is_explicit() { 9 } else { 0 };
        let boot = if policy.mode == Mode::Random { 9 } else { 0 };
        let kid = if policy.kid_length == KidLength::Two { 2 } else { 0 };
        let seals = match policy.profile {
            Profile::DangerLinkOnly => 0,
            Profile::ToCloud | Profile::ToGateway => TAG + 2,
            // Around C3 on IP stand a code, an option header, the option and a marker; on tiny links one byte. That option
            // always names the boot, where there is one.
            Profile::ToBoth if self.is_on_ip() => 2 * TAG + 2 + 4 + 1 + 4 + boot + 2,
            Profile::ToBoth => 2 * TAG + 2 + 1,
        };
        let piv = PartialIv::from_value(self.piv.next()).as_bytes().len();
        self.longest_frame().saturating_sub(1 + piv + bctx + kid + seals)
    }

    /// Bytes that a tiny frame may have on this radio.
    fn longest_frame(&self) -> usize {
        let mesh = if self.mesh.as_ref().is_some_and(Mesh::is_direct) { 0 } else { mesh::HEADER };
        match self.settings.policy.radio {
            Radio::Ieee802154 => MAX_FRAME - SHORT_HEADER - 8 - FCS - mesh::HEADER,
            Radio::Ieee802154Mic32 => MAX_FRAME - SHORT_HEADER - 4 - FCS - mesh::HEADER,
            Radio::Lorawan => 1 + LORAWAN_DR0,
            Radio::Xbee => usize::from(XBEE) - E1S_HEADER - 8 - mesh,
            Radio::Digimesh => usize::from(DIGIMESH) - E1S_HEADER - 4 - mesh,
            _ => PAYLOAD,
        }
    }

    fn is_explicit(&self) -> bool {
        self.settings.policy.mode == Mode::Random && (!self.verified || self.sealed.is_multiple_of(EXPLICIT_EVERY))
    }

    pub(super) const fn layers(&self) -> Option<Layers> {
        match self.settings.policy.profile {
            Profile::DangerLinkOnly => None,
            Profile::ToBoth => Some(Layers::C2OverC3),
            Profile::ToCloud => Some(Layers::C3),
            Profile::ToGateway => Some(Layers::C2),
        }
    }

    pub(super) fn may_take(&self) -> Result<(), SendRefused> {
        if self.ends_missing() {
            return Err(SendRefused::NotAgreed);
        }
        if self.halted {
            return Err(SendRefused::RenewalNeeded);
        }
        if self.outbox.is_full() && self.outbox.gives_way().is_none() { Err(SendRefused::Full) } else { Ok(()) }
    }

    pub(super) fn seal(&mut self, now: Millis, body: &Body) -> Result<Number, SendRefused> {
        let Ok(n) = self.piv.take() else {
            if self.piv.proposal(1).is_none() {
                self.halt(Why::Spent);
                return Err(SendRefused::RenewalNeeded);
            }
            return Err(SendRefused::Seal(SealError::LeaseSpent));
        };
        let number = Number { epoch: self.epoch(), value: n.value() };
        let piv = PartialIv::from_value(number.value);
        let every = u32::from(self.settings.policy.ack_every.max(1));
        let half_full = self.outbox.len() >= N / 2;
        let mut wants = wanted(self.sealed.is_multiple_of(every) || !self.verified || half_full);
        let bctx = self.ends.cloud.as_ref().and_then(|c| c.id_context());
        let bctx = bctx.or(self.ends.gateway.as_ref().and_then(|c| c.id_context())).filter(|_| self.is_explicit());
        let kid = (self.settings.policy.kid_length == KidLength::Two).then_some(self.settings.sid);
        let nesting = if self.is_on_ip() { Nesting::Coap } else { Nesting::Tiny };

        let mut plaintext = Vec::<u8, { PAYLOAD + 2 }>::new();
        let _ = plaintext.extend_from_slice(&[POST, PAYLOAD_MARKER]);
        let _ = plaintext.extend_from_slice(&body.payload);
        let (mut sealed, mut wrapped) = ([0; DATAGRAM_BODY], [0; DATAGRAM_BODY]);
        let mut inner = Sealed::new();
        let request = |layers, ciphertext| Tiny::Request { layers, wants, piv, bctx, kid, ciphertext };
        let tiny = match (&self.ends.gateway, &self.ends.cloud) {
            (None, Some(c3)) => {
                let (_, len) = c3.seal_request(n, &plaintext, &mut sealed).map_err(SendRefused::Seal)?;
                request(Layers::C3, sealed.get(..len).unwrap_or_default())
            }
            (Some(c2), None) => {
                let (_, len) = c2.seal_request(n, &plaintext, &mut sealed).map_err(SendRefused::Seal)?;
                request(Layers::C2, sealed.get(..len).unwrap_or_default())
            }
            (Some(c2), Some(c3)) => {
                let both =
                    seal_both(c2, c3, n, &plaintext, nesting, &mut wrapped, &mut sealed).map_err(SendRefused::Seal)?;
                if nesting == Nesting::Tiny {
                    let ct3 = wrapped.get(both.ct3.0..both.ct3.1).unwrap_or_default();
                    let _ = inner.extend_from_slice(ct3);
                }
                request(Layers::C2OverC3, sealed.get(..both.len).unwrap_or_default())
            }
            (None, None) => {
                wants = Wants::Nothing;
                Tiny::Plain { piv, kid, payload: &body.payload }
            }
        };
        let frame = emitted(&tiny).map_err(SendRefused::Seal)?;
        let asked = Asked { number, outer: number.value, by_gateway: Taken::default(), by_cloud: Taken::default() };
        let state = State::Due(now);
        let carried = body.carried;
        if let Some(older) = self.outbox.gives_way().filter(|_| self.outbox.is_full()) {
            let event = self.give_up(older);
            self.tell(event);
        }
        self.outbox.push(Message {
            asked,
            wants,
            state,
            frame,
            inner,
            carried,
            attempts: 0,
            parkings: 0,
            first_sent: None,
            unwelcome: false,
            until: None,
        });
        self.sealed = self.sealed.wrapping_add(1);
        if number.value >= RENEW_AT && !core::mem::replace(&mut self.warned, true) {
            self.want_renewal(Why::Number);
        }
        Ok(number)
    }

    /// Gives the next message to the radio.
    pub(super) fn transmit(&mut self, now: Millis) -> Option<Output> {
        let number = self.outbox.due(now)?;
        let present = number.epoch == self.epoch();
        let before = || self.before.as_ref().filter(|b| b.epoch == number.epoch);
        let end = if present { self.piv.next() } else { before().map_or(0, |b| b.end) };
        let message = self.outbox.find(number)?;
        let behind = end.saturating_sub(1).saturating_sub(message.asked.outer);
        let profile = self.settings.policy.profile;
        let again = present && profile == Profile::ToBoth && behind >= WINDOW && self.wrap_again(number).is_some();
        if profile.has_e2() && behind >= LOST && !again {
            return Some(Output::Event(self.give_up(number)));
        }
        let message = self.outbox.find(number)?;
        let output = match &mut self.mesh {
            Some(mesh) => {
                let header = mesh::Header {
                    hops: self.settings.hops,
                    originator: self.settings.sid,
                    destination: Sid::ANY_GATEWAY,
                };
                let to = mesh.parent(now)?;
                let Ok(frame) = mesh.seal(to, header, &message.frame) else {
                    // The lease of the link is spent: the next record extends it, unless the key is used up.
                    message.state = State::Due(now.plus(LEASE_WAIT));
                    return None;
                };
                Output::Transmit(frame)
            }
            None if is_bare(self.settings.policy.radio) => Output::Tiny(Datagram::from_slice(&message.frame).ok()?),
            None => {
                let tiny = Tiny::parse(&message.frame, self.settings.policy.kid_length).ok()?;
                let mut out = [0; super::DATAGRAM];
                let len = tiny.expand(Some(Id::from(self.settings.sid)), &mut out).ok()?;
                Output::Datagram(Datagram::from_slice(out.get(..len)?).ok()?)
            }
        };
        message.sent(now);
        let (attempt, wants) = (message.attempts, message.wants);
        if present && wants == Wants::Answer {
            self.asked(now);
        }
        if profile == Profile::DangerLinkOnly {
            // Nobody will ever say that it arrived.
            self.outbox.take(number);
        }
        self.tell(Event::Sent { number, attempt });
        Some(output)
    }

    /// Puts a new gateway layer, under a new number, around the same message for the cloud (docs/protocol.md 6.3, rule 02
    /// and 03): the gateway's window has moved past the old number, the cloud's ledger has not.
    fn wrap_again(&mut self, number: Number) -> Option<()> {
        let c2 = self.ends.gateway.as_ref()?;
        let longest = self.longest_frame();
        let message = self.outbox.find(number)?;
        // RuleID, number, boot id and kid outside; rule, length, number and boot id inside; the tag of `inner` is in it.
        let boots = if self.settings.policy.mode == Mode::Random { 9 + 8 } else { 0 };
        let kids = if self.settings.policy.kid_length == KidLength::Two { 2 } else { 0 };
        if message.inner.is_empty() || message.inner.len() + (1 + 3) + (1 + 1 + 3) + TAG + boots + kids > longest {
            return None;
        }
        let n = self.piv.take().ok()?;
        let outer = n.value();
        let bctx = self.ends.cloud.as_ref().and_then(|c| c.id_context());
        let inner = Inner::Explicit { piv: PartialIv::from_value(number.value), bctx, ct3: &message.inner };
        let (mut plaintext, mut sealed) = ([0; DATAGRAM_BODY], [0; DATAGRAM_BODY]);
        let len = inner.emit(&mut plaintext).ok()?;
        let (_, len) = c2.seal_request(n, plaintext.get(..len)?, &mut sealed).ok()?;
        let kid = (self.settings.policy.kid_length == KidLength::Two).then_some(self.settings.sid);
        let tiny = Tiny::Request {
            layers: Layers::C2OverC3,
            wants: message.wants,
            piv: PartialIv::from_value(outer),
            bctx: bctx.filter(|_| !self.verified),
            kid,
            ciphertext: sealed.get(..len)?,
        };
        message.frame = emitted(&tiny).ok()?;
        (message.asked.outer, message.asked.by_gateway) = (outer, Taken::default());
        Some(())
    }
}

pub(super) const DATAGRAM_BODY: usize = 160;

fn emitted(tiny: &Tiny<'_>) -> Result<Sealed, SealError> {
    let mut out = [0; DATAGRAM_BODY];
    let len = tiny.emit(&mut out)?;
    Sealed::from_slice(out.get(..len).unwrap_or_default()).map_err(|_| SealError::TooLong)
}

#[cfg(test)]
mod tests {
    use fivefold_core::e2_gateway::E2Root;
    use fivefold_core::e3_cloud::E3Secret;
    use fivefold_core::id::{Did, Epoch, GatewayGroup};
    use fivefold_core::profile::Policy;
    use fivefold_core::wire::ieee802154::Pan;

    use super::*;
    use crate::{Entropy, Secrets, Settings};

    #[test]
    fn what_fits_by_its_own_word_is_sealed_whether_the_boot_is_named_outside_or_not() {
        let did = Did([1; 8]);
        for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
            let policy = Policy { mode: Mode::Random, radio: Radio::Ip, ..Policy::new(profile) };
            let settings = Settings::new(did, Sid(0x0a10), Pan(1), policy, Epoch(0));
            let e2 = Some(E2Root::bootstrap(&[2; 32], did).secret(GatewayGroup(1)));
            let secrets = Secrets { e2, e3: Some(E3Secret::bootstrap(&[2; 32], did)), ..Secrets::default() };
            let entropy = Entropy::check(core::array::from_fn(|n| (n * 3) as u8)).unwrap();
            let mut node = Node::<8>::boot(Millis(0), settings, &secrets, None, &entropy).unwrap();
            for verified in [false, true] {
                node.verified = verified;
                for n in 0..3 {
                    let longest = [0x80; PAYLOAD];
                    let sent = node.send(Millis(n), &longest[..node.room()]);
                    assert!(sent.is_ok(), "{profile}, answered: {verified}: {sent:?}");
                }
            }
        }
    }
}
