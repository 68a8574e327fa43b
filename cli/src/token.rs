//! `fivefold token`: who may use the cloud's API, for what, and until when.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_cloud::config::Config;
use fivefold_cloud::store::{TokenUse, token_uses};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{Scope, Token};
use fivefold_keep::share::CLOUD_FILE;
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
    Add(Add),
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

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    name: Name,
    /// What it is for; each does what those before it do. read: readings, devices, gateways. audit: evidence, explanations, what is
    /// weak. operate: commands for devices. admin: other tokens.
    #[arg(long, default_value = "read", value_name = "read|audit|operate|admin")]
    scope: Scope,
    /// When it ends: a day in UTC, as in 2027-01-01, at its beginning, or so many days from now, as in 90d.
    #[arg(long, default_value = "365d", value_name = "DAY|90d", value_parser = end)]
    ends: End,
    /// Write the token here (mode 600) instead of showing it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An end, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    At(u64),
    Days(u32),
}

impl End {
    fn after(self, now: u64) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Days(days) => now.saturating_add(u64::from(days) * 86_400),
        }
    }
}

fn end(text: &str) -> Result<End, String> {
    let days = text.strip_suffix('d').filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    match days.map(str::parse::<u32>) {
        Some(Ok(days @ 1..=36_500)) => Ok(End::Days(days)),
        Some(_) => Err(format!("`{text}` is no end; days are 1d to 36500d")),
        None => clock::parse(text).map(End::At).map_err(|wrong| format!("{wrong}, or so many days, as in 90d")),
    }
}

/// Runs the command.
///
/// # Errors
/// The book refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Add(Add { name: Name { folder, name }, scope, ends, token_file }) => {
            let (_, mut registry) = folder.open_book()?;
            let now = clock::now()?;
            let ends = ends.after(now);
            let token = registry.add_token_kept(name, *scope, ends, now, |token| match token_file {
                Some(file) => files::write(file, Readers::Owner, format!("{token}\n").as_bytes()),
                None => Ok(()),
            })?;
            let text = token_file.is_none().then(|| token.as_str());
            let shown = json!({ "name": name, "scope": scope.as_str(), "ends_at": ends, "token": text, "token_file": token_file });
            answer(output, &shown, || match token_file {
                Some(file) => format!("Made token {name}. It is in {}, and nowhere else.", file.display()),
                None => token.to_string(),
            });
        }
        Verb::List(folder) => list(folder, output)?,
        Verb::Revoke(name) => {
            let (_, mut registry) = name.folder.open_book()?;
            registry.revoke_token(&name.name, clock::now()?)?;
            answer(output, &json!({ "name": name.name }), || format!("Revoked token {}.", name.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Folder, output: Output) -> anyhow::Result<()> {
    let (_, registry) = folder.open_book()?;
    let (tokens, now) = (registry.tokens()?, clock::now()?);
    let uses = uses(folder);
    let used = |token: &Token| uses.as_ref().ok().and_then(|uses| uses.get(&token.hash));
    let json_of = |t: &Token| {
        json!({
            "name": t.name, "scope": t.scope.as_str(), "created_at": t.created_at, "ends_at": t.ends_at,
            "revoked_at": t.revoked_at, "used_at": used(t).map(|u| u.at.0 / 1000), "used_from": used(t).map(|u| &u.place),
        })
    };
    answer(output, &Value::Array(tokens.iter().map(json_of).collect()), || {
        let mut shown = table(&["NAME", "SCOPE", "MADE", "ENDS", "LAST USED", "STATE"]);
        for token in &tokens {
            let state = match token.revoked_at {
                Some(at) => format!("revoked {}", clock::minute(at)),
                None if token.has_ended(now) => "ended".into(),
                None => "active".into(),
            };
            let last = match (&uses, used(token)) {
                (_, Some(last)) => format!("{} from {}", clock::minute(last.at.0 / 1000), last.place),
                (Ok(_), None) => "never".into(),
                (Err(_), None) => "not known".into(),
            };
            shown.add_row([
                token.name.clone(),
                token.scope.to_string(),
                clock::minute(token.created_at),
                token.ends_at.map_or("never".into(), clock::minute),
                last,
                state,
            ]);
        }
        let why = uses.as_ref().err().map(|why| format!("\nWhen they were used last is not known here: {why}"));
        shown.trim_fmt() + &why.unwrap_or_default()
    });
    Ok(())
}

/// When each token was used last, as the cloud of this folder wrote it; or why nobody knows.
fn uses(folder: &Folder) -> Result<HashMap<[u8; 32], TokenUse>, String> {
    let cloud = folder.dir.join("cloud");
    if !cloud.join(CLOUD_FILE).exists() {
        return Err("the cloud runs elsewhere; its API tells, at /v1/tokens.".into());
    }
    let config = Config::load(&cloud).map_err(|wrong| wrong.to_string())?;
    if !config.store.exists() {
        return Ok(HashMap::new());
    }
    let uses = token_uses(&config.store).map_err(|wrong| wrong.to_string())?;
    Ok(uses.into_iter().map(|u| (u.hash, u)).collect())
}

#[cfg(test)]
mod tests {
    use super::{End, end};

    #[test]
    fn an_end_is_a_day_or_so_many_days_from_now_and_nothing_else() {
        assert_eq!(end("2027-01-01"), Ok(End::At(1_798_761_600)));
        assert_eq!(end("90d").map(|end| end.after(1000)), Ok(1000 + 90 * 86_400));
        for none in
            ["", "d", "0d", "90", "-1d", "+1d", "36501d", "99999999999999999999d", "2027-13-01", "tomorrow", "never"]
        {
            let said = end(none).unwrap_err();
            assert!(said.contains("days") && !said.contains('\n'), "{said}");
        }
    }
}
