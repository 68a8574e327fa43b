//! `fivefold log`: the deployment's log, witnesses and monitors of anybody's.

mod check;
mod monitor;
mod remote;
mod show;
mod witness;

use std::process::ExitCode;

use fivefold_evidence::note::VKey;

use crate::output::Output;

/// Arguments of `fivefold log`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Read all static files of a log: every entry against its hash, every hash against those below, the root against the
    /// signed head.
    Check(check::Args),
    /// Look whether a log goes on from what it showed before, and whether its witnesses are still there. Exit code 1 when
    /// something is wrong (EV-05).
    Monitor(monitor::Args),
    /// Show the log of an operator's cloud: its name and key to pin, its size, and what witnesses said.
    Show(show::Args),
    /// Run a witness: cosign heads of logs, each only if it goes on from the one before.
    Witness(witness::Args),
}

/// Runs the command.
///
/// # Errors
/// One sentence about what is in the way.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Check(args) => check::run(args, output),
        Verb::Monitor(args) => monitor::run(args, output),
        Verb::Show(args) => show::run(args, output),
        Verb::Witness(args) => witness::run(args, output),
    }
}

/// A key as an argument.
fn vkey(text: &str) -> Result<VKey, String> {
    text.trim().parse().map_err(|e| format!("{e}; write it as `fivefold log show` or a witness prints it"))
}
