//! Classic devices of the book: who they are, what the operator says they send, and what was heard of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fivefold_core::id::{BootContext, Did, GatewayId, Net, Serial as KeySerial, Sid};
use fivefold_core::proof::statement::{BlindKey, Salt, SignedLevel};
use fivefold_core::time::Millis;
use fivefold_core::window::Window64;
use fivefold_core::wire::key_message::{KeyEpoch, KeyLevel};
use fivefold_keep::key_message::PENDING;
use fivefold_keep::own_sensors::OwnSensors;
use fivefold_keep::registry::{ClassicProfile, HardenedHolder, HardenedKey, Registry, RegistryError};
use fivefold_keep::vault::Vault;
use fivefold_waspmote::hardened::Peer;
use fivefold_waspmote::{ClassicKey, KeyBits, Serial, Table, hardened};

use super::Dossier;
use crate::accepted::ContextId;
use crate::classic::history::History;
use crate::cloud::Used;
use crate::pulse::Pulse;

/// Keys of a device that the cloud tries, at most: the one in use, those that wait, and some that drain.
const KEYS: usize = 1 + PENDING + 3;

/// A classic device as the registry has it. Keys are opened for each book anew.
#[derive(Debug)]
pub struct ClassicSource {
    /// Permanent id.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// Network.
    pub net: Net,
    /// Serial.
    pub serial: Serial,
    /// Node id that the operator gave it.
    pub node_id: Option<String>,
    /// Its sensor table, where it is not the one of its hardware.
    pub table: Option<Table>,
    /// Size of its key for the gateway, if it has one (E2 classic).
    pub gateway_key: Option<KeyBits>,
    /// Its key for the cloud (E3 classic).
    pub cloud_key: Option<ClassicKey>,
    /// Its keys for the cloud in the hardened profile, by epoch.
    pub hardened: Vec<(hardened::Epoch, hardened::Key)>,
    /// Keys that wait for their first frame: level (2, 3) and epoch. Of a device that sends no key messages there are none.
    pub unused: Vec<(u8, hardened::Epoch)>,
    /// Since when nobody can have recorded anything under a key, by level (2, 3) and epoch. Of others nobody knows.
    pub since: HashMap<(u8, hardened::Epoch), Millis>,
    /// Whether it signs its readings: it has, or had, a signing key.
    pub signs: bool,
    /// Of one that signs: what hides the leaves of its readings, by each key that somebody holds.
    pub blinds: Vec<Blind>,
    /// Which of its frames count.
    pub profile: ClassicProfile,
    /// The tables of its network's nodes.
    pub sensors: Arc<OwnSensors>,
}

/// What hides the leaves of readings that were sealed under one key.
#[derive(Debug)]
pub struct Blind {
    /// Who holds the other copy of the key: one gateway, or the cloud. What any other gateway says that it opened proves nothing, and
    /// disturbs nothing. It keeps its keys when another gateway becomes primary.
    pub holder: HardenedHolder,
    /// The key's epoch.
    pub epoch: hardened::Epoch,
    /// K_blind.
    pub key: BlindKey,
}

impl ClassicSource {
    /// The key that a frame under this epoch takes into use, if that is one of those.
    pub(crate) fn takes_into_use(&self, peer: Peer, epoch: hardened::Epoch) -> Option<Used> {
        let Serial::V15(serial) = self.serial else { return None };
        let level = match peer {
            Peer::Gateway => KeyLevel::E2,
            Peer::Cloud => KeyLevel::E3,
        };
        let used = (KeySerial(serial), level, KeyEpoch(epoch.0));
        self.unused.contains(&(level_of(peer), epoch)).then_some(used)
    }

    /// Whether this gateway may have opened what was sealed for `peer` in this epoch: of a node that signs the holder of that key alone.
    pub(crate) fn knows(&self, peer: Peer, epoch: hardened::Epoch, gateway: GatewayId) -> bool {
        peer == Peer::Cloud || !self.signs || self.blind(HardenedHolder::Gateway(gateway), epoch).is_some()
    }

    /// What hides the leaf of a frame that this gateway brought, if this node signs and it is known what was in it.
    pub(crate) fn salt(&self, peer: Peer, number: hardened::Number, by: GatewayId) -> Option<Salt> {
        let holder = match peer {
            Peer::Cloud => HardenedHolder::Cloud,
            Peer::Gateway => HardenedHolder::Gateway(by),
        };
        Some(self.blind(holder, number.epoch)?.salt(number.sequence.into()))
    }

    fn blind(&self, holder: HardenedHolder, epoch: hardened::Epoch) -> Option<&BlindKey> {
        self.blinds.iter().find(|b| (b.holder, b.epoch) == (holder, epoch)).map(|b| &b.key)
    }

    /// Those of a registry that are not revoked, with what the cloud opens of them.
    pub(super) fn read(registry: &Registry, vault: &Vault) -> Result<Vec<Self>, RegistryError> {
        let mut all = Vec::new();
        let (sensors, usual) = (registry.classic_sensors()?, Arc::new(OwnSensors::default()));
        let signing: HashSet<Did> = registry.classic_signers()?.into_iter().map(|s| s.did).collect();
        let mut unused: HashMap<Did, Vec<_>> = HashMap::new();
        for (did, level, epoch) in registry.unused_hardened()? {
            unused.entry(did).or_default().push((level, hardened::Epoch(epoch)));
        }
        let mut since: HashMap<Did, HashMap<_, _>> = HashMap::new();
        for ((did, level, epoch), at) in registry.hardened_since()? {
            let at = Millis(at.saturating_mul(1000));
            since.entry(did).or_default().insert((level, hardened::Epoch(epoch)), at);
        }
        for d in registry.classic_devices()?.into_iter().filter(|d| d.revoked_at.is_none()) {
            let cloud_key = match d.cloud_key {
                Some(_) => registry.classic_keys(vault, &d)?.cloud,
                None => None,
            };
            let keys = registry.hardened_keys(vault, &d, HardenedHolder::Cloud, KEYS)?;
            let (signs, mut blinds) = (signing.contains(&d.did), Vec::new());
            if signs {
                let blind = |holder: HardenedHolder, level: SignedLevel, k: &HardenedKey| Blind {
                    holder,
                    epoch: hardened::Epoch(k.epoch),
                    key: BlindKey::classic(&k.key, level, d.did, k.epoch),
                };
                blinds.extend(keys.iter().map(|k| blind(HardenedHolder::Cloud, SignedLevel::Cloud, k)));
                for holder in registry.hardened_holders(d.did)?.into_iter().map(HardenedHolder::Gateway) {
                    let keys = registry.hardened_keys(vault, &d, holder, KEYS)?;
                    blinds.extend(keys.iter().map(|k| blind(holder, SignedLevel::Gateway, k)));
                }
            }
            let key_of = |k: HardenedKey| (hardened::Epoch(k.epoch), hardened::Key::from_bytes(*k.key));
            let hardened = keys.into_iter().map(key_of).collect();
            all.push(Self {
                did: d.did,
                sid: d.sid,
                net: d.net,
                serial: d.serial,
                node_id: d.node_id,
                table: d.table,
                gateway_key: d.gateway_key.map(|k| k.bits),
                hardened,
                signs,
                blinds,
                unused: unused.remove(&d.did).unwrap_or_default(),
                since: since.remove(&d.did).unwrap_or_default(),
                // It was a key when it was entered.
                cloud_key: cloud_key.and_then(|key| key.key().ok()),
                profile: d.profile,
                sensors: sensors.get(&d.net).unwrap_or(&usual).clone(),
            });
        }
        Ok(all)
    }
}

/// The level of a key that this one holds: 2 or 3.
pub(crate) const fn level_of(peer: Peer) -> u8 {
    match peer {
        Peer::Gateway => 2,
        Peer::Cloud => 3,
    }
}

/// What was heard of a classic device.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Its last frames; `None` until they were looked up.
    pub(crate) history: Option<History>,
    /// Its rows of the ledger's contexts, by run of a gateway.
    pub(crate) contexts: HashMap<BootContext, ContextId>,
    /// Numbers of the hardened profile that were taken, by key; looked up in the ledger when they are needed.
    pub(crate) numbers: HashMap<ContextId, Window64>,
    /// Its last hardened frames, and when a gateway received them.
    pub(crate) taken: VecDeque<([u8; 8], Millis)>,
    /// When it was heard, and how often it speaks.
    pub(crate) pulse: Pulse,
    /// What is open of its evidence.
    pub(crate) dossier: Dossier,
    /// On which day since 1970, and how many of its frames were kept apart.
    pub(crate) aside: (u64, u32),
}

/// Frames of one device that are kept apart in a day; what comes beyond is counted and no more.
pub(crate) const ASIDE_A_DAY: u32 = 1000;

impl Live {
    /// Whether one more frame is kept apart.
    pub(crate) fn keeps_aside(&mut self, now: Millis) -> bool {
        let day = now.0 / 86_400_000;
        if self.aside.0 != day {
            self.aside = (day, 0);
        }
        self.aside.1 = self.aside.1.saturating_add(1);
        self.aside.1 <= ASIDE_A_DAY
    }
}

/// A classic device as the cloud serves it.
#[derive(Debug)]
pub struct ClassicDevice {
    /// As the registry has it.
    pub source: ClassicSource,
    /// When the store was put back from a copy, if ever.
    restored: Option<Millis>,
    live: Arc<Mutex<Live>>,
}

impl ClassicDevice {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what opens under a key is held (docs/protocol.md 8.4): the store was put back from a copy, and what came under that
    /// key before may have been recorded.
    pub(crate) fn holds(&self, peer: Peer, epoch: hardened::Epoch) -> bool {
        let since = self.source.since.get(&(level_of(peer), epoch)).copied();
        self.restored.is_some_and(|at| since.is_none_or(|since| since <= at))
    }

    /// Whether anything of it is encrypted, as the operator says.
    pub const fn has_key(&self) -> bool {
        let s = &self.source;
        s.gateway_key.is_some() || s.cloud_key.is_some() || matches!(s.profile, ClassicProfile::Hardened)
    }
}

/// The classic devices of a book, by network and by serial as text.
#[derive(Clone, Debug, Default)]
pub struct Classics(HashMap<(Net, Box<str>), Arc<ClassicDevice>>);

impl Classics {
    /// Of a registry; `before` hands over what it heard.
    pub(crate) fn of(sources: Vec<ClassicSource>, before: &Self, restored: Option<Millis>) -> Self {
        let known: HashMap<Did, &Arc<ClassicDevice>> = before.0.values().map(|d| (d.source.did, d)).collect();
        let of = |source: ClassicSource| {
            let live = known.get(&source.did).filter(|d| d.source.net == source.net).map(|d| d.live.clone());
            let name = source.serial.to_string().into_boxed_str();
            ((source.net, name), Arc::new(ClassicDevice { source, restored, live: live.unwrap_or_default() }))
        };
        Self(sources.into_iter().map(of).collect())
    }

    /// The device with this serial.
    pub fn find(&self, net: Net, serial: &str) -> Option<&Arc<ClassicDevice>> {
        // A lookup by parts of the key would need a type of its own; frames are few beside what follows.
        self.0.get(&(net, serial.into()))
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ClassicDevice>> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Profile;
    use fivefold_keep::registry::{By, Gateway, KeyOrigin, NewClassic, Replaces, Signer, Word};
    use fivefold_keep::sign::RsaSigningKey;

    use super::*;

    #[test]
    fn a_node_that_signs_signs_on_whichever_gateway_is_primary_now_and_each_key_has_the_holder_it_was_drawn_for() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry =
            Registry::create(&folder.path().join("registry.db"), By::new("test", "here", "test", 1)).unwrap();
        let net = registry.add_network(&vault, "mast", Profile::ToCloud, None).unwrap().net;
        registry.allow_classic("mast").unwrap();
        let gateway = |n: u32| Gateway {
            gateway: GatewayId(n),
            net,
            name: format!("g{n}"),
            sid: Sid(n as u16),
            did: Did([n as u8; 8]),
            primary: true,
            receipt_keys: Vec::new(),
            revoked_at: None,
        };
        registry.add_gateway(&gateway(1)).unwrap();
        let serial = "8a7384477876150c".parse().unwrap();
        let did = registry.add_classic(&vault, &NewClassic::plain(serial, net), 1).unwrap().did;
        registry.harden_classic(&vault, serial, 2).unwrap();
        let read = |registry: &Registry| ClassicSource::read(registry, &vault).unwrap().remove(0);
        let knows = |source: &ClassicSource| {
            let known = |epoch, gateway| source.knows(Peer::Gateway, hardened::Epoch(epoch), GatewayId(gateway));
            [known(1, 1), known(1, 2), known(2, 1), known(2, 2)]
        };
        let plain = read(&registry);
        assert_eq!((plain.signs, knows(&plain)), (false, [true; 4]), "nothing of it is signed: nothing to disturb");
        let (key, _) = RsaSigningKey::generate().unwrap();
        let signer = Signer {
            did,
            spki: key.spki().to_vec(),
            origin: KeyOrigin::Elsewhere,
            chain: String::new(),
            not_after: u64::MAX >> 1,
            certified_at: 3,
            revoked_at: None,
        };
        registry.enter_classic_signer(serial, &signer, Replaces::Nothing).unwrap();
        let source = read(&registry);
        assert_eq!((source.signs, knows(&source)), (true, [true, false, false, false]));
        // Without any primary gateway it signs nevertheless, and what it sealed before is its holder's alone.
        registry.revoke_gateway("g1", Word { at: 4, who: "operator" }).unwrap();
        let source = read(&registry);
        assert_eq!((source.signs, knows(&source)), (true, [true, false, false, false]));
        registry.add_gateway(&gateway(2)).unwrap();
        let source = read(&registry);
        assert_eq!(
            (source.signs, knows(&source)),
            (true, [true, false, false, false]),
            "the next has no key of it yet"
        );
        registry.harden_classic(&vault, serial, 5).unwrap();
        let source = read(&registry);
        assert_eq!((source.signs, knows(&source)), (true, [true, false, false, true]));
        let number = |epoch| hardened::Number { epoch: hardened::Epoch(epoch), sequence: 1, seed: [0; 4] };
        assert!(source.salt(Peer::Gateway, number(2), GatewayId(2)).is_some());
        assert!(source.salt(Peer::Gateway, number(2), GatewayId(1)).is_none());
        assert!(source.salt(Peer::Cloud, number(2), GatewayId(2)).is_none(), "the cloud holds none");
    }
}
