//! Classic frames (W1 to W17): what the operator said that a node sends, what opens, and what its earlier frames say of it
//! (docs/protocol.md, "Classic: judged by the cloud").
//!
//! Nothing here proves who sent a frame. What is certainly wrong is kept apart with its code; what may be wrong is a reading
//! with a flag; and no label says more than `legacy` or `plain` (D9).

mod read;

use std::sync::Arc;

use fivefold_core::e4_channel::Origin;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Epoch};
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, Value};
use fivefold_core::window::{Verdict, Window64};
use fivefold_core::wire::classic::{self, Report};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_waspmote::hardened::signature::Part;
use fivefold_waspmote::hardened::{self, Peer};

use super::judge::{age, hash};
use super::why::of_classic;
use super::{Cloud, Judged, Memory, first8};
use crate::accepted::signed::Chain;
use crate::accepted::{Accepted, Content, ContextId, Freshness, flag};
use crate::book::{Book, ClassicDevice, level_of};
use crate::classic::history::{Glimpse, History, Ruling};
use crate::classic::{ClassicFrame, UnknownFrame};
use crate::key_desk::{Asked, MESSAGES_OF_GATEWAY};
use crate::store::{ContextRow, PartRow, Standing, Write};
use read::{Told, tell};

/// A frame that a batch brought and history remembers, to be forgotten if the batch does not become durable.
#[derive(Debug)]
pub(super) struct Remembered {
    device: Arc<ClassicDevice>,
    number: u64,
}

impl<M: Memory> Cloud<M> {
    pub(super) fn judge_classic(
        &self,
        book: &Book,
        judged: &mut Judged,
        envelope: &Envelope<'_>,
        serial: &str,
        seen: bool,
    ) {
        if envelope.kind == Kind::KeyMessage {
            return self.hand_on_key_message(judged, envelope, serial);
        }
        if envelope.kind != Kind::Classic {
            return judged.refuse(envelope, Code::CloudUnknownKid, None);
        }
        let Ok(report) = Report::parse(envelope.bytes) else {
            return judged.refuse(envelope, Code::ClassicMalformed, None);
        };
        if seen {
            return;
        }
        let Some(device) = book.classics.find(judged.gateway.net(), serial) else {
            judged.write.unknown.push(UnknownFrame {
                net: judged.gateway.net(),
                serial: serial.to_owned(),
                gateway: judged.gateway.gateway(),
                carrier: report.carrier,
                at: judged.now,
                frame: report.frame.to_vec(),
            });
            return judged.refuse(envelope, Code::ClassicUnknown, None);
        };
        let told = tell(device, &report);
        let counted: Vec<Code> = told.elsewhere.iter().chain(&told.codes).copied().collect();
        let refused = self.take_classic(judged, device, envelope, &report, told);
        for code in counted.into_iter().chain(refused) {
            let detail = Detail::new(Value::Unsaid, Value::Bytes(report.frame.len()));
            judged.explain(of_classic(&report), code, detail, Some(device.source.sid));
        }
        if let Some(code) = refused {
            let rejected = Rejected::new(code, "kept apart");
            tracing::debug!(net = %judged.gateway.net(), serial, gateway = %judged.gateway.gateway(), %rejected, "refused");
            judged.refused.push((envelope.seq, code));
        }
    }

    /// A KR1 is answered behind its batch, however often the batch comes: whether it is a repeat, its server knows.
    fn hand_on_key_message(&self, judged: &mut Judged, envelope: &Envelope<'_>, serial: &str) {
        let minute = judged.now.0 / 60_000;
        let mut heard = self.heard();
        let known = heard.entry(judged.gateway.gateway()).or_default();
        if known.key_messages.0 != minute {
            known.key_messages = (minute, 0);
        }
        known.key_messages.1 = known.key_messages.1.saturating_add(1);
        let admitted = known.key_messages.1 <= MESSAGES_OF_GATEWAY;
        drop(heard);
        if !admitted {
            return judged.refuse(envelope, Rejected::new(Code::KeyMessageRefused, TOO_MANY), None);
        }
        judged.asked.push(Asked { seq: envelope.seq, serial: serial.to_owned(), bytes: envelope.bytes.to_vec() });
    }

    /// Judges what a frame tells by the frames before it, and has it written. What comes back is why it is no reading.
    fn take_classic(
        &self,
        judged: &mut Judged,
        device: &Arc<ClassicDevice>,
        envelope: &Envelope<'_>,
        report: &Report<'_>,
        told: Told,
    ) -> Option<Code> {
        if let Some(code) = told.elsewhere {
            judged.count(code, Some(device.source.sid));
            return None;
        }
        let (mut refused, mut codes) = (told.refused, told.codes);
        let mut live = device.live();
        let mut glimpse = None;
        let mut equal = 0;
        if let (None, Some(trace)) = (refused, told.trace) {
            let history =
                live.history.get_or_insert_with(|| History::resume(self.memory.classic_history(device.source.did)));
            let mut seen = Glimpse {
                hash: first8(report.frame),
                received: envelope.received,
                gateway: judged.gateway.gateway(),
                envelope: envelope.seq,
                sequence: trace.sequence,
                heads: trace.heads,
                again: 0,
                fields: trace.fields,
                blocks: trace.blocks,
            };
            equal = history.equal(&seen);
            match history.judge(&mut seen) {
                Ruling::Plausible => {}
                Ruling::Delivered { again } => {
                    // One reading, whoever brought it and however often.
                    if again {
                        judged.count(Code::GatewayDuplicate, Some(device.source.sid));
                    }
                    return None;
                }
                Ruling::Doubtful(code) => {
                    let detail = Detail::new(Value::Unsaid, Value::Bytes(report.frame.len()));
                    judged.explain(of_classic(report), code, detail, Some(device.source.sid));
                    codes.push(code);
                }
                Ruling::Refused(code) => refused = Some(code),
            }
            if refused.is_none() {
                let number = history.remember(seen.clone());
                judged.classics.push(Remembered { device: device.clone(), number });
                glimpse = Some((number, seen));
            }
        }
        let mut place = None;
        if let (None, Some((peer, number))) = (refused, told.number) {
            let context = self.classic_context(judged, device, &mut live, of_key(peer, number.epoch));
            let frame = (first8(report.frame), envelope.received);
            let knows = device.source.knows(peer, number.epoch, judged.gateway.gateway());
            match self.take_number(&mut live, context, (peer, number, knows), frame) {
                Number::New => {
                    judged.used.extend(device.source.takes_into_use(peer, number.epoch));
                    judged.numbered.push(device.clone());
                    place = Some((context, u64::from(number.sequence)));
                }
                Number::Delivered => {
                    judged.count(Code::GatewayDuplicate, Some(device.source.sid));
                    return None;
                }
                Number::Repeated => refused = Some(Code::HardenedReplayed),
            }
        }
        if let Some(code) = refused
            && !live.keeps_aside(judged.now)
        {
            // Anybody can send rubbish under a serial: it must not fill the disk.
            judged.count(code, Some(device.source.sid));
            return refused;
        }
        let way = super::judge::way(judged, device.source.sid, envelope);
        let (context, number) = match place {
            Some(place) => place,
            None => {
                let boot = BootContext(judged.boot?.0);
                (self.classic_context(judged, device, &mut live, boot), envelope.seq)
            }
        };
        drop(live);
        codes.splice(0..0, refused);
        let by = judged.gateway.gateway();
        let hides = told.number.and_then(|(peer, number)| device.source.salt(peer, number, by));
        let (mut flags, mut salt) = (0, None);
        if refused.is_none() && told.number.is_some_and(|(peer, number)| device.holds(peer, number.epoch)) {
            flags |= flag::HELD;
        }
        if refused.is_some() {
            flags |= flag::QUARANTINED;
        } else if told.is_part {
            // Its number is used up, and it is no reading. It counts where a reading in its place could be a leaf. A signature proves
            // what it proves whenever it comes: of what is held as well, and the node says it once only.
            flags |= flag::REFUSED;
            let part = hides.and_then(|_| part(device, context, told.number?.0, told.inner.as_deref()?));
            judged.write.evidence.parts.extend(part);
        } else {
            salt = hides;
        }
        let doubtful = codes.iter().any(|code| *code != Code::ClassicUnknownSensor);
        let freshness = if doubtful { Freshness::Late } else { age(way) };
        let content = Content {
            context,
            hash: hash(&[envelope.bytes]),
            way,
            freshness,
            flags,
            payload: payload(report, told.inner.as_deref(), codes.first().copied()),
            salt,
        };
        let word = judged.gateway.clone();
        let accepted = match told.origin {
            Origin::Legacy => Accepted::legacy(&word, number, content),
            _ => Accepted::danger_plain(&word, number, content),
        };
        judged.write.classic.push(ClassicFrame {
            accepted,
            did: device.source.did,
            suite: told.suite,
            serial: device.source.serial.to_string(),
            node_id: told.node_id,
            outer: told.outer,
            kind: told.kind,
            sequence: told.sequence,
            equal,
            codes,
            content: told.content,
            values: if refused.is_none() { told.values } else { Vec::new() },
            for_cloud: told.for_cloud.then(|| report.frame.to_vec()),
            glimpse,
        });
        refused
    }

    /// Whether a hardened frame is new: the ledger has every number that was taken under its key.
    ///
    /// Of a frame that a gateway opened the number is its word: it goes to the ledger as it is, which keeps the same one once
    /// and two different ones side by side. One that invents great numbers would else make true readings vanish; so would one
    /// that has not the key, if the same frame of who has it were a delivery of what it invented.
    fn take_number(
        &self,
        live: &mut crate::book::ClassicLive,
        context: ContextId,
        (peer, number, knows): (Peer, hardened::Number, bool),
        frame: ([u8; 8], Millis),
    ) -> Number {
        let sequence = number.sequence;
        // By another gateway, or by the same once more: one reading.
        let (hash, received) = frame;
        let again = |(other, at): &([u8; 8], Millis)| *other == hash && at.0.abs_diff(received.0) <= DELIVERY;
        let delivered = live.taken.iter().any(again);
        if peer == Peer::Gateway && delivered {
            return Number::Delivered;
        }
        if peer == Peer::Gateway {
            if knows {
                live.taken.truncate(TAKEN - 1);
                live.taken.push_front(frame);
            }
            return Number::New;
        }
        let window = live.numbers.entry(context).or_insert_with(|| {
            let recent = self.memory.recent(context);
            recent.highest.map_or(Window64::new(), |highest| Window64::from_parts(highest, recent.bitmap))
        });
        if window.check(u64::from(sequence)) == Verdict::Fresh {
            window.mark(u64::from(sequence));
            live.taken.truncate(TAKEN - 1);
            live.taken.push_front(frame);
            return Number::New;
        }
        if delivered { Number::Delivered } else { Number::Repeated }
    }

    /// A context of the ledger: a run of the gateway, in which its envelopes have their numbers, or a key of the hardened
    /// profile ([`of_key`]).
    fn classic_context(
        &self,
        judged: &mut Judged,
        device: &ClassicDevice,
        live: &mut crate::book::ClassicLive,
        boot: BootContext,
    ) -> ContextId {
        let did = device.source.did;
        let id = *live
            .contexts
            .entry(boot)
            .or_insert_with(|| self.memory.classic_context(did, boot).unwrap_or_else(|| self.memory.new_context()));
        if judged.write.contexts.iter().all(|c| c.id != id) {
            // Again with each batch: what is there stays.
            judged.write.contexts.push(ContextRow {
                id,
                net: device.source.net,
                did,
                level: 1,
                epoch: Epoch(0),
                bctx: Some(boot),
                standing: Standing::Active,
                since: judged.now,
                sealed: None,
                agreed: None,
                failures: 0,
                bound: 0,
                restored_at: None,
            });
        }
        id
    }

    /// Frames became durable: whose they are was heard. What is kept apart may be anybody's, and what is held of any time.
    pub(super) fn heard_classic(&self, judged: &Judged, written: &Write) {
        if written.classic.is_empty() {
            return;
        }
        let book = self.book.load();
        let unheard = flag::QUARANTINED | flag::HELD;
        for frame in written.classic.iter().filter(|f| f.accepted.row().flags & unheard == 0) {
            if let Some(device) = book.classics.find(judged.gateway.net(), &frame.serial) {
                device.live().pulse.beat(judged.now);
            }
        }
    }

    /// A batch did not become durable: its gateway sends it again, and that is no repeat.
    pub fn abandon(&self, judged: &Judged) {
        for Remembered { device, number } in &judged.classics {
            if let Some(history) = &mut device.live().history {
                history.forget(*number);
            }
        }
        // They are looked up again, where nothing of this batch is.
        for device in &judged.numbered {
            let mut live = device.live();
            live.numbers.clear();
            live.taken.clear();
        }
    }
}

const TOO_MANY: &str = "more key messages a minute than are taken of one gateway";

/// What the number of a hardened frame says of it.
enum Number {
    /// The same frame came a moment ago.
    Delivered,
    /// It is new.
    New,
    /// It was taken before, or is too old to tell.
    Repeated,
}

/// The same frame within so many milliseconds is one delivery.
const DELIVERY: u64 = 60_000;
/// Hardened frames of a device that are remembered for that.
const TAKEN: usize = 16;

/// What a frame brings of a signature, of a node that signs.
fn part(device: &ClassicDevice, context: ContextId, peer: Peer, inner: &[u8]) -> Option<PartRow> {
    let part = Part::parse(inner).ok()?;
    Some(PartRow {
        did: device.source.did,
        chain: Chain::Device,
        level: level_of(peer),
        number: part.batch.into(),
        index: part.index.into(),
        count: part.count.into(),
        bytes: part.bytes.to_vec(),
        context,
    })
}

/// Stands in the ledger for a run of a gateway where frames have numbers of their own: `key`, level, epoch.
fn of_key(peer: Peer, epoch: hardened::Epoch) -> BootContext {
    let [a, b, c, d] = epoch.0.to_be_bytes();
    BootContext([b'k', b'e', b'y', level_of(peer), a, b, c, d])
}

/// The gateway's report as it is kept: with what was opened here, and the first code against it.
fn payload(report: &Report<'_>, inner: Option<&[u8]>, code: Option<Code>) -> Vec<u8> {
    let kept = Report { inner: inner.or(report.inner), code: code.or(report.code), ..*report };
    let mut out = vec![0; classic::BYTES];
    // It has no more in it than the longest that is sent.
    let len = kept.emit(&mut out).unwrap_or(0);
    out.truncate(len);
    out
}
