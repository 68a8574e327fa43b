//! One envelope: who it is from, whether it has the levels that its device must have, whether it opens.

use std::cmp::Ordering;
use std::sync::Arc;

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::{Code, Rejected, Severity};
use fivefold_core::id::{BootContext, Epoch, Sid};
use fivefold_core::oscore::{
    Authentic, FAILURES_HARD, FAILURES_SOFT, InnerRequest, NUMBER_LIMIT, judge_request, judge_tiny_request,
};
use fivefold_core::profile::{KeyIndexes, Mode, Profile, Sign};
use fivefold_core::proof::statement::Salt;
use fivefold_core::reading::{Item, Payload};
use fivefold_core::suite::{CiphertextHash, sha256};
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, Value};
use fivefold_core::wire::coap::{self, Outer, Protected, Type};
use fivefold_core::wire::control;
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_core::wire::event::Event;

use super::answer::{Pending, Question};
use super::{Cloud, Health, Judged, Memory};
use crate::accepted::{Accepted, Content, ContextId, Freshness, MessageHash, Way, flag};
use crate::book::{Book, Ctx, DRAIN, Device, Live};
use crate::restored;
use crate::store::{CountKey, ORPHAN_LIFE, Orphan, Place, Quarantined, Recent, ResultRow, Standing};

/// A reading is fresh when its gateway received it at most so long ago (docs/protocol.md 8.1).
const FRESH: u64 = 15 * 60 * 1000;
/// Boots that a device may make in a day (E3-13).
const BOOTS: usize = 20;
const DAY: u64 = 24 * 3600 * 1000;
/// Contexts that drain at a time, at most.
const DRAINING: usize = 8;
/// Contexts that are tried for one message, at most (docs/protocol.md 5): the active one, eight pending ones, and those
/// that drain.
const TRIALS: usize = 1 + 8 + DRAINING;

/// The parts of a C3 message that opening needs.
struct Sealed<'b> {
    message: Protected<'b>,
    piv: fivefold_core::oscore::PartialIv,
    bctx: Option<BootContext>,
    hash: MessageHash,
    kind: Kind,
}

/// What opened, and under which context.
struct Found<'b> {
    proof: Authentic<'b, E3>,
    context: ContextId,
    /// Since when it drains, if it does.
    draining: Option<Millis>,
    /// A boot that was not known before.
    is_new: bool,
    freshness: Freshness,
}

impl<M: Memory> Cloud<M> {
    pub(super) fn judge_envelope(
        &self,
        book: &Book,
        judged: &mut Judged,
        bytes: &[u8],
        envelope: &Envelope<'_>,
        seen: bool,
    ) {
        let sid = match envelope.originator {
            Originator::Node { net, sid } if net == judged.gateway.net() => sid,
            Originator::Node { .. } => return judged.refuse(envelope, Code::ChannelWrongNet, None),
            Originator::Classic(serial) => return self.judge_classic(book, judged, envelope, serial, seen),
        };
        if envelope.kind == Kind::Event {
            return self.take_event(judged, envelope, seen);
        }
        let Some(device) = book.devices.get(&(judged.gateway.net(), sid)) else {
            let code =
                if envelope.kind == Kind::GatewayOpened { Code::GatewayUnknownKid } else { Code::CloudUnknownKid };
            return judged.refuse(envelope, Rejected::new(code, "no device of the book has this short id"), None);
        };
        if !envelope.link.is_e1() && !device.overrides.danger_no_link {
            return judged.refuse(envelope, Rejected::new(Code::CloudLevelMissing, "E1 is missing"), Some(device));
        }
        let profile = device.policy.profile;
        let outcome = match (envelope.kind, &envelope.opened) {
            (Kind::CloudTiny | Kind::CloudCoap, Some(opened)) if profile == Profile::ToBoth && opened.kid == sid => {
                self.open_c3(judged, device, bytes, envelope)
            }
            (Kind::CloudTiny | Kind::CloudCoap, _) if profile == Profile::ToCloud => {
                self.open_c3(judged, device, bytes, envelope)
            }
            (Kind::GatewayOpened, Some(opened)) if profile == Profile::ToGateway => {
                self.vouched(judged, device, envelope, opened)
            }
            (Kind::DangerPlain, Some(opened)) if profile == Profile::DangerLinkOnly => {
                self.danger_plain(judged, device, envelope, opened)
            }
            (Kind::Edhoc, _) => Err(Rejected::new(Code::TinyMalformed, "EDHOC is asked and answered, not stored")),
            (Kind::Classic | Kind::KeyMessage, _) => {
                Err(Rejected::new(Code::CloudUnknownKid, "no classic device has this short id"))
            }
            _ => Err(Rejected::new(Code::CloudLevelMissing, "below the level that the device's record declares")),
        };
        if let Err(rejected) = outcome {
            tracing::debug!(net = %judged.gateway.net(), %sid, gateway = %judged.gateway.gateway(), %rejected, "refused");
            judged.refuse(envelope, rejected, Some(device));
        }
    }

    fn take_event(&self, judged: &mut Judged, envelope: &Envelope<'_>, seen: bool) {
        let Ok(event) = Event::parse(envelope.bytes) else {
            return judged.refuse(envelope, Rejected::new(Code::TinyMalformed, "no event of a gateway"), None);
        };
        if seen {
            return;
        }
        for count in event.counts.iter() {
            let key = CountKey { place: Place::Gateway, ..judged.key(count.code, count.sid) };
            match louder(&event, count.code, count.count) {
                Some(severity) => judged.write.said.push((key, count.count, severity)),
                None => judged.write.counts.push((key, count.count)),
            }
        }
        let health =
            Health { at: judged.now, uptime_s: event.uptime, spool_used: event.spool_used, spool_max: event.spool_max };
        self.heard().entry(judged.gateway.gateway()).or_default().health = Some(health);
    }

    // E3.

    fn open_c3(
        &self,
        judged: &mut Judged,
        device: &Arc<Device>,
        bytes: &[u8],
        envelope: &Envelope<'_>,
    ) -> Result<(), Rejected> {
        let sealed = sealed(envelope, device.sid)?;
        let way = way(judged, device.sid, envelope);
        // A buffer for each trial: what opens is borrowed from the one it opened into.
        let mut outs: [Vec<u8>; TRIALS + 1] = Default::default();
        let mut live = device.live();
        let found = self.find(judged, device, &mut live, &sealed, way, &mut outs);
        let found = match found {
            Ok(found) => found,
            Err(rejected) => {
                if device.policy.mode == Mode::Random
                    && matches!(rejected.code, Code::CloudForged | Code::CloudNoContext)
                {
                    judged.write.orphans.push(Orphan {
                        net: device.net,
                        sid: device.sid,
                        at: judged.now,
                        gateway: way.gateway,
                        hash: sealed.hash,
                        envelope: bytes.to_vec(),
                    });
                }
                return Err(rejected);
            }
        };
        let (is_new, context) = (found.is_new, found.context);
        self.take(judged, device, &mut live, &sealed, way, found, Answer::Wanted, envelope.seq)?;
        if is_new {
            self.adopt(judged, device, &mut live, context);
        }
        Ok(())
    }

    /// Finds the context that opens a message: active, then pending, then draining; in mode R by the boot it names.
    fn find<'b>(
        &self,
        judged: &mut Judged,
        device: &Device,
        live: &mut Live,
        sealed: &Sealed<'_>,
        way: Way,
        outs: &'b mut [Vec<u8>],
    ) -> Result<Found<'b>, Rejected> {
        const NO_CONTEXT: Rejected = Rejected::new(Code::CloudNoContext, "no context for this boot, or none at all");
        let failures = live.active().map_or(0, |c| c.failures);
        if failures >= FAILURES_HARD {
            return Err(Rejected::new(Code::CloudLimitReached, "2^20 failed verifications: renew this device"));
        }
        if sealed.bctx.is_some() && device.policy.mode == Mode::Persistent {
            return Err(NO_CONTEXT);
        }
        let mut order: Vec<usize> = (0..live.contexts.len()).collect();
        order.sort_by_key(|i| live.contexts.get(*i).map(|c| c.standing));
        let ciphertext = sealed.message.ciphertext;
        let mut outs = outs.iter_mut();
        let mut opened = None;
        for (i, out) in order.into_iter().zip(outs.by_ref().take(TRIALS)) {
            let Some(ctx) = live.contexts.get(i).filter(|c| sealed.bctx.is_none() || c.bctx == sealed.bctx) else {
                continue;
            };
            let Some(keys) = &ctx.keys else { continue };
            out.resize(ciphertext.len(), 0);
            if let Ok(proof) = keys.open_request(sealed.piv, ciphertext, out) {
                opened = Some((ctx.id, proof));
                break;
            }
        }
        if let Some((id, proof)) = opened {
            self.in_use(judged, device, live, id);
            let Some(ctx) = live.contexts.iter_mut().find(|c| c.id == id) else { return Err(NO_CONTEXT) };
            let freshness = self.freshness(ctx, sealed.piv.value(), way);
            let draining = (ctx.standing == Standing::Draining).then_some(ctx.since);
            if !ctx.written {
                judged.write.contexts.push(ctx.row(device, 3));
            }
            return Ok(Found { proof, context: ctx.id, draining, is_new: false, freshness });
        }
        if let (Some(bctx), Some(bootstrap), Some(out)) = (sealed.bctx, &device.bootstrap, outs.next())
            && live.contexts.iter().all(|c| c.bctx != Some(bctx))
        {
            let keys = bootstrap
                .context_for_peer(device.sid, Epoch(0), Some(bctx), device.policy.alg)
                .map_err(|_| NO_CONTEXT)?;
            out.resize(ciphertext.len(), 0);
            if let Ok(proof) = keys.open_request(sealed.piv, ciphertext, out) {
                return Ok(self.boot_opened(judged, device, live, way, bctx, keys, proof));
            }
        }
        if live.contexts.is_empty() && sealed.bctx.is_none() {
            return Err(NO_CONTEXT);
        }
        self.failed(judged, device, live)
    }

    fn failed<'b>(&self, judged: &mut Judged, device: &Device, live: &mut Live) -> Result<Found<'b>, Rejected> {
        if let Some(ctx) = live.active_mut() {
            ctx.failures = ctx.failures.saturating_add(1);
            judged.write.failures.push((ctx.id, ctx.failures));
            if ctx.failures == FAILURES_SOFT {
                tracing::warn!(did = %device.did, "2^14 failed verifications: renew this device");
                judged.count(Code::CloudLimitReached, Some(device.sid));
            }
        }
        Err(Rejected::new(Code::CloudForged, "tag failure under every context"))
    }

    /// A boot of mode R opened that is not one of the two at hand: it is new, or an older one that drains.
    #[expect(clippy::too_many_arguments, reason = "private: one step of `find`, cut out for its length")]
    fn boot_opened<'b>(
        &self,
        judged: &mut Judged,
        device: &Device,
        live: &mut Live,
        way: Way,
        bctx: BootContext,
        keys: fivefold_core::oscore::Context<E3>,
        proof: Authentic<'b, E3>,
    ) -> Found<'b> {
        let (keys, back) = self.back(live, bctx, Some(keys));
        if let Some((context, since)) = back {
            // Its row, where the batch that brought it first was not stored.
            let row = live.contexts.iter().find(|c| c.id == context && !c.written).map(|c| c.row(device, 3));
            judged.write.contexts.extend(row);
            return Found { proof, context, draining: Some(since), is_new: false, freshness: Freshness::Late };
        }
        let freshness = age(way);
        let ctx = Ctx {
            id: self.memory.new_context(),
            epoch: Epoch(0),
            bctx: Some(bctx),
            standing: Standing::Active,
            since: judged.now,
            written: false,
            keys,
            blind: None,
            recent: Some(Recent::default()),
            lease: restored::lease(device.restored, 0),
            failures: 0,
            sealed: None,
            agreed: None,
            unsaid: false,
            restored: device.restored,
        };
        judged.write.contexts.push(ctx.row(device, 3));
        let context = ctx.id;
        self.new_boot(judged, device, live, ctx);
        Found { proof, context, draining: None, is_new: true, freshness }
    }

    /// Takes a boot that was kept by name among those at hand again: it is not over yet. The keys come back if there is none.
    fn back(
        &self,
        live: &mut Live,
        bctx: BootContext,
        keys: Option<fivefold_core::oscore::Context<E3>>,
    ) -> (Option<fivefold_core::oscore::Context<E3>>, Option<(ContextId, Millis)>) {
        let Some(older) = live.older.remove(&bctx) else { return (keys, None) };
        live.put_boot(1, older.again(bctx, keys, self.memory.recent(older.id)));
        (None, Some((older.id, older.since)))
    }

    /// Puts a new boot first; the one before drains.
    fn new_boot(&self, judged: &mut Judged, device: &Device, live: &mut Live, ctx: Ctx) {
        for before in live.contexts.iter_mut().filter(|c| c.standing != Standing::Draining) {
            before.standing = Standing::Draining;
            before.since = judged.now;
            judged.write.standings.push((before.id, before.standing, before.since));
        }
        live.put_boot(0, ctx);
        while live.boots.front().is_some_and(|at| judged.now.since(*at) > DAY) {
            live.boots.pop_front();
        }
        live.boots.push_back(judged.now);
        if live.boots.len() > BOOTS {
            let key = judged.key(Code::CloudBootRepeats, Some(device.sid));
            judged.write.said.push((key, 1, Severity::Warning));
            live.boots.pop_front();
        }
    }

    /// The first message under a pending context makes it the active one. All of lower epochs drain, pending ones too: the
    /// device may have spoken under one of them, and not been heard (docs/protocol.md 11).
    fn in_use(&self, judged: &mut Judged, device: &Device, live: &mut Live, context: ContextId) {
        let pending = live.contexts.iter().find(|c| c.id == context && c.standing == Standing::Pending);
        let Some(epoch) = pending.map(|c| c.epoch) else { return };
        tracing::info!(did = %device.did, epoch = epoch.0, "a newer context is in use");
        let write = &mut judged.write;
        let mut draining = 0;
        live.contexts.retain_mut(|c| {
            let standing = match c.epoch.cmp(&epoch) {
                Ordering::Equal => Standing::Active,
                Ordering::Less => Standing::Draining,
                Ordering::Greater => return true,
            };
            if c.standing != standing {
                c.standing = standing;
                c.since = write.now;
                write.standings.push((c.id, standing, write.now));
            }
            draining += usize::from(standing == Standing::Draining);
            // The newest come first.
            let stays = draining <= DRAINING;
            if !stays {
                write.forgotten.push(c.id);
            }
            stays
        });
        write.new_generation |= device.policy.profile.has_e2();
        // Its numbers begin anew.
        live.gap = None;
        live.orders.overdue = None;
    }

    fn freshness(&self, ctx: &mut Ctx, piv: u64, way: Way) -> Freshness {
        let recent = ctx.recent.get_or_insert_with(|| self.memory.recent(ctx.id));
        if recent.highest.is_some_and(|h| piv <= h) || ctx.standing == Standing::Draining {
            return Freshness::Late;
        }
        age(way)
    }

    /// Takes what opened: stale, refused inside, or accepted.
    #[expect(clippy::too_many_arguments, reason = "private: one step of `open_c3`, shared with orphans")]
    fn take(
        &self,
        judged: &mut Judged,
        device: &Arc<Device>,
        live: &mut Live,
        sealed: &Sealed<'_>,
        way: Way,
        found: Found<'_>,
        answer: Answer,
        seq: u64,
    ) -> Result<(), Rejected> {
        let Found { proof, context, draining, freshness, .. } = found;
        let piv = proof.piv().value();
        if draining.is_some_and(|since| judged.now.since(since) > DRAIN) {
            let code = Code::CloudStale;
            judged.write.quarantined.push(Quarantined {
                code,
                context,
                piv,
                hash: sealed.hash,
                gateway: way.gateway,
                at: judged.now,
                payload: proof.plaintext().to_vec(),
            });
            return Err(Rejected::new(code, "its context drained more than 96 hours ago"));
        }
        // What is inside is judged before anything is kept; its number is used up either way.
        let inside = match sealed.kind {
            Kind::CloudCoap => judge_request::<E3>(proof.plaintext()).and_then(|r| match r {
                InnerRequest::Payload(payload) => Ok(payload),
                InnerRequest::Nested { .. } => Err(fivefold_core::oscore::Refused {
                    rejected: Rejected::new(Code::CloudInnerMalformed, "a C3 message inside C3"),
                    answer_code: coap::BAD_OPTION,
                }),
            }),
            _ => judge_tiny_request::<E3>(proof.plaintext()),
        };
        let inside = inside.and_then(|payload| {
            check_payload(payload).map(|()| payload).map_err(|m| fivefold_core::oscore::Refused {
                rejected: m.inside::<E3>(),
                answer_code: coap::BAD_REQUEST,
            })
        });
        let is_held = is_held(device, live.contexts.iter().find(|c| c.id == context));
        let (code, mut flags, payload, refused) = match inside {
            Ok(payload) if is_held => (coap::CHANGED, flag::HELD, payload, None),
            Ok(payload) => (coap::CHANGED, 0, payload, None),
            Err(refused) => (refused.answer_code, flag::REFUSED, proof.plaintext(), Some(refused.rejected)),
        };
        // Tiny messages say by their type whether an answer is wanted; over UDP every request wants one. In mode R a boot that
        // drains may be the one that runs: which came later is known of none.
        let wanted = answer == Answer::Wanted
            && (draining.is_none() || device.policy.mode == Mode::Random)
            && (sealed.kind == Kind::CloudCoap || sealed.message.kind == Type::Con);
        if wanted {
            flags |= flag::ANSWERED;
        }
        let salt = refused.is_none().then(|| salt(device, live, context, piv, payload)).flatten();
        // What it says of itself may be of long ago.
        if refused.is_none() && !is_held {
            let said = self.read_control(judged, device, payload);
            self.read_evidence(judged, device, (context, sealed.bctx), payload);
            let ctx = live.contexts.iter().find(|c| c.id == context && c.standing == Standing::Active);
            judged
                .write
                .link_keys
                .extend(said.filter(|_| ctx.is_some_and(|c| is_newest(c, piv))).map(|k| (device.did, k)));
        }
        let content = Content { context, hash: sealed.hash, way, freshness, flags, payload: payload.to_vec(), salt };
        judged.write.accepted.push(Accepted::by_node(&proof, content));
        let mut highest = false;
        if let Some(ctx) = live.contexts.iter_mut().find(|c| c.id == context) {
            highest = is_newest(ctx, piv);
            // For the next one of the same batch; what counts for item 1 is set when it is durable.
            if let Some(recent) = ctx.recent.as_mut().filter(|_| refused.is_none()) {
                heighten(recent, piv);
            }
        }
        // An order that went to a recording would be lost: none has a number above what the device itself sends.
        let may_order = !is_held || highest;
        let question = wanted.then(|| Question {
            token: sealed.message.token,
            code,
            renew: if may_order { self.renewal(judged, device, live, piv) } else { None },
            seq,
            tiny: sealed.kind != Kind::CloudCoap,
            once: proof.unnumbered(),
        });
        judged.pending.push(Pending { device: device.clone(), context, highest, question });
        if let Some(rejected) = refused {
            judged.count(rejected.code, Some(device.sid));
            let detail = Detail::new(Value::Unsaid, Value::Sender(piv));
            judged.explain(sealed.hash.into(), rejected, detail, Some(device.sid));
            judged.refused.push((seq, rejected.code));
        }
        Ok(())
    }

    /// Takes note of results and reports. What the device says of its network keys comes back: it counts only when nothing
    /// newer was heard.
    fn read_control(&self, judged: &mut Judged, device: &Device, payload: &[u8]) -> Option<KeyIndexes> {
        let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return None };
        let mut said = None;
        for item in items {
            let Item::Control(map) = item else { continue };
            let Ok(control) = control::Uplink::parse(map) else { continue };
            for result in control.results.iter() {
                judged.write.results.push(ResultRow {
                    did: device.did,
                    id: result.id,
                    status: result.status,
                    value: result.value.map(<[u8]>::to_vec),
                    at: judged.now,
                });
            }
            said = control.key_indexes.or(said);
            if control.status.is_some() || control.digest.is_some() {
                judged.write.reports.push((device.did, map.to_vec()));
            }
        }
        said
    }

    /// A boot opened for the first time: what waited for it is tried again (docs/protocol.md 8.3).
    fn adopt(&self, judged: &mut Judged, device: &Arc<Device>, live: &mut Live, context: ContextId) {
        let oldest = Millis(judged.now.0.saturating_sub(ORPHAN_LIFE));
        for orphan in self.memory.orphans(device.net, device.sid, oldest) {
            let Ok(envelope) = Envelope::parse(&orphan.envelope) else { continue };
            let Ok(sealed) = sealed(&envelope, device.sid) else { continue };
            let way = Way { gateway: orphan.gateway, ..way(judged, device.sid, &envelope) };
            let mut out = vec![0; sealed.message.ciphertext.len()];
            let found = live.contexts.iter().find(|c| c.id == context).and_then(|c| c.keys.as_ref()).and_then(|keys| {
                let proof = keys.open_request(sealed.piv, sealed.message.ciphertext, &mut out).ok()?;
                Some(Found { proof, context, draining: None, is_new: false, freshness: Freshness::Late })
            });
            if let Some(found) = found {
                let taken = self.take(judged, device, live, &sealed, way, found, Answer::TooLate, envelope.seq);
                if taken.is_ok() {
                    judged.write.adopted.push(orphan.hash);
                }
            }
        }
    }

    // A gateway's word.

    fn vouched(
        &self,
        judged: &mut Judged,
        device: &Arc<Device>,
        envelope: &Envelope<'_>,
        opened: &Opened,
    ) -> Result<(), Rejected> {
        if self.pushed_version(judged.gateway.gateway()).is_none() {
            return Err(Rejected::new(
                Code::GatewayUnknownKid,
                "this gateway was never pushed the device's C2 context",
            ));
        }
        if opened.kid != device.sid {
            return Err(Rejected::new(Code::GatewayUnknownKid, "kid and originator differ"));
        }
        const NO_CONTEXT: Rejected = Rejected::new(Code::GatewayNoContext, "no context for this epoch or boot");
        match device.policy.mode {
            Mode::Random if opened.epoch != device.epoch || opened.bctx.is_none() => return Err(NO_CONTEXT),
            Mode::Random => {}
            Mode::Persistent => self.spoken_under(judged, device, opened)?,
        }
        limit(opened, Code::GatewayLimitReached)?;
        let inner = match judge_request::<E2>(envelope.bytes).map_err(|r| r.rejected)? {
            InnerRequest::Payload(payload) => payload,
            InnerRequest::Nested { .. } => {
                return Err(Rejected::new(Code::GatewayInnerMalformed, "a C3 message of a device without E3"));
            }
        };
        check_payload(inner).map_err(|m| m.inside::<E2>())?;
        let word = judged.gateway.clone();
        let content = self.word_content(judged, device, envelope, opened, inner);
        judged.write.accepted.push(Accepted::by_gateway(&word, opened.piv, content));
        Ok(())
    }

    /// The context of mode P under which a gateway says it opened something: it is in use from now on, if it was not.
    fn spoken_under(&self, judged: &mut Judged, device: &Device, opened: &Opened) -> Result<(), Rejected> {
        let mut live = device.live();
        let known = live.contexts.iter().find(|c| c.epoch == opened.epoch && opened.bctx.is_none());
        let known = known.map(|c| (c.id, c.standing, c.since));
        let Some((context, standing, since)) = known else {
            return Err(Rejected::new(Code::GatewayNoContext, "no context for this epoch or boot"));
        };
        if standing == Standing::Draining && judged.now.since(since) > DRAIN {
            return Err(Rejected::new(Code::CloudStale, "its context drained more than 96 hours ago"));
        }
        self.in_use(judged, device, &mut live, context);
        Ok(())
    }

    fn danger_plain(
        &self,
        judged: &mut Judged,
        device: &Arc<Device>,
        envelope: &Envelope<'_>,
        opened: &Opened,
    ) -> Result<(), Rejected> {
        if opened.kid != device.sid {
            return Err(Rejected::new(Code::CloudUnknownKid, "kid and originator differ"));
        }
        limit(opened, Code::CloudLimitReached)?;
        check_payload(envelope.bytes).map_err(|m| m.counted(Code::CloudInnerMalformed))?;
        let word = judged.gateway.clone();
        let opened = Opened { epoch: device.epoch, ..*opened };
        let content = self.word_content(judged, device, envelope, &opened, envelope.bytes);
        judged.write.accepted.push(Accepted::danger_plain(&word, opened.piv, content));
        Ok(())
    }

    fn word_content(
        &self,
        judged: &mut Judged,
        device: &Arc<Device>,
        envelope: &Envelope<'_>,
        opened: &Opened,
        payload: &[u8],
    ) -> Content {
        let way = way(judged, device.sid, envelope);
        let mut live = device.live();
        let place = |live: &Live| live.contexts.iter().position(|c| c.epoch == opened.epoch && c.bctx == opened.bctx);
        let known = place(&live).is_some() || opened.bctx.is_some_and(|b| self.back(&mut live, b, None).1.is_some());
        if !known {
            let ctx = Ctx {
                id: self.memory.new_context(),
                epoch: opened.epoch,
                bctx: opened.bctx,
                standing: Standing::Active,
                since: judged.now,
                written: false,
                keys: None,
                blind: None,
                recent: Some(Recent::default()),
                lease: restored::lease(device.restored, 0),
                failures: 0,
                sealed: None,
                agreed: None,
                unsaid: false,
                restored: device.restored,
            };
            self.new_boot(judged, device, &mut live, ctx);
        }
        let is_held = is_held(device, place(&live).and_then(|at| live.contexts.get(at)));
        let said = if is_held { None } else { self.read_control(judged, device, payload) };
        let (context, freshness, highest) = match place(&live).and_then(|at| live.contexts.get_mut(at)) {
            Some(ctx) => {
                if !ctx.written {
                    judged.write.contexts.push(ctx.row(device, device.level()));
                }
                let freshness = self.freshness(ctx, opened.piv, way);
                let highest = is_newest(ctx, opened.piv);
                let newest = highest && ctx.standing == Standing::Active;
                judged.write.link_keys.extend(said.filter(|_| newest).map(|k| (device.did, k)));
                if let Some(recent) = &mut ctx.recent {
                    heighten(recent, opened.piv);
                }
                (ctx.id, freshness, highest)
            }
            // It was just put there.
            None => (ContextId(0), Freshness::Late, false),
        };
        if !is_held {
            self.read_evidence(judged, device, (context, opened.bctx), payload);
        }
        judged.pending.push(Pending { device: device.clone(), context, highest, question: None });
        let salt = salt(device, &live, context, opened.piv, payload);
        let payload = payload.to_vec();
        let flags = if is_held { flag::HELD } else { 0 };
        Content { context, hash: hash(&[envelope.bytes]), way, freshness, flags, payload, salt }
    }
}

/// Whether what opens under a context, or of a boot that nobody knows yet, is held: the store was put back from a copy since it
/// began (docs/protocol.md 8.4). Nothing proves what comes with E1 alone, and nothing is held of it.
fn is_held(device: &Device, known: Option<&Ctx>) -> bool {
    device.level() > 1 && known.map_or(device.restored, |c| c.restored).is_some()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Wanted,
    TooLate,
}

/// Whether there is something else than control maps in a payload: those are in no batch.
pub(crate) fn holds_reading(payload: &[u8]) -> bool {
    match Payload::parse(payload) {
        Ok(Payload::Sequence(items)) => items.into_iter().any(|i| !matches!(i, Item::Control(_))),
        Ok(Payload::Classic(_)) => true,
        Err(_) => false,
    }
}

/// Of what a gateway counted: how severe it is where its event tells more than the code (docs/protocol.md 14).
fn louder(event: &Event<'_>, code: Code, count: u64) -> Option<Severity> {
    match code {
        // Less than a hundredth is free: the next message may be refused.
        Code::StoreFull if event.spool_max > 0 && event.spool_used >= event.spool_max - event.spool_max / 100 => {
            Some(Severity::Critical)
        }
        // It counts after 15 minutes and after 6 hours, and could not say either before it was back.
        Code::CloudUnreachable if count > 1 => Some(Severity::High),
        _ => None,
    }
}

/// What hides the leaf of a message, if its device signs. Its K_blind lives as long as its context.
fn salt(device: &Device, live: &Live, context: ContextId, piv: u64, payload: &[u8]) -> Option<Salt> {
    if device.policy.sign != Sign::Batch || !holds_reading(payload) {
        return None;
    }
    let of_context = || live.contexts.iter().find(|c| c.id == context)?.blind.as_ref();
    Some(device.blind.as_ref().or_else(of_context)?.salt(piv))
}

/// Shape and identity of a C3 message.
fn sealed<'b>(envelope: &Envelope<'b>, sid: Sid) -> Result<Sealed<'b>, Rejected> {
    let message = Protected::parse_request(envelope.bytes, Outer::Strict)?;
    let (Some(piv), Some(kid)) = (message.option.piv, message.option.kid) else {
        return Err(Rejected::new(Code::TinyMalformed, "request without PIV or kid"));
    };
    if kid != sid.to_bytes() {
        return Err(Rejected::new(Code::CloudUnknownKid, "kid and originator differ"));
    }
    piv.check_limit::<E3>()?;
    let bctx = match message.option.kid_context {
        None => None,
        Some(context) => Some(BootContext(
            context.try_into().map_err(|_| Rejected::new(Code::CloudNoContext, "kid context is no boot id"))?,
        )),
    };
    let hash = MessageHash(CiphertextHash::of(message.ciphertext).0);
    Ok(Sealed { message, piv, bctx, hash, kind: envelope.kind })
}

pub(super) fn hash(parts: &[&[u8]]) -> MessageHash {
    let mut first = [0; 16];
    first.iter_mut().zip(sha256(parts)).for_each(|(f, h)| *f = h);
    MessageHash(first)
}

pub(super) fn way(judged: &Judged, sid: Sid, envelope: &Envelope<'_>) -> Way {
    Way {
        net: judged.gateway.net(),
        sid,
        gateway: judged.gateway.gateway(),
        seq: envelope.seq,
        received: envelope.received,
        ingested: judged.now,
        link: envelope.link,
        hops: envelope.hops,
        key_index: envelope.key_index,
        rssi: envelope.rssi,
        lqi: envelope.lqi,
    }
}

pub(super) const fn age(way: Way) -> Freshness {
    if way.ingested.since(way.received) <= FRESH { Freshness::Fresh } else { Freshness::Late }
}

fn limit(opened: &Opened, code: Code) -> Result<(), Rejected> {
    if opened.piv > u64::from(NUMBER_LIMIT) {
        return Err(Rejected::new(code, "PIV above 2^20"));
    }
    Ok(())
}

/// Every item is what docs/protocol.md 7 says, control maps included.
fn check_payload(payload: &[u8]) -> Result<(), fivefold_core::reading::Malformed> {
    if let Payload::Sequence(items) = Payload::parse(payload)? {
        for item in items {
            if let Item::Control(map) = item {
                control::Uplink::parse(map)?;
            }
        }
    }
    Ok(())
}

/// Whether nothing under this number or a later one was heard in this context.
fn is_newest(ctx: &Ctx, piv: u64) -> bool {
    ctx.recent.is_some_and(|recent| recent.highest.is_none_or(|highest| piv > highest))
}

/// The highest number so far, with the bitmap kept in step.
pub(super) fn heighten(recent: &mut Recent, piv: u64) {
    match recent.highest {
        Some(highest) if piv <= highest => {}
        Some(highest) => {
            recent.bitmap = u32::try_from(piv - highest).ok().and_then(|by| recent.bitmap.checked_shl(by)).unwrap_or(0);
            recent.highest = Some(piv);
        }
        None => {
            recent.highest = Some(piv);
            recent.bitmap = 0;
        }
    }
}
