//! When runs of renewal begin, what is durable before their messages leave, and the switch to what they agreed on.

use fivefold_core::counter::Lease;
use fivefold_core::e5_renewal::Announce;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{self, Message as CoapMessage, Type, number};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{EdhocRule, Tiny};

use super::sending::{DATAGRAM_BODY, LEASE_WAIT};
use super::{DATAGRAM, Datagram, Event, Node, Output};
use crate::boot::{Ends, is_bare};
use crate::evidence::{Close, Evidence};
use crate::renewal::{Agreement, Failed, Stage, Step, Stopped, Why};
use crate::storage::{Record, StoredContext};

/// Messages that wanted an answer and had none, before recovery (docs/protocol.md 11).
const UNANSWERED: u8 = 16;
/// Silence is made durable in so many pieces of the time that recovery waits for: every 15 minutes of a day.
const PIECES: u8 = 96;
/// Runs in a row that failed, before that is reported (E5-05).
const REPORTED: u8 = 3;
const DAY: u64 = 86_400_000;

/// What stands before the path of RFC 9528 A.2, and its content format: application/cid-edhoc+cbor-seq.
const PATH: [&[u8]; 2] = [b".well-known", b"edhoc"];
const CID_EDHOC: u8 = 65;
/// Message IDs of runs are from here on; those of readings stay below, for they are sender numbers.
const MESSAGE_IDS: u16 = 0xC000;

/// An EDHOC error message stands in clear and under no key: it ends no run.
pub(super) const SAID_BY_ANYBODY: Rejected = Rejected::new(Code::RenewalForged, "an EDHOC error message, by anybody");

const NOTHING_RENEWED: Rejected = Rejected::new(Code::RenewalLate, "this node renews nothing");

/// The contexts before the present ones: they open answers until one came under the present ones.
pub(super) struct Before {
    pub(super) epoch: Epoch,
    pub(super) ends: Ends,
    /// The number after the last one that was sealed.
    pub(super) end: u32,
}

/// How long nobody answered, across boots: what recovery waits for.
pub(super) struct Silence {
    /// Since when it is not durable; `None` while nothing is unanswered.
    since: Option<Millis>,
    unanswered: u8,
}

impl Silence {
    pub(super) fn at_boot(now: Millis, record: &Record) -> Self {
        Self { since: (record.unanswered > 0).then_some(now), unanswered: record.unanswered }
    }
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    /// Where renewal stands.
    pub fn stage(&self) -> Stage {
        self.renewal.as_ref().map_or(Stage::Idle, |r| r.stage())
    }

    /// Whether the node renews its contexts by itself.
    pub const fn renews(&self) -> bool {
        self.renewal.is_some()
    }

    /// Begins a run at the application's word, as item 6 of an answer does: with the contexts confirmed and no run under
    /// way, else once that is so.
    pub fn renew(&mut self, now: Millis, reason: u64) {
        self.now = now;
        self.want_renewal(Why::Ordered(reason));
    }

    /// Whether contexts are part of the policy, and there are none yet.
    pub(super) const fn ends_missing(&self) -> bool {
        self.renewal.is_some() && self.ends.is_empty()
    }

    pub(super) fn want_renewal(&mut self, why: Why) {
        match &mut self.renewal {
            Some(renewal) => renewal.want(why),
            None => self.tell(Event::RenewalNeeded(why)),
        }
    }

    /// Gives up the run whose last message had its time, and begins one that is due.
    pub(super) fn tend_renewal(&mut self, now: Millis) {
        self.keep_silence(now);
        let ready = self.ready.is_some_and(|at| at <= now) && self.held_until <= now;
        let Some(renewal) = &self.renewal else { return };
        match renewal.stage() {
            Stage::WaitMessage2(epoch) | Stage::WaitMessage4(epoch) if renewal.is_overdue(now) => {
                self.run_failed(now, epoch, Failed::Unanswered);
            }
            Stage::Idle if ready && renewal.rests_until() <= now => {
                if let Some(why) = self.why_renew(now) {
                    self.begin_run(now, why);
                }
            }
            _ => {}
        }
    }

    /// docs/protocol.md 11: IDLE with its triggers, and IDLE or UNCONF with recovery.
    fn why_renew(&self, now: Millis) -> Option<Why> {
        let (renewal, record) = (self.renewal.as_ref()?, self.durable.record());
        if self.ends.is_empty() {
            return Some(Why::NoContext);
        }
        let aged = || (self.ages_at()? <= now).then_some(Why::Age);
        let trigger = record.confirmed.then(|| renewal.wanted().or_else(aged)).flatten();
        let silent = record.silence >= PIECES && self.silence.unanswered >= UNANSWERED;
        // Unconfirmed contexts whose numbers are used up will never be confirmed.
        trigger.or(self.is_spent().then_some(Why::Spent)).or(silent.then_some(Why::Silence))
    }

    fn is_spent(&self) -> bool {
        self.piv.next() >= NUMBER_LIMIT
    }

    fn ages_at(&self) -> Option<Millis> {
        let days = u64::from(self.settings.policy.renew_days) * DAY;
        Some(self.since.plus(self.renewal.as_ref()?.timers().renew_after.unwrap_or(days)))
    }

    /// The epoch is durable as used up before message_1 leaves (W2): the record is written before anything else.
    fn begin_run(&mut self, now: Millis, why: Why) {
        self.tend_evidence(now, Close::Now);
        let (sid, record) = (self.settings.sid, self.durable.record());
        let mut epoch = record.next_epoch;
        if !self.ends.is_empty() {
            epoch = epoch.max(Epoch(record.epoch.0.saturating_add(1)));
        }
        if epoch.collides_with(sid) {
            epoch = Epoch(epoch.0.saturating_add(1));
        }
        let Some(next) = epoch.0.checked_add(1).map(Epoch) else {
            return self.run_failed(now, epoch, Failed::Exhausted);
        };
        let unanswered = self.silence.unanswered;
        let record = self.durable.change();
        (record.next_epoch, record.runs) = (next, record.runs.saturating_add(1));
        if why == Why::Silence {
            // The next one comes after as long a time.
            (record.silence, record.unanswered) = (0, unanswered);
            self.silence.since = Some(now);
            // Who slept through a switch may have the network's new key, and a relay that gave up the old one.
            if let Some(mesh) = &mut self.mesh {
                mesh.link_mut().keys_mut().send_under_other();
            }
        }
        let announce = if self.is_on_ip() { Announce::Sid } else { Announce::Nothing };
        match self.renewal.as_mut().map(|r| r.begin(now, sid, epoch, announce)) {
            Some(Err(failed)) => self.run_failed(now, epoch, failed),
            _ => self.tell(Event::RenewalStarted { epoch, why }),
        }
    }

    fn run_failed(&mut self, now: Millis, epoch: Epoch, failed: Failed) {
        let (runs, enrolling) = (self.durable.record().runs, self.ends.is_empty());
        let Some(renewal) = &mut self.renewal else { return };
        let first = if enrolling { renewal.timers().enrolment } else { renewal.timers().back_off };
        let mut pause = renewal.give_up(now, runs, first);
        if failed == Failed::Exhausted {
            pause = u64::MAX;
            renewal.rest_for_good();
        }
        self.tell(Event::RenewalFailed { epoch, failed, pause });
        if runs == REPORTED {
            self.refuse(Rejected::new(Code::RenewalFailed, "three runs in a row came to nothing"));
            self.reports.status_soon(now);
        }
    }

    /// Bit 0 of the flags in item 3 (E5-05).
    pub(super) fn renewal_fails(&self) -> bool {
        let finished = self.durable.record().runs.saturating_sub(u8::from(self.stage() != Stage::Idle));
        finished >= REPORTED
    }

    /// A message of the peer's.
    pub(super) fn edhoc(&mut self, payload: &[u8]) -> Result<(), Rejected> {
        let now = self.now;
        match self.renewal.as_mut().ok_or(NOTHING_RENEWED)?.receive(now, payload) {
            Ok(Step::GoesOn) => self.way_is_open(),
            Ok(Step::Agreed(epoch, agreed)) => {
                self.way_is_open();
                self.switch(now, epoch, agreed);
            }
            Err(Stopped { rejected, over }) => {
                if let Some(epoch) = over {
                    self.run_failed(now, epoch, Failed::Refused);
                }
                return Err(rejected);
            }
        }
        Ok(())
    }

    /// Whether a CoAP message answers one of a run.
    pub(super) fn is_about_renewal(&self, message: &CoapMessage<'_>) -> bool {
        self.renewal.as_ref().is_some_and(|r| r.is_answer(message.token))
    }

    pub(super) fn edhoc_coap(&mut self, message: &CoapMessage<'_>) -> Result<(), Rejected> {
        if message.code == coap::CHANGED { self.edhoc(message.payload) } else { Err(SAID_BY_ANYBODY) }
    }

    /// New contexts: durable, unconfirmed, before they are used (W3). No number of theirs is leased before that, so nothing
    /// is sealed under them either. A network key that came with them is in the same write.
    fn switch(&mut self, now: Millis, epoch: Epoch, agreed: Agreement) {
        let Some(renewal) = &self.renewal else { return };
        let drain = renewal.timers().drain;
        let alg = self.settings.policy.alg;
        let handed = agreed.handed().cloned();
        let context = match agreed {
            Agreement::Cloud(agreed) => {
                let mix = renewal.keys.mix.as_ref().filter(|_| self.settings.policy.pq_mix);
                StoredContext::new(&agreed.secrets(alg, mix))
            }
            Agreement::Gateway(agreed) => StoredContext::local(&agreed.secrets(alg)),
        };
        let Ok(ends) = Ends::agreed(&self.settings, renewal.keys.group, &context, epoch) else { return };
        self.leave_epoch(now, context.blind());
        let before = self.durable.record().epoch;
        let record = self.durable.change();
        (record.epoch, record.context, record.confirmed, record.piv_bound) = (epoch, Some(context), false, 0);
        (record.runs, record.silence, record.unanswered) = (0, 0, 0);
        self.silence = Silence { since: None, unanswered: 0 };
        let ends = core::mem::replace(&mut self.ends, ends);
        let end = core::mem::replace(&mut self.piv, Lease::resume(0, NUMBER_LIMIT)).next();
        self.before = (!ends.is_empty()).then_some(Before { epoch: before, ends, end });
        self.outbox.retire(now, drain);
        (self.since, self.failures, self.verified) = (now, 0, false);
        (self.halted, self.warned) = (false, false);
        if let Some(key) = handed {
            self.take_handed(now, &key.told());
        }
        self.reports.status_soon(now);
        self.tell(Event::RenewalAgreed(epoch));
    }

    /// The innermost level answered to a message of this epoch.
    pub(super) fn heard(&mut self, epoch: Epoch) {
        self.silence = Silence { since: None, unanswered: 0 };
        let record = self.durable.record();
        if (record.silence, record.unanswered) != (0, 0) {
            let record = self.durable.change();
            (record.silence, record.unanswered) = (0, 0);
        }
        let record = self.durable.record();
        if epoch == record.epoch && !record.confirmed {
            let agreed = record.context.is_some();
            self.durable.change().confirmed = true;
            self.before = None;
            if agreed {
                self.tell(Event::RenewalConfirmed(epoch));
            }
        }
    }

    /// A message went out that wants an answer.
    pub(super) fn asked(&mut self, now: Millis) {
        if self.renewal.is_some() {
            self.silence.unanswered = self.silence.unanswered.saturating_add(1);
            self.silence.since.get_or_insert(now);
        }
    }

    fn piece(&self) -> Option<u64> {
        Some((self.renewal.as_ref()?.timers().recovery / u64::from(PIECES)).max(1))
    }

    /// Makes a piece of silence durable: a device that reboots every few hours recovers as well.
    fn keep_silence(&mut self, now: Millis) {
        let (Some(piece), Some(since)) = (self.piece(), self.silence.since) else { return };
        let pieces = now.since(since) / piece;
        if pieces == 0 {
            return;
        }
        self.silence.since = Some(since.plus(pieces * piece));
        let unanswered = self.silence.unanswered.min(UNANSWERED);
        let record = self.durable.record();
        let silence = u64::from(record.silence).saturating_add(pieces).min(PIECES.into()) as u8;
        if (record.silence, record.unanswered) != (silence, unanswered) {
            let record = self.durable.change();
            (record.silence, record.unanswered) = (silence, unanswered);
        }
    }

    pub(super) fn silence_timeout(&self) -> Option<Millis> {
        Some(self.silence.since?.plus(self.piece()?))
    }

    pub(super) fn renewal_timeout(&self) -> Option<Millis> {
        let renewal = self.renewal.as_ref()?;
        let wanted =
            self.ends.is_empty() || self.is_spent() || (self.durable.record().confirmed && renewal.wanted().is_some());
        let begins = || match (wanted, self.durable.record().confirmed) {
            (true, _) => Some(Millis(0)),
            (false, true) => self.ages_at(),
            (false, false) => None,
        };
        renewal.poll_timeout().or_else(|| begins().map(|at| at.max(renewal.rests_until())))
    }

    /// Gives the message of a run to the radio.
    pub(super) fn transmit_renewal(&mut self, now: Millis) -> Option<Output> {
        let (&message, before) = self.renewal.as_ref()?.due(now)?;
        let output = match &mut self.mesh {
            Some(mesh) => {
                let mut tiny = [0; DATAGRAM_BODY];
                let rule = EdhocRule::ToServer;
                let len = Tiny::Edhoc { rule, payload: message.as_bytes() }.emit(&mut tiny).ok()?;
                let (hops, originator) = (self.settings.hops, self.settings.sid);
                let header = mesh::Header { hops, originator, destination: Sid::ANY_GATEWAY };
                let to = mesh.parent(now)?;
                if before > 0 {
                    mesh.unanswered_by(now, to);
                }
                let Ok(frame) = mesh.seal(to, header, tiny.get(..len)?) else {
                    // The lease of the link is spent: the next record extends it, unless the key is used up.
                    self.renewal.as_mut()?.postpone(now.plus(LEASE_WAIT));
                    return None;
                };
                Output::Transmit(frame)
            }
            None if is_bare(self.settings.policy.radio) => {
                let mut tiny = [0; DATAGRAM_BODY];
                let rule = EdhocRule::ToServer;
                let len = Tiny::Edhoc { rule, payload: message.as_bytes() }.emit(&mut tiny).ok()?;
                Output::Tiny(Datagram::from_slice(tiny.get(..len)?).ok()?)
            }
            None => {
                let mut bytes = [0; DATAGRAM];
                let len = self.posted(message.as_bytes(), &mut bytes)?;
                Output::Datagram(Datagram::from_slice(bytes.get(..len)?).ok()?)
            }
        };
        self.renewal.as_mut()?.sent(now);
        Some(output)
    }

    /// RFC 9528 A.2: a POST to /.well-known/edhoc.
    fn posted(&self, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut options = [0; 32];
        let mut at = 0;
        let mut previous = 0;
        let parts = PATH.iter().map(|part| (number::URI_PATH, *part));
        for (number, value) in parts.chain([(number::CONTENT_FORMAT, &[CID_EDHOC][..])]) {
            at += coap::emit_option(options.get_mut(at..)?, previous, number, value).ok()?;
            previous = number;
        }
        let (token, exchange) = self.renewal.as_ref()?.exchange()?;
        let message_id = MESSAGE_IDS | exchange;
        let options = options.get(..at)?;
        CoapMessage { kind: Type::Con, code: coap::POST, message_id, token, options, payload }.emit(out).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::renewal::{Keys, Peer};
    use crate::{Entropy, Number, Secrets, SendRefused, Settings};
    use fivefold_core::e3_cloud::E3Secret;
    use fivefold_core::e5_renewal::{Credential, PeerKid};
    use fivefold_core::id::{Did, GatewayGroup};
    use fivefold_core::oscore::FAILURES_SOFT;
    use fivefold_core::profile::{Policy, Profile, Radio};
    use fivefold_core::suite::p256::AgreementKey;
    use fivefold_core::wire::ieee802154::Pan;
    use fivefold_core::wire::tiny::Layers;

    const SID: Sid = Sid(0x0a17);

    /// A device on IP with installed contexts of epoch 1, which the cloud has confirmed.
    fn confirmed() -> Node<4, AgreementKey> {
        let [own, cloud] = [1, 2].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
        let keys = Keys {
            credential: Credential::device(SID, own.public_x()),
            own,
            peer: Peer::Cloud(Credential::peer(PeerKid::new(0).unwrap(), cloud.public_x())),
            mix: None,
            group: GatewayGroup(1),
        };
        let mut policy = Policy::new(Profile::ToCloud);
        (policy.radio, policy.pq_mix) = (Radio::Ip, false);
        let settings = Settings::new(Did([2; 8]), SID, Pan(1), policy, Epoch(1));
        let secrets = Secrets { e3: E3Secret::new(&[7; 32], &[8; 8]), ..Secrets::default() };
        let entropy = Entropy::check(core::array::from_fn(|n| n as u8)).unwrap();
        let mut node = Node::boot_renewing(Millis(0), settings, &secrets, Some(keys), None, &entropy).unwrap();
        node.durable.change().confirmed = true;
        run(&mut node);
        node
    }

    /// Carries the script out. What was told, and how many datagrams left.
    fn run(node: &mut Node<4, AgreementKey>) -> (heapless::Vec<Event, 8>, usize) {
        let (mut events, mut datagrams) = (heapless::Vec::new(), 0);
        while let Some(output) = node.poll() {
            match output {
                Output::Event(event) => events.push(event).unwrap(),
                Output::Datagram(_) => datagrams += 1,
                _ => {}
            }
        }
        (events, datagrams)
    }

    fn started(why: Why) -> Event {
        Event::RenewalStarted { epoch: Epoch(2), why }
    }

    #[test]
    fn answers_that_fail_to_verify_start_a_run_at_2_to_14() {
        let mut node = confirmed();
        node.send(Millis(0), &[0x81, 1]).unwrap();
        run(&mut node);
        node.failures = FAILURES_SOFT - 2;
        for last in [false, true] {
            node.answer(Layers::C3, 0, None, &[0; 20]).unwrap_err();
            assert_eq!(run(&mut node).0.contains(&started(Why::Failures)), last);
        }
    }

    #[test]
    fn numbers_that_are_used_up_start_a_run_confirmed_or_not() {
        let mut node = confirmed();
        node.durable.change().confirmed = false;
        node.piv = Lease::resume(NUMBER_LIMIT, NUMBER_LIMIT);
        assert_eq!(node.send(Millis(0), &[0x81, 1]), Err(SendRefused::RenewalNeeded));
        assert!(run(&mut node).0.contains(&started(Why::Spent)));
        // Nothing is sealed meanwhile, and nothing but the run is sent.
        assert_eq!(node.send(Millis(0), &[0x81, 1]), Err(SendRefused::RenewalNeeded));
        assert_eq!(node.waiting().next(), None::<Number>);
    }

    #[test]
    fn the_epoch_is_used_up_on_flash_before_message_1_leaves() {
        let mut node = confirmed();
        node.renew(Millis(0), 1);
        let mut written = None;
        while let Some(output) = node.poll() {
            match output {
                Output::Persist(record) => written = Some(record),
                Output::Datagram(_) => assert_eq!(written.as_ref().map(|r| r.next_epoch), Some(Epoch(3))),
                _ => {}
            }
        }
        assert_eq!(node.stage(), Stage::WaitMessage2(Epoch(2)));
        assert_eq!(written.map(|r| r.runs), Some(1));
    }

    #[test]
    fn an_epoch_that_was_installed_since_is_not_offered() {
        let mut node = confirmed();
        (node.durable.change().epoch, node.durable.change().next_epoch) = (Epoch(4), Epoch(3));
        node.renew(Millis(0), 1);
        assert!(run(&mut node).0.contains(&Event::RenewalStarted { epoch: Epoch(5), why: Why::Ordered(1) }));
    }

    #[test]
    fn a_node_at_rest_wants_to_be_looked_at_when_its_contexts_are_old() {
        let node = confirmed();
        assert_eq!(node.renewal_timeout(), Some(Millis(30 * DAY)));
    }
}
