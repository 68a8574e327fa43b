//! Renewal: every network with E2 or E3 renews its keys by the operator's order, while readings flow.

use std::time::{Duration, Instant};

use fivefold_core::profile::Profile;
use fivefold_keep::registry::{Registry, Whom};
use serde::Serialize;

use super::siege::{Siege, key_of};
use super::village::{INSIDER, named};
use crate::operator::REGISTRY_FILE;

/// How long nodes may take: each is told in an answer to its next reading.
const PATIENCE: Duration = Duration::from_secs(100);
/// An order that was lost on the way is given again after so long.
const AGAIN: Duration = Duration::from_secs(15);

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
}

impl Renewed {
    /// Whether all of them are.
    pub const fn is_whole(&self) -> bool {
        self.renewed == self.nodes
    }
}

/// Orders all devices to renew, and waits until readings under the new keys are stored.
///
/// # Errors
/// The book or the cloud does not answer.
#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
pub fn renew(siege: &Siege<'_>) -> anyhow::Result<Vec<Renewed>> {
    let mut registry = Registry::open(&siege.village.dir.join(REGISTRY_FILE))?;
    registry.order_renewal(Whom::All, crate::clock::now()?)?;
    let began = Instant::now();
    let mut ordered = began;
    let networks = siege.village.networks.iter().filter(|n| n.profile != Profile::DangerLinkOnly);
    let mut all: Vec<(_, Renewed)> = networks
        .map(|n| (n, Renewed { network: n.name.clone(), nodes: n.nodes.len() - 1, renewed: 0, seconds: 0.0 }))
        .collect();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let stored: Vec<(String, u64)> = siege.rows()?.iter().map(key_of).collect();
        for (network, renewed) in all.iter_mut().filter(|(_, r)| !r.is_whole()) {
            let honest = network.nodes.iter().enumerate().filter(|(i, _)| *i != INSIDER).map(|(_, n)| n);
            let done = honest.filter(|node| {
                let (did, epoch) = (node.did.to_string(), node.said().renewed);
                epoch > 0 && stored.iter().any(|(d, name)| *d == did && *name >= named(epoch, 0))
            });
            renewed.renewed = done.count();
            renewed.seconds = began.elapsed().as_secs_f32();
        }
        if began.elapsed() > PATIENCE || all.iter().all(|(_, r)| r.is_whole()) {
            return Ok(all.into_iter().map(|(_, r)| r).collect());
        }
        if ordered.elapsed() > AGAIN {
            ordered = Instant::now();
            for (network, _) in all.iter().filter(|(_, r)| !r.is_whole()) {
                registry.order_renewal(Whom::Network(network.net), crate::clock::now()?)?;
            }
        }
    }
}

/// In a line for each network.
pub fn words(renewals: &[Renewed]) -> String {
    let line =
        |r: &Renewed| format!("  {:<11} {} of {} nodes, within {:.1} s", r.network, r.renewed, r.nodes, r.seconds);
    let lines: Vec<String> = renewals.iter().map(line).collect();
    format!("Keys of E2 and E3 renewed by EDHOC while readings flowed, by the operator's order:\n{}", lines.join("\n"))
}
