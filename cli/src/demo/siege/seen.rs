//! What is seen of an attack: what the cloud stored, and what every receiving process counted.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::{Siege, now};
use crate::demo::village::{Network, Said, named};

/// Counters of the deployment: (network, process, code) → count. A process that starts again counts from 0.
pub(super) type Counts = BTreeMap<(String, String, String), u64>;
/// How far counters moved: (network, code) → count.
pub(super) type Counted = BTreeMap<(String, String), u64>;

impl Siege<'_> {
    /// All that is stored, by device and number.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn stored(&self) -> anyhow::Result<BTreeMap<(String, u64), Value>> {
        Ok(self.rows()?.into_iter().map(|row| (key_of(&row), row)).collect())
    }

    /// All that is stored, row by row.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn rows(&self) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.api.fetch(&format!("/v1/readings?limit=1000{cursor}"))?;
            all.extend(page.get("readings").and_then(Value::as_array).into_iter().flatten().cloned());
            match page.get("next").and_then(Value::as_i64) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Networks in which something is stored, since the attack before, that no node made.
    pub(super) fn forged(&mut self) -> anyhow::Result<HashSet<String>> {
        // What nodes said is read after what is stored: then it covers that.
        let rows = self.rows()?;
        let nodes = self.village.networks.iter().flat_map(|n| &n.nodes);
        let said: BTreeMap<String, Said> = nodes.map(|n| (n.did.to_string(), n.said())).collect();
        let mut networks = HashSet::new();
        for row in rows {
            let (did, number) = key_of(&row);
            let is_true = said.get(&did).is_some_and(|s| s.made(number, &row));
            if !is_true && self.charged.insert(row.get("id").and_then(Value::as_i64).unwrap_or(0)) {
                networks.insert(row.get("net").and_then(Value::as_str).unwrap_or_default().to_owned());
            }
        }
        Ok(networks)
    }

    /// What every receiving process has counted: the cloud by its API, gateways by their metrics, nodes by their words.
    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::new();
        let answer = self.api.fetch("/v1/rejections")?;
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        for row in answer.as_array().into_iter().flatten().filter(|r| r["place"] == "cloud") {
            let key = (text(row, "net"), "cloud".to_owned(), text(row, "code"));
            *counts.entry(key).or_default() += row["count"].as_u64().unwrap_or(0);
        }
        for network in &self.village.networks {
            let net = network.net.to_string();
            for gateway in &network.gateways {
                for (code, n) in counted_by(gateway.metrics) {
                    *counts.entry((net.clone(), gateway.name.clone(), code)).or_default() += n;
                }
            }
            for node in &network.nodes {
                for (code, n) in node.said().refused {
                    *counts.entry((net.clone(), node.sid.to_string(), code)).or_default() += n;
                }
            }
        }
        Ok(counts)
    }

    /// How often those who hear an insider, gateways and the node beside it, refused something of its network by one of
    /// these codes.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn counts_at_first_hop(&self, codes: &[&str]) -> anyhow::Result<Vec<u64>> {
        let counts = self.counts()?;
        let of = |network: &Network| {
            let net = network.net.to_string();
            let ears = network.gateways.iter().map(|g| g.name.clone());
            let ears: Vec<String> = ears.chain(network.nodes.first().map(|n| n.sid.to_string())).collect();
            let meant = counts
                .iter()
                .filter(|((n, ear, code), _)| *n == net && ears.contains(ear) && codes.contains(&code.as_str()));
            meant.map(|(_, n)| n).sum()
        };
        Ok(self.village.networks.iter().map(of).collect())
    }

    /// Waits until the counters stand still, and says by code how far they moved in each network.
    pub(super) fn settle(&self, before: &Counts) -> anyhow::Result<Counted> {
        // Frames for others (E1-02) are overheard all the time: nobody waits for them to end.
        let still = |a: &Counts, b: &Counts| {
            let meant = |(_, _, code): &(String, String, String)| code != "E1-02";
            a.iter().filter(|(k, _)| meant(k)).eq(b.iter().filter(|(k, _)| meant(k)))
        };
        let until = now() + Duration::from_millis(2500);
        let mut last = self.counts()?;
        loop {
            std::thread::sleep(Duration::from_millis(150));
            let counts = self.counts()?;
            if still(&counts, &last) || now() > until {
                let mut moved = BTreeMap::new();
                for ((net, process, code), n) in counts {
                    let key = (net, process, code);
                    let old = before.get(&key).copied().filter(|old| *old <= n).unwrap_or(0);
                    if n > old {
                        *moved.entry((key.0, key.2)).or_default() += n - old;
                    }
                }
                return Ok(moved);
            }
            last = counts;
        }
    }
}

/// Device and name of a reading.
pub fn key_of(row: &Value) -> (String, u64) {
    let number = |field: &str| row[field].as_u64().unwrap_or(0);
    (row["device"].as_str().unwrap_or_default().to_owned(), named(number("epoch"), number("number")))
}

/// The counters of a gateway, from its metrics page; nothing while it is away.
pub(in crate::demo) fn counted_by(metrics: SocketAddr) -> Vec<(String, u64)> {
    let fetch = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    let page = fetch().unwrap_or_default();
    let counters = page.lines().filter_map(|l| l.strip_prefix("fivefold_gateway_rejected_total{code=\""));
    let counted = counters.filter_map(|l| Some((l.split_once('"')?.0.to_owned(), l.rsplit_once(' ')?.1.parse().ok()?)));
    counted.filter(|(_, count)| *count > 0).collect()
}
