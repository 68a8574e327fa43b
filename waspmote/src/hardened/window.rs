//! Which numbers were seen.

/// What a [`Window`] says of a number that is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// So far below the highest that nothing can be said any more.
    Old,
    /// Marked before.
    Repeat,
}

/// A number that is new. Made by [`Window::check`], used up by [`Window::mark`].
#[derive(Debug, PartialEq, Eq)]
pub struct Fresh(u32);

/// The highest sequence that was marked under a key, and which of the 63 below it were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Bit j: `highest - j` was marked. 0 only while nothing was.
    bits: u64,
    highest: u32,
}

impl Window {
    /// Numbers that it remembers.
    pub const SIZE: u32 = 64;
    /// Bytes of a stored one.
    pub const BYTES: usize = 12;

    /// With nothing marked: of a key that is new.
    pub const fn new() -> Self {
        Self { bits: 0, highest: 0 }
    }

    /// As it was stored. `None` for what [`to_bytes`](Self::to_bytes) never writes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let &[h1, h2, h3, h4, ref bits @ ..] = bytes;
        let window = Self { bits: u64::from_be_bytes(*bits), highest: u32::from_be_bytes([h1, h2, h3, h4]) };
        let whole = if window.bits == 0 {
            window.highest == 0
        } else {
            // The highest is marked, and nothing below 0 is.
            let below = u64::MAX.checked_shl(window.highest.saturating_add(1)).unwrap_or(0);
            window.bits & 1 == 1 && window.bits & below == 0
        };
        whole.then_some(window)
    }

    /// To be stored before the frame counts as taken, and before it is answered.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let [h1, h2, h3, h4] = self.highest.to_be_bytes();
        let [b1, b2, b3, b4, b5, b6, b7, b8] = self.bits.to_be_bytes();
        [h1, h2, h3, h4, b1, b2, b3, b4, b5, b6, b7, b8]
    }

    /// The highest number that was marked.
    pub const fn highest(&self) -> Option<u32> {
        if self.bits == 0 { None } else { Some(self.highest) }
    }

    /// What it says of a number. It changes nothing.
    ///
    /// # Errors
    /// [`Verdict`].
    pub const fn check(&self, sequence: u32) -> Result<Fresh, Verdict> {
        if self.bits == 0 || sequence > self.highest {
            return Ok(Fresh(sequence));
        }
        let back = self.highest - sequence;
        if back >= Self::SIZE {
            Err(Verdict::Old)
        } else if self.bits >> back & 1 == 1 {
            Err(Verdict::Repeat)
        } else {
            Ok(Fresh(sequence))
        }
    }

    /// Marks a number, when its frame was opened.
    pub const fn mark(&mut self, fresh: Fresh) {
        let Fresh(sequence) = fresh;
        if self.bits == 0 {
            *self = Self { bits: 1, highest: sequence };
        } else if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.bits = if ahead >= Self::SIZE { 1 } else { self.bits << ahead | 1 };
            self.highest = sequence;
        } else if self.highest - sequence < Self::SIZE {
            self.bits |= 1 << (self.highest - sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn a_window_forgets_what_is_64_back_and_refuses_it() {
        let mut window = Window::new();
        assert_eq!(window.highest(), None);
        for sequence in [0, 63] {
            window.mark(window.check(sequence).unwrap());
        }
        assert_eq!((window.check(0), window.check(63)), (Err(Verdict::Repeat), Err(Verdict::Repeat)));
        assert_eq!(window.check(1), Ok(Fresh(1)));
        window.mark(window.check(64).unwrap());
        assert_eq!((window.check(0), window.check(1)), (Err(Verdict::Old), Ok(Fresh(1))));
        window.mark(window.check(u32::MAX).unwrap());
        assert_eq!((window.check(64), window.highest()), (Err(Verdict::Old), Some(u32::MAX)));
    }

    #[test]
    fn what_was_never_stored_is_no_window() {
        let stored = |highest: u32, bits: u64| {
            let mut bytes = [0; Window::BYTES];
            bytes[..4].copy_from_slice(&highest.to_be_bytes());
            bytes[4..].copy_from_slice(&bits.to_be_bytes());
            Window::from_bytes(&bytes)
        };
        assert_eq!(stored(0, 0), Some(Window::new()));
        assert!(stored(7, 0).is_none() && stored(7, 2).is_none() && stored(1, 0b101).is_none());
        assert!(stored(2, 0b101).is_some() && stored(63, u64::MAX).is_some() && stored(62, u64::MAX).is_none());
    }

    proptest! {
        #[test]
        fn no_number_is_taken_twice_and_a_stored_window_is_the_same(sequences in proptest::collection::vec(0_u32..200, 0..200)) {
            let (mut window, mut taken) = (Window::new(), BTreeSet::new());
            for sequence in sequences {
                let fresh = window.check(sequence);
                let highest = taken.last().copied();
                match fresh {
                    Ok(fresh) => {
                        window.mark(fresh);
                        prop_assert!(taken.insert(sequence));
                    }
                    Err(Verdict::Repeat) => prop_assert!(taken.contains(&sequence)),
                    Err(Verdict::Old) => prop_assert!(highest.unwrap() - sequence >= Window::SIZE),
                }
                prop_assert_eq!(Window::from_bytes(&window.to_bytes()), Some(window));
            }
        }
    }
}
