//! The one command of Fivefold: one file per noun.
//!
//! Exit codes: 0 yes, 1 the answer is no, 2 error; of a daemon 78, an error that lasts until somebody mends it. Every command takes
//! `-o json`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod alarm;
pub mod api;
pub mod attack;
pub mod audit;
pub mod backup;
pub mod budget;
pub mod clock;
pub mod cloud;
pub mod compare;
pub mod completion;
pub mod config;
pub mod demo;
pub mod device;
pub mod evidence;
pub mod frame;
pub mod gateway;
pub(crate) mod gateway_join;
mod gateway_local;
pub mod gateway_run;
mod gateway_token;
pub mod import;
pub mod init;
pub mod key;
pub mod log;
pub(crate) mod meshlium;
pub mod network;
pub mod node;
mod notify;
pub mod operator;
pub mod outbox;
pub mod output;
pub(crate) mod paper;
pub mod range;
pub mod reading;
pub mod secret;
pub(crate) mod serial;
pub mod template;
pub mod token;
pub mod vault;
pub mod why;
pub mod xbee_air;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::output::Form;

/// Five-level security for networks of sensors.
#[derive(Debug, Parser)]
#[command(name = "fivefold", version, propagate_version = true, arg_required_else_help = true)]
struct Args {
    /// Form of the answer.
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Alarms: list them, try whether sinks take them, seal the secrets of sinks.
    Alarm(alarm::Args),
    /// One of the demo's attackers.
    #[command(hide = true)]
    Attack(attack::Args),
    /// What is weak in a deployment, by rules: findings, grades and waivers; explain a rule.
    Audit(audit::Args),
    /// Bytes left for the application, by radio and combination.
    Budget(budget::Args),
    /// The cloud: run it, renew its certificate and its issuing key, back it up and restore it.
    Cloud(cloud::Args),
    /// Compare what another system saw with what came here.
    Compare(compare::Args),
    /// What a shell needs to complete the words of this command.
    Completion(completion::Args),
    /// A config file with every setting there is, to copy from.
    Config(config::Args),
    /// A dam, its sensors and its enemies: every attack of docs/threats.md against live processes.
    Demo(demo::Args),
    /// Devices: enrol, add, list, show, enrol again, revoke.
    Device(device::Args),
    /// Evidence for readings: export it, verify it, add timestamps; the trust file.
    Evidence(evidence::Args),
    /// Frames: decode one, and say what each byte is.
    Frame(frame::FrameArgs),
    /// Gateways: invite, join, list, show, revoke, run, back up, restore.
    Gateway(gateway::Args),
    /// Take over what another system knew.
    Import(import::Args),
    /// Make an operator's folder: CA, vault and registry.
    Init(init::Args),
    /// Keys of networks: rotate, switch, retire, roll back, pause, resume, show.
    Key(key::Args),
    /// The log of events, signed and cosigned: show it, check it, monitor it, be a witness of it.
    Log(log::Args),
    /// Manual pages, one for each command, written into a folder.
    Man(completion::Man),
    /// Networks: add, list.
    Network(network::Args),
    /// Nodes: join a network, run one as software.
    Node(node::Args),
    /// The operator's log: who did what to this deployment, when, and from where.
    Operator(operator::deeds::Args),
    /// Where readings go: list sinks and what waits for each, send again what one refused, pause, resume, seal secrets.
    Outbox(outbox::Args),
    /// Attack your own test deployment: list the attacks, permit them, run them.
    Range(range::Args),
    /// Readings that the cloud stored: list, follow.
    Reading(reading::Args),
    /// Templates: what the columns of rows mean that devices send instead of names and units.
    Template(template::Args),
    /// Tokens for the cloud's API: add, list, revoke.
    Token(token::Args),
    /// Emulated XBee modules on pseudo-terminals, for tests and demonstrations.
    #[command(hide = true)]
    XbeeAir(xbee_air::Args),
    /// Vaults: where the key comes from that opens a folder's secrets; rewrap, rekey, show.
    Vault(vault::Args),
    /// Why something was refused: which check, what was expected, what came, what to do now.
    Why(why::Args),
}

/// Whether these arguments, the program's name first, are a command; nothing is run.
///
/// # Errors
/// What is wrong with them, as the command would say it.
pub fn check(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    Args::command().try_get_matches_from(args).map(drop).map_err(|e| e.to_string())
}

/// Every command, as its words, e.g. `gateway add`; hidden ones too.
pub fn commands() -> Vec<String> {
    fn below(command: &clap::Command, words: &str, all: &mut Vec<String>) {
        let verbs: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        if verbs.is_empty() {
            all.push(words.to_owned());
        }
        for verb in verbs {
            below(verb, format!("{words} {}", verb.get_name()).trim_start(), all);
        }
    }
    let mut all = Vec::new();
    below(&Args::command(), "", &mut all);
    all
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match Args::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(2);
        }
    };
    operator::command::begins(&matches);
    let form = args.output;
    let output = match form.output() {
        Ok(output) => output,
        // Its report has all forms.
        Err(_) if matches!(args.noun, Noun::Audit(_)) => output::Output::Human,
        Err(error) => {
            output::error(output::Output::Human, &error);
            return ExitCode::from(2);
        }
    };
    let done = match args.noun {
        Noun::Alarm(args) => alarm::run(&args, output),
        Noun::Attack(args) => attack::run(&args),
        Noun::Audit(args) => audit::run(&args, form),
        Noun::Budget(args) => budget::run(&args, output),
        Noun::Cloud(args) => cloud::run(&args, output),
        Noun::Compare(args) => compare::run(&args, output),
        Noun::Completion(args) => Ok(completion::run(Args::command(), &args, output)),
        Noun::Config(args) => Ok(config::run(&args, output)),
        Noun::Demo(args) => demo::run(&args, output),
        Noun::Device(args) => device::run(&args, output),
        Noun::Evidence(args) => evidence::run(&args, output),
        Noun::Frame(args) => frame::run(&args, output),
        Noun::Gateway(args) => gateway::run(&args, output),
        Noun::Import(args) => import::run(&args, output),
        Noun::Init(args) => init::run(&args, output),
        Noun::Key(args) => key::run(&args, output),
        Noun::Log(args) => log::run(&args, output),
        Noun::Man(args) => completion::man(Args::command(), &args, output),
        Noun::Network(args) => network::run(&args, output),
        Noun::Node(args) => node::run(&args, output),
        Noun::Operator(args) => operator::deeds::run(&args, output),
        Noun::Outbox(args) => outbox::run(&args, output),
        Noun::Range(args) => range::run(&args, output),
        Noun::Reading(args) => reading::run(&args, output),
        Noun::Template(args) => template::run(&args, output),
        Noun::Token(args) => token::run(&args, output),
        Noun::Vault(args) => vault::run(&args, output),
        Noun::Why(args) => why::run(&args, output),
        Noun::XbeeAir(args) => xbee_air::run(&args),
    };
    done.unwrap_or_else(|error| {
        output::error(output, &error);
        ExitCode::from(2)
    })
}
