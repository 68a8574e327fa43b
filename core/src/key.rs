//! Keys that know their level, are wiped when dropped, and cannot be copied, compared or printed.

use core::fmt;
use core::marker::PhantomData;

use zeroize::Zeroize;

use crate::level::Level;

/// A secret of `N` bytes that belongs to level `L`.
///
/// It is neither `Clone` nor `PartialEq`, and prints as `Key(..)`.
///
/// A key of one level is no key of another:
/// ```
/// use fivefold_core::{e2_gateway::E2, key::Key};
/// fn open_at_gateway(_: &Key<E2, 16>) {}
/// open_at_gateway(&Key::<E2, 16>::new([7; 16]));
/// ```
/// ```compile_fail,E0308
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3, key::Key};
/// fn open_at_gateway(_: &Key<E2, 16>) {}
/// open_at_gateway(&Key::<E3, 16>::new([7; 16]));
/// ```
pub struct Key<L: Level, const N: usize> {
    bytes: [u8; N],
    level: PhantomData<fn() -> L>,
}

impl<L: Level, const N: usize> Key<L, N> {
    /// Takes the bytes over. The caller wipes its own copy, if one is left.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self { bytes, level: PhantomData }
    }

    /// The bytes, for the ciphers of this crate.
    pub(crate) const fn expose(&self) -> &[u8; N] {
        &self.bytes
    }

    /// The bytes, for those who must store or send them wrapped. Whoever holds them can undo what the level promises.
    pub const fn danger_bytes(&self) -> &[u8; N] {
        &self.bytes
    }
}

impl<L: Level, const N: usize> Drop for Key<L, N> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl<L: Level, const N: usize> fmt::Debug for Key<L, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::e3_cloud::E3;

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(std::format!("{:?}", Key::<E3, 4>::new([0x41; 4])), "Key(..)");
    }

    #[test]
    fn a_key_gives_its_bytes_to_the_ciphers_of_this_crate() {
        assert_eq!(Key::<E3, 2>::new([1, 2]).expose(), &[1, 2]);
    }
}
