//! How often a device is heard, and when it has been silent for too long (E3-12).

use fivefold_core::error::Severity;
use fivefold_core::time::Millis;

/// A device is silent after so many of its periods.
const PERIODS: u64 = 3;
/// Periods below this are taken as this, in milliseconds: bursts say nothing about silence.
const SHORTEST_PERIOD: u64 = 10_000;
/// A silence of more than a day is said once more, louder.
const LONG: u64 = 24 * 3600 * 1000;

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    /// When it was heard last.
    pub(crate) heard: Option<Millis>,
    /// How often it speaks (milliseconds, smoothed; 0 until that is known).
    pub(crate) period: u64,
    /// What was said of its silence.
    said: Option<Severity>,
}

impl Pulse {
    /// It was heard.
    pub(crate) fn beat(&mut self, now: Millis) {
        if let Some(before) = self.heard {
            let gap = now.since(before);
            // A quarter of each new gap; the first one counts whole.
            self.period = if self.period == 0 { gap } else { (self.period * 3 + gap) / 4 };
        }
        self.heard = Some(now);
        self.said = None;
    }

    /// Whether its silence is to be said, and how loud: once after three periods, and once after a day.
    pub(crate) fn misses(&mut self, now: Millis) -> Option<Severity> {
        let silence = now.since(self.heard?);
        if self.period == 0 || silence <= PERIODS * self.period.max(SHORTEST_PERIOD) {
            return None;
        }
        let loud = if silence > LONG { Severity::High } else { Severity::Warning };
        let is_new = match self.said {
            None => true,
            Some(Severity::Warning) => loud == Severity::High,
            Some(_) => false,
        };
        is_new.then(|| self.said = Some(loud)).map(|()| loud)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn a_silence_is_said_after_three_periods_and_again_after_a_day() {
        let mut pulse = Pulse::default();
        let at = |minutes: u64| Millis(1_000_000 + minutes * MINUTE);
        assert_eq!(pulse.misses(at(0)), None, "never heard");
        pulse.beat(at(0));
        assert_eq!(pulse.misses(at(10_000)), None, "heard once: nobody knows how often it speaks");
        pulse.beat(at(10));
        assert_eq!(pulse.misses(at(40)), None);
        assert_eq!(pulse.misses(at(41)), Some(Severity::Warning));
        assert_eq!(pulse.misses(at(42)), None);
        assert_eq!(pulse.misses(at(10 + 24 * 60)), None);
        assert_eq!(pulse.misses(at(11 + 24 * 60)), Some(Severity::High));
        assert_eq!(pulse.misses(at(12 + 24 * 60)), None);
        pulse.beat(at(2000));
        assert_eq!(pulse.misses(at(2001)), None);
    }

    #[test]
    fn one_that_speaks_every_other_day_is_first_missed_after_six_loudly() {
        let mut pulse = Pulse::default();
        let at = |days: u64| Millis(days * 1440 * MINUTE);
        pulse.beat(at(0));
        pulse.beat(at(2));
        assert_eq!(pulse.misses(at(8)), None);
        assert_eq!(pulse.misses(Millis(at(8).0 + 1)), Some(Severity::High));
    }

    #[test]
    fn a_burst_says_nothing_about_silence() {
        let mut pulse = Pulse::default();
        (0..20).for_each(|n| pulse.beat(Millis(1000 + n)));
        assert_eq!(pulse.misses(Millis(31_000)), None);
        assert_eq!(pulse.misses(Millis(31_020)), Some(Severity::Warning));
    }
}
