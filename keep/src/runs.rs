//! What the server of EDHOC, the cloud or a gateway alone, keeps in memory of its runs with one device (docs/protocol.md
//! 11): those that wait for their message_3, how many began, and which epochs are spent. A restart loses runs, and the
//! device begins another.
//!
//! The order of calls: [`Runs::offered`], [`Runs::begin`] for a message_1; [`Runs::read`], the proof, [`Runs::conclude`] for a
//! message_3. What is agreed is durable at the server before message_4 leaves (W6).

use std::collections::VecDeque;

use fivefold_core::e5_renewal::{Message, Offer, ReadM3, Refused, Responder, WaitM3};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;

use crate::sign::AgreementKey;

/// Runs that a device may begin in an hour.
const OFFERS: usize = 6;
const HOUR: u64 = 3_600_000;
/// How long a run waits for its message_3 after it was asked for last, in milliseconds.
const LIFE: u64 = 120_000;
/// Contexts that are agreed and not used yet, at most.
const PENDING: usize = 8;

/// A run at the server, waiting for message_3.
pub type Waiting<L> = Responder<L, WaitM3<AgreementKey>>;
/// The same when its message_3 is decrypted.
pub type Claimed<L> = Responder<L, ReadM3<AgreementKey>>;

/// A run that began.
struct Run<L> {
    waiting: Waiting<L>,
    /// Which message_1 among all of this device.
    order: u64,
    /// SHA-256 of message_1.
    m1: [u8; 32],
    m2: Message,
    asked: Millis,
}

impl<L> std::fmt::Debug for Run<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({})", self.order)
    }
}

/// Of one device, at level `L`: E3 at the cloud, E2 at a gateway.
///
/// What comes of a gateway's run is C2 local:
/// ```
/// use fivefold_core::{e2_gateway::E2, e5_renewal::{Credential, LocalSecrets}, suite::Alg};
/// use fivefold_keep::runs::Claimed;
/// fn given(run: Claimed<E2>, device: &Credential<'_>) -> Option<LocalSecrets> {
///     Some(run.verify(device).ok()?.0.secrets(Alg::AesCcm16_64_256))
/// }
/// ```
/// and never anything of E3:
/// ```compile_fail,E0061
/// use fivefold_core::{e2_gateway::E2, e5_renewal::{CloudSecrets, Credential}, suite::Alg};
/// use fivefold_keep::runs::Claimed;
/// fn given(run: Claimed<E2>, device: &Credential<'_>) -> Option<CloudSecrets> {
///     Some(run.verify(device).ok()?.0.secrets(Alg::AesCcm16_64_256, None))
/// }
/// ```
/// Nor is a run taken up at another level than it began with:
/// ```compile_fail,E0308
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3, time::Millis};
/// use fivefold_keep::runs::{Claimed, Runs};
/// fn read(runs: &mut Runs<E2>, message_3: &[u8]) -> Option<Claimed<E3>> {
///     Some(runs.read(message_3, Millis(0)).ok()??.0)
/// }
/// ```
pub struct Runs<L> {
    /// The newest last.
    open: VecDeque<Run<L>>,
    /// When those of the last hour began.
    offers: VecDeque<Millis>,
    order: u64,
    /// No epoch up to this one is agreed any more, and which message_1 made it; 0 if none did in this process.
    highest: (Epoch, u64),
    /// A proof holds, and its context is on its way to the store.
    agreeing: bool,
}

impl<L> std::fmt::Debug for Runs<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("open", &self.open).field("highest", &self.highest).finish_non_exhaustive()
    }
}

impl<L> Default for Runs<L> {
    fn default() -> Self {
        let (open, offers) = (VecDeque::new(), VecDeque::new());
        Self { open, offers, order: 0, highest: (Epoch(0), 0), agreeing: false }
    }
}

/// A message_1 that may be answered.
#[derive(Debug)]
pub enum Offered {
    /// It came before: this is its message_2.
    Again(Message),
    /// It begins the run of this place among all of the device.
    New(Place),
}

/// A run's place among all of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    order: u64,
    m1: [u8; 32],
}

/// What becomes of a proof that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Its epoch is above all before it.
    Newest,
    /// It is not, and began before the one that is: a message that was long on its way.
    Late,
    /// It is not, and began after it: the device lost its state, or there are two of it.
    Again,
}

impl<L: OscoreLevel> Runs<L> {
    /// A message_1 of this device, which the link or the envelope named. `admits` is asked last: whether the way that it came
    /// by may begin one more.
    ///
    /// # Errors
    /// `E5-03` when it names another device, `E5-04` when its C_I is no epoch, `E5-01` above the rate.
    pub fn offered(
        &mut self,
        offer: &Offer<'_>,
        sid: Sid,
        admits: impl FnOnce() -> bool,
        now: Millis,
    ) -> Result<Offered, Rejected> {
        if offer.announced().is_some_and(|announced| announced != sid) {
            return Err(Rejected::new(Code::RenewalUnknownCredential, "message_1 names another device"));
        }
        if offer.epoch().is_none() {
            return Err(NO_EPOCH);
        }
        let m1 = sha256(&[offer.as_bytes()]);
        if let Some(run) = self.open.iter_mut().find(|r| r.m1 == m1 && is_open(r, now)) {
            run.asked = now;
            return Ok(Offered::Again(run.m2));
        }
        if !admits() {
            return Err(TOO_MANY);
        }
        Ok(Offered::New(Place { order: self.admit(now).ok_or(TOO_MANY)?, m1 }))
    }

    fn admit(&mut self, now: Millis) -> Option<u64> {
        while self.offers.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.offers.pop_front();
        }
        if self.offers.len() >= OFFERS {
            return None;
        }
        self.offers.push_back(now);
        self.order += 1;
        Some(self.order)
    }

    /// Its message_2 is made.
    pub fn begin(&mut self, waiting: Waiting<L>, place: Place, m2: Message, now: Millis) {
        self.expire(now);
        let Place { order, m1 } = place;
        self.open.push_back(Run { waiting, order, m1, m2, asked: now });
    }

    /// Finds the run of a message_3, the newest first, and ends it. `None` while a proof is on its way to the store: most
    /// likely it is the same once more, and answered when the first is durable.
    ///
    /// # Errors
    /// `E5-09` when no run waits for one, `E5-02` when it is of none.
    pub fn read(&mut self, message_3: &[u8], now: Millis) -> Result<Option<(Claimed<L>, Place)>, Rejected> {
        if self.agreeing {
            return Ok(None);
        }
        self.expire(now);
        let mut refused = Rejected::new(Code::RenewalLate, "no run of this device waits for a message_3");
        let mut others = Vec::new();
        let mut found = None;
        while let Some(run) = self.open.pop_back() {
            let Run { waiting, order, m1, m2, asked } = run;
            match waiting.handle_message_3(message_3) {
                Ok(claimed) => {
                    found = Some((claimed, Place { order, m1 }));
                    break;
                }
                Err(Refused { rejected, session }) => {
                    refused = rejected;
                    others.extend(session.map(|waiting| Run { waiting, order, m1, m2, asked }));
                }
            }
        }
        self.open.extend(others.into_iter().rev());
        found.map(Some).ok_or(refused)
    }

    /// Judges the epoch of a proof that holds, and spends it. Until [`Runs::concluded`] nothing else is agreed.
    ///
    /// # Errors
    /// `E5-09` for a late message of an abandoned run, or while another one is being concluded, whose device begins another
    /// run then; `E5-06` when the device lost its state, or there are two of it.
    pub fn conclude(&mut self, epoch: Epoch, place: Place) -> Result<(), Rejected> {
        match self.rank(epoch, place.order) {
            Rank::Newest => {}
            Rank::Late => return Err(Rejected::new(Code::RenewalLate, "a late message of an abandoned run")),
            Rank::Again => {
                return Err(Rejected::new(Code::RenewalEpochNotGreater, "the device lost its state, or there are two"));
            }
        }
        if std::mem::replace(&mut self.agreeing, true) {
            return Err(Rejected::new(Code::RenewalLate, "another run of this device is being concluded"));
        }
        self.spend_as(epoch, place.order);
        Ok(())
    }

    /// What was agreed is durable, or will not be.
    pub fn concluded(&mut self) {
        self.agreeing = false;
    }

    /// Drops runs that nobody asks about any more.
    pub fn expire(&mut self, now: Millis) {
        self.open.retain(|run| is_open(run, now));
    }

    /// Whatever was begun comes to nothing.
    pub fn abandon(&mut self) {
        self.open.clear();
    }

    fn rank(&self, epoch: Epoch, order: u64) -> Rank {
        if epoch > self.highest.0 {
            Rank::Newest
        } else if order < self.highest.1 {
            Rank::Late
        } else {
            Rank::Again
        }
    }

    /// Nothing up to this epoch is agreed any more: from before this process, or by the operator's book.
    pub fn spend(&mut self, epoch: Epoch) {
        self.spend_as(epoch, 0);
    }

    fn spend_as(&mut self, epoch: Epoch, order: u64) {
        if epoch > self.highest.0 {
            self.highest = (epoch, order);
        }
    }
}

/// Which of the contexts that are agreed and not used yet makes room for one more: the lowest, where there are eight.
pub fn makes_room<T>(pending: impl IntoIterator<Item = (Epoch, T)>) -> Option<T> {
    let mut pending: Vec<(Epoch, T)> = pending.into_iter().collect();
    pending.sort_by_key(|(epoch, _)| std::cmp::Reverse(*epoch));
    pending.drain(..).nth(PENDING - 1).map(|(_, lowest)| lowest)
}

/// C_I is none of ours.
pub const NO_EPOCH: Rejected = Rejected::new(Code::RenewalSuite, "C_I is no epoch");
const TOO_MANY: Rejected = Rejected::new(Code::RenewalRate, "more runs than a device or gateway may begin");

fn is_open<L>(run: &Run<L>, now: Millis) -> bool {
    now.since(run.asked) < LIFE
}

#[cfg(test)]
mod tests {
    use fivefold_core::e2_gateway::E2;

    use super::*;

    #[test]
    fn six_runs_begin_in_an_hour_and_the_seventh_waits() {
        let mut runs = Runs::<E2>::default();
        let orders: Vec<_> = (0..6).map(|n| runs.admit(Millis(n * 1000))).collect();
        assert_eq!(orders, (1..=6).map(Some).collect::<Vec<_>>());
        assert_eq!(runs.admit(Millis(3_599_999)), None);
        assert_eq!(runs.admit(Millis(3_600_000)), Some(7));
        assert_eq!(runs.admit(Millis(3_600_500)), None);
    }

    #[test]
    fn a_late_proof_is_told_from_a_second_device() {
        let mut runs = Runs::<E2>::default();
        runs.spend(Epoch(5));
        assert_eq!(runs.rank(Epoch(6), 1), Rank::Newest);
        // From before this process: everything here is newer.
        assert_eq!(runs.rank(Epoch(5), 1), Rank::Again);
        runs.spend_as(Epoch(7), 3);
        assert_eq!(runs.rank(Epoch(6), 2), Rank::Late);
        assert_eq!(runs.rank(Epoch(7), 3), Rank::Again);
        assert_eq!(runs.rank(Epoch(2), 4), Rank::Again);
        runs.spend_as(Epoch(4), 9);
        assert_eq!(runs.rank(Epoch(7), 2), Rank::Late, "the highest stays");
    }

    #[test]
    fn the_lowest_of_eight_makes_room() {
        let pending = |n: u16| makes_room((1..=n).map(|n| (Epoch(n), n)));
        assert_eq!((pending(0), pending(7), pending(8)), (None, None, Some(1)));
    }
}
