//! # The server of classic nodes' key messages (docs/protocol.md 12)
//!
//! | | |
//! |---|---|
//! | Key held by | the cloud: its RSA keys, and each node's enrolment key |
//! | Hides       | the new key, from everybody who hears KR1 |
//! | Proves      | which node made it (`kr1_auth = mac`: to the cloud alone) |
//! | Binds       | a key to (node, level, epoch), once |
//! | Drops as    | `E5-08` |
//! | Does not    | say why; tell a gateway a key that is not its own; answer before the key is in the book |
//! | Spec        | docs/protocol.md 12 |
//!
//! Two engines of [`fivefold_keep::key_message`] over the operator's book: one for keys of gateways, one for the cloud's own. A
//! key goes to the book, and only then is there an answer: after a crash in between, the node's repeat is a new message again;
//! after one behind it, the repeat is answered as the first would have been.

use std::collections::{HashMap, HashSet};

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Net, Serial, ServerKid, Sid};
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{KeyEpoch, KeyLen, KeyLevel, Kr1, Kr2};
use fivefold_keep::key_message::{DRAIN_MS, Device, KeyMessages, Outcome, Proof, Report};
use fivefold_keep::registry::{Enrolled, HardenedHolder, Registry, RegistryError};
use fivefold_keep::vault::Vault;

/// Key messages that one gateway brings in a minute.
pub const MESSAGES_OF_GATEWAY: u16 = 60;

const OTHER_NET: Rejected = Rejected::new(Code::KeyMessageRefused, "a device of another network than its gateway's");
const OTHER_GATEWAY: Rejected =
    Rejected::new(Code::KeyMessageRefused, "a key for gateways, by another one than the primary");
const BOOK_MOVED: Rejected = Rejected::new(Code::KeyMessageRefused, "the book changed while it was judged");

/// A KR1 as a gateway brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Number of its envelope.
    pub seq: u64,
    /// As the gateway named its node.
    pub serial: String,
    /// KR1.
    pub bytes: Vec<u8>,
}

/// A KR2, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the envelope that it answers.
    pub seq: u64,
    /// The node.
    pub serial: String,
    /// KR2.
    pub kr2: Kr2,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Taken {
    /// What goes back; nothing tells a refusal.
    pub answer: Option<Kr2>,
    /// Whether the book has a key more.
    pub is_new: bool,
    /// What is to be counted, and of whom.
    pub refused: Vec<(Rejected, Option<Sid>)>,
}

/// Both engines, and who is who.
#[derive(Debug)]
pub struct KeyDesk {
    to_gateways: KeyMessages,
    to_cloud: KeyMessages,
    servers: HashSet<ServerKid>,
    devices: HashMap<Serial, (Net, Sid)>,
    enrolled: HashSet<(Serial, bool)>,
}

impl Default for KeyDesk {
    fn default() -> Self {
        Self {
            to_gateways: KeyMessages::new(KeyLevel::E2, DRAIN_MS),
            to_cloud: KeyMessages::new(KeyLevel::E3, DRAIN_MS),
            servers: HashSet::new(),
            devices: HashMap::new(),
            enrolled: HashSet::new(),
        }
    }
}

impl KeyDesk {
    fn engine(&mut self, level: KeyLevel) -> &mut KeyMessages {
        match level {
            KeyLevel::E2 => &mut self.to_gateways,
            KeyLevel::E3 => &mut self.to_cloud,
        }
    }

    /// Takes over what the book says now. What was counted against the rates of a device stays.
    ///
    /// # Errors
    /// [`RegistryError`]: then all stays as it was.
    pub fn follow(&mut self, book: &Registry, vault: &Vault) -> Result<(), RegistryError> {
        let servers = book.message_servers()?;
        let enrolled = book.enrolled_for_messages(vault)?;
        let mut fresh = Vec::new();
        for server in servers.iter().filter(|s| !self.servers.contains(&s.kid)) {
            fresh.push((book.message_server(vault, server.kid)?, book.message_server(vault, server.kid)?));
        }
        for (one, other) in fresh {
            // The book has each id once.
            self.servers.insert(one.public().kid());
            let _ = self.to_gateways.add_key(one);
            let _ = self.to_cloud.add_key(other);
        }
        let named: HashSet<_> = enrolled.iter().map(|e| (e.serial, e.level == KeyLevel::E3)).collect();
        for (serial, is_cloud) in std::mem::take(&mut self.enrolled).difference(&named) {
            self.engine(if *is_cloud { KeyLevel::E3 } else { KeyLevel::E2 }).retire(*serial);
        }
        self.enrolled = named;
        self.devices = enrolled.iter().map(|e| (e.serial, (e.net, e.sid))).collect();
        for Enrolled { serial, level, size, key, chain, .. } in enrolled {
            let proof = Proof::Mac { key, size };
            // The profile has AES-256 and nothing else (12.4).
            let device = Device { proof, keylen: KeyLen::B32, rsa1024_until: None, chain };
            self.engine(level).amend(serial, device);
        }
        Ok(())
    }

    /// Takes a message that a gateway brought. Where a key comes of it, the key is in the book before this returns.
    ///
    /// # Errors
    /// [`RegistryError`]: the book cannot be written, and nothing was agreed.
    pub fn take(
        &mut self,
        book: &mut Registry,
        vault: &Vault,
        by: GatewayName,
        bytes: &[u8],
        now: Millis,
    ) -> Result<Taken, RegistryError> {
        let mut taken = Taken::default();
        let header = Kr1::parse(bytes).ok().map(|kr1| kr1.header);
        let known = header.and_then(|h| self.devices.get(&h.serial).copied());
        // Both are the gateway's doing, and tell it what it knows.
        let misplaced = match (header, known) {
            (Some(_), Some((net, _))) if net != by.net => Some(OTHER_NET),
            (Some(h), Some((net, _))) if h.level == KeyLevel::E2 && book.primary_of(net)? != Some(by.gateway) => {
                Some(OTHER_GATEWAY)
            }
            _ => None,
        };
        if let Some(rejected) = misplaced {
            taken.refused.push((rejected, known.map(|(_, sid)| sid)));
            return Ok(taken);
        }
        let level = header.map_or(KeyLevel::E3, |h| h.level);
        let outcome = self.engine(level).handle_message(now, bytes);
        while let Some(report) = self.engine(level).poll_report() {
            match report {
                Report::Refused { serial, reason } => {
                    let sid = serial.and_then(|serial| self.devices.get(&serial)).map(|(_, sid)| *sid);
                    taken.refused.push((reason, sid));
                }
                // Never while the book lists nobody for it.
                Report::Rsa1024 { serial, leave } => tracing::error!(%serial, ?leave, "RSA-1024 (AR-12)"),
            }
        }
        match outcome {
            Outcome::Silence => {}
            Outcome::Again(kr2) => taken.answer = Some(kr2),
            Outcome::Persist(unsaved) => {
                let holder = match level {
                    KeyLevel::E2 => HardenedHolder::Gateway(by.gateway),
                    KeyLevel::E3 => HardenedHolder::Cloud,
                };
                let (serial, epoch) = (unsaved.record().serial, unsaved.record().epoch);
                match book.agree_hardened(vault, unsaved.record(), holder, now.0 / 1000) {
                    Ok(true) => {
                        taken.answer = Some(self.engine(level).handle_durable(unsaved));
                        taken.is_new = true;
                        tracing::info!(%serial, epoch = epoch.0, ?level, "a classic node has a new key, by kr1_auth = mac");
                    }
                    Ok(false) => {
                        taken.refused.push((BOOK_MOVED, known.map(|(_, sid)| sid)));
                        self.follow(book, vault)?;
                    }
                    Err(error) => {
                        // What was taken in memory alone must not stand against the node's repeat.
                        let _ = self.follow(book, vault);
                        return Err(error);
                    }
                }
            }
        }
        Ok(taken)
    }

    /// A frame under a key was verified and is durable. Whether that took a waiting key into use; the book then says so.
    ///
    /// # Errors
    /// [`RegistryError`]: the book cannot be written. The next frame tries again.
    pub fn used(
        &mut self,
        book: &mut Registry,
        (serial, level, epoch): (Serial, KeyLevel, KeyEpoch),
        now: Millis,
    ) -> Result<bool, RegistryError> {
        let Ok(Some(switch)) = self.engine(level).handle_frame(now, serial, epoch) else { return Ok(false) };
        book.switch_hardened(serial, level, &switch)?;
        self.engine(level).handle_switched(serial, &switch);
        tracing::info!(%serial, epoch = epoch.0, ?level, "a classic node uses its new key");
        Ok(true)
    }

    /// Erases keys that have drained. Whether there were any.
    ///
    /// # Errors
    /// [`RegistryError`]: the next call that reads the book finds them again.
    pub fn expire(&mut self, book: &mut Registry, now: Millis) -> Result<bool, RegistryError> {
        let mut any = false;
        for level in [KeyLevel::E2, KeyLevel::E3] {
            let gone = self.engine(level).handle_timeout(now);
            if !gone.is_empty() {
                book.forget_hardened(level, &gone)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Whether a key of some device drains: nothing else needs [`Self::expire`].
    pub fn drains(&self) -> bool {
        let engines = [(&self.to_gateways, false), (&self.to_cloud, true)];
        self.enrolled.iter().any(|(serial, is_cloud)| {
            let engine = engines.iter().find(|(_, of_cloud)| of_cloud == is_cloud).map(|(engine, _)| engine);
            let chain = engine.and_then(|engine| engine.chain(*serial));
            chain.is_some_and(|c| {
                c.keys().any(|(_, state)| matches!(state, fivefold_keep::key_message::KeyState::Draining { .. }))
            })
        })
    }
}
