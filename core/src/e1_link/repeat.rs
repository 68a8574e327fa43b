//! What a relay heard in the last ten seconds, so that it does not forward it again.

use crate::id::Sid;
use crate::suite::sha256;
use crate::time::Millis;

/// How long a datagram is remembered, in milliseconds.
const LIFE: u64 = 10_000;
const PLACES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Heard {
    originator: Sid,
    hash: [u8; 4],
    until: Millis,
}

/// (originator, SHA-256[0..4] of the rest) of the last datagrams; the oldest goes first.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    heard: [Option<Heard>; PLACES],
    next: usize,
}

impl Repeats {
    pub(super) const fn new() -> Self {
        Self { heard: [None; PLACES], next: 0 }
    }

    /// Whether it was heard less than ten seconds ago. If not, it is remembered from now.
    pub(super) fn is_repeat(&mut self, now: Millis, originator: Sid, rest: &[u8]) -> bool {
        let [a, b, c, d, ..] = sha256(&[rest]);
        let hash = [a, b, c, d];
        let same = |h: &Heard| h.originator == originator && h.hash == hash && now < h.until;
        if self.heard.iter().flatten().any(same) {
            return true;
        }
        if let Some(place) = self.heard.get_mut(self.next) {
            *place = Some(Heard { originator, hash, until: now.plus(LIFE) });
        }
        self.next = (self.next + 1) % PLACES;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_dropped_for_ten_seconds_from_its_first_hearing() {
        let mut repeats = Repeats::new();
        assert!(!repeats.is_repeat(Millis(0), Sid(1), b"reading"));
        assert!(repeats.is_repeat(Millis(9_999), Sid(1), b"reading"));
        assert!(!repeats.is_repeat(Millis(9_999), Sid(2), b"reading"));
        assert!(!repeats.is_repeat(Millis(9_999), Sid(1), b"another"));
        assert!(!repeats.is_repeat(Millis(10_000), Sid(1), b"reading"));
    }
}
