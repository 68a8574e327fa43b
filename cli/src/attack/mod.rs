//! The attackers of docs/threats.md, each a process of its own (`fivefold attack run NAME --plan FILE`), so that what they
//! try goes through live sockets and what they hold is what the plan gives them. They speak to nobody whom their permit does
//! not name ([`door`]).
//!
//! An attacker reports what it tried and what it could read. What it could forge is judged by the demo and the range, which
//! know what the nodes really sent and ask the cloud what it stored.

pub mod air;
pub mod backhaul;
pub mod classic;
pub mod database;
pub mod door;
pub mod each;
pub mod impersonate;
pub mod insider;
pub mod memory;
pub mod opener;
pub mod permit;
pub mod plan;
pub mod radio;
pub mod thief;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
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
    let attack = each::named(name).with_context(|| format!("no attack is called {name}"))?;
    door::Door::of(plan)?.admits(attack.name)?;
    match attack.way {
        Way::Process(run) => run(plan),
        Way::Hands(_) => anyhow::bail!("{name} takes hands on the deployment: fivefold range run --attack {name}"),
    }
}

/// An attack of docs/threats.md.
#[derive(Debug)]
pub struct Attack {
    /// Its name there.
    pub name: &'static str,
    /// Whose work it tests.
    pub level: Level,
    /// What is true where it obtains nothing.
    pub property: &'static str,
    /// How it is done.
    pub way: Way,
}

/// Whose work an attack tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Level {
    /// The link, hop by hop.
    E1,
    /// Node and gateway.
    E2,
    /// Node and cloud.
    E3,
    /// Gateway and cloud.
    E4,
    /// Keys: renewal and revocation.
    E5,
    /// None: what lies on disks.
    Rest,
    /// None: frames of classic nodes, as far as they can be judged.
    Classic,
}

impl Level {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::E1 => "E1",
            Self::E2 => "E2",
            Self::E3 => "E3",
            Self::E4 => "E4",
            Self::E5 => "E5",
            Self::Rest => "at rest",
            Self::Classic => "classic",
        }
    }
}

/// How an attack is done.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By a process of its own, one for each network or node.
    Process(fn(&plan::Plan) -> anyhow::Result<Report>),
    /// By whoever has hands on wires and processes of all parties.
    Hands(Hands),
}

/// What those hands do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// Start parties again.
    Restarts,
    /// Search what the wires carried.
    ReadsWires,
    /// Flip bits on the wires.
    FlipsWires,
    /// Let a gateway forward nothing.
    Withholds,
    /// Let a gateway throw away what it took.
    Drops,
    /// Let a node in the wrong hands speak, and revoke it.
    Itself,
}

/// What an attacker says when it is done; one line of JSON on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many things it tried: frames or messages sent, keys or places tried.
    pub attempts: u64,
    /// How many real readings it holds in the clear now.
    pub read: u64,
    /// Whether a command of its own was run by somebody.
    #[serde(default)]
    pub ran: bool,
    /// One sentence on what was seen.
    pub note: String,
}

impl Report {
    /// A report of attempts alone.
    pub fn tried(attempts: usize, note: impl Into<String>) -> Self {
        Self { attempts: attempts as u64, note: note.into(), ..Self::default() }
    }
}
