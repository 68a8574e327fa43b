//! Contexts of a store that was put back from a copy (docs/protocol.md 8.4): what was answered under them since the copy was
//! made is forgotten.
//!
//! So no answer under them goes out without a number again, and the numbers are some that nobody can have used: they begin at
//! 2^20, where those of every other context end, and at any moment stay below two for each second since the context began. A
//! store that is put back once more, from whichever copy, goes on where that line is then.

use fivefold_core::counter::Lease;
use fivefold_core::oscore::{ANSWER_LIMIT, NUMBER_LIMIT};
use fivefold_core::profile::Mode;
use fivefold_core::time::Millis;
use fivefold_keep::registry;

/// Milliseconds for one number.
const PACE: u64 = 500;

/// Of a context: that its past is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    /// When the store was put back.
    pub(crate) at: Millis,
    /// When the context began, as every copy knows it.
    since: Millis,
}

impl Restored {
    /// Of a context that was agreed then, or installed.
    pub(crate) fn of(at: Millis, agreed: Option<Millis>, device: &registry::Device) -> Self {
        let since = match device.policy.mode {
            // Nobody knows when a boot began: its numbers are used up, and it is answered no more.
            Mode::Random => Millis(0),
            Mode::Persistent => agreed.unwrap_or(Millis(device.enrolled_at.saturating_mul(1000))),
        };
        Self { at, since }
    }

    /// Of what is in no store, of a device that was enrolled before that.
    pub(crate) fn unknown(at: Option<Millis>, device: &registry::Device) -> Option<Self> {
        let at = at.filter(|at| device.enrolled_at.saturating_mul(1000) <= at.0)?;
        Some(Self::of(at, None, device))
    }

    /// Below this may be used at that time.
    fn line(self, now: Millis) -> u32 {
        let numbers = now.since(self.since) / PACE;
        u32::try_from(numbers).unwrap_or(u32::MAX).saturating_add(NUMBER_LIMIT).min(ANSWER_LIMIT)
    }
}

/// Our own numbers, of which those below `bound` may have been used.
pub(crate) fn lease(restored: Option<Restored>, bound: u32) -> Lease {
    match restored {
        Some(r) => Lease::resume(bound.max(r.line(r.at)), ANSWER_LIMIT),
        None => Lease::resume(bound, NUMBER_LIMIT),
    }
}

/// The bound to make durable next.
pub(crate) fn proposal(restored: Option<Restored>, lease: &Lease, block: u32, now: Millis) -> Option<u32> {
    let bound = lease.proposal(block)?;
    let bound = restored.map_or(bound, |r| bound.min(r.line(now)));
    (bound > lease.bound()).then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Millis = Millis(1_790_000_000_000);

    fn restored(at: u64) -> Restored {
        Restored { at: BEGAN.plus(at), since: BEGAN }
    }

    #[test]
    fn a_copy_that_is_put_back_again_uses_no_number_again() {
        // As fast as it may, until the same copy is put back: another bound is not in it.
        let first = restored(60_000);
        let mut lease_1 = lease(Some(first), 128);
        let mut used = Vec::new();
        for second in 0..3_600 {
            let now = first.at.plus(second * 1_000);
            if let Some(bound) = proposal(Some(first), &lease_1, 64, now) {
                lease_1.extend(bound);
            }
            while let Ok(n) = lease_1.take() {
                used.push(n.value());
            }
        }
        assert!(used.len() > 7_000 && used.iter().all(|n| *n >= NUMBER_LIMIT));
        let second = restored(60_000 + 3_600_000);
        let mut lease_2 = lease(Some(second), 128);
        assert_eq!(proposal(Some(second), &lease_2, 64, second.at), None, "none yet");
        lease_2.extend(proposal(Some(second), &lease_2, 64, second.at.plus(1_000)).unwrap());
        assert!(lease_2.take().unwrap().value() > *used.last().unwrap());
    }

    #[test]
    fn numbers_end_with_three_bytes() {
        let old = restored(400 * 24 * 3_600_000);
        assert_eq!(proposal(Some(old), &lease(Some(old), 0), 64, old.at.plus(10_000)), None);
        let clock_was_wrong = Restored { at: BEGAN, since: BEGAN.plus(1) };
        assert_eq!(lease(Some(clock_was_wrong), 0).bound(), NUMBER_LIMIT);
        assert_eq!(lease(None, 7).bound(), 7);
    }
}
