//! `fivefold import`: what another system knew.

use std::process::ExitCode;

use crate::meshlium;
use crate::output::Output;

/// Arguments of `fivefold import`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Take over what a Meshlium knew, from a dump of its database or from the running one: nodes, keys, sensors, history.
    Meshlium(meshlium::Import),
}

/// Runs the command.
///
/// # Errors
/// One sentence about what cannot be read or written.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let Verb::Meshlium(args) = &args.verb;
    args.run(output)
}
