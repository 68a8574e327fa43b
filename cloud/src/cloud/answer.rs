//! What devices are told: the protected answers to what they asked, with acknowledgements and commands inside.

use std::sync::Arc;

use fivefold_core::e3_cloud::E3;
use fivefold_core::error::Code;
use fivefold_core::oscore::{AnswerNumber, OscoreOption, PartialIv, Plaintext, UnnumberedAnswer};
use fivefold_core::profile::Radio;
use fivefold_core::suite::TAG;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::coap::{self, Protected, Token, Type};
use fivefold_core::wire::control::{Command, Downlink as ControlMap, Earlier, LinkKey, Received};
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Originator, Refusal, Reply};

use super::due::Reason;
use super::judge::heighten;
use super::{Cloud, Concluded, Memory};
use crate::accepted::signed::{BatchName, Chain};
use crate::accepted::{ContextId, Row, flag};
use crate::book::{Device, LinkRotation, Live, Told};
use crate::store::{CountKey, Place, Recent, Standing, Verdict, Write};

/// A repeat by another gateway within this time of the first gets no answer: the first gateway was chosen (9.5).
const CHOSEN: u64 = 1500;
/// Control bytes that an answer to a tiny message carries at most: what is left of a frame under both levels (6.4).
const TINY_CONTROL: usize = 48;
/// The same on XBee modules that encrypt among themselves, behind a relay: 94 bytes less E1S, mesh header and both levels.
const XBEE_CONTROL: usize = 44;
/// The same on DigiMesh modules: 73 bytes, and a MIC of 64 bits. A network key fits, alone.
const DIGIMESH_CONTROL: usize = 28;
/// The same over UDP.
const COAP_CONTROL: usize = 512;
/// Sender numbers that one durable write leases (W1).
const BLOCK: u32 = 64;
/// Of the numbers of a context of before a restore, so many are left for what comes the first time: whoever repeats recordings
/// must not keep a device from hearing that it should renew (8.4).
const RESERVE: u32 = 16;

/// An accepted row that somebody may wait for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) device: Arc<Device>,
    pub(super) context: ContextId,
    /// Nothing under its number or a later one was heard in its context before.
    pub(super) highest: bool,
    /// What was asked, if an answer is wanted and may be given.
    pub(super) question: Option<Question>,
}

/// What an answer needs to know of its request.
pub(super) struct Question {
    pub(super) token: Token,
    pub(super) code: u8,
    pub(super) renew: Option<u64>,
    pub(super) seq: u64,
    pub(super) tiny: bool,
    pub(super) once: UnnumberedAnswer<E3>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("request", &self.once.request()).finish_non_exhaustive()
    }
}

impl<M: Memory> Cloud<M> {
    /// Takes note of what the ledger said of one row.
    pub(super) fn note(&self, pending: &Pending, row: &Row, verdict: Verdict, write: &mut Write) {
        let device = &pending.device;
        let mut live = device.live();
        let live = &mut *live;
        if verdict == Verdict::New && pending.highest {
            live.speaks(pending.context, write);
        }
        let Some(ctx) = live.contexts.iter_mut().find(|c| c.id == pending.context) else { return };
        ctx.written = true;
        ctx.unsaid |= ctx.standing == Standing::Draining && ctx.bctx.is_none();
        match verdict {
            Verdict::New => {
                let recent = ctx.recent.get_or_insert_default();
                heighten(recent, row.piv);
                let back = recent.highest.map_or(0, |h| h - row.piv);
                recent.bitmap |= u32::try_from(back).ok().and_then(|b| 1u64.checked_shl(b)).unwrap_or(0);
                recent.last = row.way.ingested;
                if row.flags & flag::HELD == 0 {
                    super::watch::heard(live, row);
                }
                if row.flags & (flag::REFUSED | flag::HELD) == 0 {
                    let strangers = self.book.load().templates.strangers(device.net, &row.payload);
                    write.unknown_rows.extend(strangers.into_iter().map(|id| (device.did, id)));
                }
            }
            Verdict::Dup { .. } => {}
            Verdict::NonceReuse => {
                tracing::error!(did = %device.did, piv = row.piv, "two messages under one number: both in quarantine");
                if ctx.bctx.is_some() {
                    write.count(CountKey {
                        code: Code::CloudBootRepeats,
                        net: Some(row.way.net),
                        gateway: Some(row.way.gateway),
                        sid: Some(row.way.sid),
                        place: Place::Cloud,
                    });
                }
            }
        }
        if pending.question.is_some() {
            live.asked = Some(row.way.ingested);
            // To whom a key was given is durable before it leaves: if the device is revoked, the key is worth nothing.
            let book = self.book.load();
            if let Some(rotation) = book.rotations.get(&device.net)
                && let Some(LinkKey { index, key: Some(_), .. }) = rotation.told(live.link_keys.map(|l| l.keys))
                && !rotation.was_given(index, live.link_told)
            {
                write.link_told.push((device.did, index));
            }
        }
        // A repeat is answered under a number of our own, and that is leased before (W1). What was answered before the store
        // was put back from a copy nobody knows (8.4).
        if pending.question.is_some()
            && let Some(ctx) = live.contexts.iter().find(|c| c.id == pending.context)
            && (verdict != Verdict::New || ctx.restored.is_some())
            && ctx.lease.left() < BLOCK / 2
            && let Some(bound) = ctx.proposal(BLOCK, row.way.ingested)
            && !write.leases.iter().any(|(id, _)| *id == ctx.id)
        {
            write.leases.push((ctx.id, bound));
        }
    }

    /// Seals the answers of a batch and writes the reply. What [`Concluded::write`] holds is durable by now.
    pub fn reply(&self, concluded: Concluded) -> Vec<u8> {
        let Concluded { write, verdicts, written, judged, found, key_answers } = concluded;
        self.found(found, &write);
        let now = judged.now;
        let book = self.book.load();
        let is_primary = book.gateway(judged.gateway.name()).is_none_or(|g| g.registered.primary);
        let mut refused = judged.refused;
        let mut answers = Vec::new();
        for ((pending, accepted), verdict) in judged.pending.into_iter().zip(&written.accepted).zip(verdicts) {
            let row = accepted.row();
            {
                let mut live = pending.device.live();
                if let Some(ctx) = live.contexts.iter_mut().find(|c| c.id == pending.context) {
                    for (_, bound) in write.leases.iter().filter(|(id, _)| *id == ctx.id) {
                        ctx.lease.extend(*bound);
                    }
                }
                for (_, index) in write.link_told.iter().filter(|(did, _)| *did == pending.device.did) {
                    live.link_told = Some((*index, now));
                }
                live.commands.retain(|c| !written.results.iter().any(|r| r.did == c.did && r.id == c.id));
            }
            if verdict == Verdict::NonceReuse {
                let code = if row.level < 3 { Code::GatewayNonceReuse } else { Code::CloudNonceReuse };
                refused.push((row.way.seq, code));
            }
            let silent = match verdict {
                // Under C2 the primary alone can speak: an answer given to another gateway would be lost (9.5).
                _ if pending.device.policy.profile.has_e2() => !is_primary,
                Verdict::Dup { gateway, ingested } => gateway != row.way.gateway && now.since(ingested) < CHOSEN,
                Verdict::New | Verdict::NonceReuse => false,
            };
            let Pending { device, context, question, .. } = pending;
            if let Some(question) = question.filter(|_| !silent) {
                let seq = question.seq;
                let rotation = book.rotations.get(&device.net).map(|r| &**r);
                if let Some(bytes) = answer(&device, context, question, verdict, rotation) {
                    answers.push((row.way, seq, bytes));
                }
            }
        }
        refused.sort_unstable_by_key(|(seq, _)| *seq);
        let refused: Vec<_> = refused.into_iter().map(|(seq, code)| Refusal { seq, code }).collect();
        let key_answers: Vec<_> = key_answers.iter().map(|a| (a, a.kr2.to_bytes())).collect();
        let keys = key_answers.iter().map(|(answer, kr2)| Downlink {
            kind: DownlinkKind::KeyMessage,
            originator: Some(Originator::Classic(&answer.serial)),
            bytes: kr2,
            seq: Some(answer.seq),
            expires: None,
        });
        let downlinks: Vec<_> = answers
            .iter()
            .map(|(way, seq, bytes)| Downlink {
                kind: DownlinkKind::Answer,
                originator: Some(Originator::Node { net: way.net, sid: way.sid }),
                bytes,
                seq: Some(*seq),
                expires: None,
            })
            .chain(keys)
            .collect();
        let reply = Reply { durable_upto: judged.upto, refused: List::of(&refused), downlinks: List::of(&downlinks) };
        let size = 64
            + refused.len() * 24
            + answers.iter().map(|(_, _, b)| b.len() + 64).sum::<usize>()
            + key_answers.iter().map(|(a, kr2)| a.serial.len() + kr2.len() + 64).sum::<usize>();
        let mut out = vec![0; size];
        let len = reply.emit(&mut out).unwrap_or_else(|error| {
            // The bound above holds for every reply; an empty one would lose answers, never readings.
            tracing::error!(%error, "a reply could not be written");
            0
        });
        out.truncate(len);
        out
    }
}

/// Seals one answer: without a number the first time, under one of ours after that. `None` when no number is left.
fn answer(
    device: &Device,
    context: ContextId,
    question: Question,
    verdict: Verdict,
    rotation: Option<&LinkRotation>,
) -> Option<Vec<u8>> {
    let mut live = device.live();
    let Live { contexts, commands, link_keys, link_told, dossier, .. } = &mut *live;
    // By C3 alone: a gateway's word is not enough to hand a key to somebody, and the gateway does it itself (4.3).
    let link_key = rotation.and_then(|r| {
        let told = r.told(link_keys.map(|l| l.keys))?;
        (told.key.is_none() || r.was_given(told.index, *link_told)).then_some(told)
    });
    let ctx = contexts.iter_mut().find(|c| c.id == context)?;
    if ctx.standing == Standing::Draining && ctx.bctx.is_none() {
        return None;
    }
    let request = question.once.request();
    let (number, piv) = match verdict {
        Verdict::New if ctx.restored.is_none() => (AnswerNumber::Unnumbered(question.once), None),
        Verdict::Dup { .. } if ctx.restored.is_some() && ctx.lease.left() <= RESERVE => return None,
        _ => {
            let n = ctx.lease.take().ok()?;
            let piv = PartialIv::from_value(n.value());
            (AnswerNumber::Own(n), Some(piv))
        }
    };
    let before = contexts.iter_mut().find(|c| c.unsaid);
    let mut bitmap = [0; 8];
    let earlier = before.and_then(|c| {
        let Recent { highest, bitmap: bits, .. } = c.recent?;
        c.unsaid = false;
        Some(Earlier { epoch: c.epoch, received: Received::of_last(highest?, bits, &mut bitmap)? })
    });
    let ctx = contexts.iter().find(|c| c.id == context)?;
    let (code, renew) = match verdict {
        Verdict::NonceReuse => (coap::UNAUTHORIZED, Some(Reason::NonceReuse.wire())),
        _ => (question.code, question.renew),
    };
    let limit = if question.tiny { tiny_control(device.policy.radio) } else { COAP_CONTROL };
    let mut control = [0; COAP_CONTROL];
    let recent = ctx.recent.unwrap_or_default();
    let said = Said { earlier, renew, link_key };
    let batch = dossier.next_to_say(Chain::of(ctx.id, ctx.bctx));
    let (control, says_batch) =
        control_map(&mut control, limit, &recent, request.piv.value(), said, batch.as_ref(), commands);
    if let (Some((name, _)), true) = (batch, says_batch) {
        dossier.said(name);
    }
    let mut plaintext = [0; COAP_CONTROL + 2];
    let len = Plaintext { code, options: &[], payload: control }.emit(&mut plaintext).ok()?;
    let mut ciphertext = [0; COAP_CONTROL + 2 + TAG];
    let keys = ctx.keys.as_ref()?;
    let len = keys.seal_answer(&request, number, plaintext.get(..len)?, &mut ciphertext).ok()?;
    let message = Protected {
        kind: Type::Non,
        code: coap::CHANGED,
        message_id: 0,
        token: question.token,
        option: OscoreOption { piv, kid_context: None, kid: None },
        ciphertext: ciphertext.get(..len)?,
    };
    let mut out = vec![0; message.emitted_len()];
    let len = message.emit(&mut out).ok()?;
    out.truncate(len);
    Some(out)
}

const fn tiny_control(radio: Radio) -> usize {
    match radio {
        Radio::Digimesh => DIGIMESH_CONTROL,
        Radio::Xbee => XBEE_CONTROL,
        _ => TINY_CONTROL,
    }
}

/// What an answer says in any case, if there is anything.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    /// Which messages are here that came under the context before.
    earlier: Option<Earlier<'a>>,
    /// That the device should renew.
    renew: Option<u64>,
    /// Its next step of a key rotation.
    link_key: Option<LinkKey<'a>>,
}

/// What stands in an answer beside its code: which messages are here (if more than the one answered), what is said in any
/// case, what became of a batch, and as many commands as fit. Whether the batch is in it comes back too.
fn control_map<'o>(
    out: &'o mut [u8],
    limit: usize,
    recent: &Recent,
    asked: u64,
    said: Said<'_>,
    batch: Option<&(BatchName, Told)>,
    commands: &[crate::store::CommandRow],
) -> (&'o [u8], bool) {
    let mut bitmap = [0; 8];
    let received = recent.highest.and_then(|highest| Received::of_last(highest, recent.bitmap, &mut bitmap));
    let received = received.filter(|r| recent.bitmap.count_ones() > 1 || r.base_piv != asked);
    let commands: Vec<Command<'_>> =
        commands.iter().map(|c| Command { id: c.id, op: c.op, arguments: &c.args }).collect();
    let batch = batch.map(|(name, told)| told.wire(name.number));
    let with = (0..=commands.len()).rev().map(|n| (received, batch, n)).chain([(None, batch, 1), (None, batch, 0)]);
    // A network key alone fills the smallest frame.
    for (received, batch, count) in with.chain([(None, None, 1), (None, None, 0)]) {
        let map = ControlMap {
            received,
            commands: List::of(commands.get(..count).unwrap_or_default()),
            batch,
            renew: said.renew,
            link_key: said.link_key,
            earlier: said.earlier,
            ..ControlMap::default()
        };
        if map == ControlMap::default() {
            return (&[], false);
        }
        let room = limit.min(out.len());
        if let Some(len) = out.get_mut(..room).and_then(|o| map.emit(o).ok()) {
            return (out.get(..len).unwrap_or_default(), batch.is_some());
        }
    }
    (&[], false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accepted::signed::Bitmap;
    use fivefold_core::time::Millis;
    use fivefold_core::wire::state::Phase;

    #[test]
    fn a_network_key_goes_out_over_every_radio() {
        let recent = Recent { highest: Some(1 << 19), bitmap: u64::MAX, last: Millis(0) };
        let link_key = Some(LinkKey { index: 254, key: Some(&[7; 16]), phase: Phase::Distribute });
        let said = Said { link_key, ..Said::default() };
        for radio in [Radio::Ieee802154, Radio::Xbee, Radio::Digimesh] {
            let mut out = [0; 64];
            let batch = (BatchName { chain: Chain::Device, number: 3 }, Told::Complete);
            let map = control_map(&mut out, tiny_control(radio), &recent, 7, said, Some(&batch), &[]).0;
            assert!(ControlMap::parse(map).unwrap().link_key.is_some(), "{radio}");
        }
    }

    #[test]
    fn an_answer_to_one_message_alone_has_no_control_map() {
        let recent = Recent { highest: Some(7), bitmap: 1, last: Millis(0) };
        let nothing = Said::default();
        assert_eq!(control_map(&mut [0; 64], 48, &recent, 7, nothing, None, &[]).0, b"");
        assert!(!control_map(&mut [0; 64], 48, &recent, 6, nothing, None, &[]).0.is_empty());
        let renew = Said { renew: Some(1), ..nothing };
        assert!(!control_map(&mut [0; 64], 48, &recent, 7, renew, None, &[]).0.is_empty());
    }

    #[test]
    fn what_became_of_a_batch_goes_out_beside_what_was_received_and_makes_room_for_a_network_key() {
        let recent = Recent { highest: Some(1 << 19), bitmap: u64::MAX, last: Millis(0) };
        let longest = BatchName { chain: Chain::Device, number: u64::MAX };
        let batch = (longest, Told::SignAgain(Bitmap::new(&[0xFF; 8]).unwrap()));
        for radio in [Radio::Ieee802154, Radio::Xbee, Radio::Digimesh] {
            let mut out = [0; 64];
            let (map, says) =
                control_map(&mut out, tiny_control(radio), &recent, 7, Said::default(), Some(&batch), &[]);
            assert!(says && ControlMap::parse(map).unwrap().batch.is_some(), "{radio}");
        }
        let link_key = Some(LinkKey { index: 254, key: Some(&[7; 16]), phase: Phase::Distribute });
        let said = Said { link_key, ..Said::default() };
        let mut out = [0; 64];
        assert!(!control_map(&mut out, DIGIMESH_CONTROL, &recent, 7, said, Some(&batch), &[]).1);
    }
}
