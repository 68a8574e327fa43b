//! What a node must not forget: one record in two slots (docs/protocol.md 8.2).
//!
//! Each write goes to the slot that does not hold the newest record, with a greater generation number and a CRC-32. A
//! write that is cut short leaves the other slot as it was: work is lost, safety is not.
//!
//! A slot can also be damaged long after it was written, and then the older one is behind: by one lease, for whatever else
//! changes is written to both. So where one slot is damaged, the numbers of one lease more are given up.

mod durable;
mod record;

use core::fmt;

use zeroize::Zeroize;

pub(crate) use durable::Durable;
pub use record::{FORMAT, Record, StoredContext, StoredKey, StoredResult};

/// Bytes of an encoded record. Records of 256 bytes, as earlier versions wrote them, are read with anything behind them.
pub const RECORD: usize = 288;
/// Sender numbers of C2 and C3 in one durable lease (K of docs/protocol.md 17).
pub const PIV_BLOCK: u32 = 64;
/// Command results that wait for their acknowledgement, at most.
pub const RESULTS: usize = 4;

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
    /// No slot can be read, and one says that it has this format, which is later than [`FORMAT`].
    Newer(u8),
    /// The medium failed.
    Medium(E),
}

impl<E: fmt::Display> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt => f.write_str("both copies of the counters are damaged; enrol the device again"),
            Self::Newer(found) => {
                write!(
                    f,
                    "the counters have format {found}, and this program knows up to format {FORMAT}; use the later one"
                )
            }
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
        let later = Record::later(&a).or_else(|| Record::later(&b));
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
            None => Err(later.map_or(OpenError::Corrupt, OpenError::Newer)),
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use fivefold_core::e1_link::BLOCK;
    use fivefold_core::id::Epoch;
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
    fn counters_of_a_later_format_are_told_from_damaged_ones_and_a_slot_that_reads_goes_before() {
        let (mut slots, _) = Slots::open(Flash::blank()).unwrap();
        slots.write(&record(1)).unwrap();
        let mut flash = slots.into_storage();
        flash.slots[1][1] = FORMAT + 1;
        assert_eq!(Slots::open(flash.clone()).unwrap().1.map(|r| r.boots), Some(1));
        flash.slots[0][1] = FORMAT + 2;
        assert_eq!(Slots::open(flash.clone()).err(), Some(OpenError::Newer(FORMAT + 2)));
        flash.slots[0][0] ^= 1;
        assert_eq!(Slots::open(flash.clone()).err(), Some(OpenError::Newer(FORMAT + 1)));
        flash.slots[1][1] = 0;
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
