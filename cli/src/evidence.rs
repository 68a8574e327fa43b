//! `fivefold evidence`: bundles that prove readings to strangers: verify one, show one, fetch some, add a timestamp; and the
//! file that says what is believed.
//!
//! Verifying opens no socket: a bundle, a trust file, and nothing else.

mod stamp;
mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::id::Did;
use fivefold_evidence::bundle::{Bundle, Bundles, FILE_BYTES};
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Report, Verdict, verify_file};
use fivefold_evidence::words;
use fivefold_keep::files::{self, Readers};
use serde_json::{Value, json};

use crate::output::{Output, answer, lines};
use crate::reading::Cloud;

/// Arguments of `fivefold evidence`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Fetch the evidence for a device's signed readings from the cloud.
    Export(Export),
    /// Show what is in a bundle. Nothing of it is verified.
    Show(File),
    /// Add timestamps of an authority (RFC 3161) to bundles, or write the question for one.
    Timestamp(stamp::Stamp),
    /// Write the trust file of this deployment: what others need to verify its evidence. It holds no secret.
    Trust(trust::Written),
    /// Verify bundles without a network. Exit code 0: all are proven; 1: one is refused; 2: the file cannot be read.
    Verify(Verify),
}

#[derive(Clone, Debug, clap::Args)]
struct File {
    /// The bundles (.evb).
    file: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    bundles: File,
    /// What is believed: written by fivefold evidence trust, and come by another way than the bundles.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct Export {
    #[command(flatten)]
    cloud: Cloud,
    /// The device: its EUI-64, 16 hex digits.
    #[arg(long, value_name = "DID")]
    device: Did,
    /// Readings that came at or after this time: RFC 3339, e.g. 2026-11-25T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: jiff::Timestamp,
    /// Readings that came before this time.
    #[arg(long, value_name = "TIME")]
    to: jiff::Timestamp,
    /// Where the bundles go; without it, DID.evb.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written, the trust file is wrong, or the cloud refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Export(args) => export(args, output),
        Verb::Show(args) => show(args, output),
        Verb::Timestamp(args) => stamp::run(args, output),
        Verb::Trust(args) => trust::run(args, output),
        Verb::Verify(args) => verify(args, output),
    }
}

fn verify(args: &Verify, output: Output) -> anyhow::Result<ExitCode> {
    let trust = read_trust(&args.trust)?;
    let reports = verify_file(&read_bundles(&args.bundles.file)?, &trust);
    match output {
        Output::Json => lines(&reports.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?),
        Output::Human => {
            for (at, report) in reports.iter().enumerate() {
                println!("{}", words::report(report, at + 1, reports.len()));
            }
        }
    }
    Ok(exit(&reports))
}

/// 2 if a file is no evidence at all, 1 if a reading is refused, else 0.
fn exit(reports: &[Report]) -> ExitCode {
    let any = |verdict| reports.iter().any(|r| r.verdict == verdict);
    if reports.is_empty() || any(Verdict::Unreadable) {
        ExitCode::from(2)
    } else {
        ExitCode::from(u8::from(any(Verdict::Refused)))
    }
}

/// What is believed.
fn read_trust(path: &Path) -> anyhow::Result<Trust> {
    let is_none =
        || format!("{} is no trust file; the operator writes one with: fivefold evidence trust", path.display());
    files::read_text(path).with_context(is_none)?.parse().with_context(is_none)
}

/// The bytes of a file of bundles, no more than such a file may have.
fn read_bundles(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(failed)?;
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).with_context(failed)?;
    Ok(bytes)
}

fn show(args: &File, output: Output) -> anyhow::Result<ExitCode> {
    let bytes = read_bundles(&args.file)?;
    let bundles = Bundles::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let bundles = bundles.with_context(|| format!("{} is no file of bundles", args.file.display()))?;
    let shown: Vec<Value> = bundles.iter().map(describe).collect();
    match output {
        Output::Json => lines(&shown),
        Output::Human => {
            for (at, bundle) in bundles.iter().enumerate() {
                println!("Bundle {} of {}, nothing verified:", at + 1, bundles.len());
                for line in pretty(bundle) {
                    println!("  {line}");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts of a bundle as they stand there.
fn describe(b: &Bundle<'_>) -> Value {
    let hex = |bytes: &[u8]| hex::encode(bytes);
    json!({
        "tbs": hex(b.tbs), "salt": hex(&b.salt.0), "index": b.path.index, "size": b.path.size, "batch": hex(b.signed),
        "certificates": b.chain.iter().map(|c| hex(c)).collect::<Vec<_>>(),
        "enrolment": hex(b.enrolment.record), "proof": b.proof,
        "template": b.template.map(|t| json!({ "id": t.id, "definition": hex(t.definition) })),
        "receipts": b.receipts.iter().map(|r| json!({ "receipt": hex(r.receipt), "envelope": hex(r.envelope) })).collect::<Vec<_>>(),
        "revocations": hex(b.revocations.record), "policy": hex(b.policy.record),
        "timestamps": b.timestamps.iter().map(|t| hex(t.token)).collect::<Vec<_>>(),
    })
}

fn pretty(b: &Bundle<'_>) -> Vec<String> {
    let note = b.proof.lines().skip_while(|l| !l.is_empty()).skip(1).take_while(|l| !l.is_empty());
    vec![
        format!("2  reading      {} bytes, {}", b.tbs.len(), hex::encode(b.tbs)),
        format!("3  path         leaf {} of {}, {} hashes", b.path.index, b.path.size, b.path.hashes.len()),
        format!("4  batch        {} bytes, COSE_Sign1", b.signed.len()),
        format!("5  chain        {} certificates", b.chain.len()),
        format!("6  enrolment    {}", hex::encode(b.enrolment.record)),
        format!("7  checkpoint   {}", note.collect::<Vec<_>>().join(" ").escape_debug()),
        match &b.template {
            Some(t) => format!("8  template     {}, {} bytes", t.id, t.definition.len()),
            None => "8  template     none".into(),
        },
        format!("9  receipts     {}", b.receipts.len()),
        format!("10 revocations  {}", hex::encode(b.revocations.record)),
        format!("11 policy       {}", hex::encode(b.policy.record)),
        format!("12 timestamps   {}", b.timestamps.len()),
    ]
}

fn export(args: &Export, output: Output) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.from < args.to, "--from {} is not before --to {}", args.from, args.to);
    let api = args.cloud.connect()?;
    let (from, to) = (args.from.as_millisecond(), args.to.as_millisecond());
    let evidence = api.fetch_evidence(&format!("device={}&from={from}&to={to}", args.device), FILE_BYTES)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.evb", args.device)));
    let (bytes, missing) = (evidence.bundles, evidence.not_proven);
    if bytes.is_empty() {
        answer(output, &json!({ "readings": 0, "file": null, "not_proven": missing }), || {
            format!("Nothing is proven: {}.", missing.as_deref().unwrap_or("the cloud gave no reason"))
        });
        return Ok(ExitCode::from(1));
    }
    let readings = Bundles::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let readings = readings.context("the cloud sent something else than evidence")?.len();
    files::write(&out, Readers::Everybody, &bytes)?;
    answer(output, &json!({ "readings": readings, "file": out, "not_proven": missing }), || {
        let missing = missing.as_ref().map(|m| format!(" Not proven: {m}.")).unwrap_or_default();
        format!(
            "Wrote the evidence of {readings} readings to {out}.{missing}\nNext: fivefold evidence verify {out} --trust TRUST",
            out = out.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}
