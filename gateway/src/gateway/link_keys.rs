//! The network's keys at a gateway (docs/protocol.md 4.3): taken over from the state, and handed out to the devices whose
//! messages end here. Those with E3 get them from the cloud.

use fivefold_core::e1_link::E1;
use fivefold_core::e1_link::rotation::{missed, next_step, take_over};
use fivefold_core::e5_renewal::HandedKey;
use fivefold_core::error::SealError;
use fivefold_core::id::Sid;
use fivefold_core::key::Key;
use fivefold_core::profile::{KeyIndexes, Profile, Radio};
use fivefold_core::reading::{Item, Payload};
use fivefold_core::time::Millis;
use fivefold_core::wire::control::{Downlink, LinkKey, Uplink};
use fivefold_core::wire::ieee802154::{Ack, MAX_FRAME};
use fivefold_core::wire::mesh::{self, MAX_HOPS};
use fivefold_core::wire::state::{NetworkKey, Phase, State};
use fivefold_core::wire::tiny::EdhocRule;

use super::output::AppliedState;
use super::{Gateway, link_key_name};

/// How long a gateway takes EDHOC under a retired network key, in milliseconds: 30 days (docs/protocol.md 4.3).
const RECOVERY: u64 = 30 * 24 * 3_600_000;
/// Bytes of a control map of ours, at most: items 1, 6, 7 and 10 take 61, and a frame has room for 81.
const CONTROL: usize = 64;
/// The same over a DigiMesh module, whose messages have 73 bytes.
const DIGIMESH: usize = 40;

/// The network keys of the state that is applied, by index.
#[derive(Debug, Default)]
pub(super) struct Pushed(Vec<(u8, Phase, Key<E1, 16>)>);

impl Pushed {
    fn of(keys: &[NetworkKey<'_>]) -> Self {
        Self(keys.iter().map(|k| (k.index, k.phase, Key::new(*k.key))).collect())
    }

    fn phases(&self) -> Vec<(u8, Phase)> {
        self.0.iter().map(|(index, phase, _)| (*index, *phase)).collect()
    }

    /// What a device is told next, with the key if it is handed out.
    fn told(&self, has: Option<KeyIndexes>) -> Option<LinkKey<'_>> {
        let step = next_step(&self.phases(), has)?;
        let given = |(index, _, _): &&(u8, Phase, Key<E1, 16>)| *index == step.index && step.phase == Phase::Distribute;
        let key = self.0.iter().find(given).map(|(_, _, key)| key.danger_bytes());
        Some(LinkKey { index: step.index, key, phase: step.phase })
    }

    /// The key that the network sends under, if a device that said this last missed it.
    pub(super) fn missed(&self, has: Option<KeyIndexes>) -> Option<HandedKey> {
        let index = missed(&self.phases(), has)?;
        self.0.iter().find(|(i, ..)| *i == index).map(|(.., key)| HandedKey::new(index, *key.danger_bytes()))
    }
}

/// Whether a state says which keys the network has: then those of the gateway's own share are of yesterday.
pub(super) fn names_keys(state: &AppliedState) -> bool {
    state.parts.iter().any(|part| State::parse(part).is_ok_and(|s| !s.keys.is_empty()))
}

impl Gateway {
    /// Takes over the keys of a state that was applied at `applied`.
    pub(super) fn apply_keys(&mut self, applied: Millis, keys: &[NetworkKey<'_>]) {
        // A state without any key says nothing about keys: those from the gateway's own share stay.
        if keys.is_empty() {
            return;
        }
        self.pushed_keys = Pushed::of(keys);
        let (leases, floor) = (&self.link_leases, self.link_floor);
        let bound =
            |k: &NetworkKey<'_>| leases.get(&link_key_name(k.index, &Key::new(*k.key))).copied().unwrap_or(floor);
        take_over(self.link.keys_mut(), keys, applied.plus(RECOVERY), bound);
        self.link_keys = keys.iter().map(|k| (k.index, link_key_name(k.index, &Key::new(*k.key)))).collect();
        self.link_lease_asked = false;
        self.ask_link_lease();
    }

    /// Takes note of what a device says of its network keys, in a message whose number is the highest so far.
    pub(super) fn hear_link_keys(&mut self, sid: Sid, payload: &[u8]) {
        let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return };
        let said = items.filter_map(|item| match item {
            Item::Control(map) => Uplink::parse(map).ok()?.key_indexes,
            _ => None,
        });
        if let (Some(keys), Some(device)) = (said.last(), self.devices.find_mut(sid)) {
            device.link_keys = Some(keys);
        }
    }

    /// Sends a message of EDHOC to a straggler under a retired key. `false` when it waits for frame counters of that key,
    /// which are being written.
    pub(super) fn send_in_recovery(&mut self, index: u8, to: Sid, via: Sid, message: (EdhocRule, &[u8])) -> bool {
        let originator = self.link.identity().sid;
        let mesh = (to != via).then_some(mesh::Header { hops: MAX_HOPS, originator, destination: to });
        let mut frame = [0; MAX_FRAME];
        let over = self.link.over(via);
        let sealed = self.link.seal_in_recovery(index, (via, Ack::Request), mesh, message, &mut frame);
        self.ask_link_lease();
        match sealed {
            Ok(len) => self.transmit(over, frame.get(..len).unwrap_or_default()),
            Err(SealError::LeaseSpent) if self.link_lease_asked => return false,
            // Longer than a frame, or the key is gone: the device learns of it by asking again.
            Err(_) => {}
        }
        true
    }

    /// The control map of an answer to a message that ends here, with the device's next step of a key rotation in it.
    pub(super) fn control_map(&self, sid: Sid, map: Downlink<'_>) -> Box<[u8]> {
        let device = self.devices.find(sid).filter(|d| d.policy.profile == Profile::ToGateway);
        let link_key = device.and_then(|d| self.pushed_keys.told(d.link_keys));
        let map = Downlink { link_key, ..map };
        let mut out = [0; CONTROL];
        let room = if device.is_some_and(|d| d.policy.radio == Radio::Digimesh) { DIGIMESH } else { CONTROL };
        // Where all of it does not fit, the key goes first: what is here is said again with every answer.
        let key_first = Downlink { received: None, earlier: None, ..map.clone() };
        for map in [map, key_first] {
            if map == Downlink::default() {
                return Box::default();
            }
            if let Some(n) = out.get_mut(..room).and_then(|out| map.emit(out).ok()) {
                return out.get(..n).unwrap_or_default().into();
            }
        }
        Box::default()
    }
}
