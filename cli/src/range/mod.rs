//! `fivefold range`: the attackers of docs/threats.md against one's own test deployment, as the operator's key permits, and a
//! report of what each tried, what it obtained, and who noticed.

mod field;
pub mod own;
mod report;
mod running;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::profile::Profile;
use fivefold_keep::files;
use fivefold_keep::registry::{REGISTRY_FILE, Registry};
use serde_json::{Value, json};

use crate::api::Api;
use crate::attack::permit::{PERMIT_FILE, Permit, ca_of};
use crate::attack::{Attack, each};
use crate::clock;
use crate::demo::Progress;
use crate::demo::shore;
use crate::demo::siege::{Row, Siege};
use crate::demo::threats::{self, Table};
use crate::operator::{Folder, acting};
use crate::output::{Output, answer, table};
use field::Field;
use report::Report;

/// Arguments of `fivefold range`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List all attacks, with the level and the property that each tests.
    List,
    /// Permit attacks on this deployment, by the operator's key: on its own addresses alone, for 7 days at most.
    Permit(Permitted),
    /// Attack this deployment as its permit says, and report. Exit 1: more was obtained than docs/threats.md states.
    Run(Run),
}

/// Arguments of `range permit`.
#[derive(Clone, Debug, clap::Args)]
struct Permitted {
    #[command(flatten)]
    folder: Folder,
    /// The last day of the permit, e.g. 2026-12-01 (UTC).
    #[arg(long, value_name = "DAY")]
    until: jiff::civil::Date,
    /// Only these attacks. Repeat for more.
    #[arg(long = "attack", value_name = "NAME")]
    attacks: Vec<String>,
    /// An address of this deployment that is not of this machine. Repeat for more; without it, none is permitted.
    #[arg(long = "address", value_name = "IP:PORT")]
    addresses: Vec<SocketAddr>,
}

/// Arguments of `range run`.
#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// The operator's folder, with the permit in it.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// File with a token, made by: fivefold token add NAME > FILE.
    #[arg(long, env = "FIVEFOLD_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// Only these attacks. Repeat for more; without it, all that are permitted.
    #[arg(long = "attack", value_name = "NAME")]
    attacks: Vec<String>,
    /// Judge every network as if it had these levels: e1+e3+e4 if you believe that no gateway and no node has to be trusted.
    #[arg(long, value_name = "LEVELS")]
    profile: Option<Profile>,
    /// Exit 1, too, where less was obtained than docs/threats.md states.
    #[arg(long)]
    exactly: bool,
}

/// Runs the command.
///
/// # Errors
/// The permit permits nothing, or a party does not answer.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::List => list(output),
        Verb::Permit(args) => permit(args, output),
        Verb::Run(args) => attack(args, output),
    }
}

fn list(output: Output) -> anyhow::Result<ExitCode> {
    let pages = pages()?;
    let what = |attack: &Attack| pages.iter().flat_map(|t| &t.attacks).find(|a| a.name == attack.name);
    let json = |attack: &&Attack| {
        let stated = pages.iter().find(|t| t.attacks.iter().any(|a| a.name == attack.name)).into_iter().flat_map(|t| {
            let expected = what(attack).into_iter().flat_map(|a| &a.expected);
            t.networks.iter().zip(expected).map(|(network, outcome)| (network.clone(), json!(outcome)))
        });
        json!({ "attack": attack.name, "level": attack.level.as_str(), "property": attack.property,
                "what": what(attack).map(|a| &a.what), "stated": Value::Object(stated.collect()) })
    };
    answer(output, &Value::Array(each::ALL.iter().map(json).collect()), || {
        let mut t = table(&["ATTACK", "LEVEL", "WHAT IS TRUE WHERE IT OBTAINS NOTHING"]);
        for attack in each::ALL {
            t.add_row([attack.name, attack.level.as_str(), attack.property]);
        }
        t.trim_fmt()
    });
    Ok(ExitCode::SUCCESS)
}

/// The two tables of docs/threats.md.
fn pages() -> anyhow::Result<[Table; 2]> {
    let told = |e: String| anyhow::anyhow!(e);
    Ok([Table::of_threats_page().map_err(told)?, Table::of_classic_nodes().map_err(told)?])
}

fn permit(args: &Permitted, output: Output) -> anyhow::Result<ExitCode> {
    let mut operator = args.folder.open()?;
    let now = clock::now()?;
    let end = args.until.tomorrow()?.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second();
    let until = u64::try_from(end - 1).unwrap_or(0);
    let own = own::addresses(&operator.dir)?;
    if let Some(foreign) = args.addresses.iter().find(|address| !own.contains(address)) {
        anyhow::bail!(
            "nothing of this deployment listens at {foreign}: no config file in {} says so",
            operator.dir.display()
        );
    }
    let is_meant = |address: &SocketAddr| address.ip().is_loopback() || args.addresses.contains(address);
    let (meant, left): (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) = own.into_iter().partition(is_meant);
    let attacks = match args.attacks.is_empty() {
        true => each::ALL.iter().map(|attack| attack.name.to_owned()).collect(),
        false => args.attacks.iter().cloned().collect(),
    };
    let path = operator.dir.join(PERMIT_FILE);
    let permit = Permit::write(&path, &operator.signer()?, meant, attacks, (now, until))?;
    let (addresses, attacks) = (permit.addresses().count(), permit.attacks().count());
    let about =
        format!("{attacks} attacks on {addresses} addresses until {}, permit {}", clock::text(until), permit.nonce());
    operator.registry.enter_deed("range permitted", about)?;
    let value = json!({ "permit": path, "nonce": permit.nonce(), "until": clock::text(until), "addresses": addresses,
                        "attacks": attacks, "left_out": left });
    answer(output, &value, || {
        let left = match left.len() {
            0 => String::new(),
            n => format!("\n{n} addresses are not of this machine and not permitted; name each with --address."),
        };
        format!(
            "{} permits {attacks} attacks on {addresses} addresses of this deployment until {}.{left}\n\n\
             Next: fivefold range run --dir {} --token-file FILE",
            path.display(),
            clock::minute(until),
            operator.dir.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Names of attacks that are permitted and wanted.
fn chosen(permit: &Permit, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    for name in wanted {
        anyhow::ensure!(each::named(name).is_some(), "no attack is called {name}; see: fivefold range list");
        anyhow::ensure!(permit.admits(name), "the permit does not name the attack {name}");
    }
    Ok(match wanted.is_empty() {
        true => permit.attacks().map(str::to_owned).collect(),
        false => wanted.to_vec(),
    })
}

/// A folder that is gone when this is.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn attack(args: &Run, output: Output) -> anyhow::Result<ExitCode> {
    let now = clock::now()?;
    let permit = Permit::read(&args.dir.join(PERMIT_FILE), &ca_of(&args.dir), now)?;
    let chosen = chosen(&permit, &args.attacks)?;
    let token = files::read_text(&args.token_file)?.trim().to_owned();
    let work = Work(std::env::temp_dir().join(format!("fivefold-range-{}", std::process::id())));
    files::create_folder(&work.0)?;
    // Before the first packet: whoever sees it can look who sent it.
    Registry::open(&args.dir.join(REGISTRY_FILE), acting(now))?
        .enter_deed("range run", format_args!("{} attacks, permit {}", chosen.len(), permit.nonce()))?;
    let progress = Progress::begin();
    progress.tell("looking for the parties of the deployment");
    let mut field = Field::find(&args.dir, &token, &permit, &work.0)?;
    field.left_out.iter().for_each(|left| progress.tell(&format!("not attacked: {left}")));
    let done = besiege(args, &mut field, &token, &work.0, &chosen, &progress);
    let left = field.leave();
    let rows = done?;
    left?;
    let is_field_empty = field.village.networks.is_empty() && field.shores.is_empty();
    anyhow::ensure!(!is_field_empty, "no network can be attacked here: {}", field.left_out.join("; "));
    let report = Report::of(&permit, &rows, &field.left_out);
    answer(output, &report.to_json(), || report.to_text());
    let is_well = if args.exactly { report.is_as_stated() } else { !report.is_more_than_stated() };
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All networks and all shores, at the same time: they have nothing to do with each other but the cloud.
fn besiege(
    args: &Run,
    field: &mut Field,
    token: &str,
    work: &Path,
    chosen: &[String],
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let [page, classic] = pages()?;
    let is_chosen = |name: &str| chosen.iter().any(|c| c == name);
    let base = field::api_of(&args.dir)?;
    let ca = ca_of(&args.dir);
    let (village, shores) = (&mut field.village, &mut field.shores);
    std::thread::scope(|scope| {
        let beside: Vec<_> = shores
            .iter_mut()
            .map(|shore| {
                let (ca, base, classic, dir) = (&ca, &base, &classic, &args.dir);
                scope.spawn(move || {
                    let mut siege =
                        shore::siege::Siege::new(shore, Api::new(ca, base, token)?, dir, work)?.going_on()?;
                    siege.run(classic, is_chosen, |row| progress.outcome(row)).map(|(rows, _)| rows)
                })
            })
            .collect();
        let of_village = of_village(args, village, &page, is_chosen, progress);
        let of_shores = beside.into_iter().map(|shore| {
            let rows = shore.join().map_err(|_| anyhow::anyhow!("the siege of the classic nodes broke off"))?;
            rows.context("the classic nodes")
        });
        // Whichever fails first is told, and no process is left without its owner.
        let mut of_shores = of_shores.collect::<Vec<anyhow::Result<Vec<Row>>>>();
        let mut rows = of_village?;
        for shore in &mut of_shores {
            rows.append(shore.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?);
        }
        Ok(rows)
    })
}

fn of_village(
    args: &Run,
    village: &mut crate::demo::village::Village,
    page: &Table,
    is_chosen: impl Fn(&str) -> bool,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let attacks: Vec<&threats::Attack> = page.attacks.iter().filter(|a| is_chosen(&a.name)).collect();
    if village.networks.is_empty() || attacks.is_empty() {
        return Ok(Vec::new());
    }
    let mut siege = Siege::new(village)?.claiming(args.profile);
    siege.await_cloud()?;
    progress.tell("listening");
    let before = siege.stored()?;
    siege.peace(&before)?;
    siege.forget_what_was_forged()?;
    let mut rows = Vec::new();
    for attack in attacks {
        let row = siege.run(attack, page).with_context(|| format!("attack {}", attack.name))?;
        progress.outcome(&row);
        rows.push(row);
        if let Some(dead) = siege.village.casualties().into_iter().next() {
            anyhow::bail!("{dead}");
        }
    }
    Ok(rows)
}
