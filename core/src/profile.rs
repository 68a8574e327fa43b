//! What a device must do: the policy record of docs/protocol.md 2. Both sides hold it; nothing of it is negotiated on
//! the air, and a frame that does not meet it is refused, never delivered as verified.

use core::fmt;
use core::str::FromStr;

use crate::error::SealError;
use crate::suite::{Alg, MicLen, sha256};
use crate::wire::cbor::{Element, Malformed, Reader, Writer};
pub use crate::wire::tiny::KidLength;

/// Which levels protect a reading on its way (docs/protocol.md 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// `e1`: nothing above the link. Insecure; only by the operator's explicit override, and always AR-01.
    DangerLinkOnly,
    /// `e1+e2+e3+e4`: sealed for the cloud, and again for the gateway, which authenticates and gives custody.
    ToBoth,
    /// `e1+e3+e4`: sealed for the cloud. The default.
    ToCloud,
    /// `e1+e2+e4`: sealed for the gateway, which reads it.
    ToGateway,
}

impl Profile {
    /// All four.
    pub const ALL: [Self; 4] = [Self::ToGateway, Self::ToCloud, Self::ToBoth, Self::DangerLinkOnly];

    /// The combination in words, e.g. `e1+e3+e4`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DangerLinkOnly => "e1",
            Self::ToBoth => "e1+e2+e3+e4",
            Self::ToCloud => "e1+e3+e4",
            Self::ToGateway => "e1+e2+e4",
        }
    }

    /// Whether the device seals for its gateway.
    pub const fn has_e2(self) -> bool {
        matches!(self, Self::ToBoth | Self::ToGateway)
    }

    /// Whether the device seals for the cloud.
    pub const fn has_e3(self) -> bool {
        matches!(self, Self::ToBoth | Self::ToCloud)
    }

    /// Bit n-1 stands for level En, as in item 1 of the record: 11, 13, 15, and 1 for the link alone.
    pub const fn levels(self) -> u8 {
        match self {
            Self::DangerLinkOnly => 0b0001,
            Self::ToGateway => 0b1011,
            Self::ToCloud => 0b1101,
            Self::ToBoth => 0b1111,
        }
    }

    /// The reverse of [`Profile::levels`].
    pub const fn from_levels(levels: u8) -> Option<Self> {
        match levels {
            0b0001 => Some(Self::DangerLinkOnly),
            0b1011 => Some(Self::ToGateway),
            0b1101 => Some(Self::ToCloud),
            0b1111 => Some(Self::ToBoth),
            _ => None,
        }
    }
}

/// Whether a device may trust its flash (docs/protocol.md 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// P: flash is trusted, sender numbers are leased durably.
    Persistent,
    /// R: no trusted writes; every boot draws a boot id.
    Random,
}

/// How a frame was protected on its link (docs/protocol.md 4.4); recorded with every reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkClass {
    /// Nothing. Needs the operator's override for the device.
    None,
    /// 802.15.4 CCM* (4.1).
    MacCcm,
    /// Payload-level E1 (4.2).
    E1s,
    /// LoRaWAN, OTAA, frame-counter checks on.
    Lorawan,
    /// A 3GPP network.
    ThreeGpp,
    /// The radio's own encryption without integrity: treated as no E1.
    XbeeEe,
}

impl LinkClass {
    /// All, in the order of their wire numbers 0 to 5.
    pub const ALL: [Self; 6] = [Self::None, Self::MacCcm, Self::E1s, Self::Lorawan, Self::ThreeGpp, Self::XbeeEe];

    /// Whether it counts as E1.
    pub const fn is_e1(self) -> bool {
        !matches!(self, Self::None | Self::XbeeEe)
    }

    /// Whether it is E1 of ours, under a key of the network.
    pub const fn has_network_key(self) -> bool {
        matches!(self, Self::MacCcm | Self::E1s)
    }

    /// Its number in item 9 of an envelope.
    pub const fn wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::MacCcm => 1,
            Self::E1s => 2,
            Self::Lorawan => 3,
            Self::ThreeGpp => 4,
            Self::XbeeEe => 5,
        }
    }

    /// The class of a wire number.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::MacCcm),
            2 => Some(Self::E1s),
            3 => Some(Self::Lorawan),
            4 => Some(Self::ThreeGpp),
            5 => Some(Self::XbeeEe),
            _ => None,
        }
    }

    /// As docs/protocol.md 4.4 writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MacCcm => "mac-ccm",
            Self::E1s => "e1s",
            Self::Lorawan => "lorawan",
            Self::ThreeGpp => "3gpp",
            Self::XbeeEe => "xbee-ee",
        }
    }
}

/// What carries the device's frames: decides E1 and what fits into one frame (docs/protocol.md 4.4 and 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Radio {
    /// 802.15.4 with ENC-MIC-64 (security level 6). The default.
    Ieee802154,
    /// 802.15.4 with ENC-MIC-32 (security level 5): only with E2 or E3.
    Ieee802154Mic32,
    /// XBee 802.15.4, E1S with MIC-64.
    Xbee,
    /// XBee DigiMesh, E1S with MIC-32: only with E2 or E3.
    Digimesh,
    /// XBee with the radio's own encryption alone: no E1.
    XbeeEe,
    /// LoRaWAN.
    Lorawan,
    /// A 3GPP network.
    Cellular,
    /// CoAP over UDP on an IP network of no known protection: no E1.
    Ip,
}

impl Radio {
    /// All, in the order of their wire numbers 1 to 8.
    pub const ALL: [Self; 8] = [
        Self::Ieee802154,
        Self::Ieee802154Mic32,
        Self::Xbee,
        Self::Digimesh,
        Self::XbeeEe,
        Self::Lorawan,
        Self::Cellular,
        Self::Ip,
    ];

    /// Its number in item 9 of the record.
    pub const fn wire(self) -> u8 {
        match self {
            Self::Ieee802154 => 1,
            Self::Ieee802154Mic32 => 2,
            Self::Xbee => 3,
            Self::Digimesh => 4,
            Self::XbeeEe => 5,
            Self::Lorawan => 6,
            Self::Cellular => 7,
            Self::Ip => 8,
        }
    }

    /// In words, as configuration and commands write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ieee802154 => "802.15.4",
            Self::Ieee802154Mic32 => "802.15.4-mic32",
            Self::Xbee => "xbee",
            Self::Digimesh => "digimesh",
            Self::XbeeEe => "xbee-ee",
            Self::Lorawan => "lorawan",
            Self::Cellular => "3gpp",
            Self::Ip => "ip",
        }
    }

    /// The class of E1 it provides.
    pub const fn link_class(self) -> LinkClass {
        match self {
            Self::Ieee802154 | Self::Ieee802154Mic32 => LinkClass::MacCcm,
            Self::Xbee | Self::Digimesh => LinkClass::E1s,
            Self::XbeeEe => LinkClass::XbeeEe,
            Self::Lorawan => LinkClass::Lorawan,
            Self::Cellular => LinkClass::ThreeGpp,
            Self::Ip => LinkClass::None,
        }
    }

    /// The integrity code of our own E1 on this radio; `None` where E1 is the radio's or missing.
    pub const fn mic(self) -> Option<MicLen> {
        match self {
            Self::Ieee802154 | Self::Xbee => Some(MicLen::M8),
            Self::Ieee802154Mic32 | Self::Digimesh => Some(MicLen::M4),
            _ => None,
        }
    }
}

macro_rules! words {
    ($type:ty, $expected:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.into_iter().find(|x| x.as_str() == text).ok_or(UnknownWord { expected: $expected })
            }
        }
    };
}
words!(Profile, "e1+e2+e4, e1+e3+e4, e1+e2+e3+e4, or e1 (insecure)");
words!(LinkClass, "none, mac-ccm, e1s, lorawan, 3gpp or xbee-ee");
words!(Radio, "802.15.4, 802.15.4-mic32, xbee, digimesh, xbee-ee, lorawan, 3gpp or ip");
words!(Mode, "P or R");

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Persistent, Self::Random];

    /// `P` or `R`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "P",
            Self::Random => "R",
        }
    }
}

/// A word that names nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was expected, as a phrase that fits after "expected".
    pub expected: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl core::error::Error for UnknownWord {}

/// Whether readings are signed (docs/protocol.md 13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sign {
    /// In batches.
    Batch,
    /// Not at all.
    None,
}

/// What the operator lets a device do that is not safe. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Overrides {
    /// E1 alone: no end-to-end protection at all (AR-01).
    pub danger_link_only: bool,
    /// A link of class `none` or `xbee-ee` below E2 or E3 (AR-02).
    pub danger_no_link: bool,
}

impl Overrides {
    /// No override.
    pub const NONE: Self = Self { danger_link_only: false, danger_no_link: false };

    /// Bit 0: link only; bit 1: no link.
    pub const fn bits(self) -> u8 {
        self.danger_link_only as u8 | (self.danger_no_link as u8) << 1
    }

    /// The reverse of [`Overrides::bits`].
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits > 0b11 {
            return None;
        }
        Some(Self { danger_link_only: bits & 1 != 0, danger_no_link: bits & 2 != 0 })
    }
}

/// The policy record of one device (docs/protocol.md 2).
///
/// As CBOR: `{1: levels, 2: alg, 3: mode (0 P, 1 R), 4: K, 5: ack_every, 6: sign (0 none, 1 batch), 7: N_batch,
/// 8: pq_mix, 9: radio, 10: T_renew in days}`, all ten always present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// Which levels a message must have.
    pub profile: Profile,
    /// AEAD of its OSCORE contexts.
    pub alg: Alg,
    /// Persistence.
    pub mode: Mode,
    /// K: where a tiny request says who sent it.
    pub kid_length: KidLength,
    /// An answer is wanted every so many messages; 1..=255.
    pub ack_every: u8,
    /// Whether readings are signed.
    pub sign: Sign,
    /// Readings per signed batch; 1..=64.
    pub batch: u8,
    /// Whether root_psk is mixed into what EDHOC gives.
    pub pq_mix: bool,
    /// What carries its frames.
    pub radio: Radio,
    /// T_renew in days; 1..=90.
    pub renew_days: u8,
}

impl Policy {
    /// Bytes of the record as CBOR, at most.
    pub const LONGEST: usize = 24;

    /// The record of a device that nothing special is said about: algorithm 11, mode P, K = 0, every message answered,
    /// unsigned, 802.15.4 with MIC-64, renewal after 30 days.
    pub const fn new(profile: Profile) -> Self {
        Self {
            profile,
            alg: Alg::AesCcm16_64_256,
            mode: Mode::Persistent,
            kid_length: KidLength::None,
            ack_every: 1,
            sign: Sign::None,
            batch: 32,
            pq_mix: true,
            radio: Radio::Ieee802154,
            renew_days: 30,
        }
    }

    /// Whether the record makes sense, and is allowed with what the operator overrode.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub const fn validate(&self, overrides: Overrides) -> Result<(), InvalidPolicy> {
        let end_to_end = self.profile.has_e2() || self.profile.has_e3();
        let refused = if !end_to_end && !overrides.danger_link_only {
            "E1 alone protects nothing beyond the radio: it needs the explicit override (danger_link_only)"
        } else if !end_to_end && !self.radio.link_class().is_e1() {
            "a device needs at least one level: E1 alone on a link without E1 is nothing"
        } else if !self.radio.link_class().is_e1() && !overrides.danger_no_link {
            "this radio gives no E1: it needs the explicit override (danger_no_link)"
        } else if !end_to_end && matches!(self.radio.mic(), Some(MicLen::M4)) {
            "MIC-32 is allowed only with E2 or E3"
        } else if !end_to_end && matches!(self.sign, Sign::Batch) {
            "a batch is signed over E2 or E3 messages: E1 alone has none"
        } else if self.ack_every == 0 {
            "ack_every is 1 to 255"
        } else if self.batch == 0 || self.batch > 64 {
            "N_batch is 1 to 64"
        } else if self.renew_days == 0 || self.renew_days > 90 {
            "T_renew is 1 to 90 days"
        } else {
            return Ok(());
        };
        Err(InvalidPolicy { reason: refused })
    }

    /// Whether a device with this record may agree its keys with its gateway alone ("C2 local", docs/protocol.md 11): its
    /// messages end there, and nothing is promised that a gateway, which has no root_psk, cannot do.
    pub const fn can_agree_locally(&self) -> bool {
        matches!((self.profile, self.mode), (Profile::ToGateway, Mode::Persistent)) && !self.pq_mix
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When `out` is too small; [`Policy::LONGEST`] bytes always suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        Element::emit(self, &mut w)?;
        Ok(w.len())
    }

    /// Reads a record, and nothing after it. It still needs [`Policy::validate`].
    ///
    /// # Errors
    /// When an item is missing, unknown or out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let policy = <Self as Element<'_>>::parse(&mut r)?;
        r.end()?;
        Ok(policy)
    }

    /// The first 8 bytes of SHA-256 over the record as CBOR followed by the CBOR array of `indexes`: what a device
    /// reports in item 7 of its control map (docs/protocol.md 7.1).
    pub fn digest8(&self, indexes: KeyIndexes) -> [u8; 8] {
        let mut bytes = [0; Self::LONGEST + KeyIndexes::LONGEST];
        let mut w = Writer::new(&mut bytes);
        // The buffer holds both at their longest.
        let written = Element::emit(self, &mut w).and_then(|()| Element::emit(&indexes, &mut w));
        debug_assert!(written.is_ok());
        let n = w.len();
        let mut first = [0; 8];
        let hash = sha256(&[bytes.get(..n).unwrap_or_default()]);
        first.iter_mut().zip(hash).for_each(|(f, h)| *f = h);
        first
    }
}

impl Element<'_> for Policy {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        const UNKNOWN: Malformed = Malformed::new("policy record: a value is unknown");
        if r.map()? != 10 {
            return Err(Malformed::new("policy record: ten items are needed"));
        }
        let mut item = |n: u64| -> Result<u8, Malformed> {
            if r.unsigned()? != n {
                return Err(Malformed::new("policy record: items 1 to 10 in order are needed"));
            }
            if n == 8 { r.bool().map(u8::from) } else { r.uint() }
        };
        Ok(Self {
            profile: Profile::from_levels(item(1)?).ok_or(UNKNOWN)?,
            alg: Alg::from_cose(item(2)?).ok_or(UNKNOWN)?,
            mode: match item(3)? {
                0 => Mode::Persistent,
                1 => Mode::Random,
                _ => return Err(UNKNOWN),
            },
            kid_length: match item(4)? {
                0 => KidLength::None,
                2 => KidLength::Two,
                _ => return Err(UNKNOWN),
            },
            ack_every: item(5)?,
            sign: match item(6)? {
                0 => Sign::None,
                1 => Sign::Batch,
                _ => return Err(UNKNOWN),
            },
            batch: item(7)?,
            pq_mix: item(8)? != 0,
            radio: {
                let number = item(9)?;
                Radio::ALL.into_iter().find(|r| r.wire() == number).ok_or(UNKNOWN)?
            },
            renew_days: item(10)?,
        })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.map(10)?;
        let mut item = |n: u8, value: u8| {
            w.unsigned(n)?;
            if n == 8 { w.bool(value != 0) } else { w.unsigned(value) }
        };
        item(1, self.profile.levels())?;
        item(2, self.alg.cose())?;
        item(3, u8::from(self.mode == Mode::Random))?;
        item(4, if self.kid_length == KidLength::Two { 2 } else { 0 })?;
        item(5, self.ack_every)?;
        item(6, u8::from(self.sign == Sign::Batch))?;
        item(7, self.batch)?;
        item(8, u8::from(self.pq_mix))?;
        item(9, self.radio.wire())?;
        item(10, self.renew_days)
    }
}

/// A policy record that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPolicy {
    /// The rule that it breaks, as a sentence.
    pub reason: &'static str,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl core::error::Error for InvalidPolicy {}

/// The E1 key indexes that a node uses (item 5 of docs/protocol.md 7.1): `[idx_tx, idx_rx_only or null]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIndexes {
    /// The index that it sends under, 1..=254.
    pub sending: u8,
    /// A second index that it takes frames under, if it has one.
    pub receiving: Option<u8>,
}

impl KeyIndexes {
    /// Bytes as CBOR, at most.
    pub const LONGEST: usize = 5;
}

impl Element<'_> for KeyIndexes {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        let sending = key_index(r)?;
        let receiving = if r.null() { None } else { Some(key_index(r)?) };
        Ok(Self { sending, receiving })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.unsigned(self.sending)?;
        match self.receiving {
            Some(index) => w.unsigned(index),
            None => w.null(),
        }
    }
}

/// An E1 key index, 1 to 254.
pub(crate) fn key_index(r: &mut Reader<'_>) -> Result<u8, Malformed> {
    match r.uint()? {
        index @ 1..=254 => Ok(index),
        _ => Err(Malformed::new("a key index is 1 to 254")),
    }
}
