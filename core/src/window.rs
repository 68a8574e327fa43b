//! The sliding window of a gateway's C2 context: the last 64 numbers (docs/protocol.md 8.1). Pure bits; the 16-byte hash of
//! each accepted number, which tells a repeat from nonce reuse, is the gateway's store's.

/// What a window says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Not seen.
    Fresh,
    /// Below the window: nothing can be said any more.
    Old,
    /// Marked before.
    Repeat,
}

/// The highest number that was marked, and which of the 63 below it were. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window64 {
    /// Bit j: `highest - j` was marked. 0 only while nothing was.
    bits: u64,
    highest: u64,
}

impl Window64 {
    /// Numbers that it remembers.
    pub const SIZE: u64 = 64;

    /// With nothing marked.
    pub const fn new() -> Self {
        Self { bits: 0, highest: 0 }
    }

    /// As it was stored ([`to_parts`](Self::to_parts)).
    pub const fn from_parts(highest: u64, bits: u64) -> Self {
        Self { bits, highest }
    }

    /// The highest number and the bits, to be stored.
    pub const fn to_parts(self) -> (u64, u64) {
        (self.highest, self.bits)
    }

    /// The highest number that was marked.
    pub const fn highest(self) -> Option<u64> {
        if self.bits == 0 { None } else { Some(self.highest) }
    }

    /// What it says of `number`. It changes nothing: a number is marked when its message was opened and is durable.
    pub const fn check(self, number: u64) -> Verdict {
        if self.bits == 0 || number > self.highest {
            return Verdict::Fresh;
        }
        let back = self.highest - number;
        if back >= Self::SIZE {
            Verdict::Old
        } else if self.bits >> back & 1 == 1 {
            Verdict::Repeat
        } else {
            Verdict::Fresh
        }
    }

    /// Marks a number that was `Fresh`. An old one changes nothing.
    pub const fn mark(&mut self, number: u64) {
        if self.bits == 0 {
            self.highest = number;
            self.bits = 1;
        } else if number > self.highest {
            let ahead = number - self.highest;
            self.bits = if ahead >= Self::SIZE { 1 } else { self.bits << ahead | 1 };
            self.highest = number;
        } else if self.highest - number < Self::SIZE {
            self.bits |= 1 << (self.highest - number);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_new_window_takes_any_number_once() {
        for n in [0, 1, 63, 64, 1 << 20, u64::MAX] {
            let mut w = Window64::new();
            assert_eq!((w.check(n), w.highest()), (Verdict::Fresh, None));
            w.mark(n);
            assert_eq!((w.check(n), w.highest()), (Verdict::Repeat, Some(n)));
        }
    }

    #[test]
    fn the_sixty_fourth_number_back_is_still_known_and_the_next_is_old() {
        let mut w = Window64::new();
        w.mark(100);
        assert_eq!(w.check(37), Verdict::Fresh);
        assert_eq!(w.check(36), Verdict::Old);
        w.mark(37);
        assert_eq!(w.check(37), Verdict::Repeat);
        w.mark(36);
        assert_eq!(w.check(36), Verdict::Old);
    }

    #[test]
    fn a_stored_window_knows_what_it_knew() {
        let mut w = Window64::new();
        w.mark(7);
        w.mark(5);
        let (highest, bits) = w.to_parts();
        assert_eq!(Window64::from_parts(highest, bits), w);
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(numbers in proptest::collection::vec(0u64..200, 1..200)) {
            let mut w = Window64::new();
            let mut set = BTreeSet::new();
            for n in numbers {
                let highest = set.last().copied();
                let expected = match highest {
                    Some(h) if n + 64 <= h => Verdict::Old,
                    _ if set.contains(&n) => Verdict::Repeat,
                    _ => Verdict::Fresh,
                };
                prop_assert_eq!(w.check(n), expected);
                if expected == Verdict::Fresh {
                    w.mark(n);
                    set.insert(n);
                }
            }
        }
    }
}
