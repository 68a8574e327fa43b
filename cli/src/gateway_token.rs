//! `fivefold gateway token`: at the gateway, who may hand in classic frames at `/hw/ps`.

use std::path::PathBuf;

use fivefold_gateway::classic::http::tokens;
use fivefold_keep::files;
use fivefold_keep::share::GATEWAY_FILE;
use serde_json::{Value, json};

use crate::clock;
use crate::operator::{acted, check_name};
use crate::output::{Output, answer, table};

/// Arguments of `fivefold gateway token`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Make a token, or enter one that modules in the field have. It is shown once; the gateway keeps its hash only.
    Add(Add),
    /// List all tokens, without what opens anything.
    List(Folder),
    /// Take a token back: the running gateway knows within a second.
    Revoke(Name),
}

#[derive(Clone, Debug, clap::Args)]
struct Folder {
    /// The gateway's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct Name {
    #[command(flatten)]
    folder: Folder,
    /// Its name, e.g. who sends with it.
    name: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    name: Name,
    /// Enter the token in this file, which modules have already, in the place of a new one.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
}

impl Folder {
    fn checked(&self) -> anyhow::Result<&PathBuf> {
        let gateway = self.dir.join(GATEWAY_FILE);
        anyhow::ensure!(gateway.exists(), "{} is no gateway's folder: it has no {GATEWAY_FILE}", self.dir.display());
        Ok(&self.dir)
    }
}

/// Runs the command.
///
/// # Errors
/// The folder is no gateway's, the name is taken or unknown, a file.
pub(crate) fn token(args: &Token, output: Output) -> anyhow::Result<()> {
    match &args.verb {
        Verb::Add(add) => {
            let Name { folder, name } = &add.name;
            check_name(name)?;
            let known = add.known.as_deref().map(files::read_private).transpose()?;
            let known = known.as_deref().map(|bytes| std::str::from_utf8(bytes)).transpose()?.map(str::trim);
            let token = tokens::add(folder.checked()?, name, known, clock::now()?)?;
            let done = if known.is_some() { "token entered" } else { "token made" };
            let entered = acted(&folder.dir, done, format_args!("token {name}"));
            // It is shown before anything else may fail: it is valid, and nobody can ask for it again.
            if known.is_some() {
                answer(output, &json!({ "name": name }), || format!("Entered token {name}."));
            } else {
                answer(output, &json!({ "name": name, "token": token.as_str() }), || token.to_string());
            }
            entered?;
        }
        Verb::List(folder) => {
            let all = tokens::read(folder.checked()?)?;
            let json_of = |t: &tokens::Token| json!({ "name": t.name, "created_at": t.created_at });
            answer(output, &Value::Array(all.iter().map(json_of).collect()), || {
                let mut t = table(&["NAME", "MADE"]);
                for token in &all {
                    t.add_row([token.name.clone(), clock::text(token.created_at)]);
                }
                t.trim_fmt()
            });
        }
        Verb::Revoke(Name { folder, name }) => {
            tokens::revoke(folder.checked()?, name)?;
            acted(folder.checked()?, "token revoked", format_args!("token {name}"))?;
            answer(output, &json!({ "name": name }), || format!("Revoked token {name}."));
        }
    }
    Ok(())
}
