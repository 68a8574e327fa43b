//! How a command answers: for a person, or for a program (`-o json`, on every command).

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use serde_json::Value;

/// Form of the answer on standard output, as it is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For a person.
    #[default]
    #[value(alias = "text")]
    Human,
    /// One JSON value.
    Json,
    /// JUnit's XML, for build servers; of `fivefold audit` alone.
    Junit,
    /// SARIF 2.1.0, for code hosts; of `fivefold audit` alone.
    Sarif,
}

impl Form {
    /// What every command writes.
    ///
    /// # Errors
    /// The form is one of reports alone.
    pub fn output(self) -> anyhow::Result<Output> {
        match self {
            Self::Human => Ok(Output::Human),
            Self::Json => Ok(Output::Json),
            Self::Junit | Self::Sarif => {
                anyhow::bail!("only the report of fivefold audit has this form; type -o human or -o json")
            }
        }
    }
}

/// Form of the answer on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For a person.
    #[default]
    Human,
    /// One JSON value.
    Json,
}

/// Answers with `value`, or with `text` for a person.
pub fn answer(output: Output, value: &Value, text: impl FnOnce() -> String) {
    said(say(&match output {
        Output::Human => text(),
        Output::Json => printable(&format!("{value:#}")),
    }));
}

/// Answers a program with several values, one a line.
pub fn lines(values: &[Value]) {
    values.iter().for_each(|value| said(say(&printable(&value.to_string()))));
}

/// Writes a line, or several, to standard output. Whoever stopped reading has what he wanted.
///
/// # Errors
/// It cannot be written: an answer that is cut is none.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

fn said(done: io::Result<()>) {
    if let Err(e) = done {
        eprintln!("fivefold: cannot write the answer: {e}");
        std::process::exit(2);
    }
}

/// JSON without characters that a terminal obeys. Those below 0x20 are escaped already, and what is left stands in strings
/// alone.
pub(crate) fn printable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                text += &format!("\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

/// Says what went wrong, on standard error; a program gets it as JSON.
pub fn error(output: Output, error: &anyhow::Error) {
    let text = sentence(error);
    match output {
        Output::Human => eprintln!("fivefold: {text}"),
        Output::Json => eprintln!("{}", serde_json::json!({ "error": text })),
    }
}

/// The error and its causes in one sentence, none of them twice.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// A table for people: no lines but one under the head.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    table
}

/// Words of a daemon, on standard error: as much as RUST_LOG says, else what an operator wants to know.
pub fn log(output: Output) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // A second subscriber is refused: the first one stays.
    let _ = match output {
        Output::Human => log.with_target(false).try_init(),
        Output::Json => log.json().try_init(),
    };
}
