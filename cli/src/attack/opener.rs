//! Trying keys on what was recorded: the stolen gateway with all of its own, the stolen node with all of its own.

use std::path::Path;

use anyhow::Context as _;
use fivefold_core::e2_gateway::{E2, E2Secret};
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::Context;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::Alg;
use fivefold_core::wire::state::{Share, State};
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Within};
use fivefold_gateway::spool::{Spool, Wrap, WrapError};
use fivefold_keep::share::NodeShare;
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

use super::insider::Badge;
use super::plan::Plan;
use super::thief::Passed;

/// Tries one context on one message. The plaintext, if it opened.
pub(super) fn open<L: OscoreLevel>(context: &Context<L>, passed: &Passed) -> Option<Vec<u8>> {
    let tiny = Tiny::parse(&passed.tiny, KidLength::None).ok()?;
    let Tiny::Request { piv, ciphertext, .. } = tiny else { return None };
    let mut out = [0; 256];
    context.open_request(piv, ciphertext, &mut out).ok().map(|a| a.plaintext().to_vec())
}

/// Tries one context on the C3 message inside an opened C2 plaintext.
pub(super) fn open_inside<L: OscoreLevel>(context: &Context<L>, plaintext: &[u8], passed: &Passed) -> Option<Vec<u8>> {
    let tiny = Tiny::parse(&passed.tiny, KidLength::None).ok()?;
    let Tiny::Request { piv, layers: Layers::C2OverC3, .. } = tiny else { return None };
    let (piv, ct3) = match Inner::parse(plaintext, Within::Request).ok()? {
        Inner::Same { ct3 } => (piv, ct3),
        Inner::Explicit { piv, ct3, .. } => (piv, ct3),
        Inner::Own { .. } => return None,
    };
    let mut out = [0; 256];
    context.open_request(piv, ct3, &mut out).ok().map(|a| a.plaintext().to_vec())
}

struct ByVault(Vault);

impl Wrap for ByVault {
    fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.0.seal(name, plain).map_err(|e| WrapError(e.to_string()))
    }

    fn unwrap(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        self.0.open(name, sealed).map_err(|e| WrapError(e.to_string()))
    }
}

/// What the stolen gateway was told last, out of a copy of its store.
fn stolen_state(folder: &Path) -> anyhow::Result<Vec<Box<[u8]>>> {
    // Several thieves may share a folder.
    let name = format!("stolen-copy-{}", std::process::id());
    for ending in ["", "-wal"] {
        let from = folder.join(format!("store.db{ending}"));
        if from.exists() {
            std::fs::copy(from, folder.join(format!("{name}.db{ending}")))?;
        }
    }
    let vault = Vault::open_folder(folder)?;
    let copy = folder.join(format!("{name}.db"));
    let opened = Spool::open(&copy, GatewayBoot([0; 8]), Box::new(ByVault(vault)));
    let (_spool, restored) = opened.context("the stolen store does not open")?;
    for ending in ["db", "db-wal", "db-shm", "lock"] {
        let _ = std::fs::remove_file(folder.join(format!("{name}.{ending}")));
    }
    Ok(restored.state.map(|state| state.parts).unwrap_or_default())
}

/// MS2 of every device that the stolen gateway was told of.
pub(super) fn stolen_contexts(folder: &Path) -> anyhow::Result<Vec<(Sid, Epoch, Alg, E2Secret)>> {
    let mut secrets = Vec::new();
    for part in &stolen_state(folder)? {
        let Ok(state) = State::parse(part) else { continue };
        for context in state.contexts.iter() {
            if let Share::Primary { master_secret, master_salt } = context.share {
                secrets.push((context.sid, context.epoch, context.alg, E2Secret::new(*master_secret, *master_salt)));
            }
        }
    }
    Ok(secrets)
}

/// Keys of classic devices that the stolen gateway was told of.
///
/// # Errors
/// The stolen folder cannot be read.
pub fn stolen_classic(folder: &Path) -> anyhow::Result<Vec<Zeroizing<Vec<u8>>>> {
    let mut keys = Vec::new();
    for part in &stolen_state(folder)? {
        let Ok(state) = State::parse(part) else { continue };
        for device in state.classic.iter() {
            keys.extend(device.key.map(|key| Zeroizing::new(key.to_vec())));
            keys.extend(device.hardened.iter().map(|h| Zeroizing::new(h.key.to_vec())));
        }
    }
    Ok(keys)
}

/// What an enrolled node can show on the air, out of its stolen folder.
///
/// # Errors
/// The plan names no node, or its folder cannot be read.
pub fn badge_of(plan: &Plan) -> anyhow::Result<Badge> {
    let share = NodeShare::read(plan.node.as_ref().context("the plan names no node")?)?;
    Ok(Badge { sid: share.sid, did: share.did, key_index: share.secrets.key_index, key: share.secrets.network_key })
}

/// The plaintext of C2, for the thief who forwards what E2 alone protected.
///
/// # Errors
/// The stolen folder cannot be read.
pub fn contents(plan: &Plan) -> anyhow::Result<impl Fn(&Passed) -> Option<Vec<u8>> + use<>> {
    let folder = plan.gateway.clone().context("the plan names no stolen gateway")?;
    let contexts: Vec<(Sid, Context<E2>)> = stolen_contexts(&folder)?
        .into_iter()
        .filter_map(|(sid, epoch, alg, secret)| Some((sid, secret.context_for_peer(sid, epoch, None, alg).ok()?)))
        .collect();
    Ok(move |passed: &Passed| {
        let tiny = Tiny::parse(&passed.tiny, KidLength::None).ok()?;
        match tiny {
            Tiny::Plain { payload, .. } => Some(payload.to_vec()),
            Tiny::Request { layers, piv, .. } => {
                let (_, context) = contexts.iter().find(|(sid, _)| *sid == passed.originator)?;
                let plaintext = open(context, passed)?;
                if layers == Layers::C2 {
                    return Some(plaintext);
                }
                // The C3 message inside, expanded as the gateway does.
                let Inner::Same { ct3 } = Inner::parse(&plaintext, Within::Request).ok()? else { return None };
                let inner = Tiny::Request {
                    layers: Layers::C3,
                    wants: fivefold_core::wire::tiny::Wants::Nothing,
                    piv,
                    bctx: None,
                    kid: None,
                    ciphertext: ct3,
                };
                let mut out = vec![0; 256];
                let len = inner.expand(Some(passed.originator.into()), &mut out).ok()?;
                out.truncate(len);
                Some(out)
            }
            _ => None,
        }
    })
}

/// EUI-64s and short ids of all stations in a plan.
pub fn stations(plan: &Plan) -> Vec<Did> {
    plan.stations.iter().filter_map(|s| s.eui64.parse().ok()).collect()
}
