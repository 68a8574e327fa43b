//! Attacks on the wires between gateways and cloud, and a gateway that keeps what it took.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_core::profile::Profile;
use serde_json::Value;

use super::{Siege, now, payloads, report_of, sent_by, start};
use crate::attack::Report;
use crate::attack::plan::Station;
use crate::demo::processes::free_tcp;
use crate::demo::threats::{Gain, Outcome};
use crate::demo::village::{Network, Village};

impl Siege<'_> {
    pub(super) fn read_the_wires(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let mut reports = Vec::new();
        for network in &self.village.networks {
            let needles: Vec<Vec<u8>> = payloads(network).iter().filter_map(|h| hex::decode(h).ok()).collect();
            let mut report = Report::default();
            for gateway in &network.gateways {
                let bytes = std::fs::read(crate::attack::backhaul::recording(&self.village.logs, gateway.wire))?;
                report.attempts += bytes.len() as u64;
                report.read += crate::attack::plan::found(&bytes, &needles);
            }
            report.note = format!("searched {} bytes of the wire for {} readings", report.attempts, needles.len());
            reports.push((report, Outcome::default()));
        }
        Ok(reports)
    }

    pub(super) fn flip_the_wires(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let wires = self.wires();
        let flipped = |village: &mut Village, order: &str| -> anyhow::Result<Vec<u64>> {
            wires.iter().map(|ws| ws.iter().map(|w| flips(village, order, *w)).sum()).collect()
        };
        let before = flipped(self.village, "flip")?;
        // It stands there until something passed on every network's wire, and a while longer.
        let until = now() + Duration::from_secs(20);
        while now() < until && flipped(self.village, "flip")?.iter().zip(&before).any(|(now, before)| now == before) {
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_millis(500));
        let after = flipped(self.village, "pass")?;
        self.was_cut()?;
        let reports = before.iter().zip(after).map(|(b, a)| {
            let report = Report::tried((a - b) as usize, "bits flipped on the wire; TLS cut each connection");
            (report, Outcome::default())
        });
        Ok(reports.collect())
    }

    pub(super) fn wires(&self) -> Vec<Vec<usize>> {
        self.village.networks.iter().map(|n| n.gateways.iter().map(|g| g.wire).collect()).collect()
    }

    /// Leads every gateway to somebody who plays the cloud, and lets him call the cloud as a gateway.
    pub(super) fn lead_astray(&mut self, name: &str) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let impostors = free_tcp(self.village.networks.len())?;
        let mut running = Vec::new();
        for (at, bind) in impostors.iter().enumerate() {
            let mut plan = self.plan(at, name)?;
            // He listens here; the plan's stations are of no use to him.
            plan.stations =
                vec![Station { name: "impostor".into(), addr: *bind, sid: String::new(), eui64: String::new() }];
            running.push(start(&self.folder, name, at, &plan)?);
        }
        std::thread::sleep(Duration::from_millis(300));
        let wires = self.wires();
        for (wires, bind) in wires.iter().zip(&impostors) {
            for wire in wires {
                self.village.backhaul.order(&format!("to {wire} {bind}"))?;
            }
        }
        let reports: anyhow::Result<Vec<_>> = running.into_iter().map(report_of).collect();
        for wire in wires.iter().flatten() {
            self.village.backhaul.order(&format!("to {wire} {}", self.village.ingest))?;
        }
        self.was_cut()?;
        Ok(reports?.into_iter().map(|r| (r, Outcome::default())).collect())
    }

    /// The gateway forwards nothing for a while; with `drop`, it then throws away what it took.
    pub(super) fn withhold(&mut self, drop: bool) -> anyhow::Result<Vec<(Report, Outcome)>> {
        self.await_flow()?;
        let wires = self.wires();
        let nowhere = free_tcp(1)?;
        let nowhere = nowhere.first().context("no port")?;
        for wire in wires.iter().flatten() {
            self.village.backhaul.order(&format!("to {wire} {nowhere}"))?;
        }
        let reached: Vec<BTreeSet<(String, u64)>> = self.village.networks.iter().map(sent_by).collect();
        // A gateway that withholds stands there for as long as it takes nodes of every network to send something new.
        let (least, most) = (now() + Duration::from_millis(4500), now() + Duration::from_secs(20));
        let held = loop {
            std::thread::sleep(Duration::from_millis(300));
            let held: Vec<BTreeSet<(String, u64)>> = self
                .village
                .networks
                .iter()
                .zip(&reached)
                .map(|(n, r)| sent_by(n).difference(r).cloned().collect())
                .collect();
            if now() > most || (now() > least && held.iter().all(|h| h.len() >= 3)) {
                break held;
            }
        };
        let stored = self.stored()?;
        let kept_away: Vec<usize> =
            held.iter().map(|h| h.iter().filter(|k| !stored.contains_key(*k)).count()).collect();
        if drop {
            self.strange = true;
            for network in &mut self.village.networks {
                for gateway in &mut network.gateways {
                    gateway.process.kill();
                    throw_away(&gateway.folder)?;
                    gateway.process.resume()?;
                }
            }
        }
        for wire in wires.iter().flatten() {
            self.village.backhaul.order(&format!("to {wire} {}", self.village.ingest))?;
        }
        // What the nodes still hold comes now; they try again after three seconds, six, twelve.
        let until = now() + Duration::from_secs(30);
        let mut missing = Vec::new();
        while now() < until {
            std::thread::sleep(Duration::from_millis(300));
            let stored = self.stored()?;
            missing = held.iter().map(|h| h.iter().filter(|k| !stored.contains_key(*k)).count()).collect();
            let is_weak = |n: &Network| matches!(n.profile, Profile::ToGateway | Profile::DangerLinkOnly);
            let expected: usize = self
                .village
                .networks
                .iter()
                .zip(&missing)
                .filter(|(n, _)| !(drop && is_weak(n)))
                .map(|(_, m)| *m)
                .sum();
            if expected == 0 {
                break;
            }
        }
        self.was_cut()?;
        let mut reports = Vec::new();
        for ((held, kept), missing) in held.iter().zip(kept_away).zip(missing) {
            let outcome = match (kept, missing) {
                (0, _) => Outcome::default(),
                (_, 0) => Outcome::default().and(Gain::Withholds),
                _ => Outcome::default().and(Gain::Loses),
            };
            let note = format!("{kept} of {} readings kept away for a while, {missing} for good", held.len());
            reports.push((Report::tried(held.len(), note), outcome));
        }
        Ok(reports)
    }

    /// How many readings of each network are stored.
    fn stored_by_network(&self) -> anyhow::Result<Vec<usize>> {
        let stored = self.stored()?;
        let nets = self.village.networks.iter().map(|n| n.net.to_string());
        Ok(nets.map(|net| stored.values().filter(|row| row["net"].as_str() == Some(&net)).count()).collect())
    }

    /// Nodes were cut off until now: they pause before they send anything new.
    pub(super) fn was_cut(&mut self) -> anyhow::Result<()> {
        self.flow_since = Some(self.stored_by_network()?);
        Ok(())
    }

    /// Waits until new readings of every network are stored since nodes were cut off last: what nobody sends, nobody can
    /// withhold.
    pub(super) fn await_flow(&mut self) -> anyhow::Result<()> {
        let Some(before) = self.flow_since.take() else { return Ok(()) };
        let until = now() + Duration::from_secs(20);
        while now() < until && self.stored_by_network()?.iter().zip(&before).any(|(now, before)| *now < before + 2) {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

fn flips(village: &mut Village, order: &str, wire: usize) -> anyhow::Result<u64> {
    let answer = village.backhaul.order(&format!("{order} {wire}"))?;
    Ok(answer.get("flipped").and_then(Value::as_u64).unwrap_or(0))
}

/// Empties the spool of a gateway that does not run, and touches nothing else in its store.
fn throw_away(folder: &Path) -> anyhow::Result<()> {
    let store = rusqlite::Connection::open(folder.join("store.db"))?;
    store.execute("DELETE FROM spool", []).context("the gateway's spool cannot be emptied")?;
    Ok(())
}
