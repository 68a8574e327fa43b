//! How a software Waspmote of the hardened profile comes to its next key: the RSA key message (docs/protocol.md 12), with a MAC.
//!
//! What stands on disk is what a node has in its EEPROM: its key, and the message that waits for its answer, each durable before
//! anything is sent that rests on it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, Offer, SEED};
use fivefold_core::id::Serial as KeySerial;
use fivefold_core::wire::key_message::{KeyEpoch, KeyLen, KeyLevel, Kr1};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::key_message::{DeviceSide, Identity, PublicRsaKey};
use fivefold_keep::registry::NodeEnrolment;
use fivefold_waspmote::Serial;
use fivefold_waspmote::hardened::{Epoch, Peer};
use fivefold_waspmote::key_message::{Cut, LONGEST_FRAME, Part};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::random;

/// Whom keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PeerWord {
    /// The cloud.
    Cloud,
    /// The gateway.
    Gateway,
}

impl PeerWord {
    /// One word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Gateway => "gateway",
        }
    }

    const fn level(self) -> KeyLevel {
        match self {
            Self::Cloud => KeyLevel::E3,
            Self::Gateway => KeyLevel::E2,
        }
    }
}

/// The file that a software node is given for its key messages.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeKeys {
    serial: String,
    peer: PeerWord,
    /// SubjectPublicKeyInfo of the cloud's key, in hex digits.
    server: String,
    /// In hex digits.
    enrolment_key: String,
}

impl Drop for NodeKeys {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.enrolment_key);
    }
}

impl NodeKeys {
    /// Of what the operator's book entered.
    pub(crate) fn of(serial: Serial, peer: PeerWord, enrolment: &NodeEnrolment) -> Self {
        Self {
            serial: serial.to_string(),
            peer,
            server: hex::encode(&enrolment.server.spki),
            enrolment_key: hex::encode(enrolment.key.as_slice()),
        }
    }

    /// As it is written.
    ///
    /// # Errors
    /// Never: it is text.
    pub(crate) fn to_text(&self) -> anyhow::Result<Zeroizing<String>> {
        Ok(Zeroizing::new(toml::to_string(self)?))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = files::read_private(path)?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is no text", path.display()))?;
        // Whatever is wrong in it, its lines are not shown.
        toml::from_str(text)
            .map_err(|_| anyhow::anyhow!("{} is no file of fivefold device key-messages --form toml", path.display()))
    }
}

/// A node's side of its key messages, over its files.
pub(super) struct Renewal {
    side: DeviceSide,
    server: PublicRsaKey,
    serial: [u8; 8],
    level: KeyLevel,
    key: PathBuf,
    offer: PathBuf,
    /// Of the last message that went out.
    id: u8,
}

/// A message that waits for its answer: KR1, and M.
type Waiting = (Vec<u8>, Zeroizing<Vec<u8>>);

impl Renewal {
    /// Of a node with that serial and peer, with its files beside `state`.
    pub(super) fn open(path: &Path, state: &Path, serial: Serial, peer: Peer) -> anyhow::Result<Self> {
        let keys = NodeKeys::read(path)?;
        let Serial::V15(bytes) = serial else { bail!("the hardened profile is for v15 hardware") };
        ensure!(keys.serial == serial.to_string(), "{} is for node {}", path.display(), keys.serial);
        let wanted = match peer {
            Peer::Cloud => PeerWord::Cloud,
            Peer::Gateway => PeerWord::Gateway,
        };
        ensure!(keys.peer == wanted, "{} is for --seal hardened-{}", path.display(), keys.peer.as_str());
        let damaged = || format!("{} is damaged: make it again", path.display());
        let spki = hex::decode(&keys.server).with_context(damaged)?;
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(keys.enrolment_key.as_bytes(), key.as_mut_slice()).with_context(damaged)?;
        let level = keys.peer.level();
        let identity = Identity::mac(EnrolmentKey::new(*key));
        let side = DeviceSide::new(KeySerial(bytes), level, identity, &spki)?;
        let server = PublicRsaKey::from_spki(&spki)?;
        let [id] = random()?;
        let beside = |what: &str| {
            let mut name = state.as_os_str().to_owned();
            name.push(what);
            PathBuf::from(name)
        };
        Ok(Self { side, server, serial: bytes, level, key: beside(".key"), offer: beside(".offer"), id })
    }

    /// The key that a message brought, if there is one: `epoch hex`.
    pub(super) fn kept(&self) -> anyhow::Result<Option<(Epoch, Zeroizing<[u8; 32]>)>> {
        let Some(text) = read(&self.key)? else { return Ok(None) };
        let damaged = || format!("{} is damaged", self.key.display());
        let (epoch, digits) = text.trim().split_once(' ').with_context(damaged)?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).with_context(damaged)?;
        Ok(Some((Epoch(epoch.parse().with_context(damaged)?), bytes)))
    }

    /// Whether a message waits for its answer: then it goes out again, whatever else was planned.
    pub(super) fn waits(&self, current: Epoch) -> anyhow::Result<bool> {
        Ok(self.waiting(current)?.is_some())
    }

    /// The message for the epoch after `current` that waits for its answer: two lines of hex digits.
    fn waiting(&self, current: Epoch) -> anyhow::Result<Option<Waiting>> {
        let Some(text) = read(&self.offer)? else { return Ok(None) };
        let damaged = || format!("{} is damaged", self.offer.display());
        let (kr1, m) = text.trim().split_once('\n').with_context(damaged)?;
        let kr1 = hex::decode(kr1).with_context(damaged)?;
        let m = Zeroizing::new(hex::decode(m).with_context(damaged)?);
        let header = Kr1::parse(&kr1).ok().map(|kr1| kr1.header).with_context(damaged)?;
        let is_next = Some(header.epoch) == KeyEpoch(current.0).next();
        let is_ours = header.server == self.server.kid() && header.level == self.level;
        Ok((is_next && is_ours).then_some((kr1, m)))
    }

    /// Frames of KR1 for the next key, each of at most `room` bytes, and what waits for its KR2. The message is durable.
    pub(super) fn offer(&mut self, current: Epoch, room: usize) -> anyhow::Result<(Vec<Vec<u8>>, Offer, Epoch)> {
        let epoch = KeyEpoch(current.0).next().context("this node has used all epochs")?;
        let (kr1, offer) = match self.waiting(current)? {
            Some((kr1, m)) => {
                let fresh = FreshKey::from_plaintext(&m, KeyLen::B32).map_err(|r| anyhow::anyhow!("{r}"))?;
                let parsed = Kr1::parse(&kr1).map_err(|r| anyhow::anyhow!("{r}"))?;
                let offer = Offer::new(&parsed, fresh);
                (kr1, offer)
            }
            None => {
                let (seed, key) = (random::<SEED>()?, Zeroizing::new(random::<32>()?));
                let fresh = FreshKey::new(&seed, key.as_slice()).context("a key of 32 bytes")?;
                let m = Zeroizing::new(hex::encode(fresh.danger_plaintext()));
                let (kr1, offer) = self.side.offer(epoch, fresh)?;
                let text = Zeroizing::new(format!("{}\n{}\n", hex::encode(&kr1), m.as_str()));
                files::write(&self.offer, Readers::Owner, text.as_bytes())?;
                (kr1, offer)
            }
        };
        self.id = self.id.wrapping_add(1);
        let cut = Cut::new(self.serial, self.id, &kr1, room)?;
        let frame = |index| -> anyhow::Result<Vec<u8>> {
            let mut out = vec![0; LONGEST_FRAME];
            let len = cut.part(index).context("no such part")?.emit(&mut out)?;
            out.truncate(len);
            Ok(out)
        };
        let frames = (0..cut.count()).map(frame).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((frames, offer, Epoch(epoch.0)))
    }

    /// Takes a frame that may be KR2: the new key, durable, or the offer again.
    pub(super) fn take(
        &self,
        (offer, epoch): (Offer, Epoch),
        frame: &[u8],
    ) -> anyhow::Result<Result<Zeroizing<[u8; 32]>, Offer>> {
        let part = match Part::parse(frame) {
            Ok(part) if part.serial == self.serial && part.count == 1 => part,
            _ => return Ok(Err(offer)),
        };
        let fresh = match offer.answer(part.bytes) {
            Ok(fresh) => fresh,
            Err((offer, _)) => return Ok(Err(offer)),
        };
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(fresh.danger_key().try_into().context("a key of 32 bytes")?);
        let digits = Zeroizing::new(hex::encode(bytes.as_slice()));
        let text = Zeroizing::new(format!("{} {}\n", epoch.0, digits.as_str()));
        files::write(&self.key, Readers::Owner, text.as_bytes())?;
        // It is over: should it stay, its epoch says so.
        let _ = std::fs::remove_file(&self.offer);
        Ok(Ok(bytes))
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}
