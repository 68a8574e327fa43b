//! `fivefold completion SHELL`: the words of this command, for a shell to complete; `fivefold man DIR`: its manual pages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;
use serde_json::json;

use crate::output::{Output, answer};

/// Arguments of `fivefold completion`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of which shell. For bash: fivefold completion bash > ~/.local/share/bash-completion/completions/fivefold
    shell: Shell,
}

/// Arguments of `fivefold man`.
#[derive(Clone, Debug, clap::Args)]
pub struct Man {
    /// Folder to write the pages into, one for each command; it is made if it is not there.
    dir: PathBuf,
}

/// Prints what the shell reads.
#[must_use]
pub fn run(mut command: clap::Command, args: &Args, output: Output) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fivefold", &mut script);
    let script = String::from_utf8_lossy(&script);
    answer(output, &json!({ "shell": args.shell.to_string(), "script": script }), || script.trim_end().to_owned());
    ExitCode::SUCCESS
}

/// Writes the pages.
///
/// # Errors
/// The folder or a page cannot be written.
pub fn man(command: clap::Command, args: &Man, output: Output) -> anyhow::Result<ExitCode> {
    use anyhow::Context as _;

    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(command, dir).with_context(|| format!("cannot write into {}", dir.display()))?;
    let pages = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.count();
    let value = json!({ "dir": dir, "pages": pages });
    answer(output, &value, || format!("Wrote {pages} pages. Read one with: man {}/fivefold.1", dir.display()));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_is_completed_by_every_shell() {
        fn below(command: &clap::Command, words: &str, all: &mut Vec<String>) {
            for verb in command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
                let words = format!("{words}-{}", verb.get_name());
                below(verb, &words, all);
                all.push(words);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let args = Man { dir: folder.path().join("man1") };
        man(crate::Args::command(), &args, Output::Json).unwrap();
        let mut all = Vec::new();
        below(&crate::Args::command(), "fivefold", &mut all);
        assert!(all.len() > 50, "{all:?}");
        for words in &all {
            let page =
                std::fs::read_to_string(args.dir.join(format!("{words}.1"))).unwrap_or_else(|e| panic!("{words}: {e}"));
            assert!(page.contains(".SH SYNOPSIS"), "{words}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::Args::command(), "fivefold", &mut script);
            let script = String::from_utf8(script).unwrap();
            for words in &all {
                let last = words.rsplit('-').next().unwrap();
                assert!(script.contains(last), "{shell}: {words}");
            }
        }
    }
}
