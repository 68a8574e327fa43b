//! `fivefold audit`: what is weak in a deployment, by the rules of docs/protocol.md 15.

mod beside;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_audit::facts::Facts;
use fivefold_audit::gather::{self, Secrets};
use fivefold_audit::report::Format;
use fivefold_audit::rule::{Finding, Kind, Rule, Sight};
use fivefold_audit::waiver::{self, Waivers};
use fivefold_audit::{Audit, Outcome, rules};
use fivefold_core::profile::Profile;
use fivefold_keep::registry::{REGISTRY_FILE, Registry};
use serde_json::{Value, json};

use beside::Beside;

use crate::clock;
use crate::operator::{acting, is_operators};
use crate::output::{Form, Output, answer, printable, say, table};
use crate::reading::Cloud;

/// Arguments of `fivefold audit`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    look: Look,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What is looked at.
#[derive(Clone, Debug, clap::Args)]
struct Look {
    /// The operator's folder, made by `fivefold init`, or a gateway's.
    /// Without it: the folder you are in; or none, where --beside or --node names what is looked at.
    #[arg(long, env = "FIVEFOLD_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    beside: Beside,
    /// The passphrase of the operator's vault, where it does not lie where vault.toml says.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Ask the running cloud too, for what no file shows: what devices report, the log's witnesses, a store that was put back.
    #[arg(long)]
    live: bool,
    /// The cloud's API, if not where the folder says.
    #[arg(long, env = "FIVEFOLD_API", value_name = "URL")]
    api: Option<String>,
    /// File with a token, made by: fivefold token add NAME --scope audit > FILE.
    #[arg(long, env = "FIVEFOLD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Leave what is sealed: rules about keys are not looked at.
    #[arg(long, conflicts_with = "passphrase_file")]
    without_secrets: bool,
    /// What you live with, by whom, why and until when (TOML; docs/operate.md, Audit).
    #[arg(long, value_name = "FILE")]
    waivers: Option<PathBuf>,
    /// Levels that every network must have at least: e1+e3+e4 if you do not trust gateways.
    #[arg(long, value_name = "LEVELS")]
    profile: Option<Profile>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Say what a rule finds, why that is bad, and what mends it.
    Explain {
        /// The rule, e.g. AR-01.
        rule: String,
    },
    /// List all rules, with how bad each is and where its facts are.
    Rules,
}

/// Runs the command. Exit code 0: nothing critical or high that nobody waived. 1: findings. 2: something could not be read.
///
/// # Errors
/// The waivers cannot be read, or there is no such rule.
pub fn run(args: &Args, form: Form) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Some(Verb::Explain { rule }) => explain(rule, form.output()?),
        Some(Verb::Rules) => list(form.output()?),
        None => look(&args.look, form),
    }
}

fn look(args: &Look, form: Form) -> anyhow::Result<ExitCode> {
    let mut facts = Facts::at(clock::now()?);
    facts.wanted = args.profile;
    let waivers = match &args.waivers {
        Some(path) => {
            let text = gather::text(path).map_err(anyhow::Error::msg).context("the waivers")?;
            Waivers::parse(&text, path, facts.now)?
        }
        None => Waivers::NONE,
    };
    let secrets = match args.without_secrets {
        true => Secrets::Sealed,
        false => Secrets::Open(args.passphrase_file.as_deref()),
    };
    match &args.dir {
        Some(folder) => gather::deployment(folder, secrets, &mut facts),
        None if args.beside.is_empty() => gather::deployment(Path::new("."), secrets, &mut facts),
        None => {}
    }
    args.beside.gather(&mut facts);
    if args.live {
        let dir = args.dir.clone().unwrap_or_else(|| ".".into());
        let cloud = Cloud { dir, api: args.api.clone(), token_file: args.token_file.clone() };
        let report = cloud.connect()?.fetch("/v1/audit")?;
        gather::running(&report, &mut facts).map_err(anyhow::Error::msg)?;
    }
    let audit = Audit::of(&facts, &waivers);
    let format = match form {
        Form::Human => Format::Text,
        Form::Json => Format::Json,
        Form::Junit => Format::Junit,
        Form::Sarif => Format::Sarif,
    };
    say(&shown(&format.write(&audit))).context("cannot write the report")?;
    if let Some(path) = &args.waivers {
        let folder = args.dir.as_deref().or_else(|| args.beside.is_empty().then_some(Path::new(".")));
        folder.map_or(Ok(()), |folder| tell(folder, path, &waivers, facts.now))?;
    }
    Ok(match audit.outcome() {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Findings => ExitCode::FAILURE,
        Outcome::Unreadable => ExitCode::from(2),
    })
}

/// What stands under a list of devices where the book alone shows that something is wrong with them, or with their networks.
///
/// # Errors
/// The book cannot be read.
pub(crate) fn hint(registry: &Registry) -> anyhow::Result<String> {
    let mut facts = Facts::at(clock::now()?);
    gather::book(registry, &mut facts)?;
    let audit = Audit::of(&facts, &Waivers::NONE);
    let about = |f: &&Finding| f.severity.is_grave() && matches!(f.subject.kind, Kind::Device | Kind::Network);
    let some = |n| format!("\n\n{n} grave finding{}: fivefold audit", if n == 1 { "" } else { "s" });
    Ok(Some(audit.findings.iter().filter(about).count()).filter(|n| *n > 0).map_or(String::new(), some))
}

/// Enters in the operator's log what is new about the waivers of a file, if the folder is an operator's.
fn tell(folder: &Path, file: &Path, waivers: &Waivers, now: u64) -> anyhow::Result<()> {
    let book = folder.join(REGISTRY_FILE);
    // What is wrong with a book that does not open is in the report.
    if !is_operators(folder) || Registry::open_read_only(&book).is_err() {
        return Ok(());
    }
    let told = waivers.enter(file, &book, || acting(now), now);
    told.context("waivers are to stand in the operator's log, and could not be entered there")?;
    Ok(())
}

fn explain(id: &str, output: Output) -> anyhow::Result<ExitCode> {
    let of_waivers = || waiver::RULE.id.eq_ignore_ascii_case(id).then_some(&waiver::RULE);
    let rule = rules::named(id)
        .or_else(of_waivers)
        .with_context(|| format!("there is no rule {id}; see: fivefold audit rules"))?;
    answer(output, &json_of(rule), || {
        format!(
            "{}  {} ({})\n\n{}\n\nWhat mends it: {}\n\nIts facts: {}.\nFrom: {}.",
            rule.id,
            rule.title,
            rule.severity,
            rule.why,
            rule.cure,
            sight(rule),
            rule.source
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn list(output: Output) -> anyhow::Result<ExitCode> {
    answer(output, &Value::Array(rules::all().map(json_of).collect()), || {
        let mut t = table(&["RULE", "SEVERITY", "FINDS", "ITS FACTS"]);
        for rule in rules::all() {
            t.add_row([rule.id, rule.severity.as_str(), rule.title, place(rule)]);
        }
        t.trim_fmt()
    });
    Ok(ExitCode::SUCCESS)
}

const fn place(rule: &Rule) -> &'static str {
    match rule.sight {
        Sight::Code(_) => "code",
        Sight::Files => "files",
        Sight::Book => "book",
        Sight::Given(_) => "named file",
        Sight::Live(_) => "live",
    }
}

fn sight(rule: &Rule) -> String {
    match rule.sight {
        Sight::Code(guard) => format!("no setting breaks it: {guard}"),
        Sight::Files => "in the files of the deployment".into(),
        Sight::Book => "in the operator's book, and more of them in the other files of the deployment".into(),
        Sight::Given(what) => format!("in a file that has to be named: {what}"),
        Sight::Live(what) => format!("only in a running process: {what}"),
    }
}

fn json_of(rule: &Rule) -> Value {
    json!({
        "rule": rule.id, "severity": rule.severity.as_str(), "title": rule.title, "why": rule.why, "cure": rule.cure,
        "source": rule.source, "facts": place(rule), "sight": sight(rule),
    })
}

/// Names come from files of others: no character that a terminal obeys is left in them.
fn shown(report: &str) -> String {
    printable(&report.replace(|c: char| c.is_control() && c != '\n', "?"))
}
