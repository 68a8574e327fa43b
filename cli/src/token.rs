//! `fivefold token`: who may read the cloud's API.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer, table};

/// Arguments of `fivefold token`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Make a token. It is shown once; the cloud keeps its hash only.
    Add(Name),
    /// List all tokens, without what opens anything.
    List(Folder),
    /// Revoke a token.
    Revoke(Name),
}

#[derive(Clone, Debug, clap::Args)]
struct Name {
    #[command(flatten)]
    folder: Folder,
    /// Its name, e.g. who will use it.
    name: String,
}

/// Runs the command.
///
/// # Errors
/// The book refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Add(name) => {
            let (_, mut registry) = name.folder.open_book()?;
            let token = registry.add_token(&name.name, clock::now()?)?;
            answer(output, &json!({ "name": name.name, "token": token.as_str() }), || token.to_string());
        }
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let tokens = registry.tokens()?;
            let json_of = |t: &fivefold_keep::registry::Token| json!({ "name": t.name, "created_at": t.created_at, "revoked_at": t.revoked_at });
            answer(output, &Value::Array(tokens.iter().map(json_of).collect()), || {
                let mut t = table(&["NAME", "MADE", "STATE"]);
                for token in &tokens {
                    let state = token.revoked_at.map_or("active".into(), |at| format!("revoked {}", clock::text(at)));
                    t.add_row([token.name.clone(), clock::text(token.created_at), state]);
                }
                t.trim_fmt()
            });
        }
        Verb::Revoke(name) => {
            let (_, mut registry) = name.folder.open_book()?;
            registry.revoke_token(&name.name, clock::now()?)?;
            answer(output, &json!({ "name": name.name }), || format!("Revoked token {}.", name.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}
