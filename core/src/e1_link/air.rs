//! What carries E1: 802.15.4 frames, or E1S messages in the payload of a radio that has frames of its own.

use crate::id::Did;

/// What carries a station's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Air {
    /// Both, at a gateway: a neighbour is reached by the one that the registry says
    /// ([`Neighbours::air`](super::Neighbours::air)), by 802.15.4 where it says none.
    Both {
        /// Bytes of an E1S message, at most.
        longest: u8,
    },
    /// E1S messages (docs/protocol.md 4.2).
    E1s {
        /// Bytes of one, at most.
        longest: u8,
    },
    /// 802.15.4 frames (docs/protocol.md 4.1).
    Ieee802154,
}

impl Air {
    /// Bytes of an E1S message, at most, if one is sent to a neighbour of which the registry says `registered`.
    pub(super) const fn for_one(self, registered: Option<Self>) -> Option<u8> {
        match (self, registered) {
            (Self::E1s { longest }, _) | (Self::Both { longest }, Some(Self::E1s { .. })) => Some(longest),
            (Self::Ieee802154 | Self::Both { .. }, _) => None,
        }
    }

    /// Bytes of an E1S message, at most; without such an air it is the caller's to know.
    pub(super) const fn longest_message(self) -> usize {
        match self {
            Self::Both { longest } | Self::E1s { longest } => longest as usize,
            Self::Ieee802154 => u16::MAX as usize,
        }
    }
}

/// By which air a frame goes, and with which address there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// An E1S message. It has no address in it: the radio is told.
    E1s {
        /// The EUI-64 that the radio sends it to; to everybody in reach where it is not known.
        to: Option<Did>,
    },
    /// An 802.15.4 frame: its addresses stand in its header.
    Ieee802154,
}

/// To whom a radio said that a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To everybody in reach.
    Everybody,
    /// To this station alone.
    Us,
}
