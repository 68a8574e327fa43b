//! Randomness for ephemeral keys, out of that of a start.

use zeroize::{Zeroize, Zeroizing};

use crate::suite::agreement::Agree;
use crate::suite::sha256;

/// Draws ephemeral keys and the like out of 32 random bytes. It is never run backwards: who reads the memory later learns no
/// key of earlier.
pub struct Draw([u8; 32]);

impl Draw {
    /// From 32 random bytes, drawn at this start and used for nothing else.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> Zeroizing<[u8; 32]> {
        let drawn = Zeroizing::new(sha256(&[b"draw", &self.0]));
        let next = Zeroizing::new(sha256(&[b"next", &self.0]));
        self.0 = *next;
        drawn
    }

    /// A key; `None` when four draws in a row gave none, which is what a broken generator does.
    pub fn key<A: Agree>(&mut self) -> Option<A> {
        // One in 2^32 draws is no key.
        (0..4).find_map(|_| A::from_random(&self.bytes()))
    }
}

impl Drop for Draw {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for Draw {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Draw(..)")
    }
}
