//! Kinds of XBee modules, and how much each sends at once (W10).

use std::fmt;

/// A kind of module: what it speaks on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// XBee 868.
    Eu868,
    /// XBee 868LP.
    Eu868lp,
    /// XBee 900.
    Us900,
    /// XBee-PRO 900HP.
    Us900hp,
    /// XBee DigiMesh 2.4.
    Digimesh,
    /// XBee 802.15.4.
    Ieee802154,
    /// XBee ZigBee.
    Zigbee,
}

/// Whether the modules encrypt among themselves (EE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// They do not.
    Off,
    /// By one key of the network.
    On,
}

/// How a payload is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// To everybody.
    Broadcast,
    /// By a 16-bit address.
    Short,
    /// By a 64-bit address.
    Long,
}

impl Kind {
    /// All, in the order of their words.
    pub const ALL: [Self; 7] =
        [Self::Ieee802154, Self::Eu868, Self::Eu868lp, Self::Us900, Self::Us900hp, Self::Digimesh, Self::Zigbee];

    /// Its word in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eu868 => "868",
            Self::Eu868lp => "868lp",
            Self::Us900 => "900",
            Self::Us900hp => "900hp",
            Self::Digimesh => "digimesh",
            Self::Ieee802154 => "802.15.4",
            Self::Zigbee => "zigbee",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Bytes of a payload, at most (W10, the left three columns of its table).
    pub const fn longest(self, addressing: Addressing, encryption: Encryption) -> usize {
        match (self, encryption, addressing) {
            (Self::Ieee802154, Encryption::On, Addressing::Long) => 94,
            (Self::Ieee802154, Encryption::On, Addressing::Broadcast) => 95,
            (Self::Ieee802154, Encryption::On, Addressing::Short) => 98,
            (Self::Ieee802154 | Self::Eu868, ..) | (Self::Us900, Encryption::Off, _) => 100,
            (Self::Us900, Encryption::On, _) => 80,
            (Self::Zigbee, Encryption::Off, Addressing::Broadcast) => 92,
            (Self::Zigbee, Encryption::On, Addressing::Broadcast) => 84,
            (Self::Zigbee, Encryption::Off, _) => 74,
            (Self::Zigbee, Encryption::On, _) => 66,
            (Self::Digimesh, ..) => 73,
            (Self::Eu868lp | Self::Us900hp, ..) => 255,
        }
    }

    /// Bytes of an E1S message, at most: to one station or to all, and never more than a frame of ours.
    pub fn longest_message(self, encryption: Encryption) -> u8 {
        let least = self.longest(Addressing::Long, encryption).min(self.longest(Addressing::Broadcast, encryption));
        u8::try_from(least.min(fivefold_core::wire::ieee802154::MAX_FRAME)).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
