//! `fivefold device add --classic --csv`: many classic devices at once. Every row is looked at before any is entered.
//!
//! The file holds keys, so it is read as a secret is, and no copy of it stays behind in memory.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use csv_core::{ReadRecordResult, Reader};
use fivefold_keep::files;
use fivefold_keep::registry::{
    ClassicDevice, ClassicKeys, ClassicProfile, ClassicSecret, Network, NewClassic, Registry,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::bulk::{Bad, Columns, json_of, lines_of, network_of};
use super::classic::{New, key_bits, table};
use crate::clock;
use crate::operator::Operator;
use crate::output::{Output, answer};

/// Columns that a file may have.
const COLUMNS: [&str; 12] = [
    "serial",
    "net",
    "sid",
    "node_id",
    "table",
    "dev_eui",
    "hardened",
    "gateway_key",
    "gateway_key_bits",
    "cloud_key",
    "cloud_key_bits",
    "danger_weak_key",
];
/// Fields of a line, at most: more than a file has columns.
const MOST_FIELDS: usize = 64;

/// Enters the devices of a file, all of them or those that are good.
pub(super) fn run(
    operator: &mut Operator,
    path: &Path,
    (args, net): (&New, &str),
    output: Output,
) -> anyhow::Result<ExitCode> {
    let text = files::read_private(path)?;
    let shown = path.display().to_string();
    let (lines, news, mut bad) = read(&text, args, net, &operator.registry).with_context(|| shown.clone())?;
    let total = news.len() + bad.len();
    anyhow::ensure!(total > 0, "{shown} has no rows under its head");
    let line_of = |at: usize| lines.get(at).map_or_else(String::new, |line| format!("line {line}"));
    let examined = operator.registry.examine_classic(&news, clock::now()?, line_of)?;
    let sharers = operator.registry.classic_key_sharers(&operator.vault, &news, line_of)?;
    let mut good: Vec<(&ClassicDevice, &ClassicKeys)> = Vec::new();
    for (((line, new), examined), sharer) in lines.iter().zip(&news).zip(&examined).zip(sharers) {
        match (examined, sharer) {
            (Err(why), _) => bad.push(Bad { line: *line, why: why.clone() }),
            (Ok(_), Some(who)) if new.words.as_ref().is_none_or(|words| words.len() < 8) => bad.push(Bad {
                line: *line,
                why: format!(
                    "{who} has a key of it too (AR-07): whoever takes one of these nodes is all of them. Give each its own; if \
                     they must stay as they are, say so: danger_weak_key"
                ),
            }),
            (Ok(device), _) => good.push((device, &new.keys)),
        }
    }
    bad.sort_by_key(|b| b.line);
    let enters = !good.is_empty() && (bad.is_empty() || args.skip_bad);
    let entered = if enters { good.len() } else { 0 };
    if enters {
        operator.registry.enter_classic(&operator.vault, &good)?;
    }
    answer(output, &json!({ "rows": total, "entered": entered, "refused": json_of(&bad) }), || {
        let told = match (enters, bad.len()) {
            (true, _) => format!(
                "Entered {entered} of {total} classic devices of {shown}. Delete the file: it holds their keys.\nWhat they cannot \
                 do is a finding: fivefold audit"
            ),
            (false, all) if all == total => format!("No row of {shown} is good, so no device was entered."),
            (false, some) => format!(
                "Refused: {some} of {total} rows of {shown}. No device was entered; mend these rows, or enter the others with \
                 --skip-bad."
            ),
        };
        lines_of(&bad) + &told
    });
    Ok(if bad.is_empty() || (args.skip_bad && enters) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a file holds: lines and devices of the rows that can be read, and the rows that cannot.
type Rows = (Vec<u64>, Vec<NewClassic>, Vec<Bad>);

fn read(text: &[u8], args: &New, net: &str, registry: &Registry) -> anyhow::Result<Rows> {
    // A line end at the end is all that the reader needs to give out every row.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    bytes.extend_from_slice(text);
    bytes.push(b'\n');
    let mut fields = Zeroizing::new(vec![0; bytes.len()]);
    let mut ends = [0; MOST_FIELDS];
    let (mut reader, mut rest) = (Reader::new(), bytes.as_slice());
    let networks = registry.networks()?;
    let mut columns = None;
    let (mut lines, mut news, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let skipped = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).filter(|b| **b == b'\n').count();
        let line = reader.line() + skipped as u64;
        let (done, read, _, count) = reader.read_record(rest, &mut fields, &mut ends);
        rest = rest.get(read..).unwrap_or_default();
        match done {
            ReadRecordResult::Record => {}
            ReadRecordResult::End => break,
            ReadRecordResult::InputEmpty => continue,
            _ => anyhow::bail!("line {line} has more than {MOST_FIELDS} fields"),
        }
        let record = Record { fields: &fields, ends: ends.get(..count).unwrap_or_default() };
        let Some(columns) = &columns else {
            let head = Columns::of((0..count).filter_map(|at| record.at(at)), &COLUMNS);
            let head = head.with_context(|| format!("line {line}"))?;
            anyhow::ensure!(head.has("serial"), "line {line}: there is no column serial, and it names the devices");
            columns = Some(head);
            continue;
        };
        match device(columns, &record, args, net, &networks) {
            Ok(new) => {
                lines.push(line);
                news.push(new);
            }
            Err(e) => bad.push(Bad { line, why: format!("{e:#}") }),
        }
    }
    Ok((lines, news, bad))
}

/// A row, where the reader put it.
struct Record<'r> {
    fields: &'r [u8],
    ends: &'r [usize],
}

impl<'r> Record<'r> {
    fn at(&self, at: usize) -> Option<&'r [u8]> {
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.fields.get(start..*self.ends.get(at)?)
    }
}

fn device(
    columns: &Columns,
    record: &Record<'_>,
    args: &New,
    net: &str,
    networks: &[Network],
) -> anyhow::Result<NewClassic> {
    columns.fit(record.ends.len())?;
    let raw = |name| columns.cell(|at| record.at(at), name);
    let cell = |name| anyhow::Ok(raw(name)?.map(str::trim).filter(|text| !text.is_empty()));
    let serial = cell("serial")?.context("serial is missing")?;
    let network = network_of(networks, cell("net")?.unwrap_or(net))?;
    let named = |name: &'static str, e: String| anyhow::anyhow!("{name}: {e}");
    let key = |name: &'static str, bits_name: &'static str, usual| -> anyhow::Result<Option<ClassicSecret>> {
        let Some(text) = raw(name)? else { return Ok(None) };
        anyhow::ensure!(
            text.trim() == text,
            "{name} begins or ends with a blank; if it does so in the sketch, enter this device by itself, with a key file"
        );
        let bits = cell(bits_name)?.map(key_bits).transpose().map_err(|e| named(bits_name, e))?.or(usual);
        let bits = bits.with_context(|| format!("{bits_name} is missing: a sketch names the size of its key"))?;
        ClassicSecret::read(text.as_bytes(), bits).map(Some).map_err(|e| named(name, e.to_string()))
    };
    let hardened = match cell("hardened")? {
        Some("yes") => true,
        Some("no") => false,
        Some(_) => anyhow::bail!("hardened: expected yes or no"),
        None => args.hardened,
    };
    Ok(NewClassic {
        sid: cell("sid")?.map(|s| s.parse().with_context(|| format!("sid `{s}`"))).transpose()?,
        node_id: cell("node_id")?.map(str::to_owned),
        table: cell("table")?.map(table).transpose().map_err(|e| named("table", e))?.or(args.table),
        dev_eui: cell("dev_eui")?.map(|s| s.parse().with_context(|| format!("dev_eui `{s}`"))).transpose()?,
        profile: if hardened { ClassicProfile::Hardened } else { ClassicProfile::Classic },
        keys: ClassicKeys {
            gateway: key("gateway_key", "gateway_key_bits", args.keys.gateway_key_bits)?,
            cloud: key("cloud_key", "cloud_key_bits", args.keys.cloud_key_bits)?,
        },
        words: cell("danger_weak_key")?.or(args.keys.danger_weak_key.as_deref()).map(str::to_owned),
        ..NewClassic::plain(serial.parse().with_context(|| format!("serial `{serial}`"))?, network.net)
    })
}
