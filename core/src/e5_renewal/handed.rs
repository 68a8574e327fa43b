//! EAD_4 of message_4: the network key that a device slept through (docs/protocol.md 4.3, 11).

use core::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::SealError;
use crate::wire::cbor::{Malformed, Reader, Writer};
use crate::wire::control::LinkKey;
use crate::wire::state::Phase;

use super::message::Ead;

/// The label of the item. It is not critical: a device that does not know it has its new contexts all the same.
const LABEL: i64 = 65002;
/// `[idx, key, phase]`, with the longest index.
const VALUE: usize = 1 + 2 + 17 + 1;

/// The network key that the network sends under now, for a device that has none but older ones. Its holder is to send under
/// it at once. Wiped when dropped, never printed.
#[derive(Clone, ZeroizeOnDrop)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct HandedKey {
    #[zeroize(skip)]
    index: u8,
    key: [u8; 16],
}

impl HandedKey {
    /// EAD_4, at most.
    pub(super) const LONGEST: usize = 3 + 1 + VALUE;

    /// The key with this index, 1 to 254.
    pub const fn new(index: u8, key: [u8; 16]) -> Self {
        Self { index, key }
    }

    /// What the device is told: item 7 of docs/protocol.md 7.3, key and switch in one.
    pub const fn told(&self) -> LinkKey<'_> {
        LinkKey { index: self.index, key: Some(&self.key), phase: Phase::Switch }
    }

    /// Writes EAD_4.
    pub(super) fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let mut value = Zeroizing::new([0; VALUE]);
        let mut inner = Writer::new(&mut *value);
        self.told().emit(&mut inner)?;
        let len = inner.len();
        w.int(LABEL)?;
        w.bytes(value.get(..len).unwrap_or_default())
    }

    /// Reads EAD_4: other items are passed over, unless they are critical.
    pub(super) fn read(ead_4: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(ead_4);
        let mut handed = None;
        while let Some(item) = Ead::next(&mut r)? {
            match (item.label, item.value) {
                (LABEL, Some(value)) if handed.is_none() => handed = Some(Self::parse(value)?),
                (LABEL, _) => return Err(Malformed::new("EAD_4: a network key has a value, and comes once")),
                _ => item.ignored()?,
            }
        }
        Ok(handed)
    }

    fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(value);
        let told = LinkKey::parse(&mut r)?;
        r.end()?;
        match told {
            LinkKey { index, key: Some(key), phase: Phase::Switch } => Ok(Self { index, key: *key }),
            _ => Err(Malformed::new("EAD_4: a network key comes whole, to be sent under")),
        }
    }
}

impl fmt::Debug for HandedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandedKey({})", self.index)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn emitted(index: u8) -> Vec<u8> {
        let mut out = [0; HandedKey::LONGEST];
        let mut w = Writer::new(&mut out);
        HandedKey::new(index, [7; 16]).emit(&mut w).unwrap();
        let len = w.len();
        out[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_read_and_is_as_long_as_it_may_be() {
        for (index, len) in [(1, 24), (23, 24), (24, 25), (254, HandedKey::LONGEST)] {
            let bytes = emitted(index);
            assert_eq!((bytes.len(), &bytes[..3]), (len, &[0x19, 0xFD, 0xEA][..]));
            assert_eq!(HandedKey::read(&bytes).unwrap(), Some(HandedKey::new(index, [7; 16])));
        }
        assert_eq!(HandedKey::read(&[]).unwrap(), None);
        // Padding and what others may add.
        assert_eq!(HandedKey::read(&[&[0x00, 0x41, 0][..], &emitted(2), &[0x05]].concat()).unwrap().unwrap().index, 2);
    }

    #[test]
    fn any_other_form_is_refused() {
        let good = emitted(2);
        let mut forms: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_vec()).collect();
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        // Index 0, no index, phases 1, 3, 4, a map, a critical label.
        forms
            .extend([(5, 0), (5, 0xF6), (23, 1), (23, 3), (23, 4), (4, 0xA3), (0, 0x39)].map(|(at, b)| changed(at, b)));
        forms.push([&good[..], &good].concat());
        // No key, a byte too much inside, index 255.
        forms.push([&good[..3], &[0x44, 0x83, 0x02, 0xF6, 0x02]].concat());
        forms.push([&good[..3], &[0x55], &good[4..], &[0]].concat());
        forms.push([&good[..3], &[0x55, 0x83, 0x18, 0xFF], &good[6..]].concat());
        for bytes in forms {
            assert!(HandedKey::read(&bytes).is_err(), "{bytes:02x?}");
        }
    }
}
