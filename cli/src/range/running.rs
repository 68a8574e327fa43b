//! Processes of the deployment that run on this machine, found by their words: whoever attacks his own deployment starts and
//! ends them, and reads in their logs what nodes really sent.

use std::path::{Path, PathBuf};

use crate::demo::processes::{CREDENTIALS, Process};

/// A process of this program.
#[derive(Clone, Debug)]
pub(super) struct Running {
    id: u32,
    /// Its words, without the program's name.
    words: Vec<String>,
    /// Where relative paths in them begin.
    cwd: PathBuf,
    /// The file that its standard output goes to, if it is one.
    log: Option<PathBuf>,
}

/// All that can be seen.
pub(super) fn all() -> Vec<Running> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(of).collect()
}

fn of(id: u32) -> Option<Running> {
    let at = PathBuf::from(format!("/proc/{id}"));
    let name = |path: &Path| path.file_name().map(ToOwned::to_owned);
    // A program that was replaced since is the same still.
    let program = std::fs::read_link(at.join("exe")).ok()?;
    let program = PathBuf::from(program.to_str()?.trim_end_matches(" (deleted)"));
    if name(&program)? != name(&std::env::current_exe().ok()?)? {
        return None;
    }
    let line = std::fs::read(at.join("cmdline")).ok()?;
    let line = String::from_utf8(line).ok()?;
    let words = line.split_terminator('\0').skip(1).map(str::to_owned).collect();
    let log = std::fs::read_link(at.join("fd/1")).ok().filter(|log| log.is_file());
    Some(Running { id, words, cwd: std::fs::read_link(at.join("cwd")).ok()?, log })
}

impl Running {
    /// Whether it does this, e.g. `gateway run`.
    pub(super) fn does(&self, noun: &str, verb: &str) -> bool {
        self.words.windows(2).any(|pair| pair == [noun, verb])
    }

    /// The value of an option.
    pub(super) fn option(&self, option: &str) -> Option<&str> {
        let with = format!("{option}=");
        let inline = self.words.iter().find_map(|word| word.strip_prefix(&with));
        let at = self.words.iter().position(|word| word == option);
        inline.or_else(|| at.and_then(|at| self.words.get(at + 1)).map(String::as_str))
    }

    /// The same as a path.
    pub(super) fn path(&self, option: &str) -> Option<PathBuf> {
        self.option(option).map(|path| self.cwd.join(path))
    }

    /// Whether its folder is this one.
    pub(super) fn is_of(&self, folder: &Path) -> bool {
        let real = |path: PathBuf| path.canonicalize().ok();
        self.path("--dir").and_then(real).is_some_and(|dir| Some(dir) == real(folder.to_owned()))
    }

    /// Whether its log lies below this folder.
    pub(super) fn writes_below(&self, folder: &Path) -> bool {
        folder.canonicalize().is_ok_and(|folder| self.log.as_ref().is_some_and(|log| log.starts_with(folder)))
    }

    /// As a process that can be ended and started again.
    ///
    /// # Errors
    /// What it says goes nowhere where it can be read.
    pub(super) fn process(&self, name: &str) -> Result<Process, String> {
        let log = self.log.clone().ok_or_else(|| {
            format!("{name} writes to no file: start it with -o json, and its output into a file that ends in .log")
        })?;
        if self.option("-o").or_else(|| self.option("--output")) != Some("json") {
            return Err(format!("{name} does not say what it does as JSON: start it with -o json"));
        }
        let surroundings = std::fs::read(format!("/proc/{}/environ", self.id)).unwrap_or_default();
        let with = format!("{CREDENTIALS}=");
        let mut all = surroundings.split(|byte| *byte == 0);
        let folder = all.find_map(|one| Some(PathBuf::from(str::from_utf8(one).ok()?.strip_prefix(&with)?)));
        Ok(Process::found(name, self.id, self.words.clone(), log).with_credentials(folder.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_process_say_what_it_does_and_where() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("g")).unwrap();
        let words = ["-o", "json", "gateway", "run", "--dir", "g", "--every=2"].map(str::to_owned).to_vec();
        let running = Running { id: 1, words, cwd: folder.path().to_owned(), log: None };
        assert!(running.does("gateway", "run") && !running.does("node", "run"));
        assert!(running.is_of(&folder.path().join("g")) && !running.is_of(folder.path()));
        assert_eq!((running.option("--every"), running.option("--serial")), (Some("2"), None));
        assert!(running.process("it").unwrap_err().contains("start it with -o json"));
    }
}
