//! Renewal: the stolen node of every network with E2 or E3 is revoked, its network's key rotated without it, and the keys
//! of all others are renewed by EDHOC, while readings flow. Then the stolen node speaks again, to nobody.

use std::time::{Duration, Instant};

use fivefold_core::error::Code;
use fivefold_core::profile::Profile;
use fivefold_keep::registry::Whom;
use fivefold_keep::rotation::Stage;
use serde::Serialize;

use super::siege::{Siege, key_of};
use super::village::{Network, named};
use crate::operator::{Folder, Operator};

/// How long all of it may take: nodes are told in answers to their readings.
const PATIENCE: Duration = Duration::from_secs(100);
/// An order that was lost on the way is given again after so long.
const AGAIN: Duration = Duration::from_secs(15);
/// How long the stolen node may take to say something.
const LAST_WORDS: Duration = Duration::from_secs(40);

/// What the renewal of one network came to.
#[derive(Clone, Debug, Serialize)]
pub struct Renewed {
    /// Its name.
    pub network: String,
    /// Honest nodes.
    pub nodes: usize,
    /// Of these, under new keys which the other side has used, with a reading stored under them.
    pub renewed: usize,
    /// Seconds until the last of them was.
    pub seconds: f32,
    /// Index of the network key before.
    pub link_key_before: u8,
    /// Index of the one that came after it.
    pub link_key: u8,
    /// Seconds until the one before was good for nothing; `None` if it still is.
    pub rotated_after: Option<f32>,
    /// Frames of the stolen node that its first hop refused since, for their key.
    pub stolen_refused: u64,
    /// Readings of the stolen node that somebody took since.
    pub stolen_taken: usize,
    #[serde(skip)]
    at: usize,
}

impl Renewed {
    /// Whether all came out as it must.
    pub const fn is_whole(&self) -> bool {
        self.is_renewed() && self.stolen_refused > 0 && self.stolen_taken == 0
    }

    const fn is_renewed(&self) -> bool {
        self.renewed == self.nodes && self.rotated_after.is_some()
    }
}

/// Revokes, rotates, renews, and lets the stolen nodes try again.
///
/// # Errors
/// The book or the cloud does not answer.
pub fn renew(siege: &mut Siege<'_>) -> anyhow::Result<Vec<Renewed>> {
    let mut operator = Folder { dir: siege.village.dir.clone(), passphrase_file: None }.open()?;
    for node in siege.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
        node.process.stop();
    }
    let mut all = order(siege, &mut operator)?;
    await_all(siege, &mut operator, &mut all)?;
    if all.iter().all(Renewed::is_renewed) {
        last_words(siege, &mut all)?;
    }
    Ok(all)
}

/// The operator's words: this node is stolen, and all others renew.
fn order(siege: &Siege<'_>, operator: &mut Operator) -> anyhow::Result<Vec<Renewed>> {
    let now = crate::clock::now()?;
    let mut all = Vec::new();
    for (at, network) in siege.village.networks.iter().enumerate() {
        let Some(stolen) = network.nodes.last().filter(|_| network.profile != Profile::DangerLinkOnly) else {
            continue;
        };
        operator.registry.revoke_device(stolen.did, now)?;
        operator.registry.shut_out(&operator.vault, stolen.did, now)?;
        all.push(Renewed {
            network: network.name.clone(),
            nodes: network.nodes.len() - 1,
            renewed: 0,
            seconds: 0.0,
            link_key_before: 0,
            link_key: 0,
            rotated_after: None,
            stolen_refused: 0,
            stolen_taken: 0,
            at,
        });
    }
    operator.registry.order_renewal(Whom::All, now)?;
    Ok(all)
}

/// Waits until every node is under new keys and the network keys before are retired.
#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
fn await_all(siege: &Siege<'_>, operator: &mut Operator, all: &mut [Renewed]) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut ordered = began;
    while began.elapsed() < PATIENCE && !all.iter().all(Renewed::is_renewed) {
        std::thread::sleep(Duration::from_millis(200));
        let stored: Vec<(String, u64)> = siege.rows()?.iter().map(key_of).collect();
        for renewed in all.iter_mut().filter(|r| !r.is_renewed()) {
            let Some(network) = siege.village.networks.get(renewed.at) else { continue };
            let took = began.elapsed().as_secs_f32();
            if renewed.renewed < renewed.nodes {
                renewed.renewed = honest_under_new_keys(network, &stored);
                renewed.seconds = took;
            }
            if let Some(rotation) = operator.registry.rotation(network.net)? {
                (renewed.link_key_before, renewed.link_key) = (rotation.previous, rotation.index);
                let is_over = rotation.stage() == Stage::Done;
                renewed.rotated_after = renewed.rotated_after.or(is_over.then_some(took));
            }
        }
        if ordered.elapsed() > AGAIN {
            ordered = Instant::now();
            for network in all.iter().filter(|r| r.renewed < r.nodes).filter_map(|r| siege.village.networks.get(r.at)) {
                operator.registry.order_renewal(Whom::Network(network.net), crate::clock::now()?)?;
            }
        }
    }
    Ok(())
}

fn honest_under_new_keys(network: &Network, stored: &[(String, u64)]) -> usize {
    let done = network.honest().filter(|node| {
        let (did, epoch) = (node.did.to_string(), node.said().renewed);
        epoch > 0 && stored.iter().any(|(d, name)| *d == did && *name >= named(epoch, 0))
    });
    done.count()
}

/// The stolen nodes go on, and whoever hears them counts what becomes of their frames.
#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
fn last_words(siege: &mut Siege<'_>, all: &mut [Renewed]) -> anyhow::Result<()> {
    let refused = |siege: &Siege<'_>| -> anyhow::Result<Vec<u64>> {
        let codes = [Code::LinkKeyUnknown, Code::LinkForged].map(|code| code.as_str());
        let counts = siege.counts_at_first_hop(&codes)?;
        Ok(all.iter().map(|r| counts.get(r.at).copied().unwrap_or(0)).collect())
    };
    let before = (refused(siege)?, siege.of_the_insiders()?);
    for renewed in all.iter() {
        if let Some(node) = siege.village.networks.get_mut(renewed.at).and_then(|n| n.nodes.last_mut()) {
            node.process.resume()?;
        }
    }
    let began = Instant::now();
    let mut heard = vec![0; all.len()];
    while began.elapsed() < LAST_WORDS && heard.contains(&0) {
        std::thread::sleep(Duration::from_millis(200));
        heard = refused(siege)?.iter().zip(&before.0).map(|(now, before)| now.saturating_sub(*before)).collect();
    }
    let taken = siege.of_the_insiders()?;
    for (renewed, heard) in all.iter_mut().zip(heard) {
        let of = |counts: &[usize]| counts.get(renewed.at).copied().unwrap_or(0);
        renewed.stolen_refused = heard;
        renewed.stolen_taken = of(&taken).saturating_sub(of(&before.1));
    }
    for node in siege.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
        node.process.stop();
    }
    Ok(())
}

/// In three lines for each network.
pub fn words(renewals: &[Renewed]) -> String {
    let lines: Vec<String> = renewals.iter().map(words_of).collect();
    format!(
        "Keys renewed while readings flowed, and the stolen nodes shut out, by the operator's order:\n{}",
        lines.join("\n")
    )
}

fn words_of(r: &Renewed) -> String {
    let rotated = match r.rotated_after {
        Some(seconds) => format!("key {} gave way to key {} within {seconds:.1} s", r.link_key_before, r.link_key),
        None => format!("key {} is NOT retired", r.link_key_before),
    };
    let stolen = match (r.stolen_refused, r.stolen_taken) {
        (_, taken @ 1..) => format!("{taken} of its readings were TAKEN"),
        (0, _) => "nobody heard it again".to_owned(),
        (n, _) => format!("its next frames died at the first hop ({n} refused so far), and nothing of it was taken"),
    };
    format!(
        "  {:<11} E2, E3       {} of {} nodes under new keys by EDHOC, within {:.1} s\n  {:<11} E1           {rotated}\n  \
         {:<11} stolen node  {stolen}",
        r.network, r.renewed, r.nodes, r.seconds, "", ""
    )
}
