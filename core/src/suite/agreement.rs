//! Key agreement on P-256 (COSE curve 1), by x coordinates alone (RFC 9528 3.7): the trait behind which the curve lies.
//!
//! `p256` in this crate implements it for devices, aws-lc-rs in `keep` for daemons, a secure element where there is one.

use core::fmt;
use core::str::FromStr;

use zeroize::Zeroize;

use crate::id::{InvalidId, parse_hex};

/// A private P-256 key for key agreement. Whoever implements it wipes the key when it is dropped, and neither clones nor
/// prints it.
pub trait Agree: Sized {
    /// From 32 random bytes, or from the scalar that was stored. `None` for 0 and for the order of the curve or more: draw
    /// again.
    fn from_random(random: &[u8; 32]) -> Option<Self>;

    /// The public key. May cost a multiplication each time.
    fn public_x(&self) -> PublicX;

    /// The shared secret with whoever has `peer`.
    ///
    /// # Errors
    /// [`PointRefused`] when `peer` is the x coordinate of no point of the curve.
    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused>;

    /// Does nothing. A type without values says here that there is no key: what begins with this is then no part of a
    /// program whose keys are of that type.
    fn exists(&self) {}
}

/// A public P-256 key: the x coordinate, big-endian. Either point that has it gives the same shared secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicX(pub [u8; 32]);

impl fmt::Display for PublicX {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PublicX {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicX({self})")
    }
}

impl FromStr for PublicX {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_hex(text).map(Self).ok_or(InvalidId { expected: "the x coordinate of a P-256 key: 64 hex digits" })
    }
}

/// What two keys agree on: the x coordinate of the shared point. Wiped, neither printed nor cloned; good for one derivation.
pub struct SharedX([u8; 32]);

impl SharedX {
    /// Takes the bytes over. The caller wipes its own copy, if one is left.
    pub const fn new(x: [u8; 32]) -> Self {
        Self(x)
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes, for tests against published values.
    pub const fn danger_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for SharedX {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SharedX {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedX(..)")
    }
}

/// An x coordinate that no point of the curve has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointRefused;

impl fmt::Display for PointRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a point of the curve")
    }
}

impl core::error::Error for PointRefused {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_public_key_prints_what_it_parses_and_a_shared_secret_prints_nothing() {
        let text = "65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d";
        assert_eq!(text.parse::<PublicX>().unwrap().to_string(), text);
        assert!("65".parse::<PublicX>().is_err());
        assert_eq!(std::format!("{:?}", SharedX::new([0x41; 32])), "SharedX(..)");
    }
}
