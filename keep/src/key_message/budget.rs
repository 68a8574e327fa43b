//! Six in an hour.

use fivefold_core::time::Millis;

pub(super) const PER_HOUR: usize = 6;
const HOUR_MS: u64 = 3_600_000;

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;

/// Grants six in any hour.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    granted: [Option<Millis>; PER_HOUR],
}

impl Budget {
    pub(super) fn take(&mut self, now: Millis) -> Result<(), Spent> {
        // A clock that was set back locks a device out for an hour, not until it has caught up.
        for slot in &mut self.granted {
            *slot = slot.map(|at| at.min(now));
        }
        let free = |slot: &&mut Option<Millis>| slot.is_none_or(|at| now.since(at) >= HOUR_MS);
        let free = self.granted.iter_mut().find(free).ok_or(Spent)?;
        *free = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seventh_in_an_hour_is_not_granted_and_the_next_hour_is_a_new_one() {
        let mut budget = Budget::default();
        for minute in 0..6 {
            assert_eq!(budget.take(Millis(minute * 60_000)), Ok(()));
        }
        assert_eq!(budget.take(Millis(HOUR_MS - 1)), Err(Spent));
        assert_eq!(budget.take(Millis(HOUR_MS)), Ok(()));
        assert_eq!(budget.take(Millis(HOUR_MS + 59_999)), Err(Spent));
        assert_eq!(budget.take(Millis(HOUR_MS + 60_000)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_costs_an_hour_at_most() {
        let mut budget = Budget::default();
        for _ in 0..6 {
            assert_eq!(budget.take(Millis(1000 * HOUR_MS)), Ok(()));
        }
        assert_eq!(budget.take(Millis(5)), Err(Spent));
        assert_eq!(budget.take(Millis(5 + HOUR_MS)), Ok(()));
    }
}
