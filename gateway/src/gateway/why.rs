//! What the operator is told of a refusal (`fivefold why`): its frame's name, what was expected, what came.
//!
//! Told after the refusal, from the clear header of the frame and from what the engine knows, and of a flood only a sample:
//! a frame that is dropped costs a copy of its bytes, and no more once its code had [`A_SECOND`] explanations this second.

use std::collections::HashMap;

use fivefold_core::e1_link::E1S_RULE;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Did, Sid};
use fivefold_core::oscore::{NUMBER_LIMIT, PartialIv};
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, FrameId, Refusal, Value};
use fivefold_core::window::{Verdict, Window64};
use fivefold_core::wire::ieee802154::{Address, Frame};
use fivefold_core::wire::tiny::Layers;

use super::{AWAY_LONG, Gateway, Output};

/// Explanations of one code in one second.
const A_SECOND: u8 = 10;
/// A frame counter may jump by this much (docs/protocol.md 4.1), and must stay below that.
const JUMP: u64 = 65_536;
const COUNTER_LIMIT: u64 = 0xF000_0000;
/// Numbers that a window under C2 remembers.
const WINDOW: u64 = 64;

/// What a frame said of itself, as far as it was read.
#[derive(Clone, Copy, Default)]
struct Said {
    rule: Option<u8>,
    piv: Option<u64>,
    boot: Option<BootContext>,
    layers: Option<&'static str>,
}

/// The frame that is being judged, and how much was told of late.
#[derive(Default)]
pub(super) struct Scribe {
    now: Millis,
    /// As it came: what opens it changes it in place.
    frame: Vec<u8>,
    /// EUI-64 that its radio names, where it does.
    from: Option<Did>,
    /// Whether `frame` is the one that is judged; else this may be its name.
    hears: bool,
    id: Option<FrameId>,
    said: Said,
    second: u64,
    told: HashMap<Code, u8>,
}

impl Scribe {
    /// From now on this frame is judged.
    pub(super) fn hear(&mut self, now: Millis, from: Option<Did>, frame: &[u8]) {
        self.over(now);
        self.frame.extend_from_slice(frame);
        (self.from, self.hears) = (from, true);
    }

    /// From now on a message is judged that was heard before.
    pub(super) fn resume(&mut self, now: Millis, id: Option<FrameId>) {
        self.over(now);
        self.id = id;
    }

    /// From now on nothing is judged that came as a frame.
    pub(super) fn over(&mut self, now: Millis) {
        self.frame.clear();
        (self.now, self.from, self.hears, self.id, self.said) = (now, None, false, None, Said::default());
    }

    /// What the tiny frame inside says in the clear.
    pub(super) fn read_tiny(&mut self, frame: &[u8]) {
        self.said.rule = frame.first().copied();
    }

    /// Which levels it has.
    pub(super) fn read_layers(&mut self, layers: Option<Layers>) {
        self.said.layers = Some(match layers {
            Some(Layers::C3) => "E3 alone",
            Some(Layers::C2) => "E2 alone",
            Some(Layers::C2OverC3) => "E2 over E3",
            None => "neither E2 nor E3",
        });
    }

    /// Which number it has, and of which boot.
    pub(super) fn read_number(&mut self, piv: PartialIv, boot: Option<BootContext>) {
        (self.said.piv, self.said.boot) = (Some(piv.value()), boot);
    }

    /// The name of what is judged.
    pub(super) fn id(&self) -> Option<FrameId> {
        if self.hears { Some(FrameId::of(&self.frame)) } else { self.id }
    }

    fn has_room(&mut self, code: Code) -> bool {
        let second = self.now.0 / 1000;
        if self.second != second {
            self.second = second;
            self.told.clear();
        }
        let told = self.told.entry(code).or_default();
        *told = told.saturating_add(1);
        *told <= A_SECOND
    }

    /// Source and security header of the frame, where its form is one of E1.
    fn link(&self) -> Option<Clear> {
        if let Ok(frame) = Frame::parse(&self.frame) {
            let [control, a, b, c, d, key_index] = frame.security;
            let (source, sid) = match frame.source {
                Address::Short(sid) => (Value::Sid(sid), Some(sid)),
                Address::Extended(did) => (Value::Did(did), None),
            };
            let to = Some((frame.pan.0, frame.destination));
            return Some(Clear { to, source, sid, control, counter: u32::from_le_bytes([a, b, c, d]), key_index });
        }
        let (Some(did), [E1S_RULE, control, a, b, c, d, key_index, ..]) = (self.from, self.frame.as_slice()) else {
            return None;
        };
        let (control, key_index) = (*control, *key_index);
        let counter = u32::from_le_bytes([*a, *b, *c, *d]);
        Some(Clear { to: None, source: Value::Did(did), sid: None, control, counter, key_index })
    }
}

/// The clear header of a frame under E1.
struct Clear {
    /// PAN and short address that it is for.
    to: Option<(u16, Sid)>,
    source: Value,
    sid: Option<Sid>,
    control: u8,
    counter: u32,
    key_index: u8,
}

impl Gateway {
    /// Tells of a refusal that was counted, if there is room for it.
    pub(super) fn explain(&mut self, rejected: Rejected, sid: Option<Sid>) {
        if self.scribe.has_room(rejected.code) {
            let detail = self.detail(rejected.code, sid);
            let (at, heard) = (self.scribe.now, self.scribe.id());
            let id = heard.unwrap_or_else(|| FrameId::of_event(rejected.code, at, sid));
            self.tell_why(Refusal { id, at, rejected, detail, net: Some(self.net), gateway: Some(self.name), sid });
        }
    }

    /// Tells that the cloud refused what came here as frame `id`. It is counted there.
    pub(super) fn explain_for_cloud(&mut self, now: Millis, code: Code, sid: Sid, (id, message): (FrameId, FrameId)) {
        const THERE: &str = "the cloud refused it: ask there for the id of the message";
        self.scribe.over(now);
        if self.scribe.has_room(code) {
            let (net, gateway) = (Some(self.net), Some(self.name));
            let detail = Detail::new(Value::Unsaid, Value::Message(message));
            let rejected = Rejected::new(code, THERE);
            self.tell_why(Refusal { id, at: now, rejected, detail, net, gateway, sid: Some(sid) });
        }
    }

    fn tell_why(&mut self, refusal: Refusal) {
        self.outputs.push_back(Output::Explained(Box::new(refusal)));
    }

    /// What the check of this code compared, as far as it is a value.
    fn detail(&mut self, code: Code, sid: Option<Sid>) -> Detail {
        let (said, link) = (self.scribe.said, self.scribe.link());
        let length = if self.scribe.hears { Value::Bytes(self.scribe.frame.len()) } else { Value::Unsaid };
        let number = said.piv.map_or(Value::Unsaid, Value::Sender);
        let claimed = sid.map_or(Value::Unsaid, Value::Sid);
        match (code, &link) {
            (Code::LinkNotOurs, Some(Clear { to: Some((pan, to)), .. })) => {
                let own = self.link.identity();
                match *pan == own.pan.0 {
                    true => Detail::new(Value::Sid(own.sid), Value::Sid(*to)),
                    false => Detail::new(Value::Pan(own.pan.0), Value::Pan(*pan)),
                }
            }
            (Code::LinkLevelTooLow, Some(link)) => {
                let minimum = self.link.policy().minimum.number();
                Detail::new(Value::Level(minimum), Value::Level(link.control & 0x07))
            }
            (Code::LinkKeyUnknown, Some(link)) => {
                let mut held = [0; 4];
                held.iter_mut().zip(self.link.keys().indexes()).for_each(|(to, index)| *to = index);
                Detail::new(Value::KeyIndexes(held), Value::KeyIndex(link.key_index))
            }
            (Code::LinkForged, Some(link)) => Detail::new(Value::KeyIndex(link.key_index), link.source),
            (Code::LinkReplayed | Code::LinkCounterJump, Some(link)) => {
                let last = link.sid.and_then(|sid| self.link.last_counter(sid, link.key_index)).map(u64::from);
                let expected = match (last, code) {
                    (None, _) => Value::Unsaid,
                    (Some(last), Code::LinkCounterJump) => Value::AtMost(last + JUMP),
                    (Some(last), _) => Value::Above(last),
                };
                Detail::new(expected, Value::Number(link.counter.into()))
            }
            (Code::LinkNeighbourUnknown | Code::LinkUnsecured, Some(link)) => Detail::new(Value::Unsaid, link.source),
            (Code::LinkCounterHigh, _) => Detail::new(Value::AtMost(COUNTER_LIMIT), Value::Unsaid),
            (Code::LinkHopLimit | Code::LinkNotOurs | Code::LinkNeighbourUnknown, _) => {
                Detail::new(Value::Unsaid, claimed)
            }
            (Code::TinyMalformed | Code::PivNotMinimal | Code::FragmentLost, _) => {
                Detail::new(Value::Unsaid, said.rule.map_or(length, Value::Rule))
            }
            (Code::GatewayUnknownKid | Code::CloudUnknownKid, _) => Detail::new(Value::Unsaid, claimed),
            (Code::GatewayNoContext, _) => {
                let newest = sid.and_then(|sid| self.devices.find(sid)).and_then(|d| d.newest_epoch());
                Detail::new(newest.map_or(Value::Unsaid, Value::Epoch), said.boot.map_or(number, Value::Boot))
            }
            (Code::GatewayReplayed, _) => {
                let window = sid.and_then(|sid| self.devices.find(sid)).and_then(|d| d.window_in_use());
                let low = window.zip(said.piv).and_then(|(window, piv)| lowest(window, piv));
                let old = low.map(|low| Detail::new(Value::Above(low), number));
                old.unwrap_or(Detail::new(Value::Unsaid, said.boot.map_or(number, Value::Boot)))
            }
            (
                Code::GatewayForged
                | Code::GatewayDuplicate
                | Code::CloudDuplicate
                | Code::GatewayNonceReuse
                | Code::GatewayInnerMalformed,
                _,
            ) => Detail::new(Value::Unsaid, number),
            (Code::GatewayLevelMissing | Code::CloudLevelMissing, _) => {
                let profile = sid.and_then(|sid| self.devices.find(sid)).map(|d| d.policy.profile.as_str());
                let word = |word: Option<&'static str>| word.map_or(Value::Unsaid, Value::Word);
                Detail::new(word(profile), word(said.layers))
            }
            (Code::GatewayLimitReached | Code::CloudLimitReached, _) => match said.piv {
                Some(piv) if piv > u64::from(NUMBER_LIMIT) => {
                    Detail::new(Value::AtMost(NUMBER_LIMIT.into()), Value::Sender(piv))
                }
                _ => Detail::new(Value::AtMost(self.limits.messages_a_minute.into()), number),
            },
            (Code::ChannelWrongNet, _) => Detail::new(Value::Net(self.net), Value::Unsaid),
            (Code::ChannelSequence, _) => Detail::new(Value::AtLeast(self.state_version()), Value::Unsaid),
            (Code::StoreFull, _) => {
                let used = usize::try_from(self.spool_used).unwrap_or(usize::MAX);
                Detail::new(Value::AtMost(self.limits.spool_bytes), Value::Bytes(used))
            }
            (Code::CloudUnreachable, _) => {
                let [longest, ..] = AWAY_LONG;
                let away = self.scribe.now.since(self.away_since) / 1000;
                Detail::new(Value::Seconds(longest / 1000), Value::Seconds(away))
            }
            // Of other frames, their length: what is in them may be the payload.
            _ => Detail::new(Value::Unsaid, length),
        }
    }
}

/// The number above which a window takes a number that it found too old.
fn lowest(window: Window64, piv: u64) -> Option<u64> {
    (window.check(piv) == Verdict::Old).then(|| window.highest().map(|highest| highest.saturating_sub(WINDOW)))?
}
