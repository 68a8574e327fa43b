//! Classic devices in a gateway's state (item 11): whose frames it knows, and what it opens of them.

use core::fmt;

use crate::error::SealError;
use crate::id::Sid;
use crate::wire::cbor::{Element, List, Malformed, Reader, Writer};

/// Keys of the hardened profile in one entry, at most: the one in use, those that drain and one that comes.
pub const HARDENED_KEYS: usize = 4;

/// A Waspmote that the gateway knows: `[serial, sid, flags, dev_eui or null, key or null, [[epoch, key]]]`. Prints all but
/// its keys.
#[derive(Clone, Copy, PartialEq)]
pub struct ClassicDevice<'b> {
    /// Its serial id: 16 lower-case hex digits (v15), or a decimal number of 32 bits without leading zeros (v12).
    pub serial: &'b str,
    /// Its short id, one of the network's.
    pub sid: Sid,
    /// What it speaks.
    pub flags: ClassicFlags,
    /// Its DevEUI, where its frames come by LoRaWAN.
    pub dev_eui: Option<[u8; 8]>,
    /// Its key for the gateway (E2 classic): 16, 24 or 32 bytes, AES-128, 192 or 256.
    pub key: Option<&'b [u8]>,
    /// Its keys for the gateway in the hardened profile, by epoch.
    pub hardened: List<'b, HardenedKey<'b>>,
}

/// What a classic device speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassicFlags {
    /// Bit 0: the hardened profile. Its other frames are worth no more than a stranger's.
    pub hardened: bool,
}

impl ClassicFlags {
    /// As in the state.
    pub const fn bits(self) -> u8 {
        self.hardened as u8
    }

    /// The reverse of [`ClassicFlags::bits`].
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self { hardened: false }),
            1 => Some(Self { hardened: true }),
            _ => None,
        }
    }
}

/// A key of the hardened profile: `[epoch, key]`. Prints all but the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HardenedKey<'b> {
    /// Its generation, which counts up with each renewal.
    pub epoch: u32,
    /// The key, AES-256.
    pub key: &'b [u8; 32],
}

impl fmt::Debug for HardenedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HardenedKey({})", self.epoch)
    }
}

impl<'b> Element<'b> for HardenedKey<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        Ok(Self { epoch: r.uint()?, key: r.bytes_of()? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.unsigned(self.epoch)?;
        w.bytes(self.key)
    }
}

impl fmt::Debug for ClassicDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClassicDevice({}, {})", self.serial, self.sid)
    }
}

impl ClassicDevice<'_> {
    /// Bytes of one as CBOR, at most: for cutting a state into parts.
    pub const LONGEST: usize = 1 + 17 + 3 + 1 + 9 + 34 + 1 + HARDENED_KEYS * (1 + 5 + 34);
}

impl<'b> Element<'b> for ClassicDevice<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(6)?;
        let serial = r.text()?;
        if !is_serial(serial) {
            return Err(Malformed::new("state: this is no serial of a classic device"));
        }
        let sid = Sid::from_bytes(*r.bytes_of()?);
        if !sid.is_assignable() {
            return Err(Malformed::new("state: this short id is reserved"));
        }
        let flags = ClassicFlags::from_bits(r.uint()?).ok_or(Malformed::new("state: unknown flag"))?;
        let dev_eui = if r.null() { None } else { Some(*r.bytes_of()?) };
        let key = if r.null() { None } else { Some(r.bytes()?) };
        if key.is_some_and(|k| !matches!(k.len(), 16 | 24 | 32)) {
            return Err(Malformed::new("state: a classic key has 16, 24 or 32 bytes"));
        }
        let hardened: List<'b, HardenedKey<'b>> = List::parse(r)?;
        if hardened.len() > HARDENED_KEYS || !hardened.iter().map(|k| k.epoch).is_sorted_by(|a, b| a < b) {
            return Err(Malformed::new("state: hardened keys are at most 4, by ascending epoch"));
        }
        if !hardened.is_empty() && !flags.hardened {
            return Err(Malformed::new("state: hardened keys of a device that is not hardened"));
        }
        Ok(Self { serial, sid, flags, dev_eui, key, hardened })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(6)?;
        w.text(self.serial)?;
        w.bytes(&self.sid.to_bytes())?;
        w.unsigned(self.flags.bits())?;
        match &self.dev_eui {
            Some(eui) => w.bytes(eui)?,
            None => w.null()?,
        }
        match self.key {
            Some(key) => w.bytes(key)?,
            None => w.null()?,
        }
        self.hardened.emit(w)
    }
}

/// Whether a text is a serial id as we write them (W1).
fn is_serial(text: &str) -> bool {
    let is_v15 = text.len() == 16 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let is_v12 = text.bytes().all(|c| c.is_ascii_digit())
        && text.parse::<u32>().is_ok()
        && (text == "0" || !text.starts_with('0'));
    is_v15 || is_v12
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GatewayGroup, Net};
    use crate::wire::state::{Part, State};

    fn read(bytes: &[u8]) -> Result<ClassicDevice<'_>, Malformed> {
        let mut r = Reader::new(bytes);
        let device = ClassicDevice::parse(&mut r)?;
        r.end()?;
        Ok(device)
    }

    fn written(device: &ClassicDevice<'_>, check: impl FnOnce(&[u8])) {
        let mut out = [0; ClassicDevice::LONGEST];
        let mut w = Writer::new(&mut out);
        device.emit(&mut w).unwrap();
        let len = w.len();
        check(&out[..len]);
    }

    #[test]
    fn a_classic_device_reads_as_it_was_written_and_not_when_cut() {
        let keys = core::array::from_fn::<_, HARDENED_KEYS, _>(|n| HardenedKey {
            epoch: 0xFFFF_FFF0 + n as u32,
            key: &[0x5A; 32],
        });
        let longest = ClassicDevice {
            serial: "403eb2f0c9a1d523",
            sid: Sid(0x0a17),
            flags: ClassicFlags { hardened: true },
            dev_eui: Some([9; 8]),
            key: Some(&[7; 32]),
            hardened: List::of(&keys),
        };
        let v12 = ClassicDevice {
            serial: "387264539",
            dev_eui: None,
            key: None,
            flags: ClassicFlags::default(),
            hardened: List::default(),
            ..longest
        };
        written(&longest, |bytes| assert_eq!(bytes.len(), ClassicDevice::LONGEST));
        for device in [longest, v12] {
            written(&device, |bytes| {
                assert_eq!(read(bytes), Ok(device));
                for cut in 0..bytes.len() {
                    assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
                }
            });
        }
        for serial in ["403EB2F0C9A1D523", "0387264539", "4294967296", "", "abc"] {
            written(&ClassicDevice { serial, ..v12 }, |bytes| assert!(read(bytes).is_err(), "{serial}"));
        }
        written(&ClassicDevice { key: Some(&[7; 20]), ..v12 }, |bytes| assert!(read(bytes).is_err(), "a key of 20"));
        written(&ClassicDevice { hardened: List::of(&keys), ..v12 }, |bytes| assert!(read(bytes).is_err(), "not so"));
        let twice = [keys[0], keys[0]];
        written(&ClassicDevice { hardened: List::of(&twice), ..longest }, |bytes| assert!(read(bytes).is_err()));
    }

    #[test]
    fn a_state_has_its_classic_devices_behind_everything_else_or_no_item_at_all() {
        let device = ClassicDevice {
            serial: "387264539",
            sid: Sid(0x0a17),
            flags: ClassicFlags::default(),
            dev_eui: None,
            key: None,
            hardened: List::default(),
        };
        let (one, twice) = ([device], [device, device]);
        let base = State {
            version: 1,
            net: Net(7),
            group: GatewayGroup(7),
            part: Part::WHOLE,
            devices: List::default(),
            contexts: List::default(),
            keys: List::default(),
            revoked: List::default(),
            revoked_serials: List::default(),
            local: List::default(),
            classic: List::of(&one),
        };
        let mut out = [0; 256];
        let len = base.emit(&mut out).unwrap();
        assert_eq!(State::parse(&out[..len]), Ok(base.clone()));
        assert_eq!(out[0], 0xAA, "ten items");
        let key = out.iter().position(|b| *b == 11).unwrap();
        out[key] = 10;
        assert!(State::parse(&out[..len]).is_err(), "item 10 with what is none");
        out[key] = 12;
        assert!(State::parse(&out[..len]).is_err(), "an unknown item");
        let len = State { classic: List::of(&twice), ..base.clone() }.emit(&mut out).unwrap();
        assert!(State::parse(&out[..len]).is_err(), "twice");
        let len = State { classic: List::default(), ..base }.emit(&mut out).unwrap();
        assert_eq!(out[0], 0xA9, "nine items");
        out[0] = 0xAA;
        out[len] = 11;
        out[len + 1] = 0x80;
        assert!(State::parse(&out[..len + 2]).is_err(), "an empty item");
    }
}
