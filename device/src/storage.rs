//! What a node must not forget: one record in two slots (docs/protocol.md 8.2).
//!
//! Each write goes to the slot that does not hold the newest record, with a greater generation number and a CRC-32. A
//! write that is cut short leaves the other slot as it was: work is lost, safety is not.
//!
//! A slot can also be damaged long after it was written, and then the older one is behind: by one lease, for whatever else
//! changes is written to both. So where one slot is damaged, the numbers of one lease more are given up.

use core::fmt;

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{BLOCK, LeaseWrite, LinkKeys};
use fivefold_core::id::Epoch;
use heapless::Vec;
use zeroize::Zeroize;

/// Bytes of an encoded record.
pub const RECORD: usize = 256;
/// Sender numbers of C2 and C3 in one durable lease (K of docs/protocol.md 17).
pub const PIV_BLOCK: u32 = 64;
/// Command results that wait for their acknowledgement, at most.
pub const RESULTS: usize = 4;

const MAGIC: u8 = 0x46;
const VERSION: u8 = 1;
/// A lease of sender numbers is extended when fewer than this are left.
const PIV_LOW: u32 = 8;
const CRC_AT: usize = RECORD - 4;

/// One of the two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Where the two slots are: two flash pages, two files.
pub trait Storage {
    /// Why a slot could not be read or written.
    type Error;

    /// Reads a slot. One that was never written reads as bytes that are all FF, or all 00.
    ///
    /// # Errors
    /// When the medium fails. Damaged content is no error here.
    fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), Self::Error>;

    /// Writes a slot and returns when it is durable: written and synced, or written and read back.
    ///
    /// # Errors
    /// When it is not durable.
    fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), Self::Error>;
}

/// Why there is no record to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError<E> {
    /// No slot can be read, and they were written once: the counters are lost. The device must be enrolled again, which
    /// draws new secrets and a greater epoch.
    Corrupt,
    /// The medium failed.
    Medium(E),
}

impl<E: fmt::Display> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt => f.write_str("both copies of the counters are damaged; enrol the device again"),
            Self::Medium(e) => e.fmt(f),
        }
    }
}

/// The two slots of a [`Storage`], and which of them is next.
#[derive(Debug)]
pub struct Slots<S> {
    storage: S,
    newest: Slot,
    generation: u32,
    /// What both slots agree on; `None` where nothing was ever written. A record that differs in more than its bounds fills
    /// both, so that later damage is never taken for a new device, nor repeats a command or a key generation.
    essence: Option<u32>,
}

impl<S: Storage> Slots<S> {
    /// Finds the newest record that is whole. `None` for a device that never wrote one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(mut storage: S) -> Result<(Self, Option<Record>), OpenError<S::Error>> {
        let (mut a, mut b) = ([0; RECORD], [0; RECORD]);
        storage.read(Slot::A, &mut a).map_err(OpenError::Medium)?;
        storage.read(Slot::B, &mut b).map_err(OpenError::Medium)?;
        let chosen = choose(&a, &b);
        // The first write goes to A. Cut short, it leaves B blank, and nothing was done that depends on it.
        let blank = chosen.is_none() && is_blank(&b);
        let essence = |slot| Record::decode(slot).map(|(_, r)| r.essence());
        let both = essence(&a).zip(essence(&b));
        a.zeroize();
        b.zeroize();
        match chosen {
            Some((newest, generation, mut record)) => {
                let essence = both.filter(|(a, b)| a == b).map(|(a, _)| a);
                if both.is_none() {
                    record.skip_leases();
                }
                Ok((Self { storage, newest, generation, essence }, Some(record)))
            }
            None if blank => Ok((Self { storage, newest: Slot::B, generation: 0, essence: None }, None)),
            None => Err(OpenError::Corrupt),
        }
    }

    /// Makes a record durable.
    ///
    /// # Errors
    /// When it is not: then nothing that depends on it may be done.
    pub fn write(&mut self, record: &Record) -> Result<(), S::Error> {
        self.write_next(record)?;
        let essence = Some(record.essence());
        if self.essence != essence {
            self.write_next(record)?;
            self.essence = essence;
        }
        Ok(())
    }

    fn write_next(&mut self, record: &Record) -> Result<(), S::Error> {
        let (slot, generation) = (self.newest.other(), self.generation.wrapping_add(1));
        let mut bytes = record.encode(generation);
        let written = self.storage.write(slot, &bytes);
        bytes.zeroize();
        written?;
        (self.newest, self.generation) = (slot, generation);
        Ok(())
    }

    /// The medium.
    pub fn into_storage(self) -> S {
        self.storage
    }
}

/// The newest whole record of two slots, with its generation.
pub fn choose(a: &[u8; RECORD], b: &[u8; RECORD]) -> Option<(Slot, u32, Record)> {
    let a = Record::decode(a).map(|(g, r)| (Slot::A, g, r));
    let b = Record::decode(b).map(|(g, r)| (Slot::B, g, r));
    match (a, b) {
        // Generations wrap: the newer one is less than half of all ahead.
        (Some(a), Some(b)) => Some(if a.1.wrapping_sub(b.1) < 1 << 31 { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn is_blank(bytes: &[u8; RECORD]) -> bool {
    bytes.iter().all(|&b| b == 0xFF) || bytes.iter().all(|&b| b == 0)
}

/// A network key as the record knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Key index.
    pub index: u8,
    /// No frame was sent under it with this counter or a greater one.
    pub bound: u32,
    /// The key, if it came over the air; `None` for one that was installed.
    pub key: Option<[u8; 16]>,
}

/// The state of a command of which the cloud does not know yet that it knows the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// Which command.
    pub id: u64,
    /// Its status; see [`crate::node::status`].
    pub status: u8,
}

/// Everything that is durable on a node.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Boots since the device was made.
    pub boots: u32,
    /// Key generation of the contexts that `piv_bound` counts for.
    pub epoch: Epoch,
    /// Key generation that the next renewal takes (docs/protocol.md 8.2, W2).
    pub next_epoch: Epoch,
    /// Whether the cloud answered under the present context.
    pub confirmed: bool,
    /// No message was sealed with this number or a greater one (W1).
    pub piv_bound: u32,
    /// The network keys and their bounds, the older one first.
    pub keys: [Option<StoredKey>; 2],
    /// Index of the network key that is sent under; 0 for none.
    pub sending: u8,
    /// The last command that was begun (W4).
    pub last_command: u64,
    /// Results that are not acknowledged.
    pub results: Vec<StoredResult, RESULTS>,
    /// Digest of the randomness of the last boot, to see it repeat.
    pub entropy: [u8; 4],
}

impl Record {
    /// Of a device that never ran.
    pub const fn new(epoch: Epoch) -> Self {
        Self {
            boots: 0,
            epoch,
            next_epoch: Epoch(epoch.0.saturating_add(1)),
            confirmed: false,
            piv_bound: 0,
            keys: [None; 2],
            sending: 0,
            last_command: 0,
            results: Vec::new(),
            entropy: [0; 4],
        }
    }

    /// What is stored of a network key.
    pub fn key(&self, index: u8) -> Option<&StoredKey> {
        self.keys.iter().flatten().find(|k| k.index == index)
    }

    pub(crate) fn key_mut(&mut self, index: u8) -> Option<&mut StoredKey> {
        self.keys.iter_mut().flatten().find(|k| k.index == index)
    }

    /// A mark of everything but bounds, counts of boots, and results.
    fn essence(&self) -> u32 {
        let mut kept = self.clone();
        (kept.boots, kept.piv_bound, kept.sending, kept.entropy, kept.confirmed) = (0, 0, 0, [0; 4], false);
        kept.results.clear();
        for key in kept.keys.iter_mut().flatten() {
            key.bound = 0;
        }
        let mut bytes = kept.encode(0);
        let mark = crc32(&bytes);
        bytes.zeroize();
        mark
    }

    /// Gives up what the newest record may have leased beyond this one.
    fn skip_leases(&mut self) {
        self.piv_bound = self.piv_bound.saturating_add(PIV_BLOCK);
        for key in self.keys.iter_mut().flatten() {
            key.bound = key.bound.saturating_add(BLOCK);
        }
    }

    /// Layout: magic, version, generation(4), boots(4), epoch(2), next_epoch(2), flags, sending, piv_bound(4),
    /// last_command(8), entropy(4), two keys of 22, four results of 9, zeros (room for the contexts of E5), CRC-32.
    fn encode(&self, generation: u32) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let mut w = Cursor { bytes: &mut out, at: 0 };
        w.put(&[MAGIC, VERSION]);
        w.put(&generation.to_be_bytes());
        w.put(&self.boots.to_be_bytes());
        w.put(&self.epoch.0.to_be_bytes());
        w.put(&self.next_epoch.0.to_be_bytes());
        w.put(&[u8::from(self.confirmed), self.sending]);
        w.put(&self.piv_bound.to_be_bytes());
        w.put(&self.last_command.to_be_bytes());
        w.put(&self.entropy);
        for key in &self.keys {
            let kind = key.map_or(0, |k| 1 + u8::from(k.key.is_some()));
            w.put(&[kind, key.map_or(0, |k| k.index)]);
            w.put(&key.map_or(0, |k| k.bound).to_be_bytes());
            w.put(&key.and_then(|k| k.key).unwrap_or_default());
        }
        for at in 0..RESULTS {
            let result = self.results.get(at);
            w.put(&[u8::from(result.is_some())]);
            w.put(&result.map_or(0, |r| r.id).to_be_bytes());
            w.put(&[result.map_or(0, |r| r.status)]);
        }
        let crc = crc32(out.get(..CRC_AT).unwrap_or_default());
        Cursor { bytes: &mut out, at: CRC_AT }.put(&crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8; RECORD]) -> Option<(u32, Self)> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut r = Taker(body);
        if r.take::<2>()? != [MAGIC, VERSION] {
            return None;
        }
        let generation = u32::from_be_bytes(r.take()?);
        let boots = u32::from_be_bytes(r.take()?);
        let epoch = Epoch(u16::from_be_bytes(r.take()?));
        let next_epoch = Epoch(u16::from_be_bytes(r.take()?));
        let [confirmed, sending] = r.take()?;
        let piv_bound = u32::from_be_bytes(r.take()?);
        let last_command = u64::from_be_bytes(r.take()?);
        let entropy = r.take()?;
        let mut keys = [None; 2];
        for slot in &mut keys {
            let [kind, index] = r.take()?;
            let bound = u32::from_be_bytes(r.take()?);
            let key = r.take::<16>()?;
            *slot = (kind > 0).then_some(StoredKey { index, bound, key: (kind == 2).then_some(key) });
        }
        let mut results = Vec::new();
        for _ in 0..RESULTS {
            let [present] = r.take()?;
            let id = u64::from_be_bytes(r.take()?);
            let [status] = r.take()?;
            if present == 1 {
                results.push(StoredResult { id, status }).ok()?;
            }
        }
        let confirmed = confirmed & 1 == 1;
        let record =
            Self { boots, epoch, next_epoch, confirmed, piv_bound, keys, sending, last_command, results, entropy };
        Some((generation, record))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        for key in self.keys.iter_mut().flatten() {
            key.key.zeroize();
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("boots", &self.boots)
            .field("epoch", &self.epoch)
            .field("piv_bound", &self.piv_bound)
            .field("last_command", &self.last_command)
            .finish_non_exhaustive()
    }
}

/// The record in memory, and what of it is not durable yet.
#[derive(Debug)]
pub(crate) struct Durable {
    record: Record,
    dirty: bool,
    handed_out: bool,
}

impl Durable {
    /// The record is written once at each boot.
    pub(crate) const fn new(record: Record) -> Self {
        Self { record, dirty: true, handed_out: false }
    }

    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    /// To change the record: it is written before anything else leaves.
    pub(crate) const fn change(&mut self) -> &mut Record {
        self.dirty = true;
        &mut self.record
    }

    /// The next record to write, if one is due. The next call says that the one before is durable: what was leased in it
    /// can be used from then on.
    pub(crate) fn due(&mut self, mut keys: Option<&mut LinkKeys>, mut piv: Option<&mut Lease>) -> Option<Record> {
        if core::mem::take(&mut self.handed_out) {
            for key in self.record.keys.iter().flatten() {
                if let Some(keys) = &mut keys {
                    keys.extend_lease(LeaseWrite { key_index: key.index, bound: key.bound });
                }
            }
            if let Some(piv) = &mut piv {
                piv.extend(self.record.piv_bound);
            }
        }
        if let Some(keys) = &keys {
            if let Some(write) = keys.lease_due()
                && let Some(key) = self.record.key_mut(write.key_index)
            {
                key.bound = key.bound.max(write.bound);
                self.dirty = true;
            }
            let sending = keys.sending().unwrap_or_default();
            self.dirty |= self.record.sending != sending;
            self.record.sending = sending;
        }
        if let Some(bound) = piv.filter(|p| p.left() < PIV_LOW).and_then(|p| p.proposal(PIV_BLOCK)) {
            self.record.piv_bound = bound;
            self.dirty = true;
        }
        self.handed_out = core::mem::take(&mut self.dirty);
        self.handed_out.then(|| self.record.clone())
    }
}

struct Cursor<'b> {
    bytes: &'b mut [u8; RECORD],
    at: usize,
}

impl Cursor<'_> {
    fn put(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + part.len()) {
            place.copy_from_slice(part);
        }
        self.at += part.len();
    }
}

struct Taker<'b>(&'b [u8]);

impl Taker<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// CRC-32 of IEEE 802.3 (reflected, polynomial EDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    /// A medium that can lose power in the middle of a write.
    #[derive(Clone, Debug)]
    struct Flash {
        slots: [[u8; RECORD]; 2],
        /// Bytes of the next write that still reach it.
        power: Option<usize>,
    }

    impl Flash {
        fn blank() -> Self {
            Self { slots: [[0xFF; RECORD]; 2], power: None }
        }
    }

    impl Storage for Flash {
        type Error = &'static str;
        fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), Self::Error> {
            *out = self.slots[slot as usize];
            Ok(())
        }
        fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), Self::Error> {
            let n = self.power.unwrap_or(RECORD);
            self.slots[slot as usize][..n].copy_from_slice(&bytes[..n]);
            if n < RECORD { Err("power cut") } else { Ok(()) }
        }
    }

    fn record(boots: u32) -> Record {
        let mut r = Record::new(Epoch(3));
        (r.boots, r.piv_bound, r.last_command, r.sending, r.confirmed) = (boots, boots * 64, 9, 2, true);
        r.keys = [
            Some(StoredKey { index: 1, bound: 1024, key: None }),
            Some(StoredKey { index: 2, bound: 7, key: Some([5; 16]) }),
        ];
        r.results.push(StoredResult { id: 8, status: 3 }).unwrap();
        r
    }

    #[test]
    fn the_check_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_record_decodes_to_itself() {
        for r in [Record::new(Epoch(1)), record(7)] {
            assert_eq!(Record::decode(&r.encode(77)), Some((77, r)));
        }
    }

    #[test]
    fn a_blank_device_has_no_record_and_a_damaged_one_is_not_blank() {
        let (mut slots, none) = Slots::open(Flash::blank()).unwrap();
        assert_eq!(none, None);
        slots.write(&record(1)).unwrap();
        let mut flash = slots.into_storage();
        let (_, found) = Slots::open(flash.clone()).unwrap();
        assert_eq!(found, Some(record(1)));
        // After the first write both slots are whole: damage to one is survived, damage to both is told.
        flash.slots[0][9] ^= 1;
        assert_eq!(Slots::open(flash.clone()).unwrap().1.map(|r| r.boots), Some(1));
        flash.slots[1][200] ^= 1;
        assert_eq!(Slots::open(flash).err(), Some(OpenError::Corrupt));
    }

    #[test]
    fn a_device_whose_very_first_write_was_cut_is_still_new() {
        for cut in [0, 1, 100, RECORD - 1] {
            let (mut slots, _) = Slots::open(Flash { power: Some(cut), ..Flash::blank() }).unwrap();
            slots.write(&record(1)).unwrap_err();
            assert_eq!(Slots::open(slots.into_storage()).unwrap().1, None);
        }
    }

    #[test]
    fn a_slot_that_is_damaged_later_repeats_neither_a_number_nor_a_command() {
        let (mut slots, _) = Slots::open(Flash::blank()).unwrap();
        slots.write(&record(1)).unwrap();
        // Bounds alone alternate; a command goes to both.
        let mut leased = record(1);
        leased.piv_bound += PIV_BLOCK;
        leased.keys[0].as_mut().unwrap().bound += BLOCK;
        slots.write(&leased).unwrap();
        let mut flash = slots.storage.clone();
        flash.slots[slots.newest as usize] = [0xFF; RECORD];
        let found = Slots::open(flash).unwrap().1.unwrap();
        assert!(found.piv_bound >= leased.piv_bound);
        assert!(found.key(1).unwrap().bound >= leased.key(1).unwrap().bound);
        let mut commanded = leased.clone();
        commanded.last_command += 1;
        slots.write(&commanded).unwrap();
        for slot in 0..2 {
            let mut flash = slots.storage.clone();
            flash.slots[slot][30] ^= 1;
            assert_eq!(Slots::open(flash).unwrap().1.unwrap().last_command, commanded.last_command);
        }
    }

    #[test]
    fn generations_wrap() {
        let (old, new) = (record(1).encode(u32::MAX), record(2).encode(0));
        assert_eq!(choose(&old, &new).map(|c| (c.0, c.2.boots)), Some((Slot::B, 2)));
        assert_eq!(choose(&new, &old).map(|c| (c.0, c.2.boots)), Some((Slot::A, 2)));
    }

    #[test]
    fn a_lease_is_usable_only_after_the_call_that_follows_the_write() {
        let mut durable = Durable::new(Record::new(Epoch(1)));
        let mut piv = Lease::resume(0, 1 << 20);
        let written = durable.due(None, Some(&mut piv)).unwrap();
        assert_eq!((written.piv_bound, piv.left()), (64, 0));
        assert_eq!(durable.due(None, Some(&mut piv)), None);
        assert_eq!(piv.left(), 64);
    }

    proptest! {
        #[test]
        fn a_torn_write_leaves_the_older_record(before in 1u32..20, cut in 0usize..RECORD) {
            let (mut slots, _) = Slots::open(Flash::blank()).unwrap();
            for boots in 1..=before {
                slots.write(&record(boots)).unwrap();
            }
            slots.storage.power = Some(cut);
            let torn = slots.write(&record(before + 1));
            prop_assert!(torn.is_err());
            let (_, found) = Slots::open(slots.into_storage()).unwrap();
            let found = found.unwrap();
            // All but the last bytes may have been equal already: then the new one is whole.
            prop_assert!(found.boots == before || found == record(before + 1));
            prop_assert!(found.piv_bound >= record(before).piv_bound);
        }

        #[test]
        fn a_flipped_bit_is_seen(at in 0usize..RECORD, bit in 0u8..8) {
            let mut bytes = record(3).encode(5);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }
}
