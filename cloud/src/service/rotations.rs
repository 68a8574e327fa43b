//! Rotations of network keys go on by themselves (docs/protocol.md 4.3): the cloud hears every device, so it takes the
//! steps that are due, in the operator's book. What it decides depends on what it heard and on the time that it is given;
//! a step is one transaction, taken only where nobody took another one since.

use std::collections::HashMap;
use std::sync::PoisonError;

use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use fivefold_keep::registry::{self, Registry};
use fivefold_keep::rotation::{Place, Rotation};

use super::{Service, ServiceError};
use crate::book::{Book, LinkRotation};
use crate::campaign::{self, Beside, Campaign};
use crate::store::{LinkReport, Reader, StoreError};

/// Of revoked devices: what the store has of the network keys that they were given, or said they have.
struct Outside {
    told: HashMap<Did, (u8, Millis)>,
    reports: HashMap<Did, LinkReport>,
}

impl Service {
    /// Takes the steps that are due now. May block: not for async tasks.
    ///
    /// # Errors
    /// [`ServiceError`]: the registry cannot be written, for one. Nothing is half done, and the next call tries again.
    pub fn advance_rotations(&self, now: Millis) -> Result<(), ServiceError> {
        let book = self.cloud.book();
        let at = now.0 / 1000;
        let mut turned = false;
        for link in book.rotations.values() {
            turned |= self.advance(&book, link, at)?;
        }
        let is_expired = self.reading.lock().unwrap_or_else(PoisonError::into_inner).has_expired_network_keys(at)?;
        if is_expired {
            let forgotten = self.writable(at)?.forget_network_keys(at)?;
            tracing::info!(forgotten, "network keys were deleted: their recovery is over");
            turned |= forgotten > 0;
        }
        if turned { self.refresh(now) } else { Ok(()) }
    }

    fn advance(&self, book: &Book, link: &LinkRotation, at: u64) -> Result<bool, ServiceError> {
        let rotation = &link.rotation;
        let count = campaign::count(book, link);
        if let Some(next) = rotation.due(&count, at) {
            let turned = self.writable(at)?.turn_rotation(rotation, &next)?;
            if turned {
                let (network, key) = (rotation.net, rotation.index);
                let (have, of) = (count.at_least(Place::Has), count.devices);
                tracing::info!(%network, key, stage = %next.stage(), "the rotation goes on: {have} of {of} devices have the key");
            }
            return Ok(turned);
        }
        if rotation.is_under_way() || !rotation.starts_over {
            return Ok(false);
        }
        let known = self.known_outside(rotation)?;
        let turned = match known.first() {
            Some(did) => {
                tracing::info!(network = %rotation.net, %did, "was revoked and may know the new key: another one is drawn");
                self.writable(at)?.start_rotation_over(&self.vault, rotation, at)?.is_some()
            }
            None => self.writable(at)?.turn_rotation(rotation, &Rotation { starts_over: false, ..rotation.clone() })?,
        };
        Ok(turned)
    }

    /// Revoked devices that may know the new key of a rotation.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn known_outside(&self, rotation: &Rotation) -> Result<Vec<Did>, ServiceError> {
        let devices = self.reading.lock().unwrap_or_else(PoisonError::into_inner).devices()?;
        let outside = self.cloud.memory().read(Outside::read)?;
        Ok(devices.iter().filter(|d| outside.may_know(d, rotation)).map(|d| d.did).collect())
    }

    /// How far a network's rotation has come.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn campaign(&self, book: &Book, link: &LinkRotation, now: Millis) -> Result<Campaign, StoreError> {
        let net = link.rotation.net;
        let first = Campaign::of(book, link, &Beside::default(), now);
        self.cloud.memory().read(|reader| {
            let mut beside = Beside { refused: Beside::refused(&reader.counts()?, net), ..Beside::default() };
            // Whoever is not late need not be asked after.
            for member in first.late().filter(|m| book.by_did.get(&m.did).is_some_and(|d| d.heard().is_none())) {
                if let Some(at) = reader.last_heard(net, member.did)? {
                    beside.heard.insert(member.did, at);
                }
            }
            Ok(Campaign::of(book, link, &beside, now))
        })
    }

    fn writable(&self, at: u64) -> Result<Registry, ServiceError> {
        Ok(self.open_registry(super::by_itself(Millis(at.saturating_mul(1000))))?)
    }
}

impl Outside {
    fn read(reader: &Reader) -> Result<Self, StoreError> {
        Ok(Self {
            told: reader.link_told()?.into_iter().map(|(did, index, at)| (did, (index, at))).collect(),
            reports: reader.link_keys()?.into_iter().collect(),
        })
    }

    fn may_know(&self, device: &registry::Device, rotation: &Rotation) -> bool {
        let (told, report) = (self.told.get(&device.did).copied(), self.reports.get(&device.did).copied());
        campaign::may_know(device, rotation, told, report)
    }
}
