//! The neighbour table of a gateway: found by short address without hashing, and checked against the registry.

use std::collections::HashMap;

use fivefold_core::e1_link::{Air as LinkAir, Neighbour, Neighbours, Registration, TableFull};
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{LinkClass, Radio};

const NOBODY: u32 = u32::MAX;
const SIDS: usize = 1 << 16;

/// Maps each short address to a place, in 256 KiB: a lookup is one load.
pub(super) struct Places(Box<[u32]>);

impl Places {
    pub(super) fn new() -> Self {
        Self(vec![NOBODY; SIDS].into_boxed_slice())
    }

    pub(super) fn of(&self, sid: Sid) -> Option<usize> {
        self.0.get(usize::from(sid.0)).copied().filter(|&p| p != NOBODY).map(|p| p as usize)
    }

    pub(super) fn set(&mut self, sid: Sid, place: Option<usize>) {
        if let Some(slot) = self.0.get_mut(usize::from(sid.0)) {
            *slot = place.and_then(|p| u32::try_from(p).ok()).unwrap_or(NOBODY);
        }
    }
}

/// The neighbours, and what the registry says of those who claim to be one.
pub struct Air {
    entries: Vec<Neighbour>,
    by_sid: Places,
    by_did: HashMap<Did, u32>,
    registry: Registry,
}

/// Who belongs to the network. Empty before the first state was applied: then nobody is refused for it.
#[derive(Default)]
enum Registry {
    #[default]
    None,
    Known(HashMap<Did, Member>),
}

/// What the registry says of one EUI-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) sid: Sid,
    pub(super) radio: Radio,
}

impl Air {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), by_sid: Places::new(), by_did: HashMap::new(), registry: Registry::None }
    }

    /// Only these belong to the network from now on; who does not, or has another short id now, is no neighbour any more.
    /// Says whether somebody came who was refused before: what he said then was not heard.
    pub(super) fn register(&mut self, members: HashMap<Did, Member>) -> bool {
        let is_new = match &self.registry {
            Registry::None => false,
            Registry::Known(before) => members.iter().any(|(did, m)| before.get(did).map(|b| b.sid) != Some(m.sid)),
        };
        let entries = std::mem::take(&mut self.entries);
        for n in &entries {
            self.by_sid.set(n.sid(), None);
        }
        self.by_did.clear();
        for n in entries {
            if members.get(&n.did()).map(|m| m.sid) == Some(n.sid()) {
                let _ = self.put(n);
            }
        }
        self.registry = Registry::Known(members);
        is_new
    }

    /// The short id of a member of the network.
    pub(super) fn registered(&self, did: Did) -> Option<Sid> {
        match &self.registry {
            Registry::None => None,
            Registry::Known(members) => members.get(&did).map(|m| m.sid),
        }
    }

    /// How many are synced.
    pub fn synced(&self) -> usize {
        self.entries.iter().filter(|n| n.is_synced()).count()
    }

    /// Whether somebody of this short address is synced; the entry is in the processor's cache after that.
    pub(super) fn look(&self, sid: Sid) -> Option<bool> {
        self.entries.get(self.by_sid.of(sid)?).map(Neighbour::is_synced)
    }

    fn entry(&mut self, place: Option<usize>) -> Option<&mut Neighbour> {
        self.entries.get_mut(place?)
    }
}

impl Neighbours for Air {
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour> {
        self.entry(self.by_sid.of(sid))
    }

    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour> {
        let place = self.by_did.get(&did).map(|&p| p as usize);
        self.entry(place)
    }

    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull> {
        let place = match self.by_did.get(&neighbour.did()) {
            Some(&place) => place as usize,
            None => self.entries.len(),
        };
        match self.entries.get_mut(place) {
            Some(old) => {
                self.by_sid.set(old.sid(), None);
                *old = neighbour;
            }
            None if place < SIDS => {
                self.entries.push(neighbour);
                self.by_did.insert(neighbour.did(), place as u32);
            }
            None => return Err(TableFull),
        }
        self.by_sid.set(neighbour.sid(), Some(place));
        Ok(())
    }

    fn registration(&self, did: Did, sid: Sid) -> Registration {
        match &self.registry {
            Registry::None => Registration::Unknown,
            Registry::Known(members) if members.get(&did).map(|m| m.sid) == Some(sid) => Registration::Registered,
            Registry::Known(_) => Registration::Refused,
        }
    }

    fn air(&self, did: Did) -> Option<LinkAir> {
        let Registry::Known(members) = &self.registry else { return None };
        // How long a message may be is the module's to say, not the registry's.
        let e1s = |m: &&Member| m.radio.link_class() == LinkClass::E1s;
        members.get(&did).filter(e1s).map(|_| LinkAir::E1s { longest: u8::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(n: u8) -> Did {
        Did([n; 8])
    }

    #[test]
    fn a_neighbour_is_found_by_either_address() {
        let mut air = Air::new();
        air.put(Neighbour::unsynced(did(1), Sid(7))).unwrap();
        air.put(Neighbour::unsynced(did(1), Sid(8))).unwrap();
        assert!(air.by_sid(Sid(7)).is_none());
        assert_eq!(air.by_sid(Sid(8)).unwrap().did(), did(1));
        assert_eq!(air.by_did(did(1)).unwrap().sid(), Sid(8));
    }

    #[test]
    fn who_leaves_the_registry_is_no_neighbour_any_more() {
        let mut air = Air::new();
        air.put(Neighbour::unsynced(did(1), Sid(7))).unwrap();
        air.put(Neighbour::unsynced(did(2), Sid(8))).unwrap();
        let member = |sid: u16| Member { sid: Sid(sid), radio: Radio::Xbee };
        assert!(!air.register(HashMap::from([(did(2), member(8))])), "before there was a registry nobody was refused");
        assert!(air.register(HashMap::from([(did(2), member(8)), (did(3), member(7))])));
        assert!(!air.register(HashMap::from([(did(2), member(8)), (did(3), member(7))])));
        assert!(air.by_did(did(1)).is_none() && air.by_sid(Sid(7)).is_none());
        assert_eq!(air.by_sid(Sid(8)).unwrap().did(), did(2));
        assert_eq!(air.registration(did(1), Sid(7)), Registration::Refused);
        assert_eq!(air.registration(did(3), Sid(7)), Registration::Registered);
    }
}
