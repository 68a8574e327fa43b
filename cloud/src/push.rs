//! The state that each gateway is pushed (docs/protocol.md, "Gateway state"): built from the registry alone, so that one
//! version has one content.

use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::SealError;
use fivefold_core::id::{Did, Epoch};
use fivefold_core::profile::Mode;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{self, Context, NetworkKey, PART_BYTES, Part, Share, Standing, State};
use fivefold_keep::registry::{Device, Registry, RegistryError};
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

/// Devices in one part: with their contexts they stay well below its size.
const DEVICES: usize = 2048;

/// Why a state could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The gateway is not registered, or revoked.
    #[error("gateway {0} is not registered, or revoked")]
    Unknown(GatewayName),
    /// The registry did not give what is in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A part did not fit.
    #[error("a part of the state of {gateway} could not be written: {reason}")]
    Encode {
        /// Whose.
        gateway: GatewayName,
        /// Why.
        reason: SealError,
    },
}

/// A gateway's state, in parts. Holds secrets: wiped when dropped.
pub struct Push {
    /// Version of all parts.
    pub version: u64,
    /// The parts, in order.
    pub parts: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Push(version {}, {} parts)", self.version, self.parts.len())
    }
}

/// What one context's share is written from.
struct Secret {
    epoch: Epoch,
    first: Zeroizing<Vec<u8>>,
    second: Zeroizing<Vec<u8>>,
}

/// Builds the state of one gateway from the registry as it is now.
///
/// # Errors
/// [`PushError`].
pub fn build(registry: &Registry, vault: &Vault, gateway: GatewayName) -> Result<Push, PushError> {
    loop {
        let version = registry.version()?;
        let push = build_once(registry, vault, gateway, version)?;
        // What changed while it was read belongs to the next version: then this content belongs to neither.
        if registry.version()? == version {
            return Ok(push);
        }
    }
}

fn build_once(registry: &Registry, vault: &Vault, name: GatewayName, version: u64) -> Result<Push, PushError> {
    let gateways = registry.gateways()?;
    let gateway = gateways
        .iter()
        .find(|g| g.gateway == name.gateway && g.net == name.net && g.revoked_at.is_none())
        .ok_or(PushError::Unknown(name))?;
    let network = registry.networks()?.into_iter().find(|n| n.net == name.net).ok_or(PushError::Unknown(name))?;
    let keys = registry.network_keys(vault, name.net)?;
    let keys: Vec<NetworkKey<'_>> =
        keys.iter().map(|k| NetworkKey { index: k.index, key: &k.key, phase: k.phase }).collect();
    let (mut revoked, mut devices) = (Vec::<Did>::new(), Vec::<Device>::new());
    for device in registry.devices()?.into_iter().filter(|d| d.net == name.net) {
        if device.revoked_at.is_some() {
            revoked.push(device.did);
        } else {
            devices.push(device);
        }
    }
    revoked.sort_unstable();
    devices.sort_unstable_by_key(|d| d.sid);
    let chunks: Vec<&[Device]> = if devices.is_empty() { vec![&[]] } else { devices.chunks(DEVICES).collect() };
    let count = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    let mut parts = Vec::with_capacity(chunks.len());
    for (index, chunk) in (0u16..).zip(&chunks) {
        let mut secrets = Vec::with_capacity(chunk.len());
        for device in *chunk {
            secrets.push(secret(registry, vault, device, network.group, gateway.primary)?);
        }
        let list: Vec<state::Device> = chunk
            .iter()
            .map(|d| state::Device { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides })
            .collect();
        let contexts: Vec<Context<'_>> =
            chunk.iter().zip(&secrets).filter_map(|(d, s)| share(d, s.as_ref()?, gateway.primary)).collect();
        let last = index + 1 == count;
        let state = State {
            version,
            net: name.net,
            group: network.group,
            part: Part { index, count },
            devices: List::of(&list),
            contexts: List::of(&contexts),
            keys: if last { List::of(&keys) } else { List::default() },
            revoked: if last { List::of(&revoked) } else { List::default() },
        };
        let mut out = Zeroizing::new(vec![0; PART_BYTES]);
        let len = state.emit(&mut out).map_err(|reason| PushError::Encode { gateway: name, reason })?;
        out.truncate(len);
        parts.push(out);
    }
    Ok(Push { version, parts })
}

fn secret(
    registry: &Registry,
    vault: &Vault,
    device: &Device,
    group: fivefold_core::id::GatewayGroup,
    primary: bool,
) -> Result<Option<Secret>, PushError> {
    let random = device.policy.mode == Mode::Random;
    // The receive part of mode R is of one boot, and the registry knows no boots.
    if !device.policy.profile.has_e2() || (random && !primary) {
        return Ok(None);
    }
    let secrets = registry.secrets(vault, device)?;
    let (root, epoch) = if random {
        (E2Root::bootstrap(&secrets.root_psk, device.did), Epoch(0))
    } else {
        (E2Root::new(*secrets.e2_root), device.epoch)
    };
    let secret = root.secret(group);
    if primary {
        return Ok(Some(Secret {
            epoch,
            first: Zeroizing::new(secret.danger_master_secret().to_vec()),
            second: Zeroizing::new(secret.master_salt().to_vec()),
        }));
    }
    let Ok(context) = secret.context_for_peer(device.sid, epoch, None, device.policy.alg) else { return Ok(None) };
    let part = context.receive_part();
    Ok(Some(Secret {
        epoch,
        first: Zeroizing::new(part.danger_recipient_key().to_vec()),
        second: Zeroizing::new(part.common_iv().to_vec()),
    }))
}

fn share<'s>(device: &Device, secret: &'s Secret, primary: bool) -> Option<Context<'s>> {
    let share = if primary {
        Share::Primary {
            master_secret: secret.first.as_slice().try_into().ok()?,
            master_salt: secret.second.as_slice().try_into().ok()?,
        }
    } else {
        Share::Secondary { device_key: &secret.first, common_iv: secret.second.as_slice().try_into().ok()? }
    };
    let Secret { epoch, .. } = *secret;
    Some(Context { sid: device.sid, epoch, alg: device.policy.alg, standing: Standing::Active, bctx: None, share })
}
