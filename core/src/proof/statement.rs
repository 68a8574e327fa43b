//! What a device signs: leaves over its readings, and a statement over a batch of them (docs/protocol.md 13.1).

use core::fmt;

use zeroize::Zeroize;

use crate::error::SealError;
use crate::id::{BootContext, Did, Epoch};
use crate::proof::merkle::Hash;
use crate::suite::hkdf_expand;
use crate::wire::cbor::{Malformed, Reader, Writer};

/// The external_aad under which batches are signed.
pub const CONTEXT: &[u8] = b"iotsec-batch-v1";

/// Which message a reading came in: the level that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignedLevel {
    /// 3: C3.
    Cloud,
    /// 2: C2, of a device that seals for its gateway only.
    Gateway,
}

impl SignedLevel {
    const fn wire(self) -> u8 {
        match self {
            Self::Cloud => 3,
            Self::Gateway => 2,
        }
    }
}

/// Whose readings: what all leaves of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Level.
    pub level: SignedLevel,
    /// Device.
    pub did: Did,
    /// Key generation.
    pub epoch: Epoch,
    /// Boot, in mode R.
    pub bctx: Option<BootContext>,
}

/// Hides a leaf until it is shown: HKDF-Expand(K_blind, "leaf" ‖ PIV as 8 bytes, 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

/// K_blind: what the salts of an epoch are derived from (docs/protocol.md 3). Wiped when dropped, never printed or cloned.
pub struct BlindKey([u8; 32]);

impl BlindKey {
    /// An installed or agreed key. The caller wipes its own copy, if one is left.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The key of epoch 0, mode R.
    pub fn bootstrap(root_psk: &[u8; 32], did: Did) -> Self {
        Self(hkdf_expand(root_psk, &[b"blind boot v1", &did.0]))
    }

    /// Of a hardened classic node: from the key of that level and epoch (docs/protocol.md 13.1).
    pub fn classic(key: &[u8; 32], level: SignedLevel, did: Did, epoch: u32) -> Self {
        let level = [level.wire()];
        Self(hkdf_expand(key, &[b"blind classic v1", &level, &did.0, &epoch.to_be_bytes()]))
    }

    /// The bytes, to be stored wrapped.
    pub const fn danger_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The salt of reading number `piv`.
    pub fn salt(&self, piv: u64) -> Salt {
        Salt(hkdf_expand(&self.0, &[b"leaf", &piv.to_be_bytes()]))
    }
}

impl Drop for BlindKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for BlindKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindKey(..)")
    }
}

impl Subject {
    fn emit_head(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.unsigned(self.level.wire())?;
        w.bytes(&self.did.0)?;
        w.unsigned(self.epoch.0)?;
        w.bytes(self.bctx.as_ref().map_or(&[][..], |b| &b.0))
    }

    fn parse_head(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let level = match r.unsigned()? {
            3 => SignedLevel::Cloud,
            2 => SignedLevel::Gateway,
            _ => return Err(Malformed::new("statement: level 2 or 3")),
        };
        let did = Did(*r.bytes_of()?);
        let epoch = Epoch(r.uint()?);
        let bctx = match r.bytes()? {
            [] => None,
            bctx => Some(BootContext(bctx.try_into().map_err(|_| Malformed::new("statement: boot id of 8 bytes"))?)),
        };
        Ok(Self { level, did, epoch, bctx })
    }

    /// Writes tbs_i = `["r1", level, did, epoch, bctx, PIV, payload]` and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; `payload.len() + 48` always suffices.
    pub fn emit_tbs(&self, piv: u64, payload: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(7)?;
        w.text("r1")?;
        self.emit_head(&mut w)?;
        w.unsigned(piv)?;
        w.bytes(payload)?;
        Ok(w.len())
    }

    /// Reads tbs, and nothing after it: whose reading, its number, its payload.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse_tbs(bytes: &[u8]) -> Result<(Self, u64, &[u8]), Malformed> {
        let mut r = Reader::new(bytes);
        r.array_of(7)?;
        if r.text()? != "r1" {
            return Err(Malformed::new("reading: not an r1"));
        }
        let subject = Self::parse_head(&mut r)?;
        let (piv, payload) = (r.unsigned()?, r.bytes()?);
        r.end()?;
        Ok((subject, piv, payload))
    }

    /// The leaf of reading number `piv`: SHA-256(00 ‖ salt ‖ tbs).
    pub fn leaf(&self, salt: &Salt, piv: u64, payload: &[u8]) -> Hash {
        let mut head = [0; 48];
        let n = self.emit_tbs_head(piv, payload.len(), &mut head);
        Hash::of_leaf([&salt.0, head.get(..n).unwrap_or_default(), payload])
    }

    /// tbs without the payload itself; 48 bytes hold it.
    fn emit_tbs_head(&self, piv: u64, payload: usize, out: &mut [u8; 48]) -> usize {
        let mut w = Writer::new(out);
        let (length, n) = super::bytes_head(payload);
        let written = w
            .array(7)
            .and_then(|()| w.text("r1"))
            .and_then(|()| self.emit_head(&mut w))
            .and_then(|()| w.unsigned(piv))
            .and_then(|()| w.encoded(length.get(..n).unwrap_or_default()));
        debug_assert!(written.is_ok());
        w.len()
    }
}

/// stmt = `["b1", level, did, epoch, bctx, batch_no, first_piv, bitmap, root, prev]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'b> {
    /// Whose readings.
    pub subject: Subject,
    /// Number of the batch.
    pub number: u64,
    /// Sender number that bit 0 of the bitmap stands for.
    pub first_piv: u64,
    /// Which numbers are in it, least significant bit first; 1 to 8 bytes.
    pub bitmap: &'b [u8],
    /// Merkle root over the leaves, in order of their numbers.
    pub root: Hash,
    /// SHA-256 of the statement before, or 32 zero bytes.
    pub previous: Hash,
}

impl<'b> Statement<'b> {
    /// Bytes, at most.
    pub const LONGEST: usize = 128;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.array_of(10)?;
        if r.text()? != "b1" {
            return Err(Malformed::new("statement: not a b1"));
        }
        let statement = Self {
            subject: Subject::parse_head(&mut r)?,
            number: r.unsigned()?,
            first_piv: r.unsigned()?,
            bitmap: r.bytes()?,
            root: Hash(*r.bytes_of()?),
            previous: Hash(*r.bytes_of()?),
        };
        r.end()?;
        if statement.bitmap.is_empty() || statement.bitmap.len() > 8 {
            return Err(Malformed::new("statement: a bitmap has 1 to 8 bytes"));
        }
        Ok(statement)
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`Statement::LONGEST`] bytes always suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(10)?;
        w.text("b1")?;
        self.subject.emit_head(&mut w)?;
        w.unsigned(self.number)?;
        w.unsigned(self.first_piv)?;
        w.bytes(self.bitmap)?;
        w.bytes(&self.root.0)?;
        w.bytes(&self.previous.0)?;
        Ok(w.len())
    }

    /// How many readings the bitmap says are in it.
    pub fn leaves(&self) -> u32 {
        self.bitmap.iter().map(|b| b.count_ones()).sum()
    }
}
