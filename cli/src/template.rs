//! `fivefold template`: what the columns of rows mean that devices send instead of names and units.

use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_core::reading::Definition;
use fivefold_keep::registry::{Network, RegisteredTemplate};
use fivefold_keep::templates;
use serde_json::{Value, json};

use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer, table};

/// Arguments of `fivefold template`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Register the templates of a TOML file (docs/operate.md) for the devices of a network. An id keeps its definition for ever.
    Add(Add),
    /// List all templates with their columns.
    List(Folder),
}

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    folder: Folder,
    /// Network whose devices send such rows: its name or id.
    #[arg(long, value_name = "NAME")]
    net: String,
    /// The file.
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The file is wrong, or the book refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Add(add) => {
            let templates = templates::read_file(&add.file)?;
            let (_, mut registry) = add.folder.open_book()?;
            let (network, new) = registry.add_templates(&add.net, &templates, clock::now()?)?;
            let mut all = registry.templates()?;
            all.retain(|t| t.net == network.net && templates.iter().any(|new| new.id == t.id));
            let value = json!({ "net": network.net.to_string(), "new": new, "templates": all.iter().map(json_of).collect::<Vec<_>>() });
            answer(output, &value, || {
                let known = templates.len() - new;
                let known = if known == 0 { String::new() } else { format!(" {known} had been registered before.") };
                let s = if new == 1 { "" } else { "s" };
                format!(
                    "Registered {new} template{s} for network {}.{known}\n\n{}",
                    network.name,
                    listed(&all, std::slice::from_ref(&network))
                )
            });
        }
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let (all, networks) = (registry.templates()?, registry.networks()?);
            answer(output, &Value::Array(all.iter().map(json_of).collect()), || {
                if all.is_empty() {
                    return "No templates; register some: fivefold template add FILE --net NAME".to_owned();
                }
                listed(&all, &networks)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(all: &[RegisteredTemplate], networks: &[Network]) -> String {
    let mut t = table(&["NETWORK", "ID", "ADDED", "COLUMNS"]);
    for one in all {
        let name = networks.iter().find(|n| n.net == one.net).map_or_else(|| one.net.to_string(), |n| n.name.clone());
        let column = |(name, unit): (String, Option<String>)| match unit {
            Some(unit) => format!("{name} [{unit}]"),
            None => name,
        };
        let columns: Vec<String> = columns(one).into_iter().map(column).collect();
        t.add_row([name, one.id.to_string(), clock::text(one.added_at), columns.join(", ")]);
    }
    t.trim_fmt()
}

fn columns(one: &RegisteredTemplate) -> Vec<(String, Option<String>)> {
    let definition = Definition::parse(&one.definition).ok();
    let columns = definition.iter().flat_map(Definition::columns);
    columns.map(|c| (c.name.to_owned(), c.unit.map(str::to_owned))).collect()
}

fn json_of(one: &RegisteredTemplate) -> Value {
    let columns: Vec<Value> =
        columns(one).into_iter().map(|(name, unit)| json!({ "name": name, "unit": unit })).collect();
    let hash = Definition::parse(&one.definition).map(|d| hex::encode(d.hash())).ok();
    json!({
        "net": one.net.to_string(), "id": one.id, "columns": columns, "definition": hex::encode(&one.definition),
        "sha256": hash, "added_at": one.added_at,
    })
}
