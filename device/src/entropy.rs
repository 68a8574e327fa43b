//! Randomness of one boot, and the test that it must pass (docs/protocol.md 8.3).

use fivefold_core::id::BootContext;
use fivefold_core::suite::sha256;
use zeroize::Zeroize;

/// Random bytes that a boot needs.
pub const ENTROPY: usize = 64;

/// Randomness that passed the health test. Wiped when dropped.
pub struct Entropy([u8; ENTROPY]);

/// The generator is broken: nothing may be transmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// All bytes are equal.
    AllEqual,
    /// Eight bytes of it come twice, or all of it is what the last boot had.
    Repeated,
}

impl core::fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::AllEqual => "the random generator gives one byte again and again",
            Self::Repeated => "the random generator repeats itself",
        })
    }
}

impl Entropy {
    /// Tests the output of a true random generator.
    ///
    /// # Errors
    /// [`Unhealthy`].
    pub fn check(bytes: [u8; ENTROPY]) -> Result<Self, Unhealthy> {
        let first = bytes.first().copied().unwrap_or_default();
        if bytes.iter().all(|&b| b == first) {
            return Err(Unhealthy::AllEqual);
        }
        let (blocks, _) = bytes.as_chunks::<8>();
        let repeats = blocks.iter().enumerate().any(|(n, block)| blocks.iter().skip(n + 1).any(|b| b == block));
        if repeats { Err(Unhealthy::Repeated) } else { Ok(Self(bytes)) }
    }

    /// Four bytes that tell this boot's randomness from the last one's.
    pub(crate) fn mark(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[b"entropy", &self.0]);
        [a, b, c, d]
    }

    /// Seed of HELLO nonces and jitter.
    pub(crate) fn link_seed(&self) -> [u8; 32] {
        sha256(&[b"link", &self.0])
    }

    /// Seed of the randomness that renewal draws.
    pub(crate) fn renewal_seed(&self) -> [u8; 32] {
        sha256(&[b"renewal", &self.0])
    }

    /// The boot id of mode R: eight bytes of the generator as they are.
    pub(crate) fn boot_context(&self) -> BootContext {
        BootContext(self.0.first_chunk().copied().unwrap_or_default())
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_or_repeating_generator_is_unhealthy() {
        assert_eq!(Entropy::check([7; ENTROPY]).err(), Some(Unhealthy::AllEqual));
        let mut bytes: [u8; ENTROPY] = core::array::from_fn(|n| n as u8);
        assert!(Entropy::check(bytes).is_ok());
        bytes.copy_within(0..8, 40);
        assert_eq!(Entropy::check(bytes).err(), Some(Unhealthy::Repeated));
    }
}
