//! The attackers of docs/threats.md, each a process of its own (`fivefold attack NAME --plan FILE`), so that what they
//! try goes through live sockets and what they hold is what the plan gives them.
//!
//! An attacker reports what it tried and what it could read. What it could forge is judged by the demo, which knows what
//! the nodes really sent and asks the cloud what it stored.

pub mod air;
pub mod backhaul;
pub mod classic;
pub mod database;
pub mod impersonate;
pub mod insider;
pub mod memory;
pub mod opener;
pub mod plan;
pub mod radio;
pub mod thief;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// Arguments of `fivefold attack`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Be the wire between gateways and the cloud.
    Backhaul {
        /// A wire: LISTEN=CLOUD, two addresses.
        #[arg(long = "forward")]
        forwards: Vec<backhaul::Forward>,
        /// Folder for what was recorded.
        #[arg(long)]
        record: PathBuf,
    },
    /// Hear everything on the air.
    Listen {
        /// UDP address of the ear.
        #[arg(long)]
        bind: SocketAddr,
        /// File to append to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Do one attack of docs/threats.md.
    Run {
        /// Its name.
        name: String,
        /// What the attacker has.
        #[arg(long)]
        plan: PathBuf,
    },
}

/// Runs an attacker.
///
/// # Errors
/// The plan is not complete, or a socket fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Backhaul { forwards, record } => backhaul::run(forwards, record)?,
        What::Listen { bind, out } => air::listen(*bind, out)?,
        What::Run { name, plan } => {
            let report = attack(name, &plan::Plan::read(plan)?)?;
            println!("{}", serde_json::to_string(&report)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn attack(name: &str, plan: &plan::Plan) -> anyhow::Result<Report> {
    let badge = || opener::badge_of(plan);
    match name {
        "stranger-no-key" => radio::no_key(plan),
        "stranger-wrong-key" => radio::wrong_key(plan),
        "recorder-reads" => radio::reads(plan),
        "recorder-replays-hop" => radio::replays_hop(plan),
        "recorder-replays-elsewhere" => radio::replays_elsewhere(plan),
        "recorder-flips" => radio::flips(plan),
        "insider-reads" => insider::reads(plan, badge()?),
        "insider-forges" => insider::forges(plan, badge()?),
        "insider-replays" => insider::replays(plan, badge()?),
        "insider-flips" => insider::flips(plan, badge()?),
        "backhaul-impersonates" => impersonate::stranger(plan),
        "gateway-as-cloud" => impersonate::stolen(plan),
        "gateway-disk-memory" => thief::disk_and_memory(plan),
        "gateway-decrypts" => opener::gateway_decrypts(plan),
        "gateway-alters" => thief::alters(plan),
        "gateway-splices" => thief::splices(plan),
        "gateway-replays" => thief::replays(plan, opener::contents(plan)?),
        "gateway-invents" => thief::invents(plan),
        "database-keys" => database::keys(plan),
        "database-readings" => database::readings(plan),
        "stolen-node-others" => opener::stolen_node_others(plan),
        name if name.starts_with("classic-") => classic::run(name, plan),
        _ => anyhow::bail!("no attack is called {name}"),
    }
}

/// What an attacker says when it is done; one line of JSON on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many things it tried: frames or messages sent, keys or places tried.
    pub attempts: u64,
    /// How many real readings it holds in the clear now.
    pub read: u64,
    /// One sentence on what was seen.
    pub note: String,
}

impl Report {
    /// A report of attempts alone.
    pub fn tried(attempts: usize, note: impl Into<String>) -> Self {
        Self { attempts: attempts as u64, read: 0, note: note.into() }
    }
}
