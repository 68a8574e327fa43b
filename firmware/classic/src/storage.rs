//! What a node keeps in its EEPROM: numbers, keys and the key message that waits for its answer.
//!
//! ```text
//!   0  leases   2 slots of  8   end(4) ‖ the same, inverted(4)
//!  16  keys     2 slots of 40   epoch(4) ‖ key(32) ‖ check(4)
//!  96  offer    1 slot of 364   KR1(312) ‖ seed(16) ‖ new key(32) ‖ check(4)
//! ```
//!
//! Slots are written in turn and read back, so that a loss of power leaves the one before. A check is the front of a
//! SHA-256: against half a write, not against an attacker with the board in his hands.

use fivefold_core::suite::sha256;
use fivefold_waspmote::hardened::Epoch;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that are kept.
pub const BYTES: u16 = OFFER + (OFFER_BYTES + CHECK) as u16;
/// Bytes of KR1: RSA-2048 and an HMAC.
pub const KR1: usize = 312;

const LEASE: u16 = 0;
const KEYS: u16 = 16;
const OFFER: u16 = 96;
const CHECK: usize = 4;
const KEY_BYTES: usize = 36;
const OFFER_BYTES: usize = KR1 + 16 + 32;

/// An EEPROM did not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// An EEPROM, or a part of one.
pub trait Storage {
    /// Reads bytes.
    fn read(&mut self, offset: u16, bytes: &mut [u8]) -> Result<(), Broken>;
    /// Writes bytes, and returns when they are there to stay.
    fn write(&mut self, offset: u16, bytes: &[u8]) -> Result<(), Broken>;

    /// Writes, and reads back.
    fn keep<const N: usize>(&mut self, offset: u16, bytes: &[u8; N]) -> Result<(), Broken> {
        self.write(offset, bytes)?;
        let mut back = Zeroizing::new([0; N]);
        self.read(offset, &mut *back)?;
        if *back == *bytes { Ok(()) } else { Err(Broken) }
    }
}

/// One of two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Slot {
    /// The first.
    A = 0,
    /// The second.
    B = 1,
}

impl Slot {
    const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Where to write next.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn at(self, start: u16, bytes: u16) -> u16 {
        start + self as u16 * bytes
    }
}

/// The newest end of a lease, and where it is. `None` if none was ever written, or both are broken.
pub fn read_lease(storage: &mut impl Storage) -> Result<Option<(Slot, u32)>, Broken> {
    let mut newest = None;
    for slot in Slot::BOTH {
        let mut record = [0; 8];
        storage.read(slot.at(LEASE, 8), &mut record)?;
        let [a, b, c, d, inverted @ ..] = record;
        let end = u32::from_be_bytes([a, b, c, d]);
        if u32::from_be_bytes(inverted) == !end && newest.is_none_or(|(_, other)| end > other) {
            newest = Some((slot, end));
        }
    }
    Ok(newest)
}

/// Keeps the end of a lease.
pub fn keep_lease(storage: &mut impl Storage, slot: Slot, end: u32) -> Result<(), Broken> {
    let [a, b, c, d] = end.to_be_bytes();
    let [e, f, g, h] = (!end).to_be_bytes();
    storage.keep(slot.at(LEASE, 8), &[a, b, c, d, e, f, g, h])
}

/// The newest key, and where it is. The caller wipes it.
pub fn read_key(storage: &mut impl Storage) -> Result<Option<(Slot, Epoch, [u8; 32])>, Broken> {
    let mut newest = None;
    for slot in Slot::BOTH {
        let mut record = Zeroizing::new([0; KEY_BYTES + CHECK]);
        storage.read(slot.at(KEYS, 40), &mut *record)?;
        let Some((content, check)) = record.split_first_chunk::<KEY_BYTES>() else { continue };
        let &[a, b, c, d, ref key @ ..] = content;
        let epoch = Epoch(u32::from_be_bytes([a, b, c, d]));
        if check == check_of(content) && newest.as_ref().is_none_or(|(_, other, _)| epoch > *other) {
            newest = Some((slot, epoch, *key));
        }
    }
    Ok(newest)
}

/// Keeps a key.
pub fn keep_key(storage: &mut impl Storage, slot: Slot, epoch: Epoch, key: &[u8; 32]) -> Result<(), Broken> {
    let mut record = Zeroizing::new([0; KEY_BYTES + CHECK]);
    put(&mut *record, &[&epoch.0.to_be_bytes(), key]);
    storage.keep(slot.at(KEYS, 40), &record)
}

/// The key message that waits for its answer, and what its C carries.
pub struct Offered {
    /// KR1.
    pub kr1: [u8; KR1],
    /// The seed of M.
    pub seed: [u8; 16],
    /// The new key.
    pub key: [u8; 32],
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.seed.zeroize();
        self.key.zeroize();
    }
}

/// The key message that is kept. `None` if none is.
pub fn read_offer(storage: &mut impl Storage) -> Result<Option<Offered>, Broken> {
    let mut record = Zeroizing::new([0; OFFER_BYTES + CHECK]);
    storage.read(OFFER, &mut *record)?;
    let Some((content, check)) = record.split_first_chunk::<OFFER_BYTES>() else { return Ok(None) };
    if check != check_of(content) {
        return Ok(None);
    }
    let Some((kr1, rest)) = content.split_first_chunk::<KR1>() else { return Ok(None) };
    let Some((seed, key)) = rest.split_first_chunk::<16>() else { return Ok(None) };
    let Ok(key) = key.try_into() else { return Ok(None) };
    Ok(Some(Offered { kr1: *kr1, seed: *seed, key }))
}

/// Keeps a key message, before it is sent.
pub fn keep_offer(storage: &mut impl Storage, kr1: &[u8; KR1], seed: &[u8], key: &[u8]) -> Result<(), Broken> {
    let mut record = Zeroizing::new([0; OFFER_BYTES + CHECK]);
    put(&mut *record, &[kr1, seed, key]);
    storage.keep(OFFER, &record)
}

/// Writes the parts, and their check behind them.
fn put(record: &mut [u8], parts: &[&[u8]]) {
    let Some((content, check)) = record.split_last_chunk_mut::<CHECK>() else { return };
    let bytes = parts.iter().flat_map(|part| part.iter());
    content.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
    *check = check_of(content);
}

fn check_of(content: &[u8]) -> [u8; CHECK] {
    let [a, b, c, d, ..] = sha256(&[b"fivefold classic node", content]);
    [a, b, c, d]
}
