//! What a relay heard in the last ten seconds, so that it does not forward it again.
//!
//! The originator's retransmission (docs/protocol.md 9.1) is the same bytes after 2, 4 and 8 s, and must pass. It comes the
//! same way: from the neighbour that the first one came from, with as many hops left. What went round in a loop, or came
//! along a second way, has other hops or another neighbour. A recording is neither: its frame counter is old.

use crate::id::Sid;
use crate::suite::sha256;
use crate::time::Millis;
use crate::wire::mesh::Header;

/// How long a datagram is remembered, in milliseconds.
const LIFE: u64 = 10_000;
const PLACES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Heard {
    originator: Sid,
    hash: [u8; 4],
    from: Sid,
    hops: u8,
    until: Millis,
}

impl Heard {
    /// What was heard until the beginning of time is heard no more.
    const NOTHING: Self = Self { originator: Sid(0), hash: [0; 4], from: Sid(0), hops: 0, until: Millis(0) };
}

/// (originator, SHA-256[0..4] of the rest) of the last datagrams; the oldest goes first.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    heard: [Heard; PLACES],
    next: usize,
}

impl Repeats {
    pub(super) const fn new() -> Self {
        Self { heard: [Heard::NOTHING; PLACES], next: 0 }
    }

    /// Whether it was heard less than ten seconds ago, and came another way. If not, it is remembered from now.
    pub(super) fn is_repeat(&mut self, now: Millis, from: Sid, mesh: &Header, rest: &[u8]) -> bool {
        let Header { originator, hops, .. } = *mesh;
        let [a, b, c, d, ..] = sha256(&[rest]);
        let hash = [a, b, c, d];
        let same = |h: &Heard| h.originator == originator && h.hash == hash && now < h.until;
        if let Some(first) = self.heard.iter_mut().find(|h| same(h)) {
            if (first.from, first.hops) != (from, hops) {
                return true;
            }
            first.until = now.plus(LIFE);
            return false;
        }
        if let Some(place) = self.heard.get_mut(self.next) {
            *place = Heard { originator, hash, from, hops, until: now.plus(LIFE) };
        }
        self.next = (self.next + 1) % PLACES;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { hops: 5, originator: Sid(1), destination: Sid::ANY_GATEWAY };

    #[test]
    fn a_loop_or_a_second_way_is_a_repeat_for_ten_seconds() {
        let mut repeats = Repeats::new();
        let looped = Header { hops: 3, ..HEADER };
        let other = Header { originator: Sid(2), ..HEADER };
        assert!(!repeats.is_repeat(Millis(0), Sid(7), &HEADER, b"reading"));
        assert!(repeats.is_repeat(Millis(9_999), Sid(7), &looped, b"reading"));
        assert!(repeats.is_repeat(Millis(9_999), Sid(8), &HEADER, b"reading"));
        assert!(!repeats.is_repeat(Millis(9_999), Sid(7), &other, b"reading"));
        assert!(!repeats.is_repeat(Millis(9_999), Sid(7), &HEADER, b"another"));
        assert!(!repeats.is_repeat(Millis(10_000), Sid(8), &looped, b"reading"));
    }

    #[test]
    fn a_retransmission_passes_and_is_remembered_anew() {
        let mut repeats = Repeats::new();
        let looped = Header { hops: 3, ..HEADER };
        for at in [0, 2_000, 6_000, 14_000] {
            assert!(!repeats.is_repeat(Millis(at), Sid(7), &HEADER, b"reading"));
        }
        assert!(repeats.is_repeat(Millis(20_000), Sid(7), &looped, b"reading"));
    }
}
