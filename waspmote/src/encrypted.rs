//! Encrypted frames (W7): AES in ECB around a whole frame in clear.

use alloc::vec::Vec;
use core::fmt;

use crate::frame::{Clear, DELIMITER, LONGEST, LONGEST_ID, Reading, Tail, until_hash};
use crate::key::{ClassicKey, KeyBits};
use crate::refused::Refused;
use crate::serial::{Generation, Serial};
use crate::text::Text;

/// Bytes of the largest inner frame.
pub const LONGEST_INNER: usize = 240;

/// Who is meant to open a frame. The type byte says so, and nothing binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// The gateway.
    Gateway,
    /// The cloud: the gateway passes it unread.
    Cloud,
}

impl Destination {
    /// `gateway` or `cloud`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Cloud => "cloud",
        }
    }
}

/// Type of an encrypted frame (W2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EncryptedType {
    /// v15 to the gateway, AES-128: API v026 alone. Its AES-256 is `Gateway`.
    OldGateway128 = 0x5e,
    /// v15 to the gateway, AES-192: API v026 alone.
    OldGateway192 = 0x5f,
    /// v15 to the gateway, any key size.
    Gateway = 0x60,
    /// v12 to the gateway, AES-128.
    Gateway128 = 0x61,
    /// v12 to the gateway, AES-192.
    Gateway192 = 0x62,
    /// v12 to the gateway, AES-256.
    Gateway256 = 0x63,
    /// v15 to the cloud, any key size.
    Cloud = 0x64,
    /// v12 to the cloud, any key size.
    CloudV12 = 0x65,
    /// v15 to the vendor's cloud, encrypted in software.
    VendorCloud = 0x66,
    /// v15 to the vendor's cloud, encrypted in the crypto chip: AES-128.
    VendorCloudChip = 0x67,
}

impl EncryptedType {
    /// Of the type byte.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x5e => Self::OldGateway128,
            0x5f => Self::OldGateway192,
            0x60 => Self::Gateway,
            0x61 => Self::Gateway128,
            0x62 => Self::Gateway192,
            0x63 => Self::Gateway256,
            0x64 => Self::Cloud,
            0x65 => Self::CloudV12,
            0x66 => Self::VendorCloud,
            0x67 => Self::VendorCloudChip,
            _ => return None,
        })
    }

    /// The type byte.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Who is meant to open it.
    pub const fn destination(self) -> Destination {
        match self {
            Self::Cloud | Self::CloudV12 | Self::VendorCloud | Self::VendorCloudChip => Destination::Cloud,
            _ => Destination::Gateway,
        }
    }

    /// Which hardware sends it.
    pub const fn generation(self) -> Generation {
        match self {
            Self::Gateway128 | Self::Gateway192 | Self::Gateway256 | Self::CloudV12 => Generation::V12,
            _ => Generation::V15,
        }
    }

    /// The key size that the type claims. Only a hint: the size comes from whoever stores the key.
    pub const fn key_bits(self) -> Option<KeyBits> {
        match self {
            Self::OldGateway128 | Self::Gateway128 | Self::VendorCloudChip => Some(KeyBits::Aes128),
            Self::OldGateway192 | Self::Gateway192 => Some(KeyBits::Aes192),
            Self::Gateway256 => Some(KeyBits::Aes256),
            _ => None,
        }
    }

    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "encrypted-gateway",
            Self::OldGateway128 | Self::Gateway128 => "encrypted-gateway-128",
            Self::OldGateway192 | Self::Gateway192 => "encrypted-gateway-192",
            Self::Gateway256 => "encrypted-gateway-256",
            Self::Cloud | Self::CloudV12 => "encrypted-cloud",
            Self::VendorCloud => "encrypted-vendor-cloud",
            Self::VendorCloudChip => "encrypted-vendor-cloud-chip",
        }
    }
}

/// An encrypted frame. What is clear of it is bound to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted<'a> {
    /// The type.
    pub kind: EncryptedType,
    /// Who says that it sent the frame.
    pub serial: Serial,
    /// The node id: clear on v12 alone.
    pub node_id: Option<Text<'a>>,
    /// Blocks of 16 bytes, at least one.
    pub ciphertext: &'a [u8],
    /// The whole frame.
    pub bytes: &'a [u8],
}

impl<'a> Encrypted<'a> {
    pub(crate) fn parse(kind: EncryptedType, bytes: &'a [u8], reading: Reading) -> Result<Self, Refused> {
        let generation = kind.generation();
        if reading.generation.is_some_and(|known| known != generation) {
            return Err(Refused::Generation);
        }
        let body = bytes.get(5..).unwrap_or_default();
        let serial = Serial::parse_binary(body, generation, reading.order).ok_or(Refused::Serial)?;
        let rest = body.get(generation.serial_length()..).unwrap_or_default();
        let (node_id, ciphertext) = match generation {
            Generation::V15 => (None, rest),
            Generation::V12 => {
                let (id, rest) = until_hash(rest, LONGEST_ID).ok_or(Refused::NodeId)?;
                (Some(Text::new(id)), rest)
            }
        };
        if ciphertext.is_empty() || ciphertext.len() % 16 != 0 || ciphertext.len() > LONGEST_INNER {
            return Err(Refused::Blocks { length: ciphertext.len() });
        }
        Ok(Self { kind, serial, node_id, ciphertext, bytes })
    }

    /// Who is meant to open it.
    pub const fn destination(&self) -> Destination {
        self.kind.destination()
    }

    /// Encrypts a frame as a node does: zeros up to a whole block, and none where it is one already.
    ///
    /// # Errors
    /// `Long` for more than 240 bytes: a node then leaves the frame in clear in its buffer. `Generation` for a type that
    /// hardware with this serial does not send.
    pub fn seal(kind: EncryptedType, inner: &Clear<'_>, key: &ClassicKey) -> Result<Vec<u8>, Refused> {
        if inner.bytes.len() > LONGEST_INNER {
            return Err(Refused::Long { length: inner.bytes.len() });
        }
        let mut frame = Vec::with_capacity(LONGEST);
        frame.extend_from_slice(&DELIMITER);
        frame.extend_from_slice(&[kind.number(), 0]);
        match (kind.generation(), inner.serial) {
            (Generation::V15, Serial::V15(bytes)) => frame.extend_from_slice(&bytes),
            (Generation::V12, Serial::V12(number)) => {
                frame.extend_from_slice(&number.to_be_bytes());
                frame.extend_from_slice(inner.node_id.bytes());
                frame.push(b'#');
            }
            _ => return Err(Refused::Generation),
        }
        let header = frame.len();
        frame.extend_from_slice(inner.bytes);
        frame.resize(header + inner.bytes.len().next_multiple_of(16), 0);
        let length = frame.len();
        let n = length.checked_sub(5).and_then(|n| u8::try_from(n).ok()).filter(|_| length <= LONGEST);
        match (n, frame.get_mut(4)) {
            (Some(n), Some(place)) => *place = n,
            _ => return Err(Refused::Long { length }),
        }
        key.encrypt(frame.get_mut(header..).unwrap_or_default());
        Ok(frame)
    }

    /// Decrypts, and takes what comes out for a frame only if everything about it fits: delimiter, N or the number of
    /// fields, zeros after it, the serial of the outer frame (and the node id, on v12).
    ///
    /// There is no integrity code: blocks of other frames under the same key open as well.
    ///
    /// # Errors
    /// Why it is no frame of this node under this key.
    pub fn open(&self, key: &ClassicKey) -> Result<Inner, Refused> {
        let mut room = [0; LONGEST_INNER];
        let clear = self.open_in(key, &mut room)?;
        let (length, id) = (clear.bytes.len(), clear.node_id.bytes());
        let shape = Shape {
            kind: clear.kind,
            encoding: clear.encoding,
            serial: clear.serial,
            sequence: clear.sequence,
            count: clear.count,
            id: (offset(clear.bytes, id), id.len()),
            payload: length.saturating_sub(clear.payload.len()),
        };
        Ok(Inner { bytes: room, length, shape })
    }

    /// [`open`](Self::open) into memory of the caller's, for who opens many.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_in<'b>(&self, key: &ClassicKey, room: &'b mut [u8; LONGEST_INNER]) -> Result<Clear<'b>, Refused> {
        let plain = room.get_mut(..self.ciphertext.len()).ok_or(Refused::Blocks { length: self.ciphertext.len() })?;
        plain.copy_from_slice(self.ciphertext);
        key.decrypt(plain);
        let reading = Reading { generation: Some(self.serial.generation()), ..Reading::default() };
        let clear = Clear::parse(plain, reading, Tail::Padding).map_err(Refused::inner)?;
        // The same node writes its serial the other way round in binary frames of old software, and in decimal in ASCII.
        if clear.serial != self.serial && clear.serial != self.serial.reversed() {
            return Err(Refused::ForeignSerial);
        }
        if self.node_id.is_some_and(|outer| outer != clear.node_id) {
            return Err(Refused::ForeignNodeId);
        }
        Ok(clear)
    }
}

/// Where `part` starts in `whole`, of which it is a piece; both were cut from the same header.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}

/// Everything about a frame but its bytes.
#[derive(Clone, Copy)]
struct Shape {
    kind: crate::kind::FrameType,
    encoding: crate::kind::Encoding,
    serial: Serial,
    sequence: u8,
    count: Option<u8>,
    id: (usize, usize),
    payload: usize,
}

/// What an encrypted frame held.
#[derive(Clone)]
pub struct Inner {
    bytes: [u8; LONGEST_INNER],
    length: usize,
    shape: Shape,
}

impl Inner {
    /// The frame, without the zeros that filled its last block.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The frame, read.
    pub fn clear(&self) -> Clear<'_> {
        let bytes = self.bytes();
        let (start, length) = self.shape.id;
        Clear {
            kind: self.shape.kind,
            encoding: self.shape.encoding,
            serial: self.shape.serial,
            node_id: Text::new(bytes.get(start..start.saturating_add(length)).unwrap_or_default()),
            sequence: self.shape.sequence,
            payload: bytes.get(self.shape.payload..).unwrap_or_default(),
            count: self.shape.count,
            bytes,
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clear().fmt(f)
    }
}
