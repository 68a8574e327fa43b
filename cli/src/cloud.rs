//! `fivefold cloud`: the cloud of an operator's folder, until it is told to stop; and its certificates.

use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_cloud::config::{ISSUER_FILE, ISSUER_KEY_FILE, KEY_FILE};
use fivefold_cloud::daemon;
use fivefold_keep::ca::{ISSUER_DAYS, LONGEST_DAYS, Role, names_in};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Registry;
use fivefold_keep::share::CERTIFICATE_FILE;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::operator::{Folder, by, who};
use crate::output::{self, Output, table};

/// Arguments of `fivefold cloud`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List the cloud's certificates.
    Certificates(Folder),
    /// Make a new key and certificate for the cloud, for the same names and 90 days. A running cloud takes it by itself.
    RenewCertificate(RenewCertificate),
    /// Make a new issuing key for gateways' certificates. A running cloud takes it by itself.
    RenewIssuer(Folder),
    /// Run the cloud until it is told to stop. SIGHUP reloads its certificate and its issuing key.
    Run(Run),
}

#[derive(Clone, Debug, clap::Args)]
struct RenewCertificate {
    #[command(flatten)]
    folder: Folder,
    /// Revoke all certificates that the cloud had, because their key may be in other hands: gateways are told, and refuse
    /// whoever shows one.
    #[arg(long)]
    revoke_old: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// The cloud's folder, with cloud.toml: DIR/cloud after `fivefold init DIR`.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Print the resolved configuration, open the secrets, and stop.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
///
/// # Errors
/// One sentence about why it cannot start.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let run = match &args.verb {
        Verb::Run(run) => run,
        Verb::Certificates(folder) => return certificates(folder, output),
        Verb::RenewCertificate(args) => return renew_certificate(args, output),
        Verb::RenewIssuer(folder) => return renew_issuer(folder, output),
    };
    if run.check {
        let resolved = daemon::check(&run.dir)?;
        output::answer(output, &by_line(&resolved), || resolved.clone());
        return Ok(ExitCode::SUCCESS);
    }
    output::log(output);
    daemon::run(&run.dir, |at| match output {
        Output::Human => println!("Gateways connect to {}; people and programs to https://{}.", at.ingest, at.api),
        Output::Json => {
            let ready = json!({ "event": "ready", "ingest": at.ingest.to_string(), "api": at.api.to_string() });
            println!("{ready}");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn certificates(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    let (_, registry) = folder.open_book()?;
    let now = clock::now()?;
    let list: Vec<_> = registry.certificates()?.into_iter().filter(|c| c.gateway.is_none()).collect();
    let state = |c: &fivefold_keep::registry::Certificate| match c.revoked_at {
        Some(at) => format!("revoked {}", clock::text(at)),
        None if c.not_after <= now => "ended".into(),
        None => "in force".into(),
    };
    let value = list.iter().map(|c| {
        json!({ "serial": c.serial, "spki_sha256": c.spki.to_string(), "not_before": c.not_before,
                "not_after": c.not_after, "revoked_at": c.revoked_at })
    });
    output::answer(output, &Value::Array(value.collect()), || {
        let mut t = table(&["SERIAL", "UNTIL", "STATE"]);
        for c in &list {
            t.add_row([c.serial.clone(), clock::text(c.not_after), state(c)]);
        }
        t.trim_fmt()
    });
    Ok(ExitCode::SUCCESS)
}

fn renew_certificate(args: &RenewCertificate, output: Output) -> anyhow::Result<ExitCode> {
    let mut operator = args.folder.open()?;
    let (cloud, now, who) = (operator.dir.join("cloud"), clock::now()?, who());
    let old: Vec<String> = in_force(&operator.registry, now)?;
    let names = names_in(&files::read_text(&cloud.join(CERTIFICATE_FILE))?)?;
    let issued = operator.authority()?.issue(&Role::Cloud(names.clone()), now, LONGEST_DAYS)?;
    operator.registry.enter_certificate(None, &issued.certified, by(&who, now))?;
    operator.vault.seal_file(&cloud.join(KEY_FILE), &issued.key)?;
    files::write(&cloud.join(CERTIFICATE_FILE), Readers::Everybody, issued.certified.chain.as_bytes())?;
    let revoked = if args.revoke_old { old } else { Vec::new() };
    for serial in &revoked {
        operator.registry.revoke_cloud_certificate(serial, by(&who, now))?;
    }
    let value = json!({ "serial": issued.certified.serial, "names": names, "revoked": revoked });
    output::answer(output, &value, || {
        let revoked = match revoked.len() {
            0 => String::new(),
            n => format!("\nRevoked {n} before it: gateways are told as they connect."),
        };
        format!(
            "Renewed the cloud's certificate for {} until {}.{revoked}",
            names.join(", "),
            clock::text(issued.certified.not_after)
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn in_force(registry: &Registry, now: u64) -> anyhow::Result<Vec<String>> {
    let all = registry.certificates()?.into_iter();
    Ok(all.filter(|c| c.gateway.is_none() && c.revoked_at.is_none() && c.not_after > now).map(|c| c.serial).collect())
}

fn renew_issuer(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    let operator = folder.open()?;
    let (cloud, now) = (operator.dir.join("cloud"), clock::now()?);
    let (certificate, key) = operator.authority()?.create_issuer(now, ISSUER_DAYS)?;
    operator.vault.seal_file(&cloud.join(ISSUER_KEY_FILE), &key)?;
    files::write(&cloud.join(ISSUER_FILE), Readers::Everybody, certificate.as_bytes())?;
    output::answer(output, &json!({ "issuer": cloud.join(ISSUER_FILE) }), || {
        "Made a new issuing key for the cloud. Certificates of the old one stay good until they end or are revoked."
            .into()
    });
    Ok(ExitCode::SUCCESS)
}

/// `name = value` lines as one object.
fn by_line(text: &str) -> Value {
    let lines = text.lines().filter_map(|line| line.split_once(" = "));
    Value::Object(lines.map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>())
}
