//! Signed batches (docs/protocol.md 13.1): what a device says that it signed becomes durable with the message in which it says
//! so. Once that is done, it is weighed against all that is here, so that it does not matter what came first or by which
//! gateway. What is verified is one more write, before the answer.

use std::sync::Arc;

use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Did, Net, Sid};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::Sign;
use fivefold_core::proof::merkle::Hash;
use fivefold_core::reading::{Item, Payload};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic_signature::BatchSignature;
use fivefold_core::wire::control;

use super::{Cloud, Judged, Memory};
use crate::accepted::signed::{BatchName, Bitmap, Chain, Claim, SignedBatch};
use crate::accepted::{ContextId, Row};
use crate::book::{ClassicDevice, DRAIN, Device, Dossier, Live, Open, Told, Unsigned};
use crate::store::{
    BatchPast, Closed, Committed, CountKey, LeavesRow, OPEN, PART, PARTS, PartRow, Place, State, StatementRow, Verdict,
    Write,
};

/// A batch closes after so long, in milliseconds (docs/protocol.md 13.1).
const LIMIT: u64 = 24 * 3600 * 1000;
/// So long a claim waits for readings: gateways keep them for 72 hours at least.
pub(crate) const PATIENCE: u64 = DRAIN;
/// Signatures that are verified for a device beside those that [`Tries`](crate::book::Tries) has for it: so many for each of its
/// messages that is new.
const TRIES_FOR_EACH: u32 = 16;
/// The chain of a device that has never signed begins with one of these numbers.
const FIRST: u64 = 1;
/// No statement before.
const NOTHING: Hash = Hash([0; 32]);

/// What was found out of a device's batches, to be taken note of once it is durable.
#[derive(Debug)]
pub(super) struct Found {
    device: Signatory,
    told: Vec<(BatchName, Told)>,
}

/// A device of which messages came, and under what numbers those that are new.
struct Touched {
    device: Signatory,
    rows: Vec<(ContextId, u64)>,
}

/// Readings in a batch of a classic node, at most: no record says how many it takes.
pub(super) const BATCH: u8 = 64;

/// Who signs batches.
#[derive(Clone, Debug)]
enum Signatory {
    /// A hardened classic node (docs/protocol.md 13.4).
    Classic(Arc<ClassicDevice>),
    /// A device with a record.
    Device(Arc<Device>),
}

/// Which device that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    did: Did,
    net: Net,
    sid: Sid,
    /// Whether its messages end at a gateway, which counts what is over a bound under its own level.
    ends_at_gateway: bool,
}

impl Whose {
    fn of(device: &Device) -> Self {
        Self { did: device.did, net: device.net, sid: device.sid, ends_at_gateway: device.level() != 3 }
    }

    pub(super) const fn of_classic(device: &ClassicDevice) -> Self {
        let source = &device.source;
        Self { did: source.did, net: source.net, sid: source.sid, ends_at_gateway: false }
    }
}

impl Signatory {
    fn whose(&self) -> Whose {
        match self {
            Self::Classic(device) => Whose::of_classic(device),
            Self::Device(device) => Whose::of(device),
        }
    }

    fn with_dossier<T>(&self, change: impl FnOnce(&mut Dossier) -> T) -> T {
        match self {
            Self::Classic(device) => change(&mut device.live().dossier),
            Self::Device(device) => change(&mut device.live().dossier),
        }
    }

    /// What its parts say together.
    fn claim(&self, bytes: &[u8], part: &PartRow, at: Millis) -> Option<Claim> {
        let (did, chain, context) = (part.did, part.chain, part.context);
        match self {
            Self::Classic(_) => {
                let said = BatchSignature::parse(bytes).ok()?;
                let (number, first) = (said.number.into(), said.first.into());
                let (bitmap, signature) = (Bitmap::new(said.bitmap)?, said.signature.into());
                Some(Claim { did, chain, number, first, bitmap, signature, context, at })
            }
            Self::Device(_) => {
                // They are the value of item 1, as it would stand in one message.
                let map = [&b"\xA1\x01"[..], bytes].concat();
                match control::Uplink::parse(&map).ok()?.batch? {
                    control::Batch::Signature { number, first_piv, bitmap, signature } => {
                        claim(did, (chain, number), first_piv, bitmap, signature, context, at)
                    }
                    control::Batch::Chunk { .. } => None,
                }
            }
        }
    }
}

/// What a claim comes to, as things stand.
enum Weighed {
    /// It holds.
    Holds(Box<SignedBatch>, Option<Code>),
    /// It held before.
    Known,
    /// These of its readings are here, and that is not enough.
    Lacks(u64),
    /// All are here; which statement came before is not known.
    Unchained,
    /// All are here, and the signature does not hold.
    Invalid,
    /// There is nothing to weigh it with.
    Later,
    /// No more signatures are verified now.
    Tired,
}

impl<M: Memory> Cloud<M> {
    /// Takes note of what a message says of signed batches: of one at most, and of leaf hashes once. What is more, or longer
    /// than pieces of a signature can be, is counted as a limit that was reached.
    pub(super) fn read_evidence(
        &self,
        judged: &mut Judged,
        device: &Device,
        (context, boot): (ContextId, Option<BootContext>),
        payload: &[u8],
    ) {
        if device.policy.sign != Sign::Batch {
            return;
        }
        let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return };
        let (did, at, chain) = (device.did, judged.now, Chain::of(context, boot));
        let whose = Whose::of(device);
        let given_up = key(judged, &whose, Code::EvidenceIncomplete);
        let (mut batches, mut hashes, mut over) = (0, 0, 0);
        for item in items {
            let Item::Control(map) = item else { continue };
            let Ok(said) = control::Uplink::parse(map) else { continue };
            batches += u32::from(said.batch.is_some());
            hashes += u32::from(said.leaves.is_some());
            let evidence = &mut judged.write.evidence;
            match said.batch {
                Some(_) if batches > 1 => over += 1,
                Some(control::Batch::Signature { number, first_piv, bitmap, signature }) => {
                    let claim = claim(did, (chain, number), first_piv, bitmap, signature, context, at);
                    evidence.claims.extend(claim.map(|claim| (claim, given_up)));
                }
                Some(control::Batch::Chunk { number, index, count, bytes })
                    if count <= PARTS && bytes.len() <= PART =>
                {
                    let bytes = bytes.to_vec();
                    evidence.parts.push(PartRow { did, chain, level: 0, number, index, count, bytes, context });
                }
                Some(control::Batch::Chunk { .. }) => over += 1,
                None => {}
            }
            match said.leaves {
                Some(_) if hashes > 1 => over += 1,
                Some(l) => evidence.leaves.push(LeavesRow {
                    did,
                    chain,
                    number: l.number,
                    first: l.first_index,
                    hashes: l.iter().map(|h| Hash(*h)).collect(),
                    at,
                    given_up,
                }),
                None => {}
            }
        }
        (0..over).for_each(|_| judged.count(limit(&whose), Some(whose.sid)));
    }

    /// Weighs the claims that a durable batch touches. What comes of it goes into `write`.
    pub(super) fn weigh(
        &self,
        judged: &Judged,
        written: &Write,
        committed: &Committed,
        write: &mut Write,
    ) -> Vec<Found> {
        let mut devices: Vec<Touched> = Vec::new();
        let mut touch = |device: Signatory, row: &Row, verdict: Verdict| {
            if verdict == Verdict::New && row.salt.is_some() {
                device.with_dossier(|dossier| dossier.unsigned(judged.now));
            }
            // What came again completes nothing.
            let row = (!matches!(verdict, Verdict::Dup { .. })).then_some((row.context, row.piv));
            match devices.iter_mut().find(|t| t.device.whose() == device.whose()) {
                Some(touched) => touched.rows.extend(row),
                None => devices.push(Touched { device, rows: row.into_iter().collect() }),
            }
        };
        let verdicts = committed.verdicts.iter();
        for (pending, (accepted, verdict)) in judged.pending.iter().zip(written.accepted.iter().zip(verdicts)) {
            if pending.device.policy.sign == Sign::Batch {
                touch(Signatory::Device(pending.device.clone()), accepted.row(), *verdict);
            }
        }
        let book = self.book.load();
        for (frame, verdict) in written.classic.iter().zip(&committed.classic) {
            let device = book.classics.find(judged.gateway.net(), &frame.serial);
            if let Some(device) = device.filter(|d| d.source.signs) {
                touch(Signatory::Classic(device.clone()), frame.accepted.row(), *verdict);
            }
        }
        let weigh = |Touched { device, rows }| {
            let told =
                device.with_dossier(|dossier| self.weigh_device(&device, dossier, &rows, judged, written, write));
            Found { device, told }
        };
        devices.into_iter().map(weigh).collect()
    }

    fn weigh_device(
        &self,
        signatory: &Signatory,
        dossier: &mut Dossier,
        rows: &[(ContextId, u64)],
        judged: &Judged,
        written: &Write,
        write: &mut Write,
    ) -> Vec<(BatchName, Told)> {
        let (said, device) = (&written.evidence, &signatory.whose());
        // A process that ended between its two writes left parts without a claim.
        let left = self.memory.unclaimed_parts(device.did);
        let parts = said.parts.iter().filter(|p| p.did == device.did).chain(&left);
        let assembled = self.assemble(signatory, parts, judged.now);
        let given_up = key(judged, device, Code::EvidenceIncomplete);
        write.evidence.claims.extend(assembled.iter().map(|claim| (claim.clone(), given_up)));
        let mut due: Vec<(Claim, bool)> = Vec::new();
        for claim in said.claims.iter().map(|(c, _)| c).filter(|c| c.did == device.did).chain(&assembled) {
            dossier.unsigned = None;
            dossier.overdue = None;
            dossier.open(claim);
            due.push((claim.clone(), true));
        }
        let touched = |c: &Claim| {
            rows.iter().any(|(_, piv)| c.covers(*piv))
                || said.leaves.iter().any(|l| l.did == device.did && (l.chain, l.number) == (c.chain, c.number))
        };
        // What the last touch of an earlier process, or of one whose write failed, came to is not known.
        let is_unsettled = !std::mem::take(&mut dossier.is_settled);
        for Open { claim, .. } in &dossier.open {
            if (is_unsettled || touched(claim)) && !due.iter().any(|(c, _)| c.is_same(claim)) {
                due.push((claim.clone(), false));
            }
        }
        // What a statement is chained to comes first.
        due.sort_by_key(|(c, _)| c.number);
        let messages = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut tries = dossier.tries.take(judged.now).saturating_add(messages.saturating_mul(TRIES_FOR_EACH));
        let (mut told, mut fresh, mut at) = (Vec::new(), Vec::new(), 0);
        while let Some((claim, is_asked)) = due.get(at).cloned() {
            at += 1;
            match self.weigh_claim(device, &claim, dossier, &fresh, &mut tries) {
                Weighed::Holds(batch, code) => {
                    let proven = batch.proven();
                    let (name, hash, context) = (claim.name(), proven.statement, proven.context);
                    fresh.push((
                        name,
                        StatementRow { number: name.number, hash, context, first: claim.first, bitmap: claim.bitmap },
                    ));
                    told.push((name, Told::Complete));
                    for open in &dossier.open {
                        if open.claim.chain == claim.chain
                            && claim.number.checked_add(1) == Some(open.claim.number)
                            && !due.iter().any(|(c, _)| c.is_same(&open.claim))
                        {
                            due.push((open.claim.clone(), false));
                        }
                    }
                    write.evidence.signed.push((*batch, code.map(|code| key(judged, device, code))));
                }
                Weighed::Known => {
                    // It was durable before: it takes nobody's place.
                    dossier.open.retain(|o| !o.claim.is_same(&claim));
                    told.push((claim.name(), Told::Complete));
                }
                Weighed::Lacks(have) if is_asked && have != 0 => {
                    told.push((claim.name(), ask(dossier, &claim, have)));
                }
                Weighed::Unchained if is_asked => told.push((claim.name(), ask(dossier, &claim, u64::MAX))),
                Weighed::Invalid => {
                    tracing::error!(did = %device.did, number = claim.number, "the signature of a batch does not hold");
                    dossier.ask(claim.name());
                    told.push((claim.name(), Told::SignAgain(claim.bitmap)));
                    let key = key(judged, device, Code::EvidenceSignature);
                    write.evidence.closed.push(Closed::new(claim, State::Invalid, key));
                }
                // What is left waits until it is touched again.
                Weighed::Tired => {
                    write.count(key(judged, device, limit(device)));
                    break;
                }
                Weighed::Lacks(_) | Weighed::Unchained | Weighed::Later => {}
            }
        }
        dossier.tries.put_back(tries);
        give_way(dossier, write, given_up);
        told
    }

    /// Claims whose parts are all here now.
    fn assemble<'p>(&self, device: &Signatory, parts: impl Iterator<Item = &'p PartRow>, now: Millis) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for part in parts {
            let name = BatchName { chain: part.chain, number: part.number };
            let Some(bytes) = self.memory.batch_parts(part.did, name, Some(part.level)) else { continue };
            let whole = device.claim(&bytes, part, now).filter(|claim| claim.number == part.number);
            claims.extend(whole.filter(|w| !claims.iter().any(|c| c.is_same(w))));
        }
        claims
    }

    fn weigh_claim(
        &self,
        device: &Whose,
        claim: &Claim,
        dossier: &Dossier,
        fresh: &[(BatchName, StatementRow)],
        tries: &mut u32,
    ) -> Weighed {
        let book = self.book.load();
        // A key that was revoked or replaced counts for what came before.
        let came = claim.at.0 / 1000;
        let of_device = book.signers.of_device(device.did).iter().rev();
        let keys: Vec<_> = of_device.filter(|s| s.registered.revoked_at.is_none_or(|at| came <= at)).collect();
        if keys.is_empty() {
            return Weighed::Later;
        }
        let Some(mut past) = self.memory.batch_past(device.net, claim) else { return Weighed::Later };
        if past.state == Some(State::Verified) {
            return Weighed::Known;
        }
        past.statements.extend(fresh.iter().filter(|(name, _)| name.chain == claim.chain).map(|(_, row)| *row));
        let mut previous: Vec<Hash> = before(&past, claim).map(|s| s.hash).collect();
        previous.push(NOTHING);
        let others = past.statements.iter().filter(|s| s.number != claim.number).map(|s| s.hash);
        for hash in others {
            if !previous.contains(&hash) {
                previous.push(hash);
            }
        }
        for (candidate, signer) in past.candidates.iter().flat_map(|c| keys.iter().map(move |k| (c, k))) {
            if let Some(batch) = SignedBatch::verify(claim, candidate, &past.given, &previous, &signer.key, tries) {
                let code = chain(&past, &batch, dossier);
                return Weighed::Holds(Box::new(batch), code);
            }
        }
        if *tries == 0 {
            return Weighed::Tired;
        }
        let all = claim.bitmap.bits();
        let is_whole = |has: u64| {
            let mut leaves = claim.numbers().enumerate();
            leaves.all(|(i, (j, _))| has >> j & 1 == 1 || past.given.iter().any(|(at, _)| usize::from(*at) == i))
        };
        let has: Vec<u64> = past.candidates.iter().map(|c| c.has(claim)).collect();
        let Some(best) = has.iter().find(|has| is_whole(**has)).or(has.iter().max_by_key(|h| h.count_ones())) else {
            return Weighed::Later;
        };
        if !is_whole(*best) {
            return Weighed::Lacks(*best & all);
        }
        let is_chained = before(&past, claim).next().is_some()
            || claim.number <= FIRST && !past.statements.iter().any(|s| s.number < claim.number);
        // Another statement of the number before may be what this one names, and it was never whole here.
        let name_before = claim.number.checked_sub(1).map(|number| BatchName { number, ..claim.name() });
        // However often this one is said again: its device may not be able to sign anew, or two gateways brought it.
        let was_asked = |before| dossier.was_asked(before, past.claims_before);
        let is_another = past.claims_before.count > 1 || name_before.is_some_and(was_asked);
        if !is_chained || is_another {
            return Weighed::Unchained;
        }
        // A piece names its batch alone: one of a second statement may stand here beside others of the first, until all of
        // the second came.
        let is_mixed = dossier.was_asked(claim.name(), past.claims)
            && (self.memory.batch_parts(device.did, claim.name(), None).is_some()
                || past.statements.iter().any(|s| s.number == claim.number));
        if is_mixed { Weighed::Later } else { Weighed::Invalid }
    }

    /// Takes note of what is durable now.
    pub(super) fn found(&self, found: Vec<Found>, write: &Write) {
        for Found { device, told } in found {
            // Classic nodes are told nothing.
            let is_told = matches!(&device, Signatory::Device(device) if device.level() == 3);
            let evidence = &write.evidence;
            device.with_dossier(|dossier| {
                dossier.is_settled = true;
                for (batch, _) in &evidence.signed {
                    dossier.open.retain(|o| !o.claim.is_same(&batch.proven().claim));
                }
                for closed in &evidence.closed {
                    dossier.open.retain(|o| !o.claim.is_same(&closed.claim));
                }
                if is_told {
                    told.into_iter().for_each(|(name, told)| dossier.say(name, told));
                }
            });
        }
    }

    /// `EV-02` once a day while a batch is overdue; claims that nothing completes any more are given up (`EV-03`).
    pub(super) fn watch_batches(&self, device: &Device, live: &mut Live, write: &mut Write) -> Option<Code> {
        if device.policy.sign != Sign::Batch {
            return None;
        }
        watch_dossier(&mut live.dossier, Whose::of(device), device.policy.batch, write)
    }
}

/// The oldest claims that are too many are given up: here and in the store alike, so that none is open in one of both alone.
fn give_way(dossier: &Dossier, write: &mut Write, key: CountKey) {
    let evidence = &mut write.evidence;
    let decided = |claim: &&Claim| {
        evidence.signed.iter().any(|(batch, _)| batch.proven().claim.is_same(claim))
            || evidence.closed.iter().any(|closed| closed.claim.is_same(claim))
    };
    let waiting: Vec<&Claim> = dossier.open.iter().map(|o| &o.claim).filter(|claim| !decided(claim)).collect();
    let over = waiting.iter().take(waiting.len().saturating_sub(OPEN));
    let over: Vec<Closed> = over.map(|claim| Closed::new((*claim).clone(), State::Incomplete, key)).collect();
    evidence.closed.extend(over);
}

/// Whether a batch is overdue: twice the limit has passed.
fn is_late(unsigned: Unsigned, batch: u8, now: Millis) -> bool {
    now.since(unsigned.since) > 2 * LIMIT || unsigned.count > 2 * u32::from(batch.max(1))
}

impl Device {
    /// Since when its readings wait for a signature that is overdue.
    pub fn unsigned_since(&self, now: Millis) -> Option<Millis> {
        let unsigned = self.live().dossier.unsigned.filter(|_| self.policy.sign == Sign::Batch)?;
        is_late(unsigned, self.policy.batch, now).then_some(unsigned.since)
    }
}

/// What [`Cloud::watch_batches`] says, of batches of so many readings.
pub(super) fn watch_dossier(dossier: &mut Dossier, whose: Whose, batch: u8, write: &mut Write) -> Option<Code> {
    let now = write.now;
    let Whose { net, sid, .. } = whose;
    let count = |code| CountKey { code, net: Some(net), gateway: None, sid: Some(sid), place: Place::Cloud };
    dossier.open.retain(|o| {
        let over = now.since(o.claim.at) > PATIENCE;
        if over {
            let key = count(Code::EvidenceIncomplete);
            write.evidence.closed.push(Closed::new(o.claim.clone(), State::Incomplete, key));
        }
        !over
    });
    let unsigned = dossier.unsigned?;
    if !is_late(unsigned, batch, now) || dossier.overdue.is_some_and(|at| now.since(at) < LIMIT) {
        return None;
    }
    dossier.overdue = Some(now);
    Some(Code::EvidenceOverdue)
}

fn claim(
    did: Did,
    (chain, number): (Chain, u64),
    first: u64,
    bitmap: &[u8],
    signature: &[u8; 64],
    context: ContextId,
    at: Millis,
) -> Option<Claim> {
    // Above that no message can be.
    if first > u64::from(NUMBER_LIMIT) {
        return None;
    }
    let bitmap = Bitmap::new(bitmap)?;
    Some(Claim { did, chain, number, first, bitmap, signature: Box::new(*signature), context, at })
}

/// The code of what is over a bound.
fn limit(device: &Whose) -> Code {
    if device.ends_at_gateway { Code::GatewayLimitReached } else { Code::CloudLimitReached }
}

fn key(judged: &Judged, device: &Whose, code: Code) -> CountKey {
    judged.key(code, Some(device.sid))
}

/// Twice for a new signature over what is here; a device that only repeats itself is asked for all leaf hashes.
fn ask(dossier: &mut Dossier, claim: &Claim, have: u64) -> Told {
    let asked = dossier.open.iter_mut().find(|o| o.claim.is_same(claim)).map_or(0, |o| {
        o.asked = o.asked.saturating_add(1);
        o.asked
    });
    if asked > 2 && asked % 2 == 1 {
        return Told::SendLeaves;
    }
    dossier.ask(claim.name());
    Told::SignAgain(claim.bitmap.only(have))
}

fn before<'p>(past: &'p BatchPast, claim: &Claim) -> impl Iterator<Item = &'p StatementRow> + use<'p> {
    let number = claim.number;
    past.statements.iter().filter(move |s| s.number.checked_add(1) == Some(number))
}

/// What is wrong with the place of a verified batch in the chain of its device: EV-03 for a gap, EV-04 for a fork.
fn chain(past: &BatchPast, batch: &SignedBatch, dossier: &Dossier) -> Option<Code> {
    let proven = batch.proven();
    let claim = &proven.claim;
    let is_other = |s: &StatementRow| {
        s.number == claim.number && !(s.context == proven.context && claim.narrows(s.first, s.bitmap))
    };
    let mut lower = past.statements.iter().filter(|s| s.number < claim.number);
    if past.statements.iter().any(is_other) {
        return Some(Code::EvidenceChain);
    }
    if before(past, claim).any(|s| s.hash == proven.previous) {
        return None;
    }
    // Signed again because what it was chained to never came, or signed after a reboot that followed a second statement of the
    // batch before: the chain begins anew.
    let name_before = claim.number.checked_sub(1).map(|number| BatchName { number, ..claim.name() });
    let was_asked = dossier.was_asked(claim.name(), past.claims)
        || name_before.is_some_and(|name| dossier.was_asked(name, past.claims_before));
    let begins_anew = proven.previous == NOTHING && was_asked;
    if before(past, claim).next().is_some() && !begins_anew {
        return Some(Code::EvidenceChain);
    }
    if proven.previous == NOTHING {
        // The first of all, or one that was signed again because what came before is not known.
        let is_first = claim.number <= FIRST && lower.next().is_none() && before(past, claim).next().is_none();
        return (!is_first).then_some(Code::EvidenceIncomplete);
    }
    let is_gap = lower.any(|s| s.hash == proven.previous);
    Some(if is_gap { Code::EvidenceIncomplete } else { Code::EvidenceChain })
}
