//! When a device is to renew, and what becomes of contexts with time.

use fivefold_core::error::{Code, Severity};
use fivefold_core::id::Did;
use fivefold_core::oscore::{FAILURES_SOFT, RENEW_AT};
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;

use super::{Cloud, Judged, Memory};
use crate::book::{DRAIN, Device, Live, STALE};
use crate::store::{Standing, Write};

const DAY: u64 = 24 * 3_600_000;
/// Devices that are ordered to renew in a minute by the answers of one gateway: half of the runs that may begin by it, so
/// that whoever must renew for another reason still can.
const ORDERS: u16 = super::OFFERS_OF_GATEWAY / 2;

/// Why a device should renew: the reason of item 6 (docs/protocol.md 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its numbers.
    Numbers = 1,
    /// Failed verifications.
    Failures = 2,
    /// One number was used twice.
    NonceReuse = 3,
    /// The age of its context, or an installed one that was never renewed.
    Age = 4,
    /// The operator says so.
    Operator = 5,
}

impl Reason {
    pub(super) const fn wire(self) -> u64 {
        self as u64
    }
}

/// Settings of renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalSettings {
    /// Milliseconds after which an installed context is to be renewed the first time, if T_renew is not shorter.
    pub installed_after: u64,
}

impl Default for RenewalSettings {
    fn default() -> Self {
        // AR-43 finds what is older.
        Self { installed_after: 7 * DAY }
    }
}

fn t_renew(device: &Device) -> u64 {
    u64::from(device.policy.renew_days) * DAY
}

impl<M: Memory> Cloud<M> {
    /// Why the device should renew, to be said in the answer to its message `piv`.
    pub(super) fn renewal(&self, judged: &Judged, device: &Device, live: &mut Live, piv: u64) -> Option<u64> {
        let active = live.active()?;
        if piv >= u64::from(RENEW_AT) {
            return Some(Reason::Numbers.wire());
        }
        if active.failures >= FAILURES_SOFT {
            return Some(Reason::Failures.wire());
        }
        // Of a context of before a restore the device hears it until it is over: what it sends meanwhile is held (8.4).
        let is_restored = active.restored.is_some();
        let reason = self.ordered(device, live, judged.now)?;
        // One after the other: a campaign must not bring all of a network at once. What a secondary gateway brought under C2
        // it cannot answer: an order that went that way would be lost.
        let may_say = is_restored || live.orders.may_say(judged.now);
        if !may_say || !self.reaches(judged, device) || !self.admits_order(judged) {
            return None;
        }
        live.orders.say(judged.now);
        Some(reason.wire())
    }

    fn ordered(&self, device: &Device, live: &Live, now: Millis) -> Option<Reason> {
        device.key?;
        let active = live.active().filter(|c| c.standing == Standing::Active)?;
        if live.orders.ordered().is_some_and(|at| at > active.agreed.map_or(active.since, |a| a.at)) {
            return Some(Reason::Operator);
        }
        let limit = match active.agreed {
            Some(_) => t_renew(device),
            None => t_renew(device).min(self.renewals.installed_after),
        };
        (now.since(active.since) >= limit).then_some(Reason::Age)
    }

    /// Devices whose messages end at their gateway (E1+E2+E4), so that no answer of ours reaches them, and whose contexts are
    /// old: some of them, who are to be ordered to renew in the book.
    pub fn old_behind_gateways(&self, now: Millis) -> Vec<Did> {
        let book = self.book.load();
        let behind = book.by_did.values().filter(|d| d.policy.profile == Profile::ToGateway);
        let old = behind.filter(|d| self.ordered(d, &d.live(), now) == Some(Reason::Age));
        old.map(|d| d.did).take(ORDERS.into()).collect()
    }

    /// Whether the gateway that brought the message can pass an answer on.
    fn reaches(&self, judged: &Judged, device: &Device) -> bool {
        let book = self.book.load();
        device.policy.profile != Profile::ToBoth
            || book.gateway(judged.gateway.name()).is_none_or(|gateway| gateway.registered.primary)
    }

    fn admits_order(&self, judged: &Judged) -> bool {
        let minute = judged.now.0 / 60_000;
        let mut heard = self.heard();
        let known = heard.entry(judged.gateway.gateway()).or_default();
        if known.orders.0 != minute {
            known.orders = (minute, 0);
        }
        known.orders.1 = known.orders.1.saturating_add(1);
        known.orders.1 <= ORDERS
    }

    /// `E5-07` once a day while a device is long overdue: louder where its keys are older than 90 days.
    pub(super) fn overdue(&self, device: &Device, live: &mut Live, now: Millis) -> Option<(Code, Severity)> {
        device.key.filter(|_| device.policy.mode == Mode::Persistent)?;
        let since = live.active().filter(|c| c.standing == Standing::Active)?.since;
        if now.since(since) <= t_renew(device) / 2 * 3 || live.orders.overdue.is_some_and(|at| now.since(at) < DAY) {
            return None;
        }
        live.orders.overdue = Some(now);
        let loud = if now.since(since) > 90 * DAY { Severity::High } else { Code::RenewalOverdue.severity() };
        Some((Code::RenewalOverdue, loud))
    }

    /// Erases what drained long enough (docs/protocol.md 3, K5), and runs that nobody ends.
    pub(super) fn forget(&self, device: &Device, live: &mut Live, write: &mut Write) {
        let now = write.now;
        live.runs.expire(now);
        if device.policy.mode != Mode::Persistent {
            return;
        }
        live.contexts.retain(|c| {
            let over = c.standing == Standing::Draining && now.since(c.since) > DRAIN + STALE;
            if over {
                write.forgotten.push(c.id);
                write.new_generation |= device.policy.profile.has_e2();
            }
            !over
        });
    }
}
