//! `fivefold device check`: what the book itself shows to be wrong.

use std::process::ExitCode;

use fivefold_keep::registry::Registry;
use serde_json::{Value, json};

use crate::operator::Folder;
use crate::output::{Output, answer};

pub(super) fn run(folder: &Folder, output: Output) -> anyhow::Result<ExitCode> {
    let (_, registry) = folder.open_book()?;
    let findings = registry.findings()?;
    let value = findings.iter().map(|f| json!({ "rule": f.rule, "text": f.text })).collect();
    answer(output, &Value::Array(value), || match findings.as_slice() {
        [] => "The book shows nothing that is wrong. What only gateways and readings show is not in it.".into(),
        findings => findings.iter().map(|f| format!("{}  {}", f.rule, f.text)).collect::<Vec<_>>().join("\n"),
    });
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What stands under a list of devices where something is wrong.
pub(super) fn hint(registry: &Registry) -> anyhow::Result<String> {
    let some = |n| format!("\n\n{n} finding{}: fivefold device check", if n == 1 { "" } else { "s" });
    Ok(Some(registry.findings()?.len()).filter(|n| *n > 0).map_or(String::new(), some))
}
