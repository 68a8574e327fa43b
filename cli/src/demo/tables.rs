//! The two tables at the end of the demo, and the commands to try.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::{Cell as Field, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use fivefold_core::profile::Profile;
use serde::Serialize;

use super::siege::{Row, Siege, key_of};
use super::threats::{Gain, Outcome};
use super::village::{Said, Village};

/// What became of one network's readings.
#[derive(Clone, Debug, Serialize)]
pub struct Balance {
    /// Its name.
    pub network: String,
    /// The combination.
    pub levels: String,
    /// Whether it is marked insecure.
    pub insecure: bool,
    /// Nodes, and how deep the farthest is.
    pub nodes: usize,
    /// Radio hops of the farthest node.
    pub hops: u8,
    /// Readings sent by honest nodes.
    pub sent: usize,
    /// Of these, stored.
    pub stored: usize,
    /// Of these, acknowledged to the node.
    pub acknowledged: usize,
    /// Acknowledged and not stored, by attacks that docs/threats.md says lose readings.
    pub lost: usize,
    /// Stored readings by how they were proven.
    pub proven: BTreeMap<String, usize>,
    /// Stored readings that no node made.
    pub forged: usize,
    /// Median milliseconds from sending to a verified confirmation.
    pub median_ms: Option<u64>,
    /// Bytes that an application has left in a frame.
    pub bytes_left: Option<u64>,
    #[serde(skip)]
    end_to_end: bool,
}

impl Balance {
    /// Of a network of classic nodes, before anything was counted.
    pub fn of_classic(network: &str, nodes: usize) -> Self {
        Self {
            network: network.to_owned(),
            levels: "classic (INSECURE)".into(),
            insecure: true,
            nodes,
            hops: 1,
            sent: 0,
            stored: 0,
            acknowledged: 0,
            lost: 0,
            proven: BTreeMap::new(),
            forged: 0,
            median_ms: None,
            bytes_left: None,
            end_to_end: false,
        }
    }

    /// Whether everything that the network promises was kept: with E3, what was acknowledged is stored.
    pub fn is_whole(&self) -> bool {
        !self.end_to_end || self.lost == 0
    }
}

/// Waits until nothing acknowledged or waiting is missing, or `patience` is over, and counts.
///
/// # Errors
/// The cloud does not answer.
pub fn balance(siege: &mut Siege<'_>, patience: Duration) -> anyhow::Result<Vec<Balance>> {
    let until = now() + patience;
    loop {
        let balances = count(siege)?;
        let complete = balances.iter().all(|b| b.stored == b.sent || !b.end_to_end);
        if complete || now() > until {
            return Ok(balances);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn count(siege: &Siege<'_>) -> anyhow::Result<Vec<Balance>> {
    let said: Vec<Vec<_>> = siege.village.networks.iter().map(|n| n.nodes.iter().map(|n| n.said()).collect()).collect();
    let rows = siege.rows()?;
    let stored: HashSet<(String, u64)> = rows.iter().map(key_of).collect();
    // What was stored meanwhile, they have said by now.
    let nodes = siege.village.networks.iter().flat_map(|n| &n.nodes);
    let said_since: BTreeMap<String, Said> = nodes.map(|n| (n.did.to_string(), n.said())).collect();
    let mut balances = Vec::new();
    for (network, said) in siege.village.networks.iter().zip(&said) {
        let net = network.net.to_string();
        let mut balance = Balance {
            network: network.name.clone(),
            levels: super::title(network.profile).into(),
            insecure: network.profile == Profile::DangerLinkOnly,
            nodes: network.nodes.len(),
            hops: network.nodes.iter().map(|n| n.hops).max().unwrap_or(0),
            sent: 0,
            stored: 0,
            acknowledged: 0,
            lost: 0,
            proven: BTreeMap::new(),
            forged: 0,
            median_ms: None,
            bytes_left: crate::budget::left_in_mesh(network.profile),
            end_to_end: network.profile.has_e3(),
        };
        let mut latencies = Vec::new();
        let mut honest = HashSet::new();
        for (i, (node, said)) in network.nodes.iter().zip(said).enumerate() {
            let did = node.did.to_string();
            if i + 1 == network.nodes.len() {
                continue;
            }
            honest.insert(did.clone());
            let is_stored = |n: &u64| stored.contains(&(did.clone(), *n));
            let readings = said.readings.keys().filter(|n| said.sent.contains(n));
            balance.sent += readings.clone().count();
            balance.stored += readings.clone().filter(|n| is_stored(n)).count();
            balance.acknowledged += readings.clone().filter(|n| said.delivered.contains(n)).count();
            balance.lost += readings.filter(|n| said.delivered.contains(n) && !is_stored(n)).count();
            latencies.extend(said.latencies.iter().copied());
        }
        for reading in rows.iter().filter(|r| r["net"].as_str() == Some(&net)) {
            let (did, number) = key_of(reading);
            if !said_since.get(&did).is_some_and(|said| said.made(number, reading)) {
                balance.forged += 1;
            } else if honest.contains(&did) && reading["records"].as_array().is_some_and(|r| !r.is_empty()) {
                let proof = reading["proof"].as_str().unwrap_or("?").to_owned();
                *balance.proven.entry(proof).or_default() += 1;
            }
        }
        latencies.sort_unstable();
        balance.median_ms = latencies.get(latencies.len() / 2).copied();
        balances.push(balance);
    }
    Ok(balances)
}

/// Width where the output is no terminal.
const PAPER: u16 = 140;

/// A table with this head, whose columns are never narrower than their longest words, given in `least`.
fn ruled(head: Vec<String>, least: &[u16]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PAPER);
    }
    table.set_header(head);
    let wide = table.width().is_some_and(|w| w >= 120);
    for (column, &least) in table.column_iter_mut().zip(least) {
        let padding = if wide { (1, 1) } else { (0, 1) };
        column.set_padding(padding);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + padding.0 + padding.1)));
    }
    table
}

/// Table 1: what was sent, stored, how it was proven, and what is left in a frame.
pub fn balances(balances: &[Balance]) -> String {
    let head = ["network", "levels", "sent", "stored", "acked but lost", "proven by", "made by no node", "median ms"];
    let head = head.into_iter().chain(["bytes left"]).map(str::to_owned).collect();
    let mut table = ruled(head, &[8, 11, 4, 6, 5, 7, 4, 6, 5]);
    for b in balances {
        let proven = b.proven.iter().map(|(proof, n)| format!("{proof} {n}")).collect::<Vec<_>>().join(", ");
        let text = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
        table.add_row(vec![
            Field::new(&b.network),
            if b.insecure { Field::new(&b.levels).fg(Color::Red) } else { Field::new(&b.levels) },
            Field::new(b.sent),
            Field::new(b.stored),
            if b.lost > 0 { Field::new(b.lost).fg(Color::Red) } else { Field::new(0) },
            Field::new(proven),
            if b.forged > 0 { Field::new(b.forged).fg(Color::Red) } else { Field::new(0) },
            Field::new(text(b.median_ms)),
            Field::new(text(b.bytes_left)),
        ]);
    }
    let ours = balances.iter().filter(|b| b.network != super::shore::NAME);
    let (nodes, hops) = ours.fold((0, 0), |(nodes, hops), b| (b.nodes.max(nodes), b.hops.max(hops)));
    format!(
        "What was sent by honest nodes, what is stored, and how it was proven\n\
         ({nodes} nodes in each network, the farthest {hops} radio hops away; one is an insider. The shore has classic nodes,\n\
         which keep nothing and hear no confirmation but their gateway's)\n{table}"
    )
}

/// Table 2: what each attacker obtained in each network, and what the receivers counted.
pub fn attacks(heading: &str, rows: &[Row], networks: &[String]) -> String {
    let mut head = vec!["attack".to_owned()];
    head.extend(networks.iter().map(|n| if n == "e1 only" { "e1 only (INSECURE)".to_owned() } else { n.clone() }));
    let names = rows.iter().map(|r| r.attack.len()).max().unwrap_or(0);
    let mut table = ruled(head, &[u16::try_from(names).unwrap_or(0), 11, 11, 11, 11]);
    for row in rows {
        let mut fields = vec![Field::new(format!("{}\n{}", row.attack, row.what))];
        for cell in &row.cells {
            let counted: Vec<String> = cell.counted.iter().map(|(code, n)| format!("{code}×{n}")).collect();
            let mut text = format!("{}\n{} tried", cell.obtained, cell.attempts);
            if !counted.is_empty() {
                text += &format!(": {}", counted.join(", "));
            }
            if !cell.is_as_stated() {
                text += &format!("\nNOT AS STATED: {}", cell.expected);
            }
            fields.push(Field::new(text).fg(colour(&cell.obtained)));
        }
        table.add_row(fields);
    }
    format!(
        "{heading}, as observed\n\
         \x20 reads      readings in the clear\n\
         \x20 forges     readings are stored that no node made\n\
         \x20 loses      readings that a node was told are safe never reach the cloud\n\
         \x20 runs       commands of the attacker are run\n\
         \x20 withholds  readings reach the cloud later\n\
         \x20 itself     what that node could do anyway\n\
         Below it: how often it was tried, and which code the receivers counted how often\n\
         meanwhile. Section 14 of docs/protocol.md names the codes; E1-02 is a frame for\n\
         somebody else, overheard all the time.\n{table}"
    )
}

fn colour(outcome: &Outcome) -> Color {
    if outcome.0.is_empty() {
        Color::Green
    } else if outcome.0.iter().all(|g| matches!(g, Gain::Withholds | Gain::Itself)) {
        Color::Yellow
    } else {
        Color::Red
    }
}

/// The last words.
pub fn verdict(rows: &[Row], balances: &[Balance]) -> String {
    let cells: Vec<_> = rows.iter().flat_map(|r| r.cells.iter().map(move |c| (r, c))).collect();
    let mut text = String::new();
    for (row, cell) in cells.iter().filter(|(_, c)| !c.is_as_stated()) {
        text += &format!(
            "{} in {}: obtained {}, docs/threats.md says {} ({})\n",
            row.attack, cell.network, cell.obtained, cell.expected, cell.note
        );
    }
    for b in balances.iter().filter(|b| !b.is_whole()) {
        text += &format!("network {}: {} readings were acknowledged and are not stored\n", b.network, b.lost);
    }
    if !text.is_empty() {
        return text;
    }
    match cells.len() {
        0 => "Every reading that was acknowledged under E3 is stored.".into(),
        n => format!("All {n} outcomes are what docs/threats.md states.{}", stolen_gateway(rows)),
    }
}

/// What a stolen gateway obtained in each network, all its attacks together.
fn stolen_gateway(rows: &[Row]) -> String {
    let lines: String =
        together(rows, "gateway-").iter().map(|(network, all)| format!("\n  {network:<14} {all}")).collect();
    let modern = if lines.is_empty() {
        String::new()
    } else {
        format!("\nWhat a stolen gateway can still do, until somebody revokes it:{lines}")
    };
    modern + &stolen_from_the_shore(rows)
}

/// The same of classic nodes. Their gateway hears whatever a recorder hears, and that has no row of its own among its attacks.
fn stolen_from_the_shore(rows: &[Row]) -> String {
    let gateway = together(rows, "classic-gateway-");
    if gateway.is_empty() {
        return String::new();
    }
    let recorder = together(rows, "classic-recorder-");
    let more = |network: &str, all: &Outcome| {
        let recorded = recorder.iter().find(|(name, _)| *name == network).map(|(_, gains)| gains.0.clone());
        let more: std::collections::BTreeSet<Gain> = recorded.unwrap_or_default().difference(&all.0).copied().collect();
        if more.is_empty() { String::new() } else { format!("; with what it heard: {}", Outcome(more)) }
    };
    let line = |(network, all): &(&str, Outcome)| format!("\n  {network:<14} {all}{}", more(network, all));
    let lines: String = gateway.iter().map(line).collect();
    format!(
        "\nWhat the stolen gateway of the shore can still do, by what a node's sketch does with its frames:{lines}\n\
         None of it is ever called proven by a node: it is shown as plain or legacy. Revoking the gateway ends it, but the keys of\n\
         its nodes stay in their sketches until they are flashed, and what it threw away is lost, for classic nodes keep nothing.\n\
         Only keys for the cloud keep it from reading and inventing (`device add --cloud-key-file`), and only those of the hardened\n\
         profile also from playing what it heard (`device harden --peer cloud`)."
    )
}

/// What the attacks whose name begins so obtained in each network, in the order of the table.
fn together<'r>(rows: &'r [Row], prefix: &str) -> Vec<(&'r str, Outcome)> {
    let mut obtained: Vec<(&str, Outcome)> = Vec::new();
    for cell in rows.iter().filter(|r| r.attack.starts_with(prefix)).flat_map(|r| &r.cells) {
        let gains = cell.obtained.0.iter().copied();
        match obtained.iter_mut().find(|(network, _)| *network == cell.network) {
            Some((_, all)) => all.0.extend(gains),
            None => obtained.push((&cell.network, Outcome(gains.collect()))),
        }
    }
    obtained
}

/// What to try while everything runs on. `root` is the demo's folder, with the files `token` and `pids`.
pub fn commands(village: &Village, root: &Path) -> String {
    let (dir, root) = (village.dir.display(), root.display());
    let fivefold = std::env::current_exe().map_or("fivefold".into(), |p| p.display().to_string());
    let api = village.api.port();
    format!(
        "Everything runs on, the gateways without a machine in the middle now. Try:\n\
         \x20 {fivefold} reading follow --dir {dir} --token-file {root}/token\n\
         \x20 {fivefold} reading list --dir {dir} --token-file {root}/token\n\
         \x20 {fivefold} device list --dir {dir}\n\
         \x20 {fivefold} gateway list --dir {dir}\n\
         \x20 curl -s --cacert {dir}/ca.pem -H \"Authorization: Bearer $(cat {root}/token)\" https://localhost:{api}/v1/health\n\
         The API is described at https://localhost:{api}/openapi.json, and the logs are in {logs}.\n\
         Stop it with: kill $(cat {root}/pids); then delete {root}",
        logs = village.logs.display()
    )
}

/// What to type where a range takes over. `root` is the demo's folder.
pub fn to_a_range(village: &Village, root: &Path) -> String {
    let (dir, root) = (village.dir.display(), root.display());
    format!(
        "Everything runs on, and waits for a machine in the middle. Next:\n\
         \x20 fivefold range run --dir {dir} --token-file {root}/token\n\
         Stop it with: kill $(cat {root}/pids); then delete {root}"
    )
}

/// How wide the terminal is.
pub fn width() -> usize {
    Table::new().width().unwrap_or(PAPER).into()
}

#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::super::siege::Cell;
    use super::*;

    fn row(attack: &str, cells: &[(&str, &str)]) -> Row {
        let cell = |(network, outcome): &(&str, &str)| {
            let outcome: Outcome = outcome.parse().unwrap();
            Cell {
                network: (*network).to_owned(),
                name: "n".into(),
                expected: outcome.clone(),
                obtained: outcome,
                attempts: 1,
                counted: BTreeMap::new(),
                note: String::new(),
            }
        };
        Row { attack: attack.to_owned(), what: String::new(), cells: cells.iter().map(cell).collect() }
    }

    #[test]
    fn a_stolen_gateway_is_told_of_the_shore_apart_and_with_what_it_recorded() {
        let rows = [
            row("gateway-reads", &[("e1+e3+e4", "nothing"), ("e1+e2+e4", "reads")]),
            row("gateway-drops", &[("e1+e3+e4", "withholds"), ("e1+e2+e4", "loses")]),
            row("classic-gateway-reads", &[("in clear", "reads"), ("AES to cloud", "nothing")]),
            row("classic-gateway-drops", &[("in clear", "loses"), ("AES to cloud", "loses")]),
            row("classic-recorder-restarts", &[("in clear", "forges"), ("AES to cloud", "forges")]),
            row("classic-stranger-speaks", &[("in clear", "forges"), ("AES to cloud", "nothing")]),
        ];
        let said = stolen_gateway(&rows);
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        for line in [
            "e1+e3+e4       withholds",
            "e1+e2+e4       loses, reads",
            "in clear       loses, reads; with what it heard: forges",
            "AES to cloud   loses; with what it heard: forges",
        ] {
            assert!(lines.contains(&line), "{line} is not in {said}");
        }
        assert!(!stolen_gateway(&rows[..2]).contains("shore"));
        assert_eq!(stolen_gateway(&rows[5..]), "");
    }
}
