//! What the cloud keeps in memory of runs of EDHOC with one device (docs/protocol.md 11): those that wait for their
//! message_3, how many began, and what orders the next one. A restart loses runs, and the device begins another.

use std::collections::VecDeque;

use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Message, ReadM3, Refused, Responder, WaitM3};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Epoch;
use fivefold_core::time::Millis;
use fivefold_keep::registry;
use fivefold_keep::sign::AgreementKey;

/// Runs that a device may begin in an hour.
const OFFERS: usize = 6;
const HOUR: u64 = 3_600_000;
/// How long a run waits for its message_3 after it was asked for last, in milliseconds.
const LIFE: u64 = 120_000;
/// An order to renew is not said again for so long, in milliseconds: the device is about it.
const SAY_AGAIN: u64 = 300_000;

/// A run at the cloud, waiting for message_3.
pub(crate) type Waiting = Responder<E3, WaitM3<AgreementKey>>;
/// The same when its message_3 is decrypted.
pub(crate) type Claimed = Responder<E3, ReadM3<AgreementKey>>;

/// A run that began.
struct Run {
    waiting: Waiting,
    /// Which message_1 among all of this device.
    order: u64,
    /// SHA-256 of message_1.
    m1: [u8; 32],
    m2: Message,
    asked: Millis,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({}, {:?})", self.order, self.waiting)
    }
}

/// Of one device.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// The newest last.
    open: VecDeque<Run>,
    /// When those of the last hour began.
    offers: VecDeque<Millis>,
    order: u64,
    /// No epoch up to this one is agreed any more, and which message_1 made it; 0 if none did in this process.
    highest: (Epoch, u64),
    /// A proof holds, and its context is on its way to the store.
    pub(crate) agreeing: bool,
    ordered: Option<Millis>,
    said: Option<Millis>,
    /// When it was counted as overdue last.
    pub(crate) overdue: Option<Millis>,
}

/// What becomes of a proof that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Its epoch is above all before it.
    Newest,
    /// It is not, and began before the one that is: a message that was long on its way.
    Late,
    /// It is not, and began after it: the device lost its state, or there are two of it.
    Again,
}

impl Runs {
    /// The message_2 of a message_1 that came before.
    pub(crate) fn repeated(&mut self, m1: &[u8; 32], now: Millis) -> Option<Message> {
        let run = self.open.iter_mut().find(|r| r.m1 == *m1 && is_open(r, now))?;
        run.asked = now;
        Some(run.m2)
    }

    /// Counts a message_1; the order of the run that it begins, or `None` above the rate.
    pub(crate) fn admit(&mut self, now: Millis) -> Option<u64> {
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

    pub(crate) fn begin(&mut self, waiting: Waiting, m1: [u8; 32], m2: Message, order: u64, now: Millis) {
        self.expire(now);
        self.open.push_back(Run { waiting, order, m1, m2, asked: now });
    }

    /// Finds the run of a message_3, the newest first, and ends it; with which message_1 it began.
    ///
    /// # Errors
    /// `E5-09` when none waits for one, `E5-02` when it is of none.
    pub(crate) fn read(&mut self, message_3: &[u8], now: Millis) -> Result<(Claimed, u64), Rejected> {
        self.expire(now);
        let mut refused = Rejected::new(Code::RenewalLate, "no run of this device waits for a message_3");
        let mut others = Vec::new();
        let mut found = None;
        while let Some(run) = self.open.pop_back() {
            let Run { waiting, order, m1, m2, asked } = run;
            match waiting.handle_message_3(message_3) {
                Ok(claimed) => {
                    found = Some((claimed, order));
                    break;
                }
                Err(Refused { rejected, session }) => {
                    refused = rejected;
                    others.extend(session.map(|waiting| Run { waiting, order, m1, m2, asked }));
                }
            }
        }
        self.open.extend(others.into_iter().rev());
        found.ok_or(refused)
    }

    pub(crate) fn expire(&mut self, now: Millis) {
        self.open.retain(|run| is_open(run, now));
    }

    /// Whatever was begun comes to nothing.
    pub(crate) fn abandon(&mut self) {
        self.open.clear();
    }

    pub(crate) fn rank(&self, epoch: Epoch, order: u64) -> Rank {
        if epoch > self.highest.0 {
            Rank::Newest
        } else if order < self.highest.1 {
            Rank::Late
        } else {
            Rank::Again
        }
    }

    /// From now on nothing up to this epoch is agreed.
    pub(crate) fn spend(&mut self, epoch: Epoch, order: u64) {
        if epoch > self.highest.0 {
            self.highest = (epoch, order);
        }
    }

    /// What the book says.
    pub(crate) fn noted(&mut self, renewal: &registry::Renewal) {
        self.spend(renewal.highest, 0);
        self.ordered = renewal.ordered_until();
    }

    /// When the operator ordered the device to renew.
    pub(crate) const fn ordered(&self) -> Option<Millis> {
        self.ordered
    }

    /// Whether an order may be said now. Lost ones are said again, later; or at once, when the operator orders it again.
    pub(crate) fn may_say(&self, now: Millis) -> bool {
        let again = |at| self.ordered().is_some_and(|ordered| ordered > at);
        self.said.is_none_or(|at| now.since(at) >= SAY_AGAIN || again(at))
    }

    pub(crate) fn say(&mut self, now: Millis) {
        self.said = Some(now);
    }
}

fn is_open(run: &Run, now: Millis) -> bool {
    now.since(run.asked) < LIFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_runs_begin_in_an_hour_and_the_seventh_waits() {
        let mut runs = Runs::default();
        let orders: Vec<_> = (0..6).map(|n| runs.admit(Millis(n * 1000))).collect();
        assert_eq!(orders, (1..=6).map(Some).collect::<Vec<_>>());
        assert_eq!(runs.admit(Millis(3_599_999)), None);
        assert_eq!(runs.admit(Millis(3_600_000)), Some(7));
        assert_eq!(runs.admit(Millis(3_600_500)), None);
    }

    #[test]
    fn a_late_proof_is_told_from_a_second_device() {
        let mut runs = Runs::default();
        runs.spend(Epoch(5), 0);
        assert_eq!(runs.rank(Epoch(6), 1), Rank::Newest);
        // From before this process: everything here is newer.
        assert_eq!(runs.rank(Epoch(5), 1), Rank::Again);
        runs.spend(Epoch(7), 3);
        assert_eq!(runs.rank(Epoch(6), 2), Rank::Late);
        assert_eq!(runs.rank(Epoch(7), 3), Rank::Again);
        assert_eq!(runs.rank(Epoch(2), 4), Rank::Again);
        runs.spend(Epoch(4), 9);
        assert_eq!(runs.rank(Epoch(7), 2), Rank::Late, "the highest stays");
    }

    #[test]
    fn an_order_is_said_again_only_after_a_while() {
        let mut runs = Runs::default();
        assert!(runs.may_say(Millis(0)));
        runs.say(Millis(10));
        assert!(!runs.may_say(Millis(300_009)) && runs.may_say(Millis(300_010)));
    }
}
