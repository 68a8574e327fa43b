//! What stands in a frame of the serial API: packets by their type, read and written.

use super::{LONGEST, Mode, Refused, frame};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The 64-bit address of a module, as printed on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address64(pub [u8; 8]);

impl Address64 {
    /// All modules of the network.
    pub const BROADCAST: Self = Self([0, 0, 0, 0, 0, 0, 0xFF, 0xFF]);
    /// The coordinator of a ZigBee network.
    pub const COORDINATOR: Self = Self([0; 8]);
}

impl fmt::Display for Address64 {
    /// 16 lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Address64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address64 {
    type Err = Refused;

    /// Reads 16 hex digits of either case.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let found = text.len();
        // A sign would be taken by `from_str_radix`.
        if found != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refused::Short { wanted: 16, found });
        }
        u64::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| Refused::Short { wanted: 16, found })
    }
}

/// The 16-bit address of a module in its network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address16(pub [u8; 2]);

impl Address16 {
    /// Not known, or none: the 64-bit address counts.
    pub const UNKNOWN: Self = Self([0xFF, 0xFE]);
}

impl fmt::Debug for Address16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, low] = self.0;
        write!(f, "{high:02x}{low:02x}")
    }
}

/// The two letters of a setting: KY, EE, AP.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct At(pub [u8; 2]);

impl At {
    /// AP: frames with or without escaping.
    pub const API_MODE: Self = Self(*b"AP");
    /// EE: link encryption on or off.
    pub const ENCRYPTION: Self = Self(*b"EE");
    /// KY: the link key; write only.
    pub const LINK_KEY: Self = Self(*b"KY");
    /// MY: the module's own 16-bit address.
    pub const ADDRESS_16: Self = Self(*b"MY");
    /// SH: upper half of the module's own 64-bit address.
    pub const SERIAL_HIGH: Self = Self(*b"SH");
    /// SL: lower half of the module's own 64-bit address.
    pub const SERIAL_LOW: Self = Self(*b"SL");
    /// WR: keep the settings over a loss of power.
    pub const WRITE: Self = Self(*b"WR");
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A packet. Lengths of addresses and the like are those of its type; `payload` and `value` reach to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packet<'b> {
    /// 0x08: sets a setting of the own module, or asks for it when there is no value.
    AtCommand {
        /// Comes back in the answer; 0: no answer is wanted.
        id: u8,
        /// Which.
        at: At,
        /// The new value.
        value: &'b [u8],
    },
    /// 0x09: the same, in effect only with the next 0x08 or AC.
    AtQueued {
        /// As in [`Packet::AtCommand`].
        id: u8,
        /// Which.
        at: At,
        /// The new value.
        value: &'b [u8],
    },
    /// 0x88: the answer to a command.
    AtResponse {
        /// Of the command.
        id: u8,
        /// Of the command.
        at: At,
        /// 0: done. 1: error, 2: no such command, 3: no such value.
        status: u8,
        /// What was asked for.
        value: &'b [u8],
    },
    /// 0x11: to another module, with ZigBee's application addresses.
    Explicit {
        /// Comes back in the status; 0: no status is wanted.
        id: u8,
        /// Whereto.
        destination: Address64,
        /// Whereto, if it is known.
        network: Address16,
        /// Source endpoint, destination endpoint.
        endpoints: [u8; 2],
        /// Cluster.
        cluster: u16,
        /// Profile.
        profile: u16,
        /// Hops of a broadcast; 0: as many as there can be.
        radius: u8,
        /// Bits of the module's manual.
        options: u8,
        /// At most 255 bytes, fewer on most radios.
        payload: &'b [u8],
    },
    /// 0x91: from another module, with ZigBee's application addresses.
    ExplicitReceive {
        /// Wherefrom.
        source: Address64,
        /// Wherefrom.
        network: Address16,
        /// Source endpoint, destination endpoint.
        endpoints: [u8; 2],
        /// Cluster.
        cluster: u16,
        /// Profile.
        profile: u16,
        /// Bits of the module's manual.
        options: u8,
        /// What was sent.
        payload: &'b [u8],
    },
    /// 0x8A: the module started, joined, lost its network, and so on.
    ModemStatus {
        /// 0: power came back. 1: watchdog. 6: coordinator started.
        status: u8,
    },
    /// 0x90: from another module (868LP, 900HP, DigiMesh, ZigBee).
    Receive {
        /// Wherefrom.
        source: Address64,
        /// Wherefrom.
        network: Address16,
        /// Bits of the module's manual.
        options: u8,
        /// What was sent.
        payload: &'b [u8],
    },
    /// 0x81: from another 802.15.4 module that has a 16-bit address.
    Receive16 {
        /// Wherefrom.
        source: Address16,
        /// Strength of the signal in dBm, negative.
        rssi: i16,
        /// Bits of the module's manual.
        options: u8,
        /// What was sent.
        payload: &'b [u8],
    },
    /// 0x80: from another 802.15.4 module.
    Receive64 {
        /// Wherefrom.
        source: Address64,
        /// Strength of the signal in dBm, negative.
        rssi: i16,
        /// Bits of the module's manual.
        options: u8,
        /// What was sent.
        payload: &'b [u8],
    },
    /// 0x10: to another module (868LP, 900HP, DigiMesh, ZigBee).
    Transmit {
        /// Comes back in the status; 0: no status is wanted.
        id: u8,
        /// Whereto.
        destination: Address64,
        /// Whereto, if it is known.
        network: Address16,
        /// Hops of a broadcast; 0: as many as there can be.
        radius: u8,
        /// Bits of the module's manual.
        options: u8,
        /// At most 255 bytes, fewer on most radios.
        payload: &'b [u8],
    },
    /// 0x01: to another 802.15.4 module by its 16-bit address.
    Transmit16 {
        /// Comes back in the status; 0: no status is wanted.
        id: u8,
        /// Whereto.
        destination: Address16,
        /// Bits of the module's manual.
        options: u8,
        /// At most 100 bytes.
        payload: &'b [u8],
    },
    /// 0x00: to another 802.15.4 module.
    Transmit64 {
        /// Comes back in the status; 0: no status is wanted.
        id: u8,
        /// Whereto.
        destination: Address64,
        /// Bits of the module's manual.
        options: u8,
        /// At most 100 bytes.
        payload: &'b [u8],
    },
    /// 0x8B: what became of a 0x10 or 0x11.
    TransmitStatus {
        /// Of the packet.
        id: u8,
        /// Where it went.
        network: Address16,
        /// Tries after the first.
        retries: u8,
        /// 0: delivered.
        delivery: u8,
        /// How the way was found.
        discovery: u8,
    },
    /// 0x89: what became of a 0x00 or 0x01.
    TransmitStatusLegacy {
        /// Of the packet.
        id: u8,
        /// 0: delivered. 1: no acknowledgement, 2: channel busy, 3: purged.
        status: u8,
    },
}

impl<'b> Packet<'b> {
    /// Reads what a [`Decoder`](super::Decoder) found.
    ///
    /// # Errors
    /// [`Refused::Short`], [`Refused::Type`], and [`Refused::Long`] when bytes follow a status of fixed length.
    pub fn parse(packet: &'b [u8]) -> Result<Self, Refused> {
        let (&kind, mut rest) = packet.split_first().ok_or(Refused::Short { wanted: 1, found: 0 })?;
        let r = &mut Reader { rest: &mut rest, whole: packet.len() };
        Ok(match kind {
            0x00 => Self::Transmit64 { id: r.byte()?, destination: r.mac()?, options: r.byte()?, payload: r.rest },
            0x01 => Self::Transmit16 { id: r.byte()?, destination: r.short()?, options: r.byte()?, payload: r.rest },
            0x08 => Self::AtCommand { id: r.byte()?, at: At(r.take()?), value: r.rest },
            0x09 => Self::AtQueued { id: r.byte()?, at: At(r.take()?), value: r.rest },
            0x10 => Self::Transmit {
                id: r.byte()?,
                destination: r.mac()?,
                network: r.short()?,
                radius: r.byte()?,
                options: r.byte()?,
                payload: r.rest,
            },
            0x11 => Self::Explicit {
                id: r.byte()?,
                destination: r.mac()?,
                network: r.short()?,
                endpoints: r.take()?,
                cluster: u16::from_be_bytes(r.take()?),
                profile: u16::from_be_bytes(r.take()?),
                radius: r.byte()?,
                options: r.byte()?,
                payload: r.rest,
            },
            0x80 => Self::Receive64 { source: r.mac()?, rssi: r.rssi()?, options: r.byte()?, payload: r.rest },
            0x81 => Self::Receive16 { source: r.short()?, rssi: r.rssi()?, options: r.byte()?, payload: r.rest },
            0x88 => Self::AtResponse { id: r.byte()?, at: At(r.take()?), status: r.byte()?, value: r.rest },
            0x89 => r.last(|r| Ok(Self::TransmitStatusLegacy { id: r.byte()?, status: r.byte()? }))?,
            0x8A => r.last(|r| Ok(Self::ModemStatus { status: r.byte()? }))?,
            0x8B => r.last(|r| {
                let (id, network) = (r.byte()?, r.short()?);
                Ok(Self::TransmitStatus { id, network, retries: r.byte()?, delivery: r.byte()?, discovery: r.byte()? })
            })?,
            0x90 => Self::Receive { source: r.mac()?, network: r.short()?, options: r.byte()?, payload: r.rest },
            0x91 => Self::ExplicitReceive {
                source: r.mac()?,
                network: r.short()?,
                endpoints: r.take()?,
                cluster: u16::from_be_bytes(r.take()?),
                profile: u16::from_be_bytes(r.take()?),
                options: r.byte()?,
                payload: r.rest,
            },
            other => return Err(Refused::Type(other)),
        })
    }

    /// The packet alone, as [`parse`](Self::parse) reads it. Wiped, for it may hold a link key.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        match *self {
            Self::AtCommand { id, at, value } => put(&[&[0x08, id], &at.0, value]),
            Self::AtQueued { id, at, value } => put(&[&[0x09, id], &at.0, value]),
            Self::AtResponse { id, at, status, value } => put(&[&[0x88, id], &at.0, &[status], value]),
            Self::Explicit { id, destination, network, endpoints, cluster, profile, radius, options, payload } => {
                let (cluster, profile) = (cluster.to_be_bytes(), profile.to_be_bytes());
                put(&[
                    &[0x11, id],
                    &destination.0,
                    &network.0,
                    &endpoints,
                    &cluster,
                    &profile,
                    &[radius, options],
                    payload,
                ]);
            }
            Self::ExplicitReceive { source, network, endpoints, cluster, profile, options, payload } => {
                let (cluster, profile) = (cluster.to_be_bytes(), profile.to_be_bytes());
                put(&[&[0x91], &source.0, &network.0, &endpoints, &cluster, &profile, &[options], payload]);
            }
            Self::ModemStatus { status } => put(&[&[0x8A, status]]),
            Self::Receive { source, network, options, payload } => {
                put(&[&[0x90], &source.0, &network.0, &[options], payload]);
            }
            Self::Receive16 { source, rssi, options, payload } => {
                put(&[&[0x81], &source.0, &[strength(rssi), options], payload]);
            }
            Self::Receive64 { source, rssi, options, payload } => {
                put(&[&[0x80], &source.0, &[strength(rssi), options], payload]);
            }
            Self::Transmit { id, destination, network, radius, options, payload } => {
                put(&[&[0x10, id], &destination.0, &network.0, &[radius, options], payload]);
            }
            Self::Transmit16 { id, destination, options, payload } => {
                put(&[&[0x01, id], &destination.0, &[options], payload]);
            }
            Self::Transmit64 { id, destination, options, payload } => {
                put(&[&[0x00, id], &destination.0, &[options], payload]);
            }
            Self::TransmitStatus { id, network, retries, delivery, discovery } => {
                put(&[&[0x8B, id], &network.0, &[retries, delivery, discovery]]);
            }
            Self::TransmitStatusLegacy { id, status } => put(&[&[0x89, id, status]]),
        }
        out
    }

    /// The packet in its frame, as it goes over the line.
    ///
    /// # Errors
    /// [`Refused::Long`].
    pub fn emit(&self, mode: Mode) -> Result<Zeroizing<Vec<u8>>, Refused> {
        frame(&self.to_bytes(), mode)
    }
}

impl fmt::Debug for Packet<'_> {
    /// No content: it may be a link key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        write!(f, "Packet({:02x}, {} bytes)", bytes.first().copied().unwrap_or_default(), bytes.len())
    }
}

/// Strength in dBm as modules write it: the positive number of -dBm.
fn strength(rssi: i16) -> u8 {
    u8::try_from(rssi.unsigned_abs()).unwrap_or(u8::MAX)
}

struct Reader<'r, 'b> {
    rest: &'r mut &'b [u8],
    whole: usize,
}

impl<'b> Reader<'_, 'b> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let here = self.whole - self.rest.len();
        let short = Refused::Short { wanted: here + N, found: self.whole };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(short)?;
        *self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        self.take().map(|[byte]| byte)
    }

    fn mac(&mut self) -> Result<Address64, Refused> {
        self.take().map(Address64)
    }

    fn short(&mut self) -> Result<Address16, Refused> {
        self.take().map(Address16)
    }

    fn rssi(&mut self) -> Result<i16, Refused> {
        self.byte().map(|positive| -i16::from(positive))
    }

    /// Nothing may follow what `read` reads.
    fn last(&mut self, read: impl FnOnce(&mut Self) -> Result<Packet<'b>, Refused>) -> Result<Packet<'b>, Refused> {
        let packet = read(self)?;
        if self.rest.is_empty() { Ok(packet) } else { Err(Refused::Long { length: self.whole }) }
    }
}

/// The AES-128 key that all modules of a network share (KY). Modules never tell it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LinkKey([u8; 16]);

impl LinkKey {
    /// A key of any bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key that a sketch sets by its 16 characters.
    ///
    /// # Errors
    /// [`Refused::Short`] or [`Refused::Long`] for another number of them.
    pub fn from_text(text: &str) -> Result<Self, Refused> {
        let found = text.len();
        match text.as_bytes().try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) if found < 16 => Err(Refused::Short { wanted: 16, found }),
            Err(_) => Err(Refused::Long { length: found }),
        }
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

/// What sets the link key of a module and turns its encryption on: KY, then EE=1. Both answers come with `id`.
///
/// Link encryption of 802.15.4 modules has no integrity check: a module with another key hears garbage, not silence (W10).
pub fn link_key_commands(id: u8, key: &LinkKey) -> [Packet<'_>; 2] {
    [
        Packet::AtCommand { id, at: At::LINK_KEY, value: &key.0 },
        Packet::AtCommand { id, at: At::ENCRYPTION, value: &[1] },
    ]
}
