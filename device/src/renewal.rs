//! # Renewal: new contexts, agreed with the cloud, or with a gateway alone
//!
//! | | |
//! |---|---|
//! | Key held    | the device's own P-256 key, and while a run waits for message_2 an ephemeral one |
//! | Begins      | by age, number or failures, at the other side's word (item 6, 4.01), after a day of silence, and where there is no context yet |
//! | Takes       | message_2 and message_4 of its run, from the peer whose credential was installed |
//! | Drops as    | `E5-02`, `E5-03` (the run goes on), `E5-09` (of a run that is over); `E5-05` counts three runs that failed |
//! | Does not    | touch the contexts in use; outlive a reboot: the epoch that it used up does |
//! | Spec        | docs/protocol.md 8.2 (W2, W3), 11 |
//!
//! `Renewal` is the run and its timers, and knows neither radio nor record. When one begins, what must be durable before a
//! message leaves, and the switch are `node/renewing.rs`. Modes without trusted writes (R) stay on their bootstrap.

use core::fmt;

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{
    Agreed, Announce, Credential, Draw, HandedKey, Identity, Initiator, Message, PqMix, Refused, WaitM2, WaitM4,
};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Epoch, GatewayGroup, Sid};
use fivefold_core::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::Token;

/// A message is sent so often before its run is given up.
const TRIES: u8 = 3;
/// Messages that do not verify, before a run is given up. They name no run: each may be a late one of another, or of a
/// neighbour that wants none to succeed. One alone must not end a run; ever more of them must not cost ever more work.
const REFUSALS: u8 = 8;
const HOUR: u64 = 3_600_000;

/// What a node renews its keys with. Without it contexts stay those that were installed.
pub struct Keys<A> {
    /// The device's own key.
    pub own: A,
    /// Its credential. It must be that of the key, or every run fails at the cloud.
    pub credential: Credential<'static>,
    /// With whom it renews: who else answers is refused.
    pub peer: Peer,
    /// Of root_psk, where the policy record says pq_mix.
    pub mix: Option<PqMix>,
    /// Gateway group of its C2 contexts.
    pub group: GatewayGroup,
}

/// Whom a device agrees its keys with, by the credential that was installed.
#[derive(Debug)]
pub enum Peer {
    /// The cloud: contexts of E3 and E2 come of it.
    Cloud(Credential<'static>),
    /// Its gateway alone ("C2 local", docs/protocol.md 5): one context of E2 comes of it, and nothing of E3.
    Gateway(Credential<'static>),
}

impl Peer {
    pub(crate) const fn is_gateway(&self) -> bool {
        matches!(self, Self::Gateway(_))
    }

    const fn credential(&self) -> &Credential<'static> {
        match self {
            Self::Cloud(credential) | Self::Gateway(credential) => credential,
        }
    }
}

impl<A> fmt::Debug for Keys<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("credential", &self.credential).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// No curve at all: the key of a node that renews nothing. There are no values of it, so its code costs no flash.
pub enum NoCurve {}

impl Agree for NoCurve {
    fn from_random(_: &[u8; 32]) -> Option<Self> {
        None
    }

    fn public_x(&self) -> PublicX {
        match *self {}
    }

    fn agree(&self, _: &PublicX) -> Result<SharedX, PointRefused> {
        match *self {}
    }

    fn exists(&self) {
        match *self {}
    }
}

/// How patient renewal is, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// A message without an answer is sent again after so long, twice; then the run is given up.
    pub resend: u64,
    /// The longest pause after the first run that failed; doubled after each further one. What is waited is drawn between
    /// half of it and all of it. Contexts that are younger are not renewed because a gateway refuses them.
    pub back_off: u64,
    /// The same of a device that has no contexts yet: somebody stands beside it and waits.
    pub enrolment: u64,
    /// The longest pause.
    pub longest: u64,
    /// T_renew where it is not that of the policy record, which counts days.
    pub renew_after: Option<u64>,
    /// A run of recovery begins after so long without any verified answer, and again after as long.
    pub recovery: u64,
    /// T_drain: messages under an older epoch are sent again so long.
    pub drain: u64,
}

impl Default for Timers {
    /// 30 seconds; 1, 2, 4 .. 24 hours, at enrolment 1, 2, 4 .. minutes; T_renew of the policy record; 24 and 96 hours
    /// (docs/protocol.md 17).
    fn default() -> Self {
        Self {
            resend: 30_000,
            back_off: HOUR,
            enrolment: HOUR / 60,
            longest: 24 * HOUR,
            renew_after: None,
            recovery: 24 * HOUR,
            drain: 96 * HOUR,
        }
    }
}

/// Why a run is begun, or would have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The contexts are as old as T_renew.
    Age,
    /// 2^14 answers failed to verify.
    Failures,
    /// There are no contexts yet: the device is enrolled by EDHOC.
    NoContext,
    /// The sender number passed 49152.
    Number,
    /// The operator orders it, for this reason.
    Ordered(u64),
    /// 4.01: the other side has no use for our keys any more.
    Refused,
    /// Nobody answered for a day: recovery.
    Silence,
    /// The sender number reached 2^20.
    Spent,
}

/// Why a run came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failed {
    /// Every epoch is used up: the device must be made anew.
    Exhausted,
    /// The random generator gives no key.
    Randomness,
    /// Eight messages were not what they must be. Their codes are counted.
    Refused,
    /// Three times no answer.
    Unanswered,
}

/// Where a node stands in docs/protocol.md 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// No run.
    Idle,
    /// message_1 is out, for this epoch.
    WaitMessage2(Epoch),
    /// message_3 is out, for this epoch.
    WaitMessage4(Epoch),
}

/// Between half of `whole` and all of it: devices that failed together do not come back together.
fn pause(draw: &mut Draw, whole: u64) -> u64 {
    let [share, ..] = *draw.bytes();
    whole / 2 + whole / 512 * u64::from(share)
}

/// What waits for an answer.
struct Sending {
    message: Message,
    epoch: Epoch,
    sent: u8,
    /// To be sent then, or given up.
    at: Millis,
    /// Messages of this run that were refused.
    refused: u8,
}

impl Sending {
    const fn now(now: Millis, epoch: Epoch, message: Message) -> Self {
        Self { message, epoch, sent: 0, at: now, refused: 0 }
    }
}

/// A run in state `S`. What it may give is fixed when it begins.
enum Session<S> {
    Cloud(Initiator<E3, S>),
    Gateway(Initiator<E2, S>),
}

impl<A: Agree> Session<WaitM2<A>> {
    fn handle_message_2(
        self,
        payload: &[u8],
        own: &Identity<'_, A>,
        peer: &Credential<'_>,
    ) -> Result<(Session<WaitM4>, Message), Refused<Self>> {
        match self {
            Self::Cloud(run) => match run.handle_message_2(payload, own, peer) {
                Ok((run, message)) => Ok((Session::Cloud(run), message)),
                Err(refused) => Err(refused_as(refused, Self::Cloud)),
            },
            Self::Gateway(run) => match run.handle_message_2(payload, own, peer) {
                Ok((run, message)) => Ok((Session::Gateway(run), message)),
                Err(refused) => Err(refused_as(refused, Self::Gateway)),
            },
        }
    }
}

impl Session<WaitM4> {
    fn handle_message_4(self, payload: &[u8]) -> Result<Agreement, Refused<Self>> {
        match self {
            Self::Cloud(run) => {
                run.handle_message_4(payload).map(Agreement::Cloud).map_err(|r| refused_as(r, Self::Cloud))
            }
            Self::Gateway(run) => {
                run.handle_message_4(payload).map(Agreement::Gateway).map_err(|r| refused_as(r, Self::Gateway))
            }
        }
    }
}

fn refused_as<L, S>(refused: Refused<Initiator<L, S>>, of: fn(Initiator<L, S>) -> Session<S>) -> Refused<Session<S>> {
    Refused { rejected: refused.rejected, session: refused.session.map(of) }
}

/// What a run came to.
pub(crate) enum Agreement {
    Cloud(Agreed<E3>),
    Gateway(Agreed<E2>),
}

impl Agreement {
    /// The network key that came with message_4.
    pub(crate) const fn handed(&self) -> Option<&HandedKey> {
        match self {
            Self::Cloud(agreed) => agreed.handed(),
            Self::Gateway(agreed) => agreed.handed(),
        }
    }
}

enum Run<A> {
    Idle,
    M2 {
        session: Session<WaitM2<A>>,
        sending: Sending,
    },
    M4 {
        session: Session<WaitM4>,
        sending: Sending,
        /// Of message_2, to know it when it comes again.
        answered: [u8; 32],
    },
}

/// What a message of the peer did.
pub(crate) enum Step {
    Agreed(Epoch, Agreement),
    GoesOn,
}

/// A message that was refused.
pub(crate) struct Stopped {
    pub(crate) rejected: Rejected,
    /// The epoch of the run, if that is over.
    pub(crate) over: Option<Epoch>,
}

impl Stopped {
    const fn goes_on(rejected: Rejected) -> Self {
        Self { rejected, over: None }
    }
}

/// One device's runs, one at a time.
pub(crate) struct Renewal<A> {
    pub(crate) keys: Keys<A>,
    timers: Timers,
    draw: Draw,
    run: Run<A>,
    /// Why a run is wanted, until one succeeds.
    wanted: Option<Why>,
    /// No run begins before.
    rests_until: Millis,
    /// Begins the tokens of the run, on IP: nobody off the path knows it.
    token: [u8; 3],
}

impl<A: Agree> Renewal<A> {
    pub(crate) const fn new(keys: Keys<A>, timers: Timers, draw: Draw) -> Self {
        Self { keys, timers, draw, run: Run::Idle, wanted: None, rests_until: Millis(0), token: [0; 3] }
    }

    pub(crate) fn timers(&self) -> &Timers {
        self.keys.own.exists();
        &self.timers
    }

    /// A run is wanted. The first reason stays.
    pub(crate) fn want(&mut self, why: Why) {
        self.keys.own.exists();
        self.wanted.get_or_insert(why);
    }

    pub(crate) const fn wanted(&self) -> Option<Why> {
        self.wanted
    }

    pub(crate) fn stage(&self) -> Stage {
        self.keys.own.exists();
        match &self.run {
            Run::Idle => Stage::Idle,
            Run::M2 { sending, .. } => Stage::WaitMessage2(sending.epoch),
            Run::M4 { sending, .. } => Stage::WaitMessage4(sending.epoch),
        }
    }

    /// Begins a run for an epoch that was never offered. Its message_1 is due; it must not leave before the next epoch is
    /// durable (W2).
    pub(crate) fn begin(&mut self, now: Millis, sid: Sid, epoch: Epoch, announce: Announce) -> Result<(), Failed> {
        self.keys.own.exists();
        let ephemeral = self.draw.key().ok_or(Failed::Randomness)?;
        let offered = match self.keys.peer {
            Peer::Cloud(_) => {
                Initiator::offer(ephemeral, sid, epoch, announce).map(|(run, m1)| (Session::Cloud(run), m1))
            }
            Peer::Gateway(_) => {
                Initiator::offer(ephemeral, sid, epoch, announce).map(|(run, m1)| (Session::Gateway(run), m1))
            }
        };
        let (session, message) = offered.map_err(|_| Failed::Exhausted)?;
        self.run = Run::M2 { session, sending: Sending::now(now, epoch, message) };
        let [a, b, c, ..] = *self.draw.bytes();
        self.token = [a, b, c];
        Ok(())
    }

    /// The token of the message that waits for its answer, and a number for its Message ID. `None` without a run.
    pub(crate) fn exchange(&self) -> Option<(Token, u16)> {
        let (epoch, step) = match self.stage() {
            Stage::Idle => return None,
            Stage::WaitMessage2(epoch) => (epoch, 0),
            Stage::WaitMessage4(epoch) => (epoch, 1),
        };
        let [a, b, c] = self.token;
        Some((Token::new(&[a, b, c, step])?, epoch.0 << 1 | u16::from(step)))
    }

    /// Whether an answer is one to the run that is under way.
    pub(crate) fn is_answer(&self, token: Token) -> bool {
        !matches!(self.run, Run::Idle) && matches!(token.as_bytes(), [x, y, z, _] if [*x, *y, *z] == self.token)
    }

    fn sending(&self) -> Option<&Sending> {
        self.keys.own.exists();
        match &self.run {
            Run::Idle => None,
            Run::M2 { sending, .. } | Run::M4 { sending, .. } => Some(sending),
        }
    }

    /// The message to be sent now, and how often it was before.
    pub(crate) fn due(&self, now: Millis) -> Option<(&Message, u8)> {
        self.sending().filter(|s| s.sent < TRIES && s.at <= now).map(|s| (&s.message, s.sent))
    }

    /// What was due is out.
    pub(crate) fn sent(&mut self, now: Millis) {
        if let Run::M2 { sending, .. } | Run::M4 { sending, .. } = &mut self.run {
            (sending.sent, sending.at) = (sending.sent + 1, now.plus(self.timers.resend));
        }
    }

    /// What was due could not be sent: again later.
    pub(crate) fn postpone(&mut self, at: Millis) {
        if let Run::M2 { sending, .. } | Run::M4 { sending, .. } = &mut self.run {
            sending.at = at;
        }
    }

    /// Whether the last try had its time.
    pub(crate) fn is_overdue(&self, now: Millis) -> bool {
        self.sending().is_some_and(|s| s.sent >= TRIES && s.at <= now)
    }

    /// When the run that is under way goes on or ends.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.sending().map(|s| s.at)
    }

    /// No run begins before.
    pub(crate) const fn rests_until(&self) -> Millis {
        self.rests_until
    }

    /// A message of the peer: message_2 or message_4.
    pub(crate) fn receive(&mut self, now: Millis, payload: &[u8]) -> Result<Step, Stopped> {
        self.keys.own.exists();
        match core::mem::replace(&mut self.run, Run::Idle) {
            Run::Idle => Err(Stopped::goes_on(Rejected::new(Code::RenewalLate, "a message of a run that is over"))),
            Run::M2 { session, sending } => {
                let own = Identity { key: &self.keys.own, credential: &self.keys.credential };
                match session.handle_message_2(payload, &own, self.keys.peer.credential()) {
                    Ok((session, message)) => {
                        let refused = sending.refused;
                        let sending = Sending { refused, ..Sending::now(now, sending.epoch, message) };
                        self.run = Run::M4 { session, sending, answered: sha256(&[payload]) };
                        Ok(Step::GoesOn)
                    }
                    Err(refused) => {
                        Err(self.refused(refused, sending, |session, sending| Run::M2 { session, sending }))
                    }
                }
            }
            // A message_1 that was sent twice is answered twice.
            Run::M4 { session, sending, answered } if answered == sha256(&[payload]) => {
                self.run = Run::M4 { session, sending, answered };
                Err(Stopped::goes_on(Rejected::new(Code::RenewalLate, "message_2 once more")))
            }
            Run::M4 { session, sending, answered } => match session.handle_message_4(payload) {
                Ok(agreed) => {
                    (self.wanted, self.rests_until) = (None, now);
                    Ok(Step::Agreed(sending.epoch, agreed))
                }
                Err(refused) => {
                    Err(self.refused(refused, sending, |session, sending| Run::M4 { session, sending, answered }))
                }
            },
        }
    }

    fn refused<S>(
        &mut self,
        refused: Refused<S>,
        mut sending: Sending,
        waiting: impl FnOnce(S, Sending) -> Run<A>,
    ) -> Stopped {
        let Refused { rejected, session } = refused;
        sending.refused += 1;
        match session.filter(|_| sending.refused < REFUSALS) {
            Some(session) => {
                self.run = waiting(session, sending);
                Stopped::goes_on(rejected)
            }
            None => Stopped { rejected, over: Some(sending.epoch) },
        }
    }

    /// The run is over, the `runs`th in a row that came to nothing. Returns how long the next one waits: `first` at most
    /// after the first.
    pub(crate) fn give_up(&mut self, now: Millis, runs: u8, first: u64) -> u64 {
        self.run = Run::Idle;
        let doublings = u32::from(runs.saturating_sub(1).min(32));
        let whole = first.saturating_mul(1 << doublings).min(self.timers.longest);
        let pause = pause(&mut self.draw, whole);
        self.rests_until = now.plus(pause);
        pause
    }

    /// No run will ever begin again.
    pub(crate) fn rest_for_good(&mut self) {
        self.rests_until = Millis(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::e5_renewal::{PeerKid, Responder, ToServer};
    use fivefold_core::suite::p256::AgreementKey;

    const SID: Sid = Sid(0x0a17);

    fn key(n: u8) -> AgreementKey {
        AgreementKey::from_random(&[n; 32]).unwrap()
    }

    fn cloud() -> Credential<'static> {
        Credential::peer(PeerKid::new(5).unwrap(), key(2).public_x())
    }

    fn renewal(seed: u8) -> Renewal<AgreementKey> {
        let (own, credential) = (key(1), Credential::device(SID, key(1).public_x()));
        let keys = Keys { own, credential, peer: Peer::Cloud(cloud()), mix: None, group: GatewayGroup(1) };
        Renewal::new(keys, Timers::default(), Draw::new([seed; 32]))
    }

    fn offered(renewal: &mut Renewal<AgreementKey>, now: Millis, epoch: u16) -> Message {
        renewal.begin(now, SID, Epoch(epoch), Announce::Nothing).unwrap();
        *renewal.due(now).unwrap().0
    }

    #[test]
    fn every_run_of_every_boot_has_an_ephemeral_key_of_its_own() {
        let mut seen = heapless::Vec::<Message, 12>::new();
        for seed in 0..3 {
            let mut renewal = renewal(seed);
            for _ in 0..4 {
                // The same epoch, so that nothing but the key can differ.
                let message_1 = offered(&mut renewal, Millis(0), 9);
                assert!(!seen.contains(&message_1));
                seen.push(message_1).unwrap();
            }
        }
    }

    #[test]
    fn three_tries_thirty_seconds_apart_and_then_it_is_over() {
        let mut renewal = renewal(0);
        let message_1 = offered(&mut renewal, Millis(5), 2);
        for n in 0..3 {
            let now = Millis(5 + 30_000 * n);
            assert_eq!(renewal.due(now), Some((&message_1, n as u8)));
            assert_eq!(renewal.poll_timeout(), Some(now));
            renewal.sent(now);
            assert_eq!((renewal.due(now), renewal.is_overdue(now)), (None, false));
        }
        let end = Millis(5 + 90_000);
        assert_eq!((renewal.due(end), renewal.is_overdue(end)), (None, true));
        assert_eq!(renewal.stage(), Stage::WaitMessage2(Epoch(2)));
        let pause = renewal.give_up(end, 3, HOUR);
        assert!((2 * HOUR..=4 * HOUR).contains(&pause));
        assert_eq!((renewal.stage(), renewal.rests_until()), (Stage::Idle, end.plus(pause)));
    }

    #[test]
    fn a_pause_lies_between_half_of_its_time_and_all_of_it_and_never_above_the_longest() {
        let mut renewal = renewal(0);
        for runs in 1..=255 {
            let whole = (HOUR << u32::from(runs - 1).min(5)).min(24 * HOUR);
            let pause = renewal.give_up(Millis(0), runs, HOUR);
            assert!((whole / 2..=whole).contains(&pause), "{runs}: {pause}");
        }
    }

    #[test]
    fn a_run_that_both_sides_complete_gives_the_same_secrets() {
        let mut renewal = renewal(0);
        renewal.want(Why::Age);
        renewal.want(Why::Number);
        assert_eq!(renewal.wanted(), Some(Why::Age), "the first reason stays");
        let message_1 = offered(&mut renewal, Millis(0), 7);
        let Ok(ToServer::Offer(offer)) = ToServer::parse(message_1.as_bytes()) else { panic!() };
        let (at_cloud, credential) = (key(2), cloud());
        let own = Identity { key: &at_cloud, credential: &credential };
        let (server, message_2) = Responder::<E3, _>::answer(&offer, key(3), SID, &own).unwrap();
        let now = Millis(700);
        assert!(matches!(renewal.receive(now, message_2.as_bytes()), Ok(Step::GoesOn)));
        assert_eq!(renewal.stage(), Stage::WaitMessage4(Epoch(7)));
        // What is left of message_1 is not sent again.
        let (&message_3, 0) = renewal.due(now).unwrap() else { panic!() };
        let again = renewal.receive(now, message_2.as_bytes()).err().unwrap();
        assert_eq!((again.rejected.code, again.over), (Code::RenewalLate, None));
        let Ok(ToServer::Proof { message_3, .. }) = ToServer::parse(message_3.as_bytes()) else { panic!() };
        let claimed = server.handle_message_3(message_3).unwrap();
        let (theirs, message_4) = claimed.verify(&renewal.keys.credential).unwrap();
        let Ok(Step::Agreed(Epoch(7), Agreement::Cloud(ours))) = renewal.receive(now, message_4.as_bytes()) else {
            panic!()
        };
        let alg = fivefold_core::suite::Alg::AesCcm16_64_256;
        let [ours, theirs] = [ours, theirs].map(|agreed| agreed.secrets(alg, None));
        assert_eq!(ours.e3.danger_master_secret(), theirs.e3.danger_master_secret());
        assert_eq!((renewal.stage(), renewal.wanted()), (Stage::Idle, None));
        assert_eq!(renewal.rests_until(), now);
        assert_eq!(renewal.receive(now, message_4.as_bytes()).err().unwrap().rejected.code, Code::RenewalLate);
    }

    #[test]
    fn a_curve_that_does_not_exist_gives_no_key() {
        assert!(Draw::new([0; 32]).key::<NoCurve>().is_none());
    }
}
