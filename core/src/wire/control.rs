//! Control maps inside the innermost OSCORE payload: uplink (docs/protocol.md 7.1) and downlink (7.3).
//!
//! Keys are unsigned, strictly ascending, and all known: anything else is "inner malformed" (E2-07, E3-07).

use crate::error::SealError;
use crate::id::{Epoch, GatewayGroup};
use crate::profile::{KeyIndexes, key_index};
use crate::wire::cbor::{Element, List, Major, Malformed, Reader, Writer};
use crate::wire::state::Phase;

/// Payload of the gateway's own 5.04 answer: `{1: "stored"}` (docs/protocol.md 6.3, rule 04).
pub const STORED: [u8; 9] = *b"\xA1\x01\x66stored";

const UNKNOWN: Malformed = Malformed::new("control map: unknown key");

/// What a device says beside its readings (docs/protocol.md 7.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Uplink<'b> {
    /// 1: the signature of a batch, or a piece of it.
    pub batch: Option<Batch<'b>>,
    /// 2: results of commands; empty when left out.
    pub results: List<'b, CommandResult<'b>>,
    /// 3: how the device is.
    pub status: Option<Status>,
    /// 4: version of the configuration it runs.
    pub config_version: Option<u64>,
    /// 5: its E1 key indexes.
    pub key_indexes: Option<KeyIndexes>,
    /// 6: leaf hashes of a batch.
    pub leaves: Option<Leaves<'b>>,
    /// 7: what it really runs ([`Policy::digest8`](crate::profile::Policy::digest8)).
    pub digest: Option<[u8; 8]>,
}

impl<'b> Uplink<'b> {
    /// Reads a map, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, or holds an unknown key or a value of another shape.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut map = Self::default();
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(&mut r)? {
            match key {
                1 => map.batch = Some(Batch::parse(&mut r)?),
                2 => map.results = List::parse(&mut r)?,
                3 => map.status = Some(Status::parse(&mut r)?),
                4 => map.config_version = Some(r.unsigned()?),
                5 => map.key_indexes = Some(Element::parse(&mut r)?),
                6 => map.leaves = Some(Leaves::parse(&mut r)?),
                7 => map.digest = Some(*r.bytes_of()?),
                _ => return Err(UNKNOWN),
            }
        }
        r.end()?;
        Ok(map)
    }

    /// Writes the map, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        let present = [
            self.batch.is_some(),
            !self.results.is_empty(),
            self.status.is_some(),
            self.config_version.is_some(),
            self.key_indexes.is_some(),
            self.leaves.is_some(),
            self.digest.is_some(),
        ];
        w.map(present.into_iter().map(usize::from).sum())?;
        if let Some(batch) = &self.batch {
            w.unsigned(1u8)?;
            batch.emit(&mut w)?;
        }
        if !self.results.is_empty() {
            w.unsigned(2u8)?;
            self.results.emit(&mut w)?;
        }
        if let Some(status) = &self.status {
            w.unsigned(3u8)?;
            status.emit(&mut w)?;
        }
        if let Some(version) = self.config_version {
            w.unsigned(4u8)?;
            w.unsigned(version)?;
        }
        if let Some(indexes) = &self.key_indexes {
            w.unsigned(5u8)?;
            Element::emit(indexes, &mut w)?;
        }
        if let Some(leaves) = &self.leaves {
            w.unsigned(6u8)?;
            leaves.emit(&mut w)?;
        }
        if let Some(digest) = &self.digest {
            w.unsigned(7u8)?;
            w.bytes(digest)?;
        }
        Ok(w.len())
    }
}

/// Item 1 of 7.1: the signature of a batch, whole or in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch<'b> {
    /// `[batch_no, idx, n, bytes]`: piece `index` of `count` of a signed item.
    Chunk {
        /// Which batch.
        number: u64,
        /// Which piece, from 0.
        index: u16,
        /// How many pieces; more than `index`.
        count: u16,
        /// The piece.
        bytes: &'b [u8],
    },
    /// `[batch_no, first_piv, bitmap, sig]`.
    Signature {
        /// Which batch.
        number: u64,
        /// Sender number that bit 0 of the bitmap stands for.
        first_piv: u64,
        /// Which numbers are in it; 1 to 8 bytes, bit j is the least significant first.
        bitmap: &'b [u8],
        /// r ‖ s, or an Ed25519 signature.
        signature: &'b [u8; 64],
    },
}

impl<'b> Batch<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(4)?;
        let number = r.unsigned()?;
        let second = r.unsigned()?;
        if r.peek()? == Major::Bytes {
            let bitmap = bitmap(r)?;
            return Ok(Self::Signature { number, first_piv: second, bitmap, signature: r.bytes_of()? });
        }
        let index = u16::try_from(second).map_err(|_| Malformed::new("chunk: index out of range"))?;
        let count = r.uint()?;
        if index >= count {
            return Err(Malformed::new("chunk: index out of range"));
        }
        Ok(Self::Chunk { number, index, count, bytes: r.bytes()? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(4)?;
        match self {
            Self::Chunk { number, index, count, bytes } => {
                w.unsigned(*number)?;
                w.unsigned(*index)?;
                w.unsigned(*count)?;
                w.bytes(bytes)
            }
            Self::Signature { number, first_piv, bitmap, signature } => {
                w.unsigned(*number)?;
                w.unsigned(*first_piv)?;
                w.bytes(bitmap)?;
                w.bytes(*signature)
            }
        }
    }
}

fn bitmap<'b>(r: &mut Reader<'b>) -> Result<&'b [u8], Malformed> {
    match r.bytes()? {
        bitmap @ [_, ..] if bitmap.len() <= 8 => Ok(bitmap),
        _ => Err(Malformed::new("a bitmap has 1 to 8 bytes")),
    }
}

/// Item 2 of 7.1: `[cmd_id, status, ?value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandResult<'b> {
    /// Which command.
    pub id: u64,
    /// 0: done; else why not.
    pub status: u64,
    /// One CBOR item, as it stands.
    pub value: Option<&'b [u8]>,
}

impl<'b> Element<'b> for CommandResult<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let n = r.array()?;
        if !(2..=3).contains(&n) {
            return Err(Malformed::new("a command result has two or three items"));
        }
        Ok(Self { id: r.unsigned()?, status: r.unsigned()?, value: if n == 3 { Some(r.item()?) } else { None } })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2 + usize::from(self.value.is_some()))?;
        w.unsigned(self.id)?;
        w.unsigned(self.status)?;
        self.value.map_or(Ok(()), |value| w.encoded(value))
    }
}

/// Item 3 of 7.1: `[boot_count, uptime_s, reset_cause, mV, flags]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Boots since it was made.
    pub boots: u32,
    /// Seconds since the last boot.
    pub uptime_s: u32,
    /// Why it booted; its own numbering.
    pub reset_cause: u8,
    /// Supply voltage in millivolts.
    pub millivolts: u16,
    /// Its own flags; bit 0: renewal failed three times (E5-05).
    pub flags: u32,
}

impl Status {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(5)?;
        Ok(Self {
            boots: r.uint()?,
            uptime_s: r.uint()?,
            reset_cause: r.uint()?,
            millivolts: r.uint()?,
            flags: r.uint()?,
        })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(5)?;
        w.unsigned(self.boots)?;
        w.unsigned(self.uptime_s)?;
        w.unsigned(self.reset_cause)?;
        w.unsigned(self.millivolts)?;
        w.unsigned(self.flags)
    }
}

/// Item 6 of 7.1: `[batch_no, first_index, hashes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaves<'b> {
    /// Which batch.
    pub number: u64,
    /// Index of the first of them, below 64.
    pub first_index: u8,
    /// One or more leaf hashes of 32 bytes, one after the other.
    pub hashes: &'b [u8],
}

impl<'b> Leaves<'b> {
    /// The hashes, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &'b [u8; 32]> + use<'b> {
        self.hashes.chunks_exact(32).filter_map(|h| h.try_into().ok())
    }

    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        let leaves = Self { number: r.unsigned()?, first_index: r.uint()?, hashes: r.bytes()? };
        let count = leaves.hashes.len() / 32;
        if !leaves.hashes.len().is_multiple_of(32) || count == 0 || usize::from(leaves.first_index) + count > 64 {
            return Err(Malformed::new("leaf hashes: a batch has 1 to 64 of 32 bytes"));
        }
        Ok(leaves)
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(3)?;
        w.unsigned(self.number)?;
        w.unsigned(self.first_index)?;
        w.bytes(self.hashes)
    }
}

/// What a device is told in an answer or a downlink request (docs/protocol.md 7.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Downlink<'b> {
    /// 1: which of its messages were received.
    pub received: Option<Received<'b>>,
    /// 2: commands; empty when left out.
    pub commands: List<'b, Command<'b>>,
    /// 3: a piece of configuration.
    pub config: Option<ConfigChunk<'b>>,
    /// 4: what became of a signed batch.
    pub batch: Option<BatchState<'b>>,
    /// 5: the time, as a claim.
    pub time: Option<Time>,
    /// 6: renew now; the reason is a number of the operator's.
    pub renew: Option<u64>,
    /// 7: a network key.
    pub link_key: Option<LinkKey<'b>>,
    /// 8: more is pending: poll again in so many seconds.
    pub poll_again_s: Option<u32>,
    /// 9: a new gateway group.
    pub group: Option<GatewayGroup>,
    /// 10: which of its messages were received under an older epoch.
    pub earlier: Option<Earlier<'b>>,
}

impl<'b> Downlink<'b> {
    /// Reads a map, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, or holds an unknown key or a value of another shape.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut map = Self::default();
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(&mut r)? {
            match key {
                1 => {
                    r.array_of(2)?;
                    map.received = Some(Received::parse(&mut r)?);
                }
                2 => map.commands = List::parse(&mut r)?,
                3 => map.config = Some(ConfigChunk::parse(&mut r)?),
                4 => map.batch = Some(BatchState::parse(&mut r)?),
                5 => {
                    r.array_of(2)?;
                    map.time = Some(Time { unix_s: r.unsigned()?, accuracy_s: r.uint()? });
                }
                6 => map.renew = Some(r.unsigned()?),
                7 => map.link_key = Some(LinkKey::parse(&mut r)?),
                8 => map.poll_again_s = Some(r.uint()?),
                9 => map.group = Some(GatewayGroup::from_bytes(*r.bytes_of()?)),
                10 => map.earlier = Some(Earlier::parse(&mut r)?),
                _ => return Err(UNKNOWN),
            }
        }
        r.end()?;
        Ok(map)
    }

    /// Writes the map, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        let present = [
            self.received.is_some(),
            !self.commands.is_empty(),
            self.config.is_some(),
            self.batch.is_some(),
            self.time.is_some(),
            self.renew.is_some(),
            self.link_key.is_some(),
            self.poll_again_s.is_some(),
            self.group.is_some(),
            self.earlier.is_some(),
        ];
        w.map(present.into_iter().map(usize::from).sum())?;
        if let Some(received) = &self.received {
            w.unsigned(1u8)?;
            w.array(2)?;
            received.emit(&mut w)?;
        }
        if !self.commands.is_empty() {
            w.unsigned(2u8)?;
            self.commands.emit(&mut w)?;
        }
        if let Some(config) = &self.config {
            w.unsigned(3u8)?;
            config.emit(&mut w)?;
        }
        if let Some(batch) = &self.batch {
            w.unsigned(4u8)?;
            batch.emit(&mut w)?;
        }
        if let Some(time) = &self.time {
            w.unsigned(5u8)?;
            w.array(2)?;
            w.unsigned(time.unix_s)?;
            w.unsigned(time.accuracy_s)?;
        }
        if let Some(reason) = self.renew {
            w.unsigned(6u8)?;
            w.unsigned(reason)?;
        }
        if let Some(link_key) = &self.link_key {
            w.unsigned(7u8)?;
            link_key.emit(&mut w)?;
        }
        if let Some(seconds) = self.poll_again_s {
            w.unsigned(8u8)?;
            w.unsigned(seconds)?;
        }
        if let Some(group) = self.group {
            w.unsigned(9u8)?;
            w.bytes(&group.to_bytes())?;
        }
        if let Some(earlier) = &self.earlier {
            w.unsigned(10u8)?;
            w.array(3)?;
            w.unsigned(earlier.epoch.0)?;
            earlier.received.emit(&mut w)?;
        }
        Ok(w.len())
    }
}

/// Item 1 of 7.3: `[base_piv, bitmap]`. Bit j (least significant first) says that `base_piv + j` was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// The number that bit 0 stands for.
    pub base_piv: u64,
    /// 1 to 8 bytes.
    pub bitmap: &'b [u8],
}

impl<'b> Received<'b> {
    /// What the last 64 numbers of a sender say: bit j of `bits` is `highest - j`. `None` when none of them came.
    pub fn of_last(highest: u64, bits: u64, bitmap: &'b mut [u8; 8]) -> Option<Self> {
        let span = 63u64.checked_sub(bits.leading_zeros().into())?;
        *bitmap = (bits.reverse_bits() >> (63 - span)).to_le_bytes();
        let len = usize::try_from(span / 8 + 1).unwrap_or(bitmap.len());
        Some(Self { base_piv: highest.checked_sub(span)?, bitmap: bitmap.get(..len)? })
    }

    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        Ok(Self { base_piv: r.unsigned()?, bitmap: bitmap(r)? })
    }
}

impl Received<'_> {
    /// Whether this says that number `piv` was received.
    pub fn covers(&self, piv: u64) -> bool {
        let Some(bit) = piv.checked_sub(self.base_piv) else { return false };
        let byte = usize::try_from(bit / 8).ok().and_then(|i| self.bitmap.get(i));
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.unsigned(self.base_piv)?;
        w.bytes(self.bitmap)
    }
}

/// Item 10 of 7.3: `[epoch, base_piv, bitmap]`. What item 1 says, of messages under an older epoch: under that one nobody
/// answers any more, and without this its last messages would be sent again for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier<'b> {
    /// The epoch of the numbers; 1 or greater.
    pub epoch: Epoch,
    /// Which numbers of it.
    pub received: Received<'b>,
}

impl<'b> Earlier<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        let epoch = Epoch(r.uint()?);
        if epoch.0 == 0 {
            return Err(Malformed::new("item 10: epoch 0 has no successor"));
        }
        Ok(Self { epoch, received: Received::parse(r)? })
    }

    /// Whether this says that number `piv` of `epoch` was received.
    pub fn covers(&self, epoch: Epoch, piv: u64) -> bool {
        self.epoch == epoch && self.received.covers(piv)
    }
}

/// Item 2 of 7.3: `[cmd_id, op, args..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'b> {
    /// Increases per device; executed at most once.
    pub id: u64,
    /// What to do; the device type's own numbering.
    pub op: u64,
    /// The arguments: any number of CBOR items, one after the other.
    pub arguments: &'b [u8],
}

impl<'b> Element<'b> for Command<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let n = r.array()?.checked_sub(2).ok_or(Malformed::new("a command has an id and an operation"))?;
        let (id, op) = (r.unsigned()?, r.unsigned()?);
        let start = r.rest();
        for _ in 0..n {
            r.item()?;
        }
        Ok(Self { id, op, arguments: start.get(..start.len() - r.rest().len()).unwrap_or_default() })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let mut count = 0;
        let mut arguments = Reader::new(self.arguments);
        while !arguments.is_at_end() && arguments.item().is_ok() {
            count += 1;
        }
        w.array(2 + count)?;
        w.unsigned(self.id)?;
        w.unsigned(self.op)?;
        w.encoded(self.arguments)
    }
}

/// Item 3 of 7.3: `[version, idx, n, bytes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigChunk<'b> {
    /// Version of the configuration.
    pub version: u64,
    /// Which piece, from 0.
    pub index: u16,
    /// How many pieces; more than `index`.
    pub count: u16,
    /// The piece.
    pub bytes: &'b [u8],
}

impl<'b> ConfigChunk<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(4)?;
        let chunk = Self { version: r.unsigned()?, index: r.uint()?, count: r.uint()?, bytes: r.bytes()? };
        if chunk.index < chunk.count { Ok(chunk) } else { Err(Malformed::new("chunk: index out of range")) }
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(4)?;
        w.unsigned(self.version)?;
        w.unsigned(self.index)?;
        w.unsigned(self.count)?;
        w.bytes(self.bytes)
    }
}

/// Item 4 of 7.3: `[batch_no, 0]`, `[batch_no, 1, bitmap_have]` or `[batch_no, 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState<'b> {
    /// 0: complete and verified.
    Complete {
        /// Which batch.
        number: u64,
    },
    /// 1: sign again over what is there.
    SignAgain {
        /// Which batch.
        number: u64,
        /// The numbers that the cloud has.
        bitmap: &'b [u8],
    },
    /// 2: send all leaf hashes.
    SendLeaves {
        /// Which batch.
        number: u64,
    },
}

impl<'b> BatchState<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let n = r.array()?;
        if !(2..=3).contains(&n) {
            return Err(Malformed::new("batch state: two or three items"));
        }
        let number = r.unsigned()?;
        match (r.unsigned()?, n) {
            (0, 2) => Ok(Self::Complete { number }),
            (1, 3) => Ok(Self::SignAgain { number, bitmap: bitmap(r)? }),
            (2, 2) => Ok(Self::SendLeaves { number }),
            _ => Err(Malformed::new("batch state: unknown code")),
        }
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let (number, code, bitmap) = match *self {
            Self::Complete { number } => (number, 0u8, None),
            Self::SignAgain { number, bitmap } => (number, 1, Some(bitmap)),
            Self::SendLeaves { number } => (number, 2, None),
        };
        w.array(2 + usize::from(bitmap.is_some()))?;
        w.unsigned(number)?;
        w.unsigned(code)?;
        bitmap.map_or(Ok(()), |bitmap| w.bytes(bitmap))
    }
}

/// Item 5 of 7.3: `[unix_s, accuracy_s]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub unix_s: u64,
    /// How far off it may be.
    pub accuracy_s: u32,
}

/// Item 7 of 7.3: `[idx, key or null, phase]`. Prints all but the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkKey<'b> {
    /// 1 to 254.
    pub index: u8,
    /// The key, when it is new to the device.
    pub key: Option<&'b [u8; 16]>,
    /// What to do with it.
    pub phase: Phase,
}

impl core::fmt::Debug for LinkKey<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LinkKey({}, {:?})", self.index, self.phase)
    }
}

impl<'b> LinkKey<'b> {
    pub(crate) fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        let index = key_index(r)?;
        let key = if r.null() { None } else { Some(r.bytes_of()?) };
        let phase = Phase::parse_told(r)?;
        if phase == Phase::Distribute && key.is_none() {
            return Err(Malformed::new("a network key is handed out without the key"));
        }
        Ok(Self { index, key, phase })
    }

    pub(crate) fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(3)?;
        w.unsigned(self.index)?;
        match self.key {
            Some(key) => w.bytes(key)?,
            None => w.null()?,
        }
        w.unsigned(self.phase.wire())
    }
}
