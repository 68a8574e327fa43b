//! `fivefold device enrol --csv`: many devices at once. Every row is looked at before any is entered.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::id::{Did, Net};
use fivefold_core::profile::Mode;
use fivefold_core::suite::agreement::PublicX;
use fivefold_core::wire::enrolment::{Request, SigningRequest};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::imported;
use fivefold_keep::registry::{
    Device, DeviceKey, Entry, FirstContexts, KeyOrigin, Network, NetworkKey, NewDevice, Registry, Replaces, can_renew,
};
use indicatif::ProgressBar;
use serde_json::json;

use super::enrol::{Args, Desk, check, check_did, not_old, spoken};
use super::{Record, Signs, kid_length, network_key, radio, signing};
use crate::clock;
use crate::operator::Operator;
use crate::output::{Output, answer};
use crate::paper;

/// Columns that a file may have.
const COLUMNS: [&str; 12] = [
    "did",
    "key",
    "request",
    "signing_request",
    "net",
    "sid",
    "alg",
    "kid_length",
    "ack_every",
    "radio",
    "danger_no_link",
    "sign",
];

/// From so many bytes, or rows, on a bar shows how far it is.
const LONG_FILE: u64 = 100_000;
const MANY_ROWS: u64 = 1000;

/// A row that was refused.
pub(super) struct Bad {
    pub(super) line: u64,
    pub(super) why: String,
}

pub(super) fn json_of(bad: &[Bad]) -> Vec<serde_json::Value> {
    bad.iter().map(|b| json!({ "line": b.line, "error": b.why })).collect()
}

/// For people, each on a line of its own.
pub(super) fn lines_of(bad: &[Bad]) -> String {
    bad.iter().map(|b| format!("line {}: {}\n", b.line, spoken(b.why.as_bytes()))).collect()
}

/// A row that can be read.
struct Row {
    line: u64,
    request: Request,
    new: NewDevice,
}

pub(super) fn run(args: &Args, path: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let file = args.answers_file.as_deref().context("say where the answers go: --answers-file FILE")?;
    // Those that stand in it are given out once.
    anyhow::ensure!(!file.exists(), "{} exists already; name a new file for these answers", file.display());
    let mut operator = args.folder.open()?;
    let desk = Desk::open(&mut operator)?;
    let now = clock::now()?;
    let (rows, mut bad) = read(path, args, &operator.registry, now)?;
    let total = rows.len() + bad.len();
    anyhow::ensure!(total > 0, "{} has no rows under its head", path.display());
    let news: Vec<NewDevice> = rows.iter().map(|r| r.new.clone()).collect();
    let line_of = |at: usize| rows.get(at).map_or_else(String::new, |r| format!("line {}", r.line));
    let mut good: Vec<(&Row, Device)> = Vec::new();
    // Two devices with one signing key are both wrong, but the first is told so by nobody: it may be the right one.
    let mut signing: HashMap<[u8; 32], u64> = HashMap::new();
    for (row, examined) in rows.iter().zip(operator.registry.examine(&news, now, line_of)?) {
        match examined.and_then(|device| row.signs(&operator.registry, &mut signing, &news).map(|()| device)) {
            Ok(device) => good.push((row, device)),
            Err(why) => bad.push(Bad { line: row.line, why }),
        }
    }
    bad.sort_by_key(|b| b.line);
    let enters = !good.is_empty() && (bad.is_empty() || args.skip_bad);
    let enrolled = if enters { good.len() } else { 0 };
    if enters {
        enter(&mut operator, &desk, good, file, (args.made.origin(), now))?;
    }
    say(&Told { path, file: enters.then_some(file), total, enrolled, bad: &bad }, output);
    Ok(if bad.is_empty() || (args.skip_bad && enters) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Row {
    /// Whether its device may sign with the key that it asks with, if it asks with one. `seen` are those of the rows before.
    fn signs(&self, registry: &Registry, seen: &mut HashMap<[u8; 32], u64>, all: &[NewDevice]) -> Result<(), String> {
        let Some(asked) = &self.request.signing else { return Ok(()) };
        let (did, x) = (self.request.did, asked.key.coordinate());
        if let Some(before) = seen.insert(x.0, self.line) {
            return Err(format!(
                "line {before} has the signing key of device {did} already: every device needs its own (AR-07)"
            ));
        }
        if all.iter().any(|n| n.did != Some(did) && n.key.is_some_and(|k| k.x == x)) {
            return Err(format!(
                "the signing key of device {did} is another device's DH key: every device needs its own (AR-07)"
            ));
        }
        match registry.examine_signing_key(did, Some(self.request.x), &asked.key, Replaces::Nothing) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Makes the answers, and enters their devices.
fn enter(
    operator: &mut Operator,
    desk: &Desk,
    good: Vec<(&Row, Device)>,
    file: &Path,
    (origin, now): (KeyOrigin, u64),
) -> anyhow::Result<()> {
    let mut networks: HashMap<_, (Network, NetworkKey)> = HashMap::new();
    for network in operator.registry.networks()? {
        if good.iter().any(|(_, d)| d.net == network.net) {
            let key = network_key(operator, &network)?;
            networks.insert(network.net, (network, key));
        }
    }
    let mut answers = csv::Writer::from_writer(Vec::new());
    answers.write_record(["did", "sid", "net", "fingerprint", "answer"])?;
    let mut entries = Vec::with_capacity(good.len());
    let progress = progress(good.len() as u64, MANY_ROWS);
    for (row, device) in good {
        let mut entry = Entry::draw(device, row.new.key)?;
        if let Some(asked) = &row.request.signing {
            entry.signer = Some(signing::sign(&desk.ca, entry.device.did, asked, origin, now)?);
        }
        let (network, key) = networks.get(&entry.device.net).context("a network is gone; type this again")?;
        let letter = desk.answer(&row.request, &entry.device, &entry.secrets, (network, key))?;
        answers.write_record([
            entry.device.did.to_string(),
            entry.device.sid.to_string(),
            network.name.clone(),
            row.request.fingerprint().to_string(),
            paper::text(&letter),
        ])?;
        entries.push(entry);
        progress.inc(1);
    }
    progress.finish_and_clear();
    // The answers are durable first: a device in the book that nobody can answer is worse than an answer too many.
    let answers = answers.into_inner().map_err(|e| anyhow::anyhow!("{e}"))?;
    files::write(file, Readers::Everybody, &answers)?;
    if let Err(refused) = operator.registry.enter(&operator.vault, &entries) {
        files::remove(file)?;
        return Err(refused.into());
    }
    Ok(())
}

struct Told<'a> {
    path: &'a Path,
    file: Option<&'a Path>,
    total: usize,
    enrolled: usize,
    bad: &'a [Bad],
}

fn say(told: &Told<'_>, output: Output) {
    let Told { path, file, total, enrolled, bad } = told;
    let value = json!({ "rows": total, "enrolled": enrolled, "refused": json_of(bad), "answers_file": file });
    answer(output, &value, || {
        let mut said = lines_of(bad);
        match file {
            Some(file) => said.push_str(&format!(
                "Enrolled {enrolled} of {total} devices of {}. The answers are in {}, each sealed for its device: column \
                 `answer` is what that device is to be given.",
                path.display(),
                file.display()
            )),
            None if bad.len() == *total => {
                said.push_str(&format!("No row of {} is good, so no device was enrolled.", path.display()));
            }
            None => said.push_str(&format!(
                "Refused: {} of {total} rows of {}. No device was enrolled; mend these rows, or enrol the others with \
                 --skip-bad.",
                bad.len(),
                path.display()
            )),
        }
        said
    });
}

/// A bar on standard error, if that is a terminal, and this takes long enough to be looked at.
fn progress(n: u64, long: u64) -> ProgressBar {
    if n < long { ProgressBar::hidden() } else { ProgressBar::new(n) }
}

/// Reads the rows: those that can be read, and those that cannot.
fn read(path: &Path, args: &Args, registry: &Registry, now: u64) -> anyhow::Result<(Vec<Row>, Vec<Bad>)> {
    let shown = path.display().to_string();
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_path(path)
        .with_context(|| format!("cannot read {shown}"))?;
    let head = reader.headers().with_context(|| format!("{shown}, line 1"))?.clone();
    let columns = Columns::of(head.iter().map(str::as_bytes), &COLUMNS)
        .and_then(|columns| {
            let has = |name: &str| columns.has(name);
            anyhow::ensure!(
                has("request") != (has("did") || has("key")) && has("did") == has("key"),
                "name the devices by the columns did and key, or by the column request, and not by both"
            );
            Ok(columns)
        })
        .with_context(|| format!("{shown}, line 1"))?;
    let networks = registry.networks()?;
    let mut signing_of = HashMap::new();
    for network in &networks {
        signing_of.extend(registry.network_signing(network.net)?.map(|batch| (network.net, batch)));
    }
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    let progress = progress(reader.get_ref().metadata().map_or(0, |m| m.len()), LONG_FILE);
    let mut record = csv::ByteRecord::new();
    loop {
        if !reader.read_byte_record(&mut record).with_context(|| format!("cannot read {shown}"))? {
            break;
        }
        let line = record.position().map_or(0, csv::Position::line);
        progress.set_position(record.position().map_or(0, csv::Position::byte));
        match row(&columns, &record, args, (&networks, &signing_of), now) {
            Ok((request, new)) => rows.push(Row { line, request, new }),
            Err(e) => bad.push(Bad { line, why: format!("{e:#}") }),
        }
    }
    progress.finish_and_clear();
    Ok((rows, bad))
}

/// Where each column stands.
pub(super) struct Columns {
    places: HashMap<&'static str, usize>,
    count: usize,
}

impl Columns {
    /// Of a head, whose names are among the known ones.
    pub(super) fn of<'h>(head: impl Iterator<Item = &'h [u8]>, known: &[&'static str]) -> anyhow::Result<Self> {
        let (mut places, mut count) = (HashMap::new(), 0);
        for (at, name) in head.enumerate() {
            let text =
                std::str::from_utf8(name).unwrap_or_default().trim_start_matches('\u{FEFF}').trim().to_lowercase();
            let found = known.iter().copied().find(|c| *c == text);
            let found = found
                .with_context(|| format!("no column `{}` is known; there are {}", spoken(name), known.join(", ")))?;
            anyhow::ensure!(places.insert(found, at).is_none(), "column `{found}` is there twice");
            count = at + 1;
        }
        Ok(Self { places, count })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A row has as many fields as the head.
    pub(super) fn fit(&self, fields: usize) -> anyhow::Result<()> {
        anyhow::ensure!(fields == self.count, "{fields} fields, and the head has {}", self.count);
        Ok(())
    }

    /// What stands in a column of the row that `at` gives; `None` where it is not there, or empty.
    pub(super) fn cell<'r>(
        &self,
        at: impl FnOnce(usize) -> Option<&'r [u8]>,
        name: &str,
    ) -> anyhow::Result<Option<&'r str>> {
        let Some(cell) = self.places.get(name).and_then(|place| at(*place)) else { return Ok(None) };
        let cell = std::str::from_utf8(cell).ok().with_context(|| format!("{name}: not UTF-8"))?;
        Ok((!cell.is_empty()).then_some(cell))
    }
}

/// The same, with the signing key that a device asks with by itself.
fn with_signing(request: Request, asked: &[u8], now: u64) -> anyhow::Result<Request> {
    let asked = SigningRequest::parse(asked).context("signing_request")?;
    not_old(asked.made, now).context("signing_request")?;
    anyhow::ensure!(
        asked.did == request.did && asked.x.is_none_or(|x| x == request.x),
        "signing_request is of device {}, or for another DH key",
        asked.did
    );
    signing::prove(&asked.signing, asked.did, asked.x.as_ref())?;
    Ok(Request { signing: Some(asked.signing), ..request })
}

/// The network that a row names.
pub(super) fn network_of<'n>(networks: &'n [Network], net: &str) -> anyhow::Result<&'n Network> {
    let network = networks.iter().find(|n| n.name == net || n.net.to_string() == net);
    network.with_context(|| format!("there is no network {net}; see: fivefold network list"))
}

fn row(
    columns: &Columns,
    record: &csv::ByteRecord,
    args: &Args,
    (networks, signing_of): (&[Network], &HashMap<Net, u8>),
    now: u64,
) -> anyhow::Result<(Request, NewDevice)> {
    columns.fit(record.len())?;
    let cell = |name| columns.cell(|at| record.get(at), name);
    let request = match cell("request")? {
        Some(text) => check(&paper::bytes_of(text.as_bytes())?, now)?,
        None => {
            let did = cell("did")?.context("did is missing")?;
            let did: Did = did.parse().with_context(|| format!("did `{did}`"))?;
            check_did(did)?;
            let x: PublicX = imported::read(cell("key")?.context("key is missing")?, did)?;
            Request { did, x, made: None, signing: None }
        }
    };
    let request = match cell("signing_request")? {
        None => request,
        Some(_) if request.signing.is_some() => {
            anyhow::bail!("the request has a signing key already; leave out signing_request")
        }
        Some(text) => with_signing(request, &paper::bytes_of(text.as_bytes())?, now)?,
    };
    let net = cell("net")?.or(args.net.as_deref()).context("net is missing, here and as --net")?;
    let network = network_of(networks, net)?;
    let sid = cell("sid")?.map(|s| s.parse().with_context(|| format!("sid `{s}`"))).transpose()?;
    let number = |name| {
        let parse =
            |text: &str| text.parse::<u8>().with_context(|| format!("{name} `{text}`: expected a number up to 255"));
        cell(name)?.map(parse).transpose()
    };
    let alg = number("alg")?.unwrap_or(args.record.alg);
    anyhow::ensure!(matches!(alg, 10 | 11), "alg {alg}: expected 11 or 10");
    let named = |name: &'static str, e: String| anyhow::anyhow!("{name}: {e}");
    let record = Record {
        alg,
        kid_length: match cell("kid_length")? {
            Some(text) => kid_length(text).map_err(|e| named("kid_length", e))?,
            None => args.record.kid_length,
        },
        ack_every: number("ack_every")?.or(args.record.ack_every),
        radio: match cell("radio")? {
            Some(text) => radio(text).map_err(|e| named("radio", e))?,
            None => args.record.radio,
        },
        danger_no_link: cell("danger_no_link")?.map(str::to_owned).or(args.record.danger_no_link.clone()),
        signs: match cell("sign")? {
            Some(text) => {
                Signs { sign: Some(text.parse().map_err(|e| named("sign", e))?), ..args.record.signs.clone() }
            }
            None => args.record.signs.clone(),
        },
    };
    let signing = signing_of.get(&network.net).copied();
    let (policy, overrides, words) = record.of((network, signing), Mode::Persistent)?;
    anyhow::ensure!(can_renew(&policy), "network {net} has E1 alone: there is nothing to agree there");
    let key = Some(DeviceKey { x: request.x, first: FirstContexts::Agreed });
    let new = NewDevice { did: Some(request.did), sid, net: network.net, policy, overrides, words, key };
    Ok((request, new))
}
