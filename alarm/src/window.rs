//! Occurrences of one code within the last ten minutes, and whether they are an alarm.

use fivefold_core::error::{At, STEP_TIME, Severity, Step};
use fivefold_core::time::Millis;

/// Occurrences are kept by the minute.
const MINUTE: u64 = 60_000;
/// One more than fit into the time: occurrences that lie so close are added up wherever the minutes begin.
const MINUTES: usize = (STEP_TIME / MINUTE) as usize + 1;
const BYTES: usize = 8 + 4 * MINUTES + 1 + 8;

/// Counts what is counted together. An alarm is raised once, and again only if it is louder or the one before is over:
/// fewer than half of what raised it are left in the window, and nobody says any more that it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The newest minute.
    minute: u64,
    counts: [u32; MINUTES],
    open: Option<Severity>,
    /// The minute to which an alarm stays that somebody said.
    said_until: u64,
}

impl Window {
    /// Counts so many occurrences; `said` is the severity that who saw them says. The alarm that they raise, if they raise one.
    pub fn count(&mut self, steps: &[Step], times: u64, said: Option<Severity>, now: Millis) -> Option<Severity> {
        self.advance(steps, now);
        let said = said.filter(|s| steps.iter().any(|step| step.at == At::Said && step.severity == *s));
        let loud = match said {
            Some(severity) => {
                self.said_until = self.minute + MINUTES as u64;
                severity
            }
            None => {
                let slot = self.slot();
                if let Some(count) = self.counts.get_mut(slot) {
                    *count = count.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
                }
                let total = self.total();
                steps
                    .iter()
                    .filter(|step| matches!(step.at, At::Times(n) if total >= n.into()))
                    .map(|s| s.severity)
                    .max()?
            }
        };
        if self.open.is_some_and(|open| open >= loud) {
            return None;
        }
        self.open = Some(loud);
        Some(loud)
    }

    /// Lets time pass. Whether an alarm is over with that.
    pub fn advance(&mut self, steps: &[Step], now: Millis) -> bool {
        let minute = now.0 / MINUTE;
        // A clock that was far ahead must not keep what it counted for ever; one that is a little behind changes nothing.
        if self.minute > minute + MINUTES as u64 {
            *self = Self { open: self.open, ..Self::default() };
        }
        let passed = minute.saturating_sub(self.minute);
        for _ in 0..passed.min(MINUTES as u64) {
            self.minute += 1;
            let slot = self.slot();
            if let Some(count) = self.counts.get_mut(slot) {
                *count = 0;
            }
        }
        if passed > MINUTES as u64 {
            self.counts = [0; MINUTES];
        }
        self.minute = self.minute.max(minute);
        let Some(open) = self.open else { return false };
        let raised_by = steps.iter().find_map(|step| match step.at {
            At::Times(n) if step.severity == open => Some(u64::from(n)),
            _ => None,
        });
        let few = raised_by.is_none_or(|n| self.total() * 2 < n);
        if few && self.minute >= self.said_until {
            self.open = None;
            return true;
        }
        false
    }

    /// Occurrences within the window.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|n| u64::from(*n)).sum()
    }

    /// Whether there is nothing to remember.
    pub fn is_quiet(&self) -> bool {
        self.open.is_none() && self.total() == 0
    }

    fn slot(&self) -> usize {
        (self.minute % MINUTES as u64) as usize
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(self.minute.to_be_bytes());
        self.counts.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.push(match self.open {
            None => 0,
            Some(Severity::Info) => 1,
            Some(Severity::Warning) => 2,
            Some(Severity::High) => 3,
            Some(Severity::Critical) => 4,
        });
        bytes.extend(self.said_until.to_be_bytes());
        bytes
    }

    /// From what was stored; `None` if that is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (minute, rest) = bytes.split_first_chunk()?;
        let (counted, rest) = rest.split_at_checked(4 * MINUTES)?;
        let mut counts = [0; MINUTES];
        for (count, bytes) in counts.iter_mut().zip(counted.chunks_exact(4)) {
            *count = u32::from_be_bytes(bytes.try_into().ok()?);
        }
        let (open, rest) = rest.split_first()?;
        let open = match open {
            0 => None,
            1 => Some(Severity::Info),
            2 => Some(Severity::Warning),
            3 => Some(Severity::High),
            4 => Some(Severity::Critical),
            _ => return None,
        };
        let said_until = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { minute: u64::from_be_bytes(*minute), counts, open, said_until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::error::Code;

    const T0: u64 = 1_790_000_000_000;

    fn at(ms: u64) -> Millis {
        Millis(T0 + ms)
    }

    #[test]
    fn every_step_of_every_code_raises_at_n_and_not_at_one_less_wherever_the_minutes_begin() {
        let mut tried = 0;
        for code in Code::ALL {
            for step in code.steps() {
                let At::Times(n) = step.at else { continue };
                for begin in [0, 1, 30_000, 59_999] {
                    let mut window = Window::default();
                    // Spread over all of the time.
                    let pace = STEP_TIME / u64::from(n.max(2) - 1);
                    for i in 1..n {
                        let raised = window.count(code.steps(), 1, None, at(begin + u64::from(i - 1) * pace));
                        assert!(raised < Some(step.severity), "{code}: {i} of {n}");
                    }
                    let last = window.count(code.steps(), 1, None, at(begin + u64::from(n - 1) * pace));
                    assert_eq!(last, Some(step.severity), "{code}: {n}");
                    let after = window.count(code.steps(), 1, None, at(begin + u64::from(n - 1) * pace));
                    assert!(after.is_none_or(|s| s > step.severity), "{code}: once");
                }
                // All at once is the same as one by one.
                let mut window = Window::default();
                let less = window.count(code.steps(), u64::from(n - 1), None, at(0));
                assert!(n == 1 || less < Some(step.severity), "{code}");
                tried += 1;
            }
        }
        assert!(tried > 60, "{tried}");
    }

    #[test]
    fn what_lies_further_apart_than_the_time_is_not_added_up() {
        let steps = Code::GatewayForged.steps();
        let mut window = Window::default();
        for i in 0..100 {
            assert_eq!(window.count(steps, 1, None, at(i * 3 * MINUTE)), None, "{i}: four in ten minutes");
        }
    }

    #[test]
    fn an_alarm_that_goes_on_is_raised_once_and_again_when_it_was_over() {
        let steps = Code::GatewayForged.steps();
        let mut window = Window::default();
        let mut raised = 0;
        for minute in 0..120 {
            raised += u32::from(window.count(steps, 3, None, at(minute * MINUTE)).is_some());
        }
        assert_eq!(raised, 1, "for two hours");
        // Two of five, and less: it is over when few are left, not at the first quiet minute.
        assert!(!window.advance(steps, at(121 * MINUTE)));
        assert!(window.advance(steps, at(130 * MINUTE)));
        assert!(!window.advance(steps, at(131 * MINUTE)), "over once");
        assert_eq!(window.count(steps, 5, None, at(132 * MINUTE)), Some(Severity::High));
    }

    #[test]
    fn it_grows_louder_and_never_quieter() {
        let steps = Code::LinkForged.steps();
        let mut window = Window::default();
        assert_eq!(window.count(steps, 20, None, at(0)), Some(Severity::Warning));
        assert_eq!(window.count(steps, 179, None, at(1)), None);
        assert_eq!(window.count(steps, 1, None, at(2)), Some(Severity::High));
        assert_eq!(window.count(steps, 1, None, at(3)), None);
    }

    #[test]
    fn what_is_said_counts_as_it_is_said_and_not_as_an_occurrence() {
        // A log that contradicts itself is critical; a witness that is away is not, however often.
        let steps = Code::EvidenceLog.steps();
        let mut window = Window::default();
        assert_eq!(window.count(steps, 1, Some(Severity::Warning), at(0)), Some(Severity::Warning));
        assert_eq!(window.count(steps, 1, Some(Severity::Warning), at(1)), None);
        assert_eq!(window.count(steps, 1, None, at(2)), Some(Severity::Critical));
        // A severity that the page does not know there is an occurrence as any other.
        let mut window = Window::default();
        assert_eq!(
            window.count(Code::CloudSilence.steps(), 1, Some(Severity::Warning), at(0)),
            Some(Severity::Warning)
        );
        assert_eq!(window.count(Code::CloudSilence.steps(), 1, Some(Severity::High), at(1)), Some(Severity::High));
        assert!(!window.advance(Code::CloudSilence.steps(), at(MINUTE)));
        assert!(window.advance(Code::CloudSilence.steps(), at(12 * MINUTE)));
        assert!(window.is_quiet());
    }

    #[test]
    fn no_clock_makes_it_forget_or_remember_for_ever() {
        let steps = Code::GatewayForged.steps();
        let mut window = Window::default();
        window.count(steps, 4, None, at(5 * MINUTE));
        assert_eq!(window.count(steps, 1, None, at(3 * MINUTE)), Some(Severity::High), "two minutes back");
        let mut ahead = Window::default();
        ahead.count(steps, 4, None, Millis(T0 * 3));
        assert_eq!(ahead.count(steps, 4, None, at(0)), None, "what was counted in another century");
        assert_eq!(ahead.count(steps, 1, None, Millis(u64::MAX)), None);
        assert_eq!(Window::default().count(steps, u64::MAX, None, Millis(0)), Some(Severity::High));
    }

    #[test]
    fn it_is_read_as_it_was_stored_and_rubbish_is_none() {
        let steps = Code::LinkForged.steps();
        let mut window = Window::default();
        window.count(steps, 20, None, at(0));
        window.count(steps, 7, None, at(3 * MINUTE));
        let bytes = window.to_bytes();
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(Window::from_bytes(&bytes), Some(window));
        (0..bytes.len()).for_each(|cut| assert_eq!(Window::from_bytes(&bytes[..cut]), None, "{cut}"));
        let mut wrong = bytes;
        wrong[8 + 4 * MINUTES] = 5;
        assert_eq!(Window::from_bytes(&wrong), None);
    }
}
