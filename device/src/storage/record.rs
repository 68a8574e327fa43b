//! The record: what is in it, and its 256 bytes.

use core::fmt;

use fivefold_core::e1_link::BLOCK;
use fivefold_core::e2_gateway::{E2Local, E2Root};
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::e5_renewal::{CloudSecrets, LocalSecrets};
use fivefold_core::id::Epoch;
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::BlindKey;
use heapless::Vec;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::evidence::Chain;

use super::{PIV_BLOCK, RECORD, RESULTS};

const MAGIC: u8 = 0x46;
/// Format of a record that is written. Version 2 had 256 bytes and no batches. Version 1 had no contexts either, and zeros in their place: it is read
/// as a record without any.
pub const FORMAT: u8 = 3;
const WITHOUT_BATCHES: u8 = 2;
const WITHOUT_CONTEXT: u8 = 1;
const CRC_AT: usize = RECORD - 4;
/// Bytes of a record before version 3.
const SHORT: usize = 256;
/// Beside the length of the secret: it was agreed with a gateway alone.
const LOCAL: u8 = 0x80;

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

/// What the contexts of an epoch that EDHOC agreed on are derived from (docs/protocol.md 3). Wiped when dropped, never
/// printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct StoredContext {
    secret: [u8; 32],
    /// 16 with algorithm 10, 32 with 11.
    secret_len: u8,
    /// The secret is that of C2 local, and there is no K_e2root.
    local: bool,
    salt: [u8; 8],
    e2_root: [u8; 32],
    blind: [u8; 32],
}

impl StoredContext {
    const NONE: Self =
        Self { secret: [0; 32], secret_len: 0, local: false, salt: [0; 8], e2_root: [0; 32], blind: [0; 32] };

    /// What a run with the cloud gave.
    pub fn new(agreed: &CloudSecrets) -> Self {
        let mut this = Self::of(agreed.e3.danger_master_secret(), agreed.e3.master_salt(), &agreed.blind);
        this.e2_root = *agreed.e2_root.danger_bytes();
        this
    }

    /// What a run with a gateway alone gave.
    pub fn local(agreed: &LocalSecrets) -> Self {
        let mut this = Self::of(agreed.e2.danger_master_secret(), agreed.e2.master_salt(), &agreed.blind);
        this.local = true;
        this
    }

    fn of(secret: &[u8], salt: &[u8], blind: &BlindKey) -> Self {
        let mut this = Self { secret_len: secret.len() as u8, blind: *blind.danger_bytes(), ..Self::NONE.clone() };
        this.secret.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        this.salt.iter_mut().zip(salt).for_each(|(to, from)| *to = *from);
        this
    }

    fn secret(&self) -> Option<&[u8]> {
        self.secret.get(..self.secret_len.into())
    }

    /// Whether it was agreed with a gateway alone.
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// MS3 and salt3.
    pub fn e3(&self) -> Option<E3Secret> {
        E3Secret::new(self.secret().filter(|_| !self.local)?, &self.salt)
    }

    /// K_e2root; `None` where it was agreed with a gateway alone.
    pub const fn e2_root(&self) -> Option<E2Root> {
        if self.local { None } else { Some(E2Root::new(self.e2_root)) }
    }

    /// The secret of C2 local.
    pub fn e2_local(&self) -> Option<E2Local> {
        E2Local::new(self.secret().filter(|_| self.local)?, &self.salt)
    }

    /// K_blind.
    pub const fn blind(&self) -> BlindKey {
        BlindKey::new(self.blind)
    }
}

impl fmt::Debug for StoredContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredContext(..)")
    }
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
    /// Whether the other side answered under the present context.
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
    /// The contexts of `epoch`, where EDHOC agreed on them (W3); `None` for installed ones, and where there is none yet.
    pub context: Option<StoredContext>,
    /// Runs of EDHOC since the last one that succeeded.
    pub runs: u8,
    /// How long no answer verified: 96 stand for what recovery waits for ([`Timers::recovery`](crate::renewal::Timers)).
    pub silence: u8,
    /// Messages since then that wanted an answer.
    pub unanswered: u8,
    /// The last batch of readings that was signed.
    pub chain: Chain,
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
            context: None,
            runs: 0,
            silence: 0,
            unanswered: 0,
            chain: Chain::NONE,
        }
    }

    /// What is stored of a network key.
    pub fn key(&self, index: u8) -> Option<&StoredKey> {
        self.keys.iter().flatten().find(|k| k.index == index)
    }

    pub(crate) fn key_mut(&mut self, index: u8) -> Option<&mut StoredKey> {
        self.keys.iter_mut().flatten().find(|k| k.index == index)
    }

    /// A mark of everything but bounds, counts, and results: contexts, epochs, network keys, commands. Of those an older
    /// copy would do harm.
    pub(super) fn essence(&self) -> u32 {
        let mut kept = self.clone();
        (kept.boots, kept.piv_bound, kept.sending, kept.entropy, kept.confirmed) = (0, 0, 0, [0; 4], false);
        (kept.runs, kept.silence, kept.unanswered) = (0, 0, 0);
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
    pub(super) fn skip_leases(&mut self) {
        self.piv_bound = self.piv_bound.saturating_add(PIV_BLOCK);
        for key in self.keys.iter_mut().flatten() {
            key.bound = key.bound.saturating_add(BLOCK);
        }
    }

    /// Layout: magic, version, generation(4), boots(4), epoch(2), next_epoch(2), confirmed, sending, piv_bound(4),
    /// last_command(8), entropy(4), two keys of 22, four results of 10; then, from version 2 on, runs, silence, unanswered,
    /// length of MS3 (0 for no context), MS3(32), salt3(8), K_e2root(32), K_blind(32); from version 3 on, number of the last
    /// batch(4), hash of its statement(32); zeros; CRC-32. Of C2 local the length is 0x80 more, its secret and salt stand in
    /// place of MS3 and salt3, and zeros in place of K_e2root.
    pub(super) fn encode(&self, generation: u32) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let mut w = Cursor { bytes: &mut out, at: 0 };
        w.put(&[MAGIC, FORMAT]);
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
        w.put(&[self.runs, self.silence, self.unanswered]);
        let none = StoredContext::NONE;
        let context = self.context.as_ref().unwrap_or(&none);
        w.put(&[context.secret_len | if context.local { LOCAL } else { 0 }]);
        w.put(&context.secret);
        w.put(&context.salt);
        w.put(&context.e2_root);
        w.put(&context.blind);
        w.put(&self.chain.number.to_be_bytes());
        w.put(&self.chain.statement.0);
        let crc = crc32(out.get(..CRC_AT).unwrap_or_default());
        Cursor { bytes: &mut out, at: CRC_AT }.put(&crc.to_be_bytes());
        out
    }

    /// The format of a slot that begins as a record of a later one.
    pub(super) fn later(bytes: &[u8; RECORD]) -> Option<u8> {
        match *bytes {
            // FF is what was never written.
            [MAGIC, version, ..] if version > FORMAT && version != 0xFF => Some(version),
            _ => None,
        }
    }

    pub(super) fn decode(bytes: &[u8; RECORD]) -> Option<(u32, Self)> {
        let [MAGIC, version, ..] = *bytes else { return None };
        let len = match version {
            WITHOUT_CONTEXT | WITHOUT_BATCHES => SHORT,
            FORMAT => RECORD,
            _ => return None,
        };
        let (body, crc) = bytes.get(..len)?.split_last_chunk::<4>()?;
        if crc32(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut r = Taker(body.get(2..)?);
        let generation = u32::from_be_bytes(r.take()?);
        let mut record = Self::new(Epoch(0));
        record.boots = u32::from_be_bytes(r.take()?);
        record.epoch = Epoch(u16::from_be_bytes(r.take()?));
        record.next_epoch = Epoch(u16::from_be_bytes(r.take()?));
        let [confirmed, sending] = r.take()?;
        (record.confirmed, record.sending) = (confirmed & 1 == 1, sending);
        record.piv_bound = u32::from_be_bytes(r.take()?);
        record.last_command = u64::from_be_bytes(r.take()?);
        record.entropy = r.take()?;
        for slot in &mut record.keys {
            let [kind, index] = r.take()?;
            let bound = u32::from_be_bytes(r.take()?);
            let key = r.take::<16>()?;
            *slot = (kind > 0).then_some(StoredKey { index, bound, key: (kind == 2).then_some(key) });
        }
        for _ in 0..RESULTS {
            let [present] = r.take()?;
            let id = u64::from_be_bytes(r.take()?);
            let [status] = r.take()?;
            if present == 1 {
                record.results.push(StoredResult { id, status }).ok()?;
            }
        }
        if version >= WITHOUT_BATCHES {
            [record.runs, record.silence, record.unanswered] = r.take()?;
            let [kind] = r.take()?;
            let (secret_len, local) = (kind & !LOCAL, kind & LOCAL != 0);
            let (secret, salt) = (r.take()?, r.take()?);
            let context = StoredContext { secret_len, local, secret, salt, e2_root: r.take()?, blind: r.take()? };
            record.context = Some(context).filter(|c| c.secret_len > 0);
        }
        if version == FORMAT {
            record.chain = Chain { number: u32::from_be_bytes(r.take()?), statement: Hash(r.take()?) };
        }
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
            .field("next_epoch", &self.next_epoch)
            .field("piv_bound", &self.piv_bound)
            .field("last_command", &self.last_command)
            .finish_non_exhaustive()
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
    use super::*;

    #[test]
    fn the_check_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    fn record() -> Record {
        let mut r = Record::new(Epoch(3));
        (r.boots, r.piv_bound, r.last_command, r.sending, r.confirmed) = (7, 448, 9, 2, true);
        r.keys = [
            Some(StoredKey { index: 1, bound: 1024, key: None }),
            Some(StoredKey { index: 2, bound: 7, key: Some([5; 16]) }),
        ];
        r.results.push(StoredResult { id: 8, status: 3 }).unwrap();
        r
    }

    fn context(secret_len: u8) -> StoredContext {
        let mut secret = [0; 32];
        secret[..secret_len.into()].fill(0x33);
        StoredContext { secret, secret_len, local: false, salt: [4; 8], e2_root: [5; 32], blind: [6; 32] }
    }

    #[test]
    fn a_record_decodes_to_itself() {
        let mut agreed = record();
        (agreed.runs, agreed.silence, agreed.unanswered) = (2, 95, 16);
        agreed.context = Some(context(32));
        let mut short = agreed.clone();
        short.context = Some(context(16));
        let mut local = short.clone();
        local.context = Some(StoredContext { local: true, e2_root: [0; 32], ..context(16) });
        assert_ne!(local.essence(), short.essence());
        let mut signed = agreed.clone();
        signed.chain = Chain { number: 0x0102_0304, statement: Hash([9; 32]) };
        for r in [Record::new(Epoch(1)), record(), agreed, short, local, signed] {
            assert_eq!(Record::decode(&r.encode(77)), Some((77, r)));
        }
    }

    #[test]
    fn what_was_agreed_with_a_gateway_alone_gives_nothing_of_the_cloud_and_the_other_way_round() {
        let (cloud, local) = (context(32), StoredContext { local: true, e2_root: [0; 32], ..context(32) });
        assert!(cloud.e3().is_some() && cloud.e2_root().is_some() && cloud.e2_local().is_none());
        assert!(local.e3().is_none() && local.e2_root().is_none());
        assert_eq!(local.e2_local().unwrap().danger_master_secret(), [0x33; 32]);
    }

    /// As an earlier version wrote it: 256 bytes, and behind them what the medium has.
    fn short(record: &Record, version: u8) -> [u8; RECORD] {
        let mut bytes = record.encode(5);
        bytes[1] = version;
        let crc = crc32(&bytes[..SHORT - 4]);
        bytes[SHORT - 4..SHORT].copy_from_slice(&crc.to_be_bytes());
        bytes[SHORT..].fill(0xFF);
        bytes
    }

    #[test]
    fn records_of_earlier_versions_are_read_as_what_they_were() {
        let mut agreed = record();
        (agreed.runs, agreed.context) = (2, Some(context(32)));
        assert!(agreed.encode(5)[224..CRC_AT].iter().all(|&b| b == 0), "nothing of version 3 is said");
        assert_eq!(Record::decode(&short(&agreed, WITHOUT_BATCHES)), Some((5, agreed)));
        let before = record();
        assert!(before.encode(5)[116..CRC_AT].iter().all(|&b| b == 0), "nothing of version 2 is said");
        assert_eq!(Record::decode(&short(&before, WITHOUT_CONTEXT)), Some((5, before.clone())));
        for version in [0, FORMAT, FORMAT + 1] {
            assert_eq!(Record::decode(&short(&before, version)), None);
        }
        let mut later = before.encode(5);
        later[1] = FORMAT + 1;
        let crc = crc32(&later[..CRC_AT]);
        later[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(Record::decode(&later), None);
    }

    #[test]
    fn a_context_and_an_epoch_are_of_the_essence_and_what_only_counts_is_not() {
        let before = record();
        let mut counted = before.clone();
        (counted.runs, counted.silence, counted.unanswered, counted.confirmed) = (1, 2, 3, false);
        counted.piv_bound += PIV_BLOCK;
        assert_eq!(counted.essence(), before.essence());
        let mut used_up = before.clone();
        used_up.next_epoch = Epoch(before.next_epoch.0 + 1);
        let mut agreed = before.clone();
        agreed.context = Some(context(32));
        let mut signed = before.clone();
        signed.chain = Chain { number: 1, statement: Hash([7; 32]) };
        for changed in [used_up, agreed, signed] {
            assert_ne!(changed.essence(), before.essence());
        }
    }

    #[test]
    fn nothing_of_a_context_is_printed() {
        let mut r = record();
        r.context = Some(context(32));
        extern crate std;
        assert!(!std::format!("{r:?}{:?}", r.context).contains("51"));
    }
}
