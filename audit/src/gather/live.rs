//! Facts that a running process has and no file.

use std::collections::{HashMap, HashSet};

use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{Mode, Policy, Profile};
use fivefold_core::wire::state::{Phase, State};

use crate::facts::{Classic, Context, Device, Facts, KeySeen, Live, Network, Reported};
use crate::keys;

/// A network key that a gateway has, looked at.
pub fn network_key(index: u8, key: &[u8; 16], network: &str) -> KeySeen {
    keys::look(format!("its network key under index {index}"), key, &[network.as_bytes()])
}

/// What a gateway knows beside its folder, which was looked at before: the network keys that it was enrolled with, and the parts of
/// the state that it was told since, if it was.
pub fn gateway(installed: &[KeySeen], state: Option<&[Box<[u8]>]>, facts: &mut Facts) {
    let Some(own) = facts.gateways.first_mut() else { return };
    own.link_keys = Some(installed.to_vec());
    let network = own.network.clone();
    let Some(parts) = state else { return };
    let parts = match parts.iter().map(|part| State::parse(part)).collect::<Result<Vec<_>, _>>() {
        Ok(parts) => parts,
        Err(wrong) => return facts.unread.push(format!("the state that the cloud told: {}", wrong.reason)),
    };
    let keys = parts.iter().flat_map(|p| p.keys.iter()).filter(|k| k.phase != Phase::Retire);
    let keys: Vec<_> = keys.map(|k| network_key(k.index, k.key, &network)).collect();
    // Those of before are given up once it was told others.
    if !keys.is_empty() {
        own.link_keys = Some(keys);
    }
    let revoked: HashSet<Did> = parts.iter().flat_map(|p| p.revoked.iter()).collect();
    let local: HashSet<Sid> = parts.iter().flat_map(|p| p.local.iter()).map(|l| l.sid).collect();
    let context = |sid: Sid, policy: &Policy| match (policy.profile, policy.mode) {
        (Profile::DangerLinkOnly, _) => Context::None,
        (_, Mode::Random) => Context::Boot,
        _ if local.contains(&sid) => Context::AtGateway,
        _ => Context::Unseen,
    };
    let devices = parts.iter().flat_map(|p| p.devices.iter()).filter(|d| !revoked.contains(&d.did));
    facts.devices.extend(devices.map(|d| Device {
        name: d.did.to_string(),
        network: network.clone(),
        sid: d.sid,
        place: None,
        policy: d.policy,
        overrides: d.overrides,
        revoked_at: None,
        keys: None,
        context: context(d.sid, &d.policy),
        signer: None,
        share: None,
        reported: None,
    }));
    facts.classic.extend(parts.iter().flat_map(|p| p.classic.iter()).map(|d| Classic {
        name: d.serial.to_owned(),
        network: network.clone(),
        sid: d.sid,
        is_hardened: d.flags.hardened,
        keys: d.key.map(|key| keys::look("its key for the gateway", key, &[d.serial.as_bytes()])).into_iter().collect(),
        has_key_messages: false,
        signer: None,
        revoked_at: None,
    }));
    // Its levels are those of its devices: of one without any, nobody says them here.
    let weakest = facts.devices.iter().map(|d| d.policy.profile).min_by_key(|p| p.levels().count_ones());
    let of_classic = (!facts.classic.is_empty()).then_some(Profile::ToCloud);
    facts.networks.extend(weakest.or(of_classic).map(|profile| Network {
        name: network,
        profile,
        keys: None,
        key_since: None,
        rotation: None,
        is_local: !local.is_empty(),
    }));
    facts.has_state = true;
}

/// What a running cloud knows of itself, and of the devices of its book, by EUI-64.
pub fn cloud(live: Live, mut reported: HashMap<String, Reported>, facts: &mut Facts) {
    for device in &mut facts.devices {
        device.reported = reported.remove(&device.name);
    }
    facts.live = Some(live);
}
