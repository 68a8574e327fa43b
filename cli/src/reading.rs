//! `fivefold reading`: what the cloud, or a gateway without one, stored, and how each was proven.

mod classic;
mod held;
mod kept;

pub(crate) use kept::is_gateway;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::api::{ColumnShown, Followed, ImportedShown, LabelShown, ReadingShown, RecordShown, RowShown};
use fivefold_keep::files;
use fivefold_keep::share::{CA_FILE, read_config};
use serde_json::{Value, json};

use crate::api::Api;
use crate::clock;
use crate::operator::{Folder, OPERATOR_FILE, Settings};
use crate::output::{Output, answer, table};

/// Arguments of `fivefold reading`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Print readings as they are stored, and labels that are raised later, until interrupted. Connects again by itself.
    Follow(Which),
    /// Delete readings from the store of a gateway without a cloud, once they are read out.
    Forget(kept::Forget),
    /// List what the cloud holds since its store was put back from a copy, because it may be a recording.
    Held(Folder),
    /// List readings, the newest last.
    List(List),
    /// List what was kept apart and is no reading, with the codes against it, the newest last.
    Quarantine(classic::Quarantine),
    /// Make readings of what is held, by your word that it is no recording. They stay late. While the cloud runs, or not.
    Release(held::Which),
    /// List classic devices that speak and are not in the book.
    Unknown(classic::Unknown),
}

#[derive(Clone, Debug, clap::Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// How many, at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// From the store of a gateway without a cloud (--dir is its folder): those after this id, the oldest first.
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// What was imported from a Meshlium instead: nobody here received or proved it.
    #[arg(long, conflicts_with = "after")]
    imported: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    cloud: Cloud,
    /// Of this network alone: its id, 8 hex digits.
    #[arg(long, value_name = "ID")]
    net: Option<String>,
    /// Of this device alone: its EUI-64, 16 hex digits, or the serial of a classic device.
    #[arg(long, value_name = "DID")]
    device: Option<String>,
}

/// Which cloud is asked, and with whose token.
#[derive(Clone, Debug, clap::Args)]
pub struct Cloud {
    /// The operator's folder, or another one with ca.pem and operator.toml in it; to list, that of a gateway without a cloud.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// The cloud's API, if not where the folder says.
    #[arg(long, env = "FIVEFOLD_API", value_name = "URL")]
    pub api: Option<String>,
    /// File with a token, made by: fivefold token add NAME --token-file FILE.
    #[arg(long, env = "FIVEFOLD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Cloud {
    /// A client of that cloud.
    ///
    /// # Errors
    /// No token, or the folder does not say where the cloud is.
    pub fn connect(&self) -> anyhow::Result<Api> {
        let from_env = std::env::var("FIVEFOLD_TOKEN").ok();
        let token = match (&self.token_file, from_env) {
            (Some(file), _) => {
                if std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
                    let file = file.display();
                    eprintln!(
                        "warning: {file} can be read by others, and who has the token is you; type: chmod 600 {file}"
                    );
                }
                files::read_text(file)?
            }
            (None, Some(token)) => token,
            (None, None) => anyhow::bail!(
                "a token is needed: fivefold token add NAME --dir {} --token-file token, then add --token-file token",
                self.dir.display()
            ),
        };
        let base = match &self.api {
            Some(base) => base.clone(),
            None => {
                let file = self.dir.join(OPERATOR_FILE);
                anyhow::ensure!(
                    file.exists(),
                    "{} has no {OPERATOR_FILE}; name the operator's folder with --dir, or the cloud with --api URL",
                    self.dir.display()
                );
                read_config::<Settings>(&file)?.api
            }
        };
        Api::new(&self.dir.join(CA_FILE), &base, token.trim())
    }
}

/// Runs the command.
///
/// # Errors
/// The cloud cannot be reached, or refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Forget(args) => kept::forget(args, output)?,
        Verb::Held(folder) => held::list(folder, output)?,
        Verb::Release(which) => held::release(which, output)?,
        Verb::Quarantine(args) => classic::quarantine(args, output)?,
        Verb::Unknown(args) => classic::unknown(args, output)?,
        Verb::List(list) if kept::is_gateway(&list.which.cloud.dir) => kept::list(list, output)?,
        Verb::List(list) => {
            anyhow::ensure!(list.after.is_none(), "--after is for the folder of a gateway without a cloud");
            let api = list.which.cloud.connect()?;
            let path = if list.imported { "/v1/readings/imported" } else { "/v1/readings" };
            let page = api.fetch(&format!("{path}?order=desc&limit={}{}", list.limit, list.which.query()))?;
            let mut readings = page
                .get("readings")
                .and_then(Value::as_array)
                .cloned()
                .context("the cloud gave no list of readings")?;
            readings.reverse();
            if list.imported {
                show_imported(Value::Array(readings), output)?;
                return Ok(ExitCode::SUCCESS);
            }
            let shown: Vec<ReadingShown> = serde_json::from_value(Value::Array(readings.clone()))?;
            show(Value::Array(readings), &shown, output);
        }
        Verb::Follow(which) => {
            let api = which.cloud.connect()?;
            api.follow(&format!("/v1/readings/stream?{}", which.query().trim_start_matches('&')), |data| {
                let mut out = std::io::stdout().lock();
                let said = match output {
                    Output::Json => writeln!(out, "{data}"),
                    Output::Human => match serde_json::from_str(data)? {
                        Followed::Reading(reading) => writeln!(out, "{}", columns(&reading).join("  ")),
                        Followed::Label(LabelShown { label, reading, device, number, .. }) => {
                            writeln!(out, "{label} now: reading {reading}, number {number} of {device}")
                        }
                    },
                };
                // Whoever read our output has gone: that ends it.
                Ok(said.and_then(|()| out.flush()).is_ok())
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(readings: Value, shown: &[ReadingShown], output: Output) {
    answer(output, &readings, || {
        if shown.is_empty() {
            return "No readings.".to_owned();
        }
        let mut t = table(&["RECEIVED", "NETWORK", "DEVICE", "NUMBER", "PROVEN BY", "GATEWAY", "READING"]);
        for r in shown {
            t.add_row(columns(r));
        }
        t.trim_fmt()
    });
}

fn show_imported(readings: Value, output: Output) -> anyhow::Result<()> {
    let shown: Vec<ImportedShown> = serde_json::from_value(readings.clone())?;
    answer(output, &readings, || {
        if shown.is_empty() {
            return "Nothing was imported.".to_owned();
        }
        let mut t =
            table(&["RECEIVED THERE", "NETWORK", "SERIAL", "NODE ID", "SEQUENCE", "PROVEN BY", "FROM", "READING"]);
        for r in &shown {
            t.add_row([
                clock::text(r.received_ms / 1000),
                r.network.clone(),
                r.serial.clone(),
                safe(&r.node_id),
                r.sequence.map_or_else(String::new, |n| n.to_string()),
                "nobody INSECURE, imported".to_owned(),
                r.source.clone(),
                format!("{} {}", safe(&r.sensor), safe(&r.value)),
            ]);
        }
        t.trim_fmt()
    });
    Ok(())
}

impl Which {
    fn query(&self) -> String {
        let one = |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("&{key}={v}")).unwrap_or_default();
        // A serial of v12 hardware is a decimal number; of v15 it is the device's id.
        let old = |device: &String| device.parse::<u32>().ok().filter(|_| device.len() < 16);
        let device = self.device.as_ref().map(|d| old(d).map_or_else(|| d.clone(), |n| format!("{n:016x}")));
        format!("{}{}", one("net", &self.net), one("device", &device))
    }
}

/// A reading for people: seven columns.
fn columns(r: &ReadingShown) -> [String; 7] {
    let proven = match (r.insecure, r.proof.as_str()) {
        (true, "plain") => "nobody INSECURE".to_owned(),
        (true, who) => format!("{who} INSECURE"),
        (false, who) => who.to_owned(),
    };
    let conflict = if r.conflict { " CONFLICT" } else { "" };
    let [device, number, label, contents] = match &r.classic {
        Some(c) => classic::columns(c),
        None => [r.device.clone(), r.number.to_string(), String::new(), contents(r)],
    };
    [
        clock::text(r.received_ms / 1000),
        r.network.clone(),
        device,
        number,
        format!("{proven}{conflict}{label}"),
        r.gateway.clone(),
        contents,
    ]
}

fn contents(r: &ReadingShown) -> String {
    let record = |record: &RecordShown| {
        let value = match &record.value {
            Value::Null => record.sum.map_or_else(String::new, |sum| format!("sum {sum}")),
            value => bare(value),
        };
        format!("{} {value}{}", safe(&record.name), unit(record.unit.as_ref()))
    };
    let column = |column: &ColumnShown| match &column.value {
        Value::Null => format!("{} missing", safe(&column.name)),
        value => format!("{} {}{}", safe(&column.name), bare(value), unit(column.unit.as_ref())),
    };
    let row = |row: &RowShown| match &row.columns {
        Some(columns) => columns.iter().map(column).collect(),
        None => vec![format!("template {} {}", row.id, safe(&json!(row.values).to_string()))],
    };
    let parts: Vec<String> = r
        .records
        .iter()
        .map(record)
        .chain(r.templates.iter().flat_map(row))
        .chain(r.other.iter().map(|hex| format!("control {hex}")))
        .collect();
    parts.join(", ")
}

fn unit(unit: Option<&String>) -> String {
    unit.map(|u| format!(" {}", safe(u))).unwrap_or_default()
}

fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    }
}

/// Text of a device for a terminal: what the terminal would obey comes out escaped.
fn safe(text: &str) -> String {
    fivefold_waspmote::Text::new(text.as_bytes()).to_string()
}
