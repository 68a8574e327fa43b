//! `fivefold compare`: what another system saw, beside what came here.

use std::process::ExitCode;

use crate::meshlium;
use crate::output::Output;

/// Arguments of `fivefold compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List what a Meshlium saw and we did not, and the other way round.
    Meshlium(meshlium::Compare),
}

/// Runs the command.
///
/// # Errors
/// One sentence about what cannot be read.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let Verb::Meshlium(args) = &args.verb;
    args.run(output)
}
