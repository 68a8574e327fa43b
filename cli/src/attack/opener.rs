//! Trying keys on what was recorded: the stolen gateway with all of its own, the stolen node with all of its own.

use std::path::Path;

use anyhow::Context as _;
use fivefold_core::e2_gateway::{E2, E2Root, E2Secret};
use fivefold_core::e3_cloud::{E3, E3Secret};
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

use super::Report;
use super::insider::Badge;
use super::plan::{Plan, found};
use super::thief::{Passed, Thief};

/// Tries one context on one message. The plaintext, if it opened.
fn open<L: OscoreLevel>(context: &Context<L>, passed: &Passed) -> Option<Vec<u8>> {
    let tiny = Tiny::parse(&passed.tiny, KidLength::None).ok()?;
    let Tiny::Request { piv, ciphertext, .. } = tiny else { return None };
    let mut out = [0; 256];
    context.open_request(piv, ciphertext, &mut out).ok().map(|a| a.plaintext().to_vec())
}

/// Tries one context on the C3 message inside an opened C2 plaintext.
fn open_inside<L: OscoreLevel>(context: &Context<L>, plaintext: &[u8], passed: &Passed) -> Option<Vec<u8>> {
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
fn stolen_contexts(folder: &Path) -> anyhow::Result<Vec<(Sid, Epoch, Alg, E2Secret)>> {
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

/// `gateway-decrypts`: every key of the gateway on everything that passed: its C2 contexts, and the same secrets tried as
/// if they were those of C3.
///
/// # Errors
/// The stolen folder cannot be read.
pub fn gateway_decrypts(plan: &Plan) -> anyhow::Result<Report> {
    let folder = plan.gateway.clone().context("the plan names no stolen gateway")?;
    let thief = Thief::new(plan)?;
    let secrets = stolen_contexts(&folder)?;
    let mut clear = Vec::new();
    let (mut tries, mut opened) = (0u64, 0u64);
    for (sid, epoch, alg, secret) in &secrets {
        let e2: Context<E2> =
            secret.context_for_peer(*sid, *epoch, None, *alg).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let key = secret.danger_master_secret();
        let as_e3 = E3Secret::new(key.get(..alg.key_len()).unwrap_or_default(), secret.master_salt());
        let as_e3: Option<Context<E3>> = as_e3.and_then(|s| s.context_for_peer(*sid, *epoch, None, *alg).ok());
        for passed in thief.passed.iter().filter(|p| p.originator == *sid) {
            tries += 2;
            let inner = open(&e2, passed);
            opened += u64::from(inner.is_some());
            if let Some(plaintext) = &inner {
                clear.extend_from_slice(plaintext);
                clear.extend(as_e3.as_ref().and_then(|c| open_inside(c, plaintext, passed)).unwrap_or_default());
            }
            clear.extend(as_e3.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
        }
    }
    // What E1 alone protected is in the clear at the gateway anyway.
    let plain: Vec<u8> = thief
        .passed
        .iter()
        .filter(|p| p.tiny.first().is_some_and(|r| r & 0x20 == 0))
        .flat_map(|p| p.tiny.clone())
        .collect();
    tries += thief.passed.len() as u64;
    clear.extend(plain);
    let read = found(&clear, &plan.payloads());
    let note = format!(
        "{} keys on {} messages: {opened} opened at E2, {read} readings seen",
        secrets.len() + 1,
        thief.passed.len()
    );
    Ok(Report { attempts: tries, read, note })
}

/// What an enrolled node can show on the air, out of its stolen folder.
///
/// # Errors
/// The plan names no node, or its folder cannot be read.
pub fn badge_of(plan: &Plan) -> anyhow::Result<Badge> {
    let share = NodeShare::read(plan.node.as_ref().context("the plan names no node")?)?;
    Ok(Badge { sid: share.sid, did: share.did, key_index: share.secrets.key_index, key: share.secrets.network_key })
}

/// `stolen-node-others`: every key of the node on what others sent, and messages in others' names sealed under them.
///
/// # Errors
/// The stolen folder cannot be read, or a socket fails.
pub fn stolen_node_others(plan: &Plan) -> anyhow::Result<Report> {
    let share = NodeShare::read(plan.node.as_ref().context("the plan names no node")?)?;
    let others = super::insider::heard_of_others(plan, badge_of(plan)?)?;
    let e3 = share.secrets.e3.as_ref().and_then(|(ms3, salt3)| E3Secret::new(ms3, salt3));
    let e2 = share.secrets.e2_root.as_ref().map(|root| E2Root::new(**root).secret(share.group));
    let (mut tries, mut clear) = (0u64, Vec::new());
    for passed in &others {
        // Under the node's own id, and as if its secret were the other's.
        for sid in [share.sid, passed.originator] {
            let e3 = e3.as_ref().and_then(|s| s.context_for_peer(sid, share.epoch, None, share.policy.alg).ok());
            let e2 = e2.as_ref().and_then(|s| s.context_for_peer(sid, share.epoch, None, share.policy.alg).ok());
            tries += u64::from(e3.is_some()) + u64::from(e2.is_some());
            clear.extend(e3.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
            clear.extend(e2.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
        }
    }
    let read = found(&clear, &plan.payloads());
    let forged = super::insider::forges(plan, badge_of(plan)?)?;
    let note =
        format!("{tries} keys tried on {} messages of others, {} spoken in their names", others.len(), forged.attempts);
    Ok(Report { attempts: tries + forged.attempts, read, note })
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
