//! The five levels as types: what is sealed under one cannot be opened under another.
//!
//! [`E1`](crate::e1_link::E1), [`E2`](crate::e2_gateway::E2) and [`E3`](crate::e3_cloud::E3) are empty enums, each
//! defined in its own room. The trait is sealed: there is no sixth level.

use crate::error::Code;

pub(crate) mod sealed {
    /// Closes [`Level`](super::Level): only the rooms of this crate implement it.
    pub trait Sealed {}
}

/// A level that has keys of its own.
pub trait Level: sealed::Sealed + Sized + 'static {
    /// Four bytes that name the level in logs and files. No two are equal.
    const LABEL: &'static [u8; 4];
}

/// A level that seals with OSCORE (RFC 8613), with its codes of docs/protocol.md 14.
pub trait OscoreLevel: Level {
    /// Nobody here has this kid.
    const UNKNOWN_KID: Code;
    /// The device is known, this epoch or boot id is not.
    const NO_CONTEXT: Code;
    /// The tag does not hold.
    const FORGED: Code;
    /// Seen before, and too old to say more.
    const REPLAYED: Code;
    /// The same message again.
    const DUP: Code;
    /// Another message under the same number.
    const NONCE_REUSE: Code;
    /// It opened, and what is inside is not what the rules allow.
    const INNER: Code;
    /// The device's record requires a level that is not there.
    const LEVEL_MISSING: Code;
    /// A number, rate or failure limit is reached.
    const LIMIT: Code;
    /// Whether a whole message of another level may stand inside (C2 over C3, docs/protocol.md 5).
    const MAY_NEST: bool;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2_gateway::E2;
    use crate::e3_cloud::E3;

    #[test]
    fn labels_of_levels_differ() {
        assert_ne!(E2::LABEL, E3::LABEL);
    }
}
