//! When a sink that was away is tried again.

/// The first pause, in milliseconds.
const FIRST_PAUSE: u64 = 1_000;
/// The longest, in milliseconds: a sink that is back hears within this time, and an eighth of it.
pub const LONGEST_PAUSE: u64 = 300_000;

/// Pauses that double, each a little off, so that a thousand clouds do not come back in one second.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: u64,
    next: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::from(FIRST_PAUSE)
    }
}

impl Backoff {
    /// Whose first pause is so many milliseconds.
    pub const fn from(first: u64) -> Self {
        Self { first, next: first }
    }

    /// How long to wait now, in milliseconds. `random` is any byte.
    pub fn pause(&mut self, random: u8) -> u64 {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause + pause * u64::from(random) / (8 * 256)
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_minutes_and_are_an_eighth_off_at_most() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..12).map(|_| backoff.pause(0)).collect();
        assert_eq!(pauses[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(pauses[11], LONGEST_PAUSE);
        let last = backoff.pause(255);
        assert!(last > LONGEST_PAUSE && last < LONGEST_PAUSE * 9 / 8);
        backoff.reset();
        assert_eq!(backoff.pause(0), 1_000);
    }
}
