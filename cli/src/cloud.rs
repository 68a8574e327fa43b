//! `fivefold cloud`: the cloud of an operator's folder, until it is told to stop; and its certificates.

mod limits;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fivefold_cloud::config::{Config, ISSUER_FILE, ISSUER_KEY_FILE, KEY_FILE};
use fivefold_cloud::daemon;
use fivefold_core::id::Did;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_keep::ca::{Authority, Certified, ISSUER_DAYS, LONGEST_DAYS, Role, names_in};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{ClassicProfile, Registry, Whom, Word};
use fivefold_keep::share::{self, CA_FILE, CERTIFICATE_FILE};
use serde_json::{Map, Value, json};

use crate::backup;
use crate::clock;
use crate::notify;
use crate::operator::{
    CA_KEY_FILE, Folder, OPERATOR_FILE, OPERATOR_HEADING, Operator, REGISTRY_FILE, Settings, acting, by, who,
};
use crate::output::{self, Output, table};

/// Arguments of `fivefold cloud`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Back the operator's folder up, while the cloud runs: all of it first, then what has changed. It is read back.
    Backup(backup::Backup),
    /// List the cloud's certificates.
    Certificates(Folder),
    /// Say what the cloud keeps, how much of it and since when, and what it takes of its disk. Exit code 1 where there is no room
    /// for batches.
    Limits(limits::Args),
    /// Make a new key and certificate for the cloud, for 90 days and the same names or others. A running cloud takes it by itself.
    RenewCertificate(RenewCertificate),
    /// Make a new issuing key for gateways' certificates. A running cloud takes it by itself.
    RenewIssuer(Folder),
    /// Make a new CA, for when the key of the one before is lost or stolen, and what the cloud needs of it. Gateways are
    /// invited anew after that.
    ReplaceCa(Folder),
    /// Make the operator's folder out of a backup, so that the cloud may start: nothing is sealed twice under one number, and
    /// every device is ordered to renew. If it is interrupted, type it again.
    Restore(backup::Restore),
    /// Say that the store was put back from a copy, or lost: nothing is sealed twice under one number, and every device is
    /// ordered to renew. With the cloud stopped, before it starts again.
    Restored(Folder),
    /// Run the cloud until it is told to stop. SIGHUP reloads its certificate and its issuing key.
    Run(Run),
}

#[derive(Clone, Debug, clap::Args)]
struct RenewCertificate {
    #[command(flatten)]
    folder: Folder,
    /// Host name or address to stand in it from now on, in the place of those that the one before has. Repeat for more; the first is
    /// what gateways dial. To give the cloud another name, name the new one and the old one until every gateway dials the new one.
    #[arg(long = "cloud-name", value_name = "NAME")]
    cloud_names: Vec<String>,
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
        Verb::Backup(args) => return backup::backup(args, backup::Of::Cloud, output),
        Verb::Certificates(folder) => return certificates(folder, output),
        Verb::Limits(args) => return limits::run(args, output),
        Verb::RenewCertificate(args) => return renew_certificate(args, output),
        Verb::RenewIssuer(folder) => return renew_issuer(folder, output),
        Verb::ReplaceCa(folder) => return replace_ca(folder, output),
        Verb::Restore(args) => return backup::restore(args, backup::Of::Cloud, output),
        Verb::Restored(folder) => return restored(folder, output),
    };
    if run.check {
        let resolved = daemon::check(&run.dir)?;
        output::answer(output, &by_line(&resolved), || resolved.clone());
        return Ok(ExitCode::SUCCESS);
    }
    output::log(output);
    let ready = |at: daemon::Listening| {
        match output {
            Output::Human => println!("Gateways connect to {}; people and programs to https://{}.", at.ingest, at.api),
            Output::Json => {
                let ready = json!({ "event": "ready", "ingest": at.ingest.to_string(), "api": at.api.to_string() });
                println!("{ready}");
            }
        }
        notify::ready();
    };
    match daemon::run(&run.dir, ready, notify::heart()) {
        Err(error) if error.is_lasting() => Ok(notify::lasts(output, &error.into())),
        ended => Ok(ended.map(|()| ExitCode::SUCCESS)?),
    }
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
    let before = names_in(&files::read_text(&cloud.join(CERTIFICATE_FILE))?)?;
    let names = if args.cloud_names.is_empty() { before.clone() } else { args.cloud_names.clone() };
    if let Some(first) = args.cloud_names.first() {
        operator.settings.move_to(first)?;
    }
    let issued = fresh_certificate(&mut operator, &names, by(&who, now))?;
    if !args.cloud_names.is_empty() {
        share::write_config(&operator.dir.join(OPERATOR_FILE), OPERATOR_HEADING, &operator.settings)?;
    }
    let gone: Vec<String> = before.into_iter().filter(|name| !names.contains(name)).collect();
    let revoked = if args.revoke_old { old } else { Vec::new() };
    for serial in &revoked {
        operator.registry.revoke_cloud_certificate(serial, by(&who, now))?;
    }
    let Settings { cloud, api, .. } = &operator.settings;
    let value = json!({ "serial": issued.serial, "names": names, "revoked": revoked, "cloud": cloud, "api": api });
    output::answer(output, &value, || {
        let moved = match (args.cloud_names.is_empty(), gone.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!(
                "\nGateways dial {cloud} from now on: set it in [uplink] of each gateway.toml, and restart them."
            ),
            (false, false) => format!(
                "\nWho dials {} is refused from now on: set cloud = \"{cloud}\" in [uplink] of each gateway.toml.",
                gone.join(" or ")
            ),
        };
        let revoked = match revoked.len() {
            0 => String::new(),
            n => format!("\nRevoked {n} before it: gateways are told as they connect."),
        };
        format!(
            "Renewed the cloud's certificate for {} until {}.{moved}{revoked}",
            names.join(", "),
            clock::text(issued.not_after)
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// A key and certificate for the cloud, in its folder and in the book.
fn fresh_certificate(operator: &mut Operator, names: &[String], word: Word<'_>) -> anyhow::Result<Certified> {
    let cloud = operator.dir.join("cloud");
    let issued = operator.authority()?.issue(&Role::Cloud(names.to_vec()), word.at, LONGEST_DAYS)?;
    operator.registry.enter_certificate(None, &issued.certified, word)?;
    operator.vault.seal_file(&cloud.join(KEY_FILE), &issued.key)?;
    files::write(&cloud.join(CERTIFICATE_FILE), Readers::Everybody, issued.certified.chain.as_bytes())?;
    Ok(issued.certified)
}

fn in_force(registry: &Registry, now: u64) -> anyhow::Result<Vec<String>> {
    let all = registry.certificates()?.into_iter();
    Ok(all.filter(|c| c.gateway.is_none() && c.revoked_at.is_none() && c.not_after > now).map(|c| c.serial).collect())
}

fn renew_issuer(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    let mut operator = folder.open()?;
    fresh_issuer(&mut operator, clock::now()?)?;
    output::answer(output, &json!({ "issuer": operator.dir.join("cloud").join(ISSUER_FILE) }), || {
        "Made a new issuing key for the cloud. Certificates of the old one stay good until they end or are revoked."
            .into()
    });
    Ok(ExitCode::SUCCESS)
}

/// An issuing key for gateways' certificates, in the cloud's folder.
fn fresh_issuer(operator: &mut Operator, now: u64) -> anyhow::Result<()> {
    let cloud = operator.dir.join("cloud");
    let (certificate, key) = operator.authority()?.create_issuer(now, ISSUER_DAYS)?;
    operator.registry.enter_deed("issuing key made", "the cloud's, for gateways")?;
    operator.vault.seal_file(&cloud.join(ISSUER_KEY_FILE), &key)?;
    files::write(&cloud.join(ISSUER_FILE), Readers::Everybody, certificate.as_bytes())?;
    Ok(())
}

fn replace_ca(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    let mut operator = folder.open()?;
    let (cloud, now, who) = (operator.dir.join("cloud"), clock::now()?, who());
    let names = names_in(&files::read_text(&cloud.join(CERTIFICATE_FILE))?)?;
    let (authority, key) = Authority::create(&operator.settings.name)?;
    operator.registry.enter_deed("CA replaced", "the operator's")?;
    operator.vault.seal_file(&operator.dir.join(CA_KEY_FILE), &key)?;
    for place in [&operator.dir, &cloud] {
        files::write(&place.join(CA_FILE), Readers::Everybody, authority.certificate().as_bytes())?;
    }
    fresh_issuer(&mut operator, now)?;
    let issued = fresh_certificate(&mut operator, &names, by(&who, now))?;
    let gateways = operator.registry.gateways()?.into_iter().filter(|g| g.revoked_at.is_none());
    let gateways: Vec<String> = gateways.map(|g| g.name).collect();
    let value = json!({ "serial": issued.serial, "names": names, "to_invite": gateways });
    output::answer(output, &value, || {
        let dir = operator.dir.display();
        let invite = |name: &String| format!("  fivefold gateway invite --dir {dir} {name} --token-file {name}.token");
        format!(
            "Made a new CA. Start the cloud again. Gateways know the one before and cannot connect: invite each anew,\n\
             and type the join command there, in the same folder.\n{}",
            gateways.iter().map(invite).collect::<Vec<_>>().join("\n")
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn restored(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    folder.open_book()?;
    let done = count_as_restored(&folder.dir, "from a copy of the operator's", clock::now()?)?;
    output::answer(output, &done.value(), || done.text());
    Ok(ExitCode::SUCCESS)
}

/// What it took to make a store that was put back safe to use.
pub(crate) struct CountsAsRestored {
    contexts: usize,
    ordered: usize,
    /// Devices that cannot renew.
    stuck: Vec<String>,
    /// Hardened classic nodes.
    hardened: Vec<String>,
}

/// Makes the cloud in an operator's folder that was put back safe to start (docs/protocol.md 8.4).
pub(crate) fn count_as_restored(dir: &Path, how: &str, now: u64) -> anyhow::Result<CountsAsRestored> {
    let mut registry = Registry::open(&dir.join(REGISTRY_FILE), acting(now))?;
    let config = Config::load(&dir.join("cloud"))?;
    let contexts = fivefold_cloud::store::restored(&config.store, Millis(now * 1000))?;
    let can_renew: HashSet<Did> = registry.renewals()?.iter().map(|r| r.did).collect();
    let ordered = if can_renew.is_empty() { 0 } else { registry.order_renewal(Whom::All, now)? };
    registry.enter_deed("cloud restored", how)?;
    let devices = registry.devices()?.into_iter().filter(|d| d.revoked_at.is_none());
    let stuck = devices.filter(|d| d.policy.profile != Profile::DangerLinkOnly && !can_renew.contains(&d.did));
    let stuck = stuck.map(|d| d.did.to_string()).collect();
    let classic = registry.classic_devices()?.into_iter();
    let hardened = classic.filter(|d| d.profile == ClassicProfile::Hardened && d.revoked_at.is_none());
    let hardened = hardened.map(|d| d.serial.to_string()).collect();
    Ok(CountsAsRestored { contexts, ordered, stuck, hardened })
}

impl CountsAsRestored {
    pub(crate) fn value(&self) -> Value {
        json!({ "contexts": self.contexts, "ordered": self.ordered, "to_enrol_again": self.stuck,
                "to_harden_again": self.hardened })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "The store counts as put back: {} contexts in it are answered under new numbers, and {} devices are ordered to renew.\n\
             What they send until then is held, for it may be a recording: fivefold reading held",
            self.contexts, self.ordered
        );
        if !self.stuck.is_empty() {
            text.push_str(
                "\nThese cannot renew, and all that they send is held until you type, for each: fivefold device \
                 enrol-again DID\n",
            );
            text.push_str(&self.stuck.join("\n"));
        }
        if !self.hardened.is_empty() {
            text.push_str(
                "\nThese classic nodes cannot renew by themselves, and their frames are held until you type, for each, and flash \
                 it: fivefold device harden SERIAL, or fivefold device key-messages SERIAL\n",
            );
            text.push_str(&self.hardened.join("\n"));
        }
        text
    }
}

/// `name = value` lines as one object.
fn by_line(text: &str) -> Value {
    let lines = text.lines().filter_map(|line| line.split_once(" = "));
    Value::Object(lines.map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>())
}
