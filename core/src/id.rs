//! Identifiers of docs/protocol.md 1. Each has one size, one byte order (big-endian) and one text form (lower-case hex).

use core::fmt;
use core::str::FromStr;

/// A text that is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId {
    /// What was expected, as a phrase that fits after "expected".
    pub expected: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl core::error::Error for InvalidId {}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

/// Exactly `N` bytes of hex; colons and dashes between bytes are skipped (EUI-64s are often printed with them).
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0u8; N];
    let mut digits = text.bytes().filter(|c| !matches!(c, b':' | b'-'));
    for byte in &mut out {
        *byte = nibble(digits.next()?)? << 4 | nibble(digits.next()?)?;
    }
    digits.next().is_none().then_some(out)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $n:literal, $expected:literal, $to:expr, $from:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = $n;

            /// The bytes as they stand in CBOR and in OSCORE: big-endian.
            pub fn to_bytes(self) -> [u8; $n] {
                let to: fn($inner) -> [u8; $n] = $to;
                to(self.0)
            }

            /// From big-endian bytes.
            pub fn from_bytes(bytes: [u8; $n]) -> Self {
                let from: fn([u8; $n]) -> $inner = $from;
                Self(from(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_hex::<$n>(text).map(Self::from_bytes).ok_or(InvalidId { expected: $expected })
            }
        }
    };
}

identifier!(
    /// Permanent device identifier: an EUI-64, in written order.
    Did, [u8; 8], 8, "an EUI-64: 16 hex digits", |v| v, |b| b
);
identifier!(
    /// Short identifier, unique in its network: 802.15.4 short address and OSCORE Sender ID of the device.
    Sid, u16, 2, "a short id: 4 hex digits", u16::to_be_bytes, u16::from_be_bytes
);
identifier!(
    /// Network identifier, bound to the gateway certificates of that network.
    Net, u32, 4, "a network id: 8 hex digits", u32::to_be_bytes, u32::from_be_bytes
);
identifier!(
    /// Gateway group: the gateways that share the C2 contexts of their devices.
    GatewayGroup, u32, 4, "a gateway group id: 8 hex digits", u32::to_be_bytes, u32::from_be_bytes
);
identifier!(
    /// A gateway, as named in its certificate.
    GatewayId, u32, 4, "a gateway id: 8 hex digits", u32::to_be_bytes, u32::from_be_bytes
);
identifier!(
    /// Random boot id of a device in mode R; used as OSCORE ID Context.
    BootContext, [u8; 8], 8, "a boot id: 16 hex digits", |v| v, |b| b
);

identifier!(
    /// Serial number of a hardened classic device (docs/protocol.md 12).
    Serial, [u8; 8], 8, "a serial number: 16 hex digits", |v| v, |b| b
);
identifier!(
    /// Which key of a server an RSA key message is for: the first four bytes of SHA-256 of its SubjectPublicKeyInfo
    /// (docs/protocol.md 12).
    ServerKid, [u8; 4], 4, "a server key id: 8 hex digits", |v| v, |b| b
);

impl Sid {
    /// As a destination: any gateway of the network (docs/protocol.md 4.1).
    pub const ANY_GATEWAY: Self = Self(0x0000);
    /// As a destination: every neighbour.
    pub const BROADCAST: Self = Self(0xFFFF);

    /// Whether a device may bear it: not 0000, FFFE, FFFF, nor E200..E2FF, which would equal a C2 peer id.
    pub const fn is_assignable(self) -> bool {
        !matches!(self.0, 0x0000 | 0xFFFE | 0xFFFF | 0xE200..=0xE2FF)
    }
}

/// Key generation of a device: 0 is the bootstrap (mode R), 1 the first installed or agreed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u16);

impl Epoch {
    /// Minimal-length big-endian bytes, the OSCORE Sender ID of the peer; one byte 00 for epoch 0.
    pub fn with_bytes<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        let [high, low] = self.0.to_be_bytes();
        if high == 0 { f(&[low]) } else { f(&[high, low]) }
    }

    /// Whether a device with this short id must skip the epoch, because both ends would bear the same OSCORE id.
    pub fn collides_with(self, sid: Sid) -> bool {
        self.0 > 0xFF && self.0 == sid.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_identifier_prints_what_it_parses() {
        let did: Did = "AC:DE:48:00:00:00:00:01".parse().unwrap();
        assert_eq!(did.to_string(), "acde480000000001");
        assert_eq!("0a17".parse::<Sid>().unwrap(), Sid(0x0a17));
        assert_eq!(Net(7).to_string(), "00000007");
    }

    #[test]
    fn a_wrong_length_or_digit_is_refused() {
        for text in ["", "0a1", "0a170", "0a1g", "0a17 "] {
            assert!(text.parse::<Sid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn reserved_short_ids_are_not_assignable() {
        for sid in [0x0000, 0xFFFE, 0xFFFF, 0xE200, 0xE2FF] {
            assert!(!Sid(sid).is_assignable());
        }
        assert!(Sid(0x0001).is_assignable() && Sid(0xE300).is_assignable());
    }

    #[test]
    fn an_epoch_has_minimal_bytes() {
        Epoch(0).with_bytes(|b| assert_eq!(b, [0]));
        Epoch(5).with_bytes(|b| assert_eq!(b, [5]));
        Epoch(0x0200).with_bytes(|b| assert_eq!(b, [2, 0]));
        assert!(Epoch(0x0a17).collides_with(Sid(0x0a17)));
        assert!(!Epoch(0x17).collides_with(Sid(0x17)));
    }
}
