//! E5R, the RSA key message of hardened classic devices (docs/protocol.md 12): the server's engine, and a device with RSA
//! by aws-lc-rs.
//!
//! [`KeyMessages`] has no socket, clock, disk or thread. A KR1 goes in with the time; what comes out is silence, an answer
//! that was given before, or a key that must be durable before its answer exists. Silence is the same for every cause, in
//! what it says and in the work that was done: [`KeyMessages::handle_message`] says how.

mod budget;
mod chain;
mod device;
pub(crate) mod rsa;

use std::collections::{HashMap, VecDeque};

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, MessageHash, to_be_signed};
use fivefold_core::error::{Code, Rejected, Severity};
use fivefold_core::id::{Serial, ServerKid};
use fivefold_core::suite::HASH;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{Auth, HEADER, Header, KeyEpoch, KeyLen, KeyLevel, Kr1, Kr2, RsaSize};
use zeroize::Zeroizing;

use budget::Budget;
use chain::{NotValid, Place};

pub use chain::{Answered, Chain, KeyState, PENDING, Switch};
pub use device::{DeviceSide, Identity, OfferError};
pub use rsa::{
    Decoy, Decrypt, DeviceKey, InvalidRsaKey, PrivateRsaKey, PublicRsaKey, ServerKey, SignatureRefused, Undecryptable,
    VerifyPss,
};

/// Messages of one device that are decrypted in an hour, and repeats that are answered in an hour.
pub const PER_HOUR: usize = budget::PER_HOUR;
/// How long frames under the old key are taken after the first under the new one (T_drain of docs/protocol.md 17), in
/// milliseconds.
pub const DRAIN_MS: u64 = 96 * 3_600_000;

/// Why a message is refused: all of them are counted as `E5-08`, none is told to the radio.
pub mod refusal {
    use super::{Code, Rejected};

    const fn refused(reason: &'static str) -> Rejected {
        Rejected::new(Code::KeyMessageRefused, reason)
    }

    /// The server has no key of that size, so that none of these messages is for it.
    pub const NO_KEY_OF_SIZE: Rejected = refused("this server has no RSA key of that size");
    /// Policy: the server makes keys of the other level.
    pub const LEVEL: Rejected = refused("a key of a level that is not agreed here");
    /// Policy: not the size or the kind of S that the device's record says.
    pub const ALG: Rejected = refused("another alg than the device's record says");
    /// Policy: not the length of key that the device's record says.
    pub const KEY_LENGTH: Rejected = refused("another key length than the device's record says");
    /// Policy: RSA-1024 of a device that the operator does not list.
    pub const RSA_1024_UNLISTED: Rejected = refused("RSA-1024 of a device that is not listed (AR-12)");
    /// Policy: RSA-1024 after the date up to which the device is listed.
    pub const RSA_1024_LAPSED: Rejected = refused("RSA-1024 after the date that the device is listed for (AR-12)");
    /// No device has that serial number.
    pub const SERIAL: Rejected = refused("unknown serial number");
    /// The message is for another server, or for a key that was retired.
    pub const SERVER_KEY: Rejected = refused("for a key that this server does not have (srv_kid)");
    /// S is not the device's.
    pub const PROOF: Rejected = refused("S does not hold");
    /// Neither the next epoch nor a repeat.
    pub const EPOCH: Rejected = refused("the epoch is not the next one");
    /// A second message for an epoch that is taken.
    pub const OTHER_OF_EPOCH: Rejected = refused("another message of this epoch was taken");
    /// More messages in an hour than are decrypted.
    pub const RATE: Rejected = refused("more than six messages in an hour");
    /// More repeats in an hour than are answered.
    pub const REPEAT_RATE: Rejected = refused("more than six repeats in an hour");
    /// C does not open under hdr as its label.
    pub const CIPHERTEXT: Rejected = refused("C does not open");
}

/// How a device proves that a message is its own (policy `kr1_auth`).
pub enum Proof {
    /// It cannot sign: an HMAC under its enrolment key. What it says proves nothing to a third party, and is labelled so.
    Mac {
        /// Shared with the server at enrolment.
        key: EnrolmentKey,
        /// Size of the server's key that it encrypts for.
        size: RsaSize,
    },
    /// It signs; the server's key has the size of its own.
    Signature(Box<dyn VerifyPss>),
}

impl Proof {
    fn alg(&self) -> (RsaSize, Auth) {
        match self {
            Self::Mac { size, .. } => (*size, Auth::Mac),
            Self::Signature(key) => (key.size(), Auth::Signature),
        }
    }

    fn check(&self, header: &[u8; HEADER], kr1: &Kr1<'_>) -> Result<(), Rejected> {
        let held = match self {
            Self::Mac { key, .. } => key.check(header, kr1.ciphertext, kr1.proof).is_ok(),
            Self::Signature(key) => key.verify(&to_be_signed(header, kr1.ciphertext).concat(), kr1.proof).is_ok(),
        };
        held.then_some(()).ok_or(refusal::PROOF)
    }
}

/// What the operator's book says of a hardened classic device.
pub struct Device {
    /// How it proves its messages, and the size of RSA keys.
    pub proof: Proof,
    /// Length of its keys: another one is refused, a shorter one would be a step down.
    pub keylen: KeyLen,
    /// Up to when it may use RSA-1024, if it is listed for that (AR-12).
    pub rsa1024_until: Option<Millis>,
    /// Its keys.
    pub chain: Chain,
}

/// By whose leave RSA-1024 was used (AR-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rsa1024 {
    /// The device is listed, and the date is not past.
    Listed {
        /// The last point in time.
        until: Millis,
    },
    /// The date is past: refused.
    Lapsed {
        /// The last point in time.
        until: Millis,
    },
    /// The device is not listed: refused.
    Unlisted,
}

impl Rsa1024 {
    fn of(listed: Option<Millis>, now: Millis) -> Self {
        match listed {
            Some(until) if now <= until => Self::Listed { until },
            Some(until) => Self::Lapsed { until },
            None => Self::Unlisted,
        }
    }

    /// High while it is listed, critical without (AR-12).
    pub const fn severity(self) -> Severity {
        match self {
            Self::Listed { .. } => Severity::High,
            Self::Lapsed { .. } | Self::Unlisted => Severity::Critical,
        }
    }

    const fn allowed(self) -> Result<(), Rejected> {
        match self {
            Self::Listed { .. } => Ok(()),
            Self::Lapsed { .. } => Err(refusal::RSA_1024_LAPSED),
            Self::Unlisted => Err(refusal::RSA_1024_UNLISTED),
        }
    }
}

/// What the operator hears of; nothing of it goes out to the radio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Counted under its code.
    Refused {
        /// Whose name it bore, if that is a device of ours. Unless [`refusal`] says otherwise, anybody may have sent it.
        serial: Option<Serial>,
        /// Why.
        reason: Rejected,
    },
    /// AR-12: a message of a device was RSA-1024, and its S holds.
    Rsa1024 {
        /// Which device.
        serial: Serial,
        /// By whose leave.
        leave: Rsa1024,
    },
}

/// A new key that must be durable before its KR2 is sent: everything that has to come back after a crash.
#[derive(Debug)]
pub struct PendingKey {
    /// Whose it is.
    pub serial: Serial,
    /// What for.
    pub level: KeyLevel,
    /// Its number.
    pub epoch: KeyEpoch,
    /// How the device proved it: with [`Auth::Mac`] nothing can be proven to a third party.
    pub auth: Auth,
    /// Size of the RSA keys it came under.
    pub size: RsaSize,
    /// Of the KR1, for [`Chain::restore`].
    pub message: MessageHash,
    /// For [`Chain::restore`], and what [`KeyMessages::handle_durable`] returns.
    pub answer: Kr2,
    /// Seed and key. To be stored wrapped; the seed is no longer needed.
    pub fresh: FreshKey,
    /// A pending key that gives way, to be deleted in the same transaction.
    pub evicts: Option<KeyEpoch>,
}

/// A [`PendingKey`] that is not durable yet. Its answer is given out by [`KeyMessages::handle_durable`] alone.
#[derive(Debug)]
#[must_use = "make it durable, then give it to `handle_durable`"]
pub struct Unsaved(PendingKey);

impl Unsaved {
    /// What has to be durable.
    pub const fn record(&self) -> &PendingKey {
        &self.0
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// It repeats the message that made the newest key: the same answer again.
    Again(Kr2),
    /// A new key.
    Persist(Unsaved),
    /// Nothing goes out. Why is in [`KeyMessages::poll_report`] alone.
    Silence,
}

/// Another key of this server has the same srv_kid (four bytes): make a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another key of this server has the id {0}; make a new one")]
pub struct KidTaken(pub ServerKid);

struct Record {
    device: Device,
    messages: Budget,
    repeats: Budget,
}

/// The server's side of section 12: a cloud's for E3, a gateway's for E2.
pub struct KeyMessages {
    level: KeyLevel,
    drain_ms: u64,
    keys: Vec<ServerKey>,
    devices: HashMap<Serial, Record>,
    reports: VecDeque<Report>,
}

impl KeyMessages {
    /// Agrees on keys of one level; old ones drain for so long ([`DRAIN_MS`]).
    pub fn new(level: KeyLevel, drain_ms: u64) -> Self {
        Self { level, drain_ms, keys: Vec::new(), devices: HashMap::new(), reports: VecDeque::new() }
    }

    /// Takes a key of the server into use, beside those it has: an old one stays until devices know the new one.
    ///
    /// # Errors
    /// [`KidTaken`].
    pub fn add_key(&mut self, key: ServerKey) -> Result<(), KidTaken> {
        let kid = key.public().kid();
        if self.keys.iter().any(|k| k.public().kid() == kid) {
            return Err(KidTaken(kid));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Takes a key out of use.
    pub fn retire_key(&mut self, kid: ServerKid) {
        self.keys.retain(|key| key.public().kid() != kid);
    }

    /// Knows a device from now on, in the place of what was known under that serial number.
    pub fn enrol(&mut self, serial: Serial, device: Device) {
        self.devices.insert(serial, Record { device, messages: Budget::default(), repeats: Budget::default() });
    }

    /// Knows of a device what the book says now. What was counted against its rates stays, other than with [`Self::enrol`].
    pub fn amend(&mut self, serial: Serial, device: Device) {
        match self.devices.get_mut(&serial) {
            Some(record) => record.device = device,
            None => self.enrol(serial, device),
        }
    }

    /// Knows a device no longer, and hands back what was known.
    pub fn retire(&mut self, serial: Serial) -> Option<Device> {
        self.devices.remove(&serial).map(|record| record.device)
    }

    /// The keys of a device.
    pub fn chain(&self, serial: Serial) -> Option<&Chain> {
        self.devices.get(&serial).map(|record| &record.device.chain)
    }

    /// Takes what may be a KR1.
    ///
    /// A message that has not the shape of section 12, or is of a size that this server has no key for, costs next to
    /// nothing: its sender knows both. Every other one costs one check of S and one private operation, on the message as
    /// far as it deserves it and on a decoy from there on: an S that does not hold never lets C near the private key. The
    /// first rule that it breaks, in the order of section 12, is its reason.
    ///
    /// What is counted against the six an hour is a message whose S holds and whose epoch is the next one. Forgeries and
    /// recordings use up nothing of a device's, and are no cheaper to refuse than anything else.
    pub fn handle_message(&mut self, now: Millis, bytes: &[u8]) -> Outcome {
        let kr1 = match Kr1::parse(bytes) {
            Ok(kr1) => kr1,
            Err(reason) => return Self::refuse(&mut self.reports, None, reason),
        };
        let header = kr1.header;
        let named = self.keys.iter().find(|key| key.public().kid() == header.server && of_size(key, header.size));
        let Some(key) = named.or_else(|| self.keys.iter().find(|key| of_size(key, header.size))) else {
            return Self::refuse(&mut self.reports, None, refusal::NO_KEY_OF_SIZE);
        };
        let label = header.to_bytes();
        let message = MessageHash::of(&kr1);
        let mut record = self.devices.get_mut(&header.serial);

        let proven = match &record {
            Some(record) if record.device.proof.alg() == (header.size, header.auth) => {
                record.device.proof.check(&label, &kr1)
            }
            _ => check_decoy(key, &label, &kr1),
        };
        if let (Some(record), Ok(()), RsaSize::Rsa1024) = (&record, proven, header.size) {
            let leave = Rsa1024::of(record.device.rsa1024_until, now);
            self.reports.push_back(Report::Rsa1024 { serial: header.serial, leave });
        }

        let known = record.is_some().then_some(header.serial);
        let verdict = judge(now, self.level, &header, &message, record.as_deref_mut(), named.is_some(), proven);
        let mut m = Zeroizing::new([0; RsaSize::LONGEST]);
        let wanted = matches!(verdict, Ok(Verdict::New)).then_some((&label, kr1.ciphertext));
        let opened = key.open(wanted, &mut m);

        let taken = match verdict {
            Err(reason) => Err(reason),
            Ok(Verdict::Repeat(answer)) => return Outcome::Again(answer),
            Ok(Verdict::New) => opened
                .map_err(|Undecryptable| refusal::CIPHERTEXT)
                .and_then(|len| FreshKey::from_plaintext(m.get(..len).unwrap_or_default(), header.keylen)),
        };
        match (taken, record) {
            (Ok(fresh), Some(record)) => {
                record.device.chain.take(header.epoch, message);
                let answer = fresh.accept(&header, &message);
                let Header { size, auth, serial, level, epoch, .. } = header;
                let evicts = record.device.chain.evicted();
                Outcome::Persist(Unsaved(PendingKey {
                    serial,
                    level,
                    epoch,
                    auth,
                    size,
                    message,
                    answer,
                    fresh,
                    evicts,
                }))
            }
            (Ok(_), None) => Self::refuse(&mut self.reports, None, refusal::SERIAL),
            (Err(reason), _) => Self::refuse(&mut self.reports, known, reason),
        }
    }

    /// A new key is durable: from here on it is pending, and this is its answer.
    pub fn handle_durable(&mut self, unsaved: Unsaved) -> Kr2 {
        let PendingKey { serial, epoch, message, answer, evicts, .. } = unsaved.0;
        if let Some(record) = self.devices.get_mut(&serial) {
            record.device.chain.add(Answered { epoch, message, answer }, evicts);
        }
        answer
    }

    /// A frame of the device was verified under the key of that epoch. The first under a pending key is a [`Switch`].
    ///
    /// # Errors
    /// `E2-01`, `E3-01`: no such device. `E2-02`, `E3-02`: no such key. `E3-10` (`E2-02` at a gateway): the key has
    /// drained.
    pub fn handle_frame(&self, now: Millis, serial: Serial, epoch: KeyEpoch) -> Result<Option<Switch>, Rejected> {
        let (stranger, unknown, drained) = match self.level {
            KeyLevel::E2 => (Code::GatewayUnknownKid, Code::GatewayNoContext, Code::GatewayNoContext),
            KeyLevel::E3 => (Code::CloudUnknownKid, Code::CloudNoContext, Code::CloudStale),
        };
        let chain = self.chain(serial).ok_or(Rejected::new(stranger, "unknown serial number"))?;
        chain.frame(now, epoch, self.drain_ms).map_err(|invalid| match invalid {
            NotValid::Drained => Rejected::new(drained, "the key has drained"),
            NotValid::Unknown => Rejected::new(unknown, "no key of this epoch"),
        })
    }

    /// A switch is durable.
    pub fn handle_switched(&mut self, serial: Serial, switch: &Switch) {
        if let Some(record) = self.devices.get_mut(&serial) {
            record.device.chain.switch(switch);
        }
    }

    /// Forgets keys that have drained, and names them: the store wipes them.
    pub fn handle_timeout(&mut self, now: Millis) -> Vec<(Serial, KeyEpoch)> {
        let expired = |(serial, record): (&Serial, &mut Record)| {
            record.device.chain.expire(now).into_iter().map(|epoch| (*serial, epoch)).collect::<Vec<_>>()
        };
        self.devices.iter_mut().flat_map(expired).collect()
    }

    /// The next thing that the operator hears of. To be called until it is `None` after each message.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    fn refuse(reports: &mut VecDeque<Report>, serial: Option<Serial>, reason: Rejected) -> Outcome {
        reports.push_back(Report::Refused { serial, reason });
        Outcome::Silence
    }
}

impl core::fmt::Debug for KeyMessages {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeyMessages({:?}, {} devices)", self.level, self.devices.len())
    }
}

fn of_size(key: &ServerKey, size: RsaSize) -> bool {
    key.public().size() == size
}

/// As much work as the check of a device's S.
fn check_decoy(key: &ServerKey, label: &[u8; HEADER], kr1: &Kr1<'_>) -> Result<(), Rejected> {
    match kr1.header.auth {
        Auth::Mac => {
            let _ = EnrolmentKey::new([0; HASH]).check(label, kr1.ciphertext, kr1.proof);
        }
        Auth::Signature => key.check_decoy(),
    }
    Err(refusal::PROOF)
}

enum Verdict {
    New,
    Repeat(Kr2),
}

/// The order of section 12 from policy to rate.
fn judge(
    now: Millis,
    level: KeyLevel,
    header: &Header,
    message: &MessageHash,
    record: Option<&mut Record>,
    has_key: bool,
    proven: Result<(), Rejected>,
) -> Result<Verdict, Rejected> {
    if header.level != level {
        return Err(refusal::LEVEL);
    }
    if header.size == RsaSize::Rsa1024 {
        Rsa1024::of(record.as_ref().and_then(|r| r.device.rsa1024_until), now).allowed()?;
    }
    if let Some(Record { device, .. }) = &record {
        if device.proof.alg() != (header.size, header.auth) {
            return Err(refusal::ALG);
        }
        if device.keylen != header.keylen {
            return Err(refusal::KEY_LENGTH);
        }
    }
    let Record { device, messages, repeats } = record.ok_or(refusal::SERIAL)?;
    if !has_key {
        return Err(refusal::SERVER_KEY);
    }
    proven?;
    match device.chain.place(header.epoch, message) {
        Place::Next => messages.take(now).map(|()| Verdict::New).map_err(|_| refusal::RATE),
        Place::Repeat(answer) => repeats.take(now).map(|()| Verdict::Repeat(answer)).map_err(|_| refusal::REPEAT_RATE),
        Place::Other => Err(refusal::OTHER_OF_EPOCH),
        Place::Off => Err(refusal::EPOCH),
    }
}
