//! C2 messages: opened, judged new or repeated, marked and stored before they are answered or handed on.

use fivefold_core::e2_gateway::E2;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Sid};
use fivefold_core::oscore::{Id, InnerRequest, OscoreOption, PartialIv, judge_request, judge_tiny_request};
use fivefold_core::profile::Profile;
use fivefold_core::reading::{Item, Payload};
use fivefold_core::suite::CiphertextHash;
use fivefold_core::time::Millis;
use fivefold_core::why::FrameId;
use fivefold_core::window::Verdict;
use fivefold_core::wire::cbor::Malformed;
use fivefold_core::wire::coap::{self, POST, Protected, Token, Type};
use fivefold_core::wire::control::{Downlink, Earlier, Received, Uplink};
use fivefold_core::wire::envelope::{Kind, Opened};
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::{Inner, Layers, Wants, Within};

use super::answer::{Body, C2Answer};
use super::devices::Spoken;
use super::flight::{Reply, UnderC2, Way};
use super::receive::{LONGEST_COAP, Source};
use super::{Gateway, Lookup, Output, Record, Stored, Then, boot_bytes};

/// Unreadable messages that are kept, for each device and in all, and for how long in milliseconds.
const ORPHANS: usize = 64;
const ALL_ORPHANS: usize = 4096;
const ORPHAN_LIFE: u64 = 24 * 3_600_000;
/// Devices that are ordered to renew in a minute: half of the runs that the cloud lets begin by one gateway.
const ORDERS_A_MINUTE: u16 = 30;
/// Questions to the store that may be open.
const WAITING: usize = 1024;

/// A message that waits for the store to say what it knows.
pub(super) enum Waiting {
    /// A boot that is none of the latest two: was it opened before?
    Boot(Box<Asked>),
    /// A number that was accepted before: was it this message?
    Repeat(Box<Asked>),
}

/// What was opened, and what its frame was.
pub(super) struct Asked {
    source: Source,
    spoken: Spoken,
    plaintext: Box<[u8]>,
    hash: CiphertextHash,
    frame: Option<FrameId>,
}

/// A message for which there is no context yet.
pub(super) struct Orphan {
    source: Source,
    piv: PartialIv,
    boot: Option<BootContext>,
    ciphertext: Box<[u8]>,
    since: Millis,
    frame: Option<FrameId>,
}

impl Orphan {
    pub(super) fn is_young(&self, now: Millis) -> bool {
        now.since(self.since) < ORPHAN_LIFE
    }
}

/// What an opened C2 message is for the cloud.
enum Inside<'b> {
    /// The device seals for the gateway: this is its plaintext, in the one form that the cloud gets.
    Ours(&'b [u8]),
    /// The C3 message inside.
    Cloud(Protected<'b>),
}

impl Gateway {
    /// A message under C2.
    ///
    /// # Errors
    /// `E2-01` to `E2-09`, `E3-05`, `E3-08`, `E4-04`.
    pub(super) fn sealed(
        &mut self,
        now: Millis,
        source: Source,
        piv: PartialIv,
        boot: Option<BootContext>,
        ciphertext: &[u8],
    ) -> Result<(), Rejected> {
        let unknown = Rejected::new(Code::GatewayUnknownKid, "unknown kid");
        self.scribe.read_number(piv, boot);
        let mut scratch = std::mem::replace(&mut self.scratch, Box::new([0; LONGEST_COAP]));
        let device = self.devices.find(source.sid).ok_or(unknown)?;
        let new_boot = boot.filter(|b| !device.knows_boot(*b) && !device.families.is_empty());
        let opened = match new_boot {
            Some(boot) => device.open_boot(piv, boot, ciphertext, &mut scratch[..]),
            None => device.open(piv, boot, ciphertext, &mut scratch[..]),
        };
        let result = match opened {
            Ok(spoken) => {
                let plaintext = scratch.get(..spoken.len).unwrap_or_default();
                let hash = CiphertextHash::of(ciphertext);
                if new_boot.is_some() {
                    self.ask(source, spoken, plaintext, hash, true)
                } else {
                    self.opened(now, source, spoken, plaintext, hash)
                }
            }
            Err(refused) => {
                self.refused(now, source, piv, boot, ciphertext, refused.code);
                Err(refused)
            }
        };
        self.scratch = scratch;
        result
    }

    fn refused(
        &mut self,
        now: Millis,
        source: Source,
        piv: PartialIv,
        boot: Option<BootContext>,
        ciphertext: &[u8],
        code: Code,
    ) {
        match code {
            Code::GatewayForged => {
                if let Some((context, count)) = self.devices.find_mut(source.sid).and_then(|d| d.failed()) {
                    self.persist(Record::Failures { context, count });
                }
            }
            Code::GatewayNoContext => {
                let of_device = self.orphans.iter().filter(|o| o.source.sid == source.sid).count();
                let is_new = |o: &Orphan| o.source.sid != source.sid || *o.ciphertext != *ciphertext;
                if of_device < ORPHANS && self.orphans.len() < ALL_ORPHANS && self.orphans.iter().all(is_new) {
                    let (ciphertext, frame) = (ciphertext.into(), self.scribe.id());
                    self.orphans.push_back(Orphan { source, piv, boot, ciphertext, since: now, frame });
                }
            }
            _ => {}
        }
    }

    /// Tries again what had no context, now that contexts have come.
    pub(super) fn retry_orphans(&mut self, now: Millis) {
        for orphan in std::mem::take(&mut self.orphans) {
            if !orphan.is_young(now) {
                continue;
            }
            // Whoever waited for an answer has given up: what counts is the reading.
            let source = Source { wants: Wants::Nothing, ..orphan.source };
            self.scribe.resume(now, orphan.frame);
            if let Err(rejected) = self.sealed(now, source, orphan.piv, orphan.boot, &orphan.ciphertext)
                && rejected.code != Code::GatewayNoContext
            {
                self.count(rejected, Some(source.sid));
            }
            self.scribe.over(now);
        }
    }

    /// Asks the store before anything is done with a message.
    fn ask(
        &mut self,
        source: Source,
        spoken: Spoken,
        plaintext: &[u8],
        hash: CiphertextHash,
        is_boot: bool,
    ) -> Result<(), Rejected> {
        if self.waiting.len() >= WAITING {
            return Err(Rejected::new(Code::GatewayDuplicate, "too many repeats at a time"));
        }
        let ticket = self.next_ticket();
        let (family, boot, number) = (spoken.context, spoken.boot, spoken.request.piv.value() as u32);
        let asked = Box::new(Asked { source, spoken, plaintext: plaintext.into(), hash, frame: self.scribe.id() });
        let (lookup, waiting) = match (is_boot, boot) {
            (true, Some(boot)) => (Lookup::Boot { ticket, family, boot }, Waiting::Boot(asked)),
            _ => (Lookup::Hash { ticket, context: family, number }, Waiting::Repeat(asked)),
        };
        self.waiting.insert(ticket, waiting);
        self.outputs.push_back(Output::Lookup(lookup));
        Ok(())
    }

    /// The store's answer.
    pub fn handle_stored(&mut self, now: Millis, stored: Stored) {
        let (sid, judged) = match stored {
            Stored::Context { context, numbers, bound, failures } => {
                return self.recalled(now, context, &numbers, bound, failures);
            }
            Stored::Family { family, boots } => return self.family_recalled(now, family, &boots),
            Stored::Boot { ticket, opened, bound } => match self.waiting.remove(&ticket) {
                Some(Waiting::Boot(asked)) => {
                    self.go_on(now, &asked);
                    let Asked { source, spoken, plaintext, hash, .. } = *asked;
                    (source.sid, self.new_boot(now, source, spoken, &plaintext, hash, (opened, bound)))
                }
                _ => return,
            },
            Stored::Hash { ticket, hash: first } => match self.waiting.remove(&ticket) {
                Some(Waiting::Repeat(asked)) => {
                    self.go_on(now, &asked);
                    let Asked { source, spoken, plaintext, hash, .. } = *asked;
                    (source.sid, self.repeat(now, source, spoken, &plaintext, hash, first))
                }
                _ => return,
            },
        };
        if let Err(rejected) = judged {
            self.count(rejected, Some(sid));
        }
        self.scribe.over(now);
    }

    fn go_on(&mut self, now: Millis, asked: &Asked) {
        self.scribe.resume(now, asked.frame);
        self.scribe.read_number(asked.spoken.request.piv, asked.spoken.boot);
    }

    /// A boot that was never opened becomes the newest; one that was, and is none of the latest two, is a recording.
    fn new_boot(
        &mut self,
        now: Millis,
        source: Source,
        spoken: Spoken,
        plaintext: &[u8],
        hash: CiphertextHash,
        (opened, bound): (bool, u32),
    ) -> Result<(), Rejected> {
        let (family, Some(boot)) = (spoken.context, spoken.boot) else { return Ok(()) };
        let device = self.devices.find_mut(source.sid).ok_or(UNKNOWN)?;
        if !device.knows_boot(boot) {
            if opened {
                return Err(Rejected::new(Code::GatewayReplayed, "a boot that left the latest two"));
            }
            let context = device.add_boot(family, boot).ok_or(UNKNOWN)?;
            if let Some(slot) = device.slot(context) {
                slot.recall(&[], bound, 0);
            }
            self.persist(Record::BootOpened { family, boot });
        }
        let context = super::devices::boot_name(family, boot);
        self.opened(now, source, Spoken { context, ..spoken }, plaintext, hash)
    }

    /// A message whose tag held.
    fn opened(
        &mut self,
        now: Millis,
        source: Source,
        spoken: Spoken,
        plaintext: &[u8],
        hash: CiphertextHash,
    ) -> Result<(), Rejected> {
        let number = spoken.request.piv.value();
        let slot = self.devices.slot(source.sid, spoken.context).ok_or(UNKNOWN)?;
        match slot.window.check(number) {
            Verdict::Fresh => {}
            Verdict::Old => return Err(Rejected::new(Code::GatewayReplayed, "below the window")),
            Verdict::Repeat => return self.ask(source, spoken, plaintext, hash, false),
        }
        if let Way::Radio { via, .. } = source.way {
            self.heard(now, source.sid, via);
        }
        self.spoken_under(now, &source, &spoken);
        let id = Id::from(source.sid);
        let asked = (spoken.request.piv, spoken.boot);
        let mut normal = [0; LONGEST_COAP];
        let inside = match self.inside(&source, &asked, &id, plaintext, &mut normal) {
            Ok(inside) => inside,
            Err((rejected, code)) => {
                self.answer_own(now, &source, &spoken, code, &[]);
                return Err(rejected);
            }
        };
        let item8 = Opened { kid: source.sid, piv: number, bctx: spoken.boot, epoch: spoken.epoch };
        match inside {
            Inside::Ours(plaintext) => {
                if let Err(malformed) = check_payload(plaintext.get(2..).unwrap_or_default()) {
                    self.answer_own(now, &source, &spoken, coap::BAD_REQUEST, &[]);
                    return Err(malformed.inside::<E2>());
                }
                let envelope = source.envelope(self, now, Kind::GatewayOpened, plaintext, Some(item8));
                self.store(&envelope)?;
                let window = self.devices.slot(source.sid, spoken.context).map(|s| s.window);
                if window.and_then(|w| w.highest()).is_none_or(|highest| highest < number) {
                    self.hear_link_keys(source.sid, plaintext.get(2..).unwrap_or_default());
                }
                self.accept(source.sid, &spoken, hash);
                let renew = self.devices.find_mut(source.sid).is_some_and(|d| d.wants_renewal(spoken.context, number));
                if renew {
                    self.count(
                        Rejected::new(Code::GatewayLimitReached, "the context is to be renewed"),
                        Some(source.sid),
                    );
                }
                if source.wants == Wants::Answer {
                    let renew = if renew { Some(NUMBERS) } else { self.order(now, source.sid) };
                    let payload = self.control(&source, &spoken, renew);
                    let answer = C2Answer {
                        sid: source.sid,
                        context: spoken.context,
                        request: spoken.request,
                        right: Some(spoken.right),
                        way: source.way,
                        body: Body::Own { code: coap::CHANGED, payload },
                    };
                    self.after_persist(Then::Answer(Box::new(answer)));
                }
                Ok(())
            }
            Inside::Cloud(message) => {
                let kind = if let Way::Coap { .. } = source.way { Kind::CloudCoap } else { Kind::CloudTiny };
                let under = UnderC2 { context: spoken.context, request: spoken.request, right: Some(spoken.right) };
                let reply = Reply { way: source.way, c2: Some(under) };
                // Marked first, so that what waits for the envelope waits for the mark as well. A crash in between makes
                // the next one a repeat of something that was never passed on: it is, then.
                self.check_room(message.emitted_len() + 128)?;
                self.mark(source.sid, spoken.context, number as u32, hash);
                self.offer(now, source, &message, kind, Some(item8), reply)
            }
        }
    }

    /// A context is in use, or drains and has something to be confirmed under a newer one.
    fn spoken_under(&mut self, now: Millis, source: &Source, spoken: &Spoken) {
        let Some(device) = self.devices.find_mut(source.sid) else { return };
        if device.in_use(spoken.context) {
            self.settle_local(now, source.sid);
        }
        let Some(device) = self.devices.find_mut(source.sid) else { return };
        if let Some(slot) = device.slot(spoken.context) {
            slot.unsaid |= slot.standing == Standing::Draining;
        }
    }

    fn accept(&mut self, sid: Sid, spoken: &Spoken, hash: CiphertextHash) {
        self.mark(sid, spoken.context, spoken.request.piv.value() as u32, hash);
    }

    fn mark(&mut self, sid: Sid, context: super::ContextName, number: u32, hash: CiphertextHash) {
        if let Some(slot) = self.devices.slot(sid, context) {
            slot.window.mark(number.into());
        }
        self.persist(Record::Accepted { context, number, hash });
        self.ask_answer_lease(sid, context);
    }

    /// The same number once more, under a tag that holds.
    fn repeat(
        &mut self,
        now: Millis,
        source: Source,
        spoken: Spoken,
        plaintext: &[u8],
        hash: CiphertextHash,
        first: Option<CiphertextHash>,
    ) -> Result<(), Rejected> {
        let limit = self.limits.messages_a_minute;
        let may_answer = |g: &mut Self| g.devices.find_mut(source.sid).is_some_and(|d| d.may_answer_again(now, limit));
        if first != Some(hash) {
            if source.wants == Wants::Answer && may_answer(self) {
                self.answer_own(now, &source, &spoken, coap::UNAUTHORIZED, &[]);
            }
            return Err(Rejected::new(Code::GatewayNonceReuse, "another message under the same number"));
        }
        self.spoken_under(now, &source, &spoken);
        let id = Id::from(source.sid);
        let asked = (spoken.request.piv, spoken.boot);
        let mut normal = [0; LONGEST_COAP];
        match self.inside(&source, &asked, &id, plaintext, &mut normal) {
            Ok(Inside::Ours(_)) if source.wants == Wants::Answer && may_answer(self) => {
                let payload = self.control_map(source.sid, Downlink::default());
                self.answer_own(now, &source, &spoken, coap::CHANGED, &payload);
            }
            Ok(Inside::Cloud(message)) => {
                let kind = if let Way::Coap { .. } = source.way { Kind::CloudCoap } else { Kind::CloudTiny };
                let item8 =
                    Opened { kid: source.sid, piv: spoken.request.piv.value(), bctx: spoken.boot, epoch: spoken.epoch };
                // The right to an answer without a number went with the first acceptance.
                let under = UnderC2 { context: spoken.context, request: spoken.request, right: None };
                let reply = Reply { way: source.way, c2: Some(under) };
                match self.offer(now, source, &message, kind, Some(item8), reply) {
                    Err(r) if r.code != Code::CloudDuplicate => return Err(r),
                    _ => {}
                }
            }
            _ => {}
        }
        Err(Rejected::new(Code::GatewayDuplicate, "the same message again"))
    }

    /// What the plaintext is, and whether the device's record allows it. Else what to count, and the code to answer.
    fn inside<'b>(
        &self,
        source: &Source,
        (piv, boot): &'b (PartialIv, Option<BootContext>),
        id: &'b Id,
        plaintext: &'b [u8],
        normal: &'b mut [u8],
    ) -> Result<Inside<'b>, (Rejected, u8)> {
        const NO_E3: (Rejected, u8) = (Rejected::new(Code::CloudLevelMissing, "E3 is missing"), coap::UNAUTHORIZED);
        const TOO_MUCH: (Rejected, u8) = (
            Rejected::new(Code::GatewayInnerMalformed, "C3 inside, and the device's record has none"),
            coap::BAD_REQUEST,
        );
        let profile = self.devices.find(source.sid).map(|d| d.policy.profile);
        match source.way {
            Way::Radio { layers: Layers::C2OverC3, .. } => {
                let inner = Inner::parse(plaintext, Within::Request).map_err(|r| (r, coap::BAD_REQUEST))?;
                if profile != Some(Profile::ToBoth) {
                    return Err(TOO_MUCH);
                }
                let (piv, boot, ciphertext) = match inner {
                    Inner::Same { ct3 } => (*piv, boot.as_ref(), ct3),
                    Inner::Explicit { piv, bctx: None, ct3 } => (piv, None, ct3),
                    Inner::Explicit { piv, bctx: Some(_), ct3 } => {
                        // 03 n PIV3(n) bctx(8) ct3: the boot id stands right before the ciphertext.
                        let boot = plaintext.len().checked_sub(ct3.len() + 8).and_then(|at| plaintext.get(at..at + 8));
                        return Ok(Inside::Cloud(tiny_c3(source, id, piv, boot, ct3)));
                    }
                    Inner::Own { .. } => return Err(TOO_MUCH),
                };
                Ok(Inside::Cloud(tiny_c3(source, id, piv, boot_bytes(boot), ciphertext)))
            }
            Way::Radio { .. } => {
                judge_tiny_request::<E2>(plaintext).map_err(|r| (r.rejected, r.answer_code))?;
                match profile {
                    Some(Profile::ToGateway) => Ok(Inside::Ours(plaintext)),
                    _ => Err(NO_E3),
                }
            }
            Way::Coap { token, message_id, kind, .. } => {
                let inner = judge_request::<E2>(plaintext).map_err(|r| (r.rejected, r.answer_code))?;
                match (inner, profile) {
                    (InnerRequest::Payload(payload), Some(Profile::ToGateway)) => {
                        // Options are judged here; the cloud gets the form that tiny frames have.
                        let whole = normal.get_mut(..payload.len() + 2).ok_or(TOO_MUCH)?;
                        for (w, b) in whole.iter_mut().zip([POST, coap::PAYLOAD_MARKER].iter().chain(payload)) {
                            *w = *b;
                        }
                        Ok(Inside::Ours(whole))
                    }
                    (InnerRequest::Payload(_), _) => Err(NO_E3),
                    (InnerRequest::Nested { option, ciphertext }, Some(Profile::ToBoth)) => {
                        if option.kid != Some(id.as_bytes()) {
                            let other = Rejected::new(Code::GatewayInnerMalformed, "C3 inside is another device's");
                            return Err((other, coap::BAD_REQUEST));
                        }
                        Ok(Inside::Cloud(Protected { kind, code: POST, message_id, token, option, ciphertext }))
                    }
                    (InnerRequest::Nested { .. }, _) => Err(TOO_MUCH),
                }
            }
        }
    }

    /// The control map of the answer to a message that ends here. Everything that is marked is durable before this answer
    /// is sealed: it waits for a later write.
    fn control(&mut self, source: &Source, spoken: &Spoken, renew: Option<u64>) -> Box<[u8]> {
        let window = self.devices.slot(source.sid, spoken.context).map(|s| s.window.to_parts());
        let mut bitmap = [0; 8];
        let received = window
            .filter(|(_, bits)| bits.count_ones() > 1)
            .and_then(|(highest, bits)| Received::of_last(highest, bits, &mut bitmap));
        let mut earlier_bitmap = [0; 8];
        let earlier = self.devices.find_mut(source.sid).and_then(|device| {
            // Under a context that drains itself nothing is answered.
            device.slot(spoken.context).filter(|s| s.can_send())?;
            let slot = device.unsaid()?;
            slot.unsaid = false;
            let (highest, bits) = slot.window.to_parts();
            Some(Earlier { epoch: slot.epoch, received: Received::of_last(highest, bits, &mut earlier_bitmap)? })
        });
        self.control_map(source.sid, Downlink { received, renew, earlier, ..Downlink::default() })
    }

    /// The operator's order to renew, if the cloud passed one on, or that keys agreed here are old: to a few devices a minute,
    /// so that a campaign does not bring all of them at once.
    fn order(&mut self, now: Millis, sid: Sid) -> Option<u64> {
        let minute = now.0 / 60_000;
        if self.orders.0 != minute {
            self.orders = (minute, 0);
        }
        let ordered = self.devices.find(sid)?.is_ordered(now);
        if self.orders.1 >= ORDERS_A_MINUTE || !(ordered || self.is_old_local(now, sid)) {
            return None;
        }
        self.orders.1 += 1;
        if !ordered {
            self.told_local(now, sid);
            return Some(AGE);
        }
        self.devices.find_mut(sid)?.told(now);
        Some(OPERATOR)
    }

    /// An answer of our own under a number of our own.
    fn answer_own(&mut self, now: Millis, source: &Source, spoken: &Spoken, code: u8, payload: &[u8]) {
        if source.wants == Wants::Nothing {
            return;
        }
        let answer = C2Answer {
            sid: source.sid,
            context: spoken.context,
            request: spoken.request,
            right: None,
            way: source.way,
            body: Body::Own { code, payload: payload.into() },
        };
        self.answer_c2(now, answer);
    }
}

/// What the gateway says it accepted must be something: items of docs/protocol.md 7, or a classic frame.
fn check_payload(payload: &[u8]) -> Result<(), Malformed> {
    if let Payload::Sequence(items) = Payload::parse(payload)? {
        for item in items {
            if let Item::Control(map) = item {
                Uplink::parse(map)?;
            }
        }
    }
    Ok(())
}

fn tiny_c3<'b>(
    source: &Source,
    id: &'b Id,
    piv: PartialIv,
    boot: Option<&'b [u8]>,
    ciphertext: &'b [u8],
) -> Protected<'b> {
    let (kind, token) = match source.wants {
        Wants::Answer => (Type::Con, Token::from(piv.value() as u8)),
        Wants::Nothing => (Type::Non, Token::default()),
    };
    let option = OscoreOption { piv: Some(piv), kid_context: boot, kid: Some(id.as_bytes()) };
    Protected { kind, code: POST, message_id: piv.value() as u16, token, option, ciphertext }
}

/// Reasons of item 6 (docs/protocol.md 7.3): the number or the failures have reached their limit; the keys are old; the
/// operator says so.
const NUMBERS: u64 = 1;
const AGE: u64 = 4;
const OPERATOR: u64 = 5;

const UNKNOWN: Rejected = Rejected::new(Code::GatewayNoContext, "the context is gone");
