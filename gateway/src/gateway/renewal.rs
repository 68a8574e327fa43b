//! E5 on its way through: messages of EDHOC between devices and the cloud, and contexts that come of them.
//!
//! Here the gateway is no end of a run (at a site without a cloud it is: `local.rs`). It says whose message it is, which E1 or its configuration has shown, and carries the
//! answer back. Nothing is stored: what is lost, the device sends again. A C2 context that the cloud hands over before an
//! answer is durable before the answer goes on (docs/protocol.md 8.2, W6).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use fivefold_core::e5_renewal::ToServer;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{self, Message, Token, Type, number};
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, Kind, Originator, parse_downlinks};
use fivefold_core::wire::state::Added;
use fivefold_core::wire::tiny::{EdhocRule, Tiny};

use super::flight::Via;
use super::output::AddedContext;
use super::receive::Source;
use super::{ContextName, Gateway, Lookup, Output, Record, Then};

/// Messages of EDHOC that are passed on for one device in a minute.
pub(super) const RUNS_A_MINUTE: u16 = 12;
/// Messages that wait for the cloud, and for how long in milliseconds.
const WAITING: usize = 256;
const PATIENCE: u64 = 30_000;
/// Path of the resource (RFC 9528 A.2).
const PATH: [&[u8]; 2] = [b".well-known", b"edhoc"];
/// application/edhoc+cbor-seq.
const CONTENT_FORMAT: u8 = 64;

/// How an answer goes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Back {
    /// CoAP over UDP.
    Coap { peer: SocketAddr, token: Token, message_id: u16, kind: Type },
    /// As a tiny frame; over the air to a straggler, under the retired network key that it came under.
    Radio { to: Sid, via: Via, recovery: Option<u8> },
}

/// A message that waits for the cloud.
struct Waiting {
    sid: Sid,
    same: [u8; 32],
    back: Back,
    since: Millis,
}

/// All of them.
#[derive(Default)]
pub(super) struct Runs {
    waiting: HashMap<u64, Waiting>,
    /// Contexts that no state has yet.
    pub(super) added: HashMap<(Sid, Epoch), AddedContext>,
}

impl Runs {
    pub(super) fn expire(&mut self, now: Millis) {
        self.waiting.retain(|_, w| now.since(w.since) < PATIENCE);
    }
}

impl Gateway {
    /// Passes a message of EDHOC on, or takes it where this gateway is the end of runs.
    ///
    /// # Errors
    /// `E3-01`, `E3-05` while the same one is on its way, `E3-09`; as [`Self::end_run`], `E2-09`.
    pub(super) fn pass_run(
        &mut self,
        now: Millis,
        source: &Source,
        back: Back,
        payload: &[u8],
    ) -> Result<(), Rejected> {
        let sid = source.sid;
        let too_many = Rejected::new(Code::CloudLimitReached, "more messages of EDHOC than are passed on");
        let unknown = Rejected::new(Code::CloudUnknownKid, "EDHOC of a device that is not in the allow-list");
        let device = self.devices.find_mut(sid).ok_or(unknown)?;
        if self.site.is_some() {
            if !device.admits_run(now) {
                return Err(Rejected::new(Code::GatewayLimitReached, "more messages of EDHOC than are taken"));
            }
            return self.end_run(now, sid, back, payload);
        }
        let same = sha256(&[payload]);
        if self.runs.waiting.values().any(|w| w.sid == sid && w.same == same) {
            return Err(Rejected::new(Code::CloudDuplicate, "the same message of EDHOC is on its way"));
        }
        if !device.admits_run(now) || self.runs.waiting.len() >= WAITING {
            return Err(too_many);
        }
        let ticket = self.next_ticket();
        let envelope = Envelope { seq: ticket, ..source.envelope(self, now, Kind::Edhoc, payload, None) };
        let mut bytes = vec![0; payload.len() + 128];
        let len = envelope.emit(&mut bytes).map_err(|_| Rejected::new(Code::TinyMalformed, "longer than a message"))?;
        bytes.truncate(len);
        self.runs.waiting.insert(ticket, Waiting { sid, same, back, since: now });
        self.outputs.push_back(Output::Exchange { ticket, envelope: bytes.into() });
        Ok(())
    }

    /// What became of an [`Output::Exchange`]: the body of the cloud's reply, or `None` when there was none. With the cloud
    /// away nobody is answered, and the device sends its message again.
    pub fn handle_exchanged(&mut self, ticket: u64, reply: Option<&[u8]>) {
        let Some(waiting) = self.runs.waiting.remove(&ticket) else { return };
        let Some(reply) = reply else { return };
        let downlinks = match parse_downlinks(reply) {
            Ok(downlinks) => downlinks,
            Err(malformed) => return self.count(malformed.counted(Code::TinyMalformed), Some(waiting.sid)),
        };
        let before = self.persisted;
        for downlink in downlinks.iter() {
            let done = match downlink.kind {
                DownlinkKind::Context => self.add_context(downlink.bytes),
                DownlinkKind::Edhoc if self.is_for(&downlink, ticket, waiting.sid) => {
                    if self.persisted == before {
                        self.answer_run(waiting.sid, waiting.back, downlink.bytes);
                    } else {
                        let (sid, back, payload) = (waiting.sid, waiting.back, downlink.bytes.into());
                        self.after_persist(Then::Run { sid, back, payload });
                    }
                    Ok(())
                }
                _ => Err(Rejected::new(Code::TinyMalformed, "a reply about EDHOC with something else in it")),
            };
            if let Err(rejected) = done {
                // What depends on a context that was refused is not answered.
                return self.count(rejected, Some(waiting.sid));
            }
        }
    }

    fn is_for(&self, downlink: &Downlink<'_>, ticket: u64, sid: Sid) -> bool {
        downlink.seq == Some(ticket) && downlink.originator == Some(Originator::Node { net: self.net, sid })
    }

    /// Sends an answer on its way back.
    pub(super) fn answer_run(&mut self, sid: Sid, back: Back, payload: &[u8]) {
        // message_2 and message_4 are byte strings; an error begins with a number (RFC 9528 6).
        let rule = match payload.first().map(|b| b >> 5) {
            Some(2) => EdhocRule::ToClient,
            _ => EdhocRule::Error,
        };
        match back {
            Back::Radio { to, via: Via::Neighbour(via), recovery: Some(index) } => {
                if !self.send_in_recovery(index, to, via, (rule, payload)) {
                    let payload = payload.into();
                    self.after_persist(Then::Run { sid, back, payload });
                }
            }
            Back::Radio { to, via, .. } => {
                let tiny = Tiny::Edhoc { rule, payload };
                let mut out = [0; super::receive::LONGEST_TINY];
                let Ok(len) = tiny.emit(&mut out) else { return };
                self.expand_down(sid, &tiny);
                self.send_tiny(to, via, out.get(..len).unwrap_or_default());
            }
            Back::Coap { peer, token, message_id, kind } => {
                let code = if rule == EdhocRule::ToClient { coap::CHANGED } else { coap::BAD_REQUEST };
                let mut options = [0; 4];
                let Ok(n) = coap::emit_option(&mut options, 0, number::CONTENT_FORMAT, &[CONTENT_FORMAT]) else {
                    return;
                };
                let (kind, message_id) = match kind {
                    Type::Con => (Type::Ack, message_id),
                    _ => (Type::Non, self.next_message_id()),
                };
                let options = options.get(..n).unwrap_or_default();
                let message = Message { kind, code, message_id, token, options, payload };
                let mut out = vec![0; message.emitted_len()];
                if message.emit(&mut out).is_ok() {
                    self.outputs.push_back(Output::Send { to: peer, message: out.into() });
                }
            }
        }
    }

    /// A CoAP request for the resource of EDHOC. Whose it is, the configuration says, else the message itself: EAD_1 of
    /// message_1, C_R of message_3.
    ///
    /// # Errors
    /// As [`Self::pass_run`]; `E2-08` or `E3-08` where the device's record has E1, `T-01`, `E5-02` to `E5-04` for what is
    /// no message of EDHOC.
    pub(super) fn coap_run(
        &mut self,
        now: Millis,
        from: SocketAddr,
        message: &Message<'_>,
        named: &mut Option<Sid>,
    ) -> Result<(), Rejected> {
        let sid = match self.coap_devices.get(&from.ip()) {
            Some(sid) => *sid,
            None => sid_of(message.payload)?,
        };
        *named = Some(sid);
        let unknown = Rejected::new(Code::CloudUnknownKid, "EDHOC of a device that is not in the allow-list");
        let link = self.link_over_ip(sid, unknown)?;
        let Message { kind, message_id, token, payload, .. } = *message;
        let back = Back::Coap { peer: from, token, message_id, kind };
        self.pass_run(now, &Source::over_ip(sid, from, link, (token, message_id, kind), now), back, payload)
    }

    /// Takes a context that the cloud hands over ahead of its next state.
    ///
    /// # Errors
    /// `E4-03` for one that a state of a later version has not, for another gateway group's, and for one whose epoch another
    /// context has: under another name the same keys would begin with new counters. `E4-02` for another network's.
    fn add_context(&mut self, bytes: &[u8]) -> Result<(), Rejected> {
        let added = Added::parse(bytes).map_err(|m| Rejected::new(Code::ChannelSequence, m.reason))?;
        if added.net != self.net {
            return Err(Rejected::new(Code::ChannelWrongNet, "context: it is another network's"));
        }
        let (sid, epoch, version) = (added.context.sid, added.context.epoch, added.version);
        let applied = self.state_version();
        let kept = self.runs.added.get(&(sid, epoch)).map_or(0, |a| a.version);
        let Some(device) = self.devices.find_mut(sid) else {
            return Err(Rejected::new(Code::CloudUnknownKid, "context: of a device that is not in the allow-list"));
        };
        let known = device.knows(added.group, &added.context);
        let is_old = version <= applied || version < kept;
        let reason = match known {
            // A state that was built after it is faster sometimes: then the context is there.
            true if is_old => return Ok(()),
            true => None,
            false if is_old => Some("context: older than the state"),
            false if !self.groups.contains(&added.group) => Some("context: it is another gateway group's"),
            false if device.has_epoch(epoch) => Some("context: another one has this epoch"),
            false => None,
        };
        if let Some(reason) = reason {
            return Err(Rejected::new(Code::ChannelSequence, reason));
        }
        let Some(name) = device.install(added.group, &added.context) else { return Ok(()) };
        device.sort();
        if device.slot(name).is_some_and(|s| !s.ready) {
            self.recalling.insert(name, sid);
            self.outputs.push_back(Output::Lookup(Lookup::Context(name)));
        }
        let context = AddedContext { version, bytes: bytes.into() };
        self.runs.added.insert((sid, epoch), context.clone());
        self.persist(Record::Added { sid, epoch, context });
        Ok(())
    }

    /// Contexts that were handed over one by one, and that the state of this version has not, stay beside it.
    pub(super) fn keep_added(&mut self, version: u64, named: &mut HashSet<ContextName>) {
        self.runs.added.retain(|_, a| a.version > version);
        for context in self.runs.added.values() {
            if let Ok(added) = Added::parse(&context.bytes)
                && let Some(device) = self.devices.find_mut(added.context.sid)
            {
                named.extend(device.install(added.group, &added.context));
            }
        }
    }

    /// Which class of link a device over IP has, if its record allows any.
    pub(super) fn link_over_ip(&self, sid: Sid, unknown: Rejected) -> Result<LinkClass, Rejected> {
        let device = self.devices.find(sid).ok_or(unknown)?;
        let link = device.policy.radio.link_class();
        let allowed = match link {
            LinkClass::None => device.overrides.danger_no_link,
            LinkClass::ThreeGpp => true,
            _ => false,
        };
        if allowed {
            return Ok(link);
        }
        let code = if device.policy.profile.has_e2() { Code::GatewayLevelMissing } else { Code::CloudLevelMissing };
        Err(Rejected::new(code, "E1 is missing, and the device's record does not allow that"))
    }
}

/// Whether a request is for the resource of EDHOC.
///
/// # Errors
/// `T-01` when it is, and has an option that must not be passed over.
pub(super) fn is_run(message: &Message<'_>) -> Result<bool, Rejected> {
    let mut path = message.options().filter(|(n, _)| *n == number::URI_PATH).map(|(_, value)| value);
    if message.code != coap::POST || !PATH.iter().all(|p| path.next() == Some(p)) || path.next().is_some() {
        return Ok(false);
    }
    let known = |n: u16| matches!(n, number::URI_HOST | number::URI_PORT | number::URI_PATH | number::ACCEPT);
    match message.options().any(|(n, _)| coap::is_critical(n) && !known(n)) {
        true => Err(Rejected::new(Code::TinyMalformed, "EDHOC with an option that is not known")),
        false => Ok(true),
    }
}

/// Whose message it says it is.
fn sid_of(payload: &[u8]) -> Result<Sid, Rejected> {
    const NOBODY: Rejected = Rejected::new(Code::CloudUnknownKid, "EDHOC that says of no device that it is its own");
    match ToServer::parse(payload)? {
        ToServer::Offer(offer) => offer.announced().ok_or(NOBODY),
        ToServer::Error { c_r, .. } | ToServer::Proof { c_r, .. } => {
            c_r.as_bytes().try_into().map(Sid::from_bytes).map_err(|_| NOBODY)
        }
    }
}
