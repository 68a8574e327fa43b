//! How a command answers: for a person, or for a program (`-o json`, on every command).

use comfy_table::{Table, presets};
use serde_json::Value;

/// Form of the answer on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For a person.
    #[default]
    Human,
    /// One JSON value.
    Json,
}

/// Answers with `value`, or with `text` for a person.
pub fn answer(output: Output, value: &Value, text: impl FnOnce() -> String) {
    match output {
        Output::Human => println!("{}", text()),
        Output::Json => println!("{value:#}"),
    }
}

/// Says what went wrong, on standard error; a program gets it as JSON.
pub fn error(output: Output, error: &anyhow::Error) {
    let text = format!("{error:#}");
    match output {
        Output::Human => eprintln!("fivefold: {text}"),
        Output::Json => eprintln!("{}", serde_json::json!({ "error": text })),
    }
}

/// A table for people: no lines but one under the head.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    table
}
