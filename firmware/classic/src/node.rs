//! A node of the hardened profile: its key, its numbers, and the renewal of the key (docs/protocol.md 12).

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, Offer};
use fivefold_core::id::{Serial, ServerKid};
use fivefold_core::wire::key_message::{Auth, Header, KeyEpoch, KeyLen, KeyLevel, Kr1, RsaSize};
use fivefold_waspmote::hardened::{Answer, Epoch, Key, Lease, Number, Peer, Refused, seal};
use fivefold_waspmote::key_message::Part;
use zeroize::{Zeroize, Zeroizing};

use crate::oaep;
use crate::storage::{self, Broken, KR1, Slot, Storage};

/// Why something was not done. The number is what C gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The EEPROM failed, or gave back something else: stop, nothing may be sent.
    Storage = 1,
    /// There is no key, or its numbers were lost: renew first.
    NoKey = 2,
    /// No number is left under this key: renew first.
    Spent = 3,
    /// What was to be sealed is no binary frame of v15 hardware, or is too long.
    Frame = 4,
    /// The place for the result is too small.
    Room = 5,
    /// What came is not the answer that is waited for, or somebody changed it.
    Refused = 6,
    /// No answer is waited for.
    Unasked = 7,
    /// The sketch's RSA failed.
    Rsa = 8,
    /// An argument that this library does not know.
    Argument = 9,
}

impl From<Broken> for Fault {
    fn from(_: Broken) -> Self {
        Self::Storage
    }
}

impl From<Refused> for Fault {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Buffer { .. } => Self::Room,
            Refused::Clear(_) | Refused::Long { .. } => Self::Frame,
            _ => Self::Refused,
        }
    }
}

/// A node with one peer. Two of them, each with an EEPROM area of its own, speak with gateway and cloud.
pub struct Node {
    serial: [u8; 8],
    peer: Peer,
    epoch: Epoch,
    key: Option<Key>,
    key_slot: Slot,
    lease: Lease,
    lease_slot: Option<Slot>,
    sent: Option<Number>,
}

/// What makes a key message.
pub struct Renewal<'b> {
    /// Which key of the server: SHA-256(SPKI)[0..4].
    pub server: [u8; 4],
    /// The secret of this node and the server's record.
    pub enrolment_key: &'b [u8; 32],
    /// Fresh randomness, all 80 bytes of it secret: seed of OAEP(32), seed(16), new key(32).
    pub random: &'b [u8; 80],
}

impl Node {
    /// After a boot: goes on where no number was used.
    pub fn boot(storage: &mut impl Storage, peer: Peer, serial: [u8; 8]) -> Result<Self, Fault> {
        let lease = storage::read_lease(storage)?;
        let stored = storage::read_key(storage)?;
        let (key_slot, epoch) = stored.as_ref().map_or((Slot::B, Epoch(0)), |(slot, epoch, _)| (*slot, *epoch));
        // A key whose numbers are lost must not be used again; its epoch still counts.
        let key = stored.and_then(|(_, _, mut bytes)| {
            let key = lease.is_some().then(|| Key::from_bytes(bytes));
            bytes.zeroize();
            key
        });
        let (lease_slot, end) = lease.map_or((None, 0), |(slot, end)| (Some(slot), end));
        Ok(Self { serial, peer, epoch, key, key_slot, lease: Lease::boot(end), lease_slot, sent: None })
    }

    /// Takes a key that was brought by hand. KR1 brings all that come after it.
    pub fn install(&mut self, storage: &mut impl Storage, epoch: Epoch, key: &[u8; 32]) -> Result<(), Fault> {
        if self.lease_slot.is_none() {
            storage::keep_lease(storage, Slot::A, 0)?;
            self.lease_slot = Some(Slot::A);
        }
        storage::keep_key(storage, self.key_slot.other(), epoch, key)?;
        (self.key_slot, self.epoch, self.key, self.sent) =
            (self.key_slot.other(), epoch, Some(Key::from_bytes(*key)), None);
        Ok(())
    }

    /// The epoch of the key.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Seals a binary frame that the vendor's library made. Every call takes a number, whatever becomes of the frame.
    pub fn seal(
        &mut self,
        storage: &mut impl Storage,
        seed: [u8; 4],
        frame: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let key = self.key.as_ref().ok_or(Fault::NoKey)?;
        if let Some(end) = self.lease.due() {
            let slot = self.lease_slot.map_or(Slot::A, Slot::other);
            storage::keep_lease(storage, slot, end)?;
            self.lease_slot = Some(slot);
            self.lease.extend(end);
        }
        let sequence = self.lease.take().map_err(|_| Fault::Spent)?;
        let number = Number { epoch: self.epoch, sequence, seed };
        let len = seal(self.peer, key, &number, frame, out)?;
        self.sent = Some(number);
        Ok(len)
    }

    /// Opens the answer to the frame that was sealed last. It is taken once.
    pub fn open_answer(&mut self, frame: &[u8]) -> Result<Answer, Fault> {
        let (Some(sent), Some(key)) = (&self.sent, &self.key) else { return Err(Fault::Unasked) };
        let answer = Answer::open(frame, self.peer, &self.serial, sent, key)?;
        self.sent = None;
        Ok(answer)
    }

    /// KR1 for the next key. The one that waits for its answer comes out again, also after a boot, byte for byte; a new one
    /// is made if there is none, through `public`, which raises a number to 65537 under the server's modulus, in place.
    pub fn offer(
        &mut self,
        storage: &mut impl Storage,
        renewal: &Renewal<'_>,
        public: impl FnOnce(&mut [u8; oaep::K]) -> Result<(), Fault>,
        kr1: &mut [u8; KR1],
    ) -> Result<(), Fault> {
        let header = Header {
            size: RsaSize::Rsa2048,
            auth: Auth::Mac,
            serial: Serial(self.serial),
            level: match self.peer {
                Peer::Cloud => KeyLevel::E3,
                Peer::Gateway => KeyLevel::E2,
            },
            keylen: KeyLen::B32,
            epoch: KeyEpoch(self.epoch.0).next().ok_or(Fault::Spent)?,
            server: ServerKid(renewal.server),
        };
        if let Some(offered) = storage::read_offer(storage)?
            && Kr1::parse(&offered.kr1).is_ok_and(|kr1| kr1.header == header)
        {
            *kr1 = offered.kr1;
            return Ok(());
        }
        let label = header.to_bytes();
        let Some((oaep_seed, m)) = renewal.random.split_first_chunk::<{ oaep::SEED }>() else {
            return Err(Fault::Argument);
        };
        let Some((seed, key)) = m.split_first_chunk::<16>() else { return Err(Fault::Argument) };
        let (head, rest) = kr1.split_first_chunk_mut::<24>().ok_or(Fault::Room)?;
        let (c, mac) = rest.split_first_chunk_mut::<{ oaep::K }>().ok_or(Fault::Room)?;
        *head = label;
        oaep::encode(&label, m, oaep_seed, c).ok_or(Fault::Argument)?;
        if let Err(fault) = public(c) {
            // It would show M to whoever reads the buffer.
            c.zeroize();
            return Err(fault);
        }
        mac.copy_from_slice(&EnrolmentKey::new(*renewal.enrolment_key).mac(&label, c));
        storage::keep_offer(storage, kr1, seed, key)?;
        Ok(())
    }

    /// Takes the server's KR2, as it came in a frame of type 6A. The new key is then kept and in use.
    pub fn take_answer(&mut self, storage: &mut impl Storage, frame: &[u8]) -> Result<(), Fault> {
        let part = Part::parse(frame).map_err(|_| Fault::Refused)?;
        if part.serial != self.serial || part.count != 1 {
            return Err(Fault::Refused);
        }
        let offered = storage::read_offer(storage)?.ok_or(Fault::Unasked)?;
        let kr1 = Kr1::parse(&offered.kr1).map_err(|_| Fault::Unasked)?;
        // One that was answered stays where it is, and is over.
        if KeyEpoch(self.epoch.0).next() != Some(kr1.header.epoch) {
            return Err(Fault::Unasked);
        }
        let fresh = FreshKey::new(&offered.seed, &offered.key).ok_or(Fault::Unasked)?;
        let fresh = Offer::new(&kr1, fresh).answer(part.bytes).map_err(|_| Fault::Refused)?;
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(fresh.danger_key().try_into().map_err(|_| Fault::Unasked)?);
        self.install(storage, Epoch(kr1.header.epoch.0), &key)
    }
}

#[cfg(test)]
mod tests;
